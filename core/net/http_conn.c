/*
 * http_conn.c - one connection from accept to close. libevent's callbacks note what is possible and post;
 * the drain reads, parses, runs the handler, writes and ends, all in conn_run, one step at a time.
 *
 * Invariants: a connection has at most one exchange, and the next request is not parsed before the last
 * byte of the answer was taken by the kernel; what a client sends meanwhile waits, at most IN_MAX and one
 * read, and then the socket is not read any more. Handlers are called from conn_run alone (and closed()
 * also from mr_http_conn_kill), never from a function that a handler calls. An idle connection owns this
 * struct and one event, an idle stream also its exchange: buffers and parsers exist while they are in use.
 */
#include "net/http_conn_t.h"

#include <event2/event.h>

enum {
  IN_MAX = 64 << 10,
  DRAINED_BELOW = 64 << 10,
  STEPS_MAX = 64, /* of one connection in one go */
  LINGER_BYTES = 64 << 20
};
static const int64_t LINGER_US = 5000000;

/* ---- what the outside says ---- */

void mr_http_conn_wake(struct mr_http_conn *c)
{
  if (!c->running) mr_ready_post(c->s->l, &c->ready);
}

static void on_event(evutil_socket_t fd, short what, void *ud)
{
  struct mr_http_conn *c = ud;

  (void)fd;
  if (what & EV_READ) c->readable = true;
  if (c->io.ssl || (what & EV_WRITE)) /* TLS: either may be what the other waits for */
    c->blocked = false;
  if (c->io.want_write && (what & EV_WRITE)) c->readable = true;
  mr_ready_post(c->s->l, &c->ready);
}

/* ---- out ---- */

size_t mr_http_conn_waiting(const struct mr_http_conn *c)
{
  return c->out ? c->out->n - c->out_off : 0;
}

static void buf_drop(const struct mr_mem *m, struct mr_buf **b)
{
  if (!*b) return;
  mr_buf_free(*b);
  mr_mem_free(m, *b);
  *b = NULL;
}

static bool buf_add(const struct mr_mem *m, struct mr_buf **b, const void *p, size_t n)
{
  if (!*b) {
    *b = mr_mem_alloc(m, sizeof **b);
    if (!*b) return false;
    mr_buf_init(*b, m, SIZE_MAX / 4); /* bounded by those who call */
  }
  mr_buf_add(*b, p, n);
  return !(*b)->failed;
}

/* What waits for an event stream is counted by the memory that it takes. */
static void account(struct mr_http_conn *c)
{
  struct mr_http_server_stats *st = &c->s->stats;
  size_t held = c->stream && c->out ? c->out->cap : 0, waiting = mr_http_conn_waiting(c);

  st->stream_bytes += held - c->held;
  c->held = held;
  if (st->stream_bytes > st->stream_bytes_max) st->stream_bytes_max = st->stream_bytes;
  if (c->stream && waiting > st->reader_max) st->reader_max = waiting;
}

void mr_http_conn_stream(struct mr_http_conn *c, bool on)
{
  c->stream = on;
  account(c);
}

static void cut_reader(struct mr_http_conn *c)
{
  buf_drop(c->s->mem, &c->out);
  c->out_off = 0;
  c->failed = true;
  c->s->stats.cut++;
  account(c);
  mr_http_conn_wake(c);
}

/* The streams hold too much: who is farthest behind goes, with those about as far, until there is some room. A
 * part of the bound is for what a pass gathers. */
static void shed(struct mr_http_server *s)
{
  size_t bound = s->o.max_streams - s->o.max_streams / 8, most = 0;

  if (s->stats.stream_bytes <= bound) return;
  for (struct mr_http_conn *c = s->conns; c; c = c->next)
    if (c->held > most) most = c->held;
  for (struct mr_http_conn *c = s->conns; c && s->stats.stream_bytes > bound - bound / 8; c = c->next)
    if (c->held > 0 && c->held >= most - most / 8) cut_reader(c);
}

/* How much the kernel took, 0 when it is full; sets failed. */
static size_t taken(struct mr_http_conn *c, int64_t n)
{
  if (n == MR_IO_AGAIN) {
    c->blocked = true;
    return 0;
  }
  if (n < 0) {
    c->failed = true;
    return 0;
  }
  c->s->stats.bytes_out += (uint64_t)n;
  c->moved = true;
  return (size_t)n;
}

static void flush(struct mr_http_conn *c)
{
  while (c->out && !c->blocked && !c->failed) {
    c->out_off += taken(c, mr_http_io_write(&c->io, c->out->p + c->out_off, mr_http_conn_waiting(c)));
    if (c->out_off == c->out->n) {
      buf_drop(c->s->mem, &c->out);
      c->out_off = 0;
    } else if (c->out_off > c->out->n / 2) {
      mr_buf_drop(c->out, c->out_off);
      c->out_off = 0;
    }
  }
  if (!c->out) c->slack = 0;
  if (c->held > 0) account(c);
}

void mr_http_conn_send(struct mr_http_conn *c, const struct iovec *v, int n)
{
  size_t done = 0, total = 0;

  for (int i = 0; i < n; i++)
    total += v[i].iov_len;
  if (c->failed) return;
  if (!c->out && !c->io.ssl && !c->blocked)
    done =
        taken(c, n == 1 ? mr_http_io_write(&c->io, v->iov_base, v->iov_len) : mr_http_io_writev(&c->io, v, n));
  if (done == total && !c->failed) {
    if (!c->out) c->slack = 0;
    return;
  }
  for (int i = 0; i < n && !c->failed; i++) {
    size_t skip = done < v[i].iov_len ? done : v[i].iov_len;
    done -= skip;
    if (skip < v[i].iov_len &&
        !buf_add(c->s->mem, &c->out, (const char *)v[i].iov_base + skip, v[i].iov_len - skip))
      c->failed = true;
  }
  if (c->io.ssl) /* OpenSSL wants the bytes in one place */
    flush(c);
  else
    c->blocked = true; /* a part was taken: the rest would not be */
  if (c->out || c->failed) mr_http_conn_wake(c);
  if (c->stream) {
    account(c);
    shed(c->s);
  }
}

/* ---- ends ---- */

static void exchange_close(struct mr_http_conn *c, bool complete)
{
  struct mr_http_x *x = c->x;

  c->x = NULL;
  c->s->active--;
  if (x->cbs.closed) x->cbs.closed(x->ud, x, complete);
  mr_http_x_free(&x);
}

/* The peer may still be sending: closed now, the kernel would answer with a reset, and the peer might never
 * read what was said last. */
static void linger(struct mr_http_conn *c)
{
  c->closing = false;
  c->lingering = true;
  c->dropped = 0;
  buf_drop(c->s->mem, &c->in);
  mr_http_parse_put(c->s, &c->parse);
  mr_http_io_shutdown(&c->io);
  c->over = c->eof;
}

/* An answer of ours to what is no request, or not in time; the connection ends with it. */
static void refuse(struct mr_http_conn *c, int status, const char *why)
{
  c->s->stats.refused++;
  c->closing = true;
  if (c->x && c->x->begun)
    c->failed = true;
  else if (c->x || !c->parse || !c->parse->head_done) /* else the request has had its answer */
    mr_http_refusal(c, status, why);
  if (c->x) exchange_close(c, false);
}

static void exchange_over(struct mr_http_conn *c)
{
  exchange_close(c, true);
  c->moved = true;
  c->dropped = 0;
  if (c->keep && !c->s->stopping) return;
  if (c->parse || c->in)
    c->closing = true;
  else
    c->over = true;
}

/* ---- in: requests and their bodies ---- */

/* Is there use for more bytes of the message that is being read, or for a new one? */
static bool may_parse(const struct mr_http_conn *c)
{
  const struct mr_http_x *x = c->x;

  if (c->failed || c->over || c->closing || c->lingering) return false;
  if (!x) return true;
  if (!c->parse || x->over) return false; /* the handler's turn */
  if (x->asked && !x->ended) return !x->paused;
  return x->begun && c->dropped <= MR_HTTP_DISCARD_MAX;
}

static bool may_read(const struct mr_http_conn *c)
{
  if (c->eof || c->failed || c->over || c->closing) return false;
  if (c->lingering) return true;
  return c->in ? c->in->n < IN_MAX && !c->parse : may_parse(c) || (c->x && !c->parse);
}

static void got_head(struct mr_http_conn *c)
{
  struct mr_http_server *s = c->s;
  struct mr_http_x *x = mr_http_x_new(c);

  if (!x) {
    mr_http_parse_put(s, &c->parse);
    refuse(c, 503, "out of memory");
    return;
  }
  c->x = x;
  c->keep = llhttp_should_keep_alive(&c->parse->p);
  c->moved = true;
  c->dropped = 0;
  if (c->parse->whole) mr_http_parse_put(s, &c->parse);
  s->active++;
  s->stats.requests++;
  s->o.on_request(s->o.ud, x);
}

static void got_piece(struct mr_http_conn *c)
{
  struct mr_str piece = c->parse->piece;
  struct mr_http_x *x = c->x;

  c->moved = true;
  if (!x || !x->asked || x->ended) {
    c->dropped += piece.n;
    if (c->dropped > MR_HTTP_DISCARD_MAX) {
      c->keep = false;
      c->closing = !x;
    }
    return;
  }
  x->body_seen += (int64_t)piece.n;
  if (x->body_seen > x->body_max) {
    x->over = true;
    c->keep = false;
    return;
  }
  x->paused = true; /* before: the handler may say resume while it runs */
  if (!x->cbs.body || x->cbs.body(x->ud, x, piece, false) != MR_MORE) x->paused = false;
}

/* A message begins with its first byte; empty lines before it are skipped, as RFC 9112 §2.2 wants it. */
static bool begin(struct mr_http_conn *c, struct mr_str *in)
{
  while (in->n && (in->p[0] == '\r' || in->p[0] == '\n'))
    *in = mr_str_n(in->p + 1, in->n - 1);
  if (in->n == 0) return false;
  c->parse = mr_http_parse_get(c->s);
  c->failed = !c->parse;
  return !c->failed;
}

/* Parses and serves until the bytes are used up or must wait. Returns how many were used. */
static size_t parse(struct mr_http_conn *c, struct mr_str bytes)
{
  struct mr_str rest = bytes;

  while (may_parse(c) && (rest.n > 0 || (c->parse && c->parse->waiting))) {
    if (!c->parse && !begin(c, &rest)) break;
    switch (mr_http_parse_feed(c->parse, c->s->o.max_header, &rest)) {
    case MR_FOUND_NOTHING: break;
    case MR_FOUND_HEAD: got_head(c); break;
    case MR_FOUND_PIECE: got_piece(c); break;
    case MR_FOUND_END: mr_http_parse_put(c->s, &c->parse); break;
    case MR_FOUND_ERROR: refuse(c, c->parse->status, c->parse->why); break;
    }
  }
  return bytes.n - rest.n;
}

static void parse_kept(struct mr_http_conn *c)
{
  if (!c->in) {
    parse(c, mr_str_n("", 0));
    return;
  }
  mr_buf_drop(c->in, parse(c, mr_buf_get(c->in)));
  if (c->in->n == 0) buf_drop(c->s->mem, &c->in);
}

static void take(struct mr_http_conn *c, struct mr_str bytes)
{
  size_t used = 0;

  if (c->lingering) {
    c->dropped += bytes.n;
    c->over = c->dropped > LINGER_BYTES;
    return;
  }
  if (!c->in) used = parse(c, bytes);
  if (used < bytes.n && !buf_add(c->s->mem, &c->in, bytes.p + used, bytes.n - used)) c->failed = true;
}

/* The peer will not send any more. Its answer may still be wanted, but a stream's reader is gone. */
static void got_eof(struct mr_http_conn *c)
{
  const struct mr_http_x *x = c->x;

  c->eof = true;
  c->readable = false;
  if (c->lingering || (!x && c->parse))
    c->over = true;
  else if (x && (c->parse || (x->begun && !x->ended && x->left < 0) || mr_http_io_hung_up(&c->io)))
    c->failed = true;
}

static void read_some(struct mr_http_conn *c)
{
  int64_t n = mr_http_io_read(&c->io, c->s->in, MR_HTTP_IN_SIZE);

  if (n == 0) {
    got_eof(c);
  } else if (n == MR_IO_AGAIN) {
    c->readable = false;
  } else if (n < 0) {
    c->failed = true;
  } else {
    if (!c->io.ssl && n < MR_HTTP_IN_SIZE) c->readable = false; /* all there was */
    take(c, mr_str_n(c->s->in, (size_t)n));
  }
}

/* ---- the drain ---- */

/* Does one thing that can be done now; false when nothing can. */
static bool step(struct mr_http_conn *c)
{
  struct mr_http_x *x = c->x;

  if (x && x->ended && !c->out) {
    exchange_over(c);
  } else if (x && x->want_drain && !x->ended && mr_http_conn_waiting(c) <= DRAINED_BELOW) {
    x->want_drain = false;
    if (x->cbs.drained) x->cbs.drained(x->ud, x);
  } else if (x && x->asked && !x->last_told && !x->ended && (x->over || (!c->parse && !x->paused))) {
    x->last_told = true;
    if (x->cbs.body) x->cbs.body(x->ud, x, mr_str_n(NULL, 0), true);
  } else if (c->closing && !c->out) {
    linger(c);
  } else if (may_parse(c) && (c->in || (c->parse && c->parse->waiting))) {
    parse_kept(c);
  } else if (c->readable && may_read(c)) {
    read_some(c);
  } else if (!x && !c->in && !c->parse && !c->closing && !c->lingering && (c->eof || c->s->stopping)) {
    c->over = true;
  } else {
    return false;
  }
  return true;
}

static void watch(struct mr_http_conn *c)
{
  bool reading = may_read(c), writing = c->out || c->io.want_write;

  if (reading != c->reading) {
    if ((reading ? event_add(c->rd, NULL) : event_del(c->rd)) == 0)
      c->reading = reading;
    else
      c->failed = true;
  }
  if (writing && !c->wr) {
    c->wr = event_new(mr_loop_base(c->s->l), c->io.fd, EV_WRITE | EV_PERSIST, on_event, c);
    if (!c->wr || event_add(c->wr, NULL) != 0) c->failed = true;
  } else if (!writing && c->wr) {
    event_free(c->wr);
    c->wr = NULL;
  }
}

static enum mr_http_wait waits_for(const struct mr_http_conn *c)
{
  if (c->lingering) return MR_WAIT_LINGER;
  if (c->out) return MR_WAIT_OUT;
  if (mr_http_io_handshake(&c->io)) return MR_WAIT_HANDSHAKE;
  if (c->parse && !c->parse->head_done) return MR_WAIT_HEAD;
  if (c->parse) return may_parse(c) ? MR_WAIT_BODY : MR_WAIT_NONE;
  return c->x ? MR_WAIT_NONE : MR_WAIT_IDLE;
}

/* The timer is moved only to be earlier: it looks at the deadline when it comes, and goes on waiting. */
static void arm(struct mr_http_conn *c)
{
  const struct mr_http_server_opts *o = &c->s->o;
  const int64_t us[] = {[MR_WAIT_HANDSHAKE] = o->header_ms * 1000, [MR_WAIT_IDLE] = o->idle_ms * 1000,
                        [MR_WAIT_HEAD] = o->header_ms * 1000,      [MR_WAIT_BODY] = o->idle_ms * 1000,
                        [MR_WAIT_OUT] = o->idle_ms * 1000,         [MR_WAIT_LINGER] = LINGER_US};
  enum mr_http_wait wait = waits_for(c);

  if (wait == c->wait && !c->moved) return;
  c->wait = (uint8_t)wait;
  c->moved = false;
  if (wait == MR_WAIT_NONE) return;
  if (wait == MR_WAIT_OUT) c->unsent = mr_http_io_unsent(&c->io);
  c->deadline_us = mr_loop_now_us(c->s->l) + us[wait];
  if ((!mr_timer_pending(&c->timer) || c->timer.due_us > c->deadline_us) &&
      mr_timer_set(c->s->l, &c->timer, us[wait]) != MR_OK)
    c->failed = true;
}

static void on_timer(struct mr_timer *t)
{
  struct mr_http_conn *c = MR_OF(t, struct mr_http_conn, timer);
  int64_t left = c->deadline_us - mr_loop_now_us(c->s->l);

  if (c->wait == MR_WAIT_NONE) return;
  if (left > 0) {
    mr_timer_set(c->s->l, &c->timer, left); /* cannot fail: it has just left the heap */
    return;
  }
  if (c->wait == MR_WAIT_HEAD || c->wait == MR_WAIT_BODY)
    refuse(c, 408, "the request took too long");
  else if (c->wait == MR_WAIT_IDLE || c->wait == MR_WAIT_LINGER)
    c->over = true;
  else if (c->wait == MR_WAIT_OUT && mr_http_io_unsent(&c->io) < c->unsent)
    c->moved = true; /* slow: the kernel says "writable" only when much of its buffer is empty */
  else
    c->failed = true;
  mr_http_conn_wake(c);
}

static void conn_run(struct mr_ready *r)
{
  struct mr_http_conn *c = MR_OF(r, struct mr_http_conn, ready);
  int n = 0;

  c->running = true;
  flush(c);
  while (!c->failed && !c->over && n < STEPS_MAX && step(c))
    n++;
  c->running = false;
  if (!c->failed && !c->over) {
    watch(c);
    arm(c);
  }
  if (c->failed || c->over)
    mr_http_conn_kill(c);
  else if (n == STEPS_MAX)
    mr_http_conn_wake(c);
}

/* ---- life ---- */

void mr_http_conn_new(struct mr_http_listener *l, int fd, const struct mr_http_peer_addr *peer, bool refuse_it)
{
  struct mr_http_server *s = l->s;
  struct mr_http_conn *c = mr_mem_zalloc(s->mem, sizeof *c);
  struct mr_http_io plain = {.fd = fd};

  if (!c || mr_http_io_init(&c->io, fd, l->tls) != MR_OK ||
      !(c->rd = event_new(mr_loop_base(s->l), fd, EV_READ | EV_PERSIST, on_event, c))) {
    mr_http_io_close(c && c->io.ssl ? &c->io : &plain, false);
    mr_mem_free(s->mem, c);
    s->stats.refused++;
    return;
  }
  c->s = s;
  c->peer = *peer;
  c->next = s->conns;
  c->link = &s->conns;
  if (c->next) c->next->link = &c->next;
  s->conns = c;
  mr_ready_init(&c->ready, conn_run);
  mr_timer_init(&c->timer, on_timer);
  c->counted = !refuse_it;
  if (refuse_it) {
    s->refusing++;
    refuse(c, 503, "too many connections");
  } else {
    s->stats.connections++;
    s->stats.accepted++;
  }
  c->readable = true; /* often the request is there already */
  mr_http_conn_wake(c);
}

void mr_http_conn_kill(struct mr_http_conn *c)
{
  struct mr_http_server *s = c->s;
  bool told = c->x && c->x->ended && !c->out && !c->failed;
  bool reset = c->failed || c->out || (c->x && !told);

  c->failed = c->failed || !c->over;
  c->running = true; /* nothing that closed() calls may post it again */
  if (c->x) exchange_close(c, told);
  if (!reset && !c->lingering) mr_http_io_shutdown(&c->io);
  mr_ready_cancel(s->l, &c->ready);
  mr_timer_cancel(s->l, &c->timer);
  event_free(c->rd);
  if (c->wr) event_free(c->wr);
  mr_http_io_close(&c->io, reset);
  buf_drop(s->mem, &c->in);
  buf_drop(s->mem, &c->out);
  account(c);
  mr_http_parse_put(s, &c->parse);
  *c->link = c->next;
  if (c->next) c->next->link = c->link;
  if (c->counted)
    s->stats.connections--;
  else
    s->refusing--;
  mr_mem_free(s->mem, c);
}
