-- rig.sqlite: SQLite files of the scripts' own. Each database runs its statements in order, off the script thread.
local native = require "moonrig.native"
local wait = require "moonrig.wait"
local declare = require "moonrig.declare"
local err = require "moonrig.err"
local task = require "moonrig.task"
local json = require "moonrig.json"

---@class moonrig.sqlite
local M = {}
local open, run, join = wait(native.db_open), wait(native.db_run), wait(native.join)
local TRANSACTION, CONTROL = 1, 2 -- MR_DB_*

---@class moonrig.SqliteOptions
---@field timeout? number     seconds for waiting for locks and running; default 60
---@field max_rows? integer   default 10,000
---@field max_bytes? integer  of all rows; default 16 MiB

---@class moonrig.Sqlite a database, or a transaction in it (which has no close and no transaction)
local Db = { __name = "moonrig.sqlite" }
Db.__index = Db
---@class moonrig.SqliteTransaction: moonrig.Sqlite
local Tx = { __name = "moonrig.sqlite.transaction" }
Tx.__index = Tx

local Blob = { __name = "moonrig.blob" }

---Bytes that are stored as a blob even if they are UTF-8. (Text that is not is a blob by itself.)
---@param bytes string
---@return table
function M.blob(bytes)
  if type(bytes) ~= "string" then err.misuse("rig.sqlite.blob takes a string, got %s", type(bytes)) end
  return setmetatable({ blob = bytes }, Blob)
end

---Opens a file, which is made if it is not there; ":memory:" is a database of its own. It is closed by close(),
---when nothing refers to it any more (with its generation, when a script's local does), and at the end.
---@param path string
---@param o? { readonly?: boolean }
---@return moonrig.Sqlite? db
---@return moonrig.Error? err
function M.open(path, o)
  if type(path) ~= "string" then err.misuse("rig.sqlite.open takes a path, got %s", type(path)) end
  if o ~= nil then declare.keys("rig.sqlite.open", o, "readonly") end
  local h, e = open(path, o and o.readonly)
  if not h then return nil, e end
  return setmetatable({ h = h, path = path }, Db)
end

-- ------------------------------------------------------------------------------------------- parameters

local function check_value(what, k, v)
  local t = type(v)
  local fine = t == "string" or t == "boolean" or t == "number" or getmetatable(v) == Blob
    or v == json.null or (t == "userdata" and math.type == nil) or v == nil
  if not fine then
    err.misuse("%s: parameter %s is a %s; it takes text, numbers, booleans, rig.null and rig.sqlite.blob",
      what, tostring(k), t)
  end
  if t == "number" and (v ~= v or v == math.huge or v == -math.huge) then
    err.misuse("%s: parameter %s is %s, which has no value in SQL", what, tostring(k), tostring(v))
  end
end

---The table to hand over, and how many it has; -1 for names.
local function params_of(what, p)
  if p == nil then return nil end
  if type(p) ~= "table" or getmetatable(p) == Blob then p = { p } end
  local n, names = 0, false
  for k, v in pairs(p) do
    if type(k) == "number" and k >= 1 and k % 1 == 0 and k <= 32766 then
      n = math.max(n, k)
    elseif type(k) == "string" then
      names = true
    else
      err.misuse("%s: params are a list, or a table of names", what)
    end
    check_value(what, k, v)
  end
  if names and n > 0 then
    err.misuse("%s: params are a list, or a table of names, not both", what)
  end
  if names then return p, -1 end
  local list = {}
  for i = 1, n do list[i] = p[i] == nil and json.null or p[i] end
  return list, n
end

-- ------------------------------------------------------------------------------------------------- runs

local function over(tx, e)
  local db = tx.db
  if db.tx == tx then db.tx = nil end
  tx.over = e or true
end

---Waits while another task's transaction is open.
local function turn_of(db, what)
  while db.tx do
    local tx = db.tx
    if tx.task and native.within(tx.task.id) then
      err.misuse("%s: this task is inside the database's transaction; use what db:transaction gives its function", what)
    end
    if tx.task and not tx.task.done then join(tx.task.id) end
    if db.tx == tx and (not tx.task or tx.task.done) then -- it ended without a word: out of time, or cancelled
      native.db_rollback(db.h)
      over(tx)
    end
  end
end

local function statement(self, what, sql, params, o, flags)
  if type(sql) ~= "string" then err.misuse("%s takes SQL as a string, got %s", what, type(sql)) end
  if o ~= nil then declare.keys(what, o, "timeout max_rows max_bytes") end
  for k, v in pairs(o or {}) do
    if type(v) ~= "number" or not (v > 0 and v < 2 ^ 31) then err.misuse("%s: %s is a number above 0", what, k) end
  end
  o = o or {}
  local p, n = params_of(what, params)
  local options = { max_rows = o.max_rows, max_bytes = o.max_bytes, flags = flags or 0,
    timeout_ms = o.timeout and math.ceil(o.timeout * 1000) }
  local db = self
  if getmetatable(self) == Tx then
    if self.over then
      return nil, err.new("invalid_request_error", what .. ": the transaction is over")
    end
    db = self.db
    options.flags = options.flags + TRANSACTION
  else
    turn_of(db, what)
  end
  if not db.h then return nil, err.new("closed", "the database is closed") end
  return run(db.h, sql, p, n, options)
end

---Runs statements (several are fine) that give nothing back.
---@param sql string
---@param o? moonrig.SqliteOptions
---@return boolean? ok
---@return moonrig.Error? err
function Db:exec(sql, o)
  local r, e = statement(self, "db:exec", sql, nil, o)
  if not r then return nil, e end
  return true
end

---Runs one statement with parameters: a list for ? (rig.null for NULL), a table of names for :name. A single value
---stands for { value }.
---@param sql string
---@param params? table
---@param o? moonrig.SqliteOptions
---@return { changes: integer, last_id: integer }? done
---@return moonrig.Error? err err.type is "conflict_error" when a constraint failed
function Db:run(sql, params, o)
  local r, e = statement(self, "db:run", sql, params, o)
  if not r then return nil, e end
  return { changes = r.changes, last_id = r.last_id }
end

---All rows, as tables by column name (name columns with AS: of two that are called the same one is left). NULL is nil.
---@param sql string
---@param params? table
---@param o? moonrig.SqliteOptions
---@return table[]? rows
---@return moonrig.Error? err
function Db:query(sql, params, o)
  local r, e = statement(self, "db:query", sql, params, o)
  if not r then return nil, e end
  return r.rows, nil
end

---The first row; nil when there is none (then err is nil too).
---@param sql string
---@param params? table
---@param o? moonrig.SqliteOptions
---@return table? row
---@return moonrig.Error? err
function Db:one(sql, params, o)
  local r, e = statement(self, "db:one", sql, params, o)
  if not r then return nil, e end
  return r.rows[1]
end

---Iterates over the rows of a query. Raises when it fails.
---@param sql string
---@param params? table
---@param o? moonrig.SqliteOptions
---@return fun(): table?
function Db:rows(sql, params, o)
  local r, e = statement(self, "db:rows", sql, params, o)
  if not r then error(e, 0) end
  local i = 0
  return function()
    i = i + 1
    return r.rows[i]
  end
end

for _, name in ipairs { "exec", "run", "query", "one", "rows" } do Tx[name] = Db[name] end

function Tx.transaction() err.misuse("tx:transaction: one transaction at a time; this one is open") end

---Closes the file, after what was asked for; an open transaction is rolled back. Again is fine.
function Db:close()
  if self.h then native.db_close(self.h) end
  self.h = nil
end

-- ----------------------------------------------------------------------------------------- transactions

local unpack = table.unpack or unpack
local function pack(...) return { n = select("#", ...), ... } end

local function control(tx, sql, flags)
  return run(tx.db.h, sql, nil, nil, { flags = CONTROL + (flags or 0) })
end

---The transaction's task: BEGIN, the function, COMMIT or ROLLBACK.
local function body(tx, fn)
  local ok, e = control(tx, "BEGIN IMMEDIATE")
  if not ok then
    over(tx)
    return { n = 2, nil, e }
  end
  local r = pack(fn(tx))
  if r[1] == nil and r[2] ~= nil then
    native.db_rollback(tx.db.h)
    over(tx)
    return r
  end
  ok, e = control(tx, "COMMIT", TRANSACTION)
  if not ok then
    if tx.db.h then native.db_rollback(tx.db.h) end
    over(tx)
    return { n = 2, nil, e }
  end
  over(tx)
  return r.n == 0 and { n = 1, true } or r
end

---Runs fn(tx) as one transaction: tx has run, query, one, rows and exec. Other tasks' statements wait for its end.
---It is rolled back when fn raises or returns nil, err, and when its task is cancelled.
---@param fn fun(tx: moonrig.SqliteTransaction): any
---@return any ... what fn returned; true when that was nothing; nil, err
function Db:transaction(fn)
  if type(fn) ~= "function" then err.misuse("db:transaction takes a function, got %s", type(fn)) end
  turn_of(self, "db:transaction")
  if not self.h then return nil, err.new("closed", "the database is closed") end
  local tx = setmetatable({ db = self }, Tx)
  self.tx = tx
  local started, t = pcall(task.spawn, body, tx, fn)
  if not started then
    over(tx)
    error(t, 0)
  end
  tx.task = t
  local ok, r = pcall(t.wait, t)
  if not tx.over then
    t:cancel "the transaction is over"
    if self.h then native.db_rollback(self.h) end
    over(tx)
  end
  if not ok then error(r, 0) end
  return unpack(r, 1, r.n)
end

return M
