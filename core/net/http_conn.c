/*
 * http_conn.c - one connection from accept to close. Event callbacks note what is possible and post; the
 * drain reads, parses, runs the handler, writes and ends.
 *
 * Invariant: a connection has at most one exchange; what a client sends behind it (pipelining) waits, at most
 * IN_MAX bytes, and then the socket is not read any more. Idle connections own no buffers.
 */
#include "net/http_conn_t.h"

#include <stdio.h>

enum { IN_SIZE = 64 << 10, IN_MAX = 64 << 10, DRAIN_BELOW = 64 << 10 };
enum { T_NONE, T_HEAD, T_IDLE, T_STALL, T_LINGER }; /* what a connection's timer waits for */
static const int64_t LINGER_US = 2000000, STALL_US = 60000000;

/* ---- the outside ---- */

void mr_http_conn_wake(struct mr_http_conn *c) { mr_ready_post(c->s->l, &c->ready); }

static void on_read(evutil_socket_t fd, short what, void *ud)
{
  struct mr_http_conn *c = ud;
  (void)fd;
  (void)what;
  c->readable = true;
  mr_http_conn_wake(c);
}

static void on_write(evutil_socket_t fd, short what, void *ud)
{
  struct mr_http_conn *c = ud;
  (void)fd;
  (void)what;
  c->writable = true;
  mr_http_conn_wake(c);
}

static void on_timer(struct mr_timer *t)
{
  struct mr_http_conn *c = MR_OF(t, struct mr_http_conn, timer);
  c->failed = true; /* too slow, or idle too long */
  mr_http_conn_wake(c);
}

/* One timer for each connection: what it may wait for depends on where the connection stands. */
static void arm(struct mr_http_conn *c)
{
  const int64_t us[] = {0, c->s->o.header_ms * 1000, c->s->o.idle_ms * 1000, STALL_US, LINGER_US};
  bool in_body = c->x && !c->message_done && !c->body_paused;
  int kind = c->state == MR_CONN_LINGER ? T_LINGER : c->out.n > 0 || in_body ? T_STALL : c->x ? T_NONE
             : c->state == MR_CONN_HEAD ? T_HEAD : T_IDLE;

  if (kind != c->timer_kind || (kind == T_STALL && c->progress)) {
    if (kind == T_NONE)
      mr_timer_cancel(c->s->l, &c->timer);
    else
      mr_timer_set(c->s->l, &c->timer, us[kind]);
  }
  c->timer_kind = kind;
  c->progress = false;
}

static void watch(struct mr_http_conn *c)
{
  bool reading = !c->eof && c->in.n < IN_MAX && !c->body_paused;
  bool writing = c->out.n > 0 || c->io.want_write;

  if (reading != (event_pending(&c->rd, EV_READ, NULL) != 0)) {
    if (reading)
      event_add(&c->rd, NULL);
    else
      event_del(&c->rd);
  }
  if (writing && !event_pending(&c->wr, EV_WRITE, NULL))
    event_add(&c->wr, NULL);
}

/* ---- writing ---- */

static void flush(struct mr_http_conn *c)
{
  while (c->out.n > 0 && !c->failed) {
    int64_t n = mr_http_io_write(&c->io, c->out.p, c->out.n);
    if (n == MR_IO_AGAIN)
      break;
    if (n < 0) {
      c->failed = true;
      break;
    }
    c->s->stats.bytes_out += (uint64_t)n;
    mr_buf_drop(&c->out, (size_t)n);
    c->progress = true;
  }
  if (c->out.n == 0)
    mr_buf_free(&c->out);
}

void mr_http_conn_send(struct mr_http_conn *c, struct mr_str bytes)
{
  while (c->out.n == 0 && bytes.n > 0 && !c->failed) {
    int64_t n = mr_http_io_write(&c->io, bytes.p, bytes.n);
    if (n == MR_IO_AGAIN)
      break;
    if (n < 0) {
      c->failed = true;
      break;
    }
    c->s->stats.bytes_out += (uint64_t)n;
    bytes.p += n;
    bytes.n -= (size_t)n;
  }
  if (bytes.n > 0 && !c->failed) {
    mr_buf_str(&c->out, bytes);
    c->failed = c->out.failed != 0; /* over max_out: cut */
    mr_http_conn_wake(c);
  }
  if (c->failed)
    mr_http_conn_wake(c);
}

/* ---- an exchange's end ---- */

static void exchange_close(struct mr_http_conn *c, bool complete)
{
  struct mr_http_x *x = c->x;
  struct mr_arena *a = x->arena;

  c->x = NULL;
  x->c = NULL;
  c->s->active--;
  if (x->cbs && x->cbs->closed)
    x->cbs->closed(x->ud, x, complete);
  mr_arena_free(&a);
}

static void begin_linger(struct mr_http_conn *c)
{
  c->state = MR_CONN_LINGER;
  if (c->out.n == 0)
    mr_http_io_shutdown(&c->io);
  mr_buf_free(&c->in);
  c->body_paused = false;
}

/* An answer to what never became an exchange. */
static void refuse(struct mr_http_conn *c, int status, const char *what)
{
  char body[256], head[256];
  int m = snprintf(body, sizeof body,
                   "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"%s\"}}", what);
  int n = snprintf(head, sizeof head,
                   "HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                   "connection: close\r\n\r\n", status, what, m);

  c->s->stats.refused++;
  mr_http_conn_send(c, mr_str_n(head, (size_t)n));
  mr_http_conn_send(c, mr_str_n(body, (size_t)m));
  begin_linger(c);
}

static void exchange_over(struct mr_http_conn *c)
{
  bool again = c->keep && c->message_done && !c->x->until_close && !c->s->stopping && !c->eof;

  exchange_close(c, true);
  if (!again) {
    begin_linger(c);
    return;
  }
  c->state = MR_CONN_IDLE;
  c->message_done = false;
}

/* ---- reading ---- */

static void begin_exchange(struct mr_http_conn *c)
{
  struct mr_http_x *x = c->x;
  struct mr_http_server *s = c->s;

  s->active++;
  s->stats.requests++;
  if (!x->old && !mr_http_req_header(x, "host").p) {
    c->keep = false;
    mr_http_reply(x, 400, NULL, 0, MR_S("{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\","
                                        "\"message\":\"host: header is required\"}}"));
    return;
  }
  s->o.on_request(s->o.ud, x);
}

static void message_end(struct mr_http_conn *c)
{
  struct mr_http_x *x = c->x;

  if (x && x->wants_body && !x->last_given && !x->ended && x->cbs && x->cbs->body) {
    x->last_given = true;
    x->cbs->body(x->ud, x, mr_str_n(NULL, 0), true);
  }
}

/* Parses until the bytes are used up or must wait; returns how many were used. */
static size_t parse(struct mr_http_conn *c, struct mr_str bytes)
{
  size_t used = 0;

  while (used < bytes.n && !c->failed && !c->body_paused && !(c->x && c->message_done) &&
         c->state != MR_CONN_LINGER) {
    bool had = c->x != NULL, done = c->message_done;
    int64_t n;
    if (c->state == MR_CONN_IDLE)
      c->state = MR_CONN_HEAD;
    n = mr_http_parse(c, mr_str_n(bytes.p + used, bytes.n - used));
    if (n < 0) {
      if (c->x) /* in the middle of a body: nothing can be said any more that would be understood */
        c->failed = true;
      else
        refuse(c, n == MR_E_TOO_LARGE ? 431 : n == MR_E_UNSUPPORTED ? 505 : 400,
               n == MR_E_TOO_LARGE ? "request head too large" : n == MR_E_UNSUPPORTED ? "HTTP version not supported"
                                                                                     : "malformed request");
      return bytes.n;
    }
    used += (size_t)n;
    if (!had && c->x)
      begin_exchange(c);
    if (!done && c->message_done)
      message_end(c);
    if (n == 0 && had == (c->x != NULL) && done == c->message_done && !c->body_paused)
      break;
  }
  return used;
}

/* What needs no more bytes: the end of a message is told only when the parser runs once more. */
static void settle(struct mr_http_conn *c)
{
  if (!c->x || c->message_done || c->body_paused || c->failed)
    return;
  if (mr_http_parse(c, mr_str_n("", 0)) < 0)
    c->failed = true;
  else if (c->message_done)
    message_end(c);
}

static void take(struct mr_http_conn *c, struct mr_str bytes)
{
  size_t used;

  if (c->state == MR_CONN_LINGER)
    return;
  if (c->in.n > 0) {
    mr_buf_str(&c->in, bytes);
    bytes = mr_buf_get(&c->in);
    used = parse(c, bytes);
    mr_buf_drop(&c->in, used);
    if (c->in.n == 0)
      mr_buf_free(&c->in);
  } else {
    used = parse(c, bytes);
    if (used < bytes.n && c->state != MR_CONN_LINGER)
      mr_buf_str(&c->in, mr_str_n(bytes.p + used, bytes.n - used));
  }
  c->failed = c->failed || c->in.failed;
}

static void read_some(struct mr_http_conn *c)
{
  int64_t n;

  c->readable = false;
  for (int i = 0; i < 4 && !c->failed && c->in.n < IN_MAX && !c->body_paused; i++) {
    n = mr_http_io_read(&c->io, c->s->in, IN_SIZE);
    if (n == MR_IO_AGAIN)
      return;
    if (n == 0) {
      c->eof = true;
      return;
    }
    if (n < 0) {
      c->failed = true;
      return;
    }
    c->progress = true;
    take(c, mr_str_n(c->s->in, (size_t)n));
    if (c->io.ssl == NULL && n < IN_SIZE)
      return; /* all there was */
  }
  if (!c->failed && !c->eof) { /* more, at the next pass */
    c->readable = true;
    mr_http_conn_wake(c);
  }
}

static bool over(struct mr_http_conn *c)
{
  if (c->failed)
    return true;
  if (c->state == MR_CONN_LINGER)
    return c->eof || (c->out.n == 0 && c->s->stopping);
  if (!c->eof)
    return c->state == MR_CONN_IDLE && c->s->stopping && c->in.n == 0;
  /* The peer has said all: an answer of known length may still be wanted, a stream's reader is gone. */
  return !c->x || !c->message_done || c->x->chunked || c->x->until_close;
}

static void conn_run(struct mr_ready *r)
{
  struct mr_http_conn *c = MR_OF(r, struct mr_http_conn, ready);

  c->running = true;
  if (c->writable || c->io.want_write) {
    c->writable = false;
    flush(c);
  }
  if (c->x && c->x->want_drain && c->out.n < DRAIN_BELOW && !c->failed) {
    c->x->want_drain = false;
    if (c->x->cbs && c->x->cbs->drained)
      c->x->cbs->drained(c->x->ud, c->x);
  }
  if (c->readable || c->io.ssl)
    read_some(c);
  if (c->x && c->x->over && !c->x->last_given) /* too long by its own account */
    message_end(c);
  for (int i = 0; i < 16 && !c->failed; i++) {
    settle(c);
    if (c->x && c->x->ended && c->out.n == 0)
      exchange_over(c);
    if (c->in.n == 0 || c->body_paused || (c->x && c->message_done) || c->state == MR_CONN_LINGER)
      break;
    take(c, mr_str_n(NULL, 0));
  }
  settle(c);
  if (c->x && c->x->ended && c->out.n == 0 && !c->failed)
    exchange_over(c);
  c->running = false;
  if (over(c)) {
    mr_http_conn_kill(c);
    return;
  }
  watch(c);
  arm(c);
  if (c->in.n > 0 && !c->body_paused && !(c->x && c->message_done) && c->state != MR_CONN_LINGER)
    mr_http_conn_wake(c);
}

/* ---- life ---- */

void mr_http_conn_new(struct mr_http_listener *l, int fd)
{
  struct mr_http_server *s = l->s;
  struct mr_http_conn *c = mr_mem_zalloc(s->mem, sizeof *c);

  if (!c || mr_http_io_init(&c->io, fd, l->tls) != MR_OK) {
    mr_mem_free(s->mem, c);
    struct mr_http_io io = {.fd = fd};
    mr_http_io_close(&io);
    s->stats.refused++;
    return;
  }
  c->s = s;
  c->next = s->conns;
  c->link = &s->conns;
  if (c->next)
    c->next->link = &c->next;
  s->conns = c;
  s->stats.connections++;
  s->stats.accepted++;
  mr_buf_init(&c->head, s->mem, s->o.max_header);
  mr_buf_init(&c->in, s->mem, IN_MAX + IN_SIZE);
  mr_buf_init(&c->out, s->mem, s->o.max_out);
  event_assign(&c->rd, mr_loop_base(s->l), fd, EV_READ | EV_PERSIST, on_read, c);
  event_assign(&c->wr, mr_loop_base(s->l), fd, EV_WRITE, on_write, c);
  mr_ready_init(&c->ready, conn_run);
  mr_timer_init(&c->timer, on_timer);
  mr_http_parse_init(c);
  event_add(&c->rd, NULL);
  arm(c);
}

void mr_http_conn_kill(struct mr_http_conn *c)
{
  struct mr_http_server *s = c->s;

  if (c->state == MR_CONN_DEAD)
    return;
  c->state = MR_CONN_DEAD;
  if (c->x)
    exchange_close(c, c->x->ended && c->out.n == 0 && !c->failed);
  mr_ready_cancel(s->l, &c->ready);
  mr_timer_cancel(s->l, &c->timer);
  event_del(&c->rd);
  event_del(&c->wr);
  mr_http_io_close(&c->io);
  mr_buf_free(&c->head);
  mr_buf_free(&c->in);
  mr_buf_free(&c->out);
  *c->link = c->next;
  if (c->next)
    c->next->link = c->link;
  s->stats.connections--;
  mr_mem_free(s->mem, c);
}
