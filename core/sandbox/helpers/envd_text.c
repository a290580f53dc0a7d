/*
 * envd_text - growing buffers, and making text fit for JSON out of whatever processes print.
 *
 * The invariant: what ebuf_text leaves is valid UTF-8 without NUL, so a result is valid JSON whatever the
 * payload does. Escape sequences of terminals are dropped as the reference tool does (API: tools 4.2).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "envd.h"

bool ebuf_room(struct ebuf *b, size_t n)
{
  if (b->failed) return false;
  if (b->cap - b->n >= n) return true;
  size_t max = b->max ? b->max : MR_ENVD_FRAME_MAX;
  if (b->n > max || n > max - b->n) {
    b->failed = true;
    return false;
  }
  size_t cap = b->cap ? b->cap : 256;
  while (cap - b->n < n)
    cap *= 2;
  char *p = realloc(b->p, cap);
  if (!p) {
    b->failed = true;
    return false;
  }
  b->p = p;
  b->cap = cap;
  return true;
}

void ebuf_put(struct ebuf *b, const void *p, size_t n)
{
  if (!n || !ebuf_room(b, n)) return;
  memcpy(b->p + b->n, p, n);
  b->n += n;
}

void ebuf_s(struct ebuf *b, const char *s)
{
  ebuf_put(b, s, strlen(s));
}

void ebuf_f(struct ebuf *b, const char *fmt, ...)
{
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  int n = vsnprintf(NULL, 0, fmt, ap);
  if (n >= 0 && ebuf_room(b, (size_t)n + 1)) {
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
    b->n += (size_t)n;
  }
  va_end(again);
  va_end(ap);
}

void ebuf_free(struct ebuf *b)
{
  free(b->p);
  *b = (struct ebuf){.max = b->max};
}

void ebuf_json(struct ebuf *b, const char *p, size_t n)
{
  static const char hex[] = "0123456789abcdef";
  ebuf_put(b, "\"", 1);
  size_t from = 0;
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)p[i];
    if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) continue;
    ebuf_put(b, p + from, i - from);
    from = i + 1;
    const char *short_form = c == '"'    ? "\\\""
                             : c == '\\' ? "\\\\"
                             : c == '\n' ? "\\n"
                             : c == '\t' ? "\\t"
                             : c == '\r' ? "\\r"
                                         : NULL;
    if (short_form) {
      ebuf_put(b, short_form, 2);
    } else {
      char u[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
      ebuf_put(b, u, sizeof u);
    }
  }
  ebuf_put(b, p + from, n - from);
  ebuf_put(b, "\"", 1);
}

void ebuf_base64(struct ebuf *b, const unsigned char *p, size_t n)
{
  static const char abc[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (!ebuf_room(b, (n + 2) / 3 * 4)) return;
  char *o = b->p + b->n;
  for (size_t i = 0; i < n; i += 3) {
    unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
    *o++ = abc[v >> 18];
    *o++ = abc[v >> 12 & 63];
    *o++ = i + 1 < n ? abc[v >> 6 & 63] : '=';
    *o++ = i + 2 < n ? abc[v & 63] : '=';
  }
  b->n = (size_t)(o - b->p);
}

/* Length of the valid sequence at p, 0 when there is none; *bad: bytes that one U+FFFD stands for. */
static size_t sequence(const unsigned char *p, size_t n, size_t *bad)
{
  unsigned char c = p[0];
  *bad = 1;
  if (c < 0x80) return 1;
  if (c < 0xc2 || c > 0xf4) return 0;
  size_t len = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
  unsigned char lo = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
  unsigned char hi = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
  for (size_t i = 1; i < len; i++, lo = 0x80, hi = 0xbf) {
    if (i >= n || p[i] < lo || p[i] > hi) {
      *bad = i;
      return 0;
    }
  }
  return len;
}

bool envd_utf8(const char *p, size_t n)
{
  size_t bad;
  for (size_t i = 0; i < n;) {
    size_t len = sequence((const unsigned char *)p + i, n - i, &bad);
    if (!len) return false;
    i += len;
  }
  return true;
}

/* Length of the terminal escape at p[0] == ESC, or 1: the ESC alone goes. */
static size_t escape(const unsigned char *p, size_t n)
{
  if (n < 2) return 1;
  size_t i = 2;
  if (p[1] == '[') {
    while (i < n && i < 128 && p[i] >= 0x30 && p[i] <= 0x3f)
      i++;
    while (i < n && i < 128 && p[i] >= 0x20 && p[i] <= 0x2f)
      i++;
    return i < n && p[i] >= 0x40 && p[i] <= 0x7e ? i + 1 : i;
  }
  if (p[1] == ']' || p[1] == 'P' || p[1] == 'X' || p[1] == '^' || p[1] == '_') {
    for (; i < n && i < 4096 && p[i] != '\n'; i++) {
      if (p[i] == 0x07) return i + 1;
      if (p[i] == 0x1b && i + 1 < n && p[i + 1] == '\\') return i + 2;
    }
    return 2;
  }
  if (p[1] >= 0x20 && p[1] <= 0x2f) return n > 2 && p[2] >= 0x30 && p[2] <= 0x7e ? 3 : 2;
  return p[1] >= 0x30 && p[1] <= 0x7e ? 2 : 1;
}

void ebuf_text(struct ebuf *b, const char *text, size_t n, bool ansi)
{
  const unsigned char *p = (const unsigned char *)text;
  size_t from = 0, i = 0, bad;
  while (i < n) {
    size_t len = p[i] ? sequence(p + i, n - i, &bad) : (bad = 1, 0);
    if (len && !(ansi && p[i] == 0x1b)) {
      i += len;
      continue;
    }
    ebuf_put(b, p + from, i - from);
    if (len) {
      i += escape(p + i, n - i);
    } else {
      ebuf_put(b, "\xef\xbf\xbd", 3);
      i += bad;
    }
    from = i;
  }
  ebuf_put(b, p + from, i - from);
}

static bool starts(char c)
{
  return ((unsigned char)c & 0xc0) != 0x80;
}

size_t envd_tail(const char *p, size_t n, size_t max)
{
  while (n && max) {
    n--;
    if (starts(p[n])) max--;
  }
  return n;
}

size_t envd_head(const char *p, size_t n, size_t max)
{
  size_t i = 0;
  for (; i < n; i++)
    if (starts(p[i]) && max-- == 0) break;
  return i;
}

void envd_content(struct ebuf *b, const char *p, size_t n)
{
  if (!n) {
    ebuf_s(b, "[]");
    return;
  }
  ebuf_s(b, "[{\"type\":\"text\",\"text\":");
  ebuf_json(b, p, n);
  ebuf_s(b, "}]");
}

int64_t envd_now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
