/* A coordinator's session in a host: a C handler is called from a child's thread, hooks are told where, and the host
 * sees a pause at a cap of the budget and raises it. */
#include "host_kit.h"

static const char *play(struct host *h, const char *last, int k)
{
  (void)h;
  (void)k;
  if (strcmp(last, "go") == 0)
    return "[{\"type\":\"tool_use\",\"name\":\"create_agent\",\"input\":{\"agent\":\"worker\",\"prompt\":\"begin\"}}]";
  if (strcmp(last, "begin") == 0)
    return "[{\"type\":\"tool_use\",\"name\":\"look\",\"input\":{\"at\":\"x\"}}]";
  if (strcmp(last, "[it is there]") == 0)
    return say("worker: ", last);
  if (strstr(last, "Message from agent worker"))
    return say("heard ", strstr(last, "worker: "));
  return say("waiting", "");
}

static struct {
  int runs, asked;
  char thread[64], hooked[64], agent[64];
} seen;

static void run(void *ud, struct mr_use *use)
{
  (void)ud;
  seen.runs++;
  snprintf(seen.thread, sizeof seen.thread, "%.*s", (int)mr_use_thread(use).n, mr_use_thread(use).p);
  snprintf(seen.agent, sizeof seen.agent, "%.*s", (int)mr_use_agent(use).n, mr_use_agent(use).p);
  CHECK_INT(mr_use_finish(&use, "\"it is there\""), MR_OK);
}

static void on_hook(void *ud, struct mr_hook_call *c)
{
  const struct mr_val *in = mr_hook_input(c);
  struct mr_str thread = X()->as_str(X()->get(in, S("thread_id")));
  (void)ud;
  CHECK_STR(X()->as_str(X()->get(in, S("agent"))), "worker");
  snprintf(seen.hooked, sizeof seen.hooked, "%.*s", (int)thread.n, thread.p);
  seen.asked++;
  CHECK_INT(mr_hook_decide(&c, NULL), MR_OK);
}

static void open_team(struct host *h, const char *budget)
{
  struct mr_tool m = {.size = sizeof m, .name = "look", .run = run};
  char json[2000], worker[64], lead[64];

  memset(&seen, 0, sizeof seen);
  h->rt = host_open(":memory:");
  host_play(h, play);
  CHECK_INT(mr_tool_add(h->rt, &m, NULL), MR_OK);
  CHECK(mr_hook_add(h->rt, "permit", "{\"agent\":\"worker\",\"tool\":\"look\"}", 0, on_hook, NULL, NULL) >= 0);
  host_ok(h, "environments.create", "{\"name\":\"place\",\"config\":{\"type\":\"cloud\"}}");
  snprintf(h->env, sizeof h->env, "%s", pick(h->last, "/id"));
  host_ok(h, "agents.create", "{\"name\":\"worker\",\"model\":\"test\",\"tools\":[" CUSTOM("look") "]}");
  snprintf(worker, sizeof worker, "%s", pick(h->last, "/id"));
  snprintf(json, sizeof json, "{\"name\":\"lead\",\"model\":\"test\",\"multiagent\":{\"type\":\"coordinator\",\"agents\":"
                              "[{\"type\":\"agent\",\"id\":\"%s\"}]}}", worker);
  host_ok(h, "agents.create", json);
  snprintf(lead, sizeof lead, "%s", pick(h->last, "/id"));
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\",\"budget\":%s}", lead, h->env, budget);
  host_ok(h, "sessions.create", json);
  snprintf(h->session, sizeof h->session, "%s", pick(h->last, "/id"));
}

static const char *child(struct host *h)
{
  static char id[64];
  char json[200];
  snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", h->session);
  host_ok(h, "sessions.threads.list", json);
  for (int i = 0; i < 2; i++) {
    snprintf(json, sizeof json, "/data/%d/parent_thread_id", i);
    if (strcmp(pick(h->last, json), "null") == 0) continue;
    snprintf(json, sizeof json, "/data/%d/id", i);
    snprintf(id, sizeof id, "%s", pick(h->last, json));
  }
  return id;
}

TEST(a_handler_is_called_from_a_childs_thread)
{
  static struct host h;
  static struct got g;

  open_team(&h, "null");
  CHECK_INT(mr_ask(h.rt, h.session, "go", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_OK);
  CHECK_STR(mr_str_c(pick(g.json, "/stop_reason")), "end_turn");
  CHECK_STR(mr_str_c(pick(g.json, "/text")), "heard worker: [it is there]");
  CHECK_INT(seen.runs, 1);
  CHECK_INT(seen.asked, 1);
  CHECK_STR(mr_str_c(seen.agent), "worker");
  CHECK_STR(mr_str_n(seen.thread, 5), "sthr_");
  CHECK_STR(mr_str_c(seen.thread), child(&h));
  CHECK_STR(mr_str_c(seen.hooked), seen.thread);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_host_sees_a_pause_and_raises_the_budget)
{
  static struct host h;
  static struct got g;
  char json[300];

  open_team(&h, "{\"type\":\"limit\",\"max_steps\":4}");
  CHECK_INT(mr_ask(h.rt, h.session, "go", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_STR(mr_str_c(pick(g.json, "/stop_reason")), "budget_reached");
  CHECK_INT(mr_ask(h.rt, h.session, "more", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies == 2);
  CHECK_INT(g.code, MR_E_INVALID);
  CHECK(strstr(g.err.message, "reached its budget"));
  snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", h.session);
  host_ok(&h, "sessions.why", json);
  CHECK(strstr(h.last, "step cap reached: 4 of 4 model requests; raise budget.max_steps"));
  snprintf(json, sizeof json, "{\"session_id\":\"%s\",\"budget\":{\"type\":\"limit\",\"max_steps\":4}}", h.session);
  CHECK_INT(host_call(&h, "sessions.update", json), MR_E_STATE);
  CHECK_STR(mr_str_c(h.err.error_code), "budget_not_raised");
  CHECK_STR(mr_str_c(h.err.field), "budget.max_steps");
  snprintf(json, sizeof json, "{\"session_id\":\"%s\",\"budget\":null}", h.session);
  host_ok(&h, "sessions.update", json);
  UNTIL(h.rt, (host_events(&h), strstr(h.last, "heard worker: [it is there]")) && strcmp(host_status(&h), "idle") == 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}
