local rig = require "moonrig"
local dates = require "lib.dates" --! missing-module
return rig, dates
