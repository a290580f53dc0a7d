/* url - percent coding and query strings as the SDKs write them (a[]=1&a[]=2, created_at[gte]=..). */
#ifndef MR_NET_URL_H
#define MR_NET_URL_H

#include "base/mem.h"
#include "base/str.h"

/* Decodes %XX (and + as space when plus) into the arena. p NULL: malformed, NUL byte or bad UTF-8. */
struct mr_str mr_url_decode(struct mr_arena *a, struct mr_str s, bool plus);
/* Calls fn for each name=value, both decoded, in order; stops when fn returns nonzero and returns it.
 * MR_E_INVALID for malformed escapes, more than 1,000 pairs. */
int mr_url_query(struct mr_arena *a, struct mr_str query,
                 int (*fn)(void *ud, struct mr_str name, struct mr_str value), void *ud);
struct mr_str mr_url_encode(struct mr_arena *a, struct mr_str s); /* everything but unreserved */

#endif
