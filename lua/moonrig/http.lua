-- Outgoing HTTP. A response of any status is a result; what did not arrive, or is not what `expect` says,
-- is nil, err. rig.http.get and the others wait for the whole response, rig.http.stream for its head.
local native = require "moonrig.native"
local wait = require "moonrig.wait"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local task = require "moonrig.task"
local retry = require "moonrig.retry"
local url = require "moonrig.url"
local form = require "moonrig.form"
local sse = require "moonrig.sse"

---@class moonrig.http
---@field get fun(url: string, options?: moonrig.HttpOptions): moonrig.Response?, moonrig.Error?
---@field post fun(url: string, options?: moonrig.HttpOptions): moonrig.Response?, moonrig.Error?
---@field put fun(url: string, options?: moonrig.HttpOptions): moonrig.Response?, moonrig.Error?
---@field patch fun(url: string, options?: moonrig.HttpOptions): moonrig.Response?, moonrig.Error?
---@field delete fun(url: string, options?: moonrig.HttpOptions): moonrig.Response?, moonrig.Error?
---@field head fun(url: string, options?: moonrig.HttpOptions): moonrig.Response?, moonrig.Error?
local M = {}
local send = wait(native.http)
local head_of, next_piece = wait(native.http_head), wait(native.http_read)

---@class moonrig.HttpOptions
---@field method? string
---@field url? string            "http://..." or "https://..."
---@field query? table           added to the url
---@field headers? table<string, string>
---@field body? string
---@field json? any              encoded as the body, with its content-type
---@field form? table            as application/x-www-form-urlencoded: { name = value | { values } }
---@field multipart? table       multipart/form-data: { name = value | { bytes = | path =, filename =, media_type = } }
---@field auth? table            { user, password } or { bearer = token }
---@field unix? string           path of a socket to connect to instead of the url's host
---@field timeout? number        seconds for the whole request; default 60, rig.http.stream: none
---@field connect_timeout? number seconds until connected; default 10
---@field idle_timeout? number   seconds without a byte; default none, rig.http.stream: 60
---@field head_timeout? number   rig.http.stream: seconds until the head of the response is there
---@field retry? integer         how often to try again after no answer, 408, 429 or 5xx; default 0
---@field expect? integer|integer[] statuses that are a result; any other is nil, err
---@field max_body? integer      bytes kept of the response; default 16 MiB, rig.http.stream: no limit
---@field follow? integer        redirects to follow; default 0
---@field guard? boolean         dial only public addresses and those of allow_private_hosts, else nil, err; default false

---@class moonrig.Response
---@field status integer
---@field headers table<string, string> names in lower case
---@field body string
local Response = {}
Response.__index = Response

---The body as JSON.
---@return any value
---@return moonrig.Error? err
function Response:json()
  return native.json_decode(self.body)
end

-- -------------------------------------------------------------------------------------------------- requests

local names = "method url query headers body json form multipart auth unix timeout connect_timeout idle_timeout "
  .. "head_timeout retry expect max_body follow guard"
local kinds = { timeout = "number", connect_timeout = "number", idle_timeout = "number", head_timeout = "number",
  retry = "number", max_body = "number", follow = "number", query = "table", headers = "table", form = "table", multipart = "table",
  auth = "table", guard = "boolean", method = "string", body = "string", unix = "string" }

local function check(o)
  declare.keys("rig.http", o, names)
  if type(o.url) ~= "string" then err.misuse("rig.http: a url is missing") end
  for k, kind in pairs(kinds) do declare.check("rig.http", o, k, kind) end
  for _, k in ipairs { "timeout", "connect_timeout", "idle_timeout", "head_timeout" } do
    if o[k] and not (o[k] > 0 and o[k] <= 1e6) then err.misuse("rig.http: %s is seconds, more than 0", k) end
  end
  local one
  for _, k in ipairs { "body", "json", "form", "multipart" } do
    if o[k] ~= nil then
      if one then err.misuse("rig.http: %s and %s exclude each other", one, k) end
      one = k
    end
  end
end

local function authorization(a)
  if type(a.bearer) == "string" then return "authorization: Bearer " .. a.bearer end
  if type(a[1]) ~= "string" or type(a[2]) ~= "string" then
    err.misuse("rig.http: auth is { user, password } or { bearer = token }")
  end
  return "authorization: Basic " .. form.base64(a[1] .. ":" .. a[2])
end

local function header_lines(o, media_type)
  local lines, seen = {}, {}
  local function add(line)
    if line:find "[\r\n%z]" then
      err.misuse("rig.http: a line break in header %s", (line:match "^[^:]*":gsub("%c", "?")))
    end
    lines[#lines + 1] = line
  end
  for k, v in pairs(o.headers or {}) do
    seen[tostring(k):lower()] = true
    add(tostring(k) .. ": " .. tostring(v))
  end
  if media_type and not seen["content-type"] then add("content-type: " .. media_type) end
  if o.auth and not seen.authorization then add(authorization(o.auth)) end
  table.sort(lines)
  return lines
end

---The bytes of the body and their media type; or nil, err.
local function body_of(o)
  if o.json ~= nil then
    local body, e = native.json_encode(o.json)
    return body, body and "application/json" or e
  elseif o.form then
    return url.form(o.form), "application/x-www-form-urlencoded"
  elseif o.multipart then
    return form.multipart(o.multipart)
  end
  return o.body or "", nil
end

local function ms(seconds) return seconds and math.ceil(seconds * 1000) or nil end

---The request as the core takes it; or nil, err.
local function request_of(o)
  check(o)
  local body, media_type = body_of(o)
  if not body then return nil, media_type end
  local target = o.url
  if o.query then target = target .. (target:find("?", 1, true) and "&" or "?") .. url.query(o.query) end
  return { method = (o.method or "GET"):upper(), url = target, headers = header_lines(o, media_type), body = body,
    timeout_ms = ms(o.timeout or 60), connect_ms = ms(o.connect_timeout), idle_ms = ms(o.idle_timeout),
    max_body = o.max_body, follow = o.follow, guard = o.guard, unix = o.unix }
end

-- --------------------------------------------------------------------------------------------------- answers

local function expected(o, status)
  if o.expect == nil then return true end
  if type(o.expect) == "number" then return o.expect == status end
  for _, s in ipairs(o.expect) do
    if s == status then return true end
  end
  return false
end

local function transient(status) return status == 408 or status == 429 or status >= 500 end

local function unexpected(req, res)
  return err.new("unexpected_status", ("%s %s answered %d"):format(req.method, (req.url:gsub("%?.*", "")), res.status),
    { status = res.status, body = res.body:sub(1, 2000), retryable = transient(res.status) })
end

---Judges an answer: a response that counts, or nil, err, and whether trying again makes sense.
local function judge(o, req, res, e)
  if not res then
    e.retryable = e.type ~= "invalid_request_error" and e.type ~= "request_too_large"
    return nil, e, e.retryable
  end
  setmetatable(res, Response)
  if expected(o, res.status) then return res, nil, o.expect == nil and transient(res.status) end
  e = unexpected(req, res)
  return nil, e, e.retryable
end

---Sends a request, and waits for the whole response.
---@param o moonrig.HttpOptions with url, and method (default GET)
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
    retry.pause(attempt, res and res.headers)
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

-- --------------------------------------------------------------------------------------------------- streams

local LINE_MAX = 1024 * 1024

---A response whose body comes piece by piece. A script that reads slowly slows the sender down; nothing is kept but
---a few hundred kilobytes. Closed at its end, by close(), or when it is collected.
---@class moonrig.StreamedResponse
---@field status integer
---@field headers table<string, string> names in lower case
local Streamed = {}
Streamed.__index = Streamed

---The next bytes of the body; nothing at its end; nil, err when it was cut.
---@return string? bytes
---@return moonrig.Error? err
function Streamed:read()
  if not self.handle then return nil, self.failure end
  local bytes, e = next_piece(self.handle)
  if bytes then return bytes end
  self.failure = e
  self:close()
  return nil, e
end

---Ends it; the transfer stops, a task that waits for it gets nothing.
function Streamed:close()
  if self.handle then native.http_close(self.handle) end
  self.handle = nil
end

---Iterates over the body's pieces as they come. Raises when it is cut.
---@return fun(): string?
function Streamed:chunks()
  return function()
    local bytes, e = self:read()
    if e then error(e, 0) end
    return bytes
  end
end

local function raiser(next_one)
  return function()
    local v, e = next_one()
    if e then error(e, 0) end
    return v
  end
end

---Iterates over lines, without their ends. Raises when the body is cut, or a line is longer than a megabyte.
---@return fun(): string?
function Streamed:lines()
  return raiser(sse.lines(function() return self:read() end, LINE_MAX))
end

---Iterates over server-sent events: { event = "message" | name, data = text, id = last id }. Raises when the body is
---cut; an event that the end cuts off is dropped.
---@return fun(): { event: string, data: string, id?: string }?
function Streamed:events()
  return raiser(sse.events(function() return self:read() end, LINE_MAX))
end

---The rest of the body at once.
---@param max? integer bytes; default 16 MiB
---@return string? bytes
---@return moonrig.Error? err
function Streamed:all(max)
  local parts, n = {}, 0
  max = max or 16 * 1024 * 1024
  while true do
    local bytes, e = self:read()
    if e then return nil, e end
    if not bytes then return table.concat(parts) end
    n = n + #bytes
    if n > max then
      self:close()
      return nil, err.new("request_too_large", ("the response is over the limit of %d bytes"):format(max))
    end
    parts[#parts + 1] = bytes
  end
end

local function open(o, req)
  local handle, e = native.http_open(req)
  if not handle then return nil, e end
  local head, dog, late
  if o.head_timeout then
    dog = task.spawn(function()
      task.sleep(o.head_timeout)
      late = true
      native.http_close(handle)
    end)
  end
  head, e = head_of(handle)
  if late then return nil, err.new("timeout_error", "no answer in time", { retryable = true }) end
  if dog then dog:cancel() end
  if not head then
    native.http_close(handle)
    return nil, e or err.new("closed", "the response was closed")
  end
  return setmetatable({ status = head.status, headers = head.headers, handle = handle }, Streamed)
end

---Sends a request and returns when the head of the response is there: status, headers, and :read(), :chunks(),
---:lines(), :events(), :all(), :close(). Without `timeout` it may last for ever, but not 60 seconds (`idle_timeout`)
---without a byte.
---@param target string|moonrig.HttpOptions
---@param options? moonrig.HttpOptions
---@return moonrig.StreamedResponse? response
---@return moonrig.Error? err
function M.stream(target, options)
  local o = {}
  for k, v in pairs(type(target) == "table" and target or options or {}) do o[k] = v end
  if type(target) ~= "table" then o.url = target end
  local req, why = request_of(o)
  if not req then return nil, why end
  if not o.timeout then req.timeout_ms = -1 end
  req.idle_ms = req.idle_ms or 60000
  local attempt = 0
  while true do
    attempt = attempt + 1
    local res, e = open(o, req)
    local again
    if not res then
      e.retryable = e.type ~= "invalid_request_error"
      again = e.retryable
    elseif expected(o, res.status) then
      again = o.expect == nil and transient(res.status)
    else
      e = unexpected(req, { status = res.status, body = res:all(65536) or "" })
      again = e.retryable
    end
    if not again or attempt > (o.retry or 0) then
      if e then return nil, e end
      return res
    end
    if res then res:close() end
    retry.pause(attempt, res and res.headers)
  end
end

return M
