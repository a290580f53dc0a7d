/*
 * events_check.c - may these events be sent? Each is checked against the state that the earlier ones of its batch would
 * produce (API: sessions §5); one that may not refuses them all. What passes has its stored form. Pure but for ids; the
 * loop thread.
 */
#include "agent/events.h"
#include "agent/outcome.h"

#include <stdio.h>

struct check {
  struct mr_call *c;
  struct mr_session *s;
  const char *field;
  int i;            /* index in the batch */
  bool interrupted; /* an interrupt came before in the batch */
  bool outcome;     /* an outcome was defined before in the batch */
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
  return mr_err_set(
      &k->c->err, MR_E_INVALID, k->field,
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
  if (mr_content_check(k->c->mem, content, blocks, &k->out->files, field, &k->c->err) != MR_OK)
    return k->c->err.code;
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
  if (t->confirmed || !waits(k, t)) return refuse(k, "tool_use_id", MR_FMT " was answered already", MR_ARG(id));
  snprintf(e->ref, sizeof e->ref, "%s", t->event_id);
  return MR_OK;
}

/* Of a built-in tool, which the client runs itself in a self-hosted environment. */
static int check_tool_result(struct check *k, yyjson_val *ev, struct mr_event_in *e)
{
  struct mr_str id = mr_json_get_str(ev, "tool_use_id");
  struct mr_tcall *t = find_call(k, id);
  int code = check_content(k, ev, MR_BLOCK_ALL, false);

  if (code != MR_OK) return code;
  if (!k->s->self_hosted)
    return refuse(
        k, "type",
        "user.tool_result is only for self-hosted environments; the server runs the built-in tools of this "
        "session itself");
  if (!t || t->kind != MR_TOOL_BUILTIN || !mr_call_clients(t))
    return refuse(k, "tool_use_id", MR_FMT " is not a pending tool use", MR_ARG(id));
  if (t->perm == MR_PERM_ASK && t->confirmed <= 0)
    return refuse(k, "tool_use_id", MR_FMT " waits for a user.tool_confirmation first", MR_ARG(id));
  if (!waits(k, t)) return refuse(k, "tool_use_id", MR_FMT " was answered already", MR_ARG(id));
  snprintf(e->ref, sizeof e->ref, "%s", t->event_id);
  e->now = true;
  return MR_OK;
}

/* Alone, or behind what starts or continues a turn (API: sessions §5.2). */
static int check_system(struct check *k, yyjson_val *ev, int total)
{
  static const char *const before[] = {"user.message", "user.tool_result", "user.custom_tool_result"};
  struct mr_str type = MR_S("system.message");
  bool fine = k->i == 0;
  int code;

  if (k->i != total - 1) return refuse(k, "", "system.message must be the last event of a request");
  for (size_t i = 0; !fine && i < sizeof before / sizeof *before; i++)
    fine = mr_str_is(k->out->v[k->i - 1].type, before[i]);
  if (!fine)
    return refuse(k, "",
                  "system.message must directly follow a user.message, a user.tool_result or a "
                  "user.custom_tool_result, or be sent alone");
  code = k->i > 0 && k->out->v[k->i - 1].now ? MR_OK : check_blocked(k, type);
  return code ? code : check_content(k, ev, MR_BLOCK_TEXT, true);
}

static int check_custom_result(struct check *k, yyjson_val *ev, struct mr_event_in *e)
{
  struct mr_str id = mr_json_get_str(ev, "custom_tool_use_id");
  struct mr_tcall *t = find_call(k, id);
  int code = check_content(k, ev, MR_BLOCK_ALL, false);

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
  /* Nothing runs and nothing waits, no outcome either: accepted, and nothing to do. */
  e->drop = k->s->status == MR_IDLE && !mr_state_blocked(k->s) && k->out->n == 0 &&
            (mr_budget_over(k->s) ||
             (!k->s->inbox && (!mr_outcome_active(k->s) || (thread.n && !mr_thread_primary(th)))));
  k->interrupted = true;
  return MR_OK;
}

static int check_outcome(struct check *k, yyjson_val *ev, struct mr_event_in *e)
{
  yyjson_val *rubric = mr_json_get(ev, "rubric"), *max = mr_json_get(ev, "max_iterations");
  struct mr_str description = mr_json_get_str(ev, "description"), type = mr_json_get_str(rubric, "type");
  struct mr_str text = mr_str_is(type, "file") ? k->out->rubric : mr_json_get_str(rubric, "content");

  if (!mr_str_trim(description).n) return refuse(k, "description", "required: the task, a text");
  if (!mr_str_is(type, "text") && !mr_str_is(type, "file"))
    return refuse(k, "rubric", "required: {\"type\":\"text\",\"content\"} or {\"type\":\"file\",\"file_id\"}");
  if (!mr_str_trim(text).n) return refuse(k, "rubric", "must hold a text that is not blank");
  if (mr_utf8_chars(text) > MR_RUBRIC_MAX)
    return refuse(k, "rubric", "longer than %d characters", MR_RUBRIC_MAX);
  if (max && !yyjson_is_null(max) &&
      (!yyjson_is_int(max) || yyjson_get_sint(max) < 1 || yyjson_get_sint(max) > MR_ITERATIONS_MAX))
    return refuse(k, "max_iterations", "a whole number between 1 and %d", MR_ITERATIONS_MAX);
  if (k->outcome || (k->s && mr_outcome_active(k->s)))
    return refuse(k, "", "an outcome is active already: one at a time; define the next when it has its result");
  k->outcome = true;
  e->now = k->s != NULL;
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
  if (mr_str_is(type, "user.define_outcome")) {
    code = check_blocked(k, type);
    return code ? code : check_outcome(k, ev, e);
  }
  if (!k->s) return refuse(k, "type", MR_FMT " cannot be an initial event", MR_ARG(type));
  if (mr_str_is(type, "user.interrupt")) return check_interrupt(k, ev, e);
  if (mr_str_is(type, "user.tool_confirmation")) return check_confirmation(k, ev, e);
  if (mr_str_is(type, "user.custom_tool_result")) return check_custom_result(k, ev, e);
  if (mr_str_is(type, "user.tool_result")) return check_tool_result(k, ev, e);
  if (mr_str_is(type, "system.message")) return check_system(k, ev, total);
  return refuse(k, "type", "unknown event type \"" MR_FMT "\"", MR_ARG(type));
}

static int make_id(struct check *k, const char *prefix, char out[MR_ID_LEN])
{
  char id[MR_ID_MAX];

  if (mr_id_make(k->c->d->sys, id, prefix) != MR_OK)
    return mr_err_set(&k->c->err, MR_E_IO, NULL, "no randomness");
  snprintf(out, MR_ID_LEN, "%s", id);
  return MR_OK;
}

/* An outcome with all that it is: the rubric as text, the allowance, an id. */
static int write_outcome(struct check *k, yyjson_val *ev, struct mr_jw *w)
{
  yyjson_val *rubric = mr_json_get(ev, "rubric");
  char id[MR_ID_LEN];

  if (make_id(k, "outc", id) != MR_OK) return k->c->err.code;
  mr_jw_kstr(w, "description", mr_json_get_str(ev, "description"));
  mr_jw_key(w, "rubric");
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "text");
  mr_jw_kstr(w, "content",
             mr_str_is(mr_json_get_str(rubric, "type"), "file") ? k->out->rubric
                                                                : mr_json_get_str(rubric, "content"));
  mr_jw_obj_end(w);
  mr_jw_kint(w, "max_iterations", mr_json_get_int(ev, "max_iterations", MR_ITERATIONS));
  mr_jw_kc(w, "outcome_id", id);
  return MR_OK;
}

/* The stored form: the fields of this type, in a fixed order. */
static int write_body(struct check *k, yyjson_val *ev, struct mr_event_in *e)
{
  static const char *const fields[] = {"content", "session_thread_id", "tool_use_id", "custom_tool_use_id",
                                       "result",  "deny_message",      "is_error"};
  struct mr_thread *th;
  struct mr_buf b;
  struct mr_jw w;

  if (make_id(k, "sevt", e->id) != MR_OK) return k->c->err.code;
  mr_buf_init(&b, k->c->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "type", e->type);
  mr_jw_kc(&w, "id", e->id);
  if (mr_str_is(e->type, "user.define_outcome") && write_outcome(k, ev, &w) != MR_OK) {
    mr_buf_free(&b);
    return k->c->err.code;
  }
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
  th = e->ref[0] ? mr_thread_of_call(k->s, mr_str_c(e->ref)) : NULL;
  if (th && !mr_thread_primary(th))
    mr_jw_kc(&w, "session_thread_id", th->id); /* txn.c: it is the last member */
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
