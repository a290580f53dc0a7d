-- What the commands that are written in Lua share: the client of the server that the program has found, the terminal,
-- and what an error means to who started the command. Their arguments: [0] the descriptor of Ctrl-C, and one that says
-- where the server is when it has started again; then URL, key, "json" or "", and what is the command's own.
local native = require "moonrig.native"
local connect = require "moonrig.connect"
local err = require "moonrig.err"
local json = require "moonrig.json"
local remote = require "moonrig.remote"
local task = require "moonrig.task"
local term = require "moonrig.term"
local wait = require "moonrig.wait"

local M = {}
local fd_wait = wait(native.fd_wait)

local FAILED, USAGE, UNREACHABLE = 1, 2, 3
M.UNREACHABLE = UNREACHABLE

---The server of the data directory started again: at another address maybe, and with another key for this machine.
local function follow_server(fd, transport)
  local buf = ""
  while true do
    fd_wait(fd)
    local bytes = native.fd_read(fd)
    if not bytes then return end
    buf = buf .. bytes
    while true do
      local line, rest = buf:match "^([^\n]*)\n(.*)$"
      if not line then break end
      buf = rest
      local url, key = line:match "^(%S+)\t(%S*)$"
      if url then transport.move(url, key ~= "" and key or nil) end
    end
  end
end

---@class moonrig.Cli
---@field client table    of rig's shape
---@field transport table
---@field term moonrig.Term
---@field json boolean

---@param args string[]
---@return moonrig.Cli
function M.open(args)
  local interrupts, moves = args[0]:match "^(%d+) ?(%d*)$"
  local transport = remote.transport { base_url = args[1], api_key = args[2] ~= "" and args[2] or nil,
    exact = args[3] == "json" }
  if moves ~= "" then task.spawn(follow_server, tonumber(moves), transport) end
  return { client = connect.client_of(transport, function() return true end), transport = transport,
    term = term.open(tonumber(interrupts)), json = args[3] == "json" }
end

---The JSON text of a wire object.
---@param object table
---@return string
function M.text(object)
  return remote.text(object) or assert(json.encode(object))
end

---Says what went wrong.
---@param t moonrig.Term
---@param e any
---@return integer exit code
function M.explain(t, e)
  if type(e) ~= "table" then
    t:complain(tostring(e))
    return FAILED
  end
  if e.type == "left" then return 0 end
  t:complain(err.text(e))
  if e.status == 401 then t:complain "give a key with --key or MOONRIG_API_KEY" end
  if e.type == "usage" then return USAGE end
  local said = e.status or e.type == "not_found_error" or e.type == "invalid_request_error"
  return said and FAILED or UNREACHABLE
end

---Runs fn as a task that the first Ctrl-C ends.
---@param t moonrig.Term
---@param fn fun(): integer?
---@return integer exit code
function M.run(t, fn)
  local left = false
  local main = task.spawn(fn)
  t.on_interrupt = function()
    left = true
    main:cancel "left"
  end
  local signals = task.spawn(t.watch, t)
  local ok, code = pcall(main.wait, main)
  signals:cancel()
  if left then
    if not t.fresh then t:put "\n" end
    return 0
  end
  if ok then return code or 0 end
  return M.explain(t, code)
end

return M
