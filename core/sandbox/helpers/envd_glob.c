/*
 * envd_glob - the tool glob (API: tools 4.6), run in a worker: files whose path below a directory matches a
 * pattern with **, *, ?, [..] and {a,b}; absolute paths, newest first.
 *
 * Matching is iterative, with one place to come back to for * and one for **: no pattern makes it explode.
 * Hidden names match like any other. A link to a file counts when the file is below the directory.
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

enum { LINES = 200, ALTERNATIVES = 256, LEVELS = 64, PATTERN_MAX = 4096 };

struct match {
  struct timespec at;
  char *path;
};
struct glob {
  struct tool_run *r;
  char root[PATH_MAX], real[PATH_MAX];
  char *pattern[ALTERNATIVES];
  int patterns;
  struct match *found;
  size_t n, cap;
};

/* --- matching ---------------------------------------------------------------------------------------- */

/* Reads one character; *p is not at the end. */
static unsigned character(const char **p, const char *end)
{
  const char *s = *p;
  unsigned c = (unsigned char)*s++;
  if (c >= 0xc0)
    for (c &= 0x3f; s < end && ((unsigned char)*s & 0xc0) == 0x80; s++)
      c = c << 6 | ((unsigned char)*s & 0x3f);
  *p = s;
  return c;
}

/* A [..] at *p (after the bracket). Returns 1 or 0, or -1 when it is not closed and stands for itself. */
static int bracket(const char **p, const char *end, unsigned c)
{
  const char *s = *p;
  bool not = s < end && (*s == '!' || *s == '^'), hit = false;
  if (not ) s++;
  for (bool first = true; s < end && (first || *s != ']'); first = false) {
    if (*s == '\\' && s + 1 < end) s++;
    unsigned lo = character(&s, end), hi = lo;
    if (s + 1 < end && *s == '-' && s[1] != ']') {
      s++;
      if (*s == '\\' && s + 1 < end) s++;
      hi = character(&s, end);
    }
    hit = hit || (c >= lo && c <= hi);
  }
  if (s >= end) return -1;
  *p = s + 1;
  return hit != not ;
}

/* One component against one part of the pattern. */
static bool component(const char *p, const char *pend, const char *s, const char *send)
{
  const char *star = NULL, *again = NULL;
  while (s < send || p < pend) {
    if (p < pend && *p == '*') {
      star = ++p;
      again = s;
      continue;
    }
    if (p < pend && s < send) {
      const char *q = p, *t = s;
      unsigned c = character(&t, send);
      bool ok;
      if (*q == '?') {
        q++;
        ok = true;
      } else {
        int in = -1;
        if (*q == '[') {
          const char *b = q + 1;
          in = bracket(&b, pend, c);
          if (in >= 0) q = b;
        }
        if (in < 0) {
          if (*q == '\\' && q + 1 < pend) q++;
          in = character(&q, pend) == c;
        }
        ok = in == 1;
      }
      if (ok) {
        p = q;
        s = t;
        continue;
      }
    }
    if (!star || again >= send) return false;
    character(&again, send);
    p = star;
    s = again;
  }
  return true;
}

static const char *part_end(const char *p)
{
  const char *slash = strchr(p, '/');
  return slash ? slash : p + strlen(p);
}

static bool matches(const char *p, const char *s)
{
  const char *star = NULL, *again = NULL;
  for (;;) {
    const char *pe = part_end(p), *se = part_end(s);
    if (pe - p == 2 && p[0] == '*' && p[1] == '*') {
      if (!*pe) return true;
      star = p = pe + 1;
      again = s;
      continue;
    }
    if (component(p, pe, s, se) && (*pe != 0) == (*se != 0)) {
      if (!*pe) return true;
      p = pe + 1;
      s = se + 1;
      continue;
    }
    if (!star) return false;
    se = part_end(again);
    if (!*se) return false;
    again = s = se + 1;
    p = star;
  }
}

/* {a,b} written out, outermost first; false: too many, or too deep. */
static bool braces(struct glob *g, const char *p, int level)
{
  char one[PATTERN_MAX];
  const char *open = NULL, *from, *at;
  for (at = p; *at && !open; at++) {
    if (*at == '\\' && at[1])
      at++;
    else if (*at == '{')
      open = at;
  }
  const char *close = NULL;
  int depth = 0;
  for (at = open; open && *at && !close; at++) {
    if (*at == '\\' && at[1])
      at++;
    else if (*at == '{')
      depth++;
    else if (*at == '}' && !--depth)
      close = at;
  }
  if (!close) {
    if (g->patterns == ALTERNATIVES) return false;
    g->pattern[g->patterns] = strdup(p);
    return g->pattern[g->patterns] && ++g->patterns;
  }
  depth = 0;
  for (from = at = open + 1; at <= close; at++) {
    if (*at == '\\' && at[1])
      at++;
    else if (*at == '{')
      depth++;
    else if (*at == '}' && at < close)
      depth--;
    else if (at == close || (*at == ',' && !depth)) {
      int n = snprintf(one, sizeof one, "%.*s%.*s%s", (int)(open - p), p, (int)(at - from), from, close + 1);
      if (level >= LEVELS || n >= (int)sizeof one || !braces(g, one, level + 1)) return false;
      from = at + 1;
    }
  }
  return true;
}

/* --- the tool ---------------------------------------------------------------------------------------- */

/* A link counts when it leads to a regular file below the directory. */
static bool link_counts(const struct glob *g, const char *path, struct stat *st)
{
  char real[PATH_MAX];
  size_t n = strlen(g->real);
  if (stat(path, st) || !S_ISREG(st->st_mode) || !realpath(path, real)) return false;
  return !strncmp(real, g->real, n) && (real[n] == '/' || n == 1);
}

static bool on_entry(void *ud, const struct walk_entry *e)
{
  struct glob *g = ud;
  char path[2 * PATH_MAX];
  struct stat st;
  bool hit = false;
  for (int i = 0; i < g->patterns && !hit; i++)
    hit = matches(g->pattern[i], e->rel);
  if (!hit) return true;
  snprintf(path, sizeof path, "%s%s%s", g->root, g->root[1] ? "/" : "", e->rel);
  if (e->link ? !link_counts(g, path, &st) : fstatat(e->dir, e->name, &st, AT_SYMLINK_NOFOLLOW) != 0)
    return true;
  if (g->n == g->cap) {
    size_t cap = g->cap ? 2 * g->cap : 256;
    struct match *p = realloc(g->found, cap * sizeof *p);
    if (!p) return false;
    g->found = p;
    g->cap = cap;
  }
  g->found[g->n] = (struct match){st.st_mtim, strdup(path)};
  if (g->found[g->n].path) g->n++;
  return true;
}

static int newest(const void *a, const void *b)
{
  const struct match *x = a, *y = b;
  if (x->at.tv_sec != y->at.tv_sec) return x->at.tv_sec < y->at.tv_sec ? 1 : -1;
  if (x->at.tv_nsec != y->at.tv_nsec) return x->at.tv_nsec < y->at.tv_nsec ? 1 : -1;
  return strcmp(x->path, y->path);
}

static bool pattern_ok(struct tool_run *r, struct estr p)
{
  const char *wrong = NULL;
  if (!p.n || strlen(p.p) != p.n || p.n >= PATTERN_MAX)
    wrong = "must be 1 to 4095 characters without NUL";
  else if (p.p[0] == '/')
    wrong = "must be relative; give the directory as path";
  for (const char *s = p.p; !wrong; s = part_end(s) + 1) {
    if (part_end(s) - s == 2 && s[0] == '.' && s[1] == '.') wrong = "must not contain a \"..\" component";
    if (!*part_end(s)) break;
  }
  if (wrong) tool_fail(r, "glob: pattern %s", wrong);
  return !wrong;
}

static void give(struct glob *g, const struct walk *w)
{
  struct ebuf out = {.max = 4u << 20};
  if (g->n) qsort(g->found, g->n, sizeof *g->found, newest);
  for (size_t i = 0; i < g->n && i < LINES; i++)
    ebuf_f(&out, "%s%s", i ? "\n" : "", g->found[i].path);
  if (!g->n && !w->late) ebuf_s(&out, "no matches");
  if (w->late)
    ebuf_f(&out, "%s[the search was cut short after %lldms]", out.n ? "\n" : "", (long long)g->r->timeout_ms);
  else if (w->cut)
    ebuf_s(&out, "\n[the search was cut short after 50000 entries or 40 levels]");
  tool_text(g->r, out.p, out.n);
  g->r->is_error = w->late && !g->n;
  ebuf_free(&out);
}

void tool_glob(struct tool_run *r)
{
  struct estr pattern, dir = ej_str(r->input, "path");
  struct glob *g = calloc(1, sizeof *g);
  struct walk w = {.r = r, .fn = on_entry, .ud = g, .links = true};
  if (!g || !tool_required(r, "pattern", &pattern) || !pattern_ok(r, pattern)) return;
  g->r = r;
  if (!dir.n) dir = (struct estr){r->e->cfg.home, strlen(r->e->cfg.home)};
  if (!tool_path(r, dir, g->root)) return;
  const char *p = pattern.p;
  while (!strncmp(p, "./", 2))
    p += 2;
  if (!braces(g, p, 0)) {
    tool_fail(r, "glob: pattern has too many alternatives");
    return;
  }
  for (size_t n = strlen(g->root); n > 1 && g->root[n - 1] == '/'; n--)
    g->root[n - 1] = 0;
  int fd = open(g->root, O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0 || !realpath(g->root, g->real)) {
    tool_errno(r, dir.p, errno);
    return;
  }
  walk_run(&w, fd);
  give(g, &w);
}
