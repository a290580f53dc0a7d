/*
 * test - what lua/moonrig/test.lua needs of C, in the VM of a test file alone (opts.test): loading scripts as a
 * generation in the middle of a test, the clock, the log, what still runs, a directory that goes away.
 *
 * Nothing here is on the path of a program that serves: the seams are mr_lua_vm.between, called after a dispatch
 * and outside of tasks, and the table native.test, which the library's own modules never look at. What plays
 * HTTP and models is Lua (moonrig.test_seams), loaded before the modules that it stands in for.
 *
 * Invariant: scripts under test are loaded by mr_lua_gen_reload, as by a server; the test file's own generation
 * is the first, its tasks stay on it.
 *
 * Script thread only.
 */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "script/script_t.h"

enum { LOG_MAX = 1 << 20 };

struct mr_lua_test {
  const struct mr_script_test *o;
  struct mr_lua_paths *paths; /* of the scripts under test; the options' were the test file's */
  struct mr_lua_pend *load;   /* who waits for a load */
  struct mr_lua_pend *pauses; /* who waits for real time; id is its end */
  uint64_t task;              /* the test that runs, and its end in real time */
  int64_t end_us;
};

/* -------------------------------------------------------- between the tasks */

static void push_true(lua_State *L, void *ud)
{
  (void)ud;
  lua_pushboolean(L, 1);
}

static void load_now(struct mr_lua_vm *s)
{
  struct mr_err err = {.size = sizeof err};
  struct mr_lua_test *k = s->test;
  struct mr_lua_pend *p = k->load;
  k->load = NULL;
  int rc = mr_lua_gen_reload(s, &err);
  if (rc)
    mr_lua_pend_fail(p, rc, &err);
  else
    mr_lua_pend_value(p, push_true, NULL);
}

static void end_pauses(struct mr_lua_vm *s, int64_t now)
{
  struct mr_lua_pend **at = &s->test->pauses;
  while (*at) {
    struct mr_lua_pend *p = *at;
    if ((int64_t)p->id > now) {
      at = &p->next;
      continue;
    }
    *at = p->next;
    mr_lua_pend_value(p, NULL, NULL);
  }
}

static void late(struct mr_lua_vm *s)
{
  struct mr_lua_test *k = s->test;
  char why[96];
  k->end_us = 0;
  snprintf(why, sizeof why, "the test took longer than %g s (time stands still: t.advance moves it)",
           k->o->timeout_ms / 1000.0);
  for (struct mr_lua_task *t = s->tasks; t; t = t->next)
    if (t->id == k->task) mr_lua_task_cancel(t, why);
}

static void between(struct mr_lua_vm *s)
{
  struct mr_lua_test *k = s->test;
  int64_t now = mr_lua_mono_us();
  if (k->load) load_now(s);
  end_pauses(s, now);
  if (k->end_us && now > k->end_us) late(s);
}

/* ------------------------------------------------------------------ natives */

static LJMP struct mr_lua_vm *vm_of(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  if (atomic_load_explicit(&s->slice, memory_order_relaxed) == MR_SLICE_GONE)
    luaL_error(L, "stuck: this test was given up");
  return s;
}

static void undo_load(struct mr_lua_pend *p)
{
  p->s->test->load = NULL;
  mr_lua_pend_drop(p);
}

/* load(list of paths): these, and no others, become the current scripts. Waits: true, true; or true, nil, err */
static int n_load(lua_State *L)
{
  struct mr_lua_vm *s = vm_of(L);
  struct mr_lua_test *k = s->test;
  luaL_checktype(L, 1, LUA_TTABLE);
  mr_lua_may_wait(L, s, "t.load");
  if (k->load) return mr_lua_raise(L, "t.load: another task loads scripts already");
  struct mr_lua_box *box = mr_lua_box(L, s, mr_lua_paths_free);
  struct mr_lua_paths *l = box->p = mr_lua_alloc(sizeof *l);
  if (!l) return luaL_error(L, "out of memory");
  for (int i = 1, n = (int)mr_compat_rawlen(L, 1); i <= n; i++) {
    lua_rawgeti(L, 1, i);
    mr_lua_paths_add(l, luaL_checkstring(L, -1));
    lua_pop(L, 1);
  }
  if (l->full) return mr_lua_raise(L, "t.load: too many scripts");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_load);
  if (!p) return luaL_error(L, "out of memory");
  mr_lua_paths_free(s, k->paths);
  k->paths = l;
  box->p = NULL;
  s->o.paths = (const char *const *)l->v;
  s->o.npaths = (size_t)l->n;
  k->load = p;
  return mr_lua_pend_wait(L, p);
}

static void undo_pause(struct mr_lua_pend *p)
{
  struct mr_lua_pend **at = &p->s->test->pauses;
  while (*at != p)
    at = &(*at)->next;
  *at = p->next;
  mr_lua_pend_drop(p);
}

/* pause(ms): real time, for what the runtime does in threads of its own */
static int n_pause(lua_State *L)
{
  struct mr_lua_vm *s = vm_of(L);
  lua_Number ms = luaL_checknumber(L, 1);
  mr_lua_may_wait(L, s, "this");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_pause);
  if (!p) return luaL_error(L, "out of memory");
  p->id = (uint64_t)(mr_lua_mono_us() + (int64_t)(ms * 1000));
  p->next = s->test->pauses;
  s->test->pauses = p;
  return mr_lua_pend_wait(L, p);
}

/* advance(us) */
static int n_advance(lua_State *L)
{
  const struct mr_script_test *o = vm_of(L)->test->o;
  o->advance(o->ud, (int64_t)luaL_checknumber(L, 1));
  return 0;
}

/* current() -> the table of the scripts under test */
static int n_current(lua_State *L)
{
  struct mr_lua_vm *s = vm_of(L);
  if (!s->cur) return 0;
  mr_lua_gen_push(L, s->cur);
  return 1;
}

/* last_error() -> of the load or start of the scripts; "" */
static int n_last_error(lua_State *L)
{
  lua_pushstring(L, vm_of(L)->last_error);
  return 1;
}

/* tasks() -> { { id, label }, ... } besides rig.main and what generations start */
static int n_tasks(lua_State *L)
{
  struct mr_lua_vm *s = vm_of(L);
  int n = 0;
  lua_newtable(L);
  for (struct mr_lua_task *t = s->tasks; t; t = t->next) {
    struct mr_lua_task *top = t;
    while (top->parent)
      top = top->parent;
    if (t->kind == MR_TASK_MAIN || top->kind == MR_TASK_START) continue;
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, (lua_Integer)t->id);
    lua_setfield(L, -2, "id");
    lua_pushstring(L, t->kind == MR_TASK_SPAWN ? "a task of rig.spawn" : t->label);
    lua_setfield(L, -2, "label");
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* limit(task id | nil): the time of this test begins */
static int n_limit(lua_State *L)
{
  struct mr_lua_test *k = vm_of(L)->test;
  k->task = (uint64_t)luaL_optnumber(L, 1, 0);
  k->end_us = k->task ? mr_lua_mono_us() + (int64_t)k->o->timeout_ms * 1000 : 0;
  return 0;
}

/* logged(from) -> the log's text from this byte on */
static int n_logged(lua_State *L)
{
  const struct mr_script_test *o = vm_of(L)->test->o;
  size_t from = (size_t)luaL_checknumber(L, 1);
  char *buf = lua_newuserdata(L, LOG_MAX);
  size_t n = o->logged(o->ud, from, buf, LOG_MAX);
  lua_pushlstring(L, buf, n < LOG_MAX ? n : LOG_MAX);
  return 1;
}

static int n_result(lua_State *L)
{
  const struct mr_script_test *o = vm_of(L)->test->o;
  struct mr_str json;
  json.p = luaL_checklstring(L, 1, &json.n);
  o->result(o->ud, json);
  return 0;
}

/* elapsed() -> real seconds, for reports */
static int n_elapsed(lua_State *L)
{
  lua_pushnumber(L, (lua_Number)mr_lua_mono_us() / 1e6);
  return 1;
}

/* tmp() -> the path of a new directory */
static int n_tmp(lua_State *L)
{
  const char *base = getenv("TMPDIR");
  char path[1024];
  snprintf(path, sizeof path, "%s/moonrig-test.XXXXXX", base && *base == '/' ? base : "/tmp");
  if (!mkdtemp(path)) return mr_lua_raise(L, "t.tmp: no directory can be made in %s", base ? base : "/tmp");
  lua_pushstring(L, path);
  return 1;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *f)
{
  (void)st, (void)kind, (void)f;
  return remove(path);
}

/* remove(path): of tmp(), with all that is in it */
static int n_remove(lua_State *L)
{
  const char *path = luaL_checkstring(L, 1);
  if (!strstr(path, "/moonrig-test.")) return mr_lua_raise(L, "not a directory of t.tmp");
  lua_pushboolean(L, nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) == 0);
  return 1;
}

/* exists(path) -> is it there? */
static int n_exists(lua_State *L)
{
  lua_pushboolean(L, access(luaL_checkstring(L, 1), F_OK) == 0);
  return 1;
}

/* ------------------------------------------------------------------ opening */

static const luaL_Reg natives[] = {{"load", n_load},       {"pause", n_pause},   {"advance", n_advance},
                                   {"current", n_current}, {"tasks", n_tasks},   {"last_error", n_last_error},
                                   {"limit", n_limit},     {"logged", n_logged}, {"result", n_result},
                                   {"elapsed", n_elapsed}, {"tmp", n_tmp},       {"remove", n_remove},
                                   {"exists", n_exists},   {NULL, NULL}};

LJMP void mr_lua_test_open(lua_State *L, struct mr_lua_vm *s)
{
  struct mr_lua_test *k = s->test = mr_lua_alloc(sizeof *k);
  if (!k) luaL_error(L, "out of memory");
  k->o = s->o.test;
  lua_getglobal(L, "require");
  lua_pushliteral(L, "moonrig.native");
  lua_call(L, 1, 1);
  lua_newtable(L);
  for (const luaL_Reg *r = natives; r->name; r++) {
    lua_pushlightuserdata(L, s);
    lua_pushcclosure(L, r->func, 1);
    lua_setfield(L, -2, r->name);
  }
  lua_pushstring(L, k->o->root);
  lua_setfield(L, -2, "root");
  lua_pushstring(L, k->o->only);
  lua_setfield(L, -2, "only");
  lua_pushstring(L, s->o.npaths ? s->o.paths[0] : "");
  lua_setfield(L, -2, "file");
  lua_setfield(L, -2, "test");
  lua_getglobal(L, "require");
  lua_pushliteral(L, "moonrig.test_seams");
  lua_call(L, 1, 0);
  lua_pop(L, 1);
  s->between = between;
}

void mr_lua_test_close(struct mr_lua_vm *s)
{
  if (s->test) mr_lua_paths_free(s, s->test->paths);
  mr_lua_free(s->test);
  s->test = NULL;
  s->between = NULL;
}
