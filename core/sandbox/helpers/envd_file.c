/*
 * envd_file - the tools read, write and edit (API: tools 4.3-4.5, 4.8), run in a worker. The words of errors
 * are those of the reference tools.
 *
 * Paths may go anywhere and through symbolic links: the sandbox is the boundary, bash reads the same files.
 * Only regular files are opened: the path is looked up without opening it, so a FIFO cannot make it wait and
 * a device sees nothing. A file is replaced in one step, or not at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "envd.h"

enum { IMAGE_MAX = 3932160 /* 5 MiB as base64 */, PDF_MAX = 7864320 /* 10 MiB */ };

void tool_text(struct tool_run *r, const char *p, size_t n)
{
  struct ebuf text = {.max = r->content.max};
  ebuf_text(&text, p, n, false);
  envd_content(&r->content, text.p, text.n);
  if (text.failed) r->content.failed = true;
  ebuf_free(&text);
}

void tool_fail(struct tool_run *r, const char *fmt, ...)
{
  char text[PATH_MAX + 1024];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  r->content.n = 0;
  tool_text(r, text, strlen(text));
  r->is_error = true;
}

void tool_errno(struct tool_run *r, const char *shown, int err)
{
  static const struct {
    int err;
    const char *text;
  } known[] = {{ENOENT, "no such file or directory"},
               {EACCES, "permission denied"},
               {EPERM, "permission denied"},
               {ENOTDIR, "not a directory"},
               {EISDIR, "is a directory"},
               {ELOOP, "too many levels of symbolic links"},
               {ENAMETOOLONG, "file name too long"},
               {ENOSPC, "no space left on device"},
               {EDQUOT, "no space left on device"},
               {EMFILE, "too many open files"},
               {ENFILE, "too many open files"}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (known[i].err != err) continue;
    tool_fail(r, "%s: %s: %s", r->name, shown, known[i].text);
    return;
  }
  const char *name = strerrorname_np(err);
  tool_fail(r, "%s: %s: i/o error (%s)", r->name, shown, name ? name : "unknown");
}

bool tool_required(struct tool_run *r, const char *key, struct estr *out)
{
  *out = ej_str(r->input, key);
  if (out->p) return true;
  tool_fail(r, "%s: %s %s", r->name, key, ej_get(r->input, key) ? "must be a string" : "is required");
  return false;
}

/* Takes out empty and "." components. */
static void tidy(char *path)
{
  char *o = path;
  for (const char *p = path; *p;) {
    if (p[0] == '/' && (p[1] == '/' || (p[1] == '.' && (p[2] == '/' || !p[2]))))
      p += p[1] == '/' ? 1 : 2;
    else
      *o++ = *p++;
  }
  if (o == path) *o++ = '/';
  *o = 0;
}

bool tool_path(struct tool_run *r, struct estr shown, char *out)
{
  const char *home = shown.n && shown.p[0] == '/' ? "" : r->e->cfg.home;
  if (!shown.n || strlen(shown.p) != shown.n) {
    tool_fail(r, "%s: the path is %s", r->name,
              shown.n ? "not a file name: it contains a NUL character" : "empty");
    return false;
  }
  if (snprintf(out, PATH_MAX, "%s%s%s", home, *home ? "/" : "", shown.p) < PATH_MAX) {
    tidy(out);
    return true;
  }
  tool_fail(r, "%s: file name too long", r->name);
  return false;
}

int walk_open_regular(int dir, const char *name, bool follow)
{
  char self[40];
  struct stat st;
  int at = openat(dir, name, O_PATH | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW)), fd = -1;
  if (at < 0) return -1;
  int err = fstat(at, &st) ? errno : S_ISREG(st.st_mode) ? 0 : ENOTSUP;
  if (!err) {
    snprintf(self, sizeof self, "/proc/self/fd/%d", at);
    fd = open(self, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    err = fd < 0 ? errno : 0;
  }
  close(at);
  errno = err;
  return fd;
}

/* Opens what file_path names; -1: said. */
static int open_file(struct tool_run *r, struct estr shown, const char *path, struct stat *st)
{
  int fd = walk_open_regular(AT_FDCWD, path, true);
  if (fd >= 0 && !fstat(fd, st)) return fd;
  int err = errno;
  if (fd >= 0) close(fd);
  if (err == ENOTSUP)
    tool_fail(r, "%s: %s is not a regular file", r->name, shown.p);
  else
    tool_errno(r, shown.p, err);
  return -1;
}

/* Up to max bytes from where fd stands. False: errno. */
static bool slurp(int fd, struct ebuf *b, size_t max)
{
  while (b->n < max) {
    size_t want = max - b->n < 65536 ? max - b->n : 65536;
    if (!ebuf_room(b, want)) {
      errno = ENOMEM;
      return false;
    }
    ssize_t n = read(fd, b->p + b->n, want);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    if (!n) break;
    b->n += (size_t)n;
  }
  return true;
}

/* --- read -------------------------------------------------------------------------------------------- */

static const char *media_type(const char *p, size_t n)
{
  if (n >= 8 && !memcmp(p, "\x89PNG\r\n\x1a\n", 8)) return "image/png";
  if (n >= 3 && !memcmp(p, "\xff\xd8\xff", 3)) return "image/jpeg";
  if (n >= 6 && (!memcmp(p, "GIF87a", 6) || !memcmp(p, "GIF89a", 6))) return "image/gif";
  if (n >= 12 && !memcmp(p, "RIFF", 4) && !memcmp(p + 8, "WEBP", 4)) return "image/webp";
  if (n >= 5 && !memcmp(p, "%PDF-", 5)) return "application/pdf";
  return NULL;
}

/* The file as one block that shows it. */
static void give_media(struct tool_run *r, struct estr shown, int fd, const char *type, struct ebuf *b)
{
  bool pdf = !strcmp(type, "application/pdf");
  size_t max = pdf ? PDF_MAX : IMAGE_MAX;
  if (!slurp(fd, b, max + 1)) {
    tool_errno(r, shown.p, errno);
  } else if (b->n > max) {
    tool_fail(r, "%s: %s is %s of more than %zu bytes. %s", r->name, shown.p, pdf ? "a PDF" : "an image", max,
              pdf ? "Take its text or some of its pages out with bash and read those."
                  : "Make a smaller copy of it with bash and read that.");
  } else {
    ebuf_f(&r->content, "[{\"type\":\"%s\",\"source\":{\"type\":\"base64\",\"media_type\":\"%s\",\"data\":\"",
           pdf ? "document" : "image", type);
    ebuf_base64(&r->content, (const unsigned char *)b->p, b->n);
    ebuf_s(&r->content, "\"}}]");
  }
}

struct range {
  int64_t first, last;
}; /* last <= 0: to the end */

static bool view_range(struct tool_run *r, struct range *out, bool *given)
{
  const struct ej *v = ej_get(r->input, "view_range");
  *given = v && (v->t != EJ_ARR || v->first);
  if (!*given) return true;
  const struct ej *a = v->t == EJ_ARR ? v->first : NULL, *b = a ? a->next : NULL;
  if (!b || b->next || a->t != EJ_INT || b->t != EJ_INT) {
    tool_fail(r, "read: view_range must be [start, end], two line numbers");
    return false;
  }
  *out = (struct range){a->i, b->i};
  if (a->i >= 1 && (b->i <= 0 || b->i >= a->i)) return true;
  tool_fail(r,
            "read: view_range [%lld, %lld] is no range: start counts from 1, and end is not before it (0 or "
            "less: to the end)",
            (long long)a->i, (long long)b->i);
  return false;
}

/* The lines of the range, joined as they are; the file may be of any size. */
static void give_lines(struct tool_run *r, struct estr shown, int fd, struct range want)
{
  static const char cap[] = "exceeds %d-byte limit";
  struct ebuf got = {.max = ENVD_FILE_MAX + 2};
  char chunk[65536], limit[64];
  int64_t line = 1;
  ssize_t n;
  snprintf(limit, sizeof limit, cap, ENVD_FILE_MAX);
  while ((n = read(fd, chunk, sizeof chunk)) != 0 && (want.last <= 0 || line <= want.last)) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      tool_errno(r, shown.p, errno);
      goto out;
    }
    for (const char *p = chunk, *end = chunk + n; p < end && (want.last <= 0 || line <= want.last);) {
      const char *nl = memchr(p, '\n', (size_t)(end - p)), *next = nl ? nl + 1 : end;
      if (line >= want.first) ebuf_put(&got, p, (size_t)(next - p));
      if (got.failed || got.n > ENVD_FILE_MAX + 1) {
        if (!memchr(got.p, '\n', got.n))
          tool_fail(r, "read: line %lld of %s %s", (long long)line, shown.p, limit);
        else
          tool_fail(r, "read: the selected lines of %s %s. Narrow the view_range", shown.p, limit);
        goto out;
      }
      if (nl) line++;
      p = next;
    }
  }
  if (!got.n && want.first > 1) {
    tool_fail(r, "read: view_range starts at line %lld, after the end of %s, which has %lld lines",
              (long long)want.first, shown.p, (long long)(line - 1));
  } else {
    if (got.n && got.p[got.n - 1] == '\n') got.n--;
    tool_text(r, got.p, got.n);
  }
out:
  ebuf_free(&got);
}

void tool_read(struct tool_run *r)
{
  struct estr shown;
  char path[PATH_MAX];
  struct stat st;
  struct range range;
  bool ranged;
  struct ebuf b = {.max = PDF_MAX + 65536};
  if (!tool_required(r, "file_path", &shown) || !tool_path(r, shown, path) || !view_range(r, &range, &ranged))
    return;
  int fd = open_file(r, shown, path, &st);
  if (fd < 0) return;
  if (!slurp(fd, &b, 8192)) {
    tool_errno(r, shown.p, errno);
    goto out;
  }
  const char *media = media_type(b.p, b.n);
  if (media) {
    give_media(r, shown, fd, media, &b);
  } else if (b.n && memchr(b.p, 0, b.n)) {
    tool_fail(r,
              "read: %s is a binary file (%lld bytes). Look at it with bash, for example with od or strings.",
              shown.p, (long long)st.st_size);
  } else if (ranged) {
    if (lseek(fd, 0, SEEK_SET))
      tool_errno(r, shown.p, errno);
    else
      give_lines(r, shown, fd, range);
  } else if (!slurp(fd, &b, ENVD_FILE_MAX + 1)) {
    tool_errno(r, shown.p, errno);
  } else if (b.n > ENVD_FILE_MAX) {
    tool_fail(r, "read: %s has %lld bytes, which exceeds %d-byte limit. Use view_range to read a part of it",
              shown.p, (long long)(st.st_size > ENVD_FILE_MAX ? st.st_size : ENVD_FILE_MAX + 1), ENVD_FILE_MAX);
  } else {
    tool_text(r, b.p, b.n);
  }
out:
  ebuf_free(&b);
  close(fd);
}

/* --- write ------------------------------------------------------------------------------------------- */

/* Makes the directories of path that are missing. */
static bool make_parents(char *path)
{
  for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    struct stat st;
    *slash = 0;
    int rc = mkdir(path, 0700), err = errno;
    /* EROFS and EACCES are said of directories that are there as well */
    if (rc && (err == EEXIST || err == EROFS || err == EACCES || err == EPERM) && !stat(path, &st)) {
      rc = S_ISDIR(st.st_mode) ? 0 : -1;
      err = ENOTDIR;
    }
    *slash = '/';
    if (rc) {
      errno = err;
      return false;
    }
  }
  return true;
}

/* Follows symbolic links at the end of path, also to what is not there yet. */
static bool follow_links(char *path)
{
  for (int i = 0; i < 40; i++) {
    char to[PATH_MAX], joined[2 * PATH_MAX];
    ssize_t n = readlink(path, to, sizeof to - 1);
    if (n < 0) return errno == EINVAL || errno == ENOENT;
    to[n] = 0;
    char *slash = strrchr(path, '/');
    int keep = *to == '/' ? 0 : (int)(slash - path + 1);
    if (snprintf(joined, sizeof joined, "%.*s%s", keep, path, to) >= PATH_MAX) {
      errno = ENAMETOOLONG;
      return false;
    }
    memcpy(path, joined, strlen(joined) + 1);
  }
  errno = ELOOP;
  return false;
}

static bool under(const char *path, const char *dir)
{
  size_t n = strlen(dir);
  return !strncmp(path, dir, n) && (path[n] == 0 || path[n] == '/');
}

/* "X is inside read-only directory R" where that is the reason, else the plain error. */
static void refused(struct tool_run *r, struct estr shown, const char *path, int err)
{
  const struct config *c = &r->e->cfg;
  char near[PATH_MAX], real[PATH_MAX];
  bool writable = false;
  snprintf(near, sizeof near, "%s", path);
  do {
    char *slash = strrchr(near, '/');
    slash[slash == near] = 0;
  } while (!realpath(near, real) && near[1]);
  for (int i = 0; i < ENVD_WRITE_DIRS && c->write[i]; i++)
    writable = writable || under(real, c->write[i]);
  if (err != EROFS && (writable || (err != EACCES && err != EPERM && err != EXDEV))) {
    tool_errno(r, shown.p, err);
    return;
  }
  const char *named = real;
  for (int i = 0; i < ENVD_WRITE_DIRS && c->read_only[i]; i++)
    if (under(real, c->read_only[i])) named = c->read_only[i];
  tool_fail(r, "%s: %s is inside read-only directory %s", r->name, shown.p, named);
}

static bool put_all(int fd, const char *p, size_t n)
{
  while (n) {
    ssize_t w = write(fd, p, n);
    if (w < 0 && errno == EINTR) continue;
    if (w < 0) return false;
    p += w;
    n -= (size_t)w;
  }
  return true;
}

/* A file without a name, or, where the file system has no such thing, with the name temp. */
static int open_temp(int dir, const char *temp, bool *named)
{
  int fd = openat(dir, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  *named = fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT || errno == EINVAL);
  if (*named) fd = openat(dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) *named = false;
  return fd;
}

/* path, an absolute one without a link at its end, gets this content in one step. False: errno. */
static bool replace(char *path, const char *p, size_t n, mode_t mode)
{
  char temp[64], self[40];
  char *slash = strrchr(path, '/');
  bool named = false, ok = false;
  int dir, fd = -1, err = 0;
  snprintf(temp, sizeof temp, ".write-%d-%lld", (int)getpid(), (long long)envd_now());
  *slash = 0;
  dir = open(*path ? path : "/", O_DIRECTORY | O_CLOEXEC);
  *slash = '/';
  if (dir < 0) return false;
  fd = open_temp(dir, temp, &named);
  if (fd < 0 || !put_all(fd, p, n) || fchmod(fd, mode) || fsync(fd)) goto out;
  snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
  if (!named && linkat(AT_FDCWD, self, dir, temp, AT_SYMLINK_FOLLOW)) goto out;
  named = true;
  if (renameat(dir, temp, dir, slash + 1)) goto out;
  named = false;
  fsync(dir); /* the file is complete either way */
  ok = true;
out:
  err = errno;
  if (named) unlinkat(dir, temp, 0);
  if (fd >= 0) close(fd);
  close(dir);
  errno = err;
  return ok;
}

static bool put_file(struct tool_run *r, struct estr shown, char *path, const char *p, size_t n)
{
  struct stat st;
  mode_t mode = 0600;
  if (path[strlen(path) - 1] == '/') {
    tool_errno(r, shown.p, EISDIR);
    return false;
  }
  if (!make_parents(path) || !follow_links(path)) goto failed;
  if (!lstat(path, &st)) {
    if (!S_ISREG(st.st_mode)) {
      if (S_ISDIR(st.st_mode))
        tool_errno(r, shown.p, EISDIR);
      else
        tool_fail(r, "%s: %s is not a regular file", r->name, shown.p);
      return false;
    }
    mode = st.st_mode & 0777;
  }
  if (replace(path, p, n, mode)) return true;
failed:
  refused(r, shown, path, errno);
  return false;
}

void tool_write(struct tool_run *r)
{
  struct estr shown, content;
  char path[PATH_MAX];
  struct ebuf text = {0};
  if (!tool_required(r, "file_path", &shown) || !tool_required(r, "content", &content) ||
      !tool_path(r, shown, path))
    return;
  if (!put_file(r, shown, path, content.p, content.n)) return;
  ebuf_f(&text, "wrote %zu bytes to %s", content.n, shown.p);
  tool_text(r, text.p, text.n);
  ebuf_free(&text);
}

/* --- edit -------------------------------------------------------------------------------------------- */

/* Copies from to out with each old replaced; returns how often, and stops at that when out is NULL. */
static size_t substitute(struct ebuf *out, const struct ebuf *from, struct estr old, struct estr fresh)
{
  size_t count = 0, at = 0;
  for (const char *hit; at < from->n && (hit = memmem(from->p + at, from->n - at, old.p, old.n)); count++) {
    size_t i = (size_t)(hit - from->p);
    if (out) ebuf_put(out, from->p + at, i - at);
    if (out) ebuf_put(out, fresh.p, fresh.n);
    at = i + old.n;
  }
  if (out) ebuf_put(out, from->p + at, from->n - at);
  return count;
}

void tool_edit(struct tool_run *r)
{
  struct estr shown, old, fresh;
  char path[PATH_MAX];
  struct stat st;
  struct ebuf b = {.max = ENVD_FILE_MAX + 65536}, out = {.max = 256u << 20}, text = {0};
  const struct ej *all = ej_get(r->input, "replace_all");
  if (!tool_required(r, "file_path", &shown) || !tool_required(r, "old_string", &old) ||
      !tool_required(r, "new_string", &fresh) || !tool_path(r, shown, path))
    return;
  if (!old.n || (all && all->t != EJ_BOOL)) {
    tool_fail(r, !old.n ? "edit: old_string must not be empty" : "edit: replace_all must be true or false");
    return;
  }
  int fd = open_file(r, shown, path, &st);
  if (fd < 0) return;
  bool read = slurp(fd, &b, ENVD_FILE_MAX + 1);
  int err = errno;
  close(fd);
  size_t n = substitute(NULL, &b, old, fresh);
  if (!read) {
    tool_errno(r, shown.p, err);
  } else if (b.n > ENVD_FILE_MAX) {
    tool_fail(r, "edit: %s has %lld bytes, which exceeds %d-byte limit", shown.p, (long long)st.st_size,
              ENVD_FILE_MAX);
  } else if (!n) {
    tool_fail(r, "edit: old_string not found in %s", shown.p);
  } else if (n > 1 && !(all && all->i)) {
    tool_fail(r, "edit: old_string appears %zu times in %s (must be unique)", n, shown.p);
  } else if (substitute(&out, &b, old, fresh), out.failed) {
    tool_fail(r, "edit: %s would become too large", shown.p);
  } else if (put_file(r, shown, path, out.p, out.n)) {
    ebuf_f(&text, "edited %s (%zu replacement(s))", shown.p, n);
    tool_text(r, text.p, text.n);
  }
  ebuf_free(&b);
  ebuf_free(&out);
  ebuf_free(&text);
}
