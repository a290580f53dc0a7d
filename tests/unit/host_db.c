/* SQLite files of scripts: values both ways, order, limits, stopping, what is refused, closing. */
#include "host_kit.h"

#include <sqlite3.h>
#include <sys/stat.h>

struct said {
  struct mr_runtime *rt;
  int n, code, opened;
  struct mr_ext_db *db;
  char json[4000], message[400], field[96];
};

static void on_open(void *ud, int code, struct mr_ext_db *db, const struct mr_err *err)
{
  struct said *g = ud;
  g->opened = 1;
  g->code = code;
  g->db = db;
  snprintf(g->message, sizeof g->message, "%s", err ? err->message : "");
}

static void on_run(void *ud, const struct mr_reply *r)
{
  struct said *g = ud;
  char *text = NULL;
  size_t n;
  g->n++;
  g->code = r->code;
  snprintf(g->message, sizeof g->message, "%s", r->err ? r->err->message : "");
  snprintf(g->field, sizeof g->field, "%s", r->err ? r->err->field : "");
  g->json[0] = '\0';
  if (r->val && g->rt && X()->write(g->rt, r->val, 0, &text, &n) == MR_OK) snprintf(g->json, sizeof g->json, "%s", text);
  if (text) mr_free(g->rt, text);
}

static struct mr_ext_db *open_db(struct mr_runtime *rt, const char *path, int readonly)
{
  struct said g = {0};
  struct mr_err err = {.size = sizeof err};
  CHECK_INT(X()->db_open(rt, path, readonly, on_open, &g, &err), MR_OK);
  CHECK_INT(g.opened, 0);
  UNTIL(rt, g.opened);
  if (g.code != MR_OK) test_fail(__FILE__, __LINE__, "%s: %d %s", path, g.code, g.message);
  return g.db;
}

static int refused(struct mr_runtime *rt, const char *path, struct said *g)
{
  *g = (struct said){0};
  CHECK_INT(X()->db_open(rt, path, 0, on_open, g, NULL), MR_OK);
  UNTIL(rt, g->opened);
  CHECK(g->db == NULL);
  return g->code;
}

static struct mr_ext_db_run query(const char *sql)
{
  return (struct mr_ext_db_run){.size = sizeof(struct mr_ext_db_run), .sql = mr_str_c(sql)};
}

static const char *run_q(struct mr_runtime *rt, struct mr_ext_db *db, struct mr_ext_db_run q, const char *params,
                         struct said *g)
{
  struct mr_err err = {.size = sizeof err};
  struct mr_doc *p = NULL;
  *g = (struct said){.rt = rt};
  if (params) CHECK_INT(X()->parse(rt, mr_str_c(params), &p, &err), MR_OK);
  CHECK_INT(X()->db_run(db, &q, &p, on_run, g, NULL, &err), MR_OK);
  CHECK(p == NULL);
  UNTIL(rt, g->n);
  return g->code == MR_OK ? g->json : g->message;
}
static const char *run(struct mr_runtime *rt, struct mr_ext_db *db, const char *sql, const char *params)
{
  static struct said g;
  return run_q(rt, db, query(sql), params, &g);
}
#define IS(a, b) CHECK_STR(mr_str_c(a), b)

TEST(values_go_both_ways)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_db *db = open_db(rt, ":memory:", 0);

  IS(run(rt, db, "CREATE TABLE t(a,b,c,d,e,f); -- and so on\n", NULL), "{\"columns\":[],\"rows\":[],\"changes\":0,\"last_id\":0}");
  IS(run(rt, db, "INSERT INTO t VALUES(?,?,?,?,?,?)",
         "[9007199254740993,1.5,\"\\u00e9\\u0000x\",{\"base64\":\"/wA=\"},null,true]"),
     "{\"columns\":[],\"rows\":[],\"changes\":1,\"last_id\":1}");
  IS(run(rt, db, "SELECT a,b,c,d,e,f,typeof(d) y FROM t", NULL),
     "{\"columns\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"y\"],\"rows\":[[9007199254740993,1.5,\"\xc3\xa9\\u0000x\","
     "{\"base64\":\"/wA=\"},null,1,\"blob\"]],\"changes\":0,\"last_id\":1}");
  IS(run(rt, db, "SELECT :a + @b AS x, $a AS y", "{\"a\":1,\"b\":2}"),
     "{\"columns\":[\"x\",\"y\"],\"rows\":[[3,1]],\"changes\":0,\"last_id\":1}");
  IS(run(rt, db, "INSERT INTO t(a) VALUES(5); INSERT INTO t(a) VALUES(6); SELECT a FROM t WHERE a < 9", NULL),
     "{\"columns\":[\"a\"],\"rows\":[[5],[6]],\"changes\":2,\"last_id\":3}");
  X()->db_close(&db);
  CHECK(db == NULL);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(what_is_wrong_is_said)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_db *db = open_db(rt, ":memory:", 0);
  struct mr_err err = {.size = sizeof err};
  struct mr_ext_db_run q = query("");
  struct said g;

  IS(run(rt, db, "SELEC 1", NULL), "near \"SELEC\": syntax error");
  IS(run(rt, db, "SELECT ?", NULL), "params: the SQL has places for 1, 0 are given");
  IS(run(rt, db, "SELECT ?", "[1,2]"), "params: the SQL has places for 1, 2 are given");
  IS(run(rt, db, "SELECT :a", "{\"b\":1}"), "params: there is none for :a (null is rig.null)");
  IS(run(rt, db, "SELECT ?", "[[1]]"), "params: 1: text, a number that fits 64 bits, true, false, null or a blob");
  IS(run(rt, db, "SELECT 1; SELECT ?", "[1]"), "sql: one statement only, when there are params");
  run(rt, db, "CREATE TABLE u(a UNIQUE)", NULL);
  run(rt, db, "INSERT INTO u VALUES(1)", NULL);
  run_q(rt, db, query("INSERT INTO u VALUES(1)"), NULL, &g);
  CHECK_INT(g.code, MR_E_CONFLICT);
  IS(g.message, "UNIQUE constraint failed: u.a");
  CHECK_INT(X()->db_run(db, &q, NULL, on_run, &g, NULL, &err), MR_E_INVALID);
  IS(err.field, "sql");
  CHECK_INT(X()->db_open(rt, "", 0, on_open, &g, &err), MR_E_INVALID);
  X()->db_close(&db);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(other_files_and_transactions_by_hand_are_refused)
{
  const char *dir = test_dir();
  struct mr_runtime *rt;
  struct mr_ext_db *db;
  struct mr_ext_db_run q;
  char path[800], sql[800], data[600], link_to[800];
  struct said g;

  snprintf(data, sizeof data, "%s/data", dir);
  rt = host_open(data);
  snprintf(path, sizeof path, "%s/own.db", dir);
  db = open_db(rt, path, 0);
  snprintf(sql, sizeof sql, "ATTACH '%s/other.db' AS o", dir);
  CHECK(strstr(run(rt, db, sql, NULL), "not authorized"));
  CHECK(strstr(run(rt, db, "ATTACH ? AS o", "[\"x.db\"]"), "not authorized"));
  snprintf(sql, sizeof sql, "VACUUM INTO '%s/copy.db'", dir);
  CHECK(strstr(run(rt, db, sql, NULL), "not authorized"));
  CHECK(strstr(run(rt, db, "SELECT load_extension('x')", NULL), "not authorized"));
  CHECK(strstr(run(rt, db, "PRAGMA temp_store_directory = '/tmp'", NULL), "not authorized"));
  CHECK(strstr(run(rt, db, "ATTACH '' AS o", NULL), "not authorized"));
  CHECK(strstr(run(rt, db, "PRAGMA hard_heap_limit = 1000", NULL), "not authorized"));
  CHECK(strstr(run(rt, db, "PRAGMA soft_heap_limit(1000)", NULL), "not authorized"));
  CHECK(strstr(run(rt, db, "PRAGMA mmap_size = 1000000", NULL), "not authorized"));
  CHECK(!strstr(run(rt, db, "PRAGMA cache_size = -1000", NULL), "not"));
  CHECK(strstr(run(rt, db, "BEGIN", NULL), "not authorized"));
  CHECK(strstr(run(rt, db, "SAVEPOINT a", NULL), "not authorized"));
  CHECK(!strstr(run(rt, db, "VACUUM", NULL), "not"));
  q = query("INSERT INTO t VALUES(1)");
  q.flags = MR_DB_TRANSACTION;
  run(rt, db, "CREATE TABLE t(a)", NULL);
  run_q(rt, db, q, NULL, &g);
  CHECK_INT(g.code, MR_E_STATE);
  q = query("BEGIN");
  q.flags = MR_DB_CONTROL;
  run_q(rt, db, q, NULL, &g);
  CHECK_INT(g.code, MR_OK);
  X()->db_close(&db);
  snprintf(path, sizeof path, "%s/store.db", data);
  CHECK_INT(refused(rt, path, &g), MR_E_DENIED);
  snprintf(link_to, sizeof link_to, "%s/link.db", dir);
  CHECK_INT(symlink(path, link_to), 0);
  CHECK_INT(refused(rt, link_to, &g), MR_E_DENIED);
  unlink(link_to);
  CHECK_INT(link(path, link_to), 0);
  CHECK_INT(refused(rt, link_to, &g), MR_E_DENIED);
  unlink(link_to);
  snprintf(path, sizeof path, "%s/../data/new.db", data);
  CHECK_INT(refused(rt, path, &g), MR_E_DENIED);
  CHECK(access(path, F_OK) != 0);
  CHECK_INT(symlink(path, link_to), 0); /* to nowhere: opening it would make that file */
  CHECK_INT(refused(rt, link_to, &g), MR_E_DENIED);
  CHECK(access(path, F_OK) != 0);
  unlink(link_to);
  snprintf(path, sizeof path, "%s/blobs/new.db", data);
  CHECK_INT(refused(rt, path, &g), MR_E_DENIED);
  snprintf(path, sizeof path, "file:%s/store.db?mode=ro", data); /* a name like another, of no directory */
  CHECK_INT(refused(rt, path, &g), MR_E_IO);
  snprintf(path, sizeof path, "%s/none/new.db", dir);
  CHECK_INT(refused(rt, path, &g), MR_E_IO);
  snprintf(path, sizeof path, "%s/text", dir);
  FILE *f = fopen(path, "we");
  for (int i = 0; i < 500; i++)
    fputs("no database ", f);
  fclose(f);
  CHECK_INT(refused(rt, path, &g), MR_E_INVALID);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

static const char *ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";

TEST(paths_stay_within_the_roots)
{
  const char *dir = test_dir();
  struct mr_config c = host_config(":memory:");
  struct mr_runtime *rt = NULL;
  struct mr_ext_db *db;
  struct mr_err err = {.size = sizeof err};
  char options[700], path[700];
  struct said g;

  snprintf(path, sizeof path, "%s/in", dir);
  CHECK_INT(mkdir(path, 0700), 0);
  snprintf(options, sizeof options, "{\"script\":{\"roots\":[\"%s/in\"]}}", dir);
  c.options = options;
  CHECK_INT(mr_open(&rt, &c, &err), MR_OK);
  snprintf(path, sizeof path, "%s/in/a.db", dir);
  db = open_db(rt, path, 0);
  X()->db_close(&db);
  snprintf(path, sizeof path, "%s/in/../out.db", dir);
  CHECK_INT(refused(rt, path, &g), MR_E_DENIED);
  snprintf(path, sizeof path, "%s/in/link.db", dir);
  CHECK_INT(symlink("/etc/passwd", path), 0);
  CHECK_INT(refused(rt, path, &g), MR_E_DENIED);
  CHECK_INT(refused(rt, "out.db", &g), MR_E_DENIED);
  db = open_db(rt, ":memory:", 0);
  X()->db_close(&db);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(long_statements_are_stopped)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_db *db = open_db(rt, ":memory:", 0), *other = open_db(rt, ":memory:", 0);
  struct mr_ext_db_run q = query(ENDLESS);
  struct said g = {0}, waits = {0}, last = {0};
  uint64_t id, id2;

  q.timeout_ms = 30;
  run_q(rt, db, q, NULL, &g);
  CHECK_INT(g.code, MR_E_TIMEOUT);
  q = query(ENDLESS);
  g = (struct said){0};
  CHECK_INT(X()->db_run(db, &q, NULL, on_run, &g, &id, NULL), MR_OK);
  CHECK_INT(X()->db_run(db, &q, NULL, on_run, &waits, &id2, NULL), MR_OK);
  q = query("SELECT 7");
  CHECK_INT(X()->db_run(db, &q, NULL, on_run, &last, NULL, NULL), MR_OK);
  CHECK(strstr(run(rt, other, "SELECT 8", NULL), "[[8]]")); /* another connection is not held up */
  CHECK_INT(g.n, 0);
  X()->db_cancel(rt, id2);
  CHECK_INT(waits.n, 0); /* in order: after the one before it */
  X()->db_cancel(rt, id);
  X()->db_cancel(rt, 999);
  UNTIL(rt, last.n);
  CHECK(g.n == 1 && waits.n == 1);
  CHECK_INT(g.code, MR_E_CANCELLED);
  CHECK_INT(waits.code, MR_E_CANCELLED);
  CHECK_INT(last.code, MR_OK);
  X()->db_close(&db);
  X()->db_close(&other);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(rows_and_bytes_are_bounded)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_db *db = open_db(rt, ":memory:", 0);
  struct mr_ext_db_run q = query("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 11) SELECT x FROM c");
  struct said g;

  q.max_rows = 11;
  run_q(rt, db, q, NULL, &g);
  CHECK_INT(g.code, MR_OK);
  q.max_rows = 10;
  run_q(rt, db, q, NULL, &g);
  CHECK_INT(g.code, MR_E_TOO_LARGE);
  q = query("SELECT zeroblob(2000)");
  q.max_bytes = 1000;
  run_q(rt, db, q, NULL, &g);
  CHECK_INT(g.code, MR_E_TOO_LARGE);
  IS(g.field, "max_bytes");
  q.max_bytes = 3000;
  run_q(rt, db, q, NULL, &g);
  CHECK_INT(g.code, MR_OK);
  CHECK_INT(mr_close(&rt), MR_OK); /* with the database open */
  X()->db_close(&db);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_locked_file_is_waited_for)
{
  struct mr_runtime *rt = host_open(":memory:");
  char path[400];
  sqlite3 *h;
  struct mr_ext_db *db, *ro;
  struct mr_ext_db_run q = query("INSERT INTO t VALUES(1)");
  struct said g = {0};

  snprintf(path, sizeof path, "%s/a.db", test_dir());
  db = open_db(rt, path, 0);
  run(rt, db, "CREATE TABLE t(a)", NULL);
  CHECK_INT(sqlite3_open(path, &h), SQLITE_OK);
  CHECK_INT(sqlite3_exec(h, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
  q.timeout_ms = 30;
  run_q(rt, db, q, NULL, &g);
  CHECK_INT(g.code, MR_E_TIMEOUT);
  q.timeout_ms = 0;
  g = (struct said){0};
  CHECK_INT(X()->db_run(db, &q, NULL, on_run, &g, NULL, NULL), MR_OK);
  host_turn(rt, 20);
  CHECK_INT(sqlite3_exec(h, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
  UNTIL(rt, g.n);
  CHECK_INT(g.code, MR_OK);
  CHECK_INT(sqlite3_close(h), SQLITE_OK);
  ro = open_db(rt, path, 1);
  run_q(rt, ro, query("DELETE FROM t"), NULL, &g);
  CHECK_INT(g.code, MR_E_DENIED);
  X()->db_close(&ro);
  X()->db_close(&db);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_database_in_memory_is_bounded)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_db *db = open_db(rt, ":memory:", 0);
  struct said g;

  CHECK(strstr(run(rt, db, "PRAGMA max_page_count = 1000000", NULL), "not authorized"));
  CHECK(strstr(run(rt, db, "PRAGMA page_size = 65536", NULL), "not authorized"));
  CHECK(strstr(run(rt, db, "PRAGMA temp_store = memory", NULL), "not authorized"));
  run(rt, db, "CREATE TABLE t(a)", NULL);
  run_q(rt, db, query("WITH c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 300) "
                      "INSERT INTO t SELECT zeroblob(1048576) FROM c"), NULL, &g);
  CHECK_INT(g.code, MR_E_UNAVAILABLE);
  CHECK(strstr(run(rt, db, "SELECT count(*) FROM t", NULL), "[[0]]"));
  CHECK(!strstr(run(rt, db, "VACUUM", NULL), "not"));
  X()->db_close(&db);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

enum { WAITERS = 12 }; /* more than there are threads */

TEST(who_waits_for_a_lock_leaves_a_thread_to_who_holds_it)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_db *holder, *db[WAITERS];
  struct mr_ext_db_run begin = query("BEGIN IMMEDIATE"), q = query("INSERT INTO t VALUES(1)"), commit = query("COMMIT");
  struct said g = {0}, w[WAITERS] = {0};
  char path[400];

  snprintf(path, sizeof path, "%s/a.db", test_dir());
  holder = open_db(rt, path, 0);
  run(rt, holder, "CREATE TABLE t(a)", NULL);
  for (int i = 0; i < WAITERS; i++)
    db[i] = open_db(rt, path, 0);
  begin.flags = commit.flags = MR_DB_CONTROL;
  run_q(rt, holder, begin, NULL, &g);
  CHECK_INT(g.code, MR_OK);
  q.timeout_ms = 20000;
  for (int i = 0; i < WAITERS; i++)
    CHECK_INT(X()->db_run(db[i], &q, NULL, on_run, &w[i], NULL, NULL), MR_OK);
  host_turn(rt, 100);
  run_q(rt, holder, commit, NULL, &g);
  CHECK_INT(g.code, MR_OK);
  for (int i = 0; i < WAITERS; i++) {
    UNTIL(rt, w[i].n);
    CHECK_INT(w[i].code, MR_OK);
    X()->db_close(&db[i]);
  }
  IS(run(rt, holder, "SELECT count(*) AS n FROM t", NULL), "{\"columns\":[\"n\"],\"rows\":[[12]],\"changes\":0,\"last_id\":0}");
  X()->db_close(&holder);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(closing_ends_what_runs_and_answers_what_waits)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_db *db = open_db(rt, ":memory:", 0), *closed = open_db(rt, ":memory:", 0);
  struct mr_ext_db_run q = query(ENDLESS), one = query("SELECT 1");
  struct said g = {0}, waits = {0}, after = {0}, opening = {0};

  CHECK_INT(X()->db_run(closed, &one, NULL, on_run, &after, NULL, NULL), MR_OK);
  X()->db_close(&closed); /* after what was asked for */
  UNTIL(rt, after.n);
  CHECK_INT(after.code, MR_OK);
  CHECK_INT(X()->db_run(db, &q, NULL, on_run, &g, NULL, NULL), MR_OK);
  CHECK_INT(X()->db_run(db, &one, NULL, on_run, &waits, NULL, NULL), MR_OK);
  CHECK_INT(X()->db_open(rt, ":memory:", 0, on_open, &opening, NULL), MR_OK);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK(g.n == 1 && waits.n == 1 && opening.opened == 1);
  CHECK_INT(g.code, MR_E_CLOSED);
  CHECK_INT(waits.code, MR_E_CLOSED);
  X()->db_close(&opening.db);
  X()->db_close(&db);
  X()->db_close(&db);
  CHECK_INT(test_allocs(), 0);
}

/* Each allocation of opening, asking and answering fails once: an error, an answer, nothing left. */
TEST(without_memory)
{
  int went = 0, failed = 0;

  for (int n = 0; n < 120; n++) {
    struct mr_runtime *rt = host_open(":memory:");
    struct mr_ext_db_run q = query("SELECT ? AS a, x'ff' AS b");
    struct said o = {0}, g = {0};
    struct mr_doc *params = NULL;
    struct mr_err err = {.size = sizeof err};
    int code;

    CHECK_INT(X()->parse(rt, S("[{\"base64\":\"/wA=\"}]"), &params, &err), MR_OK);
    test_fail_after(n);
    code = X()->db_open(rt, ":memory:", 0, on_open, &o, &err);
    if (code == MR_OK) UNTIL(rt, o.opened);
    if (o.db) code = X()->db_run(o.db, &q, &params, on_run, &g, NULL, &err);
    if (o.db && code == MR_OK) UNTIL(rt, g.n);
    test_fail_after(-1);
    went += o.db && code == MR_OK && g.code == MR_OK;
    failed += !(o.db && code == MR_OK && g.code == MR_OK);
    X()->doc_free(params); /* NULL when it was taken */
    X()->db_close(&o.db);
    CHECK_INT(mr_close(&rt), MR_OK);
    if (test_allocs() != 0)
      test_fail(__FILE__, __LINE__, "%ld blocks left after the allocation %d failed", test_allocs(), n);
  }
  CHECK(went > 5 && failed > 10);
}
