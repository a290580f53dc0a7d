/* What a restart finds and does: answers that were given, calls that ran, retries that were due. The kills
 * themselves are in tests/crash; here the process ends in order, at the moment that matters. */
#include "agent_kit.h"
#include "agent/session_t.h"

#include <time.h>

#define IDLE "thread_status_idle usage status_idle"
#define BEGIN "status_running thread_status_running"
#define TOOL "[{\"type\":\"custom\",\"name\":\"get_weather\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}]"

static const char *two_calls(struct rig *g, struct mr_str last, int k)
{
  (void)g;
  if (k == 0)
    return "[{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"get_weather\",\"input\":{\"city\":\"Oslo\"}},"
           "{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"get_weather\",\"input\":{\"city\":\"Rome\"}}]";
  CHECK(memmem(last.p, last.n, "4 C", 3));
  return "[{\"type\":\"text\",\"text\":\"Oslo 4 C.\"}]";
}

static const char *after_two_calls(struct rig *g, struct mr_str last, int k)
{
  return two_calls(g, last, k + 1);
}

static int answer(struct rig *g, int i, const char *more)
{
  char json[1024], id[64], ptr[64];
  snprintf(ptr, sizeof ptr, "/data/%d/id", i);
  rig_ok(g, mr_sessions_events_list, g->session, NULL, "{\"types\":[\"agent.custom_tool_use\"]}");
  snprintf(id, sizeof id, "%s", rig_get(g, ptr));
  snprintf(json, sizeof json, "{\"events\":[{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"%s\","
           "\"content\":[{\"type\":\"text\",\"text\":\"4 C\"}]}%s]}", id, more);
  return rig_call(g, mr_sessions_events_send, g->session, NULL, json);
}

/* Closes and opens again, with another model. */
static void again(struct rig *g, const char *(*model)(struct rig *g, struct mr_str last, int k))
{
  char session[64];
  struct mr_domain_opts o = g->opts;
  memcpy(session, g->session, sizeof session);
  rig_close(g);
  memset(g, 0, sizeof *g);
  g->opts = o;
  g->model = model;
  memcpy(g->session, session, sizeof session);
  rig_open(g, test_dir());
}

TEST(an_answer_goes_on_after_a_restart)
{
  struct rig g = {.model = two_calls};
  rig_open(&g, test_dir());
  rig_session(&g, TOOL);
  rig_say(&g, "Weather?");
  rig_idles(&g, 1);
  CHECK_INT(answer(&g, 0, ""), MR_OK);
  rig_idles(&g, 2);
  mr_domain_drain(g.d, NULL, NULL); /* no step is taken any more; what is accepted must not be forgotten */
  CHECK_INT(answer(&g, 1, ""), MR_OK);
  again(&g, after_two_calls);
  rig_idles(&g, 3);
  CHECK_STR(mr_str_c(rig_types(&g)),
            BEGIN " user.message model_request_start agent.custom_tool_use agent.custom_tool_use model_request_end " IDLE
            " user.custom_tool_result " IDLE " user.custom_tool_result " BEGIN
            " model_request_start agent.message model_request_end " IDLE);
  CHECK_INT(g.asked, 1);
  rig_close(&g);
}

TEST(a_partial_answer_is_whole_after_a_restart)
{
  struct rig g = {.model = two_calls};
  rig_open(&g, test_dir());
  rig_session(&g, TOOL);
  rig_say(&g, "Weather?");
  rig_idles(&g, 1);
  mr_domain_drain(g.d, NULL, NULL);
  CHECK_INT(answer(&g, 1, ""), MR_OK);
  again(&g, after_two_calls);
  CHECK_STR(mr_str_c(rig_types(&g)),
            BEGIN " user.message model_request_start agent.custom_tool_use agent.custom_tool_use model_request_end " IDLE
            " user.custom_tool_result " IDLE);
  CHECK_INT(g.asked, 0);
  rig_close(&g);
}

TEST(an_answer_with_a_message_is_one_request)
{
  struct rig g = {.model = two_calls};
  rig_open(&g, test_dir());
  rig_session(&g, TOOL);
  rig_say(&g, "Weather?");
  rig_idles(&g, 1);
  CHECK_INT(answer(&g, 0, ""), MR_OK);
  CHECK_INT(answer(&g, 1, ",{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"in Celsius: 4 C?\"}]}"), MR_OK);
  rig_idles(&g, 3);
  CHECK_STR(mr_str_c(rig_types(&g)),
            BEGIN " user.message model_request_start agent.custom_tool_use agent.custom_tool_use model_request_end " IDLE
            " user.custom_tool_result " IDLE " user.custom_tool_result " BEGIN
            " user.message model_request_start agent.message model_request_end " IDLE);
  rig_close(&g);
}

/* ---- the state that rows add up to, without a domain around it ---- */

static void row(struct mr_session *s, enum mr_row_kind kind, const char *type, const char *body)
{
  struct mr_log_row r = {.kind = kind, .format = 1, .type = mr_str_c(type), .processed_us = 5, .body = mr_str_c(body)};
  CHECK_INT(mr_state_apply(s, &r), MR_OK);
}

TEST(a_claim_given_up_leaves_the_call_to_the_client)
{
  struct mr_domain d = {.sys = test_sys(), .mem = &test_sys()->mem};
  struct mr_session s = {.d = &d, .mem = mr_arena_new(d.mem, 4096)};

  row(&s, MR_ROW_WIRE, "session.status_running", "{}");
  row(&s, MR_ROW_PRIVATE, "model.reply",
      "{\"calls\":[{\"id\":\"toolu_1\",\"event_id\":\"sevt_1\"}],\"stop_reason\":\"tool_use\",\"content\":[]}");
  row(&s, MR_ROW_WIRE, "agent.custom_tool_use", "{\"type\":\"agent.custom_tool_use\",\"id\":\"sevt_1\",\"name\":\"n\",\"input\":{}}");
  row(&s, MR_ROW_PRIVATE, "tool.claim", "{\"event_id\":\"sevt_1\",\"owned\":true,\"idempotent\":true}");
  row(&s, MR_ROW_PRIVATE, "tool.intent", "{\"event_id\":\"sevt_1\",\"attempt\":1}");
  CHECK(mr_tools_running(&s));
  row(&s, MR_ROW_PRIVATE, "tool.claim", "{\"event_id\":\"sevt_1\",\"owned\":false}");
  CHECK(!mr_tools_running(&s)); /* else a restart waits for it for ever */
  CHECK(mr_call_waits_client(&s, s.calls[0]));
  mr_mem_free(d.mem, s.history);
  mr_arena_free(&s.mem);
}

/* ---- retries ---- */

static const char *fails_once(struct rig *g, struct mr_str last, int k)
{
  (void)g;
  (void)last;
  return k == 0 ? "!overloaded" : "[{\"type\":\"text\",\"text\":\"Hello\"}]";
}

static const char *says_hello(struct rig *g, struct mr_str last, int k)
{
  return fails_once(g, last, k + 1);
}

TEST(a_retry_does_not_wait_longer_because_the_clock_went_back)
{
  static const char config[] = "{\"retries\":{\"base_ms\":300}}";
  yyjson_doc *doc = yyjson_read(config, strlen(config), 0);
  struct rig g = {.model = fails_once, .opts = {.config = yyjson_doc_get_root(doc)}};
  struct timespec t;

  clock_gettime(CLOCK_REALTIME, &t);
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  rig_say(&g, "hi");
  rig_until(&g, "rescheduling");
  test_clock_set(-1, ((int64_t)t.tv_sec - 3600) * 1000000);
  again(&g, says_hello);
  rig_idles(&g, 1);
  CHECK_STR(mr_str_c(rig_types(&g)), BEGIN " user.message model_request_start model_request_end error "
            "thread_status_rescheduled status_rescheduled " BEGIN " model_request_start agent.message model_request_end " IDLE);
  rig_close(&g);
  yyjson_doc_free(doc);
}

/* ---- the end of a start that is not over ---- */

static void set_flag(void *ud)
{
  *(bool *)ud = true;
}

TEST(a_drain_waits_for_the_start)
{
  struct rig g = {.model = says_hello};
  bool over = false;
  rig_open(&g, test_dir());
  mr_domain_drain(g.d, set_flag, &over); /* the environment "default" is being made */
  CHECK(!over);
  for (int i = 0; i < 5000 && !over; i++)
    rig_pump(&g);
  CHECK(over);
  rig_ok(&g, mr_environments_list, NULL, NULL, NULL);
  CHECK_STR(mr_str_c(rig_get(&g, "/data/0/name")), "default");
  rig_close(&g);
}
