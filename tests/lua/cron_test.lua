-- The times of rig.schedule's cron, against times worked out by hand. They are seen through the next time that a
-- schedule keeps.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local dir = os.getenv "SCRIPTS"

local function due(cron, from)
  host.set_wall(rig.time.parse(from))
  t.write(dir .. "/s.lua", ("require('moonrig').schedule { name = 'c', cron = %q, run = print }"):format(cron))
  local answer, code = t.control "reload"
  t.equal(code, 0, tostring(answer.error))
  local row = t.wait(function() return host.get_schedule "c" end)
  os.remove(dir .. "/s.lua")
  t.control "reload"
  host.put_schedule("c", nil)
  t.quiet = nil
  return (rig.time.format(rig.json.decode(row).due):gsub("%.0+Z", "Z"))
end

t.test("the next time", function()
  host.serve()
  for _, case in ipairs {
    { "* * * * *", "2026-11-27T12:34:56Z", "2026-11-27T12:35:00Z" },
    { "*/5 * * * *", "2026-11-27T12:55:00Z", "2026-11-27T13:00:00Z" },
    { "7 3 * * *", "2026-11-27T03:07:00Z", "2026-11-28T03:07:00Z" },
    { "0 0 1 1 *", "2026-01-01T00:00:01Z", "2027-01-01T00:00:00Z" },
    { "0 0 29 2 *", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z" },
    { "0 9 * * 1-5", "2026-11-27T09:00:00Z", "2026-11-30T09:00:00Z" }, -- Friday to Monday
    { "0 9 * * 7", "2026-11-27T09:00:00Z", "2026-11-29T09:00:00Z" },
    { "0 0 13 * 5", "2026-11-27T09:00:00Z", "2026-12-04T00:00:00Z" }, -- the 13th, or a Friday
    { "10-20/5,59 8,20 * * *", "2026-11-27T08:16:00Z", "2026-11-27T08:20:00Z" },
    { "10-20/5,59 8,20 * * *", "2026-11-27T08:20:00Z", "2026-11-27T08:59:00Z" },
    { "30/10 * * * *", "2026-11-27T08:51:00Z", "2026-11-27T09:30:00Z" },
    { "59 23 31 12 *", "2026-12-31T23:59:30Z", "2027-12-31T23:59:00Z" },
  } do
    t.equal(due(case[1], case[2]), case[3], case[1] .. " after " .. case[2])
  end
end)
rig.main(t.run)
