/*
 * worker_boxes.c - the sandboxes of the sessions that this worker serves or served. One outlives its item: a session
 * that comes back within --keep finds its files and its shell. At most KEPT_MAX are kept beside those in use, and all
 * are removed when the worker ends. What a worker that was killed left behind is kept likewise: its session may come
 * back, and the calls that ran then are asked for, not run again.
 *
 * Invariant: one box a session, one item a box. A box that is being removed stays in the list until that is done, so
 * that the session's next sandbox is not made on top of it.
 */
#include "main/worker_t.h"

#include <dirent.h>

enum { KEPT_MAX = 32, FOUND_KEEP_S = 600 };

struct box {
  struct box *next;
  struct worker *w;
  char session[WORKER_ID_MAX];
  struct mr_sandbox *s;
  struct item *user;
  struct mr_timer keep;
  int64_t since_us; /* not in use */
  bool leaving;
};

struct mr_sandbox *mr_worker_box_of(struct box *b)
{
  return b->s;
}

static struct box *find(struct worker *w, const char *session)
{
  struct box *b = w->boxes;

  while (b && strcmp(b->session, session) != 0)
    b = b->next;
  return b;
}

/* Whoever waits for this session's sandbox may try again. */
static void wake(struct worker *w, const char *session)
{
  for (struct item *it = w->items; it; it = it->next)
    if (!it->box && strcmp(it->session, session) == 0) mr_worker_calls_run(it);
}

static void box_free(struct box *b)
{
  struct worker *w = b->w;
  struct box **at = &w->boxes;

  while (*at != b)
    at = &(*at)->next;
  *at = b->next;
  w->nboxes--;
  mr_timer_cancel(w->loop, &b->keep);
  mr_mem_free(w->mem, b);
}

static void on_destroyed(void *ud, const struct mr_sandbox_result *r)
{
  struct box *b = ud;
  struct worker *w = b->w;
  char session[WORKER_ID_MAX];

  (void)r; /* the driver has said what went wrong; its next start sweeps */
  memcpy(session, b->session, sizeof session);
  box_free(b);
  wake(w, session);
  mr_worker_check(w);
}

static void destroy(struct box *b)
{
  if (b->leaving) return;
  b->leaving = true;
  b->user = NULL;
  mr_timer_cancel(b->w->loop, &b->keep);
  mr_sandbox_put(&b->s);
  mr_sandbox_destroy(b->w->driver, b->session, NULL, on_destroyed, b);
}

static void on_keep(struct mr_timer *t)
{
  struct box *b = MR_OF(t, struct box, keep);

  mr_log(&b->w->sys, MR_LOG_INFO, "worker", "%s: its sandbox is removed: nobody came back", b->session);
  destroy(b);
}

static struct box *box_new(struct worker *w, const char *session)
{
  struct box *b = mr_worker_zalloc(w, sizeof *b);

  b->w = w;
  snprintf(b->session, sizeof b->session, "%s", session);
  mr_timer_init(&b->keep, on_keep);
  b->next = w->boxes;
  w->boxes = b;
  w->nboxes++;
  return b;
}

static void keep(struct box *b, int seconds)
{
  struct box *oldest = NULL;
  int kept = 0;

  b->since_us = mr_loop_now_us(b->w->loop);
  mr_timer_set(b->w->loop, &b->keep, seconds * WORKER_SECOND);
  for (struct box *o = b->w->boxes; o; o = o->next) {
    if (o->user || o->leaving) continue;
    kept++;
    if (!oldest || o->since_us < oldest->since_us) oldest = o;
  }
  if (kept > KEPT_MAX) destroy(oldest);
}

struct box *mr_worker_box_take(struct item *it, bool *failed)
{
  struct worker *w = it->w;
  struct mr_sandbox_spec spec = {
      .session_id = it->session, .environment_id = w->environment, .network = w->network};
  struct box *b = find(w, it->session);

  *failed = false;
  if (b && (b->leaving || b->user)) return NULL;
  if (!b) b = box_new(w, it->session);
  if (!b->s) b->s = mr_sandbox_get(w->driver, &spec, NULL);
  if (!b->s) {
    *failed = true;
    box_free(b);
    return NULL;
  }
  mr_timer_cancel(w->loop, &b->keep);
  b->user = it;
  return b;
}

void mr_worker_box_give(struct item *it, bool remove)
{
  struct box *b = it->box;

  it->box = NULL;
  b->user = NULL;
  if (remove || it->w->set->keep_s == 0 || it->w->ending) {
    destroy(b);
    return;
  }
  keep(b, it->w->set->keep_s);
  wake(it->w, b->session);
}

void mr_worker_boxes_find(struct worker *w)
{
  static const char name_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
  char path[4200];
  DIR *d;
  struct dirent *e;
  int keep_s = w->set->keep_s > FOUND_KEEP_S ? w->set->keep_s : FOUND_KEEP_S;

  snprintf(path, sizeof path, "%s/s", w->root); /* the driver's own place: a directory a session */
  d = opendir(path);
  while (d && (e = readdir(d)))
    if (e->d_name[strspn(e->d_name, name_chars)] == '\0' && strlen(e->d_name) < WORKER_ID_MAX)
      keep(box_new(w, e->d_name), keep_s);
  if (d) closedir(d);
  if (w->nboxes)
    mr_log(&w->sys, MR_LOG_INFO, "worker", "%d sandboxes of a worker before this one are kept for %d s",
           w->nboxes, keep_s);
}

void mr_worker_boxes_end(struct worker *w)
{
  for (struct box *b = w->boxes; b; b = b->next)
    destroy(b);
}
