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

  mr_thread_init(&s, &s.main);

  row(&s, MR_ROW_WIRE, "session.status_running", "{}");
  row(&s, MR_ROW_PRIVATE, "model.reply",
      "{\"calls\":[{\"id\":\"toolu_1\",\"event_id\":\"sevt_1\"}],\"stop_reason\":\"tool_use\",\"content\":[]}");
  row(&s, MR_ROW_WIRE, "agent.custom_tool_use", "{\"type\":\"agent.custom_tool_use\",\"id\":\"sevt_1\",\"name\":\"n\",\"input\":{}}");
  row(&s, MR_ROW_PRIVATE, "tool.claim", "{\"event_id\":\"sevt_1\",\"owned\":true,\"idempotent\":true}");
  row(&s, MR_ROW_PRIVATE, "tool.intent", "{\"event_id\":\"sevt_1\",\"attempt\":1}");
  CHECK(mr_tools_running(&s.main));
  row(&s, MR_ROW_PRIVATE, "tool.claim", "{\"event_id\":\"sevt_1\",\"owned\":false}");
  CHECK(!mr_tools_running(&s.main)); /* else a restart waits for it for ever */
  CHECK(mr_call_waits_client(s.main.calls[0]));
  mr_mem_free(d.mem, s.main.history);
  mr_arena_free(&s.mem);
}

TEST(a_refusal_is_told_to_the_model_however_long_its_reason_is)
{
  enum { LONG = 2 << 20 };
  struct mr_domain d = {.sys = test_sys(), .mem = &test_sys()->mem};
  struct mr_session s = {.d = &d, .mem = mr_arena_new(d.mem, 4096)};
  char *json = malloc(LONG + 256);
  int n = snprintf(json, 256, "{\"tool_use_id\":\"sevt_1\",\"result\":\"deny\",\"deny_message\":\"");

  mr_thread_init(&s, &s.main);
  row(&s, MR_ROW_PRIVATE, "model.reply",
      "{\"calls\":[{\"id\":\"toolu_1\",\"event_id\":\"sevt_1\"}],\"stop_reason\":\"tool_use\",\"content\":[]}");
  memset(json + n, 'x', LONG);
  strcpy(json + n + LONG, "\"}");
  row(&s, MR_ROW_WIRE, "user.tool_confirmation", json);
  CHECK(s.main.calls[0]->finished && s.main.calls[0]->result.n > LONG);
  free(json);
  mr_arena_free(&s.mem);
}

TEST(a_reply_that_pauses_counts_towards_the_limit_of_rounds)
{
  struct mr_domain d = {.sys = test_sys(), .mem = &test_sys()->mem};
  struct mr_session s = {.d = &d, .mem = mr_arena_new(d.mem, 4096)};

  mr_thread_init(&s, &s.main);
  for (int i = 0; i < 3; i++)
    row(&s, MR_ROW_PRIVATE, "model.reply", "{\"calls\":[],\"stop_reason\":\"pause_turn\",\"content\":[]}");
  CHECK(s.main.wants_model);
  CHECK_INT(s.main.rounds, 3); /* else a model that always pauses is asked for ever */
  mr_arena_free(&s.mem);
}

TEST(a_session_has_not_worked_less_than_nothing_because_the_clock_went_back)
{
  struct mr_session_row r = {.id = MR_S("sesn_1"), .status = MR_S("running"), .agent = MR_S("{}"), .doc = MR_S("{}"), .created_us = 1,
                             .head = MR_S("{\"threads_us\":2000000,\"threads_working\":1,\"threads_since_us\":9000000}")};
  struct mr_buf b;

  mr_buf_init(&b, &test_sys()->mem, 1 << 16);
  mr_session_wire(&r, 5000000, &b);
  CHECK(strstr(b.p, "\"active_seconds\":2"));
  mr_buf_free(&b);
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

/* ---- a stop between a reply and its tools ---- */

static int owns_count(void *ud, struct mr_str tool, struct mr_str id, struct mr_str name)
{
  (void)ud, (void)id, (void)name;
  return mr_str_is(tool, "count") ? MR_OWNS : 0;
}

static int start_at_once(void *ud, struct mr_tool_run *run)
{
  struct rig *g = ud;
  mr_tool_run_done(g->d, run, MR_S("\"3\""), false);
  return MR_OK;
}

static void never(void *ud, struct mr_tool_run *run)
{
  (void)ud, (void)run;
}

static const char *count_and_ask(struct rig *g, struct mr_str last, int k)
{
  (void)last;
  if (k > 0)
    return "[{\"type\":\"text\",\"text\":\"ok\"}]";
  mr_domain_drain(g->d, NULL, NULL); /* while the model is at work */
  return "[{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"count\",\"input\":{}},"
         "{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"ask\",\"input\":{}}]";
}

TEST(a_drain_leaves_tools_and_the_idle_behind_them_to_the_next_start)
{
  static struct rig g;
  struct mr_tool_runner tools = {&g, owns_count, start_at_once, never};
  g = (struct rig){.model = count_and_ask, .opts = {.tools = &tools}};
  rig_open(&g, test_dir());
  rig_session(&g, "[{\"type\":\"custom\",\"name\":\"count\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}},"
              "{\"type\":\"custom\",\"name\":\"ask\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}]");
  rig_say(&g, "go");
  for (int i = 0; i < 100; i++)
    rig_pump(&g);
#define REPLY BEGIN " user.message model_request_start agent.custom_tool_use agent.custom_tool_use model_request_end"
  CHECK_STR(mr_str_c(rig_types(&g)), REPLY);
  again(&g, says_hello);
  rig_idles(&g, 1);
  CHECK_STR(mr_str_c(rig_types(&g)), REPLY " user.custom_tool_result " IDLE);
  rig_close(&g);
}

/* ---- a start with many sessions to wake ---- */

TEST(a_start_wakes_more_sessions_than_a_page_holds)
{
  enum { N = 1100 };
  struct rig g = {.model = says_hello};
  char json[512], id[64];
  bool over = false;

  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  mr_domain_drain(g.d, set_flag, &over); /* from here on messages wait for the next start */
  for (int i = 0; i < N; i++) {
    snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\",\"initial_events\":[{\"type\":\"user.message\","
             "\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}]}", g.agent, g.env);
    rig_ok(&g, mr_sessions_create, NULL, NULL, json);
  }
  snprintf(id, sizeof id, "%s", rig_get(&g, "/id"));
  again(&g, says_hello);
  snprintf(g.session, sizeof g.session, "%s", id);
  for (int i = 0; i < 20000; i++) {
    rig_ok(&g, mr_sessions_list, NULL, NULL, "{\"statuses\":[\"running\",\"rescheduling\"],\"limit\":1}");
    if (strcmp(rig_get(&g, "/data/0/id"), "(absent)") == 0)
      break;
    rig_pump(&g);
  }
  CHECK_INT(g.asked, N);
  rig_idles(&g, 1);
  CHECK_STR(mr_str_c(rig_types(&g)), BEGIN " user.message model_request_start agent.message model_request_end " IDLE);
  rig_close(&g);
}

static void on_got(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  (void)s, (void)err;
  *(int *)ud = code;
}

TEST(a_load_in_flight_goes_with_the_domain)
{
  struct rig g = {.model = says_hello};
  int code = 1;
  long blocks;

  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  again(&g, says_hello);
  blocks = test_allocs();
  mr_session_get(g.d, g.d->default_ws, mr_str_c(g.session), on_got, &code);
  CHECK(test_allocs() > blocks);
  mr_domain_cut(g.d);
  mr_pool_free(&g.pool);
  mr_store_close(&g.store);
  mr_domain_free(&g.d);
  mr_models_free(&g.models);
  mr_http_client_free(&g.http);
  mr_loop_free(&g.loop);
  CHECK_INT(code, 1);
  CHECK_INT(test_allocs(), 0);
}
