/* Prices, costs and budgets: exact arithmetic, what the configuration may say, what is refused (API: sessions §13). */
#include "kit.h"
#include "agent/caps.h"
#include "agent/price.h"

#include <stdlib.h>

static struct mr_prices *prices;
static struct mr_err err;

static int open_prices(const char *config)
{
  yyjson_doc *doc = NULL;
  int code;

  if (config) CHECK(mr_json_parse(&test_sys()->mem, mr_str_c(config), 1 << 20, &doc, &err) == MR_OK);
  code = mr_prices_new(&prices, &test_sys()->mem, yyjson_doc_get_root(doc), &err);
  yyjson_doc_free(doc);
  return code;
}

static const struct mr_price *of(const char *model, const char *speed)
{
  return mr_price_find(prices, mr_str_c(model), mr_str_c(speed));
}

static const char *shown(int64_t cost)
{
  static char out[128];
  struct mr_buf b;
  struct mr_jw w;

  mr_buf_init(&b, &test_sys()->mem, 1000);
  mr_jw_init(&w, &b);
  mr_cost_write(&w, cost);
  snprintf(out, sizeof out, "%.*s", (int)b.n, b.p);
  mr_buf_free(&b);
  return out;
}

TEST(list_prices_are_exact)
{
  struct mr_usage u = {.input = 1000000, .output = 1000000, .cache_read = 1000000, .cache_write_5m = 1000000,
                       .cache_write_1h = 1000000};
  CHECK(open_prices(NULL) == MR_OK);
  CHECK_STR(mr_prices_date(prices), "2026-11-10");
  /* 5 + 25 + 0.50 + 6.25 + 10 USD */
  CHECK_INT(mr_price_cost(of("claude-opus-5", ""), &u), 4675 * MR_CENT);
  CHECK_INT(mr_price_cost(of("claude-sonnet-5-5", "standard"), &u), 1860 * MR_CENT);
  u = (struct mr_usage){.cache_read = 1};
  CHECK_INT(mr_price_cost(of("claude-haiku-5-5", ""), &u), 1000); /* 0.01 USD per million */
  CHECK_INT(mr_price_cost(NULL, &u), 0);
  mr_prices_free(&prices);
}

TEST(a_model_is_found_by_its_name_and_its_dated_name)
{
  CHECK(open_prices(NULL) == MR_OK);
  CHECK(of("claude-opus-5", "") && of("claude-opus-5-20260724", "") == of("claude-opus-5", ""));
  CHECK(of("claude-opus-5-5", "") != of("claude-opus-5", ""));
  CHECK(!of("claude-opus-5-2026072", "") && !of("claude-opus-5-2026072x", "") && !of("claude-opus-55", ""));
  CHECK(!of("claude-opus", "") && !of("", "") && !of("gpt-9", "") && !of("scripted", ""));
  CHECK(of("claude-opus-5", "fast") && of("claude-opus-5", "fast") != of("claude-opus-5", ""));
  CHECK(!of("claude-haiku-4-5", "fast")); /* there is no such thing: no price */
  mr_prices_free(&prices);
}

TEST(long_prompts_have_a_price_of_their_own)
{
  struct mr_usage u = {.input = 40000, .cache_read = 60000, .output = 1000};
  CHECK(open_prices(NULL) == MR_OK);
  CHECK_INT(mr_price_cost(of("claude-haiku-5-5", ""), &u), 40000 * 10000LL + 60000 * 1000LL + 1000 * 50000LL);
  u.cache_write_1h = 1; /* one token more than 100,000: every token of the request */
  CHECK_INT(mr_price_cost(of("claude-haiku-5-5", ""), &u),
            40000 * 50000LL + 60000 * 5000LL + 1000 * 250000LL + 100000);
  mr_prices_free(&prices);
}

TEST(running_time_and_searches)
{
  CHECK(open_prices(NULL) == MR_OK);
  CHECK_INT(mr_price_runtime(prices, 3600000000LL), 8 * MR_CENT);
  CHECK_INT(mr_price_runtime(prices, 1800000000LL), 4 * MR_CENT);
  CHECK_INT(mr_price_runtime(prices, 1), 2); /* 2.2 nanocents */
  CHECK_INT(mr_price_runtime(prices, 0), 0);
  CHECK_INT(mr_price_runtime(prices, -5), 0);
  CHECK_INT(mr_price_searches(prices, 1), MR_CENT);
  CHECK_INT(mr_price_searches(prices, 1500), 1500 * MR_CENT);
  CHECK_INT(mr_price_runtime(prices, INT64_C(1) << 60), 2562047788015215502);
  mr_prices_free(&prices);
}

TEST(nothing_wraps_around)
{
  struct mr_usage u = {.input = INT64_MAX, .output = INT64_MAX, .cache_read = INT64_MAX};
  CHECK(open_prices("{\"hour_usd\":1000,\"search_usd_per_1000\":1000}") == MR_OK);
  CHECK_INT(mr_price_cost(of("claude-opus-5", ""), &u), INT64_MAX);
  CHECK_INT(mr_cost_add(INT64_MAX, 1), INT64_MAX);
  CHECK_INT(mr_cost_add(INT64_MAX - 1, 1), INT64_MAX);
  CHECK_INT(mr_price_runtime(prices, INT64_MAX), INT64_MAX);
  CHECK_INT(mr_price_runtime(prices, 3599999999LL), 100000 * MR_CENT - 27778); /* the most that one step holds */
  CHECK_INT(mr_price_searches(prices, INT64_MAX), INT64_MAX);
  u = (struct mr_usage){.input = -5};
  CHECK_INT(mr_price_cost(of("claude-opus-5", ""), &u), 0); /* a provider's nonsense */
  mr_prices_free(&prices);
}

TEST(what_is_shown_is_rounded_up)
{
  CHECK(strcmp(shown(0), "{\"amount\":\"0\",\"currency\":\"USD\"}") == 0);
  CHECK(strcmp(shown(1), "{\"amount\":\"1\",\"currency\":\"USD\"}") == 0);
  CHECK(strcmp(shown(MR_CENT), "{\"amount\":\"1\",\"currency\":\"USD\"}") == 0);
  CHECK(strcmp(shown(MR_CENT + 1), "{\"amount\":\"2\",\"currency\":\"USD\"}") == 0);
  CHECK(strcmp(shown(INT64_MAX), "{\"amount\":\"9223372037\",\"currency\":\"USD\"}") == 0);
}

TEST(the_configuration_stands_before_what_is_built_in)
{
  struct mr_usage u = {.input = 100, .output = 10, .cache_read = 1, .cache_write_5m = 1, .cache_write_1h = 1};
  CHECK(open_prices("{\"date\":\"2027-02-28\",\"models\":{\"qwen*\":{\"input\":0.3,\"output\":1.1},"
                    "\"qwen3-max\":{\"input\":1,\"output\":2,\"cache_read\":0.00001},\"qwen3*\":{\"input\":0,\"output\":0},"
                    "\"claude-opus-5\":{\"input\":1,\"output\":1},\"qwen*@fast\":{\"input\":9,\"output\":9,"
                    "\"long_over\":100,\"long\":{\"input\":18,\"output\":18}}}}") == MR_OK);
  CHECK_STR(mr_prices_date(prices), "2027-02-28");
  CHECK_INT(mr_price_cost(of("qwen2", ""), &u), 103 * 30000 + 10 * 110000); /* caches as input */
  CHECK_INT(mr_price_cost(of("qwen3-max", ""), &u), 100 * 100000 + 10 * 200000 + 1 + 200000);
  CHECK_INT(mr_price_cost(of("qwen3-mini", ""), &u), 0); /* the longer prefix; free, but with a price */
  CHECK(of("qwen3-mini", ""));
  CHECK_INT(mr_price_cost(of("qwen3-max", "fast"), &u), 113 * 1800000);
  CHECK_INT(mr_price_cost(of("claude-opus-5", ""), &u), 113 * 100000);
  CHECK(of("claude-opus-5-20260724", "") && of("claude-opus-5-20260724", "") != of("claude-opus-5", ""));
  mr_prices_free(&prices);
}

TEST(a_wrong_configuration_names_its_key)
{
  static const char *const cases[][2] = {
      {"[]", "prices"},
      {"{\"hour\":1}", "prices.hour"},
      {"{\"hour_usd\":\"0.08\"}", "prices.hour_usd"},
      {"{\"hour_usd\":-1}", "prices.hour_usd"},
      {"{\"hour_usd\":1001}", "prices.hour_usd"},
      {"{\"search_usd_per_1000\":0.000001}", "prices.search_usd_per_1000"},
      {"{\"date\":\"2026-13-01\"}", "prices.date"},
      {"{\"date\":\"yesterday\"}", "prices.date"},
      {"{\"models\":[]}", "prices.models"},
      {"{\"models\":{\"\":{\"input\":1,\"output\":1}}}", "prices.models"},
      {"{\"models\":{\"@fast\":{\"input\":1,\"output\":1}}}", "prices.models"},
      {"{\"models\":{\"m\":5}}", "prices.models.m"},
      {"{\"models\":{\"m\":{\"input\":1}}}", "prices.models.m.output"},
      {"{\"models\":{\"m\":{\"input\":1,\"output\":2,\"cached\":3}}}", "prices.models.m.cached"},
      {"{\"models\":{\"m\":{\"input\":1e300,\"output\":2}}}", "prices.models.m.input"},
      {"{\"models\":{\"m\":{\"input\":1,\"output\":2,\"cache_read\":false}}}", "prices.models.m.cache_read"},
      {"{\"models\":{\"m@fast\":{\"input\":1,\"output\":2,\"long_over\":5}}}", "prices.models.m@fast.long"},
      {"{\"models\":{\"m\":{\"input\":1,\"output\":2,\"long\":{\"input\":1,\"output\":2}}}}",
       "prices.models.m.long_over"},
      {"{\"models\":{\"m\":{\"input\":1,\"output\":2,\"long_over\":1,\"long\":{\"input\":1,\"long\":2}}}}",
       "prices.models.m.long.long"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (open_prices(cases[i][0]) != MR_E_INVALID || strcmp(err.field, cases[i][1]) != 0)
      test_fail(__FILE__, __LINE__, "%s: field \"%s\", not \"%s\"", cases[i][0], err.field, cases[i][1]);
    CHECK(!prices && strstr(err.message, cases[i][1]));
  }
  CHECK_INT(test_allocs(), 0);
}

static int budget_caps(const char *json, struct mr_caps *caps)
{
  yyjson_doc *doc = NULL;
  int code;
  CHECK(mr_json_parse(&test_sys()->mem, mr_str_c(json), 1 << 20, &doc, &err) == MR_OK);
  code = mr_budget_read(yyjson_doc_get_root(doc), caps, &err);
  yyjson_doc_free(doc);
  return code;
}

static int budget(const char *json, int64_t *cap)
{
  struct mr_caps caps = {{0}};
  int code = budget_caps(json, &caps);
  *cap = caps.max[MR_CAP_COST];
  return code;
}

TEST(budgets_are_whole_cents)
{
  static const char *const bad[] = {"\"25.00\"", "\"0\"",   "\"-1\"",  "\"+1\"", "2500",   "\"\"",  "\"007\"",
                                    "\"1e3\"",   "\" 5\"", "\"5 \"",  "null",   "\"1,000\"", "\"9223372037\"",
                                    "\"99999999999999999999999999\""};
  char json[200];
  int64_t cap = 0;

  CHECK(budget("{\"type\":\"limit\",\"max_list_cost\":{\"amount\":\"2500\",\"currency\":\"USD\"}}", &cap) == MR_OK);
  CHECK_INT(cap, 2500 * MR_CENT);
  CHECK(budget("{\"type\":\"limit\",\"max_list_cost\":{\"amount\":\"9223372029\",\"currency\":\"USD\"}}", &cap) == MR_OK);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    snprintf(json, sizeof json, "{\"type\":\"limit\",\"max_list_cost\":{\"amount\":%s,\"currency\":\"USD\"}}", bad[i]);
    if (budget(json, &cap) != MR_E_INVALID || strcmp(err.field, "budget.max_list_cost.amount") != 0)
      test_fail(__FILE__, __LINE__, "%s was taken, or \"%s\" is not its field", bad[i], err.field);
  }
  CHECK(budget("{\"type\":\"limit\",\"max_list_cost\":{\"amount\":\"1\",\"currency\":\"EUR\"}}", &cap) == MR_E_INVALID);
  CHECK(strcmp(err.field, "budget.max_list_cost.currency") == 0);
  CHECK(budget("{\"max_list_cost\":{\"amount\":\"1\",\"currency\":\"USD\"}}", &cap) == MR_E_INVALID);
  CHECK(strcmp(err.field, "budget.type") == 0);
  CHECK(budget("{\"type\":\"limit\",\"max_list_cost\":\"25\"}", &cap) == MR_E_INVALID);
  CHECK(budget("5", &cap) == MR_E_INVALID);
  CHECK(strcmp(err.field, "budget") == 0);
}

/* Our own caps: whole numbers, none of them 0, at least one; a name that nobody knows is refused. */
TEST(caps_are_whole_numbers)
{
  static const char *const bad[][2] = {
      {"\"max_steps\":0", "budget.max_steps"},          {"\"max_steps\":-1", "budget.max_steps"},
      {"\"max_steps\":1.0", "budget.max_steps"},        {"\"max_steps\":\"5\"", "budget.max_steps"},
      {"\"max_tokens\":true", "budget.max_tokens"},     {"\"max_tokens\":1e30", "budget.max_tokens"},
      {"\"max_seconds\":[]", "budget.max_seconds"},     {"\"max_repeats\":1", "budget.max_repeats"},
      {"\"max_tokens\":18446744073709551615", "budget.max_tokens"},
      {"\"max_tokens\":1000000000000001", "budget.max_tokens"},
      {"\"max_step\":5,\"max_tokens\":5", "budget.max_step"}, {"\"max_steps\":null", "budget"},
      {"\"max_steps\":5,\"max_list_cost\":{\"amount\":\"0\",\"currency\":\"USD\"}", "budget.max_list_cost.amount"}};
  struct mr_caps caps = {{0}}, other;
  struct mr_buf b;
  struct mr_jw w;
  char json[300];

  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    snprintf(json, sizeof json, "{\"type\":\"limit\",%s}", bad[i][0]);
    if (budget_caps(json, &caps) != MR_E_INVALID || strcmp(err.field, bad[i][1]) != 0)
      test_fail(__FILE__, __LINE__, "%s: field \"%s\", not \"%s\"", json, err.field, bad[i][1]);
    CHECK(!mr_caps_any(&caps));
  }
  CHECK(budget_caps("{\"type\":\"limit\",\"max_steps\":50,\"max_tokens\":1000000000000000,\"max_seconds\":1,"
                    "\"max_repeats\":2,\"max_list_cost\":null}", &caps) == MR_OK);
  CHECK_INT(caps.max[MR_CAP_COST], 0);
  CHECK_INT(caps.max[MR_CAP_STEPS], 50);
  mr_buf_init(&b, &test_sys()->mem, 1000);
  mr_jw_init(&w, &b);
  mr_budget_write(&w, &caps);
  CHECK_STR(mr_buf_get(&b), "{\"type\":\"limit\",\"max_tokens\":1000000000000000,\"max_seconds\":1,\"max_steps\":50,"
                            "\"max_repeats\":2}");
  CHECK(budget_caps(b.p, &other) == MR_OK && mr_caps_same(&caps, &other));
  mr_buf_free(&b);
  for (int i = 0; i < MR_CAPS; i++)
    CHECK_INT(mr_cap_find(mr_str_c(mr_cap_key(i))), i);
  CHECK_INT(mr_cap_find(MR_S("max")), MR_CAPS);
}
