-- The ledger stays on this side: the agent asks about one order and sees that order alone. Edit this file
-- while the job runs: with --watch the next call runs the new code.
local rig = require "moonrig"
local csv = require "csv"

local columns = { "po_number", "vendor", "currency", "gross", "status" }
local kept = {} -- path -> { mtime, size, orders }

local function trim(s) return s:match "^%s*(.-)%s*$" end

---An order number as people mix it up: po 10-005 for PO10005.
local function loose(po) return (po:lower():gsub("[%s/._-]", "")) end

---The ledger's lines by order number; nil, err. Read again when the file has changed.
local function orders_of(path)
  local info, err = rig.fs.stat(path)
  if not info then return nil, err end
  local k = kept[path]
  if k and k.mtime == info.mtime and k.size == info.size then return k.orders end
  local text
  text, err = rig.fs.read(path)
  if not text then return nil, err end
  local records, head = csv.records(text)
  local has, orders = {}, {}
  for _, name in ipairs(head) do has[name] = true end
  for _, name in ipairs(columns) do
    if not has[name] then return nil, ("the ledger has no column %s"):format(name) end
  end
  for _, row in ipairs(records) do
    local po = trim(row.po_number)
    orders[po] = orders[po] or rig.array {}
    table.insert(orders[po], { vendor = trim(row.vendor), currency = trim(row.currency), net = row.net, tax = row.tax,
      gross = trim(row.gross), status = trim(row.status):lower() })
  end
  kept[path] = { mtime = info.mtime, size = info.size, orders = orders }
  return orders
end

return rig.tool {
  name = "ledger_lookup",
  description = "What the ledger says about a purchase order: its lines, each with vendor, currency, net, tax, gross "
    .. "and status (open or paid). found is false when the ledger has no such order; similar then lists orders whose "
    .. "number differs only in case, spaces and dashes.",
  input_schema = { type = "object", required = { "po_number" },
    properties = { po_number = { type = "string", description = "as written on the invoice" } } },
  timeout = 10, concurrency = 4, idempotent = true,
  run = function(input, ctx)
    local session, err = rig.sessions.retrieve(ctx.session.id) -- which ledger: its session says it
    if not session then return nil, err end
    local orders
    orders, err = orders_of(session.metadata.ledger)
    if not orders then return nil, err end
    local po = trim(input.po_number)
    if orders[po] then return { po_number = po, found = true, lines = orders[po] } end
    local similar = rig.array {}
    for other in pairs(orders) do
      if loose(other) == loose(po) then table.insert(similar, other) end
    end
    table.sort(similar)
    return { po_number = po, found = false, lines = rig.array {}, similar = similar }
  end,
}
