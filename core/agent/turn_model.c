/*
 * turn_model.c - one model request of a turn: begin, previews while it streams, permits, and the rows of its
 * reply, all in one transaction. Nothing of it is visible before what it was asked for is durable: previews
 * wait for the commit of the span's start.
 */
#include "agent/session_t.h"

#include <stdio.h>

struct part {                  /* a text run or a thinking block of the reply, as previewed */
  struct part *next;
  bool thinking, started;      /* started: event_start was published */
  char id[MR_ID_LEN];
};
struct piece {                 /* text that waits for the commit of the span's start */
  struct piece *next;
  struct part *part;
  int index;
  struct mr_str text;
};
enum judged { JUDGED_POLICY, JUDGED_HOOK, JUDGED_UNKNOWN };
struct use {                   /* a tool call of the reply, on its way through the permit phase */
  struct mr_str id, name, input, message;
  char event_id[MR_ID_LEN];
  enum mr_tool_kind kind;
  enum mr_call_perm perm;
  enum judged judged;
};

struct mr_model_run {
  struct mr_session *s;
  struct mr_model_call *call;  /* NULL once it is done */
  struct mr_arena *arena;
  struct mr_ready ready;       /* a request that could not start fails from the drain */
  bool dropped;                /* aborted: what comes is ignored */
  bool cut;                    /* interrupted: cancelled, and its usage is waited for */
  bool late;                   /* whole, but its previews wait for the commit of the span's start */
  int64_t seq;                 /* the commit that holds the span's start */
  struct mr_str *messages;
  struct part *parts, **parts_tail, *cur;
  int cur_index;
  struct piece *early, **early_tail;
  yyjson_doc *reply;
  struct use *uses;
  int nuses, asked;
  struct mr_str stop_reason, stop_details;
  struct mr_usage usage;
  struct mr_err err;
};

static void run_free(struct mr_model_run *r)
{
  struct mr_session *s = r->s;

  if (s->model_run == r)
    s->model_run = NULL;
  yyjson_doc_free(r->reply);
  mr_ready_cancel(s->d->loop, &r->ready);
  mr_arena_free(&r->arena);
  mr_mem_free(s->d->mem, r);
  s->d->stats.model_running--;
  mr_domain_settled(s->d);
  mr_session_unref(s);
}

/* ---- previews ---- */

static void preview(struct mr_model_run *r, struct part *p, int index, struct mr_str text)
{
  if (!p->started) {
    p->started = true;
    mr_stream_preview_start(r->s, p->thinking ? "agent.thinking" : "agent.message", p->id);
  }
  if (text.n)
    mr_stream_preview_text(r->s, p->id, index, text);
}

static void preview_or_wait(struct mr_model_run *r, struct part *p, int index, struct mr_str text)
{
  struct piece *e;

  if ((r->s->done_seq >= r->seq && !r->early) || MR_SWITCH("preview-early")) {
    preview(r, p, index, text);
    return;
  }
  if (!mr_stream_previews(r->s))
    return;
  e = mr_arena_alloc(r->arena, sizeof *e);
  if (!e)
    return; /* the preview stays a prefix: later pieces follow only if this list is empty */
  *e = (struct piece){.part = p, .index = index, .text = mr_arena_str(r->arena, text)};
  *r->early_tail = e;
  r->early_tail = &e->next;
}

static void finish_reply(struct mr_model_run *r);

void mr_model_committed(struct mr_session *s)
{
  struct mr_model_run *r = s->model_run;

  if (!r || s->done_seq < r->seq)
    return;
  for (struct piece *e = r->early; e; e = e->next)
    preview(r, e->part, e->index, e->text);
  r->early = NULL;
  r->early_tail = &r->early;
  if (r->late)
    finish_reply(r);
}

static struct part *part_new(struct mr_model_run *r, bool thinking)
{
  struct part *p = mr_arena_alloc(r->arena, sizeof *p);
  if (!p || mr_id_make(r->s->d->sys, p->id, "sevt") != MR_OK)
    return NULL;
  p->thinking = thinking;
  *r->parts_tail = p;
  r->parts_tail = &p->next;
  return p;
}

static void on_block(void *ud, int index, struct mr_str kind)
{
  struct mr_model_run *r = ud;
  bool thinking = mr_str_is(kind, "thinking") || mr_str_is(kind, "redacted_thinking");

  (void)index;
  if (r->dropped || r->cut)
    return;
  if (mr_str_is(kind, "text") && r->cur && !r->cur->thinking) {
    r->cur_index++;
  } else if (mr_str_is(kind, "text") || thinking) {
    r->cur = part_new(r, thinking);
    r->cur_index = 0;
    if (r->cur)
      preview_or_wait(r, r->cur, 0, mr_str_n("", 0));
  } else {
    r->cur = NULL;
  }
}

static void on_text(void *ud, int index, struct mr_str delta)
{
  struct mr_model_run *r = ud;
  (void)index;
  (void)MR_FAULT("model.text.before");
  if (!r->dropped && !r->cut && r->cur && !r->cur->thinking)
    preview_or_wait(r, r->cur, r->cur_index, delta);
  (void)MR_FAULT("model.text.after");
}

/* ---- the reply's rows ---- */

static void reply_private(struct mr_txn *t, struct mr_model_run *r)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_buf_init(&b, t->s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_key(&w, "calls");
  mr_jw_arr(&w);
  for (int i = 0; i < r->nuses; i++) {
    mr_jw_obj(&w);
    mr_jw_kstr(&w, "id", r->uses[i].id);
    mr_jw_kc(&w, "event_id", r->uses[i].event_id);
    mr_jw_obj_end(&w);
  }
  mr_jw_arr_end(&w);
  mr_jw_kstr(&w, "stop_reason", r->stop_reason);
  mr_jw_key(&w, "content");
  w.after_key = false;
  mr_json_write(&b, yyjson_doc_get_root(r->reply), false);
  mr_jw_obj_end(&w);
  mr_txn_private(t, "model.reply", mr_buf_get(&b));
  mr_buf_free(&b);
}

/* A run of text blocks from *it on is one agent.message. Returns the block after it. */
static yyjson_val *message_row(struct mr_txn *t, yyjson_val *first, yyjson_arr_iter *it, const char *id)
{
  struct mr_buf b;
  struct mr_jw w;
  yyjson_val *v = first;

  mr_txn_wire(t, &b, &w, "agent.message", id, NULL);
  mr_jw_key(&w, "content");
  mr_jw_arr(&w);
  for (; v && mr_str_is(mr_json_get_str(v, "type"), "text"); v = yyjson_arr_iter_next(it)) {
    mr_jw_obj(&w);
    mr_jw_kc(&w, "type", "text");
    mr_jw_kstr(&w, "text", mr_json_get_str(v, "text"));
    mr_jw_obj_end(&w);
  }
  mr_jw_arr_end(&w);
  mr_txn_end_wire(t, &b, &w);
  return v;
}

static void evaluation(struct mr_jw *w, const struct use *u)
{
  static const char *const names[] = {"allow", "ask", "deny"};

  mr_jw_kc(w, "evaluated_permission", names[u->perm]);
  if (u->judged == JUDGED_UNKNOWN)
    return; /* refused before any policy: no evaluation */
  mr_jw_key(w, "evaluation");
  mr_jw_obj(w);
  if (u->judged == JUDGED_POLICY) {
    mr_jw_kc(w, "type", u->perm == MR_PERM_ASK ? "always_ask" : "always_allow");
  } else {
    mr_jw_kc(w, "type", "auto");
    mr_jw_key(w, "evaluated_permission");
    mr_jw_obj(w);
    mr_jw_kc(w, "type", names[u->perm]);
    if (u->perm != MR_PERM_ALLOW)
      mr_jw_kc(w, "reason_code", u->perm == MR_PERM_ASK ? "indeterminate" : "high_risk");
    mr_jw_obj_end(w);
  }
  mr_jw_obj_end(w);
}

static void use_row(struct mr_txn *t, const struct use *u)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_txn_wire(t, &b, &w, u->kind == MR_TOOL_CUSTOM ? "agent.custom_tool_use" : "agent.tool_use",
              u->event_id, NULL);
  mr_jw_kstr(&w, "name", u->name);
  mr_jw_kraw(&w, "input", u->input);
  if (u->kind == MR_TOOL_BUILTIN)
    evaluation(&w, u);
  mr_txn_end_wire(t, &b, &w);
}

/* What a call needs besides its event: a refusal's outcome, or the claim of the handler that owns it. */
static void use_private(struct mr_txn *t, const struct use *u)
{
  struct mr_session *s = t->s;
  struct mr_buf b;
  struct mr_jw w;
  int owns = 0;

  if (u->kind == MR_TOOL_CUSTOM && u->perm != MR_PERM_DENY && s->d->tools.owns)
    owns = s->d->tools.owns(s->d->tools.ud, u->name, s->agent_id, s->agent_name);
  if (u->perm != MR_PERM_DENY && !owns)
    return;
  mr_buf_init(&b, s->d->mem, 1 << 20);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "event_id", u->event_id);
  if (u->perm == MR_PERM_DENY) {
    const char *text = mr_arena_printf(t->arena, "Permission to use " MR_FMT " has been denied.%s" MR_FMT,
                                       MR_ARG(u->name), u->message.n ? " " : "", MR_ARG(u->message));
    mr_jw_key(&w, "is_error");
    mr_jw_bool(&w, true);
    mr_jw_key(&w, "content");
    mr_jw_arr(&w);
    mr_jw_obj(&w);
    mr_jw_kc(&w, "type", "text");
    mr_jw_kc(&w, "text", text);
    mr_jw_obj_end(&w);
    mr_jw_arr_end(&w);
  } else {
    mr_jw_key(&w, "owned");
    mr_jw_bool(&w, true);
    mr_jw_key(&w, "idempotent");
    mr_jw_bool(&w, (owns & MR_OWNS_IDEMPOTENT) != 0);
  }
  mr_jw_obj_end(&w);
  mr_txn_private(t, u->perm == MR_PERM_DENY ? "tool.outcome" : "tool.claim", mr_buf_get(&b));
  mr_buf_free(&b);
}

static void content_rows(struct mr_txn *t, struct mr_model_run *r)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(yyjson_doc_get_root(r->reply));
  yyjson_val *v = yyjson_arr_iter_next(&it);
  struct part *p = r->parts;
  struct mr_buf b;
  struct mr_jw w;
  int k = 0;

  while (v) {
    struct mr_str type = mr_json_get_str(v, "type");
    bool text = mr_str_is(type, "text"), thinking = mr_str_starts(mr_str_trim(type), MR_S("thinking")) ||
                                                    mr_str_is(type, "redacted_thinking");
    const char *id = NULL;
    if ((text || thinking) && p && p->thinking == thinking) {
      id = p->id;
      p = p->next;
    }
    if (text) {
      v = message_row(t, v, &it, id);
      continue;
    }
    if (thinking) {
      mr_txn_wire(t, &b, &w, "agent.thinking", id, NULL);
      mr_txn_end_wire(t, &b, &w);
    } else if (mr_str_is(type, "tool_use") && k < r->nuses) {
      use_row(t, &r->uses[k++]);
    }
    v = yyjson_arr_iter_next(&it);
  }
}

static void finish_reply(struct mr_model_run *r)
{
  struct mr_session *s = r->s;
  struct mr_txn t;
  bool model = false;

  if (r->early) { /* a model faster than the disk: who asked for previews gets them first */
    r->late = true;
    return;
  }
  (void)MR_FAULT("model.replied");
  mr_txn_begin(&t, s, NULL, "reply");
  reply_private(&t, r);
  if (MR_SWITCH("reply-split")) {
    mr_txn_commit(&t, NULL, NULL);
    mr_txn_begin(&t, s, NULL, "reply");
  }
  content_rows(&t, r);
  mr_turn_span_end(&t, false, &r->usage);
  for (int i = 0; i < r->nuses; i++)
    use_private(&t, &r->uses[i]);
  if (mr_str_is(r->stop_reason, "refusal"))
    mr_turn_idle(&t, MR_STOP_REFUSAL, r->stop_details.n ? r->stop_details
                     : MR_S("{\"type\":\"refusal\",\"category\":null,\"explanation\":null}"));
  else
    model = mr_turn_advance(&t);
  s->model_run = NULL;
  mr_turn_commit(&t, model);
  run_free(r);
}

/* ---- permits: each call is put to the hooks, in order; no hook, no cost ---- */

static void ask_next(struct mr_model_run *r);

static void on_permit(void *ud, enum mr_permit p, struct mr_str detail)
{
  struct mr_model_run *r = ud;
  struct use *u = &r->uses[r->asked++];

  if (r->dropped) {
    run_free(r);
    return;
  }
  if (p == MR_PERMIT_REWRITE) {
    u->input = mr_arena_str(r->arena, detail);
  } else if (p != MR_PERMIT_NONE) {
    u->judged = JUDGED_HOOK;
    u->perm = p == MR_PERMIT_ALLOW ? MR_PERM_ALLOW : p == MR_PERMIT_ASK ? MR_PERM_ASK : MR_PERM_DENY;
    if (u->kind == MR_TOOL_CUSTOM && u->perm == MR_PERM_ASK)
      u->perm = MR_PERM_ALLOW; /* a client answers it anyway */
    u->message = mr_arena_str(r->arena, detail);
  }
  ask_next(r);
}

static void ask_next(struct mr_model_run *r)
{
  struct mr_session *s = r->s;
  const struct mr_hooks *h = &s->d->hooks;
  struct mr_buf b;
  struct mr_jw w;

  while (r->asked < r->nuses && r->uses[r->asked].judged == JUDGED_UNKNOWN)
    r->asked++;
  if (r->asked == r->nuses || !h->has || !h->has(h->ud, "permit")) {
    finish_reply(r);
    return;
  }
  mr_buf_init(&b, s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "name", r->uses[r->asked].name);
  mr_jw_kraw(&w, "input", r->uses[r->asked].input);
  mr_jw_kc(&w, "tool_use_id", r->uses[r->asked].event_id);
  mr_jw_kc(&w, "session_id", s->id);
  mr_jw_kstr(&w, "agent", s->agent_name);
  mr_jw_kstr(&w, "agent_id", s->agent_id);
  mr_jw_obj_end(&w);
  h->permit(h->ud, mr_buf_get(&b), on_permit, r);
  mr_buf_free(&b);
}

static int collect_uses(struct mr_model_run *r)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(yyjson_doc_get_root(r->reply));
  yyjson_val *v;
  struct mr_buf b;
  size_t max = yyjson_arr_size(yyjson_doc_get_root(r->reply));
  bool known;

  r->uses = mr_arena_alloc(r->arena, (max ? max : 1) * sizeof *r->uses);
  if (!r->uses)
    return MR_E_NOMEM;
  while ((v = yyjson_arr_iter_next(&it))) {
    struct use *u = &r->uses[r->nuses];
    if (!mr_str_is(mr_json_get_str(v, "type"), "tool_use"))
      continue;
    u->id = mr_json_get_str(v, "id");
    u->name = mr_json_get_str(v, "name");
    mr_buf_init(&b, r->s->d->mem, SIZE_MAX / 2);
    mr_json_write(&b, mr_json_get(v, "input"), false);
    u->input = mr_arena_str(r->arena, mr_buf_get(&b));
    mr_buf_free(&b);
    u->perm = mr_tool_policy(r->s, u->name, &u->kind, &known);
    u->judged = known ? JUDGED_POLICY : JUDGED_UNKNOWN;
    if (!u->input.p || mr_id_make(r->s->d->sys, u->event_id, "sevt") != MR_OK)
      return MR_E_NOMEM;
    r->nuses++;
  }
  return MR_OK;
}

/* ---- the request ---- */

static void request_failed(struct mr_model_run *r, const struct mr_model_reply *m)
{
  static const char *const types[] = {"unknown_error", "model_overloaded_error",
                                      "model_rate_limited_error", "model_request_failed_error",
                                      "billing_error", "model_request_failed_error", "unknown_error"};
  struct mr_session *s = r->s;
  struct mr_txn t;

  mr_txn_begin(&t, s, NULL, "failed");
  mr_turn_span_end(&t, true, &m->usage);
  mr_turn_failed(&t, types[m->status], m->message,
                 m->status == MR_MODEL_OVERLOADED || m->status == MR_MODEL_RATE_LIMITED ||
                     m->status == MR_MODEL_FAILED,
                 m->retry_after_ms);
  s->model_run = NULL;
  mr_turn_commit(&t, false);
  run_free(r);
}

static void on_done(void *ud, const struct mr_model_reply *m)
{
  struct mr_model_run *r = ud;
  struct mr_model_reply bad = {.status = MR_MODEL_FAILED, .usage = m->usage};

  r->call = NULL;
  if (r->dropped) {
    run_free(r);
    return;
  }
  if (r->cut) {
    r->usage = m->usage;
    mr_turn_wake(r->s); /* the interrupt goes on */
    return;
  }
  if (m->status != MR_MODEL_OK) {
    request_failed(r, m);
    return;
  }
  r->usage = m->usage;
  r->stop_reason = mr_arena_str(r->arena, m->stop_reason);
  r->stop_details = mr_arena_str(r->arena, m->stop_details);
  if (mr_json_parse(r->s->d->mem, m->content, SIZE_MAX, &r->reply, &r->err) != MR_OK ||
      !yyjson_is_arr(yyjson_doc_get_root(r->reply)) || collect_uses(r) != MR_OK) {
    bad.message = MR_S("the model's reply could not be read");
    request_failed(r, &bad);
    return;
  }
  ask_next(r);
}

static void on_not_started(struct mr_ready *ready)
{
  struct mr_model_run *r = MR_OF(ready, struct mr_model_run, ready);
  struct mr_model_reply m = {.status = MR_MODEL_REFUSED_REQUEST, .message = mr_str_c(r->err.message)};
  on_done(r, &m);
}

int mr_model_begin(struct mr_session *s)
{
  static const struct mr_model_cbs cbs = {on_block, on_text, on_done};
  struct mr_model_run *r = mr_mem_zalloc(s->d->mem, sizeof *r);
  struct mr_model_req q = {0};
  struct mr_err err;

  if (!r || !(r->arena = mr_arena_new(s->d->mem, 1024)) || mr_history_prepare(s) != MR_OK ||
      !(r->messages = mr_arena_alloc(r->arena, (size_t)s->nhistory * sizeof *r->messages + 1))) {
    if (r)
      mr_arena_free(&r->arena);
    mr_mem_free(s->d->mem, r);
    mr_err_nomem(&err);
    mr_session_poison(s, &err);
    return MR_E_NOMEM;
  }
  r->s = s;
  r->seq = s->seq;
  r->parts_tail = &r->parts;
  r->early_tail = &r->early;
  mr_ready_init(&r->ready, on_not_started);
  memcpy(r->messages, s->history, (size_t)s->nhistory * sizeof *r->messages);
  s->model_run = r;
  mr_session_ref(s);
  s->d->stats.model_running++;
  s->d->stats.model_requests++;
  mr_stream_request_began(s);
  q.model = s->model;
  q.effort = s->effort;
  q.speed = s->speed;
  q.system = s->system;
  q.tools = s->tools;
  q.messages = r->messages;
  q.nmessages = s->nhistory;
  q.session_id = mr_str_c(s->id);
  (void)MR_FAULT("model.send.before");
  if (mr_models_start(s->d->models, &q, &cbs, r, &r->call, &r->err) != MR_OK)
    mr_ready_post(s->d->loop, &r->ready);
  (void)MR_FAULT("model.send.after");
  return MR_OK;
}

bool mr_model_cut(struct mr_session *s)
{
  struct mr_model_run *r = s->model_run;

  if (!r || !r->call)
    return true;
  if (!r->cut)
    mr_models_cancel(r->call);
  r->cut = true;
  return false;
}

void mr_model_abort(struct mr_session *s, struct mr_usage *usage)
{
  struct mr_model_run *r = s->model_run;

  memset(usage, 0, sizeof *usage);
  if (!r)
    return;
  *usage = r->usage;
  r->dropped = true;
  s->model_run = NULL;
  if (r->call && !r->cut)
    mr_models_cancel(r->call); /* done comes, and frees */
  else if (!r->call && (r->cut || r->late || r->ready.link))
    run_free(r);
  /* else a permit hook is asked: its answer frees */
}

bool mr_model_running(const struct mr_session *s)
{
  return s->model_run != NULL;
}
