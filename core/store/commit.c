/*
 * commit.c - building commits: copies what callers pass into one arena, checks shapes, and hands the
 * list to the driver. Nothing of a database here: what an operation does to rows, and when it conflicts,
 * is the driver's (sqlite/apply.c).
 *
 * A call that cannot copy, or is given something impossible, makes the whole commit fail at submit: the
 * first failure stays in c->code, later calls do nothing. A failed commit comes back through the same
 * delivery as any other, so done is never called inside mr_commit_submit. Every function accepts a NULL
 * commit (mr_commit_new without memory) and does nothing, mr_commit_submit too: who asks for a commit
 * checks that it got one.
 *
 * Invariant: after mr_commit_submit the commit belongs to the driver, then to its delivery, which frees
 * it. Loop thread.
 */
#include "store/store_t.h"

enum { COMMIT_BLOCK = 4096 };

static void commit_fail(struct mr_commit *c, int code, const char *field, const char *why)
{
  if (c->code == MR_OK) c->code = mr_err_set(&c->err, code, field, "%s", why);
}

static struct mr_str copy(struct mr_commit *c, struct mr_str s)
{
  struct mr_str out;

  if (c->code != MR_OK || s.n == 0) return mr_str_n("", 0);
  out = mr_arena_str(c->arena, s);
  if (!out.p) {
    commit_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return mr_str_n("", 0);
  }
  c->bytes += s.n;
  return out;
}

static struct mr_commit_op *op_new(struct mr_commit *c, enum mr_op_kind kind)
{
  struct mr_commit_op *op;

  if (!c || c->code != MR_OK) return NULL;
  op = mr_arena_alloc(c->arena, sizeof *op);
  if (!op) {
    commit_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return NULL;
  }
  op->kind = kind;
  c->bytes += sizeof *op;
  c->rows++;
  *c->tail = op;
  c->tail = &op->next;
  return op;
}

struct mr_commit *mr_commit_new(struct mr_store *s, const struct mr_origin *o)
{
  struct mr_arena *a = mr_arena_new(s->mem, COMMIT_BLOCK);
  struct mr_commit *c = a ? mr_arena_alloc(a, sizeof *c) : NULL;

  if (!c) {
    mr_arena_free(&a);
    return NULL;
  }
  c->done.fn = mr_commit_done;
  c->store = s;
  c->arena = a;
  c->tail = &c->ops;
  c->bytes = COMMIT_BLOCK;
  c->origin.workspace = o->workspace;
  c->origin.key_id = copy(c, o->key_id);
  c->origin.request_id = copy(c, o->request_id);
  c->origin.trace = copy(c, o->trace);
  if (o->workspace <= 0) commit_fail(c, MR_E_INVALID, "workspace", "a commit needs a workspace");
  return c;
}

void mr_commit_drop(struct mr_commit **cp)
{
  struct mr_arena *a;

  if (!*cp) return;
  a = (*cp)->arena; /* the commit lives in it */
  *cp = NULL;
  mr_arena_free(&a);
}

void mr_commit_label(struct mr_commit *c, const char *label)
{
  if (c) c->label = label;
}

/* ---- documents ---- */

static struct mr_commit_op *doc_op(struct mr_commit *c, enum mr_op_kind op_kind, struct mr_str kind,
                                   struct mr_str id, int64_t expect)
{
  struct mr_commit_op *op = op_new(c, op_kind);

  if (!op) return NULL;
  if (kind.n == 0 || id.n == 0) {
    commit_fail(c, MR_E_INVALID, "id", "a document needs a kind and an id");
    return NULL;
  }
  op->u.doc.row.kind = copy(c, kind);
  op->u.doc.row.id = copy(c, id);
  op->u.doc.expect = expect;
  return op;
}

void mr_commit_doc_put(struct mr_commit *c, const struct mr_doc_row *d, int64_t expect_rev)
{
  struct mr_commit_op *op = doc_op(c, MR_OP_DOC_PUT, d->kind, d->id, expect_rev);
  struct mr_doc_row *r;

  if (!op) return;
  r = &op->u.doc.row;
  r->parent = copy(c, d->parent);
  r->name = copy(c, d->name);
  r->version = d->version;
  r->created_us = d->created_us;
  r->updated_us = d->updated_us;
  r->archived_us = d->archived_us;
  r->body = copy(c, d->body);
}

void mr_commit_doc_delete(struct mr_commit *c, struct mr_str kind, struct mr_str id, int64_t expect_rev)
{
  doc_op(c, MR_OP_DOC_DELETE, kind, id, expect_rev);
}

void mr_commit_doc_expect(struct mr_commit *c, struct mr_str kind, struct mr_str id, int64_t rev)
{
  doc_op(c, MR_OP_DOC_EXPECT, kind, id, rev);
}

void mr_commit_doc_version(struct mr_commit *c, struct mr_str kind, struct mr_str id, int64_t version,
                           int64_t created_us, struct mr_str body)
{
  struct mr_commit_op *op = doc_op(c, MR_OP_DOC_VERSION, kind, id, -1);

  if (!op) return;
  op->u.doc.row.version = version;
  op->u.doc.row.created_us = created_us;
  op->u.doc.row.body = copy(c, body);
}

void mr_commit_name_unique(struct mr_commit *c, struct mr_str kind, struct mr_str name, struct mr_str id)
{
  struct mr_commit_op *op = doc_op(c, MR_OP_NAME_UNIQUE, kind, id, -1);

  if (op) op->u.doc.row.name = copy(c, name);
}

/* ---- sessions ---- */

static void session_op(struct mr_commit *c, enum mr_op_kind kind, const struct mr_session_row *s, unsigned what)
{
  struct mr_commit_op *op = op_new(c, kind);
  struct mr_session_row *r;

  if (!op) return;
  if (s->id.n == 0) {
    commit_fail(c, MR_E_INVALID, "id", "a session needs an id");
    return;
  }
  r = &op->u.session.row;
  *r = *s;
  r->id = copy(c, s->id);
  r->status = copy(c, s->status);
  r->agent_id = copy(c, s->agent_id);
  r->environment_id = copy(c, s->environment_id);
  r->deployment_id = copy(c, s->deployment_id);
  r->agent = copy(c, what & MR_SESSION_AGENT ? s->agent : mr_str_n("", 0));
  r->doc = copy(c, what & MR_SESSION_DOC ? s->doc : mr_str_n("", 0));
  r->head = copy(c, what & MR_SESSION_HEAD ? s->head : mr_str_n("", 0));
  op->u.session.what = what;
}

void mr_commit_session_new(struct mr_commit *c, const struct mr_session_row *s)
{
  session_op(c, MR_OP_SESSION_NEW, s, MR_SESSION_AGENT | MR_SESSION_DOC | MR_SESSION_HEAD);
}

void mr_commit_session_put(struct mr_commit *c, const struct mr_session_row *s, unsigned what)
{
  session_op(c, MR_OP_SESSION_PUT, s, what);
}

void mr_commit_session_born(struct mr_commit *c, struct mr_str session_id, struct mr_str environment_id)
{
  struct mr_commit_op *op = op_new(c, MR_OP_SESSION_BORN);

  if (!op) return;
  op->u.session.row.id = copy(c, session_id);
  op->u.session.row.environment_id = copy(c, environment_id);
}

void mr_commit_session_delete(struct mr_commit *c, struct mr_str session_id)
{
  struct mr_commit_op *op = op_new(c, MR_OP_SESSION_DELETE);

  if (op) op->u.session.row.id = copy(c, session_id);
}

/* ---- the log and the inbox ---- */

void mr_commit_log(struct mr_commit *c, struct mr_str session_id, const struct mr_log_row *rows, int n)
{
  struct mr_commit_op *op;
  struct mr_log_row *r;

  if (n <= 0 || !(op = op_new(c, MR_OP_LOG))) return;
  op->u.log.session_id = copy(c, session_id);
  op->u.log.rows = r = mr_arena_alloc(c->arena, (size_t)n * sizeof *r);
  if (!r) {
    commit_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  op->u.log.n = n;
  c->rows += n - 1;
  c->bytes += (size_t)n * sizeof *r;
  for (int i = 0; i < n; i++) {
    r[i] = rows[i];
    r[i].type = copy(c, rows[i].type);
    r[i].event_id = copy(c, rows[i].event_id);
    r[i].thread_id = copy(c, rows[i].thread_id);
    r[i].body = copy(c, rows[i].body);
  }
}

static void inbox_op(struct mr_commit *c, enum mr_op_kind kind, struct mr_str session_id,
                     const struct mr_inbox_row *r)
{
  struct mr_commit_op *op = op_new(c, kind);

  if (!op) return;
  if (r->event_id.n == 0) {
    commit_fail(c, MR_E_INVALID, "id", "an inbox row needs an event id");
    return;
  }
  op->u.inbox.session_id = copy(c, session_id);
  op->u.inbox.row.event_id = copy(c, r->event_id);
  op->u.inbox.row.type = copy(c, r->type);
  op->u.inbox.row.body = copy(c, r->body);
}

void mr_commit_inbox_add(struct mr_commit *c, struct mr_str session_id, const struct mr_inbox_row *r)
{
  inbox_op(c, MR_OP_INBOX_ADD, session_id, r);
}

void mr_commit_inbox_del(struct mr_commit *c, struct mr_str session_id, struct mr_str event_id)
{
  inbox_op(c, MR_OP_INBOX_DEL, session_id, &(struct mr_inbox_row){.event_id = event_id});
}

/* ---- durable values ---- */

static struct mr_commit_op *kv_op(struct mr_commit *c, enum mr_op_kind kind, struct mr_str space,
                                  struct mr_str key, int64_t expect)
{
  struct mr_commit_op *op = op_new(c, kind);

  if (!op) return NULL;
  if (space.n == 0 || key.n == 0) {
    commit_fail(c, MR_E_INVALID, "key", "a value needs a space and a key");
    return NULL;
  }
  op->u.kv.row.space = copy(c, space);
  op->u.kv.row.key = copy(c, key);
  op->u.kv.expect = expect;
  return op;
}

void mr_commit_kv_put(struct mr_commit *c, const struct mr_kv_row *r, int64_t expect)
{
  struct mr_commit_op *op = kv_op(c, MR_OP_KV_PUT, r->space, r->key, expect);

  if (!op) return;
  op->u.kv.row.expires_us = r->expires_us;
  op->u.kv.row.value = copy(c, r->value);
}

void mr_commit_kv_delete(struct mr_commit *c, struct mr_str space, struct mr_str key, int64_t expect)
{
  kv_op(c, MR_OP_KV_DELETE, space, key, expect);
}

void mr_commit_kv_sweep(struct mr_commit *c, int limit)
{
  struct mr_commit_op *op = op_new(c, MR_OP_KV_SWEEP);

  if (op) op->u.kv.limit = limit;
}

/* ---- submit and delivery ---- */

void mr_commit_done(struct mr_done *d)
{
  struct mr_commit *c = MR_OF(d, struct mr_commit, done);
  struct mr_commit_result r = {.code = c->code,
                               .err = c->code == MR_OK ? NULL : &c->err,
                               .first_pos = c->first_pos,
                               .rev = c->rev,
                               .swept = c->swept};

  if (c->fn) c->fn(c->ud, &r);
  mr_commit_drop(&c);
}

void mr_commit_submit(struct mr_commit **cp, void (*done)(void *ud, const struct mr_commit_result *r), void *ud)
{
  struct mr_commit *c = *cp;
  int code;

  if (!c) return;
  *cp = NULL;
  c->fn = done;
  c->ud = ud;
  c->done.next = NULL;
  c->now_us = mr_wall_us(c->store->sys);
  code = c->store->closing ? MR_E_CLOSED : c->store->drv->submit(c->store, c);
  if (code == MR_OK) return;
  if (c->code == MR_OK)
    c->code = code == MR_E_FULL ? mr_err_set(&c->err, code, NULL, "too many commits wait for the disk")
                                : mr_err_set(&c->err, code, NULL, "the store is closing");
  mr_store_deliver(c->store, &c->done);
}
