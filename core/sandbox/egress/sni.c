/*
 * sni.c - reads the server name out of the first bytes of a TLS connection, and nothing else of it: the ClientHello
 * (RFC 8446 §4.1.2), which may be cut over several records, and its server_name extension (RFC 6066 §3).
 */
#include "sandbox/egress/egress_t.h"

enum { HELLO_MAX = 16 << 10 };

struct cut {
  const unsigned char *p;
  size_t n;
  bool bad;
};

static uint32_t number(struct cut *c, int bytes)
{
  uint32_t v = 0;

  if (c->bad || c->n < (size_t)bytes) {
    c->bad = true;
    return 0;
  }
  for (int i = 0; i < bytes; i++)
    v = v << 8 | c->p[i];
  c->p += bytes;
  c->n -= (size_t)bytes;
  return v;
}

static struct cut piece(struct cut *c, int len_bytes)
{
  uint32_t n = number(c, len_bytes);
  struct cut out = {c->p, n, c->bad || c->n < n};

  if (out.bad) {
    c->bad = true;
    out.n = 0;
    return out;
  }
  c->p += n;
  c->n -= n;
  return out;
}

/* The handshake message out of its records. 0 whole, -1 more, -2 broken. */
static int hello(struct mr_str in, unsigned char out[HELLO_MAX], size_t *n)
{
  const unsigned char *p = (const unsigned char *)in.p;
  size_t left = in.n;

  *n = 0;
  for (;;) {
    size_t len, want;
    if (*n >= 4) {
      want = 4 + ((size_t)out[1] << 16 | (size_t)out[2] << 8 | out[3]);
      if (out[0] != 1 || want > HELLO_MAX) return -2;
      if (*n >= want) {
        *n = want;
        return 0;
      }
    }
    if (left && p[0] != 22) return -2;
    if (left > 1 && p[1] != 3) return -2;
    if (left < 5) return -1;
    len = (size_t)p[3] << 8 | p[4];
    if (len == 0 || len > HELLO_MAX || *n + len > HELLO_MAX) return -2;
    if (left < 5 + len) return -1;
    memcpy(out + *n, p + 5, len);
    *n += len;
    p += 5 + len;
    left -= 5 + len;
  }
}

/* The list has one entry, of type host_name. */
static int server_name(struct cut ext, char name[256])
{
  struct cut list = piece(&ext, 2), host;

  if (list.bad || ext.n || number(&list, 1) != 0) return -2;
  host = piece(&list, 2);
  if (host.bad || list.n || !host.n || host.n > 255 || memchr(host.p, 0, host.n)) return -2;
  memcpy(name, host.p, host.n);
  name[host.n] = '\0';
  return 1;
}

int mr_sni_read(struct mr_str in, char name[256])
{
  unsigned char text[HELLO_MAX];
  struct cut c = {text, 0, false}, all, ext;
  int found = 0, r = hello(in, text, &c.n);

  if (r) return r;
  number(&c, 4); /* type and length */
  number(&c, 2); /* version */
  if (c.n < 32) return -2;
  c.p += 32;
  c.n -= 32;
  piece(&c, 1); /* session id */
  piece(&c, 2); /* ciphers */
  piece(&c, 1); /* compression */
  if (c.bad) return -2;
  if (!c.n) return 0; /* no extensions at all */
  all = piece(&c, 2);
  if (all.bad || c.n) return -2;
  while (all.n) {
    uint32_t type = number(&all, 2);
    ext = piece(&all, 2);
    if (all.bad || ext.bad) return -2;
    if (type != 0) continue;
    if (found) return -2;
    found = server_name(ext, name);
    if (found < 0) return found;
  }
  return found;
}
