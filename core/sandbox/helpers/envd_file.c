/*
 * envd_file - the tools write and edit (API: tools 4.4, 4.5), and what all file tools share: texts, errors (4.8),
 * opening. Run in a worker. The words of errors are those of the reference tools.
 *
 * Only regular files are opened: the path is looked up without opening it, so a FIFO cannot make it wait and
 * a device sees nothing. A file is replaced in one step, or not at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "envd.h"

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

const char *tool_error(int err, char unknown[48])
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
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i].err == err) return known[i].text;
  const char *name = strerrorname_np(err);
  snprintf(unknown, 48, "i/o error (%s)", name ? name : "unknown");
  return unknown;
}

void tool_errno(struct tool_run *r, const char *shown, int err)
{
  char unknown[48];
  tool_fail(r, "%s: %s: %s", r->name, shown, tool_error(err, unknown));
}

bool tool_required(struct tool_run *r, const char *key, bool may_be_empty, struct estr *out)
{
  *out = ej_str(r->input, key);
  if (out->p && (out->n || may_be_empty)) return true;
  tool_fail(r, "%s: %s %s", r->name, key,
            ej_get(r->input, key) && !out->p ? "must be a string" : "is required");
  return false;
}

int tool_open(struct tool_run *r, struct path *p, struct stat *st)
{
  int fd = path_open(r, p, st);
  if (fd < 0) return -1;
  if (!S_ISREG(st->st_mode)) {
    tool_fail(r, "%s: %s is not a regular file", r->name, p->shown.p);
    close(fd);
    return -1;
  }
  fd = path_reopen(fd, O_RDONLY);
  if (fd < 0) tool_errno(r, p->shown.p, errno);
  return fd;
}

bool tool_slurp(struct tool_run *r, struct estr shown, int fd, struct ebuf *b, size_t max)
{
  while (b->n < max) {
    size_t want = max - b->n < 65536 ? max - b->n : 65536;
    ssize_t n = ebuf_room(b, want) ? read(fd, b->p + b->n, want) : (errno = ENOMEM, -1);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) tool_errno(r, shown.p, errno);
    if (n < 0) return false;
    if (!n) break;
    b->n += (size_t)n;
  }
  return true;
}

/* --- write ------------------------------------------------------------------------------------------- */

/* "X is inside read-only directory R" where that is the reason, else the plain error. */
static void refused(struct tool_run *r, struct path *p, int err)
{
  const struct config *c = &r->e->cfg;
  char near[PATH_MAX], real[PATH_MAX];
  bool writable = false;
  snprintf(near, sizeof near, "%s", p->real);
  do {
    char *slash = strrchr(near, '/');
    slash[slash == near] = 0;
  } while (!realpath(near, real) && near[1]);
  for (int i = 0; i < ENVD_WRITE_DIRS && c->write[i]; i++)
    writable = writable || path_under(real, c->write[i]);
  if (err == EROFS || (!writable && (err == EACCES || err == EPERM || err == EXDEV)))
    tool_fail(r, "%s: %s is inside read-only directory %s", r->name, p->shown.p, real);
  else
    tool_errno(r, p->shown.p, err);
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

/* name in dir gets this content in one step. False: errno. */
static bool replace(int dir, const char *name, const char *p, size_t n, mode_t mode)
{
  char temp[64], self[40];
  bool named = false, ok = false;
  int fd = -1, err = 0;
  snprintf(temp, sizeof temp, ".write-%d-%lld", (int)getpid(), (long long)envd_now());
  fd = open_temp(dir, temp, &named);
  if (fd < 0 || !put_all(fd, p, n) || fchmod(fd, mode) || fsync(fd)) goto out;
  snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
  if (!named && linkat(AT_FDCWD, self, dir, temp, AT_SYMLINK_FOLLOW)) goto out;
  named = true;
  if (renameat(dir, temp, dir, name)) goto out;
  named = false;
  int again = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (again >= 0) fsync(again); /* the file is complete either way */
  if (again >= 0) close(again);
  ok = true;
out:
  err = errno;
  if (named) unlinkat(dir, temp, 0);
  if (fd >= 0) close(fd);
  errno = err;
  return ok;
}

static bool put_file(struct tool_run *r, struct path *p, const char *text, size_t n)
{
  struct stat st;
  mode_t mode = 0600;
  const char *name;
  int err = 0;
  if (p->read_only) {
    tool_fail(r, "%s: %s is inside read-only directory %s", r->name, p->shown.p, p->read_only);
    return false;
  }
  if (!p->real[p->root] || !p->real[1]) {
    tool_errno(r, p->shown.p, EISDIR);
    return false;
  }
  int dir = path_parent(r, p, &name, &err);
  if (dir < 0) {
    if (err) refused(r, p, err);
    return false;
  }
  if (!fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW)) {
    if (S_ISDIR(st.st_mode))
      tool_errno(r, p->shown.p, EISDIR);
    else if (!S_ISREG(st.st_mode))
      tool_fail(r, "%s: %s is not a regular file", r->name, p->shown.p);
    if (!S_ISREG(st.st_mode)) {
      close(dir);
      return false;
    }
    mode = st.st_mode & 0777;
  }
  bool ok = replace(dir, name, text, n, mode);
  err = errno;
  close(dir);
  if (!ok) refused(r, p, err);
  return ok;
}

void tool_write(struct tool_run *r)
{
  struct estr shown, content;
  struct path p;
  struct ebuf text = {0};
  if (!tool_required(r, "file_path", false, &shown) || !tool_required(r, "content", true, &content) ||
      !path_resolve(r, shown, &p) || !put_file(r, &p, content.p, content.n))
    return;
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

static void edit(struct tool_run *r, struct path *p, struct estr old, struct estr fresh, bool all)
{
  struct stat st;
  struct ebuf b = {.max = ENVD_FILE_MAX + 65536}, out = {.max = 256u << 20}, text = {0};
  int fd = tool_open(r, p, &st);
  bool read = fd >= 0 && tool_slurp(r, p->shown, fd, &b, ENVD_FILE_MAX + 1);
  size_t n = read ? substitute(NULL, &b, old, fresh) : 0;
  if (fd >= 0) close(fd);
  if (!read) goto out;
  if (b.n > ENVD_FILE_MAX) {
    tool_fail(r, "edit: %s has %lld bytes, which exceeds %d-byte limit", p->shown.p, (long long)st.st_size,
              ENVD_FILE_MAX);
  } else if (!n) {
    tool_fail(r, "edit: old_string not found in %s", p->shown.p);
  } else if (n > 1 && !all) {
    tool_fail(r, "edit: old_string appears %zu times in %s (must be unique)", n, p->shown.p);
  } else if (substitute(&out, &b, old, fresh), out.failed) {
    tool_fail(r, "edit: %s would become too large", p->shown.p);
  } else if (put_file(r, p, out.p, out.n)) {
    ebuf_f(&text, "edited %s (%zu replacement(s))", p->shown.p, n);
    tool_text(r, text.p, text.n);
  }
out:
  ebuf_free(&b);
  ebuf_free(&out);
  ebuf_free(&text);
}

void tool_edit(struct tool_run *r)
{
  struct estr shown, old, fresh;
  struct path p;
  const struct ej *all = ej_get(r->input, "replace_all");
  if (!tool_required(r, "file_path", false, &shown) || !tool_required(r, "old_string", false, &old) ||
      !tool_required(r, "new_string", true, &fresh))
    return;
  if (all && all->t != EJ_BOOL)
    tool_fail(r, "edit: replace_all must be true or false");
  else if (path_resolve(r, shown, &p) && p.read_only)
    tool_fail(r, "edit: %s is inside read-only directory %s", shown.p, p.read_only);
  else if (!r->is_error)
    edit(r, &p, old, fresh, all && all->i);
}
