/*
 * script_test - runs one Lua test file on core/script and the fake host; built once per Lua ABI.
 *
 *   script_test [-w] [-m MODEL.lua] [-M memory_mb] [-b burst_ms] FILE [DIR...]
 *
 * The file's rig.main runs the tests and prints their lines. Afterwards everything is closed, and what is
 * still open then is a failed test of its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "fake_host.h"
#include "script/script_t.h"

static struct mr_script *script;

static void stats(char *out, size_t n, int long_lived)
{
  int gens = 0, recs = 0;
  if (!script) return;
  const struct mr_lua_vm *vm = script->vm;
  if (long_lived == 2) script->vm->once = false;
  for (const struct mr_lua_gen *g = vm->gens; g; g = g->next) gens++;
  for (const struct mr_lua_rec *r = vm->recs; r; r = r->next) recs++;
  if (long_lived)
    snprintf(out, n, "generations=%d records=%d", gens, recs);
  else
    snprintf(out, n, " tasks=%d pends=%d stack=%d", vm->ntasks, vm->outstanding,
             vm->L ? lua_gettop(vm->L) : 0);
}

static int lint(const char *path, const char *stored, void (*fn)(void *ud, const char *p, size_t n), void *ud, char *out,
                size_t n)
{
  struct mr_script_opts o = {.size = sizeof o, .paths = &path, .npaths = 1, .load_ms = 500};
  struct mr_err err = {.size = sizeof err};
  o.lua_path = getenv("MOONRIG_LUA_PATH");
  int rc = mr_script_lint(NULL, &o, stored, fn, ud, &err);
  snprintf(out, n, "%s", err.message);
  return rc;
}

int main(int argc, char **argv)
{
  struct mr_script_opts o = {.size = sizeof o, .memory_max = (size_t)64 << 20, .burst_ms = 300, .load_ms = 500};
  const char *flavor = getenv("MOONRIG_FLAVOR");
  struct mr_err err = {.size = sizeof err};
  char left[300];
  int c, code = 1;
  if (flavor && strstr(flavor, "san")) o.burst_ms = 2000, o.load_ms = 3000;
  setvbuf(stdout, NULL, _IOLBF, 0);
  while ((c = getopt(argc, argv, "wm:M:b:")) != -1) {
    if (c == 'w') o.watch = 1;
    if (c == 'm') o.offline_model = optarg;
    if (c == 'M') o.memory_max = (size_t)atoi(optarg) << 20;
    if (c == 'b') o.burst_ms = atoi(optarg);
  }
  o.paths = (const char *const *)argv + optind;
  o.npaths = (size_t)(argc - optind);
  o.lua_path = getenv("MOONRIG_LUA_PATH");
  host_set_stats(stats);
  host_set_lint(lint);
  int rc = mr_script_open(&script, NULL, &o, &err);
  if (rc) {
    printf("not ok open\n  %s\n", err.message);
  } else {
    rc = mr_script_run_main(script, argc - optind, argv + optind, &code, &err);
    if (rc || code) printf("not ok main\n  rc %d code %d: %s\n", rc, code, err.message);
    mr_script_stop(script);
    mr_script_close(&script);
  }
  if (host_end(left, sizeof left))
    printf("not ok closed\n  left open: %s\n", left);
  else
    printf("ok closed\n");
  return rc || code;
}
