-- Tasks for scripts: start, wait for, run several at once. A task started here belongs to the one that
-- started it, and is cancelled when that ends.
local native = require "moonrig.native"
local wait = require "moonrig.wait"
local err = require "moonrig.err"

local M = {}
local join = wait(native.join)

---Waits. Other tasks run meanwhile.
---@param seconds number
M.sleep = wait(native.sleep)

---@class moonrig.Task
local Task = {}
Task.__index = Task

local function pack(...) return { n = select("#", ...), ... } end
local unpack = table.unpack or unpack

local function traced(e)
  if type(e) == "string" then return debug.traceback(e, 2) end
  return e
end

local function body(task, fn, ...)
  local r = pack(xpcall(fn, traced, ...))
  task.done, task.ok = true, r[1]
  if r[1] then
    task.results = r
  else
    task.error = r[2]
    if not task.watched and not native.cancelled() then
      native.log(1, "script", "a spawned task failed: " .. err.text(r[2]))
    end
  end
end

---Starts fn(...) as a task of its own.
---@param fn function
---@return moonrig.Task
function M.spawn(fn, ...)
  if type(fn) ~= "function" then err.misuse("rig.spawn needs a function, got %s", type(fn)) end
  local task = setmetatable({ done = false }, Task)
  task.id = native.spawn(body, task, fn, ...)
  return task
end

---Waits for its end; returns what the function returned, raises what it raised.
function Task:wait()
  self.watched = true
  if not self.done then join(self.id) end
  if self.ok then return unpack(self.results, 2, self.results.n) end
  error(self.error or self.failure or err.new("cancelled", "the task was cancelled"), 0)
end

---Stops it: what it waits for is undone, and it sees an error.
---@param why? string
function Task:cancel(why)
  native.cancel(self.id, why)
end

local function cancel_others(tasks)
  local me = native.current()
  for _, t in pairs(tasks) do
    if not t.done and t.id ~= me then t:cancel("another task of the group failed") end
  end
end

---Runs fn on each item, at most `concurrency` (default 8) at the same time. fn(item, index) returns a
---value, or nil, err. Results come in the order of the list.
---The first nil, err ends the whole as nil, err, the others are cancelled; with on_error = "collect" all
---run, and the second result is a table of the errors by index. A raise in fn is raised here.
---@generic T, R
---@param list T[]
---@param fn fun(item: T, index: integer): R?, moonrig.Error?
---@param options? { concurrency?: integer, on_error?: "collect" }
---@return R[]?, table?
function M.map(list, fn, options)
  if type(list) ~= "table" then err.misuse("rig.map needs a list, got %s", type(list)) end
  if type(fn) ~= "function" then err.misuse("rig.map needs a function, got %s", type(fn)) end
  options = options or {}
  local collect = options.on_error == "collect"
  local results, errors, failed, next_index, workers = {}, {}, nil, 0, {}
  local count = #list
  local raised
  local function work()
    while next_index < count and not failed and not raised do
      next_index = next_index + 1
      local i = next_index
      local ok, v, e = xpcall(fn, traced, list[i], i)
      if not ok then
        raised = raised or { v }
        return cancel_others(workers)
      end
      results[i] = v
      if v == nil and e ~= nil then
        errors[i] = e
        if not collect then
          failed = failed or e
          return cancel_others(workers)
        end
      end
    end
  end
  for w = 1, math.min(options.concurrency or 8, count) do
    workers[w] = M.spawn(work)
    workers[w].watched = true
  end
  for _, t in ipairs(workers) do
    if not t.done then join(t.id) end
    if t.failure and not raised and not failed then raised = { t.failure } end
  end
  if failed then return nil, failed end
  if raised then error(raised[1], 0) end
  if collect then return results, next(errors) ~= nil and errors or nil end
  return results
end

---Runs the functions at the same time; their first results, in order (or by key). As rig.map.
---@param fns table
---@param options? { concurrency?: integer, on_error?: "collect" }
function M.all(fns, options)
  local keys, list, named = {}, {}, {}
  for k, fn in pairs(fns) do
    if type(fn) ~= "function" then err.misuse("rig.all needs functions, got %s at %s", type(fn), tostring(k)) end
    keys[#keys + 1] = k
  end
  table.sort(keys, function(a, b)
    if type(a) == type(b) then return a < b end
    return type(a) == "number"
  end)
  for i, k in ipairs(keys) do list[i] = fns[k] end
  local r, e = M.map(list, function(fn) return fn() end,
    { concurrency = options and options.concurrency or #list, on_error = options and options.on_error })
  if not r then return nil, e end
  for i, k in ipairs(keys) do named[k] = r[i] end
  if not e then return named end
  local errors = {}
  for i, k in ipairs(keys) do errors[k] = e[i] end
  return named, errors
end

return M
