-- Plays the model for these examples when there is no upstream key: simple rules over what it was given, chosen
-- by the first word of the system prompt. With a key it declares nothing.
local rig = require "moonrig"

local function text_of(content)
  if type(content) == "string" then return content end
  local parts = {}
  for _, b in ipairs(content or {}) do parts[#parts + 1] = b.text end
  return table.concat(parts, "\n")
end

local function sentences(text)
  local list = {}
  for s in text:gmatch "[^.!?\n]+" do
    s = s:match "^%s*(.-)%s*$"
    if s ~= "" then list[#list + 1] = s end
  end
  return list
end

local function has(text, ...)
  for _, word in ipairs { ... } do
    if text:lower():find(word, 1, true) then return word end
  end
end

local rules = {}

function rules.Outline(text)
  local points = {}
  for i, s in ipairs(sentences(text)) do points[i] = "- " .. s end
  return table.concat(points, "\n")
end

function rules.Write(text)
  local list = {}
  for point in text:gmatch "%- ([^\n]+)" do list[#list + 1] = point end
  return ("%d things changed. %s."):format(#list, table.concat(list, ". "))
end

function rules.Classify(text)
  if has(text, "charge", "refund", "invoice", "paid", "price") then return "billing" end
  if has(text, "error", "crash", "log in", "login", "broken", "slow") then return "technical" end
  return "other"
end

function rules.Answer(text, system)
  return ("%s: we will look into this: %s."):format(system:match "for (%a+)" or "support", sentences(text)[1] or "an empty message")
end

function rules.Review(text, system)
  local found
  if system:find "security" then found = has(text, "os.execute", "io.popen", "password", "eval(") end
  if system:find "correctness" then found = has(text, "todo", "fixme") end
  if system:find "style" then
    for line in text:gmatch "[^\n]+" do found = found or (#line > 120 and "a line of " .. #line .. " characters") end
  end
  return found and "FAIL: " .. found or "PASS"
end

function rules.Split(text)
  local parts = {}
  for part in text:gsub("^%a+ ", ""):gsub(" and ", ","):gmatch "[^,]+" do parts[#parts + 1] = part:match "^%s*(.-)%s*$" end
  return rig.json.encode(parts)
end

function rules.Work(text)
  return ("%s: %d letters"):format(text, #text:gsub("%A", ""))
end

function rules.Merge(text)
  return "In short: " .. text:gsub("\n", "; ") .. "."
end

function rules.Slogan(text)
  local limit, draft = text:match "at most (%d+)", text:match "Draft: ([^\n]+)" or text:match "[^\n]+"
  while limit and #draft > tonumber(limit) do draft = draft:match "^(.*)%s%S+$" or draft:sub(1, limit) end
  return draft
end

function rules.Criticise(text)
  if #text > 40 then return ("REVISE: it has %d characters, at most 40 are wanted."):format(#text) end
  return "GOOD"
end

function rules.Count(text)
  return ("%d words, %d sentences"):format(select(2, text:gsub("%S+", "")), #sentences(text))
end

function rules.Check(text)
  local before
  for word in text:lower():gmatch "%a+" do
    if word == before then return ('"%s" is doubled'):format(word) end
    before = word
  end
  return "nothing is doubled"
end

---Gives the text to both agents, waits for their reports, and repeats them.
function rules.Coordinate(text, _, messages)
  local found, from = {}, nil
  for _, m in ipairs(messages) do
    for _, b in ipairs(type(m.content) == "table" and m.content or {}) do
      if from then found[#found + 1], from = from .. ": " .. b.text, nil end
      from = b.type == "text" and b.text:match "^Message from agent ([%w_-]+)" or nil
    end
  end
  if #messages > 1 and #found < 2 then return "I wait." end
  table.sort(found)
  if #found > 0 then return table.concat(found, "; ") end
  local calls = {}
  for i, name in ipairs { "counter", "checker" } do
    calls[i] = { type = "tool_use", name = "create_agent", input = { agent = name, prompt = text } }
  end
  return calls
end

---@param models string what rig.provider takes
return function(models)
  if rig.env.MOONRIG_ANTHROPIC_API_KEY or rig.env.ANTHROPIC_API_KEY then return end
  rig.provider { name = "offline-rules", models = models, run = function(request)
    local system = text_of(request.system)
    local rule = rules[system:match "^%a+" or ""]
    if not rule then return nil, "offline.lua has no rule for this agent" end
    return (rule(text_of(request.messages[#request.messages].content), system, request.messages))
  end }
end
