local rig = require "moonrig"
rig.on { name = "w", run = function() end,
  event = { "session.error",
    "session.idle" } } --! unknown-event
