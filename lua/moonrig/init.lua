-- moonrig: everything a script uses. local rig = require "moonrig"
local native = require "moonrig.native"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local agents = require "moonrig.agent"
local json = require "moonrig.json"
local reload = require "moonrig.reload"
local task = require "moonrig.task"

---@class moonrig.Null: userdata JSON's null; a value of its own, true in an if

---@class moonrig
---@field session fun(o: moonrig.SessionOptions|string): moonrig.Session?, moonrig.Error? makes one, or finds it by its id
---@field import fun(what: string|{ bytes: string }, o?: moonrig.CopyOptions): moonrig.Session?, moonrig.Error? of a file that session:export made
---@field agent fun(o: moonrig.AgentOptions|string): moonrig.Agent?, moonrig.Error? declares an agent, or finds one
---@field environment fun(o: moonrig.EnvironmentOptions|string): moonrig.Environment?, moonrig.Error? likewise
---@field sleep fun(seconds: number) waits; other tasks run meanwhile
---@field now fun(): number seconds since 1970
---@field int fun(text: string): any a whole number of up to 64 bits, exact on LuaJIT too
---@field null moonrig.Null
---@field env table<string, string?> environment variables, read-only
---@field cjson? table lua-cjson, where it is installed
local rig = {
  tool = require "moonrig.tool",
  agent = agents.agent,
  environment = agents.environment,
  toolset = agents.toolset,
  session = require("moonrig.session").session,
  import = require("moonrig.session").import,
  hook = require "moonrig.hook",
  on = require "moonrig.on",
  schedule = require("moonrig.schedule").schedule,
  kv = require("moonrig.kv").public,
  provider = require "moonrig.model",
  route = require("moonrig.route").route,
  http = require "moonrig.http",
  connect = require("moonrig.connect").connect,
  new = require("moonrig.connect").new,
  fs = require "moonrig.fs",
  crypto = require "moonrig.crypto",
  sqlite = require "moonrig.sqlite",
  json = json,
  log = require "moonrig.log",
  url = require "moonrig.url",
  null = json.null,
  array = json.array,
  int = native.int,
  sleep = task.sleep,
  spawn = task.spawn,
  race = task.race,
  task = task,
  all = task.all,
  map = task.map,
  now = native.now,
  time = require "moonrig.time",
  error = err.new,
  reload = reload.reload,
  generations = reload.generations,
  check = reload.check,
  state = reload.state,
  defaults = reload.defaults,
}

---Environment variables, read-only: rig.env.HOME.
rig.env = setmetatable({}, {
  __index = function(_, name) return os.getenv(name) end,
  __newindex = function() native.raise("rig.env is read-only") end,
  __metatable = false, -- all generations share it
})

---The bytes of a file; a relative path is relative to the script that calls. For prompts and the like, at
---top level too.
---@param path string
---@return string
function rig.file(path)
  local from = native.where()
  if from and path:sub(1, 1) ~= "/" then
    local dir = from:match "^(.*)/[^/]*$"
    if dir then path = dir .. "/" .. path end
  end
  local f, why = io.open(path, "rb")
  if not f then native.raise(("rig.file: %s"):format(why)) end
  local text = f:read "*a"
  f:close()
  local g = native.generation()
  if g then native.note_file(g, path) end
  return text
end

---Gives the script's own work: run by `moonrig run`, as a task; ignored by `serve`. An integer result is
---the exit code; nil, err is a failure.
---@param fn fun(args: string[]): integer?, any
function rig.main(fn)
  if type(fn) ~= "function" then err.misuse("rig.main takes a function, got %s", type(fn)) end
  local g, loading = native.generation()
  if not loading then err.misuse("rig.main declares: call it in a script's top-level code") end
  local file, line = native.where()
  if g.main then err.misuse("rig.main was called at %s already; there is one", g.main_where) end
  g.main, g.main_where = fn, (file or "?") .. (line and ":" .. line or "")
end

---The number of the scripts' generation that the caller runs on.
---@return integer
function rig.generation()
  local g = native.generation()
  return g and g.number or 0
end

require("moonrig.api").install(rig)

-- Of the scripting face, but of later versions: a clear word instead of "attempt to index a nil value".
local later = { workflow = true }

return setmetatable(rig, {
  __index = function(_, key)
    if later[key] then err.misuse("rig.%s is not in this version of moonrig", key) end
    if key ~= "cjson" then return nil end
    local ok, cjson = pcall(require, "cjson")
    if not ok then native.raise("rig.cjson: lua-cjson is not installed") end
    return cjson
  end,
  __newindex = function(_, key)
    native.raise(("rig.%s: scripts add nothing to rig; keep it in a table of your own"):format(tostring(key)))
  end,
  __metatable = false, -- all generations share it
})
