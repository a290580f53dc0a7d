/*
 * task - coroutines with an owner: made, resumed, cancelled, ended.
 *
 * mr_lua_run_ready is the one place in the tree that resumes. It runs outside of every callback of the
 * core, so that a completion never runs user code in place. A task ends by returning, by an error, or by
 * its owner cancelling it; in each case its owner hears once (finish or fail), its children are cancelled,
 * and those who wait for it are woken. Cancelling settles the owner's side at once; Lua follows when it is
 * next resumed, with an error that every later wait raises again.
 *
 * Script thread only.
 */
#include <stdio.h>
#include "script/script_t.h"

enum {
  LABEL_MAX = 79,
  WHY_MAX = 95,
  CLOSE_MS = 200
}; /* the last: for what a task does when it is over: cancelled at the end, to-be-closed variables */

struct mr_lua_alarm {
  struct mr_lua_task *t;
  uint64_t id;
};

static void unlink_task(struct mr_lua_task *t)
{
  struct mr_lua_vm *s = t->s;
  if (t->prev)
    t->prev->next = t->next;
  else
    s->tasks = t->next;
  if (t->next) t->next->prev = t->prev;
  if (t->parent && t->parent->child == t) t->parent->child = t->sib_next;
  if (t->sib_prev) t->sib_prev->sib_next = t->sib_next;
  if (t->sib_next) t->sib_next->sib_prev = t->sib_prev;
  s->ntasks--;
}

LJMP struct mr_lua_task *mr_lua_task_find(lua_State *L, struct mr_lua_vm *s, uint64_t id)
{
  luaL_checkstack(L, 3, "task");
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_ids);
  lua_pushnumber(L, (lua_Number)id);
  lua_rawget(L, -2);
  struct mr_lua_task *t = lua_touserdata(L, -1);
  lua_pop(L, 2);
  return t;
}

static void set_by_id(lua_State *L, int ref, uint64_t id) /* pops the value */
{
  lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  lua_pushnumber(L, (lua_Number)id);
  lua_pushvalue(L, -3);
  lua_rawset(L, -3);
  lua_pop(L, 2);
}

static void free_task(struct mr_lua_vm *s, void *p)
{
  (void)s;
  mr_lua_free(p);
}

LJMP struct mr_lua_task *mr_lua_task_new(lua_State *L, struct mr_lua_vm *s, struct mr_lua_gen *gen,
                                         enum mr_lua_kind kind, int nargs, const char *label)
{
  if (s->ntasks >= s->o.tasks_max) mr_lua_raise(L, "too many tasks: %d are alive", s->ntasks);
  luaL_checkstack(L, 8, "task");
  struct mr_lua_box *box = mr_lua_box(L, s, free_task);
  size_t n = strnlen(label, LABEL_MAX);
  struct mr_lua_task *t = box->p = mr_lua_alloc(sizeof *t + n + 1);
  if (!t) luaL_error(L, "out of memory");
  t->id = ++s->next_id;
  t->co = lua_newthread(L);
  if (!lua_checkstack(t->co, nargs + 8)) luaL_error(L, "out of memory");
  set_by_id(L, s->ref_tasks, t->id); /* pops the thread */
  lua_pushlightuserdata(L, t);
  set_by_id(L, s->ref_ids, t->id);
  box->p = NULL; /* nothing below raises */
  lua_pop(L, 1);
  lua_xmove(L, t->co, nargs + 1);
  t->s = s;
  t->nargs = nargs;
  t->kind = kind;
  t->gen = gen;
  t->began_us = s->ext->now_us(s->rt);
  t->res = t->handle = LUA_NOREF;
  mr_lua_gen_ref(gen);
  memcpy(t->label, label, n);
  t->next = s->tasks;
  if (s->tasks) s->tasks->prev = t;
  s->tasks = t;
  s->ntasks++;
  t->parent = kind == MR_TASK_SPAWN ? s->current : NULL;
  if (t->parent) {
    t->sib_next = t->parent->child;
    if (t->sib_next) t->sib_next->sib_prev = t;
    t->parent->child = t;
  }
  mr_lua_ready(t);
  return t;
}

void mr_lua_ready(struct mr_lua_task *t)
{
  struct mr_lua_vm *s = t->s;
  if (t->state == MR_TS_WAITING) t->state = MR_TS_READY;
  t->ready_next = NULL;
  if (s->ready_tail)
    s->ready_tail->ready_next = t;
  else
    s->ready = t;
  s->ready_tail = t;
}

/* --------------------------------------------------------------- deadlines */

static void on_alarm(void *ud)
{
  struct mr_lua_alarm *a = ud;
  struct mr_lua_task *t = a->t;
  mr_lua_free(a);
  if (!t) return;
  t->alarm = NULL;
  mr_lua_task_cancel(t, "the deadline passed");
}

void mr_lua_task_deadline(struct mr_lua_task *t, int64_t us)
{
  struct mr_lua_alarm *a = mr_lua_alloc(sizeof *a);
  if (!a) return; /* the core has the deadline that counts */
  a->t = t;
  if (t->s->ext->timer(t->s->rt, us, on_alarm, a, &a->id) != MR_OK)
    mr_lua_free(a);
  else
    t->alarm = a;
}

static void drop_alarm(struct mr_lua_task *t)
{
  struct mr_lua_alarm *a = t->alarm;
  t->alarm = NULL;
  if (!a) return;
  a->t = NULL;
  if (t->s->ext->timer_cancel(t->s->rt, a->id) == 1) mr_lua_free(a);
}

/* ------------------------------------------------------------ cancelling */

const char *mr_lua_task_why(const struct mr_lua_task *t)
{
  return t->why ? t->why : "cancelled";
}

void mr_lua_task_cancel(struct mr_lua_task *t, const char *why)
{
  if (t->cancelled || t->state == MR_TS_DEAD) return;
  t->cancelled = true;
  size_t n = strnlen(why, WHY_MAX);
  t->why = mr_lua_alloc(n + 1);
  if (t->why) memcpy(t->why, why, n);
  if (t->pend && !t->settled) {
    struct mr_lua_pend *p = t->pend;
    t->pend = NULL;
    t->settled = t->raise = true;
    p->task = NULL;
    p->undo(p);
    if (t->state == MR_TS_WAITING) mr_lua_ready(t);
  }
  for (struct mr_lua_task *c = t->child; c; c = c->sib_next)
    mr_lua_task_cancel(c, why);
}

void mr_lua_tasks_drop(struct mr_lua_vm *s, const char *why)
{
  for (struct mr_lua_task *t = s->tasks; t; t = t->next) {
    struct mr_lua_pend *p = t->pend;
    t->pend = NULL;
    drop_alarm(t);
    if (t->use || t->hook || t->model || t->web || t->seen)
      t->fail(t, why); /* of these kinds it touches no Lua */
    if (!p) continue;
    p->task = NULL;
    p->undo(p);
  }
}

/* ------------------------------------------------------------------ ending */

struct end {
  struct mr_lua_task *t;
  int nres;
  char msg[512];
};

static int end_ok(lua_State *L)
{
  struct end *e = lua_touserdata(L, 1);
  lua_settop(L, 0);
  luaL_checkstack(L, e->nres + 16, "too many results");
  lua_xmove(e->t->co, L, e->nres);
  e->t->finish(L, e->t, e->nres);
  return 0;
}

static int end_error(lua_State *L)
{
  struct end *e = lua_touserdata(L, 1);
  struct mr_lua_task *t = e->t;
  struct mr_lua_vm *s = t->s;
  lua_settop(L, 0);
  lua_xmove(t->co, L, 1);
  mr_lua_errtext(L, s, 1, e->msg, sizeof e->msg);
  int level = t->cancelled ? MR_LOG_DEBUG : MR_LOG_ERROR;
  mr_lua_log(s, level, t->label, lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : e->msg);
  luaL_traceback(L, t->co, NULL, 0);
  mr_lua_log(s, level, t->label, lua_tostring(L, -1));
  return 0;
}

static int forget(lua_State *L)
{
  struct mr_lua_task *t = lua_touserdata(L, 1);
  lua_pushnil(L);
  set_by_id(L, t->s->ref_tasks, t->id);
  lua_pushnil(L);
  set_by_id(L, t->s->ref_ids, t->id);
  return 0;
}

static void end_task(struct mr_lua_task *t, bool ok, int nres)
{
  struct mr_lua_vm *s = t->s;
  struct end e = {.t = t, .nres = nres};
  char msg[512];
  t->state = MR_TS_DEAD;
  drop_alarm(t);
  if (t->pend) { /* armed, but the task went on without it */
    struct mr_lua_pend *p = t->pend;
    t->pend = NULL;
    p->task = NULL;
    p->undo(p);
  }
  if (ok) {
    if (mr_lua_protect(s, end_ok, &e, e.msg, sizeof e.msg) != MR_OK) {
      if (!t->cancelled) mr_lua_log(s, MR_LOG_ERROR, t->label, e.msg);
      t->fail(t, e.msg);
    }
  } else {
    if (nres >= 0 && mr_lua_protect(s, end_error, &e, msg, sizeof msg) != MR_OK)
      snprintf(e.msg, sizeof e.msg, "%s", msg);
    if (nres < 0) snprintf(e.msg, sizeof e.msg, "cancelled: %s", mr_lua_task_why(t));
    t->fail(t, e.msg);
    mr_lua_slice_begin(s, t->co, CLOSE_MS); /* its to-be-closed variables are user code */
    mr_compat_reset(t->co, s->L);
    mr_lua_slice_end(s, t->co);
  }
  while (t->child) {
    struct mr_lua_task *c = t->child;
    mr_lua_task_cancel(c, "the task that started it ended");
    t->child = c->sib_next;
    c->parent = c->sib_prev = c->sib_next = NULL;
    if (t->child) t->child->sib_prev = NULL;
  }
  while (t->joiners) {
    struct mr_lua_pend *p = t->joiners;
    t->joiners = p->next;
    mr_lua_pend_value(p, NULL, NULL);
  }
  if (t->res != LUA_NOREF) luaL_unref(s->L, LUA_REGISTRYINDEX, t->res);
  mr_lua_protect(s, forget, t, msg, sizeof msg);
  unlink_task(t);
  mr_lua_gen_unref(s, t->gen);
  mr_lua_free(t->why);
  mr_lua_free(t);
}

/* ----------------------------------------------------------------- resuming */

static int push_cancelled(lua_State *L)
{
  struct mr_lua_task *t = lua_touserdata(L, 1);
  struct mr_err e = {.size = sizeof e};
  mr_lua_err(&e, MR_E_CANCELLED, "%s", mr_lua_task_why(t));
  mr_lua_push_err(L, t->s, &e);
  t->res = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

/* Results of a wait, as lua/moonrig/wait.lua reads them: true, values...; or false, error. */
static int push_results(struct mr_lua_task *t)
{
  struct mr_lua_vm *s = t->s;
  char msg[64];
  int n = 1;
  if (t->raise) mr_lua_protect(s, push_cancelled, t, msg, sizeof msg);
  lua_pushboolean(t->co, !t->raise);
  if (t->failed) lua_pushnil(t->co), n++;
  if (t->res != LUA_NOREF || t->raise || t->failed) {
    if (t->res == LUA_NOREF)
      lua_pushboolean(t->co, 0); /* no memory for an error value */
    else
      lua_rawgeti(t->co, LUA_REGISTRYINDEX, t->res);
    n++;
  }
  luaL_unref(s->L, LUA_REGISTRYINDEX, t->res);
  t->res = LUA_NOREF;
  t->settled = t->raise = t->failed = false;
  return n;
}

static void run(struct mr_lua_task *t)
{
  struct mr_lua_vm *s = t->s;
  int n = t->nargs, nres = 0;
  if (t->state == MR_TS_NEW) {
    if (t->cancelled || s->closing) {
      end_task(t, false, -1);
      return;
    }
  } else {
    n = push_results(t);
  }
  t->pend = NULL;
  t->state = MR_TS_RUNNING;
  mr_lua_make_room(s);
  s->current = t;
  mr_lua_slice_begin(s, t->co, s->closing ? CLOSE_MS : s->o.burst_ms);
  int rc = mr_compat_resume(t->co, s->L, n, &nres);
  mr_lua_slice_end(s, t->co);
  s->current = NULL;
  if (rc == LUA_YIELD) {
    bool ours = nres == 1 && lua_touserdata(t->co, -1) == s;
    lua_pop(t->co, nres);
    if (ours && (t->pend || t->settled)) {
      t->state = MR_TS_WAITING;
      if (t->settled) mr_lua_ready(t);
      return;
    }
    lua_pushliteral(t->co, "coroutine.yield outside of a coroutine of the script");
    end_task(t, false, 1);
    return;
  }
  end_task(t, rc == 0, nres);
}

void mr_lua_run_ready(struct mr_lua_vm *s)
{
  /* Only those that are ready now: what they make ready waits for the next round, after a dispatch. */
  struct mr_lua_task *last = s->ready_tail;
  while (s->ready) {
    struct mr_lua_task *t = s->ready;
    bool end = t == last;
    s->ready = t->ready_next;
    if (!s->ready) s->ready_tail = NULL;
    run(t);
    if (end) break;
  }
}

/* ------------------------------------------------------------------ natives */

static void spawn_finish(lua_State *L, struct mr_lua_task *t, int nres)
{
  (void)nres;
  luaL_unref(L, LUA_REGISTRYINDEX, t->handle);
  t->handle = LUA_NOREF;
}

struct failure {
  struct mr_lua_task *t;
  const char *msg;
};

static int tell_handle(lua_State *L)
{
  struct failure *f = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, f->t->handle);
  luaL_unref(L, LUA_REGISTRYINDEX, f->t->handle);
  f->t->handle = LUA_NOREF;
  lua_pushboolean(L, 1);
  lua_setfield(L, -2, "done");
  lua_pushstring(L, f->msg);
  lua_setfield(L, -2, "failure");
  return 0;
}

/* The function could not even handle its error: its budget was spent, or it never began. */
static void spawn_fail(struct mr_lua_task *t, const char *msg)
{
  struct failure f = {t, msg};
  char why[64];
  if (t->handle != LUA_NOREF) mr_lua_protect(t->s, tell_handle, &f, why, sizeof why);
}

/* spawn(fn, handle, ...) -> id. fn catches its own errors and puts them into the handle, a table. */
static int n_spawn(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  luaL_checktype(L, 1, LUA_TFUNCTION);
  if (s->ntasks >= s->o.tasks_max) return mr_lua_raise(L, "too many tasks: %d are alive", s->ntasks);
  if (!s->current) return mr_lua_raise(L, "a task can only be started by a task (rig.main or a handler)");
  if (s->current->cancelled) return mr_lua_raise_cancelled(L, s->current);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_pushvalue(L, 2);
  int handle = luaL_ref(L, LUA_REGISTRYINDEX);
  struct mr_lua_task *t =
      mr_lua_task_new(L, s, s->current->gen, MR_TASK_SPAWN, lua_gettop(L) - 1, s->current->label);
  t->handle = handle;
  t->finish = spawn_finish;
  t->fail = spawn_fail;
  lua_pushinteger(L, (lua_Integer)t->id);
  return 1;
}

static void undo_join(struct mr_lua_pend *p)
{
  struct mr_lua_pend **at = p->list;
  while (*at != p)
    at = &(*at)->next;
  *at = p->next;
  mr_lua_pend_drop(p);
}

/* join(id): waits for the end of a task. */
static int n_join(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  uint64_t id = (uint64_t)luaL_checknumber(L, 1);
  mr_lua_may_wait(L, s, "wait");
  struct mr_lua_task *t = mr_lua_task_find(L, s, id);
  if (t == s->current) return mr_lua_raise(L, "a task cannot wait for itself");
  if (!t) {
    lua_pushboolean(L, 1);
    return 1;
  }
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_join);
  if (!p) return luaL_error(L, "out of memory");
  p->list = &t->joiners;
  p->next = t->joiners;
  t->joiners = p;
  return mr_lua_pend_wait(L, p);
}

/* cancel(id, why) */
static int n_cancel(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_lua_task *t = mr_lua_task_find(L, s, (uint64_t)luaL_checknumber(L, 1));
  if (t) mr_lua_task_cancel(t, luaL_optstring(L, 2, "cancelled by the script"));
  lua_pushboolean(L, t != NULL);
  return 1;
}

static int n_cancelled(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  lua_pushboolean(L, s->current && s->current->cancelled);
  return 1;
}

/* current() -> id, or nil outside of a task */
static int n_current(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  if (!s->current) return 0;
  lua_pushinteger(L, (lua_Integer)s->current->id);
  return 1;
}

/* label() -> what the log calls the running task: "tool purchase_order" */
static int n_label(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  lua_pushstring(L, s->current ? s->current->label : "script");
  return 1;
}

const luaL_Reg mr_lua_task_natives[] = {
    {"spawn", n_spawn},     {"join", n_join},   {"cancel", n_cancel}, {"cancelled", n_cancelled},
    {"current", n_current}, {"label", n_label}, {NULL, NULL}};
