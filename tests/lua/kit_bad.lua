-- Each of these must fail: the suite runs them to see that the kit notices what a test leaves behind.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local keep = {}

rig.tool { name = "waits", description = "Waits", run = function() rig.sleep(1e6) end }
host.op("agents.retrieve", function() return host.LATER end)
host.op("sessions.events.stream", function() return host.LATER end)

t.test("a live task", function() rig.spawn(function() rig.sleep(1e6) end) end)
t.test("a call under way", function()
  rig.spawn(rig.agents.retrieve, "agent_1")
  rig.sleep(0.01)
end)
t.test("an open stream", function() keep[1] = rig.sessions.events.stream "sesn_1" end)
t.test("a tool call without an answer", function()
  host.use("waits", "{}")
  rig.sleep(0.01)
end)
t.test("an open file", function() keep[2] = io.open "/dev/null" end)
t.test("a new global", function() leaked = 1 end)
t.test("a changed library", function() string.rep = string.reverse end)
t.test("a global of the VM", function() host.globals().leaked = 1 end)
t.test("an error", function() error "on purpose" end)
t.test("a check that does not hold", function() t.equal(1, 2) end)
rig.main(t.run)
