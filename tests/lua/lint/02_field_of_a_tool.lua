local rig = require "moonrig"
rig.tool {
  name = "a", description = "x",
  timout = 5, --! unknown-field
  run = function() end,
}
