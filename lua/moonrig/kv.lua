-- rig.kv: durable values by key, in the server's own store. A value is anything that has a JSON form; it is on
-- disk when set returns. Other parts of the library keep their records in spaces of their own (M.space).
local native = require "moonrig.native"
local wait = require "moonrig.wait"
local err = require "moonrig.err"
local time = require "moonrig.time"
local task = require "moonrig.task"

local M = {}
---@class moonrig.kv
M.public = {}
local kv = wait(native.kv)
local TRIES = 50

local function check_key(what, key)
  if type(key) ~= "string" then err.misuse("%s: the key is a string, got %s", what, type(key)) end
  if #key < 1 or #key > 512 then err.misuse("%s: a key has 1 to 512 bytes, this one %d", what, #key) end
end

local function check_options(what, o, allowed)
  if o == nil then return {} end
  if type(o) ~= "table" then err.misuse("%s: options are a table, got %s", what, type(o)) end
  for k in pairs(o) do
    if not (" " .. allowed .. " "):find(" " .. tostring(k) .. " ", 1, true) then
      err.misuse("%s: unknown option %s (known: %s)", what, tostring(k), allowed)
    end
  end
  if o.ttl ~= nil and not (type(o.ttl) == "number" and o.ttl > 0 and o.ttl <= 100 * 365 * 86400) then
    err.misuse("%s: ttl is seconds, more than 0, at most 100 years", what)
  end
  return o
end

local function status(e) return type(e) == "table" and e.status or nil end

---The row { value, rev, expires_at } of a key of any space, nil when there is none, or nil, err.
function M.read(space, key)
  local r, e = kv("get", space, key, {})
  if not r and status(e) ~= 404 then return nil, e end
  return r
end

---Writes; expect: the rev it must be at, 0 for none. The new rev, or nil, err (409: it was not).
function M.write(space, key, value, options)
  local r, e = kv("put", space, key, options or {}, value)
  if not r then return nil, e end
  return r.rev
end

---The value of a key; nil when there is none.
---@param key string 1 to 512 bytes
---@return any value
---@return moonrig.Error? err
function M.public.get(key)
  check_key("rig.kv.get", key)
  local r, e = M.read("kv", key)
  if e then return nil, e end
  return r and r.value
end

---@class moonrig.KvOptions
---@field ttl? number        seconds until it is gone; default: never
---@field if_absent? boolean only when there is none: else nil, err with err.status 409

---Keeps a value (at most 1 MiB as JSON).
---@param key string
---@param value any
---@param options? moonrig.KvOptions
---@return boolean? ok
---@return moonrig.Error? err
function M.public.set(key, value, options)
  check_key("rig.kv.set", key)
  options = check_options("rig.kv.set", options, "ttl if_absent")
  if value == nil then err.misuse("rig.kv.set: there is no value; rig.kv.delete(key) removes one") end
  local rev, e = M.write("kv", key, value, { ttl = options.ttl, expect = options.if_absent and 0 or -1 })
  if not rev then return nil, e end
  return true
end

---Removes a key; one that is not there is fine.
---@param key string
---@return boolean? ok
---@return moonrig.Error? err
function M.public.delete(key)
  check_key("rig.kv.delete", key)
  local r, e = kv("delete", "kv", key, {})
  if not r then return nil, e end
  return true
end

---A page of the keys that begin with prefix, in the order of their bytes.
---@param prefix? string "" for all
---@param options? { limit: integer?, after: string? } limit: 1 to 1,000, default 100; after: keys past this one
---@return { key: string, value: any }[]? list
---@return boolean|moonrig.Error more are there others after these? (nil, err: it failed)
function M.public.list(prefix, options)
  prefix = prefix or ""
  if type(prefix) ~= "string" then err.misuse("rig.kv.list: the prefix is a string, got %s", type(prefix)) end
  options = check_options("rig.kv.list", options, "limit after")
  local limit = options.limit
  if limit ~= nil and not (type(limit) == "number" and limit >= 1 and limit <= 1000 and limit % 1 == 0) then
    err.misuse("rig.kv.list: limit is from 1 to 1000")
  end
  if options.after ~= nil and type(options.after) ~= "string" then
    err.misuse("rig.kv.list: after is a key, got %s", type(options.after))
  end
  local r, e = kv("list", "kv", prefix, options)
  if not r then return nil, e end
  local list = {}
  for i, row in ipairs(r.data) do list[i] = { key = row.key, value = row.value } end
  return list, r.more
end

---Iterates over key, value of all keys that begin with prefix; raises when they cannot be read.
---@param prefix? string
---@return fun(): string?, any
function M.public.each(prefix)
  local page, more, i, after = {}, true, 0, nil
  return function()
    i = i + 1
    while not page[i] do
      if not more then return nil end
      page, more = M.public.list(prefix, { after = after })
      if not page then error(more, 0) end
      i = 1
    end
    after = page[i].key
    return after, page[i].value
  end
end

local function keep_ttl(row, ttl)
  if ttl or not row or not row.expires_at then return ttl end
  local at = time.parse(row.expires_at)
  return at and math.max(at - native.now(), 0.001) or nil
end

---Changes a value by what fn makes of it; nobody else's change is lost. fn(old) returns the new value, nil to
---leave it as it is, or nil, err; it is called again when somebody else was faster. A key keeps its time to live,
---unless options.ttl says otherwise.
---@param key string
---@param fn fun(old: any): any, any
---@param options? { ttl: number? }
---@return any value what the key holds now
---@return moonrig.Error? err
function M.public.update(key, fn, options)
  check_key("rig.kv.update", key)
  if type(fn) ~= "function" then err.misuse("rig.kv.update needs a function, got %s", type(fn)) end
  options = check_options("rig.kv.update", options, "ttl")
  local e
  for try = 1, TRIES do
    local row, rev, new, why
    row, e = M.read("kv", key)
    if e then return nil, e end
    new, why = fn(row and row.value)
    if new == nil then
      if why ~= nil then return nil, why end
      return row and row.value
    end
    rev, e = M.write("kv", key, new, { ttl = keep_ttl(row, options.ttl), expect = row and row.rev or 0 })
    if rev then return new end
    if status(e) ~= 409 then return nil, e end
    task.sleep(math.random() * 0.002 * try)
  end
  return nil, e
end

---Adds to a number; a key that is not there counts as 0.
---@param key string
---@param by? number default 1
---@return number? value the sum
---@return moonrig.Error? err
function M.public.incr(key, by)
  by = by or 1
  if type(by) ~= "number" then err.misuse("rig.kv.incr: by is a number, got %s", type(by)) end
  return M.public.update(key, function(old)
    if old ~= nil and type(old) ~= "number" then
      return nil, err.new("invalid_request_error", ("rig.kv.incr: %q does not hold a number"):format(key))
    end
    return (old or 0) + by
  end)
end

return M
