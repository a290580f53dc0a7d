/*
 * blobs.c - immutable files under <dir>/blobs: opening, reading, copying, deleting. Writing one is
 * blob_write.c; what nobody refers to is blobs_sweep.c; memory stores are blobs_mem.c.
 *
 * All disk work runs on a small pool of its own, so that an upload's fsync never holds up a query. Files
 * are spread over directories named by two characters of the random part of the id. Who may see a blob
 * is not decided here: its document is.
 *
 * Invariant: see blobs_t.h. Ids are checked here ([A-Za-z0-9_-]{1,80}), so no id can name another path.
 * Loop thread; work functions: pool threads.
 */
#include "store/blobs_t.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- names ---- */

int mr_blob_name(const struct mr_store *s, struct mr_str id, const char *suffix, char out[PATH_MAX])
{
  size_t at = id.n;
  char a, b;

  if (!mr_store_id_ok(id)) return MR_E_INVALID;
  while (at > 0 && id.p[at - 1] != '_')
    at--;
  if (id.n - at > 3 && id.p[at] == '0' && id.p[at + 1] == '1')
    at += 2; /* ids made here start their random part with a version, "01" */
  a = at < id.n ? id.p[at] : '0';
  b = at + 1 < id.n ? id.p[at + 1] : '0';
  if ((size_t)snprintf(out, PATH_MAX, "%s/blobs/%c%c/%.*s%s", s->dir, a, b, (int)id.n, id.p, suffix) >=
      PATH_MAX)
    return MR_E_INVALID;
  return MR_OK;
}

int mr_blob_sync_dir(const char *path)
{
  char dir[PATH_MAX];
  const char *slash = strrchr(path, '/');
  int fd, e = 0;

  snprintf(dir, sizeof dir, "%.*s", (int)(slash - path), path);
  fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  if (fsync(fd) != 0) e = errno;
  close(fd);
  errno = e;
  return e ? -1 : 0;
}

int mr_blob_make_shard(const struct mr_store *s, const char *path)
{
  char dir[PATH_MAX];
  const char *slash = strrchr(path, '/');

  snprintf(dir, sizeof dir, "%.*s", (int)(slash - path), path);
  if (mkdir(dir, 0700) == 0) return mr_blob_sync_dir(dir); /* its own name, in blobs/ */
  return errno == EEXIST ? 0 : -1;
}

int mr_blob_path(struct mr_store *s, struct mr_str id, char out[4096])
{
  out[0] = '\0';
  if (s->memory) return MR_E_UNSUPPORTED;
  return mr_blob_name(s, id, "", out);
}

/* ---- reading ---- */

typedef void (*read_fn)(void *ud, int code, struct mr_str bytes);
typedef void (*copy_fn)(void *ud, int code, const struct mr_err *err);

/* A read, a copy or a deletion under way. */
struct task {
  struct mr_job job; /* first */
  struct mr_done done;
  const struct mr_store *store;
  const struct mr_mem *mem;
  char path[PATH_MAX], to[PATH_MAX];
  int64_t offset;
  size_t len;
  char *bytes;
  size_t n;
  int code;
  struct mr_err err;
  read_fn on_read;
  copy_fn on_copy;
  void *ud;
};

static void task_finish(struct task *t)
{
  if (t->on_read) t->on_read(t->ud, t->code, mr_str_n(t->n ? t->bytes : "", t->n));
  if (t->on_copy) t->on_copy(t->ud, t->code, t->code == MR_OK ? NULL : &t->err);
  mr_mem_free(t->mem, t->bytes);
  mr_mem_free(t->mem, t);
}

static void task_job_done(struct mr_job *j)
{
  task_finish(MR_OF(j, struct task, job));
}

static void task_done(struct mr_done *d)
{
  task_finish(MR_OF(d, struct task, done));
}

static struct task *task_new(struct mr_store *s, void *ud)
{
  struct task *t = mr_mem_zalloc(s->mem, sizeof *t);

  if (!t) return NULL;
  t->store = s;
  t->mem = s->mem;
  t->ud = ud;
  t->job.done = task_job_done;
  t->done.fn = task_done;
  return t;
}

/* To the pool when there is something to do, else straight back. */
static void task_start(struct mr_store *s, struct task *t, bool work)
{
  int code;

  if (work && t->code == MR_OK) {
    code = s->blobs && s->blobs->pool ? mr_pool_submit(s->blobs->pool, &t->job) : MR_E_CLOSED;
    if (code == MR_OK) return;
    t->code = code;
  }
  if (t->code != MR_OK && !t->err.code) mr_err_set(&t->err, t->code, NULL, "blob: %s", mr_strerror(t->code));
  mr_store_deliver(s, &t->done);
}

static int of_errno(struct task *t, const char *what)
{
  if (errno == ENOENT) return t->code = mr_err_set(&t->err, MR_E_NOTFOUND, NULL, "blob does not exist");
  if (errno == EEXIST) return t->code = mr_err_set(&t->err, MR_E_CONFLICT, NULL, "blob exists already");
  return t->code = mr_err_errno(&t->err, what);
}

static void read_work(struct mr_job *j, void *worker)
{
  struct task *t = MR_OF(j, struct task, job);
  struct stat st;
  size_t want;
  ssize_t n;
  int fd = open(t->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

  if (fd < 0 || fstat(fd, &st) != 0) {
    of_errno(t, "blob");
    goto out;
  }
  if (t->offset >= st.st_size) goto out;
  want = (size_t)(st.st_size - t->offset) < t->len ? (size_t)(st.st_size - t->offset) : t->len;
  t->bytes = mr_mem_alloc(t->mem, want + 1);
  if (!t->bytes) {
    t->code = MR_E_NOMEM;
    goto out;
  }
  while (t->n < want) {
    n = pread(fd, t->bytes + t->n, want - t->n, (off_t)t->offset + (off_t)t->n);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) of_errno(t, "blob");
    if (n <= 0) break;
    t->n += (size_t)n;
  }
out:
  if (t->code != MR_OK) t->n = 0;
  if (fd >= 0) close(fd);
}

static void read_fail(mr_any_fn fn, void *ud, int code)
{
  ((read_fn)fn)(ud, code, mr_str_n("", 0));
}

void mr_blob_read(struct mr_store *s, struct mr_str id, int64_t offset, size_t len,
                  void (*done)(void *ud, int code, struct mr_str bytes), void *ud)
{
  struct task *t = task_new(s, ud);
  struct mr_blob_mem *m;

  if (!t) {
    mr_store_fail_later(s, MR_E_NOMEM, read_fail, (mr_any_fn)done, ud);
    return;
  }
  t->on_read = done;
  t->offset = offset;
  t->len = len;
  t->job.work = read_work;
  t->code = offset < 0 || len > MR_BLOB_READ_MAX ? MR_E_INVALID : mr_blob_name(s, id, "", t->path);
  if (t->code == MR_OK && s->memory && s->blobs) {
    m = mr_blob_mem_find(s->blobs, id);
    if (!m)
      t->code = MR_E_NOTFOUND;
    else if ((size_t)offset < m->n) {
      t->n = m->n - (size_t)offset < len ? m->n - (size_t)offset : len;
      t->bytes = mr_mem_alloc(s->mem, t->n + 1);
      if (t->bytes)
        memcpy(t->bytes, m->p + offset, t->n);
      else
        t->n = 0, t->code = MR_E_NOMEM;
    }
  }
  task_start(s, t, !s->memory);
}

/* ---- copying ---- */

/* For file systems without hard links. */
static int copy_bytes(struct task *t)
{
  char tmp[PATH_MAX], buf[65536];
  int from = -1, to = -1;
  ssize_t n;

  if ((size_t)snprintf(tmp, sizeof tmp, "%s.tmp", t->to) >= sizeof tmp) return t->code = MR_E_INVALID;
  from = open(t->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  to = from < 0 ? -1 : open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (to < 0) {
    of_errno(t, "blob copy");
    goto out;
  }
  while ((n = read(from, buf, sizeof buf)) > 0)
    for (ssize_t k = 0, w; k < n; k += w)
      if ((w = write(to, buf + k, (size_t)(n - k))) < 0) {
        of_errno(t, "blob copy");
        goto out;
      }
  if (n < 0 || fsync(to) != 0 || rename(tmp, t->to) != 0) of_errno(t, "blob copy");
out:
  if (to >= 0 && t->code != MR_OK) unlink(tmp);
  if (from >= 0) close(from);
  if (to >= 0) close(to);
  return t->code;
}

static void copy_work(struct mr_job *j, void *worker)
{
  struct task *t = MR_OF(j, struct task, job);

  if (mr_blob_make_shard(t->store, t->to) != 0) {
    of_errno(t, "blob copy");
    return;
  }
  if (link(t->path, t->to) != 0) {
    if (errno == ENOENT || errno == EEXIST) {
      of_errno(t, "blob copy");
      return;
    }
    if (copy_bytes(t) != MR_OK) return;
  }
  if (mr_blob_sync_dir(t->to) != 0) of_errno(t, "blob copy");
}

static void copy_fail(mr_any_fn fn, void *ud, int code)
{
  struct mr_err err;

  mr_err_set(&err, code, NULL, "blob copy: %s", mr_strerror(code));
  ((copy_fn)fn)(ud, code, &err);
}

void mr_blob_copy(struct mr_store *s, struct mr_str from, struct mr_str to,
                  void (*done)(void *ud, int code, const struct mr_err *err), void *ud)
{
  struct task *t = task_new(s, ud);
  struct mr_blob_mem *m;
  char *p;

  if (!t) {
    mr_store_fail_later(s, MR_E_NOMEM, copy_fail, (mr_any_fn)done, ud);
    return;
  }
  t->on_copy = done;
  t->job.work = copy_work;
  t->code = mr_blob_name(s, from, "", t->path);
  if (t->code == MR_OK) t->code = mr_blob_name(s, to, "", t->to);
  if (t->code == MR_OK && s->memory && s->blobs) {
    m = mr_blob_mem_find(s->blobs, from);
    p = m ? mr_mem_alloc(s->mem, m->n + 1) : NULL;
    if (p) memcpy(p, m->p, m->n);
    t->code = !m ? MR_E_NOTFOUND : !p ? MR_E_NOMEM : mr_blob_mem_add(s->blobs, to, &p, m->n, &t->err);
    mr_mem_free(s->mem, p);
  }
  task_start(s, t, !s->memory);
}

/* ---- deleting ---- */

static void delete_work(struct mr_job *j, void *worker)
{
  unlink(MR_OF(j, struct task, job)->path);
}

void mr_blob_delete(struct mr_store *s, struct mr_str id)
{
  struct task *t;

  if (s->memory) {
    if (s->blobs) mr_blob_mem_delete(s->blobs, id);
    return;
  }
  t = task_new(s, NULL);
  if (!t) return; /* the sweep of the next start finds it */
  t->job.work = delete_work;
  t->code = mr_blob_name(s, id, "", t->path);
  task_start(s, t, true);
}

/* ---- life ---- */

int mr_blobs_open(struct mr_store *s, const struct mr_store_internal *in, struct mr_err *err)
{
  struct mr_blobs *b = mr_mem_zalloc(s->mem, sizeof *b);
  char dir[PATH_MAX];
  int code = MR_OK;

  if (!b) return mr_err_nomem(err);
  s->blobs = b;
  b->store = s;
  if (s->memory) return MR_OK;
  snprintf(dir, sizeof dir, "%s/blobs", s->dir);
  if (mkdir(dir, 0700) != 0 && errno != EEXIST) return mr_err_errno(err, dir);
  code = mr_pool_new(&b->pool, s->loop, MR_BLOB_THREADS, MR_BLOB_JOBS_MAX, "blob", NULL, NULL, NULL, err);
  if (code == MR_OK) mr_blobs_sweep(b, in && in->sweep_age_s ? in->sweep_age_s : 3600);
  return code;
}

void mr_blobs_close(struct mr_store *s)
{
  struct mr_blobs *b = s->blobs;

  if (!b) return;
  atomic_store(&b->closing, true);
  mr_pool_free(&b->pool);
  while (b->writers)
    mr_blob_writer_orphan(b->writers);
  while (b->mem)
    mr_blob_mem_delete(b, mr_str_c(b->mem->id));
  s->blobs = NULL;
  mr_mem_free(s->mem, b);
}
