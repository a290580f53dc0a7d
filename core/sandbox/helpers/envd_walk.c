/*
 * envd_walk - goes through a directory tree for glob and grep (API: tools 4.6, 4.7): in the order of names,
 * without .git and node_modules, never through a symbolic link.
 *
 * Bounded: 50,000 entries, 40 levels, the deadline of the call. What was cut is said in the result.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "envd.h"

enum { ENTRIES = 50000, LEVELS = 40 };

struct names {
  char **name;
  size_t n, cap;
};

static int by_name(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_free(struct names *l)
{
  for (size_t i = 0; i < l->n; i++)
    free(l->name[i]);
  free(l->name);
}

static bool names_add(struct names *l, const char *s)
{
  if (l->n == l->cap) {
    size_t cap = l->cap ? 2 * l->cap : 64;
    char **p = realloc(l->name, cap * sizeof *p);
    if (!p) return false;
    l->name = p;
    l->cap = cap;
  }
  l->name[l->n] = strdup(s);
  return l->name[l->n] ? (l->n++, true) : false;
}

static void names_read(struct walk *w, DIR *d, struct names *l)
{
  for (struct dirent *x; !w->cut && !w->late && (x = readdir(d));) {
    if (!strcmp(x->d_name, ".") || !strcmp(x->d_name, "..")) continue;
    if (w->entries >= ENTRIES || !names_add(l, x->d_name)) w->cut = true;
    if (w->entries++ % 256 == 0 && envd_now() >= w->r->deadline) w->late = true;
  }
  if (l->n) qsort(l->name, l->n, sizeof *l->name, by_name);
}

static void level(struct walk *w, int dir, char *rel, size_t n, int depth);

static void visit(struct walk *w, int dir, char *rel, size_t n, int depth, const char *name)
{
  struct stat st;
  size_t len = strlen(name);
  if (n + len + 2 >= PATH_MAX || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW)) return;
  memcpy(rel + n, name, len + 1);
  if (S_ISDIR(st.st_mode)) {
    if (!strcmp(name, ".git") || !strcmp(name, "node_modules")) return;
    if ((w->no_hidden && *name == '.') || (w->levels && depth + 1 >= w->levels)) return;
    int sub = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (sub < 0) return;
    memcpy(rel + n + len, "/", 2);
    level(w, sub, rel, n + len + 1, depth + 1);
  } else if (S_ISREG(st.st_mode)) {
    struct walk_entry e = {dir, name, rel, st.st_mtim};
    if (!w->fn(w->ud, &e)) w->ended = true;
  }
}

static void level(struct walk *w, int dir, char *rel, size_t n, int depth)
{
  struct names l = {0};
  DIR *d = depth < LEVELS ? fdopendir(dir) : NULL;
  if (!d) {
    if (depth >= LEVELS) w->cut = true;
    close(dir);
    return;
  }
  names_read(w, d, &l);
  for (size_t i = 0; i < l.n && !w->ended && !w->late; i++) {
    if (envd_now() >= w->r->deadline)
      w->late = true;
    else
      visit(w, dirfd(d), rel, n, depth, l.name[i]);
  }
  names_free(&l);
  closedir(d);
}

int walk_open_regular(int dir, const char *name)
{
  struct stat st;
  int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -1;
  if (!fstat(fd, &st) && S_ISREG(st.st_mode)) return path_reopen(fd, O_RDONLY);
  close(fd);
  errno = ENOTSUP;
  return -1;
}

void walk_run(struct walk *w, int dir)
{
  char rel[PATH_MAX] = "";
  level(w, dir, rel, 0, 0);
}
