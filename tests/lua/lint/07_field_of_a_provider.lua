local rig = require "moonrig"
rig.provider { name = "p", models = "m",
  model = "m", --! unknown-field
  run = function() return "x" end }
