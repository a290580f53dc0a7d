/*
 * dial.c - see dial.h. A look-up is a pool job that owns its memory: a cancelled dial leaves it to end by itself.
 * Connections are attempted one after the other, the next one after a moment or when one has failed; the first that
 * stands wins. libevent's callbacks only post; sockets are looked at in the drain.
 */
#include "net/dial.h"

#include <errno.h>
#include <event2/event.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

#include "loop/pool.h"

/* LOOKUPS: of one owner at a time. A name server that says nothing costs a thread for seconds, and an owner may ask for
 * such names on purpose. */
enum { ADDRS_MAX = 8, THREADS = 8, QUEUE_MAX = 256, LOOKUPS = 3, NEXT_US = 250000, TIMEOUT_MS = 20000 };

struct mr_dialer {
  struct mr_loop *loop;
  const struct mr_mem *mem;
  struct mr_pool *pool; /* NULL until a name was asked for */
  struct mr_dial *all, **tail;
  struct lookup *lookups; /* in the pool, also those that nobody waits for any more */
};

struct lookup {
  struct mr_job job;
  struct lookup *next, **link;
  struct mr_dialer *dialer;
  const void *owner;
  struct mr_dial *dial; /* NULL: cancelled; loop thread only */
  char host[256], port[8];
  int code; /* of getaddrinfo */
  int n;
  struct sockaddr_storage addr[ADDRS_MAX];
};

struct
try {
  struct mr_dial *d;
  int fd; /* -1: failed, or not begun */
  struct event *ev;
  struct sockaddr_storage addr;
};

struct mr_dial {
  struct mr_dialer *dialer;
  struct mr_dial *next, **link;
  bool (*allow)(void *ud, const struct sockaddr *sa, char why[200]);
  mr_dial_fn fn;
  void *ud;
  const void *owner;
  struct lookup *lookup;
  bool waiting; /* for its turn to be looked up */
  int port;
  struct try tries[ADDRS_MAX];
  int n, begun, open;
  char host[256], why[200]; /* why the first address was refused */
  int refused, last_errno;
  bool timed_out;
  struct mr_err err; /* of what failed before anything was dialled */
  int64_t give_up_us;
  struct mr_timer timer;
  struct mr_ready ready;
};

static socklen_t addr_len(const struct sockaddr_storage *a)
{
  return a->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* ---- the end of one ---- */

static void dial_free(struct mr_dial *d)
{
  struct mr_loop *loop = d->dialer->loop;

  if (d->lookup) d->lookup->dial = NULL;
  for (int i = 0; i < ADDRS_MAX; i++) {
    if (d->tries[i].ev) event_free(d->tries[i].ev);
    if (d->tries[i].fd >= 0) close(d->tries[i].fd);
  }
  mr_timer_cancel(loop, &d->timer);
  mr_ready_cancel(loop, &d->ready);
  *d->link = d->next;
  *(d->next ? &d->next->link : &d->dialer->tail) = d->link;
  mr_mem_free(d->dialer->mem, d);
}

static void give(struct mr_dial *d, int fd, const struct sockaddr *sa, const struct mr_err *err)
{
  mr_dial_fn fn = d->fn;
  void *ud = d->ud;
  struct sockaddr_storage addr = {0};
  struct mr_err copy = {0};

  if (sa) memcpy(&addr, sa, addr_len((const void *)sa));
  if (err) mr_err_copy(&copy, err);
  dial_free(d);
  fn(ud, fd, sa ? (struct sockaddr *)&addr : NULL, err ? &copy : NULL);
}

static void fail(struct mr_dial *d)
{
  struct mr_err err;

  if (d->err.code != MR_OK)
    mr_err_copy(&err, &d->err);
  else if (d->timed_out)
    mr_err_set(&err, MR_E_TIMEOUT, NULL, "no connection to %s in time", d->host);
  else if (d->refused && !d->last_errno)
    mr_err_set(&err, MR_E_DENIED, NULL, "%s", d->why);
  else
    mr_err_set(&err, MR_E_IO, NULL, "no connection to %s: %s", d->host,
               strerror(d->last_errno ? d->last_errno : EHOSTUNREACH));
  give(d, -1, NULL, &err);
}

/* ---- connecting ---- */

static void on_writable(evutil_socket_t fd, short what, void *ud)
{
  struct try *t = ud;
  (void)fd;
  (void)what;
  mr_ready_post(t->d->dialer->loop, &t->d->ready);
}

static void try_close(struct mr_dial *d, struct try *t, int why)
{
  if (t->ev) event_free(t->ev);
  t->ev = NULL;
  if (t->fd >= 0) close(t->fd);
  t->fd = -1;
  d->open--;
  d->last_errno = why;
}

/* The check and the socket are one step: nothing in between can change what is dialled. */
static void try_begin(struct mr_dial *d, struct try *t)
{
  const struct sockaddr *sa = (const struct sockaddr *)&t->addr;
  char why[200] = "";
  int on = 1;

  if (!d->allow(d->ud, sa, why)) {
    if (!d->refused++) snprintf(d->why, sizeof d->why, "%s", why);
    return;
  }
  t->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  d->open++;
  if (t->fd < 0) {
    try_close(d, t, errno);
    return;
  }
  setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(t->fd, sa, addr_len(&t->addr)) != 0 && errno != EINPROGRESS) {
    try_close(d, t, errno);
    return;
  }
  t->ev = event_new(mr_loop_base(d->dialer->loop), t->fd, EV_WRITE, on_writable, t);
  if (!t->ev || event_add(t->ev, NULL) != 0) try_close(d, t, ENOMEM);
}

/* The attempt that stands, or NULL. */
static struct try *look(struct mr_dial *d)
{
  for (int i = 0; i < d->begun; i++) {
    struct try *t = &d->tries[i];
    struct sockaddr_storage peer;
    socklen_t n = sizeof peer, en = sizeof(int);
    int e = 0;

    if (t->fd < 0) continue;
    getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &e, &en);
    if (e)
      try_close(d, t, e);
    else if (getpeername(t->fd, (struct sockaddr *)&peer, &n) == 0)
      return t;
    else
      event_add(t->ev, NULL);
  }
  return NULL;
}

static void step(struct mr_dial *d, bool next)
{
  struct mr_loop *loop = d->dialer->loop;
  struct try *won = look(d);
  int64_t left = d->give_up_us - mr_loop_now_us(loop);
  int fd;

  if (won) {
    fd = won->fd;
    event_free(won->ev); /* before the descriptor gets another owner */
    won->ev = NULL;
    won->fd = -1;
    give(d, fd, (struct sockaddr *)&won->addr, NULL);
    return;
  }
  while (d->begun < d->n && (next || d->open == 0)) {
    try_begin(d, &d->tries[d->begun++]);
    next = next && d->open == 0;
  }
  d->timed_out = left <= 0;
  if (d->timed_out || (d->begun == d->n && d->open == 0 && !d->lookup && !d->waiting))
    fail(d);
  else
    mr_timer_set(loop, &d->timer, d->begun < d->n && left > NEXT_US ? NEXT_US : left);
}

static void on_ready(struct mr_ready *r)
{
  step(MR_OF(r, struct mr_dial, ready), false);
}

static void on_timer(struct mr_timer *t)
{
  step(MR_OF(t, struct mr_dial, timer), true);
}

/* ---- names ---- */

/* Families take turns, the first one's first (RFC 6724 has sorted them). */
static void sort_in(struct lookup *k, const struct addrinfo *list)
{
  const struct addrinfo *at[2] = {list, list}, *a;
  int first = list ? list->ai_family : AF_INET, turn = 0;

  while (k->n < ADDRS_MAX && (at[0] || at[1])) {
    for (a = at[turn]; a && (a->ai_family == first) != (turn == 0);)
      a = a->ai_next;
    if (a && a->ai_addrlen <= sizeof k->addr[0] && (a->ai_family == AF_INET || a->ai_family == AF_INET6))
      memcpy(&k->addr[k->n++], a->ai_addr, a->ai_addrlen);
    at[turn] = a ? a->ai_next : NULL;
    turn = !turn;
  }
}

static void look_up(struct mr_job *j, void *worker)
{
  struct lookup *k = MR_OF(j, struct lookup, job);
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list = NULL;

  (void)worker;
  k->code = getaddrinfo(k->host, k->port, &hints, &list);
  if (k->code == 0) sort_in(k, list);
  if (list) freeaddrinfo(list);
}

static void take(struct mr_dial *d, const struct sockaddr_storage *addr, int n)
{
  for (d->n = 0; d->n < n; d->n++)
    d->tries[d->n].addr = addr[d->n];
}

static void next_lookups(struct mr_dialer *r);

static void looked_up(struct mr_job *j)
{
  struct lookup *k = MR_OF(j, struct lookup, job);
  struct mr_dialer *r = k->dialer;
  struct mr_dial *d = k->dial;

  if (d) {
    d->lookup = NULL;
    if (k->code == EAI_NONAME || k->code == EAI_NODATA || (k->code == 0 && k->n == 0))
      mr_err_set(&d->err, MR_E_NOTFOUND, NULL, "host %s does not exist", d->host);
    else if (k->code != 0)
      mr_err_set(&d->err, MR_E_IO, NULL, "host %s cannot be looked up: %s", d->host, gai_strerror(k->code));
    take(d, k->addr, k->n);
    mr_ready_post(r->loop, &d->ready);
  }
  *k->link = k->next;
  if (k->next) k->next->link = k->link;
  mr_mem_free(r->mem, k);
  next_lookups(r);
}

static bool may_ask(const struct mr_dialer *r, const void *owner)
{
  int n = 0;

  for (const struct lookup *k = r->lookups; k; k = k->next)
    n += k->owner == owner;
  return n < LOOKUPS;
}

static int ask(struct mr_dial *d, struct mr_err *err)
{
  struct mr_dialer *r = d->dialer;
  struct lookup *k;
  int code;

  d->waiting = !may_ask(r, d->owner);
  if (d->waiting) return MR_OK;
  if (!r->pool) {
    code = mr_pool_new(&r->pool, r->loop, THREADS, QUEUE_MAX, "names", NULL, NULL, NULL, err);
    if (code != MR_OK) return code;
  }
  k = mr_mem_zalloc(r->mem, sizeof *k);
  if (!k) return mr_err_nomem(err);
  k->dialer = r;
  k->dial = d;
  k->owner = d->owner;
  k->job.work = look_up;
  k->job.done = looked_up;
  snprintf(k->host, sizeof k->host, "%s", d->host);
  snprintf(k->port, sizeof k->port, "%d", d->port);
  if (mr_pool_submit(r->pool, &k->job) != MR_OK) {
    mr_mem_free(r->mem, k);
    return mr_err_set(err, MR_E_FULL, NULL, "too many host names are being looked up");
  }
  k->next = r->lookups;
  k->link = &r->lookups;
  if (k->next) k->next->link = &k->next;
  r->lookups = k;
  d->lookup = k;
  return MR_OK;
}

/* A place is free: who waits longest and may have it. */
static void next_lookups(struct mr_dialer *r)
{
  for (struct mr_dial *d = r->all; d; d = d->next)
    if (d->waiting && ask(d, &d->err) != MR_OK) mr_ready_post(r->loop, &d->ready); /* fails there */
}

/* An address needs no look-up. */
static bool literal(const char *host, int port, struct sockaddr_storage *out)
{
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *a = NULL;
  char text[8];
  bool ok;

  snprintf(text, sizeof text, "%d", port);
  ok = getaddrinfo(host, text, &hints, &a) == 0 && a->ai_addrlen <= sizeof *out;
  if (ok) memcpy(out, a->ai_addr, a->ai_addrlen);
  if (a) freeaddrinfo(a);
  return ok;
}

/* ---- life ---- */

int mr_dial_start(struct mr_dialer *r, const struct mr_dial_req *q, mr_dial_fn fn, void *ud,
                  struct mr_dial **out, struct mr_err *err)
{
  struct mr_dial *d = mr_mem_zalloc(r->mem, sizeof *d);
  struct sockaddr_storage addr = {0};
  int64_t ms = q->timeout_ms ? q->timeout_ms : TIMEOUT_MS;
  int code = MR_OK;

  *out = NULL;
  if (!d) return mr_err_nomem(err);
  d->dialer = r;
  d->link = r->tail;
  *r->tail = d;
  r->tail = &d->next;
  d->owner = q->owner;
  d->port = q->port;
  d->allow = q->allow;
  d->fn = fn;
  d->ud = ud;
  for (int i = 0; i < ADDRS_MAX; i++)
    d->tries[i] = (struct try){.d = d, .fd = -1};
  mr_timer_init(&d->timer, on_timer);
  mr_ready_init(&d->ready, on_ready);
  d->give_up_us = mr_loop_now_us(r->loop) + ms * 1000;
  if (snprintf(d->host, sizeof d->host, "%s", q->host) >= (int)sizeof d->host)
    code = mr_err_set(err, MR_E_INVALID, NULL, "the host's name is too long");
  else if (literal(d->host, q->port, &addr))
    take(d, &addr, 1);
  else
    code = ask(d, err);
  if (code != MR_OK) {
    dial_free(d);
    return code;
  }
  if (d->lookup || d->waiting)
    mr_timer_set(r->loop, &d->timer, ms * 1000);
  else
    mr_ready_post(r->loop, &d->ready);
  *out = d;
  return MR_OK;
}

void mr_dial_cancel(struct mr_dial **dp)
{
  struct mr_dial *d = *dp;

  *dp = NULL;
  if (d) dial_free(d);
}

int mr_dialer_new(struct mr_dialer **out, struct mr_loop *l, struct mr_err *err)
{
  struct mr_dialer *r = mr_mem_zalloc(&mr_loop_sys(l)->mem, sizeof *r);

  *out = r;
  if (!r) return mr_err_nomem(err);
  r->loop = l;
  r->mem = &mr_loop_sys(l)->mem;
  r->tail = &r->all;
  return MR_OK;
}

void mr_dialer_free(struct mr_dialer **rp)
{
  struct mr_dialer *r = *rp;

  *rp = NULL;
  if (!r) return;
  while (r->all)
    dial_free(r->all);
  mr_pool_free(&r->pool);
  mr_mem_free(r->mem, r);
}
