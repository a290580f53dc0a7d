-- A model without a network: it plays the language model for this job by rules. It knows nothing but the
-- request: what the messages say and what the tools returned decides its next call, as with a real model.
--
--   list the uploads -> read them -> look their orders up -> write both files -> check them -> report
--
-- Each time it starts from the messages alone and goes as far as the answers in them reach.
local rig = require "moonrig"
local csv = require "csv"
local decimal = require "offline.decimal"
local formats = require "offline.formats"
local reading = require "offline.reading"
local verdicts = require "offline.verdicts"

local OUT = "/mnt/session/outputs/"
local CALLS = 12 -- in one reply
local TRIES = 2  -- of a call that fails

-- ----------------------------------------------------------------------------- what happened so far

local function text_of(content)
  if type(content) == "string" then return content end
  local parts = {}
  for _, b in ipairs(content or {}) do parts[#parts + 1] = b.text end
  return table.concat(parts)
end

local function key_of(name, input)
  return name .. " " .. tostring(input.command or input.po_number or input.file_path)
end

---Every call since the user spoke last, with its result: { text =, is_error =, tries = }.
local function history(messages)
  local uses, calls = {}, {}
  for _, m in ipairs(messages) do
    local content = type(m.content) == "table" and m.content or { { type = "text" } }
    for _, b in ipairs(content) do
      if b.type == "text" and m.role == "user" then calls = {} end
      if b.type == "tool_use" then
        uses[b.id] = key_of(b.name, b.input)
      elseif b.type == "tool_result" and uses[b.tool_use_id] then
        local key = uses[b.tool_use_id]
        local tries = calls[key] and calls[key].tries or 0
        calls[key] = { text = text_of(b.content), is_error = b.is_error, tries = tries + 1 }
      end
    end
  end
  return calls
end

---Files that the user could not hand over, as the message says.
local function lost(messages)
  local files = {}
  for i = #messages, 1, -1 do
    local text = messages[i].role == "user" and text_of(messages[i].content) or ""
    for name, why in ("\n" .. text):gmatch "\nNot uploaded: ([^\n]-): ([^\n]*)" do
      files[#files + 1] = { name = name, why = why }
    end
    if text ~= "" then break end
  end
  return files
end

---What was asked and what is still to be asked. do_(name, input) gives a call's result; nil when it must be
---made, and then it is in `wanted`. A result that is an error is asked for again before it counts.
local function journal(messages)
  local calls, wanted, noted = history(messages), {}, {}
  local function do_(name, input)
    local key = key_of(name, input)
    local c = calls[key]
    if c and (not c.is_error or c.tries >= TRIES) then return c end
    if not noted[key] then wanted[#wanted + 1] = { type = "tool_use", name = name, input = input } end
    noted[key] = true
  end
  return do_, wanted
end

---A reply: a line of text, then the first of the calls that are wanted.
local function call(text, wanted)
  local reply = { { type = "text", text = text } }
  for i = 1, math.min(#wanted, CALLS) do reply[i + 1] = wanted[i] end
  return reply
end

-- ------------------------------------------------------------------------------------------- results

local function table_text(invoices)
  local out = { csv.line { "invoice_id", "vendor", "po_number", "currency", "invoice_gross", "ledger_gross", "difference",
    "verdict", "note" } }
  for _, v in ipairs(invoices) do
    out[#out + 1] = csv.line { v.id, v.vendor, v.po, v.currency, decimal.text(v.gross),
      v.ledger and decimal.text(v.ledger) or "", v.ledger and decimal.text(v.gross - v.ledger) or "", v.verdict, v.note }
  end
  return table.concat(out)
end

local function counts_of(invoices)
  local counts = {}
  for _, v in ipairs(invoices) do counts[v.verdict] = (counts[v.verdict] or 0) + 1 end
  return counts
end

local function md(s) return (s:gsub("[\\`*|<%[]", "\\%0")) end

local function number_of(n, what) return ("%d %s%s"):format(n, what, n == 1 and "" or "s") end

local function summary_text(invoices, unread)
  local counts = counts_of(invoices)
  local out = { "# Reconciliation", "",
    number_of(#invoices, "invoice") .. " reconciled, " .. number_of(#unread, "file") .. " not readable.", "",
    "| verdict | invoices |", "|---|---:|" }
  for _, name in ipairs(verdicts.order) do out[#out + 1] = ("| %s | %d |"):format(name, counts[name] or 0) end
  out[#out + 1] = "\n## To look at\n"
  local before = #out
  for _, v in ipairs(invoices) do
    if v.verdict ~= "matched" or v.note ~= "" then
      out[#out + 1] = ("- **%s**, %s, %s %s: %s%s"):format(md(v.id), v.vendor == "" and "no vendor" or md(v.vendor),
        decimal.text(v.gross), v.currency, v.verdict, v.note == "" and "" or "; " .. md(v.note))
    end
  end
  if #out == before then out[#out + 1] = "Nothing: every invoice matches." end
  out[#out + 1] = "\n## Files that could not be read\n"
  for _, f in ipairs(unread) do out[#out + 1] = ("- %s: %s"):format(f.name, md(f.why)) end
  if #unread == 0 then out[#out + 1] = "None." end
  return table.concat(out, "\n") .. "\n"
end

local function report(invoices, unread)
  local counts, parts = counts_of(invoices), {}
  for _, name in ipairs(verdicts.order) do
    if counts[name] then parts[#parts + 1] = ("%d %s"):format(counts[name], name) end
  end
  return ("%s reconciled: %s. %s The table is in reconciliation.csv, what to look at in summary.md."):format(
    number_of(#invoices, "invoice"), #parts > 0 and table.concat(parts, ", ") or "none",
    #unread == 0 and "Every file was readable." or number_of(#unread, "file") .. " could not be read.")
end

-- --------------------------------------------------------------------------------------------- the job

local function parse(files)
  local invoices, unread = {}, {}
  for _, f in ipairs(files) do
    local list, why
    if f.text then list, why = formats.read(f.text) end
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

---What the ledger says, by order number; or nil and why it cannot be asked.
local function look_up(invoices, do_)
  local replies, why = {}, nil
  for _, inv in ipairs(invoices) do
    local answer = inv.po ~= "" and not replies[inv.po] and do_("ledger_lookup", { po_number = inv.po })
    if answer then
      local ok, reply = pcall(rig.json.decode, answer.text)
      if answer.is_error or not ok or type(reply) ~= "table" then why = why or answer.text:sub(1, 200) end
      replies[inv.po] = ok and type(reply) == "table" and reply or {}
    end
  end
  if why then return nil, why end
  return replies
end

---Writes both files and checks them; what went wrong, or nothing.
local function write(texts, do_, wanted)
  local sizes = {}
  for _, name in ipairs { "reconciliation.csv", "summary.md" } do
    local done = do_("write", { file_path = OUT .. name, content = texts[name] })
    if done and done.is_error then return ("%s cannot be written: %s"):format(name, done.text) end
    sizes[#sizes + 1] = ("%d %s"):format(#texts[name], name)
  end
  if #wanted > 0 then return end
  local check = do_("bash", { command = "cd " .. OUT .. " && wc -c reconciliation.csv summary.md && head -n 3 reconciliation.csv" })
  for _, size in ipairs(sizes) do
    if check and (check.is_error or not check.text:find(size, 1, true)) then
      return "The files were written, but their check failed: " .. check.text
    end
  end
end

local function has_tool(request, name)
  for _, t in ipairs(request.tools or {}) do
    if t.name == name then return true end
  end
end

return function(request)
  for _, name in ipairs { "bash", "write", "ledger_lookup" } do
    if not has_tool(request, name) then return ("I cannot do this: I have no tool %s."):format(name) end
  end
  local do_, wanted = journal(request.messages)
  local list = do_("bash", { command = reading.list })
  if not list then return call("I will see which invoices are there.", wanted) end
  if list.is_error then return "The uploads cannot be listed: " .. list.text end
  local files = reading.listed(list.text)
  if #files == 0 then return "There are no files under /mnt/session/uploads, so nothing was written." end

  reading.read(files, function(command) return do_("bash", { command = command }) end)
  if #wanted > 0 then return call(number_of(#files, "file") .. ". Reading on.", wanted) end

  local invoices, unread = parse(files)
  for _, f in ipairs(lost(request.messages)) do unread[#unread + 1] = f end
  local replies, why = look_up(invoices, do_)
  if #wanted > 0 then
    return call(("%s read. %s to look up."):format(number_of(#invoices, "invoice"), number_of(#wanted, "order")), wanted)
  end
  if not replies then return "The ledger cannot be asked, so nothing was written: " .. why end

  verdicts.judge(invoices, replies)
  why = write({ ["reconciliation.csv"] = table_text(invoices), ["summary.md"] = summary_text(invoices, unread) }, do_, wanted)
  if why then return why end
  if #wanted > 0 then
    return call(wanted[1].name == "write" and "All orders are known. Writing the results." or "Checking what was written.",
      wanted)
  end
  return report(invoices, unread)
end
