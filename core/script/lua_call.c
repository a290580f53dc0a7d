/*
 * lua_call - the operations of the system, as natives: one blocking call each, with bodies for uploads and
 * downloads. lua/moonrig/api.lua makes rig.agents.create and the others of it from ops().
 *
 * Script thread only.
 */
#include <errno.h>
#include <stdio.h>
#include <fcntl.h>
#include <unistd.h>
#include <sys/stat.h>
#include "script/script_t.h"

enum { DOWNLOAD_MAX = 256 * 1024 * 1024 };

struct reply { struct mr_lua_pend *p; const struct mr_reply *r; };

static void push_reply(lua_State *L, void *ud)
{
  struct reply *x = ud;
  if (x->p->buf)
    lua_pushlstring(L, x->p->buf, x->p->n);
  else if (x->r->val)
    mr_lua_push_val(L, x->p->s, x->r->val, MR_V_WIRE);
  else
    lua_pushboolean(L, 1);
}

static void on_reply(void *ud, const struct mr_reply *r)
{
  struct mr_lua_pend *p = ud;
  struct reply x = {p, r};
  mr_op_release(p->op);
  p->op = NULL;
  if (p->code) { /* we cancelled it: the reason is ours */
    mr_lua_pend_fail(p, p->code, NULL);
    return;
  }
  if (r->code)
    mr_lua_pend_fail(p, r->code, r->err);
  else
    mr_lua_pend_value(p, push_reply, &x);
}

static void on_body(void *ud, struct mr_str chunk)
{
  struct mr_lua_pend *p = ud;
  if (!p->task || p->code) return;
  size_t need = p->n + chunk.n + 1;
  if (need > p->cap) {
    size_t cap = need < 65536 ? 65536 : need * 2;
    char *q = need > DOWNLOAD_MAX ? NULL : mr_lua_realloc(p->buf, cap);
    if (!q) {
      p->code = MR_E_TOO_LARGE;
      mr_op_cancel(p->op);
      return;
    }
    p->buf = q;
    p->cap = cap;
  }
  if (chunk.n) memcpy(p->buf + p->n, chunk.p, chunk.n);
  p->n += chunk.n;
}

static void undo_call(struct mr_lua_pend *p)
{
  mr_op_cancel(p->op); /* on_reply still comes and frees */
}

static int64_t read_body(void *ud, char *buf, size_t cap)
{
  struct mr_lua_pend *p = ud;
  if (p->fd >= 0) {
    ssize_t n;
    do n = read(p->fd, buf, cap); while (n < 0 && errno == EINTR);
    return n < 0 ? MR_E_IO : n;
  }
  size_t left = p->upn - p->upoff, n = left < cap ? left : cap;
  memcpy(buf, p->up + p->upoff, n);
  p->upoff += n;
  return (int64_t)n;
}

/* Fills body from the table {path= | bytes=, filename=, media_type=} at idx. */
static int open_body(lua_State *L, int idx, struct mr_lua_pend *p, struct mr_body *body, struct mr_err *err)
{
  struct stat st;
  size_t n = 0;
  const char *path = mr_lua_field(L, idx, "path", NULL);
  lua_getfield(L, idx, "bytes");
  const char *bytes = lua_tolstring(L, -1, &n);
  *body = (struct mr_body){.size = sizeof *body, .read = read_body, .ud = p};
  body->filename = mr_lua_field(L, idx, "filename", NULL);
  body->media_type = mr_lua_field(L, idx, "media_type", NULL);
  if (path) {
    p->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (p->fd < 0 || fstat(p->fd, &st) != 0)
      return mr_lua_err(err, MR_E_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return mr_lua_err(err, MR_E_INVALID, "%s is not a plain file", path);
    body->length = st.st_size;
    return MR_OK;
  }
  if (!bytes) return mr_lua_err(err, MR_E_INVALID, "an upload needs path or bytes");
  p->up = mr_lua_alloc(n + 1);
  if (!p->up) return mr_lua_err(err, MR_E_NOMEM, "out of memory");
  memcpy(p->up, bytes, n);
  p->upn = n;
  body->length = (int64_t)n;
  return MR_OK;
}

/* call(op, params, {timeout=s, body={...}}) */
static int n_call(lua_State *L)
{
  struct mr_script *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  struct mr_callbacks cbs = {.size = sizeof cbs, .reply = on_reply, .body = on_body};
  struct mr_body body;
  struct mr_req req = {.size = sizeof req, .op = luaL_checkstring(L, 1)};
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 3);
  bool upload = false;
  if (lua_istable(L, 3)) {
    lua_getfield(L, 3, "timeout");
    req.deadline_ms = (int64_t)(lua_tonumber(L, -1) * 1000);
    lua_getfield(L, 3, "body");
    upload = lua_istable(L, -1);
  }
  int bodyidx = lua_gettop(L);
  char what[80];
  snprintf(what, sizeof what, "rig.%s", req.op);
  mr_lua_may_wait(L, s, what);
  luaL_checkstack(L, 16, "call");
  struct mr_lua_pend *p = NULL;
  struct mr_doc *doc = mr_lua_to_doc(L, s, 2, MR_V_WIRE, &err);
  if (!doc) return mr_lua_fail_now(L, s, &err);
  p = mr_lua_pend_new(s, undo_call);
  int rc = p ? MR_OK : MR_E_NOMEM;
  if (upload && p) rc = open_body(L, bodyidx, p, &body, &err);
  if (upload) req.body = &body;
  if (rc)
    s->ext->doc_free(doc);
  else
    rc = s->ext->call(s->rt, &req, &doc, &cbs, p, &p->op, &err);
  if (rc) {
    mr_lua_pend_drop(p);
    if (!err.message[0]) mr_lua_err(&err, rc, "%s", mr_strerror(rc));
    return mr_lua_fail_now(L, s, &err);
  }
  return mr_lua_pend_wait(L, p);
}

/* ops() -> array of {name=, verb=, path=, stream=, list=, upload=, download=, todo=} */
static int n_ops(lua_State *L)
{
  struct mr_script *s = lua_touserdata(L, lua_upvalueindex(1));
  static const struct { const char *name; unsigned flag; } flags[] = {{"stream", MR_OPF_STREAM},
      {"upload", MR_OPF_BODY_IN}, {"download", MR_OPF_BODY_OUT}, {"list", MR_OPF_LIST}, {"todo", MR_OPF_TODO}};
  const char *name, *verb, *path;
  unsigned f;
  lua_newtable(L);
  for (int i = 0; (name = s->ext->op_at(i, &verb, &path, &f)) != NULL; i++) {
    lua_newtable(L);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, verb);
    lua_setfield(L, -2, "verb");
    lua_pushstring(L, path);
    lua_setfield(L, -2, "path");
    for (size_t k = 0; k < sizeof flags / sizeof flags[0]; k++) {
      lua_pushboolean(L, (f & flags[k].flag) != 0);
      lua_setfield(L, -2, flags[k].name);
    }
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

const luaL_Reg mr_lua_call_natives[] = {{"call", n_call}, {"ops", n_ops}, {NULL, NULL}};
