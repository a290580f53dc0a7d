/* buf.c - the bounded byte buffer; see buf.h. The JSON writer is in jw.c. */
#include "base/buf.h"

#include <stdio.h>

void mr_buf_init(struct mr_buf *b, const struct mr_mem *m, size_t max)
{
  *b = (struct mr_buf){.mem = m, .max = max};
}

static void buf_fail(struct mr_buf *b, int code)
{
  mr_mem_free(b->mem, b->p);
  b->p = NULL;
  b->n = b->cap = 0;
  b->failed = code;
}

/* Room for n more bytes and the NUL. */
static bool buf_room(struct mr_buf *b, size_t n)
{
  size_t cap;
  char *p;

  if (b->failed) return false;
  if (b->cap > b->n && b->cap - b->n > n) return true;
  if (n > b->max - b->n || n > SIZE_MAX / 4) {
    buf_fail(b, MR_E_TOO_LARGE);
    return false;
  }
  cap = b->cap ? b->cap : 64;
  while (cap - 1 < b->n + n)
    cap *= 2;
  if (cap - 1 > b->max) cap = b->max + 1;
  p = mr_mem_realloc(b->mem, b->p, cap);
  if (!p) {
    buf_fail(b, MR_E_NOMEM);
    return false;
  }
  b->p = p;
  b->cap = cap;
  return true;
}

void mr_buf_add(struct mr_buf *b, const void *p, size_t n)
{
  if (n == 0 || !buf_room(b, n)) return;
  memcpy(b->p + b->n, p, n);
  b->n += n;
  b->p[b->n] = '\0';
}

void mr_buf_str(struct mr_buf *b, struct mr_str s)
{
  mr_buf_add(b, s.p, s.n);
}

void mr_buf_c(struct mr_buf *b, const char *s)
{
  mr_buf_add(b, s, strlen(s));
}

void mr_buf_char(struct mr_buf *b, char c)
{
  if (!buf_room(b, 1)) return;
  b->p[b->n++] = c;
  b->p[b->n] = '\0';
}

void mr_buf_printf(struct mr_buf *b, const char *fmt, ...)
{
  va_list ap, again;
  int n;

  va_start(ap, fmt);
  va_copy(again, ap);
  n = vsnprintf(NULL, 0, fmt, ap);
  if (n > 0 && buf_room(b, (size_t)n)) {
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
    b->n += (size_t)n;
  }
  va_end(again);
  va_end(ap);
}

char *mr_buf_reserve(struct mr_buf *b, size_t n)
{
  return buf_room(b, n) ? b->p + b->n : NULL;
}

void mr_buf_drop(struct mr_buf *b, size_t n)
{
  if (n == 0 || !b->p) return;
  if (n > b->n) n = b->n;
  memmove(b->p, b->p + n, b->n - n);
  b->n -= n;
  b->p[b->n] = '\0';
}

void mr_buf_reset(struct mr_buf *b)
{
  b->n = 0;
  b->failed = 0;
  if (b->p) b->p[0] = '\0';
}

void mr_buf_free(struct mr_buf *b)
{
  if (b->mem) mr_mem_free(b->mem, b->p);
  b->p = NULL;
  b->n = b->cap = 0;
  b->failed = 0;
}

struct mr_str mr_buf_get(const struct mr_buf *b)
{
  return mr_str_n(b->n ? b->p : "", b->n);
}

char *mr_buf_take(struct mr_buf *b, size_t *n)
{
  char *p;

  if (b->failed || (!b->p && !buf_room(b, 0))) return NULL;
  p = b->p;
  p[b->n] = '\0';
  if (n) *n = b->n;
  b->p = NULL;
  b->n = b->cap = 0;
  return p;
}
