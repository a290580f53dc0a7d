/* Hooks in the host at the phases beside permit (host_hooks.c): that each sees what those before it made, what an
 * answer may be, failing open and closed, answers that never come, closing. What an answer does: agent_hooks.c. */
#include "host_kit.h"

static const char *answers(struct host *h, const char *last, int k)
{
  (void)h;
  (void)k;
  if (strcmp(last, "use") == 0)
    return "[{\"type\":\"tool_use\",\"name\":\"look\",\"input\":{\"at\":\"x\"}}]";
  return say("got ", last);
}

static void run(void *ud, struct mr_use *use)
{
  (void)ud;
  mr_use_finish(&use, "\"raw\"");
}

struct hook { const char *answer; char member[32], saw[4096]; int asked, code; bool hold; struct mr_hook_call *held; };

static void on_hook(void *ud, struct mr_hook_call *c)
{
  struct hook *k = ud;
  struct mr_buf b;
  CHECK_STR(X()->as_str(X()->get(mr_hook_input(c), S("agent"))), "assistant");
  if (k->member[0]) {
    mr_buf_init(&b, &test_sys()->mem, 1 << 16);
    mr_json_write(&b, (yyjson_val *)(uintptr_t)X()->get(mr_hook_input(c), mr_str_c(k->member)), false);
    snprintf(k->saw, sizeof k->saw, "%s", b.p ? b.p : "");
    mr_buf_free(&b);
  }
  k->asked++;
  if (k->hold) {
    k->held = c;
    return;
  }
  k->code = mr_hook_decide(&c, k->answer);
  CHECK(c == NULL);
}

static void open_with(struct host *h, struct mr_config *c)
{
  struct mr_tool m = {.size = sizeof m, .name = "look", .run = run};
  memset(h, 0, sizeof *h);
  CHECK_INT(mr_open(&h->rt, c, NULL), MR_OK);
  host_play(h, answers);
  CHECK_INT(mr_tool_add(h->rt, &m, NULL), MR_OK);
  host_session(h, "[" CUSTOM("look") "]");
}

static void open_one(struct host *h)
{
  struct mr_config c = host_config(":memory:");
  open_with(h, &c);
}

static int add(struct host *h, const char *phase, struct hook *k, const char *filter, unsigned flags)
{
  int id = mr_hook_add(h->rt, phase, filter, flags, on_hook, k, &h->err);
  if (id < 0)
    test_fail(__FILE__, __LINE__, "hook: %s", h->err.message);
  return id;
}

/* One turn; the text it ends with, or why it failed. */
static const char *ask(struct host *h, const char *text)
{
  static struct got g;
  memset(&g, 0, sizeof g);
  CHECK_INT(mr_ask(h->rt, h->session, text, &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h->rt, g.replies);
  if (g.code != MR_OK)
    return strcpy(g.types, g.err.message);
  if (strcmp(pick(g.json, "/stop_reason"), "end_turn") == 0)
    return pick(g.json, "/text");
  host_events(h);
  yyjson_doc *doc = yyjson_read(h->last, strlen(h->last), 0);
  yyjson_val *list = yyjson_obj_get(yyjson_doc_get_root(doc), "data"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  snprintf(g.types, sizeof g.types, "no error");
  while ((v = yyjson_arr_iter_next(&it)))
    if (strcmp(yyjson_get_str(yyjson_obj_get(v, "type")), "session.error") == 0)
      snprintf(g.types, sizeof g.types, "%s", yyjson_get_str(yyjson_ptr_get(v, "/error/message")));
  yyjson_doc_free(doc);
  return g.types;
}

#define SAYS(h, text, want) CHECK_STR(mr_str_c(ask(h, text)), want)

TEST(each_hook_sees_what_those_before_made)
{
  static struct host h;
  static struct hook a, b, c;

  open_one(&h);
  a = (struct hook){.answer = "{\"messages\":[{\"role\":\"user\",\"content\":\"one\"}]}"};
  b = (struct hook){.member = "messages"};
  c = (struct hook){.member = "messages", .answer = "{\"messages\":[{\"role\":\"user\",\"content\":\"two\"}]}"};
  int ids[3] = {add(&h, "context", &a, NULL, 0), add(&h, "context", &b, NULL, 0), add(&h, "context", &c, NULL, 0)};
  SAYS(&h, "hi", "got two");
  CHECK_STR(mr_str_c(b.saw), "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"one\"}]}]");
  CHECK_STR(mr_str_c(c.saw), mr_str_c(b.saw).p);
  for (int i = 0; i < 3; i++)
    CHECK_INT(mr_hook_remove(h.rt, ids[i]), MR_OK);
  a = (struct hook){.answer = "{\"content\":\"once\"}"};
  b = (struct hook){.member = "content", .answer = "{\"is_error\":true}"};
  c = (struct hook){.member = "is_error"};
  add(&h, "tools", &a, "{\"tool\":\"look\"}", 0);
  add(&h, "tools", &b, NULL, 0);
  add(&h, "tools", &c, NULL, 0);
  SAYS(&h, "use", "got [once]");
  CHECK_STR(mr_str_c(b.saw), "[{\"type\":\"text\",\"text\":\"once\"}]");
  CHECK_STR(mr_str_c(c.saw), "true");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_refusal_ends_the_asking)
{
  static struct host h;
  static struct hook a, b;

  open_one(&h);
  a = (struct hook){.answer = "{\"refuse\":\"over budget\",\"model\":\"x\"}"};
  add(&h, "model", &a, NULL, 0);
  add(&h, "model", &b, NULL, 0);
  SAYS(&h, "hi", "over budget");
  CHECK_INT(a.asked, 1);
  CHECK_INT(b.asked, 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

TEST(filters_spare_other_agents)
{
  static struct host h;
  static struct hook k;

  open_one(&h);
  k = (struct hook){.answer = "{\"refuse\":\"never\"}"};
  add(&h, "accept", &k, "{\"agent\":\"other\"}", 0);
  add(&h, "context", &k, "{\"agent\":\"other\",\"name\":\"mine\"}", 0);
  add(&h, "tools", &k, "{\"tool\":\"other\"}", 0);
  add(&h, "settle", &k, "{\"agent\":\"other\"}", 0);
  SAYS(&h, "use", "got [raw]");
  CHECK_INT(k.asked, 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

/* Answers that no phase reads, and what a turn says when the hook fails open, and closed. */
static const struct failing { const char *phase, *text, *open, *closed, *bad[6]; } failing[] = {
    {"accept", "hi", "got hi", "The accept hook failed.",
     {"[]", "{\"events\":[]}", "{\"events\":{}}", "{\"events\":[{\"type\":\"user.message\",\"content\":\"x\"}]}",
      "{\"events\":[{\"type\":\"user.message\",\"is_error\":1}]}", "{\"refuse\":false}"}},
    {"context", "hi", "got hi", "The context hook failed.",
     {"{\"messages\":[]}", "{\"messages\":[{\"role\":\"robot\",\"content\":\"x\"}]}", "{\"messages\":[{\"role\":\"user\"}]}",
      "{\"messages\":[{\"role\":\"user\",\"content\":[\"x\"]}]}", "{\"system\":1}", "{\"system\":[{\"type\":\"image\"}]}"}},
    {"model", "hi", "got hi", "The model hook failed.",
     {"{\"model\":\"\"}", "{\"reply\":\"x\"}", "{\"reply\":{\"content\":[]}}", "{\"reply\":{\"content\":\" \"}}",
      "{\"reply\":{\"content\":[{\"type\":\"tool_use\",\"name\":\"look\"}]}}", "{\"modell\":\"x\"}"}},
    {"tools", "use", "got [raw]", "got [The tools hook failed.]", {"{\"is_error\":\"no\"}", "{\"result\":\"x\"}", "7"}},
    {"settle", "hi", "got hi", "got hi", {"{\"continue\":\" \"}", "{\"continue\":1}", "\"go on\""}},
    {"idle", "hi", "got hi", "got hi", {"{\"refuse\":\"no\"}", "{\"continue\":\"x\"}"}}};

TEST(an_answer_that_cannot_be_read_fails_open_or_closed)
{
  static struct host h;

  for (size_t i = 0; i < sizeof failing / sizeof *failing; i++) {
    const struct failing *t = &failing[i];
    open_one(&h);
    for (size_t n = 0; n < 6 && t->bad[n]; n++)
      for (unsigned flags = 0; flags <= MR_HOOK_FAIL_CLOSED; flags++) {
        static struct hook k;
        k = (struct hook){.answer = t->bad[n]};
        int id = add(&h, t->phase, &k, NULL, flags);
        SAYS(&h, t->text, flags ? t->closed : t->open);
        UNTIL(h.rt, k.asked > 0); /* idle: a hook added just now may be asked about the turn before, too */
        CHECK_INT(k.code, MR_E_INVALID);
        CHECK_INT(mr_hook_remove(h.rt, id), MR_OK);
      }
    CHECK_INT(mr_close(&h.rt), MR_OK);
    CHECK_INT(test_allocs(), 0);
  }
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

static char late_line[400];
static void note(void *ud, int level, struct mr_str line)
{
  (void)ud;
  (void)level;
  if (memmem(line.p, line.n, "did not answer", 14))
    snprintf(late_line, sizeof late_line, "%.*s", (int)line.n, line.p);
}

TEST(an_answer_that_never_comes_fails_open_or_closed)
{
  static struct host h;
  static struct got g;

  for (size_t i = 0; i < sizeof failing / sizeof *failing - 1; i++) /* idle: nobody waits for it */
    for (unsigned flags = 0; flags <= MR_HOOK_FAIL_CLOSED; flags++) {
      const struct failing *t = &failing[i];
      static struct hook k;
      struct mr_config c = host_config(":memory:");
      char want[100];
      c.mono_us = skipping_mono;
      c.log = note;
      open_with(&h, &c);
      k = (struct hook){.hold = true};
      add(&h, t->phase, &k, "{\"name\":\"sleepy\"}", flags);
      memset(&g, 0, sizeof g);
      CHECK_INT(mr_ask(h.rt, h.session, t->text, &got_cbs, &g, NULL, NULL), MR_OK);
      UNTIL(h.rt, k.held);
      skipped_us += 31 * 1000000;
      CHECK_INT(X()->timer(h.rt, 0, nothing, NULL, NULL), MR_OK); /* the loop looks at its clock */
      UNTIL(h.rt, g.replies);
      if (flags && strcmp(t->phase, "accept") == 0)
        CHECK_INT(g.code, MR_E_DENIED);
      else
        CHECK_INT(g.code, MR_OK);
      snprintf(want, sizeof want, "hook \"sleepy\" of %s did not answer within 30 s", t->phase);
      CHECK(strstr(late_line, want) != NULL);
      CHECK_INT(mr_hook_decide(&k.held, "{\"refuse\":\"late\"}"), MR_OK); /* harmless */
      CHECK_INT(mr_close(&h.rt), MR_OK);
      CHECK_INT(test_allocs(), 0);
    }
}

TEST(closing_with_questions_open_at_any_phase)
{
  static struct host h;
  static struct got g;

  for (size_t i = 0; i < sizeof failing / sizeof *failing; i++)
    for (unsigned flags = 0; flags <= MR_HOOK_FAIL_CLOSED; flags++) {
      static struct hook k;
      open_one(&h);
      k = (struct hook){.hold = true};
      add(&h, failing[i].phase, &k, NULL, flags);
      memset(&g, 0, sizeof g);
      CHECK_INT(mr_ask(h.rt, h.session, failing[i].text, &got_cbs, &g, NULL, NULL), MR_OK);
      UNTIL(h.rt, k.held);
      CHECK_INT(mr_close(&h.rt), MR_OK);
      CHECK_INT(g.replies, 1);
      CHECK_INT(mr_hook_decide(&k.held, "null"), MR_OK);
      CHECK_INT(test_allocs(), 0);
    }
}

/* Whoever asks may give up while a hook of accept has the message: that does not wait for the hook, and nothing
 * is stored. */
TEST(asking_is_given_up_while_a_hook_has_the_message)
{
  static struct host h;
  static struct got g;
  static struct hook k;
  struct mr_op *op;

  open_one(&h);
  k = (struct hook){.hold = true};
  add(&h, "accept", &k, NULL, 0);
  memset(&g, 0, sizeof g);
  CHECK_INT(mr_ask(h.rt, h.session, "hi", &got_cbs, &g, &op, NULL), MR_OK);
  UNTIL(h.rt, k.held);
  mr_op_cancel(op);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_CANCELLED);
  mr_op_release(op);
  CHECK_INT(mr_hook_decide(&k.held, "null"), MR_OK); /* harmless by now */
  k = (struct hook){.answer = "null"};
  SAYS(&h, "again", "got again");
  host_events(&h);
  CHECK(!strstr(h.last, "\"hi\""));
  k = (struct hook){.answer = "{\"refuse\":\"no\"}"};
  for (int i = 0; i < 200; i++)
    SAYS(&h, "hi", "no");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_hook_of_idle_hears_once_it_is_durable)
{
  static struct host h;
  static struct hook k;

  open_one(&h);
  k = (struct hook){.member = "stop_reason"};
  add(&h, "idle", &k, NULL, 0);
  SAYS(&h, "hi", "got hi");
  UNTIL(h.rt, k.asked == 1);
  CHECK_STR(mr_str_c(k.saw), "{\"type\":\"end_turn\"}");
  CHECK_STR(mr_str_c(host_status(&h)), "idle");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

/* A turn with a hook at every phase, in a loop of the host's own thread: nobody waits for another thread. */
TEST(all_phases_where_the_host_pumps)
{
  static struct host h;
  static struct hook k[7];
  static const char *const phases[] = {"accept", "context", "model", "permit", "tools", "settle", "idle"};
  static struct got g;
  struct mr_config c = host_config(":memory:");
  c.loop = MR_LOOP_PUMP;
  open_with(&h, &c);
  for (int i = 0; i < 7; i++)
    add(&h, phases[i], &k[i], NULL, MR_HOOK_FAIL_CLOSED);
  CHECK_INT(mr_ask(h.rt, h.session, "use", &got_cbs, &g, NULL, NULL), MR_OK);
  for (int i = 0; i < 3000 && !(g.replies && k[6].asked); i++) {
    mr_pump(h.rt, 0);
    mr_dispatch(h.rt, 0, 0);
    usleep(1000);
  }
  CHECK_STR(mr_str_c(pick(g.json, "/text")), "got [raw]");
  static const int asked[] = {1, 2, 2, 1, 1, 1, 1};
  for (int i = 0; i < 7; i++)
    CHECK_INT(k[i].asked, asked[i]);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}
