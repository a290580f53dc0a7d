/*
 * reply.c - the output of an exchange: JSON, errors in the API's envelope, event streams, downloads. Every
 * answer names the request (request-id) and where it was served.
 */
#include "api/api_t.h"
#include "model/pass.h"

#include <stdio.h>

enum { HEADERS_MAX = 8 };

struct head {
  struct mr_str v[HEADERS_MAX];
  int n;
  char id[64];
};

static void add(struct head *h, struct mr_str line)
{
  if (h->n < HEADERS_MAX) h->v[h->n++] = line;
}

static void head_init(struct head *h, const struct mr_exchange *q)
{
  h->n = 0;
  snprintf(h->id, sizeof h->id, "request-id: %s", q->id);
  add(h, mr_str_c(h->id));
  add(h, MR_S("anthropic-organization-id: " MR_ORGANIZATION));
  add(h, MR_S("anthropic-workspace-id: " MR_WORKSPACE));
}

void mr_exchange_count(struct mr_exchange *q, int status)
{
  q->answered = true;
  q->a->answered[status / 100 % 6]++;
}

void mr_exchange_send(struct mr_exchange *q, int status, struct mr_str json, bool replayed)
{
  char allow[sizeof q->allow + 8];
  struct head h;

  if (!q->x || q->answered) return;
  head_init(&h, q);
  add(&h, MR_S("content-type: application/json"));
  if (replayed) add(&h, MR_S("idempotent-replayed: true"));
  if (status == 409 ||
      status == 501) /* the same request would fail again: official clients retry without this */
    add(&h, MR_S("x-should-retry: false"));
  if (status == 429 || status == 503 || status == 529) add(&h, MR_S("retry-after: 1"));
  if (status == 405 && q->allow[0]) {
    snprintf(allow, sizeof allow, "allow: %s", q->allow);
    add(&h, mr_str_c(allow));
  }
  mr_exchange_count(q, status);
  mr_http_reply(q->x, status, h.v, h.n, json);
}

void mr_exchange_json(struct mr_exchange *q, int status, struct mr_str json)
{
  if (q->answered || mr_once_keep(q, status, json)) return;
  mr_exchange_send(q, status, json, false);
  mr_once_end(q);
}

static void write_error(const struct mr_exchange *q, const struct mr_err *err, struct mr_buf *b)
{
  struct mr_jw w;

  mr_jw_init(&w, b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "error");
  mr_jw_key(&w, "error");
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", err->type);
  mr_jw_kc(&w, "message", err->message);
  if (err->error_code[0] || err->field[0] || q->details.n) {
    mr_jw_key(&w, "details");
    mr_jw_obj(&w);
    if (q->details.n) mr_jw_raw(&w, q->details);
    if (err->error_code[0]) mr_jw_kc(&w, "error_code", err->error_code);
    if (err->field[0]) mr_jw_kc(&w, "field", err->field);
    mr_jw_obj_end(&w);
  }
  mr_jw_obj_end(&w);
  mr_jw_kc(&w, "request_id", q->id);
  mr_jw_obj_end(&w);
}

void mr_exchange_error(struct mr_exchange *q, const struct mr_err *err)
{
  int status = err->http_status ? err->http_status : 500;
  struct mr_buf b;

  if (q->answered || (!q->x && !q->once)) return;
  if (status >= 500 && q->x)
    mr_log(q->a->sys, MR_LOG_WARN, "api", "%s " MR_FMT " " MR_FMT ": %d %s", q->id,
           MR_ARG(mr_http_method(q->x)), MR_ARG(mr_http_path(q->x)), status, err->message);
  mr_buf_init(&b, q->a->mem, 1 << 14);
  write_error(q, err, &b);
  mr_exchange_json(q, status, mr_buf_get(&b));
  mr_buf_free(&b);
}

void mr_exchange_fail(struct mr_exchange *q, int code, const char *field, const char *fmt, ...)
{
  struct mr_err err;
  char text[sizeof err.message];
  va_list ap;

  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  mr_err_set(&err, code, field, "%s", text);
  mr_exchange_error(q, &err);
}

/* ---- event streams ---- */

/* Names that older clients let through; any other type goes out under the name "message", which all of them
 * do (API: platform, SSE). */
static bool name_known(struct mr_str type)
{
  static const char *const known[] = {"user.message",
                                      "user.interrupt",
                                      "user.tool_confirmation",
                                      "user.custom_tool_result",
                                      "user.tool_result",
                                      "user.define_outcome",
                                      "system.message",
                                      "agent.message",
                                      "agent.thinking",
                                      "agent.tool_use",
                                      "agent.tool_result",
                                      "agent.mcp_tool_use",
                                      "agent.mcp_tool_result",
                                      "agent.custom_tool_use",
                                      "agent.thread_context_compacted",
                                      "agent.thread_message_received",
                                      "agent.thread_message_sent",
                                      "agent.session_thread_message_received",
                                      "agent.session_thread_message_sent",
                                      "session.status_running",
                                      "session.status_idle",
                                      "session.status_rescheduled",
                                      "session.status_terminated",
                                      "session.error",
                                      "session.deleted",
                                      "session.updated",
                                      "session.thread_created",
                                      "session.thread_status_created",
                                      "session.thread_status_running",
                                      "session.thread_status_idle",
                                      "session.thread_status_rescheduled",
                                      "session.thread_status_terminated",
                                      "span.model_request_start",
                                      "span.model_request_end",
                                      "span.outcome_evaluation_start",
                                      "span.outcome_evaluation_ongoing",
                                      "span.outcome_evaluation_end",
                                      "event_start",
                                      "event_delta"};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (mr_str_is(type, known[i])) return true;
  return false;
}

static void on_sse_closed(void *ud, struct mr_sse *s)
{
  struct mr_exchange *q = ud;

  (void)s;
  q->sse = NULL;
  q->x = NULL;
  mr_exchange_gone(q);
  mr_exchange_unref(q);
}

static void on_sse_drained(void *ud, struct mr_sse *s)
{
  struct mr_exchange *q = ud;

  (void)s;
  if (q->call && q->call->out_drained) q->call->out_drained(q->call);
}

void mr_exchange_opened(struct mr_call *c)
{
  struct mr_exchange *q = c->face;
  struct head h;

  if (!q->x) return;
  head_init(&h, q);
  mr_exchange_count(q, 200);
  if (mr_sse_open(q->x, h.v, h.n, q->a->ping_ms, on_sse_closed, q, &q->sse) != MR_OK) {
    q->sse = NULL;
    mr_http_cut(q->x);
    return;
  }
  mr_sse_on_drained(q->sse, on_sse_drained);
  mr_http_forget(q->x);
}

int mr_exchange_event(struct mr_call *c, struct mr_str name, int64_t pos, struct mr_str json)
{
  struct mr_exchange *q = c->face;

  if (!q->sse) return MR_E_CLOSED;
  return mr_sse_event(q->sse, name_known(name) ? name : MR_S("message"), pos == INT64_MAX ? 0 : pos, json);
}

static void end_stream(struct mr_exchange *q, const struct mr_call *c)
{
  struct mr_buf b;

  if (c->code != MR_OK && c->code != MR_E_CLOSED && c->code != MR_E_CANCELLED) {
    mr_buf_init(&b, q->a->mem, 1 << 14);
    write_error(q, &c->err, &b);
    mr_sse_event(q->sse, MR_S("error"), 0, mr_buf_get(&b));
    mr_buf_free(&b);
  }
  mr_sse_end(q->sse);
}

/* ---- downloads ---- */

void mr_exchange_out_head(struct mr_call *c, struct mr_str filename, struct mr_str media_type, int64_t size)
{
  struct mr_exchange *q = c->face;
  struct head h;

  if (!q->x) return;
  head_init(&h, q);
  add(&h, mr_str_c(mr_arena_printf(c->arena, "content-type: " MR_FMT, MR_ARG(media_type))));
  /* Names hold no quotes, backslashes or control characters: files are checked when they are made. */
  add(&h, mr_str_c(mr_arena_printf(c->arena, "content-disposition: attachment; filename=\"" MR_FMT "\"",
                                   MR_ARG(filename))));
  add(&h, MR_S("x-content-type-options: nosniff"));
  q->streaming = true;
  mr_exchange_count(q, 200);
  mr_http_begin(q->x, 200, h.v, h.n, size);
}

int mr_exchange_out_bytes(struct mr_call *c, struct mr_str bytes)
{
  struct mr_exchange *q = c->face;

  return q->x ? mr_http_write(q->x, bytes) : MR_E_CLOSED;
}

void mr_exchange_drained(void *ud, struct mr_http_x *x)
{
  struct mr_exchange *q = ud;

  (void)x;
  if (q->web) mr_web_drained(q);
  if (q->pass) mr_pass_resume(q->pass);
  if (q->call && q->call->out_drained) q->call->out_drained(q->call);
}

/* ---- the end of a call ---- */

/* A stream's position came in a header: the error names that. */
static void name_header(struct mr_exchange *q, struct mr_err *err)
{
  struct mr_str text = mr_str_c(err->message);

  if (!q->resumes || strcmp(err->field, "after") != 0) return;
  text = mr_arena_str(q->arena, mr_str_n(text.p + (mr_str_starts(text, MR_S("after: ")) ? 7 : 0),
                                         text.n - (mr_str_starts(text, MR_S("after: ")) ? 7 : 0)));
  mr_err_set(err, MR_E_INVALID, "last-event-id", "last-event-id: " MR_FMT, MR_ARG(text));
}

void mr_exchange_done(struct mr_call *c)
{
  struct mr_exchange *q = c->face;

  q->call = NULL;
  if (q->sse) {
    end_stream(q, c);
  } else if (q->streaming && q->x) {
    if (c->code == MR_OK)
      mr_http_end(q->x);
    else
      mr_http_cut(q->x);
  } else if (c->code != MR_OK) {
    if (q->x) name_header(q, &c->err);
    q->details = c->details;
    mr_exchange_error(q, &c->err);
  } else {
    mr_exchange_json(q, 200, mr_buf_get(&c->out));
  }
  mr_op_call_free(&c);
  mr_exchange_unref(q);
}
