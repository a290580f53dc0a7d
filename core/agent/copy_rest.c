/*
 * copy_rest.c - is the machine at rest where the rows of a copy end, and if not, the rows that bring it there: an
 * open model request ends with is_error, calls without a result get the text of an interrupted call (API: sessions
 * §8.6), then come the three rows of an idle session. An idle session whose calls wait for a client is at rest, too:
 * the calls can be answered in the copy as in the original.
 *
 * It follows rows by what they refer to and keeps the open request and the latest reply's calls of each thread, no
 * more. For rows of a file it is also the judge of their order: what the machine never writes is refused, because a
 * history that pairs calls and results wrongly could not be sent to any model. Loop thread; copy.c calls.
 */
#include "agent/copy_t.h"

#include <stdio.h>

enum { THREADS_MAX = 2000, USES_MAX = 1000 };
static const char interrupted[] =
    "[{\"type\":\"text\",\"text\":\"Tool execution was interrupted before completion. Please retry.\"}]";

/* ---- following ---- */

static struct mr_copy_thread *thread_of(struct mr_rest *r, struct mr_str id)
{
  struct mr_copy_thread **at = &r->threads, *t;

  for (; *at; at = &(*at)->next)
    if (mr_str_is(id, (*at)->id)) return *at;
  if (r->nthreads == THREADS_MAX || !(t = mr_mem_zalloc(r->mem, sizeof *t))) return NULL;
  snprintf(t->id, sizeof t->id, MR_FMT, MR_ARG(id));
  if (!id.n) at = &r->threads; /* first */
  t->next = *at;
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

static int unresolved(const struct mr_copy_thread *t)
{
  int n = 0;
  for (int i = 0; i < t->nuses; i++)
    n += !t->uses[i].resolved;
  return n;
}

/* Calls that a client is to answer: as the machine counts them (mr_call_waits_client). */
static bool waits(const struct mr_copy_use *u)
{
  if (u->resolved || u->finished) return false;
  return u->custom ? !u->owned : u->asks && !u->confirmed;
}

static int waiting(const struct mr_copy_thread *t)
{
  int n = 0;
  for (int i = 0; i < t->nuses; i++)
    n += waits(&t->uses[i]);
  return n;
}

static int odd(struct mr_err *why, const char *what)
{
  return mr_err_set(why, MR_E_INVALID, "file", "%s", what);
}

/* The calls of a reply, which are the tool uses of its content, in order. */
static int follow_reply(struct mr_rest *r, struct mr_copy_thread *t, yyjson_val *j, struct mr_err *why)
{
  yyjson_val *calls = mr_json_get(j, "calls"), *content = mr_json_get(j, "content"), *v, *b;
  yyjson_arr_iter it = yyjson_arr_iter_with(calls), blocks = yyjson_arr_iter_with(content);
  int n = (int)yyjson_arr_size(calls), code = MR_OK;

  if (n > USES_MAX) return odd(why, "a model's reply has too many calls");
  if (unresolved(t) > 0) code = odd(why, "a model's reply comes before the results of the one before it");
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

static int follow_idle(struct mr_copy_thread *t, yyjson_val *j, struct mr_err *why)
{
  yyjson_val *reason = mr_json_get(j, "stop_reason"), *ids = mr_json_get(reason, "event_ids"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(ids);
  int code = MR_OK;

  t->running = false;
  t->nasked = (int)yyjson_arr_size(ids);
  t->asks = mr_str_is(mr_json_get_str(reason, "type"), "requires_action");
  if (t->span[0]) code = odd(why, "a session is idle while a model request is open");
  while (t->asks && ids && (v = yyjson_arr_iter_next(&it))) {
    struct mr_copy_use *u = use_of(t, mr_json_str(v));
    if (t->id[0] == '\0' && (!u || u->resolved))
      code = odd(why, "an idle session waits for a call that is none");
  }
  if (t->asks) return code;
  if (unresolved(t) > 0 && code == MR_OK) code = odd(why, "a turn ends before all its calls have results");
  t->nuses = 0;
  return code;
}

static int follow_span(struct mr_copy_thread *t, yyjson_val *j, bool start, struct mr_err *why)
{
  struct mr_str id = mr_json_get_str(j, start ? "id" : "model_request_start_id");
  int code = MR_OK;

  if (start && (t->span[0] || unresolved(t) > 0))
    code = odd(why, "a model request begins before the one before it is over");
  if (!start && !mr_str_is(id, t->span)) code = odd(why, "a model request ends that is not open");
  snprintf(t->span, sizeof t->span, MR_FMT, MR_ARG(start ? id : mr_str_n("", 0)));
  return code;
}

/* Status rows of a child thread stand in its own log and name it. */
static bool status_is(const struct mr_copy_thread *t, struct mr_str type, const char *what)
{
  struct mr_str prefix = t->id[0] ? MR_S("session.thread_status_") : MR_S("session.status_");
  return mr_str_starts(type, prefix) && mr_str_is(mr_str_n(type.p + prefix.n, type.n - prefix.n), what);
}

int mr_rest_row(struct mr_rest *r, const struct mr_log_row *row, yyjson_val *j, struct mr_err *why)
{
  static const char *const results[][2] = {{"agent.tool_result", "tool_use_id"},
                                           {"user.tool_result", "tool_use_id"},
                                           {"user.custom_tool_result", "custom_tool_use_id"},
                                           {"agent.mcp_tool_result", "mcp_tool_use_id"}};
  struct mr_copy_thread *t = thread_of(r, row->thread_id);
  struct mr_str type = row->type;
  struct mr_copy_use *u;

  if (!t) return mr_err_nomem(why);
  if (row->kind == MR_ROW_PRIVATE) {
    u = use_of(t, mr_json_get_str(j, "event_id"));
    if (u && mr_str_is(type, "tool.claim")) u->owned = mr_json_get_bool(j, "owned", true);
    if (u && mr_str_is(type, "tool.outcome")) u->finished = true;
    return mr_str_is(type, "model.reply") ? follow_reply(r, t, j, why) : MR_OK;
  }
  for (size_t i = 0; i < sizeof results / sizeof *results; i++)
    if (mr_str_is(type, results[i][0])) return follow_result(t, j, results[i][1], why);
  if (mr_str_is(type, "span.model_request_start")) return follow_span(t, j, true, why);
  if (mr_str_is(type, "span.model_request_end")) return follow_span(t, j, false, why);
  if (mr_str_is(type, "agent.tool_use") || mr_str_is(type, "agent.custom_tool_use") ||
      mr_str_is(type, "agent.mcp_tool_use")) {
    u = use_of(t, row->event_id);
    if (u) u->custom = mr_str_is(type, "agent.custom_tool_use");
    if (u) u->asks = mr_str_is(mr_json_get_str(j, "evaluated_permission"), "ask");
    if (!u && t->span[0]) return odd(why, "a tool use is not of the reply before it");
  } else if (mr_str_is(type, "user.tool_confirmation")) {
    u = use_of(t, mr_json_get_str(j, "tool_use_id"));
    if (!u || u->resolved) return odd(why, "a confirmation is of no call that waits");
    u->confirmed = true;
    u->finished = u->finished || !mr_str_is(mr_json_get_str(j, "result"), "allow");
  } else if (status_is(t, type, "idle")) {
    return follow_idle(t, j, why);
  } else if (status_is(t, type, "running") || status_is(t, type, "rescheduled")) {
    t->running = true;
    t->asks = false;
  } else if ((mr_str_is(type, "user.message") || mr_str_is(type, "system.message")) && unresolved(t) > 0) {
    return odd(why, "a message comes before the results of the calls before it");
  }
  if (mr_str_starts(type, MR_S("session.thread_status_")) && (t->id[0] || !t->agent[0]))
    snprintf(t->agent, sizeof t->agent, MR_FMT, MR_ARG(mr_json_get_str(j, "agent_name")));
  return MR_OK;
}

/* ---- closing ---- */

struct closing {
  struct mr_copy *k;
  struct mr_buf b;
  struct mr_jw w;
  struct mr_log_row row;
  char id[MR_ID_MAX];
  int code;
};

static void begin(struct closing *x, const char *type, const char *thread)
{
  struct mr_copy *k = x->k;
  int64_t now = mr_loop_wall_us(k->c->d->loop);

  if (mr_id_make(k->c->d->sys, x->id, "sevt") != MR_OK && x->code == MR_OK)
    x->code = mr_err_set(&k->c->err, MR_E_IO, NULL, "no randomness");
  x->row = (struct mr_log_row){.kind = MR_ROW_WIRE,
                               .type = mr_str_c(type),
                               .event_id = mr_str_c(x->id),
                               .thread_id = mr_str_c(thread),
                               .processed_us = now > k->last_us ? now : k->last_us + 1};
  mr_buf_reset(&x->b);
  mr_jw_init(&x->w, &x->b);
  mr_jw_obj(&x->w);
  mr_jw_kc(&x->w, "type", type);
  mr_jw_kc(&x->w, "id", x->id);
}

static void end(struct closing *x)
{
  int code;

  mr_jw_ktime(&x->w, "processed_at", x->row.processed_us);
  mr_jw_obj_end(&x->w);
  x->row.body = mr_buf_get(&x->b);
  if (x->b.failed && x->code == MR_OK) x->code = mr_err_nomem(&x->k->c->err);
  if (x->code != MR_OK) return;
  code = mr_copy_row(x->k, &x->row, NULL);
  if (code < 0) x->code = code;
}

static void close_span(struct closing *x, struct mr_copy_thread *t)
{
  begin(x, "span.model_request_end", t->id);
  mr_jw_kc(&x->w, "model_request_start_id", t->span);
  mr_jw_key(&x->w, "is_error");
  mr_jw_bool(&x->w, true);
  mr_jw_kraw(&x->w, "model_usage",
             MR_S("{\"input_tokens\":0,\"output_tokens\":0,\"cache_creation_input_tokens\":0,"
                  "\"cache_read_input_tokens\":0}"));
  end(x);
}

static void close_use(struct closing *x, struct mr_copy_thread *t, struct mr_copy_use *u)
{
  begin(x, u->custom ? "user.custom_tool_result" : "agent.tool_result", t->id);
  mr_jw_kc(&x->w, u->custom ? "custom_tool_use_id" : "tool_use_id", u->event_id);
  mr_jw_kraw(&x->w, "content", mr_str_n(interrupted, sizeof interrupted - 1));
  mr_jw_key(&x->w, "is_error");
  mr_jw_bool(&x->w, true);
  end(x);
}

/* asks: of a thread whose calls wait on, or NULL. */
static void stop_reason(struct closing *x, const struct mr_copy_thread *asks)
{
  mr_jw_key(&x->w, "stop_reason");
  mr_jw_obj(&x->w);
  mr_jw_kc(&x->w, "type", asks ? "requires_action" : "end_turn");
  if (asks) {
    mr_jw_key(&x->w, "event_ids");
    mr_jw_arr(&x->w);
    for (int i = 0; i < asks->nuses; i++)
      if (waits(&asks->uses[i])) mr_jw_c(&x->w, asks->uses[i].event_id);
    mr_jw_arr_end(&x->w);
  }
  mr_jw_obj_end(&x->w);
  mr_jw_kraw(&x->w, "stop_details", MR_S("null"));
  end(x);
}

static void thread_idle(struct closing *x, const char *log, struct mr_str id, struct mr_str agent,
                        const struct mr_copy_thread *asks)
{
  begin(x, "session.thread_status_idle", log);
  mr_jw_kstr(&x->w, "session_thread_id", id);
  mr_jw_kstr(&x->w, "agent_name", agent);
  stop_reason(x, asks);
}

static void close_thread(struct closing *x, struct mr_copy_thread *t)
{
  struct mr_usage none = {0};
  struct mr_copy *k = x->k;
  const struct mr_copy_thread *asks = !t->running && t->asks && waiting(t) > 0 && !t->id[0] ? t : NULL;

  if (t->span[0]) close_span(x, t);
  for (int i = 0; i < t->nuses && !asks; i++)
    if (!t->uses[i].resolved) close_use(x, t, &t->uses[i]);
  if (t->id[0]) {
    thread_idle(x, t->id, mr_str_c(t->id), mr_str_c(t->agent), NULL);
    thread_idle(x, "", mr_str_c(t->id), mr_str_c(t->agent),
                NULL); /* the primary thread sees its children's status */
    return;
  }
  for (struct mr_copy_input *in = asks ? NULL : k->inputs; in; in = in->next) {
    begin(x, in->type.p, "");
    mr_jw_kraw(&x->w, "content", in->content);
    end(x);
  }
  thread_idle(x, "", k->old_primary, k->agent_name, asks);
  begin(x, "session.usage", "");
  mr_jw_key(&x->w, "usage");
  mr_usage_write(&x->w, &none, 0, -1);
  mr_jw_kraw(&x->w, "budget", MR_S("null"));
  end(x);
  begin(x, "session.status_idle", "");
  stop_reason(x, asks);
}

static bool at_rest(const struct mr_copy_thread *t)
{
  if (t->running || t->span[0]) return false;
  if (!t->asks) return unresolved(t) == 0;
  return waiting(t) > 0 && waiting(t) == t->nasked; /* else the machine would go on by itself */
}

int mr_copy_close(struct mr_copy *k)
{
  struct closing x = {.k = k};
  struct mr_copy_thread *primary = NULL;
  bool child = false;

  mr_buf_init(&x.b, k->c->mem, 1 << 20);
  for (struct mr_copy_thread *t = k->rest.threads; t && x.code == MR_OK; t = t->next) {
    if (!t->id[0])
      primary = t;
    else if (!at_rest(t)) {
      child = true;
      close_thread(&x, t);
    }
  }
  if (k->inputs && !primary) primary = thread_of(&k->rest, MR_S("")); /* a message is all there is */
  if (primary && x.code == MR_OK && (!at_rest(primary) || ((child || k->inputs) && !primary->asks)))
    close_thread(&x, primary);
  mr_buf_free(&x.b);
  return x.code;
}
