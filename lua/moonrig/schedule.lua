-- rig.schedule: a function that runs at certain times, on the generation that is current then. The next time of
-- each name is kept among the durable values (space "schedule"), and moved on before the run begins: so a
-- restart starts nothing twice, and knows what was missed. Only where scripts serve; a job (moonrig run) ends
-- with its rig.main and runs no schedules.
local native = require "moonrig.native"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local kv = require "moonrig.kv"
local task = require "moonrig.task"
local time = require "moonrig.time"
local cron = require "moonrig.cron"
local join = require "moonrig.wait"(native.join)

local M = {}

local LOOK, RETRY, CLAIM, MIN_EVERY = 30, 5, 60, 1

-- Of the VM, over all generations: the names that run now, and those whose times were looked after before.
local running, known = {}, {}

---@class moonrig.ScheduleOptions
---@field name string        1 to 128 bytes; its next time is kept under it
---@field every? number      seconds, at least 1
---@field cron? string       "minute hour day month weekday", in UTC, e.g. "*/5 * * * *"
---@field catch_up? boolean  run once, late, if times were missed while nothing ran; default false
---@field timeout? number    seconds for one run; default 3600
---@field run fun(at: number, ctx: moonrig.ScheduleContext)

---@class moonrig.ScheduleContext
---@field name string
---@field generation integer
---@field cancelled fun(): boolean
---@field log fun(...)

---Declares a schedule: either every or cron.
---@param o moonrig.ScheduleOptions
function M.schedule(o)
  declare.keys("rig.schedule", o, "name every cron catch_up timeout run")
  declare.check("rig.schedule", o, "name", "string", true)
  declare.check("rig.schedule", o, "run", "function", true)
  declare.check("rig.schedule", o, "every", "number")
  declare.check("rig.schedule", o, "cron", "string")
  declare.check("rig.schedule", o, "catch_up", "boolean")
  declare.check("rig.schedule", o, "timeout", "number")
  if #o.name < 1 or #o.name > 128 then err.misuse("rig.schedule: name has 1 to 128 bytes") end
  if (o.every == nil) == (o.cron == nil) then err.misuse("rig.schedule: give either every or cron") end
  if o.every and not (o.every >= MIN_EVERY and o.every <= 366 * 86400) then
    err.misuse("rig.schedule: every is seconds, from %d to a year", MIN_EVERY)
  end
  local timeout = o.timeout or 3600
  if not (timeout > 0 and timeout <= 7 * 86400) then
    err.misuse("rig.schedule: timeout is seconds, more than 0, at most a week")
  end
  local d = { name = o.name, every = o.every, catch_up = o.catch_up or false, timeout = timeout, run = o.run }
  if o.cron then
    local times, why = cron.parse(o.cron)
    if not times then err.misuse("rig.schedule: cron: %s", why) end
    d.times = times
  end
  d.spec = o.cron and "cron " .. o.cron or ("every %.17g"):format(o.every)
  declare.add("schedule", "rig.schedule", d)
  return d
end

---The first time after t; from: one that it is counted from.
local function following(d, from, t)
  if d.times then return cron.after(d.times, t) end
  return from + (math.floor((t - from) / d.every) + 1) * d.every
end

---The last time that is not after t; from: one that is not.
local function last_before(d, from, t)
  if d.times then return cron.before(d.times, t) or from end
  return from + math.floor((t - from) / d.every) * d.every
end

local function log(d, level, fmt, ...) native.log(level, "schedule " .. d.name, fmt:format(...)) end

---Reads or makes the row of a schedule: { due, spec }, rev. Waits until the store answers.
local function load_row(d)
  while true do
    local row, e = kv.read("schedule", d.name)
    if row and row.value.spec == d.spec then return row.value.due, row.rev end
    if not e then
      local now = native.now()
      local due = d.times and cron.after(d.times, now) or now + d.every
      local rev
      rev, e = kv.write("schedule", d.name, { due = due, spec = d.spec }, { expect = row and row.rev or 0 })
      if rev then return due, rev end
    end
    log(d, 1, "its next time cannot be kept: %s", err.text(e))
    task.sleep(RETRY)
  end
end

local function run(d, at, generation)
  local ctx = { name = d.name, generation = generation }
  function ctx.cancelled() return native.cancelled() end
  function ctx.log(...)
    local parts = {}
    for i = 1, select("#", ...) do
      local v = select(i, ...)
      if v ~= ctx then parts[#parts + 1] = tostring(v) end
    end
    log(d, 2, "%s", table.concat(parts, " "))
  end
  d.run(at, ctx)
end

local function fire(g, d, at)
  if running[d.name] then
    log(d, 1, "the run of %s is left out: the one before still runs", time.format(at))
    return
  end
  local mine = {}
  running[d.name] = mine
  mine.id = native.detach("schedule " .. d.name, d.timeout, function()
    local ok, e = xpcall(run, err.traced, d, at, g.number)
    if running[d.name] == mine then running[d.name] = nil end
    if not ok then error(e, 0) end
  end)
end

---Is the run of this name over, though it could not say so (its budget was spent)?
local function look_at_runs(name)
  local r = running[name]
  if r and not native.alive(r.id) then running[name] = nil end
end

---Moves the next time on and starts the run, as one task that a reload does not cancel half-way.
local function claim(g, d, state, at, next_due)
  local rev, e = kv.write("schedule", d.name, { due = next_due, spec = d.spec }, { expect = state.rev })
  if not rev then
    state.failed = e
    return
  end
  state.due, state.rev = next_due, rev
  look_at_runs(d.name)
  if at then fire(g, d, at) end
end

---The loop of one schedule; ends when the generation is replaced.
local function follow(g, d)
  local state = {}
  state.due, state.rev = load_row(d)
  local first = not known[d.name]
  known[d.name] = true
  while true do
    local now, due = native.now(), state.due
    if now < due then
      task.sleep(math.min(due - now, LOOK))
    else
      local at = last_before(d, due, now)
      local missed = first and not d.catch_up
      if missed then log(d, 2, "missed %s", time.format(at)) end
      join(native.detach("schedule " .. d.name, CLAIM, claim, g, d, state, not missed and at or nil,
        following(d, due, now)))
      if state.due == due then
        log(d, 1, "its next time cannot be kept: %s", err.text(state.failed or "time is over"))
        task.sleep(RETRY)
        state.failed, state.due, state.rev = nil, load_row(d)
      end
    end
    first = false
  end
end

---The generation's schedules.
function M.start(g)
  if #g.decls.schedule == 0 or not native.serving() then return end
  local loops = {}
  for i, d in ipairs(g.decls.schedule) do loops[i] = task.spawn(follow, g, d.decl) end
  task.join(loops)
end

return M
