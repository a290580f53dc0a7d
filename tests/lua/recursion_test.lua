-- options: -b 20000
-- Here the depth must end a task, not its time.
local rig = require "moonrig"
local t = require "kit"

t.test("deep recursion", function()
  local function down(n) return 1 + down(n + 1) end
  local task = rig.spawn(function() return down(1) end)
  t.raises("stack overflow", task.wait, task)
  local nested = {}
  for _ = 1, 100 do nested = { nested } end
  t.match(rig.json.encode(nested), "^%[%[")
  local text = ("["):rep(5000) .. ("]"):rep(5000)
  local v, e = rig.json.decode(text)
  t.ok(v == nil or e == nil)
end)
rig.main(t.run)
