-- What rig.session and the methods of a session are given, as the API has it: content, files, events, budgets, outcomes.
local native = require "moonrig.native"
local answer = require "moonrig.answer"
local declare = require "moonrig.declare"
local err = require "moonrig.err"

local M = {}

---A file (as rig.files.upload gave it) goes where a resource goes.
function M.resources(list)
  local out = {}
  for i, r in ipairs(list) do
    if type(r) == "string" then r = { type = "file", file_id = r } end
    if type(r) == "table" and r.type == "file" and r.id and not r.file_id then r = { type = "file", file_id = r.id } end
    out[i] = r
  end
  return out
end

---Texts are messages.
function M.events(list)
  local out = {}
  for i, ev in ipairs(list or {}) do
    out[i] = type(ev) == "string" and { type = "user.message", content = answer.content_of(ev) } or ev
  end
  return out
end

local caps = { tokens = "max_tokens", seconds = "max_seconds", steps = "max_steps", repeats = "max_repeats" }

---{ usd = 5, steps = 50 } as the API writes it: money in whole cents as a string. A wire form stays as it is; false is
---none.
function M.budget(b)
  if b == false then return native.null end
  if type(b) ~= "table" or b.type ~= nil or b == native.null then return b end
  declare.keys("budget", b, "usd tokens seconds steps repeats")
  local wire = { type = "limit" }
  if b.usd ~= nil then
    local cents = type(b.usd) == "number" and math.floor(b.usd * 100 + 0.5) or 0
    if cents < 1 then err.misuse("budget: usd is an amount of dollars, at least 0.01") end
    wire.max_list_cost = { amount = ("%d"):format(cents), currency = "USD" }
  end
  for k, key in pairs(caps) do
    local n = b[k]
    if n ~= nil and not (type(n) == "number" and n >= 1 and n <= 1e15 and n == math.floor(n)) then
      err.misuse("budget: %s is a whole number, at least 1", k)
    end
    wire[key] = n and math.floor(n) -- an integer, where numbers have two kinds
  end
  if next(b) == nil then err.misuse "budget: it has no cap: usd, tokens, seconds, steps or repeats" end
  return wire
end

---The event that defines an outcome.
function M.outcome(what, o)
  declare.keys(what, o, "description rubric max_iterations")
  declare.check(what, o, "description", "string", true)
  declare.check(what, o, "max_iterations", "number")
  local rubric = o.rubric
  if type(rubric) == "string" then
    rubric = { type = "text", content = rubric }
  elseif type(rubric) == "table" and rubric.type == "file" and rubric.id and not rubric.file_id then
    rubric = { type = "file", file_id = rubric.id }
  end
  if type(rubric) ~= "table" then err.misuse("%s: rubric is a text, a file as uploaded, or a wire form", what) end
  return { type = "user.define_outcome", description = o.description, rubric = rubric, max_iterations = o.max_iterations }
end

return M
