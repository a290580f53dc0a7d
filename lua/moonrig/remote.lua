-- The transport of rig.connect: operations of another runtime over HTTP (see moonrig.api for what a transport is).
-- Errors have the same form as of the runtime that the scripts run in. What can be repeated without harm (GET, DELETE)
-- is tried again after no answer, 408, 429 and 5xx; the rest only after 429, when nothing was done.
local native = require "moonrig.native"
local api = require "moonrig.api"
local err = require "moonrig.err"
local fs = require "moonrig.fs"
local http = require "moonrig.http"
local retry = require "moonrig.retry"
local sse = require "moonrig.sse"
local url = require "moonrig.url"

local M = {}

local TIMEOUT, RETRIES, IDLE = 60, 2, 60 -- IDLE: a stream without a byte, pings included
local MB = 1024 * 1024
local ERROR_MAX, ANSWER_MAX, UPLOAD_MAX, DOWNLOAD_MAX, EVENT_MAX = 65536, 64 * MB, 64 * MB, 128 * MB, 16 * MB

-- ------------------------------------------------------------------------------------------------- requests

local function value_of(v)
  if type(v) == "table" and type(v.id) == "string" then return v.id end
  if type(v) == "boolean" then return tostring(v) end
  return v
end

---Fields as a query: lists as name[]=, tables as name[key]=.
local function query_of(fields)
  local parts = {}
  for name, v in pairs(fields) do
    if type(v) == "table" and v.id == nil then
      for k, one in pairs(v) do
        local key = type(k) == "number" and name .. "[]" or name .. "[" .. tostring(k) .. "]"
        parts[#parts + 1] = { key, type(k) == "number" and k or 0, value_of(one) }
      end
    elseif v ~= native.null then
      parts[#parts + 1] = { name, 0, value_of(v) }
    end
  end
  table.sort(parts, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  for i, p in ipairs(parts) do parts[i] = url.escape(p[1]) .. "=" .. url.escape(p[3]) end
  return #parts > 0 and "?" .. table.concat(parts, "&") or ""
end

---Path with its parameters, and the other fields.
local function target_of(op, params)
  local fields = {}
  for k, v in pairs(params) do fields[k] = v end
  local path = op.path:gsub("{([%w_]+)}", function(name)
    local v = value_of(fields[name])
    if v == nil then err.misuse("%s: %s is missing", op.name, name) end
    fields[name] = nil
    return url.escape(v)
  end)
  return path, fields
end

---The request of an operation, without its body; and the fields that are left.
local function request_of(c, op, params, opts)
  local path, fields = target_of(op, params)
  local o = { method = op.verb, url = c.base .. path, unix = c.unix, timeout = opts and opts.timeout or c.timeout,
    headers = { ["anthropic-version"] = "2023-06-01", ["anthropic-beta"] = op.beta, ["x-api-key"] = c.api_key } }
  if op.verb == "GET" or op.verb == "DELETE" then
    o.url, fields = o.url .. query_of(fields), nil
  end
  return o, fields
end

-- --------------------------------------------------------------------------------------------------- errors

local types = { [400] = "invalid_request_error", [401] = "authentication_error", [403] = "permission_error",
  [404] = "not_found_error", [409] = "conflict_error", [413] = "request_too_large", [429] = "rate_limit_error" }

---What an answer that is no success says.
local function failure(status, headers, body)
  local v = native.json_decode(body)
  local e = type(v) == "table" and type(v.error) == "table" and v.error or {}
  local details = type(e.details) == "table" and e.details or {}
  local message = type(e.message) == "string" and e.message
    or ("the server answered %d: %s"):format(status, (body:sub(1, 200):gsub("%c", " ")))
  return err.new(type(e.type) == "string" and e.type or types[status] or "api_error", message, { status = status,
    field = details.field, error_code = details.error_code,
    request_id = type(v) == "table" and type(v.request_id) == "string" and v.request_id or headers["request-id"],
    retryable = status == 408 or status == 429 or status >= 500 and headers["x-should-retry"] ~= "false" })
end

local function harmless(op) return op.verb == "GET" or op.verb == "DELETE" end

---Calls attempt(left) until it gives a result, or no other try makes sense, or `timeout` seconds are over. attempt
---returns a result, or nil, err, headers.
local function persist(op, timeout, attempt)
  local ends, n = native.mono() + timeout, 0
  while true do
    n = n + 1
    local res, e, headers = attempt(math.max(ends - native.mono(), 0.001))
    if res ~= nil or not e then return res, e end
    local again = e.retryable and (e.status == 429 or harmless(op))
    if not again or n > RETRIES or e.type == "timeout_error" and native.mono() >= ends then return nil, e end
    retry.pause(n, headers)
    if native.mono() >= ends then return nil, e end
  end
end

local texts = setmetatable({}, { __mode = "k" })

---The JSON text of an object with all that the server wrote, nulls too; of a transport with `exact`.
---@return string? text
function M.text(object) return texts[object] end

local function keep_texts(body, v)
  local whole = native.json_decode(body)
  texts[v] = body
  for i, item in ipairs(type(v.data) == "table" and v.data or {}) do
    if type(item) == "table" then texts[item] = native.json_encode(whole.data[i]) end
  end
end

local function decode(c, body)
  if body == "" then return true end
  local v, e = native.json_decode(body, true)
  if c.exact and type(v) == "table" then keep_texts(body, v) end
  return v, e
end

-- ----------------------------------------------------------------------------------------------------- calls

local function plain(c, op, params, opts)
  local o, fields = request_of(c, op, params, opts)
  o.max_body = ANSWER_MAX
  if fields then
    local e
    o.body, e = native.json_encode(fields, false, true)
    if not o.body then return nil, e end
    o.headers["content-type"] = "application/json"
  end
  return persist(op, o.timeout, function(left)
    o.timeout = left
    local res, e = http.request(o)
    if not res then return nil, e end
    if res.status < 200 or res.status > 299 then return nil, failure(res.status, res.headers, res.body), res.headers end
    return decode(c, res.body)
  end)
end

local function upload(c, op, params, opts)
  local o, fields = request_of(c, op, params, opts)
  local body, info, e = opts.body, nil, nil
  local part = { bytes = body.bytes, path = body.path, filename = body.filename, media_type = body.media_type }
  if body.path then
    info, e = fs.stat(body.path)
    if not info then return nil, e end
  end
  local size = info and info.size or #body.bytes
  if size > UPLOAD_MAX then
    return nil, err.new("request_too_large", ("an upload to another runtime is at most %d bytes"):format(UPLOAD_MAX))
  end
  o.multipart = { file = part }
  for k, v in pairs(fields) do o.multipart[k] = type(v) == "table" and assert(native.json_encode(v)) or v end
  return persist(op, o.timeout, function(left)
    o.timeout = left
    local res, why = http.request(o)
    if not res then return nil, why end
    if res.status < 200 or res.status > 299 then return nil, failure(res.status, res.headers, res.body), res.headers end
    return decode(c, res.body)
  end)
end

---A response of success whose body is read on; or nil, err, headers.
local function open(o)
  local res, e = http.stream(o)
  if not res then return nil, e end
  if res.status >= 200 and res.status <= 299 then return res end
  local body = res:all(ERROR_MAX) or ""
  return nil, failure(res.status, res.headers, body), res.headers
end

local function to_file(res, path)
  local part = ("%s.part-%s"):format(path, tostring(native.current()))
  local size = 0
  local ok, e = fs.write(part, "")
  while ok do
    local bytes
    bytes, e = res:read()
    if not bytes then break end
    size = size + #bytes
    ok, e = fs.append(part, bytes)
  end
  res:close()
  if ok and not e then ok, e = fs.rename(part, path) end
  if ok and not e then return { path = path, size = size } end
  fs.remove(part)
  return nil, e
end

local function download(c, op, params, opts)
  local o = request_of(c, op, params, opts)
  o.idle_timeout = IDLE
  local res, e = persist(op, o.timeout, function(left)
    o.timeout = left
    return open(o)
  end)
  if not res then return nil, e end
  if opts.to == "" then return res:all(DOWNLOAD_MAX) end
  return to_file(res, opts.to)
end

-- --------------------------------------------------------------------------------------------------- streams

---An open stream, when the server has answered: what happens after that is in it.
local function stream_open(c, op, params, opts)
  local o = request_of(c, op, params, opts)
  o.headers.accept = "text/event-stream"
  o.idle_timeout = IDLE
  return persist(op, o.timeout, function(left)
    o.timeout, o.head_timeout = nil, left
    local res, e, headers = open(o)
    if not res then return nil, e, headers end
    return { response = res, next = sse.events(function() return res:read() end, EVENT_MAX), exact = c.exact }
  end)
end

local function stream_next(st)
  while true do
    local ev, e = st.next()
    if not ev then return nil, e end
    if ev.event ~= "ping" then
      local v, bad = native.json_decode(ev.data, true)
      if ev.event ~= "error" and type(v) == "table" then
        if st.exact then texts[v] = ev.data end
        return v
      end
      local told = type(v) == "table" and type(v.error) == "table" and v.error or {}
      return nil, bad or err.new(told.type or "api_error", tostring(told.message or "the stream broke"))
    end
  end
end

-- -------------------------------------------------------------------------------------------------- a client

---"http://host:port", "https://...", "unix:/path" to the url of requests, and the socket.
local function address(base_url)
  local path = base_url:match "^unix:(/.+)$"
  if path then return "http://localhost", path end
  local base = base_url:match "^(https?://[^/?#%s]+[^?#%s]*)$"
  if not base then err.misuse("rig.connect: base_url is http://..., https://... or unix:/path, not %q", base_url) end
  return (base:gsub("/+$", ""))
end

---@param o { base_url: string, api_key?: string, timeout?: number, exact?: boolean } exact: keeps texts, see M.text
---@return moonrig.Transport
function M.transport(o)
  local c, ops = { api_key = o.api_key, timeout = o.timeout or TIMEOUT, exact = o.exact }, {}
  c.base, c.unix = address(o.base_url)
  for _, op in ipairs(api.operations()) do ops[op.name] = op end
  local function find(name) return ops[name] or err.misuse("there is no operation %s", name) end
  return {
    call = function(name, params, opts)
      local op = find(name)
      if opts and opts.body then return upload(c, op, params, opts) end
      if opts and opts.to then return download(c, op, params, opts) end
      return plain(c, op, params, opts)
    end,
    stream_open = function(name, params, opts) return stream_open(c, find(name), params, opts) end,
    stream_next = stream_next,
    stream_close = function(st) st.response:close() end,
    -- The server is elsewhere now: for what is asked from here on.
    move = function(base_url, api_key)
      c.base, c.unix = address(base_url)
      c.api_key = api_key
    end,
  }
end

return M
