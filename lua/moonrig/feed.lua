-- A session's events without gap: the stream is opened first, then history is listed up to where the
-- stream takes over. When the stream breaks (the script fell behind, the server dropped it) the feed does
-- the same again from the last event it gave out.
local native = require "moonrig.native"
local api = require "moonrig.api"
local err = require "moonrig.err"
local wait = require "moonrig.wait"

local Feed = {}
Feed.__index = Feed
local next_event = wait(native.stream_next)

local MAX_BREAKS = 20 -- in a row, without an event between them

---@param session_id string
---@param o { after?: string, live?: boolean, deltas?: boolean } live: no history before now
function Feed.new(session_id, o)
  return setmetatable({ id = session_id, after = o.after, live = o.live, deltas = o.deltas, breaks = 0 }, Feed)
end

---Opens the stream. true, or nil, err.
function Feed:open()
  local params = { session_id = self.id }
  if self.deltas then params.event_deltas = { "agent.message" } end
  local st, e = native.stream_open("sessions.events.stream", params)
  if not st then return nil, e end
  self.stream, self.seen = st, {}
  self.page = nil
  self.listing = not self.live
  self.live = false
  return true
end

function Feed:close()
  if self.stream then native.stream_close(self.stream) end
  self.stream, self.ended = nil, true
end

---One event of the history, or nothing when it is all given out.
function Feed:history()
  while self.listing do
    local page = self.page
    if not page or self.at > #page.data then
      if page and not page.next_page then
        self.listing, self.page = false, nil
        if self.skipping then
          return nil, err.new("not_found_error", ("the session has no event %s"):format(self.after))
        end
        return nil
      end
      local e
      page, e = api.call("sessions.events.list", { session_id = self.id, limit = 1000, page = page and page.next_page })
      if not page then return nil, e end
      if not self.page and self.after then self.skipping = true end
      self.page, self.at = page, 1
    end
    local ev = page.data[self.at]
    self.at = self.at + 1
    if ev then
      if self.skipping then
        if ev.id == self.after then self.skipping = false end
        self.seen[ev.id] = true
      elseif ev.processed_at then
        self.seen[ev.id] = true
        self.after = ev.id
        return ev
      end -- an input that still waits: the stream brings it when it is taken
    end
  end
end

local function over(ev)
  return ev.type == "session.status_terminated" or ev.type == "session.deleted"
end

---The next event; nothing after the session's last; nil, err.
function Feed:next()
  while true do
    if self.ended then return nil end
    if not self.stream then
      local ok, e = self:open()
      if not ok then
        if self.last and over(self.last) then return nil end
        return nil, e
      end
    end
    local ev, e
    if self.listing then
      ev, e = self:history()
      if e then return nil, e end
    end
    if not ev and not self.listing then
      ev, e = next_event(self.stream)
      if ev and ev.id and self.seen[ev.id] then
        ev = nil
      elseif ev then
        if ev.id and ev.processed_at then
          self.after = ev.id
          if next(self.seen) then self.seen = {} end -- the stream is past what was listed
        end
      else
        native.stream_close(self.stream)
        self.stream = nil
        if not self.after then self.live = true end
        self.breaks = self.breaks + 1
        if self.breaks > MAX_BREAKS or (e and e.status and e.status < 500) then
          self.ended = true
          return nil, e or err.new("closed", "the event stream ended")
        end
        if e and e.type == "closed" then
          self.ended = true
          return nil, e
        end
      end
    end
    if ev then
      self.breaks, self.last = 0, ev
      if over(ev) then self:close() end
      return ev
    end
  end
end

return Feed
