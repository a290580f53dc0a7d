/*
 * http_parse.c - requests out of bytes: llhttp in its strict mode finds the structure, this file keeps the
 * head (bounded), makes the exchange, and hands the body on. Runs in the drain only.
 *
 * The head is kept as NUL-separated strings in one buffer: url, then name, value, name, value; at its end it
 * moves into the exchange's arena.
 */
#include "net/http_conn_t.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

static int keep(struct mr_http_conn *c, const char *p, size_t n, bool lower)
{
  size_t at = c->head.n;

  if (memchr(p, 0, n))
    return HPE_USER;
  mr_buf_add(&c->head, p, n);
  if (c->head.failed) {
    c->too_big = true;
    return HPE_USER;
  }
  for (size_t i = at; lower && i < c->head.n; i++)
    if (c->head.p[i] >= 'A' && c->head.p[i] <= 'Z')
      c->head.p[i] = (char)(c->head.p[i] + 32);
  return HPE_OK;
}

static int end_string(struct mr_http_conn *c)
{
  mr_buf_char(&c->head, '\0');
  c->too_big = c->too_big || c->head.failed;
  return c->head.failed ? HPE_USER : HPE_OK;
}

static int on_begin(llhttp_t *p)
{
  struct mr_http_conn *c = p->data;
  mr_buf_reset(&c->head);
  c->message_done = false;
  return HPE_OK;
}

static int on_url(llhttp_t *p, const char *at, size_t n) { return keep(p->data, at, n, false); }
static int on_name(llhttp_t *p, const char *at, size_t n) { return keep(p->data, at, n, true); }
static int on_value(llhttp_t *p, const char *at, size_t n) { return keep(p->data, at, n, false); }
static int on_string_end(llhttp_t *p) { return end_string(p->data); }

static struct mr_str next_string(struct mr_str *rest)
{
  struct mr_str s = mr_str_split(rest, '\0');
  return s;
}

static void peer_name(const struct mr_http_conn *c, struct mr_http_x *x)
{
  struct sockaddr_storage sa;
  socklen_t n = sizeof sa;
  char text[INET6_ADDRSTRLEN] = "";

  x->peer = MR_S("unix");
  if (getpeername(c->io.fd, (struct sockaddr *)&sa, &n) != 0)
    return;
  if (sa.ss_family == AF_INET) {
    struct sockaddr_in *in = (struct sockaddr_in *)&sa;
    inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
    x->peer = mr_str_c(mr_arena_printf(x->arena, "%s:%d", text, ntohs(in->sin_port)));
  } else if (sa.ss_family == AF_INET6) {
    struct sockaddr_in6 *in = (struct sockaddr_in6 *)&sa;
    inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof text);
    x->peer = mr_str_c(mr_arena_printf(x->arena, "[%s]:%d", text, ntohs(in->sin6_port)));
  }
}

static void read_target(struct mr_http_x *x, struct mr_str url)
{
  static const struct mr_str schemes[] = {{"http://", 7}, {"https://", 8}};

  for (int i = 0; i < 2; i++) /* absolute form: what a proxy would get */
    if (mr_str_starts(url, schemes[i])) {
      const char *slash = memchr(url.p + schemes[i].n, '/', url.n - schemes[i].n);
      url = slash ? mr_str_n(slash, url.n - (size_t)(slash - url.p)) : MR_S("/");
    }
  x->path = mr_str_split(&url, '?');
  x->query = url.p ? url : MR_S("");
  if (x->query.p) { /* no fragment belongs into a request; drop what a careless client sent */
    struct mr_str q = x->query;
    x->query = mr_str_split(&q, '#');
  }
}

/* The exchange of the head that is whole now. */
static struct mr_http_x *exchange(struct mr_http_conn *c)
{
  struct mr_arena *a = mr_arena_new(c->s->mem, c->head.n + sizeof(struct mr_http_x) + 512);
  struct mr_http_x *x = a ? mr_arena_alloc(a, sizeof *x) : NULL;
  struct mr_str rest, url;
  int n = 0;

  if (!x)
    goto nomem;
  x->arena = a;
  x->c = c;
  rest = mr_arena_str(a, mr_buf_get(&c->head));
  if (!rest.p)
    goto nomem;
  url = next_string(&rest);
  for (size_t i = 0; i < rest.n; i++)
    n += rest.p[i] == '\0';
  x->headers = mr_arena_alloc(a, ((size_t)n / 2 + 1) * sizeof *x->headers);
  if (!x->headers)
    goto nomem;
  while (rest.n) {
    x->headers[x->nheaders].name = next_string(&rest);
    x->headers[x->nheaders++].value = mr_str_trim(next_string(&rest));
  }
  x->method = mr_str_c(llhttp_method_name(llhttp_get_method(&c->parser)));
  x->head_only = llhttp_get_method(&c->parser) == HTTP_HEAD;
  x->old = c->parser.http_minor == 0;
  x->length = c->parser.flags & F_CHUNKED ? -1 : (int64_t)c->parser.content_length;
  x->expect = mr_str_ieq(mr_http_req_header(x, "expect"), MR_S("100-continue"));
  read_target(x, url);
  peer_name(c, x);
  return x;
nomem:
  mr_arena_free(&a);
  return NULL;
}

static int on_headers(llhttp_t *p)
{
  struct mr_http_conn *c = p->data;

  if (p->http_major != 1)
    return HPE_USER;
  c->x = exchange(c);
  if (!c->x)
    return HPE_USER;
  mr_buf_free(&c->head);
  c->state = MR_CONN_EXCHANGE;
  c->keep = llhttp_should_keep_alive(p) && !c->s->stopping;
  return HPE_PAUSED; /* the handler runs before the first byte of the body */
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
  struct mr_http_conn *c = p->data;
  struct mr_http_x *x = c->x;

  if (n == 0 || !x || !x->wants_body || x->over || x->ended || !x->cbs || !x->cbs->body)
    return HPE_OK; /* nobody wants it */
  x->body_seen += (int64_t)n;
  if (x->body_seen > x->body_max) {
    x->over = x->last_given = true;
    c->keep = false;
    x->cbs->body(x->ud, x, mr_str_n(NULL, 0), true);
    return HPE_OK;
  }
  if (x->cbs->body(x->ud, x, mr_str_n(at, n), false) == MR_MORE) {
    c->body_paused = true;
    return HPE_PAUSED;
  }
  return HPE_OK;
}

static int on_message(llhttp_t *p)
{
  struct mr_http_conn *c = p->data;

  c->message_done = true;
  return HPE_PAUSED; /* one request at a time */
}

static const llhttp_settings_t settings = {
    .on_message_begin = on_begin, .on_url = on_url, .on_url_complete = on_string_end,
    .on_header_field = on_name, .on_header_field_complete = on_string_end,
    .on_header_value = on_value, .on_header_value_complete = on_string_end,
    .on_headers_complete = on_headers, .on_body = on_body, .on_message_complete = on_message};

void mr_http_parse_init(struct mr_http_conn *c)
{
  llhttp_init(&c->parser, HTTP_REQUEST, &settings);
  c->parser.data = c;
}

int64_t mr_http_parse(struct mr_http_conn *c, struct mr_str bytes)
{
  enum llhttp_errno e = llhttp_execute(&c->parser, bytes.p, bytes.n);

  if (e == HPE_OK)
    return (int64_t)bytes.n;
  if (e == HPE_PAUSED) {
    int64_t used = llhttp_get_error_pos(&c->parser) - bytes.p;
    llhttp_resume(&c->parser);
    return used;
  }
  if (e == HPE_PAUSED_UPGRADE) { /* CONNECT or Upgrade: we speak HTTP/1.1 only; the handler answers */
    int64_t used = llhttp_get_error_pos(&c->parser) - bytes.p;
    c->keep = false;
    c->message_done = true;
    return used;
  }
  if (c->too_big)
    return MR_E_TOO_LARGE;
  if (c->parser.http_major != 1 && c->parser.http_major != 0)
    return MR_E_UNSUPPORTED;
  return MR_E_PROTOCOL;
}
