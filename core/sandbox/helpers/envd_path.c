/*
 * envd_path - where file tools may go: into the working directory and the other directories of the session, and
 * nowhere else (API: tools 4.3, 4.8). The sandbox is the boundary of security; this one keeps tools that were
 * given without bash to the session's own files, as the reference tools do.
 *
 * A path is made absolute by its letters, then each link in it is followed by hand, and the outcome must lie in a
 * root. The invariant: what is opened afterwards is that outcome and nothing else. Every step goes through a
 * descriptor of the directory before, never through a link; one that turned up since makes the whole start over.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "envd.h"

enum { LINKS = 40, TRIES = 64 };

bool path_under(const char *path, const char *dir)
{
  size_t n = strlen(dir);
  return n == 1 || (!strncmp(path, dir, n) && (path[n] == 0 || path[n] == '/'));
}

/* Takes the last component away. */
static void up(char *path)
{
  char *slash = strrchr(path, '/');
  if (slash) *slash = 0;
}

/* One component onto path, which is "" for the root. "." and ".." are understood. */
static int add(char path[PATH_MAX], const char *name, size_t n)
{
  size_t at = strlen(path);
  if (!n || (n == 1 && *name == '.')) return 0;
  if (n == 2 && name[0] == '.' && name[1] == '.') {
    up(path);
    return 0;
  }
  if (at + 1 + n >= PATH_MAX) return ENAMETOOLONG;
  path[at] = '/';
  memcpy(path + at + 1, name, n);
  path[at + 1 + n] = 0;
  return 0;
}

/* All components of text onto path. */
static int add_all(char path[PATH_MAX], const char *text)
{
  int err = 0;
  for (const char *end; *text && !err; text = end + (*end == '/')) {
    end = strchrnul(text, '/');
    err = add(path, text, (size_t)(end - text));
  }
  return err;
}

/* The link at path (of which it is the last component) read, before the rest of what is to do. */
static int follow(char path[PATH_MAX], char todo[2 * PATH_MAX], const char *rest)
{
  char to[PATH_MAX];
  ssize_t n = readlink(path, to, sizeof to - 1);
  if (n < 0) return errno;
  to[n] = 0;
  size_t left = strlen(rest);
  if ((size_t)n + left + 2 > 2 * PATH_MAX) return ENAMETOOLONG;
  memmove(todo + n + 1, rest, left + 1);
  memcpy(todo, to, (size_t)n);
  todo[n] = '/';
  if (*to == '/')
    *path = 0;
  else
    up(path);
  return 0;
}

/* abs with every link followed; from what is not there on, as it stands. */
static int canonical(const char *abs, char path[PATH_MAX])
{
  char todo[2 * PATH_MAX];
  int links = 0;
  snprintf(todo, sizeof todo, "%s", abs);
  *path = 0;
  for (const char *at = todo; *at;) {
    struct stat st;
    const char *end = strchrnul(at, '/'), *rest = end + (*end == '/');
    int err = add(path, at, (size_t)(end - at));
    if (!err && end == at) {
      at = rest;
      continue;
    }
    if (!err && lstat(*path ? path : "/", &st)) err = errno;
    if (err == ENOENT || err == ENOTDIR) return add_all(path, rest);
    if (!err && S_ISLNK(st.st_mode)) {
      err = ++links > LINKS ? ELOOP : follow(path, todo, rest);
      rest = todo;
    }
    if (err) return err;
    at = rest;
  }
  return 0;
}

static bool in_root(struct path *p, const char *dir)
{
  char real[PATH_MAX];
  if (!realpath(dir, real) || !path_under(p->real, real)) return false;
  p->root = real[1] ? strlen(real) : 0;
  return true;
}

/* 0, an errno, or -1: it lies outside. */
static int resolve(const struct config *c, struct path *p)
{
  char abs[PATH_MAX] = "";
  int err = p->shown.p[0] == '/' ? 0 : add_all(abs, c->home);
  if (!err) err = add_all(abs, p->shown.p);
  if (!err) err = canonical(abs, p->real);
  if (err) return err;
  if (!*p->real) snprintf(p->real, sizeof p->real, "/");
  p->read_only = NULL;
  for (int i = 0; i < ENVD_WRITE_DIRS && c->read_only[i]; i++)
    if (in_root(p, c->read_only[i])) {
      p->read_only = c->read_only[i];
      return 0;
    }
  if (in_root(p, c->home) || in_root(p, MR_ENVD_SESSION)) return 0;
  for (int i = 0; i < ENVD_WRITE_DIRS && c->write[i]; i++)
    if (in_root(p, c->write[i])) return 0;
  return -1;
}

static bool say(struct tool_run *r, const struct path *p, int err)
{
  struct ebuf quoted = {0};
  char unknown[48];
  ebuf_json(&quoted, p->shown.p, p->shown.n < PATH_MAX ? p->shown.n : PATH_MAX);
  ebuf_put(&quoted, "", 1);
  if (quoted.failed)
    tool_fail(r, "%s: out of memory", r->name);
  else if (err < 0)
    tool_fail(r, "path %s is outside the session's working directory and its other permitted directories",
              quoted.p);
  else
    tool_fail(r, "path %s: %s", quoted.p, tool_error(err, unknown));
  ebuf_free(&quoted);
  return false;
}

bool path_resolve(struct tool_run *r, struct estr shown, struct path *p)
{
  p->shown = shown;
  if (strlen(shown.p) != shown.n) {
    tool_fail(r, "%s: the path is not a file name: it contains a NUL character", r->name);
    return false;
  }
  int err = resolve(&r->e->cfg, p);
  return !err || say(r, p, err);
}

/* name below dir, which is closed; ESTALE when it is a link. make: a directory, made when it is missing. */
static int step(int dir, const char *name, int flags, bool make)
{
  struct stat st;
  int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC | flags), err = errno;
  if (fd < 0 && err == ENOENT && make) {
    if (mkdirat(dir, name, 0700) && errno != EEXIST)
      err = errno;
    else
      fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC | flags), err = errno;
  }
  if (fd < 0 && (err == ENOTDIR || err == ELOOP) && !fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) &&
      S_ISLNK(st.st_mode))
    err = ESTALE;
  if (fd >= 0 && !fstat(fd, &st) && S_ISLNK(st.st_mode)) {
    close(fd);
    fd = -1;
    err = ESTALE;
  }
  close(dir);
  errno = err;
  return fd;
}

/* p, or with parent the directory it stands in. */
static int descend(const struct path *p, bool parent, bool make)
{
  char name[NAME_MAX + 1], root[PATH_MAX];
  snprintf(root, sizeof root, "%.*s", (int)p->root, p->real);
  int fd = open(*root ? root : "/", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  for (const char *at = p->real + p->root, *end; fd >= 0 && *at == '/' && at[1]; at = end) {
    end = strchrnul(at + 1, '/');
    if (parent && !*end) break;
    if ((size_t)(end - at - 1) > NAME_MAX) {
      close(fd);
      errno = ENAMETOOLONG;
      return -1;
    }
    snprintf(name, sizeof name, "%.*s", (int)(end - at - 1), at + 1);
    fd = step(fd, name, *end || parent ? O_DIRECTORY : 0, make);
  }
  return fd;
}

/* Over again as long as links turn up where none was. -1: said, or with *err its errno when err is given. */
static int settle(struct tool_run *r, struct path *p, bool parent, bool make, int *err)
{
  int fd = -1, now = 0;
  for (int i = 0; i < TRIES; i++) {
    fd = descend(p, parent, make);
    if (fd >= 0) return fd;
    if (errno != ESTALE) break;
    now = resolve(&r->e->cfg, p);
    if (now) {
      say(r, p, now);
      if (err) *err = 0;
      return -1;
    }
  }
  now = errno == ESTALE ? ELOOP : errno;
  if (err)
    *err = now;
  else
    tool_errno(r, p->shown.p, now);
  return -1;
}

int path_open(struct tool_run *r, struct path *p, struct stat *st)
{
  int fd = settle(r, p, false, false, NULL);
  if (fd >= 0 && fstat(fd, st)) {
    tool_errno(r, p->shown.p, errno);
    close(fd);
    return -1;
  }
  return fd;
}

int path_parent(struct tool_run *r, struct path *p, const char **name, int *err)
{
  int fd = settle(r, p, true, true, err);
  *name = strrchr(p->real, '/') + 1;
  return fd;
}

int path_reopen(int fd, int flags)
{
  char self[40];
  snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
  int again = open(self, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), err = errno;
  close(fd);
  errno = err;
  return again;
}
