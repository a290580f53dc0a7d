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
  yyjson_val *config; /* the whole configuration; "api" is read during new; may be NULL */
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
/* No new connections; requests in flight go on, streams are ended by the domain's drain. */
void mr_api_stop(struct mr_api *a);
int mr_api_active(const struct mr_api *a); /* requests and streams not closed yet */
/* Cuts every connection, now and for good. What runs for one is cancelled and ends in the drain; until then it
 * counts as active. */
void mr_api_cut(struct mr_api *a);
void mr_api_free(struct mr_api **a); /* cuts what is left */

/* Keys of the configuration, under "api": strict (bool: unknown fields are errors), ping_ms, body_max,
 * idle_ms. MR_E_INVALID names a wrong one. */

#endif
