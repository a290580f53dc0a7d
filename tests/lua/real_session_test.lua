-- On the real runtime: agents, tools, turns, approvals, files, streams, the HTTP face.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local tmp = os.getenv "TMP"

local calls = {}
local echo = rig.tool { name = "echo", description = "Gives back", idempotent = true,
  input_schema = { type = "object", required = { "n" }, properties = { n = { type = "integer" } } },
  run = function(input, ctx)
    calls[#calls + 1] = { input = input, agent = ctx.agent, thread = ctx.thread, session = ctx.session.id, attempt = ctx.attempt, left = ctx.deadline - rig.now() }
    if input.n == 1 then return { n = input.n, e = rig.array(), big = rig.int "9007199254740993" } end
    if input.n == 2 then return nil, "no such thing" end
    if input.n == 3 then error "broken" end
    if input.n == 4 then rig.sleep(60) end
    if input.n == 5 then while true do end end
    return "n is " .. input.n
  end }
local slow = rig.tool { name = "slow", description = "Is too slow", timeout = 0.3, run = function() rig.sleep(60) end }
local ask = rig.tool { name = "ask_me", description = "Answered by the client", answered_by = "client" }
local pay = rig.tool { name = "pay", description = "Pays", run = function(input) return "paid " .. input.amount end,
  input_schema = { type = "object", properties = { amount = { type = "number" } } } }
local agent = rig.agent { name = "tester", model = "test-1", system = "Test.", tools = { echo, slow, ask, pay } }
local other = rig.agent { name = "other", model = "test-1", tools = { pay } }

rig.hook { phase = "permit", agent = "tester", tool = "pay", fail = "closed", run = function(call)
  if call.input.amount == 666 then error "the hook broke" end
  if call.input.amount > 1000 then return "deny", "too much" end
  if call.input.amount == 500 then return "rewrite", { amount = 50 } end
  if call.input.amount == 400 then return "ask", "above 300" end
  return "allow"
end }

local hooked
rig.hook { phase = "permit", tool = "echo", run = function(call, ctx)
  hooked = { agent = call.agent, thread = ctx.thread }
end }

-- A grader is content with the second look at "tick"; a boss delegates.
local tick, looks = rig.tool { name = "tick", description = "Ticks", run = function() return "tick" end }, 0
rig.agent { name = "graded", model = "graded-1", tools = { tick } }
rig.provider { name = "graded", models = "graded-*", run = function(request)
  if request.tools and request.tools[1].name == "submit_verdict" then
    looks = looks + 1
    local fine = looks > 1
    return { { type = "tool_use", name = "submit_verdict",
      input = { result = fine and "satisfied" or "needs_revision", explanation = "graded " .. looks } } }
  end
  return "done"
end }
rig.agent { name = "boss", model = "boss-1", agents = { "tester" }, advisor = "boss-1" }
rig.provider { name = "boss", models = "boss-*", run = function(request)
  local last = request.messages[#request.messages].content
  local block = type(last) == "table" and last[#last] or { text = last }
  if block.type == "tool_result" then return "waiting" end
  if block.text == "delegate" then
    return { { type = "tool_use", name = "create_agent", input = { agent = "tester", prompt = 'use echo {"n":9}' } } }
  end
  return "heard: " .. tostring(block.text:match "n is %d+")
end }

-- The model: "use NAME JSON" calls a tool; after its result it says what it read.
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
  local name, input = text:match "^use (%S+) (.*)$"
  if name then return { { type = "tool_use", name = name, input = assert(rig.json.decode(input)) } } end
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

local function session(o)
  o = o or {}
  o.agent = o.agent or agent
  return assert(rig.session(o))
end
local function turn(text, s) return assert((s or session()):ask(text)) end

t.test("a turn", function()
  local r = turn "hello"
  t.equal(r.text, "you said: hello")
  t.equal(r.stop_reason, "end_turn")
  t.ok(r.usage.input_tokens > 0)
  t.quiet = nil -- connections to the store are open now
end)
t.test("an input that does not fit its schema meets no hook and no handler", function()
  calls = {}
  local r = turn 'use echo {"n":"one"}'
  t.equal(r.text, "error: echo: the input does not fit its schema: n must be an integer, not a string")
  t.equal(turn('use echo {}').text, "error: echo: the input does not fit its schema: the input needs the field n")
  t.equal(turn('use pay {"amount":"666"}').text, -- the hook would break
    "error: pay: the input does not fit its schema: amount must be a number, not a string")
  t.equal(#calls, 0)
  for _, ev in ipairs(r.events) do
    if ev.type == "agent.custom_tool_use" then t.equal(ev.input.n, "one") end -- what the model wrote is in the log
  end
end)
t.test("a tool: values, errors, raises, limits", function()
  calls = {}
  local s = session()
  t.equal(turn("use echo {\"n\":1}", s).text, '{"big":9007199254740993,"e":[],"n":1}')
  local c = calls[1]
  t.equal(c.agent, "tester")
  t.equal(c.session, s.id)
  t.equal(c.attempt, 1)
  t.ok(c.left > 100 and c.left <= 121, "left " .. c.left)
  t.equal(turn("use echo {\"n\":2}", s).text, "error: no such thing")
  t.match(turn("use echo {\"n\":3}", s).text, "^error: .*real_session_test.lua:%d+: broken")
  t.match(host.logs(), "real_session_test.lua:%d+: broken")
  t.equal(turn("use echo {\"n\":77}", s).text, "n is 77")
  t.match(turn("use echo {\"n\":5}", s).text, "^error: .*time budget spent")
  t.match(turn("use slow {}", s).text, "^error: ")
end)
t.test("an interrupt cancels the handler", function()
  local s = session()
  calls = {}
  local task = rig.spawn(function() return s:ask "use echo {\"n\":4}" end)
  t.wait(function() return calls[1] end)
  assert(s:interrupt())
  local r = assert(task:wait())
  t.equal(r.stop_reason, "end_turn")
end)
t.test("an interrupt cancels the model", function()
  local s = session()
  local task = rig.spawn(function() return s:ask "think for ever" end)
  rig.sleep(0.2)
  assert(s:interrupt())
  t.equal(assert(task:wait()).stop_reason, "end_turn")
end)
t.test("hooks decide, per agent", function()
  t.equal(turn("use pay {\"amount\":5}").text, "paid 5")
  t.match(turn("use pay {\"amount\":2000}").text, "^error: ")
  t.match(turn("use pay {\"amount\":500}").text, "^paid 50$")
  t.match(turn("use pay {\"amount\":666}").text, "^error: ")
  t.equal(turn("use pay {\"amount\":2000}", session { agent = other }).text, "paid 2000")
end)
t.test("a tool that the client answers", function()
  local r = turn "use ask_me {\"q\":1}"
  t.equal(r.stop_reason, "requires_action")
  t.equal(r.pending[1].name, "ask_me")
  assert(r.pending[1]:answer { a = 2 })
  r = assert(r:wait())
  t.equal(r.text, '{"a":2}')
  r = turn "use ask_me {}"
  assert(r.pending[1]:fail "not today")
  t.equal(assert(r:wait()).text, "error: not today")
end)
t.test("follow and previews", function()
  local s = session()
  local got, deltas = {}, {}
  local task = rig.spawn(function()
    for ev in s:follow { deltas = true } do
      got[#got + 1] = ev.type
      if ev.type == "event_delta" then deltas[#deltas + 1] = ev.delta.content.text end
      if ev.type == "session.status_idle" then return end
    end
  end)
  rig.sleep(0.05)
  turn("stream", s)
  task:wait()
  t.match(table.concat(got, " "), "span.model_request_start event_start event_delta .*agent.message span.model_request_end")
  t.equal(("part1 part2 part3 part4 part5 "):sub(1, #table.concat(deltas)), table.concat(deltas))
  local again = {}
  for ev in s:follow() do
    again[#again + 1] = ev.type
    if ev.type == "session.status_idle" then break end
  end
  local stored = {}
  for _, kind in ipairs(got) do
    if not kind:find "^event_" then stored[#stored + 1] = kind end
  end
  t.equal(table.concat(again, " "), table.concat(stored, " "))
  local ids = {}
  for ev in rig.sessions.events.each(s.id, { limit = 2 }) do ids[#ids + 1] = ev.id end
  t.equal(#ids, #again)
end)
t.test("many at once", function()
  local n = 20
  local r = assert(rig.map((function()
    local l = {}
    for i = 1, n do l[i] = i + 100 end
    return l
  end)(), function(i) return turn("use echo {\"n\":" .. i .. "}").text end, { concurrency = 10 }))
  for i = 1, n do t.equal(r[i], "n is " .. i + 100) end
end)
t.test("files: up, list, into a session, down", function()
  local bytes = ("line ü\n"):rep(20000)
  t.write(tmp .. "/in.txt", bytes)
  local f = assert(rig.files.upload(tmp .. "/in.txt"))
  t.equal(f.filename, "in.txt")
  local g = assert(rig.files.upload { bytes = "a,b\n", filename = "small.csv" })
  local found
  for one in rig.files.each { limit = 1 } do found = found or one.id == f.id end
  t.ok(found, "listed")
  local s = session { resources = { g } }
  t.equal(assert(rig.sessions.resources.list(s.id)).data[1].type, "file")
  local out, e = rig.files.download(f.id)
  if not out then -- uploads may be kept back, as the hosted service does
    t.equal(e.status, 400)
  else
    t.equal(out, bytes)
    t.equal(assert(rig.files.download(f.id, { to = tmp .. "/out.txt" })).size, #bytes)
    t.equal(assert(rig.fs.read(tmp .. "/out.txt")), bytes)
  end
  assert(rig.files.delete(f.id))
  out, e = rig.files.download(f.id)
  t.equal(out, nil)
  t.equal(e.status, 404)
end)
t.test("errors name the field", function()
  local r, e = rig.agents.create { name = "x", model = "m", tools = { { type = "nonsense" } } }
  t.equal(r, nil)
  t.equal(e.status, 400)
  t.match(e.message .. (e.field or ""), "tools")
  r, e = rig.agents.retrieve "agent_nowhere"
  t.equal(e.status, 404)
  r, e = rig.agents.update(agent, { version = 99, name = "tester" })
  t.equal(e.status, 409)
  r, e = rig.vaults.list()
  t.equal(e.status, 501)
end)
t.test("declared agents are found, and unchanged ones keep their version", function()
  t.equal(rig.agent "tester", agent)
  t.equal(assert(rig.agents.retrieve(agent)).version, 1)
  local page = assert(rig.agents.list())
  t.equal(#page.data, 4)
  t.equal(assert(rig.environment "default").name, "default")
end)
t.test("fs and timers on the real loop", function()
  assert(rig.fs.mkdir(tmp .. "/a/b"))
  assert(rig.fs.write(tmp .. "/a/b/c", "x\0y"))
  assert(rig.fs.append(tmp .. "/a/b/c", "z"))
  t.equal(assert(rig.fs.read(tmp .. "/a/b/c")), "x\0yz")
  t.equal(assert(rig.fs.list(tmp .. "/a"))[1].type, "directory")
  t.equal(assert(rig.fs.stat(tmp .. "/a/b/c")).size, 4)
  local v, e = rig.fs.read(tmp .. "/nowhere")
  t.equal(v, nil)
  t.equal(e.type, "not_found_error")
  local from = rig.time.mono()
  rig.sleep(0.1)
  local took = rig.time.mono() - from
  t.ok(took >= 0.1 and took < 1, "took " .. took)
end)
t.test("rig.http against the runtime's own listener", function()
  local url = host.listen()
  local r = assert(rig.http.get(url .. "/health", { expect = 200, timeout = 5 }))
  t.equal(assert(r:json()).status, "ok")
  t.equal(r:json().generation, 1)
  t.match(r.headers["content-type"], "json")
  local none, e = rig.http.get(url .. "/v1/agents", { expect = 200 })
  t.equal(none, nil)
  t.equal(e.status, 401)
  none, e = rig.http.get("http://127.0.0.1:1/", { timeout = 2 })
  t.equal(none, nil)
  t.ok(e.message)
  t.quiet = nil
end)
t.test("a hook's ask holds back a tool that a handler answers", function()
  for _, case in ipairs { { "allow", "paid 400" }, { "deny", "error: The user denied this tool call: not by me" } } do
    local s = session()
    local turn = assert(s:ask 'use pay {"amount":400}')
    t.equal(turn.stop_reason, "requires_action")
    local call = turn.pending[1]
    t.equal(call.kind .. " " .. call.name, "confirm pay")
    local _, e = call:answer "mine"
    t.equal(e.status, 400) -- the handler's, not ours
    assert(call[case[1]](call, "not by me"))
    turn = assert(turn:wait())
    t.equal(turn.text, case[2])
  end
end)
t.test("fork, export, import", function()
  local s = session { title = "a talk", metadata = { k = "v" } }
  local turn = assert(s:ask "one")
  assert(s:ask "two")
  local f = assert(s:fork(turn.events[#turn.events]))
  t.equal(f.title, "fork of a talk")
  t.equal(f.metadata["moonrig.forked_from"], s.id)
  t.equal(#assert(f:transcript()).events, 9)
  t.equal(assert(f:ask "three").text, "you said: three")
  local g = assert(s:fork(turn.events[1].id, { title = "mine", metadata = { a = "b" }, environment = "default" }))
  t.equal(g.title .. g.metadata.a .. g.metadata.k, "minebv")
  t.equal(#assert(s:fork():transcript()).events, 18)
  local bytes = assert(s:export())
  t.match(bytes, '^{"format":"moonrig.session","version":1,')
  local where = assert(s:export { to = tmp .. "/talk.jsonl" })
  t.equal(where.size, #assert(rig.fs.read(tmp .. "/talk.jsonl")))
  for _, what in ipairs { tmp .. "/talk.jsonl", { path = tmp .. "/talk.jsonl" }, { bytes = bytes } } do
    local i = assert(rig.import(what, { title = "carried" }))
    t.equal(i.title, "carried")
    t.equal(#assert(i:transcript()).events, 18)
    t.equal(assert(i:ask "three").text, "you said: three")
  end
  local none, e = rig.import { bytes = bytes:sub(1, -50) }
  t.equal(none, nil)
  t.equal(e.field, "file")
  none, e = rig.import(tmp .. "/nothing.jsonl")
  t.equal(none, nil)
  t.equal(e.type, "not_found_error")
  none, e = s:fork("sevt_nothing")
  t.equal(none, nil)
  t.equal(e.status, 404)
  none, e = rig.import({ bytes = bytes }, { environment = "nowhere" })
  t.equal(none, nil)
  t.ok(e.message)
  for _, misuse in ipairs { function() s:fork(1) end, function() s:fork(nil, { name = "x" }) end, function() rig.import() end,
    function() rig.import({ bytes = "", path = "" }) end, function() s:export { to = 1 } end, function() s:export { to = "" } end,
    function() rig.import("x", { metadata = {} }) end } do
    t.ok(not pcall(misuse))
  end
end)

-- ---------------------------------------------------------------- budgets, outcomes, several agents
t.test("a turn that pauses goes on when the budget is raised", function()
  local s = session { budget = { steps = 1, tokens = 1e9, repeats = 2 } }
  t.equal(s.budget.max_steps, 1)
  t.equal(s.budget.max_tokens, 1000000000)
  local r = turn('use echo {"n":7}', s)
  t.equal(r.stop_reason, "budget_reached")
  local none, e = r:wait { timeout = 0.2 }
  t.equal(none, nil)
  t.equal(e.type, "timeout_error")
  none, e = s:ask "more"
  t.equal(none, nil)
  t.match(e.message, "reached its budget")
  none, e = s:update { budget = { steps = 1 } }
  t.equal(none, nil)
  t.equal(e.field, "budget.max_steps")
  t.equal(assert(s:update { budget = { steps = 9 } }).budget.max_steps, 9)
  t.equal(assert(r:wait { timeout = 30 }).text, "n is 7")
  t.equal(r.stop_reason, "end_turn")
  t.equal(assert(s:update { title = "new", metadata = { a = "b" }, budget = false }).title, "new")
  t.equal(s.budget, nil)
  t.equal(s.metadata.a, "b")
end)
t.test("a turn that ends at its cap is over", function()
  local s = session { budget = { steps = 1 } }
  local r = turn("hello", s)
  t.equal(r.stop_reason, "budget_reached")
  t.equal(r.text, "you said: hello")
  t.equal(r:wait(), r)
end)
t.test("budgets: misuse", function()
  for _, b in ipairs { { steps = 0 }, { tokens = 1.5 }, { stepps = 5 }, {}, { usd = 0 }, { steps = "5" } } do
    t.ok(not pcall(rig.session, { agent = agent, budget = b }), rig.json.encode(b))
  end
end)
t.test("outcomes", function()
  local s = session { agent = "graded" }
  local seen = {}
  local result, why, r = s:outcome { description = "use tick {}", rubric = "- twice", max_iterations = 3,
    on_event = function(ev) seen[ev.type] = (seen[ev.type] or 0) + 1 end }
  t.equal(result, "satisfied")
  t.equal(why, "graded 2")
  t.equal(r.outcome.iteration, 1)
  t.equal(seen["span.outcome_evaluation_end"], 2)
  t.equal(s:outcome(), "satisfied")
  t.equal(select(2, s:outcome()), "graded 2")
  t.equal(session { agent = "graded" }:outcome(), nil)
  local at_once = assert(rig.session { agent = "graded", outcome = { description = "go", rubric = "- x" }, initial_events = { "first" } })
  t.equal(at_once:outcome { timeout = 60 }, "satisfied")
  result, why, r = session { agent = "graded", budget = { steps = 1 } }:outcome { description = "go", rubric = "- x" }
  t.equal(result, nil)
  t.equal(why.type, "budget_reached")
  assert(r.session:update { budget = { steps = 50 } })
  t.equal(assert(r:wait { timeout = 60 }).outcome.result, "satisfied")
  t.raises("rubric", s.outcome, s, { description = "x" })
  t.raises("unknown option rubrik", s.outcome, s, { description = "x", rubrik = "y" })
  t.raises("description", rig.session, { agent = agent, outcome = { rubric = "x" } })
end)
t.test("a coordinator and its threads", function()
  calls = {}
  local s = session { agent = "boss" }
  local r = assert(s:ask("delegate", { timeout = 60 }))
  t.equal(r.text, "heard: n is 9")
  local list = assert(s:threads())
  t.equal(#list, 2)
  t.equal(list[1].parent_thread_id, nil)
  local child = list[2]
  t.equal(child.agent.name, "tester")
  t.equal(child.status, "idle")
  t.equal(tostring(child), "thread " .. child.id)
  t.equal(calls[1].thread, child.id)
  t.equal(calls[1].agent, "tester")
  t.equal(hooked.thread, child.id)
  t.equal(hooked.agent, "tester")
  local kinds = {}
  for _, ev in ipairs(assert(child:events())) do kinds[ev.type] = true end
  t.ok(kinds["agent.custom_tool_use"] and not kinds["session.status_idle"])
  local n, f = 0, child:follow { timeout = 30 }
  for ev in f do
    n = n + 1
    if ev.type == "session.thread_status_idle" then break end
  end
  f:close()
  t.equal(n, #assert(child:events()))
  local some = assert(child:events())[2].id
  f = child:follow { after = some, timeout = 30 }
  t.equal(f().id, assert(child:events())[3].id)
  assert(child:interrupt())
  assert(child:archive())
  t.equal(assert(child:refresh()).status, "terminated")
  n = 0
  for _ in child:follow { timeout = 30 } do n = n + 1 end -- what has ended ends the loop
  t.equal(n, #assert(child:events()))
  t.raises("unknown option live", child.follow, child, { live = true })
end)
rig.main(t.run)
