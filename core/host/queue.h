/*
 * queue - the completion queue between the loop and the host: what the loop has for the host waits here,
 * and mr_dispatch runs it on the host's thread. One doorbell (an eventfd) is readable while something waits.
 *
 * Bounds. Replies, events and what else is allocated for the queue take a slot of queue_max; a reply's slot
 * is reserved when the call is made, so that a reply always fits. Tool calls, hook calls, model requests,
 * timers and the pulls of uploads are entries inside objects that have limits of their own, and take none.
 *
 * Invariant: an entry is in the queue at most once, and runs once; what it refers to belongs to it until it
 * has run. Any thread may push; one thread at a time dispatches.
 */
#ifndef MR_HOST_QUEUE_H
#define MR_HOST_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include "base/err.h"
#include "base/sys.h"

struct mr_entry {
  struct mr_entry *next;
  void (*run)(struct mr_entry *e); /* on the dispatching thread; may free what holds the entry */
};

struct mr_queue {
  const struct mr_sys *sys;
  int fd;               /* the doorbell */
  int max;              /* slots */
  atomic_int used;      /* slots reserved or filled */
  pthread_mutex_t lock; /* everything below */
  struct mr_entry *head, **tail;
  struct mr_entry *taken; /* the dispatcher's: taken from head, not run yet */
  bool rung;              /* the doorbell is readable */
  bool dispatching;
  pthread_t dispatcher;
};

int mr_queue_init(struct mr_queue *q, const struct mr_sys *sys, int max, struct mr_err *err);
void mr_queue_free(struct mr_queue *q); /* what is in it is forgotten */

int mr_queue_reserve(struct mr_queue *q);                   /* a slot: MR_OK or MR_E_FULL */
void mr_queue_release(struct mr_queue *q);                  /* gives it back */
void mr_queue_push(struct mr_queue *q, struct mr_entry *e); /* never fails */

/* The calling thread becomes the dispatcher: MR_OK; MR_E_REENTRANT if it is already, MR_E_STATE if
 * another thread is. */
int mr_queue_enter(struct mr_queue *q);
void mr_queue_leave(struct mr_queue *q);
/* Is the calling thread inside a dispatch? */
bool mr_queue_inside(struct mr_queue *q);
/* As mr_dispatch, between enter and leave: runs what is there now, not what comes meanwhile. */
int mr_queue_run(struct mr_queue *q, int max, int64_t budget_us);
/* Waits until the doorbell is readable, at most timeout_ms (-1: for ever). MR_OK also after a signal. */
int mr_queue_wait(struct mr_queue *q, int timeout_ms);

#endif
