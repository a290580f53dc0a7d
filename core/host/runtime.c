/*
 * runtime.c - a runtime's beginning: mr_open, its loop thread, and how other threads reach the loop. What it
 * is made of is put together in parts.c, its end is in close.c.
 *
 * Invariant: the parts are made on the opening thread before the loop runs, and freed on the closing thread
 * after it has stopped; in between they are the loop thread's alone. So no part needs to know of threads.
 */
#include "host/host_t.h"

#include <signal.h>

enum { QUEUE_DEFAULT = 4096, QUEUE_LEAST = 16, QUEUE_MOST = 1 << 20 };

void mr_config_init(struct mr_config *c)
{
  memset(c, 0, sizeof *c);
  c->size = sizeof *c;
  c->loop = MR_LOOP_THREAD;
  c->queue_max = QUEUE_DEFAULT;
}

/* ---- who may call, and when ---- */

int mr_rt_check(const struct mr_runtime *rt, struct mr_err *err)
{
  if (!rt) return mr_err_set(err, MR_E_INVALID, "rt", "rt: no runtime was given");
  if (getpid() != rt->pid)
    return mr_err_set(err, MR_E_FORKED, NULL,
                      "this runtime belongs to process %ld: open one of its own in a forked process",
                      (long)rt->pid);
  return MR_OK;
}

void mr_rt_ref(struct mr_runtime *rt)
{
  atomic_fetch_add(&rt->refs, 1);
}

void mr_rt_unref(struct mr_runtime *rt)
{
  struct mr_mem m = rt->sys.mem;

  if (atomic_fetch_sub(&rt->refs, 1) != 1) return;
  pthread_mutex_destroy(&rt->loop_lock);
  pthread_mutex_destroy(&rt->lock);
  pthread_cond_destroy(&rt->cond);
  mr_mem_free(&m, rt);
}

static void on_start(struct mr_post *p)
{
  struct mr_runtime *rt = MR_OF(p, struct mr_runtime, start_post);
  if (!rt->stopping && !mr_json_get_bool(yyjson_doc_get_root(rt->options), "asleep", false))
    mr_domain_start(rt->domain);
}

void mr_rt_start(struct mr_runtime *rt)
{
  if (!atomic_load(&rt->started) && !atomic_exchange(&rt->started, true)) mr_rt_post(rt, &rt->start_post);
}

/* ---- reaching the loop ---- */

int mr_rt_post(struct mr_runtime *rt, struct mr_post *p)
{
  int code;

  pthread_mutex_lock(&rt->loop_lock);
  code = rt->loop_gone ? MR_E_CLOSED : mr_loop_post(rt->loop, p);
  pthread_mutex_unlock(&rt->loop_lock);
  return code;
}

bool mr_rt_on_loop(struct mr_runtime *rt)
{
  bool on;

  pthread_mutex_lock(&rt->loop_lock);
  on = !rt->loop_gone && pthread_equal(rt->loop_owner, pthread_self());
  pthread_mutex_unlock(&rt->loop_lock);
  return on;
}

void mr_rt_own_loop(struct mr_runtime *rt)
{
  pthread_mutex_lock(&rt->loop_lock);
  rt->loop_owner = pthread_self();
  pthread_mutex_unlock(&rt->loop_lock);
}

struct sync {
  struct mr_post post;
  struct mr_runtime *rt;
  int (*fn)(struct mr_runtime *rt, void *arg, struct mr_err *err);
  void *arg;
  struct mr_err *err;
  int code;
  bool over;
};

static void on_sync(struct mr_post *p)
{
  struct sync *s = MR_OF(p, struct sync, post);
  struct mr_runtime *rt = s->rt;

  s->code = s->fn(rt, s->arg, s->err);
  pthread_mutex_lock(&rt->lock);
  s->over = true;
  pthread_cond_broadcast(&rt->cond);
  pthread_mutex_unlock(&rt->lock);
}

int mr_rt_sync(struct mr_runtime *rt, int (*fn)(struct mr_runtime *rt, void *arg, struct mr_err *err),
               void *arg, struct mr_err *err)
{
  struct sync s = {.post = {.fn = on_sync}, .rt = rt, .fn = fn, .arg = arg, .err = err};

  if (mr_rt_on_loop(rt)) return fn(rt, arg, err);
  if (mr_rt_post(rt, &s.post) != MR_OK) return mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
  pthread_mutex_lock(&rt->lock);
  while (!s.over)
    pthread_cond_wait(&rt->cond, &rt->lock);
  pthread_mutex_unlock(&rt->lock);
  return s.code;
}

/* ---- opening ---- */

static void *loop_thread(void *arg)
{
  struct mr_runtime *rt = arg;

  mr_rt_own_loop(rt); /* mr_open holds the lock until it has stored what we read */
  mr_loop_run(rt->loop);
  return NULL;
}

static int thread_start(struct mr_runtime *rt, struct mr_err *err)
{
  sigset_t all, old;
  int e;

  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  pthread_mutex_lock(&rt->loop_lock);
  e = pthread_create(&rt->thread, NULL, loop_thread, rt);
  if (e == 0) rt->loop_owner = rt->thread;
  pthread_mutex_unlock(&rt->loop_lock);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (e) return mr_err_set(err, MR_E_UNAVAILABLE, NULL, "the loop thread cannot be started: error %d", e);
  pthread_setname_np(rt->thread, "mr-loop");
  rt->threaded = true;
  return MR_OK;
}

static int check_config(const struct mr_config *c, struct mr_err *err)
{
  if (!c->store || !c->store[0])
    return mr_err_set(err, MR_E_INVALID, "store", "store: a data directory, or \":memory:\"");
  if (c->queue_max < QUEUE_LEAST || c->queue_max > QUEUE_MOST)
    return mr_err_set(err, MR_E_INVALID, "queue_max", "queue_max: between %d and %d", QUEUE_LEAST, QUEUE_MOST);
  if (c->loop == MR_LOOP_BORROWED)
    return mr_err_set(
        err, MR_E_UNSUPPORTED, "loop",
        "loop: MR_LOOP_BORROWED is not implemented in this version; use MR_LOOP_THREAD and watch mr_fd");
  if (c->loop != MR_LOOP_THREAD && c->loop != MR_LOOP_OWN && c->loop != MR_LOOP_PUMP)
    return mr_err_set(err, MR_E_INVALID, "loop", "loop: %d is no MR_LOOP_*", (int)c->loop);
  return MR_OK;
}

static struct mr_runtime *rt_new(const struct mr_config *c)
{
  struct mr_sys sys;
  struct mr_runtime *rt;

  mr_sys_init(&sys, c);
  rt = mr_mem_zalloc(&sys.mem, sizeof *rt);
  if (!rt) return NULL;
  rt->sys = sys;
  rt->pid = getpid();
  rt->mode = c->loop;
  rt->queue.fd = -1;
  atomic_init(&rt->refs, 1);
  atomic_init(&rt->started, false);
  atomic_init(&rt->closing, false);
  mr_rt_close_init(rt);
  pthread_mutex_init(&rt->loop_lock, NULL);
  pthread_mutex_init(&rt->lock, NULL);
  pthread_cond_init(&rt->cond, NULL);
  rt->loop_owner = pthread_self();
  rt->start_post.fn = on_start;
  return rt;
}

int mr_open(struct mr_runtime **out, const struct mr_config *config, struct mr_err *err)
{
  struct mr_config c;
  struct mr_runtime *rt;
  int code;

  if (!out) return mr_err_set(err, MR_E_INVALID, "out", "out: where should the runtime go?");
  *out = NULL;
  mr_config_init(&c);
  if (!config || config->size < offsetof(struct mr_config, store))
    return mr_err_set(err, MR_E_INVALID, "size", "size: set the configuration up with mr_config_init");
  memcpy(&c, config, config->size < sizeof c ? config->size : sizeof c);
  if (!c.queue_max) c.queue_max = QUEUE_DEFAULT;
  code = check_config(&c, err);
  if (code != MR_OK) return code;
  rt = rt_new(&c);
  if (!rt) return mr_err_nomem(err);
  code = mr_queue_init(&rt->queue, &rt->sys, c.queue_max, err);
  if (code == MR_OK) code = mr_options_read(mr_rt_mem(rt), c.options, &rt->options, err);
  if (code == MR_OK) code = mr_rt_open_parts(rt, &c, err);
  if (code == MR_OK && rt->mode == MR_LOOP_THREAD) code = thread_start(rt, err);
  if (code == MR_OK) {
    *out = rt;
    return MR_OK;
  }
  mr_rt_close_parts(rt);
  mr_rt_free_lists(rt);
  mr_queue_free(&rt->queue);
  mr_rt_unref(rt);
  return code;
}

/* ---- the host's side of the loop ---- */

int mr_fd(const struct mr_runtime *rt)
{
  int code = mr_rt_check(rt, NULL);
  return code == MR_OK ? rt->queue.fd : code;
}

int mr_dispatch(struct mr_runtime *rt, int max, int64_t budget_us)
{
  int code = mr_rt_check(rt, NULL);

  if (code == MR_OK) code = mr_queue_enter(&rt->queue);
  if (code != MR_OK) return code;
  mr_rt_start(rt);
  code = mr_queue_run(&rt->queue, max, budget_us);
  mr_queue_leave(&rt->queue);
  return code;
}

int mr_wait(struct mr_runtime *rt, int timeout_ms)
{
  int code = mr_rt_check(rt, NULL);

  if (code != MR_OK) return code;
  if (mr_queue_inside(&rt->queue)) return MR_E_REENTRANT;
  mr_rt_start(rt);
  return mr_rt_wait(rt, timeout_ms);
}

void mr_free(struct mr_runtime *rt, void *p)
{
  if (rt && p && getpid() == rt->pid) mr_mem_free(mr_rt_mem(rt), p);
}
