local rig = require "moonrig"
rig.agent { name = "payer", model = "m" }
rig.tool { name = "pay", description = "x", run = function() end,
  agent = "pyer" } --! unknown-agent
