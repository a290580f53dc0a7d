local rig = require "moonrig"
rig.hook {
  phase = "premit", --! unknown-phase
  run = function() end }
