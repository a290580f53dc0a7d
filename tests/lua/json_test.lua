local rig = require "moonrig"
local t = require "kit"
local json = rig.json

local function round(text) return json.encode((assert(json.decode(text)))) end

t.test("integers stay exact", function()
  for _, n in ipairs { "0", "-1", "9007199254740992", "9007199254740993", "-9007199254740993",
    "9223372036854775807", "-9223372036854775808", "18446744073709551615" } do
    t.equal(round(n), n)
    t.equal(round("[" .. n .. "]"), "[" .. n .. "]")
    if type(json.decode(n)) == "userdata" then t.equal(tostring(json.decode(n)), n) end
  end
end)
t.test("exact integers compare and are made", function()
  local a, b = json.decode "18446744073709551615", rig.int "18446744073709551615"
  t.ok(a == b)
  t.ok(rig.int "9223372036854775808" < a)
  t.equal(rig.int "42", 42)
  t.raises("not a whole number", rig.int, "4x")
  t.raises("64 bits", rig.int, "18446744073709551616")
end)
t.test("one point zero", function()
  if t.jit then
    t.equal(round "1.0", "1")
  else
    t.equal(round "1.0", "1.0")
    t.equal(round "1", "1")
    t.equal(math.type(json.decode "1"), "integer")
    t.equal(math.type(json.decode "1.0"), "float")
  end
  t.equal(round "1.5e300", "1.5e300")
end)
t.test("empty and null", function()
  t.equal(round '{"a":[],"b":{},"c":null,"d":[null,1]}', '{"a":[],"b":{},"c":null,"d":[null,1]}')
  t.equal(json.encode {}, "{}")
  t.equal(json.encode(rig.array {}), "[]")
  t.equal(json.decode('{"a":null}').a, rig.null)
  t.equal(json.encode { a = rig.null }, '{"a":null}')
  t.equal(json.encode(rig.null), "null")
end)
t.test("keys are sorted at all depths", function()
  t.equal(json.encode { b = 1, a = { z = 1, ["z\0"] = 2, y = { 3, 2 } }, ["aa"] = 0, [""] = true },
    '{"":true,"a":{"y":[3,2],"z":1,"z\\u0000":2},"aa":0,"b":1}')
end)
t.test("what has no JSON form raises or is an error", function()
  t.raises("function", json.encode, { f = print })
  t.raises("holes", json.encode, { 1, nil, 3 })
  t.raises("both", json.encode, { 1, a = 2 })
  t.raises("as a key", json.encode, { [{}] = 1 })
  local loop = {}
  loop.loop = loop
  t.raises("nested", json.encode, loop)
  local v, e = json.encode("\255\254")
  t.equal(v, nil)
  t.match(e.message, "UTF%-8")
  t.equal(json.encode(0 / 0), nil)
  v, e = json.decode "{\"a\":"
  t.equal(v, nil)
  t.match(tostring(e), "byte")
  t.equal(json.decode "\"\255\"", nil)
end)
t.test("cjson's null is the same", function()
  local ok, cjson = pcall(function() return rig.cjson end)
  if ok then t.equal(cjson.null, rig.null) end
end)
t.test("pretty", function()
  t.match(json.encode({ a = 1 }, { pretty = true }), "\n")
end)
rig.main(t.run)
