-- rig.on: a function that sees events after they are committed; of one session in order and one at a time,
-- sessions side by side. The core keeps the positions and reads on from the log for one that is behind.
local native = require "moonrig.native"
local declare = require "moonrig.declare"
local err = require "moonrig.err"

---@class moonrig.OnOptions
---@field name string             1 to 128 bytes; the position is kept under it
---@field event string|string[]   event types
---@field agent? string           name or id
---@field durable? boolean        goes on after a restart where it was: each event at least once
---@field timeout? number         seconds for one event; default 60
---@field run fun(event: table, session: moonrig.Session)

local function event_types(event)
  local list = event
  if type(event) == "string" then list = { event } end
  if type(list) ~= "table" or #list == 0 then
    err.misuse("rig.on: event is missing, e.g. \"session.status_idle\"")
  end
  for _, t in ipairs(list) do
    if type(t) ~= "string" then err.misuse("rig.on: event types are strings, got %s", type(t)) end
  end
  if #list > 100 then err.misuse("rig.on: more than 100 event types") end
  return list
end

---Declares a watcher.
---@param o moonrig.OnOptions
local function on(o)
  declare.keys("rig.on", o, "name event agent run durable timeout")
  declare.check("rig.on", o, "name", "string", true)
  declare.check("rig.on", o, "run", "function", true)
  declare.check("rig.on", o, "durable", "boolean")
  declare.check("rig.on", o, "timeout", "number")
  if #o.name < 1 or #o.name > 128 then err.misuse("rig.on: name has 1 to 128 bytes") end
  local timeout = o.timeout or 60
  if not (timeout > 0 and timeout <= 86400) then
    err.misuse("rig.on: timeout is seconds, more than 0, at most 86400")
  end
  local agent = o.agent
  if type(agent) == "table" then agent = agent.name or agent.id end
  if agent ~= nil and type(agent) ~= "string" then err.misuse("rig.on: agent is a name, an id or a handle") end
  local d = { name = o.name, events = event_types(o.event), agent = agent, durable = o.durable or false,
    timeout_ms = math.ceil(timeout * 1000), run = o.run }
  declare.add("on", "rig.on", d)
  return d
end

native.entry("on", function(decl, event, session_id)
  decl.run(event, require("moonrig.session").handle(session_id))
end)

return on
