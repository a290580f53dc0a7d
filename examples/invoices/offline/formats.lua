-- Invoices out of the text of a file, which is UTF-8 by now: UBL 2.1 XML, CSV, plain text. Each function
-- returns a list of { id, vendor, po, currency, gross (cents), remark }, or nil and a reason.
local csv = require "csv"
local decimal = require "offline.decimal"
local xml = require "offline.xml"

local M = {}

local function clean(s) return (s or ""):gsub("\194\160", " "):gsub("%s+", " "):match "^%s*(.-)%s*$" end

local function invoice(v, gross, credit)
  if v.id == "" then return nil, "it has no invoice number" end
  if not gross then return nil, "its total is missing or no number" end
  if credit and not gross.neg then gross = decimal.negate(gross) end
  v.gross = decimal.cents(gross)
  if not v.gross then return nil, "its total is too large" end
  v.currency, v.remark = v.currency:upper(), v.remark or ""
  return v
end

-- ---------------------------------------------------------------------------------------------------- XML

local credit_codes = { ["81"] = true, ["83"] = true, ["381"] = true, ["396"] = true, ["532"] = true }

function M.xml(text)
  local root, why = xml.read(text)
  if not root then return nil, "XML that is not well-formed: " .. why end
  if root.name ~= "Invoice" and root.name ~= "CreditNote" then
    return nil, ("XML, but <%s> is no invoice"):format(root.name)
  end
  local function at(...) return clean(xml.text(root, ...)) end
  local vendor = at("AccountingSupplierParty", "Party", "PartyLegalEntity", "RegistrationName")
  if vendor == "" then vendor = at("AccountingSupplierParty", "Party", "PartyName", "Name") end
  local total, attributes = xml.text(root, "LegalMonetaryTotal", "TaxInclusiveAmount")
  local v = { id = at "ID", vendor = vendor, po = at("OrderReference", "ID"), currency = at "DocumentCurrencyCode" }
  if v.currency == "" and attributes then v.currency = attributes:match "currencyID%s*=%s*[\"'](%a+)" or "" end
  if v.po == "" and at "BuyerReference" ~= "" then v.remark = "buyer reference " .. at "BuyerReference" end
  local inv
  inv, why = invoice(v, total and decimal.read(total), root.name == "CreditNote" or credit_codes[at "InvoiceTypeCode"])
  return inv and { inv }, why
end

-- ---------------------------------------------------------------------------------------------------- CSV

local columns = { "invoice_id", "vendor", "po_number", "currency", "quantity", "unit_price", "tax_rate" }
local numbers = { "quantity", "unit_price", "tax_rate" }
local ONE, PERCENT = decimal.read "1", decimal.read "0.01"

---The sign before fractions in all of a file's numbers, where one of them shows it.
local function point_of(list)
  for _, s in ipairs(list) do
    local point = decimal.point((decimal.plain(s):gsub("[%s'%%]", "")))
    if point then return point end
  end
end

---Quantity x unit price x (1 + tax rate), exactly; nil and the name of the column that is no number.
local function amount_of(row, point)
  local n = {}
  for _, name in ipairs(numbers) do
    n[name] = decimal.read((row[name]:gsub("%%", "")), point)
    if not n[name] then return nil, name end
  end
  local rate = n.tax_rate -- 0.19, or 19, or 19%
  if row.tax_rate:find("%", 1, true) or (decimal.cents(rate) or 101) > 100 then rate = decimal.mul(rate, PERCENT) end
  return decimal.mul(decimal.mul(n.quantity, n.unit_price), decimal.add(ONE, rate))
end

function M.csv(text)
  local rows, head = csv.records(text)
  local has, shown, by_key, order = {}, {}, {}, {}
  for _, name in ipairs(head) do has[name] = true end
  for _, name in ipairs(columns) do
    if not has[name] then return nil, ("CSV without the column %s"):format(name) end
  end
  for _, row in ipairs(rows) do
    for _, name in ipairs(numbers) do shown[#shown + 1] = row[name] end
  end
  local point = point_of(shown)
  for i, row in ipairs(rows) do
    local amount, bad = amount_of(row, point)
    if not amount then return nil, ("CSV line %d: its %s is no number"):format(i + 1, bad) end
    local key = clean(row.invoice_id) .. "\0" .. clean(row.vendor)
    local v = by_key[key]
    if not v then
      v = { id = clean(row.invoice_id), vendor = clean(row.vendor), po = clean(row.po_number),
        currency = clean(row.currency), sum = amount }
      by_key[key], order[#order + 1] = v, v
    elseif v.currency ~= clean(row.currency) then
      return nil, ("CSV line %d: another currency than the invoice's lines before"):format(i + 1)
    else
      v.sum = decimal.add(v.sum, amount)
    end
  end
  if #order == 0 then return nil, "CSV without a line" end
  for _, v in ipairs(order) do
    local inv, why = invoice(v, v.sum, false)
    if not inv then return nil, "CSV: " .. why end
  end
  return order
end

-- --------------------------------------------------------------------------------------------------- text

local names = { id = { "invoice number", "invoice no", "invoice nr", "invoice #", "invoice id" },
  credit_id = { "credit note number", "credit note no" }, vendor = { "vendor" },
  po = { "purchase order", "purchase order number", "po number" }, currency = { "currency" },
  net = { "net" }, tax = { "tax" }, total = { "total due", "amount due" },
  kind = { "document type", "invoice type", "document", "type" } }
local credit_words = { "credit note", "credit memo", "gutschrift", "avoir", "kreditnota", "creditnota", "nota de credito" }
local three_digits = { BHD = true, IQD = true, JOD = true, KWD = true, LYD = true, OMR = true, TND = true }

---The "Name: value" lines; of two with one name the first counts.
local function fields_of(text)
  local found, fields = {}, {}
  for line in (text .. "\n"):gmatch "([^\r\n]*)[\r\n]" do
    local name, value = line:match "^[%s*|-]*([^:]-)[%s.]*:%s*(.-)%s*$"
    if name and #name <= 40 then
      name = clean(name:gsub("%(.-%)", "")):lower()
      if value ~= "" then found[name] = found[name] or value end
    end
  end
  for field, list in pairs(names) do
    for _, name in ipairs(list) do fields[field] = fields[field] or found[name] end
    fields[field] = fields[field] or ""
  end
  return fields
end

---The number in "EUR 1 234,50", "1,234.50- incl. VAT 19%", "($ 12.00)": its digits; is it negative?
local function number_in(value)
  local s = decimal.plain(value)
  local from, to = s:find "%d[%d.,']*"
  if not from then return nil end
  while s:sub(from, to):find "^[%d ]*$" and s:find("^ %d%d%d%f[%D]", to + 1) do
    to = to + 4
    local _, fraction = s:find("^[.,]%d+", to + 1)
    to = fraction or to
  end
  local digits, before, after = s:sub(from, to), s:sub(1, from - 1), s:sub(to + 1)
  if digits:find "[.,]$" and after:find "^%-" then -- 1.234,-
    digits, after = digits .. "00", ""
  end
  digits = digits:gsub("[.,]$", "")
  local neg = before:find "^%s*[-(]" or before:find "[-(]%s*$" or after:find "^%-" or after:find "^%s*CR%f[%W]"
  return digits, neg and true or false
end

---The amounts of an invoice: { net =, tax =, total = }. 1.234 and 1,234 are whole units with thousands set
---apart, as no money is written with three decimals, but for a few currencies.
local function amounts_of(f)
  local digits, neg, out = {}, {}, {}
  for _, name in ipairs { "net", "tax", "total" } do digits[name], neg[name] = number_in(f[name]) end
  local point = point_of { digits.total or "", digits.net or "", digits.tax or "" }
  for name, d in pairs(digits) do
    local default = point or ((d:find(",", 1, true) == nil) ~= (three_digits[f.currency:upper()] or false) and "," or ".")
    out[name] = decimal.read(d, default)
    if out[name] and neg[name] then out[name] = decimal.negate(out[name]) end
  end
  return out
end

---A credit note says so at its top, or on a line of its own ("CREDIT NOTE 4711").
local function is_credit(text, f)
  if f.credit_id ~= "" then return true end
  local n, kind = 0, f.kind:lower()
  for line in (kind .. "\n" .. text):gmatch "[^\r\n]+" do
    line = clean(line:gsub("[*=#_|-]+", " ")):lower()
    for _, word in ipairs(line ~= "" and credit_words or {}) do
      local rest = line:sub(1, #word) == word and line:sub(#word + 1)
      if rest and (n < 3 or rest == "" or rest:find "^ ?n?[or]?%.? ?[%w/]*%d[%w/ ]*$") then return true end
    end
    n = line ~= "" and n + 1 or n
  end
  return false
end

function M.text(text)
  local f = fields_of(text)
  local id = f.credit_id ~= "" and f.credit_id or f.id
  if id == "" then return nil, "it is no invoice in a known format" end
  local amounts = amounts_of(f)
  local v = { id = clean(id), vendor = clean(f.vendor), po = clean(f.po), currency = clean(f.currency) }
  if v.currency == "" then
    v.currency = f.total:match "%f[%a](%u%u%u)%f[%A]" or (f.total:find("€", 1, true) and "EUR")
      or (f.total:find("£", 1, true) and "GBP") or ""
  end
  local total = amounts.total
  if f.total == "" and amounts.net and amounts.tax then
    total, v.remark = decimal.add(amounts.net, amounts.tax), "total taken from net and tax"
  end
  local inv, why = invoice(v, total, is_credit(text, f))
  return inv and { inv }, why
end

---By what the text looks like, not by the file's name.
function M.read(text)
  text = text:gsub("^\239\187\191", "")
  if not text:find "%S" then return nil, "the file is empty" end
  if text:find "^%s*<[%a?!_]" then return M.xml(text) end
  local first = text:match "^%s*([^\r\n]*)":lower()
  if first:find("invoice_id", 1, true) and first:find "[,;\t]" then return M.csv(text) end
  return M.text(text)
end

return M
