/*
 * call_new.c - mr_call on the host's thread: the request is checked and copied, the reply's place in the queue
 * is reserved, and the operation goes to the loop (call.c). Nothing here waits, and nothing here runs a callback.
 */
#include "host/host_t.h"
#include "ops/ops.h"

#include <stdio.h>

static void copy_caller(struct mr_op *op, const struct mr_caller *w)
{
  if (!w) return;
  op->who.workspace = mr_arena_str(op->arena, w->workspace);
  op->who.key = mr_arena_str(op->arena, w->key);
  op->who.request_id = mr_arena_str(op->arena, w->request_id);
  op->who.traceparent = mr_arena_str(op->arena, w->traceparent);
}

static struct mr_op *op_new(struct mr_runtime *rt, const struct mr_callbacks *cbs, void *ud)
{
  struct mr_op *op = mr_mem_zalloc(mr_rt_mem(rt), sizeof *op);

  if (!op) return NULL;
  op->arena = mr_arena_new(mr_rt_mem(rt), 256);
  if (!op->arena) {
    mr_mem_free(mr_rt_mem(rt), op);
    return NULL;
  }
  mr_rt_ref(rt);
  op->rt = rt;
  atomic_init(&op->refs, 1);
  atomic_init(&op->cancelled, false);
  atomic_init(&op->backlog, 0);
  atomic_init(&op->backlog_n, 0);
  atomic_init(&op->drained_posted, false);
  op->err.size = sizeof op->err;
  if (cbs) memcpy(&op->cbs, cbs, cbs->size < sizeof op->cbs ? cbs->size : sizeof op->cbs);
  op->ud = ud;
  mr_op_init(op);
  return op;
}

static int check_cbs(const struct mr_callbacks *cbs, struct mr_err *err)
{
  if (cbs && cbs->size < offsetof(struct mr_callbacks, event))
    return mr_err_set(err, MR_E_INVALID, "cbs.size", "cbs.size: set it to sizeof(struct mr_callbacks)");
  return MR_OK;
}

static int check_req(const struct mr_req *req, const struct mr_opdef *def, struct mr_err *err)
{
  if (!def)
    return mr_err_set(err, MR_E_INVALID, "op", "op: there is no operation \"%.80s\"", req->op ? req->op : "");
  if (req->deadline_ms < 0)
    return mr_err_set(err, MR_E_INVALID, "deadline_ms", "deadline_ms: milliseconds from now, or 0");
  if (def->kind == MR_OP_BODY_IN && !(def->flags & MR_OP_TODO) && !req->body)
    return mr_err_set(err, MR_E_INVALID, "body", "body: %s uploads, so it needs a source of bytes", def->name);
  if (def->kind != MR_OP_BODY_IN && req->body)
    return mr_err_set(err, MR_E_INVALID, "body", "body: %s takes none", def->name);
  return MR_OK;
}

int mr_op_make(struct mr_runtime *rt, const struct mr_req *given, yyjson_doc *input,
               const struct mr_callbacks *cbs, void *ud, struct mr_op **out, struct mr_err *err)
{
  struct mr_req req = {0};
  const struct mr_opdef *def;
  struct mr_op *op = NULL;
  int code;

  memcpy(&req, given, given->size < sizeof req ? given->size : sizeof req);
  def = mr_op_find(mr_str_c(req.op));
  code = check_req(&req, def, err);
  if (code == MR_OK) code = check_cbs(cbs, err);
  if (code == MR_OK && !(op = op_new(rt, cbs, ud))) code = mr_err_nomem(err);
  if (code != MR_OK) {
    yyjson_doc_free(input);
    return code;
  }
  op->in = input;
  op->def = def;
  op->deadline_ms = req.deadline_ms;
  copy_caller(op, req.caller);
  if (req.body && def->kind == MR_OP_BODY_IN) code = mr_upload_new(op, req.body, err);
  if (code != MR_OK)
    mr_op_unref(op);
  else
    *out = op;
  return code;
}

int mr_op_make_ask(struct mr_runtime *rt, const struct mr_callbacks *cbs, void *ud, struct mr_op **out,
                   struct mr_err *err)
{
  int code = check_cbs(cbs, err);

  *out = code == MR_OK ? op_new(rt, cbs, ud) : NULL;
  return code == MR_OK && !*out ? mr_err_nomem(err) : code;
}

int mr_op_submit(struct mr_op *op, struct mr_op **out, struct mr_err *err)
{
  struct mr_runtime *rt = op->rt;
  int code = MR_OK;

  if (atomic_load(&rt->closing))
    code = mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
  else if (mr_queue_reserve(&rt->queue) != MR_OK)
    code = mr_err_set(err, MR_E_FULL, NULL, "the completion queue is full (%d): dispatch, then try again",
                      rt->queue.max);
  if (code == MR_OK) {
    mr_rt_start(rt);
    if (out) {
      mr_op_ref(op);
      *out = op;
    }
    if (mr_rt_post(rt, &op->start) == MR_OK) return MR_OK;
    code = mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
    mr_queue_release(&rt->queue);
    if (out) {
      *out = NULL;
      mr_op_unref(op);
    }
  }
  mr_op_unref(op);
  return code;
}

int mr_call_doc(struct mr_runtime *rt, const struct mr_req *req, yyjson_doc *input,
                const struct mr_callbacks *cbs, void *ud, struct mr_op **out, struct mr_err *err)
{
  struct mr_op *op = NULL;
  int code = mr_op_make(rt, req, input, cbs, ud, &op, err);

  return code == MR_OK ? mr_op_submit(op, out, err) : code;
}

int mr_call(struct mr_runtime *rt, const struct mr_req *req, const struct mr_callbacks *cbs, void *ud,
            struct mr_op **op, struct mr_err *err)
{
  yyjson_doc *input = NULL;
  int code = mr_rt_check(rt, err);

  if (op) *op = NULL;
  if (code == MR_OK && (!req || req->size < offsetof(struct mr_req, caller)))
    code = mr_err_set(err, MR_E_INVALID, "size", "size: set req.size to sizeof(struct mr_req)");
  if (code == MR_OK && req->json.n) {
    code = mr_json_parse(mr_rt_mem(rt), req->json, MR_HOST_JSON_MAX, &input, err);
    if (code != MR_OK && err) snprintf(err->field, sizeof err->field, "json");
  }
  return code == MR_OK ? mr_call_doc(rt, req, input, cbs, ud, op, err) : code;
}
