local rig = require "moonrig"
local popen = io.popen
local function git(args)
  return popen("git " .. args):read "*a" --! blocking-handler
end
local function head() return git "rev-parse HEAD" end
rig.on { name = "w", event = "session.error", run = function() head() end }
