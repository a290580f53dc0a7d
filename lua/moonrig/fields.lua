-- The fields of declared agents and environments: their names, and what is checked before their scripts become
-- current. The server checks everything again when it stores them; this finds typing errors at the reload.
local native = require "moonrig.native"
local schema = require "moonrig.schema"
local similar = require "moonrig.similar"

local M = {
  agent = "name description model system tools mcp_servers skills multiagent agents advisor execution_identity metadata",
  environment = "name description config scope metadata",
}

local toolset = { "bash", "read", "write", "edit", "glob", "grep", "web_fetch", "web_search" }
local limits = { name = 256, description = 2048, system = 100000 }

local function given(v) return v ~= nil and v ~= native.null end

local function is_tool(v)
  local mt = type(v) == "table" and getmetatable(v)
  return mt and mt.__name == "moonrig.tool"
end

---A tool of this name that the agent may use: its own before the one for all.
local function tool_named(g, name, agent)
  local found
  for _, d in ipairs(g.decls.tool) do
    local t = d.decl
    local of = type(t.agent) == "table" and (t.agent.name or t.agent.id) or t.agent
    if t.name == name and of == agent then return t end
    if t.name == name and of == nil then found = t end
  end
  return found
end

---agents and advisor as the API's multiagent. Entries are handles, ids, "self" or wire forms; named(name) finds the
---handle of another text, or gives nil.
---@param spec table
---@param named fun(name: string): any
function M.roster(spec, named)
  if type(spec.agents) ~= "table" and type(spec.advisor) ~= "string" or given(spec.multiagent) then return end
  if spec.agents ~= nil and (type(spec.agents) ~= "table" or getmetatable(spec.agents)) then return end
  local list = {}
  for k, a in pairs(spec.agents or {}) do
    if a == "self" then
      list[k] = { type = "self" }
    elseif type(a) == "string" and not a:find "^agent_" then
      list[k] = named(a) or a
    else
      list[k] = a
    end
  end
  if type(spec.advisor) == "string" then
    list[#list + 1] = { type = "advisor", model = spec.advisor }
    spec.advisor = nil
  end
  spec.multiagent, spec.agents = { type = "coordinator", agents = list }, nil
end

---Puts in what is meant by leaving it out: the default model, tools and agents given by name.
---@param g table
---@param kind "agent"|"environment"
---@param spec table
---@param defaults? { model: any }
function M.complete(g, kind, spec, defaults)
  if kind ~= "agent" then return end
  M.roster(spec, function(name)
    for _, d in ipairs(g.decls.agent) do
      if d.decl.name == name then return d.decl end
    end
  end)
  if spec.model == nil and defaults then spec.model = defaults.model end
  if type(spec.tools) ~= "table" then return end
  local tools = {}
  for k, v in pairs(spec.tools) do
    tools[k] = type(v) == "string" and tool_named(g, v, spec.name) or v
  end
  spec.tools = setmetatable(tools, getmetatable(spec.tools))
end

local function problem_of_toolset(at, t)
  if not given(t.configs) then return end
  if type(t.configs) ~= "table" then return at .. ".configs must be a list" end
  for i, c in ipairs(t.configs) do
    local name = type(c) == "table" and c.name
    local known = false
    for _, n in ipairs(toolset) do known = known or n == name end
    if not known then
      local close = similar(name, toolset)
      return ("%s.configs[%d]: the toolset has no %s%s (it has %s)"):format(at, i, tostring(name),
        close and ("; did you mean %s?"):format(close) or "", table.concat(toolset, ", "))
    end
  end
end

local function problem_of_tool(at, t)
  if type(t) == "string" then
    return ("%s: no tool %q is declared for this agent; declare it with rig.tool"):format(at, t)
  end
  if type(t) ~= "table" then return ("%s must be a tool, a name or a table, got %s"):format(at, type(t)) end
  if is_tool(t) then return end
  if type(t.type) ~= "string" then return at .. ".type is missing: \"custom\", \"mcp_toolset\", or use rig.toolset()" end
  if t.type:find "^agent_toolset_" then return problem_of_toolset(at, t) end
  if t.type ~= "custom" then return end
  if type(t.name) ~= "string" then return at .. ".name must be a string" end
  if type(t.description) ~= "string" then return at .. ".description must be a string: the model chooses by it" end
  local e = schema.problem(t.input_schema)
  return e and ("%s (%s): %s"):format(at, t.name, e)
end

local function problem_of_list(what, list, max, hole)
  if type(list) ~= "table" then return ("%s must be a list, got %s"):format(what, type(list)) end
  if #list > max then return ("%s: at most %d"):format(what, max) end
  for k in pairs(list) do
    if type(k) ~= "number" then return ("%s must be a list, it has a key %s"):format(what, tostring(k)) end
    if k ~= math.floor(k) or k < 1 or k > #list then return what .. " has a hole" .. hole end
  end
end

local function problem_of_tools(tools)
  local wrong = problem_of_list("tools", tools, 256, ": a tool by rig.tool \"name\" that is not declared is nil")
  if wrong then return wrong end
  local seen = {}
  for i, t in ipairs(tools) do
    local e = problem_of_tool(("tools[%d]"):format(i), t)
    if e then return e end
    local name = (is_tool(t) or t.type == "custom") and t.name
    if name and seen[name] then return ("tools: %s is there twice"):format(name) end
    if name then seen[name] = true end
  end
end

---What is left of agents and advisor was not understood (M.roster).
local function problem_of_roster(spec)
  if given(spec.multiagent) and (spec.agents ~= nil or spec.advisor ~= nil) then
    return "agents and advisor are the short form of multiagent; give one or the other"
  end
  if spec.agents ~= nil then return "agents must be a list of agents, got " .. type(spec.agents) end
  if spec.advisor ~= nil then return "advisor must be a model's name, got " .. type(spec.advisor) end
  local list = type(spec.multiagent) == "table" and spec.multiagent.type == "coordinator" and spec.multiagent.agents
  if not list then return end
  local e = problem_of_list("agents", list, 20, "")
  if e then return e end
  if #list == 0 then return "agents is empty, and a coordinator needs one; name an agent, or leave agents out" end
  for i, a in ipairs(list) do
    local handle = type(a) == "table" and rawget(a, "spec")
    if type(a) == "string" and not a:find "^agent_" then
      return ("agents[%d]: no agent %q is declared; declare it, or give rig.agent %q for one that only the server has"):format(i, a, a)
    elseif type(a) ~= "string" and type(a) ~= "table" then
      return ("agents[%d] must be an agent, a name or \"self\", got %s"):format(i, type(a))
    elseif handle and (given(handle.multiagent) or handle.agents or handle.advisor) then
      return ("agents[%d]: %s has agents itself, and agents delegate one level deep; name one without"):format(i, a.name)
    end
  end
end

local function problem_of_texts(spec)
  for key, max in pairs(limits) do
    local v = spec[key]
    if given(v) and type(v) ~= "string" then return ("%s must be a string, got %s"):format(key, type(v)) end
    if given(v) and #v > max then
      local _, characters = v:gsub("[^\128-\191]", "")
      if characters > max then return ("%s has %d characters; at most %d"):format(key, characters, max) end
    end
  end
end

local function problem_of_metadata(m)
  if type(m) ~= "table" then return "metadata must be a table, got " .. type(m) end
  for k, v in pairs(m) do
    if type(k) ~= "string" or type(v) ~= "string" then
      return ("metadata.%s must be a string, got %s"):format(tostring(k), type(v))
    end
  end
end

---@param kind "agent"|"environment"
---@param spec table
---@return string? problem
function M.problem(kind, spec)
  local e = problem_of_texts(spec)
  if e then return e end
  if spec.name == "" then return "name is empty" end
  if given(spec.metadata) then e = problem_of_metadata(spec.metadata) end
  if e or kind ~= "agent" then return e end
  local model = spec.model
  if type(model) == "table" then model = model.id end
  if type(model) ~= "string" or model == "" then
    return "model is missing: give model = \"...\" here, or rig.defaults { model = \"...\" } for all agents"
  end
  for _, key in ipairs { "mcp_servers", "skills", "multiagent", "execution_identity" } do
    if given(spec[key]) and type(spec[key]) ~= "table" then
      return ("%s must be a table, got %s"):format(key, type(spec[key]))
    end
  end
  return problem_of_roster(spec) or (given(spec.tools) and problem_of_tools(spec.tools)) or nil
end

return M
