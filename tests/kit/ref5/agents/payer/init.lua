local rig = require "moonrig"
local pay = rig.tool {
  name = "pay", description = "Pays an amount",
  input_schema = { type = "object", required = { "amount" }, properties = { amount = { type = "number" } } },
  run = function(input) return "paid " .. input.amount end,
}
rig.hook { phase = "permit", agent = "payer", tool = "pay", fail = "closed",
  run = function(call, ctx)
    if call.input.amount <= 100 then return "allow" end
    return "ask", "above 100"
  end }
return rig.agent { name = "payer", model = "claude-opus-4-7", system = "You pay.", tools = { pay } }
