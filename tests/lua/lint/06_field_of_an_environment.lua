local rig = require "moonrig"
rig.environment { name = "e",
  networking = {} } --! unknown-field
