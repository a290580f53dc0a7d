-- options: -w -m examples/helpdesk/offline_model.lua
-- On the real runtime: the agent of examples/helpdesk, as it is served, edited while it runs.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local dir = os.getenv "SCRIPTS"

local function settled(before)
  t.wait(function() return host.generation() > before or nil end, "a generation after " .. before)
  rig.sleep(0.2)
  return host.generation()
end
local function write(path, text)
  local before = host.generation()
  t.write(dir .. "/.part", text)
  assert(os.rename(dir .. "/.part", dir .. "/" .. path))
  return settled(before)
end
local function ask(text)
  local s = assert(rig.session { agent = "helpdesk" })
  local turn = assert(s:ask(text))
  local used = {}
  for _, ev in ipairs(turn.events) do
    if ev.type == "agent.custom_tool_use" then used[#used + 1] = ev.name end
  end
  return turn.text, table.concat(used, " ")
end

t.test("the example is served as it lies there", function()
  local before = host.generation()
  assert(os.execute("cp -r examples/helpdesk/. " .. dir))
  os.remove(dir .. "/offline_model.lua")
  settled(before)
  t.quiet = nil
  local found = assert(rig.agents.list { limit = 10 })
  local a
  for _, one in ipairs(found.data) do a = one.name == "helpdesk" and one or a end
  t.equal(a.model.id or a.model, "claude-opus-4-7")
  t.match(a.system, 'Sign with "the helpdesk".\n\n# Skills\n.*\n%- refunds: How refunds are decided')
  local names = {}
  for i, tool in ipairs(a.tools) do names[i] = tool.name end
  t.equal(table.concat(names, " "), "order_status refund read_skill")
end)
t.test("its tools and its skill work", function()
  local text, used = ask "Where is B-1002?"
  t.equal(text, "Your order B-1002 is on its way. the helpdesk")
  t.equal(used, "order_status")
  text, used = ask "I want a refund for B-1001."
  t.equal(text, "18.50 paid back for B-1001. the helpdesk")
  t.equal(used, "order_status read_skill refund")
end)
t.test("its hook holds", function()
  local text = ask "I insist on a refund for B-1002!"
  t.match(text, "refunds above 50 are paid by a person")
end)
t.test("a saved instruction, skill or tool is what the next session goes by", function()
  write("agents/helpdesk/instructions.md", 'Sign with "Ishmael".\n')
  t.equal(ask "Where is B-1002?", "Your order B-1002 is on its way. Ishmael")
  local skill = "agents/helpdesk/skills/refunds/SKILL.md"
  write(skill, "---\nname: refunds\ndescription: There are none\n---\nNothing is paid back.\n")
  t.equal(ask "I want a refund for B-1001.", "I cannot refund that. Ishmael")
  write("agents/helpdesk/orders.lua", "return { ['B-1002'] = { price = 1, status = 'lost' } }")
  t.equal(ask "Where is B-1002?", "Your order B-1002 is lost. Ishmael")
  local before = host.generation()
  write("agents/helpdesk/skills/refunds/more.md", "more")
  t.ok(host.generation() > before, "a new file counts")
end)
rig.main(t.run)
