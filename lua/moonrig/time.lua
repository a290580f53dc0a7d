-- rig.time: seconds since 1970 with fractions, and the text form that the API uses (RFC 3339).
local native = require "moonrig.native"
local err = require "moonrig.err"

---@class moonrig.time
---@field now fun(): number seconds since 1970
---@field mono fun(): number seconds of a clock that nobody sets, for measuring
local M = { now = native.now, mono = native.mono }

---Days from 1970-01-01 to a date of the Gregorian calendar.
local function days(y, m, d)
  if m <= 2 then y = y - 1 end
  local era = math.floor(y / 400)
  local yoe = y - era * 400
  local doy = math.floor((153 * (m + (m > 2 and -3 or 9)) + 2) / 5) + d - 1
  return era * 146097 + yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy - 719468
end

---"2026-01-31T12:00:00.250000Z"
---@param seconds number
---@return string
function M.format(seconds)
  if type(seconds) ~= "number" then err.misuse("rig.time.format takes seconds, got %s", type(seconds)) end
  local whole = math.floor(seconds)
  local us = math.floor((seconds - whole) * 1e6 + 0.5)
  if us == 1e6 then whole, us = whole + 1, 0 end
  return os.date("!%Y-%m-%dT%H:%M:%S", whole) .. (".%06dZ"):format(us)
end

---Seconds since 1970 of an RFC 3339 time.
---@param text string
---@return number?
---@return moonrig.Error?
function M.parse(text)
  local y, m, d, h, min, s, rest = tostring(text):match "^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(.*)$"
  local fraction, zone = (rest or ""):match "^(%.?%d*)(.*)$"
  local sign, zh, zm = (zone or ""):match "^([+-])(%d%d):(%d%d)$"
  if not y or fraction == "." or not (sign or zone == "Z" or zone == "z") then
    return nil, err.new("invalid_request_error", ("%q is not an RFC 3339 time"):format(tostring(text)))
  end
  local t = days(tonumber(y), tonumber(m), tonumber(d)) * 86400 + h * 3600 + min * 60 + s
  if sign then t = t - (sign == "-" and -1 or 1) * (zh * 3600 + zm * 60) end
  return t + (tonumber("0" .. fraction) or 0)
end

return M
