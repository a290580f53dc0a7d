/*
 * ext_watch.c - watching files and directories for bindings, with inotify: one descriptor a runtime, made at
 * the first watch. What is watched is always a directory; a file is its directory and a name, because editors
 * replace files, and a watch of the old one would see nothing any more.
 *
 * A change sets a timer; the host hears of it after QUIET_US without another one, with the last path that
 * changed. One such entry is in the queue at a time for each watch; changes meanwhile are told in the next.
 * Loop thread, but for making and cancelling, which go there and wait.
 */
#include "host/ext_t.h"

#include <errno.h>
#include <event2/event.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>

enum { QUIET_US = 20000, WATCHES_MAX = 1024, READ_ROUNDS = 64 };

struct watch {
  struct watch *next;
  struct mr_runtime *rt;
  atomic_int refs; /* the list's, an entry's */
  uint64_t id;
  int wd;
  char *dir, *name; /* name NULL: everything in dir */
  struct mr_timer quiet;
  bool queued_more; /* changed while an entry was in the queue */
  atomic_bool queued, cancelled;
  struct mr_entry entry;
  struct mr_post told; /* the entry has run */
  void (*fn)(void *ud, struct mr_str path);
  void *ud;
  char changed[PATH_MAX]; /* the loop's; copied into path for the entry */
  char path[PATH_MAX];
};

struct mr_inotify {
  int fd, n;
  struct event *ev;
  struct mr_ready ready;
  struct mr_runtime *rt;
  struct watch *watches;
};

static void unref(struct watch *w)
{
  const struct mr_mem *m = mr_rt_mem(w->rt);

  if (atomic_fetch_sub(&w->refs, 1) != 1) return;
  mr_mem_free(m, w->dir);
  mr_mem_free(m, w->name);
  mr_mem_free(m, w);
}

/* ---- telling the host ---- */

static void on_told(struct mr_post *p)
{
  struct watch *w = MR_OF(p, struct watch, told);

  atomic_store(&w->queued, false);
  if (w->queued_more && !atomic_load(&w->cancelled)) {
    w->queued_more = false;
    mr_timer_set(w->rt->loop, &w->quiet, QUIET_US);
  }
  unref(w);
}

static void run_entry(struct mr_entry *e)
{
  struct watch *w = MR_OF(e, struct watch, entry);

  if (!atomic_load(&w->cancelled) && !atomic_load(&w->rt->closing)) w->fn(w->ud, mr_str_c(w->path));
  if (mr_rt_post(w->rt, &w->told) != MR_OK) unref(w);
}

static void on_quiet(struct mr_timer *t)
{
  struct watch *w = MR_OF(t, struct watch, quiet);

  if (atomic_load(&w->queued)) {
    w->queued_more = true;
    return;
  }
  memcpy(w->path, w->changed, sizeof w->path);
  atomic_store(&w->queued, true);
  atomic_fetch_add(&w->refs, 1); /* the entry's, then its post's */
  mr_queue_push(&w->rt->queue, &w->entry);
}

/* ---- changes ---- */

static void changed(struct watch *w, const char *name)
{
  if (w->name && strcmp(w->name, name) != 0) return;
  if (snprintf(w->changed, sizeof w->changed, "%s%s%s", w->dir, name[0] ? "/" : "", name) >=
      (int)sizeof w->changed)
    snprintf(w->changed, sizeof w->changed, "%s", w->dir);
  mr_timer_set(w->rt->loop, &w->quiet, QUIET_US);
}

static void take(struct mr_inotify *x, const struct inotify_event *e)
{
  for (struct watch *w = x->watches; w; w = w->next)
    if (e->mask & IN_Q_OVERFLOW) /* something was missed: everybody should look */
      changed(w, w->name ? w->name : "");
    else if (w->wd == e->wd && !(e->mask & IN_IGNORED))
      changed(w, e->len ? e->name : "");
}

static void on_ready(struct mr_ready *r)
{
  struct mr_inotify *x = MR_OF(r, struct mr_inotify, ready);
  char buf[8192] __attribute__((aligned(__alignof__(struct inotify_event))));
  ssize_t n = 0;

  for (int i = 0; i < READ_ROUNDS && (n = read(x->fd, buf, sizeof buf)) > 0; i++)
    for (char *p = buf; p < buf + n;) {
      const struct inotify_event *e = (const struct inotify_event *)(const void *)p;
      take(x, e);
      p += sizeof *e + e->len;
    }
  if (n > 0) mr_ready_post(x->rt->loop, &x->ready);
}

static void on_readable(evutil_socket_t fd, short what, void *ud)
{
  struct mr_inotify *x = ud;
  (void)fd;
  (void)what;
  mr_ready_post(x->rt->loop, &x->ready);
}

/* ---- making ---- */

static int open_inotify(struct mr_runtime *rt, struct mr_err *err)
{
  struct mr_inotify *x;

  if (rt->ext->inotify) return MR_OK;
  x = mr_mem_zalloc(mr_rt_mem(rt), sizeof *x);
  if (!x) return mr_err_nomem(err);
  x->rt = rt;
  mr_ready_init(&x->ready, on_ready);
  x->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (x->fd < 0) {
    mr_mem_free(mr_rt_mem(rt), x);
    return mr_err_errno(err, "inotify");
  }
  x->ev = event_new(mr_loop_base(rt->loop), x->fd, EV_READ | EV_PERSIST, on_readable, x);
  if (!x->ev || event_add(x->ev, NULL) != 0) {
    if (x->ev) event_free(x->ev);
    close(x->fd);
    mr_mem_free(mr_rt_mem(rt), x);
    return mr_err_nomem(err);
  }
  rt->ext->inotify = x;
  return MR_OK;
}

static int link_watch(struct mr_runtime *rt, void *arg, struct mr_err *err)
{
  struct watch *w = arg;
  struct mr_inotify *x;
  int code = open_inotify(rt, err);

  if (code != MR_OK) return code;
  x = rt->ext->inotify;
  if (x->n >= WATCHES_MAX) return mr_err_set(err, MR_E_FULL, NULL, "more than %d watches", WATCHES_MAX);
  w->wd = inotify_add_watch(x->fd, w->dir,
                            IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB |
                                IN_DELETE_SELF | IN_MOVE_SELF | IN_MASK_ADD);
  if (w->wd < 0) return mr_err_errno(err, w->dir);
  pthread_mutex_lock(&rt->ext->lock);
  w->id = mr_ext_put(rt, MR_EXT_WATCH, w);
  pthread_mutex_unlock(&rt->ext->lock);
  if (!w->id) return mr_err_nomem(err);
  w->next = x->watches;
  x->watches = w;
  x->n++;
  return MR_OK;
}

static struct watch *watch_new(struct mr_runtime *rt, const char *path)
{
  const struct mr_mem *m = mr_rt_mem(rt);
  struct watch *w = mr_mem_zalloc(m, sizeof *w);
  const char *slash = strrchr(path, '/');
  struct stat st;

  if (!w) return NULL;
  w->rt = rt;
  atomic_init(&w->refs, 1);
  atomic_init(&w->queued, false);
  atomic_init(&w->cancelled, false);
  w->entry.run = run_entry;
  w->told.fn = on_told;
  mr_timer_init(&w->quiet, on_quiet);
  if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
    w->dir = mr_mem_strdup(m, mr_str_c(path));
  } else { /* a file, also one that does not exist yet */
    w->dir = !slash          ? mr_mem_strdup(m, MR_S("."))
             : slash == path ? mr_mem_strdup(m, MR_S("/"))
                             : mr_mem_strdup(m, mr_str_n(path, (size_t)(slash - path)));
    w->name = mr_mem_strdup(m, mr_str_c(slash ? slash + 1 : path));
  }
  if (w->dir && (w->name || S_ISDIR(st.st_mode))) return w;
  unref(w);
  return NULL;
}

int mr_x_watch(struct mr_runtime *rt, const char *path, void (*fn)(void *ud, struct mr_str path), void *ud,
               uint64_t *id, struct mr_err *err)
{
  struct watch *w;
  int code = mr_ext_check(rt, err);

  if (id) *id = 0;
  if (code != MR_OK) return code;
  if (!path || !path[0] || strlen(path) >= PATH_MAX || !fn)
    return mr_err_set(err, MR_E_INVALID, fn ? "path" : "fn", "a watch needs a path and a function");
  w = watch_new(rt, path);
  if (!w) return mr_err_nomem(err);
  w->fn = fn;
  w->ud = ud;
  code = mr_rt_sync(rt, link_watch, w, err);
  if (code != MR_OK)
    unref(w);
  else if (id)
    *id = w->id;
  return code;
}

/* ---- taking back ---- */

static void unlink_watch(struct mr_inotify *x, struct watch *w)
{
  struct watch **at, *other;

  for (at = &x->watches; *at && *at != w; at = &(*at)->next)
    continue;
  if (!*at) return;
  *at = w->next;
  x->n--;
  for (other = x->watches; other && other->wd != w->wd; other = other->next)
    continue;
  if (!other) inotify_rm_watch(x->fd, w->wd);
  mr_timer_cancel(w->rt->loop, &w->quiet);
  unref(w);
}

static int cancel_watch(struct mr_runtime *rt, void *arg, struct mr_err *err)
{
  (void)err;
  unlink_watch(rt->ext->inotify, arg);
  return MR_OK;
}

void mr_x_watch_cancel(struct mr_runtime *rt, uint64_t id)
{
  struct watch *w;

  if (mr_ext_check(rt, NULL) != MR_OK) return;
  pthread_mutex_lock(&rt->ext->lock);
  w = mr_ext_get(rt, MR_EXT_WATCH, id);
  if (w) {
    mr_ext_drop(rt, id);
    atomic_store(&w->cancelled, true);
  }
  pthread_mutex_unlock(&rt->ext->lock);
  if (w) mr_rt_sync(rt, cancel_watch, w, NULL);
}

void mr_watches_end(struct mr_runtime *rt)
{
  struct mr_inotify *x = rt->ext->inotify;

  if (!x) return;
  while (x->watches)
    unlink_watch(x, x->watches);
  mr_ready_cancel(rt->loop, &x->ready);
  event_free(x->ev);
  close(x->fd);
  mr_mem_free(mr_rt_mem(rt), x);
  rt->ext->inotify = NULL;
}
