local rig = require "moonrig"
rig.tool { name = "a", description = "x", run = function() end, input_schema = { type = "object",
  propertes = { id = {} } } } --! bad-schema
