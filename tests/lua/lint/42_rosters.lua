local rig = require "moonrig"
local one = rig.agent { name = "one", model = "m" }
local lead = rig.agent { name = "lead", model = "m", agents = { one, "self" }, advisor = "big" }
rig.agent { name = "a", model = "m", agents = { "nobody" } } --! unknown-agent
rig.agent { name = "b", model = "m", agents = { lead } } --! bad-roster
rig.agent { name = "c", model = "m", agents = "one" } --! wrong-type
rig.agent { name = "d", model = "m", agents = {} } --! bad-roster
rig.agent { name = "e", model = "m", agents = { one }, multiagent = { type = "coordinator", agents = { one } } } --! bad-roster
rig.agent { name = "f", model = "m", advisor = { id = "big" } } --! wrong-type
rig.agent { name = "g", model = "m", agnets = { one } } --! unknown-field
