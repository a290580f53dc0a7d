/*
 * fake_host - a small stand-in for the runtime, for tests of core/script alone: both public headers over
 * one queue, a clock that jumps, real files, and no domain. Lua tests steer it through `require "host"`:
 * they answer operations, inject tool uses, hook calls and model requests, complete things late, and ask
 * what is still open.
 *
 * One thread, except ext->post. Test code: it has writable statics and uses malloc.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>
#include "fake_host.h"
#include "moonrig_ext.h"

#define V(v) ((yyjson_val *)(v))

/* ------------------------------------------------------------------- queue */

struct entry { struct entry *next; void (*fn)(void *a, void *b); void *a, *b; };
static struct entry *head, *tail;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t now_us = 1000000, wall0 = 1700000000000000;
static int in_dispatch, opened;
static lua_State *L0;
static host_stats_fn stats_fn;

static void push(void (*fn)(void *, void *), void *a, void *b)
{
  struct entry *e = calloc(1, sizeof *e);
  e->fn = fn, e->a = a, e->b = b;
  pthread_mutex_lock(&lock);
  if (tail) tail->next = e; else head = e;
  tail = e;
  pthread_mutex_unlock(&lock);
}

static struct entry *pop(void)
{
  pthread_mutex_lock(&lock);
  struct entry *e = head;
  if (e) head = e->next;
  if (!head) tail = NULL;
  pthread_mutex_unlock(&lock);
  return e;
}

struct timer { struct timer *next; uint64_t id; int64_t at; void (*fn)(void *); void *ud; };
static struct timer *timers;
static uint64_t next_id = 1;

static int fire_next(int64_t limit)
{
  struct timer **best = NULL;
  for (struct timer **t = &timers; *t; t = &(*t)->next)
    if (!best || (*t)->at < (*best)->at) best = t;
  if (!best || (*best)->at > limit) return 0;
  struct timer *t = *best;
  *best = t->next;
  if (t->at > now_us) now_us = t->at;
  push((void (*)(void *, void *))t->fn, t->ud, NULL);
  free(t);
  return 1;
}

int mr_dispatch(struct mr_runtime *rt, int max, int64_t budget_us)
{
  (void)rt, (void)budget_us;
  if (in_dispatch) return MR_E_REENTRANT;
  in_dispatch = 1;
  now_us += 10;
  while (fire_next(now_us)) continue;
  int n = 0;
  struct entry *e, *stop = tail;
  while ((!max || n++ < max) && (e = pop()) != NULL) {
    int last = e == stop;
    e->fn(e->a, e->b);
    free(e);
    if (last) break;
  }
  in_dispatch = 0;
  return head ? MR_MORE : MR_OK;
}

int mr_wait(struct mr_runtime *rt, int timeout_ms)
{
  (void)rt;
  if (head) return MR_OK;
  if (fire_next(timeout_ms < 0 ? INT64_MAX : now_us + timeout_ms * 1000LL)) return MR_OK;
  if (timeout_ms >= 0) {
    now_us += timeout_ms * 1000LL;
    return MR_E_TIMEOUT;
  }
  for (int i = 0; i < 3000 && !head; i++) usleep(1000);
  if (head) return MR_OK;
  printf("not ok deadlock: nothing waits and nothing will\n");
  fflush(stdout);
  _exit(9);
}

int mr_fd(const struct mr_runtime *rt) { (void)rt; return -1; }

/* ------------------------------------------------------------------- JSON */

struct mr_build {
  yyjson_mut_doc *doc;
  struct { yyjson_mut_val *v, *key; } stack[600];
  int depth, failed;
};
struct mr_doc { yyjson_doc *doc; };
static int docs, builds, texts;

static enum mr_kind kind(const struct mr_val *v)
{
  switch (yyjson_get_type(V(v))) {
  case YYJSON_TYPE_NULL: return MR_K_NULL;
  case YYJSON_TYPE_BOOL: return MR_K_BOOL;
  case YYJSON_TYPE_NUM:
    if (yyjson_is_real(V(v))) return MR_K_REAL;
    return yyjson_is_uint(V(v)) && yyjson_get_uint(V(v)) > INT64_MAX ? MR_K_UINT : MR_K_INT;
  case YYJSON_TYPE_STR: return MR_K_STR;
  case YYJSON_TYPE_ARR: return MR_K_ARR;
  case YYJSON_TYPE_OBJ: return MR_K_OBJ;
  default: return MR_K_NONE;
  }
}
static int as_bool(const struct mr_val *v) { return yyjson_get_bool(V(v)); }
static int64_t as_int(const struct mr_val *v) { return yyjson_get_sint(V(v)); }
static uint64_t as_uint(const struct mr_val *v) { return yyjson_get_uint(V(v)); }
static double as_real(const struct mr_val *v) { return yyjson_get_num(V(v)); }
static struct mr_str as_str(const struct mr_val *v)
{
  return (struct mr_str){yyjson_get_str(V(v)), yyjson_get_len(V(v))};
}
static size_t len(const struct mr_val *v) { return yyjson_is_ctn(V(v)) ? yyjson_get_len(V(v)) : 0; }
static const struct mr_val *get(const struct mr_val *o, struct mr_str k)
{
  return (const struct mr_val *)yyjson_obj_getn(V(o), k.p, k.n);
}
static int next(struct mr_iter *it)
{
  yyjson_val *c = V(it->of), *at = it->priv[0];
  size_t i = (size_t)it->priv[1];
  if (!yyjson_is_ctn(c) || i >= yyjson_get_len(c)) return 0;
  at = at ? at : unsafe_yyjson_get_first(c);
  if (yyjson_is_obj(c)) {
    it->key = (struct mr_str){yyjson_get_str(at), yyjson_get_len(at)};
    it->val = (const struct mr_val *)(at + 1);
    it->priv[0] = unsafe_yyjson_get_next(at + 1);
  } else {
    it->val = (const struct mr_val *)at;
    it->priv[0] = unsafe_yyjson_get_next(at);
  }
  it->priv[1] = (void *)(i + 1);
  return 1;
}
static int fail(struct mr_err *err, int code, const char *msg)
{
  if (err) {
    memset(err, 0, sizeof *err);
    err->size = sizeof *err;
    err->code = code;
    snprintf(err->message, sizeof err->message, "%s", msg);
  }
  return code;
}
static int parse(struct mr_runtime *rt, struct mr_str json, struct mr_doc **out, struct mr_err *err)
{
  yyjson_read_err e;
  char msg[200];
  int depth = 0;
  (void)rt;
  for (size_t i = 0; i < json.n; i++) {
    depth += json.p[i] == '[' || json.p[i] == '{' ? 1 : json.p[i] == ']' || json.p[i] == '}' ? -1 : 0;
    if (depth > 512) return fail(err, MR_E_INVALID, "nested too deep");
  }
  yyjson_doc *d = yyjson_read_opts((char *)json.p, json.n, 0, NULL, &e);
  if (!d) {
    snprintf(msg, sizeof msg, "%s at byte %zu", e.msg, e.pos);
    return fail(err, MR_E_INVALID, msg);
  }
  *out = calloc(1, sizeof **out);
  (*out)->doc = d;
  docs++;
  return MR_OK;
}
static const struct mr_val *doc_root(const struct mr_doc *d)
{
  return d ? (const struct mr_val *)yyjson_doc_get_root(d->doc) : NULL;
}
static void doc_free(struct mr_doc *d)
{
  if (!d) return;
  docs--;
  yyjson_doc_free(d->doc);
  free(d);
}
static int write_json(struct mr_runtime *rt, const struct mr_val *v, unsigned flags, char **out, size_t *n)
{
  (void)rt;
  *out = yyjson_val_write(V(v), flags & MR_JSON_PRETTY ? YYJSON_WRITE_PRETTY : 0, n);
  if (*out) texts++;
  return *out ? MR_OK : MR_E_INVALID;
}
void mr_free(struct mr_runtime *rt, void *p)
{
  (void)rt;
  if (p) texts--;
  free(p);
}
static struct mr_build *build(struct mr_runtime *rt)
{
  (void)rt;
  struct mr_build *b = calloc(1, sizeof *b);
  b->doc = yyjson_mut_doc_new(NULL);
  builds++;
  return b;
}
static void put(struct mr_build *b, yyjson_mut_val *v)
{
  if (!b->depth) {
    yyjson_mut_doc_set_root(b->doc, v);
  } else if (yyjson_mut_is_arr(b->stack[b->depth - 1].v)) {
    yyjson_mut_arr_append(b->stack[b->depth - 1].v, v);
  } else {
    if (!b->stack[b->depth - 1].key) b->failed = 1;
    else yyjson_mut_obj_add(b->stack[b->depth - 1].v, b->stack[b->depth - 1].key, v);
    b->stack[b->depth - 1].key = NULL;
  }
}
static int utf8(struct mr_str s)
{
  yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
  yyjson_mut_doc_set_root(d, yyjson_mut_strn(d, s.p, s.n));
  char *t = yyjson_mut_write(d, 0, NULL);
  int ok = t != NULL;
  free(t);
  yyjson_mut_doc_free(d);
  return ok;
}
static void b_null(struct mr_build *b) { put(b, yyjson_mut_null(b->doc)); }
static void b_bool(struct mr_build *b, int v) { put(b, yyjson_mut_bool(b->doc, v)); }
static void b_int(struct mr_build *b, int64_t v) { put(b, yyjson_mut_sint(b->doc, v)); }
static void b_real(struct mr_build *b, double v)
{
  if (v != v || v > 1.7e308 || v < -1.7e308) b->failed = 2;
  put(b, yyjson_mut_real(b->doc, v));
}
static void b_str(struct mr_build *b, struct mr_str v)
{
  if (!utf8(v)) b->failed = 1;
  put(b, yyjson_mut_strncpy(b->doc, v.p ? v.p : "", v.n));
}
static void b_key(struct mr_build *b, struct mr_str k)
{
  if (!utf8(k)) b->failed = 1;
  b->stack[b->depth - 1].key = yyjson_mut_strncpy(b->doc, k.p, k.n);
}
static void b_open(struct mr_build *b, int arr)
{
  yyjson_mut_val *v = arr ? yyjson_mut_arr(b->doc) : yyjson_mut_obj(b->doc);
  put(b, v);
  b->stack[b->depth].key = NULL;
  b->stack[b->depth++].v = v;
}
static void b_close(struct mr_build *b) { b->depth--; }
static void b_val(struct mr_build *b, const struct mr_val *v) { put(b, yyjson_val_mut_copy(b->doc, V(v))); }
static void build_drop(struct mr_build **b)
{
  if (!*b) return;
  builds--;
  yyjson_mut_doc_free((*b)->doc);
  free(*b);
  *b = NULL;
}
static int build_done(struct mr_build **pb, struct mr_doc **out, struct mr_err *err)
{
  struct mr_build *b = *pb;
  int failed = b->failed;
  yyjson_doc *d = failed ? NULL : yyjson_mut_doc_imut_copy(b->doc, NULL);
  build_drop(pb);
  if (!d) return fail(err, MR_E_INVALID, failed == 2 ? "not a finite number" : "a string is not UTF-8");
  *out = calloc(1, sizeof **out);
  (*out)->doc = d;
  docs++;
  return MR_OK;
}
static char *doc_text(const struct mr_doc *d)
{
  return d ? yyjson_val_write(yyjson_doc_get_root(d->doc), 0, NULL) : NULL;
}

/* ---------------------------------------------------------------- operations */

struct mr_op { struct call *c; int released; };
struct call {
  struct call *next;
  uint64_t id;
  char op[80];
  struct mr_doc *params;
  struct mr_callbacks cbs;
  struct mr_ext_http_cbs http;
  void *ud;
  struct mr_op *handle;
  int is_http, settled, cancelled;
  char *json;
  struct mr_err err;
  char *body;
};
static struct call *calls;
static int ops_alive;

static void free_call(struct call *c)
{
  struct call **at = &calls;
  while (*at != c) at = &(*at)->next;
  *at = c->next;
  if (c->handle) c->handle->c = NULL;
  doc_free(c->params);
  free(c->json);
  free(c->body);
  free(c);
}

static void deliver(void *a, void *b)
{
  struct call *c = a;
  struct mr_doc *doc = NULL;
  (void)b;
  if (c->json) parse(NULL, (struct mr_str){c->json, strlen(c->json)}, &doc, NULL);
  if (c->is_http) {
    struct mr_ext_http_reply r = {.size = sizeof r, .code = c->err.code, .err = c->err.code ? &c->err : NULL};
    const struct mr_val *root = doc_root(doc);
    if (!r.code) {
      r.status = (int)as_int(get(root, (struct mr_str){"status", 6}));
      r.body = as_str(get(root, (struct mr_str){"body", 4}));
      r.headers = as_str(get(root, (struct mr_str){"headers", 7}));
    }
    c->http.done(c->ud, &r);
  } else {
    struct mr_reply r = {.size = sizeof r, .code = c->err.code, .err = c->err.code ? &c->err : NULL};
    if (c->body) c->cbs.body(c->ud, (struct mr_str){c->body, strlen(c->body)});
    r.val = doc_root(doc);
    c->cbs.reply(c->ud, &r);
  }
  doc_free(doc);
  free_call(c);
}

static void settle(struct call *c, const char *json, int code, const char *msg, int status, const char *type)
{
  if (c->settled) return;
  c->settled = 1;
  if (json) c->json = strdup(json);
  if (code) {
    fail(&c->err, code, msg);
    c->err.http_status = status;
    snprintf(c->err.type, sizeof c->err.type, "%s", type);
  }
  push(deliver, c, NULL);
}

static void push_json(lua_State *L, const char *fn)
{
  lua_getfield(L, LUA_REGISTRYINDEX, "host.json");
  lua_getfield(L, -1, fn);
  lua_remove(L, -2);
}

/* Runs the test's handler of this operation: function(params, id) -> value | nil, err | host.LATER */
static void ask_test(void *a, void *b)
{
  struct call *c = a;
  lua_State *L = L0;
  int top = lua_gettop(L);
  (void)b;
  if (c->settled) return;
  lua_getfield(L, LUA_REGISTRYINDEX, "host.ops");
  lua_getfield(L, -1, c->op);
  if (lua_isnil(L, -1)) {
    char msg[160];
    snprintf(msg, sizeof msg, "the test has no operation %s", c->op);
    settle(c, NULL, MR_E_NOTFOUND, msg, 404, "not_found_error");
    lua_settop(L, top);
    return;
  }
  push_json(L, "decode");
  char *text = doc_text(c->params);
  lua_pushstring(L, text);
  free(text);
  lua_call(L, 1, 1);
  lua_pushnumber(L, (lua_Number)c->id);
  if (lua_pcall(L, 2, 2, 0)) {
    settle(c, NULL, MR_E_INTERNAL, lua_tostring(L, -1), 500, "api_error");
  } else if (lua_isnil(L, -2)) {
    lua_getfield(L, -1, "message");
    lua_getfield(L, -2, "status");
    lua_getfield(L, -3, "type");
    lua_getfield(L, -4, "code");
    settle(c, NULL, lua_isnil(L, -1) ? MR_E_INVALID : (int)lua_tonumber(L, -1), lua_tostring(L, -4),
           (int)lua_tonumber(L, -3), lua_isnil(L, -2) ? "" : lua_tostring(L, -2));
  } else if (!lua_islightuserdata(L, -2) || lua_touserdata(L, -2) != (void *)&L0) {
    if (lua_type(L, -1) == LUA_TSTRING) c->body = strdup(lua_tostring(L, -1));
    push_json(L, "encode");
    lua_pushvalue(L, -3);
    lua_call(L, 1, 1);
    settle(c, lua_tostring(L, -1), 0, NULL, 0, NULL);
  }
  lua_settop(L, top);
}

static struct call *new_call(const char *op, struct mr_doc *params, void *ud)
{
  struct call *c = calloc(1, sizeof *c);
  c->id = next_id++;
  snprintf(c->op, sizeof c->op, "%s", op);
  c->params = params;
  c->ud = ud;
  c->next = calls;
  calls = c;
  return c;
}

static int full; /* the next calls answer MR_E_FULL */

static int ext_call(struct mr_runtime *rt, const struct mr_req *req, struct mr_doc **doc,
                    const struct mr_callbacks *cbs, void *ud, struct mr_op **op, struct mr_err *err)
{
  (void)rt;
  if (full) {
    doc_free(*doc);
    *doc = NULL;
    return fail(err, MR_E_FULL, "the queue is full");
  }
  struct call *c = new_call(req->op, *doc, ud);
  *doc = NULL;
  c->cbs = *cbs;
  if (req->body) {
    char buf[7], all[4096];
    int64_t n;
    size_t k = 0;
    while ((n = req->body->read(req->body->ud, buf, sizeof buf)) > 0 && k + (size_t)n < sizeof all) {
      memcpy(all + k, buf, (size_t)n);
      k += (size_t)n;
    }
    all[k] = 0;
    yyjson_mut_doc *m = yyjson_doc_mut_copy(c->params->doc, NULL);
    yyjson_mut_obj_add_strcpy(m, m->root, "_body", all);
    yyjson_mut_obj_add_strcpy(m, m->root, "_filename", req->body->filename ? req->body->filename : "");
    yyjson_mut_obj_add_strcpy(m, m->root, "_media_type", req->body->media_type ? req->body->media_type : "");
    yyjson_doc_free(c->params->doc);
    c->params->doc = yyjson_mut_doc_imut_copy(m, NULL);
    yyjson_mut_doc_free(m);
  }
  struct mr_op *h = calloc(1, sizeof *h);
  ops_alive++;
  h->c = c;
  c->handle = h;
  *op = h;
  push(ask_test, c, NULL);
  return MR_OK;
}
void mr_op_cancel(struct mr_op *op)
{
  if (!op || !op->c) return;
  op->c->cancelled = 1;
  settle(op->c, NULL, MR_E_CANCELLED, "cancelled", 0, "");
}
void mr_op_release(struct mr_op *op)
{
  if (!op) return;
  if (op->c) op->c->handle = NULL;
  ops_alive--;
  free(op);
}

static const char *op_at(int i, const char **verb, const char **path, unsigned *flags)
{
  static const struct { const char *name, *verb, *path; unsigned flags; } ops[] = {
      {"agents.create", "POST", "/v1/agents", 0},
      {"agents.retrieve", "GET", "/v1/agents/{agent_id}", 0},
      {"agents.update", "POST", "/v1/agents/{agent_id}", 0},
      {"agents.list", "GET", "/v1/agents", MR_OPF_LIST},
      {"environments.create", "POST", "/v1/environments", 0},
      {"environments.update", "POST", "/v1/environments/{environment_id}", 0},
      {"environments.list", "GET", "/v1/environments", MR_OPF_LIST},
      {"sessions.create", "POST", "/v1/sessions", 0},
      {"sessions.retrieve", "GET", "/v1/sessions/{session_id}", 0},
      {"sessions.list", "GET", "/v1/sessions", MR_OPF_LIST},
      {"sessions.archive", "POST", "/v1/sessions/{session_id}/archive", 0},
      {"sessions.events.send", "POST", "/v1/sessions/{session_id}/events", 0},
      {"sessions.events.list", "GET", "/v1/sessions/{session_id}/events", MR_OPF_LIST},
      {"sessions.events.stream", "GET", "/v1/sessions/{session_id}/events/stream", MR_OPF_STREAM},
      {"sessions.threads.events.list", "GET", "/v1/sessions/{session_id}/threads/{thread_id}/events", MR_OPF_LIST},
      {"files.upload", "POST", "/v1/files", MR_OPF_BODY_IN},
      {"files.download", "GET", "/v1/files/{file_id}/content", MR_OPF_BODY_OUT},
  };
  if ((size_t)i >= sizeof ops / sizeof ops[0]) return NULL;
  *verb = ops[i].verb, *path = ops[i].path, *flags = ops[i].flags;
  return ops[i].name;
}

/* ----------------------------------------------------- uses, hooks, models */

struct mr_use { struct mr_use *next; uint64_t id; int kind, settled, attempt; char name[80], sid[40];
  struct mr_doc *input; char *result, *error, *text; const void *reg; };
static struct mr_use *uses;
static int uses_open;

static struct mr_use *use_by_id(uint64_t id)
{
  struct mr_use *u = uses;
  while (u && u->id != id) u = u->next;
  return u;
}
static int use_end(struct mr_use **pu, const char *result, const char *error)
{
  struct mr_use *u = *pu;
  if (!u || u->settled) abort(); /* settled twice */
  u->settled = 1;
  uses_open--;
  u->result = result ? strdup(result) : NULL;
  u->error = error ? strdup(error) : NULL;
  *pu = NULL;
  return MR_OK;
}
struct mr_str mr_use_name(const struct mr_use *u) { return (struct mr_str){u->name, strlen(u->name)}; }
const struct mr_val *mr_use_input_val(const struct mr_use *u) { return doc_root(u->input); }
struct mr_str mr_use_id(const struct mr_use *u) { return (struct mr_str){u->sid, strlen(u->sid)}; }
struct mr_str mr_use_session(const struct mr_use *u) { (void)u; return (struct mr_str){"sesn_1", 6}; }
struct mr_str mr_use_thread(const struct mr_use *u) { (void)u; return (struct mr_str){"sthr_1", 6}; }
struct mr_str mr_use_agent(const struct mr_use *u) { (void)u; return (struct mr_str){"tester", 6}; }
int mr_use_attempt(const struct mr_use *u) { return u->attempt; }
int64_t mr_use_deadline_ms(const struct mr_use *u) { (void)u; return 5000; }
int mr_use_cancelled(const struct mr_use *u) { return u->settled; }
int mr_use_finish(struct mr_use **u, const char *json) { return use_end(u, json ? json : "", NULL); }
int mr_use_fail(struct mr_use **u, const char *message) { return use_end(u, NULL, message); }
static int finish_doc(struct mr_use **u, struct mr_doc **doc)
{
  char *t = doc_text(*doc);
  int rc = use_end(u, t, NULL);
  free(t);
  doc_free(*doc);
  *doc = NULL;
  return rc;
}
const struct mr_val *mr_hook_input(const struct mr_hook_call *c) { return doc_root(((const struct mr_use *)c)->input); }
int mr_hook_decide(struct mr_hook_call **c, const char *json) { return use_end((struct mr_use **)c, json ? json : "", NULL); }
static int hook_decide(struct mr_hook_call **c, struct mr_doc **doc) { return finish_doc((struct mr_use **)c, doc); }
const struct mr_val *mr_model_use_request(const struct mr_model_use *u) { return doc_root(((const struct mr_use *)u)->input); }
struct mr_str mr_model_use_session(const struct mr_model_use *u) { (void)u; return (struct mr_str){"sesn_1", 6}; }
int mr_model_use_text(struct mr_model_use *mu, struct mr_str d)
{
  struct mr_use *u = (struct mr_use *)mu;
  size_t n = u->text ? strlen(u->text) : 0;
  u->text = realloc(u->text, n + d.n + 2);
  memcpy(u->text + n, d.p, d.n);
  u->text[n + d.n] = '|';
  u->text[n + d.n + 1] = 0;
  return MR_OK;
}
int mr_model_use_finish(struct mr_model_use **u, const char *json) { return use_end((struct mr_use **)u, json, NULL); }
int mr_model_use_fail(struct mr_model_use **u, const char *type, const char *msg)
{
  char t[600];
  snprintf(t, sizeof t, "%s: %s", type, msg);
  return use_end((struct mr_use **)u, NULL, t);
}
static int model_finish(struct mr_model_use **u, struct mr_doc **doc) { return finish_doc((struct mr_use **)u, doc); }

struct reg { struct reg *next; int kind, id; char name[80], schema[2000], filter[200]; unsigned flags; int timeout, concurrency;
  void (*run)(void *, struct mr_use *); void (*cancel)(void *, struct mr_use *); void *ud; };
static struct reg *regs;
static int refuse_tool; /* mr_tool_add refuses the tool named "refused" */

static void drop_reg(int kind, const char *name, int id)
{
  struct reg **at = &regs;
  while (*at && !((*at)->kind == kind && (name ? strcmp((*at)->name, name) == 0 : (*at)->id == id))) at = &(*at)->next;
  if (!*at) return;
  struct reg *r = *at;
  *at = r->next;
  free(r);
}
static struct reg *new_reg(int kind, const char *name)
{
  struct reg *r = calloc(1, sizeof *r), **at = &regs;
  while (*at) at = &(*at)->next;
  *at = r;
  r->kind = kind;
  r->id = (int)next_id++;
  snprintf(r->name, sizeof r->name, "%s", name);
  return r;
}
int mr_tool_add(struct mr_runtime *rt, const struct mr_tool *t, struct mr_err *err)
{
  (void)rt;
  if (refuse_tool && strcmp(t->name, "refused") == 0) return fail(err, MR_E_INVALID, "this host refuses it");
  drop_reg('t', t->name, 0);
  struct reg *r = new_reg('t', t->name);
  r->run = t->run, r->cancel = t->cancel, r->ud = t->ud, r->flags = t->flags;
  r->timeout = t->timeout_ms, r->concurrency = t->concurrency;
  snprintf(r->schema, sizeof r->schema, "%s", t->input_schema);
  return MR_OK;
}
int mr_tool_remove(struct mr_runtime *rt, const char *name, const char *agent) { (void)rt, (void)agent; drop_reg('t', name, 0); return MR_OK; }
int mr_hook_add(struct mr_runtime *rt, const char *phase, const char *filter, unsigned flags, mr_hook_fn fn,
                void *ud, struct mr_err *err)
{
  (void)rt, (void)err;
  struct reg *r = new_reg('h', phase);
  r->run = (void (*)(void *, struct mr_use *))fn, r->ud = ud, r->flags = flags;
  snprintf(r->filter, sizeof r->filter, "%s", filter ? filter : "");
  return r->id;
}
int mr_hook_remove(struct mr_runtime *rt, int id) { (void)rt; drop_reg('h', NULL, id); return MR_OK; }
int mr_provider_add(struct mr_runtime *rt, const struct mr_provider *p, struct mr_err *err)
{
  (void)rt, (void)err;
  drop_reg('m', p->name, 0);
  struct reg *r = new_reg('m', p->name);
  r->run = (void (*)(void *, struct mr_use *))p->run, r->ud = p->ud;
  r->cancel = (void (*)(void *, struct mr_use *))p->cancel;
  return MR_OK;
}
int mr_provider_remove(struct mr_runtime *rt, const char *name) { (void)rt; drop_reg('m', name, 0); return MR_OK; }

static void run_use(void *a, void *b)
{
  struct reg *r = a;
  for (struct reg *x = regs; x; x = x->next)
    if (x == r) {
      r->run(r->ud, b);
      return;
    }
  struct mr_use *u = b;
  use_end(&u, NULL, "gone");
}
static void run_cancel(void *a, void *b)
{
  struct reg *r = a;
  struct mr_use *u = b;
  if (!u->settled) r->cancel(r->ud, b);
}

/* --------------------------------------------------------- time, files, log */

static int64_t ext_now(struct mr_runtime *rt) { (void)rt; return now_us; }
static int64_t ext_wall(struct mr_runtime *rt) { (void)rt; return wall0 + now_us; }
static int ext_timer(struct mr_runtime *rt, int64_t us, void (*fn)(void *), void *ud, uint64_t *id)
{
  (void)rt;
  struct timer *t = calloc(1, sizeof *t), **at = &timers;
  *t = (struct timer){NULL, next_id++, now_us + us, fn, ud};
  while (*at) at = &(*at)->next;
  *at = t;
  *id = t->id;
  return MR_OK;
}
static int ext_timer_cancel(struct mr_runtime *rt, uint64_t id)
{
  (void)rt;
  for (struct timer **at = &timers; *at; at = &(*at)->next) {
    if ((*at)->id != id) continue;
    struct timer *t = *at;
    *at = t->next;
    free(t);
    return 1;
  }
  return 0;
}
static void call_posted(void *a, void *b) { void (*fn)(void *); memcpy(&fn, &b, sizeof fn); fn(a); }
static int ext_post(struct mr_runtime *rt, void (*fn)(void *), void *ud)
{
  (void)rt;
  void *p;
  memcpy(&p, &fn, sizeof p);
  push(call_posted, ud, p);
  return MR_OK;
}
static int ext_http(struct mr_runtime *rt, const struct mr_ext_http_req *req, const struct mr_ext_http_cbs *cbs,
                    void *ud, uint64_t *id, struct mr_err *err)
{
  (void)rt, (void)err;
  struct mr_build *b = build(NULL);
  struct mr_doc *doc = NULL;
  b_open(b, 0);
  b_key(b, (struct mr_str){"method", 6}), b_str(b, (struct mr_str){req->method, strlen(req->method)});
  b_key(b, (struct mr_str){"url", 3}), b_str(b, (struct mr_str){req->url, strlen(req->url)});
  b_key(b, (struct mr_str){"body", 4}), b_str(b, req->body);
  b_key(b, (struct mr_str){"timeout_ms", 10}), b_int(b, req->timeout_ms);
  b_key(b, (struct mr_str){"headers", 7}), b_open(b, 1);
  for (int i = 0; req->headers && req->headers[i]; i++)
    b_str(b, (struct mr_str){req->headers[i], strlen(req->headers[i])});
  b_close(b), b_close(b);
  build_done(&b, &doc, NULL);
  struct call *c = new_call("http", doc, ud);
  c->is_http = 1;
  c->http = *cbs;
  *id = c->id;
  push(ask_test, c, NULL);
  return MR_OK;
}
static struct call *call_by_id(uint64_t id)
{
  struct call *c = calls;
  while (c && c->id != id) c = c->next;
  return c;
}
static void ext_http_cancel(struct mr_runtime *rt, uint64_t id)
{
  (void)rt;
  struct call *c = call_by_id(id);
  if (c) settle(c, NULL, MR_E_CANCELLED, "cancelled", 0, "");
}

struct filejob { void (*done)(void *, const struct mr_reply *, struct mr_str); void *ud; char *json, *raw; size_t n;
  struct mr_err err; };
static void file_done(void *a, void *b)
{
  struct filejob *j = a;
  struct mr_doc *doc = NULL;
  (void)b;
  if (j->json) parse(NULL, (struct mr_str){j->json, strlen(j->json)}, &doc, NULL);
  struct mr_reply r = {.size = sizeof r, .code = j->err.code, .err = j->err.code ? &j->err : NULL, .val = doc_root(doc)};
  j->done(j->ud, &r, (struct mr_str){j->raw, j->n});
  doc_free(doc);
  free(j->json);
  free(j->raw);
  free(j);
}
static char *info(const char *name, const struct stat *st)
{
  char t[700];
  snprintf(t, sizeof t, "{\"name\":\"%s\",\"type\":\"%s\",\"size\":%lld,\"mtime\":%lld}", name,
           S_ISDIR(st->st_mode) ? "directory" : "file", (long long)st->st_size, (long long)st->st_mtime);
  return strdup(t);
}
static char *listing(const char *path)
{
  DIR *d = opendir(path);
  struct dirent *e;
  struct stat st;
  if (!d) return NULL;
  char *all = strdup("["), full_path[1024];
  while ((e = readdir(d)) != NULL) {
    if (e->d_name[0] == '.') continue;
    snprintf(full_path, sizeof full_path, "%s/%s", path, e->d_name);
    if (stat(full_path, &st)) continue;
    char *one = info(e->d_name, &st);
    all = realloc(all, strlen(all) + strlen(one) + 3);
    if (all[1]) memcpy(all + strlen(all), ",", 2);
    memcpy(all + strlen(all), one, strlen(one) + 1);
    free(one);
  }
  closedir(d);
  all = realloc(all, strlen(all) + 2);
  memcpy(all + strlen(all), "]", 2);
  return all;
}
static int ext_file(struct mr_runtime *rt, const char *op, const char *path, struct mr_str arg,
                    void (*done)(void *, const struct mr_reply *, struct mr_str), void *ud, struct mr_err *err)
{
  (void)rt, (void)err;
  struct filejob *j = calloc(1, sizeof *j);
  struct stat st;
  int bad = 0;
  j->done = done, j->ud = ud;
  if (strcmp(op, "read") == 0) {
    FILE *f = fopen(path, "rbe");
    bad = !f;
    j->raw = malloc(1 << 16);
    if (f) j->n = fread(j->raw, 1, 1 << 16, f), fclose(f);
  } else if (strcmp(op, "write") == 0 || strcmp(op, "append") == 0) {
    FILE *f = fopen(path, op[0] == 'w' ? "wbe" : "abe");
    bad = !f || fwrite(arg.p, 1, arg.n, f) != arg.n;
    if (f) fclose(f);
  } else if (strcmp(op, "stat") == 0) {
    bad = stat(path, &st);
    if (!bad) j->json = info(path, &st);
  } else if (strcmp(op, "list") == 0) {
    j->json = listing(path);
    bad = !j->json;
  } else if (strcmp(op, "mkdir") == 0) {
    bad = mkdir(path, 0755);
  } else if (strcmp(op, "remove") == 0) {
    bad = remove(path);
  } else {
    char to[1000];
    snprintf(to, sizeof to, "%.*s", (int)arg.n, arg.p);
    bad = rename(path, to);
  }
  if (bad) fail(&j->err, errno == ENOENT ? MR_E_NOTFOUND : MR_E_IO, strerror(errno));
  if (bad) free(j->raw), j->raw = NULL, j->n = 0;
  push(file_done, j, NULL);
  return MR_OK;
}

struct watch { struct watch *next; uint64_t id; char path[500]; void (*fn)(void *, struct mr_str); void *ud; };
static struct watch *watches;
static int ext_watch(struct mr_runtime *rt, const char *path, void (*fn)(void *, struct mr_str), void *ud,
                     uint64_t *id, struct mr_err *err)
{
  (void)rt, (void)err;
  struct watch *w = calloc(1, sizeof *w);
  *w = (struct watch){.next = watches, .id = next_id++, .fn = fn, .ud = ud};
  snprintf(w->path, sizeof w->path, "%s", path);
  watches = w;
  *id = w->id;
  return MR_OK;
}
static void ext_watch_cancel(struct mr_runtime *rt, uint64_t id)
{
  (void)rt;
  for (struct watch **at = &watches; *at; at = &(*at)->next) {
    if ((*at)->id != id) continue;
    struct watch *w = *at;
    *at = w->next;
    free(w);
    return;
  }
}

static char logs[1 << 16];
static void ext_log(struct mr_runtime *rt, int level, const char *source, struct mr_str line)
{
  (void)rt;
  size_t n = strlen(logs);
  if (getenv("HOST_VERBOSE")) fprintf(stderr, "%d %s: %.*s\n", level, source, (int)line.n, line.p);
  if (n > sizeof logs - 2000) n = 0;
  snprintf(logs + n, sizeof logs - n, "%d %s: %.*s\n", level, source, (int)line.n, line.p);
}
static int64_t generation;
static char generation_error[1000];
static void ext_set_generation(struct mr_runtime *rt, int64_t g, struct mr_str e)
{
  (void)rt;
  generation = g;
  snprintf(generation_error, sizeof generation_error, "%.*s", (int)e.n, e.p);
}
static void (*control_fn)(void *, const char *, const struct mr_val *, uint64_t);
static void *control_ud;
static char control_answer[1000];
static int control_open;
static int ext_on_control(struct mr_runtime *rt, void (*fn)(void *, const char *, const struct mr_val *, uint64_t), void *ud)
{
  (void)rt;
  control_fn = fn;
  control_ud = ud;
  return MR_OK;
}
static void ext_control_done(struct mr_runtime *rt, uint64_t id, int code, struct mr_str json)
{
  (void)rt, (void)id;
  control_open--;
  snprintf(control_answer, sizeof control_answer, "%d %.*s", code, (int)json.n, json.p);
}
static void run_control(void *a, void *b)
{
  (void)b;
  control_fn(control_ud, a, NULL, 7);
  free(a);
}

static const struct mr_ext table = {.size = sizeof table, .kind = kind, .as_bool = as_bool, .as_int = as_int,
    .as_uint = as_uint, .as_real = as_real, .as_str = as_str, .len = len, .get = get, .next = next, .parse = parse,
    .doc_root = doc_root, .doc_free = doc_free, .write = write_json, .build = build, .b_null = b_null, .b_bool = b_bool,
    .b_int = b_int, .b_real = b_real, .b_str = b_str, .b_key = b_key, .b_open = b_open, .b_close = b_close,
    .b_val = b_val, .build_done = build_done, .build_drop = build_drop, .call = ext_call, .use_finish = finish_doc,
    .hook_decide = hook_decide, .model_finish = model_finish, .op_at = op_at, .now_us = ext_now, .wall_us = ext_wall,
    .timer = ext_timer, .timer_cancel = ext_timer_cancel, .post = ext_post, .http = ext_http,
    .http_cancel = ext_http_cancel, .file = ext_file, .watch = ext_watch, .watch_cancel = ext_watch_cancel,
    .log = ext_log, .set_generation = ext_set_generation, .on_control = ext_on_control, .control_done = ext_control_done};
const struct mr_ext *mr_ext(void) { return &table; }
const char *mr_strerror(int code)
{
  return code == MR_E_FULL ? "the queue is full" : code == MR_E_CANCELLED ? "cancelled" : code == MR_E_CLOSED ? "closed" : "failed";
}

/* ------------------------------------------------------------ for the tests */

static int h_op(lua_State *L) /* op(name, fn) */
{
  lua_getfield(L, LUA_REGISTRYINDEX, "host.ops");
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, luaL_checkstring(L, 1));
  return 0;
}
static int h_reply(lua_State *L) /* reply(id, json) */
{
  struct call *c = call_by_id((uint64_t)luaL_checknumber(L, 1));
  if (c) settle(c, luaL_optstring(L, 2, "{}"), 0, NULL, 0, NULL);
  lua_pushboolean(L, c != NULL);
  return 1;
}
static void run_event(void *a, void *b)
{
  struct mr_doc *d = b;
  struct call *c = call_by_id((uint64_t)(uintptr_t)a);
  if (c && !c->settled && c->cbs.event) {
    char *t = doc_text(d);
    c->cbs.event(c->ud, (struct mr_str){t, strlen(t)}, doc_root(d), 1);
    free(t);
  }
  doc_free(d);
}
static int h_event(lua_State *L) /* event(id, json) */
{
  struct mr_doc *d = NULL;
  size_t n;
  const char *t = luaL_checklstring(L, 2, &n);
  if (parse(NULL, (struct mr_str){t, n}, &d, NULL)) return luaL_error(L, "bad event %s", t);
  push(run_event, (void *)(uintptr_t)luaL_checknumber(L, 1), d);
  return 0;
}
static int inject(lua_State *L, int k) /* (name, json, attempt) -> id */
{
  const char *name = luaL_checkstring(L, 1);
  size_t n;
  const char *t = luaL_optlstring(L, 2, "{}", &n);
  struct reg *r = regs;
  while (r && (r->kind != k || strcmp(r->name, name) != 0)) r = r->next;
  if (!r) return 0;
  struct mr_use *u = calloc(1, sizeof *u);
  u->id = next_id++;
  u->kind = k;
  u->attempt = (int)luaL_optnumber(L, 3, 1);
  snprintf(u->name, sizeof u->name, "%s", name);
  snprintf(u->sid, sizeof u->sid, "sevt_%d", (int)u->id);
  if (parse(NULL, (struct mr_str){t, n}, &u->input, NULL)) return luaL_error(L, "bad input %s", t);
  u->reg = r;
  u->next = uses;
  uses = u;
  uses_open++;
  push(run_use, r, u);
  lua_pushnumber(L, (lua_Number)u->id);
  return 1;
}
static int h_use(lua_State *L) { return inject(L, 't'); }
static int h_hook(lua_State *L) { return inject(L, 'h'); }
static int h_model(lua_State *L) { return inject(L, 'm'); }
static int h_state(lua_State *L) /* state(id) -> nil while open | result, error, streamed text */
{
  struct mr_use *u = use_by_id((uint64_t)luaL_checknumber(L, 1));
  if (!u || !u->settled) return 0;
  lua_pushstring(L, u->result);
  if (!u->result) lua_pop(L, 1), lua_pushboolean(L, 0);
  lua_pushstring(L, u->error ? u->error : "");
  lua_pushstring(L, u->text ? u->text : "");
  return 3;
}
static int h_cancel_use(lua_State *L)
{
  struct mr_use *u = use_by_id((uint64_t)luaL_checknumber(L, 1));
  push(run_cancel, (void *)u->reg, u);
  return 0;
}
static int h_cancelled_calls(lua_State *L)
{
  int n = 0;
  for (struct call *c = calls; c; c = c->next) n += c->cancelled;
  lua_pushnumber(L, n);
  return 1;
}
static int h_control(lua_State *L)
{
  control_open++;
  control_answer[0] = 0;
  push(run_control, strdup(luaL_checkstring(L, 1)), NULL);
  return 0;
}
static int h_control_answer(lua_State *L)
{
  if (control_open) return 0;
  lua_pushstring(L, control_answer);
  return 1;
}
static int h_generation(lua_State *L)
{
  lua_pushnumber(L, (lua_Number)generation);
  lua_pushstring(L, generation_error);
  return 2;
}
static int h_logs(lua_State *L)
{
  lua_pushstring(L, logs);
  logs[0] = 0;
  return 1;
}
static void run_touch(void *a, void *b)
{
  (void)b;
  for (struct watch *w = watches, *n; w; w = n) {
    n = w->next;
    w->fn(w->ud, (struct mr_str){a, strlen(a)});
    break;
  }
  free(a);
}
static int h_touch(lua_State *L) { push(run_touch, strdup(luaL_checkstring(L, 1)), NULL); return 0; }
static int h_tool(lua_State *L) /* tool(name) -> schema, timeout_ms, concurrency, flags */
{
  for (struct reg *r = regs; r; r = r->next) {
    if (r->kind != 't' || strcmp(r->name, luaL_checkstring(L, 1)) != 0) continue;
    lua_pushstring(L, r->schema);
    lua_pushnumber(L, r->timeout);
    lua_pushnumber(L, r->concurrency);
    lua_pushnumber(L, r->flags);
    return 4;
  }
  return 0;
}
static int h_count(lua_State *L) /* count("t"|"h"|"m") registered */
{
  int n = 0;
  for (struct reg *r = regs; r; r = r->next) n += r->kind == *luaL_checkstring(L, 1);
  lua_pushnumber(L, n);
  return 1;
}
static int h_set(lua_State *L) /* set("full"|"refuse_tool", n) */
{
  if (strcmp(luaL_checkstring(L, 1), "full") == 0) full = (int)luaL_checknumber(L, 2);
  else refuse_tool = (int)luaL_checknumber(L, 2);
  return 0;
}
static int open_fds(void)
{
  DIR *d = opendir("/proc/self/fd");
  int n = 0;
  while (readdir(d)) n++;
  closedir(d);
  return n;
}
static int h_open(lua_State *L) /* open() -> what is open, as one line */
{
  char t[300], more[200] = "";
  int nt = 0, nc = 0;
  for (struct timer *x = timers; x; x = x->next) nt++;
  for (struct call *x = calls; x; x = x->next) nc++;
  if (stats_fn) stats_fn(more, sizeof more);
  snprintf(t, sizeof t, "timers=%d calls=%d uses=%d docs=%d builds=%d texts=%d ops=%d queue=%d fds=%d%s", nt, nc,
           uses_open, docs - (int)0, builds, texts, ops_alive, head != NULL, open_fds(), more);
  lua_pushstring(L, t);
  return 1;
}
static int h_clear_uses(lua_State *L)
{
  (void)L;
  while (uses) {
    struct mr_use *u = uses;
    if (!u->settled) break;
    uses = u->next;
    doc_free(u->input);
    free(u->result), free(u->error), free(u->text), free(u);
  }
  return 0;
}
static int h_json(lua_State *L) /* json{encode=, decode=}: set once by the kit */
{
  lua_setfield(L, LUA_REGISTRYINDEX, "host.json");
  return 0;
}
static int h_globals(lua_State *L) /* the VM's own globals, under those of a generation */
{
#if LUA_VERSION_NUM >= 504
  lua_pushglobaltable(L);
#else
  lua_pushvalue(L, LUA_GLOBALSINDEX);
#endif
  return 1;
}
static int h_clock(lua_State *L) { lua_pushnumber(L, (lua_Number)now_us / 1e6); return 1; }

__attribute__((visibility("default"))) int luaopen_host(lua_State *L);
int luaopen_host(lua_State *L)
{
  static const luaL_Reg fns[] = {{"op", h_op}, {"reply", h_reply}, {"event", h_event}, {"use", h_use},
      {"hook", h_hook}, {"model", h_model}, {"state", h_state}, {"cancel_use", h_cancel_use},
      {"cancelled_calls", h_cancelled_calls}, {"control", h_control}, {"control_answer", h_control_answer},
      {"generation", h_generation}, {"logs", h_logs}, {"touch", h_touch}, {"tool", h_tool}, {"count", h_count},
      {"set", h_set}, {"open", h_open}, {"clear_uses", h_clear_uses}, {"json", h_json}, {"clock", h_clock}, {"globals", h_globals}, {NULL, NULL}};
  L0 = L;
  lua_newtable(L);
  lua_setfield(L, LUA_REGISTRYINDEX, "host.ops");
  lua_newtable(L);
  for (const luaL_Reg *f = fns; f->name; f++) {
    lua_pushcfunction(L, f->func);
    lua_setfield(L, -2, f->name);
  }
  lua_pushlightuserdata(L, (void *)&L0);
  lua_setfield(L, -2, "LATER");
  return 1;
}

void host_set_stats(host_stats_fn fn) { stats_fn = fn; }

int host_end(char *out, size_t n)
{
  int nt = 0, nc = 0, nw = 0, nr = 0;
  h_clear_uses(NULL);
  while (head) mr_dispatch(NULL, 0, 0);
  for (struct timer *x = timers; x; x = x->next) nt++;
  for (struct call *x = calls; x; x = x->next) nc++;
  for (struct watch *x = watches; x; x = x->next) nw++;
  for (struct reg *x = regs; x; x = x->next) nr++;
  (void)opened;
  snprintf(out, n, "timers=%d calls=%d uses=%d docs=%d builds=%d texts=%d ops=%d watches=%d registered=%d", nt, nc,
           uses_open, docs, builds, texts, ops_alive, nw, nr);
  return nt || nc || uses_open || docs || builds || texts || ops_alive || nw || nr;
}
