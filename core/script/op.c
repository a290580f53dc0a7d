/*
 * op - the pending operation of a task: checks before it, its settling, and the simplest of them, sleep.
 *
 * Every native that waits: check the arguments (may raise; nothing acquired yet), mr_lua_may_wait (in a
 * task, not cancelled, able to yield), build what may raise, mr_lua_pend_new, start the work with the pend
 * as its user data, `return mr_lua_pend_wait(L, p)`. Arming before a yield that cannot happen (inside
 * table.sort, string.gsub, require) would leave a completion for a task that is gone; hence the order.
 *
 * Script thread only. Completions come inside mr_dispatch, with no Lua code of a user on the C stack.
 */
#include <unistd.h>
#include "script/script_t.h"

LJMP int mr_lua_raise_cancelled(lua_State *L, struct mr_lua_task *t)
{
  struct mr_err e = {.size = sizeof e};
  mr_lua_err(&e, MR_E_CANCELLED, "%s", mr_lua_task_why(t));
  mr_lua_push_err(L, t->s, &e);
  return lua_error(L);
}

/* Every coroutine from L up to the task's own must be able to yield: the marker passes through them all. A
 * C function in between may lie in any of them. */
static bool can_yield(lua_State *L, struct mr_lua_vm *s)
{
  luaL_checkstack(L, 4, "wait");
  int top = lua_gettop(L);
  lua_State *co = L;
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_parents);
  lua_pushthread(L);
  while (co && lua_isyieldable(co) && co != s->current->co) {
    lua_rawget(L, top + 1);
    co = lua_tothread(L, -1); /* NULL: resumed behind co.lua's back, by a C module */
  }
  bool yes = co && lua_isyieldable(co);
  lua_settop(L, top);
  return yes;
}

LJMP void mr_lua_op_open(lua_State *L, struct mr_lua_vm *s)
{
  lua_newtable(L);
  lua_newtable(L);
  lua_pushliteral(L, "kv");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  s->ref_parents = luaL_ref(L, LUA_REGISTRYINDEX);
}

LJMP void mr_lua_may_wait(lua_State *L, struct mr_lua_vm *s, const char *what)
{
  struct mr_lua_task *t = s->current;
  if (!t && s->loading)
    mr_lua_raise(L,
                 "%s waits, and nothing may wait while scripts load: top-level code declares; call it "
                 "in rig.main or in a handler",
                 what);
  if (!t) mr_lua_raise(L, "%s waits, which only a task can do (rig.main or a handler)", what);
  if (t->cancelled) mr_lua_raise_cancelled(L, t);
  if (t->pend || t->settled)
    mr_lua_raise(L, "%s: this task already waits for something (a coroutine was resumed past its wait)", what);
  if (!can_yield(L, s))
    mr_lua_raise(L,
                 "%s cannot wait here: a C function (table.sort, string.gsub, require, a metamethod of "
                 "one) is calling; do it before or after",
                 what);
}

struct mr_lua_pend *mr_lua_pend_new(struct mr_lua_vm *s, void (*undo)(struct mr_lua_pend *))
{
  struct mr_lua_pend *p = mr_lua_alloc(sizeof *p);
  if (!p) return NULL;
  p->s = s;
  p->task = s->current;
  p->undo = undo;
  s->outstanding++;
  return p;
}

void mr_lua_pend_drop(struct mr_lua_pend *p)
{
  if (!p) return;
  struct mr_lua_transfer *b = p->body;
  p->s->outstanding--;
  mr_lua_free(p);
  if (!b) return;
  if (b->fd >= 0) close(b->fd);
  if (b->part) unlink(b->part);
  mr_lua_free(b->path);
  mr_lua_free(b->part);
  mr_lua_free(b->buf);
  mr_lua_free(b->up);
  mr_lua_free(b);
}

int mr_lua_pend_wait(lua_State *L, struct mr_lua_pend *p)
{
  p->task->pend = p;
  lua_settop(L, 0);
  lua_pushlightuserdata(L, p->s);
  return lua_yield(L, 1);
}

struct keep {
  void (*push)(lua_State *L, void *ud);
  void *ud;
  struct mr_lua_vm *s;
  const struct mr_err *err;
  int ref;
};

static int keep(lua_State *L)
{
  struct keep *k = lua_touserdata(L, 1);
  lua_settop(L, 0);
  if (k->push)
    k->push(L, k->ud);
  else
    mr_lua_push_err(L, k->s, k->err);
  k->ref = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

static void settle(struct mr_lua_pend *p, int ref, bool failed)
{
  struct mr_lua_task *t = p->task;
  t->pend = NULL;
  t->settled = true;
  t->failed = failed;
  t->res = ref;
  if (t->state == MR_TS_WAITING) mr_lua_ready(t);
  mr_lua_pend_drop(p);
}

void mr_lua_pend_value(struct mr_lua_pend *p, void (*push)(lua_State *L, void *ud), void *ud)
{
  struct keep k = {.push = push, .ud = ud, .s = p->s, .ref = LUA_NOREF};
  struct mr_err e = {.size = sizeof e};
  char msg[256];
  int rc = MR_OK;
  if (!p->task) {
    mr_lua_pend_drop(p);
    return;
  }
  if (push) rc = mr_lua_protect(p->s, keep, &k, msg, sizeof msg);
  if (rc) {
    mr_lua_err(&e, rc, "the result could not be kept: %s", msg);
    mr_lua_pend_fail(p, rc, &e);
    return;
  }
  settle(p, k.ref, false);
}

void mr_lua_pend_fail(struct mr_lua_pend *p, int code, const struct mr_err *err)
{
  struct mr_err e = {.size = sizeof e};
  struct keep k = {.s = p->s, .err = err ? err : &e, .ref = LUA_NOREF};
  char msg[256];
  if (!p->task) {
    mr_lua_pend_drop(p);
    return;
  }
  if (!err) mr_lua_err(&e, code, "%s", mr_strerror(code));
  mr_lua_protect(p->s, keep, &k, msg, sizeof msg);
  settle(p, k.ref, true);
}

LJMP int mr_lua_fail_now(lua_State *L, struct mr_lua_vm *s, const struct mr_err *err)
{
  lua_pushboolean(L, 1);
  lua_pushnil(L);
  mr_lua_push_err(L, s, err);
  return 3;
}

/* ------------------------------------------------------------------- sleep */

static void on_timer(void *ud)
{
  mr_lua_pend_value(ud, NULL, NULL);
}

static void undo_timer(struct mr_lua_pend *p)
{
  if (p->s->ext->timer_cancel(p->s->rt, p->id) == 1) mr_lua_pend_drop(p);
}

static int n_sleep(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  lua_Number sec = luaL_checknumber(L, 1);
  if (!(sec >= 0 && sec < 1e9)) return mr_lua_raise(L, "rig.sleep: seconds from 0 to 1e9");
  mr_lua_may_wait(L, s, "rig.sleep");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_timer);
  int rc = p ? s->ext->timer(s->rt, (int64_t)(sec * 1e6), on_timer, p, &p->id) : MR_E_NOMEM;
  if (rc) {
    mr_lua_pend_drop(p);
    mr_lua_err(&err, rc, "%s", mr_strerror(rc));
    return mr_lua_fail_now(L, s, &err);
  }
  return mr_lua_pend_wait(L, p);
}

const luaL_Reg mr_lua_op_natives[] = {{"sleep", n_sleep}, {NULL, NULL}};
