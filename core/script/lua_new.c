/*
 * lua_new - a second runtime in this process, as natives: runtime_open, runtime_wait, runtime_close.
 * lua/moonrig/connect.lua makes rig.new of it.
 *
 * The runtime serves its API on a socket of its own, and scripts are a client of it like any other: what it answers
 * comes over our own runtime's loop, and nothing of it has to be dispatched here. Opening and closing block (files,
 * joins), so each runs on a thread of its own, which ends by posting to our runtime; the script thread never waits for
 * it. At most MAX of them a VM; one that is collected, or outlives its VM, is closed.
 *
 * Script thread, but for run_open, run_close and on_log. A thread under way counts as outstanding.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include "script/script_t.h"

enum { MAX = 8 };
enum { OPENING, OPEN, CLOSING, OVER };

struct mr_lua_new {
  struct mr_lua_vm *s;
  struct mr_lua_new *prev, *next;
  struct mr_lua_pend *waiter; /* for the end of what is under way */
  struct mr_runtime *rt;
  char *store, *options, *socket;
  int state;
  bool owned;       /* the userdata is alive */
  atomic_bool mute; /* its log goes nowhere: ours may be closing */
  int code;         /* of opening */
  struct mr_err err;
};

static void free_new(struct mr_lua_new *n)
{
  if (n->prev)
    n->prev->next = n->next;
  else
    n->s->news = n->next;
  if (n->next) n->next->prev = n->prev;
  mr_lua_free(n->store);
  mr_lua_free(n->options);
  mr_lua_free(n->socket);
  mr_lua_free(n);
}

/* ---------------------------------------------------- on threads of their own */

static void on_log(void *ud, int level, struct mr_str line)
{
  struct mr_lua_new *n = ud;
  if (!atomic_load(&n->mute)) n->s->ext->log(n->s->rt, level, "rig.new", line);
}

static void on_opened(void *ud);
static void on_closed(void *ud);

static void *run_open(void *arg)
{
  struct mr_lua_new *n = arg;
  struct mr_config c;
  char spec[200], actual[200];
  mr_config_init(&c);
  c.store = n->store;
  c.options = n->options;
  c.log = on_log;
  c.ud = n;
  n->code = mr_open(&n->rt, &c, &n->err);
  snprintf(spec, sizeof spec, "unix:%s,0600", n->socket);
  if (n->code == MR_OK) n->code = mr_listen(n->rt, spec, actual, sizeof actual, &n->err);
  if (n->code != MR_OK && n->rt) mr_close(&n->rt);
  n->s->ext->post(n->s->rt, on_opened, n);
  return NULL;
}

static void *run_close(void *arg)
{
  struct mr_lua_new *n = arg;
  mr_stop(n->rt, 0);
  mr_close(&n->rt);
  unlink(n->socket);
  n->s->ext->post(n->s->rt, on_closed, n);
  return NULL;
}

/* Signals are for the host's threads. */
static bool start(struct mr_lua_new *n, void *(*fn)(void *))
{
  pthread_t t;
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int rc = pthread_create(&t, NULL, fn, n);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (rc) return false;
  pthread_detach(t);
  n->s->outstanding++;
  return true;
}

/* ------------------------------------------------------------- script thread */

/* Whoever waits gets true, or the error that opening ended in. */
static void push_true(lua_State *L, void *ud)
{
  (void)ud;
  lua_pushboolean(L, 1);
}

static void tell(struct mr_lua_new *n)
{
  struct mr_lua_pend *p = n->waiter;
  if (!p) return;
  n->waiter = NULL;
  if (n->code)
    mr_lua_pend_fail(p, n->code, &n->err);
  else
    mr_lua_pend_value(p, push_true, n);
}

static void begin_close(struct mr_lua_new *n)
{
  atomic_store(&n->mute, true);
  n->state = CLOSING;
  if (start(n, run_close)) return;
  mr_close(&n->rt); /* no thread to be had: rather late than never */
  unlink(n->socket);
  n->state = OVER;
}

static void drop(struct mr_lua_new *n)
{
  n->owned = false;
  if (n->state == OPEN) begin_close(n);
  if (n->state == OVER) free_new(n);
}

static void on_opened(void *ud)
{
  struct mr_lua_new *n = ud;
  n->s->outstanding--;
  n->state = n->code ? OVER : OPEN;
  if (!n->owned || atomic_load(&n->s->slice) == MR_SLICE_GONE) {
    drop(n);
    return;
  }
  tell(n);
}

static void on_closed(void *ud)
{
  struct mr_lua_new *n = ud;
  n->s->outstanding--;
  n->state = OVER;
  if (!n->owned)
    free_new(n);
  else
    tell(n);
}

static struct mr_lua_new **check_new(lua_State *L, struct mr_lua_vm *s)
{
  struct mr_lua_new **u = lua_touserdata(L, 1);
  int same = 0;
  if (u && !lua_islightuserdata(L, 1) && lua_getmetatable(L, 1)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_newmt);
    same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  if (!same) luaL_error(L, "a runtime expected, got %s", luaL_typename(L, 1));
  return u;
}

static struct mr_lua_new *make(struct mr_lua_vm *s, const char *store, const char *options, const char *socket)
{
  struct mr_lua_new *n = mr_lua_alloc(sizeof *n);
  if (!n) return NULL;
  n->s = s;
  n->err.size = sizeof n->err;
  n->state = OVER;
  n->store = mr_lua_strdup(store);
  n->options = mr_lua_strdup(options);
  n->socket = mr_lua_strdup(socket);
  n->next = s->news;
  if (n->next) n->next->prev = n;
  s->news = n;
  if (n->store && n->options && n->socket && start(n, run_open)) {
    n->state = OPENING;
    return n;
  }
  free_new(n);
  return NULL;
}

/* runtime_open(store, options as JSON, path of its socket) -> runtime | nil, err. Does not wait: runtime_wait does. */
static int n_open(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  const char *store = luaL_checkstring(L, 1), *options = luaL_checkstring(L, 2),
             *socket = luaL_checkstring(L, 3);
  struct mr_err err = {.size = sizeof err};
  int count = 0;
  mr_lua_may_wait(L, s, "rig.new");
  struct mr_lua_new **u = lua_newuserdata(L, sizeof *u), *n = NULL;
  *u = NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_newmt);
  lua_setmetatable(L, -2);
  for (struct mr_lua_new *x = s->news; x; x = x->next)
    count++;
  if (count >= MAX)
    mr_lua_err(&err, MR_E_LIMIT, "rig.new: %d runtimes are open; close one of them", MAX);
  else if (!(n = make(s, store, options, socket)))
    mr_lua_err(&err, MR_E_NOMEM, "rig.new: out of memory or threads");
  if (!n) {
    lua_pushnil(L);
    mr_lua_push_err(L, s, &err);
    return 2;
  }
  n->owned = true;
  *u = n;
  return 1;
}

static void undo_wait(struct mr_lua_pend *p)
{
  p->made->waiter = NULL;
  mr_lua_pend_drop(p);
}

static LJMP int wait_for(lua_State *L, struct mr_lua_vm *s, struct mr_lua_new *n)
{
  if (n->waiter) return mr_lua_raise(L, "rig.new: another task already waits for this runtime");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_wait);
  if (!p) return luaL_error(L, "out of memory");
  p->made = n;
  n->waiter = p;
  return mr_lua_pend_wait(L, p);
}

/* runtime_wait(runtime) -> true | nil, err: until it is open */
static int n_wait(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_lua_new *n = *check_new(L, s);
  mr_lua_may_wait(L, s, "rig.new");
  if (n->state == OPENING) return wait_for(L, s, n);
  if (n->code) return mr_lua_fail_now(L, s, &n->err);
  lua_pushboolean(L, 1);
  lua_pushboolean(L, 1);
  return 2;
}

/* runtime_close(runtime) -> true: until it is closed */
static int n_close(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_lua_new *n = *check_new(L, s);
  mr_lua_may_wait(L, s, "close");
  if (n->state == OPENING) return mr_lua_raise(L, "this runtime is not open yet");
  if (n->state == OPEN) begin_close(n);
  if (n->state != OVER) return wait_for(L, s, n);
  lua_pushboolean(L, 1);
  lua_pushboolean(L, 1);
  return 2;
}

void mr_lua_news_close(struct mr_lua_vm *s)
{
  for (struct mr_lua_new *n = s->news; n; n = n->next)
    if (n->state == OPEN) begin_close(n);
}

static int gc_new(lua_State *L)
{
  struct mr_lua_new **u = lua_touserdata(L, 1), *n = *u;
  if (atomic_load(&mr_lua_self(L)->slice) == MR_SLICE_GONE) return 0;
  *u = NULL;
  if (n) drop(n);
  return 0;
}

const luaL_Reg mr_lua_new_natives[] = {
    {"runtime_open", n_open}, {"runtime_wait", n_wait}, {"runtime_close", n_close}, {NULL, NULL}};

LJMP void mr_lua_new_open(lua_State *L, struct mr_lua_vm *s)
{
  lua_newtable(L);
  lua_pushcfunction(L, gc_new);
  lua_setfield(L, -2, "__gc");
  s->ref_newmt = luaL_ref(L, LUA_REGISTRYINDEX);
}
