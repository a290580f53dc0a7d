-- The chat and the prompt without a terminal: on both engines, with the in-process rig as the client.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local base = host.globals()
local chat, repl, term = base.require "moonrig.chat", base.require "moonrig.repl", base.require "moonrig.term"
local talks, shows = base.require "moonrig.talk", base.require "moonrig.shows"

local pay = rig.tool { name = "pay", description = "Pays", run = function(input) return "paid\n" .. tostring(input.amount) end,
  input_schema = { type = "object", properties = { amount = { type = "number" } } } }
local ask = rig.tool { name = "ask_me", description = "Answered by the client", answered_by = "client" }
local nothing = rig.tool { name = "nothing", description = "Returns nothing", run = function() end }
rig.agent { name = "teller", model = "test-1", tools = { pay, ask, nothing } }
rig.hook { phase = "permit", tool = "pay", run = function(call) if call.input.amount > 10 then return "ask" end end }
rig.provider { name = "test", models = "test-*", run = function(request, ctx)
  local last = request.messages[#request.messages]
  local c = type(last.content) == "string" and { type = "text", text = last.content } or last.content[#last.content]
  if c.type == "tool_result" then
    return "read " .. (type(c.content) == "string" and c.content or c.content and c.content[1] and c.content[1].text or "")
  end
  local name, input = c.text:match "^use (%S+) (.*)$"
  if name then return { { type = "tool_use", name = name, input = assert(rig.json.decode(input)) } } end
  if c.text == "think" then rig.sleep(1000) end
  ctx:text "you "
  ctx:text "said: "
  return "you said: " .. c.text
end }

-- A person who types these lines; a function is called in their place.
local function person(lines, tty)
  local p = setmetatable({ tty = tty, width = 100, colour = false, buf = "", fresh = true, said = {}, lines = lines, at = 0 },
    { __index = function(_, k) return rawget(term.Term, k) end })
  function p:put(text)
    self.fresh = text:sub(-1) == "\n"
    self.said[#self.said + 1] = text
  end
  function p:complain(text) self:line("COMPLAINS " .. text) end
  -- A person who answers what is asked, and does not type ahead.
  function p:next_line()
    while self.tty and not self.shown do rig.sleep(0.001) end
    self.at = self.at + 1
    local line = self.lines[self.at]
    if self.tty then self.said[#self.said + 1] = "\n" end
    if type(line) == "function" then return line(self) end
    return line
  end
  function p:erase() self.shown = false end
  function p:pasted() return {} end
  function p:watch() rig.sleep(1e6) end
  return p
end

local function talk(lines, tty, o)
  local p = person(lines, tty)
  local code = chat.run { client = rig, term = p, agent = o and o.agent or "teller", session = o and o.session, json = o and o.json }
  return table.concat(p.said), code
end

t.test("messages, tools, approvals", function()
  local text, code = talk { "hello", "use pay {\"amount\":5}", "use pay {\"amount\":50}", "n no money", "bye" }
  t.equal(code, 0)
  t.match(text, "^session sesn_%w+ with teller\nyou said: hello\n%* pay {\"amount\":5}\n  = paid 5 %(2 lines%)\nread paid\n5\n")
  t.match(text, "%* pay {\"amount\":50}\n  ! [^\n]*no money\nread [^\n]*no money\nyou said: bye\n$")
end)
t.test("always, why, and a tool that nobody answers", function()
  local text, code = talk({ "use pay {\"amount\":50}", "w", "maybe", "a", "use pay {\"amount\":60}", "use ask_me {}", "an answer",
    "use ask_me {}", "" }, true)
  t.equal(code, 0)
  t.match(text, '%? allow pay {"amount":50}\n  y%(es%) [^\n]*\n  pay %(agent.tool_use%) asks.-"amount": 50\n')
  t.match(text, "pay: allowed, as always\n")
  t.match(text, "nobody here does.\n  its result [^\n]*\n  = an answer\nread an answer\n")
  t.match(text, "  ! nobody answers this tool in this chat\n")
end)
t.test("a result that is empty is seen", function()
  t.match((talk { "use nothing {}" }), "%* nothing {}\n  = %(empty%)\n")
end)
t.test("always is of one session", function()
  local text = talk { "use pay {\"amount\":51}", "a", "/new teller", "use pay {\"amount\":52}", "n not here" }
  t.match(text, "paid 51")
  t.ok(not text:find "as always" and not text:find "paid 52", text)
end)

t.test("left waiting, then joined", function()
  local text, code = talk { "use pay {\"amount\":50}" }
  t.equal(code, 1)
  local id = text:match "moonrig attach (sesn_%w+)"
  text, code = talk({ "y", "more" }, false, { session = id })
  t.equal(code, 0)
  t.match(text, "^session " .. id .. " with teller\n> use pay {\"amount\":50}\n  = paid 50")
  t.match(text, "read paid\n50\nyou said: more\n$")
  text = talk({}, false, { session = id })
  t.match(text, "> more\nyou said: more\n$")
end)
t.test("a turn is interrupted, a second time left", function()
  local p
  p = person({ "think", function() return "after" end }, false)
  local task = rig.spawn(chat.run, { client = rig, term = p, agent = "teller" })
  while not p.on_interrupt do rig.sleep(0.001) end
  rig.sleep(0.02)
  p.on_interrupt()
  t.equal(task:wait(), 0)
  t.match(table.concat(p.said), "stopping.-%(interrupted%)\n.*you said: after\n$")
  p = person({ "think" }, false)
  task = rig.spawn(chat.run, { client = rig, term = p, agent = "teller" })
  while not p.on_interrupt do rig.sleep(0.001) end
  p.on_interrupt()
  if p.on_interrupt then p.on_interrupt() end
  t.equal(task:wait(), 130)
end)
t.test("commands", function()
  local text, code = talk({ "/help", "/usage", "hello", "/events 2", "/sessions", "/nope", "/join sesn_none", "/new teller", "/q", "never" })
  t.equal(code, 0)
  t.match(text, "/new %[AGENT%]")
  t.match(text, "this chat: 0 tokens in, 0 out")
  t.match(text, "session.status_idle +end_turn\n")
  t.match(text, "%*sesn_%w+  idle +teller")
  t.match(text, "COMPLAINS there is no command /nope")
  t.match(text, "COMPLAINS session sesn_none not found")
  t.match(text, "session sesn_%w+ with teller\n$")
end)
t.test("JSON for programs", function()
  local text, code = talk({ "hello" }, false, { json = true })
  t.equal(code, 0)
  local types = {}
  for line in text:gmatch "[^\n]+" do types[#types + 1] = assert(rig.json.decode(line)).type end
  t.match(table.concat(types, " "), "user.message .*agent.message .*session.status_idle$")
end)
t.test("threads: what they do is labelled, what they ask is asked while others go on", function()
  local function idle(id, name, ids)
    return { type = "session.thread_status_idle", session_thread_id = id, agent_name = name,
      stop_reason = ids and { type = "requires_action", event_ids = ids } or { type = "end_turn" } }
  end
  local sent, at = {}, 0
  local events = { { type = "session.status_running" },
    { type = "session.thread_status_running", session_thread_id = "sthr_p", agent_name = "lead" },
    { type = "session.thread_created", session_thread_id = "sthr_r", agent_name = "reviewer" },
    { type = "agent.thread_message_sent", to_session_thread_id = "sthr_r", to_agent_name = "reviewer",
      content = { { type = "text", text = "Review utils.c" } } },
    { type = "session.thread_status_running", session_thread_id = "sthr_r", agent_name = "reviewer" },
    { type = "agent.tool_use", id = "sevt_b", name = "bash", input = { command = "make" }, session_thread_id = "sthr_r" },
    idle("sthr_r", "reviewer", { "sevt_b" }),
    function() while not sent[1] do rig.sleep(0.001) end end,
    { type = "user.tool_confirmation", id = "sevt_c", tool_use_id = "sevt_b", result = "allow", session_thread_id = "sthr_r" },
    { type = "session.thread_status_running", session_thread_id = "sthr_r", agent_name = "reviewer" },
    { type = "agent.thread_message_received", from_session_thread_id = "sthr_r", from_agent_name = "reviewer",
      content = { { type = "text", text = "1 issue" } } },
    idle("sthr_r", "reviewer"), idle("sthr_p", "lead"),
    { type = "session.status_idle", stop_reason = { type = "end_turn" } },
    function() rig.sleep(1e6) end }
  local feed = {}
  local follower = setmetatable({ feed = feed, close = function() end }, { __call = function()
    if at == 0 then feed.on_live() end
    at = at + 1
    while type(events[at]) == "function" do
      events[at]()
      at = at + 1
    end
    return events[at]
  end })
  local client = { sessions = { events = { send = function(_, o)
    sent[#sent + 1] = o.events[1]
    return { data = { { id = "sevt_c" } } }
  end } } }
  local p = person({ "y" }, false)
  local code = talks.new { client = client, term = p }:run(function(talk)
    talk:enter({ id = "sesn_x", status = "running", agent = { name = "lead" }, follow = function() return follower end }, true)
    return true
  end)
  t.equal(code, 0)
  t.equal(table.concat(p.said), [[
session sesn_x with lead
+ thread reviewer (sthr_r)
> reviewer: Review utils.c
[reviewer] runs
* [reviewer] bash {"command":"make"}
[reviewer] rests (requires_action)
[reviewer] runs
< reviewer: 1 issue
[reviewer] rests
]])
  t.equal(#sent, 1)
  t.equal(sent[1].tool_use_id .. sent[1].result, "sevt_ballow")
end)
t.test("any event in one line", function()
  local function line(ev, text)
    ev.processed_at = "2026-11-28T01:02:03.456789Z"
    t.equal(shows.line(ev), ("2026-11-28T01:02:03Z  %-28s %s"):format(ev.type, text))
  end
  line({ type = "agent.tool_use", name = "bash", input = { a = 1 } }, 'bash {"a":1}')
  line({ type = "agent.tool_result", is_error = true, content = { { type = "text", text = "no" }, { type = "image" } } },
    "failed: no\n[image]")
  line({ type = "session.error", error = { type = "billing_error", message = "no credit", retry_status = { type = "terminal" } } },
    "billing_error: no credit (terminal)")
  line({ type = "span.model_request_end", model_usage = { input_tokens = 3, output_tokens = 4 }, is_error = true },
    "3 in, 4 out, failed")
  line({ type = "session.thread_status_idle", agent_name = "a", stop_reason = { type = "end_turn" } }, "[a] end_turn")
  line({ type = "user.tool_confirmation", result = "deny", deny_message = "no" }, "deny: no")
  line({ type = "something.new" }, "")
  t.match(shows.line { type = "user.message", content = { { type = "text", text = "x" } } }, "^waits +user.message +x$")
end)
t.test("what cannot be", function()
  local text, code = talk({}, false, { agent = "nobody" })
  t.equal(code, 1)
  t.match(text, 'COMPLAINS no agent is named "nobody"')
  text, code = talk({}, false, { session = "sesn_none" })
  t.equal(code, 1)
end)
t.test("text for people: clean and cut", function()
  local p = person {}
  t.equal(term.clean "a\27[31mb\0\194\155c\td\n", "a?[31mb??c\td\n")
  t.equal(p:cut("a\nb", 20), "a b")
  t.equal(p:cut(("x"):rep(30), 10), "xxxxxxx...")
  t.equal(p:cut(("\195\188"):rep(30), 10), ("\195\188"):rep(7) .. "...") -- by columns, not by bytes
  t.equal(p:cut(("\230\151\165"):rep(30), 10), ("\230\151\165"):rep(3) .. "...") -- each takes two
  t.equal(p:cell("e\204\129\230\151\165", 5), "e\204\129\230\151\165  ") -- an accent takes none
  t.equal(p:cut("a\255b" .. ("x"):rep(30), 8), "a\255bxx...")
end)
t.test("the prompt: complete or not", function()
  for source, more in pairs { ["1 +"] = true, ["for i = 1, 2 do"] = true, ["f("] = true, ["x ="] = true, ["[[a"] = true,
    ["{"] = true, ["this is wrong"] = false, [")"] = false, ["--[[ a"] = true, ["function f()"] = true, ["if x then y"] = true } do
    local fn, why, incomplete = repl.compile(source, {})
    t.equal(fn, nil, source)
    t.equal(incomplete, more, source .. " (" .. tostring(why) .. ")")
  end
  t.equal(repl.compile("1, 2", {})(), 1)
  t.equal(repl.compile("local a = 1 return a", {})(), 1)
end)
t.test("the prompt: values", function()
  t.equal(repl.pretty { 1, "a\n\"\27", { x = rig.null, y = {} }, [10] = 1.5, ["a b"] = true },
    '{\n  1,\n  "a\\n\\"\\027",\n  {\n    x = rig.null,\n    y = {},\n  },\n  [10] = 1.5,\n  ["a b"] = true,\n}')
  local deep = {}
  deep.deep = { { { { { { 1 } } } } } }
  t.match(repl.pretty(deep), "{%.%.%.}")
  local long = {}
  for i = 1, 10000 do long[i] = ("x"):rep(100) end
  t.match(repl.pretty(long), "9940 more")
  t.match(repl.pretty(("y"):rep(5000)), '" %.%.%. %(5000 bytes%)$')
  t.equal(repl.pretty(rig.error("a", "b")), "a: b")
end)
rig.main(t.run)
