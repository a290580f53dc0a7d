/*
 * sse.c - event streams on an exchange; see sse.h. Frames of one loop pass gather in a buffer that exists
 * only meanwhile, and leave together once the pass is over; an idle stream owns no buffer. Called by the
 * API face, loop thread.
 *
 * Invariant: a stream is freed by its exchange's closed() alone. A frame is sent whole or, once the
 * stream is cut, not at all. What all streams gather in a pass is bounded: over an eighth of the bound for
 * streams, frames are not held back any more.
 */
#include "net/sse.h"
#include "net/http_conn_t.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

/* The kernel holds this much for a reader that does not read, however large its buffers may grow. */
static const int unsent_max = 64 << 10;

enum { FIRST = 1 << 10, GATHER = 64 << 10, PING_MS = 15000, HEADERS_MAX = 32 };

struct mr_sse {
  struct mr_http_x *x;
  struct mr_buf out; /* MR_HTTP_ROOM bytes, then the frames of this pass */
  struct mr_ready flush;
  struct mr_timer ping; /* due when the silence may be long enough */
  int64_t ping_us, sent_us;
  size_t gathered; /* memory of out, as far as the server knows */
  void (*closed)(void *ud, struct mr_sse *s);
  void (*drained)(void *ud, struct mr_sse *s);
  void *ud;
  bool ending, slow;
};

static struct mr_loop *loop_of(const struct mr_sse *s)
{
  return s->x->c->s->l;
}

/* Gives to the connection what has gathered. A reader cut there is told by closed(). */
static void pass_on(struct mr_sse *s)
{
  s->x->c->s->gathered -= s->gathered;
  s->gathered = 0;
  if (s->out.failed)
    mr_http_cut(s->x);
  else if (s->out.n > 0 &&
           mr_http_write_room(s->x, s->out.p + MR_HTTP_ROOM, s->out.n - MR_HTTP_ROOM) == MR_MORE)
    s->slow = true;
  mr_buf_free(&s->out);
  s->sent_us = mr_loop_now_us(loop_of(s));
}

static void on_flush(struct mr_ready *r)
{
  struct mr_sse *s = MR_OF(r, struct mr_sse, flush);

  pass_on(s);
  if (s->ending) mr_http_end(s->x);
}

static void on_ping(struct mr_timer *t)
{
  struct mr_sse *s = MR_OF(t, struct mr_sse, ping);
  int64_t left = s->sent_us + s->ping_us - mr_loop_now_us(loop_of(s));

  if (left <= 0 && mr_http_waiting(s->x) == 0) /* a reader that is behind has enough to read */
    mr_sse_event(s, MR_S("ping"), 0, MR_S("{\"type\":\"ping\"}"));
  mr_timer_set(loop_of(s), t, left > 0 ? left : s->ping_us);
}

static void on_drained(void *ud, struct mr_http_x *x)
{
  struct mr_sse *s = ud;

  (void)x;
  s->slow = false;
  if (s->drained) s->drained(s->ud, s);
}

static void on_closed(void *ud, struct mr_http_x *x, bool complete)
{
  struct mr_sse *s = ud;

  (void)complete;
  x->c->s->stats.streams--;
  x->c->s->gathered -= s->gathered;
  mr_http_conn_stream(x->c, false);
  mr_ready_cancel(loop_of(s), &s->flush);
  mr_timer_cancel(loop_of(s), &s->ping);
  mr_buf_free(&s->out);
  if (s->closed) s->closed(s->ud, s);
  mr_mem_free(x->c->s->mem, s);
}

int mr_sse_open(struct mr_http_x *x, const struct mr_str *headers, int nheaders, int64_t ping_ms,
                void (*closed)(void *ud, struct mr_sse *s), void *ud, struct mr_sse **out)
{
  static const struct mr_http_x_cbs cbs = {.drained = on_drained, .closed = on_closed};
  struct mr_http_server *server = x->c->s;
  struct mr_str all[HEADERS_MAX + 3];
  struct mr_sse *s = nheaders > HEADERS_MAX ? NULL : mr_mem_zalloc(server->mem, sizeof *s);
  int n = 0;

  *out = NULL;
  if (!s) return MR_E_NOMEM;
  s->x = x;
  s->closed = closed;
  s->ud = ud;
  s->ping_us = (ping_ms > 0 ? ping_ms : PING_MS) * 1000;
  mr_buf_init(&s->out, server->mem, SIZE_MAX / 4); /* emptied at GATHER and one frame */
  mr_ready_init(&s->flush, on_flush);
  mr_timer_init(&s->ping, on_ping);
  s->sent_us = mr_loop_now_us(server->l);
  if (mr_timer_set(server->l, &s->ping, s->ping_us) != MR_OK) {
    mr_mem_free(server->mem, s);
    return MR_E_NOMEM;
  }
  while (n < nheaders) {
    all[n] = headers[n];
    n++;
  }
  all[n++] = MR_S("content-type: text/event-stream; charset=utf-8");
  all[n++] = MR_S("cache-control: no-cache");
  all[n++] = MR_S("x-accel-buffering: no");
  mr_http_set(x, &cbs, s);
  mr_http_conn_stream(x->c, true);
  if (x->c->peer.family == AF_INET || x->c->peer.family == AF_INET6)
    setsockopt(x->c->io.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_max, sizeof unsent_max);
  mr_http_begin(x, 200, all, n, -1);
  server->stats.streams++;
  *out = s;
  if (x->bodyless) mr_sse_end(s);
  return MR_OK;
}

static char *put(char *p, struct mr_str s)
{
  memcpy(p, s.p, s.n);
  return p + s.n;
}

/* By hand: this runs once for each event and reader. */
static void add_frame(struct mr_buf *b, struct mr_str name, int64_t pos, struct mr_str json)
{
  char digits[24], *d = digits + sizeof digits, *p;
  size_t need = 64 + name.n + json.n;

  if (b->n == 0) {
    if (mr_buf_reserve(b, MR_HTTP_ROOM + (need < FIRST ? FIRST : need))) b->n = MR_HTTP_ROOM;
  }
  p = mr_buf_reserve(b, need);
  if (!p) return;
  p = put(p, MR_S("event: "));
  p = put(p, name);
  if (pos > 0) {
    for (int64_t v = pos; v; v /= 10)
      *--d = (char)('0' + v % 10);
    p = put(p, MR_S("\nid: "));
    p = put(p, mr_str_n(d, (size_t)(digits + sizeof digits - d)));
  }
  p = put(p, MR_S("\ndata: "));
  p = put(p, json);
  p = put(p, MR_S("\n\n"));
  b->n = (size_t)(p - b->p); /* behind it: room for the end of a chunk, and a NUL */
}

int mr_sse_event(struct mr_sse *s, struct mr_str name, int64_t pos, struct mr_str json)
{
  struct mr_http_server *server = s->x->c->s;

  if (s->ending || s->x->c->failed) return MR_E_CLOSED;
  add_frame(&s->out, name, pos, json);
  server->stats.events++;
  server->gathered += s->out.cap - s->gathered;
  s->gathered = s->out.cap;
  if (s->out.n > GATHER || s->out.failed || server->gathered > server->o.max_streams / 8)
    pass_on(s);
  else
    mr_ready_post_last(loop_of(s), &s->flush);
  if (s->x->c->failed) return MR_E_CLOSED;
  return s->slow ? MR_MORE : MR_OK;
}

void mr_sse_on_drained(struct mr_sse *s, void (*drained)(void *ud, struct mr_sse *s))
{
  s->drained = drained;
}

void mr_sse_end(struct mr_sse *s)
{
  s->ending = true;
  mr_timer_cancel(loop_of(s), &s->ping);
  mr_ready_post_last(loop_of(s), &s->flush);
}
