local rig = require "moonrig"
rig.tool { name = "a", description = "x", run = function(input)
  return rig.htpp.get(input.url) --! unknown-name
end }
