-- rig.route against the fake host: what a handler gets, what its answer becomes, streaming, clients that go, reload.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local json = rig.json

local seen = {}
rig.route { path = "/x/kinds/{kind}", public = true, timeout = 2.5, body_max = 1000, run = function(req)
  local k = req.params.kind
  if k == "text" then return "hello" end
  if k == "table" then return { b = 1, a = rig.array() } end
  if k == "status" then return 201, "made", { ["X-One"] = "1", ["set-cookie"] = { "a=1", "b=2" } } end
  if k == "json" then return 202, { ok = true } end
  if k == "html" then return 200, "<p>", { ["Content-Type"] = "text/html" } end
  if k == "nothing" then return end
  if k == "bare" then return 404 end
  if k == "err" then return nil, rig.error("not_found_error", "no such order", { status = 404 }) end
  if k == "errtext" then return nil, "not today" end
  if k == "raise" then error "secret inside" end
  if k == "badjson" then return { x = 0 / 0 } end
  if k == "function" then return print end
  if k == "two" then return "a", "b" end
  if k == "status9" then return 900, "x" end
  if k == "split" then return 200, "x", { a = "b\r\nc: d" } end
  if k == "length" then return 200, "x", { ["Content-Length"] = 5 } end
  if k == "name" then return 200, "x", { ["a b"] = "c" } end
end }
rig.route { method = "POST", path = "/x/echo", run = function(req)
  local body, e = req:json()
  local form, fe = req:form()
  return { method = req.method, path = req.path, query = req.query, raw = req.query_string, headers = req.headers,
    remote = req.remote, body = req.body, json = body, jsonerr = e and e.type, form = form, formerr = fe and fe.status }
end }
rig.route { method = "*", path = "/x/any/*", run = function(req) return req.method .. " " .. req.params["*"] end }
rig.route { path = "/x/stream", run = function(_, res)
  res:start(200, { ["content-type"] = "text/csv" })
  for i = 1, 3 do
    seen.at = i
    local ok, e = res:write("line " .. i .. "\n")
    if not ok then
      seen.gone = e.type
      seen.again = select(2, pcall(res.write, res, "more")).type
      seen.later = select(2, pcall(rig.sleep, 1)).type
      return
    end
  end
  seen.after = true
end }
rig.route { path = "/x/events", run = function(_, res)
  t.ok(res:event { event = "tick", data = { n = 1, a = "x" }, id = 7 })
  t.ok(res:event { data = "two\nlines\r\nthree" })
  t.ok(res:event { data = "" })
  t.raises("line break", res.event, res, { event = "a\nb", data = "x" })
  t.raises("begun already", res.start, res)
  res:close()
  local ok, e = res:write "late"
  seen.late = ok == nil and e.message
end }
rig.route { path = "/x/halfway", run = function(_, res)
  res:write "half"
  error "broken halfway"
end }
rig.route { path = "/x/wait", run = function()
  local ok, e = pcall(rig.sleep, 1000)
  seen.waited = not ok and e.type
end }
rig.route { path = "/x/keep", run = function(_, res)
  seen.res = res
  rig.sleep(5)
  return "kept"
end }
rig.route { path = "/x/loop", run = function() while true do end end }

local function ask(method, path, o)
  local id = host.web(method, path, o) or error("no route for " .. path)
  return id
end
local function ended(id)
  return t.wait(function()
    local how, status, head, body, length = host.web_state(id)
    if how ~= "open" then return how, status, head, body, length end
  end, "the end of the request")
end
local function get(kind) return ended(ask("GET", "/x/kinds/" .. kind)) end

t.test("return values become answers", function()
  local function check(kind, status, head, body)
    local how, s, h, b, length = get(kind)
    t.equal(how, "end", kind) t.equal(s, status, kind) t.equal(h, head, kind) t.equal(b, body, kind)
    t.equal(length, #body, kind)
  end
  local text, js = "content-type: text/plain; charset=utf-8\n", "content-type: application/json\n"
  check("text", 200, text, "hello")
  check("table", 200, js, '{"a":[],"b":1}')
  check("status", 201, text .. "set-cookie: a=1\nset-cookie: b=2\nx-one: 1\n", "made")
  check("json", 202, js, '{"ok":true}')
  check("html", 200, "content-type: text/html\n", "<p>")
  check("nothing", 204, "", "")
  check("bare", 404, "", "")
  check("err", 404, js, '{"error":{"message":"no such order","type":"not_found_error"},"type":"error"}')
  check("errtext", 500, js, '{"error":{"message":"not today","type":"api_error"},"type":"error"}')
end)

t.test("mistakes are a 500 that tells the client nothing, and a log line with a traceback", function()
  for kind, word in pairs { raise = "secret inside", badjson = "finite number", ["function"] = "text or a table", two = "status, body",
    status9 = "200 to 599", split = "line break", length = "server says that itself", name = "no name of a header" } do
    host.logs()
    local how, status, _, body = get(kind)
    t.equal(how, "fail", kind)
    t.equal(status, 0, kind)
    t.equal(body, "", kind)
    local log = host.logs()
    t.match(log, word)
    t.match(log, "route GET /x/kinds/{kind}")
    t.match(log, "stack traceback")
  end
  host.logs()
  t.equal(ended(ask("GET", "/x/loop")), "fail")
  t.match(host.logs(), "loop")
end)

t.test("a handler gets the request", function()
  local _, status, _, body = ended(ask("POST", "/x/echo", { query = "a=1&b=x%20y+z&a=2&c", body = '{"n":[1]}',
    headers = "host: x\ncontent-type: application/json\nx-odd: a: b\n" }))
  t.equal(status, 200)
  local r = json.decode(body)
  t.equal(json.encode(r.query), '{"a":"2","b":"x y z","c":""}')
  t.equal(r.raw, "a=1&b=x%20y+z&a=2&c")
  t.equal(r.headers["x-odd"], "a: b")
  t.equal(r.method .. r.path .. r.remote, "POST/x/echo127.0.0.1:9")
  t.equal(r.json.n[1], 1)
  t.equal(r.formerr, 415)
  _, _, _, body = ended(ask("POST", "/x/echo", { body = "a=1+2&b=%C3%BC",
    headers = "content-type: application/x-www-form-urlencoded; charset=utf-8\n" }))
  r = json.decode(body)
  t.equal(r.form.a, "1 2")
  t.equal(r.form.b, "ü")
  t.equal(r.jsonerr, "invalid_request_error")
  _, _, _, body = ended(ask("DELETE", "/x/any/a/b"))
  t.equal(body, "DELETE a/b")
end)

t.test("declarations reach the core", function()
  local routes = host.routes()
  t.match(routes, "GET /x/kinds/{kind} 1 1000 2500\n")
  t.match(routes, "POST /x/echo 0 0 0\n")
  t.match(routes, "%* /x/any/%* 0 0 0\n")
end)

t.test("a stream waits for a slow client", function()
  seen = {}
  local id = ask("GET", "/x/stream")
  host.web_slow(id)
  t.wait(function() return seen.at end)
  rig.sleep(1)
  t.equal(seen.at, 1)
  host.web_drain(id)
  local how, status, head, body, length = ended(id)
  t.equal(how, "end")
  t.equal(status, 200)
  t.equal(head, "content-type: text/csv\n")
  t.equal(body, "line 1\nline 2\nline 3\n")
  t.equal(length, -1)
  t.ok(seen.after)
end)

t.test("a client that goes: nil, err; then the task is cancelled", function()
  seen = {}
  local id = ask("GET", "/x/stream")
  host.web_slow(id)
  t.wait(function() return seen.at end)
  host.web_gone(id)
  t.equal(ended(id), "fail")
  t.wait(function() return seen.later end)
  t.equal(seen.gone, "closed")
  t.equal(seen.again, "cancelled")
  t.equal(seen.later, "cancelled")
  t.equal(seen.at, 1)
  id = ask("GET", "/x/wait")
  rig.sleep(1)
  host.web_gone(id)
  t.equal(ended(id), "fail")
  t.wait(function() return seen.waited end)
  t.equal(seen.waited, "cancelled")
end)

t.test("events are framed", function()
  seen = {}
  local how, status, head, body = ended(ask("GET", "/x/events"))
  t.equal(how, "end")
  t.equal(status, 200)
  t.equal(head, "cache-control: no-store\ncontent-type: text/event-stream\n")
  t.equal(body, 'event: tick\nid: 7\ndata: {"a":"x","n":1}\n\ndata: two\ndata: lines\ndata: three\n\ndata: \n\n')
  t.wait(function() return seen.late end)
  t.match(seen.late, "ended")
end)

t.test("an error halfway cuts the answer", function()
  local how, status, _, body = ended(ask("GET", "/x/halfway"))
  t.equal(how, "fail")
  t.equal(status, 200)
  t.equal(body, "half")
end)

t.test("another task may write, and hears of the end", function()
  seen = {}
  local id = ask("GET", "/x/keep")
  t.wait(function() return seen.res end)
  host.web_slow(id)
  local got
  local task = rig.spawn(function() got = { seen.res:write "from outside" } end)
  rig.sleep(1)
  t.equal(got, nil)
  local how, _, _, body = ended(id)
  task:wait()
  t.equal(how, "end")
  t.equal(body, "from outside")
  t.equal(got[1], nil)
  t.equal(got[2].type, "closed")
  seen.res = nil
end)

t.test("misuse is told where it is declared", function()
  t.raises("top%-level code", rig.route, { path = "/x/a", run = print })
  t.raises("unknown option", rig.route, { path = "/x/a", run = print, verb = "GET" })
  t.raises("path must be", rig.route, { run = print })
  t.raises("begins with /x/", rig.route, { path = "/v1/a", run = print })
  t.raises("stands twice", rig.route, { path = "/x/{a}/{a}", run = print })
  t.raises("as the last one", rig.route, { path = "/x/*/a", run = print })
  t.raises("segment", rig.route, { path = "/x/a//b", run = print })
  t.raises("segment", rig.route, { path = "/x/../b", run = print })
  t.raises("segment", rig.route, { path = "/x/{a}b", run = print })
  t.raises("capital letters", rig.route, { path = "/x/a", method = "get", run = print })
  t.raises("timeout is seconds", rig.route, { path = "/x/a", timeout = 0, run = print })
  t.raises("body_max is bytes", rig.route, { path = "/x/a", body_max = 2 ^ 40, run = print })
  t.raises("run must be", rig.route, { path = "/x/a" })
end)
rig.main(t.run)
