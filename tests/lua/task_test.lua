local rig = require "moonrig"
local host = require "host"
local t = require "kit"

-- ---------------------------------------------------------------- where a task may wait
t.test("yields inside pcall, metamethods, iterators", function()
  local ok, v = pcall(function()
    rig.sleep(0.01)
    return 7
  end)
  t.ok(ok)
  t.equal(v, 7)
  local lazy = setmetatable({}, { __index = function(_, k)
    rig.sleep(0.01)
    return k .. "!"
  end })
  t.equal(lazy.a, "a!")
  local function slow(n)
    return function(_, i)
      rig.sleep(0.01)
      if i < n then return i + 1 end
    end, nil, 0
  end
  local sum = 0
  for i in slow(4) do sum = sum + i end
  t.equal(sum, 10)
end)
t.test("user coroutines, two deep, may wait", function()
  local inner = coroutine.wrap(function(a)
    rig.sleep(0.01)
    local b = coroutine.yield(a + 1)
    rig.sleep(0.01)
    return b * 2
  end)
  local outer = coroutine.create(function(a)
    local x = inner(a)
    rig.sleep(0.01)
    local y = coroutine.yield(x)
    return inner(y)
  end)
  local ok, x = coroutine.resume(outer, 1)
  t.ok(ok)
  t.equal(x, 2)
  rig.sleep(0.01)
  local ok2, y = coroutine.resume(outer, 21)
  t.ok(ok2)
  t.equal(y, 42)
  t.equal(coroutine.status(outer), "dead")
  t.equal(select("#", (coroutine.wrap(function() rig.sleep(0) return nil, nil end))()), 2)
end)
t.test("sort, gsub and require refuse cleanly, with nothing armed", function()
  t.raises("cannot wait here", table.sort, { 3, 2, 1 }, function(a, b)
    rig.sleep(0.01)
    return a < b
  end)
  t.raises("cannot wait here", string.gsub, "abc", ".", function() rig.sleep(0.01) end)
  t.write(os.getenv "SCRIPTS" .. "/../waits.lua", "require('moonrig').sleep(1)")
  package.path = os.getenv "TMP" .. "/?.lua;" .. package.path
  t.raises("cannot wait here", require, "waits")
  t.raises("cannot wait here", table.sort, { 2, 1 }, function() rig.http.get "http://x" end)
  t.match(host.open(), "timers=0 calls=0")
end)
t.test("waiting outside of a task is refused", function()
  t.raises("seconds", rig.sleep, -1)
  t.raises("seconds", rig.sleep, 0 / 0)
  t.raises("number expected", rig.sleep, "soon")
end)
t.test("a bare yield ends the task, not the program", function()
  local task = rig.spawn(function() coroutine.yield(1) end)
  local e = t.raises("", function() task:wait() end)
  t.match(host.logs(), "coroutine.yield outside")
  t.ok(e)
end)

t.test("a coroutine inside of sort cannot wait either, and nothing is armed", function()
  local function cannot(fn)
    t.raises("cannot wait here", fn)
    t.match(host.open(), "timers=0 calls=0")
    t.match(host.open(), "pends=0")
    rig.sleep(0.01) -- the task is as good as before
  end
  cannot(function()
    table.sort({ 3, 2, 1 }, function(a, b)
      coroutine.wrap(function() rig.sleep(0.01) end)()
      return a < b
    end)
  end)
  cannot(function()
    local outer = coroutine.wrap(function()
      local inner = coroutine.wrap(function() rig.sleep(0.01) end)
      return (("x"):gsub("x", function() inner() end))
    end)
    outer()
  end)
  if not t.jit then cannot(function() tostring(setmetatable({}, { __tostring = function() rig.sleep(0.01) return "x" end })) end) end
  cannot(function()
    local ok, e = pcall(table.concat, { 1, 2 }, ", ", 1, 2)
    t.ok(ok, e)
    local reader = function() rig.sleep(0.01) return nil end
    local f, why = load(reader)
    error(why or "no error", 0)
  end)
  local said
  xpcall(error, function(e)
    said = select(2, pcall(rig.sleep, 0.01))
    return e
  end, "x")
  t.match(said, "cannot wait here")
  t.match(host.open(), "timers=0 calls=0")
end)
t.test("a coroutine that waits belongs to its task", function()
  local c
  local a = rig.spawn(function()
    c = coroutine.create(function() rig.sleep(0.5) return "mine" end)
    return select(2, coroutine.resume(c))
  end)
  rig.sleep(0.1)
  t.equal(coroutine.status(c), "normal")
  local ok, e = coroutine.resume(c, "intruder")
  t.equal(ok, false)
  t.match(e, "coroutine that waits")
  if coroutine.close then t.raises("coroutine that waits", coroutine.close, c) end
  t.equal(a:wait(), "mine")
end)
t.test("to-be-closed variables and finalizers", function()
  if t.jit then return end
  local fn = load [[
    local rig, log, loop = ...
    local v <close> = setmetatable({}, { __close = function()
      rig.sleep(0.01)
      log[#log + 1] = "closed"
      if loop then while true do end end
    end })
    if loop then error "out" end]]
  local log = {}
  fn(rig, log)
  t.equal(log[1], "closed")
  local task = rig.spawn(fn, rig, log, true)
  t.raises("time budget", task.wait, task)
  local said
  do setmetatable({}, { __gc = function() said = select(2, pcall(rig.sleep, 1)) end }) end
  collectgarbage()
  collectgarbage()
  t.match(said, "cannot wait here")
  t.match(host.open(), "timers=0 calls=0")
end)
t.test("to-be-closed variables of a task that was stopped are closed, within a budget", function()
  if t.jit then return end
  local closed
  local fn = load [[
    local set = ...
    local v <close> = setmetatable({}, { __close = function() set() while true do end end })
    coroutine.yield()]]
  local task = rig.spawn(fn, function() closed = true end)
  t.raises("", task.wait, task)
  t.ok(closed)
  host.logs()
end)

-- ---------------------------------------------------------------- several at once
t.test("sleep takes its time, tasks run side by side", function()
  local from, order = host.clock(), {}
  local a = rig.spawn(function(x) rig.sleep(0.3) order[#order + 1] = x return x, nil, 3 end, "a")
  local b = rig.spawn(function() rig.sleep(0.1) order[#order + 1] = "b" end)
  t.equal(select("#", a:wait()), 3)
  b:wait()
  t.equal(table.concat(order), "ba")
  local took = host.clock() - from
  t.ok(took >= 0.3 and took < 0.35, "time " .. took)
end)
t.test("map keeps order and the limit", function()
  local now, most = 0, 0
  local r = rig.map({ 5, 4, 3, 2, 1 }, function(x, i)
    now = now + 1
    most = math.max(most, now)
    rig.sleep(x / 100)
    now = now - 1
    return x * 10 + i
  end, { concurrency = 2 })
  t.equal(table.concat(r, " "), "51 42 33 24 15")
  t.equal(most, 2)
end)
t.test("map: the first failure cancels the rest", function()
  local ran = {}
  local r, e = rig.map({ 1, 2, 3 }, function(x)
    if x == 2 then return nil, "no " .. x end
    rig.sleep(1)
    ran[#ran + 1] = x
    return x
  end)
  t.equal(r, nil)
  t.equal(e, "no 2")
  t.equal(#ran, 0)
  r, e = rig.map({ 1, 2, 3 }, function(x)
    if x == 2 then return nil, "no" end
    return x
  end, { on_error = "collect" })
  t.equal(r[3], 3)
  t.equal(e[2], "no")
  t.raises("boom", rig.map, { 1, 2 }, function(x) if x == 1 then error "boom" end rig.sleep(5) end)
end)
t.test("all, by key and by place", function()
  local r = rig.all { a = function() rig.sleep(0.02) return 1 end, b = function() return 2 end }
  t.equal(r.a + r.b, 3)
  t.equal(rig.all({ function() return "x" end, function() return "y" end })[2], "y")
  t.equal(#rig.all {}, 0)
  t.equal(#rig.map({}, function() end), 0)
end)
t.test("a task's error is raised where it is waited for", function()
  local task = rig.spawn(function() rig.sleep(0.01) error { type = "mine", message = "inner" } end)
  t.equal(t.raises("inner", task.wait, task).type, "mine")
end)
t.test("children end with their parent", function()
  local beat = 0
  local parent = rig.spawn(function()
    rig.spawn(function() while true do rig.sleep(0.01) beat = beat + 1 end end)
    rig.sleep(0.05)
  end)
  parent:wait()
  local was = beat
  rig.sleep(0.2)
  t.ok(was > 0)
  t.ok(beat <= was + 1, "beat")
end)

t.test("join: one, or a list in order", function()
  local function after(s, v) return rig.task.spawn(function() rig.sleep(s) return v end) end
  t.equal(rig.task.join(after(0.01, "x")), "x")
  t.equal(table.concat(rig.task.join { after(0.03, "a"), after(0.01, "b") }), "ab")
  t.raises("boom", rig.task.join, { rig.spawn(function() error "boom" end) })
  t.raises("task or a list", rig.task.join, 5)
  local me
  me = rig.spawn(function() return pcall(me.wait, me) end)
  t.equal(me:wait(), false)
end)
t.test("race: the first wins, the others are cancelled", function()
  local log = {}
  local from = host.clock()
  local k, a, b = rig.race {
    slow = function()
      local ok, e = pcall(rig.sleep, 100)
      log[1] = e.type
      error(e, 0)
    end,
    quick = function() rig.sleep(0.1) return "q", 2 end,
  }
  t.equal(k, "quick")
  t.equal(a .. b, "q2")
  t.equal(log[1], "cancelled")
  t.ok(host.clock() - from < 1, "time")
  t.raises("first to fail", rig.race, { function() rig.sleep(5) end, function() error "first to fail" end })
  t.equal(rig.race { function() end }, 1)
  t.raises("at least one", rig.race, {})
  t.raises("needs functions, got number at 1", rig.race, { 5 })
  local timed_out = rig.race { work = function() rig.sleep(10) end, late = function() rig.sleep(1) end }
  t.equal(timed_out, "late")
end)
t.test("options are checked", function()
  t.raises("concurrency is a number", rig.map, { 1 }, print, { concurrency = 0 })
  t.raises("on_error is", rig.all, { print }, { on_error = "ignore" })
  t.raises("needs a list", rig.map, nil, print)
  t.raises("needs a function", rig.map, {}, nil)
  t.raises("spawn needs a function", rig.spawn, nil)
end)
t.test("results of map and all may be false, or nothing", function()
  local r = rig.map({ 1, 2, 3 }, function(x) if x == 2 then return false end if x == 3 then return x end end)
  t.equal(r[1], nil)
  t.equal(r[2], false)
  t.equal(r[3], 3)
end)

-- ---------------------------------------------------------------- cancel
t.test("cancel is sticky and undoes at once", function()
  local seen = {}
  local task = rig.spawn(function()
    for _ = 1, 3 do
      local ok, e = pcall(rig.sleep, 100)
      seen[#seen + 1] = tostring(ok) .. " " .. e.type
    end
    local ok, e = pcall(rig.spawn, function() end)
    seen[#seen + 1] = tostring(ok) .. " " .. e.type
  end)
  rig.sleep(0.01)
  t.match(host.open(), "timers=1")
  task:cancel "enough"
  t.match(host.open(), "timers=0")
  task:wait()
  t.equal(table.concat(seen, ", "), "false cancelled, false cancelled, false cancelled, false cancelled")
end)
t.test("a task that was cancelled before it began never runs", function()
  local ran = false
  local task = rig.spawn(function() ran = true end)
  task:cancel()
  t.raises("cancelled", task.wait, task)
  t.equal(ran, false)
end)
t.test("a late completion of a cancelled wait is dropped", function()
  local call
  host.op("agents.retrieve", function(_, id)
    call = id
    return host.LATER
  end)
  local task = rig.spawn(function() return rig.agents.retrieve "agent_1" end)
  t.wait(function() return call end)
  task:cancel()
  t.equal(host.cancelled_calls(), 1)
  host.reply(call, '{"id":"agent_1"}') -- too late: cancelled already
  local e = t.raises("", task.wait, task)
  t.equal(e.type, "cancelled")
end)
t.test("a cancelled map leaves nothing", function()
  local task = rig.spawn(function() rig.map({ 1, 2, 3 }, function() rig.sleep(100) end) end)
  rig.sleep(0.01)
  task:cancel()
  t.raises("cancel", task.wait, task)
end)
t.test("a coroutine that waits is cancelled through", function()
  local where
  local task = rig.spawn(function()
    local co = coroutine.wrap(function()
      local ok, e = pcall(rig.sleep, 50)
      where = tostring(ok) .. " " .. e.type
      error(e, 0)
    end)
    co()
  end)
  rig.sleep(0.01)
  task:cancel()
  t.raises("cancel", task.wait, task)
  t.equal(where, "false cancelled")
end)

-- ---------------------------------------------------------------- budgets
t.test("a runaway loop is stopped", function()
  t.raises("time budget", function() rig.spawn(function() while true do end end):wait() end)
end)
t.test("pcall loops and handlers cannot swallow it", function()
  t.raises("time budget", function()
    rig.spawn(function()
      while true do pcall(function() while true do end end) end
    end):wait()
  end)
  t.raises("time budget", function()
    rig.spawn(function()
      while true do
        pcall(function() xpcall(function() while true do end end, function() return 1 end) end)
      end
    end):wait()
  end)
  local task = rig.spawn(function()
    while true do
      local co = coroutine.wrap(function() while true do pcall(function() while true do end end) end end)
      pcall(co)
    end
  end)
  t.raises("time budget", task.wait, task)
end)
t.test("a cancelled task that never ends is stopped", function()
  local task = rig.spawn(function()
    while true do pcall(rig.sleep, 100) end
  end)
  rig.sleep(0.01)
  task:cancel()
  t.raises("", task.wait, task)
end)
t.test("long work in pieces is fine", function()
  local task = rig.spawn(function()
    for _ = 1, 20 do
      local stop = os.clock() + 0.03
      while os.clock() < stop do end
      rig.sleep(0)
    end
    return "done"
  end)
  t.equal(task:wait(), "done")
end)
t.test("what waits in a C function is not computing", function()
  local task = rig.spawn(function()
    os.execute "sleep 0.6"
    local n = 0
    for i = 1, 1e5 do n = n + i end
    return "done"
  end)
  t.equal(task:wait(), "done")
end)
t.test("the memory cap", function()
  local task = rig.spawn(function()
    local s = {}
    for i = 1, 1e9 do s[i] = ("x"):rep(1e6) .. i end
  end)
  t.raises("not enough memory", task.wait, task)
  collectgarbage()
  t.equal(#("y"):rep(1e6), 1e6)
end)
t.test("memory bombs of all kinds end their task alone", function()
  local bombs = {
    function() return ("x"):rep(1e9) end,
    function() local s = "x" while true do s = s .. s end end,
    function() local s = {} while true do s[#s + 1] = {} end end,
    function() local s = {} while true do s[#s + 1] = coroutine.create(print) end end,
    function() local all = {} while true do all[#all + 1] = ("%d"):format(#all):rep(1000) end end,
    function() return rig.json.encode(("y"):rep(5e7) .. "x") .. ("z"):rep(5e7) end,
    function() return table.concat({ ("a"):rep(3e7), ("b"):rep(3e7), ("c"):rep(3e7) }) end,
    function()
      local s = {}
      while true do
        pcall(function() while true do s[#s + 1] = ("x"):rep(1e5) .. #s end end)
        rig.sleep(0)
        if #s > 300 then error "not enough memory, and time to stop" end
      end
    end,
  }
  local witness = rig.spawn(function()
    for _ = 1, 100 do rig.sleep(0.01) end
    return "alive"
  end)
  for i, bomb in ipairs(bombs) do
    local task = rig.spawn(bomb)
    local ok, e = pcall(task.wait, task)
    t.ok(not ok, "bomb " .. i)
    local text = type(e) == "table" and e.message or e
    t.ok(type(text) == "string", ("bomb %d raised %s (%s %s)"):format(i, tostring(e), tostring(task.ok), tostring(task.failure)))
    if not (text:find "memory" or text:find "too large" or text:find "time budget" or text:find "string length") then
      error(("bomb %d: %s"):format(i, text))
    end
    task, e = nil, nil
    collectgarbage()
  end
  t.equal(witness:wait(), "alive")
end)
t.test("garbage alone does not reach the limit", function()
  local task = rig.spawn(function()
    for _ = 1, 60 do
      local s = {}
      for i = 1, 10 do s[i] = ("x"):rep(1e6) .. i end
      rig.sleep(0)
    end
    return "done"
  end)
  t.equal(task:wait(), "done")
end)
t.test("recursion of all kinds ends its task alone", function()
  local function via_pcall() return pcall(function() return (via_pcall()) end) end
  via_pcall = nil
  local deep = {
    function() local function f() return 1 + f() end return f() end,
    function() local function f() local ok, v = pcall(f) return ok and v end f() error "stack overflow was caught" end,
    function() local function f() return (("x"):gsub("x", f)) end return f() end,
    function() local mt = {} mt.__index = function(s, k) return s[k .. "x"] end return setmetatable({}, mt).a end,
    function() local function f() return coroutine.wrap(f)() end return f() end,
    function() local function f() table.sort({ 2, 1 }, f) end return f() end,
    function() local mt = {} mt.__tostring = function(s) return tostring(s) end return tostring(setmetatable({}, mt)) end,
    function() local function h() return error "again" end return select(2, xpcall(error, h, "x")):rep(1) .. nil end,
  }
  for i, fn in ipairs(deep) do
    local task = rig.spawn(fn)
    local ok, e = pcall(task.wait, task)
    t.ok(not ok, "recursion " .. i)
    task, e = nil, nil
    collectgarbage()
  end
  t.equal((rig.spawn(function() return "alive" end)):wait(), "alive")
end)
t.test("error values of all kinds", function()
  local odd = { 5, false, {}, setmetatable({}, { __tostring = function() error "in tostring" end }), print, coroutine.create(print),
    setmetatable({}, { __index = function() error "in index" end }) }
  for i = 1, #odd do
    local task = rig.spawn(function() error(odd[i], 0) end)
    local ok, e = pcall(task.wait, task)
    t.equal(ok, false)
    t.ok(rawequal(e, odd[i]), "error " .. i)
  end
  local task = rig.spawn(function() error(nil) end)
  t.equal(pcall(task.wait, task), false)
end)
t.test("a budget stops where the user's code is", function()
  local e = t.raises("time budget", function() rig.spawn(function() while true do end end):wait() end)
  t.match(type(e) == "table" and e.message or e, "task_test.lua:%d+: time budget spent")
end)
t.test("a spent coroutine works again in a later slice", function()
  local c
  local task = rig.spawn(function()
    c = coroutine.create(function()
      while true do
        pcall(function() while true do end end)
        coroutine.yield "out"
      end
    end)
    coroutine.resume(c)
  end)
  pcall(task.wait, task)
  local n = 0
  local ok = rig.spawn(function()
    local d = coroutine.wrap(function() for i = 1, 1e5 do n = i end end)
    d()
  end)
  ok:wait()
  t.equal(n, 1e5)
end)
t.test("too many tasks is an error", function()
  local task = rig.spawn(function()
    for _ = 1, 11000 do rig.spawn(function() rig.sleep(1000) end) end
  end)
  t.raises("too many tasks", task.wait, task)
end)
t.test("a full queue is an error that may be tried again", function()
  host.set("full", 1)
  local r, e = rig.agents.retrieve "agent_1"
  host.set("full", 0)
  t.equal(r, nil)
  t.equal(e.retryable, true)
end)
rig.main(t.run)
