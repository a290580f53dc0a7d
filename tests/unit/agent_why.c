/* sessions.why: one sentence about each thing that a session can wait for. What this version cannot bring about by
 * itself (threads, budgets, graders) is written into the store as rows, which is all that the operation looks at. */
#include "agent_kit.h"
#include "agent/session_t.h"

#define ASKS                                                                                                   \
  "[{\"type\":\"agent_toolset_20260401\",\"default_config\":{\"enabled\":true,\"permission_policy\":"          \
  "{\"type\":\"always_ask\"}}},{\"type\":\"custom\",\"name\":\"pay\",\"description\":\"d\",\"input_schema\":"   \
  "{\"type\":\"object\"}}]"
#define USE(name) "[{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"" name "\",\"input\":{}}]"

static struct mr_tool_run *run;
static bool owned;

static const char *model(struct rig *g, struct mr_str m, int k)
{
  (void)k;
  if (memmem(m.p, m.n, "hold", 4)) return NULL;
  if (memmem(m.p, m.n, "bash", 4)) return USE("bash");
  if (memmem(m.p, m.n, "fail", 4)) return "!";
  if (memmem(m.p, m.n, "refuse", 6)) return "!refused";
  if (memmem(m.p, m.n, "pay now", 7)) return USE("pay");
  return "[{\"type\":\"text\",\"text\":\"Hello\"}]";
}

static int owns(void *ud, struct mr_str tool, struct mr_str agent_id, struct mr_str agent_name)
{
  return owned ? MR_OWNS : 0;
}
static int start(void *ud, struct mr_tool_run *r)
{
  run = r;
  return MR_OK;
}
static void cancel(void *ud, struct mr_tool_run *r)
{
  run = NULL;
}
static const struct mr_tool_runner runner = {.owns = owns, .start = start, .cancel = cancel};

/* Asks, and wants this in the sentence, this kind as the first wait, this name of it. */
static void why(struct rig *g, const char *words, const char *kind, const char *name)
{
  rig_ok(g, mr_sessions_why, g->session, NULL, NULL);
  if (!strstr(rig_get(g, "/sentence"), words))
    test_fail(__FILE__, __LINE__, "\"%s\" says nothing of \"%s\"", rig_get(g, "/sentence"), words);
  CHECK_STR(mr_str_c(rig_get(g, "/waiting_on/0/kind")), kind);
  CHECK_STR(mr_str_c(rig_get(g, "/waiting_on/0/name")), name);
}

static void send(struct rig *g, const char *event)
{
  char json[512];
  snprintf(json, sizeof json, "{\"events\":[%s]}", event);
  rig_ok(g, mr_sessions_events_send, g->session, NULL, json);
}

static void open_rig(struct rig *g, const char *dir)
{
  g->model = model;
  g->opts.tools = &runner;
  rig_open(g, dir);
  rig_session(g, ASKS);
}

TEST(turns)
{
  static struct rig g;
  char id[64], answer[256];

  open_rig(&g, test_dir());
  why(&g, "has not begun: waits for a first message since 0 s", "message", "null");
  rig_say(&g, "hello");
  rig_idles(&g, 1);
  why(&g, "finished 0 s ago: end_turn; waits for a message", "message", "null");
  CHECK_STR(mr_str_c(rig_get(&g, "/state")), "idle");
  CHECK_STR(mr_str_c(rig_get(&g, "/stop_reason")), "end_turn");
  rig_say(&g, "hold");
  while (!g.held)
    rig_pump(&g);
  rig_say(&g, "more");
  why(&g, "a model request to m runs since 0 s; 1 input is queued", "model", "m");
  CHECK_STR(mr_str_c(rig_get(&g, "/queued_inputs")), "1");
  CHECK_STR(mr_str_c(rig_get(&g, "/state")), "running");
  send(&g, "{\"type\":\"user.interrupt\"}");
  rig_idles(&g, 3); /* of the interrupt, and of what was queued */
  why(&g, "finished", "message", "null");
  rig_say(&g, "bash");
  rig_idles(&g, 4);
  rig_ok(&g, mr_sessions_why, g.session, NULL, NULL);
  snprintf(id, sizeof id, "%s", rig_get(&g, "/waiting_on/0/event_id"));
  snprintf(answer, sizeof answer, "waits for approval of bash (%s) since 0 s", id);
  why(&g, answer, "approval", "bash");
  CHECK(strncmp(id, "sevt_", 5) == 0);
  CHECK_STR(mr_str_c(rig_get(&g, "/stop_reason")), "requires_action");
  send(&g, "{\"type\":\"user.interrupt\"}");
  rig_idles(&g, 5);
  why(&g, "interrupted 0 s ago; waits for a message", "message", "null");
  rig_say(&g, "refuse");
  rig_idles(&g, 6);
  why(&g, "gave up 0 s ago after model_request_failed_error: the test's model fails", "message", "null");
  rig_ok(&g, mr_sessions_archive, g.session, NULL, NULL);
  rig_ok(&g, mr_sessions_why, g.session, NULL, NULL);
  CHECK_STR(mr_str_c(rig_get(&g, "/sentence")), "archived 0 s ago");
  CHECK_STR(mr_str_c(rig_get(&g, "/waiting_on/0/kind")), "(absent)");
  rig_refused(&g, mr_sessions_why, "sesn_nowhere", NULL, NULL, MR_E_NOTFOUND, 404, "", "sesn_nowhere");
  rig_close(&g);
}

TEST(custom_tools_and_retries)
{
  static struct rig g;
  char json[256];

  open_rig(&g, test_dir());
  rig_say(&g, "pay now");
  rig_idles(&g, 1);
  why(&g, "waits for the client's answer to custom tool pay (sevt_", "client_tool", "pay");
  snprintf(json, sizeof json, "{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"%s\"}",
           rig_get(&g, "/waiting_on/0/event_id"));
  send(&g, json);
  rig_idles(&g, 2);
  owned = true;
  rig_say(&g, "pay now");
  while (!run)
    rig_pump(&g);
  why(&g, "handler pay of this server runs since 0 s", "handler", "pay");
  mr_tool_run_done(g.d, run, MR_S("\"paid\""), false);
  rig_idles(&g, 3);
  rig_say(&g, "fail");
  rig_until(&g, "rescheduling");
  rig_ok(&g, mr_sessions_why, g.session, NULL, NULL);
  CHECK(strstr(rig_get(&g, "/sentence"), "retry 1 of 10 in ") && strstr(g.last, " after model_overloaded_error"));
  CHECK_STR(mr_str_c(rig_get(&g, "/waiting_on/0/kind")), "retry");
  CHECK(strncmp(rig_get(&g, "/waiting_on/0/due_at"), "20", 2) == 0);
  rig_close(&g);
}

/* ---- sessions made of rows ---- */

static struct mr_log_row rows[32];
static int nrows;

static void row(const char *thread, enum mr_row_kind kind, const char *type, const char *id, const char *body)
{
  int64_t now = mr_wall_us(test_sys());
  rows[nrows] = (struct mr_log_row){.kind = kind, .format = 1, .type = mr_str_c(type), .event_id = mr_str_c(id),
                                    .thread_id = mr_str_c(thread), .body = mr_str_c(body),
                                    .processed_us = now - 300000000 + nrows};
  nrows++;
}

static void stored(void *ud, const struct mr_commit_result *r)
{
  CHECK(r->code == MR_OK);
  *(bool *)ud = true;
}

static void store(struct rig *g, const char *status, const char *agent, const char *doc, const char *head)
{
  struct mr_origin who = {0};
  struct mr_session_row s = {.id = mr_str_c(g->session), .status = mr_str_c(status), .agent_id = MR_S("agent_x"),
                             .environment_id = MR_S("env_x"), .created_us = 1, .updated_us = 1, .agent_version = 1,
                             .agent = mr_str_c(agent), .doc = mr_str_c(doc), .head = mr_str_c(head)};
  struct mr_commit *c;
  bool done = false;

  CHECK(mr_store_workspace(g->store, MR_S("default"), &who.workspace, NULL) == MR_OK);
  c = mr_commit_new(g->store, &who);
  mr_commit_session_new(c, &s);
  mr_commit_log(c, s.id, rows, nrows);
  mr_commit_submit(&c, stored, &done);
  while (!done)
    rig_pump(g);
  nrows = 0;
}

#define CREATED(t, name)                                                                                       \
  row("", 0, "session.thread_created", "", "{\"session_thread_id\":\"" t "\",\"agent_name\":\"" name "\"}")
#define STATUS(t, name, st, more)                                                                              \
  row("", 0, "session.thread_status_" st, "",                                                                  \
      "{\"session_thread_id\":\"" t "\",\"agent_name\":\"" name "\"" more "}")

TEST(threads)
{
  static struct rig g;
  static const char *const says[] = {
      "thread reviewer: a model request runs since 5 min", "thread tester: waits for approval of bash (sevt_t) since 5 min",
      "thread writer: tool write runs in the sandbox since 5 min", "thread judge: retry 1 of 10 is due after an error"};

  open_rig(&g, test_dir());
  strcpy(g.session, "sesn_rows");
  row("", 0, "session.status_running", "", "{}");
  CREATED("sthr_r", "reviewer");
  CREATED("sthr_t", "tester");
  CREATED("sthr_w", "writer");
  CREATED("sthr_j", "judge");
  CREATED("sthr_o", "over");
  STATUS("sthr_r", "reviewer", "running", "");
  STATUS("sthr_t", "tester", "running", "");
  STATUS("sthr_w", "writer", "running", "");
  STATUS("sthr_j", "judge", "rescheduled", "");
  STATUS("sthr_o", "over", "terminated", "");
  row("sthr_r", 0, "span.model_request_start", "", "{}");
  row("sthr_w", 0, "span.model_request_start", "", "{}");
  row("sthr_w", 0, "agent.tool_use", "sevt_w", "{\"id\":\"sevt_w\",\"name\":\"write\",\"evaluated_permission\":\"allow\"}");
  row("sthr_w", 0, "span.model_request_end", "", "{}");
  row("sthr_w", MR_ROW_PRIVATE, "tool.intent", "", "{\"event_id\":\"sevt_w\",\"attempt\":1}");
  row("", 0, "span.model_request_start", "", "{}");
  row("", 0, "span.model_request_end", "", "{}");
  row("", 0, "agent.tool_use", "sevt_t",
      "{\"id\":\"sevt_t\",\"name\":\"bash\",\"evaluated_permission\":\"ask\",\"session_thread_id\":\"sthr_t\"}");
  STATUS("sthr_t", "tester", "idle", ",\"stop_reason\":{\"type\":\"requires_action\",\"event_ids\":[\"sevt_t\"]}");
  STATUS("sthr_p", "lead", "idle", ",\"stop_reason\":{\"type\":\"end_turn\"}");
  store(&g, "running", "{\"model\":{\"id\":\"m\"},\"multiagent\":{\"type\":\"coordinator\"}}", "{}",
        "{\"primary\":\"sthr_p\"}");
  for (int i = 0; i < 4; i++) {
    rig_ok(&g, mr_sessions_why, g.session, NULL, NULL);
    if (!strstr(rig_get(&g, "/sentence"), says[i]))
      test_fail(__FILE__, __LINE__, "\"%s\" says nothing of \"%s\"", rig_get(&g, "/sentence"), says[i]);
  }
  CHECK_STR(mr_str_c(rig_get(&g, "/waiting_on/4/kind")), "(absent)");
  rig_close(&g);
}

TEST(budgets_graders_and_long_logs)
{
  static struct rig g;
  const char *agent = "{\"model\":\"m\",\"multiagent\":null}", *head = "{\"primary\":\"sthr_p\",\"usage\":{\"list_cost\":"
                      "{\"amount\":\"503\",\"currency\":\"USD\"}},\"cap_reached\":{\"cap\":\"max_list_cost\"}}";

  open_rig(&g, test_dir());
  strcpy(g.session, "sesn_budget");
  row("", 0, "session.status_running", "", "{}");
  row("", 0, "session.status_idle", "", "{\"stop_reason\":{\"type\":\"budget_reached\"}}");
  store(&g, "idle", agent, "{\"budget\":{\"type\":\"limit\",\"max_list_cost\":{\"amount\":\"500\",\"currency\":\"USD\"}}}",
        head);
  why(&g, "the budget of $5.00 is reached ($5.03 spent)", "budget", "max_list_cost");
  CHECK(strstr(rig_get(&g, "/command"), "moonrig api sessions.update ") && strstr(g.last, "1000"));

  strcpy(g.session, "sesn_grade");
  row("", 0, "session.status_running", "", "{}");
  row("", 0, "span.model_request_start", "", "{}");
  row("", 0, "span.model_request_end", "", "{}");
  row("", 0, "span.outcome_evaluation_start", "", "{\"iteration\":2}");
  store(&g, "running", agent, "{}", head);
  why(&g, "the outcome is being graded (iteration 2) since 5 min", "grader", "null");

  strcpy(g.session, "sesn_error");
  row("", 0, "session.error", "", "{\"error\":{\"type\":\"billing_error\",\"message\":\"no credit\",\"retry_status\":"
                                  "{\"type\":\"terminal\"}}}");
  row("", 0, "session.status_terminated", "", "{}");
  store(&g, "terminated", agent, "{}", head);
  rig_ok(&g, mr_sessions_why, g.session, NULL, NULL);
  CHECK_STR(mr_str_c(rig_get(&g, "/sentence")), "terminated 5 min ago after billing_error: no credit");

  /* the call that an idle session names may be old: of a thread that asked, while others went on */
  strcpy(g.session, "sesn_old");
  row("", 0, "agent.tool_use", "sevt_a", "{\"id\":\"sevt_a\",\"name\":\"bash\",\"evaluated_permission\":\"ask\"}");
  for (int i = 0; i < 14; i++) {
    row("", 0, "span.model_request_start", "", "{}");
    row("", 0, "span.model_request_end", "", "{}");
  }
  row("", 0, "session.status_idle", "", "{\"stop_reason\":{\"type\":\"requires_action\",\"event_ids\":[\"sevt_a\",\"sevt_b\"]}}");
  store(&g, "idle", agent, "{}", head);
  why(&g, "waits for approval of bash (sevt_a) since 5 min; waits for an answer to sevt_b since 5 min", "approval", "bash");
  rig_close(&g);
}

