/*
 * envd_conn - connections to the server: frames in, frames out. Only the host can reach the socket, so a bad
 * frame is a broken server, not an attack: it ends the connection, and the calls go on.
 *
 * One connection is attached; the last to attach wins. Bounded: a frame by its maximum, its memory by the
 * bytes that came; what waits to be read by ENVD_OUT_MAX, past which the connection is cut, and its reader
 * comes back and asks for the status of its calls.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "envd.h"

void conn_close(struct envd *e, int i)
{
  struct conn *c = &e->conns[i];
  if (c->fd < 0) return;
  close(c->fd);
  if (c->given >= 0) close(c->given);
  ebuf_free(&c->in);
  ebuf_free(&c->out);
  *c = (struct conn){.fd = -1, .given = -1};
  if (e->freezer == i) freeze_end(e);
  if (e->attached != i) return;
  e->attached = -1;
  relay_channel(e, -1);
  e->orphan_at = envd_now() + e->cfg.orphan_ms;
  calls_detached(e);
}

void conn_write(struct envd *e, int i)
{
  struct conn *c = &e->conns[i];
  while (c->fd >= 0 && c->sent < c->out.n) {
    ssize_t n = send(c->fd, c->out.p + c->sent, c->out.n - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) {
      conn_close(e, i);
      return;
    }
    c->sent += (size_t)n;
  }
  if (c->sent == c->out.n && c->out.n) {
    ebuf_free(&c->out);
    c->sent = 0;
  }
}

static void frame_out(struct envd *e, int i, const struct ebuf *json)
{
  struct conn *c = &e->conns[i];
  unsigned char head[MR_ENVD_HEADER];
  if (c->fd < 0) return;
  c->out.max = ENVD_OUT_MAX;
  if (c->sent) {
    memmove(c->out.p, c->out.p + c->sent, c->out.n - c->sent);
    c->out.n -= c->sent;
    c->sent = 0;
  }
  mr_envd_header_put(head, (uint32_t)json->n);
  ebuf_put(&c->out, head, sizeof head);
  ebuf_put(&c->out, json->p, json->n);
  if (json->failed || c->out.failed) {
    conn_close(e, i);
    return;
  }
  conn_write(e, i);
}

void conn_send(struct envd *e, const struct ebuf *json)
{
  if (e->attached >= 0) frame_out(e, e->attached, json);
}

void conn_say(struct envd *e, int i, const char *json)
{
  struct ebuf b = {0};
  ebuf_s(&b, json);
  frame_out(e, i, &b);
  ebuf_free(&b);
}

void conn_accept(struct envd *e)
{
  int fd = accept4(e->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), i = 0;
  if (fd < 0) return;
  while (i < ENVD_CONNS && e->conns[i].fd >= 0)
    i++;
  if (i == ENVD_CONNS) {
    close(fd);
    return;
  }
  struct ebuf hello = {0};
  e->conns[i] = (struct conn){.fd = fd, .given = -1, .attach_by = envd_now() + ENVD_ATTACH_MS};
  ebuf_f(&hello,
         "{\"t\":\"hello\",\"proto\":[%d,%d],\"landlock\":%d,\"seccomp\":true,\"running\":%d,\"kept\":%d}",
         MR_ENVD_PROTO_MIN, MR_ENVD_PROTO_MAX, e->jail.landlock, e->calls.open, e->calls.kept);
  frame_out(e, i, &hello);
  ebuf_free(&hello);
}

static void refuse(struct envd *e, int i, const char *why)
{
  struct ebuf b = {0};
  ebuf_s(&b, "{\"t\":\"error\",\"message\":");
  ebuf_json(&b, why, strlen(why));
  ebuf_s(&b, "}");
  frame_out(e, i, &b);
  ebuf_free(&b);
  conn_close(e, i);
}

static bool is(struct estr s, const char *lit)
{
  return s.p && s.n == strlen(lit) && !memcmp(s.p, lit, s.n);
}

static void attach(struct envd *e, int i, const struct ej *frame)
{
  const struct ej *proto = ej_get(frame, "proto");
  if (!proto || proto->t != EJ_INT || proto->i < MR_ENVD_PROTO_MIN || proto->i > MR_ENVD_PROTO_MAX) {
    refuse(e, i, "attach: proto must be a number in the range of the hello");
    return;
  }
  if (e->attached >= 0 && e->attached != i) conn_close(e, e->attached);
  e->attached = i;
  e->orphan_at = INT64_MAX;
  relay_channel(e, proto->i >= MR_ENVD_PROTO_EGRESS ? e->conns[i].given : -1);
  if (proto->i >= MR_ENVD_PROTO_EGRESS) e->conns[i].given = -1;
}

static void freeze(struct envd *e, int i, const struct ej *frame)
{
  const struct ej *ms = ej_get(frame, "ms");
  if (e->cfg.bare || e->attached == i || !ms || ms->t != EJ_INT || !freeze_begin(e, i, ms->i))
    refuse(e, i,
           e->cfg.bare ? "freeze: not without a PID namespace"
                       : "freeze: it needs ms, a connection of its own, and no other one");
}

static void frame_in(struct envd *e, int i, const char *p, size_t n)
{
  struct ej_doc d;
  const char *why;
  char text[160];
  if (!ej_parse(&d, p, n, &why)) {
    snprintf(text, sizeof text, "frame: %s", why);
    refuse(e, i, text);
    return;
  }
  struct estr t = ej_str(d.root, "t"), id = ej_str(d.root, "id");
  bool with_id = is(t, "call") || is(t, "status") || is(t, "cancel");
  if (is(t, "attach"))
    attach(e, i, d.root);
  else if (is(t, "freeze"))
    freeze(e, i, d.root);
  else if (e->attached != i)
    refuse(e, i, "the first frame must be attach");
  else if (with_id && (!id.p || !id.n || id.n > MR_ENVD_ID_MAX))
    refuse(e, i, "id must be a string of 1 to 256 bytes");
  else if (is(t, "call"))
    calls_receive(e, &d);
  else if (is(t, "status"))
    calls_status(e, id);
  else if (is(t, "cancel"))
    calls_cancel(e, id);
  else if (is(t, "shutdown"))
    e->quit = true;
  else
    refuse(e, i, "t is none of attach, call, status, cancel, shutdown");
  ej_free(&d);
}

/* As recv; a descriptor that comes along is kept, one at most. */
static ssize_t receive(struct conn *c, char *p, size_t n)
{
  union {
    struct cmsghdr h;
    char room[CMSG_SPACE(4 * sizeof(int))];
  } control;
  struct iovec v = {.iov_base = p, .iov_len = n};
  struct msghdr m = {
      .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
  ssize_t got = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  for (struct cmsghdr *h = got > 0 ? CMSG_FIRSTHDR(&m) : NULL; h; h = CMSG_NXTHDR(&m, h)) {
    if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; CMSG_LEN((at + 1) * sizeof(int)) <= h->cmsg_len; at++) {
      int fd;
      memcpy(&fd, CMSG_DATA(h) + at * sizeof fd, sizeof fd);
      if (c->given >= 0) close(c->given);
      c->given = fd;
    }
  }
  return got;
}

void conn_read(struct envd *e, int i)
{
  struct conn *c = &e->conns[i];
  size_t want = 65536;
  c->in.max = MR_ENVD_FRAME_MAX + MR_ENVD_HEADER + 65536;
  if (!ebuf_room(&c->in, want)) {
    conn_close(e, i);
    return;
  }
  ssize_t n = receive(c, c->in.p + c->in.n, want);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    conn_close(e, i);
    return;
  }
  c->in.n += (size_t)n;
  size_t at = 0;
  int fd = c->fd;
  while (c->fd == fd && c->in.n - at >= MR_ENVD_HEADER && !e->quit) {
    uint32_t len = mr_envd_header_get((unsigned char *)c->in.p + at);
    if (!len || len > MR_ENVD_FRAME_MAX) {
      refuse(e, i, "frame: the length must be 1 to 33554432");
      return;
    }
    if (c->in.n - at - MR_ENVD_HEADER < len) break;
    frame_in(e, i, c->in.p + at + MR_ENVD_HEADER, len);
    at += MR_ENVD_HEADER + len;
  }
  if (c->fd != fd) return;
  memmove(c->in.p, c->in.p + at, c->in.n - at);
  c->in.n -= at;
  if (!c->in.n) ebuf_free(&c->in);
}
