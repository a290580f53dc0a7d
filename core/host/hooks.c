/*
 * hooks.c - questions of the core that the host answers: the registry of hooks, and the domain's asker on top
 * of it. A question goes to the hooks of its phase one after the other, in the order they were added; the
 * first that decides wins. Each has DEADLINE to answer; after it its fail default counts: refuse
 * (MR_HOOK_FAIL_CLOSED), or the next one.
 *
 * The phase that is asked today is permit; a hook for another one is refused, so that nobody waits for calls
 * that never come. Which hook is next is looked up when the one before has answered: hooks added or removed
 * meanwhile count.
 *
 * Invariant: a question (struct ask) is answered exactly once, from the drain. A call (struct mr_hook_call)
 * belongs to one question and one hook, and may outlive both in the host's hands.
 */
#include "host/host_t.h"

#include <limits.h>

enum { DEADLINE_US = 30 * 1000 * 1000, HOOKS_MAX = 1000, DECISION_MAX = 16 << 20 };

struct hook {
  struct hook *next; /* by id, ascending */
  int id;
  char *agent, *tool; /* filters; NULL: any */
  unsigned flags;
  mr_hook_fn fn;
  void *ud;
};

struct mr_hookset {
  pthread_mutex_t lock; /* hooks, next_id, n */
  struct hook *hooks;
  int next_id, n;
  struct ask *asks; /* loop: open questions */
};

struct ask {
  struct ask *next, **link;
  struct mr_runtime *rt;
  yyjson_doc *doc; /* the input, for the filters */
  void (*done)(void *cud, enum mr_permit p, struct mr_str detail);
  void *cud;
  int last;                  /* id of the hook asked last */
  bool fail_closed;          /* of that hook */
  struct mr_hook_call *call; /* with the queue or the host; NULL: answering */
  struct mr_timer timer;
  struct mr_ready ready;
  enum mr_permit decision;
  char *detail;
  struct mr_str input;
  char text[];
};

struct mr_hook_call {
  struct mr_given g;
  struct ask *ask; /* loop: NULL once settled */
  int hook;        /* id */
  yyjson_doc *doc; /* input, parsed when handed out */
  bool decided;    /* the answer: else no opinion */
  bool broken;     /* the answer cannot be read: the fail default counts */
  enum mr_permit decision;
  char *detail;
  size_t n;
  char text[];
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

static int check_phase(const char *phase, struct mr_err *err)
{
  static const char *const phases[] = {"accept", "context", "model", "permit", "tools", "settle", "idle"};

  for (size_t i = 0; phase && i < sizeof phases / sizeof *phases; i++)
    if (strcmp(phase, phases[i]) == 0)
      return strcmp(phase, "permit") == 0
                 ? MR_OK
                 : mr_err_set(err, MR_E_UNSUPPORTED, "phase",
                              "phase: hooks of %s are not asked in this version, only those of permit", phase);
  return mr_err_set(err, MR_E_INVALID, "phase", "phase: accept, context, model, permit, tools, settle or idle");
}

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
    code = mr_err_set(err, MR_E_INVALID, "filter", "filter: a JSON object with \"agent\" and \"tool\"");
    goto out;
  }
  it = yyjson_obj_iter_with(o);
  while (code == MR_OK && (k = yyjson_obj_iter_next(&it))) {
    char **to = yyjson_equals_str(k, "agent") ? &h->agent : yyjson_equals_str(k, "tool") ? &h->tool : NULL;
    v = yyjson_obj_iter_get_val(k);
    if (!to || !(yyjson_is_str(v) || yyjson_is_null(v)))
      code = mr_err_set(err, MR_E_INVALID, "filter", "filter: %s is not \"agent\" or \"tool\" with a name",
                        yyjson_get_str(k));
    else if (yyjson_is_str(v) && !*to && !(*to = mr_mem_strdup(m, mr_json_str(v))))
      code = mr_err_nomem(err);
  }
out:
  yyjson_doc_free(doc);
  return code;
}

int mr_hook_add(struct mr_runtime *rt, const char *phase, const char *filter, unsigned flags, mr_hook_fn fn,
                void *ud, struct mr_err *err)
{
  struct mr_hookset *hs;
  struct hook *h = NULL, **at;
  int code = mr_rt_check(rt, err), id;

  if (code == MR_OK && atomic_load(&rt->closing))
    code = mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
  if (code == MR_OK) code = check_phase(phase, err);
  if (code == MR_OK && (!fn || flags & ~(unsigned)MR_HOOK_FAIL_CLOSED))
    code = mr_err_set(err, MR_E_INVALID, fn ? "flags" : "fn",
                      "a hook needs a function, and no flags but MR_HOOK_*");
  if (code == MR_OK && !(h = mr_mem_zalloc(mr_rt_mem(rt), sizeof *h))) code = mr_err_nomem(err);
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

/* ---- questions, on the loop ---- */

static bool has(void *ud, const char *phase)
{
  struct mr_runtime *rt = ud;
  bool any;

  pthread_mutex_lock(&rt->hooks->lock);
  any = rt->hooks->hooks && strcmp(phase, "permit") == 0;
  pthread_mutex_unlock(&rt->hooks->lock);
  return any;
}

static void ask_free(struct ask *a)
{
  const struct mr_mem *m = mr_rt_mem(a->rt);

  mr_timer_cancel(a->rt->loop, &a->timer);
  mr_ready_cancel(a->rt->loop, &a->ready);
  *a->link = a->next;
  if (a->next) a->next->link = a->link;
  yyjson_doc_free(a->doc);
  mr_mem_free(m, a->detail);
  mr_mem_free(m, a);
}

static void on_ready(struct mr_ready *r)
{
  struct ask *a = MR_OF(r, struct ask, ready);

  a->done(a->cud, a->decision, mr_str_c(a->detail ? a->detail : ""));
  ask_free(a);
}

/* detail: allocated or NULL, taken over. */
static void decide(struct ask *a, enum mr_permit p, char *detail)
{
  mr_timer_cancel(a->rt->loop, &a->timer);
  a->decision = p;
  a->detail = detail;
  mr_ready_post(a->rt->loop, &a->ready);
}

static bool fits(const struct hook *h, yyjson_val *in)
{
  struct mr_str name = mr_json_get_str(in, "name"), agent = mr_json_get_str(in, "agent"),
                id = mr_json_get_str(in, "agent_id");

  return (!h->tool || mr_str_is(name, h->tool)) &&
         (!h->agent || mr_str_is(agent, h->agent) || mr_str_is(id, h->agent));
}

static void call_free(struct mr_given *g)
{
  struct mr_hook_call *c = MR_OF(g, struct mr_hook_call, g);
  const struct mr_mem *m = mr_rt_mem(g->rt);

  yyjson_doc_free(c->doc);
  mr_mem_free(m, c->detail);
  mr_mem_free(m, c);
}

static void run_call(struct mr_entry *e);
static void run_nothing(struct mr_entry *e);
static void on_answer(struct mr_post *p);

/* The default of the hook asked last; false: the next one is to be asked. */
static bool failed(struct ask *a, const char *why)
{
  if (!a->fail_closed) return false;
  decide(a, MR_PERMIT_DENY, mr_mem_strdup(mr_rt_mem(a->rt), mr_str_c(why)));
  return true;
}

static void ask_next(struct ask *a)
{
  struct mr_runtime *rt = a->rt;
  struct mr_hook_call *c;
  struct hook *h;
  int id = -1;

  for (;;) {
    pthread_mutex_lock(&rt->hooks->lock);
    for (h = rt->hooks->hooks; h && !(h->id > a->last && fits(h, yyjson_doc_get_root(a->doc))); h = h->next)
      continue;
    id = h ? h->id : -1;
    if (h) a->fail_closed = (h->flags & MR_HOOK_FAIL_CLOSED) != 0;
    pthread_mutex_unlock(&rt->hooks->lock);
    if (id < 0) {
      decide(a, MR_PERMIT_NONE, NULL);
      return;
    }
    a->last = id;
    c = mr_mem_alloc(mr_rt_mem(rt), sizeof *c + a->input.n);
    if (c && mr_timer_set(rt->loop, &a->timer, DEADLINE_US) == MR_OK) break;
    mr_mem_free(mr_rt_mem(rt), c);
    if (failed(a, "The permission hook could not be asked: out of memory.")) return;
  }
  memset(c, 0, sizeof *c);
  mr_given_init(&c->g, rt, run_call, run_nothing, on_answer, call_free);
  c->ask = a;
  c->hook = id;
  c->n = a->input.n;
  memcpy(c->text, a->input.p, c->n);
  a->call = c;
  mr_given_push(&c->g);
}

/* The call is not waited for any more. */
static void let_go(struct ask *a)
{
  struct mr_hook_call *c = a->call;

  a->call = NULL;
  if (!c) return;
  c->ask = NULL;
  if (mr_given_drop(&c->g)) mr_given_unref(&c->g);
}

static void on_timer(struct mr_timer *t)
{
  struct ask *a = MR_OF(t, struct ask, timer);

  let_go(a);
  mr_log(&a->rt->sys, MR_LOG_WARN, "hooks", "a permit hook did not answer within %d s: %s",
         DEADLINE_US / 1000000, a->fail_closed ? "refused" : "the next one is asked");
  if (!failed(a, "The permission hook did not answer in time.")) ask_next(a);
}

static void on_answer(struct mr_post *p)
{
  struct mr_hook_call *c = MR_OF(MR_OF(p, struct mr_given, answer), struct mr_hook_call, g);
  struct ask *a = c->ask;
  char *detail = c->detail;

  c->ask = NULL;
  if (a) {
    a->call = NULL;
    c->detail = NULL;
    if (c->decided && !c->broken) {
      decide(a, c->decision, detail);
    } else {
      mr_mem_free(mr_rt_mem(a->rt), detail);
      if (!c->broken || !failed(a, "The permission hook failed.")) ask_next(a);
    }
  }
  mr_given_unref(&c->g); /* the post's */
  mr_given_unref(&c->g);
}

static void permit(void *ud, struct mr_str input,
                   void (*done)(void *cud, enum mr_permit p, struct mr_str detail), void *cud)
{
  struct mr_runtime *rt = ud;
  struct ask *a = mr_mem_alloc(mr_rt_mem(rt), sizeof *a + input.n);
  yyjson_doc *doc = NULL;

  if (!a || mr_json_parse(mr_rt_mem(rt), input, SIZE_MAX, &doc, NULL) != MR_OK) {
    mr_mem_free(mr_rt_mem(rt), a);
    /* Not from the drain, but what cannot be remembered cannot be answered later. */
    done(cud, MR_PERMIT_DENY, MR_S("The permission hooks could not be asked: out of memory."));
    return;
  }
  memset(a, 0, sizeof *a);
  a->rt = rt;
  a->doc = doc;
  a->done = done;
  a->cud = cud;
  a->last = -1;
  a->input = mr_str_n(a->text, input.n);
  memcpy(a->text, input.p, input.n);
  mr_timer_init(&a->timer, on_timer);
  mr_ready_init(&a->ready, on_ready);
  a->next = rt->hooks->asks;
  a->link = &rt->hooks->asks;
  if (a->next) a->next->link = &a->next;
  rt->hooks->asks = a;
  ask_next(a);
}

struct mr_hooks mr_hooks_asker(struct mr_runtime *rt)
{
  return (struct mr_hooks){.ud = rt, .has = has, .permit = permit};
}

void mr_hooks_close(struct mr_runtime *rt)
{
  for (struct ask *a = rt->hooks ? rt->hooks->asks : NULL; a; a = a->next) {
    if (!a->call) continue;
    let_go(a);
    if (!failed(a, "The permission hook did not answer: the program is closing."))
      decide(a, MR_PERMIT_NONE, NULL);
  }
}

/* ---- the host's side ---- */

static void run_nothing(struct mr_entry *e)
{
  mr_given_unref(MR_OF(e, struct mr_given, unwanted)); /* hooks have no cancel */
}

static void run_call(struct mr_entry *e)
{
  struct mr_hook_call *c = MR_OF(MR_OF(e, struct mr_given, give), struct mr_hook_call, g);
  struct mr_runtime *rt = c->g.rt;
  mr_hook_fn fn = NULL;
  void *ud = NULL;

  if (atomic_load(&rt->closing)) {
    mr_given_refuse(&c->g);
    return;
  }
  pthread_mutex_lock(&rt->hooks->lock);
  for (struct hook *h = rt->hooks->hooks; h; h = h->next)
    if (h->id == c->hook) {
      fn = h->fn;
      ud = h->ud;
    }
  pthread_mutex_unlock(&rt->hooks->lock);
  if (fn && mr_json_parse(mr_rt_mem(rt), mr_str_n(c->text, c->n), SIZE_MAX, &c->doc, NULL) == MR_OK) {
    if (mr_given_take(&c->g)) fn(ud, c);
    return;
  }
  c->broken = fn != NULL; /* a hook that was removed has no opinion */
  mr_given_refuse(&c->g);
}

const struct mr_val *mr_hook_input(const struct mr_hook_call *c)
{
  return (const struct mr_val *)yyjson_doc_get_root(c->doc);
}

static int read_decision(struct mr_hook_call *c, yyjson_val *d)
{
  const struct mr_mem *m = mr_rt_mem(c->g.rt);
  struct mr_str what = mr_json_get_str(d, "decision"), message = mr_json_get_str(d, "message");
  yyjson_val *input = mr_json_get(d, "input");
  struct mr_buf b;

  if (!d || yyjson_is_null(d)) return MR_OK;
  c->decided = true;
  if (mr_str_is(what, "rewrite") && yyjson_is_obj(input)) {
    c->decision = MR_PERMIT_REWRITE;
    mr_buf_init(&b, m, 2 * (size_t)DECISION_MAX);
    mr_json_write(&b, input, false);
    c->detail = mr_buf_take(&b, NULL);
    return c->detail ? MR_OK : MR_E_NOMEM;
  }
  if (mr_str_is(what, "allow"))
    c->decision = MR_PERMIT_ALLOW;
  else if (mr_str_is(what, "ask"))
    c->decision = MR_PERMIT_ASK;
  else if (mr_str_is(what, "deny"))
    c->decision = MR_PERMIT_DENY;
  else
    return MR_E_INVALID;
  c->detail = mr_mem_strdup(m, message);
  return c->detail ? MR_OK : MR_E_NOMEM;
}

int mr_hook_decide_val(struct mr_hook_call **cp, yyjson_val *decision)
{
  struct mr_hook_call *c = *cp;
  int code = read_decision(c, decision);

  *cp = NULL;
  c->broken = code != MR_OK;
  mr_given_answer(&c->g);
  return code;
}

int mr_hook_decide(struct mr_hook_call **cp, const char *json)
{
  yyjson_doc *doc = NULL;
  struct mr_str text = mr_str_c(json);
  struct mr_runtime *rt;
  int code = cp && *cp ? mr_rt_check((*cp)->g.rt, NULL) : MR_E_INVALID;

  if (code != MR_OK) return code;
  rt = (*cp)->g.rt;
  if (mr_str_trim(text).n) code = mr_json_parse(mr_rt_mem(rt), text, DECISION_MAX, &doc, NULL);
  if (code != MR_OK) {
    struct mr_hook_call *c = *cp;
    *cp = NULL;
    c->broken = true;
    mr_given_answer(&c->g);
    return code;
  }
  mr_rt_ref(rt); /* the document's memory: the call may be the runtime's last holder */
  code = mr_hook_decide_val(cp, yyjson_doc_get_root(doc));
  yyjson_doc_free(doc);
  mr_rt_unref(rt);
  return code;
}
