/*
 * messages.c - messages.create and messages.count_tokens for callers without HTTP (C, Lua): a request of the Messages
 * API to whoever serves its model, one JSON object in and one out. Over HTTP the body goes through as it is
 * (api/pass.c); both end in model/pass.h, with the same routes, limits and fallbacks.
 *
 * A stream has no place in one JSON object: "stream": true is refused. An upstream's error becomes the call's, with
 * its status. Loop thread.
 */
#include "agent/agent_t.h"
#include "model/pass.h"

#include <stdio.h>

enum { REPLY_MAX = 64 << 20 };

struct message_call {
  struct mr_call *c;
  struct mr_pass *pass;
  struct mr_buf body;
  int status;
};

static void on_head(void *ud, int status, const struct mr_str *lines, int n, int64_t length)
{
  struct message_call *m = ud;

  (void)lines;
  (void)n;
  (void)length;
  m->status = status;
}

static int on_data(void *ud, struct mr_str bytes)
{
  struct message_call *m = ud;
  mr_buf_str(&m->c->out, bytes);
  return MR_OK;
}

/* The codes whose HTTP status and type a client of the API would see. */
static int code_of(int status)
{
  static const int codes[] = {MR_E_INVALID,   MR_E_AUTH,  MR_E_DENIED,  MR_E_NOTFOUND,
                              MR_E_TOO_LARGE, MR_E_LIMIT, MR_E_TIMEOUT, MR_E_FULL};

  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
    if (mr_err_http_status(codes[i]) == status) return codes[i];
  return status >= 400 && status < 500 ? MR_E_INVALID : MR_E_UNAVAILABLE;
}

static int refused(struct mr_call *c, int status)
{
  yyjson_doc *doc = NULL;
  yyjson_val *e;
  int code = code_of(status);

  if (mr_json_parse(c->mem, mr_buf_get(&c->out), REPLY_MAX, &doc, NULL) != MR_OK)
    return mr_err_set(&c->err, code, NULL, "the model's service answered with HTTP %d", status);
  e = mr_json_get(yyjson_doc_get_root(doc), "error");
  mr_err_set(&c->err, code, NULL, MR_FMT, MR_ARG(mr_json_get_str(e, "message")));
  c->err.http_status = status;
  if (mr_json_get_str(e, "type").n)
    snprintf(c->err.type, sizeof c->err.type, MR_FMT, MR_ARG(mr_json_get_str(e, "type")));
  yyjson_doc_free(doc);
  return code;
}

static void on_done(void *ud, bool whole)
{
  struct message_call *m = ud;
  struct mr_call *c = m->c;
  int code = MR_OK;

  c->priv = NULL;
  c->cancel = NULL;
  if (!m->status)
    code = mr_err_set(&c->err, MR_E_CANCELLED, NULL, "cancelled");
  else if (!whole)
    code = mr_err_set(&c->err, MR_E_IO, NULL, "the answer of the model's service broke off");
  else if (m->status >= 300)
    code = refused(c, m->status);
  mr_buf_free(&m->body);
  mr_mem_free(c->mem, m);
  mr_call_done(c, code);
}

static void cancel(struct mr_call *c)
{
  struct message_call *m = c->priv;
  if (m) mr_pass_cancel(m->pass);
}

static void begin(struct mr_call *c, bool count)
{
  static const struct mr_pass_cbs cbs = {on_head, on_data, on_done};
  struct message_call *m;
  int code;

  if (yyjson_is_true(mr_json_get(c->in, "stream"))) {
    mr_call_fail(c, MR_E_INVALID, "stream",
                 "stream: only over HTTP; without it the whole message is the answer");
    return;
  }
  m = mr_mem_zalloc(c->mem, sizeof *m);
  if (!m) {
    mr_call_fail_err(c, NULL);
    return;
  }
  m->c = c;
  mr_buf_init(&m->body, c->mem, REPLY_MAX);
  mr_json_write(&m->body, c->in, false);
  struct mr_pass_req req = {.count = count, .body = mr_buf_get(&m->body), .request_id = c->who.request_id};
  code =
      m->body.failed ? mr_err_nomem(&c->err) : mr_models_pass(c->d->models, &req, &cbs, m, &m->pass, &c->err);
  if (code == MR_OK) {
    c->priv = m;
    c->cancel = cancel;
    return;
  }
  mr_buf_free(&m->body);
  mr_mem_free(c->mem, m);
  mr_call_done(c, code);
}

void mr_messages_create(struct mr_call *c)
{
  begin(c, false);
}

void mr_messages_count_tokens(struct mr_call *c)
{
  begin(c, true);
}
