-- What scripts see of the world: globals of their own, require, text only; and what is kept from them.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local dir, tmp = os.getenv "SCRIPTS", os.getenv "TMP"

-- Loads this text as the only script of the directory, in a new generation; nil, err when it is refused.
local function load_script(text)
  t.write(dir .. "/a.lua", "local rig = require 'moonrig'\n" .. text)
  local answer, code = t.control "reload"
  if code ~= 0 then return nil, answer.error end
  return true
end
local function result(text)
  assert(load_script("rig.tool { name = 'r', description = 'x', run = function(input) " .. text .. " end }"))
  local out, e = t.use "r"
  if not out then error(e, 2) end
  return rig.json.decode(out)
end

t.test("the first load", function()
  assert(load_script "")
  t.quiet = nil -- from here on two generations are alive
end)
t.test("what a generation does to shared tables goes with it", function()
  assert(load_script [[
    function string.shout(s) return s:upper() .. "!" end
    table.mine = true
    math.pi = 3
    package.path = "nowhere"
    package.loaded.fake = "fake"
    rig.http.get = function() return "mocked" end
    rig.tool { name = 'r', description = 'x', run = function()
      return { ("a"):shout(), string.shout "b", table.mine, math.pi, package.path, require "fake", rig.http.get() }
    end }]])
  t.equal(t.use "r", '["A!","B!",true,3,"nowhere","fake","mocked"]')
  t.equal(rawget(host.globals().string, "shout"), nil)
  t.equal(string.shout, nil)
  t.equal(result [[ return { string.shout == nil, ("").shout == nil, table.mine == nil, math.pi > 3.1, package.path ~= "nowhere",
    package.loaded.fake == nil, type(rig.http.get) == "function" and rig.http.get ~= nil } ]][2], true)
  t.equal(t.use "r", "[true,true,true,true,true,true,true]")
end)
t.test("what a broken generation did is gone too", function()
  assert(not load_script [[
    string.broken = print
    rig.log.info = nil
    leaked = 1
    package.preload.x = print
    error "no"]])
  os.remove(dir .. "/a.lua")
  t.equal(result "return { string.broken == nil, rig.log.info ~= nil, leaked == nil, package.preload.x == nil }"[4], true)
  t.equal(t.use "r", "[true,true,true,true]")
end)
t.test("the metatables that all generations share cannot be changed", function()
  for _, code in ipairs { "getmetatable(rig).__index = print", "getmetatable(rig.env).__newindex = nil",
    "setmetatable(rig, {})", "getmetatable('').__index = print", "getmetatable('').__concat = print" } do
    assert(not load_script(code))
  end
  t.match(select(2, load_script "getmetatable('').__mod = string.format"), "put functions into `string`")
  t.equal(result "return { ('x'):upper(), getmetatable('').__index == ('x').rep or 1, rig.env.HOME ~= nil }"[1], "X")
end)
t.test("a strict mode on _G works, and only there", function()
  assert(load_script [[
    setmetatable(_G, { __index = function(_, k) error("undeclared " .. k, 2) end,
      __newindex = function(_, k) error("assigned " .. k, 2) end })
    rig.tool { name = 'r', description = 'x', run = function()
      local _, a = pcall(function() return nowhere end)
      local _, b = pcall(function() nothing = 1 end)
      return { a, b, type(print) }
    end }]])
  t.match(t.use "r", "undeclared nowhere.*assigned nothing.*function")
  t.equal(result "return nowhere == nil", true)
end)
t.test("_G, _ENV, load, setfenv are the generation's", function()
  t.equal(result "here = 5 return _G.here", 5)
  t.equal(result "return load 'here = 6 return here' ()", 6)
  t.equal(result "return load(function() return nil end) ~= nil", true)
  t.equal(result "return load('return x', 'n', 't', { x = 7 })()", 7)
  if setfenv then
    t.equal(result "return setfenv(function() return y end, { y = 8 })()", 8)
    t.equal(result "return { getfenv(0) == _G, getfenv(1) == _G, getfenv(function() end) == _G }"[3], true)
    t.equal(t.use "r", "[true,true,true]")
    t.match(select(2, pcall(result, "setfenv(0, {}) return 1")), "whole program")
  end
  t.equal(rawget(host.globals(), "here"), nil)
end)
t.test("text only", function()
  t.match(result "return select(2, load(string.dump(function() end)))", "mode")
  t.match(result "return select(2, load(string.dump(function() end), 'x', 'b'))", "mode")
  t.match(result("local f = io.open('" .. tmp .. "/b', 'wb') f:write(string.dump(function() end)) f:close() return select(2, loadfile('"
    .. tmp .. "/b'))"), "mode")
  t.match(result "return select(2, package.loaded._G.load(string.dump(function() end)))", "mode")
  t.match(tostring(select(2, host.globals().load(string.dump(function() end)))), "mode")
end)
t.test("what would break a promise to others is refused", function()
  local function refused(code, pattern) t.match(result("return select(2, pcall(" .. code .. "))"), pattern) end
  refused("os.exit, 3", "os.exit is not there for scripts: .*return from rig.main")
  refused("os.setlocale, 'C'", "os.setlocale is not there")
  refused("debug.sethook", "debug.sethook is not there.*budget")
  refused("debug.getregistry", "debug.getregistry is not there")
  refused("require, 'moonrig.native'", "internal")
  refused("require, 'moonrig.boot'", "internal")
  if t.jit then
    refused("jit.on", "no time budget")
    refused("require 'jit'.on", "no time budget")
    refused("require, 'ffi'", "not found")
    t.equal(result "return newproxy == nil", true)
  end
end)

-- ------------------------------------------------------------------------------------------------ require
local function module(name, text)
  t.write(dir .. "/_lib/" .. name, text)
end
t.test("require: names, paths, arguments, once a generation", function()
  os.execute("mkdir -p " .. dir .. "/_lib/sub " .. tmp .. "/other")
  module("one.lua", "runs = (runs or 0) + 1 return { args = { ... } }")
  module("sub/init.lua", "return 'sub'")
  module("sub/two.lua", "return 'two'")
  module("none.lua", "local x = 1")
  module("old.lua", "package.loaded[...] = 'set by itself'")
  module("falsy.lua", "return false")
  t.write(tmp .. "/other/far.lua", "return 'far'")
  local r = result([[
    package.path = package.path .. ";]] .. tmp .. [[/other/?.lua"
    local one = require "_lib.one"
    assert(one == require "_lib.one" and one == require "_lib/one")
    return { runs, one.args[1], one.args[2]:match "[^/]+$", require "_lib.sub", require "_lib.sub.two", require "_lib.none",
      require "_lib.old", require "_lib.falsy" == false, require "far", select(2, require "far") == nil }]])
  t.equal(rig.json.encode(r), '[1,"_lib.one","one.lua","sub","two",true,"set by itself",true,"far",true]')
end)
t.test("require: package.preload and package.loaded", function()
  t.equal(rig.json.encode(result [[
    package.preload.made = function(name, where) return { name .. where } end
    local made = require "made"
    package.loaded.made = nil
    return { made[1], require "made" ~= made, require "string" == string, require "coroutine" == coroutine, require "_G" == _G,
      require "moonrig" == rig, package.loaded.rig == nil }]]), '["made:preload:",true,true,true,true,true,true]')
end)
t.test("require: C modules are shared by the generations", function()
  assert(load_script "rig.tool { name = 'r', description = 'x', run = function() require('host').shared = 'yes' return 1 end }")
  t.equal(t.use "r", "1")
  t.equal(host.shared, "yes")
  host.shared = nil
end)
t.test("require: errors say where", function()
  module("syntax.lua", "local x = = 1")
  module("raises.lua", "local t = nil\nreturn t.x")
  module("loop1.lua", "return require '_lib.loop2'")
  module("loop2.lua", "return require '_lib.loop1'")
  local function message(name) return result("return select(2, pcall(require, '" .. name .. "'))") end
  t.match(message "_lib.syntax", "syntax.lua:1: unexpected symbol near")
  t.match(message "_lib.raises", "raises.lua:2: attempt to index")
  t.match(message "_lib.loop1", "loop1.lua requires itself")
  t.match(message "_lib.nowhere", "module '_lib.nowhere' not found:\n\tno file '.*/_lib/nowhere.lua'\n\tno file")
  t.match(result "return select(2, pcall(require))", "module name, got nil")
  t.match(message "_lib.raises", "raises.lua:2: attempt to index") -- and again, not "true"
end)
t.test("a load error is logged with its traceback", function()
  host.logs()
  local ok, e = load_script "local function inner() error 'deep' end\nlocal function outer() inner() end\nouter()"
  t.equal(ok, nil)
  t.match(e, "a.lua:2: deep")
  local text = host.logs()
  t.match(text, "a.lua:2: deep\n.*stack traceback:\n.*a.lua:3")
  t.equal(select(2, text:gsub("stack traceback", "")), 1)
  module("raises.lua", "error 'in a module'")
  ok, e = load_script "require '_lib.raises'"
  t.equal(ok, nil)
  t.match(e, "raises.lua:1: in a module")
  t.equal(select(2, host.logs():gsub("stack traceback", "")), 1)
end)
t.test("a first line for the shell, a byte order mark", function()
  t.write(dir .. "/a.lua", "#!/usr/bin/env moonrig run\nlocal x = nil\nreturn x.y")
  t.match(t.control("reload").error, "a.lua:3:")
  t.write(dir .. "/a.lua", "\239\187\191return 1")
  t.equal(select(2, t.control "reload"), 0)
  os.remove(dir .. "/a.lua")
end)
rig.main(t.run)
