/*
 * http_gate - a guard at one request of the HTTP client (http_client.c). libcurl asks before it makes a socket, with the
 * address that it is about to dial, and before each request goes out on a connection, with the one that it is
 * connected to: so what was checked is what is dialled, whatever a name resolves to next time, and no redirect and no
 * connection that is used again goes round it. Redirects to other schemes, and names or passwords in a URL, are refused.
 */
#ifndef MR_NET_HTTP_GATE_H
#define MR_NET_HTTP_GATE_H

#include <curl/curl.h>

#include "net/guard.h"

struct mr_http_gate {
  const struct mr_guard *guard; /* NULL: no gate */
  CURL *easy;
  char denied[200]; /* why it was closed, or "" */
};

/* The gate lives as long as the transfer. */
void mr_http_gate_set(struct mr_http_gate *g, CURL *easy, const struct mr_guard *guard);
/* Did the transfer fail for the gate? Then denied says why. */
bool mr_http_gate_denied(struct mr_http_gate *g, CURLcode result);

#endif
