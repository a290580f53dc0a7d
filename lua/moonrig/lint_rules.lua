-- What is judged of a script that was read but not run (lint_parse.lua's facts): globals, modules, names of rig,
-- handlers that would stop all tasks, names that nothing declares.
local env = require "moonrig.env"
local native = require "moonrig.native"
local similar = require "moonrig.similar"

local M = {}

-- Globals of Lua 5.1 to 5.4 and LuaJIT: a script for both asks for those of the other.
local globals = {}
for name in ([[_G _VERSION assert collectgarbage dofile error getmetatable ipairs load loadfile next pairs pcall print
  rawequal rawget rawlen rawset require select setmetatable tonumber tostring type warn xpcall coroutine table io os
  string utf8 math debug package unpack loadstring getfenv setfenv jit bit gcinfo bit32]]):gmatch "%S+" do
  globals[name] = true
end

local function sorted_keys(t)
  local list = {}
  for k in pairs(t) do
    if type(k) == "string" then list[#list + 1] = k end
  end
  table.sort(list)
  return list
end

-- ------------------------------------------------------------------------------------------------ globals

---@param files { path: string, facts: table }[]
---@param add fun(path: string, line: integer, rule: string, message: string, fix: string)
function M.globals(files, add)
  local written = {}
  for _, f in ipairs(files) do
    for _, w in ipairs(f.facts.writes) do
      if not globals[w.name] then written[w.name] = true end
      add(f.path, w.line, "global-write", ("%s is a global here: every script sees and changes it"):format(w.name),
        globals[w.name] and ("give it another name; %s is Lua's"):format(w.name)
        or ("write local %s, or keep it in a table that the file returns"):format(w.name))
    end
  end
  for _, f in ipairs(files) do
    for _, r in ipairs(f.facts.reads) do
      if not globals[r.name] and not written[r.name] then
        local close = similar(r.name, sorted_keys(globals))
        add(f.path, r.line, "global-read", ("nothing defines %s: it is nil"):format(r.name),
          r.name == "rig" and 'begin the file with local rig = require "moonrig"'
          or close and ("did you mean %s?"):format(close) or ("define it with local %s, or require what has it"):format(r.name))
      end
    end
  end
end

-- ------------------------------------------------------------------------------------------ names of rig

---rig.htp.get: the first name on the way that is not there.
function M.names(f, rig, add)
  local deepest = {} -- line and name, so that rig.a and rig.a.b are one problem
  for _, use in ipairs(f.facts.rig) do
    local at = rig
    for i = 2, #use.path do
      local name = use.path[i]
      local meta = debug.getmetatable(at)
      local open = meta and meta.__index and at ~= rig
      if type(at) ~= "table" or open then break end
      local v = rawget(at, name)
      if v == nil and not (at == rig and (name == "cjson" or name == "workflow" or name == "connect" or name == "new")) then
        local what = table.concat(use.path, ".", 1, i - 1)
        local close = similar(name, sorted_keys(at))
        if not deepest[use.line .. what .. name] then
          deepest[use.line .. what .. name] = true
          add(f.path, use.line, "unknown-name", ("%s has no %s"):format(what, name),
            close and ("did you mean %s.%s?"):format(what, close) or ("see lua/README.md for what %s has"):format(what))
        end
        break
      end
      at = v
    end
  end
end

-- ----------------------------------------------------------------------------------------------- modules

---Modules that handlers require late; those of the top level were loaded.
function M.modules(f, g, add)
  for _, r in ipairs(f.facts.requires) do
    if not r.fn.main and r.name ~= "moonrig" then
      local path = env.find(g, g.env, r.name)
      if not path and not g.env.package.loaded[r.name] and not g.env.package.preload[r.name]
        and not package.searchpath(r.name, g.env.package.cpath) then
        local beside = f.path:match "^(.*)/" or "."
        if not native.is_file(("%s/%s.lua"):format(beside, (r.name:gsub("%.", "/")))) then
          add(f.path, r.line, "missing-module", ("there is no module '%s'"):format(r.name),
            "put it beside the scripts, or require it at top level to see where it is looked for")
        end
      end
    end
  end
end

-- ----------------------------------------------------------------------------------------------- handlers

local blocking = {
  ["os.execute"] = "rig.http or rig.fs, or a tool of the agent's sandbox",
  ["io.popen"] = "rig.http or rig.fs, or a tool of the agent's sandbox",
  ["io.read"] = "rig.fs.read, or ask before, in rig.main",
  ["io.stdin.read"] = "rig.fs.read, or ask before, in rig.main",
  ["io.stdin.lines"] = "rig.fs.lines, or ask before, in rig.main",
}

---Functions that run as handlers: in the table given to rig.tool, rig.hook, rig.on ... (not to rig.main).
local function handlers(f)
  local roots = {}
  for _, call in ipairs(f.facts.calls) do
    local node = call.args[1]
    local what = call.path and call.path[1] == "rig" and #call.path == 2 and call.path[2]
    if what and what ~= "main" and what ~= "check" and node and node.fields then
      for key, field in pairs(node.fields) do
        local fn = field.node.fn or (field.node.binding and field.node.binding.fn)
        if fn and key ~= "init" then roots[#roots + 1] = { fn = fn, what = "rig." .. what } end
      end
    end
  end
  return roots
end

---Calls that stop all tasks, in handlers and in what these call.
function M.handlers(f, add)
  local by_fn, seen = {}, {}
  for _, call in ipairs(f.facts.calls) do
    local name = call.path and table.concat(call.path, ".")
    if name and blocking[name] then
      by_fn[call.fn] = by_fn[call.fn] or {}
      table.insert(by_fn[call.fn], { name = name, line = call.line })
    end
  end
  local function visit(fn, what)
    if seen[fn] then return end
    seen[fn] = true
    for _, c in ipairs(by_fn[fn] or {}) do
      add(f.path, c.line, "blocking-handler", ("%s in a handler of %s stops all tasks until it is done"):format(c.name, what),
        "use " .. blocking[c.name])
    end
    for _, child in ipairs(fn.children) do visit(child, what) end
    for _, b in ipairs(fn.calls) do
      if b.fn then visit(b.fn, what) end
    end
  end
  for _, root in ipairs(handlers(f)) do visit(root.fn, root.what) end
end

-- --------------------------------------------------------------------------------------------- look-ups

---rig.tool "name" of a tool that no script declares.
function M.lookups(f, g, add)
  local names = {}
  for _, d in ipairs(g.decls.tool) do names[#names + 1] = d.decl.name end
  for _, call in ipairs(f.facts.calls) do
    local arg = call.args[1]
    if call.path and #call.path == 2 and call.path[1] == "rig" and call.path[2] == "tool" and arg and arg.string then
      local there = false
      for _, n in ipairs(names) do there = there or n == arg.string end
      if not there then
        local close = similar(arg.string, names)
        add(f.path, call.line, "unknown-tool", ("no tool %q is declared"):format(arg.string),
          close and ("did you mean %q?"):format(close) or "declare it with rig.tool { name = ... }")
      end
    end
  end
end

return M
