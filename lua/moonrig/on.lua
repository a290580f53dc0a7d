-- rig.on: a function that sees events after they are committed; per session in order, one at a time.
-- Best effort from the moment the scripts become current: it looks for sessions once a second, follows
-- those that do something, and goes on after a reload where it was. No position survives a restart.
local native = require "moonrig.native"
local api = require "moonrig.api"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local Feed = require "moonrig.feed"
local task = require "moonrig.task"

local M = {}

local LOOK_EVERY, FOLLOW_MAX, REMEMBER = 1, 200, 5000
local position, order = {}, {} -- session id to the last event given out; oldest first
local began                    -- when this VM started to look, as the server's clock writes it

---@class moonrig.OnOptions
---@field name string
---@field event string|string[] event types
---@field agent? string name or id
---@field run fun(event: table, session: moonrig.Session)

---Declares a watcher.
---@param o moonrig.OnOptions
function M.on(o)
  declare.keys("rig.on", o, "name event agent run durable")
  declare.check("rig.on", o, "name", "string", true)
  declare.check("rig.on", o, "run", "function", true)
  if o.durable then native.raise("rig.on: durable watchers are not there yet; leave durable out for best effort") end
  local types = {}
  for _, t in ipairs(type(o.event) == "table" and o.event or { o.event }) do types[t] = true end
  if not next(types) then err.misuse("rig.on: event is missing, e.g. \"session.status_idle\"") end
  local agent = type(o.agent) == "table" and o.agent.name or o.agent
  local d = { name = o.name, types = types, agent = agent, run = o.run }
  declare.add("on", "rig.on", d)
  return d
end

local function remember(id, event_id)
  if not position[id] then
    order[#order + 1] = id
    if #order > REMEMBER then position[table.remove(order, 1)] = nil end
  end
  position[id] = event_id
end

local function deliver(g, wire, ev)
  local session = require "moonrig.session"
  for _, d in ipairs(g.decls.on) do
    local on = d.decl
    local agent = wire.agent or {}
    if on.types[ev.type] and (not on.agent or on.agent == agent.name or on.agent == agent.id) then
      local ok, e = pcall(on.run, ev, session.handle(wire.id, wire))
      if not ok then
        if native.cancelled() then error(e, 0) end
        native.log(0, "on " .. on.name, err.text(e))
      end
    end
  end
end

local function follow(g, wire, followed)
  local after = position[wire.id]
  local feed = Feed.new(wire.id, { after = after, live = not after and wire.created_at < began })
  local ok, e = pcall(function()
    while true do
      local ev, why = feed:next()
      if not ev then
        if why then error(why, 0) end
        return
      end
      if ev.processed_at then
        deliver(g, wire, ev)
        remember(wire.id, ev.id)
        local reason = ev.type == "session.status_idle" and ev.stop_reason and ev.stop_reason.type
        if reason and reason ~= "requires_action" then return end
      end
    end
  end)
  feed:close()
  followed[wire.id] = nil
  if not ok then error(e, 0) end
end

local function look(g, followed, count)
  local function consider(params)
    local page, e = api.call("sessions.list", params)
    if not page then
      native.log(1, "rig.on", err.text(e))
      return
    end
    for _, wire in ipairs(page.data) do
      local fresh = wire.created_at >= began and not position[wire.id]
      if not followed[wire.id] and (fresh or wire.status == "running" or wire.status == "rescheduling") and count() < FOLLOW_MAX then
        followed[wire.id] = task.spawn(follow, g, wire, followed)
      end
    end
  end
  consider { limit = 50 }
  consider { limit = FOLLOW_MAX, statuses = { "running", "rescheduling" } }
end

---The generation's watcher task; ends when the generation is replaced.
function M.start(g)
  if #g.decls.on == 0 then return end
  began = began or os.date("!%Y-%m-%dT%H:%M:%S", math.floor(native.now()))
  local followed = {}
  local function count()
    local n = 0
    for _ in pairs(followed) do n = n + 1 end
    return n
  end
  while true do
    look(g, followed, count)
    task.sleep(LOOK_EVERY)
  end
end

return M
