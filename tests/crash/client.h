/*
 * client - the client of the crash driver: what it sends when, what it knows, and the log of everything that
 * it was told. One struct client for each session, moved on by the events of its stream.
 *
 * A scenario is a list of steps: when an event of this type came so often since the last step, do that. The
 * log is written the moment a reply or an event is there, one line of JSON each (see driver.c).
 * Loop thread; included by driver.c alone, which runs the loop (turn_loop).
 */
#ifndef MR_TEST_CRASH_CLIENT_H
#define MR_TEST_CRASH_CLIENT_H

#include "fakes.h"
#include "net/http_client.h"

#include <stdarg.h>

enum { SESSIONS_MAX = 64 };

/* ---- scenarios: when this event came (so often since the last step), do that ---- */

struct step { const char *on; int count; const char *act; };
/* agent: 0 the plain one, 1 a coordinator; priced: its model has a list price, and the session a budget. */
struct scenario { const char *name; struct step steps[8]; int agent; bool priced; };
#define IDLE "session.status_idle"
#define GRADING "span.outcome_evaluation_start"
#define STARTED "session.thread_created"

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
  {"waiting", {{0, 0, "say:fail once"}, {"session.status_rescheduled", 1, "say:text two"}, {IDLE, 1, "end"}}},
  {"refused", {{0, 0, "say:use none"}, {IDLE, 1, "end"}}},
  {"graded", {{0, 0, "outcome"}, {IDLE, 1, "say:text two"}, {IDLE, 1, "end"}}},
  {"ungraded", {{0, 0, "outcome"}, {GRADING, 1, "interrupt"}, {IDLE, 1, "say:text two"}, {IDLE, 1, "end"}}},
  {"regraded", {{0, 0, "outcome"}, {GRADING, 2, "say:text two"}, {IDLE, 1, "end"}}},
  {"compact", {{0, 0, "say:use compact"}, {IDLE, 1, "say:text two"}, {IDLE, 1, "end"}}},
  {"compact_cut", {{0, 0, "say:use compact"}, {"span.model_request_start", 2, "interrupt"}, {IDLE, 1, "end"}}},
  {"spill", {{0, 0, "say:use big"}, {IDLE, 1, "end"}}},
  {"spill_cut", {{0, 0, "say:use big"}, {"agent.tool_use", 1, "interrupt"}, {IDLE, 1, "end"}}},
  {"budget", {{0, 0, "say:use budget"}, {IDLE, 1, "raise"}, {IDLE, 1, "end"}}, 0, true},
  /* two children each */
  {"family", {{0, 0, "say:start tools"}, {IDLE, 1, "say:text two"}, {IDLE, 1, "end"}}, 1},
  {"family_asked", {{0, 0, "say:start asked"}, {IDLE, 1, "answer"}, {IDLE, 1, "answers"}, {IDLE, 1, "end"}}, 1},
  {"family_client", {{0, 0, "say:start client"}, {IDLE, 1, "answers+say"}, {IDLE, 1, "end"}}, 1},
  {"family_retry", {{0, 0, "say:start flaky"}, {IDLE, 1, "end"}}, 1},
  {"family_dies", {{0, 0, "say:start broken"}, {IDLE, 1, "end"}}, 1},
  {"family_graded", {{0, 0, "outcome:family"}, {IDLE, 1, "end"}}, 1},
  {"family_cut", {{0, 0, "say:start long"}, {STARTED, 2, "interrupt"}, {IDLE, 1, "say:text two"}, {IDLE, 1, "end"}}, 1},
  {"family_budget", {{0, 0, "say:start costly"}, {IDLE, 1, "raise"}, {IDLE, 1, "end"}}, 1, true},
  {"advised", {{0, 0, "say:get advice"}, {IDLE, 1, "end"}}, 1},
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
  struct mr_timer limit, pause, stopper;
  const char *doing;
  bool drained, stop, fails;
  struct client *clients[SESSIONS_MAX];
  int nclients, open, sending, calls; /* streams, sends, calls of all kinds that are not done */
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
  bool paused;                 /* the newest idle is for the budget */
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
static void follow_thread(struct client *cl, struct mr_str thread);
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
  r->w->calls--;
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

  w->calls++; /* each one that is made is started */
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

/* Makes a call about a thread and runs the loop until it is answered. The caller frees. */
static struct req *ask_thread(struct world *w, void (*op)(struct mr_call *c), const char *session, struct mr_str thread,
                              const char *json)
{
  struct req *r = req_new(w, NULL, session, json);

  r->c.path[1] = mr_arena_str(r->c.arena, thread);
  op(&r->c);
  while (!r->done)
    turn_loop(w);
  if (r->c.code != MR_OK)
    die(json ? json : session, r->c.err.message);
  return r;
}

static struct req *ask(struct world *w, void (*op)(struct mr_call *c), const char *session, const char *json)
{
  return ask_thread(w, op, session, mr_str_n("", 0), json);
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

/* A commit failed, as this run is told to have it: the client plays no more, the session goes on. */
static void give_up(struct client *cl)
{
  cl->over = true;
  mr_loop_stop(cl->w->loop);
}

static void on_sent(struct req *r)
{
  struct client *cl = r->cl;

  r->w->sending--;
  if (r->c.code != MR_OK && r->w->fails) {
    give_up(cl);
    req_free(r);
    return;
  }
  if (r->c.code != MR_OK && r->w->stop) { /* refused, and so not acknowledged */
    req_free(r);
    return;
  }
  if (r->c.code != MR_OK)
    die("send", r->c.err.message);
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

static void on_raised(struct req *r)
{
  r->w->sending--;
  if (r->c.code != MR_OK && r->w->fails)
    give_up(r->cl);
  else if (r->c.code != MR_OK && !r->w->stop)
    die("raise", r->c.err.message);
  req_free(r);
}

/* The session's budget is taken away. */
static void raise_budget(struct client *cl)
{
  struct req *r = req_new(cl->w, cl, cl->id, "{\"budget\":null}");

  r->fn = on_raised;
  cl->w->sending++;
  mr_sessions_update(&r->c);
}

static void act(struct client *cl, const char *what)
{
  char json[8192] = "", text[64] = "";
  struct req *r;

  if (strcmp(what, "raise") == 0) {
    raise_budget(cl);
    return;
  }

  if (strcmp(what, "end") == 0) {
    cl->over = true;
    mr_loop_stop(cl->w->loop);
    return;
  }
  if (strncmp(what, "interrupt", 9) == 0)
    snprintf(json, sizeof json, ",{\"type\":\"user.interrupt\"}");
  for (int i = 0; strncmp(what, "answer", 6) == 0 && i < (what[6] == 's' ? cl->npending : 1); i++)
    add_answer(cl, json, sizeof json, cl->pending[i]);
  if (strncmp(what, "outcome", 7) == 0)
    snprintf(json, sizeof json, ",{\"type\":\"user.define_outcome\",\"description\":\"the %s work\",\"rubric\":{\"type\":"
             "\"text\",\"content\":\"it is good\"}}", what[7] ? what + 8 : "own");
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
  cl->paused = mr_str_is(mr_json_get_str(reason, "type"), "budget_reached");
  while (mr_json_get(reason, "event_ids") && cl->npending < 8 && (v = yyjson_arr_iter_next(&it)))
    snprintf(cl->pending[cl->npending++], sizeof cl->pending[0], "%s", yyjson_get_str(v));
}

static void client_event(struct client *cl, const char *type, yyjson_val *json)
{
  const struct step *st;

  learn(cl, type, json);
  if (strcmp(type, STARTED) == 0)
    follow_thread(cl, mr_json_get_str(json, "session_thread_id"));
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
  if (r->c.code != MR_E_CLOSED && r->w->fails)
    give_up(r->cl);
  else if (r->c.code != MR_E_CLOSED)
    die("stream", r->c.err.message);
  r->w->open--;
  req_free(r);
}

static int on_thread_event(struct mr_call *c, struct mr_str name, int64_t pos, struct mr_str json)
{
  struct req *r = MR_OF(c, struct req, c);
  (void)name;
  if (pos)
    log_line(r->w, "{\"k\":\"thread_event\",\"session\":\"%s\",\"thread\":\"" MR_FMT "\",\"data\":" MR_FMT "}\n", r->cl->id,
             MR_ARG(r->c.path[1]), MR_ARG(json));
  return MR_OK;
}

/* It may be over before it is open. */
static void on_thread_stream_end(struct req *r)
{
  r->w->open--;
  req_free(r);
}

/* A child's own stream, from now on; nobody waits for it. */
static void follow_thread(struct client *cl, struct mr_str thread)
{
  struct req *r = req_new(cl->w, cl, cl->id, NULL);

  r->c.path[1] = mr_arena_str(r->c.arena, thread);
  r->fn = on_thread_stream_end;
  r->c.opened = on_opened;
  r->c.event = on_thread_event;
  cl->w->open++;
  mr_sessions_threads_stream(&r->c);
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

#endif
