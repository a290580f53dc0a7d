/* Services for bindings: JSON, timers, posts, files, watches, HTTP, the control channel's numbers. */
#include "host_kit.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>

static struct mr_doc *parse(struct mr_runtime *rt, const char *text)
{
  struct mr_doc *d = NULL;
  struct mr_err err = {.size = sizeof err};
  if (X()->parse(rt, mr_str_c(text), &d, &err) != MR_OK)
    test_fail(__FILE__, __LINE__, "%s: %s", text, err.message);
  return d;
}

TEST(values_are_read_in_place)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_doc *d = parse(rt, "{\"n\":null,\"t\":true,\"i\":-9007199254740993,\"u\":18446744073709551615,\"r\":1.5,"
                               "\"s\":\"a\\u0000b\",\"a\":[1,[],\"x\"],\"o\":{}}");
  const struct mr_val *v = X()->doc_root(d);
  struct mr_iter it = {.of = v};
  char keys[20] = "";

  CHECK_INT(X()->kind(v), MR_K_OBJ);
  CHECK_INT(X()->len(v), 8);
  CHECK_INT(X()->kind(X()->get(v, S("n"))), MR_K_NULL);
  CHECK_INT(X()->as_bool(X()->get(v, S("t"))), 1);
  CHECK_INT(X()->kind(X()->get(v, S("i"))), MR_K_INT);
  CHECK_INT(X()->as_int(X()->get(v, S("i"))), -9007199254740993LL);
  CHECK_INT(X()->kind(X()->get(v, S("u"))), MR_K_UINT);
  CHECK(X()->as_uint(X()->get(v, S("u"))) == UINT64_MAX);
  CHECK_INT(X()->kind(X()->get(v, S("r"))), MR_K_REAL);
  CHECK(X()->as_real(X()->get(v, S("i"))) < -9e15);
  CHECK_INT(X()->as_str(X()->get(v, S("s"))).n, 3);
  CHECK_INT(X()->kind(X()->get(v, S("none"))), MR_K_NONE);
  CHECK_INT(X()->kind(NULL), MR_K_NONE);
  CHECK_INT(X()->len(NULL), 0);
  while (X()->next(&it))
    snprintf(keys + strlen(keys), sizeof keys - strlen(keys), "%.*s", (int)it.key.n, it.key.p);
  CHECK_STR(mr_str_c(keys), "ntiursao");
  it = (struct mr_iter){.of = X()->get(v, S("a"))};
  CHECK(X()->next(&it) && X()->as_int(it.val) == 1 && it.key.p == NULL);
  CHECK(X()->next(&it) && X()->len(it.val) == 0);
  CHECK(X()->next(&it) && X()->kind(it.val) == MR_K_STR);
  CHECK(!X()->next(&it));
  it = (struct mr_iter){.of = X()->get(v, S("o"))};
  CHECK(!X()->next(&it));
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(X()->as_int(X()->get(v, S("i"))), -9007199254740993LL); /* documents outlive the runtime */
  X()->doc_free(d);
  X()->doc_free(NULL);
  CHECK_INT(test_allocs(), 0);
}

TEST(text_is_written_plain_sorted_and_pretty)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_doc *d = parse(rt, "{\"b\":[1,{\"z\":2.5,\"y\":\"\\u00e9\"}],\"a\":{},\"c\":[]}");
  const struct mr_val *v = X()->doc_root(d);
  char *text;
  size_t n;

  CHECK_INT(X()->write(rt, v, 0, &text, &n), MR_OK);
  CHECK_STR(mr_str_n(text, n), "{\"b\":[1,{\"z\":2.5,\"y\":\"\xc3\xa9\"}],\"a\":{},\"c\":[]}");
  mr_free(rt, text);
  CHECK_INT(X()->write(rt, v, MR_JSON_SORTED, &text, &n), MR_OK);
  CHECK_STR(mr_str_c(text), "{\"a\":{},\"b\":[1,{\"y\":\"\xc3\xa9\",\"z\":2.5}],\"c\":[]}");
  mr_free(rt, text);
  CHECK_INT(X()->write(rt, v, MR_JSON_SORTED | MR_JSON_PRETTY, &text, &n), MR_OK);
  CHECK_STR(mr_str_c(text), "{\n  \"a\": {},\n  \"b\": [\n    1,\n    {\n      \"y\": \"\xc3\xa9\",\n      \"z\": 2.5\n    }\n  ],\n  \"c\": []\n}");
  mr_free(rt, text);
  CHECK_INT(X()->write(rt, NULL, 0, &text, &n), MR_E_INVALID);
  X()->doc_free(d);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

static int build_code(struct mr_runtime *rt, void (*fill)(struct mr_build *b), char *text, size_t n)
{
  struct mr_build *b = X()->build(rt);
  struct mr_doc *d = NULL;
  struct mr_err err = {.size = sizeof err};
  char *out = NULL;
  int code;

  fill(b);
  code = X()->build_done(&b, &d, &err);
  CHECK(b == NULL);
  CHECK((code == MR_OK) == (d != NULL));
  if (code == MR_OK && X()->write(rt, X()->doc_root(d), 0, &out, NULL) == MR_OK)
    snprintf(text, n, "%s", out);
  else
    snprintf(text, n, "%s", err.message);
  mr_free(rt, out);
  X()->doc_free(d);
  return code;
}

static void fill_good(struct mr_build *b)
{
  const struct mr_ext *x = X();
  x->b_open(b, 0);
  x->b_key(b, S("z")), x->b_int(b, INT64_MIN);
  x->b_key(b, S("a")), x->b_open(b, 1);
  x->b_null(b), x->b_bool(b, 5), x->b_real(b, 0.1), x->b_str(b, S("x\"y")), x->b_str(b, mr_str_n(NULL, 0));
  x->b_open(b, 0), x->b_close(b);
  x->b_close(b);
  x->b_close(b);
}
static void fill_nan(struct mr_build *b) { X()->b_real(b, 0.0 / 0.0); }
static void fill_utf8(struct mr_build *b) { X()->b_str(b, S("\xff")); }
static void fill_open(struct mr_build *b) { X()->b_open(b, 1); }
static void fill_empty(struct mr_build *b) { (void)b; }
static void fill_two(struct mr_build *b) { X()->b_null(b), X()->b_null(b); }
static void fill_keyless(struct mr_build *b) { X()->b_open(b, 0), X()->b_int(b, 1), X()->b_close(b); }
static void fill_valueless(struct mr_build *b) { X()->b_open(b, 0), X()->b_key(b, S("k")), X()->b_close(b); }
static void fill_close(struct mr_build *b) { X()->b_null(b), X()->b_close(b); }
static void fill_deep(struct mr_build *b)
{
  for (int i = 0; i < 600; i++)
    X()->b_open(b, 1);
  for (int i = 0; i < 600; i++)
    X()->b_close(b);
}

TEST(documents_are_built_value_by_value)
{
  static const struct { void (*fill)(struct mr_build *b); const char *why; } bad[] = {
      {fill_nan, "finite"}, {fill_utf8, "UTF-8"}, {fill_open, "open"}, {fill_empty, "empty"}, {fill_two, "one value"},
      {fill_keyless, "needs a key"}, {fill_valueless, "no value"}, {fill_close, "nothing is open"}, {fill_deep, "512"}};
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_build *b = X()->build(rt);
  char text[500];

  X()->b_open(b, 1);
  X()->build_drop(&b);
  CHECK(b == NULL);
  X()->build_drop(&b);
  CHECK_INT(build_code(rt, fill_good, text, sizeof text), MR_OK);
  CHECK_STR(mr_str_c(text), "{\"z\":-9223372036854775808,\"a\":[null,true,0.1,\"x\\\"y\",\"\",{}]}");
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK_INT(build_code(rt, bad[i].fill, text, sizeof text), MR_E_INVALID);
    if (!strstr(text, bad[i].why))
      test_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", text, bad[i].why);
  }
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(calls_take_built_documents)
{
  static struct host h;
  static struct got g;
  struct mr_req req = {.size = sizeof req, .op = "agents.create"};
  struct mr_doc *d;

  h.rt = host_open(":memory:");
  d = parse(h.rt, "{\"name\":\"built\",\"model\":\"test\"}");
  CHECK_INT(X()->call(h.rt, &req, &d, &got_cbs, &g, NULL, &h.err), MR_OK);
  CHECK(d == NULL);
  UNTIL(h.rt, g.replies);
  CHECK_STR(mr_str_c(pick(g.json, "/name")), "built");
  req.op = "nothing";
  d = parse(h.rt, "{}");
  CHECK_INT(X()->call(h.rt, &req, &d, &got_cbs, &g, NULL, &h.err), MR_E_INVALID);
  CHECK(d == NULL);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(operations_are_listed)
{
  const char *verb, *path, *name;
  unsigned flags, seen = 0;
  int n = 0;

  for (; (name = X()->op_at(n, &verb, &path, &flags)); n++) {
    CHECK(path[0] == '/');
    seen += strcmp(name, "sessions.events.stream") == 0 && flags == MR_OPF_STREAM;
    seen += strcmp(name, "files.upload") == 0 && flags == MR_OPF_BODY_IN;
    seen += strcmp(name, "files.download") == 0 && flags == MR_OPF_BODY_OUT;
    seen += strcmp(name, "agents.list") == 0 && flags == MR_OPF_LIST;
    seen += strcmp(name, "deployments.create") == 0 && flags == MR_OPF_TODO;
  }
  CHECK_INT(seen, 5);
  CHECK(n > 80);
}

/* ---- time ---- */

static char order[100];
static void note(void *ud)
{
  size_t n = strlen(order);
  snprintf(order + n, sizeof order - n, "%s", (const char *)ud);
}

TEST(timers_fire_in_order_and_can_be_taken_back)
{
  struct mr_runtime *rt = host_open(":memory:");
  uint64_t a, b, c, d;

  CHECK_INT(X()->timer(rt, 30000, note, "c", &c), MR_OK);
  CHECK_INT(X()->timer(rt, 10000, note, "a", &a), MR_OK);
  CHECK_INT(X()->timer(rt, 20000, note, "b", &b), MR_OK);
  CHECK_INT(X()->timer(rt, 15000, note, "x", &d), MR_OK);
  CHECK_INT(X()->timer_cancel(rt, d), 1);
  CHECK_INT(X()->timer_cancel(rt, d), 0);
  UNTIL(rt, strlen(order) == 3);
  CHECK_STR(mr_str_c(order), "abc");
  CHECK_INT(X()->timer_cancel(rt, a), 0);
  CHECK_INT(X()->timer(rt, 0, note, "y", &d), MR_OK); /* fired, but not run yet: still ours to take back */
  CHECK_INT(mr_wait(rt, 5000), MR_OK);
  CHECK_INT(X()->timer_cancel(rt, d), 1);
  mr_dispatch(rt, 0, 0);
  CHECK_STR(mr_str_c(order), "abc");
  CHECK_INT(X()->timer(rt, 3600 * 1000000LL, note, "z", NULL), MR_OK);
  CHECK_INT(X()->timer(rt, 0, note, "z", NULL), MR_OK);
  CHECK_INT(mr_close(&rt), MR_OK); /* never fires any more */
  CHECK(!strchr(order, 'z') || strlen(order) == 4);
  CHECK_INT(test_allocs(), 0);
}

static atomic_int fired;
static void count(void *ud)
{
  (void)ud;
  atomic_fetch_add(&fired, 1);
}

static void *timers_elsewhere(void *arg)
{
  struct mr_runtime *rt = arg;
  long taken = 0;
  uint64_t id;
  for (int i = 0; i < 500; i++) {
    CHECK_INT(X()->timer(rt, i % 7 * 100, count, NULL, &id), MR_OK);
    if (i % 3)
      taken += X()->timer_cancel(rt, id);
    CHECK_INT(X()->post(rt, count, NULL), MR_OK);
  }
  return (void *)taken;
}

TEST(timers_from_many_threads)
{
  struct mr_runtime *rt = host_open(":memory:");
  pthread_t t[3];
  long taken = 0;
  void *n;

  for (int i = 0; i < 3; i++)
    CHECK_INT(pthread_create(&t[i], NULL, timers_elsewhere, rt), 0);
  for (int i = 0; i < 20; i++)
    host_turn(rt, 5);
  for (int i = 0; i < 3; i++) {
    pthread_join(t[i], &n);
    taken += (long)n;
  }
  UNTIL(rt, atomic_load(&fired) == 3000 - taken); /* each either fired or was taken back, never both */
  host_turn(rt, 20);
  CHECK_INT(atomic_load(&fired), 3000 - taken);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

/* ---- files ---- */

static struct { int n, code; char json[2000], raw[2000]; size_t raw_n; struct mr_err err; } file;
static void on_file(void *ud, const struct mr_reply *r, struct mr_str raw)
{
  char *text = NULL;
  file.n++;
  file.code = r->code;
  if (r->err)
    file.err = *r->err;
  file.raw_n = raw.n;
  snprintf(file.raw, sizeof file.raw, "%.*s", (int)raw.n, raw.p ? raw.p : "");
  file.json[0] = '\0';
  if (r->val && X()->write(ud, r->val, 0, &text, NULL) == MR_OK)
    snprintf(file.json, sizeof file.json, "%s", text);
  mr_free(ud, text);
}

static int file_op(struct mr_runtime *rt, const char *op, const char *name, struct mr_str arg)
{
  char path[600];
  snprintf(path, sizeof path, "%s/%s", test_dir(), name);
  file.n = 0;
  CHECK_INT(X()->file(rt, op, path, arg, on_file, rt, &file.err), MR_OK);
  CHECK_INT(file.n, 0);
  UNTIL(rt, file.n);
  return file.code;
}

TEST(files_are_read_and_written)
{
  struct mr_runtime *rt = host_open(":memory:");
  const struct mr_str none = {NULL, 0};
  char to[600];
  struct stat st;

  CHECK_INT(file_op(rt, "mkdir", "a/b/c", none), MR_OK);
  CHECK_INT(file_op(rt, "mkdir", "a/b/c", none), MR_OK);
  CHECK_INT(file_op(rt, "write", "a/b/c/f", S("one")), MR_OK);
  CHECK_INT(file_op(rt, "append", "a/b/c/f", S("two")), MR_OK);
  CHECK_INT(file_op(rt, "read", "a/b/c/f", none), MR_OK);
  CHECK_STR(mr_str_c(file.raw), "onetwo");
  CHECK_STR(mr_str_c(file.json), "\"onetwo\"");
  snprintf(to, sizeof to, "%s/a/b/c/f", test_dir());
  CHECK_INT(chmod(to, 0600), 0);
  CHECK_INT(file_op(rt, "write", "a/b/c/f", S("\x00\xff")), MR_OK); /* replaced whole, mode kept */
  CHECK(stat(to, &st) == 0 && (st.st_mode & 0777) == 0600);
  CHECK_INT(file_op(rt, "read", "a/b/c/f", none), MR_OK);
  CHECK_STR(mr_str_c(file.json), "{\"base64\":\"AP8=\"}");
  CHECK_INT(file.raw_n, 2);
  CHECK_INT(file_op(rt, "stat", "a/b/c/f", none), MR_OK);
  CHECK_STR(mr_str_c(pick(file.json, "/name")), "f");
  CHECK_STR(mr_str_c(pick(file.json, "/type")), "file");
  CHECK_STR(mr_str_c(pick(file.json, "/size")), "2");
  CHECK_INT(file_op(rt, "write", "a/b/c/e", none), MR_OK);
  CHECK_INT(file_op(rt, "list", "a/b/c", none), MR_OK);
  CHECK_STR(mr_str_c(pick(file.json, "/0/name")), "e");
  CHECK_STR(mr_str_c(pick(file.json, "/1/name")), "f");
  CHECK_STR(mr_str_c(pick(file.json, "/2")), "(absent)");
  snprintf(to, sizeof to, "%s/a/g", test_dir());
  CHECK_INT(file_op(rt, "rename", "a/b/c/f", mr_str_c(to)), MR_OK);
  CHECK_INT(file_op(rt, "read", "a/b/c/f", none), MR_E_NOTFOUND);
  CHECK(strstr(file.err.message, "no such file"));
  CHECK_INT(file_op(rt, "read", "a/b", none), MR_E_INVALID);
  CHECK_INT(file_op(rt, "write", "a/b", S("x")), MR_E_INVALID);
  CHECK(file_op(rt, "remove", "a/b", none) < 0);
  CHECK_INT(file_op(rt, "remove", "a/b/c/e", none), MR_OK);
  CHECK_INT(file_op(rt, "remove", "a/b/c", none), MR_OK);
  CHECK_INT(file_op(rt, "list", "a/b/c", none), MR_E_NOTFOUND);
  CHECK_INT(file_op(rt, "mkdir", "a/g/h", none), MR_E_NOTFOUND); /* g is a file */
  CHECK_INT(X()->file(rt, "chmod", "x", none, on_file, rt, &file.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(file.err.field), "op");
  CHECK_INT(X()->file(rt, "read", "", none, on_file, rt, &file.err), MR_E_INVALID);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(close_with_files_under_way)
{
  for (int i = 0; i < 10; i++) {
    struct mr_runtime *rt = host_open(":memory:");
    char path[600];
    file.n = 0;
    for (int k = 0; k < 20; k++) {
      snprintf(path, sizeof path, "%s/f%d", test_dir(), k);
      CHECK_INT(X()->file(rt, "write", path, S("text"), on_file, rt, NULL), MR_OK);
    }
    CHECK_INT(mr_close(&rt), MR_OK);
    CHECK_INT(file.n, 20);
    CHECK_INT(test_allocs(), 0);
  }
}

/* ---- watches ---- */

static struct { int n; char path[600]; } seen;
static void on_change(void *ud, struct mr_str path)
{
  (void)ud;
  seen.n++;
  snprintf(seen.path, sizeof seen.path, "%.*s", (int)path.n, path.p);
}

static void put(const char *name, const char *text)
{
  char path[600], temp[620];
  FILE *f;
  snprintf(path, sizeof path, "%s/%s", test_dir(), name);
  snprintf(temp, sizeof temp, "%s~", path);
  f = fopen(temp, "we");
  fputs(text, f);
  fclose(f);
  CHECK_INT(rename(temp, path), 0); /* as editors do */
}

TEST(changes_are_seen_after_a_quiet_moment)
{
  struct mr_runtime *rt = host_open(":memory:");
  char path[600];
  uint64_t dir, one, one_more;
  struct mr_err err = {.size = sizeof err};

  put("kept", "1");
  put("other", "1");
  snprintf(path, sizeof path, "%s/kept", test_dir());
  CHECK_INT(X()->watch(rt, path, on_change, NULL, &one, &err), MR_OK);
  for (int i = 0; i < 3; i++) { /* replaced three times: a watch of the first file would be blind */
    seen.n = 0;
    put("kept", "2");
    UNTIL(rt, seen.n);
    CHECK_STR(mr_str_c(seen.path), path);
  }
  seen.n = 0;
  put("other", "2");
  host_turn(rt, 60);
  host_turn(rt, 60);
  CHECK_INT(seen.n, 0);
  CHECK_INT(X()->watch(rt, test_dir(), on_change, NULL, &dir, &err), MR_OK);
  for (int i = 0; i < 50; i++)
    put("other", "3"); /* many changes, few calls */
  UNTIL(rt, seen.n);
  host_turn(rt, 60);
  CHECK(seen.n < 10);
  X()->watch_cancel(rt, dir);
  X()->watch_cancel(rt, dir);
  seen.n = 0;
  put("other", "4");
  host_turn(rt, 60);
  CHECK_INT(seen.n, 0);
  put("kept", "5"); /* the other watch of the same directory lives on */
  UNTIL(rt, seen.n);
  X()->watch_cancel(rt, one);
  CHECK(X()->watch(rt, "/nowhere/at/all", on_change, NULL, &one_more, &err) < 0);
  snprintf(path, sizeof path, "%s/not-yet", test_dir());
  CHECK_INT(X()->watch(rt, path, on_change, NULL, &one_more, &err), MR_OK);
  seen.n = 0;
  put("not-yet", "1");
  UNTIL(rt, seen.n);
  put("not-yet", "2"); /* and close in the middle */
  usleep(25000);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

/* ---- HTTP: a server of a few lines, for one connection at a time ---- */

struct server { int fd, port; pthread_t t; const char *reply; size_t n; atomic_int served; char request[4096]; bool stall; };

static void *serve(void *arg)
{
  struct server *s = arg;
  int fd;
  while ((fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
    ssize_t n;
    size_t at = 0;
    memset(s->request, 0, sizeof s->request);
    while ((n = read(fd, s->request + at, sizeof s->request - 1 - at)) > 0) { /* the head, and what was posted */
      at += (size_t)n;
      if (strstr(s->request, "\r\n\r\n") && (s->request[0] != 'P' || strstr(s->request, "\r\n\r\nposted")))
        break;
    }
    at = 0;
    atomic_fetch_add(&s->served, 1);
    while (!s->stall && at < s->n && (n = send(fd, s->reply + at, s->n - at, MSG_NOSIGNAL)) > 0)
      at += (size_t)n;
    if (s->stall)
      while (read(fd, s->request, sizeof s->request) > 0)
        continue;
    close(fd);
  }
  return NULL;
}

static void server_start(struct server *s, const char *reply, size_t n)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof a;
  s->reply = reply;
  s->n = n ? n : strlen(reply);
  s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK_INT(bind(s->fd, (struct sockaddr *)&a, sizeof a), 0);
  CHECK_INT(listen(s->fd, 10), 0);
  CHECK_INT(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
  s->port = ntohs(a.sin_port);
  CHECK_INT(pthread_create(&s->t, NULL, serve, s), 0);
}

static void server_stop(struct server *s)
{
  shutdown(s->fd, SHUT_RDWR);
  pthread_join(s->t, NULL);
  close(s->fd);
}

struct response { int n, code, status, chunks; char headers[1000], body[2000]; size_t bytes; struct mr_err err; };
static void on_chunk(void *ud, struct mr_str data)
{
  struct response *r = ud;
  CHECK_INT(r->n, 0);
  r->chunks++;
  r->bytes += data.n;
}
static void on_done(void *ud, const struct mr_ext_http_reply *p)
{
  struct response *r = ud;
  r->n++;
  r->code = p->code;
  r->status = p->status;
  snprintf(r->headers, sizeof r->headers, "%.*s", (int)p->headers.n, p->headers.p ? p->headers.p : "");
  snprintf(r->body, sizeof r->body, "%.*s", (int)p->body.n, p->body.p ? p->body.p : "");
  if (p->err)
    r->err = *p->err;
}

static int fetch(struct mr_runtime *rt, struct server *s, struct mr_ext_http_req *q, bool chunks, struct response *r,
                 uint64_t *id)
{
  static char url[100];
  struct mr_ext_http_cbs cbs = {.size = sizeof cbs, .chunk = chunks ? on_chunk : NULL, .done = on_done};
  snprintf(url, sizeof url, "http://127.0.0.1:%d/path?x=1", s->port);
  q->size = sizeof *q;
  q->url = url;
  memset(r, 0, sizeof *r);
  return X()->http(rt, q, &cbs, r, id, &r->err);
}

#define HEAD "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nX-Thing: one\r\nconnection: close\r\n\r\n"

TEST(http_requests)
{
  static struct server s;
  static struct response r;
  struct mr_runtime *rt = host_open(":memory:");
  const char *headers[] = {"accept: nothing", NULL}, *broken[] = {"a: b\r\nevil: yes", NULL};
  struct mr_ext_http_req q = {.method = "POST", .headers = headers, .body = S("posted")};
  uint64_t id;

  server_start(&s, HEAD "hello", 0);
  CHECK_INT(fetch(rt, &s, &q, false, &r, &id), MR_OK);
  UNTIL(rt, r.n);
  CHECK_INT(r.code, MR_OK);
  CHECK_INT(r.status, 200);
  CHECK_STR(mr_str_c(r.body), "hello");
  CHECK(strstr(r.headers, "x-thing: one\n"));
  CHECK(strstr(s.request, "POST /path?x=1") && strstr(s.request, "accept: nothing") && strstr(s.request, "\r\n\r\nposted"));
  q = (struct mr_ext_http_req){.max_body = 3};
  CHECK_INT(fetch(rt, &s, &q, false, &r, &id), MR_OK);
  UNTIL(rt, r.n);
  CHECK_INT(r.code, MR_E_TOO_LARGE);
  q.max_body = 0;
  q.headers = broken;
  CHECK_INT(fetch(rt, &s, &q, false, &r, &id), MR_E_INVALID);
  CHECK_STR(mr_str_c(r.err.field), "headers");
  q.headers = NULL;
  q.follow = 99;
  CHECK_INT(fetch(rt, &s, &q, false, &r, &id), MR_E_INVALID);
  q.follow = 0;
  q.guard = 1; /* this address is not listed */
  CHECK_INT(fetch(rt, &s, &q, false, &r, &id), MR_OK);
  UNTIL(rt, r.n);
  CHECK_INT(r.code, MR_E_DENIED);
  CHECK(strstr(r.err.message, "loopback"));
  q.guard = 0;
  server_stop(&s);
  CHECK_INT(fetch(rt, &s, &q, false, &r, &id), MR_OK); /* nobody there any more */
  UNTIL(rt, r.n);
  CHECK_INT(r.code, MR_E_IO);
  X()->http_cancel(rt, id); /* over: harmless */
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(http_that_takes_too_long_or_is_not_wanted)
{
  static struct server s = {.stall = true};
  static struct response r;
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_http_req q = {.timeout_ms = 80};
  uint64_t id;

  server_start(&s, "", 0);
  CHECK_INT(fetch(rt, &s, &q, false, &r, &id), MR_OK);
  UNTIL(rt, r.n);
  CHECK_INT(r.code, MR_E_TIMEOUT);
  q.timeout_ms = 0;
  CHECK_INT(fetch(rt, &s, &q, false, &r, &id), MR_OK);
  UNTIL(rt, atomic_load(&s.served) == 2);
  X()->http_cancel(rt, id);
  X()->http_cancel(rt, id);
  UNTIL(rt, r.n);
  CHECK_INT(r.code, MR_E_CANCELLED);
  CHECK_INT(fetch(rt, &s, &q, false, &r, &id), MR_OK);
  UNTIL(rt, atomic_load(&s.served) == 3);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(r.n, 1);
  CHECK_INT(r.code, MR_E_CLOSED);
  server_stop(&s);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_streamed_body_waits_for_the_host)
{
  enum { SIZE = 30 << 20 };
  static struct server s;
  static struct response r;
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_ext_http_req q = {0};
  char *big = malloc(SIZE);
  uint64_t id;
  long before;

  memset(big, 'x', SIZE);
  memcpy(big, HEAD, sizeof HEAD - 1);
  server_start(&s, big, SIZE);
  before = test_allocs();
  CHECK_INT(fetch(rt, &s, &q, true, &r, &id), MR_OK);
  usleep(300000);
  CHECK(test_allocs() < before + 200); /* a few pieces wait, not all of them */
  UNTIL(rt, r.n);
  CHECK_INT(r.code, MR_OK);
  CHECK_INT(r.bytes, SIZE - (sizeof HEAD - 1));
  CHECK(r.chunks > 10);
  CHECK_INT(mr_close(&rt), MR_OK);
  server_stop(&s);
  free(big);
  CHECK_INT(test_allocs(), 0);
}
