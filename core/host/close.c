/*
 * close.c - the end of a runtime, in two steps that mr_stop and mr_close share.
 *
 * Stop (on the loop): listeners close, the domain takes no new turn step, streams end; what is in flight may
 * end until grace is over, then it is cut. The host goes on dispatching.
 * Close (on the closing thread): waits for the stop; then nothing new is taken, everything outstanding is
 * ended and given its last callback on this thread; the loop thread is joined; the parts are freed.
 *
 * Invariant: mr_close never waits for the host's own work: uses that it keeps are settled without it, and
 * finishing one later is harmless.
 */
#include "host/host_t.h"

enum { STOP_LOOK_US = 10000, QUIET_LOOK_US = 1000, QUIET_MAX_US = 5000000, CLOSE_WAIT_MS = 50 };

/* ---- stop, on the loop ---- */

static void on_bell(struct mr_entry *e)
{
  (void)e;
}

static void stop_is_over(struct mr_runtime *rt)
{
  if (atomic_exchange(&rt->stop_over, true)) return;
  mr_queue_push(&rt->queue, &rt->bell);
  if (rt->mode == MR_LOOP_OWN) mr_loop_stop(rt->loop);
}

static void stop_look(struct mr_runtime *rt)
{
  int64_t now = mr_loop_now_us(rt->loop), at;

  if (atomic_load(&rt->stop_over)) return;
  pthread_mutex_lock(&rt->lock);
  at = rt->stop_at_us;
  pthread_mutex_unlock(&rt->lock);
  if (rt->drained && rt->nops == 0 && mr_api_active(rt->api) == 0) {
    stop_is_over(rt);
  } else if (now >= at) {
    mr_domain_cut(rt->domain);
    stop_is_over(rt);
  } else {
    mr_timer_set(rt->loop, &rt->stop_timer, at - now < STOP_LOOK_US ? at - now : STOP_LOOK_US);
  }
}

static void on_stop_timer(struct mr_timer *t)
{
  stop_look(MR_OF(t, struct mr_runtime, stop_timer));
}

static void on_drained(void *ud)
{
  struct mr_runtime *rt = ud;
  rt->drained = true;
}

static void on_stop(struct mr_post *p)
{
  struct mr_runtime *rt = MR_OF(p, struct mr_runtime, stop_post);

  pthread_mutex_lock(&rt->lock);
  rt->stop_posted = false;
  pthread_mutex_unlock(&rt->lock);
  if (!rt->stopping) {
    rt->stopping = true;
    mr_api_stop(rt->api);
    mr_domain_drain(rt->domain, on_drained, rt);
  }
  stop_look(rt);
}

int mr_stopped(const struct mr_runtime *rt)
{
  return mr_rt_check(rt, NULL) == MR_OK && atomic_load(&rt->stop_over);
}

int mr_stop(struct mr_runtime *rt, unsigned grace_ms)
{
  int64_t at;
  int code = mr_rt_check(rt, NULL);
  bool post = false;

  if (code != MR_OK) return code;
  at = mr_mono_us(&rt->sys) + (int64_t)grace_ms * 1000;
  pthread_mutex_lock(&rt->lock);
  if (!rt->stop_asked || at < rt->stop_at_us) { /* again: only sooner */
    rt->stop_asked = true;
    rt->stop_at_us = at;
    post = !rt->stop_posted;
    rt->stop_posted = true;
  }
  pthread_mutex_unlock(&rt->lock);
  if (post && mr_rt_post(rt, &rt->stop_post) != MR_OK) return MR_E_CLOSED;
  return MR_OK;
}

/* ---- close, on the loop ---- */

static void quiet_look(struct mr_runtime *rt)
{
  struct mr_domain_stats d;
  struct mr_store_stats s;

  mr_domain_stats(rt->domain, &d);
  mr_store_stats(rt->store, &s);
  if ((rt->nops > 0 || mr_api_active(rt->api) > 0 || s.queued > 0 || d.model_running > 0 ||
       d.handlers_running > 0) &&
      mr_loop_now_us(rt->loop) < rt->quiet_until_us &&
      mr_timer_set(rt->loop, &rt->quiet_timer, QUIET_LOOK_US) == MR_OK)
    return;
  if (rt->nops > 0 || d.model_running > 0)
    mr_log(&rt->sys, MR_LOG_WARN, "runtime", "closing with %d operations and %d model requests unfinished",
           rt->nops, d.model_running);
  atomic_store(&rt->quiet, true);
  if (rt->threaded) mr_loop_stop(rt->loop);
}

static void on_quiet_timer(struct mr_timer *t)
{
  quiet_look(MR_OF(t, struct mr_runtime, quiet_timer));
}

static void on_close(struct mr_post *p)
{
  struct mr_runtime *rt = MR_OF(p, struct mr_runtime, close_post);

  mr_control_close(rt);
  mr_api_cut(rt->api);
  mr_domain_cut(rt->domain);
  mr_ops_close(rt);
  mr_hooks_close(rt);
  rt->quiet_until_us = mr_loop_now_us(rt->loop) + QUIET_MAX_US;
  mr_timer_set(rt->loop, &rt->quiet_timer, 0);
}

void mr_rt_close_init(struct mr_runtime *rt)
{
  atomic_init(&rt->stop_over, false);
  atomic_init(&rt->quiet, false);
  rt->stop_post.fn = on_stop;
  rt->close_post.fn = on_close;
  rt->bell.run = on_bell;
  mr_timer_init(&rt->stop_timer, on_stop_timer);
  mr_timer_init(&rt->quiet_timer, on_quiet_timer);
}

/* ---- close, on the closing thread ---- */

/* Runs the queue, and the loop where it has no thread, until the loop has set the flag and rung the bell. */
static void run_until(struct mr_runtime *rt, atomic_bool *flag)
{
  while (!atomic_load(flag))
    if (mr_queue_run(&rt->queue, 0, 0) == MR_OK && !atomic_load(flag)) mr_rt_wait(rt, CLOSE_WAIT_MS);
}

int mr_close(struct mr_runtime **rtp)
{
  struct mr_runtime *rt = rtp ? *rtp : NULL;
  bool asked;
  int code;

  if (!rt) return MR_OK;
  code = mr_rt_check(rt, NULL);
  if (code == MR_OK) code = mr_queue_enter(&rt->queue);
  if (code != MR_OK) return code;
  if (!rt->threaded) mr_rt_own_loop(rt);
  pthread_mutex_lock(&rt->lock);
  asked = rt->stop_asked;
  pthread_mutex_unlock(&rt->lock);
  if (!asked) mr_stop(rt, 0);
  run_until(rt, &rt->stop_over);
  atomic_store(&rt->closing, true);
  mr_rt_post(rt, &rt->close_post);
  while (!rt->threaded && !atomic_load(&rt->quiet))
    mr_rt_turn(rt, 1);
  if (rt->threaded) pthread_join(rt->thread, NULL);
  rt->threaded = false;
  mr_rt_close_parts(rt);
  while (mr_queue_run(&rt->queue, 0, 0) == MR_MORE)
    continue;
  mr_queue_leave(&rt->queue);
  mr_rt_free_lists(rt);
  mr_queue_free(&rt->queue);
  *rtp = NULL;
  mr_rt_unref(rt);
  return MR_OK;
}
