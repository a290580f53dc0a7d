/* The phases of a turn and what hooks may do at each: observe, change, refuse; interrupts, stops, failed commits
 * and kills while they are asked. The hooks are played here, behind the table that host/ fills. */
#include "agent_kit.h"
#include "agent/session_t.h"

#include <signal.h>
#include <sys/wait.h>

#define TOOL "[{\"type\":\"custom\",\"name\":\"look\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}]"
#define IDLE "thread_status_idle usage status_idle"
#define BEGIN "status_running thread_status_running user.message"

/* ---- hooks, one for each phase ---- */

struct open { struct mr_question *q; enum mr_phase p; struct mr_ready ready; yyjson_doc *in; };
static struct fake {
  struct rig *g;
  const char *say[MR_PHASES];     /* the answer; NULL: there is no hook */
  const char *first[MR_PHASES];   /* of the first time, if any */
  bool hold[MR_PHASES], broken;
  struct open *held;
  int asked[MR_PHASES], dropped;
  char input[MR_PHASES][16384];
} f;

static bool has(void *ud, enum mr_phase p, const struct mr_subject *who)
{
  (void)ud;
  CHECK_STR(who->agent, "assistant");
  CHECK(mr_str_starts(who->agent_id, MR_S("agent_")));
  return f.say[p] != NULL;
}

static void told(struct mr_ready *r)
{
  struct open *o = MR_OF(r, struct open, ready);
  struct mr_answer a = {0};
  const struct mr_mem *m = &test_sys()->mem;
  const char *say = f.first[o->p] && f.asked[o->p] == 1 ? f.first[o->p] : f.say[o->p];
  yyjson_doc *said = yyjson_read(say, strlen(say), 0);
  struct mr_buf b;

  mr_buf_init(&b, m, 1 << 20);
  CHECK_INT(mr_phase_read(m, o->p, yyjson_doc_get_root(o->in), yyjson_doc_get_root(said), &a.said, &b, NULL), MR_OK);
  if (a.said & MR_SAID_REFUSE)
    a.why = mr_buf_get(&b);
  else if (a.said)
    CHECK_INT(mr_json_parse(m, mr_buf_get(&b), SIZE_MAX, &a.value, NULL), MR_OK);
  if (o->q) {
    o->q->host = NULL;
    o->q->done(o->q, &a);
  }
  yyjson_doc_free(a.value);
  yyjson_doc_free(said);
  yyjson_doc_free(o->in);
  mr_buf_free(&b);
  free(o);
}

static int ask(void *ud, enum mr_phase p, const struct mr_subject *who, struct mr_str input, struct mr_question *q)
{
  struct open *o = calloc(1, sizeof *o);
  (void)ud;
  (void)who;
  if (f.broken) {
    free(o);
    return MR_E_NOMEM;
  }
  f.asked[p]++;
  snprintf(f.input[p], sizeof f.input[p], "%.*s", (int)input.n, input.p);
  o->q = q;
  o->p = p;
  o->in = yyjson_read(input.p, input.n, 0);
  CHECK(o->in != NULL);
  mr_ready_init(&o->ready, told);
  if (q)
    q->host = o;
  if (f.hold[p]) {
    CHECK(!f.held);
    f.held = o;
  } else {
    mr_ready_post(f.g->loop, &o->ready);
  }
  return MR_OK;
}

static void drop(void *ud, struct mr_question *q)
{
  struct open *o = q->host;
  (void)ud;
  CHECK(o == f.held);
  f.held = NULL;
  f.dropped++;
  q->host = NULL;
  yyjson_doc_free(o->in);
  free(o);
}
static const struct mr_hooks hooks = {.has = has, .ask = ask, .drop = drop};

static void let(void) /* what was held is answered */
{
  struct open *o = f.held;
  f.held = NULL;
  f.hold[o->p] = false;
  mr_ready_post(f.g->loop, &o->ready);
}

/* ---- the tool, and the model ---- */

static int owns(void *ud, struct mr_str tool, struct mr_str agent_id, struct mr_str agent_name)
{
  (void)ud;
  (void)agent_id;
  (void)agent_name;
  CHECK_STR(tool, "look");
  return MR_OWNS | MR_OWNS_IDEMPOTENT;
}

static int start(void *ud, struct mr_tool_run *run)
{
  (void)ud;
  mr_tool_run_done(f.g->d, run, MR_S("\"the secret is 42\""), false);
  return MR_OK;
}

static void cancel(void *ud, struct mr_tool_run *run)
{
  (void)ud;
  (void)run;
  test_fail(__FILE__, __LINE__, "the handler is over");
}
static const struct mr_tool_runner runner = {.owns = owns, .start = start, .cancel = cancel};

static char seen[8][8192]; /* whole requests: model, system, messages */
static int nseen;
static void sees(struct rig *g, const struct mr_model_req *q)
{
  size_t n;
  (void)g;
  if (nseen == 8)
    return;
  n = (size_t)snprintf(seen[nseen], sizeof seen[0], "%.*s|%.*s|", (int)q->model.n, q->model.p, (int)q->system.n,
                       q->system.n ? q->system.p : "");
  for (int i = 0; i < q->nmessages; i++)
    n += (size_t)snprintf(seen[nseen] + n, sizeof seen[0] - n, "%s%.*s", i ? "," : "", (int)q->messages[i].n,
                          q->messages[i].p);
  nseen++;
}

static const char *answers(struct rig *g, struct mr_str last, int k)
{
  (void)g;
  (void)k;
  if (memmem(last.p, last.n, "\"use\"", 5))
    return "[{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"look\",\"input\":{\"at\":\"x\"}}]";
  return "[{\"type\":\"text\",\"text\":\"done\"}]";
}

static void play(struct rig *g)
{
  *g = (struct rig){.model = answers, .sees = sees, .opts = {.hooks = &hooks, .tools = &runner}};
  f.g = g;
  nseen = 0;
}

static void begin(struct rig *g)
{
  memset(&f, 0, sizeof f);
  play(g);
  rig_open(g, test_dir());
  rig_session(g, TOOL);
}

static void until_held(struct rig *g)
{
  for (int i = 0; i < 5000 && !f.held; i++)
    rig_pump(g);
  CHECK(f.held != NULL);
}

static struct mr_str in(enum mr_phase p, const char *pointer)
{
  static char out[4096];
  yyjson_doc *doc = yyjson_read(f.input[p], strlen(f.input[p]), 0);
  yyjson_val *v = yyjson_ptr_get(yyjson_doc_get_root(doc), pointer);
  char *text = v ? yyjson_val_write(v, 0, NULL) : NULL;
  snprintf(out, sizeof out, "%s", !v ? "(absent)" : yyjson_is_str(v) ? yyjson_get_str(v) : text);
  free(text);
  yyjson_doc_free(doc);
  return mr_str_c(out);
}

/* The i-th event of this type, whole. */
static const char *event(struct rig *g, const char *type, int i)
{
  static char out[4096];
  char json[200], pointer[40];
  yyjson_doc *doc;
  char *text;
  snprintf(json, sizeof json, "{\"types\":[\"%s\"]}", type);
  snprintf(pointer, sizeof pointer, "/data/%d", i);
  rig_ok(g, mr_sessions_events_list, g->session, NULL, json);
  doc = yyjson_read(g->last, strlen(g->last), 0);
  text = yyjson_val_write(yyjson_ptr_get(yyjson_doc_get_root(doc), pointer), 0, NULL);
  snprintf(out, sizeof out, "%s", text ? text : "(absent)");
  free(text);
  yyjson_doc_free(doc);
  return out;
}
#define HOLDS(text, part) CHECK(strstr(text, part) != NULL)

/* ---- context and model ---- */

#define HI "{\"role\":\"user\",\"content\":[{\"text\":\"hi\",\"type\":\"text\"}]}"
#define DONE "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}"

TEST(a_context_hook_changes_one_request_and_no_other)
{
  struct rig g;
  begin(&g);
  rig_say(&g, "hi");
  rig_idles(&g, 1);
  CHECK_STR(mr_str_c(seen[0]), "m||" HI);
  f.say[MR_PHASE_CONTEXT] = "null"; /* no opinion: the same bytes */
  rig_say(&g, "hi");
  rig_idles(&g, 2);
  CHECK_STR(mr_str_c(seen[1]), "m||" HI "," DONE "," HI);
  CHECK_STR(in(MR_PHASE_CONTEXT, "/messages"), "[" HI "," DONE "," HI "]");
  CHECK_STR(in(MR_PHASE_CONTEXT, "/system"), "[]");
  CHECK_STR(in(MR_PHASE_CONTEXT, "/session_id"), g.session);
  CHECK_STR(in(MR_PHASE_CONTEXT, "/agent_id"), g.agent);
  f.say[MR_PHASE_CONTEXT] = "{\"messages\":[{\"role\":\"user\",\"content\":\"short\"}],\"system\":\"be brief\"}";
  rig_say(&g, "hi");
  rig_idles(&g, 3);
  CHECK_STR(mr_str_c(seen[2]), "m|[{\"type\":\"text\",\"text\":\"be brief\"}]|"
                               "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"short\"}]}");
  f.say[MR_PHASE_CONTEXT] = NULL;
  rig_say(&g, "hi");
  rig_idles(&g, 4);
  CHECK_STR(mr_str_c(seen[3]), "m||" HI "," DONE "," HI "," DONE "," HI "," DONE "," HI);
  CHECK_INT(f.asked[MR_PHASE_CONTEXT], 2);
  rig_close(&g);
}

TEST(context_and_model_hooks_refuse)
{
  for (int p = MR_PHASE_CONTEXT; p <= MR_PHASE_MODEL; p++) {
    struct rig g;
    begin(&g);
    f.say[p] = "{\"refuse\":\"over budget\"}";
    rig_say(&g, "hi");
    rig_idles(&g, 1);
    CHECK_STR(mr_str_c(rig_types(&g)), BEGIN " model_request_start model_request_end error " IDLE);
    HOLDS(event(&g, "session.error", 0), "\"message\":\"over budget\"");
    HOLDS(event(&g, "session.error", 0), "model_request_failed_error");
    HOLDS(event(&g, "session.status_idle", 0), "retries_exhausted");
    CHECK_INT(g.asked, 0);
    f.say[p] = NULL; /* the next turn is as ever */
    rig_say(&g, "hi");
    rig_idles(&g, 2);
    CHECK_INT(g.asked, 1);
    rig_close(&g);
  }
}

TEST(a_model_hook_chooses)
{
  struct rig g;
  begin(&g);
  f.say[MR_PHASE_MODEL] = "{\"model\":\"bigger\"}";
  rig_say(&g, "hi");
  rig_idles(&g, 1);
  CHECK_STR(mr_str_c(seen[0]), "bigger||" HI);
  CHECK_STR(in(MR_PHASE_MODEL, "/model"), "m");
  CHECK_STR(in(MR_PHASE_MODEL, "/message"), HI);
  CHECK_STR(in(MR_PHASE_MODEL, "/bytes"), "55");
  f.say[MR_PHASE_MODEL] = "null";
  rig_say(&g, "hi");
  rig_idles(&g, 2);
  CHECK_STR(mr_str_n(seen[1], 2), "m|");
  rig_close(&g);
}

TEST(a_model_hook_answers_without_a_model)
{
  struct rig g;
  begin(&g);
  f.say[MR_PHASE_MODEL] = "{\"reply\":{\"content\":\"pong\"}}";
  rig_say(&g, "ping");
  rig_idles(&g, 1);
  CHECK_STR(mr_str_c(rig_types(&g)), BEGIN " model_request_start agent.message model_request_end " IDLE);
  HOLDS(event(&g, "agent.message", 0), "\"text\":\"pong\"");
  HOLDS(event(&g, "span.model_request_end", 0), "\"output_tokens\":0");
  CHECK_INT(g.asked, 0);
  /* Its calls are calls: permitted, run, and their results go to whoever answers next. */
  f.first[MR_PHASE_MODEL] = "{\"reply\":{\"content\":[{\"type\":\"text\",\"text\":\"I look.\"},"
                            "{\"type\":\"tool_use\",\"name\":\"look\",\"input\":{\"at\":\"y\"}}]}}";
  f.asked[MR_PHASE_MODEL] = 0;
  f.say[MR_PHASE_MODEL] = "null";
  rig_say(&g, "go");
  rig_idles(&g, 2);
  HOLDS(event(&g, "agent.custom_tool_use", 0), "\"input\":{\"at\":\"y\"}");
  HOLDS(event(&g, "user.custom_tool_result", 0), "the secret is 42");
  CHECK_INT(g.asked, 1);
  HOLDS(seen[0], "\"text\":\"pong\"");
  HOLDS(seen[0], "\"id\":\"toolu_");
  rig_close(&g);
}

/* ---- tools ---- */

TEST(a_tools_hook_sees_and_changes_results)
{
  static const struct { const char *say, *text; bool is_error; } cases[] = {
      {"null", "[{\"type\":\"text\",\"text\":\"the secret is 42\"}]", false},
      {"{\"content\":\"clean\"}", "[{\"type\":\"text\",\"text\":\"clean\"}]", false},
      {"{\"content\":{\"n\":1},\"is_error\":true}", "[{\"type\":\"text\",\"text\":\"{\\\"n\\\":1}\"}]", true},
      {"{\"is_error\":true}", "[{\"type\":\"text\",\"text\":\"the secret is 42\"}]", true},
      {"{\"refuse\":\"withheld\"}", "[{\"type\":\"text\",\"text\":\"withheld\"}]", true}};
  struct rig g;
  begin(&g);
  for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
    char want[300];
    f.say[MR_PHASE_TOOLS] = cases[i].say;
    rig_say(&g, "use");
    rig_idles(&g, i + 1);
    CHECK_STR(in(MR_PHASE_TOOLS, "/content"), "[{\"type\":\"text\",\"text\":\"the secret is 42\"}]");
    CHECK_STR(in(MR_PHASE_TOOLS, "/name"), "look");
    CHECK_STR(in(MR_PHASE_TOOLS, "/input"), "{\"at\":\"x\"}");
    snprintf(want, sizeof want, "\"content\":%s,\"is_error\":%s", cases[i].text, cases[i].is_error ? "true" : "false");
    HOLDS(event(&g, "user.custom_tool_result", i), want);
    HOLDS(event(&g, "user.custom_tool_result", i), in(MR_PHASE_TOOLS, "/tool_use_id").p);
  }
  rig_close(&g);
}

/* ---- settle, idle ---- */

TEST(a_settle_hook_goes_on)
{
  struct rig g;
  begin(&g);
  f.first[MR_PHASE_SETTLE] = "{\"continue\":\"and now?\"}";
  f.say[MR_PHASE_SETTLE] = "null";
  f.say[MR_PHASE_IDLE] = "null";
  rig_say(&g, "use");
  rig_idles(&g, 1);
  CHECK_STR(mr_str_c(rig_types(&g)),
            BEGIN " model_request_start agent.custom_tool_use model_request_end user.custom_tool_result "
            "model_request_start agent.message model_request_end user.message model_request_start agent.message "
            "model_request_end " IDLE);
  HOLDS(event(&g, "user.message", 1), "\"content\":[{\"type\":\"text\",\"text\":\"and now?\"}],\"processed_at\":\"2");
  CHECK_STR(in(MR_PHASE_SETTLE, "/text"), "done");
  CHECK_INT(f.asked[MR_PHASE_SETTLE], 2);
  CHECK_STR(in(MR_PHASE_IDLE, "/stop_reason/type"), "end_turn");
  CHECK_INT(f.asked[MR_PHASE_IDLE], 1);
  f.say[MR_PHASE_SETTLE] = "{\"refuse\":\"\"}";
  rig_say(&g, "hi");
  rig_idles(&g, 2);
  CHECK_INT(f.asked[MR_PHASE_SETTLE], 3);
  HOLDS(event(&g, "session.status_idle", 1), "end_turn");
  rig_close(&g);
}

TEST(a_settle_hook_cannot_go_on_for_ever)
{
  struct rig g;
  static const char limits[] = "{\"limits\":{\"tool_rounds\":3}}";
  yyjson_doc *config = yyjson_read(limits, strlen(limits), 0);
  memset(&f, 0, sizeof f);
  play(&g);
  g.opts.config = yyjson_doc_get_root(config);
  rig_open(&g, test_dir());
  rig_session(&g, TOOL);
  f.say[MR_PHASE_SETTLE] = "{\"continue\":\"more\"}";
  rig_say(&g, "hi");
  rig_idles(&g, 1);
  CHECK_INT(g.asked, 3);
  HOLDS(event(&g, "session.error", 0), "tool_use_limit_reached_error");
  HOLDS(event(&g, "session.status_idle", 0), "retries_exhausted");
  rig_close(&g);
  yyjson_doc_free(config);
}

TEST(a_message_that_comes_meanwhile_goes_first)
{
  struct rig g;
  begin(&g);
  f.say[MR_PHASE_SETTLE] = "null";
  f.hold[MR_PHASE_SETTLE] = true;
  rig_say(&g, "hi");
  until_held(&g);
  f.hold[MR_PHASE_SETTLE] = false;
  rig_say(&g, "wait");
  rig_idles(&g, 1);
  CHECK_INT(f.dropped, 1);
  CHECK_INT(f.asked[MR_PHASE_SETTLE], 2);
  CHECK_STR(mr_str_c(rig_types(&g)), BEGIN " model_request_start agent.message model_request_end user.message "
                                           "model_request_start agent.message model_request_end " IDLE);
  rig_close(&g);
}

/* ---- accept ---- */

#define SEND(ev) "{\"events\":[" ev "]}"
#define MESSAGE(t) "{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"" t "\"}]}"

TEST(an_accept_hook_refuses_and_changes)
{
  struct rig g;
  begin(&g);
  f.say[MR_PHASE_ACCEPT] = "{\"refuse\":\"not on a Friday\"}";
  rig_refused(&g, mr_sessions_events_send, g.session, NULL, SEND(MESSAGE("hi")), MR_E_DENIED, 403, "",
              "not on a Friday");
  CHECK_STR(mr_str_c(g.err.type), "permission_error");
  CHECK_STR(mr_str_c(rig_types(&g)), "");
  CHECK_STR(in(MR_PHASE_ACCEPT, "/events"), "[" MESSAGE("hi") "]");
  f.say[MR_PHASE_ACCEPT] = SEND(MESSAGE("hi, politely"));
  rig_ok(&g, mr_sessions_events_send, g.session, NULL, SEND(MESSAGE("hi")));
  CHECK_STR(mr_str_c(rig_get(&g, "/data/0/content/0/text")), "hi, politely");
  rig_idles(&g, 1);
  HOLDS(event(&g, "user.message", 0), "hi, politely");
  /* What a hook makes is checked as if a client had sent it. */
  f.say[MR_PHASE_ACCEPT] = SEND("{\"type\":\"user.massage\"}");
  rig_refused(&g, mr_sessions_events_send, g.session, NULL, SEND(MESSAGE("hi")), MR_E_INVALID, 400, "events[0].type",
              "user.massage");
  f.say[MR_PHASE_ACCEPT] = SEND(MESSAGE(" "));
  rig_refused(&g, mr_sessions_events_send, g.session, NULL, SEND(MESSAGE("hi")), MR_E_INVALID, 400,
              "events[0].content", "not blank");
  /* What would be refused without hooks is not shown to them, and interrupts are not held up. */
  int n = f.asked[MR_PHASE_ACCEPT];
  rig_refused(&g, mr_sessions_events_send, g.session, NULL, SEND("{\"type\":\"user.massage\"}"), MR_E_INVALID, 400,
              "events[0].type", "unknown");
  rig_ok(&g, mr_sessions_events_send, g.session, NULL, SEND("{\"type\":\"user.interrupt\"}"));
  CHECK_INT(f.asked[MR_PHASE_ACCEPT], n);
  CHECK_INT(g.asked, 1);
  f.broken = true; /* a fault of the server, not a refusal */
  rig_refused(&g, mr_sessions_events_send, g.session, NULL, SEND(MESSAGE("hi")), MR_E_NOMEM, 503, "", "out of memory");
  rig_close(&g);
}

TEST(an_accept_hook_sees_initial_events)
{
  struct rig g;
  char json[400];
  begin(&g);
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\",\"initial_events\":[" MESSAGE("hi") "]}",
           g.agent, g.env);
  f.say[MR_PHASE_ACCEPT] = "{\"refuse\":\"no\"}";
  rig_refused(&g, mr_sessions_create, NULL, NULL, json, MR_E_DENIED, 403, "", "no");
  f.say[MR_PHASE_ACCEPT] = SEND("{\"type\":\"user.interrupt\"}");
  rig_refused(&g, mr_sessions_create, NULL, NULL, json, MR_E_INVALID, 400, "initial_events[0].type", "initial event");
  f.say[MR_PHASE_ACCEPT] = SEND(MESSAGE("hello"));
  rig_ok(&g, mr_sessions_create, NULL, NULL, json);
  snprintf(g.session, sizeof g.session, "%s", rig_get(&g, "/id"));
  rig_idles(&g, 1);
  HOLDS(event(&g, "user.message", 0), "hello");
  CHECK_STR(in(MR_PHASE_ACCEPT, "/session_id"), g.session);
  rig_close(&g);
}

struct sent { struct mr_call c; yyjson_doc *in; bool over; };
static void sent_over(struct mr_call *c)
{
  MR_OF(c, struct sent, c)->over = true;
}

/* Begins to send a message, and waits until the hook has it. */
static void send_held(struct rig *g, struct sent *m)
{
  memset(m, 0, sizeof *m);
  f.say[MR_PHASE_ACCEPT] = "null";
  f.hold[MR_PHASE_ACCEPT] = true;
  m->c = (struct mr_call){.d = g->d, .mem = &test_sys()->mem, .done = sent_over};
  m->c.arena = mr_arena_new(m->c.mem, 1024);
  m->c.path[0] = mr_str_c(g->session);
  CHECK_INT(mr_store_workspace(g->store, MR_S("default"), &m->c.who.workspace, NULL), MR_OK);
  m->in = yyjson_read(SEND(MESSAGE("hi")), strlen(SEND(MESSAGE("hi"))), 0);
  m->c.in = yyjson_doc_get_root(m->in);
  mr_buf_init(&m->c.out, m->c.mem, 1 << 20);
  mr_sessions_events_send(&m->c);
  until_held(g);
  CHECK(!m->over);
}

static void sent_end(struct rig *g, struct sent *m, int code)
{
  for (int i = 0; i < 5000 && !m->over; i++)
    rig_pump(g);
  CHECK(m->over);
  CHECK_INT(m->c.code, code);
  mr_buf_free(&m->c.out);
  yyjson_doc_free(m->in);
  mr_arena_free(&m->c.arena);
}

TEST(while_an_accept_hook_is_asked)
{
  struct rig g;
  struct sent m;
  begin(&g);
  send_held(&g, &m); /* the sender gives up: nothing was stored */
  m.c.cancel(&m.c);
  sent_end(&g, &m, MR_E_CANCELLED);
  CHECK_INT(f.dropped, 1);
  CHECK_STR(mr_str_c(rig_types(&g)), "");
  send_held(&g, &m); /* the session is archived: it takes no more */
  rig_ok(&g, mr_sessions_archive, g.session, NULL, NULL);
  let();
  sent_end(&g, &m, MR_E_STATE);
  CHECK_INT(g.asked, 0);
  rig_session(&g, TOOL);
  f.say[MR_PHASE_ACCEPT] = NULL;
  send_held(&g, &m); /* it is gone */
  rig_ok(&g, mr_sessions_delete, g.session, NULL, NULL);
  let();
  sent_end(&g, &m, MR_E_NOTFOUND);
  rig_session(&g, TOOL);
  send_held(&g, &m); /* the server stops */
  mr_domain_cut(g.d);
  let();
  sent_end(&g, &m, MR_E_CLOSED);
  rig_close(&g);
}

/* ---- what may come while hooks are asked ---- */

static const enum mr_phase waits[] = {MR_PHASE_CONTEXT, MR_PHASE_MODEL, MR_PHASE_PERMIT, MR_PHASE_TOOLS, MR_PHASE_SETTLE};

static void hold_at(struct rig *g, enum mr_phase p)
{
  f.say[p] = "null";
  f.hold[p] = true;
  rig_say(g, p == MR_PHASE_PERMIT || p == MR_PHASE_TOOLS ? "use" : "hi");
  until_held(g);
  for (int i = 0; i < 5000 && !strstr(rig_types(g), "model_request_start"); i++)
    rig_pump(g); /* what the hook is asked about is durable */
}

TEST(an_interrupt_waits_for_no_hook)
{
  for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
    struct rig g;
    begin(&g);
    hold_at(&g, waits[i]);
    rig_ok(&g, mr_sessions_events_send, g.session, NULL, SEND("{\"type\":\"user.interrupt\"}"));
    rig_idles(&g, 1);
    CHECK_INT(f.dropped, 1);
    HOLDS(event(&g, "session.status_idle", 0), "end_turn");
    if (waits[i] == MR_PHASE_TOOLS) {
      HOLDS(event(&g, "user.custom_tool_result", 0), "interrupted before completion");
      CHECK(!strstr(rig_types(&g), "agent.message"));
    }
    f.hold[waits[i]] = false;
    rig_say(&g, "hi");
    rig_idles(&g, 2);
    HOLDS(event(&g, "agent.message", waits[i] == MR_PHASE_SETTLE), "done");
    struct mr_domain_stats st;
    mr_domain_stats(g.d, &st);
    CHECK_INT(st.handlers_running + st.model_running + st.tools_running, 0);
    rig_close(&g);
  }
}

static void finished(struct rig *g, enum mr_phase p)
{
  for (int i = 0; i < 5000 && !strstr(rig_types(g), "status_idle"); i++)
    rig_pump(g);
  CHECK_INT(f.asked[p], p == MR_PHASE_CONTEXT || p == MR_PHASE_MODEL ? f.asked[p] : 1);
  CHECK(f.asked[p] > 0);
  HOLDS(event(g, "agent.message", 0), "done");
  CHECK(strcmp(event(g, "session.status_idle", 1), "(absent)") == 0);
}

/* Opens the store again, with hooks that have nothing against anything. */
static void again(struct rig *g, enum mr_phase p, const char *session)
{
  memset(&f, 0, sizeof f);
  play(g);
  f.say[p] = "null";
  rig_open(g, test_dir());
  snprintf(g->session, sizeof g->session, "%s", session);
}

TEST(after_a_kill_hooks_are_asked_again)
{
  for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
    struct rig g;
    char session[64] = "";
    int fds[2], status;
    pid_t pid;
    CHECK_INT(pipe(fds), 0);
    pid = fork(); /* no thread runs here yet, or any more */
    if (pid == 0) {
      begin(&g);
      hold_at(&g, waits[i]);
      CHECK_INT(write(fds[1], g.session, sizeof session), sizeof session);
      kill(getpid(), SIGKILL);
    }
    CHECK_INT(read(fds[0], session, sizeof session), sizeof session);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status));
    close(fds[0]);
    close(fds[1]);
    again(&g, waits[i], session);
    finished(&g, waits[i]);
    if (waits[i] == MR_PHASE_CONTEXT || waits[i] == MR_PHASE_MODEL) {
      HOLDS(event(&g, "span.model_request_end", 0), "\"is_error\":true");
      HOLDS(event(&g, "span.model_request_end", 1), "\"is_error\":false");
    }
    rig_close(&g);
  }
}

TEST(a_cut_drops_questions_and_the_next_start_asks_again)
{
  for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
    struct rig g;
    char session[64];
    begin(&g);
    hold_at(&g, waits[i]);
    snprintf(session, sizeof session, "%s", g.session);
    rig_close(&g);
    CHECK_INT(f.dropped, 1);
    again(&g, waits[i], session);
    finished(&g, waits[i]);
    rig_close(&g);
  }
}

static bool drained;
static void on_drained(void *ud)
{
  (void)ud;
  drained = true;
}

TEST(a_drain_waits_for_the_answer_and_begins_nothing_with_it)
{
  for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
    struct rig g;
    char session[64];
    begin(&g);
    hold_at(&g, waits[i]);
    snprintf(session, sizeof session, "%s", g.session);
    drained = false;
    int asked = g.asked;
    mr_domain_drain(g.d, on_drained, NULL);
    for (int k = 0; k < 50; k++)
      rig_pump(&g);
    CHECK(!drained);
    if (waits[i] == MR_PHASE_SETTLE)
      f.say[MR_PHASE_SETTLE] = "{\"continue\":\"more\"}";
    let();
    for (int k = 0; k < 5000 && !drained; k++)
      rig_pump(&g);
    CHECK(drained);
    CHECK_INT(g.asked, asked);
    CHECK(!strstr(rig_types(&g), "status_idle"));
    rig_close(&g);
    again(&g, waits[i], session);
    rig_idles(&g, 1);
    HOLDS(event(&g, "agent.message", 0), "done");
    rig_close(&g);
  }
}

static void poison(struct mr_session *s)
{
  struct mr_err err;
  mr_err_set(&err, MR_E_IO, NULL, "a commit of the test fails");
  mr_session_ref(s);
  mr_session_poison(s, &err);
  mr_session_unref(s);
}

TEST(a_session_that_is_loaded_again_asks_again)
{
  for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
    struct rig g;
    begin(&g);
    hold_at(&g, waits[i]);
    f.hold[waits[i]] = false;
    mr_session_each(g.d, poison);
    CHECK_INT(f.dropped, 1);
    f.asked[waits[i]] = 0;
    finished(&g, waits[i]); /* whoever asks for the session loads it */
    rig_close(&g);
    CHECK_INT(test_allocs(), 0);
  }
}
