-- What scripts can do about reloading: checks before the switch, values that survive it, asking for one.
-- How a generation is loaded, and what refuses it, is core/script/reload.c's; the plan is boot.lua's.
local native = require "moonrig.native"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local time = require "moonrig.time"
local wait = require "moonrig.wait"

local M = {}
local reload = wait(native.reload)

-- ---------------------------------------------------------------------------------------------- checks

---A check of the scripts by themselves: run after all files are loaded and valid, before they become current.
---It cannot wait. If it raises, or returns false (or nil, why), the generation is refused, and the one that runs
---stays.
---@param fn fun(): boolean?, string?
function M.check(fn)
  if type(fn) ~= "function" then err.misuse("rig.check takes a function, got %s", type(fn)) end
  declare.add("check", "rig.check", { run = fn })
end

---Runs the generation's checks, in the order of declaration; raises where the first one fails.
---@param g table
function M.run_checks(g)
  for _, d in ipairs(g.decls.check) do
    local r = { pcall(d.decl.run) }
    if not r[1] then error(("%s: the check failed: %s"):format(d.where, err.text(r[2])), 0) end
    if r[2] == false or (r[2] == nil and r[3] ~= nil) then
      error(("%s: the check failed: %s"):format(d.where, r[3] ~= nil and err.text(r[3]) or "it returned false"), 0)
    end
  end
end

-- ----------------------------------------------------------------------------------------------- state

---@class moonrig.StateOptions
---@field name string
---@field version? integer  of the value's form; default 1
---@field init? fun(old: table?, old_version: integer?): table makes the first value, or one of this version from the old

-- A value in one version, shared by all generations that declare that version: { value =, version = }.
-- What the current generation has; set when one becomes current.
local current = {}

---A copy of a table and all tables in it; other values are the same ones.
local function copied(root)
  local made, todo = {}, {}
  local function twin(v)
    if type(v) ~= "table" then return v end
    if not made[v] then
      made[v] = {}
      debug.setmetatable(made[v], debug.getmetatable(v))
      todo[#todo + 1] = v
    end
    return made[v]
  end
  local c = twin(root)
  while #todo > 0 do
    local t = table.remove(todo)
    for k, v in next, t do rawset(made[t], twin(k), twin(v)) end
  end
  return c
end

---Notes what the tables of a value hold, so that undo can put it back.
local function note(root, seen)
  local todo = { root }
  while #todo > 0 do
    local t = table.remove(todo)
    if type(t) == "table" and not seen[t] then
      local held = {}
      seen[t] = { held = held, meta = debug.getmetatable(t) }
      for k, v in next, t do
        held[k] = v
        todo[#todo + 1], todo[#todo + 2] = k, v
      end
    end
  end
end

local function undo(seen)
  for t, was in pairs(seen) do
    for k in next, t do
      if was.held[k] == nil then rawset(t, k, nil) end
    end
    for k, v in next, was.held do rawset(t, k, v) end
    debug.setmetatable(t, was.meta)
  end
end

---A value that survives reloads. The generation that runs hands its value on: in the same version it is that very
---value; in another, init gets a copy of it and makes the new one, and older calls keep theirs. If the new
---generation is refused, what its loading did to the value is undone.
---@param o moonrig.StateOptions
---@return table value
function M.state(o)
  declare.keys("rig.state", o, "name version init")
  declare.check("rig.state", o, "name", "string", true)
  declare.check("rig.state", o, "version", "number")
  declare.check("rig.state", o, "init", "function")
  local version = o.version or 1
  if version ~= math.floor(version) then err.misuse("rig.state: version is a whole number, got %s", tostring(version)) end
  declare.add("state", "rig.state", { name = o.name })
  local g = native.generation()
  if type(o.name) ~= "string" then return {} end -- it was noted: the scripts are only checked
  if g.states[o.name] then err.misuse("rig.state: %q is declared twice", o.name) end
  local old = current[o.name]
  local cell = old
  if old and old.version == version then
    note(old.value, g.undo)
  else
    local value
    if o.init then
      if old then
        value = o.init(copied(old.value), old.version)
      else
        value = o.init(nil, nil)
      end
      if type(value) ~= "table" then
        err.misuse("rig.state: init of %q returned %s; it returns a table, which all generations share", o.name,
          value == nil and "nothing" or "a " .. type(value))
      end
    else
      value = old and copied(old.value) or {}
    end
    cell = { value = value, version = version }
  end
  g.states[o.name] = cell
  return cell.value
end

native.entry("current", function(g)
  g.undo = {}
  current = g.states
end)

native.entry("refused", function(g)
  if g.undo then undo(g.undo) end
  g.undo = {}
end)

-- ---------------------------------------------------------------------------------------------- asking

---Loads the scripts again, or goes back to the generation before; returns the number of the one that is current
---then. The caller goes on on its own generation, whatever comes.
---@param o? { rollback: boolean? }
---@return integer? generation
---@return moonrig.Error? err why it was refused; nothing has changed
function M.reload(o)
  if o ~= nil then
    declare.keys("rig.reload", o, "rollback")
    declare.check("rig.reload", o, "rollback", "boolean")
  end
  return reload(o and o.rollback or false)
end

---@class moonrig.GenerationInfo
---@field number integer
---@field files integer          scripts and modules it has run
---@field running integer        tasks
---@field tasks table<string, integer> by kind: main, tool, hook, model, start (watchers too), spawn
---@field oldest_s? number       age of the oldest task

---@class moonrig.Attempt
---@field at number              seconds since 1970
---@field what "load"|"reload"|"rollback"
---@field generation integer     that was tried
---@field files integer
---@field took_ms number
---@field error? string          why it was refused

---@class moonrig.Generations
---@field generation integer     the current one; new calls run on it
---@field previous? integer      what a rollback goes to
---@field files integer
---@field error? string          of the last attempt
---@field error_at? number       seconds since 1970
---@field history moonrig.Attempt[] the last eight, latest first
---@field live moonrig.GenerationInfo[] those that still have calls, the current and the previous one
---@field tasks integer
---@field memory_bytes integer

---What `moonrig reload --status` shows.
---@return moonrig.Generations
function M.generations()
  local s = native.generations()
  s.error_at = s.error_at and time.parse(s.error_at)
  for _, h in ipairs(s.history) do h.at = time.parse(h.at) end
  return s
end

---@class moonrig.Defaults
---@field model? string|table for agents that are declared without one

---What agents get that leave it out; once in all scripts.
---@param o moonrig.Defaults
function M.defaults(o)
  declare.keys("rig.defaults", o, "model")
  if o.model ~= nil and type(o.model) ~= "string" and type(o.model) ~= "table" then
    err.misuse("rig.defaults: model must be a string or a table, got %s", type(o.model))
  end
  declare.add("defaults", "rig.defaults", { model = o.model })
end

return M
