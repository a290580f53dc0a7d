-- rig.session: turns, answers, following without gaps.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local server = require "server"

server.environments[1] = { id = "env_default", name = "default", type = "environment" }
server.agents[1] = { id = "agent_payer", name = "payer", type = "agent", version = 3 }
server.agents[2] = { id = "agent_a", name = "twin", type = "agent", version = 1 }
server.agents[3] = { id = "agent_b", name = "twin", type = "agent", version = 1 }

local function session(o)
  server.reset()
  o = o or {}
  o.agent = o.agent or "payer"
  local s = assert(rig.session(o))
  return s, server.sessions[s.id]
end
local function types(list)
  local out = {}
  for i, ev in ipairs(list) do out[i] = ev.type end
  return table.concat(out, " ")
end

t.test("creating: names, ids, files, money", function()
  local s, real = session { title = "T", metadata = { k = "v" }, budget = { usd = 2.5 }, vault_ids = {},
    resources = { { id = "file_1", type = "file", filename = "a.csv" }, "file_2",
      { type = "file", file_id = "file_3", mount_path = "/c" } },
    initial_events = { "begin" } }
  t.equal(s.title, "T")
  t.equal(s.status, "idle")
  t.equal(rig.json.encode(real.params), '{"agent":"agent_payer","budget":{"max_list_cost":{"amount":"250",'
    .. '"currency":"USD"},"type":"limit"},"environment_id":"env_default","initial_events":[{"content":[{"text":"begin",'
    .. '"type":"text"}],"type":"user.message"}],"metadata":{"k":"v"},"resources":[{"file_id":"file_1","type":"file"},'
    .. '{"file_id":"file_2","type":"file"},{"file_id":"file_3","mount_path":"/c","type":"file"}],"title":"T","vault_ids":[]}')
  t.equal(tostring(s), "session " .. s.id)
  local same = assert(rig.session(s.id))
  t.equal(same.id, s.id)
  t.ok(same == s)
  t.equal(rig.session(s), s)
end)
t.test("creating: agents by id, handle, wire, pinned", function()
  local function agent(a) return select(2, session { agent = a }).params.agent end
  t.equal(agent "agent_payer", "agent_payer")
  t.equal(agent(server.agents[1]), "agent_payer")
  t.equal(agent(assert(rig.agent "payer")), "agent_payer")
  t.equal(agent { type = "agent", id = "agent_payer", version = 2 }.version, 2)
  t.equal(agent { type = "agent_with_overrides", id = "agent_payer", system = "x" }.system, "x")
end)
t.test("creating: what is wrong says so", function()
  local s, e = rig.session { agent = "nobody" }
  t.equal(s, nil)
  t.equal(e.message, 'no agent is named "nobody"')
  s, e = rig.session { agent = "twin" }
  t.equal(s, nil)
  t.match(e.message, 'agent_a, agent_b')
  s, e = rig.session { agent = "payer", environment = "moon" }
  t.equal(s, nil)
  t.equal(e.type, "not_found_error")
  t.raises("unknown option agnet", rig.session, { agnet = "payer" })
  t.raises("handle, an id or a name", rig.session, {})
  t.raises("usd", rig.session, { agent = "payer", budget = { usd = 0 } })
  s, e = rig.session "sesn_nowhere"
  t.equal(s, nil)
  t.equal(e.status, 404)
end)

t.test("ask: a turn", function()
  local s = session()
  function server.behave(r)
    server.say(r, "first")
    server.span(r, 10, 2)
    server.emit(r, { type = "agent.message", content = { { type = "text", text = "a" }, { type = "text", text = "b" } } })
    server.span(r, 20, 3)
    server.idle(r)
  end
  local seen = {}
  local turn = assert(s:ask("hello", { on_event = function(ev) seen[#seen + 1] = ev end }))
  t.equal(turn.text, "ab")
  t.equal(turn.stop_reason, "end_turn")
  t.equal(turn.usage.input_tokens, 30)
  t.equal(turn.usage.output_tokens, 5)
  t.equal(#turn.pending, 0)
  t.equal(types(turn.events), "user.message agent.message span.model_request_end agent.message "
    .. "span.model_request_end session.status_idle")
  t.equal(types(seen), types(turn.events))
  t.equal(turn:wait(), turn)
  local again = assert(s:ask { { type = "text", text = "more" } })
  t.equal(again.events[1].content[1].text, "more")
end)
t.test("ask: a refused message is nil, err and leaves no stream", function()
  local s = session()
  server.refuse = "waiting on responses to events [x]"
  local turn, e = s:ask "hello"
  t.equal(turn, nil)
  t.equal(e.status, 400)
  t.raises("unknown option delta", s.ask, s, "x", { delta = true })
  t.raises("text or a list", s.ask, s, 5)
end)
t.test("ask: approvals and client tools", function()
  local s, real = session()
  local uses = {}
  function server.behave(r, ev)
    if ev.type == "user.message" then
      uses[1] = server.emit(r, { type = "agent.tool_use", name = "pay", input = { amount = 900 }, evaluated_permission = "ask" })
      uses[2] = server.emit(r, { type = "agent.custom_tool_use", name = "look", input = {} })
      uses[3] = server.emit(r, { type = "agent.custom_tool_use", name = "find", input = {} })
      server.idle(r, "requires_action", { uses[1].id, uses[2].id, uses[3].id })
    elseif ev.type == "user.custom_tool_result" and ev.custom_tool_use_id == uses[3].id then
      server.say(r, "done")
      server.idle(r)
    elseif ev.type == "user.tool_confirmation" then
      server.idle(r, "requires_action", { uses[2].id, uses[3].id })
    end
  end
  local turn = assert(s:ask "pay")
  t.equal(turn.stop_reason, "requires_action")
  t.equal(#turn.pending, 3)
  local pay, look, find = turn.pending[1], turn.pending[2], turn.pending[3]
  t.equal(pay.name .. pay.input.amount .. pay.kind .. look.kind, "pay900confirmcustom")
  local none, e = turn:wait()
  t.equal(none, nil)
  t.match(e.message, "nothing of turn.pending was answered")
  t.ok(pay:deny "not by me")
  turn = assert(turn:wait())
  t.equal(#turn.pending, 2)
  t.ok(turn.pending[1]:answer { found = { 1, 2 } })
  t.ok(find:fail "no such order")
  turn = assert(turn:wait())
  t.equal(turn.text, "done")
  local sent = {}
  for _, ev in ipairs(real.log) do
    if ev.type:find "^user%." then sent[#sent + 1] = ev end
  end
  t.equal(sent[2].deny_message, "not by me")
  t.equal(sent[3].content[1].text, '{"found":[1,2]}')
  t.equal(sent[3].is_error, nil)
  t.equal(sent[4].is_error, true)
  t.equal(sent[4].content[1].text, "no such order")
end)
t.test("ask: a stream that breaks in the middle loses nothing", function()
  local s, real = session()
  function server.behave(r)
    server.say(r, "one")
    server.cut(r, -17, "reset")
    server.say(r, "two")
  end
  local cuts = 0
  function server.on_stream(r)
    if #r.log < 3 then return end
    cuts = cuts + 1
    if cuts == 1 then server.cut(r, -16, "closed") end
    if cuts == 2 then server.idle(r) end
  end
  local turn = assert(s:ask "go")
  t.equal(turn.text, "two")
  t.equal(types(turn.events), "user.message agent.message agent.message session.status_idle")
  t.equal(cuts, 2)
end)
t.test("ask: broken before the message was taken", function()
  local s, real = session()
  server.hold = true
  local task = rig.spawn(function() return s:ask "go" end)
  rig.sleep(0.1)
  server.cut(real, -17, "reset")
  server.hold = false
  local waiting = table.remove(real.waiting)
  function server.behave(r) server.say(r, "late") server.idle(r) end
  server.take(real, waiting)
  t.equal(task:wait().text, "late")
end)
t.test("ask: a session that ends ends the turn", function()
  local s = session()
  function server.behave(r)
    server.emit(r, { type = "session.error", error = { type = "unknown_error", message = "broken" } })
    server.emit(r, { type = "session.status_terminated" })
    server.cut(r)
  end
  local turn = assert(s:ask "go")
  t.equal(turn.stop_reason, "terminated")
  t.equal(turn.error.message, "broken")
end)
t.test("send, interrupt, refresh, archive", function()
  local s, real = session()
  local ev = assert(s:send "quiet")
  t.match(ev.id, "^sevt_")
  assert(s:interrupt())
  t.equal(real.log[#real.log].type, "user.interrupt")
  real.wire.title = "new"
  t.equal(assert(s:refresh()).title, "new")
  t.equal(assert(s:archive()).status, "terminated")
end)
t.test("a cancelled ask closes its stream", function()
  local s = session()
  local task = rig.spawn(function() return s:ask "for ever" end)
  rig.sleep(0.1)
  task:cancel()
  t.raises("cancel", task.wait, task)
  collectgarbage()
end)

-- ------------------------------------------------------------------------------------------------ follow
local function follow(s, o, n)
  local got = {}
  local task = rig.spawn(function()
    for ev in s:follow(o) do
      got[#got + 1] = ev.type == "agent.message" and ev.content[1].text or ev.type
      if #got == n then return end
    end
    got.ended = true
  end)
  return got, task
end
t.test("follow: history, then live, each once", function()
  local s, real = session()
  server.page = 2
  for i = 1, 5 do server.say(real, "h" .. i) end
  function server.on_stream(r) server.say(r, "between") end -- in the stream and in the list
  local got, task = follow(s, nil, 8)
  t.wait(function() return #got == 6 or nil end)
  server.say(real, "l1")
  server.say(real, "l2")
  task:wait()
  t.equal(table.concat(got, " "), "h1 h2 h3 h4 h5 between l1 l2")
end)
t.test("follow: after an event, over breaks, to the end", function()
  local s, real = session()
  local ids = {}
  for i = 1, 4 do ids[i] = server.say(real, "h" .. i).id end
  local got, task = follow(s, { after = ids[2] })
  t.wait(function() return #got == 2 or nil end)
  for i = 1, 3 do
    server.cut(real, -5, "behind")
    server.say(real, "b" .. i)
    t.wait(function() return #got == 2 + i or nil end)
  end
  assert(s:archive())
  task:wait()
  t.equal(table.concat(got, " "), "h3 h4 b1 b2 b3 session.status_terminated")
  t.ok(got.ended)
end)
t.test("follow: live only, and no gap when it breaks at once", function()
  local s, real = session()
  server.say(real, "old")
  local got, task = follow(s, { live = true }, 2)
  rig.sleep(0.1)
  server.cut(real, -17, "reset")
  server.say(real, "in the gap")
  t.wait(function() return #got == 1 or nil end)
  server.say(real, "new")
  task:wait()
  t.equal(table.concat(got, " "), "in the gap new")
end)
t.test("follow: previews, also of what was listed already", function()
  local s, real = session()
  local id = "sevt_preview"
  function server.on_stream(r)
    server.preview(r, { type = "event_start", event = { type = "agent.message", id = id } })
    server.preview(r, { type = "event_delta", event_id = id, delta = { type = "content_delta", index = 0, content = { type = "text", text = "x" } } })
    server.emit(r, { type = "agent.message", id = id, content = { { type = "text", text = "x" } } })
  end
  local got, task = follow(s, { deltas = true }, 4)
  t.wait(function() return #got == 1 or nil end)
  t.equal(got[1], "x")
  server.on_stream = nil
  server.preview(real, { type = "event_start", event = { type = "agent.message", id = "sevt_n" } })
  server.preview(real, { type = "event_delta", event_id = "sevt_n", delta = { content = { text = "y" } } })
  server.emit(real, { type = "agent.message", id = "sevt_n", content = { { type = "text", text = "y" } } })
  task:wait()
  t.equal(table.concat(got, " "), "x event_start event_delta y")
end)
t.test("follow: an unknown event, a session that is not there", function()
  local s, real = session()
  server.say(real, "x")
  local e = t.raises("has no event", function() for _ in s:follow { after = "sevt_none" } do end end)
  t.equal(e.type, "not_found_error")
  server.sessions[s.id] = nil
  e = t.raises("no such session", function() for _ in s:follow() do end end)
  t.equal(e.status, 404)
  t.raises("unknown option afer", s.follow, s, { afer = "x" })
end)
t.test("follow: a script that falls 4,096 events behind reads on by listing", function()
  local s, real = session()
  local got, last, twice = 0, nil, 0
  local seen = {}
  local task = rig.spawn(function()
    for ev in s:follow() do
      if seen[ev.id] then twice = twice + 1 end
      seen[ev.id] = true
      got = got + 1
      last = ev
      if ev.content[1].text == "end" then return end
      if got == 1 then rig.sleep(5) end
    end
  end)
  t.wait(function() return next(real.streams) end)
  for i = 1, 5000 do server.say(real, "e" .. i) end
  rig.sleep(1)
  server.say(real, "end")
  task:wait()
  t.equal(got, 5001)
  t.equal(twice, 0)
end)
t.test("follow: a server that is away for a while", function()
  local s, real = session()
  server.say(real, "one")
  local got, task = follow(s, {}, 2)
  t.wait(function() return #got == 1 or nil end)
  server.down = 7
  server.cut(real, -17, "reset")
  server.say(real, "two")
  task:wait()
  t.equal(table.concat(got, " "), "one two")
  t.equal(server.down, 0)
  got, task = follow(s, {}, 9)
  t.wait(function() return #got == 2 or nil end)
  server.down = 100
  server.cut(real, -17, "reset")
  local e = t.raises("away", task.wait, task)
  t.equal(e.status, 503)
end)
t.test("times: what is late is an error, and can go on", function()
  local s, real = session()
  function server.behave() end
  local from = host.clock()
  local turn, e = s:ask("x", { timeout = 7 })
  t.equal(turn, nil)
  t.equal(e.type, "timeout_error")
  t.ok(host.clock() - from >= 7 and host.clock() - from < 8, "took " .. host.clock() - from)
  function server.behave(r, ev)
    if ev.type ~= "user.message" then return end
    local use = server.emit(r, { type = "agent.tool_use", name = "pay", input = {}, evaluated_permission = "ask" })
    server.idle(r, "requires_action", { use.id })
  end
  turn = assert(s:ask("y", { timeout = 7 }))
  assert(turn.pending[1]:allow())
  local none
  none, e = turn:wait { timeout = 3 }
  t.equal(none, nil)
  t.equal(e.retryable, true)
  server.say(real, "done")
  server.idle(real)
  t.equal(assert(turn:wait()).text, "done")
  local follow_it = s:follow { live = true, timeout = 4 }
  t.raises("nothing came in time", follow_it)
  server.say(real, "more")
  t.equal(follow_it().content[1].text, "more")
  follow_it:close()
  t.equal(follow_it(), nil)
  local other = session()
  function server.behave(r) server.idle(r) end
  t.raises("oops", other.ask, other, "z", { timeout = 5, on_event = function() error "oops" end })
  t.raises("timeout must be a number", s.ask, s, "x", { timeout = "soon" })
  t.raises("at most 1e6", s.ask, s, "x", { timeout = math.huge })
  for _, timeout in ipairs { math.huge, 0 / 0, -1 } do
    t.raises("timeout is seconds", rig.sessions.list, {}, { timeout = timeout })
  end
  t.raises("unknown option when", s.send, s, "x", { when = 1 })
end)
rig.main(t.run)
