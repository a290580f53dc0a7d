-- The test kit of tests/lua: t.test(name, fn), assertions, and a check after each test that nothing is
-- left: no live task, pending operation, timer, open file, unbalanced stack, changed global.
local rig = require "moonrig"
local host = require "host"
host.json { encode = rig.json.encode, decode = rig.json.decode }

local t = { tests = {}, jit = jit ~= nil }
local base, own = host.globals(), _G

function t.test(name, fn) t.tests[#t.tests + 1] = { name = name, fn = fn } end

local function show(v)
  if type(v) == "string" then return ("%q"):format(v) end
  if type(v) == "table" and not getmetatable(v) then
    local ok, text = pcall(rig.json.encode, v)
    if ok and text then return text end
  end
  return tostring(v)
end

function t.equal(a, b, what)
  if a ~= b then error(("%s is %s, not %s"):format(what or "value", show(a), show(b)), 2) end
end
function t.match(s, pattern)
  if type(s) ~= "string" or not s:find(pattern) then error(("%s does not match %s"):format(show(s), show(pattern)), 2) end
end
function t.ok(v, what) if not v then error((what or "value") .. " is " .. tostring(v), 2) end return v end
function t.raises(pattern, fn, ...)
  local ok, e = pcall(fn, ...)
  if ok then error("no error was raised", 2) end
  local text = type(e) == "table" and e.message or tostring(e)
  if not text:find(pattern) then error(("raised %s, which does not match %s"):format(show(text), show(pattern)), 2) end
  return e
end

function t.write(path, text)
  local f = assert(io.open(path, "w"))
  f:write(text)
  f:close()
end

-- Waits until fn gives something (virtual time, so it costs nothing).
function t.wait(fn, what)
  for _ = 1, 5000 do
    local r = { fn() }
    if r[1] ~= nil then return (table.unpack or unpack)(r) end
    rig.sleep(0.01)
  end
  error("never: " .. (what or "?"), 2)
end

function t.use(name, input, attempt)
  local id = host.use(name, rig.json.encode(input or {}), attempt)
  if not id then error("no tool " .. name .. " is registered", 2) end
  return t.wait(function() return host.state(id) end, "result of " .. name)
end

-- Reloads through the control channel; the answer, decoded, and its code.
function t.control(command)
  host.control(command)
  local answer = t.wait(host.control_answer, command)
  local code, json = answer:match "^(%-?%d+) (.*)$"
  return rig.json.decode(json), tonumber(code)
end

-- What the globals and their libraries hold, as name = value.
local function globals()
  local all = {}
  for prefix, t in pairs { ["base."] = base, ["own."] = own } do
    for k, v in pairs(t) do
      all[prefix .. tostring(k)] = v
      if type(v) == "table" and v ~= t and k ~= "package" then
        for name, value in pairs(v) do all[prefix .. k .. "." .. tostring(name)] = value end
      end
    end
  end
  return all
end

local function changed(before)
  local now = globals()
  for k, v in pairs(now) do
    if before[k] ~= v then return k end
  end
  for k in pairs(before) do
    if now[k] == nil then return k end
  end
end

local function quiet()
  local now
  for _ = 1, 50 do
    host.clear_uses()
    collectgarbage()
    collectgarbage()
    rig.sleep(0)
    now = host.open()
    if t.loose then now = now:gsub(" fds=%d+", "") end -- connections that are kept for later
    if now == t.quiet then break end
  end
  return now
end

function t.run()
  local failed = 0
  rig.sleep(0.01)
  t.quiet = nil
  t.quiet = quiet()
  local before = globals()
  for _, test in ipairs(t.tests) do
    local ok, e = xpcall(test.fn, function(e)
      return type(e) == "table" and e or debug.traceback(tostring(e), 2)
    end)
    local left = quiet()
    if ok and t.quiet and left ~= t.quiet then ok, e = false, "left open: " .. left .. "\n  before: " .. t.quiet end
    if ok and changed(before) then ok, e = false, "a global changed: " .. changed(before) end
    print((ok and "ok " or "not ok ") .. test.name)
    if not ok then
      failed = failed + 1
      print("  " .. tostring(e):gsub("\n", "\n  "))
    end
    t.quiet, before = left, globals()
    host.logs()
  end
  return failed > 0 and 1 or 0
end

return t
