-- Percent-encoding and query strings.
local M = {}

---@param s string|number
---@return string
function M.escape(s)
  return (tostring(s):gsub("[^%w%-%._~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

---@param s string
---@return string
function M.unescape(s)
  return (s:gsub("+", " "):gsub("%%(%x%x)", function(h) return string.char(tonumber(h, 16)) end))
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
