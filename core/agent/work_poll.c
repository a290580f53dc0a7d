/*
 * work_poll.c - giving items to workers (API: resources §8.4, §8.6): poll, at once or waiting up to a second, and what
 * the queue holds. Items go out in the order in which they were made. One that was given out and not acknowledged
 * goes out again after a time that the poll says; so does one whose worker lets its lease end. Who polled lately is
 * known in memory alone.
 *
 * Invariant: an item is given to one poll: it is claimed in memory first, and its commit, against the revision that
 * was read, is over before the answer goes out.
 */
#include "agent/work_t.h"

#include <stdio.h>

enum { SEEN_MAX = 1024 };
static const int64_t SEEN_US = 30000000;

struct mr_work_seen {
  char hash[65];
  int64_t at_us;
};

struct mr_work_poll {
  struct mr_work_op *op;
  struct mr_work_poll *next, **link;
  struct mr_timer timer;
  int64_t reclaim_us;
};

static bool claimable(const struct mr_work *w, int64_t now_us, int64_t reclaim_us)
{
  if (w->fresh || w->lost || mr_work_shows(w, now_us) != MR_WORK_QUEUED) return false;
  return w->state != MR_WORK_QUEUED || !w->claimed_us || w->claimed_us + reclaim_us <= now_us ||
         w->claimed_us > now_us; /* the wall clock went back */
}

/* The answer of a poll: the only one that holds the secret. */
static void give(struct mr_work_op *op, struct mr_work *w)
{
  struct mr_call *c = op->c;
  struct mr_commit *cm = mr_commit_new(c->d->store, &c->who);
  struct mr_str token = cm ? mr_work_token(c->d, w, c->arena) : mr_str_n(NULL, 0);
  char json[256], secret[400];
  size_t n;

  if (!token.p) {
    mr_commit_drop(&cm);
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  snprintf(json, sizeof json, "{\"sessions_token\":\"" MR_FMT "\"}", MR_ARG(token));
  secret[0] = '"';
  n = 1 + mr_base64_encode(mr_str_c(json), secret + 1);
  for (size_t i = 1; i < n; i++) /* the URL's alphabet, without padding */
    secret[i] = (char)(secret[i] == '+' ? '-' : secret[i] == '/' ? '_' : secret[i]);
  while (secret[n - 1] == '=')
    n--;
  snprintf(secret + n, sizeof secret - n, "\"");
  w->state = MR_WORK_QUEUED;
  w->claimed_us = mr_loop_wall_us(c->d->loop);
  w->acked_us = w->started_us = w->beat_us = w->lease_us = 0;
  mr_work_put(c->d, w, cm);
  mr_work_wire(c->d, w, secret, &c->out);
  op->in.v[op->in.n++] = w;
  mr_work_token_over(c->d, w);
  mr_work_op_commit(op, &cm, "work.claim");
}

static bool give_any(struct mr_work_op *op, int64_t reclaim_us)
{
  struct mr_domain *d = op->c->d;
  int64_t now = mr_loop_wall_us(d->loop);

  for (struct mr_work *w = op->env->first; w; w = w->next) {
    if (w->lost) mr_work_reread(d, w);
    if (!claimable(w, now, reclaim_us)) continue;
    give(op, w);
    return true;
  }
  return false;
}

static void nothing(struct mr_work_op *op)
{
  mr_buf_c(&op->c->out, "null");
  mr_call_done(op->c, MR_OK);
}

/* ---- waiting ---- */

static struct mr_work_op *unwait(struct mr_work_poll *p)
{
  struct mr_work_op *op = p->op;

  *p->link = p->next;
  if (p->next)
    p->next->link = p->link;
  else
    op->env->polls_tail = p->link;
  mr_timer_cancel(op->c->d->loop, &p->timer);
  op->c->cancel = NULL;
  return op;
}

static void on_time(struct mr_timer *t)
{
  struct mr_work_poll *p = MR_OF(t, struct mr_work_poll, timer);
  int64_t reclaim = p->reclaim_us;
  struct mr_work_op *op = unwait(p);

  if (!give_any(op, reclaim)) nothing(op);
}

static void on_cancel(struct mr_call *c)
{
  struct mr_work_op *op = unwait(c->priv);
  mr_call_fail(op->c, MR_E_CANCELLED, NULL, "cancelled while waiting for work");
}

void mr_work_offer(struct mr_domain *d, struct mr_work_env *e)
{
  struct mr_work_poll *p = e->polls, *next;

  if (d->draining) return;
  for (; p; p = next) {
    int64_t now = mr_loop_wall_us(d->loop);
    struct mr_work *w = e->first;
    next = p->next;
    while (w && !claimable(w, now, p->reclaim_us))
      w = w->next;
    if (w) give(unwait(p), w);
  }
}

void mr_work_polls_end(struct mr_domain *d, struct mr_work_env *e)
{
  (void)d;
  while (e->polls)
    nothing(unwait(e->polls));
}

void mr_work_env_free(struct mr_domain *d, struct mr_work_env *e)
{
  for (struct mr_work_poll *p = e->polls; p; p = p->next) /* whose calls will not be answered any more */
    mr_timer_cancel(d->loop, &p->timer);
  mr_mem_free(d->mem, e->seen);
  mr_mem_free(d->mem, e);
}

/* ---- who polls ---- */

static void saw(struct mr_domain *d, struct mr_work_env *e, struct mr_str worker)
{
  int64_t now = mr_loop_now_us(d->loop);
  struct mr_work_seen *oldest = NULL;
  char hash[65];

  if (!worker.n) return;
  if (!e->seen) e->seen = mr_mem_zalloc(d->mem, SEEN_MAX * sizeof *e->seen);
  if (!e->seen) return;
  mr_sha256_hex(worker, hash);
  for (int i = 0; i < e->nseen; i++) {
    if (strcmp(e->seen[i].hash, hash) == 0) {
      e->seen[i].at_us = now;
      return;
    }
    if (!oldest || e->seen[i].at_us < oldest->at_us) oldest = &e->seen[i];
  }
  if (e->nseen < SEEN_MAX) oldest = &e->seen[e->nseen++];
  memcpy(oldest->hash, hash, sizeof hash);
  oldest->at_us = now;
}

/* ---- operations ---- */

static void poll(struct mr_work_op *op)
{
  struct mr_call *c = op->c;
  int64_t block_us = mr_json_get_int(c->in, "block_ms", 0) * 1000;
  int64_t reclaim_us =
      mr_json_get_int(c->in, "reclaim_older_than_ms", MR_WORK_RECLAIM_US / 1000) * INT64_C(1000);
  struct mr_work_poll *p;

  saw(c->d, op->env, mr_json_get_str(c->in, "worker_id"));
  if (c->d->draining) {
    nothing(op);
    return;
  }
  if (give_any(op, reclaim_us)) return;
  p = block_us ? mr_arena_alloc(c->arena, sizeof *p) : NULL;
  if (!p) {
    nothing(op);
    return;
  }
  *p = (struct mr_work_poll){.op = op, .link = op->env->polls_tail, .reclaim_us = reclaim_us};
  *op->env->polls_tail = p;
  op->env->polls_tail = &p->next;
  mr_timer_init(&p->timer, on_time);
  mr_timer_set(c->d->loop, &p->timer, block_us);
  c->priv = p;
  c->cancel = on_cancel;
}

void mr_environments_work_poll(struct mr_call *c)
{
  mr_work_op_begin(c, poll);
}

static void stats(struct mr_work_op *op)
{
  struct mr_call *c = op->c;
  int64_t now = mr_loop_wall_us(c->d->loop), oldest = 0, depth = 0, pending = 0, polling = 0;
  struct mr_jw w;

  for (const struct mr_work *x = op->env->first; x; x = x->next) {
    if (x->fresh || mr_work_shows(x, now) != MR_WORK_QUEUED) continue;
    if (x->state == MR_WORK_QUEUED && x->claimed_us)
      pending++;
    else
      depth++;
    if (!oldest || x->created_us < oldest) oldest = x->created_us;
  }
  for (int i = 0; i < op->env->nseen; i++)
    polling += op->env->seen[i].at_us + SEEN_US > mr_loop_now_us(c->d->loop);
  mr_jw_init(&w, &c->out);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "work_queue_stats");
  mr_jw_kint(&w, "depth", depth);
  mr_jw_kint(&w, "pending", pending);
  mr_jw_ktime(&w, "oldest_queued_at", oldest ? oldest : -1);
  mr_jw_key(&w, "workers_polling");
  if (op->env->nseen)
    mr_jw_int(&w, polling);
  else
    mr_jw_null(&w);
  mr_jw_obj_end(&w);
  mr_call_done(c, MR_OK);
}

void mr_environments_work_stats(struct mr_call *c)
{
  mr_work_op_begin(c, stats);
}
