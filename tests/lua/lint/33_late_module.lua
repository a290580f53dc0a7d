local rig = require "moonrig"
rig.tool { name = "a", description = "x", run = function()
  return require("lib.late").answer --! missing-module
end }
