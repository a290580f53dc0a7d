/*
 * batch.c - the writer's transactions: a batch of commits, the probe of a failing disk, one step of a
 * session's deletion, a new workspace. When they run is writer.c's business.
 *
 * Group commit: each commit is applied in a savepoint and undone alone when it fails alone; then one
 * COMMIT (one fsync) makes all of them durable, and one delivery tells all of them. When the
 * transaction itself fails, every commit of it gets MR_E_UNAVAILABLE, also those whose expectation had
 * failed: what they were compared with is gone.
 *
 * Fault points: store.commit.before and .after, and commit.<label>.before and .after of each labelled
 * commit. A "fail" at a .before counts as a failed COMMIT. The switch store-ack-early tells the callers
 * before the COMMIT, so that a crash test can prove that it would notice.
 *
 * Invariant: on return no transaction is open. Writer thread.
 */
#include "store/sqlite/sqlite_t.h"

#include <stdio.h>
#include <unistd.h>

enum { EARLY_US = 20000 };

/* ---- fault points ---- */

static bool fault_points(const struct mr_commit *first, const char *when)
{
#ifdef MR_DEBUG
  char point[96];
  bool hit;

  snprintf(point, sizeof point, "store.commit.%s", when);
  hit = MR_FAULT(point);
  for (const struct mr_commit *c = first; c; c = c->next) {
    if (!c->label || c->code != MR_OK) continue;
    snprintf(point, sizeof point, "commit.%s.%s", c->label, when);
    hit |= MR_FAULT(point);
  }
  return hit;
#else
  (void)first;
  (void)when;
  return false;
#endif
}

/* ---- outcome ---- */

void mr_sqlite_outcome(struct mr_sqlite *q, const struct mr_err *failure)
{
  bool was;

  pthread_mutex_lock(&q->mu);
  was = q->failing;
  q->failing = failure != NULL;
  if (failure) q->failure = *failure;
  pthread_mutex_unlock(&q->mu);
  if (failure && !was)
    mr_log(q->store->sys, MR_LOG_ERROR, "store", "writes are refused: %s", failure->message);
  else if (!failure && was)
    mr_log(q->store->sys, MR_LOG_INFO, "store", "writes work again");
}

static void rollback(struct mr_sqlite *q)
{
  if (!sqlite3_get_autocommit(q->db)) mr_sqlite_step(q, MR_W_ROLLBACK);
}

static void deliver(struct mr_sqlite *q, struct mr_commit *first)
{
  struct mr_commit *c;

  for (c = first; c; c = c->next)
    c->done.next = c->next ? &c->next->done : NULL;
  mr_store_deliver(q->store, first ? &first->done : NULL);
}

/* ---- a batch ---- */

/* false: the transaction is broken; why is in c->err. */
static bool apply_one(struct mr_sqlite *q, struct mr_commit *c)
{
  int64_t pos = q->pos, arrival = q->arrival;
  enum mr_applied a;
  int rc = mr_sqlite_step(q, MR_W_SAVE);

  if (rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc) == MR_APPLIED;
  a = mr_sqlite_apply(q, c);
  if (a == MR_APPLIED_BROKEN) return false;
  if (a == MR_APPLIED_ALONE) {
    q->pos = pos;
    q->arrival = arrival;
    c->first_pos = 0;
    rc = mr_sqlite_step(q, MR_W_BACK);
    if (rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc) == MR_APPLIED;
  }
  rc = mr_sqlite_step(q, MR_W_RELEASE);
  return rc == SQLITE_DONE || mr_sqlite_refused(q, c, rc) == MR_APPLIED;
}

static int apply_all(struct mr_sqlite *q, struct mr_commit *first, struct mr_err *err)
{
  if (mr_sqlite_step(q, MR_W_BEGIN) != SQLITE_DONE) return mr_sqlite_err(q->db, 0, "begin", err);
  for (struct mr_commit *c = first; c; c = c->next) {
    if (c->code != MR_OK) /* could not even be built */
      continue;
    if (apply_one(q, c)) continue;
    return mr_err_set(err, MR_E_UNAVAILABLE, NULL, "%s", c->err.message);
  }
  return MR_OK;
}

static int commit_all(struct mr_sqlite *q, struct mr_commit *first, struct mr_err *err)
{
  if (fault_points(first, "before"))
    return mr_err_set(err, MR_E_UNAVAILABLE, NULL, "store: commit: fault point");
  if (mr_sqlite_step(q, MR_W_COMMIT) != SQLITE_DONE) return mr_sqlite_err(q->db, 0, "commit", err);
  fault_points(first, "after");
  return MR_OK;
}

static void count(struct mr_sqlite *q, const struct mr_commit *first)
{
  uint64_t commits = 0, rows = 0, failed = 0;

  for (const struct mr_commit *c = first; c; c = c->next) {
    commits += c->code == MR_OK;
    failed += c->code != MR_OK;
    rows += c->code == MR_OK ? (uint64_t)c->rows : 0;
  }
  pthread_mutex_lock(&q->mu);
  q->stats.commits += commits;
  q->stats.failed += failed;
  q->stats.rows += rows;
  q->stats.transactions++;
  q->stats.pos = q->pos;
  pthread_mutex_unlock(&q->mu);
}

static void fail_all(struct mr_commit *first, const struct mr_err *err, const bool *unbuilt)
{
  int i = 0;

  for (struct mr_commit *c = first; c; c = c->next, i++) {
    if (unbuilt[i]) continue;
    c->code = MR_E_UNAVAILABLE;
    c->first_pos = 0;
    mr_err_copy(&c->err, err);
  }
}

void mr_sqlite_batch(struct mr_sqlite *q, struct mr_commit *first)
{
  bool unbuilt[MR_TXN_COMMITS], early = false;
  int64_t pos = q->pos, arrival = q->arrival;
  struct mr_err err;
  int code, n = 0;

  for (const struct mr_commit *c = first; c; c = c->next)
    unbuilt[n++] = c->code != MR_OK;
  code = apply_all(q, first, &err);
  if (code == MR_OK && MR_SWITCH("store-ack-early")) {
    early = true;
    count(q, first);
    deliver(q, first);
    usleep(EARLY_US); /* the callers do believe it */
  }
  if (code == MR_OK) code = commit_all(q, early ? NULL : first, &err);
  mr_sqlite_outcome(q, code == MR_OK ? NULL : &err);
  if (code != MR_OK) {
    rollback(q);
    q->pos = pos;
    q->arrival = arrival;
    if (!early) fail_all(first, &err, unbuilt);
  }
  if (early) return;
  count(q, first);
  deliver(q, first);
}

/* ---- the rest of what the writer does ---- */

/* Big enough to need room, so that one free page does not look like a healthy disk. */
void mr_sqlite_probe(struct mr_sqlite *q)
{
  struct mr_err err;

  if (mr_sqlite_step(q, MR_W_PROBE) == SQLITE_DONE) {
    mr_sqlite_outcome(q, NULL);
    return;
  }
  mr_sqlite_err(q->db, 0, "write", &err);
  mr_sqlite_outcome(q, &err);
  rollback(q);
}

static bool meta_set(struct mr_sqlite *q, struct mr_str key, int64_t value)
{
  mr_sqlite_bind(q->st[MR_W_META_SET], 1, key);
  sqlite3_bind_int64(q->st[MR_W_META_SET], 2, value);
  return mr_sqlite_step(q, MR_W_META_SET) == SQLITE_DONE;
}

/* Rows deleted by one statement of the sweep, or -1. */
static int sweep_rows(struct mr_sqlite *q, enum mr_stmt w, int64_t ws, int64_t no)
{
  sqlite3_stmt *st = q->st[w];

  if (w == MR_W_SWEEP_LOG || w == MR_W_SWEEP_INBOX) {
    sqlite3_bind_int64(st, 1, ws);
    sqlite3_bind_int(st, 3, MR_SWEEP_ROWS);
  }
  sqlite3_bind_int64(st, 2, no);
  return mr_sqlite_step(q, w) == SQLITE_DONE ? sqlite3_changes(q->db) : -1;
}

/* Log, then inbox, then the session itself, last: a crash in between leaves the tombstone to go on. */
static bool sweep_session(struct mr_sqlite *q, int64_t ws, int64_t no)
{
  int n = sweep_rows(q, MR_W_SWEEP_LOG, ws, no);

  if (n == 0)
    n = sweep_rows(q, MR_W_SWEEP_INBOX, ws, no);
  else if (n > 0 && !meta_set(q, MR_S("pos"), q->pos))
    n = -1;
  if (n != 0) return n > 0;
  return sweep_rows(q, MR_W_SWEEP_TEXTS, ws, no) >= 0 && sweep_rows(q, MR_W_SWEEP_SESSION, ws, no) >= 0;
}

void mr_sqlite_sweep(struct mr_sqlite *q)
{
  sqlite3_stmt *st = q->st[MR_W_SWEEP_FIND];
  struct mr_err err;
  int64_t ws = 0, no = 0;
  int rc = sqlite3_step(st);

  if (rc == SQLITE_ROW) {
    ws = sqlite3_column_int64(st, 0);
    no = sqlite3_column_int64(st, 1);
  }
  sqlite3_reset(st);
  if (rc == SQLITE_DONE) q->sweep = false;
  if (rc == SQLITE_DONE) return;
  if (rc == SQLITE_ROW && mr_sqlite_step(q, MR_W_BEGIN) == SQLITE_DONE && sweep_session(q, ws, no) &&
      mr_sqlite_step(q, MR_W_COMMIT) == SQLITE_DONE)
    return;
  mr_sqlite_err(q->db, 0, "delete", &err);
  mr_sqlite_outcome(q, &err);
  rollback(q);
}

void mr_sqlite_ask(struct mr_sqlite *q, struct mr_ws_ask *a)
{
  sqlite3_stmt *find = q->st[MR_W_WS_FIND];
  int rc;

  a->code = MR_OK;
  mr_sqlite_bind(find, 1, a->id);
  rc = sqlite3_step(find);
  a->ws = rc == SQLITE_ROW ? sqlite3_column_int64(find, 0) : 0;
  sqlite3_reset(find);
  if (rc == SQLITE_DONE) {
    mr_sqlite_bind(q->st[MR_W_WS_INSERT], 1, a->id);
    rc = mr_sqlite_step(q, MR_W_WS_INSERT);
    if (rc == SQLITE_DONE) a->ws = sqlite3_last_insert_rowid(q->db);
  }
  if (a->ws) return;
  a->code = mr_sqlite_err(q->db, 0, "workspace", &a->err);
  if ((rc & 0xff) == SQLITE_FULL || (rc & 0xff) == SQLITE_IOERR) mr_sqlite_outcome(q, &a->err);
}
