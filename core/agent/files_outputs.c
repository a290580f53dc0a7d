/*
 * files_outputs.c - what a session wrote below its outputs directory becomes files of its scope. A pool thread
 * walks the directory (outputs.c) and hashes; content that is known under its path keeps its file, new content gets a new one.
 * The document's name is "<sha256> <path>", so that one look-up finds what is known.
 */
#include "agent/files.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <unistd.h>

enum { FILES_MAX = 1000, PIECE = 64 << 10 };
static const int64_t BYTES_MAX = INT64_C(2) << 30;

struct found {
  struct mr_str path;
  char sha256[65];
  int64_t size;
};

struct harvest {
  struct mr_job job;
  struct mr_domain *d;
  struct mr_arena *arena; /* of this job */
  int64_t ws;
  char session_id[MR_ID_LEN], root[4096];
  void (*fn)(void *ud, int code);
  void *ud;
  struct found *v;
  int n, at;
  int64_t bytes;
  int code;
  int fd; /* of the file being stored */
  char file_id[MR_ID_MAX];
  struct mr_blob_writer *blob;
};

/* ---- pool thread ---- */

static int hash_fd(int fd, char out[65])
{
  unsigned char sum[32], piece[4096];
  unsigned len = sizeof sum;
  EVP_MD_CTX *ctx = EVP_MD_CTX_new();
  ssize_t n = 0;

  if (!ctx || !EVP_DigestInit_ex(ctx, EVP_sha256(), NULL)) {
    EVP_MD_CTX_free(ctx);
    return -1;
  }
  while ((n = read(fd, piece, sizeof piece)) > 0)
    EVP_DigestUpdate(ctx, piece, (size_t)n);
  EVP_DigestFinal_ex(ctx, sum, &len);
  EVP_MD_CTX_free(ctx);
  for (int i = 0; i < 32; i++)
    snprintf(out + 2 * i, 3, "%02x", sum[i]);
  return n < 0 ? -1 : 0;
}

static bool add_file(void *ud, const char *path, int fd, int64_t size)
{
  struct harvest *h = ud;
  struct found *f = &h->v[h->n];

  if (h->bytes + size <= BYTES_MAX && hash_fd(fd, f->sha256) == 0) {
    f->path = mr_arena_str(h->arena, mr_str_c(path));
    f->size = size;
    h->bytes += size;
    h->n += f->path.p != NULL;
  }
  return h->n < FILES_MAX;
}

static void work(struct mr_job *j, void *worker)
{
  struct harvest *h = MR_OF(j, struct harvest, job);

  (void)worker;
  mr_outputs_walk(h->root, add_file, h);
}

/* ---- loop thread: one file after the other ---- */

static void store_next(struct harvest *h);

static void harvest_end(struct harvest *h, int code)
{
  const struct mr_mem *mem = h->d->mem;

  h->fn(h->ud, code);
  if (h->fd >= 0) close(h->fd);
  mr_blob_abort(&h->blob);
  mr_arena_free(&h->arena);
  mr_mem_free(mem, h);
}

static void on_stored(void *ud, const struct mr_commit_result *r)
{
  struct harvest *h = ud;

  if (r->code != MR_OK) {
    mr_blob_delete(h->d->store, mr_str_c(h->file_id));
    harvest_end(h, r->code);
    return;
  }
  h->at++;
  store_next(h);
}

static const char *media_of(struct mr_str name)
{
  static const char *const types[][2] = {
      {".txt", "text/plain"},        {".md", "text/markdown"}, {".csv", "text/csv"},
      {".json", "application/json"}, {".html", "text/html"},   {".pdf", "application/pdf"},
      {".png", "image/png"},         {".jpg", "image/jpeg"},   {".xml", "application/xml"}};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (mr_str_ends(name, mr_str_c(types[i][0]))) return types[i][1];
  return "application/octet-stream";
}

/* The base name, or, when two files share it, the whole path with "/" as "_". */
static struct mr_str file_name(struct harvest *h, const struct found *f)
{
  struct mr_str rest = f->path, base = rest, other;
  char *flat;

  while (rest.p)
    base = mr_str_split(&rest, '/');
  for (int i = 0; i < h->n; i++) {
    if (&h->v[i] == f) continue;
    for (rest = h->v[i].path, other = rest; rest.p;)
      other = mr_str_split(&rest, '/');
    if (!mr_str_eq(other, base)) continue;
    flat = mr_arena_printf(h->arena, MR_FMT, MR_ARG(f->path));
    for (char *p = flat; p && *p; p++)
      if (*p == '/') *p = '_';
    return mr_str_c(flat);
  }
  return base;
}

static struct mr_str known_name(struct harvest *h, const struct found *f)
{
  return mr_str_c(mr_arena_printf(h->arena, "%s " MR_FMT, f->sha256, MR_ARG(f->path)));
}

static void on_blob(void *ud, int code, int64_t size, const char *sha256, const struct mr_err *err)
{
  struct harvest *h = ud;
  struct found *f = &h->v[h->at];
  struct mr_origin who = {.workspace = h->ws};
  struct mr_file file = {
      .id = mr_str_c(h->file_id), .size = size, .downloadable = true, .session_id = mr_str_c(h->session_id)};
  struct mr_doc_row row = {.kind = MR_S("file"), .id = file.id, .parent = file.session_id, .rev = 1};
  struct mr_commit *cm = code == MR_OK ? mr_commit_new(h->d->store, &who) : NULL;
  struct mr_buf b;

  (void)err;
  if (!cm) {
    harvest_end(h, code ? code : MR_E_NOMEM);
    return;
  }
  snprintf(f->sha256, sizeof f->sha256, "%s", sha256); /* what was stored, if it changed meanwhile */
  file.filename = file_name(h, f);
  file.mime_type = mr_str_c(media_of(file.filename));
  file.created_us = row.created_us = row.updated_us = mr_loop_wall_us(h->d->loop);
  row.name = known_name(h, f);
  mr_buf_init(&b, h->d->mem, 1 << 16);
  mr_file_write(&b, &file);
  row.body = mr_buf_get(&b);
  mr_commit_doc_put(cm, &row, 0);
  mr_commit_submit(&cm, on_stored, h);
  mr_buf_free(&b);
}

/* Hands the file to the blob writer piece by piece, pausing when that has enough. */
static void pump_file(void *ud)
{
  struct harvest *h = ud;
  char *piece = mr_mem_alloc(h->d->mem, PIECE);
  ssize_t n = piece ? 1 : -1;
  int code = MR_OK;

  while (n > 0 && code == MR_OK) {
    n = read(h->fd, piece, PIECE);
    if (n > 0) code = mr_blob_write(h->blob, mr_str_n(piece, (size_t)n), pump_file, h);
  }
  mr_mem_free(h->d->mem, piece);
  if (n > 0 && code == MR_MORE) return;
  close(h->fd);
  h->fd = -1;
  if (n < 0 || code < 0)
    harvest_end(h, code < 0 ? code : MR_E_IO);
  else
    mr_blob_finish(&h->blob, on_blob, h);
}

static void on_known(void *ud, const struct mr_rows *r)
{
  struct harvest *h = ud;
  struct found *f = &h->v[h->at];
  int root;

  for (int i = 0; i < r->n; i++)
    if (mr_str_is(r->docs[i].parent, h->session_id)) {
      h->at++;
      store_next(h);
      return;
    }
  root = open(h->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  h->fd = root >= 0 ? mr_outputs_open(root, f->path.p, O_RDONLY | O_NONBLOCK | O_NOFOLLOW) : -1;
  if (root >= 0) close(root);
  if (h->fd < 0 || mr_id_make(h->d->sys, h->file_id, "file") != MR_OK ||
      mr_blob_begin(h->d->store, mr_str_c(h->file_id), &h->blob, NULL) != MR_OK) {
    h->at++; /* gone since it was seen: the next list has what is there then */
    if (h->fd >= 0) close(h->fd);
    h->fd = -1;
    store_next(h);
    return;
  }
  pump_file(h);
}

static void store_next(struct harvest *h)
{
  if (h->at == h->n)
    harvest_end(h, h->code);
  else
    mr_read_doc_named(h->d->store, h->ws, MR_S("file"), known_name(h, &h->v[h->at]), 50, on_known, h);
}

static void walked(struct mr_job *j)
{
  store_next(MR_OF(j, struct harvest, job));
}

void mr_files_harvest(struct mr_domain *d, int64_t ws, struct mr_str session_id, void (*fn)(void *ud, int code),
                      void *ud)
{
  struct harvest *h = d->sandbox ? mr_mem_zalloc(d->mem, sizeof *h) : NULL;

  if (!h) {
    fn(ud, d->sandbox ? MR_E_NOMEM : MR_OK);
    return;
  }
  h->d = d;
  h->fd = -1;
  h->fn = fn;
  h->ud = ud;
  h->ws = ws;
  snprintf(h->session_id, sizeof h->session_id, MR_FMT, MR_ARG(session_id));
  h->arena = mr_arena_new(d->mem, 4096);
  h->v = h->arena ? mr_arena_alloc(h->arena, (FILES_MAX + 1) * sizeof *h->v) : NULL;
  h->job.work = work;
  h->job.done = walked;
  if (!h->v || mr_sandbox_outputs_path(d->sandbox, h->session_id, h->root) != MR_OK ||
      mr_pool_submit(d->pool, &h->job) != MR_OK)
    harvest_end(h, MR_E_UNAVAILABLE);
}
