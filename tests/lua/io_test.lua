-- HTTP, files, environment, URLs, time, log.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local tmp = os.getenv "TMP"

local asked, answers = {}, {}
host.op("http", function(req)
  asked[#asked + 1] = req
  local a = table.remove(answers, 1)
  if type(a) == "function" then return a(req) end
  if a and a.fail then return nil, { code = a.fail, message = a.message or "no answer" } end
  return a or { status = 200, body = "ok", headers = "" }
end)
local function http(...)
  asked, answers = {}, { ... }
end

-- --------------------------------------------------------------------------------------------------- http
t.test("http: a request as it goes out", function()
  http()
  local r = assert(rig.http.get("http://x.test/a", { query = { q = "a b", n = { 1, 2 } }, headers = { ["X-K"] = "v" },
    timeout = 2.5, follow = 3, max_body = 1000 }))
  t.equal(r.status, 200)
  t.equal(r.body, "ok")
  t.equal(rig.json.encode(asked[1]), '{"body":"","follow":3,"headers":["X-K: v"],"max_body":1000,"method":"GET",'
    .. '"timeout_ms":2500,"url":"http://x.test/a?n=1&n=2&q=a%20b"}')
  http()
  assert(rig.http.post("http://x.test/?a=1", { json = { b = 2, a = {} }, query = { c = "d" } }))
  t.equal(asked[1].body, '{"a":{},"b":2}')
  t.equal(asked[1].headers[1], "content-type: application/json")
  t.equal(asked[1].url, "http://x.test/?a=1&c=d")
  assert(rig.http.put("http://x.test", { body = "\0raw", headers = { ["Content-Type"] = "text/plain" } }))
  t.equal(asked[2].method .. asked[2].body, "PUT\0raw")
  for _, m in ipairs { "patch", "delete", "head" } do assert(rig.http[m] "http://x.test") end
  assert(rig.http.request { url = "http://x.test", method = "options" })
  t.equal(asked[6].method, "OPTIONS")
end)
t.test("http: the answer", function()
  http { status = 404, body = '{"n":9007199254740993,"e":[]}', headers = "content-type: application/json\nset-cookie: a\nset-cookie: b\n" }
  local r = assert(rig.http.get "http://x.test")
  t.equal(r.status, 404)
  t.equal(r.headers["content-type"], "application/json")
  t.equal(r.headers["set-cookie"], "a, b")
  t.equal(rig.json.encode(r:json()), '{"e":[],"n":9007199254740993}')
  http { status = 200, body = "<html>", headers = "" }
  local v, e = rig.http.get("http://x.test"):json()
  t.equal(v, nil)
  t.match(e.message, "byte")
end)
t.test("http: expect and retry", function()
  http({ status = 503, body = "busy", headers = "" }, { fail = -17, message = "reset" }, { status = 200, body = "yes", headers = "" })
  local from = host.clock()
  local r = assert(rig.http.get("http://x.test", { retry = 2, expect = 200 }))
  t.equal(r.body, "yes")
  t.equal(#asked, 3)
  t.ok(host.clock() - from > 0.3, "waits between")
  http({ status = 404, body = "no such order", headers = "" })
  local none, e = rig.http.get("http://x.test/po?key=secret", { retry = 2, expect = { 200, 201 } })
  t.equal(none, nil)
  t.equal(e.type, "unexpected_status")
  t.equal(e.status, 404)
  t.equal(e.body, "no such order")
  t.equal(e.message, "GET http://x.test/po answered 404")
  t.equal(#asked, 1)
  http({ status = 429, body = "", headers = "retry-after: 7\n" })
  from = host.clock()
  assert(rig.http.get("http://x.test", { retry = 1 }))
  t.ok(host.clock() - from >= 7, "retry-after")
  for _, odd in ipairs { "nan", "-1", "inf", "soon" } do
    http({ status = 429, body = "", headers = "retry-after: " .. odd .. "\n" })
    from = host.clock()
    assert(rig.http.get("http://x.test", { retry = 1 }))
    t.ok(host.clock() - from < 1, odd)
  end
  http({ status = 500, body = "", headers = "" }, { status = 500, body = "", headers = "" })
  t.equal(assert(rig.http.get("http://x.test", { retry = 1 })).status, 500)
  http({ fail = -14, message = "timed out" })
  none, e = rig.http.get "http://x.test"
  t.equal(none, nil)
  t.equal(e.type, "timeout_error")
  http({ fail = -2, message = "url: not a URL" })
  none, e = rig.http.get("nonsense", { retry = 5 })
  t.equal(e.message, "url: not a URL")
  t.equal(#asked, 1)
end)
t.test("http: misuse raises, bad input is an error", function()
  t.raises("url is missing", rig.http.request, {})
  t.raises("url is missing", rig.http.get)
  t.raises("unknown option timout", rig.http.get, "http://x", { timout = 1 })
  t.raises("line break", rig.http.get, "http://x", { headers = { a = "b\r\nc: d" } })
  t.raises("body and json", rig.http.get, "http://x", { body = "x", json = {} })
  t.raises("timeout", rig.http.get, "http://x", { timeout = "soon" })
  t.raises("more than 64", rig.http.get, "http://x", { headers = (function()
    local h = {}
    for i = 1, 70 do h["h" .. i] = "v" end
    return h
  end)() })
  local v, e = rig.http.post("http://x", { json = "\255" })
  t.equal(v, nil)
  t.match(e.message, "UTF%-8")
end)
t.test("http: many at once, and a cancel", function()
  http()
  local r = assert(rig.map({ 1, 2, 3, 4 }, function(i) return rig.http.get("http://x.test/" .. i).body end))
  t.equal(#r, 4)
  local id
  host.op("http", function(_, call)
    id = call
    return host.LATER
  end)
  local task = rig.spawn(rig.http.get, "http://slow.test")
  t.wait(function() return id end)
  task:cancel()
  t.equal(t.raises("", task.wait, task).type, "cancelled")
end)

-- -------------------------------------------------------------------------------------------------- files
t.test("fs", function()
  local dir = tmp .. "/fs"
  assert(rig.fs.mkdir(dir))
  t.ok(rig.fs.write(dir .. "/a.txt", "one\ntwo\r\n\nlast"))
  t.ok(rig.fs.append(dir .. "/a.txt", "!"))
  t.equal(assert(rig.fs.read(dir .. "/a.txt")), "one\ntwo\r\n\nlast!")
  local lines = {}
  for line in rig.fs.lines(dir .. "/a.txt") do lines[#lines + 1] = line end
  t.equal(table.concat(lines, "|"), "one|two||last!")
  t.ok(rig.fs.rename(dir .. "/a.txt", dir .. "/b.txt"))
  t.ok(rig.fs.write(dir .. "/0.bin", "\0\255"))
  local list = assert(rig.fs.list(dir))
  t.equal(list[1].name .. " " .. list[2].name, "0.bin b.txt")
  t.equal(list[1].size, 2)
  t.equal(list[1].type, "file")
  t.equal(assert(rig.fs.stat(dir)).type, "directory")
  t.equal(assert(rig.fs.read(dir .. "/0.bin")), "\0\255")
  t.ok(rig.fs.remove(dir .. "/b.txt"))
  local v, e = rig.fs.read(dir .. "/b.txt")
  t.equal(v, nil)
  t.equal(e.type, "not_found_error")
  t.raises("No such file", rig.fs.lines, dir .. "/b.txt")
  t.raises("string expected", rig.fs.read)
  t.equal(assert(rig.fs.write(dir .. "/empty", "")), true)
  t.equal(assert(rig.fs.read(dir .. "/empty")), "")
end)
t.test("rig.file is relative to the script", function()
  t.match(rig.file "kit.lua", "test kit of tests/lua")
  t.match(rig.file(tmp .. "/fs/empty"), "^$")
  t.raises("io_test.lua:%d+: rig.file: .*nowhere.md", function() return (rig.file "nowhere.md") end)
end)

-- --------------------------------------------------------------------------------------------------- rest
t.test("env, url, time, log", function()
  t.equal(rig.env.TMP, tmp)
  t.equal(rig.env.NO_SUCH_VARIABLE, nil)
  t.raises("read%-only", function() rig.env.X = 1 end)
  t.equal(rig.url.escape "a b/ü?", "a%20b%2F%C3%BC%3F")
  t.equal(rig.url.unescape(rig.url.escape "a b/ü?+"), "a b/ü?+")
  t.equal(rig.url.query { b = 1, a = { "x", "y&" } }, "a=x&a=y%26&b=1")
  local now = rig.time.now()
  t.ok(now > 1.6e9)
  t.equal(rig.time.format(1700000000.25), "2023-11-14T22:13:20.250000Z")
  t.equal(rig.time.parse "2023-11-14T22:13:20.250000Z", 1700000000.25)
  t.equal(rig.time.parse "2023-11-15T00:13:20+02:00", 1700000000)
  t.equal(rig.time.parse(rig.time.format(0)), 0)
  local v, e = rig.time.parse "yesterday"
  t.equal(v, nil)
  t.match(e.message, "RFC 3339")
  t.ok(rig.time.mono() >= 0)
  host.logs()
  rig.log("a", 1, nil, rig.null and true)
  rig.log.warn "careful\nsecond line"
  rig.log.error "bad"
  rig.log.debug "fine"
  local text = host.logs()
  t.match(text, "2 [^\n]*io_test.lua:%d+: a 1 nil true\n")
  t.match(text, "1 [^\n]*io_test.lua:%d+: careful\n1 [^\n]*: second line\n0 [^\n]*: bad\n3 [^\n]*: fine\n")
end)
t.test("cjson, when it is installed", function()
  local ok, cjson = pcall(function() return rig.cjson end)
  if not ok then
    t.match(cjson, "lua%-cjson is not installed")
    return
  end
  t.equal(cjson.null, rig.null)
  t.equal(rig.json.encode(cjson.decode '{"a":null,"b":["x"]}'), '{"a":null,"b":["x"]}')
  t.equal(require "cjson", cjson)
end)
t.test("what is not there says so", function()
  for _, name in ipairs { "workflow" } do
    t.raises("rig." .. name .. " is not in this version", function() return rig[name] end)
  end
  t.equal(rig.no_such_thing, nil)
  t.raises("scripts add nothing to rig", function() rig.mine = 1 end)
end)
rig.main(t.run)
