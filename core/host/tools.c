/*
 * tools.c - tool handlers in the host: the registry, and the domain's tool runner on top of it.
 *
 * A handler has a slot, by name and agent, that lasts over replacement; which function runs is looked up when
 * a call is handed out in mr_dispatch, so after mr_tool_remove or a replacement returns on the dispatching
 * thread, the old one is called for nothing new. Calls handed out before keep theirs, for cancel too. At most
 * `concurrency` calls of a slot are with the host; others wait in order, on the loop.
 *
 * Who owns a call is asked by the domain on the loop: the slot for that very agent, else the one for all.
 * Invariant: slot->out counts the uses that are in the queue or with the host; each leaves through use_over.
 */
#include "host/host_t.h"

enum { TIMEOUT_MS = 120000, CONCURRENCY = 64, RESULT_MAX = 16 << 20, NAME_MAX_CHARS = 128 };

struct slot {
  struct slot *next;
  char *name, *agent; /* agent NULL: all */
  /* the registration; the registry's lock */
  bool registered;
  unsigned flags;
  int timeout_ms, concurrency;
  void (*run)(void *ud, struct mr_use *use);
  void (*cancel)(void *ud, struct mr_use *use);
  void *ud;
  /* loop */
  int out;
  struct mr_use *first, **last; /* waiting */
};

struct mr_tools {
  pthread_mutex_t lock;
  struct slot *slots; /* never freed before the runtime ends */
};

enum { NAME, EVENT_ID, SESSION_ID, THREAD_ID, AGENT, INPUT, STRINGS };

/* One for each call that waits for the host: many. */
struct mr_use {
  struct mr_given g;
  struct slot *slot;
  struct mr_use *next; /* loop: waiting */
  bool waiting;
  struct mr_tool_run *run; /* loop: NULL once settled */
  uint32_t n[STRINGS];     /* lengths of the texts in strings; each ends with a zero byte */
  int attempt;
  int64_t deadline_us;
  yyjson_doc *doc;                              /* input, parsed when handed out */
  void (*cancel)(void *ud, struct mr_use *use); /* of the registration it was handed to */
  void *ud;
  char *result; /* the answer: JSON text, or NULL */
  bool failed;
  char strings[];
};

int mr_tools_new(struct mr_runtime *rt)
{
  rt->tools = mr_mem_zalloc(mr_rt_mem(rt), sizeof *rt->tools);
  if (!rt->tools) return MR_E_NOMEM;
  pthread_mutex_init(&rt->tools->lock, NULL);
  return MR_OK;
}

static void slot_free(const struct mr_mem *m, struct slot *s)
{
  mr_mem_free(m, s->name);
  mr_mem_free(m, s->agent);
  mr_mem_free(m, s);
}

void mr_tools_free(struct mr_runtime *rt)
{
  struct mr_tools *t = rt->tools;

  if (!t) return;
  for (struct slot *s = t->slots, *next; s; s = next) {
    next = s->next;
    slot_free(mr_rt_mem(rt), s);
  }
  pthread_mutex_destroy(&t->lock);
  mr_mem_free(mr_rt_mem(rt), t);
  rt->tools = NULL;
}

/* ---- the registry ---- */

/* Lock held. */
static struct slot *find(struct mr_tools *t, struct mr_str name, struct mr_str agent)
{
  struct slot *s = t->slots;

  while (s && !(mr_str_is(name, s->name) && (s->agent ? agent.n && mr_str_is(agent, s->agent) : !agent.n)))
    s = s->next;
  return s;
}

/* Lock held: whose is a call of this tool by this agent? */
static struct slot *owner(struct mr_tools *t, struct mr_str name, struct mr_str agent_id,
                          struct mr_str agent_name)
{
  struct slot *s = find(t, name, agent_id);

  if (!s || !s->registered) s = find(t, name, agent_name);
  if (!s || !s->registered) s = find(t, name, mr_str_n(NULL, 0));
  return s && s->registered && !(s->flags & MR_TOOL_ANSWERED_BY_CLIENT) ? s : NULL;
}

static bool name_ok(struct mr_str s)
{
  for (size_t i = 0; i < s.n; i++) {
    char c = s.p[i];
    if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '-'))
      return false;
  }
  return s.n > 0 && s.n <= NAME_MAX_CHARS;
}

static int check_tool(struct mr_runtime *rt, const struct mr_tool *t, struct mr_err *err)
{
  yyjson_doc *doc = NULL;
  bool obj = true;

  if (!name_ok(mr_str_c(t->name)))
    return mr_err_set(err, MR_E_INVALID, "name", "name: 1 to 128 of A-Z a-z 0-9 _ -");
  if (!t->run && !(t->flags & MR_TOOL_ANSWERED_BY_CLIENT))
    return mr_err_set(err, MR_E_INVALID, "run", "run: the tool \"%s\" needs a handler", t->name);
  if (t->flags & ~(unsigned)(MR_TOOL_IDEMPOTENT | MR_TOOL_ANSWERED_BY_CLIENT))
    return mr_err_set(err, MR_E_INVALID, "flags", "flags: %u is no combination of MR_TOOL_*", t->flags);
  if (t->timeout_ms < 0)
    return mr_err_set(err, MR_E_INVALID, "timeout_ms", "timeout_ms: milliseconds, or 0 for %d", TIMEOUT_MS);
  if (t->concurrency < 0 || t->concurrency > 100000)
    return mr_err_set(err, MR_E_INVALID, "concurrency", "concurrency: 1 to 100000, or 0 for %d", CONCURRENCY);
  if (t->input_schema && t->input_schema[0]) {
    obj = mr_json_parse(mr_rt_mem(rt), mr_str_c(t->input_schema), 1 << 20, &doc, NULL) == MR_OK &&
          yyjson_is_obj(yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
  }
  return obj ? MR_OK : mr_err_set(err, MR_E_INVALID, "input_schema", "input_schema: a JSON Schema, an object");
}

int mr_tool_add(struct mr_runtime *rt, const struct mr_tool *given, struct mr_err *err)
{
  struct mr_tool t = {0};
  struct slot *s, *made = NULL;
  int code = mr_rt_check(rt, err);

  if (code == MR_OK && (!given || given->size < offsetof(struct mr_tool, cancel)))
    code = mr_err_set(err, MR_E_INVALID, "size", "size: set it to sizeof(struct mr_tool)");
  if (code != MR_OK) return code;
  memcpy(&t, given, given->size < sizeof t ? given->size : sizeof t);
  code = check_tool(rt, &t, err);
  if (code == MR_OK && atomic_load(&rt->closing))
    code = mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
  if (code != MR_OK) return code;
  made = mr_mem_zalloc(mr_rt_mem(rt), sizeof *made);
  if (made) {
    made->name = mr_mem_strdup(mr_rt_mem(rt), mr_str_c(t.name));
    made->agent = t.agent && t.agent[0] ? mr_mem_strdup(mr_rt_mem(rt), mr_str_c(t.agent)) : NULL;
    made->last = &made->first;
  }
  if (!made || !made->name || (t.agent && t.agent[0] && !made->agent)) {
    if (made) slot_free(mr_rt_mem(rt), made);
    return mr_err_nomem(err);
  }
  pthread_mutex_lock(&rt->tools->lock);
  s = find(rt->tools, mr_str_c(t.name), mr_str_c(made->agent));
  if (!s) {
    s = made;
    made = NULL;
    s->next = rt->tools->slots;
    rt->tools->slots = s;
  }
  s->registered = true;
  s->flags = t.flags;
  s->timeout_ms = t.timeout_ms ? t.timeout_ms : TIMEOUT_MS;
  s->concurrency = t.concurrency ? t.concurrency : CONCURRENCY;
  s->run = t.run;
  s->cancel = t.cancel;
  s->ud = t.ud;
  pthread_mutex_unlock(&rt->tools->lock);
  if (made) slot_free(mr_rt_mem(rt), made);
  return MR_OK;
}

int mr_tool_remove(struct mr_runtime *rt, const char *name, const char *agent)
{
  struct slot *s;
  int code = mr_rt_check(rt, NULL);

  if (code == MR_OK && atomic_load(&rt->closing)) code = MR_E_CLOSED;
  if (code != MR_OK) return code;
  pthread_mutex_lock(&rt->tools->lock);
  s = find(rt->tools, mr_str_c(name), mr_str_c(agent));
  code = s && s->registered ? MR_OK : MR_E_NOTFOUND;
  if (s) s->registered = false;
  pthread_mutex_unlock(&rt->tools->lock);
  return code;
}

/* ---- the domain's side, on the loop ---- */

static int owns(void *ud, struct mr_str tool, struct mr_str agent_id, struct mr_str agent_name)
{
  struct mr_runtime *rt = ud;
  struct slot *s;
  int what = 0;

  pthread_mutex_lock(&rt->tools->lock);
  s = owner(rt->tools, tool, agent_id, agent_name);
  if (s) what = MR_OWNS | (s->flags & MR_TOOL_IDEMPOTENT ? MR_OWNS_IDEMPOTENT : 0);
  pthread_mutex_unlock(&rt->tools->lock);
  return what;
}

static void hand_out(struct slot *s, int concurrency)
{
  struct mr_use *u;

  while ((u = s->first) && s->out < concurrency) {
    s->first = u->next;
    if (!s->first) s->last = &s->first;
    u->next = NULL;
    u->waiting = false;
    s->out++;
    mr_given_push(&u->g);
  }
}

static int concurrency_of(struct mr_runtime *rt, const struct slot *s)
{
  int n;

  pthread_mutex_lock(&rt->tools->lock);
  n = s->registered ? s->concurrency : CONCURRENCY; /* removed: let them fail */
  pthread_mutex_unlock(&rt->tools->lock);
  return n;
}

static struct mr_str text_of(const struct mr_use *u, int which)
{
  const char *p = u->strings;

  for (int i = 0; i < which; i++)
    p += u->n[i] + 1;
  return mr_str_n(p, u->n[which]);
}

static void use_free(struct mr_given *g)
{
  struct mr_use *u = MR_OF(g, struct mr_use, g);
  const struct mr_mem *m = mr_rt_mem(g->rt);

  yyjson_doc_free(u->doc);
  mr_mem_free(m, u->result);
  mr_mem_free(m, u);
}

static void run_use(struct mr_entry *e);
static void run_cancel(struct mr_entry *e);
static void on_answer(struct mr_post *p);

static int start(void *ud, struct mr_tool_run *run)
{
  struct mr_runtime *rt = ud;
  struct mr_str texts[STRINGS] = {run->name,      run->event_id,   run->session_id,
                                  run->thread_id, run->agent_name, run->input};
  size_t n = STRINGS;
  for (int i = 0; i < STRINGS; i++)
    n += texts[i].n;
  struct mr_use *u = n < UINT32_MAX ? mr_mem_alloc(mr_rt_mem(rt), sizeof *u + n) : NULL;
  struct slot *s;
  char *at;
  int concurrency = 0;

  if (!u) return MR_E_NOMEM;
  memset(u, 0, sizeof *u);
  pthread_mutex_lock(&rt->tools->lock);
  s = owner(rt->tools, run->name, run->agent_id, run->agent_name);
  if (s) {
    run->timeout_ms = s->timeout_ms;
    concurrency = s->concurrency;
  }
  pthread_mutex_unlock(&rt->tools->lock);
  if (!s) {
    mr_mem_free(mr_rt_mem(rt), u);
    return MR_E_NOTFOUND;
  }
  mr_given_init(&u->g, rt, run_use, run_cancel, on_answer, use_free);
  at = u->strings;
  for (int i = 0; i < STRINGS; i++) {
    if (texts[i].n) memcpy(at, texts[i].p, texts[i].n);
    u->n[i] = (uint32_t)texts[i].n;
    at += texts[i].n;
    *at++ = '\0';
  }
  u->attempt = run->attempt;
  u->deadline_us = mr_loop_now_us(rt->loop) + run->timeout_ms * 1000;
  u->slot = s;
  u->run = run;
  run->host = u;
  u->waiting = true;
  *s->last = u;
  s->last = &u->next;
  hand_out(s, concurrency);
  return MR_OK;
}

/* The use has come back, or never left: the next one may go. */
static void use_over(struct mr_use *u)
{
  struct slot *s = u->slot;

  s->out--;
  hand_out(s, concurrency_of(u->g.rt, s));
  mr_given_unref(&u->g);
}

static void on_answer(struct mr_post *p)
{
  struct mr_use *u = MR_OF(MR_OF(p, struct mr_given, answer), struct mr_use, g);
  struct mr_tool_run *run = u->run;

  u->run = NULL;
  if (run) mr_tool_run_done(u->g.rt->domain, run, mr_str_c(u->result), u->failed);
  mr_given_unref(&u->g); /* the post's */
  use_over(u);
}

/* The domain has settled the call itself. */
static void cancel(void *ud, struct mr_tool_run *run)
{
  struct mr_use *u = run->host, **at;

  (void)ud;
  u->run = NULL;
  if (u->waiting) {
    for (at = &u->slot->first; *at != u; at = &(*at)->next)
      continue;
    *at = u->next;
    if (!*at) u->slot->last = at;
    mr_given_unref(&u->g);
  } else if (mr_given_drop(&u->g)) {
    use_over(u);
  }
}

struct mr_tool_runner mr_tools_runner(struct mr_runtime *rt)
{
  return (struct mr_tool_runner){.ud = rt, .owns = owns, .start = start, .cancel = cancel};
}

/* ---- the host's side ---- */

static char *quoted(const struct mr_mem *m, struct mr_str text)
{
  struct mr_buf b;

  mr_buf_init(&b, m, 8 * (size_t)RESULT_MAX);
  mr_json_quote(&b, text);
  return mr_buf_take(&b, NULL);
}

static void run_use(struct mr_entry *e)
{
  struct mr_use *u = MR_OF(MR_OF(e, struct mr_given, give), struct mr_use, g);
  struct mr_runtime *rt = u->g.rt;
  void (*run)(void *, struct mr_use *);
  void *ud;

  if (atomic_load(&rt->closing)) {
    mr_given_refuse(&u->g);
    return;
  }
  pthread_mutex_lock(&rt->tools->lock);
  run = u->slot->registered ? u->slot->run : NULL;
  u->cancel = u->slot->cancel;
  u->ud = ud = u->slot->ud;
  pthread_mutex_unlock(&rt->tools->lock);
  if (run && mr_json_parse(mr_rt_mem(rt), text_of(u, INPUT), SIZE_MAX, &u->doc, NULL) == MR_OK) {
    if (mr_given_take(&u->g)) run(ud, u);
    return;
  }
  u->failed = true;
  u->result =
      quoted(mr_rt_mem(rt), run ? MR_S("out of memory") : MR_S("no handler for this tool is loaded any more"));
  mr_given_refuse(&u->g);
}

static void run_cancel(struct mr_entry *e)
{
  struct mr_use *u = MR_OF(MR_OF(e, struct mr_given, unwanted), struct mr_use, g);

  if (u->cancel && !(atomic_load(&u->g.state) & MR_GIVEN_ANSWERED)) u->cancel(u->ud, u);
  mr_given_unref(&u->g);
}

/* Takes over result (allocated, or NULL) and the host's reference. */
static int finish(struct mr_use **up, char *result, bool failed)
{
  struct mr_use *u = *up;

  *up = NULL;
  u->result = result;
  u->failed = failed;
  mr_given_answer(&u->g);
  return MR_OK;
}

static int check_use(struct mr_use **up)
{
  if (!up || !*up) return MR_E_INVALID;
  return mr_rt_check((*up)->g.rt, NULL);
}

int mr_use_finish(struct mr_use **up, const char *json)
{
  const struct mr_mem *m;
  struct mr_str text = mr_str_c(json);
  yyjson_doc *doc = NULL;
  char *copy;
  int code = check_use(up);

  if (code != MR_OK) return code;
  m = mr_rt_mem((*up)->g.rt);
  if (!mr_str_trim(text).n) return finish(up, NULL, false);
  code = mr_json_parse(m, text, RESULT_MAX, &doc, NULL);
  yyjson_doc_free(doc);
  if (code != MR_OK) {
    /* Released all the same: a use that nobody holds would keep the turn waiting. */
    finish(up,
           quoted(m, code == MR_E_TOO_LARGE ? MR_S("the tool's result is over the limit of 16 MiB")
                                            : MR_S("the tool's result is not valid JSON")),
           true);
    return code;
  }
  copy = mr_mem_strdup(m, text);
  finish(up, copy, copy == NULL);
  return copy ? MR_OK : MR_E_NOMEM;
}

int mr_use_finish_val(struct mr_use **up, yyjson_val *result)
{
  struct mr_buf b;
  char *text;

  mr_buf_init(&b, mr_rt_mem((*up)->g.rt), RESULT_MAX);
  if (result) mr_json_write(&b, result, false);
  if (b.failed) {
    int code = b.failed;
    finish(up, quoted(b.mem, MR_S("the tool's result is over the limit of 16 MiB")), true);
    return code;
  }
  text = mr_buf_take(&b, NULL);
  return finish(up, text, false);
}

int mr_use_fail(struct mr_use **up, const char *message)
{
  struct mr_str text = mr_str_c(message && message[0] ? message : "the tool failed");
  int code = check_use(up);

  if (code != MR_OK) return code;
  if (text.n > RESULT_MAX) text.n = mr_utf8_cut(text, RESULT_MAX);
  return finish(up, quoted(mr_rt_mem((*up)->g.rt), text), true);
}

struct mr_str mr_use_name(const struct mr_use *u)
{
  return text_of(u, NAME); /* its own: a use may outlive the slots */
}
struct mr_str mr_use_input(const struct mr_use *u)
{
  return text_of(u, INPUT);
}
struct mr_str mr_use_id(const struct mr_use *u)
{
  return text_of(u, EVENT_ID);
}
struct mr_str mr_use_session(const struct mr_use *u)
{
  return text_of(u, SESSION_ID);
}
struct mr_str mr_use_thread(const struct mr_use *u)
{
  return text_of(u, THREAD_ID);
}
struct mr_str mr_use_agent(const struct mr_use *u)
{
  return text_of(u, AGENT);
}
int mr_use_attempt(const struct mr_use *u)
{
  return u->attempt;
}

const struct mr_val *mr_use_input_val(const struct mr_use *u)
{
  return (const struct mr_val *)yyjson_doc_get_root(u->doc);
}

void mr_use_input_drop(struct mr_use *u)
{
  yyjson_doc_free(u->doc);
  u->doc = NULL;
}

int64_t mr_use_deadline_ms(const struct mr_use *u)
{
  int64_t left = u->deadline_us - mr_mono_us(&u->g.rt->sys);
  return left > 0 ? left / 1000 : 0;
}

int mr_use_cancelled(const struct mr_use *u)
{
  return (atomic_load(&((struct mr_use *)(uintptr_t)u)->g.state) & MR_GIVEN_UNWANTED) != 0;
}
