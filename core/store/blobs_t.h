/*
 * blobs_t.h - what the blob files of this room share: the pool, the writers under way, and for memory
 * stores the blobs themselves.
 *
 * Invariant: a blob's name exists only when its bytes are complete and on the disk; until then the
 * bytes are in "<name>.tmp" beside it (no id has a dot). Loop thread, but where "pool" is said.
 */
#ifndef MR_STORE_BLOBS_T_H
#define MR_STORE_BLOBS_T_H

#include <limits.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include "store/store_t.h"

enum {
  MR_BLOB_THREADS = 2,
  MR_BLOB_JOBS_MAX = 4096,
  MR_BLOB_WAIT = 1 << 20,      /* bytes waiting from which a writer should pause */
  MR_BLOB_WAIT_MAX = 16 << 20, /* bytes that may wait at all (one write may be larger) */
  MR_BLOB_READ_MAX = 64 << 20, /* one read */
  MR_BLOB_MEM_MAX = 64 << 20,  /* one blob of a memory store */
  MR_BLOB_MEM_ALL = 512 << 20  /* all of them */
};

struct mr_blob_mem {
  struct mr_blob_mem *next;
  char id[MR_STORE_ID_MAX + 1];
  char *p;
  size_t n;
};

struct mr_blobs {
  struct mr_store *store;
  struct mr_pool *pool;           /* NULL in memory */
  struct mr_blob_writer *writers; /* under way */
  struct mr_blob_mem *mem;
  size_t mem_bytes;
  atomic_bool closing; /* pool threads look at it between files */
  bool swept;          /* the sweep of this run is over */
};

/* <dir>/blobs/<2 characters>/<id><suffix>; MR_E_INVALID for a bad id. Any thread. */
int mr_blob_name(const struct mr_store *s, struct mr_str id, const char *suffix, char out[PATH_MAX]);
/* Makes the two characters' directory of a path if it is missing; 0 or errno in place. pool. */
int mr_blob_make_shard(const struct mr_store *s, const char *path);
/* fsync of the directory that holds path. pool. */
int mr_blob_sync_dir(const char *path);

/* blobs_mem.c: the same for memory stores. */
struct mr_blob_mem *mr_blob_mem_find(struct mr_blobs *b, struct mr_str id);
int mr_blob_mem_add(struct mr_blobs *b, struct mr_str id, char **p, size_t n,
                    struct mr_err *err); /* takes *p */
void mr_blob_mem_delete(struct mr_blobs *b, struct mr_str id);

/* blobs_sweep.c */
void mr_blobs_sweep(struct mr_blobs *b, int age_s);

/* blob_write.c: at close, of writers that nobody ended. */
void mr_blob_writer_orphan(struct mr_blob_writer *w);

#endif
