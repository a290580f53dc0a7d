-- A model without a network: it plays the language model for this job by rules. It knows nothing but the
-- request: what the messages say and what the tools returned decides its next call, as with a real model.
--
--   list the uploads -> read them -> look their orders up -> write both files -> check them -> report
local rig = require "moonrig"
local csv = require "csv"
local decimal = require "decimal"
local formats = require "formats"

local UPLOADS, OUT = "/mnt/session/uploads", "/mnt/session/outputs"
local PIECE = 60000            -- bytes a call reads: a tool's answer holds about 100,000 characters
local FILE_MAX = 4 * 1024 * 1024
local LOOKUPS = 12             -- look-ups in one reply

-- -------------------------------------------------------------------------- what happened so far

local function text_of(content)
  if type(content) == "string" then return content end
  local parts = {}
  for _, b in ipairs(content or {}) do parts[#parts + 1] = b.text end
  return table.concat(parts)
end

---Every tool call with its result: calls[key] = { text =, is_error =, tries = }, by name and argument.
local function history(messages)
  local uses, calls = {}, {}
  for _, m in ipairs(messages) do
    for _, b in ipairs(type(m.content) == "table" and m.content or {}) do
      if b.type == "tool_use" then
        local i = b.input
        uses[b.id] = b.name .. " " .. tostring(i.command or i.po_number or i.file_path)
      elseif b.type == "tool_result" and uses[b.tool_use_id] then
        local key = uses[b.tool_use_id]
        local tries = calls[key] and calls[key].tries or 0
        calls[key] = { text = text_of(b.content), is_error = b.is_error, tries = tries + 1 }
      end
    end
  end
  return calls
end

---The result of a call; nil when it must be made (again: an error gets a second try).
local function done(calls, name, argument)
  local c = calls[name .. " " .. argument]
  if c and (not c.is_error or c.tries >= 2) then return c end
end

local function use(name, input) return { type = "tool_use", name = name, input = input } end
local function say(text) return { type = "text", text = text } end
local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

-- -------------------------------------------------------------------------------------- reading files

local LIST = "cd " .. UPLOADS .. " && find . -type f -printf '%s %P\\n' | LC_ALL=C sort -k2"

local function listed(text)
  local files = {}
  for line in text:gmatch "[^\n]+" do
    local size, name = line:match "^(%d+) (.+)$"
    if name then files[#files + 1] = { name = name, size = tonumber(size) } end
  end
  return files
end

---The commands that read all files, each with the pieces it brings: { command, { file, ... } }.
local function plan(files)
  local batches, now, bytes = {}, nil, 0
  for _, f in ipairs(files) do
    if f.size > FILE_MAX then
      f.why = "larger than 4 MiB"
    elseif f.size > PIECE then
      for at = 0, f.size - 1, PIECE do
        batches[#batches + 1] = { files = { f }, command = ("cd %s && tail -c +%d %s | head -c %d | base64 -w0"):format(
          UPLOADS, at + 1, quote(f.name), PIECE) }
      end
    else
      if not now or bytes + f.size > PIECE or #now.files >= 40 then
        now, bytes = { files = {} }, 0
        batches[#batches + 1] = now
      end
      now.files[#now.files + 1] = f
      bytes = bytes + f.size
    end
  end
  for _, b in ipairs(batches) do
    if not b.command then
      local names = {}
      for i, f in ipairs(b.files) do names[i] = quote(f.name) end
      b.command = ('cd %s && for f in %s; do base64 -w0 -- "$f" 2>/dev/null || printf "!"; echo; done'):format(UPLOADS,
        table.concat(names, " "))
    end
  end
  return batches
end

local alphabet = {}
for i = 0, 63 do
  alphabet[("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):byte(i + 1)] = i
end

local function unbase64(s)
  local out = {}
  for at = 1, #s - 3, 4 do
    local a, b, c, d = s:byte(at, at + 3)
    local n = ((alphabet[a] * 64 + alphabet[b]) * 64 + (alphabet[c] or 0)) * 64 + (alphabet[d] or 0)
    local bytes = string.char(math.floor(n / 65536), math.floor(n / 256) % 256, n % 256)
    out[#out + 1] = alphabet[c] and (alphabet[d] and bytes or bytes:sub(1, 2)) or bytes:sub(1, 1)
  end
  return table.concat(out)
end

local function valid_utf8(s)
  local at = 1
  while at <= #s do
    local stop = s:find("[\128-\255]", at)
    if not stop then return true end
    local c = s:byte(stop)
    local n = c >= 0xF0 and c < 0xF5 and 3 or c >= 0xE0 and c < 0xF0 and 2 or c >= 0xC2 and c < 0xE0 and 1
    if not n or not s:match("^" .. ("[\128-\191]"):rep(n), stop + 1) then return false end
    at = stop + n + 1
  end
  return true
end

local function code(n)
  if n < 0x80 then return string.char(n) end
  if n < 0x800 then return string.char(0xC0 + math.floor(n / 64), 0x80 + n % 64) end
  return string.char(0xE0 + math.floor(n / 4096), 0x80 + math.floor(n / 64) % 64, 0x80 + n % 64)
end

---Bytes of a file as UTF-8: UTF-16 by its mark, Latin-1 when it is not UTF-8.
local function to_utf8(s)
  local mark = s:sub(1, 2)
  if mark == "\255\254" or mark == "\254\255" then
    local hi, lo = mark == "\255\254" and 2 or 1, mark == "\255\254" and 1 or 2
    return (s:sub(3):gsub("..", function(p) return code(p:byte(hi) * 256 + p:byte(lo)) end))
  end
  if valid_utf8(s) then return s end
  return (s:gsub("[\128-\255]", function(c) return code(c:byte()) end))
end

---Puts the answer of one read into its files.
local function collect(batch, answer)
  if answer.is_error then
    for _, f in ipairs(batch.files) do f.why = "could not be read: " .. answer.text:sub(1, 200) end
    return
  end
  local i = 0
  for line in (answer.text .. "\n"):gmatch "([^\n]*)\n" do
    i = i + 1
    local f = batch.files[i]
    if not f then break end
    if line:find "[^%w+/=]" then
      f.why = "could not be read"
    elseif not f.why then
      f.bytes = (f.bytes or "") .. unbase64(line)
    end
  end
  for _, f in ipairs(batch.files) do f.bytes = f.bytes or (f.size == 0 and "" or nil) end
end

-- ------------------------------------------------------------------------------------------- verdicts

local function same(a, b)
  local function key(s) return (s or ""):lower():gsub("%s+", " "):match "^%s*(.-)%s*$" end
  return key(a) == key(b)
end

---The line of the ledger that fits an invoice best.
local function best(inv, lines)
  local found, most
  for _, l in ipairs(lines) do
    local gross = decimal.read(l.gross or "")
    l.cents = gross and decimal.cents(gross)
    local score = (same(l.vendor, inv.vendor) and 8 or 0) + (same(l.currency, inv.currency) and 4 or 0)
      + (l.cents and math.abs(l.cents - inv.gross) <= 1 and 2 or 0) + (same(l.status, "paid") and 0 or 1)
    if not most or score > most then found, most = l, score end
  end
  return found
end

local function judge(inv, answer, seen)
  local key = table.concat({ inv.id, inv.vendor:lower(), inv.currency, inv.gross }, "\0")
  local first = seen[key]
  seen[key] = first or inv.file
  local ok, reply = pcall(rig.json.decode, answer and answer.text or "null")
  local lines = ok and type(reply) == "table" and reply.lines or {}
  local line = best(inv, lines)
  inv.ledger = line and line.cents
  if first then return "duplicate", "same as in " .. first end
  if inv.po == "" then return "missing_in_ledger", "names no purchase order" end
  if answer and answer.is_error then return "missing_in_ledger", "the ledger could not be asked: " .. answer.text:sub(1, 100) end
  if not line then return "missing_in_ledger", ("the ledger has no order %s"):format(inv.po) end
  if not same(line.vendor, inv.vendor) then return "vendor_mismatch", "ledger: " .. line.vendor end
  if not same(line.currency, inv.currency) then return "currency_mismatch", "ledger: " .. line.currency end
  if same(line.status, "paid") then return "already_paid", "the ledger says paid" end
  if not line.cents then return "amount_mismatch", "the ledger's amount cannot be read" end
  if math.abs(inv.gross - line.cents) > 1 then
    return "amount_mismatch", ("invoiced %s, ordered %s"):format(decimal.text(inv.gross), decimal.text(line.cents))
  end
  return "matched", ""
end

local ORDER = { "matched", "amount_mismatch", "currency_mismatch", "vendor_mismatch", "missing_in_ledger", "duplicate",
  "already_paid" }

local function table_text(invoices)
  local out = { csv.line { "invoice_id", "vendor", "po_number", "currency", "invoice_gross", "ledger_gross", "difference",
    "verdict", "note" } }
  for _, v in ipairs(invoices) do
    out[#out + 1] = csv.line { v.id, v.vendor, v.po, v.currency, decimal.text(v.gross),
      v.ledger and decimal.text(v.ledger) or "", v.ledger and decimal.text(v.gross - v.ledger) or "", v.verdict, v.note }
  end
  return table.concat(out)
end

local function cell(s) return (s:gsub("|", "\\|")) end

local function summary_text(invoices, unread, counts)
  local out = { "# Reconciliation", "", ("%d invoices."):format(#invoices), "", "| verdict | invoices |", "|---|---:|" }
  for _, name in ipairs(ORDER) do out[#out + 1] = ("| %s | %d |"):format(name, counts[name] or 0) end
  out[#out + 1] = "\n## To look at\n"
  for _, v in ipairs(invoices) do
    if v.verdict ~= "matched" then
      out[#out + 1] = ("- %s, %s (%s %s): %s. %s"):format(cell(v.id), cell(v.vendor), decimal.text(v.gross), v.currency,
        v.verdict, cell(v.note))
    end
  end
  out[#out + 1] = "\n## Files that could not be read\n"
  for _, f in ipairs(unread) do out[#out + 1] = ("- %s: %s"):format(f.name, f.why) end
  if #unread == 0 then out[#out + 1] = "None." end
  return table.concat(out, "\n") .. "\n"
end

-- ------------------------------------------------------------------------------------------ the next step

local function read_all(calls, files)
  local missing = {}
  for _, batch in ipairs(plan(files)) do
    local answer = done(calls, "bash", batch.command)
    if answer then collect(batch, answer) else missing[#missing + 1] = use("bash", { command = batch.command }) end
    if #missing == 4 then break end
  end
  return missing
end

local function parse_all(files)
  local invoices, unread = {}, {}
  for _, f in ipairs(files) do
    local list, why
    if f.bytes then list, why = formats.read(to_utf8(f.bytes)) end
    for _, inv in ipairs(list or {}) do
      inv.file = f.name
      invoices[#invoices + 1] = inv
    end
    if not list then
      f.why = f.why or why
      unread[#unread + 1] = f
    end
  end
  return invoices, unread
end

local function lookups(calls, invoices)
  local missing, asked, more = {}, {}, 0
  for _, inv in ipairs(invoices) do
    if inv.po ~= "" and not asked[inv.po] and not done(calls, "ledger_lookup", inv.po) then
      asked[inv.po] = true
      if #missing < LOOKUPS then missing[#missing + 1] = use("ledger_lookup", { po_number = inv.po }) else more = more + 1 end
    end
  end
  return missing, more
end

return function(request)
  local calls = history(request.messages)
  local list = done(calls, "bash", LIST)
  if not list then return { say "I will see which invoices are there.", use("bash", { command = LIST }) } end
  if list.is_error then return "The uploads cannot be listed: " .. list.text end
  local files = listed(list.text)
  if #files == 0 then return "There are no invoices under " .. UPLOADS .. ", so nothing was written." end

  local reads = read_all(calls, files)
  if #reads > 0 then
    table.insert(reads, 1, say(("%d files. Reading them."):format(#files)))
    return reads
  end

  local invoices, unread = parse_all(files)
  local asks, more = lookups(calls, invoices)
  if #asks > 0 then
    table.insert(asks, 1, say(("%d invoices read, %d files not readable. Looking up %d orders%s."):format(#invoices, #unread,
      #asks, more > 0 and (", %d more after these"):format(more) or "")))
    return asks
  end

  local seen, counts = {}, {}
  for _, inv in ipairs(invoices) do
    inv.verdict, inv.note = judge(inv, calls["ledger_lookup " .. inv.po], seen)
    counts[inv.verdict] = (counts[inv.verdict] or 0) + 1
  end
  local writes = {}
  for name, text in pairs { ["reconciliation.csv"] = table_text(invoices), ["summary.md"] = summary_text(invoices, unread, counts) } do
    local path = OUT .. "/" .. name
    local w = done(calls, "write", path)
    if w and w.is_error then return ("%s cannot be written: %s"):format(path, w.text) end
    if not w then writes[#writes + 1] = use("write", { file_path = path, content = text }) end
  end
  if #writes > 0 then
    table.insert(writes, 1, say "All orders are known. Writing the results.")
    return writes
  end

  local check = ("cd %s && wc -c reconciliation.csv summary.md && head -n 3 reconciliation.csv"):format(OUT)
  local checked = done(calls, "bash", check)
  if not checked then return { say "Checking what was written.", use("bash", { command = check }) } end
  if checked.is_error or not checked.text:find(("%d reconciliation.csv"):format(#table_text(invoices)), 1, true) then
    return "The files were written, but their check failed: " .. checked.text
  end
  local parts = {}
  for _, name in ipairs(ORDER) do
    if counts[name] then parts[#parts + 1] = ("%d %s"):format(counts[name], name) end
  end
  return ("%d invoices are reconciled: %s. %s The table is in reconciliation.csv, what to look at in summary.md."):format(
    #invoices, table.concat(parts, ", "), #unread == 0 and "Every file was readable."
      or #unread == 1 and "One file could not be read." or ("%d files could not be read."):format(#unread))
end
