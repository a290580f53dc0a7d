-- A first check of JSON Schemas when scripts load, so that a typing error is found by the reload and not
-- by the model. The core validates inputs.
local native = require "moonrig.native"
local M = {}

local types = { object = true, array = true, string = true, number = true, integer = true, boolean = true, null = true }
local numbers = { "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "multipleOf" }
local check

local function each(s, key, path, kind)
  if s[key] == nil then return end
  if type(s[key]) ~= "table" then return ("%s%s must be a table"):format(path, key) end
  for k, sub in pairs(s[key]) do
    if kind == "list" and type(k) ~= "number" then return ("%s%s must be a list"):format(path, key) end
    if kind == "map" and type(k) ~= "string" then return ("%s%s must have names as keys"):format(path, key) end
    local e = check(sub, ("%s%s.%s."):format(path, key, tostring(k)))
    if e then return e end
  end
end

local function check_type(t, path)
  for _, one in ipairs(type(t) == "table" and t or { t }) do
    if not types[one] then return ("%stype: %s is not a JSON type"):format(path, tostring(one)) end
  end
end

function check(s, path)
  if type(s) == "boolean" then return end
  if type(s) ~= "table" then return ("%s: a schema is a table, got %s"):format(path:gsub("%.$", ""), type(s)) end
  local e = s.type ~= nil and check_type(s.type, path)
  if e then return e end
  if s.required ~= nil then
    if type(s.required) ~= "table" then return path .. "required must be a list of names" end
    for k, name in pairs(s.required) do
      if type(k) ~= "number" or type(name) ~= "string" then return path .. "required must be a list of names" end
    end
  end
  if s.enum ~= nil and type(s.enum) ~= "table" then return path .. "enum must be a list" end
  if s.pattern ~= nil and type(s.pattern) ~= "string" then return path .. "pattern must be a string" end
  for _, k in ipairs(numbers) do
    if s[k] ~= nil and type(s[k]) ~= "number" then return path .. k .. " must be a number" end
  end
  return each(s, "properties", path, "map") or each(s, "anyOf", path, "list") or each(s, "oneOf", path, "list")
    or each(s, "allOf", path, "list")
    or (s.items ~= nil and check(s.items, path .. "items.")) or nil
end

---@param s table a tool's input schema
---@return string? problem
function M.problem(s)
  if type(s) ~= "table" then return "input_schema must be a table" end
  if s.type ~= "object" then return "input_schema.type must be \"object\"" end
  return check(s, "input_schema.")
end

---@param s table
---@return string? json
---@return moonrig.Error? err
function M.json(s)
  return native.json_encode(s, false, true)
end

return M
