local rig = require "moonrig"
rig.tool { name = "a", description = "x" } --! missing-field
