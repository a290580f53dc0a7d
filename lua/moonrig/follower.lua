-- Iterating over a feed, and waiting for it within so many seconds: what sessions and threads share.
local M = {}

local function pack(...) return { n = select("#", ...), ... } end
local unpack = table.unpack or unpack

---Runs fn within so many seconds of a feed's waits.
function M.within(feed, seconds, fn)
  if not seconds then return fn() end
  local lift = feed:limit(seconds)
  local r = pack(pcall(fn))
  lift()
  if not r[1] then error(r[2], 0) end
  return unpack(r, 2, r.n)
end

---@class moonrig.Follower calling it gives the next event; raises when it cannot go on
---@overload fun(): table?
local Follower = {}
Follower.__index = Follower
function Follower.__call(self)
  local ev, e = M.within(self.feed, self.timeout, function() return self.feed:next() end)
  local answers = self.answers
  if not ev and answers then e = answers.failed or e end
  if e then error(e, 0) end
  if ev and answers then
    answers:see(ev)
    if not self.feed.listing then answers:act() end
  end
  return ev
end

---Stops following, and handlers of a client's tools that it started; one that was left alone is closed when it is
---collected.
function Follower:close()
  self.feed:close()
  if self.answers then self.answers:stop() end
end

---@param feed table
---@param timeout? number seconds without an event
---@return moonrig.Follower
function M.new(feed, timeout)
  return setmetatable({ feed = feed, timeout = timeout }, Follower)
end

return M
