/*
 * life - opens, runs, reloads, stops and closes scripts through script.h alone, on the fake host; built once
 * per Lua ABI. Prints a line per test; argument: a directory to write scripts into.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "fake_host_t.h"
#include "script/script.h"

static const char *dir;
static char path[500], failure[900];

#define CHECK(cond, ...) \
  do { \
    if (!(cond) && !failure[0]) \
      snprintf(failure, sizeof failure, "%d: %s: ", __LINE__, #cond), \
          snprintf(failure + strlen(failure), sizeof failure - strlen(failure), " " __VA_ARGS__); \
  } while (0)

static const char *file(const char *name, const char *text)
{
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "we");
  fputs(text, f);
  fclose(f);
  return path;
}

static double seconds(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct opened { struct mr_script *s; struct mr_err err; int rc, code; };

static struct opened open_with(const char *script, struct mr_script_opts o)
{
  struct opened x = {.err.size = sizeof x.err, .code = -1};
  const char *paths[1] = {script};
  o.size = sizeof o;
  o.paths = paths;
  o.npaths = script ? 1 : 0;
  o.burst_ms = 300;
  o.load_ms = 500;
  x.rc = mr_script_open(&x.s, NULL, &o, &x.err);
  return x;
}
static struct opened open_text(const char *text)
{
  struct mr_script_opts o = {0};
  return open_with(file("x.lua", text), o);
}
static struct opened run_text(const char *text)
{
  char *argv[] = {"x.lua", "one", "two"};
  struct opened x = open_text(text);
  CHECK(x.rc == MR_OK, "%s", x.err.message);
  if (x.s) x.rc = mr_script_run_main(x.s, 3, argv, &x.code, &x.err);
  mr_script_close(&x.s);
  return x;
}

/* ------------------------------------------------------------------ tests */

static void t_open_refused(void)
{
  struct opened x = open_text("local rig = require 'moonrig'\nrig.tool{ name = 'a', description = 'x', run = print }\nerror 'no'");
  CHECK(x.rc == MR_E_INVALID, "%d", x.rc);
  CHECK(x.s == NULL);
  CHECK(strstr(x.err.message, "x.lua:3: no"), "%s", x.err.message);
  x = open_with("/nowhere/at/all.lua", (struct mr_script_opts){0});
  CHECK(x.rc == MR_E_INVALID && strstr(x.err.message, "/nowhere/at/all.lua: No such file"), "%s", x.err.message);
}
static void t_open_nothing(void)
{
  struct opened x = open_with(NULL, (struct mr_script_opts){0});
  CHECK(x.rc == MR_OK && mr_script_generation(x.s) == 1, "%s", x.err.message);
  int code;
  CHECK(mr_script_run_main(x.s, 0, NULL, &code, &x.err) == MR_E_NOTFOUND);
  CHECK(strstr(x.err.message, "no script calls rig.main"), "%s", x.err.message);
  mr_script_close(&x.s);
  CHECK(x.s == NULL);
  mr_script_close(&x.s); /* NULL is allowed */
}
static void t_exit_codes(void)
{
  struct opened x = run_text("require('moonrig').main(function(args) return #args * 10 + (args[2] == 'two' and 1 or 0) end)");
  CHECK(x.rc == MR_OK && x.code == 21, "%d", x.code);
  x = run_text("require('moonrig').main(function(args) assert(args[0] == 'x.lua') end)");
  CHECK(x.code == 0, "%d %s", x.code, x.err.message);
  x = run_text("require('moonrig').main(function() return nil, 'the reason' end)");
  CHECK(x.code == 1 && strcmp(x.err.message, "the reason") == 0, "%d %s", x.code, x.err.message);
  x = run_text("require('moonrig').main(function() return false end)");
  CHECK(x.code == 1, "%d", x.code);
  x = run_text("require('moonrig').main(function() return true end)");
  CHECK(x.code == 0, "%d", x.code);
  x = run_text("require('moonrig').main(function() require('moonrig').sleep(1) error 'later' end)");
  CHECK(x.code == 1 && strstr(x.err.message, "x.lua:1: later"), "%d %s", x.code, x.err.message);
  x = run_text("require('moonrig').main(function() error(require('moonrig').error('my_error', 'said')) end)");
  CHECK(x.code == 1 && strcmp(x.err.message, "my_error: said") == 0, "%d %s", x.code, x.err.message);
}
static void t_main_leaves_tasks(void)
{
  struct opened x = run_text("local rig = require 'moonrig'\n"
                             "rig.main(function() rig.spawn(function() while true do pcall(rig.sleep, 1000) end end) end)");
  CHECK(x.code == 0, "%d", x.code);
}

static void *stop_soon(void *ud)
{
  usleep(100 * 1000);
  mr_script_stop(ud);
  return NULL;
}
static struct opened stopped(const char *text, double *took)
{
  struct opened x = open_text(text);
  char *argv[] = {"x.lua"};
  pthread_t t;
  double from = seconds();
  CHECK(x.rc == MR_OK, "%s", x.err.message);
  pthread_create(&t, NULL, stop_soon, x.s);
  x.rc = mr_script_run_main(x.s, 1, argv, &x.code, &x.err);
  pthread_join(t, NULL);
  mr_script_close(&x.s);
  *took = seconds() - from;
  return x;
}
static void t_stop(void)
{
  double took;
  struct opened x = stopped("local rig = require 'moonrig'\nrig.main(function() while true do rig.sleep(0.001) end end)", &took);
  CHECK(x.rc == MR_E_CANCELLED, "%d", x.rc);
  CHECK(took < 2.5, "%f", took);
}
static void t_stop_busy(void)
{
  double took;
  struct opened x = stopped("require('moonrig').main(function() while true do pcall(function() while true do end end) end end)", &took);
  CHECK(x.rc == MR_E_CANCELLED || x.code == 1, "%d %d", x.rc, x.code);
  CHECK(took < 2.5, "%f", took);
}
static void t_loop_stops(void)
{
  struct opened x = open_text("local rig = require 'moonrig'\nrig.main(function() error 'not run by the loop' end)");
  pthread_t t;
  pthread_create(&t, NULL, stop_soon, x.s);
  CHECK(mr_script_loop(x.s) == MR_OK);
  pthread_join(t, NULL);
  mr_script_close(&x.s);
}
static void t_reload(void)
{
  struct opened x = open_text("return 1");
  struct mr_err err = {.size = sizeof err};
  CHECK(mr_script_reload(x.s, 1, &err) == MR_E_STATE && strstr(err.message, "no previous"), "%s", err.message);
  file("x.lua", "return 2");
  CHECK(mr_script_reload(x.s, 0, &err) == MR_OK && mr_script_generation(x.s) == 2);
  file("x.lua", "return = 3");
  CHECK(mr_script_reload(x.s, 0, &err) == MR_E_INVALID && mr_script_generation(x.s) == 2);
  CHECK(strstr(err.message, "x.lua:1:"), "%s", err.message);
  CHECK(mr_script_reload(x.s, 1, &err) == MR_OK && mr_script_generation(x.s) == 1);
  CHECK(mr_script_reload(x.s, 1, &err) == MR_OK && mr_script_generation(x.s) == 2);
  file("x.lua", "return 4");
  CHECK(mr_script_reload(x.s, 0, &err) == MR_OK && mr_script_generation(x.s) == 3);
  mr_script_close(&x.s);
}
static void t_open_broken_with_watch(void)
{
  struct mr_script_opts o = {.watch = 1};
  struct mr_err err = {.size = sizeof err};
  struct opened x = open_with(file("x.lua", "return ="), o);
  CHECK(x.rc == MR_OK && mr_script_generation(x.s) == 0, "%s", x.err.message);
  file("x.lua", "return 1");
  CHECK(mr_script_reload(x.s, 0, &err) == MR_OK && mr_script_generation(x.s) == 1, "%s", err.message);
  mr_script_close(&x.s);
}
static void t_offline(void)
{
  char model[500];
  snprintf(model, sizeof model, "%s", file("model.lua", "return 5"));
  struct mr_script_opts o = {.offline_model = model};
  struct opened x = open_with(NULL, o);
  CHECK(x.rc == MR_E_INVALID && strstr(x.err.message, "an offline model file returns function(request, ctx), got number"),
        "%s", x.err.message);
  file("model.lua", "return function() return 'x' end");
  x = open_with(NULL, o);
  CHECK(x.rc == MR_OK, "%s", x.err.message);
  mr_script_close(&x.s);
}
/* Whatever the limit, opening succeeds or says why. */
static void t_little_memory(void)
{
  int opened = 0, refused = 0;
  for (size_t max = 16 << 10; max < 4 << 20; max += max / 8) {
    struct mr_script_opts o = {.memory_max = max};
    struct opened x = open_with(file("x.lua", "local t = {}\nfor i = 1, 1000 do t[i] = ('x'):rep(i) end\n"
                                              "local rig = require 'moonrig'\n"
                                              "rig.tool{ name = 'a', description = 'x', run = print }"), o);
    if (x.rc == MR_OK)
      opened++;
    else
      refused++;
    CHECK(x.rc == MR_OK || strstr(x.err.message, "memory"), "%d %s", x.rc, x.err.message);
    mr_script_close(&x.s);
  }
  CHECK(opened > 3 && refused > 3, "%d %d", opened, refused);
}

/* ---------------------------------------------------------- stuck in C code */

static void *loop_of(void *ud)
{
  struct opened *x = ud;
  x->rc = mr_script_loop(x->s);
  return NULL;
}
static bool settles(const struct mr_use *u, double within)
{
  for (double end = seconds() + within; seconds() < end; usleep(5000))
    if (u && u->settled) return true;
  return false;
}
static const char *STUCK =
    "local rig = require 'moonrig'\n"
    "local part = require 'part'\n"
    "local function hang() os.execute 'sleep 2' rig.log 'must not be said' return 'late' end\n"
    "rig.tool{ name = 'hang', description = 'x', run = function() coroutine.wrap(hang)() end }\n"
    "rig.tool{ name = 'waits', description = 'x', run = function() rig.http.get 'http://never' end }\n"
    "rig.tool{ name = 'quick', description = 'x', run = function(_, c) return part .. c.generation end }\n"
    "rig.hook{ phase = 'permit', fail = 'closed', run = hang }\n"
    "rig.on{ name = 'rests', event = 'x', run = function() rig.http.get 'http://never' end }\n"
    "rig.on{ name = 'hangs', event = 'x', run = hang }\n"
    "rig.provider{ name = 'm', models = '*', run = hang }\n"
    "rig.route{ path = '/x/hang', run = function() coroutine.wrap(hang)() end }\n"
    "rig.route{ path = '/x/waits', run = function(_, res) res:write 'a' res:write 'b' end }\n"
    "rig.route{ path = '/x/quick', run = function() return part end }\n";

static struct opened open_stuck(void)
{
  struct mr_script_opts o = {.stuck_ms = 300};
  char module[500];
  snprintf(module, sizeof module, "%s", file("part.lua", "return 'p'"));
  struct opened x = open_with(file("x.lua", STUCK), o);
  CHECK(x.rc == MR_OK, "%s", x.err.message);
  file("x.lua", "return = broken"); /* a fresh VM has the files as they were */
  remove(module);
  return x;
}
static void t_stuck_tool(void)
{
  struct opened x = open_stuck();
  pthread_t t;
  pthread_create(&t, NULL, loop_of, &x);
  const struct mr_use *waits = host_inject('t', "waits");
  usleep(50000);
  const struct mr_use *hang = host_inject('t', "hang");
  usleep(100000);
  const struct mr_use *quick = host_inject('t', "quick");
  CHECK(settles(hang, 1.5) && hang->error && strstr(hang->error, "got stuck"), "%s", hang->error ? hang->error : "-");
  CHECK(settles(waits, 1) && waits->error && strstr(waits->error, "got stuck"), "waits");
  CHECK(settles(quick, 1) && quick->error, "quick came to the old one"); /* it was queued for it */
  quick = host_inject('t', "quick");
  CHECK(settles(quick, 1) && quick->result && strcmp(quick->result, "\"p1\"") == 0, "%s", quick && quick->result ? quick->result : "-");
  CHECK(strstr(fake.logs, "stuck in the C function"), "%.500s", fake.logs);
  CHECK(strstr(fake.logs, "x.lua:4"), "%.500s", fake.logs);
  usleep(2200 * 1000); /* the old one wakes up */
  CHECK(!strstr(fake.logs, "must not be said"), "it went on");
  quick = host_inject('t', "quick");
  CHECK(settles(quick, 1) && quick->result, "after it woke up");
  mr_script_stop(x.s);
  pthread_join(t, NULL);
  CHECK(x.rc == MR_OK, "%d", x.rc);
  CHECK(mr_script_generation(x.s) == 1);
  CHECK(mr_script_close(&x.s) == MR_OK);
}
static void t_stuck_hook_and_model(void)
{
  struct opened x = open_stuck();
  pthread_t t;
  pthread_create(&t, NULL, loop_of, &x);
  const struct mr_use *hook = host_inject('h', "permit");
  CHECK(settles(hook, 1.5) && hook->result && strstr(hook->result, "deny"), "%s", hook->result ? hook->result : "-");
  usleep(200000);
  const struct mr_use *model = host_inject('m', "m");
  CHECK(settles(model, 1.5) && model->error && strstr(model->error, "got stuck"), "%s", model->error ? model->error : "-");
  usleep(200000);
  const struct mr_use *quick = host_inject('t', "quick");
  CHECK(settles(quick, 1) && quick->result, "quick");
  int hooks = 0;
  for (const struct fake_reg *r = fake.regs; r; r = r->next) hooks += r->kind == 'h';
  CHECK(hooks == 1, "%d", hooks);
  mr_script_stop(x.s);
  pthread_join(t, NULL);
  CHECK(mr_script_close(&x.s) == MR_OK);
  usleep(2200 * 1000);
}
static bool ends(const struct mr_web *w, double within, int how)
{
  int status;
  for (double end = seconds() + within; seconds() < end; usleep(5000))
    if (w && host_asked(w, &status)) return host_asked(w, &status) == how;
  return false;
}
static void t_stuck_route(void)
{
  struct opened x = open_stuck();
  pthread_t t;
  int status = 0;
  pthread_create(&t, NULL, loop_of, &x);
  const struct mr_web *waits = host_ask("GET", "/x/waits");
  usleep(50000);
  const struct mr_web *hang = host_ask("GET", "/x/hang");
  usleep(100000);
  const struct mr_web *quick = host_ask("GET", "/x/quick");
  CHECK(ends(hang, 1.5, 2), "hang");
  CHECK(ends(waits, 1, 2), "waits");
  CHECK(ends(quick, 1, 1) && host_asked(quick, &status) && status == 503, "%d", status); /* queued for the old one */
  quick = host_ask("GET", "/x/quick");
  CHECK(ends(quick, 1, 1) && host_asked(quick, &status) && status == 200, "%d", status);
  mr_script_stop(x.s);
  pthread_join(t, NULL);
  CHECK(mr_script_close(&x.s) == MR_OK);
  usleep(2200 * 1000);
}
/* The event that is to blame is over; one that only waited is given back, for the fresh VM. */
static void t_stuck_watcher(void)
{
  struct opened x = open_stuck();
  pthread_t t;
  pthread_create(&t, NULL, loop_of, &x);
  const struct mr_use *rests = host_inject('o', "rests"); /* both at once: the clock jumps when nothing is to do */
  const struct mr_use *hangs = host_inject('o', "hangs");
  CHECK(settles(hangs, 1.5) && strcmp(hangs->result, "done") == 0, "%s", hangs && hangs->result ? hangs->result : "-");
  CHECK(settles(rests, 1) && strcmp(rests->result, "again") == 0, "%s", rests && rests->result ? rests->result : "-");
  usleep(200000);
  int watchers = 0;
  for (const struct fake_reg *r = fake.regs; r; r = r->next) watchers += r->kind == 'o';
  CHECK(watchers == 2, "%d", watchers);
  mr_script_stop(x.s);
  pthread_join(t, NULL);
  CHECK(mr_script_close(&x.s) == MR_OK);
  usleep(2200 * 1000);
}
static void t_stuck_folder(void)
{
  struct mr_script_opts o = {.stuck_ms = 300};
  char scripts[500], name[600];
  snprintf(scripts, sizeof scripts, "%s/f", dir);
  snprintf(name, sizeof name, "mkdir -p '%s/agents/a/tools'", scripts);
  CHECK(system(name) == 0);
  file("f/agents/a/agent.lua", "return { model = 'm' }");
  file("f/agents/a/tools/t.lua",
       "local rig = require 'moonrig'\n"
       "rig.tool{ name = 'hang', description = 'x', run = function() os.execute 'sleep 2' end }\n"
       "rig.tool{ name = 'quick', description = 'x', run = function(_, c) return c.generation end }\n");
  struct opened x = open_with(scripts, o);
  CHECK(x.rc == MR_OK, "%s", x.err.message);
  file("f/agents/a/tools/t.lua", "return = broken");
  file("f/agents/a/tools/new.lua", "error 'new'");
  pthread_t t;
  pthread_create(&t, NULL, loop_of, &x);
  const struct mr_use *hang = host_inject('t', "hang");
  CHECK(settles(hang, 1.5) && hang->error, "hang");
  const struct mr_use *quick = NULL;
  for (int i = 0; i < 100 && !(quick && quick->result); i++) { /* the first may come to the old VM */
    quick = host_inject('t', "quick");
    CHECK(settles(quick, 1), "quick");
  }
  CHECK(quick && quick->result && strcmp(quick->result, "1") == 0, "%s", fake.logs);
  mr_script_stop(x.s);
  pthread_join(t, NULL);
  CHECK(mr_script_close(&x.s) == MR_OK);
  usleep(2200 * 1000);
}
static void t_stuck_too_often(void)
{
  struct opened x = open_stuck();
  pthread_t t;
  pthread_create(&t, NULL, loop_of, &x);
  for (int i = 0; i < 6; i++) {
    const struct mr_use *u = host_inject('t', "hang");
    CHECK(settles(u, 2) && u->error, "%d", i);
    usleep(150000);
  }
  pthread_join(t, NULL);
  CHECK(x.rc == MR_E_INTERNAL, "%d", x.rc);
  CHECK(mr_script_close(&x.s) == MR_E_BUSY);
}
static void t_stop_while_reading(void)
{
  double took;
  struct opened x = stopped("require('moonrig').main(function() return io.read() end)", &took);
  CHECK(x.rc == MR_E_CANCELLED, "%d", x.rc);
  CHECK(took < 4, "%f", took);
}

int main(int argc, char **argv)
{
  static const struct { const char *name; void (*fn)(void); } tests[] = {
      {"a script that is refused leaves nothing", t_open_refused}, {"no scripts at all", t_open_nothing},
      {"exit codes of rig.main", t_exit_codes}, {"rig.main may leave tasks behind", t_main_leaves_tasks},
      {"stop ends a waiting main", t_stop}, {"stop ends a busy main", t_stop_busy}, {"stop ends the loop", t_loop_stops},
      {"reload and rollback", t_reload}, {"broken at first, with watch", t_open_broken_with_watch},
      {"the offline model's file", t_offline}, {"little memory", t_little_memory}};
  /* What is given up is never freed: these run without the leak check. */
  static const struct { const char *name; void (*fn)(void); } stuck[] = {
      {"a tool that is stuck in C code is given up", t_stuck_tool},
      {"a hook and a model too", t_stuck_hook_and_model}, {"a route too", t_stuck_route},
      {"a watcher: who only waited comes again", t_stuck_watcher}, {"an agent's folder is as it was", t_stuck_folder},
      {"not for ever", t_stuck_too_often},
      {"stop while main reads", t_stop_while_reading}};
  char left[300];
  int bad = 0;
  dir = argc > 1 ? argv[1] : ".";
  bool leaky = argc > 2 && strcmp(argv[2], "stuck") == 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  size_t n = leaky ? sizeof stuck / sizeof stuck[0] : sizeof tests / sizeof tests[0];
  for (size_t i = 0; i < n; i++) {
    failure[0] = 0;
    (leaky ? stuck[i].fn : tests[i].fn)();
    if (host_end(left, sizeof left) && !leaky) CHECK(0, "left open: %s", left);
    printf("%s %s\n", failure[0] ? "not ok" : "ok", leaky ? stuck[i].name : tests[i].name);
    if (failure[0]) printf("  %s\n", failure), bad++;
  }
  return bad ? 1 : 0;
}
