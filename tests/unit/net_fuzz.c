/*
 * net_fuzz - bytes that no client should send: mutations of valid requests from a seeded generator, cut into
 * random pieces. The server must answer or close each connection, leak nothing, stay up, and answer a good
 * request after. MR_FUZZ_ROUNDS and MR_FUZZ_SEED change how many and which; a failure names its seed.
 */
#include "net_kit.h"

static uint64_t rnd;
static uint64_t next(uint64_t n)
{
  rnd ^= rnd << 13;
  rnd ^= rnd >> 7;
  rnd ^= rnd << 17;
  return n ? (rnd >> 11) % n : rnd;
}

static const char *const good[] = {
    "GET /query?x=1 HTTP/1.1\r\nhost: x\r\n\r\n",
    "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nabcde",
    "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nabcde\r\n3\r\nfgh\r\n0\r\nt: u\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: x\r\nX: a\r\nx: b\r\nconnection: keep-alive\r\n\r\n",
    "HEAD / HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET / HTTP/1.1\r\nhost: y\r\n\r\n",
    "POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc",
    "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nabcdGET /sse HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET http://a.b/path?q HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
};
static const char *const tokens[] = {
    "\r\n", "\n", "\r", "\r\n\r\n", " ", "\t", ":", ";", ",", "0\r\n\r\n", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0",
    "transfer-encoding: chunked\r\n", "content-length: 3\r\n", "content-length: 18446744073709551616\r\n",
    "connection: close\r\n", "host: z\r\n", "upgrade: websocket\r\n", "\x00", "\x7f", "\xff", "ffffffffffffffff\r\n",
    "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "expect: 100-continue\r\n"};

enum { REQ_MAX = 4096 };

static size_t mutate(char *req)
{
  const char *base = good[next(sizeof good / sizeof *good)];
  size_t n = strlen(base);
  memcpy(req, base, n);
  for (uint64_t k = next(5); k > 0; k--) {
    size_t at = next(n + 1), len;
    switch (next(6)) {
    case 0: if (at < n) req[at] = (char)next(256); break;
    case 1: if (at < n) req[at] ^= (char)(1 << next(8)); break;
    case 2: /* a piece goes */
      len = next(8);
      if (len > n - at) len = n - at;
      memmove(req + at, req + at + len, n - at - len);
      n -= len;
      break;
    case 3: { /* a token comes */
      uint64_t t = next(sizeof tokens / sizeof *tokens);
      len = tokens[t][0] ? strlen(tokens[t]) : 1;
      if (n + len > REQ_MAX) break;
      memmove(req + at + len, req + at, n - at);
      memcpy(req + at, tokens[t], len);
      n += len;
      break;
    }
    case 4: /* a piece twice */
      len = next(200);
      if (len > n - at) len = n - at;
      if (n + len > REQ_MAX) break;
      memmove(req + at + len, req + at, n - at);
      n += len;
      break;
    default: n = at; break; /* the rest never comes */
    }
  }
  return n;
}

static void one_round(void)
{
  char req[REQ_MAX];
  size_t n = mutate(req), at = 0;
  int fd = dial();
  pause_body = next(4) == 0;
  resume_at_once = true;
  while (at < n) {
    size_t len = next(3) ? n - at : 1 + next(n - at);
    say(fd, mr_str_n(req + at, len));
    turn(1 + (int)next(2));
    at += len;
  }
  if (next(4) == 0) shutdown(fd, SHUT_WR);
  if (stream && next(2)) mr_sse_event(stream, MR_S("x"), 1, MR_S("{}"));
  if (stream && next(2)) mr_sse_end(stream);
  turn(2);
  recv(fd, got, sizeof got, 0);
  close(fd);
  turn(1);
}

TEST(mutated_requests)
{
  const char *rounds = getenv("MR_FUZZ_ROUNDS"), *seed = getenv("MR_FUZZ_SEED");
  char address[280];
  struct mr_http_server_stats st;
  int n = rounds ? (int)strtol(rounds, NULL, 10) : 20000;
  rnd = seed ? strtoull(seed, NULL, 10) : 88172645463325252u;
  snprintf(address, sizeof address, "unix:%s/s", test_dir());
  kit_start((struct mr_http_server_opts){.max_header = 600}, address);
  for (int i = 0; i < n; i++) {
    one_round();
    if (i % 1000 == 999) {
      int fd = dial();
      ask(fd, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "hello");
      close(fd);
    }
  }
  for (int i = 0; i < 1000; i++) turn(1);
  mr_http_server_stats(server, &st);
  CHECK_INT(st.connections, 0);
  CHECK_INT(mr_http_server_active(server), 0);
  CHECK(st.requests > (uint64_t)n / 4); /* many of them are good enough, */
  CHECK(st.refused > (uint64_t)n / 10); /* and many are not */
  kit_stop();
}

TEST(noise)
{
  char address[280], bytes[3000];
  rnd = 1181783497276652981u;
  snprintf(address, sizeof address, "unix:%s/s", test_dir());
  kit_start((struct mr_http_server_opts){0}, address);
  for (int i = 0; i < 2000; i++) {
    int fd = dial();
    size_t n = next(sizeof bytes);
    for (size_t k = 0; k < n; k++) bytes[k] = (char)next(256);
    say(fd, mr_str_n(bytes, n));
    turn(2);
    close(fd);
    turn(1);
  }
  int fd = dial();
  ask(fd, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "hello");
  CHECK_INT(opened, 1);
  close(fd);
  kit_stop();
}
