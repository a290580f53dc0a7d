-- An approval bot: the agent may pay small amounts by itself; larger ones wait until a person has said yes, here in the
-- terminal, or through any client of the API.
-- Who may pay what is decided here, in plain code, whatever the model was talked into.
--
--   moonrig run examples/approval/payments.lua "Pay invoice 12, 80 euros, and invoice 13, 900 euros"
local rig = require "moonrig"
local MODEL, LIMIT = "claude-opus-4-7", 100

local pay = rig.tool {
  name = "pay", description = "Pays an invoice",
  input_schema = { type = "object", required = { "invoice", "amount" },
    properties = { invoice = { type = "string" }, amount = { type = "number", minimum = 0 } } },
  run = function(input, ctx)
    -- A real one would pay here, with ctx.tool_use_id as the bank's idempotency key.
    return ("paid %.2f for invoice %s"):format(input.amount, input.invoice)
  end,
}

-- "closed": when this function fails, nothing is paid.
rig.hook { phase = "permit", agent = "payer", tool = "pay", fail = "closed",
  run = function(call)
    local amount = call.input.amount
    if type(amount) ~= "number" or amount <= 0 then return "deny", "the amount is not a positive number" end
    if amount <= LIMIT then return "allow" end
    return "ask", "above " .. LIMIT
  end }

local payer = rig.agent { name = "payer", model = MODEL, tools = { pay },
  system = "Pay the invoices that the user names, one call each. Report what was paid and what was refused, and why." }

if not (rig.env.MOONRIG_ANTHROPIC_API_KEY or rig.env.ANTHROPIC_API_KEY) then
  rig.provider { name = "offline-rules", models = MODEL, run = function(request)
    local last, said, calls = request.messages[#request.messages], {}, {}
    for _, b in ipairs(type(last.content) == "table" and last.content or { { type = "text", text = last.content } }) do
      if b.type == "tool_result" then said[#said + 1] = type(b.content) == "string" and b.content or b.content[1].text end
      for invoice, amount in (b.type == "text" and b.text or ""):gmatch "invoice (%d+), (%d+)" do
        calls[#calls + 1] = { type = "tool_use", name = "pay", input = { invoice = invoice, amount = tonumber(amount) } }
      end
    end
    if #calls > 0 then return calls end
    return #said > 0 and table.concat(said, "; ") or "Which invoices?"
  end }
end

rig.main(function(args)
  if not args[1] then return nil, 'usage: payments.lua "Pay invoice 12, 80 euros"' end
  local session = assert(rig.session { agent = payer })
  local turn = assert(session:ask(args[1]))
  while turn.stop_reason == "requires_action" do -- the turn waits, also over a restart, until each is answered
    for _, call in ipairs(turn.pending) do
      io.write(("%s %s ? [y/n] "):format(call.name, rig.json.encode(call.input)))
      if io.read() == "y" then call:allow() else call:deny "the treasurer said no" end
    end
    turn = assert(turn:wait())
  end
  print(turn.text)
  session:archive()
end)
