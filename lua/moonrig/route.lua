-- rig.route: HTTP paths of the script's own on the server's port, below /x/. Each request is a task.
local native = require "moonrig.native"
local wait = require "moonrig.wait"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local url = require "moonrig.url"

local M = {}
local write = wait(native.web_write)

---@class moonrig.RouteOptions
---@field path string      "/x/name/{id}"; a last segment * stands for all the rest
---@field method? string   default "GET", which answers HEAD too; "*" for any
---@field public? boolean  no API key is asked for
---@field timeout? number  seconds until the answer begins, else 504; default 60
---@field body_max? integer bytes of a request's body, at most 64 MiB; default 1 MiB
---@field run fun(req: moonrig.Request, res: moonrig.RouteResponse): any, any, any

---@class moonrig.Route a handle
---@field method string
---@field path string

-- ------------------------------------------------------------------------------------------- the request

---@class moonrig.Request
---@field method string
---@field path string                   decoded
---@field params table<string, string>  of the path, decoded; params["*"] is the rest
---@field query table<string, string>   decoded; of a name that comes twice the last
---@field query_string string           as it was sent
---@field headers table<string, string> names in lower case
---@field body string
---@field remote string                 the client's address
local Request = {}
Request.__index = Request

---The body as JSON.
---@return any value
---@return moonrig.Error? err
function Request:json()
  return native.json_decode(self.body)
end

local function pairs_of(text)
  local t = {}
  for pair in text:gmatch "[^&]+" do
    local k, v = pair:match "^([^=]*)=?(.*)$"
    if k ~= "" then t[url.unescape(k)] = url.unescape(v) end
  end
  return t
end

---The body of an HTML form (application/x-www-form-urlencoded).
---@return table<string, string>? fields
---@return moonrig.Error? err
function Request:form()
  local kind = (self.headers["content-type"] or ""):lower():match "^%s*([^;%s]*)"
  if kind ~= "application/x-www-form-urlencoded" then
    return nil, err.new("invalid_request_error", "the body is no form: content-type is " ..
      (kind ~= "" and kind or "missing") .. ", not application/x-www-form-urlencoded", { status = 415 })
  end
  return pairs_of(self.body)
end

local function request(decl, web)
  local method, path, query, remote, lines, body = native.web_info(web)
  if not method then return end
  local req = { method = method, path = path, remote = remote, body = body, query_string = query,
    query = pairs_of(query), headers = {}, params = {} }
  for name, value in lines:gmatch "([^:\n]+): ?([^\n]*)" do req.headers[name] = value end
  for _, name in ipairs(decl.params) do req.params[name] = native.web_param(web, name) end
  return setmetatable(req, Request)
end

-- ------------------------------------------------------------------------------------------- the response

local server_says = { connection = true, ["content-length"] = true, date = true, ["keep-alive"] = true, te = true,
  ["proxy-authenticate"] = true, ["proxy-authorization"] = true, trailer = true, ["transfer-encoding"] = true,
  upgrade = true }

local function add_line(lines, name, value)
  if type(value) ~= "string" and type(value) ~= "number" then
    err.misuse("header %s is a %s; it is text, or a list of texts", name, type(value))
  end
  local line = name .. ": " .. tostring(value)
  if tostring(value):find "[%z\1-\8\10-\31\127]" then err.misuse("header %s has a line break or another control character", name) end
  if #line > 8000 then err.misuse("header %s is longer than 8000 bytes", name) end
  lines[#lines + 1] = line
end

---A table of headers as lines, sorted; kind: the content type unless they say one.
local function lines_of(status, headers, kind)
  if type(status) ~= "number" or status < 200 or status > 599 or status % 1 ~= 0 then
    err.misuse("the status is an integer from 200 to 599, got %s", tostring(status))
  end
  if headers ~= nil and type(headers) ~= "table" then err.misuse("headers are a table, got %s", type(headers)) end
  local lines = {}
  for name, value in pairs(headers or {}) do
    if type(name) ~= "string" or not name:find "^[%w!#$%%&'*+%-.^_`|~]+$" then
      err.misuse("%s is no name of a header", tostring(name):gsub("%c", "?"))
    end
    local lower = name:lower()
    if server_says[lower] then err.misuse("header %s: the server says that itself", name) end
    if lower == "content-type" then kind = nil end
    for _, one in ipairs(type(value) == "table" and value or { value }) do add_line(lines, lower, one) end
  end
  if kind and status ~= 204 and status ~= 304 then lines[#lines + 1] = "content-type: " .. kind end
  if #lines > 60 then err.misuse("%d headers; at most 60", #lines) end
  table.sort(lines)
  return lines
end

---@class moonrig.RouteResponse
---@field started boolean
local Response = {}
Response.__index = Response

local function begin(res, status, headers, kind)
  if res.started then err.misuse("the response has begun already") end
  local lines = lines_of(status or 200, headers, kind)
  res.started = true
  return native.web_start(res.web, status or 200, lines)
end

---Begins a response whose body is written bit by bit.
---@param status? integer default 200
---@param headers? table<string, string|string[]>
---@return true?, moonrig.Error? err when the client is gone
function Response:start(status, headers)
  return begin(self, status, headers, "text/plain; charset=utf-8")
end

---Writes a piece of the body; waits while the client is slow.
---@param bytes string
---@return true?, moonrig.Error? err when the client is gone
function Response:write(bytes)
  if type(bytes) ~= "string" then err.misuse("res:write takes text, got %s", type(bytes)) end
  if not self.started then
    local ok, e = self:start()
    if not ok then return nil, e end
  end
  return write(self.web, bytes)
end

local function field(out, o, name)
  local v = o[name]
  if v == nil then return end
  if type(v) ~= "string" and type(v) ~= "number" then err.misuse("res:event: %s is text, got %s", name, type(v)) end
  if tostring(v):find "[%z\r\n]" then err.misuse("res:event: %s has a line break", name) end
  out[#out + 1] = name .. ": " .. tostring(v)
end

---Sends a server-sent event; begins the response as an event stream.
---@param o { event?: string, data: string|table, id?: string|integer } data: a table is sent as JSON
---@return true?, moonrig.Error? err when the client is gone
function Response:event(o)
  declare.keys("res:event", o, "event data id")
  local out, data, e = {}, o.data, nil
  field(out, o, "event")
  field(out, o, "id")
  if type(data) == "table" then
    data, e = native.json_encode(data)
    if not data then return nil, e end
  end
  if type(data) ~= "string" then err.misuse("res:event: data is text or a table, got %s", type(data)) end
  for line in (data:gsub("\r\n?", "\n") .. "\n"):gmatch "([^\n]*)\n" do out[#out + 1] = "data: " .. line end
  if not self.started then
    local ok, why = begin(self, 200, { ["cache-control"] = "no-store" }, "text/event-stream")
    if not ok then return nil, why end
  end
  return write(self.web, table.concat(out, "\n") .. "\n\n")
end

---The response is whole; the function may go on with other work.
function Response:close()
  if not self.started then self:start(204) end
  native.web_close(self.web)
end

-- ------------------------------------------------------------------------------------------------ answers

---What run returned: text | table | status, body, headers | nothing | nil, err.
local function answer(res, status, body, headers)
  if status == nil and body ~= nil then
    local e = type(body) == "table" and body or { message = tostring(body) }
    status = type(e.status) == "number" and e.status >= 400 and e.status <= 599 and e.status or 500
    body = { type = "error", error = { type = e.type or "api_error", message = err.text(e) } }
  elseif status == nil then
    status = 204
  elseif type(status) ~= "number" then
    if body ~= nil then err.misuse("the route returned two values, and the first is no status: return status, body, headers") end
    status, body = 200, status
  end
  local kind = "text/plain; charset=utf-8"
  if type(body) == "table" then
    local text, e = native.json_encode(body)
    if not text then error(e, 0) end
    body, kind = text, "application/json"
  elseif body == nil then
    body, kind = "", nil
  elseif type(body) ~= "string" then
    err.misuse("the route returned a %s as the body; it is text or a table", type(body))
  end
  local ok, e = native.web_reply(res.web, status, lines_of(status, headers, kind), body)
  if not ok then error(e, 0) end
end

native.entry("route", function(decl, web)
  local req = request(decl, web)
  if not req then return end -- the client is gone already
  local res = setmetatable({ web = web, started = false }, Response)
  local status, body, headers = decl.run(req, res)
  if not res.started then answer(res, status, body, headers) end
end)

-- ------------------------------------------------------------------------------------------- declarations

---The names of a path's parameters; or nil, what is wrong.
local function params_of(path)
  local names, seen = {}, {}
  if path:sub(1, 3) ~= "/x/" or #path > 250 then return nil, "it begins with /x/ and has at most 250 bytes" end
  local rest = path:sub(3)
  for slash, segment, more in rest:gmatch "(/)([^/]*)()" do
    local last = more > #rest
    local name = segment == "*" and last and "*" or segment:match "^{([%a_][%w_]*)}$"
    if name then
      if seen[name] then return nil, "{" .. name .. "} stands twice" end
      seen[name] = true
      names[#names + 1] = name
    elseif segment:find "[{}*%%?#\\%c%s]" or segment == "." or segment == ".." or (segment == "" and not last) then
      return nil, ("segment %q: text, {name}, or * as the last one"):format(segment)
    end
    local _ = slash
  end
  if #names > 8 then return nil, "at most 8 parameters" end
  return names
end

---Declares a path. run(req, res) returns the answer: text; a table (JSON); status, body, headers; nothing (204); or
---nil, err (its status, or 500). Or it streams with res:start, res:write, res:event. An error is a 500, and goes to the
---log. The task is cancelled when the client goes away.
---@param o moonrig.RouteOptions
---@return moonrig.Route
function M.route(o)
  declare.keys("rig.route", o, "method path public timeout body_max run")
  declare.check("rig.route", o, "path", "string", true)
  declare.check("rig.route", o, "method", "string")
  declare.check("rig.route", o, "public", "boolean")
  declare.check("rig.route", o, "timeout", "number")
  declare.check("rig.route", o, "body_max", "number")
  declare.check("rig.route", o, "run", "function", true)
  local method = o.method or "GET"
  if method ~= "*" and (not method:find "^%u+$" or #method < 3 or #method > 20) then
    err.misuse("rig.route: method %q: capital letters such as \"POST\", or \"*\"", method)
  end
  local params, problem = params_of(o.path)
  if not params then err.misuse("rig.route: path %q: %s", o.path, problem) end
  if o.timeout and not (o.timeout > 0 and o.timeout <= 86400) then
    err.misuse("rig.route: timeout is seconds, more than 0, at most 86400")
  end
  if o.body_max and not (o.body_max >= 1 and o.body_max <= 64 * 2 ^ 20 and o.body_max % 1 == 0) then
    err.misuse("rig.route: body_max is bytes, from 1 to 64 MiB")
  end
  local r = { method = method, path = o.path, public = o.public or false, timeout = o.timeout, body_max = o.body_max,
    run = o.run, params = params }
  declare.add("route", "rig.route", r)
  return r
end

---Called by boot.lua: what the core shall know of a generation's routes.
function M.plan(g, plan)
  local seen = {}
  g.routes_by_key, plan.routes, plan.route_keys = {}, {}, {}
  for i, d in ipairs(g.decls.route) do
    local r = d.decl
    local key, same = r.method .. " " .. r.path, r.method .. " " .. r.path:gsub("{[^/]*}", "{}")
    if seen[same] then
      error(("%s: route %s is declared twice; the other one is at %s"):format(d.where, key, seen[same]), 0)
    end
    seen[same] = d.where
    g.routes_by_key[key] = r
    plan.route_keys[key] = true
    plan.routes[i] = { method = r.method, path = r.path, public = r.public and 1 or 0, body_max = r.body_max or 0,
      timeout_ms = r.timeout and math.ceil(r.timeout * 1000) or 0 }
  end
end

return M
