-- rig.connect and rig.new: a client of another runtime, elsewhere or in this process, of the same shape as rig.
-- Operations, agents, sessions and streams are that runtime's; what is the script's own (http, fs, json, tasks, time,
-- ...) is as in rig; what only a runtime's own scripts can do (hooks, watchers, providers, ...) is refused by name.
local native = require "moonrig.native"
local agents = require "moonrig.agent"
local api = require "moonrig.api"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local remote = require "moonrig.remote"
local session = require "moonrig.session"
local wait = require "moonrig.wait"

local M = {}

local inside = "that is for a runtime's own scripts"
local refused = { main = "it declares what `moonrig run` runs, here", on = "s:follow() watches a session",
  generation = "scripts have theirs here", reload = "`moonrig reload` does that", connect = "it is a client already",
  new = "it is a client already", hook = inside, provider = inside, route = inside, schedule = inside,
  workflow = inside, kv = inside, check = inside, state = inside, defaults = inside,
  generations = "scripts have theirs here" }
-- Of the script that calls, not of the other runtime.
local own = { "http", "fs", "json", "log", "url", "null", "array", "int", "sleep", "spawn", "race", "task", "all",
  "map", "now", "time", "error", "env", "file", "toolset", "cjson", "crypto", "sqlite", "schema" }

local Tool = { __mr = "wire", __name = "moonrig.tool" }

---A tool of a client: its handler answers the calls of sessions that this client asks or follows.
local function tool_of(tools)
  return function(o)
    if type(o) == "string" then
      if tools[o] then return tools[o] end
      return nil, err.new("not_found_error", ("no tool %q is declared on this client"):format(o))
    end
    declare.keys("client.tool", o, "name description input_schema run timeout concurrency answered_by")
    for k, kind in pairs { name = "string", description = "string", run = "function" } do
      declare.check("client.tool", o, k, kind, true)
    end
    declare.check("client.tool", o, "input_schema", "table")
    for k, max in pairs { timeout = 86400, concurrency = 10000 } do
      declare.check("client.tool", o, k, "number")
      if o[k] and not (o[k] > 0 and o[k] <= max) then
        err.misuse("client.tool: %s is more than 0, at most %d", k, max)
      end
    end
    local schema = o.input_schema or { type = "object" }
    local t = setmetatable({ name = o.name, run = o.run, timeout = o.timeout, concurrency = o.concurrency,
      wire = { type = "custom", name = o.name, description = o.description, input_schema = schema } }, Tool)
    tools[t.name] = t
    return t
  end
end

local function copy(t)
  if type(t) ~= "table" then return t end
  local c = {}
  for k, v in next, t do c[k] = copy(v) end
  debug.setmetatable(c, debug.getmetatable(t)) -- returns true on LuaJIT
  return c
end

local names = {}
for _, name in ipairs(own) do names[name] = true end

---Makes a client of a transport.
---@param transport moonrig.Transport
---@param close fun(): boolean?, moonrig.Error?
---@return table rig
function M.client_of(transport, close)
  local lookup, tools = agents.new(transport), {}
  local side = { transport = transport, id = lookup.id, tools = tools }
  local c = { agent = lookup.agent, environment = lookup.environment, session = session.new(side),
    import = session.new_import(side),
    tool = tool_of(tools), close = close }
  api.install(c, transport)
  return setmetatable(c, {
    __index = function(_, key)
      if refused[key] then err.misuse("client.%s is not there: %s", tostring(key), refused[key]) end
      if not names[key] then return nil end
      local v = copy(require("moonrig")[key])
      rawset(c, key, v)
      return v
    end,
    __newindex = function(_, key)
      native.raise(("client.%s: scripts add nothing to a client; keep it in a table of your own"):format(tostring(key)))
    end,
  })
end

---@class moonrig.Client: moonrig without what is for a runtime's own scripts: declarations, kv, reload, main
---@field close fun(): boolean?, moonrig.Error? ends a runtime of rig.new; of rig.connect nothing is left to do

---@class moonrig.ConnectOptions
---@field base_url? string  "http://host:port", "https://..." or "unix:/path"; default MOONRIG_URL
---@field api_key? string   default MOONRIG_API_KEY
---@field timeout? number   seconds a call may take, with its retries; default 60

---A client of another runtime, of the same shape as rig. Does not ask it anything yet.
---@param o? moonrig.ConnectOptions
---@return moonrig.Client client
function M.connect(o)
  o = o or {}
  declare.keys("rig.connect", o, "base_url api_key timeout")
  for k, kind in pairs { base_url = "string", api_key = "string", timeout = "number" } do
    declare.check("rig.connect", o, k, kind)
  end
  if o.timeout and not (o.timeout > 0 and o.timeout <= 1e6) then
    err.misuse("rig.connect: timeout is seconds, more than 0, at most 1e6")
  end
  local base_url, key = o.base_url or os.getenv "MOONRIG_URL", o.api_key or os.getenv "MOONRIG_API_KEY"
  if not base_url or base_url == "" then err.misuse("rig.connect: base_url is missing (or set MOONRIG_URL)") end
  if key == "" then key = nil end
  if key and key:find "[%c ]" then err.misuse("rig.connect: api_key holds a blank or a line break") end
  return M.client_of(remote.transport { base_url = base_url, api_key = key, timeout = o.timeout },
    function() return true end)
end

-- ---------------------------------------------------------------------------------------------------- rig.new

local opened, closed = wait(native.runtime_wait), wait(native.runtime_close)

local function hex(n)
  local f = assert(io.open("/dev/urandom", "rb"))
  local bytes = f:read(n)
  f:close()
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

---@class moonrig.NewOptions
---@field store? string   ":memory:" (default), or a data directory that no other runtime has open
---@field options? table  what the configuration file may hold: models, limits, ...
---@field timeout? number seconds a call may take, with its retries; default 60

---Another runtime in this process, as rig.connect gives one elsewhere: it runs no scripts, and knows nothing of this
---one's store. Waits until it is open. client:close() ends it; so do its collection and the end of the scripts.
---@param o? moonrig.NewOptions
---@return moonrig.Client? client
---@return moonrig.Error? err
function M.new(o)
  o = o or {}
  declare.keys("rig.new", o, "store options timeout")
  for k, kind in pairs { store = "string", options = "table", timeout = "number" } do
    declare.check("rig.new", o, k, kind)
  end
  if o.timeout and not (o.timeout > 0 and o.timeout <= 1e6) then
    err.misuse("rig.new: timeout is seconds, more than 0, at most 1e6")
  end
  local options = {}
  for k, v in pairs(o.options or {}) do options[k] = v end
  options.api_key = options.api_key or "sk-mr-" .. hex(20)
  local text, e = native.json_encode(options)
  if not text then return nil, e end
  local path = ("%s/moonrig-%s.sock"):format((os.getenv "TMPDIR" or "/tmp"):gsub("/+$", ""), hex(8))
  if #path > 100 then path = "/tmp/moonrig-" .. hex(8) .. ".sock" end -- the system allows no more
  local runtime, why = native.runtime_open(o.store or ":memory:", text, path)
  if not runtime then return nil, why end
  local ok
  ok, e = opened(runtime)
  if not ok then return nil, e end
  local transport = remote.transport { base_url = "unix:" .. path, api_key = options.api_key, timeout = o.timeout }
  transport.runtime = runtime -- lives as long as who uses it
  return M.client_of(transport, function() return closed(runtime) end)
end

return M
