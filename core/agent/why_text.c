/*
 * why_text.c - what a session waits for, in one sentence and in fields: the second half of the operation sessions.why.
 * See why_t.h. Pure, but for the answer that it writes.
 */
#include "agent/work_t.h"
#include "agent/price.h"
#include "agent/session_t.h"
#include "agent/toolset.h"
#include "agent/why_t.h"

enum { WAITS_MAX = 64, SAID_MAX = 4 };

struct wait {
  const char *kind;
  struct mr_str name, event_id;
  const struct mr_why_thread *thread;
  int64_t since_us, due_us; /* due 0: no time is set */
  const char *text;
};
struct waits {
  struct mr_why *y;
  struct mr_arena *a;
  struct wait v[WAITS_MAX];
  int n, more;
};

/* "12 s", "3 min", "2 h", "5 d" */
static const char *span_text(struct mr_arena *a, int64_t us)
{
  long long s = us < 0 ? 0 : (us + 500000) / 1000000;
  const char *t = s < 120      ? mr_arena_printf(a, "%lld s", s)
                  : s < 7200   ? mr_arena_printf(a, "%lld min", s / 60)
                  : s < 172800 ? mr_arena_printf(a, "%lld h", s / 3600)
                               : mr_arena_printf(a, "%lld d", s / 86400);
  return t ? t : "?";
}

static const char *ago(struct waits *l, int64_t us)
{
  return span_text(l->a, l->y->now_us - us);
}

static int64_t cents(struct mr_str amount)
{
  int64_t v = 0;
  mr_str_int(amount, &v);
  return v;
}

static const char *usd(struct mr_arena *a, int64_t v)
{
  return mr_arena_printf(a, "$%lld.%02lld", (long long)(v / 100), (long long)(v % 100));
}

/* text NULL: no memory; the wait is left out of the sentence. */
static void add(struct waits *l, struct wait w)
{
  if (w.text && w.thread && w.thread != l->y->threads)
    w.text = mr_arena_printf(l->a, "thread " MR_FMT ": %s", MR_ARG(w.thread->name), w.text);
  if (!w.text) return;
  if (l->n < WAITS_MAX)
    l->v[l->n++] = w;
  else
    l->more++;
}

/* ---- calls ---- */

/* Of a session in a self-hosted environment: has anyone taken it from the queue? */
static const char *worker(const struct mr_why *y)
{
  struct mr_domain *d = y->c->d;
  struct mr_work *w = mr_work_of_session(d, y->c->who.workspace, y->c->path[0]);
  enum mr_work_state state = w ? mr_work_shows(w, mr_loop_wall_us(d->loop)) : MR_WORK_STOPPED;

  return state == MR_WORK_STOPPED  ? ""
         : state == MR_WORK_QUEUED ? ", and none has taken the session"
                                   : ", and one has the session";
}

static void wait_for_client(struct waits *l, const struct mr_why_use *u, const struct mr_why_thread *t)
{
  struct wait w = {
      .name = u->name, .event_id = u->id, .thread = t, .since_us = u->at_us ? u->at_us : l->y->since_us};
  const char *since = ago(l, w.since_us);

  if (!u->type.n) {
    w.kind = "answer";
    w.text = mr_arena_printf(l->a, "waits for an answer to " MR_FMT " since %s", MR_ARG(u->id), since);
  } else if (u->ask && !u->confirmed) {
    w.kind = "approval";
    w.text = mr_arena_printf(l->a, "waits for approval of " MR_FMT " (" MR_FMT ") since %s", MR_ARG(u->name),
                             MR_ARG(u->id), since);
  } else if (mr_str_is(u->type, "agent.custom_tool_use")) {
    w.kind = "client_tool";
    w.text =
        mr_arena_printf(l->a, "waits for the client's answer to custom tool " MR_FMT " (" MR_FMT ") since %s",
                        MR_ARG(u->name), MR_ARG(u->id), since);
  } else {
    w.kind = "worker";
    w.text = mr_arena_printf(l->a, "waits for a worker to run the tool " MR_FMT " (" MR_FMT ") since %s%s",
                             MR_ARG(u->name), MR_ARG(u->id), since, worker(l->y));
  }
  add(l, w);
}

static void wait_for_tool(struct waits *l, const struct mr_why_use *u)
{
  struct wait w = {.name = u->name, .event_id = u->id, .thread = u->thread};
  const char *verb = u->intent_us ? "runs" : "is about to run", *since;

  w.since_us = u->intent_us ? u->intent_us : u->at_us;
  since = ago(l, w.since_us);
  if (u->claimed) {
    w.kind = "handler";
    w.text =
        mr_arena_printf(l->a, "handler " MR_FMT " of this server %s since %s", MR_ARG(u->name), verb, since);
  } else if (mr_str_is(u->type, "agent.mcp_tool_use")) {
    w.kind = "mcp_tool";
    w.text = mr_arena_printf(l->a, "tool " MR_FMT " of the MCP server " MR_FMT " %s since %s", MR_ARG(u->name),
                             MR_ARG(u->server), verb, since);
  } else if (mr_toolset_web(u->name)) {
    w.kind = "server_tool";
    w.text = mr_arena_printf(l->a, "tool " MR_FMT " %s on this server since %s", MR_ARG(u->name), verb, since);
  } else {
    w.kind = "sandbox_tool";
    w.text =
        l->y->doing.n
            ? mr_arena_printf(l->a, "tool " MR_FMT " waits since %s: installing packages (" MR_FMT ")",
                              MR_ARG(u->name), since, MR_ARG(l->y->doing))
            : mr_arena_printf(l->a, "tool " MR_FMT " %s in the sandbox since %s", MR_ARG(u->name), verb, since);
  }
  add(l, w);
}

/* Is it the client who is to say or do something? */
static bool clients(const struct mr_why *y, const struct mr_why_use *u)
{
  if (u->ask && !u->confirmed) return true;
  if (u->claimed) return false;
  return mr_str_is(u->type, "agent.custom_tool_use") ||
         (y->self_hosted && mr_str_is(u->type, "agent.tool_use") && !mr_toolset_web(u->name));
}

/* The open calls of a thread; how many. */
static int calls(struct waits *l, const struct mr_why_thread *t)
{
  int n = 0;

  for (const struct mr_why_use *u = l->y->uses; u; u = u->next) {
    if (u->thread != t || u->resolved || u->outcome || u->deny || !u->type.n) continue;
    n++;
    if (clients(l->y, u))
      wait_for_client(l, u, t);
    else
      wait_for_tool(l, u);
  }
  return n;
}

/* ---- threads ---- */

static void retry(struct waits *l, const struct mr_why_thread *t, int64_t due_us)
{
  struct mr_why *y = l->y;
  struct wait w = {.kind = "retry", .thread = t, .since_us = t->since_us ? t->since_us : y->since_us};

  w.due_us = t->retry_due_us ? t->retry_due_us : due_us;
  w.text = mr_arena_printf(l->a, "retry %d of %d %s%s after " MR_FMT, t->retry > 0 ? t->retry : 1,
                           y->c->d->retry_max, w.due_us > y->now_us ? "in " : "",
                           w.due_us > y->now_us ? span_text(l->a, w.due_us - y->now_us) : "is due",
                           MR_ARG(t->error.n ? t->error : MR_S("an error")));
  add(l, w);
}

/* False: nothing of it is open. */
static bool running(struct waits *l, const struct mr_why_thread *t)
{
  struct wait w = {.thread = t};

  if (t->span_open && t == l->y->threads && t->before_tokens >= mr_compact_at(l->y->c->d, l->y->model)) {
    w.kind = "summary";
    w.since_us = t->span_us;
    w.name = l->y->model;
    w.text = mr_arena_printf(l->a, "the history is being summed up by " MR_FMT " since %s", MR_ARG(w.name),
                             ago(l, t->span_us));
  } else if (t->span_open) {
    w.kind = "model";
    w.since_us = t->span_us;
    w.name = t == l->y->threads ? l->y->model : (struct mr_str){0};
    w.text = mr_arena_printf(l->a, "a model request%s" MR_FMT " runs since %s", w.name.n ? " to " : "",
                             MR_ARG(w.name), ago(l, t->span_us));
    if (w.text && t == l->y->threads && l->y->revision)
      w.text = mr_arena_printf(l->a, "%s (revision %d for the outcome)", w.text, l->y->revision);
  } else if (t->grading) {
    w.kind = "grader";
    w.since_us = t->grade_us;
    w.text = mr_arena_printf(l->a, "the outcome is being graded (iteration %d) since %s", t->iteration,
                             ago(l, t->grade_us));
  } else {
    return calls(l, t) > 0;
  }
  add(l, w);
  return true;
}

static void between(struct waits *l, const struct mr_why_thread *t)
{
  struct wait w = {.kind = "step", .thread = t, .since_us = t->since_us ? t->since_us : l->y->since_us};

  w.text = mr_arena_printf(l->a, "runs since %s, between two steps", ago(l, w.since_us));
  add(l, w);
}

static void children(struct waits *l)
{
  for (const struct mr_why_thread *t = l->y->threads->next; t; t = t->next) {
    struct wait w = {.kind = "answer", .thread = t, .since_us = t->since_us};
    if (mr_str_is(t->status, "running")) {
      if (!running(l, t)) between(l, t);
    } else if (mr_str_is(t->status, "rescheduled")) {
      retry(l, t, 0);
    } else if (mr_str_is(t->stop, "requires_action") && calls(l, t) == 0) {
      w.text = mr_arena_printf(l->a, "waits for an answer since %s", ago(l, t->since_us));
      add(l, w);
    }
  }
}

/* ---- the session ---- */

static const char *cap_text(struct waits *l)
{
  static const char *const names[] = {NULL, "token", "time", "step"};
  static const char *const units[] = {NULL, "tokens", "seconds", "model requests"};
  const struct mr_why *y = l->y;
  const char *of = y->default_caps ? " (the configuration's caps)" : "";

  if (y->cap == MR_CAP_REPEATS)
    return mr_arena_printf(l->a,
                           "repeat cap reached: " MR_FMT
                           " was called %lld times in a row with the same input%s; "
                           "goes on when the budget is changed, or given again",
                           MR_ARG(y->cap_tool), (long long)y->cap_used, of);
  if (y->cap == MR_CAP_COST)
    return mr_arena_printf(l->a, "the budget of %s is reached (%s spent): goes on when it is raised",
                           usd(l->a, y->caps.max[MR_CAP_COST] / MR_CENT), usd(l->a, cents(y->cost)));
  if (y->cap == MR_CAPS)
    return "the budget was reached: goes on with the next message"; /* it was raised since */
  return mr_arena_printf(l->a, "%s cap reached: %lld of %lld %s%s; raise budget.%s", names[y->cap],
                         (long long)y->cap_used, (long long)y->cap_max, units[y->cap], of, mr_cap_key(y->cap));
}

static void at_cap(struct waits *l)
{
  struct mr_why *y = l->y;
  struct wait w = {.kind = "budget", .since_us = y->since_us, .text = cap_text(l)};

  if (y->cap < MR_CAPS) w.name = mr_str_c(mr_cap_key(y->cap));
  for (const struct mr_why_thread *t = y->threads; t && y->cap_thread.n; t = t->next)
    if (mr_str_eq(t->id, y->cap_thread)) w.thread = t;
  add(l, w);
}

static const char *rest_text(struct waits *l)
{
  const struct mr_why *y = l->y;
  const char *when = ago(l, y->since_us);

  if (!y->begun) return mr_arena_printf(l->a, "has not begun: waits for a first message since %s", when);
  if (mr_str_is(y->stop, "refusal"))
    return mr_arena_printf(l->a, "the model refused %s ago%s" MR_FMT "; waits for a message", when,
                           y->explanation.n ? ": " : "", MR_ARG(y->explanation));
  if (mr_str_is(y->stop, "retries_exhausted"))
    return mr_arena_printf(l->a, "gave up %s ago after " MR_FMT ": " MR_FMT "; a message tries again", when,
                           MR_ARG(y->threads->error.n ? y->threads->error : MR_S("an error")),
                           MR_ARG(y->threads->error_message));
  if (y->interrupted) return mr_arena_printf(l->a, "interrupted %s ago; waits for a message", when);
  return mr_arena_printf(l->a, "finished %s ago: " MR_FMT "; waits for a message", when,
                         MR_ARG(y->stop.n ? y->stop : MR_S("end_turn")));
}

static void idle(struct waits *l)
{
  struct mr_why *y = l->y;
  struct wait w = {.kind = "message", .since_us = y->since_us};

  if (y->nnamed) {
    for (int i = 0; i < y->nnamed; i++)
      wait_for_client(l, y->named[i], y->named[i]->thread);
  } else if (mr_str_is(y->stop, "budget_reached")) {
    at_cap(l);
  } else {
    w.text = rest_text(l);
    add(l, w);
  }
}

static const char *end_text(struct waits *l)
{
  const struct mr_why *y = l->y;

  if (y->archived_us) return mr_arena_printf(l->a, "archived %s ago", ago(l, y->archived_us));
  if (mr_str_is(y->threads->error_retry, "terminal"))
    return mr_arena_printf(l->a, "terminated %s ago after " MR_FMT ": " MR_FMT, ago(l, y->since_us),
                           MR_ARG(y->threads->error), MR_ARG(y->threads->error_message));
  return mr_arena_printf(l->a, "terminated %s ago", ago(l, y->since_us));
}

static void sentence(struct waits *l, struct mr_buf *b)
{
  const struct mr_why *y = l->y;

  if (mr_str_is(y->status, "terminated")) {
    const char *text = end_text(l);
    mr_buf_c(b, text ? text : "terminated");
  }
  for (int i = 0; i < l->n && i < SAID_MAX; i++)
    mr_buf_printf(b, "%s%s", i ? "; " : "", l->v[i].text);
  if (l->n + l->more > SAID_MAX) mr_buf_printf(b, "; and %d more", l->n + l->more - SAID_MAX);
  if (y->queued) mr_buf_printf(b, "; %d input%s queued", y->queued, y->queued == 1 ? " is" : "s are");
}

/* The call that lets it go on: the same caps, but the one that is reached, which is to be twice what it was or what
 * was used of it, whichever is more: what is used already no update may ask for. */
static const char *raise_command(struct waits *l)
{
  struct mr_why *y = l->y;
  struct mr_caps caps = y->caps;
  const char *text;
  struct mr_buf b;
  struct mr_jw w;

  if (y->cap < MR_CAP_REPEATS) {
    int64_t most = y->cap_used > caps.max[y->cap] ? y->cap_used : caps.max[y->cap];
    caps.max[y->cap] = most < INT64_MAX / 2 ? 2 * most : most;
  }
  mr_buf_init(&b, y->c->mem, 4096);
  mr_jw_init(&w, &b);
  mr_budget_write(&w, &caps);
  text = mr_arena_printf(l->a,
                         "moonrig api sessions.update '{\"session_id\":\"" MR_FMT "\",\"budget\":" MR_FMT "}'",
                         MR_ARG(y->c->path[0]), MR_ARG(mr_buf_get(&b)));
  mr_buf_free(&b);
  return text;
}

static const char *command(struct waits *l)
{
  const struct mr_why *y = l->y;
  struct mr_str id = y->c->path[0];

  if (mr_str_is(y->status, "terminated")) return mr_arena_printf(l->a, "moonrig logs " MR_FMT, MR_ARG(id));
  if (!mr_str_is(y->status, "idle")) return mr_arena_printf(l->a, "moonrig logs " MR_FMT " -f", MR_ARG(id));
  if (!y->nnamed && mr_str_is(y->stop, "budget_reached") && y->cap < MR_CAPS) return raise_command(l);
  return mr_arena_printf(l->a, "moonrig attach " MR_FMT, MR_ARG(id));
}

/* ---- the answer ---- */

static void str_or_null(struct mr_jw *w, const char *key, struct mr_str s)
{
  mr_jw_key(w, key);
  if (s.n)
    mr_jw_str(w, s);
  else
    mr_jw_null(w);
}

static void write_wait(struct mr_jw *w, const struct wait *x)
{
  mr_jw_obj(w);
  mr_jw_kc(w, "kind", x->kind);
  str_or_null(w, "name", x->name);
  str_or_null(w, "event_id", x->event_id);
  str_or_null(w, "thread_id", x->thread ? x->thread->id : (struct mr_str){0});
  str_or_null(w, "thread", x->thread ? x->thread->name : (struct mr_str){0});
  mr_jw_ktime(w, "since", x->since_us);
  mr_jw_ktime(w, "due_at", x->due_us ? x->due_us : -1);
  mr_jw_kc(w, "text", x->text);
  mr_jw_obj_end(w);
}

static void find(struct waits *l)
{
  struct mr_why *y = l->y;

  if (mr_str_is(y->status, "idle")) {
    idle(l);
  } else if (mr_str_is(y->status, "rescheduling")) {
    if (!y->multiagent || mr_str_is(y->threads->status, "rescheduled")) retry(l, y->threads, y->due_us);
    children(l);
  } else if (mr_str_is(y->status, "running")) {
    if (mr_str_is(y->threads->status, "rescheduled"))
      retry(l, y->threads, y->due_us);
    else
      running(l, y->threads);
    children(l);
    if (l->n == 0) between(l, y->threads);
  }
}

void mr_why_write(struct mr_why *y)
{
  struct mr_arena *a = y->c->arena;
  struct waits *l = mr_arena_alloc(a, sizeof *l);
  struct mr_buf text;
  struct mr_jw w;

  mr_buf_init(&text, y->c->mem, 1 << 20);
  mr_jw_init(&w, &y->c->out);
  if (l) {
    l->y = y;
    l->a = a;
    find(l);
    sentence(l, &text);
  }
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "session_why");
  mr_jw_kstr(&w, "session_id", y->c->path[0]);
  mr_jw_kstr(&w, "state", y->status);
  mr_jw_ktime(&w, "since", mr_str_is(y->status, "terminated") && y->archived_us ? y->archived_us : y->since_us);
  mr_jw_kstr(&w, "sentence", mr_buf_get(&text));
  mr_jw_key(&w, "waiting_on");
  mr_jw_arr(&w);
  for (int i = 0; l && i < l->n; i++)
    write_wait(&w, &l->v[i]);
  mr_jw_arr_end(&w);
  mr_jw_kint(&w, "queued_inputs", y->queued);
  str_or_null(&w, "stop_reason", mr_str_is(y->status, "idle") ? y->stop : (struct mr_str){0});
  mr_jw_kc(&w, "command", l ? command(l) : NULL);
  mr_jw_obj_end(&w);
  mr_buf_free(&text);
}
