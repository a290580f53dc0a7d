/*
 * outcome_files.c - what the agent delivered, as text for the grader: each file below the session's outputs directory
 * with its name and size, and of texts the beginning. A pool thread reads; bounded in files and bytes.
 */
#include "agent/files.h"
#include "agent/outcome.h"

#include <stdio.h>
#include <unistd.h>

enum { FILES_MAX = 100, FILE_BYTES = 20000, ALL_BYTES = 200000 };

struct reading {
  struct mr_job job;
  struct mr_session *s;
  const struct mr_mem *mem;
  char dir[4096];
  struct mr_buf text; /* the job's while it works */
  int n;
  void (*fn)(void *ud, struct mr_str text);
  void *ud;
};

/* The whole characters of at most n bytes of a text; 0: it is none. */
static size_t text_part(const char *p, size_t n, bool whole)
{
  struct mr_str s = mr_str_n(p, whole ? n : mr_utf8_cut(mr_str_n(p, n), n > 3 ? n - 3 : n));

  return n && !memchr(p, 0, n) && mr_utf8_valid(s) ? s.n : 0;
}

static bool add(void *ud, const char *path, int fd, int64_t size)
{
  struct reading *r = ud;
  char *piece = r->text.n < ALL_BYTES ? mr_mem_alloc(r->mem, FILE_BYTES) : NULL;
  ssize_t n = piece ? read(fd, piece, FILE_BYTES) : 0;
  size_t part = n > 0 ? text_part(piece, (size_t)n, n == size) : 0;

  mr_buf_printf(&r->text, "%s (%lld bytes)", path, (long long)size);
  if (part) {
    mr_buf_c(&r->text, ":\n");
    mr_buf_add(&r->text, piece, part);
    if ((int64_t)part < size) mr_buf_c(&r->text, "\n[...]");
  }
  mr_buf_char(&r->text, '\n');
  mr_mem_free(r->mem, piece);
  return ++r->n < FILES_MAX;
}

static void work(struct mr_job *j, void *worker)
{
  struct reading *r = MR_OF(j, struct reading, job);
  (void)worker;
  mr_outputs_walk(r->dir, add, r);
}

static void done(struct mr_job *j)
{
  struct reading *r = MR_OF(j, struct reading, job);
  struct mr_session *s = r->s;

  r->fn(r->ud, r->text.failed ? mr_str_n("", 0) : mr_buf_get(&r->text));
  mr_buf_free(&r->text);
  mr_mem_free(s->d->mem, r);
  mr_session_unref(s);
}

int mr_outcome_files(struct mr_session *s, void (*fn)(void *ud, struct mr_str text), void *ud)
{
  struct mr_domain *d = s->d;
  struct reading *r = mr_mem_zalloc(d->mem, sizeof *r);
  int code = MR_OK;

  if (!r) return MR_E_NOMEM;
  r->s = s;
  r->mem = d->mem;
  r->fn = fn;
  r->ud = ud;
  r->job.work = work;
  r->job.done = done;
  mr_buf_init(&r->text, d->mem, 2 * ALL_BYTES);
  if (d->sandbox) code = mr_sandbox_outputs_path(d->sandbox, s->id, r->dir);
  if (code == MR_OK) code = mr_pool_submit(d->pool, &r->job);
  if (code != MR_OK) {
    mr_buf_free(&r->text);
    mr_mem_free(d->mem, r);
    return code;
  }
  mr_session_ref(s);
  return MR_OK;
}
