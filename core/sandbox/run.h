/*
 * run - a small program of the host's, run to its end for what it says. (run.c)
 */
#ifndef MR_SANDBOX_RUN_H
#define MR_SANDBOX_RUN_H

#include <stddef.h>

/* argv[0] is the path unless exe_fd >= 0; envp NULL: an empty environment. What it wrote to standard output and error
 * goes to out (cut at n, NUL-terminated). 0, or an errno; ETIMEDOUT when it was killed. Blocks. */
int mr_sandbox_run(const char *const *argv, const char *const *envp, int exe_fd, int timeout_ms, char *out,
                   size_t n);

#endif
