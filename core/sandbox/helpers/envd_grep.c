/*
 * envd_grep - the tool grep (API: tools 4.7), run in a worker: lines that match a PCRE2 pattern, as
 * path:line:text.
 *
 * The reference tool has two searches, ripgrep and one of its own; this is the second, on every machine: hidden and
 * ignored files count, the path is always said, a CR before the end of a line is not part of it.
 *
 * Nothing in it is unbounded: each match has a step limit, lines over 2,000 characters are skipped, a file ends at
 * its first NUL, the output at 102,400 characters, all of it at the deadline; and the worker is killed
 * shortly after that should PCRE2 not have noticed.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "envd.h"

enum {
  LINE_MAX_CHARS = 2000,
  LINE_MAX_BYTES = 4 * LINE_MAX_CHARS,
  PATTERN_MAX = 65536,
  STEPS = 2000000,
  HEAP_KIB = 65536
};

struct grep {
  struct tool_run *r;
  pcre2_code *re;
  pcre2_match_data *md;
  pcre2_match_context *mc;
  const char *root; /* what comes before an entry's path */
  struct ebuf out;
  size_t chars;
  bool full, late;
  int hard;     /* lines that took too many steps */
  bool trouble; /* the pattern itself fails while matching */
  char why[160];
};

static bool matches(struct grep *g, const char *p, size_t n)
{
  int rc = pcre2_match(g->re, (PCRE2_SPTR)p, n, 0, 0, g->md, g->mc);
  if (rc >= 0) return true;
  if (rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT ||
      rc == PCRE2_ERROR_JIT_STACKLIMIT) {
    g->hard++;
  } else if (rc != PCRE2_ERROR_NOMATCH && rc != PCRE2_ERROR_PARTIAL && !g->trouble) {
    g->trouble = true;
    pcre2_get_error_message(rc, (PCRE2_UCHAR *)g->why, sizeof g->why);
  }
  return false;
}

/* False: the output is full. */
static bool found(struct grep *g, const char *path, int64_t line, const char *p, size_t n)
{
  struct ebuf one = {0};
  size_t chars = 0;
  ebuf_f(&one, "%s%s:%lld:", g->out.n ? "\n" : "", path, (long long)line);
  size_t head = one.n;
  ebuf_put(&one, p, n);
  struct ebuf text = {0};
  ebuf_text(&text, one.p, head, false);
  ebuf_text(&text, one.p + head, one.n - head, false);
  for (size_t i = 0; i < text.n; i++)
    chars += ((unsigned char)text.p[i] & 0xc0) != 0x80;
  if (g->chars + chars > ENVD_VISIBLE) {
    text.n = envd_head(text.p, text.n, ENVD_VISIBLE - g->chars);
    g->full = true;
  }
  ebuf_put(&g->out, text.p, text.n);
  g->chars += chars;
  ebuf_free(&one);
  ebuf_free(&text);
  return !g->full;
}

static void search(struct grep *g, int fd, const char *path)
{
  char buf[65536];
  size_t have = 0;
  int64_t line = 1;
  bool skipping = false, end = false;
  while (!end && !g->full && !g->late && !g->trouble) {
    ssize_t n = read(fd, buf + have, sizeof buf - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;
    char *nul = n > 0 ? memchr(buf + have, 0, (size_t)n) : NULL;
    end = !n || nul;
    if (nul) n = nul - (buf + have);
    have += (size_t)n;
    size_t at = 0;
    while (at < have && !g->full && !g->trouble) {
      char *nl = memchr(buf + at, '\n', have - at);
      if (!nl && (!end || nul)) break;
      size_t len = nl ? (size_t)(nl - (buf + at)) : have - at;
      if (envd_now() >= g->r->deadline) {
        g->late = true;
        break;
      }
      size_t text = len && buf[at + len - 1] == '\r' ? len - 1 : len;
      if (!skipping && envd_head(buf + at, text, LINE_MAX_CHARS) == text && matches(g, buf + at, text))
        found(g, path, line, buf + at, text);
      skipping = false;
      line++;
      at += len + (nl != NULL);
    }
    have -= at;
    memmove(buf, buf + at, have);
    if (have > LINE_MAX_BYTES) {
      skipping = true;
      have = 0;
    }
  }
}

static bool on_entry(void *ud, const struct walk_entry *e)
{
  struct grep *g = ud;
  char path[2 * PATH_MAX];
  int fd = walk_open_regular(e->dir, e->name);
  if (fd < 0) return true;
  snprintf(path, sizeof path, "%s%s%s", g->root, g->root[1] ? "/" : "", e->rel);
  search(g, fd, path);
  close(fd);
  return !g->full && !g->late && !g->trouble;
}

static bool compile(struct grep *g, struct estr pattern)
{
  const uint32_t flags = PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C;
  int code;
  size_t at;
  char why[160];
  if (pattern.n > PATTERN_MAX) {
    tool_fail(g->r, "grep: pattern is longer than %d bytes", PATTERN_MAX);
    return false;
  }
  g->re = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, flags, &code, &at, NULL);
  if (!g->re && code == PCRE2_ERROR_UNSUPPORTED_ESCAPE_SEQUENCE) /* \uXXXX, as in JavaScript */
    g->re = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, flags | PCRE2_ALT_BSUX, &code, &at, NULL);
  if (!g->re) {
    pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
    tool_fail(g->r, "grep: invalid regex: %s at offset %zu", why, at);
    return false;
  }
  pcre2_jit_compile(g->re, PCRE2_JIT_COMPLETE); /* without it matching is slower, nothing else */
  g->md = pcre2_match_data_create_from_pattern(g->re, NULL);
  g->mc = pcre2_match_context_create(NULL);
  if (!g->md || !g->mc) {
    tool_fail(g->r, "grep: out of memory");
    return false;
  }
  pcre2_set_match_limit(g->mc, STEPS);
  pcre2_set_depth_limit(g->mc, STEPS);
  pcre2_set_heap_limit(g->mc, HEAP_KIB);
  return true;
}

static void give(struct grep *g, const struct walk *w)
{
  struct ebuf *o = &g->out;
  bool any = o->n > 0;
  if (g->trouble) {
    tool_fail(g->r, "grep: %s", g->why);
    return;
  }
  if (g->full) ebuf_f(o, "\n[output truncated at %d bytes]", ENVD_VISIBLE);
  if (!any && !g->late && !w->late) ebuf_s(o, "no matches");
  if (g->hard)
    ebuf_f(o, "%s[%d lines were skipped: matching them takes too long with this pattern]", o->n ? "\n" : "",
           g->hard);
  if (g->late || w->late)
    ebuf_f(o, "%s[the search was cut short after %lldms]", o->n ? "\n" : "", (long long)g->r->timeout_ms);
  else if (w->cut)
    ebuf_f(o, "%s[the search was cut short after 50000 entries or 40 levels]", o->n ? "\n" : "");
  tool_text(g->r, o->p, o->n);
  g->r->is_error = !any && (g->late || w->late);
}

void tool_grep(struct tool_run *r)
{
  struct estr pattern, where = ej_str(r->input, "path");
  struct path p;
  struct stat st;
  struct grep g = {.r = r, .root = p.real, .out = {.max = 4u << 20}};
  struct walk w = {.r = r, .fn = on_entry, .ud = &g};
  if (!tool_required(r, "pattern", false, &pattern)) return;
  if (!where.n) where = (struct estr){r->e->cfg.home, strlen(r->e->cfg.home)};
  if (!path_resolve(r, where, &p) || !compile(&g, pattern)) return;
  int fd = path_open(r, &p, &st);
  if (fd < 0) return;
  if (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)) {
    fd = path_reopen(fd, O_RDONLY);
    if (fd < 0)
      tool_errno(r, where.p, errno);
    else if (S_ISDIR(st.st_mode))
      walk_run(&w, fd);
    else
      search(&g, fd, p.real);
    if (fd >= 0) give(&g, &w);
  } else {
    close(fd);
    tool_fail(r, "grep: %s is not a regular file", where.p);
  }
}
