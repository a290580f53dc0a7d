/*
 * reload - generations: all scripts loaded together, checked together, made current by one pointer.
 *
 * Loading runs the top-level code in phase load: declarations are collected in the generation's Lua table,
 * nothing is registered, nothing may wait. Then boot.lua checks everything and makes the plan: what the
 * core shall know. Applying the plan registers tools (by name, behind a trampoline that looks the handler
 * up when a call arrives), hooks and providers. No call is dispatched in between, as this is the thread
 * that dispatches; so a call sees one generation or the other, wholly. Any error leaves the old one.
 *
 * Script thread, outside of callbacks.
 */
#include <stdio.h>
#include "script/script_t.h"

struct mr_lua_gen *mr_lua_gen_here(struct mr_lua_vm *s)
{
  if (s->current) return s->current->gen;
  return s->loading ? s->loading : s->cur;
}

void mr_lua_gen_ref(struct mr_lua_gen *g)
{
  g->refs++;
}

void mr_lua_gen_unref(struct mr_lua_vm *s, struct mr_lua_gen *g)
{
  if (!g || --g->refs > 0) return;
  struct mr_lua_gen **at = &s->gens;
  while (*at != g)
    at = &(*at)->next;
  *at = g->next;
  for (struct mr_lua_rec *r = s->recs; r; r = r->next)
    if (r->gen == g) r->gen = NULL;
  luaL_unref(s->L, LUA_REGISTRYINDEX, g->ref);
  mr_lua_files_free(g->files);
  mr_lua_free(g);
}

LJMP void mr_lua_gen_push(lua_State *L, struct mr_lua_gen *g)
{
  lua_rawgeti(L, LUA_REGISTRYINDEX, g->ref);
}

/* ----------------------------------------------------------------- loading */

struct load {
  struct mr_lua_vm *s;
  struct mr_lua_gen *g;
  struct mr_err *err;
  int rc;
};

static int begin(lua_State *L)
{
  struct load *l = lua_touserdata(L, 1);
  struct mr_lua_vm *s = l->s;
  lua_settop(L, 0);
  lua_newtable(L);
  lua_pushinteger(L, (lua_Integer)l->g->number);
  lua_setfield(L, -2, "number");
  lua_newtable(L);
  lua_setfield(L, -2, "loaded");
  lua_newtable(L);
  lua_setfield(L, -2, "roots");
  if (s->o.root) {
    lua_getfield(L, -1, "roots");
    lua_pushstring(L, s->o.root);
    lua_rawseti(L, -2, 1);
    lua_pop(L, 1);
  }
  mr_lua_entry(L, s, "begin");
  lua_pushvalue(L, -2);
  lua_call(L, 1, 0);
  l->g->ref = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

static int load_all(lua_State *L)
{
  struct load *l = lua_touserdata(L, 1);
  struct mr_lua_vm *s = l->s;
  lua_settop(L, 0);
  mr_lua_gen_push(L, l->g);
  if (s->replay)
    mr_lua_load_replay(L, s, 1);
  else
    for (size_t i = 0; i < s->o.npaths; i++)
      mr_lua_load_path(L, s, 1, s->o.paths[i]);
  if (s->o.offline_model) {
    mr_lua_entry(L, s, "offline");
    lua_pushvalue(L, 1);
    lua_pushstring(L, s->o.offline_model);
    mr_lua_load_file(L, s, 1, s->o.offline_model, NULL);
    lua_call(L, 3, 0);
  }
  mr_lua_entry(L, s, "validate");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  lua_setfield(L, 1, "plan");
  lua_gc(L, LUA_GCCOLLECT, 0); /* of loading, and of the generation that may be gone */
  return 0;
}

/* Tells the library's entry of this name about the generation: "current" or "refused". */
struct news {
  struct mr_lua_vm *s;
  struct mr_lua_gen *g;
  const char *entry;
};

static int tell_library(lua_State *L)
{
  struct news *n = lua_touserdata(L, 1);
  lua_settop(L, 0);
  mr_lua_entry(L, n->s, n->entry);
  mr_lua_gen_push(L, n->g);
  lua_call(L, 1, 0);
  return 0;
}

static void tell(struct mr_lua_vm *s, struct mr_lua_gen *g, const char *entry)
{
  struct news n = {s, g, entry};
  char msg[256];
  if (mr_lua_protect(s, tell_library, &n, msg, sizeof msg) != MR_OK) mr_lua_log(s, MR_LOG_ERROR, "script", msg);
}

int mr_lua_gen_new(struct mr_lua_vm *s, struct mr_lua_gen **out, struct mr_err *err)
{
  char msg[384];
  struct mr_lua_gen *g = mr_lua_alloc(sizeof *g);
  if (!g) return mr_lua_err(err, MR_E_NOMEM, "out of memory");
  g->number = s->last_number + 1;
  g->ref = LUA_NOREF;
  g->refs = 1;
  g->files_tail = &g->files;
  g->next = s->gens;
  s->gens = g;
  struct load l = {s, g, err, MR_OK};
  int rc = mr_lua_protect(s, begin, &l, msg, sizeof msg);
  if (rc) {
    mr_lua_gen_unref(s, g);
    return mr_lua_err(err, rc, "%s", msg);
  }
  *out = g;
  return MR_OK;
}

static int load_generation(struct mr_lua_vm *s, struct mr_lua_gen **out, struct mr_err *err)
{
  char msg[384];
  struct mr_lua_gen *g = NULL;
  mr_lua_make_room(s);
  mr_lua_stamps_restart(s, s->last_number + 1);
  s->traced = false;
  int rc = mr_lua_gen_new(s, &g, err);
  if (rc) return rc;
  struct load l = {s, g, err, MR_OK};
  s->loading = g;
  mr_lua_slice_begin(s, s->L, s->o.load_ms);
  rc = mr_lua_protect(s, load_all, &l, msg, sizeof msg);
  mr_lua_slice_end(s, s->L);
  s->loading = NULL;
  if (rc) {
    tell(s, g, "refused");
    mr_lua_gen_unref(s, g);
    return mr_lua_err(err, rc, "%s", msg);
  }
  *out = g;
  return MR_OK;
}

/* ---------------------------------------------------------------- applying */

static int apply_plan(lua_State *L)
{
  struct load *l = lua_touserdata(L, 1);
  struct mr_lua_vm *s = l->s;
  lua_settop(L, 0);
  mr_lua_gen_push(L, l->g);
  lua_getfield(L, 1, "plan");
  l->rc = mr_lua_hooks_apply(L, s, l->g, 2, l->err);
  if (l->rc == MR_OK) l->rc = mr_lua_providers_apply(L, s, 2, l->err);
  if (l->rc == MR_OK) l->rc = mr_lua_tools_apply(L, s, 2, l->err);
  if (l->rc == MR_OK) l->rc = mr_lua_routes_apply(L, s, 2, l->err);
  if (l->rc == MR_OK) l->rc = mr_lua_watchers_apply(L, s, 2, l->err);
  return 0;
}

static int apply(struct mr_lua_vm *s, struct mr_lua_gen *g, struct mr_err *err)
{
  char msg[384];
  struct load l = {s, g, err, MR_OK};
  int rc = mr_lua_protect(s, apply_plan, &l, msg, sizeof msg);
  if (rc) return mr_lua_err(err, rc, "%s", msg);
  return l.rc;
}

static void start_done(lua_State *L, struct mr_lua_task *t, int nres)
{
  (void)L, (void)t, (void)nres;
}
static void start_failed(struct mr_lua_task *t, const char *msg)
{
  struct mr_lua_vm *s = t->s;
  if (t->cancelled || t->gen != s->cur) return;
  mr_lua_status_fail(s, msg);
}

static struct mr_lua_task *start_task(lua_State *L, struct mr_lua_vm *s)
{
  struct mr_lua_task *t = mr_lua_task_new(L, s, s->cur, MR_TASK_START, 1, "script start");
  t->finish = start_done;
  t->fail = start_failed;
  return t;
}

static int start(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, 1);
  lua_settop(L, 0);
  mr_lua_entry(L, s, "start");
  mr_lua_gen_push(L, s->cur);
  struct mr_lua_task *t = start_task(L, s);
  mr_lua_gen_push(L, s->cur);
  lua_pushinteger(L, (lua_Integer)t->id);
  lua_setfield(L, -2, "starting");
  mr_lua_entry(L, s, "schedule");
  mr_lua_gen_push(L, s->cur);
  start_task(L, s);
  return 0;
}

static void report(struct mr_lua_vm *s, struct mr_lua_try *t, int rc, const struct mr_err *err)
{
  char line[512];
  if (rc) {
    snprintf(t->error, sizeof t->error, "%s", err->message);
    if (s->cur)
      snprintf(line, sizeof line, "%s refused, generation %lld stays: %s", t->what, (long long)s->cur->number,
               err->message);
    else
      snprintf(line, sizeof line, "%s refused: %s", t->what, err->message);
    mr_lua_log(s, MR_LOG_ERROR, "script", line);
  } else {
    snprintf(line, sizeof line, "%s: generation %lld is current", t->what, (long long)s->cur->number);
    mr_lua_log(s, MR_LOG_INFO, "script", line);
    if (s->cur->nfiles == 0 && s->o.npaths > 0) {
      snprintf(line, sizeof line, "there is no script in %.200s%s: no .lua file, and no agent in agents/",
               s->o.paths[0], s->o.npaths > 1 ? " and the others" : "");
      mr_lua_log(s, MR_LOG_WARN, "script", line);
    }
  }
  mr_lua_status_note(s, t);
}

/* Makes g current; takes over the caller's reference. */
static int make_current(struct mr_lua_vm *s, struct mr_lua_gen *g, struct mr_err *err)
{
  char msg[128];
  struct mr_err ignored = {.size = sizeof ignored};
  int rc = apply(s, g, err);
  if (rc) {
    mr_lua_hooks_keep(s, s->cur);
    if (s->cur) { /* what was replaced on the way is put back */
      struct mr_lua_gen *cur = s->cur;
      if (apply(s, cur, &ignored) != MR_OK) mr_lua_log(s, MR_LOG_ERROR, "script", ignored.message);
    } else {
      mr_lua_recs_remove(s);
    }
    return rc;
  }
  mr_lua_hooks_keep(s, g);
  s->prev = s->cur;
  s->cur = g;
  tell(s, g, "current");
  for (struct mr_lua_task *t = s->tasks; t; t = t->next)
    if (t->kind == MR_TASK_START) mr_lua_task_cancel(t, "other scripts are current now");
  if (mr_lua_protect(s, start, s, msg, sizeof msg) != MR_OK) mr_lua_log(s, MR_LOG_ERROR, "script", msg);
  return MR_OK;
}

int mr_lua_gen_reload(struct mr_lua_vm *s, struct mr_err *err)
{
  struct mr_err e = {.size = sizeof e};
  struct mr_lua_gen *g = NULL, *old = s->prev;
  struct mr_lua_try t = {.at_us = s->ext->wall_us(s->rt), .number = s->last_number + 1};
  int64_t began = mr_lua_mono_us();
  snprintf(t.what, sizeof t.what, "%s", s->cur ? "reload" : "load");
  int rc = load_generation(s, &g, &e);
  char *places = rc ? strstr(e.message, ":\n\tno file ") : NULL;
  if (places) *places = '\0'; /* where a module was looked for: the log has them all */
  if (rc == MR_OK) {
    s->last_number = g->number;
    t.files = g->nfiles;
    rc = make_current(s, g, &e);
    if (rc) tell(s, g, "refused");
    mr_lua_gen_unref(s, rc ? g : old);
  }
  t.took_us = mr_lua_mono_us() - began;
  report(s, &t, rc, &e);
  if (rc && err) *err = e;
  return rc;
}

int mr_lua_gen_rollback(struct mr_lua_vm *s, struct mr_err *err)
{
  struct mr_err e = {.size = sizeof e};
  struct mr_lua_gen *to = s->prev;
  struct mr_lua_try t = {.what = "rollback", .at_us = s->ext->wall_us(s->rt)};
  int64_t began = mr_lua_mono_us();
  if (to) t.number = to->number, t.files = to->nfiles;
  int rc = to ? make_current(s, to, &e) : mr_lua_err(&e, MR_E_STATE, "there is no previous generation");
  t.took_us = mr_lua_mono_us() - began;
  report(s, &t, rc, &e);
  if (rc && err) *err = e;
  return rc;
}
