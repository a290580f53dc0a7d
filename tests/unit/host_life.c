/* A runtime's life: opening, options, closing in every state, forks, two at a time. */
#include "host_kit.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static const char *say_hello(struct host *h, const char *last, int k)
{
  (void)h;
  (void)last;
  (void)k;
  return "[{\"type\":\"text\",\"text\":\"hello\"}]";
}

static const char *hold(struct host *h, const char *last, int k)
{
  (void)h;
  (void)last;
  (void)k;
  return NULL;
}

TEST(open_and_close_leak_nothing)
{
  int fds = 0, threads = 0;
  long live = 0;

  for (int i = 0; i < 201; i++) {
    struct mr_runtime *rt = host_open(":memory:");
    CHECK_INT(mr_close(&rt), MR_OK);
    CHECK(rt == NULL);
    if (i == 0) {
      fds = count_fds();
      threads = count_threads();
      live = test_allocs();
    }
  }
  CHECK_INT(count_fds(), fds);
  CHECK_INT(count_threads(), threads);
  CHECK_INT(test_allocs(), live);
  CHECK_INT(live, 0);
}

TEST(a_used_runtime_leaks_nothing)
{
  int fds = 0;

  for (int i = 0; i < 8; i++) {
    static struct host h;
    memset(&h, 0, sizeof h);
    h.rt = host_open(i % 2 ? test_dir() : ":memory:");
    host_play(&h, say_hello);
    host_session(&h, NULL);
    host_say(&h, "hi");
    UNTIL(h.rt, h.asked == 1);
    CHECK_INT(mr_close(&h.rt), MR_OK);
    CHECK_INT(test_allocs(), 0);
    if (i == 1)
      fds = count_fds();
  }
  CHECK_INT(count_fds(), fds);
}

TEST(close_with_work_in_flight)
{
  for (int i = 0; i < 40; i++) {
    static struct host h;
    static struct got g[20];
    struct mr_op *op[20];
    char json[200];
    memset(&h, 0, sizeof h);
    memset(g, 0, sizeof g);
    h.rt = host_open(":memory:");
    host_play(&h, hold);
    host_session(&h, NULL);
    host_say(&h, "hi");
    if (i % 2)
      UNTIL(h.rt, h.held);
    snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", h.session);
    for (int k = 0; k < 20; k++) {
      const char *ops[] = {"sessions.events.stream", "sessions.retrieve", "sessions.events.list", "sessions.update"};
      struct mr_req req = {.size = sizeof req, .op = ops[k % 4], .json = mr_str_c(json)};
      CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g[k], &op[k], NULL), MR_OK);
    }
    if (i % 3 == 0)
      host_turn(h.rt, 1);
    CHECK_INT(mr_close(&h.rt), MR_OK);
    for (int k = 0; k < 20; k++) {
      CHECK_INT(g[k].replies, 1);
      CHECK(!g[k].bad_order);
      if (k % 4 == 0)
        CHECK_INT(g[k].code, MR_E_CLOSED);
      else
        CHECK(g[k].code == MR_OK || g[k].code == MR_E_CLOSED);
      mr_op_cancel(op[k]); /* harmless now */
      mr_op_release(op[k]);
    }
    CHECK(h.held == NULL); /* cancelled, if it was handed out */
    CHECK_INT(test_allocs(), 0);
  }
}

TEST(a_stop_with_grace_lets_a_reply_through)
{
  static struct host h;
  struct mr_model_use *use;

  h.rt = host_open(test_dir());
  host_play(&h, hold);
  host_session(&h, NULL);
  host_say(&h, "hi");
  UNTIL(h.rt, h.held);
  CHECK_INT(mr_stop(h.rt, 20000), MR_OK);
  CHECK_INT(mr_stop(h.rt, 30000), MR_OK);
  for (int i = 0; i < 3; i++)
    host_turn(h.rt, 20);
  use = h.held;
  h.held = NULL;
  CHECK_INT(mr_model_use_finish(&use, "{\"content\":[{\"type\":\"text\",\"text\":\"late but whole\"}]}"), MR_OK);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(h.cancelled, 0);
  h.rt = host_open(test_dir()); /* the reply was recorded: nobody asks again */
  host_events(&h);
  CHECK(strstr(h.last, "late but whole"));
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

TEST(a_stop_cuts_when_grace_is_over)
{
  static struct host h;

  h.rt = host_open(test_dir());
  host_play(&h, hold);
  host_session(&h, NULL);
  host_say(&h, "hi");
  UNTIL(h.rt, h.held);
  CHECK_INT(mr_stop(h.rt, 100), MR_OK);
  UNTIL(h.rt, h.cancelled == 1);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  h.rt = host_open(test_dir()); /* asked again, at the first dispatch */
  host_play(&h, say_hello);
  h.asked = 0;
  UNTIL(h.rt, h.asked == 1);
  UNTIL(h.rt, strcmp(host_status(&h), "idle") == 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

TEST(sessions_wait_for_the_first_dispatch)
{
  static struct host h;

  h.rt = host_open(test_dir());
  host_play(&h, hold);
  host_session(&h, NULL);
  host_say(&h, "hi");
  UNTIL(h.rt, h.held);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  h.asked = 0;
  h.rt = host_open(test_dir());
  host_play(&h, say_hello);
  usleep(100000);
  CHECK_INT(h.asked, 0);
  UNTIL(h.rt, h.asked == 1);
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

TEST(a_second_owner_is_told_who_has_the_store)
{
  struct mr_runtime *rt = host_open(test_dir()), *other = NULL;
  struct mr_config c = host_config(test_dir());
  struct mr_err err = {.size = sizeof err};
  char pid[32];

  CHECK_INT(mr_open(&other, &c, &err), MR_E_BUSY);
  CHECK(other == NULL);
  snprintf(pid, sizeof pid, "%ld", (long)getpid());
  CHECK(strstr(err.message, pid));
  CHECK_INT(mr_close(&rt), MR_OK);
  c.wait_ms = 1000;
  CHECK_INT(mr_open(&other, &c, &err), MR_OK);
  CHECK_INT(mr_close(&other), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

static void *close_later(void *arg)
{
  usleep(200000);
  CHECK_INT(mr_close(arg), MR_OK);
  return NULL;
}

TEST(wait_ms_waits_for_the_owner_to_leave)
{
  struct mr_runtime *rt = host_open(test_dir()), *other = NULL;
  struct mr_config c = host_config(test_dir());
  pthread_t t;

  CHECK_INT(pthread_create(&t, NULL, close_later, &rt), 0);
  c.wait_ms = 10000;
  CHECK_INT(mr_open(&other, &c, NULL), MR_OK);
  pthread_join(t, NULL);
  CHECK_INT(mr_close(&other), MR_OK);
}

TEST(two_runtimes_in_one_process)
{
  static struct host a, b;
  char other[300];

  snprintf(other, sizeof other, "%s/other", test_dir());
  a.rt = host_open(test_dir());
  b.rt = host_open(other);
  host_play(&a, say_hello);
  host_play(&b, say_hello);
  host_session(&a, NULL);
  host_session(&b, NULL);
  host_say(&a, "to a");
  host_say(&b, "to b");
  UNTIL(a.rt, a.asked == 1);
  UNTIL(b.rt, b.asked == 1);
  UNTIL(a.rt, strcmp(host_status(&a), "idle") == 0);
  host_events(&a);
  CHECK(strstr(a.last, "to a") && !strstr(a.last, "to b"));
  CHECK_INT(mr_close(&a.rt), MR_OK);
  UNTIL(b.rt, strcmp(host_status(&b), "idle") == 0);
  host_events(&b);
  CHECK(strstr(b.last, "to b") && !strstr(b.last, "to a"));
  CHECK_INT(mr_close(&b.rt), MR_OK);
}

TEST(options_are_checked)
{
  static const struct { const char *options, *field; } bad[] = {
      {"{\"modles\":{}}", "modles"},
      {"{\"models\":{\"anthropic\":{\"base_ulr\":\"x\"}}}", "models.anthropic.base_ulr"},
      {"{\"retries\":{\"max\":\"ten\"}}", "retries.max"},
      {"{\"retries\":{\"max\":-1}}", "retries.max"},
      {"{\"sandbox\":{\"enabled\":1}}", "sandbox.enabled"},
      {"{\"sandbox\":true}", "sandbox"},
      {"{\"log\":{\"level\":\"loud\"}}", "log.level"},
      {"[]", "options"},
      {"{", "options"},
      {"{\"models\":{\"route\":{\"x\":3}}}", "models.route"},
      {"{\"api\":3}", "api"},
      {"{\"api\":{\"strict\":1}}", "api"},
      {"{\"api\":{\"stream_max\":\"4 MB\"}}", "api"},
      {"{\"api\":{\"idempotency_max\":-1}}", "api"}};
  struct mr_runtime *rt = NULL;
  struct mr_err err;

  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct mr_config c = host_config(":memory:");
    memset(&err, 0, sizeof err);
    c.options = bad[i].options;
    CHECK_INT(mr_open(&rt, &c, &err), MR_E_INVALID);
    if (strcmp(err.field, bad[i].field) != 0)
      test_fail(__FILE__, __LINE__, "%s: field \"%s\"", bad[i].options, err.field);
    CHECK(rt == NULL);
  }
  struct mr_config good = host_config(":memory:");
  good.options = "{\"retries\":{\"max\":3},\"sandbox\":{\"enabled\":false},\"log\":{\"level\":\"debug\"},"
                 "\"models\":{\"anthropic\":{\"base_url\":\"http://127.0.0.1:9\",\"api_key\":null}}}";
  CHECK_INT(mr_open(&rt, &good, &err), MR_OK);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_bad_configuration_names_its_field)
{
  struct mr_config c = host_config(NULL);
  struct mr_runtime *rt = NULL;
  struct mr_err err = {.size = sizeof err};

  CHECK_INT(mr_open(&rt, &c, &err), MR_E_INVALID);
  CHECK_STR(mr_str_c(err.field), "store");
  CHECK_INT(mr_open(&rt, NULL, &err), MR_E_INVALID);
  CHECK_STR(mr_str_c(err.field), "size");
  c = host_config(":memory:");
  c.queue_max = 3;
  CHECK_INT(mr_open(&rt, &c, &err), MR_E_INVALID);
  CHECK_STR(mr_str_c(err.field), "queue_max");
  c = host_config("/dev/null/x");
  CHECK(mr_open(&rt, &c, &err) < 0);
  CHECK(rt == NULL);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(mr_dispatch(NULL, 0, 0), MR_E_INVALID);
  CHECK_INT(test_allocs(), 0);
}

TEST(after_a_fork_every_call_says_so)
{
  static struct host h;
  struct mr_req req = {.size = sizeof req, .op = "agents.list"};
  struct mr_tool tool = {.size = sizeof tool, .name = "t"};
  struct mr_err err = {.size = sizeof err};
  int status;
  pid_t pid;

  h.rt = host_open(test_dir());
  host_ok(&h, "agents.list", "{}");
  pid = fork();
  if (pid == 0) {
    struct mr_runtime *rt = h.rt;
    bool ok = mr_call(rt, &req, NULL, NULL, NULL, &err) == MR_E_FORKED && err.code == MR_E_FORKED &&
              mr_dispatch(rt, 0, 0) == MR_E_FORKED && mr_wait(rt, 0) == MR_E_FORKED && mr_fd(rt) == MR_E_FORKED &&
              mr_stop(rt, 0) == MR_E_FORKED && mr_tool_add(rt, &tool, NULL) == MR_E_FORKED &&
              mr_listen(rt, "127.0.0.1:0", NULL, 0, NULL) == MR_E_FORKED && mr_close(&rt) == MR_E_FORKED &&
              mr_call_wait(rt, "agents.list", "{}", 10, NULL, NULL) == MR_E_FORKED;
    _exit(ok ? 0 : 1);
  }
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  host_ok(&h, "agents.list", "{}"); /* the parent's is whole */
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

static struct mr_runtime *reentrant_rt;
static int reentrant_seen;

static void reenter(void *ud)
{
  struct mr_runtime *rt = ud;
  CHECK_INT(mr_dispatch(rt, 0, 0), MR_E_REENTRANT);
  CHECK_INT(mr_wait(rt, 0), MR_E_REENTRANT);
  CHECK_INT(mr_close(&rt), MR_E_REENTRANT);
  CHECK(rt == reentrant_rt);
  CHECK_INT(mr_call_wait(rt, "agents.list", "{}", 10, NULL, NULL), MR_E_STATE);
  reentrant_seen++;
}

TEST(nested_dispatch_is_refused)
{
  struct mr_runtime *rt = reentrant_rt = host_open(":memory:");

  CHECK_INT(X()->post(rt, reenter, rt), MR_OK);
  UNTIL(rt, reentrant_seen == 1);
  CHECK_INT(mr_close(&rt), MR_OK);
}

static void *dispatch_elsewhere(void *arg)
{
  CHECK_INT(mr_dispatch(arg, 0, 0), MR_E_STATE);
  return NULL;
}

static void while_dispatching(void *ud)
{
  pthread_t t;
  pthread_create(&t, NULL, dispatch_elsewhere, ud);
  pthread_join(t, NULL);
  reentrant_seen++;
}

TEST(one_dispatcher_at_a_time)
{
  struct mr_runtime *rt = host_open(":memory:");

  CHECK_INT(X()->post(rt, while_dispatching, rt), MR_OK);
  UNTIL(rt, reentrant_seen == 1);
  CHECK_INT(mr_close(&rt), MR_OK);
}

TEST(the_doorbell_is_level_triggered)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct pollfd p = {.fd = mr_fd(rt), .events = POLLIN};

  reentrant_rt = rt;
  mr_dispatch(rt, 0, 0);
  while (mr_wait(rt, 50) == MR_OK)
    mr_dispatch(rt, 0, 0);
  CHECK_INT(poll(&p, 1, 0), 0);
  CHECK_INT(X()->post(rt, reenter, rt), MR_OK);
  CHECK_INT(X()->post(rt, reenter, rt), MR_OK);
  CHECK_INT(poll(&p, 1, 0), 1);
  CHECK_INT(poll(&p, 1, 0), 1);
  CHECK_INT(mr_dispatch(rt, 1, 0), MR_MORE);
  CHECK_INT(poll(&p, 1, 0), 1);
  CHECK_INT(mr_dispatch(rt, 0, 0), MR_OK);
  CHECK_INT(poll(&p, 1, 0), 0);
  CHECK_INT(reentrant_seen, 2);
  CHECK_INT(mr_close(&rt), MR_OK);
}

static void slow(void *ud)
{
  usleep(3000);
  ++*(int *)ud;
}

TEST(a_budget_cuts_a_dispatch)
{
  struct mr_runtime *rt = host_open(":memory:");
  int n = 0;

  for (int i = 0; i < 10; i++)
    CHECK_INT(X()->post(rt, slow, &n), MR_OK);
  CHECK_INT(mr_dispatch(rt, 0, 1), MR_MORE);
  CHECK_INT(n, 1); /* one always runs to its end */
  CHECK_INT(mr_dispatch(rt, 0, 7000), MR_MORE);
  CHECK(n >= 2 && n < 10);
  while (mr_dispatch(rt, 0, 0) == MR_MORE)
    continue;
  CHECK_INT(n, 10);
  CHECK_INT(mr_close(&rt), MR_OK);
}

static void again(void *ud)
{
  int *n = ud;
  ++*n;
  X()->post(reentrant_rt, again, n);
}

TEST(a_dispatch_ends_though_callbacks_post_more)
{
  struct mr_runtime *rt = reentrant_rt = host_open(":memory:");
  int n = 0;

  CHECK_INT(X()->post(rt, again, &n), MR_OK);
  CHECK_INT(mr_dispatch(rt, 0, 0), MR_MORE);
  CHECK_INT(n, 1);
  CHECK_INT(mr_close(&rt), MR_OK); /* what waits runs, and cannot post any more */
  CHECK(n >= 2);
  CHECK_INT(test_allocs(), 0);
}

TEST(nothing_of_the_process_is_touched)
{
  struct sigaction before[32], after;
  struct mr_runtime *rt;
  sigset_t m0, m1;
  char cwd0[4096], cwd1[4096];

  CHECK(getcwd(cwd0, sizeof cwd0) != NULL);
  pthread_sigmask(SIG_SETMASK, NULL, &m0);
  for (int i = 1; i < 32; i++)
    sigaction(i, NULL, &before[i]);
  rt = host_open(test_dir());
  mr_dispatch(rt, 0, 0);
  for (int i = 1; i < 32; i++) {
    sigaction(i, NULL, &after);
    CHECK(after.sa_handler == before[i].sa_handler && after.sa_flags == before[i].sa_flags);
  }
  pthread_sigmask(SIG_SETMASK, NULL, &m1);
  for (int i = 1; i < 32; i++)
    CHECK_INT(sigismember(&m0, i), sigismember(&m1, i));
  CHECK(getcwd(cwd1, sizeof cwd1) != NULL);
  CHECK(strcmp(cwd0, cwd1) == 0);
  CHECK_INT(mr_close(&rt), MR_OK);
}
