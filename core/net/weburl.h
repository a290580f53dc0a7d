/*
 * weburl - http and https URLs that others wrote, read as the HTTP client reads them (libcurl's parser serves both, so
 * that what was looked at is what is asked). No state; any thread.
 */
#ifndef MR_NET_WEBURL_H
#define MR_NET_WEBURL_H

#include "base/err.h"
#include "base/mem.h"

enum { MR_WEBURL_MAX = 4096, MR_WEBURL_HOST = 256 };

/* An absolute URL, in one form: scheme and host in lower case, no default port, at least the path "/", no fragment, what
 * is not ASCII percent-coded. NUL-terminated. */
struct mr_weburl {
  char url[MR_WEBURL_MAX];
  char host[MR_WEBURL_HOST]; /* without a trailing dot; an IPv6 address in brackets */
  const char *rest;          /* in url: behind "https://" */
};
/* Reads ref; base (or NULL): relative to that. MR_E_INVALID: err says what is wrong; also for other schemes, names and
 * passwords, control characters, and what is too long. */
int mr_weburl_read(struct mr_weburl *out, const char *base, struct mr_str ref, struct mr_err *err);
/* Is the host this domain, or below it? domain in any case; an address is only itself. */
bool mr_weburl_in_domain(const struct mr_weburl *u, struct mr_str domain);

#endif
