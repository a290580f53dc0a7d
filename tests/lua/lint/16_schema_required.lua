local rig = require "moonrig"
rig.tool { name = "a", description = "x", run = function() end,
  input_schema = { type = "object",
    required = "id", --! bad-schema
    properties = { id = {} } } }
