-- Hooks of this agent. What the model was told is advice; this is the rule.
local rig = require "moonrig"

rig.hook { phase = "permit", tool = "refund", fail = "closed",
  run = function(call)
    if call.input.amount <= 50 then return "allow" end
    return "deny", "refunds above 50 are paid by a person"
  end }
