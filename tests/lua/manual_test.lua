-- The manual has a snippet that the tests run for everything public: each function of rig, each method of the objects
-- that scripts get. What there is comes from rig itself and from the types for editors, which must be as the modules say.
local rig = require "moonrig"
local t = require "kit"

local META = "lua/moonrig/_meta/"

local function read(path)
  local f = assert(io.open(path))
  local text = f:read "*a"
  f:close()
  return text
end

---The manual's code of these kinds, without comments.
local function code(kinds)
  local out, on = {}, false
  for line in io.lines "lua/README.md" do
    local info = line:match "^```(.*)$"
    if info then
      on = not on and kinds[info] or false
    elseif on then
      out[#out + 1] = (line:gsub("^%s*%-%-.*$", ""):gsub("%s%-%-%s.*$", ""))
    end
  end
  return table.concat(out, "\n") .. "\n"
end
local run = { ["lua"] = true, ["lua task"] = true, ["lua task real"] = true, ["lua test"] = true }
local manual = code(run)

local function names(path) return (path:gsub("%p", "%%%0")) .. "%f[^%w_]" end
local function has(text, path) return text:find("%f[%w_]" .. names(path)) ~= nil end

local function none(missing, what)
  table.sort(missing)
  t.equal(table.concat(missing, ", "), "", what)
end

-- Operations are tables of their own, and documented as one.
local operations, implemented = {}, {}
for line in io.lines "core/ops/ops.def" do
  local kind, name = line:match '^(%u+)%("([%w_%.]+)"'
  if kind == "OP" or kind == "TODO" then operations[name:match "^[^%.]+"] = true end
  if kind == "OP" then implemented[#implemented + 1] = name end
end

-- All functions: path, in the order of their names, those near the top first; what is there under two names once.
local function functions()
  local list, seen, level = {}, {}, { { "rig", rig } }
  while #level > 0 do
    local deeper, found = {}, {}
    for _, e in ipairs(level) do
      for k, v in next, e[2] do
        local path = e[1] .. "." .. tostring(k)
        if type(v) == "function" then found[#found + 1] = { path, v } end
        if type(v) == "table" and not (e[1] == "rig" and (operations[k] or k == "env")) then deeper[#deeper + 1] = { path, v } end
      end
    end
    for _, e in ipairs(found) do
      seen[e[2]] = seen[e[2]] or {}
      table.insert(seen[e[2]], e[1])
      if #seen[e[2]] == 1 then list[#list + 1] = seen[e[2]] end
    end
    level = deeper
  end
  return list
end

t.test("the manual's code is found, and only kinds that the tests run", function()
  for line in io.lines "lua/README.md" do
    local info = line:match "^```(lua.*)$"
    t.ok(info == nil or run[info], info)
  end
  t.ok(has(manual, "rig.http.get"))
  t.ok(not has("rig.fs.read_all rig.fs.reads", "rig.fs.read"))
  t.ok(not has(code { console = true }, "rig.http.get"))
end)

t.test("the contents name every section, and lead there", function()
  local linked, n = {}, 0
  for title, anchor in read "lua/README.md":match("^(.-)\n## "):gsub("%s+", " "):gmatch "%[([^%]]+)%]%(#([^)]+)%)" do
    linked[title] = anchor
  end
  for line in io.lines "lua/README.md" do
    local title = line:match "^## (.*)$"
    if title then
      n = n + 1
      t.equal(linked[title], (title:lower():gsub("[^%w%s%-_]", ""):gsub("%s", "-")), title)
      linked[title] = nil
    end
  end
  t.ok(n > 15, n .. " sections")
  t.equal(next(linked), nil, "a section that is not there")
end)

t.test("every function of rig is in a snippet", function()
  local missing, n = {}, 0
  for _, paths in ipairs(functions()) do
    local found = false
    for _, path in ipairs(paths) do found = found or has(manual, path) end
    if not found then missing[#missing + 1] = paths[1] end
    n = n + 1
  end
  t.ok(n > 80, n .. " functions")
  none(missing, "without a snippet")
end)

t.test("every operation is there to be called", function()
  t.ok(#implemented > 25, "operations")
  for _, name in ipairs(implemented) do
    local at = rig
    for part in name:gmatch "[^%.]+" do at = t.ok(at[part], name) end
    t.equal(type(at), "function", name)
  end
end)

-- What the objects are called in the snippets.
local called = {
  Session = { "s", "session" }, Turn = { "turn" }, Pending = { "call" }, Follower = { "follower" }, Page = { "page" },
  Stream = { "stream" }, Task = { "task", "other" }, Response = { "res" },
  StreamedResponse = { "feed", "big", '"http://example.test/log")' }, Request = { "req" }, RouteResponse = { "res" },
  ModelContext = { "ctx" }, Sqlite = { "db", "tx" }, ToolContext = { "ctx" }, HookContext = { "ctx" },
  ScheduleContext = { "ctx" }, Thread = { "thread" }, Client = { "lab", "far" },
}

---Methods and functions of each class, by its last name. Options have functions of the script, not ours.
local function methods()
  local list, class = {}, nil
  for line in io.lines(META .. "rig.lua") do
    class = line:match "^%-%-%-@class moonrig%.([%w_]+)" or class
    local name = line:match "^function %u%w*:([%w_]+)" or line:match "^%-%-%-@field ([%w_]+)%??%s+fun%("
    if line:find "^function rig" or line:find "^local rig" then class = nil end
    if class and name and not class:find "^%l" and not class:find "Options$" then list[#list + 1] = { class, name } end
  end
  return list
end

t.test("every method is in a snippet", function()
  local missing, n = {}, 0
  for _, m in ipairs(methods()) do
    local class, name = m[1], m[2]
    local found = false
    for _, var in ipairs(t.ok(called[class], "a name in `called` for objects of " .. class)) do
      local at = var:find "%W" and var:gsub("%p", "%%%0") or "%f[%w_]" .. var
      found = found or manual:find(at .. "[:%.]" .. name .. "%f[^%w_]") ~= nil
    end
    if not found then missing[#missing + 1] = class .. ":" .. name end
    n = n + 1
  end
  t.ok(n > 40, n .. " methods")
  none(missing, "without a snippet")
end)

t.test("every function of the test kit is in a snippet", function()
  local snippets, missing, n = code { ["lua test"] = true }, {}, 0
  local source = "\n" .. read "lua/moonrig/test.lua"
  for _, pattern in ipairs { "\nfunction (t%.[%w_]+)", "\n(t%.[%w_]+) = " } do
    for name in source:gmatch(pattern) do
      n = n + 1
      if not has(snippets, name) then missing[#missing + 1] = name end
    end
  end
  t.ok(n > 20, n .. " functions")
  none(missing, "without a snippet")
end)

t.test("the types for editors are as the modules say (else run scripts/dev/gen_meta)", function()
  local want = assert(loadfile "scripts/dev/meta.lua")("text")
  local have = read(META .. "rig.lua")
  local line = 1
  for a, b in (want .. "\n"):gmatch "([^\n]*)()" do
    local mine = have:sub(b - #a, b - 1)
    if a ~= mine then error(("rig.lua:%d has %q, not %q"):format(line, mine, a)) end
    line = line + 1
  end
  t.equal(#have, #want)
end)

t.test("the types for editors are Lua, and name all of rig", function()
  for _, file in ipairs { "rig", "operations", "test" } do assert(load(read(META .. file .. ".lua"), "=" .. file)) end
  local types, missing = read(META .. "rig.lua"), {}
  for _, paths in ipairs(functions()) do
    local class, name = paths[1]:match "^(.*)%.([^%.]+)$"
    local at = types:find("\nfunction " .. names(paths[1]) .. "%(")
    if not at then -- a field of the table's class
      local block = types:match("%-%-%-@class " .. class:gsub("^rig", "moonrig") .. "\n(.-)\n[^%-]") or ""
      at = (block .. "\n"):find("@field " .. name .. " ", 1, true)
    end
    if not at then missing[#missing + 1] = paths[1] end
  end
  none(missing, "without a type")
end)

t.test("the types for editors name the arguments that there are", function()
  for _, file in ipairs { "rig", "operations", "test" } do
    local docs, n = {}, 0
    for line in io.lines(META .. file .. ".lua") do
      local args = line:match "^function [^%(]*(%b())"
      local param = line:match "^%-%-%-@param ([%w_%.]+)"
      if param then docs[param] = true end
      for name in (args or ""):gmatch "[%w_%.]+" do
        t.ok(docs[name], ("%s: a type of %s in %s"):format(file, name, line))
        docs[name], n = nil, n + 1
      end
      if args then t.equal(next(docs), nil, ("%s: no argument of %s"):format(file, line)) end
      if not line:find "^%-%-%-" then docs = {} end
    end
    t.ok(n > 20, n .. " arguments")
  end
end)

rig.main(t.run)
