local rig = require "moonrig"
rig.agent {
  name = "a",
  model = "m",
  sytem = "be brief", --! unknown-field
}
