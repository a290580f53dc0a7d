/* net_server - the HTTP server against raw sockets: framing, bounds, slow and broken peers. */
#include "net_kit.h"
#include <sys/stat.h>

#define GET(path) "GET " path " HTTP/1.1\r\nhost: x\r\n\r\n"

TEST(keep_alive_and_query)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, GET("/"), "hello");
  CHECK(strstr(got, "content-length: 5"));
  ask(fd, GET("/query?a=1&b=%20"), "a=1&b=%20");
  ask(fd, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "content-length: 5\r\n\r\n");
  CHECK(!strstr(got, "hello"));
  ask(fd, GET("/"), "hello");
  CHECK_INT(opened, 4);
  close(fd);
  kit_stop();
}

TEST(pipelined_in_order)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  char all[4096] = "";
  for (int i = 0; i < 30; i++)
    sprintf(all + strlen(all), "GET /query?%d. HTTP/1.1\r\nhost: x\r\n\r\n", i); /* banned-ok: test */
  ask(fd, all, "29.");
  const char *at = got;
  for (int i = 0; i < 30; i++) {
    char want[16];
    snprintf(want, sizeof want, "\n%d.", i);
    at = strstr(at, want);
    CHECK(at);
  }
  close(fd);
  kit_stop();
}

TEST(pipelined_behind_a_held_one)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  fresh();
  say(fd, MR_S(GET("/hold") GET("/query?second")));
  for (int i = 0; i < 50; i++) turn(1);
  CHECK(held);
  CHECK_INT(opened, 1);
  reply_text(held, 200, MR_S("first"));
  CHECK(hear(fd, "second"));
  CHECK(strstr(got, "first") < strstr(got, "second"));
  close(fd);
  kit_stop();
}

TEST(byte_by_byte)
{
  static const char req[] = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nabcdeGET / HTTP/1.1\r\nhost: y\r\n\r\n";
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  fresh();
  for (size_t i = 0; i < sizeof req - 1; i++) {
    say(fd, mr_str_n(req + i, 1));
    turn(2);
  }
  CHECK(hear(fd, "hello"));
  CHECK(strstr(got, "abcde"));
  close(fd);
  kit_stop();
}

TEST(chunked_body)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n", "abcdefg");
  ask(fd, GET("/"), "hello");
  close(fd);
  kit_stop();
}

static void refused(const char *req, const char *status)
{
  int fd = dial();
  ask(fd, req, status);
  CHECK(hear(fd, NULL)); /* and the connection is closed */
  close(fd);
}

TEST(malformed_is_refused)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  refused("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400");
  refused("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", "HTTP/1.1 400");
  refused("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400");
  refused("GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", "HTTP/1.1 400");
  refused("GET / HTTP/3.7\r\nhost: x\r\n\r\n", "HTTP/1.1 505");
  refused("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 garbage\r\n\r\n", "HTTP/1.1 400");
  refused("GET /a b c HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 400");
  int fd = dial();
  ask(fd, GET("/"), "hello");
  close(fd);
  kit_stop();
}

TEST(head_over_its_limit)
{
  kit_start((struct mr_http_server_opts){.max_header = 1000}, "127.0.0.1:0");
  char req[3000];
  int n = snprintf(req, sizeof req, "GET / HTTP/1.1\r\nhost: x\r\nx: ");
  memset(req + n, 'a', 2000);
  strcpy(req + n + 2000, "\r\n\r\n"); /* banned-ok: test */
  refused(req, "HTTP/1.1 431");
  kit_stop();
}

TEST(body_over_its_limit)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n", "HTTP/1.1 413"); /* announced */
  close(fd);
  fd = dial();
  fresh();
  say(fd, MR_S("POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"));
  static char chunk[100000 + 16];
  int n = snprintf(chunk, sizeof chunk, "186a0\r\n");
  memset(chunk + n, 'b', 100000);
  memcpy(chunk + n + 100000, "\r\n", 2);
  for (int i = 0; i < 12; i++)
    say(fd, mr_str_n(chunk, (size_t)n + 100002));
  CHECK(hear(fd, "HTTP/1.1 413"));
  close(fd);
  kit_stop();
}

TEST(body_paused_and_resumed)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  static char body[900000];
  int fd = dial();
  memset(body, 'p', sizeof body);
  pause_body = true;
  fresh();
  say(fd, MR_S("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n"));
  size_t sent = 0;
  for (int i = 0; i < 100000 && !strstr(got, "\r\n\r\nppp"); i++) {
    if (sent < sizeof body) {
      ssize_t k = send(fd, body + sent, sizeof body - sent, MSG_NOSIGNAL);
      if (k > 0) sent += (size_t)k;
    }
    turn(1);
    if (held && i % 3 == 0) mr_http_body_resume(held);
    ssize_t k = recv(fd, got + ngot, sizeof got - 1 - ngot, 0);
    if (k > 0) ngot += (size_t)k;
    got[ngot] = '\0';
  }
  CHECK(paused_pieces > 5);
  CHECK(strstr(got, "content-length: 900000"));
  close(fd);
  kit_stop();
}

TEST(expect_continue)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, "POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n", "100 Continue\r\n\r\n");
  ask(fd, "ok", "\r\n\r\nok");
  close(fd);
  kit_stop();
}

TEST(old_http)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, "GET / HTTP/1.0\r\n\r\n", "hello");
  CHECK(hear(fd, NULL));
  close(fd);
  fd = dial();
  ask(fd, "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", "hello");
  ask(fd, "GET / HTTP/1.0\r\nconnection: close\r\n\r\n", "hello");
  CHECK(hear(fd, NULL));
  close(fd);
  kit_stop();
}

TEST(slow_reader_is_bounded)
{
  static char block[100000];
  kit_start((struct mr_http_server_opts){.max_out = 3 << 20}, "127.0.0.1:0");
  int fd = dial(), r = MR_OK, n = 0;
  say(fd, MR_S(GET("/hold")));
  for (int i = 0; i < 100 && !held; i++) turn(1);
  CHECK(held);
  mr_http_begin(held, 200, NULL, 0, -1);
  while ((r = mr_http_write(held, mr_str_n(block, sizeof block))) == MR_OK && n < 1000) n++;
  CHECK_INT(r, MR_MORE);
  fresh();
  for (int i = 0; i < 5000 && drained_n == 0; i++) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    turn(1);
    poll(&p, 1, 5);
    ngot = 0;
    recv(fd, got, sizeof got - 1, 0);
  }
  CHECK_INT(drained_n, 1);
  for (n = 0; n < 1000 && (r = mr_http_write(held, mr_str_n(block, sizeof block))) != MR_E_CLOSED; n++) continue;
  CHECK_INT(r, MR_E_CLOSED); /* cut at its bound */
  turn(3);
  CHECK_INT(closed_n, 1);
  CHECK_INT(complete_n, 0);
  close(fd);
  kit_stop();
}

TEST(peer_leaves)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  say(fd, MR_S("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\nabc"));
  turn(20);
  close(fd);
  for (int i = 0; i < 100 && closed_n < 1; i++) turn(1), usleep(500);
  CHECK_INT(closed_n, 1);
  CHECK_INT(complete_n, 0);
  fd = dial(); /* half a stream */
  say(fd, MR_S(GET("/hold")));
  for (int i = 0; i < 100 && !held; i++) turn(1);
  mr_http_begin(held, 200, NULL, 0, -1);
  turn(5);
  close(fd);
  for (int i = 0; i < 100 && closed_n < 2; i++) turn(1), usleep(500);
  CHECK_INT(closed_n, 2);
  kit_stop();
}

TEST(half_closed_client_gets_its_answer)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  say(fd, MR_S(GET("/hold")));
  shutdown(fd, SHUT_WR);
  for (int i = 0; i < 100 && !held; i++) turn(1);
  turn(20);
  CHECK(held);
  reply_text(held, 200, MR_S("still here"));
  fresh();
  CHECK(hear(fd, "still here"));
  close(fd);
  kit_stop();
}

TEST(short_answer_cuts)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  say(fd, MR_S(GET("/hold")));
  for (int i = 0; i < 100 && !held; i++) turn(1);
  mr_http_begin(held, 200, NULL, 0, 10);
  mr_http_write(held, MR_S("abc"));
  mr_http_end(held);
  fresh();
  CHECK(hear(fd, NULL));
  CHECK_INT(complete_n, 0);
  close(fd);
  kit_stop();
}

TEST(timeouts)
{
  test_clock_set(1000000, 1000000);
  kit_start((struct mr_http_server_opts){.header_ms = 5000, .idle_ms = 20000}, "127.0.0.1:0");
  int slow = dial(), idle = dial();
  fresh();
  say(slow, MR_S("GET / HT"));
  ask(idle, GET("/"), "hello");
  turn(20);
  test_clock_set(7000000, 7000000);
  fresh();
  CHECK(hear(slow, NULL));
  fresh();
  ask(idle, GET("/"), "hello");
  test_clock_set(40000000, 40000000);
  fresh();
  CHECK(hear(idle, NULL));
  close(slow);
  close(idle);
  kit_stop();
}

TEST(too_many_connections)
{
  kit_start((struct mr_http_server_opts){.max_connections = 3}, "127.0.0.1:0");
  int fd[4];
  for (int i = 0; i < 3; i++) {
    fd[i] = dial();
    ask(fd[i], GET("/"), "hello");
  }
  fd[3] = dial();
  fresh();
  CHECK(hear(fd[3], "503"));
  close(fd[3]);
  close(fd[0]);
  for (int i = 0; i < 50; i++) turn(1);
  fd[3] = dial();
  ask(fd[3], GET("/"), "hello");
  for (int i = 1; i < 4; i++) close(fd[i]);
  kit_stop();
}

TEST(stop_ends_idle_and_finishes_running)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int idle = dial(), busy = dial();
  ask(idle, GET("/"), "hello");
  say(busy, MR_S(GET("/hold")));
  for (int i = 0; i < 100 && !held; i++) turn(1);
  mr_http_server_stop(server);
  fresh();
  CHECK(hear(idle, NULL));
  CHECK_INT(mr_http_server_active(server), 1);
  reply_text(held, 200, MR_S("last"));
  fresh();
  CHECK(hear(busy, "last"));
  CHECK(strstr(got, "connection: close"));
  CHECK(hear(busy, NULL));
  CHECK_INT(mr_http_server_active(server), 0);
  close(idle);
  close(busy);
  kit_stop();
}

TEST(freed_in_every_state)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd[5];
  const char *text[] = {"GET / HT", GET("/hold"), "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\na", GET("/sse"), ""};
  for (int i = 0; i < 5; i++) {
    fd[i] = dial();
    say(fd[i], mr_str_c(text[i]));
    turn(20);
  }
  mr_http_begin(held, 200, NULL, 0, -1);
  kit_stop();
  for (int i = 0; i < 5; i++) close(fd[i]);
}

TEST(unix_socket)
{
  char address[300], path[280];
  struct sockaddr_un un = {.sun_family = AF_UNIX};
  struct stat st;
  snprintf(path, sizeof path, "%s/s", test_dir());
  snprintf(address, sizeof address, "unix:%s,0600", path);
  memcpy(un.sun_path, path, strlen(path) + 1);
  int stale = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK_INT(bind(stale, (struct sockaddr *)&un, sizeof un), 0);
  close(stale); /* its file is left behind */
  kit_start((struct mr_http_server_opts){0}, address);
  CHECK_INT(stat(path, &st), 0);
  CHECK_INT(st.st_mode & 0777, 0600);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK_INT(connect(fd, (struct sockaddr *)&un, sizeof un), 0);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  ask(fd, GET("/"), "hello");
  struct mr_http_listen again = {.address = address};
  struct mr_err err;
  CHECK_INT(mr_http_server_listen(server, &again, url, sizeof url, &err), MR_E_IO);
  close(fd);
  kit_stop();
  CHECK(stat(path, &st) != 0);
}

TEST(addresses)
{
  struct mr_err err;
  kit_start((struct mr_http_server_opts){0}, "[::1]:0");
  CHECK(strncmp(url, "http://[::1]:", 13) == 0);
  struct mr_http_listen l = {.address = "0.0.0.0:0"};
  CHECK_INT(mr_http_server_listen(server, &l, url, sizeof url, &err), MR_E_DENIED);
  CHECK(strstr(err.message, "insecure"));
  l.insecure_http = true;
  CHECK_INT(mr_http_server_listen(server, &l, url, sizeof url, &err), MR_OK);
  const char *bad[] = {"", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "example:80", "unix:", "unix:/x,999", "fd:0", "fd:999"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct mr_http_listen b = {.address = bad[i]};
    CHECK_INT(mr_http_server_listen(server, &b, url, sizeof url, &err), MR_E_INVALID);
  }
  struct mr_http_listen tls = {.address = "127.0.0.1:0", .tls_cert = "/nonexistent.pem", .tls_key = "/nonexistent.pem"};
  CHECK_INT(mr_http_server_listen(server, &tls, url, sizeof url, &err), MR_E_INVALID);
  CHECK(strstr(err.message, "/nonexistent.pem"));
  kit_stop();
}

TEST(given_descriptor)
{
  struct sockaddr_in a = {.sin_family = AF_INET};
  char address[32];
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK_INT(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
  CHECK_INT(listen(fd, 5), 0);
  snprintf(address, sizeof address, "fd:%d", fd);
  kit_start((struct mr_http_server_opts){0}, address);
  int c = dial();
  ask(c, GET("/"), "hello");
  close(c);
  close(fd);
  kit_stop();
}

TEST(many_connections)
{
  enum { N = 500 };
  static int fd[N];
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  for (int i = 0; i < N; i++) {
    fd[i] = dial();
    say(fd[i], MR_S(GET("/")));
    if (i % 50 == 0) turn(20);
  }
  for (int i = 0; i < N; i++) {
    fresh();
    CHECK(hear(fd[i], "hello"));
  }
  for (int i = 0; i < N; i++) close(fd[i]);
  kit_stop();
}
