local rig = require "moonrig"
rig.hook { phase = "permit", run = function(call)
  print(call.name)
  if io.read() == "y" then return "allow" end --! blocking-handler
end }
