/* Opening: durability over a reopen, the lock, file modes, migrations, what is refused. */
#include <errno.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "store_kit.h"
#include "store/sqlite/sqlite_t.h"

TEST(reopen_finds_everything)
{
  struct ts t;
  struct got g = {0};
  struct mr_commit *c;
  struct mr_session_row s = ts_session("sesn_1", 5);
  struct mr_doc_row d = ts_doc("agent", "agent_1", 5, "{\"b\":\"\xC3\xA9\"}");
  struct mr_log_row r = ts_log("user.message", "sevt_1", 5, "{\"e\":1}");
  struct mr_inbox_row in = {.event_id = MR_S("sevt_2"), .type = MR_S("user.message"), .body = MR_S("{\"i\":1}")};
  int64_t ws, pos;
  struct outcome o;
  char dir[4096];

  snprintf(dir, sizeof dir, "%s/made/on/the/way", test_dir());
  ts_open(&t, dir);
  ws = t.ws;
  c = ts_commit(&t);
  mr_commit_session_new(c, &s);
  mr_commit_doc_put(c, &d, 0);
  mr_commit_log(c, s.id, &r, 1);
  mr_commit_inbox_add(c, s.id, &in);
  CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  pos = o.pos;
  ts_close(&t);
  ts_open(&t, dir);
  CHECK_INT(t.ws, ws);
  ts_read(&t, &g, mr_read_session, t.ws, s.id);
  CHECK_STR(g.sessions[0].agent, "{\"a\":1}");
  ts_read(&t, &g, mr_read_doc, t.ws, d.kind, d.id);
  CHECK_STR(g.docs[0].body, "{\"b\":\"\xC3\xA9\"}");
  ts_read(&t, &g, mr_read_log, t.ws, &(struct mr_log_query){.session_id = s.id, .limit = 9});
  CHECK_INT(g.n, 1);
  CHECK_INT(g.log[0].pos, pos);
  ts_read(&t, &g, mr_read_inbox, t.ws, s.id);
  CHECK_STR(g.inbox[0].body, "{\"i\":1}");
  c = ts_commit(&t);
  mr_commit_log(c, s.id, &r, 1);
  CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  CHECK_INT(o.pos, pos + 1);
  got_free(&g);
  ts_close(&t);
}

static int mode_of(const char *dir, const char *name)
{
  char path[4200];
  struct stat st;

  snprintf(path, sizeof path, "%s/%s", dir, name);
  return stat(path, &st) == 0 ? (int)(st.st_mode & 0777) : -1;
}

TEST(files_are_private)
{
  struct ts t;
  char dir[4096];

  umask(0);
  snprintf(dir, sizeof dir, "%s/data", test_dir());
  ts_open(&t, dir);
  CHECK_INT(mode_of(dir, ""), 0700);
  CHECK_INT(mode_of(dir, "store.db"), 0600);
  CHECK_INT(mode_of(dir, "store.db-wal"), 0600);
  CHECK_INT(mode_of(dir, "store.db-shm"), 0600);
  CHECK_INT(mode_of(dir, "lock"), 0600);
  CHECK_INT(mode_of(dir, "blobs"), 0700);
  ts_close(&t);
  CHECK_INT(mode_of(dir, "store.db-wal"), -1); /* folded in at close */
}

TEST(lock_of_another_process)
{
  struct ts t;
  struct mr_err err;
  char dir[4096], pid_text[32], byte;
  int up[2], down[2], status;
  int64_t before;
  pid_t pid;

  snprintf(dir, sizeof dir, "%s/data", test_dir());
  CHECK(pipe(up) == 0 && pipe(down) == 0);
  pid = fork();
  if (pid == 0) {
    ts_open(&t, dir);
    if (write(up[1], "x", 1) != 1 || read(down[0], &byte, 1) < 0)
      _exit(3);
    ts_close(&t);
    _exit(0);
  }
  CHECK(read(up[0], &byte, 1) == 1);
  CHECK_INT(ts_open_code(&t, dir, NULL, 0, &err), MR_E_BUSY);
  snprintf(pid_text, sizeof pid_text, "process %d", (int)pid);
  CHECK(strstr(err.message, pid_text) != NULL);
  mr_loop_free(&t.loop);
  before = mr_mono_us(test_sys());
  CHECK_INT(ts_open_code(&t, dir, NULL, 60, &err), MR_E_BUSY);
  CHECK(mr_mono_us(test_sys()) - before >= 50000);
  mr_loop_free(&t.loop);
  CHECK(write(down[1], "x", 1) == 1);
  CHECK_INT(ts_open_code(&t, dir, NULL, 10000, &err), MR_OK); /* handed over */
  ts_close(&t);
  CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(lock_of_this_process)
{
  struct ts a, b;
  struct mr_err err;

  ts_open(&a, test_dir());
  CHECK_INT(ts_open_code(&b, test_dir(), NULL, 0, &err), MR_E_BUSY);
  CHECK(b.s == NULL);
  mr_loop_free(&b.loop);
  ts_session_make(&a, "sesn_1", 1); /* the first is not hurt */
  ts_close(&a);
  ts_open(&a, test_dir());
  ts_close(&a);
}

/* ---- migrations ---- */

static int add_note(sqlite3 *db, struct mr_err *err)
{
  return mr_sqlite_exec(db, "ALTER TABLE docs ADD COLUMN note TEXT NOT NULL DEFAULT 'new'", "add note", err);
}
static int add_table(sqlite3 *db, struct mr_err *err)
{
  return mr_sqlite_exec(db, "CREATE TABLE extra(workspace_id INTEGER NOT NULL, x)", "add table", err);
}
static int fail_half(sqlite3 *db, struct mr_err *err)
{
  int code = mr_sqlite_exec(db, "CREATE TABLE extra(x)", "half", err);
  return code == MR_OK ? mr_sqlite_exec(db, "no such statement", "half", err) : code;
}
static const struct mr_sqlite_step to_4[] = {{3, 4, add_table}, {2, 3, add_note}};
static const struct mr_sqlite_step broken[] = {{1, 2, fail_half}};

/* The store as a program of schema 1 left it: all that schema 2 added is taken out again. */
static void make_schema_1(const char *path)
{
  sqlite3 *db;

  CHECK_INT(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
  CHECK_INT(sqlite3_exec(db, "DROP TABLE kv; UPDATE meta SET value = 1 WHERE key = 'schema'", NULL, NULL, NULL),
            SQLITE_OK);
  sqlite3_close(db);
}

static int64_t peek(const char *path, const char *sql)
{
  sqlite3 *db;
  int64_t n = -1;

  CHECK_INT(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
  CHECK_INT(mr_sqlite_int(db, sql, &n, NULL), MR_OK);
  sqlite3_close(db);
  return n;
}

static void check_rows(struct ts *t)
{
  struct got g = {0};

  CHECK_INT(mr_store_workspace(t->s, MR_S("wrkspc_default"), &t->ws, NULL), MR_OK);
  ts_read(t, &g, mr_read_doc, t->ws, MR_S("agent"), MR_S("agent_1"));
  CHECK_STR(g.docs[0].body, "{\"old\":1}");
  ts_read(t, &g, mr_read_log, t->ws, &(struct mr_log_query){.session_id = MR_S("sesn_1"), .limit = 9});
  CHECK_INT(g.n, 1);
  CHECK_STR(g.log[0].body, "{\"e\":1}");
  got_free(&g);
}

TEST(migration)
{
  struct ts t;
  struct mr_err err;
  struct mr_commit *c;
  struct mr_doc_row d = ts_doc("agent", "agent_1", 5, "{\"old\":1}");
  struct mr_log_row r = ts_log("user.message", "sevt_1", 5, "{\"e\":1}");
  char dir[4096], db[4200], bak[4200];

  snprintf(dir, sizeof dir, "%s/data", test_dir());
  snprintf(db, sizeof db, "%s/store.db", dir);
  snprintf(bak, sizeof bak, "%s/store.db.v1.bak", dir);
  ts_open(&t, dir);
  ts_session_make(&t, "sesn_1", 1);
  c = ts_commit(&t);
  mr_commit_doc_put(c, &d, 0);
  mr_commit_log(c, MR_S("sesn_1"), &r, 1);
  CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
  ts_close(&t);
  CHECK_INT(peek(db, "SELECT value FROM meta WHERE key='schema'"), 2); /* made at once as it is today */
  make_schema_1(db);
  /* A step that fails half-way leaves schema 1 as it was, and says so. */
  CHECK_INT(ts_open_code(&t, dir, &(struct mr_store_internal){.steps = broken, .nsteps = 1, .schema = 2}, 0, &err),
            MR_E_UNAVAILABLE);
  mr_loop_free(&t.loop);
  CHECK_INT(peek(db, "SELECT value FROM meta WHERE key='schema'"), 1);
  CHECK_INT(peek(db, "SELECT count(*) FROM sqlite_master WHERE name='extra'"), 0);
  /* No way from 1 to 9. */
  CHECK_INT(ts_open_code(&t, dir, &(struct mr_store_internal){.steps = broken, .nsteps = 0, .schema = 9}, 0, &err),
            MR_E_STATE);
  mr_loop_free(&t.loop);
  /* 1 -> 2, this program's own step: rows intact, the old file kept, what came with it works. */
  CHECK_INT(ts_open_code(&t, dir, NULL, 0, &err), MR_OK);
  check_rows(&t);
  c = ts_commit(&t);
  mr_commit_kv_put(c, &(struct mr_kv_row){.space = MR_S("kv"), .key = MR_S("a"), .value = MR_S("1")}, 0);
  CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
  ts_close(&t);
  CHECK_INT(peek(db, "SELECT value FROM meta WHERE key='schema'"), 2);
  CHECK_INT(peek(db, "SELECT count(*) FROM kv"), 1);
  CHECK_INT(peek(bak, "SELECT count(*) FROM sqlite_master WHERE name='kv'"), 0);
  /* 2 -> 3 -> 4: one after the other. */
  CHECK_INT(ts_open_code(&t, dir, &(struct mr_store_internal){.steps = to_4, .nsteps = 2, .schema = 4}, 0, &err), MR_OK);
  check_rows(&t);
  ts_session_make(&t, "sesn_2", 1);
  ts_close(&t);
  CHECK_INT(mode_of(dir, "store.db.v2.bak"), 0600);
  CHECK_INT(peek(db, "SELECT value FROM meta WHERE key='schema'"), 4);
  CHECK_INT(peek(db, "SELECT count(*) FROM docs WHERE note='new'"), 1);
  CHECK_INT(peek(bak, "SELECT value FROM meta WHERE key='schema'"), 1);
  CHECK_INT(peek(bak, "SELECT count(*) FROM docs"), 1);
  CHECK_INT(mode_of(dir, "store.db.v1.bak"), 0600);
  CHECK_INT(mode_of(dir, "store.db.v1.bak.tmp"), -1);
  /* A program that knows only schema 2 refuses it and says why; nothing is changed. */
  CHECK_INT(ts_open_code(&t, dir, NULL, 0, &err), MR_E_STATE);
  CHECK(strstr(err.message, "newer program") != NULL);
  mr_loop_free(&t.loop);
  CHECK_INT(peek(db, "SELECT value FROM meta WHERE key='schema'"), 4);
  /* Open again with schema 4: no step runs twice. */
  CHECK_INT(ts_open_code(&t, dir, &(struct mr_store_internal){.steps = to_4, .nsteps = 2, .schema = 4}, 0, &err), MR_OK);
  check_rows(&t);
  ts_close(&t);
}

TEST(foreign_files_are_refused)
{
  struct ts t;
  struct mr_err err;
  sqlite3 *db;
  char dir[4096], path[4200];
  FILE *f;

  snprintf(dir, sizeof dir, "%s", test_dir());
  snprintf(path, sizeof path, "%s/store.db", dir);
  CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
  CHECK_INT(sqlite3_exec(db, "CREATE TABLE other(x)", NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(db);
  CHECK_INT(ts_open_code(&t, dir, NULL, 0, &err), MR_E_STATE);
  mr_loop_free(&t.loop);
  f = fopen(path, "w");
  for (int i = 0; i < 1000; i++)
    fputs("this is no database ", f);
  fclose(f);
  CHECK(ts_open_code(&t, dir, NULL, 0, &err) < 0);
  CHECK(err.message[0] != '\0');
  mr_loop_free(&t.loop);
  CHECK_INT(ts_open_code(&t, "/proc/no/such/place", NULL, 0, &err), MR_E_IO);
  mr_loop_free(&t.loop);
}
