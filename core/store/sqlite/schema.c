/*
 * schema.c - connections with their pragmas, the tables, and the frame of migrations.
 *
 * Every table and every unique index starts with workspace_id (but meta and workspaces, which are what
 * numbers come from). log and inbox are append-only by their row number and carry one index each, on
 * (workspace_id, session_no): the row number at the end of every index entry gives the order. What a
 * session's turns rewrite (sessions) is apart from what they do not (session_texts: the agent's
 * snapshot, the client's document), because SQLite writes whole rows.
 *
 * Migrations: meta 'schema' holds the number. Each step (from -> to) runs in one transaction together
 * with the new number; before the first, the database is copied to store.db.v<N>.bak. A store newer
 * than the program is refused, untouched.
 *
 * Invariant: a schema once released is never edited here; it gets a step. Opening thread.
 */
#include "store/sqlite/sqlite_t.h"
#include "store/blobs_t.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { APPLICATION_ID = 0x6d726967 }; /* "mrig": file(1) shows it, and a foreign database is refused */

static const char schema_1[] =
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "INSERT INTO meta(key, value) VALUES('schema', 1), ('pos', 0), ('probe', 0);"

    "CREATE TABLE workspaces(workspace_id INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL "
    "UNIQUE);"

    "CREATE TABLE docs(workspace_id INTEGER NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,"
    " parent TEXT NOT NULL, name TEXT NOT NULL, rev INTEGER NOT NULL, version INTEGER NOT NULL,"
    " created_us INTEGER NOT NULL, updated_us INTEGER NOT NULL, archived_us INTEGER NOT NULL,"
    " body TEXT NOT NULL);"
    "CREATE UNIQUE INDEX docs_id ON docs(workspace_id, kind, id);"
    "CREATE INDEX docs_created ON docs(workspace_id, kind, created_us, id);"
    "CREATE INDEX docs_parent ON docs(workspace_id, kind, parent, created_us, id) WHERE parent <> "
    "'';"
    "CREATE INDEX docs_name ON docs(workspace_id, kind, name) WHERE name <> '';"

    "CREATE TABLE doc_versions(workspace_id INTEGER NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,"
    " version INTEGER NOT NULL, created_us INTEGER NOT NULL, body TEXT NOT NULL);"
    "CREATE UNIQUE INDEX doc_versions_id ON doc_versions(workspace_id, kind, id, version);"

    "CREATE TABLE sessions(workspace_id INTEGER NOT NULL,"
    " session_no INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, rev INTEGER NOT NULL,"
    " created_us INTEGER NOT NULL, updated_us INTEGER NOT NULL, archived_us INTEGER NOT NULL,"
    " deleted_us INTEGER NOT NULL, status TEXT NOT NULL, agent_id TEXT NOT NULL,"
    " agent_version INTEGER NOT NULL, environment_id TEXT NOT NULL, deployment_id TEXT NOT NULL,"
    " last_us INTEGER NOT NULL, owner TEXT, owner_epoch INTEGER NOT NULL, due_us INTEGER NOT NULL,"
    " head TEXT NOT NULL);"
    "CREATE UNIQUE INDEX sessions_id ON sessions(workspace_id, id);"
    "CREATE INDEX sessions_created ON sessions(workspace_id, created_us, id);"
    "CREATE INDEX sessions_agent ON sessions(workspace_id, agent_id, created_us, id);"
    "CREATE INDEX sessions_wake ON sessions(workspace_id)"
    " WHERE deleted_us = 0 AND status IN ('running', 'rescheduling');"
    "CREATE INDEX sessions_deleted ON sessions(workspace_id) WHERE deleted_us <> 0;"
    "CREATE TABLE session_texts(workspace_id INTEGER NOT NULL, session_no INTEGER PRIMARY KEY,"
    " agent TEXT NOT NULL, doc TEXT NOT NULL);"

    "CREATE TABLE log(workspace_id INTEGER NOT NULL, pos INTEGER PRIMARY KEY,"
    " session_no INTEGER NOT NULL, kind INTEGER NOT NULL, format INTEGER NOT NULL,"
    " processed_us INTEGER NOT NULL, type TEXT NOT NULL, event_id TEXT, thread TEXT, key_id TEXT,"
    " request_id TEXT, trace TEXT, body TEXT NOT NULL);"
    "CREATE INDEX log_session ON log(workspace_id, session_no);"

    "CREATE TABLE inbox(workspace_id INTEGER NOT NULL, arrival INTEGER PRIMARY KEY,"
    " session_no INTEGER NOT NULL, event_id TEXT NOT NULL, type TEXT NOT NULL, key_id TEXT,"
    " request_id TEXT, trace TEXT, body TEXT NOT NULL);"
    "CREATE INDEX inbox_session ON inbox(workspace_id, session_no);";

/* Values by key. The index is for the sweep of those whose time is over; for ever is not in it. */
static const char schema_2[] =
    "CREATE TABLE kv(workspace_id INTEGER NOT NULL, space TEXT NOT NULL, key TEXT NOT NULL,"
    " rev INTEGER NOT NULL, expires_us INTEGER NOT NULL, value TEXT NOT NULL,"
    " PRIMARY KEY(workspace_id, space, key)) WITHOUT ROWID;"
    "CREATE INDEX kv_expires ON kv(expires_us) WHERE expires_us <> 0;";

static int to_2(sqlite3 *db, struct mr_err *err)
{
  return mr_sqlite_exec(db, schema_2, "values by key", err);
}

static const struct mr_sqlite_step steps_of_this_program[] = {{1, 2, to_2}};

/* ---- small helpers ---- */

int mr_sqlite_err(sqlite3 *db, int code, const char *what, struct mr_err *err)
{
  return mr_err_set(err, code ? code : MR_E_UNAVAILABLE, NULL, "store: %s: %s", what,
                    db ? sqlite3_errmsg(db) : "out of memory");
}

int mr_sqlite_exec(sqlite3 *db, const char *sql, const char *what, struct mr_err *err)
{
  return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? MR_OK : mr_sqlite_err(db, 0, what, err);
}

int mr_sqlite_int(sqlite3 *db, const char *sql, int64_t *out, struct mr_err *err)
{
  sqlite3_stmt *st = NULL;
  int code = MR_OK;

  *out = 0;
  if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK) return mr_sqlite_err(db, 0, sql, err);
  switch (sqlite3_step(st)) {
  case SQLITE_ROW: *out = sqlite3_column_int64(st, 0); break;
  case SQLITE_DONE: break;
  default: code = mr_sqlite_err(db, 0, sql, err);
  }
  sqlite3_finalize(st);
  return code;
}

/* ---- connections ---- */

int mr_sqlite_connect(struct mr_sqlite *q, int flags, sqlite3 **db, struct mr_err *err)
{
  bool reads = (flags & SQLITE_OPEN_READONLY) != 0;
  int code;

  if (sqlite3_open_v2(q->path ? q->path : ":memory:", db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
    code = mr_sqlite_err(*db, 0, q->path ? q->path : "memory", err);
    goto out;
  }
  sqlite3_extended_result_codes(*db, 1);
  sqlite3_busy_timeout(*db, 5000);
  code = mr_sqlite_exec(*db,
                        reads ? "PRAGMA query_only=1; PRAGMA cache_size=-256; PRAGMA mmap_size=0;"
                                "PRAGMA temp_store=MEMORY;"
                              : "PRAGMA cache_size=-1024; PRAGMA temp_store=MEMORY; PRAGMA "
                                "mmap_size=0; PRAGMA foreign_keys=0;"
                                "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=FULL;",
                        "settings", err);
out:
  if (code != MR_OK) {
    sqlite3_close(*db);
    *db = NULL;
  }
  return code;
}

static int set_wal(struct mr_sqlite *q, struct mr_err *err)
{
  sqlite3_stmt *st = NULL;
  int code = MR_OK;

  if (!q->path) return MR_OK;
  if (sqlite3_prepare_v2(q->db, "PRAGMA journal_mode=WAL", -1, &st, NULL) != SQLITE_OK ||
      sqlite3_step(st) != SQLITE_ROW)
    code = mr_sqlite_err(q->db, 0, q->path, err);
  else if (strcmp((const char *)sqlite3_column_text(st, 0), "wal") != 0)
    code = mr_err_set(err, MR_E_UNSUPPORTED, "store",
                      "%s: SQLite cannot keep a write-ahead log on this file system", q->path);
  sqlite3_finalize(st);
  return code == MR_OK ? mr_sqlite_exec(q->db, "PRAGMA journal_size_limit=16777216", "settings", err) : code;
}

/* ---- schema ---- */

/* A whole copy through SQLite (never by opening the file, which would drop its locks). */
static int backup(struct mr_sqlite *q, int schema, struct mr_err *err)
{
  char to[PATH_MAX], tmp[PATH_MAX];
  sqlite3_stmt *st = NULL;
  int fd, code = MR_OK;

  if (!q->path) return MR_OK;
  if ((size_t)snprintf(to, sizeof to, "%s.v%d.bak", q->path, schema) >= sizeof to - 8)
    return mr_err_set(err, MR_E_INVALID, "store", "the data directory's name is too long");
  snprintf(tmp, sizeof tmp, "%.*s.tmp", (int)sizeof tmp - 8, to);
  unlink(tmp);
  fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return mr_err_errno(err, tmp);
  if (sqlite3_prepare_v2(q->db, "VACUUM INTO ?1", -1, &st, NULL) != SQLITE_OK ||
      sqlite3_bind_text(st, 1, tmp, -1, SQLITE_STATIC) != SQLITE_OK || sqlite3_step(st) != SQLITE_DONE)
    code = mr_sqlite_err(q->db, 0, "copy before migration", err);
  sqlite3_finalize(st);
  if (code == MR_OK && (fsync(fd) != 0 || rename(tmp, to) != 0 || mr_blob_sync_dir(to) != 0))
    code = mr_err_errno(err, to);
  close(fd);
  if (code != MR_OK) unlink(tmp);
  return code;
}

static int migrate_step(struct mr_sqlite *q, const struct mr_sqlite_step *step, struct mr_err *err)
{
  char set[64];
  int code = mr_sqlite_exec(q->db, "BEGIN IMMEDIATE", "migration", err);

  if (code != MR_OK) return code;
  snprintf(set, sizeof set, "UPDATE meta SET value = %d WHERE key = 'schema'", step->to);
  code = step->fn(q->db, err);
  if (code == MR_OK) code = mr_sqlite_exec(q->db, set, "migration", err);
  if (code == MR_OK) code = mr_sqlite_exec(q->db, "COMMIT", "migration", err);
  if (code != MR_OK && !sqlite3_get_autocommit(q->db)) sqlite3_exec(q->db, "ROLLBACK", NULL, NULL, NULL);
  return code;
}

static int migrate(struct mr_sqlite *q, int have, int want, const struct mr_sqlite_step *steps, int nsteps,
                   struct mr_err *err)
{
  int code = MR_OK;

  while (code == MR_OK && have < want) {
    const struct mr_sqlite_step *step = NULL;
    for (int i = 0; i < nsteps && !step; i++)
      if (steps[i].from == have && steps[i].to > have) step = &steps[i];
    if (!step) return mr_err_set(err, MR_E_STATE, "store", "no way from schema %d to %d", have, want);
    code = migrate_step(q, step, err);
    if (code == MR_OK) mr_log(q->store->sys, MR_LOG_INFO, "store", "migrated schema %d to %d", have, step->to);
    have = step->to;
  }
  return code;
}

static int create(struct mr_sqlite *q, struct mr_err *err)
{
  char id[64];
  int code;

  snprintf(id, sizeof id, "PRAGMA application_id=%d", APPLICATION_ID);
  code = mr_sqlite_exec(q->db, "BEGIN IMMEDIATE", "create", err);
  if (code == MR_OK) code = mr_sqlite_exec(q->db, schema_1, "create", err);
  if (code == MR_OK) code = mr_sqlite_exec(q->db, schema_2, "create", err);
  if (code == MR_OK)
    code = mr_sqlite_exec(q->db, "UPDATE meta SET value = 2 WHERE key = 'schema'", "create", err);
  if (code == MR_OK) code = mr_sqlite_exec(q->db, id, "create", err);
  if (code == MR_OK) code = mr_sqlite_exec(q->db, "COMMIT", "create", err);
  if (code != MR_OK && !sqlite3_get_autocommit(q->db)) sqlite3_exec(q->db, "ROLLBACK", NULL, NULL, NULL);
  return code;
}

int mr_sqlite_schema(struct mr_sqlite *q, const struct mr_store_internal *in, struct mr_err *err)
{
  bool given = in && in->schema;
  const struct mr_sqlite_step *steps = given ? in->steps : steps_of_this_program;
  int nsteps = given ? in->nsteps : (int)(sizeof steps_of_this_program / sizeof *steps_of_this_program);
  int want = given ? in->schema : MR_SCHEMA;
  int64_t tables, app, have;
  int code = mr_sqlite_int(q->db, "SELECT count(*) FROM sqlite_master", &tables, err);

  if (code == MR_OK) code = mr_sqlite_int(q->db, "PRAGMA application_id", &app, err);
  if (code != MR_OK) return code;
  if (tables > 0 && app != APPLICATION_ID)
    return mr_err_set(err, MR_E_STATE, "store", "%s is not a store of this program", q->path);
  if ((code = set_wal(q, err)) != MR_OK) return code;
  if (tables == 0 && (code = create(q, err)) != MR_OK) return code;
  code = mr_sqlite_int(q->db, "SELECT value FROM meta WHERE key = 'schema'", &have, err);
  if (code != MR_OK) return code;
  if (have > want)
    return mr_err_set(err, MR_E_STATE, "store",
                      "the store was written by a newer program (its schema is %lld, this one knows %d)",
                      (long long)have, want);
  if (have < want && tables > 0) code = backup(q, (int)have, err);
  if (have < want && code == MR_OK) code = migrate(q, (int)have, want, steps, nsteps, err);
  return code;
}
