-- rig.connect against the real runtime's own listener: the same script through both, tools answered over the stream,
-- pages, files, streams, errors, times.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local tmp = os.getenv "TMP"

local pay = rig.tool { name = "pay", description = "Pays", run = function(input) return "paid " .. input.amount end,
  input_schema = { type = "object", properties = { amount = { type = "number" } } } }
rig.agent { name = "payer", model = "test-1", system = "Pay.", tools = { pay } }
local plain = rig.agent { name = "plain", model = "test-1" }
rig.hook { phase = "permit", agent = "payer", tool = "pay", fail = "closed", run = function(call)
  if call.input.amount <= 100 then return "allow" end
  return "ask", "above 100"
end }

-- "Pay invoice N" pays that much; "use NAME JSON ..." calls tools; after results it says what it read.
rig.provider { name = "test", models = "test-*", run = function(request, ctx)
  local last = request.messages[#request.messages]
  local content = type(last.content) == "string" and { { type = "text", text = last.content } } or last.content
  local results = {}
  for _, b in ipairs(content) do
    if b.type == "tool_result" then
      local text = type(b.content) == "string" and b.content or (b.content or {})[1] and b.content[1].text or ""
      results[#results + 1] = (b.is_error and "error: " or "") .. text
    end
  end
  if #results > 0 then return table.concat(results, " | ") end
  local text = content[#content].text
  local amount = text:match "^Pay invoice (%d+)"
  if amount then return { { type = "tool_use", name = "pay", input = { amount = tonumber(amount) } } } end
  local uses = {}
  for name, input in text:gmatch "use (%S+) (%b{})" do
    uses[#uses + 1] = { type = "tool_use", name = name, input = assert(rig.json.decode(input)) }
  end
  if #uses > 0 then return uses end
  if text == "stream" then
    for i = 1, 5 do
      ctx:text("part" .. i .. " ")
      rig.sleep(0.03)
    end
    return "part1 part2 part3 part4 part5 "
  end
  if text == "think for ever" then rig.sleep(1000) end
  return "you said: " .. text
end }

local url, key, c
t.loose = true
local function connect()
  if c then return end
  url = host.listen()
  key = assert(rig.keys.create { name = "test" }).key
  c = rig.connect { base_url = url .. "/", api_key = key }
end

-- The reference script, with the terminal as a parameter.
local function approval(rig, args, read, write)
  local s = assert(rig.session { agent = "payer", environment = "default" })
  local turn = assert(s:ask("Pay invoice " .. args[1]))
  while turn.stop_reason == "requires_action" do
    for _, call in ipairs(turn.pending) do
      t.equal(call.kind, "confirm")
      write(call.name, " ", rig.json.encode(call.input), " ? [y/n] ")
      if read() == "y" then assert(call:allow()) else assert(call:deny "not by me") end
    end
    turn = assert(turn:wait())
  end
  return turn.text, turn.usage.output_tokens > 0, #turn.events
end

t.test("the approval script runs the same here and there", function()
  connect()
  for _, case in ipairs { { "900", "y" }, { "900", "n" }, { "50" } } do
    local asked, results = {}, {}
    for i, side in ipairs { rig, c } do
      asked[i] = {}
      results[i] = { approval(side, { case[1] }, function() return case[2] end, function(...)
        table.insert(asked[i], table.concat { ... })
      end) }
    end
    t.equal(table.concat(asked[1], "\n"), table.concat(asked[2], "\n"))
    t.equal(#asked[2], case[2] and 1 or 0)
    t.equal(rig.json.encode(results[1]), rig.json.encode(results[2]))
    if case[2] ~= "n" then t.equal(results[2][1], "paid " .. case[1]) else t.match(results[2][1], "not by me") end
  end
end)

local asked = {}
local function tools()
  local book = c.tool { name = "book", description = "Books", timeout = 0.5,
    run = function(input, ctx)
      asked[#asked + 1] = { n = input.n, session = ctx.session.id, id = ctx.tool_use_id, attempt = ctx.attempt }
      if input.n == 1 then return { booked = input.n } end
      if input.n == 2 then return nil, "no seat" end
      if input.n == 3 then error "broken" end
      if input.n == 4 then rig.sleep(60) end
      if input.n == 5 then return end
      if input.n == 16 then return { what = print } end
      if input.n == 17 then ctx.progress("half", true) return ctx:idempotency_key "k" end
      rig.sleep(0.02)
      return "seat " .. input.n
    end }
  return c.agent { name = "booker", model = "test-1",
    tools = { book, { type = "custom", name = "other", description = "x", input_schema = { type = "object" } } } }
end

t.test("tools of a client are answered over the stream", function()
  connect()
  local agent = tools()
  t.match(agent.id, "^agent_")
  t.equal(c.tool "book".name, "book")
  t.match(select(2, c.tool "nothing").message, "no tool")
  local s = assert(c.session { agent = agent })
  asked = {}
  t.equal(assert(s:ask 'use book {"n":1}').text, '{"booked":1}')
  t.equal(asked[1].session, s.id)
  t.match(asked[1].id, "^sevt_")
  t.equal(assert(s:ask 'use book {"n":2}').text, "error: no seat")
  t.match(assert(s:ask 'use book {"n":3}').text, "^error: [^\n]*: broken$")
  t.match(assert(s:ask 'use book {"n":16}').text, "^error: .*cannot encode a function in field what")
  t.match(assert(s:ask 'use book {"n":17}').text, "^" .. s.id .. "/sevt_%w+/k$")
  t.match(host.logs(), "broken")
  t.match(assert(s:ask 'use book {"n":4}').text, "^error: .*no answer within 0.5 seconds")
  t.equal(assert(s:ask 'use book {"n":5}').text, "")
  t.equal(assert(s:ask 'use book {"n":6} use book {"n":7} use book {"n":8}').text, "seat 6 | seat 7 | seat 8")
  t.equal(#asked, 10)
end)
t.test("what has no handler stays pending beside what has one", function()
  connect()
  local s = assert(c.session { agent = tools() })
  local turn = assert(s:ask 'use book {"n":9} use other {}')
  t.equal(turn.stop_reason, "requires_action")
  t.equal(#turn.pending, 1)
  t.equal(turn.pending[1].name, "other")
  assert(turn.pending[1]:answer "by hand")
  t.equal(assert(turn:wait()).text, "seat 9 | by hand")
end)
t.test("follow answers too, also what waited before", function()
  connect()
  local agent = tools()
  local id = assert(rig.session { agent = agent.id }).id
  local s = assert(rig.session(id))
  local turn = assert(s:ask 'use book {"n":10}') -- nobody here answers
  t.equal(turn.stop_reason, "requires_action")
  asked = {}
  local texts, idle = {}, 0
  for ev in assert(c.session(id)):follow { timeout = 20 } do
    if ev.type == "agent.message" then texts[#texts + 1] = ev.content[1].text end
    if ev.type == "session.status_idle" and ev.stop_reason.type == "end_turn" then
      idle = idle + 1
      if idle == 2 then break end
      assert(s:send 'use book {"n":11}')
    end
  end
  t.equal(table.concat(texts, "|"), "seat 10|seat 11")
  t.equal(#asked, 2)
  turn.feed:close()
end)
t.test("an interrupt ends the turn and the handler", function()
  connect()
  local over
  c.tool { name = "hang", description = "Hangs", run = function() rig.sleep(100) end }
  local agent = c.agent { name = "hanger", model = "test-1", tools = { c.tool "hang" } }
  local s = assert(c.session { agent = agent })
  local task = rig.spawn(function() over = assert(s:ask "use hang {}") end)
  for ev in assert(rig.session(s.id)):follow() do -- not the client's: the turn's own reader answers
    if ev.type == "session.status_idle" then break end
  end
  assert(s:interrupt())
  task:wait()
  t.equal(over.stop_reason, "end_turn")
end)
t.test("operations, pages, handles", function()
  connect()
  t.equal(assert(c.agents.retrieve(assert(c.agent "payer"))).name, "payer")
  t.equal(assert(c.agent(assert(c.agent "payer").id)).name, "payer")
  local one = assert(c.sessions.create { agent = assert(c.agent "plain").id, environment_id = c.environment("default").id })
  t.equal(one.title, nil, "null reads as nil")
  t.equal(assert(c.session { agent = plain }).agent.name, "plain") -- a handle of here is found there by its name
  local ids, n = {}, 0
  for s in c.sessions.each { limit = 1, statuses = { "idle", "running" } } do ids[s.id], n = true, n + 1 end
  t.ok(n >= 2 and ids[one.id], "pages")
  local page = assert(c.sessions.list { limit = 1, created_at = { gte = one.created_at } })
  t.equal(#page.data, 1)
  local a = assert(c.agents.create { name = "t ü", model = "test-1", tools = {}, metadata = { k = "v" } })
  a = assert(c.agents.update(a, { version = a.version, description = "d", metadata = { k = rig.null } }))
  t.equal(a.description, "d")
  t.equal(a.metadata.k, nil)
  local e1 = assert(c.environment { name = "made", config = { type = "cloud" } })
  t.equal(assert(c.environment { name = "made", config = { type = "cloud" } }).id, e1.id)
  assert(c.environments.delete(e1))
  local s = assert(c.session(one.id))
  assert(s:refresh())
  assert(s:archive())
end)
t.test("streams and previews", function()
  connect()
  local s = assert(c.session { agent = "plain" })
  local deltas, seen = {}, {}
  local turn = assert(s:ask("stream", { deltas = true, timeout = 30, on_event = function(ev)
    seen[#seen + 1] = ev.type
    if ev.type == "event_delta" then deltas[#deltas + 1] = ev.delta.content.text end
  end }))
  t.equal(turn.text, "part1 part2 part3 part4 part5 ")
  t.equal(("part1 part2 part3 part4 part5 "):sub(1, #table.concat(deltas)), table.concat(deltas))
  t.ok(#deltas > 0)
  local list = {}
  for ev in c.sessions.events.each(s.id, { limit = 2 }) do list[#list + 1] = ev.type end
  t.ok(#list > 3)
  local stream = assert(c.sessions.events.stream(s.id))
  assert(s:send "again")
  for ev in stream do
    if ev.type == "agent.message" then
      t.equal(ev.content[1].text, "you said: again")
      break
    end
  end
  stream:close()
  t.equal(stream(), nil)
end)
t.test("files go up and come down", function()
  connect()
  local bytes = ("line ü\r\n--moonrig\0"):rep(20000)
  t.write(tmp .. "/in.csv", bytes)
  local f = assert(c.files.upload(tmp .. "/in.csv"))
  t.equal(f.filename, "in.csv")
  local here = assert(rig.files.retrieve_metadata(f.id))
  t.equal(here.size_bytes, #bytes)
  local out, e = c.files.download(f.id)
  local mine = rig.files.download(f.id)
  t.equal(out, mine)
  if not out then
    t.equal(e.status, 400) -- uploads may be kept back, as the hosted service does
  else
    t.equal(out, bytes)
    t.equal(assert(c.files.download(f.id, { to = tmp .. "/out.csv" })).size, #bytes)
    t.equal(assert(rig.fs.read(tmp .. "/out.csv")), bytes)
  end
  assert(c.files.delete(f.id))
  out, e = c.files.download(f.id, { to = tmp .. "/none.csv" })
  t.equal(out, nil)
  t.equal(e.status, 404)
  t.equal(rig.fs.stat(tmp .. "/none.csv"), nil)
  out, e = c.files.upload(tmp .. "/nowhere")
  t.equal(e.type, "not_found_error")
end)
t.test("errors read as they do here", function()
  connect()
  for _, call in ipairs {
    function(side) return side.agents.create { name = "x", model = "m", tools = { { type = "nonsense" } } } end,
    function(side) return side.agents.retrieve "agent_nowhere" end,
    function(side) return side.vaults.list() end,
    function(side) return side.sessions.create { agent = "agent_nowhere" } end,
    function(side) return side.session "sesn_nowhere" end,
    function(side) return side.session { agent = "nobody" } end,
  } do
    local a, ea = call(rig)
    local b, eb = call(c)
    t.equal(a, nil)
    t.equal(b, nil)
    for _, k in ipairs { "type", "message", "status", "field" } do t.equal(eb[k], ea[k], k) end
    t.equal(tostring(eb), tostring(ea))
    if eb.status then t.match(eb.request_id, "^req_") end
  end
  local v, e = rig.connect { base_url = url, api_key = "sk-mr-wrong" }.agents.list()
  t.equal(e.type, "authentication_error")
  t.equal(e.status, 401)
  v, e = rig.connect { base_url = "http://127.0.0.1:1", timeout = 2 }.agents.create { name = "x", model = "m" }
  t.equal(v, nil)
  t.equal(e.type, "io_error")
end)
t.test("what a client cannot do says so", function()
  connect()
  for _, name in ipairs { "main", "hook", "on", "provider", "route", "schedule", "workflow", "kv", "check", "state", "defaults", "generations", "connect", "new" } do
    t.raises("client." .. name .. " is not there", function() return c[name] end)
  end
  for name in pairs(rig) do -- all of rig is there, or its absence says why
    local ok, v = pcall(function() return c[name] end)
    t.ok(ok and v ~= nil or not ok and v:find("client." .. name .. " is not there", 1, true), name)
  end
  t.equal(c.no_such_thing, nil)
  t.raises("scripts add nothing", function() c.mine = 1 end)
  t.equal(c.json.encode { 1 }, "[1]")
  t.equal(c.null, rig.null)
  c.json.mine = 1
  t.equal(rig.json.mine, nil)
  t.raises("base_url", rig.connect, { base_url = "ftp://x" })
  t.raises("unknown option url", rig.connect, { url = url })
  t.raises("base_url is missing", rig.connect, {})
  t.raises("blank or a line break", rig.connect, { base_url = url, api_key = "a\nb" })
  t.raises("unknown option agent", c.tool, { name = "x", description = "x", run = print, agent = "y" })
end)
t.test("times: ask, wait, follow", function()
  connect()
  for _, side in ipairs { rig, c } do
    local s = assert(side.session { agent = "plain" })
    local r, e = s:ask("think for ever", { timeout = 0.3 })
    t.equal(r, nil)
    t.equal(e.type, "timeout_error")
    assert(s:interrupt { timeout = 5 })
    for ev in s:follow() do
      if ev.type == "session.status_idle" then break end
    end
    s = assert(side.session { agent = "payer" })
    local turn = assert(s:ask("Pay invoice 900", { timeout = 30 }))
    t.equal(turn.stop_reason, "requires_action")
    local follow = s:follow { live = true, timeout = 0.2 }
    t.equal(t.raises("nothing came in time", follow).type, "timeout_error")
    assert(turn.pending[1]:allow())
    for ev in follow do
      if ev.type == "user.tool_confirmation" then break end
    end
    follow:close()
    turn = assert(turn:wait { timeout = 30 })
    t.equal(turn.text, "paid 900")
    t.raises("more than 0", s.ask, s, "x", { timeout = 0 })
  end
end)
t.test("a wait that was late goes on after", function()
  connect()
  for _, side in ipairs { rig, c } do
    local s = assert(side.session { agent = "plain" })
    local turn = assert(s:ask "hello")
    t.equal(turn.text, "you said: hello")
    local agent = side == c and "booker" or "hanger"
    s = assert(rig.session { agent = agent })
    turn = assert(s:ask('use ' .. (side == c and "book" or "hang") .. ' {"n":20}'))
    t.equal(turn.stop_reason, "requires_action")
    local other = assert(rig.session(s.id))
    local call = turn.pending[1]
    turn.answered[call.id] = true -- as if it were answered elsewhere soon
    local r, e = turn:wait { timeout = 0.2 }
    t.equal(r, nil)
    t.equal(e.type, "timeout_error")
    assert(rig.sessions.events.send(other.id, { events = { { type = "user.custom_tool_result",
      custom_tool_use_id = call.id, content = { { type = "text", text = "late" } } } } }))
    t.equal(assert(turn:wait()).text, "late")
  end
end)
t.test("a unix socket", function()
  connect()
  local address = host.listen("unix:" .. tmp .. "/s.sock")
  local u = rig.connect { base_url = address, api_key = key }
  t.equal(assert(u.agent "payer").name, "payer")
  local s = assert(u.session { agent = "plain" })
  t.equal(assert(s:ask "hi").text, "you said: hi")
  local r = assert(rig.http.get("http://localhost/health", { unix = tmp .. "/s.sock", expect = 200 }))
  t.equal(r:json().status, "ok")
end)
t.test("rig.new: another runtime beside this one", function()
  t.write(tmp .. "/model.jsonl", '{"match":"book","reply":{"content":[{"type":"tool_use","name":"book","input":{"n":12}}]}}\n'
    .. '{"reply":{"content":[{"type":"text","text":"I read {{last_tool_result}}"}]}}\n')
  local options = { models = { scripted = { file = tmp .. "/model.jsonl" }, route = { ["played*"] = "scripted" } },
    sandbox = { enabled = false } }
  local second = assert(rig.new { store = tmp .. "/second", options = options })
  local book = second.tool { name = "book", description = "Books", run = function(input) return "seat " .. input.n end }
  local agent = assert(second.agent { name = "far", model = "played-1", tools = { book } })
  assert(second.environment { name = "default", config = { type = "cloud" } })
  local s = assert(second.session { agent = agent })
  t.equal(assert(s:ask("book it", { timeout = 60 })).text, "I read seat 12")
  t.equal(rig.agent "far", nil, "nothing of it is here")
  local busy, e = rig.new { store = tmp .. "/second" }
  t.equal(busy, nil)
  t.match(e.message, "%S")
  local bad, why = rig.new { options = { nonsense = 1 } }
  t.equal(bad, nil)
  t.equal(why.field, "nonsense")
  assert(second.close())
  local none, gone = second.agents.list({}, { timeout = 1 })
  t.equal(none, nil)
  t.ok(gone.type == "io_error" or gone.type == "timeout_error", gone.type)
  second = assert(rig.new { store = tmp .. "/second", options = options }) -- it kept what it had
  t.equal(assert(second.agent "far").id, agent.id)
  second, s = nil, nil
end)
local function manual(with)
  for block in assert(rig.fs.read "lua/README.md"):gmatch "```lua\n(.-)\n```" do
    if block:find(with, 1, true) then return block end
  end
end
t.test("the manual's new runtime", function()
  local main, printed = nil, {}
  local front = setmetatable({ main = function(fn) main = fn end }, { __index = rig })
  local env = setmetatable({ require = function() return front end, print = function(...) printed = { ... } end },
    { __index = _G })
  assert(load(assert(manual "rig.new"), "=README", "t", env))()
  main()
  t.match(printed[1], "^agent_")
  t.equal(printed[2], nil)
end)
t.test("the manual's client", function()
  connect()
  local text = assert(manual "rig.connect")
  local main, printed = nil, {}
  local front = setmetatable({ main = function(fn) main = fn end, env = { MOONRIG_URL = url, MOONRIG_API_KEY = key } },
    { __index = rig })
  local env = setmetatable({ require = function() return front end,
    print = function(...) printed[#printed + 1] = table.concat({ ... }, " ") end }, { __index = _G })
  text = text:gsub("claude%-opus%-4%-7", "test-1"):gsub("What time is it%?", "use clock {}")
  assert(load(text, "=README", "t", env))()
  main {}
  t.match(printed[1], "^20%d%d%-%d%d%-%d%dT")
  t.match(printed[2], "^sesn_%S+ %a+$")
end)
t.test("a session is carried from one runtime to another, and back", function()
  connect()
  local here = assert(rig.session { agent = "plain", title = "a talk" })
  assert(here:ask "one")
  local far = assert(c.import { bytes = assert(here:export()) })
  t.equal(far.metadata["moonrig.imported_from"], here.id)
  local turn = assert(far:ask "two")
  t.equal(turn.text, "you said: two")
  local f = assert(far:fork(turn.events[1]))
  t.equal(f.title, "fork of a talk")
  assert(f:export { to = tmp .. "/far.jsonl" })
  local back = assert(rig.import(tmp .. "/far.jsonl"))
  t.equal(#assert(back:transcript()).events, #assert(f:transcript()).events)
  local other = assert(rig.new {})
  local copy = assert(other.import { bytes = assert(far:export()) })
  t.equal(#assert(copy:transcript()).events, 18)
  t.ok(other.close())
end)
rig.main(t.run)
