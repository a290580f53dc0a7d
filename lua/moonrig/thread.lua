-- Threads of a session, as session:threads() gives them: an agent at work with a history of its own.
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local Feed = require "moonrig.feed"
local follower = require "moonrig.follower"

local M = {}

---@class moonrig.Thread has the fields of the API's object as they were when it was read
---@field id string
---@field session_id string
---@field parent_thread_id? string none: the primary
---@field status? string "idle", "running", "rescheduling", "terminated"
---@field agent? table its name, model and so on
---@field usage? table
---@field [string] any
local Thread = { __mr = "id", __name = "moonrig.thread" }
---@class moonrig.Thread
local methods = {}

function Thread.__index(th, key) return methods[key] or rawget(th, "wire")[key] end
function Thread.__tostring(th) return "thread " .. th.id end
function Thread.__eq(a, b) return a.id == b.id end

function M.handle(session, wire, transport)
  return setmetatable({ id = wire.id, wire = wire, session_id = session.id, transport = transport }, Thread)
end

local function options(what, o, allowed)
  o = o or {}
  declare.keys(what, o, allowed)
  declare.check(what, o, "timeout", "number")
  if o.timeout and not (o.timeout > 0 and o.timeout <= 1e6) then
    err.misuse("%s: timeout is seconds, more than 0, at most 1e6", what)
  end
  return o
end

local function call(th, name, params, o)
  params.session_id, params.thread_id = th.session_id, th.id
  return rawget(th, "transport").call(name, params, o and { timeout = o.timeout } or nil)
end

---All its events, oldest first.
---@param o? { timeout?: number } seconds, for each page
---@return table[]?
---@return moonrig.Error?
function methods:events(o)
  o = options("thread:events", o, "timeout")
  local list, page, e = {}, nil, nil
  repeat
    page, e = call(self, "sessions.threads.events.list", { limit = 1000, page = page and page.next_page }, o)
    if not page then return nil, e end
    for _, ev in ipairs(page.data) do list[#list + 1] = ev end
  until not page.next_page
  return list
end

---Iterates over its events: history from the start (or after an event id), then live, with no gap, until it ends.
---As session:follow.
---@param o? { after?: string, deltas?: boolean, timeout?: number }
---@return moonrig.Follower
function methods:follow(o)
  o = options("thread:follow", o, "after deltas timeout")
  return follower.new(Feed.new(self.session_id, { thread = self.id, after = o.after, deltas = o.deltas },
    rawget(self, "transport")), o.timeout)
end

---Stops what it does now; the session's other threads go on.
---@param o? { timeout?: number } seconds
---@return table? event as stored
---@return moonrig.Error? err
function methods:interrupt(o)
  o = options("thread:interrupt", o, "timeout")
  local r, e = rawget(self, "transport").call("sessions.events.send",
    { session_id = self.session_id, events = { { type = "user.interrupt", session_thread_id = self.id } } }, o)
  if not r then return nil, e end
  return r.data[1]
end

---Ends it for good; its history stays, and it counts no more among the threads that a coordinator may have.
---@param o? { timeout?: number } seconds
---@return table? thread
---@return moonrig.Error? err
function methods:archive(o)
  o = options("thread:archive", o, "timeout")
  return call(self, "sessions.threads.archive", {}, o)
end

---Reads it again from the server; its fields are then up to date.
---@param o? { timeout?: number } seconds
---@return moonrig.Thread?
---@return moonrig.Error?
function methods:refresh(o)
  o = options("thread:refresh", o, "timeout")
  local wire, e = call(self, "sessions.threads.retrieve", {}, o)
  if not wire then return nil, e end
  rawset(self, "wire", wire)
  return self
end

return M
