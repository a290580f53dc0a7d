/*
 * api - the HTTP face: the Managed Agents API on top of ops/, so that the official SDKs work unmodified.
 * Keys, version and beta headers, error bodies, request ids, uploads, downloads, event streams, /health,
 * /metrics and the control route of scripts.
 *
 * What it is not for: HTTP itself (net/), what operations do (agent/), what inputs may hold (ops/).
 * Loop thread. Invariant: every request is answered exactly once, and an answer with status >= 400 changed
 * nothing.
 */
#ifndef MR_API_API_H
#define MR_API_API_H

#include "net/http_server.h"
#include "ops/ops.h"

struct mr_api;

struct mr_api_opts {
  struct mr_loop *loop;
  struct mr_domain *domain;
  struct mr_store *store;
  struct mr_models *models; /* for what is passed through to them */
  yyjson_val *config;       /* the whole configuration; "api" is read during new; may be NULL */
  void *ud;
  /* The members of /health beside status and version, without braces: "\"generation\":3". May be NULL. */
  void (*health)(void *ud, struct mr_buf *out);
  /* A command for the scripts (POST /moonrig/v1/control {"command": "reload"|"rollback"|"status", ...}):
   * done once with a JSON object, or an error. NULL, or MR_E_UNSUPPORTED: nobody listens. */
  int (*control)(void *ud, struct mr_str command, yyjson_val *arg,
                 void (*done)(void *cud, int code, struct mr_str json), void *cud);
};
int mr_api_new(struct mr_api **out, const struct mr_api_opts *o, struct mr_err *err);
int mr_api_listen(struct mr_api *a, const struct mr_http_listen *l, char *actual, size_t n, struct mr_err *err);
bool mr_api_answers(const struct mr_api *a, const struct sockaddr *sa); /* mr_http_server_answers */
/* No new connections; requests in flight go on, streams are ended by the domain's drain. */
void mr_api_stop(struct mr_api *a);
int mr_api_active(const struct mr_api *a); /* requests and streams not closed yet */
/* Cuts every connection, now and for good. What runs for one is cancelled and ends in the drain; until then it
 * counts as active. */
void mr_api_cut(struct mr_api *a);
void mr_api_free(struct mr_api **a); /* cuts what is left */

/* ---- routes of the host, below /x/ ----
 * A route's functions run on the loop. begun is one request: run gives the host's own thing for it, which drained and
 * closed get; NULL refuses it (503). closed comes at most once, and not after mr_api_web_end. */
struct mr_api_web; /* a request to a route: valid until closed came or mr_api_web_end was called */
struct mr_api_route {
  const char *method; /* NULL: any; GET answers HEAD too */
  const char *path;   /* "/x/name/{id}", "/x/files/" and then a star for all the rest */
  bool open;          /* no API key is asked for */
  int64_t body_max, begin_us;
  void *(*run)(void *ud, struct mr_api_web *w);
  void (*drained)(void *it); /* mr_api_web_write said MR_MORE: write again now */
  void (*closed)(void *it);  /* the client is gone, the answer began too late, or streams are ended */
  void (*free)(void *ud);    /* the route is out of the table, and nothing will be run on it any more */
  void *ud;
};
/* Adds or replaces (same method, same path whatever its parameters are called); takes ud in every case. */
int mr_api_route_add(struct mr_api *a, const struct mr_api_route *r, struct mr_err *err);
int mr_api_route_remove(struct mr_api *a, const char *method, const char *path); /* MR_E_NOTFOUND */

/* The request, inside run. Strings live as long as w, but those of the query and the headers only until run returns. */
struct mr_str mr_api_web_method(const struct mr_api_web *w);
struct mr_str mr_api_web_path(const struct mr_api_web *w); /* decoded */
struct mr_str mr_api_web_query(const struct mr_api_web *w);
struct mr_str mr_api_web_remote(const struct mr_api_web *w);
void mr_api_web_headers(const struct mr_api_web *w, struct mr_buf *out); /* "name: value\n" lines */
struct mr_str mr_api_web_param(const struct mr_api_web *w, int i,
                               struct mr_str *name);    /* decoded; p NULL: no more */
char *mr_api_web_body(struct mr_api_web *w, size_t *n); /* the caller's (mr_mem_free) */
/* The answer. lines: checked by mr_api_web_line_ok. length -1: streamed. write as mr_http_write. */
void mr_api_web_start(struct mr_api_web *w, int status, const struct mr_str *lines, int n, int64_t length);
void mr_api_web_reply(struct mr_api_web *w, int status, const struct mr_str *lines, int n,
                      struct mr_str body); /* start, write and end */
int mr_api_web_write(struct mr_api_web *w, struct mr_str bytes);
/* whole: the answer is complete; else the client is made to notice. Without a start: 500. w is gone after it. */
void mr_api_web_end(struct mr_api_web *w, bool whole);
/* "Name: value" that a route may send: a token, no control characters, nothing that is the server's to say
 * (content-length, transfer-encoding, connection and what else goes from hop to hop). Any thread. */
bool mr_api_web_line_ok(struct mr_str line);
enum { MR_WEB_LINES_MAX = 60 };

/* Keys of the configuration, under "api": strict (bool: unknown fields are errors), ping_ms, body_max,
 * idle_ms, max_connections; stream_max: bytes that may wait for one slow reader of events before it is cut (4 MiB);
 * idempotency_max: bytes that a day's records of idempotency keys may take in the store (256 MiB);
 * streams_max: the same for all together (256 MiB; those farthest behind are cut). MR_E_INVALID names a wrong one. */

#endif
