/*
 * model_limits - named providers, fallbacks and the limits of a provider, against played servers and a fake clock:
 * who waits, in which order, for how long; what a 429 does; what the configuration refuses.
 */
#include "model_kit.h"

static const int64_t SEC = 1000000;
static int64_t now;

static void at(struct bench *b, int64_t us)
{
  test_clock_set(now = us, 1);
  for (int i = 0; i < 20; i++)
    mr_loop_pump(b->loop, 1000);
}

static struct mr_http_out *take_fake(void)
{
  struct mr_http_out *r = fake;
  fake = NULL;
  return r;
}

static void end_of(struct mr_http_out *r, int status, const char *headers, const char *body)
{
  fake = r;
  fake_head(status, headers);
  fake_rest(body);
}

static const char GOOD[] = "data: {\"choices\":[{\"delta\":{\"content\":\"fine\"},\"finish_reason\":\"stop\"}],"
                           "\"usage\":{\"prompt_tokens\":90,\"completion_tokens\":10}}\n\ndata: [DONE]\n\n";
static const char SSE[] = "content-type: text/event-stream\n";

static void expect(struct heard *h, enum mr_model_status st, const char *part)
{
  CHECK(h->done);
  if (h->status != st || !strstr(h->message.p ? h->message.p : "", part))
    test_fail(__FILE__, __LINE__, "%d: \"%s\" is not in \"%s\"", (int)h->status, part,
              h->message.p ? h->message.p : "");
  heard_free(h);
}

static void begin(struct bench *b, struct heard *h, const char *model)
{
  heard_init(h);
  CHECK_INT(ask(b, h, model, &hi, 1), MR_OK);
  CHECK(!h->done);
}

TEST(concurrency_is_first_come_first_served)
{
  enum { N = 6 };
  struct bench b;
  struct heard h[N];
  struct mr_http_out *r[N] = {0};
  test_clock_set(now = SEC, 1);
  bench_open(&b,
             "{\"local\":{\"kind\":\"openai\",\"base_url\":\"http://l.test\",\"max_concurrency\":2,\"queue_max\":3,\"queue_ms\":60000},"
             "\"route\":{\"*\":\"local\"}}",
             NULL, NULL);
  for (int i = 0; i < 5; i++) {
    begin(&b, &h[i], "q");
    r[i] = take_fake();
    CHECK((r[i] != NULL) == (i < 2));
  }
  begin(&b, &h[5], "q"); /* the line is full */
  at(&b, now);
  CHECK(!fake);
  expect(&h[5], MR_MODEL_RATE_LIMITED, "local: 3 requests wait already (queue_max)");
  mr_models_cancel(h[3].call); /* leaves the line */
  CHECK(!h[3].done);
  at(&b, now);
  expect(&h[3], MR_MODEL_CANCELLED, "cancelled");
  end_of(r[1], 200, SSE, GOOD);
  expect(&h[1], MR_MODEL_OK, "");
  at(&b, now);
  r[2] = take_fake();
  CHECK(r[2] && !fake);
  end_of(r[0], 200, SSE, GOOD);
  expect(&h[0], MR_MODEL_OK, "");
  at(&b, now);
  r[4] = take_fake();
  CHECK(r[4]);
  begin(&b, &h[5], "q");
  CHECK(!fake);
  at(&b, now + 59 * SEC);
  CHECK(!h[5].done);
  at(&b, now + 2 * SEC);
  expect(&h[5], MR_MODEL_RATE_LIMITED, "local: the request waited 60 s for its turn (queue_ms)");
  /* The router goes while one waits. */
  begin(&b, &h[5], "q");
  mr_models_free(&b.models);
  expect(&h[5], MR_MODEL_FAILED, "closing");
  end_of(r[2], 200, SSE, GOOD);
  end_of(r[4], 200, SSE, GOOD);
  expect(&h[2], MR_MODEL_OK, "");
  expect(&h[4], MR_MODEL_OK, "");
  bench_close(&b);
}

/* Who waits holds its other candidates, too: letting go of it must not take them from under the router. */
TEST(the_router_goes_while_one_with_fallbacks_waits)
{
  struct bench b;
  struct heard first, waits;
  test_clock_set(now = SEC, 1);
  bench_open(&b,
             "{\"one\":{\"kind\":\"openai\",\"base_url\":\"http://l.test\",\"max_concurrency\":1},"
             "\"two\":{\"kind\":\"openai\",\"base_url\":\"http://m.test\"},"
             "\"route\":{\"p\":\"one\",\"q\":[\"one\",\"two\"]}}",
             NULL, NULL);
  begin(&b, &first, "p");
  struct mr_http_out *r = take_fake();
  begin(&b, &waits, "q");
  CHECK(!fake);
  mr_models_free(&b.models);
  expect(&waits, MR_MODEL_FAILED, "closing");
  end_of(r, 200, SSE, GOOD);
  expect(&first, MR_MODEL_OK, "");
  bench_close(&b);
}

TEST(requests_per_minute)
{
  struct bench b;
  struct heard h[5];
  test_clock_set(now = SEC, 1);
  bench_open(&b, "{\"openai\":{\"requests_per_minute\":2}}", NULL, "k");
  for (int i = 0; i < 5; i++) {
    begin(&b, &h[i], "gpt-5.2");
    if (i == 0) at(&b, now + 10 * SEC);
    if (i < 2) end_of(take_fake(), 200, SSE, GOOD);
    at(&b, now);
    CHECK(!fake);
  }
  at(&b, 60 * SEC);
  CHECK(!fake);
  at(&b, 61 * SEC); /* a minute after the first */
  end_of(take_fake(), 200, SSE, GOOD);
  CHECK(h[2].done && !h[3].done);
  at(&b, 70 * SEC);
  CHECK(!fake);
  at(&b, 71 * SEC);
  end_of(take_fake(), 200, SSE, GOOD);
  CHECK(h[3].done && !h[4].done);
  at(&b, 120 * SEC);
  CHECK(!fake);
  at(&b, 121 * SEC);
  end_of(take_fake(), 200, SSE, GOOD);
  for (int i = 0; i < 5; i++)
    expect(&h[i], MR_MODEL_OK, "");
  bench_close(&b);
}

TEST(tokens_per_minute)
{
  struct bench b;
  struct heard h[4];
  test_clock_set(now = SEC, 1);
  bench_open(&b, "{\"openai\":{\"tokens_per_minute\":150}}", NULL, "k");
  for (int i = 0; i < 2; i++) { /* 100 tokens each */
    begin(&b, &h[i], "gpt-5.2");
    end_of(take_fake(), 200, SSE, GOOD);
    expect(&h[i], MR_MODEL_OK, "");
  }
  begin(&b, &h[2], "gpt-5.2"); /* 200 of 150: 51 have to drain, 20 s */
  at(&b, now + 20 * SEC);
  CHECK(!fake);
  at(&b, now + SEC);
  end_of(take_fake(), 200, SSE, GOOD);
  expect(&h[2], MR_MODEL_OK, "");
  bench_close(&b);
}

TEST(retry_after_pauses_the_provider)
{
  struct bench b;
  struct heard h[4];
  test_clock_set(now = SEC, 1);
  bench_open(&b, "{\"openai\":{\"queue_ms\":60000}}", "ka", "ko");
  begin(&b, &h[0], "gpt-5.2");
  end_of(take_fake(), 429, "retry-after: 30\n", "{\"error\":{\"message\":\"slow\"}}");
  CHECK_INT(h[0].retry_after_ms, 30000);
  expect(&h[0], MR_MODEL_RATE_LIMITED, "slow");
  begin(&b, &h[1], "gpt-5.2");
  begin(&b, &h[3], "claude-opus-4-7"); /* the pause is this provider's alone */
  CHECK(fake);
  fake_end(MR_E_IO);
  expect(&h[3], MR_MODEL_FAILED, "no answer");
  at(&b, now + 29 * SEC);
  CHECK(!fake);
  at(&b, now + SEC);
  struct mr_http_out *first = take_fake();
  CHECK(first);
  begin(&b, &h[2], "gpt-5.2");
  struct mr_http_out *second = take_fake();
  CHECK(second);
  end_of(second, 429, "retry-after: 3600\n", "");
  CHECK(h[2].done && !h[1].done);
  CHECK_INT(h[2].retry_after_ms, 3600000);
  expect(&h[2], MR_MODEL_RATE_LIMITED, "HTTP 429");
  /* A pause longer than the longest wait is not waited for. */
  heard_init(&h[3]);
  CHECK_INT(ask(&b, &h[3], "gpt-5.2", &hi, 1), MR_OK);
  at(&b, now);
  CHECK_INT(h[3].retry_after_ms, 3600000);
  expect(&h[3], MR_MODEL_RATE_LIMITED, "openai: its service asked to wait 3600 s");
  end_of(first, 200, SSE, GOOD); /* what was asked before it is not touched by it */
  expect(&h[1], MR_MODEL_OK, "");
  bench_close(&b);
}

/* ---- fallbacks */

static const char FALLBACK[] =
    "{\"local\":{\"kind\":\"openai\",\"base_url\":\"http://l.test\"},"
    "\"other\":{\"kind\":\"anthropic\",\"base_url\":\"http://o.test\",\"api_key\":\"other-key\"},"
    "\"route\":{\"claude-*\":\"anthropic\",\"two\":[\"local:q1\",\"other\"]},"
    "\"fallback\":{\"claude-*\":[\"other\",\"local:q2\"],\"two\":\"anthropic:claude-x\"}}";

static void sent_to(const char *url, const char *model)
{
  char want[128];
  CHECK(fake != NULL);
  snprintf(want, sizeof want, "\"model\":\"%s\"", model);
  if (!strstr(fake->url, url) || !strstr(fake->body.p, want))
    test_fail(__FILE__, __LINE__, "%s got %.60s", fake->url, fake->body.p);
}

TEST(fallback_after_what_may_heal)
{
  static const struct {
    int code, status;
    const char *body;
  } heals[] = {{MR_E_IO, 0, ""}, {0, 529, "{\"error\":{\"type\":\"overloaded_error\"}}"}, {0, 500, "x"}, {0, 429, ""}};
  struct bench b;
  struct heard h;
  bench_open(&b, FALLBACK, "ka", NULL);
  for (size_t i = 0; i < sizeof heals / sizeof heals[0]; i++) {
    begin(&b, &h, "claude-opus-4-7");
    for (int k = 0; k < 2; k++) {
      sent_to(k ? "http://o.test/v1/messages" : "https://api.anthropic.com", "claude-opus-4-7");
      CHECK(strstr(fake->headers.p, k ? "x-api-key: other-key\n" : "x-api-key: ka\n") != NULL);
      struct mr_http_out *r = take_fake();
      if (heals[i].status) {
        end_of(r, heals[i].status, "", heals[i].body);
      } else {
        fake = r;
        struct mr_http_out_done d = {heals[i].code, 0, &b.err};
        fake = NULL;
        r->cbs.done(r->ud, r, &d);
        mr_buf_free(&r->headers);
        mr_buf_free(&r->body);
        mr_mem_free(r->body.mem, r);
      }
      CHECK(!h.done);
    }
    sent_to("http://l.test/v1/chat/completions", "q2");
    end_of(take_fake(), 200, SSE, GOOD);
    CHECK_STR(mr_buf_get(&h.texts), "fine");
    CHECK_STR(mr_buf_get(&h.log), "block 0 text\ntext 0 fine\n");
    expect(&h, MR_MODEL_OK, "");
  }
  /* The route's own list comes before models.fallback; the last failure is told, with the first. */
  begin(&b, &h, "two");
  sent_to("l.test", "q1");
  end_of(take_fake(), 500, "", "one");
  sent_to("o.test", "two");
  end_of(take_fake(), 500, "", "two");
  sent_to("anthropic.com", "claude-x");
  end_of(take_fake(), 529, "", "");
  expect(&h, MR_MODEL_OVERLOADED, "anthropic: HTTP 529 (before it: local: HTTP 500");
  bench_close(&b);
}

TEST(no_fallback_after_what_will_not)
{
  struct bench b;
  struct heard h;
  bench_open(&b, FALLBACK, "ka", NULL);
  begin(&b, &h, "claude-opus-4-7");
  end_of(take_fake(), 400, "", "{\"error\":{\"message\":\"bad\"}}");
  expect(&h, MR_MODEL_REFUSED_REQUEST, "bad");
  CHECK(!fake);
  /* Output was seen. */
  begin(&b, &h, "two");
  struct mr_http_out *r = take_fake();
  end_of(r, 200, SSE, "data: {\"choices\":[{\"delta\":{\"content\":\"fi\"}}]}\n\n");
  CHECK(!fake);
  expect(&h, MR_MODEL_FAILED, "cut before its end");
  /* None was: the stream failed at its beginning. */
  begin(&b, &h, "two");
  end_of(take_fake(), 200, SSE, "data: {\"error\":{\"message\":\"no slot\"}}\n\n");
  sent_to("o.test", "two");
  /* Cancelled while the second is asked. */
  mr_models_cancel(h.call);
  r = take_fake();
  CHECK(r->cancelled);
  fake = r;
  fake_end(MR_E_CANCELLED);
  CHECK(!fake);
  expect(&h, MR_MODEL_CANCELLED, "cancelled");
  bench_close(&b);
}

/* While a provider pauses, the next candidate is asked at once; without one it is waited for. */
TEST(a_pause_is_gone_around)
{
  struct bench b;
  struct heard h;
  test_clock_set(now = SEC, 1);
  bench_open(&b, FALLBACK, "ka", NULL);
  begin(&b, &h, "two");
  end_of(take_fake(), 429, "retry-after: 20\n", "");
  sent_to("o.test", "two");
  end_of(take_fake(), 400, "", "");
  expect(&h, MR_MODEL_REFUSED_REQUEST, "");
  begin(&b, &h, "two");
  sent_to("o.test", "two");
  end_of(take_fake(), 400, "", "");
  expect(&h, MR_MODEL_REFUSED_REQUEST, "");
  at(&b, now + 21 * SEC);
  begin(&b, &h, "two");
  sent_to("l.test", "q1");
  end_of(take_fake(), 400, "", "");
  expect(&h, MR_MODEL_REFUSED_REQUEST, "");
  bench_close(&b);
}

/* ---- configuration */

TEST(what_the_configuration_refuses)
{
  static const char *const bad[][2] = {
      {"{\"local\":{\"base_url\":\"http://x\"}}", "models.local.kind: \"anthropic\""},
      {"{\"local\":{\"kind\":\"openai\"}}", "models.local.base_url: required"},
      {"{\"local\":{\"kind\":\"other\"}}", "models.local.kind"},
      {"{\"openai\":{\"kind\":\"anthropic\"}}", "models.openai.kind"},
      {"{\"Loc al\":{\"kind\":\"openai\"}}", "\"Loc al\" is no name for a provider"},
      {"{\"local\":7}", "models.local: must be an object"},
      {"{\"openai\":{\"max_concurrency\":-1}}", "models.openai.max_concurrency: must be a whole number from 0 to 100000"},
      {"{\"openai\":{\"max_concurrency\":\"2\"}}", "models.openai.max_concurrency"},
      {"{\"openai\":{\"queue_ms\":0}}", "models.openai.queue_ms"},
      {"{\"openai\":{\"prompt_cache\":true}}", "models.openai.prompt_cache: unknown option"},
      {"{\"anthropic\":{\"prompt_cache_ttl\":\"2h\"}}", "models.anthropic.prompt_cache_ttl: \"5m\" or \"1h\""},
      {"{\"anthropic\":{\"stall\":3}}", "models.anthropic.stall: unknown option"},
      {"{\"scripted\":{\"kind\":\"scripted\"}}", "models.scripted.file: required"},
      {"{\"route\":{\"a\":[]}}", "models.route: \"a\" must name a provider"},
      {"{\"route\":{\"a\":[\"openai\",7]}}", "models.route: \"a\""},
      {"{\"route\":{\"a\":\"openai:\"}}", "models.route: \"a\""},
      {"{\"fallback\":{\"a\":\"\"}}", "models.fallback: \"a\""},
      {"{\"fallback\":[]}", "models.fallback must be an object"},
  };
  struct mr_err err = {.size = sizeof err};
  struct mr_loop *l;
  CHECK_INT(mr_loop_new(&l, test_sys(), NULL, &err), MR_OK);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct mr_models_opts o = {.sys = test_sys(), .loop = l, .config = mr_str_c(bad[i][0])};
    struct mr_models *m;
    CHECK_INT(mr_models_new(&m, &o, &err), MR_E_INVALID);
    if (!strstr(err.message, bad[i][1])) test_fail(__FILE__, __LINE__, "%s: %s", bad[i][0], err.message);
  }
  mr_loop_free(&l);
  CHECK_INT(test_allocs(), 0);
}

TEST(torture)
{
  struct bench b;
  struct heard h;
  int whole = 0;
  test_clock_set(now = SEC, 1);
  for (long n = 0; n < 500 && !whole; n++) {
    bench_open(&b, "{\"a\":{\"kind\":\"openai\",\"base_url\":\"http://a\",\"requests_per_minute\":9},"
                   "\"route\":{\"m\":[\"a:x\",\"openai:y\"]}}", NULL, "k");
    heard_init(&h);
    test_fail_after(n);
    int rc = ask(&b, &h, "m", &hi, 1);
    for (int k = 0; rc == MR_OK && fake && k < 2; k++) {
      if (k == 0)
        end_of(take_fake(), 500, "", "no");
      else
        end_of(take_fake(), 200, SSE, GOOD);
    }
    test_fail_after(-1);
    at(&b, now);
    CHECK(rc != MR_OK || h.done);
    whole = rc == MR_OK && h.status == MR_MODEL_OK;
    heard_free(&h);
    bench_close(&b);
  }
  CHECK(whole);
}
