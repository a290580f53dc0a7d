-- Reads a script without running it: resolves its names, and collects what lint_rules.lua judges. A recursive
-- descent over Lua's grammar that keeps no tree: of an expression it knows only what matters here, as a node:
--   { path = { "rig", "http", "get" } }  a global, require "moonrig", or a local that holds one of these, and fields
--   { binding = b }                      a local;   { name = n } a bare global
--   { string = s } { fn = f } { fields = { key = { line =, node = } }, line = }  constants, functions, tables
local lex = require "moonrig.lint_lex"

local M = {}
local P = {}
P.__index = P

-- ---------------------------------------------------------------------------------------- tokens and scopes

function P:next()
  local token = self.tokens[self.at]
  self.at = self.at + 1
  return token
end

function P:peek() return self.tokens[self.at] end
function P:is(t) return self.tokens[self.at].t == t end

function P:accept(t)
  if self:is(t) then return self:next() end
end

function P:expect(t)
  local token = self:next()
  if token.t ~= t then error({ line = token.line, message = ("%s expected, got %s"):format(t, token.t) }, 0) end
  return token
end

function P:open() self.scope = { up = self.scope } end
function P:close() self.scope = self.scope.up end

function P:declare(name, line)
  local b = { local_name = name, line = line }
  self.scope[name] = b
  return b
end

function P:lookup(name)
  local s = self.scope
  while s do
    local b = rawget(s, name)
    if b then return b end
    s = s.up
  end
end

-- A scope's names and its "up" share a table: a local called "up" is kept under another key.
local function key(name) return name == "up" and "up " or name end

-- -------------------------------------------------------------------------------------------------- facts

---A bare name is used: when it is no local, that is a read of a global.
function P:use(node)
  if node and node.name and not node.used then
    node.used = true
    table.insert(self.facts.reads, { name = node.name, line = node.line })
  end
  return node
end

local function extended(path, name)
  local p = {}
  for i, v in ipairs(path) do p[i] = v end
  p[#p + 1] = name
  return p
end

function P:name_node(token)
  local b = self:lookup(key(token.v))
  if b then return { binding = b, path = b.path, line = token.line } end
  if self:lookup "_ENV" then return { line = token.line } end
  return { name = token.v, path = { token.v }, line = token.line }
end

---A call: what is called, with which arguments; line: where Lua says it is.
function P:note_call(callee, method, args, line)
  local call = { path = callee.path, binding = callee.binding, method = method, args = args, line = line, fn = self.fn }
  table.insert(self.facts.calls, call)
  if callee.binding then table.insert(self.fn.calls, callee.binding) end
  local first = args[1]
  local node = { call = call, line = line }
  if callee.path and #callee.path == 1 and callee.path[1] == "require" and first and first.string then
    if first.string == "moonrig" then node.path = { "rig" } end
    table.insert(self.facts.requires, { name = first.string, line = line, fn = self.fn })
  end
  return node
end

-- --------------------------------------------------------------------------------------------- expressions

function P:table_constructor()
  local node = { fields = {}, line = self:expect("{").line }
  local n = 0
  while not self:is "}" do
    local token, ahead = self:peek(), self.tokens[self.at + 1]
    if token.t == "name" and ahead.t == "=" then
      self.at = self.at + 2
      node.fields[token.v] = { line = token.line, node = self:expr() }
    elseif token.t == "[" then
      self:next()
      local k = self:expr()
      self:expect "]"
      self:expect "="
      local v = self:expr()
      if k.string then node.fields[k.string] = { line = token.line, node = v } end
    else
      n = n + 1
      node.fields[n] = { line = token.line, node = self:expr() }
    end
    if not (self:accept "," or self:accept ";") then break end
  end
  self:expect "}"
  return node
end

function P:body(line, method)
  local fn = { line = line, up = self.fn, calls = {}, children = {} }
  table.insert(self.fn.children, fn)
  self.fn = fn
  self:open()
  if method then self:declare("self", line) end
  self:expect "("
  while not self:is ")" do
    if not self:accept "..." then
      local p = self:expect "name"
      self:declare(key(p.v), p.line)
    end
    if not self:accept "," then break end
  end
  self:expect ")"
  self:block()
  self:expect "end"
  self:close()
  self.fn = fn.up
  return { fn = fn, line = line }
end

function P:args()
  local token = self:peek()
  if token.t == "string" then
    self:next()
    return { { string = token.v, line = token.line } }
  elseif token.t == "{" then
    return { self:table_constructor() }
  end
  self:expect "("
  local list = {}
  if not self:is ")" then list = self:exprs() end
  self:expect ")"
  return list
end

function P:suffixed()
  local token, node = self:next(), nil
  if token.t == "name" then
    node = self:name_node(token)
  elseif token.t == "(" then
    node = self:expr()
    self:expect ")"
    node = { path = node.path, binding = node.binding, string = node.string, line = token.line }
  else
    error({ line = token.line, message = "unexpected " .. token.t }, 0)
  end
  while true do
    local t = self:peek()
    if t.t == "." then
      self:next()
      self:use(node)
      local field = self:expect "name"
      local path = node.path and extended(node.path, field.v)
      node = { path = path, line = field.line, index = true }
      if path and path[1] == "rig" then table.insert(self.facts.rig, { path = path, line = field.line }) end
    elseif t.t == "[" then
      self:next()
      self:use(node)
      local k = self:expr()
      self:expect "]"
      node = { path = node.path and k.string and extended(node.path, k.string), line = t.line, index = true }
    elseif t.t == ":" then
      self:next()
      self:use(node)
      local method = self:expect("name").v
      local line = self:peek().line
      node = self:note_call({ path = node.path and extended(node.path, method) }, method, self:args(), line)
    elseif t.t == "(" or t.t == "{" or t.t == "string" then
      self:use(node)
      node = self:note_call(node, nil, self:args(), t.line)
    else
      return node
    end
  end
end

local constants = { ["nil"] = true, ["true"] = true, ["false"] = true, number = true, ["..."] = true }
local binary = {}
for op in ("+ - * / // % ^ .. < <= > >= == ~= and or & | ~ << >>"):gmatch "%S+" do binary[op] = true end

function P:operand()
  local token = self:peek()
  if token.t == "not" or token.t == "-" or token.t == "#" or token.t == "~" then
    self:next()
    self:operand()
    return { line = token.line }
  elseif token.t == "string" then
    self:next()
    return { string = token.v, line = token.line }
  elseif constants[token.t] then
    self:next()
    return { constant = token.t, line = token.line }
  elseif token.t == "{" then
    return self:table_constructor()
  elseif token.t == "function" then
    self:next()
    return self:body(token.line)
  end
  return self:use(self:suffixed())
end

function P:expr()
  local node = self:operand()
  while binary[self:peek().t] do
    self:next()
    self:operand()
    node = { line = node.line }
  end
  return node
end

function P:exprs()
  local list = { self:expr() }
  while self:accept "," do list[#list + 1] = self:expr() end
  return list
end

-- ---------------------------------------------------------------------------------------------- statements

function P:write(node)
  if node.name then table.insert(self.facts.writes, { name = node.name, line = node.line, fn = self.fn }) end
end

---A local that holds a path, or a function, stands for it.
local function bind(b, node)
  if not node then return end
  b.path = node.path
  b.fn = node.fn or (node.binding and node.binding.fn)
end

local statement = {}

statement["local"] = function(self)
  if self:accept "function" then
    local name = self:expect "name"
    local b = self:declare(key(name.v), name.line)
    b.fn = self:body(name.line).fn
    return
  end
  local names = {}
  repeat
    names[#names + 1] = self:expect "name"
    if self:accept "<" then
      self:expect "name"
      self:expect ">"
    end
  until not self:accept ","
  local values = self:accept "=" and self:exprs() or {}
  for i, name in ipairs(names) do bind(self:declare(key(name.v), name.line), values[i]) end
end

statement["function"] = function(self, line)
  local node, method = self:name_node(self:expect "name"), false
  local bare = true
  while self:is "." or self:is ":" do
    method = self:next().t == ":"
    self:use(node)
    bare = false
    node = { line = self:expect("name").line }
  end
  if bare then self:write(node) end
  local body = self:body(line, method)
  if node.binding then node.binding.fn = body.fn end
end

statement["if"] = function(self)
  self:expr()
  self:expect "then"
  self:scoped()
  while self:accept "elseif" do
    self:expr()
    self:expect "then"
    self:scoped()
  end
  if self:accept "else" then self:scoped() end
  self:expect "end"
end

statement["while"] = function(self)
  self:expr()
  self:expect "do"
  self:scoped()
  self:expect "end"
end

statement["for"] = function(self)
  local names = { self:expect "name" }
  while self:accept "," do names[#names + 1] = self:expect "name" end
  if not self:accept "=" then self:expect "in" end
  self:exprs()
  self:expect "do"
  self:open()
  for _, n in ipairs(names) do self:declare(key(n.v), n.line) end
  self:block()
  self:close()
  self:expect "end"
end

statement["repeat"] = function(self)
  self:open()
  self:block()
  self:expect "until"
  self:expr() -- sees the block's locals
  self:close()
end

statement["do"] = function(self)
  self:scoped()
  self:expect "end"
end

statement["return"] = function(self)
  if not (self:is "end" or self:is "else" or self:is "elseif" or self:is "until" or self:is ";" or self:is "end of file") then
    local list = self:exprs()
    if #list == 1 and list[1].call then list[1].call.tail = true end
    if #list == 1 and list[1].fields and self.fn.main then self.facts.returned = list[1] end
  end
  self:accept ";"
end

statement["::"] = function(self)
  self:next()
  self:expect "::"
end
statement["break"] = function() end
statement[";"] = function() end

function P:expression_statement()
  local token, ahead = self:peek(), self.tokens[self.at + 1]
  if token.t == "name" and token.v == "goto" and ahead.t == "name" then
    self.at = self.at + 2
    return
  end
  local targets = { self:suffixed() }
  if not (self:is "=" or self:is ",") then
    self:use(targets[1])
    return
  end
  while self:accept "," do targets[#targets + 1] = self:suffixed() end
  self:expect "="
  local values = self:exprs()
  for i, node in ipairs(targets) do
    self:write(node)
    if node.binding and not node.index then bind(node.binding, values[i]) end
  end
end

function P:scoped()
  self:open()
  self:block()
  self:close()
end

local block_ends = { ["end"] = true, ["else"] = true, ["elseif"] = true, ["until"] = true, ["end of file"] = true }

function P:block()
  while not block_ends[self:peek().t] do
    local token = self:peek()
    local fn = statement[token.t]
    if fn then
      self:next()
      fn(self, token.line)
    else
      self:expression_statement()
    end
  end
end

---@param text string a script that compiles
---@return table facts { reads, writes, calls, requires, rig, main }
function M.facts(text)
  local main = { line = 1, calls = {}, children = {}, main = true }
  local self = setmetatable({ tokens = lex.tokens(text), at = 1, fn = main,
    facts = { reads = {}, writes = {}, calls = {}, requires = {}, rig = {}, main = main } }, P)
  self:open()
  self:block()
  self:expect "end of file"
  return self.facts
end

return M
