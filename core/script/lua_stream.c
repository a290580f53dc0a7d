/*
 * lua_stream - event streams as natives: open, next (waits), close.
 *
 * A stream's events are converted when they arrive and wait in a bounded queue of registry references;
 * a script that falls 4,096 events behind is cut with an error that says so, and goes on by listing
 * (lua/moonrig/feed.lua does that). The stream outlives its userdata until the core's reply came.
 *
 * Script thread only.
 */
#include <stdio.h>
#include "script/script_t.h"

enum { QUEUE_MAX = 4096, QUEUE_MIN = 32 };

struct mr_lua_stream {
  struct mr_lua_vm *s;
  struct mr_lua_stream *prev, *next;
  struct mr_op *op;
  struct mr_lua_pend *waiter;
  bool owned;   /* the userdata is alive */
  bool replied; /* the core is done with it */
  bool ended;   /* nothing more comes into the queue */
  int code;     /* why it ended; MR_OK: in order */
  struct mr_err err;
  int *refs; /* ring */
  int cap, head, n;
};

static void free_stream(struct mr_lua_stream *st)
{
  st->s->outstanding--;
  if (st->prev)
    st->prev->next = st->next;
  else
    st->s->streams = st->next;
  if (st->next) st->next->prev = st->prev;
  mr_lua_free(st->refs);
  mr_lua_free(st);
}

static bool grow(struct mr_lua_stream *st)
{
  int cap = st->cap ? st->cap * 2 : QUEUE_MIN;
  if (cap > QUEUE_MAX) return false;
  int *q = mr_lua_alloc((size_t)cap * sizeof *q);
  if (!q) return false;
  for (int i = 0; i < st->n; i++)
    q[i] = st->refs[(st->head + i) % st->cap];
  mr_lua_free(st->refs);
  st->refs = q;
  st->cap = cap;
  st->head = 0;
  return true;
}

struct event {
  struct mr_lua_stream *st;
  const struct mr_val *val;
  int ref;
};

static void push_event(lua_State *L, void *ud)
{
  struct event *e = ud;
  mr_lua_push_val(L, e->st->s, e->val, MR_V_WIRE);
}

static int keep_event(lua_State *L)
{
  struct event *e = lua_touserdata(L, 1);
  lua_settop(L, 0);
  push_event(L, e);
  e->ref = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

static void cut(struct mr_lua_stream *st, int code, const char *why)
{
  st->ended = true;
  st->code = mr_lua_err(&st->err, code, "%s", why);
  mr_op_cancel(st->op);
}

static void on_event(void *ud, struct mr_str event, const struct mr_val *val, int64_t pos)
{
  struct mr_lua_stream *st = ud;
  struct event e = {st, val, LUA_NOREF};
  char msg[200];
  (void)event, (void)pos;
  if (!st->owned || st->ended) return; /* mr_lua_streams_cancel sets ended too */
  if (st->waiter) {
    struct mr_lua_pend *p = st->waiter;
    st->waiter = NULL;
    mr_lua_pend_value(p, push_event, &e);
    return;
  }
  if (st->n == st->cap && !grow(st)) {
    cut(st, MR_E_FULL, "the script fell behind: 4,096 events wait; read on from the last one");
    return;
  }
  if (mr_lua_protect(st->s, keep_event, &e, msg, sizeof msg) != MR_OK) {
    cut(st, MR_E_NOMEM, msg);
    return;
  }
  st->refs[(st->head + st->n++) % st->cap] = e.ref;
}

static void on_end(void *ud, const struct mr_reply *r)
{
  struct mr_lua_stream *st = ud;
  mr_op_release(st->op);
  st->op = NULL;
  st->replied = true;
  if (!st->owned) {
    free_stream(st);
    return;
  }
  if (atomic_load(&st->s->slice) == MR_SLICE_GONE) return; /* Lua still points at it */
  if (!st->ended) {
    st->code = r->code;
    if (r->code && r->err)
      st->err = *r->err;
    else if (r->code)
      mr_lua_err(&st->err, r->code, "%s", mr_strerror(r->code));
  }
  st->ended = true;
  if (st->waiter) {
    struct mr_lua_pend *p = st->waiter;
    st->waiter = NULL;
    if (st->code)
      mr_lua_pend_fail(p, st->code, &st->err);
    else
      mr_lua_pend_value(p, NULL, NULL);
  }
}

static struct mr_lua_stream **check_stream(lua_State *L, struct mr_lua_vm *s)
{
  struct mr_lua_stream **u = lua_touserdata(L, 1);
  int same = 0;
  if (u && !lua_islightuserdata(L, 1) && lua_getmetatable(L, 1)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_streammt);
    same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  if (!same) luaL_error(L, "a stream expected, got %s", luaL_typename(L, 1));
  return u;
}

/* stream_open(op, params) -> stream | nil, err. Does not wait; the request precedes later calls. */
static int n_open(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  struct mr_callbacks cbs = {.size = sizeof cbs, .reply = on_end, .event = on_event};
  struct mr_req req = {.size = sizeof req, .op = luaL_checkstring(L, 1)};
  luaL_checktype(L, 2, LUA_TTABLE);
  if (!s->current) mr_lua_may_wait(L, s, req.op); /* raises the fitting message */
  if (s->current->cancelled) return mr_lua_raise_cancelled(L, s->current);
  struct mr_lua_stream **u = lua_newuserdata(L, sizeof *u);
  *u = NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_streammt);
  lua_setmetatable(L, -2);
  struct mr_doc *doc = mr_lua_to_doc(L, s, 2, MR_V_WIRE, &err);
  struct mr_lua_stream *st = doc ? mr_lua_alloc(sizeof *st) : NULL;
  int rc = doc ? MR_E_NOMEM : err.code;
  if (st) {
    st->s = s;
    st->err.size = sizeof st->err;
    rc = s->ext->call(s->rt, &req, &doc, &cbs, st, &st->op, &err);
  } else {
    s->ext->doc_free(doc);
  }
  if (rc) {
    mr_lua_free(st);
    if (!err.message[0]) mr_lua_err(&err, rc, "%s", mr_strerror(rc));
    lua_pushnil(L);
    mr_lua_push_err(L, s, &err);
    return 2;
  }
  s->outstanding++;
  st->owned = true;
  st->next = s->streams;
  if (st->next) st->next->prev = st;
  s->streams = st;
  *u = st;
  return 1;
}

static void undo_next(struct mr_lua_pend *p)
{
  p->stream->waiter = NULL;
  mr_lua_pend_drop(p);
}

/* stream_next(stream) -> event; nothing at its end; nil, err when it was cut */
static int n_next(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_lua_stream *st = *check_stream(L, s);
  mr_lua_may_wait(L, s, "the next event");
  if (!st) {
    lua_pushboolean(L, 1);
    return 1;
  }
  if (st->n) {
    int ref = st->refs[st->head];
    st->head = (st->head + 1) % st->cap;
    st->n--;
    lua_pushboolean(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
    luaL_unref(L, LUA_REGISTRYINDEX, ref);
    return 2;
  }
  if (st->ended) {
    if (st->code) return mr_lua_fail_now(L, s, &st->err);
    lua_pushboolean(L, 1);
    return 1;
  }
  if (st->waiter) return mr_lua_raise(L, "another task already waits for this stream");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_next);
  if (!p) return luaL_error(L, "out of memory");
  p->stream = st;
  st->waiter = p;
  return mr_lua_pend_wait(L, p);
}

static int close_stream(lua_State *L, struct mr_lua_stream **u)
{
  struct mr_lua_stream *st = *u;
  *u = NULL;
  if (!st) return 0;
  st->owned = false;
  st->ended = true;
  for (; st->n; st->n--) {
    luaL_unref(L, LUA_REGISTRYINDEX, st->refs[st->head]);
    st->head = (st->head + 1) % st->cap;
  }
  if (st->waiter) {
    struct mr_lua_pend *p = st->waiter;
    st->waiter = NULL;
    mr_lua_pend_value(p, NULL, NULL);
  }
  if (st->replied)
    free_stream(st);
  else
    mr_op_cancel(st->op); /* on_end still comes and frees */
  return 0;
}

static int n_close(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  return close_stream(L, check_stream(L, s));
}

void mr_lua_streams_cancel(struct mr_lua_vm *s)
{
  for (struct mr_lua_stream *st = s->streams; st; st = st->next) {
    st->ended = true;
    if (!st->replied) mr_op_cancel(st->op);
  }
}

static int gc_stream(lua_State *L)
{
  if (atomic_load(&mr_lua_self(L)->slice) == MR_SLICE_GONE) return 0;
  return close_stream(L, lua_touserdata(L, 1));
}

const luaL_Reg mr_lua_stream_natives[] = {
    {"stream_open", n_open}, {"stream_next", n_next}, {"stream_close", n_close}, {NULL, NULL}};

LJMP void mr_lua_stream_open(lua_State *L, struct mr_lua_vm *s)
{
  lua_newtable(L);
  lua_pushcfunction(L, gc_stream);
  lua_setfield(L, -2, "__gc");
  s->ref_streammt = luaL_ref(L, LUA_REGISTRYINDEX);
}
