local rig = require "moonrig"
local spec = { name = "a" }
rig.agent(spec) --! missing-field
