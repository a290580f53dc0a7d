/*
 * ext_fd.c - waiting for a descriptor of the host's: its function is called once it is readable.
 *
 * A wait is one object that moves, as a timer does (ext_timer.c): on its way to the loop (NEW), waiting there
 * (ARMED), in the queue (QUEUED); its state is guarded by the table's lock, and whoever moves it last frees it.
 * Not for reading: the host reads. The loop waits on a duplicate, so that the host may close its own at any
 * moment, and two waits for one descriptor do not meet.
 */
#include "host/ext_t.h"
#include "loop/fd.h"

#include <errno.h>
#include <fcntl.h>

enum state { NEW, ARMED, CANCELLED, QUEUED, DEAD };

struct waiter {
  struct mr_runtime *rt;
  uint64_t id;
  enum state state;
  int fd; /* the duplicate */
  struct mr_fd_wait w;
  struct mr_post post; /* to arm it, later to take it back */
  struct mr_entry entry;
  void (*fn)(void *ud);
  void *ud;
};

static void waiter_free(struct waiter *x)
{
  close(x->fd);
  mr_mem_free(mr_rt_mem(x->rt), x);
}

static void run_waiter(struct mr_entry *e)
{
  struct waiter *x = MR_OF(e, struct waiter, entry);
  struct mr_runtime *rt = x->rt;
  bool dead;

  pthread_mutex_lock(&rt->ext->lock);
  dead = x->state == DEAD;
  if (!dead) mr_ext_drop(rt, x->id);
  pthread_mutex_unlock(&rt->ext->lock);
  if (!dead && !atomic_load(&rt->closing)) x->fn(x->ud);
  waiter_free(x);
}

static void on_readable(struct mr_fd_wait *w)
{
  struct waiter *x = MR_OF(w, struct waiter, w);
  struct mr_runtime *rt = x->rt;

  pthread_mutex_lock(&rt->ext->lock);
  if (x->state == ARMED) {
    x->state = QUEUED;
    mr_queue_push(&rt->queue, &x->entry);
  }
  pthread_mutex_unlock(&rt->ext->lock);
}

static void on_post(struct mr_post *p)
{
  struct waiter *x = MR_OF(p, struct waiter, post);
  struct mr_runtime *rt = x->rt;
  bool cancelled;

  pthread_mutex_lock(&rt->ext->lock);
  cancelled = x->state == CANCELLED;
  if (x->state == NEW) {
    x->state = ARMED;
    if (mr_fd_wait(rt->loop, &x->w, x->fd) != MR_OK) {
      x->state = QUEUED; /* no memory to wait: early is better than never */
      mr_queue_push(&rt->queue, &x->entry);
    }
  }
  pthread_mutex_unlock(&rt->ext->lock);
  if (!cancelled) return;
  mr_fd_cancel(&x->w);
  waiter_free(x);
}

static int waiter_new(struct mr_runtime *rt, int fd, struct waiter **out, struct mr_err *err)
{
  struct waiter *x = mr_mem_zalloc(mr_rt_mem(rt), sizeof *x);

  *out = NULL;
  if (!x) return mr_err_nomem(err);
  x->rt = rt;
  x->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (x->fd < 0) {
    int code = errno == EBADF ? mr_err_set(err, MR_E_INVALID, "fd", "fd: %d is not open", fd)
                              : mr_err_errno(err, "fd");
    mr_mem_free(mr_rt_mem(rt), x);
    return code;
  }
  x->post.fn = on_post;
  x->entry.run = run_waiter;
  mr_fd_init(&x->w, on_readable);
  *out = x;
  return MR_OK;
}

int mr_x_readable(struct mr_runtime *rt, int fd, void (*fn)(void *ud), void *ud, uint64_t *id,
                  struct mr_err *err)
{
  struct waiter *x;
  uint64_t given;
  int code = mr_ext_check(rt, err);

  if (id) *id = 0;
  if (code == MR_OK && !fn) code = mr_err_set(err, MR_E_INVALID, "fn", "fn: needed");
  if (code == MR_OK) code = waiter_new(rt, fd, &x, err);
  if (code != MR_OK) return code;
  x->fn = fn;
  x->ud = ud;
  pthread_mutex_lock(&rt->ext->lock);
  given = x->id = mr_ext_put(rt, MR_EXT_FD, x);
  pthread_mutex_unlock(&rt->ext->lock);
  if (!given) {
    waiter_free(x);
    return mr_err_set(err, MR_E_FULL, NULL, "too many timers, requests and waits at once");
  }
  if (id) *id = given;
  if (mr_rt_post(rt, &x->post) == MR_OK) return MR_OK;
  pthread_mutex_lock(&rt->ext->lock);
  mr_ext_drop(rt, given);
  pthread_mutex_unlock(&rt->ext->lock);
  waiter_free(x);
  return mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
}

int mr_x_readable_cancel(struct mr_runtime *rt, uint64_t id)
{
  struct waiter *x;
  bool post = false;

  if (mr_ext_check(rt, NULL) != MR_OK) return 0;
  pthread_mutex_lock(&rt->ext->lock);
  x = mr_ext_get(rt, MR_EXT_FD, id);
  if (x) {
    mr_ext_drop(rt, id);
    post = x->state == ARMED; /* NEW: its post is still to come, and frees it */
    x->state = x->state == QUEUED ? DEAD : CANCELLED;
  }
  pthread_mutex_unlock(&rt->ext->lock);
  if (post && mr_rt_post(rt, &x->post) != MR_OK) waiter_free(x);
  return x != NULL;
}

/* Lock held, loop not running. */
void mr_waiter_end(void *waiter)
{
  struct waiter *x = waiter;

  if (x->state == QUEUED) return; /* its entry frees it */
  mr_ext_drop(x->rt, x->id);
  if (x->state == NEW) {
    x->state = CANCELLED; /* its post frees it */
    return;
  }
  mr_fd_cancel(&x->w);
  waiter_free(x);
}
