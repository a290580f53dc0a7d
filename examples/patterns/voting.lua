-- Voting: reviewers with different eyes look at the same text at the same time; one veto, or a majority, decides.
--
--   moonrig run examples/patterns/voting.lua FILE
local rig = require "moonrig"
local ask = require "ask"
local MODEL = "claude-opus-4-7"
require "offline"(MODEL)

local views = { "security", "correctness", "style" }
local veto = { security = true }
local reviewers = {}
for _, view in ipairs(views) do
  reviewers[view] = rig.agent { name = view .. "-reviewer", model = MODEL,
    system = ("Review this file for %s alone. Answer PASS, or FAIL: and the reason in one line."):format(view) }
end

local function vote(view, text)
  local answer, err = ask(reviewers[view], text)
  if not answer then return nil, err end
  return { view = view, pass = answer:match "^%s*PASS" ~= nil, text = answer }
end

rig.main(function(args)
  if not args[1] then return nil, "usage: voting.lua FILE" end
  local text = assert(rig.fs.read(args[1]))
  local votes = assert(rig.map(views, function(view) return vote(view, text) end, { concurrency = #views }))
  local for_it, vetoed = 0, nil
  for _, v in ipairs(votes) do
    print(("%-12s %s"):format(v.view, v.text))
    if v.pass then for_it = for_it + 1 end
    if not v.pass and veto[v.view] then vetoed = v.view end
  end
  local accepted = not vetoed and for_it * 2 > #votes
  print(accepted and "accepted" or "rejected" .. (vetoed and ": " .. vetoed .. " has a veto" or ""))
  return accepted and 0 or 1
end)
