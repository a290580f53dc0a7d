/*
 * request.c - the input of an exchange: JSON bodies, multipart uploads, queries; starts the operation once it
 * has what that needs. Bytes that come before the key is known wait, and the connection with them.
 */
#include "api/api_t.h"
#include "model/pass.h"
#include "net/url.h"

#include <stdio.h>

enum { LAST_MAX = 100 }; /* of last-event-id: longer ones are wrong anyway */
enum { WORKER_MAX = 255 };

static void on_in_drained(struct mr_call *c)
{
  struct mr_exchange *q = c->face;

  if (q->paused && q->x) {
    q->paused = false;
    mr_http_body_resume(q->x);
  }
}

static struct mr_call *call_new(struct mr_exchange *q)
{
  struct mr_call *c = mr_op_call_new(q->a->o.domain, q->a->mem);

  if (!c) {
    mr_exchange_fail(q, MR_E_NOMEM, NULL, "out of memory");
    return NULL;
  }
  c->who = (struct mr_origin){.workspace = q->by.workspace,
                              .key_id = mr_arena_str(c->arena, q->by.key_id),
                              .request_id = mr_arena_str(c->arena, mr_str_c(q->id)),
                              .trace = mr_arena_str(c->arena, mr_http_req_header(q->x, "traceparent")),
                              .last = q->once ? mr_once_with_effect : NULL,
                              .ud = q};
  c->by = q->by;
  c->by.key_id = c->who.key_id;
  c->by.environment_id = mr_arena_str(c->arena, q->by.environment_id);
  c->by.session_id = mr_arena_str(c->arena, q->by.session_id);
  if (c->who.trace.n > 128) c->who.trace.n = 0;
  for (int i = 0; i < MR_PATH_MAX; i++)
    c->path[i] = q->params[i].n ? mr_arena_str(c->arena, q->params[i]) : q->params[i];
  c->strict = q->a->strict;
  c->face = q;
  c->done = mr_exchange_done;
  c->event = mr_exchange_event;
  c->opened = mr_exchange_opened;
  c->out_head = mr_exchange_out_head;
  c->out_bytes = mr_exchange_out_bytes;
  c->in_drained = on_in_drained;
  return c;
}

static void start(struct mr_exchange *q, struct mr_call *c)
{
  q->call = c;
  q->refs++;
  mr_op_start(c, q->op);
}

/* ---- reading and deleting: the query ---- */

static void start_query(struct mr_exchange *q)
{
  struct mr_str query = mr_http_query(q->x), last = mr_str_trim(mr_http_req_header(q->x, "last-event-id"));
  struct mr_str worker = mr_str_trim(mr_http_req_header(q->x, "anthropic-worker-id"));
  struct mr_call *c = call_new(q);
  struct mr_err err;

  if (!c) return;
  if (q->op->kind == MR_OP_EVENTS && last.n) { /* over "after" of the query: it is the newer one */
    last = mr_url_encode(c->arena, mr_str_n(last.p, last.n > LAST_MAX ? LAST_MAX : last.n));
    query = mr_str_c(mr_arena_printf(c->arena, "after=" MR_FMT "&" MR_FMT, MR_ARG(last), MR_ARG(query)));
    q->resumes = true;
  }
  if (worker.n && strcmp(q->op->name, "environments.work.poll") == 0) {
    worker = mr_url_encode(c->arena, mr_str_n(worker.p, worker.n > WORKER_MAX ? WORKER_MAX : worker.n));
    query = mr_str_c(mr_arena_printf(c->arena, "worker_id=" MR_FMT "&" MR_FMT, MR_ARG(worker), MR_ARG(query)));
  }
  if (mr_op_query(c, q->op, query, &err) != MR_OK) {
    mr_exchange_error(q, &err);
    mr_op_call_free(&c);
    return;
  }
  start(q, c);
}

/* ---- JSON bodies ---- */

static void control_done(void *ud, int code, struct mr_str json)
{
  struct mr_exchange *q = ud;

  if (q->x && code == MR_OK) {
    mr_exchange_json(q, 200, json);
  } else if (q->x) { /* the scripts say what went wrong in "error" */
    yyjson_doc *doc = yyjson_read(json.p ? json.p : "", json.n, 0);
    struct mr_str why = mr_json_get_str(yyjson_doc_get_root(doc), "error");
    mr_exchange_fail(q, code, NULL, MR_FMT, MR_ARG(why.n ? why : mr_str_c(mr_strerror(code))));
    yyjson_doc_free(doc);
  }
  mr_exchange_unref(q);
}

static void start_control(struct mr_exchange *q, yyjson_doc *doc)
{
  yyjson_val *arg = yyjson_doc_get_root(doc);
  struct mr_str command = mr_json_get_str(arg, "command");
  int code = MR_E_UNSUPPORTED;

  if (!command.n) {
    mr_exchange_fail(q, MR_E_INVALID, "command", "command: required, for example \"status\"");
    return;
  }
  q->refs++;
  if (q->a->o.control) code = q->a->o.control(q->a->o.ud, command, arg, control_done, q);
  if (code != MR_OK) {
    mr_exchange_fail(q, code, "command",
                     code == MR_E_UNSUPPORTED ? "this server runs no scripts"
                                              : "the scripts did not take the command");
    mr_exchange_unref(q);
  }
}

static void start_json(struct mr_exchange *q)
{
  struct mr_call *c;
  yyjson_doc *doc = NULL;
  struct mr_err err;

  if (q->body.failed || mr_http_body_over(q->x)) {
    struct mr_err e;
    mr_err_set(&e, MR_E_TOO_LARGE, NULL, "the body is over the limit of %lld bytes", (long long)q->a->body_max);
    mr_exchange_error(q, &e);
    return;
  }
  mr_once_piece(q, mr_buf_get(&q->body));
  if (mr_once_body(q)) return;
  if (q->op && (q->op->flags & MR_OP_PASS)) {
    mr_exchange_pass(q);
    return;
  }
  if (q->body.n > 0 && mr_json_parse(q->a->mem, mr_buf_get(&q->body), SIZE_MAX, &doc, &err) != MR_OK) {
    mr_exchange_fail(q, err.code, NULL, "the request body is not valid JSON: %s", err.message);
    return;
  }
  mr_buf_free(&q->body);
  if (!q->op) {
    start_control(q, doc);
    yyjson_doc_free(doc);
    return;
  }
  if (!doc && (q->op->flags & MR_OP_QUERY)) {
    start_query(q);
    return;
  }
  c = call_new(q);
  if (!c) {
    yyjson_doc_free(doc);
    return;
  }
  if (doc) mr_op_input(c, doc);
  start(q, c);
}

/* ---- uploads ---- */

static void add_field(struct mr_exchange *q, const char *name, struct mr_str value)
{
  struct mr_str enc = mr_url_encode(q->arena, value);
  mr_buf_printf(&q->fields, "%s%s=" MR_FMT, q->fields.n ? "&" : "", name, MR_ARG(enc));
}

static int on_part(void *ud, struct mr_str name, struct mr_str filename, struct mr_str type)
{
  struct mr_exchange *q = ud;
  struct mr_err err;

  mr_buf_reset(&q->value);
  mr_once_part(q, name);
  mr_once_part(q, filename);
  mr_once_part(q, type);
  q->part_n = 0;
  q->in_file = mr_str_is(name, "file");
  if (!q->in_file) {
    mr_buf_printf(&q->value, MR_FMT, MR_ARG(name));
    mr_buf_char(&q->value, '=');
    return MR_OK;
  }
  if (q->file_seen) {
    mr_exchange_fail(q, MR_E_INVALID, "file", "file: only one per request");
    return MR_E_INVALID;
  }
  q->file_seen = true;
  add_field(q, "filename", filename);
  if (type.n) add_field(q, "media_type", type);
  if (mr_once_found(q)) return MR_OK;
  struct mr_call *c = call_new(q);
  if (!c) return MR_E_NOMEM;
  if (mr_op_query(c, q->op, mr_buf_get(&q->fields), &err) != MR_OK) {
    mr_exchange_error(q, &err);
    mr_op_call_free(&c);
    return MR_E_INVALID;
  }
  start(q, c);
  return MR_OK;
}

static int on_part_data(void *ud, struct mr_str bytes)
{
  struct mr_exchange *q = ud;
  int r;

  mr_once_piece(q, bytes);
  q->part_n += (int64_t)bytes.n;
  if (mr_once_found(q)) return MR_OK;
  if (!q->in_file) {
    mr_buf_str(&q->value, bytes);
    return q->value.failed ? MR_E_TOO_LARGE : MR_OK;
  }
  if (!q->call || !q->call->feed) return MR_E_CANCELLED; /* refused already: its answer is on the way */
  r = q->call->feed(q->call, bytes);
  if (r == MR_MORE) q->paused = true;
  return r < 0 ? r : MR_OK;
}

static int on_part_end(void *ud)
{
  struct mr_exchange *q = ud;
  struct mr_str v = mr_buf_get(&q->value), name;
  char key[64];

  mr_once_part(q, mr_str_n((const char *)&q->part_n, sizeof q->part_n));
  if (q->in_file || mr_once_found(q)) return MR_OK;
  name = mr_str_split(&v, '=');
  if (name.n == 0 || name.n >= sizeof key) return MR_OK;
  snprintf(key, sizeof key, MR_FMT, MR_ARG(mr_url_encode(q->arena, name)));
  add_field(q, key, v.p ? v : MR_S(""));
  return MR_OK;
}

static void upload_end(struct mr_exchange *q, int code, const struct mr_err *err)
{
  struct mr_err e;

  if (code == MR_OK && mr_once_body(q)) return;
  if (q->call && q->call->feed_end) {
    if (code == MR_OK && mr_op_query(q->call, q->op, mr_buf_get(&q->fields), &e) != MR_OK) {
      mr_err_copy(&q->call->err, &e); /* fields that came after the file */
      code = e.code;
    } else if (code != MR_OK && err && err->code && q->call->err.code == MR_OK) {
      mr_err_copy(&q->call->err, err);
    }
    q->call->feed_end(q->call, code);
  } else if (!q->call && !q->answered) {
    if (code != MR_OK && err && err->code)
      mr_exchange_error(q, err);
    else
      mr_exchange_fail(q, MR_E_INVALID, "file", "file: required, a part of the multipart body");
  }
}

static int feed_upload(struct mr_exchange *q, struct mr_str bytes, bool last)
{
  static const struct mr_multipart_cbs cbs = {on_part, on_part_data, on_part_end};
  struct mr_err err = {0};
  int code = MR_OK;

  if (q->failed) return MR_OK;
  if (!q->parts)
    code = mr_multipart_new(&q->parts, q->a->mem, mr_http_req_header(q->x, "content-type"), &cbs, q, &err);
  if (code == MR_OK && mr_http_body_over(q->x))
    code = mr_err_set(&err, MR_E_TOO_LARGE, "file", "file: over the limit of 500 MB");
  if (code == MR_OK && bytes.n) code = mr_multipart_feed(q->parts, bytes, &err);
  if (code == MR_OK && last) code = mr_multipart_finish(q->parts, &err);
  if (code != MR_OK || last) {
    q->failed = code != MR_OK ? code : MR_E_CLOSED;
    upload_end(q, code, &err);
  }
  return q->paused ? MR_MORE : MR_OK;
}

/* ---- both ---- */

int mr_exchange_on_body(void *ud, struct mr_http_x *x, struct mr_str bytes, bool last)
{
  struct mr_exchange *q = ud;

  (void)x;
  if (q->answered) return MR_OK;
  if (q->web) return mr_web_on_body(q, bytes, last);
  if (last) q->body_whole = true;
  if (q->begun && q->op && q->op->kind == MR_OP_BODY_IN) return feed_upload(q, bytes, last);
  mr_buf_str(&q->body, bytes);
  if (!q->begun) return last ? MR_OK : MR_MORE;
  if (last) start_json(q);
  return MR_OK;
}

void mr_exchange_begin(struct mr_exchange *q)
{
  if (!mr_once_begin(q)) mr_exchange_go(q);
}

void mr_exchange_go(struct mr_exchange *q)
{
  bool upload = q->op && q->op->kind == MR_OP_BODY_IN;

  q->begun = true;
  if (q->op && !mr_str_is(mr_str_c(q->op->verb), "POST")) {
    start_query(q);
  } else if (upload && (q->op->flags & MR_OP_TODO)) {
    start_json(q); /* says that it is not there yet, whatever the body is */
  } else if (upload) {
    struct mr_str held = mr_buf_get(&q->body);
    if ((held.n || q->body_whole) && feed_upload(q, held, q->body_whole) == MR_OK && !q->body_whole)
      mr_http_body_resume(q->x);
    mr_buf_free(&q->body);
  } else if (q->body_whole) {
    start_json(q);
  } else {
    mr_http_body_resume(q->x);
  }
}

void mr_exchange_gone(struct mr_exchange *q)
{
  struct mr_call *c = q->call;

  if (q->web) mr_web_gone(q);
  if (q->pass) mr_pass_cancel(q->pass);
  if (!c) return;
  if (c->feed_end)
    c->feed_end(c, MR_E_CANCELLED);
  else if (c->cancel)
    c->cancel(c);
}
