local rig = require "moonrig"
rig.tool { name = "a", description = "x", run = function() end }

rig.tool { name = "a", description = "y", run = function() end } --! duplicate
