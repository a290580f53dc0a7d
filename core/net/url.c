/* url.c - percent coding and query strings; see url.h. */
#include "net/url.h"

enum { PAIRS_MAX = 1000 };

static int hex(char c)
{
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

struct mr_str mr_url_decode(struct mr_arena *a, struct mr_str s, bool plus)
{
  char *out = mr_arena_alloc(a, s.n + 1);
  size_t n = 0;

  for (size_t i = 0; out && i < s.n; i++) {
    char c = s.p[i];
    if (c == '+' && plus) {
      c = ' ';
    } else if (c == '%') {
      int hi = i + 2 < s.n ? hex(s.p[i + 1]) : -1, lo = i + 2 < s.n ? hex(s.p[i + 2]) : -1;
      if (hi < 0 || lo < 0) return mr_str_n(NULL, 0);
      c = (char)(hi << 4 | lo);
      i += 2;
    }
    if (c == '\0') return mr_str_n(NULL, 0);
    out[n++] = c;
  }
  if (!out || !mr_utf8_valid(mr_str_n(out, n))) return mr_str_n(NULL, 0);
  return mr_str_n(out, n);
}

int mr_url_query(struct mr_arena *a, struct mr_str query,
                 int (*fn)(void *ud, struct mr_str name, struct mr_str value), void *ud)
{
  int n = 0, r;

  while (query.p) {
    struct mr_str pair = mr_str_split(&query, '&'), name = mr_str_split(&pair, '=');
    if (!name.n) continue;
    name = mr_url_decode(a, name, true);
    pair = mr_url_decode(a, pair.p ? pair : MR_S(""), true);
    if (!name.p || !pair.p || ++n > PAIRS_MAX) return MR_E_INVALID;
    r = fn(ud, name, pair);
    if (r) return r;
  }
  return MR_OK;
}

struct mr_str mr_url_encode(struct mr_arena *a, struct mr_str s)
{
  static const char digits[] = "0123456789ABCDEF";
  char *out = mr_arena_alloc(a, 3 * s.n + 1);
  size_t n = 0;

  for (size_t i = 0; out && i < s.n; i++) {
    unsigned char c = (unsigned char)s.p[i];
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || memchr("-._~", c, 4)) {
      out[n++] = (char)c;
      continue;
    }
    out[n++] = '%';
    out[n++] = digits[c >> 4];
    out[n++] = digits[c & 15];
  }
  return mr_str_n(out, n);
}
