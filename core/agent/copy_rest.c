/*
 * copy_rest.c - what the rows of a copy add up to, as far as it says whether the machine is at rest where they end:
 * the status of the session and of each thread, its open model request, the calls of its latest reply, how much mail
 * waits, and the outcomes. What is not at rest is closed by copy_close.c.
 *
 * It follows rows by what they refer to and keeps no more than that. For rows of a file it is also the judge of their
 * order: what the machine never writes is refused, because a history that pairs calls and results wrongly could not be
 * sent to any model, and a state that no row leads to could hold a session for ever. Loop thread; copy.c calls.
 */
#include "agent/copy_t.h"
#include "agent/roster.h"
#include "agent/toolset.h"

#include <stdio.h>

enum { USES_MAX = 1000 };

static struct mr_copy_thread *thread_find(struct mr_rest *r, struct mr_str id)
{
  struct mr_copy_thread *t = r->threads;

  if (mr_str_eq(id, r->primary)) id.n = 0;
  while (t && !mr_str_is(id, t->id))
    t = t->next;
  return t;
}

static struct mr_copy_thread *thread_new(struct mr_rest *r, struct mr_str id)
{
  struct mr_copy_thread **at = &r->threads, *t = mr_mem_zalloc(r->mem, sizeof *t);

  if (!t) return NULL;
  snprintf(t->id, sizeof t->id, MR_FMT, MR_ARG(id));
  while (*at)
    at = &(*at)->next;
  *at = t;
  r->nthreads++;
  return t;
}

void mr_rest_free(struct mr_rest *r)
{
  for (struct mr_copy_thread *t = r->threads, *next; t; t = next) {
    next = t->next;
    mr_mem_free(r->mem, t->uses);
    mr_mem_free(r->mem, t);
  }
  r->threads = NULL;
  r->nthreads = 0;
}

static struct mr_copy_use *use_of(struct mr_copy_thread *t, struct mr_str id)
{
  for (int i = 0; i < t->nuses; i++)
    if (mr_str_is(id, t->uses[i].event_id)) return &t->uses[i];
  return NULL;
}

int mr_rest_unresolved(const struct mr_copy_thread *t)
{
  int n = 0;
  for (int i = 0; i < t->nuses; i++)
    n += !t->uses[i].resolved;
  return n;
}

/* As the machine counts them (mr_call_waits_client). */
bool mr_rest_waits(const struct mr_rest *r, const struct mr_copy_use *u)
{
  if (u->resolved || u->finished || u->hidden) return false;
  if (u->custom) return !u->owned;
  return (u->asks && !u->confirmed) || (r->self_hosted && !u->owned && !u->denied);
}

int mr_rest_waiting(const struct mr_rest *r, const struct mr_copy_thread *t)
{
  int n = 0;
  for (int i = 0; i < t->nuses; i++)
    n += mr_rest_waits(r, &t->uses[i]);
  return n;
}

static int odd(struct mr_err *why, const char *what)
{
  return mr_err_set(why, MR_E_INVALID, "file", "%s", what);
}

static bool stopped(enum mr_status s)
{
  return s == MR_IDLE || s == MR_TERMINATED;
}

/* ---- replies, calls, results ---- */

/* The calls of a reply, which are the tool uses of its content, in order. */
static int follow_reply(struct mr_rest *r, struct mr_copy_thread *t, yyjson_val *j, struct mr_err *why)
{
  yyjson_val *calls = mr_json_get(j, "calls"), *content = mr_json_get(j, "content"), *v, *b;
  yyjson_arr_iter it = yyjson_arr_iter_with(calls), blocks = yyjson_arr_iter_with(content);
  int n = (int)yyjson_arr_size(calls), code = MR_OK;

  if (n > USES_MAX) return odd(why, "a model's reply has too many calls");
  if (mr_rest_unresolved(t) > 0)
    code = odd(why, "a model's reply comes before the results of the one before it");
  if (!t->span[0]) code = odd(why, "a model's reply has no request");
  if (n > t->cap) {
    struct mr_copy_use *v2 = mr_mem_realloc(r->mem, t->uses, (size_t)n * sizeof *v2);
    if (!v2) return mr_err_nomem(why);
    t->uses = v2;
    t->cap = n;
  }
  t->nuses = 0;
  while (calls && (v = yyjson_arr_iter_next(&it))) {
    struct mr_str id = mr_json_get_str(v, "event_id"), provider = mr_json_get_str(v, "id");
    struct mr_copy_use *u = &t->uses[t->nuses];
    do
      b = yyjson_arr_iter_next(&blocks);
    while (b && !mr_str_is(mr_json_get_str(b, "type"), "tool_use"));
    if (!id.n || id.n >= MR_ID_LEN || !provider.n || !mr_str_eq(mr_json_get_str(b, "id"), provider) ||
        use_of(t, id))
      return odd(why, "the calls of a model's reply are not those of its content");
    memset(u, 0, sizeof *u);
    snprintf(u->event_id, sizeof u->event_id, MR_FMT, MR_ARG(id));
    t->nuses++;
  }
  while ((b = yyjson_arr_iter_next(&blocks)))
    if (mr_str_is(mr_json_get_str(b, "type"), "tool_use"))
      return odd(why, "the calls of a model's reply are not those of its content");
  return code;
}

static int follow_result(struct mr_copy_thread *t, yyjson_val *j, const char *ref, struct mr_err *why)
{
  struct mr_copy_use *u = use_of(t, mr_json_get_str(j, ref));

  if (!u || u->resolved) return odd(why, "a tool's result has no call that waits for it");
  u->resolved = true;
  return MR_OK;
}

static int follow_use(struct mr_copy_thread *t, const struct mr_log_row *row, yyjson_val *j, struct mr_err *why)
{
  struct mr_str perm = mr_json_get_str(j, "evaluated_permission");
  struct mr_copy_use *u = use_of(t, row->event_id);

  if (!u) return odd(why, "a tool use is not of the reply before it");
  u->custom = mr_str_is(row->type, "agent.custom_tool_use");
  u->asks = mr_str_is(perm, "ask");
  u->denied = mr_str_is(perm, "deny");
  u->owned = !u->custom && mr_toolset_web(mr_json_get_str(j, "name"));
  return MR_OK;
}

static int follow_confirmation(struct mr_copy_thread *t, yyjson_val *j, struct mr_err *why)
{
  struct mr_copy_use *u = use_of(t, mr_json_get_str(j, "tool_use_id"));

  if (!u || u->resolved) return odd(why, "a confirmation is of no call that waits");
  u->confirmed = true;
  u->finished = u->finished || !mr_str_is(mr_json_get_str(j, "result"), "allow");
  return MR_OK;
}

static int follow_span(struct mr_copy_thread *t, yyjson_val *j, bool start, struct mr_err *why)
{
  struct mr_str id = mr_json_get_str(j, start ? "id" : "model_request_start_id");
  int code = MR_OK;

  if (start && (t->span[0] || mr_rest_unresolved(t) > 0))
    code = odd(why, "a model request begins before the one before it is over");
  if (start && t->status != MR_RUNNING) code = odd(why, "a model request begins in a thread that does not run");
  if (!start && !mr_str_is(id, t->span)) code = odd(why, "a model request ends that is not open");
  snprintf(t->span, sizeof t->span, MR_FMT, MR_ARG(start ? id : mr_str_n("", 0)));
  return code;
}

/* ---- statuses ---- */

static int follow_idle(struct mr_rest *r, struct mr_copy_thread *t, yyjson_val *j, struct mr_err *why)
{
  yyjson_val *ids = mr_json_get(mr_json_get(j, "stop_reason"), "event_ids"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(ids);
  struct mr_outcome *o = t == r->threads ? mr_outcomes_active(r->outcomes) : NULL;
  int code = MR_OK;

  t->status = MR_IDLE;
  t->stop = mr_stop_of(j);
  t->nasked = (int)yyjson_arr_size(ids);
  if (t->span[0]) code = odd(why, "a thread is idle while a model request is open");
  if (o && o->start_id[0]) code = odd(why, "a thread is idle while its outcome is evaluated");
  while (t->stop == MR_STOP_REQUIRES_ACTION && ids && (v = yyjson_arr_iter_next(&it))) {
    struct mr_copy_use *u = use_of(t, mr_json_str(v));
    if (!u || u->resolved) code = odd(why, "an idle thread waits for a call that is none");
  }
  if (t->stop == MR_STOP_REQUIRES_ACTION) return code;
  if (mr_rest_unresolved(t) > 0 && code == MR_OK)
    code = odd(why, "a turn ends before all its calls have results");
  t->nuses = 0;
  return code;
}

/* session.thread_status_*: those of a child are on the primary's log, too. */
static int follow_thread_status(struct mr_rest *r, struct mr_copy_thread *t, struct mr_str what, yyjson_val *j,
                                struct mr_err *why)
{
  struct mr_copy_thread *of = thread_find(r, mr_json_get_str(j, "session_thread_id"));

  if (!of || (of != t && t != r->threads))
    return odd(why, "a thread's status is of no thread that could have it");
  if (of != t) return MR_OK;
  if (t->status == MR_TERMINATED) return odd(why, "a thread that has ended goes on");
  if (mr_str_is(what, "idle")) return follow_idle(r, t, j, why);
  if (mr_str_is(what, "terminated")) {
    int code = t == r->threads ? odd(why, "the primary thread ends before its session")
               : t->span[0]    ? odd(why, "a thread ends while a model request is open")
                               : MR_OK;
    t->status = MR_TERMINATED;
    t->nuses = 0;
    return code;
  }
  t->status = mr_str_is(what, "running") ? MR_RUNNING : MR_RESCHEDULING;
  return MR_OK;
}

/* The session is idle: so is every thread, and what it waits for is what they wait for. */
static int follow_session_idle(struct mr_rest *r, yyjson_val *j, struct mr_err *why)
{
  yyjson_val *ids = mr_json_get(mr_json_get(j, "stop_reason"), "event_ids"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(ids);
  int code = MR_OK;

  r->status = MR_IDLE;
  r->stop = mr_stop_of(j);
  for (struct mr_copy_thread *t = r->threads; t; t = t->next)
    if (!stopped(t->status)) code = odd(why, "a session is idle while a thread runs");
  while (r->stop == MR_STOP_REQUIRES_ACTION && ids && (v = yyjson_arr_iter_next(&it))) {
    struct mr_copy_use *u = NULL;
    for (struct mr_copy_thread *t = r->threads; t && !u; t = t->next)
      u = use_of(t, mr_json_str(v));
    if (!u || u->resolved) code = odd(why, "an idle session waits for a call that is none");
  }
  return code;
}

static int follow_session_status(struct mr_rest *r, struct mr_str what, yyjson_val *j, struct mr_err *why)
{
  if (mr_str_is(what, "idle")) return follow_session_idle(r, j, why);
  r->status = mr_str_is(what, "running") ? MR_RUNNING : MR_RESCHEDULING;
  return MR_OK;
}

/* ---- threads and their mail ---- */

static int follow_created(struct mr_rest *r, yyjson_val *j, struct mr_err *why)
{
  struct mr_str id = mr_json_get_str(j, "id");
  yyjson_val *agent = mr_json_get(j, "agent");
  struct mr_copy_thread *t;

  if (!id.n || id.n >= MR_ID_LEN || thread_find(r, id)) return odd(why, "a thread is made twice, or has no id");
  if (r->nthreads >= MR_THREADS_MAX) return odd(why, "too many threads");
  t = thread_new(r, id);
  if (!t) return mr_err_nomem(why);
  t->advisor = mr_str_is(mr_json_get_str(agent, "type"), "advisor");
  snprintf(t->agent, sizeof t->agent, MR_FMT,
           MR_ARG(t->advisor ? MR_S(MR_ADVISOR_NAME) : mr_json_get_str(agent, "name")));
  return MR_OK;
}

/* A message between threads: one end is the primary one, which alone speaks to others. */
static int follow_message(struct mr_rest *r, struct mr_copy_thread *t, yyjson_val *j, bool received,
                          struct mr_err *why)
{
  struct mr_copy_thread *other =
      thread_find(r, mr_json_get_str(j, received ? "from_session_thread_id" : "to_session_thread_id"));

  t->nmail += received;
  if (!other || (other == r->threads) == (t == r->threads))
    return odd(why, "a message is from or to no thread that could have it");
  return MR_OK;
}

static int follow_taken(struct mr_rest *r, struct mr_copy_thread *t, yyjson_val *j, struct mr_err *why)
{
  int code = mr_json_get_int(j, "n", 0) == t->nmail && t->nmail > 0
                 ? MR_OK
                 : odd(why, "other mail is taken than there is");
  if (mr_rest_unresolved(t) > 0) code = odd(why, "mail is taken before the results of the calls before it");
  if (t->span[0] || t->status != MR_RUNNING)
    code = odd(why, "mail is taken by a thread that asks no model then");
  t->nmail = 0;
  if (t == r->threads) mr_outcomes_taken(r->outcomes);
  return code;
}

/* ---- outcomes ---- */

static int follow_outcome(struct mr_rest *r, const struct mr_log_row *row, yyjson_val *j, struct mr_err *why)
{
  struct mr_copy_thread *t = r->threads;
  struct mr_outcome *o = mr_outcomes_active(r->outcomes);
  struct mr_str id = mr_json_get_str(j, "outcome_id"),
                start = mr_json_get_str(j, "outcome_evaluation_start_id");
  int code = MR_OK;

  if (mr_str_is(row->type, "user.define_outcome")) {
    t->nmail++;
    if (o) code = odd(why, "an outcome is defined while another one is active");
    if (!mr_outcomes_add(r->arena, &r->outcomes, j)) return mr_err_nomem(why);
    return code;
  }
  if (!o || !mr_str_is(id, o->id) || mr_json_get_int(j, "iteration", -1) != o->iteration)
    code = odd(why, "an evaluation is not of the outcome that is active");
  if (mr_str_is(row->type, "span.outcome_evaluation_start")) {
    if (o &&
        (o->result != MR_RESULT_RUNNING || t->span[0] || mr_rest_unresolved(t) > 0 || t->status != MR_RUNNING))
      code = odd(why, "an evaluation begins before the turn is over");
    mr_outcomes_start(r->outcomes, j);
  } else if (mr_str_is(row->type, "span.outcome_evaluation_end")) {
    bool cut = mr_str_is(mr_json_get_str(j, "result"), "interrupted");
    if (o && (!mr_str_is(start, o->start_id) || (!start.n && !cut)))
      code = odd(why, "an evaluation ends that is not open");
    if (mr_outcomes_end(r->arena, r->outcomes, j, row->processed_us) != MR_OK) return mr_err_nomem(why);
  } else if (o && !o->start_id[0]) {
    code = odd(why, "an evaluation goes on that is not open");
  }
  return code;
}

/* ---- rows ---- */

static int follow_private(struct mr_rest *r, struct mr_copy_thread *t, const struct mr_log_row *row,
                          yyjson_val *j, struct mr_err *why)
{
  struct mr_str type = row->type;
  struct mr_copy_use *u = use_of(t, mr_json_get_str(j, "event_id"));

  if (mr_str_is(type, "model.reply")) return follow_reply(r, t, j, why);
  if (mr_str_is(type, "thread.created"))
    return t == r->threads ? follow_created(r, j, why) : odd(why, "a child makes a thread");
  if (mr_str_is(type, "tool.result")) return follow_result(t, j, "event_id", why);
  if (mr_str_is(type, "mail.taken")) return follow_taken(r, t, j, why);
  if (mr_str_is(type, "mail.notice")) t->nmail++;
  if (mr_str_is(type, "context.compacted") && mr_rest_unresolved(t) > 0)
    return odd(why, "a history is summed up before the results of the calls in it");
  if (!mr_str_starts(type, MR_S("tool."))) return MR_OK;
  if (!u) return odd(why, "a note is of no call of the reply before it");
  if (mr_str_is(type, "tool.claim")) u->owned = mr_json_get_bool(j, "owned", true);
  if (mr_str_is(type, "tool.outcome")) u->finished = true;
  if (mr_str_is(type, "tool.hidden")) u->hidden = true;
  return MR_OK;
}

/* What stands on the primary's log because a client is to see it there: the child's own row is the one before. */
static int follow_shown(struct mr_rest *r, const struct mr_log_row *row, yyjson_val *j, struct mr_err *why)
{
  struct mr_copy_thread *child = thread_find(r, mr_json_get_str(j, "session_thread_id"));
  struct mr_str id = mr_json_get_str(j, "tool_use_id");

  if (!id.n) id = mr_json_get_str(j, "custom_tool_use_id");
  if (mr_str_ends(row->type, MR_S("tool_use"))) id = row->event_id;
  return child && child != r->threads && use_of(child, id)
             ? MR_OK
             : odd(why, "what is shown of a child is not the child's");
}

/* Rows that are the primary thread's alone. */
static bool primary_only(struct mr_str type)
{
  return mr_str_is(type, "user.message") || mr_str_is(type, "system.message") ||
         mr_str_is(type, "user.interrupt") || mr_str_is(type, "user.define_outcome") ||
         mr_str_is(type, "session.usage") || mr_str_is(type, "session.updated") ||
         mr_str_is(type, "session.thread_created") || mr_str_starts(type, MR_S("session.status_")) ||
         mr_str_starts(type, MR_S("span.outcome_"));
}

static int follow_wire(struct mr_rest *r, struct mr_copy_thread *t, const struct mr_log_row *row, yyjson_val *j,
                       struct mr_err *why)
{
  static const char *const results[][2] = {{"agent.tool_result", "tool_use_id"},
                                           {"user.tool_result", "tool_use_id"},
                                           {"user.custom_tool_result", "custom_tool_use_id"},
                                           {"agent.mcp_tool_result", "mcp_tool_use_id"}};
  static const char thread_status[] = "session.thread_status_", status[] = "session.status_";
  struct mr_str type = row->type;
  bool use = mr_str_starts(type, MR_S("agent.")) && mr_str_ends(type, MR_S("tool_use"));
  bool answer = mr_str_ends(type, MR_S("tool_result")) || mr_str_is(type, "user.tool_confirmation");

  if (t != r->threads && primary_only(type)) return odd(why, "a child's log has what is the session's");
  if ((use || answer) && t == r->threads && mr_json_get_str(j, "session_thread_id").n)
    return follow_shown(r, row, j, why);
  for (size_t i = 0; i < sizeof results / sizeof *results; i++)
    if (mr_str_is(type, results[i][0])) return follow_result(t, j, results[i][1], why);
  if (use) return follow_use(t, row, j, why);
  if (answer) return follow_confirmation(t, j, why);
  if (mr_str_is(type, "span.model_request_start")) return follow_span(t, j, true, why);
  if (mr_str_is(type, "span.model_request_end")) return follow_span(t, j, false, why);
  if (mr_str_is(type, "user.define_outcome") || mr_str_starts(type, MR_S("span.outcome_")))
    return follow_outcome(r, row, j, why);
  if (mr_str_starts(type, MR_S(thread_status)))
    return follow_thread_status(
        r, t, mr_str_n(type.p + sizeof thread_status - 1, type.n - (sizeof thread_status - 1)), j, why);
  if (mr_str_starts(type, MR_S(status)))
    return follow_session_status(r, mr_str_n(type.p + sizeof status - 1, type.n - (sizeof status - 1)), j, why);
  if (mr_str_is(type, "agent.thread_message_received")) return follow_message(r, t, j, true, why);
  if (mr_str_is(type, "agent.thread_message_sent")) return follow_message(r, t, j, false, why);
  if (mr_str_is(type, "session.thread_created") &&
      (!thread_find(r, mr_json_get_str(j, "session_thread_id")) ||
       thread_find(r, mr_json_get_str(j, "session_thread_id")) == r->threads))
    return odd(why, "a thread is announced that was not made");
  if ((mr_str_is(type, "user.message") || mr_str_is(type, "system.message")) && mr_rest_unresolved(t) > 0)
    return odd(why, "a message comes before the results of the calls before it");
  return MR_OK;
}

int mr_rest_row(struct mr_rest *r, const struct mr_log_row *row, yyjson_val *j, struct mr_err *why)
{
  struct mr_copy_thread *t;

  if (!r->threads && !thread_new(r, mr_str_n("", 0))) return mr_err_nomem(why);
  t = thread_find(r, row->thread_id);
  if (!t) return odd(why, "a row is of a thread that was not made");
  return row->kind == MR_ROW_PRIVATE ? follow_private(r, t, row, j, why) : follow_wire(r, t, row, j, why);
}
