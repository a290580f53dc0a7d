/*
 * web.c - requests to the host's routes: route, key, body, then the host's answer, framed by net/. See api.h.
 *
 * Until the answer begins it has a deadline; afterwards it may last. What the host's side holds (`it`) is told
 * closed() at most once: when the client goes, when the answer came too late, when streams are ended. After that, or
 * after the host's end, nothing of the request reaches it any more.
 *
 * Bounds: requests at one time, the bytes of their bodies together, lines of a head. Loop thread.
 */
#include "api/api_t.h"
#include "net/url.h"

#include <stdio.h>

enum { WEBS_MAX = 8192, HEADER_MAX = 8000 };
static const int64_t BYTES_MAX = INT64_C(256) << 20;

struct mr_api_web {
  struct mr_exchange *q;
  struct mr_api_match m;
  void *it; /* the host's; NULL before run, and when it is over */
  struct mr_timer timer;
  int64_t held; /* bytes counted in web_bytes */
  bool begun, events, over;
};

static void fail_as(struct mr_exchange *q, int code, int status, const char *text)
{
  struct mr_err e;

  mr_err_set(&e, code, NULL, "%s", text);
  e.http_status = status;
  mr_exchange_error(q, &e);
}

/* The host hears of it, once, unless it has ended its part. */
static void over(struct mr_api_web *w)
{
  void *it = w->it;

  w->over = true;
  w->it = NULL;
  mr_timer_cancel(w->q->a->o.loop, &w->timer);
  if (it) w->m.r->r.closed(it);
}

static void on_late(struct mr_timer *t)
{
  struct mr_api_web *w = MR_OF(t, struct mr_api_web, timer);

  fail_as(w->q, MR_E_TIMEOUT, 504, "the route did not answer in time");
  over(w);
}

/* ---- in ---- */

static void too_large(struct mr_exchange *q)
{
  struct mr_err e;

  mr_err_set(&e, MR_E_TOO_LARGE, NULL, "the body is over the limit of %lld bytes",
             (long long)q->web->m.r->r.body_max);
  mr_exchange_error(q, &e);
  q->web->over = true;
}

static void begin(struct mr_exchange *q)
{
  struct mr_api_web *w = q->web;
  struct mr_api_route *r = &w->m.r->r;

  if (q->body.failed || mr_timer_set(q->a->o.loop, &w->timer, r->begin_us) != MR_OK) {
    w->over = true;
    mr_exchange_fail(q, MR_E_UNAVAILABLE, NULL, "out of memory");
    return;
  }
  w->it = r->run(r->ud, w);
  if (w->it) return;
  over(w);
  mr_exchange_fail(q, MR_E_UNAVAILABLE, NULL, "the server takes no such requests now");
}

/* Who calls may call: what comes of the body until here waits in the socket. */
static void allowed(struct mr_exchange *q)
{
  int64_t n = mr_http_content_length(q->x), max = q->web->m.r->r.body_max;

  if (n == 0) {
    begin(q);
  } else if (n > max) {
    too_large(q);
  } else {
    mr_buf_init(&q->body, q->a->mem, (size_t)max + 1);
    mr_http_body(q->x, max);
  }
}

int mr_web_on_body(struct mr_exchange *q, struct mr_str bytes, bool last)
{
  struct mr_api_web *w = q->web;

  if (w->over || w->it || q->answered) return MR_OK;
  w->held += (int64_t)bytes.n;
  q->a->web_bytes += (int64_t)bytes.n;
  if (q->a->web_bytes > BYTES_MAX) {
    w->over = true;
    mr_buf_free(&q->body);
    mr_exchange_fail(q, MR_E_UNAVAILABLE, NULL, "too much is being sent to routes at once");
    return MR_OK;
  }
  mr_buf_str(&q->body, bytes);
  if (!last) return MR_OK;
  if (mr_http_body_over(q->x) || q->body.failed == MR_E_TOO_LARGE)
    too_large(q);
  else
    begin(q);
  return MR_OK;
}

static void on_key(void *ud, int code, const struct mr_bearer *by)
{
  struct mr_exchange *q = ud;

  if (q->x && code == MR_OK && by->kind > MR_BEARER_API)
    mr_exchange_fail(q, MR_E_DENIED, NULL,
                     "the keys of workers are for their work alone: this takes an API key");
  else if (q->x && code == MR_OK)
    allowed(q);
  else if (q->x)
    mr_exchange_fail(q, code, NULL,
                     code == MR_E_AUTH ? "invalid API key: `moonrig key create` makes one"
                                       : "the key could not be checked now");
  mr_exchange_unref(q);
}

static int any_pair(void *ud, struct mr_str name, struct mr_str value)
{
  (void)ud, (void)name, (void)value;
  return 0;
}

static int look_up(struct mr_exchange *q)
{
  struct mr_str method = mr_http_method(q->x), path = mr_http_path(q->x);
  int code = mr_api_route_find(q->a, q->arena, method, path, &q->web->m, q->allow, sizeof q->allow);
  int shown = (int)(path.n > 200 ? 200 : path.n);
  char text[300];

  if (code == MR_OK && mr_url_query(q->arena, mr_http_query(q->x), any_pair, NULL) != MR_OK) {
    code = MR_E_INVALID;
    mr_exchange_fail(q, code, "query", "query: cannot be decoded as UTF-8, or has over 1,000 pairs");
  } else if (code == MR_E_UNSUPPORTED) {
    snprintf(text, sizeof text, MR_FMT " %.*s: method not allowed", MR_ARG(method), shown, path.p);
    fail_as(q, MR_E_INVALID, 405, text);
  } else if (code == MR_E_INVALID) {
    mr_exchange_fail(q, code, "path",
                     "path: cannot be decoded as UTF-8, or holds . or .. or control characters, or a parameter "
                     "that begins with a slash");
  } else if (code != MR_OK) {
    mr_exchange_fail(q, code, NULL, "no such path: %.*s", shown, path.p);
  }
  return code;
}

void mr_web_request(struct mr_exchange *q)
{
  struct mr_str secret = mr_exchange_secret(q->x);
  struct mr_api *a = q->a;

  if (a->nwebs >= WEBS_MAX || !q->arena || !(q->web = mr_mem_zalloc(a->mem, sizeof *q->web))) {
    mr_exchange_fail(q, MR_E_UNAVAILABLE, NULL, "too many requests to routes at once");
    return;
  }
  a->nwebs++;
  q->web->q = q;
  mr_timer_init(&q->web->timer, on_late);
  if (look_up(q) != MR_OK) {
    q->web->over = true;
  } else if (q->web->m.r->r.open) {
    allowed(q);
  } else if (!secret.n) {
    mr_exchange_fail(q, MR_E_AUTH, NULL, "no API key: send `authorization: Bearer KEY` or `x-api-key: KEY`");
  } else {
    q->refs++;
    mr_keys_check(a->o.domain, secret, on_key, q);
  }
}

/* ---- what the host reads ---- */

struct mr_str mr_api_web_method(const struct mr_api_web *w)
{
  return mr_http_method(w->q->x);
}

struct mr_str mr_api_web_path(const struct mr_api_web *w)
{
  return w->m.path;
}

struct mr_str mr_api_web_query(const struct mr_api_web *w)
{
  return mr_http_query(w->q->x);
}

struct mr_str mr_api_web_remote(const struct mr_api_web *w)
{
  return mr_http_peer(w->q->x);
}

void mr_api_web_headers(const struct mr_api_web *w, struct mr_buf *out)
{
  mr_http_req_headers(w->q->x, out);
}

struct mr_str mr_api_web_param(const struct mr_api_web *w, int i, struct mr_str *name)
{
  if (i < 0 || i >= w->m.n) return mr_str_n(NULL, 0);
  *name = w->m.name[i];
  return w->m.value[i];
}

char *mr_api_web_body(struct mr_api_web *w, size_t *n)
{
  *n = w->q->body.n;
  return mr_buf_take(&w->q->body, n);
}

/* ---- out ---- */

bool mr_api_web_line_ok(struct mr_str line)
{
  static const char *const ours[] = {"connection", "content-length",     "date",    "keep-alive",
                                     "te",         "proxy-authenticate", "trailer", "proxy-authorization",
                                     "upgrade",    "transfer-encoding"};
  struct mr_str rest = line, name = mr_str_split(&rest, ':');

  if (!rest.p || name.n == 0 || line.n > HEADER_MAX) return false;
  for (size_t i = 0; i < name.n; i++) {
    char c = name.p[i];
    if (!(c >= '0' && c <= '9') && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z') &&
        (c == '\0' || !strchr("!#$%&'*+-.^_`|~", c)))
      return false;
  }
  for (size_t i = 0; i < rest.n; i++)
    if (((unsigned char)rest.p[i] < ' ' && rest.p[i] != '\t') || rest.p[i] == 0x7f) return false;
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (mr_str_ieq(name, mr_str_c(ours[i]))) return false;
  return true;
}

static bool is_events(struct mr_str line)
{
  struct mr_str name = mr_str_split(&line, ':');
  return mr_str_ieq(name, MR_S("content-type")) &&
         mr_str_ieq(mr_str_trim(mr_str_split(&line, ';')), MR_S("text/event-stream"));
}

struct out {
  struct mr_str v[MR_WEB_LINES_MAX + 1];
  int n;
  char id[64];
};

static void head(struct mr_api_web *w, int status, const struct mr_str *lines, int n, struct out *o)
{
  snprintf(o->id, sizeof o->id, "request-id: %s", w->q->id);
  o->v[0] = mr_str_c(o->id);
  o->n = 1;
  for (int i = 0; i < n && i < MR_WEB_LINES_MAX; i++) {
    o->v[o->n++] = lines[i];
    w->events = w->events || is_events(lines[i]);
  }
  w->begun = true;
  mr_timer_cancel(w->q->a->o.loop, &w->timer);
  mr_exchange_count(w->q, status);
}

void mr_api_web_start(struct mr_api_web *w, int status, const struct mr_str *lines, int n, int64_t length)
{
  struct mr_http_x *x = w->q->x;
  struct out o;

  if (w->over || w->begun) return;
  head(w, status, lines, n, &o);
  mr_http_begin(x, status, o.v, o.n, length);
  w->events = w->events && length < 0;
  if (mr_str_is(mr_http_method(x), "HEAD") || (w->events && w->q->a->stopping)) {
    mr_http_end(x);
    over(w);
  } else if (length < 0) {
    mr_http_forget(x);
  }
}

void mr_api_web_reply(struct mr_api_web *w, int status, const struct mr_str *lines, int n, struct mr_str body)
{
  struct out o;

  if (w->over || w->begun) return;
  head(w, status, lines, n, &o);
  w->over = true;
  w->it = NULL;
  mr_http_reply(w->q->x, status, o.v, o.n, body);
}

int mr_api_web_write(struct mr_api_web *w, struct mr_str bytes)
{
  return w->over || !w->begun ? MR_E_CLOSED : mr_http_write(w->q->x, bytes);
}

void mr_api_web_end(struct mr_api_web *w, bool whole)
{
  if (w->over) return;
  w->it = NULL;
  over(w);
  if (!w->begun)
    mr_exchange_fail(w->q, MR_E_INTERNAL, NULL, "the route failed: the server's log has more");
  else if (whole)
    mr_http_end(w->q->x);
  else
    mr_http_cut(w->q->x);
}

/* ---- the connection's side ---- */

void mr_web_drained(struct mr_exchange *q)
{
  if (q->web->it) q->web->m.r->r.drained(q->web->it);
}

void mr_web_gone(struct mr_exchange *q)
{
  over(q->web);
}

void mr_web_free(struct mr_exchange *q)
{
  struct mr_api_web *w = q->web;

  if (!w) return;
  mr_timer_cancel(q->a->o.loop, &w->timer);
  mr_api_route_unref(q->a, &w->m.r);
  q->a->nwebs--;
  q->a->web_bytes -= w->held;
  mr_mem_free(q->a->mem, w);
  q->web = NULL;
}

void mr_web_end_streams(struct mr_api *a)
{
  for (struct mr_exchange *q = a->all; q; q = q->next) {
    if (!q->web || !q->web->it || !q->web->events) continue;
    mr_http_end(q->x);
    over(q->web);
  }
}
