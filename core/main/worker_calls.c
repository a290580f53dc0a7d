/*
 * worker_calls.c - the tool calls of an item's session, from the event to the result's acknowledgement:
 *
 *   NEW (may start) or HELD (asks; waits for a confirmation) -> RUNNING in the sandbox -> SENDING -> gone
 *                                                                        UNSENT <-> SENDING
 *
 * Only the six tools of a sandbox are run. Other names, custom tools among them, are somebody else's to answer and are
 * left alone; web tools are the server's. A denied call is never run: the server answers it.
 *
 * Invariant: a call is in the list while it has no answer that we know of; `answered` has the ids of those that have.
 * The sandbox starts an id once, so that a call that is found again (another connection, a worker before this one)
 * gives the result that it had.
 */
#include "main/worker_t.h"

#include "main/client.h"

enum { SEND_S = 60, SEND_CAP_S = 8 };

enum call_state { CALL_NEW, CALL_HELD, CALL_RUNNING, CALL_SENDING, CALL_UNSENT };
struct call {
  struct call *next;
  struct item *it;
  enum call_state state;
  char *id, *name, *thread, *input;
  bool dropped;           /* it runs in the sandbox, and nobody waits for its result */
  bool cut;               /* it is ended before it is done, and says so */
  char *result;           /* content blocks */
  bool is_error, instead; /* instead: the result says that the result was not taken */
  struct ask *send;
  struct mr_timer timer;
  int tries;
  int64_t since_us; /* of its first sending */
};

/* ---- sets of ids ---- */

static uint64_t hash(struct mr_str s)
{
  uint64_t h = UINT64_C(14695981039346656037);

  for (size_t i = 0; i < s.n; i++)
    h = (h ^ (unsigned char)s.p[i]) * UINT64_C(1099511628211);
  return h ? h : 1; /* 0 is an empty slot */
}

static uint64_t *slot_of(const struct id_set *s, uint64_t h)
{
  size_t i = h & (s->cap - 1);

  while (s->slots[i] && s->slots[i] != h)
    i = (i + 1) & (s->cap - 1);
  return &s->slots[i];
}

static bool set_has(const struct id_set *s, struct mr_str id)
{
  return s->cap && *slot_of(s, hash(id));
}

static void set_add(struct worker *w, struct id_set *s, struct mr_str id)
{
  struct id_set old = *s;
  uint64_t *at;

  if (s->n * 2 >= s->cap) {
    s->cap = s->cap ? s->cap * 2 : 64;
    s->slots = mr_worker_zalloc(w, s->cap * sizeof *s->slots);
    for (size_t i = 0; i < old.cap; i++)
      if (old.slots[i]) *slot_of(s, old.slots[i]) = old.slots[i];
    mr_mem_free(w->mem, old.slots);
  }
  at = slot_of(s, hash(id));
  s->n += !*at;
  *at = hash(id);
}

/* ---- the list ---- */

static struct call *find(const struct item *it, struct mr_str id)
{
  struct call *c = it->calls;

  while (c && !mr_str_is(id, c->id))
    c = c->next;
  return c;
}

static void call_remove(struct call *c)
{
  struct item *it = c->it;
  const struct mr_mem *mem = it->w->mem;
  struct call **at = &it->calls;

  while (*at != c)
    at = &(*at)->next;
  *at = c->next;
  if (!c->next) it->calls_tail = at;
  mr_worker_drop(&c->send);
  mr_timer_cancel(it->w->loop, &c->timer);
  mr_mem_free(mem, c->id);
  mr_mem_free(mem, c->name);
  mr_mem_free(mem, c->thread);
  mr_mem_free(mem, c->input);
  mr_mem_free(mem, c->result);
  mr_mem_free(mem, c);
}

/* Nobody needs its result any more. What runs is cancelled, and leaves the list when it has come back. */
static void drop(struct call *c)
{
  if (c->state != CALL_RUNNING) {
    call_remove(c);
    return;
  }
  if (c->dropped) return;
  c->dropped = true;
  mr_sandbox_cancel(mr_worker_box_of(c->it->box), mr_str_c(c->id));
}

/* The list changed: there may be room for others, and nothing left to do. */
static void moved(struct item *it)
{
  if (mr_worker_ending(it)) {
    mr_worker_item_step(it);
    return;
  }
  mr_worker_calls_run(it);
  mr_worker_idle_check(it);
}

/* ---- the result goes out ---- */

static void send_result(struct call *c);
static void answer_text(struct call *c, const char *text);

static void on_sent(void *ud, const struct answer *a)
{
  struct call *c = ud;
  struct item *it = c->it;
  struct worker *w = it->w;
  int64_t left = c->since_us + it->ttl_us - mr_loop_now_us(w->loop), wait;

  if (a->fatal) mr_log(&w->sys, MR_LOG_WARN, "worker", "%s: result of %s not taken: %s", it->id, c->id, a->why);
  if ((a->status == 400 || a->status == 413) && !c->instead) { /* the call must not stay open for it */
    mr_mem_free(w->mem, c->result);
    c->instead = true;
    answer_text(c, "The tool ran, but its result could not be delivered.");
    return;
  }
  if (a->ok || a->fatal) { /* a refusal: it was answered otherwise, or will never be taken */
    set_add(w, &it->answered, mr_str_c(c->id));
    call_remove(c);
    moved(it);
    return;
  }
  wait = mr_worker_backoff(w, ++c->tries, WORKER_SECOND / 2, SEND_CAP_S * WORKER_SECOND, a);
  mr_log(&w->sys, MR_LOG_WARN, "worker", "%s: result of %s not sent: %s", it->id, c->id, a->why);
  if (left > 0) {
    mr_timer_set(w->loop, &c->timer, wait < left ? wait : left);
  } else {
    c->state = CALL_UNSENT;
    mr_worker_session_again(it);
  }
}

static void on_send_timer(struct mr_timer *t)
{
  send_result(MR_OF(t, struct call, timer));
}

static void send_result(struct call *c)
{
  struct worker *w = c->it->w;
  char path[1024];
  struct mr_buf body;
  struct mr_jw j;
  struct question q = {.verb = "POST", .key = c->it->token, .timeout_us = SEND_S * WORKER_SECOND};

  mr_buf_init(&body, w->mem, 64 << 20);
  mr_jw_init(&j, &body);
  mr_jw_obj(&j);
  mr_jw_key(&j, "events");
  mr_jw_arr(&j);
  mr_jw_obj(&j);
  mr_jw_kc(&j, "type", "user.tool_result");
  mr_jw_kc(&j, "tool_use_id", c->id);
  mr_jw_key(&j, "is_error");
  mr_jw_bool(&j, c->is_error);
  mr_jw_kraw(&j, "content", mr_str_c(c->result));
  mr_jw_obj_end(&j);
  mr_jw_arr_end(&j);
  mr_jw_obj_end(&j);
  if (body.failed == MR_E_NOMEM) mr_worker_nomem();
  q.path = mr_worker_session_path(c->it, path, sizeof path, "/events");
  q.body = mr_buf_get(&body);
  if (c->state != CALL_SENDING) {
    c->since_us = mr_loop_now_us(w->loop);
    c->tries = 0;
  }
  c->state = CALL_SENDING;
  mr_worker_ask(w, &c->send, &q, on_sent, c);
  mr_buf_free(&body);
}

static char *copy(struct item *it, struct mr_str s)
{
  char *p = mr_mem_strdup(it->w->mem, s);

  if (!p) mr_worker_nomem();
  return p;
}

static char *text_block(struct item *it, struct mr_str text)
{
  struct mr_buf b;
  struct mr_jw j;

  mr_buf_init(&b, it->w->mem, 1 << 20);
  mr_jw_init(&j, &b);
  mr_jw_arr(&j);
  mr_jw_obj(&j);
  mr_jw_kc(&j, "type", "text");
  mr_jw_kstr(&j, "text", text);
  mr_jw_obj_end(&j);
  mr_jw_arr_end(&j);
  if (b.failed) mr_worker_nomem();
  return mr_buf_take(&b, NULL);
}

static void answer_text(struct call *c, const char *text)
{
  c->is_error = true;
  c->result = text_block(c->it, mr_str_c(text));
  send_result(c);
}

/* ---- in the sandbox ---- */

static void on_result(void *ud, const struct mr_sandbox_result *r)
{
  struct call *c = ud;
  struct item *it = c->it;

  if (c->dropped) {
    call_remove(c);
    moved(it);
    return;
  }
  if (c->cut && r->code == MR_E_CANCELLED) {
    answer_text(
        c, "The worker that ran this had to end before it was done. What it did until then is lost with its "
           "sandbox, or not: look before you do it again.");
    return;
  }
  mr_log(&it->w->sys, MR_LOG_INFO, "worker", "%s: %s %s: %s", it->id, c->name, c->id,
         r->code != MR_OK ? (r->err ? r->err->message : mr_strerror(r->code))
         : r->is_error    ? "error"
                          : "done");
  if (r->code != MR_OK) {
    answer_text(c, r->err ? r->err->message : "the sandbox failed");
    return;
  }
  c->is_error = r->is_error;
  c->result = mr_str_is(r->content, "[]") ? text_block(it, MR_S("(no output)")) : copy(it, r->content);
  send_result(c);
}

/* False: it has to wait. */
static bool start(struct call *c)
{
  struct item *it = c->it;
  struct mr_sandbox_call call = {
      .exec_id = mr_str_c(c->id), .name = mr_str_c(c->name), .input = mr_str_c(c->input)};
  bool failed = false;
  int code;

  if (!it->box && !(it->box = mr_worker_box_take(it, &failed)) && !failed) return false;
  code = it->box ? mr_sandbox_call(mr_worker_box_of(it->box), &call, on_result, c) : MR_E_UNSUPPORTED;
  if (code == MR_E_FULL) return false;
  if (code != MR_OK) {
    answer_text(c, code == MR_E_INVALID ? "the call is not one that the tool can take"
                                        : "the sandbox could not be set up for this session");
    return true;
  }
  c->state = CALL_RUNNING;
  mr_log(&it->w->sys, MR_LOG_INFO, "worker", "%s: %s %s: runs", it->id, c->name, c->id);
  return true;
}

void mr_worker_calls_run(struct item *it)
{
  struct call *c, *next;

  if (!it->live || mr_worker_ending(it)) return;
  for (c = it->calls; c; c = next) {
    next = c->next;
    if (c->state == CALL_NEW && !it->w->draining && !start(c)) return;
  }
}

void mr_worker_calls_resend(struct item *it)
{
  for (struct call *c = it->calls; c; c = c->next)
    if (c->state == CALL_UNSENT) send_result(c);
}

/* ---- what events say ---- */

static bool ours(struct mr_str name)
{
  static const char *const names[] = {"bash", "read", "write", "edit", "glob", "grep"};

  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (mr_str_is(name, names[i])) return true;
  return false;
}

void mr_worker_call_seen(struct item *it, yyjson_val *e, bool live)
{
  struct mr_str id = mr_json_get_str(e, "id"), name = mr_json_get_str(e, "name");
  yyjson_val *permission = mr_json_get(e, "evaluated_permission");
  struct worker *w = it->w;
  struct mr_buf input;
  struct call *c;

  if (!id.n || !ours(name) || yyjson_equals_str(permission, "deny")) return;
  if (set_has(&it->answered, id) || find(it, id) || (live && set_has(&it->seen, id))) return;
  set_add(w, &it->seen, id);
  c = mr_worker_zalloc(w, sizeof *c);
  mr_buf_init(&input, w->mem, 64 << 20);
  mr_json_write(&input, mr_json_get(e, "input"), false);
  c->it = it;
  c->id = copy(it, id);
  c->name = copy(it, name);
  c->thread = copy(it, mr_json_get_str(e, "session_thread_id"));
  c->input = copy(it, input.n ? mr_buf_get(&input) : MR_S("{}"));
  mr_buf_free(&input);
  mr_timer_init(&c->timer, on_send_timer);
  /* What is not known to be allowed waits for somebody to say so. */
  c->state = !permission || yyjson_equals_str(permission, "allow") ? CALL_NEW : CALL_HELD;
  if (c->state == CALL_HELD)
    mr_log(&w->sys, MR_LOG_INFO, "worker", "%s: %s %s: waits for a confirmation", it->id, c->name, c->id);
  *it->calls_tail = c;
  it->calls_tail = &c->next;
}

void mr_worker_call_answered(struct item *it, struct mr_str id)
{
  struct call *c = find(it, id);

  if (!id.n) return;
  set_add(it->w, &it->answered, id);
  if (c) drop(c);
}

void mr_worker_call_verdict(struct item *it, struct mr_str id, bool allow)
{
  struct call *c = find(it, id);

  if (!c || c->state != CALL_HELD) return;
  mr_log(&it->w->sys, MR_LOG_INFO, "worker", "%s: %s %s: %s", it->id, c->name, c->id,
         allow ? "allowed" : "denied");
  if (allow)
    c->state = CALL_NEW;
  else
    call_remove(c); /* the server answers it */
}

void mr_worker_calls_thread_over(struct item *it, struct mr_str thread)
{
  struct call *c, *next;

  for (c = it->calls; c && thread.n; c = next) {
    next = c->next;
    if (mr_str_is(thread, c->thread)) drop(c);
  }
}

void mr_worker_calls_forget_new(struct item *it)
{
  struct call *c, *next;

  for (c = it->calls; c; c = next) {
    next = c->next;
    if (c->state == CALL_NEW || c->state == CALL_HELD) call_remove(c);
  }
}

/* ---- as a whole ---- */

bool mr_worker_calls_busy(const struct item *it)
{
  for (const struct call *c = it->calls; c; c = c->next)
    if (c->state == CALL_RUNNING || c->state == CALL_SENDING) return true;
  return false;
}

bool mr_worker_calls_open(const struct item *it)
{
  return it->calls != NULL;
}

void mr_worker_calls_cut(struct item *it)
{
  for (struct call *c = it->calls; c; c = c->next) {
    if (c->state != CALL_RUNNING || c->dropped || c->cut) continue;
    c->cut = true;
    mr_sandbox_cancel(mr_worker_box_of(it->box), mr_str_c(c->id));
  }
}

void mr_worker_calls_end(struct item *it)
{
  struct call *c, *next;

  for (c = it->calls; c; c = next) {
    next = c->next;
    drop(c);
  }
}

void mr_worker_calls_free(struct item *it)
{
  while (it->calls)
    call_remove(it->calls);
}
