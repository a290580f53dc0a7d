/*
 * turn_budget.c - what a session has cost and may cost (API: sessions §13). The cost of each request is a private row
 * behind its span, in nanocents at the prices of that day: the table may change, what was spent does not. A budget is
 * looked at before each model request, so it is overshot by the request that crosses it at most. Caps (caps.h) are a
 * session's, but for repeats: each thread counts its own. Loop thread.
 */
#include "agent/price.h"
#include "agent/session_t.h"

int64_t mr_session_cost(const struct mr_session *s)
{
  int64_t active = s->active_us + (s->running_since_us ? s->last_us - s->running_since_us : 0);

  if (!mr_price_find(s->d->prices, s->main.model, s->main.speed)) return -1;
  return mr_cost_add(mr_cost_add(s->cost, mr_price_searches(s->d->prices, s->usage.searches)),
                     mr_price_runtime(s->d->prices, active));
}

const struct mr_caps *mr_session_caps(const struct mr_session *s)
{
  return mr_caps_any(&s->caps) ? &s->caps : &s->d->caps;
}

int64_t mr_session_used(const struct mr_session *s, enum mr_cap c)
{
  const struct mr_usage *u = &s->usage;
  int64_t active = s->active_us + (s->running_since_us ? s->last_us - s->running_since_us : 0);

  switch (c) {
  case MR_CAP_COST: return mr_session_cost(s);
  case MR_CAP_TOKENS: return u->input + u->output + u->cache_read + u->cache_write_5m + u->cache_write_1h;
  case MR_CAP_SECONDS: return active / 1000000;
  case MR_CAP_STEPS: return s->steps;
  default: return 0; /* repeats are a thread's */
  }
}

/* The cap of the whole session that is reached, or MR_CAPS. */
static enum mr_cap reached(const struct mr_session *s)
{
  const struct mr_caps *caps = mr_session_caps(s);

  for (int i = 0; i < MR_CAP_REPEATS; i++)
    if (caps->max[i] && mr_session_used(s, i) >= caps->max[i]) return i;
  return MR_CAPS;
}

static bool repeats(const struct mr_thread *th)
{
  int64_t max = mr_session_caps(th->s)->max[MR_CAP_REPEATS];
  return max && th->repeats >= max;
}

/* A thread that goes round in circles pauses alone; the others go on. */
static const struct mr_thread *paused_by_repeats(const struct mr_session *s)
{
  for (const struct mr_thread *th = &s->main; th; th = th->next)
    if (th->status == MR_IDLE && th->stop == MR_STOP_BUDGET && repeats(th)) return th;
  return NULL;
}

bool mr_budget_over(const struct mr_session *s)
{
  return reached(s) != MR_CAPS || paused_by_repeats(s);
}

bool mr_thread_over(const struct mr_thread *th)
{
  if (reached(th->s) != MR_CAPS) return true;
  if (!repeats(th)) return false;
  for (const struct mr_input *in = th->s->inbox; in; in = in->next)
    if (in->committed && in->th == th && mr_input_begins(in)) return false; /* somebody looks after it */
  return true;
}

bool mr_input_begins(const struct mr_input *in)
{
  return mr_str_is(in->type, "user.message") || mr_str_is(in->type, "user.define_outcome");
}

void mr_repeat_count(struct mr_thread *th, const struct mr_tcall *t)
{
  bool same = th->repeats && mr_str_eq(th->last_tool, t->name) && mr_str_eq(th->last_input, t->input);

  th->repeats = same ? th->repeats + 1 : 1;
  th->last_tool = t->name;
  th->last_input = t->input;
}

void mr_repeats_forget(struct mr_session *s)
{
  for (struct mr_thread *th = &s->main; th; th = th->next)
    th->repeats = 0;
}

void mr_cap_write(struct mr_jw *w, const struct mr_session *s)
{
  enum mr_cap c = reached(s);
  const struct mr_thread *th = c == MR_CAPS ? paused_by_repeats(s) : NULL;

  if (c == MR_CAPS && !th) return;
  if (th) c = MR_CAP_REPEATS;
  mr_jw_key(w, "cap_reached");
  mr_jw_obj(w);
  mr_jw_kc(w, "cap", mr_cap_key(c));
  mr_jw_kint(w, "used", th ? th->repeats : mr_session_used(s, c));
  mr_jw_kint(w, "max", mr_session_caps(s)->max[c]);
  if (th) {
    mr_jw_kc(w, "thread", th->id);
    mr_jw_kstr(w, "tool", th->last_tool);
  }
  mr_jw_obj_end(w);
}

void mr_turn_budget_changed(struct mr_txn *t)
{
  struct mr_thread *was = t->th;

  for (struct mr_thread *th = &t->s->main; th; th = th->next) {
    mr_txn_on(t, th);
    if (th->status == MR_IDLE && th->stop == MR_STOP_BUDGET && !mr_thread_over(th) && !MR_SWITCH("begin-late"))
      mr_turn_running(t);
    mr_turn_wake(th);
  }
  mr_txn_on(t, was);
}

void mr_cost_row(struct mr_txn *t, struct mr_str model, struct mr_str speed, const struct mr_usage *u)
{
  int64_t cost = mr_price_cost(mr_price_find(t->s->d->prices, model, speed), u);

  if (cost > 0)
    mr_txn_private(t, "usage.cost", mr_str_c(mr_arena_printf(t->arena, "{\"cost\":%lld}", (long long)cost)));
}

void mr_usage_row(struct mr_txn *t)
{
  struct mr_session *s = t->s;
  struct mr_thread *was = mr_txn_on(t, &s->main);
  struct mr_buf b;
  struct mr_jw w;

  mr_txn_wire(t, &b, &w, "session.usage", NULL, NULL);
  mr_jw_key(&w, "usage");
  mr_usage_write(&w, &s->usage, s->active_us + (s->running_since_us ? s->last_us - s->running_since_us : 0),
                 mr_session_cost(s));
  mr_jw_key(&w, "budget");
  mr_budget_write(&w, &s->caps);
  mr_txn_end_wire(t, &b, &w);
  mr_txn_on(t, was);
}
