/*
 * tree.c - directory trees that a payload has written, handled from outside: ownership, size, removal.
 * Everything goes through descriptors and names without symbolic links, so that nothing outside the tree
 * is ever touched. Removal keeps no stack: a directory inside a directory is moved to the top first, so
 * that a tree of any depth takes the same few descriptors. Pool threads.
 */
#include "sandbox/local/local_t.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 200, SIZE_ENTRIES_MAX = 2000000 };

static bool dots(const char *n)
{
  return n[0] == '.' && (n[1] == '\0' || (n[1] == '.' && n[2] == '\0'));
}

static DIR *open_dir(int at, const char *name)
{
  int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR *d;

  if (fd < 0) return NULL;
  d = fdopendir(fd);
  if (!d) close(fd);
  return d;
}

/* ---- removal ---- */

/* A directory that its owner made unreadable: the processes are dead, nobody swaps it meanwhile. */
static void make_usable(int at, const char *name)
{
  struct stat st;

  if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & 0700) != 0700)
    fchmodat(at, name, 0700, 0);
}

/* Empties the directory `name` of top: files go, directories move up into top under new names. */
static int flatten(int top, const char *name, unsigned *serial)
{
  struct dirent *e;
  char to[32];
  int failed = 0;
  DIR *d;

  make_usable(top, name);
  d = open_dir(top, name);
  if (!d) return errno;
  while (!failed && (e = readdir(d))) {
    if (dots(e->d_name)) continue;
    if (unlinkat(dirfd(d), e->d_name, 0) == 0) continue;
    if (errno != EISDIR && errno != EPERM) {
      failed = errno;
      break;
    }
    make_usable(dirfd(d), e->d_name); /* moving a directory writes its ".." */
    do
      snprintf(to, sizeof to, "%%%u", (*serial)++);
    while (faccessat(top, to, F_OK, AT_SYMLINK_NOFOLLOW) == 0);
    if (unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR) != 0 && renameat(dirfd(d), e->d_name, top, to) != 0)
      failed = errno;
  }
  closedir(d);
  if (!failed && unlinkat(top, name, AT_REMOVEDIR) != 0) failed = errno;
  return failed;
}

int mr_tree_remove(int dir, const char *name, struct mr_err *err)
{
  unsigned serial = 0;
  int failed = 0, left = 1;
  struct dirent *e;
  DIR *d;

  make_usable(dir, name);
  while (left && !failed) {
    d = open_dir(dir, name);
    if (!d && errno == ENOENT) return MR_OK;
    if (!d) return mr_err_errno(err, "removing a sandbox's files");
    left = 0;
    while (!failed && (e = readdir(d))) {
      if (dots(e->d_name) || unlinkat(dirfd(d), e->d_name, 0) == 0) continue;
      left = 1;
      failed = errno == EISDIR || errno == EPERM ? flatten(dirfd(d), e->d_name, &serial) : errno;
    }
    closedir(d);
  }
  errno = failed;
  if (failed || unlinkat(dir, name, AT_REMOVEDIR) != 0) return mr_err_errno(err, "removing a sandbox's files");
  return MR_OK;
}

/* ---- ownership ---- */

static int chown_below(int at, const char *name, uid_t uid, int depth)
{
  struct dirent *e;
  int failed = 0;
  DIR *d;

  if (depth > DEPTH_MAX) return ELOOP;
  d = open_dir(at, name);
  if (!d) return errno;
  if (fchown(dirfd(d), uid, uid) != 0) failed = errno;
  while (!failed && (e = readdir(d))) {
    if (dots(e->d_name)) continue;
    if (e->d_type == DT_DIR)
      failed = chown_below(dirfd(d), e->d_name, uid, depth + 1);
    else if (fchownat(dirfd(d), e->d_name, uid, uid, AT_SYMLINK_NOFOLLOW) != 0)
      failed = errno;
  }
  closedir(d);
  return failed;
}

int mr_tree_chown(int dir, const char *name, int64_t uid, struct mr_err *err)
{
  errno = chown_below(dir, name, (uid_t)uid, 0);
  return errno ? mr_err_errno(err, "giving the workspace to the sandbox's uid") : MR_OK;
}

/* ---- size ---- */

static void size_below(int at, const char *name, int64_t max, int64_t *sum, int64_t *entries, int depth)
{
  struct dirent *e;
  struct stat st;
  DIR *d = depth > DEPTH_MAX ? NULL : open_dir(at, name);

  if (!d) return;
  while (*sum <= max && *entries < SIZE_ENTRIES_MAX && (e = readdir(d))) {
    if (dots(e->d_name) || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
    ++*entries;
    /* An inode costs too: a million empty files are not nothing. */
    *sum += (int64_t)st.st_blocks * 512 / (st.st_nlink > 1 && !S_ISDIR(st.st_mode) ? (int64_t)st.st_nlink : 1) +
            256;
    if (S_ISDIR(st.st_mode)) size_below(dirfd(d), e->d_name, max, sum, entries, depth + 1);
  }
  closedir(d);
}

int64_t mr_tree_size(int dir, const char *name, int64_t max)
{
  int64_t sum = 0, entries = 0;

  size_below(dir, name, max, &sum, &entries, 0);
  return sum;
}
