/*
 * turn_recover.c - what becomes of a thread's work when its session is loaded (API: sessions §8.6): a model request
 * that was in flight is over, and asked again; a tool that had been started is asked for its result, run again if it
 * may be, or closed; a call whose handler is gone is the client's. Once for each thread, before its first step.
 * Loop thread; session.c calls.
 */
#include "agent/session_t.h"

/* The call becomes the client's, who must see it: a child's is on the primary's stream from here on. */
static void disown_rows(struct mr_txn *t, struct mr_tcall *c)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_txn_private(t, "tool.claim",
                 mr_str_c(mr_arena_printf(t->arena, "{\"event_id\":\"%s\",\"owned\":false}", c->event_id)));
  if (mr_thread_primary(c->th)) return;
  mr_txn_on(t, &t->s->main);
  mr_txn_wire(t, &b, &w, "agent.custom_tool_use", c->event_id, NULL);
  mr_jw_kstr(&w, "name", c->name);
  mr_jw_kraw(&w, "input", c->input);
  mr_jw_kc(&w, "session_thread_id", c->th->id);
  mr_txn_end_wire(t, &b, &w);
  mr_txn_on(t, c->th);
}

/* A handler that ran when the process died: again if it may, else closed; unowned if nobody is left. */
static void recover_custom(struct mr_txn *t, struct mr_tcall *c)
{
  int owns = mr_tools_owned(c->th, c->name);
  bool guarded = c->kind == MR_TOOL_GUARDED; /* never the client's to answer */

  if (guarded && c->attempt == 0) return;
  if (!guarded && !owns && (c->attempt == 0 || c->idempotent)) {
    disown_rows(t, c);
  } else if (c->attempt > 0 && ((owns & MR_OWNS_IDEMPOTENT && c->idempotent) || MR_SWITCH("rerun-all"))) {
    mr_tools_intent_row(t, c);
  } else if (c->attempt > 0) {
    mr_tools_interrupted(c);
  }
}

static void recover_tools(struct mr_thread *th)
{
  struct mr_txn t;

  if (th->status != MR_RUNNING) return;
  mr_txn_begin(&t, th, NULL, "recover");
  for (int i = 0; i < th->ncalls; i++) {
    struct mr_tcall *c = th->calls[i];
    if (c->resolved || c->finished) continue;
    if (c->kind == MR_TOOL_WEB && c->attempt > 0)
      mr_tools_interrupted(c);
    else if (c->kind != MR_TOOL_BUILTIN && c->owned)
      recover_custom(&t, c);
    else if (c->kind == MR_TOOL_BUILTIN && c->attempt > 0)
      c->recovering = true;
    if (c->recovering) c->intent_seq = 0;
  }
  if (t.n == 0) {
    mr_commit_drop(&t.c);
    mr_arena_free(&t.arena);
    if (!th->s->d->draining) mr_tools_start(th);
  } else {
    mr_txn_commit(&t, NULL, NULL);
  }
}

static void recover(struct mr_thread *th)
{
  struct mr_session *s = th->s;
  struct mr_usage none = {0};
  struct mr_txn t;
  bool model = false;

  if (th->status == MR_RUNNING && th->span_id[0]) {
    /* The request that was in flight is over; the model is asked again under new event ids. */
    mr_txn_begin(&t, th, NULL, "recover");
    if (!MR_SWITCH("no-span-end")) mr_turn_span_end(&t, true, &none);
    mr_txn_private(&t, "model.again", MR_S("{}"));
    if (!s->d->draining) model = mr_turn_advance(&t);
    mr_turn_commit(&t, model);
    return;
  }
  recover_tools(th);
  mr_turn_wake(th);
}

void mr_turn_recover(struct mr_session *s)
{
  for (struct mr_thread *th = &s->main; th && !s->poisoned && !s->d->cut; th = th->next)
    recover(th);
}
