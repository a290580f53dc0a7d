/*
 * turn_tools.c - running the tool calls of a reply: intents before, results after. A call starts only when
 * its intent is durable, so a crash never leaves a tool running that the log does not know; its result is
 * recorded with those of its batch. Built-in tools run in the session's sandbox, those of the web in the server
 * (web.c), custom ones in the host's handler that claimed them.
 */
#include "agent/session_t.h"

#include <stdio.h>

static const char interrupted_text[] =
    "[{\"type\":\"text\",\"text\":\"Tool execution was interrupted before completion. Please retry.\"}]";
static const char no_output[] = "[{\"type\":\"text\",\"text\":\"(no output)\"}]"; /* spec/resources.md §4.2 */

struct host_run { /* a handler's call: what the host sees, and whose it is */
  struct mr_tool_run run;
  struct mr_tcall *call;
};

int mr_tools_owned(const struct mr_thread *th, struct mr_str name)
{
  const struct mr_tool_runner *t = &th->s->d->tools;
  return t->owns ? t->owns(t->ud, name, th->agent_id, th->agent_name) : 0;
}

bool mr_tools_running(const struct mr_thread *th)
{
  for (int i = 0; i < th->ncalls; i++) {
    const struct mr_tcall *c = th->calls[i];
    if (c->attempt > 0 && !c->finished && !c->resolved) return true;
  }
  return false;
}

/* ---- rows ---- */

static bool may_start(const struct mr_tcall *c)
{
  if (c->resolved || c->finished || c->attempt > 0 || c->kind == MR_TOOL_HIDDEN) return false;
  if (mr_call_clients(c)) return false;
  if (c->kind == MR_TOOL_CUSTOM) return c->owned;
  return c->perm == MR_PERM_ALLOW || (c->perm == MR_PERM_ASK && c->confirmed > 0);
}

void mr_tools_intent_row(struct mr_txn *t, struct mr_tcall *c)
{
  mr_txn_private(
      t, "tool.intent",
      mr_str_c(mr_arena_printf(t->arena, "{\"event_id\":\"%s\",\"attempt\":%d}", c->event_id, c->attempt + 1)));
}

bool mr_tools_to_start(const struct mr_thread *th)
{
  for (int i = 0; i < th->ncalls; i++)
    if (may_start(th->calls[i])) return true;
  return false;
}

void mr_tools_intents(struct mr_txn *t)
{
  for (int i = 0; i < t->th->ncalls; i++)
    if (may_start(t->th->calls[i])) mr_tools_intent_row(t, t->th->calls[i]);
}

static void outcome(struct mr_buf *b, const struct mr_tcall *c)
{
  struct mr_jw w;

  mr_buf_init(b, c->th->s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "event_id", c->event_id);
  mr_jw_key(&w, "is_error");
  mr_jw_bool(&w, c->is_error);
  mr_jw_kraw(&w, "content", c->result);
  mr_jw_obj_end(&w);
}

static void hidden_result_row(struct mr_txn *t, struct mr_tcall *c)
{
  struct mr_buf b;

  outcome(&b, c);
  mr_txn_private(t, "tool.result", mr_buf_get(&b));
  mr_buf_free(&b);
}

/* A call that a client was to answer, an interrupted one, has its answer in that client's form: workers that read the
 * history run again what they find no such answer for. */
void mr_tools_result_row(struct mr_txn *t, struct mr_tcall *c)
{
  bool custom = c->kind == MR_TOOL_CUSTOM;
  const char *type = custom               ? "user.custom_tool_result"
                     : mr_call_clients(c) ? "user.tool_result"
                                          : "agent.tool_result";
  struct mr_buf b;
  struct mr_jw w;

  t->label = "result";
  if (c->kind == MR_TOOL_HIDDEN) {
    hidden_result_row(t, c);
    return;
  }
  mr_txn_wire(t, &b, &w, type, NULL, NULL);
  mr_jw_kc(&w, custom ? "custom_tool_use_id" : "tool_use_id", c->event_id);
  mr_jw_kraw(&w, "content", c->result.n ? c->result : MR_S("[]"));
  mr_jw_key(&w, "is_error");
  mr_jw_bool(&w, c->is_error);
  mr_txn_end_wire(t, &b, &w);
}

void mr_tools_interrupted(struct mr_tcall *c)
{
  c->finished = true;
  c->is_error = true;
  c->result = mr_str_c(interrupted_text);
}

/* Kept apart when the rest of the batch still runs, so that a crash does not lose what is finished. */
static void outcome_row(struct mr_tcall *c)
{
  struct mr_buf b;
  struct mr_txn t;

  outcome(&b, c);
  mr_txn_begin(&t, c->th, NULL, "outcome");
  mr_txn_private(&t, "tool.outcome", mr_buf_get(&b));
  mr_txn_commit(&t, NULL, NULL);
  mr_buf_free(&b);
}

static void not_running(struct mr_tcall *c)
{
  c->running = false;
  c->th->s->d->stats.tools_running--;
}

static void finished(struct mr_tcall *c)
{
  struct mr_session *s = c->th->s;

  not_running(c);
  c->finished = true;
  if (mr_tools_running(c->th) && !s->d->draining && !MR_SWITCH("no-outcome")) outcome_row(c);
  mr_turn_wake(c->th);
  (void)MR_FAULT("tool.finish.after");
}

/* ---- the hooks of tools: they see a result before anything else does, so it is not kept before either. Until
 * they have answered the call counts as running; after a crash it is what it would be without a result. ---- */

static void hook_over(struct mr_session *s)
{
  s->d->stats.handlers_running--;
  mr_domain_settled(s->d);
  mr_session_unref(s);
}

static void hook_drop(struct mr_tcall *c)
{
  mr_question_drop(&c->hook);
  not_running(c);
  hook_over(c->th->s);
}

static struct mr_str value_of(struct mr_session *s, yyjson_val *v)
{
  struct mr_buf b;
  struct mr_str text;

  mr_buf_init(&b, s->d->mem, SIZE_MAX / 2);
  mr_json_write(&b, v, false);
  text = mr_session_copy(s, mr_buf_get(&b));
  mr_buf_free(&b);
  return text.n ? text : MR_S("[]");
}

static void on_hook(struct mr_question *q, struct mr_answer *a)
{
  struct mr_tcall *c = MR_OF(q, struct mr_tcall, hook);
  struct mr_session *s = c->th->s;
  yyjson_val *root = yyjson_doc_get_root(a->value);
  struct mr_buf b;

  if (a->said & MR_SAID_CONTENT) c->result = value_of(s, mr_json_get(root, "content"));
  if (a->said & MR_SAID_IS_ERROR) c->is_error = mr_json_get_bool(root, "is_error", false);
  if (a->said & MR_SAID_REFUSE) {
    mr_buf_init(&b, s->d->mem, SIZE_MAX / 2);
    mr_buf_c(&b, "[{\"type\":\"text\",\"text\":");
    mr_json_quote(&b, a->why.n ? a->why : MR_S("The result was withheld."));
    mr_buf_c(&b, "}]");
    c->result = mr_session_copy(s, mr_buf_get(&b));
    c->is_error = true;
    mr_buf_free(&b);
  }
  finished(c);
  hook_over(s);
}

/* True: they are asked about the result in c. */
static bool hook_ask(struct mr_tcall *c)
{
  struct mr_session *s = c->th->s;
  struct mr_subject who = mr_thread_subject(c->th);
  struct mr_buf b;
  struct mr_jw w;

  who.tool = c->name;
  if (s->d->cut || !mr_hooks_any(s->d, MR_PHASE_TOOLS, &who)) return false;
  mr_question_begin(s->d, &b, &w, mr_str_c(s->id), &who);
  mr_jw_kstr(&w, "name", c->name);
  mr_jw_kraw(&w, "input", c->input);
  mr_jw_kc(&w, "tool_use_id", c->event_id);
  mr_jw_kraw(&w, "content", c->result);
  mr_jw_key(&w, "is_error");
  mr_jw_bool(&w, c->is_error);
  mr_session_ref(s);
  s->d->stats.handlers_running++;
  mr_question_ask(s->d, MR_PHASE_TOOLS, &who, &b, &w, &c->hook, on_hook);
  return true;
}

void mr_tools_spilled(struct mr_tcall *c, struct mr_str content, bool is_error)
{
  struct mr_session *s = c->th->s;

  if (c->resolved || c->finished || s->poisoned) {
    not_running(c);
    return;
  }
  c->is_error = is_error;
  c->result = mr_session_copy(s, content.n ? content : MR_S("[]"));
  if (!hook_ask(c)) finished(c);
}

void mr_tools_finish(struct mr_tcall *c, struct mr_str content, bool is_error)
{
  (void)MR_FAULT("tool.finish.before");
  if (c->resolved || c->finished || c->th->s->poisoned || !mr_spill(c, content, is_error))
    mr_tools_spilled(c, content, is_error);
}

static void finish_text(struct mr_tcall *c, struct mr_str text)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_buf_init(&b, c->th->s->d->mem, 1 << 20);
  mr_jw_init(&w, &b);
  mr_jw_arr(&w);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "text");
  mr_jw_kstr(&w, "text", text);
  mr_jw_obj_end(&w);
  mr_jw_arr_end(&w);
  mr_tools_finish(c, mr_buf_get(&b), true);
  mr_buf_free(&b);
}

/* ---- built-in tools: the sandbox ---- */

static void on_sandbox(void *ud, const struct mr_sandbox_result *r)
{
  struct mr_tcall *c = ud;
  struct mr_session *s = c->th->s;

  mr_session_hands_keep(s);
  if (r->code == MR_OK)
    mr_tools_finish(c, mr_str_is(r->content, "[]") ? mr_str_c(no_output) : r->content, r->is_error);
  else if (r->code == MR_E_CANCELLED || r->code == MR_E_NOTFOUND || (r->code == MR_E_CLOSED && c->recovering))
    mr_tools_finish(c, mr_str_c(interrupted_text), true);
  else
    finish_text(c, mr_str_c(r->err ? r->err->message : "the sandbox failed"));
  mr_session_unref(s);
}

static void start_builtin(struct mr_tcall *c)
{
  struct mr_session *s = c->th->s;
  struct mr_sandbox_call call = {.exec_id = mr_str_c(c->event_id), .name = c->name, .input = c->input};

  if (!s->d->sandbox) {
    finish_text(c, MR_S("this runtime has no sandbox: tools that run in one are not available"));
    return;
  }
  if (!mr_session_hands(s)) {
    finish_text(c, MR_S("the sandbox could not be set up: out of memory"));
    return;
  }
  mr_session_ref(s);
  if ((c->recovering && !MR_SWITCH("no-tool-status")
           ? mr_sandbox_status(s->sandbox, call.exec_id, on_sandbox, c)
           : mr_sandbox_call(s->sandbox, &call, on_sandbox, c)) != MR_OK) {
    mr_session_unref(s);
    finish_text(c, MR_S("the sandbox does not take calls now"));
  }
}

/* ---- custom tools: the host's handler ---- */

static void run_end(struct mr_tcall *c)
{
  struct mr_session *s = c->th->s;
  struct host_run *h = MR_OF(c->run, struct host_run, run);

  c->run = NULL;
  s->d->stats.handlers_running--;
  mr_timer_cancel(s->d->loop, &c->deadline);
  mr_mem_free(s->d->mem, h);
  mr_session_unref(s);
  mr_domain_settled(s->d);
}

void mr_tool_run_done(struct mr_domain *d, struct mr_tool_run *run, struct mr_str content, bool is_error)
{
  struct mr_tcall *c = MR_OF(run, struct host_run, run)->call;
  struct mr_err err;
  struct mr_buf b;

  mr_buf_init(&b, d->mem, SIZE_MAX / 2);
  mr_session_ref(c->th->s);
  if (mr_content_from_result(d->mem, content, &b, &err) == MR_OK)
    mr_tools_finish(c, mr_buf_get(&b), is_error);
  else
    finish_text(c,
                mr_str_c(mr_arena_printf(c->th->s->mem, "The tool's result cannot be used: %s", err.message)));
  mr_buf_free(&b);
  run_end(c);
  mr_session_unref(c->th->s);
}

static void on_deadline(struct mr_timer *t)
{
  struct mr_tcall *c = MR_OF(t, struct mr_tcall, deadline);
  struct mr_session *s = c->th->s;
  char text[160];

  snprintf(text, sizeof text, "The tool %.*s did not answer within %lld ms.",
           (int)(c->name.n > 80 ? 80 : c->name.n), c->name.p, (long long)c->run->timeout_ms);
  mr_session_ref(s);
  s->d->tools.cancel(s->d->tools.ud, c->run);
  run_end(c);
  finish_text(c, mr_str_c(text));
  mr_session_unref(s);
}

static void start_custom(struct mr_tcall *c)
{
  struct mr_session *s = c->th->s;
  struct host_run *h = mr_mem_zalloc(s->d->mem, sizeof *h);

  if (!h) {
    finish_text(c, MR_S("out of memory"));
    return;
  }
  h->call = c;
  h->run = (struct mr_tool_run){.name = c->name,
                                .input = c->input,
                                .event_id = mr_str_c(c->event_id),
                                .session_id = mr_str_c(s->id),
                                .thread_id = mr_str_c(c->th->id),
                                .agent_id = c->th->agent_id,
                                .agent_name = c->th->agent_name,
                                .attempt = c->attempt};
  c->run = &h->run;
  s->d->stats.handlers_running++;
  mr_timer_init(&c->deadline, on_deadline);
  mr_session_ref(s);
  if (s->d->tools.start(s->d->tools.ud, &h->run) != MR_OK) {
    run_end(c);
    finish_text(c, MR_S("no handler for this tool is loaded any more"));
  } else if (c->run && c->run->timeout_ms > 0) {
    mr_timer_set(s->d->loop, &c->deadline, c->run->timeout_ms * 1000);
  }
}

/* ---- starting, stopping, recovering ---- */

void mr_tools_start(struct mr_thread *th)
{
  struct mr_session *s = th->s;

  for (int i = 0; i < th->ncalls; i++) {
    struct mr_tcall *c = th->calls[i];
    if (c->attempt == 0 || c->resolved || c->finished || c->running ||
        (c->intent_seq > s->done_seq && !MR_SWITCH("start-early")))
      continue;
    (void)MR_FAULT("tool.start.before");
    c->running = true;
    s->d->stats.tools_running++;
    s->d->stats.tool_calls++;
    if (c->kind == MR_TOOL_BUILTIN)
      start_builtin(c);
    else if (c->kind == MR_TOOL_WEB)
      mr_webtool_start(c);
    else
      start_custom(c);
    (void)MR_FAULT("tool.start.after");
  }
}

void mr_tools_cancel(struct mr_thread *th)
{
  struct mr_session *s = th->s;

  for (int i = 0; i < th->ncalls; i++) {
    struct mr_tcall *c = th->calls[i];
    if (!c->running) continue;
    if (c->run) {
      s->d->tools.cancel(s->d->tools.ud, c->run);
      not_running(c);
      run_end(c);
    } else if (mr_question_open(&c->hook)) {
      hook_drop(c);
    } else if (c->web) {
      not_running(c);
      mr_webtool_drop(c);
    } else if (s->sandbox) {
      mr_sandbox_cancel(s->sandbox, mr_str_c(c->event_id)); /* its callback still comes */
    }
  }
}

void mr_tools_forget(struct mr_thread *th)
{
  struct mr_session *s = th->s;

  for (int i = 0; i < th->ncalls; i++) {
    struct mr_tcall *c = th->calls[i];
    if (mr_question_open(&c->hook)) {
      hook_drop(c);
    } else if (c->web) {
      not_running(c);
      mr_webtool_drop(c);
    } else if (c->running && c->run) {
      s->d->tools.cancel(s->d->tools.ud, c->run);
      not_running(c);
      run_end(c);
    }
  }
}
