/* When a commit fails (a full disk, an error below): nothing of it was visible, the caller is told, and the
 * session goes on from what is durable. Fault points make commits fail, so debug flavours only. */
#include "agent_kit.h"

#ifdef MR_DEBUG
#define IDLE "thread_status_idle usage status_idle"
#define BEGIN "status_running thread_status_running"
#define TOOLS "[{\"type\":\"custom\",\"name\":\"count\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}," \
  "{\"type\":\"custom\",\"name\":\"look\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}]"

static const char *calls_tools(struct rig *g, struct mr_str last, int k)
{
  (void)g;
  (void)k;
  if (memmem(last.p, last.n, "tool_result", 11))
    return "[{\"type\":\"text\",\"text\":\"Done.\"}]";
  return "[{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"look\",\"input\":{}},"
         "{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"count\",\"input\":{}}]";
}

/* Handlers that answer a moment later, one after the other. */
struct hands { struct rig *g; struct mr_timer timer; struct mr_tool_run *runs[8]; int n, counts, looks, cancelled; };

static void hands_answer(struct mr_timer *t)
{
  struct hands *h = MR_OF(t, struct hands, timer);
  struct mr_tool_run *run = h->runs[0];
  if (h->n == 0)
    return;
  memmove(h->runs, h->runs + 1, sizeof h->runs - sizeof *h->runs);
  if (--h->n)
    mr_timer_set(h->g->loop, &h->timer, 5000);
  mr_tool_run_done(h->g->d, run, MR_S("\"ok\""), false);
}

static int hands_owns(void *ud, struct mr_str tool, struct mr_str id, struct mr_str name)
{
  (void)ud;
  (void)id;
  (void)name;
  return mr_str_is(tool, "look") ? MR_OWNS | MR_OWNS_IDEMPOTENT : MR_OWNS;
}

static int hands_start(void *ud, struct mr_tool_run *run)
{
  struct hands *h = ud;
  *(mr_str_is(run->name, "count") ? &h->counts : &h->looks) += 1;
  h->runs[h->n++] = run;
  if (!mr_timer_pending(&h->timer)) {
    mr_timer_init(&h->timer, hands_answer);
    mr_timer_set(h->g->loop, &h->timer, 5000);
  }
  return MR_OK;
}

static void hands_cancel(void *ud, struct mr_tool_run *run)
{
  struct hands *h = ud;
  for (int i = 0; i < h->n; i++)
    if (h->runs[i] == run)
      memmove(h->runs + i, h->runs + i + 1, (size_t)(--h->n - i) * sizeof *h->runs);
  h->cancelled++;
}

/* A stream that only counts, and remembers how it ended. */
struct follower { struct mr_call c; yyjson_doc *in; int events, code; bool over; };

static void follower_done(struct mr_call *c)
{
  struct follower *f = MR_OF(c, struct follower, c);
  f->over = true;
  f->code = c->code;
}
static void follower_opened(struct mr_call *c) { (void)c; }
static int follower_event(struct mr_call *c, struct mr_str name, int64_t pos, struct mr_str json)
{
  (void)name;
  (void)json;
  MR_OF(c, struct follower, c)->events += pos > 0;
  return MR_OK;
}

static void follow(struct rig *g, struct follower *f)
{
  memset(f, 0, sizeof *f);
  f->in = yyjson_read("{}", 2, 0);
  f->c = (struct mr_call){.d = g->d, .mem = &test_sys()->mem, .arena = mr_arena_new(&test_sys()->mem, 256),
                          .in = yyjson_doc_get_root(f->in), .done = follower_done, .opened = follower_opened,
                          .event = follower_event};
  mr_store_workspace(g->store, MR_S("default"), &f->c.who.workspace, NULL);
  f->c.path[0] = mr_str_c(g->session);
  mr_buf_init(&f->c.out, f->c.mem, 1 << 20);
  mr_sessions_events_stream(&f->c);
  for (int i = 0; i < 20; i++)
    rig_pump(g);
}

static void unfollow(struct follower *f)
{
  mr_buf_free(&f->c.out);
  yyjson_doc_free(f->in);
  mr_arena_free(&f->c.arena);
}

/* A turn whose n-th commit with this label fails ends all the same; returns the list's types. */
static const char *turn_with_failure(struct rig *g, struct hands *h, struct follower *f, const char *fault)
{
  static char types[8192];
  struct mr_tool_runner tools = {h, hands_owns, hands_start, hands_cancel};

  h->g = g;
  g->model = calls_tools;
  g->opts.tools = &tools;
  rig_open(g, test_dir());
  rig_session(g, TOOLS);
  follow(g, f);
  setenv("MOONRIG_FAULT", fault, 1);
  setenv("MOONRIG_SWITCH", "store-lone", 1);
  rig_say(g, "go");
  for (int i = 0; i < 4000 && !f->over; i++)
    rig_pump(g);
  CHECK(f->over);
  CHECK_INT(f->code, MR_E_UNAVAILABLE);
  rig_idles(g, 1);
  snprintf(types, sizeof types, "%s", rig_types(g));
  rig_until(g, "idle");
  unfollow(f);
  rig_close(g);
  return types;
}

#define ASKED BEGIN " user.message model_request_start"
#define USES "agent.custom_tool_use agent.custom_tool_use model_request_end"
#define RESULTS "user.custom_tool_result user.custom_tool_result"
#define LAST "model_request_start agent.message model_request_end"

TEST(a_reply_that_could_not_be_stored_is_asked_for_again)
{
  struct rig g = {0};
  struct hands h = {0};
  struct follower f;
  CHECK_STR(mr_str_c(turn_with_failure(&g, &h, &f, "commit.reply.before=fail@1")),
            ASKED " model_request_end model_request_start " USES " " RESULTS " " LAST " " IDLE);
  CHECK_INT(h.counts, 1); /* nothing had started */
  CHECK_INT(h.looks, 1);
  CHECK_INT(f.events, 4);
}

TEST(results_that_could_not_be_stored_are_not_made_twice)
{
  struct rig g = {0};
  struct hands h = {0};
  struct follower f;
  CHECK_STR(mr_str_c(turn_with_failure(&g, &h, &f, "commit.result.before=fail@1")),
            ASKED " " USES " " RESULTS " " LAST " " IDLE);
  CHECK_INT(h.counts, 1);
  CHECK_INT(h.looks, 1); /* its outcome was stored apart, before */
}

TEST(an_outcome_that_could_not_be_stored)
{
  struct rig g = {0};
  struct hands h = {0};
  struct follower f;
  CHECK_STR(mr_str_c(turn_with_failure(&g, &h, &f, "commit.outcome.before=fail@1")),
            ASKED " " USES " " RESULTS " " LAST " " IDLE);
  CHECK_INT(h.counts, 1);
  CHECK_INT(h.looks, 2); /* idempotent: run again */
}

TEST(an_idle_that_could_not_be_stored_is_decided_again)
{
  struct rig g = {0};
  struct hands h = {0};
  struct follower f;
  CHECK_STR(mr_str_c(turn_with_failure(&g, &h, &f, "commit.idle.before=fail@1")),
            ASKED " " USES " " RESULTS " model_request_start model_request_end " LAST " " IDLE);
  CHECK_INT(h.counts, 1);
}

TEST(a_message_that_could_not_be_stored_is_refused)
{
  struct rig g = {.model = calls_tools};
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  CHECK_INT(setenv("MOONRIG_FAULT", "commit.inbox.before=fail@1", 1), 0);
  rig_call(&g, mr_sessions_events_send, g.session, NULL,
           "{\"events\":[{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"lost\"}]}]}");
  CHECK_INT(g.code, MR_E_UNAVAILABLE);
  CHECK_INT(g.err.http_status, 503);
  CHECK_STR(mr_str_c(rig_types(&g)), "");
  g.model = calls_tools;
  rig_say(&g, "again");
  rig_idles(&g, 1);
  CHECK_STR(mr_str_c(rig_types(&g)), ASKED " agent.tool_use agent.tool_use model_request_end agent.tool_result "
            "agent.tool_result " LAST " " IDLE); /* this agent has no such tools: both are refused */
  rig_close(&g);
}

TEST(a_take_that_could_not_be_stored_leaves_the_message_waiting)
{
  struct rig g = {0};
  struct hands h = {0};
  struct mr_tool_runner tools = {&h, hands_owns, hands_start, hands_cancel};
  h.g = &g;
  g.model = calls_tools;
  g.opts.tools = &tools;
  rig_open(&g, test_dir());
  rig_session(&g, TOOLS);
  CHECK_INT(setenv("MOONRIG_FAULT", "commit.take.before=fail@1", 1), 0);
  rig_say(&g, "go");
  for (int i = 0; i < 50; i++)
    rig_pump(&g);
  CHECK_STR(mr_str_c(rig_types(&g)), "user.message");
  CHECK_STR(mr_str_c(rig_get(&g, "/data/0/processed_at")), "null");
  rig_idles(&g, 1); /* by itself */
  CHECK_STR(mr_str_c(rig_types(&g)), ASKED " " USES " " RESULTS " " LAST " " IDLE);
  rig_close(&g);
}
#else
TEST(commits_fail_only_in_debug_builds)
{
  CHECK(!MR_FAULT("commit.take.before"));
  (void)rig_call;
  (void)rig_open;
}
#endif
