/*
 * events.c - POST and GET of a session's events; see events.h. A batch is checked event by event against the
 * state that the earlier ones would produce, then stored in one commit: what waits goes to the inbox, results
 * of custom tools are processed on receipt and go to the log at once.
 */
#include "agent/events.h"

#include <stdio.h>

/* ---- checking ---- */

struct check {
  struct mr_call *c;
  struct mr_session *s;
  const char *field;
  int i;            /* index in the batch */
  bool interrupted; /* an interrupt came before in the batch */
  struct mr_event_batch *out;
};

static int refuse(struct check *k, const char *sub, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int refuse(struct check *k, const char *sub, const char *fmt, ...)
{
  char field[96], text[320];
  va_list ap;

  snprintf(field, sizeof field, "%s[%d]%s%s", k->field, k->i, sub[0] ? "." : "", sub);
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  return mr_err_set(&k->c->err, MR_E_INVALID, field, "%s: %s", field, text);
}

/* Is this call answered by the inbox or by an earlier event of the batch? */
static bool answered(const struct check *k, const struct mr_tcall *t)
{
  for (const struct mr_input *in = k->s->inbox; in; in = in->next)
    if (strcmp(in->ref, t->event_id) == 0) return true;
  for (int i = 0; i < k->out->n; i++)
    if (strcmp(k->out->v[i].ref, t->event_id) == 0) return true;
  return false;
}

static bool waits(const struct check *k, const struct mr_tcall *t)
{
  return !k->interrupted && mr_call_waits_client(t) && !answered(k, t);
}

/* A call of the latest reply of any thread. */
static struct mr_tcall *find_call(const struct check *k, struct mr_str id)
{
  struct mr_thread *th = k->s ? mr_thread_of_call(k->s, id) : NULL;
  return th ? mr_state_call(th, id) : NULL;
}

/* While a session is blocked only answers and interrupts may be sent; clients match on this text. */
static int check_blocked(struct check *k, struct mr_str type)
{
  struct mr_buf b;
  int n = 0, code;

  if (!k->s || !mr_state_blocked(k->s)) return MR_OK;
  mr_buf_init(&b, k->c->mem, 1 << 16);
  for (struct mr_thread *th = &k->s->main; th; th = th->next)
    for (int i = 0; i < th->ncalls; i++)
      if (waits(k, th->calls[i])) mr_buf_printf(&b, "%s%s", n++ ? ", " : "", th->calls[i]->event_id);
  code = n == 0 ? MR_OK
                : mr_err_set(&k->c->err, MR_E_INVALID, k->field,
                             "Invalid " MR_FMT " event at %s[%d]: waiting on responses to events [%s]; only "
                             "`user.tool_confirmation`, `user.custom_tool_result`, `user.tool_result`, or "
                             "`user.interrupt` may be sent",
                             MR_ARG(type), k->field, k->i, b.p);
  mr_buf_free(&b);
  return code;
}

/* At its budget a session takes answers and interrupts, nothing that needs the model (API: sessions §5.2). */
static int check_budget(struct check *k, struct mr_str type)
{
  static const char *const fine[] = {"user.tool_confirmation", "user.custom_tool_result", "user.tool_result",
                                     "user.interrupt"};

  if (!k->s || !mr_budget_over(k->s)) return MR_OK;
  for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
    if (mr_str_is(type, fine[i])) return MR_OK;
  return mr_err_set(&k->c->err, MR_E_INVALID, k->field,
                    "Invalid " MR_FMT " event at %s[%d]: the session has reached its budget; only "
                    "`user.tool_confirmation`, `user.custom_tool_result`, `user.tool_result`, or `user.interrupt` may "
                    "be sent until the budget is raised or removed",
                    MR_ARG(type), k->field, k->i);
}

static int check_content(struct check *k, yyjson_val *ev, unsigned blocks, bool required)
{
  yyjson_val *content = mr_json_get(ev, "content");
  char field[96];

  snprintf(field, sizeof field, "%s[%d].content", k->field, k->i);
  if (!content || yyjson_is_null(content))
    return required ? refuse(k, "content", "required: an array of content blocks") : MR_OK;
  if (mr_content_check(content, blocks, field, &k->c->err) != MR_OK) return k->c->err.code;
  if (required && mr_content_blank(content))
    return refuse(k, "content", "must hold at least one content block that is not blank");
  return MR_OK;
}

static int check_confirmation(struct check *k, yyjson_val *ev, struct mr_event_in *e)
{
  struct mr_str id = mr_json_get_str(ev, "tool_use_id"), result = mr_json_get_str(ev, "result");
  struct mr_tcall *t = find_call(k, id);

  if (!mr_str_is(result, "allow") && !mr_str_is(result, "deny"))
    return refuse(k, "result", "must be \"allow\" or \"deny\"");
  if (mr_json_get_str(ev, "deny_message").p && mr_str_is(result, "allow"))
    return refuse(k, "deny_message", "only goes with \"result\": \"deny\"");
  if (!t || t->kind == MR_TOOL_CUSTOM || t->perm != MR_PERM_ASK)
    return refuse(k, "tool_use_id", MR_FMT " is not a tool use that asks for confirmation", MR_ARG(id));
  if (!waits(k, t)) return refuse(k, "tool_use_id", MR_FMT " was answered already", MR_ARG(id));
  snprintf(e->ref, sizeof e->ref, "%s", t->event_id);
  return MR_OK;
}

static int check_custom_result(struct check *k, yyjson_val *ev, struct mr_event_in *e)
{
  struct mr_str id = mr_json_get_str(ev, "custom_tool_use_id");
  struct mr_tcall *t = find_call(k, id);
  int code = check_content(k, ev, MR_BLOCK_TEXT | MR_BLOCK_IMAGE | MR_BLOCK_DOCUMENT | MR_BLOCK_SEARCH, false);

  if (code != MR_OK) return code;
  if (!t || t->kind != MR_TOOL_CUSTOM)
    return refuse(k, "custom_tool_use_id", MR_FMT " is not a pending custom tool use", MR_ARG(id));
  if (t->owned && !t->resolved)
    return refuse(k, "custom_tool_use_id",
                  MR_FMT " is answered by the handler of tool " MR_FMT " that is loaded in this server",
                  MR_ARG(id), MR_ARG(t->name));
  if (!waits(k, t)) return refuse(k, "custom_tool_use_id", MR_FMT " was answered already", MR_ARG(id));
  snprintf(e->ref, sizeof e->ref, "%s", t->event_id);
  e->now = true;
  return MR_OK;
}

static int check_interrupt(struct check *k, yyjson_val *ev, struct mr_event_in *e)
{
  struct mr_str thread = mr_json_get_str(ev, "session_thread_id");
  struct mr_thread *th = mr_thread_find(k->s, thread);

  if (!th) return refuse(k, "session_thread_id", "session %s has no thread " MR_FMT, k->s->id, MR_ARG(thread));
  if (th->status == MR_TERMINATED) return refuse(k, "session_thread_id", "thread %s is terminated", th->id);
  /* Nothing runs and nothing waits: accepted, and nothing to do. */
  e->drop = k->s->status == MR_IDLE && !mr_state_blocked(k->s) && k->out->n == 0 &&
            (!k->s->inbox || mr_budget_over(k->s));
  k->interrupted = true;
  return MR_OK;
}

static int check_one(struct check *k, yyjson_val *ev, int total, struct mr_event_in *e)
{
  struct mr_str type = mr_json_get_str(ev, "type");
  int code;

  e->type = mr_arena_str(k->c->arena, type);
  code = check_budget(k, type);
  if (code != MR_OK) return code;
  if (mr_str_is(type, "user.message")) {
    code = check_blocked(k, type);
    return code ? code : check_content(k, ev, MR_BLOCK_TEXT | MR_BLOCK_IMAGE | MR_BLOCK_DOCUMENT, true);
  }
  if (!k->s) return refuse(k, "type", MR_FMT " cannot be an initial event", MR_ARG(type));
  if (mr_str_is(type, "user.interrupt")) return check_interrupt(k, ev, e);
  if (mr_str_is(type, "user.tool_confirmation")) return check_confirmation(k, ev, e);
  if (mr_str_is(type, "user.custom_tool_result")) return check_custom_result(k, ev, e);
  if (mr_str_is(type, "user.tool_result"))
    return refuse(k, "type",
                  "user.tool_result is only for self-hosted environments; the server runs the "
                  "built-in tools of this session itself");
  if (mr_str_is(type, "system.message")) {
    if (k->i != total - 1) return refuse(k, "", "system.message must be the last event of a request");
    code = k->i > 0 && k->out->v[k->i - 1].now ? MR_OK : check_blocked(k, type);
    return code ? code : check_content(k, ev, MR_BLOCK_TEXT, true);
  }
  if (mr_str_is(type, "user.define_outcome")) {
    refuse(k, "type", "outcomes are not implemented yet");
    k->c->err.code = MR_E_UNSUPPORTED;
    k->c->err.http_status = mr_err_http_status(MR_E_UNSUPPORTED);
    return MR_E_UNSUPPORTED;
  }
  return refuse(k, "type", "unknown event type \"" MR_FMT "\"", MR_ARG(type));
}

/* The stored form: the fields of this type, in a fixed order. */
static int write_body(struct check *k, yyjson_val *ev, struct mr_event_in *e)
{
  static const char *const fields[] = {"content", "session_thread_id", "tool_use_id", "custom_tool_use_id",
                                       "result",  "deny_message",      "is_error"};
  struct mr_buf b;
  struct mr_jw w;
  char id[MR_ID_MAX];

  if (mr_id_make(k->c->d->sys, id, "sevt") != MR_OK)
    return mr_err_set(&k->c->err, MR_E_IO, NULL, "no randomness");
  memcpy(e->id, id, sizeof id < sizeof e->id ? sizeof id : sizeof e->id);
  mr_buf_init(&b, k->c->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "type", e->type);
  mr_jw_kc(&w, "id", e->id);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    yyjson_val *v = mr_json_get(ev, fields[i]);
    if (!v || (yyjson_is_null(v) && strcmp(fields[i], "content") == 0)) continue;
    if (mr_str_is(e->type, "user.interrupt") && strcmp(fields[i], "session_thread_id") != 0) continue;
    if (!mr_str_is(e->type, "user.interrupt") && strcmp(fields[i], "session_thread_id") == 0)
      continue; /* routed by the tool use, whatever the client says */
    mr_jw_key(&w, fields[i]);
    w.after_key = false;
    mr_json_write(&b, v, false);
  }
  mr_jw_kraw(&w, "processed_at", MR_S("null"));
  mr_jw_obj_end(&w);
  e->body = mr_arena_str(k->c->arena, mr_buf_get(&b));
  mr_buf_free(&b);
  return e->body.n ? MR_OK : mr_err_nomem(&k->c->err);
}

int mr_events_check(struct mr_call *c, struct mr_session *s, yyjson_val *events, const char *field,
                    struct mr_event_batch *out)
{
  struct check k = {.c = c, .s = s, .field = field, .out = out};
  int total = (int)yyjson_arr_size(events), code = MR_OK;
  yyjson_arr_iter it = yyjson_arr_iter_with(events);
  yyjson_val *ev;

  out->n = 0;
  out->v = mr_arena_alloc(c->arena, (size_t)(total + 1) * sizeof *out->v);
  if (!out->v) return mr_err_nomem(&c->err);
  while (code == MR_OK && events && (ev = yyjson_arr_iter_next(&it))) {
    struct mr_event_in *e = &out->v[out->n];
    k.i = out->n;
    code = check_one(&k, ev, total, e);
    if (code == MR_OK) code = write_body(&k, ev, e);
    out->n += code == MR_OK;
  }
  return code;
}

void mr_events_inbox_add(struct mr_commit *cm, struct mr_str session_id, const struct mr_event_in *e)
{
  struct mr_inbox_row row = {.event_id = mr_str_c(e->id), .type = e->type, .body = e->body};
  mr_commit_inbox_add(cm, session_id, &row);
}

/* ---- the hooks of accept ---- */

static void on_accept(struct mr_question *q, struct mr_answer *ans)
{
  struct mr_accept *a = MR_OF(q, struct mr_accept, q);
  int code = MR_OK;

  if (a->c->d->cut) {
    code = mr_err_set(&a->c->err, MR_E_CLOSED, NULL, "the server is stopping");
  } else if (ans->code != MR_OK) {
    code = mr_err_set(&a->c->err, ans->code, NULL, MR_FMT, MR_ARG(ans->why));
  } else if (ans->said & MR_SAID_REFUSE) {
    code = mr_err_set(&a->c->err, MR_E_DENIED, NULL, MR_FMT,
                      MR_ARG(ans->why.n ? ans->why : MR_S("these events are not accepted")));
  } else if (ans->said & MR_SAID_EVENTS) {
    a->doc = ans->value;
    ans->value = NULL;
  }
  a->done(a, code);
}

static bool interrupts_only(yyjson_val *events)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(events);
  yyjson_val *ev;

  while ((ev = yyjson_arr_iter_next(&it)))
    if (!mr_str_is(mr_json_get_str(ev, "type"), "user.interrupt")) return false;
  return true;
}

bool mr_accept_ask(struct mr_accept *a, struct mr_call *c, struct mr_str session_id,
                   const struct mr_subject *who, yyjson_val *events,
                   void (*done)(struct mr_accept *a, int code))
{
  struct mr_buf b;
  struct mr_jw w;

  if (!mr_hooks_any(c->d, MR_PHASE_ACCEPT, who) || interrupts_only(events)) return false;
  a->c = c;
  a->done = done;
  mr_question_begin(c->d, &b, &w, session_id, who);
  mr_jw_key(&w, "events");
  w.after_key = false; /* the value is written past the writer */
  mr_json_write(&b, events, false);
  mr_question_ask(c->d, MR_PHASE_ACCEPT, who, &b, &w, &a->q, on_accept);
  return true;
}

void mr_accept_cancel(struct mr_accept *a)
{
  if (!mr_question_open(&a->q)) return;
  mr_question_drop(&a->q);
  a->done(a,
          mr_err_set(&a->c->err, MR_E_CANCELLED, NULL, "cancelled while hooks were asked: nothing was stored"));
}

yyjson_val *mr_accept_events(const struct mr_accept *a, yyjson_val *sent)
{
  return a->doc ? mr_json_get(yyjson_doc_get_root(a->doc), "events") : sent;
}

void mr_accept_end(struct mr_accept *a)
{
  yyjson_doc_free(a->doc);
  a->doc = NULL;
}

/* ---- sending ---- */

struct send {
  struct mr_call *c;
  struct mr_session *s;
  struct mr_accept accept;
  bool asked; /* the hooks were */
  struct mr_event_batch batch;
};

static void on_stored(void *ud, int code, const struct mr_err *err)
{
  struct send *p = ud;
  struct mr_session *s = p->s;
  struct mr_call *c = p->c;

  for (struct mr_input *in = s->inbox; code == MR_OK && in; in = in->next)
    for (int i = 0; i < p->batch.n; i++)
      if (strcmp(in->event_id, p->batch.v[i].id) == 0) in->committed = true;
  if (code == MR_OK)
    mr_call_done(c, MR_OK);
  else
    mr_call_fail_err(c, err);
  mr_turn_wake_all(s);
  mr_session_unref(s);
}

static struct mr_input *input_new(struct mr_session *s, const struct mr_event_in *e)
{
  struct mr_input *in = mr_arena_alloc(s->mem, sizeof *in);
  yyjson_doc *doc = NULL;

  if (!in) return NULL;
  memcpy(in->event_id, e->id, sizeof in->event_id);
  in->type = mr_session_copy(s, e->type);
  in->body = mr_session_copy(s, e->body);
  if (!in->type.p || !in->body.p || mr_json_parse(s->d->mem, in->body, SIZE_MAX, &doc, NULL) != MR_OK)
    return NULL;
  mr_input_route(s, in, yyjson_doc_get_root(doc));
  yyjson_doc_free(doc);
  return in;
}

static void echo(struct mr_call *c, struct mr_jw *w, const struct mr_event_in *e, struct mr_txn *t)
{
  static const char tail[] = ",\"processed_at\":null}";

  if (e->now) {
    mr_jw_raw(w, t->n ? t->rows[t->n - 1].body : mr_str_n(NULL, 0));
  } else if (e->drop) {
    char at[28];
    mr_time_format(mr_loop_wall_us(c->d->loop), at);
    mr_jw_raw(w, mr_str_c(mr_arena_printf(c->arena, "%.*s,\"processed_at\":\"%s\"}",
                                          (int)(e->body.n - (sizeof tail - 1)), e->body.p, at)));
  } else {
    mr_jw_raw(w, e->body);
  }
}

static void store_batch(struct send *p)
{
  struct mr_call *c = p->c;
  struct mr_session *s = p->s;
  struct mr_txn t;
  struct mr_jw w;

  mr_txn_begin(&t, &s->main, &c->who, "inbox");
  mr_jw_init(&w, &c->out);
  mr_jw_obj(&w);
  mr_jw_key(&w, "data");
  mr_jw_arr(&w);
  for (int i = 0; i < p->batch.n; i++) {
    struct mr_event_in *e = &p->batch.v[i];
    struct mr_input *in = e->drop ? NULL : input_new(s, e);
    if (!e->drop && !in) {
      t.code = MR_E_NOMEM;
      break;
    }
    if (e->now) {
      mr_txn_take(&t, in);
    } else if (in) {
      *s->inbox_tail = in;
      s->inbox_tail = &in->next;
      if (t.c) mr_events_inbox_add(t.c, mr_str_c(s->id), e);
    }
    echo(c, &w, e, &t);
  }
  mr_jw_arr_end(&w);
  mr_jw_obj_end(&w);
  for (struct mr_thread *th = &s->main; t.n && t.code == MR_OK && !MR_SWITCH("answer-split") && th;
       th = th->next) {
    mr_txn_on(&t, th);
    mr_turn_answered(&t);
  }
  mr_txn_commit(&t, MR_SWITCH("ack-early") ? NULL : on_stored, p);
  if (MR_SWITCH("ack-early")) on_stored(p, MR_OK, NULL);
}

static void send_end(struct send *p, int code)
{
  mr_accept_end(&p->accept);
  mr_call_done(p->c, code);
}

static int check_batch(struct send *p, struct mr_session *s)
{
  struct mr_call *c = p->c;
  int code;

  if (s->status == MR_TERMINATED)
    return mr_err_set(&c->err, MR_E_STATE, NULL, "session %s is %s: it takes no more events", s->id,
                      s->archived_us ? "archived" : "terminated");
  code = mr_events_check(c, s, mr_accept_events(&p->accept, mr_json_get(c->in, "events")), "events", &p->batch);
  if (code == MR_OK && p->batch.n == 0)
    code = mr_err_set(&c->err, MR_E_INVALID, "events", "events: at least one event");
  return code;
}

/* Accepted, and there is nothing to do. */
static void answer_dropped(struct send *p)
{
  struct mr_call *c = p->c;
  struct mr_jw w;

  mr_buf_c(&c->out, "{\"data\":[");
  for (int i = 0; i < p->batch.n; i++) {
    mr_jw_init(&w, &c->out);
    if (i) mr_buf_char(&c->out, ',');
    echo(c, &w, &p->batch.v[i], NULL);
  }
  mr_buf_c(&c->out, "]}");
  send_end(p, MR_OK);
}

static void on_send_session(void *ud, int code, struct mr_session *s, const struct mr_err *err);

static void on_accepted(struct mr_accept *a, int code)
{
  struct send *p = MR_OF(a, struct send, accept);

  p->asked = true;
  p->c->cancel = NULL;
  if (code != MR_OK)
    send_end(p, code);
  else /* it may have been dropped, deleted or archived meanwhile */
    mr_session_get(p->c->d, p->c->who.workspace, p->c->path[0], on_send_session, p);
}

static void cancel_accept(struct mr_call *c)
{
  mr_accept_cancel(&((struct send *)c->priv)->accept);
}

static void on_send_session(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct send *p = ud;
  struct mr_call *c = p->c;
  struct mr_subject who;
  bool all_drop = true;

  if (code != MR_OK) {
    mr_accept_end(&p->accept);
    mr_call_fail_err(c, err);
    return;
  }
  code = check_batch(p, s);
  for (int i = 0; i < p->batch.n; i++)
    all_drop = all_drop && p->batch.v[i].drop;
  if (code != MR_OK || all_drop) {
    if (code != MR_OK)
      send_end(p, code);
    else
      answer_dropped(p);
    mr_session_unref(s);
    return;
  }
  who = mr_thread_subject(&s->main);
  c->cancel = cancel_accept;
  if (!p->asked &&
      mr_accept_ask(&p->accept, c, mr_str_c(s->id), &who, mr_json_get(c->in, "events"), on_accepted)) {
    mr_session_unref(s);
    return;
  }
  c->cancel = NULL;
  mr_accept_end(&p->accept);
  p->s = s;
  store_batch(p);
}

void mr_sessions_events_send(struct mr_call *c)
{
  struct send *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  p->c = c;
  c->priv = p;
  mr_session_get(c->d, c->who.workspace, c->path[0], on_send_session, p);
}
