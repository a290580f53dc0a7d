/*
 * turn.c - the loop: what a thread does next. One function looks at the state and decides; every event
 * (an input, a finished model request, a finished tool, a timer) only wakes it. Phases of a turn:
 * accept -> context -> model -> permit -> tools -> settle -> idle.
 * Invariant: a transition decides all its rows in one transaction, and what it starts waits for the commit
 * (turn_tools.c), except model requests, whose output is recorded behind it in any case.
 */
#include "agent/outcome.h"

void mr_turn_wake(struct mr_thread *th)
{
  struct mr_session *s = th->s;
  if (!s->poisoned && !s->deleted && !s->d->cut) mr_ready_post(s->d->loop, &th->step);
}

void mr_turn_wake_all(struct mr_session *s)
{
  for (struct mr_thread *th = &s->main; th; th = th->next)
    mr_turn_wake(th);
}

/* ---- rows that several transitions write ---- */

void mr_turn_thread_row(struct mr_txn *t, struct mr_buf *b, struct mr_jw *w, const char *type)
{
  mr_txn_wire(t, b, w, type, NULL, NULL);
  mr_jw_kc(w, "session_thread_id", t->th->id);
  mr_jw_kstr(w, "agent_name", t->th->agent_name);
}

/* A row of the session's, on the primary's stream whichever thread is at work. */
static void session_row(struct mr_txn *t, const char *type)
{
  struct mr_thread *was = mr_txn_on(t, &t->s->main);
  mr_txn_plain(t, type);
  mr_txn_on(t, was);
}

void mr_turn_running(struct mr_txn *t)
{
  struct mr_buf b;
  struct mr_jw w;

  if (t->s->status != MR_RUNNING) session_row(t, "session.status_running");
  mr_turn_thread_row(t, &b, &w, "session.thread_status_running");
  mr_txn_end_wire_both(t, &b, &w, false);
}

static void blockers(struct mr_jw *w, const struct mr_thread *th)
{
  for (int i = 0; i < th->ncalls; i++)
    if (mr_call_waits_client(th->calls[i])) mr_jw_c(w, th->calls[i]->event_id);
}

/* one: of this thread alone; NULL: of all that are blocked. */
static void stop_fields(struct mr_txn *t, struct mr_jw *w, enum mr_stop stop, struct mr_str details,
                        const struct mr_thread *one)
{
  static const char *const names[] = {"end_turn", "requires_action", "retries_exhausted", "refusal",
                                      "budget_reached"};

  mr_jw_key(w, "stop_reason");
  mr_jw_obj(w);
  mr_jw_kc(w, "type", names[stop]);
  if (stop == MR_STOP_REQUIRES_ACTION) {
    mr_jw_key(w, "event_ids");
    mr_jw_arr(w);
    for (const struct mr_thread *th = &t->s->main; th; th = th->next)
      if (one ? th == one : mr_thread_blocked(th)) blockers(w, th);
    mr_jw_arr_end(w);
  }
  mr_jw_obj_end(w);
  mr_jw_kraw(w, "stop_details", details.n ? details : MR_S("null"));
}

/* The session's part of the idle triple. Why it stopped: what any thread waits for comes first, then the budget, then
 * the primary's own reason (API: sessions §2.2). */
static void session_idle(struct mr_txn *t)
{
  struct mr_session *s = t->s;
  struct mr_thread *was = mr_txn_on(t, &s->main);
  enum mr_stop stop = s->main.stop;
  struct mr_str details = s->main.stop_details;
  struct mr_buf b;
  struct mr_jw w;

  if (mr_budget_over(s)) stop = MR_STOP_BUDGET;
  for (const struct mr_thread *th = &s->main; th; th = th->next)
    if (mr_thread_blocked(th)) stop = MR_STOP_REQUIRES_ACTION;
  if (stop != s->main.stop) details = MR_S("null");
  mr_usage_row(t);
  mr_txn_wire(t, &b, &w, "session.status_idle", NULL, NULL);
  stop_fields(t, &w, stop, details, NULL);
  mr_txn_end_wire(t, &b, &w);
  if (stop != MR_STOP_REQUIRES_ACTION && stop != MR_STOP_BUDGET) s->d->stats.turns++;
  mr_txn_on(t, was);
}

static bool any_thread(const struct mr_session *s, enum mr_status status)
{
  for (const struct mr_thread *th = &s->main; th; th = th->next)
    if (th->status == status) return true;
  return false;
}

void mr_turn_stopped(struct mr_txn *t)
{
  if (any_thread(t->s, MR_RUNNING)) return;
  if (!any_thread(t->s, MR_RESCHEDULING))
    session_idle(t);
  else if (t->s->status != MR_RESCHEDULING)
    session_row(t, "session.status_rescheduled");
}

void mr_turn_thread_idle(struct mr_txn *t, enum mr_stop stop, struct mr_str details)
{
  struct mr_buf b;
  struct mr_jw w;

  t->label = "idle";
  mr_turn_thread_row(t, &b, &w, "session.thread_status_idle");
  stop_fields(t, &w, stop, details, t->th);
  mr_txn_end_wire_both(t, &b, &w, false);
}

void mr_turn_terminated(struct mr_txn *t)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_turn_thread_row(t, &b, &w, "session.thread_status_terminated");
  mr_txn_end_wire_both(t, &b, &w, false);
}

void mr_turn_idle(struct mr_txn *t, enum mr_stop stop, struct mr_str details)
{
  struct mr_thread *th = t->th;
  bool report = !mr_thread_primary(th) && (stop == MR_STOP_END_TURN || stop == MR_STOP_REFUSAL);

  if (report) mr_mail_report(t);
  if (report && MR_SWITCH("report-split")) {
    mr_txn_commit(t, NULL, NULL);
    mr_txn_begin(t, th, NULL, "idle");
  }
  mr_turn_thread_idle(t, stop, details);
  if (report && mr_thread_advisor(th)) mr_turn_terminated(t); /* one question, one answer */
  if (report) mr_mail_wake(t, &t->s->main);
  if (stop == MR_STOP_END_TURN || stop == MR_STOP_REFUSAL) mr_turn_unread(t);
  if (stop == MR_STOP_BUDGET && (any_thread(t->s, MR_RUNNING) || any_thread(t->s, MR_RESCHEDULING)))
    mr_usage_row(t);
  mr_turn_stopped(t);
}

/* An idle thread is begun by a message in the inbox, else by whoever gives it something to do, in the same commit:
 * nobody looks at a session that is idle after a restart. */
void mr_turn_unread(struct mr_txn *t)
{
  if (t->th->nmail && t->th->status == MR_IDLE && !mr_thread_blocked(t->th) && !MR_SWITCH("begin-late"))
    mr_turn_running(t);
}

void mr_turn_dead(struct mr_txn *t)
{
  struct mr_thread *th = t->th;

  mr_turn_flush(t);
  mr_turn_thread_idle(t, MR_STOP_RETRIES, MR_S("null"));
  if (!mr_thread_primary(th)) {
    mr_turn_terminated(t);
    mr_mail_notice(
        t, &t->s->main,
        mr_str_c(mr_arena_printf(t->arena,
                                 "Agent " MR_FMT " (thread %s) failed and has been ended: it sends no "
                                 "report.",
                                 MR_ARG(th->agent_name), th->known_as)));
    mr_mail_wake(t, &t->s->main);
  }
  mr_turn_stopped(t);
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

static struct mr_input *next_input(struct mr_thread *th, const char *type, const char *or_type)
{
  for (struct mr_input *in = th->s->inbox; in; in = in->next)
    if (in->committed && in->th == th &&
        (mr_str_is(in->type, type) || (or_type && mr_str_is(in->type, or_type))))
      return in;
  return NULL;
}

/* Queued messages, in order, become part of the turn. */
static void take_messages(struct mr_txn *t)
{
  struct mr_input *in;
  while (t->code == MR_OK && (in = next_input(t->th, "user.define_outcome", NULL)))
    mr_txn_take(t, in); /* of a session's initial events; others are processed on receipt */
  while (t->code == MR_OK && (in = next_input(t->th, "user.message", NULL)))
    mr_txn_take(t, in);
  while (t->code == MR_OK && (in = next_input(t->th, "system.message", NULL)))
    mr_txn_take(t, in); /* behind the message that it goes with: models' APIs want it there */
}

static void take_confirmations(struct mr_txn *t)
{
  struct mr_input *in;
  while (t->code == MR_OK && (in = next_input(t->th, "user.tool_confirmation", NULL)))
    mr_txn_take(t, in);
}

/* Inputs that a dead turn drags with it (retries exhausted): the thread's own. */
void mr_turn_flush(struct mr_txn *t)
{
  struct mr_session *s = t->s;

  for (struct mr_input **at = &s->inbox, *in; (in = *at);) {
    if (!in->committed || in->th != t->th || mr_str_is(in->type, "user.interrupt")) {
      at = &in->next;
      continue;
    }
    if (t->c) mr_commit_inbox_del(t->c, mr_str_c(s->id), mr_str_c(in->event_id));
    *at = in->next;
  }
  s->inbox_tail = &s->inbox;
  while (*s->inbox_tail)
    s->inbox_tail = &(*s->inbox_tail)->next;
}

/* ---- going on ---- */

static bool all_resolved(const struct mr_thread *th)
{
  for (int i = 0; i < th->ncalls; i++)
    if (!th->calls[i]->resolved) return false;
  return true;
}

/* Calls that still wait once the queued confirmations count; all: also those not durable yet. */
static int still_waiting(struct mr_thread *th, bool all)
{
  int n = 0;
  for (int i = 0; i < th->ncalls; i++) {
    bool answered = false;
    for (struct mr_input *in = th->s->inbox; in; in = in->next)
      answered |= (in->committed || all) && mr_str_is(in->type, "user.tool_confirmation") &&
                  strcmp(in->ref, th->calls[i]->event_id) == 0;
    n += mr_call_waits_client(th->calls[i]) && !answered;
  }
  return n;
}

/* Results of one batch are recorded together, in call order, once nothing of it runs any more. */
void mr_turn_record(struct mr_txn *t)
{
  struct mr_thread *th = t->th;
  if (mr_tools_running(th)) return;
  for (int i = 0; i < th->ncalls; i++)
    if (th->calls[i]->finished && !th->calls[i]->resolved) mr_tools_result_row(t, th->calls[i]);
}

static bool over_rounds(struct mr_txn *t)
{
  struct mr_thread *th = t->th;
  if (th->rounds < th->s->d->tool_rounds_max) return false;
  mr_turn_error(t, "tool_use_limit_reached_error",
                mr_str_c(mr_arena_printf(t->arena, "the turn used tools, or was continued, %d times: the limit",
                                         th->rounds)),
                "exhausted");
  mr_turn_dead(t);
  return true;
}

static bool more_to_do(struct mr_thread *th)
{
  return th->wants_model || th->nmail || next_input(th, "user.message", "user.define_outcome");
}

/* Decides the next rows of a running turn. Returns true when a model request begins with them. */
bool mr_turn_advance(struct mr_txn *t)
{
  struct mr_thread *th = t->th;
  bool draining = th->s->d->draining;

  if (!draining) mr_tools_intents(t);
  mr_turn_record(t);
  if (!all_resolved(th)) {
    /* In a drain calls that need no approval are left to the next start, and so is the idle behind them. What an
     * answer that is not durable yet settles is waited for. */
    if (!mr_tools_running(th) && !mr_tools_to_start(th) && still_waiting(th, true))
      mr_turn_idle(t, MR_STOP_REQUIRES_ACTION, MR_S("null"));
    return false;
  }
  if (draining && more_to_do(th)) return false;
  if (!more_to_do(th)) {
    if (!mr_settle_passed(t) || mr_outcome_grades(t)) return false;
    mr_turn_idle(t, MR_STOP_END_TURN, MR_S("null"));
    return false;
  }
  mr_settle_drop(th);
  if (mr_thread_over(th)) {
    mr_turn_idle(t, MR_STOP_BUDGET, MR_S("null"));
    return false;
  }
  if (mr_compact_limit(t)) return false;
  if (!mr_compact_wanted(th)) { /* else what waits comes behind the summary */
    take_messages(t);
    mr_mail_take(t);
  }
  if (over_rounds(t)) return false;
  mr_txn_plain(t, "span.model_request_start");
  return true;
}

void mr_turn_commit(struct mr_txn *t, bool model)
{
  struct mr_thread *th = t->th;

  if (t->code == MR_OK && t->n == 0) {
    mr_commit_drop(&t->c);
    mr_arena_free(&t->arena);
    return;
  }
  if (MR_SWITCH("start-early")) mr_tools_start(th);
  mr_txn_commit(t, NULL, NULL);
  if (model && !th->s->poisoned) mr_model_begin(th);
  mr_turn_wake(th); /* what else is queued */
}

/* ---- steps by status ---- */

/* Confirmations that came when their calls had been ended otherwise: recorded, and without effect. */
static void take_stale(struct mr_thread *th)
{
  struct mr_txn t;

  if (!next_input(th, "user.tool_confirmation", NULL)) return;
  mr_txn_begin(&t, th, NULL, "stale");
  take_confirmations(&t);
  mr_turn_commit(&t, false);
}

static void step_begin(struct mr_thread *th)
{
  struct mr_txn t;
  bool model;

  if (mr_thread_over(th)) return;
  if (!next_input(th, "user.message", "user.define_outcome") &&
      !(MR_SWITCH("begin-late") && (th->nmail || th->stop == MR_STOP_BUDGET)))
    return;
  mr_txn_begin(&t, th, NULL, "take");
  mr_turn_running(&t);
  model = mr_turn_advance(&t);
  mr_turn_commit(&t, model);
}

/* Results of tools and outcomes, processed on receipt, were just applied: what they do to a thread goes into the
 * same commit. Between two commits a crash would leave it idle with everything it waited for. */
void mr_turn_answered(struct mr_txn *t)
{
  struct mr_thread *th = t->th;
  int left = still_waiting(th, true);

  if (mr_turn_interrupt_waits(th)) return; /* it decides, and lies in the inbox until it does */
  if (mr_thread_primary(th) && mr_outcome_pending(t->s)) mr_turn_unread(t);
  if (!mr_thread_blocked(th) || left == th->blocked_n) return;
  if (left > 0)
    mr_turn_idle(t, MR_STOP_REQUIRES_ACTION, MR_S("null"));
  else
    mr_turn_running(t);
  t->label = "inbox";
}

static void step_blocked(struct mr_thread *th)
{
  int left = still_waiting(th, false);
  struct mr_txn t;
  bool model = false;

  if (left == th->blocked_n) return;
  mr_txn_begin(&t, th, NULL, "answer");
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

static void step_running(struct mr_thread *th)
{
  struct mr_txn t;
  bool model = false;

  if (th->span_id[0]) return; /* the model is at work; its end comes by itself */
  if (mr_outcome_evaluating(th)) {
    mr_outcome_begin(th->s);
    return;
  }
  if (mr_tools_running(th) && !next_input(th, "user.tool_confirmation", NULL)) return;
  mr_txn_begin(&t, th, NULL, "step");
  take_confirmations(&t);
  if (!mr_tools_running(th))
    model = mr_turn_advance(&t);
  else if (!th->s->d->draining)
    mr_tools_intents(&t);
  mr_turn_commit(&t, model);
}

static void step_idle(struct mr_thread *th)
{
  take_stale(th);
  if (th->status == MR_IDLE && !th->s->poisoned) step_begin(th);
}

void mr_turn_step(struct mr_ready *r)
{
  struct mr_thread *th = MR_OF(r, struct mr_thread, step);
  struct mr_session *s = th->s;

  if (s->poisoned || s->deleted || s->d->cut) return;
  mr_session_ref(s);
  if (mr_turn_interrupt(th)) /* also one that named it before it ended */
    ;
  else if (th->status == MR_RUNNING)
    step_running(th);
  else if (s->d->draining)
    ;
  else if (th->status == MR_RESCHEDULING)
    mr_turn_arm_retry(th);
  else if (mr_thread_blocked(th))
    step_blocked(th);
  else
    step_idle(th);
  mr_session_unref(s);
}

/* ---- after commits ---- */

void mr_turn_committed(struct mr_session *s)
{
  for (struct mr_thread *th = &s->main; th && !s->poisoned; th = th->next) {
    if (!s->d->draining) mr_tools_start(th);
    mr_model_committed(th);
    mr_settle_committed(th);
  }
  mr_domain_settled(s->d);
}

void mr_turn_stop_all(struct mr_session *s)
{
  struct mr_usage u;

  mr_outcome_forget(s);
  for (struct mr_thread *th = &s->main; th; th = th->next) {
    mr_model_abort(th, &u);
    mr_settle_drop(th);
    mr_tools_forget(th);
  }
}
