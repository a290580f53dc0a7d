-- What scripts do about reloading: rig.state, rig.check, rig.reload, rig.generations, rig.defaults.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local server = require "server"
local dir = os.getenv "SCRIPTS"

local function script(text) t.write(dir .. "/a.lua", "local rig = require 'moonrig'\n" .. text) end
local function reload(text)
  if text then script(text) end
  local answer, code = t.control "reload"
  t.equal(code, 0, tostring(answer.error))
  return answer.generation
end
local function refused(text, pattern)
  local before = host.generation()
  script(text)
  local answer, code = t.control "reload"
  t.ok(code ~= 0, "a refusal")
  t.match(answer.error, pattern)
  t.equal(host.generation(), before)
end

-- A tool that shows and changes a state.
local function counter(more)
  return ([[
local cache = rig.state { name = "cache", %s }
rig.tool { name = "count", description = "x", run = function(input)
  cache.n = (cache.n or 0) + (input.add or 0)
  if input.wait then rig.sleep(input.wait) end
  return cache.n
end }
]]):format(more)
end

t.test("a state survives reloads, init runs once", function()
  server.reset()
  reload(counter "version = 1, init = function(old) return old or { n = 10 } end")
  t.quiet = nil
  t.equal(t.use("count", { add = 1 }), "11")
  reload()
  t.equal(t.use("count", { add = 1 }), "12")
end)
t.test("a call of the generation before shares it", function()
  local id = host.use("count", '{"add":1,"wait":5}')
  rig.sleep(1)
  reload()
  t.equal(t.use("count", { add = 1 }), "14")
  t.equal(t.wait(function() return host.state(id) end), "14")
end)
t.test("another version gets a copy; the older calls keep theirs", function()
  local id = host.use("count", '{"wait":5}')
  rig.sleep(1)
  reload(counter "version = 2, init = function(old, v) old.n = old.n * 100 + v; return old end")
  t.equal(t.use "count", "1401")
  t.equal(t.wait(function() return host.state(id) end), "14")
  t.equal(t.control("rollback").error, rig.null)
  t.equal(t.use("count", { add = 1 }), "15")
  t.control "rollback"
  t.equal(t.use "count", "1401")
end)
t.test("a refused generation changes nothing in it", function()
  local base = counter "version = 2"
  reload(base)
  refused(base .. "cache.n = 0 cache.more = { 1 } setmetatable(cache, {}) error 'no'", "no")
  t.equal(t.use "count", "1401")
  refused(base .. "for k in pairs(cache) do cache[k] = nil end rig.check(function() return false end)", "check failed")
  t.equal(t.use "count", "1401")
  refused(counter "version = 3, init = function(old) old.n = 0 error 'cannot migrate' end", "a.lua:2: cannot migrate")
  t.equal(t.use "count", "1401")
  refused(counter "version = 3, init = function() end", "init of \"cache\" returned nothing")
  refused(counter "version = 3, init = function() return 5 end", "returned a number")
  refused(counter "version = 1.5", "whole number")
  refused("rig.state { name = 's' } rig.state { name = 's' }", "declared twice")
  refused("rig.state { nam = 's' }", "unknown option nam .*did you mean name%?")
  reload(base)
  t.equal(t.use "count", "1401")
end)
t.test("a state with loops and 100,000 nested tables is handed over", function()
  local text = [[
local s = rig.state { name = "deep", version = %d, init = function(old)
  if old then return old end
  local first = {}
  local at = first
  for i = 1, 100000 do at.next = { i = i } at = at.next end
  first.last, at.first = at, first
  return first
end }
rig.tool { name = "deep", description = "x", run = function() return { s.last.i, s.last.first == s } end }
]]
  reload(text:format(1))
  t.equal(t.use "deep", "[100000,true]")
  reload(text:format(2))
  t.equal(t.use "deep", "[100000,true]")
  refused(text:format(2) .. "s.last = nil error 'no'", "no")
  t.equal(t.use "deep", "[100000,true]")
  os.remove(dir .. "/a.lua")
  reload()
end)

t.test("checks run last, and can refuse", function()
  t.write(dir .. "/b.lua", "local rig = require 'moonrig'\nORDER = (ORDER or '') .. 'b'\nrig.check(function() assert(ORDER == 'ab', ORDER) end)")
  reload "ORDER = (ORDER or '') .. 'a'\nrig.check(function() assert(ORDER == 'ab', ORDER) return true end)"
  os.remove(dir .. "/b.lua")
  refused("\nrig.check(function() return false, 'rates are stale' end)", "a.lua:3: the check failed: rates are stale")
  refused("rig.check(function() error 'oops' end)", "a.lua:2: the check failed: .*a.lua:2: oops")
  refused("rig.check(function() return nil, rig.error('t', 'm') end)", "the check failed: m")
  refused("rig.check(function() rig.sleep(1) end)", "nothing may wait")
  refused("rig.check(function() while true do end end)", "time budget spent")
  refused("rig.check 'x'", "takes a function")
  t.raises("top%-level", rig.check, function() end)
  script ""
end)

t.test("rig.reload from a task: the caller stays where it is", function()
  t.quiet = nil
  reload [[
rig.tool { name = "again", description = "x", run = function(input, ctx)
  local n, e = rig.reload(input.back and { rollback = true } or nil)
  return { before = ctx.generation, now = rig.generation(), new = n, error = e and e.message }
end }]]
  local now = host.generation()
  local r = rig.json.decode(t.use "again")
  t.equal(r.before, now)
  t.equal(r.now, now)
  t.equal(r.new, now + 1)
  t.equal(host.generation(), now + 1)
  r = rig.json.decode(t.use("again", { back = true }))
  t.equal(r.before, now + 1)
  t.equal(r.new, now)
  t.write(dir .. "/broken.lua", "oops(")
  r = rig.json.decode(t.use "again")
  os.remove(dir .. "/broken.lua")
  t.equal(r.new, nil)
  t.match(r.error, "broken.lua:1:")
  t.equal(host.generation(), now)
  t.raises("unknown option rolback", rig.reload, { rolback = true })
end)
t.test("two tasks ask at once: each gets an answer", function()
  local now = host.generation()
  local both = assert(rig.all { a = function() return rig.reload() end, b = function() return rig.reload() end })
  t.equal(both.a + both.b, now * 2 + 5) -- the last number was now + 1
  local late = rig.spawn(function() return rig.reload() end)
  late:cancel "not needed"
  t.raises("not needed", late.wait, late)
end)

t.test("generations: what runs where, and the last attempts", function()
  reload "rig.tool { name = 'slow', description = 'x', run = function() rig.sleep(50) end }"
  local now = host.generation()
  local id = host.use("slow", "{}")
  rig.sleep(20)
  reload()
  refused("oops(", "a.lua:2")
  local s = rig.generations()
  t.equal(s.generation, now + 1)
  t.equal(s.previous, now)
  t.match(s.error, "a.lua:2")
  t.ok(s.error_at > 1e9 and s.error_at <= rig.now())
  t.equal(#s.history, 8)
  t.match(s.history[1].error, "a.lua:2")
  t.equal(s.history[1].generation, now + 2)
  t.equal(s.history[2].generation, now + 1)
  t.equal(s.history[2].error, nil)
  t.equal(s.history[2].what, "reload")
  t.ok(s.history[2].files >= 2 and s.files == s.history[2].files)
  local by = {}
  for _, g in ipairs(s.live) do by[g.number] = g end
  t.equal(by[now].tasks.tool, 1)
  t.equal(by[now].running, 1)
  t.ok(by[now].oldest_s >= 20 and by[now].oldest_s < 50, "age of the oldest")
  local health = rig.json.decode(host.scripts())
  t.equal(health.generation, now + 1)
  t.match(health.error, "a.lua:2")
  t.match(health.error_at, "^20%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$")
  t.equal(#health.history, 8)
  local answer = t.control "status"
  t.equal(#answer.live, #s.live)
  t.wait(function() return host.state(id) end)
  script ""
  reload()
  t.equal(rig.generations().error, nil)
end)

t.test("rig.defaults gives a model to agents without one", function()
  reload "rig.defaults { model = 'm' } rig.agent { name = 'plain' } rig.agent { name = 'own', model = 'x' }"
  rig.sleep(1)
  local model = {}
  for _, a in ipairs(server.agents) do model[a.name] = a.model end
  t.equal(model.plain, "m")
  t.equal(model.own, "x")
  refused("rig.agent { name = 'a' }", "a.lua:2: agent \"a\": model is missing: give model")
  refused("rig.defaults { model = 'a' } rig.defaults { model = 'b' }", "declared twice")
  refused("rig.defaults { modle = 'a' }", "did you mean model%?")
end)

local function bad_agent(fields, pattern)
  refused("rig.agent { name = 'a', model = 'm', " .. fields .. " }", pattern)
end
t.test("agents' fields are checked before the switch", function()
  bad_agent("sytem = 'x'", "unknown option sytem .*did you mean system%?")
  bad_agent("system = 5", "a.lua:2: agent \"a\": system must be a string, got number")
  bad_agent("metadata = { a = 1 }", "metadata.a must be a string")
  bad_agent("tools = 'x'", "tools must be a list")
  bad_agent("tools = { 'lokup' }", "tools%[1%]: no tool \"lokup\" is declared")
  bad_agent("tools = { rig.toolset { 'bahs' } }", "the toolset has no bahs; did you mean bash%?")
  bad_agent("tools = { { type = 'custom', name = 'x' } }", "description must be a string")
  bad_agent("tools = { { type = 'custom', name = 'x', description = 'y', input_schema = { type = 'object', required = 'a' } } }",
    "tools%[1%] %(x%): input_schema.required must be a list of names")
  bad_agent("tools = { { name = 'x' } }", "tools%[1%].type is missing")
  refused("rig.environment { name = 'e', confg = {} }", "did you mean config%?")
  local tool = "rig.tool { name = 'look', description = 'x', run = print }"
  reload(tool .. " rig.agent { name = 'named', model = 'm', tools = { 'look' } }")
  rig.sleep(1)
  for _, a in ipairs(server.agents) do
    if a.name == "named" then t.equal(a.tools[1].name, "look") end
  end
end)

local function bad_schema(schema, pattern)
  refused(("rig.tool { name = 'x', description = 'x', run = print, input_schema = { type = 'object', %s } }"):format(schema), pattern)
end
t.test("schemas are checked at every depth", function()
  bad_schema("properties = { a = { type = 'strin' } }", "input_schema.properties.a.type: strin is not a JSON type; did you mean string%?")
  bad_schema("properties = { a = { type = { 'string', 'nul' } } }", "type: nul is not")
  bad_schema("properties = { a = { type = {} } }", "type must be a type or a list")
  bad_schema("properties = { a = 'string' }", "input_schema.properties.a: a schema is a table, got string")
  bad_schema("properties = { a = { items = { properties = { b = { minLength = -1 } } } } }", "properties.b.minLength must be a whole number")
  bad_schema("properties = { a = { items = { anyOf = {} } } }", "items.anyOf must be a list of schemas")
  bad_schema("properties = { a = { oneOf = { { type = 'x' } } } }", "oneOf.1.type: x is not")
  bad_schema("properties = { a = { pattern = '[a-z' } }", "has a %[ without %]")
  bad_schema("properties = { a = { pattern = '(a' } }", "has a %( without %)")
  bad_schema("properties = { a = { pattern = 'a)' } }", "was not opened")
  bad_schema("properties = { a = { pattern = '*a' } }", "repeats nothing at 1")
  bad_schema("properties = { a = { pattern = '^%%d+$' } }", "Lua pattern")
  bad_schema("properties = { a = { pattern = 5 } }", "pattern must be a string")
  bad_schema("required = 'a'", "required must be a list of names")
  bad_schema("required = { 'a', 'a' }", "has \"a\" twice")
  bad_schema("required = { 'b' }, properties = { a = {} }, additionalProperties = false", "\"b\" is not among the properties")
  bad_schema("properties = { a = { enum = 'x' } }", "enum must be a list")
  bad_schema("properties = { a = { enum = {} } }", "enum is empty")
  bad_schema("properties = { a = { minimum = 5, maximum = 1 } }", "minimum is above maximum")
  bad_schema("properties = { a = { multipleOf = 0 } }", "multipleOf must be a number above 0")
  bad_schema("properties = { a = { uniqueItems = 1 } }", "uniqueItems must be true or false")
  bad_schema("additionalProperties = 'no'", "additionalProperties: a schema is a table, got string")
  bad_schema("propertes = {}", "input_schema.propertes is not a keyword; did you mean properties%?")
  bad_schema("properties = { a = { descripton = 'x' } }", "did you mean description%?")
  bad_schema("properties = { { type = 'string' } }", "must have names as keys")
  reload [[rig.tool { name = 'fine', description = 'x', run = print, input_schema = { type = 'object',
    properties = { a = { type = { 'string', 'null' }, pattern = '^PO-?[0-9]+(a|b)*[^)]$', default = rig.null, ['x-note'] = 1 },
      b = { type = 'array', items = { ['$ref'] = '#/$defs/d' }, minItems = 1, maxItems = 2 }, c = true },
    ['$defs'] = { d = { const = 1 } }, dependentRequired = { a = { 'b' } } } }]]
  os.remove(dir .. "/a.lua")
  reload()
end)
t.test("the manual's example does what it says", function()
  local f = assert(io.open("lua/README.md", "rb"))
  local text = f:read "*a"
  f:close()
  local code
  for block in text:gmatch "\n```lua\n(.-)\n```" do code = block:find("first_time", 1, true) and block or code end
  reload "rig.state { name = 'seen', init = function() return { 'a', 'b' } end }" -- version 1
  t.write(dir .. "/a.lua", code)
  reload()
  local now = host.generation()
  t.equal(t.use("first_time", { id = "a" }), '"no"')
  t.equal(t.use("first_time", { id = "c" }), '"yes"')
  reload()
  t.equal(t.use("first_time", { id = "c" }), '"no"')
  t.equal(t.use "go_back", ('"now %d, rollback"'):format(now))
  t.write(dir .. "/a.lua", (code:gsub("EUR = 1000", "EUR = 0")))
  local answer, refusal = t.control "reload"
  t.ok(refusal ~= 0)
  t.match(answer.error, "the check failed: no limit for EUR")
  os.remove(dir .. "/a.lua")
  reload()
end)
rig.main(t.run)
