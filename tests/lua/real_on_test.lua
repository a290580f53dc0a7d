-- On the real runtime: watchers see turns, durable values last, ctx:once records, and a reload hands over.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local dir = os.getenv "SCRIPTS"

local seen, asked = {}, {}
rig.on { name = "turns", event = { "user.message", "session.status_idle" }, agent = "tester", durable = true,
  run = function(ev, session)
    rig.sleep(0.01)
    seen[#seen + 1] = session.id .. " " .. (ev.type == "user.message" and ev.content[1].text or ev.stop_reason.type)
    asked[#asked + 1] = assert(session:refresh()).status
    rig.kv.incr("seen/" .. session.id)
    if ev.type == "user.message" and ev.content[1].text == "raise" then error "watcher broke" end
  end }
local once = rig.tool { name = "once", description = "Once", idempotent = true, run = function(_, ctx)
  local n = ctx:once("a", function(key) return { key = key, n = rig.kv.incr "effects" } end)
  local m = ctx:once("a", function() error "again" end)
  return { n.n, m.n, n.key == ctx:idempotency_key "a" }
end }
local agent = rig.agent { name = "tester", model = "test-1", tools = { once } }
local other = rig.agent { name = "other", model = "test-1" }
rig.provider { name = "test", models = "test-*", run = function(request)
  local last = request.messages[#request.messages]
  local content = type(last.content) == "string" and { { type = "text", text = last.content } } or last.content
  if content[1].type == "tool_result" then
    local c = content[1].content
    return type(c) == "string" and c or c[1].text
  end
  if content[#content].text == "once" then return { { type = "tool_use", name = "once", input = {} } } end
  return "yes"
end }

local function expect(s, ...)
  local want = { ... }
  t.wait(function() return #seen >= #want or nil end, "events: " .. table.concat(seen, "|"))
  for i, text in ipairs(want) do t.equal(seen[i], s.id .. " " .. text) end
  t.equal(#seen, #want)
  for i = #seen, 1, -1 do seen[i] = nil end
end

t.test("a turn is seen, in order, after it is stored", function()
  local s = assert(rig.session { agent = agent })
  assert(s:ask "hello")
  assert(s:ask "raise")
  expect(s, "hello", "end_turn", "raise", "end_turn")
  t.equal(rig.kv.get("seen/" .. s.id), 4)
  t.match(host.logs(), "on turns: .*real_on_test.lua:%d+: watcher broke")
  t.equal(asked[4], "idle")
  t.quiet = nil
end)
t.test("another agent's session is not seen", function()
  assert(assert(rig.session { agent = other }):ask "hello")
  local s = assert(rig.session { agent = agent })
  assert(s:ask "mine")
  expect(s, "mine", "end_turn")
  t.quiet = nil
end)
t.test("sessions side by side, each in order", function()
  local list = {}
  for i = 1, 12 do list[i] = i end
  local ids = assert(rig.map(list, function(i)
    local s = assert(rig.session { agent = agent })
    for k = 1, 3 do assert(s:ask(i .. "." .. k)) end
    return s.id
  end, { concurrency = 12 }))
  t.wait(function() return #seen >= 72 or nil end, "events: " .. #seen)
  for i, id in ipairs(ids) do
    local k = 0
    for _, line in ipairs(seen) do
      if line:find(id, 1, true) and not line:find "end_turn" then
        k = k + 1
        t.equal(line, id .. " " .. i .. "." .. k)
      end
    end
    t.equal(k, 3)
  end
  for i = #seen, 1, -1 do seen[i] = nil end
  t.quiet = nil
end)
t.test("once on the real store", function()
  local r = assert(assert(rig.session { agent = agent }):ask "once")
  t.equal(r.text, "[1,1,true]")
  t.equal(rig.kv.get "effects", 1)
  t.wait(function() return #seen >= 2 or nil end)
  for i = #seen, 1, -1 do seen[i] = nil end
  t.quiet = nil
end)
t.test("values: pages, expectations, time to live, many at once", function()
  local list = {}
  for i = 1, 300 do list[i] = i end
  assert(rig.map(list, function(i) return rig.kv.set(("k/%03d"):format(i), { i = i }) end, { concurrency = 50 }))
  local n = 0
  for key, value in rig.kv.each "k/" do
    n = n + 1
    t.equal(key, ("k/%03d"):format(n))
    t.equal(value.i, n)
  end
  t.equal(n, 300)
  assert(rig.map(list, function() return rig.kv.incr "counter" end, { concurrency = 10 }))
  t.equal(rig.kv.get "counter", 300)
  assert(rig.kv.set("brief", 1, { ttl = 0.05 }))
  rig.sleep(0.1)
  t.equal(rig.kv.get "brief", nil)
  local _, e = rig.kv.set("counter", 1, { if_absent = true })
  t.equal(e.status, 409)
  local v
  v, e = rig.kv.set("big", ("x"):rep(1100000))
  t.equal(v, nil)
  t.equal(e.status, 413)
  t.equal(e.field, "value")
  _, e = rig.kv.set("bad \255", 1)
  t.equal(e.field, "key")
end)
t.test("a reload takes a watcher over; one that left is gone", function()
  t.write(dir .. "/late.lua", [[local rig = require "moonrig"
    rig.on { name = "late", event = "session.status_idle", run = function(ev, s) rig.kv.set("late/" .. s.id, rig.generation()) end }]])
  local before = host.generation()
  host.reload()
  t.wait(function() return host.generation() > before or nil end)
  local s = assert(rig.session { agent = agent })
  assert(s:ask "one")
  t.equal(t.wait(function() return rig.kv.get("late/" .. s.id) end), before + 1)
  t.equal(t.wait(function() return rig.kv.get("seen/" .. s.id) == 2 or nil end), true)
  os.remove(dir .. "/late.lua")
  host.reload()
  t.wait(function() return host.generation() > before + 1 or nil end)
  local s2 = assert(rig.session { agent = agent })
  assert(s2:ask "two")
  t.wait(function() return rig.kv.get("seen/" .. s2.id) == 2 or nil end)
  t.equal(rig.kv.get("late/" .. s2.id), nil)
  t.quiet = nil
end)
rig.main(t.run)
