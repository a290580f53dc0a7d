/*
 * state.c - what each log row does to a session's state. The one place where it changes: the same function
 * serves a row just decided and a row loaded after a restart, so both end in the same state.
 */
#include "agent/outcome.h"
#include "agent/price.h"
#include "agent/session_t.h"
#include "agent/toolset.h"

#include <stdio.h>

const char *mr_status_name(enum mr_status st)
{
  static const char *const names[] = {"idle", "running", "rescheduling", "terminated"};
  return names[st];
}

struct mr_tcall *mr_state_call(struct mr_thread *th, struct mr_str event_id)
{
  for (int i = 0; i < th->ncalls; i++)
    if (mr_str_is(event_id, th->calls[i]->event_id)) return th->calls[i];
  return NULL;
}

bool mr_call_clients(const struct mr_tcall *t)
{
  if (t->kind == MR_TOOL_CUSTOM) return !t->owned;
  return t->kind == MR_TOOL_BUILTIN && t->th->s->self_hosted && t->perm != MR_PERM_DENY && t->confirmed >= 0;
}

bool mr_call_waits_client(const struct mr_tcall *t)
{
  if (t->resolved || t->finished) return false;
  if (t->kind == MR_TOOL_CUSTOM) return !t->owned;
  return (t->perm == MR_PERM_ASK && t->confirmed == 0) || mr_call_clients(t);
}

bool mr_state_blocked(const struct mr_session *s)
{
  return s->status == MR_IDLE && s->stop == MR_STOP_REQUIRES_ACTION;
}

static void set_id(char out[MR_ID_LEN], struct mr_str id)
{
  snprintf(out, MR_ID_LEN, MR_FMT, MR_ARG(id));
}

/* ---- calls ---- */

static struct mr_tcall *call_new(struct mr_thread *th, struct mr_str event_id)
{
  struct mr_tcall *t;

  if (th->ncalls == th->calls_cap) {
    int cap = th->calls_cap ? th->calls_cap * 2 : 8;
    struct mr_tcall **v = mr_arena_alloc(th->s->mem, (size_t)cap * sizeof *v);
    if (!v) return NULL;
    if (th->ncalls) memcpy(v, th->calls, (size_t)th->ncalls * sizeof *v);
    th->calls = v;
    th->calls_cap = cap;
  }
  t = mr_arena_alloc(th->s->mem, sizeof *t);
  if (!t) return NULL;
  t->th = th;
  set_id(t->event_id, event_id);
  th->calls[th->ncalls++] = t;
  return t;
}

/* model.reply: {"content":[..],"stop_reason":"..","calls":[{"id":"toolu_..","event_id":"sevt_.."}]} */
static int apply_reply(struct mr_thread *th, yyjson_val *j)
{
  yyjson_val *content = mr_json_get(j, "content"), *calls = mr_json_get(j, "calls"), *v;
  yyjson_arr_iter it;

  th->ncalls = 0;
  th->retries = 0;
  th->due_us = 0;
  th->wants_model = mr_str_is(mr_json_get_str(j, "stop_reason"), "pause_turn");
  it = yyjson_arr_iter_with(calls);
  while (calls && (v = yyjson_arr_iter_next(&it))) {
    struct mr_tcall *t = call_new(th, mr_json_get_str(v, "event_id"));
    if (!t) return MR_E_NOMEM;
    t->provider_id = mr_session_copy(th->s, mr_json_get_str(v, "id"));
    t->kind = MR_TOOL_BUILTIN;
  }
  if (th->ncalls || th->wants_model) th->rounds++;
  if (yyjson_arr_size(content) == 0) return MR_OK;
  th->compactions = 0;
  return mr_history_reply(th, content);
}

static int apply_tool_use(struct mr_thread *th, yyjson_val *j, const char *ref, enum mr_tool_kind kind)
{
  struct mr_tcall *t = mr_state_call(th, mr_json_get_str(j, ref));
  struct mr_str perm = mr_json_get_str(j, "evaluated_permission");
  struct mr_buf b;

  if (!t) return MR_OK;
  t->kind = kind;
  t->name = mr_session_copy(th->s, mr_json_get_str(j, "name"));
  t->perm = mr_str_is(perm, "ask") ? MR_PERM_ASK : mr_str_is(perm, "deny") ? MR_PERM_DENY : MR_PERM_ALLOW;
  mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
  mr_json_write(&b, mr_json_get(j, "input"), false);
  t->input = mr_session_copy(th->s, mr_buf_get(&b));
  mr_buf_free(&b);
  if (!t->name.p || !t->input.p) return MR_E_NOMEM;
  mr_repeat_count(th, t);
  return MR_OK;
}

static int set_result(struct mr_thread *th, struct mr_tcall *t, yyjson_val *j)
{
  struct mr_buf b;
  yyjson_val *content = mr_json_get(j, "content");

  mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
  if (yyjson_is_arr(content))
    mr_json_write(&b, content, false);
  else
    mr_buf_c(&b, "[]");
  t->result = mr_session_copy(th->s, mr_buf_get(&b));
  t->is_error = mr_json_get_bool(j, "is_error", false);
  mr_buf_free(&b);
  return t->result.p ? MR_OK : MR_E_NOMEM;
}

static void count_search(struct mr_thread *th, const struct mr_tcall *t)
{
  if (!mr_str_is(t->name, "web_search")) return;
  th->usage.searches++;
  th->s->usage.searches++;
}

static int apply_result(struct mr_thread *th, yyjson_val *j, const char *ref)
{
  struct mr_tcall *t = mr_state_call(th, mr_json_get_str(j, ref));
  int code;

  if (!t || t->resolved) return MR_OK;
  code = set_result(th, t, j);
  mr_seen_result(t, mr_json_get(j, "content"));
  if (t->kind == MR_TOOL_WEB && !t->is_error) count_search(th, t);
  t->resolved = true;
  t->finished = false;
  for (int i = 0; i < th->ncalls; i++)
    if (!th->calls[i]->resolved) return code;
  th->wants_model = true;
  return code ? code : mr_history_results(th);
}

static int apply_outcome(struct mr_thread *th, yyjson_val *j)
{
  struct mr_tcall *t = mr_state_call(th, mr_json_get_str(j, "event_id"));
  if (!t || t->resolved) return MR_OK;
  t->finished = true;
  return set_result(th, t, j);
}

/* ---- status ---- */

static void stop_clock(int64_t *since, int64_t *sum, int64_t at)
{
  if (*since) *sum += at - *since;
  *since = 0;
}

static void thread_stops(struct mr_thread *th, enum mr_status status, int64_t at)
{
  stop_clock(&th->running_since_us, &th->active_us, at);
  th->status = status;
}

static void session_stops(struct mr_session *s, enum mr_status status, int64_t at)
{
  stop_clock(&s->running_since_us, &s->active_us, at);
  s->status = status;
}

enum mr_stop mr_stop_of(yyjson_val *j)
{
  struct mr_str type = mr_json_get_str(mr_json_get(j, "stop_reason"), "type");

  return mr_str_is(type, "requires_action")     ? MR_STOP_REQUIRES_ACTION
         : mr_str_is(type, "retries_exhausted") ? MR_STOP_RETRIES
         : mr_str_is(type, "refusal")           ? MR_STOP_REFUSAL
         : mr_str_is(type, "budget_reached")    ? MR_STOP_BUDGET
                                                : MR_STOP_END_TURN;
}

static int thread_idle(struct mr_thread *th, yyjson_val *j, int64_t at)
{
  yyjson_val *details = mr_json_get(j, "stop_details");
  struct mr_buf b;

  thread_stops(th, MR_IDLE, at);
  th->stop = mr_stop_of(j);
  th->blocked_n = (int)yyjson_arr_size(mr_json_get(mr_json_get(j, "stop_reason"), "event_ids"));
  th->stop_details = MR_S("null");
  if (yyjson_is_obj(details)) {
    mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
    mr_json_write(&b, details, false);
    th->stop_details = mr_session_copy(th->s, mr_buf_get(&b));
    mr_buf_free(&b);
    if (!th->stop_details.p) return MR_E_NOMEM;
  }
  if (th->stop == MR_STOP_REQUIRES_ACTION || th->stop == MR_STOP_BUDGET) return MR_OK; /* the turn is open */
  th->wants_model = false;
  th->rounds = th->retries = th->ncalls = 0;
  th->due_us = 0;
  if (th->stop == MR_STOP_RETRIES) th->compactions = 0; /* what comes next begins anew */
  return MR_OK;
}

/* session.thread_status_*: on the thread's own stream. A child's are on the primary's too, and say nothing there. */
static int apply_thread_status(struct mr_thread *th, struct mr_str what, yyjson_val *j, int64_t at)
{
  if (!mr_str_is(mr_json_get_str(j, "session_thread_id"), th->id)) return MR_OK;
  if (mr_str_is(what, "running")) {
    th->status = MR_RUNNING;
    th->running_since_us = at;
  } else if (mr_str_is(what, "idle")) {
    return thread_idle(th, j, at);
  } else if (mr_str_is(what, "rescheduled")) {
    thread_stops(th, MR_RESCHEDULING, at);
  } else if (mr_str_is(what, "terminated")) {
    thread_stops(th, MR_TERMINATED, at);
    th->archived_us = at;
    th->ncalls = 0; /* what it waited for nobody can answer any more */
  }
  return MR_OK;
}

static void add_usage(struct mr_usage *sum, yyjson_val *u)
{
  sum->input += mr_json_get_int(u, "input_tokens", 0);
  sum->output += mr_json_get_int(u, "output_tokens", 0);
  sum->cache_read += mr_json_get_int(u, "cache_read_input_tokens", 0);
  sum->cache_write_5m += mr_json_get_int(u, "cache_creation_input_tokens", 0);
}

static void apply_span_end(struct mr_thread *th, yyjson_val *j)
{
  struct mr_usage u = {0};

  th->span_id[0] = '\0';
  add_usage(&th->usage, mr_json_get(j, "model_usage"));
  add_usage(&th->s->usage, mr_json_get(j, "model_usage"));
  add_usage(&u, mr_json_get(j, "model_usage"));
  if (!mr_json_get_bool(j, "is_error", false))
    th->context_tokens = u.input + u.output + u.cache_read + u.cache_write_5m;
}

static void apply_confirmation(struct mr_thread *th, yyjson_val *j)
{
  struct mr_tcall *t = mr_state_call(th, mr_json_get_str(j, "tool_use_id"));
  struct mr_str why = mr_json_get_str(j, "deny_message");
  struct mr_session *s = th->s;
  struct mr_buf b;
  struct mr_jw w;

  if (!t) return;
  t->confirmed = mr_str_is(mr_json_get_str(j, "result"), "allow") ? 1 : -1;
  if (t->confirmed > 0) return;
  /* The model reads the refusal and its reason. */
  mr_buf_init(&b, s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_arr(&w);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "text");
  mr_jw_key(&w, "text");
  mr_jw_c(&w, why.n ? mr_arena_printf(s->mem, "The user denied this tool call: " MR_FMT, MR_ARG(why))
                    : "The user denied this tool call.");
  mr_jw_obj_end(&w);
  mr_jw_arr_end(&w);
  t->result = mr_session_copy(s, mr_buf_get(&b));
  t->is_error = true;
  t->finished = true;
  mr_buf_free(&b);
}

/* ---- rows ---- */

/* thread.created, of the primary: {"id":"sthr_..","agent":{snapshot},"created_us":..}; of a copy's "known_as" besides */
static int apply_created(struct mr_session *s, yyjson_val *j)
{
  struct mr_thread *th = NULL;
  struct mr_buf b;

  mr_buf_init(&b, s->d->mem, SIZE_MAX / 2);
  mr_json_write(&b, mr_json_get(j, "agent"), false);
  if (!b.failed) th = mr_thread_new(s, mr_json_get_str(j, "id"), mr_str_c(s->main.id), mr_buf_get(&b));
  if (th) {
    th->created_us = mr_json_get_int(j, "created_us", 0);
    if (mr_json_get_str(j, "known_as").n) set_id(th->known_as, mr_json_get_str(j, "known_as"));
  }
  mr_buf_free(&b);
  return th ? MR_OK : MR_E_NOMEM;
}

/* A copy: what is before was used, and paid for, elsewhere. */
static void start_counting(struct mr_session *s)
{
  memset(&s->usage, 0, sizeof s->usage);
  s->active_us = s->cost = s->steps = 0;
  mr_repeats_forget(s);
  for (struct mr_thread *th = &s->main; th; th = th->next) {
    memset(&th->usage, 0, sizeof th->usage);
    th->active_us = th->cost = 0;
    if (th->stop != MR_STOP_BUDGET) continue;
    th->rounds = 0;
    th->stop = MR_STOP_END_TURN; /* its budget did not come along: it is not to go on by itself */
    th->wants_model = false;
  }
  if (s->stop == MR_STOP_BUDGET) s->stop = MR_STOP_END_TURN;
}

static int apply_private(struct mr_thread *th, struct mr_str type, yyjson_val *j)
{
  struct mr_tcall *t = mr_state_call(th, mr_json_get_str(j, "event_id"));

  if (mr_str_is(type, "model.reply")) return apply_reply(th, j);
  if (mr_str_is(type, "tool.outcome")) return apply_outcome(th, j);
  if (mr_str_is(type, "thread.created")) return apply_created(th->s, j);
  if (mr_str_is(type, "usage.cost")) {
    th->cost = mr_cost_add(th->cost, mr_json_get_int(j, "cost", 0));
    th->s->cost = mr_cost_add(th->s->cost, mr_json_get_int(j, "cost", 0));
    return MR_OK;
  }
  if (mr_str_is(type, "session.copied")) {
    start_counting(th->s);
    return MR_OK;
  }
  if (mr_str_is(type, "context.compacted")) return mr_compact_apply(th, j);
  if (mr_str_is(type, "tool.hidden")) return apply_tool_use(th, j, "event_id", MR_TOOL_HIDDEN);
  if (mr_str_is(type, "tool.result")) return apply_result(th, j, "event_id");
  if (mr_str_is(type, "mail.taken")) {
    if (mr_thread_primary(th)) mr_outcomes_taken(th->s->outcomes);
    return mr_mail_apply_taken(th, (int)mr_json_get_int(j, "n", 0));
  }
  if (mr_str_is(type, "mail.notice")) return mr_mail_apply(th, mr_json_get_str(j, "text"), NULL);
  if (mr_str_is(type, "tool.intent") && t) {
    t->attempt = (int)mr_json_get_int(j, "attempt", 1);
    t->intent_seq = th->s->seq + 1;
  } else if (mr_str_is(type, "tool.claim") && t) {
    t->owned = mr_json_get_bool(j, "owned", true);
    if (t->kind == MR_TOOL_BUILTIN) t->kind = MR_TOOL_GUARDED;
    if (!t->owned) t->attempt = 0; /* the client's from here on: nothing of it runs */
    t->idempotent = mr_json_get_bool(j, "idempotent", false);
  } else if (mr_str_is(type, "model.retry")) {
    th->retries = (int)mr_json_get_int(j, "attempt", 1);
    th->due_us = mr_json_get_int(j, "due_us", 0);
    th->wait_us = mr_json_get_int(j, "wait_us", th->s->d->retry_cap_us);
    th->wants_model = true;
  } else if (mr_str_is(type, "model.again")) {
    th->wants_model = true;
  } else if (mr_str_is(type, "turn.continue")) {
    th->rounds++;
  }
  return MR_OK;
}

/* A child is given a message as it is; the primary is told whose report it is. */
static int apply_received(struct mr_thread *th, yyjson_val *j)
{
  struct mr_str name = mr_json_get_str(j, "from_agent_name"), line = mr_str_n("", 0);
  struct mr_str from = mr_json_get_str(j, "from_session_thread_id");
  const struct mr_thread *child = mr_thread_find(th->s, from);

  if (child && !mr_thread_primary(child)) from = mr_str_c(child->known_as);
  if (name.n)
    line = mr_str_c(mr_arena_printf(
        th->s->mem, "Message from agent " MR_FMT " (thread " MR_FMT "):", MR_ARG(name), MR_ARG(from)));
  return mr_mail_apply(th, line, mr_json_get(j, "content"));
}

static int apply_wire(struct mr_thread *th, const struct mr_log_row *row, yyjson_val *j)
{
  static const char thread_status[] = "session.thread_status_";
  struct mr_session *s = th->s;
  struct mr_str t = row->type;

  if (mr_str_starts(t, MR_S(thread_status))) {
    return apply_thread_status(th, mr_str_n(t.p + sizeof thread_status - 1, t.n - (sizeof thread_status - 1)),
                               j, row->processed_us);
  } else if (mr_str_is(t, "session.status_running")) {
    s->status = MR_RUNNING;
    s->running_since_us = row->processed_us;
  } else if (mr_str_is(t, "session.status_idle")) {
    session_stops(s, MR_IDLE, row->processed_us);
    s->stop = mr_stop_of(j);
  } else if (mr_str_is(t, "session.status_rescheduled")) {
    session_stops(s, MR_RESCHEDULING, row->processed_us);
  } else if (mr_str_is(t, "session.status_terminated")) {
    session_stops(s, MR_TERMINATED, row->processed_us);
    for (th = &s->main; th; th = th->next) {
      thread_stops(th, MR_TERMINATED, row->processed_us);
      if (!th->archived_us) th->archived_us = row->processed_us;
    }
  } else if (mr_str_is(t, "span.model_request_start")) {
    s->steps++;
    set_id(th->span_id, mr_json_get_str(j, "id"));
    th->wants_model = false;
  } else if (mr_str_is(t, "span.model_request_end")) {
    apply_span_end(th, j);
  } else if (mr_str_is(t, "user.message")) {
    th->wants_model = true;
    th->repeats = 0;
    mr_seen_content(s, mr_json_get(j, "content"), MR_SEEN_USER);
    return mr_history_user(th, mr_json_get(j, "content"), "user");
  } else if (mr_str_is(t, "system.message")) {
    mr_seen_content(s, mr_json_get(j, "content"), MR_SEEN_USER);
    return mr_history_user(th, mr_json_get(j, "content"), "system");
  } else if (mr_str_is(t, "user.interrupt")) {
    mr_repeats_forget(s);
  } else if (mr_str_is(t, "session.updated")) {
    if (mr_json_get(j, "budget")) mr_repeats_forget(s);
  } else if (mr_str_is(t, "user.define_outcome")) {
    th->repeats = 0;
    mr_seen_content(s, mr_json_get(j, "description"), MR_SEEN_USER);
    return mr_outcome_apply_define(s, j);
  } else if (mr_str_is(t, "span.outcome_evaluation_start")) {
    s->steps++;
    mr_outcomes_start(s->outcomes, j);
  } else if (mr_str_is(t, "span.outcome_evaluation_end")) {
    add_usage(&th->usage, mr_json_get(j, "usage"));
    add_usage(&s->usage, mr_json_get(j, "usage"));
    return mr_outcomes_end(s->mem, s->outcomes, j, row->processed_us);
  } else if (mr_str_is(t, "agent.thread_message_received")) {
    return apply_received(th, j);
  } else if (mr_str_is(t, "agent.tool_use")) {
    return apply_tool_use(th, j, "id",
                          mr_toolset_web(mr_json_get_str(j, "name")) ? MR_TOOL_WEB : MR_TOOL_BUILTIN);
  } else if (mr_str_is(t, "agent.custom_tool_use")) {
    return apply_tool_use(th, j, "id", MR_TOOL_CUSTOM);
  } else if (mr_str_is(t, "agent.tool_result") || mr_str_is(t, "user.tool_result")) {
    return apply_result(th, j, "tool_use_id");
  } else if (mr_str_is(t, "user.custom_tool_result")) {
    return apply_result(th, j, "custom_tool_use_id");
  } else if (mr_str_is(t, "user.tool_confirmation")) {
    apply_confirmation(th, j);
  }
  return MR_OK;
}

/* Rows whose body says nothing to the machine. */
static bool body_matters(struct mr_str type)
{
  return !mr_str_is(type, "session.status_running") && !mr_str_is(type, "session.usage") &&
         !mr_str_is(type, "session.thread_created") && !mr_str_is(type, "agent.message") &&
         !mr_str_is(type, "agent.thinking");
}

int mr_state_apply(struct mr_session *s, const struct mr_log_row *row)
{
  struct mr_thread *th = mr_thread_find(s, row->thread_id);
  yyjson_doc *doc = NULL;
  int code = MR_OK;

  if (!th) return MR_OK; /* of a thread that no row made */
  if (row->processed_us > s->last_us) s->last_us = row->processed_us;
  if (body_matters(row->type)) {
    code = mr_json_parse(s->d->mem, row->body, SIZE_MAX, &doc, NULL);
    if (code != MR_OK) return code;
  }
  code = row->kind == MR_ROW_PRIVATE ? apply_private(th, row->type, yyjson_doc_get_root(doc))
                                     : apply_wire(th, row, yyjson_doc_get_root(doc));
  yyjson_doc_free(doc);
  return code;
}

/* ---- the head ---- */

void mr_usage_write(struct mr_jw *w, const struct mr_usage *u, int64_t active_us, int64_t cost)
{
  mr_jw_obj(w);
  mr_jw_kint(w, "input_tokens", u->input);
  mr_jw_kint(w, "output_tokens", u->output);
  mr_jw_kint(w, "cache_read_input_tokens", u->cache_read);
  mr_jw_key(w, "cache_creation");
  mr_jw_obj(w);
  mr_jw_kint(w, "ephemeral_5m_input_tokens", u->cache_write_5m);
  mr_jw_kint(w, "ephemeral_1h_input_tokens", u->cache_write_1h);
  mr_jw_obj_end(w);
  mr_jw_key(w, "list_cost");
  if (cost >= 0)
    mr_cost_write(w, cost);
  else
    mr_jw_null(w);
  mr_jw_key(w, "active_seconds");
  mr_jw_real(w, (double)(active_us / 1000) / 1000.0);
  mr_jw_key(w, "server_tool_use");
  mr_jw_obj(w);
  mr_jw_kint(w, "web_search_requests", u->searches);
  mr_jw_kint(w, "web_fetch_requests", 0);
  mr_jw_obj_end(w);
  mr_jw_obj_end(w);
}

void mr_state_head(const struct mr_session *s, struct mr_buf *out)
{
  int64_t sum = 0, since = 0, working = 0; /* of all threads; since: the sum of when those that work began */
  struct mr_jw w;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "primary", s->main.id);
  mr_jw_kc(&w, "sandbox_ref", s->sandbox_ref ? s->sandbox_ref : "");
  mr_jw_kint(&w, "active_us", s->active_us);
  mr_jw_kint(&w, "running_since_us", s->running_since_us);
  for (const struct mr_thread *th = &s->main; th; th = th->next) {
    sum += th->active_us;
    since += th->running_since_us;
    working += th->running_since_us != 0;
  }
  mr_jw_kint(&w, "threads_us", sum);
  mr_jw_kint(&w, "threads_since_us", since);
  mr_jw_kint(&w, "threads_working", working);
  mr_jw_key(&w, "usage");
  mr_usage_write(&w, &s->usage, s->active_us, mr_session_cost(s));
  mr_cap_write(&w, s);
  if (s->outcomes) {
    mr_jw_key(&w, "outcome_evaluations");
    mr_outcomes_write(&w, s->outcomes);
  }
  mr_jw_obj_end(&w);
}
