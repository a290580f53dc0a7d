/*
 * turn_model.c - one model request of a turn: begin, previews while it streams, permits, and its end. The rows
 * of the reply (turn_reply.c) and what follows from it are one transaction. Nothing of it is visible before what
 * it was asked for is durable: previews wait for the commit of the span's start.
 */
#include "agent/turn_model_t.h"

static void run_free(struct mr_model_run *r)
{
  struct mr_session *s = r->s;

  if (s->model_run == r) s->model_run = NULL;
  yyjson_doc_free(r->reply);
  mr_ready_cancel(s->d->loop, &r->ready);
  mr_arena_free(&r->arena);
  mr_mem_free(s->d->mem, r);
  s->d->stats.model_running--;
  mr_domain_settled(s->d);
  mr_session_unref(s);
}

/* ---- previews ---- */

static void preview(struct mr_model_run *r, struct mr_part *p, int index, struct mr_str text)
{
  if (!p->started) {
    p->started = true;
    mr_stream_preview_start(r->s, p->thinking ? "agent.thinking" : "agent.message", p->id);
  }
  if (text.n) mr_stream_preview_text(r->s, p->id, index, text);
}

static void preview_or_wait(struct mr_model_run *r, struct mr_part *p, int index, struct mr_str text)
{
  struct mr_piece *e;

  if ((r->s->done_seq >= r->seq && !r->early) || MR_SWITCH("preview-early")) {
    preview(r, p, index, text);
    return;
  }
  if (!mr_stream_previews(r->s)) return;
  e = mr_arena_alloc(r->arena, sizeof *e);
  if (!e) return; /* the preview stays a prefix: later pieces follow only if this list is empty */
  *e = (struct mr_piece){.part = p, .index = index, .text = mr_arena_str(r->arena, text)};
  *r->early_tail = e;
  r->early_tail = &e->next;
}

static void finish_reply(struct mr_model_run *r);

void mr_model_committed(struct mr_session *s)
{
  struct mr_model_run *r = s->model_run;

  if (!r || s->done_seq < r->seq) return;
  for (struct mr_piece *e = r->early; e; e = e->next)
    preview(r, e->part, e->index, e->text);
  r->early = NULL;
  r->early_tail = &r->early;
  if (r->late) finish_reply(r);
}

static struct mr_part *part_new(struct mr_model_run *r, bool thinking)
{
  struct mr_part *p = mr_arena_alloc(r->arena, sizeof *p);
  if (!p || mr_id_make(r->s->d->sys, p->id, "sevt") != MR_OK) return NULL;
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
  if (r->dropped || r->cut) return;
  if (mr_str_is(kind, "text") && r->cur && !r->cur->thinking) {
    r->cur_index++;
  } else if (mr_str_is(kind, "text") || thinking) {
    r->cur = part_new(r, thinking);
    r->cur_index = 0;
    if (r->cur) preview_or_wait(r, r->cur, 0, mr_str_n("", 0));
  } else {
    r->cur = NULL;
  }
}

static void on_text(void *ud, int index, struct mr_str delta)
{
  struct mr_model_run *r = ud;
  (void)index;
  (void)MR_FAULT("model.text.before");
  if (!r->dropped && !r->cut && r->cur && !r->cur->thinking) preview_or_wait(r, r->cur, r->cur_index, delta);
  (void)MR_FAULT("model.text.after");
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
  mr_reply_rows(&t, r);
  if (mr_str_is(r->stop_reason, "refusal"))
    mr_turn_idle(&t, MR_STOP_REFUSAL,
                 r->stop_details.n ? r->stop_details
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
  struct mr_use *u = &r->uses[r->asked++];

  if (r->dropped) {
    run_free(r);
    return;
  }
  if (p == MR_PERMIT_REWRITE) {
    u->input = mr_arena_str(r->arena, detail);
  } else if (p != MR_PERMIT_NONE) {
    u->judged = MR_JUDGED_HOOK;
    u->perm = p == MR_PERMIT_ALLOW ? MR_PERM_ALLOW : p == MR_PERMIT_ASK ? MR_PERM_ASK : MR_PERM_DENY;
    if (u->kind == MR_TOOL_CUSTOM && u->perm == MR_PERM_ASK) {
      if (mr_tools_owned(r->s, u->name))
        u->kind = MR_TOOL_GUARDED;
      else
        u->perm = MR_PERM_ALLOW; /* a client answers it anyway */
    }
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

  while (r->asked < r->nuses && r->uses[r->asked].judged == MR_JUDGED_UNKNOWN)
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
  if (!r->uses) return MR_E_NOMEM;
  while ((v = yyjson_arr_iter_next(&it))) {
    struct mr_use *u = &r->uses[r->nuses];
    if (!mr_str_is(mr_json_get_str(v, "type"), "tool_use")) continue;
    u->id = mr_json_get_str(v, "id");
    u->name = mr_json_get_str(v, "name");
    mr_buf_init(&b, r->s->d->mem, SIZE_MAX / 2);
    mr_json_write(&b, mr_json_get(v, "input"), false);
    u->input = mr_arena_str(r->arena, mr_buf_get(&b));
    mr_buf_free(&b);
    u->perm = mr_tool_policy(r->s, u->name, &u->kind, &known);
    u->judged = known ? MR_JUDGED_POLICY : MR_JUDGED_UNKNOWN;
    if (!u->input.p || mr_id_make(r->s->d->sys, u->event_id, "sevt") != MR_OK) return MR_E_NOMEM;
    r->nuses++;
  }
  return MR_OK;
}

/* ---- the request ---- */

static void request_failed(struct mr_model_run *r, const struct mr_model_reply *m)
{
  static const char *const types[] = {"unknown_error",
                                      "model_overloaded_error",
                                      "model_rate_limited_error",
                                      "model_request_failed_error",
                                      "billing_error",
                                      "model_request_failed_error",
                                      "unknown_error"};
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
    if (r) mr_arena_free(&r->arena);
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

  if (!r || !r->call) return true;
  if (!r->cut) mr_models_cancel(r->call);
  r->cut = true;
  return false;
}

void mr_model_abort(struct mr_session *s, struct mr_usage *usage)
{
  struct mr_model_run *r = s->model_run;

  memset(usage, 0, sizeof *usage);
  if (!r) return;
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
