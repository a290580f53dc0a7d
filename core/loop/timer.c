/* timer.c - timers as a binary heap on the runtime's monotonic clock, under one libevent timer. */
#include "loop/loop_t.h"

#include <event2/event.h>

void mr_timer_init(struct mr_timer *t, void (*fn)(struct mr_timer *t))
{
  *t = (struct mr_timer){.fn = fn};
}

static void heap_put(struct mr_loop *l, size_t i, struct mr_timer *t)
{
  l->heap[i] = t;
  t->at = i + 1;
}

static void heap_up(struct mr_loop *l, size_t i, struct mr_timer *t)
{
  while (i > 0 && l->heap[(i - 1) / 2]->due_us > t->due_us) {
    heap_put(l, i, l->heap[(i - 1) / 2]);
    i = (i - 1) / 2;
  }
  heap_put(l, i, t);
}

static void heap_down(struct mr_loop *l, size_t i, struct mr_timer *t)
{
  for (;;) {
    size_t kid = 2 * i + 1;
    if (kid + 1 < l->heap_n && l->heap[kid + 1]->due_us < l->heap[kid]->due_us) kid++;
    if (kid >= l->heap_n || l->heap[kid]->due_us >= t->due_us) break;
    heap_put(l, i, l->heap[kid]);
    i = kid;
  }
  heap_put(l, i, t);
}

static void heap_remove(struct mr_loop *l, struct mr_timer *t)
{
  size_t i = t->at - 1;
  struct mr_timer *moved = l->heap[--l->heap_n];

  t->at = 0;
  if (moved == t) return;
  if (i > 0 && l->heap[(i - 1) / 2]->due_us > moved->due_us)
    heap_up(l, i, moved);
  else
    heap_down(l, i, moved);
}

void mr_timers_arm(struct mr_loop *l)
{
  int64_t due, wait;
  struct timeval tv;

  if (!l->heap_n || (l->armed_us && l->armed_us <= l->heap[0]->due_us)) return;
  due = l->heap[0]->due_us;
  wait = due - mr_loop_now_us(l);
  if (wait < 0) wait = 0;
  tv.tv_sec = wait / 1000000;
  tv.tv_usec = wait % 1000000;
  if (event_add(l->tick_ev, &tv) == 0) l->armed_us = due;
}

int mr_timer_set(struct mr_loop *l, struct mr_timer *t, int64_t after_us)
{
  if (t->at) heap_remove(l, t);
  if (l->heap_n == l->heap_cap) {
    size_t cap = l->heap_cap ? l->heap_cap * 2 : 32;
    struct mr_timer **heap = mr_mem_realloc(&l->sys->mem, l->heap, cap * sizeof *heap);
    if (!heap) return MR_E_NOMEM;
    l->heap = heap;
    l->heap_cap = cap;
  }
  t->due_us = mr_loop_now_us(l) + (after_us > 0 ? after_us : 0);
  heap_up(l, l->heap_n++, t);
  if (!l->draining) mr_timers_arm(l);
  return MR_OK;
}

void mr_timer_cancel(struct mr_loop *l, struct mr_timer *t)
{
  if (t->at) heap_remove(l, t);
}

struct mr_timer *mr_timer_next(struct mr_loop *l, int64_t now)
{
  struct mr_timer *t = l->heap_n ? l->heap[0] : NULL;

  if (!t || t->due_us > now) return NULL;
  heap_remove(l, t);
  return t;
}
