/* loop_t - the loop's body, shared by loop.c and timer.c only. */
#ifndef MR_LOOP_LOOP_T_H
#define MR_LOOP_LOOP_T_H

#include <pthread.h>
#include "base/err.h"
#include "loop/loop.h"

struct event;
struct mr_ready_queue {
  struct mr_ready *head, **tail;
};

struct mr_loop {
  const struct mr_sys *sys;
  struct event_base *base;
  struct event *wake_ev, *drain_ev, *tick_ev; /* other threads; the drain; the next timer */
  struct mr_ready_queue ready, last;
  struct mr_timer **heap; /* by due time */
  size_t heap_n, heap_cap;
  int64_t armed_us;       /* what tick_ev is set to, 0 when off */
  int64_t deadline_us;    /* of a pump, else 0 */
  int64_t stage_until_us; /* of the stage of the drain that runs */
  int stage_n;            /* what it has run */
  bool own_base, scheduled, draining, stop;
  int wake_fd;
  pthread_t thread;
  struct mr_post *taken; /* posts the loop thread has taken and not run yet */
  pthread_mutex_t lock;  /* everything below */
  struct mr_post *posts, **posts_tail;
  bool closed;
};

struct mr_timer *mr_timer_next(struct mr_loop *l, int64_t now); /* takes one due by now, or NULL */
void mr_timers_arm(struct mr_loop *l);                          /* sets tick_ev to the earliest */

#endif
