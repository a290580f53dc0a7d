-- The words of a Lua script, for lint_parse.lua: Lua 5.1 to 5.4 and LuaJIT's numbers. The text has been compiled
-- before, so what is wrong in it is not looked for.
local M = {}

local keywords = {}
for w in ("and break do else elseif end false for function if in local nil not or repeat return then true until while")
  :gmatch "%a+" do
  keywords[w] = true
end

local escapes = { n = "\n", t = "\t", r = "\r", a = "\a", b = "\b", f = "\f", v = "\v", ["\n"] = "\n" }

---The value of a quoted string, as far as a linter needs it (no \u, no \x).
local function unquote(text)
  return (text:gsub("\\(%d%d?%d?)", function(n) return tonumber(n) < 256 and string.char(tonumber(n)) or "" end)
    :gsub("\\z%s*", ""):gsub("\\(.)", function(c) return escapes[c] or c end))
end

local function lines_in(text)
  local _, n = text:gsub("\n", "")
  return n
end

---A long bracket at this place: its content and what comes after it.
local function long(text, at)
  local level = text:match("^%[(=*)%[", at)
  if not level then return nil end
  local from = at + #level + 2
  local close, stop = text:find("]" .. level .. "]", from, true)
  if not close then return text:sub(from), #text + 1 end
  return text:sub(from, close - 1), stop + 1
end

local function quoted(text, at, quote)
  local i = at + 1
  while i <= #text do
    local c = text:sub(i, i)
    if c == quote then break end
    if c == "\\" then
      local _, z = text:find("^z%s*", i + 1)
      i = z or i + 1
    end
    i = i + 1
  end
  return unquote(text:sub(at + 1, i - 1)), i + 1
end

local symbols = { ["..."] = true, ["<<"] = true, [">>"] = true, ["//"] = true, ["=="] = true, ["~="] = true,
  ["<="] = true, [">="] = true, [".."] = true, ["::"] = true }

local function skip_blank(text, at, line)
  while true do
    local _, stop = text:find("^%s+", at)
    if stop then
      line = line + lines_in(text:sub(at, stop))
      at = stop + 1
    elseif text:find("^%-%-", at) then
      local _, after = long(text, at + 2)
      after = after or text:find("\n", at, true) or #text + 1
      line = line + lines_in(text:sub(at, after - 1))
      at = after
    else
      return at, line
    end
  end
end

---@param text string
---@return table[] tokens { t = "name"|"string"|"number"|the word or symbol itself|"end of file", v = value, line = }
function M.tokens(text)
  local list, at, line = {}, 1, 1
  if text:sub(1, 1) == "#" then at = text:find("\n", 1, true) or #text + 1 end
  if text:sub(1, 3) == "\239\187\191" then at = 4 end
  while true do
    at, line = skip_blank(text, at, line)
    if at > #text then break end
    local token, after = { line = line }, nil
    local c = text:sub(at, at)
    local word = text:match("^[%a_\128-\255][%w_\128-\255]*", at)
    if word then
      token.t, token.v, after = keywords[word] and word or "name", word, at + #word
    elseif text:find("^%.?%d", at) then
      local n = text:match("^0[xX][%x.]*[pP][+-]?%w*", at) or text:match("^0[xX][%x.]*%a*", at)
        or text:match("^[%d.]+[eE][+-]?%w*", at) or text:match("^[%d.]+%a*", at)
      token.t, token.v, after = "number", tonumber(n), at + #n
    elseif c == '"' or c == "'" then
      token.t = "string"
      token.v, after = quoted(text, at, c)
    elseif text:find("^%[=*%[", at) then
      token.t = "string"
      token.v, after = long(text, at)
    else
      local s = symbols[text:sub(at, at + 2)] and text:sub(at, at + 2) or symbols[text:sub(at, at + 1)] and text:sub(at, at + 1) or c
      token.t, after = s, at + #s
    end
    line = line + lines_in(text:sub(at, after - 1))
    if token.t == "string" then token.stop = line end
    list[#list + 1] = token
    at = after
  end
  list[#list + 1] = { t = "end of file", line = line }
  return list
end

return M
