-- options: -w -d @/data
-- On the real runtime: reload while turns wait in a handler, by watching the files.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local dir = os.getenv "SCRIPTS"

host.calls = host.calls or {}
rig.agent { name = "waiter", model = "test-1", tools = { { type = "custom", name = "slow", description = "Waits",
  input_schema = { type = "object" } } } }
rig.provider { name = "test", models = "test-*", run = function(request)
  local last = request.messages[#request.messages]
  for _, b in ipairs(type(last.content) == "table" and last.content or {}) do
    if b.type == "tool_result" then return type(b.content) == "string" and b.content or b.content[1].text end
  end
  return { { type = "tool_use", name = "slow", input = {} } }
end }

local function write(version, broken)
  t.write(dir .. "/_new.lua", ([[
local rig = require "moonrig"
local host = require "host"
%s
return rig.tool { name = "slow", description = "Waits", concurrency = 500, %s run = function(_, ctx)
  host.calls[#host.calls + 1] = %q
  while not host.release do rig.sleep(0.02) end
  return %q .. " " .. ctx.generation
end }]]):format(broken == "syntax" and "local x = = 1" or broken == "check" and "assert(false, 'the check fails')" or "",
    broken == "schema" and "input_schema = { type = 'strin' }," or "", version, version))
  assert(os.rename(dir .. "/_new.lua", dir .. "/tool.lua"))
end

t.test("200 turns wait in a handler while it is edited ten times, thrice wrongly", function()
  local turns, good, generation = {}, "v0", nil
  write "v0"
  t.wait(function() return host.generation() == 2 or nil end, "generation 2")
  generation = 2
  local breaks = { [3] = "syntax", [6] = "check", [8] = "schema" }
  local function start(n)
    local before = #host.calls
    for _ = 1, n do
      turns[#turns + 1] = { version = good, generation = generation, task = rig.spawn(function()
        local s = assert(rig.session { agent = "waiter" })
        return assert(s:ask "go").text
      end) }
    end
    t.wait(function()
      for _, one in ipairs(turns) do
        if one.task.done then one.task:wait() end
      end
      return #host.calls == before + n or nil
    end, "calls")
  end
  start(100)
  for edit = 1, 10 do
    write("v" .. edit, breaks[edit])
    if breaks[edit] then
      t.wait(function() return host.logs():find "reload refused" end, "refusal of edit " .. edit)
      t.equal(host.generation(), generation)
    else
      generation = generation + 1
      good = "v" .. edit
      t.wait(function() return host.generation() == generation or nil end, "generation " .. generation)
    end
    start(10)
  end
  t.equal(#turns, 200)
  host.release = true
  for i, one in ipairs(turns) do
    t.equal(one.task:wait(), one.version .. " " .. one.generation, "turn " .. i)
  end
  t.quiet = nil
end)
rig.main(t.run)
