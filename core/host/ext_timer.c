/*
 * ext_timer.c - timers and posts of bindings: functions that the dispatcher calls later.
 *
 * A timer is one object that moves: on its way to the loop (NEW), in the loop's heap (ARMED), in the queue
 * (QUEUED). Its state is guarded by the table's lock, because cancel may come from any thread at any moment
 * and must say truly whether the function will still be called. Whoever moves it last frees it.
 */
#include "host/ext_t.h"

enum state { NEW, ARMED, CANCELLED, QUEUED, DEAD };

struct timer {
  struct mr_runtime *rt;
  uint64_t id;
  enum state state;
  int64_t due_us;
  struct mr_timer t;
  struct mr_post post; /* to arm it, later to take it back */
  struct mr_entry entry;
  void (*fn)(void *ud);
  void *ud;
};

static void run_timer(struct mr_entry *e)
{
  struct timer *t = MR_OF(e, struct timer, entry);
  struct mr_runtime *rt = t->rt;
  bool dead;

  pthread_mutex_lock(&rt->ext->lock);
  dead = t->state == DEAD;
  if (!dead) mr_ext_drop(rt, t->id);
  pthread_mutex_unlock(&rt->ext->lock);
  if (!dead && !atomic_load(&rt->closing)) t->fn(t->ud);
  mr_mem_free(mr_rt_mem(rt), t);
}

static void on_due(struct mr_timer *mt)
{
  struct timer *t = MR_OF(mt, struct timer, t);
  struct mr_runtime *rt = t->rt;

  pthread_mutex_lock(&rt->ext->lock);
  if (t->state == ARMED) {
    t->state = QUEUED;
    mr_queue_push(&rt->queue, &t->entry);
  }
  pthread_mutex_unlock(&rt->ext->lock);
}

static void on_post(struct mr_post *p)
{
  struct timer *t = MR_OF(p, struct timer, post);
  struct mr_runtime *rt = t->rt;
  bool cancelled;

  pthread_mutex_lock(&rt->ext->lock);
  cancelled = t->state == CANCELLED;
  if (t->state == NEW) {
    t->state = ARMED;
    if (mr_timer_set(rt->loop, &t->t, t->due_us - mr_loop_now_us(rt->loop)) != MR_OK) {
      t->state = QUEUED; /* no memory to remember it: early is better than never */
      mr_queue_push(&rt->queue, &t->entry);
    }
  }
  pthread_mutex_unlock(&rt->ext->lock);
  if (!cancelled) return;
  mr_timer_cancel(rt->loop, &t->t);
  mr_mem_free(mr_rt_mem(rt), t);
}

int mr_x_timer(struct mr_runtime *rt, int64_t us, void (*fn)(void *ud), void *ud, uint64_t *id)
{
  struct timer *t;
  uint64_t given;
  int code = mr_ext_check(rt, NULL);

  if (id) *id = 0;
  if (code == MR_OK && !fn) code = MR_E_INVALID;
  if (code != MR_OK) return code;
  t = mr_mem_zalloc(mr_rt_mem(rt), sizeof *t);
  if (!t) return MR_E_NOMEM;
  t->rt = rt;
  t->due_us = mr_mono_us(&rt->sys) + (us > 0 ? us : 0);
  t->fn = fn;
  t->ud = ud;
  t->post.fn = on_post;
  t->entry.run = run_timer;
  mr_timer_init(&t->t, on_due);
  pthread_mutex_lock(&rt->ext->lock);
  given = t->id = mr_ext_put(rt, MR_EXT_TIMER, t);
  pthread_mutex_unlock(&rt->ext->lock);
  if (!given) {
    mr_mem_free(mr_rt_mem(rt), t);
    return MR_E_FULL;
  }
  if (id) *id = given;
  if (mr_rt_post(rt, &t->post) == MR_OK) return MR_OK;
  pthread_mutex_lock(&rt->ext->lock);
  mr_ext_drop(rt, given);
  pthread_mutex_unlock(&rt->ext->lock);
  mr_mem_free(mr_rt_mem(rt), t);
  return MR_E_CLOSED;
}

int mr_x_timer_cancel(struct mr_runtime *rt, uint64_t id)
{
  struct timer *t;
  bool post = false;

  if (mr_ext_check(rt, NULL) != MR_OK) return 0;
  pthread_mutex_lock(&rt->ext->lock);
  t = mr_ext_get(rt, MR_EXT_TIMER, id);
  if (t) {
    mr_ext_drop(rt, id);
    post = t->state == ARMED; /* NEW: its post is still to come, and frees it */
    t->state = t->state == QUEUED ? DEAD : CANCELLED;
  }
  pthread_mutex_unlock(&rt->ext->lock);
  if (post && mr_rt_post(rt, &t->post) != MR_OK) mr_mem_free(mr_rt_mem(rt), t);
  return t != NULL;
}

/* Lock held, loop not running. */
void mr_timer_end(void *timer)
{
  struct timer *t = timer;
  struct mr_runtime *rt = t->rt;

  if (t->state == QUEUED) return; /* its entry frees it */
  mr_ext_drop(rt, t->id);
  if (t->state == NEW) {
    t->state = CANCELLED; /* its post frees it */
    return;
  }
  mr_timer_cancel(rt->loop, &t->t);
  mr_mem_free(mr_rt_mem(rt), t);
}

/* ---- posts ---- */

struct posted {
  struct mr_entry entry;
  struct mr_runtime *rt;
  void (*fn)(void *ud);
  void *ud;
};

static void run_posted(struct mr_entry *e)
{
  struct posted *p = MR_OF(e, struct posted, entry);
  struct mr_runtime *rt = p->rt;

  p->fn(p->ud);
  mr_mem_free(mr_rt_mem(rt), p);
  mr_queue_release(&rt->queue);
}

int mr_x_post(struct mr_runtime *rt, void (*fn)(void *ud), void *ud)
{
  struct posted *p;
  int code = mr_ext_check(rt, NULL);

  if (code == MR_OK && !fn) code = MR_E_INVALID;
  if (code == MR_OK) code = mr_queue_reserve(&rt->queue);
  if (code != MR_OK) return code;
  p = mr_mem_alloc(mr_rt_mem(rt), sizeof *p);
  if (!p) {
    mr_queue_release(&rt->queue);
    return MR_E_NOMEM;
  }
  *p = (struct posted){.entry.run = run_posted, .rt = rt, .fn = fn, .ud = ud};
  mr_queue_push(&rt->queue, &p->entry);
  return MR_OK;
}
