/*
 * ext_roots.c - script.roots of the options: the directories that bindings' file operations may touch. Without the
 * option they may touch whatever the process may.
 *
 * What it is not for: a wall around scripts, which have io.open; it keeps handlers that take paths from a model from
 * leaving the directories they were meant for. A path is resolved, links and all, before it is compared, and the
 * operation then works on the resolved path. What is not there yet is judged by the directory that would hold it.
 *
 * On the pool; the options do not change while a runtime lives.
 */
#include "host/ext_t.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { ROOTS_MAX = 64 };

static yyjson_val *roots_of(yyjson_val *options)
{
  return mr_json_get(mr_json_get(options, "script"), "roots");
}

int mr_roots_check(yyjson_val *options, struct mr_err *err)
{
  yyjson_val *roots = roots_of(options), *v;
  yyjson_arr_iter it;

  if (!roots || yyjson_is_null(roots)) return MR_OK;
  if (!yyjson_is_arr(roots) || yyjson_arr_size(roots) > ROOTS_MAX)
    return mr_err_set(err, MR_E_INVALID, "script.roots", "script.roots: a list of at most %d directories",
                      ROOTS_MAX);
  it = yyjson_arr_iter_with(roots);
  while ((v = yyjson_arr_iter_next(&it)))
    if (!yyjson_is_str(v) || yyjson_get_str(v)[0] != '/' || yyjson_get_len(v) >= PATH_MAX ||
        memchr(yyjson_get_str(v), 0, yyjson_get_len(v)))
      return mr_err_set(err, MR_E_INVALID, "script.roots", "script.roots: absolute paths of directories");
  return MR_OK;
}

/* Takes the last part off head, to the front of rest. False: it cannot be taken off, or is too long. */
static bool shift(char *head, char *rest)
{
  char *slash = strrchr(head, '/'), *part = slash ? slash + 1 : head;
  size_t n = strlen(part), r = strlen(rest);

  if (!n || strcmp(part, "..") == 0 || strcmp(part, ".") == 0 || n + r + 2 > PATH_MAX) return false;
  memmove(rest + n + 1, rest, r + 1);
  rest[0] = '/';
  memcpy(rest + 1, part, n);
  if (!slash)
    memcpy(head, ".", 2);
  else
    slash[slash == head] = '\0';
  for (n = strlen(head); n > 1 && head[n - 1] == '/'; n--)
    head[n - 1] = '\0';
  return true;
}

/* itself: the last part is meant, not what it may link to. */
static int resolve(const char *path, bool itself, char *out, struct mr_err *err)
{
  char head[PATH_MAX], rest[PATH_MAX] = "", real[PATH_MAX];
  struct stat st;
  size_t n = strlen(path);

  if (n >= sizeof head) return mr_err_set(err, MR_E_INVALID, "path", "path: too long");
  memcpy(head, path, n + 1);
  for (; n > 1 && head[n - 1] == '/'; n--)
    head[n - 1] = '\0';
  if (itself) shift(head, rest); /* of "..", what it leads to is meant */
  while (!realpath(head, real)) {
    if (errno != ENOENT)
      return mr_err_set(err, errno == ENOTDIR ? MR_E_NOTFOUND : MR_E_DENIED, "path",
                        "%.200s: cannot be resolved", path);
    if (lstat(head, &st) == 0 ||
        !shift(head, rest)) /* a link to nowhere would lead out when it is written to */
      return mr_err_set(err, MR_E_NOTFOUND, "path", "%.200s: no such file", path);
  }
  if (snprintf(out, PATH_MAX, "%s%s", strcmp(real, "/") == 0 && rest[0] ? "" : real, rest) >= PATH_MAX)
    return mr_err_set(err, MR_E_INVALID, "path", "path: too long");
  return MR_OK;
}

static bool within(const char *path, const char *root)
{
  char real[PATH_MAX];
  size_t n;

  if (!realpath(root, real)) return false;
  n = strcmp(real, "/") == 0 ? 0 : strlen(real);
  return strncmp(path, real, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

bool mr_roots_set(struct mr_runtime *rt)
{
  return yyjson_is_arr(roots_of(yyjson_doc_get_root(rt->options)));
}

int mr_roots_resolve(struct mr_runtime *rt, const char *path, bool itself, char *out, struct mr_err *err)
{
  yyjson_val *roots = roots_of(yyjson_doc_get_root(rt->options)), *v;
  yyjson_arr_iter it;
  int code;

  if (!yyjson_is_arr(roots)) {
    snprintf(out, PATH_MAX, "%s", path);
    return MR_OK;
  }
  code = resolve(path, itself, out, err);
  if (code != MR_OK) return code;
  it = yyjson_arr_iter_with(roots);
  while ((v = yyjson_arr_iter_next(&it)))
    if (within(out, yyjson_get_str(v))) return MR_OK;
  return mr_err_set(err, MR_E_DENIED, "path", "%.200s: outside of script.roots", path);
}
