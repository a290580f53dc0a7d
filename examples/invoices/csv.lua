-- Comma-separated values (RFC 4180): quotes, commas and line breaks inside quotes, a byte order mark, CRLF.
-- Spreadsheets also write semicolons or tabs: the head line shows it.
local M = {}

---The rows of a text, each a list of fields.
function M.rows(text, separator)
  local rows, row, field, at, quoted = {}, {}, {}, 1, false
  local sep = separator or ","
  local stops = "[" .. sep .. '\r\n]'
  local function end_field()
    row[#row + 1] = table.concat(field)
    field = {}
  end
  while at <= #text do
    local c = text:sub(at, at)
    if quoted then
      local stop = text:find('"', at, true) or #text + 1
      field[#field + 1] = text:sub(at, stop - 1)
      if text:sub(stop + 1, stop + 1) == '"' then
        field[#field + 1], at = '"', stop + 2
      else
        quoted, at = false, stop + 1
      end
    elseif c == '"' and #field == 0 then
      quoted, at = true, at + 1
      field[1] = ""
    elseif c == sep then
      end_field()
      at = at + 1
    elseif c == "\n" or c == "\r" then
      end_field()
      rows[#rows + 1], row = row, {}
      at = at + (text:sub(at, at + 1) == "\r\n" and 2 or 1)
    else
      local stop = text:find(stops, at) or #text + 1
      field[#field + 1] = text:sub(at, stop - 1)
      at = stop
    end
  end
  if #field > 0 or #row > 0 then
    end_field()
    rows[#rows + 1] = row
  end
  return rows
end

---The rows under a head line, each a table by column name (in lower case); second, the head's names.
function M.records(text)
  text = text:gsub("^\239\187\191", ""):gsub("^%s+", "")
  local line = text:match "^[^\r\n]*"
  local sep = line:find(",", 1, true) and "," or line:match "[;\t]"
  local rows, out = M.rows(text, sep), {}
  local head = table.remove(rows, 1) or {}
  for i, name in ipairs(head) do head[i] = name:match "^%s*(.-)%s*$":lower() end
  for _, row in ipairs(rows) do
    if #row > 1 or row[1]:find "%S" then
      local r = {}
      for i, name in ipairs(head) do r[name] = row[i] or "" end
      out[#out + 1] = r
    end
  end
  return out, head
end

---A line of fields, quoted where it must be.
function M.line(fields)
  local out = {}
  for i, f in ipairs(fields) do
    out[i] = f:find '[,"\r\n]' and '"' .. f:gsub('"', '""') .. '"' or f
  end
  return table.concat(out, ",") .. "\n"
end

return M
