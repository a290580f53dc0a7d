local rig = require "moonrig"
rig.tool { name = "other", description = "Another", run = function() return "other" end }
