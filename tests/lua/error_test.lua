-- What is wrong is said with the file and line of the user's code, wherever the library noticed it.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local dir = os.getenv "SCRIPTS"

-- At load: the reload's answer must begin with file:line.
local function at_load(line, message, text)
  t.test("at load: " .. message, function()
    t.write(dir .. "/x.lua", "local rig = require 'moonrig'\n" .. text)
    local answer, code = t.control "reload"
    os.remove(dir .. "/x.lua")
    t.ok(code ~= 0)
    local where = "^[^\n]*x.lua:" .. line .. ": "
    t.match(answer.error, where)
    local rest = answer.error:gsub(where, "", 1)
    if not rest:find(message, 1, true) then error(("%q does not hold %q"):format(answer.error, message), 2) end
  end)
end
at_load(2, "rig.tool takes a table, got nil", "rig.tool()")
at_load(2, 'rig.tool with a name finds a tool; declare one with rig.tool { name = "n", ... }', "rig.tool('n', print)")
at_load(3, "rig.tool: name must be a string, got nothing", "\nrig.tool{ description = 'x', run = print }")
at_load(2, "rig.tool: run must be a function, got string", "rig.tool{ name = 'n', description = 'x', run = 'x' }")
at_load(2, "rig.tool: unknown option descripton (known: name description", "rig.tool{ name = 'n', descripton = 'x' }")
at_load(2, "rig.tool: timeout must be a number, got string", "rig.tool{ name = 'n', description = 'x', run = print, timeout = '5' }")
at_load(2, 'tool "n": timeout is seconds, more than 0, at most 86400', "rig.tool{ name = 'n', description = 'x', run = print, timeout = -1 }")
at_load(2, 'tool "n": concurrency is from 1 to 10000', "rig.tool{ name = 'n', description = 'x', run = print, concurrency = 0 }")
at_load(2, 'tool "n": answered_by is "client" or left out', "rig.tool{ name = 'n', description = 'x', run = print, answered_by = 'me' }")
at_load(2, "rig.hook: phase is accept, context, model, permit, tools, settle or idle, not premit", "rig.hook{ phase = 'premit', run = print }")
at_load(2, "rig.hook: tool is for the phases permit and tools, not for settle",
  "rig.hook{ phase = 'settle', run = print, tool = 'look' }")
at_load(2, "rig.hook: fail is \"closed\" or \"open\"", "rig.hook{ phase = 'permit', run = print, fail = 'shut' }")
at_load(2, "rig.agent: name must be a string, got nothing", "rig.agent{ model = 'm' }")
at_load(2, "rig.provider: models is missing", "rig.provider{ name = 'p', run = print }")
at_load(2, "rig.main was called at tests/lua/error_test.lua:", "rig.main(print)")
at_load(2, "rig.main takes a function, got nil", "rig.main()")
at_load(2, "rig.file: ", "local s = rig.file 'nowhere.md'")
at_load(2, "rig.sleep waits, and nothing may wait while scripts load", "rig.sleep(1)")
at_load(4, "rig.agents.list waits", "local function helper()\n\nreturn (rig.agents.list())\nend\nhelper()")
at_load(2, "rig.fs waits", "rig.fs.read 'x'")
at_load(2, "sessions.events.stream waits", "rig.sessions.events.stream 's'")
at_load(2, "attempt to", "local x = nil + 1")
at_load(2, "cannot encode a function in field f as JSON", "rig.json.encode { f = print }")
at_load(2, "time budget spent: the top level of the scripts ran too long", "while true do end")
at_load(2, "os.exit is not there for scripts", "os.exit(1)")

-- In a handler: the model's error text, and the log.
local function in_handler(line, message, text)
  t.test("in a handler: " .. message, function()
    t.write(dir .. "/x.lua", "local rig = require 'moonrig'\nrig.tool { name = 'h', description = 'x', run = function(input)\n"
      .. text .. "\nend }")
    local answer, code = t.control "reload"
    t.equal(code, 0, tostring(answer.error))
    t.quiet = nil
    local _, e = t.use "h"
    t.match(e, "x.lua:" .. line .. ": ")
    if not e:find(message, 1, true) then error(("%q does not hold %q"):format(e, message), 2) end
    t.match(host.logs(), "0 tool h: [^\n]*x.lua:" .. line .. ": .*\n0 tool h: stack traceback:")
    os.remove(dir .. "/x.lua")
    t.control "reload"
  end)
end
in_handler(3, "attempt to index", "local v = input.a.b")
in_handler(5, "rig.http: a url is missing", "\n\nlocal r = rig.http.get()")
in_handler(3, "rig.sleep: seconds from 0 to 1e9", "local r = rig.sleep(-1)")
in_handler(4, "rig.map needs a function, got nil", "\nlocal r = rig.map({}, nil)")
in_handler(3, "cannot wait here", "table.sort({ 2, 1 }, function() rig.sleep(1) end)")
in_handler(3, "rig.tool declares: call it in a script's top-level code", "local r = rig.tool { name = 'late', description = 'x', run = print }")
in_handler(3, "rig.workflow is not in this version", "local r = rig.workflow")
in_handler(3, "cannot encode a table with both named fields and an array part", "local r = rig.json.encode { 1, a = 2 }")
in_handler(4, "time budget spent: the task ran too long", "local x\nwhile true do x = 1 end")
in_handler(3, "module 'nowhere' not found", "local x = require 'nowhere'")
in_handler(3, "inner", "local r = coroutine.wrap(function() error 'inner' end)()")

t.test("a value that is returned wrongly names the tool", function()
  t.write(dir .. "/x.lua", "require('moonrig').tool { name = 'h', description = 'x', run = function() return { f = print } end }")
  t.control "reload"
  t.quiet = nil
  local _, e = t.use "h"
  t.equal(e, "cannot encode a function in field f as JSON")
  t.match(host.logs(), "0 tool h: cannot encode a function in field f as JSON")
  os.remove(dir .. "/x.lua")
  t.control "reload"
end)
t.test("a long path keeps its end", function()
  local long = dir .. "/" .. ("d"):rep(80)
  os.execute("mkdir -p " .. long)
  t.write(long .. "/x.lua", "\nlocal x = nil + 1")
  t.match(t.control("reload").error, "x.lua:2: ")
  os.execute("rm -r " .. long)
end)
rig.main(t.run)
