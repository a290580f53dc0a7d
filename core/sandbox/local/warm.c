/*
 * warm.c - sandboxes that are made before anybody needs one, so that a session's first command does not wait for
 * the machine (option warm; none by default). A warm sandbox is an ordinary one, of no session: its directory is
 * <root>/s/warm-..., its uid is its own. A session without files takes it over, once, by the renaming of the
 * directory (open.c): then it is that session's, with the uid, and another one is made.
 *
 * Only what every sandbox has alike can be made ahead: a session whose environment has packages, limits on its
 * network, or secrets of its own, gets one of its own. Input files do not matter, since those are put in place at each
 * attachment. The proxy's token that a warm one was told is its own, and becomes the session's with the directory;
 * what the session may reach is decided outside, at its attachment. Its control group keeps its name: the link in the
 * directory says which it is. What is warm ends with the driver; what a crash left is removed at the next start. Loop
 * thread.
 */
#include "sandbox/local/local_t.h"

#include <signal.h>
#include <stdio.h>

enum { SOON_US = 100000, AGAIN_US = 30 * 1000000 };

void mr_warm_want(struct mr_local *l, bool failed)
{
  if (!l->warm) return;
  mr_timer_cancel(l->loop, &l->warm_timer);
  mr_timer_set(l->loop, &l->warm_timer, failed ? AGAIN_US : SOON_US);
}

bool mr_warm_fits(const struct mr_sandbox_spec *spec)
{
  const struct mr_sandbox_network *n = &spec->network;

  for (int i = 0; i < MR_PKG_MANAGERS; i++)
    if (spec->packages.n[i]) return false;
  return !n->limited && !n->nhosts && !n->package_managers && !n->nmcp_hosts && !n->nsecrets;
}

static void make_one(struct mr_local *l)
{
  const struct mr_sandbox_network open = {0}; /* as of every spec that fits */
  struct mr_box *b;
  char name[MR_ID_MAX];

  if (mr_id_make(mr_loop_sys(l->loop), name, "warm") != MR_OK) return;
  name[4] = '-'; /* no id of anything */
  if (mr_box_new(&b, l, name) != MR_OK) return;
  b->policy = l->egress ? mr_egress_policy_new(l->egress, &open) : NULL;
  if (l->egress && !b->policy) {
    mr_box_free(b);
    return;
  }
  b->warm = true;
  mr_box_step(b);
}

void mr_warm_step(struct mr_timer *t)
{
  struct mr_local *l = MR_OF(t, struct mr_local, warm_timer);
  bool under_way = l->sweeping != NULL;
  int n = 0;

  for (struct mr_box *b = l->boxes; b; b = b->next) {
    if (!b->warm || b->state == MR_BOX_GONE) continue;
    n++;
    under_way |= b->state != MR_BOX_UP;
  }
  if (n >= l->warm) return;
  if (!under_way) make_one(l);
  mr_timer_set(l->loop, &l->warm_timer, SOON_US); /* one after the other */
}

/* It ended, or was never made. */
void mr_warm_lost(struct mr_box *b)
{
  mr_warm_want(b->l, true);
  b->released = true;
  mr_local_destroy(&b->l->base, b->session, NULL, NULL, NULL);
}

bool mr_warm_take(struct mr_local *l, char name[MR_SESSION_MAX])
{
  struct mr_box *b = l->boxes;

  while (b && !(b->warm && b->state == MR_BOX_UP && !b->released && !b->measuring))
    b = b->next;
  if (!b) return false;
  snprintf(name, MR_SESSION_MAX, "%s", b->session);
  mr_box_put(b); /* its processes live on, for who attaches next */
  mr_warm_want(l, false);
  return true;
}

void mr_warm_free(struct mr_local *l)
{
  struct mr_box *b, *next;
  struct mr_err err;

  mr_timer_cancel(l->loop, &l->warm_timer);
  for (b = l->boxes; b; b = b->next)
    if (b->warm && b->child) mr_child_kill(b->child, SIGTERM);
  for (b = l->boxes; b; b = next) {
    next = b->next;
    if (!b->warm || b->destroy || b->job) continue; /* what is under way goes at the next start */
    if (mr_local_remove(l->conf, b->session, &err) != MR_OK)
      mr_log(l->conf->sys, MR_LOG_WARN, "sandbox", "%s: %s", b->session, err.message);
  }
}
