/*
 * turn_interrupt.c - user.interrupt (API: sessions §8.6): it jumps the queue, cuts what runs, gives pending calls an
 * error result, and ends the turn. One that names a thread is that thread's; one that names none is every thread's,
 * in one commit. Loop thread; turn.c calls, at each step of a thread.
 */
#include "agent/outcome.h"

static bool concerns(const struct mr_input *in, const struct mr_thread *th)
{
  return mr_str_is(in->type, "user.interrupt") && (!in->th || in->th == th);
}

bool mr_turn_interrupt_waits(const struct mr_thread *th)
{
  for (const struct mr_input *in = th->s->inbox; in; in = in->next)
    if (concerns(in, th)) return true;
  return false;
}

static bool at_work(const struct mr_thread *th)
{
  return th->status == MR_RUNNING || th->status == MR_RESCHEDULING || mr_thread_blocked(th) ||
         (mr_thread_primary(th) && mr_outcome_active(th->s));
}

static void cut(struct mr_txn *t, struct mr_thread *th)
{
  struct mr_usage u = {0};

  mr_txn_on(t, th);
  mr_timer_cancel(th->s->d->loop, &th->retry);
  if (th->span_id[0]) {
    mr_model_abort(th, &u);
    mr_turn_span_end(t, true, &u);
  }
  mr_settle_drop(th);
  mr_tools_cancel(th);
  for (int i = 0; i < th->ncalls; i++) {
    struct mr_tcall *c = th->calls[i];
    if (c->resolved) continue;
    if (!c->finished) mr_tools_interrupted(c);
    mr_tools_result_row(t, c);
  }
  if (mr_thread_primary(th)) mr_outcome_interrupted(t);
}

/* Threads are cut one by one, and are idle one by one, the primary last: the session is idle with the last of them.
 * When none had anything to do the primary's idle is the answer to who sent it. */
static void apply(struct mr_txn *t, struct mr_input *in)
{
  struct mr_session *s = t->s;
  struct mr_thread *was[MR_THREADS_MAX], *th;
  int n = 0;

  for (th = &s->main; th; th = th->next)
    if (concerns(in, th) && at_work(th) && n < MR_THREADS_MAX) {
      cut(t, th);
      was[n++] = th;
    }
  if (n == 0 && !in->th) was[n++] = &s->main;
  mr_txn_on(t, &s->main);
  mr_txn_take(t, in);
  for (int i = n - 1; i >= 0; i--) { /* an interrupted child sends no report */
    mr_txn_on(t, was[i]);
    mr_turn_thread_idle(t, MR_STOP_END_TURN, MR_S("null"));
    if (mr_thread_advisor(was[i])) mr_turn_terminated(t);
  }
  mr_outcome_resume(t);
  if (n) mr_turn_stopped(t);
}

bool mr_turn_interrupt(struct mr_thread *th)
{
  struct mr_session *s = th->s;
  struct mr_input *in = s->inbox;
  bool ready = true;
  struct mr_txn t;

  while (in && !(in->committed && concerns(in, th)))
    in = in->next;
  if (!in) return false;
  for (struct mr_thread *other = &s->main; other; other = other->next)
    if (concerns(in, other)) ready = mr_model_cut(other) && ready;
  if (!ready) return true; /* the end of each request, which tells what it used, comes back here */
  mr_txn_begin(&t, &s->main, NULL, "interrupt");
  apply(&t, in);
  t.label = "interrupt";
  mr_txn_on(&t, th);
  mr_turn_commit(&t, false);
  mr_turn_wake_all(s);
  return true;
}
