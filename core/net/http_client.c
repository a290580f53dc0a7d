/*
 * http_client.c - libcurl's multi interface on our loop; see http_client.h. libcurl's callbacks only fill
 * memory and post: head, data and done are given to the caller from the drain. One libevent event per
 * socket of libcurl, one timer of ours for its time-outs.
 */
#include "net/http_client.h"
#include "net/http_gate.h"

#include <event2/event.h>
#include <stdio.h>

enum { HEADERS_MAX = 64 << 10, QUEUE_PAUSE = 1 << 20, HANDLES_KEPT = 64 };
/* libcurl sends a body through a buffer of the smaller size. What is larger goes at once, up to the other: a turn of the
 * loop less for each piece. */
enum { BUFFER_MIN = 64 << 10, BUFFER_MAX = 256 << 10 };

struct sock {
  struct sock *next, **link;
  struct side *side;
  struct event *ev;
  curl_socket_t fd;
};

/* Requests with a guard and those without share no connection: each side has a pool of its own. */
struct side {
  struct mr_http_client *c;
  CURLM *multi;
  struct sock *socks;
  struct mr_timer timer;
  struct mr_ready act, kick; /* libcurl is called from the drain as well */
};

struct mr_http_client {
  struct mr_loop *loop;
  const struct mr_mem *mem;
  struct side open, guarded;
  char *ca_file;
  struct mr_http_out *all;
  CURL *kept[HANDLES_KEPT];
  int nkept;
  bool closing;
};

struct mr_http_out {
  struct mr_http_client *c;
  struct side *side;
  struct mr_http_out *next, **link;
  struct mr_http_out_cbs cbs;
  void *ud;
  CURL *easy;
  struct curl_slist *headers;
  const struct mr_str *body;
  int nbody, body_at;
  size_t body_off;
  struct mr_buf head, data; /* filled by libcurl, emptied by the drain */
  char error[CURL_ERROR_SIZE];
  struct mr_http_gate gate; /* of one with a guard */
  struct mr_ready ready;
  struct mr_timer stall;
  int64_t stall_us, moved_us;
  int64_t body_max, body_n;
  int status;
  int code; /* result once over */
  bool head_done, head_told, over, told, in_multi, paused, user_paused;
  bool held;      /* redirects are followed */
  bool following; /* this answer is one */
  bool too_large;
};

/* ---- libcurl and the loop ---- */

static void collect(struct side *d);

static void on_sock(evutil_socket_t fd, short what, void *ud)
{
  struct side *d = ud;
  int running;
  curl_multi_socket_action(d->multi, fd,
                           (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0),
                           &running);
  mr_ready_post(d->c->loop, &d->act);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ud, void *sockp)
{
  struct side *d = ud;
  struct sock *s = sockp;
  short want =
      (short)(EV_PERSIST | (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0));

  (void)easy;
  if (what == CURL_POLL_REMOVE) {
    if (s) {
      if (s->ev) event_free(s->ev);
      *s->link = s->next;
      if (s->next) s->next->link = s->link;
      mr_mem_free(d->c->mem, s);
    }
    return 0;
  }
  if (!s) {
    s = mr_mem_zalloc(d->c->mem, sizeof *s);
    if (!s) return -1;
    s->side = d;
    s->fd = fd;
    s->next = d->socks;
    s->link = &d->socks;
    if (s->next) s->next->link = &s->next;
    d->socks = s;
    curl_multi_assign(d->multi, fd, s);
  } else if (s->ev) {
    event_free(s->ev);
  }
  s->ev = event_new(mr_loop_base(d->c->loop), fd, want, on_sock, d);
  return s->ev && event_add(s->ev, NULL) == 0 ? 0 : -1;
}

static int on_curl_timer(CURLM *m, long ms, void *ud)
{
  struct side *d = ud;
  (void)m;
  if (ms < 0)
    mr_timer_cancel(d->c->loop, &d->timer);
  else
    mr_timer_set(d->c->loop, &d->timer, (int64_t)ms * 1000);
  return 0;
}

static void kick(struct side *d)
{
  int running;
  curl_multi_socket_action(d->multi, CURL_SOCKET_TIMEOUT, 0, &running);
  collect(d);
}

static void on_timer(struct mr_timer *t)
{
  kick(MR_OF(t, struct side, timer));
}
static void on_kick(struct mr_ready *r)
{
  kick(MR_OF(r, struct side, kick));
}
static void on_act(struct mr_ready *r)
{
  collect(MR_OF(r, struct side, act));
}

/* ---- what libcurl gives us ---- */

static size_t on_header(char *p, size_t size, size_t n, void *ud)
{
  struct mr_http_out *r = ud;
  struct mr_str line = mr_str_trim(mr_str_n(p, size * n)), rest = line, name;

  r->moved_us = mr_loop_now_us(r->c->loop);
  if (r->head_done) return size * n;        /* a trailer: not of the head, which may not have been told yet */
  if (mr_str_starts(line, MR_S("HTTP/"))) { /* also the answer after a redirect or a 100 */
    mr_buf_reset(&r->head);
    r->gate.denied[0] = '\0'; /* this hop was let through, if by another of its addresses */
    return size * n;
  }
  if (line.n == 0) {
    long status = 0;
    curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
    r->status = (int)status;
    /* What libcurl will follow is not the answer; over the limit of redirects there is none. */
    r->following =
        r->held && status >= 300 && status < 400 && mr_http_header(mr_buf_get(&r->head), "location").n;
    r->head_done = status >= 200 && !r->following;
    mr_ready_post(r->c->loop, &r->ready);
    return size * n;
  }
  name = mr_str_split(&rest, ':');
  for (size_t i = 0; i < name.n; i++)
    mr_buf_char(&r->head, name.p[i] >= 'A' && name.p[i] <= 'Z' ? (char)(name.p[i] + 32) : name.p[i]);
  mr_buf_c(&r->head, ": ");
  mr_buf_str(&r->head, mr_str_trim(rest));
  mr_buf_char(&r->head, '\n');
  return r->head.failed ? 0 : size * n;
}

static size_t on_data(char *p, size_t size, size_t n, void *ud)
{
  struct mr_http_out *r = ud;

  r->moved_us = mr_loop_now_us(r->c->loop);
  if (r->following) return size * n;
  /* What has an end is not paused for: of a body that is decoded, libcurl would decode all that came, and keep it. */
  if ((r->data.n >= QUEUE_PAUSE && !r->body_max) || r->user_paused) {
    r->paused = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  r->body_n += (int64_t)(size * n);
  r->too_large = r->body_max && r->body_n > r->body_max;
  if (r->too_large) return 0;
  mr_buf_add(&r->data, p, size * n);
  mr_ready_post(r->c->loop, &r->ready);
  return r->data.failed ? 0 : size * n;
}

static size_t on_send(char *p, size_t size, size_t n, void *ud)
{
  struct mr_http_out *r = ud;
  size_t room = size * n, sent = 0;

  r->moved_us = mr_loop_now_us(r->c->loop);
  while (r->body_at < r->nbody && sent < room) {
    struct mr_str part = r->body[r->body_at];
    size_t k = part.n - r->body_off < room - sent ? part.n - r->body_off : room - sent;
    if (k) memcpy(p + sent, part.p + r->body_off, k);
    sent += k;
    r->body_off += k;
    if (r->body_off == part.n) {
      r->body_at++;
      r->body_off = 0;
    }
  }
  return sent;
}

static int on_rewind(void *ud, curl_off_t offset, int origin)
{
  struct mr_http_out *r = ud;
  if (offset != 0 || origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
  r->body_at = 0;
  r->body_off = 0;
  return CURL_SEEKFUNC_OK;
}

/* ---- requests that ended ---- */

static int code_of(CURLcode e)
{
  return e == CURLE_OK                   ? MR_OK
         : e == CURLE_OPERATION_TIMEDOUT ? MR_E_TIMEOUT
         : e == CURLE_OUT_OF_MEMORY      ? MR_E_NOMEM
                                         : MR_E_IO;
}

static void over(struct mr_http_out *r, int code)
{
  if (r->over) return;
  r->over = true;
  r->code = code;
  mr_timer_cancel(r->c->loop, &r->stall);
  if (r->in_multi) curl_multi_remove_handle(r->side->multi, r->easy);
  r->in_multi = false;
  mr_ready_post(r->c->loop, &r->ready);
}

static void collect(struct side *d)
{
  CURLMsg *m;
  int left;

  while ((m = curl_multi_info_read(d->multi, &left))) {
    struct mr_http_out *r = NULL;
    CURLcode result = m->data.result;
    if (m->msg != CURLMSG_DONE) continue;
    curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&r);
    if (result != CURLE_OK && !r->error[0])
      snprintf(r->error, sizeof r->error, "%s", curl_easy_strerror(result));
    if (mr_http_gate_denied(&r->gate, result)) {
      snprintf(r->error, sizeof r->error, "%s", r->gate.denied);
      over(r, MR_E_DENIED);
    } else if (r->too_large) {
      snprintf(r->error, sizeof r->error, "there are more than %lld bytes", (long long)r->body_max);
      over(r, MR_E_TOO_LARGE);
    } else {
      over(r, code_of(result));
    }
  }
}

static void out_free(struct mr_http_out *r)
{
  struct mr_http_client *c = r->c;

  *r->link = r->next;
  if (r->next) r->next->link = r->link;
  mr_ready_cancel(c->loop, &r->ready);
  mr_timer_cancel(c->loop, &r->stall);
  if (r->in_multi) curl_multi_remove_handle(r->side->multi, r->easy);
  curl_slist_free_all(r->headers);
  if (r->easy && c->nkept < HANDLES_KEPT && !c->closing) {
    curl_easy_reset(r->easy);
    c->kept[c->nkept++] = r->easy;
  } else if (r->easy) {
    curl_easy_cleanup(r->easy);
  }
  mr_buf_free(&r->head);
  mr_buf_free(&r->data);
  mr_mem_free(c->mem, r);
}

static void tell_done(struct mr_http_out *r)
{
  struct mr_http_out_done d = {.code = r->code, .status = r->status};
  struct mr_err err;

  if (r->code != MR_OK) {
    mr_err_set(&err, r->code, NULL, "%s", r->error[0] ? r->error : mr_strerror(r->code));
    d.err = &err;
  }
  r->told = true;
  r->cbs.done(r->ud, r, &d);
  out_free(r);
}

static void on_ready(struct mr_ready *ready)
{
  struct mr_http_out *r = MR_OF(ready, struct mr_http_out, ready);
  struct mr_buf data;
  int code;

  if (r->head_done && !r->head_told) {
    r->head_told = true;
    if (r->cbs.head && r->code != MR_E_CANCELLED) r->cbs.head(r->ud, r, r->status, mr_buf_get(&r->head));
  }
  if (r->data.n && !r->user_paused && r->head_told) {
    data = r->data; /* the callback may pause or cancel */
    mr_buf_init(&r->data, r->c->mem, SIZE_MAX / 2);
    code = r->cbs.data && r->code != MR_E_CANCELLED ? r->cbs.data(r->ud, r, mr_buf_get(&data)) : MR_OK;
    mr_buf_free(&data);
    if (code != MR_OK && (!r->over || r->code == MR_OK)) {
      r->over = false;
      over(r, code);
      r->code = code;
    }
  }
  if (r->paused && !r->user_paused && !r->over) {
    r->paused = false;
    curl_easy_pause(r->easy, CURLPAUSE_CONT);
    mr_ready_post(r->c->loop, &r->side->kick);
  }
  if (r->over && !r->told && !(r->user_paused && r->data.n && r->code == MR_OK)) tell_done(r);
}

static void on_stall(struct mr_timer *t)
{
  struct mr_http_out *r = MR_OF(t, struct mr_http_out, stall);
  int64_t left = r->moved_us + r->stall_us - mr_loop_now_us(r->c->loop);

  if (left > 0 || r->user_paused) {
    mr_timer_set(r->c->loop, t, left > 0 ? left : r->stall_us);
    return;
  }
  snprintf(r->error, sizeof r->error, "no data for %lld ms", (long long)(r->stall_us / 1000));
  over(r, MR_E_TIMEOUT);
}

/* ---- starting ---- */

static int set_headers(struct mr_http_out *r, const struct mr_http_out_req *q)
{
  struct curl_slist *last;

  for (int i = 0; i < q->nheaders; i++) {
    char *line = mr_mem_strdup(r->c->mem, q->headers[i]);
    struct curl_slist *l;
    if (!line || memchr(q->headers[i].p, '\n', q->headers[i].n) ||
        memchr(q->headers[i].p, '\r', q->headers[i].n)) {
      mr_mem_free(r->c->mem, line);
      return line ? MR_E_INVALID : MR_E_NOMEM;
    }
    l = curl_slist_append(r->headers, line);
    mr_mem_free(r->c->mem, line);
    if (!l) return MR_E_NOMEM;
    r->headers = l;
  }
  /* libcurl would wait a second for 100 Continue on large bodies. */
  last = curl_slist_append(r->headers, "Expect:");
  if (!last) return MR_E_NOMEM;
  r->headers = last;
  return MR_OK;
}

static void set_options(struct mr_http_out *r, const struct mr_http_out_req *q)
{
  CURL *e = r->easy;
  curl_off_t size = 0;
  const char *ca = q->ca_file ? q->ca_file : r->c->ca_file;
  struct mr_str method = mr_str_c(q->method);

  for (int i = 0; i < q->nbody; i++)
    size += (curl_off_t)q->body[i].n;
  curl_easy_setopt(e, CURLOPT_URL, q->url);
  curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
  /* Else libcurl waits at a request's end for the thread that looks its name up: as long as a name server likes. */
  curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
  curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(e, CURLOPT_PROXY, "");
  curl_easy_setopt(e, CURLOPT_HTTPHEADER, r->headers);
  curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(e, CURLOPT_HEADERDATA, r);
  curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(e, CURLOPT_WRITEDATA, r);
  curl_easy_setopt(e, CURLOPT_PRIVATE, r);
  curl_easy_setopt(e, CURLOPT_ERRORBUFFER, r->error);
  curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
  curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
  curl_easy_setopt(e, CURLOPT_PIPEWAIT, 0L);
  curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)(q->connect_timeout_ms ? q->connect_timeout_ms : 10000));
  if (q->timeout_ms) curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)q->timeout_ms);
  if (ca) curl_easy_setopt(e, CURLOPT_CAINFO, ca);
  if (q->unix_path) curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, q->unix_path);
  if (q->guard) mr_http_gate_set(&r->gate, e, q->guard);
  if (q->decode) curl_easy_setopt(e, CURLOPT_ACCEPT_ENCODING, "");
  if (q->follow > 0) {
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(e, CURLOPT_MAXREDIRS, (long)q->follow);
  }
  if (mr_str_is(method, "HEAD")) {
    curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
  } else if (q->nbody > 0 || mr_str_is(method, "POST") || mr_str_is(method, "PUT")) {
    curl_easy_setopt(e, CURLOPT_POST, 1L);
    curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, size);
    if (size > BUFFER_MIN)
      curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, (long)(size < BUFFER_MAX ? size : BUFFER_MAX));
    curl_easy_setopt(e, CURLOPT_READFUNCTION, on_send);
    curl_easy_setopt(e, CURLOPT_READDATA, r);
    curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_rewind);
    curl_easy_setopt(e, CURLOPT_SEEKDATA, r);
  }
  /* A name that is set stays over redirects: 302 and 303 shall make a GET of a POST. */
  if (!mr_str_is(method, "HEAD") && !mr_str_is(method, "POST") && !(mr_str_is(method, "GET") && q->nbody == 0))
    curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, q->method);
}

int mr_http_out_start(struct mr_http_client *c, const struct mr_http_out_req *q,
                      const struct mr_http_out_cbs *cbs, void *ud, struct mr_http_out **out, struct mr_err *err)
{
  struct mr_http_out *r = NULL;
  int code = MR_OK;

  *out = NULL;
  if (c->closing) return mr_err_set(err, MR_E_CLOSED, NULL, "the HTTP client is closing");
  if (q->guard && q->unix_path)
    return mr_err_set(err, MR_E_INVALID, "unix_path",
                      "unix_path: a guarded request goes to no socket of this host");
  r = mr_mem_zalloc(c->mem, sizeof *r);
  if (!r) return mr_err_nomem(err);
  r->c = c;
  r->side = q->guard ? &c->guarded : &c->open;
  r->cbs = *cbs;
  r->ud = ud;
  r->body = q->body;
  r->nbody = q->nbody;
  r->held = q->follow > 0;
  r->body_max = q->body_max;
  r->next = c->all;
  r->link = &c->all;
  if (r->next) r->next->link = &r->next;
  c->all = r;
  mr_buf_init(&r->head, c->mem, HEADERS_MAX);
  mr_buf_init(&r->data, c->mem, SIZE_MAX / 2);
  mr_ready_init(&r->ready, on_ready);
  mr_timer_init(&r->stall, on_stall);
  r->easy = c->nkept ? c->kept[--c->nkept] : curl_easy_init();
  code = r->easy ? set_headers(r, q) : MR_E_NOMEM;
  if (code == MR_OK) {
    set_options(r, q);
    if (curl_multi_add_handle(r->side->multi, r->easy) != CURLM_OK)
      code = MR_E_NOMEM;
    else
      r->in_multi = true;
  }
  if (code != MR_OK) {
    out_free(r);
    return mr_err_set(err, code, NULL, code == MR_E_INVALID ? "a header holds a line break" : "out of memory");
  }
  if (q->stall_ms) {
    r->stall_us = q->stall_ms * 1000;
    r->moved_us = mr_loop_now_us(c->loop);
    mr_timer_set(c->loop, &r->stall, r->stall_us);
  }
  mr_ready_post(c->loop, &r->side->kick);
  *out = r;
  return MR_OK;
}

void mr_http_out_cancel(struct mr_http_out *r)
{
  if (r->told) return;
  r->user_paused = false;
  over(r, MR_E_CANCELLED);
  r->code = MR_E_CANCELLED;
  mr_ready_post(r->c->loop, &r->ready);
}

void mr_http_out_pause(struct mr_http_out *r, bool pause)
{
  if (r->user_paused && !pause) r->moved_us = mr_loop_now_us(r->c->loop); /* the silence was ours */
  r->user_paused = pause;
  if (!pause) mr_ready_post(r->c->loop, &r->ready);
}

struct mr_str mr_http_header(struct mr_str headers, const char *name)
{
  while (headers.p) {
    struct mr_str line = mr_str_split(&headers, '\n'), key = mr_str_split(&line, ':');
    if (mr_str_is(key, name)) return mr_str_trim(line);
  }
  return mr_str_n(NULL, 0);
}

/* ---- life ---- */

static bool side_init(struct side *d, struct mr_http_client *c)
{
  d->c = c;
  mr_timer_init(&d->timer, on_timer);
  mr_ready_init(&d->act, on_act);
  mr_ready_init(&d->kick, on_kick);
  d->multi = curl_multi_init();
  if (!d->multi) return false;
  curl_multi_setopt(d->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(d->multi, CURLMOPT_SOCKETDATA, d);
  curl_multi_setopt(d->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
  curl_multi_setopt(d->multi, CURLMOPT_TIMERDATA, d);
  curl_multi_setopt(d->multi, CURLMOPT_MAXCONNECTS, 256L);
  return true;
}

static void side_free(struct side *d)
{
  if (d->multi) curl_multi_cleanup(d->multi);
  mr_timer_cancel(d->c->loop, &d->timer);
  mr_ready_cancel(d->c->loop, &d->act);
  mr_ready_cancel(d->c->loop, &d->kick);
}

int mr_http_client_new(struct mr_http_client **out, struct mr_loop *l, const char *ca_file, struct mr_err *err)
{
  const struct mr_mem *m = &mr_loop_sys(l)->mem;
  struct mr_http_client *c = mr_mem_zalloc(m, sizeof *c);
  bool ok;

  *out = NULL;
  if (!c) return mr_err_nomem(err);
  c->loop = l;
  c->mem = m;
  /* Counted by libcurl, and thread-safe from 7.84 on; there is no matching cleanup in a library. */
  curl_global_init(CURL_GLOBAL_ALL);
  ok = side_init(&c->open, c);
  ok = side_init(&c->guarded, c) && ok;
  c->ca_file = ca_file ? mr_mem_strdup(m, mr_str_c(ca_file)) : NULL;
  if (!ok || (ca_file && !c->ca_file)) {
    mr_http_client_free(&c);
    return mr_err_nomem(err);
  }
  *out = c;
  return MR_OK;
}

void mr_http_client_free(struct mr_http_client **cp)
{
  struct mr_http_client *c = *cp;

  if (!c) return;
  c->closing = true;
  while (c->all) {
    struct mr_http_out *r = c->all;
    over(r, MR_E_CLOSED);
    if (r->code == MR_OK) r->code = MR_E_CLOSED;
    tell_done(r);
  }
  for (int i = 0; i < c->nkept; i++)
    curl_easy_cleanup(c->kept[i]);
  side_free(&c->open);
  side_free(&c->guarded);
  mr_mem_free(c->mem, c->ca_file);
  mr_mem_free(c->mem, c);
  *cp = NULL;
}
