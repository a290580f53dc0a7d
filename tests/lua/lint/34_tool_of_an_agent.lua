local rig = require "moonrig"
rig.tool { name = "lookup", description = "x", run = function() end }
rig.agent { name = "a", model = "m", tools = {
  "lookup",
  "lokup", --! unknown-tool
} }
