/*
 * host.c - hosts as requests name them, in one canonical form, so that a rule about a host cannot be passed by
 * another spelling of it: case, a trailing dot, decimal, octal, hexadecimal and short forms of IPv4, addresses of
 * IPv4 in IPv6 clothes. What is ambiguous (user names, percent signs, other alphabets, empty labels) is refused.
 * The rules are those of the URL standard's host parser, without its repairs.
 */
#include "sandbox/egress/egress_t.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

static int bad(struct mr_err *err, const char *why)
{
  return mr_err_set(err, MR_E_INVALID, NULL, "%s", why);
}

static bool digit(char c)
{
  return c >= '0' && c <= '9';
}

/* A part of an IPv4 address: 10, 0x0a, 012. */
static bool part(struct mr_str s, uint64_t *out)
{
  int base = 10;

  *out = 0;
  if (s.n > 1 && s.p[0] == '0' && (s.p[1] | 32) == 'x')
    base = 16, s.p += 2, s.n -= 2;
  else if (s.n > 1 && s.p[0] == '0')
    base = 8, s.p++, s.n--;
  for (size_t i = 0; i < s.n; i++) {
    int c = s.p[i] | 32, v = digit(s.p[i]) ? s.p[i] - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
    if (v >= base || *out > UINT32_MAX) return false;
    *out = *out * (uint64_t)base + (uint64_t)v;
  }
  return true;
}

/* Ends in a number: so it is an address or nothing. */
static bool numeric(struct mr_str host)
{
  struct mr_str last = host;
  uint64_t ignored;

  for (size_t i = 0; i < host.n; i++)
    if (host.p[i] == '.') last = mr_str_n(host.p + i + 1, host.n - i - 1);
  return last.n && digit(last.p[0]) && (strspn(last.p, "0123456789") >= last.n || part(last, &ignored));
}

static bool ipv4(struct mr_str host, struct in_addr *out)
{
  uint64_t p[4], v = 0;
  int n = 0;

  for (struct mr_str rest = host; rest.p; n++) {
    struct mr_str one = mr_str_split(&rest, '.');
    if (n == 4 || !one.n || !part(one, &p[n])) return false;
  }
  for (int i = 0; i < n - 1; i++) {
    if (p[i] > 255) return false;
    v |= p[i] << (24 - 8 * i);
  }
  if (p[n - 1] >= UINT64_C(1) << (8 * (5 - n))) return false;
  out->s_addr = htonl((uint32_t)(v | p[n - 1]));
  return true;
}

static int ipv6(struct mr_str text, struct mr_target *t, struct mr_err *err)
{
  struct in6_addr a;
  char plain[64];

  if (text.n >= sizeof plain || memchr(text.p, '%', text.n)) return bad(err, "the IPv6 address is malformed");
  memcpy(plain, text.p, text.n);
  plain[text.n] = '\0';
  if (inet_pton(AF_INET6, plain, &a) != 1) return bad(err, "the IPv6 address is malformed");
  if (IN6_IS_ADDR_V4MAPPED(&a))
    inet_ntop(AF_INET, a.s6_addr + 12, t->host, sizeof t->host);
  else
    inet_ntop(AF_INET6, &a, t->host, sizeof t->host);
  t->literal = true;
  return MR_OK;
}

static int name(struct mr_str h, struct mr_target *t, struct mr_err *err)
{
  struct in_addr a;
  size_t label = 0;

  if (h.n && h.p[h.n - 1] == '.') h.n--;
  if (!h.n || h.n > 253) return bad(err, "the host's name is empty or too long");
  for (size_t i = 0; i < h.n; i++) {
    unsigned char c = (unsigned char)h.p[i];
    if (c >= 0x80) return bad(err, "the host's name must be ASCII: write it in its xn-- form");
    if (c >= 'A' && c <= 'Z') c += 32;
    if (!(c >= 'a' && c <= 'z') && !digit((char)c) && c != '-' && c != '.' && c != '_')
      return bad(err, "the host's name has a character that no name has");
    label = c == '.' ? 0 : label + 1;
    if (label > 63 || (c == '.' && (i == 0 || h.p[i - 1] == '.')))
      return bad(err, "the host's name has an empty or too long label");
    t->host[i] = (char)c;
  }
  if (!label) return bad(err, "the host's name has an empty or too long label");
  t->host[h.n] = '\0';
  t->literal = numeric(mr_str_c(t->host));
  if (!t->literal) return MR_OK;
  if (!ipv4(mr_str_c(t->host), &a)) return bad(err, "the host ends in a number and is no IPv4 address");
  inet_ntop(AF_INET, &a, t->host, sizeof t->host);
  return MR_OK;
}

int mr_target_read(struct mr_str text, int port, struct mr_target *t, struct mr_err *err)
{
  struct mr_str host = text, digits = {0};
  const char *colon;
  int64_t n;
  int code;

  *t = (struct mr_target){0};
  if (!text.n) return bad(err, "there is no host");
  if (memchr(text.p, '@', text.n)) return bad(err, "a user name before the host is not passed on");
  if (text.p[0] == '[') {
    const char *end = memchr(text.p, ']', text.n);
    if (!end) return bad(err, "the IPv6 address is malformed");
    host = mr_str_n(text.p + 1, (size_t)(end - text.p) - 1);
    digits = mr_str_n(end + 1, text.n - host.n - 2);
    if (digits.n && digits.p[0] != ':') return bad(err, "the IPv6 address is malformed");
    if (digits.n)
      digits.p++, digits.n--;
    else
      digits.p = NULL;
    code = ipv6(host, t, err);
  } else {
    colon = memchr(text.p, ':', text.n);
    if (colon) {
      host.n = (size_t)(colon - text.p);
      digits = mr_str_n(colon + 1, text.n - host.n - 1);
    }
    code = name(host, t, err);
  }
  if (code != MR_OK) return code;
  if (!digits.p && !port) return bad(err, "there is no port");
  t->port = port;
  if (!digits.p) return MR_OK;
  for (size_t i = 0; i < digits.n; i++)
    if (!digit(digits.p[i])) return bad(err, "the port is no number");
  if (!digits.n || digits.n > 5 || mr_str_int(digits, &n) != MR_OK || n < 1 || n > 65535)
    return bad(err, "the port is no number from 1 to 65535");
  t->port = (int)n;
  return MR_OK;
}

bool mr_target_same_host(const struct mr_target *a, const struct mr_target *b)
{
  return strcmp(a->host, b->host) == 0;
}

void mr_target_text(const struct mr_target *t, int usual, char out[280])
{
  bool six = strchr(t->host, ':') != NULL;
  int n = snprintf(out, 280, "%s%s%s", six ? "[" : "", t->host, six ? "]" : "");

  if (t->port != usual) snprintf(out + n, (size_t)(280 - n), ":%d", t->port);
}
