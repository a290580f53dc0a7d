/* str.c - byte strings, UTF-8, base64 and SHA-256; see str.h. */
#include "base/str.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

bool mr_str_starts(struct mr_str s, struct mr_str prefix)
{
  return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool mr_str_ends(struct mr_str s, struct mr_str suffix)
{
  return s.n >= suffix.n && (suffix.n == 0 || memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}

static int lower(unsigned char c)
{
  return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

bool mr_str_ieq(struct mr_str a, struct mr_str b)
{
  if (a.n != b.n) return false;
  for (size_t i = 0; i < a.n; i++)
    if (lower((unsigned char)a.p[i]) != lower((unsigned char)b.p[i])) return false;
  return true;
}

int mr_str_cmp(struct mr_str a, struct mr_str b)
{
  size_t n = a.n < b.n ? a.n : b.n;
  int d = n ? memcmp(a.p, b.p, n) : 0;
  return d ? d : a.n < b.n ? -1 : a.n > b.n;
}

static bool is_space(char c)
{
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct mr_str mr_str_trim(struct mr_str s)
{
  while (s.n && is_space(s.p[0]))
    s.p++, s.n--;
  while (s.n && is_space(s.p[s.n - 1]))
    s.n--;
  return s;
}

struct mr_str mr_str_split(struct mr_str *rest, char sep)
{
  struct mr_str head = *rest;
  const char *at = rest->n ? memchr(rest->p, sep, rest->n) : NULL;

  if (!at) {
    *rest = mr_str_n(NULL, 0);
    return head;
  }
  head.n = (size_t)(at - rest->p);
  *rest = mr_str_n(at + 1, rest->n - head.n - 1);
  return head;
}

int mr_str_int(struct mr_str s, int64_t *out)
{
  uint64_t v = 0, max = INT64_MAX;
  bool neg = false;
  size_t i = 0;

  if (s.n && (s.p[0] == '-' || s.p[0] == '+')) {
    neg = s.p[0] == '-';
    max += neg;
    i = 1;
  }
  if (i == s.n) return MR_E_INVALID;
  for (; i < s.n; i++) {
    unsigned d = (unsigned)(s.p[i] - '0');
    if (d > 9 || v > (max - d) / 10) return MR_E_INVALID;
    v = v * 10 + d;
  }
  *out = neg ? (int64_t)(0 - v) : (int64_t)v;
  return MR_OK;
}

/* Length of the valid UTF-8 sequence at p, or 0. */
static size_t utf8_len(const unsigned char *p, size_t n)
{
  unsigned char c = p[0];
  if (c < 0x80) return 1;
  if (c < 0xc2 || c > 0xf4) return 0;
  if (n < 2 || (p[1] & 0xc0) != 0x80) return 0;
  if (c < 0xe0) return 2;
  if (n < 3 || (p[2] & 0xc0) != 0x80) return 0;
  if (c < 0xf0) return (c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) ? 0 : 3;
  if (n < 4 || (p[3] & 0xc0) != 0x80) return 0;
  return (c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] > 0x8f) ? 0 : 4;
}

size_t mr_utf8_cut(struct mr_str s, size_t n)
{
  size_t i = 0, end = n < s.n ? n : s.n;
  while (i < end) {
    uint64_t eight;
    size_t k;
    if (end - i >= sizeof eight) { /* eight plain bytes at a time: most text is ASCII */
      memcpy(&eight, s.p + i, sizeof eight);
      if ((eight & UINT64_C(0x8080808080808080)) == 0) {
        i += sizeof eight;
        continue;
      }
    }
    k = utf8_len((const unsigned char *)s.p + i, end - i);
    if (k == 0) break;
    i += k;
  }
  return i;
}

size_t mr_utf8_whole(struct mr_str s)
{
  size_t back = 1;
  while (back < 4 && back < s.n && ((unsigned char)s.p[s.n - back] & 0xc0) == 0x80)
    back++;
  if (back <= s.n) {
    unsigned char lead = (unsigned char)s.p[s.n - back];
    size_t want = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    if (want > back) return s.n - back;
  }
  return s.n;
}

bool mr_utf8_valid(struct mr_str s)
{
  return mr_utf8_cut(s, s.n) == s.n;
}

size_t mr_utf8_chars(struct mr_str s)
{
  size_t k = 0;
  for (size_t i = 0; i < s.n; i++)
    k += ((unsigned char)s.p[i] & 0xc0) != 0x80;
  return k;
}

void mr_sha256_hex(struct mr_str data, char out[65])
{
  static const char hex[] = "0123456789abcdef";
  unsigned char sum[32] = {0};
  unsigned len = sizeof sum;

  EVP_Digest(data.n ? data.p : "", data.n, sum, &len, EVP_sha256(), NULL);
  for (size_t i = 0; i < sizeof sum; i++) {
    out[2 * i] = hex[sum[i] >> 4];
    out[2 * i + 1] = hex[sum[i] & 15];
  }
  out[64] = '\0';
}

static const char base64_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t mr_base64_encode(struct mr_str in, char *out)
{
  const unsigned char *p = (const unsigned char *)in.p;
  size_t o = 0, i = 0;

  for (; i + 2 < in.n; i += 3) {
    uint32_t v = (uint32_t)p[i] << 16 | (uint32_t)p[i + 1] << 8 | p[i + 2];
    for (int k = 18; k >= 0; k -= 6)
      out[o++] = base64_alphabet[v >> k & 63];
  }
  if (i < in.n) {
    uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < in.n ? (uint32_t)p[i + 1] << 8 : 0);
    out[o++] = base64_alphabet[v >> 18 & 63];
    out[o++] = base64_alphabet[v >> 12 & 63];
    out[o++] = i + 1 < in.n ? base64_alphabet[v >> 6 & 63] : '=';
    out[o++] = '=';
  }
  out[o] = '\0';
  return o;
}

static int base64_digit(char c)
{
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+' || c == '-') return 62;
  if (c == '/' || c == '_') return 63;
  return -1;
}

int64_t mr_base64_decode(struct mr_str in, unsigned char *out)
{
  uint32_t v = 0;
  int bits = 0, pad = 0;
  int64_t o = 0;

  while (pad < 2 && in.n && in.p[in.n - 1] == '=')
    in.n--, pad++;
  if (pad && (in.n + (size_t)pad) % 4 != 0) return MR_E_INVALID;
  for (size_t i = 0; i < in.n; i++) {
    int d = base64_digit(in.p[i]);
    if (d < 0) return MR_E_INVALID;
    v = v << 6 | (uint32_t)d;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out[o++] = (unsigned char)(v >> bits);
      v &= (1u << bits) - 1;
    }
  }
  return bits == 6 || v != 0 ? MR_E_INVALID : o;
}

bool mr_str_eq_secret(struct mr_str a, struct mr_str b)
{
  return a.n == b.n && CRYPTO_memcmp(a.n ? a.p : "", b.n ? b.p : "", a.n) == 0;
}
