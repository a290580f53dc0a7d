/*
 * lua_io - outgoing HTTP and files, as natives that wait. lua/moonrig/http.lua and fs.lua are their
 * public side: retries, expectations, argument forms.
 *
 * Script thread only; the work itself runs on the runtime's loop and pool.
 */
#include "script/script_t.h"

/* -------------------------------------------------------------------- http */

struct http_done {
  struct mr_lua_vm *s;
  const struct mr_ext_http_reply *r;
};

/* "name: value\n" lines to a table; repeated names are joined with ", ". */
static void push_headers(lua_State *L, struct mr_str h)
{
  const char *p = h.p, *end = h.p + h.n;
  lua_newtable(L);
  while (p && p < end) {
    const char *nl = memchr(p, '\n', (size_t)(end - p));
    const char *stop = nl ? nl : end;
    const char *colon = memchr(p, ':', (size_t)(stop - p));
    if (colon) {
      const char *v = colon + 1;
      while (v < stop && *v == ' ')
        v++;
      lua_pushlstring(L, p, (size_t)(colon - p));
      lua_pushvalue(L, -1);
      lua_rawget(L, -3);
      if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushlstring(L, v, (size_t)(stop - v));
      } else {
        lua_pushliteral(L, ", ");
        lua_pushlstring(L, v, (size_t)(stop - v));
        lua_concat(L, 3);
      }
      lua_rawset(L, -3);
    }
    p = nl ? nl + 1 : end;
  }
}

static void push_http(lua_State *L, void *ud)
{
  const struct mr_ext_http_reply *r = ((struct http_done *)ud)->r;
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, r->status);
  lua_setfield(L, -2, "status");
  lua_pushlstring(L, r->body.p ? r->body.p : "", r->body.n);
  lua_setfield(L, -2, "body");
  push_headers(L, r->headers);
  lua_setfield(L, -2, "headers");
}

static void on_http(void *ud, const struct mr_ext_http_reply *r)
{
  struct mr_lua_pend *p = ud;
  struct http_done d = {p->s, r};
  if (r->code)
    mr_lua_pend_fail(p, r->code, r->err);
  else
    mr_lua_pend_value(p, push_http, &d);
}

static void undo_http(struct mr_lua_pend *p)
{
  p->s->ext->http_cancel(p->s->rt, p->id); /* on_http still comes and frees */
}

enum { HEADERS_MAX = 64 };

/* http{method=, url=, headers={"Name: value", ...}, body=, timeout=s, max_body=, follow=} */
static int n_http(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  const char *lines[HEADERS_MAX + 1] = {NULL};
  struct mr_ext_http_cbs cbs = {.size = sizeof cbs, .done = on_http};
  struct mr_ext_http_req req = {.size = sizeof req};
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checkstack(L, HEADERS_MAX + 16, "http");
  req.method = mr_lua_field(L, 1, "method", "GET");
  req.url = mr_lua_field(L, 1, "url", "");
  req.timeout_ms = mr_lua_field_int(L, 1, "timeout_ms", 0);
  req.max_body = mr_lua_field_int(L, 1, "max_body", 0);
  req.follow = (int)mr_lua_field_int(L, 1, "follow", 0);
  lua_getfield(L, 1, "body");
  if (!lua_isnil(L, -1)) req.body.p = luaL_checklstring(L, -1, &req.body.n);
  lua_getfield(L, 1, "headers");
  if (lua_istable(L, -1)) {
    int t = lua_gettop(L), n = (int)mr_compat_rawlen(L, t);
    if (n > HEADERS_MAX) return mr_lua_raise(L, "rig.http: more than %d headers", HEADERS_MAX);
    for (int i = 0; i < n; i++) {
      lua_rawgeti(L, t, i + 1); /* stays on the stack while the request is made */
      lines[i] = luaL_checkstring(L, -1);
    }
    req.headers = lines;
  }
  mr_lua_may_wait(L, s, "rig.http");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_http);
  int rc = p ? s->ext->http(s->rt, &req, &cbs, p, &p->id, &err) : MR_E_NOMEM;
  if (rc) {
    mr_lua_pend_drop(p);
    if (!err.message[0]) mr_lua_err(&err, rc, "%s", mr_strerror(rc));
    return mr_lua_fail_now(L, s, &err);
  }
  return mr_lua_pend_wait(L, p);
}

/* ------------------------------------------------------------------- files */

struct file_done {
  struct mr_lua_vm *s;
  const struct mr_reply *r;
  struct mr_str raw;
};

static void push_file(lua_State *L, void *ud)
{
  struct file_done *d = ud;
  enum mr_kind k = d->s->ext->kind(d->r->val);
  if (d->raw.p)
    lua_pushlstring(L, d->raw.p, d->raw.n);
  else if (k == MR_K_NONE || k == MR_K_NULL)
    lua_pushboolean(L, 1);
  else
    mr_lua_push_val(L, d->s, d->r->val, MR_V_WIRE);
}

static void on_file(void *ud, const struct mr_reply *r, struct mr_str raw)
{
  struct mr_lua_pend *p = ud;
  struct file_done d = {p->s, r, raw};
  if (r->code)
    mr_lua_pend_fail(p, r->code, r->err);
  else
    mr_lua_pend_value(p, push_file, &d);
}

static void undo_file(struct mr_lua_pend *p)
{
  (void)p; /* cannot be stopped; on_file comes and frees */
}

/* file(op, path, arg) */
static int n_file(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  const char *op = luaL_checkstring(L, 1), *path = luaL_checkstring(L, 2);
  struct mr_str arg = {NULL, 0};
  arg.p = luaL_optlstring(L, 3, "", &arg.n);
  mr_lua_may_wait(L, s, "rig.fs");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_file);
  int rc = p ? s->ext->file(s->rt, op, path, arg, on_file, p, &err) : MR_E_NOMEM;
  if (rc) {
    mr_lua_pend_drop(p);
    if (!err.message[0]) mr_lua_err(&err, rc, "%s", mr_strerror(rc));
    return mr_lua_fail_now(L, s, &err);
  }
  return mr_lua_pend_wait(L, p);
}

const luaL_Reg mr_lua_io_natives[] = {{"http", n_http}, {"file", n_file}, {NULL, NULL}};
