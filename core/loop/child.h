/*
 * child - processes: posix_spawn from one thread that lives as long as the runtime (a parent-death
 * signal fires when the spawning THREAD ends), a pidfd on the loop to see them end. No SIGCHLD handler;
 * a host's waitpid(-1) may steal the status, so exit_known can be false. A child leads a session of its
 * own (setsid), with default signal dispositions and nothing blocked.
 */
#ifndef MR_LOOP_CHILD_H
#define MR_LOOP_CHILD_H

#include "loop/loop.h"

struct mr_childs; /* the spawning thread */
struct mr_child;  /* one process */

int mr_childs_new(struct mr_childs **out, struct mr_loop *l, struct mr_err *err);
/* Joins the thread; callbacks that were on their way run first. Every handle dies with it. Processes
 * are left alone unless kill_on_free was set. */
void mr_childs_free(struct mr_childs **c);

struct mr_child_opts {
  const char *const *argv; /* argv[0] is the path, or use fd */
  const char *const *envp; /* whole environment; NULL = empty */
  int exe_fd;              /* >= 0: execute this descriptor (a sealed memfd); else -1 */
  const int *fds;          /* child's fd i is our fds[i] (dup'ed); -1 = /dev/null; the rest is closed */
  int nfds;
  bool kill_on_free;
  /* loop thread, once. pid > 0, or started == MR_E* and err. */
  void (*started)(void *ud, struct mr_child *c, int code, int pid, const struct mr_err *err);
  /* loop thread, once after a good start. exit_known false: someone else reaped it. */
  void (*ended)(void *ud, struct mr_child *c, bool exit_known, int exit_status, int signal);
  void *ud;
};
/* Copies what it needs before it returns; fds may be closed after started. */
int mr_child_spawn(struct mr_childs *cs, const struct mr_child_opts *o, struct mr_child **out,
                   struct mr_err *err);
int mr_child_kill(struct mr_child *c, int sig); /* through the pidfd; MR_E_STATE when gone */
void mr_child_release(struct mr_child **c);     /* no more callbacks; the process is not touched */

#endif
