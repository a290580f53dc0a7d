/*
 * ext_kv.c - durable values for bindings: one request, checked here on the calling thread, carried to the
 * loop, carried out by the store there, answered through the queue once it is on disk.
 *
 * What it is not for: documents and sessions, which have operations. All keys are in the workspace of the
 * host's own calls.
 *
 * Invariant: the request belongs to the caller, then to its post, to the store's callback and to its entry,
 * one after the other; done comes exactly once after mr_x_kv returned MR_OK, also when the runtime closes.
 */
#include "host/ext_t.h"

enum { SPACE_MAX = 64, KEY_MAX = 512, VALUE_MAX = 1 << 20, LIST_DFLT = 100, LIST_MAX = 1000 };
static const int64_t TTL_MAX_US = INT64_C(100) * 365 * 86400 * 1000000;

struct request {
  struct mr_post post;
  struct mr_entry entry;
  struct mr_runtime *rt;
  void (*start)(struct request *q, int64_t ws);
  struct mr_str space, key, after, value; /* in the arena, as this */
  struct mr_arena *arena;
  int limit;
  int64_t ttl_us, expect;
  void (*done)(void *ud, const struct mr_reply *r);
  void *ud;
  int code;
  struct mr_err err;
  struct mr_buf json; /* the answer */
};

static void request_free(struct request *q)
{
  struct mr_arena *a;

  if (!q) return;
  mr_buf_free(&q->json);
  a = q->arena;
  mr_arena_free(&a);
}

/* ---- the answer ---- */

static void run_done(struct mr_entry *e)
{
  struct request *q = MR_OF(e, struct request, entry);
  struct mr_runtime *rt = q->rt;
  struct mr_reply r = {.size = sizeof r};
  yyjson_doc *doc = NULL;

  if (q->code == MR_OK) q->code = mr_json_parse(mr_rt_mem(rt), mr_buf_get(&q->json), SIZE_MAX, &doc, &q->err);
  r.code = q->code;
  if (q->code == MR_OK) {
    r.json = mr_buf_get(&q->json);
    r.val = (const struct mr_val *)yyjson_doc_get_root(doc);
  } else {
    r.err = &q->err;
  }
  q->done(q->ud, &r);
  yyjson_doc_free(doc);
  request_free(q);
  mr_queue_release(&rt->queue);
}

static void answer(struct request *q, int code, const struct mr_err *err)
{
  if (code == MR_OK && q->json.failed)
    code = mr_err_set(&q->err, q->json.failed, NULL, "the answer is too large");
  if (code != MR_OK && err) mr_err_copy(&q->err, err);
  if (code != MR_OK && q->err.code == MR_OK) mr_err_set(&q->err, code, NULL, "%s", mr_strerror(code));
  q->code = code;
  mr_queue_push(&q->rt->queue, &q->entry);
}

/* ---- on the loop ---- */

static void write_row(struct mr_jw *w, const struct mr_kv_row *r, bool with_key)
{
  mr_jw_obj(w);
  if (with_key) mr_jw_kstr(w, "key", r->key);
  mr_jw_kraw(w, "value", r->value);
  mr_jw_kint(w, "rev", r->rev);
  if (r->expires_us) mr_jw_ktime(w, "expires_at", r->expires_us);
  mr_jw_obj_end(w);
}

static void on_get(void *ud, const struct mr_rows *r)
{
  struct request *q = ud;
  struct mr_jw w;

  if (r->code == MR_OK) {
    mr_jw_init(&w, &q->json);
    write_row(&w, &r->kv[0], false);
  }
  answer(q, r->code, r->err);
}

static void on_list(void *ud, const struct mr_rows *r)
{
  struct request *q = ud;
  struct mr_jw w;

  mr_jw_init(&w, &q->json);
  mr_jw_obj(&w);
  mr_jw_key(&w, "data");
  mr_jw_arr(&w);
  for (int i = 0; i < r->n; i++)
    write_row(&w, &r->kv[i], true);
  mr_jw_arr_end(&w);
  mr_jw_key(&w, "more");
  mr_jw_bool(&w, r->more);
  mr_jw_obj_end(&w);
  answer(q, r->code, r->err);
}

static void on_written(void *ud, const struct mr_commit_result *r)
{
  struct request *q = ud;

  mr_buf_printf(&q->json, "{\"rev\":%lld}", (long long)r->rev);
  answer(q, r->code, r->err);
}

static void start_get(struct request *q, int64_t ws)
{
  mr_read_kv(q->rt->store, ws, q->space, q->key, on_get, q);
}

static void start_list(struct request *q, int64_t ws)
{
  mr_read_kvs(q->rt->store, ws, q->space, q->key, q->after, q->limit, on_list, q);
}

static void start_write(struct request *q, int64_t ws)
{
  struct mr_commit *c = mr_commit_new(q->rt->store, &(struct mr_origin){.workspace = ws});
  struct mr_kv_row row = {.space = q->space, .key = q->key, .value = q->value};

  if (!c) {
    answer(q, MR_E_NOMEM, NULL);
    return;
  }
  if (q->ttl_us) row.expires_us = mr_wall_us(&q->rt->sys) + q->ttl_us;
  if (q->value.p)
    mr_commit_kv_put(c, &row, q->expect);
  else
    mr_commit_kv_delete(c, q->space, q->key, q->expect);
  mr_commit_label(c, "kv.write");
  mr_commit_submit(&c, on_written, q);
}

static void on_post(struct mr_post *p)
{
  struct request *q = MR_OF(p, struct request, post);
  int64_t ws = 0;
  int code = q->rt->store ? mr_store_workspace(q->rt->store, MR_S("default"), &ws, &q->err) : MR_E_CLOSED;

  if (code == MR_OK)
    q->start(q, ws);
  else
    answer(q, code, NULL);
}

/* ---- the caller's side ---- */

static int check_text(struct mr_str s, size_t least, size_t most, const char *field, struct mr_err *err)
{
  if (s.n < least || s.n > most)
    return mr_err_set(err, MR_E_INVALID, field, "%s: %d to %d bytes, this has %zu", field, (int)least,
                      (int)most, s.n);
  return mr_utf8_valid(s) ? MR_OK : mr_err_set(err, MR_E_INVALID, field, "%s: must be UTF-8", field);
}

static int check(const struct mr_ext_kv *k, bool list, struct mr_err *err)
{
  int code = check_text(k->space, 1, SPACE_MAX, "space", err);

  if (code == MR_OK) code = check_text(k->key, list ? 0 : 1, KEY_MAX, list ? "prefix" : "key", err);
  if (code == MR_OK) code = check_text(k->after, 0, KEY_MAX, "after", err);
  if (code != MR_OK) return code;
  if (k->limit < 0 || k->limit > LIST_MAX)
    return mr_err_set(err, MR_E_INVALID, "limit", "limit: 1 to %d, or 0 for %d", LIST_MAX, LIST_DFLT);
  if (k->ttl_us < 0 || k->ttl_us > TTL_MAX_US)
    return mr_err_set(err, MR_E_INVALID, "ttl", "ttl: more than 0, at most 100 years; leave it out for ever");
  if (k->expect < -1)
    return mr_err_set(err, MR_E_INVALID, "expect", "expect: -1 for anything, 0 for nothing, or a rev");
  return MR_OK;
}

static int read_value(struct request *q, struct mr_doc *doc, struct mr_err *err)
{
  struct mr_buf b;
  int code = MR_OK;

  if (!doc) return mr_err_set(err, MR_E_INVALID, "value", "value: put needs one");
  mr_buf_init(&b, mr_rt_mem(q->rt), VALUE_MAX);
  mr_json_write(&b, yyjson_doc_get_root(doc->doc), false);
  if (b.failed == MR_E_TOO_LARGE)
    code = mr_err_set(err, MR_E_TOO_LARGE, "value", "value: over the limit of 1 MiB as JSON");
  else if (b.failed || !(q->value = mr_arena_str(q->arena, mr_buf_get(&b))).p)
    code = mr_err_nomem(err);
  mr_buf_free(&b);
  return code;
}

static struct request *request_new(struct mr_runtime *rt, const struct mr_ext_kv *k)
{
  const struct mr_mem *m = mr_rt_mem(rt);
  struct mr_arena *a = mr_arena_new(m, 1024);
  struct request *q = a ? mr_arena_alloc(a, sizeof *q) : NULL;

  if (!q) {
    mr_arena_free(&a);
    return NULL;
  }
  q->rt = rt;
  q->arena = a;
  q->space = mr_arena_str(a, k->space);
  q->key = mr_arena_str(a, k->key);
  q->after = mr_arena_str(a, k->after);
  q->limit = k->limit ? k->limit : LIST_DFLT;
  q->ttl_us = k->ttl_us;
  q->expect = k->expect;
  q->post.fn = on_post;
  q->entry.run = run_done;
  mr_buf_init(&q->json, m, MR_HOST_JSON_MAX);
  if (q->space.p && q->key.p && q->after.p) return q;
  request_free(q);
  return NULL;
}

static void (*find_op(const char *op))(struct request *q, int64_t ws)
{
  if (op && strcmp(op, "get") == 0) return start_get;
  if (op && strcmp(op, "list") == 0) return start_list;
  return op && (strcmp(op, "put") == 0 || strcmp(op, "delete") == 0) ? start_write : NULL;
}

static int submit(struct request *q, struct mr_err *err)
{
  struct mr_runtime *rt = q->rt;
  int code = mr_queue_reserve(&rt->queue);

  if (code != MR_OK) return mr_err_set(err, code, NULL, "too many calls at once: dispatch, then try again");
  code = mr_rt_post(rt, &q->post);
  if (code == MR_OK) return MR_OK;
  mr_queue_release(&rt->queue);
  return mr_err_set(err, code, NULL, "the runtime is closing");
}

int mr_x_kv(struct mr_runtime *rt, const struct mr_ext_kv *k, struct mr_doc **value,
            void (*done)(void *ud, const struct mr_reply *r), void *ud, struct mr_err *err)
{
  struct mr_doc *doc = value ? *value : NULL;
  struct request *q = NULL;
  int code = mr_ext_check(rt, err);

  if (value) *value = NULL;
  if (code == MR_OK && (!k || k->size < sizeof *k))
    code = mr_err_set(err, MR_E_INVALID, "size", "size: set it to sizeof(struct mr_ext_kv)");
  if (code == MR_OK && (!find_op(k->op) || !done))
    code = mr_err_set(err, MR_E_INVALID, "op", "op: get, put, delete or list, and done");
  if (code == MR_OK) code = check(k, strcmp(k->op, "list") == 0, err);
  if (code == MR_OK && !(q = request_new(rt, k))) code = mr_err_nomem(err);
  if (code == MR_OK) {
    q->start = find_op(k->op);
    q->done = done;
    q->ud = ud;
    if (strcmp(k->op, "put") == 0) code = read_value(q, doc, err);
  }
  if (code == MR_OK) code = submit(q, err);
  if (code != MR_OK) request_free(q);
  if (doc) mr_x_doc_free(doc);
  return code;
}
