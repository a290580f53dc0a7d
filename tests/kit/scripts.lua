-- What the kit's own tests load.
local rig = require "moonrig"

local echo = rig.tool { name = "echo", description = "Gives back",
  input_schema = { type = "object", properties = { text = { type = "string" } } },
  run = function(input, ctx)
    if input.text == "who" then
      return { agent = ctx.agent, attempt = ctx.attempt, session = ctx.session.id, generation = ctx.generation }
    end
    ctx.log("echo of", input.text)
    return "echo: " .. tostring(input.text)
  end }
local breaks = rig.tool { name = "breaks", description = "Breaks", run = function() error "it broke" end }
local sleeps = rig.tool { name = "sleeps", description = "Sleeps", timeout = 30, run = function()
  for _ = 1, 4 do rig.sleep(10) end
  return "slept"
end }
local leaks = rig.tool { name = "leaks", description = "Leaks", run = function() counter = 1 end }
local fetch = rig.tool { name = "fetch", description = "Fetches", run = function(input)
  local res, err = rig.http.get(rig.env.BASE .. "/" .. input.name, { retry = 2, expect = 200 })
  if not res then return nil, err end
  return res.body
end }
local calls = 0
local count = rig.tool { name = "count", description = "Counts its calls", run = function()
  calls = calls + 1
  return calls
end }

rig.hook { phase = "permit", agent = "echoer", tool = "echo", run = function(call)
  if call.input.text == "secret" then return "ask", "a secret" end
end }
rig.hook { phase = "permit", agent = "echoer", tool = "bash", run = function(call)
  if call.input.command:find "rm" then return "deny", "no removing" end
end }

rig.agent { name = "echoer", model = "claude-opus-4-7", system = "You echo.",
  tools = { echo, breaks, sleeps, leaks, fetch, count, rig.toolset { "read", "bash", ask = { "bash" } } } }
