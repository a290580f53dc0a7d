-- rig.session: a conversation with an agent. session:ask(...) sends and waits for the end of the turn.
local native = require "moonrig.native"
local api = require "moonrig.api"
local agents = require "moonrig.agent"
local answer = require "moonrig.answer"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local Feed = require "moonrig.feed"
local params_of = require "moonrig.params"
local follower = require "moonrig.follower"
local threads = require "moonrig.thread"

local within = follower.within
local M = {}

---Whose sessions they are: a transport, what finds ids of agents and environments, and the tools answered here.
---@class moonrig.Side
---@field transport moonrig.Transport
---@field id fun(kind: string, x: any): string?, moonrig.Error?
---@field tools? table<string, moonrig.Tool> of a client of another runtime
local here = { transport = api, id = agents.id }

---@class moonrig.Session has the fields of the API's object as they were when it was read (see refresh)
---@field id string
---@field status? string "idle", "running", "rescheduling", "terminated"
---@field title? string
---@field agent? table
---@field environment_id? string
---@field metadata? table<string, string>
---@field usage? table
---@field created_at? string
---@field [string] any
local Session = { __mr = "id", __name = "moonrig.session" }
---@class moonrig.Session
local methods = {}

function Session.__index(s, key)
  if methods[key] then return methods[key] end
  local wire = rawget(s, "wire")
  return wire and wire[key]
end
function Session.__tostring(s) return "session " .. s.id end
function Session.__eq(a, b) return a.id == b.id end

---A session object for an id, without asking the server.
---@param id string
---@param wire? table
---@param side? moonrig.Side default: the runtime of these scripts
---@return moonrig.Session
function M.handle(id, wire, side)
  return setmetatable({ id = id, wire = wire, side = side }, Session)
end

local function side_of(s) return rawget(s, "side") or here end

local function call(s, name, params, o)
  params.session_id = s.id
  return side_of(s).transport.call(name, params, o and { timeout = o.timeout } or nil)
end

local function options(what, o, allowed)
  o = o or {}
  declare.keys(what, o, allowed)
  declare.check(what, o, "timeout", "number")
  if o.timeout and not (o.timeout > 0 and o.timeout <= 1e6) then
    err.misuse("%s: timeout is seconds, more than 0, at most 1e6", what)
  end
  return o
end

local content_of = answer.content_of

---@class moonrig.SessionOptions
---@field agent moonrig.Agent|string|table handle, name, id or wire form
---@field environment? moonrig.Environment|string handle, name or id; default "default"
---@field environment_id? string
---@field title? string
---@field metadata? table<string, string>
---@field resources? (table|string)[] files as uploaded, ids of files, or wire form
---@field vault_ids? string[]
---@field budget? moonrig.Budget|table
---@field initial_events? (string|table)[] texts or wire events
---@field outcome? moonrig.OutcomeOptions behind the initial events; session:outcome() waits for it

---@class moonrig.Budget what a session may use before it pauses; at least one of them
---@field usd? number      at list price
---@field tokens? integer
---@field seconds? integer in which anything of it runs
---@field steps? integer   model requests
---@field repeats? integer calls of one tool with one input in a row, in a thread

---@class moonrig.OutcomeOptions
---@field description string
---@field rubric string|table a text, a file as uploaded, or a wire form
---@field max_iterations? integer

local known = "agent environment environment_id title metadata resources vault_ids budget initial_events outcome"

local function create(side, o)
  declare.keys("rig.session", o, known)
  local params, e = {}, nil
  for k, v in pairs(o) do params[k] = v end
  if type(o.agent) ~= "table" or getmetatable(o.agent) or not o.agent.type or o.agent.name then
    params.agent, e = side.id("agent", o.agent)
    if not params.agent then return nil, e end
  end -- else a wire form: pinned version or overrides
  params.environment_id, e = side.id("environment", o.environment or o.environment_id or "default")
  if not params.environment_id then return nil, e end
  params.environment = nil
  params.budget = params_of.budget(o.budget)
  if o.resources then params.resources = params_of.resources(o.resources) end
  if o.initial_events or o.outcome then params.initial_events = params_of.events(o.initial_events) end
  if o.outcome then table.insert(params.initial_events, params_of.outcome("rig.session: outcome", o.outcome)) end
  params.outcome = nil
  local wire
  wire, e = side.transport.call("sessions.create", params)
  if not wire then return nil, e end
  return M.handle(wire.id, wire, side)
end

---rig.session for a side.
---@param side moonrig.Side
function M.new(side)
  return function(o)
    if declare.loading() then
      native.raise("rig.session waits, and nothing may wait while scripts load: call it in rig.main or in a handler")
    end
    if type(o) == "table" and getmetatable(o) == Session then return o end
    if type(o) ~= "string" then return create(side, o) end
    local wire, e = side.transport.call("sessions.retrieve", { session_id = o })
    if not wire then return nil, e end
    return M.handle(o, wire, side)
  end
end

---Creates a session, or looks one up by its id.
---@type fun(o: moonrig.SessionOptions|string): moonrig.Session?, moonrig.Error?
M.session = M.new(here)

local function send(s, event, o)
  local r, e = call(s, "sessions.events.send", { events = { event } }, o)
  if not r then return nil, e end
  return r.data[1]
end

-- ------------------------------------------------------------------------------------------ pending calls

---@class moonrig.Pending a tool call that waits for an answer
---@field id string
---@field name string
---@field input table
---@field kind "confirm"|"custom"|"tool"
local Pending = {}
Pending.__index = Pending

local function answered(p, event)
  local r, e = send(p.turn.session, event)
  if not r then return nil, e end
  p.turn.answered[p.id] = true
  return true
end

---Lets it run.
---@return boolean?, moonrig.Error?
function Pending:allow()
  return answered(self, { type = "user.tool_confirmation", tool_use_id = self.id, result = "allow" })
end

---Refuses; the model reads why.
---@param why? string
---@return boolean?, moonrig.Error?
function Pending:deny(why)
  local message = why ~= nil and tostring(why) or nil
  return answered(self,
    { type = "user.tool_confirmation", tool_use_id = self.id, result = "deny", deny_message = message })
end

local function result(p, content, is_error)
  local ev, e = answer.event(p.event, content, is_error)
  if not ev then return nil, e end
  return answered(p, ev)
end

---Answers a client-side tool: text, a table (as JSON) or content blocks.
---@param content any
---@return boolean?, moonrig.Error?
function Pending:answer(content) return result(self, content, false) end

---Answers with an error that the model reads.
---@param why? string
---@return boolean?, moonrig.Error?
function Pending:fail(why) return result(self, why and tostring(why) or "failed", true) end

-- ----------------------------------------------------------------------------------------------- turns

---@class moonrig.Turn
---@field text string        of the agent's last message in it
---@field stop_reason string "end_turn", "requires_action", "retries_exhausted", "refusal", "budget_reached", "terminated"
---@field usage table        tokens of this turn's model requests, added up
---@field events table[]     from the message on
---@field pending moonrig.Pending[] calls that wait for an answer
---@field outcome? { result: string, explanation: string, iteration: integer } the newest verdict of the grader in it
local Turn = {}
Turn.__index = Turn

local function text_of(content)
  local parts = {}
  for _, b in ipairs(content or {}) do
    if b.type == "text" then parts[#parts + 1] = b.text end
  end
  return table.concat(parts)
end

local uses = { ["agent.tool_use"] = true, ["agent.mcp_tool_use"] = true, ["agent.custom_tool_use"] = true }

local function take(turn, ev)
  turn.events[#turn.events + 1] = ev
  if uses[ev.type] then
    turn.uses[ev.id] = ev
  elseif ev.type == "agent.message" then
    turn.text = text_of(ev.content)
  elseif ev.type == "session.error" then
    turn.error = ev.error
  elseif ev.type == "session.thread_status_idle" then
    turn.paused[ev.session_thread_id or 1] = (ev.stop_reason or {}).type == "budget_reached" or nil
  elseif ev.type == "session.thread_status_running" then
    turn.paused[ev.session_thread_id or 1] = nil
  elseif ev.type == "span.outcome_evaluation_end" then
    turn.outcome = { result = ev.result, explanation = ev.explanation, iteration = ev.iteration }
  elseif ev.type == "span.model_request_end" then
    for k, v in pairs(ev.model_usage or {}) do
      if type(v) == "number" then turn.usage[k] = (turn.usage[k] or 0) + v end
    end
  end
end

local function kind_of(ev)
  if ev.type == "agent.custom_tool_use" then return "custom" end
  return (ev.evaluated_permission == "ask" or ev.type == "agent.mcp_tool_use") and "confirm" or "tool"
end

local function pending_of(turn, ids)
  local list = {}
  for _, id in ipairs(ids or {}) do
    if not turn.answered[id] and not (turn.answers and turn.answers:owns(id)) then
      local ev = turn.uses[id] or { id = id, type = "unknown" }
      list[#list + 1] = setmetatable(
        { id = id, name = ev.name, input = ev.input, kind = kind_of(ev), event = ev, turn = turn }, Pending)
    end
  end
  return list
end

local function ended(ev)
  return ev.type == "session.status_terminated" or ev.type == "session.deleted"
end

---An event of the turn: true when the turn has stopped.
local function stopped(turn, ev)
  take(turn, ev)
  if turn.answers then turn.answers:see(ev) end
  if turn.on_event then turn.on_event(ev) end
  if ended(ev) then
    turn.stop_reason, turn.pending = "terminated", {}
  elseif ev.type == "session.status_idle" then
    local why = ev.stop_reason or {}
    turn.stop_reason, turn.stop_details, turn.blocked = why.type, ev.stop_details, why.event_ids
    if turn.answers then turn.answers:act() end
    turn.pending = why.type == "requires_action" and pending_of(turn, why.event_ids) or {}
    if why.type == "requires_action" and #turn.pending == 0 then return false end -- all answered meanwhile
  else
    return false
  end
  turn.open = turn.stop_reason == "requires_action" or (turn.stop_reason == "budget_reached" and next(turn.paused) ~= nil)
  if not turn.open then turn.feed:close() end
  return true
end

local function to_the_stop(turn)
  while true do
    local ev, e = turn.feed:next()
    if not ev then
      e = turn.answers and turn.answers.failed or e
      return nil, e or err.new("closed", "the session's events ended before the turn did")
    end
    turn.started = turn.started or ev.id == turn.message_id
    if turn.started and stopped(turn, ev) then return turn end
    if not turn.started and ended(ev) then return nil, err.new("closed", "the session ended") end
  end
end

---Is a call among these that a worker of a self-hosted environment answers? It needs nothing of the script.
local function workers(list)
  for _, p in ipairs(list) do
    if p.kind == "tool" then return true end
  end
  return false
end

---Goes on after the pending calls were answered, or the budget was raised: waits for the next end of the turn. Calls of
---kind "tool" are a worker's to answer, when there is one. After a timeout_error it can be called again.
---@param o? { timeout?: number } seconds
---@return moonrig.Turn?
---@return moonrig.Error?
function Turn:wait(o)
  o = options("turn:wait", o, "timeout")
  if self.stop_reason and not self.open then return self end
  if self.stop_reason == "requires_action" and #self.pending > 0 and #pending_of(self, self.blocked) == #self.pending
    and not workers(self.pending) then
    return nil, err.new("invalid_request_error", "nothing of turn.pending was answered: the turn would wait for ever")
  end
  self.pending = {}
  return within(self.feed, o.timeout, function() return to_the_stop(self) end)
end

-- --------------------------------------------------------------------------------------------- methods

local function begin(turn, event)
  local feed = turn.feed
  local ok, e = feed:open()
  local sent
  if ok then sent, e = send(turn.session, event, feed:opts()) end
  if not sent then return nil, e end
  turn.message_id = sent.id
  return to_the_stop(turn)
end

---A turn that runs to its stop. feed_o: options of its feed; o: deltas, on_event, timeout.
local function run(s, feed_o, o, fn)
  local side = side_of(s)
  local feed = Feed.new(s.id, feed_o, side.transport)
  local turn = setmetatable({ session = s, feed = feed, events = {}, uses = {}, answered = {}, pending = {}, paused = {},
    usage = { input_tokens = 0, output_tokens = 0 }, text = "", on_event = o.on_event }, Turn)
  if side.tools then turn.answers = answer.new(side, s, feed) end
  local done, e = within(feed, o.timeout, function() return fn(turn) end)
  if not done then feed:close() end
  return done, e
end

---Sends text or content blocks and waits until the turn is over.
---@param content string|table
---@param o? { deltas?: boolean, on_event?: fun(ev: table), timeout?: number } on_event sees each event as it comes;
---timeout: seconds until nil, err (the turn itself goes on)
---@return moonrig.Turn?
---@return moonrig.Error?
function methods:ask(content, o)
  o = options("session:ask", o, "deltas on_event timeout")
  local event = { type = "user.message", content = content_of(content) }
  return run(self, { turn = true, deltas = o.deltas }, o, function(turn) return begin(turn, event) end)
end

---Waits for what was defined before: what is there of the turn is taken from now on.
local function join_outcome(turn)
  local feed = turn.feed
  local ok, e = feed:open()
  local wire
  if ok then wire, e = call(turn.session, "sessions.retrieve", {}, feed:opts()) end
  if not wire then return nil, e end
  local list = wire.outcome_evaluations
  local last = type(list) == "table" and list[#list]
  if last and type(last.completed_at) == "string" then
    turn.outcome, turn.stop_reason = { result = last.result, explanation = last.explanation, iteration = last.iteration }, "end_turn"
    feed:close()
    return turn
  end
  if wire.status ~= "running" and wire.status ~= "rescheduling" then
    return nil, err.new("invalid_request_error", last and "the session is idle, and its outcome is not decided: moonrig why says what it waits for"
      or "the session has no outcome")
  end
  turn.started = true
  return to_the_stop(turn)
end

---Defines an outcome and waits until a grader has found it satisfied, or will look no more; without a description,
---waits for the newest that was defined. nil, err, turn when the turn stopped before that (requires_action,
---budget_reached, ...): turn.pending is to be answered, and turn:wait() goes on; turn.outcome has the result then.
---@param o? { description?: string, rubric?: string|table, max_iterations?: integer, deltas?: boolean, on_event?: fun(ev: table), timeout?: number }
---@return string? result "satisfied", "max_iterations_reached", "failed", "interrupted"
---@return string|moonrig.Error explanation
---@return moonrig.Turn?
function methods:outcome(o)
  o = options("session:outcome", o, "description rubric max_iterations deltas on_event timeout")
  local turn, e
  if o.description == nil and o.rubric == nil then
    turn, e = run(self, { live = true, deltas = o.deltas }, o, join_outcome)
  else
    local event = params_of.outcome("session:outcome",
      { description = o.description, rubric = o.rubric, max_iterations = o.max_iterations })
    turn, e = run(self, { turn = true, deltas = o.deltas }, o, function(t) return begin(t, event) end)
  end
  if not turn then return nil, e end
  local got = turn.outcome
  if got and got.result ~= "needs_revision" then return got.result, got.explanation, turn end
  return nil, err.new(turn.stop_reason, "the turn stopped before the outcome was decided: " .. turn.stop_reason), turn
end

---Sends text or content blocks; does not wait for the agent.
---@param content string|table
---@param o? { timeout?: number } seconds
---@return table? event as stored
---@return moonrig.Error?
function methods:send(content, o)
  o = options("session:send", o, "timeout")
  return send(self, { type = "user.message", content = content_of(content) }, o)
end

---Iterates over events: history from the start (or after an event id), then live, with no gap, until the
---session ends. Raises when it cannot go on. timeout: seconds without an event until it raises a timeout_error; it can
---be called again after that.
---@param o? { after?: string, deltas?: boolean, live?: boolean, timeout?: number } live: from now on, no history
---@return moonrig.Follower
function methods:follow(o)
  o = options("session:follow", o, "after deltas live timeout")
  local side = side_of(self)
  local feed = Feed.new(self.id, { after = o.after, deltas = o.deltas, live = o.live }, side.transport)
  local f = follower.new(feed, o.timeout)
  if side.tools then
    local answers = answer.new(side, self, feed)
    f.answers = answers
    feed.on_live = function() answers:act() end
  end
  return f
end

---Stops what the agent does now.
---@param o? { timeout?: number } seconds
---@return table? event as stored
---@return moonrig.Error? err
function methods:interrupt(o)
  o = options("session:interrupt", o, "timeout")
  return send(self, { type = "user.interrupt" }, o)
end

---Ends the session for good; its history stays.
---@param o? { timeout?: number } seconds
---@return table? session
---@return moonrig.Error? err
function methods:archive(o)
  o = options("session:archive", o, "timeout")
  return call(self, "sessions.archive", {}, o)
end

---Reads the session again from the server; its fields are then up to date.
---@param o? { timeout?: number } seconds
---@return moonrig.Session?
---@return moonrig.Error?
function methods:refresh(o)
  o = options("session:refresh", o, "timeout")
  local wire, e = call(self, "sessions.retrieve", {}, o)
  if not wire then return nil, e end
  rawset(self, "wire", wire)
  return self
end

---Changes it: title, metadata (as a patch), tools and servers of its agent (while it is idle), budget. A session that
---paused at its budget goes on by itself once that is higher; false removes it.
---@param o { title?: string, metadata?: table, agent?: table, budget?: moonrig.Budget|table|false, timeout?: number }
---@return moonrig.Session?
---@return moonrig.Error?
function methods:update(o)
  o = options("session:update", o, "title metadata agent budget timeout")
  local wire, e = call(self, "sessions.update",
    { title = o.title, metadata = o.metadata, agent = o.agent, budget = params_of.budget(o.budget) }, o)
  if not wire then return nil, e end
  rawset(self, "wire", wire)
  return self
end

---Its threads, as handles: the primary first; of a coordinator those that it started behind it.
---@param o? { timeout?: number } seconds, for each page
---@return moonrig.Thread[]?
---@return moonrig.Error?
function methods:threads(o)
  o = options("session:threads", o, "timeout")
  local list, page, e = {}, nil, nil
  repeat
    page, e = call(self, "sessions.threads.list", { limit = 1000, page = page and page.next_page }, o)
    if not page then return nil, e end
    for _, wire in ipairs(page.data) do list[#list + 1] = threads.handle(self, wire, side_of(self).transport) end
  until not page.next_page
  return list
end

---The session and all its events as one table, which `rig.json.encode` writes and `t.replay` reads; what
---`moonrig record` writes.
---@param o? { timeout?: number } seconds, for each page
---@return { session: table, events: table[] }?
---@return moonrig.Error?
function methods:transcript(o)
  o = options("session:transcript", o, "timeout")
  local wire, e = call(self, "sessions.retrieve", {}, o)
  if not wire then return nil, e end
  local events, page = {}, nil
  repeat
    page, e = call(self, "sessions.events.list", { limit = 1000, page = page and page.next_page }, o)
    if not page then return nil, e end
    for _, ev in ipairs(page.data) do events[#events + 1] = ev end
  until not page.next_page
  return { session = wire, events = events }
end

---The session as one file, which rig.import reads, here or elsewhere: history, agent, input files, outputs, and the
---files of its sandbox, up to 320 MiB. It may run on meanwhile.
---@param o? { to?: string, workspace?: boolean, timeout?: number } to: a path; whole or not there. workspace: false leaves the sandbox's files out. timeout: seconds
---@return string|{ path: string, size: number }|nil bytes or, with `to`, where they are
---@return moonrig.Error?
function methods:export(o)
  o = options("session:export", o, "to workspace timeout")
  declare.check("session:export", o, "to", "string")
  declare.check("session:export", o, "workspace", "boolean")
  if o.to == "" then err.misuse("session:export: to is a path") end
  return side_of(self).transport.call("sessions.export", { session_id = self.id, workspace = o.workspace }, { to = o.to or "", timeout = o.timeout })
end

---@class moonrig.CopyOptions
---@field title? string
---@field metadata? table<string, string> of a fork
---@field environment? moonrig.Environment|string handle, name or id
---@field workspace? boolean of a fork: false leaves the files of the sandbox out
---@field timeout? number seconds

---What fork and import share: the options as fields of the operation.
local function copy_params(what, side, o, allowed)
  o = options(what, o, allowed)
  local params, e = { title = o.title, metadata = o.metadata }, nil
  if o.environment then
    params.environment_id, e = side.id("environment", o.environment)
    if not params.environment_id then return nil, e end
  end
  return params, o
end

---A new session whose history is this one's up to an event, or up to now. What was going on there is closed in it, its
---usage starts at zero, and its sandbox is a new one: with the files that are in this one's now, or, at an event, with
---none. Calls that wait for a client can be answered in both.
---@param event? string|table the last event of the fork: its id, or the event
---@param o? moonrig.CopyOptions
---@return moonrig.Session?
---@return moonrig.Error?
function methods:fork(event, o)
  if type(event) == "table" and event.id then event = event.id end
  if event ~= nil and type(event) ~= "string" then err.misuse("session:fork takes an event or its id, then options") end
  local side = side_of(self)
  local params, opts = copy_params("session:fork", side, o, "title metadata environment workspace timeout")
  if not params then return nil, opts end
  declare.check("session:fork", o or {}, "workspace", "boolean")
  params.event_id = event
  params.workspace = o and o.workspace
  local wire, e = call(self, "sessions.fork", params, opts)
  if not wire then return nil, e end
  return M.handle(wire.id, wire, side)
end

---rig.import for a side.
---@param side moonrig.Side
function M.new_import(side)
  return function(what, o)
    if declare.loading() then
      native.raise("rig.import waits, and nothing may wait while scripts load: call it in rig.main or in a handler")
    end
    if type(what) == "string" then what = { path = what } end
    if type(what) ~= "table" or (type(what.path) == "string") == (type(what.bytes) == "string") then
      err.misuse("rig.import takes a path, or { bytes = ... }")
    end
    local params, opts = copy_params("rig.import", side, o, "title environment timeout")
    if not params then return nil, opts end
    local body = { path = what.path, bytes = what.bytes, filename = "session.jsonl", media_type = "application/jsonl" }
    local wire, e = side.transport.call("sessions.import", params, { body = body, timeout = opts.timeout })
    if not wire then return nil, e end
    return M.handle(wire.id, wire, side)
  end
end

---A new session from what session:export or `moonrig export` made. Nothing runs by it; the same file again makes
---another session. Environment: by default the one named "default".
---@type fun(what: string|{ bytes: string }, o?: moonrig.CopyOptions): moonrig.Session?, moonrig.Error?
M.import = M.new_import(here)

return M
