/*
 * hook_ask.c - questions of the core to the host's hooks. A question goes to the hooks of its phase one after the
 * other, in the order they were added. In permit the first that decides wins; in the other phases each is asked
 * about what those before it made of the input. Each has DEADLINE to answer; after it, and when its answer cannot
 * be read, its fail default counts: refuse (MR_HOOK_FAIL_CLOSED), or the next one.
 *
 * What an answer may hold and what it does to the input is the domain's (agent/phase.c); it is worked out on the
 * thread that answers, not on the loop. Which hook is next is looked up when the one before has answered: a
 * question that is open while scripts are reloaded may go to hooks of both generations, but never past one.
 *
 * Invariant: a question (struct ask) is answered at most once, from the drain, and not at all when the domain
 * drops it. A call (struct mr_hook_call) belongs to one question and one hook, and may outlive both in the
 * host's hands.
 */
#include "host/hooks_t.h"

#include <stdio.h>

enum { DEADLINE_US = 30 * 1000 * 1000, DECISION_MAX = 16 << 20 };

struct ask {
  struct ask *next, **link;
  struct mr_runtime *rt;
  enum mr_phase phase;
  struct mr_subject who;     /* strings in text */
  struct mr_question *q;     /* NULL: nobody waits for the answer */
  struct mr_hook_asked to;   /* the hook asked last */
  struct mr_hook_call *call; /* with the queue or the host; NULL: answering */
  struct mr_timer timer;
  struct mr_ready ready;
  char *input; /* as the hooks so far have made it */
  size_t n;
  unsigned said;   /* what they have changed */
  yyjson_doc *doc; /* input, once it was changed; the decision */
  char *why;       /* of a refusal */
  char text[];
};

struct mr_hook_call {
  struct mr_given g;
  struct ask *ask; /* loop: NULL once settled */
  int hook;        /* id */
  enum mr_phase phase;
  yyjson_doc *doc; /* input, parsed when handed out */
  bool broken;     /* the answer cannot be read: the fail default counts */
  struct mr_err err;
  unsigned said; /* the answer; 0: no opinion */
  char *made;    /* what mr_phase_read made of it */
  size_t made_n;
  yyjson_doc *value; /* that, parsed; not of a refusal */
  size_t n;
  char text[];
};

/* ---- questions, on the loop ---- */

static void ask_free(struct ask *a)
{
  const struct mr_mem *m = mr_rt_mem(a->rt);

  mr_timer_cancel(a->rt->loop, &a->timer);
  mr_ready_cancel(a->rt->loop, &a->ready);
  *a->link = a->next;
  if (a->next) a->next->link = a->link;
  yyjson_doc_free(a->doc);
  mr_mem_free(m, a->input);
  mr_mem_free(m, a->why);
  mr_mem_free(m, a);
}

static void on_ready(struct mr_ready *r)
{
  struct ask *a = MR_OF(r, struct ask, ready);
  struct mr_question *q = a->q;
  struct mr_answer answer = {.said = a->said, .why = mr_str_c(a->why ? a->why : ""), .value = a->doc};

  if (q) {
    q->host = NULL;
    q->done(q, &answer);
    a->doc = answer.value;
  }
  ask_free(a);
}

static void answer(struct ask *a)
{
  mr_timer_cancel(a->rt->loop, &a->timer);
  mr_ready_post(a->rt->loop, &a->ready);
}

/* why: allocated or NULL, taken over. */
static void refuse(struct ask *a, char *why)
{
  a->said = MR_SAID_REFUSE;
  mr_mem_free(mr_rt_mem(a->rt), a->why);
  a->why = why;
  answer(a);
}

static void call_free(struct mr_given *g)
{
  struct mr_hook_call *c = MR_OF(g, struct mr_hook_call, g);
  const struct mr_mem *m = mr_rt_mem(g->rt);

  yyjson_doc_free(c->doc);
  yyjson_doc_free(c->value);
  mr_mem_free(m, c->made);
  mr_mem_free(m, c);
}

static void run_call(struct mr_entry *e);
static void run_nothing(struct mr_entry *e);
static void on_answer(struct mr_post *p);

/* The default of the hook asked last; false: the next one is to be asked. */
static bool failed(struct ask *a, const char *what)
{
  char why[120];

  if (!a->to.fail_closed) return false;
  snprintf(why, sizeof why, "The %s hook %s",
           a->phase == MR_PHASE_PERMIT ? "permission" : mr_phase_name(a->phase), what);
  refuse(a, mr_mem_strdup(mr_rt_mem(a->rt), mr_str_c(why)));
  return true;
}

static void ask_next(struct ask *a)
{
  struct mr_runtime *rt = a->rt;
  struct mr_hook_call *c;

  for (;;) {
    if (!mr_hooks_next(rt, &a->to, a->phase, &a->who)) {
      answer(a);
      return;
    }
    if (atomic_load(&rt->closing)) { /* nobody dispatches any more */
      if (failed(a, "was not asked: the program is closing.")) return;
      continue;
    }
    c = mr_mem_alloc(mr_rt_mem(rt), sizeof *c + a->n);
    if (c && mr_timer_set(rt->loop, &a->timer, DEADLINE_US) == MR_OK) break;
    mr_mem_free(mr_rt_mem(rt), c);
    if (failed(a, "could not be asked: out of memory.")) return;
  }
  memset(c, 0, sizeof *c);
  mr_given_init(&c->g, rt, run_call, run_nothing, on_answer, call_free);
  c->ask = a;
  c->hook = a->to.id;
  c->phase = a->phase;
  c->n = a->n;
  memcpy(c->text, a->input, c->n);
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
  mr_log(&a->rt->sys, MR_LOG_WARN, "hooks", "%s did not answer within %d s: %s", a->to.label,
         DEADLINE_US / 1000000, a->to.fail_closed ? "refused" : "it is passed over");
  if (!failed(a, "did not answer in time.")) ask_next(a);
}

/* What one hook has said, and not refused: the next one and the domain see it. */
static void take(struct ask *a, struct mr_hook_call *c)
{
  a->said |= c->said;
  yyjson_doc_free(a->doc);
  a->doc = c->value;
  c->value = NULL;
  mr_mem_free(mr_rt_mem(a->rt), a->input);
  a->input = c->made;
  a->n = c->made_n;
  c->made = NULL;
}

static void on_answer(struct mr_post *p)
{
  struct mr_hook_call *c = MR_OF(MR_OF(p, struct mr_given, answer), struct mr_hook_call, g);
  struct ask *a = c->ask;

  c->ask = NULL;
  if (a) {
    a->call = NULL;
    if (c->broken) {
      mr_log(&a->rt->sys, MR_LOG_WARN, "hooks", "the answer of %s cannot be read (%s): %s", a->to.label,
             c->err.message[0] ? c->err.message : mr_strerror(c->err.code),
             a->to.fail_closed ? "refused" : "it is passed over");
      if (!failed(a, "failed.")) ask_next(a);
    } else if (c->said & MR_SAID_REFUSE) {
      refuse(a, c->made);
      c->made = NULL;
    } else {
      if (c->said) take(a, c);
      if (c->said && a->phase == MR_PHASE_PERMIT)
        answer(a);
      else
        ask_next(a);
    }
  }
  mr_given_unref(&c->g); /* the post's */
  mr_given_unref(&c->g);
}

static struct mr_str keep(char **at, struct mr_str s)
{
  struct mr_str kept = {*at, s.n};
  if (s.n) memcpy(*at, s.p, s.n);
  *at += s.n;
  return kept;
}

static int ask(void *ud, enum mr_phase p, const struct mr_subject *who, struct mr_str input,
               struct mr_question *q)
{
  struct mr_runtime *rt = ud;
  const struct mr_mem *m = mr_rt_mem(rt);
  struct ask *a = mr_mem_alloc(m, sizeof *a + who->agent.n + who->agent_id.n + who->tool.n);
  char *text = mr_mem_alloc(m, input.n), *at;

  if (!a || !text) {
    mr_mem_free(m, a);
    mr_mem_free(m, text);
    return MR_E_NOMEM;
  }
  memset(a, 0, sizeof *a);
  a->rt = rt;
  a->phase = p;
  at = a->text;
  a->who = (struct mr_subject){keep(&at, who->agent), keep(&at, who->agent_id), keep(&at, who->tool)};
  a->q = q;
  if (q) q->host = a;
  a->to.id = -1;
  a->input = text;
  a->n = input.n;
  memcpy(text, input.p, input.n);
  mr_timer_init(&a->timer, on_timer);
  mr_ready_init(&a->ready, on_ready);
  a->next = rt->hooks->asks;
  a->link = &rt->hooks->asks;
  if (a->next) a->next->link = &a->next;
  rt->hooks->asks = a;
  ask_next(a);
  return MR_OK;
}

static void drop(void *ud, struct mr_question *q)
{
  struct ask *a = q->host;

  (void)ud;
  q->host = NULL;
  if (!a) return;
  let_go(a);
  ask_free(a);
}

struct mr_hooks mr_hooks_asker(struct mr_runtime *rt)
{
  return (struct mr_hooks){.ud = rt, .has = mr_hooks_has, .ask = ask, .drop = drop};
}

void mr_hooks_close(struct mr_runtime *rt)
{
  for (struct ask *a = rt->hooks ? rt->hooks->asks : NULL, *next; a; a = next) {
    bool asked = a->call != NULL;
    next = a->next;
    let_go(a);
    if (!a->q)
      ask_free(a);
    else if (asked && !failed(a, "did not answer: the program is closing."))
      answer(a);
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
  void *ud = NULL;
  mr_hook_fn fn;

  if (atomic_load(&rt->closing)) {
    mr_given_refuse(&c->g);
    return;
  }
  fn = mr_hooks_fn(rt, c->hook, &ud);
  if (fn && mr_json_parse(mr_rt_mem(rt), mr_str_n(c->text, c->n), SIZE_MAX, &c->doc, NULL) == MR_OK) {
    if (mr_given_take(&c->g)) fn(ud, c);
    return;
  }
  c->broken = fn != NULL; /* a hook that was removed has no opinion */
  c->err.code = MR_E_NOMEM;
  mr_given_refuse(&c->g);
}

const struct mr_val *mr_hook_input(const struct mr_hook_call *c)
{
  return (const struct mr_val *)yyjson_doc_get_root(c->doc);
}

/* On the thread that answers: the loop only takes over what comes out. */
static int read_answer(struct mr_hook_call *c, yyjson_val *said)
{
  const struct mr_mem *m = mr_rt_mem(c->g.rt);
  struct mr_buf b;
  int code;

  mr_buf_init(&b, m, SIZE_MAX / 2);
  code = mr_phase_read(m, c->phase, yyjson_doc_get_root(c->doc), said, &c->said, &b, &c->err);
  if (code == MR_OK && c->said && !(c->said & MR_SAID_REFUSE))
    code = mr_json_parse(m, mr_buf_get(&b), SIZE_MAX, &c->value, &c->err);
  if (code == MR_OK && c->said) {
    c->made = mr_buf_take(&b, &c->made_n);
    if (!c->made) code = mr_err_nomem(&c->err);
  }
  mr_buf_free(&b);
  return code;
}

static int answered(struct mr_hook_call **cp, int code)
{
  struct mr_hook_call *c = *cp;

  *cp = NULL;
  c->broken = code != MR_OK;
  if (c->broken && !c->err.code) c->err.code = code;
  mr_given_answer(&c->g);
  return code;
}

int mr_hook_decide_val(struct mr_hook_call **cp, yyjson_val *decision)
{
  return answered(cp, read_answer(*cp, decision));
}

int mr_hook_decide(struct mr_hook_call **cp, const char *json)
{
  yyjson_doc *doc = NULL;
  struct mr_str text = mr_str_c(json);
  struct mr_runtime *rt;
  int code = cp && *cp ? mr_rt_check((*cp)->g.rt, NULL) : MR_E_INVALID;

  if (code != MR_OK) return code;
  rt = (*cp)->g.rt;
  if (mr_str_trim(text).n) code = mr_json_parse(mr_rt_mem(rt), text, DECISION_MAX, &doc, &(*cp)->err);
  if (code != MR_OK) return answered(cp, code);
  mr_rt_ref(rt); /* the document's memory: the call may be the runtime's last holder */
  code = mr_hook_decide_val(cp, yyjson_doc_get_root(doc));
  yyjson_doc_free(doc);
  mr_rt_unref(rt);
  return code;
}
