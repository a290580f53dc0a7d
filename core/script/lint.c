/*
 * lint - loads scripts to look at them: for `moonrig lint`. What is judged is lua/moonrig/lint.lua's.
 *
 * The load is a reload's, with s->lint set: a file that fails is noted and the next one is loaded; when one
 * spends the time budget, the next gets a new one. Nothing is applied, no check or handler runs. Several files
 * with a rig.main are programs, each run by itself, not one set of scripts: each is a pass of its own, in a
 * generation of its own.
 *
 * The thread that calls mr_script_lint.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include "script/script_t.h"

enum {
  READ_MS = 60 * 1000, /* of CPU, for reading all that was loaded */
  TEXT_MAX = 1 << 20
};

struct job {
  struct mr_lua_vm *s;
  struct mr_lua_gen *g;
  const char *stored;
  void (*fn)(void *ud, const char *p, size_t n);
  void *ud;
  const char *program; /* of this pass */
  bool last;
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

/* Loads what the pass is about: one program, or (program NULL) all paths but the programs. */
static LJMP void load_pass(lua_State *L, struct job *j)
{
  struct mr_lua_vm *s = j->s;
  if (j->program) mr_lua_load_path(L, s, 1, j->program);
  for (size_t i = 0; !j->program && i < s->o.npaths; i++)
    mr_lua_load_path(L, s, 1, s->o.paths[i]);
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
  load_pass(L, j);
  new_slice(s, READ_MS);
  mr_lua_entry(L, s, "validate");
  lua_pushvalue(L, 1);
  mr_lua_lint_call(L, s, 1, "", 1); /* "": of no file */
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
  if (j->last) j->fn(j->ud, json, n);
  return 0;
}

static int pass(struct job *j, const char *program, bool last, struct mr_err *err)
{
  struct mr_lua_vm *s = j->s;
  char msg[384];
  int rc = mr_lua_gen_new(s, &j->g, err);
  if (rc) return rc;
  j->program = program;
  j->last = last;
  s->loading = j->g;
  mr_lua_slice_begin(s, s->L, s->o.load_ms);
  rc = mr_lua_protect(s, run, j, msg, sizeof msg);
  mr_lua_slice_end(s, s->L);
  s->loading = NULL;
  mr_lua_gen_unref(s, j->g);
  return rc ? mr_lua_err(err, rc, "%s", msg) : MR_OK;
}

/* ---------------------------------------------------------------- programs */

static bool calls_main(const char *path)
{
  static const char *const forms[] = {"rig.main(", "rig.main "};
  char *text = mr_lua_alloc(TEXT_MAX + 1);
  FILE *f = text ? fopen(path, "re") : NULL;
  bool yes = false;
  size_t n = f ? fread(text, 1, TEXT_MAX, f) : 0;
  if (n) text[n] = 0;
  for (size_t i = 0; n && i < sizeof forms / sizeof *forms; i++)
    yes = yes || strstr(text, forms[i]) != NULL;
  if (f) fclose(f);
  mr_lua_free(text);
  return yes;
}

/* Files with a rig.main, when there are several: each is run by itself. */
static struct mr_lua_paths *find_programs(struct mr_lua_vm *s)
{
  struct mr_lua_paths *all = mr_lua_alloc(sizeof *all), *l = mr_lua_alloc(sizeof *l);
  struct stat st;
  char init[PATH_MAX];
  for (size_t i = 0; all && l && i < s->o.npaths; i++) {
    const char *path = s->o.paths[i];
    snprintf(init, sizeof init, "%s/init.lua", path);
    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
      mr_lua_paths_add(all, path);
    else if (stat(init, &st) != 0)
      mr_lua_paths_walk(path, all, NULL);
  }
  for (int i = 0; all && l && i < all->n; i++)
    if (calls_main(all->v[i])) mr_lua_paths_add(l, all->v[i]);
  mr_lua_paths_free(s, all);
  if (l && l->n >= 2) return l;
  mr_lua_paths_free(s, l);
  return NULL;
}

bool mr_lua_lint_skips(const struct mr_lua_vm *s, const char *path)
{
  const struct mr_lua_paths *l = s->lint_programs;
  for (int i = 0; l && i < l->n; i++)
    if (strcmp(l->v[i], path) == 0) return true;
  return false;
}

int mr_lua_lint(struct mr_lua_vm *s, const char *stored, void (*fn)(void *ud, const char *p, size_t n),
                void *ud, struct mr_err *err)
{
  struct job j = {.s = s, .stored = stored, .fn = fn, .ud = ud};
  struct stat st;
  for (size_t i = 0; i < s->o.npaths; i++)
    if (stat(s->o.paths[i], &st) != 0)
      return mr_lua_err(err, MR_E_NOTFOUND, "cannot read %s: %s", s->o.paths[i], strerror(errno));
  s->lint = true;
  struct mr_lua_paths *programs = find_programs(s);
  s->lint_programs = programs;
  int rc = pass(&j, NULL, !programs, err);
  s->lint_programs = NULL;
  for (int i = 0; rc == MR_OK && programs && i < programs->n; i++)
    rc = pass(&j, programs->v[i], i == programs->n - 1, err);
  mr_lua_paths_free(s, programs);
  return rc;
}
