-- A model without a network: it plays the host by rules, from nothing but the request.
local function last_of(messages)
  local content = messages[#messages].content
  if type(content) == "string" then return content end
  local result, text
  for _, b in ipairs(content) do
    if b.type == "tool_result" then result = b elseif b.type == "text" then text = b.text end
  end
  return text, result
end

local function text_of(result)
  if type(result.content) == "string" then return result.content end
  return result.content and result.content[1] and result.content[1].text or ""
end

return function(request)
  local text, result = last_of(request.messages)
  if result then
    local said = text_of(result)
    local people, time = said:match '"people":(%d+)', said:match '"time":"(%d%d:%d%d)"'
    if result.is_error or not people then return "That did not work: " .. said .. " What else would suit you?" end
    return ("Your table for %s at %s is booked. We look forward to seeing you!"):format(people, time)
  end
  local people, time = text:match "(%d+) people" or text:match "for (%d+)", text:match "%d%d:%d%d"
  if people and time then
    return { { type = "text", text = ("A table for %s at %s: please confirm."):format(people, time) },
      { type = "tool_use", name = "book_table", input = { people = tonumber(people), time = time } } }
  end
  if people or time or text:lower():find "table" then
    return "With pleasure! " .. (people and "At what time" or "For how many people") .. " shall it be?" ..
      (not people and not time and " And at what time, such as 19:30?" or "")
  end
  return ("You wrote: %s. I can book a table for you, for example for 4 people at 19:30."):format(text)
end
