/*
 * work - the queue of self-hosted environments (API: resources §8): what a session's changes do to its work item,
 * and what the domain's life does to the queue. A session in such an environment has at most one live item; whoever
 * serves it (a worker outside) runs its built-in tools. What a worker asks is in work_poll.c and work_ops.c, who may
 * ask it in access.c, the items themselves in work.c (work_t.h). Loop thread.
 */
#ifndef MR_AGENT_WORK_H
#define MR_AGENT_WORK_H

#include "agent/session_t.h"

int mr_works_init(struct mr_domain *d, struct mr_err *err);
void mr_works_free(struct mr_domain *d);
/* Reads the live items; fn once, with the code. Until then nothing is queued or given out. */
void mr_works_load(struct mr_domain *d, void (*fn)(void *ud, int code), void *ud);
bool mr_works_loaded(const struct mr_domain *d);
void mr_works_drain(struct mr_domain *d); /* polls that wait are told that there is nothing */

/* What a commit does to items, beside the rest of it. mr_work_settled is called once with its result. */
enum { MR_WORKS_MAX = 2 };
struct mr_works_in {
  struct mr_work *v[MR_WORKS_MAX];
  int n;
};
/* A session is made in a self-hosted environment: its first item is part of cm. */
void mr_work_session_made(struct mr_domain *d, struct mr_commit *cm, struct mr_works_in *in, int64_t ws,
                          struct mr_str environment_id, struct mr_str session_id);
/* A loaded session changes in cm. wanted: there is something to do for a worker; so an item is made when none is live.
 * A session that is terminated has its item stopped. */
void mr_work_session_changes(struct mr_session *s, struct mr_commit *cm, struct mr_works_in *in, bool wanted);
/* The session is deleted by cm. */
void mr_work_session_gone(struct mr_session *s, struct mr_commit *cm, struct mr_works_in *in);
void mr_work_settled(struct mr_domain *d, struct mr_works_in *in, int code);

/* An environment is being deleted: its items, none of them live, go first; fn once, with the code. */
void mr_work_environment_gone(struct mr_call *c, struct mr_str environment_id,
                              void (*fn)(void *ud, int code, const struct mr_err *err), void *ud);

#endif
