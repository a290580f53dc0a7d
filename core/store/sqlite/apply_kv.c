/*
 * apply_kv.c - the operations of a commit on durable values; see apply.c.
 *
 * A row whose time is over counts as absent, so an expectation is decided against what a reader would see at
 * the moment the commit was made. Revs come from one counter for all keys that follows the clock: a key that
 * was deleted and made again never comes back to a rev that somebody still remembers.
 *
 * Invariant: expectations are decided in the transaction that writes. Writer thread.
 */
#include "store/sqlite/sqlite_t.h"

static sqlite3_stmt *bind_key(struct mr_sqlite *q, enum mr_stmt w, struct mr_commit *c,
                              const struct mr_commit_op *op)
{
  sqlite3_bind_int64(q->st[w], 1, c->origin.workspace);
  mr_sqlite_bind(q->st[w], 2, op->u.kv.row.space);
  mr_sqlite_bind(q->st[w], 3, op->u.kv.row.key);
  return q->st[w];
}

static enum mr_applied check(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  sqlite3_stmt *st;
  int64_t rev, expect = op->u.kv.expect;
  int rc;

  if (expect < 0) return MR_APPLIED;
  st = bind_key(q, MR_W_KV_REV, c, op);
  sqlite3_bind_int64(st, 4, c->now_us);
  rc = sqlite3_step(st);
  rev = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
  sqlite3_reset(st);
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc);
  if (rev == expect) return MR_APPLIED;
  if (expect == 0) return mr_sqlite_conflict(c, "exists", "key", op->u.kv.row.key, "exists already");
  if (rev == 0) return mr_sqlite_conflict(c, "not_found", "key", op->u.kv.row.key, "does not exist any more");
  return mr_sqlite_conflict(c, "rev", "key", op->u.kv.row.key, "was changed by someone else");
}

static enum mr_applied put(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  sqlite3_stmt *st = bind_key(q, MR_W_KV_PUT, c, op);
  int rc;

  q->kv_rev = q->kv_rev >= c->now_us ? q->kv_rev + 1 : c->now_us;
  c->rev = q->kv_rev;
  sqlite3_bind_int64(st, 4, c->rev);
  sqlite3_bind_int64(st, 5, op->u.kv.row.expires_us);
  mr_sqlite_bind(st, 6, op->u.kv.row.value);
  rc = mr_sqlite_step(q, MR_W_KV_PUT);
  return rc == SQLITE_DONE ? MR_APPLIED : mr_sqlite_refused(q, c, rc);
}

/* Row by row, each found and deleted through an index: one DELETE with the keys of a subquery looks at every
 * value of the workspace. */
static enum mr_applied sweep(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  sqlite3_stmt *find = q->st[MR_W_KV_EXPIRED], *del = q->st[MR_W_KV_DELETE];
  int rc = SQLITE_DONE, bound = SQLITE_OK;

  c->swept = 0; /* it may be applied again, in a transaction of its own */
  sqlite3_bind_int64(find, 1, c->now_us);
  while (c->swept < op->u.kv.limit && (rc = sqlite3_step(find)) == SQLITE_ROW) {
    for (int i = 0; i < 3 && bound == SQLITE_OK; i++)
      bound = sqlite3_bind_value(del, i + 1, sqlite3_column_value(find, i));
    sqlite3_reset(find);
    rc = bound == SQLITE_OK ? mr_sqlite_step(q, MR_W_KV_DELETE) : bound;
    if (rc != SQLITE_DONE) break;
    c->swept++;
  }
  sqlite3_reset(find);
  return rc == SQLITE_DONE ? MR_APPLIED : mr_sqlite_refused(q, c, rc);
}

enum mr_applied mr_sqlite_apply_kv(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  enum mr_applied a;
  int rc;

  if (op->kind == MR_OP_KV_SWEEP) return sweep(q, c, op);
  a = check(q, c, op);
  if (a != MR_APPLIED) return a;
  if (op->kind == MR_OP_KV_PUT) return put(q, c, op);
  bind_key(q, MR_W_KV_DELETE, c, op);
  rc = mr_sqlite_step(q, MR_W_KV_DELETE);
  return rc == SQLITE_DONE ? MR_APPLIED : mr_sqlite_refused(q, c, rc);
}
