/*
 * scripted - a recorded file plays the model: for tests, examples and first steps without key or network.
 *
 * The file holds one JSON object a line (empty lines and those that begin with # are skipped):
 *   {"reply": {"content": [..], "stop_reason"?, "stop_details"?, "usage"?}, "match"?, "expect"?,
 *    "delay_ms"?, "chunks"?, "chunk_ms"?}
 *   {"error": {"type", "message"?, "retry_after_ms"?, "times"?}, "match"?, "delay_ms"?}
 * A conversation reads the lines in order, each once: a request takes the first line left whose match
 * (text that must occur in the last message) fits. Strings of a reply may hold {{last_text}}, the newest
 * user text, and {{last_tool_result}}, the text of the newest tool results, so that what it says comes
 * from what it was given. expect ({"model", "tool", "last_text", "messages"}) fails the call when the
 * request differs. Text arrives in chunks pieces (8), chunk_ms apart, after delay_ms. An error line
 * fails times requests (1). Usage not given is counted from the bytes, four to a token.
 * A tool_use without id gets one. Loop thread; the callbacks come from the drain.
 */
#include "model/failure.h"
#include "model/providers.h"
#include "model/script_file.h"

enum { DELAY_MAX_MS = 600000, CHUNKS_MAX = 10000, CONTENT_MAX = 32 << 20 };

struct scripted {
  const struct mr_sys *sys;
  struct mr_loop *loop;
  struct mr_script file;
};

struct call {
  struct mr_model_call call; /* first */
  struct scripted *s;        /* not to be touched after done: it may be gone */
  const struct mr_mem *mem;
  struct mr_loop *loop;
  struct mr_model_cbs cbs;
  void *ud;
  struct mr_timer timer;
  struct mr_buf content; /* the array, placeholders filled in */
  struct mr_buf stop_reason, details;
  yyjson_doc *doc; /* content, parsed: pieces are cut from it */
  struct mr_failure failure;
  struct mr_usage usage;
  bool cancelled, told; /* told: the block at hand was announced */
  size_t block, at;     /* where the streaming is: block, byte of its text */
  int chunks;
  int64_t chunk_us;
};

/* ---- the reply ---- */

/* A string with its placeholders filled in. */
static void fill(struct mr_buf *out, struct mr_str s, const struct mr_script_view *v)
{
  while (s.n) {
    const char *open = memmem(s.p, s.n, "{{", 2);
    if (!open) break;
    struct mr_str tail = mr_str_n(open, s.n - (size_t)(open - s.p));
    mr_buf_add(out, s.p, (size_t)(open - s.p));
    if (mr_str_starts(tail, MR_S("{{last_text}}"))) {
      mr_buf_str(out, mr_buf_get(&v->user_text));
      s = mr_str_n(tail.p + 13, tail.n - 13);
    } else if (mr_str_starts(tail, MR_S("{{last_tool_result}}"))) {
      mr_buf_str(out, mr_buf_get(&v->tool_result));
      s = mr_str_n(tail.p + 20, tail.n - 20);
    } else {
      mr_buf_add(out, "{{", 2);
      s = mr_str_n(tail.p + 2, tail.n - 2);
    }
  }
  mr_buf_str(out, s);
}

/* Writes a recorded value, strings filled in. Depth is bounded by the parser's limit and the writer's;
 * past 40 levels the value is copied as it is. */
static void emit(struct mr_jw *w, yyjson_val *v, const struct mr_script_view *view, int depth)
{
  size_t i, max;
  yyjson_val *k, *x;
  struct mr_buf t;
  if (yyjson_is_obj(v) && depth < 40) {
    mr_jw_obj(w);
    yyjson_obj_foreach(v, i, max, k, x)
    {
      mr_jw_key_s(w, mr_json_str(k));
      emit(w, x, view, depth + 1);
    }
    mr_jw_obj_end(w);
    return;
  }
  if (yyjson_is_arr(v) && depth < 40) {
    mr_jw_arr(w);
    yyjson_arr_foreach(v, i, max, x) emit(w, x, view, depth + 1);
    mr_jw_arr_end(w);
    return;
  }
  mr_buf_init(&t, w->b->mem, CONTENT_MAX);
  if (yyjson_is_str(v)) {
    fill(&t, mr_json_str(v), view);
    if (!t.failed) mr_jw_str(w, mr_buf_get(&t));
  } else {
    mr_json_write(&t, v, false);
    if (!t.failed) mr_jw_raw(w, mr_buf_get(&t));
  }
  if (t.failed) w->b->failed = t.failed;
  mr_buf_free(&t);
}

static int emit_block(struct call *c, struct mr_jw *w, yyjson_val *b, const struct mr_script_view *v)
{
  char id[MR_ID_MAX];
  size_t i, max;
  yyjson_val *k, *x;
  bool tool = mr_str_is(mr_json_get_str(b, "type"), "tool_use");
  if (!yyjson_is_obj(b)) return MR_E_INVALID;
  mr_jw_obj(w);
  yyjson_obj_foreach(b, i, max, k, x)
  {
    mr_jw_key_s(w, mr_json_str(k));
    emit(w, x, v, 0);
  }
  if (tool && !mr_json_get_str(b, "id").n) {
    if (mr_id_make(c->s->sys, id, "toolu") != MR_OK) return MR_E_IO;
    mr_jw_kc(w, "id", id);
  }
  if (tool && !mr_json_get(b, "input")) mr_jw_kraw(w, "input", MR_S("{}"));
  mr_jw_obj_end(w);
  return MR_OK;
}

static void read_usage(struct call *c, yyjson_val *u, const struct mr_model_req *r)
{
  size_t in = r->system.n + r->tools.n;
  for (int i = 0; i < r->nmessages; i++)
    in += r->messages[i].n;
  c->usage.input = mr_json_get_int(u, "input_tokens", (int64_t)(in / 4 + 1));
  c->usage.output = mr_json_get_int(u, "output_tokens", (int64_t)(c->content.n / 4 + 1));
  c->usage.cache_read = mr_json_get_int(u, "cache_read_input_tokens", 0);
  c->usage.cache_write_5m = mr_json_get_int(u, "cache_creation_input_tokens", 0);
}

static int prepare_reply(struct call *c, const struct mr_script_line *l, const struct mr_script_view *v,
                         const struct mr_model_req *r)
{
  yyjson_val *b, *details = mr_json_get(l->reply, "stop_details");
  struct mr_str why = mr_json_get_str(l->reply, "stop_reason");
  struct mr_jw w;
  size_t i, max;
  bool tools = false;
  int rc = MR_OK;
  mr_jw_init(&w, &c->content);
  mr_jw_arr(&w);
  yyjson_arr_foreach(mr_json_get(l->reply, "content"), i, max, b)
  {
    if (rc == MR_OK) rc = emit_block(c, &w, b, v);
    tools = tools || mr_str_is(mr_json_get_str(b, "type"), "tool_use");
  }
  mr_jw_arr_end(&w);
  if (why.n)
    mr_buf_str(&c->stop_reason, why);
  else
    mr_buf_c(&c->stop_reason, tools ? "tool_use" : "end_turn");
  if (yyjson_is_obj(details)) mr_json_write(&c->details, details, false);
  if (rc == MR_OK) rc = c->content.failed;
  if (rc == MR_OK) rc = mr_json_parse(c->content.mem, mr_buf_get(&c->content), CONTENT_MAX, &c->doc, NULL);
  read_usage(c, mr_json_get(l->reply, "usage"), r);
  return rc;
}

/* ---- what a line may expect ---- */

static bool has_tool(const struct call *c, struct mr_str tools, struct mr_str name)
{
  yyjson_doc *d = NULL;
  size_t i, max;
  yyjson_val *t;
  bool found = false;
  if (mr_json_parse(c->mem, tools, CONTENT_MAX, &d, NULL) != MR_OK) return false;
  yyjson_arr_foreach(yyjson_doc_get_root(d), i, max, t) found =
      found || mr_str_eq(mr_json_get_str(t, "name"), name);
  yyjson_doc_free(d);
  return found;
}

static void compare(struct call *c, yyjson_val *want, const struct mr_script_view *v,
                    const struct mr_model_req *r)
{
  struct mr_str model = mr_json_get_str(want, "model"), tool = mr_json_get_str(want, "tool");
  struct mr_str text = mr_json_get_str(want, "last_text"), last = mr_buf_get(&v->last);
  int64_t n = mr_json_get_int(want, "messages", r->nmessages);
  enum mr_model_status st = MR_MODEL_REFUSED_REQUEST;
  if (model.n && !mr_str_eq(model, r->model))
    mr_failure_set(&c->failure, st, "scripted", MR_S(""), "expected model " MR_FMT ", was asked for " MR_FMT,
                   MR_ARG(model), MR_ARG(r->model));
  else if (tool.n && !has_tool(c, r->tools, tool))
    mr_failure_set(&c->failure, st, "scripted", MR_S(""), "expected a tool " MR_FMT ", which the request lacks",
                   MR_ARG(tool));
  else if (text.n && !memmem(last.p ? last.p : "", last.n, text.p, text.n))
    mr_failure_set(&c->failure, st, "scripted", MR_S(""), "expected \"" MR_FMT "\" in the last message",
                   MR_ARG(text));
  else if (n != r->nmessages)
    mr_failure_set(&c->failure, st, "scripted", MR_S(""), "expected %d messages, got %d", (int)n, r->nmessages);
}

static void prepare(struct call *c, const struct mr_script_line *l, const struct mr_script_view *v,
                    const struct mr_model_req *r)
{
  struct mr_str last = mr_buf_get(&v->last);
  if (!l) {
    mr_failure_set(&c->failure, MR_MODEL_REFUSED_REQUEST, "scripted", MR_S(""),
                   "%s has no line left for this request (reply %d of the conversation, %d of %d "
                   "lines used); the "
                   "last message is \"%.*s\"",
                   c->s->file.path, v->replies + 1, v->used, c->s->file.n, (int)mr_utf8_cut(last, 100),
                   last.p ? last.p : "");
    return;
  }
  if (l->error) {
    struct mr_str type = mr_json_get_str(l->error, "type"), text = mr_json_get_str(l->error, "message");
    enum mr_model_status st = mr_failure_class(0, type, MR_S(""), text);
    mr_failure_set(&c->failure, st, "scripted", MR_S(""), MR_FMT "%s" MR_FMT, MR_ARG(type), text.n ? ": " : "",
                   MR_ARG(text));
    c->failure.retry_after_ms = mr_json_get_int(l->error, "retry_after_ms", 0);
    return;
  }
  compare(c, mr_json_get(l->root, "expect"), v, r);
  if (c->failure.status == MR_MODEL_OK && prepare_reply(c, l, v, r) != MR_OK)
    mr_failure_set(&c->failure, MR_MODEL_REFUSED_REQUEST, "scripted", MR_S(""),
                   "%s: a recorded reply cannot be used (too large, or its content holds no blocks)",
                   c->s->file.path);
}

/* ---- streaming it ---- */

static void call_free(struct call *c)
{
  mr_timer_cancel(c->loop, &c->timer);
  mr_buf_free(&c->content);
  mr_buf_free(&c->stop_reason);
  mr_buf_free(&c->details);
  yyjson_doc_free(c->doc);
  mr_mem_free(c->mem, c);
}

static void end(struct call *c)
{
  struct mr_model_reply r = {.status = c->failure.status, .usage = c->usage};
  if (c->cancelled) {
    r.status = MR_MODEL_CANCELLED;
    r.message = MR_S("cancelled");
  } else if (r.status == MR_MODEL_OK) {
    r.content = mr_buf_get(&c->content);
    r.stop_reason = mr_buf_get(&c->stop_reason);
    r.stop_details = mr_buf_get(&c->details);
  } else {
    r.retry_after_ms = c->failure.retry_after_ms;
    r.message = mr_str_c(c->failure.message);
  }
  c->cbs.done(c->ud, &r);
  call_free(c);
}

/* One announcement or one piece of text; false when there is no more. */
static bool piece(struct call *c)
{
  yyjson_val *b = yyjson_arr_get(yyjson_doc_get_root(c->doc), c->block);
  if (!b) return false;
  struct mr_str type = mr_json_get_str(b, "type"), text = {0};
  if (mr_str_is(type, "text")) text = mr_json_get_str(b, "text");
  if (!c->told && c->cbs.block) c->cbs.block(c->ud, (int)c->block, type);
  c->told = true;
  if (c->cancelled) return false;
  struct mr_str rest = mr_str_n(text.p + c->at, text.n - c->at);
  size_t want = text.n / (size_t)c->chunks + 1, n = mr_utf8_cut(rest, want < 4 ? 4 : want);
  if (rest.n && c->cbs.text) c->cbs.text(c->ud, (int)c->block, mr_str_n(rest.p, n));
  c->at += n;
  if (c->at < text.n && n) return true;
  c->block++;
  c->at = 0;
  c->told = false;
  return true;
}

static void step(struct mr_timer *t)
{
  struct call *c = MR_OF(t, struct call, timer);
  bool more = !c->cancelled && c->failure.status == MR_MODEL_OK && piece(c);
  if (more && !c->cancelled && mr_timer_set(c->loop, &c->timer, c->chunk_us) == MR_OK) return;
  /* Without memory for a timer the rest is not streamed; the reply itself is whole. */
  end(c);
}

static int64_t bounded(int64_t v, int64_t max)
{
  return v < 0 ? 0 : v > max ? max : v;
}

static int start(void *self, const struct mr_model_req *req, const struct mr_model_cbs *cbs, void *ud,
                 struct mr_model_call **out, struct mr_err *err)
{
  struct scripted *s = self;
  const struct mr_script_line *l = NULL;
  struct mr_script_view v;
  struct call *c = mr_mem_zalloc(&s->sys->mem, sizeof *c);
  if (!c) return mr_err_nomem(err);
  c->call = (struct mr_model_call){&mr_scripted_vtable, s};
  c->s = s;
  c->mem = &s->sys->mem;
  c->loop = s->loop;
  c->cbs = *cbs;
  c->ud = ud;
  mr_buf_init(&c->content, &s->sys->mem, CONTENT_MAX);
  mr_buf_init(&c->stop_reason, &s->sys->mem, 64);
  mr_buf_init(&c->details, &s->sys->mem, 64 << 10);
  mr_timer_init(&c->timer, step);
  int rc = mr_script_take(&s->file, req, &v, &l, err);
  if (rc != MR_OK) goto out;
  prepare(c, l, &v, req);
  yyjson_val *root = l ? l->root : NULL;
  c->chunks = (int)bounded(mr_json_get_int(root, "chunks", 8), CHUNKS_MAX);
  if (c->chunks < 1) c->chunks = 1;
  c->chunk_us = bounded(mr_json_get_int(root, "chunk_ms", 0), DELAY_MAX_MS) * 1000;
  rc = mr_timer_set(s->loop, &c->timer, bounded(mr_json_get_int(root, "delay_ms", 0), DELAY_MAX_MS) * 1000);
  if (rc != MR_OK) mr_err_set(err, rc, NULL, "no timer for a scripted reply");
out:
  mr_script_view_free(&v);
  if (rc == MR_OK)
    *out = &c->call;
  else
    call_free(c);
  return rc;
}

static void cancel(void *self, struct mr_model_call *call)
{
  struct call *c = (struct call *)(void *)call;
  struct scripted *s = self;
  if (c->cancelled) return;
  c->cancelled = true;
  mr_timer_set(s->loop, &c->timer, 0);
}

static void release(void *self)
{
  struct scripted *s = self;
  const struct mr_mem *m = &s->sys->mem;
  mr_script_free(&s->file);
  mr_mem_free(m, s);
}

int mr_scripted_new(void **self, const struct mr_provider_opts *o, struct mr_err *err)
{
  const struct mr_mem *m = &o->sys->mem;
  struct scripted *s = mr_mem_zalloc(m, sizeof *s);
  char *path = mr_mem_strdup(m, o->file);
  int rc = s && path ? MR_OK : mr_err_nomem(err);
  if (rc != MR_OK) goto out;
  s->sys = o->sys;
  s->loop = o->loop;
  rc = mr_script_load(&s->file, m, path, err);
out:
  mr_mem_free(m, path);
  if (rc == MR_OK)
    *self = s;
  else
    mr_mem_free(m, s);
  return rc;
}

const struct mr_provider_vtable mr_scripted_vtable = {"scripted", start, cancel, release};
