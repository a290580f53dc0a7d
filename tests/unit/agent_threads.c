/* Sessions with several threads: what their log says is what they are, and nothing that was accepted is forgotten
 * over the moments when two things meet. The kills are in tests/crash. */
#include "agent_kit.h"
#include "agent/outcome.h"

static const char config_json[] =
    "{\"retries\":{\"base_ms\":20,\"cap_ms\":20,\"max\":2},\"context\":{\"compact_at_tokens\":100},"
    "\"prices\":{\"date\":\"2026-11-28\",\"hour_usd\":0,\"models\":{\"m\":{\"input\":1000,\"output\":0}}}}";

/* ---- a coordinator of one kind of worker, and an advisor ---- */

static void coordinate(struct rig *g, const char *more)
{
  static const char tools[] = "[{\"type\":\"custom\",\"name\":\"ask_human\",\"description\":\"d\",\"input_schema\":{\"type\":"
                              "\"object\"}},{\"type\":\"agent_toolset_20260401\",\"default_config\":{\"permission_policy\":"
                              "{\"type\":\"always_ask\"}}}]";
  char json[2048], worker[64];
  yyjson_doc *config = yyjson_read(config_json, strlen(config_json), 0);

  g->opts.config = yyjson_doc_get_root(config);
  rig_open(g, test_dir());
  yyjson_doc_free(config);
  rig_session(g, tools);
  memcpy(worker, g->agent, sizeof worker);
  snprintf(json, sizeof json, "{\"name\":\"boss\",\"model\":\"m\",\"tools\":%s,\"multiagent\":{\"type\":\"coordinator\","
           "\"agents\":[\"%s\",{\"type\":\"advisor\",\"model\":\"m\"}]}}", tools, worker);
  rig_ok(g, mr_agents_create, NULL, NULL, json);
  snprintf(g->agent, sizeof g->agent, "%s", rig_get(g, "/id"));
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"%s}", g->agent, g->env, more);
  rig_ok(g, mr_sessions_create, NULL, NULL, json);
  snprintf(g->session, sizeof g->session, "%s", rig_get(g, "/id"));
}

/* Closes and opens again. */
static void again(struct rig *g)
{
  struct rig old = *g;
  yyjson_doc *config = yyjson_read(config_json, strlen(config_json), 0);

  rig_close(g);
  *g = (struct rig){.model = old.model, .sees = old.sees, .input = old.input, .opts = old.opts};
  memcpy(g->session, old.session, sizeof g->session);
  g->opts.config = yyjson_doc_get_root(config);
  rig_open(g, test_dir());
  yyjson_doc_free(config);
}

static struct mr_session *loaded(struct rig *g)
{
  int64_t ws = 0;
  CHECK_INT(mr_store_workspace(g->store, MR_S("default"), &ws, NULL), MR_OK);
  return mr_session_loaded(g->d, ws, mr_str_c(g->session));
}

static bool has(struct mr_str s, const char *text)
{
  return s.n && memmem(s.p, s.n, text, strlen(text)) != NULL;
}

/* The id of the n-th event of a type, in the primary's list. */
static const char *event_id(struct rig *g, const char *type, int n)
{
  char json[128], ptr[64];
  snprintf(json, sizeof json, "{\"types\":[\"%s\"]}", type);
  snprintf(ptr, sizeof ptr, "/data/%d/id", n);
  rig_ok(g, mr_sessions_events_list, g->session, NULL, json);
  return rig_get(g, ptr);
}

static void send(struct rig *g, const char *fmt, const char *id)
{
  char events[2048], json[2100];
  snprintf(events, sizeof events, fmt, id);
  snprintf(json, sizeof json, "{\"events\":[%s]}", events);
  rig_ok(g, mr_sessions_events_send, g->session, NULL, json);
}

#define ALLOW "{\"type\":\"user.tool_confirmation\",\"tool_use_id\":\"%s\",\"result\":\"allow\"}"
#define INTERRUPT "{\"type\":\"user.interrupt\"}"
#define OUTCOME "{\"type\":\"user.define_outcome\",\"description\":\"Do it.\",\"rubric\":{\"type\":\"text\",\"content\":\"done\"}%s}"
#define SAY(t) "[{\"type\":\"text\",\"text\":\"" t "\"}]"
#define CALL(id, name, input) "{\"type\":\"tool_use\",\"id\":\"" id "\",\"name\":\"" name "\",\"input\":" input "}"

/* ---- the state of a session as text ---- */

static void show_call(struct mr_buf *b, const struct mr_tcall *c)
{
  mr_buf_printf(b, "  call %s " MR_FMT " " MR_FMT " " MR_FMT " kind %d perm %d confirmed %d owned %d idem %d attempt %d resolved %d",
                c->event_id, MR_ARG(c->provider_id), MR_ARG(c->name), MR_ARG(c->input), c->kind, c->perm, c->confirmed,
                c->owned, c->idempotent, c->attempt, c->resolved);
  mr_buf_printf(b, " finished %d error %d " MR_FMT "\n", c->finished, c->is_error, MR_ARG(c->result));
}

static void show_thread(struct mr_buf *b, const struct mr_thread *th)
{
  mr_buf_printf(b, "thread %s of %s: " MR_FMT " " MR_FMT " " MR_FMT " created %lld archived %lld\n", th->id, th->parent,
                MR_ARG(th->agent_id), MR_ARG(th->agent_name), MR_ARG(th->model), (long long)th->created_us,
                (long long)th->archived_us);
  mr_buf_printf(b, "  %s stop %d blocked_n %d details " MR_FMT "\n", mr_status_name(th->status), th->stop,
                th->status == MR_IDLE ? th->blocked_n : 0, MR_ARG(th->stop_details));
  mr_buf_printf(b, "  usage %lld %lld cost %lld since %lld active %lld span %s\n", (long long)th->usage.input,
                (long long)th->usage.output, (long long)th->cost, (long long)th->running_since_us,
                (long long)th->active_us, th->span_id);
  mr_buf_printf(b, "  wants %d rounds %d retries %d due %lld wait %lld mail %d context %lld compactions %d\n",
                th->wants_model, th->rounds, th->retries, (long long)th->due_us, (long long)th->wait_us, th->nmail,
                (long long)th->context_tokens, th->compactions);
  for (int i = 0; i < th->ncalls; i++)
    show_call(b, th->calls[i]);
  for (int i = 0; i < th->nhistory; i++)
    mr_buf_printf(b, "  history " MR_FMT "\n", MR_ARG(th->history[i]));
}

static void show(struct mr_buf *b, const struct mr_session *s)
{
  struct mr_jw w;

  mr_buf_init(b, &test_sys()->mem, 1 << 24);
  mr_buf_printf(b, "%s stop %d last %lld usage %lld %lld cost %lld since %lld active %lld\noutcomes ", mr_status_name(s->status),
                s->stop, (long long)s->last_us, (long long)s->usage.input, (long long)s->usage.output, (long long)s->cost,
                (long long)s->running_since_us, (long long)s->active_us);
  mr_jw_init(&w, b);
  mr_outcomes_write(&w, s->outcomes);
  mr_buf_char(b, '\n');
  for (const struct mr_thread *th = &s->main; th; th = th->next)
    show_thread(b, th);
}

/* Nothing is decided in memory alone: no commit is under way, no tool ended whose result is not recorded yet. */
static bool comparable(const struct mr_session *s)
{
  if (s->seq != s->done_seq) return false;
  for (const struct mr_thread *th = &s->main; th; th = th->next)
    for (int i = 0; i < th->ncalls; i++)
      if (th->calls[i]->finished && !th->calls[i]->resolved) return false;
  return true;
}

struct replay { struct mr_session *s; int64_t after, until; bool over; int rows; };

static void on_rows(void *ud, const struct mr_rows *r)
{
  struct replay *p = ud;

  CHECK_INT(r->code, MR_OK);
  for (int i = 0; i < r->n; i++) {
    p->after = r->log[i].pos;
    if (r->log[i].processed_us > p->until) continue; /* committed since */
    CHECK_INT(mr_state_apply(p->s, &r->log[i]), MR_OK);
    p->rows++;
  }
  p->over = !r->more;
}

/* The session as a start would make it of its rows. */
static void replayed(struct rig *g, const struct mr_session *live, int64_t until, struct mr_buf *out)
{
  struct mr_session *s = mr_mem_zalloc(&test_sys()->mem, sizeof *s);
  struct replay p = {.s = s, .until = until};
  struct mr_err err;

  s->d = g->d;
  s->ws = live->ws;
  s->mem = mr_arena_new(&test_sys()->mem, 4096);
  memcpy(s->id, live->id, sizeof s->id);
  memcpy(s->main.id, live->main.id, sizeof s->main.id);
  s->agent_json = mr_session_copy(s, live->agent_json);
  s->doc_json = mr_session_copy(s, live->doc_json);
  s->inbox_tail = &s->inbox;
  mr_thread_init(s, &s->main);
  CHECK_INT(mr_session_parse_docs(s, &err), MR_OK);
  while (!p.over) {
    struct mr_log_query q = {.session_id = mr_str_c(s->id), .with_private = true, .all_threads = true, .after_pos = p.after, .limit = 7};
    int64_t before = p.after;
    mr_read_log(g->store, s->ws, &q, on_rows, &p);
    while (!p.over && p.after == before)
      mr_loop_pump(g->loop, 0);
  }
  show(out, s);
  for (struct mr_thread *th = &s->main; th; th = th->next)
    mr_thread_free(th);
  mr_seen_free(s);
  yyjson_doc_free(s->agent_doc);
  yyjson_doc_free(s->doc);
  mr_arena_free(&s->mem);
  mr_mem_free(&test_sys()->mem, s);
}

static int compared;

static void compare(struct rig *g)
{
  struct mr_session *s = loaded(g);
  struct mr_buf live, rows;

  if (!s || !comparable(s)) return;
  show(&live, s);
  replayed(g, s, s->last_us, &rows);
  if (live.n != rows.n || memcmp(live.p, rows.p, live.n) != 0)
    test_fail(__FILE__, __LINE__, "live:\n%.*s\nreplayed:\n%.*s", (int)live.n, live.p, (int)rows.n, rows.p);
  compared++;
  mr_buf_free(&live);
  mr_buf_free(&rows);
}

/* Goes on, comparing at every turn of the loop, until the session is idle for this reason. */
static void compare_until(struct rig *g, const char *reason)
{
  char json[4096];
  for (int i = 0; i < 3000; i++) {
    rig_pump(g);
    compare(g);
    rig_ok(g, mr_sessions_retrieve, g->session, NULL, NULL);
    compare(g);
    if (strcmp(rig_get(g, "/status"), "idle") != 0) continue;
    rig_ok(g, mr_sessions_events_list, g->session, NULL, "{\"types\":[\"session.status_idle\"],\"order\":\"desc\",\"limit\":1}");
    snprintf(json, sizeof json, "%s", rig_get(g, "/data/0/stop_reason/type"));
    if (strcmp(json, reason) != 0) continue;
    while (!loaded(g) || !comparable(loaded(g)))
      rig_pump(g);
    compare(g);
    return;
  }
  test_fail(__FILE__, __LINE__, "never idle for %s: ..%s", reason, rig_types(g) + (strlen(rig_types(g)) > 400 ? strlen(rig_types(g)) - 400 : 0));
}

/* What the busy session's agents say: told by what they are asked. */
static const char *busy(struct rig *g, struct mr_str last, int k)
{
  static int failed;

  (void)k;
  g->input = 10;
  if (has(last, "<rubric>"))
    return has(last, "This is evaluation 1") ? "[" CALL("g1", "submit_verdict", "{\"result\":\"needs_revision\",\"explanation\":\"more\"}") "]"
                                     : "[" CALL("g2", "submit_verdict", "{\"result\":\"satisfied\",\"explanation\":\"fine\"}") "]";
  if (has(last, "begin"))
    return "[{\"type\":\"text\",\"text\":\"Well.\"}," CALL("t1", "create_agent", "{\"agent\":\"assistant\",\"prompt\":\"write it\"}") ","
           CALL("t2", "create_agent", "{\"agent\":\"assistant\",\"prompt\":\"flaky\"}") ","
           CALL("t3", "ask_advisor", "{\"question\":\"advice?\"}") "," CALL("t4", "list_agents", "{}") ","
           CALL("t5", "ask_human", "{\"q\":1}") "," CALL("t6", "no_such", "{}") "]";
  if (has(last, "write it")) {
    g->input = 200; /* its next request is one for a summary */
    return "[" CALL("w1", "write", "{\"file_path\":\"a\",\"content\":\"b\"}") "," CALL("w2", "write", "{\"file_path\":\"c\",\"content\":\"d\"}") "]";
  }
  if (has(last, "conversation is about to be shortened")) return SAY("Summary: nothing was written.");
  if (has(last, "flaky")) return failed++ < 2 ? "!overloaded" : SAY("flaky report");
  if (has(last, "advice?")) return SAY("be careful");
  return SAY("so it is");
}

TEST(the_log_says_what_a_busy_session_is)
{
  struct rig g = {.model = busy};
  char first[64], second[64];

  coordinate(&g, ",\"budget\":{\"type\":\"limit\",\"max_list_cost\":{\"amount\":\"10\",\"currency\":\"USD\"}}");
  rig_say(&g, "begin");
  compare_until(&g, "requires_action");
  send(&g, "{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"%s\"}", event_id(&g, "agent.custom_tool_use", 0));
  compare_until(&g, "requires_action");
  snprintf(first, sizeof first, "%s", event_id(&g, "agent.tool_use", 1)); /* 0 is no_such */
  snprintf(second, sizeof second, "%s", event_id(&g, "agent.tool_use", 2));
  send(&g, ALLOW, first);
  compare_until(&g, "requires_action");
  send(&g, "{\"type\":\"user.tool_confirmation\",\"tool_use_id\":\"%s\",\"result\":\"deny\"}", second);
  compare_until(&g, "budget_reached");
  rig_ok(&g, mr_sessions_update, g.session, NULL, "{\"budget\":null}");
  compare_until(&g, "end_turn");
  send(&g, OUTCOME, "");
  compare_until(&g, "end_turn");
  rig_say(&g, "begin again");
  compare_until(&g, "requires_action");
  send(&g, INTERRUPT, "");
  compare_until(&g, "end_turn");
  CHECK(compared >= 8);
  again(&g);
  rig_say(&g, "still there?");
  compare_until(&g, "end_turn");
  rig_close(&g);
}

/* ---- what two things do to each other ---- */

static const char *works(struct rig *g, struct mr_str last, int k)
{
  (void)k;
  if (has(last, "<rubric>")) return "[" CALL("g1", "submit_verdict", "{\"result\":\"satisfied\",\"explanation\":\"fine\"}") "]";
  if (has(last, "start one")) return "[" CALL("t1", "create_agent", "{\"agent\":\"assistant\",\"prompt\":\"wait\"}") "]";
  if (has(last, "ask me")) return "[" CALL("t1", "write", "{\"file_path\":\"a\",\"content\":\"b\"}") "]";
  if (has(last, "spend")) {
    g->input = 200;
    return "[" CALL("t1", "no_such", "{}") "]";
  }
  g->input = 10;
  return has(last, "wait") || has(last, "hold") ? NULL : SAY("so it is");
}

static void tell(struct rig *g, const char *answer)
{
  CHECK(g->held);
  g->held->content = strdup(answer);
  mr_ready_post(g->loop, &g->held->ready);
}

static void until_held(struct rig *g)
{
  for (int i = 0; i < 3000 && !g->held; i++)
    rig_pump(g);
  CHECK(g->held);
}

static int count(struct rig *g, const char *type)
{
  int n = 0;
  for (const char *p = rig_types(g); (p = strstr(p, type)); p++)
    n++;
  return n;
}

/* What waits is in the list without a time. */
static void nothing_waits(struct rig *g)
{
  for (int i = 0; i < 300; i++) {
    rig_ok(g, mr_sessions_events_list, g->session, NULL, NULL);
    if (!strstr(g->last, "\"processed_at\":null")) return;
    rig_pump(g);
  }
  test_fail(__FILE__, __LINE__, "an event was never processed: ..%s", rig_types(g) + (strlen(rig_types(g)) > 300 ? strlen(rig_types(g)) - 300 : 0));
}

static struct rig *failing;

/* Its request fails for good in the same turn of the loop in which the events are stored. */
static void send_and_fail(struct mr_call *c)
{
  mr_sessions_events_send(c);
  tell(failing, "!refused");
}

TEST(an_interrupt_of_a_thread_that_just_ended_is_processed)
{
  struct rig g = {.model = works};
  char json[256];

  failing = &g;
  coordinate(&g, "");
  rig_say(&g, "start one");
  until_held(&g);
  while (loaded(&g)->main.status == MR_RUNNING)
    rig_pump(&g);
  snprintf(json, sizeof json, "{\"events\":[{\"type\":\"user.interrupt\",\"session_thread_id\":\"%s\"}]}",
           loaded(&g)->main.next->id);
  rig_ok(&g, send_and_fail, g.session, NULL, json);
  rig_until(&g, "idle");
  CHECK_INT(count(&g, " thread_status_terminated"), 1);
  nothing_waits(&g);
  rig_close(&g);
}

TEST(an_outcome_accepted_before_a_stop_is_worked_on_after_it)
{
  struct rig g = {.model = works};

  coordinate(&g, "");
  rig_say(&g, "hello");
  rig_idles(&g, 1);
  mr_domain_drain(g.d, NULL, NULL);
  send(&g, OUTCOME, "");
  again(&g);
  rig_idles(&g, 2);
  CHECK(strstr(rig_types(&g), "outcome_evaluation_end thread_status_idle"));
  rig_close(&g);
}

TEST(an_outcome_with_a_long_description_does_not_cost_the_session)
{
  enum { LONG = 2 << 20 };
  struct rig g = {.model = works};
  static const char begin[] = "{\"events\":[{\"type\":\"user.define_outcome\",\"description\":\"";
  char *json = malloc(LONG + 256);

  coordinate(&g, "");
  memset(json, 'x', LONG);
  snprintf(json + LONG, 256, "\",\"rubric\":{\"type\":\"text\",\"content\":\"done\"}}]}");
  memcpy(json, begin, sizeof begin - 1);
  rig_ok(&g, mr_sessions_events_send, g.session, NULL, json);
  while (loaded(&g)->status == MR_RUNNING)
    rig_pump(&g);
  CHECK_INT(loaded(&g)->outcomes->result, MR_RESULT_SATISFIED);
  again(&g);
  rig_ok(&g, mr_sessions_retrieve, g.session, NULL, NULL);
  CHECK(has(mr_str_c(g.last), "outcome_evaluations\":[{"));
  send(&g, "{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"hello\"}]}", "");
  free(json);
  rig_close(&g);
}

static bool grader_saw;

/* Its last words are longer than a transcript may be. */
static const char *talks(struct rig *g, struct mr_str last, int k)
{
  static char text[400100];

  (void)g;
  (void)k;
  if (has(last, "<rubric>")) {
    grader_saw = has(last, "assistant: xxxx") && last.n < 300000;
    return "[" CALL("g1", "submit_verdict", "{\"result\":\"satisfied\",\"explanation\":\"fine\"}") "]";
  }
  snprintf(text, sizeof text, "[{\"type\":\"text\",\"text\":\"");
  memset(text + strlen(text), 'x', 400000);
  strcpy(text + 400024, "\"}]");
  return text;
}

static void achieve(struct rig *g)
{
  send(g, OUTCOME, "");
  while (loaded(g)->status == MR_RUNNING)
    rig_pump(g);
  CHECK_INT(loaded(g)->outcomes->result, MR_RESULT_SATISFIED);
}

TEST(a_grader_sees_the_last_words_however_long_they_are)
{
  struct rig g = {.model = talks};

  coordinate(&g, "");
  achieve(&g);
  CHECK(grader_saw);
  rig_close(&g);
}

TEST(a_grader_costs_what_it_is_asked_at)
{
  struct rig g = {.model = works};
  char json[512];

  coordinate(&g, "");
  rig_ok(&g, mr_agents_create, NULL, NULL, "{\"name\":\"fast\",\"model\":{\"id\":\"m\",\"speed\":\"fast\"}}");
  snprintf(g.agent, sizeof g.agent, "%s", rig_get(&g, "/id"));
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", g.agent, g.env);
  rig_ok(&g, mr_sessions_create, NULL, NULL, json);
  snprintf(g.session, sizeof g.session, "%s", rig_get(&g, "/id"));
  achieve(&g);
  CHECK_INT(loaded(&g)->cost, INT64_C(1000000000)); /* 10 tokens of the one model that has a price */
  rig_close(&g);
}

TEST(a_budget_raised_before_a_stop_goes_on_after_it)
{
  struct rig g = {.model = works};

  coordinate(&g, ",\"budget\":{\"type\":\"limit\",\"max_list_cost\":{\"amount\":\"10\",\"currency\":\"USD\"}}");
  rig_say(&g, "spend");
  rig_idles(&g, 1);
  mr_domain_drain(g.d, NULL, NULL);
  rig_ok(&g, mr_sessions_update, g.session, NULL, "{\"budget\":null}");
  again(&g);
  rig_idles(&g, 2);
  CHECK(strstr(rig_types(&g), "updated status_running thread_status_running model_request_start"));
  rig_close(&g);
}

TEST(an_answer_that_comes_with_an_interrupt_does_not_wait_for_ever)
{
  struct rig g = {.model = works};

  coordinate(&g, "");
  rig_say(&g, "ask me");
  rig_idles(&g, 1);
  mr_domain_drain(g.d, NULL, NULL);
  send(&g, ALLOW "," INTERRUPT, event_id(&g, "agent.tool_use", 0));
  again(&g);
  nothing_waits(&g);
  rig_until(&g, "idle");
  CHECK_INT(count(&g, " user.tool_confirmation"), 1);
  CHECK_INT(count(&g, " model_request_start"), 1);
  rig_close(&g);
}

TEST(an_outcome_that_waited_for_an_interrupted_child_is_graded)
{
  struct rig g = {.model = works};

  coordinate(&g, "");
  rig_say(&g, "start one");
  until_held(&g);
  send(&g, OUTCOME, "");
  while (loaded(&g)->main.status == MR_RUNNING)
    rig_pump(&g);
  send(&g, "{\"type\":\"user.interrupt\",\"session_thread_id\":\"%s\"}", loaded(&g)->main.next->id);
  rig_idles(&g, 1);
  rig_ok(&g, mr_sessions_retrieve, g.session, NULL, NULL);
  CHECK_STR(mr_str_c(rig_get(&g, "/outcome_evaluations/0/result")), "satisfied");
  send(&g, OUTCOME, "");
  rig_idles(&g, 2);
  rig_close(&g);
}

/* Each turn: a summary, then a reply that says nothing and leaves the history as long as it was. The child's report
 * comes while the third summary is written. */
static const char *grows(struct rig *g, struct mr_str last, int k)
{
  static int summaries;

  (void)k;
  g->input = 200;
  if (has(last, "start one")) return "[" CALL("t1", "create_agent", "{\"agent\":\"assistant\",\"prompt\":\"wait\"}") "]";
  if (has(last, "conversation is about to be shortened")) {
    if (++summaries == 3) tell(g, SAY("the report"));
    return SAY("summary");
  }
  if (has(last, "wait")) return NULL;
  return has(last, "now") ? SAY("well") : "[]";
}

TEST(a_history_that_cannot_be_shortened_ends_the_turn_and_no_more)
{
  struct rig g = {.model = grows};

  coordinate(&g, "");
  rig_say(&g, "start one");
  until_held(&g);
  for (int i = 0; i < 2; i++) {
    while (!loaded(&g) || loaded(&g)->main.status == MR_RUNNING)
      rig_pump(&g);
    rig_say(&g, "on");
    nothing_waits(&g);
  }
  rig_until(&g, "idle");
  for (int i = 0; i < 100; i++)
    rig_pump(&g);
  CHECK_INT(count(&g, " error"), 1);
  rig_say(&g, "now");
  nothing_waits(&g);
  rig_until(&g, "idle");
  CHECK_INT(count(&g, " error"), 1);
  rig_close(&g);
}

/* ---- streams of children ---- */

struct seen { struct made m; int events; };

static void seen_opened(struct mr_call *c)
{
  (void)c;
}

static int seen_event(struct mr_call *c, struct mr_str name, int64_t pos, struct mr_str json)
{
  (void)name, (void)pos, (void)json;
  ((struct seen *)(void *)MR_OF(c, struct made, c))->events++;
  return MR_OK;
}

static void watch_thread(struct rig *g, struct seen *w, const char *thread, const char *json)
{
  *w = (struct seen){.m.g = g};
  w->m.c.d = g->d;
  w->m.c.mem = &test_sys()->mem;
  w->m.c.arena = mr_arena_new(w->m.c.mem, 1024);
  w->m.c.path[0] = mr_str_c(g->session);
  w->m.c.path[1] = mr_str_c(thread);
  w->m.c.done = made_done;
  w->m.c.opened = seen_opened;
  w->m.c.event = seen_event;
  CHECK_INT(mr_store_workspace(g->store, MR_S("default"), &w->m.c.who.workspace, NULL), MR_OK);
  CHECK_INT(mr_json_parse(w->m.c.mem, mr_str_c(json), 1000, &w->m.in, NULL), MR_OK);
  w->m.c.in = yyjson_doc_get_root(w->m.in);
  mr_sessions_threads_stream(&w->m.c);
}

static void seen_free(struct seen *w)
{
  yyjson_doc_free(w->m.in);
  mr_arena_free(&w->m.c.arena);
}

static void watch_over(struct rig *g, struct seen *w)
{
  for (int i = 0; i < 3000 && !w->m.over; i++)
    rig_pump(g);
  CHECK(w->m.over);
  CHECK_INT(w->m.c.code, MR_OK);
  seen_free(w);
}

TEST(streams_of_threads_end_with_their_session)
{
  struct rig g = {.model = works};
  struct seen live, late;
  char child[64];

  coordinate(&g, "");
  rig_say(&g, "start one");
  until_held(&g);
  snprintf(child, sizeof child, "%s", loaded(&g)->main.next->id);
  watch_thread(&g, &live, child, "{}");
  send(&g, INTERRUPT, "");
  rig_until(&g, "idle");
  watch_thread(&g, &late, child, "{\"after\":1}"); /* it is still reading what was */
  rig_ok(&g, mr_sessions_archive, g.session, NULL, NULL);
  watch_over(&g, &live);
  CHECK(live.events > 0);
  watch_over(&g, &late);
  rig_ok(&g, mr_sessions_threads_retrieve, g.session, child, NULL);
  CHECK_STR(mr_str_c(rig_get(&g, "/status")), "terminated");
  CHECK(strcmp(rig_get(&g, "/archived_at"), "null") != 0);
  rig_close(&g);
}

TEST(who_comes_while_a_session_is_dropped_gets_the_one_that_is_loaded_again)
{
  struct rig g = {.model = works};
  struct seen w;
  struct mr_err err;

  coordinate(&g, "");
  rig_say(&g, "hello");
  rig_idles(&g, 1);
  watch_thread(&g, &w, "", "{}"); /* it is given the session in the next turn of the loop */
  mr_err_set(&err, MR_E_IO, NULL, "the test's commit failed");
  mr_session_poison(loaded(&g), &err);
  rig_say(&g, "hello again");
  rig_idles(&g, 2);
  CHECK(w.events > 5);
  rig_ok(&g, mr_sessions_archive, g.session, NULL, NULL);
  watch_over(&g, &w);
  rig_close(&g);
}

static struct seen *leaving, *coming;
static char primary[64];

/* The one that reads what was is left, and another comes in its place before it has it. */
static void then_leave(struct mr_call *c)
{
  struct rig *g = MR_OF(c, struct made, c)->g;
  struct mr_store_stats st;
  char after[64];

  made_done(c);
  leaving->m.c.cancel(&leaving->m.c);
  mr_store_stats(g->store, &st);
  snprintf(after, sizeof after, "{\"after\":%lld}", (long long)st.pos); /* nothing of what was */
  watch_thread(g, coming, primary, after);
}

TEST(a_stream_gets_nothing_that_was_read_for_another)
{
  struct rig g = {.model = works};
  struct seen first, look, second;

  coordinate(&g, "");
  rig_say(&g, "hello");
  rig_idles(&g, 1);
  snprintf(primary, sizeof primary, "%s", loaded(&g)->main.id);
  leaving = &first;
  coming = &second;
  watch_thread(&g, &first, primary, "{\"after\":1}");
  look = first;
  look.m.c.arena = mr_arena_new(&test_sys()->mem, 1024);
  mr_buf_init(&look.m.c.out, &test_sys()->mem, 1 << 20);
  look.m.c.done = then_leave;
  mr_sessions_threads_retrieve(&look.m.c);
  for (int i = 0; i < 100; i++)
    rig_pump(&g);
  CHECK(first.m.over && look.m.over);
  CHECK_INT(second.events, 0);
  second.m.c.cancel(&second.m.c);
  for (int i = 0; i < 3000 && !second.m.over; i++)
    rig_pump(&g);
  CHECK(second.m.over);
  seen_free(&first);
  seen_free(&second);
  mr_buf_free(&look.m.c.out);
  mr_arena_free(&look.m.c.arena);
  rig_close(&g);
}

static const char *overloaded(struct rig *g, struct mr_str last, int k)
{
  (void)g, (void)last;
  return k == 0 ? "!overloaded" : SAY("so it is");
}

/* A timer is the one place where nobody holds the session; here no memory is left for what it decides. */
TEST(a_session_whose_timer_finds_no_memory_is_loaded_again)
{
  struct rig g = {.model = overloaded};
  struct mr_domain_stats stats;
  struct mr_session *s;

  coordinate(&g, "");
  rig_say(&g, "hello");
  while (!loaded(&g) || loaded(&g)->status != MR_RESCHEDULING || loaded(&g)->refs || !mr_timer_pending(&loaded(&g)->main.retry))
    rig_pump(&g);
  s = loaded(&g);
  mr_timer_cancel(g.loop, &s->main.retry);
  test_fail_after(1);
  mr_turn_retry(&s->main.retry);
  test_fail_after(-1);
  mr_domain_stats(g.d, &stats);
  CHECK_INT(stats.sessions_loaded, 0);
  rig_idles(&g, 1);
  CHECK_INT(count(&g, " agent.message"), 1);
  rig_close(&g);
}

static const char *describes(struct rig *g, struct mr_str last, int k)
{
  (void)g;
  if (has(last, "no list price")) return SAY("too bad");
  return k == 0 ? "[" CALL("t1", "create_agent", "{\"name\":\"helper\",\"prompt\":\"work\",\"model\":\"unknown-price\"}") "]" : SAY("so it is");
}

TEST(an_agent_whose_model_has_no_price_is_not_started_under_a_budget)
{
  struct rig g = {.model = describes};
  char json[1024];

  coordinate(&g, "");
  rig_ok(&g, mr_agents_create, NULL, NULL, "{\"name\":\"planner\",\"model\":\"m\",\"multiagent\":{\"type\":\"multiagent_20261001\"}}");
  snprintf(g.agent, sizeof g.agent, "%s", rig_get(&g, "/id"));
  for (int budget = 0; budget < 2; budget++) {
    snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"%s}", g.agent, g.env,
             budget ? ",\"budget\":{\"type\":\"limit\",\"max_list_cost\":{\"amount\":\"100\",\"currency\":\"USD\"}}" : "");
    rig_ok(&g, mr_sessions_create, NULL, NULL, json);
    snprintf(g.session, sizeof g.session, "%s", rig_get(&g, "/id"));
    g.asked = 0;
    rig_say(&g, "go");
    rig_idles(&g, 1);
    CHECK_INT(count(&g, " thread_created"), !budget);
  }
  rig_close(&g);
}

/* More agents than may be open, in one reply; each one's request is under way when the session is interrupted. */
static const char *crowd(struct rig *g, struct mr_str last, int k)
{
  static char reply[8192];
  size_t n = 1;

  (void)g, (void)k;
  if (has(last, "\"tool_result\"") || !has(last, "start")) return has(last, "wait") ? NULL : SAY("so it is");
  strcpy(reply, "[");
  for (int i = 0; i < (has(last, "start one") ? 1 : 40); i++)
    n += (size_t)snprintf(reply + n, sizeof reply - n, "%s" CALL("t%d", "create_agent", "{\"agent\":\"assistant\",\"prompt\":\"wait\"}"),
                          i ? "," : "", i);
  snprintf(reply + n, sizeof reply - n, "]");
  return reply;
}

static int create_tools;

static void count_tools(struct rig *g, const struct mr_model_req *q)
{
  const char *p = q->tools.p, *end = p + q->tools.n;

  (void)g;
  for (create_tools = 0; p && (p = memmem(p, (size_t)(end - p), "\"name\":\"create_agent\"", 21)); p++)
    create_tools++;
}

TEST(an_agents_own_tool_comes_before_a_coordinators)
{
  struct rig g = {.model = works, .sees = count_tools};
  char json[1024];

  coordinate(&g, "");
  snprintf(json, sizeof json, "{\"name\":\"boss 2\",\"model\":\"m\",\"tools\":[{\"type\":\"custom\",\"name\":\"create_agent\","
           "\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}],\"multiagent\":{\"type\":\"coordinator\","
           "\"agents\":[{\"type\":\"self\"}]}}");
  rig_ok(&g, mr_agents_create, NULL, NULL, json);
  snprintf(g.agent, sizeof g.agent, "%s", rig_get(&g, "/id"));
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", g.agent, g.env);
  rig_ok(&g, mr_sessions_create, NULL, NULL, json);
  snprintf(g.session, sizeof g.session, "%s", rig_get(&g, "/id"));
  rig_say(&g, "start one");
  rig_idles(&g, 1);
  CHECK_INT(create_tools, 1);
  CHECK(strstr(rig_types(&g), "agent.custom_tool_use"));
  rig_close(&g);
}

TEST(more_agents_than_may_be_open)
{
  struct rig g = {.model = crowd};
  struct mr_domain_stats stats;
  char child[64];

  coordinate(&g, "");
  rig_say(&g, "start many");
  do {
    rig_pump(&g);
    mr_domain_stats(g.d, &stats);
  } while (stats.model_running < 25 || loaded(&g)->main.status == MR_RUNNING);
  CHECK_INT(stats.model_running, 25);
  send(&g, INTERRUPT, "");
  compare_until(&g, "end_turn");
  CHECK_INT(count(&g, " thread_created"), 25);
  snprintf(child, sizeof child, "%s", loaded(&g)->main.next->id);
  rig_say(&g, "start one"); /* idle ones count */
  compare_until(&g, "end_turn");
  CHECK_INT(count(&g, " thread_created"), 25);
  rig_ok(&g, mr_sessions_threads_archive, g.session, child, NULL);
  rig_say(&g, "start one");
  while (count(&g, " thread_created") < 26)
    rig_pump(&g);
  send(&g, INTERRUPT, "");
  compare_until(&g, "end_turn");
  again(&g); /* and all of it from the log */
  rig_say(&g, "hello");
  compare_until(&g, "end_turn");
  rig_ok(&g, mr_sessions_delete, g.session, NULL, NULL);
  CHECK_INT(rig_call(&g, mr_sessions_retrieve, g.session, NULL, NULL), MR_E_NOTFOUND);
  rig_close(&g);
}
