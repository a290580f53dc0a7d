-- rig.kv, and ctx:once on top of it.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local kv = rig.kv

local ran = {}
rig.tool { name = "effect", description = "Does it once", idempotent = true, run = function(input, ctx)
  local function once(key, fn) return ctx:once(key, fn) end
  if input.kind == "id" then return { ctx:idempotency_key "a", ctx.tool_use_id } end
  if input.kind == "dot" then return ctx.once("a", print) end
  if input.kind == "twice" then
    local a = once("k", function(key)
      ran[#ran + 1] = key
      return { n = #ran }
    end)
    local b = once("k", function() error "again" end)
    return { a, b }
  end
  if input.kind == "nothing" then
    once("n", function() ran[#ran + 1] = "nothing" end)
    return once("n", function() ran[#ran + 1] = "again" end)
  end
  if input.kind == "fails" then
    local _, e = once("f", function() return nil, "not yet" end)
    return { e, once("f", function() return "then" end) }
  end
  if input.kind == "raises" then
    local ok, e = pcall(once, "r", function() error("broke", 0) end)
    return { ok, e, once("r", function() return "then" end) }
  end
  if input.kind == "same time" then
    local a = rig.spawn(function() return once("s", function() rig.sleep(1) return "first" end) end)
    rig.sleep(0.1)
    local ok, e = pcall(once, "s", function() return "second" end)
    return { a:wait(), ok, tostring(e) }
  end
  if input.kind == "disk" then
    local v, e = once("d", function() ran[#ran + 1] = "disk" host.set("kv_fail", 1) return 1 end)
    return { v == nil, e.message }
  end
  if input.kind == "progress" then ctx.progress("half", 50) return "x" end
end }
local function effect(kind) return rig.json.decode((t.use("effect", { kind = kind }))) end

t.test("values are set, read and deleted", function()
  t.equal(kv.get "a", nil)
  t.equal(kv.set("a", { n = 1, list = rig.array(), s = "ü", big = rig.int "9007199254740993" }), true)
  t.equal(rig.json.encode(kv.get "a"), '{"big":9007199254740993,"list":[],"n":1,"s":"ü"}')
  for _, v in ipairs { 0, false, "", rig.null, 1.5 } do
    t.equal(kv.set("v", v), true)
    t.equal(kv.get "v", v)
  end
  t.equal(kv.delete "a", true)
  t.equal(kv.delete "a", true)
  t.equal(kv.get "a", nil)
end)
t.test("if_absent and ttl", function()
  t.equal(kv.set("lock", 1, { if_absent = true, ttl = 60 }), true)
  local ok, e = kv.set("lock", 2, { if_absent = true })
  t.equal(ok, nil)
  t.equal(e.status, 409)
  t.equal(kv.get "lock", 1)
  rig.sleep(61)
  t.equal(kv.get "lock", nil)
  t.equal(kv.set("lock", 2, { if_absent = true }), true)
end)
t.test("lists, page by page", function()
  for i = 1, 250 do kv.set(("p/%03d"):format(i), i) end
  kv.set("q", 1)
  local page, more = kv.list("p/", { limit = 2 })
  t.equal(page[2].key, "p/002")
  t.equal(page[2].value, 2)
  t.equal(more, true)
  page, more = kv.list("p/", { after = "p/249" })
  t.equal(#page, 1)
  t.equal(more, false)
  local n = 0
  for key, value in kv.each "p/" do
    n = n + 1
    t.equal(key, ("p/%03d"):format(n))
    t.equal(value, n)
  end
  t.equal(n, 250)
  for key in kv.each "nothing" do error(key) end
  host.set("kv_fail", 1)
  t.raises("disk is full", function() for _ in kv.each "p/" do end end)
end)
t.test("update loses nobody's change", function()
  kv.set("n", 0)
  local tasks = {}
  for i = 1, 20 do
    tasks[i] = rig.spawn(function()
      for _ = 1, 5 do assert(kv.update("n", function(old) return old + 1 end)) end
    end)
  end
  rig.task.join(tasks)
  t.equal(kv.get "n", 100)
  t.equal(kv.update("n", function() return nil end), 100)
  local v, e = kv.update("n", function() return nil, "no" end)
  t.equal(v, nil)
  t.equal(e, "no")
  t.equal(kv.update("new", function(old) return { old == nil } end)[1], true)
  t.equal(kv.get "n", 100)
end)
t.test("incr counts, and keeps the time to live", function()
  t.equal(kv.incr "c", 1)
  t.equal(kv.incr("c", 5), 6)
  t.equal(kv.incr("c", -2.5), 3.5)
  kv.set("hits", 1, { ttl = 100 })
  t.equal(kv.incr "hits", 2)
  rig.sleep(50)
  t.equal(kv.incr "hits", 3)
  rig.sleep(51)
  t.equal(kv.get "hits", nil)
  kv.set("text", "x")
  local v, e = kv.incr "text"
  t.equal(v, nil)
  t.match(e.message, 'does not hold a number')
end)
t.test("failures are nil, err", function()
  for _, fn in ipairs {
    function() return kv.get "a" end, function() return kv.set("a", 1) end, function() return kv.delete "a" end,
    function() return kv.list "a" end, function() return kv.incr "a" end,
  } do
    host.set("kv_fail", 1)
    local v, e = fn()
    t.equal(v, nil)
    t.equal(e.message, "the disk is full")
    t.equal(e.retryable, true)
  end
end)
t.test("misuse raises at the line", function()
  t.raises("kv_test.lua:%d+: .*key is a string", function() return (kv.get()) end)
  t.raises("1 to 512 bytes", kv.get, "")
  t.raises("1 to 512 bytes", kv.get, ("x"):rep(513))
  t.raises("there is no value", kv.set, "a")
  t.raises("unknown option tll", kv.set, "a", 1, { tll = 1 })
  t.raises("ttl is seconds", kv.set, "a", 1, { ttl = 0 })
  t.raises("limit is from 1 to 1000", kv.list, "", { limit = 0 })
  t.raises("after is a key", kv.list, "", { after = 5 })
  t.raises("needs a function", kv.update, "a")
  t.raises("by is a number", kv.incr, "a", "1")
  t.raises("cannot encode a function", kv.set, "a", print)
end)

t.test("once: a finished one is not started again", function()
  ran = {}
  local r = effect "twice"
  t.equal(r[1].n, 1)
  t.equal(r[2].n, 1)
  t.equal(#ran, 1)
  t.match(ran[1], "^sesn_1/sevt_%d+/k$")
  effect "twice" -- another call: another record
  t.equal(#ran, 2)
  t.ok(ran[1] ~= ran[2])
  ran = {}
  t.use("effect", { kind = "nothing" })
  t.equal(table.concat(ran, " "), "nothing")
end)
t.test("once: failures are not recorded", function()
  local r = effect "fails"
  t.equal(r[1], "not yet")
  t.equal(r[2], "then")
  r = effect "raises"
  t.equal(r[1], false)
  t.equal(r[2], "broke")
  t.equal(r[3], "then")
end)
t.test("once: the same key at the same time says so", function()
  local r = effect "same time"
  t.equal(r[1], "first")
  t.equal(r[2], false)
  t.match(r[3], '"s" is under way in this call already')
end)
t.test("once: what could not be recorded is an error", function()
  ran = {}
  local r = effect "disk"
  t.equal(r[1], true)
  t.equal(r[2], "the disk is full")
  t.match(host.logs(), "d finished, but that could not be recorded")
end)
t.test("once: how it is called; keys; progress is a line in the log", function()
  local r = effect "id"
  t.equal(r[1], "sesn_1/" .. r[2] .. "/a")
  t.match((select(2, t.use("effect", { kind = "dot" }))), "call it with a colon")
  t.use("effect", { kind = "progress" })
  t.match(host.logs(), "2 tool effect: half 50")
end)
rig.main(t.run)
