/*
 * sandbox_egress - the parts of the egress proxy that read what a sandbox wrote: hosts, rules, heads and bodies, TLS's
 * first bytes, secrets; and the whole proxy under mutated requests from a seeded generator (MR_FUZZ_ROUNDS, MR_FUZZ_SEED).
 */
#include "kit.h"

#include <stdlib.h>
#include <unistd.h>

#include "sandbox/egress/egress_t.h"

static uint64_t rnd = 88172645463325252u;
static uint64_t next(uint64_t n)
{
  rnd ^= rnd << 13;
  rnd ^= rnd >> 7;
  rnd ^= rnd << 17;
  return n ? (rnd >> 11) % n : rnd;
}

static long rounds(long usual)
{
  const char *n = getenv("MR_FUZZ_ROUNDS"), *seed = getenv("MR_FUZZ_SEED");

  if (seed) rnd = strtoull(seed, NULL, 10) * 2654435761u + 1;
  return n ? strtol(n, NULL, 10) : usual;
}

/* ---- hosts ---- */

TEST(hosts)
{
  static const struct {
    const char *in, *host;
    int port;
  } good[] = {
      {"Example.COM", "example.com", 80},
      {"example.com.:8080", "example.com", 8080},
      {"a_b.example:1", "a_b.example", 1},
      {"127.1:65535", "127.0.0.1", 65535},
      {"0x7f000001", "127.0.0.1", 80},
      {"0X7F.0.0.1", "127.0.0.1", 80},
      {"017700000001", "127.0.0.1", 80},
      {"2130706433", "127.0.0.1", 80},
      {"1.2.3.4.", "1.2.3.4", 80},
      {"0", "0.0.0.0", 80},
      {"0x", "0.0.0.0", 80},
      {"4294967295", "255.255.255.255", 80},
      {"1.16777215", "1.255.255.255", 80},
      {"[::1]:443", "::1", 443},
      {"[0:0:0:0:0:0:0:1]", "::1", 80},
      {"[2001:DB8::A]", "2001:db8::a", 80},
      {"[::ffff:10.0.0.1]", "10.0.0.1", 80},
      {"[::FFFF:0A00:1]:8", "10.0.0.1", 8},
      {"1.2.3.com", "1.2.3.com", 80},
      {"0x7f.0.0.1g", "0x7f.0.0.1g", 80},
      {"xn--bcher-kva.example", "xn--bcher-kva.example", 80},
  };
  static const char *const bad[] = {
      "",         ".",         "..",       "a..b",          ".a",          "a@b",          "@b",        "a:b@c",
      "a:",       "a:0",       "a:65536",  "a:999999",      "a:-1",        "a:+1",         "a:1 ",      "a:1:2",
      "a b",      "a\tb",      "a%2eb",    "a/b",           "a?b",         "a#b",          "a\\b",      "a,b",
      "[::1",     "::1",       "[::1]x",   "[::1]:",        "[fe80::1%lo]", "[::1]:0",     "[1.2.3.4]", "[]",
      "256.0.0.1", "1.2.3.4.5", "1.2.3.256", "4294967296",  "09",          "1.2.3.08",     "0x100000000", "1..2",
      "\xff",     "b\xc3\xbc" "cher.example", "a\x7f", "a\x01", "127.0.0.1..", "a(b", "a*b", "*.a",
  };
  struct mr_target t;
  struct mr_err err;
  char label[80], name[300];

  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    if (mr_target_read(mr_str_c(good[i].in), 80, &t, &err) != MR_OK)
      test_fail(__FILE__, __LINE__, "%s: %s", good[i].in, err.message);
    if (strcmp(t.host, good[i].host) != 0 || t.port != good[i].port)
      test_fail(__FILE__, __LINE__, "%s is %s:%d", good[i].in, t.host, t.port);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (mr_target_read(mr_str_c(bad[i]), 80, &t, &err) != MR_E_INVALID)
      test_fail(__FILE__, __LINE__, "\"%s\" is %s:%d", bad[i], t.host, t.port);
  CHECK_INT(mr_target_read(mr_str_n("a\0b", 3), 80, &t, &err), MR_E_INVALID);
  CHECK_INT(mr_target_read(MR_S("a"), 0, &t, &err), MR_E_INVALID); /* no port where one has to be */
  memset(label, 'a', 64);
  snprintf(label + 64, sizeof label - 64, ".b");
  CHECK_INT(mr_target_read(mr_str_c(label), 80, &t, &err), MR_E_INVALID);
  CHECK_INT(mr_target_read(mr_str_c(label + 1), 80, &t, &err), MR_OK);
  memset(name, 'a', sizeof name);
  for (int i = 50; i < 300; i += 50)
    name[i] = '.';
  CHECK_INT(mr_target_read(mr_str_n(name, 254), 80, &t, &err), MR_E_INVALID);
  CHECK_INT(mr_target_read(mr_str_n(name, 253), 80, &t, &err), MR_OK);
}

TEST(hosts_of_any_bytes)
{
  static const char set[] = "0123456789abcdefxX.:[]@%/-_ \t\r\n\x7f\xc3";
  struct mr_target t, again;
  char in[24], text[280];

  for (long i = rounds(200000); i > 0; i--) {
    size_t n = next(sizeof in);
    for (size_t k = 0; k < n; k++)
      in[k] = set[next(sizeof set - 1)];
    if (mr_target_read(mr_str_n(in, n), 80, &t, NULL) != MR_OK) continue;
    /* What came out is canonical: it reads as itself, and an address is one. */
    mr_target_text(&t, -1, text);
    if (mr_target_read(mr_str_c(text), 80, &again, NULL) != MR_OK || strcmp(t.host, again.host) != 0 ||
        t.port != again.port || t.literal != again.literal)
      test_fail(__FILE__, __LINE__, "%.*s -> %s -> %s", (int)n, in, text, again.host);
  }
}

/* ---- rules ---- */

static enum mr_verdict judge(struct mr_egress *e, const struct mr_sandbox_network *n, const char *to)
{
  struct mr_egress_policy *p = mr_egress_policy_new(e, n);
  struct mr_target t;
  char why[300] = "";
  enum mr_verdict v;

  CHECK(p && mr_target_read(mr_str_c(to), 443, &t, NULL) == MR_OK);
  v = mr_egress_judge(p, &e->conf, &t, why);
  CHECK((v == MR_DENY) == (why[0] != '\0'));
  mr_egress_policy_free(&p);
  return v;
}

static void open_proxy(struct mr_loop **loop, struct mr_egress **e, const struct mr_egress_options *o)
{
  struct mr_err err;

  CHECK_INT(mr_loop_new(loop, test_sys(), NULL, &err), MR_OK);
  mr_loop_enter(*loop);
  CHECK_INT(mr_egress_new(e, *loop, NULL, test_dir(), o, &err), MR_OK);
}

TEST(rules)
{
  static const int ports[][2] = {{8443, 8443}, {9000, 9010}};
  const struct mr_str packages[] = {MR_S("index.registry.test"), MR_S("*.crates.test")}, blocked[] = {MR_S("*.evil.test")};
  const char *hosts[] = {"api.test", "*.wild.test", "10.0.0.1"}, *mcp[] = {"mcp.test"};
  struct mr_sandbox_network open = {0}, limited = {.limited = true, .hosts = hosts, .nhosts = 3},
                            more = {.limited = true, .package_managers = true, .mcp_hosts = mcp, .nmcp_hosts = 1};
  struct mr_egress_options o = {.ports = ports, .nports = 2, .package_hosts = packages, .npackage_hosts = 2,
                                .blocked_hosts = blocked, .nblocked_hosts = 1};
  struct mr_loop *loop;
  struct mr_egress *e;

  open_proxy(&loop, &e, &o);
  CHECK_INT(judge(e, &open, "any.test"), MR_LET);
  CHECK_INT(judge(e, &open, "any.test:80"), MR_LET);
  CHECK_INT(judge(e, &open, "any.test:22"), MR_DENY);
  CHECK_INT(judge(e, &open, "any.test:8443"), MR_LET);
  CHECK_INT(judge(e, &open, "any.test:9010"), MR_LET);
  CHECK_INT(judge(e, &open, "any.test:9011"), MR_DENY);
  CHECK_INT(judge(e, &open, "a.evil.test"), MR_DENY);
  CHECK_INT(judge(e, &limited, "api.test"), MR_LET);
  CHECK_INT(judge(e, &limited, "API.test."), MR_LET);
  CHECK_INT(judge(e, &limited, "api.test:22"), MR_DENY);
  CHECK_INT(judge(e, &limited, "x.api.test"), MR_DENY);
  CHECK_INT(judge(e, &limited, "a.b.wild.test"), MR_LET);
  CHECK_INT(judge(e, &limited, "wild.test"), MR_DENY);
  CHECK_INT(judge(e, &limited, "0xa000001"), MR_LET); /* the address that is listed, whatever it is written as */
  CHECK_INT(judge(e, &limited, "10.0.0.2"), MR_DENY);
  CHECK_INT(judge(e, &limited, "mcp.test"), MR_DENY);
  CHECK_INT(judge(e, &limited, "index.registry.test"), MR_DENY);
  CHECK_INT(judge(e, &more, "index.registry.test"), MR_LET);
  CHECK_INT(judge(e, &more, "static.crates.test"), MR_LET);
  CHECK_INT(judge(e, &more, "mcp.test"), MR_LET);
  CHECK_INT(judge(e, &more, "api.test"), MR_DENY);
  e->conf.packages_known = false; /* not found out yet: who could be a registry has to wait */
  CHECK_INT(judge(e, &more, "api.test"), MR_ASK);
  CHECK_INT(judge(e, &more, "mcp.test"), MR_LET);
  CHECK_INT(judge(e, &limited, "index.registry.test"), MR_DENY);
  mr_egress_free(&e);
  mr_loop_free(&loop);
  CHECK_INT(test_allocs(), 0);
}

/* ---- heads and bodies ---- */

static const char *const requests[] = {
    "GET http://api.test/query?x=1 HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "POST http://api.test/ HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\nX: y\r\n\r\nabcde",
    "POST http://api.test/ HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nabcde\r\n0\r\nt: u\r\n\r\n",
    "GET http://api.test/x HTTP/1.1\r\nHost: api.test\r\nX: a\r\nx: b\r\nConnection: keep-alive, x\r\n\r\n",
    "HEAD http://api.test/ HTTP/1.0\r\nAccept: */*\r\n\r\n",
    "PUT http://api.test/ HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
    "CONNECT api.test:80 HTTP/1.1\r\nHost: api.test\r\nProxy-Authorization: Basic bW9vbnJpZzp0b2tlbg==\r\n\r\n",
};
static const char *const tokens[] = {"\r\n", "\n", "\r", "\r\n\r\n", " ", "\t", ":", ";", ",", "0\r\n\r\n", "HTTP/1.1",
                                     "Transfer-Encoding: chunked\r\n", "Content-Length: 3\r\n", "Content-Length: +3\r\n",
                                     "Transfer-Encoding: x, chunked\r\n", "Connection: close\r\n", "Host: z\r\n",
                                     "Upgrade: websocket\r\n", "\x7f", "\xff", "#", "@", "..", "%00", "ffffffffffffffff\r\n",
                                     "GET http://other.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n", "\r\n b: c"};
enum { REQ_MAX = 4096 };

static size_t mutate(char *req)
{
  const char *base = requests[next(sizeof requests / sizeof *requests)];
  size_t n = strlen(base);

  memcpy(req, base, n);
  for (uint64_t k = next(4); k > 0; k--) {
    size_t at = next(n + 1), len;
    const char *t = tokens[next(sizeof tokens / sizeof *tokens)];
    switch (next(4)) {
    case 0:
      if (at < n) req[at] = (char)next(256);
      break;
    case 1:
      if (at < n) req[at] ^= (char)(1 << next(8));
      break;
    case 2:
      len = next(8);
      if (len > n - at) len = n - at;
      memmove(req + at, req + at + len, n - at - len);
      n -= len;
      break;
    default:
      len = strlen(t);
      if (n + len > REQ_MAX) break;
      memmove(req + at + len, req + at, n - at);
      memcpy(req + at, t, len);
      n += len;
    }
  }
  return n;
}

/* Feeds in pieces. What is left of the input is what comes behind the message. */
static struct mr_str feed(struct mr_head *h, struct mr_str in, struct mr_buf *body, bool pieces)
{
  while (in.n && h->state != MR_HEAD_BAD && !h->done) {
    size_t n = pieces ? 1 + next(in.n) : in.n;
    int64_t used = h->state == MR_HEAD_MORE ? (int64_t)mr_head_feed(h, mr_str_n(in.p, n))
                                            : mr_head_body(h, mr_str_n(in.p, n), body);
    if (used < 0) {
      h->state = MR_HEAD_BAD;
      break;
    }
    if (!used && n == in.n) break;
    in = mr_str_n(in.p + used, in.n - (size_t)used);
  }
  return in;
}

static int line_count(struct mr_str s)
{
  int n = 0;
  for (size_t i = 0; i < s.n; i++)
    n += s.p[i] == '\n';
  return n;
}

/* What is sent on reads as one request, of the same meaning, whatever came. */
static void check_rebuilt(const struct mr_head *h, struct mr_str body)
{
  const struct mr_mem *m = &test_sys()->mem;
  struct mr_buf out, again;
  struct mr_head r;
  struct mr_str rest;

  mr_buf_init(&out, m, 1 << 20);
  mr_buf_init(&again, m, 1 << 20);
  mr_buf_printf(&out, "%s /t HTTP/1.1\r\nHost: x\r\n", llhttp_method_name((llhttp_method_t)h->p.method));
  mr_head_forward(h, &out, NULL, NULL);
  if (h->chunk_out)
    mr_buf_c(&out, "Transfer-Encoding: chunked\r\n");
  else if (mr_head_count(h, "content-length"))
    mr_buf_printf(&out, "Content-Length: " MR_FMT "\r\n", MR_ARG(mr_head_get(h, "content-length")));
  mr_buf_c(&out, "\r\n");
  mr_buf_str(&out, body);
  mr_head_init(&r, m, true);
  rest = feed(&r, mr_buf_get(&out), &again, false);
  if (r.state != MR_HEAD_WHOLE || !r.done || rest.n || line_count(mr_str_n(out.p, r.raw.n)) != r.nfields + 2 ||
      !mr_str_eq(mr_buf_get(&again), body) || mr_head_count(&r, "host") != 1 ||
      mr_head_count(&r, "proxy-authorization") || mr_head_count(&r, "connection"))
    test_fail(__FILE__, __LINE__, "rebuilt: %s\nas: %.*s", r.why ? r.why : "-", (int)out.n, out.p);
  mr_head_free(&r);
  mr_buf_free(&out);
  mr_buf_free(&again);
}

/* Options of connection are compared with every field: few are let through, in however many fields they come. */
TEST(options_of_connection)
{
  static const struct {
    int fields, options;
    enum mr_head_state state;
  } rows[] = {{1, 1, MR_HEAD_WHOLE},  {1, 32, MR_HEAD_WHOLE}, {32, 1, MR_HEAD_WHOLE}, {4, 8, MR_HEAD_WHOLE},
              {1, 33, MR_HEAD_BAD},   {33, 1, MR_HEAD_BAD},   {3, 11, MR_HEAD_BAD},   {1, 15000, MR_HEAD_BAD},
              {90, 150, MR_HEAD_BAD}};
  const struct mr_mem *m = &test_sys()->mem;

  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    for (int answer = 0; answer < 2; answer++) {
      struct mr_head h;
      struct mr_buf b;
      mr_buf_init(&b, m, 1 << 17);
      mr_buf_c(&b, answer ? "HTTP/1.1 200 OK\r\n" : "GET / HTTP/1.1\r\nHost: a\r\n");
      for (int f = 0; f < rows[i].fields; f++) {
        mr_buf_c(&b, "Connection: ");
        for (int k = 1; k < rows[i].options; k++)
          mr_buf_c(&b, k % 2 ? "a," : ",");
        mr_buf_c(&b, "b\r\n");
      }
      mr_buf_c(&b, "Content-Length: 0\r\n\r\n");
      mr_head_init(&h, m, !answer);
      mr_head_feed(&h, mr_buf_get(&b));
      if (h.state != rows[i].state)
        test_fail(__FILE__, __LINE__, "%d fields of %d options: %d %s", rows[i].fields, rows[i].options, (int)h.state,
                  h.why ? h.why : "");
      mr_head_free(&h);
      mr_buf_free(&b);
    }
}

TEST(heads_of_any_bytes)
{
  const struct mr_mem *m = &test_sys()->mem;
  char req[REQ_MAX + 64];
  long whole = 0, all = rounds(60000);

  for (long i = 0; i < all; i++) {
    struct mr_str in = mr_str_n(req, mutate(req)), rest[2];
    struct mr_head h[2];
    struct mr_buf body[2];
    for (int k = 0; k < 2; k++) { /* in one piece, and in any: the same comes out */
      mr_head_init(&h[k], m, true);
      mr_buf_init(&body[k], m, 1 << 20);
      rest[k] = feed(&h[k], in, &body[k], k == 1);
    }
    CHECK_INT(h[0].state, h[1].state);
    if (h[0].state == MR_HEAD_WHOLE) {
      CHECK_INT(h[0].done, h[1].done);
      CHECK_INT(h[0].nfields, h[1].nfields);
      CHECK(!h[0].done || mr_str_eq(rest[0], rest[1]));
      if (h[0].done && h[0].p.method != HTTP_CONNECT) {
        if (!h[0].chunk_out) CHECK(mr_str_eq(mr_buf_get(&body[0]), mr_buf_get(&body[1])));
        check_rebuilt(&h[0], mr_buf_get(&body[0]));
        whole++;
      }
    }
    for (int k = 0; k < 2; k++) {
      mr_head_free(&h[k]);
      mr_buf_free(&body[k]);
    }
  }
  CHECK(whole > all / 10);
  CHECK_INT(test_allocs(), 0);
}

/* ---- TLS's first bytes ---- */

TEST(server_names)
{
  struct mr_loop *loop;
  struct mr_tls_ctx *ctx;
  struct mr_tls *t;
  struct mr_buf plain, raw;
  struct mr_err err;
  char name[256], copy[4096];

  CHECK_INT(mr_loop_new(&loop, test_sys(), NULL, &err), MR_OK);
  CHECK_INT(mr_tls_ctx_new(&ctx, &test_sys()->mem, NULL, &err), MR_OK);
  t = mr_tls_connect(ctx, "some.example.com");
  mr_buf_init(&plain, &test_sys()->mem, 1 << 16);
  mr_buf_init(&raw, &test_sys()->mem, 1 << 16);
  CHECK(t && mr_tls_take(t, MR_S(""), &plain, &raw));
  CHECK(raw.n > 100 && raw.n < sizeof copy);
  CHECK_INT(mr_sni_read(mr_buf_get(&raw), name), 1);
  CHECK_STR(mr_str_c(name), "some.example.com");
  for (size_t n = 0; n < raw.n; n++)
    CHECK_INT(mr_sni_read(mr_str_n(raw.p, n), name), -1);
  /* Cut into records of a few bytes each, it is the same. */
  for (size_t at = 5, n = 0;; n = 0) {
    static char records[16384];
    for (at = 5; at < raw.n; at += 7) {
      size_t len = raw.n - at < 7 ? raw.n - at : 7;
      memcpy(records + n, "\x16\x03\x01\x00", 4);
      records[n + 4] = (char)len;
      memcpy(records + n + 5, raw.p + at, len);
      n += 5 + len;
    }
    CHECK_INT(mr_sni_read(mr_str_n(records, n), name), 1);
    CHECK_STR(mr_str_c(name), "some.example.com");
    break;
  }
  for (long i = rounds(100000); i > 0; i--) {
    memcpy(copy, raw.p, raw.n);
    for (uint64_t k = 1 + next(3); k > 0; k--)
      copy[next(raw.n)] = (char)next(256);
    mr_sni_read(mr_str_n(copy, next(4) ? raw.n : next(raw.n)), name); /* the sanitizers look on */
  }
  mr_tls_free(&t);
  mr_tls_ctx_free(&ctx);
  mr_buf_free(&plain);
  mr_buf_free(&raw);
  mr_loop_free(&loop);
  CHECK_INT(test_allocs(), 0);
}

/* ---- the whole ---- */

/* As envd does: asks for a stream, gets one. */
static int stream(struct mr_loop *loop, int channel)
{
  union {
    struct cmsghdr h;
    char room[CMSG_SPACE(sizeof(int))];
  } control;
  char byte;
  struct iovec v = {.iov_base = &byte, .iov_len = 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
  int fd = -1;

  CHECK_INT(send(channel, "c", 1, MSG_NOSIGNAL), 1);
  for (int i = 0; i < 20000; i++) {
    m.msg_control = control.room;
    m.msg_controllen = sizeof control.room;
    if (recvmsg(channel, &m, MSG_DONTWAIT) == 1) break;
    if (mr_loop_pump(loop, 1000) != MR_MORE) usleep(100);
  }
  if (m.msg_controllen) memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
  CHECK(byte == (fd >= 0 ? 'y' : 'n'));
  return fd;
}

/* What the proxy says until it closes. */
static size_t answer(struct mr_loop *loop, int fd, char *out, size_t max)
{
  size_t n = 0;

  for (int i = 0; i < 40000; i++) {
    ssize_t got = recv(fd, out + n, max - 1 - n, MSG_DONTWAIT);
    if (got == 0) break;
    if (got > 0) n += (size_t)got;
    if (got < 0 && mr_loop_pump(loop, 1000) != MR_MORE) usleep(50);
  }
  out[n] = '\0';
  return n;
}

TEST(requests_of_any_bytes)
{
  const char *hosts[] = {"nowhere.invalid"};
  struct mr_sandbox_network net = {.limited = true, .hosts = hosts, .nhosts = 1};
  struct mr_loop *loop;
  struct mr_egress *e;
  struct mr_egress_policy *p;
  struct mr_egress_link *k;
  struct mr_err err;
  char req[REQ_MAX + 64], out[8192];
  int channel, status[600] = {0};

  open_proxy(&loop, &e, NULL);
  p = mr_egress_policy_new(e, &net);
  CHECK_INT(mr_egress_link_new(&k, e, "sesn_x", "token", p, &channel, &err), MR_OK);
  for (long i = rounds(4000); i > 0; i--) {
    size_t n = mutate(req), at = 0;
    int fd = stream(loop, channel);
    CHECK(fd >= 0);
    while (at < n) {
      size_t len = 1 + next(n - at);
      if (send(fd, req + at, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) break;
      at += len;
      if (next(2)) mr_loop_pump(loop, 1000);
    }
    shutdown(fd, SHUT_WR);
    if (answer(loop, fd, out, sizeof out)) {
      CHECK(memcmp(out, "HTTP/1.1 ", 9) == 0);
      status[strtol(out + 9, NULL, 10) % 600]++;
    }
    close(fd);
  }
  CHECK(status[400] > 0 && status[407] > 0 && status[403] > 0 && status[200] == 0);
  mr_egress_link_free(&k);
  mr_egress_policy_free(&p);
  mr_egress_free(&e);
  close(channel);
  mr_loop_free(&loop);
  CHECK_INT(test_allocs(), 0);
}

/* Every place is taken: the next is told so, and one that is free again is given. */
TEST(places)
{
  struct mr_sandbox_network net = {0};
  struct mr_loop *loop;
  struct mr_egress *e;
  struct mr_egress_policy *p;
  struct mr_egress_link *k;
  struct mr_err err;
  int channel, fd[EGRESS_CONNS], extra;

  open_proxy(&loop, &e, NULL);
  p = mr_egress_policy_new(e, &net);
  CHECK_INT(mr_egress_link_new(&k, e, "sesn_x", "token", p, &channel, &err), MR_OK);
  for (int i = 0; i < EGRESS_CONNS; i++)
    CHECK((fd[i] = stream(loop, channel)) >= 0);
  CHECK_INT(stream(loop, channel), -1);
  close(fd[7]);
  for (int i = 0; k->nconns == EGRESS_CONNS && i < 20000; i++)
    if (mr_loop_pump(loop, 1000) != MR_MORE) usleep(100);
  extra = stream(loop, channel);
  CHECK(extra >= 0);
  mr_egress_link_free(&k); /* with all of them open */
  mr_egress_policy_free(&p);
  mr_egress_free(&e);
  for (int i = 0; i < EGRESS_CONNS; i++)
    if (i != 7) close(fd[i]);
  close(extra);
  close(channel);
  mr_loop_free(&loop);
  CHECK_INT(test_allocs(), 0);
}

/* ---- secrets ---- */

TEST(secrets)
{
  const char *hosts[] = {"api.test"}, *mine[] = {"mine.test"};
  struct mr_sandbox_secret operators[] = {{"KEY", "operators", hosts, 1}, {"TWO", "second", hosts, 1}},
                           own[] = {{"KEY", "sessions", mine, 1}};
  struct mr_egress_options o = {.secrets = operators, .nsecrets = 2};
  struct mr_sandbox_network net = {.secrets = own, .nsecrets = 1};
  struct mr_loop *loop;
  struct mr_egress *e;
  struct mr_egress_policy *p;
  struct mr_egress_link link = {.token = "0123456789abcdef0123456789abcdef"};
  struct mr_egress_conn c = {.k = &link};
  struct mr_buf out, b64;
  char key[MR_EGRESS_PLACEHOLDER], two[MR_EGRESS_PLACEHOLDER], text[300];

  open_proxy(&loop, &e, &o);
  CHECK(access(mr_ca_bundle(e->ca), R_OK) == 0);
  p = mr_egress_policy_new(e, &net);
  link.e = e;
  link.policy = p;
  CHECK_INT(p->nsecrets, 2); /* the session's KEY stands before the operator's */
  mr_secret_placeholder(link.token, "KEY", key);
  mr_secret_placeholder(link.token, "TWO", two);
  CHECK(strcmp(key, two) != 0);
  mr_buf_init(&out, &test_sys()->mem, 1 << 16);
  mr_target_read(MR_S("api.test"), 443, &c.target, NULL);
  CHECK(mr_secret_wanted(p, &c.target));
  snprintf(text, sizeof text, "x%s,%s;%s", two, key, two);
  mr_secret_change(&c, MR_S("x-h"), mr_str_c(text), &out);
  snprintf(text, sizeof text, "xsecond,%s;second", key);
  CHECK(mr_str_eq(mr_buf_get(&out), mr_str_c(text)));
  mr_buf_reset(&out);
  mr_target_read(MR_S("mine.test"), 443, &c.target, NULL);
  mr_secret_change(&c, MR_S("x-h"), mr_str_c(key), &out);
  CHECK_STR(mr_buf_get(&out), "sessions");
  mr_buf_reset(&out);
  snprintf(text, sizeof text, "user:%s", key);
  mr_buf_init(&b64, &test_sys()->mem, 1000);
  mr_buf_c(&b64, "basic ");
  b64.n += mr_base64_encode(mr_str_c(text), mr_buf_reserve(&b64, 300));
  mr_secret_change(&c, MR_S("Authorization"), mr_buf_get(&b64), &out);
  CHECK_STR(mr_buf_get(&out), "Basic dXNlcjpzZXNzaW9ucw==");
  mr_buf_reset(&out);
  mr_target_read(MR_S("10.0.0.1"), 443, &c.target, NULL);
  CHECK(!mr_secret_wanted(p, &c.target));
  mr_secret_change(&c, MR_S("x-h"), MR_S("mr-placeholder-"), &out);
  CHECK_STR(mr_buf_get(&out), "mr-placeholder-");
  mr_buf_reset(&out); /* what only looks like one, beside one */
  mr_target_read(MR_S("api.test"), 443, &c.target, NULL);
  snprintf(text, sizeof text, "mr-placeholder-%s%.46s", two, two);
  mr_secret_change(&c, MR_S("x-h"), mr_str_c(text), &out);
  snprintf(text, sizeof text, "mr-placeholder-second%.46s", two);
  CHECK(mr_str_eq(mr_buf_get(&out), mr_str_c(text)));
  mr_buf_free(&out);
  mr_buf_free(&b64);
  mr_egress_policy_free(&p);
  mr_egress_free(&e);
  mr_loop_free(&loop);
  CHECK_INT(test_allocs(), 0);
}
