/* net_weburl - URLs that others wrote, in one form. */
#include "kit.h"

#include "net/weburl.h"

static const char *read_as(const char *base, const char *text)
{
  static struct mr_weburl u;
  struct mr_err err = {0};

  return mr_weburl_read(&u, base, mr_str_c(text), &err) == MR_OK ? u.url : "";
}

TEST(one_form)
{
  static const char *const forms[][2] = {
      {"http://Example.COM", "http://example.com/"},
      {"HTTPS://example.com:443/a?b=C#d", "https://example.com/a?b=C"},
      {"http://example.com:80", "http://example.com/"},
      {"https://example.com:80/", "https://example.com:80/"},
      {"https://example.com./x", "https://example.com/x"},
      {"http://0x7f.1/", "http://127.0.0.1/"},
      {"http://[::1]:8080/x", "http://[::1]:8080/x"},
      {"https://example.com?q", "https://example.com/?q"},
      {"https://example.com/a/../b/./c", "https://example.com/b/c"},
      {"https://example.com/\xc3\xa4?x=\xc3\xb6", "https://example.com/%c3%a4?x=%c3%b6"},
      {"https://user@example.com/", ""},
      {"https://user:pw@example.com/", ""},
      {"ftp://example.com/", ""},
      {"file:///etc/passwd", ""},
      {"javascript:alert(1)", ""},
      {"data:text/html,x", ""},
      {"mailto:a@example.com", ""},
      {"example.com/x", ""},
      {"/x", ""},
      {"http://", ""},
      {"https://exa mple.com/", ""},
      {"https://example.com/\nx", ""},
      {"", ""},
  };

  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    const char *is = read_as(NULL, forms[i][0]);
    if (strcmp(is, forms[i][1]) != 0)
      test_fail(__FILE__, __LINE__, "%s is \"%s\", not \"%s\"", forms[i][0], is, forms[i][1]);
  }
}

TEST(relative_ones)
{
  static const char *const forms[][2] = {
      {"c", "https://example.com/a/c"},      {"/c?d#e", "https://example.com/c?d"},
      {"../c", "https://example.com/c"},     {"//other.example/c", "https://other.example/c"},
      {"?q", "https://example.com/a/b?q"},   {"#x", "https://example.com/a/b"},
      {"http://x.example", "http://x.example/"}, {"javascript:void(0)", ""},
      {"mailto:x@example.com", ""},          {"//u@other.example/", ""},
  };

  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    const char *is = read_as("https://example.com/a/b", forms[i][0]);
    if (strcmp(is, forms[i][1]) != 0)
      test_fail(__FILE__, __LINE__, "%s is \"%s\", not \"%s\"", forms[i][0], is, forms[i][1]);
  }
}

/* 41 */
TEST(domains)
{
  struct mr_weburl u;

  CHECK_INT(mr_weburl_read(&u, NULL, MR_S("https://Docs.Example.com./x"), NULL), MR_OK);
  CHECK(mr_weburl_in_domain(&u, MR_S("example.com")));
  CHECK(mr_weburl_in_domain(&u, MR_S("docs.EXAMPLE.com")));
  CHECK(!mr_weburl_in_domain(&u, MR_S("www.example.com")));
  CHECK(!mr_weburl_in_domain(&u, MR_S("ample.com")));
  CHECK(!mr_weburl_in_domain(&u, MR_S("")));
  CHECK_INT(mr_weburl_read(&u, NULL, MR_S("https://example.com/"), NULL), MR_OK);
  CHECK(!mr_weburl_in_domain(&u, MR_S("docs.example.com")));
  CHECK(!mr_weburl_in_domain(&u, MR_S("www.example.com")));
}
