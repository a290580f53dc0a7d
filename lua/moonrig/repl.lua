-- `moonrig repl`: a Lua prompt. Each input runs as a task, so that what waits can be called; values are printed as
-- they would be written, bounded. rig is the one of the loaded scripts, or a client of a server.
local err = require "moonrig.err"
local task = require "moonrig.task"
local json = require "moonrig.json"
local term = require "moonrig.term"

local M = {}

local HELP = [[
Type Lua: an expression prints its values (the last one is _), a statement runs. rig is there, and what the
scripts loaded made global. Functions that wait can be called. An input that is not complete goes on in the
next line. A task that an input starts ends with it.
/quit leaves, so does Ctrl-D; Ctrl-C stops what runs.]]

-- ----------------------------------------------------------------------------------------------------- values

local DEPTH, ITEMS, BYTES = 5, 60, 20000

local function text(v)
  if type(v) == "string" then
    local s = #v > 2000 and v:sub(1, 2000) or v
    s = s:gsub('[%c"\\\127]', function(c)
      local names = { ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ['"'] = '\\"', ["\\"] = "\\\\" }
      return names[c] or ("\\%03d"):format(c:byte())
    end)
    return '"' .. s .. '"' .. (#v > 2000 and (" ... (%d bytes)"):format(#v) or "")
  end
  if v == json.null then return "rig.null" end
  return tostring(v)
end

local function before(a, b)
  local ta, tb = type(a), type(b)
  if ta ~= tb then return ta == "number" or (tb ~= "number" and ta < tb) end
  if ta == "number" or ta == "string" then return a < b end
  return tostring(a) < tostring(b)
end

local function key_text(k)
  if type(k) == "string" and k:find "^[%a_][%w_]*$" then return k end
  return "[" .. text(k) .. "]"
end

local function pretty(out, v, indent, seen)
  local function add(s)
    out.n = out.n + #s
    out[#out + 1] = s
  end
  local mt = type(v) == "table" and getmetatable(v)
  if type(v) ~= "table" or (type(mt) == "table" and rawget(mt, "__tostring")) then return add(text(v)) end
  if seen[v] then return add "<the same table again>" end
  if next(v) == nil then return add "{}" end
  if #indent / 2 >= DEPTH or out.n > BYTES then return add "{...}" end
  seen[v] = true
  local keys = {}
  for k in next, v do keys[#keys + 1] = k end
  table.sort(keys, before)
  add "{\n"
  for i, k in ipairs(keys) do
    if i > ITEMS or out.n > BYTES then
      add(("%s  ... %d more\n"):format(indent, #keys - i + 1))
      break
    end
    add(indent .. "  " .. (k == i and "" or key_text(k) .. " = "))
    pretty(out, rawget(v, k), indent .. "  ", seen)
    add ",\n"
  end
  add(indent .. "}")
  seen[v] = nil
end

---A value as Lua would write it: keys sorted, bounded.
---@param v any
---@return string
function M.pretty(v)
  local out = { n = 0 }
  pretty(out, v, "", {})
  return table.concat(out)
end

-- ----------------------------------------------------------------------------------------------------- chunks

local function open_ended(e) return e:find "<eof>'?$" ~= nil end

---A function, or nil and what is wrong, and whether more lines could mend it.
---@param source string
---@param env table
---@return function? fn, string? error, boolean? incomplete
function M.compile(source, env)
  local fn, as_expression = load("return " .. source, "@prompt", "t", env)
  if fn then return fn end
  local why
  fn, why = load(source, "@prompt", "t", env)
  if fn then return fn end
  return nil, why, open_ended(why) or open_ended(as_expression)
end

---The traceback down to what was typed.
local function traced(e)
  if type(e) ~= "string" then return e end
  local lines = {}
  for line in debug.traceback(e, 2):gmatch "[^\n]+" do
    if line:find "in function 'xpcall'" or line:find "in function <moonrig/" then break end
    lines[#lines + 1] = line
  end
  return table.concat(lines, "\n")
end

-- ------------------------------------------------------------------------------------------------------- loop

local function pack(...) return { n = select("#", ...), ... } end

local function show(repl, results)
  for i = 2, results.n do repl.term:line(term.clean(M.pretty(results[i]))) end
  if results.n > 1 then repl.env._ = results[2] end
end

---Runs one input as a task of its own. false: it failed.
local function run(repl, fn)
  local running = task.spawn(function() return pack(xpcall(fn, traced)) end)
  repl.term.on_interrupt = function() running:cancel "interrupted" end
  local ok, results = pcall(running.wait, running)
  repl.term.on_interrupt = nil
  if ok and results[1] then
    show(repl, results)
    return true
  end
  repl.term:complain(err.text(ok and results[2] or results))
  return false
end

---One whole input: true or false for how it went; nil at the end.
local function one(repl)
  local source, fn, why, incomplete = "", nil, nil, nil
  repeat
    local line, interrupted = repl.term:read(source == "" and "> " or ">> ")
    if not line and interrupted then
      if source == "" then repl.term:line("(Ctrl-D, or /quit, leaves)", "dim") end
      return true -- given up
    end
    if not line and source == "" then return nil end
    if source == "" and line:find "^%s*/quit%s*$" then return nil end
    if source == "" and line:find "^%s*/help%s*$" then
      repl.term:line(HELP)
      return true
    end
    if source == "" and not line:find "%S" then return true end
    if line then source = source == "" and line or source .. "\n" .. line end
    fn, why, incomplete = M.compile(source, repl.env)
  until fn or not incomplete or not line
  if fn then return run(repl, fn) end
  repl.term:complain(why)
  return false
end

local function environment(args, g)
  local rig = require "moonrig"
  if args[1] and args[1] ~= "" then
    rig = rig.connect { base_url = args[1], api_key = args[2] ~= "" and args[2] or nil }
  else
    rig = g.env.require "moonrig"
  end
  local env = setmetatable({ rig = rig }, { __index = g.env })
  env._G = env
  return env
end

---@param args string[] [0] descriptor of Ctrl-C; URL and key, or ""
---@param g table the generation
---@return integer exit code
function M.main(args, g)
  local repl = { env = environment(args, g), term = term.open(tonumber(args[0])) }
  local signals = task.spawn(repl.term.watch, repl.term)
  local failed = false
  if repl.term.tty then repl.term:line("moonrig " .. _VERSION .. "; /help says more, /quit leaves", "dim") end
  while true do
    local went = one(repl)
    if went == nil then break end
    failed = failed or not went
  end
  signals:cancel()
  return failed and not repl.term.tty and 1 or 0
end

return M
