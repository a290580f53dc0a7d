local rig = require "moonrig"

return rig.tool { --! missing-field
  name = "a",
  run = function() end,
}
