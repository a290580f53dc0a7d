/*
 * ext_db_run.c - one run in a script's SQLite file: opening it, or statements with parameters in, rows out.
 *
 * On a thread of the pool of ext_db.c, with the connection to itself. What a script must not reach is kept away by
 * an authorizer: other files through ATTACH, BEGIN and COMMIT outside of a transaction that the binding keeps. So
 * that a run which is no part of a transaction never leaves one open.
 */
#include "host/ext_db_t.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

enum { PROGRESS_OPS = 1000, VALUE_MAX = 64 << 20, BUSY_STEP_MS = 5, BUSY_STEPS = 4, COLUMNS_MAX = 1000 };

#define MEMORY_MAX "PRAGMA page_size = 4096; PRAGMA max_page_count = 65536" /* 256 MiB */

int mr_db_fail(struct mr_db_run *r, int code, const char *message)
{
  r->code = mr_err_set(&r->err, code, NULL, "%s", message);
  return code;
}

/* ---- being stopped ---- */

static bool must_stop(struct mr_ext_db *db)
{
  struct mr_db_run *r = db->now;

  if (r && !atomic_load(&r->stop) && mr_mono_us(&db->rt->sys) >= r->until_us)
    atomic_store(&r->stop, MR_E_TIMEOUT);
  return r && atomic_load(&r->stop);
}

static int on_progress(void *ud)
{
  return must_stop(ud);
}

/* Somebody else writes: again, until the time is over. But the thread is only held for a moment: the one that holds
 * the lock may need it to end its transaction. */
static int on_busy(void *ud, int n)
{
  const struct timespec step = {0, BUSY_STEP_MS * 1000000L};
  struct mr_ext_db *db = ud;

  if (must_stop(db)) return 0;
  db->yields = n >= BUSY_STEPS && db->again_ok;
  if (db->yields) return 0;
  nanosleep(&step, NULL);
  return 1;
}

/* ---- errors ---- */

static int code_of(int rc)
{
  switch (rc & 0xff) {
  case SQLITE_NOMEM: return MR_E_NOMEM;
  case SQLITE_CONSTRAINT: return MR_E_CONFLICT;
  case SQLITE_TOOBIG: return MR_E_TOO_LARGE;
  case SQLITE_BUSY:
  case SQLITE_LOCKED: return MR_E_TIMEOUT;
  case SQLITE_FULL: return MR_E_UNAVAILABLE;
  case SQLITE_READONLY:
  case SQLITE_PERM:
  case SQLITE_AUTH: return MR_E_DENIED;
  case SQLITE_CANTOPEN:
  case SQLITE_CORRUPT:
  case SQLITE_IOERR: return MR_E_IO;
  default: return MR_E_INVALID; /* the SQL, mostly */
  }
}

static int failed(struct mr_ext_db *db, struct mr_db_run *r)
{
  int rc = sqlite3_extended_errcode(db->h), why = atomic_load(&r->stop);

  if ((rc & 0xff) == SQLITE_INTERRUPT || (why == MR_E_TIMEOUT && (rc & 0xff) == SQLITE_BUSY))
    return mr_db_fail(r, why ? why : MR_E_CANCELLED,
                      why == MR_E_TIMEOUT ? "the statement took too long" : "cancelled");
  r->code = code_of(rc);
  return mr_err_code(&r->err, r->code, sqlite3_errstr(rc & 0xff), NULL, "%.300s",
                     (rc & 0xff) == SQLITE_AUTH
                         ? "not authorized: files are opened one by one, and transactions are "
                           "kept by the binding (db:transaction)"
                         : sqlite3_errmsg(db->h));
}

/* ---- opening ---- */

static bool in_memory(const struct mr_ext_db *db)
{
  return strcmp(db->path, ":memory:") == 0;
}

static bool one_of(const char *name, const char *const *list)
{
  for (; *list; list++)
    if (sqlite3_stricmp(name, *list) == 0) return true;
  return false;
}

/* Not what is of the whole process, the server's store too; nor maps, which die with SIGBUS when a file shrinks; nor
 * what lifts the bound of a database in memory. */
static bool pragma_ok(const struct mr_ext_db *db, const char *name, bool set)
{
  static const char *const process[] = {"temp_store_directory", "data_store_directory", "soft_heap_limit",
                                        "hard_heap_limit", NULL};
  static const char *const files[] = {"mmap_size", "temp_store", NULL};
  static const char *const memory[] = {"max_page_count", "page_size", NULL};

  if (one_of(name, process)) return false;
  return !set || !(one_of(name, files) || (in_memory(db) && one_of(name, memory)));
}

static int authorize(void *ud, int action, const char *a, const char *b, const char *schema,
                     const char *trigger)
{
  struct mr_ext_db *db = ud;
  unsigned flags = db->now ? db->now->flags : 0;

  (void)schema;
  (void)trigger;
  switch (action) {
  case SQLITE_ATTACH: return a && !a[0] && db->stepping ? SQLITE_OK : SQLITE_DENY; /* VACUUM's own */
  case SQLITE_TRANSACTION: return db->stepping || flags & MR_DB_CONTROL ? SQLITE_OK : SQLITE_DENY;
  case SQLITE_SAVEPOINT:
    return db->stepping || flags & (MR_DB_CONTROL | MR_DB_TRANSACTION) ? SQLITE_OK : SQLITE_DENY;
  case SQLITE_PRAGMA: return pragma_ok(db, a ? a : "", b != NULL) ? SQLITE_OK : SQLITE_DENY;
  default: return SQLITE_OK;
  }
}

static bool below(const char *path, const char *dir)
{
  size_t n = strlen(dir);
  return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

/* Is it in the data directory, by its place or (a link) by its inode? */
static bool is_ours(struct mr_ext_db *db)
{
  const char *dir = mr_store_dir(db->rt->store), *slash = strrchr(db->path, '/');
  char parent[PATH_MAX], real[PATH_MAX], store[PATH_MAX];
  struct stat a, b;

  if (in_memory(db) || strcmp(dir, ":memory:") == 0 || !slash) return false;
  if (realpath(db->path, real)) { /* exists: where links lead */
    snprintf(store, sizeof store, "%s/store.db", dir);
    return below(real, dir) ||
           (stat(real, &a) == 0 && stat(store, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino);
  }
  if (lstat(db->path, &a) == 0) return true; /* a link to nowhere: what it names would be made */
  snprintf(parent, sizeof parent, "%.*s", (int)(slash - db->path) + 1, db->path);
  return realpath(parent, real) && below(real, dir);
}

/* The path as script.roots allows it, in place of the one that was given. */
static int resolve(struct mr_ext_db *db, struct mr_err *err)
{
  char path[PATH_MAX], *copy;
  int code;

  if (in_memory(db)) return MR_OK;
  code = mr_roots_resolve(db->rt, db->path, false, path, err);
  if (code != MR_OK) return code;
  copy = mr_mem_strdup(mr_rt_mem(db->rt), mr_str_c(path));
  if (!copy) return mr_err_nomem(err);
  mr_mem_free(mr_rt_mem(db->rt), db->path);
  db->path = copy;
  return MR_OK;
}

static int open_file(struct mr_ext_db *db)
{
  int flags = db->readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, on;
  int rc = sqlite3_open_v2(db->path, &db->h, flags | SQLITE_OPEN_NOMUTEX, NULL);

  if (rc != SQLITE_OK) return rc;
  sqlite3_extended_result_codes(db->h, 1);
  sqlite3_db_config(db->h, SQLITE_DBCONFIG_DEFENSIVE, 1, &on);
  sqlite3_db_config(db->h, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, &on);
  sqlite3_db_config(db->h, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, &on);
  sqlite3_db_config(db->h, SQLITE_DBCONFIG_ENABLE_FKEY, 1, &on);
  sqlite3_limit(db->h, SQLITE_LIMIT_LENGTH, VALUE_MAX);
  sqlite3_limit(db->h, SQLITE_LIMIT_COLUMN, COLUMNS_MAX);
  sqlite3_busy_handler(db->h, on_busy, db);
  sqlite3_progress_handler(db->h, PROGRESS_OPS, on_progress, db);
  if (in_memory(db)) sqlite3_exec(db->h, MEMORY_MAX, NULL, NULL, NULL);
  sqlite3_set_authorizer(db->h, authorize, db);
  return sqlite3_exec(db->h, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL); /* is it one? */
}

void mr_db_do_open(struct mr_ext_db *db, struct mr_db_run *r)
{
  int rc;

  r->code = resolve(db, &r->err);
  if (r->code != MR_OK) return;
  if (is_ours(db)) {
    mr_db_fail(r, MR_E_DENIED,
               "path: is in the server's data directory, or a link to nowhere; keep scripts' files elsewhere");
    return;
  }
  r->until_us = mr_mono_us(&db->rt->sys) + 60000000;
  db->now = r;
  rc = open_file(db);
  db->now = NULL;
  if (rc == SQLITE_OK) return;
  if (db->h)
    failed(db, r);
  else
    mr_db_fail(r, MR_E_NOMEM, "out of memory");
  if ((rc & 0xff) == SQLITE_CANTOPEN)
    mr_err_set(&r->err, MR_E_IO, "path", "%.300s: cannot be opened (is the directory there?)", db->path);
  r->code = r->err.code;
  sqlite3_close(db->h);
  db->h = NULL;
}

/* ---- parameters ---- */

static int bind_value(struct mr_ext_db *db, sqlite3_stmt *st, int i, yyjson_val *v)
{
  struct mr_str s = mr_json_str(v), text;
  unsigned char *raw;
  int64_t n;
  int rc;

  if (!v || yyjson_is_null(v)) return sqlite3_bind_null(st, i);
  if (yyjson_is_bool(v)) return sqlite3_bind_int(st, i, yyjson_get_bool(v));
  if (yyjson_is_sint(v) || (yyjson_is_uint(v) && yyjson_get_uint(v) <= INT64_MAX))
    return sqlite3_bind_int64(st, i, yyjson_get_sint(v));
  if (yyjson_is_real(v)) return sqlite3_bind_double(st, i, yyjson_get_real(v));
  if (yyjson_is_str(v)) return sqlite3_bind_text64(st, i, s.p, s.n, SQLITE_STATIC, SQLITE_UTF8);
  text = mr_json_get_str(v, "base64");
  if (!text.p) return SQLITE_MISMATCH;
  raw = mr_mem_alloc(mr_rt_mem(db->rt), text.n + 3);
  if (!raw) return SQLITE_NOMEM;
  n = mr_base64_decode(text, raw);
  rc = n < 0 ? SQLITE_MISMATCH : sqlite3_bind_blob64(st, i, raw, (sqlite3_uint64)n, SQLITE_TRANSIENT);
  mr_mem_free(mr_rt_mem(db->rt), raw);
  return rc;
}

static int bind_failed(struct mr_ext_db *db, struct mr_db_run *r, int rc, const char *name)
{
  if (rc != SQLITE_MISMATCH) return failed(db, r);
  r->code = mr_err_set(&r->err, MR_E_INVALID, "params",
                       "params: %.60s: text, a number that fits 64 bits, true, false, null or a blob", name);
  return r->code;
}

static int bind_named(struct mr_ext_db *db, struct mr_db_run *r, sqlite3_stmt *st, yyjson_val *params)
{
  int n = sqlite3_bind_parameter_count(st), rc;

  for (int i = 1; i <= n; i++) {
    const char *name = sqlite3_bind_parameter_name(st, i);
    yyjson_val *v = name && name[0] != '?' ? yyjson_obj_get(params, name + 1) : NULL;
    if (!v)
      return r->code = mr_err_set(&r->err, MR_E_INVALID, "params",
                                  "params: there is none for %.60s (null is rig.null)",
                                  name ? name : "?: the SQL has a place without a name");
    rc = bind_value(db, st, i, v);
    if (rc != SQLITE_OK) return bind_failed(db, r, rc, name);
  }
  return MR_OK;
}

static int bind_all(struct mr_ext_db *db, struct mr_db_run *r, sqlite3_stmt *st)
{
  yyjson_val *params = yyjson_doc_get_root(r->params);
  int n = sqlite3_bind_parameter_count(st), rc;
  size_t given = yyjson_is_arr(params) ? yyjson_arr_size(params) : 0;
  char name[16];

  if (yyjson_is_obj(params) && yyjson_obj_size(params) > 0) return bind_named(db, r, st, params);
  if (given != (size_t)n)
    return r->code = mr_err_set(&r->err, MR_E_INVALID, "params",
                                "params: the SQL has places for %d, %zu are given", n, given);
  for (int i = 1; i <= n; i++) {
    rc = bind_value(db, st, i, yyjson_arr_get(params, (size_t)i - 1));
    snprintf(name, sizeof name, "%d", i);
    if (rc != SQLITE_OK) return bind_failed(db, r, rc, name);
  }
  return MR_OK;
}

/* ---- rows ---- */

struct rows {
  struct mr_ext_db *db;
  struct mr_db_run *r;
  yyjson_alc alc;
  yyjson_mut_doc *doc;
  yyjson_mut_val *columns, *list;
  int n;
  int64_t bytes, changes;
};

static yyjson_mut_val *bytes_value(struct rows *x, struct mr_str s)
{
  yyjson_mut_val *o = yyjson_mut_obj(x->doc);
  char *text = mr_mem_alloc(mr_rt_mem(x->db->rt), 4 * ((s.n + 2) / 3) + 1);

  if (text && !yyjson_mut_obj_add_strncpy(x->doc, o, "base64", text, mr_base64_encode(s, text))) o = NULL;
  mr_mem_free(mr_rt_mem(x->db->rt), text);
  return text ? o : NULL;
}

static yyjson_mut_val *column_value(struct rows *x, sqlite3_stmt *st, int i)
{
  int type = sqlite3_column_type(st, i);
  struct mr_str s;

  x->bytes += 16;
  if (type == SQLITE_INTEGER) return yyjson_mut_sint(x->doc, sqlite3_column_int64(st, i));
  if (type == SQLITE_FLOAT) return yyjson_mut_real(x->doc, sqlite3_column_double(st, i));
  if (type == SQLITE_NULL) return yyjson_mut_null(x->doc);
  s.p = sqlite3_column_blob(st, i);
  s.n = (size_t)sqlite3_column_bytes(st, i);
  if (!s.p) s = MR_S("");
  x->bytes += (int64_t)s.n;
  if (type == SQLITE_TEXT && mr_utf8_valid(s)) return yyjson_mut_strncpy(x->doc, s.p, s.n);
  return bytes_value(x, s);
}

static int add_row(struct rows *x, sqlite3_stmt *st)
{
  yyjson_mut_val *row = yyjson_mut_arr(x->doc);
  int n = sqlite3_data_count(st);

  if (++x->n > x->r->max_rows)
    return x->r->code =
               mr_err_set(&x->r->err, MR_E_TOO_LARGE, "max_rows",
                          "more than %d rows: narrow the query (LIMIT), or raise max_rows", x->r->max_rows);
  for (int i = 0; i < n; i++)
    if (!yyjson_mut_arr_append(row, column_value(x, st, i)))
      return mr_db_fail(x->r, MR_E_NOMEM, "out of memory");
  if (!yyjson_mut_arr_append(x->list, row)) return mr_db_fail(x->r, MR_E_NOMEM, "out of memory");
  if (x->bytes <= x->r->max_bytes) return MR_OK;
  return x->r->code = mr_err_set(&x->r->err, MR_E_TOO_LARGE, "max_bytes", "the rows have more than %lld bytes",
                                 (long long)x->r->max_bytes);
}

static int begin_rows(struct rows *x, sqlite3_stmt *st)
{
  int n = sqlite3_column_count(st);

  x->n = 0;
  x->bytes = 0;
  yyjson_mut_arr_clear(x->columns);
  yyjson_mut_arr_clear(x->list);
  for (int i = 0; i < n; i++)
    if (!yyjson_mut_arr_add_strcpy(x->doc, x->columns,
                                   sqlite3_column_name(st, i) ? sqlite3_column_name(st, i) : ""))
      return mr_db_fail(x->r, MR_E_NOMEM, "out of memory");
  return MR_OK;
}

static int step_all(struct rows *x, sqlite3_stmt *st)
{
  sqlite3_int64 before = sqlite3_total_changes(x->db->h);
  int rc, code = MR_OK;

  x->db->stepping = true; /* what is prepared meanwhile is SQLite's own: of VACUUM, of FTS */
  if (sqlite3_column_count(st) > 0) code = begin_rows(x, st);
  while (code == MR_OK && (rc = sqlite3_step(st)) != SQLITE_DONE)
    code = rc == SQLITE_ROW ? add_row(x, st) : failed(x->db, x->r);
  x->db->stepping = false;
  if (code == MR_OK && sqlite3_total_changes(x->db->h) != before) x->changes += sqlite3_changes(x->db->h);
  return code;
}

static bool only_space(const char *p)
{
  while (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n' || *p == ';')
    p++;
  return !*p;
}

/* Statement after statement; with parameters there is one. */
static int run_all(struct rows *x)
{
  const char *at = x->r->text;
  int code = MR_OK;

  while (code == MR_OK && !only_space(at)) {
    sqlite3_stmt *st = NULL;
    if (sqlite3_prepare_v2(x->db->h, at, -1, &st, &at) != SQLITE_OK) return failed(x->db, x->r);
    if (!st) break; /* a comment */
    if (x->r->params && !only_space(at))
      code = mr_err_set(&x->r->err, MR_E_INVALID, "sql", "sql: one statement only, when there are params");
    if (code == MR_OK) code = bind_all(x->db, x->r, st);
    if (code == MR_OK) code = step_all(x, st);
    sqlite3_finalize(st);
    x->db->again_ok = false;
  }
  return x->r->code = code;
}

static bool rows_init(struct rows *x, struct mr_ext_db *db, struct mr_db_run *r)
{
  yyjson_mut_val *root;

  *x = (struct rows){.db = db, .r = r};
  mr_json_alc(mr_rt_mem(db->rt), &x->alc);
  x->doc = yyjson_mut_doc_new(&x->alc);
  root = yyjson_mut_obj(x->doc);
  yyjson_mut_doc_set_root(x->doc, root);
  x->columns = yyjson_mut_obj_add_arr(x->doc, root, "columns");
  x->list = yyjson_mut_obj_add_arr(x->doc, root, "rows");
  return x->columns && x->list;
}

static void give_result(struct rows *x)
{
  yyjson_mut_val *root = yyjson_mut_doc_get_root(x->doc);

  if (yyjson_mut_obj_add_int(x->doc, root, "changes", x->changes) &&
      yyjson_mut_obj_add_int(x->doc, root, "last_id", sqlite3_last_insert_rowid(x->db->h)))
    x->r->result = yyjson_mut_doc_imut_copy(x->doc, &x->alc);
  if (!x->r->result) mr_db_fail(x->r, MR_E_NOMEM, "out of memory");
}

void mr_db_do_run(struct mr_ext_db *db, struct mr_db_run *r)
{
  struct rows x;
  int code;

  if ((r->flags & MR_DB_TRANSACTION) && sqlite3_get_autocommit(db->h)) {
    mr_db_fail(r, MR_E_STATE, "the transaction was rolled back");
    return;
  }
  db->now = r;
  db->yields = false;
  db->again_ok = true;
  code = rows_init(&x, db, r) ? run_all(&x) : mr_db_fail(r, MR_E_NOMEM, "out of memory");
  r->again = code == MR_E_TIMEOUT && db->yields && !atomic_load(&r->stop);
  if (code == MR_OK) give_result(&x);
  yyjson_mut_doc_free(x.doc);
  db->now = NULL;
}
