-- Reconciles a folder of vendor invoices with a ledger.
--
--   moonrig run examples/invoices/reconcile.lua [--invoices DIR] [--ledger FILE.csv] [--out DIR]
--       [--model NAME]   another model than claude-opus-4-7
--       [--keep]         leave the session open afterwards, its sandbox too
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
  rig.provider { name = "offline-rules", models = MODEL, run = require "offline_model" }
end

local agent = rig.agent {
  name = "invoice-reconciler", model = MODEL, system = rig.file "instructions.md",
  tools = { rig.toolset(), ledger_lookup },
}

-- ------------------------------------------------------------------------------------------- arguments

local function options(args)
  local here = args[0]:match "^(.*)/[^/]*$" or "."
  local o = { invoices = here .. "/batch", ledger = here .. "/ledger.csv", out = "./reconciled", model = MODEL }
  local i = 1
  while i <= #args do
    local name, value = args[i]:match "^%-%-(%a+)$", args[i + 1]
    if name == "keep" then
      o.keep, i = true, i + 1
    elseif name and o[name] and value then
      o[name], i = value:gsub("(.)/+$", "%1"), i + 2
    else
      return nil, ("usage: reconcile.lua [--invoices DIR] [--ledger FILE.csv] [--out DIR] [--model NAME] [--keep]: %s")
        :format(o[name or ""] and args[i] .. " needs a value" or "what is " .. args[i] .. "?")
    end
  end
  if o.ledger:sub(1, 1) ~= "/" then o.ledger = rig.env.PWD .. "/" .. o.ledger end
  return o
end

-- ---------------------------------------------------------------------------------------------- display

local function short(s)
  s = s:gsub("%s+", " ")
  return #s > 100 and s:sub(1, 97):gsub("[\192-\255][\128-\191]*$", "") .. "..." or s
end

local function text_of(content)
  local parts = {}
  for _, b in ipairs(content or {}) do parts[#parts + 1] = b.text or ("[" .. b.type .. "]") end
  return table.concat(parts)
end

local streamed, order = {}, {} -- of a message: bytes that came as previews; of a look-up: its order

local function on_use(ev)
  local i = ev.input
  order[ev.id] = i.po_number
  print(("  %s %s"):format(ev.name, short(i.command or i.po_number or i.file_path or rig.json.encode(i))))
end

local function on_result(ev)
  local of = order[ev.custom_tool_use_id] -- results come later, several at once
  print(("    %s %s"):format(ev.is_error and "failed:" or "->", short((of and of .. " " or "") .. text_of(ev.content))))
end

local show = {
  ["event_delta"] = function(ev)
    local text = ev.delta.content and ev.delta.content.text or ""
    streamed[ev.event_id] = (streamed[ev.event_id] or 0) + #text
    io.write(text)
    io.flush()
  end,
  ["agent.message"] = function(ev) print((text_of(ev.content):sub((streamed[ev.id] or 0) + 1))) end,
  ["agent.tool_use"] = on_use, ["agent.custom_tool_use"] = on_use,
  ["agent.tool_result"] = on_result, ["user.custom_tool_result"] = on_result,
  ["session.error"] = function(ev) print("  error: " .. ev.error.message) end,
}

-- ----------------------------------------------------------------------------------------------- the job

---Uploads the files of a folder and of those in it; not the ledger, should it lie among them. A file that
---cannot be had goes to `lost` with the reason.
local function upload(dir, ledger, resources, lost, below)
  for _, f in ipairs(assert(rig.fs.list(dir))) do
    local path, name, file = dir .. "/" .. f.name, below .. f.name:gsub("%c", "_"), nil
    local info, err = rig.fs.stat(path)
    if f.name:sub(1, 1) == "." then
      err = nil
    elseif info and info.type == "directory" then
      upload(path, ledger, resources, lost, name .. "/")
    elseif info and not (info.size == #ledger and rig.fs.read(path) == ledger) then
      file, err = rig.files.upload { path = path, filename = (f.name:gsub('[%c<>:"|?*\\]', "_")) }
    end
    if file then table.insert(resources, { type = "file", file_id = file.id, mount_path = "/invoices/" .. name }) end
    if err then table.insert(lost, ("Not uploaded: %s: %s"):format(name, err.message)) end
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

local function print_totals(path)
  local counts, order = {}, {}
  for _, row in ipairs(csv.records(assert(rig.fs.read(path)))) do
    if not counts[row.verdict] then order[#order + 1] = row.verdict end
    counts[row.verdict] = (counts[row.verdict] or 0) + 1
  end
  table.sort(order)
  print()
  for _, verdict in ipairs(order) do print(("%5d  %s"):format(counts[verdict], verdict)) end
end

rig.main(function(args)
  local o = assert(options(args))
  local ledger = assert(rig.fs.read(o.ledger))
  if not online and o.model == MODEL then
    print "No upstream key is set: the rules of offline_model.lua play the model."
  end
  local task = { "Reconcile the invoices under /mnt/session/uploads with the ledger." }
  local files = upload(o.invoices, ledger, {}, task, "")
  if #files == 0 then return nil, "no files in " .. o.invoices end
  print(("%d files from %s"):format(#files, o.invoices))

  local session = assert(rig.session {
    agent = o.model == MODEL and agent
      or { type = "agent_with_overrides", id = assert(rig.agent(agent.name)).id, model = o.model },
    title = "Invoices of " .. o.invoices, resources = files, metadata = { ledger = o.ledger },
  })
  local turn = assert(session:ask(table.concat(task, "\n"), {
    deltas = true,
    on_event = function(ev) if show[ev.type] then show[ev.type](ev) end end,
  }))
  local got = download(session, o.out)
  if o.keep then
    print("\nsession " .. session.id .. " stays open")
  else
    session:archive() -- ends its sandbox; what was said and done stays readable
  end
  if turn.stop_reason ~= "end_turn" then return nil, "the agent stopped: " .. turn.stop_reason end
  if not got["reconciliation.csv"] then return nil, "the agent wrote no reconciliation.csv" end

  print_totals(got["reconciliation.csv"])
  print(("\n%d tokens in, %d out"):format(turn.usage.input_tokens, turn.usage.output_tokens))
  for _, name in ipairs { "reconciliation.csv", "summary.md" } do
    if got[name] then print(got[name]) end
  end
end)
