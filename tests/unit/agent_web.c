/* agent_web - pages as text, charsets, and which URLs a text has: what the web tools make of what strangers wrote. */
#include "kit.h"

#include "agent/web.h"

#include <stdlib.h>
#include <time.h>

static char got[1 << 20], title_got[600];

/* The text of a page, as a model gets it. */
static const char *page(const char *type, struct mr_str bytes, int64_t tokens)
{
  struct mr_webpage_in in = {.mem = &test_sys()->mem,
                             .bytes = bytes,
                             .type = mr_str_c(type),
                             .url = "https://example.com/a/b",
                             .tokens_max = tokens};
  struct mr_err err = {0};
  yyjson_doc *doc = NULL;
  yyjson_val *b;
  struct mr_buf out;
  int code;

  mr_buf_init(&out, in.mem, SIZE_MAX / 2);
  code = mr_webpage_block(&in, &out, &err);
  snprintf(got, sizeof got, "%s", code == MR_OK ? "" : err.message);
  if (code == MR_OK) {
    CHECK_INT(mr_json_parse(in.mem, mr_buf_get(&out), SIZE_MAX, &doc, &err), MR_OK);
    b = yyjson_arr_get_first(yyjson_doc_get_root(doc));
    CHECK_STR(mr_json_get_str(b, "type"), "document");
    CHECK_STR(mr_json_get_str(b, "context"), "https://example.com/a/b");
    snprintf(got, sizeof got, MR_FMT, MR_ARG(mr_json_get_str(mr_json_get(b, "source"), "data")));
    snprintf(title_got, sizeof title_got, MR_FMT, MR_ARG(mr_json_get_str(b, "title")));
    yyjson_doc_free(doc);
  }
  mr_buf_free(&out);
  CHECK_INT(test_allocs(), 0);
  return got;
}

TEST(html_as_text)
{
  static const char *const pages[][2] = {
      {"<p>a<p>b", "a\n\nb"},
      {"a<br>b<br/>c", "a\nb\nc"},
      {"  a \n b\t<i>c</i>d  ", "a b cd"},
      {"<h2>H</h2>text<h3> I <em>J</em></h3>", "## H\n\ntext\n\n### I J"},
      {"<ul><li>a<li>b<ul><li>c</ul><li>d</ul>e", "- a\n- b\n  - c\n- d\n\ne"},
      {"<ol><li><p>a</p></li><li><p>b</p></li></ol>", "- a\n\n- b"},
      {"<a href='/x'>x</a>", "[x](https://example.com/x)"},
      {"<a href=c?d=1&amp;e=2#f>x <b>y</b></a>z", "[x y](https://example.com/a/c?d=1&e=2)z"},
      {"<a href='//other.example/'>x</a>", "[x](https://other.example/)"},
      {"<a href='https://x.example'><img src=a></a>b", "b"},
      {"<a href='https://x.example'><img src=a alt=pic></a>", "[[image: pic]](https://x.example/)"},
      {"<a href='javascript:alert(1)'>x</a> <a href='mailto:a@b.c'>y</a> <a>z</a>", "x y z"},
      {"<a href='https://u:p@x.example/'>x</a>", "x"},
      {"<base href='https://base.example/d/'><a href=e>x</a>", "[x](https://base.example/d/e)"},
      {"a<script>b</script>c<style>d</style><script type='text/x'><p>e</p></script>", "ac"},
      {"a<template><p>b</p></template><svg><text>c</text></svg><select><option>d</select>e", "ae"},
      {"<p hidden>a</p><p style='display:none'>b <b>c</b></p><p aria-hidden=true>d</p>e", "e"},
      {"<noscript>a</noscript>b", "ab"},
      {"<!-- a -->b<?d?>", "b"},
      {"<pre>a\n  b</pre>c", "```\na\n  b\n```\n\nc"},
      {"<table><tr><td>a<td>b<tr><td>c<td>d</table>", "a | b\nc | d"},
      {"a &amp; &lt;b&gt; &#8364; &#x20ac; &nbsp;c &eacute;", "a & <b> \xe2\x82\xac \xe2\x82\xac \xc2\xa0" "c \xc3\xa9"},
      {"a<hr>b", "a\n\n---\n\nb"},
      {"<article><header>a</header><section>b</section></article>", "a\n\nb"},
      {"<body onload='x'>a</body></html>", "a"},
      {"a<unknown-thing>b</unknown-thing>c", "abc"},
      {"<a href=/x>one<a href=/y>two", "[one](https://example.com/x)[two](https://example.com/y)"},
      {"<a href=/x>cut off <p", "[cut off](https://example.com/x)"},
      {"", "(There is no text here.)"},
      {"<script>only</script>", "(There is no text here.)"},
  };

  for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
    const char *text = page("text/html; charset=utf-8", mr_str_c(pages[i][0]), 0);
    if (strcmp(text, pages[i][1]) != 0)
      test_fail(__FILE__, __LINE__, "%s is \"%s\", not \"%s\"", pages[i][0], text, pages[i][1]);
  }
}

TEST(titles)
{
  page("text/html", MR_S("<title>\n A  title &amp;\tmore </title><title>no</title>text"), 0);
  CHECK_STR(mr_str_c(title_got), "A title & more");
  CHECK_STR(mr_str_c(got), "text");
  page("text/html", MR_S("<svg><title>no</title></svg>text"), 0);
  CHECK_STR(mr_str_c(title_got), "");
  page("text/plain", MR_S("<title>x</title>"), 0);
  CHECK_STR(mr_str_c(got), "<title>x</title>");
}

TEST(tokens_bound_the_text)
{
  static char words[100001];

  memset(words, 'x', sizeof words - 1);
  page("text/plain", mr_str_c(words), 10);
  CHECK_STR(mr_str_n(got, 40), "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
  CHECK_STR(mr_str_n(got + 40, 2), "\n\n");
  memcpy(words, "\xe2\x82\xac\xe2\x82\xac", 6); /* never within a character */
  page("text/plain", mr_str_c(words), 1);
  CHECK_STR(mr_str_n(got, 5), "\xe2\x82\xac\n\n");
}

TEST(charsets)
{
  static const struct {
    const char *type, *bytes;
    size_t n;
    const char *text;
  } pages[] = {{"text/plain", "\xe4", 1, "\xc3\xa4"},
               {"text/plain; charset=UTF-8", "a\xe4" "b", 3, "a\xef\xbf\xbd" "b"},
               {"text/plain; Charset=\"latin1\"", "\x80", 1, "\xe2\x82\xac"},
               {"text/plain;charset=koi8-r", "\xd0\xd2\xc9", 3, "\xd0\xbf\xd1\x80\xd0\xb8"},
               {"text/plain", "\xff\xfe" "a\0\xac\x20", 6, "a\xe2\x82\xac"},
               {"text/plain", "\xef\xbb\xbf" "a", 4, "a"},
               {"text/plain; charset=utf-16be", "\0a\xd8", 3, "a\xef\xbf\xbd"},
               {"text/plain; charset=iso-2022-cn-ext", "a", 1, "a"},
               {"text/plain; charset=//TRANSLIT", "\xe4", 1, "\xc3\xa4"},
               {"text/html", "<meta charset='windows-1251'>\xef", 30, "\xd0\xbf"},
               {"text/html", "<meta charset=utf-16>a", 22, "a"},
               {"text/html; charset=utf-8", "<meta charset='windows-1251'>\xd0\xbf", 31, "\xd0\xbf"},
               {"text/plain", "a\0b\x1b[1mc\x7f\r\n", 11, "ab[1mc\r\n"}};

  for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
    const char *text = page(pages[i].type, mr_str_n(pages[i].bytes, pages[i].n), 0);
    if (strcmp(text, pages[i].text) != 0)
      test_fail(__FILE__, __LINE__, "%zu: \"%s\", not \"%s\"", i, text, pages[i].text);
  }
}

TEST(kinds)
{
  static const struct {
    const char *type, *bytes, *text;
  } pages[] = {{"application/json", "{\"a\":1}", "{\"a\":1}"},
               {"application/xml", "<a>b</a>", "<a>b</a>"},
               {"application/xhtml+xml", "<p>a</p>", "a"},
               {"", "<!DOCTYPE html><p>a", "a"},
               {"application/octet-stream", "  <html><p>a", "a"},
               {"", "words", "words"},
               {"", "\xff\xff\xff\xff\xff\xff", "neither HTML nor another text nor a PDF"},
               {"image/svg+xml", "<svg/>", "neither HTML nor another text nor a PDF: image/svg+xml"},
               {"application/pdf", "<p>", "neither HTML nor another text nor a PDF: application/pdf"},
               {"application/pdf; x=y", "%PDF-1", "JVBERi0x"},
               {"video/mp4", "x", "neither HTML nor another text nor a PDF: video/mp4"}};

  for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
    if (strcmp(page(pages[i].type, mr_str_c(pages[i].bytes), 0), pages[i].text) != 0)
      test_fail(__FILE__, __LINE__, "%s: \"%s\", not \"%s\"", pages[i].type, got, pages[i].text);
}

/* Whatever the bytes, it ends, and the result is JSON in UTF-8; cut at each byte, and with bytes changed. */
TEST(any_bytes)
{
  static const char whole[] =
      "<!doctype html><title>T</title><base href=/x><p class=\"a\">b &amp; c &#x41; <a href='/d?e=f'>g</a>"
      "<ul><li>h<li>i</ul><table><tr><td>j<td>k</table><pre>l</pre><script>m</script><!-- n --><h1>o</h1>";
  char text[sizeof whole];
  unsigned seed = 7;

  for (size_t n = 0; n < sizeof whole; n++)
    page("text/html", mr_str_n(whole, n), 0);
  for (int i = 0; i < 3000; i++) {
    memcpy(text, whole, sizeof text);
    for (int k = 0; k < 1 + i % 7; k++) {
      seed = seed * 1103515245 + 12345;
      text[(seed >> 8) % sizeof text] = (char)(seed >> 20);
    }
    page(i % 2 ? "text/html" : "", mr_str_n(text, sizeof text - 1), 0);
  }
}

/* Pages that take time with the square of their size, where nothing bounds it; the limit of time is that of tests. */
TEST(hostile_pages)
{
  enum { SIZE = 9 << 20 };
  char *p = malloc(SIZE);
  size_t n = (size_t)sprintf(p, "<p>first words</p><a ");

  for (int i = 0; n < SIZE - 20; i++)
    n += (size_t)sprintf(p + n, "a%d ", i);
  n += (size_t)sprintf(p + n, ">x");
  CHECK(strncmp(page("text/html", mr_str_n(p, n), 0), "first words", 11) == 0);
  n = (size_t)sprintf(p, "<p>first words</p>");
  for (int i = 0; i < 900; i++)
    n += (size_t)sprintf(p + n, "<i>");
  while (n < SIZE - 20)
    n += (size_t)sprintf(p + n, "</u>");
  CHECK(strncmp(page("text/html", mr_str_n(p, n), 0), "first words", 11) == 0);
  n = (size_t)sprintf(p, "first words <img src='data:image/png;base64,");
  memset(p + n, 'A', SIZE / 2);
  n += SIZE / 2;
  n += (size_t)sprintf(p + n, "'> last words");
  CHECK_STR(mr_str_c(page("text/html", mr_str_n(p, n), 0)), "first words last words");
  n = 0;
  for (int i = 0; i < 20000; i++)
    n += (size_t)sprintf(p + n, "<a href=\"/x\">y</a> "); /* whole, although quotes stand at every border of pieces */
  sprintf(p + n, "last words");
  CHECK(strstr(page("text/html", mr_str_c(p), 0), "last words"));
  free(p);
}

/* ---- which URLs a text has ---- */

static struct mr_domain domain;
static struct mr_session session;

static bool has(const char *url, uint64_t sources)
{
  struct mr_weburl u;

  CHECK_INT(mr_weburl_read(&u, NULL, mr_str_c(url), NULL), MR_OK);
  return mr_seen_has(&session, &u, sources);
}

static void says(const char *json, uint64_t source)
{
  yyjson_doc *doc = NULL;

  CHECK_INT(mr_json_parse(domain.mem, mr_str_c(json), SIZE_MAX, &doc, NULL), MR_OK);
  mr_seen_content(&session, yyjson_doc_get_root(doc), source);
  yyjson_doc_free(doc);
}

static void begin(void)
{
  domain.mem = &test_sys()->mem;
  session.d = &domain;
  session.mem = mr_arena_new(domain.mem, 4096);
}

static void end(void)
{
  mr_seen_free(&session);
  mr_arena_free(&session.mem);
  CHECK_INT(test_allocs(), 0);
}

TEST(urls_of_a_text)
{
  begin();
  says("[{\"type\":\"text\",\"text\":\"See https://a.example/x?y=1, (http://b.example/p) and "
       "[c](https://c.example/q(1)/r). <https://d.example/s> 'https://e.example/t'; "
       "HTTPS://F.Example/U. ftp://g.example/ nohttps://h.example/v \\\"https://i.example/w\\\"\"}]",
       MR_SEEN_FETCH);
  CHECK(has("https://a.example/x?y=1", MR_SEEN_FETCH));
  CHECK(has("http://b.example/p", MR_SEEN_FETCH));
  CHECK(has("https://b.example/p#z", MR_SEEN_FETCH));
  CHECK(has("https://c.example/q(1)/r", MR_SEEN_FETCH));
  CHECK(has("https://d.example/s", MR_SEEN_FETCH));
  CHECK(has("https://e.example/t", MR_SEEN_FETCH));
  CHECK(has("https://f.example/U", MR_SEEN_FETCH));
  CHECK(has("https://i.example/w", MR_SEEN_FETCH));
  CHECK(!has("https://f.example/u", ~UINT64_C(0)));
  CHECK(!has("https://g.example/", ~UINT64_C(0)));
  CHECK(!has("https://a.example/x", ~UINT64_C(0)));
  CHECK(!has("https://a.example/x?y=12", ~UINT64_C(0)));
  CHECK(!has("https://a.example:8443/x?y=1", ~UINT64_C(0)));
  CHECK(!has("https://a.example/x?y=1", MR_SEEN_USER | MR_SEEN_SEARCH));
  end();
}

TEST(urls_of_people)
{
  begin();
  says("\"please read example.com, docs.example.com/a/b?c and (www.example.org). Not a.b@mail.example, v1.2.3 or 10.0.0.1\"",
       MR_SEEN_USER);
  CHECK(has("https://example.com/", MR_SEEN_USER));
  CHECK(has("http://example.com", MR_SEEN_USER));
  CHECK(has("https://docs.example.com/a/b?c", MR_SEEN_USER));
  CHECK(has("https://www.example.org/", MR_SEEN_USER));
  CHECK(!has("https://mail.example/", MR_SEEN_USER));
  CHECK(!has("https://10.0.0.1/", MR_SEEN_USER));
  says("[{\"type\":\"text\",\"text\":\"other.example.com\"}]", MR_SEEN_FETCH); /* of a page: only whole URLs */
  CHECK(!has("https://other.example.com/", ~UINT64_C(0)));
  end();
}

TEST(urls_of_blocks)
{
  begin();
  says("[{\"type\":\"document\",\"source\":{\"type\":\"url\",\"url\":\"https://a.example/x.pdf\"}},"
       "{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"https://b.example/y.png\"}},"
       "{\"type\":\"document\",\"source\":{\"type\":\"text\",\"data\":\"https://c.example/z\"},\"title\":\"https://d.example/t\","
       "\"context\":\"https://e.example/c\"},"
       "{\"type\":\"search_result\",\"source\":\"https://f.example/\",\"title\":\"t\",\"content\":[{\"type\":\"text\",\"text\":"
       "\"https://g.example/\"}]}]",
       MR_SEEN_SEARCH);
  CHECK(has("https://a.example/x.pdf", MR_SEEN_SEARCH) && has("https://b.example/y.png", MR_SEEN_SEARCH));
  CHECK(has("https://c.example/z", MR_SEEN_SEARCH) && has("https://d.example/t", MR_SEEN_SEARCH));
  CHECK(has("https://e.example/c", MR_SEEN_SEARCH) && has("https://f.example", MR_SEEN_SEARCH));
  CHECK(has("https://g.example/", MR_SEEN_SEARCH));
  end();
}

/* The newest are known, memory is bounded. */
TEST(very_many_urls)
{
  char text[120];
  int known = 0;

  begin();
  for (int i = 0; i < 150000; i++) {
    snprintf(text, sizeof text, "\"https://x%d.example/\"", i);
    says(text, MR_SEEN_SEARCH);
  }
  for (int i = 0; i < 150000; i++) {
    snprintf(text, sizeof text, "https://x%d.example/", i);
    known += has(text, MR_SEEN_SEARCH);
    if (i >= 150000 - 32768) CHECK(has(text, MR_SEEN_SEARCH));
  }
  CHECK(known >= 32768 && known <= 65536);
  end();
}

TEST(tools_have_bits)
{
  uint64_t all = 0, bit;
  char name[20];

  begin();
  CHECK_INT(mr_seen_tool(&session, MR_S("web_search")), MR_SEEN_SEARCH);
  CHECK_INT(mr_seen_tool(&session, MR_S("web_fetch")), MR_SEEN_FETCH);
  for (int i = 0; i < 60; i++) {
    snprintf(name, sizeof name, "tool%d", i);
    bit = mr_seen_tool(&session, mr_str_c(name));
    CHECK(!(all & bit) && !(bit & (MR_SEEN_USER | MR_SEEN_SEARCH | MR_SEEN_FETCH | MR_SEEN_OTHERS)));
    all |= bit;
  }
  CHECK(mr_seen_tool(&session, MR_S("one more")) == MR_SEEN_OTHERS);
  CHECK(mr_seen_tool(&session, MR_S("tool59")) == bit);
  end();
}
