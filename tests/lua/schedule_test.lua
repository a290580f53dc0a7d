-- rig.schedule: times, one run at a time, the kept next time, reloads. The clock is the fake host's.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local dir = os.getenv "SCRIPTS"
host.runs = host.runs or {}
local runs = host.runs

local function clear() for i = #runs, 1, -1 do runs[i] = nil end end
local function script(text)
  t.write(dir .. "/s.lua", "local rig = require 'moonrig'\nlocal host = require 'host'\n" .. text)
  clear()
  local answer, code = t.control "reload"
  t.equal(code, 0, tostring(answer.error))
  t.quiet = nil
end
local function done()
  os.remove(dir .. "/s.lua")
  t.control "reload"
  clear()
  t.quiet = nil
end
local NOTE = "run = function(at, ctx) host.runs[#host.runs + 1] = { at = at, now = rig.now(), name = ctx.name, gen = ctx.generation } %s end }"

t.test("in a job nothing is scheduled", function()
  script("rig.schedule { name = 'job', every = 1, " .. NOTE:format "")
  rig.sleep(5)
  t.equal(#runs, 0)
  host.serve()
end)
t.test("every: at even distances, counted from the first", function()
  script("rig.schedule { name = 'e', every = 10, " .. NOTE:format "rig.sleep(3)")
  rig.sleep(45)
  t.equal(#runs, 4)
  for i, r in ipairs(runs) do
    t.ok(r.now - r.at < 0.1, "late by " .. r.now - r.at)
    if i > 1 then t.ok(math.abs(r.at - runs[i - 1].at - 10) < 1e-3) end
  end
  t.equal(runs[1].name, "e")
  done()
end)
t.test("cron: on the minute, in UTC", function()
  script("rig.schedule { name = 'c', cron = '*/5 * * * *', " .. NOTE:format "")
  rig.sleep(1000)
  t.ok(#runs == 3 or #runs == 4, "runs: " .. #runs) -- of 1,000 seconds
  for _, r in ipairs(runs) do t.equal(r.at % 300, 0) end
  done()
end)
t.test("one run at a time", function()
  host.logs()
  script("rig.schedule { name = 'o', every = 10, " .. NOTE:format "rig.sleep(25)")
  rig.sleep(45)
  t.equal(#runs, 2) -- at 10 and at 40; 20 and 30 were left out
  t.match(host.logs(), "1 schedule o: the run of .* is left out: the one before still runs")
  done()
  rig.sleep(30)
  clear()
end)
t.test("an error is logged, the next run comes; so after one that is over its time", function()
  host.logs()
  script("rig.schedule { name = 'err', every = 10, timeout = 5, "
    .. NOTE:format "if #host.runs == 1 then error 'run broke' end if #host.runs == 2 then rig.sleep(1000) end")
  rig.sleep(35)
  t.equal(#runs, 3)
  local log = host.logs()
  t.match(log, "0 schedule err: .*s.lua:%d+: run broke.*traceback")
  t.match(log, "schedule err: cancelled: it was over its time")
  done()
end)
t.test("a reload neither doubles nor loses a run; a run goes on on its generation", function()
  script("rig.schedule { name = 'r', every = 10, " .. NOTE:format "rig.sleep(4)")
  local gen
  for _ = 1, 30 do
    rig.sleep(1.7)
    t.control "reload"
    gen = rig.json.decode((select(1, rig.json.encode(host.generation()))))
  end
  rig.sleep(5)
  local n = math.floor((rig.now() - runs[1].at) / 10) + 1
  t.equal(#runs, n)
  for i = 2, #runs do t.ok(math.abs(runs[i].at - runs[i - 1].at - 10) < 1e-3, "distance") end
  t.ok(runs[#runs].gen > runs[1].gen and gen >= runs[#runs].gen)
  done()
  rig.sleep(5)
end)
t.test("a name that stood still is not caught up, or once if asked", function()
  -- The library's memory of what it saw stands for the process: this name is new to it, its row is not.
  for _, catch_up in ipairs { false, true } do
    local name = "m" .. tostring(catch_up)
    host.put_schedule(name, rig.json.encode { spec = "every 100", due = rig.now() - 1050 })
    script(("rig.schedule { name = %q, every = 100, catch_up = %s, "):format(name, tostring(catch_up)) .. NOTE:format "")
    rig.sleep(10)
    t.equal(#runs, catch_up and 1 or 0)
    if catch_up then t.ok(runs[1].now - runs[1].at > 40 and runs[1].now - runs[1].at < 70, "the last one missed") end
    rig.sleep(50)
    t.equal(#runs, catch_up and 2 or 1) -- and on along the old times
    done()
  end
end)
t.test("other times under the same name begin anew", function()
  script("rig.schedule { name = 'x', every = 1000, " .. NOTE:format "")
  rig.sleep(5)
  script("rig.schedule { name = 'x', every = 10, " .. NOTE:format "")
  rig.sleep(11)
  t.equal(#runs, 1)
  done()
end)
t.test("a store that fails holds it up, and no longer", function()
  script("rig.schedule { name = 'f', every = 10, " .. NOTE:format "")
  rig.sleep(5)
  host.logs()
  host.set("kv_fail", 1)
  rig.sleep(20)
  t.match(host.logs(), "1 schedule f: its next time cannot be kept: the disk is full")
  t.equal(#runs, 2)
  done()
end)
t.test("declaring: what is wrong says so", function()
  local function refused(text, pattern)
    t.write(dir .. "/s.lua", "require('moonrig').schedule " .. text)
    local answer = t.control "reload"
    os.remove(dir .. "/s.lua")
    t.match(answer.error, pattern)
  end
  refused("{ name = 'a', run = print }", "give either every or cron")
  refused("{ name = 'a', every = 1, cron = '* * * * *', run = print }", "give either every or cron")
  refused("{ name = 'a', every = 0.5, run = print }", "every is seconds, from 1")
  refused("{ name = 'a', cron = '* * * *', run = print }", "has 4 fields, not 5")
  refused("{ name = 'a', cron = '60 * * * *', run = print }", 'minute: "60" is not within 0 to 59')
  refused("{ name = 'a', cron = '* * * jan *', run = print }", 'month: "jan" is no number')
  refused("{ name = 'a', cron = '*/0 * * * *', run = print }", 'minute: "%*/0" is no number')
  refused("{ name = 'a', cron = '0 0 30 2 *', run = print }", "never comes")
  refused("{ name = 'a', every = 5, timeout = 0, run = print }", "timeout is seconds")
  refused("{ name = 'a', every = 5 }", "run must be a function")
end)
rig.main(t.run)
