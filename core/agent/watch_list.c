/*
 * watch_list.c - a watcher's list of events, in order of position, and what is handed out of it: the first
 * that waits of each session of which none is out.
 *
 * Events that are done stay in the list, without their text, until all before them are and the log has been
 * read past them: they tell what a second reading must not bring again, and the first that is not done is the
 * watcher's position.
 *
 * Invariant: each position is in the list once; w->out holds the entries in state OUT, and their sessions
 * are all different. Loop thread.
 */
#include "agent/watch_t.h"

/* ---- the list ---- */

void mr_watch_entry_free(struct mr_watch_entry *e)
{
  struct mr_watch *w = e->w;

  if (e->prev)
    e->prev->next = e->next;
  else
    w->first = e->next;
  if (e->next)
    e->next->prev = e->prev;
  else
    w->last = e->prev;
  w->nlist--;
  if (e->text) w->bytes -= e->bytes;
  mr_mem_free(w->d->mem, e->text);
  mr_mem_free(w->d->mem, e);
}

void mr_watch_entry_done(struct mr_watch_entry *e)
{
  struct mr_watch *w = e->w;

  e->state = MR_WATCH_DONE;
  w->nlive--;
  w->bytes -= e->bytes;
  mr_mem_free(w->d->mem, e->text);
  e->text = NULL;
}

void mr_watch_trim(struct mr_watch *w)
{
  bool full = w->nlist > MR_WATCH_LIST_MAX - MR_WATCH_PAGE; /* better shown twice than not read on */

  while (w->first && w->first->state == MR_WATCH_DONE && (full || w->first->shown.pos <= w->read))
    mr_watch_entry_free(w->first);
}

static bool room(const struct mr_watch *w, size_t bytes)
{
  return w->nlist < MR_WATCH_LIST_MAX && w->nlive < MR_WATCH_LIVE_MAX &&
         (w->nlive == 0 || w->bytes + bytes <= MR_WATCH_BYTES_MAX);
}

static struct mr_str put(char **at, struct mr_str s)
{
  struct mr_str out = mr_str_n(*at, s.n);

  if (s.n) memcpy(*at, s.p, s.n);
  (*at)[s.n] = '\0';
  *at += s.n + 1;
  return out;
}

bool mr_watch_take(struct mr_watch *w, const struct mr_all_row *r)
{
  size_t n = r->session_id.n + r->agent_name.n + r->body.n + 3;
  struct mr_watch_entry *e, *before = w->last;
  char *at;

  while (before && before->shown.pos > r->pos)
    before = before->prev;
  if (before && before->shown.pos == r->pos) return true;
  if (!room(w, n)) return false;
  e = mr_mem_zalloc(w->d->mem, sizeof *e);
  at = mr_mem_alloc(w->d->mem, n);
  if (!e || !at) {
    mr_mem_free(w->d->mem, e);
    mr_mem_free(w->d->mem, at);
    return false;
  }
  e->w = w;
  e->bytes = n;
  e->text = at;
  e->shown.watcher = mr_str_c(w->name);
  e->shown.pos = r->pos;
  e->shown.session_id = put(&at, r->session_id);
  e->shown.agent_name = put(&at, r->agent_name);
  e->shown.body = put(&at, r->body);
  e->prev = before;
  e->next = before ? before->next : w->first;
  *(before ? &before->next : &w->first) = e;
  *(e->next ? &e->next->prev : &w->last) = e;
  w->nlist++;
  w->nlive++;
  w->bytes += n;
  return true;
}

bool mr_watch_wants(const struct mr_watch *w, struct mr_str type, struct mr_str agent_id,
                    struct mr_str agent_name)
{
  bool typed = w->ntypes == 0;

  for (int i = 0; i < w->ntypes && !typed; i++)
    typed = mr_str_eq(w->types[i], type);
  return typed && (!w->agent || mr_str_is(agent_name, w->agent) || mr_str_is(agent_id, w->agent));
}

/* ---- handing out ---- */

static bool session_is_out(const struct mr_watch *w, struct mr_str id)
{
  for (int i = 0; i < w->nout; i++)
    if (mr_str_eq(w->out[i]->shown.session_id, id)) return true;
  return false;
}

static void no_longer_out(struct mr_watch_entry *e)
{
  struct mr_watch *w = e->w;
  int i = 0;

  while (w->out[i] != e)
    i++;
  w->out[i] = w->out[--w->nout];
  w->d->stats.watchers_running--;
  e->state = MR_WATCH_WAITING;
}

void mr_watch_hand_out(struct mr_watch *w)
{
  struct mr_domain *d = w->d;

  for (struct mr_watch_entry *e = w->first; e && w->nout < MR_WATCH_OUT_MAX && !d->draining; e = e->next) {
    if (e->state != MR_WATCH_WAITING || session_is_out(w, e->shown.session_id)) continue;
    e->state = MR_WATCH_OUT;
    w->out[w->nout++] = e;
    d->stats.watchers_running++;
    if (d->watch_host.show(d->watch_host.ud, &e->shown) == MR_OK) continue;
    no_longer_out(e);
    mr_timer_set(d->loop, &w->timer, MR_WATCH_AGAIN_US);
    return;
  }
}

void mr_watch_drop(struct mr_watch *w)
{
  while (w->nout) {
    struct mr_watch_entry *e = w->out[w->nout - 1];
    no_longer_out(e);
    w->d->watch_host.drop(w->d->watch_host.ud, &e->shown);
  }
}

void mr_watch_done(struct mr_domain *d, struct mr_shown *shown, bool again)
{
  struct mr_watch_entry *e = MR_OF(shown, struct mr_watch_entry, shown);
  struct mr_watch *w = e->w;

  no_longer_out(e);
  if (!again) mr_watch_entry_done(e);
  mr_watch_trim(w);
  mr_watch_save_soon(w);
  mr_ready_post(d->loop, &w->step);
  mr_domain_settled(d);
}
