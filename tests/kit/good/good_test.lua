-- The kit's own tests: what it can do.
local rig = require "moonrig"
local t = require "moonrig.test"
t.load "../scripts.lua"
t.env { BASE = "http://base.test" }
local everywhere = t.http { url = "http://file.test/*", reply = "file" }

t.test("equal compares in depth", function()
  t.equal({ 1, { a = "b" } }, { 1, { a = "b" } })
  t.equal(1, 1.0)
  t.raises("%.a: 1 is not 2", t.equal, { a = 1 }, { a = 2 })
end)

t.test("a handler is called with a ctx", function()
  t.equal(t.call("echo", { text = "hi" }), "echo: hi")
  local who = t.call("echo", { text = "who" }, { agent = "me", attempt = 3, session = "sesn_1" })
  t.equal({ who.agent, who.attempt, who.session }, { "me", 3, "sesn_1" })
  t.ok(who.generation > 1)
  t.equal(#t.log "echo of hi", 1)
end)

t.test("each test has scripts of its own", function() t.equal(t.call("count", {}), 1) end)
t.test("... afresh", function() t.equal(t.call("count", {}), 1) end)

t.test("stubs answer by method, url and order", function()
  t.http { url = "http://base.test/a", times = 1, reply = { status = 200, json = { n = 1 }, headers = { ["X-A"] = "b" } } }
  local second = t.http { url = "http://base.test/a*", method = "get", reply = function(req) return { body = "for " .. req.url } end }
  local res = assert(rig.http.get("http://base.test/a", { query = { q = "x" } }))
  t.equal(res:json(), { n = 1 })
  t.equal(res.headers["x-a"], "b")
  t.equal(rig.http.get("http://base.test/a").body, "for http://base.test/a")
  t.equal(second.calls[1].method, "GET")
  local post = t.http { url = "http://base.test/p?x=1", method = "POST", reply = { error = "refused" } }
  local none, err = rig.http.post("http://base.test/p", { json = { a = 1 }, query = { x = 1 } })
  t.is_nil(none)
  t.equal(err.type .. " " .. err.message, "io_error refused")
  t.equal(post.calls[1]:json(), { a = 1 })
  t.equal(post.calls[1].headers["content-type"], "application/json")
  t.env { BASE = "http://file.test" }
  t.equal(t.call("fetch", { name = "always" }), "file")
  t.equal(#everywhere.calls, 1)
end)

t.test("a retry waits for the clock", function()
  local stub = t.http { url = "http://base.test/x", reply = { status = 503 } }
  local one = rig.spawn(t.call, "fetch", { name = "x" })
  t.wait(function() return #stub.calls == 1 end, "the first try")
  t.advance(60)
  local out, err = one:wait()
  t.is_nil(out)
  t.equal(err.status, 503)
  t.equal(#stub.calls, 3)
end)

t.test("time stands still until it is moved", function()
  local began = t.now()
  t.equal(rig.time.format(began):sub(1, 4), "2026")
  t.equal(os.time(), math.floor(began))
  local woken = {}
  for _, s in ipairs { 5, 1, 3 } do
    rig.spawn(function()
      rig.sleep(s)
      woken[#woken + 1] = s
    end)
  end
  t.advance(3)
  t.equal(woken, { 1, 3 })
  t.equal(t.now() - began, 3)
  t.advance(2)
  t.equal(woken, { 1, 3, 5 })
end)

t.test("a sleep in a loop is woken again and again", function()
  local n = 0
  local ticker = rig.spawn(function()
    for _ = 1, 10 do
      rig.sleep(1)
      n = n + 1
    end
  end)
  t.advance(10)
  t.equal(n, 10)
  ticker:wait()
end)

t.test("a tool's deadline passes when the clock says so", function()
  local s = t.session { agent = "echoer", model = { t.use("sleeps", {}), function(request)
    local last = request.messages[#request.messages].content[1]
    t.ok(last.is_error)
    return "it was late"
  end } }
  local turn = rig.spawn(function() return s:ask "go" end)
  t.wait(function() return #t.requests(s) == 1 end, "the model")
  local api_events = function() for ev in s:follow() do if ev.type == "agent.custom_tool_use" then return end end end
  api_events()
  t.advance(31)
  t.equal(turn:wait().text, "it was late")
end)

t.test("a failing model is asked again later", function()
  local s = t.session { agent = "echoer", model = { t.fail("overloaded_error", "busy"), "better" } }
  local turn = rig.spawn(function() return s:ask "go" end)
  for ev in s:follow() do
    if ev.type == "session.status_rescheduled" then break end
  end
  t.advance(120)
  t.equal(turn:wait().text, "better")
end)

t.test("a session plays its script, in its order", function()
  local s = t.session { agent = "echoer", title = "a title", model = {
    { t.thinking "hm", "one moment", t.use("echo", { text = "a" }) },
    function(request) return "I read " .. request.messages[#request.messages].content[1].content[1].text end } }
  local turn = s:ask "go"
  t.equal(turn.text, "I read echo: a")
  t.events(s, { "user.message", "agent.message", { type = "agent.tool_use", name = "echo", input = { text = "a" } },
    "agent.tool_result", "agent.message", "session.status_idle" })
  t.events(s, { "...", "agent.custom_tool_use", "...", "session.status_idle" })
  t.events(s, { "...", "span.model_request_start", "agent.message", "..." })
  t.equal(#t.requests(s), 2)
  t.match(t.requests(s)[1].system[1] and t.requests(s)[1].system[1].text or t.requests(s)[1].system, "You echo")
  t.equal(s.title, "a title")
end)

t.test("a hook asks, and the test answers", function()
  for answer, want in pairs { allow = "echo: secret", deny = "The user denied this tool call: no" } do
    local s = t.session { agent = "echoer", model = { t.use("echo", { text = "secret" }), function(request)
      return request.messages[#request.messages].content[1].content[1].text
    end } }
    local turn = s:ask "go"
    t.equal(turn.stop_reason, "requires_action")
    t.ok(turn.pending[1][answer](turn.pending[1], "no"))
    t.equal(turn:wait().text, want)
  end
end)

t.test("without an agent there is one with all loaded tools", function()
  t.equal(t.session({ model = { t.use("echo", { text = "x" }), "ok" } }):ask("go").text, "ok")
end)

t.test("sessions of the scripts have a model too", function()
  t.model { "from the script" }
  local s = assert(rig.session { agent = "echoer" })
  t.equal(s:ask("go").text, "from the script")
end)

t.test("the environment is the test's", function()
  t.env { BASE = "http://other.test", HOME = false }
  t.equal(rig.env.BASE, "http://other.test")
  t.is_nil(rig.env.HOME)
  t.is_nil(os.getenv "HOME")
end)
t.test("... and only its", function()
  t.equal(rig.env.BASE, "http://base.test")
  t.ok(rig.env.HOME)
end)

local kept
t.test("a directory is there for the test", function()
  kept = t.tmp()
  assert(rig.fs.write(kept .. "/x.txt", "y"))
  t.equal(rig.fs.read(kept .. "/x.txt"), "y")
end)
t.test("... and gone after it", function() t.is_nil((rig.fs.stat(kept))) end)

t.test("scripts are added in a test", function()
  t.raises('no tool "other"', t.call, "other", {})
  t.load "../other.lua"
  t.equal(t.call("other", {}), "other")
  t.equal(t.call("echo", { text = 1 }), "echo: 1")
end)

t.test("a recorded session runs again", function()
  local s = t.session { agent = "echoer", model = { t.use("echo", { text = "secret" }),
    { t.use("echo", { text = "b" }), t.use("count", {}) }, "done", "again" } }
  local turn = s:ask "go"
  turn.pending[1]:allow()
  t.equal(turn:wait().text, "done")
  s:ask "once more"
  local path = t.tmp() .. "/session.json"
  t.record(s, path)
  local replayed = t.replay(path)
  t.ok(replayed.id ~= s.id)
  t.equal(#t.requests(replayed), 4)
end)

t.test("an exported session runs again", function()
  local s = t.session { agent = "echoer", model = { t.use("echo", { text = "b" }), "done" } }
  s:ask "go"
  local path = t.tmp() .. "/session.jsonl"
  assert(s:export { to = path })
  t.equal(#t.requests(t.replay(path)), 2)
end)

t.test("a session of a server runs again, its commands too", function() t.replay "../server.json" end)
