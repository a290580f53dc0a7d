/*
 * import_check.c - what a line of an exported session must hold before it becomes a row here. A file is anybody's
 * writing: each member that this program reads without asking again is checked for its form. The order of rows, and
 * what refers to what, is copy_rest.c's to judge.
 *
 * Private rows of a type that this version does not know are taken: the machine passes over them, as it does in its
 * own log. Pure but for the agent and resources, which write what they checked. import.c calls.
 */
#include "agent/content.h"
#include "agent/transfer_t.h"
#include "agent/agents.h"
#include "agent/resources.h"
#include "agent/roster.h"

#include <stdio.h>

enum { PRIVATE_FORMAT_MAX = 16, TYPE_MAX = 64, PATH_MAX_BYTES = 1024 };
static const int64_t AHEAD_US = INT64_C(86400000000); /* clocks of two machines: a day, no more */

__attribute__((format(printf, 2, 3))) static int wrong(struct mr_err *err, const char *fmt, ...)
{
  char text[300];
  va_list ap;

  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  return mr_err_set(err, MR_E_INVALID, "file", "%s", text);
}

static bool id_ok(struct mr_str id, struct mr_str prefix)
{
  if (!mr_str_starts(id, prefix) || id.n < prefix.n + 8 || id.n >= MR_ID_LEN) return false;
  for (size_t i = prefix.n; i < id.n; i++)
    if (!((id.p[i] >= '0' && id.p[i] <= '9') || (id.p[i] >= 'A' && id.p[i] <= 'Z') ||
          (id.p[i] >= 'a' && id.p[i] <= 'z')))
      return false;
  return true;
}

/* ---- rows ---- */

/* What the machine or a tool wrote for a model: blocks, each of some type, and a text where it says so. */
static bool blocks_ok(yyjson_val *content)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *b;

  if (!yyjson_is_arr(content)) return false;
  while ((b = yyjson_arr_iter_next(&it))) {
    struct mr_str type = mr_json_get_str(b, "type");
    if (!type.n || (mr_str_is(type, "text") && !mr_json_get_str(b, "text").p)) return false;
  }
  return true;
}

static bool one_of(struct mr_str s, const char *const *names, size_t n)
{
  for (size_t i = 0; i < n; i++)
    if (mr_str_is(s, names[i])) return true;
  return false;
}

static bool whole(yyjson_val *v, const char *key, int64_t min, int64_t max)
{
  yyjson_val *m = mr_json_get(v, key);
  return yyjson_is_int(m) && mr_json_get_int(v, key, min - 1) >= min && mr_json_get_int(v, key, min - 1) <= max;
}

static int check_stop(yyjson_val *body, struct mr_err *err)
{
  static const char *const known[] = {"end_turn", "requires_action", "retries_exhausted", "refusal",
                                      "budget_reached"};
  yyjson_val *stop = mr_json_get(body, "stop_reason"), *ids = mr_json_get(stop, "event_ids"), *v;
  struct mr_str type = mr_json_get_str(stop, "type");
  yyjson_arr_iter it = yyjson_arr_iter_with(ids);

  if (!one_of(type, known, sizeof known / sizeof *known))
    return wrong(err, "stop_reason has no type that is known");
  if (mr_str_is(type, "requires_action") != (yyjson_arr_size(ids) > 0))
    return wrong(err, "stop_reason: event_ids go with requires_action");
  while (ids && (v = yyjson_arr_iter_next(&it)))
    if (!id_ok(mr_json_str(v), MR_S("sevt_"))) return wrong(err, "stop_reason.event_ids: not ids of events");
  return MR_OK;
}

static int check_define(yyjson_val *body, struct mr_err *err)
{
  yyjson_val *rubric = mr_json_get(body, "rubric");
  struct mr_str text = mr_json_get_str(rubric, "content");

  if (!id_ok(mr_json_get_str(body, "outcome_id"), MR_S("outc_")) ||
      !mr_str_trim(mr_json_get_str(body, "description")).n)
    return wrong(err, "an outcome needs outcome_id and description");
  if (!mr_str_is(mr_json_get_str(rubric, "type"), "text") || !mr_str_trim(text).n ||
      mr_utf8_chars(text) > MR_RUBRIC_MAX)
    return wrong(err, "an outcome's rubric is a text of at most %d characters", MR_RUBRIC_MAX);
  return whole(body, "max_iterations", 1, MR_ITERATIONS_MAX) ? MR_OK
                                                             : wrong(err, "max_iterations: not such a number");
}

/* Tokens: numbers that can be added up. */
static bool usage_ok(yyjson_val *usage)
{
  static const int64_t max = INT64_C(1000000000000);
  yyjson_obj_iter it = yyjson_obj_iter_with(usage);
  yyjson_val *k, *v;

  while ((k = yyjson_obj_iter_next(&it))) {
    v = yyjson_obj_iter_get_val(k);
    if (yyjson_is_num(v) && !whole(usage, yyjson_get_str(k), 0, max)) return false;
  }
  return !usage || yyjson_is_null(usage) || yyjson_is_obj(usage);
}

static int check_evaluation(struct mr_str t, yyjson_val *body, struct mr_err *err)
{
  static const char *const known[] = {"satisfied", "needs_revision", "max_iterations_reached", "failed",
                                      "interrupted"};

  if (!id_ok(mr_json_get_str(body, "outcome_id"), MR_S("outc_")) ||
      !whole(body, "iteration", 0, MR_ITERATIONS_MAX))
    return wrong(err, "an evaluation needs outcome_id and iteration");
  if (!mr_str_is(t, "span.outcome_evaluation_end")) return MR_OK;
  if (!one_of(mr_json_get_str(body, "result"), known, sizeof known / sizeof *known) ||
      !mr_json_get_str(body, "explanation").p || !yyjson_is_obj(mr_json_get(body, "usage")) ||
      !usage_ok(mr_json_get(body, "usage")))
    return wrong(err, "the end of an evaluation needs result, explanation and usage");
  return MR_OK;
}

static int check_thread_row(struct mr_str t, yyjson_val *body, struct mr_err *err)
{
  if (!id_ok(mr_json_get_str(body, "session_thread_id"), MR_S("sthr_")) ||
      !mr_json_get_str(body, "agent_name").n)
    return wrong(err, "a thread's row needs session_thread_id and agent_name");
  return mr_str_is(t, "session.thread_status_idle") ? check_stop(body, err) : MR_OK;
}

static int check_wire(const struct mr_mem *m, struct mr_import_row *r, struct mr_err *err)
{
  static const unsigned any = MR_BLOCK_TEXT | MR_BLOCK_IMAGE | MR_BLOCK_DOCUMENT | MR_BLOCK_SEARCH;
  struct mr_str t = r->row.type;
  yyjson_val *content = mr_json_get(r->body, "content");
  bool none = !content || yyjson_is_null(content);
  int64_t at = 0;

  if (!mr_event_type_known(t)) return wrong(err, "\"%.60s\" is no type of event", t.p ? t.p : "");
  if (!id_ok(r->row.event_id, MR_S("sevt_"))) return wrong(err, "id is not an id of an event");
  if (mr_time_parse(mr_json_get_str(r->body, "processed_at"), &at) != MR_OK || at != r->row.processed_us)
    return wrong(err, "processed_at is not the time of the row");
  if (mr_str_is(t, "session.status_idle")) return check_stop(r->body, err);
  if (mr_str_starts(t, MR_S("session.thread_"))) return check_thread_row(t, r->body, err);
  if (mr_str_is(t, "user.define_outcome")) return check_define(r->body, err);
  if (mr_str_starts(t, MR_S("span.outcome_"))) return check_evaluation(t, r->body, err);
  if (mr_str_is(t, "span.model_request_end") && !usage_ok(mr_json_get(r->body, "model_usage")))
    return wrong(err, "model_usage: not numbers of tokens");
  if (mr_str_is(t, "user.message") || mr_str_is(t, "system.message") ||
      ((mr_str_is(t, "user.custom_tool_result") || mr_str_is(t, "user.tool_result")) && !none))
    return mr_content_check(m, content, any, NULL, "content", err);
  if ((mr_str_is(t, "agent.tool_result") || mr_str_starts(t, MR_S("agent.thread_message_"))) &&
      !blocks_ok(content))
    return wrong(err, "content is not a list of blocks");
  if (mr_str_is(t, "agent.tool_use") || mr_str_is(t, "agent.custom_tool_use"))
    if (!mr_json_get_str(r->body, "name").n || !yyjson_is_obj(mr_json_get(r->body, "input")))
      return wrong(err, "a tool use needs a name and an input");
  return MR_OK;
}

/* Rows of the machine's own that say how it goes on: each has what state.c reads of it. */
static int check_machine(struct mr_str t, yyjson_val *body, int64_t now_us, struct mr_err *err)
{
  struct mr_str known = mr_json_get_str(body, "known_as");
  bool ok = true;

  if (mr_str_is(t, "thread.created"))
    ok = id_ok(mr_json_get_str(body, "id"), MR_S("sthr_")) && whole(body, "created_us", 0, now_us + AHEAD_US) &&
         yyjson_is_obj(mr_json_get(body, "agent")) && (!known.p || id_ok(known, MR_S("sthr_")));
  else if (mr_str_starts(t, MR_S("tool.")))
    ok = id_ok(mr_json_get_str(body, "event_id"), MR_S("sevt_"));
  else if (mr_str_is(t, "mail.taken"))
    ok = whole(body, "n", 1, INT32_MAX);
  else if (mr_str_is(t, "mail.notice"))
    ok = mr_json_get_str(body, "text").n > 0;
  else if (mr_str_is(t, "usage.cost"))
    ok = whole(body, "cost", 0, INT64_MAX);
  else if (mr_str_is(t, "context.compacted"))
    ok = mr_json_get_str(body, "summary").n > 0;
  else if (mr_str_is(t, "model.retry"))
    ok = whole(body, "attempt", 0, INT32_MAX) && whole(body, "due_us", 0, INT64_MAX);
  if (ok && (mr_str_is(t, "tool.result") || mr_str_is(t, "tool.outcome")))
    ok = blocks_ok(mr_json_get(body, "content"));
  if (ok && mr_str_is(t, "tool.intent")) ok = whole(body, "attempt", 1, INT32_MAX);
  if (ok && mr_str_is(t, "tool.hidden"))
    ok = mr_json_get_str(body, "name").n && yyjson_is_obj(mr_json_get(body, "input"));
  return ok ? MR_OK : wrong(err, "a row of type %.*s lacks what it must have", (int)t.n, t.p);
}

static int check_private(struct mr_import_row *r, int64_t now_us, struct mr_err *err)
{
  struct mr_str t = r->row.type;

  for (size_t i = 0; i < t.n; i++)
    if (!((t.p[i] >= 'a' && t.p[i] <= 'z') || t.p[i] == '.' || t.p[i] == '_')) t.n = 0;
  if (!t.n || t.n > TYPE_MAX) return wrong(err, "type is not that of a private row");
  if (r->row.format < 0 || r->row.format > PRIVATE_FORMAT_MAX) return wrong(err, "format is not known");
  if (r->row.event_id.n && !id_ok(r->row.event_id, MR_S("sevt_")))
    return wrong(err, "id is not an id of an event");
  if (!mr_str_is(t, "model.reply")) return check_machine(t, r->body, now_us, err);
  return blocks_ok(mr_json_get(r->body, "content")) ? MR_OK
                                                    : wrong(err, "a model's reply needs its content, blocks");
}

int mr_import_row(const struct mr_mem *m, yyjson_val *line, bool wire, int64_t now_us, int64_t last_us,
                  struct mr_import_row *out, struct mr_err *err)
{
  yyjson_val *at = mr_json_get(line, "at"), *format = mr_json_get(line, "format");
  struct mr_str thread = mr_json_get_str(line, "thread");

  memset(out, 0, sizeof *out);
  out->body = mr_json_get(line, "body");
  if (!yyjson_is_obj(out->body)) return wrong(err, "body is not an object");
  if (!yyjson_is_int(at) || mr_json_get_int(line, "at", -1) < (wire ? 1 : 0))
    return wrong(err, "at is no time");
  if (thread.p && !id_ok(thread, MR_S("sthr_"))) return wrong(err, "thread is not an id of a thread");
  out->row.kind = wire ? MR_ROW_WIRE : MR_ROW_PRIVATE;
  out->row.processed_us = mr_json_get_int(line, "at", 0);
  out->row.thread_id = thread;
  out->row.type = mr_json_get_str(wire ? out->body : line, "type");
  out->row.event_id = mr_json_get_str(wire ? out->body : line, "id");
  out->row.format = yyjson_is_int(format) ? (int)mr_json_get_int(line, "format", 0) : -1;
  if (out->row.processed_us > now_us + AHEAD_US) return wrong(err, "at is in the future");
  if (out->row.processed_us < last_us) return wrong(err, "the row is older than the one before it");
  return wire ? check_wire(m, out, err) : check_private(out, now_us, err);
}

int mr_import_input(struct mr_call *c, yyjson_val *line, struct mr_copy_input **out)
{
  yyjson_val *body = mr_json_get(line, "body"), *content = mr_json_get(body, "content");
  struct mr_str type = mr_json_get_str(body, "type");
  struct mr_copy_input *in;
  struct mr_buf b;
  int code;

  *out = NULL;
  if (!mr_event_type_known(type)) return wrong(&c->err, "body is no event");
  if (!mr_str_is(type, "user.message") && !mr_str_is(type, "system.message")) return MR_OK;
  code = mr_content_check(c->mem, content, MR_BLOCK_TEXT | MR_BLOCK_IMAGE | MR_BLOCK_DOCUMENT, NULL, "content",
                          &c->err);
  if (code != MR_OK) return code;
  in = mr_arena_alloc(c->arena, sizeof *in);
  mr_buf_init(&b, c->mem, SIZE_MAX / 2);
  mr_json_write(&b, content, false);
  if (in) {
    in->type = mr_arena_str(c->arena, type);
    in->content = mr_arena_str(c->arena, mr_buf_get(&b));
  }
  mr_buf_free(&b);
  if (!in || !in->type.p || !in->content.n) return mr_err_nomem(&c->err);
  *out = in;
  return MR_OK;
}

/* ---- the agent ---- */

static int text_member(struct mr_call *c, struct mr_jw *w, yyjson_val *agent, const char *key, size_t max,
                       bool required)
{
  yyjson_val *v = mr_json_get(agent, key);
  struct mr_str s = mr_json_str(v);

  if ((required && !s.n) || (v && !s.p && !yyjson_is_null(v)) || (s.p && mr_utf8_chars(s) > max))
    return wrong(&c->err, "agent.%s: not a text of at most %zu characters", key, max);
  mr_jw_key(w, key);
  if (s.p)
    mr_jw_str(w, s);
  else
    mr_jw_null(w);
  return MR_OK;
}

static int made_member(struct mr_call *c, struct mr_jw *w, yyjson_val *agent, const char *key,
                       int (*write)(struct mr_call *c, yyjson_val *given, struct mr_buf *out))
{
  yyjson_val *v = mr_json_get(agent, key);

  if (!yyjson_is_arr(v)) return wrong(&c->err, "agent.%s: not a list", key);
  mr_jw_key(w, key);
  w->after_key = false;
  return write(c, v, w->b);
}

/* What an agent works with, of every kind but the advisor. */
static int write_agent(struct mr_call *c, yyjson_val *agent, bool is_inline, struct mr_jw *w)
{
  struct mr_str id = mr_json_get_str(agent, "id");
  int64_t version = mr_json_get_int(agent, "version", 0);
  int code;

  if (!is_inline && (!id_ok(id, MR_S("agent_")) || version < 1))
    return wrong(&c->err, "agent: it needs an id and a version");
  mr_jw_kc(w, "type", is_inline ? "inline" : "agent");
  if (!is_inline) {
    mr_jw_kstr(w, "id", id);
    mr_jw_kint(w, "version", version);
  }
  code = text_member(c, w, agent, "name", 256, true);
  if (code == MR_OK) code = text_member(c, w, agent, "description", 2048, false);
  if (code == MR_OK) code = text_member(c, w, agent, "system", 100000, false);
  mr_jw_key(w, "model");
  w->after_key = false;
  if (code == MR_OK) code = mr_agent_model(c, mr_json_get(agent, "model"), NULL, w->b);
  if (code == MR_OK) code = made_member(c, w, agent, "tools", mr_agent_tools);
  if (code == MR_OK) code = made_member(c, w, agent, "mcp_servers", mr_agent_servers);
  if (code == MR_OK) code = made_member(c, w, agent, "skills", mr_agent_skills);
  mr_jw_kraw(w, "execution_identity", MR_S("{\"type\":\"service_account\"}"));
  return code;
}

int mr_import_child(struct mr_call *c, yyjson_val *agent)
{
  struct mr_str type = mr_json_get_str(agent, "type");
  bool is_inline = mr_str_is(type, "inline");
  struct mr_buf b;
  struct mr_jw w;
  int code;

  if (mr_str_is(type, "advisor"))
    return mr_json_get_str(agent, "model").n ? MR_OK : wrong(&c->err, "agent: an advisor needs a model");
  if (!is_inline && !mr_str_is(type, "agent")) return wrong(&c->err, "agent: of no type that is known");
  mr_buf_init(&b, c->mem, 1 << 24);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  code = write_agent(c, agent, is_inline, &w); /* for what it says of it; the row stays what it is */
  mr_buf_free(&b);
  return code;
}

static int members_ok(struct mr_call *c, yyjson_val *list)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *a;
  int code = MR_OK;

  if (list && !yyjson_is_null(list) && !yyjson_is_arr(list))
    return wrong(&c->err, "agent.multiagent: its agents are no list");
  if (yyjson_arr_size(list) > MR_ROSTER_MAX + 1) return wrong(&c->err, "agent.multiagent: too many agents");
  while (yyjson_is_arr(list) && code == MR_OK && (a = yyjson_arr_iter_next(&it)))
    code = mr_import_child(c, a);
  return code;
}

/* Full definitions of other agents, in both forms of a roster. */
static int multiagent_member(struct mr_call *c, struct mr_jw *w, yyjson_val *v)
{
  int code;

  if (v && !yyjson_is_null(v) && !yyjson_is_obj(v)) return wrong(&c->err, "agent.multiagent: not an object");
  code = members_ok(c, mr_json_get(v, "agents"));
  if (code == MR_OK) code = members_ok(c, mr_json_get(mr_json_get(v, "subagents"), "predefined_agents"));
  if (code == MR_OK) code = members_ok(c, mr_json_get(mr_json_get(v, "workflows"), "predefined_agents"));
  mr_jw_key(w, "multiagent");
  w->after_key = false;
  if (yyjson_is_obj(v))
    mr_json_write(w->b, v, false);
  else
    mr_buf_c(w->b, "null");
  return code;
}

int mr_import_agent(struct mr_call *c, yyjson_val *agent, struct mr_buf *out)
{
  struct mr_jw w;
  int code;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  code = write_agent(c, agent, false, &w);
  if (code == MR_OK) code = multiagent_member(c, &w, mr_json_get(agent, "multiagent"));
  mr_jw_obj_end(&w);
  return code == MR_OK && out->failed ? mr_err_nomem(&c->err) : code;
}

/* ---- files and resources ---- */

int mr_import_file(struct mr_call *c, yyjson_val *line, struct mr_file *f, struct mr_str *name,
                   struct mr_str *sha256)
{
  *name = mr_json_get_str(line, "name");
  *sha256 = mr_json_get_str(line, "sha256");
  f->filename = mr_json_get_str(line, "filename");
  f->mime_type = mr_json_get_str(line, "mime_type");
  f->size = mr_json_get_int(line, "size_bytes", -1);
  f->downloadable = mr_json_get_bool(line, "downloadable", false);
  if (!id_ok(mr_json_get_str(line, "id"), MR_S("file_"))) return wrong(&c->err, "id is not an id of a file");
  if (f->size < 0 || !f->mime_type.n || f->mime_type.n > 255 || name->n > PATH_MAX_BYTES || sha256->n != 64)
    return wrong(&c->err, "a file needs size_bytes, mime_type and sha256");
  return mr_file_name(c, &f->filename, f->mime_type);
}

int mr_import_resources(struct mr_copy *k, yyjson_val *resources, struct mr_jw *w)
{
  struct mr_call *c = k->c;
  yyjson_arr_iter it = yyjson_arr_iter_with(resources);
  size_t n = 0, max = yyjson_arr_size(resources);
  struct mr_str *paths = mr_arena_alloc(c->arena, (max + 1) * sizeof *paths);
  int64_t now = mr_loop_wall_us(c->d->loop);
  char id[MR_ID_MAX], file[MR_ID_MAX];
  yyjson_val *v;

  if (!paths) return mr_err_nomem(&c->err);
  if (max > MR_EXPORT_FILES) return wrong(&c->err, "session.resources: too many");
  mr_jw_arr(w);
  while (resources && (v = yyjson_arr_iter_next(&it))) {
    struct mr_str path = mr_json_get_str(v, "mount_path");
    if (!mr_str_is(mr_json_get_str(v, "type"), "file"))
      continue; /* repositories and stores stay where they are */
    mr_copy_id(k, mr_json_get_str(v, "file_id"), file);
    if (!mr_str_starts(mr_str_c(file), MR_S("file_")))
      return wrong(&c->err, "session.resources: one is a file that is not in this file");
    if (!path.n) return wrong(&c->err, "session.resources: one has no mount_path");
    path = mr_resource_path(c, path, mr_str_c(file), "file");
    if (!path.p) return c->err.code;
    for (size_t i = 0; i < n; i++)
      if (mr_str_eq(paths[i], path)) return wrong(&c->err, "session.resources: two have the same mount_path");
    paths[n++] = path;
    if (mr_id_make(c->d->sys, id, "sesrsc") != MR_OK)
      return mr_err_set(&c->err, MR_E_IO, NULL, "no randomness");
    mr_jw_obj(w);
    mr_jw_kc(w, "type", "file");
    mr_jw_kc(w, "id", id);
    mr_jw_kc(w, "file_id", file);
    mr_jw_kstr(w, "mount_path", path);
    mr_jw_ktime(w, "created_at", now);
    mr_jw_ktime(w, "updated_at", now);
    mr_jw_obj_end(w);
  }
  mr_jw_arr_end(w);
  return MR_OK;
}
