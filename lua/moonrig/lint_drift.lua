-- What a start of these scripts would change on a server: declared agents and environments against stored ones.
local native = require "moonrig.native"

local M = {}

---Both as plain values, handles as what they are on the wire.
local function plain(v)
  local json = native.json_encode(v, false, true)
  return json and native.json_decode(json)
end

local function text(v)
  local json = native.json_encode(v)
  if not json then return tostring(v) end
  return #json <= 80 and json or json:sub(1, 77) .. "..."
end

---The first place where two values differ: its path and both values. The server fills in what the declaration
---leaves out; with whole nothing may be there besides.
local function difference(want, have, path, whole)
  if type(want) ~= "table" or type(have) ~= "table" or want == native.null or have == native.null then
    if want == have then return nil end
    return path, want, have
  end
  local keys = {}
  for k in pairs(want) do keys[#keys + 1] = k end
  for k in pairs(have) do
    if want[k] == nil and (whole or type(k) == "number") then return ("%s.%s"):format(path, tostring(k)), nil, have[k] end
  end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, k in ipairs(keys) do
    local at = type(k) == "number" and ("%s[%d]"):format(path, k) or ("%s.%s"):format(path, k)
    if have[k] == nil then return at, want[k], nil end
    local p, w, h = difference(want[k], have[k], at, whole)
    if p then return p, w, h end
  end
end

local function say(path, want, have)
  if have == nil then return ("%s is new: %s"):format(path, text(want)) end
  if want == nil then return ("%s would go: %s"):format(path, text(have)) end
  return ("%s would be %s, it is %s"):format(path, text(want), text(have))
end

local function tool_of(tools, name)
  for _, t in ipairs(type(tools) == "table" and tools or {}) do
    if t.type == "custom" and t.name == name then return t end
  end
end

---Custom tools of an agent whose stored version differs from the declaration; calls of sessions that run are
---checked against the stored one.
local function compare_tools(g, d, want, have, report)
  for _, t in ipairs(type(want.tools) == "table" and want.tools or {}) do
    local old = t.type == "custom" and tool_of(have.tools, t.name)
    local path, w, h
    if old then path, w, h = difference(t.input_schema, old.input_schema, "input_schema", true) end
    if path then
      local at = d
      for _, x in ipairs(g.decls.tool) do
        if x.decl.name == t.name then at = x end
      end
      report(at, "input_schema", "drift", ("tool %q differs from version %s of agent %q: %s"):format(t.name,
        tostring(have.version), d.decl.name, say(path, w, h)),
        "a start makes a new version of the agent; sessions that run keep the old one, so accept both inputs")
    end
  end
end

local fields = { agent = { "model", "description", "system", "tools", "mcp_servers", "skills", "multiagent", "metadata" },
  environment = { "description", "config", "metadata" } }

local function compare_one(kind, want, have)
  local list = {}
  for _, key in ipairs(fields[kind]) do
    local w, h = want[key], have[key]
    if h == native.null then h = nil end
    if key == "model" and type(w) == "string" and type(h) == "table" then h = h.id end
    if key == "model" and type(h) == "string" and type(w) == "table" then w = w.id end
    if w == nil and (h == "" or (type(h) == "table" and next(h) == nil)) then h = nil end
    if key == "model" and w == nil or (w == native.null and h == nil) then h, w = nil, nil end
    local path, a, b = difference(w, h, key, key == "metadata")
    if path then list[#list + 1] = say(path, a, b) end
  end
  return list
end

---A declared agent with its roster as the server shows it, agents by the ids of those that are stored.
local function with_roster(spec, have, stored)
  local many = type(spec.multiagent) == "table" and spec.multiagent.agents
  if type(many) ~= "table" then return spec end
  local copy, list = {}, {}
  for i, m in ipairs(many) do
    local id = type(m) == "string" and m or (m.type == "self" and have.id) or nil
    for _, o in ipairs(stored) do
      if type(m) == "table" and getmetatable(m) and o.name == m.name then id = o.id end
    end
    list[i] = id and { type = "agent", id = id } or (getmetatable(m) and m.name or m)
  end
  for k, v in pairs(spec) do copy[k] = v end
  copy.multiagent = { type = spec.multiagent.type, agents = list }
  return copy
end

---@param g table
---@param stored { agents?: table[], environments?: table[] }
---@param report fun(d: table, key: string, rule: string, message: string, fix: string)
---@return table[] changes { kind, name, change = "create"|"update", fields = { text } }
function M.compare(g, stored, report)
  local changes = {}
  for kind, list in pairs { agent = stored.agents or {}, environment = stored.environments or {} } do
    for _, d in ipairs(g.decls[kind]) do
      local have
      for _, o in ipairs(list) do
        if o.name == d.decl.name and (o.archived_at == nil or o.archived_at == native.null) then have = o end
      end
      local spec = d.decl.spec
      if kind == "agent" and have then spec = with_roster(spec, have, list) end
      local want = plain(spec) or {}
      if not have then
        changes[#changes + 1] = { kind = kind, name = d.decl.name, change = "create" }
      else
        if kind == "agent" then compare_tools(g, d, want, have, report) end
        local what = compare_one(kind, want, have)
        if what[1] then changes[#changes + 1] = { kind = kind, name = d.decl.name, change = "update", fields = what } end
      end
    end
  end
  table.sort(changes, function(a, b) return a.kind .. a.name < b.kind .. b.name end)
  return changes
end

return M
