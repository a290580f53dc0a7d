/*
 * fd - waiting once for a descriptor to be readable: what a caller holds, not the loop's own sockets (those are
 * the bufferevents' of net/).
 *
 * A descriptor that the kernel cannot wait for (a plain file, /dev/null) counts as readable at once, as poll(2)
 * says. The descriptor must stay open until fn has run or the wait was cancelled. Loop thread.
 */
#ifndef MR_LOOP_FD_H
#define MR_LOOP_FD_H

#include "loop/loop.h"

struct event;

/* Embed in an object. fn runs in the drain, once per mr_fd_wait: readable, at the end, or closed by its peer. */
struct mr_fd_wait {
  struct event *ev;
  struct mr_ready ready;
  struct mr_loop *loop;
  void (*fn)(struct mr_fd_wait *w);
};

void mr_fd_init(struct mr_fd_wait *w, void (*fn)(struct mr_fd_wait *w));
/* MR_E_INVALID: fd is not open; MR_E_NOMEM. Not while w waits already. */
int mr_fd_wait(struct mr_loop *l, struct mr_fd_wait *w, int fd);
void mr_fd_cancel(struct mr_fd_wait *w); /* fn does not run any more; also when it does not wait */

#endif
