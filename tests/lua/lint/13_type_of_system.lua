local rig = require "moonrig"
rig.agent { name = "a", model = "m",
  system = { "be brief" }, --! wrong-type
}
