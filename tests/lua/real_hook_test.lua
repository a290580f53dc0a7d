-- Hooks at every phase on the real runtime: what they change, that the log stays what it was, and failures.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"

local act = {} -- by phase: what its hook does now
for _, phase in ipairs { "accept", "context", "model", "permit", "tools", "settle", "idle" } do
  rig.hook { phase = phase, agent = "watched", fail = "closed", run = function(call, ctx)
    if act[phase] then return act[phase](call, ctx) end
  end }
end

local look = rig.tool { name = "look", description = "Looks", run = function() return "key sk-123 lies here" end }
local agent = rig.agent { name = "watched", model = "test-1", system = "Test.", tools = { look } }

-- The model says how many messages it was given, its system text, its name, and the last text.
rig.provider { name = "test", models = "test-*", run = function(request)
  local last = request.messages[#request.messages].content[1]
  if last.text == "use" then return { { type = "tool_use", name = "look", input = {} } } end
  local system = {}
  for _, b in ipairs(request.system or {}) do system[#system + 1] = b.text end
  return ("%s: %d messages, %s, %s"):format(request.model, #request.messages, table.concat(system, "+"),
    last.text or last.content[1].text)
end }

local function session() return assert(rig.session { agent = agent }) end
local function failure(s) -- the text of its session.error
  return assert(rig.sessions.events.list(s, { types = { "session.error" } })).data[1].error.message
end

t.test("without an opinion everything is as ever", function()
  t.equal(assert(session():ask "hi").text, "test-1: 1 messages, Test., hi")
  t.equal(assert(session():ask "use").text, "test-1: 3 messages, Test., key sk-123 lies here")
  t.quiet = nil -- connections to the store are open now
end)
t.test("accept changes and refuses", function()
  act = { accept = function(call)
    if call.events[1].content[1].text == "no" then return false, "not here" end
    call.events[1].content[1].text = "please " .. call.events[1].content[1].text
    return call.events
  end }
  local s = session()
  t.equal(assert(s:ask "hi").text, "test-1: 1 messages, Test., please hi")
  local r, e = s:ask "no"
  t.equal(r, nil)
  t.equal(e.type .. " " .. e.status .. " " .. e.message, "permission_error 403 not here")
  act = {}
  t.equal(assert(s:ask "hi").text, "test-1: 3 messages, Test., hi")
end)
t.test("context trims and adds, for one request", function()
  local s = session()
  for _ = 1, 3 do assert(s:ask "hi") end
  act = { context = function(call)
    call.system[#call.system + 1] = { type = "text", text = "Brief." }
    return { messages = { call.messages[#call.messages] }, system = call.system }
  end }
  t.equal(assert(s:ask "hi").text, "test-1: 1 messages, Test.+Brief., hi")
  act = {}
  t.equal(assert(s:ask "hi").text, "test-1: 9 messages, Test., hi")
end)
t.test("model chooses, or answers", function()
  act = { model = function(call)
    if call.message.content[1].text == "ping" then return { reply = "pong" } end
    return call.model == "test-1" and call.bytes > 0 and "test-2" or nil
  end }
  local s = session()
  t.equal(assert(s:ask "ping").text, "pong")
  t.equal(assert(s:ask "hi").text, "test-2: 3 messages, Test., hi")
  act.model = function() return "nobodys-model" end
  assert(s:ask "hi")
  t.match(failure(s), "the model hook chose nobodys%-model: ")
end)
t.test("tools redacts, withholds, fails", function()
  local s = session()
  act = { tools = function(call) return (call.text:gsub("sk%-%d+", "[key]")) end }
  t.match(assert(s:ask "use").text, "key %[key%] lies here$")
  act = { tools = function() return nil, "gone" end }
  t.match(assert(s:ask "use").text, "gone$")
  act = { tools = function() error "hook broke" end }
  t.match(assert(s:ask "use").text, "the result was withheld: the tools hook failed$")
  t.match(host.logs(), "real_hook_test.lua:%d+: hook broke")
end)
t.test("settle goes on until it is enough; idle hears", function()
  local heard = {}
  act = {
    settle = function(call) if not call.text:find "5 messages" then return "more" end end,
    idle = function(call, ctx) heard[#heard + 1] = ctx.session.id .. " " .. call.stop_reason.type end,
  }
  local s = session()
  t.equal(assert(s:ask "hi").text, "test-1: 5 messages, Test., more")
  t.wait(function() return heard[1] end)
  t.equal(heard[1], s.id .. " end_turn")
end)
t.test("an interrupt does not wait for a hook", function()
  local asked, let
  act = { context = function()
    asked = true
    t.wait(function() return let end)
  end }
  local s = session()
  local task = rig.spawn(function() return s:ask "hi" end)
  t.wait(function() return asked end)
  act = {}
  assert(s:interrupt())
  t.equal(assert(task:wait()).stop_reason, "end_turn")
  let = true
  rig.sleep(0.2)
end)
t.test("an error in a hook that is closed fails the request", function()
  act = { context = function() error "context broke" end }
  local s = session()
  assert(s:ask "hi")
  t.equal(failure(s), "the context hook failed")
  t.match(host.logs(), "context broke.*stack traceback")
  act = {}
end)
rig.main(t.run)
