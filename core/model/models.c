/*
 * models - the router's providers: made from the configuration, added by the host, listed, let go of. Which of them
 * serves a model is in tries.c, asking them in calls.c.
 *
 * A provider that cannot work as configured (a moonrig key in the upstream's place) does not stop the program: its
 * models answer with the reason, others work.
 * Invariant: a provider lives until it is out of the router and its last user is done, so removing one, or freeing
 * the router, is safe while calls run. Loop thread.
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
  mr_gate_free(&e->gate);
  mr_mem_free(m, e->patterns);
  mr_mem_free(m, e->name);
  mr_mem_free(m, e);
}

/* Out of the router, which is a user until it has told everybody in line. */
static void entry_leave(struct mr_model_entry *e)
{
  e->gone = true;
  e->users++;
}

static void entry_drop(struct mr_model_entry *e)
{
  mr_gate_close(&e->gate);
  mr_model_entry_unuse(e);
}

void mr_model_entry_unuse(struct mr_model_entry *e)
{
  if (--e->users == 0 && e->gone) entry_free(e);
}

static struct mr_model_entry *entry_new(struct mr_models *m, struct mr_str name, const char *patterns,
                                        yyjson_val *section, struct mr_err *err)
{
  const struct mr_mem *mem = &m->sys->mem;
  struct mr_model_entry *e = mr_mem_zalloc(mem, sizeof *e);
  struct mr_gate_limits limits = {0};
  if (!e) goto nomem;
  if (section) mr_models_gate_limits(section, &limits);
  e->mem = mem;
  e->name = mr_mem_strdup(mem, name);
  e->patterns = mr_mem_strdup(mem, mr_str_c(patterns ? patterns : ""));
  if (e->name && e->patterns && mr_gate_init(&e->gate, m->loop, &limits, err) == MR_OK) return e;
  entry_free(e);
nomem:
  mr_err_nomem(err);
  return NULL;
}

struct mr_model_entry *mr_model_entry_find(struct mr_models *m, struct mr_str name)
{
  for (int k = 0; k < 2; k++)
    for (struct mr_model_entry *e = k ? m->own : m->host; e; e = e->next)
      if (mr_str_is(name, e->name)) return e;
  return NULL;
}

/* ---- names ---- */

int mr_model_fit(struct mr_str pattern, struct mr_str model)
{
  if (pattern.n && pattern.p[pattern.n - 1] == '*') {
    pattern.n--;
    return mr_str_starts(model, pattern) ? (int)pattern.n : -1;
  }
  return pattern.n && mr_str_eq(pattern, model) ? 1 << 20 : -1;
}

const struct mr_model_route *mr_model_route_find(const struct mr_model_routes *r, struct mr_str model)
{
  const struct mr_model_route *route = NULL;
  int best = -1;

  for (int i = 0; i < r->n; i++) {
    int f = mr_model_fit(r->v[i].pattern, model);
    if (f <= best) continue;
    best = f;
    route = &r->v[i];
  }
  return route;
}

static bool openai_name(struct mr_str s)
{
  if (mr_str_starts(s, MR_S("gpt-")) || mr_str_starts(s, MR_S("chatgpt-"))) return true;
  return s.n > 1 && s.p[0] == 'o' && s.p[1] >= '0' && s.p[1] <= '9';
}

const char *mr_model_usual(struct mr_str model)
{
  if (mr_str_starts(model, MR_S("claude-"))) return "anthropic";
  if (openai_name(model)) return "openai";
  if (mr_str_starts(model, MR_S("scripted"))) return "scripted";
  return NULL;
}

int mr_models_check(struct mr_models *m, struct mr_str model, struct mr_err *err)
{
  struct mr_tries t = {0};
  int code = mr_tries_find(&t, m, model, NULL, err);
  mr_tries_free(&t);
  return code;
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
  for (int i = 0; i < m->routes.n; i++)
    list_add(m, m->routes.v[i].pattern);
  for (struct mr_model_entry *e = m->own; e; e = e->next) {
    if (strcmp(e->name, "anthropic") != 0 || e->refusal.code) continue;
    for (size_t i = 0; i < sizeof default_models / sizeof default_models[0]; i++)
      list_add(m, default_models[i]);
  }
}

struct mr_str mr_models_at(struct mr_models *m, int i)
{
  return i >= 0 && i < m->nids ? m->ids[i] : (struct mr_str){0};
}

/* ---- for operators ---- */

bool mr_models_stats(const struct mr_models *m, int i, struct mr_provider_stats *out)
{
  const struct mr_model_entry *e = m->own;

  while (e && i-- > 0)
    e = e->next;
  if (e)
    *out = (struct mr_provider_stats){e->name, e->gate.inside, e->gate.waiting, mr_gate_paused_ms(&e->gate)};
  return e != NULL;
}

uint64_t mr_models_fallbacks(const struct mr_models *m)
{
  return m->fallbacks;
}

/* ---- providers of the host ---- */

int mr_models_add(struct mr_models *m, const struct mr_provider_vtable *v, void *self, const char *models,
                  struct mr_err *err)
{
  if (!v || !v->name || !v->name[0] || !models || !models[0])
    return mr_err_set(err, MR_E_INVALID, "models", "a provider needs a name and the models it serves");
  struct mr_model_entry *e = entry_new(m, mr_str_c(v->name), models, NULL, err);
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
    entry_leave(e);
    entry_drop(e);
    list_make(m);
    return MR_OK;
  }
  return MR_E_NOTFOUND;
}

/* ---- making ---- */

typedef int (*maker)(void **self, const struct mr_provider_opts *o, struct mr_err *err);

static int own_add(struct mr_models *m, enum mr_model_kind kind, const struct mr_provider_opts *po,
                   yyjson_val *section, struct mr_err *err)
{
  static const struct {
    const struct mr_provider_vtable *v;
    maker make;
  } kinds[] = {[MR_KIND_ANTHROPIC] = {&mr_anthropic_vtable, mr_anthropic_new},
               [MR_KIND_OPENAI] = {&mr_openai_vtable, mr_openai_new},
               [MR_KIND_SCRIPTED] = {&mr_scripted_vtable, mr_scripted_new}};
  struct mr_model_entry *e = entry_new(m, po->name, NULL, section, err), **at = &m->own;
  if (!e) return MR_E_NOMEM;
  e->kind = kind;
  e->refusal.size = sizeof e->refusal;
  int rc = kinds[kind].make(&e->self, po, &e->refusal);
  if (rc == MR_OK)
    e->v = kinds[kind].v;
  else
    mr_log(m->sys, MR_LOG_WARN, "model", "%s: %s", e->name, e->refusal.message);
  while (*at)
    at = &(*at)->next;
  *at = e;
  return rc == MR_E_NOMEM ? mr_err_nomem(err) : MR_OK;
}

static struct mr_str first_of(struct mr_str a, const char *b)
{
  return a.n ? a : mr_str_c(b);
}

static int section_add(struct mr_models *m, const struct mr_models_opts *o, enum mr_model_kind kind,
                       struct mr_str name, yyjson_val *v, struct mr_err *err)
{
  bool a = mr_str_is(name, "anthropic"), p = mr_str_is(name, "openai");
  struct mr_provider_opts po = {.sys = o->sys, .loop = o->loop, .http = o->http, .name = name};

  po.key = first_of(mr_json_get_str(v, "api_key"), a ? o->anthropic_key : p ? o->openai_key : NULL);
  po.base_url = first_of(mr_json_get_str(v, "base_url"), a   ? o->anthropic_base_url
                                                         : p ? o->openai_base_url
                                                             : NULL);
  po.ca_file = first_of(mr_json_get_str(v, "ca_file"), o->ca_file);
  po.file = mr_json_get_str(v, "file");
  po.cache = mr_json_get_bool(v, "prompt_cache", true);
  po.cache_1h = mr_str_is(mr_json_get_str(v, "prompt_cache_ttl"), "1h");
  po.connect_ms = mr_json_get_int(v, "connect_ms", 0);
  po.first_ms = mr_json_get_int(v, "first_ms", 0);
  po.stall_ms = mr_json_get_int(v, "stall_ms", 0);
  po.total_ms = mr_json_get_int(v, "total_ms", 0);
  /* The usual names stand in every configuration, with nothing in them when they are not meant. */
  if (!po.key.n && !po.base_url.n && !po.file.n && (a || p || mr_str_is(name, "scripted"))) return MR_OK;
  return own_add(m, kind, &po, v, err);
}

static int own_make(struct mr_models *m, yyjson_val *cfg, const struct mr_models_opts *o, struct mr_err *err)
{
  static const struct {
    const char *name;
    enum mr_model_kind kind;
  } usual[] = {{"anthropic", MR_KIND_ANTHROPIC}, {"openai", MR_KIND_OPENAI}};
  enum mr_model_kind kind;
  struct mr_str name;
  yyjson_val *v;
  int rc = MR_OK;

  for (size_t i = 0; rc == MR_OK && i < sizeof usual / sizeof *usual; i++) /* by the environment alone */
    if (!yyjson_is_obj(mr_json_get(cfg, usual[i].name)))
      rc = section_add(m, o, usual[i].kind, mr_str_c(usual[i].name), NULL, err);
  for (int i = 0; rc == MR_OK && (kind = mr_models_section(cfg, i, &name, &v)) != MR_KIND_HOST; i++)
    rc = section_add(m, o, kind, name, v, err);
  return rc;
}

int mr_models_new(struct mr_models **out, const struct mr_models_opts *o, struct mr_err *err)
{
  struct mr_models *m = mr_mem_zalloc(&o->sys->mem, sizeof *m);
  yyjson_val *cfg = NULL;
  int rc = m ? MR_OK : mr_err_nomem(err);
  if (rc != MR_OK) goto out;
  m->refs = 1;
  m->sys = o->sys;
  m->loop = o->loop;
  m->http = o->http;
  if (o->config.n) rc = mr_json_parse(&m->sys->mem, o->config, 1 << 20, &m->config, err);
  if (rc != MR_OK) goto out;
  cfg = yyjson_doc_get_root(m->config);
  rc = mr_models_config_check(cfg, err);
  if (rc == MR_OK) rc = mr_models_routes(&m->sys->mem, cfg, "route", &m->routes, err);
  if (rc == MR_OK) rc = mr_models_routes(&m->sys->mem, cfg, "fallback", &m->falls, err);
  if (rc == MR_OK) rc = own_make(m, cfg, o, err);
  if (rc == MR_OK) list_make(m);
out:
  if (rc != MR_OK) mr_models_free(&m);
  *out = m;
  return rc;
}

void mr_models_unref(struct mr_models *m)
{
  if (--m->refs == 0) mr_mem_free(&m->sys->mem, m);
}

static void list_drop(struct mr_model_entry *e)
{
  for (struct mr_model_entry *next; e; e = next) {
    next = e->next;
    entry_drop(e);
  }
}

void mr_models_free(struct mr_models **mp)
{
  struct mr_models *m = *mp;
  if (!m) return;
  *mp = NULL;
  const struct mr_mem *mem = &m->sys->mem;
  /* All at once: who waits for one of them must not go on to another, nor be the last user of one that is still to
   * be dropped. */
  for (struct mr_model_entry *e = m->own; e; e = e->next)
    entry_leave(e);
  for (struct mr_model_entry *e = m->host; e; e = e->next)
    entry_leave(e);
  list_drop(m->own);
  list_drop(m->host);
  mr_mem_free(mem, m->routes.v);
  mr_mem_free(mem, m->falls.v);
  yyjson_doc_free(m->config);
  mr_models_unref(m);
}
