/* Permit hooks in the host: what they may decide, order, filters, failing open and closed, closing. */
#include "host_kit.h"

static const char *use_look(struct host *h, const char *last, int k)
{
  (void)h;
  (void)k;
  if (strcmp(last, "go") == 0)
    return "[{\"type\":\"tool_use\",\"name\":\"look\",\"input\":{\"at\":\"x\"}}]";
  return say("got ", last);
}

static void run(void *ud, struct mr_use *use)
{
  char result[300];
  struct mr_str in = mr_use_input(use);
  ++*(int *)ud;
  snprintf(result, sizeof result, "{\"ran\":%.*s}", (int)in.n, in.p);
  mr_use_finish(&use, result);
}

struct hook { const char *decision; int asked, code; struct mr_hook_call *held; bool hold; };

static void on_hook(void *ud, struct mr_hook_call *c)
{
  struct hook *k = ud;
  const struct mr_val *in = mr_hook_input(c);
  CHECK_STR(X()->as_str(X()->get(in, S("name"))), "look");
  CHECK_STR(X()->as_str(X()->get(in, S("agent"))), "assistant");
  CHECK(X()->get(in, S("session_id")) != NULL);
  CHECK_STR(X()->as_str(X()->get(X()->get(in, S("input")), S("at"))), "x");
  k->asked++;
  if (k->hold) {
    k->held = c;
    return;
  }
  k->code = mr_hook_decide(&c, k->decision);
  CHECK(c == NULL);
}

static int ran;

static void open_one(struct host *h)
{
  struct mr_tool m = {.size = sizeof m, .name = "look", .run = run, .ud = &ran};
  h->rt = host_open(":memory:");
  host_play(h, use_look);
  CHECK_INT(mr_tool_add(h->rt, &m, NULL), MR_OK);
  host_session(h, "[" CUSTOM("look") "]");
  ran = 0;
}

static int hook(struct host *h, struct hook *k, const char *filter, unsigned flags)
{
  int id = mr_hook_add(h->rt, "permit", filter, flags, on_hook, k, &h->err);
  if (id < 0)
    test_fail(__FILE__, __LINE__, "hook: %s", h->err.message);
  return id;
}

static const char *ask(struct host *h)
{
  static struct got g;
  memset(&g, 0, sizeof g);
  CHECK_INT(mr_ask(h->rt, h->session, "go", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h->rt, g.replies);
  CHECK_INT(g.code, MR_OK);
  return pick(g.json, "/text");
}

TEST(a_hook_decides)
{
  static const struct { const char *decision, *text; int runs, code; unsigned flags; } cases[] = {
      {"{\"decision\":\"allow\"}", "got [{\"ran\":{\"at\":\"x\"}}]", 1, MR_OK, 0},
      {NULL, "got [{\"ran\":{\"at\":\"x\"}}]", 1, MR_OK, 0},
      {"null", "got [{\"ran\":{\"at\":\"x\"}}]", 1, MR_OK, MR_HOOK_FAIL_CLOSED},
      {"{\"decision\":\"rewrite\",\"input\":{\"at\":\"elsewhere\"}}", "got [{\"ran\":{\"at\":\"elsewhere\"}}]", 1, MR_OK, 0},
      {"{\"decision\":\"deny\",\"message\":\"not today\"}", "got [Permission to use look has been denied. not today]", 0, MR_OK, 0},
      {"{\"decision\":\"deny\"}", "got [Permission to use look has been denied.]", 0, MR_OK, 0},
      {"{\"decision\":\"perhaps\"}", "got [{\"ran\":{\"at\":\"x\"}}]", 1, MR_E_INVALID, 0},
      {"{\"decision\":\"perhaps\"}", "got [Permission to use look has been denied. The permission hook failed.]", 0, MR_E_INVALID, MR_HOOK_FAIL_CLOSED},
      {"{\"decision\":\"rewrite\"}", "got [Permission to use look has been denied. The permission hook failed.]", 0, MR_E_INVALID, MR_HOOK_FAIL_CLOSED},
      {"{decision", "got [Permission to use look has been denied. The permission hook failed.]", 0, MR_E_INVALID, MR_HOOK_FAIL_CLOSED}};
  static struct host h;

  open_one(&h);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct hook k = {.decision = cases[i].decision};
    int id = hook(&h, &k, NULL, cases[i].flags);
    ran = 0;
    CHECK_STR(mr_str_c(ask(&h)), cases[i].text);
    CHECK_INT(ran, cases[i].runs);
    CHECK_INT(k.asked, 1);
    CHECK_INT(k.code, cases[i].code);
    CHECK_INT(mr_hook_remove(h.rt, id), MR_OK);
    CHECK_INT(mr_hook_remove(h.rt, id), MR_E_NOTFOUND);
  }
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(the_first_that_decides_wins)
{
  static struct host h;
  struct hook none = {0}, deny = {.decision = "{\"decision\":\"deny\",\"message\":\"second\"}"},
              allow = {.decision = "{\"decision\":\"allow\"}"};

  open_one(&h);
  hook(&h, &none, NULL, 0);
  hook(&h, &deny, NULL, 0);
  hook(&h, &allow, NULL, 0);
  CHECK_STR(mr_str_c(ask(&h)), "got [Permission to use look has been denied. second]");
  CHECK_INT(none.asked, 1);
  CHECK_INT(deny.asked, 1);
  CHECK_INT(allow.asked, 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

TEST(filters_choose_by_agent_and_tool)
{
  static struct host h;
  struct hook deny = {.decision = "{\"decision\":\"deny\"}"}, seen = {0};
  char filter[200];

  open_one(&h);
  hook(&h, &deny, "{\"tool\":\"other\"}", 0);
  hook(&h, &deny, "{\"agent\":\"other\"}", 0);
  hook(&h, &deny, "{\"agent\":\"assistant\",\"tool\":\"other\"}", 0);
  hook(&h, &seen, "{\"agent\":\"assistant\",\"tool\":\"look\"}", 0);
  snprintf(filter, sizeof filter, "{\"agent\":\"%s\",\"tool\":null}", h.agent);
  hook(&h, &seen, filter, 0);
  hook(&h, &seen, "null", 0);
  CHECK_STR(mr_str_c(ask(&h)), "got [{\"ran\":{\"at\":\"x\"}}]");
  CHECK_INT(deny.asked, 0);
  CHECK_INT(seen.asked, 3);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(bad_hooks_are_refused)
{
  static struct host h;
  struct hook k = {0};

  h.rt = host_open(":memory:");
  CHECK_INT(mr_hook_add(h.rt, "permits", NULL, 0, on_hook, &k, &h.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "phase");
  CHECK_INT(mr_hook_add(h.rt, "context", "{\"tool\":\"look\"}", 0, on_hook, &k, &h.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "filter");
  CHECK_INT(mr_hook_add(h.rt, "permit", "{\"agnet\":\"a\"}", 0, on_hook, &k, &h.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "filter");
  CHECK_INT(mr_hook_add(h.rt, "permit", "[", 0, on_hook, &k, &h.err), MR_E_INVALID);
  CHECK_INT(mr_hook_add(h.rt, "permit", NULL, 0, NULL, &k, &h.err), MR_E_INVALID);
  CHECK_INT(mr_hook_add(h.rt, "permit", NULL, 8, on_hook, &k, &h.err), MR_E_INVALID);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

static void *decide_elsewhere(void *arg)
{
  struct mr_hook_call *c = arg;
  usleep(2000);
  CHECK_INT(mr_hook_decide(&c, "{\"decision\":\"deny\",\"message\":\"from afar\"}"), MR_OK);
  return NULL;
}

TEST(a_hook_answers_later_from_another_thread)
{
  static struct host h;
  static struct got g;
  struct hook k = {.hold = true};
  pthread_t t;

  open_one(&h);
  hook(&h, &k, NULL, 0);
  CHECK_INT(mr_ask(h.rt, h.session, "go", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, k.held);
  CHECK_INT(pthread_create(&t, NULL, decide_elsewhere, k.held), 0);
  UNTIL(h.rt, g.replies);
  pthread_join(t, NULL);
  CHECK_STR(mr_str_c(pick(g.json, "/text")), "got [Permission to use look has been denied. from afar]");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

/* A clock of the test's: thirty seconds pass when it says so. */
static _Atomic int64_t skipped_us;
static int64_t skipping_mono(void *ud)
{
  (void)ud;
  return test_sys()->mono_us(NULL) + skipped_us;
}

static void nothing(void *ud)
{
  (void)ud;
}

static void no_answer(unsigned flags, const char *text)
{
  static struct host h;
  static struct got g;
  struct hook k = {.hold = true};
  struct mr_config c = host_config(":memory:");
  struct mr_tool m = {.size = sizeof m, .name = "look", .run = run, .ud = &ran};

  memset(&h, 0, sizeof h);
  memset(&g, 0, sizeof g);
  c.mono_us = skipping_mono;
  CHECK_INT(mr_open(&h.rt, &c, NULL), MR_OK);
  host_play(&h, use_look);
  CHECK_INT(mr_tool_add(h.rt, &m, NULL), MR_OK);
  host_session(&h, "[" CUSTOM("look") "]");
  hook(&h, &k, NULL, flags);
  CHECK_INT(mr_ask(h.rt, h.session, "go", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, k.held);
  skipped_us += 31 * 1000000;
  CHECK_INT(X()->timer(h.rt, 0, nothing, NULL, NULL), MR_OK); /* the loop looks at its clock */
  UNTIL(h.rt, g.replies);
  CHECK_STR(mr_str_c(pick(g.json, "/text")), text);
  CHECK_INT(mr_hook_decide(&k.held, "{\"decision\":\"deny\"}"), MR_OK); /* too late, harmless */
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(no_answer_in_time_fails_open)
{
  no_answer(0, "got [{\"ran\":{\"at\":\"x\"}}]");
}

TEST(no_answer_in_time_fails_closed)
{
  no_answer(MR_HOOK_FAIL_CLOSED, "got [Permission to use look has been denied. The permission hook did not answer in time.]");
}

TEST(closing_with_questions_open)
{
  for (int i = 0; i < 10; i++) {
    static struct host h;
    struct hook k = {.hold = true};
    memset(&h, 0, sizeof h);
    open_one(&h);
    hook(&h, &k, NULL, i % 2 ? MR_HOOK_FAIL_CLOSED : 0);
    host_say(&h, "go");
    if (i % 3)
      UNTIL(h.rt, k.held);
    else
      usleep(5000);
    CHECK_INT(mr_close(&h.rt), MR_OK);
    CHECK_INT(ran, 0);
    if (k.held)
      CHECK_INT(mr_hook_decide(&k.held, "{\"decision\":\"allow\"}"), MR_OK);
    CHECK_INT(test_allocs(), 0);
  }
}
