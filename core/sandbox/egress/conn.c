/*
 * conn.c - one client of the proxy, from the head of its request to its end: judged, dialled, then a tunnel or a
 * plain request. A client is from inside a sandbox, so everything it says is bounded and timed, and each of its
 * connections carries one request or one tunnel.
 *
 * Invariant: a byte goes to a host only after the policy let that host pass, and only to an address that was judged
 * when it was dialled. All transitions run in step(), in the drain.
 */
#include "sandbox/egress/egress_t.h"

#include <stdio.h>
#include <unistd.h>

enum {
  HEAD_US = 30 * 1000000,  /* from the first moment to the head */
  SNIFF_US = 60 * 1000000, /* to what a tunnel begins with */
  IDLE_US = 600 * 1000000, /* without a byte in either direction */
  CLOSE_US = 5 * 1000000,  /* for the last bytes */
  TICK_US = 5 * 1000000,
  LOG_US = 60 * 1000000,
  LOG_LINES = 60, /* of refusals, in that time and of one sandbox */
  TURNS = 16      /* of one step, before others have theirs */
};

static void log_it(const struct mr_egress_conn *c, int level, const char *what)
{
  mr_log(mr_loop_sys(c->k->e->loop), level, "egress", "%s: %s", c->k->session, what);
}

/* A command that tries for ever does not fill the log. */
static bool may_log(struct mr_egress_link *k)
{
  int64_t now = mr_loop_now_us(k->e->loop);

  if (!k->nlogged || now - k->logged_us > LOG_US) {
    k->nlogged = 0;
    k->logged_us = now;
  }
  if (++k->nlogged == LOG_LINES)
    mr_log(mr_loop_sys(k->e->loop), MR_LOG_INFO, "egress", "%s: more is refused than is logged", k->session);
  return k->nlogged < LOG_LINES;
}

static void denied(struct mr_egress_conn *c, const char *why)
{
  c->k->e->stats.denied++;
  log_it(c, may_log(c->k) ? MR_LOG_INFO : MR_LOG_DEBUG, why);
  mr_egress_note(c->k, why);
}

/* ---- what the proxy says itself ---- */

static void closing(struct mr_egress_conn *c)
{
  mr_dial_cancel(&c->dial);
  mr_side_close(&c->server);
  c->state = MR_CONN_CLOSING;
  c->moved_us = mr_loop_now_us(c->k->e->loop);
}

void mr_conn_say(struct mr_egress_conn *c, int status, const char *reason, const char *text)
{
  mr_buf_printf(&c->client.out, "HTTP/1.1 %d %s\r\n", status, reason);
  if (status == 407) mr_buf_c(&c->client.out, "Proxy-Authenticate: Basic realm=\"sandbox\"\r\n");
  mr_buf_printf(&c->client.out,
                "Content-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n"
                "Via: 1.1 moonrig\r\nConnection: close\r\n\r\n%s\n",
                strlen(text) + 1, text);
  closing(c);
}

void mr_conn_deny(struct mr_egress_conn *c, const char *why)
{
  char text[600];

  denied(c, why);
  snprintf(
      text, sizeof text,
      "Blocked by the network rules of this environment: %.400s. Trying again will not help: do without it, or "
      "tell the user which host is needed.",
      why);
  mr_conn_say(c, 403, why, text);
}

/* Inside TLS there is no way to say it but an alert: access_denied. */
static void deny_tls(struct mr_egress_conn *c, const char *why)
{
  static const char alert[] = {21, 3, 1, 0, 2, 2, 49};

  denied(c, why);
  mr_buf_add(&c->client.out, alert, sizeof alert);
  closing(c);
}

/* ---- who asks, and for what ---- */

static bool known(const struct mr_egress_conn *c)
{
  struct mr_str v = mr_head_get(&c->req, "proxy-authorization"), scheme, pair;
  unsigned char plain[400];
  int64_t n;

  if (!v.p) return false;
  scheme = mr_str_split(&v, ' ');
  v = mr_str_trim(v);
  if (!mr_str_ieq(scheme, MR_S("basic")) || v.n > 500) return false;
  n = mr_base64_decode(v, plain);
  if (n < 0) return false;
  pair = mr_str_n((const char *)plain, (size_t)n);
  mr_str_split(&pair, ':');
  return pair.p && mr_str_eq_secret(mr_str_c(c->k->token), pair);
}

static void bad_request(struct mr_egress_conn *c, const char *why)
{
  char text[300];

  denied(c, why);
  snprintf(text, sizeof text, "The proxy of this sandbox refuses the request: %.200s.", why);
  mr_conn_say(c, 400, "Bad Request", text);
}

bool mr_conn_target(struct mr_egress_conn *c)
{
  struct mr_str t = mr_head_target(&c->req), host = mr_head_get(&c->req, "host"), rest = t;
  struct mr_target named, asked = c->target;
  struct mr_err err;
  int code = MR_OK;

  if (c->req.p.method == HTTP_CONNECT) {
    if (!c->inside) code = mr_target_read(t, 0, &asked, &err);
    if (c->inside) code = mr_err_set(&err, MR_E_INVALID, NULL, "CONNECT in a tunnel");
  } else if (memchr(t.p, '#', t.n)) {
    code = mr_err_set(&err, MR_E_INVALID, NULL, "a fragment in the URL");
  } else if (!c->inside || t.p[0] != '/') {
    if (t.n < 7 || !mr_str_ieq(mr_str_n(t.p, 7), MR_S("http://")))
      code = mr_err_set(&err, MR_E_INVALID, NULL, "only http:// URLs, and CONNECT for https");
    rest = code == MR_OK ? mr_str_n(t.p + 7, t.n - 7) : t;
    while (code == MR_OK && rest.n && !memchr("/?", rest.p[0], 2))
      rest.p++, rest.n--;
    if (code == MR_OK) code = mr_target_read(mr_str_n(t.p + 7, (size_t)(rest.p - t.p) - 7), 80, &asked, &err);
    if (code == MR_OK && c->inside &&
        (!mr_target_same_host(&asked, &c->target) || asked.port != c->target.port))
      code = mr_err_set(&err, MR_E_INVALID, NULL, "another host than the tunnel's");
  }
  if (code == MR_OK && !host.p && c->req.p.http_minor > 0)
    code = mr_err_set(&err, MR_E_INVALID, NULL, "there is no host header");
  if (code == MR_OK && host.p) {
    code = mr_target_read(host, c->inside || c->req.p.method == HTTP_CONNECT ? asked.port : 80, &named, &err);
    if (code == MR_OK && (!mr_target_same_host(&asked, &named) || asked.port != named.port))
      code = mr_err_set(&err, MR_E_INVALID, NULL, "the host header is not the host that is asked for");
  }
  if (code != MR_OK) bad_request(c, err.message);
  c->target = asked;
  return code == MR_OK;
}

/* ---- dialling ---- */

static bool allow(void *ud, const struct sockaddr *sa, char why[200])
{
  struct mr_egress_conn *c = ud;
  struct mr_egress *e = c->k->e;
  char text[64];

  mr_guard_addr_text(sa, text);
  if (e->own && e->own(e->own_ud, sa)) {
    snprintf(why, 200, "%.100s (%s) is this server itself", c->target.host, text);
    return false;
  }
  if (mr_guard_addr_ok(e->guard, sa) || mr_guard_host_listed(e->guard, mr_str_c(c->target.host))) return true;
  if (c->target.literal)
    snprintf(why, 200, "%s is not a public address", text);
  else
    snprintf(why, 200, "host %.80s is at %s, which is not a public address", c->target.host, text);
  return false;
}

static void dialled(void *ud, int fd, const struct sockaddr *sa, const struct mr_err *err)
{
  struct mr_egress_conn *c = ud;
  struct mr_egress *e = c->k->e;
  char text[500];

  (void)sa;
  c->dial = NULL;
  c->moved_us = mr_loop_now_us(e->loop);
  if (fd >= 0 && mr_side_open(&c->server, e->loop, fd, c) != MR_OK) {
    close(fd);
    mr_conn_say(c, 503, "out of memory", "The proxy of this sandbox has no memory for it.");
  } else if (fd < 0 && err->code == MR_E_DENIED) {
    mr_conn_deny(c, err->message);
  } else if (fd < 0) {
    snprintf(text, sizeof text, "The proxy of this sandbox could not connect: %.350s.", err->message);
    mr_conn_say(c, err->code == MR_E_TIMEOUT ? 504 : 502, err->message, text);
  } else if (c->connect) {
    mr_buf_c(&c->client.out, "HTTP/1.1 200 Connection established\r\n\r\n");
    c->state = MR_CONN_SNIFF;
  } else if (mr_conn_request(c)) {
    c->state = MR_CONN_HTTP;
  }
  mr_conn_step(c);
}

static void judged(struct mr_egress_conn *c)
{
  struct mr_egress *e = c->k->e;
  struct mr_dial_req q = {.host = c->target.host, .port = c->target.port, .allow = allow, .owner = c->k};
  struct mr_err err;
  char why[300];

  switch (mr_egress_judge(c->k->policy, &e->conf, &c->target, why)) {
  case MR_DENY: mr_conn_deny(c, why); return;
  case MR_ASK:
    c->state = MR_CONN_ASK;
    mr_registries_ask(e);
    return;
  case MR_LET: break;
  }
  e->stats.allowed++;
  mr_log(mr_loop_sys(e->loop), MR_LOG_DEBUG, "egress", "%s: %s:%d", c->k->session, c->target.host,
         c->target.port);
  if (mr_dial_start(e->dialer, &q, dialled, c, &c->dial, &err) != MR_OK)
    mr_conn_say(c, 503, "busy", "The proxy of this sandbox is too busy: try again.");
  else
    c->state = MR_CONN_DIAL;
}

/* ---- the states ---- */

static bool step_head(struct mr_egress_conn *c)
{
  size_t n = mr_head_feed(&c->req, mr_buf_get(&c->client.in));

  mr_buf_drop(&c->client.in, n);
  if (c->opened) { /* handshakes go on */
    mr_side_flush(&c->client, false);
    mr_side_flush(&c->server, false);
    if (c->client.failed) log_it(c, MR_LOG_INFO, "a program does not trust the roots of its sandbox");
  }
  if (c->req.state == MR_HEAD_MORE && (c->client.eof || c->client.failed)) c->dead = true;
  if (c->req.state == MR_HEAD_MORE) return n > 0;
  if (c->req.state == MR_HEAD_BAD) {
    bad_request(c, c->req.why);
  } else if (!c->inside && !known(c)) {
    c->k->e->stats.unknown++;
    mr_conn_say(c, 407, "Proxy Authentication Required",
                "The proxy of this sandbox wants the name and password that http_proxy has.");
  } else if (mr_conn_target(c)) {
    if (c->inside) {
      if (mr_conn_request(c)) c->state = MR_CONN_HTTP;
    } else {
      c->connect = c->req.p.method == HTTP_CONNECT;
      judged(c);
    }
  }
  return true;
}

/* Both ends of the tunnel's TLS are here from now on. */
static void open_tls(struct mr_egress_conn *c)
{
  struct mr_egress *e = c->k->e;
  struct mr_tls *in = e->ca ? mr_tls_accept(e->tls, e->ca, c->target.host) : NULL,
                *out = in ? mr_tls_connect(e->tls, c->target.host) : NULL;

  if (!out) {
    mr_tls_free(&in);
    deny_tls(c, "TLS cannot be opened for a secret: out of memory, or no authority");
    return;
  }
  mr_side_tls(&c->client, in);
  mr_side_tls(&c->server, out);
  c->opened = c->inside = true;
  mr_head_reset(&c->req);
  c->state = MR_CONN_HEAD;
}

/* A ClientHello: it must name the host that was asked for. False: more of it is needed. */
static bool sniff_tls(struct mr_egress_conn *c, struct mr_str in)
{
  struct mr_target sni = {0};
  char name[256], why[300];
  int r = mr_sni_read(in, name);

  if (r == -1 && !c->client.eof) return false;
  if (r == 1 && mr_target_read(mr_str_c(name), 443, &sni, NULL) != MR_OK) r = -2;
  if ((r == 1 && mr_target_same_host(&sni, &c->target)) || (r == 0 && c->target.literal)) {
    if (mr_secret_wanted(c->k->policy, &c->target))
      open_tls(c);
    else
      c->state = MR_CONN_TUNNEL;
    return true;
  }
  snprintf(why, sizeof why, "TLS in a tunnel to %.100s %s%.100s", c->target.host,
           r == 1   ? "asks for another name: "
           : r == 0 ? "names no host"
                    : "is malformed",
           r == 1 ? sni.host : "");
  deny_tls(c, why);
  return true;
}

/* The first bytes of a tunnel: TLS for the host that was asked for, or what the policy lets pass beside it. */
static bool step_sniff(struct mr_egress_conn *c)
{
  struct mr_str in = mr_buf_get(&c->client.in);
  bool strict = mr_egress_strict(c->k->policy, &c->target), sent = mr_side_flush(&c->client, false);

  if (!strict) sent |= mr_side_carry(&c->server, &c->client); /* some servers speak first */
  if (!in.n && !c->client.eof) return sent;
  if (in.n && in.p[0] == 22) return sniff_tls(c, in) || sent;
  if (strict && in.n) {
    c->inside = true;
    mr_head_reset(&c->req);
    c->state = MR_CONN_HEAD;
  } else if (strict) {
    c->dead = true;
  } else {
    c->state = MR_CONN_TUNNEL;
  }
  return true;
}

static bool step_tunnel(struct mr_egress_conn *c)
{
  bool sent = mr_side_carry(&c->client, &c->server);

  sent |= mr_side_carry(&c->server, &c->client);
  if (c->client.failed || c->server.failed || (c->client.shut && c->server.shut)) c->dead = true;
  return sent;
}

static bool step_closing(struct mr_egress_conn *c)
{
  bool sent = mr_side_flush(&c->client, true);

  mr_buf_reset(&c->client.in); /* what it still sends is nobody's */
  if (c->client.failed || (c->client.shut && c->client.eof)) c->dead = true;
  return sent;
}

static bool turn(struct mr_egress_conn *c)
{
  bool moved = mr_side_fill(&c->client);

  moved |= mr_side_fill(&c->server);
  switch (c->state) {
  case MR_CONN_HEAD: return step_head(c) || moved;
  case MR_CONN_ASK:
  case MR_CONN_DIAL:
    if (c->client.failed) c->dead = true;
    return false;
  case MR_CONN_SNIFF: return step_sniff(c) || moved;
  case MR_CONN_TUNNEL: return step_tunnel(c) || moved;
  case MR_CONN_HTTP: return mr_conn_http(c) || moved;
  case MR_CONN_CLOSING: return step_closing(c) || moved;
  }
  return false;
}

static void arm(struct mr_egress_conn *c)
{
  bool tunnel = c->state == MR_CONN_TUNNEL || c->state == MR_CONN_SNIFF;

  mr_side_arm(&c->client, c->client.in.n < EGRESS_HIGH, c->client.out.n || (tunnel && c->server.in.n));
  mr_side_arm(&c->server, c->server.in.n < EGRESS_HIGH,
              c->server.out.n || (c->state == MR_CONN_TUNNEL && c->client.in.n));
}

static void on_ready(struct mr_ready *r)
{
  struct mr_egress_conn *c = MR_OF(r, struct mr_egress_conn, ready);
  bool moved = true;

  if (c->state == MR_CONN_ASK && c->k->e->conf.packages_known) judged(c);
  for (int i = 0; i < TURNS && moved && !c->dead; i++) {
    moved = turn(c);
    if (moved) c->moved_us = mr_loop_now_us(c->k->e->loop);
  }
  if (c->client.out.failed || c->server.out.failed || c->client.in.failed || c->server.in.failed)
    c->dead = true;
  if (c->dead)
    mr_conn_free(c);
  else if (moved)
    mr_ready_post(c->k->e->loop, &c->ready); /* others first */
  else
    arm(c);
}

void mr_conn_step(struct mr_egress_conn *c)
{
  mr_ready_post(c->k->e->loop, &c->ready);
}

/* ---- time ---- */

static void on_timer(struct mr_timer *t)
{
  struct mr_egress_conn *c = MR_OF(t, struct mr_egress_conn, timer);
  struct mr_loop *loop = c->k->e->loop;
  int64_t still = mr_loop_now_us(loop) - c->moved_us;
  int64_t limit = c->state == MR_CONN_HEAD      ? HEAD_US
                  : c->state == MR_CONN_SNIFF   ? SNIFF_US
                  : c->state == MR_CONN_CLOSING ? CLOSE_US
                                                : IDLE_US;

  if (still >= limit) {
    mr_conn_free(c);
    return;
  }
  mr_timer_set(loop, t, limit - still < TICK_US ? limit - still : TICK_US);
}

/* ---- life ---- */

int mr_conn_new(struct mr_egress_link *k, int fd, struct mr_err *err)
{
  struct mr_egress *e = k->e;
  struct mr_egress_conn *c = mr_mem_zalloc(e->mem, sizeof *c);

  if (!c) {
    close(fd);
    return mr_err_nomem(err);
  }
  c->k = k;
  mr_side_init(&c->client, e->mem);
  mr_side_init(&c->server, e->mem);
  mr_head_init(&c->req, e->mem, true);
  mr_head_init(&c->res, e->mem, false);
  mr_timer_init(&c->timer, on_timer);
  mr_ready_init(&c->ready, on_ready);
  c->next = k->conns;
  c->link = &k->conns;
  if (c->next) c->next->link = &c->next;
  k->conns = c;
  k->nconns++;
  e->nconns++;
  c->moved_us = mr_loop_now_us(e->loop);
  if (mr_side_open(&c->client, e->loop, fd, c) != MR_OK) {
    close(fd);
    mr_conn_free(c);
    return mr_err_nomem(err);
  }
  mr_timer_set(e->loop, &c->timer, TICK_US);
  mr_conn_step(c);
  return MR_OK;
}

void mr_conn_free(struct mr_egress_conn *c)
{
  struct mr_egress *e = c->k->e;

  mr_dial_cancel(&c->dial);
  mr_timer_cancel(e->loop, &c->timer);
  mr_ready_cancel(e->loop, &c->ready);
  mr_side_close(&c->client);
  mr_side_close(&c->server);
  mr_head_free(&c->req);
  mr_head_free(&c->res);
  *c->link = c->next;
  if (c->next) c->next->link = c->link;
  c->k->nconns--;
  e->nconns--;
  mr_mem_free(e->mem, c);
}
