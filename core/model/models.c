/*
 * models - the router: which provider answers for a model id.
 *
 * Order: providers of the host, newest first; configured routes, an exact id before the longest prefix;
 * then what is usual for the name (claude-* at anthropic, gpt-* and o1... at openai, scripted*), if that
 * provider is configured. A provider that cannot work as configured (a moonrig key in the upstream's
 * place) does not stop the program: its models answer with the reason, others work.
 * Invariant: a provider lives until it is out of the routes and its last call is done, so removing one,
 * or freeing the router, is safe while calls run. Loop thread.
 */
#include "model/models_t.h"

#include <stdio.h>

static const struct mr_str default_models[] = {
    {"claude-opus-4-7", 15}, {"claude-sonnet-4-6", 17}, {"claude-haiku-4-5", 16}};

/* ---- providers ---- */

static void entry_free(struct mr_model_entry *e)
{
  const struct mr_mem *m = e->mem;
  if (e->v && e->self && e->v->free) e->v->free(e->self);
  mr_mem_free(m, e->patterns);
  mr_mem_free(m, e->name);
  mr_mem_free(m, e);
}

static void entry_drop(struct mr_model_entry *e)
{
  e->gone = true;
  if (e->calls == 0) entry_free(e);
}

static struct mr_model_entry *entry_new(struct mr_models *m, const char *name, const char *patterns,
                                        struct mr_err *err)
{
  const struct mr_mem *mem = &m->sys->mem;
  struct mr_model_entry *e = mr_mem_zalloc(mem, sizeof *e);
  if (!e) goto nomem;
  e->mem = mem;
  e->name = mr_mem_strdup(mem, mr_str_c(name));
  e->patterns = mr_mem_strdup(mem, mr_str_c(patterns ? patterns : ""));
  if (e->name && e->patterns) return e;
  entry_free(e);
nomem:
  mr_err_nomem(err);
  return NULL;
}

/* ---- matching ---- */

/* How well a pattern ("id" or "prefix*") fits: -1 not, exact above any prefix. */
static int fit(struct mr_str pattern, struct mr_str model)
{
  if (pattern.n && pattern.p[pattern.n - 1] == '*') {
    pattern.n--;
    return mr_str_starts(model, pattern) ? (int)pattern.n : -1;
  }
  return pattern.n && mr_str_eq(pattern, model) ? 1 << 20 : -1;
}

static bool listed(const char *patterns, struct mr_str model)
{
  struct mr_str rest = mr_str_c(patterns);
  while (rest.n)
    if (fit(mr_str_trim(mr_str_split(&rest, ',')), model) >= 0) return true;
  return false;
}

static struct mr_model_entry *built_in(struct mr_models *m, struct mr_str name)
{
  for (int i = 0; i < MR_BUILT_IN; i++)
    if (m->own[i] && mr_str_is(name, m->own[i]->name)) return m->own[i];
  return NULL;
}

static struct mr_model_entry *by_name(struct mr_models *m, struct mr_str name)
{
  for (struct mr_model_entry *e = m->host; e; e = e->next)
    if (mr_str_is(name, e->name)) return e;
  return built_in(m, name);
}

static bool openai_name(struct mr_str s)
{
  if (mr_str_starts(s, MR_S("gpt-")) || mr_str_starts(s, MR_S("chatgpt-"))) return true;
  return s.n > 1 && s.p[0] == 'o' && s.p[1] >= '0' && s.p[1] <= '9';
}

static const char *usual(struct mr_str model)
{
  if (mr_str_starts(model, MR_S("claude-"))) return "anthropic";
  if (openai_name(model)) return "openai";
  if (mr_str_starts(model, MR_S("scripted"))) return "scripted";
  return NULL;
}

static int unserved(struct mr_str model, struct mr_err *err)
{
  const char *p = usual(model);
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

/* The entry for a model and the id it has there. */
static int find(struct mr_models *m, struct mr_str model, struct mr_model_entry **e, struct mr_str *id,
                struct mr_err *err)
{
  int best = -1;
  const struct mr_model_route *route = NULL;
  *id = model;
  *e = NULL;
  for (struct mr_model_entry *h = m->host; h && !*e; h = h->next)
    if (listed(h->patterns, model)) *e = h;
  if (*e) return MR_OK;
  for (int i = 0; i < m->nroutes; i++) {
    int f = fit(m->routes[i].pattern, model);
    if (f <= best) continue;
    best = f;
    route = &m->routes[i];
  }
  const char *name = usual(model);
  if (route)
    *e = by_name(m, route->provider);
  else if (name)
    *e = built_in(m, mr_str_c(name));
  if (route && route->id.n) *id = route->id;
  if (*e && (*e)->refusal.code)
    return mr_err_set(err, MR_E_INVALID, "model", "model: " MR_FMT " is not available: %s", MR_ARG(model),
                      (*e)->refusal.message);
  if (*e) return MR_OK;
  if (!route) return unserved(model, err);
  return mr_err_set(err, MR_E_INVALID, "model",
                    "model: " MR_FMT " is routed to the provider " MR_FMT ", which is not configured",
                    MR_ARG(model), MR_ARG(route->provider));
}

int mr_models_check(struct mr_models *m, struct mr_str model, struct mr_err *err)
{
  struct mr_model_entry *e;
  struct mr_str id;
  return find(m, model, &e, &id, err);
}

/* ---- calls ---- */

/* Between provider and caller: counts the provider's calls. */
struct through {
  struct mr_model_entry *e;
  struct mr_model_cbs cbs;
  void *ud;
};

static void on_block(void *ud, int index, struct mr_str kind)
{
  struct through *t = ud;
  if (t->cbs.block) t->cbs.block(t->ud, index, kind);
}

static void on_text(void *ud, int index, struct mr_str delta)
{
  struct through *t = ud;
  if (t->cbs.text) t->cbs.text(t->ud, index, delta);
}

static void on_done(void *ud, const struct mr_model_reply *r)
{
  struct through *t = ud;
  struct mr_model_entry *e = t->e;
  t->cbs.done(t->ud, r);
  mr_mem_free(e->mem, t);
  e->calls--;
  if (e->gone && e->calls == 0) entry_free(e);
}

int mr_models_start(struct mr_models *m, const struct mr_model_req *req, const struct mr_model_cbs *cbs,
                    void *ud, struct mr_model_call **out, struct mr_err *err)
{
  static const struct mr_model_cbs ours = {on_block, on_text, on_done};
  struct mr_model_entry *e;
  struct mr_str id;
  int rc = find(m, req->model, &e, &id, err);
  if (rc != MR_OK) return rc;
  struct through *t = mr_mem_zalloc(e->mem, sizeof *t);
  if (!t) return mr_err_nomem(err);
  *t = (struct through){e, *cbs, ud};
  struct mr_model_req there = *req;
  there.model = id;
  rc = e->v->start(e->self, &there, &ours, t, out, err);
  if (rc != MR_OK)
    mr_mem_free(e->mem, t);
  else
    e->calls++;
  return rc;
}

void mr_models_cancel(struct mr_model_call *c)
{
  if (c) c->v->cancel(c->self, c);
}

/* ---- the list of ids ---- */

static void list_add(struct mr_models *m, struct mr_str id)
{
  if (!id.n || id.p[id.n - 1] == '*' || m->nids == MR_MODEL_IDS) return;
  for (int i = 0; i < m->nids; i++)
    if (mr_str_eq(m->ids[i], id)) return;
  m->ids[m->nids++] = id;
}

static void list_make(struct mr_models *m)
{
  m->nids = 0;
  for (struct mr_model_entry *e = m->host; e; e = e->next) {
    struct mr_str rest = mr_str_c(e->patterns);
    while (rest.n)
      list_add(m, mr_str_trim(mr_str_split(&rest, ',')));
  }
  for (int i = 0; i < m->nroutes; i++)
    list_add(m, m->routes[i].pattern);
  struct mr_model_entry *a = built_in(m, MR_S("anthropic"));
  if (!a || a->refusal.code) return;
  for (size_t i = 0; i < sizeof default_models / sizeof default_models[0]; i++)
    list_add(m, default_models[i]);
}

struct mr_str mr_models_at(struct mr_models *m, int i)
{
  return i >= 0 && i < m->nids ? m->ids[i] : (struct mr_str){0};
}

/* ---- providers of the host ---- */

int mr_models_add(struct mr_models *m, const struct mr_provider_vtable *v, void *self, const char *models,
                  struct mr_err *err)
{
  if (!v || !v->name || !v->name[0] || !models || !models[0])
    return mr_err_set(err, MR_E_INVALID, "models", "a provider needs a name and the models it serves");
  struct mr_model_entry *e = entry_new(m, v->name, models, err);
  if (!e) return MR_E_NOMEM;
  e->v = v;
  e->self = self;
  mr_models_remove(m, v->name);
  e->next = m->host;
  m->host = e;
  list_make(m);
  return MR_OK;
}

int mr_models_remove(struct mr_models *m, const char *name)
{
  for (struct mr_model_entry **at = &m->host; *at; at = &(*at)->next) {
    struct mr_model_entry *e = *at;
    if (strcmp(e->name, name) != 0) continue;
    *at = e->next;
    entry_drop(e);
    list_make(m);
    return MR_OK;
  }
  return MR_E_NOTFOUND;
}

/* ---- making ---- */

typedef int (*maker)(void **self, const struct mr_provider_opts *o, struct mr_err *err);

static int own_add(struct mr_models *m, int i, const struct mr_provider_vtable *v, maker make,
                   const struct mr_provider_opts *o, struct mr_err *err)
{
  struct mr_model_entry *e = entry_new(m, v->name, NULL, err);
  if (!e) return MR_E_NOMEM;
  e->refusal.size = sizeof e->refusal;
  int rc = make(&e->self, o, &e->refusal);
  if (rc == MR_OK)
    e->v = v;
  else
    mr_log(m->sys, MR_LOG_WARN, "model", "%s: %s", v->name, e->refusal.message);
  m->own[i] = e;
  return rc == MR_E_NOMEM ? mr_err_nomem(err) : MR_OK;
}

static struct mr_str first_of(struct mr_str a, const char *b)
{
  return a.n ? a : mr_str_c(b);
}

static int own_make(struct mr_models *m, yyjson_val *cfg, const struct mr_models_opts *o, struct mr_err *err)
{
  yyjson_val *a = mr_json_get(cfg, "anthropic"), *p = mr_json_get(cfg, "openai"),
             *s = mr_json_get(cfg, "scripted");
  struct mr_provider_opts po = {.sys = o->sys, .loop = o->loop, .http = o->http};
  int rc = MR_OK;
  po.key = first_of(mr_json_get_str(a, "api_key"), o->anthropic_key);
  po.base_url = first_of(mr_json_get_str(a, "base_url"), o->anthropic_base_url);
  po.ca_file = first_of(mr_json_get_str(a, "ca_file"), o->ca_file);
  po.cache = mr_json_get_bool(a, "prompt_cache", true);
  po.stall_ms = mr_json_get_int(a, "stall_ms", 0);
  if (po.key.n || po.base_url.n) rc = own_add(m, 0, &mr_anthropic_vtable, mr_anthropic_new, &po, err);
  if (rc != MR_OK) return rc;
  po.key = first_of(mr_json_get_str(p, "api_key"), o->openai_key);
  po.base_url = first_of(mr_json_get_str(p, "base_url"), o->openai_base_url);
  po.ca_file = first_of(mr_json_get_str(p, "ca_file"), o->ca_file);
  po.stall_ms = mr_json_get_int(p, "stall_ms", 0);
  if (po.key.n || po.base_url.n) rc = own_add(m, 1, &mr_openai_vtable, mr_openai_new, &po, err);
  if (rc != MR_OK) return rc;
  po.file = mr_json_get_str(s, "file");
  if (po.file.n) rc = own_add(m, 2, &mr_scripted_vtable, mr_scripted_new, &po, err);
  return rc;
}

static int routes_read(struct mr_models *m, yyjson_val *routes, struct mr_err *err)
{
  size_t i, max;
  yyjson_val *k, *v;
  if (!routes) return MR_OK;
  if (!yyjson_is_obj(routes) || yyjson_obj_size(routes) > MR_MODEL_IDS / 2)
    return mr_err_set(err, MR_E_INVALID, "models.route", "models.route must be an object of at most %d routes",
                      MR_MODEL_IDS / 2);
  m->routes = mr_mem_zalloc(&m->sys->mem, (yyjson_obj_size(routes) + 1) * sizeof *m->routes);
  if (!m->routes) return mr_err_nomem(err);
  yyjson_obj_foreach(routes, i, max, k, v)
  {
    struct mr_str to = mr_json_str(v), provider = mr_str_split(&to, ':');
    if (!provider.n || !mr_json_str(k).n)
      return mr_err_set(err, MR_E_INVALID, "models.route",
                        "models.route: \"" MR_FMT
                        "\" must name a provider, as in \"openai\" or \"openai:qwen3\"",
                        MR_ARG(mr_json_str(k)));
    m->routes[m->nroutes++] = (struct mr_model_route){mr_json_str(k), provider, to};
  }
  return MR_OK;
}

int mr_models_new(struct mr_models **out, const struct mr_models_opts *o, struct mr_err *err)
{
  struct mr_models *m = mr_mem_zalloc(&o->sys->mem, sizeof *m);
  yyjson_val *cfg = NULL;
  int rc = m ? MR_OK : mr_err_nomem(err);
  if (rc != MR_OK) goto out;
  m->sys = o->sys;
  m->loop = o->loop;
  if (o->config.n) rc = mr_json_parse(&m->sys->mem, o->config, 1 << 20, &m->config, err);
  if (rc != MR_OK) goto out;
  cfg = yyjson_doc_get_root(m->config);
  if (cfg && !yyjson_is_obj(cfg) && !yyjson_is_null(cfg)) {
    rc = mr_err_set(err, MR_E_INVALID, "models", "models must be an object");
    goto out;
  }
  rc = routes_read(m, mr_json_get(cfg, "route"), err);
  if (rc == MR_OK) rc = own_make(m, cfg, o, err);
  if (rc == MR_OK) list_make(m);
out:
  if (rc != MR_OK) mr_models_free(&m);
  *out = m;
  return rc;
}

void mr_models_free(struct mr_models **mp)
{
  struct mr_models *m = *mp;
  if (!m) return;
  *mp = NULL;
  const struct mr_mem *mem = &m->sys->mem;
  for (int i = 0; i < MR_BUILT_IN; i++)
    if (m->own[i]) entry_drop(m->own[i]);
  for (struct mr_model_entry *e = m->host, *next; e; e = next) {
    next = e->next;
    entry_drop(e);
  }
  mr_mem_free(mem, m->routes);
  yyjson_doc_free(m->config);
  mr_mem_free(mem, m);
}
