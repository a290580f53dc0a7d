-- A hook has a say before a tool runs: "allow", "ask", "deny" or "rewrite".
local rig = require "moonrig"

rig.hook {
  phase = "permit", agent = "dice", tool = "roll",
  fail = "closed", -- should this function break: refuse
  run = function(call)
    if call.input.count > 10 then return "ask", "that is a lot of dice" end
    return "allow"
  end,
}
