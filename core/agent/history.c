/*
 * history.c - what is sent to the model, as stored fragments: one JSON text per message, made once from the
 * row that it stands for and appended, never written again. So a long session's request keeps its prefix
 * byte for byte, and the provider's prompt cache keeps hitting.
 *
 * The fragments lie one after the other in chunks, with a comma between them, so that a request of a thousand messages
 * is a handful of pieces. A request in flight borrows chunks and index: they never move, and what is replaced (by a
 * larger index, by a summary of the conversation) is kept until the thread's last request is over.
 */
#include "agent/content.h"
#include "agent/session_t.h"
#include "agent/toolset.h"

struct mr_history_block {
  struct mr_history_block *next; /* of those that are not needed any more */
  char p[];                      /* fragments, or the index of them */
};
enum { CHUNK_MIN = 512, CHUNK_MAX = 256 << 10 };

static void free_old(struct mr_thread *th)
{
  struct mr_history_block *b;

  while ((b = th->history_old)) {
    th->history_old = b->next;
    mr_mem_free(th->s->d->mem, b);
  }
}

/* The block that p is in is not needed any more, but by requests that began before. */
static void retire(struct mr_thread *th, const void *p)
{
  struct mr_history_block *b;

  if (!p) return;
  b = (void *)((uintptr_t)p - offsetof(struct mr_history_block, p));
  b->next = th->history_old;
  th->history_old = b;
  if (th->requests == 0) free_old(th);
}

/* A new chunk, with room for half of what there is already: what it leaves unused is little, and chunks are few. */
static int new_chunk(struct mr_thread *th, size_t n)
{
  const struct mr_mem *m = th->s->d->mem;
  size_t room = th->history_bytes / 2;
  struct mr_history_block *b;
  struct mr_str *v = th->pieces;

  room = room < CHUNK_MIN ? CHUNK_MIN : room > CHUNK_MAX ? CHUNK_MAX : room;
  if (room < n) room = n;
  if (th->npieces % 8 == 0) v = mr_mem_realloc(m, v, ((size_t)th->npieces + 8) * sizeof *v);
  if (!v) return MR_E_NOMEM;
  th->pieces = v;
  b = mr_mem_alloc(m, sizeof *b + room);
  if (!b) return MR_E_NOMEM;
  v[th->npieces++] = mr_str_n(b->p, 0);
  th->history_room = room;
  return MR_OK;
}

/* Room for one more in the index. */
static int index_room(struct mr_thread *th)
{
  int cap = th->history_cap ? th->history_cap * 2 : 16;
  struct mr_history_block *b;

  if (th->nhistory < th->history_cap) return MR_OK;
  b = mr_mem_alloc(th->s->d->mem, sizeof *b + (size_t)cap * sizeof *th->history);
  if (!b) return MR_E_NOMEM;
  if (th->nhistory) memcpy(b->p, th->history, (size_t)th->nhistory * sizeof *th->history);
  retire(th, th->history);
  th->history = (void *)b->p;
  th->history_cap = cap;
  return MR_OK;
}

static int append(struct mr_thread *th, struct mr_str text)
{
  bool comma = th->npieces && text.n < th->history_room; /* there is room for it and the text */
  struct mr_str *piece;
  char *at;

  if (index_room(th) != MR_OK || (!comma && new_chunk(th, text.n) != MR_OK)) return MR_E_NOMEM;
  piece = &th->pieces[th->npieces - 1];
  at = (char *)(uintptr_t)piece->p + piece->n; /* the chunk is ours: what is behind the piece nobody reads */
  if (comma) *at++ = ',';
  memcpy(at, text.p, text.n);
  piece->n += comma + text.n;
  th->history_room -= comma + text.n;
  th->history_bytes += text.n;
  th->history[th->nhistory++] = mr_str_n(at, text.n);
  return MR_OK;
}

void mr_history_clear(struct mr_thread *th)
{
  while (th->npieces)
    retire(th, th->pieces[--th->npieces].p);
  retire(th, th->history);
  th->history = NULL;
  th->nhistory = th->history_cap = 0;
  th->history_bytes = th->history_room = 0;
  th->foreign = th->with_files = false;
  mr_mem_free(th->s->d->mem, th->sent);
  th->sent = NULL;
  th->nsent = 0;
}

int mr_history_lend(struct mr_thread *th, struct mr_arena *a, struct mr_model_req *r)
{
  struct mr_str *v = mr_arena_alloc(a, ((size_t)th->npieces + 1) * sizeof *v);

  if (!v) return MR_E_NOMEM;
  if (th->npieces) memcpy(v, th->pieces, (size_t)th->npieces * sizeof *v); /* the last one grows */
  r->pieces = v;
  r->npieces = th->npieces;
  r->messages = th->history;
  r->nmessages = th->nhistory;
  r->plain = !th->foreign;
  th->requests++;
  return MR_OK;
}

void mr_history_given_back(struct mr_thread *th)
{
  if (--th->requests == 0) free_old(th);
}

void mr_history_free(struct mr_thread *th)
{
  mr_history_clear(th);
  free_old(th);
  mr_mem_free(th->s->d->mem, th->pieces);
  th->pieces = NULL;
}

static int push(struct mr_thread *th, struct mr_buf *b)
{
  int code = b->failed ? b->failed : append(th, mr_buf_get(b));

  if (!th->with_files) th->with_files = mr_content_names_file(mr_buf_get(b));

  mr_buf_free(b);
  return code;
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

int mr_history_reply(struct mr_thread *th, yyjson_val *content)
{
  struct mr_buf b;

  mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
  mr_buf_c(&b, "{\"role\":\"assistant\",\"content\":");
  mr_json_write(&b, content, false);
  mr_buf_char(&b, '}');
  if (mr_model_foreign(content)) th->foreign = true;
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

static yyjson_val *toolset(const struct mr_thread *th)
{
  yyjson_val *tools = mr_json_get(th->agent, "tools"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(tools);

  while (tools && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_is(mr_json_get_str(v, "type"), "agent_toolset_20260401")) return v;
  return NULL;
}

static yyjson_val *config_of(yyjson_val *set, struct mr_str name)
{
  yyjson_val *configs = mr_json_get(set, "configs"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(configs);

  while (configs && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_eq(mr_json_get_str(v, "name"), name)) return v;
  return NULL;
}

yyjson_val *mr_tool_config(const struct mr_thread *th, struct mr_str name)
{
  return config_of(toolset(th), name);
}

/* The setting of a built-in tool: its own config, else the toolset's default. */
static yyjson_val *tool_setting(yyjson_val *set, struct mr_str name, const char *what)
{
  yyjson_val *x = mr_json_get(config_of(set, name), what);

  return x && !yyjson_is_null(x) ? x : mr_json_get(mr_json_get(set, "default_config"), what);
}

static bool tool_enabled(yyjson_val *set, struct mr_str name)
{
  yyjson_val *v = tool_setting(set, name, "enabled");
  return set && (!yyjson_is_bool(v) || yyjson_get_bool(v));
}

bool mr_tool_reads(const struct mr_thread *th)
{
  yyjson_val *set = toolset(th);
  return tool_enabled(set, MR_S("read")) || tool_enabled(set, MR_S("bash"));
}

static yyjson_val *custom_tool(const struct mr_thread *th, struct mr_str name)
{
  yyjson_val *tools = mr_json_get(th->agent, "tools"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(tools);

  while (tools && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_is(mr_json_get_str(v, "type"), "custom") && mr_str_eq(mr_json_get_str(v, "name"), name))
      return v;
  return NULL;
}

yyjson_val *mr_tool_schema(const struct mr_thread *th, struct mr_str name)
{
  return mr_json_get(custom_tool(th, name), "input_schema");
}

enum mr_call_perm mr_tool_policy(struct mr_thread *th, struct mr_str name, enum mr_tool_kind *kind, bool *known,
                                 bool *automatic)
{
  yyjson_val *set = toolset(th);
  struct mr_str policy;

  *kind = mr_toolset_web(name) ? MR_TOOL_WEB : MR_TOOL_BUILTIN;
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
    mr_jw_kc(&w, "text", th->s->self_hosted ? mr_toolset_note_own : mr_toolset_note);
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
