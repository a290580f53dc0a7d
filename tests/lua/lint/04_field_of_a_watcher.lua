local rig = require "moonrig"
rig.on { name = "w", event = "session.error",
  durble = true, --! unknown-field
  run = function() end }
