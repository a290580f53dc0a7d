/*
 * model_pass - requests that are passed through, against played servers: what is sent and what comes back are in
 * tests/api; here is what happens when memory ends, clients leave, lines are waited in, and the router goes.
 */
#include "model_kit.h"
#include "model/pass.h"

static const char CONFIG[] = "{\"local\":{\"kind\":\"openai\",\"base_url\":\"http://l.test\",\"max_concurrency\":1},"
                             "\"a\":{\"kind\":\"anthropic\",\"base_url\":\"http://a.test\",\"api_key\":\"sk-secret-key-1\"},"
                             "\"route\":{\"m\":\"a:other\",\"q\":\"local\",\"both\":[\"a\",\"local:qwen\"]}}";
static const char SSE[] = "content-type: text/event-stream\n";
static const char GOOD[] =
    "data: {\"choices\":[{\"delta\":{\"reasoning\":\"r\"}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"fine\"}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"t\",\"arguments\":"
    "\"{}\"}}]}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"more\"},\"finish_reason\":\"tool_calls\"}],"
    "\"usage\":{\"prompt_tokens\":90,\"completion_tokens\":10}}\n\ndata: [DONE]\n\n";

struct got {
  struct mr_buf head, body;
  int status, done, wait; /* wait: the client takes no more after the first data */
  bool whole;
  int64_t length;
  struct mr_pass *p;
};

static void g_head(void *ud, int status, const struct mr_str *lines, int n, int64_t length)
{
  struct got *g = ud;
  CHECK(!g->done && !g->status);
  g->status = status;
  g->length = length;
  for (int i = 0; i < n; i++)
    mr_buf_printf(&g->head, MR_FMT "\n", MR_ARG(lines[i]));
}
static int g_data(void *ud, struct mr_str bytes)
{
  struct got *g = ud;
  CHECK(g->status && !g->done);
  mr_buf_str(&g->body, bytes);
  return g->wait ? MR_MORE : MR_OK;
}
static void g_done(void *ud, bool whole)
{
  struct got *g = ud;
  CHECK(!g->done);
  g->done = 1;
  g->whole = whole;
}
static const struct mr_pass_cbs g_cbs = {g_head, g_data, g_done};

static int ask_pass(struct bench *b, struct got *g, const char *body, bool count)
{
  static struct mr_mem plain;
  mr_mem_init(&plain, NULL, NULL);
  *g = (struct got){0};
  mr_buf_init(&g->head, &plain, 1 << 20);
  mr_buf_init(&g->body, &plain, 1 << 28);
  struct mr_pass_req r = {.count = count, .body = mr_str_c(body), .version = MR_S("2026-10-21"), .request_id = MR_S("req_x")};
  return mr_models_pass(b->models, &r, &g_cbs, g, &g->p, &b->err);
}

static void got_free(struct got *g)
{
  mr_buf_free(&g->head);
  mr_buf_free(&g->body);
}

static void turn(struct bench *b)
{
  for (int i = 0; i < 20; i++)
    mr_loop_pump(b->loop, 1000);
}

static struct mr_http_out *take_fake(void)
{
  struct mr_http_out *r = fake;
  fake = NULL;
  return r;
}

#define BODY(model) "{\"model\":\"" model "\",\"max_tokens\":5,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"

TEST(keys_do_not_come_back)
{
  struct bench b;
  struct got g;
  bench_open(&b, CONFIG, NULL, NULL);
  CHECK_INT(ask_pass(&b, &g, BODY("m"), false), MR_OK);
  CHECK_STR(mr_str_c(fake->url), "http://a.test/v1/messages");
  CHECK(strstr(fake->body.p, "{\"model\":\"other\",\"max_tokens\":5") != NULL);
  CHECK(strstr(fake->headers.p, "x-api-key: sk-secret-key-1\n") != NULL);
  fake_head(401, "content-type: application/json\nset-cookie: a=b\nserver: x\nretry-after: 3\n");
  fake_rest("{\"type\":\"error\",\"error\":{\"message\":\"no key sk-secret-key-1\"},\"request_id\":\"req_up\"}");
  CHECK(g.done && g.whole);
  CHECK_INT(g.status, 401);
  CHECK_STR(mr_buf_get(&g.head), "content-type: application/json\nretry-after: 3\nrequest-id: req_up\n");
  CHECK_STR(mr_buf_get(&g.body), "{\"type\":\"error\",\"error\":{\"message\":\"no key [key]\"},\"request_id\":\"req_up\"}");
  CHECK_INT(g.length, (long)g.body.n);
  got_free(&g);
  /* A redirect is no answer, and its place is not told. */
  CHECK_INT(ask_pass(&b, &g, BODY("m"), false), MR_OK);
  fake_head(302, "location: http://elsewhere\n");
  fake_rest("moved");
  turn(&b);
  CHECK_INT(g.status, 502);
  CHECK(strstr(g.body.p, "a: HTTP 302") && !strstr(g.body.p, "elsewhere"));
  got_free(&g);
  bench_close(&b);
}

TEST(rate_limits_do_not_crowd_out_the_request_id)
{
  struct bench b;
  struct got g;
  char head[2048] = "content-type: application/json\n";
  bench_open(&b, CONFIG, NULL, NULL);
  CHECK_INT(ask_pass(&b, &g, BODY("m"), false), MR_OK);
  for (int i = 0; i < 24; i++) {
    size_t n = strlen(head);
    snprintf(head + n, sizeof head - n, "anthropic-ratelimit-kind%d-limit: 1000\n", i);
  }
  snprintf(head + strlen(head), sizeof head - strlen(head), "request-id: req_up\nretry-after: 3\n");
  fake_head(200, head);
  CHECK_STR(mr_buf_get(&g.head), head);
  fake_rest("{}");
  CHECK(g.done && g.whole);
  got_free(&g);
  bench_close(&b);
}

TEST(clients_leave)
{
  struct bench b;
  struct got g, h;
  bench_open(&b, CONFIG, NULL, NULL);
  static const char *const models[] = {BODY("m"), BODY("q")};
  for (int k = 0; k < 2; k++)
    for (int when = 0; when < 2; when++) {
      CHECK_INT(ask_pass(&b, &g, models[k], false), MR_OK);
      if (when) {
        fake_head(200, SSE);
        CHECK_INT(fake_bytes(GOOD, 200), MR_OK);
      }
      mr_pass_cancel(g.p);
      mr_pass_cancel(g.p);
      CHECK(fake->cancelled && !g.done);
      fake_end(MR_E_CANCELLED);
      turn(&b);
      CHECK(g.done && !g.whole);
      got_free(&g);
    }
  /* In line, and while an error waits to be told. */
  CHECK_INT(ask_pass(&b, &g, BODY("q"), false), MR_OK);
  struct mr_http_out *first = take_fake();
  CHECK_INT(ask_pass(&b, &h, BODY("q"), false), MR_OK);
  CHECK(!fake);
  mr_pass_cancel(h.p);
  turn(&b);
  CHECK(h.done && !h.status);
  got_free(&h);
  CHECK_INT(ask_pass(&b, &h, BODY("q"), true), MR_OK);
  fake = first;
  fake_head(200, SSE);
  fake_rest(GOOD);
  CHECK(g.done && g.whole);
  turn(&b);
  CHECK(h.done && h.whole);
  CHECK_INT(h.status, 400);
  CHECK(strstr(h.body.p, "cannot count tokens") && strstr(h.body.p, "\"request_id\":\"req_x\""));
  got_free(&g);
  got_free(&h);
  bench_close(&b);
}

TEST(translated_events)
{
  struct bench b;
  struct got g;
  bench_open(&b, CONFIG, NULL, NULL);
  CHECK_INT(ask_pass(&b, &g, BODY("q"), false), MR_OK);
  fake_head(200, SSE);
  fake_rest(GOOD);
  CHECK(g.done && g.whole);
  static const char *const parts[] = {
      "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_01",
      "\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
      "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"fine\"}}\n\n",
      "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
      "\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"t\",\"input\":{}}}\n\n",
      "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}\n\n",
      "{\"type\":\"content_block_stop\",\"index\":1}\n\n",
      "\"index\":2,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
      "\"index\":2,\"delta\":{\"type\":\"text_delta\",\"text\":\"more\"}}\n\n",
      "{\"type\":\"content_block_stop\",\"index\":2}\n\n",
      "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\",\"stop_sequence\":null},"
      "\"usage\":{\"input_tokens\":90,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":10}}\n\n"
      "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"};
  const char *at = g.body.p;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    const char *p = strstr(at, parts[i]);
    if (!p) test_fail(__FILE__, __LINE__, "part %zu is not in %s", i, at);
    at = p + strlen(parts[i]);
  }
  CHECK_STR(mr_str_c(at), "");
  CHECK(!strstr(g.body.p, "thinking"));
  got_free(&g);
  bench_close(&b);
}

/* Limits are those of the agents' own calls, and the router may go while one waits. */
TEST(lines_are_shared)
{
  struct bench b;
  struct got g;
  struct heard h;
  bench_open(&b, CONFIG, NULL, NULL);
  heard_init(&h);
  CHECK_INT(ask(&b, &h, "q", &hi, 1), MR_OK);
  struct mr_http_out *first = take_fake();
  CHECK_INT(ask_pass(&b, &g, BODY("q"), false), MR_OK);
  turn(&b);
  CHECK(!fake);
  fake = first;
  fake_head(200, SSE);
  fake_rest(GOOD);
  turn(&b);
  first = take_fake();
  CHECK(first != NULL);
  struct got late;
  CHECK_INT(ask_pass(&b, &late, BODY("q"), false), MR_OK);
  mr_models_free(&b.models);
  CHECK(late.done);
  CHECK_INT(late.status, 503);
  fake = first;
  fake_head(200, SSE);
  fake_rest(GOOD);
  CHECK(g.done && g.whole);
  got_free(&g);
  got_free(&late);
  heard_free(&h);
  bench_close(&b);
}

TEST(another_candidate)
{
  struct bench b;
  struct got g;
  bench_open(&b, CONFIG, NULL, NULL);
  for (int k = 0; k < 3; k++) {
    CHECK_INT(ask_pass(&b, &g, BODY("both"), false), MR_OK);
    if (k < 2) fake_head(k ? 529 : 429, "");
    if (k < 2) CHECK(fake->cancelled);
    struct mr_http_out *r = take_fake();
    struct mr_http_out_done d = {k < 2 ? MR_E_CANCELLED : MR_E_IO, 0, &b.err};
    r->cbs.done(r->ud, r, &d);
    mr_buf_free(&r->headers);
    mr_buf_free(&r->body);
    mr_mem_free(r->body.mem, r);
    CHECK(fake && strstr(fake->url, "l.test") && strstr(fake->body.p, "\"model\":\"qwen\""));
    fake_head(500, "");
    fake_rest("{\"error\":{\"message\":\"both\"}}");
    turn(&b);
    CHECK(g.done && g.whole);
    CHECK_INT(g.status, 502);
    got_free(&g);
  }
  bench_close(&b);
}

TEST(torture)
{
  static const char *const models[] = {BODY("m"), BODY("q"), BODY("both"),
                                       "{\"model\":\"q\",\"max_tokens\":5,\"system\":\"s\",\"tools\":[{\"name\":\"t\"}],"
                                       "\"temperature\":1,\"messages\":[{\"role\":\"user\",\"content\":[]}]}"};
  struct bench b;
  struct got g;
  for (size_t k = 0; k < sizeof models / sizeof models[0]; k++) {
    bool fine = false;
    for (long n = 0; n < 600 && !fine; n++) {
      bench_open(&b, CONFIG, NULL, NULL);
      test_fail_after(n);
      int rc = ask_pass(&b, &g, models[k], false);
      if (rc == MR_OK && fake && k == 2) {
        fake_head(500, "");
        fake_end(MR_E_CANCELLED);
      }
      if (rc == MR_OK && fake) {
        fake_head(200, SSE);
        fake_rest(GOOD);
      }
      test_fail_after(-1);
      turn(&b);
      CHECK(!fake);
      CHECK(rc != MR_OK || g.done);
      fine = rc == MR_OK && g.status == 200 && g.whole && g.body.n > 300;
      got_free(&g);
      bench_close(&b);
    }
    CHECK(fine);
  }
}
