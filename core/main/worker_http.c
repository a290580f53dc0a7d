/*
 * worker_http.c - one request of the worker, on the loop: JSON out and in, or a stream. A request that was dropped
 * lives on until libcurl has let go of it, and says nothing more.
 */
#include "main/worker_t.h"

#include <stdlib.h>

#include "base/buf.h"
#include "main/client.h"

enum { ANSWER_MAX = 1 << 20, RETRY_AFTER_MAX = 60 };

struct ask {
  struct worker *w;
  struct ask **slot; /* NULL: dropped, or over */
  struct mr_http_out *out;
  answer_fn fn;
  void (*opened)(void *ud);
  int (*bytes)(void *ud, struct mr_str bytes);
  void *ud;
  struct mr_buf url, text[4], body, reply;
  struct mr_str headers[6], part;
  int status;
  int64_t retry_us;
  struct mr_ready unsent;
  struct mr_err err;
};

static bool good(int status)
{
  return status >= 200 && status < 300;
}

static void ask_free(struct ask *a)
{
  mr_ready_cancel(a->w->loop, &a->unsent);
  mr_buf_free(&a->url);
  for (size_t i = 0; i < sizeof a->text / sizeof *a->text; i++)
    mr_buf_free(&a->text[i]);
  mr_buf_free(&a->body);
  mr_buf_free(&a->reply);
  mr_mem_free(a->w->mem, a);
}

/* ---- the answer ---- */

static void explain(struct answer *r, const struct ask *a, yyjson_val *json, char out[600])
{
  struct mr_str message = mr_json_get_str(mr_json_get(json, "error"), "message");

  if (!message.n && a->reply.n < 300) message = mr_buf_get(&a->reply);
  snprintf(out, 600, "the server answered %d%s%.*s", a->status, message.n ? ": " : "",
           (int)mr_utf8_cut(message, 400), message.n ? message.p : "");
  r->why = out;
}

static void tell(struct ask *a, int code, const struct mr_err *err)
{
  struct answer r = {.status = code == MR_OK ? a->status : 0, .retry_us = a->retry_us};
  yyjson_doc *doc = NULL;
  struct mr_err bad = {0};
  char why[600];

  if (!a->slot) return;
  *a->slot = NULL;
  if (code == MR_OK && a->reply.n &&
      mr_json_parse(a->w->mem, mr_buf_get(&a->reply), a->reply.max, &doc, &bad) && good(a->status)) {
    r.status = 0;
    err = &bad;
  }
  r.json = yyjson_doc_get_root(doc);
  r.ok = good(r.status);
  r.fatal = r.status >= 400 && r.status < 500 && r.status != 408 && r.status != 409 && r.status != 429;
  r.too_large = code == MR_E_TOO_LARGE;
  if (r.status == 0)
    r.why = err && err->message[0] ? err->message : mr_strerror(code);
  else if (!r.ok)
    explain(&r, a, r.json, why);
  a->fn(a->ud, &r);
  yyjson_doc_free(doc);
}

static void on_head(void *ud, struct mr_http_out *out, int status, struct mr_str headers)
{
  struct ask *a = ud;
  struct mr_str after = mr_http_header(headers, "retry-after");
  int64_t s;

  (void)out;
  a->status = status;
  if (after.n && mr_str_int(after, &s) == MR_OK && s > 0)
    a->retry_us = (s < RETRY_AFTER_MAX ? s : RETRY_AFTER_MAX) * WORKER_SECOND;
  if (a->slot && a->bytes && good(status)) a->opened(a->ud);
}

static int on_data(void *ud, struct mr_http_out *out, struct mr_str bytes)
{
  struct ask *a = ud;

  (void)out;
  if (!a->slot) return MR_E_CANCELLED;
  if (a->bytes && good(a->status)) return a->bytes(a->ud, bytes) ? MR_E_CANCELLED : MR_OK;
  mr_buf_str(&a->reply, bytes);
  return a->reply.failed;
}

static void on_done(void *ud, struct mr_http_out *out, const struct mr_http_out_done *d)
{
  struct ask *a = ud;

  (void)out;
  tell(a, d->code, d->err);
  ask_free(a);
}

static void on_unsent(struct mr_ready *r)
{
  struct ask *a = MR_OF(r, struct ask, unsent);

  tell(a, a->err.code ? a->err.code : MR_E_NOMEM, &a->err);
  ask_free(a);
}

/* ---- the request ---- */

static void header(struct ask *a, struct mr_http_out_req *q, int i, const char *name, const char *value)
{
  mr_buf_printf(&a->text[i], "%s: %s", name, value);
  a->headers[q->nheaders++] = mr_buf_get(&a->text[i]);
}

void mr_worker_ask(struct worker *w, struct ask **slot, const struct question *q, answer_fn fn, void *ud)
{
  static const struct mr_http_out_cbs cbs = {.head = on_head, .data = on_data, .done = on_done};
  struct ask *a = mr_worker_zalloc(w, sizeof *a);
  struct mr_http_out_req r = {.method = q->verb,
                              .headers = a->headers,
                              .unix_path = w->unix_path,
                              .timeout_ms = q->timeout_us / 1000,
                              .stall_ms = q->stall_us / 1000};
  char bearer[4200];

  *a = (struct ask){.w = w, .slot = slot, .fn = fn, .opened = q->opened, .bytes = q->bytes, .ud = ud};
  mr_buf_init(&a->url, w->mem, 1 << 16);
  for (size_t i = 0; i < sizeof a->text / sizeof *a->text; i++)
    mr_buf_init(&a->text[i], w->mem, 1 << 13);
  mr_buf_init(&a->body, w->mem, 64 << 20);
  mr_buf_init(&a->reply, w->mem, q->max ? q->max : ANSWER_MAX);
  mr_ready_init(&a->unsent, on_unsent);
  mr_buf_printf(&a->url, "%s%s", w->url, q->path);
  mr_buf_str(&a->body, q->body);
  snprintf(bearer, sizeof bearer, "Bearer %s", q->key);
  header(a, &r, 0, "authorization", bearer);
  header(a, &r, 1, "user-agent", "moonrig-worker/" MR_VERSION);
  if (q->worker_id) header(a, &r, 2, "anthropic-worker-id", q->worker_id);
  a->headers[r.nheaders++] = MR_S("anthropic-version: 2026-10-21");
  a->headers[r.nheaders++] = MR_S("anthropic-beta: " CLIENT_BETA);
  if (q->body.p) {
    a->headers[r.nheaders++] = MR_S("content-type: application/json");
    a->part = mr_buf_get(&a->body);
    r.body = &a->part;
    r.nbody = 1;
  }
  r.url = a->url.p;
  *slot = a;
  if (a->url.failed || a->body.failed)
    mr_err_set(&a->err, a->body.failed ? a->body.failed : a->url.failed, NULL, "a request that is too large");
  if (a->err.code || mr_http_out_start(w->http, &r, &cbs, a, &a->out, &a->err) != MR_OK)
    mr_ready_post(w->loop, &a->unsent);
}

void mr_worker_drop(struct ask **slot)
{
  struct ask *a = *slot;

  if (!a) return;
  *slot = NULL;
  a->slot = NULL;
  if (a->out)
    mr_http_out_cancel(a->out);
  else
    ask_free(a);
}

void mr_worker_pause(struct ask *a, bool pause)
{
  if (a && a->out) mr_http_out_pause(a->out, pause);
}

/* ---- when to try again ---- */

int64_t mr_worker_random(struct worker *w, int64_t from, int64_t to)
{
  uint64_t r = 0;

  w->sys.random(w->sys.ud, &r, sizeof r);
  return from + (int64_t)(r % (uint64_t)(to - from + 1));
}

int64_t mr_worker_backoff(struct worker *w, int failures, int64_t first_us, int64_t cap_us,
                          const struct answer *a)
{
  int64_t us = first_us;

  for (int i = 1; i < failures && us < cap_us; i++)
    us *= 2;
  if (us > cap_us) us = cap_us;
  us = mr_worker_random(w, us * 3 / 4, us * 5 / 4);
  return a && a->retry_us > us ? a->retry_us : us;
}
