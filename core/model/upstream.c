/*
 * upstream - a streaming model request over HTTP, from start to the one reply.
 *
 * Shared by the anthropic and openai providers, which lay out the request and read its frames; nothing
 * here knows either form. Retries are not made here: the turn above decides them, on the status given.
 * Invariant: done once, last, when the HTTP client is through with the request. Loop thread; the HTTP
 * client calls back from the drain.
 */
#include "model/upstream.h"

#include <stdarg.h>
#include <stdio.h>

enum { REFUSAL_MAX = 64 << 10, OWN_MAX = 64 << 20, LINGER_US = 2000 * 1000 };
enum { CONNECT_MS = 10000, FIRST_MS = 600000, STALL_MS = 120000, TOTAL_MS = 7200000 };

/* ---- settings ---- */

static int bad_key(const struct mr_provider_opts *o, const char *name, const struct mr_up_kind *k,
                   struct mr_err *err)
{
  char where[160];

  if (strcmp(name, k->name) == 0)
    snprintf(where, sizeof where, "%s", k->key_variable);
  else
    snprintf(where, sizeof where, "models.%.64s.api_key", name);
  if (mr_str_starts(o->key, MR_S("sk-mr-")))
    return mr_err_set(err, MR_E_INVALID, NULL,
                      "the key given for %s is a moonrig key (it starts with sk-mr-): clients use those to "
                      "reach this server. Set %s to the key of the upstream model service",
                      name, where);
  for (size_t i = 0; i < o->key.n; i++)
    if ((unsigned char)o->key.p[i] <= 0x20 || (unsigned char)o->key.p[i] >= 0x7f)
      return mr_err_set(err, MR_E_INVALID, NULL,
                        "the key given for %s (%s) holds a space, line end or other character that no key has",
                        name, where);
  return MR_OK;
}

static char *copy(const struct mr_mem *m, struct mr_str s, bool *failed)
{
  if (!s.n) return NULL;
  char *p = mr_mem_strdup(m, s);
  if (!p) *failed = true;
  return p;
}

/* base + tail, where a base may end in "/" or "/v1", and one without a path gets "/v1". */
static int make_url(struct mr_upstream *u, struct mr_str base, const struct mr_up_kind *k, struct mr_err *err)
{
  if (!mr_str_starts(base, MR_S("http://")) && !mr_str_starts(base, MR_S("https://")))
    return mr_err_set(err, MR_E_INVALID, "models", "models.%s.base_url must begin with http:// or https://",
                      u->name);
  while (base.n && base.p[base.n - 1] == '/')
    base.n--;
  size_t from = mr_str_starts(base, MR_S("https://")) ? 8 : 7;
  bool has_path = base.n > from && memchr(base.p + from, '/', base.n - from) != NULL;
  bool v1 = mr_str_ends(base, MR_S("/v1"));
  struct mr_buf b;
  mr_buf_init(&b, &u->sys->mem, 4096);
  mr_buf_str(&b, base);
  if (!v1 && (!has_path || k->always_v1)) mr_buf_c(&b, "/v1");
  mr_buf_c(&b, k->tail);
  int rc = b.failed;
  if (rc == MR_OK) u->url = mr_buf_take(&b, NULL);
  mr_buf_free(&b);
  return rc == MR_OK ? rc : mr_err_set(err, rc, "models", "models.%s.base_url is too long", u->name);
}

int mr_upstream_init(struct mr_upstream *u, const struct mr_provider_opts *o, const struct mr_up_kind *k,
                     struct mr_err *err)
{
  struct mr_str base = o->base_url.n ? o->base_url : mr_str_c(k->default_base);
  bool nomem = false;
  int rc;

  *u = (struct mr_upstream){.sys = o->sys, .loop = o->loop, .http = o->http};
  u->cache = o->cache;
  u->cache_1h = o->cache_1h;
  u->home = mr_str_starts(base, mr_str_c(k->default_base));
  u->connect_ms = o->connect_ms > 0 ? o->connect_ms : CONNECT_MS;
  u->first_ms = o->first_ms > 0 ? o->first_ms : FIRST_MS;
  u->stall_ms = o->stall_ms > 0 ? o->stall_ms : STALL_MS;
  u->total_ms = o->total_ms > 0 ? o->total_ms : TOTAL_MS;
  u->name = copy(&u->sys->mem, o->name.n ? o->name : mr_str_c(k->name), &nomem);
  rc = nomem ? mr_err_nomem(err) : bad_key(o, u->name, k, err);
  if (rc == MR_OK) rc = make_url(u, base, k, err);
  if (rc != MR_OK) goto out;
  u->key = copy(&u->sys->mem, o->key, &nomem);
  u->ca_file = copy(&u->sys->mem, o->ca_file, &nomem);
  if (nomem) rc = mr_err_nomem(err);
out:
  if (rc != MR_OK) mr_upstream_clear(u);
  return rc;
}

void mr_upstream_clear(struct mr_upstream *u)
{
  mr_mem_free(&u->sys->mem, u->name);
  mr_mem_free(&u->sys->mem, u->url);
  mr_mem_free(&u->sys->mem, u->key);
  mr_mem_free(&u->sys->mem, u->ca_file);
  u->name = u->url = u->key = u->ca_file = NULL;
}

/* ---- a call ---- */

static int on_frame(void *ud, struct mr_str event, struct mr_str data);
static void on_linger(struct mr_timer *t);

struct mr_up_call *mr_up_new(struct mr_upstream *u, const struct mr_provider_vtable *v,
                             const struct mr_model_cbs *cbs, void *ud, struct mr_err *err)
{
  const struct mr_mem *m = &u->sys->mem;
  struct mr_up_call *c = mr_mem_zalloc(m, sizeof *c);
  if (!c) {
    mr_err_nomem(err);
    return NULL;
  }
  c->call = (struct mr_model_call){v, u};
  c->up = u;
  c->mem = m;
  c->loop = u->loop;
  c->cbs = *cbs;
  c->ud = ud;
  mr_buf_init(&c->own, m, OWN_MAX);
  mr_buf_init(&c->refusal, m, REFUSAL_MAX);
  mr_buf_init(&c->stop_reason, m, 64);
  mr_buf_init(&c->stop_details, m, 64 << 10);
  for (int i = 0; i < MR_UP_HEADERS; i++)
    mr_buf_init(&c->header[i], m, 8192);
  mr_sse_parser_init(&c->sse, m, MR_UP_FRAME_MAX, on_frame, c);
  mr_reply_init(&c->rb, m, &c->cbs, ud);
  mr_timer_init(&c->linger, on_linger);
  return c;
}

void mr_up_drop(struct mr_up_call *c)
{
  const struct mr_mem *m = c->mem;
  mr_patience_stop(&c->patience);
  mr_timer_cancel(c->loop, &c->linger);
  mr_buf_free(&c->own);
  mr_buf_free(&c->refusal);
  mr_buf_free(&c->stop_reason);
  mr_buf_free(&c->stop_details);
  for (int i = 0; i < MR_UP_HEADERS; i++)
    mr_buf_free(&c->header[i]);
  mr_sse_parser_free(&c->sse);
  mr_reply_free(&c->rb);
  mr_mem_free(m, c->parts);
  mr_mem_free(m, c->extra);
  mr_mem_free(m, c);
}

void mr_up_header(struct mr_up_call *c, const char *fmt, ...)
{
  char line[4096];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  if (n < 0 || (size_t)n >= sizeof line || c->nheaders == MR_UP_HEADERS) {
    c->own.failed = MR_E_TOO_LARGE;
    return;
  }
  mr_buf_add(&c->header[c->nheaders++], line, (size_t)n);
}

void mr_up_part(struct mr_up_call *c, struct mr_str s)
{
  if (!s.n) return;
  if (c->nparts == c->parts_cap) {
    int cap = c->parts_cap ? c->parts_cap * 2 : 64;
    void *p = mr_mem_realloc(c->mem, c->parts, (size_t)cap * sizeof *c->parts);
    if (!p) {
      c->own.failed = MR_E_NOMEM;
      return;
    }
    c->parts = p;
    c->parts_cap = cap;
  }
  c->parts[c->nparts++] = s;
}

/* ---- failures ---- */

static struct mr_str key_of(const struct mr_up_call *c)
{
  return mr_str_c(c->up->key);
}

int mr_up_fail(struct mr_up_call *c, enum mr_model_status st, const char *fmt, ...)
{
  char text[1024];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  mr_failure_set(&c->failure, st, c->up->name, key_of(c), "%s", text);
  return MR_E_PROTOCOL;
}

int mr_up_fail_from(struct mr_up_call *c, yyjson_val *holder)
{
  struct mr_buf b;
  mr_buf_init(&b, c->mem, REFUSAL_MAX);
  mr_json_write(&b, holder, false);
  mr_failure_from(&c->failure, c->mem, c->up->name, key_of(c), 0, mr_buf_get(&b));
  mr_buf_free(&b);
  return MR_E_PROTOCOL;
}

int mr_up_gather(struct mr_up_call *c, int rc)
{
  if (rc == MR_OK) return rc;
  if (rc == MR_E_TOO_LARGE)
    return mr_up_fail(c, MR_MODEL_FAILED, "the reply is larger than %d MiB or has more than %d blocks",
                      MR_REPLY_MAX >> 20, MR_REPLY_BLOCKS);
  if (rc == MR_E_NOMEM) return mr_up_fail(c, MR_MODEL_FAILED, "out of memory for the reply");
  return mr_up_fail(c, MR_MODEL_FAILED, "the stream broke its protocol: a delta that does not fit its block");
}

/* ---- the stream ---- */

static int on_frame(void *ud, struct mr_str event, struct mr_str data)
{
  struct mr_up_call *c = ud;
  if (c->cancelled) return MR_E_CANCELLED;
  if (c->finished) return MR_OK;
  if (!mr_str_is(event, "ping")) mr_patience_word(&c->patience);
  if (mr_str_is(data, "[DONE]")) return c->frame(c, event, NULL);
  yyjson_doc *doc = NULL;
  int rc = mr_json_parse(c->mem, data, MR_UP_FRAME_MAX, &doc, NULL);
  if (rc != MR_OK) return mr_up_fail(c, MR_MODEL_FAILED, "the stream holds a frame that is no JSON");
  rc = c->frame(c, event, yyjson_doc_get_root(doc));
  yyjson_doc_free(doc);
  /* The callback may have cancelled: nothing may be called after that but done. */
  if (rc == MR_OK && c->cancelled) rc = MR_E_CANCELLED;
  return rc;
}

void mr_up_finish(struct mr_up_call *c)
{
  c->complete = c->finished = true;
  mr_patience_stop(&c->patience);
  mr_timer_set(c->loop, &c->linger, LINGER_US);
}

/* The reply is whole, but the server keeps the response open: do not wait for its end. */
static void on_linger(struct mr_timer *t)
{
  struct mr_up_call *c = MR_OF(t, struct mr_up_call, linger);
  if (c->out) mr_http_out_cancel(c->out);
}

static void on_late(struct mr_patience *p)
{
  struct mr_up_call *c = MR_OF(p, struct mr_up_call, patience);
  c->timed_out = true;
  if (c->out) mr_http_out_cancel(c->out);
}

static void on_head(void *ud, struct mr_http_out *r, int status, struct mr_str headers)
{
  struct mr_up_call *c = ud;
  (void)r;
  mr_patience_byte(&c->patience);
  c->status = status;
  c->wait_ms = mr_failure_wait(headers, mr_loop_wall_us(c->loop));
  struct mr_str type = mr_http_header(headers, "content-type");
  struct mr_str main = mr_str_trim(mr_str_split(&type, ';'));
  c->streaming = status == 200 && mr_str_ieq(main, MR_S("text/event-stream"));
}

static int on_data(void *ud, struct mr_http_out *r, struct mr_str bytes)
{
  struct mr_up_call *c = ud;
  (void)r;
  if (c->cancelled) return MR_E_CANCELLED;
  mr_patience_byte(&c->patience);
  if (!c->streaming) {
    size_t room = REFUSAL_MAX - c->refusal.n;
    mr_buf_add(&c->refusal, bytes.p, bytes.n < room ? bytes.n : room);
    return MR_OK;
  }
  int rc = mr_sse_parser_feed(&c->sse, bytes);
  if (rc == MR_E_TOO_LARGE || rc == MR_E_NOMEM) mr_up_gather(c, rc);
  return rc;
}

/* Why a request ended without a whole reply. */
static void judge(struct mr_up_call *c, const struct mr_http_out_done *d)
{
  const char *why = d->err && d->err->message[0] ? d->err->message : mr_strerror(d->code);
  if (c->failure.status != MR_MODEL_OK) return;
  if (c->status && c->status != 200)
    mr_failure_from(&c->failure, c->mem, c->up->name, key_of(c), c->status, mr_buf_get(&c->refusal));
  else if (d->code == MR_E_CLOSED)
    mr_up_fail(c, MR_MODEL_FAILED, "the runtime is closing");
  else if (c->timed_out && mr_patience_stalled(&c->patience))
    mr_up_fail(c, MR_MODEL_FAILED, "the stream stalled: no byte for %d s (stall_ms)",
               (int)(c->up->stall_ms / 1000));
  else if (c->timed_out)
    mr_up_fail(c, MR_MODEL_FAILED, "no word of the model for %d s (first_ms)", (int)(c->up->first_ms / 1000));
  else if (d->code == MR_E_TIMEOUT && c->status)
    mr_up_fail(c, MR_MODEL_FAILED, "the reply was not whole after %d s (total_ms)",
               (int)(c->up->total_ms / 1000));
  else if (c->status == 200 && !c->streaming)
    mr_up_fail(c, MR_MODEL_FAILED, "HTTP 200, but no event stream; is base_url right?");
  else if (c->status == 200)
    mr_up_fail(c, MR_MODEL_FAILED, "the stream was cut before its end%s%s", d->code ? ": " : "",
               d->code ? why : "");
  else
    mr_up_fail(c, MR_MODEL_FAILED, "no answer: %s", why);
}

/* Content of a whole reply into out; a failure is noted in c. */
static void settle(struct mr_up_call *c, struct mr_buf *out)
{
  if (!c->stop_reason.n) mr_buf_c(&c->stop_reason, mr_reply_has_tools(&c->rb) ? "tool_use" : "end_turn");
  struct mr_str why = mr_buf_get(&c->stop_reason);
  bool cut = mr_str_is(why, "max_tokens") || mr_str_is(why, "refusal") ||
             mr_str_is(why, "model_context_window_exceeded");
  int rc = mr_reply_write(&c->rb, cut, out);
  if (rc != MR_OK) mr_up_gather(c, rc);
}

static void on_done(void *ud, struct mr_http_out *r, const struct mr_http_out_done *d)
{
  struct mr_up_call *c = ud;
  (void)r;
  c->out = NULL;
  mr_patience_stop(&c->patience);
  struct mr_buf content;
  mr_buf_init(&content, c->mem, (size_t)MR_REPLY_MAX * 2);
  struct mr_model_reply reply = {.usage = c->usage};
  if (c->cancelled) {
    reply.status = MR_MODEL_CANCELLED;
    reply.message = MR_S("cancelled");
  } else {
    /* Whole without a last word is enough only when the response ended in order. */
    bool whole = c->finished || (c->complete && d->code == MR_OK);
    if (whole && c->failure.status == MR_MODEL_OK)
      settle(c, &content);
    else
      judge(c, d);
    reply.status = c->failure.status;
    reply.message = mr_str_c(c->failure.message);
  }
  if (reply.status == MR_MODEL_OK) {
    reply.content = mr_buf_get(&content);
    reply.stop_reason = mr_buf_get(&c->stop_reason);
    reply.stop_details = mr_buf_get(&c->stop_details);
  } else if (reply.status != MR_MODEL_CANCELLED) {
    reply.retry_after_ms = c->failure.retry_after_ms ? c->failure.retry_after_ms : c->wait_ms;
  }
  c->cbs.done(c->ud, &reply);
  mr_buf_free(&content);
  mr_up_drop(c);
}

int mr_up_start(struct mr_up_call *c, struct mr_err *err)
{
  static const struct mr_http_out_cbs cbs = {on_head, on_data, on_done};
  struct mr_str lines[MR_UP_HEADERS];
  int rc = c->own.failed;
  for (int i = 0; i < c->nheaders; i++) {
    lines[i] = mr_buf_get(&c->header[i]);
    if (c->header[i].failed) rc = c->header[i].failed;
  }
  if (rc == MR_E_NOMEM)
    rc = mr_err_nomem(err);
  else if (rc != MR_OK)
    rc = mr_err_set(err, rc, NULL, "the request to %s is too large", c->up->name);
  if (rc != MR_OK) goto out;
  struct mr_http_out_req req = {
      .method = "POST",
      .url = c->up->url,
      .headers = lines,
      .nheaders = c->nheaders,
      .body = c->parts,
      .nbody = c->nparts,
      .ca_file = c->up->ca_file,
      .connect_timeout_ms = c->up->connect_ms,
      .timeout_ms = c->up->total_ms,
  };
  rc = mr_patience_start(&c->patience, c->loop, c->up->first_ms, c->up->stall_ms, on_late);
  if (rc != MR_OK) {
    mr_err_nomem(err);
    goto out;
  }
  rc = mr_http_out_start(c->up->http, &req, &cbs, c, &c->out, err);
out:
  if (rc != MR_OK) mr_up_drop(c);
  return rc;
}

void mr_up_cancel(void *self, struct mr_model_call *call)
{
  struct mr_up_call *c = (struct mr_up_call *)(void *)call;
  (void)self;
  if (c->cancelled) return;
  c->cancelled = true;
  if (c->out) mr_http_out_cancel(c->out);
}
