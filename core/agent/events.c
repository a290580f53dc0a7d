/*
 * events.c - POST of a session's events; see events.h. A batch that events_check.c has nothing against is stored in one
 * commit: what waits goes to the inbox; results of custom tools and outcomes are processed on receipt and go to the
 * log at once.
 */
#include "agent/events.h"

#include <stdio.h>

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

/* Is there something to do for a self-hosted session's worker? What it sends itself does not count, nor does an
 * interrupt of a session that has nothing open. */
static bool wants_hands(const struct mr_session *s, const struct mr_event_batch *b)
{
  for (int i = 0; i < b->n; i++)
    if (mr_str_is(b->v[i].type, "user.interrupt") ? s->status != MR_IDLE || mr_state_blocked(s)
                                                  : !mr_str_is(b->v[i].type, "user.tool_result"))
      return true;
  return false;
}

static void store_batch(struct send *p)
{
  struct mr_call *c = p->c;
  struct mr_session *s = p->s;
  struct mr_txn t;
  struct mr_jw w;

  mr_txn_begin(&t, &s->main, &c->who, "inbox");
  t.hands_wanted = s->self_hosted && wants_hands(s, &p->batch);
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

/* Who serves the session's tools sends their results, and nothing else (access.c). */
static int check_bearer(struct mr_call *c, yyjson_val *events)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(events);
  yyjson_val *ev;

  if (c->by.kind <= MR_BEARER_API) return MR_OK;
  while (yyjson_is_arr(events) && (ev = yyjson_arr_iter_next(&it))) {
    struct mr_str type = mr_json_get_str(ev, "type");
    if (!mr_str_is(type, "user.tool_result") && !mr_str_is(type, "user.custom_tool_result"))
      return mr_err_set(&c->err, MR_E_DENIED, "events",
                        "events: a worker may send user.tool_result and user.custom_tool_result, nothing else");
  }
  return MR_OK;
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

static void on_files(void *ud, int code)
{
  struct send *p = ud;

  if (code != MR_OK)
    send_end(p, code);
  else
    mr_session_get(p->c->d, p->c->who.workspace, p->c->path[0], on_send_session, p);
}

/* Then the session, which may have been dropped, deleted or archived while hooks were asked. */
static void read_files(struct send *p)
{
  yyjson_val *events = mr_accept_events(&p->accept, mr_json_get(p->c->in, "events"));
  mr_file_refs_read(p->c, events, p->c->path[0], &p->batch.files, on_files, p);
}

static void on_accepted(struct mr_accept *a, int code)
{
  struct send *p = MR_OF(a, struct send, accept);

  p->asked = true;
  p->c->cancel = NULL;
  if (code != MR_OK)
    send_end(p, code);
  else
    read_files(p);
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

static void on_rubric(void *ud, int code, struct mr_str text)
{
  struct send *p = ud;

  p->batch.rubric = text;
  if (code != MR_OK)
    mr_call_done(p->c, code);
  else
    read_files(p);
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
  if (check_bearer(c, mr_json_get(c->in, "events")) != MR_OK) {
    mr_call_done(c, c->err.code);
    return;
  }
  mr_rubric_read(c, mr_json_get(c->in, "events"), "events", on_rubric, p);
}
