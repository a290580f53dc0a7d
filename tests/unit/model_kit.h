/*
 * model_kit - for tests of core/model without a network: a transport that stands in for the HTTP client
 * (the test plays the server by calling fake_head, fake_data, fake_end), and a listener that writes down
 * what a provider calls.
 */
#ifndef MR_TEST_MODEL_KIT_H
#define MR_TEST_MODEL_KIT_H

#include "kit.h"
#include "base/buf.h"
#include "base/err.h"
#include "model/model.h"

struct mr_http_out {
  struct mr_http_out_cbs cbs;
  void *ud;
  bool cancelled, ended;
  char url[256];
  struct mr_buf headers, body; /* as sent */
};

static struct mr_http_out *fake; /* the newest request */
static int fake_refuse;          /* start fails with this */

int mr_http_client_new(struct mr_http_client **out, struct mr_loop *l, const char *ca,
                       struct mr_err *err)
{
  *out = NULL;
  return MR_OK;
}
void mr_http_client_free(struct mr_http_client **c)
{
  *c = NULL;
}
void mr_http_out_pause(struct mr_http_out *r, bool pause)
{
}
void mr_http_out_cancel(struct mr_http_out *r)
{
  r->cancelled = true;
}

struct mr_str mr_http_header(struct mr_str h, const char *name)
{
  while (h.n) {
    struct mr_str line = mr_str_split(&h, '\n'), k = mr_str_split(&line, ':');
    if (mr_str_is(k, name)) return mr_str_trim(line);
  }
  return (struct mr_str){0};
}

int mr_http_out_start(struct mr_http_client *c, const struct mr_http_out_req *q,
                      const struct mr_http_out_cbs *cbs, void *ud, struct mr_http_out **out,
                      struct mr_err *err)
{
  static struct mr_mem plain;
  mr_mem_init(&plain, NULL, NULL);
  if (fake_refuse) return mr_err_set(err, fake_refuse, NULL, "refused by the test");
  struct mr_http_out *r = mr_mem_zalloc(&plain, sizeof *r);
  r->cbs = *cbs;
  r->ud = ud;
  snprintf(r->url, sizeof r->url, "%s", q->url);
  mr_buf_init(&r->headers, &plain, 1 << 16);
  mr_buf_init(&r->body, &plain, 1 << 28);
  for (int i = 0; i < q->nheaders; i++) {
    mr_buf_str(&r->headers, q->headers[i]);
    mr_buf_char(&r->headers, '\n');
  }
  for (int i = 0; i < q->nbody; i++)
    mr_buf_str(&r->body, q->body[i]);
  fake = *out = r;
  return MR_OK;
}

/* ---- the test as server */

static inline void fake_head(int status, const char *headers)
{
  fake->cbs.head(fake->ud, fake, status, mr_str_c(headers));
}

static inline int fake_bytes(const char *p, size_t n)
{
  return fake->cancelled ? MR_E_CANCELLED : fake->cbs.data(fake->ud, fake, mr_str_n(p, n));
}

/* The response is over with this code; frees the request. */
static inline void fake_end(int code)
{
  struct mr_err err = {.size = sizeof err};
  struct mr_http_out *r = fake;
  if (code) mr_err_set(&err, code, NULL, "transport says no");
  struct mr_http_out_done d = {code, 0, code ? &err : NULL};
  fake = NULL;
  r->cbs.done(r->ud, r, &d);
  mr_buf_free(&r->headers);
  mr_buf_free(&r->body);
  mr_mem_free(r->body.mem, r);
}

/* Data, then the end: of the response, or what data returned. */
static inline void fake_rest(const char *s)
{
  int rc = fake_bytes(s, strlen(s));
  fake_end(rc);
}

/* ---- what the provider called */

struct heard {
  struct mr_buf log;   /* "block 0 text\n", "text 0 hello\n" */
  struct mr_buf texts; /* all text deltas, joined */
  struct mr_buf content, stop_reason, stop_details, message;
  enum mr_model_status status;
  struct mr_usage usage;
  int64_t retry_after_ms;
  int done;
  struct mr_model_call *call;
  int cancel_at; /* cancels itself at the n-th text, when > 0 */
};

static inline void heard_init(struct heard *h)
{
  static struct mr_mem plain;
  mr_mem_init(&plain, NULL, NULL);
  *h = (struct heard){0};
  struct mr_buf *all[] = {&h->log,         &h->texts,        &h->content,
                          &h->stop_reason, &h->stop_details, &h->message};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    mr_buf_init(all[i], &plain, 1 << 28);
}

static inline void heard_free(struct heard *h)
{
  struct mr_buf *all[] = {&h->log,         &h->texts,        &h->content,
                          &h->stop_reason, &h->stop_details, &h->message};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    mr_buf_free(all[i]);
}

static inline void h_block(void *ud, int index, struct mr_str kind)
{
  struct heard *h = ud;
  CHECK(!h->done);
  mr_buf_printf(&h->log, "block %d " MR_FMT "\n", index, MR_ARG(kind));
}

static inline void h_text(void *ud, int index, struct mr_str delta)
{
  struct heard *h = ud;
  CHECK(!h->done);
  mr_buf_printf(&h->log, "text %d " MR_FMT "\n", index, MR_ARG(delta));
  mr_buf_str(&h->texts, delta);
  if (h->cancel_at && --h->cancel_at == 0) mr_models_cancel(h->call);
}

static inline void h_done(void *ud, const struct mr_model_reply *r)
{
  struct heard *h = ud;
  CHECK_INT(h->done, 0);
  h->done = 1;
  h->status = r->status;
  h->usage = r->usage;
  h->retry_after_ms = r->retry_after_ms;
  mr_buf_str(&h->content, r->content);
  mr_buf_str(&h->stop_reason, r->stop_reason);
  mr_buf_str(&h->stop_details, r->stop_details);
  mr_buf_str(&h->message, r->message);
}

static const struct mr_model_cbs heard_cbs = {h_block, h_text, h_done};

/* ---- a router */

struct bench {
  struct mr_loop *loop;
  struct mr_models *models;
  struct mr_err err;
};

static inline void bench_open(struct bench *b, const char *config, const char *anthropic_key,
                              const char *openai_key)
{
  b->err = (struct mr_err){.size = sizeof b->err};
  CHECK_INT(mr_loop_new(&b->loop, test_sys(), NULL, &b->err), MR_OK);
  mr_loop_enter(b->loop);
  struct mr_models_opts o = {.sys = test_sys(),
                             .loop = b->loop,
                             .config = mr_str_c(config),
                             .anthropic_key = anthropic_key,
                             .openai_key = openai_key};
  CHECK_INT(mr_models_new(&b->models, &o, &b->err), MR_OK);
}

static inline void bench_close(struct bench *b)
{
  mr_models_free(&b->models);
  mr_loop_free(&b->loop);
  CHECK_INT(test_allocs(), 0);
}

static inline int ask(struct bench *b, struct heard *h, const char *model,
                      const struct mr_str *messages, int n)
{
  struct mr_model_req r = {.model = mr_str_c(model), .messages = messages, .nmessages = n};
  return mr_models_start(b->models, &r, &heard_cbs, h, &h->call, &b->err);
}

#define HI "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}"
static const struct mr_str hi = {HI, sizeof HI - 1};

#endif
