local rig = require "moonrig"
return rig.tool { name = "a", description = "x",
  input_schema = { type = "object", properties = {
    id = { type = "string" },
    list = { type = "array", items = {
      type = "text" } }, --! bad-schema
  } },
  run = function() end }
