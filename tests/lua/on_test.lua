-- rig.on: what the core is told, and what becomes of an event. Order, positions and catching up are the core's
-- (tests/unit/host_on); real_on_test has both together.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local dir = os.getenv "SCRIPTS"
host.seen_by = host.seen_by or {}
local seen = host.seen_by

rig.on { name = "all", event = { "agent.message", "session.status_idle" }, timeout = 5, run = function(ev, session)
  seen[#seen + 1] = ev.text .. " " .. session.id .. " " .. rig.generation()
  if ev.text == "raise" then error "watcher broke" end
  if ev.text == "slow" then rig.sleep(3) end
  if ev.text == "late" then rig.sleep(1000) end
  if ev.text == "stubborn" then for _ = 1, 3 do pcall(rig.sleep, 1000) end end
  if ev.text == "loop" then while true do end end
  if ev.text == "reload" then
    rig.sleep(2)
    seen[#seen + 1] = "still " .. rig.generation()
  end
end }
rig.on { name = "pager", event = "session.error", agent = "payer", durable = true, run = function() end }

local function show(text)
  return host.seen("all", rig.json.encode { type = "agent.message", text = text })
end
local function ended(id) return t.wait(function() return host.state(id) end, "the end of an event") end

t.test("what the core was told", function()
  local name, filter, flags = host.registered("o", 1)
  t.equal(name .. " " .. filter .. flags, 'all ["agent.message","session.status_idle"] 0')
  name, filter, flags = host.registered("o", 2)
  t.equal(name .. " " .. filter .. " " .. flags, 'pager ["session.error"] payer 1')
end)
t.test("an event is handled by a task, and done when that ends", function()
  local id = show "slow"
  rig.sleep(1)
  t.equal(host.state(id), nil)
  t.equal(table.remove(seen), "slow sesn_1 1")
  t.equal(ended(id), "done")
end)
t.test("an error is logged with its traceback, and the event is done", function()
  host.logs()
  t.equal(ended(show "raise"), "done")
  t.match(host.logs(), "0 on all: .*on_test.lua:%d+: watcher broke.*traceback")
end)
t.test("over its time it is cancelled, said, and done", function()
  for _, kind in ipairs { "late", "stubborn" } do
    host.logs()
    local from = host.clock()
    t.equal(ended(show(kind)), "done")
    local took = host.clock() - from
    t.ok(took >= 5 and took < 6, "took " .. took)
    if kind == "late" then t.match(host.logs(), "on all: cancelled: it was over its time") end
  end
end)
t.test("one that runs away is stopped", function()
  t.equal(ended(show "loop"), "done")
  t.match(host.logs(), "on all: .*time budget")
end)
t.test("an event stays on its generation, the next is on the new one", function()
  for i = #seen, 1, -1 do seen[i] = nil end
  local id = show "reload"
  rig.sleep(0.5)
  t.control "reload"
  t.equal(ended(show "new"), "done")
  t.equal(ended(id), "done")
  t.equal(table.concat(seen, "|"), "reload sesn_1 1|new sesn_1 2|still 1")
  t.equal(host.count "o", 2)
end)
t.test("a watcher comes and goes with a reload; a broken one changes nothing", function()
  t.write(dir .. "/x.lua", "require('moonrig').on { name = 'x', event = 'y', run = print }")
  t.control "reload"
  t.equal(host.count "o", 3)
  t.write(dir .. "/x.lua", "require('moonrig').on { name = 'z', event = 'y', run = print } error 'broken'")
  t.control "reload"
  t.equal(host.count "o", 3)
  t.equal(host.registered("o", 4), nil)
  os.remove(dir .. "/x.lua")
  t.control "reload"
  t.equal(host.count "o", 2)
  t.control "rollback"
  t.equal(host.count "o", 3)
  t.control "reload"
  t.equal(host.count "o", 2)
end)
t.test("declaring: what is wrong says so", function()
  local function refused(text, pattern)
    t.write(dir .. "/x.lua", "require('moonrig').on " .. text)
    local answer = t.control "reload"
    os.remove(dir .. "/x.lua")
    t.match(answer.error, pattern)
  end
  refused("{ name = 'd', run = print }", "event is missing")
  refused("{ name = 'd', event = {}, run = print }", "event is missing")
  refused("{ name = 'd', event = { 5 }, run = print }", "event types are strings")
  refused("{ name = 'd', event = 'x' }", "run must be a function")
  refused("{ name = 'd', event = 'x', run = print, durable = 1 }", "durable must be a boolean")
  refused("{ name = 'd', event = 'x', run = print, timeout = 0 }", "timeout is seconds")
  refused("{ name = '', event = 'x', run = print }", "name has 1 to 128 bytes")
  refused("{ name = 'd', event = 'x', run = print, agnet = 'a' }", "unknown option agnet")
  refused("{ name = 'all', event = 'x', run = print }", 'watcher "all" is declared twice')
end)
rig.main(t.run)
