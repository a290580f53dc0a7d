-- rig.crypto on the real runtime: vectors of the standards, what is refused.
local rig = require "moonrig"
local t = require "kit"
local c = rig.crypto

t.test("digests: vectors", function()
  t.equal(c.sha256 "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
  t.equal(c.sha256 "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
  t.equal(c.sha1 "abc", "a9993e364706816aba3e25717850c26c9cd0d89d")
  t.equal(c.md5 "abc", "900150983cd24fb0d6963f7d28e17f72")
  t.equal(c.sha512 "abc":sub(1, 32), "ddaf35a193617abacc417349ae204131")
  t.equal(c.sha256(("a"):rep(1000000)), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
  t.equal(c.hex.encode(c.sha256("abc", { raw = true })), c.sha256 "abc")
  t.equal(#c.sha512("\0", { raw = true }), 64)
end)
t.test("hmac: RFC 4231", function()
  t.equal(c.hmac("sha256", ("\11"):rep(20), "Hi There"), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7")
  t.equal(c.hmac("sha256", ("\170"):rep(131), "Test Using Larger Than Block-Size Key - Hash Key First"),
    "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
  t.equal(#c.hmac("sha512", "", "", { raw = true }), 64)
  t.raises('no digest is named "sha3"', c.hmac, "sha3", "k", "v")
  t.raises("rig.crypto.hmac takes a string, got nil", c.hmac, "sha256", nil, "v")
  t.raises("rig.crypto.sha256 takes a string, got table", c.sha256, {})
  t.raises("unknown option hex", c.sha256, "", { hex = true })
end)
t.test("base64 both ways", function()
  for text, coded in pairs { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", ["\255\254\253\0"] = "//79AA==" } do
    t.equal(c.base64.encode(text), coded)
    t.equal(c.base64.decode(coded), text)
    t.equal(c.base64.decode((coded:gsub("=", ""))), text)
    t.equal(c.base64.decode(c.base64.encode(text, { url = true })), text)
  end
  t.equal(c.base64.encode("\255\254\253\0", { url = true }), "__79AA")
  for text, at in pairs { ["Zg="] = 3, ["Z"] = 1, ["Zm9\n"] = 4, ["Zh=="] = 2, ["===="] = 1, ["Zg==="] = 5, ["\0AAA"] = 1 } do
    local v, e = c.base64.decode(text)
    t.equal(v, nil, text)
    t.equal(e.message, "not base64: it breaks at byte " .. at, text)
  end
  for n = 0, 70 do
    local bytes = c.random(n)
    t.equal(c.base64.decode(c.base64.encode(bytes)), bytes)
    t.equal(c.hex.decode(c.hex.encode(bytes)), bytes)
  end
end)
t.test("hex", function()
  t.equal(c.hex.encode "\0\171\255", "00abff")
  t.equal(c.hex.decode "00ABff", "\0\171\255")
  t.equal(select(2, c.hex.decode "0g").message, "not hex: it breaks at byte 2")
  t.equal(select(2, c.hex.decode "abc").message, "not hex: it breaks at byte 4")
  t.raises("takes a string", c.hex.decode)
end)
t.test("random, uuid, equal", function()
  t.equal(#c.random(1000), 1000)
  t.ok(c.random(16) ~= c.random(16))
  t.raises("from 0 to 1048576", c.random, -1)
  t.raises("from 0 to 1048576", c.random, 1.5)
  t.raises("number of bytes, got string", c.random, "x")
  local seen = {}
  for _ = 1, 200 do
    local id = c.uuid()
    t.match(id, "^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$")
    t.equal(seen[id], nil)
    seen[id] = true
  end
  t.equal(c.equal("secret", "secret"), true)
  t.equal(c.equal("secret", "secreT"), false)
  t.equal(c.equal("secret", "secret\0"), false)
  t.raises("takes a string, got nil", c.equal, "a")
end)
rig.main(t.run)
