/* net_sse - event streams: frames, pings, slow readers, ends. */
#include "net_kit.h"

#define GET_SSE "GET /sse HTTP/1.1\r\nhost: x\r\n\r\n"

static int open_stream(void)
{
  int fd = dial();
  stream = NULL;
  ask(fd, GET_SSE, "\r\n\r\n");
  CHECK(stream);
  return fd;
}

static int count_of(const char *text)
{
  int n = 0;
  for (const char *p = got; (p = strstr(p, text)); p++) n++;
  return n;
}

TEST(head_comes_before_any_event)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = open_stream();
  CHECK(strncmp(got, "HTTP/1.1 200 OK\r\n", 17) == 0);
  CHECK(strstr(got, "\r\ncontent-type: text/event-stream"));
  CHECK(strstr(got, "\r\ncache-control: no-cache\r\n"));
  CHECK(strstr(got, "\r\ntransfer-encoding: chunked\r\n"));
  CHECK(strstr(got, "\r\nrequest-id: req_1\r\n"));
  CHECK(strcmp(strstr(got, "\r\n\r\n"), "\r\n\r\n") == 0);
  close(fd);
  CHECK(until(&stream_closed, 1));
  kit_stop();
}

TEST(frames_of_one_pass_leave_together)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = open_stream();
  for (int i = 1; i <= 20; i++)
    CHECK_INT(mr_sse_event(stream, MR_S("agent.message"), i, MR_S("{\"x\":1}")), MR_OK);
  fresh();
  CHECK(hear(fd, "id: 20\ndata: {\"x\":1}\n\n\r\n"));
  CHECK_INT(count_of("\r\n"), 2); /* one chunk: its size line and its end */
  CHECK_INT(count_of("event: agent.message\nid: "), 20);
  fresh();
  mr_sse_event(stream, MR_S("event_delta"), 0, MR_S("{}"));
  CHECK(hear(fd, "\n\n\r\n"));
  CHECK(strcmp(got, "1d\r\nevent: event_delta\ndata: {}\n\n\r\n") == 0 || strstr(got, "event: ping"));
  struct mr_http_server_stats st;
  mr_http_server_stats(server, &st);
  CHECK_INT(st.streams, 1);
  CHECK(st.events >= 21);
  mr_sse_end(stream);
  CHECK_INT(mr_sse_event(stream, MR_S("late"), 1, MR_S("{}")), MR_E_CLOSED);
  CHECK(hear(fd, "0\r\n\r\n"));
  CHECK(!strstr(got, "late"));
  CHECK(until(&stream_closed, 1));
  mr_http_server_stats(server, &st);
  CHECK_INT(st.streams, 0);
  close(fd);
  kit_stop();
}

/* What streams have in common is put together once: each still gets its own, in order. */
TEST(frames_in_common_and_not)
{
  static const char *const a[] = {"1", "2", "3", "3", "5"}, *const b[] = {"1", "3", "3", "4", "5"};
  static char big[70000];
  char want_a[400] = "", want_b[400] = "";
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fa = open_stream(), fb;
  struct mr_sse *sa = stream, *sb;
  fb = open_stream();
  sb = stream;
  for (int round = 0; round < 3; round++) {
    char one[128], text[64];
    want_a[0] = want_b[0] = '\0';
    for (int i = 0; i < 5; i++) {
      snprintf(text, sizeof text, "{\"n\":%s}", a[i]);
      CHECK_INT(mr_sse_event(sa, MR_S("x"), a[i][0] - '0', mr_str_c(text)), MR_OK);
      snprintf(one, sizeof one, "event: x\nid: %s\ndata: %s\n\n", a[i], text);
      strcat(want_a, one);
      if (round == 2 && i == 2) turn(1); /* in two passes */
      snprintf(text, sizeof text, "{\"n\":%s}", b[i]);
      CHECK_INT(mr_sse_event(sb, MR_S("x"), b[i][0] - '0', mr_str_c(text)), MR_OK);
      snprintf(one, sizeof one, "event: x\nid: %s\ndata: %s\n\n", b[i], text);
      strcat(want_b, one);
    }
    mr_sse_event(sa, MR_S("end"), 0, MR_S("{}"));
    mr_sse_event(sb, MR_S("end"), 0, MR_S("{}"));
    for (int k = 0; k < 2; k++) {
      char plain[1000] = "";
      fresh();
      CHECK(hear(k ? fb : fa, "event: end\ndata: {}\n\n\r\n"));
      for (char *p = got, *line; (line = strstr(p, "\r\n")); p = line + 2) /* chunks: size line, frames */
        if (strncmp(p, "event: ", 7) == 0) strncat(plain, p, (size_t)(line - p));
      *strstr(plain, "event: end") = '\0';
      CHECK(strcmp(plain, k ? want_b : want_a) == 0);
    }
  }
  memset(big, 'z', sizeof big); /* more than is kept back, and more than is shared */
  for (int i = 0; i < 6; i++) {
    mr_sse_event(sa, MR_S("x"), 100 + i, mr_str_n(big, sizeof big));
    mr_sse_event(sb, MR_S("x"), 200 + i, mr_str_n(big, sizeof big));
  }
  for (int k = 0; k < 2; k++) {
    fresh();
    CHECK(hear(k ? fb : fa, k ? "id: 205" : "id: 105"));
    CHECK_INT(count_of(k ? "id: 20" : "id: 10"), 6);
    CHECK_INT(count_of(k ? "id: 10" : "id: 20"), 0);
  }
  close(fa);
  close(fb);
  kit_stop();
}

TEST(end_sends_what_was_queued)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = open_stream();
  mr_sse_event(stream, MR_S("last"), 7, MR_S("{}"));
  mr_sse_end(stream);
  fresh();
  CHECK(hear(fd, "event: last\nid: 7\ndata: {}\n\n\r\n0\r\n\r\n"));
  CHECK(until(&stream_closed, 1));
  ask(fd, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "hello"); /* the connection lives on */
  close(fd);
  kit_stop();
}

TEST(silence_is_broken_by_pings)
{
  test_clock_set(1000000, 1000000);
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = open_stream(); /* ping after 60 ms */
  fresh();
  test_clock_set(1059000, 0);
  turn(20);
  mr_sse_event(stream, MR_S("a"), 1, MR_S("{}"));
  CHECK(hear(fd, "data: {}\n\n"));
  test_clock_set(1100000, 0); /* the silence began again */
  turn(20);
  CHECK_INT(recv(fd, got, 1, MSG_DONTWAIT | MSG_PEEK), -1);
  test_clock_set(1120000, 0);
  fresh();
  CHECK(hear(fd, "event: ping\ndata: {\"type\":\"ping\"}\n\n"));
  test_clock_set(1180000, 0);
  fresh();
  CHECK(hear(fd, "event: ping\n"));
  CHECK_INT(count_of("ping\n"), 1);
  close(fd);
  CHECK(until(&stream_closed, 1));
  kit_stop();
}

TEST(idle_streams_outlive_idle_connections)
{
  test_clock_set(1000000, 1000000);
  kit_start((struct mr_http_server_opts){.idle_ms = 50, .header_ms = 50}, "127.0.0.1:0");
  int fd = open_stream();
  for (int i = 1; i < 100; i++) {
    test_clock_set(1000000 + i * 40000, 0);
    turn(5);
  }
  mr_sse_event(stream, MR_S("alive"), 1, MR_S("{}"));
  fresh();
  CHECK(hear(fd, "event: alive"));
  close(fd);
  kit_stop();
}

static int drained_streams;
static void on_stream_drained(void *ud, struct mr_sse *s)
{
  (void)ud;
  CHECK(s == stream);
  drained_streams++;
}

TEST(slow_reader_is_told_then_cut)
{
  static char big[60000];
  struct mr_http_server_stats st;
  kit_start((struct mr_http_server_opts){.max_out = 1 << 20}, "127.0.0.1:0");
  int fd = open_stream(), r = MR_OK;
  mr_sse_on_drained(stream, on_stream_drained);
  memset(big, 'x', sizeof big);
  for (int i = 0; i < 1000 && r == MR_OK; i++) {
    r = mr_sse_event(stream, MR_S("x"), i + 1, mr_str_n(big, sizeof big));
    turn(1);
  }
  CHECK_INT(r, MR_MORE);
  for (int i = 0; i < 3000 && !drained_streams; i++) {
    turn(1);
    recv(fd, got, sizeof got - 1, 0);
  }
  CHECK_INT(drained_streams, 1);
  CHECK_INT(mr_sse_event(stream, MR_S("x"), 1, MR_S("{}")), MR_OK);
  for (int i = 0; i < 1000 && stream && r != MR_E_CLOSED; i++) {
    r = mr_sse_event(stream, MR_S("x"), i + 1, mr_str_n(big, sizeof big));
    turn(1);
  }
  CHECK(until(&stream_closed, 1));
  mr_http_server_stats(server, &st);
  CHECK_INT(st.cut, 1);
  CHECK_INT(st.connections, 0);
  close(fd);
  kit_stop();
}

TEST(slow_reader_does_not_slow_others)
{
  static char big[60000];
  kit_start((struct mr_http_server_opts){.max_out = 1 << 20}, "127.0.0.1:0");
  int slow_fd = open_stream();
  struct mr_sse *slow = stream;
  int fast_fd = open_stream(), n = 0;
  struct mr_sse *fast = stream;
  memset(big, 'x', sizeof big);
  while (mr_sse_event(slow, MR_S("x"), 1, mr_str_n(big, sizeof big)) != MR_MORE && n++ < 1000) turn(1);
  for (int i = 1; i <= 50; i++) {
    char want[32];
    snprintf(want, sizeof want, "id: %d\n", i);
    fresh();
    CHECK_INT(mr_sse_event(fast, MR_S("y"), i, MR_S("{}")), MR_OK);
    CHECK(hear(fast_fd, want));
  }
  close(slow_fd);
  close(fast_fd);
  CHECK(until(&stream_closed, 2));
  kit_stop();
}

/* A reader that is stuck for idle_ms goes, though it is below its bound. */
TEST(stuck_reader_goes)
{
  static char big[60000];
  test_clock_set(1000000, 1000000);
  kit_start((struct mr_http_server_opts){.idle_ms = 1000, .max_out = 64 << 20}, "127.0.0.1:0");
  int fd = open_stream(), n = 0;
  memset(big, 'x', sizeof big);
  while (mr_sse_event(stream, MR_S("x"), 1, mr_str_n(big, sizeof big)) != MR_MORE && n++ < 1000) turn(1);
  turn(5);
  test_clock_set(1900000, 0);
  turn(20);
  CHECK_INT(stream_closed, 0);
  test_clock_set(2100000, 0);
  CHECK(until(&stream_closed, 1));
  close(fd);
  kit_stop();
}

TEST(large_frames_arrive_whole)
{
  enum { N = 6 << 20 }; /* over max_out */
  static char big[N];
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = open_stream();
  memset(big, 'z', sizeof big);
  fresh();
  mr_sse_event(stream, MR_S("x"), 1, mr_str_n(big, sizeof big));
  mr_sse_event(stream, MR_S("y"), 2, MR_S("{}"));
  CHECK(hear(fd, "event: y\nid: 2"));
  CHECK(ngot > N);
  CHECK_INT(strspn(strstr(got, "data: ") + 6, "z"), N);
  close(fd);
  kit_stop();
}

TEST(old_clients_and_head_requests)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = dial();
  ask(fd, "GET /sse HTTP/1.0\r\n\r\n", "\r\n\r\n");
  CHECK(!strstr(got, "chunked"));
  CHECK(strstr(got, "connection: close"));
  fresh();
  mr_sse_event(stream, MR_S("x"), 1, MR_S("{}"));
  mr_sse_end(stream);
  CHECK(hear(fd, NULL)); /* until close */
  CHECK(strcmp(got, "event: x\nid: 1\ndata: {}\n\n") == 0);
  close(fd);
  fd = dial();
  ask(fd, "HEAD /sse HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\n");
  CHECK(until(&stream_closed, 2));
  ask(fd, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "hello");
  CHECK(strncmp(got, "HTTP/1.1 200", 12) == 0);
  close(fd);
  kit_stop();
}

TEST(stop_lets_streams_end)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = open_stream();
  mr_http_server_stop(server);
  turn(10);
  CHECK_INT(mr_http_server_active(server), 1);
  fresh();
  mr_sse_event(stream, MR_S("bye"), 1, MR_S("{}"));
  mr_sse_end(stream);
  CHECK(hear(fd, NULL));
  CHECK(strstr(got, "event: bye"));
  CHECK(strstr(got, "\r\n0\r\n\r\n"));
  CHECK_INT(mr_http_server_active(server), 0);
  close(fd);
  kit_stop();
}

TEST(freed_with_frames_waiting)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  int fd = open_stream();
  mr_sse_event(stream, MR_S("x"), 1, MR_S("{}"));
  kit_stop();
  CHECK_INT(stream_closed, 1);
  close(fd);
}

/* What an idle stream owns, counted in bytes at the allocator (libevent's event comes on top). */
static size_t bytes;
static void *(*real_fn)(void *, void *, size_t, size_t);
static void *counting(void *ud, void *p, size_t old, size_t n)
{
  void *r = real_fn(ud, p, old, n);
  if (r || n == 0) bytes += n - (p ? old : 0);
  return r;
}

TEST(idle_streams_are_small)
{
  enum { N = 400 };
  static int fd[N];
  struct mr_sys *sys = test_sys();
  real_fn = sys->mem.fn;
  sys->mem.fn = counting;
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  fd[0] = open_stream(); /* spare parser, timer heap */
  for (int i = 1; i < N; i++) {
    fd[i] = open_stream();
    mr_sse_event(stream, MR_S("agent.message"), 5, MR_S("{\"type\":\"agent.message\"}"));
    fresh();
    CHECK(hear(fd[i], "id: 5"));
    if (i == 1) bytes = 0;
  }
  turn(10);
  size_t each = bytes / (N - 2) + 128 + 32; /* and the event, and its place in libevent's map */
  if (each > 800) test_fail(__FILE__, __LINE__, "%zu bytes for an idle stream", each);
  for (int i = 0; i < N; i++) close(fd[i]);
  CHECK(until(&stream_closed, N));
  kit_stop();
}
