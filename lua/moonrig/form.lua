-- Bodies of forms: multipart/form-data, and base64 for Basic authorization.
local err = require "moonrig.err"
local fs = require "moonrig.fs"

local M = {}

local digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

---@param s string
---@return string
function M.base64(s)
  local out = {}
  for at = 1, #s, 3 do
    local a, b, c = s:byte(at, at + 2)
    local n = a * 65536 + (b or 0) * 256 + (c or 0)
    for k, div in ipairs { 262144, 4096, 64, 1 } do
      local d = math.floor(n / div) % 64
      out[#out + 1] = (k == 3 and not b or k == 4 and not c) and "=" or digits:sub(d + 1, d + 1)
    end
  end
  return table.concat(out)
end

local media = { txt = "text/plain", md = "text/markdown", csv = "text/csv", json = "application/json",
  pdf = "application/pdf", xml = "application/xml", html = "text/html", png = "image/png", jpg = "image/jpeg",
  jpeg = "image/jpeg", gif = "image/gif", webp = "image/webp", zip = "application/zip", lua = "text/x-lua" }

---The media type that a file's name suggests.
---@param name string
---@return string
function M.media_type(name)
  return media[(name:match "%.([%w]+)$" or ""):lower()] or "application/octet-stream"
end

local function quoted(s)
  return (tostring(s):gsub("[\r\n\"%z]", function(c) return ("%%%02X"):format(c:byte()) end))
end

---One part as { head, bytes }; or nil, err.
local function part_of(name, v)
  local head = ("Content-Disposition: form-data; name=\"%s\""):format(quoted(name))
  if type(v) == "string" or type(v) == "number" or type(v) == "boolean" then return { head, tostring(v) } end
  if type(v) ~= "table" or (type(v.bytes) == "string") == (type(v.path) == "string") then
    err.misuse("rig.http: multipart.%s is a value, or a table with bytes or path (one of them, a string)",
      tostring(name))
  end
  local bytes, e = v.bytes, nil
  if v.path then
    bytes, e = fs.read(v.path)
    if not bytes then return nil, e end
  end
  local filename = v.filename or (v.path and v.path:match "[^/]+$")
  if filename then head = head .. ("; filename=\"%s\""):format(quoted(filename)) end
  local media_type = tostring(v.media_type or M.media_type(filename or ""))
  if media_type:find "[%c]" then err.misuse("rig.http: multipart.%s: bad media_type", tostring(name)) end
  return { head .. "\r\nContent-Type: " .. media_type, bytes }
end

local function boundary_for(parts)
  while true do
    local b = "moonrig"
    for _ = 1, 5 do b = b .. ("%06x"):format(math.random(0, 16777215)) end
    local taken = false
    for _, p in ipairs(parts) do taken = taken or p[2]:find(b, 1, true) ~= nil end
    if not taken then return b end
  end
end

---{ name = value | { bytes = | path =, filename =, media_type = } } to a body and its media type; or nil, err. Names
---are sorted, files come last: a server that streams knows the fields before it.
---@param fields table
---@return string? body
---@return string|moonrig.Error media_type
function M.multipart(fields)
  local names, parts, out = {}, {}, {}
  for k in pairs(fields) do
    if type(k) ~= "string" then err.misuse("rig.http: names in multipart are strings, got %s", type(k)) end
    names[#names + 1] = k
  end
  table.sort(names, function(a, b)
    local x, y = type(fields[a]) == "table", type(fields[b]) == "table"
    if x ~= y then return y end
    return a < b
  end)
  for i, name in ipairs(names) do
    local e
    parts[i], e = part_of(name, fields[name])
    if not parts[i] then return nil, e end
  end
  local boundary = boundary_for(parts)
  for _, p in ipairs(parts) do
    out[#out + 1] = "--" .. boundary .. "\r\n" .. p[1] .. "\r\n\r\n"
    out[#out + 1] = p[2]
    out[#out + 1] = "\r\n"
  end
  out[#out + 1] = "--" .. boundary .. "--\r\n"
  return table.concat(out), "multipart/form-data; boundary=" .. boundary
end

return M
