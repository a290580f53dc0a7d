/* A handler's tool behind a confirmation that a hook asked for: allowed, denied, interrupted, its handler gone,
 * stops and kills at each wait. The hooks, the handler and a sandbox are played here. */
#include "agent_kit.h"
#include "agent/session_t.h"
#include "sandbox/sandbox.h"

#include <signal.h>
#include <sys/wait.h>

#define TOOLS                                                                                                   \
  "[{\"type\":\"custom\",\"name\":\"pay\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}},"       \
  "{\"type\":\"agent_toolset_20260401\"}]"
#define IDLE "thread_status_idle usage status_idle"
#define BEGIN "status_running thread_status_running"
#define ASKED BEGIN " user.message model_request_start agent.tool_use model_request_end " IDLE
#define SEND(ev) "{\"events\":[" ev "]}"
#define HOLDS(text, part) CHECK(strstr(text, part) != NULL)

static struct play {
  struct rig *g;
  const char *say;     /* of the hook of permit */
  bool tools;          /* there is a hook of tools */
  int asked[MR_PHASES];
  int gone_after;      /* the handler is gone once permit was asked so often; 0: it stays */
  bool gone, idempotent, hold;
  struct mr_tool_run *held;
  int started, cancelled, attempt;
  mr_sandbox_fn fn;    /* a call in the sandbox */
  void *fn_ud;
} f;

/* ---- hooks ---- */

struct asked { struct mr_question *q; enum mr_phase p; struct mr_ready ready; };

static bool has(void *ud, enum mr_phase p, const struct mr_subject *who)
{
  (void)ud;
  (void)who;
  return (p == MR_PHASE_PERMIT && f.say) || (p == MR_PHASE_TOOLS && f.tools);
}

static void told(struct mr_ready *r)
{
  struct asked *o = MR_OF(r, struct asked, ready);
  struct mr_answer a = {0};
  if (o->p == MR_PHASE_PERMIT) {
    a.said = MR_SAID_DECISION;
    a.value = yyjson_read(f.say, strlen(f.say), 0);
  }
  o->q->host = NULL;
  o->q->done(o->q, &a);
  yyjson_doc_free(a.value);
  free(o);
}

static int ask(void *ud, enum mr_phase p, const struct mr_subject *who, struct mr_str input, struct mr_question *q)
{
  struct asked *o = calloc(1, sizeof *o);
  (void)ud;
  (void)who;
  (void)input;
  o->q = q;
  o->p = p;
  q->host = o;
  mr_ready_init(&o->ready, told);
  mr_ready_post(f.g->loop, &o->ready);
  f.asked[p]++;
  if (p == MR_PHASE_PERMIT && f.asked[p] == f.gone_after)
    f.gone = true;
  return MR_OK;
}

static void drop(void *ud, struct mr_question *q)
{
  struct asked *o = q->host;
  (void)ud;
  mr_ready_cancel(f.g->loop, &o->ready);
  q->host = NULL;
  free(o);
}
static const struct mr_hooks hooks = {.has = has, .ask = ask, .drop = drop};

/* ---- the handler ---- */

static int owns(void *ud, struct mr_str tool, struct mr_str agent_id, struct mr_str agent_name)
{
  (void)ud;
  (void)agent_id;
  (void)agent_name;
  CHECK_STR(tool, "pay");
  return f.gone ? 0 : f.idempotent ? MR_OWNS | MR_OWNS_IDEMPOTENT : MR_OWNS;
}

static int start(void *ud, struct mr_tool_run *run)
{
  (void)ud;
  if (f.gone)
    return MR_E_NOTFOUND;
  f.started++;
  f.attempt = run->attempt;
  CHECK_STR(run->name, "pay");
  CHECK_STR(run->input, "{\"n\":1}");
  if (f.hold)
    f.held = run;
  else
    mr_tool_run_done(f.g->d, run, MR_S("\"paid\""), false);
  return MR_OK;
}

static void cancel(void *ud, struct mr_tool_run *run)
{
  (void)ud;
  CHECK(run == f.held);
  f.held = NULL;
  f.cancelled++;
}
static const struct mr_tool_runner runner = {.owns = owns, .start = start, .cancel = cancel};

/* ---- a sandbox that answers when the test says so ---- */

static struct mr_sandbox *sb_get(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *s, const char *ref);
static void sb_put(struct mr_sandbox *s)
{
  (void)s;
}
static const char *sb_ref(const struct mr_sandbox *s)
{
  (void)s;
  return "";
}
static int sb_call(struct mr_sandbox *s, const struct mr_sandbox_call *c, mr_sandbox_fn fn, void *ud)
{
  (void)s;
  (void)c;
  CHECK(!f.fn);
  f.fn = fn;
  f.fn_ud = ud;
  return MR_OK;
}
static int sb_status(struct mr_sandbox *s, struct mr_str id, mr_sandbox_fn fn, void *ud)
{
  (void)id;
  return sb_call(s, NULL, fn, ud);
}
static void sb_cancel(struct mr_sandbox *s, struct mr_str id)
{
  (void)s;
  (void)id;
}
static const struct mr_sandbox_vtable sb_vtable = {.get = sb_get, .put = sb_put, .ref = sb_ref, .call = sb_call,
                                                   .status = sb_status, .cancel = sb_cancel};
static struct mr_sandbox_driver sb = {&sb_vtable};
static struct mr_sandbox box = {&sb};
static struct mr_sandbox *sb_get(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *s, const char *ref)
{
  (void)d;
  (void)s;
  (void)ref;
  return &box;
}

/* ---- the model, and what the tests do with all of it ---- */

#define USE(id) "{\"type\":\"tool_use\",\"id\":\"" id "\",\"name\":\"pay\",\"input\":{\"n\":1}}"

static const char *answers(struct rig *g, struct mr_str last, int k)
{
  (void)g;
  (void)k;
  if (memmem(last.p, last.n, "\"pay\"", 5))
    return "[" USE("t1") "]";
  if (memmem(last.p, last.n, "\"pay twice\"", 11))
    return "[" USE("t1") "," USE("t2") "]";
  if (memmem(last.p, last.n, "\"list\"", 6))
    return "[{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"bash\",\"input\":{\"command\":\"ls\"}}]";
  return "[{\"type\":\"text\",\"text\":\"done\"}]";
}

static void play(struct rig *g)
{
  memset(&f, 0, sizeof f);
  *g = (struct rig){.model = answers, .opts = {.hooks = &hooks, .tools = &runner, .sandbox = &sb}};
  f.g = g;
  f.say = "{\"decision\":\"ask\"}";
}

static void begin(struct rig *g)
{
  play(g);
  rig_open(g, test_dir());
  rig_session(g, TOOLS);
}

static void again(struct rig *g, const char *session)
{
  char kept[64];
  snprintf(kept, sizeof kept, "%s", session);
  play(g);
  rig_open(g, test_dir());
  snprintf(g->session, sizeof g->session, "%s", kept);
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

static const char *id_of(struct rig *g, const char *type, int i)
{
  static char id[64];
  const char *at = strstr(event(g, type, i), "\"id\":\"");
  CHECK(at != NULL);
  snprintf(id, sizeof id, "%.*s", (int)strcspn(at + 6, "\""), at + 6);
  return id;
}

static const char *answer(struct rig *g, const char *type, const char *ref, const char *rest, int i)
{
  static char json[600];
  const char *use = strcmp(ref, "custom_tool_use_id") ? "agent.tool_use" : "agent.custom_tool_use";
  snprintf(json, sizeof json, SEND("{\"type\":\"%s\",\"%s\":\"%s\"%s}"), type, ref, id_of(g, use, i), rest);
  return json;
}

static void confirm(struct rig *g, const char *rest)
{
  rig_ok(g, mr_sessions_events_send, g->session, NULL,
         answer(g, "user.tool_confirmation", "tool_use_id", rest, 0));
}
#define ALLOW ",\"result\":\"allow\""

/* A session that waits for the confirmation of one call. */
static void until_asked(struct rig *g)
{
  begin(g);
  rig_say(g, "pay");
  rig_idles(g, 1);
  CHECK_STR(mr_str_c(rig_types(g)), ASKED);
}

static void until_held(struct rig *g)
{
  for (int i = 0; i < 5000 && !f.held; i++)
    rig_pump(g);
  CHECK(f.held != NULL);
}

static void nothing_runs(struct rig *g)
{
  struct mr_domain_stats st;
  mr_domain_stats(g->d, &st);
  CHECK_INT(st.handlers_running + st.model_running + st.tools_running, 0);
}

TEST(allowed)
{
  struct rig g;
  until_asked(&g);
  HOLDS(event(&g, "agent.tool_use", 0), "\"name\":\"pay\",\"input\":{\"n\":1},\"evaluated_permission\":\"ask\","
                                        "\"evaluation\":{\"type\":\"auto\",");
  HOLDS(event(&g, "session.status_idle", 0), "requires_action");
  HOLDS(event(&g, "session.status_idle", 0), id_of(&g, "agent.tool_use", 0));
  CHECK_INT(f.started, 0);
  /* It is the server's to run: no result of a client is taken for it. */
  char json[300];
  snprintf(json, sizeof json, SEND("{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"%s\"}"),
           id_of(&g, "agent.tool_use", 0));
  rig_refused(&g, mr_sessions_events_send, g.session, NULL, json, MR_E_INVALID, 400, "events[0].custom_tool_use_id",
              "not a pending custom tool use");
  confirm(&g, ALLOW);
  rig_idles(&g, 2);
  CHECK_INT(f.started, 1);
  CHECK_STR(mr_str_c(rig_types(&g)), ASKED " " BEGIN " user.tool_confirmation agent.tool_result model_request_start "
                                           "agent.message model_request_end " IDLE);
  HOLDS(event(&g, "agent.tool_result", 0), "\"content\":[{\"type\":\"text\",\"text\":\"paid\"}],\"is_error\":false");
  rig_refused(&g, mr_sessions_events_send, g.session, NULL,
              answer(&g, "user.tool_confirmation", "tool_use_id", ALLOW, 0), MR_E_INVALID, 400, "events[0].tool_use_id",
              "not a tool use that asks");
  nothing_runs(&g);
  rig_close(&g);
  CHECK_INT(test_allocs(), 0);
}

TEST(denied)
{
  struct rig g;
  until_asked(&g);
  confirm(&g, ",\"result\":\"deny\",\"deny_message\":\"too much\"");
  rig_idles(&g, 2);
  CHECK_INT(f.started, 0);
  HOLDS(event(&g, "agent.tool_result", 0), "The user denied this tool call: too much");
  HOLDS(event(&g, "agent.tool_result", 0), "\"is_error\":true");
  rig_close(&g);
}

TEST(interrupted)
{
  for (int running = 0; running < 2; running++) {
    struct rig g;
    until_asked(&g);
    f.hold = true;
    if (running) {
      confirm(&g, ALLOW);
      until_held(&g);
    }
    rig_ok(&g, mr_sessions_events_send, g.session, NULL, SEND("{\"type\":\"user.interrupt\"}"));
    rig_idles(&g, 2);
    CHECK_INT(f.started, running);
    CHECK_INT(f.cancelled, running);
    HOLDS(event(&g, "agent.tool_result", 0), "interrupted before completion");
    HOLDS(event(&g, "session.status_idle", 1), "end_turn");
    nothing_runs(&g);
    rig_say(&g, "hi");
    rig_idles(&g, 3);
    rig_close(&g);
  }
}

TEST(the_handler_is_gone_when_it_is_allowed)
{
  for (int restart = 0; restart < 2; restart++) {
    struct rig g;
    until_asked(&g);
    if (restart) {
      rig_close(&g);
      again(&g, g.session);
    }
    f.gone = true;
    confirm(&g, ALLOW);
    rig_idles(&g, 2);
    CHECK_INT(f.started, 0);
    HOLDS(event(&g, "agent.tool_result", 0), "no handler for this tool is loaded any more");
    HOLDS(event(&g, "agent.message", 0), "done");
    rig_close(&g);
  }
}

/* It goes while the hook is asked about the second call: the first stays a handler's tool. */
TEST(the_handler_goes_between_two_questions)
{
  for (int restart = 0; restart < 2; restart++) {
    struct rig g;
    begin(&g);
    f.gone_after = 2;
    rig_say(&g, "pay twice");
    rig_idles(&g, 1);
    HOLDS(event(&g, "session.status_idle", 0), id_of(&g, "agent.tool_use", 0));
    HOLDS(event(&g, "session.status_idle", 0), id_of(&g, "agent.custom_tool_use", 0));
    rig_ok(&g, mr_sessions_events_send, g.session, NULL,
           answer(&g, "user.custom_tool_result", "custom_tool_use_id",
                  ",\"content\":[{\"type\":\"text\",\"text\":\"by hand\"}]", 0));
    rig_idles(&g, 2);
    if (restart) {
      rig_close(&g);
      again(&g, g.session);
    }
    f.gone = false; /* it is back when the confirmation comes */
    confirm(&g, ALLOW);
    rig_idles(&g, 3);
    CHECK_INT(f.started, 1);
    HOLDS(event(&g, "agent.tool_result", 0), "paid");
    rig_close(&g);
  }
}

static bool drained;
static void on_drained(void *ud)
{
  (void)ud;
  drained = true;
}

TEST(a_drain_leaves_it_to_the_next_start)
{
  struct rig g;
  until_asked(&g);
  drained = false;
  mr_domain_drain(g.d, on_drained, NULL);
  confirm(&g, ALLOW);
  for (int i = 0; i < 5000 && !drained; i++)
    rig_pump(&g);
  CHECK(drained);
  CHECK_INT(f.started, 0);
  rig_close(&g);
  again(&g, g.session);
  rig_idles(&g, 2);
  CHECK_INT(f.started, 1);
  CHECK_INT(f.attempt, 1);
  HOLDS(event(&g, "agent.tool_result", 0), "paid");
  rig_close(&g);
}

TEST(a_drain_waits_for_the_handler)
{
  struct rig g;
  until_asked(&g);
  f.hold = true;
  confirm(&g, ALLOW);
  until_held(&g);
  drained = false;
  mr_domain_drain(g.d, on_drained, NULL);
  for (int i = 0; i < 50; i++)
    rig_pump(&g);
  CHECK(!drained);
  mr_tool_run_done(g.d, f.held, MR_S("\"paid\""), false);
  f.held = NULL;
  for (int i = 0; i < 5000 && !(drained && strstr(rig_types(&g), "agent.tool_result")); i++)
    rig_pump(&g);
  CHECK(drained);
  rig_close(&g);
  again(&g, g.session);
  rig_idles(&g, 2);
  CHECK_INT(f.started, 0); /* its result was kept */
  HOLDS(event(&g, "agent.tool_result", 0), "paid");
  rig_close(&g);
}

/* Killed while the handler runs: again only if both say that this does no harm. */
TEST(after_a_kill_it_runs_again_only_if_it_may)
{
  for (int k = 0; k < 3; k++) { /* 0: no; 1: yes; 2: yes, but the handler is gone */
    struct rig g;
    char session[64] = "";
    int fds[2], status;
    pid_t pid;
    CHECK_INT(pipe(fds), 0);
    pid = fork(); /* no thread runs here yet, or any more */
    if (pid == 0) {
      begin(&g);
      f.idempotent = k > 0;
      f.hold = true;
      rig_say(&g, "pay");
      rig_idles(&g, 1);
      confirm(&g, ALLOW);
      until_held(&g);
      CHECK_INT(write(fds[1], g.session, sizeof session), sizeof session);
      kill(getpid(), SIGKILL);
    }
    CHECK_INT(read(fds[0], session, sizeof session), sizeof session);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status));
    close(fds[0]);
    close(fds[1]);
    play(&g);
    f.idempotent = k > 0;
    f.gone = k == 2;
    rig_open(&g, test_dir());
    snprintf(g.session, sizeof g.session, "%s", session);
    rig_idles(&g, 2);
    CHECK_INT(f.started, k == 1);
    CHECK_INT(f.attempt, k == 1 ? 2 : 0);
    HOLDS(event(&g, "agent.tool_result", 0), k == 1 ? "paid" : "interrupted before completion");
    HOLDS(event(&g, "agent.tool_result", 1), "(absent)");
    rig_close(&g);
  }
}

/* A result that comes after the cut is nobody's: no hook is asked about it, and nothing waits for one. */
TEST(no_hook_is_asked_after_the_cut)
{
  struct rig g;
  begin(&g);
  f.tools = true;
  f.say = NULL;
  rig_say(&g, "list");
  for (int i = 0; i < 5000 && !f.fn; i++)
    rig_pump(&g);
  CHECK(f.fn != NULL);
  mr_domain_cut(g.d);
  f.fn(f.fn_ud, &(struct mr_sandbox_result){.content = MR_S("[{\"type\":\"text\",\"text\":\"a b\"}]")});
  CHECK_INT(f.asked[MR_PHASE_TOOLS], 0);
  nothing_runs(&g);
  rig_close(&g);
  again(&g, g.session);
  f.tools = true;
  for (int i = 0; i < 5000 && !f.fn; i++)
    rig_pump(&g);
  CHECK(f.fn != NULL); /* asked for again */
  f.fn(f.fn_ud, &(struct mr_sandbox_result){.content = MR_S("[{\"type\":\"text\",\"text\":\"a b\"}]")});
  rig_idles(&g, 1);
  CHECK_INT(f.asked[MR_PHASE_TOOLS], 1);
  HOLDS(event(&g, "agent.tool_result", 0), "a b");
  rig_close(&g);
  CHECK_INT(test_allocs(), 0);
}
