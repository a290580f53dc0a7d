-- How long to wait before something is tried again.
local native = require "moonrig.native"
local task = require "moonrig.task"
local url = require "moonrig.url"

local M = {}

---Waits before another attempt: longer each time, or as Retry-After (seconds or a date) says, at most a minute.
---@param attempt integer those that were made
---@param headers? table of the answer, if there was one
function M.pause(attempt, headers)
  local text = headers and headers["retry-after"] or ""
  local date = url.date(text)
  local after = tonumber(text:match "^%d+$") or date and date - native.now() or 0
  local s = math.min(0.2 * 2 ^ (attempt - 1), 10) * (0.75 + math.random() / 2)
  task.sleep(math.max(s, math.min(after, 60)))
end

return M
