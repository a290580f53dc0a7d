/*
 * route - rig.route: HTTP requests answered in Lua, each by a task of its own.
 *
 * A route is registered under its method and path with a record that stays over reloads; the function is looked up in
 * the current generation when a request arrives inside mr_dispatch, and the task keeps that generation. The task's
 * request is ended exactly once: by its answer, when the task is over, or at once when the client goes away (Lua hears
 * of that when it is resumed). Lua holds the request as a userdata that may outlive it.
 *
 * Any task may write to a response; a write that must wait for the client is a pend in the list of the request, and
 * each pend counts it. Script thread only.
 */
#include <stdio.h>
#include "script/script_t.h"

enum { LINES_MAX = 60 };

struct mr_lua_web {
  struct mr_lua_vm *s;
  struct mr_web *w; /* NULL once ended */
  int refs;         /* the userdata, the task, pends */
  struct mr_lua_pend *waiters;
};

static void unref(struct mr_lua_web *web)
{
  if (--web->refs == 0) mr_lua_free(web);
}

/* ------------------------------------------------------------------ waiting */

static void undo_write(struct mr_lua_pend *p)
{
  struct mr_lua_web *web = p->web;
  struct mr_lua_pend **at = &web->waiters;
  while (*at && *at != p)
    at = &(*at)->next;
  if (*at) *at = p->next;
  mr_lua_pend_drop(p);
  unref(web);
}

static void push_true(lua_State *L, void *ud)
{
  (void)ud;
  lua_pushboolean(L, 1);
}

static void wake(struct mr_lua_web *web, int code)
{
  struct mr_err err = {.size = sizeof err};
  while (web->waiters) {
    struct mr_lua_pend *p = web->waiters;
    web->waiters = p->next;
    if (code == MR_OK) {
      mr_lua_pend_value(p, push_true, NULL);
    } else {
      mr_lua_err(&err, code, "the client is gone, or the response is ended");
      mr_lua_pend_fail(p, code, &err);
    }
    unref(web);
  }
}

static void on_drained(void *ud)
{
  struct mr_lua_web *web = ud;
  if (!mr_lua_gone(web->s)) wake(web, MR_OK);
}

/* Lua is touched only where a task still waits; a VM that was given up, or closes, undoes its waits itself. */
static void end(struct mr_lua_web *web, bool whole)
{
  if (web->w && whole) mr_web_end(&web->w);
  if (web->w) mr_web_fail(&web->w);
  web->w = NULL;
  web->refs++;
  if (!mr_lua_gone(web->s)) wake(web, MR_E_CLOSED);
  unref(web);
}

/* -------------------------------------------------------------------- calls */

static void route_finish(lua_State *L, struct mr_lua_task *t, int nres)
{
  struct mr_lua_web *web = t->web;
  (void)L, (void)nres;
  if (!web) return;
  t->web = NULL;
  end(web, true);
  unref(web);
}

static void route_fail(struct mr_lua_task *t, const char *msg)
{
  struct mr_lua_web *web = t->web;
  (void)msg; /* it is in the log; clients are not told */
  if (!web) return;
  t->web = NULL;
  end(web, false);
  unref(web);
}

static void refuse(struct mr_web **w, int status, const char *type, const char *text)
{
  static const char *const json[] = {"content-type: application/json", NULL};
  char body[300];
  int n = snprintf(body, sizeof body, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"%s\"}}",
                   type, text);
  if (mr_web_start(*w, status, json, n) == MR_OK)
    mr_web_write(*w, (struct mr_str){body, (size_t)n}, NULL, NULL);
  mr_web_end(w);
}

struct call {
  struct mr_lua_rec *rec;
  struct mr_web *w;
  bool missing;
};

static int start_call(lua_State *L)
{
  struct call *c = lua_touserdata(L, 1);
  struct mr_lua_vm *s = c->rec->s;
  char label[480];
  lua_settop(L, 0);
  c->missing = !s->cur;
  if (c->missing) return 0;
  mr_lua_entry(L, s, "route");
  mr_lua_gen_push(L, s->cur);
  lua_getfield(L, -1, "routes_by_key");
  lua_pushfstring(L, "%s %s", c->rec->name, c->rec->agent);
  lua_rawget(L, -2);
  lua_replace(L, -3);
  lua_settop(L, 2); /* entry, declaration */
  c->missing = !lua_istable(L, 2);
  if (c->missing) return 0;
  struct mr_lua_web **u = lua_newuserdata(L, sizeof *u);
  *u = NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_webmt);
  lua_setmetatable(L, -2);
  struct mr_lua_web *web = *u = mr_lua_alloc(sizeof *web);
  if (!web) return luaL_error(L, "out of memory");
  web->s = s;
  web->refs = 1;
  snprintf(label, sizeof label, "route %s %s", c->rec->name, c->rec->agent);
  struct mr_lua_task *t = mr_lua_task_new(L, s, s->cur, MR_TASK_ROUTE, 2, label);
  t->finish = route_finish;
  t->fail = route_fail;
  t->web = web;
  web->refs++;
  web->w = c->w;
  c->w = NULL;
  return 0;
}

static void on_request(void *ud, struct mr_web *w)
{
  struct call c = {ud, w, false};
  char msg[300];
  if (mr_lua_gone(c.rec->s)) {
    refuse(&c.w, 503, "api_error", "the scripts of this path are gone");
    return;
  }
  if (mr_lua_protect(c.rec->s, start_call, &c, msg, sizeof msg) != MR_OK) {
    mr_lua_log(c.rec->s, MR_LOG_ERROR, c.rec->agent, msg);
    if (c.w) refuse(&c.w, 503, "overloaded_error", "the scripts take no more requests now");
  } else if (c.missing) {
    refuse(&c.w, 404, "not_found_error", "no such path: it was taken away");
  }
}

static void on_closed(void *ud, struct mr_web *w)
{
  struct mr_lua_rec *rec = ud;
  for (struct mr_lua_task *t = rec->s->tasks; t; t = t->next) { /* not found when the VM was given up: ended */
    if (!t->web || t->web->w != w) continue;
    route_fail(t, "");
    mr_lua_task_cancel(t, "the client went away, or the time to answer is over");
    return;
  }
}

/* ------------------------------------------------------------- registration */

void mr_lua_route_take_back(struct mr_lua_rec *r)
{
  mr_route_remove(r->s->rt, strcmp(r->name, "*") == 0 ? NULL : r->name, r->agent);
}

static struct mr_lua_rec *find(struct mr_lua_vm *s, const char *method, const char *path)
{
  for (struct mr_lua_rec *r = s->recs; r; r = r->next)
    if (r->kind == MR_REC_ROUTE && strcmp(r->name, method) == 0 && strcmp(r->agent, path) == 0) return r;
  return mr_lua_rec_new(s, MR_REC_ROUTE, method, path);
}

static int add(lua_State *L, struct mr_lua_vm *s, int d, struct mr_err *err)
{
  const char *method = mr_lua_field(L, d, "method", "GET"), *path = mr_lua_field(L, d, "path", "");
  struct mr_lua_rec *r = find(s, method, path);
  struct mr_route t = {.size = sizeof t, .run = on_request, .closed = on_closed, .ud = r, .path = path};
  t.method = strcmp(method, "*") == 0 ? NULL : method;
  t.flags = mr_lua_field_int(L, d, "public", 0) ? MR_ROUTE_PUBLIC : 0;
  t.body_max = mr_lua_field_int(L, d, "body_max", 0);
  t.timeout_ms = (int)mr_lua_field_int(L, d, "timeout_ms", 0);
  int rc = r ? mr_route_add(s->rt, &t, err) : mr_lua_err(err, MR_E_NOMEM, "out of memory");
  if (rc && !err->message[0]) mr_lua_err(err, rc, "route %s %s: %s", method, path, mr_strerror(rc));
  if (rc == MR_OK) r->live = true;
  return rc;
}

LJMP int mr_lua_routes_apply(lua_State *L, struct mr_lua_vm *s, int plan, struct mr_err *err)
{
  int rc = MR_OK;
  lua_settop(L, plan);
  lua_getfield(L, plan, "routes");
  lua_getfield(L, plan, "route_keys"); /* set: "method path" = true */
  int list = plan + 1, n = (int)mr_compat_rawlen(L, list);
  /* First what goes: it may stand for the same paths under other parameter names. */
  for (struct mr_lua_rec *r = s->recs; r; r = r->next) {
    if (r->kind != MR_REC_ROUTE || !r->live) continue;
    lua_pushfstring(L, "%s %s", r->name, r->agent);
    lua_rawget(L, plan + 2);
    bool keep = lua_toboolean(L, -1);
    lua_pop(L, 1);
    if (keep) continue;
    mr_lua_route_take_back(r);
    r->live = false;
  }
  for (int i = 1; i <= n && rc == MR_OK; i++) {
    lua_rawgeti(L, list, i);
    rc = add(L, s, plan + 3, err);
    lua_settop(L, plan + 2);
  }
  lua_settop(L, plan);
  return rc;
}

/* ------------------------------------------------------------------ natives */

static struct mr_lua_web *check_web(lua_State *L, struct mr_lua_vm *s)
{
  struct mr_lua_web **u = lua_touserdata(L, 1);
  int same = 0;
  if (u && !lua_islightuserdata(L, 1) && lua_getmetatable(L, 1)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_webmt);
    same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  if (!same || !*u) luaL_error(L, "a request expected, got %s", luaL_typename(L, 1));
  return *u;
}

static void push_str(lua_State *L, struct mr_str v)
{
  lua_pushlstring(L, v.p ? v.p : "", v.n);
}

/* web_info(web) -> method, path, query, remote, headers as lines, body */
static int n_info(lua_State *L)
{
  struct mr_lua_web *web = check_web(L, lua_touserdata(L, lua_upvalueindex(1)));
  if (!web->w) return 0;
  push_str(L, mr_web_method(web->w));
  push_str(L, mr_web_path(web->w));
  push_str(L, mr_web_query(web->w));
  push_str(L, mr_web_remote(web->w));
  push_str(L, mr_web_headers(web->w));
  push_str(L, mr_web_body(web->w));
  return 6;
}

/* web_param(web, name) -> text */
static int n_param(lua_State *L)
{
  struct mr_lua_web *web = check_web(L, lua_touserdata(L, lua_upvalueindex(1)));
  const char *name = luaL_checkstring(L, 2);
  if (!web->w) return 0;
  push_str(L, mr_web_param(web->w, name));
  return 1;
}

static int fail(lua_State *L, struct mr_lua_vm *s, int rc, const char *what)
{
  struct mr_err err = {.size = sizeof err};
  mr_lua_err(&err, rc, "%s", what ? what : mr_strerror(rc));
  lua_pushnil(L);
  mr_lua_push_err(L, s, &err);
  return 2;
}

static int start(lua_State *L, struct mr_lua_web *web, int64_t length)
{
  const char *lines[LINES_MAX + 1];
  int status = (int)luaL_checkinteger(L, 2), n;
  luaL_checktype(L, 3, LUA_TTABLE);
  n = (int)mr_compat_rawlen(L, 3);
  if (n > LINES_MAX) return MR_E_INVALID;
  for (int i = 0; i < n; i++) {
    size_t len;
    lua_rawgeti(L, 3, i + 1);
    lines[i] = luaL_checklstring(L, -1, &len); /* kept by the table */
    if (strlen(lines[i]) != len) return MR_E_INVALID;
    lua_pop(L, 1);
  }
  lines[n] = NULL;
  return web->w ? mr_web_start(web->w, status, lines, length) : MR_E_CLOSED;
}

/* web_start(web, status, lines) -> true | nil, err */
static int n_start(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_lua_web *web = check_web(L, s);
  int rc = start(L, web, -1);
  if (rc) return fail(L, s, rc, rc == MR_E_CLOSED ? "the client is gone, or the response is ended" : NULL);
  lua_pushboolean(L, 1);
  return 1;
}

/* web_reply(web, status, lines, body): the whole answer */
static int n_reply(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_lua_web *web = check_web(L, s);
  struct mr_str body;
  body.p = luaL_checklstring(L, 4, &body.n);
  int rc = start(L, web, (int64_t)body.n);
  if (rc == MR_OK) rc = mr_web_write(web->w, body, NULL, NULL);
  if (rc < 0 && rc != MR_E_CLOSED) return fail(L, s, rc, NULL);
  end(web, true);
  lua_pushboolean(L, 1);
  return 1;
}

/* web_write(web, bytes) -> true; nil, err when the client is gone. Waits for a slow one. */
static int n_write(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_lua_web *web = check_web(L, s);
  struct mr_err err = {.size = sizeof err};
  struct mr_str bytes;
  bytes.p = luaL_checklstring(L, 2, &bytes.n);
  mr_lua_may_wait(L, s, "res:write");
  if (!web->w || mr_web_closed(web->w)) {
    mr_lua_err(&err, MR_E_CLOSED, "the client is gone, or the response is ended");
    return mr_lua_fail_now(L, s, &err);
  }
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_write);
  if (!p) return luaL_error(L, "out of memory");
  int rc = mr_web_write(web->w, bytes, on_drained, web);
  if (rc != MR_MORE) {
    mr_lua_pend_drop(p);
    if (rc < 0) {
      mr_lua_err(&err, rc, "%s", mr_strerror(rc));
      return mr_lua_fail_now(L, s, &err);
    }
    lua_pushboolean(L, 1);
    lua_pushboolean(L, 1);
    return 2;
  }
  p->web = web;
  p->next = web->waiters;
  web->waiters = p;
  web->refs++;
  return mr_lua_pend_wait(L, p);
}

/* web_close(web): the answer is whole */
static int n_close(lua_State *L)
{
  end(check_web(L, lua_touserdata(L, lua_upvalueindex(1))), true);
  return 0;
}

static int gc_web(lua_State *L)
{
  struct mr_lua_web **u = lua_touserdata(L, 1);
  if (*u && atomic_load(&mr_lua_self(L)->slice) != MR_SLICE_GONE) unref(*u);
  *u = NULL;
  return 0;
}

const luaL_Reg mr_lua_route_natives[] = {{"web_info", n_info},
                                         {"web_param", n_param},
                                         {"web_start", n_start},
                                         {"web_reply", n_reply},
                                         {"web_write", n_write},
                                         {"web_close", n_close},
                                         {NULL, NULL}};

LJMP void mr_lua_route_open(lua_State *L, struct mr_lua_vm *s)
{
  lua_newtable(L);
  lua_pushcfunction(L, gc_web);
  lua_setfield(L, -2, "__gc");
  s->ref_webmt = luaL_ref(L, LUA_REGISTRYINDEX);
}
