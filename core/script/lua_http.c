/*
 * lua_http - outgoing HTTP as natives: whole requests (http), and streamed responses (http_open, http_head,
 * http_read, http_close). lua/moonrig/http.lua is their public side: forms of bodies, retries, events.
 *
 * A streamed response's bytes wait in one buffer. Beyond HOLD_AT the transfer is paused until the script has
 * read: what a slow script holds is HOLD_AT and what was under way, never the whole response. Chunks touch no
 * Lua unless somebody waits. The response outlives its userdata until the core's done came.
 *
 * Script thread only.
 */
#include <stdio.h>
#include "script/script_t.h"

enum { HEADERS_MAX = 64, HOLD_AT = 256 * 1024, READ_MAX = 256 * 1024 };

struct mr_lua_http {
  struct mr_lua_vm *s;
  struct mr_lua_http *prev, *next;
  uint64_t id;
  struct mr_lua_pend *waiter; /* for the head, or for bytes */
  bool owned;                 /* the userdata is alive */
  bool done;                  /* the core is done with it */
  bool held;                  /* paused by us */
  int status;                 /* of the head; 0: not there yet */
  char *headers;
  size_t nheaders;
  int code; /* why it ended; MR_OK: in order */
  struct mr_err err;
  char *buf; /* bytes off .. n wait */
  size_t off, n, cap;
};

/* ------------------------------------------------------------------ results */

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
  const struct mr_ext_http_reply *r = ud;
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, r->status);
  lua_setfield(L, -2, "status");
  lua_pushlstring(L, r->body.p ? r->body.p : "", r->body.n);
  lua_setfield(L, -2, "body");
  push_headers(L, r->headers);
  lua_setfield(L, -2, "headers");
}

static void push_head(lua_State *L, void *ud)
{
  const struct mr_lua_http *h = ud;
  lua_createtable(L, 0, 2);
  lua_pushinteger(L, h->status);
  lua_setfield(L, -2, "status");
  push_headers(L, (struct mr_str){h->headers, h->nheaders});
  lua_setfield(L, -2, "headers");
}

/* ----------------------------------------------------------------- requests */

/* The request in the table at 1; its strings stay on the stack. lines: HEADERS_MAX + 1. */
static LJMP struct mr_ext_http_req read_request(lua_State *L, const char **lines)
{
  struct mr_ext_http_req req = {.size = sizeof req};
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checkstack(L, HEADERS_MAX + 20, "http");
  req.method = mr_lua_field(L, 1, "method", "GET");
  req.url = mr_lua_field(L, 1, "url", "");
  req.unix_path = mr_lua_field(L, 1, "unix", NULL);
  req.timeout_ms = mr_lua_field_int(L, 1, "timeout_ms", 0);
  req.connect_ms = mr_lua_field_int(L, 1, "connect_ms", 0);
  req.idle_ms = mr_lua_field_int(L, 1, "idle_ms", 0);
  req.max_body = mr_lua_field_int(L, 1, "max_body", 0);
  req.follow = (int)mr_lua_field_int(L, 1, "follow", 0);
  lua_getfield(L, 1, "guard");
  req.guard = lua_toboolean(L, -1);
  lua_pop(L, 1);
  lua_getfield(L, 1, "body");
  if (!lua_isnil(L, -1)) req.body.p = luaL_checklstring(L, -1, &req.body.n);
  lua_getfield(L, 1, "headers");
  if (lua_istable(L, -1)) {
    int t = lua_gettop(L), n = (int)mr_compat_rawlen(L, t);
    if (n > HEADERS_MAX) mr_lua_raise(L, "rig.http: more than %d headers", HEADERS_MAX);
    for (int i = 0; i < n; i++) {
      lua_rawgeti(L, t, i + 1); /* stays on the stack while the request is made */
      lines[i] = luaL_checkstring(L, -1);
    }
    lines[n] = NULL;
    req.headers = lines;
  }
  return req;
}

/* A failure of ours is no answer: it has no status, and no type of an API error. */
static struct mr_err no_answer(const struct mr_ext_http_reply *r)
{
  struct mr_err e = {.size = sizeof e};
  if (r->err)
    memcpy(&e, r->err, sizeof e);
  else
    mr_lua_err(&e, r->code, "%s", mr_strerror(r->code));
  e.http_status = 0;
  if (r->code != MR_E_INVALID) e.type[0] = '\0';
  return e;
}

static void on_whole(void *ud, const struct mr_ext_http_reply *r)
{
  struct mr_lua_pend *p = ud;
  if (r->code) {
    struct mr_err e = no_answer(r);
    mr_lua_pend_fail(p, r->code, &e);
  } else {
    mr_lua_pend_value(p, push_http, (void *)(uintptr_t)r);
  }
}

static void undo_whole(struct mr_lua_pend *p)
{
  p->s->ext->http_cancel(p->s->rt, p->id); /* on_whole still comes and frees */
}

/* http{method=, url=, headers={"Name: value", ...}, body=, timeout_ms=, idle_ms=, connect_ms=, max_body=, follow=,
 * unix=} -> { status, headers, body } */
static int n_http(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  const char *lines[HEADERS_MAX + 1] = {NULL};
  struct mr_ext_http_cbs cbs = {.size = sizeof cbs, .done = on_whole};
  struct mr_ext_http_req req = read_request(L, lines);
  mr_lua_may_wait(L, s, "rig.http");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_whole);
  int rc = p ? s->ext->http(s->rt, &req, &cbs, p, &p->id, &err) : MR_E_NOMEM;
  if (rc) {
    mr_lua_pend_drop(p);
    if (!err.message[0]) mr_lua_err(&err, rc, "%s", mr_strerror(rc));
    return mr_lua_fail_now(L, s, &err);
  }
  return mr_lua_pend_wait(L, p);
}

/* ------------------------------------------------------- streamed responses */

static void free_http(struct mr_lua_http *h)
{
  h->s->outstanding--;
  if (h->prev)
    h->prev->next = h->next;
  else
    h->s->https = h->next;
  if (h->next) h->next->prev = h->prev;
  mr_lua_free(h->headers);
  mr_lua_free(h->buf);
  mr_lua_free(h);
}

static void end(struct mr_lua_http *h, int code, const char *why)
{
  if (h->code) return;
  h->code = mr_lua_err(&h->err, code, "%s", why);
  if (!h->done) h->s->ext->http_cancel(h->s->rt, h->id);
}

static bool gone(const struct mr_lua_http *h)
{
  return !h->owned || h->code || atomic_load(&h->s->slice) == MR_SLICE_GONE;
}

static void on_head(void *ud, int status, struct mr_str headers)
{
  struct mr_lua_http *h = ud;
  if (gone(h)) return;
  h->headers = mr_lua_alloc(headers.n + 1);
  if (!h->headers) {
    end(h, MR_E_NOMEM, "out of memory");
    return;
  }
  if (headers.n) memcpy(h->headers, headers.p, headers.n);
  h->nheaders = headers.n;
  h->status = status;
  if (h->waiter) {
    struct mr_lua_pend *p = h->waiter;
    h->waiter = NULL;
    mr_lua_pend_value(p, push_head, h);
  }
}

static void push_bytes(lua_State *L, void *ud)
{
  const struct mr_str *bytes = ud;
  lua_pushlstring(L, bytes->p, bytes->n);
}

static bool keep_bytes(struct mr_lua_http *h, struct mr_str data)
{
  if (h->off) {
    memmove(h->buf, h->buf + h->off, h->n - h->off);
    h->n -= h->off;
    h->off = 0;
  }
  if (h->n + data.n > h->cap) {
    size_t cap = h->n + data.n < 16384 ? 16384 : (h->n + data.n) * 2;
    char *q = mr_lua_realloc(h->buf, cap);
    if (!q) return false;
    h->buf = q;
    h->cap = cap;
  }
  memcpy(h->buf + h->n, data.p, data.n);
  h->n += data.n;
  return true;
}

static void on_chunk(void *ud, struct mr_str data)
{
  struct mr_lua_http *h = ud;
  if (gone(h) || !data.n) return;
  if (h->waiter && h->status) {
    struct mr_lua_pend *p = h->waiter;
    h->waiter = NULL;
    mr_lua_pend_value(p, push_bytes, &data);
    return;
  }
  if (!keep_bytes(h, data)) {
    end(h, MR_E_NOMEM, "out of memory");
  } else if (h->n - h->off >= HOLD_AT && !h->held) {
    h->held = true;
    h->s->ext->http_pause(h->s->rt, h->id, 1);
  }
}

static void on_done(void *ud, const struct mr_ext_http_reply *r)
{
  struct mr_lua_http *h = ud;
  h->done = true;
  if (!h->owned) {
    free_http(h);
    return;
  }
  if (atomic_load(&h->s->slice) == MR_SLICE_GONE) return; /* Lua still points at it */
  if (!h->code && r->code) {
    h->code = r->code;
    h->err = no_answer(r);
  }
  if (h->waiter) {
    struct mr_lua_pend *p = h->waiter;
    h->waiter = NULL;
    if (h->code)
      mr_lua_pend_fail(p, h->code, &h->err);
    else
      mr_lua_pend_value(p, NULL, NULL);
  }
}

static struct mr_lua_http **check_http(lua_State *L, struct mr_lua_vm *s)
{
  struct mr_lua_http **u = lua_touserdata(L, 1);
  int same = 0;
  if (u && !lua_islightuserdata(L, 1) && lua_getmetatable(L, 1)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_httpmt);
    same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  if (!same) luaL_error(L, "a response expected, got %s", luaL_typename(L, 1));
  return u;
}

/* http_open(as http) -> response | nil, err. Does not wait. */
static int n_open(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  const char *lines[HEADERS_MAX + 1] = {NULL};
  struct mr_ext_http_cbs cbs = {.size = sizeof cbs, .head = on_head, .chunk = on_chunk, .done = on_done};
  struct mr_ext_http_req req = read_request(L, lines);
  mr_lua_may_wait(L, s, "rig.http.stream");
  struct mr_lua_http **u = lua_newuserdata(L, sizeof *u), *h;
  *u = NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_httpmt);
  lua_setmetatable(L, -2);
  h = mr_lua_alloc(sizeof *h);
  int rc = MR_E_NOMEM;
  if (h) {
    h->s = s;
    h->err.size = sizeof h->err;
    rc = s->ext->http(s->rt, &req, &cbs, h, &h->id, &err);
  }
  if (rc) {
    mr_lua_free(h);
    if (!err.message[0]) mr_lua_err(&err, rc, "%s", mr_strerror(rc));
    lua_pushnil(L);
    mr_lua_push_err(L, s, &err);
    return 2;
  }
  s->outstanding++;
  h->owned = true;
  h->next = s->https;
  if (h->next) h->next->prev = h;
  s->https = h;
  *u = h;
  return 1;
}

static void undo_wait(struct mr_lua_pend *p)
{
  p->http->waiter = NULL;
  mr_lua_pend_drop(p);
}

static LJMP int wait_for(lua_State *L, struct mr_lua_vm *s, struct mr_lua_http *h)
{
  if (h->waiter) return mr_lua_raise(L, "another task already waits for this response");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_wait);
  if (!p) return luaL_error(L, "out of memory");
  p->http = h;
  h->waiter = p;
  return mr_lua_pend_wait(L, p);
}

/* http_head(response) -> { status, headers } | nil, err */
static int n_head(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_lua_http *h = *check_http(L, s);
  mr_lua_may_wait(L, s, "rig.http.stream");
  if (h && !h->status && !h->done && !h->code) return wait_for(L, s, h);
  if (h && h->code) return mr_lua_fail_now(L, s, &h->err);
  lua_pushboolean(L, 1);
  if (!h || !h->status) return 1;
  push_head(L, h);
  return 2;
}

/* http_read(response) -> bytes; nothing at its end; nil, err when it was cut */
static int n_read(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_lua_http *h = *check_http(L, s);
  mr_lua_may_wait(L, s, "the next piece of a response");
  if (h && h->n > h->off) {
    size_t n = h->n - h->off < READ_MAX ? h->n - h->off : READ_MAX;
    lua_pushboolean(L, 1);
    lua_pushlstring(L, h->buf + h->off, n);
    h->off += n;
    if (h->off == h->n) {
      mr_lua_free(h->buf);
      h->buf = NULL;
      h->off = h->n = h->cap = 0;
    }
    if (h->held && h->n - h->off < HOLD_AT / 2) {
      h->held = false;
      s->ext->http_pause(s->rt, h->id, 0);
    }
    return 2;
  }
  if (h && h->code) return mr_lua_fail_now(L, s, &h->err);
  if (h && !h->done) return wait_for(L, s, h);
  lua_pushboolean(L, 1);
  return 1;
}

static int close_http(struct mr_lua_http **u)
{
  struct mr_lua_http *h = *u;
  *u = NULL;
  if (!h) return 0;
  h->owned = false;
  if (h->waiter) {
    struct mr_lua_pend *p = h->waiter;
    h->waiter = NULL;
    mr_lua_pend_value(p, NULL, NULL);
  }
  if (h->done)
    free_http(h);
  else
    h->s->ext->http_cancel(h->s->rt, h->id); /* on_done still comes and frees */
  return 0;
}

static int n_close(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  return close_http(check_http(L, s));
}

void mr_lua_https_cancel(struct mr_lua_vm *s)
{
  for (struct mr_lua_http *h = s->https; h; h = h->next)
    if (!h->done) s->ext->http_cancel(s->rt, h->id);
}

static int gc_http(lua_State *L)
{
  if (atomic_load(&mr_lua_self(L)->slice) == MR_SLICE_GONE) return 0;
  return close_http(lua_touserdata(L, 1));
}

const luaL_Reg mr_lua_http_natives[] = {{"http", n_http},      {"http_open", n_open},   {"http_head", n_head},
                                        {"http_read", n_read}, {"http_close", n_close}, {NULL, NULL}};

LJMP void mr_lua_http_open(lua_State *L, struct mr_lua_vm *s)
{
  lua_newtable(L);
  lua_pushcfunction(L, gc_http);
  lua_setfield(L, -2, "__gc");
  s->ref_httpmt = luaL_ref(L, LUA_REGISTRYINDEX);
}
