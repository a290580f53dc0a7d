local rig = require "moonrig"
local total = 0
rig.tool { name = "a", description = "x", run = function(input)
  return totl + input.n --! global-read
end }
return total
