-- Plays the model by rules, so that this runs without a key: it looks at the system prompt, at what the customer
-- wrote and at what the tools answered, and at nothing else.
local function text_of(content)
  if type(content) == "string" then return content end
  local parts = {}
  for _, b in ipairs(content) do
    if b.type == "text" then parts[#parts + 1] = b.text end
    if b.type == "tool_result" then parts[#parts + 1] = text_of(b.content or "") end
  end
  return table.concat(parts, "\n")
end

-- What was asked, and the result of each tool that was used since.
local function read(messages)
  local question, results, names = "", {}, {}
  for _, m in ipairs(messages) do
    for _, b in ipairs(type(m.content) == "table" and m.content or {}) do
      if b.type == "tool_use" then names[b.id] = b.name end
      if b.type == "tool_result" then results[names[b.tool_use_id]] = { text = text_of { b }, failed = b.is_error } end
    end
    if m.role == "user" and (type(m.content) == "string" or m.content[1].type == "text") then
      question, results = text_of(m.content), {}
    end
  end
  return question, results
end

local function use(name, input) return { { type = "tool_use", name = name, input = input } } end

return function(request)
  local system = text_of(request.system or "")
  local question, results = read(request.messages)
  local order = question:match "B%-%d+"
  local sign = system:match 'Sign with "([^"]+)"'
  local function say(text) return sign and text .. " " .. sign or text end
  if not order then return say "Which order is it about?" end
  if not results.order_status then return use("order_status", { order = order }) end
  if results.order_status.failed then return say(results.order_status.text) end
  local status, price = results.order_status.text:match '"status":"([^"]*)"', results.order_status.text:match '"price":([%d.]+)'
  if not question:lower():find "refund" then return say(("Your order %s is %s."):format(order, status)) end
  local skill = system:match "\n%- (refunds):"
  if skill and not results.read_skill then return use("read_skill", { name = skill }) end
  local whole = results.read_skill and results.read_skill.text:find "damaged is refunded whole"
  if not (whole and status:find "damaged") and not question:find "insist" then return say "I cannot refund that." end
  if not results.refund then return use("refund", { order = order, amount = tonumber(price) }) end
  return say(results.refund.text .. ".")
end
