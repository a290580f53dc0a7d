/*
 * blobs_sweep.c - deletes blobs that no document refers to, once at start, in the background: a crash
 * between a blob and its row, or between a row's deletion and its blob's, leaves such files.
 *
 * Only kinds that are registered below are ever deleted: an id that starts with the prefix and has no
 * document of that kind in any workspace. Anything else in the directory is left alone, but temporary
 * files. Young ones are left too (their row may be about to commit); the age counts from the last change
 * of the inode, so that a fresh hard link of an old file is young.
 *
 * One job per directory, so that uploads get their turn in between.
 * Invariant: a file with a document is never deleted; on any doubt (an error) it stays. Pool thread for
 * the work, loop thread between jobs.
 */
#include "store/blobs_t.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const struct {
  const char *prefix, *kind;
} registered[] = {
    {"file_", "file"},
};

struct sweep {
  struct mr_job job; /* first */
  struct mr_blobs *blobs;
  const struct mr_mem *mem;
  DIR *top;      /* blobs/ */
  void *refs;    /* the driver's */
  time_t before; /* newer ones stay */
  int deleted;
  bool over;
};

static bool unreferenced(struct sweep *w, const char *name)
{
  const struct mr_store *s = w->blobs->store;
  struct mr_str id = mr_str_c(name);

  if (mr_str_ends(id, MR_S(".tmp"))) return true;
  if (!mr_store_id_ok(id)) return false;
  for (size_t i = 0; i < sizeof registered / sizeof *registered; i++)
    if (mr_str_starts(id, mr_str_c(registered[i].prefix)))
      return s->drv->refs_has(w->refs, registered[i].kind, id) == 0;
  return false;
}

static void sweep_shard(struct sweep *w, const char *name)
{
  int fd = openat(dirfd(w->top), name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  struct dirent *e;
  struct stat st;

  if (!d) {
    if (fd >= 0) close(fd);
    return;
  }
  while (!atomic_load(&w->blobs->closing) && (e = readdir(d)) != NULL) {
    if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode) ||
        st.st_ctime > w->before || !unreferenced(w, e->d_name))
      continue;
    w->deleted += unlinkat(fd, e->d_name, 0) == 0;
  }
  closedir(d);
}

static bool sweep_begin(struct sweep *w)
{
  struct mr_store *s = w->blobs->store;
  char dir[PATH_MAX];

  snprintf(dir, sizeof dir, "%s/blobs", s->dir);
  w->top = opendir(dir);
  return w->top && s->drv->refs_open(s, &w->refs) == MR_OK;
}

static void sweep_work(struct mr_job *j, void *worker)
{
  struct sweep *w = MR_OF(j, struct sweep, job);
  struct dirent *e = NULL;

  if (!w->top && !sweep_begin(w)) goto over;
  while (!atomic_load(&w->blobs->closing) && (e = readdir(w->top)) != NULL && e->d_name[0] == '.')
    continue;
  if (e && !atomic_load(&w->blobs->closing)) {
    sweep_shard(w, e->d_name);
    return;
  }
over:
  w->over = true;
  if (w->refs) w->blobs->store->drv->refs_close(w->refs);
  w->refs = NULL;
  if (w->top) closedir(w->top);
  w->top = NULL;
}

static void sweep_done(struct mr_job *j)
{
  struct sweep *w = MR_OF(j, struct sweep, job);

  if (!w->over && w->blobs->pool && mr_pool_submit(w->blobs->pool, &w->job) == MR_OK) return;
  if (!w->over) { /* closing: the rest is for the next start */
    atomic_store(&w->blobs->closing, true);
    sweep_work(&w->job, NULL);
  }
  w->blobs->swept = true;
  if (w->deleted)
    mr_log(w->blobs->store->sys, MR_LOG_INFO, "store", "removed %d files that nothing refers to", w->deleted);
  mr_mem_free(w->mem, w);
}

void mr_blobs_sweep(struct mr_blobs *b, int age_s)
{
  struct sweep *w = mr_mem_zalloc(b->store->mem, sizeof *w);

  if (!w) return;
  w->blobs = b;
  w->mem = b->store->mem;
  w->before = time(NULL) - age_s;
  w->job.work = sweep_work;
  w->job.done = sweep_done;
  if (mr_pool_submit(b->pool, &w->job) != MR_OK) mr_mem_free(w->mem, w);
}
