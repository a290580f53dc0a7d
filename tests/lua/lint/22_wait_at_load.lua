local rig = require "moonrig"
local list = rig.agents.list() --! blocking-at-load
rig.tool { name = "a", description = "x", run = function() return list end }
