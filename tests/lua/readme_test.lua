-- The manual's code: "```lua" blocks are scripts and must load; "```lua task" blocks are run in a task.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local server = require "server"
local dir, tmp = os.getenv "SCRIPTS", os.getenv "TMP"

local function blocks()
  local list, current = {}, nil
  local n = 0
  for line in io.lines "lua/README.md" do
    n = n + 1
    local info = line:match "^```(.*)$"
    if current and info == "" then
      current.text = table.concat(current.lines, "\n")
      list[#list + 1], current = current, nil
    elseif current then
      current.lines[#current.lines + 1] = line
    elseif info and info ~= "" then
      current = { kind = info, line = n, lines = {} }
    elseif info then
      current = { kind = "other", line = n, lines = {} }
    end
  end
  return list
end

server.environments[1] = { id = "env_default", name = "default" }
if #server.agents == 0 then
  server.agents[1] = { id = "agent_r", name = "reader" }
  server.agents[2] = { id = "agent_p", name = "payer" }
end

local uploads = {}
host.op("files.upload", function(p)
  uploads[#uploads + 1] = p._body
  return { id = "file_" .. #uploads, type = "file", filename = p._filename }
end)
host.op("files.download", function(p) return {}, uploads[tonumber(p.file_id:match "%d+")] end)
host.op("http", function(req)
  return { status = 200, body = '{"url":"' .. req.url .. '"}', headers = "content-type: application/json\n" }
end)

-- What the agents of the task blocks do.
local behave, story
function behave(s, ev)
  if ev.type == "user.message" and ev.content[1].text:find "Pay" then
    local a = server.emit(s, { type = "agent.tool_use", name = "pay", input = { amount = 900 }, evaluated_permission = "ask" })
    local b = server.emit(s, { type = "agent.custom_tool_use", name = "book", input = {} })
    s.asked = { a.id, b.id }
    return server.idle(s, "requires_action", s.asked)
  elseif ev.type:find "^user.tool_confirmation" then
    return
  elseif ev.type == "user.message" and ev.content[1].text:find "story" and not next(s.streams) then
    story = s -- told once somebody listens
    return
  end
  server.preview(s, { type = "event_delta", event_id = "x", delta = { content = { type = "text", text = "Once " } } })
  server.span(s, 5, 2)
  server.say(s, "Once upon a time.")
  server.idle(s)
end

local printed
local env = setmetatable({
  rig = rig,
  print = function(...)
    local parts = {}
    for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
    printed[#printed + 1] = table.concat(parts, "\t")
  end,
  io = { write = function(...) printed[#printed + 1] = table.concat({ ... }) end },
}, { __index = _G })

local n, expected = 0, {
  [1] = function() t.match(table.concat(printed, "\n"), "^Once upon a time.\nend_turn\n5\t4\n") end,
  [2] = function() t.equal(printed[1], "Once upon a time.") end,
  [3] = function() t.match(printed[1], "Once ") end,
  [4] = function()
    t.equal(table.concat(printed, "|"), "1.08\tnil|nil\t409|1\t11|rates/EUR\t2.08|1\tfalse")
    t.equal(rig.kv.get "rates/EUR", nil)
  end,
  [5] = function()
    local text = table.concat(printed, "\n")
    t.match(text, "not_found_error\t404\tnil\tnil\tfalse\tnot_found_error: no such session")
    t.equal(printed[#printed], "6")
    t.equal(assert(rig.fs.read "copy.csv"), "a,b\n1\n")
  end,
  [6] = function()
    t.equal(table.concat(printed, "|", 1, 3), "3\t3|answer\there|42")
    t.equal(printed[4], "42\t7")
    t.match(printed[5], "^false\tcancelled: not needed")
  end,
  [7] = function()
    local text = table.concat(printed, "\n")
    t.match(text, '{"a":%[%],"b":1,"n":null}\n9007199254740993\t18446744073709551615\t{\n')
    t.match(text, "a%%20b\ta b\tn=1&n=2&q=x\n")
    t.match(text, "1970%-01%-01T00:00:00.000000Z\t1769860800")
  end,
}

table.insert(expected, 2, function() -- images and documents
  t.equal(printed[1], "Once upon a time.")
end)

for _, b in ipairs(blocks()) do
  local name = ("README:%d (%s)"):format(b.line, b.kind)
  if b.kind == "lua" then
    t.test(name, function()
      t.write(dir .. "/reader.md", "Be brief.")
      t.write(dir .. "/block.lua", b.text:gsub("rig.main%(", "local _ = (")) -- this test has one already
      local answer, code = t.control "reload"
      t.equal(code, 0, tostring(answer.error))
      t.quiet = nil
      rig.sleep(2)
      os.remove(dir .. "/block.lua")
    end)
  elseif b.kind == "lua task" then
    n = n + 1
    local check = t.ok(expected[n], "a check for " .. name)
    t.test(name, function()
      server.reset()
      server.behave = behave
      printed = {}
      t.write("report.csv", "a,b\n1\n")
      local fn = assert(load(b.text, "=README:" .. b.line, "t", env))
      local teller = rig.spawn(function()
        while not (story and next(story.streams)) do rig.sleep(0.05) end
        behave(story, { type = "user.message", content = { { text = "" } } })
      end)
      local ok, e = xpcall(fn, debug.traceback)
      teller:cancel()
      os.remove "report.csv"
      if not ok then error(e, 0) end
      check()
      os.remove "copy.csv"
      os.execute "rm -rf out"
      collectgarbage()
    end)
  end
end
t.test("all task blocks have a check", function() t.equal(n, 8) end)
t.test("the tools of the manual answer", function()
  local function script(name)
    for _, b in ipairs(blocks()) do
      if b.kind == "lua" and b.text:find('name = "' .. name .. '"', 1, true) then return b.text end
    end
  end
  t.write(dir .. "/block.lua", script "purchase_order")
  t.control "reload"
  t.quiet = nil
  t.match(t.use("purchase_order", { id = "PO 1" }), 'http://erp/po/PO%%201')
  t.write(dir .. "/block.lua", script "to_euro")
  t.control "reload"
  t.equal(t.use("to_euro", { amount = 10, currency = "USD" }), '"9.30"')
  t.write(dir .. "/block.lua", (script("to_euro"):gsub("0%.93", "0.95")))
  t.control "reload"
  t.equal(t.use("to_euro", { amount = 10, currency = "USD" }), '"9.50"')
  t.equal(select(2, t.use("to_euro", { amount = 1, currency = "XXX" })), "no rate for XXX")
  t.write(dir .. "/block.lua", script "count_orders")
  t.control "reload"
  t.match(t.use "count_orders", "^\"%d+\"$")
  t.match(host.logs(), "2026 is read in sesn_.*attempt 1 counted")
  t.write(dir .. "/block.lua", script "remind")
  t.control "reload"
  t.match(select(2, t.use("remind", { order = "7" })), "http://mailer/send answered 200")
end)
t.test("the hooks of the manual do what it says", function()
  local json = rig.json
  local function with(part)
    for _, b in ipairs(blocks()) do
      if b.kind == "lua" and b.text:find(part, 1, true) then
        t.write(dir .. "/block.lua", b.text)
        local answer, code = t.control "reload"
        t.equal(code, 0, tostring(answer.error))
        return
      end
    end
    error("no block with " .. part)
  end
  local function ask(phase, name, input)
    input.session_id, input.agent, input.agent_id = "sesn_9", "worker", "agent_1"
    local id = assert(host.hook(phase, json.encode(input), 1, name and '"' .. name .. '"'), phase)
    return t.wait(function() return host.state(id) end)
  end
  local function said(text) return { role = "user", content = { { type = "text", text = text } } } end
  with 'name = "no keys"'
  t.quiet = nil
  local function sent(text) return ask("accept", "no keys", { events = { { type = "user.message", content = said(text).content } } }) end
  t.equal(sent "hello", "")
  t.match(sent "use sk-123", "a key does not belong")
  local long = {}
  for i = 1, 60 do long[i] = said(tostring(i)) end
  long[20] = { role = "user", content = { { type = "tool_result", tool_use_id = "x" } } }
  local kept = json.decode(ask("context", "trim", { messages = long, system = rig.array {} })).messages
  t.equal(#kept, 40)
  t.equal(kept[1].content[1].text, "21")
  t.equal(ask("context", "trim", { messages = { said "1" }, system = rig.array {} }), "")
  t.match(ask("context", "today", { messages = { said "1" }, system = rig.array {} }), "Today is %d+%-%d+%-%d+")
  t.equal(ask("model", "by size", { model = "m", bytes = 10, message = said "x" }), "")
  t.match(ask("model", "by size", { model = "m", bytes = 300000, message = said "x" }), '"model":"claude')
  t.equal(ask("model", "ping", { model = "m", bytes = 10, message = said "ping" }), '{"reply":{"content":"pong"}}')
  with 'name = "redact"'
  local function result(text) return ask("tools", "redact", { name = "look", content = said(text).content }) end
  t.equal(result "nothing", "")
  t.equal(result "a sk-123", '{"content":"a [key]"}')
  t.match(ask("settle", "until done", { text = "so far" }), "Go on")
  t.equal(ask("settle", "until done", { text = "DONE" }), "")
  t.equal(ask("idle", nil, { stop_reason = { type = "end_turn" } }), "")
  t.match(host.logs(), "sesn_9 is idle: end_turn")
  os.remove(dir .. "/block.lua")
end)
t.test("the routes of the manual answer", function()
  for _, b in ipairs(blocks()) do
    if b.text:find("/x/orders/", 1, true) then t.write(dir .. "/block.lua", b.text) end
  end
  t.control "reload"
  t.quiet = nil
  local function ask(method, path, o)
    local id = t.ok(host.web(method, path, o), path)
    local how, status, head, body = t.wait(function()
      local how, status, head, body = host.web_state(id)
      if how ~= "open" then return how, status, head, body end
    end, path)
    t.equal(how, "end", path)
    return status, body, head
  end
  local status, body = ask("GET", "/x/orders/7%209")
  t.equal(status, 200)
  t.match(body, "http://erp/orders/7%%25209")
  t.equal(ask("POST", "/x/hooks/shop", { body = "no json" }), 400)
  local _, said, head = ask("POST", "/x/hooks/shop", { body = '{"id":"A1"}' })
  t.equal(said, "thank you")
  t.match(head, "x%-order: A1\n")
  t.equal(ask("POST", "/x/order", { body = "name=Ada" }), 415)
  status, body = ask("POST", "/x/order", { body = "name=Ada", headers = "content-type: application/x-www-form-urlencoded\n" })
  t.equal(body, "Thank you, Ada.")
  t.equal(ask("GET", "/x/watch/nobody"), 404)
  _, body = ask("GET", "/x/table.csv")
  t.match(body, "^1;1\n2;4\n")
  t.match(body, "1000;1000000\n$")
  os.remove(dir .. "/block.lua")
  t.control "reload"
end)
rig.main(t.run)
