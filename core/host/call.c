/*
 * call.c - an operation of ops/ on behalf of the host, on the loop: it is started, ended early, and its events
 * and its reply go back through the queue. What happens on the host's thread before is call_new.c.
 *
 * Invariant: a started op gets exactly one reply entry, after all its events and chunks. What the domain does
 * may outlast the reply (a deadline passed, a read was cancelled): the op then waits in rt->ops for the
 * domain's done, so that a call of the domain always has a face.
 */
#include "host/host_t.h"
#include "ops/ops.h"

#include <stdio.h>

/* ---- life of the handle ---- */

void mr_op_ref(struct mr_op *op)
{
  atomic_fetch_add(&op->refs, 1);
}

void mr_op_unref(struct mr_op *op)
{
  struct mr_runtime *rt = op->rt;

  if (atomic_fetch_sub(&op->refs, 1) != 1) return;
  mr_ask_free(op);
  mr_upload_free(op);
  yyjson_doc_free(op->in);
  mr_mem_free(mr_rt_mem(rt), op->json);
  mr_arena_free(&op->arena);
  mr_mem_free(mr_rt_mem(rt), op);
  mr_rt_unref(rt);
}

void mr_op_release(struct mr_op *op)
{
  if (op && mr_rt_check(op->rt, NULL) == MR_OK) mr_op_unref(op);
}

void mr_op_cancel(struct mr_op *op)
{
  if (!op || mr_rt_check(op->rt, NULL) != MR_OK || atomic_exchange(&op->cancelled, true)) return;
  mr_op_ref(op);
  if (mr_rt_post(op->rt, &op->cancel) != MR_OK) mr_op_unref(op);
}

static void on_cancel(struct mr_post *p)
{
  struct mr_op *op = MR_OF(p, struct mr_op, cancel);
  mr_op_end(op, MR_E_CANCELLED);
  mr_op_unref(op);
}

/* ---- the reply ---- */

static void run_reply(struct mr_entry *e)
{
  struct mr_op *op = MR_OF(e, struct mr_op, reply);
  struct mr_reply r = {.size = sizeof r, .code = op->code};
  yyjson_doc *doc = NULL;

  if (op->cbs.reply) {
    if (r.code == MR_OK && op->json_n)
      r.code = mr_json_parse(mr_rt_mem(op->rt), mr_str_n(op->json, op->json_n), SIZE_MAX, &doc, &op->err);
    if (r.code == MR_OK) {
      r.json = mr_str_n(op->json, op->json_n);
      r.val = (const struct mr_val *)yyjson_doc_get_root(doc);
    } else {
      r.err = &op->err;
    }
    op->cbs.reply(op->ud, &r);
    yyjson_doc_free(doc);
  }
  mr_queue_release(&op->rt->queue);
  mr_op_unref(op);
}

void mr_op_unlink(struct mr_op *op)
{
  if (!op->replied || op->c || !op->link) return;
  *op->link = op->next;
  if (op->next) op->next->link = op->link;
  op->link = NULL;
  op->rt->nops--;
}

void mr_op_settle(struct mr_op *op, int code, const struct mr_err *err, char *json, size_t n)
{
  if (op->replied) {
    mr_mem_free(mr_rt_mem(op->rt), json);
    return;
  }
  op->replied = true;
  if (op->timed) mr_timer_cancel(op->rt->loop, &op->deadline);
  op->code = code;
  op->json = json;
  op->json_n = n;
  if (code != MR_OK && err)
    mr_err_copy(&op->err, err);
  else if (code != MR_OK)
    mr_err_set(&op->err, code, NULL, "%s", mr_strerror(code));
  mr_op_unlink(op);
  mr_queue_push(&op->rt->queue, &op->reply);
}

void mr_op_explain(struct mr_op *op, struct mr_err *err)
{
  bool stream = !op->def || op->def->kind == MR_OP_EVENTS;
  char id[sizeof err->request_id];

  memcpy(id, err->request_id, sizeof id);
  if (op->why == MR_E_FULL)
    mr_err_set(err, MR_E_CLOSED, NULL,
               "the host fell behind and the stream was cut after position %lld: go on with \"after\":%lld",
               (long long)op->last_pos, (long long)op->last_pos);
  else if (op->why == MR_E_TIMEOUT)
    mr_err_set(err, MR_E_TIMEOUT, NULL, "the call's deadline of %lld ms passed", (long long)op->deadline_ms);
  else if (op->why == MR_E_CANCELLED)
    mr_err_set(err, MR_E_CANCELLED, NULL, "cancelled by the caller");
  else if (stream)
    mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing; the last event had position %lld",
               (long long)op->last_pos);
  else
    mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
  memcpy(err->request_id, id, sizeof id);
}

/* ---- events ---- */

struct event {
  struct mr_entry entry;
  struct mr_op *op;
  int64_t pos;
  size_t n;
  char json[];
};

static void run_event(struct mr_entry *e)
{
  struct event *v = MR_OF(e, struct event, entry);
  struct mr_op *op = v->op; /* its reply comes after us */
  struct mr_runtime *rt = op->rt;
  yyjson_doc *doc = NULL;

  atomic_fetch_sub(&op->backlog, 1);
  atomic_fetch_sub(&op->backlog_n, v->n);
  if (!atomic_load(&op->cancelled)) {
    if (mr_json_parse(mr_rt_mem(rt), mr_str_n(v->json, v->n), SIZE_MAX, &doc, NULL) == MR_OK)
      op->cbs.event(op->ud, mr_str_n(v->json, v->n), (const struct mr_val *)yyjson_doc_get_root(doc), v->pos);
    else
      mr_op_cancel(op); /* no memory: an event that is missing would be worse */
    yyjson_doc_free(doc);
  }
  mr_mem_free(mr_rt_mem(rt), v);
  mr_queue_release(&rt->queue);
}

int mr_op_event(struct mr_op *op, int64_t pos, struct mr_str json)
{
  struct mr_queue *q = &op->rt->queue;
  struct event *v;

  if (op->replied || op->why) return MR_E_CLOSED;
  if (!op->cbs.event) return MR_OK;
  if (atomic_load(&op->backlog) >= MR_BACKLOG_MAX || atomic_load(&op->backlog_n) + json.n > MR_BACKLOG_BYTES ||
      mr_queue_reserve(q) != MR_OK) {
    op->why = MR_E_FULL;
    return MR_E_CLOSED;
  }
  v = mr_mem_alloc(mr_rt_mem(op->rt), sizeof *v + json.n);
  if (!v) {
    mr_queue_release(q);
    op->why = MR_E_FULL;
    return MR_E_CLOSED;
  }
  v->entry.run = run_event;
  v->op = op;
  v->pos = pos;
  v->n = json.n;
  memcpy(v->json, json.p, json.n);
  if (pos > 0) op->last_pos = pos;
  atomic_fetch_add(&op->backlog, 1);
  atomic_fetch_add(&op->backlog_n, json.n);
  mr_queue_push(q, &v->entry);
  return MR_OK;
}

/* ---- the domain's call, on the loop ---- */

static int call_event(struct mr_call *c, struct mr_str name, int64_t pos, struct mr_str json)
{
  (void)name;
  return mr_op_event(c->face, pos, json);
}

static void on_kick(struct mr_ready *r)
{
  struct mr_op *op = MR_OF(r, struct mr_op, kick);
  if (op->c && op->c->cancel) op->c->cancel(op->c);
}

static void call_opened(struct mr_call *c)
{
  struct mr_op *op = c->face;
  if (op->why) /* ended while the session was loaded; not from in here */
    mr_ready_post(op->rt->loop, &op->kick);
}

static void call_head(struct mr_call *c, struct mr_str filename, struct mr_str media_type, int64_t size)
{
  (void)c;
  (void)filename;
  (void)media_type;
  (void)size;
}

static void call_in_drained(struct mr_call *c)
{
  mr_upload_next(c->face);
}

static void call_done(struct mr_call *c)
{
  struct mr_op *op = c->face;
  struct mr_err err = c->err;
  char *json = NULL;
  size_t n = 0;
  int code = c->code;

  if (code != MR_OK && op->why) {
    mr_op_explain(op, &err);
    code = err.code;
  } else if (code == MR_E_CLOSED && op->def->kind == MR_OP_EVENTS) {
    mr_err_set(&err, code, NULL, "the runtime is stopping; the last event had position %lld",
               (long long)op->last_pos);
  } else if (code == MR_OK) {
    json = mr_buf_take(&c->out, &n);
  }
  mr_ready_cancel(op->rt->loop, &op->kick);
  op->c = NULL;
  mr_op_call_free(&c);
  mr_op_settle(op, code, &err, json, n);
  mr_op_unlink(op);
  mr_op_unref(op);
}

int mr_op_call(struct mr_op *op, struct mr_call **out, struct mr_err *err)
{
  struct mr_runtime *rt = op->rt;
  struct mr_call *c = mr_op_call_new(rt->domain, mr_rt_mem(rt));
  struct mr_str ws = op->who.workspace.n ? op->who.workspace : MR_S("default");
  char id[MR_ID_MAX] = "";
  int code;

  *out = NULL;
  if (!c) return mr_err_nomem(err);
  code = mr_store_workspace(rt->store, ws, &c->who.workspace, err);
  if (code == MR_OK && !op->who.request_id.n) {
    code = mr_id_make(&rt->sys, id, "req");
    op->who.request_id = mr_arena_str(op->arena, mr_str_c(id));
    if (code != MR_OK || !op->who.request_id.p)
      code = mr_err_set(err, MR_E_UNAVAILABLE, NULL, "no request id could be made");
  }
  c->who.key_id = op->who.key;
  c->who.request_id = op->who.request_id;
  c->who.trace = op->who.traceparent;
  c->face = op;
  c->event = call_event;
  c->opened = call_opened;
  c->out_head = call_head;
  c->out_bytes = mr_download_bytes;
  c->in_drained = call_in_drained;
  c->done = call_done;
  if (code == MR_OK)
    *out = c;
  else
    mr_op_call_free(&c);
  return code;
}

static void on_deadline(struct mr_timer *t)
{
  mr_op_end(MR_OF(t, struct mr_op, deadline), MR_E_TIMEOUT);
}

static void link_op(struct mr_op *op)
{
  struct mr_runtime *rt = op->rt;

  op->next = rt->ops;
  op->link = &rt->ops;
  if (op->next) op->next->link = &op->next;
  rt->ops = op;
  rt->nops++;
}

static void on_start(struct mr_post *p)
{
  struct mr_op *op = MR_OF(p, struct mr_op, start);
  struct mr_err err = {0};
  struct mr_call *c = NULL;
  int code = MR_OK;

  link_op(op);
  if (atomic_load(&op->rt->closing))
    op->why = MR_E_CLOSED;
  else if (atomic_load(&op->cancelled))
    op->why = MR_E_CANCELLED;
  if (op->why) mr_op_explain(op, &err);
  code = op->why ? err.code : mr_op_call(op, &c, &err);
  if (code == MR_OK && op->deadline_ms > 0) {
    op->timed = true;
    code = mr_timer_set(op->rt->loop, &op->deadline, op->deadline_ms * 1000);
    if (code != MR_OK) mr_err_nomem(&err);
  }
  if (code == MR_OK && !op->def) {
    mr_ask_start(op, c);
    return;
  }
  if (code != MR_OK) {
    mr_op_call_free(&c);
    mr_op_settle(op, code, &err, NULL, 0);
    return;
  }
  mr_op_input(c, op->in);
  op->in = NULL;
  op->c = c;
  mr_op_ref(op); /* until done */
  mr_op_start(c, op->def);
  if (c->feed) mr_upload_next(op);
}

void mr_op_end(struct mr_op *op, int why)
{
  struct mr_call *c = op->c;
  struct mr_err err = {0};
  bool read_only;

  if (op->replied || op->why) return;
  op->why = why;
  if (!op->def) {
    mr_ask_end(op);
    return;
  }
  if (!c) return; /* not started: on_start sees it */
  if (c->feed_end) {
    c->feed_end(c, why);
    return;
  }
  if (c->cancel) {
    mr_op_ref(op); /* the reply may be read, and the op be gone, before cancel returns */
    c->cancel(c);
    if (op->paused && op->c && c->out_drained) { /* it waits for room: let it look */
      op->paused = false;
      c->out_drained(c);
    }
    mr_op_unref(op);
    return;
  }
  read_only = strcmp(op->def->verb, "GET") == 0;
  if (!read_only && why != MR_E_TIMEOUT)
    return; /* a change is on its way to the store: the reply says what became of it */
  snprintf(err.request_id, sizeof err.request_id, MR_FMT, MR_ARG(op->who.request_id));
  mr_op_explain(op, &err);
  mr_op_settle(op, err.code, &err, NULL, 0);
}

void mr_op_init(struct mr_op *op)
{
  op->start.fn = on_start;
  op->cancel.fn = on_cancel;
  op->reply.run = run_reply;
  mr_ready_init(&op->kick, on_kick);
  mr_timer_init(&op->deadline, on_deadline);
}

/* ---- at the end ---- */

void mr_ops_close(struct mr_runtime *rt)
{
  for (struct mr_op *op = rt->ops, *next; op; op = next) {
    next = op->next;
    /* What goes to the store is let finish; what waits for a model is not. */
    if (!op->def || op->def->kind != MR_OP_JSON || (op->def->flags & MR_OP_PASS)) mr_op_end(op, MR_E_CLOSED);
  }
}

void mr_ops_abandon(struct mr_runtime *rt)
{
  struct mr_op *op;
  struct mr_err err = {0};

  while ((op = rt->ops)) {
    bool running = op->c != NULL && op->def; /* an ask's calls hold no reference of their own */
    mr_ready_cancel(rt->loop, &op->kick);
    mr_op_call_free(&op->c);
    op->why = MR_E_CLOSED;
    mr_op_explain(op, &err);
    mr_ask_free(op);
    mr_op_settle(op, MR_E_CLOSED, &err, NULL, 0);
    mr_op_unlink(op);
    if (running) mr_op_unref(op);
  }
}
