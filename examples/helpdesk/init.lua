-- Run first, before the agents of agents/: what all of them share.
local rig = require "moonrig"
rig.defaults { model = "claude-opus-4-7" }
