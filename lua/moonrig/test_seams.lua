-- The seams of the test kit, in the VM of a test file alone (core/script/test.c loads this before any other
-- module of the library): what the library would ask of the network, of a model and of the process is asked
-- here. It wraps natives and entries; no module knows of it.
local native = require "moonrig.native"

---State of the kit. Of one test: stubs, env, failures, scripts, requests; kept for the file: file_*.
local S = {
  tests = {}, running = nil, failures = {}, creating = 0,
  file_loads = {}, file_stubs = {}, file_env = {}, -- what the top level of the test file asked for
  loads = {}, stubs = {}, env = {},                -- of the running test
  scripts = {}, any = nil,                         -- models by session id; of all other sessions
  tools = {}, hooks = {},                          -- what t.replay adds to the scripts
  renamed = {}, names = {},                        -- built-in tools that have a stand-in: its name, and back
}

local PROVIDER = "the test's model"

---The running test fails with this, whatever it does further.
function S.fail(text)
  S.failures[#S.failures + 1] = text
end

-- ------------------------------------------------------------------------------------------ environment

local os = os -- the base library: generations copy it
local getenv, time, date = os.getenv, os.time, os.date

function os.getenv(name)
  local v = S.env[name]
  if v == nil then v = S.file_env[name] end
  if v == nil then return getenv(name) end
  return v or nil
end
function os.time(t) return t and time(t) or math.floor(native.now()) end
function os.date(format, t) return date(format, t or math.floor(native.now())) end

-- ------------------------------------------------------------------------------------------ generations

---The test file's own code sees the scripts under test as its generation: rig.agent "payer" finds theirs.
local generation = native.generation
function native.generation()
  local g, loading = generation()
  if g and g == S.base and not loading then g = native.test.current() or g end
  return g, loading
end

local wraps = {}
local entry = native.entry
function native.entry(name, fn)
  return entry(name, wraps[name] and wraps[name](fn) or fn)
end

local function add(list, decl) list[#list + 1] = { decl = decl, where = "the test kit" } end

function wraps.begin(begin)
  return function(g)
    begin(g)
    S.base = S.base or g
    add(g.decls.provider, { name = PROVIDER, models = "*", run = S.unscripted })
  end
end

function wraps.validate(validate)
  return function(g)
    for _, d in ipairs(S.tools) do add(g.decls.tool, d) end
    for _, d in ipairs(g.decls.hook) do d.decl.tool = S.renamed[d.decl.tool] or d.decl.tool end
    for _, d in ipairs(S.hooks) do add(g.decls.hook, d) end
    if g == S.base then
      if g.main then error(g.main_where .. ": a test file has no rig.main; use t.test(name, fn)", 0) end
      g.main = function() return require("moonrig.test_run").main() end
    end
    return validate(g)
  end
end

---Hooks see a stand-in as the tool that it stands for.
function wraps.hook(hook)
  return function(decl, call, ...)
    if type(call) == "table" then call.name = S.names[call.name] or call.name end
    return hook(decl, call, ...)
  end
end

function wraps.tool(tool)
  S.tool_entry = tool -- t.call makes its ctx with it
  return tool
end

-- ---------------------------------------------------------------------------------------------- models

local function invalid(message)
  return nil, { type = "invalid_request_error", message = message } -- of a type that is not tried again
end

function S.unscripted(_, ctx)
  S.fail(("session %s asked the model, and no model is scripted for it: t.session { model = { ... } }, or "
    .. "t.model { ... } for sessions that the scripts make"):format(ctx.session.id))
  return invalid "the test has no model for this session"
end

local function last_words(request)
  local list, out = request.messages or {}, {}
  for i = math.max(1, #list - 1), #list do out[#out + 1] = native.json_encode(list[i]) or "?" end
  return table.concat(out, "\n")
end

---The next reply of a script.
function S.play(script, request, ctx)
  script.requests[#script.requests + 1] = request
  script.at = script.at + 1
  local step = script.all or script.steps[script.at]
  if step == nil then
    S.fail(("the model was asked %d times, and %d replies are scripted; the request's last messages were:\n%s")
      :format(script.at, #script.steps, last_words(request)))
    return invalid "the test's script has no more replies"
  end
  if type(step) == "function" then
    local ok, value, e = xpcall(step, debug.traceback, request, ctx)
    if not ok then
      if native.cancelled() then error(value, 0) end
      S.fail("the model's function failed: " .. tostring(value))
      return invalid "the test's model failed"
    end
    step = value
    if step == nil then return nil, e end
  end
  if step.fails then return nil, step.fails end
  return step
end

function wraps.model(model)
  return function(decl, request, session_id)
    local pause = require "moonrig.wait"(native.test.pause)
    while S.creating > 0 and not S.scripts[session_id] do pause(1) end
    local script = S.scripts[session_id] or (decl.name == PROVIDER and S.any)
    if script then
      decl = { name = PROVIDER, run = function(r, ctx) return S.play(script, r, ctx) end }
    end
    return model(decl, request, session_id)
  end
end

-- ------------------------------------------------------------------------------------------------ http

local function matches(stub, req)
  if stub.method and stub.method ~= req.method then return false end
  if stub.times and #stub.calls >= stub.times then return false end
  local bare = req.url:gsub("%?.*$", "")
  local target = stub.url:find("?", 1, true) and req.url or bare
  if not stub.url:find("*", 1, true) then return stub.url == target or stub.url == req.url end
  local pattern = stub.url:gsub("[%^%$%(%)%%%.%[%]%+%-%?]", "%%%0"):gsub("%*", ".*")
  return target:find("^" .. pattern .. "$") ~= nil
end

local function find(req)
  for _, list in ipairs { S.stubs, S.file_stubs } do
    for _, stub in ipairs(list) do
      if matches(stub, req) then return stub end
    end
  end
end

local function request_of(r)
  local headers = {}
  for _, line in ipairs(r.headers or {}) do
    local k, v = line:match "^([^:]+):%s*(.*)$"
    if k then headers[k:lower()] = v end
  end
  return { method = r.method or "GET", url = r.url, headers = headers, body = r.body or "",
    json = function(self) return native.json_decode(self.body) end }
end

local function failure(kind, message)
  return setmetatable({ type = kind, message = message, retryable = true }, native.err_mt)
end

---{ status, body, headers, json } as the natives give it; or nil, err.
local function response_of(reply)
  if type(reply) == "string" then reply = { body = reply } end
  if type(reply) ~= "table" then error("a stub's reply is a table or a string, got " .. type(reply), 0) end
  if reply.error then return nil, failure("io_error", tostring(reply.error)) end
  local headers, body = {}, reply.body or ""
  for k, v in pairs(reply.headers or {}) do headers[k:lower()] = tostring(v) end
  if reply.json ~= nil then
    body = assert(native.json_encode(reply.json))
    headers["content-type"] = headers["content-type"] or "application/json"
  end
  if type(body) == "table" then reply = { chunks = body, status = reply.status } end
  return { status = reply.status or 200, body = reply.chunks and table.concat(reply.chunks) or body, headers = headers },
    nil, reply.chunks
end

local function play_http(r)
  local req = request_of(r)
  local stub = find(req)
  if not stub then
    S.fail(("unexpected request: %s %s%s; t.http { method = %q, url = %q, reply = ... } answers it"):format(req.method,
      req.url, req.body ~= "" and " with the body " .. req.body:sub(1, 500) or "", req.method, req.url))
    return nil, failure("io_error", "the test has no stub for " .. req.method .. " " .. req.url)
  end
  stub.calls[#stub.calls + 1] = req
  local reply, e, began = stub.reply, nil, native.mono()
  if type(reply) == "function" then
    reply, e = reply(req)
    if reply == nil then return nil, type(e) == "table" and e or failure("io_error", tostring(e)) end
  end
  if (r.timeout_ms or 0) > 0 and native.mono() - began > r.timeout_ms / 1000 then
    return nil, failure("timeout_error", "no answer in time")
  end
  return response_of(reply)
end

function native.http(r)
  local res, e = play_http(r)
  return true, res, e
end

-- A response that is read as it comes: a body that is a list of texts comes in these pieces.
function native.http_open(r) return { request = r } end
function native.http_head(handle)
  local res, e, chunks = play_http(handle.request)
  if not res then return true, nil, e end
  handle.pieces, handle.at = chunks or { res.body }, 0
  return true, { status = res.status, headers = res.headers }
end
function native.http_read(handle)
  handle.at = handle.at + 1
  local piece = handle.pieces[handle.at]
  if piece == "" then return native.http_read(handle) end
  return true, piece
end
function native.http_close(handle) handle.pieces = {} end

return S
