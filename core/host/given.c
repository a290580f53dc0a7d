/*
 * given.c - what tool uses, hook calls and model requests have in common: the core gives something to the
 * host, the host answers once, from any thread, any time later; meanwhile the core may stop wanting it.
 *
 * References: the loop's lasts until the answer was taken, or until it is certain that none will come; the
 * host's from the handler's call to the answer; an entry's or post's while it is under way. After mr_close
 * there is no loop, so an answer then releases the loop's reference too.
 *
 * Invariant: TAKEN and UNWANTED are set by exchange, so exactly one of "the handler is called" and "the loop
 * settles it alone" happens to a given thing, and cancel is called only where the handler was.
 */
#include "host/host_t.h"

void mr_given_init(struct mr_given *g, struct mr_runtime *rt, void (*give)(struct mr_entry *e),
                   void (*cancel)(struct mr_entry *e), void (*answer)(struct mr_post *p),
                   void (*free)(struct mr_given *g))
{
  mr_rt_ref(rt);
  g->rt = rt;
  atomic_init(&g->refs, 1);
  atomic_init(&g->state, 0);
  g->give.run = give;
  g->unwanted.run = cancel;
  g->answer.fn = answer;
  g->free = free;
}

void mr_given_ref(struct mr_given *g)
{
  atomic_fetch_add(&g->refs, 1);
}

void mr_given_unref(struct mr_given *g)
{
  struct mr_runtime *rt = g->rt;

  if (atomic_fetch_sub(&g->refs, 1) != 1) return;
  g->free(g);
  mr_rt_unref(rt);
}

void mr_given_push(struct mr_given *g)
{
  mr_given_ref(g);
  mr_queue_push(&g->rt->queue, &g->give);
}

bool mr_given_take(struct mr_given *g)
{
  if (!(atomic_fetch_or(&g->state, MR_GIVEN_TAKEN) & MR_GIVEN_UNWANTED))
    return true; /* the entry's reference becomes the host's */
  mr_given_unref(g);
  return false;
}

static void send(struct mr_given *g)
{
  struct mr_runtime *rt = g->rt;

  if (mr_rt_post(rt, &g->answer) == MR_OK) return; /* the reference goes with the post */
  mr_given_unref(g);
  mr_given_unref(g);
}

void mr_given_answer(struct mr_given *g)
{
  atomic_fetch_or(&g->state, MR_GIVEN_ANSWERED);
  send(g);
}

void mr_given_refuse(struct mr_given *g)
{
  if (atomic_fetch_or(&g->state, MR_GIVEN_TAKEN | MR_GIVEN_ANSWERED) & MR_GIVEN_UNWANTED)
    mr_given_unref(g); /* the loop has settled it alone */
  else
    send(g);
}

bool mr_given_drop(struct mr_given *g)
{
  int was = atomic_fetch_or(&g->state, MR_GIVEN_UNWANTED);

  if (!(was & MR_GIVEN_TAKEN)) return true;
  if (!(was & MR_GIVEN_ANSWERED)) {
    mr_given_ref(g);
    mr_queue_push(&g->rt->queue, &g->unwanted);
  }
  return false;
}
