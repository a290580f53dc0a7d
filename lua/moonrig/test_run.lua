-- Runs the tests of a file, one after the other, each with fresh scripts, and looks after each what it left behind.
local native = require "moonrig.native"
local S = require "moonrig.test_seams"
local err = require "moonrig.err"
local task = require "moonrig.task"
local wait = require "moonrig.wait"

local M = {}
local pause = wait(native.test.pause)

-- ------------------------------------------------------------------------------------------- globals

local libraries = { "string", "table", "math", "os", "io", "debug", "coroutine", "utf8", "package" }

local function globals(g)
  local all = {}
  for k, v in pairs(g.env) do all[tostring(k)] = v end
  for _, name in ipairs(libraries) do
    for k, v in pairs(type(g.env[name]) == "table" and g.env[name] or {}) do all[name .. "." .. tostring(k)] = v end
  end
  return all
end

local function changed(g, before, out)
  local now = globals(g)
  for k, v in pairs(now) do
    if before[k] ~= v then out[#out + 1] = k end
  end
  for k in pairs(before) do
    if now[k] == nil then out[#out + 1] = k end
  end
end

---Remembers the globals of scripts that were just loaded.
function S.watch_globals(g)
  S.globals[g] = globals(g)
end

local function check_globals()
  local names = {}
  for g, before in pairs(S.globals) do changed(g, before, names) end
  if #names == 0 then return end
  table.sort(names)
  S.fail("a global changed: " .. table.concat(names, ", ") .. "; use local, or a table of the module's own")
end

-- --------------------------------------------------------------------------------------------- a test

local function begin(test)
  S.running, S.failures = test, {}
  S.loads, S.stubs, S.env, S.scripts, S.any = { (table.unpack or unpack)(S.file_loads) }, {}, {}, {}, nil
  S.sessions, S.tmp, S.tools, S.hooks, S.renamed, S.names = {}, {}, {}, {}, {}, {}
  S.globals = { [S.base] = globals(S.base) }
  S.log_from = #native.test.logged(0)
  for _, stub in ipairs(S.file_stubs) do stub.calls = {} end
end

---A traceback without the kit's own lines.
local function traceback()
  local lines = {}
  for line in debug.traceback("", 3):gmatch "[^\n]+" do
    if not line:find "^%s+moonrig/" and not line:find "%[C%]" then lines[#lines + 1] = line end
  end
  return #lines > 2 and table.concat(lines, "\n") or nil
end

---What a message handler can see of an error: its text, its line, its traceback.
local function described(e)
  local d = { message = err.text(e) }
  if type(e) == "table" and e.where then
    d.where = e.where
    return d
  end
  local file, line = native.where()
  d.where = file and line and file .. ":" .. line or nil
  if type(e) == "string" then
    d.message = e
    d.trace = traceback()
  end
  return d
end

local function body(test, result)
  local loads = #S.loads > 0 or S.loaded
  if loads then
    local ok, e = S.reload(S.loads)
    if not ok then
      result.failure = { message = "t.load: " .. err.text(e), where = test.where }
      return
    end
  end
  local ok, e = xpcall(test.fn, described)
  if not ok then result.failure = e end
end

---What still runs, besides the runner: tasks, and sessions of the test.
local function running(me)
  local tasks, names = {}, {}
  for _, one in ipairs(native.test.tasks()) do
    if one.id ~= me then
      tasks[#tasks + 1] = one
      names[#names + 1] = one.label
    end
  end
  for _, s in ipairs(S.sessions) do
    if s:refresh() and (s.status == "running" or s.status == "rescheduling") then
      names[#names + 1] = "session " .. s.id
    end
  end
  return names, tasks
end

---Real time for what is about to end; then what has not is a failure.
local function check_left()
  local names, tasks
  for _ = 1, 100 do
    names, tasks = running(native.current())
    if #names == 0 then return end
    pause(2)
  end
  S.fail("left running: " .. table.concat(names, ", "))
  for _, one in ipairs(tasks) do native.cancel(one.id, "the test is over") end
end

local function check_stubs()
  for _, list in ipairs { S.stubs, S.file_stubs } do
    for _, stub in ipairs(list) do
      if stub.times and #stub.calls ~= stub.times then
        S.fail(("the stub for %s %s answered %d requests of %d"):format(stub.method or "any", stub.url, #stub.calls,
          stub.times))
      end
    end
  end
end

local function clean()
  local api = require "moonrig.api"
  for _, s in ipairs(S.sessions) do
    local gone = api.call("sessions.delete", { session_id = s.id })
    if not gone then -- it works still
      s:interrupt()
      api.call("sessions.archive", { session_id = s.id })
    end
  end
  for _, path in ipairs(S.tmp) do native.test.remove(path) end
  collectgarbage()
end

---Runs one test in a task of its own.
local function run_one(test)
  local result = { name = test.name }
  local t0 = native.test.elapsed()
  begin(test)
  local one = task.spawn(function()
    body(test, result)
    if not result.failure then check_left() end
  end)
  native.test.limit(one.id)
  local ok, e = pcall(one.wait, one)
  native.test.limit(nil)
  if not ok and not result.failure then
    result.failure = { message = err.text(e), where = test.where }
  end
  for _, other in ipairs(native.test.tasks()) do native.cancel(other.id, "the test is over") end
  if not result.failure then
    check_stubs()
    check_globals()
  end
  pcall(clean)
  if result.failure then table.insert(S.failures, 1, result.failure.message) end
  result.ok = #S.failures == 0
  result.seconds = native.test.elapsed() - t0
  result.where = result.failure and result.failure.where or test.where
  result.trace = result.failure and result.failure.trace
  result.message = table.concat(S.failures, "\n")
  S.running = nil
  return result
end

local function report(r)
  local line = { name = r.name, ok = r.ok, where = r.where, seconds = r.seconds,
    message = not r.ok and r.message or nil, trace = not r.ok and r.trace or nil }
  local json = native.json_encode(line)
  if not json then -- bytes that are not UTF-8
    for k, v in pairs(line) do
      if type(v) == "string" then line[k] = v:gsub("[\128-\255]", "?") end
    end
    json = assert(native.json_encode(line))
  end
  native.test.result(json)
end

---All tests of the file; the exit code.
function M.main()
  local failed = 0
  for _, test in ipairs(S.tests) do
    if not native.test.only or test.name:find(native.test.only, 1, true) then
      local r = run_one(test)
      if not r.ok then failed = failed + 1 end
      report(r)
    end
  end
  return failed > 0 and 1 or 0
end

return M
