-- Percent-encoding and query strings.
---@class moonrig.url
local M = {}

---Percent-encodes what is not a letter, a digit, or one of - . _ ~
---@param s string|number
---@return string
function M.escape(s)
  return (tostring(s):gsub("[^%w%-%._~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

---Undoes percent-encoding; "+" is a space.
---@param s string
---@return string
function M.unescape(s)
  return (s:gsub("+", " "):gsub("%%(%x%x)", function(h) return string.char(tonumber(h, 16)) end))
end

---As a form sends it: spaces as "+".
---@param t table
---@return string
function M.form(t)
  return (M.query(t):gsub("%%20", "+"))
end

local months = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11,
  Dec = 12 }

---A date as HTTP headers have it ("Sun, 06 Nov 1994 08:49:37 GMT") to seconds since 1970; nil for other text.
---@param s string
---@return integer?
function M.date(s)
  local day, name, year, h, m, sec = s:match "^%a+, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$"
  local month = months[name]
  if not month then return nil end
  day, year = tonumber(day), tonumber(year)
  if month <= 2 then year, month = year - 1, month + 12 end
  local days = 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * (month - 3) + 2) / 5) + day - 719469
  return days * 86400 + h * 3600 + m * 60 + sec
end

---{ q = "a b", n = { 1, 2 } } to "n=1&n=2&q=a%20b"; keys sorted.
---@param t table
---@return string
function M.query(t)
  local keys, out = {}, {}
  for k in pairs(t) do keys[#keys + 1] = k end
  table.sort(keys)
  for _, k in ipairs(keys) do
    local v = t[k]
    for _, one in ipairs(type(v) == "table" and v or { v }) do
      out[#out + 1] = M.escape(k) .. "=" .. M.escape(one)
    end
  end
  return table.concat(out, "&")
end

return M
