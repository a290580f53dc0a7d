/*
 * uploads.c - a session's input files as one directory, <session>/uploads, which is bound read-only at
 * /mnt/session/uploads: filled by hard links to the store's files (copies across file systems), so that a
 * file that comes later appears in a sandbox that runs already, and one that goes disappears.
 *
 * A link shares its inode with the store's file. Where the sandbox has another uid, that file becomes
 * readable for all; the directories around it stay closed, and the payload sees it through a read-only
 * mount. Pool threads; payloads cannot write here, so names are stable while this runs.
 */
#include "sandbox/local/local_t.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_PARTS_MAX = 32, PATH_BYTES_MAX = 1024 };
static const char mount_root[] = "/mnt/session/uploads";

/* "/mnt/session/uploads/a/b" or "/a/b" -> "a/b"; MR_E_INVALID for "..", empty and long ones. */
static int relative(const char *path, char out[PATH_BYTES_MAX], struct mr_err *err)
{
  struct mr_str rest = mr_str_c(path), part;
  size_t n = 0, parts = 0, root = sizeof mount_root - 1;

  if (mr_str_starts(rest, MR_S(mount_root)) && (rest.n == root || rest.p[root] == '/'))
    rest = mr_str_n(rest.p + root, rest.n - root);
  while (rest.p && parts <= PATH_PARTS_MAX) {
    part = mr_str_split(&rest, '/');
    if (part.n == 0 || mr_str_is(part, ".")) continue;
    if (mr_str_is(part, "..") || part.n > 255 || n + part.n + 2 > PATH_BYTES_MAX) break;
    if (n) out[n++] = '/';
    memcpy(out + n, part.p, part.n);
    n += part.n;
    parts++;
    out[n] = '\0';
  }
  if (rest.p || n == 0 || parts > PATH_PARTS_MAX)
    return mr_err_set(err, MR_E_INVALID, "mount_path", "mount_path: %.200s is not a path below %s", path,
                      mount_root);
  return MR_OK;
}

/* Opens a directory, making it when it is missing: readable whatever the umask of the server. */
static int open_made(int at, const char *name)
{
  bool made = mkdirat(at, name, 0755) == 0;
  int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

  if (fd >= 0 && made && fchmod(fd, 0755) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

/* Opens the directory of rel, making what is missing; *leaf = the last part. */
static int open_parent(int up, char *rel, const char **leaf)
{
  int fd = fcntl(up, F_DUPFD_CLOEXEC, 0), next;
  char *at = rel, *slash;

  while (fd >= 0 && (slash = strchr(at, '/'))) {
    *slash = '\0';
    next = open_made(fd, at);
    close(fd);
    *slash = '/';
    at = slash + 1;
    fd = next;
  }
  *leaf = at;
  return fd;
}

static int copy_bytes(int from, int to)
{
  char piece[64 << 10];
  ssize_t n;

  if (ioctl(to, FICLONE, from) == 0) return 0;
  while ((n = read(from, piece, sizeof piece)) > 0)
    for (ssize_t at = 0, w; at < n; at += w)
      if ((w = write(to, piece + at, (size_t)(n - at))) <= 0) return -1;
  return n < 0 ? -1 : 0;
}

/* A copy appears whole: under a name of its own first. */
static int copy(int from, int dir, const char *leaf, const struct stat *st)
{
  static const char tmp[] = ".moonrig-copy";
  const struct timespec times[2] = {st->st_mtim, st->st_mtim};
  int to = openat(dir, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0444), failed;

  if (to < 0) return -1;
  failed =
      copy_bytes(from, to) != 0 || fchmod(to, 0444 | (st->st_mode & 0111)) != 0 || futimens(to, times) != 0;
  close(to);
  if (failed || renameat(dir, tmp, dir, leaf) != 0) {
    unlinkat(dir, tmp, 0);
    return -1;
  }
  return 0;
}

static int show(int up, const struct mr_sandbox_mount *m, char *rel, bool as_root, struct mr_err *err)
{
  const char *leaf;
  struct stat src, dst;
  int dir = -1, from = open(m->host_path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), code = MR_OK;

  if (from < 0 || fstat(from, &src) != 0 || !S_ISREG(src.st_mode))
    goto out; /* deleted from the store since: the model finds no file there, the session goes on */
  dir = open_parent(up, rel, &leaf);
  if (dir < 0) {
    code = mr_err_errno(err, m->path);
    goto out;
  }
  if (fstatat(dir, leaf, &dst, AT_SYMLINK_NOFOLLOW) == 0) {
    if ((dst.st_dev == src.st_dev && dst.st_ino == src.st_ino) ||
        (dst.st_size == src.st_size && dst.st_mtim.tv_sec == src.st_mtim.tv_sec &&
         dst.st_mtim.tv_nsec == src.st_mtim.tv_nsec))
      goto out;
    unlinkat(dir, leaf, 0);
  }
  if (linkat(AT_FDCWD, m->host_path, dir, leaf, 0) == 0) {
    if (as_root && !(src.st_mode & S_IROTH) && fchmod(from, (src.st_mode & 0111) | 0444) != 0)
      code = mr_err_errno(err, m->path);
  } else if (copy(from, dir, leaf, &src) != 0) {
    code = mr_err_errno(err, m->path);
  }
out:
  if (dir >= 0) close(dir);
  if (from >= 0) close(from);
  return code;
}

/* Removes what no mount names. */
static void prune(int dir, char path[PATH_BYTES_MAX], size_t n, const struct mr_sandbox_mount *m, int nm,
                  int depth)
{
  int fd = openat(dir, n ? path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
  char rel[PATH_BYTES_MAX];
  struct dirent *e;

  if (!d && fd >= 0) close(fd);
  while (d && (e = readdir(d))) {
    int k = snprintf(path + n, PATH_BYTES_MAX - n, "%s%s", n ? "/" : "", e->d_name);
    bool wanted =
        strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || k < 0 || n + (size_t)k >= PATH_BYTES_MAX;
    for (int i = 0; i < nm && !wanted; i++)
      wanted = e->d_type != DT_DIR && relative(m[i].path, rel, NULL) == MR_OK && strcmp(rel, path) == 0;
    if (!wanted && e->d_type == DT_DIR && depth < PATH_PARTS_MAX) {
      prune(dir, path, n + (size_t)k, m, nm, depth + 1);
      unlinkat(dir, path, AT_REMOVEDIR); /* when it is empty now */
    } else if (!wanted) {
      unlinkat(dir, path, 0);
    }
    path[n] = '\0';
  }
  if (d) closedir(d);
}

int mr_local_uploads(int dir, const struct mr_sandbox_mount *m, int n, bool as_root, struct mr_err *err)
{
  char rel[PATH_BYTES_MAX] = "";
  int up, code = MR_OK;

  up = open_made(dir, "uploads");
  if (up < 0) return mr_err_errno(err, "uploads");
  prune(up, rel, 0, m, n, 0);
  for (int i = 0; i < n && code == MR_OK; i++)
    if ((code = relative(m[i].path, rel, err)) == MR_OK) code = show(up, &m[i], rel, as_root, err);
  close(up);
  return code;
}
