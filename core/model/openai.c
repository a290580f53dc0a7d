/*
 * openai - chat completions, streaming: the many servers that speak this form (the OpenAI API, llama.cpp, vLLM,
 * Ollama, hosted ones).
 *
 * The request is translated in openai_form.c; here the stream becomes canonical blocks. Text opens a text block, a
 * tool call a tool_use block with the server's id (one is made when it gives none, as ids name calls in the log).
 * Which call a delta belongs to, the servers do not agree on: most number their calls; Ollama numbers all of them 0
 * and sends each whole; others number none. So: a number is believed, unless the delta brings the id of another
 * call, or a name while the call of that number is whole already; without a number the id says, then a name opens a
 * call, and what has neither goes on with the last.
 * Reasoning (`reasoning_content` of llama.cpp and DeepSeek, `reasoning` of vLLM and Ollama) becomes a thinking
 * block; the mark in its signature names the field that it goes back in, as models that think between tool calls
 * want it (openai_form.c).
 * Servers differ in how they end a stream, too; a finish_reason makes a reply whole, with or without [DONE], and
 * usage may come before, after or not at all. Loop thread.
 */
#include "model/openai_form.h"
#include "model/upstream.h"

#include <stdio.h>

/* What a stream has open. */
struct stream {
  int next;     /* number of the next block that is no call */
  int calls;    /* calls opened */
  int text;     /* open text block, or -1 */
  int thinking; /* open thinking block, or -1 */
  bool ended;   /* a finish_reason came */
  bool refused; /* text of a refusal came: */
  char refusal[1000];
  size_t nrefusal;
};

/* Calls have numbers of their own: the server's, and from UNNUMBERED on those it did not number. */
enum { TOOL_BASE = 1 << 20, TOOL_INDEX_MAX = 1 << 16, UNNUMBERED = TOOL_BASE + TOOL_INDEX_MAX + 1 };

static int on_text(struct mr_up_call *c, struct stream *s, struct mr_str more)
{
  struct mr_rblock *b = NULL;
  int rc = MR_OK;
  if (!more.n) return MR_OK;
  s->thinking = -1;
  if (s->text < 0) {
    s->text = s->next++;
    rc = mr_reply_open(&c->rb, s->text, MR_S("text"), MR_S("{\"type\":\"text\",\"text\":\"\"}"), &b);
  } else {
    b = mr_reply_find(&c->rb, s->text);
  }
  if (rc == MR_OK) rc = mr_reply_add(&c->rb, b, MR_RF_TEXT, more);
  return mr_up_gather(c, rc);
}

static int on_thinking(struct mr_up_call *c, struct stream *s, const char *field, struct mr_str more)
{
  struct mr_rblock *b = NULL;
  char first[160];
  int rc = MR_OK;
  if (!more.n) return MR_OK;
  s->text = -1;
  if (s->thinking < 0) {
    s->thinking = s->next++;
    snprintf(first, sizeof first,
             "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"" MR_REASONING_MARK "%s\"}", field);
    rc = mr_reply_open(&c->rb, s->thinking, MR_S("thinking"), mr_str_c(first), &b);
  } else {
    b = mr_reply_find(&c->rb, s->thinking);
  }
  if (rc == MR_OK) rc = mr_reply_add(&c->rb, b, MR_RF_THINKING, more);
  return mr_up_gather(c, rc);
}

static int open_tool(struct mr_up_call *c, struct stream *s, int number, yyjson_val *v, struct mr_rblock **b)
{
  struct mr_str id = mr_json_get_str(v, "id");
  char made[MR_ID_MAX];
  if (!id.n) {
    if (mr_id_make(c->up->sys, made, "toolu") != MR_OK) return MR_E_NOMEM;
    id = mr_str_c(made);
  }
  struct mr_buf h;
  struct mr_jw w;
  mr_buf_init(&h, c->mem, 1 << 16);
  mr_jw_init(&w, &h);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "tool_use");
  mr_jw_kstr(&w, "id", id);
  mr_jw_kstr(&w, "name", mr_json_get_str(mr_json_get(v, "function"), "name"));
  mr_jw_kraw(&w, "input", MR_S("{}"));
  mr_jw_obj_end(&w);
  s->text = s->thinking = -1;
  s->calls++;
  int rc = h.failed ? h.failed : mr_reply_open(&c->rb, number, MR_S("tool_use"), mr_buf_get(&h), b);
  mr_buf_free(&h);
  return rc;
}

/* The newest call with this id, or NULL. */
static struct mr_rblock *call_of_id(struct mr_up_call *c, struct mr_str id)
{
  for (int i = c->rb.n - 1; i >= 0; i--)
    if (c->rb.b[i]->field == MR_RF_INPUT && mr_reply_id_is(c->rb.b[i], c->mem, id)) return c->rb.b[i];
  return NULL;
}

static struct mr_rblock *last_call(struct mr_up_call *c)
{
  for (int i = c->rb.n - 1; i >= 0; i--)
    if (c->rb.b[i]->field == MR_RF_INPUT) return c->rb.b[i];
  return NULL;
}

/* The open call that a delta continues, or NULL: it begins one. */
static struct mr_rblock *call_of(struct mr_up_call *c, yyjson_val *v, int64_t index)
{
  struct mr_str id = mr_json_get_str(v, "id"), name = mr_json_get_str(mr_json_get(v, "function"), "name");
  struct mr_rblock *b = index >= 0 ? mr_reply_find(&c->rb, TOOL_BASE + (int)index) : NULL;
  if (index < 0 && id.n) return call_of_id(c, id);
  if (index < 0) b = last_call(c);
  if (!b || !name.n) return b;
  if (id.n) return mr_reply_id_is(b, c->mem, id) ? b : NULL;
  return mr_reply_whole(&c->rb, b) || index < 0 ? NULL : b;
}

static int add_arguments(struct mr_up_call *c, struct mr_rblock *b, yyjson_val *args)
{
  struct mr_buf t;
  int rc;
  if (!yyjson_is_obj(args)) return mr_reply_add(&c->rb, b, MR_RF_INPUT, mr_json_str(args));
  mr_buf_init(&t, c->rb.mem, MR_REPLY_MAX); /* as an object, whole: seen from some servers */
  mr_json_write(&t, args, false);
  rc = t.failed ? t.failed : mr_reply_add(&c->rb, b, MR_RF_INPUT, mr_buf_get(&t));
  mr_buf_free(&t);
  return rc;
}

static int on_tool(struct mr_up_call *c, struct stream *s, yyjson_val *v)
{
  yyjson_val *fn = mr_json_get(v, "function");
  int64_t index = mr_json_get_int(v, "index", -1);
  struct mr_rblock *b;
  int rc = MR_OK;
  if (index < -1 || index > TOOL_INDEX_MAX)
    return mr_up_fail(c, MR_MODEL_FAILED, "the stream broke its protocol: a tool call's index");
  b = call_of(c, v, index);
  if (!b) rc = open_tool(c, s, index >= 0 ? TOOL_BASE + (int)index : UNNUMBERED + s->calls, v, &b);
  if (rc == MR_OK) rc = add_arguments(c, b, mr_json_get(fn, "arguments"));
  return mr_up_gather(c, rc);
}

static void read_usage(struct mr_usage *u, yyjson_val *v)
{
  if (!yyjson_is_obj(v)) return;
  int64_t all = mr_json_get_int(v, "prompt_tokens", 0);
  u->cache_read = mr_json_get_int(mr_json_get(v, "prompt_tokens_details"), "cached_tokens",
                                  mr_json_get_int(v, "prompt_cache_hit_tokens", 0)); /* DeepSeek's name */
  u->input = all > u->cache_read ? all - u->cache_read : 0;
  u->output = mr_json_get_int(v, "completion_tokens", 0);
}

static void on_finish(struct mr_up_call *c, struct stream *s, struct mr_str why)
{
  const char *to = "end_turn";
  if (mr_str_is(why, "length"))
    to = "max_tokens";
  else if (mr_str_is(why, "content_filter") || s->refused)
    to = "refusal";
  else if (mr_reply_has_tools(&c->rb))
    to = "tool_use"; /* some say "stop" though they called */
  mr_buf_reset(&c->stop_reason);
  mr_buf_c(&c->stop_reason, to);
  if (strcmp(to, "refusal") == 0 && !c->stop_details.n) {
    mr_buf_c(&c->stop_details, "{\"type\":\"refusal\",\"category\":null,\"explanation\":");
    mr_json_quote(&c->stop_details, s->refused ? mr_str_n(s->refusal, s->nrefusal)
                                               : MR_S("the content filter of the service stopped the reply"));
    mr_buf_char(&c->stop_details, '}');
  }
  s->ended = true;
}

/* The model's own words are why it refuses. */
static void add_refusal(struct stream *s, struct mr_str more)
{
  size_t n = mr_utf8_cut(more, sizeof s->refusal - s->nrefusal);

  memcpy(s->refusal + s->nrefusal, more.p, n);
  s->nrefusal += n;
  s->refused = true;
}

static int choice(struct mr_up_call *c, struct stream *s, yyjson_val *ch)
{
  yyjson_val *d = mr_json_get(ch, "delta");
  struct mr_str think = mr_json_get_str(d, "reasoning_content"), no = mr_json_get_str(d, "refusal");
  bool content = think.n > 0;
  if (!content) think = mr_json_get_str(d, "reasoning"); /* some send both, with the same text */
  int rc = on_thinking(c, s, content ? "reasoning_content" : "reasoning", think);
  if (rc == MR_OK) rc = on_text(c, s, mr_json_get_str(d, "content"));
  if (rc == MR_OK) rc = on_text(c, s, no);
  if (no.n) add_refusal(s, no);
  size_t i, max;
  yyjson_val *t;
  yyjson_arr_foreach(mr_json_get(d, "tool_calls"), i, max, t)
  {
    if (rc == MR_OK) rc = on_tool(c, s, t);
  }
  struct mr_str why = mr_json_get_str(ch, "finish_reason");
  if (rc == MR_OK && why.n) on_finish(c, s, why);
  return rc;
}

static int frame(struct mr_up_call *c, struct mr_str event, yyjson_val *v)
{
  struct stream *s = c->extra;
  (void)event;
  if (!v) mr_up_finish(c);
  if (!v) return MR_OK;
  if (mr_json_get(v, "error") && !yyjson_is_null(mr_json_get(v, "error"))) return mr_up_fail_from(c, v);
  if (mr_str_is(mr_json_get_str(v, "object"), "error")) return mr_up_fail_from(c, v); /* vLLM's form of it */
  read_usage(&c->usage, mr_json_get(v, "usage"));
  yyjson_val *first = yyjson_arr_get_first(mr_json_get(v, "choices"));
  int rc = first ? choice(c, s, first) : MR_OK;
  /* The usage, if any, comes after the finish_reason; [DONE] or the end of the response closes. */
  if (rc == MR_OK && s->ended) c->complete = true;
  return rc;
}

/* ---- the provider ---- */

static int start(void *self, const struct mr_model_req *req, const struct mr_model_cbs *cbs, void *ud,
                 struct mr_model_call **out, struct mr_err *err)
{
  struct mr_upstream *u = self;
  struct mr_up_call *c = mr_up_new(u, &mr_openai_vtable, cbs, ud, err);
  if (!c) return MR_E_NOMEM;
  c->frame = frame;
  struct stream *s = c->extra = mr_mem_zalloc(&u->sys->mem, sizeof *s);
  int rc = s ? MR_OK : mr_err_nomem(err);
  if (rc == MR_OK) rc = mr_openai_body(&c->own, req, u->home, err);
  if (rc != MR_OK) {
    mr_up_drop(c);
    return rc;
  }
  s->text = s->thinking = -1;
  mr_up_header(c, "content-type: application/json");
  mr_up_header(c, "accept: text/event-stream");
  mr_up_header(c, "user-agent: moonrig/" MR_VERSION);
  if (u->key) mr_up_header(c, "authorization: Bearer %s", u->key);
  mr_up_part(c, mr_buf_get(&c->own));
  rc = mr_up_start(c, err);
  if (rc == MR_OK) *out = &c->call;
  return rc;
}

static void release(void *self)
{
  struct mr_upstream *u = self;
  const struct mr_mem *m = &u->sys->mem;
  mr_upstream_clear(u);
  mr_mem_free(m, u);
}

int mr_openai_new(void **self, const struct mr_provider_opts *o, struct mr_err *err)
{
  struct mr_upstream *u = mr_mem_zalloc(&o->sys->mem, sizeof *u);
  if (!u) return mr_err_nomem(err);
  static const struct mr_up_kind kind = {"openai", "https://api.openai.com", "/chat/completions",
                                         "MOONRIG_OPENAI_API_KEY", false};
  int rc = mr_upstream_init(u, o, &kind, err);
  if (rc != MR_OK) {
    mr_mem_free(&o->sys->mem, u);
    return rc;
  }
  *self = u;
  return MR_OK;
}

const struct mr_provider_vtable mr_openai_vtable = {"openai", start, mr_up_cancel, release};
