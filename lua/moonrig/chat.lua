-- `moonrig chat` and `moonrig attach`: a person talks to an agent of a running server, in a new session or in one that
-- is there (moonrig.talk). Here: which agent, and the commands that are typed with a slash.
local cli = require "moonrig.cli"
local err = require "moonrig.err"
local shows = require "moonrig.shows"
local talks = require "moonrig.talk"
local term = require "moonrig.term"

local commands = talks.commands

local HELP = [[
/new [AGENT]    a new session, with this agent or another one
/sessions       the latest sessions of the server
/join ID        goes on with one of them
/why            what this session waits for
/events [N]     the last N events of this session (default 20)
/usage          tokens of this chat and of the session
/quit, /detach  leaves; the session stays, and goes on
A line that ends in \ goes on in the next one; //text sends text that begins with a slash.
What is typed while the agent works is a message, too: it gets it when it can.
Ctrl-C stops the agent's turn, a second one leaves.]]

-- ------------------------------------------------------------------------------------------------------ agents

local function new_session(talk, agent)
  local session, e = talk.client.session { agent = agent }
  if not session then return nil, e end
  talk:enter(session, false)
  return true
end

---The agents of the server, and their names in one line.
local function agents(talk)
  local list, names = {}, {}
  for a in talk.client.agents.each { limit = 100 } do
    if a.archived_at == nil then
      list[#list + 1] = a
      if #list <= 20 then names[#list] = a.name end
    end
  end
  if #list > #names then names[#names + 1] = "..." end
  return list, table.concat(names, ", ")
end

---The agent to talk to: the one that was named, the only one, or a choice.
local function pick(talk, name)
  if name and name ~= "" then
    local agent, e = talk.client.agent(name)
    if agent or e.type ~= "not_found_error" then return agent, e end
    local _, there = agents(talk)
    return nil, err.new(e.type, ("%s; there is: %s"):format(e.message, there ~= "" and there or "none"))
  end
  local list, names = agents(talk)
  if #list == 1 then return list[1] end
  if #list == 0 then
    return nil, err.new("not_found_error", "the server has no agent: declare one in a script (rig.agent), or create one")
  end
  if not talk.term.tty then
    return nil, err.new("usage", ("which agent? moonrig chat NAME, of: %s"):format(names))
  end
  for i, a in ipairs(list) do
    local about = talk.term:cut(a.description or "", talk.term.width - 28)
    talk.term:line(("%3d  %s %s"):format(i, talk.term:cell(term.clean(a.name), 20), about))
  end
  while true do
    local line = talk.term:read "which agent? "
    if not line then return nil, err.new("left", "no agent was chosen") end
    local i = tonumber(line)
    if i and list[i] then return list[i] end
    for _, a in ipairs(list) do
      if a.name == line or a.id == line then return a end
    end
  end
end

-- ------------------------------------------------------------------------------------------------------ commands

function commands.help(talk) talk.term:line(HELP) end
function commands.quit() return "quit" end
commands.exit, commands.q, commands.detach = commands.quit, commands.quit, commands.quit

function commands.new(talk, arg)
  local agent, e = pick(talk, arg ~= "" and arg or talk.session.agent.id)
  if agent then agent, e = new_session(talk, agent) end
  if not agent then talk.term:complain(err.text(e)) end
end

function commands.join(talk, arg)
  local ok, e = talk:join(arg)
  if not ok then talk.term:complain(err.text(e)) end
end

function commands.why(talk)
  local why, e = talk.client.sessions.why(talk.session.id)
  if not why then return talk.term:complain(err.text(e)) end
  talk.term:line(term.clean(why.sentence))
end

function commands.sessions(talk)
  local page, e = talk.client.sessions.list { limit = 20 }
  if not page then return talk.term:complain(err.text(e)) end
  for _, s in ipairs(page.data) do
    talk.term:line(talk.term:cut(("%s%s  %-11s %-16s %s"):format(s.id == talk.session.id and "*" or " ", s.id, s.status,
      s.agent and s.agent.name or "", s.title or "")))
  end
end

function commands.events(talk, arg)
  local n = math.min(math.max(tonumber(arg) or 20, 1), 1000)
  local page, e = talk.client.sessions.events.list(talk.session.id, { order = "desc", limit = math.floor(n) })
  if not page then return talk.term:complain(err.text(e)) end
  for i = #page.data, 1, -1 do talk.term:line(talk.term:cut(shows.line(page.data[i]))) end
end

function commands.usage(talk)
  talk.term:line(("this chat: %d tokens in, %d out"):format(talk.usage.input_tokens or 0, talk.usage.output_tokens or 0))
  local s = talk.session:refresh()
  if s and type(s.usage) == "table" then
    talk.term:line(("the session: %d in, %d out"):format(s.usage.input_tokens or 0, s.usage.output_tokens or 0))
  end
end

-- ------------------------------------------------------------------------------------------------------ programs

local M = {}

---@param o { client: table, term: table, agent?: string, session?: string, json?: boolean, from?: string }
---@return integer exit code
function M.run(o)
  return talks.new(o):run(function(talk)
    if o.session and o.session ~= "" then return talk:join(o.session) end
    local agent, e = pick(talk, o.agent)
    if not agent then return nil, e end
    return new_session(talk, agent)
  end)
end

---@param args string[] see moonrig.cli; [4] agent, [5] session, [6] from
---@return integer exit code
function M.main(args)
  local c = cli.open(args)
  return M.run { client = c.client, term = c.term, json = c.json, agent = args[4], session = args[5],
    from = args[6] ~= "" and args[6] or nil }
end

return M
