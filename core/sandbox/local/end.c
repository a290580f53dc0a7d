/*
 * end.c - finding, reaching and ending the processes of a sandbox from its directory alone, as a server
 * does that was not the one that started them. The launcher holds a record lock on <session>/lock while
 * the sandbox lives: whoever asks for the lock learns its pid. SIGTERM makes the launcher end PID 1 of the
 * sandbox, wait, and end itself. Pool threads.
 */
#include "sandbox/local/local_t.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { END_TERM_MS = 5000, END_KILL_MS = 3000, END_STEP_MS = 10, BACKLOG = 16 };

int mr_local_session_dir(const struct mr_local_conf *c, const char *session, bool make)
{
  if (make && mkdirat(c->s_fd, session, 0700) != 0 && errno != EEXIST) return -1;
  return openat(c->s_fd, session, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The socket's address through the directory's descriptor: a data directory may lie deeper than the 107
 * bytes that an address has. */
static socklen_t address(int dir, struct sockaddr_un *a)
{
  memset(a, 0, sizeof *a);
  a->sun_family = AF_UNIX;
  snprintf(a->sun_path, sizeof a->sun_path, "/proc/self/fd/%d/envd.sock", dir);
  return sizeof *a;
}

int mr_local_connect(int dir)
{
  struct sockaddr_un a;
  socklen_t n = address(dir, &a);
  int e, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

  if (fd < 0 || connect(fd, (struct sockaddr *)&a, n) == 0) return fd;
  e = errno;
  close(fd);
  errno = e;
  return -1;
}

int mr_local_listen(int dir, int *conn)
{
  struct sockaddr_un a;
  socklen_t n = address(dir, &a);
  int e, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  *conn = -1;
  if (fd < 0) return -1;
  if ((unlinkat(dir, "envd.sock", 0) == 0 || errno == ENOENT) && bind(fd, (struct sockaddr *)&a, n) == 0 &&
      listen(fd, BACKLOG) == 0 && (*conn = mr_local_connect(dir)) >= 0)
    return fd;
  e = errno;
  close(fd);
  errno = e;
  return -1;
}

/* 0: nobody holds the lock. -1: somebody whose pid has no meaning here. */
static pid_t holder(int lock)
{
  struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

  if (fcntl(lock, F_GETLK, &fl) != 0 || fl.l_type == F_UNLCK) return 0;
  return fl.l_pid > 0 ? fl.l_pid : -1;
}

bool mr_local_alive(int dir)
{
  int lock = openat(dir, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  bool alive = lock >= 0 && holder(lock) != 0;

  if (lock >= 0) close(lock);
  return alive;
}

static void nap(void)
{
  struct timespec t = {.tv_nsec = END_STEP_MS * 1000000L};
  nanosleep(&t, NULL);
}

static bool gone(int pidfd, int wait_ms)
{
  struct pollfd p = {.fd = pidfd, .events = POLLIN};
  return poll(&p, 1, wait_ms) == 1;
}

static int end_launcher(int lock, struct mr_err *err)
{
  pid_t pid = holder(lock);
  int pidfd, code = MR_OK;

  if (pid == 0) return MR_OK;
  pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
  if (pidfd < 0 && holder(lock) == 0) return MR_OK;
  if (pidfd < 0)
    return mr_err_set(err, MR_E_STATE, NULL,
                      "the sandbox is held by a process that this one cannot see (another PID namespace?)");
  if (holder(lock) == pid) { /* still: so the descriptor is the holder's */
    syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
    if (!gone(pidfd, END_TERM_MS)) {
      syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
      if (!gone(pidfd, END_KILL_MS))
        code = mr_err_set(err, MR_E_INTERNAL, NULL, "the sandbox's launcher (pid %d) does not end", (int)pid);
    }
  }
  close(pidfd);
  return code;
}

int mr_local_end(const struct mr_local_conf *c, int dir, struct mr_err *err)
{
  static const char bye[] = "\x2a\0\0\0{\"t\":\"attach\",\"proto\":1}                  "
                            "\x14\0\0\0{\"t\":\"shutdown\"}    ";
  int lock = openat(dir, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW), fd, code = MR_OK;
  bool alive = true;

  if (lock < 0)
    return errno == ENOENT ? mr_cgroup_end(&c->cgroup, dir, err) : mr_err_errno(err, "the sandbox's lock");
  /* Somebody listens without the lock when a launcher was killed, until parent-death signals did the rest,
   * and for a moment at the start of one. */
  for (int waited = 0; alive && code == MR_OK; waited += END_STEP_MS) {
    code = end_launcher(lock, err);
    fd = mr_local_connect(dir);
    alive = fd >= 0 || errno == EAGAIN;
    if (fd >= 0 && waited % 500 == 0) (void)!send(fd, bye, sizeof bye - 1, MSG_NOSIGNAL);
    if (fd >= 0) close(fd);
    if (alive && waited > END_KILL_MS && code == MR_OK)
      code = mr_err_set(err, MR_E_INTERNAL, NULL, "the sandbox's first process does not end");
    else if (alive)
      nap();
  }
  close(lock);
  return code == MR_OK ? mr_cgroup_end(&c->cgroup, dir, err) : code;
}
