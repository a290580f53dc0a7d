-- Tests that must fail. Each says what its report must hold: -- expect: PATTERN (of Python), at least one.
local rig = require "moonrig"
local t = require "moonrig.test"
t.load "../scripts.lua"

-- expect: \.a\.b: 1 is not 2
-- expect: \.list\[3\]: missing; "x" is expected
-- expect: at tests/kit/bad/bad_test\.lua:11
t.test("equal shows where", function()
  local got = { a = { b = 1 }, list = { 1, 2 } }
  t.equal(got, { a = { b = 2 }, list = { 1, 2, "x" } })
end)
-- expect: value is false
t.test("ok", function() t.ok(false) end)
-- expect: what is 1, not nil
t.test("is_nil", function() t.is_nil(1, "what") end)
-- expect: "abc" does not match "x"
t.test("match", function() t.match("abc", "x") end)
-- expect: no error was raised
t.test("raises nothing", function() t.raises("x", function() end) end)
-- expect: raised ".*other", which does not match "mine"
t.test("raises another", function() t.raises("mine", error, "other") end)
-- expect: bad_test\.lua:\d+: attempt to
-- expect: stack traceback
t.test("an error has a traceback", function()
  local function deeper() local x = nil; return x.y, 1 end
  local y = deeper()
  return y
end)
-- expect: unexpected request: GET http://nowhere\.test/a\?q=1
t.test("a request without a stub", function() rig.http.get("http://nowhere.test/a", { query = { q = 1 } }) end)
-- expect: unexpected request: POST http://x\.test/ with the body b
t.test("a request with another method", function()
  t.http { method = "GET", url = "http://x.test/", reply = { status = 200 } }
  pcall(rig.http.post, "http://x.test/", { body = "b" })
end)
-- expect: the stub for any http://x\.test/ answered 1 requests of 2
t.test("a stub that is used too little", function()
  t.http { url = "http://x.test/", times = 2, reply = "yes" }
  t.ok(rig.http.get "http://x.test/")
end)
-- expect: unexpected request: GET http://x\.test/
t.test("a stub that is used too often", function()
  t.http { url = "http://x.test/", times = 1, reply = "yes" }
  for _ = 1, 2 do rig.http.get "http://x.test/" end
end)
-- expect: the model was asked 2 times, and 1 replies are scripted
-- expect: echo: hi
t.test("a model that is asked once too often", function()
  t.session({ agent = "echoer", model = { t.use("echo", { text = "hi" }) } }):ask "go"
end)
-- expect: the model's function failed: .*bad_test\.lua:\d+: oh
t.test("a model function that fails", function()
  t.session({ agent = "echoer", model = { function() error "oh" end } }):ask "go"
end)
-- expect: no model is scripted for it
t.test("a session without a model", function() t.session({ agent = "echoer" }):ask "go" end)
-- expect: expected next: "agent\.message"
-- expect: > agent\.custom_tool_use  echo
t.test("events in another order", function()
  local s = t.session { agent = "echoer", model = { t.use("echo", { text = "a" }), t.say "b" } }
  s:ask "go"
  t.events(s, { "user.message", "agent.message", "agent.tool_use", "..." })
end)
-- expect: expected next: nothing more
t.test("events beyond the expected", function()
  local s = t.session { agent = "echoer", model = { "b" } }
  s:ask "go"
  t.events(s, { "user.message", "agent.message" })
end)
-- expect: expected next: \{"name":"other","type":"agent\.tool_use"\}
t.test("an event with other fields", function()
  local s = t.session { agent = "echoer", model = { t.use("echo", { text = "a" }), t.say "b" } }
  s:ask "go"
  t.events(s, { "user.message", { type = "agent.tool_use", name = "other" }, "..." })
end)
-- expect: no tool "nothing" is loaded; there is .*echo
t.test("a call of no tool", function() t.call("nothing", {}) end)
-- expect: scripts\.lua:\d+: it broke
t.test("a handler that raises", function() t.call("breaks", {}) end)
-- expect: the test took longer than 1 s \(time stands still: t\.advance moves it\)
-- expect: bad_test\.lua:84
t.test("a sleep that nobody ends", function()
  rig.sleep(5)
end)
-- expect: time budget spent
t.test("a loop that never ends", function() while true do end end)
-- expect: waited in vain for godot
t.test("a wait in vain", function() t.wait(function() end, "godot") end)
-- expect: left running: a task of rig\.spawn
t.test("a task that is left", function() rig.spawn(function() rig.sleep(9) end) end)
-- expect: left running: .*session sesn_
t.test("a handler that is left", function()
  t.session({ agent = "echoer", model = { t.use "sleeps", "done" } }):send "go"
end)
-- expect: a global changed: leaked
t.test("a global of the test", function() leaked = 1 end)
-- expect: a global changed: counter
t.test("a global of the script", function() t.call("leaks", {}) end)
-- expect: a global changed: string\.trim
t.test("a library that was changed", function() function string.trim() end end)
-- expect: t\.load: .*syntax\.lua:1:
t.test("scripts that do not load", function()
  local dir = t.tmp()
  local f = io.open(dir .. "/syntax.lua", "w")
  f:write "local x = = 1"
  f:close()
  t.load(dir .. "/syntax.lua")
end)
-- expect: nowhere\.lua: no such file or directory
t.test("scripts that are not there", function() t.load "nowhere.lua" end)
-- expect: t\.http: unknown option reply_with
t.test("misuse", function() t.http { url = "http://x.test/", reply_with = 1, reply = "" } end)
-- expect: event 5 is not as recorded
-- expect: now: .*echo: hi
-- expect: \.content\[1\]\.text: "echo: hi" is not "ECHO: hi"
t.test("a replay of a tool that changed", function() t.replay "../recorded.json" end)
-- expect: declares; t\.load it
t.test("a replay of an agent that is gone", function()
  t.load "../other.lua"
  t.replay "../gone.json"
end)
