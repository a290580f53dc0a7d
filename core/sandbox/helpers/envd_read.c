/*
 * envd_read - the tool read (API: tools 4.3), run in a worker: text as it is, a range of its lines, or what
 * shows an image, a PDF or a notebook.
 *
 * The text is what the reference tool gives: lines are joined as they stand in the file, nothing is added, and a
 * range that holds nothing is empty text. Bounded: 262,144 bytes of text, whatever the file's size.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "envd.h"

enum { LOOK = 8192, NOTEBOOK_MAX = 16 << 20 };

struct range {
  int64_t from, to;
}; /* lines [from, to), counted from 0 */

static bool view_range(struct tool_run *r, struct range *out, bool *given)
{
  const struct ej *v = ej_get(r->input, "view_range");
  *given = v && (v->t != EJ_ARR || v->first);
  if (!*given) return true;
  const struct ej *a = v->t == EJ_ARR ? v->first : NULL, *b = a ? a->next : NULL;
  if (!b || b->next) {
    tool_fail(r, "read: view_range must be [start_line, end_line]");
    return false;
  }
  if (a->t != EJ_INT || b->t != EJ_INT) {
    tool_fail(r, "read: view_range must be [start_line, end_line], two whole numbers");
    return false;
  }
  out->from = a->i > 1 ? a->i - 1 : 0;
  out->to = b->i > 0 ? b->i : INT64_MAX;
  return true;
}

/* The part of the text before a newline, or up to the end of what was read; false: too much. */
static bool take(struct ebuf *got, struct range want, int64_t line, const char *p, size_t n, bool ended)
{
  if (line < want.from) return true;
  ebuf_put(got, p, n);
  if (ended && line + 1 < want.to) ebuf_put(got, "\n", 1);
  return !got->failed && got->n <= ENVD_FILE_MAX;
}

/* The lines of the range, joined as they are; the file may be of any size. */
static void give_lines(struct tool_run *r, struct estr shown, int fd, struct range want)
{
  struct ebuf got = {.max = ENVD_FILE_MAX + 65536 + 2};
  char chunk[65536];
  int64_t line = 0;
  ssize_t n = 1;
  while (want.from < want.to && line < want.to && (n = read(fd, chunk, sizeof chunk)) != 0) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      tool_errno(r, shown.p, errno);
      goto out;
    }
    for (const char *p = chunk, *end = chunk + n; p < end && line < want.to;) {
      const char *nl = memchr(p, '\n', (size_t)(end - p));
      if (!take(&got, want, line, p, (size_t)((nl ? nl : end) - p), nl)) {
        if (!memchr(got.p, '\n', got.n))
          tool_fail(
              r,
              "read: line %lld of %s exceeds %d-byte limit; view_range cannot make it shorter. Take a part "
              "of it with bash, for example with cut",
              (long long)line + 1, shown.p, ENVD_FILE_MAX);
        else
          tool_fail(r, "read: view_range [%lld, %lld] of %s exceeds %d-byte limit. Narrow the view_range",
                    (long long)want.from + 1, (long long)(want.to == INT64_MAX ? -1 : want.to), shown.p,
                    ENVD_FILE_MAX);
        goto out;
      }
      line += nl != NULL;
      p = nl ? nl + 1 : end;
    }
  }
  tool_text(r, got.p, got.n);
out:
  ebuf_free(&got);
}

/* No text at all: NUL bytes among what is no UTF-8. Where it was cut it may end in the middle of a character. */
static bool is_binary(const struct ebuf *b)
{
  if (!b->n || !memchr(b->p, 0, b->n)) return false;
  for (size_t cut = 0; cut <= (b->n < LOOK ? 0 : 3); cut++)
    if (envd_utf8(b->p, b->n - cut)) return false;
  return true;
}

static bool is_notebook(struct estr shown)
{
  return shown.n > 6 && !strcmp(shown.p + shown.n - 6, ".ipynb");
}

static void give_whole(struct tool_run *r, struct estr shown, int fd, const struct stat *st, struct ebuf *b)
{
  size_t max = is_notebook(shown) ? NOTEBOOK_MAX : ENVD_FILE_MAX;
  if (!tool_slurp(r, shown, fd, b, max + 1)) return;
  if (is_notebook(shown) && b->n <= max && notebook_give(r, shown, b)) return;
  if (b->n > ENVD_FILE_MAX)
    tool_fail(r,
              "read: %s has %lld bytes, which exceeds %d-byte limit. Use view_range to read a part of it, for "
              "example [1, 500]",
              shown.p, (long long)(st->st_size > ENVD_FILE_MAX ? st->st_size : (off_t)b->n), ENVD_FILE_MAX);
  else
    tool_text(r, b->p, b->n);
}

void tool_read(struct tool_run *r)
{
  struct estr shown;
  struct path p;
  struct stat st;
  struct range range;
  bool ranged;
  struct ebuf b = {.max = NOTEBOOK_MAX + 65536};
  int fd = -1;
  if (!tool_required(r, "file_path", false, &shown) || !path_resolve(r, shown, &p) ||
      !view_range(r, &range, &ranged) || (fd = tool_open(r, &p, &st)) < 0 ||
      !tool_slurp(r, shown, fd, &b, LOOK))
    goto out;
  const char *media = media_type(b.p, b.n);
  if (media) {
    if (tool_slurp(r, shown, fd, &b, media_max(media) + 1)) media_give(r, shown, media, &b);
  } else if (is_binary(&b)) {
    tool_fail(r,
              "read: %s is a binary file (%lld bytes). Look at it with bash, for example with od or strings.",
              shown.p, (long long)st.st_size);
  } else if (!ranged) {
    give_whole(r, shown, fd, &st, &b);
  } else if (lseek(fd, 0, SEEK_SET)) {
    tool_errno(r, shown.p, errno);
  } else {
    give_lines(r, shown, fd, range);
  }
out:
  if (fd >= 0) close(fd);
  ebuf_free(&b);
}
