/* net_url - percent coding and query strings. */
#include "kit.h"
#include "net/url.h"

static struct mr_arena *a;
static void start(void) { a = mr_arena_new(&test_sys()->mem, 256); }
static void stop(void)
{
  mr_arena_free(&a);
  CHECK_INT(test_allocs(), 0);
}
static struct mr_str dec(const char *s, bool plus) { return mr_url_decode(a, mr_str_c(s), plus); }

TEST(decode)
{
  start();
  CHECK_STR(dec("", false), "");
  CHECK(dec("", false).p);
  CHECK_STR(dec("abc", false), "abc");
  CHECK_STR(dec("%41%62%2f%2F", false), "Ab//");
  CHECK_STR(dec("a+b", true), "a b");
  CHECK_STR(dec("a+b", false), "a+b");
  CHECK_STR(dec("%2B", true), "+");
  CHECK_STR(dec("%25%32%35", false), "%25"); /* once */
  CHECK_STR(dec("caf%C3%A9", false), "caf\xc3\xa9");
  stop();
}

TEST(malformed)
{
  static const char *const bad[] = {"%", "%4", "a%", "%4g", "%g4", "%%41", "%00", "a%00b", "%ff", "%C3", "%c0%af",
                                    "%ed%a0%80", "%f5%80%80%80", "% 41", "%+1"};
  start();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (dec(bad[i], true).p) test_fail(__FILE__, __LINE__, "\"%s\" was decoded", bad[i]);
  CHECK(!mr_url_decode(a, mr_str_n("a\0b", 3), false).p);
  stop();
}

static char pairs[4096];
static int stop_at, npairs;
static int on_pair(void *ud, struct mr_str name, struct mr_str value)
{
  CHECK(ud == pairs);
  snprintf(pairs + strlen(pairs), sizeof pairs - strlen(pairs), "[" MR_FMT "|" MR_FMT "]", MR_ARG(name), MR_ARG(value));
  return ++npairs == stop_at ? 77 : 0;
}

static int query(const char *q)
{
  pairs[0] = '\0';
  npairs = 0;
  return mr_url_query(a, mr_str_c(q), on_pair, pairs);
}

TEST(queries)
{
  static const struct { const char *in, *out; } good[] = {
      {"", ""},
      {"a=1", "[a|1]"},
      {"a=1&b=2&a=3", "[a|1][b|2][a|3]"},
      {"a", "[a|]"},
      {"a=", "[a|]"},
      {"a==b=", "[a|=b=]"},
      {"&&a=1&", "[a|1]"},
      {"=x&a=1", "[a|1]"},
      {"statuses[]=a&statuses%5B%5D=b", "[statuses[]|a][statuses[]|b]"},
      {"created_at%5Bgte%5D=2026-01-01T00%3A00%3A00Z", "[created_at[gte]|2026-01-01T00:00:00Z]"},
      {"q=a+b%26c", "[q|a b&c]"},
  };
  start();
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    CHECK_INT(query(good[i].in), MR_OK);
    if (strcmp(pairs, good[i].out) != 0) test_fail(__FILE__, __LINE__, "\"%s\" gave %s", good[i].in, pairs);
  }
  CHECK_INT(query("a=1&b=%zz"), MR_E_INVALID);
  CHECK_INT(query("%ff=1"), MR_E_INVALID);
  stop_at = 2;
  CHECK_INT(query("a&b&c"), 77);
  CHECK_INT(npairs, 2);
  CHECK_INT(mr_url_query(a, mr_str_n(NULL, 0), on_pair, pairs), MR_OK);
  stop();
}

static int count_pair(void *ud, struct mr_str name, struct mr_str value) { return ++*(int *)ud, 0; }

TEST(at_most_a_thousand)
{
  static char q[4000];
  int n = 0;
  start();
  for (int i = 0; i < 1000; i++) strcat(q + 2 * i, "a&"); /* banned-ok: test */
  CHECK_INT(mr_url_query(a, mr_str_c(q), count_pair, &n), MR_OK);
  CHECK_INT(n, 1000);
  n = 0;
  strcat(q, "a"); /* banned-ok: test */
  CHECK_INT(mr_url_query(a, mr_str_c(q), count_pair, &n), MR_E_INVALID);
  CHECK_INT(n, 1000);
  stop();
}

TEST(encode_and_back)
{
  char all[255];
  start();
  CHECK_STR(mr_url_encode(a, MR_S("")), "");
  CHECK_STR(mr_url_encode(a, MR_S("AZaz09-._~")), "AZaz09-._~");
  CHECK_STR(mr_url_encode(a, MR_S("a b/c?d=e&f#g%h+i")), "a%20b%2Fc%3Fd%3De%26f%23g%25h%2Bi");
  CHECK_STR(mr_url_encode(a, MR_S("\xc3\xa9")), "%C3%A9");
  for (int i = 1; i < 128; i++) all[i - 1] = (char)i;
  struct mr_str in = mr_str_n(all, 127), enc = mr_url_encode(a, in);
  CHECK(mr_str_eq(mr_url_decode(a, enc, true), in));
  CHECK(mr_str_eq(mr_url_decode(a, enc, false), in));
  stop();
}

TEST(no_memory)
{
  start();
  test_fail_after(0);
  CHECK(!mr_url_decode(a, mr_str_n("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                                   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                                   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                                   "aaaaaaaaaaaaaaaaaaaaaaaaa", 280), false).p);
  test_fail_after(-1);
  stop();
}
