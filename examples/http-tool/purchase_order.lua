-- A tool over an HTTP API: the agent looks purchase orders up in an ERP system.
--
--   export ERP=http://erp.example:8080 ERP_TOKEN=...
--   moonrig run examples/http-tool/purchase_order.lua "What did we order with PO-7017?"
--   moonrig serve examples/http-tool            # or: for the agents of a server
--
-- What goes wrong on the way is an answer too: the model reads it, and can try something else.
local rig = require "moonrig"
local MODEL = "claude-opus-4-7"

local purchase_order = rig.tool {
  name = "purchase_order", description = "Looks up a purchase order by its number, e.g. PO-7017",
  input_schema = { type = "object", required = { "id" },
    properties = { id = { type = "string", pattern = "^PO-?[0-9]+$" } } },
  timeout = 20,      -- seconds in all: the model reads an error after that
  concurrency = 4,   -- the ERP system takes no more at the same time
  idempotent = true, -- only reads: may run again after a crash
  run = function(input, ctx)
    local base = rig.env.ERP
    if not base then return nil, "the environment variable ERP is not set" end
    local res, err = rig.http.get(base .. "/po/" .. rig.url.escape(input.id), {
      headers = { authorization = "Bearer " .. (rig.env.ERP_TOKEN or "") }, -- stays here: the model never sees it
      timeout = 5, retry = 2, expect = { 200, 404 }, max_body = 1e6,
    })
    if not res then return nil, err end
    if res.status == 404 then return nil, "there is no order " .. input.id end
    local order, why = res:json()
    if not order then return nil, "the ERP system answered with something else than JSON: " .. why.message end
    return { id = order.id, vendor = order.vendor, lines = order.lines } -- only what the model needs
  end,
}

local buyer = rig.agent { name = "buyer", model = MODEL, tools = { purchase_order },
  system = "Answer questions about purchase orders. Look each one up; never guess." }

if not (rig.env.MOONRIG_ANTHROPIC_API_KEY or rig.env.ANTHROPIC_API_KEY) then
  rig.provider { name = "offline-rules", models = MODEL, run = function(request)
    local content = request.messages[#request.messages].content
    local first = type(content) == "table" and content[1] or { text = content }
    if first.type == "tool_result" then
      return "The ERP system says: " .. (type(first.content) == "string" and first.content or first.content[1].text)
    end
    local id = first.text:match "PO%-?%d+"
    return id and { { type = "tool_use", name = "purchase_order", input = { id = id } } } or "Which order?"
  end }
end

rig.main(function(args)
  if not args[1] then return nil, 'usage: purchase_order.lua "QUESTION"' end
  local session = assert(rig.session { agent = buyer })
  print(assert(session:ask(args[1])).text)
  session:archive()
end)
