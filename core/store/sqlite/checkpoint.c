/*
 * checkpoint.c - moving the write-ahead log into the database file, beside the writer.
 *
 * Automatic checkpoints are off: they would run inside some caller's COMMIT. Instead the writer notes
 * the log's length after each commit, and each time it has grown by MR_WAL_PAGES one pool job checkpoints on a
 * connection of its own (passive: it waits for nobody). A page that many commits wrote is copied once for all of
 * them, which is why the job does not follow each commit. Under constant writing it never catches the end, so the log
 * would never start over; past MR_WAL_PAGES_HARD the writer does the rest itself between two transactions, which is
 * short because the jobs have done most of it. At close the log is truncated (open.c).
 *
 * Invariant: at most one job is under way; ckpt is its alone.
 */
#include "store/sqlite/sqlite_t.h"

static int wal_hook(void *ud, sqlite3 *db, const char *name, int pages)
{
  struct mr_sqlite *q = ud;

  atomic_store(&q->wal_pages, pages);
  return SQLITE_OK;
}

/* Pool thread. */
static void ckpt_work(struct mr_job *j, void *worker)
{
  struct mr_sqlite *q = MR_OF(j, struct mr_sqlite, ckpt_job);

  sqlite3_wal_checkpoint_v2(q->ckpt, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}

/* Loop thread. */
static void ckpt_done(struct mr_job *j)
{
  atomic_store(&MR_OF(j, struct mr_sqlite, ckpt_job)->ckpt_busy, false);
}

void mr_sqlite_checkpoint_init(struct mr_sqlite *q)
{
  q->ckpt_job.work = ckpt_work;
  q->ckpt_job.done = ckpt_done;
  if (q->path) sqlite3_wal_hook(q->db, wal_hook, q);
}

void mr_sqlite_checkpoint(struct mr_sqlite *q)
{
  int pages = atomic_load(&q->wal_pages);

  if (!q->path) return;
  if (pages < q->ckpt_pages) q->ckpt_pages = 0; /* the log has started over */
  if (pages - q->ckpt_pages <= MR_WAL_PAGES) return;
  if (pages > MR_WAL_PAGES_HARD) {
    if (sqlite3_wal_checkpoint_v2(q->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) == SQLITE_OK)
      atomic_store(&q->wal_pages, 0); /* until the next commit tells */
    return;
  }
  if (atomic_exchange(&q->ckpt_busy, true)) return;
  if (mr_pool_submit(q->readers, &q->ckpt_job) == MR_OK)
    q->ckpt_pages = pages;
  else
    atomic_store(&q->ckpt_busy, false);
}
