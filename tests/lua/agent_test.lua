-- rig.agent, rig.environment: declared ones are made or brought up to date when their scripts become current.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local server = require "server"
local dir = os.getenv "SCRIPTS"

local tool = rig.tool { name = "look", description = "Looks", run = print }
local mine = rig.agent { name = "mine", model = "m", system = "be brief", tools = { rig.toolset(), tool } }
local room = rig.environment { name = "room", config = { type = "cloud" } }
local lead = rig.agent { name = "lead", model = "m", multiagent = { type = "coordinator", agents = { mine } } }

local desk = rig.agent { name = "desk", model = "m", agents = { "late", mine, "self", "agent_z" }, advisor = "big" }
rig.agent { name = "late", model = "m" }

local function by_name(list, name)
  for _, o in ipairs(list) do
    if o.name == name then return o end
  end
end
local function script(text)
  t.write(dir .. "/a.lua", "local rig = require 'moonrig'\n" .. text)
  local before = host.generation()
  t.control "reload"
  t.ok(host.generation() == before + 1, "generation")
  rig.sleep(0.1)
end

t.test("what is declared exists before rig.main runs", function()
  local a = by_name(server.agents, "mine")
  t.equal(a.system, "be brief")
  t.equal(a.tools[1].type, "agent_toolset_20260401")
  t.equal(a.tools[2].name, "look")
  t.equal(a.tools[2].type, "custom")
  t.equal(mine.id, a.id)
  t.equal(by_name(server.environments, "room").config.type, "cloud")
  t.equal(room.id, by_name(server.environments, "room").id)
  t.equal(by_name(server.agents, "lead").multiagent.agents[1], a.id)
  t.equal(lead.id, by_name(server.agents, "lead").id)
  t.equal(desk.id, by_name(server.agents, "desk").id)
  t.equal(rig.json.encode(by_name(server.agents, "desk").multiagent), ('{"agents":["%s","%s",{"type":"self"},"agent_z",'
    .. '{"model":"big","type":"advisor"}],"type":"coordinator"}'):format(by_name(server.agents, "late").id, a.id))
  t.equal(by_name(server.agents, "desk").agents, nil)
end)
t.test("looking up: a handle, a name, an id", function()
  t.equal(rig.agent "mine", mine)
  server.agents[#server.agents + 1] = { id = "agent_x", name = "other", type = "agent" }
  t.equal(rig.agent("other").id, "agent_x")
  host.op("agents.retrieve", function(p) return { id = p.agent_id, name = "other" } end)
  t.equal(rig.agent("agent_x").name, "other")
  local none, e = rig.agent "nobody"
  t.equal(none, nil)
  t.equal(e.type, "not_found_error")
  t.raises("table or a name", rig.agent, 5)
  t.raises("top%-level", rig.agent, { name = "late" })
  t.equal(rig.environment "room", room)
end)
t.test("a handle goes where an id goes", function()
  server.environments[#server.environments + 1] = { id = "env_default", name = "default" }
  local s = assert(rig.session { agent = mine })
  t.equal(server.sessions[s.id].params.agent, mine.id)
  local got
  host.op("agents.archive", function(p) got = p.agent_id return {} end)
  assert(rig.agents.archive(mine))
  t.equal(got, mine.id)
end)
t.test("a reload changes what changed, and nothing else", function()
  script [[
    rig.agent { name = "one", model = "m", system = "s", description = "d", metadata = { a = "1", b = "2" } }
    rig.agent { name = "two", model = "m" }]]
  t.quiet = nil
  local one, two = by_name(server.agents, "one"), by_name(server.agents, "two")
  t.equal(one.version, 1)
  script [[
    rig.agent { name = "one", model = "m", system = "s", description = "d", metadata = { a = "1", b = "2" } }
    rig.agent { name = "two", model = "m" }]]
  t.equal(one.version, 1)
  script [[
    rig.agent { name = "one", model = "m2", metadata = { a = "1" } }
    rig.agent { name = "two", model = "m" }]]
  t.equal(one.version, 2)
  t.equal(one.model, "m2")
  t.equal(one.system, nil)
  t.equal(one.description, nil)
  t.equal(one.metadata.b, rig.null)
  t.equal(two.version, 1)
end)
t.test("the list is read once for all", function()
  server.calls = {}
  local text = {}
  for i = 1, 30 do text[i] = ("rig.agent { name = 'many%d', model = 'm' }"):format(i) end
  script(table.concat(text, "\n"))
  t.equal(server.calls["agents.create"], 30)
  t.equal(server.calls["agents.list"], 1)
end)
t.test("what the server refuses is logged, shown, and does not stop the rest", function()
  host.op("agents.create", function(p)
    if p.name == "bad" then
      return nil, { status = 400, type = "invalid_request_error", message = "model: unknown" }
    end
    server.agents[#server.agents + 1] = { id = "agent_good", name = p.name }
    return server.agents[#server.agents]
  end)
  host.logs()
  script [[
    local bad = rig.agent { name = "bad", model = "?" }
    rig.agent { name = "good", model = "m" }
    rig.tool { name = "use_bad", description = "x", run = function() return nil, select(2, rig.session { agent = bad }) end }]]
  local _, shown = host.generation()
  t.match(shown, 'a.lua:2: agent "bad": model: unknown')
  t.match(host.logs(), 'agent "bad": model: unknown')
  t.ok(by_name(server.agents, "good"))
  local _, e = t.use "use_bad"
  t.equal(e, "model: unknown")
end)
t.test("two of one name are not guessed", function()
  server.agents[#server.agents + 1] = { id = "agent_t1", name = "twin" }
  server.agents[#server.agents + 1] = { id = "agent_t2", name = "twin" }
  script "rig.agent { name = 'twin', model = 'm' }"
  local _, shown = host.generation()
  t.match(shown, "agent_t1, agent_t2")
end)
t.test("scripts that are replaced while they start stop starting", function()
  local waiting
  host.op("agents.list", function(_, id)
    waiting = id
    return host.LATER
  end)
  t.write(dir .. "/a.lua", "require('moonrig').agent { name = 'slow', model = 'm' }")
  t.control "reload"
  t.wait(function() return waiting end)
  os.remove(dir .. "/a.lua")
  local first = waiting
  t.control "reload"
  t.wait(function() return waiting ~= first or nil end)
  host.reply(waiting, '{"data":[],"next_page":null}')
  rig.sleep(0.1)
end)
t.test("the toolset", function()
  local function encode(o) return rig.json.encode(rig.toolset(o)) end
  t.equal(encode(), '{"type":"agent_toolset_20260401"}')
  t.equal(encode { "read", ask = { "bash" } }, '{"configs":[{"enabled":true,"name":"read"},{"enabled":true,"name":"bash",'
    .. '"permission_policy":{"type":"always_ask"}}],"default_config":{"enabled":false},"type":"agent_toolset_20260401"}')
  t.equal(encode { off = { "web_search" } },
    '{"configs":[{"enabled":false,"name":"web_search"}],"type":"agent_toolset_20260401"}')
  t.raises("unknown option of", rig.toolset, { of = {} })
  t.raises("strings", rig.toolset, { 5 })
end)
rig.main(t.run)
