-- What the test kit compares with: values in depth, and the order of events; each with a difference to read.
local native = require "moonrig.native"

local M = {}
local LINES = 30

---A value as text on one line.
function M.show(v)
  if type(v) == "string" then return ("%q"):format(v):gsub("\\\n", "\\n") end
  if type(v) == "table" and not (getmetatable(v) or {}).__tostring then
    local ok, text = pcall(native.json_encode, v)
    if ok and text then return #text > 400 and text:sub(1, 400) .. "..." or text end
  end
  return tostring(v)
end

local function keys_of(a, b)
  local seen, list = {}, {}
  for _, t in ipairs { a, b } do
    for k in pairs(t) do
      if not seen[k] then
        seen[k] = true
        list[#list + 1] = k
      end
    end
  end
  table.sort(list, function(x, y)
    if type(x) == type(y) and (type(x) == "number" or type(x) == "string") then return x < y end
    return tostring(x) < tostring(y)
  end)
  return list
end

local function walk(got, want, path, out, seen)
  if got == want or #out >= LINES then return end
  if type(got) ~= "table" or type(want) ~= "table" or seen[got] == want then
    local at = path == "" and "" or path .. ": "
    if got == nil then
      out[#out + 1] = ("%smissing; %s is expected"):format(at, M.show(want))
    elseif want == nil then
      out[#out + 1] = ("%s%s is not expected"):format(at, M.show(got))
    else
      out[#out + 1] = ("%s%s is not %s"):format(at, M.show(got), M.show(want))
    end
    return
  end
  seen[got] = want
  for _, k in ipairs(keys_of(got, want)) do
    local step = type(k) == "string" and k:find "^[%a_][%w_]*$" and "." .. k or ("[%s]"):format(M.show(k))
    walk(got[k], want[k], path .. step, out, seen)
  end
  seen[got] = nil
end

---The differences as lines; none when equal in depth.
---@return string[]
function M.values(got, want)
  local out = {}
  walk(got, want, "", out, {})
  if #out >= LINES then out[#out + 1] = "..." end
  return out
end

---Does value have all that part has, in depth?
function M.has(value, part)
  if type(part) ~= "table" or type(value) ~= "table" then return value == part end
  for k, v in pairs(part) do
    if not M.has(value[k], v) then return false end
  end
  return true
end

-- --------------------------------------------------------------------------------------------- events

-- Not compared unless the expectation names them: they say that work goes on, not what was done.
local quiet = { ["session.status_running"] = true, ["session.usage"] = true, ["agent.thinking"] = true }

local function is_quiet(kind)
  return quiet[kind] or kind:find "^span%." ~= nil or kind:find "^session%.thread_" ~= nil
end

local any_use = { ["agent.custom_tool_use"] = true, ["agent.mcp_tool_use"] = true }
local any_result = { ["user.custom_tool_result"] = true, ["agent.mcp_tool_result"] = true, ["user.tool_result"] = true }

---"agent.tool_use" is the use of any tool, "agent.tool_result" any result.
local function type_matches(kind, want)
  return kind == want or (want == "agent.tool_use" and any_use[kind]) or
    (want == "agent.tool_result" and any_result[kind]) or false
end

local function event_matches(ev, want)
  if type(want) == "string" then return type_matches(ev.type, want) end
  for k, v in pairs(want) do
    if k == "type" then
      if not type_matches(ev.type, v) then return false end
    elseif not M.has(ev[k], v) then
      return false
    end
  end
  return true
end

---How far the expectation comes: true, or the furthest (index of event, index of expectation).
local function match(events, want)
  local best_e, best_w, dead = 1, 1, {} -- dead: pairs that were tried in vain
  local try
  local function from(i, k)
    if k > best_w or (k == best_w and i > best_e) then best_e, best_w = i, k end
    if k > #want then return i > #events end
    if want[k] == "..." then
      for j = i, #events + 1 do
        if try(j, k + 1) then return true end
      end
      return false
    end
    return i <= #events and event_matches(events[i], want[k]) and try(i + 1, k + 1)
  end
  function try(i, k)
    local key = i * (#want + 2) + k
    if dead[key] then return false end
    local ok = from(i, k)
    dead[key] = not ok
    return ok
  end
  if try(1, 1) then return true end
  return false, best_e, best_w
end

---An event on one line.
function M.event(ev)
  local detail = ev.name and ev.name .. " " .. M.show(ev.input) or ev.stop_reason and M.show(ev.stop_reason)
    or ev.error and M.show(ev.error) or ev.content and M.show(ev.content) or ev.result and M.show(ev.result)
  return ev.type .. (detail and "  " .. detail:sub(1, 160) or "")
end

---nil when the events are as expected, else what is different, in lines.
---@param events table[]
---@param want (string|table)[] types, or tables of what the event must have; "..." is any number of events
function M.events(events, want)
  local named, seen = {}, {}
  for _, w in ipairs(want) do named[type(w) == "table" and w.type or w] = true end
  for _, ev in ipairs(events) do
    if named[ev.type] or not is_quiet(ev.type) then seen[#seen + 1] = ev end
  end
  local ok, e, w = match(seen, want)
  if ok then return nil end
  local out = { ("expected next: %s"):format(want[w] and M.show(want[w]) or "nothing more") }
  for i, ev in ipairs(seen) do out[#out + 1] = (i == e and "> " or "  ") .. M.event(ev) end
  if e > #seen then out[#out + 1] = "> (the end)" end
  return out
end

return M
