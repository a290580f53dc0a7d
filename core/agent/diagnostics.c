/*
 * diagnostics.c - the operation environments.diagnostics: what is in force for the sandboxes of an environment on
 * this machine, as `moonrig doctor` lists it, and which of them live. Only looks.
 *
 * Invariant: the driver's callback may come after the domain is gone (the driver goes later): what waits for it is
 * in the domain's list, and cut off from its call when the domain goes.
 */
#include "agent/agent_t.h"

struct mr_diagnosing {
  struct mr_diagnosing *next;
  const struct mr_mem *mem;
  struct mr_call *c; /* NULL once the domain is gone */
};

static void head(struct mr_call *c, struct mr_jw *w, const char *driver, bool unsafe, const char *missing)
{
  mr_jw_init(w, &c->out);
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "environment_diagnostics");
  mr_jw_kstr(w, "environment_id", c->path[0]);
  mr_jw_kc(w, "driver", driver);
  mr_jw_key(w, "unsafe");
  mr_jw_bool(w, unsafe);
  mr_jw_key(w, "ok");
  mr_jw_bool(w, missing == NULL);
  if (missing)
    mr_jw_kc(w, "message", missing);
  else
    mr_jw_kraw(w, "message", MR_S("null"));
}

static void nothing(struct mr_call *c, const char *driver, const char *missing)
{
  struct mr_jw w;

  head(c, &w, driver, false, missing);
  mr_jw_kraw(&w, "features", MR_S("[]"));
  mr_jw_kraw(&w, "sandboxes", MR_S("[]"));
  mr_jw_obj_end(&w);
  mr_call_done(c, MR_OK);
}

static void known(struct mr_jw *w, const char *key, int64_t v)
{
  if (v >= 0)
    mr_jw_kint(w, key, v);
  else
    mr_jw_kraw(w, key, MR_S("null"));
}

static void write_live(struct mr_jw *w, const struct mr_sandbox_live *v)
{
  mr_jw_obj(w);
  mr_jw_kc(w, "session_id", v->session_id);
  known(w, "host_uid", v->uid);
  known(w, "memory_bytes", v->memory);
  known(w, "memory_limit_bytes", v->memory_max);
  known(w, "processes", v->pids);
  known(w, "processes_limit", v->pids_max);
  mr_jw_kint(w, "forks_refused", v->forks_refused);
  mr_jw_obj_end(w);
}

static void answer(struct mr_call *c, const struct mr_sandbox_diagnosis *r)
{
  struct mr_jw w;

  head(c, &w, r->driver, r->unsafe, r->code != MR_OK && r->err ? r->err->message : NULL);
  mr_jw_key(&w, "features");
  mr_jw_arr(&w);
  for (int i = 0; i < r->nfeatures; i++) {
    mr_jw_obj(&w);
    mr_jw_kc(&w, "name", r->features[i].name);
    mr_jw_key(&w, "ok");
    mr_jw_bool(&w, r->features[i].ok);
    mr_jw_key(&w, "required");
    mr_jw_bool(&w, r->features[i].required);
    mr_jw_kc(&w, "detail", r->features[i].detail);
    mr_jw_obj_end(&w);
  }
  mr_jw_arr_end(&w);
  mr_jw_key(&w, "sandboxes");
  mr_jw_arr(&w);
  for (int i = 0; i < r->nlive; i++)
    write_live(&w, &r->live[i]);
  mr_jw_arr_end(&w);
  mr_jw_obj_end(&w);
  mr_call_done(c, MR_OK);
}

static void on_diagnosis(void *ud, const struct mr_sandbox_diagnosis *r)
{
  struct mr_diagnosing *p = ud, **at;

  if (p->c) {
    for (at = &p->c->d->diagnosing; *at != p;)
      at = &(*at)->next;
    *at = p->next;
    answer(p->c, r);
  }
  mr_mem_free(p->mem, p);
}

void mr_diagnosing_cut(struct mr_domain *d)
{
  struct mr_diagnosing *p;

  while ((p = d->diagnosing)) {
    d->diagnosing = p->next;
    p->c = NULL;
  }
}

static void ask(struct mr_call *c)
{
  struct mr_domain *d = c->d;
  struct mr_diagnosing *p = mr_mem_zalloc(d->mem, sizeof *p);
  struct mr_str id = mr_arena_str(c->arena, c->path[0]);
  int code = MR_E_NOMEM;

  if (p && id.p) {
    p->mem = d->mem;
    p->c = c;
    code = mr_sandbox_diagnose(d->sandbox, id.p, on_diagnosis, p);
  }
  if (code == MR_OK) {
    p->next = d->diagnosing;
    d->diagnosing = p;
    return;
  }
  mr_mem_free(d->mem, p);
  mr_call_fail(c, code == MR_E_FULL ? MR_E_UNAVAILABLE : code, NULL,
               "the sandbox driver is too busy: try again");
}

static void on_environment(void *ud, const struct mr_rows *r)
{
  struct mr_call *c = ud;
  bool self_hosted;
  int code = mr_read_check(c, r, NULL, "environment", c->path[0]);

  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  mr_env_config(c->arena, r->docs[0].body, &self_hosted);
  if (self_hosted)
    nothing(c, "self_hosted", NULL);
  else if (!c->d->sandbox)
    nothing(c, "none", "this runtime has no sandbox: tools that run in one are not available");
  else
    ask(c);
}

void mr_environments_diagnostics(struct mr_call *c)
{
  mr_read_doc(c->d->store, c->who.workspace, MR_S("environment"), c->path[0], on_environment, c);
}
