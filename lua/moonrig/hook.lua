-- rig.hook: a say in what agents do. Phase "permit": may this tool call run?
local native = require "moonrig.native"
local declare = require "moonrig.declare"

---@class moonrig.HookOptions
---@field phase "permit"
---@field name? string  for the log
---@field agent? string only this agent (name or id)
---@field tool? string  only this tool
---@field fail? "closed"|"open" when the handler fails or is late: refuse, or no opinion (default)
---@field run fun(call: table, ctx: table): string?, any

---Declares a hook. run returns "allow"; "ask", why; "deny", why; "rewrite", input; or nothing, and then
---the next hook is asked. call: { name, input, session, agent, ... }.
---@param o moonrig.HookOptions
local function hook(o)
  declare.keys("rig.hook", o, "phase name agent tool fail run")
  declare.check("rig.hook", o, "run", "function", true)
  for _, k in ipairs { "name", "tool" } do declare.check("rig.hook", o, k, "string") end
  if o.phase ~= "permit" then
    native.raise(("rig.hook: phase %s is not there; \"permit\" is"):format(tostring(o.phase)))
  end
  if o.fail ~= nil and o.fail ~= "closed" and o.fail ~= "open" then
    native.raise("rig.hook: fail is \"closed\" or \"open\"")
  end
  local h = {}
  for k, v in pairs(o) do h[k] = v end
  if type(h.agent) == "table" then h.agent = h.agent.name end
  declare.add("hook", "rig.hook", h)
  return h
end

local decisions = { allow = true, ask = true, deny = true, rewrite = true }

native.entry("hook", function(decl, call)
  local session = require "moonrig.session"
  local g = native.generation()
  local id = call.session_id or (type(call.session) == "string" and call.session) or nil
  if id then call.session = session.handle(id) end
  local ctx = { generation = g.number, session = call.session }
  function ctx.log(...)
    native.log(2, "hook " .. (decl.name or decl.phase), table.concat({ ... }, " "))
  end
  local decision, detail = decl.run(call, ctx)
  if decision == nil then return nil end
  if not decisions[decision] then
    error(("the hook returned %q; it is \"allow\", \"ask\", \"deny\", \"rewrite\" or nothing"):format(tostring(decision)), 0)
  end
  if decision == "rewrite" then
    if type(detail) ~= "table" then error("\"rewrite\" needs the new input as its second result", 0) end
    return { decision = "rewrite", input = detail }
  end
  return { decision = decision, message = detail ~= nil and tostring(detail) or nil }
end)

return hook
