/*
 * watch_read.c - where a watcher stands: its position among the values, and reading on from the log while it
 * is behind. Invariant: one read and one write of a watcher are under way at most; both hold it. Loop
 * thread.
 */
#include "agent/watch_t.h"

#include <stdio.h>

enum { WINDOW = 20000 }; /* positions that one read looks through */

static int64_t position(const struct mr_watch *w)
{
  const struct mr_watch_entry *e = w->first;

  while (e && e->state == MR_WATCH_DONE)
    e = e->next;
  return e && e->shown.pos - 1 < w->read ? e->shown.pos - 1 : w->read; /* another filter takes read back */
}

/* ---- the position ---- */

void mr_watch_free(struct mr_watch *w)
{
  const struct mr_mem *m = w->d->mem;

  mr_ready_cancel(w->d->loop, &w->step);
  mr_timer_cancel(w->d->loop, &w->timer);
  while (w->first)
    mr_watch_entry_free(w->first);
  mr_mem_free(m, w->types);
  mr_mem_free(m, w->name);
  mr_mem_free(m, w->agent);
  mr_mem_free(m, w);
}

void mr_watch_release(struct mr_watch *w)
{
  if (w->removed && !w->asking && !w->saving) mr_watch_free(w);
}

static struct mr_commit *position_commit(struct mr_watch *w, int64_t pos, int64_t expect)
{
  struct mr_commit *c = mr_commit_new(w->d->store, &(struct mr_origin){.workspace = w->d->default_ws});
  char value[64];

  snprintf(value, sizeof value, "{\"pos\":%lld}", (long long)pos);
  mr_commit_kv_put(
      c, &(struct mr_kv_row){.space = MR_S("on"), .key = mr_str_c(w->name), .value = mr_str_c(value)}, expect);
  mr_commit_label(c, "watch.position");
  return c;
}

void mr_watch_save_first(struct mr_watch *w)
{
  struct mr_commit *c = position_commit(w, w->began, 0);
  mr_commit_submit(&c, NULL, NULL); /* if it fails, what is read next tells */
}

static void on_saved(void *ud, const struct mr_commit_result *r)
{
  struct mr_watch *w = ud;

  w->saving = false;
  if (r->code != MR_OK) w->saved = -1;
  if (w->removed || w->d->cut) {
    if (r->code == MR_OK) mr_watch_save(w); /* the last word */
  } else if (position(w) != w->saved) {
    mr_timer_set(w->d->loop, &w->timer, r->code == MR_OK ? MR_WATCH_SAVE_US : MR_WATCH_AGAIN_US);
  }
  mr_watch_release(w);
}

void mr_watch_save(struct mr_watch *w)
{
  struct mr_commit *c;
  int64_t pos = position(w);

  if (!w->durable || !w->loaded || w->saving || w->saved == pos) return;
  c = position_commit(w, pos, -1);
  if (!c) return;
  w->saved = pos;
  w->saving = true;
  mr_commit_submit(&c, on_saved, w);
}

void mr_watch_timer(struct mr_timer *t)
{
  struct mr_watch *w = MR_OF(t, struct mr_watch, timer);

  mr_watch_save(w);
  mr_ready_post(w->d->loop, &w->step);
}

void mr_watch_save_soon(struct mr_watch *w)
{
  if (w->durable && !w->saving && !mr_timer_pending(&w->timer))
    mr_timer_set(w->d->loop, &w->timer, MR_WATCH_SAVE_US);
}

static void on_position(void *ud, const struct mr_rows *r)
{
  struct mr_watch *w = ud;
  yyjson_doc *doc = NULL;

  w->asking = false;
  if (w->removed) {
    mr_watch_release(w);
  } else if (r->code == MR_OK || r->code == MR_E_NOTFOUND) {
    w->read = w->began;
    if (r->code == MR_OK && mr_json_parse(w->d->mem, r->kv[0].value, 4096, &doc, NULL) == MR_OK)
      w->read = mr_json_get_int(yyjson_doc_get_root(doc), "pos", w->began);
    yyjson_doc_free(doc);
    w->saved = r->code == MR_OK ? w->read : -1;
    w->loaded = w->behind = true;
    mr_watch_save(w);
    mr_ready_post(w->d->loop, &w->step);
  } else if (!w->d->cut) {
    mr_timer_set(w->d->loop, &w->timer, MR_WATCH_AGAIN_US);
  }
}

/* ---- from the log ---- */

struct page { /* of whom, and where it ends */
  struct mr_watch *w;
  int64_t upto;
  int filters;
};

static void on_page(void *ud, const struct mr_rows *r)
{
  struct page *p = ud;
  struct mr_watch *w = p->w;
  bool mine = !w->removed && p->filters == w->filters; /* else it was asked with another filter */
  bool whole = mine && r->code == MR_OK && !r->more;

  w->asking = false;
  for (int i = 0; mine && i < r->n; i++) {
    if (mr_watch_wants(w, r->all[i].type, r->all[i].agent_id, r->all[i].agent_name) &&
        !mr_watch_take(w, &r->all[i])) {
      whole = false;
      break;
    }
    w->read = r->all[i].pos;
  }
  if (whole && w->read < p->upto) w->read = p->upto;
  if (whole && w->read >= w->d->watches->pos) w->behind = false;
  mr_mem_free(w->d->mem, p);
  if (w->removed) {
    mr_watch_release(w);
  } else if (r->code == MR_OK) {
    mr_watch_save_soon(w);
    mr_ready_post(w->d->loop, &w->step);
  } else if (!w->d->cut) {
    mr_timer_set(w->d->loop, &w->timer, MR_WATCH_AGAIN_US);
  }
}

static void read_on(struct mr_watch *w)
{
  int64_t newest = w->d->watches->pos;
  struct page *p;

  if (w->read >= newest) {
    w->behind = false;
    return;
  }
  p = mr_mem_zalloc(w->d->mem, sizeof *p);
  if (!p) {
    mr_timer_set(w->d->loop, &w->timer, MR_WATCH_AGAIN_US);
    return;
  }
  p->w = w;
  p->filters = w->filters;
  p->upto = newest - w->read > WINDOW ? w->read + WINDOW : newest;
  w->asking = true;
  mr_read_all(w->d->store, w->read, p->upto, w->types, w->ntypes, MR_WATCH_PAGE, on_page, p);
}

void mr_watch_step(struct mr_ready *r)
{
  struct mr_watch *w = MR_OF(r, struct mr_watch, step);

  if (w->d->cut) return;
  if (!w->loaded && !w->asking) {
    w->asking = true;
    mr_read_kv(w->d->store, w->d->default_ws, MR_S("on"), mr_str_c(w->name), on_position, w);
  }
  if (!w->loaded) return;
  mr_watch_trim(w);
  mr_watch_hand_out(w);
  if (w->behind && !w->asking && !w->d->draining && w->nlive <= MR_WATCH_LIVE_MAX / 2 &&
      w->bytes <= MR_WATCH_BYTES_MAX / 2 && w->nlist <= MR_WATCH_LIST_MAX - MR_WATCH_PAGE)
    read_on(w);
}
