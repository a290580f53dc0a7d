-- Hooks at the phases beside permit (tool_test.lua): what a handler is given, and the answer made of what it returns.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local json = rig.json

local act -- what the handlers do now
local seen
for _, phase in ipairs { "accept", "context", "model", "tools", "settle", "idle" } do
  for _, fail in ipairs { "closed", "open" } do
    rig.hook { phase = phase, name = phase .. " " .. fail, fail = fail, tool = phase == "tools" and "look" or nil,
      run = function(call, ctx)
        seen = { call = call, ctx = ctx }
        return act(call, ctx)
      end }
  end
end

local inputs = {
  accept = { events = { { type = "user.message", content = { { type = "text", text = "hi" } } } } },
  context = { messages = { { role = "user", content = { { type = "text", text = "hi" } } } }, system = rig.array {} },
  model = { model = "m", effort = "", bytes = 40, message = { role = "user", content = rig.array {} } },
  tools = { name = "look", input = {}, tool_use_id = "sevt_1", is_error = false,
    content = { { type = "text", text = "one" }, { type = "image" }, { type = "text", text = "two" } } },
  settle = { text = "done" },
  idle = { stop_reason = { type = "end_turn" } },
}

-- The handler of a phase is fn: the answer as JSON text; "" is no opinion.
local function ask(phase, fn, fail)
  act = fn
  local input = { session_id = "sesn_9", agent = "payer", agent_id = "agent_1" }
  for k, v in pairs(inputs[phase]) do input[k] = v end
  local id = host.hook(phase, json.encode(input), 1, '"' .. phase .. " " .. (fail or "closed") .. '"')
  return t.wait(function() return host.state(id) end)
end
local function gives(phase, expected, ...)
  local n, values = select("#", ...), { ... }
  t.equal(ask(phase, function() return (table.unpack or unpack)(values, 1, n) end), expected)
end

t.test("every handler has the call, its session and the generation", function()
  for phase, input in pairs(inputs) do
    gives(phase, "")
    t.equal(seen.call.session.id, "sesn_9")
    t.equal(seen.ctx.session.id, "sesn_9")
    t.equal(seen.call.agent .. " " .. seen.call.agent_id .. " " .. seen.ctx.generation, "payer agent_1 1")
    for k, v in pairs(input) do t.equal(json.encode(seen.call[k]), json.encode(v), phase .. " " .. k) end
  end
end)
t.test("accept: a list of events, or no", function()
  gives("accept", '{"events":[{"type":"user.message"}]}', { { type = "user.message" } })
  gives("accept", '{"refuse":"not here"}', false, "not here")
  gives("accept", '{"refuse":""}', false)
end)
t.test("context: messages, system, or both", function()
  gives("context", '{"messages":[{"content":"x","role":"user"}]}', { { role = "user", content = "x" } })
  gives("context", '{"system":"be brief"}', { system = "be brief" })
  gives("context", '{"messages":[{"content":"x","role":"user"}],"system":[]}',
    { messages = { { role = "user", content = "x" } }, system = rig.array {} })
  t.equal(ask("context", function(call) table.insert(call.messages, { role = "user", content = "y" }) return call.messages end),
    '{"messages":[{"content":[{"text":"hi","type":"text"}],"role":"user"},{"content":"y","role":"user"}]}')
  gives("context", '{"refuse":"too long"}', false, "too long")
end)
t.test("model: another one, or the reply", function()
  gives("model", '{"model":"bigger"}', "bigger")
  gives("model", '{"reply":{"content":"pong"}}', { reply = "pong" })
  gives("model", '{"reply":{"content":[{"text":"pong","type":"text"}]}}', { reply = { { type = "text", text = "pong" } } })
  gives("model", '{"refuse":"over budget"}', false, "over budget")
end)
t.test("tools: the text, and another result as a tool returns one", function()
  gives("tools", '{"content":"clean"}', "clean")
  t.equal(seen.call.text, "one\ntwo")
  gives("tools", '{"content":{"n":1}}', { n = 1 })
  gives("tools", '{"content":"gone","is_error":true}', nil, "gone")
  gives("tools", '{"refuse":"secret"}', false, "secret")
  gives("tools", "")
end)
t.test("settle goes on, idle only hears", function()
  gives("settle", '{"continue":"go on"}', "go on")
  gives("settle", '{"refuse":""}', false)
  gives("idle", "", "whatever")
  t.equal(seen.call.stop_reason.type, "end_turn")
end)
t.test("what is no answer is an error that says what is", function()
  gives("accept", '{"refuse":"the accept hook failed"}', "no")
  gives("context", '{"refuse":"the context hook failed"}', "no")
  gives("model", '{"refuse":"the model hook failed"}', { content = "x" })
  gives("settle", '{"refuse":"the settle hook failed"}', { "x" })
  local logs = host.logs()
  t.match(logs, 'the hook returned "no"; it is a list of events, false and why, or nothing')
  t.match(logs, "the hook returned table; it is a model's name, { reply = text or content blocks }")
  t.match(logs, "the hook returned table; it is a text to go on with, or nothing")
end)
t.test("an error: the traceback in the log, and the fail default", function()
  local function broken() error "hook broke" end
  for phase in pairs(inputs) do
    local closed = phase == "tools" and '{"refuse":"the result was withheld: the tools hook failed"}'
      or '{"refuse":"the ' .. phase .. ' hook failed"}'
    t.equal(ask(phase, broken), phase == "idle" and "" or closed)
    t.equal(ask(phase, broken, "open"), "")
    local logs = host.logs()
    t.match(logs, "hook " .. phase .. " closed.*hook_test.lua:%d+: hook broke")
    t.match(logs, "stack traceback")
  end
end)
t.test("ctx.log takes anything, with a colon or without", function()
  t.equal(ask("accept", function(_, ctx) ctx:log("one", true) ctx.log(nil, 2) end), "")
  t.match(host.logs(), "2 hook accept closed: one true\n2 hook accept closed: nil 2\n")
end)
t.test("one that is late is named in the log", function()
  t.equal(ask("context", function() rig.sleep(1000) end, "open"), "")
  t.match(host.logs(), "hook context open.*the deadline passed")
end)
rig.main(t.run)
