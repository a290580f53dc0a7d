-- The offline model of the invoice job against a real bash, without the program: right answers, limits,
-- failing tools. Arguments: a scratch folder, then folders with batch/ and ledger.csv; the results of each go
-- to its out-<engine>/. Runs on Lua 5.4 and LuaJIT.
package.path = "tests/examples/?.lua;" .. package.path
local harness = require "harness"
local model = require "offline_model"
local decimal = require "offline.decimal"
local formats = require "offline.formats"

local vm = jit and "luajit" or "lua5.4"
local scratch, failed = arg[1], false

local function test(name, fn)
  local ok, why = xpcall(fn, debug.traceback)
  print((ok and "ok " or "not ok ") .. vm .. "/" .. name)
  if not ok then print("  " .. tostring(why):gsub("\n", "\n  ")) end
  failed = failed or not ok
end

local function equal(got, want, what)
  if got ~= want then error(("%s is %s, not %s"):format(what or "it", tostring(got), tostring(want)), 2) end
end

local BATCH, LEDGER = "examples/invoices/batch", "examples/invoices/ledger.csv"

local function output(name) return harness.read_file(scratch .. "/session/outputs/" .. name) end

local function fresh(batch, ledger) return harness.prepare(scratch .. "/session", batch, ledger or LEDGER) end

-- ---------------------------------------------------------------------------------------- numbers, formats

test("numbers", function()
  local cases = { ["1234.50"] = 123450, ["-3"] = -300, ["1,234.56"] = 123456, ["1.234,56"] = 123456, ["1 234,56"] = 123456,
    ["1'234.56"] = 123456, ["1’234.56"] = 123456, ["(12.00)"] = -1200, ["12.00-"] = -1200, ["−4,2"] = -420, [".5"] = 50,
    ["1.234.567"] = 123456700, ["1,23,456.5"] = 12345650, ["0.005"] = 1, ["-0.005"] = -1, ["0.0049"] = 0, ["2.675"] = 268,
    ["1,2,3"] = false, ["1,,234"] = false, [""] = false, ["-"] = false, ["1e3"] = false, ["0x10"] = false,
    ["1.2.3,4"] = false, ["9999999999999.99"] = 999999999999999 }
  for text, cents in pairs(cases) do
    local v = decimal.read(text)
    equal(v and decimal.cents(v) or false, cents, text)
  end
  local sum = decimal.read "0"
  for _ = 1, 10 do sum = decimal.add(sum, decimal.mul(decimal.read "0.1", decimal.read "123456789.123456789")) end
  equal(decimal.cents(sum), 12345678912, "ten tenths")
end)

test("amounts_in_text", function()
  local cases = { ["1.234"] = 123400, ["1,234"] = 123400, ["EUR 1 234,50"] = 123450, ["1.234,-"] = 123400, ["€12"] = 1200,
    ["12.50 (incl. 19% VAT)"] = 1250, ["GBP -12.50"] = -1250, ["(USD 12.50)"] = -1250, ["12.50 CR"] = -1250,
    ["3 pieces"] = 300, ["1 234 567"] = 123456700 }
  for text, cents in pairs(cases) do
    local list = assert(formats.read("Invoice number: 1\nVendor: A\nCurrency: EUR\nTotal due: " .. text .. "\n"))
    equal(list[1].gross, cents, text)
  end
  local list = assert(formats.read "Invoice number: 1\nCurrency: KWD\nTotal due: 1.234\n")
  equal(list[1].gross, 123, "dinars")
end)

test("hostile_xml_ends_soon", function()
  local t0 = os.clock()
  for _, text in ipairs { ("<a>"):rep(200000), "<a " .. ("x='>' "):rep(100000), ("<"):rep(500000), "<a>" .. ("&amp;"):rep(200000),
    "<a>" .. ("<!--"):rep(100000), "<a b=\"" .. (">"):rep(1000000), "<a>" .. ("<b/>"):rep(200000) .. "</a>" } do
    local list, why = formats.read(text)
    assert(not list and #why < 200, "an answer for " .. text:sub(1, 20))
  end
  assert(os.clock() - t0 < 10, "it took " .. os.clock() - t0 .. " s")
end)

-- --------------------------------------------------------------------------------------------- the whole job

for i = 2, #arg do
  test("batch " .. arg[i]:match "[^/]+$", function()
    fresh(arg[i] .. "/batch", arg[i] .. "/ledger.csv")
    local run = harness.run(model, scratch .. "/session")
    assert(run.text:find "reconciled:", run.text)
    assert(run.longest < 100000, "a result of " .. run.longest .. " characters")
    assert(run.most <= 12, run.most .. " calls in one reply")
    harness.sh(("rm -rf '%s/out-%s' && cp -r '%s/session/outputs' '%s/out-%s'"):format(arg[i], vm, scratch, arg[i], vm))
  end)
end

local right -- the shipped batch's table, for the tests below

test("shipped batch", function()
  fresh(BATCH)
  local run = harness.run(model, scratch .. "/session")
  right = output "reconciliation.csv"
  assert(run.text:find "31 invoices reconciled: 16 matched", run.text)
  local again = harness.run(model, scratch .. "/session", { messages = run.messages, ask = "Once more, please." })
  assert(again.rounds == run.rounds and again.text == run.text, "asked a second time it does not do it all again")
end)

test("every call fails once", function()
  fresh(BATCH)
  local seen = {}
  harness.run(model, scratch .. "/session", { fail = function(name, input)
    local key = name .. tostring(input.command or input.po_number or input.file_path)
    if not seen[key] then
      seen[key] = true
      return "Tool execution was interrupted before completion. Please retry."
    end
  end })
  equal(output "reconciliation.csv", right, "the table")
end)

test("no sandbox", function()
  fresh(BATCH)
  local run = harness.run(model, scratch .. "/session", { fail = function(name)
    if name == "bash" then return "bash: no sandbox here" end
  end })
  assert(run.text:find "no sandbox here", run.text)
  equal(output "reconciliation.csv", nil, "the table")
end)

test("no ledger", function()
  fresh(BATCH, scratch .. "/nothing.csv")
  local run = harness.run(model, scratch .. "/session")
  assert(run.text:find "^The ledger cannot be asked", run.text)
  equal(output "reconciliation.csv", nil, "the table")
end)

test("outputs cannot be written", function()
  fresh(BATCH)
  local run = harness.run(model, scratch .. "/session", { fail = function(name)
    if name == "write" then return "write: no space left on device" end
  end })
  assert(run.text:find "no space left", run.text)
end)

test("a cut result is noticed", function()
  fresh(BATCH)
  local cut
  harness.run(model, scratch .. "/session", { change = function(name, text)
    if name ~= "bash" or cut or not text:find "^== text" then return text end
    cut = true
    return "[output truncated]\n" .. text:sub(-5000)
  end })
  assert(cut and output "summary.md":find("its content did not come back whole", 1, true), "nothing says so")
  assert(not output "reconciliation.csv":find "\n[^\n]", "rows were made up")
end)

test("nothing uploaded", function()
  fresh(nil)
  local run = harness.run(model, scratch .. "/session")
  assert(run.text:find "no files", run.text)
end)

test("tools are missing", function()
  local run = harness.run(model, scratch .. "/session", { tools = { "bash", "write" } })
  assert(run.text:find "no tool ledger_lookup", run.text)
end)

test("files not uploaded are named", function()
  fresh(BATCH)
  harness.run(model, scratch .. "/session", { ask = "Reconcile.\nNot uploaded: locked: old.xml: Permission denied" })
  assert(output "summary.md":find("\n- locked: old.xml: Permission denied", 1, true), output "summary.md")
end)

test("large files come in pieces", function()
  fresh(nil)
  harness.sh(("mkdir '%s/session/uploads/invoices'"):format(scratch))
  local filler = ("Ünïcödé, ein langer Vertrag über 東京 und anderes.\n"):rep(8000)
  local text = "Invoice number: 9\nVendor: Solstad Marin AS\nPurchase order: PO-7008\n" .. filler
    .. "Currency: NOK\nTotal due: 13 485,00\n"
  harness.write_file(scratch .. "/session/uploads/invoices/long.txt", text)
  harness.write_file(scratch .. "/session/uploads/invoices/too long.txt", text:rep(8))
  local run = harness.run(model, scratch .. "/session")
  assert(run.longest < 100000, "a result of " .. run.longest .. " characters")
  local row = output "reconciliation.csv":match "\n(.*)\n"
  equal(row, "9,Solstad Marin AS,PO-7008,NOK,13485.00,13485.00,0.00,matched,", "the row")
  assert(output "summary.md":find("invoices/too long.txt: it is larger than 2 MiB", 1, true), output "summary.md")
end)

os.exit(failed and 1 or 0)
