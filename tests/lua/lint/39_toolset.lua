local rig = require "moonrig"
rig.agent { name = "a", model = "m", tools = {
  rig.toolset { "read", "bahs" } } } --! unknown-tool
