/*
 * envd_json - reads one JSON text into a tree. No static library of the system does this, and envd must be
 * one static program, hence this small reader; writing is ebuf_json and ebuf_f.
 *
 * Strings are decoded in place in a copy of the text (decoding never makes them longer). Bounded: UTF-8 is
 * checked first, 64 levels, 65,536 values. An unpaired surrogate becomes U+FFFD.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "envd.h"

enum { DEPTH = 64, VALUES = 65536, CHUNK = 64 };

struct chunk {
  struct chunk *next;
  int used;
  struct ej v[CHUNK];
};
struct reader {
  char *p, *end; /* end: the NUL after the text */
  struct ej_doc *d;
  int values;
  const char *why;
};

static bool fail(struct reader *r, const char *why)
{
  if (!r->why) r->why = why;
  return false;
}

static struct ej *node(struct reader *r)
{
  struct chunk *c = r->d->nodes;
  if (++r->values > VALUES) {
    fail(r, "too many values");
    return NULL;
  }
  if (!c || c->used == CHUNK) {
    struct chunk *fresh = calloc(1, sizeof *fresh);
    if (!fresh) {
      fail(r, "out of memory");
      return NULL;
    }
    fresh->next = c;
    r->d->nodes = c = fresh;
  }
  return &c->v[c->used++];
}

static void space(struct reader *r)
{
  while (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r')
    r->p++;
}

static bool hex4(const char *p, unsigned *out)
{
  unsigned v = 0;
  for (int i = 0; i < 4; i++) {
    char c = p[i];
    int d = c >= '0' && c <= '9'   ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                   : -1;
    if (d < 0) return false;
    v = v << 4 | (unsigned)d;
  }
  *out = v;
  return true;
}

static char *utf8(char *o, unsigned c)
{
  if (c < 0x80) {
    *o++ = (char)c;
  } else if (c < 0x800) {
    *o++ = (char)(0xc0 | c >> 6);
    *o++ = (char)(0x80 | (c & 63));
  } else if (c < 0x10000) {
    *o++ = (char)(0xe0 | c >> 12);
    *o++ = (char)(0x80 | (c >> 6 & 63));
    *o++ = (char)(0x80 | (c & 63));
  } else {
    *o++ = (char)(0xf0 | c >> 18);
    *o++ = (char)(0x80 | (c >> 12 & 63));
    *o++ = (char)(0x80 | (c >> 6 & 63));
    *o++ = (char)(0x80 | (c & 63));
  }
  return o;
}

/* \uXXXX at p (after the u), maybe with the second half of a pair; returns what follows, NULL when bad. */
static char *unicode(char *p, char **o)
{
  unsigned c, low;
  if (!hex4(p, &c)) return NULL;
  p += 4;
  if (c >= 0xd800 && c < 0xdc00 && p[0] == '\\' && p[1] == 'u' && hex4(p + 2, &low) && low >= 0xdc00 &&
      low < 0xe000) {
    c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    p += 6;
  } else if (c >= 0xd800 && c < 0xe000) {
    c = 0xfffd;
  }
  *o = utf8(*o, c);
  return p;
}

static bool string(struct reader *r, struct estr *out)
{
  char *p = r->p + 1, *o = p;
  out->p = p;
  for (;;) {
    unsigned char c = (unsigned char)*p++;
    if (c == '"') break;
    if (c < 0x20) return fail(r, "bad string");
    if (c != '\\') {
      *o++ = (char)c;
      continue;
    }
    c = (unsigned char)*p++;
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at = c ? strchr(from, c) : NULL;
    if (at) {
      *o++ = to[at - from];
    } else {
      p = c == 'u' ? unicode(p, &o) : NULL;
      if (!p) return fail(r, "bad escape");
    }
  }
  out->n = (size_t)(o - out->p);
  *o = 0; /* at most the place of the closing quote */
  r->p = p;
  return true;
}

static bool number(struct reader *r, struct ej *v)
{
  char *p = r->p;
  if (*p == '-') p++;
  if (*p == '0')
    p++;
  else if (*p >= '1' && *p <= '9')
    while (*p >= '0' && *p <= '9')
      p++;
  else
    return fail(r, "no value");
  bool real = false;
  if (*p == '.') {
    real = true;
    if (*++p < '0' || *p > '9') return fail(r, "bad number");
    while (*p >= '0' && *p <= '9')
      p++;
  }
  if (*p == 'e' || *p == 'E') {
    real = true;
    p++;
    if (*p == '+' || *p == '-') p++;
    if (*p < '0' || *p > '9') return fail(r, "bad number");
    while (*p >= '0' && *p <= '9')
      p++;
  }
  errno = 0;
  v->t = EJ_INT;
  v->i = real ? 0 : strtoll(r->p, NULL, 10);
  if (real || errno) {
    double d = strtod(r->p, NULL);
    v->t = EJ_REAL;
    if (d >= -9e15 && d <= 9e15 && d == (double)(int64_t)d) {
      v->t = EJ_INT;
      v->i = (int64_t)d;
    }
  }
  r->p = p;
  return true;
}

static bool word(struct reader *r, const char *w)
{
  size_t n = strlen(w);
  if (strncmp(r->p, w, n)) return fail(r, "no value");
  r->p += n;
  return true;
}

static bool value(struct reader *r, struct ej *v, int depth);

static bool members(struct reader *r, struct ej *v, int depth)
{
  char close = *r->p == '{' ? '}' : ']';
  struct ej **last = &v->first;
  v->t = close == '}' ? EJ_OBJ : EJ_ARR;
  if (depth >= DEPTH) return fail(r, "nested too deeply");
  r->p++;
  space(r);
  if (*r->p == close) {
    r->p++;
    return true;
  }
  for (;;) {
    struct ej *m = node(r);
    if (!m) return false;
    space(r);
    if (close == '}') {
      if (*r->p != '"') return fail(r, "no member name");
      if (!string(r, &m->key)) return false;
      space(r);
      if (*r->p++ != ':') return fail(r, "no colon");
    }
    if (!value(r, m, depth + 1)) return false;
    *last = m;
    last = &m->next;
    space(r);
    char c = *r->p++;
    if (c == close) return true;
    if (c != ',') return fail(r, "no comma");
  }
}

static bool value(struct reader *r, struct ej *v, int depth)
{
  space(r);
  switch (*r->p) {
  case '{':
  case '[': return members(r, v, depth);
  case '"': v->t = EJ_STR; return string(r, &v->s);
  case 't':
    v->t = EJ_BOOL;
    v->i = 1;
    return word(r, "true");
  case 'f': v->t = EJ_BOOL; return word(r, "false");
  case 'n': v->t = EJ_NULL; return word(r, "null");
  default: return number(r, v);
  }
}

bool ej_parse(struct ej_doc *d, const char *p, size_t n, const char **why)
{
  struct reader r = {.d = d};
  *d = (struct ej_doc){0};
  *why = "not UTF-8";
  if (memchr(p, 0, n) || !envd_utf8(p, n)) return false;
  *why = "out of memory";
  d->text = malloc(n + 1);
  if (!d->text) return false;
  memcpy(d->text, p, n);
  d->text[n] = 0;
  r.p = d->text;
  r.end = d->text + n;
  d->root = node(&r);
  bool ok = d->root && value(&r, d->root, 0);
  if (ok) {
    space(&r);
    ok = r.p == r.end || fail(&r, "more after the value");
  }
  if (!ok) {
    *why = r.why ? r.why : "bad JSON";
    ej_free(d);
  }
  return ok;
}

void ej_free(struct ej_doc *d)
{
  for (struct chunk *c = d->nodes, *next; c; c = next) {
    next = c->next;
    free(c);
  }
  free(d->text);
  *d = (struct ej_doc){0};
}

const struct ej *ej_get(const struct ej *obj, const char *key)
{
  size_t n = strlen(key);
  const struct ej *found = NULL;
  if (!obj || obj->t != EJ_OBJ) return NULL;
  for (const struct ej *m = obj->first; m; m = m->next)
    if (m->key.n == n && !memcmp(m->key.p, key, n)) found = m;
  return found && found->t != EJ_NULL ? found : NULL;
}

struct estr ej_str(const struct ej *obj, const char *key)
{
  const struct ej *m = ej_get(obj, key);
  return m && m->t == EJ_STR ? m->s : (struct estr){0};
}
