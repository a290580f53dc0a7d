local rig = require "moonrig"
rig.tool { name = "a", description = "x",
  run = function() end,
  timeout = "10", --! wrong-type
}
