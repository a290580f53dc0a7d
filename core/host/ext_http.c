/*
 * ext_http.c - outgoing HTTP for bindings: a request of net/http_client with the copies, limits and the way
 * back through the queue that a host on another thread needs.
 *
 * Pieces of a streamed body wait for the host, at most CHUNKS of them or BACKLOG bytes and one; then the transfer
 * is paused until the host has taken most, and as long as the host asks for it. done comes exactly once, last;
 * its slot is reserved when the request is made.
 * References: the host's side holds one until done has run; posts and entries under way hold one each.
 */
#include "host/ext_t.h"

#include <stdio.h>

enum {
  TIMEOUT_MS = 60000,
  FOLLOW_MAX = 10,
  HEADERS_MAX = 200,
  CHUNKS = 8,
  CHUNKS_LOW = 4,
  BACKLOG = 512 << 10,
  UNIX_MAX = 107
};
static const int64_t BODY_MAX = INT64_C(16) << 20, URL_MAX = 1 << 16;

struct request {
  struct mr_runtime *rt;
  atomic_int refs;
  uint64_t id;
  struct mr_ext_http_cbs cbs;
  void *ud;
  struct mr_arena *arena; /* what was asked */
  char *method, *url, *unix_path;
  struct mr_str *headers;
  int nheaders, follow;
  bool guard;
  struct mr_str body;
  int64_t timeout_ms, max_body, connect_ms, idle_ms;
  atomic_bool cancelled;
  atomic_int backlog;         /* chunks in the queue */
  atomic_size_t backlog_size; /* their bytes */
  atomic_bool held;           /* the host asked for a pause */
  atomic_bool resume_posted;
  struct mr_post start, cancel, resume;
  struct mr_entry told, done; /* the head; the end */
  int told_status;
  /* loop */
  struct mr_http_out *out;
  bool paused;
  int64_t received;
  /* the result; the loop's, then the done entry's */
  int code, status;
  struct mr_err err;
  struct mr_buf head, data;
};

static void unref(struct request *r)
{
  struct mr_runtime *rt = r->rt;

  if (atomic_fetch_sub(&r->refs, 1) != 1) return;
  mr_buf_free(&r->head);
  mr_buf_free(&r->data);
  mr_arena_free(&r->arena);
  mr_mem_free(mr_rt_mem(rt), r);
  mr_rt_unref(rt);
}

/* ---- back to the host ---- */

static void run_done(struct mr_entry *e)
{
  struct request *r = MR_OF(e, struct request, done);
  struct mr_runtime *rt = r->rt;
  struct mr_ext_http_reply reply = {.size = sizeof reply,
                                    .code = r->code,
                                    .status = r->status,
                                    .headers = mr_buf_get(&r->head),
                                    .body = mr_buf_get(&r->data),
                                    .err = r->code == MR_OK ? NULL : &r->err};

  pthread_mutex_lock(&rt->ext->lock);
  mr_ext_drop(rt, r->id);
  pthread_mutex_unlock(&rt->ext->lock);
  if (r->cbs.done) r->cbs.done(r->ud, &reply);
  mr_queue_release(&rt->queue);
  unref(r);
}

static void finish(struct request *r, int code, const struct mr_err *err)
{
  r->code = code;
  if (code != MR_OK && err)
    mr_err_copy(&r->err, err);
  else if (code != MR_OK)
    mr_err_set(&r->err, code, NULL, "%s", mr_strerror(code));
  mr_queue_push(&r->rt->queue, &r->done);
}

struct chunk {
  struct mr_entry entry;
  struct request *r;
  size_t n;
  char bytes[];
};

static bool room(struct request *r)
{
  return !atomic_load(&r->held) && atomic_load(&r->backlog) <= CHUNKS_LOW &&
         atomic_load(&r->backlog_size) <= BACKLOG / 2;
}

static void on_resume(struct mr_post *p)
{
  struct request *r = MR_OF(p, struct request, resume);

  atomic_store(&r->resume_posted, false);
  if (r->out && r->paused && room(r)) {
    r->paused = false;
    mr_http_out_pause(r->out, false);
  }
  unref(r);
}

/* The caller holds a reference. */
static void post_resume(struct request *r)
{
  if (!room(r) || atomic_exchange(&r->resume_posted, true)) return;
  atomic_fetch_add(&r->refs, 1);
  if (mr_rt_post(r->rt, &r->resume) != MR_OK) unref(r);
}

static void run_chunk(struct mr_entry *e)
{
  struct chunk *k = MR_OF(e, struct chunk, entry);
  struct request *r = k->r; /* its done comes after us */

  if (!atomic_load(&r->cancelled)) r->cbs.chunk(r->ud, mr_str_n(k->bytes, k->n));
  atomic_fetch_sub(&r->backlog_size, k->n);
  atomic_fetch_sub(&r->backlog, 1);
  mr_mem_free(mr_rt_mem(r->rt), k);
  post_resume(r);
}

static void run_head(struct mr_entry *e)
{
  struct request *r = MR_OF(e, struct request, told); /* its done comes after us */

  if (!atomic_load(&r->cancelled)) r->cbs.head(r->ud, r->told_status, mr_buf_get(&r->head));
}

/* ---- the client's callbacks ---- */

static void on_head(void *ud, struct mr_http_out *out, int status, struct mr_str headers)
{
  struct request *r = ud;
  (void)out;
  r->status = status;
  mr_buf_reset(&r->head);
  mr_buf_str(&r->head, headers);
  if (!r->cbs.head || r->head.failed) return;
  r->told_status = status;
  mr_queue_push(&r->rt->queue, &r->told);
}

static int on_data(void *ud, struct mr_http_out *out, struct mr_str bytes)
{
  struct request *r = ud;
  struct chunk *k;

  r->received += (int64_t)bytes.n;
  if (r->received > r->max_body) return MR_E_TOO_LARGE;
  if (!r->cbs.chunk) {
    mr_buf_str(&r->data, bytes);
    return r->data.failed;
  }
  k = mr_mem_alloc(mr_rt_mem(r->rt), sizeof *k + bytes.n);
  if (!k) return MR_E_NOMEM;
  k->entry.run = run_chunk;
  k->r = r;
  k->n = bytes.n;
  memcpy(k->bytes, bytes.p, bytes.n);
  atomic_fetch_add(&r->backlog_size, k->n);
  if ((atomic_fetch_add(&r->backlog, 1) + 1 >= CHUNKS || atomic_load(&r->backlog_size) >= BACKLOG ||
       atomic_load(&r->held)) &&
      !r->paused) {
    r->paused = true;
    mr_http_out_pause(out, true);
  }
  mr_queue_push(&r->rt->queue, &k->entry);
  return MR_OK;
}

static void on_done(void *ud, struct mr_http_out *out, const struct mr_http_out_done *d)
{
  struct request *r = ud;
  struct mr_err err;
  int code = d->code == MR_OK ? r->head.failed : d->code;

  (void)out;
  r->out = NULL;
  r->status = d->status;
  if (code == MR_E_TOO_LARGE) {
    mr_err_set(&err, code, "max_body", "the response is over the limit of %lld bytes", (long long)r->max_body);
    finish(r, code, &err);
  } else {
    finish(r, code, d->err);
  }
}

/* ---- from the host ---- */

static void on_start(struct mr_post *p)
{
  static const struct mr_http_out_cbs cbs = {on_head, on_data, on_done};
  struct request *r = MR_OF(p, struct request, start);
  struct mr_runtime *rt = r->rt;
  struct mr_http_out_req q = {.method = r->method,
                              .url = r->url,
                              .headers = r->headers,
                              .nheaders = r->nheaders,
                              .body = &r->body,
                              .nbody = r->body.n ? 1 : 0,
                              .unix_path = r->unix_path,
                              .connect_timeout_ms = r->connect_ms,
                              .timeout_ms = r->timeout_ms,
                              .stall_ms = r->idle_ms,
                              .follow = r->follow,
                              .guard = r->guard ? rt->guard : NULL};
  struct mr_err err = {0};
  int code = MR_OK;

  if (atomic_load(&rt->closing) || !rt->http)
    code = mr_err_set(&err, MR_E_CLOSED, NULL, "the runtime is closing");
  else if (atomic_load(&r->cancelled))
    code = mr_err_set(&err, MR_E_CANCELLED, NULL, "cancelled by the caller");
  if (code == MR_OK) code = mr_http_out_start(rt->http, &q, &cbs, r, &r->out, &err);
  if (code != MR_OK) finish(r, code, &err);
  unref(r); /* the post's */
}

static void on_cancel(struct mr_post *p)
{
  struct request *r = MR_OF(p, struct request, cancel);

  if (r->out) mr_http_out_cancel(r->out);
  unref(r);
}

static bool line_ok(const char *s)
{
  for (; *s; s++)
    if ((unsigned char)*s < 0x20 && *s != '\t') return false;
  return true;
}

static int copy_request(struct request *r, const struct mr_ext_http_req *q, struct mr_err *err)
{
  int n = 0;

  if (!q->url || !q->url[0] || strlen(q->url) > (size_t)URL_MAX || !line_ok(q->url))
    return mr_err_set(err, MR_E_INVALID, "url", "url: needed, at most 64 KiB, without control characters");
  if (q->method && (!q->method[0] || strlen(q->method) > 40 || !line_ok(q->method)))
    return mr_err_set(err, MR_E_INVALID, "method", "method: a word such as GET");
  if (q->timeout_ms < -1 || q->max_body < 0 || q->connect_ms < 0 || q->idle_ms < 0)
    return mr_err_set(
        err, MR_E_INVALID, q->max_body < 0 ? "max_body" : "timeout_ms",
        "max_body, connect_ms, idle_ms: not negative; timeout_ms: -1 for none, else not negative");
  if (q->unix_path && (!q->unix_path[0] || strlen(q->unix_path) > UNIX_MAX))
    return mr_err_set(err, MR_E_INVALID, "unix_path", "unix_path: the path of a socket, at most %d bytes",
                      UNIX_MAX);
  if (q->follow < 0 || q->follow > FOLLOW_MAX)
    return mr_err_set(err, MR_E_INVALID, "follow", "follow: 0 to %d redirects", FOLLOW_MAX);
  for (; q->headers && q->headers[n]; n++)
    if (n == HEADERS_MAX || !line_ok(q->headers[n]) || !strchr(q->headers[n], ':'))
      return mr_err_set(err, MR_E_INVALID, "headers", "headers[%d]: \"Name: value\", at most %d of them", n,
                        HEADERS_MAX);
  r->url = (char *)(uintptr_t)mr_arena_str(r->arena, mr_str_c(q->url)).p;
  r->method = (char *)(uintptr_t)mr_arena_str(r->arena, mr_str_c(q->method ? q->method : "GET")).p;
  r->headers = mr_arena_alloc(r->arena, (size_t)(n + 1) * sizeof *r->headers);
  for (int i = 0; r->headers && i < n; i++)
    if (!(r->headers[i] = mr_arena_str(r->arena, mr_str_c(q->headers[i]))).p) return mr_err_nomem(err);
  r->nheaders = n;
  r->body = mr_arena_str(r->arena, q->body);
  if (q->unix_path) {
    r->unix_path = (char *)(uintptr_t)mr_arena_str(r->arena, mr_str_c(q->unix_path)).p;
    if (!r->unix_path) return mr_err_nomem(err);
  }
  r->timeout_ms = q->timeout_ms == -1 ? 0 : q->timeout_ms ? q->timeout_ms : TIMEOUT_MS;
  r->connect_ms = q->connect_ms;
  r->idle_ms = q->idle_ms;
  r->max_body = q->max_body ? q->max_body : r->cbs.chunk ? INT64_MAX : BODY_MAX;
  r->follow = q->follow;
  r->guard = q->guard != 0;
  return r->url && r->method && r->headers && r->body.p ? MR_OK : mr_err_nomem(err);
}

static struct request *request_new(struct mr_runtime *rt, const struct mr_ext_http_cbs *cbs, void *ud)
{
  const struct mr_mem *m = mr_rt_mem(rt);
  struct request *r = mr_mem_zalloc(m, sizeof *r);

  if (!r) return NULL;
  r->arena = mr_arena_new(m, 1024);
  if (!r->arena) {
    mr_mem_free(m, r);
    return NULL;
  }
  mr_rt_ref(rt);
  r->rt = rt;
  atomic_init(&r->refs, 1);
  atomic_init(&r->cancelled, false);
  atomic_init(&r->backlog, 0);
  atomic_init(&r->backlog_size, 0);
  atomic_init(&r->held, false);
  atomic_init(&r->resume_posted, false);
  if (cbs) memcpy(&r->cbs, cbs, cbs->size < sizeof *cbs ? cbs->size : sizeof *cbs);
  r->ud = ud;
  r->start.fn = on_start;
  r->cancel.fn = on_cancel;
  r->resume.fn = on_resume;
  r->told.run = run_head;
  r->done.run = run_done;
  mr_buf_init(&r->head, m, 1 << 20);
  return r;
}

int mr_x_http(struct mr_runtime *rt, const struct mr_ext_http_req *given, const struct mr_ext_http_cbs *cbs,
              void *ud, uint64_t *id, struct mr_err *err)
{
  struct mr_ext_http_req q = {0};
  struct request *r;
  int code = mr_ext_check(rt, err);

  if (id) *id = 0;
  if (code == MR_OK && (!given || given->size < offsetof(struct mr_ext_http_req, headers)))
    code = mr_err_set(err, MR_E_INVALID, "size", "size: set it to sizeof(struct mr_ext_http_req)");
  if (code == MR_OK && cbs && cbs->size < offsetof(struct mr_ext_http_cbs, head))
    code = mr_err_set(err, MR_E_INVALID, "cbs.size", "cbs.size: set it to sizeof(struct mr_ext_http_cbs)");
  if (code != MR_OK) return code;
  memcpy(&q, given, given->size < sizeof q ? given->size : sizeof q);
  r = request_new(rt, cbs, ud);
  if (!r) return mr_err_nomem(err);
  code = copy_request(r, &q, err);
  mr_buf_init(&r->data, mr_rt_mem(rt), (size_t)r->max_body);
  if (code == MR_OK && mr_queue_reserve(&rt->queue) != MR_OK)
    code = mr_err_set(err, MR_E_FULL, NULL, "the completion queue is full: dispatch, then try again");
  if (code != MR_OK) {
    unref(r);
    return code;
  }
  pthread_mutex_lock(&rt->ext->lock);
  r->id = mr_ext_put(rt, MR_EXT_HTTP, r);
  pthread_mutex_unlock(&rt->ext->lock);
  if (!r->id) {
    mr_queue_release(&rt->queue);
    unref(r);
    return mr_err_set(err, MR_E_FULL, NULL, "too many requests and timers at once");
  }
  if (id) *id = r->id;
  atomic_fetch_add(&r->refs, 1); /* the post's */
  if (mr_rt_post(rt, &r->start) == MR_OK) return MR_OK;
  pthread_mutex_lock(&rt->ext->lock);
  mr_ext_drop(rt, r->id);
  pthread_mutex_unlock(&rt->ext->lock);
  mr_queue_release(&rt->queue);
  unref(r);
  unref(r);
  return mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
}

void mr_x_http_cancel(struct mr_runtime *rt, uint64_t id)
{
  struct request *r;

  if (mr_ext_check(rt, NULL) != MR_OK) return;
  pthread_mutex_lock(&rt->ext->lock);
  r = mr_ext_get(rt, MR_EXT_HTTP, id);
  if (r && !atomic_exchange(&r->cancelled, true))
    atomic_fetch_add(&r->refs, 1);
  else
    r = NULL;
  pthread_mutex_unlock(&rt->ext->lock);
  if (r && mr_rt_post(rt, &r->cancel) != MR_OK) unref(r);
}

void mr_x_http_pause(struct mr_runtime *rt, uint64_t id, int pause)
{
  struct request *r;

  if (mr_ext_check(rt, NULL) != MR_OK) return;
  pthread_mutex_lock(&rt->ext->lock);
  r = mr_ext_get(rt, MR_EXT_HTTP, id);
  if (r) atomic_fetch_add(&r->refs, 1);
  pthread_mutex_unlock(&rt->ext->lock);
  if (!r) return;
  atomic_store(&r->held, pause != 0);
  post_resume(r);
  unref(r);
}
