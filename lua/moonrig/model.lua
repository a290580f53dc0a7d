-- rig.provider and `--offline MODEL.lua`: a Lua function plays the language model.
local native = require "moonrig.native"
local declare = require "moonrig.declare"
local err = require "moonrig.err"

---@class moonrig.ModelContext
---@field session moonrig.Session
---@field generation integer
local Context = {}
Context.__index = Context

---Streams a piece of the answer.
---@param delta string
function Context:text(delta)
  self.streamed = true
  native.model_text(delta)
end

---@param text string
---@return string[] pieces cut between characters
local function pieces(text)
  local size, out, at = math.max(16, math.ceil(#text / 64)), {}, 1
  while at <= #text do
    local stop = math.min(at + size - 1, #text)
    while stop < #text and (text:byte(stop + 1) or 0) >= 0x80 and text:byte(stop + 1) < 0xC0 do stop = stop + 1 end
    out[#out + 1] = text:sub(at, stop)
    at = stop + 1
  end
  return out
end

local function tokens(value)
  local json = native.json_encode(value)
  return math.max(1, math.ceil((json and #json or 0) / 4))
end

local counter = 0
local function use_id()
  counter = counter + 1
  return ("toolu_%08x%06x%04x"):format(math.floor(native.now()) % 2 ^ 32, counter % 2 ^ 24, math.random(0, 65535))
end

local function reply_of(value)
  if type(value) == "string" then return { content = { { type = "text", text = value } } } end
  if type(value) ~= "table" then
    error(("a model function returns text, a list of content blocks, or { content = ... }; got %s"):format(type(value)), 0)
  end
  if value.content == nil then return { content = value.type and { value } or value } end
  local r = {}
  for k, v in pairs(value) do r[k] = v end
  if type(r.content) == "string" then r.content = { { type = "text", text = r.content } } end
  return r
end

---@param value any what the function returned
---@param request table
---@param streamed boolean text was streamed already
---@return table reply in the form of the Messages API
local function normal(value, request, streamed)
  local r = reply_of(value)
  local uses, content = false, setmetatable({}, native.array_mt)
  for i, b in ipairs(r.content) do
    local block = {}
    for k, v in pairs(type(b) == "string" and { type = "text", text = b } or b) do block[k] = v end
    if block.type == "tool_use" then
      uses = true
      block.id = block.id or use_id()
      block.input = block.input or {}
    elseif block.type == "text" and not streamed then
      for _, p in ipairs(pieces(block.text)) do native.model_text(p) end
    end
    content[i] = block
  end
  r.content = content
  r.stop_reason = r.stop_reason or (uses and "tool_use" or "end_turn")
  r.usage = r.usage or { input_tokens = tokens(request), output_tokens = tokens(content) }
  return r
end

native.entry("model", function(decl, request, session_id)
  local session = require "moonrig.session"
  local g = native.generation()
  local ctx = setmetatable({ session = session.handle(session_id), generation = g.number, streamed = false }, Context)
  local value, e = decl.run(request, ctx)
  if value == nil then
    if e == nil then return nil, "the model function returned nothing", "api_error" end
    return nil, err.text(e), type(e) == "table" and e.type or "api_error"
  end
  return normal(value, request, ctx.streamed)
end)

---@class moonrig.ProviderOptions
---@field name string
---@field models string|string[] names; "*" at the end of one stands for any rest
---@field run fun(request: table, ctx: moonrig.ModelContext): any, any

---Declares a model provider: run(request, ctx) answers for these model ids.
---request: { model, system, messages, tools } as in the Messages API. It returns text, a list of content
---blocks, or { content, stop_reason, usage }; or nil, err.
---@param o moonrig.ProviderOptions
local function provider(o)
  declare.keys("rig.provider", o, "name models run")
  declare.check("rig.provider", o, "name", "string", true)
  declare.check("rig.provider", o, "run", "function", true)
  local models = type(o.models) == "table" and table.concat(o.models, ",") or o.models
  if type(models) ~= "string" or models == "" then err.misuse("rig.provider: models is missing, e.g. \"test-*\"") end
  local p = { name = o.name, models = models, run = o.run }
  declare.add("provider", "rig.provider", p)
  return p
end

native.entry("offline", function(g, path, fn)
  if type(fn) ~= "function" then
    error(("%s: an offline model file returns function(request, ctx), got %s"):format(path, type(fn)), 0)
  end
  local list = g.decls.provider
  list[#list + 1] = { decl = { name = "offline", models = "*", run = fn }, where = path }
end)

return provider
