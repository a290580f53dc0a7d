/*
 * web_text.c - text of the web as UTF-8. Converts with iconv, and only from the charsets of the table: a page does not
 * choose which of the C library's converters runs. What a label means is as browsers take it (latin1 is windows-1252).
 * Control characters go, bad bytes become U+FFFD. Pool threads, no state.
 */
#include "agent/web.h"

#include <errno.h>
#include <iconv.h>

static const struct {
  const char *label, *name;
} charsets[] = {{"utf-8", "UTF-8"},
                {"utf8", "UTF-8"},
                {"us-ascii", "WINDOWS-1252"},
                {"ascii", "WINDOWS-1252"},
                {"iso-8859-1", "WINDOWS-1252"},
                {"iso8859-1", "WINDOWS-1252"},
                {"latin1", "WINDOWS-1252"},
                {"windows-1252", "WINDOWS-1252"},
                {"cp1252", "WINDOWS-1252"},
                {"iso-8859-2", "ISO-8859-2"},
                {"latin2", "ISO-8859-2"},
                {"iso-8859-5", "ISO-8859-5"},
                {"iso-8859-7", "ISO-8859-7"},
                {"iso-8859-9", "WINDOWS-1254"},
                {"iso-8859-15", "ISO-8859-15"},
                {"windows-1250", "WINDOWS-1250"},
                {"windows-1251", "WINDOWS-1251"},
                {"windows-1253", "WINDOWS-1253"},
                {"windows-1254", "WINDOWS-1254"},
                {"windows-1255", "WINDOWS-1255"},
                {"windows-1256", "WINDOWS-1256"},
                {"windows-1257", "WINDOWS-1257"},
                {"windows-1258", "WINDOWS-1258"},
                {"koi8-r", "KOI8-R"},
                {"koi8-u", "KOI8-U"},
                {"gb2312", "GBK"},
                {"gbk", "GBK"},
                {"gb18030", "GB18030"},
                {"big5", "BIG5"},
                {"euc-jp", "EUC-JP"},
                {"shift_jis", "SHIFT_JIS"},
                {"shift-jis", "SHIFT_JIS"},
                {"sjis", "SHIFT_JIS"},
                {"iso-2022-jp", "ISO-2022-JP"},
                {"euc-kr", "EUC-KR"},
                {"utf-16", "UTF-16LE"},
                {"utf-16le", "UTF-16LE"},
                {"utf-16be", "UTF-16BE"}};

static const char *name_of(struct mr_str label)
{
  label = mr_str_trim(label);
  for (size_t i = 0; i < sizeof charsets / sizeof *charsets; i++)
    if (mr_str_ieq(label, mr_str_c(charsets[i].label))) return charsets[i].name;
  return NULL;
}

bool mr_webpage_charset_known(struct mr_str label)
{
  return name_of(label) != NULL;
}

/* A mark at the beginning outweighs what is said elsewhere. */
static const char *mark(struct mr_str *s)
{
  static const struct {
    const char *bytes;
    size_t n;
    const char *name;
  } marks[] = {{"\xef\xbb\xbf", 3, "UTF-8"}, {"\xff\xfe", 2, "UTF-16LE"}, {"\xfe\xff", 2, "UTF-16BE"}};

  for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
    if (mr_str_starts(*s, mr_str_n(marks[i].bytes, marks[i].n))) {
      *s = mr_str_n(s->p + marks[i].n, s->n - marks[i].n);
      return marks[i].name;
    }
  return NULL;
}

/* Text without the control characters that say nothing; what is no UTF-8 in it is replaced. */
static void clean(struct mr_str s, struct mr_buf *out)
{
  size_t at = 0, end;

  while (at < s.n && !out->failed) {
    for (end = at; end < s.n; end++)
      if (((unsigned char)s.p[end] < ' ' && !strchr("\t\n\r", s.p[end])) || !s.p[end] || s.p[end] == 0x7f)
        break;
    while (at < end) {
      size_t n = mr_utf8_cut(mr_str_n(s.p + at, end - at), end - at);
      mr_buf_add(out, s.p + at, n);
      at += n;
      if (at < end) mr_buf_c(out, "\xef\xbf\xbd");
      at += at < end;
    }
    at = end + 1;
  }
}

static void convert(const char *from, struct mr_str s, struct mr_buf *out)
{
  iconv_t cd = iconv_open("UTF-8", from);
  char *in = (char *)(uintptr_t)s.p, piece[4096];
  size_t left = s.n, n = 0;

  if (cd == (iconv_t)-1) { /* this system has no such converter */
    clean(s, out);
    return;
  }
  while (left && !out->failed) {
    char *to = piece;
    size_t room = sizeof piece;
    n = iconv(cd, &in, &left, &to, &room);
    clean(mr_str_n(piece, sizeof piece - room), out);
    if (n != (size_t)-1 || errno == E2BIG) continue;
    mr_buf_c(out, "\xef\xbf\xbd");
    if (errno != EILSEQ) break; /* the text ends within a character */
    in++;
    left--;
  }
  iconv_close(cd);
}

void mr_webpage_utf8(struct mr_str bytes, struct mr_str label, struct mr_buf *out)
{
  const char *name = mark(&bytes);

  if (!name) name = name_of(label);
  if (!name) name = mr_utf8_valid(bytes) ? "UTF-8" : "WINDOWS-1252";
  if (strcmp(name, "UTF-8") == 0)
    clean(bytes, out);
  else
    convert(name, bytes, out);
}
