/*
 * copy_close.c - the rows that bring a copy to rest, where copy_rest.c found that its rows do not: what an interrupt of
 * the session would write (API: sessions §8.6). Open model requests end with is_error, calls without a result get the
 * text of an interrupted call, an outcome ends as interrupted, threads are idle, the primary one last, and no child
 * reports. What waits for a client waits on: an idle session whose calls can be answered is at rest, and so is mail.
 *
 * Invariant: nothing runs when the copy is loaded, whatever its rows say: the budget's pause is closed, too, because
 * a copy has spent nothing. Loop thread; copy.c calls.
 */
#include "agent/copy_t.h"

#include <stdio.h>

static const char interrupted[] =
    "[{\"type\":\"text\",\"text\":\"Tool execution was interrupted before completion. Please retry.\"}]";

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

  if (mr_id_make(k->c->d->sys, x->id, "sevt") != MR_OK && x->code == MR_OK)
    x->code = mr_err_set(&k->c->err, MR_E_IO, NULL, "no randomness");
  x->row = (struct mr_log_row){
      .kind = MR_ROW_WIRE, .type = mr_str_c(type), .event_id = mr_str_c(x->id), .thread_id = mr_str_c(thread)};
  mr_buf_reset(&x->b);
  mr_jw_init(&x->w, &x->b);
  mr_jw_obj(&x->w);
  mr_jw_kc(&x->w, "type", type);
  mr_jw_kc(&x->w, "id", x->id);
}

static void write_row(struct closing *x)
{
  int code;

  x->row.body = mr_buf_get(&x->b);
  if (x->b.failed && x->code == MR_OK) x->code = mr_err_nomem(&x->k->c->err);
  if (x->code != MR_OK) return;
  code = mr_copy_row(x->k, &x->row, NULL);
  if (code < 0) x->code = code;
}

/* The row of the thread that it began with, which may be followed by others of the same event. */
static void emit(struct closing *x)
{
  int64_t now = mr_loop_wall_us(x->k->c->d->loop);
  size_t n = x->b.n;
  char at[28];

  x->row.processed_us = now > x->k->last_us ? now : x->k->last_us + 1;
  mr_time_format(x->row.processed_us, at);
  mr_buf_printf(&x->b, ",\"processed_at\":\"%s\"}", at);
  write_row(x);
  x->b.n = n;
}

static void close_span(struct closing *x, struct mr_copy_thread *t)
{
  struct mr_usage none = {0};

  begin(x, "span.model_request_end", t->id);
  mr_jw_kc(&x->w, "model_request_start_id", t->span);
  mr_jw_key(&x->w, "is_error");
  mr_jw_bool(&x->w, true);
  mr_jw_key(&x->w, "model_usage");
  mr_span_usage(&x->w, &none);
  emit(x);
}

/* No event shows a hidden call, or its result. */
static void close_hidden(struct closing *x, struct mr_copy_thread *t, struct mr_copy_use *u)
{
  x->row = (struct mr_log_row){.kind = MR_ROW_PRIVATE,
                               .format = 1,
                               .type = MR_S("tool.result"),
                               .thread_id = mr_str_c(t->id),
                               .processed_us = x->k->last_us};
  mr_buf_reset(&x->b);
  mr_buf_printf(&x->b, "{\"event_id\":\"%s\",\"is_error\":true,\"content\":%s}", u->event_id, interrupted);
  write_row(x);
}

static void close_use(struct closing *x, struct mr_copy_thread *t, struct mr_copy_use *u)
{
  if (u->hidden) {
    close_hidden(x, t, u);
    return;
  }
  begin(x, u->custom ? "user.custom_tool_result" : "agent.tool_result", t->id);
  mr_jw_kc(&x->w, u->custom ? "custom_tool_use_id" : "tool_use_id", u->event_id);
  mr_jw_kraw(&x->w, "content", mr_str_n(interrupted, sizeof interrupted - 1));
  mr_jw_key(&x->w, "is_error");
  mr_jw_bool(&x->w, true);
  emit(x);
}

static void close_outcome(struct closing *x, const struct mr_outcome *o)
{
  struct mr_usage none = {0};

  begin(x, "span.outcome_evaluation_end", "");
  mr_jw_kc(&x->w, "outcome_evaluation_start_id", o->start_id);
  mr_jw_kc(&x->w, "outcome_id", o->id);
  mr_jw_kint(&x->w, "iteration", o->iteration);
  mr_jw_kc(&x->w, "result", "interrupted");
  mr_jw_kc(&x->w, "explanation", "");
  mr_jw_key(&x->w, "usage");
  mr_span_usage(&x->w, &none);
  emit(x);
}

/* ---- idle ---- */

static void waiting_ids(struct closing *x, const struct mr_copy_thread *t)
{
  for (int i = 0; i < t->nuses; i++)
    if (mr_rest_waits(&x->k->rest, &t->uses[i])) mr_jw_c(&x->w, t->uses[i].event_id);
}

static bool blocked(const struct mr_copy_thread *t)
{
  return t->status == MR_IDLE && t->stop == MR_STOP_REQUIRES_ACTION;
}

/* one: of a thread; NULL: of the session. */
static void stop_reason(struct closing *x, const struct mr_copy_thread *one, bool asks)
{
  mr_jw_key(&x->w, "stop_reason");
  mr_jw_obj(&x->w);
  mr_jw_kc(&x->w, "type", asks ? "requires_action" : "end_turn");
  if (asks) {
    mr_jw_key(&x->w, "event_ids");
    mr_jw_arr(&x->w);
    for (const struct mr_copy_thread *t = x->k->rest.threads; t; t = t->next)
      if (one ? t == one : blocked(t)) waiting_ids(x, t);
    mr_jw_arr_end(&x->w);
  }
  mr_jw_obj_end(&x->w);
  mr_jw_kraw(&x->w, "stop_details", MR_S("null"));
}

/* A status of a child is on the primary's log, too. */
static void emit_both(struct closing *x, const struct mr_copy_thread *t)
{
  emit(x);
  if (!t->id[0]) return;
  x->row.thread_id = MR_S("");
  emit(x);
}

static void thread_row(struct closing *x, const char *type, const struct mr_copy_thread *t)
{
  begin(x, type, t->id);
  mr_jw_kstr(&x->w, "session_thread_id", t->id[0] ? mr_str_c(t->id) : x->k->old_primary);
  mr_jw_kstr(&x->w, "agent_name", t->id[0] ? mr_str_c(t->agent) : x->k->agent_name);
}

static void session_idle(struct closing *x)
{
  struct mr_usage none = {0};
  bool asks = false;

  for (const struct mr_copy_thread *t = x->k->rest.threads; t; t = t->next)
    asks = asks || blocked(t);
  begin(x, "session.usage", "");
  mr_jw_key(&x->w, "usage");
  mr_usage_write(&x->w, &none, 0, -1);
  mr_jw_kraw(&x->w, "budget", MR_S("null"));
  emit(x);
  begin(x, "session.status_idle", "");
  stop_reason(x, NULL, asks);
  emit(x);
}

/* ---- threads ---- */

/* Idle, and a client can answer calls of it: they wait on. */
static bool asks(const struct mr_copy *k, const struct mr_copy_thread *t)
{
  return blocked(t) && !t->span[0] && mr_rest_waiting(&k->rest, t) > 0;
}

static bool at_rest(const struct mr_copy *k, const struct mr_copy_thread *t)
{
  if (t->status == MR_TERMINATED) return true;
  if (t->status != MR_IDLE || t->span[0] || t->stop == MR_STOP_BUDGET) return false;
  if (t->stop != MR_STOP_REQUIRES_ACTION) return mr_rest_unresolved(t) == 0;
  return asks(k, t) && mr_rest_waiting(&k->rest, t) == t->nasked; /* else the machine would go on by itself */
}

/* o: the outcome that ends with it, or NULL. */
static void close_thread(struct closing *x, struct mr_copy_thread *t, const struct mr_outcome *o)
{
  bool waits = asks(x->k, t);

  if (t->span[0]) close_span(x, t);
  for (int i = 0; i < t->nuses && !waits; i++)
    if (!t->uses[i].resolved) close_use(x, t, &t->uses[i]);
  if (o) close_outcome(x, o);
  for (struct mr_copy_input *in = t->id[0] || waits ? NULL : x->k->inputs; in; in = in->next) {
    begin(x, in->type.p, "");
    mr_jw_kraw(&x->w, "content", in->content);
    emit(x);
  }
  thread_row(x, "session.thread_status_idle", t);
  stop_reason(x, t, waits);
  emit_both(x, t);
  if (!t->advisor) return;
  thread_row(x, "session.thread_status_terminated", t); /* one question, one answer */
  emit_both(x, t);
}

static bool session_at_rest(const struct mr_rest *r)
{
  bool any = false;

  for (const struct mr_copy_thread *t = r->threads; t; t = t->next)
    any = any || blocked(t);
  return r->status == MR_IDLE && r->stop != MR_STOP_BUDGET && any == (r->stop == MR_STOP_REQUIRES_ACTION);
}

int mr_copy_close(struct mr_copy *k)
{
  struct closing x = {.k = k};
  struct mr_rest *r = &k->rest;
  struct mr_outcome *o = mr_outcomes_active(r->outcomes);
  struct mr_log_row none = {.kind = MR_ROW_PRIVATE};
  bool closed = false, primary;

  if (!r->threads && k->inputs && mr_rest_row(r, &none, NULL, &k->c->err) != MR_OK)
    return MR_E_NOMEM; /* a message is all there is */
  if (!r->threads) return MR_OK;
  mr_buf_init(&x.b, k->c->mem, SIZE_MAX / 2);
  for (struct mr_copy_thread *t = r->threads->next; t && x.code == MR_OK; t = t->next)
    if (!at_rest(k, t)) {
      closed = true;
      close_thread(&x, t, NULL);
    }
  primary = !at_rest(k, r->threads) || (r->status != MR_IDLE && !closed);
  if (o && o->result == MR_RESULT_RUNNING && (asks(k, r->threads) || (!closed && !primary)))
    o = NULL; /* what the client answers goes on with it; as does a message after a turn that failed */
  if (x.code == MR_OK && (primary || o || (k->inputs && !asks(k, r->threads)))) {
    closed = true;
    close_thread(&x, r->threads, o);
  }
  if (x.code == MR_OK && (closed || !session_at_rest(r))) session_idle(&x);
  mr_buf_free(&x.b);
  return x.code;
}
