/* Models played by the host: streaming, failures and retries, cancel, limits, removal. */
#include "host_kit.h"

static const char *hold(struct host *h, const char *last, int k)
{
  (void)h;
  (void)last;
  (void)k;
  return NULL;
}

static const char *fails_twice(struct host *h, const char *last, int k)
{
  (void)h;
  (void)last;
  return k == 0 ? "!overloaded_error" : k == 1 ? "!api_error" : "[{\"type\":\"text\",\"text\":\"at last\"}]";
}

static const char *refuses(struct host *h, const char *last, int k)
{
  (void)h;
  (void)last;
  (void)k;
  return "!invalid_request_error";
}

static void *stream_elsewhere(void *arg)
{
  struct mr_model_use *use = arg;
  for (int i = 0; i < 20; i++) {
    char text[20];
    snprintf(text, sizeof text, "word%d ", i);
    CHECK_INT(mr_model_use_text(use, mr_str_c(text)), MR_OK);
    usleep(500);
  }
  CHECK_INT(mr_model_use_text(use, mr_str_c("\xff")), MR_E_INVALID);
  CHECK_INT(mr_model_use_finish(&use, "{\"content\":[{\"type\":\"text\",\"text\":\"the whole of it\"}],\"stop_reason\":\"end_turn\","
                                      "\"usage\":{\"input_tokens\":3,\"output_tokens\":4,\"cache_read_input_tokens\":5}}"), MR_OK);
  return NULL;
}

TEST(text_is_streamed_as_deltas)
{
  static struct host h;
  static struct got g;
  struct mr_op *op;
  char json[300];
  pthread_t t;
  int deltas = 0;

  h.rt = host_open(":memory:");
  host_play(&h, hold);
  host_session(&h, NULL);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\",\"event_deltas\":[\"agent.message\"]}", h.session);
  struct mr_req req = {.size = sizeof req, .op = "sessions.events.stream", .json = mr_str_c(json)};
  CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g, &op, NULL), MR_OK);
  host_say(&h, "go");
  UNTIL(h.rt, h.held);
  CHECK_STR(mr_model_use_session(h.held), h.session);
  CHECK_STR(X()->as_str(X()->get(mr_model_use_request(h.held), S("model"))), "test");
  CHECK_INT(X()->kind(X()->get(mr_model_use_request(h.held), S("system"))), MR_K_ARR);
  CHECK_INT(X()->kind(X()->get(mr_model_use_request(h.held), S("tools"))), MR_K_ARR);
  CHECK_INT(pthread_create(&t, NULL, stream_elsewhere, h.held), 0);
  UNTIL(h.rt, strstr(g.types, "session.status_idle"));
  pthread_join(t, NULL);
  for (const char *p = g.types; (p = strstr(p, "event_delta")); p++)
    deltas++;
  CHECK(deltas >= 1);
  CHECK(strstr(g.types, "event_start"));
  CHECK(strstr(g.types, "event_start") < strstr(g.types, "agent.message"));
  host_events(&h);
  CHECK(strstr(h.last, "the whole of it"));
  CHECK(strstr(h.last, "\"cache_read_input_tokens\":5"));
  mr_op_release(op);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_reply_that_was_not_streamed_is_announced_too)
{
  static struct host h;
  static struct got g;
  char json[300];
  struct mr_model_use *use;

  h.rt = host_open(":memory:");
  host_play(&h, hold);
  host_session(&h, NULL);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\",\"event_deltas\":[\"agent.message\"]}", h.session);
  struct mr_req req = {.size = sizeof req, .op = "sessions.events.stream", .json = mr_str_c(json)};
  CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g, NULL, NULL), MR_OK);
  host_say(&h, "go");
  UNTIL(h.rt, h.held && strstr(g.types, "span.model_request_start")); /* previews wait for its commit */
  use = h.held;
  CHECK_INT(mr_model_use_finish(&use, "{\"content\":[{\"type\":\"text\",\"text\":\"all at once\"}]}"), MR_OK);
  UNTIL(h.rt, strstr(g.types, "session.status_idle"));
  if (!strstr(g.types, "event_start event_delta"))
    test_fail(__FILE__, __LINE__, "%s", g.types);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(transient_failures_are_tried_again)
{
  static struct host h;
  static struct got g;
  struct mr_config c = host_config(":memory:");

  c.options = "{\"retries\":{\"base_ms\":5,\"cap_ms\":20}}";
  CHECK_INT(mr_open(&h.rt, &c, &h.err), MR_OK);
  host_play(&h, fails_twice);
  host_session(&h, NULL);
  CHECK_INT(mr_ask(h.rt, h.session, "go", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_STR(mr_str_c(pick(g.json, "/text")), "at last");
  CHECK_INT(h.asked, 3);
  CHECK(strstr(g.types, "session.error"));
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_refused_request_is_not)
{
  static struct host h;
  static struct got g;

  h.rt = host_open(":memory:");
  host_play(&h, refuses);
  host_session(&h, NULL);
  CHECK_INT(mr_ask(h.rt, h.session, "go", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(h.asked, 1);
  host_events(&h);
  CHECK(strstr(h.last, "the test's model fails"));
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

TEST(a_broken_reply_fails_the_request)
{
  static const char *const bad[] = {"{\"content\":[{\"type\":\"tool_use\"}]}", "{\"content\":\"text\"}", "{}", "{", "[]",
                                    "{\"content\":[{\"type\":\"text\"}]}", "{\"content\":[3]}"};
  static struct host h;
  static struct got g;

  h.rt = host_open(":memory:");
  host_play(&h, hold);
  host_session(&h, NULL);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    memset(&g, 0, sizeof g);
    h.held = NULL;
    CHECK_INT(mr_ask(h.rt, h.session, "go", &got_cbs, &g, NULL, NULL), MR_OK);
    UNTIL(h.rt, h.held);
    CHECK_INT(mr_model_use_finish(&h.held, bad[i]), MR_E_INVALID);
    CHECK(h.held == NULL);
    UNTIL(h.rt, g.replies);
    CHECK(strstr(g.types, "session.error"));
  }
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(an_interrupt_cancels_the_request)
{
  static struct host h;
  char json[200];

  h.rt = host_open(":memory:");
  host_play(&h, hold);
  host_session(&h, NULL);
  host_say(&h, "go");
  UNTIL(h.rt, h.held);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\",\"events\":[{\"type\":\"user.interrupt\"}]}", h.session);
  host_ok(&h, "sessions.events.send", json);
  UNTIL(h.rt, h.cancelled == 1);
  UNTIL(h.rt, strcmp(host_status(&h), "idle") == 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

static void keep(void *ud, struct mr_model_use *use)
{
  *(struct mr_model_use **)ud = use;
}

TEST(a_use_outlives_the_runtime)
{
  static struct host h;
  struct mr_model_use *use = NULL;
  struct mr_provider p = {.size = sizeof p, .name = "kept", .models = "test", .run = keep, .ud = &use};

  h.rt = host_open(":memory:");
  CHECK_INT(mr_provider_add(h.rt, &p, &h.err), MR_OK);
  host_session(&h, NULL);
  host_say(&h, "go");
  UNTIL(h.rt, use);
  CHECK_INT(mr_model_use_text(use, S("some")), MR_OK);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(mr_model_use_text(use, S("more")), MR_E_CANCELLED);
  CHECK(mr_model_use_request(use) != NULL);
  CHECK_INT(mr_model_use_finish(&use, "{\"content\":[]}"), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(providers_are_replaced_and_removed)
{
  static struct host h;
  static struct got g;
  struct mr_model_use *use = NULL;
  struct mr_provider p = {.size = sizeof p, .name = "kept", .models = "test", .run = keep, .ud = &use};

  h.rt = host_open(":memory:");
  CHECK_INT(mr_provider_add(h.rt, &p, &h.err), MR_OK);
  CHECK_INT(mr_provider_add(h.rt, &p, &h.err), MR_OK);
  host_session(&h, NULL);
  CHECK_INT(mr_ask(h.rt, h.session, "go", &got_cbs, &g, NULL, NULL), MR_OK);
  UNTIL(h.rt, use);
  CHECK_INT(mr_provider_remove(h.rt, "kept"), MR_OK); /* with a request out */
  CHECK_INT(mr_provider_remove(h.rt, "kept"), MR_E_NOTFOUND);
  CHECK_INT(mr_provider_remove(h.rt, "nobody"), MR_E_NOTFOUND);
  CHECK_INT(mr_model_use_finish(&use, "{\"content\":[{\"type\":\"text\",\"text\":\"still\"}]}"), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_STR(mr_str_c(pick(g.json, "/text")), "still");
  p.models = "";
  CHECK_INT(mr_provider_add(h.rt, &p, &h.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "models");
  p.models = "test";
  p.run = NULL;
  CHECK_INT(mr_provider_add(h.rt, &p, &h.err), MR_E_INVALID);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(many_sessions_at_once)
{
  static struct host h;
  static struct got g[300];
  static char ids[300][64];
  char json[300];

  h.rt = host_open(":memory:");
  host_play(&h, fails_twice); /* k >= 2: says "at last" */
  h.asked = 2;
  host_session(&h, NULL);
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", h.agent, h.env);
  for (int i = 0; i < 300; i++) {
    host_ok(&h, "sessions.create", json);
    snprintf(ids[i], sizeof ids[i], "%s", pick(h.last, "/id"));
  }
  for (int i = 0; i < 300; i++)
    CHECK_INT(mr_ask(h.rt, ids[i], "go", &got_cbs, &g[i], NULL, NULL), MR_OK);
  for (int i = 0; i < 300; i++) {
    UNTIL(h.rt, g[i].replies);
    CHECK_STR(mr_str_c(pick(g[i].json, "/text")), "at last");
  }
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}
