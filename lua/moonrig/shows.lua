-- How a chat shows events: a line for a tool call, one for a result, text as it comes. Keeps in the chat what it needs
-- from one event to the next: what was streamed, tokens used.
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

local function tool_line(chat, ev)
  local server = ev.mcp_server_name and ev.mcp_server_name .. "/" or ""
  chat.term:line(chat.term:cut(("* %s%s %s"):format(server, tostring(ev.name), input_text(ev))), "cyan")
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
    if not chat.term.fresh then chat.term:put "\n" end -- the one before was given up
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
  if not chat.term.fresh then chat.term:put "\n" end
end

kinds["agent.tool_use"], kinds["agent.mcp_tool_use"], kinds["agent.custom_tool_use"] = tool_line, tool_line, tool_line
kinds["agent.tool_result"], kinds["agent.mcp_tool_result"] = result_line, result_line
kinds["user.custom_tool_result"], kinds["user.tool_result"] = result_line, result_line

kinds["user.message"] = function(chat, ev)
  if chat.own[ev.id] then return end -- else of another client, or of before
  chat.term:line("> " .. chat.term:cut(text_of(ev.content), chat.term.width - 3), "bold")
end
kinds["user.tool_confirmation"] = function(chat, ev)
  if ev.result == "deny" and not chat.own[ev.id] then
    chat.term:line(chat.term:cut("  denied: " .. tostring(ev.deny_message or "")), "dim")
  end
end
kinds["user.interrupt"] = function(chat) chat.term:line("(interrupted)", "dim") end
kinds["session.error"] = function(chat, ev)
  chat.term:line("! " .. term.clean(ev.error and ev.error.message or "an error"), "red")
end
kinds["session.status_terminated"] = function(chat) chat.term:line("(the session has ended)", "dim") end
kinds["session.deleted"] = kinds["session.status_terminated"]
kinds["span.model_request_end"] = function(chat, ev)
  for k, v in pairs(ev.model_usage or {}) do
    if type(v) == "number" then chat.usage[k] = (chat.usage[k] or 0) + v end
  end
end

local M = { text = text_of, input = input_text }

---Shows an event, if it is one that people want to see.
---@param chat table its term, own, streamed, usage
---@param ev table
function M.event(chat, ev)
  if kinds[ev.type] then kinds[ev.type](chat, ev) end
end

return M
