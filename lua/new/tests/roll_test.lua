-- moonrig test
local t = require "moonrig.test"
t.load "agents/dice"

t.test("the tool shows as many dice as were asked for", function()
  local out = t.call("roll", { count = 3 })
  t.match(out, "^%S+ %S+ %S+  %(sum %d+%)$")
end)

t.test("a few dice are rolled at once", function()
  local s = t.session { agent = "dice", model = { t.use("roll", { count = 2 }), t.say "there" } }
  t.equal(s:ask("roll two").stop_reason, "end_turn")
  t.events(s, { "user.message", { type = "agent.tool_use", name = "roll" }, "agent.tool_result", "agent.message",
    "session.status_idle" })
end)

t.test("many dice need a yes", function()
  local s = t.session { agent = "dice", model = { t.use("roll", { count = 12 }), t.say "fine" } }
  local turn = s:ask "roll a dozen"
  t.equal(turn.stop_reason, "requires_action")
  turn.pending[1]:deny "too many"
  t.equal(turn:wait().text, "fine")
end)

t.test("the offline model reads what the tool said", function()
  local s = t.session { agent = "dice", model = require "offline_model" }
  t.match(s:ask("roll 4").text, "^You rolled: %S+ %S+ %S+ %S+  %(sum %d+%)$")
end)
