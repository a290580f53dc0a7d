-- A coordinator: one agent gives work to others in threads of its own session, and goes on when they report. Which of
-- them, and with what task, is the model's decision; a budget bounds it.
--
--   moonrig run examples/patterns/coordinator.lua "TEXT"
local rig = require "moonrig"
local MODEL = "claude-opus-4-7"
require "offline"(MODEL)

local counter = rig.agent { name = "counter", model = MODEL,
  system = "Count the words and the sentences of the text you are given. Answer in one line." }
local checker = rig.agent { name = "checker", model = MODEL,
  system = "Check the text you are given for doubled words. Answer in one line." }
local editor = rig.agent { name = "editor", model = MODEL, agents = { counter, checker },
  system = "Coordinate the work on the text you are given: pass it to counter and to checker, wait for both, then repeat "
    .. "what each of them found in one line." }

rig.main(function(args)
  if not args[1] then return nil, "usage: coordinator.lua \"TEXT\"" end
  local s = assert(rig.session { agent = editor, budget = { steps = 20, repeats = 3 } })
  local turn = assert(s:ask(args[1])) -- ends when none of the threads works any more
  for _, thread in ipairs(assert(s:threads())) do
    print(("- %s: %s"):format(thread.agent.name, thread.status))
  end
  if turn.stop_reason ~= "end_turn" then return nil, "stopped: " .. turn.stop_reason end
  print(turn.text)
end)
