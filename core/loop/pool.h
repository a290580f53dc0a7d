/*
 * pool - a few threads for blocking work (reads of the store, files, hashing), results back on the
 * loop. A job owns its memory and holds ids, never pointers into loop-thread state; work runs on a
 * pool thread, done on the loop thread. All signals are blocked in the threads.
 */
#ifndef MR_LOOP_POOL_H
#define MR_LOOP_POOL_H

#include "loop/loop.h"

struct mr_pool;
struct mr_job {
  struct mr_post post;                          /* the pool's */
  void (*work)(struct mr_job *j, void *worker); /* pool thread; worker = per-thread value, or NULL */
  void (*done)(struct mr_job *j);               /* loop thread; frees the job */
  struct mr_job *next;                          /* the pool's */
};

/* threads: 1-16. start/end make and destroy a per-thread value (e.g. a database connection); both may
 * be NULL. queue_max bounds waiting jobs. */
int mr_pool_new(struct mr_pool **out, struct mr_loop *l, int threads, int queue_max, const char *name,
                void *(*start)(void *ud), void (*end)(void *ud, void *worker), void *ud, struct mr_err *err);
int mr_pool_submit(struct mr_pool *p, struct mr_job *j); /* MR_E_FULL, MR_E_CLOSED: job not taken */
/* Finishes what is queued, joins. done callbacks of finished jobs are run on the caller's thread,
 * which must be the loop's. */
void mr_pool_free(struct mr_pool **p);

#endif
