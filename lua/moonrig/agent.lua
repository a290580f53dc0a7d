-- rig.agent and rig.environment: declared ones are created or updated when their generation becomes
-- current; a name or id looks one up. On a client of another runtime (M.new) nothing is declared: a table creates or
-- updates at once.
local native = require "moonrig.native"
local api = require "moonrig.api"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local fields = require "moonrig.fields"
local wait = require "moonrig.wait"

local M = {}
local join = wait(native.join)

---@class moonrig.Agent a handle: goes where an agent or its id goes
---@field name string
---@field id? string    once it is upserted
local Agent = { __mr = "id", __name = "moonrig.agent" }
---@class moonrig.Environment a handle
---@field name string
---@field id? string
local Environment = { __mr = "id", __name = "moonrig.environment" }

local kinds = {
  agent = { list = "agents.list", create = "agents.create", update = "agents.update", key = "agent_id",
    prefix = "^agent_", mt = Agent },
  environment = { list = "environments.list", create = "environments.create", update = "environments.update",
    key = "environment_id", prefix = "^env_", mt = Environment },
}

---All objects of this kind, from the server, as name to list; or only those of one name.
local function by_name(transport, kind, only)
  local k, found, page = kinds[kind], {}, nil
  repeat
    local p, e = transport.call(k.list, { limit = 100, page = page })
    if not p then return nil, e end
    for _, o in ipairs(p.data) do
      if o.name == only or not only then
        found[o.name] = found[o.name] or {}
        table.insert(found[o.name], o)
      end
    end
    page = p.next_page
  until not page
  return found
end

local function ambiguous(kind, name, found)
  local ids = {}
  for i, o in ipairs(found) do ids[i] = o.id end
  return err.new("invalid_request_error",
    ("%d %ss are named %q: %s; give the id"):format(#found, kind, name, table.concat(ids, ", ")))
end

local function one(transport, kind, name)
  local all, e = by_name(transport, kind, name)
  if not all then return nil, e end
  local found = all[name] or {}
  if #found == 0 then return nil, err.new("not_found_error", ("no %s is named %q"):format(kind, name)) end
  if #found > 1 then return nil, ambiguous(kind, name, found) end
  return found[1]
end

local function resolve_handle(kind, h)
  if not h.id and not h.err and h.spec and not h.transport then
    local g = native.generation()
    if g and g.starting and native.current() ~= g.starting then join(g.starting) end
  end
  if h.id then return h.id end
  if h.err then return nil, h.err end
  local o, e = one(h.transport or api, kind, h.name)
  if not o then return nil, e end
  h.id = o.id
  return h.id
end

---The id of a handle at a transport; a handle of another runtime is found there by its name.
local function resolve_at(kind, h, transport)
  if (h.transport or api) == (transport or api) then return resolve_handle(kind, h) end
  local o, e = one(transport or api, kind, h.name)
  if not o then return nil, e end
  return o.id
end

function Agent.resolve(h, transport) return resolve_at("agent", h, transport) end
function Environment.resolve(h, transport) return resolve_at("environment", h, transport) end

---The id of a handle, an id, a name or a wire object.
---@return string? id
---@return moonrig.Error? err
function M.id(kind, x)
  local k = kinds[kind]
  if type(x) == "table" then
    if getmetatable(x) == k.mt then return resolve_handle(kind, x) end
    if type(x.id) == "string" then return x.id end
  elseif type(x) == "string" then
    if x:find(k.prefix) then return x end
    local g = native.generation()
    for _, d in ipairs(g and g.decls[kind] or {}) do
      if d.decl.name == x then return resolve_handle(kind, d.decl) end
    end
    local o, e = one(api, kind, x)
    if not o then return nil, e end
    return o.id
  end
  err.misuse("an %s is a handle, an id or a name; got %s", kind, type(x))
end

local function singular(kind)
  local k, what = kinds[kind], "rig." .. kind
  return function(o)
    if type(o) == "string" then
      local g, loading = native.generation()
      for _, d in ipairs(g and g.decls[kind] or {}) do
        if d.decl.name == o then return d.decl end
      end
      if loading then return setmetatable({ name = o, id = o:find(k.prefix) and o or nil }, k.mt) end
      if o:find(k.prefix) then return api.call((k.list:gsub("list$", "retrieve")), { [k.key] = o }) end
      return one(api, kind, o)
    end
    if type(o) ~= "table" then err.misuse("%s takes a table or a name, got %s", what, type(o)) end
    local g = native.generation()
    local folder = kind == "agent" and g and g.folder or nil -- in an agent's folder its name is the default
    local spec = { name = folder and folder.name }
    for key, v in pairs(o) do spec[key] = v end
    declare.keys(what, spec, fields[kind])
    declare.check(what, spec, "name", "string", true)
    local h = setmetatable({ name = spec.name, spec = spec }, k.mt)
    declare.add(kind, what, h)
    return h
  end
end

---@class moonrig.AgentOptions fields of the API; what is left out is cleared
---@field name string      1 to 256 characters
---@field model? string|table  a name, or { id =, ... }; default that of rig.defaults
---@field description? string
---@field system? string
---@field tools? (moonrig.Tool|table|string)[] handles, rig.toolset(), names of tools of these scripts, wire objects
---@field mcp_servers? table[]
---@field skills? table[]
---@field agents? (moonrig.Agent|string|table)[] whom it may delegate to: handles, names of agents of these scripts, ids, "self"
---@field advisor? string    a model that it may ask for advice
---@field multiagent? table  those two in the API's own form
---@field execution_identity? table
---@field metadata? table<string, string>

---@class moonrig.EnvironmentOptions
---@field name string
---@field description? string
---@field config? table
---@field scope? string
---@field metadata? table<string, string>

---@class moonrig.ToolsetOptions
---@field [integer] string only these tools; without any: all
---@field ask? string[]    a call of these asks first
---@field allow? string[]  a call of these never asks
---@field off? string[]    not these

---Declares an agent (name, model, system, tools = { handles or wire objects }, ...), or looks one up.
---@type fun(o: moonrig.AgentOptions|string): moonrig.Agent?, moonrig.Error?
M.agent = singular "agent"
---@type fun(o: moonrig.EnvironmentOptions|string): moonrig.Environment?, moonrig.Error?
M.environment = singular "environment"

---The built-in toolset as an entry of an agent's tools.
---rig.toolset() all of it; rig.toolset{ "read", "bash" } only these; ask = { "bash" } asks before these,
---off = { "web_search" } leaves these out.
---@param o? moonrig.ToolsetOptions
---@return table
function M.toolset(o)
  local t, configs = { type = "agent_toolset_20260401" }, {}
  if o == nil then return t end
  if type(o) ~= "table" then err.misuse("rig.toolset takes a table, got %s", type(o)) end
  for k in pairs(o) do
    if type(k) ~= "number" and k ~= "ask" and k ~= "off" and k ~= "allow" then
      err.misuse("rig.toolset: unknown option %s (known: a list of names, ask, allow, off)", tostring(k))
    end
  end
  local by_name, order = {}, {}
  local function config(name)
    if type(name) ~= "string" then err.misuse("rig.toolset: tool names are strings, got %s", type(name)) end
    if not by_name[name] then
      by_name[name] = { name = name }
      order[#order + 1] = by_name[name]
    end
    return by_name[name]
  end
  if #o > 0 then t.default_config = { enabled = false } end
  for _, name in ipairs(o) do config(name).enabled = true end
  for _, name in ipairs(o.off or {}) do config(name).enabled = false end
  for _, name in ipairs(o.ask or {}) do config(name).permission_policy = { type = "always_ask" } end
  for _, name in ipairs(o.allow or {}) do config(name).permission_policy = { type = "always_allow" } end
  for _, name in ipairs(o.ask or {}) do
    if #o > 0 then config(name).enabled = true end
  end
  for i, c in ipairs(order) do configs[i] = c end
  if #configs > 0 then t.configs = configs end
  return t
end

-- What a declaration that leaves them out does not have; the server keeps what an update leaves out.
local cleared = { agent = { "description", "system", "tools", "mcp_servers", "skills", "multiagent" },
  environment = { "description" } }

local function changes(kind, spec, wire)
  local fields = {}
  for _, key in ipairs(cleared[kind]) do
    if wire[key] ~= nil then fields[key] = native.null end
  end
  for key, v in pairs(spec) do fields[key] = v end
  if type(spec.metadata) == "table" then
    fields.metadata = {}
    for key in pairs(wire.metadata or {}) do fields.metadata[key] = native.null end
    for key, v in pairs(spec.metadata) do fields.metadata[key] = v end
  end
  fields[kinds[kind].key] = wire.id
  return fields
end

---Agents that a coordinator names by handles of agents that others made get their ids.
local function find_members(transport, spec)
  local many = type(spec.multiagent) == "table" and spec.multiagent.agents
  for _, m in ipairs(type(many) == "table" and many or {}) do
    if type(m) == "table" and getmetatable(m) == Agent and not m.id then
      local id, e = resolve_at("agent", m, transport)
      if not id then return nil, e end
      m.id = id
    end
  end
  return true
end

local function upsert(transport, kind, h, all)
  local found_all, missing = find_members(transport, h.spec)
  if not found_all then return nil, missing end
  local k, found = kinds[kind], all[h.name] or {}
  if #found > 1 then return nil, ambiguous(kind, h.name, found) end
  if #found == 0 then return transport.call(k.create, h.spec) end
  return transport.call(k.update, changes(kind, h.spec, found[1])) -- makes no new version if nothing changed
end

---Those that others delegate to come first.
local function in_order(decls)
  local list = {}
  for _, last in ipairs { false, true } do
    for _, d in ipairs(decls) do
      local m = d.decl.spec.multiagent
      if (m ~= nil and m ~= native.null) == last then list[#list + 1] = d end
    end
  end
  return list
end

local function upsert_all(kind, decls, failures)
  if #decls == 0 then return end
  local all, why = by_name(api, kind)
  for _, d in ipairs(in_order(decls)) do
    local h, o, e = d.decl, nil, why
    if all then
      local ok
      ok, o, e = pcall(upsert, api, kind, h, all)
      if not ok then
        if native.cancelled() then error(o, 0) end
        o, e = nil, err.new("invalid_request_error", err.text(o))
      end
    end
    if o then
      h.id, h.err = o.id, nil
    else
      h.err = e
      failures[#failures + 1] = ("%s: %s %q: %s"):format(d.where, kind, h.name, err.text(e))
    end
  end
end

---Creates or updates what the generation declares, in order. Runs as the generation's start task.
function M.start(g)
  local failures = {}
  upsert_all("environment", g.decls.environment, failures)
  upsert_all("agent", g.decls.agent, failures)
  for _, f in ipairs(failures) do native.log(0, "script", f) end
  if failures[1] then native.failed(failures[1]) end
end

-- -------------------------------------------------------------------------------------------- other runtimes

---agent, environment and id of a client of another runtime.
---@param transport moonrig.Transport
function M.new(transport)
  local c = {}

  ---The id of a handle, an id, a name or a wire object there. A handle declared here is found there by its name.
  function c.id(kind, x)
    local k = kinds[kind]
    if type(x) == "table" and getmetatable(x) == k.mt then return resolve_at(kind, x, transport) end
    if type(x) == "table" and type(x.id) == "string" then return x.id end
    if type(x) ~= "string" then err.misuse("an %s is a handle, an id or a name; got %s", kind, type(x)) end
    if x:find(k.prefix) then return x end
    local o, e = one(transport, kind, x)
    if not o then return nil, e end
    return o.id
  end

  for kind, k in pairs(kinds) do
    local what = "client." .. kind
    c[kind] = function(o)
      if type(o) == "string" then
        if o:find(k.prefix) then return transport.call((k.list:gsub("list$", "retrieve")), { [k.key] = o }) end
        return one(transport, kind, o)
      end
      if type(o) ~= "table" then err.misuse("%s takes a table or a name, got %s", what, type(o)) end
      declare.check(what, o, "name", "string", true)
      local all, e = by_name(transport, kind, o.name)
      if not all then return nil, e end
      local spec = {}
      for key, v in pairs(o) do spec[key] = v end
      if kind == "agent" then
        fields.roster(spec, function(name) return setmetatable({ name = name, transport = transport }, Agent) end)
      end
      local h, wire = setmetatable({ name = o.name, spec = spec, transport = transport }, k.mt), nil
      wire, e = upsert(transport, kind, h, all)
      if not wire then return nil, e end
      h.id = wire.id
      return h
    end
  end
  return c
end

return M
