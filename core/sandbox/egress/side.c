/*
 * side.c - one socket of a connection: bytes that came and were not used yet, bytes that have to leave. Reading pauses
 * when enough waits, so that a slow reader on one side slows the other, and memory stays bounded. libevent's callbacks
 * only post the connection; everything here is called from its step.
 */
#include <event2/event.h>
#include <unistd.h>

#include "sandbox/egress/egress_t.h"

enum { FILLS = 4 };

static void on_readable(evutil_socket_t fd, short what, void *ud)
{
  struct mr_egress_conn *c = ud;

  if (fd == c->client.io.fd) c->client.readable = true;
  if (fd == c->server.io.fd) c->server.readable = true;
  (void)what;
  mr_conn_step(c);
}

static void on_writable(evutil_socket_t fd, short what, void *ud)
{
  (void)fd;
  (void)what;
  mr_conn_step(ud);
}

void mr_side_init(struct mr_side *s, const struct mr_mem *m)
{
  *s = (struct mr_side){.io = {.fd = -1}};
  mr_buf_init(&s->in, m, 2 * EGRESS_HIGH + EGRESS_PIECE);
  mr_buf_init(&s->raw, m, 4 * EGRESS_HIGH + EGRESS_ANSWER_MAX);
  mr_buf_init(&s->out, m, 2 * EGRESS_HIGH + EGRESS_ANSWER_MAX + EGRESS_HEAD_MAX);
}

int mr_side_open(struct mr_side *s, struct mr_loop *l, int fd, struct mr_egress_conn *c)
{
  s->rd = event_new(mr_loop_base(l), fd, EV_READ, on_readable, c);
  s->wr = event_new(mr_loop_base(l), fd, EV_WRITE, on_writable, c);
  if (!s->rd || !s->wr || mr_http_io_init(&s->io, fd, NULL) != MR_OK) {
    if (s->rd) event_free(s->rd);
    if (s->wr) event_free(s->wr);
    s->rd = s->wr = NULL;
    s->io.fd = -1;
    return MR_E_NOMEM;
  }
  s->readable = true;
  return MR_OK;
}

void mr_side_close(struct mr_side *s)
{
  if (s->rd) event_free(s->rd);
  if (s->wr) event_free(s->wr);
  s->rd = s->wr = NULL;
  mr_tls_free(&s->tls);
  if (s->io.fd >= 0) mr_http_io_close(&s->io, false);
  mr_buf_free(&s->in);
  mr_buf_free(&s->out);
  mr_buf_free(&s->raw);
}

void mr_side_tls(struct mr_side *s, struct mr_tls *t)
{
  struct mr_buf came = s->in;

  mr_buf_init(&s->in, came.mem, came.max);
  s->tls = t;
  s->failed |= !mr_tls_take(t, mr_buf_get(&came), &s->in, &s->raw);
  mr_buf_free(&came);
}

static bool fill_tls(struct mr_side *s)
{
  char piece[EGRESS_PIECE];
  int64_t n = mr_http_io_read(&s->io, piece, sizeof piece);

  if (n == MR_IO_AGAIN) {
    s->readable = false;
    return false;
  }
  s->eof = n == 0;
  s->failed = n < 0 || !mr_tls_take(s->tls, mr_str_n(piece, (size_t)n), &s->in, &s->raw);
  s->eof |= mr_tls_over(s->tls);
  return true;
}

bool mr_side_fill(struct mr_side *s)
{
  bool got = false;

  for (int i = 0; i < FILLS && s->io.fd >= 0 && s->readable && !s->eof && !s->failed; i++) {
    char *p;
    int64_t n;
    if (s->in.n >= EGRESS_HIGH) return got;
    if (s->tls) {
      got |= fill_tls(s);
      continue;
    }
    p = mr_buf_reserve(&s->in, EGRESS_PIECE);
    n = p ? mr_http_io_read(&s->io, p, EGRESS_PIECE) : MR_IO_ERROR;
    if (n == MR_IO_AGAIN)
      s->readable = false;
    else if (n < 0)
      s->failed = true;
    else if (n == 0)
      s->eof = true;
    else
      s->in.n += (size_t)n;
    got |= n != MR_IO_AGAIN;
  }
  return got;
}

/* Writes; false when it must wait or failed. */
static int64_t put(struct mr_side *s, const char *p, size_t n)
{
  int64_t w = mr_http_io_write(&s->io, p, n);

  if (w == MR_IO_ERROR) s->failed = true;
  return w > 0 ? w : 0;
}

/* Also after a failure: the alert that says why. */
static bool flush_tls(struct mr_side *s, bool fin)
{
  size_t had = s->out.n;
  bool sent;
  int64_t n = 1;

  if (!s->failed && s->raw.n < EGRESS_HIGH) s->failed = !mr_tls_put(s->tls, &s->out, &s->raw);
  if (fin && !s->out.n && !s->ended) {
    mr_tls_end(s->tls, &s->raw);
    s->ended = true;
  }
  sent = had != s->out.n;
  while (s->raw.n && n > 0) {
    n = mr_http_io_write(&s->io, s->raw.p, s->raw.n);
    if (n > 0) mr_buf_drop(&s->raw, (size_t)n);
    sent |= n > 0;
    s->failed |= n == MR_IO_ERROR;
  }
  if (s->ended && !s->raw.n && !s->shut) {
    mr_http_io_shutdown(&s->io);
    s->shut = sent = true;
  }
  return sent;
}

bool mr_side_flush(struct mr_side *s, bool fin)
{
  bool sent = false;
  int64_t n;

  if (s->tls && s->io.fd >= 0) return flush_tls(s, fin);
  while (s->io.fd >= 0 && !s->failed && s->out.n) {
    n = put(s, s->out.p, s->out.n);
    if (!n) return sent;
    mr_buf_drop(&s->out, (size_t)n);
    sent = true;
  }
  if (fin && !s->out.n && !s->shut && s->io.fd >= 0) {
    mr_http_io_shutdown(&s->io);
    s->shut = sent = true;
  }
  return sent;
}

bool mr_side_carry(struct mr_side *from, struct mr_side *to)
{
  bool sent = mr_side_flush(to, false);
  int64_t n;

  while (!to->out.n && from->in.n && !to->failed && (n = put(to, from->in.p, from->in.n)) > 0) {
    mr_buf_drop(&from->in, (size_t)n);
    sent = true;
  }
  if (from->eof && !from->in.n) sent |= mr_side_flush(to, true);
  return sent;
}

void mr_side_arm(struct mr_side *s, bool read, bool write)
{
  if (s->io.fd < 0 || !s->rd) return;
  if (read && !s->readable && !s->eof && !s->failed)
    event_add(s->rd, NULL);
  else
    event_del(s->rd);
  if (s->tls) write = s->raw.n || (write && mr_tls_up(s->tls));
  if (write && !s->failed)
    event_add(s->wr, NULL);
  else
    event_del(s->wr);
}
