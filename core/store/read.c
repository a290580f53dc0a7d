/*
 * read.c - asking: copies a query into an arena of its own, gives it to the driver, and delivers the
 * rows. The SQL is the driver's (sqlite/read*.c).
 *
 * A read owns its query and its rows; it holds nothing of the loop thread's but the callback. Replies
 * are bounded twice: by the query's limit (1..10,000) and by MR_STORE_REPLY_BYTES; either sets more.
 *
 * Invariant: fn runs once, on the loop thread, after the call that asked has returned. When not even
 * the read itself can be allocated, one of a few spares made at open carries MR_E_NOMEM; only with all
 * of them under way does fn run inside the call.
 */
#include "store/store_t.h"

enum { READ_BLOCK = 2048, IDS_MAX = 1000 };

/* ---- delivery ---- */

void mr_read_done(struct mr_done *d)
{
  struct mr_read *rd = MR_OF(d, struct mr_read, done);
  struct mr_arena *a = rd->arena; /* the read lives in it */

  rd->rows.err = rd->rows.code == MR_OK ? NULL : &rd->err;
  if (rd->rows.code != MR_OK) rd->rows.n = 0;
  rd->fn(rd->ud, &rd->rows);
  mr_arena_free(&a);
}

static void fail_call(mr_any_fn fn, void *ud, int code)
{
  struct mr_err err;
  struct mr_rows rows = {.code = code, .err = &err};

  mr_err_set(&err, code, NULL, "%s", mr_strerror(code));
  ((mr_rows_fn)fn)(ud, &rows);
}

/* ---- building ---- */

static struct mr_read *read_new(struct mr_store *s, int64_t ws, enum mr_read_kind kind, int limit,
                                mr_rows_fn fn, void *ud)
{
  struct mr_arena *a = mr_arena_new(s->mem, READ_BLOCK);
  struct mr_read *rd = a ? mr_arena_alloc(a, sizeof *rd) : NULL;

  if (!rd) {
    mr_arena_free(&a);
    mr_store_fail_later(s, MR_E_NOMEM, fail_call, (mr_any_fn)fn, ud);
    return NULL;
  }
  rd->arena = a;
  rd->store = s;
  rd->done.fn = mr_read_done;
  rd->ws = ws;
  rd->kind = kind;
  rd->limit = limit < 1 ? 1 : limit > MR_STORE_LIST_MAX ? MR_STORE_LIST_MAX : limit;
  rd->fn = fn;
  rd->ud = ud;
  return rd;
}

static void copy(struct mr_read *rd, struct mr_str *to, struct mr_str from)
{
  *to = mr_str_n(NULL, 0);
  if (!from.p) return;
  *to = mr_arena_str(rd->arena, from);
  if (!to->p) rd->rows.code = MR_E_NOMEM;
}

static const struct mr_str *copy_list(struct mr_read *rd, const struct mr_str *from, int n)
{
  struct mr_str *to;

  if (n <= 0) return NULL;
  if (n > IDS_MAX) {
    rd->rows.code = MR_E_INVALID;
    return NULL;
  }
  to = mr_arena_alloc(rd->arena, (size_t)n * sizeof *to);
  if (!to) rd->rows.code = MR_E_NOMEM;
  for (int i = 0; to && i < n; i++)
    copy(rd, &to[i], from[i]);
  return to;
}

static void submit(struct mr_read *rd)
{
  struct mr_store *s = rd->store;
  int code = rd->rows.code;

  if (code == MR_OK) code = s->closing ? MR_E_CLOSED : s->drv->read(s, rd);
  if (code == MR_OK) return;
  rd->rows.code = mr_err_set(&rd->err, code, NULL, "%s", mr_strerror(code));
  rd->done.next = NULL;
  mr_store_deliver(s, &rd->done);
}

/* ---- documents ---- */

static struct mr_read *doc_read(struct mr_store *s, int64_t ws, enum mr_read_kind what, int limit,
                                struct mr_str kind, struct mr_str id, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = read_new(s, ws, what, limit, fn, ud);

  if (rd) {
    copy(rd, &rd->doc_kind, kind);
    copy(rd, &rd->id, id);
  }
  return rd;
}

void mr_read_doc(struct mr_store *s, int64_t ws, struct mr_str kind, struct mr_str id, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = doc_read(s, ws, MR_READ_DOC, 1, kind, id, fn, ud);

  if (rd) submit(rd);
}

void mr_read_doc_named(struct mr_store *s, int64_t ws, struct mr_str kind, struct mr_str name, int limit,
                       mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = doc_read(s, ws, MR_READ_DOC_NAMED, limit, kind, MR_S(""), fn, ud);

  if (!rd) return;
  copy(rd, &rd->name, name);
  submit(rd);
}

void mr_read_doc_version(struct mr_store *s, int64_t ws, struct mr_str kind, struct mr_str id, int64_t version,
                         mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = doc_read(s, ws, MR_READ_DOC_VERSION, 1, kind, id, fn, ud);

  if (!rd) return;
  rd->version = version;
  submit(rd);
}

void mr_read_doc_versions(struct mr_store *s, int64_t ws, struct mr_str kind, struct mr_str id, int64_t below,
                          int limit, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = doc_read(s, ws, MR_READ_DOC_VERSIONS, limit, kind, id, fn, ud);

  if (!rd) return;
  rd->below = below;
  submit(rd);
}

void mr_read_docs(struct mr_store *s, int64_t ws, const struct mr_doc_query *q, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = read_new(s, ws, MR_READ_DOCS, q->limit, fn, ud);

  if (!rd) return;
  rd->q.docs = *q;
  copy(rd, &rd->q.docs.kind, q->kind);
  copy(rd, &rd->q.docs.parent, q->parent);
  copy(rd, &rd->q.docs.after.id, q->after.id);
  rd->q.docs.ids = copy_list(rd, q->ids, q->nids);
  submit(rd);
}

/* ---- sessions ---- */

void mr_read_session(struct mr_store *s, int64_t ws, struct mr_str id, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = read_new(s, ws, MR_READ_SESSION, 1, fn, ud);

  if (!rd) return;
  copy(rd, &rd->id, id);
  submit(rd);
}

void mr_read_sessions(struct mr_store *s, int64_t ws, const struct mr_session_query *q, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = read_new(s, ws, MR_READ_SESSIONS, q->limit, fn, ud);
  struct mr_session_query *to;

  if (!rd) return;
  to = &rd->q.sessions;
  *to = *q;
  copy(rd, &to->agent_id, q->agent_id);
  copy(rd, &to->environment_id, q->environment_id);
  copy(rd, &to->deployment_id, q->deployment_id);
  copy(rd, &to->memory_store_id, q->memory_store_id);
  copy(rd, &to->after.id, q->after.id);
  to->statuses = copy_list(rd, q->statuses, q->nstatuses);
  submit(rd);
}

void mr_read_sessions_to_wake(struct mr_store *s, int limit, int64_t after_no, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = read_new(s, 0, MR_READ_WAKE, limit, fn, ud);

  if (!rd) return;
  rd->after_no = after_no;
  submit(rd);
}

/* ---- the log and the inbox ---- */

void mr_read_log(struct mr_store *s, int64_t ws, const struct mr_log_query *q, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = read_new(s, ws, MR_READ_LOG, q->limit, fn, ud);

  if (!rd) return;
  rd->q.log = *q;
  copy(rd, &rd->q.log.session_id, q->session_id);
  copy(rd, &rd->q.log.thread_id, q->thread_id);
  copy(rd, &rd->q.log.event_id, q->event_id);
  rd->q.log.types = copy_list(rd, q->types, q->ntypes);
  submit(rd);
}

void mr_read_inbox(struct mr_store *s, int64_t ws, struct mr_str session_id, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = read_new(s, ws, MR_READ_INBOX, MR_STORE_LIST_MAX, fn, ud);

  if (!rd) return;
  copy(rd, &rd->id, session_id);
  submit(rd);
}

void mr_read_all(struct mr_store *s, int64_t after_pos, int64_t upto, const struct mr_str *types, int ntypes,
                 int limit, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = read_new(s, 0, MR_READ_ALL, limit, fn, ud);

  if (!rd) return;
  rd->q.all.after = after_pos;
  rd->q.all.upto = upto;
  rd->q.all.types = copy_list(rd, types, ntypes);
  rd->q.all.ntypes = ntypes;
  submit(rd);
}

/* ---- durable values ---- */

static struct mr_read *kv_read(struct mr_store *s, int64_t ws, enum mr_read_kind what, int limit,
                               struct mr_str space, struct mr_str key, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = read_new(s, ws, what, limit, fn, ud);

  if (rd) {
    copy(rd, &rd->q.kv.space, space);
    copy(rd, &rd->q.kv.key, key);
    rd->q.kv.now_us = mr_wall_us(s->sys);
  }
  return rd;
}

void mr_read_kv(struct mr_store *s, int64_t ws, struct mr_str space, struct mr_str key, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = kv_read(s, ws, MR_READ_KV, 1, space, key, fn, ud);

  if (rd) submit(rd);
}

void mr_read_kvs(struct mr_store *s, int64_t ws, struct mr_str space, struct mr_str prefix, struct mr_str after,
                 int limit, mr_rows_fn fn, void *ud)
{
  struct mr_read *rd = kv_read(s, ws, MR_READ_KVS, limit, space, prefix, fn, ud);

  if (!rd) return;
  copy(rd, &rd->q.kv.after, after);
  submit(rd);
}

/* ---- for drivers ---- */

void *mr_read_row(struct mr_read *rd, void **rows, int *cap, int n, size_t size)
{
  if (n == *cap) {
    int more = *cap ? *cap * 2 : 16;
    void *p = mr_arena_alloc(rd->arena, (size_t)more * size);
    if (!p) return NULL;
    if (n) memcpy(p, *rows, (size_t)n * size);
    *rows = p;
    *cap = more;
  }
  return (char *)*rows + (size_t)n * size;
}
