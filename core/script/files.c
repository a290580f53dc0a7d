/*
 * files - where scripts come from: directories and files, require, and noticing changes.
 *
 * A directory with init.lua is that file; otherwise every .lua file below it is run, in the order of the
 * names, except names that start with "." or "_", directories "test" and "tests", and *_test.lua. A file
 * is run once a generation, however it is reached: values are kept by real path. `require` looks in the
 * generation's roots, then in package.path, then (C modules, shared by all generations) asks Lua's own.
 *
 * Script thread. Reading is plain blocking I/O: it happens while scripts load.
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "script/script_t.h"

enum { FILES_MAX = 2000, DEPTH_MAX = 8 };

/* ------------------------------------------------------------------- lists */

struct list { char *v[FILES_MAX]; int n; bool full; };

static void free_list(struct mr_script *s, void *p)
{
  struct list *l = p;
  (void)s;
  for (int i = 0; i < l->n; i++) mr_lua_free(l->v[i]);
  mr_lua_free(l);
}

static void add(struct list *l, const char *path)
{
  char *d = l->n < FILES_MAX ? mr_lua_strdup(path) : NULL;
  if (d)
    l->v[l->n++] = d;
  else
    l->full = true;
}

static int by_name(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_lua(const char *name)
{
  size_t n = strlen(name);
  return n > 4 && strcmp(name + n - 4, ".lua") == 0;
}

static bool skipped(const char *name)
{
  size_t n = strlen(name);
  return name[0] == '.' || name[0] == '_' || strcmp(name, "test") == 0 || strcmp(name, "tests") == 0 ||
         (n > 9 && strcmp(name + n - 9, "_test.lua") == 0);
}

/* Adds the .lua files below dir, sorted (a directory's files by full path); dirs, when not NULL, gets dir
 * and the directories below. */
static void walk(const char *dir, int depth, struct list *files, struct list *dirs)
{
  DIR *d = depth < DEPTH_MAX ? opendir(dir) : NULL;
  struct dirent *e;
  struct stat st;
  char path[PATH_MAX];
  if (!d) return;
  if (dirs) add(dirs, dir);
  while ((e = readdir(d)) != NULL) {
    if (skipped(e->d_name)) continue;
    if (snprintf(path, sizeof path, "%s/%s", dir, e->d_name) >= (int)sizeof path || stat(path, &st)) continue;
    if (S_ISDIR(st.st_mode))
      walk(path, depth + 1, files, dirs);
    else if (S_ISREG(st.st_mode) && is_lua(e->d_name))
      add(files, path);
  }
  closedir(d);
}

static void dir_of(const char *path, char *out, size_t n)
{
  const char *slash = strrchr(path, '/');
  if (!slash)
    snprintf(out, n, ".");
  else
    snprintf(out, n, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* ----------------------------------------------------------------- running */

LJMP void mr_lua_load_file(lua_State *L, struct mr_script *s, int g, const char *path)
{
  char real[PATH_MAX];
  luaL_checkstack(L, 12, "load");
  if (!realpath(path, real)) luaL_error(L, "cannot read %s", path);
  lua_getfield(L, g, "loaded");
  int loaded = lua_gettop(L);
  lua_getfield(L, loaded, real);
  if (lua_touserdata(L, -1) == s) luaL_error(L, "%s requires itself (a loop, or still loading)", path);
  if (!lua_isnil(L, -1)) {
    lua_remove(L, loaded);
    return;
  }
  lua_pop(L, 1);
  if (luaL_loadfilex(L, path, "t")) {
    const char *why = lua_tostring(L, -1);
    if (why && !strstr(why, path)) lua_pushfstring(L, "%s: %s", path, why);
    lua_error(L);
  }
  lua_getfield(L, g, "env");
  mr_compat_setenv(L, -2);
  lua_getfield(L, g, "files");
  lua_pushboolean(L, 1);
  lua_setfield(L, -2, real);
  lua_pop(L, 1);
  lua_pushlightuserdata(L, s);
  lua_setfield(L, loaded, real);
  lua_getfield(L, g, "file"); /* what loads now: declarations called in tail position have no frame */
  lua_insert(L, -2);
  lua_pushstring(L, path);
  lua_pushvalue(L, -1);
  lua_setfield(L, g, "file");
  int rc = lua_pcall(L, 1, 1, 0);
  lua_pushvalue(L, -2);
  lua_setfield(L, g, "file");
  lua_remove(L, -2);
  if (rc) {
    lua_pushnil(L);
    lua_setfield(L, loaded, real);
    lua_error(L);
  }
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_pushboolean(L, 1);
  }
  lua_pushvalue(L, -1);
  lua_setfield(L, loaded, real);
  lua_remove(L, loaded);
}

static void add_root(lua_State *L, int g, const char *dir)
{
  lua_getfield(L, g, "roots");
  int n = (int)mr_compat_rawlen(L, -1);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, -1, i);
    bool same = strcmp(lua_tostring(L, -1), dir) == 0;
    lua_pop(L, 1);
    if (same) {
      lua_pop(L, 1);
      return;
    }
  }
  lua_pushstring(L, dir);
  lua_rawseti(L, -2, n + 1);
  lua_pop(L, 1);
}

LJMP void mr_lua_load_path(lua_State *L, struct mr_script *s, int g, const char *path)
{
  struct stat st;
  char buf[PATH_MAX];
  if (stat(path, &st)) luaL_error(L, "cannot read %s", path);
  if (!S_ISDIR(st.st_mode)) {
    dir_of(path, buf, sizeof buf);
    add_root(L, g, buf);
    mr_lua_load_file(L, s, g, path);
    lua_pop(L, 1);
    return;
  }
  add_root(L, g, path);
  snprintf(buf, sizeof buf, "%s/init.lua", path);
  if (stat(buf, &st) == 0) {
    mr_lua_load_file(L, s, g, buf);
    lua_pop(L, 1);
    return;
  }
  struct mr_lua_box *box = mr_lua_box(L, s, free_list);
  struct list *l = box->p = mr_lua_alloc(sizeof *l);
  if (!l) luaL_error(L, "out of memory");
  walk(path, 0, l, NULL);
  if (l->full) luaL_error(L, "%s holds more than %d scripts", path, FILES_MAX);
  qsort(l->v, (size_t)l->n, sizeof *l->v, by_name);
  for (int i = 0; i < l->n; i++) {
    mr_lua_load_file(L, s, g, l->v[i]);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* ----------------------------------------------------------------- require */

static bool find_module(lua_State *L, int g, const char *name, char *out, size_t n)
{
  static const char *const forms[] = {"%s/%s.lua", "%s/%s/init.lua"};
  struct stat st;
  bool found = false;
  luaL_gsub(L, name, ".", "/");
  lua_getfield(L, g, "roots");
  int roots = lua_gettop(L), count = (int)mr_compat_rawlen(L, roots);
  for (int i = 1; i <= count && !found; i++) {
    lua_rawgeti(L, roots, i);
    for (int k = 0; k < 2 && !found; k++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
      snprintf(out, n, forms[k], lua_tostring(L, -1), lua_tostring(L, roots - 1));
#pragma GCC diagnostic pop
      found = stat(out, &st) == 0 && S_ISREG(st.st_mode);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 2);
  if (found) return true;
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "searchpath");
  lua_pushstring(L, name);
  lua_getfield(L, -3, "path");
  if (lua_pcall(L, 2, 1, 0) == 0 && lua_type(L, -1) == LUA_TSTRING) {
    snprintf(out, n, "%s", lua_tostring(L, -1));
    found = true;
  }
  lua_pop(L, 2);
  return found;
}

LJMP int mr_lua_require(lua_State *L)
{
  struct mr_script *s = lua_touserdata(L, lua_upvalueindex(1));
  const char *name = luaL_checkstring(L, 1);
  char path[PATH_MAX];
  lua_settop(L, 1);
  lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED"); /* package.loaded, in both versions */
  lua_getfield(L, -1, name);
  if (lua_toboolean(L, -1)) return 1;
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(2));
  if (strncmp(name, "moonrig.", 8) != 0 && strcmp(name, "moonrig") != 0 &&
      find_module(L, 2, name, path, sizeof path)) {
    mr_lua_load_file(L, s, 2, path);
    return 1;
  }
  lua_getglobal(L, "require");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

/* ---------------------------------------------------------------- watching */

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
  const unsigned char *c = p;
  for (size_t i = 0; i < n; i++) h = (h ^ c[i]) * 1099511628211ULL;
  return h;
}

static void lists_of(struct mr_script *s, struct list *files, struct list *dirs)
{
  struct stat st;
  char dir[PATH_MAX];
  for (size_t i = 0; i < s->o.npaths + 1; i++) {
    const char *path = i < s->o.npaths ? s->o.paths[i] : s->o.offline_model;
    if (!path) continue;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
      walk(path, 0, files, dirs);
      continue;
    }
    add(files, path);
    dir_of(path, dir, sizeof dir);
    add(dirs, dir);
  }
}

struct sign { struct mr_script *s; struct list *files, *dirs; };

/* Files that the current generation reached otherwise: by require, by rig.file. */
static int reached(lua_State *L)
{
  struct sign *x = lua_touserdata(L, 1);
  char dir[PATH_MAX];
  lua_settop(L, 0);
  if (!x->s->cur) return 0;
  mr_lua_gen_push(L, x->s->cur);
  lua_getfield(L, 1, "files");
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
    add(x->files, lua_tostring(L, -2));
    dir_of(lua_tostring(L, -2), dir, sizeof dir);
    add(x->dirs, dir);
  }
  return 0;
}

static struct sign scan(struct mr_script *s)
{
  char msg[64];
  struct sign x = {s, mr_lua_alloc(sizeof *x.files), mr_lua_alloc(sizeof *x.dirs)};
  if (!x.files || !x.dirs) return x;
  lists_of(s, x.files, x.dirs);
  mr_lua_protect(s, reached, &x, msg, sizeof msg);
  qsort(x.files->v, (size_t)x.files->n, sizeof(char *), by_name);
  qsort(x.dirs->v, (size_t)x.dirs->n, sizeof(char *), by_name);
  return x;
}

static void drop_scan(struct sign *x)
{
  if (x->files) free_list(x->s, x->files);
  if (x->dirs) free_list(x->s, x->dirs);
}

bool mr_lua_files_changed(struct mr_script *s)
{
  struct sign x = scan(s);
  struct stat st;
  uint64_t h = 14695981039346656037ULL;
  for (int i = 0; x.files && x.dirs && i < x.files->n; i++) {
    if (i && strcmp(x.files->v[i], x.files->v[i - 1]) == 0) continue;
    h = mix(h, x.files->v[i], strlen(x.files->v[i]));
    if (stat(x.files->v[i], &st)) continue;
    h = mix(h, &st.st_mtim, sizeof st.st_mtim);
    h = mix(h, &st.st_size, sizeof st.st_size);
    h = mix(h, &st.st_ino, sizeof st.st_ino);
  }
  drop_scan(&x);
  bool changed = h != s->signature;
  s->signature = h;
  return changed;
}

static void on_watch(void *ud, struct mr_str path)
{
  struct mr_script *s = ud;
  (void)path;
  s->watch_hit = true; /* the loop compares the files: scripts may write beside themselves */
}

void mr_lua_watch(struct mr_script *s)
{
  struct mr_err err = {.size = sizeof err};
  while (s->nwatches) s->ext->watch_cancel(s->rt, s->watches[--s->nwatches]);
  if (!s->o.watch || s->closing) return;
  struct sign x = scan(s);
  int max = (int)(sizeof s->watches / sizeof s->watches[0]);
  for (int i = 0; x.files && x.dirs && i < x.dirs->n && s->nwatches < max; i++) {
    if (i && strcmp(x.dirs->v[i], x.dirs->v[i - 1]) == 0) continue;
    if (s->ext->watch(s->rt, x.dirs->v[i], on_watch, s, &s->watches[s->nwatches], &err) == MR_OK)
      s->nwatches++;
    else
      mr_lua_log(s, MR_LOG_WARN, "script", err.message);
  }
  drop_scan(&x);
}
