/*
 * run.c - runs a small program to its end and keeps what it says, for probing. Blocks: pool threads, and
 * the one call of mr_sandbox_report that probes. The program leads a session of its own; its exit status is
 * not asked for, because a host's waitpid(-1) may take it: what counts is what it writes.
 */
#include "sandbox/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* 0 at the end of the text; ETIMEDOUT. What does not fit is read and dropped. */
static int collect(int fd, int timeout_ms, char *out, size_t n)
{
  int64_t until = now_ms() + timeout_ms, left;
  struct pollfd p = {.fd = fd, .events = POLLIN};
  char piece[512];
  size_t used = 0;
  ssize_t got = 1;

  while (got > 0) {
    left = until - now_ms();
    if (left <= 0 || poll(&p, 1, (int)left) == 0) return ETIMEDOUT;
    got = read(fd, piece, sizeof piece);
    if (got < 0 && errno == EINTR)
      got = 1;
    else
      for (ssize_t i = 0; i < got && used + 1 < n; i++)
        out[used++] = piece[i];
    out[used] = '\0';
  }
  return 0;
}

static int spawn(const char *const *argv, const char *const *envp, const char *path, int out, pid_t *pid)
{
  static const char *const no_env[] = {NULL};
  posix_spawn_file_actions_t fa;
  posix_spawnattr_t at;
  sigset_t none, dfl;
  int e;

  posix_spawn_file_actions_init(&fa);
  posix_spawnattr_init(&at);
  sigemptyset(&none);
  sigfillset(&dfl);
  sigdelset(&dfl, SIGKILL);
  sigdelset(&dfl, SIGSTOP);
  posix_spawnattr_setsigmask(&at, &none);
  posix_spawnattr_setsigdefault(&at, &dfl);
  posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  e = posix_spawn_file_actions_adddup2(&fa, out, 1) || posix_spawn_file_actions_adddup2(&fa, out, 2) ||
              posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDWR, 0) ||
              posix_spawn_file_actions_addclosefrom_np(&fa, 3)
          ? ENOMEM
          : posix_spawn(pid, path, &fa, &at, (char *const *)(uintptr_t)argv,
                        (char *const *)(uintptr_t)(envp ? envp : no_env));
  posix_spawn_file_actions_destroy(&fa);
  posix_spawnattr_destroy(&at);
  return e;
}

int mr_sandbox_run(const char *const *argv, const char *const *envp, int exe_fd, int timeout_ms, char *out,
                   size_t n)
{
  char self[48];
  int pipefd[2], e;
  pid_t pid;

  out[0] = '\0';
  if (pipe2(pipefd, O_CLOEXEC) != 0) return errno;
  snprintf(self, sizeof self, "/proc/%d/fd/%d", (int)getpid(), exe_fd);
  e = spawn(argv, envp, exe_fd >= 0 ? self : argv[0], pipefd[1], &pid);
  close(pipefd[1]);
  if (e == 0) {
    e = collect(pipefd[0], timeout_ms, out, n);
    if (e) kill(-pid, SIGKILL); /* not reaped yet: the group is still ours */
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
      ;
  }
  close(pipefd[0]);
  return e;
}
