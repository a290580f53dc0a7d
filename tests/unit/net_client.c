/* The HTTP client, against a server of this room on the same loop. */
#include "net_kit.h"
#include "net/http_client.h"

static struct mr_http_client *client;
static struct mr_http_server *origin;
static char base[256];

/* What one request brought. */
struct fetch {
  struct mr_http_out *out;
  int heads, status, done, code, done_status;
  struct mr_buf headers, body;
  int got;
  bool pause; /* at the first byte */
};

static struct mr_http_x *open_answer; /* of /open: begun, not ended */
static int64_t swallowed, may_swallow;  /* of /swallow: bytes of the body so far, and before it pauses */
static struct mr_http_x *swallower;

static int on_swallow(void *ud, struct mr_http_x *x, struct mr_str bytes, bool last)
{
  (void)ud;
  swallowed += (int64_t)bytes.n;
  if (last) mr_http_reply(x, 200, NULL, 0, MR_S("thanks"));
  return !last && swallowed >= may_swallow ? MR_MORE : MR_OK;
}

static void on_origin(void *ud, struct mr_http_x *x)
{
  struct mr_str path = mr_http_path(x), h[2];

  (void)ud;
  if (mr_str_is(path, "/moved")) {
    h[0] = MR_S("location: /there");
    h[1] = MR_S("x-hop: first");
    mr_http_reply(x, 302, h, 2, MR_S("it is elsewhere"));
  } else if (mr_str_is(path, "/loop")) {
    h[0] = MR_S("location: /loop");
    mr_http_reply(x, 302, h, 1, MR_S("again"));
  } else if (mr_str_is(path, "/open")) {
    open_answer = x;
    mr_http_begin(x, 200, NULL, 0, -1);
    mr_http_write(x, MR_S("a"));
  } else if (mr_str_is(path, "/swallow")) {
    swallower = x;
    mr_http_set(x, &(struct mr_http_x_cbs){.body = on_swallow}, NULL);
    mr_http_body(x, INT64_MAX);
  } else {
    h[0] = MR_S("x-hop: last");
    h[1] = MR_S("content-type: text/plain");
    mr_http_reply(x, 200, h, 2, mr_http_method(x));
  }
}

static void on_head(void *ud, struct mr_http_out *r, int status, struct mr_str headers)
{
  struct fetch *f = ud;
  (void)r;
  f->heads++;
  f->status = status;
  mr_buf_reset(&f->headers);
  mr_buf_str(&f->headers, headers);
}

static int on_bytes(void *ud, struct mr_http_out *r, struct mr_str bytes)
{
  struct fetch *f = ud;
  mr_buf_str(&f->body, bytes);
  f->got = (int)f->body.n;
  if (f->pause) mr_http_out_pause(r, true);
  return MR_OK;
}

static void on_over(void *ud, struct mr_http_out *r, const struct mr_http_out_done *d)
{
  struct fetch *f = ud;
  (void)r;
  f->out = NULL;
  f->done++;
  f->code = d->code;
  f->done_status = d->status;
}

static const struct mr_http_out_cbs fetch_cbs = {on_head, on_bytes, on_over};

static void begin(void)
{
  struct mr_http_server_opts o = {.on_request = on_origin};
  struct mr_http_listen l = {.address = "127.0.0.1:0"};
  struct mr_err err = {0};

  CHECK_INT(mr_loop_new(&loop, test_sys(), NULL, &err), MR_OK);
  mr_loop_enter(loop);
  CHECK_INT(mr_http_server_new(&origin, loop, &o, &err), MR_OK);
  CHECK_INT(mr_http_server_listen(origin, &l, base, sizeof base, &err), MR_OK);
  CHECK_INT(mr_http_client_new(&client, loop, NULL, &err), MR_OK);
}

static void end(struct fetch *f)
{
  mr_http_client_free(&client);
  mr_http_server_free(&origin);
  mr_loop_free(&loop);
  mr_buf_free(&f->headers);
  mr_buf_free(&f->body);
  CHECK_INT(test_allocs(), 0);
}

static void fetch(struct fetch *f, struct mr_http_out_req q, const char *path)
{
  char at[400];
  struct mr_err err = {0};

  snprintf(at, sizeof at, "%s%s", base, path);
  q.url = at;
  q.method = q.method ? q.method : "GET";
  mr_buf_init(&f->headers, &test_sys()->mem, 1 << 16);
  mr_buf_init(&f->body, &test_sys()->mem, 1 << 24);
  CHECK_INT(mr_http_out_start(client, &q, &fetch_cbs, f, &f->out, &err), MR_OK);
}

TEST(redirects_are_told_only_when_not_followed)
{
  struct fetch f = {0}, g = {0};

  begin();
  fetch(&f, (struct mr_http_out_req){.follow = 0}, "/moved");
  CHECK(until(&f.done, 1));
  CHECK_INT(f.code, MR_OK);
  CHECK_INT(f.status, 302);
  CHECK_STR(mr_http_header(mr_buf_get(&f.headers), "x-hop"), "first");
  CHECK_STR(mr_buf_get(&f.body), "it is elsewhere");

  fetch(&g, (struct mr_http_out_req){.follow = 3}, "/moved");
  CHECK(until(&g.done, 1));
  CHECK_INT(g.code, MR_OK);
  CHECK_INT(g.heads, 1);
  CHECK_INT(g.status, 200);
  CHECK_INT(g.done_status, 200);
  CHECK_STR(mr_http_header(mr_buf_get(&g.headers), "x-hop"), "last");
  CHECK_STR(mr_buf_get(&g.body), "GET");
  mr_buf_free(&g.headers);
  mr_buf_free(&g.body);
  end(&f);
}

TEST(redirects_without_end)
{
  struct fetch f = {0};

  begin();
  fetch(&f, (struct mr_http_out_req){.follow = 3}, "/loop");
  CHECK(until(&f.done, 1));
  CHECK_INT(f.code, MR_E_IO);
  CHECK_INT(f.body.n, 0);
  end(&f);
}

TEST(a_redirected_post_becomes_a_get)
{
  struct fetch f = {0};
  struct mr_str body = MR_S("a=1");

  begin();
  fetch(&f, (struct mr_http_out_req){.method = "POST", .follow = 3, .body = &body, .nbody = 1}, "/moved");
  CHECK(until(&f.done, 1));
  CHECK_INT(f.code, MR_OK);
  CHECK_STR(mr_buf_get(&f.body), "GET");
  end(&f);
}

/* ---- servers and callers with habits ---- */

TEST(trailers_are_not_headers)
{
  static const char answer[] = "HTTP/1.1 200 OK\r\nx-early: 1\r\ntransfer-encoding: chunked\r\n\r\n"
                               "1\r\na\r\n0\r\nx-late: 1\r\nHTTP/x: 204\r\n\r\n";
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t n = sizeof a;
  int at = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), fd = -1;
  struct fetch f = {0};

  begin();
  CHECK_INT(bind(at, (struct sockaddr *)&a, n), 0);
  CHECK_INT(listen(at, 1), 0);
  CHECK_INT(getsockname(at, (struct sockaddr *)&a, &n), 0);
  snprintf(base, sizeof base, "http://127.0.0.1:%d", ntohs(a.sin_port));
  fetch(&f, (struct mr_http_out_req){0}, "/");
  for (int i = 0; i < 3000 && fd < 0; i++) {
    turn(1);
    fd = accept(at, NULL, NULL);
  }
  CHECK(fd >= 0);
  say(fd, MR_S(answer));
  CHECK(until(&f.done, 1));
  CHECK_INT(f.code, MR_OK);
  CHECK_STR(mr_http_header(mr_buf_get(&f.headers), "x-early"), "1");
  CHECK(mr_http_header(mr_buf_get(&f.headers), "x-late").p == NULL);
  CHECK_STR(mr_buf_get(&f.body), "a");
  close(fd);
  close(at);
  end(&f);
}

static int again_code;

static void on_over_again(void *ud, struct mr_http_out *r, const struct mr_http_out_done *d)
{
  struct mr_http_out_req q = {.method = "GET", .url = base};
  struct mr_http_out *out;
  struct mr_err err = {0};

  on_over(ud, r, d);
  if (((struct fetch *)ud)->done == 1) again_code = mr_http_out_start(client, &q, &fetch_cbs, ud, &out, &err);
}

TEST(a_client_that_ends_takes_no_request)
{
  static const struct mr_http_out_cbs cbs = {on_head, on_bytes, on_over_again};
  struct mr_http_out_req q = {.method = "GET", .url = base};
  struct mr_err err = {0};
  struct fetch f = {0};

  begin();
  CHECK_INT(mr_http_out_start(client, &q, &cbs, &f, &f.out, &err), MR_OK);
  mr_http_client_free(&client);
  CHECK_INT(f.done, 1);
  CHECK_INT(f.code, MR_E_CLOSED);
  CHECK_INT(again_code, MR_E_CLOSED);
  end(&f);
}

/* ---- stall_ms, on the fake clock ---- */

static int64_t clock_us;

static void pass(int ms)
{
  clock_us += (int64_t)ms * 1000;
  test_clock_set(clock_us, clock_us);
  turn(4);
}

/* A caller that pauses has all of stall_ms again once it goes on. */
TEST(a_pause_of_ours_is_no_stall)
{
  struct fetch f = {.pause = true};

  begin();
  pass(1000);
  fetch(&f, (struct mr_http_out_req){.stall_ms = 1000}, "/open");
  CHECK(until(&f.got, 1));
  for (int i = 0; i < 19; i++) pass(100);
  mr_http_out_pause(f.out, false);
  for (int i = 0; i < 9; i++) pass(100);
  CHECK_INT(f.done, 0);
  for (int i = 0; i < 12; i++) pass(100);
  CHECK(until(&f.done, 1));
  CHECK_INT(f.code, MR_E_TIMEOUT);
  end(&f);
}

/* Bytes that go out count: a long upload over a slow line has not stalled. */
TEST(an_upload_that_moves_has_not_stalled)
{
  enum { SIZE = 48 << 20, STEP = 8 << 20 };
  static char bytes[SIZE];
  struct mr_str body = mr_str_n(bytes, SIZE);
  struct fetch f = {0};

  begin();
  pass(1000);
  fetch(&f, (struct mr_http_out_req){.method = "PUT", .body = &body, .nbody = 1, .stall_ms = 1000}, "/swallow");
  for (int i = 0; i < 5000 && !swallower; i++) turn(1);
  CHECK(swallower);
  while (!f.done && swallowed < SIZE) {
    may_swallow += STEP;
    mr_http_body_resume(swallower);
    for (int i = 0; i < 20000 && !f.done && swallowed < may_swallow && swallowed < SIZE; i++) turn(1);
    for (int i = 0; i < 6; i++) pass(100);
  }
  if (!f.done) mr_http_body_resume(swallower);
  CHECK(until(&f.done, 1));
  CHECK_INT(f.code, MR_OK);
  CHECK_STR(mr_buf_get(&f.body), "thanks");
  end(&f);
}
