-- The plural face: every operation of the system as rig.agents.create, rig.sessions.events.list and so on,
-- made from the core's operation table. Wire objects in, wire objects out; a member that is null reads as
-- nil.
--
-- What carries an operation out is a transport: call(name, params, opts) -> result | nil, err, stream_open(name,
-- params, opts) -> stream | nil, err, stream_next(stream) -> event | nothing | nil, err, stream_close(stream). This
-- module's own is the runtime that the scripts run in; moonrig.remote has another over HTTP. opts: timeout (seconds),
-- body ({ path | bytes, filename, media_type }, uploads), to (downloads: a path, or "" for the bytes).
--
--   rig.sessions.retrieve(id)                      path parameters first, a handle where an id goes
--   rig.agents.create{ name = ..., model = ... }
--   rig.sessions.events.list(id, { limit = 10 })   then the table of query or body fields
--   rig.agents.list({}, { timeout = 5 })           then options of the call
--   rig.agents.list()                              a page: data, next_page, :all(), :pages()
--   for a in rig.agents.each() do ... end          all items of all pages; raises on failure
--   for ev in rig.sessions.events.stream(id) do    raises when the stream breaks; closed when collected
--   rig.files.upload "report.pdf"                  or { path = | bytes =, filename =, media_type = }
--   rig.files.download(id)                         the bytes; with { to = path } into a file
local native = require "moonrig.native"
local wait = require "moonrig.wait"
local err = require "moonrig.err"
local form = require "moonrig.form"

---@class moonrig.Transport
---@field call fun(name: string, params: table, opts?: table): any, moonrig.Error?
---@field stream_open fun(name: string, params: table, opts?: table): any, moonrig.Error?
---@field stream_next fun(stream: any): table?, moonrig.Error?
---@field stream_close fun(stream: any)

---@class moonrig.Api: moonrig.Transport
local M = { call = wait(native.call), stream_open = native.stream_open, stream_next = wait(native.stream_next),
  stream_close = native.stream_close }

-- ------------------------------------------------------------------------------------------------- pages

---@class moonrig.Page
---@field data table[]
---@field next_page? string
local Page = {}
Page.__index = Page
local origin = setmetatable({}, { __mode = "k" }) -- of a page: the function and parameters that made it

---Iterates over this page and those after it. Raises when a later page fails.
---@return fun(): moonrig.Page?
function Page:pages()
  local page, first = self, true
  return function()
    if first then
      first = false
      return page
    end
    if not page or not page.next_page then return nil end
    local from, params = origin[page], {}
    for k, v in pairs(from.params) do params[k] = v end
    params.page = page.next_page
    local e
    page, e = from.fetch(params, from.opts)
    if not page then error(e, 0) end
    return page
  end
end

---Iterates over the items of this page and those after it. Raises when a later page fails.
---@return fun(): table?
function Page:all()
  local pages, page, i = self:pages(), nil, 0
  return function()
    while true do
      if page and i < #page.data then
        i = i + 1
        return page.data[i]
      end
      page, i = pages(), 0
      if not page then return nil end
    end
  end
end

local function fetcher(transport, name)
  local function fetch(params, opts)
    local page, e = transport.call(name, params, opts)
    if not page then return nil, e end
    page.data = page.data or {}
    origin[page] = { fetch = fetch, params = params, opts = opts }
    return setmetatable(page, Page)
  end
  return fetch
end

-- --------------------------------------------------------------------------------------------- arguments

local function has_id(v)
  return type(v) == "string" or type(v) == "number" or type(v) == "table" and type(v.id) == "string"
end

---A handle that must ask for its id (an agent declared in the same scripts) becomes that id.
local function resolved(transport, v)
  local mt = type(v) == "table" and getmetatable(v)
  if type(mt) == "table" and mt.resolve then return mt.resolve(v, transport) end
  return v
end

---Arguments of a call to one table: ids for the path, then fields. params, opts; or nil, err.
local function arguments(transport, op, ...)
  local args, params, at = { ... }, {}, 1
  for _, name in ipairs(op.params) do
    local v, e = resolved(transport, args[at])
    if e then return nil, e end
    if not has_id(v) then break end
    params[name] = type(v) == "table" and v.id or v
    at = at + 1
  end
  local fields, opts = args[at], args[at + 1]
  for what, t in pairs { ["a table of fields"] = fields or {}, ["a table of options"] = opts or {} } do
    if type(t) ~= "table" then err.misuse("rig.%s: %s expected, got %s", op.name, what, type(t)) end
  end
  for k, v in pairs(fields or {}) do
    local e
    params[k], e = resolved(transport, v)
    if e then return nil, e end
  end
  for _, name in ipairs(op.params) do
    if params[name] == nil then err.misuse("rig.%s: %s is missing", op.name, name) end
  end
  return params, opts
end

-- -------------------------------------------------------------------------------- uploads and downloads

local function upload(transport, op)
  return function(what, fields, opts)
    local o = {}
    for k, v in pairs(type(what) == "table" and what or { path = what }) do o[k] = v end
    for k, v in pairs(fields or {}) do o[k] = v end
    if (type(o.path) == "string") == (type(o.bytes) == "string") then
      err.misuse("rig.%s: path or bytes (one of them, a string) is missing", op.name)
    end
    local name = o.filename or (o.path and o.path:match "[^/]+$") or "upload"
    local body = { path = o.path, bytes = o.bytes, filename = name,
      media_type = o.media_type or form.media_type(name) }
    o.path, o.bytes, o.filename, o.media_type = nil, nil, nil, nil
    return transport.call(op.name, o, { body = body, timeout = opts and opts.timeout })
  end
end

local function download(transport, op)
  return function(...)
    local params, opts = arguments(transport, op, ...)
    if not params then return nil, opts end
    local to = params.to
    params.to = nil
    if to ~= nil and (type(to) ~= "string" or to == "") then err.misuse("rig.%s: to is a path", op.name) end
    return transport.call(op.name, params, { to = to or "", timeout = opts and opts.timeout })
  end
end

-- --------------------------------------------------------------------------------------------- functions

---@class moonrig.Stream calling it gives the next event
---@overload fun(): table?
local Stream = {}
Stream.__index = Stream
function Stream.__call(self)
  if not self.handle then return nil end
  local ev, e = self.transport.stream_next(self.handle)
  if e then error(e, 0) end
  return ev
end

---Ends it; a task that waits for its next event gets nothing.
function Stream:close()
  if self.handle then self.transport.stream_close(self.handle) end
  self.handle = nil
end

local function stream(transport, op)
  return function(...)
    local params, opts = arguments(transport, op, ...)
    if not params then return nil, opts end
    local handle, e = transport.stream_open(op.name, params, opts)
    if not handle then return nil, e end
    return setmetatable({ handle = handle, transport = transport }, Stream)
  end
end

local function plain(transport, op)
  local send = op.list and fetcher(transport, op.name) or function(...) return transport.call(op.name, ...) end
  return function(...)
    local params, opts = arguments(transport, op, ...)
    if not params then return nil, opts end
    return send(params, opts)
  end
end

---Iterates over the items of all pages.
local function each(list)
  return function(...)
    local page, e = list(...)
    if not page then error(e, 0) end
    return page:all()
  end
end

---All operations, with the names of their path parameters.
---@return table[]
function M.operations()
  local ops = native.ops()
  for _, op in ipairs(ops) do
    op.params = {}
    for name in op.path:gmatch "{([%w_]+)}" do op.params[#op.params + 1] = name end
  end
  return ops
end

---Puts a function for each operation into the table.
---@param rig table
---@param transport? moonrig.Transport default: the runtime of these scripts
function M.install(rig, transport)
  transport = transport or M
  for _, op in ipairs(M.operations()) do
    local at, last = rig, nil
    for part in op.name:gmatch "[^%.]+" do
      if last then
        at[last] = at[last] or {}
        at = at[last]
      end
      last = part
    end
    local make = op.stream and stream or op.upload and upload or op.download and download or plain
    at[last] = make(transport, op)
    if op.list and last == "list" then at.each = each(at.list) end
  end
end

return M
