/*
 * gate - who may ask a provider now, and who waits; see gate.h.
 *
 * One timer covers all that time changes: the end of a pause, the minute since the oldest start, tokens that
 * drain, the patience of the first in line (all wait equally long, so the first is the first to give up).
 * Waiters are told from the drain, never inside mr_gate_enter, leave or pause. Loop thread.
 */
#include "model/gate.h"

enum { MINUTE_US = 60000000 };

static int64_t now_us(const struct mr_gate *g)
{
  return mr_loop_now_us(g->loop);
}

static void drain(struct mr_gate *g)
{
  int64_t now = now_us(g), gone;

  if (!g->l.tokens) return;
  gone = (int64_t)((double)(now - g->level_us) * (double)g->l.tokens / MINUTE_US);
  if (gone <= 0) return;
  g->level = g->level > gone ? g->level - gone : 0;
  g->level_us = now;
}

/* Microseconds until time alone would let one in; 0: nothing but the places inside stands in the way. */
static int64_t time_left(struct mr_gate *g)
{
  int64_t now = now_us(g), left = g->paused_us - now, t;

  if (g->l.per_minute && g->starts[g->start_at] >= 0) {
    t = g->starts[g->start_at] + MINUTE_US - now;
    left = t > left ? t : left;
  }
  if (g->l.tokens) {
    drain(g);
    if (g->level >= g->l.tokens) {
      t = (int64_t)((double)(g->level - g->l.tokens + 1) * MINUTE_US / (double)g->l.tokens) + 1;
      left = t > left ? t : left;
    }
  }
  return left > 0 ? left : 0;
}

static bool places_left(const struct mr_gate *g)
{
  return !g->l.concurrency || g->inside < g->l.concurrency;
}

static void take(struct mr_gate *g)
{
  g->inside++;
  if (!g->l.per_minute) return;
  g->starts[g->start_at] = now_us(g);
  g->start_at = (g->start_at + 1) % g->l.per_minute;
}

static void set_timer(struct mr_gate *g)
{
  int64_t patience, left;

  if (!g->first) {
    mr_timer_cancel(g->loop, &g->timer);
    return;
  }
  patience = g->first->until_us - now_us(g);
  left = places_left(g) ? time_left(g) : patience;
  if (patience < left) left = patience;
  mr_timer_set(g->loop, &g->timer, left > 0 ? left : 0);
}

static void unlink_waiter(struct mr_gate *g, struct mr_waiter *w)
{
  *w->link = w->next;
  if (w->next)
    w->next->link = w->link;
  else
    g->last = w->link;
  w->link = NULL;
  w->next = NULL;
  g->waiting--;
}

static void serve(struct mr_gate *g)
{
  while (g->first) {
    struct mr_waiter *w = g->first;
    bool late = w->until_us <= now_us(g), may = places_left(g) && time_left(g) == 0;
    if (!late && !may) break;
    unlink_waiter(g, w);
    if (may) take(g);
    w->go(w, may ? MR_OK : MR_E_TIMEOUT);
  }
  set_timer(g);
}

static void on_ready(struct mr_ready *r)
{
  serve(MR_OF(r, struct mr_gate, ready));
}

static void on_timer(struct mr_timer *t)
{
  serve(MR_OF(t, struct mr_gate, timer));
}

int mr_gate_init(struct mr_gate *g, struct mr_loop *loop, const struct mr_gate_limits *l, struct mr_err *err)
{
  *g = (struct mr_gate){.loop = loop, .l = *l};
  g->mem = &mr_loop_sys(loop)->mem;
  g->last = &g->first;
  mr_timer_init(&g->timer, on_timer);
  mr_ready_init(&g->ready, on_ready);
  if (l->per_minute) {
    g->starts = mr_mem_alloc(g->mem, (size_t)l->per_minute * sizeof *g->starts);
    if (!g->starts) return mr_err_nomem(err);
    for (int i = 0; i < l->per_minute; i++)
      g->starts[i] = -1;
  }
  g->level_us = now_us(g);
  return MR_OK;
}

void mr_gate_free(struct mr_gate *g)
{
  if (!g->loop) return;
  mr_timer_cancel(g->loop, &g->timer);
  mr_ready_cancel(g->loop, &g->ready);
  mr_mem_free(g->mem, g->starts);
  g->starts = NULL;
}

int mr_gate_enter(struct mr_gate *g, struct mr_waiter *w)
{
  if (!g->first && places_left(g) && time_left(g) == 0) {
    take(g);
    return MR_OK;
  }
  if (g->paused_us - now_us(g) > g->l.wait_ms * 1000) return MR_E_LIMIT;
  if (g->waiting >= g->l.queue) return MR_E_FULL;
  w->until_us = now_us(g) + g->l.wait_ms * 1000;
  w->next = NULL;
  w->link = g->last;
  *g->last = w;
  g->last = &w->next;
  g->waiting++;
  set_timer(g);
  return MR_MORE;
}

void mr_gate_drop(struct mr_gate *g, struct mr_waiter *w)
{
  if (!w->link) return;
  unlink_waiter(g, w);
  set_timer(g);
}

void mr_gate_leave(struct mr_gate *g, int64_t tokens)
{
  g->inside--;
  if (g->l.tokens && tokens > 0) {
    drain(g);
    if (g->level == 0) g->level_us = now_us(g);
    g->level += tokens;
  }
  if (g->first) mr_ready_post(g->loop, &g->ready);
}

void mr_gate_pause(struct mr_gate *g, int64_t ms)
{
  int64_t until = now_us(g) + ms * 1000;

  if (until > g->paused_us) g->paused_us = until;
  set_timer(g);
}

int64_t mr_gate_paused_ms(const struct mr_gate *g)
{
  int64_t left = g->paused_us - now_us(g);
  return left > 0 ? (left + 999) / 1000 : 0;
}

void mr_gate_close(struct mr_gate *g)
{
  while (g->first) {
    struct mr_waiter *w = g->first;
    unlink_waiter(g, w);
    w->go(w, MR_E_CLOSED);
  }
  mr_timer_cancel(g->loop, &g->timer);
}
