-- Plays the language model, so that everything here runs without a key. It gets what a model gets (messages, tools)
-- and returns what a model returns: text, or the use of a tool.
local help = "I roll dice. Say \"roll 3\", or \"roll 12\" to be asked first."

local function text_of(content)
  if type(content) == "string" then return content end
  local parts = {}
  for _, block in ipairs(content or {}) do parts[#parts + 1] = block.text end
  return table.concat(parts, "\n")
end

return function(request)
  local last = request.messages[#request.messages]
  if type(last.content) == "table" then
    for _, block in ipairs(last.content) do
      if block.type == "tool_result" then -- what the tool said, or that somebody said no
        return (block.is_error and "It did not work: " or "You rolled: ") .. text_of(block.content)
      end
    end
  end
  local said = text_of(last.content):lower()
  if not said:find "roll" then return help end
  local count = tonumber(said:match "%d+") or 2
  return { { type = "text", text = "Let me roll." }, { type = "tool_use", name = "roll", input = { count = count } } }
end
