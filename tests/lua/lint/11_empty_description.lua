local rig = require "moonrig"
rig.tool { name = "a",
  description = " ", --! no-description
  run = function() end }
