local rig = require "moonrig"
rig.agent { name = "a", model = "m" }
rig.agent { name = "a", model = "m" } --! duplicate
