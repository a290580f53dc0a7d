-- The plural face: calls, pages, uploads, downloads, streams, errors.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local tmp = os.getenv "TMP"

local got -- parameters of the last call
local function op(name, reply)
  host.op(name, function(p, id)
    got = p
    if type(reply) == "function" then return reply(p, id) end
    return reply
  end)
end

t.test("every operation has its function", function()
  for _, name in ipairs { "agents.versions.list", "environments.delete", "files.retrieve_metadata",
    "sessions.threads.events.stream", "models.list", "vaults.credentials.create", "sessions.resources.add" } do
    local at = rig
    for part in name:gmatch "[^.]+" do at = t.ok(at[part], name) end
    t.equal(type(at), "function")
  end
  t.equal(type(rig.agents.each), "function")
end)
t.test("the types for editors name every operation (else run scripts/dev/gen_meta)", function()
  local f = assert(io.open "lua/moonrig/_meta/operations.lua")
  local text = f:read "*a"
  f:close()
  local meta = assert(load(text))()
  local function at(root, name)
    for part in name:gmatch "[^.]+" do root = root and root[part] end
    return root
  end
  local n = 0
  for line in io.lines "core/ops/ops.def" do
    local name = line:match '^%u+%("([%w_.]+)"'
    if name then
      n = n + 1
      t.equal(type(at(meta, name)), "function", name .. " in the types")
      t.equal(type(at(rig, name)), "function", name .. " of rig")
    end
  end
  t.ok(n > 60)
  for name in text:gmatch "function rig%.([%w_.]+)%(" do t.equal(type(at(rig, name)), "function", name) end
end)
t.test("path parameters, then fields", function()
  op("sessions.update", { id = "sesn_1" })
  assert(rig.sessions.update("sesn_1", { title = "x" }))
  t.equal(rig.json.encode(got), '{"session_id":"sesn_1","title":"x"}')
  assert(rig.sessions.update { session_id = "sesn_2", title = rig.null })
  t.equal(rig.json.encode(got), '{"session_id":"sesn_2","title":null}')
  assert(rig.sessions.update({ id = "sesn_3", type = "session" }, {}))
  t.equal(got.session_id, "sesn_3")
  op("sessions.resources.retrieve", {})
  assert(rig.sessions.resources.retrieve("sesn_1", "sesrsc_1"))
  t.equal(got.resource_id, "sesrsc_1")
  t.raises("session_id is missing", rig.sessions.update, { title = "x" })
  t.raises("a table of fields expected, got boolean", rig.sessions.update, "sesn_1", true)
  t.raises("a table of options expected", rig.sessions.update, "sesn_1", {}, 5)
end)
t.test("empty tables follow what the field is", function()
  op("agents.create", {})
  assert(rig.agents.create { name = "n", model = "m", tools = {}, metadata = {}, skills = {} })
  t.equal(rig.json.encode(got), '{"metadata":{},"model":"m","name":"n","skills":[],"tools":[]}')
end)
t.test("a null member reads as nil", function()
  op("sessions.retrieve", { id = "s", title = rig.null, list = { rig.null, 1 } })
  local s = assert(rig.sessions.retrieve "s")
  t.equal(s.title, nil)
  t.equal(s.list[1], rig.null)
end)
t.test("errors are values with their details", function()
  op("agents.create", function()
    return nil, { status = 429, type = "rate_limit_error", message = "slow down", code = -13 }
  end)
  local r, e = rig.agents.create { name = "n" }
  t.equal(r, nil)
  t.equal(e.status, 429)
  t.equal(e.retryable, true)
  t.equal(tostring(e), "rate_limit_error: slow down")
  local raised = t.raises("slow down", function() assert(rig.agents.create {}) end)
  t.equal(raised.type, "rate_limit_error")
  r, e = rig.agents.create { name = "\255" }
  t.equal(r, nil)
  t.match(e.message, "UTF%-8")
  t.raises("function in field name", rig.agents.create, { name = print })
end)
t.test("pages, items over pages, each", function()
  local function list(p)
    local from = tonumber(p.page or "1")
    local data = rig.array {}
    for i = from, math.min(from + (p.limit or 2) - 1, 5) do data[#data + 1] = { id = "a" .. i } end
    return { data = data, next_page = from + #data <= 5 and tostring(from + #data) or rig.null }
  end
  op("agents.list", list)
  local page = assert(rig.agents.list())
  t.equal(#page.data, 2)
  t.equal(page.next_page, "3")
  local ids = {}
  for a in page:all() do ids[#ids + 1] = a.id end
  t.equal(table.concat(ids), "a1a2a3a4a5")
  local sizes = {}
  for p in rig.agents.list({ limit = 3 }):pages() do sizes[#sizes + 1] = #p.data end
  t.equal(table.concat(sizes, " "), "3 2")
  t.equal(got.limit, 3)
  local n = 0
  for _ in rig.agents.each() do n = n + 1 end
  t.equal(n, 5)
  op("agents.list", function(p)
    if p.page then return nil, { status = 500, message = "broke" } end
    return list(p)
  end)
  t.raises("broke", function() for _ in rig.agents.each() do end end)
  op("agents.list", function() return nil, { status = 401, message = "who?" } end)
  local none, e = rig.agents.list()
  t.equal(none, nil)
  t.equal(e.status, 401)
  t.raises("who?", rig.agents.each)
end)
t.test("a deadline and a cancel reach the call", function()
  local id
  op("agents.retrieve", function(_, call)
    id = call
    return host.LATER
  end)
  local task = rig.spawn(function() return rig.agents.retrieve("agent_1", {}, { timeout = 2 }) end)
  t.wait(function() return id end)
  task:cancel()
  t.equal(host.cancelled_calls(), 1)
  t.raises("", task.wait, task)
end)

-- --------------------------------------------------------------------------------------- uploads, downloads
t.test("uploads: a path, bytes, fields, kinds", function()
  op("files.upload", function(p) return { id = "file_1", type = "file", filename = p._filename } end)
  t.write(tmp .. "/report.PDF", ("x"):rep(1000))
  local f = assert(rig.files.upload(tmp .. "/report.PDF"))
  t.equal(f.filename, "report.PDF")
  t.equal(got._media_type, "application/pdf")
  t.equal(#got._body, 1000)
  t.equal(got._length, 1000)
  assert(rig.files.upload { bytes = "a,b\n", filename = "t.csv" })
  t.equal(got._body, "a,b\n")
  t.equal(got._media_type, "text/csv")
  assert(rig.files.upload({ path = tmp .. "/report.PDF", filename = "x", media_type = "a/b" }, { scope_id = "sesn_1" }))
  t.equal(got._filename .. got._media_type .. got.scope_id, "xa/bsesn_1")
  assert(rig.files.upload { bytes = "" })
  t.equal(got._length, 0)
  local none, e = rig.files.upload(tmp .. "/nowhere")
  t.equal(none, nil)
  t.match(e.message, "nowhere: No such file")
  none, e = rig.files.upload(tmp)
  t.equal(none, nil)
  t.match(e.message, "not a plain file")
  t.raises("path or bytes", rig.files.upload, {})
  t.raises("path or bytes", rig.files.upload, { path = "a", bytes = "b" })
end)
t.test("downloads: bytes, and whole files", function()
  local bytes = ("0123456789\0\255"):rep(500)
  op("files.download", function() return {}, bytes end)
  t.equal(assert(rig.files.download "file_1"), bytes)
  t.equal(got.file_id, "file_1")
  op("files.download", function() return {}, "" end)
  t.equal(assert(rig.files.download "file_1"), "")
  op("files.download", function() return {}, bytes end)
  local r = assert(rig.files.download({ id = "file_1" }, { to = tmp .. "/out.bin" }))
  t.equal(r.path, tmp .. "/out.bin")
  t.equal(r.size, #bytes)
  t.equal(got.to, nil)
  t.equal(assert(rig.fs.read(tmp .. "/out.bin")), bytes)
end)
local function parts()
  local n = 0
  for _, f in ipairs(assert(rig.fs.list(tmp))) do
    if f.name:find ".part-" then n = n + 1 end
  end
  return n
end
t.test("downloads: what fails leaves no file, and the old one as it was", function()
  t.write(tmp .. "/keep.txt", "old")
  op("files.download", function() return nil, { status = 404, message = "gone" } end)
  local none, e = rig.files.download("file_1", { to = tmp .. "/keep.txt" })
  t.equal(none, nil)
  t.equal(e.status, 404)
  t.equal(assert(rig.fs.read(tmp .. "/keep.txt")), "old")
  none, e = rig.files.download("file_1", { to = tmp .. "/no/such/dir" })
  t.equal(none, nil)
  t.match(e.message, "No such file")
  local id
  op("files.download", function(_, call)
    id = call
    return host.LATER
  end)
  local task = rig.spawn(function() return rig.files.download("file_1", { to = tmp .. "/keep.txt" }) end)
  t.wait(function() return id end)
  t.equal(parts(), 1)
  task:cancel()
  t.raises("", task.wait, task)
  rig.sleep(0)
  t.equal(parts(), 0)
  t.equal(assert(rig.fs.read(tmp .. "/keep.txt")), "old")
  t.raises("to is a path", rig.files.download, "file_1", { to = "" })
end)

-- ------------------------------------------------------------------------------------------------ streams
t.test("streams: iterate, close, end, break", function()
  local id
  op("sessions.events.stream", function(_, call)
    id = call
    return host.LATER
  end)
  local events = assert(rig.sessions.events.stream("sesn_1", { event_deltas = {} }))
  t.wait(function() return id end)
  t.equal(rig.json.encode(got), '{"event_deltas":[],"session_id":"sesn_1"}')
  for i = 1, 3 do host.event(id, ('{"type":"x","n":%d}'):format(i)) end
  local sum = 0
  for ev in events do
    sum = sum + ev.n
    if ev.n == 3 then break end
  end
  t.equal(sum, 6)
  host.reply(id)
  t.equal(events(), nil)
  t.equal(events(), nil)
  events = assert(rig.sessions.events.stream "sesn_1")
  local waiter = rig.spawn(function() return events() end)
  rig.sleep(0.01)
  t.raises("another task already waits", events)
  events:close()
  t.equal(waiter:wait(), nil)
  t.equal(events(), nil)
  events = assert(rig.sessions.events.stream "sesn_1")
  rig.sleep(0.01)
  host.fail(id, -17, "reset")
  t.raises("reset", function() for _ in events do end end)
end)
t.test("streams: left alone, they are closed when collected", function()
  op("sessions.events.stream", function() return host.LATER end)
  for _ = 1, 5 do assert(rig.sessions.events.stream "sesn_1") end
  rig.sleep(0)
  t.match(host.open(), "calls=5")
end)
rig.main(t.run)
