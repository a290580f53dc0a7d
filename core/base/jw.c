/* jw.c - the JSON writer on mr_buf; see buf.h. */
#include "base/buf.h"
#include "base/sys.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MR_JW_DEPTH = 60 };

void mr_jw_init(struct mr_jw *w, struct mr_buf *b)
{
  *w = (struct mr_jw){.b = b};
}

/* Before any value or key: the comma that is due. */
void mr_jw_item(struct mr_jw *w)
{
  uint64_t bit = (uint64_t)1 << w->depth;

  if (w->after_key) {
    w->after_key = false;
    return;
  }
  if (w->comma & bit) mr_buf_char(w->b, ',');
  w->comma |= bit;
}

static void jw_open(struct mr_jw *w, char c)
{
  mr_jw_item(w);
  mr_buf_char(w->b, c);
  if (w->depth == MR_JW_DEPTH) {
    mr_buf_free(w->b);
    w->b->failed = MR_E_TOO_LARGE;
    return;
  }
  w->depth++;
  w->comma &= ~((uint64_t)1 << w->depth);
}

static void jw_close(struct mr_jw *w, char c)
{
  if (w->depth > 0) w->depth--;
  mr_buf_char(w->b, c);
}

void mr_jw_obj(struct mr_jw *w)
{
  jw_open(w, '{');
}
void mr_jw_arr(struct mr_jw *w)
{
  jw_open(w, '[');
}
void mr_jw_obj_end(struct mr_jw *w)
{
  jw_close(w, '}');
}
void mr_jw_arr_end(struct mr_jw *w)
{
  jw_close(w, ']');
}

void mr_jw_key_s(struct mr_jw *w, struct mr_str key)
{
  mr_jw_item(w);
  mr_json_quote(w->b, key);
  mr_buf_char(w->b, ':');
  w->after_key = true;
}

void mr_jw_key(struct mr_jw *w, const char *key)
{
  mr_jw_key_s(w, mr_str_c(key));
}

void mr_jw_str(struct mr_jw *w, struct mr_str s)
{
  mr_jw_item(w);
  mr_json_quote(w->b, s);
}

void mr_jw_c(struct mr_jw *w, const char *s)
{
  if (s)
    mr_jw_str(w, mr_str_c(s));
  else
    mr_jw_null(w);
}

void mr_jw_int(struct mr_jw *w, int64_t v)
{
  char t[24], *p = t + sizeof t;
  uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

  do {
    *--p = (char)('0' + u % 10);
  } while (u /= 10);
  if (v < 0) *--p = '-';
  mr_jw_item(w);
  mr_buf_add(w->b, p, (size_t)(t + sizeof t - p));
}

/* A host's locale may have put another decimal point than a dot, of one byte or more. */
static int drop_locale(char *t, int n)
{
  int o = 0;
  bool in_point = false;

  for (int i = 0; i < n; i++) {
    bool plain = (t[i] >= '0' && t[i] <= '9') || t[i] == '-' || t[i] == '+' || t[i] == 'e';
    if (plain)
      t[o++] = t[i];
    else if (!in_point)
      t[o++] = '.';
    in_point = !plain;
  }
  return o;
}

void mr_jw_real(struct mr_jw *w, double v)
{
  char t[40];
  int n = 0;

  if (!isfinite(v)) {
    mr_buf_free(w->b);
    w->b->failed = MR_E_INVALID;
    return;
  }
  for (int digits = 15; digits <= 17; digits++) {
    n = snprintf(t, sizeof t, "%.*g", digits, v);
    if (strtod(t, NULL) == v) break;
  }
  n = drop_locale(t, n);
  if (!memchr(t, '.', (size_t)n) && !memchr(t, 'e', (size_t)n) && n + 2 < (int)sizeof t) {
    t[n++] = '.';
    t[n++] = '0';
  }
  mr_jw_item(w);
  mr_buf_add(w->b, t, (size_t)n);
}

void mr_jw_bool(struct mr_jw *w, bool v)
{
  mr_jw_item(w);
  mr_buf_c(w->b, v ? "true" : "false");
}

void mr_jw_null(struct mr_jw *w)
{
  mr_jw_item(w);
  mr_buf_c(w->b, "null");
}

void mr_jw_raw(struct mr_jw *w, struct mr_str json)
{
  mr_jw_item(w);
  mr_buf_str(w->b, json.n ? json : MR_S("null"));
}

void mr_jw_time(struct mr_jw *w, int64_t wall_us)
{
  char t[28];
  if (wall_us < 0) {
    mr_jw_null(w);
    return;
  }
  mr_time_format(wall_us, t);
  mr_jw_c(w, t);
}

void mr_jw_kstr(struct mr_jw *w, const char *key, struct mr_str s)
{
  mr_jw_key(w, key);
  mr_jw_str(w, s);
}

void mr_jw_kc(struct mr_jw *w, const char *key, const char *s)
{
  mr_jw_key(w, key);
  mr_jw_c(w, s);
}

void mr_jw_kint(struct mr_jw *w, const char *key, int64_t v)
{
  mr_jw_key(w, key);
  mr_jw_int(w, v);
}

void mr_jw_kraw(struct mr_jw *w, const char *key, struct mr_str json)
{
  mr_jw_key(w, key);
  mr_jw_raw(w, json);
}

void mr_jw_ktime(struct mr_jw *w, const char *key, int64_t wall_us)
{
  mr_jw_key(w, key);
  mr_jw_time(w, wall_us);
}

/* Appends the escape of one byte below 0x20, quote or backslash. */
static void quote_escape(struct mr_buf *b, unsigned char c)
{
  static const char shorts[] = "\bb\ff\nn\rr\tt\"\"\\\\";
  for (const char *s = shorts; *s; s += 2)
    if ((unsigned char)s[0] == c) {
      mr_buf_char(b, '\\');
      mr_buf_char(b, s[1]);
      return;
    }
  mr_buf_printf(b, "\\u%04x", c);
}

/* How many bytes from the start need no escape; *plain: they are all ASCII. Eight at a time. */
static size_t clean_run(struct mr_str s, bool *plain)
{
  const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
  uint64_t seen = 0;
  size_t i = 0;

  for (; i + 8 <= s.n; i += 8) {
    uint64_t v, quote, slash;
    memcpy(&v, s.p + i, sizeof v);
    quote = v ^ ones * '"';
    slash = v ^ ones * '\\';
    /* The top bit of a byte of (x - ones) & ~x is set where x is 0, and first there; for v, where
     * the byte is below 0x20. */
    if ((((v - ones * 0x20) & ~v) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash)) & tops) break;
    seen |= v;
  }
  for (; i < s.n; i++) {
    unsigned char c = (unsigned char)s.p[i];
    if (c < 0x20 || c == '"' || c == '\\') break;
    seen |= c;
  }
  *plain = (seen & tops) == 0 && (seen & 0x80) == 0;
  return i;
}

/* Text without anything to escape but bad UTF-8. */
static void quote_utf8(struct mr_buf *b, struct mr_str s)
{
  while (s.n) {
    size_t good = mr_utf8_cut(s, s.n);
    mr_buf_add(b, s.p, good);
    if (good == s.n) return;
    mr_buf_c(b, "\xef\xbf\xbd");
    s.p += good + 1;
    s.n -= good + 1;
  }
}

void mr_json_quote(struct mr_buf *b, struct mr_str s)
{
  mr_buf_char(b, '"');
  while (s.n) {
    bool plain;
    size_t run = clean_run(s, &plain);
    if (plain)
      mr_buf_add(b, s.p, run);
    else
      quote_utf8(b, mr_str_n(s.p, run));
    s.p += run;
    s.n -= run;
    if (s.n) {
      quote_escape(b, (unsigned char)s.p[0]);
      s.p++;
      s.n--;
    }
  }
  mr_buf_char(b, '"');
}
