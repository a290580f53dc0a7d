/*
 * worker_poll.c - the queue of the environment: asked while there is room for another item and the worker does not
 * end (API: resources §8.4). One poll at a time. A refusal that no retry helps (a wrong key, no such environment) ends
 * the worker; anything else is tried again, after one second at first and a minute at most.
 */
#include "main/worker_t.h"

#include "main/client.h"

enum { BLOCK_MS = 999, POLL_S = 15, CAP_S = 60 };

static void later(struct worker *w, int64_t us)
{
  mr_timer_set(w->loop, &w->poll_timer, us);
}

static void failed(struct worker *w, const struct answer *a)
{
  int64_t wait;

  if (a->fatal) {
    mr_log(&w->sys, MR_LOG_ERROR, "worker", "the queue of %s refuses us: %s%s", w->environment, a->why,
           a->status == 401 || a->status == 403 ? " (the environment's key is --environment-key)" : "");
    mr_worker_drain(w, EXIT_FAILED);
    return;
  }
  wait = mr_worker_backoff(w, ++w->failures, WORKER_SECOND, CAP_S * WORKER_SECOND, a);
  mr_log(&w->sys, MR_LOG_WARN, "worker", "the queue does not answer (%s); again in %.1f s", a->why,
         (double)wait / WORKER_SECOND);
  later(w, wait);
}

static void on_poll(void *ud, const struct answer *a)
{
  struct worker *w = ud;
  bool blocked = mr_loop_now_us(w->loop) - w->poll_at_us > WORKER_SECOND / 2;

  if (!a->ok) {
    failed(w, a);
    return;
  }
  if (w->failures) mr_log(&w->sys, MR_LOG_INFO, "worker", "the queue answers again");
  w->failures = 0;
  if (yyjson_is_obj(a->json)) {
    w->told_waiting = false;
    mr_worker_item_new(w, a->json);
    mr_worker_poll(w);
    return;
  }
  if (!w->told_waiting && w->nitems == 0)
    mr_log(&w->sys, MR_LOG_INFO, "worker", "waiting for work in %s", w->environment);
  w->told_waiting = true;
  /* A queue that did not hold the request is not asked again at once. */
  later(w, blocked ? mr_worker_random(w, WORKER_SECOND / 4, WORKER_SECOND)
                   : mr_worker_random(w, WORKER_SECOND, 3 * WORKER_SECOND));
}

void mr_worker_poll(struct worker *w)
{
  char path[600];
  struct mr_buf b;
  struct question q = {.verb = "GET", .key = w->key, .timeout_us = POLL_S * WORKER_SECOND, .worker_id = w->id};

  if (w->draining || w->poll || mr_timer_pending(&w->poll_timer) ||
      w->nitems >= (w->set->once ? 1 : w->set->max_sessions))
    return;
  mr_buf_init(&b, w->mem, sizeof path - 1);
  mr_buf_c(&b, "/v1/environments/");
  mr_client_escape(&b, mr_str_c(w->environment));
  mr_buf_printf(&b, "/work/poll?block_ms=%d", BLOCK_MS);
  if (b.failed) mr_worker_nomem();
  memcpy(path, b.p, b.n + 1);
  mr_buf_free(&b);
  q.path = path;
  w->poll_at_us = mr_loop_now_us(w->loop);
  mr_worker_ask(w, &w->poll, &q, on_poll, w);
}

void mr_worker_poll_due(struct mr_timer *t)
{
  mr_worker_poll(MR_OF(t, struct worker, poll_timer));
}

void mr_worker_poll_stop(struct worker *w)
{
  mr_worker_drop(&w->poll);
  mr_timer_cancel(w->loop, &w->poll_timer);
}
