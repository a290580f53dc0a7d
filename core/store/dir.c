/*
 * dir.c - the data directory: made 0700, and held by one runtime at a time through flock on <dir>/lock,
 * whose contents are the owner's process id for people and for the error message of the next one.
 *
 * Not here: what is inside (drivers, blobs). flock belongs to the open file, not to the process, so a
 * second runtime of the same process is refused like any other; the kernel drops it when the owner dies,
 * however it dies, so a stale lock does not exist. The file itself is never removed: removing it would
 * let two owners lock two files of one name.
 *
 * Invariant: nothing in the directory is touched before the lock is held.
 * Called by store.c on the loop thread; blocks up to wait_ms.
 */
#include "store/store_t.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_STEP_MS = 10 };

/* Makes the directory and its parents. path is written to and restored. */
static int make_dirs(char *path, struct mr_err *err)
{
  for (char *p = path + 1;; p++) {
    char c = *p;
    if (c != '/' && c != '\0') continue;
    *p = '\0';
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
      mr_err_errno(err, path);
      *p = c;
      return MR_E_IO;
    }
    *p = c;
    if (c == '\0') return MR_OK;
  }
}

static long lock_owner(int fd)
{
  char text[32];
  ssize_t n = pread(fd, text, sizeof text - 1, 0);

  if (n <= 0) return 0;
  text[n] = '\0';
  return strtol(text, NULL, 10);
}

static int lock_take(struct mr_store *s, int wait_ms, struct mr_err *err)
{
  const struct timespec step = {0, LOCK_STEP_MS * 1000000L};
  char path[PATH_MAX], text[32];
  int n;

  snprintf(path, sizeof path, "%s/lock", s->dir);
  s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (s->lock_fd < 0) return mr_err_errno(err, path);
  while (flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return mr_err_errno(err, path);
    if (wait_ms <= 0)
      return mr_err_set(err, MR_E_BUSY, NULL,
                        "%s is in use by process %ld: stop that one, or use another data directory", s->dir,
                        lock_owner(s->lock_fd));
    nanosleep(&step, NULL);
    wait_ms -= LOCK_STEP_MS;
  }
  n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
  if (ftruncate(s->lock_fd, 0) != 0 || pwrite(s->lock_fd, text, (size_t)n, 0) != n)
    mr_log(s->sys, MR_LOG_WARN, "store", "cannot write the owner into %s", path);
  return MR_OK; /* the pid is for people: a full disk must not keep the store shut */
}

int mr_dir_open(struct mr_store *s, const char *dir, int wait_ms, struct mr_err *err)
{
  char path[PATH_MAX];
  size_t n = strlen(dir);
  int code;

  if (n == 0 || n > PATH_MAX - 256)
    return mr_err_set(err, MR_E_INVALID, "store", "the data directory's name is %s", n ? "too long" : "empty");
  memcpy(path, dir, n + 1);
  code = make_dirs(path, err);
  if (code != MR_OK) return code;
  if (!realpath(dir, path)) return mr_err_errno(err, dir);
  s->dir = mr_mem_strdup(s->mem, mr_str_c(path));
  if (!s->dir) return mr_err_nomem(err);
  return lock_take(s, wait_ms, err);
}

void mr_dir_close(struct mr_store *s)
{
  if (s->lock_fd >= 0) close(s->lock_fd);
  s->lock_fd = -1;
}
