/*
 * apply_session.c - the operations of a commit on sessions, the log and the inbox; see apply.c.
 *
 * Log positions and inbox arrivals are the writer's own counters, not AUTOINCREMENT: one page less to
 * touch per row, and a commit's rows follow each other without gaps. A position given to a commit that
 * fails is taken back with it (batch.c), so nobody has seen it; one that was seen is never given again,
 * because the sweep stores the highest before it deletes rows. A tombstoned session is not found.
 *
 * A session whose deleted_us is MR_UNBORN is found by commits and by no read; every condition on tombstones is
 * "<> 0", so that a program which does not know it takes it for one.
 *
 * Invariant: a log or inbox row is written only for a session that exists in the commit's workspace.
 * Writer thread.
 */
#include "store/sqlite/sqlite_t.h"

static enum mr_applied session_find(struct mr_sqlite *q, struct mr_commit *c, struct mr_str id, int64_t *no)
{
  sqlite3_stmt *st = q->st[MR_W_SESSION_FIND];
  int rc;

  if (q->memo_no && mr_str_eq(q->memo_id, id)) {
    *no = q->memo_no;
    return MR_APPLIED;
  }
  sqlite3_bind_int64(st, 1, c->origin.workspace);
  mr_sqlite_bind(st, 2, id);
  rc = sqlite3_step(st);
  *no = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
  sqlite3_reset(st);
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc);
  if (rc == SQLITE_DONE) return mr_sqlite_conflict(c, "not_found", "session", id, "does not exist");
  q->memo_no = *no;
  q->memo_id = id;
  return MR_APPLIED;
}

static enum mr_applied session_new(struct mr_sqlite *q, struct mr_commit *c, const struct mr_session_row *r)
{
  sqlite3_stmt *st = q->st[MR_W_SESSION_INSERT], *texts = q->st[MR_W_TEXTS_INSERT];
  int rc;

  sqlite3_bind_int64(st, 1, c->origin.workspace);
  mr_sqlite_bind(st, 2, r->id);
  sqlite3_bind_int64(st, 3, r->created_us);
  sqlite3_bind_int64(st, 4, r->updated_us);
  sqlite3_bind_int64(st, 5, r->archived_us);
  mr_sqlite_bind(st, 6, r->status);
  mr_sqlite_bind(st, 7, r->agent_id);
  sqlite3_bind_int64(st, 8, r->agent_version);
  mr_sqlite_bind(st, 9, r->environment_id);
  mr_sqlite_bind(st, 10, r->deployment_id);
  sqlite3_bind_int64(st, 11, r->last_us);
  sqlite3_bind_int64(st, 12, r->owner_epoch);
  sqlite3_bind_int64(st, 13, r->due_us);
  mr_sqlite_bind(st, 14, r->head);
  sqlite3_bind_int64(st, 15, r->unborn ? MR_UNBORN : 0);
  rc = mr_sqlite_step(q, MR_W_SESSION_INSERT);
  if (rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc);
  if (sqlite3_changes(q->db) == 0) return mr_sqlite_conflict(c, "exists", "session", r->id, "exists already");
  q->memo_no = sqlite3_last_insert_rowid(q->db);
  q->memo_id = r->id;
  sqlite3_bind_int64(texts, 1, c->origin.workspace);
  sqlite3_bind_int64(texts, 2, q->memo_no);
  mr_sqlite_bind(texts, 3, r->agent);
  mr_sqlite_bind(texts, 4, r->doc);
  rc = mr_sqlite_step(q, MR_W_TEXTS_INSERT);
  return rc == SQLITE_DONE ? MR_APPLIED : mr_sqlite_refused(q, c, rc);
}

static enum mr_applied texts_put(struct mr_sqlite *q, struct mr_commit *c, const struct mr_session_row *r,
                                 unsigned what, int64_t no)
{
  sqlite3_stmt *st = q->st[MR_W_TEXTS_UPDATE], *agent = q->st[MR_W_SESSION_AGENT];
  int rc;

  sqlite3_bind_int64(st, 1, no);
  mr_sqlite_bind_or_null(st, 2, what & MR_SESSION_AGENT ? r->agent : mr_str_n(NULL, 0));
  mr_sqlite_bind_or_null(st, 3, what & MR_SESSION_DOC ? r->doc : mr_str_n(NULL, 0));
  rc = mr_sqlite_step(q, MR_W_TEXTS_UPDATE);
  if (rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc);
  if (!(what & MR_SESSION_AGENT) || r->agent_id.n == 0) return MR_APPLIED;
  sqlite3_bind_int64(agent, 1, no);
  mr_sqlite_bind(agent, 2, r->agent_id);
  sqlite3_bind_int64(agent, 3, r->agent_version);
  rc = mr_sqlite_step(q, MR_W_SESSION_AGENT);
  return rc == SQLITE_DONE ? MR_APPLIED : mr_sqlite_refused(q, c, rc);
}

static enum mr_applied session_put(struct mr_sqlite *q, struct mr_commit *c, const struct mr_session_row *r,
                                   unsigned what)
{
  sqlite3_stmt *st = q->st[MR_W_SESSION_UPDATE];
  int64_t no;
  enum mr_applied a = session_find(q, c, r->id, &no);
  int rc;

  if (a != MR_APPLIED) return a;
  sqlite3_bind_int64(st, 1, no);
  sqlite3_bind_int64(st, 2, r->rev);
  sqlite3_bind_int64(st, 3, r->owner_epoch);
  sqlite3_bind_int64(st, 4, r->updated_us);
  sqlite3_bind_int64(st, 5, r->archived_us);
  mr_sqlite_bind(st, 6, r->status);
  sqlite3_bind_int64(st, 7, r->last_us);
  sqlite3_bind_int64(st, 8, r->due_us);
  mr_sqlite_bind_or_null(st, 9, what & MR_SESSION_HEAD ? r->head : mr_str_n(NULL, 0));
  rc = mr_sqlite_step(q, MR_W_SESSION_UPDATE);
  if (rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc);
  if (sqlite3_changes(q->db) == 0)
    return mr_sqlite_conflict(c, "rev", "session", r->id, "was changed by someone else");
  return what & (MR_SESSION_AGENT | MR_SESSION_DOC) ? texts_put(q, c, r, what, no) : MR_APPLIED;
}

static enum mr_applied session_born(struct mr_sqlite *q, struct mr_commit *c, const struct mr_session_row *r)
{
  int64_t no;
  enum mr_applied a = session_find(q, c, r->id, &no);
  int rc;

  if (a != MR_APPLIED) return a;
  sqlite3_bind_int64(q->st[MR_W_SESSION_BORN], 1, no);
  mr_sqlite_bind(q->st[MR_W_SESSION_BORN], 2, r->environment_id);
  rc = mr_sqlite_step(q, MR_W_SESSION_BORN);
  return rc == SQLITE_DONE ? MR_APPLIED : mr_sqlite_refused(q, c, rc);
}

static enum mr_applied session_delete(struct mr_sqlite *q, struct mr_commit *c, struct mr_str id)
{
  sqlite3_stmt *st = q->st[MR_W_SESSION_DELETE];
  int64_t no;
  enum mr_applied a = session_find(q, c, id, &no);
  int rc;

  if (a != MR_APPLIED) return a;
  q->memo_no = 0;
  sqlite3_bind_int64(st, 1, no);
  sqlite3_bind_int64(st, 2, c->now_us > 0 ? c->now_us : 1);
  rc = mr_sqlite_step(q, MR_W_SESSION_DELETE);
  if (rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc);
  q->sweep = true;
  return MR_APPLIED;
}

static enum mr_applied log_rows(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  sqlite3_stmt *st = q->st[MR_W_LOG_INSERT];
  int64_t no;
  enum mr_applied a = session_find(q, c, op->u.log.session_id, &no);
  int rc;

  if (a != MR_APPLIED) return a;
  sqlite3_bind_int64(st, 1, c->origin.workspace);
  sqlite3_bind_int64(st, 3, no);
  mr_sqlite_bind_or_null(st, 10, c->origin.key_id);
  mr_sqlite_bind_or_null(st, 11, c->origin.request_id);
  mr_sqlite_bind_or_null(st, 12, c->origin.trace);
  for (int i = 0; i < op->u.log.n; i++) {
    const struct mr_log_row *r = &op->u.log.rows[i];
    sqlite3_bind_int64(st, 2, ++q->pos);
    sqlite3_bind_int(st, 4, r->kind);
    sqlite3_bind_int(st, 5, r->format);
    sqlite3_bind_int64(st, 6, r->processed_us);
    mr_sqlite_bind(st, 7, r->type);
    mr_sqlite_bind_or_null(st, 8, r->event_id);
    mr_sqlite_bind_or_null(st, 9, r->thread_id);
    mr_sqlite_bind(st, 13, r->body);
    rc = mr_sqlite_step(q, MR_W_LOG_INSERT);
    if (rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc);
    if (!c->first_pos) c->first_pos = q->pos;
  }
  return MR_APPLIED;
}

static enum mr_applied inbox_add(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  sqlite3_stmt *st = q->st[MR_W_INBOX_INSERT];
  const struct mr_inbox_row *r = &op->u.inbox.row;
  int64_t no;
  enum mr_applied a = session_find(q, c, op->u.inbox.session_id, &no);
  int rc;

  if (a != MR_APPLIED) return a;
  sqlite3_bind_int64(st, 1, c->origin.workspace);
  sqlite3_bind_int64(st, 2, ++q->arrival);
  sqlite3_bind_int64(st, 3, no);
  mr_sqlite_bind(st, 4, r->event_id);
  mr_sqlite_bind(st, 5, r->type);
  mr_sqlite_bind_or_null(st, 6, c->origin.key_id);
  mr_sqlite_bind_or_null(st, 7, c->origin.request_id);
  mr_sqlite_bind_or_null(st, 8, c->origin.trace);
  mr_sqlite_bind(st, 9, r->body);
  rc = mr_sqlite_step(q, MR_W_INBOX_INSERT);
  return rc == SQLITE_DONE ? MR_APPLIED : mr_sqlite_refused(q, c, rc);
}

/* A row that is not there was taken by someone: going on would append its event twice. */
static enum mr_applied inbox_del(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  sqlite3_stmt *st = q->st[MR_W_INBOX_DELETE];
  int64_t no;
  enum mr_applied a = session_find(q, c, op->u.inbox.session_id, &no);
  int rc;

  if (a != MR_APPLIED) return a;
  sqlite3_bind_int64(st, 1, c->origin.workspace);
  sqlite3_bind_int64(st, 2, no);
  mr_sqlite_bind(st, 3, op->u.inbox.row.event_id);
  rc = mr_sqlite_step(q, MR_W_INBOX_DELETE);
  if (rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc);
  return sqlite3_changes(q->db) > 0
             ? MR_APPLIED
             : mr_sqlite_conflict(c, "not_found", "inbox", op->u.inbox.row.event_id, "does not wait");
}

enum mr_applied mr_sqlite_apply_session(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  switch (op->kind) {
  case MR_OP_SESSION_NEW: return session_new(q, c, &op->u.session.row);
  case MR_OP_SESSION_PUT: return session_put(q, c, &op->u.session.row, op->u.session.what);
  case MR_OP_SESSION_BORN: return session_born(q, c, &op->u.session.row);
  case MR_OP_SESSION_DELETE: return session_delete(q, c, op->u.session.row.id);
  case MR_OP_LOG: return log_rows(q, c, op);
  case MR_OP_INBOX_ADD: return inbox_add(q, c, op);
  case MR_OP_INBOX_DEL: return inbox_del(q, c, op);
  default:
    c->code = mr_err_set(&c->err, MR_E_INTERNAL, NULL, "unknown operation %d", (int)op->kind);
    return MR_APPLIED_ALONE;
  }
}
