/*
 * apply.c - one commit's operations as rows, inside the transaction that batch.c opened. Documents here;
 * sessions, log and inbox in apply_session.c.
 *
 * Expectations are decided here and nowhere else, by the rows as the commits before this one left them
 * (in the same transaction too). All of them answer MR_E_CONFLICT; err.error_code says which kind:
 * "exists", "rev", "not_found", "name_taken"; err.field is the kind of the object ("agent", "session",
 * "inbox", ...).
 *
 * Invariant: after MR_APPLIED_ALONE the caller undoes the savepoint; after MR_APPLIED_BROKEN the
 * transaction. Neither leaves a statement running. Writer thread.
 */
#include "store/sqlite/sqlite_t.h"

#include <stdio.h>

enum mr_applied mr_sqlite_refused(struct mr_sqlite *q, struct mr_commit *c, int rc)
{
  switch (rc & 0xff) {
  case SQLITE_CONSTRAINT:
    c->code = mr_err_set(&c->err, MR_E_CONFLICT, NULL, "store: %s", sqlite3_errmsg(q->db));
    return MR_APPLIED_ALONE;
  case SQLITE_TOOBIG:
    c->code = mr_err_set(&c->err, MR_E_TOO_LARGE, NULL, "a row is larger than the store takes");
    return MR_APPLIED_ALONE;
  default: c->code = mr_sqlite_err(q->db, 0, "write", &c->err); return MR_APPLIED_BROKEN;
  }
}

enum mr_applied mr_sqlite_conflict(struct mr_commit *c, const char *why, const char *field, struct mr_str what,
                                   const char *text)
{
  c->code = mr_err_code(&c->err, MR_E_CONFLICT, why, field, "%s %.*s %s", field,
                        (int)(what.n < 80 ? what.n : 80), what.p ? what.p : "", text);
  return MR_APPLIED_ALONE;
}

static enum mr_applied doc_conflict(struct mr_commit *c, const struct mr_commit_op *op, const char *why,
                                    const char *text)
{
  char kind[64];

  snprintf(kind, sizeof kind, "%.*s", (int)op->u.doc.row.kind.n, op->u.doc.row.kind.p);
  return mr_sqlite_conflict(c, why, kind, op->u.doc.row.id, text);
}

/* 1: workspace, 2: kind, 3: id. */
static sqlite3_stmt *doc_bind(struct mr_sqlite *q, enum mr_stmt w, struct mr_commit *c,
                              const struct mr_commit_op *op)
{
  sqlite3_bind_int64(q->st[w], 1, c->origin.workspace);
  mr_sqlite_bind(q->st[w], 2, op->u.doc.row.kind);
  mr_sqlite_bind(q->st[w], 3, op->u.doc.row.id);
  return q->st[w];
}

/* The document's rev into *rev; 0 when there is none. */
static enum mr_applied doc_rev(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op,
                               int64_t *rev)
{
  sqlite3_stmt *st = doc_bind(q, MR_W_DOC_REV, c, op);
  int rc = sqlite3_step(st);

  *rev = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
  sqlite3_reset(st);
  return rc == SQLITE_ROW || rc == SQLITE_DONE ? MR_APPLIED : mr_sqlite_refused(q, c, rc);
}

/* Says which of the two it was: gone, or at another rev. */
static enum mr_applied doc_missed(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  int64_t rev;
  enum mr_applied a = doc_rev(q, c, op, &rev);

  if (a != MR_APPLIED) return a;
  return rev == 0 ? doc_conflict(c, op, "not_found", "does not exist")
                  : doc_conflict(c, op, "rev", "was changed by someone else");
}

static enum mr_applied doc_put(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  const struct mr_doc_row *r = &op->u.doc.row;
  bool insert = op->u.doc.expect == 0;
  enum mr_stmt w = insert ? MR_W_DOC_INSERT : MR_W_DOC_UPDATE;
  sqlite3_stmt *st = doc_bind(q, w, c, op);
  int rc;

  mr_sqlite_bind(st, 4, r->parent);
  mr_sqlite_bind(st, 5, r->name);
  sqlite3_bind_int64(st, 6, r->version);
  sqlite3_bind_int64(st, 7, insert ? r->created_us : op->u.doc.expect);
  sqlite3_bind_int64(st, 8, r->updated_us);
  sqlite3_bind_int64(st, 9, r->archived_us);
  mr_sqlite_bind(st, 10, r->body);
  rc = mr_sqlite_step(q, w);
  if (rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc);
  if (sqlite3_changes(q->db) > 0) return MR_APPLIED;
  return insert ? doc_conflict(c, op, "exists", "exists already") : doc_missed(q, c, op);
}

/* expect 0: gone already is fine. */
static enum mr_applied doc_delete(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  sqlite3_stmt *st = doc_bind(q, MR_W_DOC_DELETE, c, op);
  int rc;

  sqlite3_bind_int64(st, 4, op->u.doc.expect > 0 ? op->u.doc.expect : -1);
  rc = mr_sqlite_step(q, MR_W_DOC_DELETE);
  if (rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc);
  if (sqlite3_changes(q->db) > 0 || op->u.doc.expect == 0) return MR_APPLIED;
  return doc_missed(q, c, op);
}

static enum mr_applied doc_expect(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  int64_t rev;
  enum mr_applied a = doc_rev(q, c, op, &rev);

  if (a != MR_APPLIED) return a;
  if (op->u.doc.expect == 0 && rev != 0) return doc_conflict(c, op, "exists", "exists already");
  if (op->u.doc.expect < 0 ? rev == 0 : rev != op->u.doc.expect) return doc_missed(q, c, op);
  return MR_APPLIED;
}

static enum mr_applied doc_version(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  sqlite3_stmt *st = doc_bind(q, MR_W_DOC_VERSION, c, op);
  int rc;

  sqlite3_bind_int64(st, 4, op->u.doc.row.version);
  sqlite3_bind_int64(st, 5, op->u.doc.row.created_us);
  mr_sqlite_bind(st, 6, op->u.doc.row.body);
  rc = mr_sqlite_step(q, MR_W_DOC_VERSION);
  if (rc != SQLITE_DONE) return mr_sqlite_refused(q, c, rc);
  return sqlite3_changes(q->db) > 0 ? MR_APPLIED : doc_conflict(c, op, "exists", "has this version already");
}

static enum mr_applied name_unique(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  sqlite3_stmt *st = q->st[MR_W_NAME_TAKEN];
  int rc;

  sqlite3_bind_int64(st, 1, c->origin.workspace);
  mr_sqlite_bind(st, 2, op->u.doc.row.kind);
  mr_sqlite_bind(st, 3, op->u.doc.row.name);
  mr_sqlite_bind(st, 4, op->u.doc.row.id);
  rc = mr_sqlite_step(q, MR_W_NAME_TAKEN);
  if (rc == SQLITE_DONE) return MR_APPLIED;
  if (rc != SQLITE_ROW) return mr_sqlite_refused(q, c, rc);
  return doc_conflict(c, op, "name_taken", "cannot have a name that another one has");
}

static enum mr_applied apply_op(struct mr_sqlite *q, struct mr_commit *c, const struct mr_commit_op *op)
{
  switch (op->kind) {
  case MR_OP_DOC_PUT: return doc_put(q, c, op);
  case MR_OP_DOC_DELETE: return doc_delete(q, c, op);
  case MR_OP_DOC_EXPECT: return doc_expect(q, c, op);
  case MR_OP_DOC_VERSION: return doc_version(q, c, op);
  case MR_OP_NAME_UNIQUE: return name_unique(q, c, op);
  case MR_OP_KV_PUT:
  case MR_OP_KV_DELETE:
  case MR_OP_KV_SWEEP: return mr_sqlite_apply_kv(q, c, op);
  default: return mr_sqlite_apply_session(q, c, op);
  }
}

enum mr_applied mr_sqlite_apply(struct mr_sqlite *q, struct mr_commit *c)
{
  enum mr_applied a = MR_APPLIED;

  q->memo_no = 0;
  c->first_pos = 0;
  for (const struct mr_commit_op *op = c->ops; op && a == MR_APPLIED; op = op->next)
    a = apply_op(q, c, op);
  return a;
}
