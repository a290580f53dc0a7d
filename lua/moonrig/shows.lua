-- How events are shown to people. In a talk: a line for a tool call, one for a result, text as it comes; what it needs
-- from one event to the next is kept in the talk: what was streamed, tokens used, names of threads. And any event in
-- one line, for lists.
local json = require "moonrig.json"
local term = require "moonrig.term"

local function text_of(content)
  if type(content) == "string" then return content end
  local parts = {}
  for _, b in ipairs(type(content) == "table" and content or {}) do
    parts[#parts + 1] = b.type == "text" and b.text or "[" .. tostring(b.type) .. "]"
  end
  return table.concat(parts, "\n")
end

local function input_text(ev)
  return ev.input and json.encode(ev.input) or ""
end

---"[reviewer] " of what a child thread does.
local function label(chat, ev)
  local id = ev.session_thread_id
  local name = id and (chat.threads or {})[id]
  return name and ("[%s] "):format(name) or ""
end

local function tool_line(chat, ev)
  local server = ev.mcp_server_name and ev.mcp_server_name .. "/" or ""
  chat.term:line(chat.term:cut(("* %s%s%s %s"):format(label(chat, ev), server, tostring(ev.name), input_text(ev))), "cyan")
end

local function result_line(chat, ev)
  local text = text_of(ev.content)
  local lines = select(2, text:gsub("\n", "\n")) + 1
  local more = lines > 1 and (" (%d lines)"):format(lines) or ""
  local mark = ev.is_error and "  ! " or "  = "
  if text == "" then text = "(empty)" end
  chat.term:line(mark .. chat.term:cut(text, chat.term.width - 6 - #more) .. more, ev.is_error and "red" or "dim")
end

local kinds = {}

function kinds.event_start(chat, ev)
  if ev.event and ev.event.type == "agent.message" then
    chat.term:begin_line() -- the one before was given up
    chat.streamed = { id = ev.event.id, text = "" }
  end
end

function kinds.event_delta(chat, ev)
  local text = ev.delta and ev.delta.content and ev.delta.content.text
  if not text then return end
  if not chat.streamed or chat.streamed.id ~= ev.event_id then chat.streamed = { id = ev.event_id, text = "" } end
  chat.streamed.text = chat.streamed.text .. text
  chat.term:put(term.clean(text))
end

kinds["agent.message"] = function(chat, ev)
  local text, seen = text_of(ev.content), chat.streamed and chat.streamed.id == ev.id and chat.streamed.text or ""
  chat.streamed = nil
  if text:sub(1, #seen) ~= seen then
    chat.term:line ""
    seen = ""
  end
  chat.term:put(term.clean(text:sub(#seen + 1)))
  chat.term:begin_line()
end

kinds["agent.tool_use"], kinds["agent.mcp_tool_use"], kinds["agent.custom_tool_use"] = tool_line, tool_line, tool_line
kinds["agent.tool_result"], kinds["agent.mcp_tool_result"] = result_line, result_line
kinds["user.custom_tool_result"], kinds["user.tool_result"] = result_line, result_line

kinds["user.message"] = function(chat, ev)
  if chat.own[ev.id] then return end -- else of another client, or of before
  chat.term:line("> " .. chat.term:cut(text_of(ev.content), chat.term.width - 3), "bold")
end
kinds["user.tool_confirmation"] = function(chat, ev)
  if chat.own[ev.id] then return end -- of another client
  local denied = "denied: " .. tostring(ev.deny_message or "")
  chat.term:line(chat.term:cut("  " .. label(chat, ev) .. (ev.result == "deny" and denied or "allowed")), "dim")
end
kinds["user.interrupt"] = function(chat) chat.term:line("(interrupted)", "dim") end
kinds["session.error"] = function(chat, ev)
  local e = ev.error or {}
  local again = e.retry_status and e.retry_status.type == "retrying" and " (it is tried again)" or ""
  chat.term:line("! " .. term.clean(e.message or "an error") .. again, "red")
end

-- What happens around the talk: a line each.
local function said(text)
  return function(chat, ev)
    local line = text
    if type(text) == "function" then line = text(chat, ev) end
    if line then chat.term:line(chat.term:cut(line), "dim") end
  end
end

---A child thread's status; the primary's is the session's.
local function thread_status(text)
  return said(function(chat, ev)
    if label(chat, ev) == "" then return nil end
    local why = ev.stop_reason and ev.stop_reason.type
    return label(chat, ev) .. text .. (why and why ~= "end_turn" and (" (%s)"):format(why) or "")
  end)
end

kinds["session.thread_created"] = said(function(chat, ev)
  return ("+ thread %s (%s)"):format(tostring(ev.agent_name), tostring(ev.session_thread_id))
end)
kinds["session.thread_status_running"] = thread_status "runs"
kinds["session.thread_status_idle"] = thread_status "rests"
kinds["session.thread_status_rescheduled"] = thread_status "is tried again later"
kinds["session.thread_status_terminated"] = thread_status "is over"
kinds["agent.thread_message_sent"] = said(function(_, ev)
  return ("> %s: %s"):format(tostring(ev.to_agent_name or "the first thread"), text_of(ev.content))
end)
kinds["agent.thread_message_received"] = said(function(_, ev)
  return ("< %s: %s"):format(tostring(ev.from_agent_name or "the first thread"), text_of(ev.content))
end)
kinds["agent.thread_context_compacted"] = said "(the history was summed up)"
kinds["span.outcome_evaluation_start"] = said(function(_, ev)
  return ("(graded, iteration %s)"):format(tostring(ev.iteration))
end)
kinds["span.outcome_evaluation_end"] = said(function(_, ev)
  return ("(outcome: %s: %s)"):format(tostring(ev.result), tostring(ev.explanation or ""))
end)
kinds["session.updated"] = said(function(_, ev)
  local what = {}
  for _, k in ipairs { "agent", "budget", "metadata", "title" } do
    if ev[k] ~= nil then what[#what + 1] = k end
  end
  return ("(changed: %s)"):format(table.concat(what, ", "))
end)
kinds["session.status_terminated"] = function(chat) chat.term:line("(the session has ended)", "dim") end
kinds["session.deleted"] = kinds["session.status_terminated"]
kinds["span.model_request_end"] = function(chat, ev)
  for k, v in pairs(ev.model_usage or {}) do
    if type(v) == "number" then chat.usage[k] = (chat.usage[k] or 0) + v end
  end
end

local M = { text = text_of, input = input_text, thread = label }

-- Of other types: the content, or nothing.
local abouts = {}
local function of_use(ev) return ("%s %s"):format(tostring(ev.name), input_text(ev)) end
abouts["agent.tool_use"], abouts["agent.mcp_tool_use"], abouts["agent.custom_tool_use"] = of_use, of_use, of_use
abouts["session.error"] = function(ev)
  local e = ev.error or {}
  return ("%s: %s (%s)"):format(tostring(e.type), tostring(e.message), tostring((e.retry_status or {}).type))
end
abouts["session.thread_created"] = function(ev) return tostring(ev.agent_name) end
abouts["session.usage"] = function(ev)
  local u = ev.usage or {}
  return ("%s in, %s out"):format(tostring(u.input_tokens), tostring(u.output_tokens))
end
abouts["span.model_request_end"] = function(ev)
  local u = ev.model_usage or {}
  return ("%s in, %s out%s"):format(tostring(u.input_tokens), tostring(u.output_tokens), ev.is_error and ", failed" or "")
end
abouts["user.tool_confirmation"] = function(ev)
  return ev.result .. (ev.deny_message and ": " .. ev.deny_message or "")
end
abouts["span.outcome_evaluation_end"] = function(ev) return ("%s: %s"):format(tostring(ev.result), tostring(ev.explanation)) end

---An event in one line, not cut: when, type, what about.
---@param ev table
---@return string
function M.line(ev)
  local about = abouts[ev.type] and abouts[ev.type](ev) or ev.content and text_of(ev.content)
    or ev.stop_reason and ev.stop_reason.type or ""
  if ev.is_error and ev.content then about = "failed: " .. about end
  local name = (ev.type:find "thread_status" or ev.type:find "thread_message")
    and (ev.agent_name or ev.to_agent_name or ev.from_agent_name)
  local at = tostring(ev.processed_at or "waits"):gsub("%.%d+Z$", "Z")
  return ("%-20s  %-28s %s%s"):format(at, ev.type, name and ("[%s] "):format(name) or "", about)
end

---Shows an event, if it is one that people want to see.
---@param chat table its term, own, streamed, usage
---@param ev table
function M.event(chat, ev)
  if kinds[ev.type] then kinds[ev.type](chat, ev) end
end

return M
