/*
 * guard.c - see guard.h. Ranges after the special-purpose registries of RFC 6890 and its updates.
 */
#include "net/guard.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

enum { ENTRIES_MAX = 256 };

/* IPv4 ranges are kept in their mapped form, so that there is one kind of range. */
struct range {
  unsigned char addr[16];
  int bits;
};
struct mr_guard {
  const struct mr_mem *mem;
  struct range *ranges;
  struct mr_str *hosts; /* in lower case */
  char *text;
  int nranges, nhosts;
};

static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool inside(const unsigned char *a, const unsigned char *net, int bits)
{
  int whole = bits / 8, rest = bits % 8;

  if (memcmp(a, net, (size_t)whole) != 0) return false;
  return !rest || (a[whole] ^ net[whole]) >> (8 - rest) == 0;
}

/* ---- what nobody may reach unless it is listed ---- */

static const char *v4_class(const unsigned char a[4])
{
  static const struct {
    unsigned char net[4];
    int bits;
    const char *what;
  } closed[] = {{{0, 0, 0, 0}, 8, "this host"},
                {{10, 0, 0, 0}, 8, "a private address"},
                {{100, 64, 0, 0}, 10, "a shared address of a provider"},
                {{127, 0, 0, 0}, 8, "a loopback address"},
                {{169, 254, 0, 0}, 16, "a link-local address"},
                {{172, 16, 0, 0}, 12, "a private address"},
                {{192, 0, 0, 0}, 24, "a reserved address"},
                {{192, 0, 2, 0}, 24, "an address for documentation"},
                {{192, 88, 99, 0}, 24, "a reserved address"},
                {{192, 168, 0, 0}, 16, "a private address"},
                {{198, 18, 0, 0}, 15, "an address for benchmarks"},
                {{198, 51, 100, 0}, 24, "an address for documentation"},
                {{203, 0, 113, 0}, 24, "an address for documentation"},
                {{224, 0, 0, 0}, 4, "a multicast address"},
                {{240, 0, 0, 0}, 4, "a reserved address"},
                {{168, 63, 129, 16}, 32, "a cloud's metadata address"} /* on a public number */};

  for (size_t i = 0; i < sizeof closed / sizeof *closed; i++)
    if (inside(a, closed[i].net, closed[i].bits)) return closed[i].what;
  return NULL;
}

/* Only global unicast, without the parts of it that are special; those that carry an IPv4 address are as that is. */
static const char *v6_class(const unsigned char a[16])
{
  static const unsigned char unicast[] = {0x20}, nat64[] = {0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0},
                             sixto4[] = {0x20, 0x02}, special[] = {0x20, 0x01, 0},
                             docs[] = {0x20, 0x01, 0x0d, 0xb8}, docs2[] = {0x3f, 0xff, 0},
                             loopback[16] = {[15] = 1}, private[] = {0xfc}, local[] = {0xfe, 0x80},
                             many[] = {0xff};

  if (inside(a, mapped, 96) || inside(a, nat64, 96)) return v4_class(a + 12);
  if (inside(a, loopback, 128)) return "a loopback address";
  if (inside(a, private, 7)) return "a private address";
  if (inside(a, local, 10)) return "a link-local address";
  if (inside(a, many, 8)) return "a multicast address";
  if (!inside(a, unicast, 3)) return "a reserved address";
  if (inside(a, sixto4, 16)) return v4_class(a + 2);
  if (inside(a, docs, 32) || inside(a, docs2, 20)) return "an address for documentation";
  return inside(a, special, 23) ? "a reserved address" : NULL; /* 2001::/23: Teredo, ORCHID, benchmarks, ... */
}

static bool flatten(const struct sockaddr *sa, unsigned char out[16])
{
  if (sa->sa_family == AF_INET) {
    memcpy(out, mapped, 12);
    memcpy(out + 12, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
    return true;
  }
  if (sa->sa_family != AF_INET6) return false;
  memcpy(out, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
  return true;
}

bool mr_guard_addr_ok(const struct mr_guard *g, const struct sockaddr *sa)
{
  unsigned char a[16];

  if (!flatten(sa, a)) return false;
  if (!v6_class(a)) return true;
  for (int i = 0; g && i < g->nranges; i++)
    if (inside(a, g->ranges[i].addr, g->ranges[i].bits)) return true;
  return false;
}

const char *mr_guard_addr_class(const struct sockaddr *sa)
{
  unsigned char a[16];

  return flatten(sa, a) ? v6_class(a) : "no address of the Internet";
}

void mr_guard_addr_text(const struct sockaddr *sa, char out[64])
{
  const void *at = sa->sa_family == AF_INET
                       ? (const void *)&((const struct sockaddr_in *)(const void *)sa)->sin_addr
                       : (const void *)&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;

  if ((sa->sa_family != AF_INET && sa->sa_family != AF_INET6) || !inet_ntop(sa->sa_family, at, out, 64))
    snprintf(out, 64, "?");
}

/* ---- names ---- */

static struct mr_str no_dot(struct mr_str h)
{
  if (h.n && h.p[h.n - 1] == '.') h.n--;
  return h;
}

bool mr_host_matches(struct mr_str pattern, struct mr_str host)
{
  host = no_dot(host);
  if (!mr_str_starts(pattern, MR_S("*."))) return host.n > 0 && mr_str_ieq(no_dot(pattern), host);
  pattern = no_dot(mr_str_n(pattern.p + 1, pattern.n - 1)); /* ".example.com" */
  return host.n > pattern.n && mr_str_ieq(pattern, mr_str_n(host.p + host.n - pattern.n, pattern.n));
}

bool mr_guard_host_listed(const struct mr_guard *g, struct mr_str host)
{
  for (int i = 0; g && i < g->nhosts; i++)
    if (mr_host_matches(g->hosts[i], host)) return true;
  return false;
}

/* ---- the list ---- */

/* 1: it is an address or a range; 0: it is neither; -1: it looks like one and is wrong. */
static int read_range(struct mr_str s, struct range *r)
{
  char text[64], *slash, *end;
  int max = 128;
  long bits;

  if (s.n >= sizeof text) return 0;
  memcpy(text, s.p, s.n);
  text[s.n] = '\0';
  slash = strchr(text, '/');
  if (slash) *slash = '\0';
  if (inet_pton(AF_INET6, text, r->addr) != 1) {
    memcpy(r->addr, mapped, 12);
    if (inet_pton(AF_INET, text, r->addr + 12) != 1)
      return slash || strspn(text, "0123456789.") == strlen(text) ? -1 : 0;
    max = 32;
  }
  bits = slash ? strtol(slash + 1, &end, 10) : max;
  if (slash && (end == slash + 1 || *end || slash[1] < '0' || slash[1] > '9' || bits < 0 || bits > max))
    return -1;
  r->bits = (int)bits + (128 - max);
  return 1;
}

static bool name_ok(struct mr_str h)
{
  if (mr_str_starts(h, MR_S("*."))) h.p += 2, h.n -= 2;
  for (size_t i = 0; i < h.n; i++) {
    char c = h.p[i];
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
          c == '_'))
      return false;
  }
  return h.n > 0 && h.n <= 253 && h.p[0] != '.';
}

int mr_guard_new(struct mr_guard **out, const struct mr_mem *m, const struct mr_str *entries, int n,
                 const char *field, struct mr_err *err)
{
  struct mr_guard *g = NULL;
  size_t bytes = 0;
  char *p;
  int code;

  *out = NULL;
  if (n > ENTRIES_MAX)
    return mr_err_set(err, MR_E_INVALID, field, "%s: at most %d entries", field, (int)ENTRIES_MAX);
  for (int i = 0; i < n; i++)
    bytes += entries[i].n;
  g = mr_mem_zalloc(m, sizeof *g);
  if (!g) return mr_err_nomem(err);
  g->mem = m;
  g->ranges = mr_mem_zalloc(m, (size_t)(n + 1) * sizeof *g->ranges);
  g->hosts = mr_mem_zalloc(m, (size_t)(n + 1) * sizeof *g->hosts);
  g->text = p = mr_mem_alloc(m, bytes + 1);
  code = g->ranges && g->hosts && g->text ? MR_OK : mr_err_nomem(err);
  for (int i = 0; i < n && code == MR_OK; i++) {
    int kind = read_range(entries[i], &g->ranges[g->nranges]);
    if (kind > 0) {
      g->nranges++;
    } else if (kind < 0 || !name_ok(entries[i])) {
      code =
          mr_err_set(err, MR_E_INVALID, field,
                     "%s: \"" MR_FMT "\" is neither an address, nor a range such as 10.1.0.0/16, nor a host's "
                     "name or *.example.com",
                     field, MR_ARG(mr_str_n(entries[i].p, entries[i].n < 100 ? entries[i].n : 100)));
    } else {
      memcpy(p, entries[i].p, entries[i].n);
      g->hosts[g->nhosts++] = mr_str_n(p, entries[i].n);
      p += entries[i].n;
    }
  }
  if (code != MR_OK) mr_guard_free(&g);
  *out = g;
  return code;
}

void mr_guard_free(struct mr_guard **gp)
{
  struct mr_guard *g = *gp;

  *gp = NULL;
  if (!g) return;
  mr_mem_free(g->mem, g->ranges);
  mr_mem_free(g->mem, g->hosts);
  mr_mem_free(g->mem, g->text);
  mr_mem_free(g->mem, g);
}
