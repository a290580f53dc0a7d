/*
 * str - byte strings (struct mr_str of moonrig.h) and small parsers on them. No allocation.
 */
#ifndef MR_BASE_STR_H
#define MR_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "moonrig.h"

#define MR_S(lit) ((struct mr_str){(lit), sizeof(lit) - 1}) /* of a literal */
#define MR_FMT    "%.*s"
#define MR_ARG(s) (int)(s).n, (s).p ? (s).p : ""

static inline struct mr_str mr_str_n(const char *p, size_t n)
{
  return (struct mr_str){p, n};
}
static inline struct mr_str mr_str_c(const char *c)
{
  return (struct mr_str){c, c ? strlen(c) : 0};
}
static inline bool mr_str_eq(struct mr_str a, struct mr_str b)
{
  return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool mr_str_is(struct mr_str a, const char *lit)
{
  return mr_str_eq(a, mr_str_c(lit));
}
bool mr_str_starts(struct mr_str s, struct mr_str prefix);
bool mr_str_ends(struct mr_str s, struct mr_str suffix);
bool mr_str_ieq(struct mr_str a, struct mr_str b); /* ASCII case folded */
int mr_str_cmp(struct mr_str a, struct mr_str b);  /* bytewise, shorter first */
struct mr_str mr_str_trim(struct mr_str s);        /* ASCII space, tab, CR, LF */
/* Cuts the part before sep off *rest and returns it; *rest becomes what follows (p NULL at the end). */
struct mr_str mr_str_split(struct mr_str *rest, char sep);
/* Decimal integer, the whole of s, with an optional sign. 0 or MR_E_INVALID (also on overflow). */
int mr_str_int(struct mr_str s, int64_t *out);
bool mr_utf8_valid(struct mr_str s);
size_t mr_utf8_chars(struct mr_str s); /* code points; s must be valid */
/* Longest valid UTF-8 prefix of at most n bytes that does not cut a code point. */
size_t mr_utf8_cut(struct mr_str s, size_t n);
/* Length of s without an incomplete code point at its end (bad bytes elsewhere are left alone): for
 * text that was cut at a byte limit. */
size_t mr_utf8_whole(struct mr_str s);
/* SHA-256 of data as 64 lower-case hex digits and NUL. (OpenSSL's libcrypto.) */
void mr_sha256_hex(struct mr_str data, char out[65]);
/* Base64 (standard alphabet, padded) into out of at least 4*((n+2)/3)+1 bytes; returns its length. */
size_t mr_base64_encode(struct mr_str in, char *out);
/* Decodes standard or URL alphabet, padding optional, into out of at least n*3/4+3 bytes; returns the
 * length, or MR_E_INVALID. */
int64_t mr_base64_decode(struct mr_str in, unsigned char *out);
/* Equal, in time that depends on the lengths alone. */
bool mr_str_eq_secret(struct mr_str a, struct mr_str b);

#endif
