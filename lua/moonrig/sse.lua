-- Lines and server-sent events out of pieces that are cut anywhere. `read` gives the next piece, nothing at the end,
-- or nil, err; so do the functions made here. What has no end yet is kept, at most `max` bytes.
local err = require "moonrig.err"

local M = {}

---Lines without their ends: "\n", "\r\n" or "\r". What follows the last end is a line too, unless it is empty.
---@param read fun(): string?, moonrig.Error?
---@param max integer
---@return fun(): string?, moonrig.Error?, boolean? whole false: the end of the input cut it
function M.lines(read, max)
  local buf, at, parts, n, over, cr = "", 1, {}, 0, false, false
  local function line(text)
    if #parts > 0 then
      parts[#parts + 1] = text
      text = table.concat(parts)
      parts, n = {}, 0
    end
    return text, nil, true
  end
  return function()
    while not over do
      if cr and at <= #buf then -- the "\n" of a "\r\n" that was cut between
        if buf:byte(at) == 10 then at = at + 1 end
        cr = false
      end
      local stop = buf:find("[\r\n]", at)
      if stop then
        local text = buf:sub(at, stop - 1)
        at = stop + 1
        cr = buf:byte(stop) == 13
        return line(text)
      end
      if at <= #buf then
        parts[#parts + 1] = buf:sub(at)
        n = n + #buf - at + 1
        if n > max then
          over = true
          return nil, err.new("request_too_large", ("a line is longer than %d bytes"):format(max))
        end
      end
      local e
      buf, e = read()
      at = 1
      if not buf then
        over = true
        if e then return nil, e end
        local rest = table.concat(parts)
        if rest ~= "" then return rest, nil, false end
      end
    end
  end
end

---Server-sent events: { event =, data =, id = }; comment lines and events without data are passed over.
---@param read fun(): string?, moonrig.Error?
---@param max integer bytes of one event's data
---@return fun(): table?, moonrig.Error?
function M.events(read, max)
  local next_line, id, first = M.lines(read, max), nil, true
  return function()
    local event, data, n = nil, {}, 0
    while true do
      local text, e, whole = next_line()
      if not text or not whole then return nil, e end
      if first then text, first = text:gsub("^\239\187\191", ""), false end
      if text == "" then
        if data[1] then
          return { event = event or "message", data = table.concat(data, "\n"), id = id }
        end
        event = nil
      elseif text:sub(1, 1) ~= ":" then
        local field, value = text:match "^([^:]*):? ?(.*)$"
        if field == "data" then
          data[#data + 1] = value
          n = n + #value
          if n > max then return nil, err.new("request_too_large", ("an event is longer than %d bytes"):format(max)) end
        elseif field == "event" then
          event = value ~= "" and value or nil
        elseif field == "id" and not value:find "%z" then
          id = value
        end
      end
    end
  end
end

return M
