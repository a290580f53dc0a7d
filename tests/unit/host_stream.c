/* Outgoing HTTP of bindings, streamed: the head before the body, a pause that holds the sender, idle time, unix
 * sockets, and one connection for request after request. */
#include "host_kit.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

/* A server of a few lines: a thread for the one connection at a time; answers each request of it with a head, waits
 * for `go`, then sends `size` bytes. */
struct server {
  int fd, port;
  pthread_t t;
  size_t size;
  bool hang; /* after the first byte of the body */
  atomic_int accepted, served, go;
  atomic_size_t sent;
};

static bool read_request(int fd)
{
  char buf[4096];
  size_t at = 0;
  ssize_t n;
  while (at < sizeof buf - 1 && (n = read(fd, buf + at, sizeof buf - 1 - at)) > 0) {
    at += (size_t)n;
    buf[at] = '\0';
    if (strstr(buf, "\r\n\r\n"))
      return true;
  }
  return false;
}

static void answer(struct server *s, int fd)
{
  char head[200];
  static char block[65536];
  snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nX-Thing: one\r\ncontent-length: %zu\r\n\r\n", s->size);
  CHECK_INT(send(fd, head, strlen(head), MSG_NOSIGNAL), strlen(head));
  while (!atomic_load(&s->go))
    usleep(1000);
  for (size_t at = 0; at < s->size;) {
    size_t want = s->hang ? 1 : s->size - at < sizeof block ? s->size - at : sizeof block;
    ssize_t n = send(fd, block, want, MSG_NOSIGNAL);
    if (n <= 0)
      return;
    at += (size_t)n;
    atomic_fetch_add(&s->sent, (size_t)n);
    if (s->hang) {
      read_request(fd); /* until the client goes away */
      return;
    }
  }
  atomic_fetch_add(&s->served, 1);
}

static void *serve(void *arg)
{
  struct server *s = arg;
  int fd;
  while ((fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
    atomic_fetch_add(&s->accepted, 1);
    while (read_request(fd))
      answer(s, fd);
    close(fd);
  }
  return NULL;
}

static void server_start(struct server *s, const char *path)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_un u = {.sun_family = AF_UNIX};
  socklen_t len = sizeof a;
  s->fd = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (path)
    snprintf(u.sun_path, sizeof u.sun_path, "%s", path);
  CHECK_INT(bind(s->fd, path ? (struct sockaddr *)&u : (struct sockaddr *)&a, path ? sizeof u : sizeof a), 0);
  CHECK_INT(listen(s->fd, 10), 0);
  if (!path) {
    CHECK_INT(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
    s->port = ntohs(a.sin_port);
  }
  CHECK_INT(pthread_create(&s->t, NULL, serve, s), 0);
}

static void server_stop(struct server *s)
{
  shutdown(s->fd, SHUT_RDWR);
  pthread_join(s->t, NULL);
  close(s->fd);
}

struct response {
  struct mr_runtime *rt;
  uint64_t id;
  int heads, status, n, code;
  bool pause_at_once, chunk_before_head;
  size_t bytes;
  char headers[500];
  struct mr_err err;
};
static void on_head(void *ud, int status, struct mr_str headers)
{
  struct response *r = ud;
  r->heads++;
  r->status = status;
  snprintf(r->headers, sizeof r->headers, "%.*s", (int)headers.n, headers.p);
}
static void on_chunk(void *ud, struct mr_str data)
{
  struct response *r = ud;
  r->chunk_before_head |= !r->heads;
  r->bytes += data.n;
  if (r->pause_at_once)
    X()->http_pause(r->rt, r->id, 1);
}
static void on_done(void *ud, const struct mr_ext_http_reply *p)
{
  struct response *r = ud;
  r->n++;
  r->code = p->code;
}

static void fetch(struct mr_runtime *rt, struct server *s, struct mr_ext_http_req *q, struct response *r)
{
  char url[100];
  struct mr_ext_http_cbs cbs = {.size = sizeof cbs, .head = on_head, .chunk = on_chunk, .done = on_done};
  bool pause = r->pause_at_once;
  snprintf(url, sizeof url, "http://127.0.0.1:%d/", s->port);
  q->size = sizeof *q;
  q->url = url;
  *r = (struct response){.rt = rt, .pause_at_once = pause};
  CHECK_INT(X()->http(rt, q, &cbs, r, &r->id, &r->err), MR_OK);
}

TEST(the_head_comes_before_the_body)
{
  static struct server s = {.size = 5};
  struct response r = {0};
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_http_req q = {.timeout_ms = -1};

  server_start(&s, NULL);
  fetch(rt, &s, &q, &r);
  UNTIL(rt, r.heads);
  CHECK_INT(r.status, 200);
  CHECK(strstr(r.headers, "x-thing: one\n"));
  CHECK_INT(r.bytes, 0);
  atomic_store(&s.go, 1);
  UNTIL(rt, r.n);
  CHECK_INT(r.code, MR_OK);
  CHECK_INT(r.bytes, 5);
  CHECK_INT(r.heads, 1);
  CHECK(!r.chunk_before_head);
  CHECK_INT(mr_close(&rt), MR_OK);
  server_stop(&s);
  CHECK_INT(test_allocs(), 0);
}

TEST(request_after_request_on_one_connection)
{
  static struct server s = {.size = 100, .go = 1};
  struct response r = {0};
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_http_req q = {0};

  server_start(&s, NULL);
  for (int i = 0; i < 5; i++) {
    fetch(rt, &s, &q, &r);
    UNTIL(rt, r.n);
    CHECK_INT(r.code, MR_OK);
    CHECK_INT(r.bytes, 100);
  }
  CHECK_INT(atomic_load(&s.served), 5);
  CHECK_INT(atomic_load(&s.accepted), 1);
  CHECK_INT(mr_close(&rt), MR_OK);
  server_stop(&s);
}

TEST(a_pause_holds_the_sender)
{
  enum { SIZE = 64 << 20 };
  static struct server s = {.size = SIZE, .go = 1};
  struct response r = {.pause_at_once = true};
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_http_req q = {.idle_ms = 50};
  size_t before;

  server_start(&s, NULL);
  fetch(rt, &s, &q, &r);
  UNTIL(rt, r.bytes);
  do { /* until nothing is under way any more */
    before = r.bytes + atomic_load(&s.sent);
    for (int i = 0; i < 20; i++)
      host_turn(rt, 10);
  } while (r.bytes + atomic_load(&s.sent) != before);
  CHECK(r.bytes < 4 << 20);
  CHECK(atomic_load(&s.sent) < SIZE);
  CHECK_INT(r.n, 0); /* its silence was asked for */
  r.pause_at_once = false;
  X()->http_pause(rt, r.id, 0);
  UNTIL(rt, r.n);
  CHECK_INT(r.code, MR_OK);
  CHECK_INT(r.bytes, SIZE);
  X()->http_pause(rt, r.id, 1); /* over: harmless */
  CHECK_INT(mr_close(&rt), MR_OK);
  server_stop(&s);
  CHECK_INT(test_allocs(), 0);
}

TEST(cancelled_while_it_is_held)
{
  static struct server s = {.size = 64 << 20, .go = 1};
  struct response r = {.pause_at_once = true};
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_http_req q = {0};

  server_start(&s, NULL);
  fetch(rt, &s, &q, &r);
  UNTIL(rt, r.bytes);
  X()->http_cancel(rt, r.id);
  UNTIL(rt, r.n);
  CHECK_INT(r.code, MR_E_CANCELLED);
  fetch(rt, &s, &q, &r);
  UNTIL(rt, r.bytes);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(r.n, 1);
  server_stop(&s);
  CHECK_INT(test_allocs(), 0);
}

TEST(silence_ends_it)
{
  static struct server s = {.size = 10, .go = 1, .hang = true};
  struct response r = {0};
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_http_req q = {.timeout_ms = -1, .idle_ms = 60};

  server_start(&s, NULL);
  fetch(rt, &s, &q, &r);
  UNTIL(rt, r.n);
  CHECK_INT(r.code, MR_E_TIMEOUT);
  CHECK_INT(r.bytes, 1);
  CHECK_INT(mr_close(&rt), MR_OK);
  server_stop(&s);
}

TEST(a_unix_socket)
{
  static struct server s = {.size = 7, .go = 1};
  static char path[300], far[200];
  struct response r = {0};
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_http_req q = {.unix_path = path}, bad = {.size = sizeof bad, .url = "http://x/", .unix_path = far};
  struct mr_ext_http_cbs cbs = {.size = sizeof cbs};

  snprintf(path, sizeof path, "%s/s", test_dir());
  server_start(&s, path);
  fetch(rt, &s, &q, &r);
  UNTIL(rt, r.n);
  CHECK_INT(r.code, MR_OK);
  CHECK_INT(r.bytes, 7);
  memset(far, 'x', sizeof far - 1);
  CHECK_INT(X()->http(rt, &bad, &cbs, NULL, NULL, &r.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(r.err.field), "unix_path");
  bad = (struct mr_ext_http_req){.size = sizeof bad, .url = "http://x/", .timeout_ms = -2};
  CHECK_INT(X()->http(rt, &bad, &cbs, NULL, NULL, &r.err), MR_E_INVALID);
  CHECK_INT(mr_close(&rt), MR_OK);
  server_stop(&s);
}
