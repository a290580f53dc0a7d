-- Declarations: top-level code collects them in its generation's table; nothing is registered before the
-- whole generation is valid. What core/script reads of it is the plan made in boot.lua.
-- When scripts are only checked (lint.lua), a wrong declaration is noted and loading goes on, so that all
-- mistakes are found at once: g.lint is the function that notes it.
local native = require "moonrig.native"
local err = require "moonrig.err"
local similar = require "moonrig.similar"

local M = {}
local failed = false -- a check of the declaration that is being made, when scripts are only checked
local known = {} -- "rig.tool" to the names of its options, separated by spaces

local function linting()
  local g, loading = native.generation()
  return g and loading and rawget(g, "lint") or nil
end

---Raises at the user's line; when scripts are only checked, notes it.
---@param what string "rig.tool"
---@param key? string  the option
local function wrong(what, key, fmt, ...)
  local lint = linting()
  if not lint then err.misuse(fmt, ...) end
  local file, line = native.where()
  lint { file = file, line = line, what = what, key = key, message = fmt:format(...) }
end

-- Kinds whose plan is made declaration by declaration (boot.lua's each), so that a wrong one does no harm there.
local careful = { tool = true, agent = true, environment = true, hook = true, provider = true }

---What a declaration of an agent's folder is for, unless it says so (folder.lua).
local scoped = { tool = true, hook = true, on = true }

---Adds a declaration of this kind; raises outside of top-level code.
function M.add(kind, what, decl)
  local g, loading = native.generation()
  if not g or not loading then
    err.misuse("%s declares: call it in a script's top-level code, not in a task", what)
  end
  local file, line = native.where()
  local tail, bad = not line, failed
  failed = false
  if bad and not careful[kind] then return end -- it was noted; nothing could be planned of it
  if not line and type(decl.run) == "function" then line = debug.getinfo(decl.run, "S").linedefined end
  local folder = g.folder
  if folder and scoped[kind] and decl.agent == nil and (file or ""):sub(1, #folder.dir + 1) == folder.dir .. "/" then
    decl.agent = folder.name
  end
  local list = g.decls[kind]
  if not list then
    list = {}
    g.decls[kind] = list
  end
  list[#list + 1] = { decl = decl, where = (file or "?") .. (line and ":" .. line or ""), what = what, file = file,
    line = not tail and line or nil, folder = folder }
end

---Is top-level code running?
function M.loading()
  local _, loading = native.generation()
  return loading
end

---The names of a declaration's options, for those who look at declarations without making them.
---@param what string "rig.tool"
---@return string? names separated by spaces; nil: it has not been declared
function M.fields(what)
  return known[what]
end

local function words(text)
  local list = {}
  for w in text:gmatch "%S+" do list[#list + 1] = w end
  return list
end

---Raises for keys that are not in the list.
---@param what string
---@param t table
---@param allowed string names, separated by spaces
function M.keys(what, t, allowed)
  known[what] = allowed
  failed = false
  if type(t) ~= "table" then err.misuse("%s takes a table, got %s", what, type(t)) end
  for k in pairs(t) do
    if type(k) ~= "string" or not (" " .. allowed .. " "):find(" " .. k .. " ", 1, true) then
      local close = similar(k, words(allowed))
      wrong(what, k, "%s: unknown option %s (known: %s)%s", what, tostring(k), allowed,
        close and ("; did you mean %s?"):format(close) or "")
    end
  end
end

---Raises unless t[key] is of the type (or absent).
function M.check(what, t, key, kind, required)
  local v = t[key]
  if v == nil and not required then return end
  if type(v) ~= kind then
    failed = linting() ~= nil
    wrong(what, key, "%s: %s must be a %s, got %s", what, key, kind, v == nil and "nothing" or type(v))
  end
end

return M
