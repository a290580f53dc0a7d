-- rig.hook: a say in what agents do, at each phase of a turn. What a handler returns is turned into the answer that
-- the core reads; moonrig.h (mr_hook_add) has the table of phases.
local native = require "moonrig.native"
local context = require "moonrig.context"
local declare = require "moonrig.declare"

---@class moonrig.HookOptions
---@field phase "accept"|"context"|"model"|"permit"|"tools"|"settle"|"idle"
---@field name? string  for the log
---@field agent? string|moonrig.Agent only this agent (name or id)
---@field tool? string  only this tool; phases permit and tools
---@field fail? "closed"|"open" when run fails or is late: refuse, or as if the hook were not there (default)
---@field run fun(call: moonrig.HookCall, ctx: moonrig.HookContext): any, any

---What a hook is asked about. Tables in it may be changed and given back; what is not given back stays as it was.
---@class moonrig.HookCall
---@field session moonrig.Session
---@field session_id string
---@field agent string its name
---@field agent_id string
---@field events? table[]     accept: what a client sends
---@field messages? table[]   context: { role, content } of this model request
---@field system? table[]     context: text blocks
---@field model? string       model: the agent's
---@field effort? string      model: "" when the agent names none
---@field bytes? integer      model: of all messages
---@field message? table      model: the last message
---@field name? string        permit, tools: of the tool
---@field input? table        permit, tools
---@field tool_use_id? string permit, tools: id of the event
---@field content? table[]    tools: the result's content blocks
---@field is_error? boolean   tools
---@field text? string        tools: the text of content; settle: the text of the last reply
---@field stop_reason? table  idle: { type, event_ids }

---@class moonrig.HookContext
---@field session moonrig.Session
---@field thread? string the thread it happens in; not in accept
---@field generation integer
---@field log fun(...: string)

local function text_of(blocks)
  local parts = {}
  for _, b in ipairs(blocks) do
    if b.type == "text" then parts[#parts + 1] = b.text end
  end
  return table.concat(parts, "\n")
end

local function bad(value, wanted)
  error(("the hook returned %s; it is %s"):format(type(value) == "string" and ("%q"):format(value) or type(value),
    wanted), 0)
end

local decisions = { allow = true, ask = true, deny = true, rewrite = true }

-- By phase: the answer made of what run returned (not nil; not false but in permit).
local answers = {}

function answers.permit(decision, detail)
  if not decisions[decision] then bad(decision, "\"allow\", \"ask\", \"deny\", \"rewrite\" or nothing") end
  if decision == "rewrite" then
    if type(detail) ~= "table" then error("\"rewrite\" needs the new input as its second result", 0) end
    return { decision = "rewrite", input = detail }
  end
  return { decision = decision, message = detail ~= nil and tostring(detail) or nil }
end

function answers.accept(events)
  if type(events) ~= "table" then bad(events, "a list of events, false and why, or nothing") end
  return { events = events }
end

function answers.context(value)
  if type(value) ~= "table" then bad(value, "a list of messages, { messages =, system = }, false and why, or nothing") end
  if value.messages == nil and value.system == nil then return { messages = value } end
  return { messages = value.messages, system = value.system }
end

function answers.model(value)
  if type(value) == "string" then return { model = value } end
  local reply = type(value) == "table" and value.reply
  if type(reply) ~= "string" and type(reply) ~= "table" then
    bad(value, "a model's name, { reply = text or content blocks }, false and why, or nothing")
  end
  return { reply = { content = reply } }
end

function answers.tools(value)
  return { content = value }
end

function answers.settle(text)
  if type(text) ~= "string" then bad(text, "a text to go on with, or nothing") end
  return { continue = text }
end

---Declares a hook. What run(call, ctx) returns, by phase (nothing: no opinion, the next hook is asked):
---
---accept: a list of events instead of call.events. context: a list of messages, or { messages =, system = }.
---model: a model's name, or { reply = text or blocks }. permit: "allow"; "ask", why; "deny", why; "rewrite",
---input: the first decision wins. tools: another result, as a tool returns it: a value, or nil, err. settle: a text
---that the turn goes on with. idle: nothing. In all but permit and idle false, why refuses: the events get 403, the
---request fails, the result is withheld, the turn ends.
---@param o moonrig.HookOptions
---@return moonrig.HookOptions
local function hook(o)
  declare.keys("rig.hook", o, "phase name agent tool fail run")
  declare.check("rig.hook", o, "run", "function", true)
  for _, k in ipairs { "name", "tool" } do declare.check("rig.hook", o, k, "string") end
  if not answers[o.phase] and o.phase ~= "idle" then
    native.raise(("rig.hook: phase is accept, context, model, permit, tools, settle or idle, not %s"):format(
      tostring(o.phase)))
  end
  if o.tool and o.phase ~= "permit" and o.phase ~= "tools" then
    native.raise(("rig.hook: tool is for the phases permit and tools, not for %s"):format(o.phase))
  end
  if o.fail ~= nil and o.fail ~= "closed" and o.fail ~= "open" then
    native.raise("rig.hook: fail is \"closed\" or \"open\"")
  end
  local h = {}
  for k, v in pairs(o) do h[k] = v end
  if type(h.agent) == "table" then h.agent = h.agent.name end
  declare.add("hook", "rig.hook", h)
  return h
end

native.entry("hook", function(decl, call)
  local session = require "moonrig.session"
  local g = native.generation()
  local id = call.session_id or (type(call.session) == "string" and call.session) or nil
  if id then call.session = session.handle(id) end
  if decl.phase == "tools" then call.text = text_of(call.content) end
  local ctx = { generation = g.number, session = call.session, thread = call.thread_id }
  function ctx.log(...) native.log(2, "hook " .. (decl.name or decl.phase), context.words(ctx, ...)) end
  local value, detail = decl.run(call, ctx)
  if decl.phase == "idle" then return nil end
  if value == false and decl.phase ~= "permit" then
    return { refuse = detail ~= nil and tostring(detail) or "" }
  end
  if value == nil then
    if decl.phase ~= "tools" or detail == nil then return nil end
    return { content = tostring(detail), is_error = true }
  end
  return answers[decl.phase](value, detail)
end)

return hook
