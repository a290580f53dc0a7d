/*
 * fake_ops - the fake host's operations: each call asks the test's Lua handler, which answers now or later;
 * uploads are read whole, events and bodies are delivered through the queue.
 */
#include "fake_host_t.h"

/* ---------------------------------------------------------------- operations */

static void free_call(struct fake_call *c)
{
  struct fake_call **at = &fake.calls;
  while (*at != c) at = &(*at)->next;
  *at = c->next;
  if (c->handle) c->handle->c = NULL;
  fake_doc_free(c->params);
  free(c->json);
  free(c->body);
  free(c);
}

static void deliver(void *a, void *b)
{
  struct fake_call *c = a;
  struct mr_doc *doc = NULL;
  (void)b;
  if (c->json) fake_parse(NULL, (struct mr_str){c->json, strlen(c->json)}, &doc, NULL);
  if (c->is_http) {
    if (c->reply_chunks) fake_http_chunks(c, doc ? fake_yy(doc) : NULL);
    struct mr_ext_http_reply r = {.size = sizeof r, .code = c->err.code, .err = c->err.code ? &c->err : NULL};
    yyjson_val *root = doc ? fake_yy(doc) : NULL, *body = yyjson_obj_get(root, "body"),
               *headers = yyjson_obj_get(root, "headers");
    if (!r.code) {
      r.status = yyjson_get_int(yyjson_obj_get(root, "status"));
      r.body = (struct mr_str){yyjson_get_str(body), yyjson_get_len(body)};
      r.headers = (struct mr_str){yyjson_get_str(headers), yyjson_get_len(headers)};
    }
    c->http.done(c->ud, &r);
  } else {
    struct mr_reply r = {.size = sizeof r, .code = c->err.code, .err = c->err.code ? &c->err : NULL};
    for (size_t at = 0; at < c->bodyn && !c->cancelled; at += 5) /* in small pieces */
      c->cbs.body(c->ud, (struct mr_str){c->body + at, c->bodyn - at < 5 ? c->bodyn - at : 5});
    if (c->cancelled) r.code = MR_E_CANCELLED, r.err = NULL;
    r.val = fake_root(doc);
    c->cbs.reply(c->ud, &r);
  }
  fake_doc_free(doc);
  free_call(c);
}

void fake_call_settle(struct fake_call *c, const char *json, int code, const char *msg, int status, const char *type)
{
  if (c->settled) return;
  c->settled = 1;
  if (json) c->json = strdup(json);
  if (code) {
    fake_fail(&c->err, code, msg);
    c->err.http_status = status;
    snprintf(c->err.type, sizeof c->err.type, "%s", type);
  }
  fake_push(deliver, c, NULL);
}

static void push_json(lua_State *L, const char *fn)
{
  lua_getfield(L, LUA_REGISTRYINDEX, "host.json");
  lua_getfield(L, -1, fn);
  lua_remove(L, -2);
}

/* Runs the test's handler of this operation: function(params, id) -> value | nil, err | host.LATER */
void fake_call_ask(void *a, void *b)
{
  struct fake_call *c = a;
  lua_State *L = fake.L;
  (void)b;
  if (c->settled || !L) return; /* no test in Lua: it is never answered */
  int top = lua_gettop(L);
  lua_getfield(L, LUA_REGISTRYINDEX, "host.ops");
  lua_getfield(L, -1, c->op);
  if (lua_isnil(L, -1)) {
    char msg[160];
    snprintf(msg, sizeof msg, "the test has no operation %s", c->op);
    fake_call_settle(c, NULL, MR_E_NOTFOUND, msg, 404, "not_found_error");
    lua_settop(L, top);
    return;
  }
  push_json(L, "decode");
  char *text = fake_text(c->params);
  lua_pushstring(L, text);
  free(text);
  lua_call(L, 1, 1);
  lua_pushnumber(L, (lua_Number)c->id);
  if (lua_pcall(L, 2, 2, 0)) {
    fake_call_settle(c, NULL, MR_E_INTERNAL, lua_tostring(L, -1), 500, "api_error");
  } else if (lua_isnil(L, -2)) {
    lua_getfield(L, -1, "message");
    lua_getfield(L, -2, "status");
    lua_getfield(L, -3, "type");
    lua_getfield(L, -4, "code");
    fake_call_settle(c, NULL, lua_isnil(L, -1) ? MR_E_INVALID : (int)lua_tonumber(L, -1), lua_tostring(L, -4),
           (int)lua_tonumber(L, -3), lua_isnil(L, -2) ? "" : lua_tostring(L, -2));
  } else if (!lua_islightuserdata(L, -2) || lua_touserdata(L, -2) != (void *)&fake.L) {
    if (lua_type(L, -1) == LUA_TSTRING) { /* a second result: the bytes of a download */
      const char *bytes = lua_tolstring(L, -1, &c->bodyn);
      c->body = malloc(c->bodyn + 1);
      memcpy(c->body, bytes, c->bodyn);
    }
    push_json(L, "encode");
    lua_pushvalue(L, -3);
    lua_call(L, 1, 1);
    fake_call_settle(c, lua_tostring(L, -1), 0, NULL, 0, NULL);
  }
  lua_settop(L, top);
}

struct fake_call *fake_call_new(const char *op, struct mr_doc *params, void *ud)
{
  struct fake_call *c = calloc(1, sizeof *c);
  c->id = fake.next_id++;
  snprintf(c->op, sizeof c->op, "%s", op);
  c->params = params;
  c->ud = ud;
  c->next = fake.calls;
  fake.calls = c;
  return c;
}

/* Reads an upload whole, and shows it to the test as members of the parameters. */
static void take_body(struct fake_call *c, const struct mr_body *b)
{
  char buf[7], *all = calloc(1, 1 << 16);
  int64_t n;
  size_t k = 0;
  while ((n = b->read(b->ud, buf, sizeof buf)) > 0 && k + (size_t)n < 1 << 16) {
    memcpy(all + k, buf, (size_t)n);
    k += (size_t)n;
  }
  yyjson_mut_doc *m = yyjson_mut_doc_new(NULL);
  yyjson_mut_doc_set_root(m, yyjson_val_mut_copy(m, fake_yy(c->params)));
  yyjson_mut_obj_add_strncpy(m, m->root, "_body", all, k);
  yyjson_mut_obj_add_sint(m, m->root, "_length", b->length);
  yyjson_mut_obj_add_strcpy(m, m->root, "_filename", b->filename ? b->filename : "");
  yyjson_mut_obj_add_strcpy(m, m->root, "_media_type", b->media_type ? b->media_type : "");
  fake_doc_set(c->params, yyjson_mut_doc_imut_copy(m, NULL));
  yyjson_mut_doc_free(m);
  free(all);
}

static int ext_call(struct mr_runtime *rt, const struct mr_req *req, struct mr_doc **doc,
                    const struct mr_callbacks *cbs, void *ud, struct mr_op **op, struct mr_err *err)
{
  (void)rt;
  if (fake.full) {
    fake_doc_free(*doc);
    *doc = NULL;
    return fake_fail(err, MR_E_FULL, "the queue is full");
  }
  struct fake_call *c = fake_call_new(req->op, *doc, ud);
  *doc = NULL;
  c->cbs = *cbs;
  if (req->body) {
    take_body(c, req->body);
  }
  struct mr_op *h = calloc(1, sizeof *h);
  fake.ops++;
  h->c = c;
  c->handle = h;
  *op = h;
  fake_push(fake_call_ask, c, NULL);
  return MR_OK;
}
void mr_op_cancel(struct mr_op *op)
{
  if (!op || !op->c) return;
  op->c->cancelled = 1;
  fake_call_settle(op->c, NULL, MR_E_CANCELLED, "cancelled", 0, "");
}
void mr_op_release(struct mr_op *op)
{
  if (!op) return;
  if (op->c) op->c->handle = NULL;
  fake.ops--;
  free(op);
}

static const char *op_at(int i, const char **verb, const char **path, unsigned *flags)
{
  enum { K_JSON = 0, K_EVENTS = MR_OPF_STREAM, K_BODY_IN = MR_OPF_BODY_IN, K_BODY_OUT = MR_OPF_BODY_OUT,
         LIST = MR_OPF_LIST, PASS = 0, SECRET = 0, QUERY = 0, ENV = 0, ITEM = 0, NO_API = 0 };
#define OP(name, verb, path, kind, beta, flags, shape, fn) {name, verb, path, K_##kind | (flags)},
#define TODO(name, verb, path, kind, beta, flags) {name, verb, path, K_##kind | (flags) | MR_OPF_TODO},
  static const struct { const char *name, *verb, *path; unsigned flags; } ops[] = {
#include "ops/ops.def"
  };
  if ((size_t)i >= sizeof ops / sizeof ops[0]) return NULL;
  *verb = ops[i].verb, *path = ops[i].path, *flags = ops[i].flags;
  return ops[i].name;
}


struct fake_call *fake_call_by_id(uint64_t id)
{
  struct fake_call *c = fake.calls;
  while (c && c->id != id) c = c->next;
  return c;
}

/* Streamed requests: what the handler answers at once comes as a head and small chunks. */
void fake_http_chunks(struct fake_call *c, yyjson_val *root)
{
  yyjson_val *body = yyjson_obj_get(root, "body"), *headers = yyjson_obj_get(root, "headers");
  struct mr_str b = {yyjson_get_str(body), yyjson_get_len(body)}, h = {yyjson_get_str(headers), yyjson_get_len(headers)};
  if (!root || c->cancelled || c->http_told) return;
  c->http_told = 1;
  if (c->http.head) c->http.head(c->ud, yyjson_get_int(yyjson_obj_get(root, "status")), h);
  for (size_t at = 0; at < b.n && !c->cancelled; at += 5)
    c->http.chunk(c->ud, (struct mr_str){b.p + at, b.n - at < 5 ? b.n - at : 5});
}

static const char *op_beta(int i)
{
  const char *verb, *path;
  unsigned flags;
  const char *name = op_at(i, &verb, &path, &flags);
  return name && (strncmp(name, "agents.", 7) == 0 || strncmp(name, "sessions.", 9) == 0) ? "managed-agents-2026-04-01" : NULL;
}

void fake_ops_table(struct mr_ext *t) { t->call = ext_call, t->op_at = op_at, t->op_beta = op_beta; }
