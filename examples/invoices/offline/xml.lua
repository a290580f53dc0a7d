-- As much XML as invoices need: elements, text, CDATA, entities, comments, namespaces. A document type with
-- declarations of its own is refused: entities that expand are an attack, not an invoice.
local M = {}

local DEPTH = 100
local entities = { lt = "<", gt = ">", amp = "&", quot = '"', apos = "'" }

local function utf8_char(n)
  local c, f = string.char, math.floor
  if n < 0x80 then return c(n) end
  if n < 0x800 then return c(0xC0 + f(n / 64), 0x80 + n % 64) end
  if n < 0x10000 then return c(0xE0 + f(n / 4096), 0x80 + f(n / 64) % 64, 0x80 + n % 64) end
  return c(0xF0 + f(n / 262144), 0x80 + f(n / 4096) % 64, 0x80 + f(n / 64) % 64, 0x80 + n % 64)
end

---Text without its entities; nil and the first that is none.
local function unescape(s)
  local bad
  s = s:gsub("&([^;&%s]*;?)", function(e)
    local hex, n = e:match "^#(x?)(%x+);$"
    n = n and tonumber(n, hex == "x" and 16 or 10)
    local c = n and n > 0 and n < 0x110000 and not (n >= 0xD800 and n < 0xE000) and utf8_char(n)
      or entities[e:match "^(%a+);$"]
    bad = bad or not c and "&" .. e
    return c or nil
  end)
  if bad then return nil, ("%s is no entity"):format(bad:sub(1, 20)) end
  return s
end

---Where a tag that begins at `open` ends, and whether it is empty (<a/>). Attribute values may hold ">".
local function tag_end(text, open)
  local at = open + 1
  while true do
    local stop = text:find("[\"'>]", at)
    if not stop then return nil end
    local c = text:sub(stop, stop)
    if c == ">" then return stop, text:sub(stop - 1, stop - 1) == "/" end
    at = text:find(c, stop + 1, true)
    if not at then return nil end
    at = at + 1
  end
end

---The namespace of an element, by its prefix and what the elements around it declare.
local function namespace(stack, prefix, own)
  if own[prefix] then return own[prefix] end
  for i = #stack, 1, -1 do
    if stack[i].spaces[prefix] then return stack[i].spaces[prefix] end
  end
  return ""
end

local function element(stack, body)
  local name, attributes = body:match "^([^%s/>]+)(.*)$"
  if not name then return nil, "a tag has no name" end
  local spaces = {}
  for key, _, value in attributes:gmatch "xmlns:?([%w._-]*)%s*=%s*([\"'])(.-)%2" do spaces[key] = value end
  local prefix, plain = name:match "^([^:]*):(.+)$"
  local space = namespace(stack, prefix or "", spaces)
  -- elements of other vocabularies (extensions) keep their prefix, so that nobody takes them for UBL's
  local foreign = space ~= "" and not space:find("oasis:names:specification:ubl:", 1, true)
  return { name = foreign and name or plain or name, tag = name, attributes = attributes, spaces = spaces, text = {},
    children = {} }
end

---What "<!" and "<?" begin: its end; or nil and a reason. `put` takes the text of CDATA.
local function special(text, open, put)
  local begins = { { "<!--", "-->" }, { "<![CDATA[", "]]>" }, { "<?", "?>" } }
  for _, b in ipairs(begins) do
    if text:sub(open, open + #b[1] - 1) == b[1] then
      local from, stop = text:find(b[2], open + #b[1], true)
      if not from then return nil, ("%s does not end"):format(b[1]) end
      if b[1] == "<![CDATA[" then put(text:sub(open + 9, from - 1)) end
      return stop
    end
  end
  local stop = tag_end(text, open)
  if not stop then return nil, "a declaration does not end" end
  if text:sub(open, stop):find("[", 1, true) then return nil, "it declares entities of its own" end
  return stop
end

local function close(stack, body)
  local top = table.remove(stack)
  local name = body:match "^/([^%s]+)%s*$"
  if not top or top.tag ~= name then return nil, ("</%s> closes nothing"):format(tostring(name)) end
  return true
end

---A tree of { name (without its prefix), attributes (text), text (pieces), children }; nil and a reason when
---it is not well-formed.
function M.read(text)
  local root, stack, at = nil, {}, 1
  local function put(s)
    local top = stack[#stack]
    if top then top.text[#top.text + 1] = s end
  end
  while true do
    local open = text:find("<", at, true)
    local piece, why = unescape(text:sub(at, (open or 0) - 1))
    if not piece then return nil, why end
    if #stack == 0 and piece:find "%S" then return nil, "it has text outside of its elements" end
    put(piece)
    if not open then break end
    local stop, ok, empty
    if text:find("^[?!]", open + 1) then
      stop, why = special(text, open, put)
      ok = stop
    else
      stop, empty = tag_end(text, open)
      if not stop then return nil, "a tag does not end" end
      local body = text:sub(open + 1, stop - (empty and 2 or 1))
      if body:sub(1, 1) == "/" then
        ok, why = close(stack, body)
      else
        ok, why = element(stack, body)
        if ok and root and #stack == 0 then return nil, "it holds more than one document" end
        if ok and #stack >= DEPTH then return nil, "it is nested too deep" end
        if ok and #stack > 0 then table.insert(stack[#stack].children, ok) end
        root = root or ok
        if ok and not empty then stack[#stack + 1] = ok end
      end
    end
    if not ok then return nil, why end
    at = stop + 1
  end
  if not root then return nil, "it has no element" end
  if #stack > 0 then return nil, ("<%s> does not end"):format(stack[#stack].tag) end
  return root
end

---The first text that is not blank at a path of child elements, and its element's attributes; nil if there is
---no such element.
function M.text(node, ...)
  local path, found = { ... }, nil
  local function walk(n, depth)
    if depth > #path then
      local text = table.concat(n.text)
      if text:find "%S" or not found then found = { text, n.attributes } end
      return text:find "%S"
    end
    for _, c in ipairs(n.children) do
      if c.name == path[depth] and walk(c, depth + 1) then return true end
    end
  end
  walk(node, 1)
  if found then return found[1], found[2] end
end

return M
