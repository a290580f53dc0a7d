/*
 * net_multipart - multipart/form-data in any cut: each body is fed whole, byte by byte and at each possible
 * place in two, and must read the same.
 */
#include "kit.h"
#include "base/buf.h"
#include "net/multipart.h"

static struct mr_buf seen; /* name|filename|type(data) of each part */
static int stop_in;        /* 1 part, 2 data, 3 end: return 55 there */

static struct mr_str or_dash(struct mr_str s) { return s.p ? s : MR_S("-"); }
static int on_part(void *ud, struct mr_str name, struct mr_str file, struct mr_str type)
{
  mr_buf_printf(&seen, MR_FMT "|" MR_FMT "|" MR_FMT "(", MR_ARG(name), MR_ARG(or_dash(file)), MR_ARG(or_dash(type)));
  return stop_in == 1 ? 55 : 0;
}
static int on_data(void *ud, struct mr_str bytes)
{
  mr_buf_str(&seen, bytes);
  return stop_in == 2 ? 55 : 0;
}
static int on_end(void *ud)
{
  mr_buf_char(&seen, ')');
  return stop_in == 3 ? 55 : 0;
}
static const struct mr_multipart_cbs cbs = {on_part, on_data, on_end};

static int run(const char *type, struct mr_str body, size_t first, size_t step)
{
  struct mr_multipart *p;
  struct mr_err err = {0};
  int code;
  mr_buf_free(&seen);
  mr_buf_init(&seen, &test_sys()->mem, 64 << 20);
  code = mr_multipart_new(&p, &test_sys()->mem, mr_str_c(type), &cbs, NULL, &err);
  for (size_t at = 0; code == MR_OK && at < body.n;) {
    size_t n = at == 0 && first ? first : step;
    if (n > body.n - at) n = body.n - at;
    code = mr_multipart_feed(p, mr_str_n(body.p + at, n), &err);
    at += n;
  }
  if (code == MR_OK) code = mr_multipart_finish(p, &err);
  if (code == MR_E_INVALID) CHECK(err.message[0]);
  mr_multipart_free(&p);
  return code;
}

static void stop(void)
{
  mr_buf_free(&seen);
  CHECK_INT(test_allocs(), 0);
}

#define TYPE "multipart/form-data; boundary=BB"

static void reads(struct mr_str body, const char *want)
{
  for (size_t first = 0; first <= body.n; first++) {
    int code = run(TYPE, body, first, first ? body.n : 1);
    if (code != MR_OK || !mr_str_is(mr_buf_get(&seen), want))
      test_fail(__FILE__, __LINE__, "cut at %zu: code %d, \"%.*s\", not \"%s\"", first, code, (int)seen.n, seen.p, want);
  }
}

#define PART(head, data) "--BB\r\n" head "\r\n\r\n" data "\r\n"
#define FIELD(name) "Content-Disposition: form-data; name=" name

TEST(parts)
{
  reads(MR_S(PART(FIELD("a"), "1") "--BB--"), "a|-|-(1)");
  reads(MR_S(PART(FIELD("\"a\""), "1") PART(FIELD("b"), "") "--BB--\r\n"), "a|-|-(1)b|-|-()");
  reads(MR_S("preamble\r\n" PART(FIELD("a"), "1") "--BB--\r\nepilogue --BB\r\n"), "a|-|-(1)");
  reads(MR_S(PART(FIELD("file; filename=\"x y.txt\"\r\ncontent-type: text/plain"), "l1\r\nl2\r\n") "--BB--"),
        "file|x y.txt|text/plain(l1\r\nl2\r\n)");
  reads(MR_S("--BB--"), "");
  /* RFC 2046 §5.1.1: without a body, no CRLF of its own before the delimiter. */
  reads(MR_S("--BB\r\n" FIELD("a") "\r\n\r\n" PART(FIELD("b"), "-") "--BB--"), "a|-|-()b|-|-(-)");
  reads(MR_S(PART(FIELD("a"), "--B") "--BB--"), "a|-|-(--B)");
  stop();
}

TEST(what_looks_like_a_delimiter)
{
  reads(MR_S(PART(FIELD("a"), "\r\n--B\r\n--BC\r\n-\r--BB") "--BB--"), "a|-|-(\r\n--B\r\n--BC\r\n-\r--BB)");
  reads(MR_S(PART(FIELD("a"), "x--BB--") "--BB--"), "a|-|-(x--BB--)"); /* not at the beginning of a line */
  reads(MR_S(PART(FIELD("a"), "\r\n\r\n\r") "--BB--"), "a|-|-(\r\n\r\n\r)");
  stop();
}

TEST(names)
{
  reads(MR_S(PART(FIELD("\"a\\\"b\\\\c\""), "1") "--BB--"), "a\"b\\c|-|-(1)");
  reads(MR_S(PART(FIELD("\"f\"; filename=\"a;b=c.txt\""), "1") "--BB--"), "f|a;b=c.txt|-(1)");
  reads(MR_S(PART("content-DISPOSITION:form-data;NAME=x ; FileName=y", "1") "--BB--"), "x|y|-(1)");
  reads(MR_S(PART("X-Other: 1\r\n" FIELD("x") "\r\nContent-Type:  a/b; c=d ", "1") "--BB--"), "x|-|a/b; c=d(1)");
  reads(MR_S(PART(FIELD("\"caf\xc3\xa9\"; filename=\"\""), "1") "--BB--"), "caf\xc3\xa9||-(1)");
  stop();
}

TEST(binary_data)
{
  static char body[70000];
  size_t n = (size_t)snprintf(body, sizeof body, "--BB\r\n" FIELD("f") "\r\n\r\n"), at = n;
  for (int i = 0; i < 65536; i++) body[n++] = (char)(i * 7 + i / 256);
  memcpy(body + n, "\r\n--BB--", 8);
  n += 8;
  for (size_t step = 1; step < 70000; step = step * 3 + 1) {
    CHECK_INT(run(TYPE, mr_str_n(body, n), 0, step), MR_OK);
    CHECK_INT(seen.n, 65536 + 7); /* f|-|-( ) */
    CHECK(memcmp(seen.p + 6, body + at, 65536) == 0);
  }
  stop();
}

TEST(content_types)
{
  static const char *const good[] = {"multipart/form-data; boundary=BB", "Multipart/Form-Data;boundary=BB",
                                     "multipart/form-data; charset=utf-8; boundary=\"BB\"", "multipart/form-data; BOUNDARY=BB; x=y"};
  static const char *const bad[] = {"", "application/json", "multipart/form-data", "multipart/form-data; boundary=",
                                    "multipart/mixed; boundary=BB", "multipart/form-data; boundary=\"\"",
                                    "multipart/form-data; xboundary=BB", "multipart/form-data; boundary=B\tB",
                                    ("multipart/form-data; boundary="
                                    "01234567890123456789012345678901234567890123456789012345678901234567890")};
  struct mr_str body = MR_S(PART(FIELD("a"), "1") "--BB--");
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) CHECK_INT(run(good[i], body, 0, 5), MR_OK);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (run(bad[i], body, 0, 5) != MR_E_INVALID) test_fail(__FILE__, __LINE__, "\"%s\" was taken", bad[i]);
  stop();
}

TEST(malformed)
{
  static const char *const bad[] = {
      "", "no delimiter", "--BB\r\n", PART(FIELD("a"), "1"), PART(FIELD("a"), "1") "--BB", PART(FIELD("a"), "1") "--BB-",
      "--BBx\r\n" FIELD("a") "\r\n\r\n1\r\n--BB--", PART("X: no name", "1") "--BB--",
      PART("Content-Disposition: form-data", "1") "--BB--"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    for (size_t step = 1; step < 200; step += 198)
      if (run(TYPE, mr_str_c(bad[i]), 0, step) != MR_E_INVALID) test_fail(__FILE__, __LINE__, "\"%s\" was taken", bad[i]);
  stop();
}

TEST(callbacks_stop_it)
{
  struct mr_str body = MR_S(PART(FIELD("a"), "1") "--BB--");
  for (stop_in = 1; stop_in <= 3; stop_in++) CHECK_INT(run(TYPE, body, 0, 100), 55);
  stop_in = 0;
  stop();
}

TEST(bounds)
{
  static char body[1 << 20];
  size_t n = (size_t)snprintf(body, sizeof body, "--BB\r\n" FIELD("a") "\r\nx: ");
  memset(body + n, 'y', 20000);
  memcpy(body + n + 20000, "\r\n\r\n1\r\n--BB--", 14);
  CHECK_INT(run(TYPE, mr_str_n(body, n + 20014), 0, 1000), MR_E_TOO_LARGE); /* headers of a part */
  n = 0;
  for (int i = 0; i < 1001; i++) n += (size_t)snprintf(body + n, sizeof body - n, PART(FIELD("a"), ""));
  n += (size_t)snprintf(body + n, sizeof body - n, "--BB--");
  CHECK_INT(run(TYPE, mr_str_n(body, n), 0, 4096), MR_E_TOO_LARGE); /* parts */
  stop();
}

TEST(every_allocation_may_fail)
{
  struct mr_str body = MR_S(PART(FIELD("a; filename=b"), "12345") "--BB--");
  for (int n = 0; n < 12; n++) {
    struct mr_multipart *p = NULL;
    struct mr_err err = {0};
    mr_buf_init(&seen, &test_sys()->mem, 1 << 20);
    mr_buf_reserve(&seen, 4096);
    test_fail_after(n);
    int code = mr_multipart_new(&p, &test_sys()->mem, MR_S(TYPE), &cbs, NULL, &err);
    if (code == MR_OK) code = mr_multipart_feed(p, body, &err);
    if (code == MR_OK) code = mr_multipart_finish(p, &err);
    test_fail_after(-1);
    if (n >= 10) CHECK_INT(code, MR_OK);
    if (n == 0) CHECK(code != MR_OK);
    mr_multipart_free(&p);
    stop();
  }
}
