-- Files of the machine that the scripts run on, without stopping other tasks. Not the sandbox's files.
local native = require "moonrig.native"
local wait = require "moonrig.wait"

---@class moonrig.fs
local M = {}
local file = wait(native.file)

---The whole file.
---@param path string
---@return string? bytes
---@return moonrig.Error? err
function M.read(path) return file("read", path) end

---Replaces the file in one step (a reader sees the old or the new one).
---@param path string
---@param bytes string
---@return boolean? ok
---@return moonrig.Error? err
function M.write(path, bytes) return file("write", path, bytes) end

---Adds to the end of a file; one that is not there is made.
---@param path string
---@param bytes string
---@return boolean? ok
---@return moonrig.Error? err
function M.append(path, bytes) return file("append", path, bytes) end

---@class moonrig.FileInfo
---@field name string
---@field type "file"|"directory"|"link"|"other"
---@field size integer
---@field mtime number seconds since 1970

---What a directory holds, by name.
---@param path string
---@return moonrig.FileInfo[]? list
---@return moonrig.Error? err
function M.list(path)
  local l, e = file("list", path)
  if not l then return nil, e end
  table.sort(l, function(a, b) return a.name < b.name end)
  return l
end

---What is at a path; of a link, what it leads to.
---@param path string
---@return moonrig.FileInfo? info
---@return moonrig.Error? err
function M.stat(path) return file("stat", path) end

---Makes a directory, its parents too; one that is there already is fine.
---@param path string
---@return boolean? ok
---@return moonrig.Error? err
function M.mkdir(path) return file("mkdir", path) end

---Removes a file or an empty directory.
---@param path string
---@return boolean? ok
---@return moonrig.Error? err
function M.remove(path) return file("remove", path) end

---Gives a file another name; one that has it already is replaced.
---@param from string
---@param to string
---@return boolean? ok
---@return moonrig.Error? err
function M.rename(from, to) return file("rename", from, to) end

---Iterates over the lines of a file, without their ends. Raises if it cannot be read.
---@param path string
---@return fun(): string?
function M.lines(path)
  local text, e = M.read(path)
  if not text then error(e, 0) end
  local at = 1
  return function()
    if at > #text then return nil end
    local stop = text:find("\n", at, true) or #text + 1
    local line = text:sub(at, stop - 1)
    at = stop + 1
    return (line:gsub("\r$", ""))
  end
end

return M
