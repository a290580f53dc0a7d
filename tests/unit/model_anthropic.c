/*
 * model_anthropic - the Messages provider against a played server: what it sends, what it makes of a
 * stream however it is cut into pieces, and what it says of each kind of failure.
 */
#include "model_kit.h"

static const char SSE[] = "content-type: text/event-stream; charset=utf-8\n";

/* A reply with everything in it. */
static const char STREAM[] =
    "event: message_start\ndata: "
    "{\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":10,"
    "\"cache_creation_input_tokens\":7,\"cache_read_input_tokens\":5,\"cache_creation\":{"
    "\"ephemeral_5m_input_tokens\":4,"
    "\"ephemeral_1h_input_tokens\":3},\"output_tokens\":1}}}\n\n"
    "event: content_block_start\ndata: "
    "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":"
    "\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n\n"
    "event: ping\ndata: {\"type\": \"ping\"}\n\n"
    "event: content_block_delta\ndata: "
    "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
    "\"thinking_delta\",\"thinking\":\"Hm \\u00e9\"}}\n\n"
    "event: content_block_delta\ndata: "
    "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
    "\"thinking_delta\",\"thinking\":\"...\"}}\n\n"
    "event: content_block_delta\ndata: "
    "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
    "\"signature_delta\",\"signature\":\"c2ln\"}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
    "event: content_block_start\ndata: "
    "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":"
    "\"redacted_thinking\",\"data\":\"xyz\"}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\n"
    "event: content_block_start\ndata: "
    "{\"type\":\"content_block_start\",\"index\":2,\"content_block\":{\"type\":\"text\","
    "\"text\":\"\"}}\n\n"
    "event: content_block_delta\ndata: "
    "{\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"text_delta\","
    "\"text\":\"  \"}}\n\n"
    "event: content_block_delta\ndata: "
    "{\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"text_delta\","
    "\"text\":\"Gr\xc3\xbc\xc3\x9f \\ud83d\\ude00\"}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":2}\n\n"
    "event: content_block_start\ndata: "
    "{\"type\":\"content_block_start\",\"index\":3,\"content_block\":{\"type\":\"text\","
    "\"text\":\"\"}}\n\n"
    "event: content_block_delta\ndata: "
    "{\"type\":\"content_block_delta\",\"index\":3,\"delta\":{\"type\":\"text_delta\","
    "\"text\":\"\\n\"}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":3}\n\n"
    "event: content_block_start\ndata: "
    "{\"type\":\"content_block_start\",\"index\":4,\"content_block\":{\"type\":"
    "\"mock_novelty\",\"data\":{\"b\":[1,2.5,null],\"a\":\"x\"}}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":4}\n\n"
    "event: content_block_start\ndata: "
    "{\"type\":\"content_block_start\",\"index\":5,\"content_block\":{\"type\":"
    "\"tool_use\",\"id\":\"toolu_1\",\"name\":\"pay\",\"input\":{},\"caller\":{\"type\":\"direct\"}"
    "}}\n\n"
    "event: content_block_delta\ndata: "
    "{\"type\":\"content_block_delta\",\"index\":5,\"delta\":{\"type\":"
    "\"input_json_delta\",\"partial_json\":\"\"}}\n\n"
    "event: content_block_delta\ndata: "
    "{\"type\":\"content_block_delta\",\"index\":5,\"delta\":{\"type\":"
    "\"input_json_delta\",\"partial_json\":\"{\\\"n\\\" : 123456789012345678901, \"}}\n\n"
    "event: content_block_delta\ndata: "
    "{\"type\":\"content_block_delta\",\"index\":5,\"delta\":{\"type\":"
    "\"input_json_delta\",\"partial_json\":\" \\\"s\\\": \\\"a \\\\\\\" "
    "b\\\",\\\"r\\\":1.50}\"}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":5}\n\n"
    "event: content_block_start\ndata: "
    "{\"type\":\"content_block_start\",\"index\":6,\"content_block\":{\"type\":"
    "\"tool_use\",\"id\":\"toolu_2\",\"name\":\"now\",\"input\":{}}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":6}\n\n"
    "event: message_delta\ndata: "
    "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\",\"stop_sequence\":"
    "null},\"usage\":{\"output_tokens\":42}}\n\n"
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

static const char CONTENT[] =
    "[{\"type\":\"thinking\",\"thinking\":\"Hm \xc3\xa9...\",\"signature\":\"c2ln\"},"
    "{\"type\":\"redacted_thinking\",\"data\":\"xyz\"},"
    "{\"type\":\"text\",\"text\":\"  Gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\"},"
    "{\"type\":\"mock_novelty\",\"data\":{\"b\":[1,2.5,null],\"a\":\"x\"}},"
    "{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"pay\",\"caller\":{\"type\":\"direct\"},"
    "\"input\":{\"n\":123456789012345678901,\"s\":\"a \\\" b\",\"r\":1.50}},"
    "{\"type\":\"tool_use\",\"id\":\"toolu_2\",\"name\":\"now\",\"input\":{}}]";

static const char LOG[] = "block 0 thinking\nblock 1 redacted_thinking\nblock 2 text\n"
                          "text 2   Gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\nblock 3 mock_novelty\n"
                          "block 4 tool_use\nblock 5 tool_use\n";

static void begin(struct bench *b, struct heard *h)
{
  heard_init(h);
  CHECK_INT(ask(b, h, "claude-opus-4-7", &hi, 1), MR_OK);
}

static void check_whole(struct heard *h)
{
  CHECK(h->done);
  CHECK_STR(mr_buf_get(&h->message), "");
  CHECK_INT(h->status, MR_MODEL_OK);
  CHECK_STR(mr_buf_get(&h->content), CONTENT);
  CHECK_STR(mr_buf_get(&h->log), LOG);
  CHECK_STR(mr_buf_get(&h->stop_reason), "tool_use");
  CHECK_INT(h->usage.input, 10);
  CHECK_INT(h->usage.output, 42);
  CHECK_INT(h->usage.cache_read, 5);
  CHECK_INT(h->usage.cache_write_5m, 4);
  CHECK_INT(h->usage.cache_write_1h, 3);
  heard_free(h);
}

TEST(stream_split_at_every_byte)
{
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, "key", NULL);
  for (size_t cut = 0; cut <= sizeof STREAM - 1; cut++) {
    begin(&b, &h);
    fake_head(200, SSE);
    CHECK_INT(fake_bytes(STREAM, cut), MR_OK);
    CHECK_INT(fake_bytes(STREAM + cut, sizeof STREAM - 1 - cut), MR_OK);
    fake_end(MR_OK);
    check_whole(&h);
  }
  begin(&b, &h);
  fake_head(200, SSE);
  for (size_t i = 0; i < sizeof STREAM - 1; i++)
    CHECK_INT(fake_bytes(STREAM + i, 1), MR_OK);
  fake_end(MR_OK);
  check_whole(&h);
  bench_close(&b);
}

/* Cut anywhere before its last frame is a failure, never a shorter reply. */
TEST(stream_cut_at_every_byte)
{
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, "key", NULL);
  const char *last = strstr(STREAM, "event: message_stop");
  for (size_t cut = 0; cut < (size_t)(last - STREAM); cut += 3) {
    for (int code = 0; code < 2; code++) {
      begin(&b, &h);
      fake_head(200, SSE);
      CHECK_INT(fake_bytes(STREAM, cut), MR_OK);
      fake_end(code ? MR_E_IO : MR_OK);
      CHECK_INT(h.status, MR_MODEL_FAILED);
      CHECK_INT(h.content.n, 0);
      CHECK(strstr(h.message.p, "cut before its end") != NULL);
      heard_free(&h);
    }
  }
  bench_close(&b);
}

static void expect(struct heard *h, enum mr_model_status st, const char *part)
{
  CHECK(h->done);
  CHECK_INT(h->status, st);
  if (!strstr(h->message.p ? h->message.p : "", part))
    test_fail(__FILE__, __LINE__, "\"%s\" is not in \"%s\"", part,
              h->message.p ? h->message.p : "");
  heard_free(h);
}

TEST(http_failures)
{
  static const struct {
    int status;
    const char *headers, *body;
    enum mr_model_status want;
    int64_t wait;
  } cases[] = {
      {429, "retry-after: 7\n",
       "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"slow\"}}",
       MR_MODEL_RATE_LIMITED, 7000},
      {429, "retry-after: 1.25\n", "", MR_MODEL_RATE_LIMITED, 1250},
      {429, "retry-after-ms: 300\nretry-after: 9\n", "", MR_MODEL_RATE_LIMITED, 300},
      {429, "retry-after: Wed, 21 Oct 2026 07:28:00 GMT\n", "", MR_MODEL_RATE_LIMITED, 86400000},
      {429, "",
       "{\"error\":{\"type\":\"rate_limit_error\",\"message\":\"m\",\"details\":{\"error_code\":"
       "\"enforced_spend_limit_reached\"}}}",
       MR_MODEL_BILLING, 0},
      {529, "", "{\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}",
       MR_MODEL_OVERLOADED, 0},
      {529, "", "<html>", MR_MODEL_OVERLOADED, 0},
      {503, "", "{\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}",
       MR_MODEL_OVERLOADED, 0},
      {500, "", "{\"error\":{\"type\":\"api_error\",\"message\":\"m\"}}", MR_MODEL_FAILED, 0},
      {502, "", "bad gateway", MR_MODEL_FAILED, 0},
      {504, "", "{\"error\":{\"type\":\"timeout_error\",\"message\":\"m\"}}", MR_MODEL_FAILED, 0},
      {408, "", "", MR_MODEL_FAILED, 0},
      {402, "", "{\"error\":{\"type\":\"billing_error\",\"message\":\"m\"}}", MR_MODEL_BILLING, 0},
      {403, "", "{\"error\":{\"type\":\"billing_error\",\"message\":\"m\"}}", MR_MODEL_BILLING, 0},
      {400, "",
       "{\"error\":{\"type\":\"invalid_request_error\",\"message\":\"Your credit balance is too "
       "low\"}}",
       MR_MODEL_BILLING, 0},
      {400, "", "{\"error\":{\"type\":\"invalid_request_error\",\"message\":\"m\"}}",
       MR_MODEL_REFUSED_REQUEST, 0},
      {401, "", "{\"error\":{\"type\":\"authentication_error\",\"message\":\"m\"}}",
       MR_MODEL_REFUSED_REQUEST, 0},
      {403, "", "", MR_MODEL_REFUSED_REQUEST, 0},
      {404, "", "{\"error\":{\"type\":\"not_found_error\",\"message\":\"model: x\"}}",
       MR_MODEL_REFUSED_REQUEST, 0},
      {413, "", "", MR_MODEL_REFUSED_REQUEST, 0},
      {302, "location: x\n", "", MR_MODEL_REFUSED_REQUEST, 0},
  };
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, "key", NULL);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char status[32];
    test_clock_set(1000000 + (int64_t)i * 90000000000, 1); /* past the pause that the one before asked for */
    begin(&b, &h);
    fake_head(cases[i].status, cases[i].headers);
    fake_rest(cases[i].body);
    if (h.status != cases[i].want) test_fail(__FILE__, __LINE__, "case %zu: %d", i, (int)h.status);
    CHECK_INT(h.retry_after_ms, cases[i].wait);
    snprintf(status, sizeof status, "anthropic: HTTP %d", cases[i].status);
    expect(&h, cases[i].want, status);
  }
  bench_close(&b);
}

TEST(transport_failures)
{
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, "key", NULL);
  begin(&b, &h);
  fake_end(MR_E_IO);
  expect(&h, MR_MODEL_FAILED, "no answer: transport says no");
  begin(&b, &h);
  fake_end(MR_E_TIMEOUT);
  expect(&h, MR_MODEL_FAILED, "no answer");
  begin(&b, &h);
  fake_head(200, SSE);
  fake_end(MR_E_TIMEOUT);
  expect(&h, MR_MODEL_FAILED, "not whole after 7200 s (total_ms)");
  begin(&b, &h);
  fake_end(MR_E_CLOSED);
  expect(&h, MR_MODEL_FAILED, "closing");
  begin(&b, &h);
  fake_head(200, "content-type: text/html\n");
  fake_rest("<html>");
  expect(&h, MR_MODEL_FAILED, "no event stream");
  begin(&b, &h);
  fake_head(200, SSE);
  fake_rest("data: {broken\n\n");
  expect(&h, MR_MODEL_FAILED, "no JSON");
  begin(&b, &h);
  fake_head(200, SSE);
  fake_rest("data: {\"type\":\"content_block_delta\",\"index\":3,\"delta\":{}}\n\n");
  expect(&h, MR_MODEL_FAILED, "delta without block");
  fake_refuse = MR_E_FULL;
  heard_init(&h);
  CHECK_INT(ask(&b, &h, "claude-opus-4-7", &hi, 1), MR_E_FULL);
  CHECK(!h.done);
  heard_free(&h);
  bench_close(&b);
}

TEST(errors_in_the_stream)
{
  static const struct {
    const char *type;
    enum mr_model_status want;
  } cases[] = {{"overloaded_error", MR_MODEL_OVERLOADED},
               {"rate_limit_error", MR_MODEL_RATE_LIMITED},
               {"billing_error", MR_MODEL_BILLING},
               {"api_error", MR_MODEL_FAILED},
               {"timeout_error", MR_MODEL_FAILED},
               {"something_new", MR_MODEL_FAILED},
               {"invalid_request_error", MR_MODEL_REFUSED_REQUEST}};
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, "key", NULL);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char frame[256];
    snprintf(frame, sizeof frame,
             "event: error\ndata: "
             "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"why\"}}\n\n",
             cases[i].type);
    begin(&b, &h);
    fake_head(200, SSE);
    CHECK_INT(fake_bytes(STREAM, 900), MR_OK);
    CHECK_INT(fake_bytes("\n\n", 2), MR_OK);
    fake_rest(frame);
    CHECK_INT(h.content.n, 0);
    CHECK_INT(h.usage.input, 10);
    expect(&h, cases[i].want, "why");
  }
  bench_close(&b);
}

TEST(cancel)
{
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, "key", NULL);
  for (int when = 0; when < 3; when++) {
    begin(&b, &h);
    if (when > 0) fake_head(200, SSE);
    if (when > 1) CHECK_INT(fake_bytes(STREAM, 1000), MR_OK);
    mr_models_cancel(h.call);
    mr_models_cancel(h.call);
    CHECK(fake->cancelled);
    CHECK(!h.done);
    fake_end(MR_E_CANCELLED);
    expect(&h, MR_MODEL_CANCELLED, "cancelled");
  }
  /* From inside a callback, in the middle of a chunk that holds the whole rest. */
  begin(&b, &h);
  h.cancel_at = 1;
  fake_head(200, SSE);
  CHECK_INT(fake_bytes(STREAM, sizeof STREAM - 1), MR_E_CANCELLED);
  fake_end(MR_E_CANCELLED);
  CHECK(strstr(h.log.p, "mock_novelty") == NULL);
  expect(&h, MR_MODEL_CANCELLED, "cancelled");
  /* Too late: the whole reply is there, but the caller was told that it is cancelled. */
  begin(&b, &h);
  fake_head(200, SSE);
  CHECK_INT(fake_bytes(STREAM, sizeof STREAM - 1), MR_OK);
  mr_models_cancel(h.call);
  fake_end(MR_OK);
  expect(&h, MR_MODEL_CANCELLED, "cancelled");
  bench_close(&b);
}

static const char TOOL[] =
    "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\","
    "\"text\":\"I call\"}}\n\n"
    "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\","
    "\"id\":\"t\",\"name\":\"n\",\"input\":{}}}\n\n"
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\","
    "\"partial_json\":\"%s\"}}\n\n"
    "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"%s\"}}\n\n"
    "data: {\"type\":\"message_stop\"}\n\n";

TEST(tool_input_that_is_no_object)
{
  static const char *const bad[] = {"{\\\"a\\\":", "[1]", "7", "{}{}"};
  struct bench b;
  struct heard h;
  char s[2048];
  bench_open(&b, NULL, "key", NULL);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    snprintf(s, sizeof s, TOOL, bad[i], "tool_use");
    begin(&b, &h);
    fake_head(200, SSE);
    fake_rest(s);
    char want[256];
    snprintf(want, sizeof want,
             "[{\"type\":\"text\",\"text\":\"I call\"},{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"n\","
             "\"input\":{\"INVALID_JSON\":\"%s\"}}]",
             bad[i]);
    CHECK_STR(mr_buf_get(&h.content), want);
    yyjson_doc *d = yyjson_read(h.content.p, h.content.n, 0);
    yyjson_val *block = yyjson_arr_get(yyjson_doc_get_root(d), 1);
    CHECK(mr_model_input_bad(mr_json_get(block, "input")));
    CHECK(!mr_model_input_bad(block));
    yyjson_doc_free(d);
    CHECK_STR(mr_buf_get(&h.stop_reason), "tool_use");
    expect(&h, MR_MODEL_OK, "");
  }
  /* A reply that ran into its limit keeps what is whole. */
  snprintf(s, sizeof s, TOOL, bad[0], "max_tokens");
  begin(&b, &h);
  fake_head(200, SSE);
  fake_rest(s);
  CHECK_STR(mr_buf_get(&h.content), "[{\"type\":\"text\",\"text\":\"I call\"}]");
  CHECK_STR(mr_buf_get(&h.stop_reason), "max_tokens");
  expect(&h, MR_MODEL_OK, "");
  bench_close(&b);
}

TEST(refusal_with_details)
{
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, "key", NULL);
  begin(&b, &h);
  fake_head(200, SSE);
  fake_rest("data: "
            "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"refusal\",\"stop_details\":{"
            "\"type\":"
            "\"refusal\",\"category\":\"cyber\"}}}\n\ndata: {\"type\":\"message_stop\"}\n\n");
  CHECK_STR(mr_buf_get(&h.stop_reason), "refusal");
  CHECK_STR(mr_buf_get(&h.stop_details), "{\"type\":\"refusal\",\"category\":\"cyber\"}");
  CHECK_STR(mr_buf_get(&h.content), "[]");
  expect(&h, MR_MODEL_OK, "");
  bench_close(&b);
}

TEST(citations_are_kept)
{
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, "key", NULL);
  begin(&b, &h);
  fake_head(200, SSE);
  fake_rest("data: "
            "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\","
            "\"text\":\"a\","
            "\"citations\":[]}}\n\n"
            "data: "
            "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"citations_delta\","
            "\"citation\":{\"x\":1}}}\n\n"
            "data: "
            "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"citations_delta\","
            "\"citation\":{\"x\":2}}}\n\n"
            "data: {\"type\":\"message_stop\"}\n\n");
  CHECK_STR(mr_buf_get(&h.content),
            "[{\"type\":\"text\",\"text\":\"a\",\"citations\":[{\"x\":1},{\"x\":2}]}]");
  CHECK_STR(mr_buf_get(&h.stop_reason), "end_turn");
  expect(&h, MR_MODEL_OK, "");
  bench_close(&b);
}

TEST(reply_is_bounded)
{
  struct bench b;
  struct heard h;
  static char delta[1 << 20];
  bench_open(&b, NULL, "key", NULL);
  int n = snprintf(delta, sizeof delta,
                   "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
                   "\"thinking_delta\",\"thinking\":\"");
  memset(delta + n, 'x', sizeof delta - (size_t)n - 8);
  memcpy(delta + sizeof delta - 8, "\"}}\n\n", 6);
  begin(&b, &h);
  fake_head(200, SSE);
  CHECK_INT(fake_bytes(STREAM, 900), MR_OK);
  CHECK_INT(fake_bytes("\n\n", 2), MR_OK);
  int rc = MR_OK, i = 0;
  for (; i < 40 && rc == MR_OK; i++)
    rc = fake_bytes(delta, strlen(delta));
  CHECK_INT(rc, MR_E_PROTOCOL);
  CHECK_INT(i, 33);
  fake_end(rc);
  expect(&h, MR_MODEL_FAILED, "larger than 32 MiB");
  bench_close(&b);
}

/* The reply is whole, the server keeps the response open: it is not waited for. */
TEST(open_end)
{
  struct bench b;
  struct heard h;
  test_clock_set(1000000, 1);
  bench_open(&b, NULL, "key", NULL);
  begin(&b, &h);
  fake_head(200, SSE);
  CHECK_INT(fake_bytes(STREAM, sizeof STREAM - 1), MR_OK);
  mr_loop_pump(b.loop, 1000);
  CHECK(!fake->cancelled);
  test_clock_set(1000000 + 2100000, 1);
  for (int i = 0; i < 100 && !fake->cancelled; i++)
    mr_loop_pump(b.loop, 1000);
  CHECK(fake->cancelled);
  fake_end(MR_E_CANCELLED);
  check_whole(&h);
  bench_close(&b);
}

/* A stream that falls silent, or only pings, is given up; a model that takes its time at first is not. */
TEST(patience)
{
  static const char ping[] = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
  struct bench b;
  struct heard h;
  const int64_t s = 1000000;
  for (int k = 0; k < 3; k++) {
    int64_t now = s;
    test_clock_set(now, 1);
    bench_open(&b, k == 2 ? "{\"anthropic\":{\"first_ms\":5000,\"stall_ms\":2000}}" : NULL, "key", NULL);
    begin(&b, &h);
    if (k < 2) {
      for (int i = 0; i < 5; i++) { /* no word for nine minutes, but pings */
        test_clock_set(now += 110 * s, 1);
        mr_loop_pump(b.loop, 1000);
        if (i == 1) fake_head(200, SSE);
        if (i > 1) CHECK_INT(fake_bytes(ping, sizeof ping - 1), MR_OK);
      }
      CHECK(!fake->cancelled);
    }
    if (k < 2) {
      CHECK_INT(fake_bytes(STREAM, 900), MR_OK); /* a word */
      CHECK_INT(fake_bytes("\n\n", 2), MR_OK);
    }
    if (k == 1) {
      for (int i = 0; i < 5; i++) { /* pings keep it alive, for first_ms */
        test_clock_set(now += 110 * s, 1);
        mr_loop_pump(b.loop, 1000);
        CHECK_INT(fake_bytes(ping, sizeof ping - 1), MR_OK);
        CHECK(!fake->cancelled);
      }
      now += 51 * s;
    } else {
      test_clock_set(now += k == 2 ? 4900000 : 119 * s, 1);
      mr_loop_pump(b.loop, 1000);
      CHECK(!fake->cancelled);
      now += 2 * s;
    }
    test_clock_set(now, 1);
    for (int i = 0; i < 100 && !fake->cancelled; i++)
      mr_loop_pump(b.loop, 1000);
    CHECK(fake->cancelled);
    fake_end(MR_E_CANCELLED);
    expect(&h, MR_MODEL_FAILED, k == 0 ? "stalled: no byte for 120 s" : k == 1 ? "no word of the model for 600 s" : "no word of the model for 5 s");
    bench_close(&b);
  }
}

/* ---- what is sent */

TEST(request_bytes)
{
  struct bench b;
  struct heard h;
  bench_open(&b, "{\"anthropic\":{\"base_url\":\"http://up.test/\",\"api_key\":\"sk-ant-secret\"}}",
             NULL, NULL);
  struct mr_str messages[] = {MR_S("{\"role\":\"user\", \"content\":[]}"), MR_S("{\"b\":1}")};
  struct mr_model_req r = {.model = MR_S("claude-opus-4-7"),
                           .effort = MR_S("high"),
                           .speed = MR_S("fast"),
                           .system = MR_S("[{\"type\":\"text\",\"text\":\"s\"} ]"),
                           .tools = MR_S("[{\"name\":\"a\",\"input_schema\":{}},{\"name\":\"b\"}]"),
                           .messages = messages,
                           .nmessages = 2,
                           .max_tokens = 77};
  heard_init(&h);
  CHECK_INT(mr_models_start(b.models, &r, &heard_cbs, &h, &h.call, &b.err), MR_OK);
  CHECK_STR(mr_str_c(fake->url), "http://up.test/v1/messages");
  CHECK_STR(
      mr_buf_get(&fake->headers),
      "content-type: application/json\naccept: text/event-stream\nanthropic-version: 2023-06-01\n"
      "user-agent: moonrig/" MR_VERSION
      "\nx-api-key: sk-ant-secret\nanthropic-beta: fast-mode-2026-02-01\n");
  CHECK_STR(
      mr_buf_get(&fake->body),
      "{\"model\":\"claude-opus-4-7\",\"max_tokens\":77,\"stream\":true,\"speed\":\"fast\","
      "\"output_config\":"
      "{\"effort\":\"high\"},\"thinking\":{\"type\":\"adaptive\"},\"cache_control\":{\"type\":"
      "\"ephemeral\"},"
      "\"tools\":[{\"name\":\"a\",\"input_schema\":{}},{\"name\":\"b\",\"cache_control\":{\"type\":"
      "\"ephemeral\"}}],"
      "\"system\":[{\"type\":\"text\",\"text\":\"s\",\"cache_control\":{\"type\":\"ephemeral\"}} ],"
      "\"messages\":[{\"role\":\"user\", \"content\":[]},{\"b\":1}]}");
  fake_end(MR_E_IO);
  heard_free(&h);
  r.tools = r.system = MR_S("[]");
  r.effort = r.speed = MR_S("");
  r.max_tokens = 0;
  heard_init(&h);
  CHECK_INT(mr_models_start(b.models, &r, &heard_cbs, &h, &h.call, &b.err), MR_OK);
  CHECK_STR(mr_buf_get(&fake->body),
            "{\"model\":\"claude-opus-4-7\",\"max_tokens\":32000,\"stream\":true,"
            "\"cache_control\":{\"type\":\"ephemeral\"},\"messages\":[{\"role\":\"user\", "
            "\"content\":[]},{\"b\":1}]}");
  fake_end(MR_E_IO);
  heard_free(&h);
  bench_close(&b);
}

TEST(no_cache_marks_when_told)
{
  struct bench b;
  struct heard h;
  bench_open(&b, "{\"anthropic\":{\"base_url\":\"http://up.test/x\",\"prompt_cache\":false}}", NULL,
             NULL);
  struct mr_model_req r = {.model = MR_S("claude-haiku-4-5"),
                           .system = MR_S("[{\"text\":\"s\"}]"),
                           .effort = MR_S("low"),
                           .messages = &hi,
                           .nmessages = 1};
  heard_init(&h);
  CHECK_INT(mr_models_start(b.models, &r, &heard_cbs, &h, &h.call, &b.err), MR_OK);
  CHECK_STR(mr_str_c(fake->url), "http://up.test/x/v1/messages");
  CHECK(!strstr(fake->body.p, "cache_control"));
  CHECK(!strstr(fake->body.p, "adaptive"));
  CHECK(!strstr(fake->headers.p, "x-api-key"));
  fake_end(MR_E_IO);
  heard_free(&h);
  bench_close(&b);
}

/* Reasoning of another family's server is left out, always in the same way; an hour of caching is asked for. */
TEST(foreign_thinking)
{
  struct bench b;
  struct heard h;
  bench_open(&b, "{\"anthropic\":{\"prompt_cache_ttl\":\"1h\"}}", "k", NULL);
  struct mr_str messages[] = {
      hi,
      MR_S("{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"x\",\"signature\":"
           "\"moonrig:reasoning\"},{\"type\":\"text\",\"text\":\"a\"}]}"),
      hi,
      MR_S("{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"x\",\"signature\":"
           "\"moonrig:reasoning\"}]}"),
      hi};
  heard_init(&h);
  CHECK_INT(ask(&b, &h, "claude-opus-4-7", messages, 5), MR_OK);
  CHECK_STR(mr_buf_get(&fake->body),
            "{\"model\":\"claude-opus-4-7\",\"max_tokens\":32000,\"stream\":true,\"cache_control\":{\"type\":"
            "\"ephemeral\",\"ttl\":\"1h\"},\"messages\":[" HI
            ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}," HI
            ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"(no answer)\"}]}," HI "]}");
  fake_end(MR_E_IO);
  heard_free(&h);
  bench_close(&b);
}

/* Messages that lie together may be sent together, and pieces stand for them; what is plain is not looked at. */
TEST(pieces_and_neighbours)
{
  static const char text[] = "{\"a\":1},{\"b\":2},{\"c\":\"\\\"signature\\\":\\\"moonrig:\\\"\"}{\"d\":4}";
  static const char sent[] = "{\"model\":\"claude-opus-4-7\",\"max_tokens\":32000,\"stream\":true,\"messages\":[" HI
                             ",{\"a\":1},{\"b\":2},{\"c\":\"\\\"signature\\\":\\\"moonrig:\\\"\"},{\"d\":4}]}";
  struct mr_str all = mr_str_c(text);
  struct mr_str messages[] = {hi, mr_str_n(all.p, 7), mr_str_n(all.p + 8, 7), mr_str_n(all.p + 16, all.n - 23),
                              mr_str_n(all.p + all.n - 7, 7)};
  struct mr_str pieces[] = {hi, mr_str_n(all.p, all.n - 7), messages[4]};
  struct mr_model_req r = {.model = MR_S("claude-opus-4-7"), .messages = messages, .nmessages = 5};
  struct bench b;
  struct heard h;
  bench_open(&b, "{\"anthropic\":{\"prompt_cache\":false}}", "k", NULL);
  for (int k = 0; k < 4; k++) {
    r.plain = k % 2;
    r.pieces = k > 1 ? pieces : NULL;
    r.npieces = 3;
    heard_init(&h);
    CHECK_INT(mr_models_start(b.models, &r, &heard_cbs, &h, &h.call, &b.err), MR_OK);
    CHECK_STR(mr_buf_get(&fake->body), sent);
    fake_end(MR_E_IO);
    heard_free(&h);
  }
  bench_close(&b);
}

/* Each turn's body begins with the whole of the one before, up to the end of its messages. */
TEST(prefix_is_stable)
{
  struct bench b;
  struct heard h;
  char text[40][64], before[8192] = "";
  struct mr_str messages[40];
  bench_open(&b, NULL, "key", NULL);
  for (int n = 1; n < 40; n++) {
    int k =
        snprintf(text[n - 1], sizeof text[0], "{\"role\": \"%s\",\"content\":[%d ,\"\\u00e9\"]}",
                 n % 2 ? "user" : "assistant", n);
    messages[n - 1] = mr_str_n(text[n - 1], (size_t)k);
    struct mr_model_req r = {.model = MR_S("claude-opus-4-7"),
                             .system = MR_S("[{\"type\":\"text\",\"text\":\"s\"}]"),
                             .tools = MR_S("[{\"name\":\"t\"}]"),
                             .messages = messages,
                             .nmessages = n};
    heard_init(&h);
    CHECK_INT(mr_models_start(b.models, &r, &heard_cbs, &h, &h.call, &b.err), MR_OK);
    CHECK(fake->body.n < sizeof before);
    CHECK(strncmp(fake->body.p, before, strlen(before)) == 0);
    snprintf(before, sizeof before, "%.*s", (int)fake->body.n - 2, fake->body.p);
    CHECK_STR(mr_str_n(fake->body.p + fake->body.n - 2, 2), "]}");
    fake_end(MR_E_IO);
    heard_free(&h);
  }
  bench_close(&b);
}

TEST(no_key_in_messages)
{
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, "my-odd-key-123", NULL);
  begin(&b, &h);
  fake_head(401, "");
  fake_rest("{\"error\":{\"type\":\"authentication_error\",\"message\":\"invalid my-odd-key-123 or "
            "sk-ant-api03-abcdefgh_1234-XY, \\u0007 sk-short\"}}");
  CHECK_STR(mr_buf_get(&h.message),
            "anthropic: HTTP 401 authentication_error: invalid [key] or [key],   sk-short");
  heard_free(&h);
  begin(&b, &h);
  fake_head(200, SSE);
  fake_rest(
      "data: "
      "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"my-odd-key-123\"}}\n\n");
  CHECK_STR(mr_buf_get(&h.message), "anthropic: api_error: [key]");
  heard_free(&h);
  /* A key that begins near the cut of a long message. */
  char body[4096];
  for (int pad = 440; pad < 640; pad++) {
    snprintf(body, sizeof body,
             "{\"error\":{\"type\":\"t\",\"message\":\"%0*d my-odd-key-123 tail\"}}", pad, 1);
    begin(&b, &h);
    fake_head(400, "");
    fake_rest(body);
    CHECK(!strstr(h.message.p, "my-odd-k"));
    CHECK(h.message.n < 600);
    heard_free(&h);
  }
  bench_close(&b);
}

/* No allocation may be needed for an orderly end: fail each in turn. */
TEST(torture)
{
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, "key", NULL);
  int whole = 0;
  for (long n = 0; n < 2000 && !whole; n++) {
    heard_init(&h);
    test_fail_after(n);
    int rc = ask(&b, &h, "claude-opus-4-7", &hi, 1);
    if (rc != MR_OK) {
      CHECK_INT(rc, MR_E_NOMEM);
      CHECK(!h.done);
    } else {
      fake_head(200, SSE);
      int code = fake_bytes(STREAM, sizeof STREAM - 1);
      fake_end(code);
      CHECK(h.done);
      CHECK(h.status == MR_MODEL_OK || h.status == MR_MODEL_FAILED);
      whole = h.status == MR_MODEL_OK;
      if (whole) CHECK_STR(mr_buf_get(&h.content), CONTENT);
    }
    test_fail_after(-1);
    heard_free(&h);
  }
  CHECK(whole);
  bench_close(&b);
}
