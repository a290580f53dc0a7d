/*
 * guard - which addresses a request that somebody else chose may go to: URLs of a model, of a page, of a sandbox's
 * commands. One per runtime, immutable, any thread. It speaks of addresses, since names lie: whoever connects asks
 * about the very address that is dialled, at every hop (net/http_client, sandbox/egress).
 *
 * Refused are loopback, private, link-local (cloud metadata), shared (100.64/10), documentation, benchmark,
 * multicast and reserved ranges, and the same ranges inside IPv6 forms that carry an IPv4 address (mapped, NAT64,
 * 6to4, Teredo), unless the operator lists them: `allow_private_hosts`, MOONRIG_ALLOW_PRIVATE_HOSTS.
 */
#ifndef MR_NET_GUARD_H
#define MR_NET_GUARD_H

#include <sys/socket.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

struct mr_guard;

/* Entries: an address, a CIDR ("10.1.0.0/16", "fd00::/8"), a host name or "*.example.com". At most 256.
 * MR_E_INVALID: field says where the list came from, the message which entry. */
int mr_guard_new(struct mr_guard **out, const struct mr_mem *m, const struct mr_str *entries, int n,
                 const char *field, struct mr_err *err);
void mr_guard_free(struct mr_guard **g);

/* May this address be dialled? g NULL: with nothing listed. */
bool mr_guard_addr_ok(const struct mr_guard *g, const struct sockaddr *sa);
/* What kind of address it is: "a loopback address", "a private address", ...; NULL: one that everybody may dial. */
const char *mr_guard_addr_class(const struct sockaddr *sa);
/* Is the host listed by its name, so that any address of it is fine? Case and one trailing dot do not count. */
bool mr_guard_host_listed(const struct mr_guard *g, struct mr_str host);
/* "93.184.216.34", "2001:db8::1"; "?" for other families. out has 46 bytes or more. */
void mr_guard_addr_text(const struct sockaddr *sa, char out[64]);
/* pattern "example.com" or "*.example.com" (any subdomain, not the domain itself), API: resources §7.5. */
bool mr_host_matches(struct mr_str pattern, struct mr_str host);

#endif
