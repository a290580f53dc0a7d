/* The modes in which the host's thread runs the loop: pump and own; and what is not there yet. */
#include "host_kit.h"

#include <signal.h>

static const char *echo(struct host *h, const char *last, int k)
{
  (void)h;
  (void)k;
  return say("you said ", last);
}

static struct mr_runtime *open_mode(enum mr_loop_mode mode, const char *store)
{
  struct mr_config c = host_config(store);
  struct mr_runtime *rt = NULL;
  struct mr_err err = {.size = sizeof err};
  c.loop = mode;
  if (mr_open(&rt, &c, &err) != MR_OK)
    test_fail(__FILE__, __LINE__, "open: %s", err.message);
  return rt;
}

TEST(pump_runs_turns_without_a_loop_thread)
{
  static struct host h;
  static struct got g;
  int threads;

  h.rt = open_mode(MR_LOOP_PUMP, test_dir());
  threads = count_threads();
  host_play(&h, echo); /* goes to the loop: that is this thread */
  host_session(&h, NULL);
  CHECK_INT(mr_ask(h.rt, h.session, "pumped", &got_cbs, &g, NULL, NULL), MR_OK);
  for (int i = 0; i < 5000 && !g.replies; i++) {
    int64_t next;
    mr_pump(h.rt, 2000);
    mr_dispatch(h.rt, 0, 0);
    next = mr_next_timeout_us(h.rt);
    CHECK(next >= -1);
    if (next)
      usleep(500);
  }
  CHECK_INT(g.code, MR_OK);
  CHECK_STR(mr_str_c(pick(g.json, "/text")), "you said pumped");
  CHECK_INT(count_threads(), threads);
  host_say(&h, "once more");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

/* How long a pump takes depends on the machine; that it leaves work undone when its time is over does not. */
TEST(a_pump_keeps_its_budget)
{
  static struct host h;
  static struct got g[300];
  int pumps = 0, answered = 0;

  h.rt = open_mode(MR_LOOP_PUMP, ":memory:");
  host_ok(&h, "agents.list", "{}");
  for (int i = 0; i < 300; i++) {
    struct mr_req req = {.size = sizeof req, .op = "agents.retrieve", .json = S("{\"agent_id\":\"agent_none\"}")};
    CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g[i], NULL, NULL), MR_OK);
  }
  CHECK_INT(mr_pump(h.rt, 1), MR_MORE);
  while (answered < 300 && pumps++ < 100000) {
    mr_pump(h.rt, 1);
    mr_dispatch(h.rt, 0, 0);
    answered = 0;
    for (int i = 0; i < 300; i++)
      answered += g[i].replies;
  }
  CHECK_INT(answered, 300);
  CHECK(pumps > 50);
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

TEST(pump_is_for_its_mode_alone)
{
  struct mr_runtime *rt = host_open(":memory:");

  CHECK_INT(mr_pump(rt, 100), MR_E_STATE);
  CHECK_INT(mr_run(rt), MR_E_STATE);
  CHECK_INT(mr_next_timeout_us(rt), -1);
  CHECK_INT(mr_close(&rt), MR_OK);
}

/* ---- own ---- */

static struct host own;
static struct got own_got;

static void stop_when_done(void *ud)
{
  if (own_got.replies)
    mr_stop(own.rt, 1000);
  else
    X()->timer(own.rt, 2000, stop_when_done, ud, NULL);
}

TEST(run_is_the_loop_until_it_is_stopped)
{
  int threads;

  own.rt = open_mode(MR_LOOP_OWN, test_dir());
  threads = count_threads();
  host_play(&own, echo);
  host_session(&own, NULL); /* mr_call_wait turns the loop itself */
  CHECK_INT(mr_ask(own.rt, own.session, "run", &got_cbs, &own_got, NULL, NULL), MR_OK);
  CHECK_INT(X()->timer(own.rt, 2000, stop_when_done, NULL, NULL), MR_OK);
  CHECK_INT(mr_run(own.rt), MR_OK);
  CHECK_STR(mr_str_c(pick(own_got.json, "/text")), "you said run");
  CHECK_INT(count_threads(), threads);
  CHECK_INT(mr_stopped(own.rt), 1);
  CHECK_INT(mr_run(own.rt), MR_E_STATE);
  CHECK_INT(mr_close(&own.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

static void *stop_elsewhere(void *rt)
{
  usleep(50000);
  CHECK_INT(mr_stop(rt, 0), MR_OK);
  return NULL;
}

TEST(run_is_stopped_from_another_thread)
{
  struct mr_runtime *rt = open_mode(MR_LOOP_OWN, ":memory:");
  pthread_t t;

  CHECK_INT(pthread_create(&t, NULL, stop_elsewhere, rt), 0);
  CHECK_INT(mr_run(rt), MR_OK);
  pthread_join(t, NULL);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

/* A pipe that breaks under our loop must not kill the host, nor leave a signal pending in its thread. */
TEST(a_broken_pipe_is_ours_alone)
{
  static struct host h;
  static struct got g;
  sigset_t before, after, pending;

  h.rt = open_mode(MR_LOOP_PUMP, ":memory:");
  pthread_sigmask(SIG_SETMASK, NULL, &before);
  host_play(&h, echo);
  host_session(&h, NULL);
  CHECK_INT(mr_ask(h.rt, h.session, "x", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  pthread_sigmask(SIG_SETMASK, NULL, &after);
  CHECK_INT(sigismember(&before, SIGPIPE), sigismember(&after, SIGPIPE));
  sigpending(&pending);
  CHECK_INT(sigismember(&pending, SIGPIPE), 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

TEST(borrowed_says_that_it_is_not_there)
{
  struct mr_config c = host_config(":memory:");
  struct mr_runtime *rt = NULL;
  struct mr_err err = {.size = sizeof err};

  c.loop = MR_LOOP_BORROWED;
  CHECK_INT(mr_open(&rt, &c, &err), MR_E_UNSUPPORTED);
  CHECK_STR(mr_str_c(err.field), "loop");
  CHECK(strstr(err.message, "mr_fd"));
}
