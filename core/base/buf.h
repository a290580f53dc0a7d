/*
 * buf - a growing byte buffer with a maximum, and a JSON writer on it.
 *
 * Every buffer is created with its maximum. A failed append (over the maximum, or no memory) frees
 * the contents, sets failed to the MR_E* code, and makes every later append a no-op: check once, at
 * the end. The contents are always followed by a NUL that is not counted.
 */
#ifndef MR_BASE_BUF_H
#define MR_BASE_BUF_H

#include "base/mem.h"
#include "base/str.h"

struct mr_buf {
  const struct mr_mem *mem;
  char *p;       /* contents, or NULL when empty */
  size_t n, cap; /* bytes used; bytes allocated */
  size_t max;    /* most bytes it may hold */
  int failed;    /* 0, MR_E_NOMEM or MR_E_TOO_LARGE; sticky until mr_buf_free or mr_buf_reset */
};

void mr_buf_init(struct mr_buf *b, const struct mr_mem *m, size_t max);
void mr_buf_add(struct mr_buf *b, const void *p, size_t n);
void mr_buf_str(struct mr_buf *b, struct mr_str s);
void mr_buf_c(struct mr_buf *b, const char *s); /* NUL-terminated */
void mr_buf_char(struct mr_buf *b, char c);
void mr_buf_printf(struct mr_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *mr_buf_reserve(struct mr_buf *b, size_t n); /* room for n bytes at the end, or NULL; then b->n += used */
void mr_buf_drop(struct mr_buf *b, size_t n);     /* removes n bytes from the front */
void mr_buf_reset(struct mr_buf *b);              /* empty, memory kept */
void mr_buf_free(struct mr_buf *b);               /* empty, memory released; may be used again */
struct mr_str mr_buf_get(const struct mr_buf *b); /* the contents; empty when failed */
char *mr_buf_take(struct mr_buf *b, size_t *n);   /* contents to the caller (mr_mem_free), or NULL */

/* JSON writer: commas and escapes are its business. Put a key before each value in an object. */
struct mr_jw {
  struct mr_buf *b;
  uint64_t comma; /* bit per depth: a comma is due before the next item */
  int depth;      /* at most 60 */
  bool after_key;
};
void mr_jw_init(struct mr_jw *w, struct mr_buf *b);
void mr_jw_obj(struct mr_jw *w);
void mr_jw_arr(struct mr_jw *w);
void mr_jw_obj_end(struct mr_jw *w);
void mr_jw_arr_end(struct mr_jw *w);
void mr_jw_key(struct mr_jw *w, const char *key);
void mr_jw_key_s(struct mr_jw *w, struct mr_str key);
void mr_jw_str(struct mr_jw *w, struct mr_str s); /* invalid UTF-8 becomes U+FFFD */
void mr_jw_c(struct mr_jw *w, const char *s);     /* NUL-terminated; NULL writes null */
void mr_jw_int(struct mr_jw *w, int64_t v);
void mr_jw_real(struct mr_jw *w, double v); /* shortest that reads back; NaN/inf fail the buffer */
void mr_jw_bool(struct mr_jw *w, bool v);
void mr_jw_null(struct mr_jw *w);
void mr_jw_raw(struct mr_jw *w, struct mr_str json); /* one complete JSON value, as it is */
void mr_jw_item(
    struct mr_jw *w); /* the comma that is due: the caller writes one value into the buffer himself */
void mr_jw_time(struct mr_jw *w, int64_t wall_us); /* "2026-07-06T11:17:50.967906Z"; negative writes null */
/* key and value in one: the common case. */
void mr_jw_kstr(struct mr_jw *w, const char *key, struct mr_str s);
void mr_jw_kc(struct mr_jw *w, const char *key, const char *s);
void mr_jw_kint(struct mr_jw *w, const char *key, int64_t v);
void mr_jw_kraw(struct mr_jw *w, const char *key, struct mr_str json);
void mr_jw_ktime(struct mr_jw *w, const char *key, int64_t wall_us);
/* Appends s as a JSON string with quotes. */
void mr_json_quote(struct mr_buf *b, struct mr_str s);

#endif
