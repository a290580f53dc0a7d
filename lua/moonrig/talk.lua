-- A person in a session: what `moonrig chat` and `moonrig attach` share, one transcript and one loop for what is typed.
-- Events are shown as they come, by one task; lines are read by another. At a terminal a line can be typed at any time:
-- an answer while a call is asked about, else a message, which the session takes when it can. In a pipe the next line
-- is read when the session rests, or asks.
--
-- The session is the server's: nothing here ends it, and all that is known of it comes from its events. Its log is
-- read from the start, so that a question that is open is one here too; when the server is away it is waited for, and
-- the events go on where they stopped (moonrig.feed).
local cli = require "moonrig.cli"
local err = require "moonrig.err"
local task = require "moonrig.task"
local json = require "moonrig.json"
local shows = require "moonrig.shows"
local term = require "moonrig.term"

---@class moonrig.Talk
---@field live boolean     history is over
---@field mode string      "busy", "ask" (about self.asking), "rest" or "over": what a line means
---@field awaiting? string an own event whose coming says that the session is past what was known when it was sent
local Talk = {}
Talk.__index = Talk
local M = { commands = {} }

local REPLAYED = 10
local ANSWERS = "  y(es) n(o, or: n REASON) a(lways) w(hy): "

---@param o { client: table, term: moonrig.Term, json?: boolean, from?: string } from: "start", "now"; default: the end
---of what was said
---@return moonrig.Talk
function M.new(o)
  return setmetatable({ client = o.client, term = o.term, json = o.json, from = o.from, mode = "busy", sending = 0 },
    Talk)
end

-- A task waits at a gate (a field of the talk) until another one opens it.
local function wait_at(talk, gate)
  talk[gate] = task.spawn(task.sleep, 1e6)
  pcall(talk[gate].wait, talk[gate])
  if task.cancelled() then error("left", 0) end
end

local function open(talk, gate)
  if talk[gate] and not talk[gate].done then talk[gate]:cancel() end
end

-- ----------------------------------------------------------------------------------------------------- showing

function Talk:show(ev)
  if self.json then
    if ev.id then self.term:line(cli.text(ev)) end
  else
    shows.event(self, ev)
  end
  if ev.type == "session.error" then self.failed = true end
end

---What is not an event: not for a program that reads JSON.
function Talk:note(text)
  if not self.json then self.term:line(term.clean(text), "dim") end
end

-- ------------------------------------------------------------------------------------------------------- state

local changes = {}

changes["session.status_idle"] = function(talk, ev)
  local why = ev.stop_reason or {}
  talk.status, talk.stop, talk.pending, talk.of_threads = "idle", why.type, {}, {}
  for i, id in ipairs(why.event_ids or {}) do talk.pending[i] = id end
  if why.type == "requires_action" then return end
  talk.uses, talk.answered, talk.skipped = {}, {}, false
  if why.type ~= "end_turn" then talk.awaiting = nil end -- inputs that waited may be gone
  if talk.live and why.type ~= "end_turn" then
    talk.failed = true
    if why.type ~= "budget_reached" or not talk:explain() then
      talk:note(("(stopped: %s)"):format(tostring(why.type)))
    end
  end
end
changes["session.status_running"] = function(talk)
  talk.status, talk.pending, talk.skipped = "running", {}, false
end
changes["session.status_rescheduled"] = function(talk) talk.status = "rescheduling" end
changes["session.status_terminated"] = function(talk) talk.status = "terminated" end
changes["session.deleted"] = changes["session.status_terminated"]
changes["user.interrupt"] = function(talk) talk.interrupting = false end

-- A thread may ask while others go on; once none does, the session's own idle event names all that is open.
changes["session.thread_status_idle"] = function(talk, ev)
  for _, id in ipairs(talk.threads[ev.session_thread_id] and ev.stop_reason and ev.stop_reason.event_ids or {}) do
    talk.of_threads[#talk.of_threads + 1] = id
  end
end
changes["session.thread_created"] = function(talk, ev) talk.threads[ev.session_thread_id] = ev.agent_name or "a thread" end

---Says what the session waits for, as `moonrig why` does. true, or nothing when the server does not say.
function Talk:explain()
  local why = self.client.sessions.why(self.session.id)
  if not why then return end
  self:note(("(%s)"):format(why.sentence))
  return true
end

---Takes note of an event.
function Talk:react(ev)
  local ref = ev.tool_use_id or ev.custom_tool_use_id or ev.mcp_tool_use_id
  if ref then self.answered[ref] = true end
  if ev.type:find "tool_use$" then self.uses[ev.id] = ev end
  if changes[ev.type] then changes[ev.type](self, ev) end
  if self.awaiting and ev.id == self.awaiting then self.awaiting = nil end
end

---Does a worker of a self-hosted environment run it, who needs no answer from here?
local function workers(use)
  return use and use.type == "agent.tool_use" and use.evaluated_permission and use.evaluated_permission ~= "ask"
end

---The first of a list of calls that is not answered yet, and is to be answered here.
function Talk:open_call(list)
  while list[1] and (self.answered[list[1]] or workers(self.uses[list[1]])) do table.remove(list, 1) end
  local id = list[1]
  return id and (self.uses[id] or { id = id, name = "a call of before", type = "agent.tool_use" })
end

---What a line means now; and the call that it is about.
function Talk:mode_now()
  if self.status == "terminated" then return "over" end
  if not self.live then return "busy" end
  local use = self:open_call(self.of_threads)
  if use then return "ask", use end
  if self.awaiting or self.status ~= "idle" then return "busy" end
  use = self:open_call(self.pending)
  if use then return "ask", use end
  if self.stop == "requires_action" and not self.skipped then return "busy" end -- it is about to go on
  return "rest"
end

---What needs no line: a call that is always allowed; in a pipe, a tool that a client answers. true: it is answered.
function Talk:answers_itself(use)
  local custom = use.type == "agent.custom_tool_use"
  if custom and not self.term.tty then
    self:say_custom(use)
    self:answer_custom(use)
  elseif not custom and self.always[use.name] then
    self:note(("  %s: allowed, as always"):format(use.name))
    self:decide(use, true)
  end
  return self.answered[use.id]
end

function Talk:say_custom(use)
  if self.json then return end
  local who = self.mine and "and nobody here does." or self.term.tty and "its result, or Enter: it is left to that client."
    or "not this one."
  self.term:line(term.clean(("! %s is a tool that a client answers, %s"):format(tostring(use.name), who)), "red")
end

---After each event, and each line: is there something to ask, may the person write?
function Talk:settle()
  local mode, use = self:mode_now()
  while mode == "ask" and self:answers_itself(use) do mode, use = self:mode_now() end
  if mode ~= self.mode or use ~= self.asking then
    local old = self.asking
    if old and old ~= use and self.answered[old.id] and not self.own[old.id] and not self.interrupting then
      self:note "  (it is answered)"
    end
    self.mode, self.asking = mode, use
    if mode == "rest" then self.interrupting, self.warned = false, false end
    self:put_question()
    if mode ~= "busy" then open(self, "line_wanted") end
  end
  if not self.json then self.term:settle() end
end

function Talk:put_question()
  local use = self.asking
  if self.mode ~= "ask" then
    self.term:ask(self.mode == "rest" and "> " or nil)
    return
  end
  if use.type ~= "agent.custom_tool_use" then
    if self.term.tty and not self.json then
      self.term:line(self.term:cut(("? allow %s%s %s"):format(shows.thread(self, use), tostring(use.name),
        shows.input(use))), "bold")
    end
    self.term:ask(ANSWERS)
    return
  end
  self:say_custom(use)
  self.term:ask(self.mine and "  its result (Enter: it fails): " or "  its result: ")
end

-- --------------------------------------------------------------------------------------------------- approvals

---Sends an event. Its echo, or nil, err. Raises in a pipe when the server is not there. The event may come over the
---stream before the answer does: what comes meanwhile is kept until it is known as one's own.
function Talk:send(event)
  self.sending = self.sending + 1
  local r, e = self.client.sessions.events.send(self.session.id, { events = { event } })
  self.sending = self.sending - 1
  if self.sending == 0 then open(self, "sent") end
  if r then
    self.own[r.data[1].id] = true
    return r.data[1]
  end
  if not e.status and not self.term.tty then error(e, 0) end
  return nil, e
end

---Sends the answer to a call.
function Talk:give(use, event)
  local sent, e = self:send(event)
  if sent then
    self.awaiting, self.answered[use.id], self.own[use.id] = sent.id, true, true
    return true
  end
  if e.status == 400 then -- somebody else was faster
    self.answered[use.id], self.own[use.id] = true, true
    self:note("  " .. err.text(e))
  else
    self.failed = true
    self.term:complain("not sent: " .. err.text(e))
  end
end

function Talk:decide(use, allow, why)
  return self:give(use, { type = "user.tool_confirmation", tool_use_id = use.id, result = allow and "allow" or "deny",
    deny_message = why })
end

---A call that a client answers: the person may; else, in a session of their own, it fails for the model.
function Talk:answer_custom(use, line)
  local ok = line and line ~= ""
  if not ok and not self.mine then
    self.answered[use.id], self.own[use.id], self.skipped = true, true, true
    return self:note "  (left to its client)"
  end
  self.failed = self.failed or not self.term.tty
  local text = ok and line or "nobody answers this tool in this chat"
  self:give(use, { type = "user.custom_tool_result", custom_tool_use_id = use.id, is_error = not ok or nil,
    content = { { type = "text", text = text } } })
end

function Talk:explain_call(use)
  local judged = type(use.evaluation) == "table" and use.evaluation.evaluated_permission
  local reason = type(judged) == "table" and judged.reason
  self:note(("  %s (%s) asks because %s; its input:"):format(tostring(use.name), use.type,
    reason and "the policy says: " .. tostring(reason)
    or ("its permission is \"%s\""):format(tostring(use.evaluated_permission or "ask"))))
  self:note((json.encode(use.input or {}, { pretty = true })))
end

---A line while a call is asked about. False: the pipe says something else.
function Talk:answer(line)
  local use = self.asking
  if use.type == "agent.custom_tool_use" then
    self:answer_custom(use, line)
    return true
  end
  local word, rest = line:match "^%s*(%S*)%s*(.-)%s*$"
  word = word:lower()
  local yes = word == "y" or word == "yes" or word == "a" or word == "always"
  if yes or word == "n" or word == "no" then
    local sent = self:decide(use, yes, not yes and rest ~= "" and rest or nil)
    if sent and (word == "a" or word == "always") then self.always[use.name] = true end
  elseif word == "w" or word == "why" or word == "?" then
    self:explain_call(use)
  elseif not self.term.tty then
    self.term:complain(("%s waits for y, n, a or n REASON, not for %q"):format(use.name, line:sub(1, 60)))
    return false
  end
  return true
end

-- ------------------------------------------------------------------------------------------------------ events

---History is over: shows the end of what was said before, and goes on from there.
function Talk:begin_live()
  if not self.live then
    self.live = true
    if not self.json then for _, ev in ipairs(self.before) do self:show(ev) end end
    self.before = {}
    if self.joined and self.term.tty and not self.json then self:explain() end
  end
  self:settle()
end

function Talk:take(ev)
  self:react(ev)
  if self.live or self.from == "start" then
    self:show(ev)
  elseif self.from ~= "now" and (ev.type == "user.message" or ev.type == "agent.message") then
    self.before[#self.before + 1] = ev
    if #self.before > REPLAYED then table.remove(self.before, 1) end
  end
  if not self.follower.feed.listing then self:settle() end
end

---Until the session is over, or the person leaves.
function Talk:events()
  while true do
    local follower = self.follower
    local ev = follower()
    while self.sending > 0 do wait_at(self, "sent") end
    if follower == self.follower then
      if not ev then return end
      self:take(ev)
    end
  end
end

---Goes on with a session. joined: it was there before.
function Talk:enter(session, joined)
  if self.follower then self.follower:close() end
  local agent = type(session.agent) == "table" and session.agent.name or "an agent"
  self.session, self.joined, self.mine = session, joined, not joined
  self.uses, self.answered, self.own, self.pending, self.before, self.threads = {}, {}, {}, {}, {}, {}
  self.of_threads, self.always = {}, {} -- "always" was said of the other session's calls
  self.live, self.awaiting, self.streamed, self.usage, self.skipped = false, nil, nil, {}, false
  self.status, self.stop, self.mode, self.asking = session.status or "idle", nil, "busy", nil
  self.term:ask(nil)
  self:note(("session %s with %s%s"):format(session.id, agent, self.term.tty and "; /help lists commands" or ""))
  local follower = session:follow { deltas = true }
  local feed, answers_act = follower.feed, follower.feed.on_live
  feed.patient = self.term.tty
  feed.on_live = function()
    if answers_act then answers_act() end
    self:begin_live()
  end
  feed.on_away = function(e)
    self:note(("(the server is away: %s; trying again)"):format(e and err.text(e) or "the stream ended"))
    self.term:settle()
  end
  feed.on_back = function() self:note "(connected again)" end
  self.follower = follower
end

---Looks a session up and goes on with it. true, or nil, err.
function Talk:join(id)
  local session, e = self.client.session(id)
  if not session then return nil, e end
  if session.status == "terminated" then
    return nil, err.new("invalid_request_error", ("the session has ended: moonrig logs %s shows it"):format(id))
  end
  self:enter(session, true)
  return true
end

-- ------------------------------------------------------------------------------------------------------- lines

---Ctrl-C: the first stops what the agent does, the next leaves.
function Talk:on_interrupt()
  self.term:interrupted()
  if self.mode == "rest" then
    if self.warned then return self:leave(0) end
    self.warned = true
    self:note "(Ctrl-C again, or /quit, leaves)"
    return self.term:settle()
  end
  if self.interrupting then return self:leave(130) end
  self.interrupting = true
  self:note "(stopping; Ctrl-C again leaves)"
  local session = self.session
  task.spawn(function()
    local ok, e = session:interrupt()
    if not ok then self.term:complain(err.text(e)) end
  end)
end

function Talk:leave(code)
  self.left = code
  self.main:cancel "left"
end

function Talk:say(text)
  local sent, e = self:send { type = "user.message", content = { { type = "text", text = text } } }
  if sent then
    self.awaiting = sent.id
  else
    self.failed = true
    self.term:complain("not sent: " .. err.text(e))
  end
end

---false when the talk is over.
function Talk:command(line)
  local name, arg = line:match "^/(%S*)%s*(.-)%s*$"
  if not M.commands[name] then
    self.term:complain(("there is no command /%s; /help lists them"):format(name))
    return true
  end
  return M.commands[name](self, arg) ~= "quit"
end

---The rest of a message: what was pasted together, lines that end in \ joined.
function Talk:whole(line)
  local lines = self.term:pasted()
  table.insert(lines, 1, line)
  while lines[#lines]:sub(-1) == "\\" do
    lines[#lines] = lines[#lines]:sub(1, -2)
    self.term:ask ". "
    self.term:settle()
    local more = self.term:next_line()
    self.term:entered()
    if not more then break end
    lines[#lines + 1] = more
  end
  self.term:ask(nil)
  return table.concat(lines, "\n")
end

---In a pipe: waits until a line is wanted.
function Talk:wanted()
  while self.mode == "busy" do wait_at(self, "line_wanted") end
end

---One line. false when the talk is over.
function Talk:line(line)
  if self.mode == "ask" then return self:answer(line) end
  local text = self:whole(line)
  if text:find "^/[^/]" and not text:find "\n" then return self:command(text) end
  if not text:find "%S" then return true end
  self:say(text:find "^//" and text:sub(2) or text)
  return true
end

---Until the end of what is typed, or /quit.
function Talk:lines()
  local go_on = true
  while go_on do
    if not self.term.tty then self:wanted() end
    local line = self.term:next_line()
    self.term:entered()
    if not line then
      if self.term.tty then self.term:put "\n" end
      break
    end
    self.warned = false
    go_on = self:line(line)
    if go_on then
      if self.mode == "rest" then self.mode = nil end -- the prompt comes again, or goes: it may have come meanwhile
      self:settle()
    end
  end
  if self:mode_now() == "ask" then
    self.failed = true
    self:note(("(a call waits for an answer: moonrig attach %s)"):format(self.session.id))
  end
end

-- --------------------------------------------------------------------------------------------------------- run

---Runs the talk. begin enters a session: true, or nil, err.
---@param begin fun(talk: moonrig.Talk): boolean?, moonrig.Error?
---@return integer exit code
function Talk:run(begin)
  local code = 0
  self.term.on_interrupt = function() self:leave(130) end
  self.main = task.spawn(function()
    local ok, e = begin(self)
    if not ok then
      code = cli.explain(self.term, e)
      return
    end
    self.term.on_interrupt = function() self:on_interrupt() end
    task.race { events = function() self:events() end, lines = function() self:lines() end }
  end)
  local signals = task.spawn(self.term.watch, self.term)
  local ok, e = pcall(self.main.wait, self.main)
  signals:cancel()
  self.term:ask(nil)
  local away = self.follower and self.follower.feed.away
  if self.follower then self.follower:close() end
  if self.left then
    code = self.left
  elseif not ok then
    code = cli.explain(self.term, e)
  elseif away then
    code = cli.UNREACHABLE
  elseif code == 0 and self.failed and not self.term.tty then
    code = 1
  end
  if self.term.tty and not self.term.fresh then self.term:put "\n" end
  if self.term.tty and self.session and self.status ~= "terminated" then
    self:note(("moonrig attach %s goes on with it"):format(self.session.id))
  end
  return code
end

return M
