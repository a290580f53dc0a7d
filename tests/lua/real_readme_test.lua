-- The manual's "```lua task real" blocks, on the real runtime.
local rig = require "moonrig"
local t = require "kit"

local printed
local env = setmetatable({ rig = rig, print = function(...)
  local parts = {}
  for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
  printed[#printed + 1] = table.concat(parts, " ")
end }, { __index = _G })

rig.provider { name = "reader", models = "reader-*", run = function(request)
  local last = request.messages[#request.messages].content
  if request.tools and request.tools[1] and request.tools[1].name == "submit_verdict" then
    return { { type = "tool_use", name = "submit_verdict", input = { result = "satisfied", explanation = "It is Latin." } } }
  end
  return "read: " .. (type(last) == "string" and last or last[#last].text)
end }
rig.agent { name = "reader", model = "reader-1" }

local expected = {
  ["Copies of sessions"] = "read: Good evening. true\na talk read: Go on. 18",
  ["Digests, secrets, base64"] = "true\nba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad "
    .. "a9993e364706816aba3e25717850c26c9cd0d89d 900150983cd24fb0d6963f7d28e17f72 128\ntrue hi\naGk/Pg== aGk_Pg\nhi?>\n"
    .. "16 36\nnot base64: it breaks at byte 2",
  ["At the terminal"] = "idle has not begun: waits for a first message since N s\nmessage nil nil TIME\nmoonrig attach ID",
  ["What holds the commands"] = "none this runtime has no sandbox: tools that run in one are not available",
  ["Budgets and outcomes"] = "budget_reached\nread: Good evening.\nsatisfied It is Latin. end_turn",
  ["Several agents"] = "I am told: they see at night.\ndesk idle N\nfinder idle N",
  ["SQLite files"] = "1 1\ntea 450 2\ntea\n1\nnil too expensive 1",
}

rig.provider { name = "manual", models = "claude-*", run = function(request)
  local last = request.messages[#request.messages].content
  local block = type(last) == "table" and last[#last] or { text = last }
  if block.type == "tool_result" then return "I wait." end
  if block.text:find "^What is known" then
    return { { type = "tool_use", name = "create_agent", input = { agent = "finder", prompt = "Owls?" } } }
  end
  if block.text == "Owls?" then return "They see at night." end
  if block.text:find "They see at night" then return "I am told: they see at night." end
  return "hello"
end }
rig.agent { name = "desk", model = "claude-opus-4-7", agents = { "finder", "self" } }
rig.agent { name = "finder", model = "claude-haiku-4-5" } -- declared after the one that names it

local title, lines
for line in io.lines "lua/README.md" do
  title = not lines and line:match "^## (.*)$" or title
  if lines and line == "```" then
    local text, name = table.concat(lines, "\n"), title
    lines = nil
    t.test("README: " .. name, function()
      printed = {}
      assert(load(text, "=README " .. name, "t", env))()
      local out = table.concat(printed, "\n"):gsub("20%d%d%-[%d:.T-]+Z", "TIME"):gsub("sesn_%w+", "ID"):gsub("since %d+ s", "since N s"):gsub("idle %d+", "idle N")
      t.equal(out, t.ok(expected[name], "what it prints"))
      expected[name] = nil
      os.remove "orders.db"
      os.remove "talk.jsonl"
    end)
  elseif lines then
    lines[#lines + 1] = line
  elseif line == "```lua task real" then
    lines = {}
  end
end
t.test("all were there", function() t.equal(next(expected), nil) end)
rig.main(t.run)
