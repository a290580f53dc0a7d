-- The test kit: local t = require "moonrig.test", in files that `moonrig test` runs. Everything runs offline: HTTP
-- is answered by stubs, models by scripts, and time stands still until the test moves it.
local native = require "moonrig.native"
if not native.test then
  native.raise "module \"moonrig.test\" is there for test files only: moonrig test FILE_test.lua"
end
local S = require "moonrig.test_seams"
local declare = require "moonrig.declare"
local diff = require "moonrig.test_diff"
local err = require "moonrig.err"
local task = require "moonrig.task"
local wait = require "moonrig.wait"

local t = {}
local unpack = table.unpack or unpack
local load_scripts, pause = wait(native.test.load), wait(native.test.pause)
local Failure = { __tostring = function(f) return f.message end }

---Ends the test at the line of the user's code that called.
local function fail(message)
  local file, line = native.where()
  error(setmetatable({ message = message, where = file and line and file .. ":" .. line or nil }, Failure), 0)
end

local function running(what)
  if not S.running then err.misuse("%s belongs into t.test(name, function() ... end)", what) end
end

---Declares a test; they run in order, each with scripts loaded afresh.
---@param name string
---@param fn fun()
function t.test(name, fn)
  if type(name) ~= "string" or type(fn) ~= "function" then err.misuse("t.test takes a name and a function") end
  if S.running then err.misuse("t.test inside of a test: tests do not nest") end
  local file, line = native.where()
  S.tests[#S.tests + 1] = { name = name, fn = fn, where = file and (file .. ":" .. (line or 0)) }
end

-- ---------------------------------------------------------------------------------------- assertions

---Raises unless the two are equal in depth; says where they differ.
---@param got any
---@param want any
---@param what? string
function t.equal(got, want, what)
  local lines = diff.values(got, want)
  if #lines == 0 then return end
  fail((what and what .. ": " or "") .. table.concat(lines, "\n"))
end

function t.is_nil(v, what)
  if v ~= nil then fail(("%s is %s, not nil"):format(what or "value", diff.show(v))) end
end

---Raises unless v is true in the sense of Lua; returns it.
function t.ok(v, what)
  if not v then fail(("%s is %s"):format(what or "value", tostring(v))) end
  return v
end

---Raises unless the text matches the pattern of Lua.
---@param text string
---@param pattern string
function t.match(text, pattern)
  if type(text) ~= "string" or not text:find(pattern) then
    fail(("%s does not match %s"):format(diff.show(text), diff.show(pattern)))
  end
end

---Raises unless fn raises an error whose message matches the pattern; returns the error.
---@param pattern string
---@param fn function
function t.raises(pattern, fn, ...)
  local ok, e = pcall(fn, ...)
  if ok then fail("no error was raised") end
  local text = err.text(e)
  if not text:find(pattern) then
    fail(("raised %s, which does not match %s"):format(diff.show(text), diff.show(pattern)))
  end
  return e
end

-- ------------------------------------------------------------------------------------ scripts under test

local function resolve(path)
  if path:sub(1, 1) == "/" then return path end
  local beside = native.test.file:match "^(.*)/[^/]*$" or "."
  for _, dir in ipairs { native.test.root, beside, "." } do
    local full = dir == "." and path or dir .. "/" .. path
    if native.test.exists(full) then return full end
  end
  fail(("%s: no such file or directory in %s or %s"):format(path, native.test.root, beside))
end

---Makes the scripts of the running test current; raises what is wrong with them.
function S.reload(list)
  local ok, e = load_scripts(list)
  if not ok then return nil, e end
  local g = native.test.current()
  if g.starting then wait(native.join)(g.starting) end
  local problem = native.test.last_error()
  if problem ~= "" then return nil, err.new("invalid_request_error", problem) end
  S.loaded = list
  S.watch_globals(g)
  return true
end

---Loads a script, or a directory as `moonrig serve` does: at the top level for all tests of the file, in a test for
---this one. Relative to the project, else to the test file.
---@param path string
function t.load(path)
  if type(path) ~= "string" then err.misuse("t.load takes a path, got %s", type(path)) end
  path = resolve(path)
  if not S.running then
    S.file_loads[#S.file_loads + 1] = path
    return
  end
  local list = { unpack(S.loads) }
  list[#list + 1] = path
  local ok, e = S.reload(list)
  if not ok then fail("t.load: " .. err.text(e)) end
  S.loads = list
end

---Values of rig.env, for the test (at the top level: for all tests of the file); false: not set.
---@param values table<string, string|false>
function t.env(values)
  declare.check("t.env", { values = values }, "values", "table", true)
  local into = S.running and S.env or S.file_env
  for k, v in pairs(values) do into[k] = v end
end

---@class moonrig.test.Stub
---@field calls table[] the requests it answered: method, url, headers, body, :json()

---A stub for rig.http: { method = (any), url = exact, or with * for anything, times = (any number), reply }. reply is
---{ status, body, headers, json } (a body that is a list of texts comes in pieces), { error = "connection refused" },
---or function(request) that gives one. A url without a query stands for every query. A request that no stub takes
---fails the test.
---@param o table
---@return moonrig.test.Stub
function t.http(o)
  declare.keys("t.http", o, "method url times reply")
  declare.check("t.http", o, "url", "string", true)
  declare.check("t.http", o, "method", "string")
  declare.check("t.http", o, "times", "number")
  local kind = type(o.reply)
  if kind ~= "table" and kind ~= "string" and kind ~= "function" then
    err.misuse("t.http: reply is a table, a text or a function, got %s", kind)
  end
  if kind == "table" then declare.keys("t.http reply", o.reply, "status body headers json error") end
  local stub = { method = o.method and o.method:upper(), url = o.url, times = o.times, reply = o.reply, calls = {} }
  local into = S.running and S.stubs or S.file_stubs
  into[#into + 1] = stub
  return stub
end

local function tool_named(name, agent)
  local g, all, found = native.test.current(), {}, nil
  for _, d in ipairs(g.decls.tool) do
    local of = type(d.decl.agent) == "table" and (d.decl.agent.name or d.decl.agent.id) or d.decl.agent
    all[#all + 1] = d.decl.name
    if d.decl.name == name and (of == agent or of == nil and not found) then found = d.decl end
    if d.decl.name == name and agent == nil then found = found or d.decl end
  end
  if found then return found end
  local there = #all > 0 and table.concat(all, ", ") or "none: t.load a script"
  fail(("no tool %q is loaded; there is %s"):format(name, there))
end

local calls = 0

---Calls a tool's handler: what it returns, raises what it raises. o: agent, attempt (1), session (a session or an id),
---tool_use_id. The input reaches it as JSON does; it is not checked against the schema.
---@param name string
---@param input? table
---@param o? table
---@return any out
---@return any err
function t.call(name, input, o)
  running "t.call"
  o = o or {}
  declare.keys("t.call", o, "agent attempt session tool_use_id")
  local decl = tool_named(name, o.agent)
  if not decl.run then fail(("tool %q is answered by the client: it has no handler"):format(name)) end
  calls = calls + 1
  local results
  local stand_in = setmetatable({ run = function(i, ctx)
    results = { n = 0 }
    local function keep(...)
      results.n = select("#", ...)
      for k = 1, results.n do results[k] = (select(k, ...)) end
    end
    keep(decl.run(i, ctx))
    return true
  end }, { __index = decl })
  local session = type(o.session) == "table" and o.session.id or o.session or "sesn_test"
  local text, e = native.json_encode(input or {}, false, true)
  if not text then fail("t.call: input: " .. err.text(e)) end
  S.tool_entry(stand_in, assert(native.json_decode(text)), { session_id = session, thread = "sthr_test",
    tool_use_id = o.tool_use_id or ("sevt_test%04d"):format(calls), agent = o.agent or "test",
    attempt = o.attempt or 1, deadline = decl.timeout or 120 })
  return unpack(results, 1, results.n)
end

-- ------------------------------------------------------------------------------------ models, sessions

---A reply of a scripted model: the use of a tool.
function t.use(name, input, id)
  if type(name) ~= "string" then err.misuse("t.use takes a tool's name and its input") end
  return { type = "tool_use", name = name, input = input or {}, id = id }
end

---A reply of a scripted model: text.
function t.say(text) return { type = "text", text = tostring(text) } end

---A thought, before what else a reply has: { t.thinking "hm", t.say "yes" }.
function t.thinking(text) return { type = "thinking", thinking = tostring(text), signature = "dGVzdA==" } end

---A failure of the model: "overloaded_error", "rate_limit_error", "api_error" are tried again (later: t.advance),
---"invalid_request_error" is not.
function t.fail(type, message) return { fails = { type = type, message = message or type } } end

local function script_of(what, model)
  if type(model) == "function" then return { all = model, at = 0, requests = {}, steps = {} } end
  if type(model) ~= "table" then
    err.misuse("%s: model is a list of replies (t.say, t.use, t.fail, a function), or one function", what)
  end
  for i, step in ipairs(model) do
    local kind = type(step)
    if kind ~= "table" and kind ~= "function" and kind ~= "string" then
      err.misuse("%s: reply %d of the model is a %s", what, i, kind)
    end
  end
  local steps = {}
  for i, step in ipairs(model) do steps[i] = type(step) == "string" and t.say(step) or step end
  return { steps = steps, at = 0, requests = {} }
end

---The model of all sessions that were not made by t.session, e.g. by a tool under test.
---@param model table|function
function t.model(model)
  running "t.model"
  S.any = script_of("t.model", model)
end

---An agent with all the tools that are loaded, where a test names none.
local function any_agent()
  local tools = setmetatable({}, native.array_mt)
  for _, d in ipairs(native.test.current().decls.tool) do
    if not tools[d.decl.name] then tools[#tools + 1] = d.decl end
  end
  return assert(require("moonrig.api").call("agents.create", { name = "test", model = "test", tools = tools }))
end

---A session as rig.session makes it, whose model is a script: replies in order (t.say, t.use, t.fail, a list of blocks,
---function(request, ctx)), or one function for all. Without `agent`: one that has all loaded tools.
---@param o table
---@return moonrig.Session
function t.session(o)
  running "t.session"
  if type(o) ~= "table" then err.misuse("t.session takes a table") end
  local session, params = require "moonrig.session", {}
  for k, v in pairs(o) do params[k] = v end
  local script = params.model ~= nil and script_of("t.session", params.model) or nil
  params.model = nil
  if params.agent == nil then params.agent = any_agent() end
  S.creating = S.creating + 1
  local ok, s, e = pcall(session.session, params)
  if ok and s then S.scripts[s.id] = script end
  S.creating = S.creating - 1
  if not ok then error(s, 0) end
  if not s then fail("t.session: " .. err.text(e)) end
  S.sessions[#S.sessions + 1] = s
  return s
end

---What the model of the session was asked, in order: { model, system, messages, tools }.
---@param s moonrig.Session
---@return table[]
function t.requests(s)
  local script = S.scripts[type(s) == "table" and s.id or s]
  return script and script.requests or {}
end

---The session's events.
---@param s moonrig.Session|string
---@return table[]
function S.events_of(s)
  local api, list, page = require "moonrig.api", {}, nil
  repeat
    local p = assert(api.call("sessions.events.list",
      { session_id = type(s) == "table" and s.id or s, limit = 1000, page = page }))
    for _, ev in ipairs(p.data) do list[#list + 1] = ev end
    page = p.next_page
  until not page
  return list
end

---Compares the order of a session's events: types, or tables of what an event must have; "..." is any number of
---events. Not compared unless named: session.status_running, session.usage, session.thread_*, span.*, agent.thinking.
---"agent.tool_use" and "agent.tool_result" stand for any tool's.
---@param s moonrig.Session
---@param want (string|table)[]
function t.events(s, want)
  if type(want) ~= "table" then err.misuse("t.events takes a session and a list") end
  local lines = diff.events(S.events_of(s), want)
  if lines then fail("the events are not in the expected order\n" .. table.concat(lines, "\n")) end
end

-- -------------------------------------------------------------------------------------- time, log, files

---Seconds since 1970 on the test's clock; it begins at 2026-01-01 and stands still.
t.now = native.now

---Moves the clock, in steps, so that what sleeps again meanwhile is woken again.
---@param seconds number
function t.advance(seconds)
  running "t.advance"
  if type(seconds) ~= "number" or seconds < 0 then err.misuse("t.advance takes seconds, from 0 on") end
  local us = math.floor(seconds * 1e6 + 0.5)
  local steps = math.min(100, math.max(1, math.ceil(us / 1000)))
  local function settle()
    for _ = 1, 3 do task.sleep(0) end -- through the loop and back: timers fire, their tasks run
  end
  settle() -- what was just started begins to wait now
  for i = 1, steps do
    native.test.advance(math.floor(us * i / steps) - math.floor(us * (i - 1) / steps))
    settle()
  end
  pause(1)
end

---Waits, in real time, until fn gives something: for what the runtime does meanwhile. Returns it.
---@param fn fun(): any
---@param what? string
function t.wait(fn, what)
  running "t.wait"
  while true do
    local v = fn()
    if v then return v end
    local ok, e = pcall(pause, 2)
    if not ok then fail(("waited in vain%s: %s"):format(what and " for " .. what or "", err.text(e))) end
  end
end

---Lines of the log since the test began, "level source: text"; with a pattern, those that match.
---@param pattern? string
---@return string[]
function t.log(pattern)
  local list = {}
  for line in native.test.logged(S.log_from or 0):gmatch "[^\n]+" do
    if not line:find "generation %d+ is current" and (not pattern or line:find(pattern)) then list[#list + 1] = line end
  end
  return list
end

---The path of an empty directory; it goes away after the test.
---@return string
function t.tmp()
  running "t.tmp"
  local path = native.test.tmp()
  S.tmp[#S.tmp + 1] = path
  return path
end

S.fail_here = fail
t.record = function(...) return require("moonrig.test_replay").record(...) end
t.replay = function(...) return require("moonrig.test_replay").replay(t, ...) end

return t
