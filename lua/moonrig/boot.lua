-- What core/script calls: a generation's begin, its check and plan, its start, rig.main.
local native = require "moonrig.native"
local env = require "moonrig.env"
local schema = require "moonrig.schema"
local err = require "moonrig.err"
local rig = require "moonrig"

native.entry("begin", function(g)
  g.decls = { tool = {}, agent = {}, environment = {}, hook = {}, on = {}, provider = {}, route = {}, schedule = {} }
  g.env = env.new(g, rig)
end)

-- ------------------------------------------------------------------------------------------------- plan

local function fail(where, ...)
  error(where .. ": " .. string.format(...), 0)
end

local function unique(seen, key, d, what, name)
  if seen[key] then fail(d.where, "%s %q is declared twice; the other one is at %s", what, name, seen[key]) end
  seen[key] = d.where
end

local function plan_tools(g, plan)
  local seen = {}
  g.tools_by_key = {}
  for _, d in ipairs(g.decls.tool) do
    local t = d.decl
    if not t.name:find "^[%w_%-]+$" or #t.name > 128 then
      fail(d.where, "tool name %q: letters, digits, _ and -, at most 128", t.name)
    end
    local agent = type(t.agent) == "table" and (t.agent.name or t.agent.id) or t.agent or ""
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
end

local function plan_hooks(g, plan)
  g.hooks = {}
  for i, d in ipairs(g.decls.hook) do
    local h = d.decl
    g.hooks[i] = h
    local name = h.name or (h.phase .. " at " .. d.where)
    local filter = native.json_encode { agent = h.agent, tool = h.tool, name = name }
    plan.hooks[i] = { phase = h.phase, filter = filter, name = name,
      fail_closed = h.fail == "closed" and 1 or 0 }
  end
end

local function plan_watchers(g, plan)
  local seen = {}
  g.on_by_name = {}
  for i, d in ipairs(g.decls.on) do
    local w = d.decl
    unique(seen, w.name, d, "watcher", w.name)
    g.on_by_name[w.name] = w
    plan.watchers[i] = { name = w.name, events = native.json_encode(w.events), agent = w.agent,
      durable = w.durable and 1 or 0 }
  end
end

local function plan_providers(g, plan)
  local seen = {}
  g.providers_by_name = {}
  for i, d in ipairs(g.decls.provider) do
    unique(seen, d.decl.name, d, "provider", d.decl.name)
    g.providers_by_name[d.decl.name] = d.decl
    plan.providers[i] = { name = d.decl.name, models = d.decl.models }
    plan.provider_names[d.decl.name] = true
  end
end

native.entry("validate", function(g)
  local plan = { tools = {}, hooks = {}, watchers = {}, providers = {}, provider_names = {} }
  plan_tools(g, plan)
  plan_hooks(g, plan)
  plan_watchers(g, plan)
  plan_providers(g, plan)
  require("moonrig.route").plan(g, plan)
  for _, kind in ipairs { "agent", "environment" } do
    local seen = {}
    for _, d in ipairs(g.decls[kind]) do unique(seen, d.decl.name, d, kind, d.decl.name) end
  end
  local seen = {}
  for _, d in ipairs(g.decls.schedule) do unique(seen, d.decl.name, d, "schedule", d.decl.name) end
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
