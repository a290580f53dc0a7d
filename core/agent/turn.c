/*
 * turn.c - the loop: what a session does next. One function looks at the state and decides; every event
 * (an input, a finished model request, a finished tool, a timer) only wakes it. Phases of a turn:
 * accept -> context -> model -> permit -> tools -> settle -> idle.
 * Invariant: a transition decides all its rows in one transaction, and what it starts waits for the commit
 * (turn_tools.c), except model requests, whose output is recorded behind it in any case.
 */
#include "agent/session_t.h"

void mr_turn_wake(struct mr_session *s)
{
  if (!s->poisoned && !s->deleted && !s->d->cut) mr_ready_post(s->d->loop, &s->step);
}

/* ---- rows that several transitions write ---- */

static void thread_row(struct mr_txn *t, struct mr_buf *b, struct mr_jw *w, const char *type)
{
  mr_txn_wire(t, b, w, type, NULL, NULL);
  mr_jw_kc(w, "session_thread_id", t->s->primary);
  mr_jw_kstr(w, "agent_name", t->s->agent_name);
}

void mr_turn_running(struct mr_txn *t)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_txn_plain(t, "session.status_running");
  thread_row(t, &b, &w, "session.thread_status_running");
  mr_txn_end_wire(t, &b, &w);
}

static void stop_fields(struct mr_txn *t, struct mr_jw *w, enum mr_stop stop, struct mr_str details)
{
  static const char *const names[] = {"end_turn", "requires_action", "retries_exhausted", "refusal"};
  struct mr_session *s = t->s;

  mr_jw_key(w, "stop_reason");
  mr_jw_obj(w);
  mr_jw_kc(w, "type", names[stop]);
  if (stop == MR_STOP_REQUIRES_ACTION) {
    mr_jw_key(w, "event_ids");
    mr_jw_arr(w);
    for (int i = 0; i < s->ncalls; i++)
      if (mr_call_waits_client(s, s->calls[i])) mr_jw_c(w, s->calls[i]->event_id);
    mr_jw_arr_end(w);
  }
  mr_jw_obj_end(w);
  mr_jw_kraw(w, "stop_details", details);
}

void mr_turn_idle(struct mr_txn *t, enum mr_stop stop, struct mr_str details)
{
  struct mr_session *s = t->s;
  struct mr_buf b;
  struct mr_jw w;
  int64_t active;

  t->label = "idle";
  thread_row(t, &b, &w, "session.thread_status_idle");
  stop_fields(t, &w, stop, details);
  mr_txn_end_wire(t, &b, &w);
  mr_txn_wire(t, &b, &w, "session.usage", NULL, NULL);
  active = s->active_us + (s->running_since_us ? s->last_us - s->running_since_us : 0);
  mr_jw_key(&w, "usage");
  mr_usage_write(&w, &s->usage, active);
  mr_jw_kraw(&w, "budget", MR_S("null"));
  mr_txn_end_wire(t, &b, &w);
  mr_txn_wire(t, &b, &w, "session.status_idle", NULL, NULL);
  stop_fields(t, &w, stop, details);
  mr_txn_end_wire(t, &b, &w);
  if (stop != MR_STOP_REQUIRES_ACTION) s->d->stats.turns++;
}

void mr_turn_error(struct mr_txn *t, const char *type, struct mr_str message, const char *retry_status)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_txn_wire(t, &b, &w, "session.error", NULL, NULL);
  mr_jw_key(&w, "error");
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", type);
  mr_jw_kstr(&w, "message", message);
  mr_jw_key(&w, "retry_status");
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", retry_status);
  mr_jw_obj_end(&w);
  mr_jw_obj_end(&w);
  mr_txn_end_wire(t, &b, &w);
}

/* ---- inputs ---- */

static struct mr_input *next_input(struct mr_session *s, const char *type, const char *or_type)
{
  for (struct mr_input *in = s->inbox; in; in = in->next)
    if (in->committed && (mr_str_is(in->type, type) || (or_type && mr_str_is(in->type, or_type)))) return in;
  return NULL;
}

/* Queued messages, in order, become part of the turn. */
static void take_messages(struct mr_txn *t)
{
  struct mr_input *in;
  while (t->code == MR_OK && (in = next_input(t->s, "user.message", "system.message")))
    mr_txn_take(t, in);
}

static void take_confirmations(struct mr_txn *t)
{
  struct mr_input *in;
  while (t->code == MR_OK && (in = next_input(t->s, "user.tool_confirmation", NULL)))
    mr_txn_take(t, in);
}

/* Inputs that a dead turn drags with it (retries exhausted). */
static void flush_inputs(struct mr_txn *t)
{
  struct mr_session *s = t->s;
  while (s->inbox && s->inbox->committed) {
    mr_commit_inbox_del(t->c, mr_str_c(s->id), mr_str_c(s->inbox->event_id));
    s->inbox = s->inbox->next;
  }
  if (!s->inbox) s->inbox_tail = &s->inbox;
}

/* ---- going on ---- */

static bool all_resolved(const struct mr_session *s)
{
  for (int i = 0; i < s->ncalls; i++)
    if (!s->calls[i]->resolved) return false;
  return true;
}

static bool any_waits_client(const struct mr_session *s)
{
  for (int i = 0; i < s->ncalls; i++)
    if (mr_call_waits_client(s, s->calls[i])) return true;
  return false;
}

/* Results of one batch are recorded together, in call order, once nothing of it runs any more. */
static void record_finished(struct mr_txn *t)
{
  struct mr_session *s = t->s;
  if (mr_tools_running(s)) return;
  for (int i = 0; i < s->ncalls; i++)
    if (s->calls[i]->finished && !s->calls[i]->resolved) mr_tools_result_row(t, s->calls[i]);
}

static bool over_rounds(struct mr_txn *t)
{
  struct mr_session *s = t->s;
  if (s->rounds < s->d->tool_rounds_max) return false;
  mr_turn_error(t, "tool_use_limit_reached_error",
                mr_str_c(mr_arena_printf(t->arena, "the turn used tools, or was continued, %d times: the limit",
                                         s->rounds)),
                "exhausted");
  flush_inputs(t);
  mr_turn_idle(t, MR_STOP_RETRIES, MR_S("null"));
  return true;
}

/* Decides the next rows of a running turn. Returns true when a model request begins with them. */
bool mr_turn_advance(struct mr_txn *t)
{
  struct mr_session *s = t->s;
  bool draining = s->d->draining;

  if (!draining) mr_tools_intents(t);
  record_finished(t);
  if (!all_resolved(s)) {
    /* In a drain calls that need no approval are left to the next start, and so is the idle behind them. */
    if (!mr_tools_running(s) && !mr_tools_to_start(s) && any_waits_client(s))
      mr_turn_idle(t, MR_STOP_REQUIRES_ACTION, MR_S("null"));
    return false;
  }
  if (draining && (s->wants_model || next_input(s, "user.message", NULL))) return false;
  if (!s->wants_model && !next_input(s, "user.message", NULL)) {
    if (!mr_settle_passed(t)) return false;
    mr_turn_idle(t, MR_STOP_END_TURN, MR_S("null"));
    return false;
  }
  mr_settle_drop(s);
  take_messages(t);
  if (over_rounds(t)) return false;
  mr_txn_plain(t, "span.model_request_start");
  return true;
}

void mr_turn_commit(struct mr_txn *t, bool model)
{
  struct mr_session *s = t->s;

  if (t->code == MR_OK && t->n == 0) {
    mr_commit_drop(&t->c);
    mr_arena_free(&t->arena);
    return;
  }
  if (MR_SWITCH("start-early")) mr_tools_start(s);
  mr_txn_commit(t, NULL, NULL);
  if (model && !s->poisoned) mr_model_begin(s);
  mr_turn_wake(s); /* what else is queued */
}

/* ---- interrupts ---- */

static void interrupt_running(struct mr_txn *t)
{
  struct mr_session *s = t->s;
  struct mr_usage u = {0};

  if (s->span_id[0]) {
    mr_model_abort(s, &u);
    mr_turn_span_end(t, true, &u);
  }
  mr_settle_drop(s);
  mr_tools_cancel(s);
  for (int i = 0; i < s->ncalls; i++) {
    struct mr_tcall *c = s->calls[i];
    if (c->resolved) continue;
    if (!c->finished) mr_tools_interrupted(c);
    mr_tools_result_row(t, c);
  }
}

/* An interrupt jumps the queue: what runs is cut, pending calls get an error result, the turn ends. */
static bool step_interrupt(struct mr_session *s)
{
  struct mr_input *in = next_input(s, "user.interrupt", NULL);
  struct mr_txn t;

  if (!in) return false;
  if (!mr_model_cut(s)) return true;
  mr_timer_cancel(s->d->loop, &s->retry);
  mr_txn_begin(&t, s, NULL, "interrupt");
  if (s->status == MR_RUNNING || mr_state_blocked(s)) interrupt_running(&t);
  mr_txn_take(&t, in);
  mr_turn_idle(&t, MR_STOP_END_TURN, MR_S("null"));
  t.label = "interrupt";
  mr_turn_commit(&t, false);
  return true;
}

/* ---- steps by status ---- */

static void step_begin(struct mr_session *s)
{
  struct mr_txn t;
  bool model;

  if (!next_input(s, "user.message", NULL)) return;
  mr_txn_begin(&t, s, NULL, "take");
  mr_turn_running(&t);
  model = mr_turn_advance(&t);
  mr_turn_commit(&t, model);
}

/* Calls that still wait once the queued confirmations count; all: also those not durable yet. */
static int still_waiting(struct mr_session *s, bool all)
{
  int n = 0;
  for (int i = 0; i < s->ncalls; i++) {
    bool answered = false;
    for (struct mr_input *in = s->inbox; in; in = in->next)
      answered |= (in->committed || all) && mr_str_is(in->type, "user.tool_confirmation") &&
                  strcmp(in->ref, s->calls[i]->event_id) == 0;
    n += mr_call_waits_client(s, s->calls[i]) && !answered;
  }
  return n;
}

/* Results of custom tools, processed on receipt, were just applied: what they do to a blocked session goes
 * into the same commit. Between two commits a crash would leave it idle with everything it waited for. */
void mr_turn_answered(struct mr_txn *t)
{
  struct mr_session *s = t->s;
  int left = still_waiting(s, true);

  if (!mr_state_blocked(s) || left == s->blocked_n) return;
  for (struct mr_input *in = s->inbox; in; in = in->next)
    if (mr_str_is(in->type, "user.interrupt")) return; /* it decides, and lies in the inbox until it does */
  if (left > 0)
    mr_turn_idle(t, MR_STOP_REQUIRES_ACTION, MR_S("null"));
  else
    mr_turn_running(t);
  t->label = "inbox";
}

static void step_blocked(struct mr_session *s)
{
  int left = still_waiting(s, false);
  struct mr_txn t;
  bool model = false;

  if (left == s->blocked_n) return;
  mr_txn_begin(&t, s, NULL, "answer");
  if (left > 0) {
    take_confirmations(&t);
    mr_turn_idle(&t, MR_STOP_REQUIRES_ACTION, MR_S("null"));
  } else {
    mr_turn_running(&t);
    take_confirmations(&t);
    model = mr_turn_advance(&t);
  }
  mr_turn_commit(&t, model);
}

static void step_running(struct mr_session *s)
{
  struct mr_txn t;
  bool model = false;

  if (s->span_id[0]) return; /* the model is at work; its end comes by itself */
  if (mr_tools_running(s) && !next_input(s, "user.tool_confirmation", NULL)) return;
  mr_txn_begin(&t, s, NULL, "step");
  take_confirmations(&t);
  if (!mr_tools_running(s))
    model = mr_turn_advance(&t);
  else if (!s->d->draining)
    mr_tools_intents(&t);
  mr_turn_commit(&t, model);
}

void mr_turn_step(struct mr_ready *r)
{
  struct mr_session *s = MR_OF(r, struct mr_session, step);

  if (s->poisoned || s->deleted || s->d->cut) return;
  mr_session_ref(s);
  if (s->status == MR_TERMINATED)
    ;
  else if (step_interrupt(s))
    ;
  else if (s->status == MR_RUNNING)
    step_running(s);
  else if (s->d->draining)
    ;
  else if (s->status == MR_RESCHEDULING)
    mr_turn_arm_retry(s);
  else if (mr_state_blocked(s))
    step_blocked(s);
  else
    step_begin(s);
  mr_session_unref(s);
}

/* ---- retries ---- */

void mr_turn_arm_retry(struct mr_session *s)
{
  int64_t wait = s->due_us - mr_loop_wall_us(s->d->loop);

  if (!mr_timer_pending(&s->retry)) /* a wall clock that went back does not make it longer */
    mr_timer_set(s->d->loop, &s->retry, wait > s->wait_us ? s->wait_us : wait);
}

void mr_turn_retry(struct mr_timer *timer)
{
  struct mr_session *s = MR_OF(timer, struct mr_session, retry);
  struct mr_txn t;
  bool model;

  if (s->poisoned || s->deleted || s->d->draining || s->status != MR_RESCHEDULING) return;
  mr_txn_begin(&t, s, NULL, "retry");
  mr_turn_running(&t);
  model = mr_turn_advance(&t);
  mr_turn_commit(&t, model);
}

/* A model request failed: try again later, or give the turn up. The span's end row was just written. */
void mr_turn_failed(struct mr_txn *t, const char *type, struct mr_str message, bool transient,
                    int64_t retry_after_ms)
{
  struct mr_session *s = t->s;
  struct mr_domain *d = s->d;
  int64_t wait = d->retry_base_us;
  struct mr_buf b;
  struct mr_jw w;

  if (!transient || s->retries >= d->retry_max) {
    mr_turn_error(t, type, message, "exhausted");
    flush_inputs(t);
    mr_turn_idle(t, MR_STOP_RETRIES, MR_S("null"));
    return;
  }
  for (int i = 0; i < s->retries && wait < d->retry_cap_us; i++)
    wait *= 2;
  wait = wait > d->retry_cap_us ? d->retry_cap_us : wait;
  if (retry_after_ms * 1000 > wait) wait = retry_after_ms * 1000;
  mr_turn_error(t, type, message, "retrying");
  thread_row(t, &b, &w, "session.thread_status_rescheduled");
  mr_txn_end_wire(t, &b, &w);
  mr_txn_plain(t, "session.status_rescheduled");
  mr_txn_private(
      t, "model.retry",
      mr_str_c(mr_arena_printf(t->arena, "{\"attempt\":%d,\"due_us\":%lld,\"wait_us\":%lld}", s->retries + 1,
                               (long long)(mr_loop_wall_us(d->loop) + wait), (long long)wait)));
}

void mr_turn_span_end(struct mr_txn *t, bool is_error, const struct mr_usage *u)
{
  struct mr_buf b;
  struct mr_jw w;
  char span[MR_ID_LEN];

  memcpy(span, t->s->span_id, sizeof span);
  mr_txn_wire(t, &b, &w, "span.model_request_end", NULL, NULL);
  mr_jw_kc(&w, "model_request_start_id", span);
  mr_jw_key(&w, "is_error");
  mr_jw_bool(&w, is_error);
  mr_jw_key(&w, "model_usage");
  mr_jw_obj(&w);
  mr_jw_kint(&w, "input_tokens", u->input);
  mr_jw_kint(&w, "output_tokens", u->output);
  mr_jw_kint(&w, "cache_creation_input_tokens", u->cache_write_5m + u->cache_write_1h);
  mr_jw_kint(&w, "cache_read_input_tokens", u->cache_read);
  mr_jw_obj_end(&w);
  mr_txn_end_wire(t, &b, &w);
}

/* ---- after commits, after a restart ---- */

void mr_turn_committed(struct mr_session *s)
{
  if (!s->d->draining) mr_tools_start(s);
  mr_model_committed(s);
  mr_settle_committed(s);
  mr_domain_settled(s->d);
}

void mr_turn_recover(struct mr_session *s)
{
  struct mr_usage none = {0};
  struct mr_txn t;
  bool model = false;

  if (s->d->cut) return;
  if (s->status == MR_RUNNING && s->span_id[0]) {
    /* The request that was in flight is over; the model is asked again under new event ids. */
    mr_txn_begin(&t, s, NULL, "recover");
    if (!MR_SWITCH("no-span-end")) mr_turn_span_end(&t, true, &none);
    mr_txn_private(&t, "model.again", MR_S("{}"));
    if (!s->d->draining) model = mr_turn_advance(&t);
    mr_turn_commit(&t, model);
    return;
  }
  mr_tools_recover(s);
  mr_turn_wake(s);
}

void mr_turn_stop_all(struct mr_session *s)
{
  struct mr_usage u;
  mr_model_abort(s, &u);
  mr_settle_drop(s);
  mr_tools_forget(s);
}
