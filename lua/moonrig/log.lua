-- Lines in the runtime's log, with the script's file and line.
local native = require "moonrig.native"

---@class moonrig.log
---@overload fun(...: any)
---@field error fun(...: any)
---@field warn fun(...: any)
---@field info fun(...: any)
---@field debug fun(...: any)
local M = {}

local function line(level)
  return function(...)
    local parts = {}
    for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
    local file, n = native.where()
    native.log(level, file and file .. (n and ":" .. n or "") or "script", table.concat(parts, " "))
  end
end

M.error, M.warn, M.info, M.debug = line(0), line(1), line(2), line(3)

return setmetatable(M, { __call = function(_, ...) return M.info(...) end })
