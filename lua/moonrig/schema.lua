-- A check of JSON Schemas when scripts load, so that a typing error is found by the reload and not by the model.
-- It knows the keywords that say something about a value, and what each takes; names that it does not know are
-- left alone, unless one looks like a misspelt keyword. The core validates inputs.
local native = require "moonrig.native"
local similar = require "moonrig.similar"
local M = {}

local DEPTH_MAX = 64
local types = { object = true, array = true, string = true, number = true, integer = true, boolean = true, null = true }
local check

local function plain(v) return type(v) == "table" and v ~= native.null end

local function is_list(v)
  if not plain(v) then return false end
  for k in pairs(v) do
    if type(k) ~= "number" or k < 1 or k > #v or k ~= math.floor(k) then return false end
  end
  return true
end

local function show(v)
  return type(v) == "string" and ("%q"):format(v) or type(v) == "table" and "a table" or tostring(v)
end

-- ------------------------------------------------------------------------- what a keyword takes: problem or nil

local is = {}

function is.schema(v, path, depth) return check(v, path .. ".", depth + 1) end

function is.schemas(v, path, depth)
  if not is_list(v) or #v == 0 then return path .. " must be a list of schemas" end
  for i, sub in ipairs(v) do
    local e = check(sub, ("%s.%d."):format(path, i), depth + 1)
    if e then return e end
  end
end

function is.items(v, path, depth)
  if plain(v) and v[1] ~= nil then return is.schemas(v, path, depth) end
  return is.schema(v, path, depth)
end

function is.properties(v, path, depth)
  if not plain(v) then return path .. " must be a table" end
  for name, sub in pairs(v) do
    if type(name) ~= "string" then return path .. " must have names as keys" end
    local e = check(sub, ("%s.%s."):format(path, name), depth + 1)
    if e then return e end
  end
end

function is.names(v, path)
  if not is_list(v) then return path .. " must be a list of names" end
  local seen = {}
  for _, name in ipairs(v) do
    if type(name) ~= "string" then return path .. " must be a list of names" end
    if seen[name] then return ("%s has %q twice"):format(path, name) end
    seen[name] = true
  end
end

function is.list(v, path)
  if not is_list(v) then return path .. " must be a list" end
  if #v == 0 then return path .. " is empty: no value would be valid" end
end

function is.string(v, path)
  if type(v) ~= "string" then return path .. " must be a string" end
end

function is.boolean(v, path)
  if type(v) ~= "boolean" then return path .. " must be true or false" end
end

function is.number(v, path)
  if type(v) ~= "number" or v ~= v then return path .. " must be a number" end
end

function is.positive(v, path)
  if type(v) ~= "number" or not (v > 0) then return path .. " must be a number above 0" end
end

function is.count(v, path)
  if type(v) ~= "number" then return path .. " must be a number" end
  if v < 0 or v ~= math.floor(v) then return path .. " must be a whole number, not negative" end
end

---Draft 4 has true or false here, later ones a number.
function is.bound(v, path)
  if type(v) ~= "boolean" then return is.number(v, path) end
end

function is.dependencies(v, path, depth)
  if not plain(v) then return path .. " must be a table" end
  for name, sub in pairs(v) do
    local at = ("%s.%s"):format(path, tostring(name))
    local e = plain(sub) and #sub > 0 and is.names(sub, at) or not (plain(sub) and #sub > 0) and is.schema(sub, at, depth)
    if e then return e end
  end
end

function is.type(t, path)
  if plain(t) and (not is_list(t) or #t == 0) then return path .. " must be a type or a list of types" end
  for _, one in ipairs(plain(t) and t or { t }) do
    if not types[one] then
      local close = similar(one, { "object", "array", "string", "number", "integer", "boolean", "null" })
      return ("%s: %s is not a JSON type%s"):format(path, tostring(one), close and "; did you mean " .. close .. "?" or "")
    end
  end
end

---A regular expression as JSON Schema means it, as far as brackets go.
function is.pattern(v, path)
  if type(v) ~= "string" then return path .. " must be a string" end
  local open, class, i = 0, false, 1
  while i <= #v do
    local c = v:sub(i, i)
    if c == "\\" then
      if i == #v then return path .. ": nothing follows the last backslash" end
      i = i + 1
    elseif class then
      class = c ~= "]"
    elseif c == "[" then
      class = true
      if v:sub(i + 1, i + 1) == "^" then i = i + 1 end
    elseif c == "(" then
      open = open + 1
    elseif c == ")" then
      open = open - 1
      if open < 0 then return ("%s: %s closes a group that was not opened"):format(path, show(v)) end
    elseif c:find "[*+?]" and (i == 1 or v:sub(1, i - 1):find "^%^$" or v:sub(1, i - 1):find "[^\\][(|]$" or v:sub(1, i - 1):find "^[(|]$") then
      if not (c == "?" and v:sub(i - 1, i - 1) == "(") then return ("%s: %s repeats nothing at %d"):format(path, show(v), i) end
    end
    i = i + 1
  end
  if class then return ("%s: %s has a [ without ]"):format(path, show(v)) end
  if open > 0 then return ("%s: %s has a ( without )"):format(path, show(v)) end
  if v:find "%%[adlpsuw][+*?$]" then return ("%s: %s is a Lua pattern; JSON Schema has regular expressions: \\d, \\s, \\w"):format(path, show(v)) end
end

local keywords = {
  type = is.type, enum = is.list, pattern = is.pattern, required = is.names, properties = is.properties,
  patternProperties = is.properties, definitions = is.properties, ["$defs"] = is.properties,
  dependentSchemas = is.properties, additionalProperties = is.schema, propertyNames = is.schema, items = is.items,
  prefixItems = is.schemas, additionalItems = is.schema, contains = is.schema, ["not"] = is.schema, ["if"] = is.schema,
  ["then"] = is.schema, ["else"] = is.schema, anyOf = is.schemas, oneOf = is.schemas, allOf = is.schemas,
  minimum = is.number, maximum = is.number, exclusiveMinimum = is.bound, exclusiveMaximum = is.bound,
  multipleOf = is.positive, minLength = is.count, maxLength = is.count, minItems = is.count, maxItems = is.count,
  minProperties = is.count, maxProperties = is.count, uniqueItems = is.boolean, title = is.string,
  description = is.string, format = is.string, ["$ref"] = is.string, ["$id"] = is.string, ["$schema"] = is.string,
  dependencies = is.dependencies, readOnly = is.boolean, writeOnly = is.boolean, deprecated = is.boolean,
}
local names = {}
for name in pairs(keywords) do names[#names + 1] = name end
table.sort(names)
for _, name in ipairs { "const", "default", "examples", "example", "id", "nullable", "$comment", "$anchor",
  "$dynamicRef", "$dynamicAnchor", "$vocabulary", "minContains", "maxContains", "unevaluatedItems",
  "unevaluatedProperties", "contentEncoding", "contentMediaType", "contentSchema", "dependentRequired" } do
  names[#names + 1] = name
end

local pairs_of = { { "minimum", "maximum" }, { "minLength", "maxLength" }, { "minItems", "maxItems" },
  { "minProperties", "maxProperties" } }

local function check_sense(s, path)
  for _, p in ipairs(pairs_of) do
    if s[p[1]] and s[p[2]] and s[p[1]] > s[p[2]] then
      return ("%s%s is above %s: no value would be valid"):format(path, p[1], p[2])
    end
  end
  if s.required and plain(s.properties) and s.additionalProperties == false then
    for _, name in ipairs(s.required) do
      if s.properties[name] == nil then return ("%srequired: %q is not among the properties"):format(path, name) end
    end
  end
end

local function known(name)
  for _, n in ipairs(names) do
    if n == name then return true end
  end
end

function check(s, path, depth)
  if type(s) == "boolean" then return end
  local at = path:gsub("%.$", "")
  if not plain(s) then return ("%s: a schema is a table, got %s"):format(at, type(s)) end
  if depth > DEPTH_MAX then return ("%s: nested more than %d deep"):format(at, DEPTH_MAX) end
  local order = {}
  for key in pairs(s) do
    if type(key) ~= "string" then return ("%s: a schema has names as keys, not %s"):format(at, tostring(key)) end
    order[#order + 1] = key
  end
  table.sort(order) -- the same problem is named each time
  for _, key in ipairs(order) do
    local takes = keywords[key]
    local e = takes and takes(s[key], path .. key, depth)
    if e then return e end
    local close = not takes and not known(key) and similar(key, names)
    if close then return ("%s%s is not a keyword; did you mean %s?"):format(path, key, close) end
  end
  return check_sense(s, path)
end

---@param s table a tool's input schema
---@return string? problem
function M.problem(s)
  if not plain(s) then return "input_schema must be a table" end
  if s.type ~= "object" then return "input_schema.type must be \"object\"" end
  return check(s, "input_schema.", 1)
end

---@param s table
---@return string? json
---@return moonrig.Error? err
function M.json(s)
  return native.json_encode(s, false, true)
end

return M
