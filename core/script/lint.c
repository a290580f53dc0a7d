/*
 * lint - loads scripts to look at them: for `moonrig lint`. What is judged is lua/moonrig/lint.lua's.
 *
 * The load is a reload's, with s->lint set: a file that fails is noted and the next one is loaded; when one spends
 * the time budget, the next gets a new one. Nothing is applied, no check or handler runs.
 *
 * The thread that calls mr_script_lint.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include "script/script_t.h"

enum { READ_MS = 60 * 1000 }; /* of CPU, for reading all that was loaded */

struct job {
  struct mr_lua_vm *s;
  struct mr_lua_gen *g;
  const char *stored;
  void (*fn)(void *ud, const char *p, size_t n);
  void *ud;
};

static void new_slice(struct mr_lua_vm *s, int ms)
{
  mr_lua_slice_end(s, s->L);
  mr_lua_slice_begin(s, s->L, ms);
}

LJMP void mr_lua_lint_call(lua_State *L, struct mr_lua_vm *s, int g, const char *path, int nargs)
{
  int rc = lua_pcall(L, nargs, 0, 0);
  if (s->spent) new_slice(s, s->o.load_ms);
  if (rc == 0) return;
  luaL_checkstack(L, 8, "lint");
  mr_lua_entry(L, s, "lint_failed");
  lua_pushvalue(L, g);
  lua_pushstring(L, path);
  lua_pushvalue(L, -4);
  lua_call(L, 3, 0);
  lua_pop(L, 1);
}

/* A list of { path =, text = } of all that was loaded. */
static LJMP void push_files(lua_State *L, const struct mr_lua_gen *g)
{
  int i = 0;
  lua_createtable(L, g->nfiles, 0);
  for (const struct mr_lua_file *f = g->files; f; f = f->next) {
    lua_createtable(L, 0, 2);
    lua_pushstring(L, f->path);
    lua_setfield(L, -2, "path");
    lua_pushlstring(L, f->text, f->n);
    lua_setfield(L, -2, "text");
    lua_rawseti(L, -2, ++i);
  }
}

static int run(lua_State *L)
{
  struct job *j = lua_touserdata(L, 1);
  struct mr_lua_vm *s = j->s;
  size_t n;
  lua_settop(L, 0);
  mr_lua_gen_push(L, j->g);
  lua_getglobal(L, "require"); /* its entries; other VMs do without */
  lua_pushliteral(L, "moonrig.lint");
  lua_call(L, 1, 0);
  mr_lua_entry(L, s, "lint_begin");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 0);
  for (size_t i = 0; i < s->o.npaths; i++)
    mr_lua_load_path(L, s, 1, s->o.paths[i]);
  new_slice(s, READ_MS);
  mr_lua_entry(L, s, "validate");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 0);
  mr_lua_entry(L, s, "lint_finish");
  lua_pushvalue(L, 1);
  push_files(L, j->g);
  if (j->stored)
    lua_pushstring(L, j->stored);
  else
    lua_pushnil(L);
  lua_call(L, 3, 1);
  const char *json = lua_tolstring(L, -1, &n);
  if (!json) return luaL_error(L, "the report could not be written");
  j->fn(j->ud, json, n);
  return 0;
}

int mr_lua_lint(struct mr_lua_vm *s, const char *stored, void (*fn)(void *ud, const char *p, size_t n),
                void *ud, struct mr_err *err)
{
  struct job j = {.s = s, .stored = stored, .fn = fn, .ud = ud};
  struct stat st;
  char msg[384];
  for (size_t i = 0; i < s->o.npaths; i++)
    if (stat(s->o.paths[i], &st) != 0)
      return mr_lua_err(err, MR_E_NOTFOUND, "cannot read %s: %s", s->o.paths[i], strerror(errno));
  int rc = mr_lua_gen_new(s, &j.g, err);
  if (rc) return rc;
  s->lint = true;
  s->loading = j.g;
  mr_lua_slice_begin(s, s->L, s->o.load_ms);
  rc = mr_lua_protect(s, run, &j, msg, sizeof msg);
  mr_lua_slice_end(s, s->L);
  s->loading = NULL;
  mr_lua_gen_unref(s, j.g);
  return rc ? mr_lua_err(err, rc, "%s", msg) : MR_OK;
}
