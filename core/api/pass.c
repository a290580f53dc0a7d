/*
 * pass.c - POST /v1/messages and /v1/messages/count_tokens: the body, once it is whole and its key was checked, goes
 * to whoever serves the model (model/pass.h), and the answer comes back as it is: status, what a client can use of the
 * head, and bytes as they come, read no faster than the client takes them.
 *
 * The upstream's request id is the one in its errors, so it is the answer's, when there is one; ours is beside it.
 * Invariant: the exchange, and with it the body, lives until the request is over. Loop thread.
 */
#include "api/api_t.h"
#include "model/pass.h"

#include <stdio.h>

enum { OURS = 3 }; /* head lines that are added here */

static void on_head(void *ud, int status, const struct mr_str *lines, int n, int64_t length)
{
  struct mr_exchange *q = ud;
  struct mr_str v[MR_PASS_LINES + OURS];
  char ours[80];
  bool theirs = false;
  int k = 0;

  if (!q->x || q->answered) return;
  for (int i = 0; i < n; i++) {
    theirs = theirs || mr_str_starts(lines[i], MR_S("request-id:"));
    v[k++] = lines[i];
  }
  snprintf(ours, sizeof ours, "%srequest-id: %s", theirs ? "moonrig-" : "", q->id);
  v[k++] = mr_str_c(ours);
  v[k++] = MR_S("anthropic-organization-id: " MR_ORGANIZATION);
  v[k++] = MR_S("anthropic-workspace-id: " MR_WORKSPACE);
  mr_exchange_count(q, status);
  mr_http_begin(q->x, status, v, k, length);
}

static int on_data(void *ud, struct mr_str bytes)
{
  struct mr_exchange *q = ud;
  return q->x ? mr_http_write(q->x, bytes) : MR_OK;
}

static void on_done(void *ud, bool whole)
{
  struct mr_exchange *q = ud;

  q->pass = NULL;
  if (q->x && q->answered && whole)
    mr_http_end(q->x);
  else if (q->x && q->answered)
    mr_http_cut(q->x);
  else if (q->x)
    mr_exchange_fail(q, MR_E_CLOSED, NULL, "the request was given up");
  mr_buf_free(&q->body);
  mr_exchange_unref(q);
}

void mr_exchange_pass(struct mr_exchange *q)
{
  static const struct mr_pass_cbs cbs = {on_head, on_data, on_done};
  struct mr_pass_req req = {.count = strcmp(q->op->name, "messages.count_tokens") == 0,
                            .beta = mr_str_is(mr_http_query(q->x), "beta=true"),
                            .body = mr_buf_get(&q->body),
                            .version = mr_http_req_header(q->x, "anthropic-version"),
                            .betas = mr_http_req_header(q->x, "anthropic-beta"),
                            .request_id = mr_str_c(q->id)};
  struct mr_err err = {0};

  q->refs++;
  if (mr_models_pass(q->a->o.models, &req, &cbs, q, &q->pass, &err) == MR_OK) return;
  mr_exchange_error(q, &err);
  mr_exchange_unref(q);
}
