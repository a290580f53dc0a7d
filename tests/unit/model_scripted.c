/*
 * model_scripted - a recorded file as the model: which line a request gets, what it says, how it arrives.
 */
#include "model_kit.h"

static char path[300];

static void write_file(const char *text)
{
  snprintf(path, sizeof path, "%s/script.jsonl", test_dir());
  FILE *f = fopen(path, "w");
  CHECK(f && fputs(text, f) >= 0);
  fclose(f);
}

static void open_script(struct bench *b, const char *text)
{
  char config[512];
  write_file(text);
  snprintf(config, sizeof config, "{\"scripted\":{\"file\":\"%s\"},\"route\":{\"m\":\"scripted\"}}",
           path);
  bench_open(b, config, NULL, NULL);
}

static void run(struct bench *b, struct heard *h)
{
  CHECK(!h->done); /* nothing is called inside start */
  for (int i = 0; i < 100000 && !h->done; i++)
    mr_loop_pump(b->loop, 1000);
  CHECK(h->done);
}

static void say(struct bench *b, struct heard *h, const char *session, int n, ...)
{
  struct mr_str m[16];
  va_list ap;
  va_start(ap, n);
  for (int i = 0; i < n; i++)
    m[i] = mr_str_c(va_arg(ap, const char *));
  va_end(ap);
  struct mr_model_req r = {.model = MR_S("m"),
                           .messages = m,
                           .nmessages = n,
                           .session_id = mr_str_c(session),
                           .tools = MR_S("[{\"name\":\"a\"}]")};
  heard_init(h);
  CHECK_INT(mr_models_start(b->models, &r, &heard_cbs, h, &h->call, &b->err), MR_OK);
  run(b, h);
}

static void expect(struct heard *h, enum mr_model_status st, const char *part)
{
  if (h->status != st || !strstr(h->message.p ? h->message.p : "", part))
    test_fail(__FILE__, __LINE__, "%d: \"%s\" is not in \"%s\"", (int)h->status, part,
              h->message.p ? h->message.p : "");
  heard_free(h);
}

#define U(t) "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"" t "\"}]}"
#define A    "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}"
#define RES(t)                                                                                     \
  "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t\",\"content\":[{" \
  "\"type\":\"text\",\"text\":\"" t "\"}]}]}"
#define SAY(t) "\"reply\":{\"content\":[{\"type\":\"text\",\"text\":\"" t "\"}]}"

TEST(lines_in_order)
{
  struct bench b;
  struct heard h;
  open_script(&b, "# a comment\n\n{" SAY("one") "}\n{" SAY("two") "}\n");
  say(&b, &h, "s", 1, U("q"));
  CHECK_STR(mr_buf_get(&h.content), "[{\"type\":\"text\",\"text\":\"one\"}]");
  CHECK_STR(mr_buf_get(&h.texts), "one");
  CHECK_STR(mr_buf_get(&h.stop_reason), "end_turn");
  CHECK(h.usage.input > 0 && h.usage.output > 0);
  expect(&h, MR_MODEL_OK, "");
  say(&b, &h, "s", 1, U("q")); /* asked again: the same */
  CHECK_STR(mr_buf_get(&h.texts), "one");
  heard_free(&h);
  say(&b, &h, "s", 3, U("q"), A, U("q"));
  CHECK_STR(mr_buf_get(&h.texts), "two");
  heard_free(&h);
  say(&b, &h, "s", 5, U("q"), A, U("q"), A, U("what now?"));
  expect(&h, MR_MODEL_REFUSED_REQUEST,
         "no line left for this request (reply 3 of the conversation, 2 of 2 lines used); "
         "the last message is \"what now?\"");
  bench_close(&b);
}

TEST(lines_that_match)
{
  struct bench b;
  struct heard h;
  open_script(
      &b, "{\"match\":\"weather\"," SAY("sunny") "}\n{\"match\":\"15 C\"," SAY(
              "mild: {{last_tool_result}}") "}\n"
                                            "{\"match\":\"weather\"," SAY("still sunny") "}\n{" SAY(
                                                "{{last_text}} to you, {{nobody}}") "}\n");
  say(&b, &h, "s", 1, U("the weather?"));
  CHECK_STR(mr_buf_get(&h.texts), "sunny");
  heard_free(&h);
  say(&b, &h, "s", 3, U("the weather?"), A, RES("15 C"));
  CHECK_STR(mr_buf_get(&h.texts), "mild: 15 C");
  heard_free(&h);
  say(&b, &h, "s", 3, U("the weather?"), A, U("and the weather now?"));
  CHECK_STR(mr_buf_get(&h.texts), "still sunny");
  heard_free(&h);
  say(&b, &h, "s", 3, U("the weather?"), A, U("hello \\\"q\\\""));
  CHECK_STR(mr_buf_get(&h.texts), "hello \"q\" to you, {{nobody}}");
  CHECK_STR(mr_buf_get(&h.content),
            "[{\"type\":\"text\",\"text\":\"hello \\\"q\\\" to you, {{nobody}}\"}]");
  heard_free(&h);
  bench_close(&b);
}

TEST(tools_and_details)
{
  struct bench b;
  struct heard h;
  open_script(
      &b, "{\"reply\":{\"content\":[{\"type\":\"text\",\"text\":\"I "
          "look\"},{\"type\":\"tool_use\",\"name\":\"a\",\"input\":"
          "{\"q\":\"{{last_text}}\",\"n\":[1,2.5]}},{\"type\":\"tool_use\",\"id\":\"mine\","
          "\"name\":\"a\"}],"
          "\"usage\":{\"input_tokens\":5,\"output_tokens\":6,\"cache_read_input_tokens\":7}}}\n"
          "{\"reply\":{\"content\":[],\"stop_reason\":\"refusal\",\"stop_details\":{\"k\":1}}}\n");
  say(&b, &h, "s", 1, U("hey"));
  CHECK_STR(mr_buf_get(&h.stop_reason), "tool_use");
  CHECK(strstr(h.content.p,
               "\"name\":\"a\",\"input\":{\"q\":\"hey\",\"n\":[1,2.5]},\"id\":\"toolu_01") != NULL);
  CHECK(strstr(h.content.p,
               "{\"type\":\"tool_use\",\"id\":\"mine\",\"name\":\"a\",\"input\":{}}]") != NULL);
  CHECK(strstr(h.log.p, "block 1 tool_use\nblock 2 tool_use\n") != NULL);
  CHECK_INT(h.usage.input, 5);
  CHECK_INT(h.usage.output, 6);
  CHECK_INT(h.usage.cache_read, 7);
  heard_free(&h);
  say(&b, &h, "s", 3, U("hey"), A, U("x"));
  CHECK_STR(mr_buf_get(&h.stop_reason), "refusal");
  CHECK_STR(mr_buf_get(&h.stop_details), "{\"k\":1}");
  heard_free(&h);
  bench_close(&b);
}

TEST(errors_then_replies)
{
  struct bench b;
  struct heard h;
  static const char script[] =
      "{\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\",\"retry_after_ms\":250,"
      "\"times\":2}}\n{" SAY("one") "}\n"
                                    "{\"error\":{\"type\":\"billing_error\"}}\n{" SAY("two") "}\n";
  open_script(&b, script);
  say(&b, &h, "s", 1, U("q"));
  CHECK_INT(h.retry_after_ms, 250);
  expect(&h, MR_MODEL_OVERLOADED, "scripted: overloaded_error: busy");
  say(&b, &h, "s", 1, U("q"));
  expect(&h, MR_MODEL_OVERLOADED, "busy");
  say(&b, &h, "other", 1, U("q")); /* each conversation has its own */
  expect(&h, MR_MODEL_OVERLOADED, "busy");
  say(&b, &h, "s", 1, U("q"));
  CHECK_STR(mr_buf_get(&h.texts), "one");
  expect(&h, MR_MODEL_OK, "");
  say(&b, &h, "s", 3, U("q"), A, U("q"));
  expect(&h, MR_MODEL_BILLING, "billing_error");
  say(&b, &h, "s", 3, U("q"), A, U("q"));
  CHECK_STR(mr_buf_get(&h.texts), "two");
  heard_free(&h);
  bench_close(&b);
  open_script(&b, script); /* restarted: failures of the past stay past */
  say(&b, &h, "s", 5, U("q"), A, U("q"), A, U("q"));
  expect(&h, MR_MODEL_REFUSED_REQUEST, "4 of 4 lines used");
  bench_close(&b);
}

TEST(expectations)
{
  static const struct {
    const char *want, *part;
  } cases[] = {{"{\"model\":\"other\"}", "expected model other, was asked for m"},
               {"{\"tool\":\"b\"}", "expected a tool b"},
               {"{\"last_text\":\"bye\"}", "expected \"bye\" in the last message"},
               {"{\"messages\":3}", "expected 3 messages, got 1"}};
  struct bench b;
  struct heard h;
  char s[256];
  for (size_t i = 0; i < 4; i++) {
    snprintf(s, sizeof s, "{\"expect\":%s," SAY("x") "}\n", cases[i].want);
    open_script(&b, s);
    say(&b, &h, "s", 1, U("hello"));
    expect(&h, MR_MODEL_REFUSED_REQUEST, cases[i].part);
    bench_close(&b);
  }
  open_script(
      &b, "{\"expect\":{\"model\":\"m\",\"tool\":\"a\",\"last_text\":\"ell\",\"messages\":1}," SAY(
              "x") "}\n");
  say(&b, &h, "s", 1, U("hello"));
  expect(&h, MR_MODEL_OK, "");
  bench_close(&b);
}

TEST(pieces_and_delays)
{
  struct bench b;
  struct heard h;
  struct mr_model_req r = {.model = MR_S("m"), .messages = &hi, .nmessages = 1};
  open_script(&b, "{\"chunks\":4,\"delay_ms\":100,\"chunk_ms\":50," SAY(
                      "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9") "}\n");
  test_clock_set(1000000, 1);
  heard_init(&h);
  CHECK_INT(mr_models_start(b.models, &r, &heard_cbs, &h, &h.call, &b.err), MR_OK);
  for (int i = 0; i < 20; i++)
    mr_loop_pump(b.loop, 1000);
  CHECK_INT(h.log.n, 0);
  int64_t t = 1000000 + 100000;
  for (int n = 0; n < 4; n++, t += 50000) {
    CHECK(!h.done);
    test_clock_set(t, 1);
    for (int i = 0; i < 20; i++)
      mr_loop_pump(b.loop, 1000);
    CHECK(mr_utf8_valid(mr_buf_get(&h.log)));
    CHECK_INT(h.texts.n, n == 3 ? 16 : 4 * (n + 1));
  }
  test_clock_set(t, 1);
  for (int i = 0; i < 20; i++)
    mr_loop_pump(b.loop, 1000);
  CHECK(h.done);
  heard_free(&h);
  /* Cancelled while it waits, and from inside a piece. */
  heard_init(&h);
  CHECK_INT(mr_models_start(b.models, &r, &heard_cbs, &h, &h.call, &b.err), MR_OK);
  mr_models_cancel(h.call);
  CHECK(!h.done);
  run(&b, &h);
  CHECK_INT(h.log.n, 0);
  expect(&h, MR_MODEL_CANCELLED, "cancelled");
  heard_init(&h);
  h.cancel_at = 1;
  CHECK_INT(mr_models_start(b.models, &r, &heard_cbs, &h, &h.call, &b.err), MR_OK);
  for (int i = 0; i < 2000 && !h.done; i++)
    test_clock_set(t += 10000, 1), mr_loop_pump(b.loop, 1000);
  CHECK_INT(h.texts.n, 4);
  expect(&h, MR_MODEL_CANCELLED, "cancelled");
  bench_close(&b);
}

TEST(bad_files)
{
  static const struct {
    const char *text, *part;
  } cases[] = {{"{\"reply\":{\"content\":[]}}\n{oops}\n", "script.jsonl line 2: not valid JSON"},
               {"\n{\"reply\":{}}\n", "line 2: wants \"reply\""},
               {"{\"match\":\"x\"}\n", "line 1: wants \"reply\""},
               {"# nothing\n", "holds no line"}};
  struct bench b;
  for (size_t i = 0; i < 4; i++) {
    open_script(&b, cases[i].text);
    CHECK_INT(mr_models_check(b.models, MR_S("m"), &b.err), MR_E_INVALID);
    if (!strstr(b.err.message, cases[i].part)) test_fail(__FILE__, __LINE__, "%s", b.err.message);
    bench_close(&b);
  }
  bench_open(&b, "{\"scripted\":{\"file\":\"/nowhere/x\"}}", NULL, NULL);
  CHECK_INT(mr_models_check(b.models, MR_S("scripted"), &b.err), MR_E_INVALID);
  CHECK(strstr(b.err.message, "cannot open /nowhere/x: No such file") != NULL);
  bench_close(&b);
}

TEST(torture)
{
  struct bench b;
  struct heard h;
  struct mr_model_req r = {.model = MR_S("m"), .messages = &hi, .nmessages = 1};
  open_script(&b, "{\"reply\":{\"content\":[{\"type\":\"text\",\"text\":\"{{last_text}}\"},{"
                  "\"type\":\"tool_use\",\"id\":\"i\",\"name\":\"n\"}]}}\n");
  int whole = 0;
  for (long n = 0; n < 500 && !whole; n++) {
    heard_init(&h);
    test_fail_after(n);
    int rc = mr_models_start(b.models, &r, &heard_cbs, &h, &h.call, &b.err);
    if (rc == MR_OK) run(&b, &h);
    whole = rc == MR_OK && h.status == MR_MODEL_OK;
    test_fail_after(-1);
    if (whole)
      CHECK_STR(mr_buf_get(&h.content), "[{\"type\":\"text\",\"text\":\"hi\"},{\"type\":\"tool_"
                                        "use\",\"id\":\"i\",\"name\":\"n\",\"input\":{}}]");
    heard_free(&h);
  }
  CHECK(whole);
  bench_close(&b);
}
