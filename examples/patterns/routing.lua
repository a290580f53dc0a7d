-- Routing: a small agent decides who answers; each specialist has instructions, and perhaps a model and tools, of its own.
--
--   moonrig run examples/patterns/routing.lua "QUESTION"
local rig = require "moonrig"
local ask = require "ask"
local MODEL = "claude-opus-4-7"
require "offline"(MODEL)

local classifier = rig.agent { name = "classifier", model = MODEL,
  system = "Classify the customer's message. Answer with one word: billing, technical or other." }

local function specialist(topic, knows)
  return rig.agent { name = topic .. "-specialist", model = MODEL,
    system = ("Answer as the specialist for %s. %s Two sentences at most."):format(topic, knows) }
end
local specialists = {
  billing = specialist("billing", "Refunds take five days. Never promise an amount."),
  technical = specialist("technical", "Ask for the version and for the text of the error."),
  other = specialist("other", "Say whom to write to: hello@example.com."),
}

rig.main(function(args)
  if not args[1] then return nil, "usage: routing.lua \"QUESTION\"" end
  local word = assert(ask(classifier, args[1])):lower():match "%a+"
  local topic = specialists[word] and word or "other" -- whatever it says, somebody answers
  print("-> " .. topic)
  print((assert(ask(specialists[topic], args[1]))))
end)
