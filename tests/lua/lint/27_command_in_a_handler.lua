local rig = require "moonrig"
rig.tool { name = "a", description = "x", run = function(input)
  os.execute("convert " .. input.file) --! blocking-handler
end }
