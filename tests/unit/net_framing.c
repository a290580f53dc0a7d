/*
 * net_framing - how requests are read and answers framed: what is refused because two servers might read it
 * in two ways, which bodies are read, discarded or left alone, and when a connection may be used again.
 */
#include "net_kit.h"
#include <sys/resource.h>

#define GET(path) "GET " path " HTTP/1.1\r\nhost: x\r\n\r\n"
#define POST(path, more) "POST " path " HTTP/1.1\r\nhost: x\r\n" more "\r\n"

static int count_of(const char *text)
{
  int n = 0;
  for (const char *p = got; (p = strstr(p, text)); p++) n++;
  return n;
}

/* One request on its own connection; the head of the answer must begin so. */
static void answered(const char *request, const char *status)
{
  int fd = dial();
  fresh();
  say(fd, mr_str_c(request));
  if (!hear(fd, "\r\n\r\n") || strncmp(got, status, strlen(status)) != 0)
    test_fail(__FILE__, __LINE__, "\"%.200s\" got \"%.100s\", not %s", request, got, status);
  close(fd);
}

TEST(two_readings_are_refused)
{
  static const char *const bad[] = {
      POST("/echo", "content-length: 3\r\ntransfer-encoding: chunked\r\n") "0\r\n\r\n",
      POST("/echo", "transfer-encoding: chunked\r\ncontent-length: 3\r\n") "0\r\n\r\n",
      POST("/echo", "content-length: 3\r\ncontent-length: 3\r\n") "abc",
      POST("/echo", "content-length: 3, 3\r\n") "abc",
      POST("/echo", "content-length: +3\r\n") "abc",
      POST("/echo", "content-length: -3\r\n") "abc",
      POST("/echo", "content-length: 0x3\r\n") "abc",
      POST("/echo", "content-length: 3 3\r\n") "abc",
      POST("/echo", "content-length: 99999999999999999999999\r\n") "abc",
      POST("/echo", "content-length : 3\r\n") "abc",
      POST("/echo", " content-length: 3\r\n") "abc",
      POST("/echo", "content-length:\r\n 3\r\n") "abc",
      POST("/echo", "transfer-encoding: chunked, identity\r\n") "0\r\n\r\n",
      POST("/echo", "transfer-encoding: identity\r\n") "0\r\n\r\n",
      POST("/echo", "transfer-encoding: gzip, chunked\r\n") "0\r\n\r\n",
      POST("/echo", "transfer-encoding: xchunked\r\n") "0\r\n\r\n",
      POST("/echo", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n") "0\r\n\r\n",
      POST("/echo", "transfer-encoding: \vchunked\r\n") "0\r\n\r\n",
      POST("/echo", "transfer-encoding\r\n: chunked\r\n") "0\r\n\r\n",
      "POST /echo HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
      "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
      "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
      "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
      "GET / HTTP/1.1\r\n\r\n",
      "GET / HTTP/1.1\nhost: x\n\n",
      "GET / HTTP/1.1\rhost: x\r\r",
      "GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c: d\r\n\r\n",
      "GET / HTTP/1.1\r\nhost: x\r\na: b\rc: d\r\n\r\n",
      "GET / HTTP/1.1\r\nhost: x\r\n: b\r\n\r\n",
      "GET / HTTP/1.1\r\nhost: x\r\na b: c\r\n\r\n",
      "GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
      "GET /a#b HTTP/1.1\r\nhost: x\r\n\r\n",
      "GET a HTTP/1.1\r\nhost: x\r\n\r\n",
      "GET * HTTP/1.1\r\nhost: x\r\n\r\n",
      "CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n",
      "NONSENSE / HTTP/1.1\r\nhost: x\r\n\r\n",
      "get / HTTP/1.1\r\nhost: x\r\n\r\n",
      "\x16\x03\x01\x02\x01\x01\x01\x01\xfc\x03\x03",
  };
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    answered(bad[i], "HTTP/1.1 400 Bad Request\r\n");
    CHECK(strstr(got, "\r\nconnection: close\r\n"));
  }
  CHECK_INT(opened, 0);
  answered("GET / HTTP/2.0\r\nhost: x\r\n\r\n", "HTTP/1.1 505 ");
  answered("GET / HTTP/1.2\r\nhost: x\r\n\r\n", "HTTP/1.1 505 ");
  answered("GET / HTTP/0.9\r\nhost: x\r\n\r\n", "HTTP/1.1 505 ");
  answered("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 ");
  answered(POST("/echo", "expect: something-else\r\ncontent-length: 1\r\n"), "HTTP/1.1 417 ");
  CHECK_INT(opened, 0);
  kit_stop();
}

TEST(nul_bytes_are_refused)
{
  static const char in_value[] = "GET / HTTP/1.1\r\nhost: x\r\na: b\0c\r\n\r\n";
  static const char in_path[] = "GET /a\0b HTTP/1.1\r\nhost: x\r\n\r\n";
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  for (int i = 0; i < 2; i++) {
    int fd = dial();
    fresh();
    say(fd, i ? mr_str_n(in_path, sizeof in_path - 1) : mr_str_n(in_value, sizeof in_value - 1));
    CHECK(hear(fd, "HTTP/1.1 400"));
    close(fd);
  }
  CHECK_INT(opened, 0);
  kit_stop();
}

TEST(a_bad_chunk_gets_400_and_ends_the_exchange)
{
  static const char *const bad[] = {"z\r\n", "3\r\nabcd\r\n", "-1\r\n", "3\nabc\n", "ffffffffffffffffff\r\n",
                                    " 3\r\nabc\r\n", "3 \r\nabc\r\n", "0\r\nx y: z\r\n\r\n"};
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char req[256];
    snprintf(req, sizeof req, POST("/echo", "transfer-encoding: chunked\r\n") "%s", bad[i]);
    answered(req, "HTTP/1.1 400 ");
    CHECK_INT(closed_n, (int)i + 1);
    CHECK_INT(complete_n, 0);
  }
  kit_stop();
}

/* A second answer could be taken for that of the next request. */
TEST(a_bad_chunk_after_the_answer_gets_none)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, POST("/", "transfer-encoding: chunked\r\n"), "hello");
  fresh();
  say(fd, MR_S("zz\r\n"));
  CHECK(hear(fd, NULL));
  CHECK_INT(ngot, 0);
  CHECK_INT(complete_n, 1);
  close(fd);
  kit_stop();
}

TEST(targets)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, "GET http://host:80/path?q=1 HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\n/path");
  ask(fd, "GET http://host?q=1 HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\nhello");
  ask(fd, "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\nhello");
  ask(fd, GET("/query"), "content-length: 0\r\n");
  ask(fd, GET("/query?a?b=%20&c"), "\r\n\r\na?b=%20&c");
  ask(fd, "\r\n\r\nGET /path HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\n/path"); /* empty lines before it */
  ask(fd, "GET / HTTP/1.1\r\nhost:\r\n\r\n", "hello");
  close(fd);
  kit_stop();
}

TEST(header_fields)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, "GET /x HTTP/1.1\r\nhost: x\r\nX:  \t a b \t \r\n\r\n", "\r\n\r\na b");
  CHECK(strstr(got, "content-length: 3\r\n"));
  ask(fd, "GET /x HTTP/1.1\r\nx: a\r\nhost: x\r\ny: n\r\nX: b\r\nxx: n\r\nx:c\r\n\r\n", "\r\n\r\na, b, c");
  ask(fd, "GET /x HTTP/1.1\r\nhost: x\r\nx:\r\n\r\n", "content-length: 0\r\n");
  ask(fd, "GET /x HTTP/1.1\r\nhost: x\r\nxx: n\r\n\r\n", "(none)");
  ask(fd, "GET /x HTTP/1.1\r\nhost: x\r\nx: caf\xc3\xa9\r\n\r\n", "caf\xc3\xa9");
  close(fd);
  kit_stop();
}

TEST(upgrades_are_not_taken)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, "GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n"
          "http2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n", "hello");
  ask(fd, "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 3\r\n\r\nabc", "\r\n\r\nabc");
  ask(fd, GET("/"), "hello");
  CHECK(!strstr(got, "connection: close"));
  close(fd);
  kit_stop();
}

/* ---- answers ---- */

TEST(answers_without_a_body)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, GET("/status?204"), "\r\n\r\n");
  CHECK(!strstr(got, "content-length") && !strstr(got, "text\r\n") && ngot == (size_t)(strstr(got, "\r\n\r\n") + 4 - got));
  ask(fd, GET("/status?304"), "\r\n\r\n");
  CHECK(ngot == (size_t)(strstr(got, "\r\n\r\n") + 4 - got));
  ask(fd, "HEAD /status?200 HTTP/1.1\r\nhost: x\r\n\r\n", "content-length: 4\r\n");
  ask(fd, GET("/status?529"), "HTTP/1.1 529 Overloaded\r\n");
  CHECK(hear(fd, "\r\n\r\ntext"));
  CHECK(strstr(got, "\r\ndate: "));
  CHECK(strstr(got, " GMT\r\n"));
  close(fd);
  kit_stop();
}

TEST(date_is_right)
{
  test_clock_set(5000000, INT64_C(784111777) * 1000000); /* the example of RFC 9110 */
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, GET("/"), "\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
  test_clock_set(5000000, (INT64_C(784111777) + 1) * 1000000);
  CHECK(hear(fd, "hello"));
  ask(fd, GET("/"), "08:49:38 GMT");
  close(fd);
  kit_stop();
}

TEST(handlers_cannot_break_the_framing)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  const struct mr_str lines[] = {MR_S("x-good: 1"), MR_S("x-bad: a\r\nset-cookie: b"), MR_S("x-nul: a\tb"),
                                 MR_S("content-length: 99"), MR_S("Transfer-Encoding: chunked"), MR_S("x-last: 2")};
  hold(fd, GET("/hold"));
  mr_http_reply(held, 200, lines, 6, MR_S("body"));
  mr_http_reply(held, 500, NULL, 0, MR_S("second")); /* the first counts */
  fresh();
  CHECK(hear(fd, "\r\n\r\nbody"));
  CHECK(strstr(got, "x-good: 1\r\nx-nul: a\tb\r\nx-last: 2\r\ncontent-length: 4\r\n\r\n"));
  CHECK(!strstr(got, "cookie") && !strstr(got, "second"));
  hold(fd, GET("/hold"));
  mr_http_reply(held, 200, &MR_S("Connection: close"), 1, MR_S("end"));
  fresh();
  CHECK(hear(fd, NULL));
  CHECK_INT(count_of("onnection: close"), 1);
  close(fd);
  kit_stop();
}

TEST(answers_in_pieces)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  hold(fd, GET("/hold"));
  mr_http_begin(held, 200, NULL, 0, 6);
  CHECK_INT(mr_http_write(held, MR_S("abc")), MR_OK);
  CHECK_INT(mr_http_write(held, MR_S("")), MR_OK);
  CHECK_INT(mr_http_write(held, MR_S("def")), MR_OK);
  mr_http_end(held);
  CHECK_INT(mr_http_write(held, MR_S("x")), MR_E_CLOSED);
  fresh();
  CHECK(hear(fd, "content-length: 6\r\n\r\nabcdef"));
  hold(fd, GET("/hold"));
  mr_http_begin(held, 200, NULL, 0, -1);
  fresh();
  CHECK(hear(fd, "transfer-encoding: chunked\r\n\r\n")); /* at once, before any body */
  mr_http_write(held, MR_S("abc"));
  mr_http_write(held, MR_S("0123456789abcdef0"));
  mr_http_end(held);
  fresh();
  CHECK(hear(fd, "3\r\nabc\r\n11\r\n0123456789abcdef0\r\n0\r\n\r\n"));
  hold(fd, "HEAD /hold HTTP/1.1\r\nhost: x\r\n\r\n");
  mr_http_begin(held, 200, NULL, 0, -1);
  CHECK_INT(mr_http_write(held, MR_S("unseen")), MR_OK);
  mr_http_end(held);
  fresh();
  CHECK(hear(fd, "\r\n\r\n"));
  ask(fd, GET("/"), "hello");
  CHECK(!strstr(got, "unseen"));
  hold(fd, GET("/hold"));
  mr_http_begin(held, 200, NULL, 0, 2);
  CHECK_INT(mr_http_write(held, MR_S("abc")), MR_E_CLOSED); /* more than announced */
  fresh();
  CHECK(hear(fd, NULL));
  CHECK_INT(closed_n, 5);
  CHECK_INT(complete_n, 4);
  close(fd);
  fd = dial();
  hold(fd, "GET /hold HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
  mr_http_begin(held, 200, NULL, 0, -1);
  mr_http_write(held, MR_S("until the end"));
  mr_http_end(held);
  fresh();
  CHECK(hear(fd, NULL));
  CHECK(strstr(got, "connection: close\r\n\r\nuntil the end"));
  CHECK_INT(recv(fd, got, 1, 0), 0); /* in order, no reset */
  close(fd);
  kit_stop();
}

TEST(large_answers_are_whole)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0"); /* max_out 4 MiB */
  int fd = dial();
  fresh();
  say(fd, MR_S(GET("/big?20000000") GET("/query?after")));
  turn(50);
  CHECK_INT(opened, 1); /* the next one waits for the reader */
  CHECK(hear(fd, "\r\n\r\nafter"));
  const char *body = strstr(got, "\r\n\r\n") + 4;
  for (size_t i = 0; i < 20000000; i++)
    if (body[i] != (char)('a' + i % 23)) test_fail(__FILE__, __LINE__, "byte %zu is wrong", i);
  CHECK_INT(complete_n, 2);
  close(fd);
  kit_stop();
}

TEST(cut_is_seen_as_cut)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  char c;
  hold(fd, "GET /hold HTTP/1.0\r\n\r\n");
  mr_http_begin(held, 200, NULL, 0, -1);
  mr_http_write(held, MR_S("half"));
  mr_http_cut(held);
  CHECK_INT(mr_http_write(held, MR_S("more")), MR_E_CLOSED);
  CHECK_INT(closed_n, 0); /* closed() comes from the drain */
  turn(5);
  CHECK_INT(closed_n, 1);
  CHECK_INT(complete_n, 0);
  usleep(20000);
  while (recv(fd, &c, 1, 0) > 0) continue;
  CHECK(errno == ECONNRESET); /* not an orderly end, which is how a body ends in HTTP/1.0 */
  close(fd);
  kit_stop();
}

/* ---- request bodies ---- */

TEST(unasked_bodies)
{
  static char big[1 << 20];
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, POST("/", "content-length: 5\r\n") "abcde" GET("/query?next"), "\r\n\r\nnext"); /* discarded */
  CHECK(!strstr(got, "connection: close"));
  ask(fd, POST("/", "transfer-encoding: chunked\r\n"), "hello");
  CHECK(!strstr(got, "connection: close"));
  ask(fd, "3\r\nabc\r\n0\r\n\r\n" GET("/query?next"), "\r\n\r\nnext"); /* after the answer */
  ask(fd, POST("/", "content-length: 9000000\r\n"), "connection: close"); /* not worth reading */
  fresh();
  for (int i = 0; i < 8; i++) say(fd, mr_str_n(big, sizeof big)); /* who sends it may read the answer */
  CHECK_INT(opened, 5);
  close(fd);
  fd = dial();
  ask(fd, POST("/", "transfer-encoding: chunked\r\n"), "hello");
  memset(big, 'x', sizeof big);
  fresh();
  say(fd, MR_S("100000\r\n"));
  say(fd, mr_str_n(big, sizeof big)); /* over what is discarded: closed in order */
  CHECK(hear(fd, NULL));
  close(fd);
  kit_stop();
}

TEST(asked_for_later)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  hold(fd, POST("/hold", "content-length: 10\r\n") "abcde");
  turn(20);
  say(fd, MR_S("fghij" GET("/query?next")));
  turn(20);
  mr_http_body(held, 100);
  fresh();
  CHECK(hear(fd, "\r\n\r\nnext"));
  CHECK(strstr(got, "abcdefghij"));
  hold(fd, GET("/hold"));
  mr_http_body(held, 100); /* there is none: told at once, from the drain */
  CHECK_INT(closed_n, 2);
  fresh();
  CHECK(hear(fd, "content-length: 0\r\n\r\n"));
  close(fd);
  kit_stop();
}

TEST(paused_and_resumed_inside_the_callback)
{
  static char body[600000];
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  pause_body = resume_at_once = true;
  memset(body, 'q', sizeof body);
  fresh();
  say(fd, MR_S(POST("/echo", "content-length: 600000\r\n")));
  say(fd, mr_str_n(body, sizeof body));
  CHECK(hear(fd, "\r\n\r\n"));
  CHECK(hear_bytes(fd, (size_t)(strstr(got, "\r\n\r\n") + 4 - got) + sizeof body));
  CHECK(paused_pieces > 3);
  CHECK_INT(strspn(strstr(got, "\r\n\r\n") + 4, "q"), sizeof body);
  close(fd);
  kit_stop();
}

/* A paused body stops the sender: what the server holds meanwhile is one read, not the body. */
static size_t bytes, most;
static void *(*real_fn)(void *, void *, size_t, size_t);
static void *counting(void *ud, void *p, size_t old, size_t n)
{
  void *r = real_fn(ud, p, old, n);
  if (r || n == 0) bytes += n - (p ? old : 0);
  if (bytes > most) most = bytes;
  return r;
}

TEST(senders_are_held_back)
{
  static char block[1 << 20];
  struct mr_sys *sys = test_sys();
  real_fn = sys->mem.fn;
  sys->mem.fn = counting;
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  /* a body that nobody has asked for, or that is paused */
  for (int paused = 0; paused < 2; paused++) {
    int fd = dial();
    size_t sent = 0;
    hold(fd, POST("/hold", "content-length: 500000000\r\n"));
    pause_body = true;
    if (paused) mr_http_body(held, 600000000);
    most = bytes;
    size_t before = most;
    for (int i = 0; i < 400; i++) {
      ssize_t k = send(fd, block, sizeof block, MSG_NOSIGNAL);
      if (k > 0) sent += (size_t)k;
      turn(1);
    }
    CHECK(sent < 20 << 20); /* what the kernels hold */
    CHECK(most - before < 200 << 10);
    close(fd);
    mr_http_cut(held);
    CHECK(until(&closed_n, paused + 1));
    held = NULL;
  }
  /* requests behind one that has no answer yet */
  int fd = dial();
  size_t sent = 0;
  for (size_t i = 0; i + 64 <= sizeof block; i += 64)
    memcpy(block + i, "GET /query?1 HTTP/1.1\r\nhost: 0123456789012345678901234567890\r\n\r\n", 64);
  hold(fd, GET("/hold"));
  most = bytes;
  size_t before = most;
  for (int i = 0; i < 400; i++) {
    size_t at = sent % sizeof block;
    ssize_t k = send(fd, block + at, sizeof block - at, MSG_NOSIGNAL);
    if (k > 0) sent += (size_t)k;
    turn(1);
  }
  CHECK(sent < 20 << 20);
  CHECK(most - before < 400 << 10);
  CHECK_INT(opened, 3);
  size_t rest = (64 - sent % 64) % 64;
  reply_text(held, 200, MR_S("first"));
  int want = 3 + (int)((sent + rest) / 64);
  for (int i = 0; i < 200000 && opened < want; i++) {
    turn(1);
    recv(fd, got, sizeof got, 0);
    if (rest) {
      ssize_t k = send(fd, block + 64 - rest, rest, MSG_NOSIGNAL);
      if (k > 0) rest -= (size_t)k;
    }
  }
  CHECK_INT(opened, want);
  close(fd);
  CHECK(until(&closed_n, want));
  kit_stop();
  sys->mem.fn = real_fn;
}

TEST(expectations)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, POST("/echo", "expect: 100-Continue\r\ncontent-length: 2\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  ask(fd, "ok", "\r\n\r\nok");
  CHECK(!strstr(got, "connection: close"));
  /* nobody asks for the body: no 100, and the connection cannot be used again */
  ask(fd, POST("/", "expect: 100-continue\r\ncontent-length: 2\r\n"), "hello");
  CHECK(!strstr(got, "100 Continue"));
  CHECK(strstr(got, "connection: close"));
  close(fd);
  fd = dial(); /* too long: said before it is sent */
  ask(fd, POST("/echo", "expect: 100-continue\r\ncontent-length: 9000000\r\n"), "HTTP/1.1 413");
  CHECK(!strstr(got, "100 Continue"));
  close(fd);
  fd = dial(); /* HTTP/1.0 knows nothing of it */
  ask(fd, "POST /echo HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nok", "\r\n\r\nok");
  CHECK(!strstr(got, "100 Continue"));
  close(fd);
  kit_stop();
}

/* A client that sends all of a body that is refused must still get to read why. */
TEST(refused_bodies_do_not_reset)
{
  static char body[8 << 20];
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  for (int chunked = 0; chunked < 2; chunked++) {
    int fd = dial();
    fresh();
    say(fd, chunked ? MR_S(POST("/echo", "transfer-encoding: chunked\r\n") "800000\r\n")
                    : MR_S(POST("/echo", "content-length: 8388608\r\n")));
    const char *p = body;
    size_t left = sizeof body;
    for (int i = 0; left && i < 20000; i++) {
      ssize_t n = send(fd, p, left, MSG_NOSIGNAL);
      if (n > 0) p += n, left -= (size_t)n;
      else CHECK(errno == EAGAIN);
      turn(1);
    }
    CHECK_INT(left, 0);
    CHECK(hear(fd, "HTTP/1.1 413"));
    CHECK(strstr(got, "connection: close"));
    CHECK(hear(fd, NULL));
    close(fd);
  }
  kit_stop();
}

TEST(framing_around_a_body_is_bounded)
{
  static char more[64 << 10];
  static const char *const begin[] = {"5;", "5\r\nabcde\r\n0\r\n", "0"};
  kit_start((struct mr_http_server_opts){.max_header = 4096}, "127.0.0.1:0");
  for (int i = 0; i < 3; i++) {
    int fd = dial();
    fresh();
    say(fd, MR_S(POST("/echo", "transfer-encoding: chunked\r\n")));
    say(fd, mr_str_c(begin[i]));
    for (size_t k = 0; k < sizeof more; k++) more[k] = i == 2 ? '0' : i == 0 ? 'e' : "a: b\r\n"[k % 6];
    say(fd, mr_str_n(more, sizeof more));
    CHECK(hear(fd, "HTTP/1.1 400"));
    close(fd);
  }
  /* small chunks are no attack */
  int fd = dial();
  fresh();
  say(fd, MR_S(POST("/echo", "transfer-encoding: chunked\r\n")));
  for (int i = 0; i < 5000; i++) say(fd, MR_S("1\r\nx\r\n"));
  say(fd, MR_S("0\r\nsome: trailer\r\n\r\n"));
  CHECK(hear(fd, "content-length: 5000"));
  CHECK(hear(fd, "xxx"));
  ask(fd, GET("/x"), "(none)"); /* trailers are not headers */
  close(fd);
  kit_stop();
}
