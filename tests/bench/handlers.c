/*
 * handlers - what Lua tool handlers cost, without a model, a store or a network: tool runs are given to the
 * host as the domain gives them (mr_tools_runner), on the real runtime with its loop thread and a script
 * thread, and their results are caught where the domain would take them (the linker wraps mr_tool_run_done).
 *
 * usage: handlers [WAITING [ROUNDS]]. Prints "waiting N bytes B", "round-trip N us CPU", "switch RATIO x raw".
 */
#include "host/host_t.h"
#include "script/script_t.h"

#include <malloc.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const char scripts[] =
    "local rig = require 'moonrig'\n"
    "local schema = { type = 'object' }\n"
    "rig.tool { name = 'quick', description = 'd', input_schema = schema, run = function() return 'ok' end }\n"
    "rig.tool { name = 'collect', description = 'd', input_schema = schema,\n"
    "  run = function() collectgarbage() collectgarbage() return 'ok' end }\n"
    "rig.tool { name = 'wait', description = 'd', input_schema = schema, concurrency = 10000, timeout = 3600,\n"
    "  run = function(input, ctx) rig.sleep(3000) return 'ok' end }\n"
    "rig.tool { name = 'switch', description = 'd', input_schema = schema, run = function()\n"
    "  local n, none = 100000, function() end\n"
    "  collectgarbage() collectgarbage 'stop'\n"
    "  local t0 = os.clock()\n"
    "  for _ = 1, n do local co = coroutine.create(none) coroutine.resume(co) end\n"
    "  local raw = os.clock() - t0\n"
    "  collectgarbage 'restart' collectgarbage() collectgarbage 'stop'\n"
    "  t0 = os.clock()\n"
    "  for _ = 1, n / 10 do rig.spawn(none):wait() end\n"
    "  local ours = (os.clock() - t0) * 10\n"
    "  collectgarbage 'restart'\n"
    "  return ('%.1f x raw (%.2f us a task made, run and waited for; a raw coroutine %.2f us)'):format(ours / raw,\n"
    "    ours / n * 1e6, raw / n * 1e6)\n"
    "end }\n";

static struct mr_runtime *rt;
static sem_t over; /* the run that was waited for is over */
static char answer[300];
static int rounds_left; /* loop: of quick */

struct start {
  struct mr_post post;
  struct mr_tool_run run;
};

static void fail(const char *what, const struct mr_err *err)
{
  fprintf(stderr, "handlers: %s: %s\n", what, err ? err->message : "failed");
  exit(1);
}

static void on_start(struct mr_post *p)
{
  struct start *s = MR_OF(p, struct start, post);
  struct mr_tool_runner r = mr_tools_runner(rt);

  if (!r.owns(r.ud, s->run.name, s->run.agent_id, s->run.agent_name) || r.start(r.ud, &s->run) != MR_OK)
    fail("start", NULL);
}

void __wrap_mr_tool_run_done(struct mr_domain *d, struct mr_tool_run *run, struct mr_str content, bool is_error);
void __wrap_mr_tool_run_done(struct mr_domain *d, struct mr_tool_run *run, struct mr_str content, bool is_error)
{
  (void)d;
  snprintf(answer, sizeof answer, "%.*s", (int)content.n, content.p ? content.p : "");
  if (is_error) fail("a handler failed", &(struct mr_err){.message = "see the log"});
  if (rounds_left > 0 && --rounds_left > 0) {
    on_start(&MR_OF(run, struct start, run)->post); /* from here, so that no third thread is in the way */
    return;
  }
  free(MR_OF(run, struct start, run));
  sem_post(&over);
}

static void give(const char *tool)
{
  static const struct mr_str input = MR_S("{\"id\":\"PO-7017\",\"lines\":[1,2,3]}");
  struct start *s = calloc(1, sizeof *s);

  s->post.fn = on_start;
  s->run = (struct mr_tool_run){.name = mr_str_c(tool),
                                .input = input,
                                .event_id = MR_S("sevt_0123456789abcdefghijkl"),
                                .session_id = MR_S("sesn_0123456789abcdefghijkl"),
                                .thread_id = MR_S("sthr_0123456789abcdefghijkl"),
                                .agent_id = MR_S("agent_0123456789abcdefghijkl"),
                                .agent_name = MR_S("a"),
                                .attempt = 1};
  if (mr_rt_post(rt, &s->post) != MR_OK) fail("post", NULL);
}

static double cpu(void)
{
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void quick(int n)
{
  rounds_left = n; /* the loop sleeps now, and looks after the post */
  give("quick");
  sem_wait(&over);
}

static size_t in_use(void)
{
  struct mallinfo2 m = mallinfo2();
  return m.uordblks + m.hblkhd;
}

/* Memory in use, without garbage, once nothing changes any more. */
static size_t settled(void)
{
  enum { NOISE = 64 << 10 };
  for (size_t now, last = 0;; last = now) {
    give("collect");
    sem_wait(&over);
    now = in_use();
    if (now > last ? now - last < NOISE : last - now < NOISE) return now;
    usleep(200 * 1000);
  }
}

static void *scripts_loop(void *s)
{
  mr_script_loop(s);
  return NULL;
}

int main(int argc, char **argv)
{
  int waiting = argc > 1 ? atoi(argv[1]) : 10000, rounds = argc > 2 ? atoi(argv[2]) : 20000;
  char path[] = "/tmp/moonrig-handlers.XXXXXX.lua";
  const char *paths[] = {path};
  struct mr_script_opts o = {.size = sizeof o, .paths = paths, .npaths = 1, .tasks_max = waiting + 100, .burst_ms = 60000};
  struct mr_config c;
  struct mr_err err = {.size = sizeof err};
  struct mr_script *script;
  pthread_t thread;
  size_t before;
  double from;
  int fd = mkstemps(path, 4);

  if (fd < 0 || write(fd, scripts, sizeof scripts - 1) != sizeof scripts - 1) fail(path, NULL);
  close(fd);
  sem_init(&over, 0, 0);
  mr_config_init(&c);
  c.store = ":memory:";
  if (mr_open(&rt, &c, &err) != MR_OK || mr_script_open(&script, rt, &o, &err) != MR_OK) fail("open", &err);
  pthread_create(&thread, NULL, scripts_loop, script);

  quick(rounds / 10);
  from = cpu();
  quick(rounds);
  printf("round-trip %.1f us CPU, loop to handler and back, one at a time\n", (cpu() - from) / rounds * 1e6);

  give("switch");
  sem_wait(&over);
  printf("switch %s\n", answer);

  fflush(stdout);
  before = settled();
  for (int i = 0; i < waiting; i++)
    give("wait");
  printf("waiting %d handlers, %.0f bytes each\n", waiting, (double)(settled() - before) / waiting);
  fflush(stdout);
  unlink(path);
  _exit(0);
}
