/*
 * model_openai - the chat completions provider against a played server: translation of requests, streams
 * as the various compatible servers send them, failures.
 */
#include "model_kit.h"

static const char SSE[] = "content-type: text/event-stream\n";
#define CHUNK(delta, finish)                                                                       \
  "data: {\"choices\":[{\"index\":0,\"delta\":" delta ",\"finish_reason\":" finish "}]}\n\n"

static void begin(struct bench *b, struct heard *h)
{
  heard_init(h);
  CHECK_INT(ask(b, h, "gpt-5.2", &hi, 1), MR_OK);
}

static void expect(struct heard *h, enum mr_model_status st, const char *part)
{
  CHECK(h->done);
  if (h->status != st || !strstr(h->message.p ? h->message.p : "", part))
    test_fail(__FILE__, __LINE__, "%d: \"%s\" is not in \"%s\"", (int)h->status, part,
              h->message.p ? h->message.p : "");
  heard_free(h);
}

static void play(struct bench *b, struct heard *h, const char *stream)
{
  begin(b, h);
  fake_head(200, SSE);
  for (size_t i = 0, n = strlen(stream); i < n; i += 5)
    CHECK_INT(fake_bytes(stream + i, n - i < 5 ? n - i : 5), MR_OK);
  fake_end(MR_OK);
  CHECK_STR(mr_buf_get(&h->message), "");
}

TEST(stream)
{
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, NULL, "key");
  play(&b, &h,
       CHUNK("{\"role\":\"assistant\",\"content\":\"\"}",
             "null") CHUNK("{\"reasoning_content\":\"hm\"}",
                           "null") CHUNK("{\"reasoning_content\":\" hm\"}", "null")
           CHUNK("{\"content\":\"Hel\"}", "null") CHUNK("{\"content\":\"lo\"}", "null") CHUNK(
               "{\"tool_calls\":[{\"index\":0,\"id\":\"call_a\",\"type\":\"function\",\"function\":"
               "{\"name\":\"pay\",\"arguments\":\"\"}}]}",
               "null")
               CHUNK(
                   "{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"n\\\": \"}}]}",
                   "null") CHUNK("{\"tool_calls\":[{\"index\":1,\"id\":\"call_b\",\"function\":{"
                                 "\"name\":\"now\",\"arguments\":\"{}\"}}]}",
                                 "null") CHUNK("{\"tool_calls\":[{\"index\":0,\"function\":{"
                                               "\"arguments\":\"12345678901234567890}\"}}]}",
                                               "null")
                   CHUNK("{}", "\"tool_calls\"") "data: "
                                                 "{\"choices\":[],\"usage\":{\"prompt_tokens\":30,"
                                                 "\"completion_tokens\":9,\"prompt_tokens_"
                                                 "details\":{\"cached_tokens\":20}}}\n\n"
                                                 "data: [DONE]\n\n");
  CHECK_STR(mr_buf_get(&h.content),
            "[{\"type\":\"thinking\",\"signature\":\"moonrig:reasoning_content\",\"thinking\":\"hm hm\"},"
            "{\"type\":\"text\",\"text\":\"Hello\"},"
            "{\"type\":\"tool_use\",\"id\":\"call_a\",\"name\":\"pay\",\"input\":{\"n\":"
            "12345678901234567890}},"
            "{\"type\":\"tool_use\",\"id\":\"call_b\",\"name\":\"now\",\"input\":{}}]");
  CHECK_STR(mr_buf_get(&h.log), "block 0 thinking\nblock 1 text\ntext 1 Hel\ntext 1 lo\nblock 2 "
                                "tool_use\nblock 3 tool_use\n");
  CHECK_STR(mr_buf_get(&h.stop_reason), "tool_use");
  CHECK_INT(h.usage.input, 10);
  CHECK_INT(h.usage.cache_read, 20);
  CHECK_INT(h.usage.output, 9);
  expect(&h, MR_MODEL_OK, "");
  bench_close(&b);
}

TEST(servers_differ)
{
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, NULL, "key");
  /* No [DONE], no usage, "stop" although it called; whole calls without id, all numbered 0. */
  play(&b, &h,
       CHUNK("{\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"pay\",\"arguments\":{"
             "\"n\":1}}}]}",
             "null") CHUNK("{}", "\"stop\""));
  CHECK(strncmp(h.content.p, "[{\"type\":\"tool_use\",\"id\":\"toolu_01", 34) == 0);
  CHECK(strstr(h.content.p, "\"name\":\"pay\",\"input\":{\"n\":1}}]") != NULL);
  CHECK_STR(mr_buf_get(&h.stop_reason), "tool_use");
  expect(&h, MR_MODEL_OK, "");
  play(&b, &h,
       CHUNK("{\"tool_calls\":[{\"index\":0,\"id\":\"x\",\"function\":{\"name\":\"a\","
             "\"arguments\":\"{}\"}}]}",
             "null") CHUNK("{\"tool_calls\":[{\"index\":0,\"id\":\"y\",\"function\":{\"name\":"
                           "\"b\",\"arguments\":\"{}\"}}]}",
                           "null") CHUNK("{}", "\"tool_calls\""));
  CHECK_STR(mr_buf_get(&h.content),
            "[{\"type\":\"tool_use\",\"id\":\"x\",\"name\":\"a\",\"input\":{}},"
            "{\"type\":\"tool_use\",\"id\":\"y\",\"name\":\"b\",\"input\":{}}]");
  expect(&h, MR_MODEL_OK, "");
  /* The id repeated in each delta. */
  play(&b, &h,
       CHUNK("{\"tool_calls\":[{\"index\":0,\"id\":\"x\",\"function\":{\"name\":\"a\","
             "\"arguments\":\"{\\\"k\\\":\"}}]}",
             "null") CHUNK("{\"tool_calls\":[{\"index\":0,\"id\":\"x\",\"function\":{\"name\":"
                           "\"a\",\"arguments\":\"1}\"}}]}",
                           "null") CHUNK("{}", "\"tool_calls\""));
  CHECK_STR(mr_buf_get(&h.content),
            "[{\"type\":\"tool_use\",\"id\":\"x\",\"name\":\"a\",\"input\":{\"k\":1}}]");
  expect(&h, MR_MODEL_OK, "");
  static const char *const ends[][2] = {{"stop", "end_turn"},
                                        {"length", "max_tokens"},
                                        {"content_filter", "refusal"},
                                        {"odd", "end_turn"}};
  for (size_t i = 0; i < 4; i++) {
    char s[512];
    snprintf(s, sizeof s,
             CHUNK("{\"reasoning\":\"r\",\"content\":\"t\"}", "null")
                 CHUNK("{}", "\"%s\"") "data: [DONE]\n\n",
             ends[i][0]);
    play(&b, &h, s);
    CHECK(mr_str_is(mr_buf_get(&h.stop_reason), ends[i][1]));
    expect(&h, MR_MODEL_OK, "");
  }
  bench_close(&b);
}

/* Calls as servers send them that do not number, or number all of them 0. */
TEST(calls_without_numbers)
{
#define CALL(s) CHUNK("{\"tool_calls\":[" s "]}", "null")
#define END CHUNK("{}", "\"tool_calls\"")
  static const char *const cases[][2] = {
      /* no numbers, ids; the arguments in pieces that interleave */
      {CALL("{\"id\":\"x\",\"function\":{\"name\":\"a\",\"arguments\":\"{\\\"k\\\"\"}}") CALL(
           "{\"id\":\"y\",\"function\":{\"name\":\"b\",\"arguments\":\"{\"}}") CALL(
           "{\"id\":\"x\",\"function\":{\"arguments\":\":1}\"}}") CALL("{\"id\":\"y\",\"function\":{"
                                                                     "\"arguments\":\"}\"}}") END,
       "x:a:{\"k\":1} y:b:{}"},
      /* neither: whole calls, one after the other and in one delta, also of the same tool */
      {CALL("{\"function\":{\"name\":\"a\",\"arguments\":\"{\\\"k\\\":1}\"}},{\"function\":{\"name\":\"a\","
            "\"arguments\":\"{}\"}}") CALL("{\"function\":{\"name\":\"b\",\"arguments\":{\"o\":[2]}}}") END,
       "toolu:a:{\"k\":1} toolu:a:{} toolu:b:{\"o\":[2]}"},
      /* neither, in pieces */
      {CALL("{\"function\":{\"name\":\"a\",\"arguments\":\"\"}}") CALL(
           "{\"function\":{\"arguments\":\"{\\\"k\\\"\"}}") CALL("{\"function\":{\"arguments\":\":3}\"}}") CALL(
           "{\"function\":{\"name\":\"b\"}}") CALL("{\"function\":{\"arguments\":\"{}\"}}") END,
       "toolu:a:{\"k\":3} toolu:b:{}"},
      /* all numbered 0, whole, without ids */
      {CALL("{\"index\":0,\"function\":{\"name\":\"a\",\"arguments\":\"{}\"}}") CALL(
           "{\"index\":0,\"function\":{\"name\":\"a\",\"arguments\":\"{\\\"n\\\":2}\"}}") END,
       "toolu:a:{} toolu:a:{\"n\":2}"},
      /* all numbered 0, with ids; then null for what is not there */
      {CALL("{\"index\":0,\"id\":\"p\",\"function\":{\"name\":\"a\",\"arguments\":\"{}\"}}") CALL(
           "{\"index\":0,\"id\":\"q\",\"function\":{\"name\":\"a\",\"arguments\":\"{\"}}") CALL(
           "{\"index\":0,\"id\":null,\"function\":{\"name\":null,\"arguments\":\"}\"}}") END,
       "p:a:{} q:a:{}"},
      /* numbered, interleaved; the name repeated without an id while the arguments are not whole */
      {CALL("{\"index\":1,\"id\":\"y\",\"function\":{\"name\":\"b\",\"arguments\":\"{\"}}") CALL(
           "{\"index\":0,\"id\":\"x\",\"function\":{\"name\":\"a\",\"arguments\":\"{\"}}") CALL(
           "{\"index\":1,\"function\":{\"name\":\"b\",\"arguments\":\"}\"}}") CALL(
           "{\"index\":0,\"function\":{\"arguments\":\"}\"}}") END,
       "y:b:{} x:a:{}"},
      /* what is no JSON, and none */
      {CALL("{\"index\":0,\"id\":\"x\",\"function\":{\"name\":\"a\",\"arguments\":\"k = 1\"}}") CALL(
           "{\"index\":1,\"id\":\"y\",\"function\":{\"name\":\"b\",\"arguments\":\"null\"}}") END,
       "x:a:{\"INVALID_JSON\":\"k = 1\"} y:b:{}"},
  };
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, NULL, "key");
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct mr_buf got;
    mr_buf_init(&got, &test_sys()->mem, 4096);
    play(&b, &h, cases[i][0]);
    yyjson_doc *d = yyjson_read(h.content.p, h.content.n, 0);
    yyjson_arr_iter it = yyjson_arr_iter_with(yyjson_doc_get_root(d));
    for (yyjson_val *v; (v = yyjson_arr_iter_next(&it));) {
      struct mr_str id = mr_json_get_str(v, "id");
      mr_buf_printf(&got, "%s" MR_FMT ":" MR_FMT ":", got.n ? " " : "",
                    MR_ARG(mr_str_starts(id, MR_S("toolu_")) ? MR_S("toolu") : id),
                    MR_ARG(mr_json_get_str(v, "name")));
      mr_json_write(&got, mr_json_get(v, "input"), false);
    }
    if (strcmp(got.p, cases[i][1]) != 0) test_fail(__FILE__, __LINE__, "case %zu: %s", i, got.p);
    yyjson_doc_free(d);
    mr_buf_free(&got);
    CHECK_STR(mr_buf_get(&h.stop_reason), "tool_use");
    expect(&h, MR_MODEL_OK, "");
  }
  /* What a filter or the model itself refused. */
  play(&b, &h, CHUNK("{\"content\":\"I\"}", "null") CHUNK("{}", "\"content_filter\""));
  CHECK_STR(mr_buf_get(&h.stop_reason), "refusal");
  CHECK(strstr(h.stop_details.p, "content filter") != NULL);
  expect(&h, MR_MODEL_OK, "");
  play(&b, &h, CHUNK("{\"refusal\":\"No.\"}", "null") CHUNK("{}", "\"stop\""));
  CHECK_STR(mr_buf_get(&h.stop_reason), "refusal");
  expect(&h, MR_MODEL_OK, "");
  begin(&b, &h); /* vLLM's error within a stream */
  fake_head(200, SSE);
  fake_rest("data: {\"object\":\"error\",\"message\":\"kaput\",\"type\":\"InternalServerError\"}\n\n");
  expect(&h, MR_MODEL_FAILED, "kaput");
  bench_close(&b);
}

TEST(failures)
{
  static const struct {
    int status;
    const char *body;
    enum mr_model_status want;
    const char *part;
  } cases[] = {
      {401,
       "{\"error\":{\"message\":\"Incorrect API key provided: "
       "sk-proj-abcdefghijkl***xyz.\",\"type\":"
       "\"invalid_request_error\",\"code\":\"invalid_api_key\"}}",
       MR_MODEL_REFUSED_REQUEST, "provided: [key]."},
      {429,
       "{\"error\":{\"message\":\"quota\",\"type\":\"insufficient_quota\",\"code\":\"insufficient_"
       "quota\"}}",
       MR_MODEL_BILLING, "quota"},
      {429,
       "{\"error\":{\"message\":\"slow\",\"type\":\"requests\",\"code\":\"rate_limit_exceeded\"}}",
       MR_MODEL_RATE_LIMITED, "slow"},
      {500, "{\"error\":{\"code\":500,\"message\":\"slot\",\"type\":\"server_error\"}}",
       MR_MODEL_FAILED, "slot"},
      {404, "{\"error\":\"model 'x' not found\"}", MR_MODEL_REFUSED_REQUEST, "model 'x' not found"},
      {400,
       "{\"object\":\"error\",\"message\":\"too long\",\"type\":\"BadRequestError\",\"code\":400}",
       MR_MODEL_REFUSED_REQUEST, "too long"},
      {503, "", MR_MODEL_FAILED, "HTTP 503"},
  };
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, NULL, "key");
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    begin(&b, &h);
    fake_head(cases[i].status, "content-type: application/json\n");
    fake_rest(cases[i].body);
    expect(&h, cases[i].want, cases[i].part);
  }
  begin(&b, &h);
  fake_head(200, SSE);
  fake_rest(CHUNK("{\"content\":\"a\"}", "null"));
  expect(&h, MR_MODEL_FAILED, "cut before its end");
  begin(&b, &h); /* a finish_reason, then the connection breaks: the reply may lack its usage */
  fake_head(200, SSE);
  CHECK_INT(fake_bytes(CHUNK("{\"content\":\"a\"}", "\"stop\""),
                       sizeof CHUNK("{\"content\":\"a\"}", "\"stop\"") - 1),
            MR_OK);
  fake_end(MR_E_IO);
  expect(&h, MR_MODEL_FAILED, "cut before its end");
  begin(&b, &h);
  fake_head(200, SSE);
  fake_rest(CHUNK("{\"content\":\"a\"}",
                  "null") "data: {\"error\":{\"message\":\"gone\",\"type\":\"server_error\"}}\n\n");
  expect(&h, MR_MODEL_FAILED, "gone");
  begin(&b, &h);
  mr_models_cancel(h.call);
  fake_end(MR_E_CANCELLED);
  expect(&h, MR_MODEL_CANCELLED, "cancelled");
  bench_close(&b);
}

#define SENT(...)                                                                                  \
  do {                                                                                             \
    struct mr_str m_[] = {__VA_ARGS__};                                                            \
    heard_init(&h);                                                                                \
    r.messages = m_;                                                                               \
    r.nmessages = (int)(sizeof m_ / sizeof m_[0]);                                                 \
    CHECK_INT(mr_models_start(b.models, &r, &heard_cbs, &h, &h.call, &b.err), MR_OK);              \
  } while (0)
#define OVER()                                                                                     \
  do {                                                                                             \
    fake_end(MR_E_IO);                                                                             \
    heard_free(&h);                                                                                \
  } while (0)

TEST(request_bytes)
{
  struct bench b;
  struct heard h;
  bench_open(&b,
             "{\"openai\":{\"base_url\":\"http://"
             "up.test\",\"api_key\":\"k\"},\"route\":{\"local\":\"openai:qwen3\"}}",
             NULL, NULL);
  struct mr_model_req r = {
      .model = MR_S("local"),
      .effort = MR_S("max"),
      .system = MR_S("[{\"type\":\"text\",\"text\":\"s1\"},{\"type\":\"text\",\"text\":\"s2\"}]"),
      .tools =
          MR_S("[{\"name\":\"a\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}]")};
  SENT(MR_S("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"look\"},{\"type\":"
            "\"image\",\"source\":{\"type\":"
            "\"base64\",\"media_type\":\"image/"
            "png\",\"data\":\"AAA=\"}},{\"type\":\"document\",\"title\":\"T\",\"source\":{"
            "\"type\":\"text\",\"media_type\":\"text/plain\",\"data\":\"doc\"}}]}"),
       MR_S("{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"x\","
            "\"signature\":\"y\"},{\"type\":\"text\","
            "\"text\":\"ok\"},{\"type\":\"tool_use\",\"id\":\"c1\",\"name\":\"a\",\"input\":{\"k\":"
            "[1,\"q\"]}}]}"),
       MR_S("{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c1\",\"is_"
            "error\":true,\"content\":["
            "{\"type\":\"text\",\"text\":\"bad\"},{\"type\":\"image\",\"source\":{\"type\":\"url\","
            "\"url\":\"http://i\"}}]},"
            "{\"type\":\"tool_result\",\"tool_use_id\":\"c2\",\"content\":\"fine\"},{\"type\":"
            "\"text\",\"text\":\"and\"}]}"));
  CHECK_STR(mr_str_c(fake->url), "http://up.test/v1/chat/completions");
  CHECK(strstr(fake->headers.p, "authorization: Bearer k\n") != NULL);
  CHECK_STR(mr_buf_get(&fake->body),
            "{\"model\":\"qwen3\",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
            "\"reasoning_effort\":\"high\","
            "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a\",\"description\":\"d\","
            "\"parameters\":{\"type\":"
            "\"object\"}}}],\"messages\":[{\"role\":\"system\",\"content\":\"s1\\ns2\"},"
            "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"look\"},{\"type\":"
            "\"image_url\",\"image_url\":{\"url\":"
            "\"data:image/"
            "png;base64,AAA=\"}},{\"type\":\"text\",\"text\":\"T\"},{\"type\":\"text\",\"text\":"
            "\"doc\"}]},"
            "{\"role\":\"assistant\",\"content\":\"ok\",\"tool_calls\":[{\"id\":\"c1\",\"type\":"
            "\"function\",\"function\":{"
            "\"name\":\"a\",\"arguments\":\"{\\\"k\\\":[1,\\\"q\\\"]}\"}}]},"
            "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"Error: bad\\n[image, see the "
            "next message]\"},"
            "{\"role\":\"tool\",\"tool_call_id\":\"c2\",\"content\":\"fine\"},"
            "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"http:"
            "//i\"}},"
            "{\"type\":\"text\",\"text\":\"and\"}]}]}");
  OVER();
  r.max_tokens = 9;
  SENT(MR_S("{\"role\":\"user\",\"content\":\"plain\"}"));
  CHECK(strstr(fake->body.p, "\"max_tokens\":9") &&
        strstr(fake->body.p, "{\"role\":\"user\",\"content\":\"plain\"}"));
  OVER();
  r.model = MR_S("o3");
  SENT(MR_S("{\"role\":\"user\",\"content\":\"plain\"}"));
  CHECK(strstr(fake->body.p, "\"max_completion_tokens\":9"));
  OVER();
  struct mr_str bad = MR_S("{\"content\":[]}");
  r.messages = &bad;
  CHECK_INT(mr_models_start(b.models, &r, &heard_cbs, &h, &h.call, &b.err), MR_E_INVALID);
  bad = MR_S("nonsense");
  CHECK_INT(mr_models_start(b.models, &r, &heard_cbs, &h, &h.call, &b.err), MR_E_INVALID);
  bench_close(&b);
}

/* Reasoning goes back, with calls, in the field it came in; a system message within turns into what templates take.
 * The OpenAI API gets neither. */
TEST(reasoning_goes_back)
{
  struct bench b;
  struct heard h;
  for (int home = 0; home < 2; home++) {
    bench_open(&b, home ? NULL : "{\"openai\":{\"base_url\":\"http://up.test\"}}", NULL, "key");
    struct mr_model_req r = {
        .model = MR_S("gpt-5.2"),
        .extra = MR_S("{\"temperature\":0.5,\"stop_sequences\":[\"X\"],\"tool_choice\":{\"type\":\"tool\",\"name\":"
                      "\"a\",\"disable_parallel_tool_use\":true},\"output_config\":{\"format\":{\"type\":"
                      "\"json_schema\",\"schema\":{\"type\":\"object\"}}},\"top_k\":7}")};
    SENT(hi,
         MR_S("{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":"
              "\"moonrig:reasoning\"},{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"a\",\"input\":{}}]}"),
         MR_S("{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c\",\"content\":"
              "\"r\"}]}"),
         MR_S("{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":"
              "\"moonrig:reasoning\"},{\"type\":\"text\",\"text\":\"t\"}]}"),
         MR_S("{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"be\"}]}"));
    CHECK_STR(mr_buf_get(&fake->body),
              home ? "{\"model\":\"gpt-5.2\",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
                     "\"temperature\":0.5,\"stop\":[\"X\"],\"parallel_tool_calls\":false,\"tool_choice\":{\"type\":"
                     "\"function\",\"function\":{\"name\":\"a\"}},\"response_format\":{\"type\":\"json_schema\","
                     "\"json_schema\":{\"name\":\"output\",\"strict\":true,\"schema\":{\"type\":\"object\"}}},"
                     "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]},"
                     "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\","
                     "\"function\":{\"name\":\"a\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":"
                     "\"c\",\"content\":\"r\"},{\"role\":\"assistant\",\"content\":\"t\"},{\"role\":\"system\","
                     "\"content\":\"be\"}]}"
                   : "{\"model\":\"gpt-5.2\",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
                     "\"temperature\":0.5,\"stop\":[\"X\"],\"parallel_tool_calls\":false,\"tool_choice\":{\"type\":"
                     "\"function\",\"function\":{\"name\":\"a\"}},\"response_format\":{\"type\":\"json_schema\","
                     "\"json_schema\":{\"name\":\"output\",\"strict\":true,\"schema\":{\"type\":\"object\"}}},"
                     "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]},"
                     "{\"role\":\"assistant\",\"content\":\"\",\"reasoning\":\"hm\",\"tool_calls\":[{\"id\":\"c\","
                     "\"type\":\"function\",\"function\":{\"name\":\"a\",\"arguments\":\"{}\"}}]},{\"role\":"
                     "\"tool\",\"tool_call_id\":\"c\",\"content\":\"r\"},{\"role\":\"assistant\",\"content\":\"t\"},"
                     "{\"role\":\"user\",\"content\":\"[Message of the system, not of the user]\\nbe\"}]}");
    OVER();
    bench_close(&b);
  }
}

/* What of documents such servers can be given: texts, PDFs only by the OpenAI API; none is fetched. */
TEST(documents)
{
  struct bench b;
  struct heard h;
  for (int home = 0; home < 2; home++) {
    bench_open(&b, home ? NULL : "{\"openai\":{\"base_url\":\"http://up.test\"}}", NULL, "key");
    struct mr_model_req r = {.model = MR_S("gpt-5.2")};
    SENT(MR_S("{\"role\":\"user\",\"content\":[{\"type\":\"document\",\"title\":\"T\",\"source\":{\"type\":\"base64\","
              "\"media_type\":\"application/pdf\",\"data\":\"AAA=\"}},{\"type\":\"document\",\"source\":{\"type\":"
              "\"url\",\"url\":\"http://u/d\"}}]}"),
         MR_S("{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"a\",\"input\":{}}]}"),
         MR_S("{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c\",\"content\":[{\"type\":"
              "\"document\",\"title\":\"T\",\"context\":\"C\",\"source\":{\"type\":\"text\",\"media_type\":\"text/plain\","
              "\"data\":\"lines\"}}]}]}"));
    CHECK(strstr(fake->body.p, home ? "[{\"type\":\"file\",\"file\":{\"filename\":\"T\",\"file_data\":"
                                      "\"data:application/pdf;base64,AAA=\"}},{\"type\":\"text\",\"text\":\"[a document "
                                      "that was not fetched and cannot be seen here; it is at http://u/d]\"}]"
                                    : "[{\"type\":\"text\",\"text\":\"T\"},{\"type\":\"text\",\"text\":\"[a PDF document; "
                                      "this model's server takes none, so it cannot be seen here]\"},{\"type\":\"text\","));
    /* once, and no user message behind it */
    CHECK(strstr(fake->body.p, "{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"C\\nT\\nlines\"}]}"));
    OVER();
    bench_close(&b);
  }
}

TEST(prefix_is_stable)
{
  static const char *const kinds[] = {
      "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"q%d\"}]}",
      "{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c%d\",\"name\":\"a\","
      "\"input\":{}}]}",
      "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c%d\","
      "\"content\":\"r\"},{\"type\":\"text\",\"text\":\"t\"}]}",
      "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"a%d\"}]}"};
  struct bench b;
  struct heard h;
  char text[24][160], before[16384] = "";
  struct mr_str messages[24];
  bench_open(&b, NULL, NULL, "key");
  for (int n = 1; n <= 24; n++) {
    int k = snprintf(text[n - 1], sizeof text[0], kinds[(n - 1) % 4], n);
    messages[n - 1] = mr_str_n(text[n - 1], (size_t)k);
    heard_init(&h);
    CHECK_INT(ask(&b, &h, "gpt-5.2", messages, n), MR_OK);
    CHECK(fake->body.n < sizeof before);
    CHECK(strncmp(fake->body.p, before, strlen(before)) == 0);
    snprintf(before, sizeof before, "%.*s", (int)fake->body.n - 2, fake->body.p);
    OVER();
  }
  bench_close(&b);
}

TEST(torture)
{
  struct bench b;
  struct heard h;
  bench_open(&b, NULL, NULL, "key");
  int whole = 0;
  struct mr_str messages[] = {
      MR_S("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"q\"},{\"type\":\"image\","
           "\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\",\"data\":\"AAA=\"}}]}"),
      MR_S("{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c\",\"name\":"
           "\"a\",\"input\":{}}]}"),
      MR_S("{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c\","
           "\"content\":\"r\"}]}")};
  static const char stream[] = CHUNK("{\"content\":\"Hel\"}", "null")
      CHUNK("{\"tool_calls\":[{\"index\":0,\"id\":\"x\",\"function\":{\"name\":\"a\",\"arguments\":"
            "\"{}\"}}]}",
            "null") CHUNK("{}", "\"tool_calls\"") "data: [DONE]\n\n";
  for (long n = 0; n < 2000 && !whole; n++) {
    heard_init(&h);
    test_fail_after(n);
    int rc = ask(&b, &h, "gpt-5.2", messages, 3);
    if (rc == MR_OK) {
      fake_head(200, SSE);
      int code = fake_bytes(stream, sizeof stream - 1);
      fake_end(code);
      CHECK(h.done);
      whole = h.status == MR_MODEL_OK;
      if (whole)
        CHECK_STR(mr_buf_get(&h.content), "[{\"type\":\"text\",\"text\":\"Hel\"},{\"type\":\"tool_"
                                          "use\",\"id\":\"x\",\"name\":\"a\",\"input\":{}}]");
    }
    test_fail_after(-1);
    heard_free(&h);
  }
  CHECK(whole);
  bench_close(&b);
}
