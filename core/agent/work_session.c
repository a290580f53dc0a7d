/*
 * work_session.c - what happens to a session, as its work item sees it (API: resources §8.3). An item is made with
 * the session; after it has stopped the next is made when something reaches the session that a worker will be needed
 * for, in the same commit as that. While an item is being stopped what comes is noted in it, and queued when it has
 * stopped. A session that ends has its item stopped: at once when no worker has it, else its worker is asked to.
 *
 * A worker that leaves an idle session may miss what came a moment ago. So when it stops its item so soon after, and
 * the session is not at rest, another follows; once, as what an item was made for does not count for that item.
 */
#include "agent/work_t.h"

static void add(struct mr_works_in *in, struct mr_work *w)
{
  if (w && in->n < MR_WORKS_MAX) in->v[in->n++] = w;
}

void mr_work_session_made(struct mr_domain *d, struct mr_commit *cm, struct mr_works_in *in, int64_t ws,
                          struct mr_str environment_id, struct mr_str session_id)
{
  if (d->works->loaded) add(in, mr_work_new(d, cm, ws, environment_id, session_id));
}

/* The session has ended. */
static void end_item(struct mr_session *s, struct mr_commit *cm, struct mr_works_in *in, struct mr_work *w)
{
  int64_t now = mr_loop_wall_us(s->d->loop);

  w->again = false;
  w->wanted_us = 0;
  if (mr_work_shows(w, now) == MR_WORK_QUEUED || mr_work_shows(w, now) == MR_WORK_STOPPED) {
    mr_work_stop(s->d, w, cm, in);
  } else if (w->state != MR_WORK_STOPPING) {
    w->state = MR_WORK_STOPPING;
    w->stop_asked_us = now;
    mr_work_put(s->d, w, cm);
    add(in, w);
  }
}

void mr_work_session_changes(struct mr_session *s, struct mr_commit *cm, struct mr_works_in *in, bool wanted)
{
  struct mr_domain *d = s->d;
  struct mr_work *w;

  if (!d->works->loaded) return;
  w = mr_work_of_session(d, s->ws, mr_str_c(s->id));
  if (s->status == MR_TERMINATED) {
    if (w && !w->lost) end_item(s, cm, in, w);
    return;
  }
  if (!wanted) return;
  if (!w) {
    add(in, mr_work_new(d, cm, s->ws, s->environment_id, mr_str_c(s->id)));
    return;
  }
  w->wanted_us = mr_loop_now_us(d->loop);
  if (w->state != MR_WORK_STOPPING || w->lost || w->again) return;
  w->again = true;
  if (mr_work_shows(w, mr_loop_wall_us(d->loop)) == MR_WORK_STOPPED) {
    mr_work_stop(d, w, cm, in); /* and the next one is made */
  } else {
    mr_work_put(d, w, cm);
    add(in, w);
  }
}

void mr_work_session_gone(struct mr_session *s, struct mr_commit *cm, struct mr_works_in *in)
{
  struct mr_work *w = s->d->works->loaded ? mr_work_of_session(s->d, s->ws, mr_str_c(s->id)) : NULL;

  if (w && !w->lost) end_item(s, cm, in, w);
}

void mr_work_settled(struct mr_domain *d, struct mr_works_in *in, int code)
{
  for (int i = 0; i < in->n; i++)
    mr_work_over(d, in->v[i], code);
  in->n = 0;
}

/* ---- the environment ---- */

enum { GONE_PAGE = 200 };

struct gone {
  struct mr_call *c;
  struct mr_str environment_id;
  void (*fn)(void *ud, int code, const struct mr_err *err);
  void *ud;
};

static void gone_page(struct gone *g);

static void on_gone(void *ud, const struct mr_commit_result *r)
{
  struct gone *g = ud;

  if (r->code != MR_OK)
    g->fn(g->ud, r->code, r->err);
  else
    gone_page(g);
}

static void on_items(void *ud, const struct mr_rows *r)
{
  struct gone *g = ud;
  struct mr_commit *cm;

  if (r->code != MR_OK || r->n == 0) {
    g->fn(g->ud, r->code, r->err);
    return;
  }
  cm = mr_commit_new(g->c->d->store, &(struct mr_origin){.workspace = g->c->who.workspace});
  if (!cm) {
    mr_err_nomem(&g->c->err);
    g->fn(g->ud, MR_E_NOMEM, &g->c->err);
    return;
  }
  for (int i = 0; i < r->n; i++) {
    mr_commit_doc_delete(cm, MR_S("work"), r->docs[i].id, 0);
    mr_commit_kv_delete(cm, MR_S("moonrig.work"), r->docs[i].id, -1);
  }
  mr_commit_submit(&cm, on_gone, g);
}

static void gone_page(struct gone *g)
{
  struct mr_doc_query q = {
      .kind = MR_S("work"), .parent = g->environment_id, .include_archived = true, .limit = GONE_PAGE};
  mr_read_docs(g->c->d->store, g->c->who.workspace, &q, on_items, g);
}

void mr_work_environment_gone(struct mr_call *c, struct mr_str environment_id,
                              void (*fn)(void *ud, int code, const struct mr_err *err), void *ud)
{
  struct gone *g = mr_arena_alloc(c->arena, sizeof *g);
  struct mr_work_env *e = mr_work_env(c->d, c->who.workspace, environment_id);

  if (!g || !e) {
    mr_err_nomem(&c->err);
    fn(ud, MR_E_NOMEM, &c->err);
    return;
  }
  mr_work_drop_env(c->d, e);
  *g = (struct gone){c, environment_id, fn, ud};
  gone_page(g);
}
