-- A small server in Lua behind the fake host's operations: agents, environments, sessions with a log and
-- streams. What the "agent" does on a message is a function of the test: server.behave(session, event).
local rig = require "moonrig"
local host = require "host"
local json = rig.json

if host.server then return host.server end -- one for all generations: a reload runs this file again
local S = { agents = {}, environments = {}, sessions = {}, calls = {}, page = 1000 }
host.server = S
local counter, last = 0, 0

local function stamp()
  last = math.max(rig.time.now(), last + 2e-6)
  return rig.time.format(last)
end
S.stamp = stamp

local function new_id(prefix)
  counter = counter + 1
  return ("%s_%04d"):format(prefix, counter)
end

local function fail(status, kind, message) return nil, { status = status, type = kind, message = message } end

local function count(op) S.calls[op] = (S.calls[op] or 0) + 1 end

local function op(name, fn)
  host.op(name, function(params, id)
    count(name)
    if (S.down or 0) > 0 then -- this many calls find no server
      S.down = S.down - 1
      return fail(503, "api_error", "away")
    end
    return fn(params, id)
  end)
end

-- --------------------------------------------------------------------------------- agents, environments

local function documents(name, prefix, list)
  op(name .. ".create", function(p)
    local o = { id = new_id(prefix), type = name:sub(1, -2), version = 1 }
    for k, v in pairs(p) do o[k] = v end
    list[#list + 1] = o
    return o
  end)
  op(name .. ".update", function(p)
    for _, o in ipairs(list) do
      if o.id == p[prefix .. "_id"] or o.id == p[name:sub(1, -2) .. "_id"] then
        local before = json.encode(o)
        local version = o.version
        for k, v in pairs(p) do
          if not k:find "_id$" then
            if v == rig.null then o[k] = nil else o[k] = v end
          end
        end
        if json.encode(o) ~= before then o.version = version + 1 end
        return o
      end
    end
    return fail(404, "not_found_error", "no such " .. name)
  end)
  op(name .. ".list", function(p)
    local from = tonumber(p.page) or 1
    local data = rig.array {}
    for i = from, math.min(#list, from + math.min(p.limit or 20, S.page) - 1) do data[#data + 1] = list[i] end
    local after = from + #data
    return { data = data, next_page = list[after] and tostring(after) or rig.null }
  end)
end
documents("agents", "agent", S.agents)
documents("environments", "env", S.environments)

-- ---------------------------------------------------------------------------------------------- sessions

local function publish(s, ev, preview)
  for id, stream in pairs(s.streams) do
    if not preview or stream.deltas then host.event(id, json.encode(ev)) end
  end
end

-- Commits an event and shows it to the streams.
function S.emit(s, ev)
  ev.id = ev.id or new_id "sevt"
  ev.processed_at = stamp()
  s.log[#s.log + 1] = ev
  s.wire.updated_at = ev.processed_at
  publish(s, ev)
  if ev.type == "session.status_running" then s.wire.status = "running" end
  if ev.type == "session.status_idle" then s.wire.status = "idle" end
  return ev
end
function S.preview(s, ev) publish(s, ev, true) end

function S.say(s, text) return S.emit(s, { type = "agent.message", content = { { type = "text", text = text } } }) end
function S.idle(s, reason, ids)
  return S.emit(s, { type = "session.status_idle", stop_reason = { type = reason or "end_turn", event_ids = ids },
    stop_details = rig.null })
end
function S.span(s, input, output)
  S.emit(s, { type = "span.model_request_end", is_error = false,
    model_usage = { input_tokens = input, output_tokens = output } })
end

-- Breaks (or ends) all streams of a session.
function S.cut(s, ...)
  for id in pairs(s.streams) do
    if select("#", ...) > 0 then host.fail(id, ...) else host.reply(id) end
  end
  s.streams = {}
end

function S.create(p)
  local now = stamp()
  local wire = { id = new_id "sesn", type = "session", status = "idle", agent = { id = p.agent, name = "payer" },
    environment_id = p.environment_id, title = p.title or rig.null, created_at = now, updated_at = now }
  local s = { wire = wire, log = {}, waiting = {}, streams = {}, params = p }
  S.sessions[wire.id] = s
  S.sessions[#S.sessions + 1] = s
  return s
end

local function with(fn)
  return function(p, id)
    local s = S.sessions[p.session_id]
    if not s then return fail(404, "not_found_error", "no such session") end
    return fn(s, p, id)
  end
end

op("sessions.create", function(p) return S.create(p).wire end)
op("sessions.retrieve", with(function(s) return s.wire end))
op("sessions.list", function(p)
  local data = rig.array {}
  for i = #S.sessions, 1, -1 do
    local wire, wanted = S.sessions[i].wire, not p.statuses
    for _, status in ipairs(p.statuses or {}) do wanted = wanted or status == wire.status end
    if wanted and #data < (p.limit or 20) then data[#data + 1] = wire end
  end
  return { data = data, next_page = rig.null }
end)
op("sessions.archive", with(function(s)
  s.wire.status = "terminated"
  S.emit(s, { type = "session.status_terminated" })
  S.cut(s)
  return s.wire
end))

op("sessions.events.send", with(function(s, p)
  local data = {}
  for i, ev in ipairs(p.events) do
    if S.refuse then return fail(400, "invalid_request_error", S.refuse) end
    ev.id = new_id "sevt"
    data[i] = json.decode((json.encode(ev)))
    data[i].processed_at = rig.null
    if S.hold then
      s.waiting[#s.waiting + 1] = ev
    else
      S.take(s, ev)
    end
  end
  return { data = data }
end))

-- Lets the agent take an input.
function S.take(s, ev)
  if ev.type == "user.message" then S.emit(s, { type = "session.status_running" }) end
  S.emit(s, ev)
  if S.behave then S.behave(s, ev) end
end

op("sessions.events.list", with(function(s, p)
  local rows, data = {}, rig.array {}
  for _, ev in ipairs(s.log) do
    if not p.created_at or ev.processed_at >= p.created_at.gte then rows[#rows + 1] = ev end
  end
  for _, ev in ipairs(s.waiting) do rows[#rows + 1] = ev end
  local from, limit = tonumber(p.page) or 1, math.min(p.limit or 1000, S.page)
  for i = from, math.min(#rows, from + limit - 1) do
    data[#data + 1] = p.order == "desc" and rows[#rows + 1 - i] or rows[i]
  end
  local more = from + #data <= #rows
  return { data = data, next_page = more and tostring(from + #data) or rig.null }
end))

op("sessions.events.stream", with(function(s, p, id)
  if s.wire.status == "terminated" then return fail(400, "invalid_request_error", "the session ended") end
  s.streams[id] = { deltas = p.event_deltas ~= nil }
  if S.on_stream then S.on_stream(s, id) end
  return host.LATER
end))

function S.reset()
  S.calls, S.behave, S.refuse, S.hold, S.on_stream, S.page, S.down = {}, nil, nil, nil, nil, 1000, nil
end

return S
