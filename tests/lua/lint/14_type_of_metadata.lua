local rig = require "moonrig"
rig.agent { name = "a", model = "m", metadata = {
  team = "x",
  cost = 5, --! wrong-type
} }
