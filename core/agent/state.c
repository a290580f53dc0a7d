/*
 * state.c - what each log row does to a session's state. The one place where it changes: the same function
 * serves a row just decided and a row loaded after a restart, so both end in the same state.
 */
#include "agent/session_t.h"

#include <stdio.h>

const char *mr_status_name(enum mr_status st)
{
  static const char *const names[] = {"idle", "running", "rescheduling", "terminated"};
  return names[st];
}

struct mr_tcall *mr_state_call(struct mr_session *s, struct mr_str event_id)
{
  for (int i = 0; i < s->ncalls; i++)
    if (mr_str_is(event_id, s->calls[i]->event_id)) return s->calls[i];
  return NULL;
}

bool mr_call_waits_client(const struct mr_session *s, const struct mr_tcall *t)
{
  (void)s;
  if (t->resolved || t->finished) return false;
  return t->kind == MR_TOOL_CUSTOM ? !t->owned : t->perm == MR_PERM_ASK && t->confirmed == 0;
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

static struct mr_tcall *call_new(struct mr_session *s, struct mr_str event_id)
{
  struct mr_tcall *t;

  if (s->ncalls == s->calls_cap) {
    int cap = s->calls_cap ? s->calls_cap * 2 : 8;
    struct mr_tcall **v = mr_arena_alloc(s->mem, (size_t)cap * sizeof *v);
    if (!v) return NULL;
    if (s->ncalls) memcpy(v, s->calls, (size_t)s->ncalls * sizeof *v);
    s->calls = v;
    s->calls_cap = cap;
  }
  t = mr_arena_alloc(s->mem, sizeof *t);
  if (!t) return NULL;
  t->s = s;
  set_id(t->event_id, event_id);
  s->calls[s->ncalls++] = t;
  return t;
}

/* model.reply: {"content":[..],"stop_reason":"..","calls":[{"id":"toolu_..","event_id":"sevt_.."}]} */
static int apply_reply(struct mr_session *s, yyjson_val *j)
{
  struct mr_buf b;
  yyjson_val *content = mr_json_get(j, "content"), *calls = mr_json_get(j, "calls"), *v;
  yyjson_arr_iter it;
  int code;

  s->ncalls = 0;
  s->retries = 0;
  s->due_us = 0;
  s->wants_model = mr_str_is(mr_json_get_str(j, "stop_reason"), "pause_turn");
  it = yyjson_arr_iter_with(calls);
  while (calls && (v = yyjson_arr_iter_next(&it))) {
    struct mr_tcall *t = call_new(s, mr_json_get_str(v, "event_id"));
    if (!t) return MR_E_NOMEM;
    t->provider_id = mr_session_copy(s, mr_json_get_str(v, "id"));
    t->kind = MR_TOOL_BUILTIN;
  }
  if (s->ncalls) s->rounds++;
  if (yyjson_arr_size(content) == 0) return MR_OK;
  mr_buf_init(&b, s->d->mem, SIZE_MAX / 2);
  mr_json_write(&b, content, false);
  code = b.failed ? b.failed : mr_history_reply(s, mr_buf_get(&b));
  mr_buf_free(&b);
  return code;
}

static int apply_tool_use(struct mr_session *s, yyjson_val *j, enum mr_tool_kind kind)
{
  struct mr_tcall *t = mr_state_call(s, mr_json_get_str(j, "id"));
  struct mr_str perm = mr_json_get_str(j, "evaluated_permission");
  struct mr_buf b;

  if (!t) return MR_OK;
  t->kind = kind;
  t->name = mr_session_copy(s, mr_json_get_str(j, "name"));
  t->perm = mr_str_is(perm, "ask") ? MR_PERM_ASK : mr_str_is(perm, "deny") ? MR_PERM_DENY : MR_PERM_ALLOW;
  mr_buf_init(&b, s->d->mem, SIZE_MAX / 2);
  mr_json_write(&b, mr_json_get(j, "input"), false);
  t->input = mr_session_copy(s, mr_buf_get(&b));
  mr_buf_free(&b);
  return t->name.p && t->input.p ? MR_OK : MR_E_NOMEM;
}

static int set_result(struct mr_session *s, struct mr_tcall *t, yyjson_val *j)
{
  struct mr_buf b;
  yyjson_val *content = mr_json_get(j, "content");

  mr_buf_init(&b, s->d->mem, SIZE_MAX / 2);
  if (yyjson_is_arr(content))
    mr_json_write(&b, content, false);
  else
    mr_buf_c(&b, "[]");
  t->result = mr_session_copy(s, mr_buf_get(&b));
  t->is_error = mr_json_get_bool(j, "is_error", false);
  mr_buf_free(&b);
  return t->result.p ? MR_OK : MR_E_NOMEM;
}

static int apply_result(struct mr_session *s, yyjson_val *j, const char *ref)
{
  struct mr_tcall *t = mr_state_call(s, mr_json_get_str(j, ref));
  int code;

  if (!t || t->resolved) return MR_OK;
  code = set_result(s, t, j);
  t->resolved = true;
  t->finished = false;
  for (int i = 0; i < s->ncalls; i++)
    if (!s->calls[i]->resolved) return code;
  s->wants_model = true;
  return code ? code : mr_history_results(s);
}

static int apply_outcome(struct mr_session *s, yyjson_val *j)
{
  struct mr_tcall *t = mr_state_call(s, mr_json_get_str(j, "event_id"));
  if (!t || t->resolved) return MR_OK;
  t->finished = true;
  return set_result(s, t, j);
}

/* ---- status ---- */

static void stop_clock(struct mr_session *s, int64_t at)
{
  if (s->running_since_us) s->active_us += at - s->running_since_us;
  s->running_since_us = 0;
}

static void apply_idle(struct mr_session *s, yyjson_val *j, int64_t at)
{
  yyjson_val *reason = mr_json_get(j, "stop_reason");
  struct mr_str type = mr_json_get_str(reason, "type");

  stop_clock(s, at);
  s->status = MR_IDLE;
  s->blocked_n = (int)yyjson_arr_size(mr_json_get(reason, "event_ids"));
  s->stop = mr_str_is(type, "requires_action")     ? MR_STOP_REQUIRES_ACTION
            : mr_str_is(type, "retries_exhausted") ? MR_STOP_RETRIES
            : mr_str_is(type, "refusal")           ? MR_STOP_REFUSAL
                                                   : MR_STOP_END_TURN;
  if (s->stop == MR_STOP_REQUIRES_ACTION) return;
  s->wants_model = false;
  s->rounds = s->retries = s->ncalls = 0;
  s->due_us = 0;
}

static void apply_span_end(struct mr_session *s, yyjson_val *j)
{
  yyjson_val *u = mr_json_get(j, "model_usage");
  s->span_id[0] = '\0';
  s->usage.input += mr_json_get_int(u, "input_tokens", 0);
  s->usage.output += mr_json_get_int(u, "output_tokens", 0);
  s->usage.cache_read += mr_json_get_int(u, "cache_read_input_tokens", 0);
  s->usage.cache_write_5m += mr_json_get_int(u, "cache_creation_input_tokens", 0);
}

static void apply_confirmation(struct mr_session *s, yyjson_val *j)
{
  struct mr_tcall *t = mr_state_call(s, mr_json_get_str(j, "tool_use_id"));
  struct mr_str why = mr_json_get_str(j, "deny_message");
  struct mr_buf b;
  struct mr_jw w;

  if (!t) return;
  t->confirmed = mr_str_is(mr_json_get_str(j, "result"), "allow") ? 1 : -1;
  if (t->confirmed > 0) return;
  /* The model reads the refusal and its reason. */
  mr_buf_init(&b, s->d->mem, 1 << 20);
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

static int apply_private(struct mr_session *s, struct mr_str type, yyjson_val *j)
{
  struct mr_tcall *t = mr_state_call(s, mr_json_get_str(j, "event_id"));

  if (mr_str_is(type, "model.reply")) return apply_reply(s, j);
  if (mr_str_is(type, "tool.outcome")) return apply_outcome(s, j);
  if (mr_str_is(type, "tool.intent") && t) {
    t->attempt = (int)mr_json_get_int(j, "attempt", 1);
    t->intent_seq = s->seq + 1;
  } else if (mr_str_is(type, "tool.claim") && t) {
    t->owned = mr_json_get_bool(j, "owned", true);
    if (t->kind == MR_TOOL_BUILTIN) t->kind = MR_TOOL_GUARDED;
    if (!t->owned) t->attempt = 0; /* the client's from here on: nothing of it runs */
    t->idempotent = mr_json_get_bool(j, "idempotent", false);
  } else if (mr_str_is(type, "model.retry")) {
    s->retries = (int)mr_json_get_int(j, "attempt", 1);
    s->due_us = mr_json_get_int(j, "due_us", 0);
    s->wait_us = mr_json_get_int(j, "wait_us", s->d->retry_cap_us);
    s->wants_model = true;
  } else if (mr_str_is(type, "model.again")) {
    s->wants_model = true;
  }
  return MR_OK;
}

static int apply_wire(struct mr_session *s, const struct mr_log_row *row, yyjson_val *j)
{
  struct mr_str t = row->type;

  if (mr_str_is(t, "session.status_running")) {
    s->status = MR_RUNNING;
    s->running_since_us = row->processed_us;
  } else if (mr_str_is(t, "session.status_idle")) {
    apply_idle(s, j, row->processed_us);
  } else if (mr_str_is(t, "session.status_rescheduled")) {
    stop_clock(s, row->processed_us);
    s->status = MR_RESCHEDULING;
  } else if (mr_str_is(t, "session.status_terminated")) {
    stop_clock(s, row->processed_us);
    s->status = MR_TERMINATED;
  } else if (mr_str_is(t, "span.model_request_start")) {
    set_id(s->span_id, mr_json_get_str(j, "id"));
    s->wants_model = false;
  } else if (mr_str_is(t, "span.model_request_end")) {
    apply_span_end(s, j);
  } else if (mr_str_is(t, "user.message")) {
    s->wants_model = true;
    return mr_history_user(s, mr_json_get(j, "content"), "user");
  } else if (mr_str_is(t, "system.message")) {
    return mr_history_user(s, mr_json_get(j, "content"), "system");
  } else if (mr_str_is(t, "agent.tool_use")) {
    return apply_tool_use(s, j, MR_TOOL_BUILTIN);
  } else if (mr_str_is(t, "agent.custom_tool_use")) {
    return apply_tool_use(s, j, MR_TOOL_CUSTOM);
  } else if (mr_str_is(t, "agent.tool_result")) {
    return apply_result(s, j, "tool_use_id");
  } else if (mr_str_is(t, "user.custom_tool_result")) {
    return apply_result(s, j, "custom_tool_use_id");
  } else if (mr_str_is(t, "user.tool_confirmation")) {
    apply_confirmation(s, j);
  }
  return MR_OK;
}

/* Rows whose body says nothing to the machine. */
static bool body_matters(struct mr_str type)
{
  return !mr_str_starts(type, MR_S("session.thread_")) && !mr_str_is(type, "session.status_running") &&
         !mr_str_is(type, "session.usage") && !mr_str_is(type, "agent.message") &&
         !mr_str_is(type, "agent.thinking");
}

int mr_state_apply(struct mr_session *s, const struct mr_log_row *row)
{
  yyjson_doc *doc = NULL;
  int code = MR_OK;

  if (row->processed_us > s->last_us) s->last_us = row->processed_us;
  if (body_matters(row->type)) {
    code = mr_json_parse(s->d->mem, row->body, SIZE_MAX, &doc, NULL);
    if (code != MR_OK) return code;
  }
  code = row->kind == MR_ROW_PRIVATE ? apply_private(s, row->type, yyjson_doc_get_root(doc))
                                     : apply_wire(s, row, yyjson_doc_get_root(doc));
  yyjson_doc_free(doc);
  return code;
}

/* ---- the head ---- */

void mr_usage_write(struct mr_jw *w, const struct mr_usage *u, int64_t active_us)
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
  mr_jw_key(w, "active_seconds");
  mr_jw_real(w, (double)(active_us / 1000) / 1000.0);
  mr_jw_key(w, "server_tool_use");
  mr_jw_raw(w, MR_S("{\"web_search_requests\":0,\"web_fetch_requests\":0}"));
  mr_jw_obj_end(w);
}

void mr_state_head(const struct mr_session *s, struct mr_buf *out)
{
  struct mr_jw w;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "primary", s->primary);
  mr_jw_kc(&w, "sandbox_ref", s->sandbox_ref ? s->sandbox_ref : "");
  mr_jw_kint(&w, "active_us", s->active_us);
  mr_jw_kint(&w, "running_since_us", s->running_since_us);
  mr_jw_key(&w, "usage");
  mr_usage_write(&w, &s->usage, s->active_us);
  mr_jw_obj_end(&w);
}
