-- rig.tool: custom tools answered here. Declared at top level; the handler runs as a task of its own.
local native = require "moonrig.native"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local kv = require "moonrig.kv"

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

-- How long records of ctx:once are kept: longer than any call can be under way.
local ONCE_TTL = 90 * 86400

---What all contexts share; a context's own fields are made for each call.
local Context = {}
Context.__index = Context
local busy = setmetatable({}, { __mode = "k" }) -- context to the keys of ctx:once that are under way

local function check_once(self, what, key)
  if type(self) ~= "table" then err.misuse("%s: call it with a colon, as %s(key)", what, what) end
  if type(key) ~= "string" or #key < 1 or #key > 256 then
    err.misuse("%s: the key is a string of 1 to 256 bytes", what)
  end
end

---A string that is the same in each attempt of this call and in no other call.
function Context:idempotency_key(key)
  check_once(self, "ctx:idempotency_key", key)
  return ("%s/%s/%s"):format(self.session.id, self.tool_use_id, key)
end

local function once(id, key, fn)
  local row, e = kv.read("once", id)
  if row then return row.value.value end
  if e then return nil, e end
  local value, why = fn(id)
  if value == nil and why ~= nil then return nil, why end
  local rev
  rev, e = kv.write("once", id, { value = value }, { expect = 0, ttl = ONCE_TTL })
  if rev then return value end
  if e.status == 409 then -- an attempt that was taken for dead has recorded it
    row = kv.read("once", id)
    if row then return row.value.value end
  end
  native.log(0, "tool", ("%s finished, but that could not be recorded: %s"):format(key, err.text(e)))
  return nil, e
end

---What fn(idempotency_key) returned, recorded when it finished; a finished one is never started again, not in a
---later attempt of the call either. nil, err is not recorded, nor is an error that fn raises. Between fn's effect
---and the record a crash can repeat it: give the key on to the remote side.
function Context:once(key, fn)
  check_once(self, "ctx:once", key)
  if type(fn) ~= "function" then err.misuse("ctx:once needs a function, got %s", type(fn)) end
  local mine = busy[self] or {}
  busy[self] = mine
  if mine[key] then err.misuse("ctx:once: %q is under way in this call already", key) end
  mine[key] = true
  local ok, value, e = pcall(once, self:idempotency_key(key), key, fn)
  mine[key] = nil
  if not ok then error(value, 0) end
  return value, e
end

native.entry("tool", function(decl, input, info)
  local session = require "moonrig.session"
  local g = native.generation()
  local ctx = {
    session = session.handle(info.session_id), thread = info.thread, tool_use_id = info.tool_use_id,
    agent = info.agent, attempt = info.attempt, deadline = native.now() + info.left, generation = g.number,
  }
  function ctx.cancelled() return native.cancelled() end
  function ctx.log(...)
    local parts = {}
    for i = 1, select("#", ...) do
      local v = select(i, ...)
      if v ~= ctx then parts[#parts + 1] = tostring(v) end
    end
    native.log(2, "tool " .. decl.name, table.concat(parts, " "))
  end
  ctx.progress = ctx.log
  setmetatable(ctx, Context)
  local value, e = decl.run(input, ctx)
  if value == nil and e ~= nil then return false, err.text(e) end
  return true, value
end)

return tool
