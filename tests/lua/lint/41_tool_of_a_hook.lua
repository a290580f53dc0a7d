local rig = require "moonrig"
rig.agent { name = "payer", model = "m" }
rig.tool { name = "pay", description = "x", run = function() end }
rig.hook { phase = "permit", tool = "pya", run = function() return "deny", "no" end } --! unknown-tool
rig.hook { phase = "permit",
  agent = "payerr", --! unknown-agent
  run = function() return "deny", "no" end }
rig.hook { phase = "permit", agent = "payer", tool = "pay", run = function() return "deny", "no" end }
rig.hook { phase = "permit", tool = "bash", run = function() return "deny", "no" end }
rig.hook { phase = "permit", tool = "of_a_client", run = function() return "deny", "no" end }
rig.on { name = "w", event = "session.error", agent = "paye", run = function() end } --! unknown-agent
