/*
 * loop - one event loop: libevent's base, our ready queue, our timers, a door for other threads.
 *
 * The one rule of the house: library callbacks only post. A libevent, libcurl or pool callback fills
 * memory and calls mr_ready_post; one drain per loop pass runs what is ready, up to a budget, and the
 * rest at the next pass. So state transitions never run inside a library's callback, and nothing is
 * re-entered. Everything here is for the loop's own thread, except mr_loop_post and mr_loop_wake.
 */
#ifndef MR_LOOP_LOOP_H
#define MR_LOOP_LOOP_H

#include "base/sys.h"

struct event_base;
struct mr_loop;

/* base: NULL makes an own one (no locks), else borrowed and left alive. */
int mr_loop_new(struct mr_loop **out, const struct mr_sys *sys, struct event_base *base, struct mr_err *err);
void mr_loop_free(struct mr_loop **loop); /* pending posts are dropped, timers forgotten */
struct event_base *mr_loop_base(struct mr_loop *l);
const struct mr_sys *mr_loop_sys(struct mr_loop *l);
int64_t mr_loop_now_us(struct mr_loop *l);    /* monotonic, read now */
int64_t mr_loop_wall_us(struct mr_loop *l);   /* wall clock, read now */
void mr_loop_enter(struct mr_loop *l);        /* binds the loop to the calling thread */
bool mr_loop_inside(const struct mr_loop *l); /* is this its thread? */
int mr_loop_run(struct mr_loop *l);           /* until mr_loop_stop; enters by itself */
void mr_loop_stop(struct mr_loop *l);         /* ends mr_loop_run; loop thread, others post it */
/* One bounded turn without blocking: returns MR_MORE when work is left after budget_us. */
int mr_loop_pump(struct mr_loop *l, int64_t budget_us);
int64_t mr_loop_next_timeout_us(struct mr_loop *l); /* to the next timer; 0 work waits; -1 none */

/* Ready: embed in an object. fn runs once per post, in the drain, in the order posted. Posting again
 * while queued does nothing. */
struct mr_ready {
  struct mr_ready *next, **link; /* link NULL when not queued */
  void (*fn)(struct mr_ready *r);
};
void mr_ready_init(struct mr_ready *r, void (*fn)(struct mr_ready *r));
void mr_ready_post(struct mr_loop *l, struct mr_ready *r);
void mr_ready_cancel(struct mr_loop *l, struct mr_ready *r);
/* Runs after the ready queue is empty in this pass, once: for output gathered during a pass. */
void mr_ready_post_last(struct mr_loop *l, struct mr_ready *r);

/* Post: from any thread; fn runs on the loop thread, FIFO per sender. The struct must live until
 * then. Returns MR_E_CLOSED when the loop is gone for good (fn will not run). */
struct mr_post {
  struct mr_post *next;
  void (*fn)(struct mr_post *p);
};
int mr_loop_post(struct mr_loop *l, struct mr_post *p);
/* Runs what was posted so far, now: for closing down, when the loop does not turn any more. */
void mr_loop_run_posts(struct mr_loop *l);
/* From now on mr_loop_post refuses; what was posted before still runs. For threads that outlive the
 * runtime's loop. Any thread. */
void mr_loop_close(struct mr_loop *l);

/* Timers: embed in an object; our own heap on the runtime's monotonic clock. fn runs in the drain. */
struct mr_timer {
  int64_t due_us;
  size_t at; /* heap place + 1; 0 when not set */
  void (*fn)(struct mr_timer *t);
};
void mr_timer_init(struct mr_timer *t, void (*fn)(struct mr_timer *t));
int mr_timer_set(struct mr_loop *l, struct mr_timer *t, int64_t after_us); /* set again = moved */
void mr_timer_cancel(struct mr_loop *l, struct mr_timer *t);
static inline bool mr_timer_pending(const struct mr_timer *t)
{
  return t->at != 0;
}

#define MR_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
