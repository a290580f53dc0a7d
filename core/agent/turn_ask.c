/*
 * turn_ask.c - what hooks have to say about a model request: before it is sent (context: what is in it; model:
 * which model, or the reply at once) and about the calls of its reply (permit).
 *
 * What hooks change counts for this request alone: the log and the stored fragments of the history stay as they
 * are, so without a hook of context the bytes that are sent are the same as ever. Nothing here is state: a
 * request that is forgotten while hooks are asked, by an interrupt or a crash, is begun again and they are asked
 * again. What is recorded is the reply, whoever gave it.
 */
#include "agent/turn_model_t.h"

static void begin_question(struct mr_model_run *r, struct mr_buf *b, struct mr_jw *w)
{
  struct mr_subject who = mr_thread_subject(r->th);
  mr_question_begin(r->th->s->d, b, w, mr_str_c(r->th->s->id), &who);
}

/* May the request go on? A drain leaves it to the next start, which finds its span without an end. */
static bool goes_on(struct mr_model_run *r, const struct mr_answer *a)
{
  if (a->said & MR_SAID_REFUSE)
    mr_run_refused(r, a->why);
  else if (r->th->s->d->draining)
    mr_run_free(r);
  else
    return true;
  return false;
}

static struct mr_str text_of(struct mr_model_run *r, yyjson_val *v)
{
  struct mr_buf b;
  struct mr_str text;

  mr_buf_init(&b, r->th->s->d->mem, SIZE_MAX / 2);
  mr_json_write(&b, v, false);
  text = mr_arena_str(r->arena, mr_buf_get(&b));
  if (b.failed) text.p = NULL;
  mr_buf_free(&b);
  return text;
}

/* ---- model ---- */

/* The blocks as a model would have written them: each call has an id. */
static int read_reply(struct mr_model_run *r, yyjson_val *content)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_obj_iter members;
  yyjson_val *v, *key;
  struct mr_buf b;
  char id[MR_ID_MAX];
  int code = MR_OK;

  mr_buf_init(&b, r->th->s->d->mem, SIZE_MAX / 2);
  mr_buf_char(&b, '[');
  r->stop_reason = MR_S("end_turn");
  for (int i = 0; code == MR_OK && (v = yyjson_arr_iter_next(&it)); i++) {
    if (i) mr_buf_char(&b, ',');
    if (!mr_str_is(mr_json_get_str(v, "type"), "tool_use") || mr_json_get_str(v, "id").n) {
      mr_json_write(&b, v, false);
    } else {
      code = mr_id_make(r->th->s->d->sys, id, "toolu");
      mr_buf_printf(&b, "{\"id\":\"%s\"", id);
      members = yyjson_obj_iter_with(v);
      while ((key = yyjson_obj_iter_next(&members))) {
        if (yyjson_equals_str(key, "id")) continue;
        mr_buf_char(&b, ',');
        mr_json_quote(&b, mr_json_str(key));
        mr_buf_char(&b, ':');
        mr_json_write(&b, yyjson_obj_iter_get_val(key), false);
      }
      mr_buf_char(&b, '}');
    }
    if (mr_str_is(mr_json_get_str(v, "type"), "tool_use")) r->stop_reason = MR_S("tool_use");
    mr_run_preview(r, i, v);
  }
  mr_buf_char(&b, ']');
  if (code == MR_OK) code = b.failed;
  if (code == MR_OK) code = mr_json_parse(r->th->s->d->mem, mr_buf_get(&b), SIZE_MAX, &r->reply, NULL);
  mr_buf_free(&b);
  return code;
}

static void on_model(struct mr_question *q, struct mr_answer *a)
{
  struct mr_model_run *r = MR_OF(q, struct mr_model_run, hook);
  yyjson_val *root = yyjson_doc_get_root(a->value);

  if (!goes_on(r, a)) return;
  if (a->said & MR_SAID_REPLY) {
    if (read_reply(r, mr_json_get(mr_json_get(root, "reply"), "content")) != MR_OK || mr_run_uses(r) != MR_OK)
      mr_run_refused(r, MR_S("the reply of the model hook could not be taken: out of memory"));
    else
      mr_run_permits(r);
    return;
  }
  if (a->said & MR_SAID_MODEL) {
    r->req.model = mr_arena_str(r->arena, mr_json_get_str(root, "model"));
    if (mr_models_check(r->th->s->d->models, r->req.model, &r->err) != MR_OK) {
      mr_run_refused(r, mr_str_c(mr_arena_printf(r->arena, "the model hook chose " MR_FMT ": %s",
                                                 MR_ARG(r->req.model), r->err.message)));
      return;
    }
  }
  mr_run_send(r);
}

static void ask_model(struct mr_model_run *r)
{
  struct mr_subject who = mr_thread_subject(r->th);
  int64_t bytes = 0;
  struct mr_buf b;
  struct mr_jw w;

  if (!mr_hooks_any(r->th->s->d, MR_PHASE_MODEL, &who)) {
    mr_run_send(r);
    return;
  }
  for (int i = 0; i < r->req.nmessages; i++)
    bytes += (int64_t)r->req.messages[i].n;
  begin_question(r, &b, &w);
  mr_jw_kstr(&w, "model", r->req.model);
  mr_jw_kstr(&w, "effort", r->req.effort);
  mr_jw_kint(&w, "bytes", bytes);
  mr_jw_kraw(&w, "message", r->req.messages[r->req.nmessages - 1]);
  mr_question_ask(r->th->s->d, MR_PHASE_MODEL, &who, &b, &w, &r->hook, on_model);
}

/* ---- context ---- */

static bool take_messages(struct mr_model_run *r, yyjson_val *list)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  struct mr_str *v = mr_arena_alloc(r->arena, yyjson_arr_size(list) * sizeof *v + 1);
  yyjson_val *m;
  int n = 0;

  while (v && (m = yyjson_arr_iter_next(&it))) {
    v[n] = text_of(r, m);
    if (!v[n++].p) return false;
  }
  r->req.messages = v;
  r->req.nmessages = n;
  r->req.pieces = NULL;
  return v != NULL;
}

static void on_context(struct mr_question *q, struct mr_answer *a)
{
  struct mr_model_run *r = MR_OF(q, struct mr_model_run, hook);
  yyjson_val *root = yyjson_doc_get_root(a->value), *system = mr_json_get(root, "system");
  bool fine = true;

  if (!goes_on(r, a)) return;
  if (a->said & (MR_SAID_MESSAGES | MR_SAID_SYSTEM)) r->req.plain = false;
  if (a->said & MR_SAID_MESSAGES) fine = take_messages(r, mr_json_get(root, "messages"));
  if (a->said & MR_SAID_SYSTEM) {
    r->req.system = yyjson_arr_size(system) ? text_of(r, system) : mr_str_n("", 0);
    fine = fine && r->req.system.p;
  }
  if (fine)
    ask_model(r);
  else
    mr_run_refused(r, MR_S("what the context hook made could not be taken: out of memory"));
}

void mr_run_ask(struct mr_model_run *r)
{
  struct mr_subject who = mr_thread_subject(r->th);
  struct mr_buf b;
  struct mr_jw w;

  if (!mr_hooks_any(r->th->s->d, MR_PHASE_CONTEXT, &who)) {
    ask_model(r);
    return;
  }
  begin_question(r, &b, &w);
  mr_jw_kraw(&w, "system", r->req.system.n ? r->req.system : MR_S("[]"));
  mr_jw_key(&w, "messages");
  mr_jw_arr(&w);
  for (int i = 0; i < r->req.nmessages; i++)
    mr_jw_raw(&w, r->req.messages[i]);
  mr_jw_arr_end(&w);
  mr_question_ask(r->th->s->d, MR_PHASE_CONTEXT, &who, &b, &w, &r->hook, on_context);
}

/* ---- permit: each call is put to the hooks, in order ---- */

/* What a handler is to get fits its tool's schema, of the session's agent; else the call is refused. One that is no
 * JSON object at all nobody gets. */
static void check_input(struct mr_model_run *r, struct mr_use *u, yyjson_val *input)
{
  char why[400] = "it is not a valid JSON object";

  if (mr_model_input_bad(input))
    ;
  else if (u->kind != MR_TOOL_CUSTOM || !mr_tools_owned(r->th, u->name) ||
           mr_input_fits(mr_tool_schema(r->th, u->name), input, why, sizeof why))
    return;
  u->judged = MR_JUDGED_INPUT;
  u->perm = MR_PERM_DENY;
  u->message = mr_arena_str(r->arena, mr_str_c(why));
}

/* What the agent's policy says of the call; "auto" leaves it to the judge. */
static void apply_policy(struct mr_model_run *r, struct mr_use *u, yyjson_val *input)
{
  static const enum mr_call_perm perms[] = {
      [MR_JUDGE_ALLOW] = MR_PERM_ALLOW, [MR_JUDGE_ASK] = MR_PERM_ASK, [MR_JUDGE_DENY] = MR_PERM_DENY};
  bool known, automatic;

  u->perm = mr_tool_policy(r->th, u->name, &u->kind, &known, &automatic);
  u->judged = known ? MR_JUDGED_POLICY : MR_JUDGED_UNKNOWN;
  if (known && automatic) {
    u->verdict = mr_judge(&(struct mr_case){.tool = u->name, .input = input});
    u->perm = perms[u->verdict.verdict];
    u->judged = MR_JUDGED_AUTO;
  }
  check_input(r, u, input);
}

static void on_permit(struct mr_question *q, struct mr_answer *a)
{
  struct mr_model_run *r = MR_OF(q, struct mr_model_run, hook);
  struct mr_use *u = &r->uses[r->permits++];
  yyjson_val *root = yyjson_doc_get_root(a->value);
  struct mr_str what = mr_json_get_str(root, "decision");

  if (mr_str_is(what, "rewrite")) {
    u->input = text_of(r, mr_json_get(root, "input"));
    if (!u->input.p) {
      mr_run_refused(r, MR_S("what the permission hook made of an input could not be taken: out of memory"));
      return;
    }
    apply_policy(r, u, mr_json_get(root, "input"));
  } else if (a->said) {
    u->judged = MR_JUDGED_HOOK;
    u->perm = mr_str_is(what, "allow") ? MR_PERM_ALLOW : mr_str_is(what, "ask") ? MR_PERM_ASK : MR_PERM_DENY;
    if (u->kind == MR_TOOL_HIDDEN && u->perm == MR_PERM_ASK)
      u->perm = MR_PERM_DENY; /* no event shows it, so nobody can be asked */
    if (u->kind == MR_TOOL_CUSTOM && u->perm == MR_PERM_ASK) {
      if (mr_tools_owned(r->th, u->name))
        u->kind = MR_TOOL_GUARDED;
      else
        u->perm = MR_PERM_ALLOW; /* a client answers it anyway */
    }
    u->message = mr_arena_str(r->arena, a->said & MR_SAID_REFUSE ? a->why : mr_json_get_str(root, "message"));
  }
  mr_run_permits(r);
}

void mr_run_permits(struct mr_model_run *r)
{
  struct mr_session *s = r->th->s;
  struct mr_subject who = mr_thread_subject(r->th);
  struct mr_use *u;
  struct mr_buf b;
  struct mr_jw w;

  for (;; r->permits++) {
    if (r->permits == r->nuses) {
      mr_run_finish(r);
      return;
    }
    u = &r->uses[r->permits];
    who.tool = u->name;
    if (u->judged < MR_JUDGED_INPUT && mr_hooks_any(s->d, MR_PHASE_PERMIT, &who)) break;
  }
  begin_question(r, &b, &w);
  mr_jw_kstr(&w, "name", u->name);
  mr_jw_kraw(&w, "input", u->input);
  mr_jw_kc(&w, "tool_use_id", u->event_id);
  mr_question_ask(s->d, MR_PHASE_PERMIT, &who, &b, &w, &r->hook, on_permit);
}

int mr_run_uses(struct mr_model_run *r)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(yyjson_doc_get_root(r->reply));
  size_t max = yyjson_arr_size(yyjson_doc_get_root(r->reply));
  yyjson_val *v;

  r->uses = mr_arena_alloc(r->arena, (max ? max : 1) * sizeof *r->uses);
  if (!r->uses) return MR_E_NOMEM;
  while ((v = yyjson_arr_iter_next(&it))) {
    struct mr_use *u = &r->uses[r->nuses];
    if (!mr_str_is(mr_json_get_str(v, "type"), "tool_use")) continue;
    u->id = mr_json_get_str(v, "id");
    u->name = mr_json_get_str(v, "name");
    u->input = text_of(r, mr_json_get(v, "input"));
    apply_policy(r, u, mr_json_get(v, "input"));
    if (!u->input.p || mr_id_make(r->th->s->d->sys, u->event_id, "sevt") != MR_OK) return MR_E_NOMEM;
    r->nuses++;
  }
  return MR_OK;
}
