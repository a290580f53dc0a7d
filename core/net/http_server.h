/*
 * http_server - HTTP/1.1 in: llhttp parses, sends with MSG_NOSIGNAL (plain or below OpenSSL) carry, this
 * room frames replies and bounds everything: header bytes, idle time, pipelined requests, output waiting
 * for a slow reader. It knows nothing of the API. Loop thread; the handler runs in the drain, never in a
 * libevent callback, and never inside a function of this header.
 *
 * Life of an exchange: on_request once the headers are whole; the body is pushed to body() if the
 * handler asked with mr_http_body, else discarded; the handler answers with exactly one of
 * mr_http_reply, or mr_http_begin + mr_http_write... + mr_http_end. closed() comes once, last, whatever
 * happened; the exchange is invalid after it.
 *
 * A handler may ask for the body later than in on_request: until it asks or answers, what comes of the
 * body waits in the socket. Requests that could be read in two ways never reach a handler: two lengths, a
 * length and a transfer coding, any coding but chunked, no host or two (400), a head over its limit or
 * with more than 200 fields (431), not HTTP/1 (505). They are answered here, and the connection closes; so
 * does one that is too slow (408). Header fields of one name are joined with ", ".
 */
#ifndef MR_NET_HTTP_SERVER_H
#define MR_NET_HTTP_SERVER_H

#include "base/buf.h"
#include "base/err.h"
#include "loop/loop.h"

struct sockaddr;
struct mr_http_server;
struct mr_http_x; /* one exchange: a request and its reply */

struct mr_http_server_opts {
  void (*on_request)(void *ud, struct mr_http_x *x);
  void *ud;
  int max_connections; /* 0 = 10,000: over it, accepted and closed with 503 */
  size_t max_header;   /* 0 = 32 KiB -> 431 */
  int64_t idle_ms;     /* keep-alive; also without a byte of a body, or taken of an answer;
                                0 = 75,000 */
  int64_t header_ms;   /* from first byte to whole headers; 0 = 15,000 -> 408 */
  size_t max_out;      /* bytes waiting for a slow reader whose writer does not wait for drained();
                                0 = 4 MiB, then the connection is cut */
  size_t max_streams;  /* memory of all event streams together, what waits for slow readers and what one pass
                                gathers: 0 = 256 MiB; over it the readers that are farthest behind are cut */
};
int mr_http_server_new(struct mr_http_server **out, struct mr_loop *l, const struct mr_http_server_opts *o,
                       struct mr_err *err);
struct mr_http_listen {
  const char *address;            /* "127.0.0.1:0", "[::1]:8400", "unix:/path[,0600]" (else umask's mode),
                                "fd:3" (a listening socket, duplicated: the caller keeps his) */
  const char *tls_cert, *tls_key; /* PEM files: chain and key; no key: it is in the chain's file */
  bool insecure_http;             /* allow a plain listener that is not loopback */
};
/* actual gets the URL that clients use ("http://127.0.0.1:41234", "unix:/path"). MR_E_DENIED for a plain
 * address that is not loopback, MR_E_INVALID for a bad one or unusable PEM files (err.field: listen,
 * tls_cert, tls_key), MR_E_IO when the system refuses (err.message: why). */
int mr_http_server_listen(struct mr_http_server *s, const struct mr_http_listen *l, char *actual, size_t n,
                          struct mr_err *err);
/* Does a listener of this server answer at this address of this machine? Any of the machine's own addresses counts
 * when the port is one of the server's. */
bool mr_http_server_answers(const struct mr_http_server *s, const struct sockaddr *sa);
/* No new connections; idle ones close, others with the answer that is under way (from the drain). */
void mr_http_server_stop(struct mr_http_server *s);
int mr_http_server_active(const struct mr_http_server *s); /* exchanges not closed */
/* Cuts what is left; closed() callbacks run. Not from inside a callback of this server. */
void mr_http_server_free(struct mr_http_server **s);
struct mr_http_server_stats {
  uint64_t accepted, requests;
  uint64_t refused;         /* connections and requests that no handler saw */
  uint64_t bytes_out;       /* taken by the kernel */
  uint64_t cut;             /* readers that fell behind */
  uint64_t events;          /* frames of event streams, pings too */
  int connections, streams; /* now; streams: event streams */
  size_t stream_bytes,
      stream_bytes_max;        /* memory of what waits for readers of event streams: now, and most so far */
  size_t reader_max;           /* the most that waited for one of them, in bytes */
  size_t max_out, max_streams; /* the bounds */
};
void mr_http_server_stats(const struct mr_http_server *s, struct mr_http_server_stats *out);

/* The request; strings live until closed(). */
struct mr_str mr_http_method(const struct mr_http_x *x);
struct mr_str mr_http_path(const struct mr_http_x *x);  /* raw, without the query */
struct mr_str mr_http_query(const struct mr_http_x *x); /* raw, without "?" */
struct mr_str mr_http_req_header(const struct mr_http_x *x, const char *name_lower); /* p NULL: absent */
void mr_http_req_headers(const struct mr_http_x *x,
                         struct mr_buf *out);              /* all: "name: value\n", names in lower case */
int64_t mr_http_content_length(const struct mr_http_x *x); /* -1 chunked or unknown, 0 none */
struct mr_str mr_http_peer(const struct mr_http_x *x);     /* "127.0.0.1:5123" or "unix" */
struct mr_arena *mr_http_arena(struct mr_http_x *x);       /* freed after closed(); NULL: no memory */
struct mr_loop *mr_http_loop(struct mr_http_x *x);
/* Gives the request's strings back (path, query, headers read as absent from now on): for answers that
 * live long. Nothing of mr_http_path ... mr_http_req_header may be used after it; the arena stays. */
void mr_http_forget(struct mr_http_x *x);

struct mr_http_x_cbs {
  /* A piece of the body; n == 0 and last: it is whole. Return MR_OK, or MR_MORE to pause reading
   * until mr_http_body_resume. */
  int (*body)(void *ud, struct mr_http_x *x, struct mr_str bytes, bool last);
  void (*drained)(void *ud, struct mr_http_x *x); /* mr_http_write said MR_MORE: write again now */
  void (*closed)(void *ud, struct mr_http_x *x, bool complete); /* complete: the reply was sent whole */
};
void mr_http_set(struct mr_http_x *x, const struct mr_http_x_cbs *cbs, void *ud); /* cbs is copied */
/* Reads the body up to max bytes. Over max: 413 is NOT sent by us; body gets last=true after
 * mr_http_body_over becomes true and the handler answers. "Expect: 100-continue" is answered here. */
void mr_http_body(struct mr_http_x *x, int64_t max);
bool mr_http_body_over(const struct mr_http_x *x);
void mr_http_body_resume(struct mr_http_x *x);

/* headers: "name: value" lines without CR LF; date, content-length or chunked framing and connection are
 * added here (lines that say those, or hold control characters, are left out; "connection: close" counts).
 * The body is taken whole, whatever its size. */
void mr_http_reply(struct mr_http_x *x, int status, const struct mr_str *headers, int nheaders,
                   struct mr_str body);
/* length -1: chunked (HTTP/1.0: until close). The head is flushed at once. */
void mr_http_begin(struct mr_http_x *x, int status, const struct mr_str *headers, int nheaders, int64_t length);
/* MR_OK; MR_MORE: over 256 KiB wait, go on at drained(); MR_E_CLOSED: the peer is gone or was cut. */
int mr_http_write(struct mr_http_x *x, struct mr_str bytes);
void mr_http_end(struct mr_http_x *x);
void mr_http_cut(struct mr_http_x *x);             /* closes the connection without a proper end */
size_t mr_http_waiting(const struct mr_http_x *x); /* bytes not yet taken by the kernel */

#endif
