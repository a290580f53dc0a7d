/*
 * tries - from a model's name to those who can serve it, in order, and the wait for a place with one of them.
 *
 * Order: a provider of the host, newest first; else the configured route, an exact id before the longest prefix;
 * else what is usual for the name (claude-* at anthropic, gpt-* and o1... at openai, scripted*). After it the
 * route's other targets, then those of models.fallback. While a provider has to pause, the next candidate is asked
 * instead, if there is one; the last one is waited for.
 * Loop thread; go and none come from the drain, never inside mr_tries_enter.
 */
#include "model/models_t.h"

#include <stdio.h>

static bool listed(const char *patterns, struct mr_str model)
{
  struct mr_str rest = mr_str_c(patterns);
  while (rest.n)
    if (mr_model_fit(mr_str_trim(mr_str_split(&rest, ',')), model) >= 0) return true;
  return false;
}

static int unserved(struct mr_str model, struct mr_err *err)
{
  const char *p = mr_model_usual(model);
  if (p && strcmp(p, "anthropic") == 0)
    return mr_err_set(err, MR_E_INVALID, "model",
                      "model: no provider for " MR_FMT
                      ". Set MOONRIG_ANTHROPIC_API_KEY (or ANTHROPIC_API_KEY), or "
                      "models.anthropic.api_key or base_url in the configuration",
                      MR_ARG(model));
  if (p && strcmp(p, "openai") == 0)
    return mr_err_set(err, MR_E_INVALID, "model",
                      "model: no provider for " MR_FMT ". Set MOONRIG_OPENAI_API_KEY (or OPENAI_API_KEY), or "
                      "models.openai.base_url in the configuration",
                      MR_ARG(model));
  if (p)
    return mr_err_set(err, MR_E_INVALID, "model",
                      "model: no provider for " MR_FMT ". Set models.scripted.file in the configuration",
                      MR_ARG(model));
  return mr_err_set(err, MR_E_INVALID, "model",
                    "model: no provider for " MR_FMT
                    ". Name one in the configuration: \"models\":{\"route\":{\"" MR_FMT
                    "\":\"anthropic\" | \"openai\" | \"scripted\"}}",
                    MR_ARG(model), MR_ARG(model));
}

/* Adds a candidate, once; without an arena only the pointer of its id is kept. */
static int add(struct mr_tries *t, struct mr_model_entry *e, struct mr_str id, struct mr_arena *a,
               struct mr_err *err)
{
  for (int i = 0; i < t->n; i++)
    if (t->t[i].e == e && mr_str_eq(t->t[i].id, id)) return MR_OK;
  if (a) id = mr_arena_str(a, id);
  if (!id.p) return mr_err_nomem(err);
  t->t[t->n++] = (struct mr_try){e, id};
  e->users++;
  return MR_OK;
}

/* What a route names; the first that cannot be used is noted in err when nothing was found yet. */
static int add_route(struct mr_tries *t, const struct mr_model_route *r, struct mr_str model,
                     struct mr_arena *a, struct mr_err *err)
{
  int code = MR_OK;

  for (int i = 0; r && i < r->n && code == MR_OK; i++) {
    struct mr_model_entry *e = mr_model_entry_find(t->m, r->to[i].provider);
    if (e && !e->refusal.code)
      code = add(t, e, r->to[i].id.n ? r->to[i].id : model, a, err);
    else if (t->n == 0 && i == 0 && e)
      mr_err_set(err, MR_E_INVALID, "model", "model: " MR_FMT " is not available: %s", MR_ARG(model),
                 e->refusal.message);
    else if (t->n == 0 && i == 0)
      mr_err_set(err, MR_E_INVALID, "model",
                 "model: " MR_FMT " is routed to the provider " MR_FMT ", which is not configured",
                 MR_ARG(model), MR_ARG(r->to[i].provider));
  }
  return code;
}

int mr_tries_find(struct mr_tries *t, struct mr_models *m, struct mr_str model, struct mr_arena *a,
                  struct mr_err *err)
{
  const struct mr_model_route *route = mr_model_route_find(&m->routes, model);
  const char *usual = mr_model_usual(model);
  struct mr_err why = {0};
  struct mr_model_entry *e = NULL;
  int code = MR_OK;

  t->m = m;
  for (struct mr_model_entry *h = m->host; h && !e; h = h->next)
    if (listed(h->patterns, model)) e = h;
  if (e) {
    code = add(t, e, model, a, &why);
  } else if (route) {
    code = add_route(t, route, model, a, &why);
  } else if (usual) {
    struct mr_model_route r = {.to = {{mr_str_c(usual), {0}}}, .n = 1};
    for (e = m->own; e && !mr_str_is(r.to[0].provider, e->name);)
      e = e->next;
    if (e) code = add_route(t, &r, model, a, &why);
  }
  if (code == MR_OK) code = add_route(t, mr_model_route_find(&m->falls, model), model, a, &why);
  if (code == MR_OK && t->n == 0) code = why.code ? why.code : unserved(model, &why);
  if (code != MR_OK) mr_err_copy(err, &why);
  return code;
}

bool mr_model_transient(enum mr_model_status st)
{
  return st == MR_MODEL_OVERLOADED || st == MR_MODEL_RATE_LIMITED || st == MR_MODEL_FAILED;
}

static void on_gate(struct mr_waiter *w, int code)
{
  struct mr_tries *t = MR_OF(w, struct mr_tries, w);
  struct mr_model_entry *e = t->t[t->at].e;

  if (code == MR_OK) {
    t->inside = true;
    t->go(t);
    return;
  }
  if (code == MR_E_CLOSED) {
    snprintf(t->why, sizeof t->why, "the runtime is closing");
    t->none(t);
    return;
  }
  snprintf(t->why, sizeof t->why, "%s: the request waited %lld s for its turn (queue_ms)", e->name,
           (long long)(e->gate.l.wait_ms / 1000));
  t->retry_after_ms = mr_gate_paused_ms(&e->gate);
  code = ++t->at < t->n ? mr_tries_enter(t) : MR_E_LIMIT;
  if (code == MR_OK)
    t->go(t);
  else if (code != MR_MORE)
    t->none(t);
}

int mr_tries_enter(struct mr_tries *t)
{
  t->w.go = on_gate;
  for (; t->at < t->n; t->at++) {
    struct mr_model_entry *e = t->t[t->at].e;
    int code;
    if (e->gone) continue;
    if (t->at + 1 < t->n && mr_gate_paused_ms(&e->gate) > 0) continue;
    code = mr_gate_enter(&e->gate, &t->w);
    t->inside = code == MR_OK;
    if (code == MR_OK || code == MR_MORE) return code;
    t->retry_after_ms = mr_gate_paused_ms(&e->gate);
    if (code == MR_E_LIMIT)
      snprintf(t->why, sizeof t->why, "%s: its service asked to wait %lld s", e->name,
               (long long)((t->retry_after_ms + 999) / 1000));
    else
      snprintf(t->why, sizeof t->why, "%s: %d requests wait already (queue_max)", e->name, e->gate.waiting);
  }
  if (!t->why[0]) snprintf(t->why, sizeof t->why, "its provider is gone");
  return MR_E_LIMIT;
}

void mr_tries_leave(struct mr_tries *t, int64_t tokens)
{
  if (!t->inside) return;
  t->inside = false;
  mr_gate_leave(&t->t[t->at].e->gate, tokens);
}

bool mr_tries_next(struct mr_tries *t)
{
  mr_tries_leave(t, 0);
  while (t->at + 1 < t->n) {
    if (t->t[++t->at].e->gone) continue; /* of all of them: the router is gone as well */
    t->m->fallbacks++;
    return true;
  }
  return false;
}

void mr_tries_free(struct mr_tries *t)
{
  if (t->n && t->at < t->n) mr_gate_drop(&t->t[t->at].e->gate, &t->w);
  mr_tries_leave(t, 0);
  for (int i = 0; i < t->n; i++)
    mr_model_entry_unuse(t->t[i].e);
  t->n = 0;
}
