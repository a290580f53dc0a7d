/*
 * http_server.c - the server's face: listeners, and what a handler may ask of an exchange. See http_server.h;
 * connections are in http_conn.c, parsing in http_parse.c.
 */
#include "net/http_conn_t.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { IN_SIZE = 64 << 10, ACCEPTS = 64, BACKLOG = 1024, MORE_ABOVE = 256 << 10 };

/* ---- accepting ---- */

static void on_acceptable(evutil_socket_t fd, short what, void *ud)
{
  struct mr_http_listener *l = ud;
  (void)fd;
  (void)what;
  mr_ready_post(l->s->l, &l->ready);
}

static void listening(struct mr_http_server *s, bool on)
{
  for (struct mr_http_listener *l = s->listeners; l; l = l->next) {
    if (on)
      event_add(&l->ev, NULL);
    else
      event_del(&l->ev);
  }
}

static void on_accept_again(struct mr_timer *t)
{
  struct mr_http_server *s = MR_OF(t, struct mr_http_server, accept_again);
  s->accept_paused = false;
  if (!s->stopping)
    listening(s, true);
}

static void no_descriptors(struct mr_http_server *s)
{
  if (s->accept_paused)
    return;
  mr_log(s->sys, MR_LOG_WARN, "http", "no more connections can be accepted now: %s", strerror(errno));
  s->accept_paused = true;
  listening(s, false);
  mr_timer_set(s->l, &s->accept_again, 100000);
}

static void turn_away(int fd)
{
  static const char text[] = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\n"
                             "connection: close\r\n\r\n";
  if (send(fd, text, sizeof text - 1, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
    shutdown(fd, SHUT_WR);
  close(fd);
}

static void accept_some(struct mr_ready *r)
{
  struct mr_http_listener *l = MR_OF(r, struct mr_http_listener, ready);
  struct mr_http_server *s = l->s;
  int one = 1;

  for (int i = 0; i < ACCEPTS && !s->stopping; i++) {
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
      no_descriptors(s);
    if (fd < 0)
      return;
    if (s->stats.connections >= s->o.max_connections) {
      s->stats.refused++;
      turn_away(fd);
      continue;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    mr_http_conn_new(l, fd);
  }
}

/* ---- addresses ---- */

struct where {
  struct sockaddr_storage sa;
  socklen_t n;
  bool loopback;
  int mode;                      /* of a unix socket; -1 = as umask says */
};

static int unix_where(struct mr_str text, struct where *w, struct mr_err *err)
{
  struct sockaddr_un *un = (struct sockaddr_un *)&w->sa;
  struct mr_str path = mr_str_split(&text, ',');

  if (path.n == 0 || path.n >= sizeof un->sun_path)
    return mr_err_set(err, MR_E_INVALID, "listen", "listen: a socket's path has 1 to %zu bytes",
                      sizeof un->sun_path - 1);
  if (text.p) {
    w->mode = 0;
    for (size_t i = 0; i < text.n; i++) {
      if (text.p[i] < '0' || text.p[i] > '7' || text.n > 4)
        return mr_err_set(err, MR_E_INVALID, "listen", "listen: unix:/path,MODE takes an octal mode, as 0660");
      w->mode = w->mode * 8 + (text.p[i] - '0');
    }
  }
  un->sun_family = AF_UNIX;
  memcpy(un->sun_path, path.p, path.n);
  w->n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.n + 1);
  w->loopback = true;
  return MR_OK;
}

static int inet_where(struct mr_str text, struct where *w, struct mr_err *err)
{
  struct sockaddr_in *in = (struct sockaddr_in *)&w->sa;
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&w->sa;
  char host[64];
  struct mr_str h, p;
  int64_t port;
  size_t colon = text.n;

  while (colon > 0 && text.p[colon - 1] != ':')
    colon--;
  if (colon == 0)
    goto bad;
  h = mr_str_n(text.p, colon - 1);
  p = mr_str_n(text.p + colon, text.n - colon);
  if (mr_str_int(p, &port) != MR_OK || port < 0 || port > 65535 || h.n >= sizeof host)
    goto bad;
  if (mr_str_is(h, "localhost"))
    h = MR_S("127.0.0.1");
  if (h.n > 2 && h.p[0] == '[' && h.p[h.n - 1] == ']')
    h = mr_str_n(h.p + 1, h.n - 2);
  snprintf(host, sizeof host, MR_FMT, MR_ARG(h));
  if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    w->n = sizeof *in;
    w->loopback = (ntohl(in->sin_addr.s_addr) >> 24) == 127;
    return MR_OK;
  }
  if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    w->n = sizeof *in6;
    w->loopback = IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    return MR_OK;
  }
bad:
  return mr_err_set(err, MR_E_INVALID, "listen", "listen: \"" MR_FMT "\" is not 127.0.0.1:8400, [::1]:8400, "
                    "unix:/path[,mode] or fd:N", (int)(text.n > 80 ? 80 : text.n), text.p);
}

/* A socket file that nobody listens on any more is in the way. */
static void remove_stale(const struct where *w)
{
  const struct sockaddr_un *un = (const struct sockaddr_un *)&w->sa;
  struct stat st;
  int fd;

  if (lstat(un->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode))
    return;
  fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return;
  if (connect(fd, (const struct sockaddr *)&w->sa, w->n) != 0 && errno == ECONNREFUSED)
    unlink(un->sun_path);
  close(fd);
}

static int open_socket(const struct where *w, const char *address, int *out, struct mr_err *err)
{
  int one = 1, fd = socket(w->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const struct sockaddr_un *un = (const struct sockaddr_un *)&w->sa;

  if (fd < 0)
    return mr_err_errno(err, "socket");
  if (w->sa.ss_family == AF_UNIX)
    remove_stale(w);
  else
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (w->sa.ss_family == AF_INET6)
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  if (bind(fd, (const struct sockaddr *)&w->sa, w->n) != 0 || listen(fd, BACKLOG) != 0 ||
      (w->sa.ss_family == AF_UNIX && w->mode >= 0 && chmod(un->sun_path, (mode_t)w->mode) != 0)) {
    int code = mr_err_errno(err, address);
    close(fd);
    return code;
  }
  *out = fd;
  return MR_OK;
}

static int given_socket(struct mr_str text, struct where *w, int *out, struct mr_err *err)
{
  int64_t n;
  int type = 0, flags;
  socklen_t len = sizeof type;

  w->n = sizeof w->sa;
  if (mr_str_int(text, &n) != MR_OK || n < 3 || n > 1 << 20 ||
      getsockopt((int)n, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM ||
      getsockname((int)n, (struct sockaddr *)&w->sa, &w->n) != 0)
    return mr_err_set(err, MR_E_INVALID, "listen", "listen: fd:" MR_FMT " is not a listening stream socket",
                      MR_ARG(text));
  *out = fcntl((int)n, F_DUPFD_CLOEXEC, 3);
  if (*out < 0)
    return mr_err_errno(err, "fd");
  flags = fcntl(*out, F_GETFL);
  fcntl(*out, F_SETFL, flags | O_NONBLOCK);
  if (w->sa.ss_family == AF_UNIX)
    w->loopback = true;
  else if (w->sa.ss_family == AF_INET)
    w->loopback = (ntohl(((struct sockaddr_in *)&w->sa)->sin_addr.s_addr) >> 24) == 127;
  else if (w->sa.ss_family == AF_INET6)
    w->loopback = IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)&w->sa)->sin6_addr);
  return MR_OK;
}

static void write_actual(int fd, bool tls, char *actual, size_t n)
{
  struct sockaddr_storage sa = {0};
  socklen_t len = sizeof sa;
  char host[INET6_ADDRSTRLEN] = "";

  getsockname(fd, (struct sockaddr *)&sa, &len);
  if (sa.ss_family == AF_UNIX) {
    snprintf(actual, n, "unix:%s", ((struct sockaddr_un *)&sa)->sun_path);
  } else if (sa.ss_family == AF_INET) {
    inet_ntop(AF_INET, &((struct sockaddr_in *)&sa)->sin_addr, host, sizeof host);
    snprintf(actual, n, "%s://%s:%d", tls ? "https" : "http", host, ntohs(((struct sockaddr_in *)&sa)->sin_port));
  } else {
    inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&sa)->sin6_addr, host, sizeof host);
    snprintf(actual, n, "%s://[%s]:%d", tls ? "https" : "http", host,
             ntohs(((struct sockaddr_in6 *)&sa)->sin6_port));
  }
}

int mr_http_server_listen(struct mr_http_server *s, const struct mr_http_listen *o, char *actual, size_t n,
                          struct mr_err *err)
{
  struct mr_str address = mr_str_c(o->address);
  struct mr_http_listener *l = NULL;
  struct where w = {.mode = -1};
  struct mr_http_tls *tls = NULL;
  bool given = mr_str_starts(address, MR_S("fd:"));
  int fd = -1, code;

  if (given)
    code = given_socket(mr_str_n(address.p + 3, address.n - 3), &w, &fd, err);
  else if (mr_str_starts(address, MR_S("unix:")))
    code = unix_where(mr_str_n(address.p + 5, address.n - 5), &w, err);
  else
    code = inet_where(address, &w, err);
  if (code == MR_OK && !w.loopback && !o->tls_cert && !o->insecure_http)
    code = mr_err_set(err, MR_E_DENIED, "listen", "listen: %s is not loopback, and API keys would cross the network "
                      "unencrypted: give a TLS certificate, or insecure_http (--insecure-http)", o->address);
  if (code == MR_OK && o->tls_cert)
    code = mr_http_tls_new(&tls, s->mem, o->tls_cert, o->tls_key ? o->tls_key : o->tls_cert, err);
  if (code == MR_OK && !given)
    code = open_socket(&w, o->address, &fd, err);
  if (code == MR_OK && !(l = mr_mem_zalloc(s->mem, sizeof *l)))
    code = mr_err_nomem(err);
  if (code != MR_OK) {
    mr_http_tls_free(&tls);
    if (fd >= 0)
      close(fd);
    return code;
  }
  l->s = s;
  l->fd = fd;
  l->tls = tls;
  if (w.sa.ss_family == AF_UNIX && !given)
    l->unix_path = mr_mem_strdup(s->mem, mr_str_c(((struct sockaddr_un *)&w.sa)->sun_path));
  mr_ready_init(&l->ready, accept_some);
  event_assign(&l->ev, mr_loop_base(s->l), fd, EV_READ | EV_PERSIST, on_acceptable, l);
  l->next = s->listeners;
  s->listeners = l;
  event_add(&l->ev, NULL);
  write_actual(fd, tls != NULL, actual, n);
  return MR_OK;
}

/* ---- the server's life ---- */

int mr_http_server_new(struct mr_http_server **out, struct mr_loop *l, const struct mr_http_server_opts *o,
                       struct mr_err *err)
{
  const struct mr_sys *sys = mr_loop_sys(l);
  struct mr_http_server *s = mr_mem_zalloc(&sys->mem, sizeof *s);

  *out = NULL;
  if (!s || !(s->in = mr_mem_alloc(&sys->mem, IN_SIZE))) {
    mr_mem_free(&sys->mem, s);
    return mr_err_nomem(err);
  }
  s->l = l;
  s->sys = sys;
  s->mem = &sys->mem;
  s->o = *o;
  s->o.max_connections = o->max_connections ? o->max_connections : 10000;
  s->o.max_header = o->max_header ? o->max_header : 32 << 10;
  s->o.idle_ms = o->idle_ms ? o->idle_ms : 75000;
  s->o.header_ms = o->header_ms ? o->header_ms : 15000;
  s->o.max_out = o->max_out ? o->max_out : 4 << 20;
  mr_buf_init(&s->scratch, s->mem, SIZE_MAX / 2);
  mr_timer_init(&s->accept_again, on_accept_again);
  *out = s;
  return MR_OK;
}

static void close_listeners(struct mr_http_server *s)
{
  struct mr_http_listener *l;

  mr_timer_cancel(s->l, &s->accept_again);
  while ((l = s->listeners)) {
    s->listeners = l->next;
    mr_ready_cancel(s->l, &l->ready);
    event_del(&l->ev);
    close(l->fd);
    if (l->unix_path)
      unlink(l->unix_path);
    mr_mem_free(s->mem, l->unix_path);
    mr_http_tls_free(&l->tls); /* connections keep their sessions' context alive */
    mr_mem_free(s->mem, l);
  }
}

void mr_http_server_stop(struct mr_http_server *s)
{
  if (s->stopping)
    return;
  s->stopping = true;
  close_listeners(s);
  for (struct mr_http_conn *c = s->conns; c; c = c->next) {
    c->keep = false;
    mr_http_conn_wake(c);
  }
}

int mr_http_server_active(const struct mr_http_server *s) { return s->active; }

void mr_http_server_free(struct mr_http_server **sp)
{
  struct mr_http_server *s = *sp;

  if (!s)
    return;
  s->stopping = true;
  while (s->conns)
    mr_http_conn_kill(s->conns);
  close_listeners(s);
  mr_buf_free(&s->scratch);
  mr_mem_free(s->mem, s->in);
  mr_mem_free(s->mem, s);
  *sp = NULL;
}

void mr_http_server_stats(const struct mr_http_server *s, struct mr_http_server_stats *out) { *out = s->stats; }

/* ---- the request ---- */

struct mr_str mr_http_method(const struct mr_http_x *x) { return x->method; }
struct mr_str mr_http_path(const struct mr_http_x *x) { return x->path; }
struct mr_str mr_http_query(const struct mr_http_x *x) { return x->query; }
int64_t mr_http_content_length(const struct mr_http_x *x) { return x->length; }
struct mr_str mr_http_peer(const struct mr_http_x *x) { return x->peer; }
struct mr_arena *mr_http_arena(struct mr_http_x *x) { return x->arena; }
struct mr_loop *mr_http_loop(struct mr_http_x *x) { return x->c->s->l; }

struct mr_str mr_http_req_header(const struct mr_http_x *x, const char *name)
{
  for (int i = 0; i < x->nheaders; i++)
    if (mr_str_is(x->headers[i].name, name))
      return x->headers[i].value.p ? x->headers[i].value : MR_S("");
  return mr_str_n(NULL, 0);
}

void mr_http_set(struct mr_http_x *x, const struct mr_http_x_cbs *cbs, void *ud)
{
  x->cbs = cbs;
  x->ud = ud;
}

void mr_http_body(struct mr_http_x *x, int64_t max)
{
  x->wants_body = true;
  x->body_max = max;
  if (x->length > max) { /* known before the first byte: the handler hears of it from the drain */
    x->over = true;
    x->c->keep = false;
    return;
  }
  if (x->expect && x->c && x->body_seen == 0 && !x->begun)
    mr_http_conn_send(x->c, MR_S("HTTP/1.1 100 Continue\r\n\r\n"));
}

bool mr_http_body_over(const struct mr_http_x *x) { return x->over; }

void mr_http_body_resume(struct mr_http_x *x)
{
  if (!x->c)
    return;
  x->c->body_paused = false;
  x->c->readable = true;
  mr_http_conn_wake(x->c);
}

/* ---- the answer ---- */

static const char *reason(int status)
{
  static const struct { int status; const char *text; } known[] = {
      {200, "OK"}, {201, "Created"}, {204, "No Content"}, {304, "Not Modified"}, {400, "Bad Request"},
      {401, "Unauthorized"}, {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"},
      {408, "Request Timeout"}, {409, "Conflict"}, {412, "Precondition Failed"}, {413, "Content Too Large"},
      {429, "Too Many Requests"}, {500, "Internal Server Error"}, {501, "Not Implemented"},
      {503, "Service Unavailable"}, {504, "Gateway Timeout"}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i].status == status)
      return known[i].text;
  return "Unknown";
}

static void write_head(struct mr_http_x *x, int status, const struct mr_str *headers, int n, int64_t length)
{
  struct mr_buf *b = &x->c->s->scratch;
  struct mr_http_conn *c = x->c;

  x->begun = true;
  x->left = length;
  x->chunked = length < 0 && !x->old;
  x->until_close = length < 0 && x->old;
  if (x->until_close || c->s->stopping)
    c->keep = false;
  mr_buf_reset(b);
  mr_buf_printf(b, "HTTP/1.1 %d %s\r\n", status, reason(status));
  for (int i = 0; i < n; i++) {
    mr_buf_str(b, headers[i]);
    mr_buf_c(b, "\r\n");
  }
  if (x->chunked)
    mr_buf_c(b, "transfer-encoding: chunked\r\n");
  else if (length >= 0)
    mr_buf_printf(b, "content-length: %lld\r\n", (long long)length);
  if (!c->keep)
    mr_buf_c(b, "connection: close\r\n");
  else if (x->old)
    mr_buf_c(b, "connection: keep-alive\r\n");
  mr_buf_c(b, "\r\n");
}

static void send_scratch(struct mr_http_conn *c)
{
  if (c->s->scratch.failed)
    c->failed = true;
  mr_http_conn_send(c, mr_buf_get(&c->s->scratch));
  if (c->s->scratch.cap > 1 << 20)
    mr_buf_free(&c->s->scratch);
}

void mr_http_reply(struct mr_http_x *x, int status, const struct mr_str *headers, int n, struct mr_str body)
{
  if (!x->c || x->begun)
    return;
  write_head(x, status, headers, n, (int64_t)body.n);
  if (!x->head_only)
    mr_buf_str(&x->c->s->scratch, body);
  x->left = 0;
  x->ended = true;
  send_scratch(x->c);
  mr_http_conn_wake(x->c);
}

void mr_http_begin(struct mr_http_x *x, int status, const struct mr_str *headers, int n, int64_t length)
{
  if (!x->c || x->begun)
    return;
  write_head(x, status, headers, n, length);
  send_scratch(x->c);
}

int mr_http_write(struct mr_http_x *x, struct mr_str bytes)
{
  struct mr_http_conn *c = x->c;

  if (!c || c->failed || x->ended)
    return MR_E_CLOSED;
  if (bytes.n == 0 || x->head_only)
    return MR_OK;
  if (x->left >= 0 && !x->chunked && !x->until_close) {
    if ((int64_t)bytes.n > x->left)
      bytes.n = (size_t)x->left; /* never more than was announced */
    x->left -= (int64_t)bytes.n;
  }
  if (x->chunked) {
    struct mr_buf *b = &c->s->scratch;
    mr_buf_reset(b);
    mr_buf_printf(b, "%zx\r\n", bytes.n);
    mr_buf_str(b, bytes);
    mr_buf_c(b, "\r\n");
    send_scratch(c);
  } else {
    mr_http_conn_send(c, bytes);
  }
  if (c->failed)
    return MR_E_CLOSED;
  if (c->out.n <= MORE_ABOVE)
    return MR_OK;
  x->want_drain = true;
  return MR_MORE;
}

void mr_http_end(struct mr_http_x *x)
{
  struct mr_http_conn *c = x->c;

  if (!c || x->ended)
    return;
  x->ended = true;
  if (x->chunked && !x->head_only)
    mr_http_conn_send(c, MR_S("0\r\n\r\n"));
  else if (x->left > 0 && !x->head_only)
    c->failed = true; /* less than announced: the peer must notice */
  mr_http_conn_wake(c);
}

void mr_http_cut(struct mr_http_x *x)
{
  if (!x->c)
    return;
  x->c->failed = true;
  mr_http_conn_wake(x->c);
}

size_t mr_http_waiting(const struct mr_http_x *x) { return x->c ? x->c->out.n : 0; }
