-- `moonrig ps`, `why` and `logs`: what the sessions of a server do, what one waits for, what happened in it.
local cli = require "moonrig.cli"
local err = require "moonrig.err"
local Feed = require "moonrig.feed"
local native = require "moonrig.native"
local shows = require "moonrig.shows"
local task = require "moonrig.task"
local term = require "moonrig.term"
local time = require "moonrig.time"

local M = {}
local programs = {}

local PAGE, AT_ONCE, WATCH_S = 1000, 8, 2
local NARROW = 120 -- columns: below that a session takes two lines

local function must(v, e)
  if v == nil then error(e, 0) end
  return v
end

-- ----------------------------------------------------------------------------------------------------------- ps

---"12s", "3m", "2h", "5d"
local function span(s)
  s = math.floor(math.max(s, 0))
  for _, unit in ipairs { { 120, 1, "s" }, { 7200, 60, "m" }, { 172800, 3600, "h" } } do
    if s < unit[1] then return ("%d%s"):format(math.floor(s / unit[2]), unit[3]) end
  end
  return ("%dd"):format(math.floor(s / 86400))
end

local function count(n)
  n = math.floor(n)
  if n < 10000 then return ("%d"):format(n) end
  if n < 1e6 then return ("%dk"):format(math.floor(n / 1000)) end
  return ("%.1fM"):format(n / 1e6)
end

---What a session has used: its cost, where there is a price, else tokens in and out.
local function used(s)
  local u = s.usage or {}
  local cents = u.list_cost and tonumber(u.list_cost.amount)
  if cents then return ("$%.2f"):format(cents / 100) end
  local c = u.cache_creation or {}
  local input = (u.input_tokens or 0) + (u.cache_read_input_tokens or 0) + (c.ephemeral_5m_input_tokens or 0)
    + (c.ephemeral_1h_input_tokens or 0)
  return ("%s/%s"):format(count(input), count(u.output_tokens or 0))
end

local function line_of(t, id, status, agent, age, cost)
  return ("%s  %s  %s  %s  %s"):format(t:cell(id, 29), t:cell(status, 12), t:cell(agent, 13), t:cell(age, 4),
    t:cell(cost, 10))
end

local function wide(t) return not t.wide or t.width >= NARROW end

local function header(t)
  local head = line_of(t, "SESSION", "STATE", "AGENT", "AGE", "USED")
  t:line(wide(t) and head .. "  " .. t:cell("TITLE", 20) .. "  WHY" or t:cut(head), "bold")
end

local function row(t, s, why)
  local agent, title = type(s.agent) == "table" and s.agent.name or "", s.title or ""
  local age = span(native.now() - (time.parse(s.created_at) or native.now()))
  local line = line_of(t, s.id, s.status, agent, age, used(s))
  if not t.wide then return t:line(line .. "  " .. t:cell(title, 20) .. "  " .. term.clean(why)) end -- for a program: whole
  if wide(t) then return t:line(t:cut(line .. "  " .. t:cell(title, 20) .. "  " .. why)) end
  t:line(t:cut(line))
  t:line("  " .. t:cut(title ~= "" and title .. ": " .. why or why, t.width - 3), "dim")
end

---A page of sessions, and why each of them is where it is.
local function look(c, o)
  local params = { limit = o.limit, page = o.page, include_archived = o.all or nil }
  local page = must(c.transport.call("sessions.list", params))
  local whys = must(task.map(page.data, function(s)
    local why, e = c.transport.call("sessions.why", { session_id = s.id })
    if not why and e.status == 404 then return false end -- deleted meanwhile
    return why, e
  end, { concurrency = AT_ONCE }))
  return page, whys
end

local function show(c, page, whys, o)
  if c.json then
    local parts = {}
    for i, s in ipairs(page.data) do
      parts[#parts + 1] = ('{"session":%s,"why":%s}'):format(cli.text(s), whys[i] and cli.text(whys[i]) or "null")
    end
    local more = page.next_page and ('"%s"'):format(page.next_page) or "null"
    return c.term:line(('{"data":[%s],"next_page":%s}'):format(table.concat(parts, ","), more))
  end
  if #page.data == 0 then return c.term:line(o.page and "no more sessions" or "no sessions", "dim") end
  header(c.term)
  for i, s in ipairs(page.data) do row(c.term, s, whys[i] and whys[i].sentence or "deleted") end
  if page.next_page then
    c.term:line(("more: moonrig ps%s%s --page %s"):format(o.all and " --all" or "",
      o.limit ~= 20 and (" --limit %d"):format(o.limit) or "", page.next_page), "dim")
  end
end

function programs.ps(c, args)
  local o = { all = args[5] == "all", limit = tonumber(args[6]), page = args[8] ~= "" and args[8] or nil }
  local watch = args[7] == "watch"
  repeat
    local page, whys = look(c, o)
    if watch and c.term.colour and not c.json then c.term:put "\27[H\27[2J" end
    show(c, page, whys, o)
    if watch then task.sleep(WATCH_S) end
  until not watch
end

-- ---------------------------------------------------------------------------------------------------------- why

function programs.why(c, args)
  local why = must(c.transport.call("sessions.why", { session_id = args[5] }))
  if c.json then return c.term:line(cli.text(why)) end
  c.term:line(term.clean(("%s: %s"):format(why.state, why.sentence)))
  if #why.waiting_on > 1 then
    for _, w in ipairs(why.waiting_on) do c.term:line("  - " .. term.clean(w.text)) end
  end
  c.term:line("next: " .. term.clean(why.command), "dim")
end

-- --------------------------------------------------------------------------------------------------------- logs

local function log_line(c, ev)
  if c.json then return c.term:line(cli.text(ev)) end
  local text = shows.line(ev)
  c.term:line(c.term.wide and c.term:cut(text) or term.clean((text:gsub("[\r\n\t]+", " "))))
end

---All events, those that wait too.
local function list(c, id)
  local page
  repeat
    page = must(c.transport.call("sessions.events.list", { session_id = id, limit = PAGE, page = page and page.next_page }))
    for _, ev in ipairs(page.data) do log_line(c, ev) end
  until not page.next_page
end

function programs.logs(c, args)
  local id = args[5]
  local session = must(c.transport.call("sessions.retrieve", { session_id = id }))
  if args[6] ~= "follow" or session.status == "terminated" then return list(c, id) end
  local feed = Feed.new(id, { patient = true }, c.transport)
  feed.on_away = function(e) c.term:complain(("the server is away: %s; trying again"):format(e and err.text(e) or "the stream ended")) end
  while true do
    local ev, e = feed:next()
    if e then error(e, 0) end
    if not ev then return end
    log_line(c, ev)
  end
end

---@param args string[] see moonrig.cli; [4] "ps", "why" or "logs", then its own
---@return integer exit code
function M.main(args)
  local c = cli.open(args)
  return cli.run(c.term, function() return programs[args[4]](c, args) end)
end

return M
