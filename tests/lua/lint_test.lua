-- moonrig lint: each file of tests/lua/lint has its mistakes marked with "--! rule" on their lines; all are found, at
-- these lines, and nothing else; nothing in what people copy from: examples/, lua/README.md.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local dir = os.getenv "SCRIPTS"

local function lint(path, stored)
  return assert(rig.json.decode(host.lint(path, stored and rig.json.encode(stored))))
end
local function read(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read "*a"
  f:close()
  return text
end
local function put(files)
  os.execute("rm -rf '" .. dir .. "'/*")
  for path, text in pairs(files) do
    os.execute(("mkdir -p '%s/%s'"):format(dir, path:match "^(.*)/" or "."))
    t.write(dir .. "/" .. path, text)
  end
end

---"line rule" of each problem, in order.
local function found(report)
  local list = {}
  for i, p in ipairs(report.problems) do list[i] = p.line .. " " .. p.rule end
  return table.concat(list, ", ")
end

local seeds = {}
for path in io.popen "ls tests/lua/lint/*.lua":lines() do seeds[#seeds + 1] = path end
t.test("there are at least thirty seeded mistakes", function() t.ok(#seeds >= 30) end)
for _, path in ipairs(seeds) do
  t.test("lint finds " .. path:match "([^/]+)%.lua$", function()
    local expected, n = {}, 0
    for line in (read(path) .. "\n"):gmatch "(.-)\n" do
      n = n + 1
      local rule = line:match "%-%-! (%S+)$"
      if rule then expected[#expected + 1] = n .. " " .. rule end
    end
    local report = lint(path)
    t.equal(found(report), table.concat(expected, ", "), rig.json.encode(report.problems))
    for _, p in ipairs(report.problems) do
      t.equal(p.file, path)
      t.ok(#p.message > 5 and #p.fix > 5, "a message and a fix")
    end
  end)
end

-- All examples: each directory as it is served, each script beside it, each agent alone.
local examples = {}
for path in io.popen "ls -d examples/*/ examples/*/*.lua examples/*/agents/*/":lines() do
  examples[#examples + 1] = path:match "^(.-)/?$"
end
t.test("the examples are found", function() t.ok(#examples >= 20) end)
for _, path in ipairs(examples) do
  t.test("nothing in " .. path, function()
    local report = lint(path)
    -- The agent alone has no init.lua that names its model.
    local known = path:find "agents" and "3 missing-field" or ""
    t.equal(found(report), known, rig.json.encode(report.problems))
    t.ok(report.files >= 1)
  end)
end
t.test("nothing in the manual's scripts", function()
  local n, at = 0, 1
  local text = read "lua/README.md"
  while true do
    local _, from = text:find("\n```lua[^\n]*\n", at)
    if not from then break end
    local to = text:find("\n```", from, true)
    local kind = text:sub(1, from):match "```lua ?([^\n]*)\n$"
    local task = kind ~= "" and kind ~= "test"
    local code = text:sub(from + 1, to)
    at = to + 4
    n = n + 1
    put { ["reader.md"] = "x", ["block.lua"] = task and 'local rig = require "moonrig"\nrig.main(function() ' .. code .. "\nend)" or code }
    local report = lint(dir .. "/block.lua")
    t.equal(found(report), "", ("block %d: %s"):format(n, rig.json.encode(report.problems)))
  end
  t.ok(n > 10, n .. " blocks")
  put {}
end)

t.test("a directory: mistakes do not hide one another, files of one agent neither", function()
  put {
    ["agents/a/agent.lua"] = "return {\n  model = 'm',\n  sytem = 'x',\n}",
    ["agents/a/tools/t.lua"] = "local rig = require 'moonrig'\nreturn rig.tool {\n  name = 't', description = 'x',\n  timeout = 'x',\n  run = function() end }",
    ["agents/a/tools/u.lua"] = "oops(",
    ["agents/a/hooks.lua"] = "local rig = require 'moonrig'\nrig.on { name = 'w', event = 'nothing', run = function() end }",
    ["agents/b/instructions.md"] = "x",
    ["agents/b/skills/s/SKILL.md"] = "---\nname: s\nwhat is this\n---\n",
    ["z.lua"] = "x = 1",
  }
  local report = lint(dir)
  local list = {}
  for i, p in ipairs(report.problems) do
    list[i] = ("%s:%d %s"):format(p.file:sub(#dir + 2), p.line, p.rule)
  end
  t.equal(table.concat(list, "\n"), table.concat({
    "agents/a/agent.lua:3 unknown-field",
    "agents/a/hooks.lua:2 unknown-event",
    "agents/a/tools/t.lua:4 wrong-type",
    "agents/a/tools/u.lua:1 syntax",
    "agents/b/instructions.md:1 missing-field",
    "agents/b/skills/s/SKILL.md:3 load",
    "z.lua:1 global-write",
  }, "\n"), rig.json.encode(report.problems))
  t.match(report.problems[1].fix, "write system")
  put {}
end)
t.test("an agent whose agent.lua does not load lacks nothing besides", function()
  put {
    ["agents/a/agent.lua"] = "local rig = require 'moonrig'\nlocal t = require 'agents.a.tools.t'\nreturn { model = 'm', tools = { t } }",
    ["agents/a/tools/t.lua"] = "local rig = = 1",
  }
  local report = lint(dir)
  t.equal(found(report), "1 syntax", rig.json.encode(report.problems))
  t.equal(report.files, 2)
  put { ["x.lua"] = "return {" }
  t.equal(lint(dir).files, 1)
  put {}
end)
t.test("a file beside agent.lua that declares and is not run", function()
  put {
    ["a/agent.lua"] = "local m = require 'used'\nreturn { model = 'm' }",
    ["a/used.lua"] = "local rig = require 'moonrig'\nrig.tool { name = 't', description = 'x', run = function() end }",
    ["a/policy.lua"] = "local rig = require 'moonrig'\n\nrig.hook { phase = 'permit', run = function() return 'deny', 'no' end }",
    ["a/model.lua"] = "return function() return 'rig.hook {' end",
    ["a/a_test.lua"] = "local rig = require 'moonrig'\nrig.tool { name = 'u', description = 'x', run = function() end }",
  }
  local report = lint(dir .. "/a")
  t.equal(found(report), "3 not-run", rig.json.encode(report.problems))
  t.match(report.problems[1].file, "a/policy.lua$")
  put {}
end)
t.test("globals that a script may use", function()
  put { ["x.lua"] = [=====[
local M, up, goto_ = {}, 1, 2
function M.f(a, ...)
  local _ENV = { b = 1 }
  b = a
  return b, ...
end
local function fact(n) return n <= 1 and 1 or n * fact(n - 1) end
for i = 1, 2 do local i <const> = i M[i] = i end
for k, v in pairs { up, goto_ } do M[k] = v end
repeat local done = true until done
local s = "a\z
   b" .. [==[ x = 1 ]] ]==] -- y = 2
--[[ z = 3
]]
M.bits = (5 // 2) ~ ~3 << 1
goto out
do M.x = s end
::out::
return M, fact, (table.unpack or unpack), jit, self and nil
]=====] }
  if t.jit then
    put { ["x.lua"] = "local M = {}\nlocal x = 10LL + 0xFFULL\nreturn M, x, unpack, utf8, self and nil" }
  end
  t.equal(found(lint(dir .. "/x.lua")), (t.jit and 3 or 19) .. " global-read")
  put {}
end)
t.test("top-level code cannot reach outside while it is looked at", function()
  for _, code in ipairs { "os.remove(F)", "os.rename(F, F .. '2')", "io.open(F, 'w')", "io.open(F, 'a+')", "os.execute('rm ' .. F)",
    "require('moonrig').fs.remove(F)", "require('moonrig').http.get 'http://x'" } do
    put { ["kept.txt"] = "kept", ["x.lua"] = ("local F = %q\nlocal x = %s\nreturn x"):format(dir .. "/kept.txt", code) }
    t.equal(found(lint(dir .. "/x.lua")), "2 blocking-at-load", code)
    t.equal(read(dir .. "/kept.txt"), "kept")
  end
  put {}
end)
t.test("several programs in a directory are looked at one by one", function()
  local function program(extra)
    return "local rig = require 'moonrig'\nrequire('shared')()\nrig.main(function() return 0 end)\n" .. extra
  end
  put {
    ["shared.lua"] = "local rig = require 'moonrig'\nreturn function() rig.tool { name = 'one', description = 'x', run = function() end } end",
    ["a.lua"] = program "", ["b.lua"] = program "x = 1",
  }
  local report = lint(dir)
  t.equal(found(report), "4 global-write")
  t.equal(report.problems[1].file, dir .. "/b.lua")
  t.equal(report.files, 3)
  put {}
end)
t.test("a module that returns its declaration is where the mistake is", function()
  put { ["init.lua"] = "local rig = require 'moonrig'\nlocal t = require 'tool'\nlocal h = require 'hook'\nreturn t, h, rig",
    ["tool.lua"] = "local rig = require 'moonrig'\n\nreturn rig.tool {\n  name = 't', description = 'x',\n  timout = 5,\n  run = function() end }",
    ["hook.lua"] = "local rig = require 'moonrig'\n\n\nreturn rig.hook { phase = 'premit', run = function() end }" }
  local report = lint(dir)
  t.equal(found(report), "4 unknown-phase, 5 unknown-field", rig.json.encode(report.problems))
  t.equal(report.problems[1].file, dir .. "/hook.lua")
  t.equal(report.problems[2].file, dir .. "/tool.lua")
  put {}
end)
t.test("a declaration without its name does not hide others", function()
  put { ["x.lua"] = "local rig = require 'moonrig'\nrig.on { event = 'session.error', run = function() end }\nrig.provider { models = 'm', run = function() end }\n"
    .. "rig.tool { description = 'x', run = function() end }\nrig.hook { phase = 'permit' }\nrig.agent { model = 'm' }\nrig.state { version = 1 }\n"
    .. "rig.on { name = 'a', event = 'session.err', run = function() end }" }
  t.equal(found(lint(dir .. "/x.lua")), "2 missing-field, 3 missing-field, 4 missing-field, 5 missing-field, 6 missing-field, 7 missing-field, 8 unknown-event")
  put {}
end)
t.test("drift: what a start would change", function()
  put { ["x.lua"] = [[
local rig = require "moonrig"
local look = rig.tool {
  name = "look", description = "Looks",
  input_schema = { type = "object",
    properties = { id = { type = "string" }, deep = { type = "boolean" } } },
  run = function() end,
}
rig.agent { name = "a", model = "m", system = "new", tools = { rig.toolset { "read" }, look } }
rig.agent { name = "fresh", model = "m" }
rig.agent { name = "same", model = "m", tools = {} }
rig.environment { name = "e", config = { type = "cloud" } }
rig.tool { name = "elsewhere", description = "x", agent = "stored", run = function() end }
rig.agent { name = "lead", model = "m", agents = { "a", "self", "agent_3" }, advisor = "big" }
rig.agent { name = "chief", model = "m", agents = { "same", "fresh" } }
]] }
  local stored = { agents = {
    { id = "agent_1", name = "a", version = 3, model = { id = "m" }, system = "old", description = rig.null, metadata = {}, tools = rig.array {
      { type = "agent_toolset_20260401", configs = { { name = "read", enabled = true, permission_policy = { type = "always_allow" } } },
        default_config = { enabled = false } },
      { type = "custom", name = "look", description = "Looks", input_schema = { type = "object", properties = { id = { type = "string" } } } } } },
    { id = "agent_2", name = "same", version = 1, model = { id = "m" }, tools = rig.array {}, mcp_servers = rig.array {} },
    { id = "agent_3", name = "stored", version = 1 },
    { id = "agent_4", name = "lead", version = 1, model = { id = "m" }, multiagent = { type = "coordinator", agents = {
      { type = "agent", id = "agent_1", version = 3 }, { type = "agent", id = "agent_4", version = 1 },
      { type = "agent", id = "agent_3", version = 1 }, { type = "advisor", model = "big" } } } },
    { id = "agent_5", name = "chief", version = 1, model = { id = "m" }, multiagent = { type = "coordinator", agents = {
      { type = "agent", id = "agent_2", version = 1 } } } },
  }, environments = { { id = "env_1", name = "e", config = { type = "cloud", networking = { type = "unrestricted" } } } } }
  local report = lint(dir .. "/x.lua", stored)
  t.equal(found(report), "4 drift", rig.json.encode(report.problems))
  t.match(report.problems[1].message, 'tool "look" differs from version 3 of agent "a": input_schema.properties.deep is new')
  t.equal(rig.json.encode(report.changes), rig.json.encode {
    { kind = "agent", name = "a", change = "update", fields = { 'system would be "new", it is "old"',
      'tools[2].input_schema.properties.deep is new: {"type":"boolean"}' } },
    { kind = "agent", name = "chief", change = "update", fields = { 'multiagent.agents[2] is new: "fresh"' } },
    { kind = "agent", name = "fresh", change = "create" } })
  t.equal(found(lint(dir .. "/x.lua")), "12 unknown-agent")
  put {}
end)
t.test("a path that is not there", function()
  t.raises("cannot read", host.lint, dir .. "/nowhere.lua")
end)
rig.main(t.run)
