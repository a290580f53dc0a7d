-- Reconciles a folder of vendor invoices with a ledger.
--
--   moonrig run examples/invoices/reconcile.lua [--invoices DIR] [--ledger FILE.csv] [--out DIR]
--
-- The agent works with its built-in tools in a sandbox; the ledger is a tool of ours, so the ledger itself
-- never enters the sandbox. With an upstream key a Claude model does the work, without one the rules of
-- offline_model.lua.
local rig = require "moonrig"
local csv = require "csv"
local ledger_lookup = require "tools.ledger_lookup"

local MODEL = "claude-opus-4-7"
local online = rig.env.MOONRIG_ANTHROPIC_API_KEY or rig.env.ANTHROPIC_API_KEY
if not online then
  rig.provider { name = "offline", models = MODEL, run = require "offline_model" }
end

rig.agent {
  name = "invoice-reconciler", model = MODEL, system = rig.file "instructions.md",
  tools = { rig.toolset(), ledger_lookup },
}

-- ------------------------------------------------------------------------------------------- arguments

local function options(args)
  local here = args[0]:match "^(.*)/[^/]*$" or "."
  local o = { invoices = here .. "/batch", ledger = here .. "/ledger.csv", out = "./reconciled" }
  local i = 1
  while i <= #args do
    local name = args[i]:match "^%-%-(%a+)$"
    if not o[name or ""] or not args[i + 1] then
      return nil, ("usage: reconcile.lua [--invoices DIR] [--ledger FILE.csv] [--out DIR] (not %s)"):format(args[i])
    end
    o[name], i = args[i + 1], i + 2
  end
  if o.ledger:sub(1, 1) ~= "/" then o.ledger = rig.env.PWD .. "/" .. o.ledger end
  return o
end

-- ---------------------------------------------------------------------------------------------- display

local function short(s)
  s = s:gsub("%s+", " ")
  return #s > 100 and s:sub(1, 97) .. "..." or s
end

local function text_of(content)
  local parts = {}
  for _, b in ipairs(content or {}) do parts[#parts + 1] = b.text or ("[" .. b.type .. "]") end
  return table.concat(parts)
end

local written = {} -- of each message: how many bytes came as previews

local show = {
  ["event_delta"] = function(ev)
    local text = ev.delta.content and ev.delta.content.text or ""
    written[ev.event_id] = (written[ev.event_id] or 0) + #text
    io.write(text)
    io.flush()
  end,
  ["agent.message"] = function(ev) print((text_of(ev.content):sub((written[ev.id] or 0) + 1))) end,
  ["agent.tool_use"] = function(ev)
    print(("  %s %s"):format(ev.name, short(ev.input.command or ev.input.file_path or rig.json.encode(ev.input))))
  end,
  ["agent.custom_tool_use"] = function(ev) print(("  %s %s"):format(ev.name, rig.json.encode(ev.input))) end,
  ["agent.tool_result"] = function(ev)
    print(("    %s %s"):format(ev.is_error and "failed:" or "->", short(text_of(ev.content))))
  end,
  ["user.custom_tool_result"] = function(ev) print("    -> " .. short(text_of(ev.content))) end,
  ["session.error"] = function(ev) print("  error: " .. ev.error.message) end,
}

-- ----------------------------------------------------------------------------------------------- the job

local function upload(dir)
  local list, resources = assert(rig.fs.list(dir)), {}
  for _, f in ipairs(list) do
    if f.type == "file" and f.name:sub(1, 1) ~= "." then
      local file = assert(rig.files.upload { path = dir .. "/" .. f.name, filename = (f.name:gsub('[<>:"|?*\\]', "_")) })
      resources[#resources + 1] = { type = "file", file_id = file.id, mount_path = "/invoices/" .. file.filename }
    end
  end
  return resources
end

local function download(session, dir)
  assert(rig.fs.mkdir(dir))
  local got = {}
  for file in rig.files.each { scope_id = session.id } do
    if file.downloadable then
      local path = dir .. "/" .. file.filename
      assert(rig.files.download(file.id, { to = path }))
      got[file.filename] = path
    end
  end
  return got
end

rig.main(function(args)
  local o = assert(options(args))
  if not online then
    print "No upstream key is set: the rules of offline_model.lua play the model."
  end
  local files = upload(o.invoices)
  if #files == 0 then return nil, "no files in " .. o.invoices end
  print(("%d files from %s"):format(#files, o.invoices))

  local session = assert(rig.session {
    agent = "invoice-reconciler", title = "Invoices of " .. o.invoices, resources = files,
    metadata = { ledger = o.ledger },
  })
  local turn = assert(session:ask("Reconcile the invoices under /mnt/session/uploads with the ledger.", {
    deltas = true,
    on_event = function(ev) if show[ev.type] then show[ev.type](ev) end end,
  }))
  if turn.stop_reason ~= "end_turn" then return nil, "the agent stopped: " .. turn.stop_reason end

  local got = download(session, o.out)
  if not got["reconciliation.csv"] then return nil, "the agent wrote no reconciliation.csv" end
  session:archive() -- ends its sandbox; what was said and done stays readable
  local counts, order = {}, {}
  for _, row in ipairs(csv.records(assert(rig.fs.read(got["reconciliation.csv"])))) do
    if not counts[row.verdict] then order[#order + 1] = row.verdict end
    counts[row.verdict] = (counts[row.verdict] or 0) + 1
  end
  table.sort(order)
  print()
  for _, verdict in ipairs(order) do print(("%5d  %s"):format(counts[verdict], verdict)) end
  print(("\n%d tokens in, %d out"):format(turn.usage.input_tokens, turn.usage.output_tokens))
  for _, name in ipairs { "reconciliation.csv", "summary.md" } do
    if got[name] then print(got[name]) end
  end
end)
