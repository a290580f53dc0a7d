/* Routes of the host: which one a request means, what it reads, answers from any thread, slow clients, clients that
 * go, deadlines, the end of the runtime. */
#include "host_kit.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define KEY "sk-mr-0123456789012345678901234567890123456789"

static struct mr_runtime *rt;
static char actual[100];

static void begin(void)
{
  struct mr_config c = host_config(":memory:");
  struct mr_err err = {.size = sizeof err};
  c.options = "{\"api_key\":\"" KEY "\"}";
  CHECK_INT(mr_open(&rt, &c, &err), MR_OK);
  CHECK_INT(mr_listen(rt, "127.0.0.1:0", actual, sizeof actual, &err), MR_OK);
}

static void end(void)
{
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

static int dial(int rcvbuf)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (rcvbuf) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf);
  a.sin_port = htons((uint16_t)strtol(strrchr(actual, ':') + 1, NULL, 10));
  CHECK_INT(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
  return fd;
}

static void put(int fd, const char *text)
{
  CHECK_INT(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Reads to the end of the connection, dispatching. */
static char *read_all(int fd)
{
  static char out[400000];
  struct pollfd p = {.fd = fd, .events = POLLIN};
  size_t n = 0;
  ssize_t k = 1;
  while (k > 0 && n < sizeof out - 1) {
    if (poll(&p, 1, 5) == 1 && (k = read(fd, out + n, sizeof out - 1 - n)) > 0) n += (size_t)k;
    mr_dispatch(rt, 0, 0);
  }
  out[n] = '\0';
  close(fd);
  return out;
}

/* Reads until text has come, dispatching. */
static void read_until(int fd, const char *text)
{
  char out[20000];
  struct pollfd p = {.fd = fd, .events = POLLIN};
  size_t n = 0;
  out[0] = '\0';
  while (!strstr(out, text)) {
    ssize_t k = poll(&p, 1, 5) == 1 ? read(fd, out + n, sizeof out - 1 - n) : -1;
    CHECK(k != 0);
    if (k > 0) n += (size_t)k;
    out[n] = '\0';
    mr_dispatch(rt, 0, 0);
  }
}

static char *ask(const char *method, const char *path, const char *headers, const char *body)
{
  char q[4000];
  int fd = dial(0);
  snprintf(q, sizeof q, "%s %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%scontent-length: %zu\r\n\r\n%s", method, path,
           headers, strlen(body), body);
  put(fd, q);
  return read_all(fd);
}

static int add(const char *method, const char *path, unsigned flags, void (*run)(void *, struct mr_web *),
               void (*closed)(void *, struct mr_web *), void *ud)
{
  struct mr_route r = {.size = sizeof r, .method = method, .path = path, .flags = flags, .run = run, .closed = closed, .ud = ud};
  struct mr_err err = {.size = sizeof err};
  return mr_route_add(rt, &r, &err);
}

static void reply(struct mr_web *w, int status, const char *text)
{
  static const char *const head[] = {"content-type: text/plain", NULL};
  CHECK_INT(mr_web_start(w, status, head, (int64_t)strlen(text)), MR_OK);
  CHECK_INT(mr_web_write(w, mr_str_c(text), NULL, NULL), MR_OK);
  CHECK_INT(mr_web_end(&w), MR_OK);
  CHECK(w == NULL);
}

/* Says which route it is, and what it got. */
static void show(void *ud, struct mr_web *w)
{
  char text[2000];
  struct mr_str m = mr_web_method(w), p = mr_web_path(w), q = mr_web_query(w), id = mr_web_param(w, "id"),
                star = mr_web_param(w, "*"), h = mr_web_header(w, "X-Test"), b = mr_web_body(w);
  CHECK_INT(mr_web_closed(w), 0);
  CHECK(mr_str_starts(mr_web_remote(w), S("127.0.0.1:")));
  CHECK(mr_str_starts(mr_web_headers(w), S("host: x\n")));
  CHECK(mr_web_param(w, "other").p == NULL);
  snprintf(text, sizeof text, "<%s %.*s %.*s ?%.*s id=%.*s *=%.*s h=%.*s b=%.*s>", (const char *)ud, MR_ARG(m), MR_ARG(p),
           MR_ARG(q), MR_ARG(id), MR_ARG(star), MR_ARG(h), MR_ARG(b));
  reply(w, 200, text);
}

TEST(the_most_exact_path_wins)
{
  begin();
  CHECK_INT(add("GET", "/x/a/{id}", MR_ROUTE_PUBLIC, show, NULL, "id"), MR_OK);
  CHECK_INT(add("GET", "/x/a/b", MR_ROUTE_PUBLIC, show, NULL, "text"), MR_OK);
  CHECK_INT(add(NULL, "/x/a/*", MR_ROUTE_PUBLIC, show, NULL, "star"), MR_OK);
  CHECK_INT(add("PUT", "/x/a/{id}", MR_ROUTE_PUBLIC, show, NULL, "put"), MR_OK);
  CHECK(strstr(ask("GET", "/x/a/b", "", ""), "<text GET /x/a/b ? id= *= h= b=>"));
  CHECK(strstr(ask("GET", "/x/a/c%20%C3%BC%2F?a=%31&b", "x-test: y\r\n", ""), "<id GET /x/a/c \xc3\xbc/ ?a=%31&b id=c \xc3\xbc/ *= h=y b=>"));
  CHECK(strstr(ask("PUT", "/x/a/c", "", "body"), "<put PUT /x/a/c ? id=c *= h= b=body>"));
  CHECK(strstr(ask("DELETE", "/x/a/b", "", ""), "<star DELETE /x/a/b ? id= *=b "));
  CHECK(strstr(ask("GET", "/x/a/b/c", "", ""), "<star GET /x/a/b/c ? id= *=b/c "));
  CHECK(strstr(ask("GET", "/x/a/", "", ""), "<star GET /x/a/ ? id= *= "));
  CHECK(strstr(ask("GET", "/x/a", "", ""), "404 Not Found"));
  CHECK_INT(add("GET", "/x/a/{name}", MR_ROUTE_PUBLIC, show, NULL, "again"), MR_OK); /* the same path: replaces */
  CHECK(strstr(ask("GET", "/x/a/c", "", ""), "<again GET /x/a/c ? id= "));
  CHECK_INT(mr_route_remove(rt, "GET", "/x/a/{id}"), MR_OK);
  CHECK_INT(mr_route_remove(rt, "GET", "/x/a/{id}"), MR_E_NOTFOUND);
  CHECK(strstr(ask("GET", "/x/a/c", "", ""), "<star GET /x/a/c "));
  end();
}

TEST(what_is_refused)
{
  begin();
  CHECK_INT(add("POST", "/x/p", MR_ROUTE_PUBLIC, show, NULL, "p"), MR_OK);
  CHECK_INT(add("GET", "/x/p/{id}", MR_ROUTE_PUBLIC, show, NULL, "g"), MR_OK);
  CHECK_INT(add("POST", "/x/p/{id}", MR_ROUTE_PUBLIC, show, NULL, "g"), MR_OK);
  CHECK_INT(add("GET", "/x/key", 0, show, NULL, "k"), MR_OK);
  const char *r = ask("GET", "/x/p", "", "");
  CHECK(strstr(r, "405 Method Not Allowed") && strstr(r, "\r\nallow: POST\r\n") && strstr(r, "\"type\":\"invalid_request_error\""));
  r = ask("PUT", "/x/p/1", "", "");
  CHECK(strstr(r, "\r\nallow: POST, GET, HEAD\r\n") || strstr(r, "\r\nallow: GET, HEAD, POST\r\n"));
  CHECK(strstr(ask("GET", "/x/none", "", ""), "\"type\":\"not_found_error\""));
  CHECK(strstr(ask("GET", "/x/p/%00", "", ""), "400 Bad Request"));
  CHECK(strstr(ask("GET", "/x/p/%ff", "", ""), "400 Bad Request"));
  CHECK(strstr(ask("GET", "/x/p/%2", "", ""), "400 Bad Request"));
  CHECK(strstr(ask("GET", "/x/p/%0a", "", ""), "400 Bad Request"));
  CHECK(strstr(ask("GET", "/x/p/..", "", ""), "400 Bad Request"));
  CHECK(strstr(ask("GET", "/x/p/a%2F..%2Fb", "", ""), "400 Bad Request"));
  CHECK(strstr(ask("GET", "/x/p/%2Fetc", "", ""), "400 Bad Request"));
  CHECK_INT(add("GET", "/x/all/*", MR_ROUTE_PUBLIC, show, NULL, "all"), MR_OK);
  CHECK(strstr(ask("GET", "/x/all//etc/passwd", "", ""), "400 Bad Request"));
  CHECK(strstr(ask("GET", "/x/all/a//b", "", ""), "*=a//b "));
  CHECK(strstr(ask("GET", "/x/p/a?b=%80", "", ""), "\"field\":\"query\""));
  CHECK(strstr(ask("GET", "/x/key", "", ""), "401 Unauthorized"));
  CHECK(strstr(ask("GET", "/x/key", "x-api-key: wrong\r\n", ""), "401 Unauthorized"));
  CHECK(strstr(ask("GET", "/x/key", "authorization: Bearer " KEY "\r\n", ""), "<k GET"));
  end();
}

TEST(bad_registrations)
{
  static const char *const paths[] = {NULL,       "",          "/x",       "/y/a",    "/x/{a",  "/x/a}",  "/x/{}",     "/x/{1}", "/x/a//b",
                                      "/x/*/a",   "/x/{a}/{a}", "/x/a b",   "/x/a?b",  "/x/a%20", "/x/..", "/x/a/./b", "/x/a*",  "/x/\xff",
                                      "/x/{a}{b}"};
  struct mr_route r = {.size = sizeof r, .path = "/x/a", .run = show};
  struct mr_err err = {.size = sizeof err};
  char name[20];

  begin();
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
    CHECK_INT(add("GET", paths[i], 0, show, NULL, ""), MR_E_INVALID);
  CHECK_INT(add("get", "/x/a", 0, show, NULL, ""), MR_E_INVALID);
  CHECK_INT(add("G T", "/x/a", 0, show, NULL, ""), MR_E_INVALID);
  CHECK_INT(add("GET", "/x/a", 0, NULL, NULL, ""), MR_E_INVALID);
  r.body_max = -1;
  CHECK_INT(mr_route_add(rt, &r, &err), MR_E_INVALID);
  CHECK_STR(mr_str_c(err.field), "body_max");
  r.body_max = 0;
  r.timeout_ms = -5;
  CHECK_INT(mr_route_add(rt, &r, &err), MR_E_INVALID);
  r.timeout_ms = 0;
  r.size = 8;
  CHECK_INT(mr_route_add(rt, &r, &err), MR_E_INVALID);
  for (int i = 0; i < 1000; i++) {
    snprintf(name, sizeof name, "/x/r%d", i);
    CHECK_INT(add("GET", name, 0, show, NULL, ""), MR_OK);
  }
  CHECK_INT(add("GET", "/x/more", 0, show, NULL, ""), MR_E_FULL);
  CHECK_INT(add("GET", "/x/r7", 0, show, NULL, ""), MR_OK);
  end();
}

static void bad_heads(void *ud, struct mr_web *w)
{
  static const char *const bad[] = {"a: b\r\nc: d", "a: \x01", "a b: c", ": c", "nothing", "Content-Length: 3", "connection: close",
                                    "Transfer-Encoding: chunked", "upgrade: x", "a\n: b", "date: now", "trailer: x"};
  const char *lines[63] = {NULL};
  (void)ud;
  CHECK_INT(mr_web_write(w, S("early"), NULL, NULL), MR_E_STATE);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const char *const one[] = {bad[i], NULL};
    CHECK_INT(mr_web_start(w, 200, one, -1), MR_E_INVALID);
  }
  for (int i = 0; i < 61; i++)
    lines[i] = "a: b";
  CHECK_INT(mr_web_start(w, 200, lines, -1), MR_E_INVALID);
  CHECK_INT(mr_web_start(w, 100, NULL, -1), MR_E_INVALID);
  CHECK_INT(mr_web_start(w, 200, NULL, -2), MR_E_INVALID);
  lines[0] = "X-Ok: \xc3\xbc\t1";
  lines[1] = NULL;
  CHECK_INT(mr_web_start(w, 200, lines, 4), MR_OK);
  CHECK_INT(mr_web_start(w, 200, lines, 4), MR_E_STATE);
  CHECK_INT(mr_web_write(w, S("12345"), NULL, NULL), MR_E_INVALID);
  CHECK_INT(mr_web_write(w, S("1234"), NULL, NULL), MR_OK);
  CHECK_INT(mr_web_end(&w), MR_OK);
}

static void no_answer(void *ud, struct mr_web *w)
{
  (void)ud;
  CHECK_INT(mr_web_end(&w), MR_OK);
}

static void too_short(void *ud, struct mr_web *w)
{
  (void)ud;
  CHECK_INT(mr_web_start(w, 200, NULL, 100), MR_OK);
  CHECK_INT(mr_web_write(w, S("short"), NULL, NULL), MR_OK);
  CHECK_INT(mr_web_end(&w), MR_OK);
}

static void fails(void *ud, struct mr_web *w)
{
  (void)ud;
  CHECK_INT(mr_web_start(w, 200, NULL, -1), MR_OK);
  CHECK_INT(mr_web_write(w, S("half"), NULL, NULL), MR_OK);
  CHECK_INT(mr_web_fail(&w), MR_OK);
}

static void empty(void *ud, struct mr_web *w)
{
  (void)ud;
  CHECK_INT(mr_web_start(w, 204, NULL, 0), MR_OK);
  CHECK_INT(mr_web_end(&w), MR_OK);
}

TEST(answers)
{
  const char *r;
  begin();
  add("GET", "/x/heads", MR_ROUTE_PUBLIC, bad_heads, NULL, NULL);
  add("GET", "/x/none", MR_ROUTE_PUBLIC, no_answer, NULL, NULL);
  add("GET", "/x/short", MR_ROUTE_PUBLIC, too_short, NULL, NULL);
  add("GET", "/x/fails", MR_ROUTE_PUBLIC, fails, NULL, NULL);
  add("GET", "/x/empty", MR_ROUTE_PUBLIC, empty, NULL, NULL);
  add("GET", "/x/show", MR_ROUTE_PUBLIC, show, NULL, "s");
  r = ask("GET", "/x/heads", "", "");
  CHECK(strstr(r, "200 OK") && strstr(r, "\r\nX-Ok: \xc3\xbc\t1\r\n") && strstr(r, "\r\nrequest-id: req_") && strstr(r, "\r\n\r\n1234"));
  r = ask("GET", "/x/none", "", "");
  CHECK(strstr(r, "500 Internal") && strstr(r, "\"type\":\"api_error\""));
  r = ask("GET", "/x/short", "", "");
  CHECK(strstr(r, "content-length: 100") && strstr(r, "short"));
  r = ask("GET", "/x/fails", "", "");
  CHECK(!strstr(r, "\r\n0\r\n")); /* no proper end */
  r = ask("GET", "/x/empty", "", "");
  CHECK(strstr(r, "204 No Content") && !strstr(r, "content-length"));
  r = ask("HEAD", "/x/show", "", "");
  CHECK(strstr(r, "200 OK") && strstr(r, "content-length: ") && !strstr(r, "<s"));
  end();
}

TEST(a_body_over_the_limit_is_not_collected)
{
  struct mr_route r = {.size = sizeof r, .method = "POST", .path = "/x/b", .flags = MR_ROUTE_PUBLIC, .body_max = 10, .run = show, .ud = "b"};
  begin();
  CHECK_INT(mr_route_add(rt, &r, NULL), MR_OK);
  CHECK(strstr(ask("POST", "/x/b", "", "0123456789"), "b=0123456789>"));
  CHECK(strstr(ask("POST", "/x/b", "", "0123456789a"), "413 Content Too Large"));
  int fd = dial(0);
  put(fd, "POST /x/b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n8\r\n01234567\r\n");
  put(fd, "8\r\n01234567\r\n0\r\n\r\n");
  CHECK(strstr(read_all(fd), "413 Content Too Large"));
  end();
}

/* ---- held requests */

static struct mr_web *held;
static int runs, closings, drains;

static void hold(void *ud, struct mr_web *w)
{
  (void)ud;
  held = w;
  runs++;
}

static void closed(void *ud, struct mr_web *w)
{
  (void)ud;
  CHECK(w == held);
  CHECK_INT(mr_web_closed(w), 1);
  closings++;
}

static void drained(void *ud)
{
  CHECK(ud == &drains);
  drains++;
}

static int held_by(const char *request, int rcvbuf)
{
  int fd = dial(rcvbuf), n = runs;
  put(fd, request);
  UNTIL(rt, runs == n + 1);
  return fd;
}
#define GET "GET /x/h HTTP/1.1\r\nhost: x\r\n\r\n"

static void *answer(void *ud)
{
  struct mr_web *w = ud;
  CHECK_INT(mr_web_start(w, 200, NULL, -1), MR_OK);
  for (int i = 0; i < 1000; i++)
    CHECK_INT(mr_web_write(w, S("0123456789"), NULL, NULL), MR_OK);
  CHECK_INT(mr_web_end(&w), MR_OK);
  return NULL;
}

TEST(answers_from_another_thread)
{
  pthread_t t;
  int fd;
  begin();
  add("GET", "/x/h", MR_ROUTE_PUBLIC, hold, closed, NULL);
  fd = held_by("GET /x/h HTTP/1.0\r\nhost: x\r\n\r\n", 0);
  CHECK_INT(pthread_create(&t, NULL, answer, held), 0);
  CHECK_INT(strlen(strstr(read_all(fd), "\r\n\r\n") + 4), 10000);
  pthread_join(t, NULL);
  CHECK_INT(closings, 0);
  end();
}

static char block[65536];

TEST(a_slow_client_holds_the_writer_back)
{
  size_t took = 0, got = 0;
  ssize_t k;
  int code = MR_OK, fd, turns = 0;
  char in[65536];

  begin();
  memset(block, 'x', sizeof block);
  add("GET", "/x/h", MR_ROUTE_PUBLIC, hold, closed, NULL);
  fd = held_by("GET /x/h HTTP/1.0\r\nhost: x\r\n\r\n", 4096);
  CHECK_INT(mr_web_start(held, 200, NULL, -1), MR_OK);
  while (turns < 20) { /* nobody reads: it must come to a stop, and stay */
    code = mr_web_write(held, (struct mr_str){block, sizeof block}, drained, &drains);
    CHECK(code == MR_OK || code == MR_MORE);
    took += sizeof block;
    CHECK(took < 64u << 20);
    if (code == MR_OK) continue;
    int before = drains;
    for (int i = 0; i < 20 && drains == before; i++)
      host_turn(rt, 5);
    if (drains == before) break;
    turns++;
  }
  CHECK_INT(code, MR_MORE);
  while ((code = mr_web_write(held, (struct mr_str){block, sizeof block}, drained, &drains)) == MR_MORE) { /* does not wait */
    took += sizeof block;
    CHECK(took < 128u << 20);
  }
  CHECK_INT(code, MR_E_FULL);
  int before = drains;
  fcntl(fd, F_SETFL, O_NONBLOCK);
  while (drains == before) {
    while ((k = read(fd, in, sizeof in)) > 0)
      got += (size_t)k;
    host_turn(rt, 5);
  }
  CHECK_INT(drains, before + 1);
  CHECK_INT(mr_web_end(&held), MR_OK);
  fcntl(fd, F_SETFL, 0);
  while ((k = read(fd, in, sizeof in)) > 0)
    got += (size_t)k;
  CHECK(got > took && got < took + 2000); /* the head, and every byte */
  close(fd);
  CHECK_INT(closings, 0);
  end();
}

TEST(a_write_without_drained_leaves_the_one_that_is_due)
{
  ssize_t k;
  int code = MR_OK, before, fd;
  char in[65536];

  begin();
  add("GET", "/x/h", MR_ROUTE_PUBLIC, hold, closed, NULL);
  fd = held_by("GET /x/h HTTP/1.0\r\nhost: x\r\n\r\n", 4096);
  CHECK_INT(mr_web_start(held, 200, NULL, -1), MR_OK);
  for (before = drains; code != MR_E_FULL;) {
    code = mr_web_write(held, (struct mr_str){block, sizeof block}, drained, &drains);
    if (code == MR_MORE) code = mr_web_write(held, S("x"), NULL, NULL);
    CHECK(code == MR_OK || code == MR_MORE || code == MR_E_FULL);
    if (code == MR_MORE) host_turn(rt, 1);
    if (drains != before) break;
  }
  fcntl(fd, F_SETFL, O_NONBLOCK);
  while (drains == before) {
    while ((k = read(fd, in, sizeof in)) > 0)
      continue;
    host_turn(rt, 5);
  }
  CHECK_INT(mr_web_fail(&held), MR_OK);
  close(fd);
  end();
}

TEST(a_client_that_goes_is_told_once)
{
  int fd, code;
  begin();
  add("GET", "/x/h", MR_ROUTE_PUBLIC, hold, closed, NULL);
  fd = held_by(GET, 0);
  CHECK_INT(mr_web_start(held, 200, NULL, -1), MR_OK);
  read_until(fd, "200 OK");
  close(fd);
  UNTIL(rt, closings == 1);
  CHECK_INT(mr_web_write(held, S("x"), drained, &drains), MR_E_CLOSED);
  CHECK_INT(mr_web_end(&held), MR_E_CLOSED);
  fd = held_by(GET, 4096); /* while a drain is due */
  CHECK_INT(mr_web_start(held, 200, NULL, -1), MR_OK);
  while ((code = mr_web_write(held, (struct mr_str){block, sizeof block}, drained, &drains)) == MR_OK)
    continue;
  CHECK_INT(code, MR_MORE);
  struct linger hard = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  close(fd);
  UNTIL(rt, closings == 2 && drains == 1);
  CHECK_INT(mr_web_fail(&held), MR_E_CLOSED);
  fd = held_by(GET, 0); /* ended before: no word of it */
  reply(held, 200, "ok");
  read_until(fd, "ok");
  close(fd);
  for (int i = 0; i < 10; i++)
    host_turn(rt, 2);
  CHECK_INT(closings, 2);
  end();
}

TEST(too_late_is_504)
{
  struct mr_route r = {.size = sizeof r, .path = "/x/h", .flags = MR_ROUTE_PUBLIC, .timeout_ms = 30, .run = hold, .closed = closed};
  int fd;
  begin();
  CHECK_INT(mr_route_add(rt, &r, NULL), MR_OK);
  fd = held_by("GET /x/h HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 0);
  UNTIL(rt, closings == 1);
  CHECK_INT(mr_web_start(held, 200, NULL, -1), MR_E_CLOSED);
  CHECK_INT(mr_web_end(&held), MR_E_CLOSED);
  const char *out = read_all(fd);
  CHECK(strstr(out, "504 Gateway Timeout") && strstr(out, "\"type\":\"error\""));
  end();
}

TEST(one_connection_serves_many)
{
  int fd;
  begin();
  add("GET", "/x/show/{id}", MR_ROUTE_PUBLIC, show, NULL, "s");
  fd = dial(0);
  put(fd, "GET /x/show/1 HTTP/1.1\r\nhost: x\r\n\r\nGET /x/show/2 HTTP/1.1\r\nhost: x\r\n\r\n"
          "GET /x/show/3 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
  const char *out = read_all(fd), *one = strstr(out, "id=1"), *two = strstr(out, "id=2"), *three = strstr(out, "id=3");
  CHECK(one && two && three && one < two && two < three);
  end();
}

TEST(a_stop_waits_for_answers_and_ends_event_streams)
{
  static const char *const events[] = {"content-type: text/event-stream; charset=utf-8", NULL};
  struct mr_web *stream, *plain;
  int a, b;
  begin();
  add("GET", "/x/h", MR_ROUTE_PUBLIC, hold, closed, NULL);
  a = held_by(GET, 0);
  stream = held;
  CHECK_INT(mr_web_start(stream, 200, events, -1), MR_OK);
  CHECK_INT(mr_web_write(stream, S("data: 1\n\n"), NULL, NULL), MR_OK);
  read_until(a, "data: 1");
  b = held_by(GET, 0);
  plain = held;
  held = stream;
  CHECK_INT(mr_stop(rt, 60000), MR_OK);
  UNTIL(rt, closings == 1);
  CHECK_INT(mr_web_end(&stream), MR_E_CLOSED);
  CHECK(strstr(read_all(a), "0\r\n\r\n"));
  CHECK_INT(mr_stopped(rt), 0);
  reply(plain, 200, "in time");
  CHECK(strstr(read_all(b), "in time"));
  UNTIL(rt, mr_stopped(rt));
  end();
}

static void at_once(void *ud, struct mr_web *w)
{
  (void)ud;
  mr_web_end(&w);
}

TEST(closing_tells_what_is_held_and_later_answers_are_harmless)
{
  int a, b;
  begin();
  add("GET", "/x/h", MR_ROUTE_PUBLIC, hold, closed, NULL);
  add("GET", "/x/o", MR_ROUTE_PUBLIC, at_once, NULL, NULL);
  a = held_by(GET, 0);
  b = dial(0);
  put(b, "GET /x/o HTTP/1.1\r\nhost: x\r\n\r\n"); /* may still be in the queue */
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(closings, 1);
  CHECK_INT(mr_web_start(held, 200, NULL, -1), MR_E_CLOSED);
  CHECK_INT(mr_web_end(&held), MR_E_CLOSED);
  close(a);
  close(b);
  CHECK_INT(test_allocs(), 0);
}

static void tolerant(void *ud, struct mr_web *w)
{
  static const char *const head[] = {"content-type: text/plain", NULL};
  bool stream = mr_web_param(w, "id").n == 1;
  (void)ud;
  mr_web_start(w, 200, head, stream ? -1 : 10);
  mr_web_write(w, S("0123456789"), NULL, NULL);
  mr_web_end(&w);
}

/* With the n-th allocation and all later ones failing: whatever the client gets then, the next request works. */
TEST(requests_without_memory)
{
  struct mr_route r = {.size = sizeof r, .method = "POST", .path = "/x/m/{id}", .flags = MR_ROUTE_PUBLIC, .timeout_ms = 500, .run = tolerant};
  int whole = 0, n = 0;
  begin();
  for (; n < 150 && whole < 6; n++) {
    int code, fd = dial(0);
    test_fail_after(n);
    code = mr_route_add(rt, &r, NULL);
    put(fd, n % 2 ? "POST /x/m/1?a=%41 HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\n12345"
                  : "POST /x/m/12 HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n");
    for (int i = 0; i < 10; i++)
      host_turn(rt, 1);
    test_fail_after(-1);
    whole += strstr(read_all(fd), "0123456789") && code == MR_OK;
    CHECK_INT(mr_route_add(rt, &r, NULL), MR_OK);
    CHECK(strstr(ask("POST", "/x/m/1", "", "x"), "0123456789"));
  }
  CHECK(whole == 6 && n > 15);
  end();
}
