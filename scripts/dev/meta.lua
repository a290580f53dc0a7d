-- The types of everything public in `rig`, for editors, as the modules' own annotations say them: scripts/dev/gen_meta
-- writes them to lua/moonrig/_meta/rig.lua. It loads the modules over a native layer that does nothing, walks `rig`,
-- and takes for each function the comment above the line where it begins; for each class its block and its methods.
-- Operations are not here (gen_meta makes them from ops.def), nor the test kit (_meta/test.lua).
local dir = "lua/moonrig/"

local function stub() end
local native = setmetatable({ null = {}, parents = {}, WAIT = {}, err_mt = {}, array_mt = {}, ops = function() return {} end,
  test = false, jit = false, generation = stub, where = stub, entry = stub }, { __index = function() return function() end end })

local sources, order = {}, {} -- of a path: its lines

local function lines_of(path)
  if sources[path] then return sources[path] end
  local lines = {}
  for line in io.lines(path) do lines[#lines + 1] = line end
  sources[path] = lines
  order[#order + 1] = path
  return lines
end

-- ------------------------------------------------------------------------------------------- the modules

local loaded = { ["moonrig.native"] = native }
local env = setmetatable({}, { __index = _G })
function env.require(name)
  if loaded[name] == nil then
    local path = dir .. (name == "moonrig" and "init" or name:match "^moonrig%.(.*)$") .. ".lua"
    lines_of(path)
    loaded[name] = assert(loadfile(path, "t", env))() or true
  end
  return loaded[name]
end

---The comment that ends above a line, as its lines.
local function docs_above(lines, at)
  local first = at
  while first > 1 and lines[first - 1]:find "^%s*%-%-%-" do first = first - 1 end
  local docs = {}
  for i = first, at - 1 do docs[#docs + 1] = lines[i]:match "^%s*(.*)$" end
  return docs
end

-- ------------------------------------------------------------------------------------------- classes

local classes, bound = {}, {} -- by name: { docs, methods }; by path and variable: the class

local function collect(path)
  local lines, vars = lines_of(path), {}
  bound[path] = vars
  for i, line in ipairs(lines) do
    if line:find "^%-%-%-@class " then
      local name = line:match "^%-%-%-@class ([%w_%.]+)"
      local first, last = i, i
      while first > 1 and lines[first - 1]:find "^%-%-%-[^@]" do first = first - 1 end
      while lines[last + 1] and lines[last + 1]:find "^%-%-%-@[fo]" do last = last + 1 end -- field, overload
      local class = classes[name] or { docs = {}, methods = {}, fields = {} }
      classes[name] = class
      if not class.docs[1] then
        for k = first, last do
          class.docs[#class.docs + 1] = lines[k]
          local field = lines[k]:match "^%-%-%-@field ([%w_]+)"
          if field then class.fields[field] = true end
        end
      end
      local var = (lines[last + 1] or ""):match "^local ([%w_]+) =" or (lines[last + 1] or ""):match "^([%w_%.]+) ="
      if var then vars[var] = name end
    end
    local var, method, args = line:match "^function ([%w_]+):([%w_]+)(%b())"
    if var and vars[var] then
      local list, docs = classes[vars[var]].methods, docs_above(lines, i)
      if not (docs[1] or ""):find "^%-%-%-@private" then
        list[#list + 1] = { name = method, args = args, docs = docs }
      end
    end
  end
end

-- ------------------------------------------------------------------------------------------- functions

local out, undocumented = {}, {}
local function put(line) out[#out + 1] = line end

local function sorted(t)
  local keys = {}
  for k in pairs(t) do
    if type(k) == "string" and not k:find "^__" then keys[#keys + 1] = k end
  end
  table.sort(keys)
  return keys
end

local function put_function(at, f)
  local info = debug.getinfo(f, "S")
  local lines = sources[info.source:match "^@(.*)$" or ""]
  local docs = lines and docs_above(lines, info.linedefined) or {}
  local args = lines and lines[info.linedefined]:match "function[^%(]*(%b())"
  if not docs[1] or not args then
    undocumented[#undocumented + 1] = at
    return
  end
  put ""
  for _, d in ipairs(docs) do put(d) end
  put(("function %s%s end"):format(at, args))
end

---The functions of a table, then the tables in it. Those that a class has as fields are there already.
local function walk(at, t, class)
  local fields = classes[class] and classes[class].fields or {}
  for _, k in ipairs(sorted(t)) do
    if type(t[k]) == "function" and not fields[k] then put_function(at .. "." .. k, t[k]) end
  end
  for _, k in ipairs(sorted(t)) do
    if type(t[k]) == "table" and not fields[k] then
      local name = class .. "." .. k
      put ""
      for _, d in ipairs(classes[name] and classes[name].docs or {}) do put(d) end
      put(("%s.%s = {}"):format(at, k))
      if classes[name] then classes[name].done = true end
      walk(at .. "." .. k, t[k], name)
    end
  end
end

---The classes that these lines name in annotations.
local function named(lines, from, names)
  for i = from, #lines do
    for name in lines[i]:gmatch "moonrig%.[%w_%.]*[%w_]" do
      if lines[i]:find "^%-%-%-@" then names[name] = true end
    end
  end
  return names
end

---The classes that the text and the other files of types name, and those that they name, until there are no more.
local function put_classes()
  local known, from, wanted, missing = {}, 1, {}, {}
  for _, file in ipairs { "operations", "test" } do
    local lines = {}
    for line in io.lines(dir .. "_meta/" .. file .. ".lua") do
      lines[#lines + 1] = line
      local name = line:match "^%-%-%-@class ([%w_%.]+)" or line:match "^%-%-%-@meta (moonrig%.[%w_%.]+)"
      if name then known[name] = true end
    end
    named(lines, 1, wanted)
  end
  while from <= #out do
    named(out, from, wanted)
    from = #out + 1
    for _, name in ipairs(sorted(wanted)) do
      local class = classes[name]
      if class and not class.done then
        class.done = true
        put ""
        for _, d in ipairs(class.docs) do put(d) end
        local var = name:match "[%w_]+$"
        if class.methods[1] then put(("local %s = {}"):format(var)) end
        for _, m in ipairs(class.methods) do
          put ""
          for _, d in ipairs(m.docs) do put(d) end
          if not m.docs[1] then undocumented[#undocumented + 1] = name .. ":" .. m.name end
          put(("function %s:%s%s end"):format(var, m.name, m.args))
        end
      elseif not class and not known[name] then
        missing[#missing + 1] = name
      end
    end
    wanted = {}
  end
  return missing
end

local function generate()
  local rig = env.require "moonrig"
  table.sort(order)
  for i = 1, #order do collect(order[i]) end
  put "---@meta moonrig"
  put "-- Types of everything public for editors. Made by scripts/dev/gen_meta from the annotations in lua/moonrig."
  put ""
  for _, d in ipairs(classes.moonrig.docs) do put(d) end
  put "local rig = {}"
  classes.moonrig.done = true
  walk("rig", rig, "moonrig")
  local missing = put_classes()
  put ""
  put "return rig"
  if undocumented[1] then error("without annotations: " .. table.concat(undocumented, ", "), 0) end
  if missing[1] then error("classes that are named, but not there: " .. table.concat(missing, ", "), 0) end
  return table.concat(out, "\n") .. "\n"
end

if ... == "text" then return generate() end
io.write(generate())
