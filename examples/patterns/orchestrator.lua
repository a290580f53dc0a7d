-- Orchestrator and workers: one agent splits the task, workers do the parts in parallel, and what they found is put
-- together by the first again. How many parts there are is the model's decision; plain code bounds it.
--
--   moonrig run examples/patterns/orchestrator.lua "TASK"
local rig = require "moonrig"
local ask = require "ask"
local MODEL, PARTS_MAX = "claude-opus-4-7", 8
require "offline"(MODEL)

local planner = rig.agent { name = "planner", model = MODEL,
  system = "Split the task into independent parts. Answer with a JSON list of strings and nothing else." }
local worker = rig.agent { name = "worker", model = MODEL,
  system = "Work on this part of a larger task. Answer with your finding in one line." }
local merger = rig.agent { name = "merger", model = MODEL,
  system = "Merge these findings into one answer. Contradictions are to be named." }

---A list of strings, or nil and what is wrong with it.
local function plan(text)
  local parts, err = rig.json.decode(text:match "%b[]" or text)
  if type(parts) ~= "table" then return nil, err or "the plan is not a list" end
  for i, part in ipairs(parts) do
    if type(part) ~= "string" then return nil, "part " .. i .. " of the plan is not text" end
  end
  if #parts == 0 or #parts > PARTS_MAX then return nil, #parts .. " parts; from 1 to " .. PARTS_MAX .. " are done" end
  return parts
end

rig.main(function(args)
  if not args[1] then return nil, "usage: orchestrator.lua \"TASK\"" end
  local parts, why = plan(assert(ask(planner, args[1])))
  if not parts then return nil, why end
  -- A part that fails does not end the others: its error is a finding too.
  local found, errors = rig.map(parts, function(part) return ask(worker, part) end, { concurrency = 4, on_error = "collect" })
  local lines = {}
  for i, part in ipairs(parts) do
    lines[i] = found[i] or ("%s: failed, %s"):format(part, errors[i].message or errors[i])
    print("- " .. lines[i])
  end
  print((assert(ask(merger, table.concat(lines, "\n")))))
end)
