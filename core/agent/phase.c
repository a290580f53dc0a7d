/*
 * phase.c - the phases that hooks have a say in: their names, what an answer to each may hold, and how it becomes
 * what the domain reads; and the domain's side of a question. mr_hook_add in moonrig.h is the same table for
 * people.
 *
 * What it is not for: who the hooks are and in which order they are asked (host/hooks.c), and what an answer does
 * (turn*.c, events.c).
 *
 * An answer is checked as a whole before anything of it counts. What it changes has one form only when it leaves
 * here (a text is an array of one text block), so that the next hook and the domain need not know the others.
 * Everything up to the questions is pure and runs on any thread; questions are the loop's.
 */
#include "agent/session_t.h"

#include <stdio.h>

enum { EVENTS_MAX = 1000, BLOCKS_MAX = 10000, MODEL_MAX = 256 };

static const char *const names[MR_PHASES] = {"accept", "context", "model", "permit", "tools", "settle", "idle"};

const char *mr_phase_name(enum mr_phase p)
{
  return names[p];
}

int mr_phase_find(const char *name)
{
  for (int i = 0; name && i < MR_PHASES; i++)
    if (strcmp(names[i], name) == 0) return i;
  return -1;
}

/* ---- members of an answer: is it fine, and its one form ---- */

typedef int (*write_fn)(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err);

static int bad(struct mr_err *err, const char *field, const char *what)
{
  return mr_err_set(err, MR_E_INVALID, field, "%s: %s", field, what);
}

static int as_is(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err)
{
  (void)m;
  (void)err;
  mr_json_write(out, v, false);
  return MR_OK;
}

static void text_blocks(yyjson_val *v, struct mr_buf *out)
{
  mr_buf_c(out, "[{\"type\":\"text\",\"text\":");
  mr_json_quote(out, mr_json_str(v));
  mr_buf_c(out, "}]");
}

static bool is_text(yyjson_val *block)
{
  return mr_str_is(mr_json_get_str(block, "type"), "text") && mr_json_get_str(block, "text").p;
}

struct kind { /* what the operation's shape says of a client's event */
  const char *name;
  char is; /* s string, S string or null, b bool or null */
  size_t max;
};

static bool event_fine(yyjson_val *ev)
{
  static const struct kind kinds[] = {{"type", 's', 128},        {"session_thread_id", 'S', 256},
                                      {"tool_use_id", 's', 256}, {"custom_tool_use_id", 's', 256},
                                      {"result", 's', 64},       {"deny_message", 'S', 10000},
                                      {"is_error", 'b', 0}};
  yyjson_val *content = mr_json_get(ev, "content"), *b;
  yyjson_arr_iter it = yyjson_arr_iter_with(content);

  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    yyjson_val *v = mr_json_get(ev, kinds[i].name);
    if (!v || (kinds[i].is != 's' && yyjson_is_null(v))) continue;
    if (kinds[i].is == 'b' ? !yyjson_is_bool(v) : !yyjson_is_str(v) || mr_json_str(v).n > kinds[i].max)
      return false;
  }
  if (content && !yyjson_is_null(content) && (!yyjson_is_arr(content) || yyjson_arr_size(content) > BLOCKS_MAX))
    return false;
  while (content && (b = yyjson_arr_iter_next(&it)))
    if (!yyjson_is_obj(b)) return false;
  return mr_json_get_str(ev, "type").n > 0;
}

static int events(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(v);
  yyjson_val *ev;

  if (!yyjson_is_arr(v) || yyjson_arr_size(v) == 0 || yyjson_arr_size(v) > EVENTS_MAX)
    return bad(err, "events", "an array of 1 to 1000 events");
  while ((ev = yyjson_arr_iter_next(&it)))
    if (!event_fine(ev)) return bad(err, "events", "objects as a client sends them, with a type");
  return as_is(m, v, out, err);
}

static int messages(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(v), blocks;
  yyjson_val *msg, *content, *b;
  bool first = true;

  if (!yyjson_is_arr(v) || yyjson_arr_size(v) == 0)
    return bad(err, "messages", "an array of at least one message");
  mr_buf_char(out, '[');
  while ((msg = yyjson_arr_iter_next(&it))) {
    struct mr_str role = mr_json_get_str(msg, "role");
    content = mr_json_get(msg, "content");
    blocks = yyjson_arr_iter_with(content);
    if (!mr_str_is(role, "user") && !mr_str_is(role, "assistant") && !mr_str_is(role, "system"))
      return bad(err, "messages", "each has a role: user, assistant or system");
    if (!yyjson_is_str(content) && !yyjson_is_arr(content))
      return bad(err, "messages", "each has a content: a text or an array of blocks");
    while (yyjson_is_arr(content) && (b = yyjson_arr_iter_next(&blocks)))
      if (!mr_json_get_str(b, "type").n) return bad(err, "messages", "each content block has a type");
    mr_buf_printf(out, "%s{\"role\":\"" MR_FMT "\",\"content\":", first ? "" : ",", MR_ARG(role));
    first = false;
    if (yyjson_is_str(content))
      text_blocks(content, out);
    else
      as_is(m, content, out, err);
    mr_buf_char(out, '}');
  }
  mr_buf_char(out, ']');
  return MR_OK;
}

static int system_text(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(v);
  yyjson_val *b;

  if (yyjson_is_str(v) && mr_json_str(v).n)
    text_blocks(v, out);
  else if (yyjson_is_str(v))
    mr_buf_c(out, "[]");
  if (yyjson_is_str(v)) return MR_OK;
  if (!yyjson_is_arr(v)) return bad(err, "system", "a text or an array of text blocks");
  while ((b = yyjson_arr_iter_next(&it)))
    if (!is_text(b)) return bad(err, "system", "a text or an array of text blocks");
  return as_is(m, v, out, err);
}

static int model_name(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err)
{
  struct mr_str name = mr_json_str(v);
  if (!name.n || name.n > MODEL_MAX) return bad(err, "model", "a model's name");
  return as_is(m, v, out, err);
}

static int reply(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err)
{
  yyjson_val *content = mr_json_get(v, "content"), *b;
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  static const char want[] = "{\"content\": a text, or an array of text and tool_use blocks}";

  if (yyjson_is_str(content) ? !mr_str_trim(mr_json_str(content)).n
                             : !yyjson_is_arr(content) || yyjson_arr_size(content) == 0)
    return bad(err, "reply", want);
  while (yyjson_is_arr(content) && (b = yyjson_arr_iter_next(&it))) {
    bool use = mr_str_is(mr_json_get_str(b, "type"), "tool_use") && mr_json_get_str(b, "name").n &&
               yyjson_is_obj(mr_json_get(b, "input"));
    if (!use && !(is_text(b) && mr_str_trim(mr_json_get_str(b, "text")).n))
      return bad(err, "reply", "each block is a text that is not blank, or a tool_use with name and input");
  }
  mr_buf_c(out, "{\"content\":");
  if (yyjson_is_str(content))
    text_blocks(content, out);
  else
    as_is(m, content, out, err);
  mr_buf_char(out, '}');
  return MR_OK;
}

static int decision(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err)
{
  struct mr_str what = mr_json_str(v);
  if (!mr_str_is(what, "allow") && !mr_str_is(what, "ask") && !mr_str_is(what, "deny") &&
      !mr_str_is(what, "rewrite"))
    return bad(err, "decision", "\"allow\", \"ask\", \"deny\" or \"rewrite\"");
  return as_is(m, v, out, err);
}

static int message(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err)
{
  return yyjson_is_str(v) ? as_is(m, v, out, err) : bad(err, "message", "a text");
}

static int input_object(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err)
{
  return yyjson_is_obj(v) ? as_is(m, v, out, err) : bad(err, "input", "an object");
}

static int content(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err)
{
  struct mr_buf text;
  int code;

  mr_buf_init(&text, m, SIZE_MAX / 2);
  mr_json_write(&text, v, false);
  code = mr_content_from_result(m, mr_buf_get(&text), out, err);
  mr_buf_free(&text);
  return code;
}

static int boolean(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err)
{
  return yyjson_is_bool(v) ? as_is(m, v, out, err) : bad(err, "is_error", "true or false");
}

static int go_on(const struct mr_mem *m, yyjson_val *v, struct mr_buf *out, struct mr_err *err)
{
  if (!mr_str_trim(mr_json_str(v)).n) return bad(err, "continue", "a text that is not blank");
  return as_is(m, v, out, err);
}

static const struct member {
  enum mr_phase phase;
  const char *name;
  unsigned bit; /* 0: goes with another one */
  write_fn write;
} members[] = {{MR_PHASE_ACCEPT, "events", MR_SAID_EVENTS, events},
               {MR_PHASE_CONTEXT, "messages", MR_SAID_MESSAGES, messages},
               {MR_PHASE_CONTEXT, "system", MR_SAID_SYSTEM, system_text},
               {MR_PHASE_MODEL, "model", MR_SAID_MODEL, model_name},
               {MR_PHASE_MODEL, "reply", MR_SAID_REPLY, reply},
               {MR_PHASE_PERMIT, "decision", MR_SAID_DECISION, decision},
               {MR_PHASE_PERMIT, "message", 0, message},
               {MR_PHASE_PERMIT, "input", 0, input_object},
               {MR_PHASE_TOOLS, "content", MR_SAID_CONTENT, content},
               {MR_PHASE_TOOLS, "is_error", MR_SAID_IS_ERROR, boolean},
               {MR_PHASE_SETTLE, "continue", MR_SAID_CONTINUE, go_on}};

static const struct member *member(enum mr_phase p, struct mr_str name)
{
  for (size_t i = 0; i < sizeof members / sizeof *members; i++)
    if (members[i].phase == p && mr_str_is(name, members[i].name)) return &members[i];
  return NULL;
}

/* ---- answers ---- */

static int put(const struct mr_mem *m, const struct member *k, yyjson_val *v, struct mr_buf *out, bool *first,
               struct mr_err *err)
{
  mr_buf_printf(out, "%s\"%s\":", *first ? "" : ",", k->name);
  *first = false;
  return k->write(m, v, out, err);
}

/* The input with what the answer puts in its place, and what it adds. */
static int overlay(const struct mr_mem *m, enum mr_phase p, yyjson_val *input, yyjson_val *answer,
                   struct mr_buf *out, struct mr_err *err)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(input);
  yyjson_val *key, *v;
  bool first = true;
  int code = MR_OK;

  mr_buf_char(out, '{');
  while (code == MR_OK && (key = yyjson_obj_iter_next(&it))) {
    const struct member *k = member(p, mr_json_str(key));
    v = k ? mr_json_get(answer, k->name) : NULL;
    if (v && !yyjson_is_null(v)) {
      code = put(m, k, v, out, &first, err);
      continue;
    }
    if (!first) mr_buf_char(out, ',');
    first = false;
    mr_json_quote(out, mr_json_str(key));
    mr_buf_char(out, ':');
    mr_json_write(out, yyjson_obj_iter_get_val(key), false);
  }
  it = yyjson_obj_iter_with(answer);
  while (code == MR_OK && (key = yyjson_obj_iter_next(&it))) {
    const struct member *k = member(p, mr_json_str(key));
    v = yyjson_obj_iter_get_val(key);
    if (k && !yyjson_is_null(v) && !mr_json_get(input, k->name)) code = put(m, k, v, out, &first, err);
  }
  mr_buf_char(out, '}');
  return code;
}

/* Which members are there? Those that the phase does not know are errors. */
static int look(enum mr_phase p, yyjson_val *answer, unsigned *said, struct mr_err *err)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(answer);
  yyjson_val *key;

  if (!yyjson_is_obj(answer)) return bad(err, "answer", "an object, or null");
  while ((key = yyjson_obj_iter_next(&it))) {
    const struct member *k = member(p, mr_json_str(key));
    bool refuse = p != MR_PHASE_PERMIT && p != MR_PHASE_IDLE && yyjson_equals_str(key, "refuse");
    if (!k && !refuse)
      return mr_err_set(err, MR_E_INVALID, "answer", "a hook of %s does not answer with \"%.*s\"", names[p],
                        (int)mr_utf8_cut(mr_json_str(key), 60), yyjson_get_str(key));
    if (!yyjson_is_null(yyjson_obj_iter_get_val(key))) *said |= refuse ? MR_SAID_REFUSE : k->bit;
  }
  if (p == MR_PHASE_PERMIT && !*said)
    return bad(err, "decision", "\"allow\", \"ask\", \"deny\" or \"rewrite\"");
  if (p == MR_PHASE_PERMIT && mr_str_is(mr_json_get_str(answer, "decision"), "rewrite") &&
      !yyjson_is_obj(mr_json_get(answer, "input")))
    return bad(err, "input", "\"rewrite\" needs the new input, an object");
  return MR_OK;
}

int mr_phase_read(const struct mr_mem *m, enum mr_phase p, yyjson_val *input, yyjson_val *answer,
                  unsigned *said, struct mr_buf *out, struct mr_err *err)
{
  yyjson_val *why;
  int code;

  *said = 0;
  if (!answer || yyjson_is_null(answer)) return MR_OK;
  code = look(p, answer, said, err);
  if (code != MR_OK || !*said) return code;
  if (*said & MR_SAID_REFUSE) {
    *said = MR_SAID_REFUSE;
    why = mr_json_get(answer, "refuse");
    if (!yyjson_is_str(why)) return bad(err, "refuse", "the reason, a text");
    mr_buf_str(out, mr_json_str(why));
  } else {
    code = overlay(m, p, p == MR_PHASE_PERMIT ? NULL : input, answer, out, err);
  }
  return code == MR_OK && out->failed ? mr_err_set(err, out->failed, NULL, "the answer is too large") : code;
}

/* ---- questions, on the loop ---- */

static void on_unasked(struct mr_ready *r)
{
  struct mr_question *q = MR_OF(r, struct mr_question, unasked);
  struct mr_answer a = {
      .said = MR_SAID_REFUSE, .why = MR_S("The hooks could not be asked: out of memory."), .code = MR_E_NOMEM};
  q->done(q, &a);
}

bool mr_hooks_any(const struct mr_domain *d, enum mr_phase p, const struct mr_subject *who)
{
  return d->hooks.has && d->hooks.has(d->hooks.ud, p, who);
}

struct mr_subject mr_thread_subject(const struct mr_thread *th)
{
  return (struct mr_subject){.agent = th->agent_name, .agent_id = th->agent_id, .thread = mr_str_c(th->id)};
}

void mr_question_begin(struct mr_domain *d, struct mr_buf *b, struct mr_jw *w, struct mr_str session_id,
                       const struct mr_subject *who)
{
  mr_buf_init(b, d->mem, SIZE_MAX / 2);
  mr_jw_init(w, b);
  mr_jw_obj(w);
  mr_jw_kstr(w, "session_id", session_id);
  mr_jw_kstr(w, "agent", who->agent);
  mr_jw_kstr(w, "agent_id", who->agent_id);
  if (who->thread.n) mr_jw_kstr(w, "thread_id", who->thread);
}

void mr_question_ask(struct mr_domain *d, enum mr_phase p, const struct mr_subject *who, struct mr_buf *b,
                     struct mr_jw *w, struct mr_question *q,
                     void (*done)(struct mr_question *q, struct mr_answer *a))
{
  int code;

  mr_jw_obj_end(w);
  if (q) {
    q->d = d;
    q->done = done;
    q->host = NULL;
    mr_ready_init(&q->unasked, on_unasked);
  }
  code = b->failed ? b->failed : d->hooks.ask(d->hooks.ud, p, who, mr_buf_get(b), q);
  mr_buf_free(b);
  if (code != MR_OK && q) mr_ready_post(d->loop, &q->unasked);
}

bool mr_question_open(const struct mr_question *q)
{
  return q->host || q->unasked.link;
}

void mr_question_drop(struct mr_question *q)
{
  if (q->host) q->d->hooks.drop(q->d->hooks.ud, q);
  if (q->unasked.link) mr_ready_cancel(q->d->loop, &q->unasked);
}
