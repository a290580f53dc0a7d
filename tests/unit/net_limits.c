/*
 * net_limits - time, numbers and memory: what an idle, slow, greedy or vanished peer costs the HTTP server,
 * how it stops, and what happens when there are no descriptors or no memory left.
 */
#include "net_kit.h"
#include <sys/resource.h>
#include <sys/stat.h>

#define GET(path) "GET " path " HTTP/1.1\r\nhost: x\r\n\r\n"
#define POST(path, more) "POST " path " HTTP/1.1\r\nhost: x\r\n" more "\r\n"

static int64_t now_us = 1000000;
static void pass_ms(int64_t ms)
{
  turn(20);
  now_us += ms * 1000;
  test_clock_set(now_us, now_us);
  turn(20);
}

static bool is_open(int fd)
{
  char c;
  turn(20);
  return recv(fd, &c, 1, MSG_PEEK) < 0 && errno == EAGAIN;
}

static struct mr_http_server_stats stats(void)
{
  struct mr_http_server_stats st;
  mr_http_server_stats(server, &st);
  return st;
}

/* ---- time ---- */

TEST(active_connections_are_not_idle)
{
  test_clock_set(now_us, now_us);
  kit_start((struct mr_http_server_opts){.idle_ms = 20000}, "127.0.0.1:0");
  int fd = dial();
  for (int i = 0; i < 10; i++) {
    ask(fd, GET("/"), "hello");
    pass_ms(15000);
  }
  CHECK(is_open(fd));
  ask(fd, GET("/"), "hello");
  pass_ms(19000);
  CHECK(is_open(fd));
  pass_ms(1100);
  CHECK(!is_open(fd));
  CHECK_INT(stats().connections, 0);
  close(fd);
  int silent = dial(); /* never says anything */
  pass_ms(19000);
  CHECK(is_open(silent));
  pass_ms(1100);
  CHECK_INT(recv(silent, got, 1, 0), 0); /* in order, without an answer */
  close(silent);
  kit_stop();
}

TEST(handlers_have_all_the_time)
{
  test_clock_set(now_us, now_us);
  kit_start((struct mr_http_server_opts){.idle_ms = 1000, .header_ms = 500}, "127.0.0.1:0");
  int fd = dial();
  hold(fd, GET("/hold"));
  pass_ms(3600000);
  CHECK_INT(closed_n, 0);
  reply_text(held, 200, MR_S("at last"));
  fresh();
  CHECK(hear(fd, "at last"));
  hold(fd, POST("/hold", "content-length: 5\r\n")); /* a body that is not asked for is not waited for */
  pass_ms(3600000);
  CHECK_INT(closed_n, 1);
  reply_text(held, 200, MR_S("again"));
  fresh();
  CHECK(hear(fd, "again"));
  close(fd);
  kit_stop();
}

TEST(slow_heads)
{
  test_clock_set(now_us, now_us);
  kit_start((struct mr_http_server_opts){.idle_ms = 60000, .header_ms = 5000}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, GET("/"), "hello");
  const char *head = "GET / HTTP/1.1\r\nhost: x\r\n"; /* a byte a second: each byte is no excuse */
  for (int i = 0; i < 4; i++) {
    say(fd, mr_str_n(head + i, 1));
    pass_ms(1000);
    CHECK(is_open(fd));
  }
  say(fd, MR_S("/"));
  fresh();
  pass_ms(1100);
  CHECK(hear(fd, "HTTP/1.1 408 Request Timeout"));
  CHECK(strstr(got, "connection: close"));
  CHECK(hear(fd, NULL));
  CHECK_INT(opened, 1);
  close(fd);
  kit_stop();
}

TEST(slow_bodies)
{
  test_clock_set(now_us, now_us);
  kit_start((struct mr_http_server_opts){.idle_ms = 10000}, "127.0.0.1:0");
  int fd = dial();
  say(fd, MR_S(POST("/echo", "content-length: 100\r\n")));
  for (int i = 0; i < 5; i++) {
    say(fd, MR_S("x"));
    pass_ms(9000);
    CHECK(is_open(fd));
  }
  fresh();
  pass_ms(2000);
  CHECK(hear(fd, "HTTP/1.1 408"));
  CHECK_INT(closed_n, 1);
  CHECK_INT(complete_n, 0);
  close(fd);
  kit_stop();
}

TEST(slow_bodies_after_the_answer)
{
  test_clock_set(now_us, now_us);
  kit_start((struct mr_http_server_opts){.idle_ms = 10000}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, POST("/", "content-length: 100\r\n"), "hello");
  fresh();
  pass_ms(9000);
  CHECK(is_open(fd));
  pass_ms(2000);
  CHECK(hear(fd, NULL));
  CHECK_INT(ngot, 0); /* it has its answer: no 408 besides */
  close(fd);
  kit_stop();
}

TEST(stuck_readers)
{
  test_clock_set(now_us, now_us);
  kit_start((struct mr_http_server_opts){.idle_ms = 10000}, "127.0.0.1:0");
  int fd = dial(), n = 1 << 14;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &n, sizeof n);
  say(fd, MR_S(GET("/big?20000000")));
  pass_ms(9000);
  CHECK_INT(closed_n, 0);
  ngot = 0;
  for (int i = 0; i < 2000 && ngot < 100000; i++) { /* reads some: it lives on, although the kernel */
    struct pollfd p = {.fd = fd, .events = POLLIN}; /* does not call that writable yet */
    poll(&p, 1, 10);
    ssize_t k = recv(fd, got, 100000, 0);
    if (k > 0) ngot += (size_t)k;
    turn(1);
  }
  CHECK(ngot >= 100000);
  pass_ms(9000);
  CHECK_INT(closed_n, 0);
  usleep(300000); /* what is still on its way fills the reader's buffer */
  pass_ms(10100);
  pass_ms(10100);
  CHECK_INT(closed_n, 1);
  CHECK_INT(complete_n, 0);
  CHECK_INT(stats().connections, 0);
  close(fd);
  kit_stop();
}

TEST(lingering_ends)
{
  test_clock_set(now_us, now_us);
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, "nonsense\r\n\r\n", "HTTP/1.1 400");
  turn(20);
  CHECK_INT(stats().connections, 1); /* waits for us to see it */
  pass_ms(6000);
  CHECK_INT(stats().connections, 0);
  close(fd);
  fd = dial();
  ask(fd, "nonsense\r\n\r\n", "HTTP/1.1 400");
  close(fd);
  for (int i = 0; i < 2000 && stats().connections; i++) turn(1);
  CHECK_INT(stats().connections, 0);
  kit_stop();
}

/* ---- numbers ---- */

TEST(head_limit_is_exact)
{
  kit_start((struct mr_http_server_opts){.max_header = 300}, "127.0.0.1:0");
  for (int size = 298; size <= 303; size++) {
    char req[400];
    int n = snprintf(req, sizeof req, "GET / HTTP/1.1\r\nhost: x\r\nx: ");
    memset(req + n, 'a', (size_t)(size - n - 4));
    memcpy(req + size - 4, "\r\n\r\n", 5);
    int fd = dial();
    ask(fd, req, size <= 300 ? "HTTP/1.1 200" : "HTTP/1.1 431 Request Header Fields Too Large");
    close(fd);
  }
  int fd = dial(); /* spaces before a value are not kept, but they count */
  char spaces[1000] = "GET / HTTP/1.1\r\nhost: x\r\nx:";
  memset(spaces + strlen(spaces), ' ', sizeof spaces - 1 - strlen(spaces));
  ask(fd, spaces, "HTTP/1.1 431");
  close(fd);
  kit_stop();
}

TEST(field_limit)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  for (int n = 199; n <= 201; n++) {
    char req[4000];
    int m = snprintf(req, sizeof req, "GET / HTTP/1.1\r\nhost: x\r\n");
    for (int i = 1; i < n; i++) m += snprintf(req + m, sizeof req - (size_t)m, "f%d: v\r\n", i);
    snprintf(req + m, sizeof req - (size_t)m, "\r\n");
    int fd = dial();
    ask(fd, req, n <= 200 ? "HTTP/1.1 200" : "HTTP/1.1 431");
    close(fd);
  }
  kit_stop();
}

TEST(a_refused_connection_reads_why)
{
  kit_start((struct mr_http_server_opts){.max_connections = 2}, "127.0.0.1:0");
  int fd[2], third[10];
  for (int i = 0; i < 2; i++) {
    fd[i] = dial();
    ask(fd[i], GET("/"), "hello");
  }
  for (int i = 0; i < 10; i++) {
    third[i] = dial();
    say(third[i], MR_S(GET("/"))); /* it is there before the 503 */
  }
  for (int i = 0; i < 10; i++) {
    fresh();
    CHECK(hear(third[i], "HTTP/1.1 503 Service Unavailable"));
    CHECK(strstr(got, "retry-after: 1"));
    CHECK(hear(third[i], NULL));
    CHECK_INT(recv(third[i], got, 1, 0), 0);
    close(third[i]);
  }
  CHECK_INT(opened, 2);
  CHECK_INT(stats().connections, 2);
  CHECK_INT(stats().refused, 10);
  close(fd[0]);
  for (int i = 0; i < 2000 && stats().connections > 1; i++) turn(1);
  third[0] = dial();
  ask(third[0], GET("/"), "hello");
  close(third[0]);
  close(fd[1]);
  kit_stop();
}

TEST(many_refused_at_once)
{
  enum { N = 300 };
  static int fd[N];
  kit_start((struct mr_http_server_opts){.max_connections = 1}, "127.0.0.1:0");
  int one = dial();
  ask(one, GET("/"), "hello");
  for (int i = 0; i < N; i++) {
    fd[i] = dial();
    if (i % 20 == 0) turn(5);
  }
  turn(50);
  CHECK_INT(stats().refused, N);
  int told = 0;
  for (int i = 0; i < N; i++) {
    fresh();
    hear(fd[i], NULL);
    told += strstr(got, "503") != NULL;
    close(fd[i]);
  }
  CHECK(told >= 64); /* the rest was just closed */
  ask(one, GET("/"), "hello");
  close(one);
  kit_stop();
}

TEST(a_thousand_connections)
{
  enum { N = 1000 };
  static int fd[N];
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  for (int i = 0; i < N; i++) {
    fd[i] = dial();
    if (i % 100 == 0) turn(10);
  }
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < N; i++) say(fd[i], MR_S(GET("/")));
    for (int i = 0; i < N; i++) {
      fresh();
      CHECK(hear(fd[i], "hello"));
    }
  }
  CHECK_INT(stats().connections, N);
  CHECK_INT(stats().requests, 3 * N);
  for (int i = 0; i < N / 2; i++) close(fd[i]);
  for (int i = 0; i < 2000 && stats().connections > N / 2; i++) turn(1);
  CHECK_INT(stats().connections, N / 2);
  kit_stop();
  for (int i = N / 2; i < N; i++) close(fd[i]);
}

TEST(out_of_descriptors)
{
  struct rlimit old, low;
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int first = dial();
  ask(first, GET("/"), "hello");
  int waiting[3];
  for (int i = 0; i < 3; i++) waiting[i] = dial();
  getrlimit(RLIMIT_NOFILE, &old);
  low = old;
  low.rlim_cur = (rlim_t)waiting[2] + 2; /* one more */
  setrlimit(RLIMIT_NOFILE, &low);
  say(waiting[1], MR_S(GET("/")));
  turn(50);
  CHECK_INT(stats().connections, 2);
  ask(first, GET("/"), "hello"); /* who is in is served */
  setrlimit(RLIMIT_NOFILE, &old);
  fresh();
  CHECK(hear(waiting[1], "hello")); /* accepted after a rest */
  for (int i = 0; i < 500 && stats().connections < 4; i++) turn(1), usleep(1000);
  CHECK_INT(stats().connections, 4);
  for (int i = 0; i < 3; i++) close(waiting[i]);
  close(first);
  kit_stop();
}

/* ---- stopping ---- */

enum { STATES = 11 };
static const char *const state_request[STATES] = {
    "", "GET / HT", GET("/hold"), GET("/hold") GET("/query?x"), POST("/echo", "content-length: 9\r\n") "a",
    POST("/hold", "content-length: 9\r\n") "a", GET("/sse"), GET("/big?20000000"), "nonsense\r\n\r\n",
    GET("/hold"), GET("/hold")};

/* A connection in each state; of the held ones two have begun their answers. */
static void all_states(int fd[STATES], struct mr_http_x *x[STATES])
{
  for (int i = 0; i < STATES; i++) {
    held = NULL;
    fd[i] = dial();
    say(fd[i], mr_str_c(state_request[i]));
    turn(30);
    x[i] = held;
  }
  mr_http_begin(x[9], 200, NULL, 0, -1);
  mr_http_write(x[9], MR_S("half"));
  mr_http_begin(x[10], 200, NULL, 0, 10);
  mr_http_end(x[10]); /* short */
}

TEST(freed_in_every_state)
{
  int fd[STATES];
  struct mr_http_x *x[STATES];
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  all_states(fd, x);
  kit_stop(); /* closed() ran for each, nothing is left */
  CHECK_INT(complete_n, 0);
  for (int i = 0; i < STATES; i++) close(fd[i]);
}

TEST(freed_after_stop_in_every_state)
{
  int fd[STATES];
  struct mr_http_x *x[STATES];
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  all_states(fd, x);
  mr_http_server_stop(server);
  mr_http_server_stop(server);
  turn(3);
  kit_stop();
  for (int i = 0; i < STATES; i++) close(fd[i]);
}

TEST(stopped_in_every_state)
{
  int fd[STATES];
  struct mr_http_x *x[STATES];
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  all_states(fd, x);
  mr_http_server_stop(server);
  turn(30);
  fresh();
  CHECK(hear(fd[0], NULL)); /* idle: closed at once */
  CHECK_INT(ngot, 0);
  ask(fd[1], "TP/1.1\r\nhost: x\r\n\r\n", "hello"); /* on its way: served, and closed */
  CHECK(strstr(got, "connection: close"));
  reply_text(x[2], 200, MR_S("two"));
  fresh();
  CHECK(hear(fd[2], "two"));
  CHECK(strstr(got, "connection: close"));
  reply_text(x[3], 200, MR_S("three"));
  fresh();
  CHECK(hear(fd[3], NULL));
  CHECK(strstr(got, "three"));
  CHECK(!strstr(got, "\r\n\r\nx")); /* pipelined behind it: not any more */
  ask(fd[4], "bcdefghi", "\r\n\r\nabcdefghi");
  mr_http_body(x[5], 100);
  ask(fd[5], "bcdefghi", "\r\n\r\nabcdefghi");
  mr_sse_end(stream);
  fresh();
  CHECK(hear(fd[6], NULL));
  fresh();
  CHECK(hear(fd[7], NULL)); /* all of a large answer */
  CHECK(ngot > 20000000);
  mr_http_end(x[9]);
  fresh();
  CHECK(hear(fd[9], "half"));
  for (int i = 0; i < STATES; i++) close(fd[i]);
  for (int i = 0; i < 2000 && stats().connections; i++) turn(1);
  CHECK_INT(mr_http_server_active(server), 0);
  CHECK_INT(stats().connections, 0);
  struct mr_err err;
  struct mr_http_listen l = {.address = "127.0.0.1:0"};
  CHECK_INT(mr_http_server_listen(server, &l, url, sizeof url, &err), MR_E_CLOSED);
  kit_stop();
}

static void stop_on_request(void *ud, struct mr_http_x *x)
{
  (void)ud;
  mr_http_server_stop(server);
  mr_http_reply(x, 200, NULL, 0, MR_S("stopping"));
}

TEST(stopped_by_a_handler)
{
  struct mr_err err;
  struct mr_http_listen l = {.address = "127.0.0.1:0"};
  struct mr_http_server_opts o = {.on_request = stop_on_request};
  CHECK_INT(mr_loop_new(&loop, test_sys(), NULL, &err), MR_OK);
  mr_loop_enter(loop);
  CHECK_INT(mr_http_server_new(&server, loop, &o, &err), MR_OK);
  CHECK_INT(mr_http_server_listen(server, &l, url, sizeof url, &err), MR_OK);
  port = atoi(strrchr(url, ':') + 1);
  int other = dial(), fd = dial();
  turn(20);
  ask(fd, GET("/"), "stopping");
  CHECK(strstr(got, "connection: close"));
  fresh();
  CHECK(hear(other, NULL));
  close(fd);
  close(other);
  kit_stop();
}

TEST(vanished_peers)
{
  int fd[STATES];
  struct mr_http_x *x[STATES];
  const struct linger reset = {.l_onoff = 1};
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  for (int round = 0; round < 2; round++) {
    opened = closed_n = stream_closed = 0;
    all_states(fd, x);
    for (int i = 0; i < STATES; i++) {
      if (round) setsockopt(fd[i], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
      close(fd[i]);
    }
    turn(50);
    for (int i = 0; i < STATES; i++) /* those that only closed may still want their answers */
      if (x[i] && !round && (i == 2 || i == 3)) reply_text(x[i], 200, MR_S("to nobody"));
    for (int i = 0; i < 3000 && stats().connections; i++) {
      turn(1);
      if (i > 100) usleep(300);
      if (i == 200) mr_http_cut(x[5]); /* its body was never asked for: nobody has looked */
    }
    CHECK_INT(stats().connections, 0);
    CHECK_INT(closed_n + stream_closed, opened);
  }
  kit_stop();
}

/* ---- addresses ---- */

TEST(ipv6_and_peer_names)
{
  kit_start((struct mr_http_server_opts){0}, "[::1]:0");
  struct sockaddr_in6 me;
  socklen_t n = sizeof me;
  char want[64];
  int fd = dial();
  getsockname(fd, (struct sockaddr *)&me, &n);
  snprintf(want, sizeof want, "\r\n\r\n[::1]:%d", ntohs(me.sin6_port));
  ask(fd, GET("/peer"), want);
  close(fd);
  kit_stop();
}

TEST(ipv4_peer_names)
{
  kit_start((struct mr_http_server_opts){0}, "localhost:0");
  struct sockaddr_in me;
  socklen_t n = sizeof me;
  char want[64];
  int fd = dial();
  getsockname(fd, (struct sockaddr *)&me, &n);
  snprintf(want, sizeof want, "\r\n\r\n127.0.0.1:%d", ntohs(me.sin_port));
  ask(fd, GET("/peer"), want);
  close(fd);
  kit_stop();
}

static void local_address(char *out, size_t n, const char *more)
{
  snprintf(out, n, "unix:%s/s%s", test_dir(), more);
}

TEST(unix_sockets)
{
  char address[280];
  struct stat st;
  local_address(address, sizeof address, ",0660");
  kit_start((struct mr_http_server_opts){0}, address);
  CHECK_INT(stat(sock_path, &st), 0);
  CHECK_INT(st.st_mode & 0777, 0660);
  int fd = dial();
  ask(fd, GET("/peer"), "\r\n\r\nunix");
  hold(fd, GET("/hold")); /* here the kernel says that nobody is left */
  close(fd);
  CHECK(until(&closed_n, 2));
  fd = dial();
  ask(fd, GET("/big?3000000"), "\r\n\r\n");
  CHECK(hear_bytes(fd, 3000000));
  close(fd);
  kit_stop();
  CHECK(stat(sock_path, &st) != 0);
}

TEST(socket_files_of_others_stay)
{
  char address[280], path[256];
  struct stat st;
  struct mr_err err;
  local_address(address, sizeof address, "");
  kit_start((struct mr_http_server_opts){0}, address);
  memcpy(path, sock_path, sizeof path);
  struct mr_http_listen l = {.address = address};
  char actual[256];
  CHECK_INT(mr_http_server_listen(server, &l, actual, sizeof actual, &err), MR_E_IO); /* somebody listens */
  CHECK(strstr(err.message, "another program listens there"));
  unlink(path);
  FILE *f = fopen(path, "w"); /* replaced behind our back */
  fclose(f);
  CHECK_INT(mr_http_server_listen(server, &l, actual, sizeof actual, &err), MR_E_IO);
  kit_stop();
  CHECK_INT(stat(path, &st), 0); /* not ours: left alone */
  CHECK(S_ISREG(st.st_mode));
}

TEST(descriptors_are_close_on_exec)
{
  char address[280];
  local_address(address, sizeof address, "");
  int before[64];
  for (int i = 0; i < 64; i++) before[i] = fcntl(i, F_GETFD);
  kit_start((struct mr_http_server_opts){0}, address);
  int fd = dial();
  ask(fd, GET("/"), "hello");
  int seen = 0;
  for (int i = 3; i < 64; i++) {
    int flags = fcntl(i, F_GETFD);
    if (before[i] >= 0 || flags < 0) continue;
    seen++;
    CHECK(flags & FD_CLOEXEC);
  }
  CHECK(seen >= 4); /* epoll, eventfd, listener, connection */
  close(fd);
  kit_stop();
}

/* ---- no memory ---- */

TEST(every_allocation_may_fail)
{
  static const char talk[] = GET("/") POST("/", "content-length: 5\r\n") "abcde" GET("/peer");
  char address[280];
  struct mr_err err;
  local_address(address, sizeof address, "");
  long total = 0;
  for (long n = -1; n <= total; n++) {
    struct mr_http_server_opts o = {.on_request = on_request};
    struct mr_http_listen l = {.address = address};
    if (mr_loop_new(&loop, test_sys(), NULL, &err) != MR_OK) test_fail(__FILE__, __LINE__, "loop");
    mr_loop_enter(loop);
    opened = closed_n = 0;
    test_fail_after(n < 0 ? 1000000 : n);
    int code = mr_http_server_new(&server, loop, &o, &err);
    if (code == MR_OK) code = mr_http_server_listen(server, &l, url, sizeof url, &err);
    if (code == MR_OK) {
      memcpy(sock_path, url + 5, strlen(url + 5) + 1);
      int fd = dial();
      say(fd, MR_S(talk));
      turn(20);
      close(fd);
      turn(20);
    } else {
      CHECK_INT(code, MR_E_NOMEM);
    }
    test_fail_after(-1);
    mr_http_server_free(&server);
    mr_loop_free(&loop);
    CHECK_INT(test_allocs(), 0);
    if (n < 0) {
      CHECK_INT(closed_n, 3);
      total = 80; /* more than all of it needs */
    }
  }
  CHECK_INT(closed_n, 3); /* the last round failed nowhere */
}
