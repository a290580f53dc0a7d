/*
 * tls.h - TLS on a side of the proxy, over memory, and the authority behind what clients are shown (tls.c, ca.c).
 * Only tunnels to hosts that a secret is for are ever opened.
 */
#ifndef MR_EGRESS_TLS_H
#define MR_EGRESS_TLS_H

#include "base/buf.h"
#include "base/err.h"
#include "loop/loop.h"

struct mr_ca;
struct x509_st;
struct evp_pkey_st;

/* Made, or loaded, in dir; roots: the machine's bundle, or NULL. */
int mr_ca_new(struct mr_ca **out, struct mr_loop *l, const char *dir, const char *roots, struct mr_err *err);
void mr_ca_free(struct mr_ca **a);
const char *mr_ca_bundle(const struct mr_ca *a); /* path of what sandboxes are to trust */
bool mr_ca_leaf(struct mr_ca *a, const char *host, struct x509_st **cert, struct evp_pkey_st **key);

struct mr_tls_ctx; /* the two contexts of a proxy */
struct mr_tls;     /* one connection */
/* roots: a PEM file that servers are verified by; NULL: the system's. */
int mr_tls_ctx_new(struct mr_tls_ctx **out, const struct mr_mem *m, const char *roots, struct mr_err *err);
void mr_tls_ctx_free(struct mr_tls_ctx **c);
/* As the server that host is, or as its client, which verifies it. NULL: no memory. */
struct mr_tls *mr_tls_accept(struct mr_tls_ctx *c, struct mr_ca *a, const char *host);
struct mr_tls *mr_tls_connect(struct mr_tls_ctx *c, const char *host);
void mr_tls_free(struct mr_tls **t);
/* What came from the socket goes in; what it means comes out; what has to be sent is in raw. False: it failed. */
bool mr_tls_take(struct mr_tls *t, struct mr_str cipher, struct mr_buf *plain, struct mr_buf *raw);
/* Enciphers from the front of plain as much as it takes. */
bool mr_tls_put(struct mr_tls *t, struct mr_buf *plain, struct mr_buf *raw);
void mr_tls_end(struct mr_tls *t, struct mr_buf *raw); /* close_notify */
bool mr_tls_up(const struct mr_tls *t);                /* the handshake is done */
bool mr_tls_over(const struct mr_tls *t);              /* the peer's close_notify came */
const char *mr_tls_why(const struct mr_tls *t);        /* of a failure; "" */

#endif
