/*
 * loop.c - the drain: posts from other threads, due timers, then the ready queue; see loop.h. The timer
 * heap is in timer.c. Everything ends in loop_drain, which libevent runs as one event of its own.
 */
#include "loop/loop_t.h"

#include <event2/event.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { STAGE_ITEMS = 256, STAGE_US = 2000 };

static void schedule(struct mr_loop *l)
{
  if (l->scheduled || l->draining) /* the drain looks again before it leaves */
    return;
  l->scheduled = true;
  event_active(l->drain_ev, EV_TIMEOUT, 0);
}

/* ---- ready ---- */

static void queue_add(struct mr_ready_queue *q, struct mr_ready *r)
{
  r->next = NULL;
  r->link = q->tail;
  *q->tail = r;
  q->tail = &r->next;
}

static void queue_del(struct mr_ready_queue *q, struct mr_ready *r)
{
  *r->link = r->next;
  if (r->next)
    r->next->link = r->link;
  else
    q->tail = r->link;
  r->next = NULL;
  r->link = NULL;
}

void mr_ready_init(struct mr_ready *r, void (*fn)(struct mr_ready *r))
{
  *r = (struct mr_ready){.fn = fn};
}

void mr_ready_post(struct mr_loop *l, struct mr_ready *r)
{
  if (r->link) return;
  queue_add(&l->ready, r);
  schedule(l);
}

void mr_ready_post_last(struct mr_loop *l, struct mr_ready *r)
{
  if (r->link) return;
  queue_add(&l->last, r);
  schedule(l);
}

void mr_ready_cancel(struct mr_loop *l, struct mr_ready *r)
{
  if (!r->link) return;
  /* The two queues differ only in their tails. */
  queue_del(l->last.tail == &r->next ? &l->last : &l->ready, r);
}

/* ---- posts from other threads ---- */

int mr_loop_post(struct mr_loop *l, struct mr_post *p)
{
  uint64_t one = 1;
  bool first, closed;

  p->next = NULL;
  pthread_mutex_lock(&l->lock);
  closed = l->closed;
  first = !l->posts;
  if (!closed) {
    *l->posts_tail = p;
    l->posts_tail = &p->next;
  }
  pthread_mutex_unlock(&l->lock);
  if (closed) return MR_E_CLOSED;
  if (first && write(l->wake_fd, &one, sizeof one) < 0)
    return MR_OK; /* EAGAIN: the counter is full, so the loop is awake anyway */
  return MR_OK;
}

void mr_loop_close(struct mr_loop *l)
{
  pthread_mutex_lock(&l->lock);
  l->closed = true;
  pthread_mutex_unlock(&l->lock);
}

static void on_wake(evutil_socket_t fd, short what, void *ud)
{
  uint64_t n;
  (void)what;
  if (read(fd, &n, sizeof n) < 0) return;
  schedule(ud);
}

/* The next post to run, of those taken. They hang on the loop, not on a stack, so that a post that
 * shuts something down can have the rest run first (mr_loop_run_posts). */
static struct mr_post *post_next(struct mr_loop *l)
{
  struct mr_post *p = l->taken;
  if (p) l->taken = p->next;
  return p;
}

static void posts_take(struct mr_loop *l)
{
  if (l->taken) return;
  pthread_mutex_lock(&l->lock);
  l->taken = l->posts;
  l->posts = NULL;
  l->posts_tail = &l->posts;
  pthread_mutex_unlock(&l->lock);
}

void mr_loop_run_posts(struct mr_loop *l)
{
  struct mr_post *p;

  for (posts_take(l); (p = post_next(l)); posts_take(l))
    p->fn(p);
}

/* ---- the drain ----
 * Three stages, each with a budget of its own and at least one item a pass, so that none of posts,
 * timers and ready objects can starve the others. */

static void stage_begin(struct mr_loop *l)
{
  l->stage_n = 0;
  l->stage_until_us = mr_loop_now_us(l) + STAGE_US;
}

/* Asked after each item: is it time to leave? */
static bool stage_over(struct mr_loop *l)
{
  l->stage_n++;
  if (l->deadline_us && mr_loop_now_us(l) >= l->deadline_us) {
    event_base_loopbreak(l->base);
    return true;
  }
  return l->stage_n >= STAGE_ITEMS || ((l->stage_n & 15) == 0 && mr_loop_now_us(l) >= l->stage_until_us);
}

static void drain_pass(struct mr_loop *l)
{
  struct mr_post *p;
  struct mr_timer *t;
  int64_t now;

  stage_begin(l);
  posts_take(l);
  while ((p = post_next(l))) {
    p->fn(p);
    if (stage_over(l)) break;
  }
  stage_begin(l);
  now = mr_loop_now_us(l);
  while ((t = mr_timer_next(l, now))) {
    t->fn(t);
    if (stage_over(l)) break;
  }
  stage_begin(l);
  while (l->ready.head || l->last.head) {
    struct mr_ready_queue *q = l->ready.head ? &l->ready : &l->last;
    struct mr_ready *r = q->head;
    queue_del(q, r);
    r->fn(r);
    if (stage_over(l)) break;
  }
}

static bool has_ready(const struct mr_loop *l)
{
  return l->taken || l->ready.head || l->last.head;
}

/* Posts that came while earlier ones were left over have had their wake-up: it will not come again. */
static bool has_posts(struct mr_loop *l)
{
  bool any;

  pthread_mutex_lock(&l->lock);
  any = l->posts != NULL;
  pthread_mutex_unlock(&l->lock);
  return any;
}

static void drain(struct mr_loop *l)
{
  const struct timeval now = {0, 0};

  if (l->draining) return;
  l->draining = true;
  drain_pass(l);
  l->draining = false;
  l->scheduled = has_ready(l) || has_posts(l);
  if (l->scheduled) event_add(l->drain_ev, &now); /* a zero timer, not event_active: I/O is polled in between */
  mr_timers_arm(l);
}

static void on_drain(evutil_socket_t fd, short what, void *ud)
{
  (void)fd;
  (void)what;
  drain(ud);
}

static void on_tick(evutil_socket_t fd, short what, void *ud)
{
  struct mr_loop *l = ud;
  (void)fd;
  (void)what;
  l->armed_us = 0;
  schedule(l);
}

/* ---- life ---- */

static struct event_base *base_new(void)
{
  struct event_config *cfg = event_config_new();
  struct event_base *base = NULL;

  if (!cfg) return NULL;
  if (event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_PRECISE_TIMER |
                                     EVENT_BASE_FLAG_IGNORE_ENV) == 0)
    base = event_base_new_with_config(cfg);
  event_config_free(cfg);
  return base;
}

int mr_loop_new(struct mr_loop **out, const struct mr_sys *sys, struct event_base *base, struct mr_err *err)
{
  struct mr_loop *l = mr_mem_zalloc(&sys->mem, sizeof *l);
  int code = MR_OK;

  *out = NULL;
  if (!l) return mr_err_nomem(err);
  l->sys = sys;
  l->wake_fd = -1;
  l->ready.tail = &l->ready.head;
  l->last.tail = &l->last.head;
  l->posts_tail = &l->posts;
  l->thread = pthread_self();
  pthread_mutex_init(&l->lock, NULL);
  l->own_base = base == NULL;
  l->base = base ? base : base_new();
  l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (!l->base || l->wake_fd < 0) {
    code = mr_err_errno(err, "event loop");
    goto out;
  }
  l->wake_ev = event_new(l->base, l->wake_fd, EV_READ | EV_PERSIST, on_wake, l);
  l->drain_ev = event_new(l->base, -1, 0, on_drain, l);
  l->tick_ev = event_new(l->base, -1, 0, on_tick, l);
  if (!l->wake_ev || !l->drain_ev || !l->tick_ev || event_add(l->wake_ev, NULL) != 0) code = mr_err_nomem(err);
out:
  if (code != MR_OK) mr_loop_free(&l);
  *out = l;
  return code;
}

void mr_loop_free(struct mr_loop **lp)
{
  struct mr_loop *l = *lp;
  const struct mr_mem *m;

  if (!l) return;
  m = &l->sys->mem;
  if (l->wake_ev) event_free(l->wake_ev);
  if (l->drain_ev) event_free(l->drain_ev);
  if (l->tick_ev) event_free(l->tick_ev);
  if (l->own_base && l->base) event_base_free(l->base);
  if (l->wake_fd >= 0) close(l->wake_fd);
  pthread_mutex_destroy(&l->lock);
  mr_mem_free(m, l->heap);
  mr_mem_free(m, l);
  *lp = NULL;
}

struct event_base *mr_loop_base(struct mr_loop *l)
{
  return l->base;
}
const struct mr_sys *mr_loop_sys(struct mr_loop *l)
{
  return l->sys;
}
int64_t mr_loop_now_us(struct mr_loop *l)
{
  return mr_mono_us(l->sys);
}
int64_t mr_loop_wall_us(struct mr_loop *l)
{
  return mr_wall_us(l->sys);
}
void mr_loop_enter(struct mr_loop *l)
{
  l->thread = pthread_self();
}
bool mr_loop_inside(const struct mr_loop *l)
{
  return pthread_equal(l->thread, pthread_self()) != 0;
}

int mr_loop_run(struct mr_loop *l)
{
  mr_loop_enter(l);
  while (!l->stop)
    if (event_base_loop(l->base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY) < 0) return MR_E_IO;
  l->stop = false;
  return MR_OK;
}

void mr_loop_stop(struct mr_loop *l)
{
  l->stop = true;
  if (l->own_base) /* a borrowed one is the host's to break */
    event_base_loopbreak(l->base);
}

/* Is something waiting that needs no event? */
static bool has_work(struct mr_loop *l)
{
  return has_posts(l) || has_ready(l) || (l->heap_n && l->heap[0]->due_us <= mr_loop_now_us(l));
}

int mr_loop_pump(struct mr_loop *l, int64_t budget_us)
{
  bool late = false;

  mr_loop_enter(l);
  l->deadline_us = budget_us > 0 ? mr_loop_now_us(l) + budget_us : 0;
  do {
    schedule(l); /* due timers of an injected clock are seen without libevent's */
    if (event_base_loop(l->base, EVLOOP_NONBLOCK) < 0) break;
    late = l->deadline_us && mr_loop_now_us(l) >= l->deadline_us;
  } while (!late && has_work(l));
  l->deadline_us = 0;
  return has_work(l) ? MR_MORE : MR_OK;
}

int64_t mr_loop_next_timeout_us(struct mr_loop *l)
{
  int64_t d;

  if (has_work(l)) return 0;
  if (!l->heap_n) return -1;
  d = l->heap[0]->due_us - mr_loop_now_us(l);
  return d > 0 ? d : 0;
}
