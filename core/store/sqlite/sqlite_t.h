/*
 * sqlite_t.h - what the files of the SQLite driver share.
 *
 * Threads and connections, each connection used by one thread at a time (SQLITE_OPEN_NOMUTEX):
 *   writer  db     the one writing connection; its statements are prepared at open. In memory stores
 *                  it is the only connection and runs the reads too, between transactions.
 *   reader  pool   one read-only connection per thread, opened at its first read.
 *   ckpt    pool   one connection that only checkpoints, used by one pool job at a time.
 *
 * Invariant: a transaction is open on db only inside one function of the writer thread, never while it
 * waits.
 */
#ifndef MR_STORE_SQLITE_T_H
#define MR_STORE_SQLITE_T_H

#include <sqlite3.h>
#include <stdatomic.h>
#include "store/store_t.h"

enum {
  MR_SCHEMA = 2,             /* what this program writes */
  MR_UNBORN = -1,            /* deleted_us of a session that is being made */
  MR_TXN_COMMITS = 512,      /* most commits of one transaction */
  MR_TXN_BYTES = 8 << 20,    /* it is closed past this */
  MR_SWEEP_ROWS = 500,       /* rows that one step of a session's deletion removes */
  MR_WAL_PAGES = 2048,       /* 8 MiB: time for a checkpoint beside the writer */
  MR_WAL_PAGES_HARD = 16384, /* 64 MiB: the writer waits for one */
  MR_READ_STMTS = 16,        /* statements kept per reading connection */
  MR_SQL_BINDS = 24
};

/* A step of schema migration; runs in one transaction with the change of the schema number. */
struct mr_sqlite_step {
  int from, to;
  int (*fn)(sqlite3 *db, struct mr_err *err);
};

/* The writer's statements; their SQL is in stmts.c. */
enum mr_stmt {
  MR_W_BEGIN,
  MR_W_COMMIT,
  MR_W_ROLLBACK,
  MR_W_SAVE,
  MR_W_RELEASE,
  MR_W_BACK,
  MR_W_DOC_INSERT,
  MR_W_DOC_UPDATE,
  MR_W_DOC_DELETE,
  MR_W_DOC_REV,
  MR_W_DOC_VERSION,
  MR_W_NAME_TAKEN,
  MR_W_SESSION_FIND,
  MR_W_SESSION_INSERT,
  MR_W_SESSION_UPDATE,
  MR_W_SESSION_AGENT,
  MR_W_SESSION_BORN,
  MR_W_SESSION_DELETE,
  MR_W_TEXTS_INSERT,
  MR_W_TEXTS_UPDATE,
  MR_W_LOG_INSERT,
  MR_W_INBOX_INSERT,
  MR_W_INBOX_DELETE,
  MR_W_WS_FIND,
  MR_W_WS_INSERT,
  MR_W_META_SET,
  MR_W_PROBE,
  MR_W_SWEEP_FIND,
  MR_W_SWEEP_LOG,
  MR_W_SWEEP_INBOX,
  MR_W_SWEEP_TEXTS,
  MR_W_SWEEP_SESSION,
  MR_W_KV_REV,
  MR_W_KV_PUT,
  MR_W_KV_DELETE,
  MR_W_KV_EXPIRED,
  MR_W_COUNT
};

/* A request for a workspace's number, on the asking thread's stack. */
struct mr_ws_ask {
  struct mr_str id;
  int64_t ws;
  int code;
  struct mr_err err;
  bool answered;
};

/* A reading connection and the statements it keeps, by their text. */
struct mr_reader {
  sqlite3 *db;
  struct {
    sqlite3_stmt *st;
    uint64_t used;
  } kept[MR_READ_STMTS];
  uint64_t clock;
};

struct mr_sqlite {
  struct mr_store *store;
  char *path; /* of the database file; NULL in memory */
  sqlite3 *db, *ckpt;
  sqlite3_stmt *st[MR_W_COUNT];
  struct mr_pool *readers; /* NULL in memory and after drain */
  pthread_t thread;
  bool running; /* thread was started */

  pthread_mutex_t mu; /* everything down to stats */
  pthread_cond_t more, answered;
  struct mr_commit *head, **tail; /* FIFO */
  size_t nqueued, bytes, bytes_max;
  struct mr_read *reads, **reads_tail; /* memory stores */
  size_t nreads;
  struct mr_ws_ask *ask;
  bool stop, failing;
  struct mr_err failure; /* why, while failing */
  struct mr_store_stats stats;

  /* The writer thread's own. */
  int64_t pos, arrival; /* the highest given */
  int64_t kv_rev;       /* likewise, in this process */
  bool sweep;           /* there may be tombstones */
  unsigned turns;       /* transactions since the last step of the sweep */
  int64_t memo_no;      /* the session that this commit looked up last */
  struct mr_str memo_id;
  struct mr_reader self; /* memory stores: reads on db */

  atomic_int wal_pages;
  int ckpt_pages; /* length of the log when the last job began; who calls mr_sqlite_checkpoint */
  atomic_bool ckpt_busy;
  struct mr_job ckpt_job;
};

/* schema.c */
int mr_sqlite_connect(struct mr_sqlite *q, int flags, sqlite3 **db, struct mr_err *err);
int mr_sqlite_schema(struct mr_sqlite *q, const struct mr_store_internal *in, struct mr_err *err);
/* The last SQLite error of db as MR_E_UNAVAILABLE (or code when not 0). */
int mr_sqlite_err(sqlite3 *db, int code, const char *what, struct mr_err *err);
int mr_sqlite_exec(sqlite3 *db, const char *sql, const char *what, struct mr_err *err);
int mr_sqlite_int(sqlite3 *db, const char *sql, int64_t *out, struct mr_err *err);

/* stmts.c */
int mr_sqlite_prepare(struct mr_sqlite *q, struct mr_err *err);
void mr_sqlite_finalize(struct mr_sqlite *q);
int mr_sqlite_step(struct mr_sqlite *q, enum mr_stmt w);                /* step and reset: an SQLite code */
void mr_sqlite_bind(sqlite3_stmt *st, int at, struct mr_str s);         /* "" when empty */
void mr_sqlite_bind_or_null(sqlite3_stmt *st, int at, struct mr_str s); /* NULL when empty */

/* apply.c: ALONE: only this commit failed, c->code says how; BROKEN: the transaction cannot go on. */
enum mr_applied { MR_APPLIED, MR_APPLIED_ALONE, MR_APPLIED_BROKEN };
enum mr_applied mr_sqlite_apply(struct mr_sqlite *q, struct mr_commit *c);
/* apply_session.c */
enum mr_applied mr_sqlite_apply_session(struct mr_sqlite *q, struct mr_commit *c,
                                        const struct mr_commit_op *op);
/* apply_kv.c */
enum mr_applied mr_sqlite_apply_kv(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op);
/* For all: an SQLite code other than done; a failed expectation. */
enum mr_applied mr_sqlite_refused(struct mr_sqlite *q, struct mr_commit *c, int rc);
enum mr_applied mr_sqlite_conflict(struct mr_commit *c, const char *why, const char *field, struct mr_str what,
                                   const char *text);

/* writer.c */
int mr_sqlite_start(struct mr_sqlite *q, struct mr_err *err);
void mr_sqlite_stop(struct mr_sqlite *q);
int mr_sqlite_submit(struct mr_store *s, struct mr_commit *c);
int mr_sqlite_workspace(struct mr_store *s, struct mr_str id, int64_t *ws, struct mr_err *err);
/* batch.c: one transaction with these commits (linked by next), delivered at its end. */
void mr_sqlite_batch(struct mr_sqlite *q, struct mr_commit *first);
void mr_sqlite_probe(struct mr_sqlite *q);
void mr_sqlite_sweep(struct mr_sqlite *q); /* one small step of the deletion of a session */
void mr_sqlite_ask(struct mr_sqlite *q, struct mr_ws_ask *a);
void mr_sqlite_outcome(struct mr_sqlite *q, const struct mr_err *failure); /* NULL: a write succeeded */

/* checkpoint.c */
void mr_sqlite_checkpoint_init(struct mr_sqlite *q);
void mr_sqlite_checkpoint(struct mr_sqlite *q); /* writer thread, between transactions */

/* read.c */
struct mr_sql {
  struct mr_buf text;
  struct {
    bool is_text;
    int64_t i;
    struct mr_str s;
  } b[MR_SQL_BINDS];
  int n;
  struct mr_arena *arena; /* of the read: what binds point to */
  bool failed;
};
int mr_sqlite_read(struct mr_store *s, struct mr_read *rd);
void mr_sqlite_read_run(struct mr_reader *r, struct mr_read *rd); /* fills rd->rows */
void *mr_sqlite_reader_new(void *ud);
void mr_sqlite_reader_free(void *ud, void *worker);
void mr_sqlite_reader_clear(struct mr_reader *r);
/* Each appends its text, which has one ? for the value. */
void mr_sql_add(struct mr_sql *q, const char *text);
void mr_sql_int(struct mr_sql *q, const char *text, int64_t v);
void mr_sql_str(struct mr_sql *q, const char *text, struct mr_str v);
void mr_sql_list(struct mr_sql *q, const char *text, const struct mr_str *v, int n); /* as a JSON array */
void mr_sql_range(struct mr_sql *q, const char *column, const struct mr_range *r);
void mr_sql_order(struct mr_sql *q, const char *prefix, const struct mr_cursor *after, bool ascending);
struct mr_str mr_sqlite_text(struct mr_read *rd, sqlite3_stmt *st, int col, size_t *bytes);

/* read_docs.c, read_sessions.c, read_log.c, read_kv.c: the SQL of a query, and a row of its result into
 * rd->rows (capacity *cap; adds the row's bytes). false: out of memory. */
void mr_sqlite_docs_sql(const struct mr_read *rd, struct mr_sql *q);
bool mr_sqlite_docs_row(struct mr_read *rd, sqlite3_stmt *st, int *cap, size_t *bytes);
void mr_sqlite_sessions_sql(const struct mr_read *rd, struct mr_sql *q);
bool mr_sqlite_sessions_row(struct mr_read *rd, sqlite3_stmt *st, int *cap, size_t *bytes);
void mr_sqlite_log_sql(const struct mr_read *rd, struct mr_sql *q);
bool mr_sqlite_log_row(struct mr_read *rd, sqlite3_stmt *st, int *cap, size_t *bytes);
void mr_sqlite_kv_sql(const struct mr_read *rd, struct mr_sql *q);
bool mr_sqlite_kv_row(struct mr_read *rd, sqlite3_stmt *st, int *cap, size_t *bytes);

/* open.c */
int mr_sqlite_refs_open(struct mr_store *s, void **refs);
int mr_sqlite_refs_has(void *refs, const char *kind, struct mr_str id);
void mr_sqlite_refs_close(void *refs);

#endif
