local rig = require "moonrig"
rig.agent { name = "a", model = "m",
  tools = { rig.tool "lookup" } } --! unknown-tool
