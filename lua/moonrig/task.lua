-- rig.task: tasks for scripts. A task started here belongs to the one that started it, and is cancelled
-- when that ends.
local native = require "moonrig.native"
local wait = require "moonrig.wait"
local err = require "moonrig.err"

local join = wait(native.join)

---@class moonrig.task
---@field sleep fun(seconds: number) waits; other tasks run meanwhile
---@field cancelled fun(): boolean has the running task been cancelled? Its next wait raises then
local M = {}
M.sleep = wait(native.sleep)

---@class moonrig.Task
---@field done boolean has it ended?
local Task = {}
Task.__index = Task

-- Of error(nil), and of LuaJIT when it runs out of memory while it handles an error.
local NO_VALUE = err.new("api_error", "an error without a value (memory may have run out)")

local function pack(...) return { n = select("#", ...), ... } end
local unpack = table.unpack or unpack

local function body(task, fn, ...)
  local r = pack(xpcall(fn, err.traced, ...))
  task.done, task.ok = true, r[1]
  if r[1] then
    task.results = r
  else
    task.error = r[2]
    if task.error == nil then task.error = NO_VALUE end
    if not task.watched and not native.cancelled() then
      native.log(1, "script", "a spawned task failed: " .. err.text(r[2]))
    end
  end
  if task.notify then task.notify() end
end

---Starts fn(...) as a task of its own.
---@param fn function
---@param ... any its arguments
---@return moonrig.Task
function M.spawn(fn, ...)
  if type(fn) ~= "function" then err.misuse("rig.spawn needs a function, got %s", type(fn)) end
  local task = setmetatable({ done = false }, Task)
  task.id = native.spawn(body, task, fn, ...)
  return task
end

---Waits for its end; returns what the function returned, raises what it raised.
---@return any ...
function Task:wait()
  self.watched = true
  if not self.done then join(self.id) end
  if self.ok then return unpack(self.results, 2, self.results.n) end
  if self.ok == false and not self.failure then error(self.error, 0) end
  error(self.failure or err.new("cancelled", "the task was cancelled"), 0)
end
Task.join = Task.wait

---Stops it: what it waits for is undone, and it sees an error.
---@param why? string
function Task:cancel(why)
  native.cancel(self.id, why)
end

---Waits for the end of a task, or of each of a list of tasks: their first results, in order. Raises what
---the first of them raised.
---@param task moonrig.Task|moonrig.Task[]
---@return any ... of a list: a list
function M.join(task)
  if getmetatable(task) == Task then return task:wait() end
  if type(task) ~= "table" then err.misuse("rig.task.join needs a task or a list of tasks, got %s", type(task)) end
  local results = {}
  for i, t in ipairs(task) do results[i] = t:wait() end
  return results
end

M.cancelled = native.cancelled

local function cancel_all(tasks, why)
  local me = native.current()
  for _, t in pairs(tasks) do
    if not t.done and t.id ~= me then t:cancel(why) end
  end
end

---@class moonrig.MapOptions
---@field concurrency? integer how many at the same time; default 8, rig.all: all
---@field on_error? "collect"  all run; the second result is a table of the errors by index

local function check_options(what, options)
  options = options or {}
  local c = options.concurrency
  if c ~= nil and (type(c) ~= "number" or c < 1) then err.misuse("%s: concurrency is a number from 1 on", what) end
  if options.on_error ~= nil and options.on_error ~= "collect" then
    err.misuse("%s: on_error is \"collect\" or left out", what)
  end
  return options
end

local function run_all(list, fn, concurrency, collect)
  local results, errors, failed, raised, next_index, workers = {}, {}, nil, nil, 0, {}
  local count = #list
  local function one(i)
    local ok, v, e = xpcall(fn, err.traced, list[i], i)
    if not ok then
      raised = raised or { v }
    elseif v == nil and e ~= nil then
      errors[i] = e
      if not collect then failed = failed or { e } end
    else
      results[i] = v
    end
    if raised or failed then cancel_all(workers, "another task of the group failed") end
  end
  local function work()
    while next_index < count and not failed and not raised do
      next_index = next_index + 1
      one(next_index)
    end
  end
  for w = 1, math.min(concurrency, count) do
    workers[w] = M.spawn(work)
    workers[w].watched = true
  end
  for _, t in ipairs(workers) do
    if not t.done then join(t.id) end
    local e = t.failure and { t.failure } or t.ok == false and { t.error }
    if e and not raised and not failed then
      raised = e
      cancel_all(workers, "another task of the group failed")
    end
  end
  if raised and not failed then error(raised[1], 0) end
  if failed then return nil, failed[1] end
  if collect then return results, next(errors) ~= nil and errors or nil end
  return results
end

---Runs fn on each item, at most `concurrency` at the same time. fn(item, index) returns a value, or
---nil, err. Results come in the order of the list.
---The first nil, err ends the whole as nil, err, the others are cancelled; with on_error = "collect" all
---run, and the second result is a table of the errors by index. A raise in fn is raised here.
---@generic T, R
---@param list T[]
---@param fn fun(item: T, index: integer): R?, moonrig.Error?
---@param options? moonrig.MapOptions
---@return R[]?, table?
function M.map(list, fn, options)
  if type(list) ~= "table" then err.misuse("rig.map needs a list, got %s", type(list)) end
  if type(fn) ~= "function" then err.misuse("rig.map needs a function, got %s", type(fn)) end
  options = check_options("rig.map", options)
  return run_all(list, fn, options.concurrency or 8, options.on_error == "collect")
end

local function by_key(what, fns)
  local keys, list = {}, {}
  if type(fns) ~= "table" then err.misuse("%s needs a table of functions, got %s", what, type(fns)) end
  for k, fn in pairs(fns) do
    if type(fn) ~= "function" then err.misuse("%s needs functions, got %s at %s", what, type(fn), tostring(k)) end
    keys[#keys + 1] = k
  end
  table.sort(keys, function(a, b)
    if type(a) == type(b) then return a < b end
    return type(a) == "number"
  end)
  for i, k in ipairs(keys) do list[i] = fns[k] end
  return keys, list
end

---Runs the functions at the same time; their first results, in order (or by key). As rig.map.
---@param fns table
---@param options? moonrig.MapOptions
---@return table? results
---@return any err with on_error = "collect" a table of the errors by key, if there are any
function M.all(fns, options)
  local keys, list = by_key("rig.all", fns)
  options = check_options("rig.all", options)
  local r, e = run_all(list, function(fn) return fn() end, options.concurrency or #list, options.on_error == "collect")
  if not r then return nil, e end
  local named, errors = {}, {}
  for i, k in ipairs(keys) do named[k] = r[i] end
  if not e then return named end
  for i, k in ipairs(keys) do errors[k] = e[i] end
  return named, errors
end

---Runs the functions at the same time; the first that returns wins: its key, then its results. The others
---are cancelled. A raise of the first is raised here.
---@param fns table
---@return any key
---@return any ...
function M.race(fns)
  local keys, list = by_key("rig.race", fns)
  if #list == 0 then err.misuse("rig.race needs at least one function") end
  local tasks, winner = {}, nil
  for i, fn in ipairs(list) do
    local t = M.spawn(fn)
    t.watched = true
    t.notify = function()
      if winner then return end
      winner = i
      cancel_all(tasks, "another task won the race")
    end
    tasks[i] = t
  end
  for _, t in ipairs(tasks) do
    if not t.done then join(t.id) end
  end
  if not winner then error(tasks[1].failure or err.new("cancelled", "no task of the race ended"), 0) end
  return keys[winner], tasks[winner]:wait()
end

return M
