/*
 * route_web.c - what the host reads of a request to one of its routes, and how it answers: mr_web_*.
 *
 * Any thread; several may write to one request, each piece is taken whole. What is written waits in the request until
 * the loop takes it (route.c): one post at a time is under way.
 *
 * Invariant: a write that says MR_MORE has a post or a drained client still to come, so its drained is never forgotten.
 */
#include "host/route_t.h"

/* ---- the request ---- */

struct mr_str mr_web_method(const struct mr_web *w)
{
  return w->method;
}

struct mr_str mr_web_path(const struct mr_web *w)
{
  return w->path;
}

struct mr_str mr_web_query(const struct mr_web *w)
{
  return w->query;
}

struct mr_str mr_web_param(const struct mr_web *w, const char *name)
{
  for (int i = 0; name && i < w->nparams; i++)
    if (mr_str_is(w->pname[i], name)) return w->pvalue[i];
  return mr_str_n(NULL, 0);
}

struct mr_str mr_web_header(const struct mr_web *w, const char *name)
{
  struct mr_str rest = w->headers;

  while (name && rest.n) {
    struct mr_str line = mr_str_split(&rest, '\n'), key = mr_str_split(&line, ':');
    if (mr_str_ieq(key, mr_str_c(name))) return mr_str_trim(line);
  }
  return mr_str_n(NULL, 0);
}

struct mr_str mr_web_headers(const struct mr_web *w)
{
  return w->headers;
}

struct mr_str mr_web_body(const struct mr_web *w)
{
  return mr_str_n(w->body, w->body_n);
}

struct mr_str mr_web_remote(const struct mr_web *w)
{
  return w->remote;
}

int mr_web_closed(const struct mr_web *w)
{
  return w ? (atomic_load(&w->g.state) & MR_GIVEN_UNWANTED) != 0 : 1;
}

/* ---- the answer ---- */

static int post_flow(struct mr_web *w)
{
  mr_given_ref(&w->g);
  if (mr_rt_post(w->g.rt, &w->flow) == MR_OK) return MR_OK;
  mr_given_unref(&w->g);
  return MR_E_CLOSED;
}

int mr_web_start(struct mr_web *w, int status, const char *const *headers, int64_t length)
{
  int code = w ? mr_rt_check(w->g.rt, NULL) : MR_E_INVALID, n = 0;
  size_t bytes = 0;
  bool post = false;

  if (code != MR_OK) return code;
  if (status < 200 || status > 599 || length < -1) return MR_E_INVALID;
  for (; headers && headers[n]; n++) {
    bytes += strlen(headers[n]) + 1;
    if (n == MR_WEB_LINES_MAX || bytes > MR_WEB_HEAD_MAX - 1 || !mr_api_web_line_ok(mr_str_c(headers[n])))
      return MR_E_INVALID;
  }
  pthread_mutex_lock(&w->lock);
  if (w->closed) {
    code = MR_E_CLOSED;
  } else if (w->status) {
    code = MR_E_STATE;
  } else {
    for (int i = 0; i < n; i++) {
      mr_buf_c(&w->head, headers[i]);
      mr_buf_char(&w->head, '\n');
    }
    code = w->head.failed;
    if (code == MR_OK) w->status = status;
    w->length = length;
    post = code == MR_OK && length < 0 && !w->flow_posted; /* with a length it leaves with the bytes */
    w->flow_posted = w->flow_posted || post;
  }
  pthread_mutex_unlock(&w->lock);
  return post ? post_flow(w) : code;
}

/* In the lock: takes the bytes. */
static int keep(struct mr_web *w, struct mr_str bytes)
{
  bool slow = w->choked || w->out.n > MR_WEB_MORE;

  if (w->closed) return MR_E_CLOSED;
  if (!w->status) return MR_E_STATE;
  if (w->length >= 0 && (int64_t)bytes.n > w->length - w->written) return MR_E_INVALID;
  if (bytes.n > MR_WEB_PIECE_MAX) return MR_E_TOO_LARGE;
  if (slow && w->out.n + bytes.n > MR_WEB_OUT_MAX) return MR_E_FULL;
  if (w->broken) return MR_E_NOMEM;
  if (bytes.n == 0) return MR_OK;
  mr_buf_str(&w->out, bytes);
  if (w->out.failed) {
    w->broken = true; /* a hole */
    return MR_E_NOMEM;
  }
  w->written += (int64_t)bytes.n;
  return w->choked || w->out.n > MR_WEB_MORE ? MR_MORE : MR_OK;
}

int mr_web_write(struct mr_web *w, struct mr_str bytes, void (*drained)(void *ud), void *ud)
{
  int code = w ? mr_rt_check(w->g.rt, NULL) : MR_E_INVALID;
  bool post = false;

  if (code != MR_OK) return code;
  pthread_mutex_lock(&w->lock);
  code = keep(w, bytes);
  if (code == MR_MORE && drained) { /* without one, that of an earlier write is still due */
    w->wanted = true;
    w->drained = drained;
    w->drained_ud = ud;
  }
  /* The last few bytes leave with the end, which is due: most answers are one write then. */
  post = bytes.n && !w->flow_posted && (code == MR_MORE || (code == MR_OK && w->written != w->length));
  w->flow_posted = w->flow_posted || post;
  pthread_mutex_unlock(&w->lock);
  if (post && post_flow(w) != MR_OK) return MR_E_CLOSED;
  return code;
}

static int finish(struct mr_web **wp, bool whole)
{
  struct mr_web *w = wp ? *wp : NULL;
  int code = w ? mr_rt_check(w->g.rt, NULL) : MR_E_INVALID;

  if (code != MR_OK) return code;
  *wp = NULL;
  pthread_mutex_lock(&w->lock);
  w->ended = true;
  w->broken = w->broken || !whole;
  code = w->closed ? MR_E_CLOSED : MR_OK;
  pthread_mutex_unlock(&w->lock);
  mr_given_answer(&w->g);
  return code;
}

int mr_web_end(struct mr_web **w)
{
  return finish(w, true);
}

int mr_web_fail(struct mr_web **w)
{
  return finish(w, false);
}
