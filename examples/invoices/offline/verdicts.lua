-- What an invoice is worth beside the ledger: the rules of instructions.md.
local decimal = require "offline.decimal"

local M = {}

M.order = { "matched", "amount_mismatch", "currency_mismatch", "vendor_mismatch", "missing_in_ledger", "duplicate",
  "already_paid" }

-- -------------------------------------------------------------------------------------- comparing names

---Lower case of the letters of Europe: Latin, Greek, Cyrillic.
local function lower_of(n)
  if n >= 0xC0 and n <= 0xDE and n ~= 0xD7 then return n + 32 end
  if n == 0x178 then return 0xFF end
  if n >= 0x139 and n <= 0x148 or n >= 0x179 and n <= 0x17E then return n + n % 2 end
  if n >= 0x100 and n <= 0x177 and n ~= 0x130 and n ~= 0x138 and n ~= 0x149 then return n + 1 - n % 2 end
  if n >= 0x391 and n <= 0x3A9 or n >= 0x410 and n <= 0x42F then return n + 32 end
  if n >= 0x400 and n <= 0x40F then return n + 80 end
  return n
end

local function lower(s)
  return (s:lower():gsub("[\195-\209][\128-\191]", function(c)
    local n = lower_of((c:byte(1) - 0xC0) * 64 + c:byte(2) - 0x80)
    return string.char(0xC0 + math.floor(n / 64), 0x80 + n % 64)
  end))
end

local function key(s) return lower(s or ""):gsub("\194\160", " "):gsub("%s+", " "):match "^%s*(.-)%s*$" end

local function same(a, b) return key(a) == key(b) end

-- ------------------------------------------------------------------------------------------- the rules

local function near(a, b) return a and b and math.abs(a - b) <= 1 end

---The line of the ledger that fits an invoice best.
local function best(inv, lines)
  local found, most
  for _, l in ipairs(lines) do
    local gross = decimal.read(l.gross or "")
    l.cents = gross and decimal.cents(gross)
    local score = (same(l.vendor, inv.vendor) and 8 or 0) + (same(l.currency, inv.currency) and 4 or 0)
      + (near(l.cents, inv.gross) and 2 or 0) + (same(l.status, "paid") and 0 or 1)
    if not most or score > most then found, most = l, score end
  end
  return found
end

---An earlier invoice that this one repeats; or one that has its number and vendor, but says something else.
local function earlier(inv, before)
  local other
  for _, b in ipairs(before) do
    if b.id == inv.id and same(b.vendor, inv.vendor) then
      if same(b.currency, inv.currency) and near(b.gross, inv.gross) then return b end
      other = other or b
    end
  end
  return nil, other
end

local function money(cents, currency) return ("%s %s"):format(decimal.text(cents), currency) end

local function verdict_of(inv, reply, line, twin)
  if twin then return "duplicate", "the same invoice as in " .. twin.file end
  if inv.po == "" then return "missing_in_ledger", "it names no purchase order" end
  if not line then
    local near_by = reply.similar and reply.similar[1]
    return "missing_in_ledger", ("the ledger has no order %s"):format(inv.po)
      .. (near_by and ("; it has " .. tostring(near_by)) or "")
  end
  if not same(line.vendor, inv.vendor) then
    return "vendor_mismatch", (inv.vendor == "" and "it names no vendor; " or "") .. "the order is " .. line.vendor .. "'s"
  end
  if not same(line.currency, inv.currency) then
    return "currency_mismatch", ("invoiced in %s, ordered in %s"):format(inv.currency == "" and "no currency"
      or inv.currency, line.currency)
  end
  if same(line.status, "paid") then
    return "already_paid", near(inv.gross, line.cents) and "the ledger says paid" or line.cents
      and ("the ledger says paid, with %s"):format(money(line.cents, line.currency)) or "the ledger says paid"
  end
  if not line.cents then return "amount_mismatch", "the ledger has no amount" end
  if not near(inv.gross, line.cents) then
    return "amount_mismatch", ("invoiced %s, ordered %s"):format(money(inv.gross, inv.currency),
      money(line.cents, line.currency))
  end
  return "matched", ""
end

---Gives each invoice its verdict, note and ledger amount. replies: what the ledger said, by order number.
function M.judge(invoices, replies)
  local by_id, by_po = {}, {}
  for _, inv in ipairs(invoices) do
    local reply = replies[inv.po] or {}
    local line = best(inv, type(reply.lines) == "table" and reply.lines or {})
    local before = by_id[inv.id] or {}
    local twin, other = earlier(inv, before)
    local verdict, note = verdict_of(inv, reply, line, twin)
    local notes = { note ~= "" and note or nil }
    if other and not twin then notes[#notes + 1] = "its number is also on " .. other.file end
    if by_po[inv.po] and not twin and inv.gross >= 0 then
      notes[#notes + 1] = "the order is also billed by " .. by_po[inv.po].id
    end
    if inv.remark ~= "" then notes[#notes + 1] = inv.remark end
    inv.verdict, inv.note = verdict, table.concat(notes, "; ")
    inv.ledger = line and line.cents
    by_id[inv.id] = before
    before[#before + 1] = inv
    if inv.po ~= "" and not twin and inv.gross >= 0 then by_po[inv.po] = by_po[inv.po] or inv end
  end
end

return M
