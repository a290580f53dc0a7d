/*
 * watch.c - watchers: who sees the events of all sessions after their commit, in log order; of one session
 * one at a time, several sessions side by side. Whom an event is shown to is a table that host/ fills.
 *
 * How it stays bounded and misses nothing: events that are published go into a watcher's list while there is
 * room. When there is none it is behind: it lets live events pass, and once half of its list is empty reads
 * on from the log, in windows of positions, until it has caught up. So a slow watcher costs its list and no
 * more.
 *
 * Positions: read is where the list ends (all before it is in the list, or not wanted); the watcher's
 * position is before the first event that is not done. A durable one's is kept among the values, in space
 * "on" under its name, written a little later than it moved: after a crash some events are shown again, none
 * is left out. Events that are done stay in the list, without their text, until all before them are.
 *
 * Invariant: the list is in order of position, and each position is in it once. Loop thread.
 */
#include "agent/watch_t.h"

enum { WATCHES_MAX = 1000 };

static struct mr_str put(char **at, struct mr_str s)
{
  struct mr_str out = mr_str_n(*at, s.n);

  if (s.n) memcpy(*at, s.p, s.n);
  (*at)[s.n] = '\0';
  *at += s.n + 1;
  return out;
}

/* ---- what is published ---- */

/* Its rows are gone from the log: what waits is not shown any more. */
static void forget_session(struct mr_watch *w, const char *id)
{
  for (struct mr_watch_entry *e = w->first; e; e = e->next)
    if (e->state == MR_WATCH_WAITING && mr_str_is(e->shown.session_id, id)) mr_watch_entry_done(e);
  mr_watch_trim(w);
  mr_ready_post(w->d->loop, &w->step);
}

void mr_watch_publish(struct mr_session *s, const struct mr_log_row *row)
{
  struct mr_watches *ws = s->d->watches;
  struct mr_all_row r = {.pos = row->pos,
                         .session_id = mr_str_c(s->id),
                         .agent_id = s->agent_id,
                         .agent_name = s->main.agent_name,
                         .type = row->type,
                         .body = row->body};
  bool deleted = row->pos == INT64_MAX;

  if (!deleted && row->pos > ws->pos) ws->pos = row->pos;
  for (struct mr_watch *w = ws->list; w; w = w->next) {
    if (deleted) {
      forget_session(w, s->id);
    } else if (w->loaded && !w->behind && row->pos > w->read) {
      bool wanted = mr_watch_wants(w, r.type, r.agent_id, r.agent_name);
      if (wanted && !mr_watch_take(w, &r)) {
        w->behind = true;
        mr_ready_post(w->d->loop, &w->step);
        continue;
      }
      w->read = row->pos;
      if (wanted) mr_ready_post(w->d->loop, &w->step);
      mr_watch_save_soon(w);
    }
  }
}

/* ---- adding and removing ---- */

static struct mr_watch *find(struct mr_watches *ws, struct mr_str name)
{
  struct mr_watch *w = ws->list;

  while (w && !mr_str_is(name, w->name))
    w = w->next;
  return w;
}

/* The filter of o into w, which has none. */
static int set_filter(struct mr_watch *w, const struct mr_watch_opts *o)
{
  const struct mr_mem *m = w->d->mem;
  size_t n = 0;
  char *at;

  for (int i = 0; i < o->ntypes; i++)
    n += o->types[i].n + 1;
  w->types = NULL;
  w->ntypes = 0;
  w->agent = o->agent.n ? mr_mem_strdup(m, o->agent) : NULL;
  if (o->agent.n && !w->agent) return MR_E_NOMEM;
  if (!o->ntypes) return MR_OK;
  w->types = mr_mem_alloc(m, (size_t)o->ntypes * sizeof *w->types + n);
  if (!w->types) return MR_E_NOMEM;
  at = (char *)(w->types + o->ntypes);
  for (int i = 0; i < o->ntypes; i++)
    w->types[w->ntypes++] = put(&at, o->types[i]);
  return MR_OK;
}

static bool same_filter(const struct mr_watch *w, const struct mr_watch_opts *o)
{
  bool same = w->ntypes == o->ntypes && mr_str_eq(mr_str_c(w->agent), o->agent);

  for (int i = 0; same && i < o->ntypes; i++)
    same = mr_str_eq(w->types[i], o->types[i]);
  return same;
}

/* Another filter: what waits was chosen by the old one, so the list is read again from there. */
static int replace(struct mr_watch *w, const struct mr_watch_opts *o)
{
  struct mr_str *types = w->types;
  char *agent = w->agent;
  int n = w->ntypes;
  struct mr_watch_entry *next;

  if (o->durable && !w->durable) {
    w->durable = true;
    w->saved = -1;
    mr_watch_save(w);
  }
  w->durable = o->durable;
  if (same_filter(w, o)) return MR_OK;
  if (set_filter(w, o) != MR_OK) {
    mr_mem_free(w->d->mem, w->types);
    mr_mem_free(w->d->mem, w->agent);
    w->types = types;
    w->agent = agent;
    w->ntypes = n;
    return MR_E_NOMEM;
  }
  mr_mem_free(w->d->mem, types);
  mr_mem_free(w->d->mem, agent);
  if (!w->loaded) return MR_OK; /* nothing was read yet */
  for (struct mr_watch_entry *e = w->first; e; e = next) {
    next = e->next;
    if (e->state != MR_WATCH_WAITING) continue;
    if (e->shown.pos - 1 < w->read) w->read = e->shown.pos - 1;
    w->nlive--;
    mr_watch_entry_free(e);
  }
  w->behind = true;
  w->filters++;
  mr_ready_post(w->d->loop, &w->step);
  return MR_OK;
}

int mr_watch_add(struct mr_domain *d, const struct mr_watch_opts *o, struct mr_err *err)
{
  struct mr_watches *ws = d->watches;
  struct mr_watch *w = find(ws, o->name);

  if (w) return replace(w, o) == MR_OK ? MR_OK : mr_err_nomem(err);
  if (ws->n == WATCHES_MAX) return mr_err_set(err, MR_E_FULL, NULL, "more than %d watchers", WATCHES_MAX);
  w = mr_mem_zalloc(d->mem, sizeof *w);
  if (!w) return mr_err_nomem(err);
  w->d = d;
  mr_ready_init(&w->step, mr_watch_step);
  mr_timer_init(&w->timer, mr_watch_timer);
  w->name = mr_mem_strdup(d->mem, o->name);
  if (!w->name || set_filter(w, o) != MR_OK) {
    mr_watch_free(w);
    return mr_err_nomem(err);
  }
  w->durable = o->durable;
  w->began = w->read = ws->pos;
  w->saved = -1;
  w->loaded = !o->durable;
  if (o->durable) mr_watch_save_first(w);
  w->next = ws->list;
  ws->list = w;
  ws->n++;
  mr_ready_post(d->loop, &w->step);
  return MR_OK;
}

int mr_watch_remove(struct mr_domain *d, struct mr_str name)
{
  struct mr_watch **at = &d->watches->list, *w;

  while (*at && !mr_str_is(name, (*at)->name))
    at = &(*at)->next;
  w = *at;
  if (!w) return MR_E_NOTFOUND;
  *at = w->next;
  d->watches->n--;
  mr_watch_drop(w);
  mr_watch_save(w);
  w->removed = true;
  mr_timer_cancel(d->loop, &w->timer);
  mr_ready_cancel(d->loop, &w->step);
  mr_watch_release(w);
  mr_domain_settled(d);
  return MR_OK;
}

/* ---- life ---- */

int mr_watches_init(struct mr_domain *d, struct mr_err *err)
{
  struct mr_store_stats st;

  d->watches = mr_mem_zalloc(d->mem, sizeof *d->watches);
  if (!d->watches) return mr_err_nomem(err);
  d->watches->d = d;
  mr_store_stats(d->store, &st);
  d->watches->pos = st.pos;
  return MR_OK;
}

void mr_watches_cut(struct mr_domain *d)
{
  for (struct mr_watch *w = d->watches->list; w; w = w->next) {
    mr_timer_cancel(d->loop, &w->timer);
    mr_watch_drop(w);
    mr_watch_save(w);
  }
}

void mr_watches_free(struct mr_domain *d)
{
  struct mr_watches *ws = d->watches;

  if (!ws) return;
  for (struct mr_watch *w = ws->list, *next; w; w = next) {
    next = w->next;
    mr_watch_free(w);
  }
  mr_mem_free(d->mem, ws);
  d->watches = NULL;
}
