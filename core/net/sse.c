/*
 * sse.c - event streams on an exchange; see sse.h. Frames of one loop pass gather and leave together once the
 * pass is over; an idle stream owns no buffer. What many streams are sent, each event to one after the other, is
 * put together once, in a buffer of the server's, and each sends its range of that; a stream whose frames do not
 * follow one another there has a buffer of its own until the pass is over. Called by the API face, loop thread.
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
  size_t from, to;   /* the frames of this pass, among the shared ones; equal: none */
  struct mr_buf out; /* or of its own: MR_HTTP_ROOM bytes, then the frames */
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

static void share_end(struct mr_sse *s)
{
  struct mr_http_server *server = s->x->c->s;

  if (s->from == s->to) return;
  s->from = s->to = 0;
  if (--server->sharing == 0) server->nshared = 0;
}

/* What goes around a chunk is written over the neighbours' bytes, which are put back: sent or copied is all of it
 * when the call returns. */
static int send_shared(struct mr_sse *s)
{
  char *p = s->x->c->s->shared + s->from, before[MR_HTTP_ROOM], after[2];
  size_t n = s->to - s->from;
  int r;

  memcpy(before, p - MR_HTTP_ROOM, MR_HTTP_ROOM);
  memcpy(after, p + n, sizeof after);
  r = mr_http_write_room(s->x, p, n);
  memcpy(p - MR_HTTP_ROOM, before, MR_HTTP_ROOM);
  memcpy(p + n, after, sizeof after);
  return r;
}

/* Gives to the connection what has gathered. A reader cut there is told by closed(). */
static void pass_on(struct mr_sse *s)
{
  int r = MR_OK;

  if (s->out.failed)
    mr_http_cut(s->x);
  else if (s->out.n > 0)
    r = mr_http_write_room(s->x, s->out.p + MR_HTTP_ROOM, s->out.n - MR_HTTP_ROOM);
  else if (s->to > s->from)
    r = send_shared(s);
  if (r == MR_MORE) s->slow = true;
  share_end(s);
  s->x->c->s->gathered -= s->gathered;
  s->gathered = 0;
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
  share_end(s);
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
  if (!server->shared) server->shared = mr_mem_alloc(server->mem, MR_HTTP_SHARED); /* NULL: nothing is shared */
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

static size_t frame_most(struct mr_str name, struct mr_str json)
{
  return 64 + name.n + json.n;
}

/* By hand: this runs once for each event and reader. Returns the end; p has room for frame_most. */
static char *write_frame(char *p, struct mr_str name, int64_t pos, struct mr_str json)
{
  char digits[24], *d = digits + sizeof digits;

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
  return put(p, MR_S("\n\n"));
}

static bool own_room(struct mr_buf *b, size_t n)
{
  if (b->n == 0 && mr_buf_reserve(b, MR_HTTP_ROOM + (n < FIRST ? FIRST : n))) b->n = MR_HTTP_ROOM;
  return mr_buf_reserve(b, n) != NULL;
}

static void add_own(struct mr_sse *s, struct mr_str name, int64_t pos, struct mr_str json)
{
  struct mr_http_server *server = s->x->c->s;
  struct mr_buf *b = &s->out;
  size_t n = s->to - s->from;

  if (n > 0 && own_room(b, n)) {
    memcpy(b->p + b->n, server->shared + s->from, n);
    b->n += n;
  }
  share_end(s);
  if (own_room(b, frame_most(name, json))) /* behind the frame: room for the end of a chunk, and a NUL */
    b->n = (size_t)(write_frame(b->p + b->n, name, pos, json) - b->p);
  server->gathered += b->cap - s->gathered;
  s->gathered = b->cap;
}

/* Is it the frame that was shared last? */
static bool is_last(const struct mr_http_server *v, struct mr_str name, int64_t pos, struct mr_str json)
{
  return v->nshared > 0 && v->shared_pos == pos && v->shared_json == json.n && v->shared_name == name.n &&
         memcmp(v->shared + v->nshared - 2 - json.n, json.p, json.n) == 0 &&
         memcmp(v->shared + v->shared_at + 7, name.p, name.n) == 0;
}

/* False: it does not follow on what the stream has, or there is no room. */
static bool add_shared(struct mr_sse *s, struct mr_str name, int64_t pos, struct mr_str json)
{
  struct mr_http_server *v = s->x->c->s;
  bool last = is_last(v, name, pos, json);
  size_t at = last ? v->shared_at : v->nshared > 0 ? v->nshared : MR_HTTP_ROOM;

  if (!v->shared || s->out.n > 0 || s->out.failed || (s->to > s->from && s->to != at)) return false;
  if (!last) {
    if (frame_most(name, json) > MR_HTTP_SHARED - at) return false;
    v->nshared = (size_t)(write_frame(v->shared + at, name, pos, json) - v->shared);
    v->shared_at = at;
    v->shared_pos = pos;
    v->shared_json = json.n;
    v->shared_name = name.n;
  }
  if (s->to == s->from) {
    s->from = at;
    v->sharing++;
  }
  s->to = v->nshared;
  return true;
}

int mr_sse_event(struct mr_sse *s, struct mr_str name, int64_t pos, struct mr_str json)
{
  struct mr_http_server *server = s->x->c->s;

  if (s->ending || s->x->c->failed) return MR_E_CLOSED;
  if (!add_shared(s, name, pos, json)) add_own(s, name, pos, json);
  server->stats.events++;
  if (s->out.n > GATHER || s->to - s->from > GATHER || s->out.failed ||
      server->gathered > server->o.max_streams / 8)
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
