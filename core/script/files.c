/*
 * files - script files: which of a directory are run, and running one in a generation.
 *
 * A directory with init.lua is that file; otherwise every .lua file below it is run, in the order of the
 * names, except names that start with "." or "_", directories "test" and "tests", and *_test.lua. A file
 * is run once a generation, however it is reached: values are kept by real path. What a file looked like
 * is noted before it is read (watch.c), so that an edit made meanwhile is seen.
 *
 * Text only: bytecode could do what no budget holds. Script thread. Reading is plain blocking I/O: it
 * happens while scripts load, or when a task requires a file late. Directories that are agents: folder.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/stat.h>
#include "script/script_t.h"

enum { DEPTH_MAX = 8, SOURCE_MAX = 16 * 1024 * 1024 };

/* ------------------------------------------------------------------- lists */

void mr_lua_paths_free(struct mr_lua_vm *s, void *p)
{
  struct mr_lua_paths *l = p;
  (void)s;
  for (int i = 0; l && i < l->n; i++)
    mr_lua_free(l->v[i]);
  mr_lua_free(l);
}

void mr_lua_paths_add(struct mr_lua_paths *l, const char *path)
{
  char *d = l->n < MR_LUA_PATHS_MAX ? mr_lua_strdup(path) : NULL;
  if (d)
    l->v[l->n++] = d;
  else
    l->full = true;
}

static int by_name(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

void mr_lua_paths_sort(struct mr_lua_paths *l)
{
  int n = 0;
  qsort(l->v, (size_t)l->n, sizeof *l->v, by_name);
  for (int i = 0; i < l->n; i++) {
    if (n && strcmp(l->v[n - 1], l->v[i]) == 0)
      mr_lua_free(l->v[i]);
    else
      l->v[n++] = l->v[i];
  }
  l->n = n;
}

static bool is_lua(const char *name)
{
  size_t n = strlen(name);
  return n > 4 && strcmp(name + n - 4, ".lua") == 0;
}

bool mr_lua_paths_skipped(const char *name)
{
  size_t n = strlen(name);
  return name[0] == '.' || name[0] == '_' || strcmp(name, "test") == 0 || strcmp(name, "tests") == 0 ||
         (n > 9 && strcmp(name + n - 9, "_test.lua") == 0);
}

static void walk(const char *dir, int depth, struct mr_lua_paths *files, struct mr_lua_paths *dirs)
{
  DIR *d = depth < DEPTH_MAX ? opendir(dir) : NULL;
  struct dirent *e;
  struct stat st;
  char path[PATH_MAX];
  if (!d) return;
  const char *base = strrchr(dir, '/');
  bool agents = depth == 1 && base && strcmp(base, "/agents") == 0;
  if (dirs) mr_lua_paths_add(dirs, dir);
  while ((e = readdir(d)) != NULL) {
    if (mr_lua_paths_skipped(e->d_name)) continue;
    if (snprintf(path, sizeof path, "%s/%s", dir, e->d_name) >= (int)sizeof path || stat(path, &st)) continue;
    if (S_ISDIR(st.st_mode) && agents && mr_lua_is_folder(path, true)) {
      if (dirs) mr_lua_folder_files(path, files, dirs);
    } else if (S_ISDIR(st.st_mode))
      walk(path, depth + 1, files, dirs);
    else if (S_ISREG(st.st_mode) && is_lua(e->d_name))
      mr_lua_paths_add(files, path);
  }
  closedir(d);
}

void mr_lua_paths_walk(const char *dir, struct mr_lua_paths *files, struct mr_lua_paths *dirs)
{
  if (mr_lua_is_folder(dir, false))
    mr_lua_folder_files(dir, files, dirs);
  else
    walk(dir, 0, files, dirs);
}

void mr_lua_dir_of(const char *path, char *out, size_t n)
{
  const char *slash = strrchr(path, '/');
  if (!slash)
    snprintf(out, n, ".");
  else
    snprintf(out, n, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* ----------------------------------------------------------------- reading */

struct text {
  char *p;
  size_t n;
};

static void free_text(struct mr_lua_vm *s, void *p)
{
  struct text *t = p;
  (void)s;
  mr_lua_free(t->p);
  mr_lua_free(t);
}

static int read_text(const char *path, struct text *t)
{
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC), rc = MR_E_IO;
  if (fd < 0) return rc;
  if (fstat(fd, &st) != 0) goto out;
  if (S_ISDIR(st.st_mode)) errno = EISDIR;
  if (!S_ISREG(st.st_mode)) goto out;
  errno = EFBIG;
  if (st.st_size > SOURCE_MAX) goto out;
  errno = ENOMEM;
  t->p = mr_lua_alloc((size_t)st.st_size + 1);
  while (t->p && t->n < (size_t)st.st_size) {
    ssize_t n = read(fd, t->p + t->n, (size_t)st.st_size - t->n);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) goto out;
    if (n == 0) break; /* it shrank meanwhile; the watch sees that */
    t->n += (size_t)n;
  }
  if (t->p) rc = MR_OK;
out:
  close(fd);
  return rc;
}

/* ----------------------------------------------------- what a generation ran */

void mr_lua_files_free(struct mr_lua_file *f)
{
  while (f) {
    struct mr_lua_file *next = f->next;
    mr_lua_free(f->path);
    mr_lua_free(f->real);
    mr_lua_free(f->text);
    mr_lua_free(f);
    f = next;
  }
}

static const struct mr_lua_file *replayed(const struct mr_lua_vm *s, const char *path)
{
  const struct mr_lua_file *f = s->replay;
  while (f && strcmp(f->path, path) != 0)
    f = f->next;
  return f;
}

/* Keeps the text of a file; without memory for it the scripts cannot be started again, that is all. */
static void record(struct mr_lua_gen *g, const char *path, const char *real, const struct text *t, bool script)
{
  struct mr_lua_file *f = mr_lua_alloc(sizeof *f);
  if (!f) return;
  f->path = mr_lua_strdup(path);
  f->real = mr_lua_strdup(real);
  f->text = mr_lua_alloc(t->n + 1);
  if (!f->path || !f->real || !f->text) {
    mr_lua_files_free(f);
    return;
  }
  memcpy(f->text, t->p, t->n);
  f->n = t->n;
  f->script = script;
  *g->files_tail = f;
  g->files_tail = &f->next;
  g->nfiles++;
}

static int get_text(struct mr_lua_vm *s, const char *path, struct text *t)
{
  const struct mr_lua_file *f = replayed(s, path);
  if (!f) return read_text(path, t);
  t->p = mr_lua_alloc(f->n + 1);
  errno = ENOMEM;
  if (!t->p) return MR_E_NOMEM;
  memcpy(t->p, f->text, f->n);
  t->n = f->n;
  return MR_OK;
}

/* Pushes the chunk of a file, or raises with its name and line. */
static LJMP void load_chunk(lua_State *L, struct mr_lua_vm *s, const char *path, const char *real, bool script)
{
  struct mr_lua_box *box = mr_lua_box(L, s, free_text);
  struct text *t = box->p = mr_lua_alloc(sizeof *t);
  if (!t) luaL_error(L, "out of memory");
  if (get_text(s, path, t)) mr_lua_raise(L, "cannot read %s: %s", path, strerror(errno));
  const char *p = t->p, *end = t->p + t->n;
  if (t->n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0) p += 3;
  if (p < end && *p == '#') /* a first line for the shell; its end stays, so that lines count right */
    while (p < end && *p != '\n')
      p++;
  record(mr_lua_gen_here(s), path, real, t, script);
  if (p < end && *p == '\x1b') mr_lua_raise(L, "%s is bytecode; scripts are text", path);
  const char *name = lua_pushfstring(L, "@%s", path);
  int rc = luaL_loadbufferx(L, p, (size_t)(end - p), name, "t");
  lua_remove(L, -2);
  mr_lua_box_drop(L, -2);
  if (rc) lua_error(L);
}

/* ----------------------------------------------------------------- running */

/* The first error of a load is logged with its traceback; those who pass it on add nothing. */
static int traced(lua_State *L)
{
  struct mr_lua_vm *s = mr_lua_self(L);
  if (s->loading && !s->current && !s->traced && !s->lint) {
    s->traced = true;
    luaL_traceback(L, L, lua_tostring(L, 1), 1);
    mr_lua_log(s, MR_LOG_ERROR, "script", lua_tostring(L, -1));
    lua_settop(L, 1);
  }
  return 1;
}

LJMP void mr_lua_load_file(lua_State *L, struct mr_lua_vm *s, int g, const char *path, const char *name)
{
  char real[PATH_MAX];
  luaL_checkstack(L, 16, "load");
  const struct mr_lua_file *again = replayed(s, path);
  if (again)
    snprintf(real, sizeof real, "%s", again->real);
  else if (!realpath(path, real))
    mr_lua_raise(L, "cannot read %s: %s", path, strerror(errno));
  lua_getfield(L, g, "loaded");
  int loaded = lua_gettop(L);
  lua_getfield(L, loaded, real);
  if (lua_touserdata(L, -1) == s) mr_lua_raise(L, "%s requires itself (a loop, or still loading)", path);
  if (!lua_isnil(L, -1)) {
    lua_remove(L, loaded);
    return;
  }
  lua_settop(L, loaded);
  mr_lua_stamp_note(L, s, g, real);
  lua_getfield(L, g, "file"); /* what loads now: declarations called in tail position have no frame */
  lua_pushcfunction(L, traced);
  load_chunk(L, s, path, real, !name);
  lua_getfield(L, g, "env");
  mr_compat_setenv(L, -2);
  lua_pushlightuserdata(L, s);
  lua_setfield(L, loaded, real);
  lua_pushstring(L, path);
  lua_setfield(L, g, "file");
  if (name) lua_pushstring(L, name);
  lua_pushstring(L, path);
  int rc = lua_pcall(L, name ? 2 : 1, 1, loaded + 2);
  lua_pushvalue(L, loaded + 1);
  lua_setfield(L, g, "file");
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
  lua_replace(L, loaded);
  lua_settop(L, loaded);
}

static void add_root(lua_State *L, int g, const char *dir)
{
  lua_getfield(L, g, "roots");
  int roots = lua_gettop(L), n = (int)mr_compat_rawlen(L, roots);
  bool known = false;
  for (int i = 1; i <= n && !known; i++) {
    lua_rawgeti(L, roots, i);
    known = strcmp(lua_tostring(L, -1), dir) == 0;
    lua_pop(L, 1);
  }
  if (!known) {
    lua_pushstring(L, dir);
    lua_rawseti(L, roots, n + 1);
  }
  lua_pop(L, 1);
}

static int lint_file(lua_State *L) /* (generation table, path) */
{
  mr_lua_load_file(L, mr_lua_self(L), 1, luaL_checkstring(L, 2), NULL);
  return 0;
}

static LJMP void run_file(lua_State *L, struct mr_lua_vm *s, int g, const char *path)
{
  if (s->lint && mr_lua_lint_skips(s, path)) return;
  if (s->lint) {
    lua_pushcfunction(L, lint_file);
    lua_pushvalue(L, g);
    lua_pushstring(L, path);
    mr_lua_lint_call(L, s, g, path, 2);
    return;
  }
  mr_lua_load_file(L, s, g, path, NULL);
  lua_pop(L, 1);
}

LJMP void mr_lua_load_replay(lua_State *L, struct mr_lua_vm *s, int g)
{
  struct stat st;
  char dir[PATH_MAX];
  for (size_t i = 0; i < s->o.npaths; i++) {
    mr_lua_dir_of(s->o.paths[i], dir, sizeof dir);
    add_root(L, g, stat(s->o.paths[i], &st) == 0 && S_ISDIR(st.st_mode) ? s->o.paths[i] : dir);
  }
  for (const struct mr_lua_file *f = s->replay; f; f = f->next)
    if (f->script && !(s->o.offline_model && strcmp(f->path, s->o.offline_model) == 0))
      run_file(L, s, g, f->path);
  for (size_t i = 0; i < s->o.npaths; i++)
    if (mr_lua_is_folder(s->o.paths[i], false))
      mr_lua_folder_load(L, s, g, s->o.paths[i]);
    else
      mr_lua_folders_load(L, s, g, s->o.paths[i]);
}

LJMP void mr_lua_load_path(lua_State *L, struct mr_lua_vm *s, int g, const char *path)
{
  struct stat st;
  char buf[PATH_MAX];
  if (stat(path, &st)) mr_lua_raise(L, "cannot read %s: %s", path, strerror(errno));
  if (!S_ISDIR(st.st_mode)) {
    mr_lua_dir_of(path, buf, sizeof buf);
    add_root(L, g, buf);
    run_file(L, s, g, path);
    return;
  }
  add_root(L, g, path);
  if (mr_lua_is_folder(path, false)) {
    mr_lua_folder_load(L, s, g, path);
    return;
  }
  if (snprintf(buf, sizeof buf, "%s/init.lua", path) >= (int)sizeof buf) mr_lua_raise(L, "%s: too long", path);
  if (stat(buf, &st) == 0) {
    run_file(L, s, g, buf);
    mr_lua_folders_load(L, s, g, path);
    return;
  }
  struct mr_lua_box *box = mr_lua_box(L, s, mr_lua_paths_free);
  struct mr_lua_paths *l = box->p = mr_lua_alloc(sizeof *l);
  if (!l) luaL_error(L, "out of memory");
  walk(path, 0, l, NULL);
  if (l->full) mr_lua_raise(L, "%s holds more than %d scripts", path, MR_LUA_PATHS_MAX);
  mr_lua_paths_sort(l);
  for (int i = 0; i < l->n; i++)
    run_file(L, s, g, l->v[i]);
  mr_lua_box_drop(L, -1);
  mr_lua_folders_load(L, s, g, path);
}

/* load_file(generation table, path, name) -> the file's value; once a generation. For require. */
static int n_load_file(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  luaL_checktype(L, 1, LUA_TTABLE);
  const char *path = luaL_checkstring(L, 2), *name = luaL_checkstring(L, 3);
  mr_lua_load_file(L, s, 1, path, name);
  return 1;
}

/* is_file(path) */
static int n_is_file(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct stat st;
  const char *path = luaL_checkstring(L, 1);
  lua_pushboolean(L, replayed(s, path) || (stat(path, &st) == 0 && S_ISREG(st.st_mode)));
  return 1;
}

/* note_file(generation table, path): a file that the scripts depend on otherwise; for watching */
static int n_note_file(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  char real[PATH_MAX];
  luaL_checktype(L, 1, LUA_TTABLE);
  if (realpath(luaL_checkstring(L, 2), real)) mr_lua_stamp_note(L, s, 1, real);
  return 0;
}

const luaL_Reg mr_lua_file_natives[] = {
    {"load_file", n_load_file}, {"is_file", n_is_file}, {"note_file", n_note_file}, {NULL, NULL}};
