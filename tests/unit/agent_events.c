/* Events: what may be sent and when, the list's pages and filters, the worked traces with built-in tools,
 * permissions and previews (API: sessions §5 to §8, §10, §16; the numbers are those of its checklist, §17). */
#include "agent_kit.h"

#define IDLE "thread_status_idle usage status_idle"
#define BEGIN "status_running thread_status_running"
#define ASK "model_request_start"
#define END "model_request_end"
#define GET(pointer, text) CHECK_STR(mr_str_c(rig_get(&g, pointer)), text)
#define LIST(text) CHECK_STR(mr_str_c(rig_types(&g)), text)
#define REFUSED(json, field, words) \
  rig_refused(&g, mr_sessions_events_send, g.session, NULL, "{\"events\":[" json "]}", MR_E_INVALID, 400, field, words)
#define SAY(t) "{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"" t "\"}]}"

static struct rig g;

/* ---- a sandbox that answers from the drain ---- */

struct box_call { struct mr_ready ready; mr_sandbox_fn fn; void *ud; };
static int box_calls;
static char box_input[512];

static void box_tell(struct mr_ready *r)
{
  struct box_call *b = MR_OF(r, struct box_call, ready);
  struct mr_sandbox_result res = {.content = MR_S("[]")};
  b->fn(b->ud, &res);
  free(b);
}
static int box_run(struct mr_sandbox *s, const struct mr_sandbox_call *c, mr_sandbox_fn fn, void *ud)
{
  struct box_call *b = calloc(1, sizeof *b);
  (void)s;
  box_calls++;
  snprintf(box_input, sizeof box_input, MR_FMT " " MR_FMT " " MR_FMT, MR_ARG(c->name), MR_ARG(c->input), MR_ARG(c->exec_id));
  b->fn = fn;
  b->ud = ud;
  mr_ready_init(&b->ready, box_tell);
  mr_ready_post(g.loop, &b->ready);
  return MR_OK;
}
static struct mr_sandbox_driver driver;
static struct mr_sandbox box;
static struct mr_sandbox *box_get(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *s, const char *ref)
{
  (void)s;
  (void)ref;
  box.d = d;
  return &box;
}
static void box_put(struct mr_sandbox *s) { (void)s; }
static const char *box_ref(const struct mr_sandbox *s) { (void)s; return "box-1"; }
static void box_cancel(struct mr_sandbox *s, struct mr_str id) { (void)s, (void)id; }
static void box_destroy(struct mr_sandbox_driver *d, const char *id, const char *ref, mr_sandbox_fn fn, void *ud)
{
  (void)d, (void)id, (void)ref, (void)fn, (void)ud;
}
static const struct mr_sandbox_vtable vtable = {.destroy = box_destroy, .get = box_get, .put = box_put, .ref = box_ref, .call = box_run, .cancel = box_cancel};

#define ASKED "[{\"type\":\"agent_toolset_20260401\",\"configs\":[{\"name\":\"bash\",\"permission_policy\":{\"type\":\"always_ask\"}}," \
  "{\"name\":\"grep\",\"enabled\":false}]}]"
#define CUSTOM "[{\"type\":\"custom\",\"name\":\"get_weather\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}]"

static void open_with(const char *(*model)(struct rig *g, struct mr_str last, int k), const char *tools)
{
  g = (struct rig){.model = model};
  driver.v = &vtable;
  g.opts.sandbox = &driver;
  rig_open(&g, test_dir());
  rig_session(&g, tools);
}

/* ---- models ---- */

static const char *says_hello(struct rig *r, struct mr_str last, int k)
{
  (void)r, (void)last, (void)k;
  return "[{\"type\":\"text\",\"text\":\"Hello\"}]";
}

static const char *holds_first(struct rig *r, struct mr_str last, int k)
{
  return k == 0 ? NULL : says_hello(r, last, k);
}

static char told[4096]; /* the last message of the latest request */
static const char *one_command(struct rig *r, struct mr_str last, int k)
{
  (void)r;
  snprintf(told, sizeof told, MR_FMT, MR_ARG(last));
  if (k == 0)
    return "[{\"type\":\"text\",\"text\":\"I will remove build/.\"},"
           "{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"bash\",\"input\":{\"command\":\"rm -rf build\"}}]";
  return "[{\"type\":\"text\",\"text\":\"Done.\"}]";
}

static const char *two_asked_one_not(struct rig *r, struct mr_str last, int k)
{
  (void)r;
  snprintf(told, sizeof told, MR_FMT, MR_ARG(last));
  if (k == 0)
    return "[{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"bash\",\"input\":{\"command\":\"a\"}},"
           "{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"read\",\"input\":{\"file_path\":\"f\"}},"
           "{\"type\":\"tool_use\",\"id\":\"t3\",\"name\":\"bash\",\"input\":{\"command\":\"b\"}}]";
  return "[{\"type\":\"text\",\"text\":\"Done.\"}]";
}

static const char *disabled_and_unknown(struct rig *r, struct mr_str last, int k)
{
  (void)r;
  snprintf(told, sizeof told, MR_FMT, MR_ARG(last));
  if (k == 0)
    return "[{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"grep\",\"input\":{\"pattern\":\"x\"}},"
           "{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"fly\",\"input\":{}}]";
  return "[{\"type\":\"text\",\"text\":\"Done.\"}]";
}

static const char *custom_call(struct rig *r, struct mr_str last, int k)
{
  (void)r, (void)last;
  if (k == 0)
    return "[{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"get_weather\",\"input\":{\"city\":\"Oslo\"}}]";
  return "[{\"type\":\"text\",\"text\":\"Cold.\"}]";
}

/* The id of the i-th event of this type. */
static const char *id_of(const char *type, int i)
{
  static char id[64];
  char json[128], ptr[32];
  snprintf(json, sizeof json, "{\"types\":[\"%s\"]}", type);
  rig_ok(&g, mr_sessions_events_list, g.session, NULL, json);
  snprintf(ptr, sizeof ptr, "/data/%d/id", i);
  snprintf(id, sizeof id, "%s", rig_get(&g, ptr));
  return id;
}

static int verdict(int i, const char *result)
{
  char json[512], id[64];
  snprintf(id, sizeof id, "%s", id_of("agent.tool_use", i));
  snprintf(json, sizeof json, "{\"events\":[{\"type\":\"user.tool_confirmation\",\"tool_use_id\":\"%s\",\"result\":%s}]}", id, result);
  return rig_call(&g, mr_sessions_events_send, g.session, NULL, json);
}

/* ---- traces ---- */

TEST(trace_b_an_asked_tool_allowed) /* 77 */
{
  char call[64];
  open_with(one_command, ASKED);
  rig_say(&g, "Delete build/");
  rig_idles(&g, 1);
  LIST(BEGIN " user.message " ASK " agent.message agent.tool_use " END " " IDLE);
  GET("/data/5/evaluated_permission", "ask");
  GET("/data/5/evaluation/type", "always_ask");
  snprintf(call, sizeof call, "%s", rig_get(&g, "/data/5/id"));
  GET("/data/9/stop_reason/type", "requires_action");
  GET("/data/9/stop_reason/event_ids/0", call);
  GET("/data/9/stop_details", "null");
  GET("/data/7/stop_reason/event_ids/0", call);
  CHECK_INT(box_calls, 0);
  CHECK_INT(verdict(0, "\"allow\""), MR_OK);
  GET("/data/0/processed_at", "null");
  rig_idles(&g, 2);
  LIST(BEGIN " user.message " ASK " agent.message agent.tool_use " END " " IDLE " " BEGIN
       " user.tool_confirmation agent.tool_result " ASK " agent.message " END " " IDLE);
  GET("/data/13/tool_use_id", call);
  GET("/data/13/content/0/text", "(no output)");
  GET("/data/19/stop_reason/type", "end_turn");
  CHECK_INT(box_calls, 1);
  CHECK(strncmp(box_input, "bash {\"command\":\"rm -rf build\"} sevt_", 37) == 0 && strstr(box_input, call));
  CHECK(strstr(told, "\"tool_use_id\":\"t1\"") && strstr(told, "(no output)"));
  CHECK_INT(verdict(0, "\"allow\""), MR_E_INVALID);
  rig_close(&g);
}

TEST(trace_b_an_asked_tool_denied) /* 79 */
{
  open_with(one_command, ASKED);
  rig_say(&g, "Delete build/");
  rig_idles(&g, 1);
  CHECK_INT(verdict(0, "\"deny\",\"deny_message\":\"Use staging.\""), MR_OK);
  rig_idles(&g, 2);
  LIST(BEGIN " user.message " ASK " agent.message agent.tool_use " END " " IDLE " " BEGIN
       " user.tool_confirmation agent.tool_result " ASK " agent.message " END " " IDLE);
  GET("/data/12/deny_message", "Use staging.");
  GET("/data/13/content/0/text", "The user denied this tool call: Use staging.");
  CHECK(strstr(g.last, "\"is_error\":true"));
  CHECK_INT(box_calls, 0);
  CHECK(strstr(told, "Use staging.") && strstr(told, "\"is_error\":true"));
  rig_close(&g);
}

TEST(partial_verdicts_wait_for_the_rest) /* 78, 8.3 */
{
  char second[64];
  open_with(two_asked_one_not, ASKED);
  rig_say(&g, "go");
  rig_idles(&g, 1);
  /* What needed no approval has run before the first idle. */
  LIST(BEGIN " user.message " ASK " agent.tool_use agent.tool_use agent.tool_use " END " agent.tool_result " IDLE);
  CHECK_INT(box_calls, 1);
  snprintf(second, sizeof second, "%s", rig_get(&g, "/data/6/id"));
  CHECK_INT(verdict(0, "\"allow\""), MR_OK);
  rig_idles(&g, 2);
  GET("/data/15/type", "session.status_idle");
  GET("/data/15/stop_reason/event_ids/0", second);
  GET("/data/15/stop_reason/event_ids/1", "(absent)");
  CHECK_INT(box_calls, 1); /* nothing runs before the last verdict */
  CHECK_INT(verdict(1, "\"allow\""), MR_E_INVALID); /* it was allowed without asking */
  CHECK_STR(mr_str_c(g.err.field), "events[0].tool_use_id");
  CHECK_INT(verdict(2, "\"deny\""), MR_OK);
  rig_idles(&g, 3);
  LIST(BEGIN " user.message " ASK " agent.tool_use agent.tool_use agent.tool_use " END " agent.tool_result " IDLE
       " user.tool_confirmation " IDLE " " BEGIN " user.tool_confirmation agent.tool_result agent.tool_result " ASK
       " agent.message " END " " IDLE);
  CHECK_INT(box_calls, 2);
  rig_close(&g);
}

TEST(a_disabled_tool_is_refused_and_the_turn_goes_on) /* 80 */
{
  open_with(disabled_and_unknown, ASKED);
  rig_say(&g, "go");
  rig_idles(&g, 1);
  LIST(BEGIN " user.message " ASK " agent.tool_use agent.tool_use " END " agent.tool_result agent.tool_result " ASK
       " agent.message " END " " IDLE);
  GET("/data/4/evaluated_permission", "deny");
  GET("/data/4/evaluation", "(absent)");
  GET("/data/7/content/0/text", "Permission to use grep has been denied.");
  GET("/data/8/content/0/text", "Permission to use fly has been denied.");
  CHECK(strstr(told, "\"tool_use_id\":\"t1\"") && strstr(told, "\"tool_use_id\":\"t2\""));
  CHECK_INT(verdict(0, "\"allow\""), MR_E_INVALID); /* a server's denial cannot be confirmed */
  CHECK_INT(box_calls, 0);
  rig_close(&g);
}

TEST(an_interrupt_while_blocked_closes_the_calls) /* 85 */
{
  open_with(custom_call, CUSTOM);
  rig_say(&g, "Weather?");
  rig_idles(&g, 1);
  GET("/data/4/evaluated_permission", "(absent)"); /* 81 */
  GET("/data/4/evaluation", "(absent)");
  rig_ok(&g, mr_sessions_events_send, g.session, NULL, "{\"events\":[{\"type\":\"user.interrupt\"}]}");
  rig_idles(&g, 2);
  LIST(BEGIN " user.message " ASK " agent.custom_tool_use " END " " IDLE " user.custom_tool_result user.interrupt " IDLE);
  GET("/data/9/content/0/text", "Tool execution was interrupted before completion. Please retry.");
  GET("/data/13/stop_reason/type", "end_turn");
  CHECK_INT(g.asked, 1); /* the model is not sampled */
  rig_close(&g);
}

/* ---- previews on the stream ---- */

struct seen { struct mr_call c; yyjson_doc *in; char names[2048]; bool over; int code; };
static void seen_done(struct mr_call *c)
{
  struct seen *s = MR_OF(c, struct seen, c);
  s->over = true;
  s->code = c->code;
}
static void seen_opened(struct mr_call *c) { (void)c; }
static int seen_event(struct mr_call *c, struct mr_str name, int64_t pos, struct mr_str json)
{
  struct seen *s = MR_OF(c, struct seen, c);
  size_t n = strlen(s->names);
  yyjson_doc *d = yyjson_read(json.p, json.n, 0);
  CHECK(d);
  CHECK_STR(name, yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(d), "type")));
  CHECK((pos == 0) == mr_str_starts(name, MR_S("event_")));
  yyjson_doc_free(d);
  snprintf(s->names + n, sizeof s->names - n, "%s" MR_FMT, n ? " " : "", MR_ARG(name));
  return MR_OK;
}
static void seen_open(struct seen *s, const char *json)
{
  memset(s, 0, sizeof *s);
  s->in = yyjson_read(json, strlen(json), 0);
  s->c = (struct mr_call){.d = g.d, .mem = &test_sys()->mem, .arena = mr_arena_new(&test_sys()->mem, 256),
                          .in = yyjson_doc_get_root(s->in), .done = seen_done, .opened = seen_opened, .event = seen_event};
  CHECK_INT(mr_store_workspace(g.store, MR_S("default"), &s->c.who.workspace, NULL), MR_OK);
  s->c.path[0] = mr_str_c(g.session);
  mr_buf_init(&s->c.out, s->c.mem, 1 << 20);
  mr_sessions_events_stream(&s->c);
  for (int i = 0; i < 20; i++)
    rig_pump(&g);
}
static void seen_close(struct seen *s)
{
  if (s->c.cancel)
    s->c.cancel(&s->c);
  for (int i = 0; i < 50 && !s->over; i++)
    rig_pump(&g);
  CHECK(s->over);
  mr_buf_free(&s->c.out);
  mr_arena_free(&s->c.arena);
  yyjson_doc_free(s->in);
}

#define S_BEGIN "session.status_running session.thread_status_running"
#define S_IDLE "session.thread_status_idle session.usage session.status_idle"
#define S_ASK "span.model_request_start"
#define S_END "span.model_request_end"

TEST(trace_a_with_and_without_previews) /* 53, 57 to 59, 68 */
{
  struct seen with, without, late, bad;
  open_with(says_hello, NULL);
  seen_open(&bad, "{\"event_deltas\":[\"foo\"]}");
  CHECK(bad.over);
  CHECK_INT(bad.code, MR_E_INVALID);
  CHECK_STR(mr_str_c(bad.c.err.field), "event_deltas");
  seen_close(&bad);
  seen_open(&with, "{\"event_deltas\":[\"agent.message\"]}");
  seen_open(&without, "{}");
  rig_say(&g, "Say hi");
  rig_idles(&g, 1);
  seen_open(&late, "{}"); /* a new connection gets nothing of the past */
  CHECK_STR(mr_str_c(late.names), "");
  CHECK_STR(mr_str_c(without.names), S_BEGIN " user.message " S_ASK " agent.message " S_END " " S_IDLE);
  CHECK_STR(mr_str_c(with.names), S_BEGIN " user.message " S_ASK " event_start event_delta event_delta agent.message " S_END " " S_IDLE);
  for (int i = 0; i < 100; i++)
    rig_pump(&g);
  CHECK_STR(mr_str_c(without.names), S_BEGIN " user.message " S_ASK " agent.message " S_END " " S_IDLE);
  rig_ok(&g, mr_sessions_archive, g.session, NULL, NULL);
  for (int i = 0; i < 50; i++)
    rig_pump(&g);
  CHECK(with.over && without.over && late.over); /* 30 */
  CHECK_STR(mr_str_c(late.names), "session.status_terminated");
  CHECK_INT(late.code, MR_OK);
  seen_close(&with);
  seen_close(&without);
  seen_close(&late);
  rig_close(&g);
}

TEST(a_stream_goes_on_after_a_position)
{
  struct seen all;
  open_with(says_hello, NULL);
  rig_say(&g, "one");
  rig_idles(&g, 1);
  seen_open(&all, "{\"after\":1}"); /* rows behind the first, then live ones */
  rig_say(&g, "two");
  rig_idles(&g, 2);
  CHECK(strstr(all.names, "session.thread_status_running user.message") == all.names);
  CHECK_STR(mr_str_c(all.names), "session.thread_status_running user.message " S_ASK " agent.message " S_END " " S_IDLE " " S_BEGIN
            " user.message " S_ASK " agent.message " S_END " " S_IDLE);
  rig_ok(&g, mr_sessions_delete, g.session, NULL, NULL);
  for (int i = 0; i < 50; i++)
    rig_pump(&g);
  CHECK(all.over);
  CHECK(mr_str_ends(mr_str_c(all.names), MR_S("session.deleted"))); /* 32 */
  seen_close(&all);
  rig_close(&g);
}

/* ---- sending ---- */

TEST(a_bad_event_refuses_the_whole_batch) /* 39, 40 */
{
  open_with(holds_first, NULL);
  REFUSED(SAY("good") ",{\"type\":\"user.nonsense\"}", "events[1].type", "unknown event type \"user.nonsense\"");
  REFUSED(SAY("good") ",{\"type\":\"user.message\"}", "events[1].content", "required");
  REFUSED("{\"type\":\"user.message\",\"content\":[]}", "events[0].content", "at least one");
  REFUSED("{\"type\":\"user.message\",\"content\":[{\"type\":\"redacted\"}]}", "events[0].content[0]", "redacted");
  REFUSED("{\"type\":\"user.message\",\"content\":[{\"type\":\"search_result\"}]}", "events[0].content[0]", "not allowed here");
  REFUSED("{\"type\":\"user.message\",\"content\":[{\"type\":\"image\"}]}", "events[0].content[0]", "source.type must be");
  REFUSED("{\"type\":\"agent.message\",\"content\":[]}", "events[0].type", "unknown event type");
  REFUSED("", "events", "at least one");
  LIST("");
  rig_close(&g);
}

TEST(answers_to_nothing_are_refused) /* 43 to 46, 87 */
{
  open_with(holds_first, NULL);
  REFUSED("{\"type\":\"user.tool_confirmation\",\"tool_use_id\":\"sevt_1\",\"result\":\"allow\",\"deny_message\":\"x\"}", "events[0].deny_message", "deny");
  REFUSED("{\"type\":\"user.tool_confirmation\",\"tool_use_id\":\"sevt_1\",\"result\":\"maybe\"}", "events[0].result", "allow");
  REFUSED("{\"type\":\"user.tool_confirmation\",\"tool_use_id\":\"sevt_1\",\"result\":\"allow\"}", "events[0].tool_use_id", "sevt_1");
  REFUSED("{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"sevt_1\"}", "events[0].custom_tool_use_id", "sevt_1");
  REFUSED("{\"type\":\"user.tool_result\",\"tool_use_id\":\"sevt_1\"}", "events[0].type", "self-hosted");
  REFUSED("{\"type\":\"user.interrupt\",\"session_thread_id\":\"sthr_1\"}", "events[0].session_thread_id", "sthr_1");
  rig_close(&g);
}

TEST(system_messages_come_last) /* 47, 48 */
{
  char json[512];
  open_with(custom_call, CUSTOM);
#define SYSTEM "{\"type\":\"system.message\",\"content\":[{\"type\":\"text\",\"text\":\"be brief\"}]}"
  REFUSED(SYSTEM "," SAY("x"), "events[0]", "must be the last");
  rig_ok(&g, mr_sessions_events_send, g.session, NULL, "{\"events\":[" SYSTEM "]}");
  for (int i = 0; i < 100; i++)
    rig_pump(&g);
  LIST("system.message"); /* waits; it starts no turn */
  GET("/data/0/processed_at", "null");
  rig_ok(&g, mr_sessions_events_send, g.session, NULL, "{\"events\":[" SAY("Weather?") "," SYSTEM "]}");
  rig_idles(&g, 1);
  LIST(BEGIN " user.message system.message system.message " ASK " agent.custom_tool_use " END " " IDLE);
  REFUSED(SYSTEM, "events", "waiting on responses to events [");
  snprintf(json, sizeof json, "{\"events\":[{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"%s\"}," SYSTEM "]}",
           id_of("agent.custom_tool_use", 0));
  rig_ok(&g, mr_sessions_events_send, g.session, NULL, json);
  rig_idles(&g, 2);
  CHECK(strstr(rig_types(&g), "user.custom_tool_result " BEGIN " system.message " ASK));
  rig_close(&g);
}

TEST(a_batch_is_checked_against_what_it_does) /* 5.1 */
{
  char json[1024], id[64];
  open_with(custom_call, CUSTOM);
  rig_say(&g, "Weather?");
  rig_idles(&g, 1);
  snprintf(id, sizeof id, "%s", id_of("agent.custom_tool_use", 0));
  snprintf(json, sizeof json, "{\"events\":[" SAY("x") ",{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"%s\"}]}", id);
  rig_refused(&g, mr_sessions_events_send, g.session, NULL, json, MR_E_INVALID, 400, "events", "waiting on responses to events [");
  CHECK(strstr(g.err.message, id)); /* 41 */
  CHECK(strstr(g.err.message, "Invalid user.message event at events[0]"));
  snprintf(json, sizeof json, "{\"events\":[{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"%s\"},"
           "{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"%s\"}]}", id, id);
  rig_refused(&g, mr_sessions_events_send, g.session, NULL, json, MR_E_INVALID, 400, "events[1].custom_tool_use_id", "answered already");
  snprintf(json, sizeof json, "{\"events\":[{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"%s\"}," SAY("and Rome?") "]}", id);
  rig_ok(&g, mr_sessions_events_send, g.session, NULL, json);
  CHECK(strcmp(rig_get(&g, "/data/0/processed_at"), "null") != 0); /* 38 */
  GET("/data/1/processed_at", "null");
  rig_idles(&g, 2);
  rig_close(&g);
}

/* ---- listing ---- */

TEST(lists_have_pages_filters_and_both_orders) /* 6, 111 */
{
  char all[64][48], json[512], at[48];
  int n = 0;
  open_with(says_hello, NULL);
  rig_say(&g, "one");
  rig_idles(&g, 1);
  rig_ok(&g, mr_sessions_events_list, g.session, NULL, NULL);
  for (; n < 64; n++) {
    char ptr[32];
    snprintf(ptr, sizeof ptr, "/data/%d/id", n);
    if (strcmp(rig_get(&g, ptr), "(absent)") == 0)
      break;
    snprintf(all[n], sizeof all[n], "%s", rig_get(&g, ptr));
  }
  CHECK_INT(n, 9);
  GET("/data/4/type", "agent.message");
  snprintf(at, sizeof at, "%s", rig_get(&g, "/data/4/processed_at"));
  for (int desc = 0; desc < 2; desc++) {
    int k = 0;
    snprintf(json, sizeof json, "{\"limit\":2,\"order\":\"%s\"}", desc ? "desc" : "asc");
    for (int page = 0; page < 9; page++) {
      rig_ok(&g, mr_sessions_events_list, g.session, NULL, json);
      for (int i = 0; i < 2; i++) {
        char ptr[32];
        snprintf(ptr, sizeof ptr, "/data/%d/id", i);
        if (strcmp(rig_get(&g, ptr), "(absent)") == 0)
          continue;
        CHECK(k < n);
        CHECK_STR(mr_str_c(rig_get(&g, ptr)), all[desc ? n - 1 - k : k]);
        k++;
      }
      if (strcmp(rig_get(&g, "/next_page"), "null") == 0)
        break;
      snprintf(json, sizeof json, "{\"limit\":2,\"order\":\"%s\",\"page\":\"%s\"}", desc ? "desc" : "asc", rig_get(&g, "/next_page"));
    }
    CHECK_INT(k, n);
  }
  rig_ok(&g, mr_sessions_events_list, g.session, NULL, "{\"types\":[\"agent.message\",\"user.message\"]}");
  GET("/data/0/type", "user.message");
  GET("/data/1/type", "agent.message");
  GET("/data/2", "(absent)");
  snprintf(json, sizeof json, "{\"created_at\":{\"gt\":\"%s\"}}", at);
  rig_ok(&g, mr_sessions_events_list, g.session, NULL, json);
  GET("/data/0/type", "span.model_request_end");
  snprintf(json, sizeof json, "{\"created_at\":{\"gte\":\"%s\",\"lte\":\"%s\"}}", at, at);
  rig_ok(&g, mr_sessions_events_list, g.session, NULL, json);
  GET("/data/0/type", "agent.message");
  GET("/data/1", "(absent)");
  rig_refused(&g, mr_sessions_events_list, g.session, NULL, "{\"limit\":1001}", MR_E_INVALID, 400, "limit", "1 and 1000");
  rig_refused(&g, mr_sessions_events_list, g.session, NULL, "{\"created_at\":{\"lt\":\"x\"}}", MR_E_INVALID, 400, "created_at", "created_at[lt]");
  rig_close(&g);
}

TEST(waiting_inputs_are_listed_once_and_last)
{
  open_with(holds_first, NULL);
  rig_say(&g, "one");
  while (!g.held)
    rig_pump(&g);
  rig_say(&g, "two");
  rig_say(&g, "three");
  LIST(BEGIN " user.message " ASK " user.message user.message");
  GET("/data/4/content/0/text", "two");
  GET("/data/5/processed_at", "null");
  rig_ok(&g, mr_sessions_events_list, g.session, NULL, "{\"order\":\"desc\",\"limit\":1000}");
  GET("/data/0/content/0/text", "three");
  GET("/data/1/content/0/text", "two");
  GET("/data/2/type", "span.model_request_start");
  rig_ok(&g, mr_sessions_events_list, g.session, NULL, "{\"types\":[\"user.interrupt\"]}");
  GET("/data/0", "(absent)");
  rig_ok(&g, mr_sessions_events_list, g.session, NULL, "{\"created_at\":{\"gte\":\"2001-01-01T00:00:00Z\"}}");
  GET("/data/4", "(absent)"); /* filters are on processed_at */
  rig_close(&g);
}
