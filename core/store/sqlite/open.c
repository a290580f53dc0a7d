/*
 * open.c - life of the SQLite driver: opens the connections in order, starts the threads, and takes
 * them down in the reverse order; the vtable is at the end.
 *
 * The files are store.db (0600, made here because SQLite follows the umask) with its -wal and -shm. SQLite's
 * process-wide configuration is the host's and is not touched. Opening reads two numbers and no rows.
 *
 * Invariant: the database file is only ever opened through SQLite once a connection exists: closing a
 * plain descriptor of it would drop SQLite's locks. Loop thread; refs_*: one pool thread.
 */
#include "store/sqlite/sqlite_t.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

static int make_file(struct mr_sqlite *q, struct mr_err *err)
{
  char path[PATH_MAX];
  int fd;

  snprintf(path, sizeof path, "%s/store.db", q->store->dir);
  q->path = mr_mem_strdup(q->store->mem, mr_str_c(path));
  if (!q->path) return mr_err_nomem(err);
  fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd >= 0)
    close(fd);
  else if (errno != EEXIST)
    return mr_err_errno(err, path);
  return MR_OK;
}

/* The counters go on above everything that was ever visible. */
static int load_counters(struct mr_sqlite *q, struct mr_err *err)
{
  int64_t last, kept, tombs;
  int code = mr_sqlite_int(q->db, "SELECT max(pos) FROM log", &last, err);

  if (code == MR_OK) /* what the last run did not finish to make */
    code = mr_sqlite_exec(q->db, "UPDATE sessions SET deleted_us = 1 WHERE deleted_us <> 0 AND deleted_us < 0",
                          "unborn sessions", err);

  if (code == MR_OK) code = mr_sqlite_int(q->db, "SELECT value FROM meta WHERE key = 'pos'", &kept, err);
  if (code == MR_OK) code = mr_sqlite_int(q->db, "SELECT max(arrival) FROM inbox", &q->arrival, err);
  if (code == MR_OK)
    code = mr_sqlite_int(q->db, "SELECT 1 FROM sessions WHERE deleted_us <> 0 LIMIT 1", &tombs, err);
  if (code != MR_OK) return code;
  q->pos = q->stats.pos = last > kept ? last : kept;
  q->sweep = tombs != 0;
  return MR_OK;
}

static struct mr_sqlite *sqlite_new(struct mr_store *s)
{
  struct mr_sqlite *q = mr_mem_zalloc(s->mem, sizeof *q);
  pthread_condattr_t mono;

  if (!q) return NULL;
  q->store = s;
  q->tail = &q->head;
  q->reads_tail = &q->reads;
  pthread_condattr_init(&mono);
  pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
  pthread_mutex_init(&q->mu, NULL);
  pthread_cond_init(&q->more, &mono);
  pthread_cond_init(&q->answered, &mono);
  pthread_condattr_destroy(&mono);
  return q;
}

static int sqlite_open(struct mr_store *s, const struct mr_store_opts *o, const struct mr_store_internal *in,
                       struct mr_err *err)
{
  struct mr_sqlite *q = sqlite_new(s);
  int code = MR_OK;

  if (!q) return mr_err_nomem(err);
  s->self = q;
  q->bytes_max = in && in->queue_bytes ? in->queue_bytes : MR_STORE_QUEUE_BYTES;
  if (!s->memory) code = make_file(q, err);
  if (code == MR_OK) code = mr_sqlite_connect(q, SQLITE_OPEN_READWRITE, &q->db, err);
  if (code == MR_OK) code = mr_sqlite_schema(q, in, err);
  if (code == MR_OK) code = mr_sqlite_prepare(q, err);
  if (code == MR_OK) code = load_counters(q, err);
  if (code == MR_OK && q->path) code = mr_sqlite_connect(q, SQLITE_OPEN_READWRITE, &q->ckpt, err);
  if (code == MR_OK) mr_sqlite_checkpoint_init(q);
  q->self.db = q->db;
  /* One thread more than asked: a checkpoint takes one. */
  if (code == MR_OK && q->path)
    code = mr_pool_new(&q->readers, s->loop, (o->readers > 0 ? o->readers : 2) + 1, MR_STORE_READS_MAX, "read",
                       mr_sqlite_reader_new, mr_sqlite_reader_free, q, err);
  if (code == MR_OK) code = mr_sqlite_start(q, err);
  return code;
}

static void sqlite_drain(struct mr_store *s)
{
  struct mr_sqlite *q = s->self;

  mr_sqlite_stop(q);
  mr_pool_free(&q->readers);
}

static void sqlite_close(struct mr_store *s)
{
  struct mr_sqlite *q = s->self;
  bool started = q->db != NULL && q->path != NULL;

  mr_sqlite_reader_clear(&q->self);
  mr_sqlite_finalize(q);
  sqlite3_close(q->ckpt);
  if (started) sqlite3_wal_checkpoint_v2(q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
  sqlite3_close(q->db);
  pthread_cond_destroy(&q->answered);
  pthread_cond_destroy(&q->more);
  pthread_mutex_destroy(&q->mu);
  mr_mem_free(s->mem, q->path);
  mr_mem_free(s->mem, q);
  s->self = NULL;
}

static bool sqlite_failing(const struct mr_store *s, struct mr_err *err)
{
  struct mr_sqlite *q = s->self;
  bool failing;

  pthread_mutex_lock(&q->mu);
  failing = q->failing;
  if (failing) mr_err_copy(err, &q->failure);
  pthread_mutex_unlock(&q->mu);
  return failing;
}

static void sqlite_stats(const struct mr_store *s, struct mr_store_stats *out)
{
  struct mr_sqlite *q = s->self;

  pthread_mutex_lock(&q->mu);
  *out = q->stats;
  out->queued = q->nqueued;
  pthread_mutex_unlock(&q->mu);
}

/* ---- the sweep of blobs asks ---- */

struct refs {
  const struct mr_mem *mem;
  sqlite3 *db;
  sqlite3_stmt *st;
};

int mr_sqlite_refs_open(struct mr_store *s, void **out)
{
  struct refs *r = mr_mem_zalloc(s->mem, sizeof *r);

  *out = NULL;
  if (!r) return MR_E_NOMEM;
  r->mem = s->mem;
  if (mr_sqlite_connect(s->self, SQLITE_OPEN_READONLY, &r->db, NULL) != MR_OK ||
      sqlite3_prepare_v2(r->db,
                         "SELECT 1 FROM workspaces w CROSS JOIN docs d ON d.workspace_id = w.workspace_id"
                         " AND d.kind = ?1 AND d.id = ?2 LIMIT 1",
                         -1, &r->st, NULL) != SQLITE_OK) {
    mr_sqlite_refs_close(r);
    return MR_E_UNAVAILABLE;
  }
  *out = r;
  return MR_OK;
}

int mr_sqlite_refs_has(void *refs, const char *kind, struct mr_str id)
{
  struct refs *r = refs;
  int rc;

  mr_sqlite_bind(r->st, 1, mr_str_c(kind));
  mr_sqlite_bind(r->st, 2, id);
  rc = sqlite3_step(r->st);
  sqlite3_reset(r->st);
  return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : MR_E_UNAVAILABLE;
}

void mr_sqlite_refs_close(void *refs)
{
  struct refs *r = refs;

  if (!r) return;
  sqlite3_finalize(r->st);
  sqlite3_close(r->db);
  mr_mem_free(r->mem, r);
}

const struct mr_store_driver mr_store_sqlite = {
    .name = "sqlite",
    .open = sqlite_open,
    .drain = sqlite_drain,
    .close = sqlite_close,
    .submit = mr_sqlite_submit,
    .read = mr_sqlite_read,
    .workspace = mr_sqlite_workspace,
    .failing = sqlite_failing,
    .stats = sqlite_stats,
    .refs_open = mr_sqlite_refs_open,
    .refs_has = mr_sqlite_refs_has,
    .refs_close = mr_sqlite_refs_close,
};
