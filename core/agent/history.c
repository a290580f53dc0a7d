/*
 * history.c - what is sent to the model, as stored fragments: one JSON text per message, made once from the
 * row that it stands for and appended, never written again. So a long session's request keeps its prefix
 * byte for byte, and the provider's prompt cache keeps hitting.
 */
#include "agent/session_t.h"
#include "agent/toolset.h"

static int push(struct mr_thread *th, struct mr_buf *b)
{
  struct mr_str frag = b->failed ? mr_str_n(NULL, 0) : mr_session_copy(th->s, mr_buf_get(b));
  int code = b->failed ? b->failed : MR_OK;

  mr_buf_free(b);
  if (code != MR_OK) return code;
  if (th->nhistory == th->history_cap) {
    int cap = th->history_cap ? th->history_cap * 2 : 16;
    struct mr_str *v = mr_mem_realloc(th->s->d->mem, th->history, (size_t)cap * sizeof *v);
    if (!v) return MR_E_NOMEM;
    th->history = v;
    v = mr_mem_realloc(th->s->d->mem, th->sent, (size_t)cap * sizeof *v);
    if (!v) return MR_E_NOMEM;
    th->sent = v;
    th->history_cap = cap;
  }
  if (!frag.p) return MR_E_NOMEM;
  th->sent[th->nhistory] = mr_str_n(NULL, 0);
  th->history[th->nhistory++] = frag;
  return MR_OK;
}

int mr_history_user(struct mr_thread *th, yyjson_val *content, const char *role)
{
  struct mr_buf b;

  mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
  mr_buf_printf(&b, "{\"role\":\"%s\",\"content\":", role);
  mr_content_to_model(th->s->d->mem, content, &b);
  mr_buf_char(&b, '}');
  return push(th, &b);
}

int mr_history_reply(struct mr_thread *th, struct mr_str content)
{
  struct mr_buf b;

  mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
  mr_buf_c(&b, "{\"role\":\"assistant\",\"content\":");
  mr_buf_str(&b, content);
  mr_buf_char(&b, '}');
  return push(th, &b);
}

/* Models' APIs want nothing but text in a result that is an error; one with more says so in words. */
static void result_block(struct mr_thread *th, struct mr_jw *w, const struct mr_tcall *t)
{
  yyjson_doc *doc = NULL;
  yyjson_val *content = NULL;
  bool is_error = t->is_error;
  struct mr_buf b;

  mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "tool_result");
  mr_jw_kstr(w, "tool_use_id", t->provider_id);
  if (t->result.n > 2 && mr_json_parse(th->s->d->mem, t->result, SIZE_MAX, &doc, NULL) == MR_OK) {
    content = yyjson_doc_get_root(doc);
    mr_content_to_model(th->s->d->mem, content, &b);
    if (b.failed) w->b->failed = b.failed;
    mr_jw_key(w, "content");
    if (is_error && !mr_content_text_only(content)) {
      is_error = false;
      mr_jw_arr(w);
      mr_jw_raw(w, MR_S("{\"type\":\"text\",\"text\":\"(This call failed.)\"}"));
      mr_jw_raw(w, mr_str_n(b.p + 1, b.n - 2)); /* without its brackets */
      mr_jw_arr_end(w);
    } else {
      mr_jw_raw(w, mr_buf_get(&b));
    }
    yyjson_doc_free(doc);
  }
  if (is_error) {
    mr_jw_key(w, "is_error");
    mr_jw_bool(w, true);
  }
  mr_jw_obj_end(w);
  mr_buf_free(&b);
}

int mr_history_results(struct mr_thread *th)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "role", "user");
  mr_jw_key(&w, "content");
  mr_jw_arr(&w);
  for (int i = 0; i < th->ncalls; i++)
    result_block(th, &w, th->calls[i]);
  mr_jw_arr_end(&w);
  mr_jw_obj_end(&w);
  return push(th, &b);
}

/* ---- the fixed part of a request ---- */

static yyjson_val *toolset(struct mr_thread *th)
{
  yyjson_val *tools = mr_json_get(th->agent, "tools"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(tools);

  while (tools && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_is(mr_json_get_str(v, "type"), "agent_toolset_20260401")) return v;
  return NULL;
}

/* The setting of a built-in tool: its own config, else the toolset's default. */
static yyjson_val *tool_setting(yyjson_val *set, struct mr_str name, const char *what)
{
  yyjson_val *configs = mr_json_get(set, "configs"), *v, *x;
  yyjson_arr_iter it = yyjson_arr_iter_with(configs);

  while (configs && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_eq(mr_json_get_str(v, "name"), name) && (x = mr_json_get(v, what)) && !yyjson_is_null(x))
      return x;
  return mr_json_get(mr_json_get(set, "default_config"), what);
}

static bool tool_enabled(yyjson_val *set, struct mr_str name)
{
  yyjson_val *v = tool_setting(set, name, "enabled");
  return set && (!yyjson_is_bool(v) || yyjson_get_bool(v));
}

static yyjson_val *custom_tool(struct mr_thread *th, struct mr_str name)
{
  yyjson_val *tools = mr_json_get(th->agent, "tools"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(tools);

  while (tools && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_is(mr_json_get_str(v, "type"), "custom") && mr_str_eq(mr_json_get_str(v, "name"), name))
      return v;
  return NULL;
}

yyjson_val *mr_tool_schema(struct mr_thread *th, struct mr_str name)
{
  return mr_json_get(custom_tool(th, name), "input_schema");
}

enum mr_call_perm mr_tool_policy(struct mr_thread *th, struct mr_str name, enum mr_tool_kind *kind, bool *known,
                                 bool *automatic)
{
  yyjson_val *set = toolset(th);
  struct mr_str policy;

  *kind = MR_TOOL_BUILTIN;
  *known = true;
  *automatic = false;
  if (mr_delegate_has(th, name)) {
    *kind = MR_TOOL_HIDDEN;
    return MR_PERM_ALLOW;
  }
  if (custom_tool(th, name)) {
    *kind = MR_TOOL_CUSTOM;
    return MR_PERM_ALLOW;
  }
  if (!mr_toolset_has(name) || !tool_enabled(set, name)) {
    *known = false;
    return MR_PERM_DENY;
  }
  policy = mr_json_get_str(tool_setting(set, name, "permission_policy"), "type");
  *automatic = mr_str_is(policy, "auto");
  return mr_str_is(policy, "always_ask") || *automatic ? MR_PERM_ASK : MR_PERM_ALLOW;
}

static int prepare_tools(struct mr_thread *th)
{
  yyjson_val *set = toolset(th), *v;
  yyjson_val *tools = mr_json_get(th->agent, "tools");
  yyjson_arr_iter it = yyjson_arr_iter_with(tools);
  struct mr_buf b;
  struct mr_jw w;

  mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_arr(&w);
  for (int i = 0; set && mr_toolset_at(i); i++) {
    const struct mr_toolset_tool *t = mr_toolset_at(i);
    if (!tool_enabled(set, mr_str_c(t->name))) continue;
    mr_jw_obj(&w);
    mr_jw_kc(&w, "name", t->name);
    mr_jw_kc(&w, "description", t->description);
    mr_jw_kraw(&w, "input_schema", mr_str_c(t->schema));
    mr_jw_obj_end(&w);
  }
  while (tools && (v = yyjson_arr_iter_next(&it))) {
    if (!mr_str_is(mr_json_get_str(v, "type"), "custom")) continue;
    mr_jw_obj(&w);
    mr_jw_kstr(&w, "name", mr_json_get_str(v, "name"));
    mr_jw_kstr(&w, "description", mr_json_get_str(v, "description"));
    mr_jw_key(&w, "input_schema");
    w.after_key = false;
    mr_json_write(&b, mr_json_get(v, "input_schema"), true);
    mr_jw_obj_end(&w);
  }
  mr_delegate_tools(th, &w);
  mr_jw_arr_end(&w);
  th->tools = b.n > 2 ? mr_session_copy(th->s, mr_buf_get(&b)) : mr_str_n("", 0);
  mr_buf_free(&b);
  return th->tools.p ? MR_OK : MR_E_NOMEM;
}

static int prepare_system(struct mr_thread *th)
{
  struct mr_str own = mr_json_get_str(th->agent, "system");
  struct mr_buf b;
  struct mr_jw w;

  mr_buf_init(&b, th->s->d->mem, 1 << 22);
  mr_jw_init(&w, &b);
  mr_jw_arr(&w);
  if (own.n) {
    mr_jw_obj(&w);
    mr_jw_kc(&w, "type", "text");
    mr_jw_kstr(&w, "text", own);
    mr_jw_obj_end(&w);
  }
  if (toolset(th)) {
    mr_jw_obj(&w);
    mr_jw_kc(&w, "type", "text");
    mr_jw_kc(&w, "text", mr_toolset_note);
    mr_jw_obj_end(&w);
  }
  mr_jw_arr_end(&w);
  th->system = b.n > 2 ? mr_session_copy(th->s, mr_buf_get(&b)) : mr_str_n("", 0);
  mr_buf_free(&b);
  return th->system.p ? MR_OK : MR_E_NOMEM;
}

int mr_history_prepare(struct mr_thread *th)
{
  int code;
  if (th->system.p) return MR_OK;
  code = prepare_tools(th);
  return code ? code : prepare_system(th);
}
