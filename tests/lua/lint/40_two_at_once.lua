local rig = require "moonrig"
rig.tool { name = "a", description = "x", timeot = 5, --! unknown-field
  run = function()
    n = 1 --! global-write
  end }
rig.agent { name = "b" } --! missing-field
