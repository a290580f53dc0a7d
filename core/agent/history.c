/*
 * history.c - what is sent to the model, as stored fragments: one JSON text per message, made once from the
 * row that it stands for and appended, never written again. So a long session's request keeps its prefix
 * byte for byte, and the provider's prompt cache keeps hitting.
 *
 * The fragments lie one after the other in chunks, with a comma between them, so that a request of a thousand messages
 * is a handful of pieces. A request in flight borrows chunks and index: they never move, and what is replaced (by a
 * larger index, by a summary of the conversation) is kept until the thread's last request is over.
 */
#include "agent/session_t.h"
#include "agent/toolset.h"

struct mr_history_chunk {
  struct mr_history_chunk *next; /* the one before */
  size_t n, cap;
  char p[]; /* fragments; or the index of them, th->history */
};
enum { CHUNK_MIN = 512, CHUNK_MAX = 256 << 10 };

/* The text behind the others; p NULL: no memory. A new chunk has room for half of what there is already, so what
 * it leaves unused is little, and chunks are few. */
static struct mr_str place(struct mr_thread *th, struct mr_str text)
{
  struct mr_history_chunk *c = th->chunks;
  size_t cap = th->history_bytes / 2;
  char *at;

  if (!c || c->cap - c->n <= text.n) {
    cap = cap < CHUNK_MIN ? CHUNK_MIN : cap > CHUNK_MAX ? CHUNK_MAX : cap;
    if (cap < text.n) cap = text.n;
    c = mr_mem_alloc(th->s->d->mem, sizeof *c + cap);
    if (!c) return mr_str_n(NULL, 0);
    *c = (struct mr_history_chunk){.next = th->chunks, .cap = cap};
    th->chunks = c;
  } else {
    c->p[c->n++] = ',';
  }
  at = c->p + c->n;
  memcpy(at, text.p, text.n);
  c->n += text.n;
  th->history_bytes += text.n;
  return mr_str_n(at, text.n);
}

static void free_old(struct mr_thread *th)
{
  struct mr_history_chunk *c;

  while ((c = th->old_chunks)) {
    th->old_chunks = c->next;
    mr_mem_free(th->s->d->mem, c);
  }
}

/* Nothing new borrows these. */
static void retire(struct mr_thread *th, struct mr_history_chunk **first)
{
  struct mr_history_chunk *c;

  while ((c = *first)) {
    *first = c->next;
    c->next = th->old_chunks;
    th->old_chunks = c;
  }
  if (th->requests == 0) free_old(th);
}

/* Room for one more in the index. */
static int index_room(struct mr_thread *th)
{
  size_t one = sizeof *th->history, cap = th->nhistory ? (size_t)th->nhistory * 2 : 16;
  struct mr_history_chunk *c;

  if (th->index && ((size_t)th->nhistory + 1) * one <= th->index->cap) return MR_OK;
  c = mr_mem_alloc(th->s->d->mem, sizeof *c + cap * one);
  if (!c) return MR_E_NOMEM;
  *c = (struct mr_history_chunk){.cap = cap * one};
  if (th->nhistory) memcpy(c->p, th->history, (size_t)th->nhistory * one);
  retire(th, &th->index);
  th->index = c;
  th->history = (void *)c->p;
  return MR_OK;
}

void mr_history_clear(struct mr_thread *th)
{
  retire(th, &th->chunks);
  retire(th, &th->index);
  th->history = NULL;
  th->nhistory = 0;
  th->history_bytes = 0;
  th->foreign = false;
}

int mr_history_lend(struct mr_thread *th, struct mr_arena *a, struct mr_model_req *r)
{
  struct mr_str *v;
  int n = 0;

  for (struct mr_history_chunk *c = th->chunks; c; c = c->next)
    n++;
  v = mr_arena_alloc(a, ((size_t)n + 1) * sizeof *v);
  if (!v) return MR_E_NOMEM;
  r->pieces = v;
  r->npieces = n;
  for (struct mr_history_chunk *c = th->chunks; c; c = c->next)
    v[--n] = mr_str_n(c->p, c->n);
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
}

static int push(struct mr_thread *th, struct mr_buf *b)
{
  struct mr_str frag = b->failed ? mr_str_n(NULL, 0) : place(th, mr_buf_get(b));
  int code = b->failed ? b->failed : MR_OK;

  mr_buf_free(b);
  if (code != MR_OK) return code;
  if (!frag.p || index_room(th) != MR_OK) return MR_E_NOMEM;
  ((struct mr_str *)(void *)th->index->p)[th->nhistory++] = frag;
  return MR_OK;
}

int mr_history_user(struct mr_thread *th, yyjson_val *content, const char *role)
{
  struct mr_buf b;

  mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
  mr_buf_printf(&b, "{\"role\":\"%s\",\"content\":", role);
  mr_content_to_model(content, &b);
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

static void result_block(struct mr_thread *th, struct mr_jw *w, const struct mr_tcall *t)
{
  yyjson_doc *doc = NULL;

  mr_jw_obj(w);
  mr_jw_kc(w, "type", "tool_result");
  mr_jw_kstr(w, "tool_use_id", t->provider_id);
  if (t->result.n > 2 && mr_json_parse(th->s->d->mem, t->result, SIZE_MAX, &doc, NULL) == MR_OK) {
    mr_jw_key(w, "content");
    w->after_key = false; /* the value is written past the writer */
    mr_content_to_model(yyjson_doc_get_root(doc), w->b);
    yyjson_doc_free(doc);
  }
  if (t->is_error) {
    mr_jw_key(w, "is_error");
    mr_jw_bool(w, true);
  }
  mr_jw_obj_end(w);
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
