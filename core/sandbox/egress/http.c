/*
 * http.c - plain HTTP through the proxy: one request, rebuilt from what was parsed, and its answer, rebuilt likewise.
 * Both connections end with the answer. Nothing that the client sends after its request goes anywhere, so no second
 * request can ride on the first one's verdict.
 */
#include "sandbox/egress/egress_t.h"

#include <stdio.h>

bool mr_conn_request(struct mr_egress_conn *c)
{
  struct mr_buf *out = &c->server.out;
  struct mr_str path = mr_head_target(&c->req);
  char host[280];

  if (path.p[0] != '/') { /* http://host/path */
    path.p += 7, path.n -= 7;
    while (path.n && !memchr("/?", path.p[0], 2))
      path.p++, path.n--;
  }
  mr_target_text(&c->target, c->opened ? 443 : 80, host);
  mr_buf_printf(out, "%s %s", llhttp_method_name((llhttp_method_t)c->req.p.method),
                path.n && path.p[0] == '/' ? "" : "/");
  mr_buf_str(out, path);
  mr_buf_printf(out, " HTTP/1.1\r\nHost: %s\r\n", host);
  mr_head_forward(&c->req, out, c->opened ? mr_secret_change : NULL, c);
  if (c->req.chunk_out)
    mr_buf_c(out, "Transfer-Encoding: chunked\r\n");
  else if (mr_head_count(&c->req, "content-length"))
    mr_buf_printf(out, "Content-Length: " MR_FMT "\r\n", MR_ARG(mr_head_get(&c->req, "content-length")));
  mr_buf_c(out, "Via: 1.1 moonrig\r\nConnection: close\r\n\r\n");
  c->res.no_body = c->req.p.method == HTTP_HEAD;
  if (mr_str_ieq(mr_head_get(&c->req, "expect"), MR_S("100-continue")))
    mr_buf_c(&c->client.out, "HTTP/1.1 100 Continue\r\n\r\n");
  return true;
}

static void bad_answer(struct mr_egress_conn *c, const char *why)
{
  char text[300];

  if (c->res.state == MR_HEAD_WHOLE) { /* a part of it is out: it must not be taken for the whole */
    c->dead = !c->res.chunk_out && !mr_head_count(&c->res, "content-length");
    return;
  }
  snprintf(text, sizeof text, "The answer of %.150s cannot be passed on: %s.", c->target.host, why);
  mr_conn_say(c, 502, "Bad Gateway", text);
}

static void answer_head(struct mr_egress_conn *c)
{
  struct mr_head *h = &c->res;
  struct mr_buf *out = &c->client.out;
  struct mr_str length = mr_head_get(h, "content-length");

  if (c->req.p.http_minor == 0) h->chunk_out = false;
  mr_buf_printf(out, "HTTP/1.1 %d " MR_FMT "\r\n", h->p.status_code, MR_ARG(mr_head_target(h)));
  mr_head_forward(h, out, NULL, NULL);
  if (h->chunk_out)
    mr_buf_c(out, "Transfer-Encoding: chunked\r\n");
  else if (length.p)
    mr_buf_printf(out, "Content-Length: " MR_FMT "\r\n", MR_ARG(length));
  mr_buf_c(out, "Via: 1.1 moonrig\r\nConnection: close\r\n\r\n");
}

/* Bytes of the answer; false: it is over, one way or the other. */
static bool answer(struct mr_egress_conn *c)
{
  struct mr_side *s = &c->server;
  struct mr_head *h = &c->res;
  int64_t n;

  while (h->state == MR_HEAD_MORE && s->in.n) {
    mr_buf_drop(&s->in, mr_head_feed(h, mr_buf_get(&s->in)));
    if (h->state == MR_HEAD_BAD || (h->state == MR_HEAD_WHOLE && h->p.status_code == 101)) {
      bad_answer(c, h->why ? h->why : "it changes the protocol");
      return false;
    }
    if (h->state == MR_HEAD_WHOLE && h->p.status_code < 200)
      mr_head_reset(h); /* the answer is still to come */
    else if (h->state == MR_HEAD_WHOLE)
      answer_head(c);
  }
  if (h->state == MR_HEAD_WHOLE && !h->done && s->in.n && c->client.out.n < EGRESS_HIGH) {
    n = mr_head_body(h, mr_buf_get(&s->in), &c->client.out);
    if (n < 0) {
      bad_answer(c, "bad framing");
      return false;
    }
    mr_buf_drop(&s->in, (size_t)n);
  }
  if (!h->done && (s->eof || s->failed) && !s->in.n) {
    if (h->state == MR_HEAD_WHOLE && s->eof && mr_head_eof(h, &c->client.out)) return false;
    bad_answer(c, s->tls && mr_tls_why(s->tls)[0] ? mr_tls_why(s->tls) : "it ended too early");
    return false;
  }
  return !h->done;
}

bool mr_conn_http(struct mr_egress_conn *c)
{
  size_t in = c->client.in.n, out = c->server.out.n, back = c->server.in.n;
  int64_t n;
  bool sent;

  if (!c->req.done && c->client.in.n && c->server.out.n < EGRESS_HIGH) {
    n = mr_head_body(&c->req, mr_buf_get(&c->client.in), &c->server.out);
    if (n < 0) {
      c->dead = true; /* half a request is with the server: nothing more can be said to it */
      return true;
    }
    mr_buf_drop(&c->client.in, (size_t)n);
  }
  if (c->client.failed || (c->client.eof && !c->client.in.n && !c->req.done)) c->dead = true;
  sent = mr_side_flush(&c->server, false);
  if (!c->dead && !answer(c) && c->state == MR_CONN_HTTP && !c->dead) {
    mr_side_close(&c->server);
    c->state = MR_CONN_CLOSING;
    return true;
  }
  if (c->state == MR_CONN_HTTP && !c->dead) sent |= mr_side_flush(&c->client, false);
  return sent || in != c->client.in.n || out != c->server.out.n || back != c->server.in.n;
}
