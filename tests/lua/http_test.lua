-- rig.http: forms, parts, authorization, streamed responses, server-sent events, and the transport made of them.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local tmp = os.getenv "TMP"

local asked, answers = {}, {}
host.op("http", function(req, id)
  asked[#asked + 1] = req
  req.id = id
  local a = table.remove(answers, 1)
  if type(a) == "function" then return a(req) end
  if a == "later" then return host.LATER end
  if a and a.fail then return nil, { code = a.fail, message = a.message or "no answer", status = a.status, type = a.type } end
  return a or { status = 200, body = "ok", headers = "" }
end)
local function http(...)
  asked, answers = {}, { ... }
end
local function last() return t.wait(function() return asked[#asked] end) end

-- --------------------------------------------------------------------------------------------------- bodies
t.test("forms, parts, authorization", function()
  http()
  assert(rig.http.post("http://x.test", { form = { a = "x y+z", n = { 1, 2 }, ["ü"] = true } }))
  t.equal(asked[1].body, "a=x+y%2Bz&n=1&n=2&%C3%BC=true")
  t.equal(asked[1].headers[1], "content-type: application/x-www-form-urlencoded")
  t.write(tmp .. "/part.csv", "a,b\n")
  assert(rig.http.post("http://x.test", { multipart = { z = "plain", n = 5,
    file = { path = tmp .. "/part.csv" }, raw = { bytes = "\0\1", filename = 'q"x.bin', media_type = "x/y" } } }))
  local boundary = asked[2].headers[1]:match "^content%-type: multipart/form%-data; boundary=(moonrig%x+)$"
  t.equal((asked[2].body:gsub(boundary, "B")), '--B\r\nContent-Disposition: form-data; name="n"\r\n\r\n5\r\n'
    .. '--B\r\nContent-Disposition: form-data; name="z"\r\n\r\nplain\r\n'
    .. '--B\r\nContent-Disposition: form-data; name="file"; filename="part.csv"\r\nContent-Type: text/csv\r\n\r\na,b\n\r\n'
    .. '--B\r\nContent-Disposition: form-data; name="raw"; filename="q%22x.bin"\r\nContent-Type: x/y\r\n\r\n\0\1\r\n--B--\r\n')
  assert(rig.http.get("http://x.test", { auth = { "user", "pässword" } }))
  t.equal(asked[3].headers[1], "authorization: Basic dXNlcjpww6Rzc3dvcmQ=")
  assert(rig.http.get("http://x.test", { auth = { bearer = "tok" }, unix = "/run/x.sock", connect_timeout = 1, idle_timeout = 2 }))
  t.equal(asked[4].headers[1], "authorization: Bearer tok")
  t.equal(asked[4].unix_path .. asked[4].connect_ms .. " " .. asked[4].idle_ms, "/run/x.sock1000 2000")
  t.equal(asked[4].guard, nil)
  assert(rig.http.get("http://x.test", { guard = true, auth = { "u", "p" }, headers = { Authorization = "mine" } }))
  t.equal(#asked[5].headers, 1)
  t.equal(asked[5].guard, 1)
  local r, e = rig.http.post("http://x.test", { multipart = { f = { path = tmp .. "/nowhere" } } })
  t.equal(r, nil)
  t.equal(e.type, "not_found_error")
  t.raises("form and multipart exclude", rig.http.post, "http://x", { form = {}, multipart = {} })
  t.raises("multipart.f is a value, or a table", rig.http.post, "http://x", { multipart = { f = {} } })
  t.raises("auth is", rig.http.get, "http://x", { auth = {} })
  t.raises("line break", rig.http.get, "http://x", { auth = { bearer = "a\nb" } })
  t.raises("idle_timeout is seconds", rig.http.get, "http://x", { idle_timeout = 0 })
end)
t.test("retry after a date", function()
  t.equal(rig.url.date "Sun, 06 Nov 1994 08:49:37 GMT", 784111777)
  t.equal(rig.url.date "Thu, 29 Feb 2024 00:00:00 GMT", 1709164800)
  t.equal(rig.url.date "Thu, 01 Jan 1970 00:00:00 GMT", 0)
  t.equal(rig.url.date "tomorrow", nil)
  local at = os.date("!%a, %d %b %Y %H:%M:%S GMT", math.floor(rig.time.now()) + 30)
  http({ status = 429, body = "", headers = "retry-after: " .. at .. "\n" })
  local from = host.clock()
  assert(rig.http.get("http://x.test", { retry = 1 }))
  t.ok(host.clock() - from >= 28, "waited " .. host.clock() - from)
end)
t.test("no answer has no status, and may be tried again", function()
  http { fail = -15, message = "cannot connect", status = 500, type = "api_error" }
  local r, e = rig.http.get "http://x.test"
  t.equal(r, nil)
  t.equal(e.status, nil)
  t.equal(e.retryable, true)
  t.equal(e.message, "cannot connect")
end)

-- --------------------------------------------------------------------------------------------------- streams
t.test("stream: the head first, then pieces", function()
  http "later"
  local res
  local task = rig.spawn(function() res = assert(rig.http.stream("http://x.test/s", { method = "POST", json = { 1 } })) end)
  local req = last()
  t.equal(req.method .. req.body .. req.timeout_ms .. " " .. req.idle_ms, "POST[1]-1 60000")
  rig.sleep(0.1)
  t.equal(res, nil)
  host.http_head(req.id, 207, "content-type: text/plain\n")
  task:wait()
  t.equal(res.status, 207)
  t.equal(res.headers["content-type"], "text/plain")
  host.http_chunk(req.id, "one")
  t.equal(res:read(), "one")
  local later = rig.spawn(function() return res:read() end)
  rig.sleep(0.1)
  host.http_chunk(req.id, "two")
  t.equal(later:wait(), "two")
  host.http_chunk(req.id, "three")
  host.http_chunk(req.id, "four")
  rig.sleep(0)
  host.reply(req.id, "{}")
  rig.sleep(0)
  t.equal(res:read(), "threefour")
  t.equal(res:read(), nil)
  t.equal(res:read(), nil)
  res:close()
end)
t.test("stream: all of an answer, chunks, options", function()
  http({ status = 200, body = "hello world, in pieces", headers = "" })
  local res = assert(rig.http.stream("http://x.test", { timeout = 5, idle_timeout = 3, max_body = 100 }))
  t.equal(asked[1].timeout_ms .. " " .. asked[1].idle_ms .. " " .. asked[1].max_body, "5000 3000 100")
  local parts = {}
  for bytes in res:chunks() do parts[#parts + 1] = bytes end
  t.equal(table.concat(parts), "hello world, in pieces")
  http({ status = 200, body = "0123456789", headers = "" }, { status = 200, body = "0123456789", headers = "" })
  t.equal(assert(rig.http.stream { url = "http://x.test" }):all(), "0123456789")
  local all, e = assert(rig.http.stream "http://x.test"):all(9)
  t.equal(all, nil)
  t.equal(e.type, "request_too_large")
end)
t.test("stream: what is cut is an error after what came", function()
  http "later"
  local task = rig.spawn(function() return rig.http.stream "http://x.test" end)
  local req = last()
  host.http_head(req.id, 200, "")
  local res = assert(task:wait())
  host.http_chunk(req.id, "abc\nde")
  rig.sleep(0)
  host.fail(req.id, -14, "no data for 60000 ms", 504, "timeout_error")
  rig.sleep(0)
  local lines, got = res:lines(), {}
  got[1] = lines()
  local e = t.raises("no data for 60000", lines)
  t.equal(got[1], "abc")
  t.equal(e.type, "timeout_error")
  local again, e2 = res:read()
  t.equal(again, nil)
  t.equal(e2, e)
  http({ fail = -15, message = "refused" })
  local r, why = rig.http.stream "http://x.test"
  t.equal(r, nil)
  t.equal(why.message, "refused")
end)
t.test("stream: a slow script pauses the sender", function()
  http "later"
  local task = rig.spawn(function() return rig.http.stream "http://x.test" end)
  local req = last()
  host.http_head(req.id, 200, "")
  local res = assert(task:wait())
  local piece, sent = ("x"):rep(50000), 0
  while not host.http_paused(req.id) do
    host.http_chunk(req.id, piece)
    sent = sent + #piece
    rig.sleep(0)
    t.ok(sent < 1000000, "bounded")
  end
  t.ok(sent >= 256 * 1024, "sent " .. sent)
  local got = #res:read()
  t.ok(got <= 256 * 1024)
  while got < sent do got = got + #res:read() end
  t.equal(host.http_paused(req.id), false)
  host.http_chunk(req.id, "end")
  t.equal(res:read(), "end")
  res:close()
  t.equal(res:read(), nil)
end)
t.test("stream: closed, cancelled, collected, late", function()
  http("later", "later", "later", "later")
  local function open()
    local n = #asked
    local task = rig.spawn(function() return rig.http.stream "http://x.test" end)
    local req = t.wait(function() return asked[n + 1] end)
    host.http_head(req.id, 200, "")
    return assert(task:wait()), req
  end
  local res = open()
  local reader = rig.spawn(function() return res:read() == nil and "end" end)
  rig.sleep(0)
  t.raises("another task already waits", res.read, res)
  res:close()
  t.equal(reader:wait(), "end")
  res = open()
  reader = rig.spawn(function() return res:read() end)
  rig.sleep(0)
  reader:cancel()
  t.equal(t.raises("", reader.wait, reader).type, "cancelled")
  res = nil -- the collector closes it
  local opening = rig.spawn(rig.http.stream, "http://x.test")
  rig.sleep(0)
  opening:cancel()
  t.raises("", opening.wait, opening)
  local r, e = rig.http.stream("http://x.test", { head_timeout = 2 })
  t.equal(r, nil)
  t.equal(e.type, "timeout_error")
end)
t.test("stream: expect and retry", function()
  http({ status = 503, body = "busy", headers = "" }, { status = 200, body = "yes", headers = "" })
  t.equal(assert(rig.http.stream("http://x.test", { retry = 1 })):all(), "yes")
  http({ status = 404, body = "nothing here", headers = "" })
  local r, e = rig.http.stream("http://x.test/a?k=secret", { expect = 200, retry = 3 })
  t.equal(r, nil)
  t.equal(e.status, 404)
  t.equal(e.body, "nothing here")
  t.equal(e.message, "GET http://x.test/a answered 404")
  t.equal(#asked, 1)
end)

-- ----------------------------------------------------------------------------------------- lines and events
local function streamed(text)
  http({ status = 200, body = text, headers = "" }) -- arrives in pieces of five bytes
  return assert(rig.http.stream "http://x.test")
end
local function feed_of(text, size)
  http "later"
  local task = rig.spawn(function() return rig.http.stream "http://x.test" end)
  local req = last()
  host.http_head(req.id, 200, "")
  local res = assert(task:wait())
  local feeder = rig.spawn(function()
    for at = 1, #text, size do
      host.http_chunk(req.id, text:sub(at, at + size - 1))
      rig.sleep(0)
    end
    host.reply(req.id, "{}")
  end)
  return res, feeder
end
local function gather(iterator, form)
  local out = {}
  for v in iterator do out[#out + 1] = form and form(v) or v end
  return table.concat(out, "|")
end
t.test("lines, cut anywhere", function()
  local text = "one\ntwo\r\n\r\nthree\rfour\n\nlast"
  for size = 1, 7 do
    local res, feeder = feed_of(text, size)
    t.equal(gather(res:lines()), "one|two||three|four||last", "pieces of " .. size)
    feeder:wait()
  end
  t.equal(gather(streamed(text):lines()), "one|two||three|four||last")
  t.equal(gather(streamed "":lines()), "")
  t.equal(gather(streamed "a\n":lines()), "a")
  local res, feeder = feed_of(("x"):rep(1100000), 200000)
  t.equal(t.raises("longer than 1048576", res:lines()).type, "request_too_large")
  res:close()
  feeder:wait()
end)
t.test("events, cut anywhere", function()
  local text = "\239\187\191: a comment\n\nevent: start\ndata: {\"a\":1}\nid: 7\n\ndata:x\ndata: y\ndata\n\n"
    .. "event: none\n\nretry: 5\ndata:  two blanks\r\n\r\nid\ndata: last\n\ndata: cut off"
  local expected = 'start,{"a":1},7|message,x\ny\n,7|message, two blanks,7|message,last,'
  local function form(ev) return ev.event .. "," .. ev.data .. "," .. tostring(ev.id) end
  for size = 1, 11 do
    local res, feeder = feed_of(text, size)
    t.equal(gather(res:events(), form), expected, "pieces of " .. size)
    feeder:wait()
  end
  t.equal(gather(streamed(text):events(), form), expected)
end)

-- ---------------------------------------------------------------------------------------------- rig.connect
t.test("connect: how requests go out", function()
  local c = rig.connect { base_url = "http://far.test/base/", api_key = "sk-mr-k" }
  http({ status = 200, body = '{"data":[{"id":"a","x":null}],"next_page":null}', headers = "" })
  local page = assert(c.sessions.list { statuses = { "idle", "running" }, created_at = { gte = "2026-01-01T00:00:00Z" },
    limit = 5, agent_id = { id = "agent_1" } })
  t.equal(asked[1].method .. " " .. asked[1].url, "GET http://far.test/base/v1/sessions?agent_id=agent_1"
    .. "&created_at%5Bgte%5D=2026-01-01T00%3A00%3A00Z&limit=5&statuses%5B%5D=idle&statuses%5B%5D=running")
  t.equal(table.concat(asked[1].headers, "|"), "anthropic-beta: managed-agents-2026-04-01|anthropic-version: 2023-06-01|x-api-key: sk-mr-k")
  t.equal(page.data[1].x, nil)
  t.equal(page.next_page, nil)
  http({ status = 200, body = '{"id":"agent_1"}', headers = "" })
  assert(c.agents.update("agent/1", { tools = {}, system = rig.null }, { timeout = 3 }))
  t.equal(asked[1].url, "http://far.test/base/v1/agents/agent%2F1")
  t.equal(asked[1].body, '{"system":null,"tools":[]}')
  t.ok(asked[1].timeout_ms <= 3000 and asked[1].timeout_ms > 2900)
  http({ status = 204, body = "", headers = "" })
  t.equal(c.files.delete "file_1", true)
  t.equal(#asked[1].headers, 2, "no beta header where none is needed")
  http({ status = 200, body = '{"id":"file_1"}', headers = "" })
  assert(c.files.upload { bytes = "x,y", filename = "a.csv", purpose = "p" })
  t.match(asked[1].body, 'name="purpose"\r\n\r\np\r\n.*name="file"; filename="a.csv"\r\nContent%-Type: text/csv\r\n\r\nx,y\r\n')
end)
t.test("connect: what is tried again", function()
  local c = rig.connect { base_url = "http://far.test", timeout = 30 }
  local busy = { status = 503, body = "", headers = "retry-after: 1\n" }
  http(busy, { fail = -15, message = "reset", status = 500 }, { status = 200, body = '{"id":"a"}', headers = "" })
  t.equal(assert(c.agents.retrieve "a").id, "a")
  t.equal(#asked, 3)
  http(busy, busy, busy, busy)
  local r, e = c.agents.retrieve "a"
  t.equal(r, nil)
  t.equal(e.status .. " " .. e.type .. " " .. tostring(e.retryable), "503 api_error true")
  t.equal(#asked, 3)
  http(busy)
  r, e = c.agents.create { name = "x" }
  t.equal(e.status, 503)
  t.equal(#asked, 1, "a POST may have done its work")
  http({ status = 429, body = "", headers = "retry-after: 2\n" }, { status = 200, body = '{"id":"a"}', headers = "" })
  t.equal(assert(c.agents.create { name = "x" }).id, "a")
  http({ status = 501, body = '{"type":"error","error":{"type":"api_error","message":"not yet"},"request_id":"req_1"}',
    headers = "x-should-retry: false\n" })
  r, e = c.vaults.list()
  t.equal(e.message .. " " .. e.request_id .. " " .. tostring(e.retryable), "not yet req_1 false")
  t.equal(#asked, 1)
  http({ status = 400, headers = "request-id: req_2\n", body = '{"type":"error","error":{"type":"invalid_request_error",'
    .. '"message":"limit: too much","details":{"field":"limit"}}}' })
  r, e = c.agents.list()
  t.equal(e.field .. " " .. e.request_id .. " " .. e.status, "limit req_2 400")
  http({ status = 502, body = "<html>bad gateway</html>", headers = "x-should-retry: false\n" })
  r, e = c.agents.list()
  t.match(e.message, "answered 502: <html>")
  http({ status = 200, body = "<html>", headers = "" })
  r, e = c.agents.list()
  t.equal(r, nil)
  t.match(e.message, "byte")
end)
t.test("connect: an event stream", function()
  local c = rig.connect { base_url = "unix:/run/m.sock" }
  http("later")
  local events = {}
  local reader = rig.spawn(function()
    local ok, e = pcall(function()
      for ev in assert(c.sessions.events.stream("sesn_1", { event_deltas = { "agent.message" } })) do events[#events + 1] = ev.n end
    end)
    return ok, e
  end)
  local req = last()
  t.equal(req.url .. " " .. req.unix_path,
    "http://localhost/v1/sessions/sesn_1/events/stream?event_deltas%5B%5D=agent.message /run/m.sock")
  host.http_head(req.id, 200, "")
  host.http_chunk(req.id, 'event: ping\ndata: {"type":"ping"}\n\nid: 1\nevent: x\ndata: {"n":1,"nothing":null}\n\nda')
  host.http_chunk(req.id, 'ta: {"n":2}\n\nevent: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"slow"}}\n\n')
  local ok, e = reader:wait()
  t.equal(ok, false)
  t.equal(e.type .. ": " .. e.message, "overloaded_error: slow")
  t.equal(table.concat(events, ","), "1,2")
  http({ status = 404, body = '{"error":{"type":"not_found_error","message":"no such session"}}', headers = "" })
  local r, why = c.sessions.events.stream "sesn_2"
  t.equal(r, nil)
  t.equal(why.type, "not_found_error")
  http("later")
  r, why = c.sessions.events.stream("sesn_3", {}, { timeout = 2 })
  t.equal(r, nil)
  t.equal(why.type, "timeout_error")
end)

t.test("new: opened and closed beside the script thread", function()
  host.logs()
  local c = assert(rig.new { options = { limits = { tool_rounds = 3 } }, timeout = 5 })
  local options = assert(rig.json.decode(host.logs():match "rig.new: ({.*})"))
  t.equal(options.limits.tool_rounds, 3)
  t.match(options.api_key, "^sk%-mr%-%x+$")
  t.equal(#options.api_key, 46)
  http({ status = 200, body = '{"data":[]}', headers = "" })
  assert(c.agents.list())
  t.match(asked[1].unix_path, "^/.*/moonrig%-%x+%.sock$")
  t.equal(asked[1].headers[3], "x-api-key: " .. options.api_key)
  t.raises("client.hook is not there", function() return c.hook end)
  t.equal(c.close(), true)
  t.equal(c.close(), true)
  local none, e = rig.new { store = "busy" }
  t.equal(none, nil)
  t.equal(e.message, "another process holds it")
  c = nil
  local open, many = {}, nil
  for i = 1, 9 do
    collectgarbage()
    rig.sleep(0)
    open[i], many = rig.new()
    if not open[i] then break end
  end
  t.equal(#open, 8)
  t.match(many.message, "8 runtimes are open")
  open = nil -- the collector closes them
  local opening = rig.spawn(rig.new)
  rig.sleep(0)
  opening:cancel()
  pcall(opening.wait, opening)
  t.raises("unknown option dir", rig.new, { dir = "x" })
  t.raises("store must be a string", rig.new, { store = 5 })
end)
rig.main(t.run)
