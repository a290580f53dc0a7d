/*
 * turn_budget.c - what a session has cost and may cost (API: sessions §13). The cost of each request is a private row
 * behind its span, in nanocents at the prices of that day: the table may change, what was spent does not. A budget is
 * looked at before each model request, so it is overshot by the request that crosses it at most. Loop thread.
 */
#include "agent/price.h"
#include "agent/session_t.h"

int64_t mr_session_cost(const struct mr_session *s)
{
  int64_t active = s->active_us + (s->running_since_us ? s->last_us - s->running_since_us : 0);

  if (!mr_price_find(s->d->prices, s->main.model, s->main.speed)) return -1;
  return mr_cost_add(s->cost, mr_price_runtime(s->d->prices, active));
}

bool mr_budget_over(const struct mr_session *s)
{
  return s->cap && mr_budget_reached(s->cap, mr_session_cost(s));
}

void mr_turn_budget_changed(struct mr_txn *t)
{
  struct mr_thread *was = t->th;

  for (struct mr_thread *th = &t->s->main; th; th = th->next) {
    mr_txn_on(t, th);
    if (th->status == MR_IDLE && th->stop == MR_STOP_BUDGET && !mr_budget_over(t->s) &&
        !MR_SWITCH("begin-late"))
      mr_turn_running(t);
    mr_turn_wake(th);
  }
  mr_txn_on(t, was);
}

void mr_cost_row(struct mr_txn *t, struct mr_str model, const struct mr_usage *u)
{
  int64_t cost = mr_price_cost(mr_price_find(t->s->d->prices, model, t->th->speed), u);

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
  if (s->cap)
    mr_budget_write(&w, s->cap);
  else
    mr_jw_null(&w);
  mr_txn_end_wire(t, &b, &w);
  mr_txn_on(t, was);
}
