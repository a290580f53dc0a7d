/*
 * real_host - runs one Lua test file on core/script and the real runtime: opens a store, loads the file with
 * the scripts directory, runs its rig.main, closes. Its module "host" has what kit.lua needs, and a listener.
 * Built once per Lua ABI, linked with libmoonrig.a.
 *
 *   real_host [-w] [-m MODEL.lua] [-d DATA] FILE [DIR...]
 *
 * No environment variable may hold an upstream key: what models say comes from the test file.
 */
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "script/script_t.h"

static struct mr_runtime *rt;
static struct mr_script *script;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char logs[1 << 18];

static void on_log(void *ud, int level, struct mr_str line)
{
  (void)ud;
  pthread_mutex_lock(&log_lock);
  size_t n = strlen(logs);
  if (n > sizeof logs - 4000) n = 0;
  snprintf(logs + n, sizeof logs - n, "%d %.*s\n", level, (int)line.n, line.p);
  pthread_mutex_unlock(&log_lock);
}

static int h_json(lua_State *L) { (void)L; return 0; }
static int h_clear_uses(lua_State *L) { (void)L; return 0; }
static int h_logs(lua_State *L)
{
  pthread_mutex_lock(&log_lock);
  lua_pushstring(L, logs);
  logs[0] = 0;
  pthread_mutex_unlock(&log_lock);
  return 1;
}
static int h_open(lua_State *L)
{
  DIR *d = opendir("/proc/self/fd");
  int fds = 0;
  while (readdir(d)) fds++;
  closedir(d);
  lua_pushfstring(L, "tasks=%d pends=%d stack=%d fds=%d", script->vm->ntasks, script->vm->outstanding,
                  lua_gettop(script->vm->L), fds);
  return 1;
}
static int h_globals(lua_State *L)
{
#if LUA_VERSION_NUM >= 504
  lua_pushglobaltable(L);
#else
  lua_pushvalue(L, LUA_GLOBALSINDEX);
#endif
  return 1;
}
static int h_reload(lua_State *L) /* reload(): asks for one; it happens soon */
{
  (void)L;
  mr_script_ask_reload(script);
  return 0;
}
static int h_generation(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)mr_script_generation(script));
  return 1;
}
static int h_listen(lua_State *L) /* listen(address) -> "http://127.0.0.1:PORT"; blocks a moment */
{
  char actual[100];
  struct mr_err err = {.size = sizeof err};
  if (mr_listen(rt, luaL_optstring(L, 1, "127.0.0.1:0"), actual, sizeof actual, &err)) return luaL_error(L, "%s", err.message);
  lua_pushstring(L, actual);
  return 1;
}

__attribute__((visibility("default"))) int real_host_open(lua_State *L); /* for real_stub.c */
int real_host_open(lua_State *L)
{
  static const luaL_Reg fns[] = {{"json", h_json}, {"clear_uses", h_clear_uses}, {"logs", h_logs}, {"open", h_open},
      {"globals", h_globals}, {"reload", h_reload}, {"generation", h_generation}, {"listen", h_listen}, {NULL, NULL}};
  lua_newtable(L);
  for (const luaL_Reg *f = fns; f->name; f++) {
    lua_pushcfunction(L, f->func);
    lua_setfield(L, -2, f->name);
  }
  return 1;
}

int main(int argc, char **argv)
{
  struct mr_script_opts o = {.size = sizeof o, .burst_ms = 2000, .load_ms = 5000};
  struct mr_config c;
  struct mr_err err = {.size = sizeof err};
  int ch, code = 1, rc;
  mr_config_init(&c);
  c.store = ":memory:";
  c.log = on_log;
  setvbuf(stdout, NULL, _IOLBF, 0);
  while ((ch = getopt(argc, argv, "wm:d:")) != -1) {
    if (ch == 'w') o.watch = 1;
    if (ch == 'm') o.offline_model = optarg;
    if (ch == 'd') c.store = optarg;
  }
  o.paths = (const char *const *)argv + optind;
  o.npaths = (size_t)(argc - optind);
  rc = mr_open(&rt, &c, &err);
  if (rc == MR_OK) rc = mr_script_open(&script, rt, &o, &err);
  if (rc) {
    printf("not ok open\n  %s\n", err.message);
  } else {
    rc = mr_script_run_main(script, argc - optind, argv + optind, &code, &err);
    if (rc || code) printf("not ok main\n  rc %d code %d: %s\n", rc, code, err.message);
  }
  mr_stop(rt, 0);
  mr_script_close(&script);
  mr_close(&rt);
  if (!rc && !code) printf("ok closed\n");
  return rc || code;
}
