-- The ctx of handlers: what that of a tool can do, wherever the tool is answered; and the words of ctx.log.
local native = require "moonrig.native"
local err = require "moonrig.err"
local kv = require "moonrig.kv"

local M = {}

-- How long records of ctx:once are kept: longer than any call can be under way.
local ONCE_TTL = 90 * 86400

---What all contexts of tools share. A context is the one table of a call, with seven fields: many calls may wait.
local Context = {}
local methods = {}
M.Context = Context

function Context.__index(ctx, key)
  if key ~= "session" then return methods[key] end
  local session = require("moonrig.session").handle(ctx.session_id)
  rawset(ctx, "session", session)
  return session
end
local busy = setmetatable({}, { __mode = "k" }) -- context to the keys of ctx:once that are under way

local function check_once(self, what, key)
  if type(self) ~= "table" then err.misuse("%s: call it with a colon, as %s(key)", what, what) end
  if type(key) ~= "string" or #key < 1 or #key > 256 then
    err.misuse("%s: the key is a string of 1 to 256 bytes", what)
  end
end

---A string that is the same in each attempt of this call and in no other call.
function methods:idempotency_key(key)
  check_once(self, "ctx:idempotency_key", key)
  return ("%s/%s/%s"):format(self.session.id, self.tool_use_id, key)
end

local function once(id, key, fn)
  local row, e = kv.read("once", id)
  if row then return row.value.value end
  if e then return nil, e end
  local value, why = fn(id)
  if value == nil and why ~= nil then return nil, why end
  local rev
  rev, e = kv.write("once", id, { value = value }, { expect = 0, ttl = ONCE_TTL })
  if rev then return value end
  if e.status == 409 then -- an attempt that was taken for dead has recorded it
    row = kv.read("once", id)
    if row then return row.value.value end
  end
  native.log(0, "tool", ("%s finished, but that could not be recorded: %s"):format(key, err.text(e)))
  return nil, e
end

---What fn(idempotency_key) returned, recorded when it finished; a finished one is never started again, not in a
---later attempt of the call either. nil, err is not recorded, nor is an error that fn raises. Between fn's effect
---and the record a crash can repeat it: give the key on to the remote side.
function methods:once(key, fn)
  check_once(self, "ctx:once", key)
  if type(fn) ~= "function" then err.misuse("ctx:once needs a function, got %s", type(fn)) end
  local mine = busy[self] or {}
  busy[self] = mine
  if mine[key] then err.misuse("ctx:once: %q is under way in this call already", key) end
  mine[key] = true
  local ok, value, e = pcall(once, self:idempotency_key(key), key, fn)
  mine[key] = nil
  if not ok then error(value, 0) end
  return value, e
end

---What is logged, as one text; ctx:log("x") is the same as ctx.log("x").
---@param ctx table|false
function M.words(ctx, ...)
  local parts = {}
  for i = 1, select("#", ...) do
    local v = select(i, ...)
    if i > 1 or not rawequal(v, ctx) then parts[#parts + 1] = tostring(v) end
  end
  return table.concat(parts, " ")
end

---A line in the log.
function methods.log(...)
  local first = ...
  native.log(2, native.label(), M.words(getmetatable(first) == Context and first, ...))
end
methods.progress = methods.log

function methods.cancelled() return native.cancelled() end

return M
