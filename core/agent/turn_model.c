/*
 * turn_model.c - one model request of a turn: begin, previews while it streams, and its end. Its hooks are in
 * turn_ask.c; the rows of the reply (turn_reply.c) and what follows from it are one transaction. Nothing of it is
 * visible before what it was asked for is durable: previews wait for the commit of the span's start.
 */
#include "agent/turn_model_t.h"

void mr_run_free(struct mr_model_run *r)
{
  struct mr_session *s = r->th->s;

  if (r->th->model_run == r) r->th->model_run = NULL;
  mr_history_given_back(r->th);
  yyjson_doc_free(r->reply);
  mr_ready_cancel(s->d->loop, &r->ready);
  mr_question_drop(&r->hook);
  mr_fill_free(r->fill);
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
    mr_stream_preview_start(r->th, p->thinking ? "agent.thinking" : "agent.message", p->id);
  }
  if (text.n) mr_stream_preview_text(r->th, p->id, index, text);
}

static void preview_or_wait(struct mr_model_run *r, struct mr_part *p, int index, struct mr_str text)
{
  struct mr_piece *e;

  if ((r->th->s->done_seq >= r->seq && !r->early) || MR_SWITCH("preview-early")) {
    preview(r, p, index, text);
    return;
  }
  if (!mr_stream_previews(r->th)) return;
  e = mr_arena_alloc(r->arena, sizeof *e);
  if (!e) return; /* the preview stays a prefix: later pieces follow only if this list is empty */
  *e = (struct mr_piece){.part = p, .index = index, .text = mr_arena_str(r->arena, text)};
  *r->early_tail = e;
  r->early_tail = &e->next;
}

void mr_model_committed(struct mr_thread *th)
{
  struct mr_model_run *r = th->model_run;

  if (!r || th->s->done_seq < r->seq) return;
  for (struct mr_piece *e = r->early; e; e = e->next)
    preview(r, e->part, e->index, e->text);
  r->early = NULL;
  r->early_tail = &r->early;
  if (r->late) mr_run_finish(r);
}

static struct mr_part *part_new(struct mr_model_run *r, bool thinking)
{
  struct mr_part *p = mr_arena_alloc(r->arena, sizeof *p);
  if (!p || mr_id_make(r->th->s->d->sys, p->id, "sevt") != MR_OK) return NULL;
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
  if (r->dropped || r->cut || r->compact) return;
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

void mr_run_preview(struct mr_model_run *r, int index, yyjson_val *block)
{
  on_block(r, index, mr_json_get_str(block, "type"));
  on_text(r, index, mr_json_get_str(block, "text"));
}

/* What a refused reply calls is not run. */
static void refuse_calls(struct mr_model_run *r)
{
  for (int i = 0; i < r->nuses; i++) {
    r->uses[i].perm = MR_PERM_DENY;
    r->uses[i].judged = MR_JUDGED_UNKNOWN;
    r->uses[i].message = MR_S("The model's reply was refused.");
  }
}

void mr_run_finish(struct mr_model_run *r)
{
  bool refused = mr_str_is(r->stop_reason, "refusal");
  struct mr_txn t;
  bool model = false;

  if (r->early) { /* a model faster than the disk: who asked for previews gets them first */
    r->late = true;
    return;
  }
  (void)MR_FAULT("model.replied");
  mr_txn_begin(&t, r->th, NULL, "reply");
  if (refused) refuse_calls(r);
  mr_reply_rows(&t, r);
  if (MR_SWITCH("spawn-split")) {
    mr_txn_commit(&t, NULL, NULL);
    mr_txn_begin(&t, r->th, NULL, "reply");
  }
  if (refused)
    mr_turn_record(&t); /* no call stays open: models' APIs want a result for each */
  else
    mr_delegate_run(&t);
  if (refused)
    mr_turn_idle(&t, MR_STOP_REFUSAL,
                 r->stop_details.n ? r->stop_details
                                   : MR_S("{\"type\":\"refusal\",\"category\":null,\"explanation\":null}"));
  else
    model = mr_turn_advance(&t);
  r->th->model_run = NULL;
  mr_turn_commit(&t, model);
  mr_run_free(r);
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
  struct mr_txn t;

  mr_txn_begin(&t, r->th, NULL, "failed");
  mr_turn_span_end(&t, true, &m->usage);
  mr_turn_failed(&t, types[m->status], m->message,
                 m->status == MR_MODEL_OVERLOADED || m->status == MR_MODEL_RATE_LIMITED ||
                     m->status == MR_MODEL_FAILED,
                 m->retry_after_ms);
  r->th->model_run = NULL;
  mr_turn_commit(&t, false);
  mr_run_free(r);
}

static void on_done(void *ud, const struct mr_model_reply *m)
{
  struct mr_model_run *r = ud;
  struct mr_model_reply bad = {.status = MR_MODEL_FAILED, .usage = m->usage};

  r->call = NULL;
  if (r->dropped) {
    mr_run_free(r);
    return;
  }
  if (r->cut) {
    r->usage = m->usage;
    mr_turn_wake(r->th); /* the interrupt goes on */
    return;
  }
  if (m->status != MR_MODEL_OK) {
    request_failed(r, m);
    return;
  }
  r->usage = m->usage;
  if (r->compact) {
    bad.message = MR_S("the model was asked for a summary of the conversation and gave none");
    if (!mr_compact_done(r, m)) request_failed(r, &bad);
    return;
  }
  r->stop_reason = mr_arena_str(r->arena, m->stop_reason);
  r->stop_details = mr_arena_str(r->arena, m->stop_details);
  if (mr_json_parse(r->th->s->d->mem, m->content, SIZE_MAX, &r->reply, &r->err) != MR_OK ||
      !yyjson_is_arr(yyjson_doc_get_root(r->reply)) || mr_run_uses(r) != MR_OK) {
    bad.message = MR_S("the model's reply could not be read");
    request_failed(r, &bad);
    return;
  }
  mr_run_permits(r);
}

void mr_run_refused(struct mr_model_run *r, struct mr_str why)
{
  struct mr_model_reply m = {.status = MR_MODEL_REFUSED_REQUEST, .message = why};
  request_failed(r, &m);
}

void mr_run_failed(struct mr_model_run *r, struct mr_str why)
{
  struct mr_model_reply m = {.status = MR_MODEL_FAILED, .message = why};
  request_failed(r, &m);
}

static void on_not_started(struct mr_ready *ready)
{
  struct mr_model_run *r = MR_OF(ready, struct mr_model_run, ready);
  mr_run_refused(r, mr_str_c(r->err.message));
}

void mr_run_start(struct mr_model_run *r)
{
  static const struct mr_model_cbs cbs = {on_block, on_text, on_done};
  struct mr_domain *d = r->th->s->d;

  d->stats.model_requests++;
  (void)MR_FAULT("model.send.before");
  if (mr_models_start(d->models, &r->req, &cbs, r, &r->call, &r->err) != MR_OK)
    mr_ready_post(d->loop, &r->ready);
  (void)MR_FAULT("model.send.after");
}

int mr_model_begin(struct mr_thread *th)
{
  struct mr_session *s = th->s;
  struct mr_model_run *r = mr_mem_zalloc(s->d->mem, sizeof *r);
  struct mr_err err;

  if (!r || !(r->arena = mr_arena_new(s->d->mem, 1024)) || mr_history_prepare(th) != MR_OK ||
      mr_history_lend(th, r->arena, &r->req) != MR_OK) {
    if (r) mr_arena_free(&r->arena);
    mr_mem_free(s->d->mem, r);
    mr_err_nomem(&err);
    mr_session_poison(s, &err);
    return MR_E_NOMEM;
  }
  r->th = th;
  r->seq = s->seq;
  r->parts_tail = &r->parts;
  r->early_tail = &r->early;
  mr_ready_init(&r->ready, on_not_started);
  th->model_run = r;
  mr_session_ref(s);
  s->d->stats.model_running++;
  mr_stream_request_began(th);
  r->req.model = th->model;
  r->req.effort = th->effort;
  r->req.speed = th->speed;
  r->req.system = th->system;
  r->req.tools = th->tools;
  r->req.session_id = mr_str_c(s->id);
  r->compact = mr_compact_wanted(th);
  if (!r->compact)
    mr_run_ask(r);
  else if (mr_compact_request(r) == MR_OK)
    mr_run_send(r);
  else
    mr_ready_post(s->d->loop, &r->ready);
  return MR_OK;
}

bool mr_model_cut(struct mr_thread *th)
{
  struct mr_model_run *r = th->model_run;

  if (!r || !r->call) return true;
  if (!r->cut) mr_models_cancel(r->call);
  r->cut = true;
  return false;
}

void mr_model_abort(struct mr_thread *th, struct mr_usage *usage)
{
  struct mr_model_run *r = th->model_run;

  memset(usage, 0, sizeof *usage);
  if (!r) return;
  *usage = r->usage;
  r->dropped = true;
  th->model_run = NULL;
  if (!r->call && !mr_fill_waits(r->fill))
    mr_run_free(r); /* whole, cut, not sent yet, or with the hooks */
  else if (r->call && !r->cut)
    mr_models_cancel(r->call); /* done comes, and frees, as a read of files does */
}

bool mr_model_running(const struct mr_thread *th)
{
  return th->model_run != NULL;
}
