/*
 * folder - a directory that is an agent: agents/NAME/ with agent.lua, instructions.md, hooks.lua, tools/ and
 * skills/. Here is which files belong to one; what they mean is lua/moonrig/folder.lua's.
 *
 * agents/NAME of a directory of scripts is one if it holds agent.lua or instructions.md; a directory named by
 * itself if it holds agent.lua. Its files are not run as plain scripts. Names that begin with "." or "_" do
 * not count, nor do links below skills/: what a model may read there lies there.
 *
 * Script thread, while scripts load or are compared; plain blocking I/O.
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "script/script_t.h"

enum { DEPTH_MAX = 8 };

static bool is_file(const char *dir, const char *name)
{
  char path[PATH_MAX];
  struct stat st;
  return snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path && stat(path, &st) == 0 &&
         S_ISREG(st.st_mode);
}

static bool is_dir(const char *path)
{
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool mr_lua_is_folder(const char *path, bool below_agents)
{
  return is_dir(path) && (is_file(path, "agent.lua") || (below_agents && is_file(path, "instructions.md")));
}

/* Regular files below dir; only .lua files that would be run, or (skills) everything but links. */
static void collect(const char *dir, bool skills, int depth, struct mr_lua_paths *files,
                    struct mr_lua_paths *dirs)
{
  DIR *d = depth < DEPTH_MAX ? opendir(dir) : NULL;
  struct dirent *e;
  struct stat st;
  char path[PATH_MAX];
  if (!d) return;
  if (dirs) mr_lua_paths_add(dirs, dir);
  while ((e = readdir(d)) != NULL) {
    if (e->d_name[0] == '.' || e->d_name[0] == '_' || (!skills && mr_lua_paths_skipped(e->d_name))) continue;
    if (snprintf(path, sizeof path, "%s/%s", dir, e->d_name) >= (int)sizeof path) continue;
    if ((skills ? lstat(path, &st) : stat(path, &st)) != 0) continue;
    size_t n = strlen(path);
    if (S_ISDIR(st.st_mode))
      collect(path, skills, depth + 1, files, dirs);
    else if (S_ISREG(st.st_mode) && (skills || (n > 4 && strcmp(path + n - 4, ".lua") == 0)))
      mr_lua_paths_add(files, path);
  }
  closedir(d);
}

void mr_lua_folder_files(const char *dir, struct mr_lua_paths *files, struct mr_lua_paths *dirs)
{
  static const char *const own[] = {"agent.lua", "instructions.md", "hooks.lua"};
  char path[PATH_MAX];
  if (dirs) mr_lua_paths_add(dirs, dir);
  for (size_t i = 0; i < sizeof own / sizeof *own; i++)
    if (is_file(dir, own[i]) && snprintf(path, sizeof path, "%s/%s", dir, own[i]) < (int)sizeof path)
      mr_lua_paths_add(files, path);
  if (snprintf(path, sizeof path, "%s/tools", dir) < (int)sizeof path) collect(path, false, 0, files, dirs);
  if (snprintf(path, sizeof path, "%s/skills", dir) < (int)sizeof path) collect(path, true, 0, files, dirs);
}

void mr_lua_folders_of(const char *dir, struct mr_lua_paths *out)
{
  char agents[PATH_MAX], path[PATH_MAX];
  DIR *d = NULL;
  struct dirent *e;
  if (snprintf(agents, sizeof agents, "%s/agents", dir) < (int)sizeof agents) d = opendir(agents);
  while (d && (e = readdir(d)) != NULL) {
    if (mr_lua_paths_skipped(e->d_name)) continue;
    if (snprintf(path, sizeof path, "%s/%s", agents, e->d_name) >= (int)sizeof path) continue;
    if (mr_lua_is_folder(path, true)) mr_lua_paths_add(out, path);
  }
  if (d) closedir(d);
  mr_lua_paths_sort(out);
}

/* ----------------------------------------------------------------- loading */

LJMP void mr_lua_folder_load(lua_State *L, struct mr_lua_vm *s, int g, const char *path)
{
  char real[PATH_MAX];
  const char *name = realpath(path, real) ? strrchr(real, '/') : NULL;
  luaL_checkstack(L, 8, "load");
  mr_lua_entry(L, s, "folder");
  lua_pushvalue(L, g);
  lua_pushstring(L, path);
  lua_pushstring(L, name ? name + 1 : path);
  if (s->lint)
    mr_lua_lint_call(L, s, g, path, 3);
  else
    lua_call(L, 3, 0);
}

LJMP void mr_lua_folders_load(lua_State *L, struct mr_lua_vm *s, int g, const char *dir)
{
  struct mr_lua_box *box = mr_lua_box(L, s, mr_lua_paths_free);
  struct mr_lua_paths *l = box->p = mr_lua_alloc(sizeof *l);
  if (!l) luaL_error(L, "out of memory");
  mr_lua_folders_of(dir, l);
  if (l->full) mr_lua_raise(L, "%s/agents holds more than %d agents", dir, MR_LUA_PATHS_MAX);
  for (int i = 0; i < l->n; i++)
    mr_lua_folder_load(L, s, g, l->v[i]);
  mr_lua_box_drop(L, -1);
}

/* In a VM that takes another's place the scripts are those that were loaded, whatever lies there now. */
static void as_loaded(struct mr_lua_vm *s, struct mr_lua_paths *l, const char *dir, size_t n)
{
  int kept = 0;
  for (int i = 0; i < l->n; i++) {
    size_t len = strlen(l->v[i]); /* all are longer than .lua: the directory is in front */
    if (strcmp(l->v[i] + len - 4, ".lua") == 0 && strncmp(l->v[i] + n, "/skills/", 8) != 0)
      mr_lua_free(l->v[i]);
    else
      l->v[kept++] = l->v[i];
  }
  l->n = kept;
  for (const struct mr_lua_file *f = s->replay; f; f = f->next) {
    if (strncmp(f->path, dir, n) != 0 || f->path[n] != '/') continue;
    const char *rel = f->path + n + 1;
    if (strcmp(rel, "agent.lua") == 0 || strcmp(rel, "hooks.lua") == 0 || strncmp(rel, "tools/", 6) == 0)
      mr_lua_paths_add(l, f->path);
  }
}

/* folder_files(dir) -> its files, relative to it, in the order of the names */
static int n_folder_files(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  size_t n;
  const char *dir = luaL_checklstring(L, 1, &n);
  struct mr_lua_box *box = mr_lua_box(L, s, mr_lua_paths_free);
  struct mr_lua_paths *l = box->p = mr_lua_alloc(sizeof *l);
  if (!l) return luaL_error(L, "out of memory");
  mr_lua_folder_files(dir, l, NULL);
  if (s->replay) as_loaded(s, l, dir, n);
  if (l->full) return mr_lua_raise(L, "%s holds more than %d files", dir, MR_LUA_PATHS_MAX);
  mr_lua_paths_sort(l);
  lua_createtable(L, l->n, 0);
  for (int i = 0; i < l->n; i++) {
    lua_pushstring(L, l->v[i] + n + 1);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static void others(const char *dir, struct mr_lua_paths *l)
{
  DIR *d = opendir(dir);
  struct dirent *e;
  char path[PATH_MAX];
  while (d && (e = readdir(d)) != NULL) {
    size_t n = strlen(e->d_name);
    if (n <= 4 || strcmp(e->d_name + n - 4, ".lua") != 0 || mr_lua_paths_skipped(e->d_name)) continue;
    if (strcmp(e->d_name, "agent.lua") == 0 || strcmp(e->d_name, "hooks.lua") == 0) continue;
    if (is_file(dir, e->d_name) && snprintf(path, sizeof path, "%s/%s", dir, e->d_name) < (int)sizeof path)
      mr_lua_paths_add(l, path);
  }
  if (d) closedir(d);
  mr_lua_paths_sort(l);
}

/* folder_others(g, dir) -> paths of the .lua files right in it that are not the agent's, and that nothing loaded */
static int n_folder_others(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  const char *dir = luaL_checkstring(L, 2);
  struct mr_lua_box *box = mr_lua_box(L, s, mr_lua_paths_free);
  struct mr_lua_paths *l = box->p = mr_lua_alloc(sizeof *l);
  char real[PATH_MAX];
  int n = 0;
  if (!l) return luaL_error(L, "out of memory");
  if (!s->replay) others(dir, l);
  lua_getfield(L, 1, "loaded");
  lua_createtable(L, 0, 0);
  for (int i = 0; i < l->n; i++) {
    if (!realpath(l->v[i], real)) continue;
    lua_getfield(L, -2, real);
    bool loaded = !lua_isnil(L, -1);
    lua_pop(L, 1);
    if (loaded) continue;
    lua_pushstring(L, l->v[i]);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

const luaL_Reg mr_lua_folder_natives[] = {
    {"folder_files", n_folder_files}, {"folder_others", n_folder_others}, {NULL, NULL}};
