/*
 * work.c - the items of the work queue that are live: their tables, how they begin, stop, and are read again; see
 * work_t.h, and work_doc.c for what is written. Also their bearers: a session token names its item ("sk-ant-req-" + the id's end + "_" + 43 random characters), of which the
 * item keeps the hash, and those of earlier polls, who are told that they lost it.
 */
#include "agent/work_t.h"

#include <stdio.h>
#include <stdlib.h>

enum { LOAD_PAGE = 500, OLD_MAX = 2000 };
static const int64_t OLD_US = 600000000;
static const char token_prefix[] = "sk-ant-req-";

/* ---- tables ---- */

static uint32_t bucket(int64_t ws, struct mr_str id)
{
  uint32_t h = 2166136261u ^ (uint32_t)ws;
  for (size_t i = 0; i < id.n; i++)
    h = (h ^ (unsigned char)id.p[i]) * 16777619u;
  return h % MR_WORK_BUCKETS;
}

static const char *key_of(const struct mr_work *w, int table)
{
  return table == MR_WORK_BY_ID ? w->id : w->session_id;
}

static void hash_add(struct mr_domain *d, struct mr_work *w, int table)
{
  struct mr_work **at = &d->works->table[table][bucket(w->ws, mr_str_c(key_of(w, table)))];
  w->hash[table] = *at;
  *at = w;
}

static void hash_del(struct mr_domain *d, struct mr_work *w, int table)
{
  struct mr_work **at = &d->works->table[table][bucket(w->ws, mr_str_c(key_of(w, table)))];
  while (*at && *at != w)
    at = &(*at)->hash[table];
  if (*at) *at = w->hash[table];
}

static struct mr_work *look(struct mr_domain *d, int table, int64_t ws, struct mr_str id)
{
  struct mr_work *w = d->works->table[table][bucket(ws, id)];
  while (w && (w->ws != ws || !mr_str_is(id, key_of(w, table))))
    w = w->hash[table];
  return w;
}

struct mr_work *mr_work_find(struct mr_domain *d, int64_t ws, struct mr_str id)
{
  return look(d, MR_WORK_BY_ID, ws, id);
}

struct mr_work *mr_work_of_session(struct mr_domain *d, int64_t ws, struct mr_str session_id)
{
  return look(d, MR_WORK_BY_SESSION, ws, session_id);
}

struct mr_work_env *mr_work_env(struct mr_domain *d, int64_t ws, struct mr_str id)
{
  struct mr_work_env *e = d->works->envs;

  while (e && (e->ws != ws || !mr_str_is(id, e->id)))
    e = e->next;
  if (e || id.n >= MR_ID_LEN) return e;
  e = mr_mem_zalloc(d->mem, sizeof *e);
  if (!e) return NULL;
  e->d = d;
  e->ws = ws;
  snprintf(e->id, sizeof e->id, MR_FMT, MR_ARG(id));
  e->last = &e->first;
  e->polls_tail = &e->polls;
  e->next = d->works->envs;
  d->works->envs = e;
  return e;
}

/* A live one, to the end of its environment's line. */
static int add_live(struct mr_domain *d, struct mr_work *w)
{
  w->env = mr_work_env(d, w->ws, mr_str_c(w->environment_id));
  if (!w->env) return MR_E_NOMEM;
  w->next = NULL;
  w->link = w->env->last;
  *w->env->last = w;
  w->env->last = &w->next;
  hash_add(d, w, MR_WORK_BY_SESSION);
  return MR_OK;
}

static void del_live(struct mr_domain *d, struct mr_work *w)
{
  if (!w->link) return;
  *w->link = w->next;
  if (w->next)
    w->next->link = w->link;
  else
    w->env->last = w->link;
  w->link = NULL;
  hash_del(d, w, MR_WORK_BY_SESSION);
}

static void work_free(struct mr_domain *d, struct mr_work *w)
{
  del_live(d, w);
  hash_del(d, w, MR_WORK_BY_ID);
  mr_work_clear(d, w);
  mr_mem_free(d->mem, w);
}

/* Of those that stopped, the ones that stopped long ago. */
static void forget_old(struct mr_domain *d)
{
  struct mr_works *t = d->works;
  int64_t now = mr_loop_wall_us(d->loop);

  while (t->old && t->old->commits == 0 && !t->old->reading &&
         (t->nold > OLD_MAX || t->old->stopped_us + OLD_US < now)) {
    struct mr_work *w = t->old;
    t->old = w->old_next;
    if (!t->old) t->old_tail = &t->old;
    t->nold--;
    work_free(d, w);
  }
}

/* It has stopped: not live any more, but its bearer is still told so. */
static void retire(struct mr_domain *d, struct mr_work *w)
{
  del_live(d, w);
  w->old_next = NULL;
  *d->works->old_tail = w;
  d->works->old_tail = &w->old_next;
  d->works->nold++;
  forget_old(d);
}

static void unretire(struct mr_domain *d, struct mr_work *w)
{
  struct mr_works *t = d->works;
  struct mr_work **at = &t->old;

  while (*at && *at != w)
    at = &(*at)->old_next;
  if (!*at) return;
  *at = w->old_next;
  if (!w->old_next) t->old_tail = at;
  t->nold--;
}

void mr_work_drop_env(struct mr_domain *d, struct mr_work_env *e)
{
  for (struct mr_work *w = e->first, *next; w; w = next) {
    next = w->next;
    if (w->commits == 0 && !w->reading) work_free(d, w);
  }
  e->known = false; /* asked again whether it is there */
}

/* ---- changing ---- */

static void on_reread(void *ud, const struct mr_rows *r)
{
  struct mr_work *w = ud;
  struct mr_domain *d = w->env->d;

  w->reading = false;
  if (r->code != MR_OK || mr_work_read(d, w, w->ws, &r->docs[0]) != MR_OK)
    return; /* looked at again when wanted */
  w->lost = false;
  if (w->state == MR_WORK_STOPPED) {
    if (w->link) retire(d, w);
    return;
  }
  if (!w->link) { /* that it stopped was not kept */
    unretire(d, w);
    if (add_live(d, w) != MR_OK) return;
  }
  mr_work_offer(d, w->env);
}

void mr_work_reread(struct mr_domain *d, struct mr_work *w)
{
  if (w->reading || w->commits > 0 || d->cut) return;
  w->reading = true;
  mr_read_doc(d->store, w->ws, MR_S("work"), mr_str_c(w->id), on_reread, w);
}

void mr_work_over(struct mr_domain *d, struct mr_work *w, int code)
{
  w->commits--;
  if (code != MR_OK) {
    w->lost = true;
    if (w->commits > 0) return; /* they were built on this one: they fail, too */
    if (w->fresh) {
      if (!w->link) unretire(d, w); /* it was stopped meanwhile */
      work_free(d, w);
      return;
    }
    mr_work_reread(d, w);
    return;
  }
  if (w->fresh) {
    w->fresh = false;
    if (w->link) mr_work_offer(d, w->env);
  }
  if (w->lost && w->commits == 0) mr_work_reread(d, w);
}

struct mr_work *mr_work_new(struct mr_domain *d, struct mr_commit *cm, int64_t ws, struct mr_str environment_id,
                            struct mr_str session_id)
{
  struct mr_work *w = mr_mem_zalloc(d->mem, sizeof *w);
  char id[MR_ID_MAX];

  if (!w || mr_id_make(d->sys, id, "work") != MR_OK) {
    mr_mem_free(d->mem, w);
    return NULL;
  }
  w->ws = ws;
  w->ttl_s = d->lease_s;
  w->fresh = true;
  w->created_us = mr_loop_wall_us(d->loop);
  snprintf(w->id, sizeof w->id, "%s", id);
  snprintf(w->environment_id, sizeof w->environment_id, MR_FMT, MR_ARG(environment_id));
  snprintf(w->session_id, sizeof w->session_id, MR_FMT, MR_ARG(session_id));
  hash_add(d, w, MR_WORK_BY_ID);
  if (add_live(d, w) != MR_OK) {
    work_free(d, w);
    return NULL;
  }
  mr_work_put(d, w, cm);
  return w;
}

void mr_work_stop(struct mr_domain *d, struct mr_work *w, struct mr_commit *cm, struct mr_works_in *in)
{
  struct mr_work *next;

  w->state = MR_WORK_STOPPED;
  w->stopped_us = mr_loop_wall_us(d->loop);
  w->lease_us = 0;
  mr_work_put(d, w, cm);
  in->v[in->n++] = w;
  if (w->link) retire(d, w);
  if (!w->again) return;
  next = mr_work_new(d, cm, w->ws, mr_str_c(w->environment_id), mr_str_c(w->session_id));
  if (next) in->v[in->n++] = next;
}

/* ---- bearers ---- */

struct mr_str mr_work_token(struct mr_domain *d, struct mr_work *w, struct mr_arena *a)
{
  char end[MR_SECRET_CHARS + 1], *text;

  if (mr_secret_make(d->sys, end) != MR_OK) return mr_str_n(NULL, 0);
  text = mr_arena_printf(a, "%s%s_%s", token_prefix, w->id + strlen("work_"), end);
  if (!text) return mr_str_n(NULL, 0);
  if (w->token[0]) {
    memmove(w->past[1], w->past[0], sizeof w->past - sizeof w->past[0]);
    memcpy(w->past[0], w->token, sizeof w->token);
  }
  mr_sha256_hex(mr_str_c(text), w->token);
  return mr_str_c(text);
}

struct mr_work *mr_work_of_token(struct mr_domain *d, int64_t ws, struct mr_str token, bool *past)
{
  struct mr_str rest = token, name;
  struct mr_work *w;
  char id[MR_ID_LEN], hash[65];

  *past = false;
  if (!mr_str_starts(token, mr_str_c(token_prefix))) return NULL;
  rest.p += strlen(token_prefix);
  rest.n -= strlen(token_prefix);
  name = mr_str_split(&rest, '_');
  if (name.n + strlen("work_") >= sizeof id) return NULL;
  snprintf(id, sizeof id, "work_" MR_FMT, MR_ARG(name));
  w = mr_work_find(d, ws, mr_str_c(id));
  if (!w) return NULL;
  mr_sha256_hex(token, hash);
  if (w->token[0] && mr_str_eq_secret(mr_str_c(hash), mr_str_c(w->token))) return w;
  *past = true;
  for (int i = 0; i < MR_WORK_PAST && w->past[i][0]; i++)
    if (mr_str_eq_secret(mr_str_c(hash), mr_str_c(w->past[i]))) return w;
  return NULL;
}

void mr_work_token_over(struct mr_domain *d, const struct mr_work *w)
{
  struct mr_session *s = mr_session_loaded(d, w->ws, mr_str_c(w->session_id));

  if (!s) return;
  mr_session_ref(s);
  for (struct mr_thread *th = &s->main; th; th = th->next)
    mr_stream_end_key(th, mr_str_c(w->id));
  mr_session_unref(s);
}

/* ---- start and end ---- */

struct load {
  struct mr_domain *d;
  void (*fn)(void *ud, int code);
  void *ud;
  struct mr_arena *arena;
  struct mr_str after;
  bool more;
  struct mr_work **v;
  size_t n, cap;
};

static int older(const void *a, const void *b)
{
  const struct mr_work *x = *(struct mr_work *const *)a, *y = *(struct mr_work *const *)b;
  return x->created_us < y->created_us ? -1 : x->created_us > y->created_us ? 1 : strcmp(x->id, y->id);
}

static void load_end(struct load *l, int code)
{
  struct mr_domain *d = l->d;

  if (code != MR_OK) mr_log(d->sys, MR_LOG_ERROR, "work", "the work queue could not be read");
  if (l->n) qsort(l->v, l->n, sizeof *l->v, older);
  for (size_t i = 0; i < l->n; i++) {
    hash_add(d, l->v[i], MR_WORK_BY_ID);
    if (add_live(d, l->v[i]) != MR_OK) code = MR_E_NOMEM;
  }
  d->works->loaded = code == MR_OK;
  l->fn(l->ud, code);
  mr_arena_free(&l->arena);
  mr_mem_free(d->mem, l->v);
  mr_mem_free(d->mem, l);
}

static void load_page(struct load *l);

static int load_one(struct load *l, const struct mr_doc_row *row)
{
  struct mr_domain *d = l->d;
  struct mr_work *w;

  if (l->n == l->cap) {
    size_t cap = l->cap ? l->cap * 2 : 64;
    struct mr_work **v = mr_mem_realloc(d->mem, l->v, cap * sizeof *v);
    if (!v) return MR_E_NOMEM;
    l->v = v;
    l->cap = cap;
  }
  w = mr_mem_zalloc(d->mem, sizeof *w);
  if (!w) return MR_E_NOMEM;
  l->v[l->n++] = w;
  return mr_work_read(d, w, d->default_ws, row);
}

static void on_docs(void *ud, const struct mr_rows *r)
{
  struct load *l = ud;
  int code = r->code;

  for (int i = 0; code == MR_OK && i < r->n; i++)
    code = load_one(l, &r->docs[i]);
  if (code == MR_OK && l->more)
    load_page(l);
  else
    load_end(l, code);
}

static void on_names(void *ud, const struct mr_rows *r)
{
  struct load *l = ud;
  struct mr_doc_query q = {.kind = MR_S("work"), .ascending = true, .limit = LOAD_PAGE};
  struct mr_str *ids = mr_arena_alloc(l->arena, (size_t)(r->n + 1) * sizeof *ids);

  if (r->code != MR_OK || !ids || r->n == 0) {
    load_end(l, r->code != MR_OK ? r->code : ids ? MR_OK : MR_E_NOMEM);
    return;
  }
  for (int i = 0; i < r->n; i++)
    ids[q.nids++] = mr_arena_str(l->arena, r->kv[i].key);
  l->after = ids[r->n - 1];
  l->more = r->more;
  q.ids = ids;
  mr_read_docs(l->d->store, l->d->default_ws, &q, on_docs, l);
}

static void load_page(struct load *l)
{
  mr_read_kvs(l->d->store, l->d->default_ws, MR_S("moonrig.work"), MR_S(""), l->after, LOAD_PAGE, on_names, l);
}

void mr_works_load(struct mr_domain *d, void (*fn)(void *ud, int code), void *ud)
{
  struct load *l = mr_mem_zalloc(d->mem, sizeof *l);

  if (!l || !(l->arena = mr_arena_new(d->mem, 4096))) {
    mr_mem_free(d->mem, l);
    fn(ud, MR_E_NOMEM);
    return;
  }
  l->d = d;
  l->fn = fn;
  l->ud = ud;
  l->after = MR_S("");
  load_page(l);
}

bool mr_works_loaded(const struct mr_domain *d)
{
  return d->works->loaded;
}

int mr_works_init(struct mr_domain *d, struct mr_err *err)
{
  d->works = mr_mem_zalloc(d->mem, sizeof *d->works);
  if (!d->works) return mr_err_nomem(err);
  d->works->old_tail = &d->works->old;
  return MR_OK;
}

void mr_works_drain(struct mr_domain *d)
{
  for (struct mr_work_env *e = d->works->envs; e; e = e->next)
    mr_work_polls_end(d, e);
}

void mr_works_free(struct mr_domain *d)
{
  struct mr_works *t = d->works;

  if (!t) return;
  for (int i = 0; i < MR_WORK_BUCKETS; i++)
    while (t->table[MR_WORK_BY_ID][i])
      work_free(d, t->table[MR_WORK_BY_ID][i]);
  for (struct mr_work_env *e = t->envs, *next; e; e = next) {
    next = e->next;
    mr_work_env_free(d, e);
  }
  mr_mem_free(d->mem, t);
  d->works = NULL;
}
