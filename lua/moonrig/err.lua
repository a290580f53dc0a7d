-- Errors as values: { type, message, status, field, request_id, retryable }, with __tostring, so that
-- assert(v, err) reads well.
local native = require "moonrig.native"

---@class moonrig.Error
---@field type string       machine-readable: "not_found_error", "timeout_error", ...
---@field message string    a sentence for people
---@field status? integer   HTTP status, where there was one
---@field field? string     the offending input field
---@field request_id? string
---@field retryable boolean trying again later may help

local M = {}

---An error as functions give it back: return nil, rig.error("not_found_error", "no such order").
---@param type string
---@param message string
---@param more? table other fields
---@return moonrig.Error
function M.new(type, message, more)
  local e = { type = type, message = message, retryable = false }
  for k, v in pairs(more or {}) do e[k] = v end
  return setmetatable(e, native.err_mt)
end

---Text of any error value.
---@return string
function M.text(e)
  if type(e) == "table" and e.message then return tostring(e.message) end
  return tostring(e)
end

---A message handler: a traceback for texts, other values as they are.
function M.traced(e)
  if type(e) == "string" then return debug.traceback(e, 2) end
  return e
end

---Raises misuse at the caller's line in the user's script.
function M.misuse(fmt, ...)
  native.raise(select("#", ...) > 0 and string.format(fmt, ...) or fmt)
end

return M
