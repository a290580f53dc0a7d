/*
 * driver - a runtime that may be killed at any moment, and the client that uses it, in one process.
 *
 *   driver DIR LOG begin SCENARIO[,SCENARIO...]   makes a session for each and plays its client to the end
 *   driver DIR LOG resume                         after a kill: waits until all sessions have finished by
 *                                                 themselves, prints them; then the clients go on: what waits
 *                                                 for an answer gets one, and a last message must be answered
 *   driver DIR LOG list                           prints the sessions
 *
 * DIR holds the store and what the fake tools keep (fakes.h). LOG gets one line of JSON for everything that
 * was acknowledged, the moment the client has it: {"k":"made"}, {"k":"sent"} (the answer to a send),
 * {"k":"event"} and {"k":"preview"} (of the stream), {"k":"resumed"}. Written with write(2): what a process
 * wrote before SIGKILL is there. Printed sessions are one line each: {"k":"settled" or "list","session":..,
 * "events":[..]}.
 *
 * Exit codes: 0; 2 broken; 3 over the time limit (what did not finish is on stderr).
 * Environment: CRASH_MODEL the model's file, CRASH_NO_TOOLS, CRASH_CLOCK_S (the wall clock is that much
 * ahead), CRASH_LIMIT_S (20), and in debug builds MOONRIG_FAULT and MOONRIG_SWITCH.
 * Everything runs on the loop's thread; tests/crash/suite judges.
 */
#include "fakes.h"
#include "net/http_client.h"

#include <stdarg.h>

enum { SESSIONS_MAX = 64, POLL_US = 3000 };

/* ---- scenarios: when this event came (so often since the last step), do that ---- */

struct step { const char *on; int count; const char *act; };
struct scenario { const char *name; struct step steps[8]; };
#define IDLE "session.status_idle"

static const struct scenario scenarios[] = {
  {"text", {{0, 0, "say:text one"}, {IDLE, 1, "say:text two"}, {IDLE, 1, "end"}}},
  {"counter", {{0, 0, "say:use counter"}, {IDLE, 1, "end"}}},
  {"lookup", {{0, 0, "say:use lookup"}, {IDLE, 1, "end"}}},
  {"bash", {{0, 0, "say:use bash"}, {IDLE, 1, "say:text two"}, {IDLE, 1, "end"}}},
  {"many", {{0, 0, "say:use many"}, {IDLE, 1, "end"}}},
  {"client", {{0, 0, "say:use client"}, {IDLE, 1, "answer"}, {IDLE, 1, "answer"}, {IDLE, 1, "end"}}},
  {"mixed", {{0, 0, "say:use mixed"}, {IDLE, 1, "answers+say"}, {IDLE, 1, "end"}}},
  {"asked", {{0, 0, "say:use asked"}, {IDLE, 1, "answer"}, {IDLE, 1, "answer"}, {IDLE, 1, "end"}}},
  {"verdicts", {{0, 0, "say:use asked"}, {IDLE, 1, "answers"}, {IDLE, 1, "end"}}},
  {"queue", {{0, 0, "say:go slow"}, {"event_delta", 3, "say:text two"}, {"sent", 1, "say:text three"}, {IDLE, 1, "end"}}},
  {"interrupt", {{0, 0, "say:go slow"}, {"event_delta", 5, "interrupt+say"}, {IDLE, 2, "end"}}},
  {"cut", {{0, 0, "say:use long"}, {"agent.tool_use", 1, "interrupt"}, {IDLE, 1, "say:text two"}, {IDLE, 1, "end"}}},
  {"unblock", {{0, 0, "say:use client"}, {IDLE, 1, "interrupt"}, {IDLE, 1, "say:text two"}, {IDLE, 1, "end"}}},
  {"retry", {{0, 0, "say:fail once"}, {IDLE, 1, "end"}}},
  {"refused", {{0, 0, "say:use none"}, {IDLE, 1, "end"}}},
};

struct world {
  struct mr_sys sys;
  struct mr_loop *loop;
  struct mr_store *store;
  struct mr_http_client *http;
  struct mr_models *models;
  struct mr_pool *pool;
  struct mr_domain *d;
  struct fakes fakes;
  struct fake_driver driver;
  yyjson_doc *config;
  int64_t ws, clock_us;
  int log;
  struct mr_timer limit, pause;
  const char *doing;
  struct client *clients[SESSIONS_MAX];
  int nclients, open, sending; /* streams and sends whose call is not done */
};

/* One session's client. */
struct client {
  struct world *w;
  char id[64];
  const struct scenario *sc;
  int step, seen;
  bool over;
  char pending[8][64];         /* tool uses of the newest idle that asks for action */
  int npending;
  char custom[16][64];         /* custom tool uses seen */
  int ncustom, verdicts;
};

/* A call of the client; it frees itself after done. */
struct req {
  struct mr_call c;
  struct world *w;
  struct client *cl;
  yyjson_doc *in;
  void (*fn)(struct req *r);
  bool done;
  char out[1 << 18];
};

static void client_event(struct client *cl, const char *type, yyjson_val *json);
static void turn_loop(struct world *w);

static void log_line(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void log_line(struct world *w, const char *fmt, ...)
{
  static char line[1 << 19];
  va_list ap;
  int n;

  va_start(ap, fmt);
  n = vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  if (n >= (int)sizeof line || write(w->log, line, (size_t)n) != n)
    die("log", "write failed");
}

/* ---- calls ---- */

static void req_done(struct mr_call *c)
{
  struct req *r = MR_OF(c, struct req, c);
  struct mr_loop *loop = r->w->loop;

  snprintf(r->out, sizeof r->out, MR_FMT, MR_ARG(mr_buf_get(&c->out)));
  if (c->code == MR_OK && strlen(r->out) != c->out.n)
    die("answer", "too long");
  r->done = true;
  if (r->fn)
    r->fn(r);
  mr_loop_stop(loop); /* whoever waits looks again */
}

static void req_free(struct req *r)
{
  mr_buf_free(&r->c.out);
  mr_arena_free(&r->c.arena);
  yyjson_doc_free(r->in);
  free(r);
}

static struct req *req_new(struct world *w, struct client *cl, const char *session, const char *json)
{
  struct req *r = calloc(1, sizeof *r);

  r->w = w;
  r->cl = cl;
  r->c.d = w->d;
  r->c.mem = &w->sys.mem;
  r->c.arena = mr_arena_new(&w->sys.mem, 1024);
  r->c.who.workspace = w->ws;
  r->c.path[0] = mr_arena_str(r->c.arena, mr_str_c(session));
  r->c.done = req_done;
  mr_buf_init(&r->c.out, &w->sys.mem, 1 << 24);
  r->in = yyjson_read(json ? json : "{}", strlen(json ? json : "{}"), 0);
  r->c.in = yyjson_doc_get_root(r->in);
  if (!r->in)
    die("bad JSON", json);
  return r;
}

/* Makes a call and runs the loop until it is answered. The caller frees. */
static struct req *ask(struct world *w, void (*op)(struct mr_call *c), const char *session, const char *json)
{
  struct req *r = req_new(w, NULL, session, json);

  op(&r->c);
  while (!r->done)
    turn_loop(w);
  if (r->c.code != MR_OK)
    die(json ? json : session, r->c.err.message);
  return r;
}

static const char *member(struct req *r, const char *pointer, char *out, size_t n)
{
  yyjson_doc *doc = yyjson_read(r->out, strlen(r->out), 0);
  const char *s = yyjson_get_str(yyjson_ptr_get(yyjson_doc_get_root(doc), pointer));
  snprintf(out, n, "%s", s ? s : "");
  yyjson_doc_free(doc);
  return out;
}

/* ---- the client's moves ---- */

static void on_sent(struct req *r)
{
  struct client *cl = r->cl;

  if (r->c.code != MR_OK)
    die("send", r->c.err.message);
  r->w->sending--;
  log_line(r->w, "{\"k\":\"sent\",\"session\":\"%s\",\"reply\":%s}\n", cl->id, r->out);
  client_event(cl, "sent", NULL);
  req_free(r);
}

static bool is_custom(const struct client *cl, const char *id)
{
  for (int i = 0; i < cl->ncustom; i++)
    if (strcmp(cl->custom[i], id) == 0)
      return true;
  return false;
}

/* An answer to one waiting call: what a custom tool found, or a verdict, allow and deny by turns. */
static void add_answer(struct client *cl, char *json, size_t n, const char *id)
{
  size_t at = strlen(json);

  if (is_custom(cl, id))
    snprintf(json + at, n - at, ",{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"%s\",\"content\":"
             "[{\"type\":\"text\",\"text\":\"done:human\"}]}", id);
  else
    snprintf(json + at, n - at, ",{\"type\":\"user.tool_confirmation\",\"tool_use_id\":\"%s\",\"result\":\"%s\"}",
             id, cl->verdicts++ % 2 == 0 ? "allow" : "deny");
}

static void act(struct client *cl, const char *what)
{
  char json[8192] = "", text[64] = "";
  struct req *r;

  if (strcmp(what, "end") == 0) {
    cl->over = true;
    mr_loop_stop(cl->w->loop);
    return;
  }
  if (strncmp(what, "interrupt", 9) == 0)
    snprintf(json, sizeof json, ",{\"type\":\"user.interrupt\"}");
  for (int i = 0; strncmp(what, "answer", 6) == 0 && i < (what[6] == 's' ? cl->npending : 1); i++)
    add_answer(cl, json, sizeof json, cl->pending[i]);
  if (strncmp(what, "say:", 4) == 0)
    snprintf(text, sizeof text, "%s", what + 4);
  else if (strstr(what, "+say"))
    snprintf(text, sizeof text, "text besides");
  if (text[0])
    snprintf(json + strlen(json), sizeof json - strlen(json),
             ",{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"%s\"}]}", text);
  memmove(json + 10, json, strlen(json) + 1);
  memcpy(json, "{\"events\":[", 11); /* over the first comma */
  snprintf(json + strlen(json), sizeof json - strlen(json), "]}");
  r = req_new(cl->w, cl, cl->id, json);
  r->fn = on_sent;
  cl->w->sending++;
  mr_sessions_events_send(&r->c);
}

/* What the client knows of waiting calls, from an event of the stream or of a list. */
static void learn(struct client *cl, const char *type, yyjson_val *json)
{
  yyjson_val *reason = mr_json_get(json, "stop_reason"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(mr_json_get(reason, "event_ids"));

  if (strcmp(type, "agent.custom_tool_use") == 0 && cl->ncustom < 16)
    snprintf(cl->custom[cl->ncustom++], sizeof cl->custom[0], "%s", mr_json_get_str(json, "id").p);
  if (strcmp(type, IDLE) != 0)
    return;
  cl->npending = 0;
  while (mr_json_get(reason, "event_ids") && cl->npending < 8 && (v = yyjson_arr_iter_next(&it)))
    snprintf(cl->pending[cl->npending++], sizeof cl->pending[0], "%s", yyjson_get_str(v));
}

static void client_event(struct client *cl, const char *type, yyjson_val *json)
{
  const struct step *st;

  learn(cl, type, json);
  if (!cl->sc || cl->over)
    return;
  st = &cl->sc->steps[cl->step];
  if (strcmp(type, st->on) != 0 || ++cl->seen < st->count)
    return;
  cl->seen = 0;
  cl->step++;
  act(cl, st->act);
}

/* ---- streams ---- */

static void on_opened(struct mr_call *c)
{
  struct req *r = MR_OF(c, struct req, c);
  r->done = true; /* for whoever opens it; the call goes on */
  mr_loop_stop(r->w->loop);
}

static int on_event(struct mr_call *c, struct mr_str name, int64_t pos, struct mr_str json)
{
  struct req *r = MR_OF(c, struct req, c);
  yyjson_doc *doc = yyjson_read(json.p, json.n, 0);
  char type[64];

  if (!doc)
    die("event", "is not JSON");
  snprintf(type, sizeof type, MR_FMT, MR_ARG(name));
  log_line(r->w, "{\"k\":\"%s\",\"session\":\"%s\",\"data\":" MR_FMT "}\n", pos ? "event" : "preview", r->cl->id,
           MR_ARG(json));
  client_event(r->cl, type, yyjson_doc_get_root(doc));
  yyjson_doc_free(doc);
  return MR_OK;
}

static void on_stream_end(struct req *r)
{
  r->w->open--;
  req_free(r);
}

static void follow(struct client *cl)
{
  struct req *r = req_new(cl->w, cl, cl->id, "{\"event_deltas\":[\"agent.message\",\"agent.thinking\"]}");

  r->fn = on_stream_end;
  r->c.opened = on_opened;
  r->c.event = on_event;
  cl->w->open++;
  mr_sessions_events_stream(&r->c);
  while (!r->done)
    turn_loop(cl->w);
  r->done = false;
}

/* ---- life ---- */

static int64_t clock_us(void *ud)
{
  return fake_now_us() + ((struct world *)ud)->clock_us;
}

static void print_line(void *ud, int level, struct mr_str line)
{
  (void)ud;
  if (level <= MR_LOG_WARN || getenv("CRASH_LOG"))
    fprintf(stderr, "[%d] " MR_FMT "\n", level, MR_ARG(line));
}

static void show_unfinished(struct world *w)
{
  struct req *r = req_new(w, NULL, NULL, "{\"limit\":1000}");
  mr_sessions_list(&r->c);
  for (int i = 0; i < 500 && !r->done; i++) {
    mr_loop_pump(w->loop, 0);
    usleep(1000);
  }
  fprintf(stderr, "driver: over the time limit while %s; sessions: %.4000s\n", w->doing, r->out);
  exit(3);
}

static void on_limit(struct mr_timer *t)
{
  struct world *w = MR_OF(t, struct world, limit);
  w->doing = w->doing ? w->doing : "starting";
  w->limit.fn = NULL;
  mr_loop_stop(w->loop);
}

/* Runs the loop until somebody stops it; every wait of the driver passes here or in ask. */
static void turn_loop(struct world *w)
{
  if (!w->limit.fn)
    show_unfinished(w);
  mr_loop_run(w->loop);
}

static void world_open(struct world *w, const char *dir, const char *log)
{
  const char *model = getenv("CRASH_MODEL"), *shift = getenv("CRASH_CLOCK_S"), *limit = getenv("CRASH_LIMIT_S");
  static const char config[] = "{\"retries\":{\"base_ms\":20,\"cap_ms\":40}}";
  char path[600], models[900];
  struct mr_config c = {.size = sizeof c, .wall_us = clock_us, .log = print_line, .ud = w};
  struct mr_store_opts so = {.dir = path};
  struct mr_models_opts mo = {0};
  struct mr_tool_runner tools = {&w->fakes, fake_owns, fake_start, fake_cancel};
  struct mr_domain_opts o = {0};
  struct mr_err err = {.size = sizeof err};

  w->clock_us = shift ? strtoll(shift, NULL, 10) * 1000000 : 0;
  w->log = open(log, O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0600);
  mkdir(dir, 0700);
  snprintf(path, sizeof path, "%s/store", dir);
  snprintf(models, sizeof models, "{\"scripted\":{\"file\":\"%s\"},\"route\":{\"m\":\"scripted\"}}",
           model ? model : "tests/crash/model.jsonl");
  w->config = yyjson_read(config, strlen(config), 0);
  mr_sys_init(&w->sys, &c);
  mo.sys = &w->sys;
  mo.config = mr_str_c(models);
  if (w->log < 0 || mr_loop_new(&w->loop, &w->sys, NULL, &err) || mr_store_open(&w->store, w->loop, &so, &err) ||
      mr_http_client_new(&w->http, w->loop, NULL, &err) ||
      mr_pool_new(&w->pool, w->loop, 1, 100, "driver", NULL, NULL, NULL, &err))
    die("open", w->log < 0 ? log : err.message);
  mo.loop = w->loop;
  mo.http = w->http;
  fakes_init(&w->fakes, dir, w->loop, &w->d);
  w->driver.base.v = &fake_vtable;
  w->driver.f = &w->fakes;
  o = (struct mr_domain_opts){.loop = w->loop, .store = w->store, .pool = w->pool, .sandbox = &w->driver.base,
                              .tools = &tools, .config = yyjson_doc_get_root(w->config)};
  if (!w->config || mr_models_new(&w->models, &mo, &err))
    die("models", err.message);
  o.models = w->models;
  if (mr_domain_new(&w->d, &o, &err) || mr_store_workspace(w->store, MR_S("default"), &w->ws, &err))
    die("domain", err.message);
  mr_timer_init(&w->limit, on_limit);
  mr_timer_set(w->loop, &w->limit, (limit ? strtoll(limit, NULL, 10) : 20) * 1000000);
  mr_domain_start(w->d);
}

static void world_close(struct world *w)
{
  mr_timer_cancel(w->loop, &w->limit);
  mr_timer_cancel(w->loop, &w->pause);
  mr_domain_drain(w->d, NULL, NULL);
  while (w->open)
    turn_loop(w);
  mr_domain_cut(w->d);
  mr_loop_pump(w->loop, 0);
  mr_pool_free(&w->pool);
  mr_store_close(&w->store);
  mr_domain_free(&w->d);
  mr_models_free(&w->models);
  mr_http_client_free(&w->http);
  mr_loop_free(&w->loop);
  yyjson_doc_free(w->config);
  for (int i = 0; i < w->nclients; i++)
    free(w->clients[i]);
  close(w->log);
  close(w->fakes.runs);
}

static struct client *client_new(struct world *w, const char *id)
{
  struct client *cl = calloc(1, sizeof *cl);

  if (w->nclients == SESSIONS_MAX)
    die("clients", "too many");
  cl->w = w;
  snprintf(cl->id, sizeof cl->id, "%s", id);
  return w->clients[w->nclients++] = cl;
}

/* ---- begin ---- */

static void make_session(struct world *w, const char *agent, const char *env, const char *name)
{
  char json[512], id[64];
  struct client *cl;
  struct req *r;

  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\",\"title\":\"%s\"}", agent, env, name);
  r = ask(w, mr_sessions_create, NULL, json);
  cl = client_new(w, member(r, "/id", id, sizeof id));
  log_line(w, "{\"k\":\"made\",\"session\":\"%s\",\"scenario\":\"%s\"}\n", id, name);
  req_free(r);
  for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
    if (strcmp(scenarios[i].name, name) == 0)
      cl->sc = &scenarios[i];
  if (!cl->sc)
    die("no such scenario", name);
  follow(cl);
}

static void begin(struct world *w, char *names)
{
  static const char agent_json[] =
      "{\"name\":\"assistant\",\"model\":\"m\",\"tools\":[{\"type\":\"agent_toolset_20260401\",\"configs\":[{\"name\":"
      "\"write\",\"permission_policy\":{\"type\":\"always_ask\"}}]},"
      "{\"type\":\"custom\",\"name\":\"counter\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}},"
      "{\"type\":\"custom\",\"name\":\"lookup\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}},"
      "{\"type\":\"custom\",\"name\":\"ask_human\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}]}";
  char agent[64], env[64] = "";
  struct req *r = ask(w, mr_agents_create, NULL, agent_json);

  member(r, "/id", agent, sizeof agent);
  req_free(r);
  while (!env[0]) {
    r = ask(w, mr_environments_list, NULL, NULL);
    member(r, "/data/0/id", env, sizeof env);
    req_free(r);
  }
  for (char *name = names, *next; name; name = next) {
    next = strchr(name, ',');
    if (next)
      *next++ = '\0';
    make_session(w, agent, env, name);
  }
  w->doing = "playing the scenarios";
  for (int i = 0; i < w->nclients; i++)
    act(w->clients[i], w->clients[i]->sc->steps[w->clients[i]->step++].act);
  for (int i = 0; i < w->nclients; i++)
    while (!w->clients[i]->over)
      turn_loop(w);
}

/* ---- resume and list ---- */

static void show(struct world *w, struct client *cl, const char *kind)
{
  struct req *s = ask(w, mr_sessions_retrieve, cl->id, NULL), *e = ask(w, mr_sessions_events_list, cl->id, NULL);
  printf("{\"k\":\"%s\",\"session\":%s,\"events\":%s}\n", kind, s->out, e->out);
  req_free(s);
  req_free(e);
}

static void find_sessions(struct world *w)
{
  struct req *r = ask(w, mr_sessions_list, NULL, "{\"limit\":1000,\"order\":\"asc\"}");
  yyjson_doc *doc = yyjson_read(r->out, strlen(r->out), 0);
  yyjson_arr_iter it = yyjson_arr_iter_with(mr_json_get(yyjson_doc_get_root(doc), "data"));
  yyjson_val *v;

  while ((v = yyjson_arr_iter_next(&it)))
    client_new(w, mr_json_get_str(v, "id").p);
  yyjson_doc_free(doc);
  req_free(r);
}

/* Idle, and nothing sent waits to be taken; the client learns what it is asked. */
static bool settled(struct client *cl)
{
  struct req *s = ask(cl->w, mr_sessions_retrieve, cl->id, NULL), *e = NULL;
  struct mr_str last = {0};
  char status[32];
  bool yes = strcmp(member(s, "/status", status, sizeof status), "idle") == 0;
  yyjson_doc *doc;
  yyjson_arr_iter it;
  yyjson_val *v;

  req_free(s);
  if (!yes)
    return false;
  e = ask(cl->w, mr_sessions_events_list, cl->id, NULL);
  doc = yyjson_read(e->out, strlen(e->out), 0);
  it = yyjson_arr_iter_with(mr_json_get(yyjson_doc_get_root(doc), "data"));
  cl->ncustom = cl->npending = 0;
  while ((v = yyjson_arr_iter_next(&it))) {
    yes = yes && !yyjson_is_null(mr_json_get(v, "processed_at"));
    last = mr_json_get_str(v, "type");
    learn(cl, last.p, v);
  }
  yes = yes && (!last.p || mr_str_is(last, IDLE)); /* what was read first may be older */
  yyjson_doc_free(doc);
  req_free(e);
  return yes;
}

static void on_pause(struct mr_timer *t)
{
  mr_loop_stop(MR_OF(t, struct world, pause)->loop);
}

static void settle(struct world *w, const char *doing)
{
  w->doing = doing;
  while (w->sending)
    turn_loop(w);
  for (int i = 0; i < w->nclients; i++)
    while (!settled(w->clients[i])) {
      mr_timer_init(&w->pause, on_pause);
      mr_timer_set(w->loop, &w->pause, POLL_US);
      turn_loop(w);
    }
}

static void list(struct world *w)
{
  find_sessions(w);
  for (int i = 0; i < w->nclients; i++)
    show(w, w->clients[i], "list");
}

static void resume(struct world *w)
{
  find_sessions(w);
  settle(w, "waiting for the sessions to finish by themselves");
  for (int i = 0; i < w->nclients; i++)
    show(w, w->clients[i], "settled");
  log_line(w, "{\"k\":\"resumed\"}\n");
  for (int i = 0; i < w->nclients; i++) {
    follow(w->clients[i]);
    if (w->clients[i]->npending)
      act(w->clients[i], "answers");
  }
  settle(w, "waiting for the turns that were answered");
  for (int i = 0; i < w->nclients; i++)
    act(w->clients[i], "say:last words");
  settle(w, "waiting for the last words");
  for (int i = 0; i < w->nclients; i++)
    show(w, w->clients[i], "list");
}

int main(int argc, char **argv)
{
  static struct world w;

  if (argc < 4)
    die("usage", "driver DIR LOG begin SCENARIOS | resume | list");
  setvbuf(stdout, NULL, _IOFBF, 1 << 16);
  world_open(&w, argv[1], argv[2]);
  if (strcmp(argv[3], "begin") == 0 && argc == 5)
    begin(&w, argv[4]);
  else if (strcmp(argv[3], "resume") == 0)
    resume(&w);
  else if (strcmp(argv[3], "list") == 0)
    list(&w);
  else
    die("usage", "begin SCENARIOS, resume or list");
  world_close(&w);
  return 0;
}
