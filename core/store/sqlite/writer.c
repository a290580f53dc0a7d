/*
 * writer.c - the writer thread: a FIFO queue in, transactions out. Whatever waits when it looks becomes
 * one transaction, so the batches grow with the load and a lone commit waits for nobody.
 *
 * Besides commits it answers requests for workspace numbers (the one blocking call), runs the reads of
 * memory stores, deletes the rows of tombstoned sessions in small steps (when idle, or after every
 * SWEEP_TURNS transactions when it never is), and while the store is failing tries a write every
 * PROBE_MS, so that a store without callers recovers too.
 *
 * Bounds: MR_STORE_QUEUE_MAX commits and MR_STORE_QUEUE_BYTES; over either a submit is MR_E_FULL.
 *
 * Invariant: the mutex is never held while SQLite runs. submit and workspace: loop thread; the rest:
 * writer thread.
 */
#include "store/sqlite/sqlite_t.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

enum { SWEEP_TURNS = 8, PROBE_MS = 1000 };

/* What the writer does next, decided under the mutex. */
enum turn { TURN_STOP, TURN_WORK, TURN_SWEEP, TURN_PROBE };

static enum turn next_turn(struct mr_sqlite *q)
{
  struct timespec until;
  bool late = false;

  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += PROBE_MS / 1000;
  for (;;) {
    if (q->head || q->reads || q->ask)
      return q->sweep && !q->failing && q->turns >= SWEEP_TURNS ? TURN_SWEEP : TURN_WORK;
    if (q->stop) return TURN_STOP;
    if (q->sweep && !q->failing) return TURN_SWEEP;
    if (late) return TURN_PROBE;
    if (!q->failing)
      pthread_cond_wait(&q->more, &q->mu);
    else
      late = pthread_cond_timedwait(&q->more, &q->mu, &until) == ETIMEDOUT;
  }
}

/* Cuts a batch off the queue; under the mutex. */
static struct mr_commit *take_batch(struct mr_sqlite *q)
{
  struct mr_commit *first = q->head, *c = first, *last = NULL;
  size_t n = 0, bytes = 0;

  /* store-lone: one commit a transaction, so that a test can die between any two. */
  size_t most = MR_SWITCH("store-lone") ? 1 : MR_TXN_COMMITS;

  while (c && n < most && (n == 0 || bytes + c->bytes <= MR_TXN_BYTES)) {
    bytes += c->bytes;
    n++;
    last = c;
    c = c->next;
  }
  if (!last) return NULL;
  last->next = NULL;
  q->head = c;
  if (!c) q->tail = &q->head;
  q->nqueued -= n;
  q->bytes -= bytes;
  return first;
}

static void run_reads(struct mr_sqlite *q, struct mr_read *rd)
{
  for (struct mr_read *next; rd; rd = next) {
    next = rd->next;
    mr_sqlite_read_run(&q->self, rd);
    rd->done.next = NULL;
    mr_store_deliver(q->store, &rd->done);
  }
}

/* Runs what waits; called and left with the mutex held. */
static void work(struct mr_sqlite *q)
{
  struct mr_ws_ask *ask = q->ask;
  struct mr_commit *batch = take_batch(q);
  struct mr_read *reads = q->reads;

  q->ask = NULL;
  q->reads = NULL;
  q->reads_tail = &q->reads;
  q->nreads = 0;
  pthread_mutex_unlock(&q->mu);
  if (ask) mr_sqlite_ask(q, ask);
  if (batch) {
    mr_sqlite_batch(q, batch);
    q->turns++;
  }
  run_reads(q, reads);
  mr_sqlite_checkpoint(q);
  pthread_mutex_lock(&q->mu);
  if (ask) {
    ask->answered = true;
    pthread_cond_signal(&q->answered);
  }
}

static void *writer(void *arg)
{
  struct mr_sqlite *q = arg;
  enum turn t;

  pthread_mutex_lock(&q->mu);
  while ((t = next_turn(q)) != TURN_STOP) {
    if (t == TURN_WORK) {
      work(q);
      continue;
    }
    pthread_mutex_unlock(&q->mu);
    q->turns = 0;
    if (t == TURN_SWEEP)
      mr_sqlite_sweep(q);
    else
      mr_sqlite_probe(q);
    mr_sqlite_checkpoint(q);
    pthread_mutex_lock(&q->mu);
  }
  pthread_mutex_unlock(&q->mu);
  return NULL;
}

int mr_sqlite_start(struct mr_sqlite *q, struct mr_err *err)
{
  sigset_t all, old;
  int e;

  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  e = pthread_create(&q->thread, NULL, writer, q);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (e) {
    errno = e;
    return mr_err_errno(err, "store: writer thread");
  }
  pthread_setname_np(q->thread, "mr-store");
  q->running = true;
  return MR_OK;
}

void mr_sqlite_stop(struct mr_sqlite *q)
{
  if (!q->running) return;
  pthread_mutex_lock(&q->mu);
  q->stop = true;
  pthread_cond_signal(&q->more);
  pthread_mutex_unlock(&q->mu);
  pthread_join(q->thread, NULL);
  q->running = false;
}

int mr_sqlite_submit(struct mr_store *s, struct mr_commit *c)
{
  struct mr_sqlite *q = s->self;
  int code = MR_OK;

  pthread_mutex_lock(&q->mu);
  if (q->stop) {
    code = MR_E_CLOSED;
  } else if (q->nqueued >= MR_STORE_QUEUE_MAX || (q->nqueued > 0 && q->bytes + c->bytes > q->bytes_max)) {
    code = MR_E_FULL;
  } else {
    c->next = NULL;
    *q->tail = c;
    q->tail = &c->next;
    q->nqueued++;
    q->bytes += c->bytes;
    if (q->nqueued == 1) pthread_cond_signal(&q->more);
  }
  pthread_mutex_unlock(&q->mu);
  return code;
}

int mr_sqlite_workspace(struct mr_store *s, struct mr_str id, int64_t *ws, struct mr_err *err)
{
  struct mr_sqlite *q = s->self;
  struct mr_ws_ask ask = {.id = id, .code = MR_E_CLOSED};

  pthread_mutex_lock(&q->mu);
  if (!q->stop) {
    q->ask = &ask;
    pthread_cond_signal(&q->more);
    while (!ask.answered)
      pthread_cond_wait(&q->answered, &q->mu);
  }
  pthread_mutex_unlock(&q->mu);
  if (ask.code == MR_OK)
    *ws = ask.ws;
  else if (ask.code == MR_E_CLOSED)
    mr_err_set(err, MR_E_CLOSED, NULL, "the store is closing");
  else
    mr_err_copy(err, &ask.err);
  return ask.code;
}
