-- rig.tool: custom tools answered here. Declared at top level; the handler runs as a task of its own.
local native = require "moonrig.native"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local Context = require("moonrig.context").Context

---@class moonrig.Tool a handle: goes into an agent's tools
---@field name string
local Tool = { __mr = "wire", __name = "moonrig.tool" }

---@class moonrig.ToolOptions
---@field name string
---@field description string
---@field input_schema? table   JSON Schema of an object
---@field run fun(input: table, ctx: moonrig.ToolContext): any, any
---@field timeout? number       seconds; default 120
---@field concurrency? integer  calls at the same time, others wait in order; default 64
---@field agent? string         only for this agent (name or id)
---@field idempotent? boolean   may run again after a crash
---@field answered_by? "client" declared here, answered by an API client

---@class moonrig.ToolContext
---@field session moonrig.Session
---@field session_id string
---@field thread string
---@field tool_use_id string
---@field agent string
---@field attempt integer       1, more after a crash
---@field deadline number       seconds since 1970
---@field generation integer    of the scripts this call runs on
---@field cancelled fun(): boolean
---@field log fun(...)
---@field progress fun(...)      a line in the log: the API has no event for the progress of a tool
---@field idempotency_key fun(self, key: string): string the same in each attempt of this call
---@field once fun(self, key: string, fn: fun(idempotency_key: string): any, any): any, any

---Declares a tool, or (with a name) finds one that is declared.
---@param o moonrig.ToolOptions|string
---@param ... nil only one argument: a second one is refused
---@return moonrig.Tool?, moonrig.Error?
local function tool(o, ...)
  if type(o) == "string" then
    if (...) ~= nil then err.misuse("rig.tool with a name finds a tool; declare one with rig.tool { name = %q, ... }", o) end
    local g = native.generation()
    for _, d in ipairs(g and g.decls.tool or {}) do
      if d.decl.name == o then return d.decl end
    end
    return nil, err.new("not_found_error", ("no tool %q is declared"):format(o))
  end
  declare.keys("rig.tool", o, "name description input_schema run timeout concurrency agent idempotent answered_by")
  declare.check("rig.tool", o, "name", "string", true)
  declare.check("rig.tool", o, "description", "string", true)
  declare.check("rig.tool", o, "run", "function", o.answered_by ~= "client")
  declare.check("rig.tool", o, "input_schema", "table")
  declare.check("rig.tool", o, "timeout", "number")
  declare.check("rig.tool", o, "concurrency", "number")
  local t = setmetatable({}, Tool)
  for k, v in pairs(o) do t[k] = v end
  t.input_schema = t.input_schema or { type = "object" }
  t.wire = { type = "custom", name = t.name, description = t.description, input_schema = t.input_schema }
  declare.add("tool", "rig.tool", t)
  return t
end

---input, and a ctx with session_id, thread, tool_use_id, agent, attempt, and the seconds it has as deadline.
native.entry("tool", function(decl, input, ctx)
  ctx.deadline = native.now() + ctx.deadline
  ctx.generation = native.generation().number
  local value, e = decl.run(input, setmetatable(ctx, Context))
  if value == nil and e ~= nil then return false, err.text(e) end
  return true, value
end)

return tool
