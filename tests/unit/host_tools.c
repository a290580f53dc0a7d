/* Tool handlers in the host: finishing from anywhere, cancel, deadlines, concurrency, replacement. */
#include "host_kit.h"

#include <stdatomic.h>

/* Calls the tool `look` once for each character of the last text, then says what came back. */
static const char *uses(struct host *h, const char *last, int k)
{
  static char out[6000];
  size_t n = 0;
  (void)h;
  (void)k;
  if (last[0] == '[' || !last[0])
    return say("got ", last);
  n += (size_t)snprintf(out, sizeof out, "[");
  for (const char *p = last; *p; p++)
    n += (size_t)snprintf(out + n, sizeof out - n, "%s{\"type\":\"tool_use\",\"name\":\"look\",\"input\":{\"at\":\"%c\"}}",
                          p > last ? "," : "", *p);
  snprintf(out + n, sizeof out - n, "]");
  return out;
}

struct tool {
  struct mr_use *held[64];
  int n, cancelled, runs;
  bool own_thread;
  const char *fail;
};

static void answer(struct mr_use *use)
{
  char result[100];
  struct mr_str at = X()->as_str(X()->get(mr_use_input_val(use), S("at")));
  snprintf(result, sizeof result, "\"seen %.*s\"", (int)at.n, at.p);
  X()->use_input_drop(use);
  CHECK(mr_use_input_val(use) == NULL && mr_use_input(use).n > 0);
  CHECK_INT(mr_use_finish(&use, result), MR_OK);
  CHECK(use == NULL);
}

static void *answer_elsewhere(void *use)
{
  usleep(2000);
  answer(use);
  return NULL;
}

static void run_now(void *ud, struct mr_use *use)
{
  struct tool *t = ud;
  pthread_t thread;
  t->runs++;
  CHECK_STR(mr_use_name(use), "look");
  CHECK_STR(mr_use_agent(use), "assistant");
  CHECK_INT(mr_use_attempt(use), 1);
  CHECK(mr_use_deadline_ms(use) > 0);
  CHECK_STR(mr_str_n(mr_use_id(use).p, 5), "sevt_");
  CHECK_STR(mr_str_n(mr_use_session(use).p, 5), "sesn_");
  CHECK(!mr_use_cancelled(use));
  if (t->fail)
    CHECK_INT(mr_use_fail(&use, t->fail), MR_OK);
  else if (t->own_thread) {
    CHECK_INT(pthread_create(&thread, NULL, answer_elsewhere, use), 0);
    pthread_detach(thread);
  } else {
    answer(use);
  }
}

static void run_later(void *ud, struct mr_use *use)
{
  struct tool *t = ud;
  t->runs++;
  t->held[t->n++] = use;
}

static void on_cancel(void *ud, struct mr_use *use)
{
  struct tool *t = ud;
  t->cancelled++;
  CHECK(mr_use_cancelled(use));
  for (int i = 0; i < t->n; i++)
    if (t->held[i] == use)
      t->held[i] = t->held[--t->n];
  CHECK_INT(mr_use_fail(&use, "stopped"), MR_OK);
}

static void add(struct host *h, struct tool *t, void (*run)(void *, struct mr_use *), int timeout_ms, int concurrency)
{
  struct mr_tool m = {.size = sizeof m, .name = "look", .input_schema = "{\"type\":\"object\"}", .run = run,
                      .cancel = on_cancel, .timeout_ms = timeout_ms, .concurrency = concurrency, .ud = t};
  CHECK_INT(mr_tool_add(h->rt, &m, &h->err), MR_OK);
}

static void open_with(struct host *h, struct tool *t, void (*run)(void *, struct mr_use *), int timeout_ms,
                      int concurrency)
{
  h->rt = host_open(":memory:");
  host_play(h, uses);
  add(h, t, run, timeout_ms, concurrency);
  host_session(h, "[" CUSTOM("look") "]");
}

TEST(a_tool_answers_and_the_turn_goes_on)
{
  static struct host h;
  static struct tool t;
  static struct got g;

  open_with(&h, &t, run_now, 0, 0);
  CHECK_INT(mr_ask(h.rt, h.session, "ab", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_OK);
  CHECK_STR(mr_str_c(pick(g.json, "/text")), "got [seen a][seen b]");
  CHECK(!strstr(g.types, "requires_action"));
  CHECK_INT(t.runs, 2);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_tool_answers_from_another_thread)
{
  static struct host h;
  static struct tool t = {.own_thread = true};
  static struct got g;

  open_with(&h, &t, run_now, 0, 0);
  for (int i = 0; i < 5; i++) {
    memset(&g, 0, sizeof g);
    CHECK_INT(mr_ask(h.rt, h.session, "abcdefgh", &got_cbs, &g, NULL, NULL), MR_OK);
    UNTIL(h.rt, g.replies);
    CHECK_STR(mr_str_c(pick(g.json, "/text")), "got [seen a][seen b][seen c][seen d][seen e][seen f][seen g][seen h]");
  }
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(results_have_many_forms)
{
  static const struct { const char *result, *text; int code; } cases[] = {
      {"\"plain\"", "got [plain]", MR_OK},
      {"[{\"type\":\"text\",\"text\":\"block\"}]", "got [block]", MR_OK},
      {"[{\"type\":\"text\",\"text\":\"see\"},{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":"
       "\"image/png\",\"data\":\"aGk=\"}}]", "got [see][]", MR_OK},
      {"[{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\",\"data\":\"?\"}}]",
       "got [The tool's result cannot be used: content[0].source.data must be base64]", MR_OK},
      {"[{\"type\":\"document\",\"source\":{\"type\":\"file\"}}]",
       "got [The tool's result cannot be used: content[0].source.file_id is required]", MR_OK},
      {"[{\"type\":\"text\",\"id\":1}]", "got [[{\"id\":1,\"type\":\"text\"}]]", MR_OK},
      {"{\"b\":1,\"a\":[2]}", "got [{\"a\":[2],\"b\":1}]", MR_OK},
      {"42", "got [42]", MR_OK},
      {NULL, "got ", MR_OK},
      {"", "got ", MR_OK},
      {"{broken", "got [the tool's result is not valid JSON]", MR_E_INVALID}};
  static struct host h;
  static struct tool t;
  static struct got g;

  open_with(&h, &t, run_later, 0, 0);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    memset(&g, 0, sizeof g);
    t.n = 0;
    CHECK_INT(mr_ask(h.rt, h.session, "a", &got_cbs, &g, NULL, NULL), MR_OK);
    UNTIL(h.rt, t.n == 1);
    CHECK_INT(mr_use_finish(&t.held[0], cases[i].result), cases[i].code);
    UNTIL(h.rt, g.replies);
    CHECK_STR(mr_str_c(pick(g.json, "/text")), cases[i].text);
  }
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_failure_is_an_error_result)
{
  static struct host h;
  static struct tool t = {.fail = "no \"such\" thing"};
  static struct got g;

  open_with(&h, &t, run_now, 0, 0);
  CHECK_INT(mr_ask(h.rt, h.session, "a", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_STR(mr_str_c(pick(g.json, "/text")), "got [no \"such\" thing]");
  host_events(&h);
  CHECK(strstr(h.last, "\"is_error\":true"));
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

TEST(an_interrupt_cancels_the_use)
{
  static struct host h;
  static struct tool t;
  char json[200];

  open_with(&h, &t, run_later, 0, 1);
  host_say(&h, "abc"); /* one is out, two wait */
  UNTIL(h.rt, t.n == 1);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\",\"events\":[{\"type\":\"user.interrupt\"}]}", h.session);
  host_ok(&h, "sessions.events.send", json);
  UNTIL(h.rt, t.cancelled == 1);
  UNTIL(h.rt, strcmp(host_status(&h), "idle") == 0);
  CHECK_INT(t.runs, 1);
  host_say(&h, "d"); /* the slot is free again */
  UNTIL(h.rt, t.n == 1);
  answer(t.held[0]);
  UNTIL(h.rt, strcmp(host_status(&h), "idle") == 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_deadline_gives_the_model_an_error)
{
  static struct host h;
  static struct tool t;
  static struct got g;

  open_with(&h, &t, run_later, 80, 0);
  CHECK_INT(mr_ask(h.rt, h.session, "a", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK(strstr(pick(g.json, "/text"), "did not answer within 80 ms"));
  CHECK_INT(t.cancelled, 1);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(concurrency_is_kept_and_order_too)
{
  static struct host h;
  static struct tool t;
  static struct got g;

  open_with(&h, &t, run_later, 0, 2);
  CHECK_INT(mr_ask(h.rt, h.session, "abcdef", &got_cbs, &g, NULL, NULL), MR_OK);
  for (int done = 0; done < 6; done++) {
    UNTIL(h.rt, t.n == (done < 5 ? 2 : 1));
    for (int i = 0; i < 3; i++)
      host_turn(h.rt, 2);
    CHECK(t.n <= 2);
    CHECK_INT(*X()->as_str(X()->get(mr_use_input_val(t.held[0]), S("at"))).p, "abcdef"[done]);
    answer(t.held[0]);
    t.held[0] = t.held[1];
    t.n--;
  }
  UNTIL(h.rt, g.replies);
  CHECK_STR(mr_str_c(pick(g.json, "/text")), "got [seen a][seen b][seen c][seen d][seen e][seen f]");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_use_outlives_the_runtime)
{
  static struct host h;
  static struct tool t;
  struct mr_tool m = {.size = sizeof m, .name = "look", .run = run_later, .ud = &t}; /* no cancel function */

  h.rt = host_open(":memory:");
  host_play(&h, uses);
  CHECK_INT(mr_tool_add(h.rt, &m, NULL), MR_OK);
  host_session(&h, "[" CUSTOM("look") "]");
  host_say(&h, "abcd");
  UNTIL(h.rt, t.n == 4);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK(mr_use_cancelled(t.held[0]));
  CHECK_STR(mr_use_name(t.held[0]), "look");
  CHECK(mr_use_deadline_ms(t.held[0]) > 0);
  answer(t.held[0]);
  CHECK_INT(mr_use_fail(&t.held[1], "late"), MR_OK);
  CHECK_INT(mr_use_finish(&t.held[2], NULL), MR_OK);
  CHECK_INT(mr_use_finish(&t.held[3], "{"), MR_E_INVALID);
  CHECK_INT(test_allocs(), 0);
}

TEST(close_cancels_what_the_host_has)
{
  static struct host h;
  static struct tool t;

  open_with(&h, &t, run_later, 0, 2);
  host_say(&h, "abcdef");
  UNTIL(h.rt, t.n == 2);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(t.cancelled, 2);
  CHECK_INT(t.runs, 2);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_removed_tool_belongs_to_the_client)
{
  static struct host h;
  static struct tool t;
  static struct got g;

  open_with(&h, &t, run_now, 0, 0);
  CHECK_INT(mr_tool_remove(h.rt, "look", NULL), MR_OK);
  CHECK_INT(mr_tool_remove(h.rt, "look", NULL), MR_E_NOTFOUND);
  CHECK_INT(mr_ask(h.rt, h.session, "a", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_STR(mr_str_c(pick(g.json, "/stop_reason")), "requires_action");
  CHECK_INT(t.runs, 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

TEST(a_use_that_was_queued_when_its_tool_went)
{
  static struct host h;
  static struct tool t, other;
  static struct got g;

  open_with(&h, &t, run_later, 0, 1);
  CHECK_INT(mr_ask(h.rt, h.session, "ab", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, t.n == 1);
  add(&h, &other, run_now, 0, 1); /* replaced: the one handed out keeps its handler, the next gets the new */
  answer(t.held[0]);
  t.n = 0;
  UNTIL(h.rt, g.replies);
  CHECK_INT(other.runs, 1);
  CHECK_STR(mr_str_c(pick(g.json, "/text")), "got [seen a][seen b]");
  add(&h, &t, run_later, 0, 1);
  memset(&g, 0, sizeof g);
  CHECK_INT(mr_ask(h.rt, h.session, "cd", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, t.n == 1);
  CHECK_INT(mr_tool_remove(h.rt, "look", ""), MR_OK);
  answer(t.held[0]);
  UNTIL(h.rt, g.replies);
  CHECK_STR(mr_str_c(pick(g.json, "/text")), "got [seen c][no handler for this tool is loaded any more]");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_tool_of_one_agent_alone)
{
  static struct host h;
  static struct tool mine, all;
  static struct got g;
  struct mr_tool m = {.size = sizeof m, .name = "look", .run = run_now, .ud = &all};

  h.rt = host_open(":memory:");
  host_play(&h, uses);
  CHECK_INT(mr_tool_add(h.rt, &m, NULL), MR_OK);
  m.agent = "somebody else";
  CHECK_INT(mr_tool_add(h.rt, &m, NULL), MR_OK);
  m.agent = "assistant";
  m.ud = &mine;
  CHECK_INT(mr_tool_add(h.rt, &m, NULL), MR_OK);
  host_session(&h, "[" CUSTOM("look") "]");
  CHECK_INT(mr_ask(h.rt, h.session, "a", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(mine.runs, 1);
  CHECK_INT(all.runs, 0);
  CHECK_INT(mr_tool_remove(h.rt, "look", "assistant"), MR_OK);
  memset(&g, 0, sizeof g);
  CHECK_INT(mr_ask(h.rt, h.session, "a", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(all.runs, 1);
  m.agent = NULL;
  m.flags = MR_TOOL_ANSWERED_BY_CLIENT;
  CHECK_INT(mr_tool_add(h.rt, &m, NULL), MR_OK);
  memset(&g, 0, sizeof g);
  CHECK_INT(mr_ask(h.rt, h.session, "a", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_STR(mr_str_c(pick(g.json, "/stop_reason")), "requires_action");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(bad_tools_are_refused)
{
  static struct host h;
  struct mr_tool m = {.size = sizeof m, .name = "look at", .run = run_now};

  h.rt = host_open(":memory:");
  CHECK_INT(mr_tool_add(h.rt, &m, &h.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "name");
  m.name = "look";
  m.input_schema = "[]";
  CHECK_INT(mr_tool_add(h.rt, &m, &h.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "input_schema");
  m.input_schema = NULL;
  m.run = NULL;
  CHECK_INT(mr_tool_add(h.rt, &m, &h.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "run");
  m.run = run_now;
  m.flags = 64;
  CHECK_INT(mr_tool_add(h.rt, &m, &h.err), MR_E_INVALID);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

/* ---- after a crash: the process that had the use is gone ---- */

static void attempt(void *ud, struct mr_use *use)
{
  *(int *)ud = mr_use_attempt(use);
  mr_use_finish(&use, "\"again\"");
}

TEST(an_idempotent_tool_runs_again_after_a_restart)
{
  static struct host h;
  static struct tool t;
  int attempts = 0;
  struct mr_tool m = {.size = sizeof m, .name = "look", .run = run_later, .ud = &t, .flags = MR_TOOL_IDEMPOTENT};

  h.rt = host_open(test_dir());
  host_play(&h, uses);
  CHECK_INT(mr_tool_add(h.rt, &m, NULL), MR_OK);
  host_session(&h, "[" CUSTOM("look") "]");
  host_say(&h, "a");
  UNTIL(h.rt, t.n == 1);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  mr_use_finish(&t.held[0], "\"too late\"");
  h.rt = host_open(test_dir());
  host_play(&h, uses);
  m.run = attempt;
  m.ud = &attempts;
  CHECK_INT(mr_tool_add(h.rt, &m, NULL), MR_OK);
  UNTIL(h.rt, attempts == 2);
  UNTIL(h.rt, strcmp(host_status(&h), "idle") == 0);
  host_events(&h);
  CHECK(strstr(h.last, "got [again]"));
  CHECK_INT(mr_close(&h.rt), MR_OK);
}
