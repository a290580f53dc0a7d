-- Declarations: top-level code collects them in its generation's table; nothing is registered before the
-- whole generation is valid. What core/script reads of it is the plan made in boot.lua.
local native = require "moonrig.native"
local err = require "moonrig.err"

local M = {}

---Adds a declaration of this kind; raises outside of top-level code.
function M.add(kind, what, decl)
  local g, loading = native.generation()
  if not g or not loading then
    err.misuse("%s declares: call it in a script's top-level code, not in a task", what)
  end
  local file, line = native.where()
  if not line and type(decl.run) == "function" then line = debug.getinfo(decl.run, "S").linedefined end
  local list = g.decls[kind]
  list[#list + 1] = { decl = decl, where = (file or "?") .. (line and ":" .. line or "") }
end

---Is top-level code running?
function M.loading()
  local _, loading = native.generation()
  return loading
end

---Raises for keys that are not in the list.
---@param what string
---@param t table
---@param allowed string names, separated by spaces
function M.keys(what, t, allowed)
  if type(t) ~= "table" then err.misuse("%s takes a table, got %s", what, type(t)) end
  for k in pairs(t) do
    if type(k) ~= "string" or not (" " .. allowed .. " "):find(" " .. k .. " ", 1, true) then
      err.misuse("%s: unknown option %s (known: %s)", what, tostring(k), allowed)
    end
  end
end

---Raises unless t[key] is of the type (or absent).
function M.check(what, t, key, kind, required)
  local v = t[key]
  if v == nil and not required then return end
  if type(v) ~= kind then
    err.misuse("%s: %s must be a %s, got %s", what, key, kind, v == nil and "nothing" or type(v))
  end
end

return M
