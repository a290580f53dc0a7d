/*
 * pass_form - to a provider that speaks another form: the request becomes a model call; see pass.h. What comes of it
 * is written by pass_events.c.
 *
 * Content that is a string becomes a block, as model calls have it. Parameters besides the messages travel in the
 * call's `extra`; each provider uses what it can.
 * Loop thread; fragments point into p->text and live as long as the request.
 */
#include "model/pass_t.h"

enum { MESSAGES_MAX = 100000 };

static void write_key(struct mr_jw *w, yyjson_val *root, const char *key)
{
  yyjson_val *v = mr_json_get(root, key);
  struct mr_buf t;

  if (!v || yyjson_is_null(v)) return;
  mr_buf_init(&t, w->b->mem, 1 << 20);
  mr_json_write(&t, v, false);
  if (t.failed) w->b->failed = t.failed;
  mr_jw_kraw(w, key, mr_buf_get(&t));
  mr_buf_free(&t);
}

static void write_extra(struct mr_buf *b, yyjson_val *root)
{
  static const char *const keys[] = {"temperature",    "top_p",       "top_k",
                                     "stop_sequences", "tool_choice", "thinking",
                                     "output_config",  "metadata",    "output_format"};
  struct mr_jw w;

  mr_jw_init(&w, b);
  mr_jw_obj(&w);
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    write_key(&w, root, keys[i]);
  mr_jw_obj_end(&w);
}

static void text_block(struct mr_buf *b, struct mr_str text)
{
  mr_buf_c(b, "[{\"type\":\"text\",\"text\":");
  mr_json_quote(b, text);
  mr_buf_c(b, "}]");
}

/* Content, or the system prompt: a string or blocks. */
static void blocks(struct mr_buf *b, yyjson_val *v)
{
  if (yyjson_is_str(v))
    text_block(b, mr_json_str(v));
  else
    mr_json_write(b, v, false);
}

static int write_message(struct mr_buf *b, yyjson_val *m, size_t i, struct mr_err *err)
{
  struct mr_str role = mr_json_get_str(m, "role");
  yyjson_val *content = mr_json_get(m, "content");

  if (!mr_str_is(role, "user") && !mr_str_is(role, "assistant") && !mr_str_is(role, "system"))
    return mr_err_set(err, MR_E_INVALID, "messages", "messages.%zu.role: \"user\" or \"assistant\"", i);
  if (!yyjson_is_str(content) && !yyjson_is_arr(content))
    return mr_err_set(err, MR_E_INVALID, "messages", "messages.%zu.content: Field required, text or blocks", i);
  mr_buf_c(b, "{\"role\":");
  mr_json_quote(b, role);
  mr_buf_c(b, ",\"content\":");
  blocks(b, content);
  mr_buf_char(b, '}');
  return MR_OK;
}

/* Everything in one buffer; where its parts begin is turned into strings once it does not move any more. */
static int translate(struct mr_pass *p, struct mr_model_req *r, struct mr_err *err)
{
  yyjson_val *root = yyjson_doc_get_root(p->doc), *list = mr_json_get(root, "messages"), *m;
  yyjson_val *system = mr_json_get(root, "system"), *tools = mr_json_get(root, "tools");
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  size_t n = yyjson_arr_size(list), i = 0, *ends, from = 0;
  int64_t max = mr_json_get_int(root, "max_tokens", 0);
  struct mr_str *v;
  int code = MR_OK;

  if (max < 1 || max > INT32_MAX)
    return mr_err_set(err, MR_E_INVALID, "max_tokens", "max_tokens: Field required, a positive integer");
  if (n == 0 || n > MESSAGES_MAX)
    return mr_err_set(err, MR_E_INVALID, "messages", "messages: 1 to %d", MESSAGES_MAX);
  ends = mr_arena_alloc(p->arena, (n + 3) * sizeof *ends);
  v = mr_arena_alloc(p->arena, (n + 3) * sizeof *v);
  if (!ends || !v) return mr_err_nomem(err);
  mr_buf_reset(&p->text);
  while (code == MR_OK && (m = yyjson_arr_iter_next(&it))) {
    code = write_message(&p->text, m, i, err);
    ends[i++] = p->text.n;
  }
  if (code != MR_OK) return code;
  if (yyjson_is_str(system) || yyjson_is_arr(system)) blocks(&p->text, system);
  ends[i++] = p->text.n;
  if (yyjson_is_arr(tools)) mr_json_write(&p->text, tools, false);
  ends[i++] = p->text.n;
  write_extra(&p->text, root);
  ends[i++] = p->text.n;
  if (p->text.failed) return mr_err_nomem(err);
  for (size_t k = 0; k < i; from = ends[k++])
    v[k] = mr_str_n(p->text.p + from, ends[k] - from);
  *r = (struct mr_model_req){.model = p->tries.t[p->tries.at].id,
                             .effort = mr_json_get_str(mr_json_get(root, "output_config"), "effort"),
                             .messages = v,
                             .nmessages = (int)n,
                             .system = v[n],
                             .tools = v[n + 1],
                             .extra = v[n + 2],
                             .max_tokens = (int)max,
                             .request_id = p->req.request_id};
  return MR_OK;
}

/* ---- what comes back ---- */

static void on_block(void *ud, int index, struct mr_str kind)
{
  struct mr_pass *p = ud;
  (void)index;
  if (!p->cancelled) mr_pass_block(p, kind);
}

static void on_text(void *ud, int index, struct mr_str delta)
{
  struct mr_pass *p = ud;
  (void)index;
  if (!p->cancelled) mr_pass_text(p, delta);
}

static void fail(struct mr_pass *p, const struct mr_model_reply *m)
{
  static const struct {
    int status;
    const char *type;
  } as[] = {[MR_MODEL_OK] = {500, "api_error"},
            [MR_MODEL_OVERLOADED] = {529, "overloaded_error"},
            [MR_MODEL_RATE_LIMITED] = {429, "rate_limit_error"},
            [MR_MODEL_FAILED] = {502, "api_error"},
            [MR_MODEL_BILLING] = {402, "billing_error"},
            [MR_MODEL_REFUSED_REQUEST] = {400, "invalid_request_error"},
            [MR_MODEL_CANCELLED] = {500, "api_error"}};

  if (p->began)
    mr_pass_break(p, as[m->status].type, m->message);
  else if (!mr_model_transient(m->status) || !mr_pass_next(p, m->message))
    mr_pass_error(p, as[m->status].status, as[m->status].type, m->retry_after_ms, m->message);
}

static void on_done(void *ud, const struct mr_model_reply *m)
{
  struct mr_pass *p = ud;
  struct mr_gate *g = &p->tries.t[p->tries.at].e->gate;

  p->inner = NULL;
  if (m->status == MR_MODEL_RATE_LIMITED && m->retry_after_ms > 0) mr_gate_pause(g, m->retry_after_ms);
  mr_tries_leave(&p->tries,
                 m->usage.input + m->usage.output + m->usage.cache_write_5m + m->usage.cache_write_1h);
  if (p->cancelled)
    mr_pass_over(p, false);
  else if (m->status == MR_MODEL_OK)
    mr_pass_finish(p, m);
  else
    fail(p, m);
}

int mr_pass_form(struct mr_pass *p, struct mr_err *err)
{
  static const struct mr_model_cbs cbs = {on_block, on_text, on_done};
  struct mr_model_entry *e = p->tries.t[p->tries.at].e;
  struct mr_model_req r;
  int code = mr_id_make(mr_loop_sys(p->loop), p->id, "msg");

  if (code != MR_OK) return mr_err_set(err, code, NULL, "no randomness for an id");
  code = translate(p, &r, err);
  if (code == MR_OK) code = e->v->start(e->self, &r, &cbs, p, &p->inner, err);
  if (code != MR_OK) p->inner = NULL;
  return code;
}
