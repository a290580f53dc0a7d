/*
 * api.c - the face's life, and the way of a request up to its operation: route, key, version, betas. See
 * api.h. The key is checked before a body is read on: what an unknown caller sends costs one buffer.
 */
#include "api/api_t.h"

#include <stdio.h>

enum { BODY_MAX = 32 << 20, STREAM_MAX = 4 << 20, STREAMS_MAX = 256 << 20, ONCE_MAX = 256 << 20 };
static const int64_t UPLOAD_MAX = (INT64_C(500) << 20) + (1 << 20);

static const struct mr_http_x_cbs cbs;

/* ---- an exchange's life ---- */

static void on_closed(void *ud, struct mr_http_x *x, bool complete)
{
  struct mr_exchange *q = ud;

  (void)x;
  (void)complete;
  q->x = NULL;
  mr_exchange_gone(q);
  mr_exchange_unref(q);
}

static const struct mr_http_x_cbs cbs = {
    .body = mr_exchange_on_body, .drained = mr_exchange_drained, .closed = on_closed};

static struct mr_exchange *exchange_new(struct mr_api *a, struct mr_http_x *x)
{
  struct mr_exchange *q = mr_mem_zalloc(a->mem, sizeof *q);

  if (!q) return NULL;
  q->a = a;
  q->x = x;
  q->arena = mr_http_arena(x);
  q->refs = 1;
  mr_buf_init(&q->body, a->mem, (size_t)a->body_max + 1);
  mr_buf_init(&q->fields, a->mem, 1 << 16);
  mr_buf_init(&q->value, a->mem, 1 << 12);
  if (mr_id_make(a->sys, q->id, "req") != MR_OK) q->id[0] = '\0';
  q->next = a->all;
  q->link = &a->all;
  if (q->next) q->next->link = &q->next;
  a->all = q;
  mr_http_set(x, &cbs, q);
  return q;
}

static void api_free(struct mr_api *a)
{
  mr_api_routes_free(a);
  mr_mem_free(a->mem, a);
}

void mr_exchange_unref(struct mr_exchange *q)
{
  struct mr_api *a = q->a;

  if (--q->refs > 0) return;
  *q->link = q->next;
  if (q->next) q->next->link = q->link;
  mr_web_free(q);
  mr_once_end(q);
  mr_multipart_free(&q->parts);
  mr_buf_free(&q->body);
  mr_buf_free(&q->fields);
  mr_buf_free(&q->value);
  mr_mem_free(a->mem, q);
  if (a->freed && !a->all) api_free(a);
}

/* ---- checks, in the order in which a client meets them ---- */

static bool has_beta(struct mr_str header, const char *value)
{
  while (header.p)
    if (mr_str_is(mr_str_trim(mr_str_split(&header, ',')), value)) return true;
  return false;
}

static bool beta_ok(struct mr_exchange *q)
{
  struct mr_str have = mr_http_req_header(q->x, "anthropic-beta");
  const char *need = q->op->beta, *agents = "managed-agents-2026-04-01", *memory = "agent-memory-2026-07-22";

  if (!need) return true;
  if (strcmp(need, memory) == 0) {
    if (has_beta(have, memory) && has_beta(have, agents)) {
      mr_exchange_fail(q, MR_E_INVALID, "anthropic-beta",
                       "anthropic-beta: header cannot include both '%s' and '%s'", memory, agents);
      return false;
    }
    if (has_beta(have, agents)) return true;
  }
  if (has_beta(have, need)) return true;
  mr_exchange_fail(q, MR_E_INVALID, "anthropic-beta",
                   "this API is in beta: add `%s` to the `anthropic-beta` header to use it", need);
  return false;
}

static bool headers_ok(struct mr_exchange *q)
{
  struct mr_str type = mr_http_req_header(q->x, "content-type"), ws, enc, rest = type;

  if (q->op && mr_str_starts(mr_str_c(q->op->path), MR_S("/v1/"))) {
    if (!mr_http_req_header(q->x, "anthropic-version").n) {
      mr_exchange_fail(q, MR_E_INVALID, "anthropic-version", "anthropic-version: header is required");
      return false;
    }
    if (!beta_ok(q)) return false;
  }
  ws = mr_http_req_header(q->x, "anthropic-workspace-id");
  if (ws.n && !mr_str_is(ws, MR_WORKSPACE)) {
    mr_exchange_fail(q, MR_E_DENIED, "anthropic-workspace-id",
                     "anthropic-workspace-id: this key belongs to workspace " MR_WORKSPACE);
    return false;
  }
  enc = mr_http_req_header(q->x, "content-encoding");
  if (enc.n && !mr_str_ieq(enc, MR_S("identity"))) {
    struct mr_err e;
    mr_err_code(&e, MR_E_INVALID, "request_body_encoding_unsupported", "content-encoding",
                "content-encoding: send the body uncompressed");
    mr_exchange_error(q, &e);
    return false;
  }
  while (rest.p) {
    struct mr_str item = mr_str_trim(mr_str_split(&rest, ';')), key = mr_str_split(&item, '=');
    if (!mr_str_ieq(key, MR_S("charset")) || mr_str_ieq(mr_str_trim(item), MR_S("utf-8")) ||
        mr_str_ieq(mr_str_trim(item), MR_S("us-ascii")) || mr_str_ieq(mr_str_trim(item), MR_S("\"utf-8\"")))
      continue;
    struct mr_err e;
    mr_err_code(&e, MR_E_INVALID, "unsupported_charset", "content-type", "content-type: only charset=utf-8");
    mr_exchange_error(q, &e);
    return false;
  }
  return true;
}

static bool may(struct mr_exchange *q)
{
  struct mr_err err;

  if (mr_bearer_check(q->a->o.domain, &q->by, q->op ? q->op->flags : 0, q->op ? q->op->path : "", q->params,
                      &err) == MR_OK)
    return true;
  mr_exchange_error(q, &err);
  return false;
}

static void on_key(void *ud, int code, const struct mr_bearer *by)
{
  struct mr_exchange *q = ud;

  if (!q->x) {
    mr_exchange_unref(q);
    return;
  }
  if (code != MR_OK) {
    mr_exchange_fail(q, code == MR_E_AUTH ? MR_E_AUTH : code, NULL,
                     code == MR_E_AUTH ? "invalid API key: `moonrig key create` makes one"
                                       : "the key could not "
                                         "be checked now");
  } else if (headers_ok(q)) {
    q->by = *by;
    q->by.key_id = mr_arena_str(q->arena, by->key_id);
    q->by.environment_id = mr_arena_str(q->arena, by->environment_id);
    q->by.session_id = mr_arena_str(q->arena, by->session_id);
    q->authorized = may(q);
    if (q->authorized) mr_exchange_begin(q);
  }
  mr_exchange_unref(q);
}

struct mr_str mr_exchange_secret(struct mr_http_x *x)
{
  struct mr_str bearer = mr_http_req_header(x, "authorization"), kind = mr_str_split(&bearer, ' ');

  if (mr_str_ieq(kind, MR_S("bearer")) && mr_str_trim(bearer).n) return mr_str_trim(bearer);
  return mr_str_trim(mr_http_req_header(x, "x-api-key"));
}

static bool route(struct mr_exchange *q)
{
  struct mr_str method = mr_http_method(q->x), path = mr_http_path(q->x);
  bool get = mr_str_is(method, "GET") || mr_str_is(method, "HEAD"), allowed = false;

  if (mr_str_is(path, "/health") || mr_str_is(path, "/metrics")) {
    if (!get)
      allowed = true;
    else if (mr_str_is(path, "/health"))
      mr_api_health(q);
    else
      mr_api_metrics(q);
    if (get) return false;
  } else if (mr_str_is(path, "/moonrig/v1/control")) {
    if (mr_str_is(method, "POST")) return true;
    allowed = true;
  } else {
    q->op = mr_op_route(q->arena, method, path, q->params, &allowed);
    if (q->op && q->op->kind == MR_OP_EVENTS && mr_str_is(method, "HEAD")) q->op = NULL, allowed = true;
  }
  if (q->op) return true;
  if (allowed) {
    struct mr_err e;
    mr_err_set(&e, MR_E_INVALID, NULL, MR_FMT " " MR_FMT ": method not allowed", MR_ARG(method), MR_ARG(path));
    e.http_status = 405;
    mr_exchange_error(q, &e);
  } else {
    mr_exchange_fail(q, MR_E_NOTFOUND, NULL, "no such path: " MR_FMT, (int)(path.n > 200 ? 200 : path.n),
                     path.p);
  }
  return false;
}

static void on_request(void *ud, struct mr_http_x *x)
{
  struct mr_api *a = ud;
  struct mr_exchange *q = exchange_new(a, x);
  struct mr_str secret = mr_exchange_secret(x);

  if (!q) {
    mr_http_reply(x, 503, NULL, 0, mr_str_n(NULL, 0));
    return;
  }
  if (mr_str_starts(mr_http_path(x), MR_S("/x/"))) {
    mr_web_request(q);
    return;
  }
  if (!route(q)) return;
  if (!secret.n) {
    mr_exchange_fail(q, MR_E_AUTH, NULL, "no API key: send `authorization: Bearer KEY` or `x-api-key: KEY`");
    return;
  }
  if (!q->op || mr_str_is(mr_str_c(q->op->verb), "POST"))
    mr_http_body(x, q->op && q->op->kind == MR_OP_BODY_IN ? UPLOAD_MAX : a->body_max);
  else
    q->body_whole = true;
  q->refs++;
  mr_keys_check(a->o.domain, secret, on_key, q);
}

/* ---- the face's life ---- */

/* strict is a bool, everything else a whole number; null is as if it were absent. */
static int check_config(yyjson_val *o, struct mr_err *err)
{
  static const char *const known[] = {"strict",          "ping_ms",    "body_max",    "idle_ms",
                                      "max_connections", "stream_max", "streams_max", "idempotency_max"};
  yyjson_obj_iter it = yyjson_obj_iter_with(o);
  yyjson_val *k;

  if (o && !yyjson_is_obj(o) && !yyjson_is_null(o))
    return mr_err_set(err, MR_E_INVALID, "api", "api: must be an object");
  while (o && (k = yyjson_obj_iter_next(&it))) {
    yyjson_val *v = yyjson_obj_iter_get_val(k);
    bool found = false, strict = yyjson_equals_str(k, "strict");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
      found = found || yyjson_equals_str(k, known[i]);
    if (!found) return mr_err_set(err, MR_E_INVALID, "api", "api.%.40s: no such setting", yyjson_get_str(k));
    if (!yyjson_is_null(v) && !(strict ? yyjson_is_bool(v) : yyjson_is_int(v)))
      return mr_err_set(err, MR_E_INVALID, "api", "api.%.40s: must be %s", yyjson_get_str(k),
                        strict ? "true or false" : "a whole number");
  }
  return MR_OK;
}

static int read_config(struct mr_api *a, struct mr_http_server_opts *h, struct mr_err *err)
{
  yyjson_val *o = mr_json_get(a->o.config, "api");
  int64_t one, all;

  if (check_config(o, err) != MR_OK) return MR_E_INVALID;
  a->strict = mr_json_get_bool(o, "strict", false);
  a->ping_ms = mr_json_get_int(o, "ping_ms", 15000);
  a->body_max = mr_json_get_int(o, "body_max", BODY_MAX);
  h->idle_ms = mr_json_get_int(o, "idle_ms", 0);
  h->max_connections = (int)mr_json_get_int(o, "max_connections", 0);
  one = mr_json_get_int(o, "stream_max", STREAM_MAX);
  all = mr_json_get_int(o, "streams_max", one < STREAMS_MAX ? STREAMS_MAX : one);
  h->max_out = (size_t)one;
  h->max_streams = (size_t)all;
  a->once_max = mr_json_get_int(o, "idempotency_max", ONCE_MAX);
  if (a->once_max < 0)
    return mr_err_set(err, MR_E_INVALID, "api", "api: idempotency_max is bytes, 0 for none at all");
  if (a->ping_ms < 10 || a->body_max < 1024 || a->body_max > (1 << 30) || h->idle_ms < 0 ||
      h->max_connections < 0)
    return mr_err_set(err, MR_E_INVALID, "api", "api: ping_ms is at least 10, body_max 1024 to 1 GiB");
  if (one < 64 << 10 || all < one || all > INT64_C(1) << 40)
    return mr_err_set(err, MR_E_INVALID, "api",
                      "api: stream_max is at least 64 KiB, streams_max not less than stream_max");
  return MR_OK;
}

int mr_api_new(struct mr_api **out, const struct mr_api_opts *o, struct mr_err *err)
{
  const struct mr_sys *sys = mr_loop_sys(o->loop);
  struct mr_api *a = mr_mem_zalloc(&sys->mem, sizeof *a);
  struct mr_http_server_opts h = {.on_request = on_request};
  int code;

  *out = NULL;
  if (!a) return mr_err_nomem(err);
  a->o = *o;
  a->sys = sys;
  a->mem = &sys->mem;
  h.ud = a;
  code = read_config(a, &h, err);
  a->o.config = NULL;
  if (code == MR_OK) code = mr_http_server_new(&a->http, o->loop, &h, err);
  if (code != MR_OK)
    mr_mem_free(a->mem, a);
  else
    *out = a;
  return code;
}

int mr_api_listen(struct mr_api *a, const struct mr_http_listen *l, char *actual, size_t n, struct mr_err *err)
{
  return mr_http_server_listen(a->http, l, actual, n, err);
}

bool mr_api_answers(const struct mr_api *a, const struct sockaddr *sa)
{
  return mr_http_server_answers(a->http, sa);
}

void mr_api_stop(struct mr_api *a)
{
  a->stopping = true;
  mr_http_server_stop(a->http);
  mr_web_end_streams(a);
}

void mr_api_cut(struct mr_api *a)
{
  mr_http_server_free(&a->http);
}

int mr_api_active(const struct mr_api *a)
{
  int n = 0;

  if (a->http) return mr_http_server_active(a->http);
  for (const struct mr_exchange *q = a->all; q; q = q->next)
    n++;
  return n;
}

void mr_api_free(struct mr_api **ap)
{
  struct mr_api *a = *ap;

  if (!a) return;
  *ap = NULL;
  mr_api_cut(a);
  if (!a->all)
    api_free(a);
  else
    a->freed = true; /* calls of the domain still end: the last of them frees */
}
