/*
 * hooks_t - hooks of the host: the registry (hooks.c) and the questions put to them (hook_ask.c).
 */
#ifndef MR_HOST_HOOKS_T_H
#define MR_HOST_HOOKS_T_H

#include "host/host_t.h"

struct hook;
struct ask;

struct mr_hookset {
  pthread_mutex_t lock; /* hooks, next_id, n */
  struct hook *hooks;
  int next_id, n;
  struct ask *asks; /* loop: open questions */
};

struct mr_hook_asked { /* the hook that is asked; before the first, id is -1 */
  int id;
  bool fail_closed;
  char label[96]; /* for the log */
};

/* ---- hooks.c; any thread ---- */
/* mr_hooks.has, and the hook after the one of *a: false, and *a stays, when there is none. */
bool mr_hooks_has(void *ud, enum mr_phase p, const struct mr_subject *who);
bool mr_hooks_next(struct mr_runtime *rt, struct mr_hook_asked *a, enum mr_phase p,
                   const struct mr_subject *who);
mr_hook_fn mr_hooks_fn(struct mr_runtime *rt, int id, void **ud); /* NULL: it was removed */

#endif
