/*
 * hooks.c - the registry of hooks: added and removed by the host on any thread, looked up by the loop. How they
 * are asked is in hook_ask.c.
 *
 * Invariant: ids ascend in the order of adding, which is the order of asking, and none is given twice. So whoever
 * holds an id, and not a pointer, can go on from it though hooks were added or removed meanwhile.
 */
#include "host/hooks_t.h"

#include <limits.h>
#include <stdio.h>

enum { HOOKS_MAX = 1000 };

struct hook {
  struct hook *next; /* by id, ascending */
  int id;
  enum mr_phase phase;
  char *agent, *tool; /* filters; NULL: any */
  char *name;         /* for the log; NULL: none */
  unsigned flags;
  mr_hook_fn fn;
  void *ud;
};

int mr_hooks_new(struct mr_runtime *rt)
{
  rt->hooks = mr_mem_zalloc(mr_rt_mem(rt), sizeof *rt->hooks);
  if (!rt->hooks) return MR_E_NOMEM;
  pthread_mutex_init(&rt->hooks->lock, NULL);
  return MR_OK;
}

static void hook_free(const struct mr_mem *m, struct hook *h)
{
  if (!h) return;
  mr_mem_free(m, h->agent);
  mr_mem_free(m, h->tool);
  mr_mem_free(m, h->name);
  mr_mem_free(m, h);
}

void mr_hooks_free(struct mr_runtime *rt)
{
  struct mr_hookset *hs = rt->hooks;

  if (!hs) return;
  for (struct hook *h = hs->hooks, *next; h; h = next) {
    next = h->next;
    hook_free(mr_rt_mem(rt), h);
  }
  pthread_mutex_destroy(&hs->lock);
  mr_mem_free(mr_rt_mem(rt), hs);
  rt->hooks = NULL;
}

/* ---- the registry ---- */

static int read_filter(const struct mr_mem *m, const char *filter, struct hook *h, struct mr_err *err)
{
  yyjson_doc *doc = NULL;
  yyjson_val *o, *k, *v;
  yyjson_obj_iter it;
  int code;

  if (!filter || !filter[0]) return MR_OK;
  code = mr_json_parse(m, mr_str_c(filter), 1 << 16, &doc, NULL);
  o = yyjson_doc_get_root(doc);
  if (code == MR_OK && yyjson_is_null(o)) goto out;
  if (code != MR_OK || !yyjson_is_obj(o)) {
    code =
        mr_err_set(err, MR_E_INVALID, "filter", "filter: a JSON object with \"agent\", \"tool\" and \"name\"");
    goto out;
  }
  it = yyjson_obj_iter_with(o);
  while (code == MR_OK && (k = yyjson_obj_iter_next(&it))) {
    char **to = yyjson_equals_str(k, "agent")  ? &h->agent
                : yyjson_equals_str(k, "tool") ? &h->tool
                : yyjson_equals_str(k, "name") ? &h->name
                                               : NULL;
    v = yyjson_obj_iter_get_val(k);
    if (!to || !(yyjson_is_str(v) || yyjson_is_null(v)))
      code = mr_err_set(err, MR_E_INVALID, "filter",
                        "filter: %s is not \"agent\", \"tool\" or \"name\" with a text", yyjson_get_str(k));
    else if (yyjson_is_str(v) && !*to && !(*to = mr_mem_strdup(m, mr_json_str(v))))
      code = mr_err_nomem(err);
  }
  if (code == MR_OK && h->tool && h->phase != MR_PHASE_PERMIT && h->phase != MR_PHASE_TOOLS)
    code = mr_err_set(err, MR_E_INVALID, "filter",
                      "filter: \"tool\" is for hooks of permit and tools, not of %s", mr_phase_name(h->phase));
out:
  yyjson_doc_free(doc);
  return code;
}

int mr_hook_add(struct mr_runtime *rt, const char *phase, const char *filter, unsigned flags, mr_hook_fn fn,
                void *ud, struct mr_err *err)
{
  struct mr_hookset *hs;
  struct hook *h = NULL, **at;
  int code = mr_rt_check(rt, err), id, at_phase = mr_phase_find(phase);

  if (code == MR_OK && atomic_load(&rt->closing))
    code = mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
  if (code == MR_OK && at_phase < 0)
    code =
        mr_err_set(err, MR_E_INVALID, "phase", "phase: accept, context, model, permit, tools, settle or idle");
  if (code == MR_OK && (!fn || flags & ~(unsigned)MR_HOOK_FAIL_CLOSED))
    code = mr_err_set(err, MR_E_INVALID, fn ? "flags" : "fn",
                      "a hook needs a function, and no flags but MR_HOOK_*");
  if (code == MR_OK && !(h = mr_mem_zalloc(mr_rt_mem(rt), sizeof *h))) code = mr_err_nomem(err);
  if (code == MR_OK) h->phase = (enum mr_phase)at_phase;
  if (code == MR_OK) code = read_filter(mr_rt_mem(rt), filter, h, err);
  if (code != MR_OK) {
    if (h) hook_free(mr_rt_mem(rt), h);
    return code;
  }
  h->flags = flags;
  h->fn = fn;
  h->ud = ud;
  hs = rt->hooks;
  pthread_mutex_lock(&hs->lock);
  if (hs->n == HOOKS_MAX || hs->next_id == INT_MAX) {
    pthread_mutex_unlock(&hs->lock);
    hook_free(mr_rt_mem(rt), h);
    return mr_err_set(err, MR_E_FULL, NULL, "more than %d hooks", HOOKS_MAX);
  }
  id = h->id = hs->next_id++;
  hs->n++;
  for (at = &hs->hooks; *at; at = &(*at)->next)
    continue;
  *at = h;
  pthread_mutex_unlock(&hs->lock);
  return id;
}

int mr_hook_remove(struct mr_runtime *rt, int id)
{
  struct hook **at, *h;
  int code = mr_rt_check(rt, NULL);

  if (code == MR_OK && atomic_load(&rt->closing)) code = MR_E_CLOSED;
  if (code != MR_OK) return code;
  pthread_mutex_lock(&rt->hooks->lock);
  for (at = &rt->hooks->hooks; *at && (*at)->id != id; at = &(*at)->next)
    continue;
  h = *at;
  if (h) {
    *at = h->next;
    rt->hooks->n--;
  }
  pthread_mutex_unlock(&rt->hooks->lock);
  hook_free(mr_rt_mem(rt), h);
  return h ? MR_OK : MR_E_NOTFOUND;
}

/* ---- looked up ---- */

static bool fits(const struct hook *h, enum mr_phase p, const struct mr_subject *who)
{
  return h->phase == p && (!h->tool || mr_str_is(who->tool, h->tool)) &&
         (!h->agent || mr_str_is(who->agent, h->agent) || mr_str_is(who->agent_id, h->agent));
}

bool mr_hooks_has(void *ud, enum mr_phase p, const struct mr_subject *who)
{
  struct mr_runtime *rt = ud;
  struct hook *h;

  pthread_mutex_lock(&rt->hooks->lock);
  for (h = rt->hooks->hooks; h && !fits(h, p, who); h = h->next)
    continue;
  pthread_mutex_unlock(&rt->hooks->lock);
  return h != NULL;
}

bool mr_hooks_next(struct mr_runtime *rt, struct mr_hook_asked *a, enum mr_phase p,
                   const struct mr_subject *who)
{
  struct hook *h;

  pthread_mutex_lock(&rt->hooks->lock);
  for (h = rt->hooks->hooks; h && !(h->id > a->id && fits(h, p, who)); h = h->next)
    continue;
  if (h) {
    a->id = h->id;
    a->fail_closed = (h->flags & MR_HOOK_FAIL_CLOSED) != 0;
    if (h->name)
      snprintf(a->label, sizeof a->label, "hook \"%s\" of %s", h->name, mr_phase_name(p));
    else
      snprintf(a->label, sizeof a->label, "hook %d of %s", h->id, mr_phase_name(p));
  }
  pthread_mutex_unlock(&rt->hooks->lock);
  return h != NULL;
}

mr_hook_fn mr_hooks_fn(struct mr_runtime *rt, int id, void **ud)
{
  mr_hook_fn fn = NULL;

  pthread_mutex_lock(&rt->hooks->lock);
  for (struct hook *h = rt->hooks->hooks; h; h = h->next)
    if (h->id == id) {
      fn = h->fn;
      *ud = h->ud;
    }
  pthread_mutex_unlock(&rt->hooks->lock);
  return fn;
}
