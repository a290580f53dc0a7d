-- The coroutine library for scripts: a task that waits inside a coroutine of its own passes the
-- scheduler's WAIT marker up, level by level, and the results back down.
local native = require "moonrig.native"
local resume, yield, running, WAIT = coroutine.resume, coroutine.yield, coroutine.running, native.WAIT
local parents = native.parents -- who resumed whom: a native that waits looks whether all can yield
local waiting = setmetatable({}, { __mode = "k" })

local co = {}
for k, v in pairs(coroutine) do co[k] = v end

local function go_on(c, ...)
  waiting[c] = nil
  return resume(c, ...)
end

local function pass(c, ok, first, ...)
  if ok and first == WAIT then
    waiting[c] = true
    return pass(c, go_on(c, yield(WAIT)))
  end
  return ok, first, ...
end

function co.resume(c, ...)
  if waiting[c] then return false, "cannot resume a coroutine that waits" end
  if type(c) == "thread" then parents[c] = running() end
  return pass(c, resume(c, ...))
end

function co.status(c)
  return waiting[c] and "normal" or coroutine.status(c)
end

local function unwrap(ok, first, ...)
  if ok then return first, ... end
  error(first, 0)
end

function co.wrap(fn)
  local c = coroutine.create(fn)
  return function(...) return unwrap(co.resume(c, ...)) end
end

if coroutine.close then
  function co.close(c)
    if waiting[c] then error("cannot close a coroutine that waits", 2) end
    return coroutine.close(c)
  end
end

return co
