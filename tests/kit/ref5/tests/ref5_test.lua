local t = require "moonrig.test"
t.load "tools/purchase_order.lua"
t.test("an unknown order is an error the model can read", function()
  t.env { ERP = "http://erp.test" }
  t.http { method = "GET", url = "http://erp.test/po/PO-9", reply = { status = 404, body = "no such order" } }
  local out, err = t.call("purchase_order", { id = "PO-9" })
  t.is_nil(out); t.equal(err.status, 404)
end)
t.test("large payments ask", function()
  t.load "agents/payer"
  local s = t.session { agent = "payer", model = { t.use("pay", { amount = 900 }), t.say "done" } }
  local turn = s:ask "pay it"
  t.equal(turn.stop_reason, "requires_action"); turn.pending[1]:deny "no"; turn = turn:wait()
  t.events(s, { "user.message", "agent.tool_use", "session.status_idle", "..." })
end)
