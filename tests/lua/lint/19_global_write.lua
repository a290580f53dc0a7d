local rig = require "moonrig"
rig.tool { name = "a", description = "x", run = function(input)
  count = (input.n or 0) + 1 --! global-write
  return count
end }
