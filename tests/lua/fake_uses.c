/*
 * fake_uses - the fake host's tools, hooks and model providers: what is registered, and the calls that a
 * test injects. Settling one twice aborts.
 */
#include "fake_host_t.h"

/* ----------------------------------------------------- fake.uses, hooks, models */

static int use_end(struct mr_use **pu, const char *result, const char *error)
{
  struct mr_use *u = *pu;
  if (!u || u->settled) abort(); /* settled twice */
  u->settled = 1;
  fake.uses_open--;
  u->result = result ? strdup(result) : NULL;
  u->error = error ? strdup(error) : NULL;
  *pu = NULL;
  return MR_OK;
}
struct mr_str mr_use_name(const struct mr_use *u) { return (struct mr_str){u->name, strlen(u->name)}; }
const struct mr_val *mr_use_input_val(const struct mr_use *u) { return fake_root(u->input); }
struct mr_str mr_use_id(const struct mr_use *u) { return (struct mr_str){u->sid, strlen(u->sid)}; }
struct mr_str mr_use_session(const struct mr_use *u) { (void)u; return (struct mr_str){"sesn_1", 6}; }
struct mr_str mr_use_thread(const struct mr_use *u) { (void)u; return (struct mr_str){"sthr_1", 6}; }
struct mr_str mr_use_agent(const struct mr_use *u) { (void)u; return (struct mr_str){"tester", 6}; }
int mr_use_attempt(const struct mr_use *u) { return u->attempt; }
int64_t mr_use_deadline_ms(const struct mr_use *u) { (void)u; return 5000; }
int mr_use_cancelled(const struct mr_use *u) { return u->settled; }
int mr_use_finish(struct mr_use **u, const char *json) { return use_end(u, json ? json : "", NULL); }
int mr_use_fail(struct mr_use **u, const char *message) { return use_end(u, NULL, message); }
static void use_input_drop(struct mr_use *u) { (void)u; }
static int finish_doc(struct mr_use **u, struct mr_doc **doc)
{
  char *t = fake_text(*doc);
  int rc = use_end(u, t, NULL);
  free(t);
  fake_doc_free(*doc);
  *doc = NULL;
  return rc;
}
const struct mr_val *mr_hook_input(const struct mr_hook_call *c) { return fake_root(((const struct mr_use *)c)->input); }
int mr_hook_decide(struct mr_hook_call **c, const char *json) { return use_end((struct mr_use **)c, json ? json : "", NULL); }
static int hook_decide(struct mr_hook_call **c, struct mr_doc **doc) { return finish_doc((struct mr_use **)c, doc); }
const struct mr_val *mr_model_use_request(const struct mr_model_use *u) { return fake_root(((const struct mr_use *)u)->input); }
struct mr_str mr_model_use_session(const struct mr_model_use *u) { (void)u; return (struct mr_str){"sesn_1", 6}; }
int mr_model_use_text(struct mr_model_use *mu, struct mr_str d)
{
  struct mr_use *u = (struct mr_use *)mu;
  size_t n = u->text ? strlen(u->text) : 0;
  u->text = realloc(u->text, n + d.n + 2);
  memcpy(u->text + n, d.p, d.n);
  u->text[n + d.n] = '|';
  u->text[n + d.n + 1] = 0;
  return MR_OK;
}
int mr_model_use_finish(struct mr_model_use **u, const char *json) { return use_end((struct mr_use **)u, json, NULL); }
int mr_model_use_fail(struct mr_model_use **u, const char *type, const char *msg)
{
  char t[600];
  snprintf(t, sizeof t, "%s: %s", type, msg);
  return use_end((struct mr_use **)u, NULL, t);
}
static int model_finish(struct mr_model_use **u, struct mr_doc **doc) { return finish_doc((struct mr_use **)u, doc); }

static void drop_reg(int kind, const char *name, const char *agent, int id)
{
  struct fake_reg **at = &fake.regs;
  while (*at && !((*at)->kind == kind && (name ? strcmp((*at)->name, name) == 0 && strcmp((*at)->agent, agent ? agent : "") == 0
                                               : (*at)->id == id)))
    at = &(*at)->next;
  if (!*at) return;
  struct fake_reg *r = *at;
  *at = r->next;
  free(r);
}
static struct fake_reg *new_reg(int kind, const char *name)
{
  struct fake_reg *r = calloc(1, sizeof *r), **at = &fake.regs;
  while (*at) at = &(*at)->next;
  *at = r;
  r->kind = kind;
  r->id = (int)fake.next_id++;
  snprintf(r->name, sizeof r->name, "%s", name);
  return r;
}
void fake_drop_reg(int kind, const char *name) { drop_reg(kind, name, NULL, 0); }
struct fake_reg *fake_new_reg(int kind, const char *name) { return new_reg(kind, name); }
int fake_use_end(struct mr_use **u, const char *result, const char *error) { return use_end(u, result, error); }

int mr_tool_add(struct mr_runtime *rt, const struct mr_tool *t, struct mr_err *err)
{
  (void)rt;
  if (fake.refuse_tool && strcmp(t->name, "refused") == 0) return fake_fail(err, MR_E_INVALID, "this host refuses it");
  drop_reg('t', t->name, t->agent, 0);
  struct fake_reg *r = new_reg('t', t->name);
  snprintf(r->agent, sizeof r->agent, "%s", t->agent ? t->agent : "");
  r->run = t->run, r->cancel = t->cancel, r->ud = t->ud, r->flags = t->flags;
  r->timeout = t->timeout_ms, r->concurrency = t->concurrency;
  snprintf(r->schema, sizeof r->schema, "%s", t->input_schema);
  return MR_OK;
}
int mr_tool_remove(struct mr_runtime *rt, const char *name, const char *agent) { (void)rt; drop_reg('t', name, agent, 0); return MR_OK; }
int mr_hook_add(struct mr_runtime *rt, const char *phase, const char *filter, unsigned flags, mr_hook_fn fn,
                void *ud, struct mr_err *err)
{
  (void)rt, (void)err;
  struct fake_reg *r = new_reg('h', phase);
  r->run = (void (*)(void *, struct mr_use *))fn, r->ud = ud, r->flags = flags;
  snprintf(r->filter, sizeof r->filter, "%s", filter ? filter : "");
  return r->id;
}
int mr_hook_remove(struct mr_runtime *rt, int id) { (void)rt; drop_reg('h', NULL, NULL, id); return MR_OK; }
int mr_provider_add(struct mr_runtime *rt, const struct mr_provider *p, struct mr_err *err)
{
  (void)rt, (void)err;
  drop_reg('m', p->name, NULL, 0);
  struct fake_reg *r = new_reg('m', p->name);
  r->run = (void (*)(void *, struct mr_use *))p->run, r->ud = p->ud;
  r->cancel = (void (*)(void *, struct mr_use *))p->cancel;
  return MR_OK;
}
int mr_provider_remove(struct mr_runtime *rt, const char *name) { (void)rt; drop_reg('m', name, NULL, 0); return MR_OK; }

void fake_uses_table(struct mr_ext *t)
{
  t->use_input_drop = use_input_drop, t->use_finish = finish_doc, t->hook_decide = hook_decide, t->model_finish = model_finish;
}
