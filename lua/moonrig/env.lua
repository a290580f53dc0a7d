-- The globals of a generation of scripts: copies of everything that a script could change, so that what
-- one generation does to string, package or rig is gone with it. What is left out or replaced would break
-- a promise to other code: budgets (debug.sethook, jit.on, bytecode) or the process (os.exit, os.setlocale).
local native = require "moonrig.native"
local co = require "moonrig.co"

local base, base_require, base_package = _G, require, package
local base_load, base_loadfile, base_getfenv, base_setfenv = load, loadfile, getfenv, setfenv

local M = {}

-- Text chunks only, also for code that finds its way to the base globals.
function base.load(chunk, name, _, e)
  return base_load(chunk, name, "t", e == nil and base or e)
end
function base.loadfile(path, _, e)
  return base_loadfile(path, "t", e == nil and base or e)
end
if base.loadstring then base.loadstring = base.load end
if jit then math.randomseed(os.time() + math.floor(os.clock() * 1e6)) end -- 5.4 does so itself

local function copy(t)
  local c = {}
  for k, v in pairs(t) do c[k] = v end
  return c
end

---rig with its tables, for one generation.
local function copy_deep(t)
  local c = {}
  for k, v in next, t do c[k] = type(v) == "table" and copy_deep(v) or v end
  debug.setmetatable(c, debug.getmetatable(t)) -- returns true on LuaJIT
  return c
end

local function refused(name, why)
  return function() native.raise(("%s is not there for scripts: %s"):format(name, why)) end
end

-- ----------------------------------------------------------------------------------------------- require

local public = { ["moonrig"] = true, ["moonrig.test"] = true }

---A module beside an agent: its folder's own, for code of that folder.
local function find_in_folder(g, name)
  if not g.folders[1] then return nil end
  local file = native.where() or ""
  for _, folder in ipairs(g.folders) do
    if file:sub(1, #folder.dir + 1) == folder.dir .. "/" then
      local path = ("%s/%s.lua"):format(folder.dir, (name:gsub("%.", "/")))
      return native.is_file(path) and path or nil
    end
  end
end

local function find(g, env, name)
  local rel, tried = name:gsub("%.", "/"), {}
  for _, root in ipairs(g.roots) do
    for _, form in ipairs { "/%s.lua", "/%s/init.lua" } do
      local path = root .. form:format((rel:gsub("%%", "%%%%")))
      if native.is_file(path) then return path end
      tried[#tried + 1] = "\n\tno file '" .. path .. "'"
    end
  end
  local path, why = base_package.searchpath(name, tostring(env.package.path))
  return path, table.concat(tried) .. (why and (why:find "^\n" and why or "\n\t" .. why) or "")
end

---C modules are shared by all generations.
local function require_c(env, name, tried)
  local path, cpath = base_package.path, base_package.cpath
  base_package.path, base_package.cpath = "", tostring(env.package.cpath)
  local ok, v = pcall(base_require, name)
  base_package.path, base_package.cpath = path, cpath
  if ok then return v end
  if type(v) == "string" and v:find(("module '%s' not found"):format(name), 1, true) then
    native.raise(("module '%s' not found:%s"):format(name, tried))
  end
  error(v, 0)
end

local function requirer(g, env)
  local package = env.package
  return function(name)
    if type(name) ~= "string" then native.raise("require needs a module name, got " .. type(name)) end
    local own = find_in_folder(g, name) -- kept by path: another agent may have one of the same name
    if own then return native.load_file(g, own, name), own end
    local v = package.loaded[name]
    if v then return v end
    if name:find "^moonrig%." and not public[name] then
      native.raise(("module '%s' is internal; require \"moonrig\" has what scripts use"):format(name))
    end
    local path, tried
    if package.preload[name] then
      v = package.preload[name](name, ":preload:")
    else
      path, tried = find(g, env, name)
      if path then v = native.load_file(g, path, name) else v = require_c(env, name, tried) end
    end
    if package.loaded[name] == nil then package.loaded[name] = v == nil and true or v end
    return package.loaded[name], path
  end
end

-- ----------------------------------------------------------------------------------------------- globals

local libraries = { "string", "table", "math", "os", "io", "debug", "utf8", "bit", "jit" }

local function restrict(env)
  env.os.exit = refused("os.exit", "it would end the whole program; return from rig.main")
  env.os.setlocale = refused("os.setlocale", "it would change the whole program")
  env.debug.sethook = refused("debug.sethook", "the time budgets use the hook")
  env.debug.getregistry = refused("debug.getregistry", "it belongs to the program")
  if env.jit and not native.jit then
    env.jit.on = refused("jit.on", "no time budget holds in compiled code")
  end
  env.module = nil
end

---getfenv(0) and setfenv(0) mean the generation's globals.
local function environments(env)
  if not base_getfenv then return end
  local function level(f)
    if f == nil then f = 1 end
    return type(f) == "number" and f + 1 or f
  end
  function env.getfenv(f)
    if f == 0 then return env end
    local e = base_getfenv(level(f))
    return e == base and env or e
  end
  function env.setfenv(f, t)
    if f == 0 then native.raise("setfenv(0) would change the whole program") end
    return base_setfenv(level(f), t), nil
  end
end

M.find = find -- for those who look whether a module is there

---@param g table the generation
---@param rig table
---@return table env
function M.new(g, rig)
  local env = copy(base)
  env._G = env
  for _, name in ipairs(libraries) do
    if base[name] then env[name] = copy(base[name]) end
  end
  env.coroutine = copy(co)
  env.package = { path = base_package.path, cpath = base_package.cpath, config = base_package.config, preload = {},
    searchpath = base_package.searchpath, loadlib = base_package.loadlib, loaded = {} }
  local loaded = env.package.loaded
  for _, name in ipairs(libraries) do loaded[name] = env[name] end
  loaded._G, loaded.coroutine, loaded.package = env, env.coroutine, env.package
  loaded.moonrig = copy_deep(rig)
  restrict(env)
  environments(env)
  env.require = requirer(g, env)
  function env.load(chunk, name, _, e) return base_load(chunk, name, "t", e == nil and env or e) end
  if base.loadstring then env.loadstring = env.load end
  function env.loadfile(path, _, e) return base_loadfile(path, "t", e == nil and env or e) end
  function env.dofile(path) return assert(env.loadfile(path))() end
  return env
end

-- Strings have one metatable, the library's too: no generation changes it. `string` is the place.
getmetatable("").__metatable = setmetatable({}, { __index = { __index = string }, __newindex = function()
  native.raise("the metatable of strings belongs to all scripts; put functions into `string`")
end, __metatable = false })

-- A string's methods: the library's, then what the caller's generation put into its own `string`.
setmetatable(string, { __index = function(_, key)
  local g = native.generation()
  local env = g and rawget(g, "env")
  return env and rawget(env.string, key)
end })

return M
