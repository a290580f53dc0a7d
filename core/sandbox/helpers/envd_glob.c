/*
 * envd_glob - the tool glob (API: tools 4.6), run in a worker: files whose path below a directory matches a
 * pattern with **, *, ?, [..] and {a,b}; absolute paths, newest first.
 *
 * As in the reference tool a name that begins with a dot is matched only by a part of the pattern that does so too,
 * and links are followed where the pattern names them, never found. The parts of a pattern without wildcards are
 * walked straight to. Matching is iterative, with one place to come back to for * and one for **: no pattern makes
 * it explode.
 */
#include <ctype.h>
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
  struct path root;
  char *pattern[ALTERNATIVES]; /* NULL: done */
  int patterns;
  const char *now[ALTERNATIVES]; /* what of them stands below the walked directory */
  int nnow;
  char below[PATH_MAX]; /* that directory, as found: "/workspace/a" */
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

/* A [:name:] at *p. */
static bool class(const char **p, const char *end, unsigned c, bool *hit)
{
  static const struct {
    const char *name;
    int (*is)(int);
  } known[] = {{"alpha", isalpha}, {"digit", isdigit}, {"alnum", isalnum},
               {"upper", isupper}, {"lower", islower}, {"space", isspace},
               {"punct", ispunct}, {"blank", isblank}, {"xdigit", isxdigit}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    size_t n = strlen(known[i].name);
    if ((size_t)(end - *p) < n + 4 || strncmp(*p, "[:", 2) || strncmp(*p + 2, known[i].name, n) ||
        strncmp(*p + 2 + n, ":]", 2))
      continue;
    *p += n + 4;
    *hit = *hit || (c < 128 && known[i].is((int)c));
    return true;
  }
  return false;
}

/* A [..] at *p (after the bracket). Returns 1 or 0, or -1 when it is not closed and stands for itself. */
static int bracket(const char **p, const char *end, unsigned c)
{
  const char *s = *p;
  bool not = s < end && (*s == '!' || *s == '^'), hit = false;
  if (not ) s++;
  for (bool first = true; s < end && (first || *s != ']'); first = false) {
    if (class(&s, end, c, &hit)) continue;
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
  if (s < send && *s == '.' && !(p < pend && (*p == '.' || (*p == '\\' && p[1] == '.')))) return false;
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

/* Whether ** may stand for all of s. */
static bool none_hidden(const char *s)
{
  for (;; s++) {
    if (*s == '.') return false;
    s = part_end(s);
    if (!*s) return true;
  }
}

static bool matches(const char *p, const char *s)
{
  const char *star = NULL, *again = NULL;
  for (;;) {
    const char *pe = part_end(p), *se = part_end(s);
    if (pe - p == 2 && p[0] == '*' && p[1] == '*') {
      if (!*pe) return none_hidden(s);
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
    if (!*se || *again == '.') return false;
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

static bool on_entry(void *ud, const struct walk_entry *e)
{
  struct glob *g = ud;
  char path[2 * PATH_MAX];
  bool hit = false;
  for (int i = 0; i < g->nnow && !hit; i++)
    hit = matches(g->now[i], e->rel);
  if (!hit) return true;
  snprintf(path, sizeof path, "%s/%s", g->below, e->rel);
  if (g->n == g->cap) {
    size_t cap = g->cap ? 2 * g->cap : 256;
    struct match *p = realloc(g->found, cap * sizeof *p);
    if (!p) return false;
    g->found = p;
    g->cap = cap;
  }
  g->found[g->n] = (struct match){e->at, strdup(path)};
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

static bool pattern_ok(struct tool_run *r, const char *p)
{
  const char *wrong = NULL;
  if (strlen(p) >= PATTERN_MAX)
    wrong = "must be 1 to 4095 characters without NUL";
  else if (*p == '/')
    wrong = "must be relative; give the directory as path";
  for (; !wrong; p = part_end(p) + 1) {
    if (part_end(p) - p == 2 && p[0] == '.' && p[1] == '.') wrong = "must not contain a \"..\" component";
    if (!*part_end(p)) break;
  }
  if (wrong) tool_fail(r, "glob: pattern %s", wrong);
  return !wrong;
}

/* Without empty and "." parts; one that ends in a slash, for directories, becomes empty: it matches no file. */
static void tidy(char *p)
{
  char *o = p, *from = p;
  size_t n = strlen(p);
  if (n && p[n - 1] == '/') *p = 0;
  for (const char *end; *from; from = (char *)end + (*end == '/')) {
    end = part_end(from);
    size_t part = (size_t)(end - from);
    if (!part || (part == 1 && *from == '.')) continue;
    if (o != p) *o++ = '/';
    memmove(o, from, part);
    o += part;
  }
  *o = 0;
}

/* Length of the parts before the one with the first wildcard, or the last one. */
static size_t literal(const char *p)
{
  size_t n = 0;
  for (const char *end = part_end(p); *end; end = part_end(p + n)) {
    size_t part = (size_t)(end - (p + n));
    if (strcspn(p + n, "*?[") < part) break;
    n += part + 1;
  }
  return n;
}

/* The literal parts of a pattern as a path; false: one that is never looked into, or too long. */
static bool unescape(const char *p, size_t n, char out[PATH_MAX])
{
  size_t o = 0, part = 0;
  for (size_t i = 0; i < n && o < PATH_MAX - 1; i++) {
    if (p[i] == '\\' && i + 1 < n) i++;
    out[o++] = p[i];
    if (p[i] != '/') continue;
    out[o - 1] = 0;
    if (!strcmp(out + part, ".git") || !strcmp(out + part, "node_modules")) return false;
    out[o - 1] = '/';
    part = o;
  }
  out[o ? o - 1 : 0] = 0; /* the slash at the end */
  return o < PATH_MAX - 1;
}

/* Where the literal parts lead, links followed; -1: nowhere below the root. */
static int enter(struct glob *g, const char *pattern, size_t n)
{
  char rel[PATH_MAX];
  struct path p;
  struct stat st;
  const char *root = g->root.real[1] ? g->root.real : "";
  if (!unescape(pattern, n, rel)) return -1;
  if (snprintf(g->below, sizeof g->below, "%s%s%s", root, n ? "/" : "", rel) >= (int)sizeof g->below) return -1;
  struct estr name = {*g->below ? g->below : "/", *g->below ? strlen(g->below) : 1};
  if (!path_resolve(g->r, name, &p) || !path_under(p.real, g->root.real)) return -1;
  int fd = path_open(g->r, &p, &st);
  return fd < 0 ? -1 : path_reopen(fd, O_RDONLY | O_DIRECTORY);
}

/* All patterns that begin with the literal parts of the first, which are then done. */
static void walk_some(struct glob *g, int first, struct walk *w)
{
  const char *lead = g->pattern[first];
  size_t n = literal(lead);
  bool deep = false, hidden = false;
  int levels = 0;
  g->nnow = 0;
  for (int i = g->patterns - 1; i >= first; i--) {
    const char *p = g->pattern[i];
    if (!p || literal(p) != n || strncmp(p, lead, n)) continue;
    g->pattern[i] = NULL;
    if (!p[n]) continue;
    g->now[g->nnow++] = p + n;
    int parts = 1;
    for (const char *s = p + n; *part_end(s); s = part_end(s) + 1)
      parts++;
    levels = parts > levels ? parts : levels;
    deep = deep || strstr(p + n, "**");
    hidden = hidden || p[n] == '.' || p[n] == '\\' || strstr(p + n, "/.") || strstr(p + n, "/\\");
  }
  w->levels = deep ? 0 : levels;
  w->no_hidden = !hidden;
  int fd = g->nnow ? enter(g, lead, n) : -1;
  if (fd >= 0) walk_run(w, fd);
  if (g->r->is_error) { /* it went away meanwhile */
    g->r->is_error = false;
    g->r->content.n = 0;
  }
}

static void give(struct glob *g, const struct walk *w)
{
  struct ebuf out = {.max = 4u << 20};
  size_t lines = 0;
  if (g->n) qsort(g->found, g->n, sizeof *g->found, newest);
  for (size_t i = 0; i < g->n && lines < LINES; i++) {
    if (i && !strcmp(g->found[i].path, g->found[i - 1].path)) continue; /* two patterns found it */
    ebuf_f(&out, "%s%s", lines++ ? "\n" : "", g->found[i].path);
  }
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
  struct walk w = {.r = r, .fn = on_entry, .ud = g};
  struct stat st;
  if (!g || !tool_required(r, "pattern", false, &pattern)) return;
  if (strlen(pattern.p) != pattern.n) pattern.p = "/"; /* a NUL is no better */
  if (!pattern_ok(r, pattern.p)) return;
  g->r = r;
  if (!braces(g, pattern.p, 0)) {
    tool_fail(r, "glob: pattern has too many alternatives");
    return;
  }
  for (int i = 0; i < g->patterns; i++)
    if (!pattern_ok(r, g->pattern[i])) return;
  if (!dir.n) dir = (struct estr){r->e->cfg.home, strlen(r->e->cfg.home)};
  if (!path_resolve(r, dir, &g->root)) return;
  int fd = path_open(r, &g->root, &st);
  if (fd < 0) return;
  fd = path_reopen(fd, O_RDONLY | O_DIRECTORY); /* whether it is one that can be read */
  if (fd < 0) {
    tool_errno(r, dir.p, errno);
    return;
  }
  close(fd);
  for (int i = 0; i < g->patterns; i++)
    tidy(g->pattern[i]);
  for (int i = 0; i < g->patterns && !w.late && !w.ended; i++)
    if (g->pattern[i]) walk_some(g, i, &w);
  give(g, &w);
}
