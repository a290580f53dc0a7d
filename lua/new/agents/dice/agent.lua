local rig = require "moonrig"
local roll = require "agents.dice.tools.roll"

return rig.agent {
  name = "dice",
  model = "claude-opus-4-7",
  system = rig.file "instructions.md",
  tools = { roll },
}
