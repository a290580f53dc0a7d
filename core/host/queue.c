/*
 * queue.c - the completion queue and its doorbell; see queue.h.
 *
 * A dispatch takes the whole list at once, so entries cost one lock for many; what it does not run (count or
 * budget reached) stays in `taken` for the next one. The doorbell is set under the lock and changed only when
 * the answer to "does something wait?" changes: a burst of a thousand entries costs one write and one read.
 */
#include "host/queue.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

int mr_queue_init(struct mr_queue *q, const struct mr_sys *sys, int max, struct mr_err *err)
{
  memset(q, 0, sizeof *q);
  q->sys = sys;
  q->max = max;
  q->tail = &q->head;
  atomic_init(&q->used, 0);
  pthread_mutex_init(&q->lock, NULL);
  q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return q->fd >= 0 ? MR_OK : mr_err_errno(err, "doorbell");
}

void mr_queue_free(struct mr_queue *q)
{
  if (q->fd >= 0) close(q->fd);
  q->fd = -1;
  pthread_mutex_destroy(&q->lock);
}

int mr_queue_reserve(struct mr_queue *q)
{
  int n = atomic_load_explicit(&q->used, memory_order_relaxed);

  do {
    if (n >= q->max) return MR_E_FULL;
  } while (!atomic_compare_exchange_weak(&q->used, &n, n + 1));
  return MR_OK;
}

void mr_queue_release(struct mr_queue *q)
{
  atomic_fetch_sub(&q->used, 1);
}

/* Lock held. A failed write means that the counter is full, a failed read that it is 0: both are fine. */
static void ring(struct mr_queue *q, bool on)
{
  uint64_t n = 1;

  if (q->rung == on) return;
  q->rung = on;
  if ((on ? write(q->fd, &n, sizeof n) : read(q->fd, &n, sizeof n)) < 0) return;
}

void mr_queue_push(struct mr_queue *q, struct mr_entry *e)
{
  e->next = NULL;
  pthread_mutex_lock(&q->lock);
  *q->tail = e;
  q->tail = &e->next;
  ring(q, true);
  pthread_mutex_unlock(&q->lock);
}

int mr_queue_enter(struct mr_queue *q)
{
  int code = MR_OK;

  pthread_mutex_lock(&q->lock);
  if (!q->dispatching) {
    q->dispatching = true;
    q->dispatcher = pthread_self();
  } else {
    code = pthread_equal(q->dispatcher, pthread_self()) ? MR_E_REENTRANT : MR_E_STATE;
  }
  pthread_mutex_unlock(&q->lock);
  return code;
}

void mr_queue_leave(struct mr_queue *q)
{
  pthread_mutex_lock(&q->lock);
  q->dispatching = false;
  ring(q, q->taken || q->head);
  pthread_mutex_unlock(&q->lock);
}

bool mr_queue_inside(struct mr_queue *q)
{
  bool inside;

  pthread_mutex_lock(&q->lock);
  inside = q->dispatching && pthread_equal(q->dispatcher, pthread_self());
  pthread_mutex_unlock(&q->lock);
  return inside;
}

/* All that waits becomes the dispatcher's. */
static struct mr_entry *take(struct mr_queue *q)
{
  struct mr_entry *e;

  pthread_mutex_lock(&q->lock);
  e = q->head;
  q->head = NULL;
  q->tail = &q->head;
  pthread_mutex_unlock(&q->lock);
  return e;
}

int mr_queue_run(struct mr_queue *q, int max, int64_t budget_us)
{
  int64_t end = budget_us > 0 ? mr_mono_us(q->sys) + budget_us : 0;
  struct mr_entry *e;
  bool taken = false, more;

  for (int n = 0; !(max > 0 && n >= max) && !(end && n && mr_mono_us(q->sys) >= end); n++) {
    if (!q->taken && !taken) { /* once: what comes while we run waits for the next time */
      q->taken = take(q);
      taken = true;
    }
    if (!(e = q->taken)) break;
    q->taken = e->next;
    e->run(e);
  }
  pthread_mutex_lock(&q->lock);
  more = q->taken || q->head;
  ring(q, more); /* a wait may follow before the dispatcher leaves */
  pthread_mutex_unlock(&q->lock);
  return more ? MR_MORE : MR_OK;
}

int mr_queue_wait(struct mr_queue *q, int timeout_ms)
{
  struct pollfd p = {.fd = q->fd, .events = POLLIN};
  int n = poll(&p, 1, timeout_ms);

  if (n < 0 && errno != EINTR) return MR_E_IO;
  return n == 0 ? MR_E_TIMEOUT : MR_OK; /* a signal: the host may have something to look at */
}
