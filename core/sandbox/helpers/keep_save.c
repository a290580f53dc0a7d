/*
 * keep_save.c - the directories into an archive: regular files with their holes, directories, symbolic and hard
 * links; names, modes and times. FIFOs, sockets, and what cannot be read or lies too deep are counted and left
 * out. The tree may change meanwhile (where nothing could freeze it): a file that is gone is left out, one that
 * shrinks ends in zeros; nothing outside the directories is ever reached, since each step is one name below an
 * open directory, without links. keep.c calls.
 */
#include "keep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SPARSE_MAX = 10000 /* pieces of a file with holes; one with more is written whole */ };

struct save {
  struct keep *k;
  struct archive_entry_linkresolver *links;
  char path[KEEP_PATH];
};

static void check(struct keep *k, int code)
{
  if (code == ARCHIVE_OK || code == ARCHIVE_WARN) return;
  keep_die(archive_errno(k->a) == ENOSPC ? KEEP_LIMIT : KEEP_IO, "writing the archive: %s",
           archive_error_string(k->a) ? archive_error_string(k->a) : "no reason given");
}

/* Opens name of dir, which is what st says, even where its owner took the right to read away: it gets it for
 * the moment of opening. Through a descriptor of the very file, so that nothing else can be meant. */
static int open_own(int dir, const char *name, const struct stat *st, int flags)
{
  int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags), pin;
  mode_t need = S_ISDIR(st->st_mode) ? 0700 : 0600;
  struct stat now;
  char self[40];

  if (fd >= 0 || errno != EACCES) return fd;
  pin = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC | flags);
  if (pin < 0) return -1;
  snprintf(self, sizeof self, "/proc/self/fd/%d", pin);
  if (fstat(pin, &now) == 0 && now.st_ino == st->st_ino && now.st_dev == st->st_dev && !S_ISLNK(now.st_mode) &&
      chmod(self, (now.st_mode & 07777) | need) == 0) {
    fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags);
    if (!S_ISDIR(now.st_mode)) chmod(self, now.st_mode & 07777); /* a directory's: when it has been read */
  }
  close(pin);
  return fd;
}

/* ---- files ---- */

/* Where data is; false: written whole. */
static bool holes(struct archive_entry *e, int fd, off_t size)
{
  off_t at = 0, end;
  int n = 0;

  while (at < size && (at = lseek(fd, at, SEEK_DATA)) >= 0 && n < SPARSE_MAX) {
    end = lseek(fd, at, SEEK_HOLE);
    if (end <= at) break;
    if (n == 0 && at == 0 && end >= size) return false;
    if (end > size) end = size;
    archive_entry_sparse_add_entry(e, at, end - at);
    at = end;
    n++;
  }
  if (at < 0 && errno != ENXIO) n = SPARSE_MAX; /* a file system that does not say */
  if (n < SPARSE_MAX && n == 0 && size > 0) archive_entry_sparse_add_entry(e, size, 0);
  if (n < SPARSE_MAX) return size > 0;
  archive_entry_sparse_clear(e);
  return false;
}

static void put(struct keep *k, const void *p, size_t n)
{
  const char *at = p;

  while (n > 0) {
    la_ssize_t got = archive_write_data(k->a, at, n);
    if (got < 0) check(k, (int)got);
    if (got <= 0) return;
    at += got;
    n -= (size_t)got;
  }
}

/* libarchive takes the file as it looks, holes too, and passes over those itself. */
static void content(struct keep *k, struct archive_entry *e, int fd, off_t size, bool sparse)
{
  la_int64_t from = 0, len = size;
  off_t at = 0;
  bool more = true;

  if (sparse) archive_entry_sparse_reset(e);
  while (at < size && more) {
    if (sparse && archive_entry_sparse_next(e, &from, &len) != ARCHIVE_OK) from = size, len = 0;
    more = sparse;
    if (at < from) memset(k->piece, 0, KEEP_PIECE);
    for (off_t n; at < from; at += n) {
      n = from - at < KEEP_PIECE ? from - at : KEEP_PIECE;
      put(k, k->piece, (size_t)n);
    }
    for (off_t end = from + len; at < end;) {
      ssize_t n = pread(fd, k->piece, (size_t)(end - at < KEEP_PIECE ? end - at : KEEP_PIECE), at);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return; /* it became shorter: libarchive fills up */
      keep_count(k, n, 0);
      put(k, k->piece, (size_t)n);
      at += n;
    }
  }
}

static void describe(struct archive_entry *e, const char *path, const struct stat *st)
{
  archive_entry_set_pathname(e, path);
  archive_entry_copy_stat(e, st);
  archive_entry_set_mode(e, st->st_mode & (S_IFMT | 0777));
  archive_entry_set_uid(e, 1000);
  archive_entry_set_gid(e, 1000);
  archive_entry_unset_atime(e);
  archive_entry_unset_ctime(e);
  archive_entry_unset_birthtime(e);
}

static void file(struct save *s, int dir, const char *name, struct stat *st)
{
  struct archive_entry *e = archive_entry_new(), *other = NULL;
  int fd = open_own(dir, name, st, 0);
  bool sparse = false;

  if (!e) keep_die(KEEP_IO, "out of memory");
  if (fd < 0 || fstat(fd, st) != 0 || !S_ISREG(st->st_mode)) {
    s->k->skipped++;
  } else {
    describe(e, s->path, st);
    if (st->st_nlink > 1) archive_entry_linkify(s->links, &e, &other);
    if (!archive_entry_hardlink(e) && (off_t)st->st_blocks * 512 < st->st_size)
      sparse = holes(e, fd, st->st_size);
    keep_count(s->k, 0, 1);
    check(s->k, archive_write_header(s->k->a, e));
    if (!archive_entry_hardlink(e)) content(s->k, e, fd, st->st_size, sparse);
    check(s->k, archive_write_finish_entry(s->k->a));
  }
  if (fd >= 0) close(fd);
  archive_entry_free(e);
}

static void link_(struct save *s, int dir, const char *name, const struct stat *st)
{
  struct archive_entry *e = archive_entry_new();
  char target[KEEP_PATH];
  ssize_t n = readlinkat(dir, name, target, sizeof target - 1);

  if (!e) keep_die(KEEP_IO, "out of memory");
  if (n <= 0 || n == sizeof target - 1) {
    s->k->skipped++;
  } else {
    target[n] = '\0';
    describe(e, s->path, st);
    archive_entry_set_size(e, 0);
    archive_entry_set_symlink(e, target);
    keep_count(s->k, n, 1);
    check(s->k, archive_write_header(s->k->a, e));
  }
  archive_entry_free(e);
}

/* ---- directories ---- */

static void below(struct save *s, DIR *d, size_t n, int depth);

static void directory(struct save *s, int dir, const char *name, struct stat *st, size_t n, int depth)
{
  struct archive_entry *e = archive_entry_new();
  int fd = depth < KEEP_DEPTH ? open_own(dir, name, st, O_DIRECTORY) : -1;
  DIR *d = fd >= 0 ? fdopendir(fd) : NULL;

  if (!e) keep_die(KEEP_IO, "out of memory");
  describe(e, s->path, st);
  archive_entry_set_size(e, 0);
  keep_count(s->k, 0, 1);
  check(s->k, archive_write_header(s->k->a, e));
  archive_entry_free(e);
  if (d) {
    below(s, d, n, depth + 1);
    if ((st->st_mode & 0700) != 0700) fchmod(dirfd(d), st->st_mode & 07777);
    closedir(d);
  } else {
    s->k->skipped++;
    if (fd >= 0) close(fd);
  }
}

/* The entries of d; s->path holds the directory's in its first n bytes. */
static void below(struct save *s, DIR *d, size_t n, int depth)
{
  struct dirent *e;
  struct stat st;

  while ((e = readdir(d))) {
    int more;
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    more = snprintf(s->path + n, sizeof s->path - n, "/%s", e->d_name);
    if (more < 0 || n + (size_t)more >= sizeof s->path ||
        fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
      s->k->skipped++;
    else if (S_ISDIR(st.st_mode))
      directory(s, dirfd(d), e->d_name, &st, n + (size_t)more, depth);
    else if (S_ISREG(st.st_mode))
      file(s, dirfd(d), e->d_name, &st);
    else if (S_ISLNK(st.st_mode))
      link_(s, dirfd(d), e->d_name, &st);
    else
      s->k->skipped++;
    s->path[n] = '\0';
  }
}

void keep_save(struct keep *k)
{
  struct save *s = calloc(1, sizeof *s);
  struct archive *a = k->a = archive_write_new();

  if (!s || !a || !(s->links = archive_entry_linkresolver_new())) keep_die(KEEP_IO, "out of memory");
  s->k = k;
  archive_entry_linkresolver_set_strategy(s->links, ARCHIVE_FORMAT_TAR);
  check(k, archive_write_set_format_pax(a)); /* not the restricted one, which cuts times to seconds */
  archive_write_set_bytes_per_block(a, 1 << 16);
  archive_write_set_bytes_in_last_block(a, 1);
  check(k, archive_write_open_fd(a, KEEP_ARCHIVE));
  for (int i = 0; i < KEEP_DIRS; i++) {
    DIR *d = fdopendir(KEEP_DIR + i);
    if (!d) keep_die(KEEP_IO, "%s: %s", keep_names[i], strerror(errno));
    snprintf(s->path, sizeof s->path, "%s", keep_names[i]);
    below(s, d, strlen(s->path), 1);
  }
  check(k, archive_write_close(a));
}
