/*
 * http_client - HTTP out: libcurl's multi interface on our loop, behind this small seam. HTTP/1.1 and
 * HTTP/2, TLS with the system's roots (or a given CA file), keep-alive pool, no cookies, no proxies
 * from the environment, redirects only when asked, http and https only. Loop thread; callbacks run in
 * the drain.
 *
 * Whoever asks for a URL that somebody else chose (a model, a page, a remote server) gives a guard: then the very
 * address that is dialled is checked, at each redirect (http_gate.h). What the operator configured is listed by that:
 * providers of models, a search endpoint and the scripts' rig.http go without a guard, and are not redirected unless
 * they ask for it. How much of an answer is taken is up to the data callback, with decode as without.
 */
#ifndef MR_NET_HTTP_CLIENT_H
#define MR_NET_HTTP_CLIENT_H

#include "base/buf.h"
#include "base/err.h"
#include "loop/loop.h"

struct mr_guard;       /* net/guard.h */
struct mr_http_client; /* one per runtime: connections, TLS sessions, DNS */
struct mr_http_out;    /* one request; the client's until done was called */

int mr_http_client_new(struct mr_http_client **out, struct mr_loop *l, const char *ca_file, struct mr_err *err);
void mr_http_client_free(struct mr_http_client **c); /* done of running requests comes, MR_E_CLOSED */

struct mr_http_out_req {
  const char *method, *url;
  const struct mr_str *headers; /* "Name: value" lines */
  int nheaders;
  const struct mr_str *body; /* parts, sent one after the other; borrowed until done */
  int nbody;
  const char *unix_path;                  /* connect here instead of the URL's host; NULL = no */
  const char *ca_file;                    /* roots for this request; NULL = the client's */
  int64_t connect_timeout_ms, timeout_ms; /* 0 = 10,000; none */
  int64_t stall_ms;                       /* no byte for so long = MR_E_TIMEOUT; 0 = off */
  int follow;                             /* redirects, at most */
  const struct mr_guard *guard;           /* which addresses may be dialled; NULL = any. Borrowed until done */
  bool decode;                            /* compressed bodies may come, and are unpacked */
  int64_t body_max; /* bytes of the unpacked body: with more it ends with MR_E_TOO_LARGE; 0 = any */
};
struct mr_http_out_done {
  int code;   /* MR_OK: a whole response, whatever its status; else MR_E_TIMEOUT,
                                   MR_E_IO (connect, TLS, cut short), MR_E_CANCELLED, MR_E_CLOSED, MR_E_TOO_LARGE,
                                   MR_E_DENIED (the guard's no: the message says what is at the address) */
  int status; /* 0 when no response came */
  const struct mr_err *err;
};
struct mr_http_out_cbs {
  /* Once, before any data; not of a redirect that is followed. headers: "name: value\n" lines, names in lower case. */
  void (*head)(void *ud, struct mr_http_out *r, int status, struct mr_str headers);
  /* A piece of the body. Return 0, or MR_E* to abort the request with that code. */
  int (*data)(void *ud, struct mr_http_out *r, struct mr_str bytes);
  void (*done)(void *ud, struct mr_http_out *r, const struct mr_http_out_done *d); /* once, last */
};
int mr_http_out_start(struct mr_http_client *c, const struct mr_http_out_req *req,
                      const struct mr_http_out_cbs *cbs, void *ud, struct mr_http_out **out,
                      struct mr_err *err);
void mr_http_out_cancel(struct mr_http_out *r); /* done still comes, from a later drain */
void mr_http_out_pause(struct mr_http_out *r, bool pause);
/* Value of a header in "name: value\n" lines; name in lower case. p NULL when absent. */
struct mr_str mr_http_header(struct mr_str headers, const char *name);

/* A date as headers have it, wall clock in microseconds; 0: it is none (http_date.c). */
int64_t mr_http_date(struct mr_str s);

#endif
