-- options: -w
-- Reload under load: 200 calls wait in a handler while its file is edited ten times, three times wrongly.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local dir = os.getenv "SCRIPTS"

local CALLS = 200

-- Each version says who it is at the begin, after the wait, and through a module it requires late.
local function write(version, broken)
  t.write(dir .. "/part.lua", ("return { version = %q }"):format(version))
  t.write(dir .. "/_late" .. version .. ".lua", ("return %q"):format(version))
  t.write(dir .. "/tool.lua", ([[
local rig = require "moonrig"
local part = require "part"
local version = %q
counter = (counter or 0) + 1
%s
return rig.tool { name = "slow", description = "Waits", idempotent = true, %s
  run = function(input, ctx)
    local before = part.version
    counter = counter + 1
    rig.sleep(input.wait)
    local inner = coroutine.wrap(function() rig.sleep(0.5) return part.version end)()
    rig.map({ 1, 2 }, function() rig.sleep(0.2) end)
    return table.concat({ version, before, part.version, inner, require("_late" .. version), ctx.generation }, " ")
  end }]]):format(version, broken and broken.code or "", broken and broken.option or ""))
end

local breaks = {
  [3] = { code = "local x = = 1", why = "tool.lua:5: unexpected symbol" },
  [6] = { code = "assert(version == 'nothing', 'the check of this version fails')", why = "the check of this version fails" },
  [8] = { option = "input_schema = { type = 'object', properties = { wait = { type = 'numbr' } } },", why = 'tool "slow": input_schema.properties.wait.type: numbr' },
}
local function reload_by_watch()
  host.touch(dir .. "/tool.lua")
  rig.sleep(0.05)
end

t.test("the first version", function()
  write "v0"
  reload_by_watch()
  t.quiet = nil
  t.match(t.use("slow", { wait = 0 }), "^\"v0 v0 v0 v0 v0 2\"$")
end)

t.test("no call is lost, each is wholly of one generation, broken edits change nothing", function()
  local uses, expected = {}, {}
  local good, generation = "v0", host.generation()
  local function start(n)
    for i = 1, n do
      local id = host.use("slow", ('{"wait":%d}'):format(20 + i % 7))
      uses[#uses + 1] = id
      expected[id] = { good, generation }
    end
    rig.sleep(0.01) -- they are accepted
  end
  start(CALLS)
  for edit = 1, 10 do
    local broken = breaks[edit]
    write("v" .. edit, broken)
    reload_by_watch()
    local now, shown = host.generation()
    if broken then
      t.equal(now, generation, "generation after a broken edit")
      t.match(shown, broken.why)
      t.match(host.logs(), "refused, generation " .. generation .. " stays: ")
    else
      t.equal(now, generation + 1, "generation after edit " .. edit)
      t.equal(shown, "")
      good, generation = "v" .. edit, now
    end
    start(10) -- calls of this edit, on what is current then
    rig.sleep(0.5)
  end
  for _, id in ipairs(uses) do t.equal(host.state(id), nil, "a call that should still wait") end
  local answered = 0
  for _, id in ipairs(uses) do
    local result, e = t.wait(function() return host.state(id) end, "call " .. id)
    if not result then error(e, 2) end
    local v, g = expected[id][1], expected[id][2]
    -- What was read at load is of the generation. A module that is first required late comes from disk.
    t.equal(result, ('"%s %s %s %s %s %d"'):format(v, v, v, v, v, g), "result of a call on " .. v)
    answered = answered + 1
  end
  t.equal(answered, CALLS + 100)
  t.equal(generation, 9) -- 2, and seven good edits
end)

t.test("rollback and back, under load", function()
  local before = host.generation()
  local id = host.use("slow", '{"wait":30}')
  rig.sleep(0.01)
  t.equal(t.control("rollback").generation, before - 1)
  t.match(t.use("slow", { wait = 0 }), "^\"v9 ")
  local during = host.use("slow", '{"wait":30}')
  rig.sleep(0.01)
  t.equal(t.control("rollback").generation, before)
  t.match(t.use("slow", { wait = 0 }), "^\"v10 ")
  t.match(t.wait(function() return host.state(id) end), "^\"v10 v10 v10 v10 v10 9\"$")
  t.match(t.wait(function() return host.state(during) end), "^\"v9 v9 v9 v9 v9 8\"$")
end)

t.test("the generations whose calls have ended are gone", function()
  for _ = 1, 3 do t.control "reload" end
  collectgarbage()
  collectgarbage()
  t.match(host.alive(), "generations=3 ") -- current, previous, and that of this test's own task
end)
t.test("an edit made while scripts load is seen after it", function()
  write "w1"
  -- The load writes the file again: what it runs is the older text by then.
  t.write(dir .. "/writer.lua", ([[
local f = assert(io.open(%q, "r"))
local text = f:read "*a"
f:close()
if not text:find "w2" then
  f = assert(io.open(%q, "w"))
  f:write((text:gsub("w1", "w2")))
  f:close()
  f = assert(io.open(%q, "w")) f:write "return { version = 'w2' }" f:close()
  f = assert(io.open(%q, "w")) f:write "return 'w2'" f:close()
end]]):format(dir .. "/tool.lua", dir .. "/tool.lua", dir .. "/part.lua", dir .. "/_latew2.lua"))
  reload_by_watch()
  t.match(t.use("slow", { wait = 0 }), "^\"w1 ")
  reload_by_watch() -- the watch fires again for the write
  t.match(t.use("slow", { wait = 0 }), "^\"w2 w2 ")
  local now = host.generation()
  reload_by_watch()
  t.equal(host.generation(), now)
  os.remove(dir .. "/writer.lua")
end)
t.test("new directories are watched, removed files count", function()
  t.control "reload"
  local now = host.generation()
  os.execute("mkdir " .. dir .. "/more")
  host.touch(dir .. "/more")
  rig.sleep(0.05)
  t.equal(host.generation(), now)
  t.ok(host.watched(dir .. "/more"), "the new directory is watched")
  t.write(dir .. "/more/extra.lua", "require('moonrig').tool { name = 'extra', description = 'x', run = function() return 1 end }")
  host.touch(dir .. "/more/extra.lua")
  rig.sleep(0.05)
  t.equal(host.generation(), now + 1)
  t.equal(t.use "extra", "1")
  os.remove(dir .. "/more/extra.lua")
  host.touch(dir .. "/more/extra.lua")
  rig.sleep(0.05)
  t.equal(host.tool "extra", nil)
end)
rig.main(t.run)
