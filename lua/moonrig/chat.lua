-- `moonrig chat`: a person talks to an agent of a running server. What the model writes appears as it writes it, tool
-- calls and results are a line each, approvals are asked in place. Everything goes through a client of rig's shape;
-- the session is the server's and goes on when the chat is over.
local err = require "moonrig.err"
local task = require "moonrig.task"
local json = require "moonrig.json"
local shows = require "moonrig.shows"
local term = require "moonrig.term"

local Chat = {}
Chat.__index = Chat
local commands = {}

local HELP = [[
/new [AGENT]    a new session, with this agent or another one
/sessions       the latest sessions of the server
/join ID        goes on with one of them
/events [N]     the last N events of this session (default 20)
/usage          tokens of this chat and of the session
/quit           leaves; the session stays
A line that ends in \ goes on in the next one; //text sends text that begins with a slash.
Ctrl-C stops the agent's turn, a second one leaves.]]

-- ----------------------------------------------------------------------------------------------------- showing

function Chat:show(ev)
  if self.json then
    if ev.id then self.term:line((assert(json.encode(ev)))) end
  else
    shows.event(self, ev)
  end
  if ev.type and ev.type:find "tool_use$" then self.uses[ev.id] = ev end
  if ev.type == "session.error" then self.failed = true end
end

---What is not an event: not for a program that reads JSON.
function Chat:note(text)
  if not self.json then self.term:line(text, "dim") end
end

-- --------------------------------------------------------------------------------------------------- approvals

function Chat:send(event)
  local r, e = self.client.sessions.events.send(self.session.id, { events = { event } })
  if not r then return nil, e end
  self.own[r.data[1].id] = true
  return r.data[1]
end

local function confirmation(id, allow, why)
  return { type = "user.tool_confirmation", tool_use_id = id, result = allow and "allow" or "deny", deny_message = why }
end

---A call that nobody answers: the person may, else it fails for the model.
function Chat:answer_custom(use)
  local line
  if not self.json then
    self.term:line(("! %s is a tool that a client answers, and nobody here does."):format(tostring(use.name)), "red")
  end
  if self.term.tty then
    line = self.term:read("  its result (Enter: it fails): ")
    if line == nil then return nil, "left" end
  end
  self.failed = self.failed or not self.term.tty
  local ok = line and line ~= ""
  local text = ok and line or "nobody answers this tool in this chat"
  return self:send { type = "user.custom_tool_result", custom_tool_use_id = use.id, is_error = not ok or nil,
    content = { { type = "text", text = text } } }
end

---One call that waits. true, or nil and "left" (no answer), or nil, err.
function Chat:ask_about(use)
  if use.type == "agent.custom_tool_use" then return self:answer_custom(use) end
  while true do
    local line, why
    if self.always[use.name] then
      self:note(("  %s: allowed, as always"):format(use.name))
      line = "y"
    else
      if self.term.tty then
        self.term:line(self.term:cut(("? allow %s %s"):format(tostring(use.name), shows.input(use))), "bold")
      end
      line, why = self.term:read("  y(es) n(o, or: n REASON) a(lways) w(hy): ")
      if not line then return nil, why or "left" end
    end
    local word, rest = line:match "^%s*(%S*)%s*(.-)%s*$"
    word = word:lower()
    local yes = word == "y" or word == "yes" or word == "a" or word == "always"
    if yes or word == "n" or word == "no" then
      local sent, e = self:send(confirmation(use.id, yes, not yes and rest ~= "" and rest or nil))
      if sent and (word == "a" or word == "always") then self.always[use.name] = true end
      return sent, e
    elseif word == "w" or word == "why" or word == "?" then
      local judged = type(use.evaluation) == "table" and use.evaluation.evaluated_permission
      local reason = type(judged) == "table" and judged.reason
      self:note(("  %s (%s) asks because %s; its input:"):format(tostring(use.name), use.type,
        reason and "the policy says: " .. term.clean(tostring(reason))
        or ("its permission is \"%s\""):format(tostring(use.evaluated_permission or "ask"))))
      self:note(term.clean((json.encode(use.input or {}, { pretty = true }))))
    elseif not self.term.tty then
      self.term:complain(("%s waits for y, n, a or n REASON, not for %q"):format(use.name, line:sub(1, 60)))
      return nil, "left"
    end
  end
end

---Answers what blocks the session. true when all is answered; nil, "left" when the person went away.
function Chat:ask_all(ids)
  for _, id in ipairs(ids) do
    if not self.answered[id] then
      local done, e = self:ask_about(self.uses[id] or { id = id, name = "a call of before", type = "agent.tool_use" })
      if e == "interrupted" then
        self.session:interrupt()
        return true
      end
      if not done and e ~= "left" and e.status ~= 400 then error(e, 0) end
      if not done and e == "left" then return nil, "left" end
      if not done then self:note("  " .. err.text(e)) end -- somebody else was faster
      self.answered[id] = true
    end
  end
  return true
end

-- -------------------------------------------------------------------------------------------------------- turns

---Ctrl-C during a turn: the first stops it, the second leaves.
function Chat:on_interrupt()
  if self.interrupted then
    self.leaving = true
    return self.main:cancel "left"
  end
  self.interrupted = true
  self:note "(stopping; Ctrl-C again leaves)"
  local session = self.session
  task.spawn(function()
    local ok, e = session:interrupt()
    if not ok then self.term:complain(err.text(e)) end
  end)
end

---Shows events until the session rests. sent: the message that begins the turn; nil: the turn is on already.
---Returns true, or false when the session is over or the person left it waiting.
function Chat:turn(sent)
  local started = sent == nil
  self.interrupted = false
  self.term.on_interrupt = function() self:on_interrupt() end
  while true do
    local ev = self.follower()
    if not ev then return false end
    self:show(ev)
    started = started or ev.id == sent
    if ev.type == "session.status_terminated" or ev.type == "session.deleted" then return false end
    if started and ev.type == "session.status_idle" then
      local go_on = self:rests(ev)
      if go_on ~= nil then
        self.term.on_interrupt = nil
        return go_on
      end
    end
  end
end

---The session is idle: true when its turn is over, false when the person left it waiting, nil when it goes on.
function Chat:rests(ev)
  local why = ev.stop_reason or {}
  if why.type == "requires_action" then
    if self:ask_all(why.event_ids or {}) then return nil end
    self.failed = true
    self:note(("(a call waits for an answer: moonrig chat --session %s)"):format(self.session.id))
    return false
  end
  if why.type and why.type ~= "end_turn" then
    self.failed = self.failed or why.type ~= "interrupted"
    self:note(("(stopped: %s)"):format(why.type))
  end
  return true
end

---The stream must be open before a turn begins: what a model writes is shown to those who listened then.
function Chat:listen()
  local feed = self.follower.feed
  if feed.stream or feed.ended then return true end
  return feed:open()
end

function Chat:say(text)
  local sent, e = self:listen()
  if sent then sent, e = self:send { type = "user.message", content = { { type = "text", text = text } } } end
  if not sent then
    if not e.status then error(e, 0) end -- the server is gone
    self.failed = true
    self.term:complain(err.text(e))
    return true
  end
  return self:turn(sent.id)
end

-- ------------------------------------------------------------------------------------------------------ sessions

function Chat:begin(session)
  if self.follower then self.follower:close() end
  self.session, self.uses, self.answered, self.own = session, {}, {}, {}
  self.streamed, self.usage = nil, {}
  local agent = type(session.agent) == "table" and session.agent.name or "an agent"
  self:note(("session %s with %s%s"):format(session.id, agent, self.term.tty and "; /help lists commands" or ""))
end

function Chat:new_session(agent)
  local session, e = self.client.session { agent = agent }
  if not session then return nil, e end
  self:begin(session)
  self.follower = session:follow { deltas = true }
  return true
end

local REPLAYED = 10

---Shows the end of what was said before, and goes on from there.
function Chat:join(id)
  local session, e = self.client.session(id)
  if not session then return nil, e end
  self:begin(session)
  local talk, last, status = {}, nil, nil
  for ev in self.client.sessions.events.each(id, { limit = 1000 }) do
    if ev.processed_at then last = ev.id end
    if ev.type:find "tool_use$" then self.uses[ev.id] = ev end
    if ev.type:find "^session%.status_" then status = ev end
    if ev.type == "user.message" or ev.type == "agent.message" then talk[#talk + 1] = ev end
    if #talk > REPLAYED then table.remove(talk, 1) end
  end
  if not self.json then for _, ev in ipairs(talk) do self:show(ev) end end
  self.follower = session:follow { deltas = true, after = last }
  if not status then return true end
  if status.type == "session.status_idle" then
    if self:rests(status) == nil then self:turn() end
  elseif status.type == "session.status_terminated" then
    return nil, err.new("invalid_request_error", "the session has ended: " .. id)
  else
    self:turn()
  end
  return true
end

---The agents of the server, and their names in one line.
function Chat:agents()
  local list, names = {}, {}
  for a in self.client.agents.each { limit = 100 } do
    if a.archived_at == nil then
      list[#list + 1] = a
      if #list <= 20 then names[#list] = a.name end
    end
  end
  if #list > #names then names[#names + 1] = "..." end
  return list, table.concat(names, ", ")
end

---The agent to talk to: the one that was named, the only one, or a choice.
function Chat:pick(name)
  if name and name ~= "" then
    local agent, e = self.client.agent(name)
    if agent or e.type ~= "not_found_error" then return agent, e end
    local _, there = self:agents()
    return nil, err.new(e.type, ("%s; there is: %s"):format(e.message, there ~= "" and there or "none"))
  end
  local list, names = self:agents()
  if #list == 1 then return list[1] end
  if #list == 0 then
    return nil, err.new("not_found_error", "the server has no agent: declare one in a script (rig.agent), or create one")
  end
  if not self.term.tty then
    return nil, err.new("usage", ("which agent? moonrig chat NAME, of: %s"):format(names))
  end
  for i, a in ipairs(list) do
    local about = self.term:cut(a.description or "", self.term.width - 28)
    self.term:line(("%3d  %-20s %s"):format(i, term.clean(a.name), about))
  end
  while true do
    local line = self.term:read "which agent? "
    if not line then return nil, err.new("left", "no agent was chosen") end
    local i = tonumber(line)
    if i and list[i] then return list[i] end
    for _, a in ipairs(list) do
      if a.name == line or a.id == line then return a end
    end
  end
end

-- ------------------------------------------------------------------------------------------------------ commands

function commands.help(chat) chat.term:line(HELP) end
function commands.quit() return "quit" end
commands.exit, commands.q = commands.quit, commands.quit

function commands.new(chat, arg)
  local agent, e = chat:pick(arg ~= "" and arg or chat.session.agent.id)
  if agent then agent, e = chat:new_session(agent) end
  if not agent then chat.term:complain(err.text(e)) end
end

function commands.join(chat, arg)
  local ok, e = chat:join(arg)
  if not ok then chat.term:complain(err.text(e)) end
end

function commands.sessions(chat)
  local page, e = chat.client.sessions.list { limit = 20 }
  if not page then return chat.term:complain(err.text(e)) end
  for _, s in ipairs(page.data) do
    chat.term:line(chat.term:cut(("%s%s  %-11s %-16s %s"):format(s.id == chat.session.id and "*" or " ", s.id, s.status,
      s.agent and s.agent.name or "", s.title or "")))
  end
end

function commands.events(chat, arg)
  local n = math.min(math.max(tonumber(arg) or 20, 1), 1000)
  local page, e = chat.client.sessions.events.list(chat.session.id, { order = "desc", limit = math.floor(n) })
  if not page then return chat.term:complain(err.text(e)) end
  for i = #page.data, 1, -1 do
    local ev = page.data[i]
    local about = ev.name or ev.content and shows.text(ev.content) or ev.stop_reason and ev.stop_reason.type or ""
    chat.term:line(chat.term:cut(("%s  %-26s %s"):format(tostring(ev.processed_at or "waits"), ev.type, about)))
  end
end

function commands.usage(chat)
  chat.term:line(("this chat: %d tokens in, %d out"):format(chat.usage.input_tokens or 0, chat.usage.output_tokens or 0))
  local s = chat.session:refresh()
  if s and type(s.usage) == "table" then
    chat.term:line(("the session: %d in, %d out"):format(s.usage.input_tokens or 0, s.usage.output_tokens or 0))
  end
end

---false when the chat is over.
function Chat:command(line)
  local name, arg = line:match "^/(%S*)%s*(.-)%s*$"
  if not commands[name] then
    self.term:complain(("there is no command /%s; /help lists them"):format(name))
    return true
  end
  return commands[name](self, arg) ~= "quit"
end

-- ------------------------------------------------------------------------------------------------------ the loop

---A message of the person: what was pasted together, lines that end in \ joined. nil: the end.
function Chat:read()
  local warned = false
  while true do
    local line, why = self.term:read(self.json and "" or "> ")
    if not line then
      if why ~= "interrupted" or warned then return nil end
      warned = true
      self:note "(Ctrl-C again, or /quit, leaves)"
    else
      local lines = self.term:pasted()
      table.insert(lines, 1, line)
      while lines[#lines]:sub(-1) == "\\" do
        lines[#lines] = lines[#lines]:sub(1, -2)
        local more = self.term:read ". "
        if not more then break end
        lines[#lines + 1] = more
      end
      return table.concat(lines, "\n")
    end
  end
end

function Chat:loop()
  while true do
    local text = self:read()
    if not text then return end
    if text:find "^/[^/]" and not text:find "\n" then
      if not self:command(text) then return end
    elseif text:find "%S" then
      if text:find "^//" then text = text:sub(2) end
      if not self:say(text) then return end
    end
  end
end

local UNREACHABLE = 3

local function explain(chat, e)
  if type(e) ~= "table" then
    chat.term:complain(tostring(e))
    return 1
  end
  if e.type == "left" then return 0 end
  chat.term:complain(err.text(e))
  if e.status == 401 then chat.term:complain "give a key with --key or MOONRIG_API_KEY" end
  if e.type == "usage" then return 2 end
  local said = e.status or e.type == "not_found_error" or e.type == "invalid_request_error"
  return said and 1 or UNREACHABLE
end

local M = {}

---@param o { client: table, term: table, agent?: string, session?: string, json?: boolean }
---@return integer exit code
function M.run(o)
  local chat = setmetatable({ client = o.client, term = o.term, json = o.json, always = {}, usage = {},
    own = {} }, Chat)
  local code = 0
  chat.main = task.spawn(function()
    local ok, e
    if o.session and o.session ~= "" then
      ok, e = chat:join(o.session)
    else
      ok, e = chat:pick(o.agent)
      if ok then ok, e = chat:new_session(ok) end
    end
    if not ok then
      code = explain(chat, e)
      return
    end
    chat:loop()
  end)
  local signals = task.spawn(chat.term.watch, chat.term)
  local ok, e = pcall(chat.main.wait, chat.main)
  signals:cancel()
  if chat.follower then chat.follower:close() end
  if chat.leaving then
    code = 130
  elseif not ok then
    code = explain(chat, e)
  elseif code == 0 and chat.failed and not chat.term.tty then
    code = 1
  end
  if chat.term.tty and not chat.term.fresh then chat.term:put "\n" end
  if chat.term.tty and chat.session and not chat.json then
    chat:note(("moonrig chat --session %s goes on with it"):format(chat.session.id))
  end
  return code
end

---@param args string[] [0] descriptor of Ctrl-C; URL, key, agent, session, "json" or ""
---@return integer exit code
function M.main(args)
  local rig = require "moonrig"
  local client = rig.connect { base_url = args[1], api_key = args[2] ~= "" and args[2] or nil }
  return M.run { client = client, term = term.open(tonumber(args[0])), agent = args[3], session = args[4],
    json = args[5] == "json" }
end

return M
