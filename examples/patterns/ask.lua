-- One question to an agent, in a session of its own that is archived after the answer.
local rig = require "moonrig"

---@param agent moonrig.Agent
---@param text string
---@return string? answer
---@return any? err
return function(agent, text)
  local session = assert(rig.session { agent = agent })
  local turn, err = session:ask(text)
  session:archive()
  if not turn then return nil, err end
  if turn.stop_reason ~= "end_turn" then return nil, agent.name .. " stopped: " .. turn.stop_reason end
  return turn.text
end
