-- A tool: the model sees name, description and input_schema; run answers its calls. Edit it while the server runs.
local rig = require "moonrig"

local faces = { "⚀", "⚁", "⚂", "⚃", "⚄", "⚅" }

return rig.tool {
  name = "roll",
  description = "Rolls dice and shows them",
  input_schema = {
    type = "object", required = { "count" },
    properties = { count = { type = "integer", minimum = 1, maximum = 100, description = "how many dice" } },
  },
  run = function(input)
    local shown, sum = {}, 0
    for i = 1, input.count do
      local n = math.random(#faces)
      shown[i], sum = faces[n], sum + n
    end
    return ("%s  (sum %d)"):format(table.concat(shown, " "), sum)
  end,
}
