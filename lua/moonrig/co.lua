-- The coroutine library for scripts: a task that waits inside a coroutine of its own passes the
-- scheduler's WAIT marker up, level by level, and the results back down.
local native = require "moonrig.native"
local resume, yield, WAIT = coroutine.resume, coroutine.yield, native.WAIT

local co = {}
for k, v in pairs(coroutine) do co[k] = v end

local function pass(c, ok, first, ...)
  if ok and first == WAIT then return pass(c, resume(c, yield(WAIT))) end
  return ok, first, ...
end

function co.resume(c, ...) return pass(c, resume(c, ...)) end

local function unwrap(ok, first, ...)
  if ok then return first, ... end
  error(first, 0)
end

function co.wrap(fn)
  local c = coroutine.create(fn)
  return function(...) return unwrap(pass(c, resume(c, ...))) end
end

return co
