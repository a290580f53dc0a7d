/*
 * modes.c - the modes in which the host's thread runs the loop: MR_LOOP_PUMP (the host calls mr_pump often) and
 * MR_LOOP_OWN (mr_run, until mr_stop is over). In MR_LOOP_THREAD there is nothing to do here.
 *
 * Where our code runs on a host's thread SIGPIPE is blocked for that thread, and one that we caused is taken
 * away before the mask is restored; dispositions are never touched.
 */
#include "host/host_t.h"

#include <event2/event.h>
#include <poll.h>
#include <signal.h>
#include <time.h>

enum { RUN_BUDGET_US = 2000 };

/* ---- SIGPIPE ---- */

struct pipe_guard {
  sigset_t old;
  bool was_pending;
};

static void guard_enter(struct pipe_guard *g)
{
  sigset_t pipe, pending;

  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  sigpending(&pending);
  g->was_pending = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &pipe, &g->old);
}

static void guard_leave(struct pipe_guard *g)
{
  const struct timespec none = {0, 0};
  sigset_t pipe;

  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  if (!g->was_pending)
    while (sigtimedwait(&pipe, NULL, &none) == SIGPIPE)
      continue;
  pthread_sigmask(SIG_SETMASK, &g->old, NULL);
}

/* ---- turning the loop ---- */

static int pump(struct mr_runtime *rt, int64_t budget_us)
{
  struct pipe_guard g;
  int code;

  guard_enter(&g);
  mr_rt_own_loop(rt);
  code = mr_loop_pump(rt->loop, budget_us);
  guard_leave(&g);
  return code;
}

void mr_rt_turn(struct mr_runtime *rt, int wait_ms)
{
  int64_t next;

  pump(rt, 0);
  next = mr_loop_next_timeout_us(rt->loop);
  if (next == 0) return;
  if (next > 0 && next / 1000 < wait_ms) wait_ms = (int)(next / 1000);
  mr_queue_wait(&rt->queue, wait_ms);
}

int mr_rt_wait(struct mr_runtime *rt, int timeout_ms)
{
  int64_t end = mr_mono_us(&rt->sys) + (int64_t)timeout_ms * 1000;

  if (rt->mode == MR_LOOP_THREAD) return mr_queue_wait(&rt->queue, timeout_ms);
  /* Nobody else turns the loop, and libevent has no descriptor to wait for: short sleeps. */
  while (mr_queue_wait(&rt->queue, 0) == MR_E_TIMEOUT) {
    if (timeout_ms >= 0 && mr_mono_us(&rt->sys) >= end) return MR_E_TIMEOUT;
    mr_rt_turn(rt, 1);
  }
  return MR_OK;
}

int mr_pump(struct mr_runtime *rt, int64_t budget_us)
{
  int code = mr_rt_check(rt, NULL);

  if (code != MR_OK) return code;
  if (rt->mode != MR_LOOP_PUMP) return MR_E_STATE;
  if (mr_queue_inside(&rt->queue)) return MR_E_REENTRANT;
  mr_rt_start(rt);
  return pump(rt, budget_us);
}

int64_t mr_next_timeout_us(const struct mr_runtime *rt)
{
  int code = mr_rt_check(rt, NULL);

  if (code != MR_OK) return code;
  return rt->mode == MR_LOOP_PUMP ? mr_loop_next_timeout_us(rt->loop) : -1;
}

/* ---- MR_LOOP_OWN ---- */

struct own {
  struct mr_runtime *rt;
  struct mr_ready ready;
};

static void on_ready(struct mr_ready *r)
{
  struct own *o = MR_OF(r, struct own, ready);

  if (mr_queue_enter(&o->rt->queue) != MR_OK) return;
  mr_queue_run(&o->rt->queue, 0, RUN_BUDGET_US);
  mr_queue_leave(&o->rt->queue);
}

static void on_doorbell(evutil_socket_t fd, short what, void *ud)
{
  struct own *o = ud;
  (void)fd;
  (void)what;
  mr_ready_post(o->rt->loop, &o->ready);
}

int mr_run(struct mr_runtime *rt)
{
  struct own o = {.rt = rt};
  struct pipe_guard g;
  struct event *bell;
  int code = mr_rt_check(rt, NULL);

  if (code != MR_OK) return code;
  if (rt->mode != MR_LOOP_OWN || atomic_load(&rt->stop_over)) return MR_E_STATE;
  if (mr_queue_inside(&rt->queue)) return MR_E_REENTRANT;
  mr_rt_own_loop(rt);
  mr_ready_init(&o.ready, on_ready);
  bell = event_new(mr_loop_base(rt->loop), rt->queue.fd, EV_READ | EV_PERSIST, on_doorbell, &o);
  if (!bell || event_add(bell, NULL) != 0) {
    if (bell) event_free(bell);
    return MR_E_NOMEM;
  }
  guard_enter(&g);
  mr_rt_start(rt);
  code = mr_loop_run(rt->loop);
  guard_leave(&g);
  mr_ready_cancel(rt->loop, &o.ready);
  event_free(bell);
  return code;
}
