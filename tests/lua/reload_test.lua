-- options: -w
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local dir = os.getenv "SCRIPTS"

local function tool(name, body, more)
  return ("local rig = require 'moonrig'\nlocal helper = require 'helper'\nreturn rig.tool { name = '%s', description = 'x', %s run = function(input, ctx)\n%s\nend }\n")
    :format(name, more or "", body)
end
local function helper(v) t.write(dir .. "/helper.lua", ("return { version = %q }"):format(v)) end
local function current() return (host.generation()) end

t.test("new scripts become current", function()
  helper "one"
  t.write(dir .. "/a.lua", tool("a", "return helper.version .. ctx.generation"))
  local answer, code = t.control "reload"
  t.equal(code, 0)
  t.equal(answer.generation, 2)
  t.equal(answer.previous, 1)
  t.equal(t.use "a", '"one2"')
  t.quiet = nil -- a generation more is alive from here on
  rig.sleep(0)
end)
t.test("a call stays on the generation it began on, modules too", function()
  helper "one"
  t.write(dir .. "/a.lua", tool("a", "rig.sleep(input.s or 0) local late = require 'late' return helper.version .. late .. ctx.generation"))
  t.write(dir .. "/late.lua", "return 'L1'")
  t.equal(t.control("reload").generation, 3)
  local id = host.use("a", '{"s":5}')
  rig.sleep(1)
  helper "two"
  t.write(dir .. "/late.lua", "return 'L2'")
  t.equal(t.control("reload").generation, 4)
  t.equal(t.use "a", '"twoL24"')
  t.equal(t.wait(function() return host.state(id) end), '"oneL13"')
end)
t.test("rollback is one command, and back again", function()
  t.equal(t.control("rollback").generation, 3)
  t.equal(current(), 3)
  t.equal(t.use "a", '"oneL13"')
  t.equal(t.control("rollback").generation, 4)
  t.equal(t.use "a", '"twoL24"')
  local g = t.control("reload").generation
  t.equal(g, 5)
end)
t.test("removed tools are taken back", function()
  t.write(dir .. "/b.lua", tool("b", "return 'b'"))
  t.control "reload"
  t.equal(t.use "b", '"b"')
  os.remove(dir .. "/b.lua")
  t.control "reload"
  t.equal(host.tool "b", nil)
  t.ok(host.tool "a")
end)

local function refused(name, file, text, pattern)
  t.test("refused: " .. name, function()
    local before, tools = current(), host.count "t"
    local works = t.use "a"
    t.write(dir .. "/" .. file, text)
    local answer, code = t.control "reload"
    os.remove(dir .. "/" .. file)
    t.ok(code ~= 0, "code " .. code)
    t.match(answer.error, pattern)
    t.equal(answer.generation, before)
    local now, e = host.generation()
    t.equal(now, before)
    t.match(e, pattern)
    t.match(host.logs(), "refused")
    t.equal(host.count "t", tools)
    t.equal(t.use "a", works)
  end)
end
refused("a syntax error", "x.lua", "local = 1", "x.lua:1:")
refused("an error at load", "x.lua", "local t = nil\nreturn t.field", "x.lua:2:")
refused("a wait at load", "x.lua", "local rig = require 'moonrig'\nrig.sleep(1)", "x.lua:2: rig.sleep waits, and nothing may wait while scripts load")
refused("a call at load", "x.lua", "require('moonrig').agents.list()", "nothing may wait while scripts load")
refused("a session at load", "x.lua", "require('moonrig').session{ agent = 'a' }", "nothing may wait while scripts load")
refused("a request at load", "x.lua", "require('moonrig').http.get 'http://x'", "nothing may wait while scripts load")
refused("a task at load", "x.lua", "require('moonrig').spawn(function() end)", "can only be started by a task")
refused("an endless loop at load", "x.lua", "while true do pcall(function() while true do end end) end", "time budget spent: the top level")
refused("a schema with a wrong type", "x.lua", tool("x", "", "input_schema = { type = 'object', properties = { a = { type = 'text' } } },"), "x.lua:%d+: tool \"x\": input_schema.properties.a.type: text")
refused("a schema that is not an object's", "x.lua", tool("x", "", "input_schema = { type = 'string' },"), "must be \"object\"")
refused("a schema with a bad list", "x.lua", tool("x", "", "input_schema = { type = 'object', required = { a = 1 } },"), "required must be a list")
refused("a schema that is not JSON", "x.lua", tool("x", "", "input_schema = { type = 'object', default = print },"), "cannot encode a function")
refused("a bad tool name", "x.lua", tool("not good", ""), "letters, digits")
refused("a tool twice", "x.lua", tool("a", ""), "x.lua:%d+: tool \"a\" is declared twice; the other one is at .*a.lua:%d+")
refused("an unknown option", "x.lua", tool("x", "", "timout = 3,"), "unknown option timout")
refused("a missing description", "x.lua", "require('moonrig').tool { name = 'x', run = print }", "description must be a string")
refused("an agent twice", "x.lua", "local rig = require 'moonrig' rig.agent { name = 'n' } rig.agent { name = 'n' }", "agent \"n\" is declared twice")
refused("a phase that is not there", "x.lua", "require('moonrig').hook { phase = 'premit', run = print }", "premit")
refused("a loop of requires", "x.lua", "require 'x'", "loop")
refused("a missing module", "x.lua", "require 'nowhere.at_all'", "nowhere.at_all")
refused("bytecode", "x.lua", string.dump(function() end), "x.lua")
refused("too much memory at load", "x.lua", "local s = {} for i = 1, 1e9 do s[i] = ('x'):rep(1e6) .. i end", "not enough memory")

t.test("what the core refuses changes nothing", function()
  host.set("refuse_tool", 1)
  local before, hooks = current(), host.count "h"
  t.write(dir .. "/x.lua", tool("refused", "") .. "")
  t.write(dir .. "/w.lua", "require('moonrig').hook { phase = 'permit', run = print }" .. tool("w", ""):gsub("^", "\n"))
  local answer, code = t.control "reload"
  host.set("refuse_tool", 0)
  os.remove(dir .. "/x.lua")
  os.remove(dir .. "/w.lua")
  t.ok(code ~= 0)
  t.match(answer.error, "this host refuses it")
  t.equal(current(), before)
  t.equal(host.count "h", hooks)
  t.equal(host.tool "w", nil)
  t.ok(t.use "a")
end)
t.test("hooks follow the generation", function()
  local hooks = host.count "h"
  t.write(dir .. "/h.lua", "require('moonrig').hook { phase = 'permit', run = function(c, x) return 'deny', 'g' .. x.generation end }")
  local g = t.control("reload").generation
  t.equal(host.count "h", hooks + 1)
  local function ask()
    local id = host.hook("permit", "{}")
    return t.wait(function() return host.state(id) end)
  end
  t.match(ask(), '"g' .. g .. '"')
  t.control "reload"
  t.equal(host.count "h", hooks + 1)
  t.match(ask(), '"g' .. (g + 1) .. '"')
  t.control "rollback"
  t.equal(host.count "h", hooks + 1)
  t.match(ask(), '"g' .. g .. '"')
  os.remove(dir .. "/h.lua")
  t.control "reload"
  t.equal(host.count "h", hooks)
  rig.sleep(0)
  local records = host.alive():match "records=%d+"
  for _ = 1, 10 do
    t.write(dir .. "/h.lua", "require('moonrig').hook { phase = 'permit', run = print }")
    t.control "reload"
    os.remove(dir .. "/h.lua")
    t.control "reload"
  end
  rig.sleep(0)
  t.equal(host.alive():match "records=%d+", records)
end)
t.test("globals of a script stay in its generation", function()
  t.write(dir .. "/g.lua", "leak = (leak or 0) + 1\n" .. tool("g", "return { leak, _G.leak }"))
  t.control "reload"
  t.equal(t.use "g", "[1,1]")
  t.control "reload"
  t.equal(t.use "g", "[1,1]")
  t.equal(rawget(host.globals(), "leak"), nil)
  os.remove(dir .. "/g.lua")
  t.control "reload"
end)
t.test("rig.file and subdirectories", function()
  os.execute("mkdir -p " .. dir .. "/tools " .. dir .. "/tests " .. dir .. "/_private")
  t.write(dir .. "/tools/prompt.md", "be brief")
  t.write(dir .. "/tools/c.lua", "local text = require('moonrig').file 'prompt.md'\n" .. tool("c", "return text"))
  t.write(dir .. "/tests/bad.lua", "error 'must not run'")
  t.write(dir .. "/_private/bad.lua", "error 'must not run'")
  t.write(dir .. "/some_test.lua", "error 'must not run'")
  t.equal((select(2, t.control "reload")), 0)
  t.equal(t.use "c", '"be brief"')
end)
t.test("watching: a changed script reloads, other files do not", function()
  local before = current()
  t.write(dir .. "/output.txt", "written by a script")
  host.touch(dir .. "/output.txt")
  rig.sleep(0.1)
  t.equal(current(), before)
  t.write(dir .. "/tools/prompt.md", "be very brief")
  host.touch(dir .. "/tools/prompt.md")
  t.wait(function() return current() ~= before or nil end)
  t.equal(t.use "c", '"be very brief"')
  t.write(dir .. "/tools/c.lua", "oops(")
  host.touch(dir .. "/tools/c.lua")
  t.wait(function() return select(2, host.generation()) ~= "" or nil end)
  t.match(select(2, host.generation()), "c.lua:1:")
  t.equal(t.use "c", '"be very brief"')
  os.remove(dir .. "/tools/c.lua")
  os.remove(dir .. "/some_test.lua")
  t.control "reload"
end)
t.test("status, and what is not a command", function()
  local s, code = t.control "status"
  t.equal(code, 0)
  t.ok(s.tasks >= 1 and s.memory_bytes > 1000)
  t.ok(select(2, t.control "dance") ~= 0)
end)
t.test("a hundred reloads leave nothing", function()
  collectgarbage() collectgarbage()
  local before = t.control("status").memory_bytes
  for _ = 1, 100 do t.control "reload" end
  collectgarbage() collectgarbage()
  local after = t.control("status").memory_bytes
  t.match(host.alive(), "generations=3 ")
  t.ok(after < before + 200000, ("memory grew from %d to %d"):format(before, after))
end)
rig.main(t.run)
