-- What core/script calls: a generation's begin, its check and plan, its start, rig.main.
local native = require "moonrig.native"
local env = require "moonrig.env"
local fields = require "moonrig.fields"
local folder = require "moonrig.folder"
local reload = require "moonrig.reload"
local schema = require "moonrig.schema"
local err = require "moonrig.err"
local rig = require "moonrig"

native.entry("begin", function(g)
  g.decls = { tool = {}, agent = {}, environment = {}, hook = {}, on = {}, provider = {}, route = {}, schedule = {},
    check = {}, state = {}, defaults = {} }
  g.states, g.undo, g.folders = {}, {}, {}
  g.env = env.new(g, rig)
end)

native.entry("folder", folder.load)

-- ------------------------------------------------------------------------------------------------- plan

local function fail(where, ...)
  error(where .. ": " .. string.format(...), 0)
end

local function unique(seen, key, d, what, name)
  if seen[key] then
    fail(d.where, "%s %sis declared twice; the other one is at %s", what, name and ("%q "):format(name) or "", seen[key])
  end
  seen[key] = d.where
end

---Calls fn(d, i) for each declaration; when scripts are only checked, goes on after a wrong one.
local function each(g, kind, fn)
  for i, d in ipairs(g.decls[kind]) do
    if g.lint then
      g.lint(d, fn, i)
    else
      fn(d, i)
    end
  end
end

local function agent_of(t)
  if type(t.agent) == "table" then return t.agent.name or t.agent.id end
  return t.agent
end

local function plan_tool(g, plan, seen, d)
  local t = d.decl
  if not t.name:find "^[%w_%-]+$" or #t.name > 128 then
    fail(d.where, "tool name %q: letters, digits, _ and -, at most 128", t.name)
  end
  local agent = agent_of(t) or ""
  if type(agent) ~= "string" or #agent > 256 then fail(d.where, "tool %q: agent is a name or an id", t.name) end
  unique(seen, t.name .. "\n" .. agent, d, "tool", t.name)
  local problem = schema.problem(t.input_schema)
  if problem then fail(d.where, "tool %q: %s", t.name, problem) end
  local ok, json, e = pcall(schema.json, t.input_schema)
  if not ok or not json then fail(d.where, "tool %q: input_schema: %s", t.name, err.text(ok and e or json)) end
  if t.timeout and not (t.timeout > 0 and t.timeout <= 86400) then
    fail(d.where, "tool %q: timeout is seconds, more than 0, at most 86400", t.name)
  end
  if t.concurrency and not (t.concurrency >= 1 and t.concurrency <= 10000) then
    fail(d.where, "tool %q: concurrency is from 1 to 10000", t.name)
  end
  if t.answered_by ~= nil and t.answered_by ~= "client" then
    fail(d.where, "tool %q: answered_by is \"client\" or left out", t.name)
  end
  g.tools_by_key[t.name .. "\n" .. agent] = t
  plan.tools[#plan.tools + 1] = {
    name = t.name, agent = agent, description = t.description, schema = json,
    timeout_ms = t.timeout and math.ceil(t.timeout * 1000) or 0, concurrency = t.concurrency or 0,
    flags = (t.idempotent and 1 or 0) + (t.answered_by == "client" and 2 or 0),
  }
end

local function plan_tools(g, plan)
  local seen = {}
  g.tools_by_key = {}
  each(g, "tool", function(d) plan_tool(g, plan, seen, d) end)
end

local function plan_hooks(g, plan)
  g.hooks = {}
  each(g, "hook", function(d, i)
    local h = d.decl
    g.hooks[i] = h
    local name = h.name or (h.phase .. " at " .. d.where)
    local filter = native.json_encode { agent = h.agent, tool = h.tool, name = name }
    plan.hooks[i] = { phase = h.phase, filter = filter, name = name,
      fail_closed = h.fail == "closed" and 1 or 0 }
  end)
end

local function plan_watchers(g, plan)
  local seen = {}
  g.on_by_name = {}
  each(g, "on", function(d, i)
    local w = d.decl
    unique(seen, w.name, d, "watcher", w.name)
    g.on_by_name[w.name] = w
    plan.watchers[i] = { name = w.name, events = native.json_encode(w.events), agent = w.agent,
      durable = w.durable and 1 or 0 }
  end)
end

local function plan_providers(g, plan)
  local seen = {}
  g.providers_by_name = {}
  each(g, "provider", function(d, i)
    unique(seen, d.decl.name, d, "provider", d.decl.name)
    g.providers_by_name[d.decl.name] = d.decl
    plan.providers[i] = { name = d.decl.name, models = d.decl.models }
    plan.provider_names[d.decl.name] = true
  end)
end

local function plan_agents(g)
  local seen, defaults = {}, nil
  each(g, "defaults", function(d)
    unique(seen, "", d, "rig.defaults")
    defaults = d.decl
  end)
  for _, kind in ipairs { "agent", "environment" } do
    seen = {}
    each(g, kind, function(d) unique(seen, d.decl.name, d, kind, d.decl.name) end)
    each(g, kind, function(d)
      fields.complete(g, kind, d.decl.spec, defaults)
      local problem = fields.problem(kind, d.decl.spec)
      if problem then fail(d.where, "%s %q: %s", kind, d.decl.name, problem) end
    end)
  end
end

local function plan_schedules(g)
  local seen = {}
  each(g, "schedule", function(d) unique(seen, d.decl.name, d, "schedule", d.decl.name) end)
end

native.entry("validate", function(g)
  local plan = { tools = {}, hooks = {}, watchers = {}, providers = {}, provider_names = {} }
  plan_tools(g, plan)
  plan_hooks(g, plan)
  plan_watchers(g, plan)
  plan_providers(g, plan)
  require("moonrig.route").plan(g, plan)
  plan_schedules(g)
  plan_agents(g)
  if not g.lint then reload.run_checks(g) end
  return plan
end)

-- ------------------------------------------------------------------------------------------------ tasks

local join = require "moonrig.wait"(native.join)

native.entry("start", function(g)
  require("moonrig.agent").start(g)
  g.starting = nil
end)

native.entry("schedule", function(g)
  if g.starting then join(g.starting) end
  require("moonrig.schedule").start(g)
end)

native.entry("main", function(fn, g, args)
  if g.starting then join(g.starting) end
  if type(fn) == "string" then return require(fn).main(args, g) end -- a program of the library
  return fn(args)
end)
