-- A session's events without gap: the stream is opened first, then history is listed up to where the
-- stream takes over. When the stream breaks (the script fell behind, the server dropped it) the feed does
-- the same again from the last event it gave out. It works on any transport (moonrig.api).
--
-- Times: limit(seconds) sets when next() gives up, with a timeout_error; the feed can go on after that.
local native = require "moonrig.native"
local api = require "moonrig.api"
local err = require "moonrig.err"
local task = require "moonrig.task"

local Feed = {}
Feed.__index = Feed

local MAX_BREAKS, PAGE = 20, 1000 -- breaks in a row, without an event between them

---@class moonrig.FeedOptions
---@field after? string     begin after this event
---@field live? boolean     nothing of before now
---@field since? string     nothing older than this time, as the server writes it
---@field turn? boolean     as live; after a break all history may come (the reader knows what it looks for)
---@field thread? string    the events of this thread alone; not with live, turn or since
---@field deltas? boolean   previews of the agent's text too: event_start, event_delta
---@field patient? boolean  a server that is away is waited for; on_away(err), on_back() tell (fields of the feed)

---@param session_id string
---@param o moonrig.FeedOptions
---@param transport? moonrig.Transport default: the runtime of these scripts
function Feed.new(session_id, o, transport)
  return setmetatable({ id = session_id, thread = o.thread, after = o.after, live = (o.live or o.turn) and not o.after, turn = o.turn,
    since = o.since, deltas = o.deltas, patient = o.patient, breaks = 0, transport = transport or api }, Feed)
end

-- ---------------------------------------------------------------------------------------------------- limits

---next() gives up this long from now; nil: never. Returns what takes the limit away again.
---@param seconds? number
---@return fun()
function Feed:limit(seconds)
  if not seconds then
    self.ends = nil
    return function() end
  end
  self.ends, self.late = native.mono() + seconds, false
  local dog = task.spawn(function()
    task.sleep(seconds)
    self.late = true
    if self.stream then -- who waits for its next event gets nothing
      self.transport.stream_close(self.stream)
      self.stream = nil
    end
  end)
  return function()
    self.ends, self.late = nil, false
    if not dog.done then dog:cancel() end
  end
end

---Options of a call within the limit.
function Feed:opts()
  return self.ends and { timeout = math.max(self.ends - native.mono(), 0.001) } or nil
end

local function too_late() return err.new("timeout_error", "nothing came in time", { retryable = true }) end

-- --------------------------------------------------------------------------------------------------- reading

---The operation's name, and its parameters with what they are about.
function Feed:op(what, params)
  params.session_id, params.thread_id = self.id, self.thread
  return (self.thread and "sessions.threads.events." or "sessions.events.") .. what, params
end

---The id of the newest event that is in the log.
function Feed:newest()
  local page, e = self.transport.call("sessions.events.list",
    { session_id = self.id, order = "desc", limit = 100 }, self:opts())
  if not page then return nil, e end
  for _, ev in ipairs(page.data) do
    if ev.processed_at then return ev.id end
  end
end

---Does this failure to reach the server pass by itself? A server that starts again has another key for its own machine.
function Feed:passes(e)
  return self.patient and (not e or not e.status or e.status >= 500 or e.status == 401 or e.retryable)
end

---Opens the stream. true, or nil, err.
function Feed:open()
  local name, params = self:op("stream", {})
  if self.deltas then params.event_deltas = { "agent.message" } end
  local st, e = self.transport.stream_open(name, params, self:opts())
  if not st then return nil, e end
  self.stream, self.seen, self.page, self.opened = st, {}, nil, true
  self.listing = not self.live
  if self.away then
    self.away = nil
    if self.on_back then self.on_back() end
  end
  if self.live and not self.turn then
    self.after, e = self:newest()
    if e then
      self.transport.stream_close(st)
      self.stream = nil
      return nil, e
    end
  end
  self.live = false
  return true
end

function Feed:close()
  if self.stream then self.transport.stream_close(self.stream) end
  self.stream, self.page, self.ended = nil, nil, true
end

---The page to read from; nothing when history is all given out; nil, err.
function Feed:turn_page()
  local page = self.page
  if page and self.at <= #page.data then return page end
  if page and not page.next_page then
    self.listing, self.page = false, nil
    if self.on_live then self.on_live() end
    if self.skipping then
      return nil, err.new("not_found_error", ("the session has no event %s"):format(self.after))
    end
    return nil
  end
  local e
  if not page then -- after a break: from the last event on, not all from the start
    local from = not self.thread and (self.after_at or not self.after and self.since)
    self.range = from and { gte = from } or nil
  end
  local name, params = self:op("list", { limit = PAGE, page = page and page.next_page, created_at = self.range })
  page, e = self.transport.call(name, params, self:opts())
  if not page then return nil, e end
  if not self.page then self.skipping = self.after ~= nil end
  self.page, self.at = page, 1
  return page
end

---One event of the history; nothing when it is all given out; nil, err.
function Feed:history()
  while self.listing do
    local page, e = self:turn_page()
    if not page then return nil, e end
    local ev = page.data[self.at]
    self.at = self.at + 1
    if ev and self.skipping then
      self.seen[ev.id] = true
      if ev.id == self.after then self.skipping = false end
    elseif ev and ev.processed_at then
      self.seen[ev.id] = true
      self.after, self.after_at = ev.id, ev.processed_at
      return ev
    end -- an input that still waits comes over the stream when it is taken
  end
end

function Feed:over(ev)
  return ev.type == "session.status_terminated" or ev.type == "session.deleted"
    or (self.thread and ev.type == "session.thread_status_terminated" and ev.session_thread_id == self.thread)
end

---Was it, or what it previews, listed already?
function Feed:known(ev)
  local id = ev.id or ev.event_id or (ev.event and ev.event.id)
  return id and self.seen[id]
end

---After the stream ended: true to go on, or nil, err.
function Feed:broke(e)
  if self.stream then self.transport.stream_close(self.stream) end
  self.stream = nil
  self.breaks = self.breaks + 1
  if self:passes(e) then
    if self.breaks > 1 and not self.away then
      self.away = true
      if self.on_away then self.on_away(e) end
    end
  elseif self.breaks > MAX_BREAKS or (e and e.status and e.status < 500 and not e.retryable) then
    self.ended = true
    return nil, e or err.new("closed", "the event stream ended")
  end
  if self.breaks > 1 then task.sleep(math.min(0.05 * 2 ^ math.min(self.breaks, 10), 2)) end
  return true
end

---The next event of the stream; nothing when there is none to give out yet; nil, err.
function Feed:live_event()
  local ev, e = self.transport.stream_next(self.stream)
  if self.late or self.ended then return nil end
  if not ev then
    local _, why = self:broke(e)
    return nil, why
  end
  if self:known(ev) then return nil end
  if ev.id and ev.processed_at then
    self.after, self.after_at = ev.id, ev.processed_at
    if next(self.seen) then self.seen = {} end -- the stream is past what was listed
  end
  return ev
end

---May it go on after this failure to open or list? true, or nil, err.
function Feed:survives(e)
  if self.ends and e.type == "timeout_error" then return nil, e end
  if self.opened and (e.retryable or self:passes(e)) then return self:broke(e) end
  self:close()
  return nil, e
end

---The next event; nothing after the session's last; nil, err. After a timeout_error it can be called again.
function Feed:next()
  while not self.ended do
    if self.late or (self.ends and native.mono() >= self.ends) then return nil, too_late() end
    local ev, e, ok
    if not self.stream then
      ok, e = self:open()
      if not ok then ok, e = self:survives(e) end
      if not ok then return nil, e end
    end
    if self.stream and self.listing then
      ev, e = self:history()
      if e then ok, e = self:survives(e) end
    end
    if not ev and not e and not self.listing and self.stream then
      ev, e = self:live_event()
      if e then self:close() end
    end
    if e then return nil, e end
    if ev then
      self.breaks = 0
      if self:over(ev) then self:close() end
      return ev
    end
  end
end

return Feed
