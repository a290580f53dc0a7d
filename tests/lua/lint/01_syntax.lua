local rig = require "moonrig"
local t = { 1, 2
rig.tool(t) --! syntax
