/*
 * keep_restore.c - the directories from an archive, which may be anybody's: what it holds must be plain names
 * below workspace/ or outputs/, each once, in limits; or the whole of it is refused. "..", absolute paths,
 * files through a symbolic link, hard links to anything but a file of the same archive, devices, FIFOs and
 * sockets are refusals, not things to be mended. Symbolic links are made as they are, since nobody outside the
 * sandbox follows them.
 *
 * Only plain tar is read: no compression, so the bytes of the archive bound the bytes written; holes are left
 * as holes. Modes lose set-uid, set-gid and sticky bits; owner is who this runs as. keep.c calls.
 */
#include "keep.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Modes and times of directories, set when everything is in them. */
struct made {
  char *path;
  mode_t mode;
  struct timespec mtime;
};
struct restore {
  struct keep *k;
  struct made *dirs;
  size_t ndirs, cap;
};

static void check(struct keep *k, int code, const char *path)
{
  if (code == ARCHIVE_OK || code == ARCHIVE_WARN) return;
  keep_die(KEEP_INVALID, "the archive is damaged%s%.300s: %s", path ? " at " : "", path ? path : "",
           archive_error_string(k->a) ? archive_error_string(k->a) : "no reason given");
}

/* ---- paths ---- */

/* "workspace/a/b" -> the directory's descriptor, and "a/b" ("" for the directory itself). Dies when it is no plain
 * path below one of them. */
static int root_of(const char *path, const char **rel, const char *what)
{
  size_t len = path ? strlen(path) : 0, n;
  const char *at = path;

  if (!len || len >= KEEP_PATH)
    keep_die(KEEP_INVALID, "a %s is empty or longer than %d bytes", what, KEEP_PATH);
  while (at) {
    n = strcspn(at, "/");
    if ((n == 0 && at[n]) || (n == 0 && at == path) || (n == 1 && at[0] == '.') ||
        (n == 2 && at[0] == '.' && at[1] == '.') || n > 255)
      keep_die(KEEP_INVALID, "%s %.300s: not a plain path below workspace or outputs", what, path);
    at = at[n] ? at + n + 1 : NULL;
  }
  for (int i = 0; i < KEEP_DIRS; i++) {
    n = strlen(keep_names[i]);
    if (strncmp(path, keep_names[i], n) != 0 || (path[n] && path[n] != '/')) continue;
    *rel = path[n] ? path + n + 1 : path + n;
    return KEEP_DIR + i;
  }
  keep_die(KEEP_INVALID, "%s %.300s: not below workspace or outputs", what, path);
}

/* Below dir, through no link and out of nothing. */
static int open_beneath(int dir, const char *rel, int flags, mode_t mode)
{
  struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
                         .mode = mode,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
  long fd;

  do
    fd = syscall(SYS_openat2, dir, *rel ? rel : ".", &how, sizeof how);
  while (fd < 0 && (errno == EAGAIN || errno == EINTR));
  return (int)fd;
}

static void no_place(const char *path)
{
  if (errno == ELOOP || errno == ENOTDIR || errno == EXDEV)
    keep_die(KEEP_INVALID, "%.300s: goes through something that is no directory", path);
  if (errno == EEXIST) keep_die(KEEP_INVALID, "%.300s: is there twice", path);
  if (errno == EFBIG) keep_die(KEEP_LIMIT, "%.300s: longer than a file may be", path);
  keep_die(errno == ENOSPC || errno == EDQUOT ? KEEP_LIMIT : KEEP_IO, "%.300s: %s", path, strerror(errno));
}

static void remember(struct restore *r, const char *path, mode_t mode, struct timespec mtime)
{
  if (r->ndirs == r->cap) {
    size_t cap = r->cap ? r->cap * 2 : 256;
    struct made *v = realloc(r->dirs, cap * sizeof *v);
    if (!v) keep_die(KEEP_LIMIT, "too many directories for the memory there is");
    r->dirs = v;
    r->cap = cap;
  }
  r->dirs[r->ndirs] = (struct made){strdup(path), mode, mtime};
  if (!r->dirs[r->ndirs++].path) keep_die(KEEP_LIMIT, "too many directories for the memory there is");
}

/* The directory that path lies in, and its last name. Directories that the archive does not name are made. */
static int parent_of(struct restore *r, const char *path, const char **leaf)
{
  const char *rel, *slash;
  char dir[KEEP_PATH];
  int root = root_of(path, &rel, "name"), fd;

  if (!*rel) keep_die(KEEP_INVALID, "%.300s: must be a directory", path);
  slash = strrchr(rel, '/');
  *leaf = slash ? slash + 1 : rel;
  snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - rel) : 0, rel);
  fd = open_beneath(root, dir, O_RDONLY | O_DIRECTORY, 0);
  for (char *at = dir; fd < 0 && errno == ENOENT && at;) {
    char *end = strchr(at, '/');
    int up;
    if (end) *end = '\0';
    up = open_beneath(root, dir, O_RDONLY | O_DIRECTORY, 0);
    if (up < 0 && errno == ENOENT) {
      char *last = strrchr(dir, '/');
      if (last) *last = '\0';
      up = open_beneath(root, last ? dir : "", O_RDONLY | O_DIRECTORY, 0);
      if (last) *last = '/';
      if (up < 0 || mkdirat(up, last ? last + 1 : dir, 0755) != 0) no_place(path);
      keep_count(r->k, 0, 1);
    } else if (up < 0) {
      no_place(path);
    }
    if (up >= 0) close(up);
    if (end) *end = '/';
    at = end ? end + 1 : NULL;
    fd = at ? -1 : open_beneath(root, dir, O_RDONLY | O_DIRECTORY, 0);
    if (at) errno = ENOENT;
  }
  if (fd < 0) no_place(path);
  return fd;
}

/* ---- entries ---- */

static void directory(struct restore *r, const char *path, struct archive_entry *e)
{
  struct timespec t = {.tv_sec = archive_entry_mtime(e), .tv_nsec = archive_entry_mtime_nsec(e)};
  const char *rel, *leaf;
  struct stat st;
  int fd;

  (void)root_of(path, &rel, "name");
  if (*rel) {
    fd = parent_of(r, path, &leaf);
    /* One that was made for what lies in it may be named later. */
    if (mkdirat(fd, leaf, 0700) != 0 &&
        (errno != EEXIST || fstatat(fd, leaf, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(st.st_mode))) {
      errno = EEXIST;
      no_place(path);
    }
    close(fd);
    remember(r, path, archive_entry_perm(e) & 0777, t);
  }
}

static void regular(struct restore *r, const char *path, struct archive_entry *e)
{
  struct timespec t[2] = {{.tv_nsec = UTIME_OMIT},
                          {.tv_sec = archive_entry_mtime(e), .tv_nsec = archive_entry_mtime_nsec(e)}};
  struct keep *k = r->k;
  la_int64_t at, size = archive_entry_size(e);
  const char *leaf, *p;
  const void *piece;
  int dir, fd, code;
  size_t n;

  if (size < 0 || size > k->file_max)
    keep_die(KEEP_LIMIT, "%.300s: longer than the %lld MiB that a file may have", path,
             (long long)(k->file_max >> 20));
  dir = parent_of(r, path, &leaf);
  fd = open_beneath(dir, leaf, O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (fd < 0) no_place(path);
  while ((code = archive_read_data_block(k->a, &piece, &n, &at)) == ARCHIVE_OK) {
    if (at < 0 || at > size || (la_int64_t)n > size - at)
      keep_die(KEEP_INVALID, "%.300s: more data than its size", path);
    keep_count(k, (int64_t)n, 0);
    for (p = piece; n > 0;) {
      ssize_t w = pwrite(fd, p, n, at);
      if (w < 0 && errno == EINTR) continue;
      if (w <= 0) no_place(path);
      p += w;
      at += w;
      n -= (size_t)w;
    }
  }
  if (code != ARCHIVE_EOF) check(k, code == ARCHIVE_WARN ? ARCHIVE_FATAL : code, path);
  if (ftruncate(fd, size) != 0 || fchmod(fd, archive_entry_perm(e) & 0777) != 0 || futimens(fd, t) != 0)
    no_place(path);
  close(fd);
  close(dir);
}

static void hard_link(struct restore *r, const char *path, const char *target)
{
  const char *rel, *leaf, *tleaf;
  int root = root_of(target, &rel, "hard link to"), dir, tdir, pin;
  struct stat st;

  (void)root;
  tdir = parent_of(r, target, &tleaf);
  pin = open_beneath(tdir, tleaf, O_PATH, 0);
  if (pin < 0 || fstat(pin, &st) != 0 || !S_ISREG(st.st_mode))
    keep_die(KEEP_INVALID, "%.300s: a hard link to what is no file of the archive: %.300s", path, target);
  dir = parent_of(r, path, &leaf);
  if (linkat(tdir, tleaf, dir, leaf, 0) != 0) no_place(path); /* does not follow a link */
  close(pin);
  close(tdir);
  close(dir);
}

static void soft_link(struct restore *r, const char *path, struct archive_entry *e)
{
  const struct timespec t[2] = {{.tv_nsec = UTIME_OMIT},
                                {.tv_sec = archive_entry_mtime(e), .tv_nsec = archive_entry_mtime_nsec(e)}};
  const char *target = archive_entry_symlink(e), *leaf;
  int dir = parent_of(r, path, &leaf);

  if (!target || !*target || strlen(target) >= KEEP_PATH)
    keep_die(KEEP_INVALID, "%.300s: a link without a target, or with one that is too long", path);
  keep_count(r->k, (int64_t)strlen(target), 0);
  if (symlinkat(target, dir, leaf) != 0) no_place(path);
  utimensat(dir, leaf, t, AT_SYMLINK_NOFOLLOW);
  close(dir);
}

static void entry(struct restore *r, struct archive_entry *e)
{
  const char *name = archive_entry_pathname(e), *target = archive_entry_hardlink(e);
  char path[KEEP_PATH];
  size_t n = name ? strlen(name) : 0;

  while (n > 1 && name[n - 1] == '/') /* as tar writes directories */
    n--;
  if (n >= sizeof path) keep_die(KEEP_INVALID, "a name is longer than %d bytes", KEEP_PATH);
  snprintf(path, sizeof path, "%.*s", (int)n, name ? name : "");
  keep_count(r->k, 0, 1);
  if (target)
    hard_link(r, path, target);
  else if (archive_entry_filetype(e) == AE_IFDIR)
    directory(r, path, e);
  else if (archive_entry_filetype(e) == AE_IFREG)
    regular(r, path, e);
  else if (archive_entry_filetype(e) == AE_IFLNK)
    soft_link(r, path, e);
  else
    keep_die(KEEP_INVALID, "%.300s: neither file, directory nor link", path);
}

/* Deepest last made first, so that a directory that nobody may write to is closed when it is full. */
static void finish_dirs(struct restore *r)
{
  while (r->ndirs > 0) {
    struct made *m = &r->dirs[--r->ndirs];
    const struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, m->mtime};
    const char *rel;
    int root = root_of(m->path, &rel, "name"), fd = open_beneath(root, rel, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0 && errno == EACCES) continue; /* named twice, with no rights the second time */
    if (fd < 0 || futimens(fd, t) != 0 || fchmod(fd, m->mode) != 0) no_place(m->path);
    close(fd);
    free(m->path);
  }
}

void keep_restore(struct keep *k)
{
  struct restore r = {.k = k};
  struct archive_entry *e = NULL;
  struct archive *a = k->a = archive_read_new();
  int code;

  if (!a) keep_die(KEEP_IO, "out of memory");
  check(k, archive_read_support_format_tar(a), NULL);
  check(k, archive_read_open_fd(a, KEEP_ARCHIVE, 1 << 18), NULL);
  while ((code = archive_read_next_header(a, &e)) == ARCHIVE_OK || code == ARCHIVE_WARN)
    entry(&r, e);
  if (code != ARCHIVE_EOF) check(k, code, NULL);
  finish_dirs(&r);
}
