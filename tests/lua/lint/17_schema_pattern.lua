local rig = require "moonrig"
rig.tool { name = "a", description = "x", run = function() end, input_schema = { type = "object", properties = {
  id = { type = "string",
    pattern = "^[A-Z" }, --! bad-schema
} } }
