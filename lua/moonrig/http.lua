-- Outgoing HTTP. A response of any status is a result; what did not arrive, or is not what `expect` says,
-- is nil, err.
local native = require "moonrig.native"
local wait = require "moonrig.wait"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local task = require "moonrig.task"
local url = require "moonrig.url"

local M = {}
local send = wait(native.http)

---@class moonrig.HttpOptions
---@field method? string
---@field url? string
---@field query? table           added to the url
---@field headers? table<string, string>
---@field body? string
---@field json? any              encoded as the body, with its content-type
---@field timeout? number        seconds for the whole request; default 60
---@field retry? integer         how often to try again after no answer, 408, 429 or 5xx; default 0
---@field expect? integer|integer[] statuses that are a result; any other is nil, err
---@field max_body? integer      bytes kept of the response; default 16 MiB
---@field follow? integer        redirects to follow; default 0

---@class moonrig.Response
---@field status integer
---@field headers table<string, string> names in lower case
---@field body string
local Response = {}
Response.__index = Response

---@return any value
---@return moonrig.Error? err
function Response:json()
  return native.json_decode(self.body)
end

local function header_lines(o)
  local lines, seen = {}, {}
  for k, v in pairs(o.headers or {}) do
    local line = tostring(k) .. ": " .. tostring(v)
    if line:find "[\r\n%z]" then err.misuse("rig.http: a line break in header %s", (tostring(k):gsub("%c", "?"))) end
    seen[tostring(k):lower()] = true
    lines[#lines + 1] = line
  end
  if o.json ~= nil and not seen["content-type"] then lines[#lines + 1] = "content-type: application/json" end
  table.sort(lines)
  return lines
end

local function expected(o, status)
  if o.expect == nil then return true end
  if type(o.expect) == "number" then return o.expect == status end
  for _, s in ipairs(o.expect) do
    if s == status then return true end
  end
  return false
end

local function pause(attempt, res)
  local after = res and tonumber(res.headers["retry-after"])
  local s = math.min(0.2 * 2 ^ (attempt - 1), 10) * (0.75 + math.random() / 2)
  task.sleep(math.max(s, math.min(after or 0, 60)))
end

local names = "method url query headers body json timeout retry expect max_body follow"

---The request as the core takes it; or nil, err.
local function request_of(o)
  declare.keys("rig.http", o, names)
  if type(o.url) ~= "string" then err.misuse("rig.http: a url is missing") end
  for _, k in ipairs { "timeout", "retry", "max_body", "follow" } do declare.check("rig.http", o, k, "number") end
  for _, k in ipairs { "query", "headers" } do declare.check("rig.http", o, k, "table") end
  for _, k in ipairs { "method", "body" } do declare.check("rig.http", o, k, "string") end
  if o.body and o.json ~= nil then err.misuse("rig.http: body and json exclude each other") end
  local body, e = o.body, nil
  if o.json ~= nil then
    body, e = native.json_encode(o.json)
    if not body then return nil, e end
  end
  local target = o.url
  if o.query then target = target .. (target:find("?", 1, true) and "&" or "?") .. url.query(o.query) end
  return { method = (o.method or "GET"):upper(), url = target, headers = header_lines(o), body = body,
    timeout_ms = math.ceil((o.timeout or 60) * 1000), max_body = o.max_body, follow = o.follow }
end

local function transient(status) return status == 408 or status == 429 or status >= 500 end

---Judges an answer: a response that counts, or nil, err, and whether trying again makes sense.
local function judge(o, req, res, e)
  if not res then return nil, e, e.type ~= "invalid_request_error" end
  setmetatable(res, Response)
  if expected(o, res.status) then return res, nil, o.expect == nil and transient(res.status) end
  e = err.new("unexpected_status", ("%s %s answered %d"):format(req.method, (req.url:gsub("%?.*", "")), res.status),
    { status = res.status, body = res.body:sub(1, 2000), retryable = transient(res.status) })
  return nil, e, e.retryable
end

---@param o moonrig.HttpOptions
---@return moonrig.Response? response
---@return moonrig.Error? err
function M.request(o)
  local req, why = request_of(o)
  if not req then return nil, why end
  local attempt = 0
  while true do
    attempt = attempt + 1
    local res, e = send(req)
    local good, bad, again = judge(o, req, res, e)
    if not again or attempt > (o.retry or 0) then return good, bad end
    pause(attempt, res)
  end
end

for _, method in ipairs { "get", "post", "put", "patch", "delete", "head" } do
  M[method] = function(target, options)
    local o = {}
    for k, v in pairs(options or {}) do o[k] = v end
    o.method, o.url = method:upper(), target
    return M.request(o)
  end
end

return M
