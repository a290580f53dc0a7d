/*
 * turn_reply.c - the rows of a model's reply: the private one, which holds it as the model wrote it and names
 * the event of each call, the wire events in the order of its blocks, the end of its span, and what a call needs
 * besides (the outcome of one that is refused, the claim of the handler that owns it). All of it goes into the
 * caller's one transaction.
 */
#include "agent/toolset.h"
#include "agent/turn_model_t.h"

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

static void evaluation(struct mr_jw *w, const struct mr_use *u)
{
  static const char *const names[] = {"allow", "ask", "deny"};

  mr_jw_kc(w, "evaluated_permission", names[u->perm]);
  if (u->judged >= MR_JUDGED_INPUT) return; /* refused before any policy: no evaluation */
  mr_jw_key(w, "evaluation");
  if (u->judged == MR_JUDGED_AUTO) {
    mr_judgement_write(w, &u->verdict);
    return;
  }
  mr_jw_obj(w);
  if (u->judged == MR_JUDGED_POLICY) {
    mr_jw_kc(w, "type", u->perm == MR_PERM_ASK ? "always_ask" : "always_allow");
  } else {
    mr_jw_kc(w, "type", "auto");
    mr_jw_key(w, "evaluated_permission");
    mr_jw_obj(w);
    mr_jw_kc(w, "type", names[u->perm]);
    if (u->perm != MR_PERM_ALLOW)
      mr_jw_kc(w, "reason_code", u->perm == MR_PERM_ASK ? "indeterminate" : "high_risk");
    if (u->perm == MR_PERM_ASK && u->message.n) mr_jw_kstr(w, "reason", u->message); /* for who is asked */
    mr_jw_obj_end(w);
  }
  mr_jw_obj_end(w);
}

/* Does a client answer it, or say whether it may run? Then a child's is shown on the primary's stream too. */
static bool for_client(const struct mr_txn *t, const struct mr_use *u)
{
  if (u->kind == MR_TOOL_CUSTOM) return u->perm != MR_PERM_DENY && !mr_tools_owned(t->th, u->name);
  return u->perm == MR_PERM_ASK ||
         (u->kind == MR_TOOL_BUILTIN && u->perm == MR_PERM_ALLOW && t->s->self_hosted);
}

/* Does a child's turn end with this reply? Then its text is the report to its parent, and no message besides. */
static bool is_report(const struct mr_model_run *r)
{
  return !mr_thread_primary(r->th) && r->nuses == 0 && r->th->nmail == 0 &&
         !mr_str_is(r->stop_reason, "pause_turn");
}

static void hidden_row(struct mr_txn *t, const struct mr_use *u)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_buf_init(&b, t->s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "event_id", u->event_id);
  mr_jw_kstr(&w, "name", u->name);
  mr_jw_kraw(&w, "input", u->input);
  mr_jw_obj_end(&w);
  mr_txn_private(t, "tool.hidden", mr_buf_get(&b));
  mr_buf_free(&b);
}

static void use_row(struct mr_txn *t, const struct mr_use *u)
{
  struct mr_buf b;
  struct mr_jw w;

  if (u->kind == MR_TOOL_HIDDEN) {
    hidden_row(t, u);
    return;
  }
  mr_txn_wire(t, &b, &w, u->kind == MR_TOOL_CUSTOM ? "agent.custom_tool_use" : "agent.tool_use", u->event_id,
              NULL);
  mr_jw_kstr(&w, "name", u->name);
  mr_jw_kraw(&w, "input", u->input);
  if (u->kind != MR_TOOL_CUSTOM) evaluation(&w, u);
  if (for_client(t, u))
    mr_txn_end_wire_both(t, &b, &w, true);
  else
    mr_txn_end_wire(t, &b, &w);
}

/* What a call needs besides its event: a refusal's outcome, or the claim of the handler that owns it. */
static void use_private(struct mr_txn *t, const struct mr_use *u)
{
  struct mr_session *s = t->s;
  struct mr_buf b;
  struct mr_jw w;
  int owns = 0;

  if (u->kind == MR_TOOL_HIDDEN && u->perm != MR_PERM_DENY) return;
  if (u->kind != MR_TOOL_BUILTIN && u->kind != MR_TOOL_WEB && u->perm != MR_PERM_DENY)
    owns = mr_tools_owned(t->th, u->name);
  /* What is guarded is claimed also when its handler went meanwhile: without the claim it would be a tool of the
   * sandbox when the log is read. */
  if (u->perm != MR_PERM_DENY && !owns && u->kind != MR_TOOL_GUARDED) return;
  mr_buf_init(&b, s->d->mem, 1 << 20);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "event_id", u->event_id);
  if (u->perm == MR_PERM_DENY) {
    const char *text = u->judged == MR_JUDGED_INPUT
                           ? mr_arena_printf(t->arena, MR_FMT ": the input does not fit its schema: " MR_FMT,
                                             MR_ARG(u->name), MR_ARG(u->message))
                           : mr_arena_printf(t->arena, "Permission to use " MR_FMT " has been denied.%s" MR_FMT,
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
  struct mr_part *p = r->parts;
  bool report = is_report(r);
  struct mr_buf b;
  struct mr_jw w;
  int k = 0;

  while (v) {
    struct mr_str type = mr_json_get_str(v, "type");
    bool text = mr_str_is(type, "text"),
         thinking = mr_str_starts(mr_str_trim(type), MR_S("thinking")) || mr_str_is(type, "redacted_thinking");
    const char *id = NULL;
    if ((text || thinking) && p && p->thinking == thinking) {
      id = p->id;
      p = p->next;
    }
    if (text && !report) {
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

void mr_reply_rows(struct mr_txn *t, struct mr_model_run *r)
{
  reply_private(t, r);
  if (MR_SWITCH("reply-split")) {
    mr_txn_commit(t, NULL, NULL);
    mr_txn_begin(t, r->th, NULL, "reply");
  }
  content_rows(t, r);
  mr_turn_span_end(t, false, &r->usage);
  for (int i = 0; i < r->nuses; i++)
    use_private(t, &r->uses[i]);
}
