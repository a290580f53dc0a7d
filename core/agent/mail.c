/*
 * mail.c - messages between the threads of a session (API: sessions §12.3): the prompt that a coordinator gives a
 * child, the report that a child's turn ends with, and notices of the machine that no event shows.
 *
 * What was received waits in its thread until that next asks its model: then, in one private row, it becomes part of
 * the history. So what a model is given never lies before what it was asked when the message came.
 *
 * Invariant: mail is state, made by mr_state_apply alone. Loop thread.
 */
#include "agent/session_t.h"

#include <stdio.h>

struct mr_mail {
  struct mr_mail *next;
  struct mr_str content; /* array of content blocks, JSON */
};

/* ---- state ---- */

/* Mail is pushed with the line that tells the model whose it is, as the first block of the content. */
int mr_mail_apply(struct mr_thread *th, struct mr_str from, yyjson_val *content)
{
  struct mr_mail *m = mr_arena_alloc(th->s->mem, sizeof *m), **at = &th->mail;
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *v;
  struct mr_buf b;
  struct mr_jw w;

  if (!m) return MR_E_NOMEM;
  mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_arr(&w);
  if (from.n) {
    mr_jw_obj(&w);
    mr_jw_kc(&w, "type", "text");
    mr_jw_kstr(&w, "text", from);
    mr_jw_obj_end(&w);
  }
  while (content && (v = yyjson_arr_iter_next(&it))) {
    if (b.n > 1) mr_buf_char(&b, ',');
    mr_json_write(&b, v, false);
  }
  mr_buf_char(&b, ']');
  m->content = b.failed ? mr_str_n(NULL, 0) : mr_session_copy(th->s, mr_buf_get(&b));
  mr_buf_free(&b);
  if (!m->content.p) return MR_E_NOMEM;
  while (*at)
    at = &(*at)->next;
  *at = m;
  th->nmail++;
  return MR_OK;
}

int mr_mail_apply_taken(struct mr_thread *th, int n)
{
  int code = MR_OK;

  for (; code == MR_OK && n > 0 && th->mail; n--) {
    yyjson_doc *doc = NULL;
    code = mr_json_parse(th->s->d->mem, th->mail->content, SIZE_MAX, &doc, NULL);
    if (code == MR_OK) code = mr_history_user(th, yyjson_doc_get_root(doc), "user");
    yyjson_doc_free(doc);
    th->mail = th->mail->next;
    th->nmail--;
    if (th->nheld) th->nheld--;
  }
  th->wants_model = true;
  return code;
}

/* ---- rows ---- */

void mr_mail_take(struct mr_txn *t)
{
  if (t->th->nmail)
    mr_txn_private(t, "mail.taken", mr_str_c(mr_arena_printf(t->arena, "{\"n\":%d}", t->th->nmail)));
}

void mr_mail_text(struct mr_txn *t, struct mr_str text, struct mr_buf *out)
{
  struct mr_jw w;

  mr_buf_init(out, t->s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, out);
  mr_jw_arr(&w);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "text");
  mr_jw_kstr(&w, "text", text);
  mr_jw_obj_end(&w);
  mr_jw_arr_end(&w);
}

void mr_mail_received(struct mr_txn *t, struct mr_thread *from, struct mr_thread *to, struct mr_str content)
{
  struct mr_thread *was = mr_txn_on(t, to);
  struct mr_buf b;
  struct mr_jw w;

  mr_txn_wire(t, &b, &w, "agent.thread_message_received", NULL, NULL);
  mr_jw_kc(&w, "from_session_thread_id", from->id);
  if (!mr_thread_primary(from)) mr_jw_kstr(&w, "from_agent_name", from->agent_name);
  mr_jw_kraw(&w, "content", content);
  mr_txn_end_wire(t, &b, &w);
  mr_txn_on(t, was);
}

void mr_mail_sent(struct mr_txn *t, struct mr_thread *from, struct mr_thread *to, struct mr_str content)
{
  struct mr_thread *was = mr_txn_on(t, from);
  struct mr_buf b;
  struct mr_jw w;

  mr_txn_wire(t, &b, &w, "agent.thread_message_sent", NULL, NULL);
  mr_jw_kc(&w, "to_session_thread_id", to->id);
  if (!mr_thread_primary(to)) mr_jw_kstr(&w, "to_agent_name", to->agent_name);
  mr_jw_kraw(&w, "content", content);
  mr_txn_end_wire(t, &b, &w);
  mr_txn_on(t, was);
}

void mr_mail_notice(struct mr_txn *t, struct mr_thread *to, struct mr_str text)
{
  struct mr_thread *was = mr_txn_on(t, to);
  struct mr_buf b;

  mr_buf_init(&b, t->s->d->mem, SIZE_MAX / 2);
  mr_buf_c(&b, "{\"text\":");
  mr_json_quote(&b, text);
  mr_buf_char(&b, '}');
  mr_txn_private(t, "mail.notice", mr_buf_get(&b));
  mr_buf_free(&b);
  mr_txn_on(t, was);
}

/* ---- the end of a child's turn ---- */

/* Goes on with mail, when nothing else keeps it; its next step asks the model. */
void mr_mail_wake(struct mr_txn *t, struct mr_thread *th)
{
  struct mr_thread *was = mr_txn_on(t, th);

  if (th->status == MR_IDLE && !mr_thread_blocked(th)) mr_turn_running(t);
  mr_txn_on(t, was);
  mr_turn_wake(th);
}

/* The text blocks of the latest reply, as content; of an agent that said nothing, a line that says so. */
static void last_words(struct mr_txn *t, struct mr_buf *out)
{
  struct mr_thread *th = t->th;
  struct mr_str last = th->nhistory ? th->history[th->nhistory - 1] : mr_str_n(NULL, 0), text;
  yyjson_doc *doc = NULL;
  yyjson_arr_iter it;
  yyjson_val *v;
  struct mr_jw w;
  int n = 0;

  mr_buf_init(out, t->s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, out);
  mr_jw_arr(&w);
  if (last.n && mr_json_parse(t->s->d->mem, last, SIZE_MAX, &doc, NULL) == MR_OK &&
      mr_str_is(mr_json_get_str(yyjson_doc_get_root(doc), "role"), "assistant")) {
    it = yyjson_arr_iter_with(mr_json_get(yyjson_doc_get_root(doc), "content"));
    while ((v = yyjson_arr_iter_next(&it))) {
      text = mr_json_get_str(v, "text");
      if (!mr_str_is(mr_json_get_str(v, "type"), "text") || !mr_str_trim(text).n) continue;
      mr_jw_obj(&w);
      mr_jw_kc(&w, "type", "text");
      mr_jw_kstr(&w, "text", text);
      mr_jw_obj_end(&w);
      n++;
    }
  }
  if (n == 0)
    mr_jw_raw(&w, MR_S("{\"type\":\"text\",\"text\":\"(the agent ended its turn without a message)\"}"));
  mr_jw_arr_end(&w);
  yyjson_doc_free(doc);
}

void mr_mail_report(struct mr_txn *t)
{
  struct mr_thread *th = t->th, *main = &t->s->main;
  struct mr_buf content;

  last_words(t, &content);
  if (!mr_thread_advisor(th)) mr_mail_sent(t, th, main, mr_buf_get(&content));
  mr_mail_received(t, th, main, mr_buf_get(&content));
  mr_buf_free(&content);
}
