/*
 * envd_relay - the way out of the sandbox: listens on 127.0.0.1 for clients of the egress proxy and carries
 * their bytes to the server, which decides about each of them. envd looks at none of these bytes.
 *
 * Nothing in here has a path or a name: a stream to the proxy is a descriptor that the server sends on the
 * channel that it gave at its attach (proto.h). So the payload can reach its own session's proxy by the port,
 * and no other way. A server that went away takes its streams along; until one attaches clients are told so.
 * Memory and descriptors are bounded by ENVD_RELAYS: further clients wait in the backlog.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "envd.h"

enum { GIVE_MS = 15000, REFUSED_MS = 2000, BACKLOG = 128 };

static const char away[] =
    "HTTP/1.1 503 the network of this sandbox is away for a moment: try again\r\n"
    "Content-Type: text/plain\r\nContent-Length: 66\r\nRetry-After: 2\r\nConnection: close\r\n"
    "\r\nThe network of this sandbox is away for a moment. Try it again.\r\n\n";

void relay_init(struct envd *e)
{
  e->relays.listen = e->relays.channel = -1;
  for (int i = 0; i < ENVD_RELAYS; i++)
    e->relays.r[i].client = e->relays.r[i].server = -1;
}

bool relay_listen(struct envd *e, int port, char *why, size_t n)
{
  struct sockaddr_in sa = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
      bind(fd, (struct sockaddr *)(void *)&sa, sizeof sa) || listen(fd, BACKLOG)) {
    snprintf(why, n, "proxy_port %d: %s", port, strerror(errno));
    return false;
  }
  e->relays.listen = fd;
  return true;
}

static void relay_close(struct relay *r)
{
  if (r->client >= 0) close(r->client);
  if (r->server >= 0) close(r->server);
  free(r->up.p);
  free(r->down.p);
  *r = (struct relay){.client = -1, .server = -1};
}

/* A client that gets no server: told so, and given a moment to read it (a close would reset it). */
static void refuse(struct relay *r)
{
  r->refused = true;
  r->give_up = envd_now() + REFUSED_MS;
  if (send(r->client, away, sizeof away - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 || shutdown(r->client, SHUT_WR))
    relay_close(r);
}

static bool waits(const struct relay *r)
{
  return r->client >= 0 && r->server < 0 && !r->refused;
}

void relay_channel(struct envd *e, int fd)
{
  struct relays *s = &e->relays;
  if (s->channel >= 0) close(s->channel);
  s->channel = fd;
  for (int i = 0; i < ENVD_RELAYS; i++)
    if (waits(&s->r[i])) refuse(&s->r[i]);
}

static void accept_one(struct envd *e)
{
  struct relays *s = &e->relays;
  int on = 1, fd = accept4(s->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), i = 0;
  if (fd < 0) return;
  while (i < ENVD_RELAYS && s->r[i].client >= 0)
    i++;
  struct relay *r = &s->r[i];
  *r = (struct relay){.client = fd, .server = -1, .serial = ++s->serial, .give_up = envd_now() + GIVE_MS};
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  r->up.p = malloc(ENVD_RELAY_BUF);
  r->down.p = malloc(ENVD_RELAY_BUF);
  if (!r->up.p || !r->down.p || s->channel < 0 || send(s->channel, "c", 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1)
    refuse(r);
}

/* --- the channel ------------------------------------------------------------------------------------- */

static struct relay *oldest(struct relays *s)
{
  struct relay *first = NULL;
  for (int i = 0; i < ENVD_RELAYS; i++)
    if (waits(&s->r[i]) && (!first || s->r[i].serial < first->serial)) first = &s->r[i];
  return first;
}

/* One answer: *fd is the descriptor that came with it, or -1. */
static ssize_t answer(int channel, int *fd)
{
  union {
    struct cmsghdr h;
    char room[CMSG_SPACE(sizeof(int))];
  } control;
  char byte;
  struct iovec v = {.iov_base = &byte, .iov_len = 1};
  struct msghdr m = {
      .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
  ssize_t n = recvmsg(channel, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
  *fd = -1;
  if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int)))
    memcpy(fd, CMSG_DATA(h), sizeof(int));
  return n;
}

static void on_channel(struct envd *e)
{
  struct relays *s = &e->relays;
  for (int i = 0; i < ENVD_RELAYS && s->channel >= 0; i++) {
    int fd;
    ssize_t n = answer(s->channel, &fd);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
      relay_channel(e, -1);
      return;
    }
    struct relay *r = oldest(s);
    if (r && fd >= 0) {
      r->server = fd;
      r->give_up = 0;
    } else if (r) {
      refuse(r);
    } else if (fd >= 0) {
      close(fd);
    }
  }
}

/* --- bytes ------------------------------------------------------------------------------------------- */

/* Reads what fits; false: the relay is to be closed. */
static bool take(struct relay_way *w, int from)
{
  if (w->at == w->n) w->at = w->n = 0;
  if (w->eof || w->n == ENVD_RELAY_BUF) return true;
  ssize_t n = recv(from, w->p + w->n, ENVD_RELAY_BUF - w->n, MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) w->eof = true;
  w->n += (size_t)n;
  return true;
}

static bool give(struct relay_way *w, int to)
{
  while (w->at < w->n) {
    ssize_t n = send(to, w->p + w->at, w->n - w->at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    w->at += (size_t)n;
  }
  if (w->eof && !w->shut) {
    w->shut = true;
    shutdown(to, SHUT_WR);
  }
  return true;
}

static void on_side(struct relay *r, bool client, short revents)
{
  struct relay_way *in = client ? &r->up : &r->down, *out = client ? &r->down : &r->up;
  int fd = client ? r->client : r->server, other = client ? r->server : r->client;
  bool ok = !(revents & POLLERR);
  if (ok && (revents & (POLLIN | POLLHUP))) ok = take(in, fd) && give(in, other);
  if (ok && (revents & POLLOUT)) ok = give(out, fd);
  if (!ok || (r->up.shut && r->down.shut)) relay_close(r);
}

static void drop(struct relay *r)
{
  char sink[4096];
  ssize_t n = recv(r->client, sink, sizeof sink, MSG_DONTWAIT);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) relay_close(r);
}

/* --- the loop ---------------------------------------------------------------------------------------- */

static bool room(const struct relays *s)
{
  for (int i = 0; i < ENVD_RELAYS; i++)
    if (s->r[i].client < 0) return true;
  return false;
}

short relay_events(const struct envd *e, enum relay_what what, int i, int *fd)
{
  const struct relays *s = &e->relays;
  const struct relay *r = &s->r[i];
  *fd = what == RELAY_LISTEN    ? s->listen
        : what == RELAY_CHANNEL ? s->channel
        : what == RELAY_CLIENT  ? r->client
                                : r->server;
  if (*fd < 0) return 0;
  if (what == RELAY_LISTEN) return room(s) ? POLLIN : 0;
  if (what == RELAY_CHANNEL) return POLLIN;
  if (r->refused) return POLLIN;
  if (r->server < 0) return 0;
  const struct relay_way *in = what == RELAY_CLIENT ? &r->up : &r->down,
                         *out = what == RELAY_CLIENT ? &r->down : &r->up;
  bool full = in->n == ENVD_RELAY_BUF && in->at < in->n;
  return (short)((in->eof || full ? 0 : POLLIN) | (out->at < out->n ? POLLOUT : 0));
}

void relay_on(struct envd *e, enum relay_what what, int i, short revents)
{
  struct relay *r = &e->relays.r[i];
  if (what == RELAY_LISTEN)
    accept_one(e);
  else if (what == RELAY_CHANNEL)
    on_channel(e);
  else if (r->client >= 0 && r->refused)
    drop(r);
  else if (r->client >= 0 && r->server >= 0)
    on_side(r, what == RELAY_CLIENT, revents);
}

int64_t relay_due(const struct envd *e)
{
  int64_t due = INT64_MAX;
  for (int i = 0; i < ENVD_RELAYS; i++)
    if (e->relays.r[i].give_up && e->relays.r[i].give_up < due) due = e->relays.r[i].give_up;
  return due;
}

void relay_on_time(struct envd *e)
{
  int64_t now = envd_now();
  for (int i = 0; i < ENVD_RELAYS; i++) {
    struct relay *r = &e->relays.r[i];
    if (!r->give_up || now < r->give_up) continue;
    if (r->refused)
      relay_close(r);
    else
      refuse(r); /* the answer that still comes goes to a later one: both are this session's */
  }
}

/* Who was frozen could neither read nor be given anything. */
void relay_thaw(struct envd *e, int64_t ms)
{
  for (int i = 0; i < ENVD_RELAYS; i++)
    if (e->relays.r[i].give_up) e->relays.r[i].give_up += ms;
}
