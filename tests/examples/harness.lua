-- Plays the server's side for a model function: runs its tool calls in a scratch folder, in a real bash, and
-- gives the results back in the form of the Messages API. The look-up is the example's own tool file.
local M = {}

local TOP = "examples/invoices/"
package.path = TOP .. "?.lua;" .. package.path

-- --------------------------------------------------------------------------------------------------- JSON

local array_mt = {}
local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function encode(v)
  if type(v) == "string" then
    return '"' .. v:gsub('[%c"\\]', function(c) return escapes[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
  elseif type(v) ~= "table" then
    return tostring(v)
  end
  local parts = {}
  if getmetatable(v) == array_mt or v[1] ~= nil then
    for i, x in ipairs(v) do parts[i] = encode(x) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for k, x in pairs(v) do parts[#parts + 1] = encode(k) .. ":" .. encode(x) end
  table.sort(parts)
  return "{" .. table.concat(parts, ",") .. "}"
end

local unescapes = { n = "\n", r = "\r", t = "\t" }

local function decode(text)
  local at = 1
  local value
  local function sign(c)
    at = text:find("%S", at) or error "JSON ends"
    if text:sub(at, at) ~= c then return false end
    at = at + 1
    return true
  end
  local function str()
    local out = {}
    while true do
      local stop = text:find('["\\]', at)
      out[#out + 1] = text:sub(at, stop - 1)
      at = stop + 1
      if text:sub(stop, stop) == '"' then return table.concat(out) end
      local c = text:sub(at, at)
      assert(c ~= "u", "this decoder knows no \\u")
      out[#out + 1], at = unescapes[c] or c, at + 1
    end
  end
  function value()
    if sign '"' then return str() end
    if sign "{" then
      local t = {}
      if sign "}" then return t end
      repeat
        assert(sign '"', "JSON: a key")
        local k = str()
        assert(sign ":", "JSON: a colon")
        t[k] = value()
      until not sign ","
      assert(sign "}", "JSON: }")
      return t
    end
    if sign "[" then
      local t = {}
      if sign "]" then return t end
      repeat t[#t + 1] = value() until not sign ","
      assert(sign "]", "JSON: ]")
      return t
    end
    local word, stop = text:match("^([%w.+-]+)()", at)
    at = assert(stop, "JSON: a value")
    if word == "true" then return true end
    if word == "false" then return false end
    return word ~= "null" and (tonumber(word) or error "JSON: a number") or nil
  end
  return value()
end

-- ---------------------------------------------------------------------------------------------------- rig

local function read_file(path)
  local f = io.open(path, "rb")
  if not f then return nil, { message = path .. ": no such file" } end
  local text = f:read "*a"
  f:close()
  return text
end

local ledger -- the path that sessions.retrieve gives out

package.preload.moonrig = function()
  return {
    json = { encode = encode, decode = decode },
    array = function(t) return setmetatable(t, array_mt) end,
    tool = function(t) return t end,
    fs = { read = read_file, stat = function(path)
      local text, err = read_file(path)
      return text and { mtime = 0, size = #text, type = "file" }, err
    end },
    sessions = { retrieve = function() return { metadata = { ledger = ledger } } end },
  }
end

-- ------------------------------------------------------------------------------------------------ the tools

local function write_file(path, text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
end

local function sh(command) assert(os.execute(command)) end

local function characters(s) return #s - select(2, s:gsub("[\128-\191]", "")) end

---Runs a command as the sandbox does: both streams, escapes and last line ends off, the last 102,400
---characters kept, an error result when it fails.
local function bash(scratch, input)
  local command = input.command:gsub("/mnt/session", (scratch:gsub("%%", "%%%%")))
  write_file(scratch .. "/command", "{ " .. command .. "\n} </dev/null 2>&1\n")
  local p = io.popen(("bash --noprofile --norc %s/command; echo \"=$?\""):format(scratch), "r")
  local text = p:read "*a"
  p:close()
  local out, code = text:match "^(.*)=(%d+)\n$"
  out = out:gsub("\27%[[%d;]*%a", ""):gsub("\n+$", "")
  if characters(out) > 102400 then out = "[output truncated]\n" .. out:sub(-102400) end
  if code ~= "0" then return out ~= "" and out or "exit " .. code, true end
  return out ~= "" and out or "(no output)", false
end

local function write(scratch, input)
  write_file(input.file_path:gsub("/mnt/session", (scratch:gsub("%%", "%%%%"))), input.content)
  return ("wrote %d bytes to %s"):format(#input.content, input.file_path), false
end

local function look_up(_, input)
  local value, err = require("tools.ledger_lookup").run(input, { session = { id = "sesn_1" } })
  if value == nil then return err.message or err, true end
  return encode(value), false
end

local tools = { bash = bash, write = write, ledger_lookup = look_up }

-- --------------------------------------------------------------------------------------------------- runs

---Uploads a folder: files appear under uploads/invoices. Returns the scratch folder.
function M.prepare(scratch, batch, ledger_path)
  sh(("rm -rf '%s' && mkdir -p '%s/uploads' '%s/outputs'"):format(scratch, scratch, scratch))
  if batch then sh(("cp -r '%s' '%s/uploads/invoices'"):format(batch, scratch)) end
  ledger = ledger_path
  return scratch
end

---Asks the model until it calls no tool more. o.fail(name, input, n) may give an error text for the nth call;
---o.change(name, text) another result text; o.tools the names that are offered; o.messages what was said.
---Returns { text, messages, rounds, calls = { name = how many }, longest }.
function M.run(model, scratch, o)
  o = o or {}
  local run = { rounds = 0, calls = {}, longest = 0, most = 0, messages = o.messages or {} }
  local offered = {}
  for i, name in ipairs(o.tools or { "bash", "read", "write", "edit", "glob", "grep", "ledger_lookup" }) do
    offered[i] = { name = name, input_schema = { type = "object" } }
  end
  table.insert(run.messages, { role = "user", content = { { type = "text", text = o.ask or "Reconcile the invoices." } } })
  while true do
    local reply = model({ model = "claude-opus-4-7", system = "...", messages = run.messages, tools = offered }, {})
    if type(reply) == "string" then reply = { { type = "text", text = reply } } end
    local results, text = {}, nil
    for i, b in ipairs(reply) do
      if b.type == "text" then text = b.text end
      if b.type == "tool_use" then
        b.id = ("toolu_%d_%d"):format(run.rounds, i)
        run.calls[b.name] = (run.calls[b.name] or 0) + 1
        local out, is_error = o.fail and o.fail(b.name, b.input, run.calls[b.name]) or nil, true
        if not out then out, is_error = tools[b.name](scratch, b.input) end
        if o.change then out = o.change(b.name, out) end
        run.longest = math.max(run.longest, characters(out))
        results[#results + 1] = { type = "tool_result", tool_use_id = b.id, content = { { type = "text", text = out } },
          is_error = is_error or nil }
      end
    end
    run.most = math.max(run.most, #results)
    table.insert(run.messages, { role = "assistant", content = reply })
    if #results == 0 then
      run.text = text
      return run
    end
    table.insert(run.messages, { role = "user", content = results })
    run.rounds = run.rounds + 1
    assert(run.rounds < 200, "the model does not come to an end")
  end
end

M.read_file, M.write_file, M.sh = read_file, write_file, sh

return M
