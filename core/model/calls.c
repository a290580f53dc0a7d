/*
 * calls - a model call on its way: waits for a place at its provider, asks it, and, when that fails before any output
 * was given out, the next candidate. To its caller it is one call with one done.
 *
 * A candidate is given up when it was overloaded, limited, not reachable or broke down (what a later try may heal);
 * a refused request is refused for good, and output that was seen cannot be taken back. Retries in time are not made
 * here: the turn above decides them.
 * Invariant: done once, last, never inside mr_models_start. A cancelled call calls nothing but done. Loop thread.
 */
#include "model/models_t.h"

#include <stdio.h>

struct routed {
  struct mr_model_call call; /* first */
  struct mr_tries tries;
  struct mr_arena *arena;
  const struct mr_mem *mem;
  struct mr_loop *loop;
  struct mr_model_cbs cbs;
  void *ud;
  struct mr_model_req req;
  struct mr_model_call *inner; /* running, or NULL */
  struct mr_ready ready;       /* over without a provider: done comes from the drain */
  enum mr_model_status status; /* of that */
  bool output, cancelled;
  char before[300]; /* what the candidates before the last said */
};

static const struct mr_provider_vtable routed_vtable;

static void routed_free(struct routed *r)
{
  const struct mr_mem *mem = r->mem;
  mr_ready_cancel(r->loop, &r->ready);
  mr_tries_free(&r->tries);
  mr_arena_free(&r->arena);
  mr_mem_free(mem, r);
}

static void deliver(struct routed *r, const struct mr_model_reply *m)
{
  struct mr_model_reply reply = *m;
  char text[900];

  if (r->before[0] && m->status != MR_MODEL_OK) {
    snprintf(text, sizeof text, MR_FMT " (before it: %s)", MR_ARG(m->message), r->before);
    reply.message = mr_str_n(text, mr_utf8_whole(mr_str_c(text)));
  }
  r->cbs.done(r->ud, &reply);
  routed_free(r);
}

static void on_ready(struct mr_ready *ready)
{
  struct routed *r = MR_OF(ready, struct routed, ready);
  struct mr_model_reply m = {.status = r->cancelled ? MR_MODEL_CANCELLED : r->status};

  m.message = r->cancelled ? MR_S("cancelled") : mr_str_c(r->tries.why);
  if (!r->cancelled) m.retry_after_ms = r->tries.retry_after_ms;
  deliver(r, &m);
}

/* ---- between provider and caller ---- */

static void on_block(void *ud, int index, struct mr_str kind)
{
  struct routed *r = ud;
  r->output = true;
  if (r->cbs.block) r->cbs.block(r->ud, index, kind);
}

static void on_text(void *ud, int index, struct mr_str delta)
{
  struct routed *r = ud;
  r->output = true;
  if (r->cbs.text) r->cbs.text(r->ud, index, delta);
}

static int go_on(struct routed *r, struct mr_err *err);

static void over(struct routed *r, enum mr_model_status st)
{
  r->status = st;
  mr_ready_post(r->loop, &r->ready);
}

static void on_done(void *ud, const struct mr_model_reply *m)
{
  struct routed *r = ud;
  struct mr_try *t = &r->tries.t[r->tries.at];
  struct mr_model_reply reply = *m;
  struct mr_err err = {0};
  int code;

  r->inner = NULL;
  if (m->status == MR_MODEL_RATE_LIMITED && m->retry_after_ms > 0)
    mr_gate_pause(&t->e->gate, m->retry_after_ms);
  mr_tries_leave(&r->tries,
                 m->usage.input + m->usage.output + m->usage.cache_write_5m + m->usage.cache_write_1h);
  if (mr_model_transient(m->status) && !r->output && !r->cancelled && mr_tries_next(&r->tries)) {
    mr_log(mr_loop_sys(r->loop), MR_LOG_WARN, "model", MR_FMT "; asking %s", MR_ARG(m->message),
           r->tries.t[r->tries.at].e->name);
    if (!r->before[0]) snprintf(r->before, sizeof r->before, "%.280s", m->message.p ? m->message.p : "");
    r->before[mr_utf8_whole(mr_str_c(r->before))] = '\0';
    code = go_on(r, &err);
    if (code == MR_OK) return;
    if (code != MR_E_LIMIT) snprintf(r->tries.why, sizeof r->tries.why, "%.250s", err.message);
    over(r, code == MR_E_LIMIT ? MR_MODEL_RATE_LIMITED : MR_MODEL_FAILED);
    return;
  }
  reply.provider = mr_str_c(t->e->name);
  reply.model = t->id;
  deliver(r, &reply);
}

/* ---- starting ---- */

/* Inside the gate of the candidate at hand: asks it. MR_OK, or the last candidate's refusal to start. */
static int begin(struct routed *r, struct mr_err *err)
{
  static const struct mr_model_cbs ours = {on_block, on_text, on_done};
  int code;

  for (;;) {
    struct mr_try *t = &r->tries.t[r->tries.at];
    struct mr_model_req there = r->req;
    there.model = t->id;
    code = t->e->v->start(t->e->self, &there, &ours, r, &r->inner, err);
    if (code == MR_OK) return MR_OK;
    r->inner = NULL;
    if (code == MR_E_NOMEM || code == MR_E_INVALID || !mr_tries_next(&r->tries)) break;
    code = mr_tries_enter(&r->tries);
    if (code == MR_MORE) return MR_OK;
    if (code != MR_OK) break;
  }
  mr_tries_leave(&r->tries, 0);
  return code;
}

/* From the candidate at hand on. MR_OK: asked, or in line. */
static int go_on(struct routed *r, struct mr_err *err)
{
  int code = mr_tries_enter(&r->tries);

  if (code == MR_MORE) return MR_OK;
  return code == MR_OK ? begin(r, err) : code;
}

static void on_go(struct mr_tries *t)
{
  struct routed *r = MR_OF(t, struct routed, tries);
  struct mr_err err = {0};
  int code = begin(r, &err);

  if (code == MR_OK) return;
  if (code != MR_E_LIMIT) snprintf(t->why, sizeof t->why, "%.250s", err.message);
  over(r, code == MR_E_LIMIT     ? MR_MODEL_RATE_LIMITED
          : code == MR_E_INVALID ? MR_MODEL_REFUSED_REQUEST
                                 : MR_MODEL_FAILED);
}

static void on_none(struct mr_tries *t)
{
  struct routed *r = MR_OF(t, struct routed, tries);
  bool closing = t->at < t->n && t->t[t->at].e->gone;

  if (!closing) {
    over(r, MR_MODEL_RATE_LIMITED);
    return;
  }
  r->status = MR_MODEL_FAILED; /* the loop may not turn again */
  on_ready(&r->ready);
}

/* The caller's strings that are not promised to last, and the id there, live with the call. */
static int keep(struct routed *r, const struct mr_model_req *req)
{
  r->req = *req;
  r->req.effort = mr_arena_str(r->arena, req->effort);
  r->req.speed = mr_arena_str(r->arena, req->speed);
  r->req.session_id = mr_arena_str(r->arena, req->session_id);
  r->req.request_id = mr_arena_str(r->arena, req->request_id);
  return r->req.effort.p && r->req.speed.p && r->req.session_id.p && r->req.request_id.p ? MR_OK : MR_E_NOMEM;
}

int mr_models_start(struct mr_models *m, const struct mr_model_req *req, const struct mr_model_cbs *cbs,
                    void *ud, struct mr_model_call **out, struct mr_err *err)
{
  const struct mr_mem *mem = &m->sys->mem;
  struct routed *r = mr_mem_zalloc(mem, sizeof *r);
  int code;

  if (!r) return mr_err_nomem(err);
  r->call = (struct mr_model_call){&routed_vtable, NULL};
  r->mem = mem;
  r->loop = m->loop;
  r->cbs = *cbs;
  r->ud = ud;
  r->tries.go = on_go;
  r->tries.none = on_none;
  mr_ready_init(&r->ready, on_ready);
  r->arena = mr_arena_new(mem, 1024);
  code = r->arena && keep(r, req) == MR_OK ? MR_OK : mr_err_nomem(err);
  if (code == MR_OK) code = mr_tries_find(&r->tries, m, req->model, r->arena, err);
  if (code == MR_OK) code = go_on(r, err);
  if (code == MR_E_LIMIT) {
    over(r, MR_MODEL_RATE_LIMITED);
    code = MR_OK;
  }
  if (code == MR_OK)
    *out = &r->call;
  else
    routed_free(r);
  return code;
}

static void cancel(void *self, struct mr_model_call *call)
{
  struct routed *r = (struct routed *)(void *)call;

  (void)self;
  if (r->cancelled) return;
  r->cancelled = true;
  if (r->inner) {
    r->inner->v->cancel(r->inner->self, r->inner);
    return;
  }
  if (r->tries.at < r->tries.n) mr_gate_drop(&r->tries.t[r->tries.at].e->gate, &r->tries.w);
  mr_ready_post(r->loop, &r->ready);
}

static const struct mr_provider_vtable routed_vtable = {"router", NULL, cancel, NULL};

void mr_models_cancel(struct mr_model_call *c)
{
  if (c) c->v->cancel(c->self, c);
}
