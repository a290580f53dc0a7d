/*
 * session.c - which sessions are loaded. A session is loaded when something happens to it, kept while
 * something refers to it, and for a short while after, and then is a row again: idle costs nothing.
 */
#include "agent/price.h"
#include "agent/session_t.h"

#include <stdio.h>

enum { BUCKETS = 1024, KEEP_IDLE = 64, LOAD_PAGE = 2000 };
static const int64_t KEEP_US = 5000000;

struct load { /* one session being loaded */
  struct load *next;
  struct mr_domain *d;
  struct mr_session *s;
  struct load_waiter *waiters, **waiters_tail;
  int64_t after;
  struct mr_ready ready;
  int code;
  struct mr_err err;
};
struct load_waiter {
  struct load_waiter *next;
  void (*fn)(void *ud, int code, struct mr_session *s, const struct mr_err *err);
  void *ud;
};

struct mr_sessions {
  struct mr_domain *d;
  struct mr_session *bucket[BUCKETS];
  struct mr_session lru; /* sentinel of sessions nobody refers to; oldest first */
  int nlru;
  struct load *loads;
  struct mr_timer sweep;
};

static uint32_t hash(int64_t ws, struct mr_str id)
{
  uint32_t h = 2166136261u ^ (uint32_t)ws;
  for (size_t i = 0; i < id.n; i++)
    h = (h ^ (unsigned char)id.p[i]) * 16777619u;
  return h % BUCKETS;
}

struct mr_session *mr_session_loaded(struct mr_domain *d, int64_t ws, struct mr_str id)
{
  struct mr_session *s = d->sessions->bucket[hash(ws, id)];
  while (s && (s->deleted || s->ws != ws || !mr_str_is(id, s->id)))
    s = s->hash_next;
  return s;
}

struct mr_str mr_session_copy(struct mr_session *s, struct mr_str str)
{
  return mr_arena_str(s->mem, str);
}

static void unhash(struct mr_session *s)
{
  struct mr_session **at = &s->d->sessions->bucket[hash(s->ws, mr_str_c(s->id))];
  while (*at && *at != s)
    at = &(*at)->hash_next;
  if (*at) *at = s->hash_next;
}

static void lru_del(struct mr_session *s)
{
  if (!s->lru_next) return;
  s->lru_prev->lru_next = s->lru_next;
  s->lru_next->lru_prev = s->lru_prev;
  s->lru_next = s->lru_prev = NULL;
  s->d->sessions->nlru--;
}

static void session_free(struct mr_session *s)
{
  struct mr_domain *d = s->d;

  lru_del(s);
  unhash(s);
  mr_turn_stop_all(s);
  for (struct mr_thread *th = &s->main; th; th = th->next)
    mr_thread_free(th);
  mr_sandbox_put(&s->sandbox);
  mr_spills_free(s);
  mr_seen_free(s);
  yyjson_doc_free(s->agent_doc);
  yyjson_doc_free(s->doc);
  mr_mem_free(d->mem, s->sandbox_ref);
  mr_arena_free(&s->mem);
  mr_mem_free(d->mem, s);
  d->stats.sessions_loaded--;
}

void mr_session_ref(struct mr_session *s)
{
  s->refs++;
  lru_del(s);
}

/* Nothing of it runs or waits: it may become a row again. */
static bool at_rest(const struct mr_session *s)
{
  for (const struct mr_thread *th = &s->main; th; th = th->next)
    if (th->step.link) return false;
  return s->status == MR_IDLE || s->status == MR_TERMINATED;
}

void mr_session_unref(struct mr_session *s)
{
  struct mr_sessions *t = s->d->sessions;

  if (--s->refs > 0) return;
  if (s->poisoned || s->deleted) {
    session_free(s);
    return;
  }
  if (!at_rest(s)) return; /* the turn holds it; looked at again when it ends */
  s->idle_since_us = mr_loop_now_us(s->d->loop);
  s->lru_next = &t->lru;
  s->lru_prev = t->lru.lru_prev;
  s->lru_prev->lru_next = s;
  t->lru.lru_prev = s;
  if (++t->nlru > KEEP_IDLE)
    session_free(t->lru.lru_next);
  else if (!mr_timer_pending(&t->sweep))
    mr_timer_set(s->d->loop, &t->sweep, KEEP_US);
}

static void sweep(struct mr_timer *timer)
{
  struct mr_sessions *t = MR_OF(timer, struct mr_sessions, sweep);
  int64_t now = mr_loop_now_us(t->d->loop);

  while (t->nlru && t->lru.lru_next->idle_since_us + KEEP_US <= now)
    session_free(t->lru.lru_next);
  if (t->nlru) mr_timer_set(t->d->loop, &t->sweep, KEEP_US);
}

void mr_session_poison(struct mr_session *s, const struct mr_err *err)
{
  if (s->poisoned) return;
  mr_log(s->d->sys, MR_LOG_ERROR, "session", "%s: %s; its state is loaded again", s->id,
         err ? err->message : "a commit failed");
  s->poisoned = true;
  unhash(s);
  lru_del(s);
  mr_turn_stop_all(s);
  for (struct mr_thread *th = &s->main; th; th = th->next) {
    mr_stream_end_all(th, MR_E_UNAVAILABLE);
    mr_ready_cancel(s->d->loop, &th->step);
    mr_timer_cancel(s->d->loop, &th->retry);
  }
  mr_domain_rewake(s->d);
}

void mr_session_each(struct mr_domain *d, void (*fn)(struct mr_session *s))
{
  for (int i = 0; i < BUCKETS; i++)
    for (struct mr_session *s = d->sessions->bucket[i], *next; s; s = next) {
      next = s->hash_next;
      fn(s);
    }
}

/* ---- loading ---- */

static int copy_row(struct mr_session *s, const struct mr_session_row *r, struct mr_err *err)
{
  yyjson_doc *head = NULL;
  struct mr_str ref;

  s->rev = r->rev;
  s->owner_epoch = r->owner_epoch;
  s->created_us = r->created_us;
  s->updated_us = r->updated_us;
  s->archived_us = r->archived_us;
  s->last_us = r->last_us;
  s->agent_version = r->agent_version;
  s->agent_id = mr_session_copy(s, r->agent_id);
  s->environment_id = mr_session_copy(s, r->environment_id);
  s->deployment_id = mr_session_copy(s, r->deployment_id);
  s->agent_json = mr_session_copy(s, r->agent);
  s->doc_json = mr_session_copy(s, r->doc);
  if (mr_json_parse(s->d->mem, r->head, SIZE_MAX, &head, err) != MR_OK) return MR_E_INTERNAL;
  snprintf(s->main.id, sizeof s->main.id, MR_FMT,
           MR_ARG(mr_json_get_str(yyjson_doc_get_root(head), "primary")));
  ref = mr_json_get_str(yyjson_doc_get_root(head), "sandbox_ref");
  s->sandbox_ref = ref.n ? mr_mem_strdup(s->d->mem, ref) : NULL;
  yyjson_doc_free(head);
  return mr_session_parse_docs(s, err);
}

int mr_session_parse_docs(struct mr_session *s, struct mr_err *err)
{
  yyjson_doc *agent = NULL, *doc = NULL;
  yyjson_val *budget;
  int code = mr_json_parse(s->d->mem, s->agent_json, SIZE_MAX, &agent, err);

  if (code == MR_OK) code = mr_json_parse(s->d->mem, s->doc_json, SIZE_MAX, &doc, err);
  if (code != MR_OK) {
    yyjson_doc_free(agent);
    return code;
  }
  budget = mr_json_get(yyjson_doc_get_root(doc), "budget");
  s->self_hosted = mr_env_self_hosted(yyjson_doc_get_root(doc));
  yyjson_doc_free(s->agent_doc);
  yyjson_doc_free(s->doc);
  s->agent_doc = agent;
  s->doc = doc;
  mr_thread_set_agent(&s->main, yyjson_doc_get_root(agent));
  memset(&s->caps, 0, sizeof s->caps);
  if (yyjson_is_obj(budget)) mr_budget_read(budget, &s->caps, NULL);
  return MR_OK;
}

static void load_done(struct mr_ready *r)
{
  struct load *l = MR_OF(r, struct load, ready), **at = &l->d->sessions->loads;
  struct mr_session *s = l->s;
  const struct mr_mem *mem = l->d->mem;
  uint32_t h;

  while (*at != l)
    at = &(*at)->next;
  *at = l->next;
  if (l->code == MR_OK) {
    h = hash(s->ws, mr_str_c(s->id));
    s->hash_next = l->d->sessions->bucket[h];
    l->d->sessions->bucket[h] = s;
    mr_session_ref(s);
    mr_turn_recover(s);
  }
  for (struct load_waiter *w = l->waiters, *next; w; w = next) {
    next = w->next;
    if (l->code == MR_OK) mr_session_ref(s);
    w->fn(w->ud, l->code, l->code == MR_OK ? s : NULL, l->code == MR_OK ? NULL : &l->err);
    mr_mem_free(mem, w);
  }
  if (l->code == MR_OK) {
    mr_session_unref(s);
  } else {
    session_free(s);
  }
  mr_mem_free(mem, l);
}

static void load_end(struct load *l, int code, const struct mr_err *err)
{
  l->code = code;
  if (err) l->err = *err;
  mr_ready_post(l->d->loop, &l->ready);
}

static void on_inbox(void *ud, const struct mr_rows *r)
{
  struct load *l = ud;
  struct mr_session *s = l->s;

  for (int i = 0; r->code == MR_OK && i < r->n; i++) {
    struct mr_input *in = mr_arena_alloc(s->mem, sizeof *in);
    yyjson_doc *doc = NULL;
    if (!in || mr_json_parse(l->d->mem, r->inbox[i].body, SIZE_MAX, &doc, NULL) != MR_OK) {
      load_end(l, MR_E_NOMEM, NULL);
      return;
    }
    snprintf(in->event_id, sizeof in->event_id, MR_FMT, MR_ARG(r->inbox[i].event_id));
    in->type = mr_session_copy(s, r->inbox[i].type);
    mr_input_route(s, in, yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
    in->body = mr_session_copy(s, r->inbox[i].body);
    in->committed = true;
    *s->inbox_tail = in;
    s->inbox_tail = &in->next;
  }
  load_end(l, r->code, r->err);
}

static void load_log(struct load *l);

static void on_log(void *ud, const struct mr_rows *r)
{
  struct load *l = ud;
  int code = r->code;

  for (int i = 0; code == MR_OK && i < r->n; i++) {
    code = mr_state_apply(l->s, &r->log[i]);
    l->after = r->log[i].pos;
  }
  if (code != MR_OK)
    load_end(l, code, r->err);
  else if (r->more)
    load_log(l);
  else
    mr_read_inbox(l->d->store, l->s->ws, mr_str_c(l->s->id), on_inbox, l);
}

static void load_log(struct load *l)
{
  struct mr_log_query q = {.session_id = mr_str_c(l->s->id),
                           .with_private = true,
                           .all_threads = true,
                           .after_pos = l->after,
                           .limit = LOAD_PAGE};
  mr_read_log(l->d->store, l->s->ws, &q, on_log, l);
}

static void on_row(void *ud, const struct mr_rows *r)
{
  struct load *l = ud;
  int code = r->code;

  if (code == MR_E_NOTFOUND || (code == MR_OK && r->n == 0)) {
    mr_err_set(&l->err, MR_E_NOTFOUND, NULL, "session %s not found", l->s->id);
    load_end(l, MR_E_NOTFOUND, NULL);
    return;
  }
  if (code == MR_OK) code = copy_row(l->s, &r->sessions[0], &l->err);
  if (code != MR_OK)
    load_end(l, code, r->err);
  else
    load_log(l);
}

static struct load *load_start(struct mr_domain *d, int64_t ws, struct mr_str id)
{
  struct load *l = mr_mem_zalloc(d->mem, sizeof *l);
  struct mr_session *s = mr_mem_zalloc(d->mem, sizeof *s);

  if (!l || !s || !(s->mem = mr_arena_new(d->mem, 4096))) {
    mr_mem_free(d->mem, l);
    mr_mem_free(d->mem, s);
    return NULL;
  }
  s->d = d;
  s->ws = ws;
  snprintf(s->id, sizeof s->id, MR_FMT, MR_ARG(id));
  s->inbox_tail = &s->inbox;
  mr_thread_init(s, &s->main);
  d->stats.sessions_loaded++;
  l->d = d;
  l->s = s;
  l->waiters_tail = &l->waiters;
  mr_ready_init(&l->ready, load_done);
  l->next = d->sessions->loads;
  d->sessions->loads = l;
  return l;
}

/* The store is closed, and the domain goes: who waited was told, or has given up. */
static void load_drop(struct load *l)
{
  const struct mr_mem *mem = l->d->mem;

  l->d->sessions->loads = l->next;
  mr_ready_cancel(l->d->loop, &l->ready);
  for (struct load_waiter *w = l->waiters, *next; w; w = next) {
    next = w->next;
    mr_mem_free(mem, w);
  }
  session_free(l->s);
  mr_mem_free(mem, l);
}

struct hit {
  struct mr_ready ready;
  struct mr_session *s;
  struct load_waiter w;
};

static void on_hit(struct mr_ready *r)
{
  struct hit *h = MR_OF(r, struct hit, ready);
  struct mr_domain *d = h->s->d;
  const struct mr_mem *mem = d->mem;
  char id[MR_ID_LEN];
  struct mr_err err;
  int64_t ws;

  if (h->s->poisoned && !h->s->deleted) { /* since it was asked for: the one that is loaded again */
    ws = h->s->ws;
    memcpy(id, h->s->id, sizeof id);
    mr_session_unref(h->s);
    mr_session_get(d, ws, mr_str_c(id), h->w.fn, h->w.ud);
  } else if (h->s->deleted) { /* since it was asked for */
    mr_err_set(&err, MR_E_NOTFOUND, NULL, "session %s not found", h->s->id);
    mr_session_unref(h->s);
    h->w.fn(h->w.ud, err.code, NULL, &err);
  } else {
    h->w.fn(h->w.ud, MR_OK, h->s, NULL);
  }
  mr_mem_free(mem, h);
}

/* Its row is there until the commit of the delete; it is not loaded again from that. */
static bool being_deleted(struct mr_domain *d, int64_t ws, struct mr_str id)
{
  struct mr_session *s = d->sessions->bucket[hash(ws, id)];
  while (s && !(s->deleted && s->ws == ws && mr_str_is(id, s->id)))
    s = s->hash_next;
  return s != NULL;
}

void mr_session_get(struct mr_domain *d, int64_t ws, struct mr_str id,
                    void (*fn)(void *ud, int code, struct mr_session *s, const struct mr_err *err), void *ud)
{
  struct mr_session *s = mr_session_loaded(d, ws, id);
  struct load *l = d->sessions->loads;
  struct load_waiter *w;
  bool started = false;

  if (s) {
    struct hit *h = mr_mem_zalloc(d->mem, sizeof *h);
    if (!h) {
      fn(ud, MR_E_NOMEM, NULL, NULL);
      return;
    }
    h->s = s;
    h->w.fn = fn;
    h->w.ud = ud;
    mr_session_ref(s);
    mr_ready_init(&h->ready, on_hit);
    mr_ready_post(d->loop, &h->ready);
    return;
  }
  if (being_deleted(d, ws, id)) {
    struct mr_err err;
    mr_err_set(&err, MR_E_NOTFOUND, NULL, "session " MR_FMT " not found", MR_ARG(id));
    fn(ud, err.code, NULL, &err);
    return;
  }
  while (l && (l->s->ws != ws || !mr_str_is(id, l->s->id)))
    l = l->next;
  if (!l && id.n < MR_ID_LEN) {
    l = load_start(d, ws, id);
    started = l != NULL;
  }
  w = l ? mr_mem_zalloc(d->mem, sizeof *w) : NULL;
  if (!w) {
    struct mr_err err;
    if (id.n < MR_ID_LEN)
      mr_err_nomem(&err);
    else
      mr_err_set(&err, MR_E_NOTFOUND, NULL, "session %.*s... not found", (int)mr_utf8_cut(id, 40), id.p);
    fn(ud, err.code, NULL, &err);
    if (!started) return;
  } else {
    w->fn = fn;
    w->ud = ud;
    *l->waiters_tail = w;
    l->waiters_tail = &w->next;
  }
  if (started) mr_read_session(d->store, ws, mr_str_c(l->s->id), on_row, l);
}

int mr_sessions_init(struct mr_domain *d, struct mr_err *err)
{
  d->sessions = mr_mem_zalloc(d->mem, sizeof *d->sessions);
  if (!d->sessions) return mr_err_nomem(err);
  d->sessions->d = d;
  d->sessions->lru.lru_next = d->sessions->lru.lru_prev = &d->sessions->lru;
  mr_timer_init(&d->sessions->sweep, sweep);
  return MR_OK;
}

void mr_sessions_free(struct mr_domain *d)
{
  struct mr_sessions *t = d->sessions;
  if (!t) return;
  while (t->loads)
    load_drop(t->loads);
  mr_session_each(d, session_free);
  mr_timer_cancel(d->loop, &t->sweep);
  mr_mem_free(d->mem, t);
  d->sessions = NULL;
}
