-- rig.sqlite on the real runtime: values, errors, transactions and who waits for them, limits, cancelling, closing.
local rig = require "moonrig"
local host = require "host"
local t = require "kit"
local tmp = os.getenv "TMP"
local big = rig.int "9007199254740993"

local function memory()
  local db = assert(rig.sqlite.open ":memory:")
  assert(db:exec "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE TABLE u(x UNIQUE)")
  return db
end
local ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"

t.test("values go both ways", function()
  local db = memory()
  local r = assert(db:run("INSERT INTO t(a, b) VALUES(?, ?)", { big, "\255\0raw" }))
  t.equal(r.changes, 1)
  t.equal(r.last_id, 1)
  local row = assert(db:one("SELECT a, b, typeof(b) AS kind, NULL AS none, 1.5 AS half, 'gr\195\188n' AS text FROM t"))
  t.equal(row.a, big)
  t.equal(tostring(row.a), "9007199254740993")
  t.equal(row.b, "\255\0raw")
  t.equal(row.kind, "blob")
  t.equal(row.none, nil)
  t.equal(row.half, 1.5)
  t.equal(row.text, "gr\195\188n")
  t.equal(db:one("SELECT typeof(?) AS k", { "text" }).k, "text")
  t.equal(db:one("SELECT typeof(?) AS k", { rig.sqlite.blob "text" }).k, "blob")
  t.equal(db:one("SELECT ? AS v", rig.sqlite.blob "x\0y").v, "x\0y")
  t.equal(db:one("SELECT ? AS v", 7).v, 7)
  t.equal(db:one("SELECT length(?) AS v", { ("\200"):rep(100000) }).v, 100000)
  t.equal(db:one("SELECT :a || @b || $n AS v", { a = "x", b = "y", n = "z" }).v, "xyz")
  t.equal(db:one("SELECT coalesce(?, ?, ?) AS v", { nil, rig.null, 3 }).v, 3)
  t.equal(db:one("SELECT ? AS v", { true }).v, 1)
  t.equal(db:one("SELECT 1 WHERE 0"), nil)
  t.equal(rig.json.encode(db:query "SELECT 1 AS a UNION SELECT 2 ORDER BY a"), '[{"a":1},{"a":2}]')
  local sum = 0
  for r2 in db:rows("SELECT value FROM json_each(?)", { "[1,2,3]" }) do sum = sum + r2.value end
  t.equal(sum, 6)
  db:close()
  db:close()
  t.equal(select(2, db:one "SELECT 1").message, "the database is closed")
end)
t.test("misuse raises, failures are nil, err", function()
  local db = memory()
  t.raises("real_sqlite_test.*takes SQL as a string, got nil", function() db:query() end)
  t.raises("a list, or a table of names, not both", function() db:run("x", { 1, a = 2 }) end)
  t.raises("parameter 1 is a table", function() db:run("x", { {} }) end)
  t.raises("parameter a is a function", function() db:run("x", { a = print }) end)
  t.raises("parameter 1 is .*nan", function() db:run("x", { 0 / 0 }) end)
  t.raises("unknown option tiemout", function() db:query("x", {}, { tiemout = 1 }) end)
  t.raises("timeout is a number above 0", function() db:query("x", {}, { timeout = 0 }) end)
  t.raises("takes a path, got nil", function() rig.sqlite.open() end)
  local function fails(what, kind, ...)
    local v, e = db:query(...)
    t.equal(v, nil)
    t.match(e.message, what)
    t.equal(e.type, kind)
  end
  fails('near "SELEC": syntax error', "invalid_request_error", "SELEC 1")
  fails("places for 1, 0 are given", "invalid_request_error", "SELECT ?")
  fails("there is none for :b", "invalid_request_error", "SELECT :b", { a = 1 })
  fails("not authorized", "permission_error", "BEGIN")
  fails("not authorized", "permission_error", "ATTACH '" .. tmp .. "/x.db' AS x")
  assert(db:run "INSERT INTO u VALUES(1)")
  fails("UNIQUE constraint failed: u.x", "conflict_error", "INSERT INTO u VALUES(1)")
  local none, e = rig.sqlite.open(tmp .. "/nowhere/x.db")
  t.equal(none, nil)
  t.match(e.message, "cannot be opened")
  db:close()
end)
t.test("a transaction is all or nothing", function()
  local db = memory()
  local function count() return db:one("SELECT count(*) AS n FROM t").n end
  t.equal(db:transaction(function(tx) tx:run "INSERT INTO t(a) VALUES(1)" end), true)
  t.equal(count(), 1)
  local a, b = db:transaction(function(tx)
    tx:run "INSERT INTO t(a) VALUES(2)"
    return tx:one("SELECT count(*) AS n FROM t").n, "two"
  end)
  t.equal(a .. b, "2two")
  local v, e = db:transaction(function(tx)
    tx:run "INSERT INTO t(a) VALUES(3)"
    return nil, "changed my mind"
  end)
  t.equal(v, nil)
  t.equal(e, "changed my mind")
  t.equal(count(), 2)
  t.raises("broken here", function()
    db:transaction(function(tx)
      tx:run "INSERT INTO t(a) VALUES(4)"
      error "broken here"
    end)
  end)
  t.equal(count(), 2)
  t.raises("inside the database's transaction", function() db:transaction(function() db:one "SELECT 1" end) end)
  t.raises("one transaction at a time", function() db:transaction(function(tx) tx:transaction(print) end) end)
  t.raises("takes a function, got nil", function() db:transaction() end)
  local kept
  db:transaction(function(tx) kept = tx end)
  t.match(select(2, kept:one "SELECT 1").message, "the transaction is over")
  t.equal(count(), 2)
  db:close()
end)
t.test("others wait for a transaction's end, in order", function()
  local db, log = memory(), {}
  local first = rig.spawn(function()
    db:transaction(function(tx)
      tx:run "INSERT INTO t(a) VALUES('tx')"
      log[#log + 1] = "open"
      rig.sleep(0.05)
      log[#log + 1] = "ends"
      tx:run "INSERT INTO t(a) VALUES('tx')"
    end)
  end)
  while not log[1] do rig.sleep(0.001) end
  local second = rig.spawn(function()
    return db:transaction(function(tx)
      log[#log + 1] = "second"
      return tx:one("SELECT count(*) AS n FROM t").n
    end)
  end)
  t.equal(db:one("SELECT count(*) AS n FROM t").n, 2)
  t.equal(second:wait(), 2)
  first:wait()
  t.equal(table.concat(log, " "), "open ends second")
  db:close()
end)
t.test("a cancelled transaction is rolled back at once", function()
  local db, inside, after = memory(), false, nil
  local task = rig.spawn(function()
    db:transaction(function(tx)
      tx:run "INSERT INTO t(a) VALUES(1)"
      inside = true
      while true do pcall(rig.sleep, 60) if rig.task.cancelled() then break end end
      after = { pcall(tx.run, tx, "INSERT INTO t(a) VALUES(2)") }
    end)
  end)
  while not inside do rig.sleep(0.001) end
  task:cancel "enough"
  t.equal(db:one("SELECT count(*) AS n FROM t").n, 0)
  t.raises("enough", task.wait, task)
  while not after do rig.sleep(0.001) end
  t.equal(after[2], nil)
  t.match(after[3].message, "transaction is over")
  t.equal(db:one("SELECT count(*) AS n FROM t").n, 0)
  db:close()
end)
t.test("a transaction whose function uses up its time is over", function()
  local db = memory()
  local waiting
  local task = rig.spawn(function()
    db:transaction(function(tx)
      tx:run "INSERT INTO t(a) VALUES(1)"
      waiting = rig.spawn(function() return db:one("SELECT count(*) AS n FROM t").n end)
      waiting.watched = true
      while true do end
    end)
  end)
  t.raises("", task.wait, task)
  t.equal(db:one("SELECT count(*) AS n FROM t").n, 0)
  t.equal(assert(db:run "INSERT INTO t(a) VALUES(5)").changes, 1)
  db:close()
end)
t.test("long statements: time-out, cancel; others go on", function()
  local db, other = memory(), memory()
  local v, e = db:query(ENDLESS, nil, { timeout = 0.05 })
  t.equal(v, nil)
  t.equal(e.type, "timeout_error")
  local task = rig.spawn(function() return db:query(ENDLESS) end)
  rig.sleep(0)
  t.equal(other:one("SELECT 8 AS v").v, 8)
  task:cancel "no more"
  t.raises("no more", task.wait, task)
  t.equal(db:one("SELECT 9 AS v").v, 9)
  v, e = db:transaction(function(tx)
    assert(tx:run "INSERT INTO t(a) VALUES(1)")
    tx:run("INSERT INTO t(a) " .. ENDLESS, nil, { timeout = 0.05 }) -- SQLite rolls all of it back
    return tx:run "INSERT INTO t(a) VALUES(2)"
  end)
  t.equal(v, nil)
  t.equal(e.message, "the transaction was rolled back")
  t.equal(db:one("SELECT count(*) AS n FROM t").n, 0)
  db:close()
  other:close()
end)
t.test("limits of rows and bytes", function()
  local db = memory()
  local many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100) SELECT x FROM c"
  t.equal(#assert(db:query(many)), 100)
  local v, e = db:query(many, nil, { max_rows = 99 })
  t.equal(v, nil)
  t.match(e.message, "more than 99 rows")
  t.equal(e.field, "max_rows")
  v, e = db:query("SELECT zeroblob(100000) AS z", nil, { max_bytes = 1000 })
  t.match(e.message, "more than 1000 bytes")
  db:close()
end)
t.test("files: kept, readonly, shared by two; closed when collected", function()
  local path = tmp .. "/a.db"
  local db = assert(rig.sqlite.open(path))
  assert(db:exec "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
  local ro = assert(rig.sqlite.open(path, { readonly = true }))
  t.equal(ro:one("SELECT a FROM t").a, 1)
  t.equal(select(2, ro:run "DELETE FROM t").type, "permission_error")
  db:close()
  db = assert(rig.sqlite.open(path))
  t.equal(db:one("SELECT a FROM t").a, 1)
  db, ro = nil, nil -- the kit's check after the test sees the file closed
  collectgarbage()
end)
rig.main(t.run)
