-- rig.on: a function that sees events after they are committed; per session in order, one at a time.
-- Best effort from the moment the scripts become current: it looks for sessions that changed once a
-- second, and follows those; a reload goes on where the old scripts were. No position survives a restart.
local native = require "moonrig.native"
local api = require "moonrig.api"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local Feed = require "moonrig.feed"
local task = require "moonrig.task"
local time = require "moonrig.time"

local M = {}

local LOOK_EVERY, FOLLOW_MAX, REMEMBER = 1, 200, 5000

-- Of the VM, over all generations: where each session stands, oldest knowledge first.
local position, order = {}, {} -- session id to the last event given out
local began                    -- when this VM started to look, as the server writes times

---@class moonrig.OnOptions
---@field name string
---@field event string|string[] event types
---@field agent? string name or id
---@field run fun(event: table, session: moonrig.Session)

---Declares a watcher.
---@param o moonrig.OnOptions
function M.on(o)
  declare.keys("rig.on", o, "name event agent run durable")
  declare.check("rig.on", o, "name", "string", true)
  declare.check("rig.on", o, "run", "function", true)
  if o.durable then err.misuse("rig.on: durable watchers are not there yet; leave durable out for best effort") end
  local types = {}
  for _, t in ipairs(type(o.event) == "table" and o.event or { o.event }) do
    if type(t) ~= "string" then err.misuse("rig.on: event types are strings, got %s", type(t)) end
    types[t] = true
  end
  if not next(types) then err.misuse("rig.on: event is missing, e.g. \"session.status_idle\"") end
  local agent = type(o.agent) == "table" and o.agent.name or o.agent
  local d = { name = o.name, types = types, agent = agent, run = o.run }
  declare.add("on", "rig.on", d)
  return d
end

local function remember(id, event_id)
  if position[id] == nil then
    order[#order + 1] = id
    if #order > REMEMBER then position[table.remove(order, 1)] = nil end
  end
  position[id] = event_id
end

local function deliver(g, wire, ev)
  local session = require "moonrig.session"
  for _, d in ipairs(g.decls.on) do
    local on = d.decl
    local agent = wire.agent or {}
    if on.types[ev.type] and (not on.agent or on.agent == agent.name or on.agent == agent.id) then
      local ok, e = xpcall(on.run, task.traced, ev, session.handle(wire.id, wire))
      if not ok then
        if native.cancelled() then error(e, 0) end
        native.log(0, "on " .. on.name, err.text(e))
      end
    end
  end
end

---Follows one session until it ends or another needs the place.
local function follow(g, wire, entry)
  entry.feed = Feed.new(wire.id, { after = position[wire.id], since = began })
  while not entry.evicted do
    local ev, e = entry.feed:next()
    if not ev then
      if e then native.log(1, "rig.on", ("session %s: %s"):format(wire.id, err.text(e))) end
      break
    end
    if ev.processed_at then
      entry.at = native.mono()
      deliver(g, wire, ev)
      remember(wire.id, ev.id)
    end
  end
end

---Frees a place: of the session that has been quiet for longest.
local function evict(followed)
  local oldest
  for _, entry in pairs(followed) do
    if not oldest or entry.at < oldest.at then oldest = entry end
  end
  oldest.evicted = true
  oldest.task:cancel("another session needs the place")
end

local function start(g, wire, followed)
  local entry = { at = native.mono() }
  followed[wire.id] = entry
  entry.task = task.spawn(function()
    local ok, why = pcall(follow, g, wire, entry)
    if entry.feed then entry.feed:close() end
    followed[wire.id] = nil
    if not ok and not entry.evicted then error(why, 0) end
  end)
end

---Starts to follow what changed. seen: session id to its updated_at, of the last look.
local function look(g, followed, seen)
  local now, count = {}, 0
  for _ in pairs(followed) do count = count + 1 end
  for _, params in ipairs { { limit = 100 }, { limit = FOLLOW_MAX, statuses = { "running", "rescheduling" } } } do
    local page, e = api.call("sessions.list", params)
    if not page then
      native.log(1, "rig.on", err.text(e))
      return seen
    end
    for _, wire in ipairs(page.data) do
      local id, running = wire.id, wire.status == "running" or wire.status == "rescheduling"
      local news = wire.updated_at >= began and seen[id] ~= wire.updated_at and now[id] == nil
      now[id] = wire.updated_at
      if not followed[id] and (news or running) then
        if count >= FOLLOW_MAX then evict(followed) else count = count + 1 end
        start(g, wire, followed)
      end
    end
  end
  return now
end

---The generation's watcher task; ends when the generation is replaced.
function M.start(g)
  if #g.decls.on == 0 then return end
  began = began or time.format(native.now())
  local followed, seen = {}, {}
  while true do
    seen = look(g, followed, seen)
    task.sleep(LOOK_EVERY)
  end
end

return M
