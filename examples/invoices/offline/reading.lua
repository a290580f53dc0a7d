-- How the files come out of the sandbox: commands for bash, and what their answers hold. A command brings
-- several small files, or a piece of a large one; an answer stays far below the limit of a tool result.
--
-- A file is { name, size }; what is learnt of it: `text` (UTF-8), or `why` it cannot be read.
local M = {}

local UPLOADS = "/mnt/session/uploads"
local SMALL = 60000 -- bytes of files that come together
local PIECE = 25000 -- characters of a larger file in one command: below the limit in bytes too
local MAX_FILE, MAX_FILES = 2 * 1024 * 1024, 40

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

-- -------------------------------------------------------------------------------------------- the list

M.list = "cd " .. UPLOADS .. " && find . -type f -printf '%s %P\\n' | LC_ALL=C sort -k2"

---@return table[] files, in the order of their names
function M.listed(answer)
  local files = {}
  for line in answer:gmatch "[^\n]+" do
    local size, name = line:match "^(%d+) (.+)$"
    if name then files[#files + 1] = { name = name, size = tonumber(size) } end
  end
  return files
end

-- ---------------------------------------------------------------------------------------- small files

-- Text that needs nothing comes as it is, with its length before it, so that nothing in a file can be taken
-- for the next file's head. Of the others the first bytes come, to see what they are.
local SHOW = [[; do k=text
  if ! [ -r "$f" ]; then k=none
  elif ! iconv -f UTF-8 -t UTF-8 <"$f" >/dev/null 2>&1; then k=other
  elif [ "$(LC_ALL=C tr -d '\11\12\15\40-\176\200-\377' <"$f" | head -c 1 | wc -c)" != 0 ]; then k=odd; fi
  [ $k != text ] || [ "$(wc -c <"$f")" -le ]] .. SMALL .. [[ ] || k=large
  printf '== %s %d %s\n' $k "$(cat -- "$f" 2>/dev/null | wc -c)" "$f"
  case $k in text) cat -- "$f" ;; other|odd|large) head -c 400 -- "$f" | od -An -v -tx1 | tr -d ' \n' ;; esac
  echo; done; echo '== end']]

local function show(names)
  local quoted = {}
  for i, n in ipairs(names) do quoted[i] = quote(n) end
  return ("cd %s && for f in %s%s"):format(UPLOADS, table.concat(quoted, " "), SHOW)
end

---Puts what a "show" brought into its files. A file that it does not hold whole gets no text.
local function shown(files, answer)
  local at = 1
  for _, f in ipairs(files) do
    local kind, size, name, data = answer:match("^== (%l+) (%d+) ([^\n]*)\n()", at)
    if name ~= f.name then break end
    local stop = kind == "text" and data + tonumber(size) or answer:find("\n", data, true) or 0
    if answer:sub(stop, stop + 3) ~= "\n== " then break end
    if kind == "text" then
      f.text = answer:sub(data, stop - 1)
    else
      f.kind, f.peek = kind, answer:sub(data, stop - 1):gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end)
    end
    at = stop + 1
  end
  for _, f in ipairs(files) do
    if f.kind == "none" then f.why = "it cannot be opened" end
    if not f.text and not f.kind then f.why = "its content did not come back whole" end
  end
end

-- ------------------------------------------------------------------------- other encodings, large files

local magic = { { "%PDF", "a PDF file" }, { "\137PNG", "a picture" }, { "\255\216\255", "a picture" },
  { "GIF8", "a picture" }, { "PK\3\4", "an archive or an office document" }, { "\31\139", "compressed" } }

---The encoding of a file that is not plain UTF-8, from its first bytes; nil and what it is instead.
local function encoding_of(f)
  local p = f.peek
  for _, m in ipairs(magic) do
    if p:sub(1, #m[1]) == m[1] then return nil, "it is " .. m[2] .. ", not text" end
  end
  if p:find "^\255\254" or p:find "^\254\255" then return "UTF-16" end
  if p:find "^[^%z]%z[^%z]%z" then return "UTF-16LE" end
  if p:find "^%z[^%z]%z[^%z]" then return "UTF-16BE" end
  local _, controls = p:gsub("[%z\1-\8\14-\31]", "")
  if p:find "%z" or controls > #p / 10 then return nil, "it is not text" end
  if f.kind ~= "other" then return "UTF-8" end
  local declared = p:match "^%s*<%?xml[^>]-encoding%s*=%s*[\"']([%w._-]+)[\"']"
  return declared and not declared:upper():find "^UTF" and declared or "WINDOWS-1252"
end

---The command that brings `PIECE` characters of a file from `from` on, as UTF-8 without control characters.
local function piece(f, encoding, from)
  return ("cd %s && echo '== piece' && set -o pipefail && iconv -f %s -t UTF-32LE < %s | { tail -c +%.0f | head -c %.0f; "
    .. "cat >/dev/null; } | iconv -f UTF-32LE -t UTF-8 | tr '\\14' '\\n' | LC_ALL=C tr -d "
    .. "'\\000-\\010\\013\\016-\\037\\177'; r=$?; set +o pipefail; echo; echo '== end'; (exit $r)"):format(UPLOADS,
    encoding, quote(f.name), from * 4 + 1, PIECE * 4)
end

---Brings one file in pieces: f.text or f.why, once all have come.
local function in_pieces(f, encoding, ask)
  local parts, whole = {}, true
  for from = 0, f.size - 1, PIECE do
    local answer = ask(piece(f, encoding, from))
    local part = answer and not answer.is_error and answer.text:match "^== piece\n(.*)\n== end%s*$"
    if answer and not part then
      f.why = ("it cannot be read as %s"):format(encoding)
      return
    end
    whole = whole and part ~= nil
    parts[#parts + 1] = part
  end
  if whole then f.text = table.concat(parts) end
end

-- ---------------------------------------------------------------------------------------------- all files

---Reads files: ask(command) gives the answer { text, is_error } of a command that was run, or nil and notes
---that it is wanted. When nothing was wanted, every file has its text or a reason.
function M.read(files, ask)
  local group, bytes = {}, 0
  local function bring()
    if #group == 0 then return end
    local names = {}
    for i, f in ipairs(group) do names[i] = f.name end
    local answer = ask(show(names))
    if answer and answer.is_error then
      for _, f in ipairs(group) do f.why = "it could not be read: " .. answer.text:gsub("%s+", " "):sub(1, 120) end
    elseif answer then
      shown(group, answer.text)
    end
    group, bytes = {}, 0
  end
  for _, f in ipairs(files) do
    local here = f.size > SMALL and 0 or f.size
    if f.size > MAX_FILE then
      f.why = "it is larger than 2 MiB"
    else
      if bytes + here > SMALL or #group >= MAX_FILES then bring() end
      group[#group + 1], bytes = f, bytes + here
    end
  end
  bring()
  for _, f in ipairs(files) do
    if f.kind and f.kind ~= "none" then
      local encoding, what = encoding_of(f)
      f.why = what
      if encoding then in_pieces(f, encoding, ask) end
    end
  end
end

return M
