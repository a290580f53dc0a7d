local rig = require "moonrig"
local version = io.popen("git describe"):read "*a" --! blocking-at-load
return version
