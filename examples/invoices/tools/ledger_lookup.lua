-- The ledger stays on this side: the agent asks about one order and sees that order alone. Edit this file
-- while the job runs: with --watch the next call runs the new code.
local rig = require "moonrig"
local csv = require "csv"

local kept = {} -- path -> { mtime, size, orders }

local function orders_of(path)
  local info, err = rig.fs.stat(path)
  if not info then return nil, err end
  local k = kept[path]
  if k and k.mtime == info.mtime and k.size == info.size then return k.orders end
  local text
  text, err = rig.fs.read(path)
  if not text then return nil, err end
  local orders = {}
  for _, row in ipairs(csv.records(text)) do
    local po = (row.po_number or ""):match "^%s*(.-)%s*$"
    orders[po] = orders[po] or rig.array {}
    table.insert(orders[po], { vendor = row.vendor, currency = row.currency, net = row.net, tax = row.tax,
      gross = row.gross, status = row.status })
  end
  kept[path] = { mtime = info.mtime, size = info.size, orders = orders }
  return orders
end

return rig.tool {
  name = "ledger_lookup",
  description = "What the ledger says about a purchase order: its lines, each with vendor, currency, net, tax, gross "
    .. "and status (open or paid).",
  input_schema = { type = "object", required = { "po_number" },
    properties = { po_number = { type = "string", description = "as written on the invoice" } } },
  timeout = 10, concurrency = 4, idempotent = true,
  run = function(input, ctx)
    local session, err = rig.sessions.retrieve(ctx.session.id) -- which ledger: the session says it
    if not session then return nil, err end
    local orders
    orders, err = orders_of(session.metadata.ledger)
    if not orders then return nil, err end
    local lines = orders[input.po_number:match "^%s*(.-)%s*$"]
    return { po_number = input.po_number, found = lines ~= nil, lines = lines or rig.array {} }
  end,
}
