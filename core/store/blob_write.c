/*
 * blob_write.c - writing one blob: bytes wait in a buffer of the loop thread, one pool job at a time
 * takes all of them to the temporary file and into the SHA-256. The last job fsyncs, renames and fsyncs
 * the directory; only then does done say so, and only after that may a row refer to the blob.
 *
 * Back pressure: from MR_BLOB_WAIT waiting bytes on mr_blob_write answers MR_MORE, and drained tells when
 * the disk has caught up. An error is kept: later writes answer it, finish reports it, nothing is left.
 *
 * Invariant: while busy the job owns out, fd, sha, size, code and err; else the loop thread does. Loop thread; step
 * functions: pool thread.
 */
#include "store/blobs_t.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct mr_blob_writer {
  struct mr_blobs *blobs; /* NULL once the store is closed */
  const struct mr_mem *mem;
  struct mr_blob_writer *next, **link; /* blobs->writers */
  struct mr_job job;
  struct mr_done done;
  char path[PATH_MAX], tmp[PATH_MAX];
  struct mr_str id; /* the end of path */
  int fd;
  EVP_MD_CTX *sha;
  int64_t size;
  struct mr_buf in, out; /* waiting; being written */
  int code;              /* MR_OK, or why it failed */
  struct mr_err err;
  bool busy, finishing, last, aborted;
  void (*drained)(void *ud);
  void *drained_ud;
  void (*finished)(void *ud, int code, int64_t size, const char *sha256, const struct mr_err *err);
  void *finished_ud;
};

/* ---- pool thread ---- */

static void step_fail(struct mr_blob_writer *w, const char *what)
{
  if (errno == EEXIST)
    w->code = mr_err_set(&w->err, MR_E_CONFLICT, NULL, "blob is being written already");
  else
    w->code = mr_err_errno(&w->err, what);
}

static void step_write(struct mr_blob_writer *w)
{
  size_t at = 0;

  while (at < w->out.n) {
    ssize_t n = write(w->fd, w->out.p + at, w->out.n - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      step_fail(w, "blob write");
      return;
    }
    at += (size_t)n;
  }
  if (w->out.n && EVP_DigestUpdate(w->sha, w->out.p, w->out.n) != 1) w->code = mr_err_nomem(&w->err);
  w->size += (int64_t)w->out.n;
}

static void step_close(struct mr_blob_writer *w, bool discard)
{
  if (w->fd < 0) return;
  close(w->fd);
  w->fd = -1;
  if (discard) unlink(w->tmp);
}

static void step_finish(struct mr_blob_writer *w)
{
  if (fsync(w->fd) != 0 || rename(w->tmp, w->path) != 0) {
    step_fail(w, "blob finish");
  } else if (mr_blob_sync_dir(w->path) != 0) {
    step_fail(w, "blob finish");
    unlink(w->path);
  }
}

static void step_work(struct mr_job *j, void *worker)
{
  struct mr_blob_writer *w = MR_OF(j, struct mr_blob_writer, job);

  if (w->fd < 0) {
    if (mr_blob_make_shard(w->blobs->store, w->path) == 0)
      w->fd = open(w->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (w->fd < 0) step_fail(w, "blob");
  }
  if (w->code == MR_OK) step_write(w);
  if (w->code == MR_OK && w->last) step_finish(w);
  if (w->code != MR_OK || w->last) step_close(w, w->code != MR_OK);
}

static void abort_work(struct mr_job *j, void *worker)
{
  step_close(MR_OF(j, struct mr_blob_writer, job), true);
}

/* ---- loop thread ---- */

static void writer_unlink(struct mr_blob_writer *w)
{
  if (!w->link) return;
  *w->link = w->next;
  if (w->next) w->next->link = w->link;
  w->link = NULL;
}

static void writer_free(struct mr_blob_writer *w)
{
  writer_unlink(w);
  EVP_MD_CTX_free(w->sha);
  mr_buf_free(&w->in);
  mr_buf_free(&w->out);
  mr_mem_free(w->mem, w);
}

static void report(struct mr_blob_writer *w)
{
  static const char digits[] = "0123456789abcdef";
  unsigned char md[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  char hex[65];

  if (w->code == MR_OK && (EVP_DigestFinal_ex(w->sha, md, &n) != 1 || n != 32)) w->code = mr_err_nomem(&w->err);
  for (unsigned i = 0; i < 32 && w->code == MR_OK; i++) {
    hex[2 * i] = digits[md[i] >> 4];
    hex[2 * i + 1] = digits[md[i] & 15];
  }
  hex[64] = '\0';
  if (w->finished)
    w->finished(w->finished_ud, w->code, w->code == MR_OK ? w->size : 0, w->code == MR_OK ? hex : NULL,
                w->code == MR_OK ? NULL : &w->err);
  writer_free(w);
}

static void report_done(struct mr_done *d)
{
  report(MR_OF(d, struct mr_blob_writer, done));
}

static void aborted_done(struct mr_job *j)
{
  writer_free(MR_OF(j, struct mr_blob_writer, job));
}

static void step_done(struct mr_job *j);

/* Gives the pool what waits. Reports through w->code. */
static void pump(struct mr_blob_writer *w)
{
  struct mr_buf t;
  int code;

  if (w->busy || w->code != MR_OK || (w->in.n == 0 && !w->finishing)) return;
  t = w->out;
  w->out = w->in;
  w->in = t;
  mr_buf_reset(&w->in);
  w->last = w->finishing;
  w->job.work = step_work;
  w->job.done = step_done;
  code = w->blobs->pool ? mr_pool_submit(w->blobs->pool, &w->job) : MR_E_CLOSED;
  w->busy = code == MR_OK;
  if (code != MR_OK) w->code = mr_err_set(&w->err, code, NULL, "blob: %s", mr_strerror(code));
}

/* Frees w now, or when its temporary file is gone. */
static void abort_now(struct mr_blob_writer *w)
{
  w->job.work = abort_work;
  w->job.done = aborted_done;
  if (w->fd >= 0 && w->blobs->pool && mr_pool_submit(w->blobs->pool, &w->job) == MR_OK) return;
  step_close(w, true);
  writer_free(w);
}

static void step_done(struct mr_job *j)
{
  struct mr_blob_writer *w = MR_OF(j, struct mr_blob_writer, job);
  void (*drained)(void *) = w->drained;

  w->busy = false;
  mr_buf_reset(&w->out);
  if (w->aborted) {
    abort_now(w);
    return;
  }
  if (w->finishing && (w->last || w->code != MR_OK)) {
    report(w);
    return;
  }
  pump(w);
  if (w->finishing && !w->busy) {
    report(w);
    return;
  }
  if (drained && (w->in.n < MR_BLOB_WAIT || w->code != MR_OK)) {
    w->drained = NULL;
    drained(w->drained_ud);
  }
}

int mr_blob_begin(struct mr_store *s, struct mr_str id, struct mr_blob_writer **out, struct mr_err *err)
{
  struct mr_blob_writer *w;
  struct mr_blobs *b = s->blobs;

  *out = NULL;
  if (!b || s->closing) return mr_err_set(err, MR_E_CLOSED, NULL, "the store is closing");
  if (!mr_store_id_ok(id)) return mr_err_set(err, MR_E_INVALID, "id", "not a blob id");
  w = mr_mem_zalloc(s->mem, sizeof *w);
  if (!w) return mr_err_nomem(err);
  w->blobs = b;
  w->mem = s->mem;
  w->fd = -1;
  w->done.fn = report_done;
  mr_buf_init(&w->in, s->mem, s->memory ? MR_BLOB_MEM_MAX : SIZE_MAX / 4);
  mr_buf_init(&w->out, s->mem, SIZE_MAX / 4); /* mr_blob_write bounds them */
  w->next = b->writers;
  w->link = &b->writers;
  if (w->next) w->next->link = &w->next;
  b->writers = w;
  w->sha = EVP_MD_CTX_new();
  if (!w->sha || EVP_DigestInit_ex(w->sha, EVP_sha256(), NULL) != 1) {
    writer_free(w);
    return mr_err_nomem(err);
  }
  if (mr_blob_name(s, id, "", w->path) != MR_OK || mr_blob_name(s, id, ".tmp", w->tmp) != MR_OK) {
    writer_free(w);
    return mr_err_set(err, MR_E_INVALID, "id", "the blob's path is too long");
  }
  w->id = mr_str_n(w->path + strlen(w->path) - id.n, id.n);
  *out = w;
  return MR_OK;
}

int mr_blob_write(struct mr_blob_writer *w, struct mr_str bytes, void (*drained)(void *ud), void *ud)
{
  if (!w->blobs) return MR_E_CLOSED;
  if (!w->busy && w->code != MR_OK) return w->code;
  if (w->in.n > 0 && w->in.n + bytes.n > MR_BLOB_WAIT_MAX && !w->blobs->store->memory)
    return MR_E_FULL; /* the caller went on after MR_MORE */
  mr_buf_str(&w->in, bytes);
  if (w->in.failed) {
    if (!w->busy) w->code = mr_err_set(&w->err, w->in.failed, NULL, "blob: %s", mr_strerror(w->in.failed));
    return w->in.failed;
  }
  if (w->blobs->store->memory) return MR_OK;
  pump(w);
  if (!w->busy && w->code != MR_OK) return w->code;
  if (w->in.n < MR_BLOB_WAIT) return MR_OK;
  w->drained = drained;
  w->drained_ud = ud;
  return MR_MORE;
}

static void finish_memory(struct mr_blob_writer *w)
{
  size_t n;
  char *p;

  if (w->code == MR_OK) {
    w->size = (int64_t)w->in.n;
    p = mr_buf_take(&w->in, &n);
    if (!p || EVP_DigestUpdate(w->sha, p, n) != 1)
      w->code = mr_err_nomem(&w->err);
    else
      w->code = mr_blob_mem_add(w->blobs, w->id, &p, n, &w->err);
    mr_mem_free(w->mem, p);
  }
  mr_store_deliver(w->blobs->store, &w->done);
}

void mr_blob_finish(struct mr_blob_writer **wp,
                    void (*done)(void *ud, int code, int64_t size, const char *sha256,
                                 const struct mr_err *err),
                    void *ud)
{
  struct mr_blob_writer *w = *wp;

  if (!w) return;
  *wp = NULL;
  w->finished = done;
  w->finished_ud = ud;
  w->finishing = true;
  w->drained = NULL;
  if (!w->blobs) { /* the store is gone: nothing could carry the answer */
    report(w);
    return;
  }
  if (!w->busy && w->code == MR_OK && w->in.failed)
    w->code = mr_err_set(&w->err, w->in.failed, NULL, "blob: %s", mr_strerror(w->in.failed));
  if (w->blobs->store->memory) {
    finish_memory(w);
    return;
  }
  pump(w);
  if (!w->busy) mr_store_deliver(w->blobs->store, &w->done);
}

void mr_blob_abort(struct mr_blob_writer **wp)
{
  struct mr_blob_writer *w = *wp;

  if (!w) return;
  *wp = NULL;
  w->drained = NULL;
  w->aborted = true;
  if (w->busy) return; /* step_done goes on */
  if (w->blobs)
    abort_now(w);
  else
    writer_free(w);
}

void mr_blob_writer_orphan(struct mr_blob_writer *w)
{
  w->aborted = true;
  step_close(w, true);
  writer_unlink(w);
  w->blobs = NULL;
  w->code = mr_err_set(&w->err, MR_E_CLOSED, NULL, "the store is closed");
}
