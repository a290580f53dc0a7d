/*
 * why.c - the operation sessions.why: what does a session wait for? Reads its row, its inbox and the end of its log,
 * newest first, until the facts are together: the newest status, the model request or the tool calls that are open,
 * the calls that an idle session names; then the same of each child thread that runs.
 *
 * Invariant: only reads, one statement after the other, all bounded: a session that goes on meanwhile may be seen
 * between two steps, which the text then says of it. What it found is written by why_text.c.
 */
#include "agent/session_t.h"
#include "agent/why_t.h"

enum { PAGE = 200, PAGES_MAX = 40 };

/* The types that say something; the private ones have their id inside. */
#define K(lit)                                                                                                 \
  {                                                                                                            \
    (lit), sizeof(lit) - 1                                                                                     \
  }
static const struct mr_str kinds[] = {K("session.status_running"),
                                      K("session.status_idle"),
                                      K("session.status_rescheduled"),
                                      K("session.status_terminated"),
                                      K("session.error"),
                                      K("user.interrupt"),
                                      K("span.model_request_start"),
                                      K("span.model_request_end"),
                                      K("agent.thread_context_compacted"),
                                      K("span.outcome_evaluation_start"),
                                      K("span.outcome_evaluation_end"),
                                      K("agent.tool_use"),
                                      K("agent.mcp_tool_use"),
                                      K("agent.custom_tool_use"),
                                      K("agent.tool_result"),
                                      K("agent.mcp_tool_result"),
                                      K("user.tool_result"),
                                      K("user.custom_tool_result"),
                                      K("user.tool_confirmation"),
                                      K("tool.intent"),
                                      K("tool.claim"),
                                      K("tool.outcome"),
                                      K("model.retry")};
static const struct mr_str thread_kinds[] = {
    K("session.thread_created"), K("session.thread_status_running"), K("session.thread_status_idle"),
    K("session.thread_status_rescheduled"), K("session.thread_status_terminated")};
#define COUNT(a) (int)(sizeof(a) / sizeof *(a))

/* ---- what was found ---- */

static struct mr_str keep(struct mr_why *y, struct mr_str s)
{
  return s.n ? mr_arena_str(y->c->arena, s) : (struct mr_str){0};
}

static struct mr_why_thread *thread_get(struct mr_why *y, struct mr_str id)
{
  struct mr_why_thread *t = y->threads;

  while (t && !mr_str_eq(t->id, id))
    t = t->next;
  if (t) return t;
  t = mr_arena_alloc(y->c->arena, sizeof *t);
  if (!t) return NULL;
  t->id = keep(y, id);
  *y->threads_tail = t;
  y->threads_tail = &t->next;
  return t;
}

/* Rows come newest first: what refers to a call comes before the call. */
static struct mr_why_use *use_get(struct mr_why *y, struct mr_str id)
{
  struct mr_why_use *u = y->uses;

  while (u && !mr_str_eq(u->id, id))
    u = u->next;
  if (u || !id.n) return u;
  u = mr_arena_alloc(y->c->arena, sizeof *u);
  if (!u) return NULL;
  u->id = keep(y, id);
  u->next = y->uses;
  y->uses = u;
  return u;
}

static void see_use(struct mr_why *y, const struct mr_log_row *r, yyjson_val *j)
{
  struct mr_str perm = mr_json_get_str(j, "evaluated_permission"),
                owner = mr_json_get_str(j, "session_thread_id");
  struct mr_why_use *u = use_get(y, mr_json_get_str(j, "id"));

  if (!u || u->type.n) return; /* the copy of a child's call on the session's stream has the same id */
  u->type = keep(y, r->type);
  u->name = keep(y, mr_json_get_str(j, "name"));
  u->server = keep(y, mr_json_get_str(j, "mcp_server_name"));
  u->at_us = r->processed_us;
  u->ask = mr_str_is(perm, "ask");
  u->deny = mr_str_is(perm, "deny");
  u->thread = owner.n ? thread_get(y, owner) : y->reading;
  y->nfound += u->named;
}

/* Of an open request the one before it is looked for, too: how much its context held says what this one is for. */
static void see_span(struct mr_why_thread *t, const struct mr_log_row *r, yyjson_val *j)
{
  bool start = mr_str_is(r->type, "span.model_request_start");
  yyjson_val *u = mr_json_get(j, "model_usage");

  if (!t->span_seen && start) {
    t->span_open = true;
    t->span_us = r->processed_us;
  } else if (t->span_open && !t->before_seen && !start && !mr_json_get_bool(j, "is_error", false)) {
    t->before_seen = true;
    t->before_tokens = mr_json_get_int(u, "input_tokens", 0) + mr_json_get_int(u, "output_tokens", 0) +
                       mr_json_get_int(u, "cache_read_input_tokens", 0) +
                       mr_json_get_int(u, "cache_creation_input_tokens", 0);
  }
  t->span_seen = true;
}

static void see_grade(struct mr_why_thread *t, const struct mr_log_row *r, yyjson_val *j)
{
  if (!t->grade_seen && mr_str_is(r->type, "span.outcome_evaluation_start")) {
    t->grading = true;
    t->grade_us = r->processed_us;
    t->iteration = (int)mr_json_get_int(j, "iteration", 0);
  }
  t->grade_seen = true;
}

static void see_status(struct mr_why *y, const struct mr_log_row *r, yyjson_val *j)
{
  yyjson_val *stop = mr_json_get(j, "stop_reason"), *ids = mr_json_get(stop, "event_ids"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(ids);

  y->begun = true;
  if (y->status_seen) return;
  y->status_seen = true;
  y->since_us = r->processed_us;
  y->stop = keep(y, mr_json_get_str(stop, "type"));
  y->explanation = keep(y, mr_json_get_str(mr_json_get(j, "stop_details"), "explanation"));
  y->named = mr_arena_alloc(y->c->arena, (yyjson_arr_size(ids) + 1) * sizeof *y->named);
  while (y->named && ids && (v = yyjson_arr_iter_next(&it))) {
    struct mr_why_use *u = use_get(y, mr_json_str(v));
    if (!u || u->named) continue;
    u->named = true;
    y->named[y->nnamed++] = u;
  }
}

static void see_error(struct mr_why *y, yyjson_val *j)
{
  yyjson_val *e = mr_json_get(j, "error");
  struct mr_why_thread *t = y->reading;

  if (t->error.n) return;
  t->error = keep(y, mr_json_get_str(e, "type"));
  t->error_message = keep(y, mr_json_get_str(e, "message"));
  t->error_retry = keep(y, mr_json_get_str(mr_json_get(e, "retry_status"), "type"));
}

static void see_retry(struct mr_why_thread *t, yyjson_val *j)
{
  if (t->retry_seen) return;
  t->retry_seen = true;
  t->retry = (int)mr_json_get_int(j, "attempt", 0);
  t->retry_due_us = mr_json_get_int(j, "due_us", 0);
}

/* An answer, or a note about a call: by the member that names it. */
static void see_ref(struct mr_why *y, const struct mr_log_row *r, yyjson_val *j)
{
  struct mr_str id = mr_json_get_str(j, "event_id");
  struct mr_why_use *u;

  if (!id.n) id = mr_json_get_str(j, "tool_use_id");
  if (!id.n) id = mr_json_get_str(j, "custom_tool_use_id");
  if (!id.n) id = mr_json_get_str(j, "mcp_tool_use_id");
  u = use_get(y, id);
  if (!u) return;
  if (mr_str_is(r->type, "tool.intent")) {
    if (!u->intent_us) u->intent_us = r->processed_us;
  } else if (mr_str_is(r->type, "tool.claim")) {
    if (!u->claim_seen) u->claimed = mr_json_get_bool(j, "owned", true);
    u->claim_seen = true;
  } else if (mr_str_is(r->type, "tool.outcome")) {
    u->outcome = true;
  } else if (mr_str_is(r->type, "user.tool_confirmation")) {
    u->confirmed = true;
  } else {
    u->resolved = true;
  }
}

static void see(struct mr_why *y, const struct mr_log_row *r, yyjson_val *j)
{
  bool primary = y->reading == y->threads;

  if (mr_str_starts(r->type, MR_S("session.status_"))) {
    if (primary) see_status(y, r, j);
  } else if (mr_str_is(r->type, "session.error")) {
    see_error(y, j);
  } else if (mr_str_is(r->type, "user.interrupt")) {
    if (y->status_seen && y->since_us >= r->processed_us && !y->reading->span_seen) y->interrupted = true;
  } else if (mr_str_starts(r->type, MR_S("span.model_"))) {
    see_span(y->reading, r, j);
  } else if (mr_str_is(r->type, "agent.thread_context_compacted")) {
    y->reading->before_seen = true; /* what the request before it held is no more */
  } else if (mr_str_starts(r->type, MR_S("span.outcome_"))) {
    see_grade(y->reading, r, j);
  } else if (mr_str_is(r->type, "model.retry")) {
    see_retry(y->reading, j);
  } else if (mr_str_ends(r->type, MR_S("tool_use"))) {
    see_use(y, r, j);
  } else {
    see_ref(y, r, j);
  }
}

/* ---- reading logs ---- */

static void next_thread(struct mr_why *y);
static void read_page(struct mr_why *y);

/* Everything that is open began after the newest model request, if that is over. */
static bool enough(const struct mr_why *y, bool reply_seen)
{
  const struct mr_why_thread *t = y->reading;

  if (t != y->threads) return reply_seen;
  return reply_seen && y->status_seen && y->nfound >= y->nnamed && (!t->span_open || t->before_seen);
}

static void on_page(void *ud, const struct mr_rows *r)
{
  struct mr_why *y = ud;
  bool reply_seen = false;

  if (r->code != MR_OK) {
    mr_call_fail_err(y->c, r->err);
    return;
  }
  for (int i = 0; i < r->n && !enough(y, reply_seen); i++) {
    yyjson_doc *doc = NULL;
    if (mr_json_parse(y->c->mem, r->log[i].body, SIZE_MAX, &doc, NULL) != MR_OK) continue;
    see(y, &r->log[i], yyjson_doc_get_root(doc));
    reply_seen = reply_seen || mr_str_is(r->log[i].type, "span.model_request_start");
    y->pos = r->log[i].pos;
    yyjson_doc_free(doc);
  }
  if (r->more && !enough(y, reply_seen) && ++y->pages < PAGES_MAX)
    read_page(y);
  else
    next_thread(y);
}

static void read_page(struct mr_why *y)
{
  struct mr_log_query q = {.session_id = y->c->path[0],
                           .thread_id = y->reading == y->threads ? (struct mr_str){0} : y->reading->id,
                           .with_private = true,
                           .descending = true,
                           .types = kinds,
                           .ntypes = COUNT(kinds),
                           .after_pos = y->pos,
                           .limit = PAGE};
  mr_read_log(y->c->d->store, y->c->who.workspace, &q, on_page, y);
}

/* Is its own log needed to say what it does? What an idle session waits for is all on the primary's. */
static bool at_work(const struct mr_why *y, const struct mr_why_thread *t)
{
  if (mr_str_is(t->status, "running") || mr_str_is(t->status, "rescheduled")) return true;
  return mr_str_is(t->stop, "requires_action") && !mr_str_is(y->status, "idle");
}

/* The log of the next child that is at work; the answer when there is none. */
static void next_thread(struct mr_why *y)
{
  struct mr_why_thread *t = y->reading->next;

  while (t && !at_work(y, t))
    t = t->next;
  if (!t || !y->multiagent) {
    mr_why_write(y);
    mr_call_done(y->c, MR_OK);
    return;
  }
  y->reading = t;
  y->pos = 0;
  y->pages = 0;
  read_page(y);
}

/* ---- the child threads, by what the session's stream says of them ---- */

static void read_threads(struct mr_why *y);

static void see_thread(struct mr_why *y, const struct mr_log_row *r, yyjson_val *j)
{
  struct mr_str id = mr_json_get_str(j, "session_thread_id"), type = r->type;
  struct mr_why_thread *t = id.n ? thread_get(y, id) : NULL;
  size_t skip = strlen("session.thread_status_");

  if (!t || t->status.n) return; /* newest first */
  t->name = keep(y, mr_json_get_str(j, "agent_name"));
  t->since_us = r->processed_us;
  if (mr_str_is(type, "session.thread_created"))
    t->status = MR_S("idle");
  else
    t->status = keep(y, (struct mr_str){type.p + skip, type.n - skip});
  t->stop = keep(y, mr_json_get_str(mr_json_get(j, "stop_reason"), "type"));
}

static void on_threads(void *ud, const struct mr_rows *r)
{
  struct mr_why *y = ud;

  if (r->code != MR_OK) {
    mr_call_fail_err(y->c, r->err);
    return;
  }
  for (int i = 0; i < r->n; i++) {
    yyjson_doc *doc = NULL;
    if (mr_json_parse(y->c->mem, r->log[i].body, SIZE_MAX, &doc, NULL) != MR_OK) continue;
    see_thread(y, &r->log[i], yyjson_doc_get_root(doc));
    y->pos = r->log[i].pos;
    yyjson_doc_free(doc);
  }
  if (r->more && ++y->pages < PAGES_MAX) {
    read_threads(y);
    return;
  }
  y->pos = 0;
  y->pages = 0;
  read_page(y);
}

static void read_threads(struct mr_why *y)
{
  struct mr_log_query q = {.session_id = y->c->path[0],
                           .descending = true,
                           .types = thread_kinds,
                           .ntypes = COUNT(thread_kinds),
                           .after_pos = y->pos,
                           .limit = PAGE};
  mr_read_log(y->c->d->store, y->c->who.workspace, &q, on_threads, y);
}

/* ---- the session ---- */

static void on_inbox(void *ud, const struct mr_rows *r)
{
  struct mr_why *y = ud;

  if (r->code != MR_OK) {
    mr_call_fail_err(y->c, r->err);
    return;
  }
  y->queued = r->n;
  if (y->multiagent)
    read_threads(y);
  else
    read_page(y);
}

/* The revision that is under way of the outcome that is active, if one is. */
static int revision(yyjson_val *head)
{
  yyjson_val *list = mr_json_get(head, "outcome_evaluations"), *last = yyjson_arr_get_last(list);

  return mr_str_is(mr_json_get_str(last, "result"), "running") ? (int)mr_json_get_int(last, "iteration", 0) : 0;
}

static void copy_cap(struct mr_why *y, yyjson_val *budget, yyjson_val *reached)
{
  y->default_caps = !yyjson_is_obj(budget) || mr_budget_read(budget, &y->caps, NULL) != MR_OK;
  if (y->default_caps) y->caps = y->c->d->caps;
  y->cap = mr_cap_find(mr_json_get_str(reached, "cap"));
  y->cap_used = mr_json_get_int(reached, "used", 0);
  y->cap_max = mr_json_get_int(reached, "max", 0);
  y->cap_thread = keep(y, mr_json_get_str(reached, "thread"));
  y->cap_tool = keep(y, mr_json_get_str(reached, "tool"));
}

static int copy_row(struct mr_why *y, const struct mr_session_row *r)
{
  yyjson_doc *head = NULL, *doc = NULL, *agent = NULL;
  yyjson_val *a, *model, *multi;
  struct mr_session *loaded;
  struct mr_call *c = y->c;
  int code = mr_json_parse(c->mem, r->head, SIZE_MAX, &head, &c->err);

  if (code == MR_OK) code = mr_json_parse(c->mem, r->doc, SIZE_MAX, &doc, &c->err);
  if (code == MR_OK) code = mr_json_parse(c->mem, r->agent, SIZE_MAX, &agent, &c->err);
  a = yyjson_doc_get_root(agent);
  multi = mr_json_get(a, "multiagent");
  model = mr_json_get(a, "model");
  y->multiagent = yyjson_is_obj(multi);
  y->model = keep(y, yyjson_is_str(model) ? mr_json_str(model) : mr_json_get_str(model, "id"));
  y->status = keep(y, r->status);
  y->self_hosted = mr_env_self_hosted(yyjson_doc_get_root(doc));
  loaded = mr_session_loaded(c->d, c->who.workspace, c->path[0]);
  if (loaded && loaded->sandbox) y->doing = keep(y, mr_str_c(mr_sandbox_doing(loaded->sandbox)));
  y->revision = revision(yyjson_doc_get_root(head));
  y->created_us = y->since_us = r->created_us;
  y->archived_us = r->archived_us;
  y->due_us = r->due_us;
  copy_cap(y, mr_json_get(yyjson_doc_get_root(doc), "budget"),
           mr_json_get(yyjson_doc_get_root(head), "cap_reached"));
  y->cost = keep(
      y, mr_json_get_str(mr_json_get(mr_json_get(yyjson_doc_get_root(head), "usage"), "list_cost"), "amount"));
  y->reading = code == MR_OK ? thread_get(y, mr_json_get_str(yyjson_doc_get_root(head), "primary")) : NULL;
  if (code == MR_OK && !y->reading) code = mr_err_nomem(&c->err);
  yyjson_doc_free(head);
  yyjson_doc_free(doc);
  yyjson_doc_free(agent);
  return code;
}

static void on_session(void *ud, const struct mr_rows *r)
{
  struct mr_why *y = ud;
  struct mr_call *c = y->c;
  int code = mr_read_check(c, r, NULL, "session", c->path[0]);

  if (code == MR_OK) code = copy_row(y, &r->sessions[0]);
  if (code != MR_OK)
    mr_call_done(c, code);
  else
    mr_read_inbox(c->d->store, c->who.workspace, c->path[0], on_inbox, y);
}

void mr_sessions_why(struct mr_call *c)
{
  struct mr_why *y = mr_arena_alloc(c->arena, sizeof *y);

  if (!y) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  y->c = c;
  y->threads_tail = &y->threads;
  y->now_us = mr_loop_wall_us(c->d->loop);
  mr_read_session(c->d->store, c->who.workspace, c->path[0], on_session, y);
}
