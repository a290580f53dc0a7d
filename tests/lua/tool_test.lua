-- options: -m tests/lua/model.lua
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local json = rig.json

local gate = {}
rig.tool { name = "echo", description = "Gives back", run = function(input, ctx)
  return { input = input, session = ctx.session.id, thread = ctx.thread, attempt = ctx.attempt,
    generation = ctx.generation, agent = ctx.agent, use = ctx.tool_use_id:match "^sevt_" }
end }
rig.tool { name = "kinds", description = "Results of all kinds", timeout = 7.5, concurrency = 3, idempotent = true,
  input_schema = { type = "object", required = {}, properties = { kind = { type = "string" } } },
  run = function(input, ctx)
    local k = input.kind
    if k == "text" then return "hello" end
    if k == "list" then return { 1, 2 } end
    if k == "blocks" then return { { type = "text", text = "b" } } end
    if k == "nothing" then return end
    if k == "false" then return false end
    if k == "err" then return nil, "not today" end
    if k == "errtable" then return nil, rig.error("not_found_error", "no such order") end
    if k == "raise" then error "broken" end
    if k == "raisetable" then error { message = "odd" } end
    if k == "badutf" then return "\255" end
    if k == "function" then return print end
    if k == "loop" then while true do end end
    if k == "slow" then
      gate.started = true
      local ok, e = pcall(rig.sleep, 1000)
      gate.ended = e and e.type
      gate.cancelled = ctx.cancelled()
      return "late"
    end
    if k == "log" then ctx.log("line", 1) ctx:log("two") return "x" end
    if k == "ctx" then
      local fields, s = {}, ctx.session
      if s ~= ctx.session or not rawequal(s, ctx.session) or ctx.nothing ~= nil then return nil, "another session" end
      for name in pairs(ctx) do fields[#fields + 1] = name end
      table.sort(fields)
      return table.concat(fields, " ")
    end
    if k == "deadline" then return ctx.deadline - rig.now() end
  end }
rig.tool { name = "raiser", description = "Raises", run = function(input)
  local c = input.code
  if c == "bytes" then return nil, "bad \255 bytes" end
  if c == "long" then return nil, ("x"):rep(2000) end
  if c == "cut" then error(("ü"):rep(2000), 0) end
  if c == "table" then error { message = "{ message } of a table" } end
  if c == "none" then error() end
end }
rig.tool { name = "client", description = "Elsewhere", answered_by = "client" }

rig.tool { name = "scoped", description = "For all", run = function(_, ctx) return "all " .. ctx.agent end }
rig.tool { name = "scoped", description = "For one", agent = "payer", run = function() return "payer's" end }
rig.tool { name = "keep", description = "Keeps its words", run = function(input) return input end }

t.test("a context is one table; its methods are shared, its session is made when it is asked for", function()
  for _ = 1, 2 do
    t.match(t.use("kinds", { kind = "ctx" }),
      "^\"agent attempt deadline generation session session_id thread tool_use_id\"$")
  end
end)

t.test("a call gets input and context", function()
  local out = json.decode(t.use("echo", { id = "PO-1", n = rig.int "9007199254740993", e = rig.array(), o = {}, z = rig.null }, 2))
  t.equal(json.encode(out.input), '{"e":[],"id":"PO-1","n":9007199254740993,"o":{},"z":null}')
  t.equal(out.session, "sesn_1")
  t.equal(out.thread, "sthr_1")
  t.equal(out.attempt, 2)
  t.equal(out.generation, 1)
  t.equal(out.agent, "tester")
  t.equal(out.use, "sevt_")
end)
t.test("results", function()
  local function kind(k) return t.use("kinds", { kind = k }) end
  t.equal(kind "text", '"hello"')
  t.equal(kind "list", "[1,2]")
  t.equal(kind "blocks", '[{"text":"b","type":"text"}]')
  t.equal(kind "nothing", "")
  t.equal(kind "false", "false")
  t.match(kind "deadline", "^5")
end)
t.test("errors are results for the model", function()
  local function kind(k) return (select(2, t.use("kinds", { kind = k }))) end
  t.equal(kind "err", "not today")
  t.equal(kind "errtable", "no such order")
  t.match(kind "raise", "broken")
  t.match(host.logs(), "0 tool kinds: .*tool_test.lua:%d+: broken.*stack traceback.*")
  t.match(kind "raisetable", "odd")
  t.match(kind "badutf", "UTF%-8")
  t.match(kind "function", "cannot encode a function")
  t.match(kind "loop", "time budget")
end)
t.test("a log line from a handler", function()
  t.use("kinds", { kind = "log" })
  t.match(host.logs(), "2 tool kinds: line 1\n2 tool kinds: two")
end)
t.test("error texts are UTF-8, whole, for the model", function()
  local function tool(code)
    return (select(2, t.use("raiser", { code = code })))
  end
  t.equal(tool "bytes", "bad ? bytes")
  t.equal(#tool "long", 2000)
  t.match(tool "cut", "^[^\255]*$")
  t.ok(json.encode(tool "cut"))
  t.equal(tool "table", "{ message } of a table")
  t.match(tool "none", "nil")
end)
t.test("a tool for one agent stands beside the one for all", function()
  local function use(agent)
    local id = host.use("scoped", "{}", 1, agent)
    return (t.wait(function() return host.state(id) end))
  end
  t.equal(use "payer", '"payer\'s"')
  t.equal(use "", '"all tester"')
end)
t.test("the input is the handler's own, results keep their shape", function()
  for _, text in ipairs { '{"a":[],"b":{},"c":null,"d":9007199254740993,"e":[{"f":[]}],"g":1.5}', "{}" } do
    local id = host.use("keep", text)
    t.equal(t.wait(function() return host.state(id) end), text)
  end
end)
t.test("what the core was told", function()
  local schema, timeout, concurrency, flags = host.tool "kinds"
  t.equal(schema, '{"properties":{"kind":{"type":"string"}},"required":[],"type":"object"}')
  t.equal(timeout, 7500)
  t.equal(concurrency, 3)
  t.equal(flags, 1)
  t.equal((host.tool "echo"), '{"type":"object"}')
  t.equal(select(4, host.tool "client"), 2)
end)
t.test("a cancelled call is settled at once, Lua follows", function()
  gate = {}
  local id = host.use("kinds", '{"kind":"slow"}')
  t.wait(function() return gate.started end)
  host.cancel_use(id)
  rig.sleep(0)
  local result, e = host.state(id)
  t.equal(result, false)
  t.equal(e, "cancelled")
  t.wait(function() return gate.ended end)
  t.equal(gate.ended, "cancelled")
  t.equal(gate.cancelled, true)
end)
t.test("calls run at the same time", function()
  gate = {}
  local ids = {}
  for i = 1, 50 do ids[i] = host.use("kinds", '{"kind":"slow"}') end
  rig.sleep(1)
  t.equal(t.use("kinds", { kind = "text" }), '"hello"')
  for _, id in ipairs(ids) do host.cancel_use(id) end
  rig.sleep(0.1)
end)
t.test("tool handles are found, and go into wire objects", function()
  t.equal(json.encode { tools = { rig.tool "echo" } },
    '{"tools":[{"description":"Gives back","input_schema":{"type":"object"},"name":"echo","type":"custom"}]}')
  local none, e = rig.tool "nope"
  t.equal(none, nil)
  t.equal(e.type, "not_found_error")
  t.raises("top%-level", rig.tool, { name = "late", description = "x", run = print })
end)

-- ---------------------------------------------------------------- hooks
local asked = {}
rig.hook { phase = "permit", name = "guard", agent = "payer", tool = "pay", fail = "closed", run = function(call, ctx)
  asked[#asked + 1] = call.session.id .. " " .. call.name .. " " .. ctx.generation
  if call.input.amount == 666 then error "hook broke" end
  if call.input.amount == 1 then rig.sleep(1000) end
  if call.input.amount == 2 then while true do end end
  if call.input.amount <= 100 then return "allow" end
  if call.input.amount > 1000 then return "deny", "too much" end
  if call.input.amount == 500 then return "rewrite", { amount = 50 } end
  if call.input.amount == 501 then return "perhaps" end
  if call.input.amount == 502 then return nil end
  return "ask", "above 100"
end }

rig.hook { phase = "permit", tool = "look", run = function() error "open" end }

local function permit(amount)
  local id = host.hook("permit", json.encode { name = "pay", session_id = "sesn_9", input = { amount = amount } })
  return t.wait(function() return host.state(id) end)
end
t.test("hooks decide", function()
  t.equal(permit(50), '{"decision":"allow"}')
  t.equal(asked[1], "sesn_9 pay 1")
  t.equal(permit(200), '{"decision":"ask","message":"above 100"}')
  t.equal(permit(2000), '{"decision":"deny","message":"too much"}')
  t.equal(permit(500), '{"decision":"rewrite","input":{"amount":50}}')
  t.equal(permit(502), "")
end)
t.test("a hook that fails refuses, with fail = closed", function()
  t.match(permit(666), '"decision":"deny"')
  t.match(permit(501), '"decision":"deny"')
  t.match(host.logs(), "tool_test.lua:%d+: hook broke.*returned \"perhaps\"")
end)
t.test("a hook that is late refuses in time, and holds up no other", function()
  local from = host.clock()
  local late = host.hook("permit", json.encode { name = "pay", session_id = "sesn_9", input = { amount = 1 } })
  t.equal(permit(50), '{"decision":"allow"}')
  t.ok(host.clock() - from < 1, "the other one")
  t.equal(host.state(late), nil)
  t.match(t.wait(function() return host.state(late) end), '"decision":"deny"')
  local took = host.clock() - from
  t.ok(took > 25 and took < 30, "time " .. took)
  t.match(host.logs(), "hook guard.*the deadline passed")
end)
t.test("a hook that runs away is stopped", function()
  local from = os.clock()
  t.match(permit(2), '"decision":"deny"')
  t.ok(os.clock() - from < 5, "time")
  t.match(host.logs(), "time budget")
end)
t.test("an open hook that fails has no opinion", function()
  local id = host.hook("permit", json.encode { name = "look", session_id = "sesn_9", input = {} }, 1, "look")
  t.equal(t.wait(function() return host.state(id) end), "")
end)
t.test("what the core was told of hooks", function()
  local name, filter, flags = host.registered("h", 1)
  t.equal(name .. " " .. filter .. " " .. flags, 'permit {"agent":"payer","name":"guard","tool":"pay"} 1')
  name, filter, flags = host.registered("h", 2)
  t.match(name .. " " .. filter .. " " .. flags, '^permit {"name":"permit at .*tool_test.lua:%d+","tool":"look"} 0$')
end)

-- ---------------------------------------------------------------- the offline model
local function model(request)
  local id = host.model("offline", json.encode(request))
  local r, e, text = t.wait(function() return host.state(id) end)
  return r and json.decode(r), e, text
end
local function ask(text) return model { model = "m", system = "s", messages = { { role = "user", content = text } }, tools = {} } end
t.test("a model function's answers are brought into form", function()
  local r, _, text = ask "say hello"
  t.equal(r.content[1].text, "hello")
  t.equal(r.stop_reason, "end_turn")
  t.ok(r.usage.input_tokens > 5 and r.usage.output_tokens > 0)
  t.equal(text, "hello|")
  r, _, text = ask "use echo"
  t.equal(r.stop_reason, "tool_use")
  t.equal(r.content[2].name, "echo")
  t.match(r.content[2].id, "^toolu_")
  t.equal(text, "let me|")
  r, _, text = ask "stream"
  t.equal(text, "a|b|")
  t.equal(r.content[1].text, "ab")
  r = ask "full"
  t.equal(r.stop_reason, "max_tokens")
  t.equal(r.usage.input_tokens, 1)
end)
t.test("long text is streamed in pieces between characters", function()
  local r, _, text = ask "long"
  t.equal((text:gsub("|", "")), r.content[1].text)
  t.ok(select(2, text:gsub("|", "")) > 10)
  for piece in text:gmatch "[^|]+" do t.ok(json.encode(piece), "piece") end
end)
t.test("a model function's failures", function()
  local _, e = ask "fail"
  t.equal(e, "overloaded_error: busy")
  _, e = ask "break"
  t.match(e, "api_error: .*broke")
  _, e = ask "nothing"
  t.match(e, "returned nothing")
  _, e = ask "number"
  t.match(e, "returns text")
end)
t.test("a cancelled model request ends its task", function()
  local id = host.model("offline", json.encode { messages = { { role = "user", content = "sleep" } } })
  rig.sleep(0.1)
  host.cancel_use(id)
  t.match(select(2, t.wait(function() return host.state(id) end)), "cancelled")
end)
rig.main(t.run)
