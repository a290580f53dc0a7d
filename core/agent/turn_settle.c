/*
 * turn_settle.c - the end of a turn and its hooks: those of settle are asked whether a turn that would end may,
 * and can go on with a message of theirs; those of idle hear of a session that is idle.
 *
 * Settle is asked when all that the turn decided is durable, so that a hook finds in the session what it is asked
 * about. That it was asked is no state: after a crash, or when a drain came between, the running session comes to
 * the same point and it is asked again. What is recorded is the message, with a private row that counts the
 * continuation towards the limit of rounds: a hook cannot make a turn endless.
 */
#include "agent/session_t.h"

/* The text of the latest reply; the history ends with it when it had any content. */
static void write_text(struct mr_thread *th, struct mr_jw *w)
{
  struct mr_str last = th->nhistory ? th->history[th->nhistory - 1] : mr_str_n(NULL, 0);
  struct mr_session *s = th->s;
  yyjson_doc *doc = NULL;
  yyjson_val *root, *v;
  yyjson_arr_iter it;
  struct mr_buf text;

  mr_buf_init(&text, s->d->mem, SIZE_MAX / 2);
  if (last.n && mr_json_parse(s->d->mem, last, SIZE_MAX, &doc, NULL) == MR_OK) {
    root = yyjson_doc_get_root(doc);
    it = yyjson_arr_iter_with(mr_json_get(root, "content"));
    while (mr_str_is(mr_json_get_str(root, "role"), "assistant") && (v = yyjson_arr_iter_next(&it)))
      if (mr_str_is(mr_json_get_str(v, "type"), "text")) mr_buf_str(&text, mr_json_get_str(v, "text"));
  }
  mr_jw_kstr(w, "text", text.n ? mr_buf_get(&text) : MR_S(""));
  mr_buf_free(&text);
  yyjson_doc_free(doc);
}

static void message_rows(struct mr_txn *t, struct mr_str text)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_txn_private(t, "turn.continue", MR_S("{}"));
  mr_txn_wire(t, &b, &w, "user.message", NULL, NULL);
  mr_jw_key(&w, "content");
  mr_jw_arr(&w);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "text");
  mr_jw_kstr(&w, "text", text);
  mr_jw_obj_end(&w);
  mr_jw_arr_end(&w);
  mr_txn_end_wire(t, &b, &w);
}

static void over(struct mr_session *s)
{
  s->d->stats.handlers_running--;
  mr_domain_settled(s->d);
  mr_session_unref(s);
}

static void on_settle(struct mr_question *q, struct mr_answer *a)
{
  struct mr_thread *th = MR_OF(q, struct mr_thread, settle);
  struct mr_session *s = th->s;
  bool more = (a->said & MR_SAID_CONTINUE) != 0, model;
  struct mr_txn t;

  if (!more || !s->d->draining) { /* a drain leaves what goes on to the next start */
    mr_txn_begin(&t, th, NULL, "settle");
    if (more)
      message_rows(&t, mr_json_get_str(yyjson_doc_get_root(a->value), "continue"));
    else
      th->settled = true;
    model = mr_turn_advance(&t);
    th->settled = false;
    mr_turn_commit(&t, model);
  }
  over(s);
}

bool mr_settle_passed(struct mr_txn *t)
{
  struct mr_thread *th = t->th;
  struct mr_session *s = th->s;
  struct mr_subject who = mr_thread_subject(th);
  struct mr_buf b;
  struct mr_jw w;

  if (th->settled || !mr_thread_primary(th))
    return true; /* a child's end is its report: nobody asks about it */
  if (mr_question_open(&th->settle)) return false;
  if (!mr_hooks_any(s->d, MR_PHASE_SETTLE, &who)) return true;
  if (s->d->draining) return false;
  th->settle_wanted = t->n > 0 || s->done_seq < s->seq;
  if (th->settle_wanted) return false;
  mr_question_begin(s->d, &b, &w, mr_str_c(s->id), &who);
  write_text(th, &w);
  mr_session_ref(s);
  s->d->stats.handlers_running++;
  mr_question_ask(s->d, MR_PHASE_SETTLE, &who, &b, &w, &th->settle, on_settle);
  return false;
}

void mr_settle_drop(struct mr_thread *th)
{
  th->settle_wanted = false;
  if (!mr_question_open(&th->settle)) return;
  mr_question_drop(&th->settle);
  over(th->s);
}

void mr_settle_committed(struct mr_thread *th)
{
  if (th->settle_wanted && th->s->done_seq == th->s->seq) mr_turn_wake(th);
}

void mr_idle_heard(struct mr_session *s, const struct mr_log_row *rows, int n)
{
  struct mr_subject who = mr_thread_subject(&s->main);
  yyjson_doc *doc = NULL;
  struct mr_buf b;
  struct mr_jw w;

  for (int i = 0; i < n; i++) {
    if (!mr_str_is(rows[i].type, "session.status_idle")) continue;
    if (s->d->cut || !mr_hooks_any(s->d, MR_PHASE_IDLE, &who)) return;
    if (mr_json_parse(s->d->mem, rows[i].body, SIZE_MAX, &doc, NULL) != MR_OK) return;
    mr_question_begin(s->d, &b, &w, mr_str_c(s->id), &who);
    mr_jw_key(&w, "stop_reason");
    w.after_key = false; /* the value is written past the writer */
    mr_json_write(&b, mr_json_get(yyjson_doc_get_root(doc), "stop_reason"), false);
    mr_question_ask(s->d, MR_PHASE_IDLE, &who, &b, &w, NULL, NULL);
    yyjson_doc_free(doc);
  }
}
