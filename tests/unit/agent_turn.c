/* The turn machine, through a real store: the worked traces of the API, retries, interrupts, restarts. */
#include "agent_kit.h"

#define IDLE "thread_status_idle usage status_idle"
#define BEGIN "status_running thread_status_running"
#define ASK "model_request_start"
#define END "model_request_end"
#define TOOL "[{\"type\":\"custom\",\"name\":\"get_weather\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}]"

static const char *says_hello(struct rig *g, struct mr_str last, int k)
{
  (void)g;
  (void)last;
  (void)k;
  return "[{\"type\":\"text\",\"text\":\"Hello\"}]";
}

TEST(trace_a_simple_turn)
{
  struct rig g = {.model = says_hello};
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  CHECK_STR(mr_str_c(rig_get(&g, "/status")), "idle");
  rig_say(&g, "Say hi");
  rig_idles(&g, 1);
  CHECK_STR(mr_str_c(rig_types(&g)), BEGIN " user.message " ASK " agent.message " END " " IDLE);
  rig_ok(&g, mr_sessions_retrieve, g.session, NULL, NULL);
  CHECK_STR(mr_str_c(rig_get(&g, "/usage/input_tokens")), "10");
  CHECK_STR(mr_str_c(rig_get(&g, "/agent/name")), "assistant");
  rig_close(&g);
}

static const char *two_calls(struct rig *g, struct mr_str last, int k)
{
  (void)g;
  if (k == 0)
    return "[{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"get_weather\",\"input\":{\"city\":\"Oslo\"}},"
           "{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"get_weather\",\"input\":{\"city\":\"Rome\"}}]";
  CHECK(memmem(last.p, last.n, "\"4 C\"", 5));
  CHECK(memmem(last.p, last.n, "18 C", 4));
  return "[{\"type\":\"text\",\"text\":\"Oslo 4 C, Rome 18 C.\"}]";
}

static void answer(struct rig *g, int i, const char *text)
{
  char json[1024], id[64], ptr[64];
  snprintf(ptr, sizeof ptr, "/data/%d/id", i);
  rig_ok(g, mr_sessions_events_list, g->session, NULL, "{\"types\":[\"agent.custom_tool_use\"]}");
  snprintf(id, sizeof id, "%s", rig_get(g, ptr));
  snprintf(json, sizeof json, "{\"events\":[{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"%s\","
           "\"content\":[{\"type\":\"text\",\"text\":\"%s\"}]}]}", id, text);
  rig_call(g, mr_sessions_events_send, g->session, NULL, json);
}

TEST(trace_c_two_custom_tools)
{
  struct rig g = {.model = two_calls};
  rig_open(&g, test_dir());
  rig_session(&g, TOOL);
  rig_say(&g, "Weather?");
  rig_idles(&g, 1);
  rig_call(&g, mr_sessions_events_send, g.session, NULL,
           "{\"events\":[{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]}");
  CHECK_INT(g.code, MR_E_INVALID);
  CHECK(strstr(g.err.message, "waiting on responses to events ["));
  answer(&g, 0, "4 C");
  CHECK_INT(g.code, MR_OK);
  CHECK(strcmp(rig_get(&g, "/data/0/processed_at"), "null") != 0);
  answer(&g, 0, "again");
  CHECK_INT(g.code, MR_E_INVALID);
  rig_idles(&g, 2);
  answer(&g, 1, "18 C");
  CHECK_INT(g.code, MR_OK);
  rig_idles(&g, 3);
  CHECK_STR(mr_str_c(rig_types(&g)),
            BEGIN " user.message " ASK " agent.custom_tool_use agent.custom_tool_use " END " " IDLE
            " user.custom_tool_result " IDLE " user.custom_tool_result " BEGIN " " ASK " agent.message " END " " IDLE);
  rig_close(&g);
}

static const char *holds_first(struct rig *g, struct mr_str last, int k)
{
  (void)g;
  (void)last;
  return k == 0 ? NULL : "[{\"type\":\"text\",\"text\":\"One.\"}]";
}

TEST(trace_d_interrupt_and_redirect)
{
  struct rig g = {.model = holds_first};
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  rig_say(&g, "Write an essay");
  while (!g.held)
    rig_pump(&g);
  rig_ok(&g, mr_sessions_events_send, g.session, NULL,
         "{\"events\":[{\"type\":\"user.interrupt\"},{\"type\":\"user.message\",\"content\":"
         "[{\"type\":\"text\",\"text\":\"Just 3 lines.\"}]}]}");
  CHECK_STR(mr_str_c(rig_get(&g, "/data/0/processed_at")), "null");
  rig_idles(&g, 2);
  CHECK_STR(mr_str_c(rig_types(&g)), BEGIN " user.message " ASK " " END " user.interrupt " IDLE " " BEGIN
                                     " user.message " ASK " agent.message " END " " IDLE);
  /* What the cut request had used counts, and the interrupt keeps the id that it was acknowledged with. */
  CHECK_STR(mr_str_c(rig_get(&g, "/data/4/model_usage/output_tokens")), "5");
  CHECK_STR(mr_str_c(rig_get(&g, "/data/4/model_usage/input_tokens")), "10");
  rig_ok(&g, mr_sessions_retrieve, g.session, NULL, NULL);
  CHECK_STR(mr_str_c(rig_get(&g, "/usage/output_tokens")), "10");
  rig_close(&g);
}

TEST(interrupt_when_idle_is_not_stored)
{
  struct rig g = {.model = says_hello};
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  rig_ok(&g, mr_sessions_events_send, g.session, NULL, "{\"events\":[{\"type\":\"user.interrupt\"}]}");
  CHECK_STR(mr_str_c(rig_types(&g)), "");
  rig_close(&g);
}

static const char *fails_twice(struct rig *g, struct mr_str last, int k)
{
  (void)g;
  (void)last;
  return k < 2 ? "!overloaded" : "[{\"type\":\"text\",\"text\":\"Hello\"}]";
}

static struct mr_domain_opts quick_retries(yyjson_doc **doc)
{
  struct mr_domain_opts o = {0};
  *doc = yyjson_read("{\"retries\":{\"max\":3,\"base_ms\":20,\"cap_ms\":40}}", 46, 0);
  CHECK(*doc);
  o.config = yyjson_doc_get_root(*doc);
  return o;
}

#define FAILED END " error thread_status_rescheduled status_rescheduled " BEGIN

TEST(transient_failures_are_tried_again)
{
  yyjson_doc *doc;
  struct rig g = {.model = fails_twice, .opts = quick_retries(&doc)};
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  rig_say(&g, "hi");
  rig_until(&g, "rescheduling");
  rig_idles(&g, 1);
  CHECK_STR(mr_str_c(rig_types(&g)), BEGIN " user.message " ASK " " FAILED " " ASK " " FAILED " " ASK
                                     " agent.message " END " " IDLE);
  rig_close(&g);
  yyjson_doc_free(doc);
}

static const char *always_fails(struct rig *g, struct mr_str last, int k)
{
  (void)last;
  return k > 10 ? "[{\"type\":\"text\",\"text\":\"Hello\"}]" : g->asked < 100 ? "!overloaded" : "!refused";
}

TEST(exhausted_retries_end_the_turn)
{
  yyjson_doc *doc;
  struct rig g = {.model = always_fails, .opts = quick_retries(&doc)};
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  rig_say(&g, "hi");
  rig_until(&g, "rescheduling");
  rig_idles(&g, 1);
  CHECK_INT(g.asked, 4);
  rig_ok(&g, mr_sessions_events_list, g.session, NULL, "{\"order\":\"desc\",\"limit\":1}");
  CHECK_STR(mr_str_c(rig_get(&g, "/data/0/stop_reason/type")), "retries_exhausted");
  g.asked = 20; /* the next message works */
  rig_say(&g, "again");
  rig_idles(&g, 2);
  rig_close(&g);
  yyjson_doc_free(doc);
}


TEST(a_turn_in_flight_goes_on_after_a_restart)
{
  struct rig g = {.model = holds_first};
  char session[64];
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  snprintf(session, sizeof session, "%s", g.session);
  rig_say(&g, "first");
  while (!g.held)
    rig_pump(&g);
  for (int i = 0; i < 50; i++)
    rig_pump(&g);
  rig_close(&g);
  memset(&g, 0, sizeof g);
  g.model = says_hello;
  snprintf(g.session, sizeof g.session, "%s", session);
  rig_open(&g, test_dir());
  rig_until(&g, "idle");
  CHECK_STR(mr_str_c(rig_types(&g)), BEGIN " user.message " ASK " " END " " ASK " agent.message " END " " IDLE);
  CHECK_INT(g.asked, 1);
  rig_close(&g);
}

TEST(messages_while_running_are_taken_in_order)
{
  struct rig g = {.model = holds_first};
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  rig_say(&g, "one");
  while (!g.held)
    rig_pump(&g);
  rig_say(&g, "two");
  rig_say(&g, "three");
  CHECK_STR(mr_str_c(rig_types(&g)), BEGIN " user.message " ASK " user.message user.message");
  g.held->content = strdup("[{\"type\":\"text\",\"text\":\"first\"}]");
  mr_ready_post(g.loop, &g.held->ready);
  for (int i = 0; i < 300; i++)
    rig_pump(&g);
  rig_until(&g, "idle");
  CHECK_STR(mr_str_c(rig_types(&g)), BEGIN " user.message " ASK " agent.message " END " user.message user.message " ASK
                                     " agent.message " END " " IDLE);
  rig_close(&g);
}

TEST(archive_and_delete)
{
  struct rig g = {.model = says_hello};
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  rig_say(&g, "hi");
  rig_idles(&g, 1);
  rig_ok(&g, mr_sessions_archive, g.session, NULL, NULL);
  CHECK_STR(mr_str_c(rig_get(&g, "/status")), "terminated");
  CHECK(strcmp(rig_get(&g, "/archived_at"), "null") != 0);
  rig_call(&g, mr_sessions_events_send, g.session, NULL,
           "{\"events\":[{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]}");
  CHECK_INT(g.code, MR_E_STATE);
  rig_ok(&g, mr_sessions_delete, g.session, NULL, NULL);
  CHECK_STR(mr_str_c(rig_get(&g, "/type")), "session_deleted");
  CHECK_INT(rig_call(&g, mr_sessions_retrieve, g.session, NULL, NULL), MR_E_NOTFOUND);
  rig_close(&g);
}

TEST(update_title_and_metadata)
{
  struct rig g = {.model = says_hello};
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  rig_ok(&g, mr_sessions_update, g.session, NULL, "{\"title\":\"t\",\"metadata\":{\"a\":\"1\",\"b\":\"2\"}}");
  CHECK_STR(mr_str_c(rig_get(&g, "/title")), "t");
  rig_ok(&g, mr_sessions_update, g.session, NULL, "{\"metadata\":{\"a\":null}}");
  CHECK_STR(mr_str_c(rig_get(&g, "/metadata/a")), "(absent)");
  CHECK_STR(mr_str_c(rig_get(&g, "/metadata/b")), "2");
  rig_ok(&g, mr_sessions_update, g.session, NULL, "{\"title\":\"t\"}"); /* changes nothing, says nothing */
  CHECK_STR(mr_str_c(rig_types(&g)), "updated updated");
  rig_close(&g);
}
