/*
 * blobs_mem.c - the blobs of a memory store: a list of buffers. Not for many or large blobs: each is
 * bounded (MR_BLOB_MEM_MAX), all of them together too (MR_BLOB_MEM_ALL), and a look-up walks the list;
 * memory stores are for tests and short-lived hosts.
 *
 * Invariant: a blob's bytes never change once it is in the list. Loop thread alone.
 */
#include "store/blobs_t.h"

struct mr_blob_mem *mr_blob_mem_find(struct mr_blobs *b, struct mr_str id)
{
  for (struct mr_blob_mem *m = b->mem; m; m = m->next)
    if (mr_str_is(id, m->id)) return m;
  return NULL;
}

int mr_blob_mem_add(struct mr_blobs *b, struct mr_str id, char **p, size_t n, struct mr_err *err)
{
  struct mr_blob_mem *m;

  if (mr_blob_mem_find(b, id)) return mr_err_set(err, MR_E_CONFLICT, NULL, "blob exists already");
  if (n > MR_BLOB_MEM_MAX)
    return mr_err_set(err, MR_E_TOO_LARGE, NULL, "blobs of a memory store have at most %d bytes",
                      (int)MR_BLOB_MEM_MAX);
  if (b->mem_bytes + n > MR_BLOB_MEM_ALL)
    return mr_err_set(err, MR_E_UNAVAILABLE, NULL, "the memory store's room for blobs is used up");
  m = mr_mem_zalloc(b->store->mem, sizeof *m);
  if (!m) return mr_err_nomem(err);
  memcpy(m->id, id.p, id.n);
  m->p = *p;
  m->n = n;
  m->next = b->mem;
  b->mem = m;
  b->mem_bytes += n;
  *p = NULL;
  return MR_OK;
}

void mr_blob_mem_delete(struct mr_blobs *b, struct mr_str id)
{
  struct mr_blob_mem **at = &b->mem, *m;

  while (*at && !mr_str_is(id, (*at)->id))
    at = &(*at)->next;
  m = *at;
  if (!m) return;
  *at = m->next;
  b->mem_bytes -= m->n;
  mr_mem_free(b->store->mem, m->p);
  mr_mem_free(b->store->mem, m);
}
