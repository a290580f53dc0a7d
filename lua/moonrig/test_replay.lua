-- t.record and t.replay: a recorded session runs again through the loaded scripts, and its events are compared.
--
-- The clients' events are sent again, the model says again what it said, custom tools run through their handlers as
-- they are now, hooks decide as they are now. Built-in tools do not run: in their place the agent gets tools
-- "recorded_NAME" whose handlers give the recorded results; hooks see them by the name they stand for, and they ask
-- where the agent's toolset asks. Requests that failed and were tried again are left out. What an interrupt would hit
-- depends on time, so such a session is refused.
local native = require "moonrig.native"
local S = require "moonrig.test_seams"
local api = require "moonrig.api"
local declare = require "moonrig.declare"
local diff = require "moonrig.test_diff"
local err = require "moonrig.err"

local M = {}

-- --------------------------------------------------------------------------------------------- files

---Writes a session and its events to a file that t.replay reads. `moonrig record` does so for a server's.
---@param s moonrig.Session
---@param path string
function M.record(s, path)
  local text = assert(native.json_encode(assert(s:transcript()), true))
  local f, why = io.open(path, "wb")
  if not f then S.fail_here("t.record: " .. why) end
  f:write(text, "\n")
  f:close()
end

---The session and the events of a file that session:export made.
local function exported(text)
  local rec = { events = {} }
  for line in text:gmatch "[^\n]+" do
    local v, e = native.json_decode(line)
    if not v then return nil, e end
    rec.session = rec.session or v.session
    if v.row == "wire" and v.thread == nil then rec.events[#rec.events + 1] = v.body end
  end
  return rec
end

local function read(path)
  local f, why
  for _, full in ipairs { path, native.test.root .. "/" .. path,
    (native.test.file:match "^(.*)/[^/]*$" or ".") .. "/" .. path } do
    f, why = io.open(full, "rb")
    if f then break end
  end
  if not f then S.fail_here("t.replay: " .. why) end
  local text = f:read "*a"
  f:close()
  local rec, e
  if text:find '^{"format":"moonrig.session"' then
    rec, e = exported(text)
  else
    rec, e = native.json_decode(text)
  end
  if not rec then S.fail_here(("t.replay: %s: %s"):format(path, err.text(e))) end
  if type(rec) ~= "table" or type(rec.session) ~= "table" or type(rec.events) ~= "table" then
    S.fail_here(("t.replay: %s is not { session, events }; moonrig record and moonrig export write such a file"):format(path))
  end
  return rec
end

-- ---------------------------------------------------------------------------------- what the record says

local use_types = { ["agent.tool_use"] = "builtin", ["agent.custom_tool_use"] = "custom" }
local from_client = { ["user.message"] = true, ["user.tool_confirmation"] = true, ["user.custom_tool_result"] = true,
  ["system.message"] = true, ["user.define_outcome"] = true }
local result_of = { ["agent.tool_result"] = "tool_use_id", ["user.custom_tool_result"] = "custom_tool_use_id" }

local function blocks_of(ev)
  if ev.type == "agent.message" then return ev.content or {} end
  if use_types[ev.type] then
    return { { type = "tool_use", name = S.renamed[ev.name] or ev.name, input = ev.input } }
  end
  return {}
end

---The model's replies: what came between the begin and the end of each request that did not fail.
local function replies_of(events)
  local steps, open = {}, nil
  for _, ev in ipairs(events) do
    if ev.type == "span.model_request_start" then
      open = setmetatable({}, native.array_mt)
    elseif ev.type == "span.model_request_end" then
      if open and not ev.is_error then steps[#steps + 1] = open end
      open = nil
    elseif open then
      for _, b in ipairs(blocks_of(ev)) do open[#open + 1] = b end
    end
  end
  return steps
end

---The uses of tools in order, with their results; by id too.
local function uses_of(events)
  local list, by_id = {}, {}
  for _, ev in ipairs(events) do
    if use_types[ev.type] then
      local use = { kind = use_types[ev.type], name = ev.name, input = ev.input, id = ev.id, index = #list + 1 }
      list[#list + 1], by_id[ev.id] = use, use
    elseif result_of[ev.type] and by_id[ev[result_of[ev.type]]] then
      by_id[ev[result_of[ev.type]]].result = ev
    end
  end
  return list, by_id
end

---What clients sent, in batches: each was sent when the session was idle.
local function batches_of(events, by_id, owned)
  local batches, open = {}, nil
  for _, ev in ipairs(events) do
    if ev.type == "user.interrupt" then
      S.fail_here "t.replay: the session was interrupted (user.interrupt); that depends on time and cannot be replayed"
    elseif ev.type == "session.status_idle" then
      open = nil
    elseif from_client[ev.type] then
      local use = by_id[ev.custom_tool_use_id or ev.tool_use_id]
      if not (ev.type == "user.custom_tool_result" and use and owned[use.name]) then
        open = open or {}
        if #open == 0 then batches[#batches + 1] = open end
        open[#open + 1] = ev
      end
    end
  end
  return batches
end

-- ---------------------------------------------------------------------------- tools with recorded results

local function text_of(content)
  local parts = {}
  for _, b in ipairs(content or {}) do parts[#parts + 1] = b.text or native.json_encode(b) end
  return table.concat(parts, "\n")
end

---The recorded use that this call is: of the same input, else the next of the name.
local function take(uses, name, input)
  local found
  for _, u in ipairs(uses) do
    if u.kind == "builtin" and u.name == name and not u.taken then
      if #diff.values(input, u.input) == 0 then
        found = u
        break
      end
      found = found or u
    end
  end
  if found then found.taken = true end
  return found
end

local function stand_in(name, uses)
  local schema = { type = "object" }
  local description = "Answers as it was recorded"
  return { name = S.renamed[name], description = description, input_schema = schema, run = function(input)
    local use = take(uses, name, input)
    if not use or not use.result then return nil, ("no result of %s was recorded for this call"):format(name) end
    if use.result.is_error then return nil, text_of(use.result.content) end
    return use.result.content
  end }
end

---Is the built-in tool enabled in the toolset, and does it ask?
local function policy(toolset, name)
  local default = toolset.default_config or {}
  local enabled, p = default.enabled ~= false, default.permission_policy
  for _, c in ipairs(toolset.configs or {}) do
    if c.name == name then
      if c.enabled ~= nil then enabled = c.enabled end
      p = c.permission_policy or p
    end
  end
  return enabled, p ~= nil and p.type ~= "always_allow"
end

---A custom tool that a hook asked about is, to clients, an agent.tool_use; the agent knows better.
local function set_kinds(agent, uses)
  local custom = {}
  for _, tool in ipairs(agent.tools or {}) do
    if tool.type == "custom" then custom[tool.name] = true end
  end
  for _, u in ipairs(uses) do
    if custom[u.name] then u.kind = "custom" end
  end
end

---The agent's tools with the built-in ones replaced; fills S.tools and S.hooks for the scripts.
local function replace_builtins(agent, uses)
  local tools = setmetatable({}, native.array_mt)
  for _, tool in ipairs(agent.tools or {}) do
    if type(tool.type) == "string" and tool.type:find "^agent_toolset" then
      for _, u in ipairs(uses) do
        local enabled, asks = policy(tool, u.name)
        if u.kind == "builtin" and enabled and not S.renamed[u.name] then
          S.renamed[u.name] = "recorded_" .. u.name
          S.names[S.renamed[u.name]] = u.name
          local d = stand_in(u.name, uses)
          tools[#tools + 1] = { type = "custom", name = d.name, description = d.description,
            input_schema = d.input_schema }
          S.tools[#S.tools + 1] = d
          if asks then
            S.hooks[#S.hooks + 1] = { phase = "permit", tool = d.name, run = function() return "ask" end }
          end
        end
      end
    else
      tools[#tools + 1] = tool
    end
  end
  return tools
end

-- ------------------------------------------------------------------------------------------- comparing

local skipped = { ["session.status_running"] = true, ["session.usage"] = true, ["agent.thinking"] = true,
  ["session.status_rescheduled"] = true }

local function clean_text(text)
  for now, was in pairs(S.names) do text = text:gsub("%f[%w_]" .. now .. "%f[^%w_]", was) end
  return (text:gsub("%f[%w]%l+_01%w%w%w%w%w%w%w%w+", "<id>")
    :gsub("%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d[%d%.]*Z", "<time>"))
end

local function clean(v, ordinal)
  if type(v) == "string" then return ordinal[v] or clean_text(v) end
  if type(v) ~= "table" then return v end
  local c = {}
  for k, x in pairs(v) do c[k] = clean(x, ordinal) end
  return setmetatable(c, getmetatable(v))
end

local kept = { "type", "name", "input", "content", "is_error", "result", "deny_message", "tool_use_id",
  "custom_tool_use_id", "stop_reason" }

---Events as they are compared: ids of tool uses by their place, other ids and times blanked, built-in tools and
---their stand-ins alike.
local function comparable(events)
  local ordinal, builtin, count, out = {}, {}, 0, {}
  for _, ev in ipairs(events) do
    if use_types[ev.type] then
      count = count + 1
      ordinal[ev.id] = "use " .. count
      builtin[ev.id] = use_types[ev.type] == "builtin" or S.names[ev.name] ~= nil
    end
    local hidden = skipped[ev.type] or ev.type:find "^span%." or ev.type:find "^session%.thread_"
      or (ev.type == "session.error" and (ev.error or {}).retry_status and ev.error.retry_status.type == "retrying")
    if not hidden then
      local c = {}
      for _, k in ipairs(kept) do c[k] = clean(ev[k], ordinal) end
      if ev.type == "session.error" then c.error = clean((ev.error or {}).type, ordinal) end
      if use_types[ev.type] and builtin[ev.id] then c.type, c.name = "agent.tool_use", S.names[ev.name] or ev.name end
      if ev.type == "user.custom_tool_result" and builtin[ev.custom_tool_use_id] then
        c.type, c.tool_use_id, c.custom_tool_use_id = "agent.tool_result", c.custom_tool_use_id, nil
      end
      c.is_error = c.is_error == true
      out[#out + 1] = c
    end
  end
  return out
end

local function compare(recorded, replayed)
  for i = 1, math.max(#recorded, #replayed) do
    local a, b = recorded[i], replayed[i]
    local lines = a and b and diff.values(b, a) or {}
    if not a or not b or #lines > 0 then
      local out = { ("event %d is not as recorded"):format(i),
        "  recorded: " .. (a and diff.event(a) or "(the end)"), "  now:      " .. (b and diff.event(b) or "(the end)") }
      for _, line in ipairs(lines) do out[#out + 1] = "  " .. line end
      return table.concat(out, "\n")
    end
  end
end

-- -------------------------------------------------------------------------------------------- replaying

---An event of the record as it is sent now: uses of tools by the ids that they have now; or nil, why.
local function renewed(ev, by_index, seen_uses)
  local copy = {}
  for k, v in pairs(ev) do copy[k] = v end
  copy.id, copy.processed_at, copy.created_at, copy.session_thread_id = nil, nil, nil, nil
  for _, k in ipairs { "tool_use_id", "custom_tool_use_id" } do
    if copy[k] then
      copy[k] = seen_uses[by_index[copy[k]]]
      if not copy[k] then return nil, ("%s answers a tool use that did not come up now"):format(ev.type) end
    end
  end
  return copy
end

---Sends one batch and follows the session to its next idle. Returns why it cannot go on, or nothing.
local function drive(s, feed, batch, by_index, seen_uses)
  local events, waiting = {}, {}
  for i, ev in ipairs(batch) do
    local why
    events[i], why = renewed(ev, by_index, seen_uses)
    if why then return why end
  end
  for _, ev in ipairs(events) do
    local r, e = api.call("sessions.events.send", { session_id = s.id, events = { ev } })
    if not r then return ("%s was refused: %s"):format(ev.type, err.text(e)) end
    waiting[r.data[1].id] = true
  end
  while true do
    local ev, e = feed:next()
    if not ev then return "the session's events ended: " .. err.text(e or "closed") end
    waiting[ev.id] = nil
    if use_types[ev.type] then seen_uses[#seen_uses + 1] = ev.id end
    if ev.type == "session.status_terminated" then return end
    if ev.type == "session.status_idle" and next(waiting) == nil then return end
  end
end

local function agent_of(rec, o)
  local name = o.agent or (rec.session.agent or {}).name
  for _, d in ipairs(native.test.current().decls.agent) do
    if d.decl.name == name then return assert(api.call("agents.retrieve", { agent_id = d.decl.id })) end
  end
  S.fail_here(("t.replay: the session is of agent %s, which no loaded script declares; t.load it, or give agent =")
    :format(diff.show(name)))
end

---Runs a recorded session again and compares events: their types, order and contents, with ids and times blanked.
---o: agent (its name now, when it changed). Returns the new session.
---@param t table
---@param path string
---@param o? { agent?: string }
---@return moonrig.Session
function M.replay(t, path, o)
  if not S.running then err.misuse("t.replay belongs into t.test(name, function() ... end)") end
  if type(path) ~= "string" then err.misuse("t.replay takes the path of a recorded session") end
  o = o or {}
  declare.keys("t.replay", o, "agent")
  local rec = read(path)
  local uses, by_id = uses_of(rec.events)
  local agent, owned, by_index = agent_of(rec, o), {}, {}
  set_kinds(agent, uses)
  local tools = replace_builtins(agent, uses)
  local ok, e = S.reload(S.loads) -- with what stands in for built-in tools
  if not ok then S.fail_here("t.replay: " .. err.text(e)) end
  for _, d in ipairs(native.test.current().decls.tool) do
    if d.decl.answered_by ~= "client" then owned[d.decl.name] = true end
  end
  for id, u in pairs(by_id) do by_index[id] = u.index end
  local s = t.session { model = replies_of(rec.events),
    agent = { type = "agent_with_overrides", id = agent.id, tools = tools } }
  local Feed = require "moonrig.feed"
  local feed, seen_uses = Feed.new(s.id, {}), {}
  assert(feed:open())
  local why
  for _, batch in ipairs(batches_of(rec.events, by_id, owned)) do
    why = drive(s, feed, batch, by_index, seen_uses)
    if why then break end
  end
  feed:close()
  local difference = compare(comparable(rec.events), comparable(S.events_of(s)))
  if difference or why then
    S.fail_here("t.replay: " .. table.concat({ difference or why, difference and why }, "\n"))
  end
  return s
end

return M
