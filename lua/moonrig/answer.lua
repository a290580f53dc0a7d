-- Answers to custom tool calls: their wire form, and, for sessions of another runtime (rig.connect), who gives them.
-- A tool declared on a client answers over the stream: when a session that this client follows or asks waits for it,
-- its handler runs in a task of its own, and what it returns is sent. A call is answered once, whoever sees it.
local native = require "moonrig.native"
local err = require "moonrig.err"
local retry = require "moonrig.retry"
local task = require "moonrig.task"

local M = {}

local TIMEOUT, CONCURRENCY, REMEMBERED, ATTEMPTS = 120, 64, 4096, 3

---Text, a block or a list of blocks to a list of blocks.
function M.content_of(content)
  if type(content) == "string" then return { { type = "text", text = content } } end
  if type(content) ~= "table" then err.misuse("content is text or a list of blocks, got %s", type(content)) end
  if content.type then return { content } end
  return content
end

---The event that answers a tool use: text, a table (as JSON) or content blocks; or nil, err.
---@param use table event
---@param content any
---@param is_error? boolean
---@return table? event
---@return moonrig.Error?
function M.event(use, content, is_error)
  local ev = { is_error = is_error or nil }
  if use.type == "agent.custom_tool_use" then
    ev.type, ev.custom_tool_use_id = "user.custom_tool_result", use.id
  else
    ev.type, ev.tool_use_id = "user.tool_result", use.id
  end
  if type(content) == "table" and not (content.type or (content[1] and content[1].type)) then
    local text, e = native.json_encode(content)
    if not text then return nil, e end
    content = text
  elseif content ~= nil and type(content) ~= "table" then
    content = tostring(content)
  end
  if content ~= nil then ev.content = M.content_of(content) end
  return ev
end

---@class moonrig.Answers the answers to one session's calls, as one reader of its events sees them
local Answers = {}
Answers.__index = Answers

---@param side moonrig.Side with tools
---@param session moonrig.Session
---@param feed table closed when an answer cannot be sent; why is in `failed` then
function M.new(side, session, feed)
  side.taken = side.taken or {}
  return setmetatable({ side = side, session = session, feed = feed, uses = {}, running = {}, queues = {}, tasks = {} },
    Answers)
end

---Cancels the handlers that run.
function Answers:stop()
  for t in pairs(self.tasks) do
    if not t.done then t:cancel "the session goes on without it" end
  end
  self.tasks, self.running, self.queues = {}, {}, {}
end

---Takes note of an event.
function Answers:see(ev)
  if ev.type == "agent.custom_tool_use" then
    self.uses[ev.id] = ev
  elseif ev.type == "user.custom_tool_result" then
    self.uses[ev.custom_tool_use_id] = nil
  elseif ev.type == "session.status_idle" then
    local why = ev.stop_reason or {}
    self.blocked = why.type == "requires_action" and why.event_ids or nil
    if not self.blocked then self:stop() end
  elseif ev.type == "session.status_terminated" or ev.type == "session.deleted" then
    self.blocked = nil
    self:stop()
  end
end

---Is this call answered here?
function Answers:owns(id) return self.side.taken[id] == true end

---Remembers a call as taken; of the oldest it forgets.
local function take(side, id)
  local n = (side.ntaken or 0) + 1
  side.ntaken = n
  if side.taken[n - REMEMBERED] then
    side.taken[side.taken[n - REMEMBERED]] = nil
    side.taken[n - REMEMBERED] = nil
  end
  side.taken[id], side.taken[n] = true, id
end

local function context(self, tool, use)
  local ctx = { session = self.session, thread = use.session_thread_id, tool_use_id = use.id, attempt = 1,
    deadline = native.now() + (tool.timeout or TIMEOUT) }
  local agent = self.session.agent
  ctx.agent = type(agent) == "table" and agent.name or nil
  local g = native.generation()
  ctx.generation = g and g.number or 0
  function ctx.cancelled() return native.cancelled() end
  function ctx.log(...)
    local parts = {}
    for i = 1, select("#", ...) do
      local v = select(i, ...)
      if v ~= ctx then parts[#parts + 1] = tostring(v) end
    end
    native.log(2, "tool " .. tool.name, table.concat(parts, " "))
  end
  return ctx
end

---What the handler makes of it: value, or nil and a text.
local function run(self, tool, use)
  local ctx, limit = context(self, tool, use), tool.timeout or TIMEOUT
  local ok, who, value, e = xpcall(task.race, err.traced, {
    run = function() return tool.run(use.input, ctx) end,
    late = function() task.sleep(limit) end,
  })
  if native.cancelled() then error("cancelled", 0) end
  if not ok then
    native.log(0, "tool " .. tool.name, err.text(who))
    return nil, err.text(who)
  end
  if who == "late" then return nil, ("the tool gave no answer within %g seconds"):format(limit) end
  if value == nil and e ~= nil then return nil, err.text(e) end
  return value
end

local function answer(self, tool, use)
  local value, why = run(self, tool, use)
  local ev, e = M.event(use, why or value, why ~= nil)
  if not ev then ev = M.event(use, err.text(e), true) end
  for attempt = 1, ATTEMPTS do
    local sent
    sent, e = self.side.transport.call("sessions.events.send", { session_id = self.session.id, events = { ev } })
    if sent then return end
    if not e.retryable then break end
    if attempt < ATTEMPTS then retry.pause(attempt) end -- one that arrived after all is refused the second time
  end
  native.log(1, "tool " .. tool.name, "the answer was not taken: " .. err.text(e))
  if e.status and e.status < 500 and e.status ~= 429 then return end -- it is no longer wanted: the events tell
  self.failed = e
  self.feed:close()
end

local function worker(self, tool, use)
  local name = tool.name
  while use do
    answer(self, tool, use)
    use = self.queues[name] and table.remove(self.queues[name], 1)
  end
  self.running[name] = (self.running[name] or 1) - 1
end

local function start(self, tool, use)
  local name = tool.name
  take(self.side, use.id)
  if (self.running[name] or 0) >= (tool.concurrency or CONCURRENCY) then
    self.queues[name] = self.queues[name] or {}
    table.insert(self.queues[name], use)
    return
  end
  self.running[name] = (self.running[name] or 0) + 1
  local t
  t = task.spawn(function()
    worker(self, tool, use)
    self.tasks[t] = nil
  end)
  self.tasks[t] = true
end

---Starts the handlers of what the session waits for now.
function Answers:act()
  for _, id in ipairs(self.blocked or {}) do
    local use = self.uses[id]
    local tool = use and self.side.tools[use.name]
    if tool and tool.run and not self.side.taken[id] then start(self, tool, use) end
  end
end

return M
