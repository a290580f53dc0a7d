/*
 * dial - connecting to a host that somebody else chose: names are resolved in threads of the dialer's own, each
 * address is judged right before it is dialled, and what was judged is what is dialled: there is no second
 * look-up. Several addresses are tried beside each other, the families taking turns (RFC 8305).
 *
 * One dialer per user of it; its threads start at the first name. Loop thread; fn runs in the drain, never
 * inside mr_dial_start.
 */
#ifndef MR_NET_DIAL_H
#define MR_NET_DIAL_H

#include <sys/socket.h>

#include "base/err.h"
#include "loop/loop.h"

struct mr_dialer;
struct mr_dial; /* one attempt; gone after fn, or cancelled */

int mr_dialer_new(struct mr_dialer **out, struct mr_loop *l, struct mr_err *err);
/* No fn comes any more. Waits for look-ups that are under way (seconds, when a name server is silent). */
void mr_dialer_free(struct mr_dialer **d);

struct mr_dial_req {
  const char *host; /* a name, or an address without brackets; copied */
  int port;
  /* May this address be dialled? false: why (200 bytes) says the reason. */
  bool (*allow)(void *ud, const struct sockaddr *sa, char why[200]);
  int64_t timeout_ms; /* for everything; 0 = 20,000 */
  const void *owner;  /* who of several users: each has a few look-ups at a time, the rest of its own wait */
};
/* fd >= 0: connected, non-blocking, TCP_NODELAY, the receiver's. Else err: MR_E_DENIED every address was refused
 * (the message has the reason of the first), MR_E_NOTFOUND no such host, MR_E_IO, MR_E_TIMEOUT, MR_E_FULL. */
typedef void (*mr_dial_fn)(void *ud, int fd, const struct sockaddr *sa, const struct mr_err *err);
int mr_dial_start(struct mr_dialer *d, const struct mr_dial_req *q, mr_dial_fn fn, void *ud,
                  struct mr_dial **out, struct mr_err *err);
void mr_dial_cancel(struct mr_dial **c); /* fn does not come */

#endif
