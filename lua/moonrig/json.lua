-- JSON, exact: integers of 64 bits, empty arrays and objects, null; objects are written with sorted keys.
local native = require "moonrig.native"

---@class moonrig.json
---@field null moonrig.Null
local M = {}

---JSON's null. An absent field is nil; a field that is null reads as this.
M.null = native.null

---Marks a table as an array, so that an empty one is written as [].
---@param t? table
---@return table
function M.array(t)
  return setmetatable(t or {}, native.array_mt)
end

---The value as JSON text.
---@param value any
---@param options? { pretty?: boolean }
---@return string? text
---@return moonrig.Error? err bad UTF-8, NaN; a value with no JSON form raises
function M.encode(value, options)
  return native.json_encode(value, options and options.pretty)
end

---The value of a JSON text.
---@param text string
---@return any value
---@return moonrig.Error? err with the byte where it broke
function M.decode(text)
  return native.json_decode(text)
end

return M
