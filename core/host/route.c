/*
 * route.c - HTTP routes of the host: a request that api/ accepted below /x/ goes through the queue to the
 * dispatcher, and the answer comes back from any thread.
 *
 * A request is a given thing (given.c): the loop's reference lasts until the host has ended it and all it wrote is
 * passed on. What the host writes gathers in the request under its lock and goes to the loop as one post at a time;
 * the loop hands it to the connection, but holds it back while that says MR_MORE. So at most MR_WEB_OUT_MAX bytes
 * wait here for a host that does not wait, and one piece for a host that does.
 *
 * Invariant: after closed() nothing more is passed on; drained comes once for each time that write said MR_MORE,
 * unless the host ended the request first.
 */
#include "host/route_t.h"

enum { BODY_DEFAULT = 1 << 20, BODY_MOST = 64 << 20, BEGIN_MS = 60000, BEGIN_MS_MOST = 86400000 };

static struct mr_web *of(struct mr_given *g)
{
  return MR_OF(g, struct mr_web, g);
}

static void web_free(struct mr_given *g)
{
  struct mr_web *w = of(g);
  const struct mr_mem *m = mr_rt_mem(g->rt);

  mr_buf_free(&w->head);
  mr_buf_free(&w->out);
  pthread_mutex_destroy(&w->lock);
  mr_mem_free(m, w->text);
  mr_mem_free(m, w->body);
  mr_mem_free(m, w);
}

/* ---- the answer, on the loop ---- */

static int lines_of(struct mr_str text, struct mr_str *v)
{
  int n = 0;

  while (text.n && n < MR_WEB_LINES_MAX)
    v[n++] = mr_str_split(&text, '\n');
  return n;
}

static void begin(struct mr_web *w, struct mr_str head, struct mr_str out)
{
  struct mr_str v[MR_WEB_LINES_MAX];
  int n = lines_of(head, v);

  w->begun = true;
  if (w->ending && !w->broken && (int64_t)out.n == w->length) {
    mr_api_web_reply(w->x, w->status, v, n, out);
    w->x = NULL;
  } else {
    mr_api_web_start(w->x, w->status, v, n, w->length); /* may call closed */
  }
}

static void push_drained(struct mr_web *w) /* in the lock */
{
  if (!w->wanted || w->drain_queued || w->ended) return;
  w->wanted = false;
  w->drain_queued = true;
  mr_given_ref(&w->g);
  mr_queue_push(&w->g.rt->queue, &w->drain);
}

/* Passes on what the host has said so far. */
static void flush(struct mr_web *w)
{
  struct mr_buf out, head;
  bool started;

  if (w->waits && w->x) return;
  pthread_mutex_lock(&w->lock);
  started = w->status != 0;
  out = w->out;
  mr_buf_init(&w->out, out.mem, SIZE_MAX / 2);
  head = w->head;
  mr_buf_init(&w->head, head.mem, MR_WEB_HEAD_MAX);
  pthread_mutex_unlock(&w->lock);
  if (w->x && started && !w->begun) begin(w, mr_buf_get(&head), mr_buf_get(&out));
  if (w->x && out.n) w->waits = mr_api_web_write(w->x, mr_buf_get(&out)) == MR_MORE;
  mr_buf_free(&out);
  mr_buf_free(&head);
  if (w->x && w->ending) {
    mr_api_web_end(w->x, !w->broken);
    w->x = NULL;
  }
  pthread_mutex_lock(&w->lock);
  w->choked = w->waits && w->x;
  if (!w->choked) push_drained(w);
  pthread_mutex_unlock(&w->lock);
}

static void on_flow(struct mr_post *p)
{
  struct mr_web *w = MR_OF(p, struct mr_web, flow);

  pthread_mutex_lock(&w->lock);
  w->flow_posted = false;
  pthread_mutex_unlock(&w->lock);
  flush(w);
  mr_given_unref(&w->g);
}

/* The host has ended it, and the connection is done with it. */
static void let_go(struct mr_web *w)
{
  if (!w->ending || w->x || w->let_go) return;
  w->let_go = true;
  mr_given_unref(&w->g);
}

static void on_answer(struct mr_post *p)
{
  struct mr_web *w = of(MR_OF(p, struct mr_given, answer));

  w->ending = true;
  flush(w);
  let_go(w);
  mr_given_unref(&w->g); /* the post's */
}

static void on_drained(void *it)
{
  struct mr_web *w = it;

  w->waits = false;
  flush(w);
  let_go(w);
}

static void on_closed(void *it)
{
  struct mr_web *w = it;

  w->x = NULL;
  w->waits = false;
  pthread_mutex_lock(&w->lock);
  w->closed = true;
  w->choked = false;
  mr_buf_free(&w->out);
  pthread_mutex_unlock(&w->lock);
  if (w->ending) {
    let_go(w);
  } else if (mr_given_drop(&w->g)) {
    mr_given_unref(&w->g);
  } else {
    pthread_mutex_lock(&w->lock);
    push_drained(w);
    pthread_mutex_unlock(&w->lock);
  }
}

/* ---- requests, on the loop ---- */

static void copy(struct mr_buf *b, struct mr_str s, size_t *at)
{
  *at = b->n;
  mr_buf_str(b, s);
  mr_buf_char(b, '\0');
}

/* All strings of the request in one block. */
static int read_request(struct mr_web *w, struct mr_api_web *x)
{
  struct mr_str *to[4 + 2 * MR_WEB_PARAMS], from[4 + 2 * MR_WEB_PARAMS], name, value;
  size_t at[5 + 2 * MR_WEB_PARAMS], headers;
  struct mr_buf b;
  int n = 0;

  to[n] = &w->method, from[n++] = mr_api_web_method(x);
  to[n] = &w->path, from[n++] = mr_api_web_path(x);
  to[n] = &w->query, from[n++] = mr_api_web_query(x);
  to[n] = &w->remote, from[n++] = mr_api_web_remote(x);
  for (int i = 0; i < MR_WEB_PARAMS && (value = mr_api_web_param(x, i, &name)).p; i++) {
    to[n] = &w->pname[i], from[n++] = name;
    to[n] = &w->pvalue[i], from[n++] = value;
    w->nparams = i + 1;
  }
  mr_buf_init(&b, mr_rt_mem(w->g.rt), 1 << 20);
  for (int i = 0; i < n; i++)
    copy(&b, from[i], &at[i]);
  headers = b.n;
  mr_api_web_headers(x, &b);
  at[n] = b.n;
  w->text = mr_buf_take(&b, NULL);
  if (!w->text) return MR_E_NOMEM;
  for (int i = 0; i < n; i++)
    *to[i] = mr_str_n(w->text + at[i], from[i].n);
  w->headers = mr_str_n(w->text + headers, at[n] - headers);
  w->body = mr_api_web_body(x, &w->body_n);
  return MR_OK;
}

static void run_request(struct mr_entry *e);
static void run_closed(struct mr_entry *e);
static void run_drained(struct mr_entry *e);

static void *on_request(void *ud, struct mr_api_web *x)
{
  struct mr_route_reg *r = ud;
  const struct mr_mem *m = mr_rt_mem(r->rt);
  struct mr_web *w = mr_mem_zalloc(m, sizeof *w);

  if (!w) return NULL;
  mr_given_init(&w->g, r->rt, run_request, run_closed, on_answer, web_free);
  pthread_mutex_init(&w->lock, NULL);
  mr_buf_init(&w->head, m, MR_WEB_HEAD_MAX);
  mr_buf_init(&w->out, m, SIZE_MAX / 2); /* bounded by mr_web_write */
  w->flow.fn = on_flow;
  w->drain.run = run_drained;
  w->reg = *r;
  if (read_request(w, x) != MR_OK) {
    mr_given_unref(&w->g);
    return NULL;
  }
  w->x = x;
  mr_given_push(&w->g);
  return w;
}

/* ---- the registry ---- */

static void reg_free(void *ud)
{
  struct mr_route_reg *r = ud;
  mr_mem_free(mr_rt_mem(r->rt), r);
}

static int add(struct mr_runtime *rt, void *arg, struct mr_err *err)
{
  return mr_api_route_add(rt->api, arg, err);
}

int mr_route_add(struct mr_runtime *rt, const struct mr_route *r, struct mr_err *err)
{
  struct mr_api_route a;
  struct mr_route_reg *reg;
  int code = mr_rt_check(rt, err);

  if (code == MR_OK && (!r || r->size < sizeof *r))
    code = mr_err_set(err, MR_E_INVALID, "size", "size: set it to sizeof(struct mr_route)");
  if (code != MR_OK) return code;
  if (!r->run) return mr_err_set(err, MR_E_INVALID, "run", "run: a route needs a function");
  if (r->body_max < 0 || r->body_max > BODY_MOST)
    return mr_err_set(err, MR_E_INVALID, "body_max", "body_max: bytes, at most %d", BODY_MOST);
  if (r->timeout_ms < 0 || r->timeout_ms > BEGIN_MS_MOST)
    return mr_err_set(err, MR_E_INVALID, "timeout_ms", "timeout_ms: from 0 (the default) to a day");
  if (atomic_load(&rt->closing)) return mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
  reg = mr_mem_zalloc(mr_rt_mem(rt), sizeof *reg);
  if (!reg) return mr_err_nomem(err);
  *reg = (struct mr_route_reg){rt, r->run, r->closed, r->ud};
  a = (struct mr_api_route){.method = r->method,
                            .path = r->path,
                            .open = (r->flags & MR_ROUTE_PUBLIC) != 0,
                            .body_max = r->body_max ? r->body_max : BODY_DEFAULT,
                            .begin_us = (int64_t)(r->timeout_ms ? r->timeout_ms : BEGIN_MS) * 1000,
                            .run = on_request,
                            .drained = on_drained,
                            .closed = on_closed,
                            .free = reg_free,
                            .ud = reg};
  return mr_rt_sync(rt, add, &a, err);
}

struct drop {
  const char *method, *path;
};

static int drop(struct mr_runtime *rt, void *arg, struct mr_err *err)
{
  const struct drop *d = arg;

  (void)err;
  return mr_api_route_remove(rt->api, d->method, d->path);
}

int mr_route_remove(struct mr_runtime *rt, const char *method, const char *path)
{
  struct drop d = {method, path};
  int code = mr_rt_check(rt, NULL);

  if (code == MR_OK && !path) code = MR_E_INVALID;
  if (code == MR_OK && atomic_load(&rt->closing)) code = MR_E_CLOSED;
  return code == MR_OK ? mr_rt_sync(rt, drop, &d, NULL) : code;
}

/* ---- the dispatcher ---- */

static void run_request(struct mr_entry *e)
{
  struct mr_web *w = of(MR_OF(e, struct mr_given, give));

  if (atomic_load(&w->g.rt->closing))
    mr_given_refuse(&w->g);
  else if (mr_given_take(&w->g))
    w->reg.run(w->reg.ud, w);
}

static void run_closed(struct mr_entry *e)
{
  struct mr_web *w = of(MR_OF(e, struct mr_given, unwanted));

  if (w->reg.closed && !(atomic_load(&w->g.state) & MR_GIVEN_ANSWERED)) w->reg.closed(w->reg.ud, w);
  mr_given_unref(&w->g);
}

static void run_drained(struct mr_entry *e)
{
  struct mr_web *w = MR_OF(e, struct mr_web, drain);
  void (*fn)(void *);
  void *ud;

  pthread_mutex_lock(&w->lock);
  w->drain_queued = false;
  fn = w->ended ? NULL : w->drained;
  ud = w->drained_ud;
  if (!w->choked && w->out.n == 0)
    push_drained(w); /* wanted again meanwhile, and nothing is left to wait for */
  pthread_mutex_unlock(&w->lock);
  if (fn) fn(ud);
  mr_given_unref(&w->g);
}
