/* pool.c - worker threads for blocking jobs; see pool.h. */
#include "loop/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include "base/err.h"

enum { POOL_THREADS_MAX = 16 };

struct mr_pool {
  struct mr_loop *loop;
  const struct mr_mem *mem;
  pthread_t threads[POOL_THREADS_MAX];
  int nthreads, queued, queue_max;
  char name[16];
  bool closing;
  pthread_mutex_t lock; /* everything below, queued, closing */
  pthread_cond_t more;
  struct mr_job *head, **tail;
  void *(*start)(void *ud);
  void (*end)(void *ud, void *worker);
  void *ud;
};

static void job_done(struct mr_post *p)
{
  struct mr_job *j = MR_OF(p, struct mr_job, post);
  j->done(j);
}

static void *pool_thread(void *arg)
{
  struct mr_pool *p = arg;
  void *worker = p->start ? p->start(p->ud) : NULL;
  struct mr_job *j;

  pthread_mutex_lock(&p->lock);
  for (;;) {
    while (!p->head && !p->closing)
      pthread_cond_wait(&p->more, &p->lock);
    if (!p->head) break;
    j = p->head;
    p->head = j->next;
    if (!p->head) p->tail = &p->head;
    p->queued--;
    pthread_mutex_unlock(&p->lock);
    j->work(j, worker);
    j->post.fn = job_done;
    mr_loop_post(p->loop, &j->post);
    pthread_mutex_lock(&p->lock);
  }
  pthread_mutex_unlock(&p->lock);
  if (p->end) p->end(p->ud, worker);
  return NULL;
}

int mr_pool_new(struct mr_pool **out, struct mr_loop *l, int threads, int queue_max, const char *name,
                void *(*start)(void *ud), void (*end)(void *ud, void *worker), void *ud, struct mr_err *err)
{
  const struct mr_mem *m = &mr_loop_sys(l)->mem;
  struct mr_pool *p = mr_mem_zalloc(m, sizeof *p);
  sigset_t all, old;

  *out = NULL;
  if (!p) return mr_err_nomem(err);
  p->loop = l;
  p->mem = m;
  p->queue_max = queue_max;
  p->tail = &p->head;
  p->start = start;
  p->end = end;
  p->ud = ud;
  snprintf(p->name, sizeof p->name, "mr-%s", name);
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->more, NULL);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  while (p->nthreads < threads && p->nthreads < POOL_THREADS_MAX &&
         pthread_create(&p->threads[p->nthreads], NULL, pool_thread, p) == 0)
    pthread_setname_np(p->threads[p->nthreads++], p->name);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (p->nthreads < threads) {
    mr_pool_free(&p);
    return mr_err_set(err, MR_E_UNAVAILABLE, NULL, "cannot start threads for %s", name);
  }
  *out = p;
  return MR_OK;
}

int mr_pool_submit(struct mr_pool *p, struct mr_job *j)
{
  int code = MR_OK;

  pthread_mutex_lock(&p->lock);
  if (p->closing) {
    code = MR_E_CLOSED;
  } else if (p->queued >= p->queue_max) {
    code = MR_E_FULL;
  } else {
    j->next = NULL;
    *p->tail = j;
    p->tail = &j->next;
    p->queued++;
    pthread_cond_signal(&p->more);
  }
  pthread_mutex_unlock(&p->lock);
  return code;
}

void mr_pool_free(struct mr_pool **pp)
{
  struct mr_pool *p = *pp;

  if (!p) return;
  pthread_mutex_lock(&p->lock);
  p->closing = true;
  pthread_cond_broadcast(&p->more);
  pthread_mutex_unlock(&p->lock);
  for (int i = 0; i < p->nthreads; i++)
    pthread_join(p->threads[i], NULL);
  mr_loop_run_posts(p->loop); /* done callbacks of what has finished */
  pthread_cond_destroy(&p->more);
  pthread_mutex_destroy(&p->lock);
  mr_mem_free(p->mem, p);
  *pp = NULL;
}
