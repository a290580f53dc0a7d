-- A person at a terminal, or a pipe in their place: lines in, text out. For the commands chat and repl; scripts do not
-- see it. Editing a line is the terminal's own business, and its modes are left as they are.
local native = require "moonrig.native"
local task = require "moonrig.task"
local wait = require "moonrig.wait"

local M = {}
local fd_wait = wait(native.fd_wait)
local LINE_MAX = 4 * 1024 * 1024

---@class moonrig.Term
local Term = {}
Term.__index = Term
M.Term = Term

---@param interrupt_fd? integer readable at each Ctrl-C; read by this
function M.open(interrupt_fd)
  local width, dumb = native.tty(1), (os.getenv "TERM" or "dumb") == "dumb"
  local plain = not width or dumb or (os.getenv "NO_COLOR" or "") ~= ""
  return setmetatable({ tty = native.tty(0) ~= nil, wide = width ~= nil, width = width or 100, colour = not plain,
    buf = "", fresh = true, interrupt_fd = interrupt_fd }, Term)
end

-- ---------------------------------------------------------------------------------------------------- output

local styles = { dim = "2", bold = "1", red = "31", cyan = "36" }

---What a model or a tool says must not steer the terminal.
function M.clean(text)
  return (text:gsub("[%z\1-\8\11-\31\127]", "?"):gsub("\194[\128-\159]", "?"))
end

-- Code points that take two columns, and that take none: ranges of the common ones.
local two = { { 0x1100, 0x115f }, { 0x2e80, 0xa4cf }, { 0xac00, 0xd7a3 }, { 0xf900, 0xfaff }, { 0xfe30, 0xfe6f },
  { 0xff00, 0xff60 }, { 0xffe0, 0xffe6 }, { 0x1f300, 0x1f64f }, { 0x1f900, 0x1f9ff }, { 0x20000, 0x3fffd } }
local none = { { 0x300, 0x36f }, { 0x200b, 0x200f }, { 0x20d0, 0x20ff }, { 0xfe00, 0xfe0f } }

local function within(ranges, c)
  for _, r in ipairs(ranges) do
    if c >= r[1] and c <= r[2] then return true end
  end
end

local function columns_of(ch)
  local c = ch:byte()
  if c < 0xc2 or #ch == 1 then return 1 end
  c = #ch == 2 and c - 0xc0 or #ch == 3 and c - 0xe0 or c - 0xf0
  for i = 2, #ch do c = c * 64 + ch:byte(i) - 0x80 end
  return within(none, c) and 0 or within(two, c) and 2 or 1
end

---How much of a text fits into n columns: its bytes, their columns.
local function fitting(text, n)
  local at, used = 1, 0
  while at <= #text do
    local ch = text:match("^[\194-\244][\128-\191]+", at) or text:sub(at, at)
    local w = columns_of(ch)
    if used + w > n then break end
    at, used = at + #ch, used + w
  end
  return at - 1, used
end

---The columns that a text takes.
function M.columns(text) return (select(2, fitting(text, math.huge))) end

---Writes text as it is.
function Term:put(text, style)
  if text == "" then return end
  if self.shown then self:erase() end
  self.fresh = text:sub(-1) == "\n"
  if style and self.colour then text = "\27[" .. styles[style] .. "m" .. text .. "\27[0m" end
  io.stdout:write(text)
  io.stdout:flush()
end

---What comes next begins a line: a prompt is taken away, a line that was begun is ended.
function Term:begin_line()
  if self.shown then
    self:erase()
  elseif not self.fresh then
    self:put "\n"
  end
end

---Writes a line of its own.
function Term:line(text, style)
  self:begin_line()
  self:put(text, style)
  self:put "\n"
end

---Says that something went wrong.
function Term:complain(text)
  self:begin_line()
  io.stderr:write("moonrig: ", M.clean(text), "\n")
end

---A text on one line, cut to the terminal's width (or n columns).
function Term:cut(text, n)
  if self.wide then self.width = native.tty(1) or self.width end -- it may have changed
  n = math.max(n or self.width - 1, 8)
  text = M.clean((text:gsub("[\r\n\t]+", " "):gsub(" +$", "")))
  if fitting(text, n) == #text then return text end
  return text:sub(1, (fitting(text, n - 3))) .. "..."
end

---A text that takes just n columns: cut, or filled up.
function Term:cell(text, n)
  text = self:cut(text, n)
  return text .. (" "):rep(n - M.columns(text))
end

-- ---------------------------------------------------------------------------------------------------- a prompt
-- What comes while a person is asked is shown above the question: it takes the prompt away, and settle() puts it back.
-- What was typed of the line stays with the terminal (Ctrl-R shows it again).

---Takes the prompt off the screen; it will be back.
function Term:erase()
  self.shown = false
  io.stdout:write(self.colour and "\r\27[K" or "\n")
  self.fresh = true
end

---What the person is asked from now on; nil: nothing.
function Term:ask(prompt)
  if self.shown and prompt ~= self.prompt then self:erase() end
  self.prompt = prompt
end

---Shows the prompt, if there is one and it is not there.
function Term:settle()
  if not self.prompt or self.shown or not self.tty then return end
  if not self.fresh then self:put "\n" end
  self:put(self.prompt, "bold")
  self.shown = true
end

---The person has pressed Enter: the prompt is history.
function Term:entered()
  if self.tty then self.shown, self.fresh = false, true end
end

---The person has pressed Ctrl-C: the terminal shows that where the cursor is.
function Term:interrupted()
  if not self.tty then return end
  self.shown = false
  self:put "\n"
end

-- ----------------------------------------------------------------------------------------------------- input

---Takes in what there is; false at the end.
function Term:fill()
  local bytes = native.fd_read(0)
  if not bytes then
    self.ended = true
    return false
  end
  self.buf = self.buf .. bytes
  if #self.buf > LINE_MAX then error(("a line of more than %d bytes"):format(LINE_MAX), 0) end
  return true
end

function Term:take()
  local at = self.buf:find("\n", 1, true)
  local line
  if at then
    line, self.buf = self.buf:sub(1, at - 1), self.buf:sub(at + 1)
  elseif self.ended and self.buf ~= "" then
    line, self.buf = self.buf, ""
  end
  return line and (line:gsub("\r$", ""))
end

function Term:next_line()
  while true do
    local line = self:take()
    if line or self.ended then return line end
    fd_wait(0)
    self:fill()
  end
end

---The next line, without its end; nil at the end of input; nil, "interrupted" after Ctrl-C.
function Term:read(prompt)
  local interrupted = false
  if prompt and self.tty then self:put(prompt, "bold") end
  local reading = task.spawn(self.next_line, self)
  local before = self.on_interrupt
  self.on_interrupt = function()
    interrupted = true
    reading:cancel "interrupted"
  end
  local ok, line = pcall(reading.wait, reading)
  self.on_interrupt = before
  if self.tty then
    if interrupted or not line then io.stdout:write "\n" end
    self.fresh = true -- the person's Enter
  end
  if interrupted then return nil, "interrupted" end
  if not ok then error(line, 0) end
  return line
end

---More lines that came with the last one: a paste into a terminal.
function Term:pasted()
  local lines = {}
  while self.tty and not self.ended do
    local line = self:take()
    if line then
      lines[#lines + 1] = line
    elseif not native.fd_ready(0) or not self:fill() then
      break
    end
  end
  return lines
end

---Calls on_interrupt at each Ctrl-C; in a task of its own.
function Term:watch()
  while self.interrupt_fd do
    fd_wait(self.interrupt_fd)
    local bytes = native.fd_read(self.interrupt_fd)
    if bytes and bytes ~= "" and self.on_interrupt then self.on_interrupt() end
  end
end

return M
