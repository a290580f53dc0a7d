-- Invoices out of the text of a file: UBL 2.1 XML, CSV, plain text. Each function returns a list of
-- { id, vendor, po, currency, gross (cents) }, or nil and a reason.
local csv = require "csv"
local decimal = require "decimal"

local M = {}

local function clean(s) return (s or ""):gsub("%s+", " "):match "^%s*(.-)%s*$" end

local function invoice(id, vendor, po, currency, gross, credit)
  if id == "" then return nil, "no invoice number" end
  if not gross then return nil, "no amount that can be read" end
  if credit and not gross.neg then gross = decimal.negate(gross) end
  local cents = decimal.cents(gross)
  if not cents then return nil, "the amount is too large" end
  return { id = id, vendor = vendor, po = po, currency = currency:upper(), gross = cents }
end

-- ---------------------------------------------------------------------------------------------------- XML

local entities = { lt = "<", gt = ">", amp = "&", quot = '"', apos = "'" }

local function utf8_char(n)
  if n < 0x80 then return string.char(n) end
  if n < 0x800 then return string.char(0xC0 + math.floor(n / 64), 0x80 + n % 64) end
  if n < 0x10000 then
    return string.char(0xE0 + math.floor(n / 4096), 0x80 + math.floor(n / 64) % 64, 0x80 + n % 64)
  end
  return string.char(0xF0 + math.floor(n / 262144) % 8, 0x80 + math.floor(n / 4096) % 64,
    0x80 + math.floor(n / 64) % 64, 0x80 + n % 64)
end

local function unescape(s)
  return (s:gsub("&(#?)(x?)([%w]+);", function(number, hex, name)
    if number == "" then return entities[hex .. name] end
    local n = tonumber(name, hex == "x" and 16 or 10)
    return n and n < 0x110000 and utf8_char(n) or ""
  end))
end

---A tree of { name (without prefix), text, children }; nil, reason when it is not well-formed.
local function tree(text)
  local root, stack, at = nil, {}, 1
  local function put(s)
    local top = stack[#stack]
    if top then top.text = top.text .. s end
  end
  while at <= #text do
    local open = text:find("<", at, true)
    if not open then break end
    put(unescape(text:sub(at, open - 1)))
    if text:sub(open, open + 3) == "<!--" then
      local _, stop = text:find("-->", open + 4, true)
      if not stop then return nil, "a comment does not end" end
      at = stop + 1
    elseif text:sub(open, open + 8) == "<![CDATA[" then
      local from, stop = text:find("]]>", open + 9, true)
      if not stop then return nil, "a CDATA section does not end" end
      put(text:sub(open + 9, from - 1))
      at = stop + 1
    elseif text:sub(open + 1, open + 1):match "[?!]" then
      local stop = text:find(">", open, true)
      if not stop then return nil, "a declaration does not end" end
      at = stop + 1
    else
      local stop = open
      repeat -- attribute values may hold ">"
        stop = text:find(">", stop + 1, true)
        if not stop then return nil, "a tag does not end" end
        local body = text:sub(open + 1, stop - 1)
        local _, double = body:gsub('"', "")
        local single = double == 0 and select(2, body:gsub("'", "")) or 0
      until double % 2 == 0 and single % 2 == 0
      local body = text:sub(open + 1, stop - 1)
      local name = body:match "^/?([^%s/>]+)"
      if not name then return nil, "a tag has no name" end
      name = name:match "([^:]+)$"
      if body:sub(1, 1) == "/" then
        local top = table.remove(stack)
        if not top or top.name ~= name then return nil, ("</%s> closes nothing"):format(name) end
      else
        local node = { name = name, text = "", children = {} }
        if stack[#stack] then
          table.insert(stack[#stack].children, node)
        elseif root then
          return nil, "more than one document"
        end
        root = root or node
        if body:sub(-1) ~= "/" then stack[#stack + 1] = node end
      end
      at = stop + 1
    end
  end
  if not root then return nil, "no XML element" end
  if #stack > 0 then return nil, ("<%s> does not end"):format(stack[#stack].name) end
  return root
end

local function find(node, ...)
  for _, name in ipairs { ... } do
    local found
    for _, c in ipairs(node.children) do
      if c.name == name then
        found = c
        break
      end
    end
    if not found then return nil end
    node = found
  end
  return node
end

local function text_at(node, ...)
  local n = find(node, ...)
  return n and clean(n.text) or ""
end

function M.xml(text)
  local root, why = tree(text)
  if not root then return nil, "not well-formed XML: " .. why end
  if root.name ~= "Invoice" and root.name ~= "CreditNote" then
    return nil, ("XML, but <%s> is no invoice"):format(root.name)
  end
  local party = find(root, "AccountingSupplierParty", "Party")
  local vendor = party and text_at(party, "PartyLegalEntity", "RegistrationName") or ""
  if vendor == "" and party then vendor = text_at(party, "PartyName", "Name") end
  local amount = find(root, "LegalMonetaryTotal", "TaxInclusiveAmount")
  local credit = root.name == "CreditNote" or text_at(root, "InvoiceTypeCode") == "381"
  local inv
  inv, why = invoice(text_at(root, "ID"), vendor, text_at(root, "OrderReference", "ID"),
    text_at(root, "DocumentCurrencyCode"), amount and decimal.read(amount.text), credit)
  return inv and { inv }, why
end

-- ---------------------------------------------------------------------------------------------------- CSV

local columns = { "invoice_id", "vendor", "po_number", "currency", "quantity", "unit_price", "tax_rate" }

function M.csv(text)
  local rows = csv.records(text)
  local sums, order, heads = {}, {}, {}
  if #rows == 0 then return nil, "CSV without a line" end
  for _, name in ipairs(columns) do
    if rows[1][name] == nil then return nil, ("CSV without the column %s"):format(name) end
  end
  for i, row in ipairs(rows) do
    local q, p, r = decimal.read(row.quantity), decimal.read(row.unit_price), decimal.read((row.tax_rate:gsub("%%", "")))
    if not (q and p and r) then return nil, ("line %d: a number that cannot be read"):format(i + 1) end
    if row.tax_rate:find("%", 1, true) or #row.tax_rate > 0 and tonumber(row.tax_rate) and tonumber(row.tax_rate) > 1 then
      r = decimal.mul(r, decimal.read "0.01") -- 19 or 19% for 0.19
    end
    local id = clean(row.invoice_id)
    if not sums[id] then
      order[#order + 1], heads[id], sums[id] = id, row, decimal.read "0"
    end
    sums[id] = decimal.add(sums[id], decimal.mul(decimal.mul(q, p), decimal.add(decimal.read "1", r)))
  end
  local out = {}
  for _, id in ipairs(order) do
    local h = heads[id]
    local inv, why = invoice(id, clean(h.vendor), clean(h.po_number), clean(h.currency), sums[id], false)
    if not inv then return nil, why end
    out[#out + 1] = inv
  end
  return out
end

-- --------------------------------------------------------------------------------------------------- text

local function fields_of(text)
  local fields = {}
  for line in (text .. "\n"):gmatch "(.-)\r?\n" do
    local name, value = line:match "^%s*([%a][%a ]-)%s*:%s*(.-)%s*$"
    name = name and name:lower()
    if name and not fields[name] then fields[name] = value end
  end
  return fields
end

local function amount(s)
  return s and decimal.read((s:gsub("[%a]", ""):gsub("[$\194\163\226\130\172]", "")))
end

function M.text(text)
  local f = fields_of(text)
  local id = f["invoice number"] or f["credit note number"] or f["invoice no"] or ""
  if id == "" or not (f["total due"] or f.vendor) then return nil, "not an invoice in any known format" end
  local credit = f["credit note number"] ~= nil or (f["document type"] or f.type or ""):lower():find "credit" ~= nil
    or text:match "^[%s\239\187\191]*([^\n]*)":lower():find "credit note" ~= nil
  local inv, why = invoice(clean(id), clean(f.vendor), clean(f["purchase order"]), clean(f.currency),
    amount(f["total due"]), credit)
  return inv and { inv }, why
end

---By what the text looks like, not by the file's name.
function M.read(text)
  text = text:gsub("^\239\187\191", "")
  if text:match "^%s*$" then return nil, "the file is empty" end
  if text:find("%z") then return nil, "the file is not text" end
  if text:match "^%s*<" then return M.xml(text) end
  local first = text:match "^%s*([^\r\n]*)":lower()
  if first:find("invoice_id", 1, true) and first:find(",", 1, true) then return M.csv(text) end
  return M.text(text)
end

return M
