-- rig.crypto: digests, HMAC, random bytes, base64, hex. What it takes to sign a request and to check a webhook.
local native = require "moonrig.native"
local declare = require "moonrig.declare"
local err = require "moonrig.err"

---@class moonrig.crypto
local M = { base64 = {}, hex = {} }

local function bytes(what, v)
  if type(v) ~= "string" then err.misuse("%s takes a string, got %s", what, type(v)) end
  return v
end

local function digest(what, name, data, key, o)
  bytes(what, data)
  if o ~= nil then declare.keys(what, o, "raw") end
  local text = native.digest(name, data, key, o and o.raw)
  if not text then
    err.misuse("%s: no digest is named %q (sha256, sha512, sha1, md5, blake2b512)", what, name)
  end
  return text
end

---@class moonrig.DigestOptions
---@field raw? boolean the bytes instead of hex digits

---SHA-256 as hex digits in lower case.
---@param s string
---@param o? moonrig.DigestOptions
---@return string
function M.sha256(s, o) return digest("rig.crypto.sha256", "sha256", s, nil, o) end

---SHA-512 as hex digits in lower case.
---@param s string
---@param o? moonrig.DigestOptions
---@return string
function M.sha512(s, o) return digest("rig.crypto.sha512", "sha512", s, nil, o) end

---SHA-1 as hex digits in lower case; for what still asks for it, no more safe against forgery.
---@param s string
---@param o? moonrig.DigestOptions
---@return string
function M.sha1(s, o) return digest("rig.crypto.sha1", "sha1", s, nil, o) end

---MD5 as hex digits in lower case; for checksums that others chose, never for secrets.
---@param s string
---@param o? moonrig.DigestOptions
---@return string
function M.md5(s, o) return digest("rig.crypto.md5", "md5", s, nil, o) end

---The keyed digest of s, as hex digits.
---@param name "sha256"|"sha512"|"sha1"|"md5"|"blake2b512"
---@param key string
---@param s string
---@param o? moonrig.DigestOptions
---@return string
function M.hmac(name, key, s, o)
  bytes("rig.crypto.hmac", name)
  bytes("rig.crypto.hmac", key)
  return digest("rig.crypto.hmac", name, s, key, o)
end

---n random bytes (at most 1 MiB) from the system.
---@param n integer
---@return string
function M.random(n)
  if type(n) ~= "number" then err.misuse("rig.crypto.random takes a number of bytes, got %s", type(n)) end
  return native.random(n)
end

---A random UUID (version 4): "f81d4fae-7dec-41d0-a765-00a0c91e6bf6".
---@return string
function M.uuid()
  local b = { native.random(16):byte(1, 16) }
  b[7] = 0x40 + b[7] % 16
  b[9] = 0x80 + b[9] % 64
  return ("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x"):format((table.unpack or unpack)(b))
end

---Are two strings equal? The time it takes depends on their lengths alone, so that a secret cannot be guessed
---byte by byte.
---@param a string
---@param b string
---@return boolean
function M.equal(a, b)
  bytes("rig.crypto.equal", a)
  bytes("rig.crypto.equal", b)
  return native.same(a, b)
end

local function broken(what, at)
  return nil, err.new("invalid_request_error", ("not %s: it breaks at byte %d"):format(what, at))
end

---Base64.
---@param s string
---@param o? { url?: boolean } url: the alphabet of URLs, without padding
---@return string
function M.base64.encode(s, o)
  bytes("rig.crypto.base64.encode", s)
  if o ~= nil then declare.keys("rig.crypto.base64.encode", o, "url") end
  return native.base64(s, o and o.url)
end

---Reads both alphabets, with or without padding; nothing else, no line breaks.
---@param s string
---@return string? bytes
---@return moonrig.Error? err
function M.base64.decode(s)
  local v, at = native.unbase64(bytes("rig.crypto.base64.decode", s))
  if v then return v end
  return broken("base64", at)
end

---Hex digits in lower case.
---@param s string
---@return string
function M.hex.encode(s) return native.hex(bytes("rig.crypto.hex.encode", s)) end

---The bytes that hex digits stand for.
---@param s string
---@return string? bytes
---@return moonrig.Error? err
function M.hex.decode(s)
  local v, at = native.unhex(bytes("rig.crypto.hex.decode", s))
  if v then return v end
  return broken("hex", at)
end

return M
