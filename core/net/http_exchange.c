/*
 * http_exchange.c - what a handler may ask of an exchange and say on it; see http_server.h. Nothing here
 * calls a handler back or frees anything: that is done by http_conn.c, in the drain.
 *
 * Invariant: what goes out is framed by this file alone. A handler's header lines cannot end the head, nor
 * say how long the body is; a body is never longer than announced, and one that is shorter cuts.
 */
#include "net/http_conn_t.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <time.h>

enum { MORE_ABOVE = 256 << 10, ARENA_FIRST = 256 };

/* ---- the request ---- */

/* path NUL query NUL { name NUL value NUL }; fields of one name become one, as RFC 9110 §5.3 says. */
struct mr_http_x *mr_http_x_new(struct mr_http_conn *c)
{
  struct mr_http_parse *q = c->parse;
  const struct mr_mem *m = c->s->mem;
  struct mr_http_x *x = mr_mem_zalloc(m, sizeof *x);
  struct mr_str url = mr_str_n(q->text.p, q->ntarget), path;
  size_t most = q->text.n + 3 + 4 * (size_t)q->nfields;
  struct mr_buf b;

  if (!x) return NULL;
  if (url.p[0] != '/' && url.p[0] != '*') { /* absolute form: its authority is of no use to us */
    const char *at = memchr(url.p, ':', url.n), *end = url.p + url.n;
    for (at += 3; at < end && *at != '/' && *at != '?'; at++)
      continue;
    url = mr_str_n(at, (size_t)(end - at));
  }
  mr_buf_init(&b, m, most);
  mr_buf_reserve(&b, most);
  path = mr_str_split(&url, '?');
  mr_buf_str(&b, path.n ? path : MR_S("/"));
  x->npath = (uint32_t)b.n;
  mr_buf_char(&b, '\0');
  mr_buf_str(&b, url);
  x->nquery = (uint32_t)url.n;
  mr_buf_char(&b, '\0');
  for (int i = 0; i < q->nfields; i++) {
    const struct mr_http_field *f = &q->field[i];
    struct mr_str name = mr_str_n(q->text.p + f->name, f->nname);
    bool first = true;
    for (int k = 0; k < i && first; k++)
      first = q->field[k].nname != f->nname || memcmp(q->text.p + q->field[k].name, name.p, name.n) != 0;
    if (!first) continue;
    mr_buf_str(&b, name);
    mr_buf_char(&b, '\0');
    mr_buf_add(&b, q->text.p + f->value, f->nvalue);
    for (int k = i + 1; k < q->nfields; k++) {
      if (q->field[k].nname != f->nname || memcmp(q->text.p + q->field[k].name, name.p, name.n) != 0) continue;
      mr_buf_c(&b, mr_str_is(name, "cookie") ? "; " : ", ");
      mr_buf_add(&b, q->text.p + q->field[k].value, q->field[k].nvalue);
    }
    mr_buf_char(&b, '\0');
  }
  x->ntext = (uint32_t)b.n;
  x->text = mr_buf_take(&b, NULL);
  if (!x->text) {
    mr_mem_free(m, x);
    return NULL;
  }
  x->c = c;
  x->method = q->p.method;
  x->old = q->p.http_minor == 0;
  x->length = q->p.flags & F_CHUNKED ? -1 : (int64_t)q->p.content_length;
  x->expect = !q->whole && !x->old && mr_http_parse_field(q, MR_S("expect")).n;
  return x;
}

void mr_http_x_free(struct mr_http_x **xp)
{
  struct mr_http_x *x = *xp;
  const struct mr_mem *m = x->c->s->mem;

  mr_arena_free(&x->arena);
  mr_mem_free(m, x->text);
  mr_mem_free(m, x);
  *xp = NULL;
}

struct mr_str mr_http_method(const struct mr_http_x *x)
{
  return mr_str_c(llhttp_method_name((llhttp_method_t)x->method));
}

struct mr_str mr_http_path(const struct mr_http_x *x)
{
  return mr_str_n(x->text, x->npath);
}

struct mr_str mr_http_query(const struct mr_http_x *x)
{
  return mr_str_n(x->text ? x->text + x->npath + 1 : NULL, x->nquery);
}

struct mr_str mr_http_req_header(const struct mr_http_x *x, const char *name)
{
  const char *p = x->text ? x->text + x->npath + x->nquery + 2 : NULL, *end = x->text + x->ntext;

  while (p && p < end) {
    const char *value = p + strlen(p) + 1;
    size_t n = strlen(value);
    if (strcmp(p, name) == 0) return mr_str_n(value, n);
    p = value + n + 1;
  }
  return mr_str_n(NULL, 0);
}

void mr_http_req_headers(const struct mr_http_x *x, struct mr_buf *out)
{
  const char *p = x->text ? x->text + x->npath + x->nquery + 2 : NULL, *end = x->text + x->ntext;

  while (p && p < end) {
    const char *value = p + strlen(p) + 1;
    mr_buf_c(out, p);
    mr_buf_c(out, ": ");
    mr_buf_c(out, value);
    mr_buf_char(out, '\n');
    p = value + strlen(value) + 1;
  }
}

int64_t mr_http_content_length(const struct mr_http_x *x)
{
  return x->length;
}

struct mr_arena *mr_http_arena(struct mr_http_x *x)
{
  if (!x->arena) x->arena = mr_arena_new(x->c->s->mem, ARENA_FIRST);
  return x->arena;
}

struct mr_loop *mr_http_loop(struct mr_http_x *x)
{
  return x->c->s->l;
}

struct mr_str mr_http_peer(const struct mr_http_x *x)
{
  const struct mr_http_peer_addr *a = &x->c->peer;
  struct mr_arena *arena;
  char ip[INET6_ADDRSTRLEN];

  if (a->family != AF_INET && a->family != AF_INET6) return MR_S("unix");
  if (!x->peer && (arena = mr_http_arena((struct mr_http_x *)(uintptr_t)x))) {
    bool six = a->family == AF_INET6;
    inet_ntop(a->family, a->ip, ip, sizeof ip);
    ((struct mr_http_x *)(uintptr_t)x)->peer =
        mr_arena_printf(arena, "%s%s%s:%u", six ? "[" : "", ip, six ? "]" : "", (unsigned)ntohs(a->port));
  }
  return mr_str_c(x->peer);
}

void mr_http_set(struct mr_http_x *x, const struct mr_http_x_cbs *cbs, void *ud)
{
  x->cbs = *cbs;
  x->ud = ud;
}

void mr_http_forget(struct mr_http_x *x)
{
  mr_mem_free(x->c->s->mem, x->text);
  x->text = NULL;
  x->npath = x->nquery = x->ntext = 0;
}

/* ---- its body ---- */

void mr_http_body(struct mr_http_x *x, int64_t max)
{
  static const struct iovec go = {(char *)(uintptr_t) "HTTP/1.1 100 Continue\r\n\r\n", 25};
  struct mr_http_conn *c = x->c;

  if (x->asked || x->ended) return;
  x->asked = true;
  x->body_max = max;
  if (x->length > max) { /* known before the first byte; the handler hears of it from the drain */
    x->over = true;
    c->keep = false;
  } else if (x->expect && !x->begun) {
    x->expect = false;
    if (c->parse && c->parse->body_n == 0) mr_http_conn_send(c, &go, 1);
  }
  mr_http_conn_wake(c);
}

bool mr_http_body_over(const struct mr_http_x *x)
{
  return x->over;
}

void mr_http_body_resume(struct mr_http_x *x)
{
  x->paused = false;
  mr_http_conn_wake(x->c);
}

/* ---- the answer's head ---- */

static const char *reason(int status)
{
  static const struct {
    int status;
    const char *text;
  } known[] = {{200, "OK"},
               {201, "Created"},
               {202, "Accepted"},
               {204, "No Content"},
               {206, "Partial Content"},
               {301, "Moved Permanently"},
               {302, "Found"},
               {303, "See Other"},
               {304, "Not Modified"},
               {307, "Temporary Redirect"},
               {308, "Permanent Redirect"},
               {400, "Bad Request"},
               {401, "Unauthorized"},
               {402, "Payment Required"},
               {403, "Forbidden"},
               {404, "Not Found"},
               {405, "Method Not Allowed"},
               {408, "Request Timeout"},
               {409, "Conflict"},
               {410, "Gone"},
               {412, "Precondition Failed"},
               {413, "Content Too Large"},
               {415, "Unsupported Media Type"},
               {416, "Range Not Satisfiable"},
               {417, "Expectation Failed"},
               {422, "Unprocessable Content"},
               {429, "Too Many Requests"},
               {431, "Request Header Fields Too Large"},
               {500, "Internal Server Error"},
               {501, "Not Implemented"},
               {502, "Bad Gateway"},
               {503, "Service Unavailable"},
               {504, "Gateway Timeout"},
               {505, "HTTP Version Not Supported"},
               {529, "Overloaded"}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i].status == status) return known[i].text;
  return "Unknown";
}

/* RFC 9110 §5.6.7, made once a second, in no locale. */
static const char *date(struct mr_http_server *s)
{
  static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  time_t now = (time_t)(mr_wall_us(s->sys) / 1000000);
  struct tm t;

  if (now != s->date_s || !s->date[0]) {
    s->date_s = now;
    if (!gmtime_r(&now, &t)) memset(&t, 0, sizeof t);
    snprintf(s->date, sizeof s->date, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + 3 * (t.tm_wday % 7),
             (unsigned)t.tm_mday % 100, months + 3 * (t.tm_mon % 12), (unsigned)(t.tm_year + 1900) % 10000,
             (unsigned)t.tm_hour % 100, (unsigned)t.tm_min % 100, (unsigned)t.tm_sec % 100);
  }
  return s->date;
}

static bool named(struct mr_str line, struct mr_str name)
{
  return line.n > name.n && line.p[name.n] == ':' && mr_str_ieq(mr_str_n(line.p, name.n), name);
}

static void add_line(struct mr_http_x *x, struct mr_buf *b, struct mr_str line)
{
  struct mr_str value = line, token;

  for (size_t i = 0; i < line.n; i++)
    if (((unsigned char)line.p[i] < ' ' && line.p[i] != '\t') || line.p[i] == 0x7f) {
      mr_log(x->c->s->sys, MR_LOG_ERROR, "http", "a header line with control characters was not sent");
      return;
    }
  if (named(line, MR_S("content-length")) || named(line, MR_S("transfer-encoding"))) return;
  if (named(line, MR_S("connection"))) {
    for (mr_str_split(&value, ':'); value.p;) {
      token = mr_str_trim(mr_str_split(&value, ','));
      if (mr_str_ieq(token, MR_S("close"))) x->c->keep = false;
    }
    return;
  }
  mr_buf_str(b, line);
  mr_buf_c(b, "\r\n");
}

/* May another request follow on this connection? */
static void decide_keep(struct mr_http_x *x)
{
  struct mr_http_conn *c = x->c;
  const struct mr_http_parse *q = c->parse;

  if (c->s->stopping || x->over || (x->left < 0 && x->old && !x->bodyless)) c->keep = false;
  if (q && (x->expect || x->length - q->body_n > MR_HTTP_DISCARD_MAX))
    c->keep = false; /* its body may never come, or is not worth reading */
}

static struct mr_buf *head(struct mr_http_x *x, int status, const struct mr_str *headers, int n, int64_t length)
{
  struct mr_http_conn *c = x->c;
  struct mr_buf *b = &c->s->head;
  bool sized = status != 204 && status >= 200 && (length > 0 || status != 304);

  x->begun = true;
  x->bodyless = x->method == HTTP_HEAD || status == 204 || status == 304 || status < 200;
  x->left = length;
  decide_keep(x);
  x->chunked = length < 0 && !x->old;
  mr_buf_reset(b);
  mr_buf_printf(b, "HTTP/1.1 %d %s\r\ndate: %s\r\n", status, reason(status), date(c->s));
  for (int i = 0; i < n; i++)
    add_line(x, b, headers[i]);
  if (sized && x->chunked)
    mr_buf_c(b, "transfer-encoding: chunked\r\n");
  else if (sized && length >= 0)
    mr_buf_printf(b, "content-length: %lld\r\n", (long long)length);
  if (!c->keep)
    mr_buf_c(b, "connection: close\r\n");
  else if (x->old)
    mr_buf_c(b, "connection: keep-alive\r\n");
  mr_buf_c(b, "\r\n");
  if (b->failed) c->failed = true;
  return b;
}

static struct iovec vec(struct mr_str s)
{
  return (struct iovec){(char *)(uintptr_t)s.p, s.n};
}

/* ---- the answer ---- */

static bool may_begin(struct mr_http_x *x)
{
  if (!x->begun) return true;
  mr_log(x->c->s->sys, MR_LOG_ERROR, "http", MR_FMT ": answered twice, the second is dropped",
         MR_ARG(mr_http_path(x)));
  return false;
}

void mr_http_reply(struct mr_http_x *x, int status, const struct mr_str *headers, int n, struct mr_str body)
{
  struct iovec v[2];

  if (!may_begin(x)) return;
  v[0] = vec(mr_buf_get(head(x, status, headers, n, (int64_t)body.n)));
  v[1] = vec(body);
  x->left = 0;
  x->ended = true;
  mr_http_conn_send(x->c, v, x->bodyless || body.n == 0 ? 1 : 2);
  mr_http_conn_wake(x->c);
}

void mr_http_begin(struct mr_http_x *x, int status, const struct mr_str *headers, int n, int64_t length)
{
  struct iovec v;

  if (!may_begin(x)) return;
  v = vec(mr_buf_get(head(x, status, headers, n, length)));
  mr_http_conn_send(x->c, &v, 1);
  mr_http_conn_wake(x->c);
}

/* A piece is taken whole while the writer was told to go on; a writer that does not wait is bounded. A large piece is
 * no reason to refuse those that come behind it. */
static bool too_far(const struct mr_http_conn *c, size_t n)
{
  size_t waiting = mr_http_conn_waiting(c), most = c->s->o.max_out + c->slack;
  return waiting > (most < MORE_ABOVE ? most : MORE_ABOVE) && (n > most || waiting > most - n);
}

/* May n bytes more be sent? MR_OK; MR_MORE: nothing needs to be; MR_E_CLOSED. */
static int admit(struct mr_http_x *x, size_t n)
{
  struct mr_http_conn *c = x->c;

  if (c->failed || x->ended || !x->begun) return MR_E_CLOSED;
  if (!x->chunked && x->left >= 0) {
    if ((int64_t)n > x->left) {
      mr_log(c->s->sys, MR_LOG_ERROR, "http", MR_FMT ": an answer is longer than it said",
             MR_ARG(mr_http_path(x)));
      mr_http_cut(x);
      return MR_E_CLOSED;
    }
    x->left -= (int64_t)n;
  }
  if (n == 0 || x->bodyless) return MR_MORE;
  if (too_far(c, n)) {
    c->s->stats.cut++;
    mr_http_cut(x);
    return MR_E_CLOSED;
  }
  if (n > c->s->o.max_out / 2 && n > c->slack) c->slack = n;
  return MR_OK;
}

static int sent(struct mr_http_x *x)
{
  if (x->c->failed) return MR_E_CLOSED;
  if (mr_http_conn_waiting(x->c) <= MORE_ABOVE) return MR_OK;
  x->want_drain = true;
  return MR_MORE;
}

/* The line before a chunk, written so that it ends at end; returns where it begins. */
static char *chunk_line(char *end, size_t n)
{
  char *p = end - 2;

  memcpy(p, "\r\n", 2);
  do
    *--p = "0123456789abcdef"[n & 15];
  while (n >>= 4);
  return p;
}

int mr_http_write(struct mr_http_x *x, struct mr_str bytes)
{
  char line[MR_HTTP_ROOM];
  struct iovec v[3] = {{NULL, 0}, vec(bytes), vec(MR_S("\r\n"))};
  int code = admit(x, bytes.n);

  if (code != MR_OK) return code == MR_MORE ? MR_OK : code;
  v[0].iov_base = chunk_line(line + sizeof line, bytes.n);
  v[0].iov_len = (size_t)(line + sizeof line - (char *)v[0].iov_base);
  mr_http_conn_send(x->c, x->chunked ? v : v + 1, x->chunked ? 3 : 1);
  return sent(x);
}

int mr_http_write_room(struct mr_http_x *x, char *bytes, size_t n)
{
  struct iovec v = {bytes, n};
  int code = admit(x, n);

  if (code != MR_OK) return code == MR_MORE ? MR_OK : code;
  if (x->chunked) {
    v.iov_base = chunk_line(bytes, n);
    memcpy(bytes + n, "\r\n", 2);
    v.iov_len = (size_t)(bytes + n + 2 - (char *)v.iov_base);
  }
  mr_http_conn_send(x->c, &v, 1);
  return sent(x);
}

void mr_http_end(struct mr_http_x *x)
{
  struct mr_http_conn *c = x->c;
  struct iovec v = vec(MR_S("0\r\n\r\n"));

  if (x->ended || !x->begun) return;
  x->ended = true;
  if (x->chunked && !x->bodyless)
    mr_http_conn_send(c, &v, 1);
  else if (x->left > 0 && !x->bodyless)
    c->failed = true; /* less than announced: the peer must notice */
  mr_http_conn_wake(c);
}

void mr_http_cut(struct mr_http_x *x)
{
  x->c->failed = true;
  mr_http_conn_wake(x->c);
}

size_t mr_http_waiting(const struct mr_http_x *x)
{
  return mr_http_conn_waiting(x->c);
}

/* ---- what never became an exchange ---- */

void mr_http_refusal(struct mr_http_conn *c, int status, const char *why)
{
  char body[256], text[512];
  int m = snprintf(body, sizeof body, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"%s\"}}",
                   status >= 500 ? "api_error" : "invalid_request_error", why);
  int n = snprintf(text, sizeof text,
                   "HTTP/1.1 %d %s\r\ndate: %s\r\ncontent-type: application/json\r\n"
                   "content-length: %d\r\n%sconnection: close\r\n\r\n%s",
                   status, reason(status), date(c->s), m, status == 503 ? "retry-after: 1\r\n" : "", body);
  struct iovec v = {text, (size_t)n};

  mr_http_conn_send(c, &v, 1);
}
