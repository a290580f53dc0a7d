-- Chaining: one step's text is the next one's input. In between plain code checks it, so that a bad outline is not
-- written out at length.
--
--   moonrig run examples/patterns/chaining.lua "NOTES"
local rig = require "moonrig"
local ask = require "ask"
local MODEL = "claude-opus-4-7"
require "offline"(MODEL)

local outliner = rig.agent { name = "outliner", model = MODEL,
  system = "Outline the notes: one point a line, each beginning with '- '. Answer with the outline only." }
local writer = rig.agent { name = "release-writer", model = MODEL,
  system = "Write one paragraph for customers from this outline. Leave no point out." }

---The gate: what may go on to the next step.
local function points(outline)
  local list = {}
  for line in outline:gmatch "[^\n]+" do
    local point = line:match "^%- (.+)$"
    if not point then return nil, "not an outline: " .. line end
    list[#list + 1] = point
  end
  if #list == 0 or #list > 10 then return nil, #list .. " points; from 1 to 10 make a paragraph" end
  return list
end

rig.main(function(args)
  if not args[1] then return nil, "usage: chaining.lua \"NOTES\"" end
  local outline = assert(ask(outliner, args[1]))
  print(outline)
  local list, why = points(outline)
  if not list then return nil, why end
  print()
  print((assert(ask(writer, outline))))
end)
