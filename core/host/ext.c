/*
 * ext.c - the table of moonrig_ext.h, what its files share, and the members that are a line each.
 *
 * Services for bindings only: nothing here has state of its own but the table of numbers by which the host
 * knows its timers, requests and watches.
 */
#include "host/ext_t.h"
#include "ops/ops.h"

/* ---- numbers ---- */

int mr_ext_set_new(struct mr_runtime *rt)
{
  rt->ext = mr_mem_zalloc(mr_rt_mem(rt), sizeof *rt->ext);
  if (!rt->ext) return MR_E_NOMEM;
  pthread_mutex_init(&rt->ext->lock, NULL);
  return MR_OK;
}

void mr_ext_set_free(struct mr_runtime *rt)
{
  if (!rt->ext) return;
  pthread_mutex_destroy(&rt->ext->lock);
  mr_mem_free(mr_rt_mem(rt), rt->ext->ids);
  mr_mem_free(mr_rt_mem(rt), rt->ext);
  rt->ext = NULL;
}

void mr_ext_set_close(struct mr_runtime *rt)
{
  struct mr_ext_set *x = rt->ext;

  mr_watches_end(rt);
  pthread_mutex_lock(&x->lock);
  for (uint32_t i = 0; i < x->n; i++)
    if (x->ids[i].kind == MR_EXT_TIMER)
      mr_timer_end(x->ids[i].obj);
    else if (x->ids[i].kind == MR_EXT_FD)
      mr_waiter_end(x->ids[i].obj);
  pthread_mutex_unlock(&x->lock);
  mr_dbs_end(rt);
}

static int grow(struct mr_runtime *rt)
{
  struct mr_ext_set *x = rt->ext;
  uint32_t cap = x->cap ? x->cap * 2 : 64;
  struct mr_ext_id *ids = cap > MR_EXT_MAX ? NULL : mr_mem_realloc(mr_rt_mem(rt), x->ids, cap * sizeof *ids);

  if (!ids) return MR_E_NOMEM;
  memset(ids + x->cap, 0, (cap - x->cap) * sizeof *ids);
  x->ids = ids;
  x->cap = cap;
  return MR_OK;
}

uint64_t mr_ext_put(struct mr_runtime *rt, enum mr_ext_kind kind, void *obj)
{
  struct mr_ext_set *x = rt->ext;
  uint32_t i;

  if (x->free) {
    i = x->free - 1;
    x->free = x->ids[i].next_free;
  } else {
    if (x->n == x->cap && grow(rt) != MR_OK) return 0;
    i = x->n++;
  }
  x->ids[i].kind = kind;
  x->ids[i].obj = obj;
  x->ids[i].uses++;
  return (uint64_t)x->ids[i].uses << 32 | (i + 1);
}

void *mr_ext_get(struct mr_runtime *rt, enum mr_ext_kind kind, uint64_t id)
{
  struct mr_ext_set *x = rt->ext;
  uint32_t i = (uint32_t)id - 1;

  if (i >= x->n || x->ids[i].kind != kind || x->ids[i].uses != (uint32_t)(id >> 32)) return NULL;
  return x->ids[i].obj;
}

void mr_ext_drop(struct mr_runtime *rt, uint64_t id)
{
  struct mr_ext_set *x = rt->ext;
  uint32_t i = (uint32_t)id - 1;

  x->ids[i].kind = MR_EXT_NONE;
  x->ids[i].obj = NULL;
  x->ids[i].next_free = x->free;
  x->free = i + 1;
}

int mr_ext_check(struct mr_runtime *rt, struct mr_err *err)
{
  int code = mr_rt_check(rt, err);

  if (code == MR_OK && atomic_load(&rt->closing))
    code = mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
  return code;
}

/* ---- documents ---- */

struct mr_doc *mr_doc_new(struct mr_runtime *rt, yyjson_doc *doc)
{
  struct mr_doc *d = mr_mem_alloc(mr_rt_mem(rt), sizeof *d);

  if (!d) {
    yyjson_doc_free(doc);
    return NULL;
  }
  mr_rt_ref(rt);
  d->rt = rt;
  d->doc = doc;
  return d;
}

yyjson_doc *mr_doc_take(struct mr_doc **dp)
{
  struct mr_doc *d = *dp;
  struct mr_runtime *rt;
  yyjson_doc *doc;

  if (!d) return NULL;
  *dp = NULL;
  rt = d->rt;
  doc = d->doc;
  mr_mem_free(mr_rt_mem(rt), d);
  mr_rt_unref(rt);
  return doc;
}

/* ---- calls and answers with documents ---- */

static yyjson_val *root_of(struct mr_doc **doc)
{
  return doc && *doc ? yyjson_doc_get_root((*doc)->doc) : NULL;
}

static void drop_doc(struct mr_doc **doc)
{
  if (!doc) return;
  mr_x_doc_free(*doc);
  *doc = NULL;
}

static int x_call(struct mr_runtime *rt, const struct mr_req *req, struct mr_doc **doc,
                  const struct mr_callbacks *cbs, void *ud, struct mr_op **op, struct mr_err *err)
{
  int code = mr_rt_check(rt, err);

  if (op) *op = NULL;
  if (code == MR_OK && (!req || req->size < offsetof(struct mr_req, caller)))
    code = mr_err_set(err, MR_E_INVALID, "size", "size: set req.size to sizeof(struct mr_req)");
  if (code == MR_OK) return mr_call_doc(rt, req, doc ? mr_doc_take(doc) : NULL, cbs, ud, op, err);
  drop_doc(doc);
  return code;
}

static int x_use_finish(struct mr_use **u, struct mr_doc **doc)
{
  int code = u && *u ? mr_use_finish_val(u, root_of(doc)) : MR_E_INVALID;
  drop_doc(doc);
  return code;
}

static int x_hook_decide(struct mr_hook_call **c, struct mr_doc **doc)
{
  int code = c && *c ? mr_hook_decide_val(c, root_of(doc)) : MR_E_INVALID;
  drop_doc(doc);
  return code;
}

static int x_model_finish(struct mr_model_use **u, struct mr_doc **doc)
{
  int code = u && *u ? mr_model_finish_val(u, root_of(doc)) : MR_E_INVALID;
  drop_doc(doc);
  return code;
}

static const char *x_op_at(int index, const char **verb, const char **path, unsigned *flags)
{
  const struct mr_opdef *d = mr_op_at(index);

  if (!d) return NULL;
  *verb = d->verb;
  *path = d->path;
  *flags = (d->kind == MR_OP_EVENTS ? MR_OPF_STREAM : 0) | (d->kind == MR_OP_BODY_IN ? MR_OPF_BODY_IN : 0) |
           (d->kind == MR_OP_BODY_OUT ? MR_OPF_BODY_OUT : 0) | (d->flags & MR_OP_LIST ? MR_OPF_LIST : 0) |
           (d->flags & MR_OP_TODO ? MR_OPF_TODO : 0);
  return d->name;
}

static const char *x_op_beta(int index)
{
  const struct mr_opdef *d = mr_op_at(index);
  return d ? d->beta : NULL;
}

static int64_t x_now_us(struct mr_runtime *rt)
{
  return mr_mono_us(&rt->sys);
}
static int64_t x_wall_us(struct mr_runtime *rt)
{
  return mr_wall_us(&rt->sys);
}

static void x_log(struct mr_runtime *rt, int level, const char *source, struct mr_str line)
{
  if (mr_rt_check(rt, NULL) == MR_OK)
    mr_log(&rt->sys, level, source && source[0] ? source : "host", MR_FMT, MR_ARG(line));
}

const struct mr_ext *mr_ext(void)
{
  static const struct mr_ext table = {.size = sizeof table,
                                      .kind = mr_x_kind,
                                      .as_bool = mr_x_as_bool,
                                      .as_int = mr_x_as_int,
                                      .as_uint = mr_x_as_uint,
                                      .as_real = mr_x_as_real,
                                      .as_str = mr_x_as_str,
                                      .len = mr_x_len,
                                      .get = mr_x_get,
                                      .next = mr_x_next,
                                      .parse = mr_x_parse,
                                      .doc_root = mr_x_doc_root,
                                      .doc_free = mr_x_doc_free,
                                      .write = mr_x_write,
                                      .build = mr_x_build,
                                      .b_null = mr_x_b_null,
                                      .b_bool = mr_x_b_bool,
                                      .b_int = mr_x_b_int,
                                      .b_real = mr_x_b_real,
                                      .b_str = mr_x_b_str,
                                      .b_key = mr_x_b_key,
                                      .b_open = mr_x_b_open,
                                      .b_close = mr_x_b_close,
                                      .b_val = mr_x_b_val,
                                      .build_done = mr_x_build_done,
                                      .build_drop = mr_x_build_drop,
                                      .call = x_call,
                                      .use_finish = x_use_finish,
                                      .hook_decide = x_hook_decide,
                                      .model_finish = x_model_finish,
                                      .op_at = x_op_at,
                                      .now_us = x_now_us,
                                      .wall_us = x_wall_us,
                                      .timer = mr_x_timer,
                                      .timer_cancel = mr_x_timer_cancel,
                                      .post = mr_x_post,
                                      .http = mr_x_http,
                                      .http_cancel = mr_x_http_cancel,
                                      .http_pause = mr_x_http_pause,
                                      .op_beta = x_op_beta,
                                      .file = mr_x_file,
                                      .watch = mr_x_watch,
                                      .watch_cancel = mr_x_watch_cancel,
                                      .log = x_log,
                                      .set_generation = mr_x_set_generation,
                                      .set_scripts = mr_x_set_scripts,
                                      .use_input_drop = mr_use_input_drop,
                                      .on_control = mr_x_on_control,
                                      .control_done = mr_x_control_done,
                                      .readable = mr_x_readable,
                                      .readable_cancel = mr_x_readable_cancel,
                                      .digest = mr_x_digest,
                                      .random = mr_x_random,
                                      .db_open = mr_x_db_open,
                                      .db_run = mr_x_db_run,
                                      .db_cancel = mr_x_db_cancel,
                                      .db_close = mr_x_db_close,
                                      .kv = mr_x_kv};
  return &table;
}
