-- Evaluator and optimizer: a writer and a critic take turns until the critic is content, or it has been enough. The
-- writer's session goes on, so it knows its earlier drafts; each judgement is a session of its own and knows only the text.
--
--   moonrig run examples/patterns/evaluator.lua "WHAT IT IS ABOUT"
local rig = require "moonrig"
local ask = require "ask"
local MODEL, ROUNDS = "claude-opus-4-7", 4
require "offline"(MODEL)

local writer = rig.agent { name = "slogan-writer", model = MODEL,
  system = "Slogan writer: answer with one slogan, no quotes. Follow every remark of the critic." }
local critic = rig.agent { name = "slogan-critic", model = MODEL,
  system = "Criticise this slogan. Good ones have at most 40 characters and say what the thing does. "
    .. "Answer GOOD, or REVISE: and one remark." }

local function judge(text)
  local answer = assert(ask(critic, text))
  return answer:match "^%s*GOOD" ~= nil, answer
end

rig.main(function(args)
  if not args[1] then return nil, "usage: evaluator.lua \"WHAT IT IS ABOUT\"" end
  local session = assert(rig.session { agent = writer })
  local draft = assert(session:ask(args[1])).text
  for round = 1, ROUNDS do
    local good, remark = judge(draft)
    print(("%d. %s\n   %s"):format(round, draft, remark))
    if good then
      session:archive()
      return 0
    end
    draft = assert(session:ask(("%s\nDraft: %s"):format(remark, draft))).text
  end
  return nil, "the critic was never content; the last draft: " .. draft
end)
