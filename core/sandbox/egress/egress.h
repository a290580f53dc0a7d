/*
 * egress - the way out of sandboxes: an HTTP proxy in the server, one per driver, with a link for each sandbox.
 * Commands inside reach it at MR_EGRESS_PORT of their own loopback, where envd relays each client to a stream
 * that the link made for it; a link knows its session, so no client can pass for another's.
 *
 * What is decided here and nowhere else: which hosts (by the name that was asked for AND by the address that is
 * dialled), which ports, what is said to who is refused, and which secrets are put in. Names are looked up here
 * alone. Loop thread. Called by sandbox/local.
 */
#ifndef MR_SANDBOX_EGRESS_EGRESS_H
#define MR_SANDBOX_EGRESS_EGRESS_H

#include "base/buf.h"
#include "base/err.h"
#include "loop/loop.h"
#include "sandbox/sandbox.h"

enum { MR_EGRESS_PORT = 3128, MR_EGRESS_TOKEN = 33 };
#define MR_EGRESS_ROOTS "/etc/ssl/sandbox-roots.pem" /* inside: what to trust when there are secrets */

struct mr_egress;        /* one per driver */
struct mr_egress_policy; /* what one session may reach */
struct mr_egress_link;   /* one sandbox's way out, as long as it is attached */

/* dir: where the authority is kept that stands in for hosts that secrets go to. */
int mr_egress_new(struct mr_egress **out, struct mr_loop *l, const struct mr_guard *guard, const char *dir,
                  const struct mr_egress_options *o, struct mr_err *err);
void mr_egress_free(struct mr_egress **e); /* after its links */
void mr_egress_stats(const struct mr_egress *e, struct mr_egress_stats *out);

/* Copies what it needs. NULL: no memory. The first one with secrets makes the authority, if the operator has none. */
struct mr_egress_policy *mr_egress_policy_new(struct mr_egress *e, const struct mr_sandbox_network *n);
void mr_egress_policy_free(struct mr_egress_policy **p);

/* session: for the log. token: what clients must name as their password. policy outlives the link. *theirs is the
 * sandbox's end of the channel (helpers/proto.h): it goes to envd, and the caller closes it. */
int mr_egress_link_new(struct mr_egress_link **out, struct mr_egress *e, const char *session, const char *token,
                       const struct mr_egress_policy *policy, int *theirs, struct mr_err *err);
void mr_egress_link_free(struct mr_egress_link **k); /* cuts its connections */
/* What was refused since the last call, for whoever ran the command: a line each. False: nothing. k may be NULL. */
bool mr_egress_link_notes(struct mr_egress_link *k, struct mr_buf *out);

/* Environment variables by which programs inside find the proxy and the roots to trust, and the placeholders of
 * secrets: members of an object. */
void mr_egress_env(struct mr_jw *w, const char *token, const struct mr_egress_policy *policy);
/* Host path of what is to be seen at MR_EGRESS_ROOTS; NULL: nothing. */
const char *mr_egress_roots(const struct mr_egress *e, const struct mr_egress_policy *policy);

#endif
