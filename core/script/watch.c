/*
 * watch - notices that scripts changed: a stamp of every file that a load attempt saw, compared with what
 * lies there now, and watches on the directories that say when to compare.
 *
 * A stamp is taken before its file is read, so an edit during a load shows as a change after it. Stamps of
 * a refused load count too: the same broken files are not loaded again and again. Scripts may write beside
 * themselves (output, logs): only files that were loaded, and .lua files that would be, matter.
 *
 * Script thread.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "script/script_t.h"

static void stamp_of(const char *path, char *out, size_t n)
{
  struct stat st;
  if (stat(path, &st))
    snprintf(out, n, "none");
  else
    snprintf(out, n, "%lld.%09ld %lld %llu", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
             (long long)st.st_size, (unsigned long long)st.st_ino);
}

/* stamps[path] = its stamp, unless there is one already; stamps at the top of the stack */
static LJMP void note(lua_State *L, const char *path)
{
  char stamp[96];
  lua_getfield(L, -1, path);
  bool known = !lua_isnil(L, -1);
  lua_pop(L, 1);
  if (known) return;
  stamp_of(path, stamp, sizeof stamp);
  lua_pushstring(L, stamp);
  lua_setfield(L, -2, path);
}

LJMP void mr_lua_stamp_note(lua_State *L, struct mr_lua_vm *s, int g, const char *real)
{
  lua_getfield(L, g, "number");
  int64_t number = (int64_t)lua_tonumber(L, -1);
  lua_pop(L, 1);
  if (number != s->stamped && (!s->cur || number != s->cur->number)) return; /* an older one requires late */
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_stamps);
  note(L, real);
  lua_pop(L, 1);
}

struct scan {
  struct mr_lua_vm *s;
  struct mr_lua_paths *files, *dirs;
  bool differs;
};

static void make_real(struct mr_lua_paths *l)
{
  char real[PATH_MAX];
  for (int i = 0; i < l->n; i++) {
    char *d = realpath(l->v[i], real) ? mr_lua_strdup(real) : NULL;
    if (!d) continue;
    mr_lua_free(l->v[i]);
    l->v[i] = d;
  }
}

/* What the options name, as it lies there now. */
static void list_options(struct scan *x)
{
  const struct mr_script_opts *o = &x->s->o;
  struct stat st;
  char dir[PATH_MAX];
  for (size_t i = 0; i < o->npaths + 1; i++) {
    const char *path = i < o->npaths ? o->paths[i] : o->offline_model;
    if (!path) continue;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
      mr_lua_paths_walk(path, x->files, x->dirs);
      continue;
    }
    mr_lua_paths_add(x->files, path);
    mr_lua_dir_of(path, dir, sizeof dir);
    mr_lua_paths_add(x->dirs, dir);
  }
  make_real(x->files);
  make_real(x->dirs);
}

/* ... and what the last load reached otherwise: by require, by rig.file. */
static int list_stamped(lua_State *L)
{
  struct scan *x = lua_touserdata(L, 1);
  char dir[PATH_MAX];
  lua_settop(L, 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, x->s->ref_stamps);
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    const char *path = lua_tostring(L, -2);
    mr_lua_paths_add(x->files, path);
    mr_lua_dir_of(path, dir, sizeof dir);
    mr_lua_paths_add(x->dirs, dir);
  }
  return 0;
}

static bool scan(struct mr_lua_vm *s, struct scan *x)
{
  char msg[64];
  *x = (struct scan){s, mr_lua_alloc(sizeof *x->files), mr_lua_alloc(sizeof *x->dirs), false};
  if (!x->files || !x->dirs) return false;
  list_options(x);
  mr_lua_protect(s, list_stamped, x, msg, sizeof msg);
  mr_lua_paths_sort(x->files);
  mr_lua_paths_sort(x->dirs);
  return true;
}

static void drop_scan(struct scan *x)
{
  mr_lua_paths_free(x->s, x->files);
  mr_lua_paths_free(x->s, x->dirs);
}

static int compare(lua_State *L)
{
  struct scan *x = lua_touserdata(L, 1);
  char stamp[96];
  lua_settop(L, 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, x->s->ref_stamps);
  for (int i = 0; i < x->files->n && !x->differs; i++) {
    stamp_of(x->files->v[i], stamp, sizeof stamp);
    lua_getfield(L, 1, x->files->v[i]);
    const char *was = lua_tostring(L, -1);
    x->differs = !was || strcmp(was, stamp) != 0;
    lua_pop(L, 1);
  }
  return 0;
}

bool mr_lua_files_changed(struct mr_lua_vm *s)
{
  struct scan x;
  char msg[64];
  if (scan(s, &x)) mr_lua_protect(s, compare, &x, msg, sizeof msg);
  drop_scan(&x);
  return x.differs;
}

static int restart(lua_State *L)
{
  struct scan *x = lua_touserdata(L, 1);
  lua_settop(L, 0);
  lua_newtable(L);
  for (int i = 0; i < x->files->n; i++)
    note(L, x->files->v[i]);
  lua_rawseti(L, LUA_REGISTRYINDEX, x->s->ref_stamps);
  return 0;
}

void mr_lua_stamps_restart(struct mr_lua_vm *s, int64_t number)
{
  struct scan x = {s, mr_lua_alloc(sizeof *x.files), mr_lua_alloc(sizeof *x.dirs), false};
  char msg[64];
  s->stamped = number;
  if (x.files && x.dirs) {
    list_options(&x);
    mr_lua_paths_sort(x.files);
    mr_lua_protect(s, restart, &x, msg, sizeof msg);
  }
  drop_scan(&x);
}

static void on_watch(void *ud, struct mr_str path)
{
  struct mr_lua_vm *s = ud;
  (void)path;
  if (atomic_load(&s->slice) == MR_SLICE_GONE) return;
  s->watch_hit = true; /* the loop compares: outside of callbacks */
}

void mr_lua_unwatch(struct mr_lua_vm *s)
{
  while (s->nwatches)
    s->ext->watch_cancel(s->rt, s->watches[--s->nwatches]);
}

void mr_lua_watch(struct mr_lua_vm *s)
{
  struct mr_err err = {.size = sizeof err};
  struct scan x;
  int max = (int)(sizeof s->watches / sizeof s->watches[0]);
  mr_lua_unwatch(s);
  if (!s->o.watch || s->closing) return;
  if (scan(s, &x)) {
    if (x.dirs->n > max)
      mr_lua_log(s, MR_LOG_WARN, "script", "too many script directories to watch all; use moonrig reload");
    for (int i = 0; i < x.dirs->n && s->nwatches < max; i++) {
      if (s->ext->watch(s->rt, x.dirs->v[i], on_watch, s, &s->watches[s->nwatches], &err) == MR_OK)
        s->nwatches++;
      else
        mr_lua_log(s, MR_LOG_WARN, "script", err.message);
    }
  }
  drop_scan(&x);
}
