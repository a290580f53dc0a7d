/*
 * ext_file.c - files for bindings: one blocking operation a job, on the pool, its answer through the queue.
 *
 * What it is not for: large files (READ_MAX), streams, permissions (but see ext_roots.c): this is what scripts need of a
 * file system without stopping their thread. A write is atomic: a new file beside the old one, synced, then renamed over it.
 */
#include "host/ext_t.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { READ_MAX = 64 << 20, LIST_MAX = 100000, LIST_BYTES = 64 << 20 };

struct filejob {
  struct mr_job job;
  struct mr_entry entry;
  struct mr_runtime *rt;
  int (*work)(struct filejob *j);
  char *path;
  int nofollow;      /* O_NOFOLLOW when the path is resolved (script.roots): a link there now came later */
  struct mr_str arg; /* in the arena, as all */
  struct mr_arena *arena;
  void (*done)(void *ud, const struct mr_reply *r, struct mr_str raw);
  void *ud;
  int code;
  struct mr_err err;
  char *raw; /* read */
  size_t raw_n;
  struct mr_buf json; /* list, stat */
  yyjson_doc *doc;
};

static int failed(struct filejob *j, const char *path)
{
  int e = errno, code;
  char text[160];

  snprintf(text, sizeof text, "%.140s", path);
  code = mr_err_errno(&j->err, text);
  if (e == ENOENT || e == ENOTDIR)
    code = mr_err_set(&j->err, MR_E_NOTFOUND, NULL, "%s: %s", text,
                      e == ENOENT ? "no such file" : "not a directory");
  else if (e == EACCES || e == EPERM)
    code = mr_err_set(&j->err, MR_E_DENIED, NULL, "%s: not permitted", text);
  return code;
}

/* ---- work, on the pool ---- */

static int read_all(struct filejob *j, int fd)
{
  struct stat st;
  struct mr_buf b;
  char *at;
  ssize_t n = 1;

  if (fstat(fd, &st) != 0) return failed(j, j->path);
  if (S_ISDIR(st.st_mode)) return mr_err_set(&j->err, MR_E_INVALID, "path", "%.200s: is a directory", j->path);
  mr_buf_init(&b, mr_rt_mem(j->rt), READ_MAX + (1 << 16));
  while (n > 0 && b.n <= READ_MAX && (at = mr_buf_reserve(&b, 1 << 16))) {
    n = read(fd, at, 1 << 16);
    if (n > 0)
      b.n += (size_t)n;
    else if (n < 0 && errno == EINTR)
      n = 1;
  }
  if (n < 0)
    j->code = failed(j, j->path);
  else if (b.failed == MR_E_NOMEM)
    j->code = mr_err_nomem(&j->err);
  else if (b.failed || b.n > READ_MAX)
    j->code = mr_err_set(&j->err, MR_E_TOO_LARGE, "path", "%.200s: over the limit of 64 MiB", j->path);
  else if (!(j->raw = mr_buf_take(&b, &j->raw_n)))
    j->code = mr_err_nomem(&j->err);
  mr_buf_free(&b);
  return j->code;
}

static int do_read(struct filejob *j)
{
  int fd = open(j->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | j->nofollow), code;

  if (fd < 0) return failed(j, j->path);
  code = read_all(j, fd);
  close(fd);
  return code;
}

static int write_all(struct filejob *j, int fd, const char *path)
{
  const char *p = j->arg.p;
  size_t left = j->arg.n;

  while (left) {
    ssize_t n = write(fd, p, left);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(j, path);
    p += n;
    left -= (size_t)n;
  }
  return MR_OK;
}

static int do_write(struct filejob *j)
{
  char temp[PATH_MAX], to[PATH_MAX];
  struct stat st;
  mode_t mode = 0644;
  int fd, code;

  if ((j->nofollow || !realpath(j->path, to)) &&
      snprintf(to, sizeof to, "%s", j->path) >= (int)sizeof to) /* a link's target */
    return mr_err_set(&j->err, MR_E_INVALID, "path", "path: too long");
  if (snprintf(temp, sizeof temp, "%s.XXXXXX", to) >= (int)sizeof temp)
    return mr_err_set(&j->err, MR_E_INVALID, "path", "path: too long");
  if (stat(to, &st) == 0 && !S_ISREG(st.st_mode))
    return mr_err_set(&j->err, MR_E_INVALID, "path", "%.200s: not a plain file", j->path);
  if (stat(to, &st) == 0) mode = st.st_mode & 07777;
  fd = mkostemp(temp, O_CLOEXEC);
  if (fd < 0) return failed(j, j->path);
  code = write_all(j, fd, j->path);
  if (code == MR_OK && (fchmod(fd, mode) != 0 || fsync(fd) != 0)) code = failed(j, j->path);
  close(fd);
  if (code == MR_OK && rename(temp, to) != 0) code = failed(j, j->path);
  if (code != MR_OK) unlink(temp);
  return code;
}

static int do_append(struct filejob *j)
{
  int fd = open(j->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | j->nofollow, 0644), code;

  if (fd < 0) return failed(j, j->path);
  code = write_all(j, fd, j->path);
  if (close(fd) != 0 && code == MR_OK) code = failed(j, j->path);
  return code;
}

static void write_info(struct mr_jw *w, struct mr_str name, const struct stat *st)
{
  mr_jw_obj(w);
  mr_jw_kstr(w, "name", name);
  mr_jw_kc(w, "type",
           S_ISREG(st->st_mode)   ? "file"
           : S_ISDIR(st->st_mode) ? "directory"
           : S_ISLNK(st->st_mode) ? "link"
                                  : "other");
  mr_jw_kint(w, "size", st->st_size);
  mr_jw_key(w, "mtime");
  mr_jw_real(w, (double)st->st_mtim.tv_sec + (double)(st->st_mtim.tv_nsec / 1000) / 1e6);
  mr_jw_obj_end(w);
}

static int cmp_names(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static char **read_names(struct filejob *j, DIR *d, size_t *out)
{
  char **names = NULL, **more;
  size_t n = 0, cap = 0;
  struct dirent *e;

  while ((e = readdir(d)) && n < LIST_MAX) {
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    if (n == cap) {
      cap = cap ? cap * 2 : 64;
      more = mr_mem_realloc(mr_rt_mem(j->rt), names, cap * sizeof *names);
      if (!more) break;
      names = more;
    }
    names[n] = (char *)(uintptr_t)mr_arena_str(j->arena, mr_str_c(e->d_name)).p;
    if (!names[n]) break;
    n++;
  }
  if (e)
    j->code = n < LIST_MAX ? mr_err_nomem(&j->err)
                           : mr_err_set(&j->err, MR_E_TOO_LARGE, "path", "more than %d names", LIST_MAX);
  *out = n;
  return names;
}

static int do_list(struct filejob *j)
{
  DIR *d = opendir(j->path);
  struct stat st;
  struct mr_jw w;
  char **names;
  size_t n;

  if (!d) return failed(j, j->path);
  names = read_names(j, d, &n);
  qsort(names, names ? n : 0, sizeof *names, cmp_names);
  mr_jw_init(&w, &j->json);
  mr_jw_arr(&w);
  for (size_t i = 0; i < n && j->code == MR_OK; i++)
    if (fstatat(dirfd(d), names[i], &st, 0) == 0 || fstatat(dirfd(d), names[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
      write_info(&w, mr_str_c(names[i]), &st); /* else it has just gone */
  mr_jw_arr_end(&w);
  mr_mem_free(mr_rt_mem(j->rt), names);
  closedir(d);
  return j->code;
}

static int do_stat(struct filejob *j)
{
  struct mr_str name = mr_str_c(j->path), rest = name;
  struct stat st;
  struct mr_jw w;

  if (stat(j->path, &st) != 0) return failed(j, j->path);
  while (rest.p) {
    struct mr_str part = mr_str_split(&rest, '/');
    name = part.n ? part : name;
  }
  mr_jw_init(&w, &j->json);
  write_info(&w, name, &st);
  return MR_OK;
}

static int do_mkdir(struct filejob *j)
{
  struct stat st;

  for (char *p = j->path + 1;; p++) {
    char c = *p;
    if (c != '/' && c) continue;
    *p = '\0';
    if (mkdir(j->path, 0777) != 0 && errno != EEXIST) return failed(j, j->path);
    *p = c;
    if (!c) break;
  }
  if (stat(j->path, &st) == 0 && S_ISDIR(st.st_mode)) return MR_OK;
  return mr_err_set(&j->err, MR_E_CONFLICT, "path", "%.200s: there is a file of that name", j->path);
}

static int do_remove(struct filejob *j)
{
  return remove(j->path) == 0 ? MR_OK : failed(j, j->path);
}

static int do_rename(struct filejob *j)
{
  return rename(j->path, j->arg.p) == 0 ? MR_OK : failed(j, j->path);
}

/* ---- the answer ---- */

/* What was read as a JSON value: text as it is, other bytes as {"base64": ..}. */
static int value_of(struct filejob *j)
{
  struct mr_str raw = mr_str_n(j->raw, j->raw_n);
  yyjson_mut_doc *doc;
  yyjson_mut_val *v;
  yyjson_alc alc;
  char *text = NULL;

  mr_json_alc(mr_rt_mem(j->rt), &alc);
  doc = yyjson_mut_doc_new(&alc);
  if (!doc) return MR_E_NOMEM;
  if (mr_utf8_valid(raw)) {
    v = yyjson_mut_strn(doc, raw.p, raw.n);
  } else {
    text = mr_mem_alloc(mr_rt_mem(j->rt), 4 * ((raw.n + 2) / 3) + 1);
    v = yyjson_mut_obj(doc);
    if (!text || !v || !yyjson_mut_obj_add_strn(doc, v, "base64", text, mr_base64_encode(raw, text))) v = NULL;
  }
  yyjson_mut_doc_set_root(doc, v);
  if (v) j->doc = yyjson_mut_doc_imut_copy(doc, &alc);
  yyjson_mut_doc_free(doc);
  mr_mem_free(mr_rt_mem(j->rt), text);
  return j->doc ? MR_OK : MR_E_NOMEM;
}

/* The path (and a rename's new name) as script.roots allows it. */
static int place(struct filejob *j)
{
  bool itself = j->work == do_remove || j->work == do_rename;
  char path[PATH_MAX], to[PATH_MAX];
  int code = mr_roots_resolve(j->rt, j->path, itself, path, &j->err);

  if (code == MR_OK && j->work == do_rename) {
    code = mr_roots_resolve(j->rt, j->arg.p, true, to, &j->err);
    if (code == MR_OK) j->arg = mr_arena_str(j->arena, mr_str_c(to));
  }
  if (code != MR_OK) return code;
  j->nofollow = mr_roots_set(j->rt) ? O_NOFOLLOW : 0;
  j->path = (char *)(uintptr_t)mr_arena_str(j->arena, mr_str_c(path)).p;
  return j->path && j->arg.p ? MR_OK : mr_err_nomem(&j->err);
}

static void work(struct mr_job *job, void *worker)
{
  struct filejob *j = MR_OF(job, struct filejob, job);

  (void)worker;
  j->code = place(j);
  if (j->code == MR_OK) j->code = j->work(j);
  if (j->code == MR_OK && j->raw)
    j->code = value_of(j);
  else if (j->code == MR_OK && (j->json.n || j->json.failed))
    j->code = j->json.failed
                  ? j->json.failed
                  : mr_json_parse(mr_rt_mem(j->rt), mr_buf_get(&j->json), SIZE_MAX, &j->doc, &j->err);
  if (j->code != MR_OK && j->err.code == MR_OK) mr_err_set(&j->err, j->code, NULL, "%s", mr_strerror(j->code));
}

static void job_free(struct filejob *j)
{
  const struct mr_mem *m = mr_rt_mem(j->rt);

  yyjson_doc_free(j->doc);
  mr_mem_free(m, j->raw);
  mr_buf_free(&j->json);
  mr_arena_free(&j->arena);
  mr_mem_free(m, j);
}

static void run_done(struct mr_entry *e)
{
  struct filejob *j = MR_OF(e, struct filejob, entry);
  struct mr_runtime *rt = j->rt;
  struct mr_reply r = {.size = sizeof r, .code = j->code, .err = j->code == MR_OK ? NULL : &j->err};

  if (j->code == MR_OK) {
    r.json = mr_buf_get(&j->json);
    r.val = (const struct mr_val *)yyjson_doc_get_root(j->doc);
  }
  j->done(j->ud, &r, mr_str_n(j->code == MR_OK ? j->raw : NULL, j->code == MR_OK ? j->raw_n : 0));
  job_free(j);
  mr_queue_release(&rt->queue);
}

static void on_done(struct mr_job *job)
{
  struct filejob *j = MR_OF(job, struct filejob, job);
  mr_queue_push(&j->rt->queue, &j->entry);
}

static int (*find_op(const char *op))(struct filejob *j)
{
  static const struct {
    const char *name;
    int (*fn)(struct filejob *j);
  } ops[] = {{"read", do_read}, {"write", do_write}, {"append", do_append}, {"list", do_list},
             {"stat", do_stat}, {"mkdir", do_mkdir}, {"remove", do_remove}, {"rename", do_rename}};

  for (size_t i = 0; op && i < sizeof ops / sizeof *ops; i++)
    if (strcmp(op, ops[i].name) == 0) return ops[i].fn;
  return NULL;
}

static struct filejob *job_new(struct mr_runtime *rt, const char *path, struct mr_str arg)
{
  const struct mr_mem *m = mr_rt_mem(rt);
  struct filejob *j = mr_mem_zalloc(m, sizeof *j);

  if (!j) return NULL;
  j->rt = rt;
  j->arena = mr_arena_new(m, 512);
  if (j->arena) {
    j->path = (char *)(uintptr_t)mr_arena_str(j->arena, mr_str_c(path)).p;
    j->arg = mr_arena_str(j->arena, arg);
  }
  mr_buf_init(&j->json, m, LIST_BYTES);
  j->job.work = work;
  j->job.done = on_done;
  j->entry.run = run_done;
  if (j->arena && j->path && j->arg.p) return j;
  job_free(j);
  return NULL;
}

int mr_x_file(struct mr_runtime *rt, const char *op, const char *path, struct mr_str arg,
              void (*done)(void *ud, const struct mr_reply *r, struct mr_str raw), void *ud, struct mr_err *err)
{
  int (*fn)(struct filejob * j) = find_op(op);
  struct filejob *j;
  int code = mr_ext_check(rt, err);

  if (code != MR_OK) return code;
  if (!fn || !done)
    return mr_err_set(err, MR_E_INVALID, fn ? "done" : "op",
                      "there is no file operation \"%.40s\" without an end", op ? op : "");
  if (!path || !path[0] || strlen(path) >= PATH_MAX)
    return mr_err_set(err, MR_E_INVALID, "path", "path: needed, at most %d bytes", PATH_MAX - 1);
  if (fn == do_rename && (!arg.n || memchr(arg.p, 0, arg.n)))
    return mr_err_set(err, MR_E_INVALID, "arg", "arg: the new name");
  j = job_new(rt, path, arg);
  if (!j) return mr_err_nomem(err);
  j->work = fn;
  j->done = done;
  j->ud = ud;
  code = mr_queue_reserve(&rt->queue);
  if (code == MR_OK) {
    code = mr_pool_submit(rt->pool, &j->job);
    if (code == MR_OK) return MR_OK;
    mr_queue_release(&rt->queue);
  }
  job_free(j);
  return mr_err_set(err, code, NULL, "too many files and calls at once: dispatch, then try again");
}
