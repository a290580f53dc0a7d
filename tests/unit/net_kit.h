/* net_kit.h - a real HTTP server in the test's own loop, with a small handler, and raw client sockets. */
#ifndef MR_TEST_NET_KIT_H
#define MR_TEST_NET_KIT_H

#pragma GCC diagnostic ignored "-Wunused-function" /* no test program uses all of it */
#pragma GCC diagnostic ignored "-Wunused-variable"

#include "kit.h"
#include "base/buf.h"
#include "net/http_server.h"
#include "net/sse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct mr_loop *loop;
static struct mr_http_server *server;
static char url[256];
static int port, opened, closed_n, complete_n;
static char sock_path[256];           /* of a unix listener */
static struct mr_http_listen listen_with; /* besides the address */
static bool resume_at_once;
static struct mr_http_x *held;        /* of /hold: answered by the test */
static struct mr_sse *stream;         /* of /sse */
static int stream_closed, drained_n, paused_pieces;
static bool pause_body;

struct req { struct mr_http_x *x; struct mr_buf body; };

static void on_closed(void *ud, struct mr_http_x *x, bool complete)
{
  struct req *q = ud;
  (void)x;
  closed_n++;
  complete_n += complete;
  if (held == x) held = NULL;
  mr_buf_free(&q->body);
  mr_mem_free(&test_sys()->mem, q);
}

static void reply_text(struct mr_http_x *x, int status, struct mr_str text)
{
  struct mr_str h = MR_S("content-type: text/plain");
  mr_http_reply(x, status, &h, 1, text);
}

static int on_body(void *ud, struct mr_http_x *x, struct mr_str bytes, bool last)
{
  struct req *q = ud;
  mr_buf_str(&q->body, bytes);
  if (last && mr_http_body_over(x))
    reply_text(x, 413, MR_S("too long"));
  else if (last)
    reply_text(x, 200, mr_buf_get(&q->body));
  if (!last && pause_body) {
    paused_pieces++;
    held = x;
    if (resume_at_once) mr_http_body_resume(x);
    return MR_MORE;
  }
  return MR_OK;
}

static void on_drained(void *ud, struct mr_http_x *x)
{
  (void)ud;
  (void)x;
  drained_n++;
}

static const struct mr_http_x_cbs kit_cbs = {on_body, on_drained, on_closed};

static void on_stream_closed(void *ud, struct mr_sse *s)
{
  (void)ud;
  (void)s;
  stream_closed++;
  stream = NULL;
}

static void on_request(void *ud, struct mr_http_x *x)
{
  struct req *q = mr_mem_zalloc(&test_sys()->mem, sizeof *q);
  struct mr_str path = mr_http_path(x);
  (void)ud;
  opened++;
  q->x = x;
  mr_buf_init(&q->body, &test_sys()->mem, 64 << 20);
  mr_http_set(x, &kit_cbs, q);
  if (mr_str_is(path, "/echo")) {
    mr_http_body(x, 1 << 20);
  } else if (mr_str_is(path, "/hold")) {
    held = x;
  } else if (mr_str_is(path, "/sse")) {
    struct mr_str h = MR_S("request-id: req_1");
    mr_mem_free(&test_sys()->mem, q);
    CHECK_INT(mr_sse_open(x, &h, 1, 60, on_stream_closed, NULL, &stream), MR_OK);
  } else if (mr_str_is(path, "/query")) {
    reply_text(x, 200, mr_http_query(x));
  } else if (mr_str_is(path, "/path")) {
    reply_text(x, 200, mr_http_path(x));
  } else if (mr_str_is(path, "/peer")) {
    reply_text(x, 200, mr_http_peer(x));
  } else if (mr_str_is(path, "/x")) {
    struct mr_str v = mr_http_req_header(x, "x");
    reply_text(x, 200, v.p ? v : MR_S("(none)"));
  } else if (mr_str_is(path, "/status")) {
    int64_t status = 0;
    mr_str_int(mr_http_query(x), &status);
    reply_text(x, (int)status, MR_S("text"));
  } else if (mr_str_is(path, "/big")) {
    int64_t n = 0;
    mr_str_int(mr_http_query(x), &n);
    char *p = mr_arena_alloc(mr_http_arena(x), (size_t)n);
    for (int64_t i = 0; i < n; i++) p[i] = (char)('a' + i % 23);
    reply_text(x, 200, mr_str_n(p, (size_t)n));
  } else {
    reply_text(x, 200, MR_S("hello"));
  }
}

static void say(int fd, struct mr_str s);

static void turn(int n)
{
  for (int i = 0; i < n; i++)
    mr_loop_pump(loop, 2000);
}

static void kit_start(struct mr_http_server_opts o, const char *address)
{
  struct mr_err err = {0};
  struct mr_http_listen l = listen_with;
  l.address = address;
  o.on_request = on_request;
  CHECK_INT(mr_loop_new(&loop, test_sys(), NULL, &err), MR_OK);
  mr_loop_enter(loop);
  CHECK_INT(mr_http_server_new(&server, loop, &o, &err), MR_OK);
  if (mr_http_server_listen(server, &l, url, sizeof url, &err) != MR_OK)
    test_fail(__FILE__, __LINE__, "%s", err.message);
  if (strncmp(url, "http", 4) == 0)
    port = atoi(strrchr(url, ':') + 1);
  else
    memcpy(sock_path, url + 5, strlen(url + 5) + 1);
}

static void kit_stop(void)
{
  mr_http_server_free(&server);
  mr_loop_free(&loop);
  CHECK_INT(closed_n + stream_closed, opened);
  CHECK_INT(test_allocs(), 0);
}

/* A connection to the server; nothing of it has been accepted yet. */
static int dial(void)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port),
                             .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  struct sockaddr_un un = {.sun_family = AF_UNIX};
  bool v6 = strchr(url, '[') != NULL, local = sock_path[0] != '\0';
  int fd = socket(local ? AF_UNIX : v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), r;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  memcpy(un.sun_path, sock_path, sizeof un.sun_path);
  if (local) r = connect(fd, (struct sockaddr *)&un, sizeof un);
  else if (v6) r = connect(fd, (struct sockaddr *)&six, sizeof six);
  else r = connect(fd, (struct sockaddr *)&a, sizeof a);
  CHECK_INT(r, 0);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

/* Lets the server run until *what is at least n. */
static bool until(const int *what, int n)
{
  for (int i = 0; i < 3000 && *what < n; i++) {
    turn(1);
    if (*what < n && i > 20) usleep(500);
  }
  return *what >= n;
}

/* A request that the test answers. */
static void hold(int fd, const char *request)
{
  say(fd, mr_str_c(request));
  for (int i = 0; i < 3000 && !held; i++) turn(1);
  CHECK(held);
}

static void say(int fd, struct mr_str s)
{
  for (int i = 0; s.n > 0 && i < 20000; i++) {
    ssize_t n = send(fd, s.p, s.n, MSG_NOSIGNAL);
    if (n > 0) s.p += n, s.n -= (size_t)n;
    else turn(1);
    if (n < 0 && errno != EAGAIN) return;
  }
}

static char got[24 << 20];
static size_t ngot;
static bool ended;

static bool hear_some(int fd, const char *text, size_t n);

/* Reads until text is there (NULL: until the peer closed). False when it takes too long. */
static bool hear(int fd, const char *text) { return hear_some(fd, text, 0); }
static bool hear_bytes(int fd, size_t n) { return hear_some(fd, NULL, n); }

static bool hear_some(int fd, const char *text, size_t want)
{
  for (int i = 0; i < 3000; i++) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    ssize_t n;
    turn(1);
    poll(&p, 1, 1);
    n = recv(fd, got + ngot, sizeof got - 1 - ngot, 0);
    if (n > 0) ngot += (size_t)n;
    if (n == 0 || (n < 0 && errno != EAGAIN)) ended = true;
    got[ngot] = '\0';
    if (text && strstr(got, text)) return true;
    if (want && ngot >= want) return true;
    if (ended) return text == NULL && !want;
  }
  return false;
}

static void fresh(void) { ngot = 0; got[0] = '\0'; ended = false; }

static void ask(int fd, const char *request, const char *expect)
{
  fresh();
  say(fd, mr_str_c(request));
  if (!hear(fd, expect)) test_fail(__FILE__, __LINE__, "no \"%s\" in \"%.300s\"", expect, got);
}

#endif
