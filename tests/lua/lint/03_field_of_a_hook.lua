local rig = require "moonrig"
rig.hook { phase = "permit",
  agnt = "payer", --! unknown-field
  run = function() end }
