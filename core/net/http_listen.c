/*
 * http_listen.c - where the server listens: addresses, sockets, accepting. See http_server.h.
 *
 * Accepting happens in the drain. Without descriptors it rests for a moment instead of spinning; over
 * max_connections a few peers are told 503 and the rest is closed. A socket file is replaced only when
 * nobody listens on it, and removed at the end only while it is still the one that was made here.
 */
#include "net/http_conn_t.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ACCEPTS = 64, BACKLOG = 1024, REFUSING_MAX = 64, REST_US = 100000 };

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
      event_add(l->ev, NULL);
    else
      event_del(l->ev);
  }
}

static void on_accept_again(struct mr_timer *t)
{
  struct mr_http_server *s = MR_OF(t, struct mr_http_server, accept_again);
  s->accept_paused = false;
  listening(s, true);
}

static void no_descriptors(struct mr_http_server *s)
{
  if (s->accept_paused) return;
  mr_log(s->sys, MR_LOG_WARN, "http", "no more connections can be accepted now: %s", strerror(errno));
  s->accept_paused = mr_timer_set(s->l, &s->accept_again, REST_US) == MR_OK;
  if (s->accept_paused) listening(s, false);
}

static struct mr_http_peer_addr peer_of(const struct sockaddr_storage *sa)
{
  struct mr_http_peer_addr p = {.family = (uint8_t)sa->ss_family};

  if (sa->ss_family == AF_INET) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
    p.port = in->sin_port;
    memcpy(p.ip, &in->sin_addr, sizeof in->sin_addr);
  } else if (sa->ss_family == AF_INET6) {
    const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)sa;
    p.port = in->sin6_port;
    memcpy(p.ip, &in->sin6_addr, sizeof in->sin6_addr);
  }
  return p;
}

static void accept_some(struct mr_ready *r)
{
  struct mr_http_listener *l = MR_OF(r, struct mr_http_listener, ready);
  struct mr_http_server *s = l->s;

  for (int i = 0; i < ACCEPTS && !s->accept_paused; i++) {
    struct sockaddr_storage sa = {0};
    socklen_t n = sizeof sa;
    int fd = accept4(l->fd, (struct sockaddr *)&sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct mr_http_peer_addr peer = peer_of(&sa);
    if (fd < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        no_descriptors(s);
      else if (errno == ECONNABORTED || errno == EINTR)
        continue;
      return;
    }
    if (s->stats.connections < s->o.max_connections) {
      mr_http_conn_new(l, fd, &peer, false);
    } else if (!l->tls && s->refusing < REFUSING_MAX) {
      mr_http_conn_new(l, fd, &peer, true);
    } else {
      s->stats.refused++;
      close(fd);
    }
  }
}

/* ---- addresses ---- */

struct where {
  struct sockaddr_storage sa;
  socklen_t n;
  int mode; /* of a unix socket */
};

static bool is_loopback(const struct sockaddr_storage *sa)
{
  const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
  const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;

  if (sa->ss_family == AF_INET) return (ntohl(in->sin_addr.s_addr) >> 24) == 127;
  if (sa->ss_family == AF_INET6)
    return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr) && in6->sin6_addr.s6_addr[12] == 127);
  return sa->ss_family == AF_UNIX;
}

/* An octal mode of one to four digits, or -1. */
static int read_mode(struct mr_str text)
{
  int mode = text.n >= 1 && text.n <= 4 ? 0 : -1;

  for (size_t i = 0; i < text.n && mode >= 0; i++)
    mode = text.p[i] >= '0' && text.p[i] <= '7' ? mode * 8 + (text.p[i] - '0') : -1;
  return mode > 0777 ? -1 : mode;
}

static int unix_where(struct mr_str text, struct where *w, struct mr_err *err)
{
  struct sockaddr_un *un = (struct sockaddr_un *)&w->sa;
  struct mr_str path = mr_str_split(&text, ',');

  if (path.n == 0 || path.n >= sizeof un->sun_path)
    return mr_err_set(err, MR_E_INVALID, "listen", "listen: a socket's path has 1 to %zu bytes",
                      sizeof un->sun_path - 1);
  w->mode = text.p ? read_mode(text) : -1;
  if (text.p && w->mode < 0)
    return mr_err_set(err, MR_E_INVALID, "listen", "listen: unix:/path,MODE takes an octal mode, as 0660");
  un->sun_family = AF_UNIX;
  memcpy(un->sun_path, path.p, path.n);
  w->n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.n + 1);
  return MR_OK;
}

static bool read_host(const char *host, in_port_t port, struct where *w)
{
  struct sockaddr_in *in = (struct sockaddr_in *)&w->sa;
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&w->sa;

  if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
    in->sin_family = AF_INET;
    in->sin_port = port;
    w->n = sizeof *in;
    return true;
  }
  if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
    in6->sin6_family = AF_INET6;
    in6->sin6_port = port;
    w->n = sizeof *in6;
    return true;
  }
  return false;
}

static int inet_where(struct mr_str text, struct where *w, struct mr_err *err)
{
  char host[64];
  struct mr_str h = text, p;
  int64_t port;

  while (h.n > 0 && h.p[h.n - 1] != ':')
    h.n--;
  p = mr_str_n(text.p + h.n, text.n - h.n);
  if (h.n == 0 || mr_str_int(p, &port) != MR_OK || port < 0 || port > 65535) goto bad;
  h.n--;
  if (mr_str_is(h, "localhost")) h = MR_S("127.0.0.1");
  if (h.n > 2 && h.p[0] == '[' && h.p[h.n - 1] == ']') h = mr_str_n(h.p + 1, h.n - 2);
  if (h.n >= sizeof host) goto bad;
  snprintf(host, sizeof host, MR_FMT, MR_ARG(h));
  if (read_host(host, htons((uint16_t)port), w)) return MR_OK;
bad:
  return mr_err_set(err, MR_E_INVALID, "listen",
                    "listen: \"" MR_FMT "\" is not 127.0.0.1:8400, [::1]:8400, "
                    "unix:/path[,mode] or fd:N",
                    (int)(text.n > 80 ? 80 : text.n), text.n ? text.p : "");
}

/* ---- sockets ---- */

/* A socket file that nobody listens on any more is in the way. Everything else stays, and bind fails. */
static void remove_stale(const struct where *w)
{
  const struct sockaddr_un *un = (const struct sockaddr_un *)&w->sa;
  struct stat st;
  int fd;

  if (lstat(un->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode)) return;
  fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  if (connect(fd, (const struct sockaddr *)&w->sa, w->n) != 0 && errno == ECONNREFUSED) unlink(un->sun_path);
  close(fd);
}

static int open_socket(const struct where *w, const char *address, int *out, struct mr_err *err)
{
  int one = 1, code, fd = socket(w->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const char *path = ((const struct sockaddr_un *)&w->sa)->sun_path;
  bool local = w->sa.ss_family == AF_UNIX, bound = false;

  if (fd < 0) return mr_err_errno(err, "socket");
  if (local)
    remove_stale(w);
  else
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (w->sa.ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  bound = bind(fd, (const struct sockaddr *)&w->sa, w->n) == 0;
  /* The mode before listen: until then nobody can connect. */
  if (!bound || (local && w->mode >= 0 && chmod(path, (mode_t)w->mode) != 0) || listen(fd, BACKLOG) != 0) {
    code = errno == EADDRINUSE
               ? mr_err_set(err, MR_E_IO, NULL, "%s: another program listens there; listen on another %s",
                            address, local ? "path" : "port, or on port 0 for any free one")
               : mr_err_errno(err, address);
    if (bound && local) unlink(path);
    close(fd);
    return code;
  }
  *out = fd;
  return MR_OK;
}

static int given_socket(struct mr_str text, struct where *w, int *out, struct mr_err *err)
{
  int64_t n;
  int listens = 0, flags;
  socklen_t len = sizeof listens;

  w->n = sizeof w->sa;
  if (mr_str_int(text, &n) != MR_OK || n < 3 || n > 1 << 20 ||
      getsockopt((int)n, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) != 0 || !listens ||
      getsockname((int)n, (struct sockaddr *)&w->sa, &w->n) != 0)
    return mr_err_set(err, MR_E_INVALID, "listen", "listen: fd:" MR_FMT " is not a listening stream socket",
                      MR_ARG(text));
  *out = fcntl((int)n, F_DUPFD_CLOEXEC, 3);
  flags = *out >= 0 ? fcntl(*out, F_GETFL) : -1;
  if (flags < 0 || fcntl(*out, F_SETFL, flags | O_NONBLOCK) != 0) return mr_err_errno(err, "listen: fd");
  return MR_OK;
}

/* Accepted connections inherit these. */
static void tune(int fd)
{
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
}

static void write_actual(int fd, bool tls, char *actual, size_t n)
{
  struct sockaddr_storage sa = {0};
  struct sockaddr_in *in = (struct sockaddr_in *)&sa;
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&sa;
  const char *scheme = tls ? "https" : "http";
  socklen_t len = sizeof sa;
  char host[INET6_ADDRSTRLEN] = "";

  getsockname(fd, (struct sockaddr *)&sa, &len);
  if (sa.ss_family == AF_INET) {
    inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
    snprintf(actual, n, "%s://%s:%d", scheme, host, ntohs(in->sin_port));
  } else if (sa.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
    snprintf(actual, n, "%s://[%s]:%d", scheme, host, ntohs(in6->sin6_port));
  } else {
    snprintf(actual, n, "unix:%s", ((struct sockaddr_un *)&sa)->sun_path);
  }
}

/* ---- whose address is it? ---- */

static in_port_t port_of(const struct sockaddr *sa)
{
  if (sa->sa_family == AF_INET) return ((const struct sockaddr_in *)(const void *)sa)->sin_port;
  return sa->sa_family == AF_INET6 ? ((const struct sockaddr_in6 *)(const void *)sa)->sin6_port : 0;
}

/* One of this machine's own addresses: who speaks to it speaks from it. No packet is sent. */
static bool is_own(const struct sockaddr *sa)
{
  struct sockaddr_storage from = {0};
  socklen_t n = sa->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in),
            k = sizeof from;
  int fd = socket(sa->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  bool own = fd >= 0 && connect(fd, sa, n) == 0 && getsockname(fd, (struct sockaddr *)&from, &k) == 0;

  if (fd >= 0) close(fd);
  if (!own) return false;
  if (sa->sa_family == AF_INET) {
    in_addr_t a = ((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr;
    return a == INADDR_ANY || ntohl(a) >> 24 == 127 ||
           a == ((const struct sockaddr_in *)&from)->sin_addr.s_addr;
  }
  const struct in6_addr *a = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
  return IN6_IS_ADDR_UNSPECIFIED(a) || IN6_IS_ADDR_V4MAPPED(a) ||
         memcmp(a, &((const struct sockaddr_in6 *)&from)->sin6_addr, sizeof *a) == 0;
}

bool mr_http_server_answers(const struct mr_http_server *s, const struct sockaddr *sa)
{
  in_port_t port = port_of(sa);

  for (const struct mr_http_listener *l = s->listeners; l && port; l = l->next) {
    struct sockaddr_storage at = {0};
    socklen_t n = sizeof at;
    if (getsockname(l->fd, (struct sockaddr *)&at, &n) == 0 && port_of((struct sockaddr *)&at) == port)
      return is_own(sa);
  }
  return false;
}

/* ---- listeners ---- */

static void listener_free(struct mr_http_listener *l)
{
  const struct mr_mem *m = l->s->mem;
  struct stat st;

  mr_ready_cancel(l->s->l, &l->ready);
  if (l->ev) event_free(l->ev);
  if (l->fd >= 0) close(l->fd);
  if (l->unix_path && lstat(l->unix_path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
    unlink(l->unix_path);
  mr_mem_free(m, l->unix_path);
  mr_http_tls_free(&l->tls); /* connections keep their own reference */
  mr_mem_free(m, l);
}

void mr_http_listeners_close(struct mr_http_server *s)
{
  struct mr_http_listener *l;

  mr_timer_cancel(s->l, &s->accept_again);
  while ((l = s->listeners)) {
    s->listeners = l->next;
    listener_free(l);
  }
}

static int find_where(const struct mr_http_listen *o, struct where *w, int *fd, struct mr_err *err)
{
  struct mr_str a = mr_str_c(o->address);
  int code;

  if (mr_str_starts(a, MR_S("fd:")))
    code = given_socket(mr_str_n(a.p + 3, a.n - 3), w, fd, err);
  else if (mr_str_starts(a, MR_S("unix:")))
    code = unix_where(mr_str_n(a.p + 5, a.n - 5), w, err);
  else
    code = inet_where(a, w, err);
  if (code != MR_OK) return code;
  if (!o->tls_cert && o->tls_key)
    return mr_err_set(err, MR_E_INVALID, "tls_cert", "tls_cert: needed with tls_key");
  if (!is_loopback(&w->sa) && !o->tls_cert && !o->insecure_http)
    return mr_err_set(err, MR_E_DENIED, "listen",
                      "listen: %s is not loopback, and API keys would cross the network "
                      "unencrypted: give a TLS certificate, or insecure_http (--insecure-http)",
                      o->address);
  return MR_OK;
}

static int watch_socket(struct mr_http_listener *l, bool own_file, const struct where *w, struct mr_err *err)
{
  const char *path = ((const struct sockaddr_un *)&w->sa)->sun_path;
  struct stat st;

  if (own_file && stat(path, &st) == 0) {
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    l->unix_path = mr_mem_strdup(l->s->mem, mr_str_c(path));
    if (!l->unix_path) return mr_err_nomem(err);
  }
  if (w->sa.ss_family != AF_UNIX) tune(l->fd);
  l->ev = event_new(mr_loop_base(l->s->l), l->fd, EV_READ | EV_PERSIST, on_acceptable, l);
  return l->ev && event_add(l->ev, NULL) == 0 ? MR_OK : mr_err_nomem(err);
}

int mr_http_server_listen(struct mr_http_server *s, const struct mr_http_listen *o, char *actual, size_t n,
                          struct mr_err *err)
{
  struct mr_http_listener *l = mr_mem_zalloc(s->mem, sizeof *l);
  struct where w = {.mode = -1};
  bool given = mr_str_starts(mr_str_c(o->address), MR_S("fd:"));
  int code;

  if (!l) return mr_err_nomem(err);
  l->s = s;
  l->fd = -1;
  mr_ready_init(&l->ready, accept_some);
  if (!s->accept_again.fn) mr_timer_init(&s->accept_again, on_accept_again);
  code = s->stopping ? mr_err_set(err, MR_E_CLOSED, NULL, "the server is stopping") : MR_OK;
  if (code == MR_OK) code = find_where(o, &w, &l->fd, err);
  if (code == MR_OK && o->tls_cert)
    code = mr_http_tls_new(&l->tls, s->mem, o->tls_cert, o->tls_key ? o->tls_key : o->tls_cert, err);
  if (code == MR_OK && !given) code = open_socket(&w, o->address, &l->fd, err);
  if (code == MR_OK) code = watch_socket(l, !given && w.sa.ss_family == AF_UNIX, &w, err);
  if (code != MR_OK) {
    listener_free(l);
    return code;
  }
  l->next = s->listeners;
  s->listeners = l;
  write_actual(l->fd, l->tls != NULL, actual, n);
  return MR_OK;
}
