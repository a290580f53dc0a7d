/* Sessions: create, update, lists with filters and both directions, archive, delete, threads (API: sessions §2;
 * the numbers are those of its checklist, §17). */
#include "agent_kit.h"

static const char *holds_first(struct rig *g, struct mr_str last, int k)
{
  (void)g, (void)last;
  return k == 0 ? NULL : "[{\"type\":\"text\",\"text\":\"ok\"}]";
}

static struct rig g;

static void open_here(void)
{
  g = (struct rig){.model = holds_first};
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
}

#define GET(pointer, text) CHECK_STR(mr_str_c(rig_get(&g, pointer)), text)
#define INVALID(fn, p0, json, field, words) rig_refused(&g, fn, p0, NULL, json, MR_E_INVALID, 400, field, words)

/* json with %A and %E replaced by the agent and the environment. */
static const char *fill(const char *json)
{
  static char out[16384];
  size_t n = 0;
  for (; *json; json++) {
    if (json[0] == '%' && (json[1] == 'A' || json[1] == 'E'))
      n += (size_t)snprintf(out + n, sizeof out - n, "%s", *++json == 'A' ? g.agent : g.env);
    else
      out[n++] = *json;
  }
  out[n] = '\0';
  return out;
}
#define CREATE(more) fill("{\"agent\":\"%A\",\"environment_id\":\"%E\"" more "}")

TEST(create_fills_every_default) /* 11 */
{
  open_here();
  CHECK(strncmp(g.session, "sesn_01", 7) == 0);
  rig_ok(&g, mr_sessions_retrieve, g.session, NULL, NULL);
  GET("/status", "idle");
  GET("/title", "null");
  GET("/budget", "null");
  GET("/archived_at", "null");
  GET("/agent/id", g.agent);
  GET("/agent/version", "1");
  GET("/environment_id", g.env);
  GET("/deployment_id", "null");
  CHECK(strstr(g.last, "\"metadata\":{}") && strstr(g.last, "\"resources\":[]") && strstr(g.last, "\"vault_ids\":[]") &&
        strstr(g.last, "\"outcome_evaluations\":[]"));
  GET("/stats/active_seconds", "?");
  GET("/usage/input_tokens", "0");
  rig_close(&g);
}

TEST(the_agent_is_a_snapshot_and_overrides_replace) /* 12, 13, 14 */
{
  open_here();
  rig_ok(&g, mr_agents_update, g.agent, NULL, "{\"system\":\"new\",\"name\":\"renamed\"}");
  rig_ok(&g, mr_sessions_retrieve, g.session, NULL, NULL);
  GET("/agent/name", "assistant");
  GET("/agent/system", "null");
  rig_ok(&g, mr_sessions_create, NULL, NULL, CREATE(""));
  GET("/agent/version", "2");
  GET("/agent/system", "new");
  rig_ok(&g, mr_sessions_create, NULL, NULL,
         fill("{\"agent\":{\"type\":\"agent\",\"id\":\"%A\",\"version\":1},\"environment_id\":\"%E\"}"));
  GET("/agent/version", "1");
  GET("/agent/name", "assistant");
  rig_ok(&g, mr_sessions_create, NULL, NULL,
         fill("{\"agent\":{\"type\":\"agent_with_overrides\",\"id\":\"%A\",\"system\":null,\"model\":\"m9\"},\"environment_id\":\"%E\"}"));
  GET("/agent/id", g.agent);
  GET("/agent/version", "2");
  GET("/agent/system", "null");
  GET("/agent/model/id", "m9");
  INVALID(mr_sessions_create, NULL,
          fill("{\"agent\":{\"type\":\"agent_with_overrides\",\"id\":\"%A\",\"model\":null},\"environment_id\":\"%E\"}"), "agent.model", "cannot clear");
  CHECK_STR(mr_str_c(g.err.error_code), "agent_model_required");
  rig_close(&g);
}

TEST(what_is_unknown_is_named)
{
  static const char nobody[] = "sesn_01aaaaaaaaaaaaaaaaaaaaaa";
  static void (*const ops[])(struct mr_call *c) = {mr_sessions_retrieve, mr_sessions_update, mr_sessions_archive, mr_sessions_delete,
    mr_sessions_events_list, mr_sessions_threads_list, mr_sessions_resources_list, mr_sessions_events_stream};
  char json[512], longer[300];
  open_here();
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    rig_refused(&g, ops[i], nobody, NULL, "{\"title\":\"x\"}", MR_E_NOTFOUND, 404, "", nobody);
    CHECK_STR(mr_str_c(g.err.type), "not_found_error");
  }
  rig_refused(&g, mr_sessions_events_send, nobody, NULL,
              "{\"events\":[{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]}", MR_E_NOTFOUND, 404, "", nobody);
  memset(longer, 'x', sizeof longer - 1);
  longer[sizeof longer - 1] = '\0';
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
    rig_refused(&g, ops[i], longer, NULL, "{\"title\":\"x\"}", MR_E_NOTFOUND, 404, "", "xxxx");
  rig_refused(&g, mr_sessions_threads_retrieve, g.session, "sthr_01nobody", NULL, MR_E_NOTFOUND, 404, "", "sthr_01nobody");
  rig_refused(&g, mr_sessions_threads_events_list, g.session, "sthr_01nobody", NULL, MR_E_NOTFOUND, 404, "", "sthr_01nobody");
  rig_refused(&g, mr_sessions_threads_stream, g.session, "sthr_01nobody", NULL, MR_E_NOTFOUND, 404, "", "sthr_01nobody");
  snprintf(json, sizeof json, "{\"agent\":\"agent_01nobody\",\"environment_id\":\"%s\"}", g.env);
  rig_refused(&g, mr_sessions_create, NULL, NULL, json, MR_E_NOTFOUND, 404, "agent", "agent_01nobody");
  snprintf(json, sizeof json, "{\"agent\":{\"type\":\"agent\",\"id\":\"%s\",\"version\":7},\"environment_id\":\"%s\"}", g.agent, g.env);
  rig_refused(&g, mr_sessions_create, NULL, NULL, json, MR_E_NOTFOUND, 404, "agent.version", g.agent);
  CHECK(strstr(g.err.message, "version 7"));
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"env_01nobody\"}", g.agent);
  rig_refused(&g, mr_sessions_create, NULL, NULL, json, MR_E_NOTFOUND, 404, "environment_id", "env_01nobody");
  rig_close(&g);
}

TEST(initial_events_begin_a_turn_or_make_nothing) /* 16, 17, 18 */
{
  char before[16], session[64];
  open_here();
  g.asked = 1; /* the model answers at once */
  rig_ok(&g, mr_sessions_create, NULL, NULL,
         CREATE(",\"initial_events\":[{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"go\"}]}]"));
  GET("/status", "running");
  CHECK(!strstr(g.last, "sevt_"));
  snprintf(session, sizeof session, "%s", rig_get(&g, "/id"));
  snprintf(g.session, sizeof g.session, "%s", session);
  rig_idles(&g, 1);
  CHECK(strstr(rig_types(&g), "status_running thread_status_running user.message model_request_start agent.message"));
  rig_ok(&g, mr_sessions_list, NULL, NULL, NULL);
  snprintf(before, sizeof before, "%d", 2);
  GET("/data/2", "(absent)");
  INVALID(mr_sessions_create, NULL, CREATE(",\"initial_events\":[{\"type\":\"system.message\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]"),
          "initial_events[0].type", "cannot be an initial event");
  INVALID(mr_sessions_create, NULL, CREATE(",\"initial_events\":[{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]},"
          "{\"type\":\"user.message\",\"content\":[{\"type\":\"redacted\"}]}]"), "initial_events[1].content[0]", "redacted");
  {
    char json[8192];
    size_t n = (size_t)snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\",\"initial_events\":[", g.agent, g.env);
    for (int i = 0; i < 51; i++)
      n += (size_t)snprintf(json + n, sizeof json - n, "%s{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}", i ? "," : "");
    snprintf(json + n, sizeof json - n, "]}");
    INVALID(mr_sessions_create, NULL, json, "initial_events", "at most 50");
  }
  rig_ok(&g, mr_sessions_list, NULL, NULL, NULL);
  GET("/data/2", "(absent)"); /* nothing was made */
  rig_ok(&g, mr_sessions_create, NULL, NULL, CREATE(",\"initial_events\":[]"));
  GET("/status", "idle");
  rig_close(&g);
}

TEST(updates_say_what_changed_once) /* 25 to 27, 29 */
{
  open_here();
  rig_ok(&g, mr_sessions_update, g.session, NULL, "{\"title\":\"t\",\"metadata\":{\"a\":\"1\",\"b\":\"2\"}}");
  rig_ok(&g, mr_sessions_update, g.session, NULL, "{\"metadata\":{\"a\":null,\"c\":\"3\"}}");
  GET("/metadata/a", "(absent)");
  GET("/metadata/b", "2");
  GET("/metadata/c", "3");
  rig_ok(&g, mr_sessions_update, g.session, NULL, "{\"title\":\"t\",\"metadata\":{\"c\":\"3\"}}");
  rig_ok(&g, mr_sessions_update, g.session, NULL, "{}");
  rig_ok(&g, mr_sessions_update, g.session, NULL, "{\"title\":null,\"metadata\":null}");
  GET("/title", "null");
  rig_ok(&g, mr_sessions_events_list, g.session, NULL, NULL);
  GET("/data/0/type", "session.updated");
  GET("/data/0/title", "t");
  GET("/data/0/metadata/a", "1");
  GET("/data/0/agent", "(absent)");
  GET("/data/0/budget", "(absent)");
  GET("/data/1/title", "(absent)");
  GET("/data/1/metadata/c", "3");
  GET("/data/2/title", "null");
  GET("/data/2/metadata", "(absent)");
  GET("/data/3", "(absent)");
  INVALID(mr_sessions_update, g.session, "{\"vault_ids\":[]}", "vault_ids", "vault_ids");
  INVALID(mr_sessions_update, g.session, "{\"metadata\":{\"k\":1}}", "metadata", "metadata.k");
  rig_close(&g);
}

/* All titles of a list, walked from json on through next_page (or prev_page). */
static const char *walk(const char *query, const char *way)
{
  static char out[1024];
  char json[512], ptr[32];
  size_t n = 0;
  snprintf(json, sizeof json, "{%s}", query);
  for (int page = 0; page < 20; page++) {
    rig_ok(&g, mr_sessions_list, NULL, NULL, json);
    for (int i = 0; i < 20; i++) {
      snprintf(ptr, sizeof ptr, "/data/%d/title", i);
      if (strcmp(rig_get(&g, ptr), "(absent)") == 0)
        break;
      n += (size_t)snprintf(out + n, sizeof out - n, "%s ", rig_get(&g, ptr));
    }
    n += (size_t)snprintf(out + n, sizeof out - n, "| ");
    if (strcmp(rig_get(&g, way), "null") == 0)
      break;
    snprintf(json, sizeof json, "{%s%s\"page\":\"%s\"}", query, query[0] ? "," : "", rig_get(&g, way));
  }
  return out;
}

TEST(lists_go_both_ways_with_filters) /* 20, 22 to 24 */
{
  char json[512], page[256], back[256];
  open_here();
  rig_ok(&g, mr_sessions_update, g.session, NULL, "{\"title\":\"s0\"}");
  for (int i = 1; i < 7; i++) {
    snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\",\"title\":\"s%d\"}", g.agent, g.env, i);
    rig_ok(&g, mr_sessions_create, NULL, NULL, json);
  }
  CHECK_STR(mr_str_c(walk("\"limit\":3", "/next_page")), "s6 s5 s4 | s3 s2 s1 | s0 | ");
  CHECK_STR(mr_str_c(walk("\"limit\":3,\"order\":\"asc\"", "/next_page")), "s0 s1 s2 | s3 s4 s5 | s6 | ");
  rig_ok(&g, mr_sessions_list, NULL, NULL, "{\"limit\":3}");
  GET("/prev_page", "null");
  snprintf(page, sizeof page, "%s", rig_get(&g, "/next_page"));
  snprintf(json, sizeof json, "{\"limit\":3,\"page\":\"%s\"}", page);
  rig_ok(&g, mr_sessions_list, NULL, NULL, json);
  GET("/data/0/title", "s3");
  snprintf(back, sizeof back, "%s", rig_get(&g, "/prev_page"));
  snprintf(json, sizeof json, "{\"limit\":3,\"page\":\"%s\"}", back);
  rig_ok(&g, mr_sessions_list, NULL, NULL, json);
  GET("/data/0/title", "s6");
  GET("/data/2/title", "s4");
  GET("/data/3", "(absent)");
  GET("/prev_page", "null");
  snprintf(json, sizeof json, "{\"limit\":3,\"page\":\"%s\"}", rig_get(&g, "/next_page"));
  rig_ok(&g, mr_sessions_list, NULL, NULL, json);
  GET("/data/0/title", "s3");
  snprintf(json, sizeof json, "{\"limit\":3,\"order\":\"asc\",\"page\":\"%s\"}", page);
  INVALID(mr_sessions_list, NULL, json, "page", "another order");
  INVALID(mr_sessions_list, NULL, "{\"limit\":1001}", "limit", "1 and 1000");
  /* filters */
  rig_say(&g, "hold"); /* s0 runs: the model holds its first answer */
  rig_until(&g, "running");
  CHECK_STR(mr_str_c(walk("\"statuses\":[\"running\"]", "/next_page")), "s0 | ");
  CHECK_STR(mr_str_c(walk("\"statuses\":[\"running\",\"idle\"],\"order\":\"asc\"", "/next_page")), "s0 s1 s2 s3 s4 s5 s6 | ");
  rig_ok(&g, mr_agents_create, NULL, NULL, "{\"name\":\"other\",\"model\":\"m\"}");
  snprintf(page, sizeof page, "%s", rig_get(&g, "/id"));
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\",\"title\":\"o1\"}", page, g.env);
  rig_ok(&g, mr_sessions_create, NULL, NULL, json);
  rig_ok(&g, mr_sessions_archive, rig_get(&g, "/id"), NULL, NULL);
  snprintf(json, sizeof json, "\"agent_id\":\"%s\"", page);
  CHECK_STR(mr_str_c(walk(json, "/next_page")), "| "); /* archived ones are hidden */
  snprintf(json, sizeof json, "\"agent_id\":\"%s\",\"include_archived\":true", page);
  CHECK_STR(mr_str_c(walk(json, "/next_page")), "o1 | ");
  snprintf(json, sizeof json, "\"agent_id\":\"%s\",\"agent_version\":2", g.agent);
  CHECK_STR(mr_str_c(walk(json, "/next_page")), "| ");
  CHECK_STR(mr_str_c(walk("\"agent_version\":2,\"statuses\":[\"running\"]", "/next_page")), "s0 | "); /* ignored without agent_id */
  CHECK_STR(mr_str_c(walk("\"created_at\":{\"lt\":\"2001-01-01T00:00:00Z\"}", "/next_page")), "| ");
  rig_close(&g);
}

TEST(archive_and_delete_only_when_not_running) /* 30 to 32 */
{
  open_here();
  rig_say(&g, "hold");
  while (!g.held)
    rig_pump(&g);
  rig_refused(&g, mr_sessions_archive, g.session, NULL, NULL, MR_E_STATE, 400, "", g.session);
  rig_refused(&g, mr_sessions_delete, g.session, NULL, NULL, MR_E_STATE, 400, "", "interrupt it");
  rig_ok(&g, mr_sessions_events_send, g.session, NULL, "{\"events\":[{\"type\":\"user.interrupt\"}]}");
  rig_idles(&g, 1);
  rig_ok(&g, mr_sessions_archive, g.session, NULL, NULL);
  GET("/status", "terminated");
  rig_ok(&g, mr_sessions_archive, g.session, NULL, NULL); /* again: as it is */
  rig_ok(&g, mr_sessions_events_list, g.session, NULL, "{\"order\":\"desc\",\"limit\":1}");
  GET("/data/0/type", "session.status_terminated");
  rig_refused(&g, mr_sessions_events_send, g.session, NULL, "{\"events\":[{\"type\":\"user.interrupt\"}]}", MR_E_STATE, 400, "", "archived");
  rig_refused(&g, mr_sessions_update, g.session, NULL, "{\"title\":\"x\"}", MR_E_STATE, 400, "", g.session);
  rig_refused(&g, mr_sessions_events_stream, g.session, NULL, NULL, MR_E_STATE, 400, "", "terminated");
  rig_ok(&g, mr_sessions_retrieve, g.session, NULL, NULL);
  rig_ok(&g, mr_sessions_delete, g.session, NULL, NULL);
  GET("/type", "session_deleted");
  GET("/id", g.session);
  rig_refused(&g, mr_sessions_retrieve, g.session, NULL, NULL, MR_E_NOTFOUND, 404, "", g.session);
  rig_refused(&g, mr_sessions_events_list, g.session, NULL, NULL, MR_E_NOTFOUND, 404, "", g.session);
  rig_refused(&g, mr_sessions_delete, g.session, NULL, NULL, MR_E_NOTFOUND, 404, "", g.session);
  rig_refused(&g, mr_sessions_events_send, g.session, NULL, "{\"events\":[{\"type\":\"user.interrupt\"}]}", MR_E_NOTFOUND, 404, "", g.session);
  rig_close(&g);
}

TEST(every_session_has_its_primary_thread) /* 93 */
{
  char thread[64];
  open_here();
  g.asked = 1;
  rig_ok(&g, mr_sessions_threads_list, g.session, NULL, NULL);
  GET("/data/0/parent_thread_id", "null");
  GET("/data/0/status", "idle");
  GET("/data/0/session_id", g.session);
  GET("/data/0/agent/id", g.agent);
  GET("/data/1", "(absent)");
  snprintf(thread, sizeof thread, "%s", rig_get(&g, "/data/0/id"));
  rig_say(&g, "hi");
  rig_idles(&g, 1);
  rig_ok(&g, mr_sessions_threads_retrieve, g.session, thread, NULL);
  GET("/usage/input_tokens", "10");
  rig_ok(&g, mr_sessions_threads_events_list, g.session, thread, NULL);
  GET("/data/1/type", "session.thread_status_running");
  GET("/data/1/session_thread_id", thread);
  rig_close(&g);
}

static char joined[65536];
static int njoined;

static void joins(void *ud, struct mr_commit *c)
{
  struct mr_call *call = ud;
  CHECK(c != NULL);
  if (!call->out.n) return;
  njoined++;
  snprintf(joined, sizeof joined, "%.*s", (int)call->out.n, call->out.p);
}

/* What answers a request that is sent again is durable with what the first one made (api/once.c). */
/* How long there has been a session is told as of now. */
static void ageless(char *json)
{
  char *p = strstr(json, "\"duration_seconds\":");

  CHECK(p);
  if (p) memmove(p, p + strcspn(p, ",}"), strlen(p + strcspn(p, ",}")) + 1);
}

TEST(a_forks_answer_is_known_by_the_commit_that_makes_it)
{
  rig_open(&g, ":memory:");
  rig_session(&g, NULL);
  g.joins = joins;
  rig_ok(&g, mr_sessions_fork, g.session, NULL, "{}");
  CHECK_INT(njoined, 1);
  CHECK_STR(mr_str_c(joined), g.last);
  snprintf(g.session, sizeof g.session, "%s", rig_get(&g, "/id"));
  g.joins = NULL;
  rig_ok(&g, mr_sessions_retrieve, g.session, NULL, NULL);
  ageless(joined);
  ageless(g.last);
  CHECK_STR(mr_str_c(joined), g.last);
  rig_close(&g);
}
