-- rig.on: watchers of events.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local server = require "server"
local dir = os.getenv "SCRIPTS"
host.seen = host.seen or {}
local seen = host.seen

local function note(who)
  return function(ev, session)
    local text = ev.type == "agent.message" and ev.content[1].text or ev.type
    seen[#seen + 1] = who .. ":" .. session.id:sub(-4) .. ":" .. text
    if text == "raise" then error "watcher broke" end
    if text == "slow" then rig.sleep(3) seen[#seen + 1] = "slow done" end
  end
end

server.before = server.before or server.create { agent = "agent_old" }
local before = server.before
if #before.log == 0 then
  for i = 1, 3 do server.say(before, "old" .. i) end
end
rig.on { name = "all", event = { "agent.message", "session.status_idle" }, run = note "all" }
rig.on { name = "other", event = "agent.message", agent = "nobody", run = note "never" }

local function messages(s, ...)
  server.emit(s, { type = "session.status_running" })
  for _, text in ipairs { ... } do server.say(s, text) end
  server.idle(s)
end
local function expect(...)
  local want = { ... }
  t.wait(function() return #seen >= #want or nil end, "events: " .. table.concat(seen, " "))
  rig.sleep(2)
  t.equal(table.concat(seen, " "), table.concat(want, " "))
  for i = #seen, 1, -1 do seen[i] = nil end
end
local function short(s) return s.wire.id:sub(-4) end

t.test("a session made later is seen from its begin, short turns too", function()
  rig.sleep(1.5)
  local s = server.create { agent = "a" }
  messages(s, "one", "two")
  expect("all:" .. short(s) .. ":one", "all:" .. short(s) .. ":two", "all:" .. short(s) .. ":session.status_idle")
  messages(s, "three")
  expect("all:" .. short(s) .. ":three", "all:" .. short(s) .. ":session.status_idle")
  t.quiet = nil -- its stream stays open
end)
t.test("a session of before: from now on", function()
  messages(before, "new")
  expect("all:" .. short(before) .. ":new", "all:" .. short(before) .. ":session.status_idle")
  t.quiet = nil
end)
t.test("an error is logged, the next event comes", function()
  host.logs()
  messages(before, "raise", "after")
  expect("all:" .. short(before) .. ":raise", "all:" .. short(before) .. ":after", "all:" .. short(before) .. ":session.status_idle")
  t.match(host.logs(), "0 on all: .*on_test.lua:%d+: watcher broke.*traceback")
end)
t.test("one at a time per session, sessions side by side", function()
  local s = server.create { agent = "a" }
  messages(s, "slow", "then")
  rig.sleep(1.5)
  messages(before, "meanwhile")
  expect("all:" .. short(s) .. ":slow", "all:" .. short(before) .. ":meanwhile",
    "all:" .. short(before) .. ":session.status_idle", "slow done", "all:" .. short(s) .. ":then",
    "all:" .. short(s) .. ":session.status_idle")
  t.quiet = nil
end)
t.test("a broken stream loses nothing", function()
  server.cut(before, -17, "reset")
  messages(before, "gap")
  expect("all:" .. short(before) .. ":gap", "all:" .. short(before) .. ":session.status_idle")
end)
t.test("a reload goes on where the old scripts were", function()
  messages(before, "x1")
  t.control "reload"
  messages(before, "x2")
  expect("all:" .. short(before) .. ":x1", "all:" .. short(before) .. ":session.status_idle", "all:" .. short(before) .. ":x2",
    "all:" .. short(before) .. ":session.status_idle")
  t.quiet = nil
end)
t.test("a session that ends is let go", function()
  server.emit(before, { type = "session.status_terminated" })
  server.cut(before)
  before.wire.status = "terminated"
  rig.sleep(3)
  t.equal(#seen, 0)
  t.quiet = nil
end)
t.test("declaring: what is wrong says so", function()
  local function refused(text, pattern)
    t.write(dir .. "/x.lua", "require('moonrig').on " .. text)
    local answer = t.control "reload"
    os.remove(dir .. "/x.lua")
    t.match(answer.error, pattern)
  end
  refused("{ name = 'd', event = 'x', durable = true, run = print }", "durable watchers are not there yet")
  refused("{ name = 'd', run = print }", "event is missing")
  refused("{ name = 'd', event = { 5 }, run = print }", "event types are strings")
  refused("{ name = 'd', event = 'x' }", "run must be a function")
  refused("{ name = 'all', event = 'x', run = print }", 'watcher "all" is declared twice')
end)
rig.main(t.run)
