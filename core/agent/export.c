/*
 * export.c - GET /moonrig/v1/sessions/{id}/export: a session as one file, see transfer_t.h. It is written while the
 * log is read, page by page, as fast as the reader takes it; memory does not grow with the session. The session may
 * run on: what is exported is its log up to the position that was the last one when the export began.
 *
 * The files in the session's sandbox are packed before that, while what runs there is frozen; so they may be of a
 * moment before the last rows. They are read from a file without a name, piece by piece as the others.
 *
 * Inputs that wait are read before that position is: one that is taken in between is then in both, and left out here
 * by its id. Failures after the head cut the body off, and a file without its last line is no export. Loop thread.
 */
#include "agent/transfer_t.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 500 };

struct exporter {
  struct mr_call *c;
  struct mr_str session; /* the wire object */
  struct mr_str primary;
  struct mr_str *inbox_ids, *inbox;
  bool *taken;
  int ninbox;
  int64_t last, after, rows;
  struct mr_doc_row *files;
  int nfiles, at;
  int64_t offset, size; /* of the file at hand */
  char *text;           /* base64 of a piece */
  struct mr_buf b;
  struct mr_sandbox_keep *keep;
  int space; /* the workspace's archive, or -1 */
  int64_t space_size;
  EVP_MD_CTX *sha;
  void (*next)(struct exporter *p);
  bool reading, stopped, more;
};

static void end(struct exporter *p, int code, const char *why)
{
  struct mr_call *c = p->c;

  c->out_drained = NULL;
  c->cancel = NULL;
  mr_sandbox_keep_free(&p->keep);
  if (p->space >= 0) close(p->space);
  EVP_MD_CTX_free(p->sha);
  mr_mem_free(c->mem, p->text);
  mr_buf_free(&p->b);
  if (code == MR_OK)
    mr_call_done(c, MR_OK);
  else
    mr_call_fail(c, code, NULL, "%s", why);
}

/* Hands on what was written, and goes on with next once the reader wants more. */
static void flush(struct exporter *p, void (*next)(struct exporter *p))
{
  struct mr_str text = mr_buf_get(&p->b);
  int r;

  p->next = next;
  if (p->b.failed) {
    end(p, MR_E_NOMEM, "out of memory");
    return;
  }
  EVP_DigestUpdate(p->sha, text.p ? text.p : "", text.n);
  r = text.n ? p->c->out_bytes(p->c, text) : MR_OK;
  mr_buf_reset(&p->b);
  if (p->stopped || r == MR_E_CLOSED)
    end(p, MR_E_CANCELLED, "the reader is gone");
  else if (r != MR_MORE) {
    p->next = NULL;
    next(p);
  }
}

static void out_drained(struct mr_call *c)
{
  struct exporter *p = c->priv;
  void (*next)(struct exporter *) = p->next;

  if (p->reading || !next) return;
  p->next = NULL;
  next(p);
}

static void cancel(struct mr_call *c)
{
  struct exporter *p = c->priv;

  p->stopped = true;
  if (p->keep) p->reading = false; /* not waited for */
  mr_sandbox_keep_free(&p->keep);
  if (!p->reading) end(p, MR_E_CANCELLED, "the reader is gone");
}

/* A read came back: may it go on? */
static bool came(struct exporter *p, int code, const struct mr_err *err)
{
  p->reading = false;
  if (p->stopped)
    end(p, MR_E_CANCELLED, "the reader is gone");
  else if (code != MR_OK)
    end(p, code, err ? err->message : "the session could not be read to its end");
  return !p->stopped && code == MR_OK;
}

/* ---- the end ---- */

static void last_line(struct exporter *p)
{
  unsigned char sum[EVP_MAX_MD_SIZE];
  unsigned n = 0;

  EVP_DigestFinal_ex(p->sha, sum, &n);
  mr_buf_printf(&p->b, "{\"row\":\"end\",\"rows\":%lld,\"sha256\":\"", (long long)p->rows);
  for (unsigned i = 0; i < n; i++)
    mr_buf_printf(&p->b, "%02x", sum[i]);
  mr_buf_c(&p->b, "\"}\n");
  if (!p->b.failed && p->c->out_bytes(p->c, mr_buf_get(&p->b)) != MR_E_CLOSED)
    end(p, MR_OK, NULL);
  else
    end(p, MR_E_CANCELLED, "the reader is gone");
}

/* A body is one line as it was written; one with a line's end in it is written again. */
static void body(struct exporter *p, struct mr_str text)
{
  yyjson_doc *doc = NULL;

  mr_buf_c(&p->b, "\"body\":");
  if (!memchr(text.p ? text.p : "", '\n', text.n)) {
    mr_buf_str(&p->b, text);
  } else if (mr_json_parse(p->c->mem, text, SIZE_MAX, &doc, NULL) == MR_OK) {
    mr_json_write(&p->b, yyjson_doc_get_root(doc), false);
    yyjson_doc_free(doc);
  }
  mr_buf_c(&p->b, "}\n");
}

static void inbox_lines(struct exporter *p)
{
  for (int i = 0; i < p->ninbox; i++) {
    if (p->taken[i]) continue;
    mr_buf_c(&p->b, "{\"row\":\"inbox\",");
    body(p, p->inbox[i]);
  }
  flush(p, last_line);
}

/* ---- rows ---- */

static void next_rows(struct exporter *p);

static void row_line(struct exporter *p, const struct mr_log_row *r)
{
  bool wire = r->kind == MR_ROW_WIRE;

  mr_buf_printf(&p->b, "{\"row\":\"%s\",\"at\":%lld,", wire ? "wire" : "private", (long long)r->processed_us);
  if (r->thread_id.n) mr_buf_printf(&p->b, "\"thread\":\"" MR_FMT "\",", MR_ARG(r->thread_id));
  if (!wire) {
    mr_buf_printf(&p->b, "\"format\":%d,\"type\":\"" MR_FMT "\",", r->format, MR_ARG(r->type));
    if (r->event_id.n) mr_buf_printf(&p->b, "\"id\":\"" MR_FMT "\",", MR_ARG(r->event_id));
  }
  body(p, r->body);
  p->rows++;
  for (int i = 0; wire && i < p->ninbox; i++)
    p->taken[i] = p->taken[i] || mr_str_eq(p->inbox_ids[i], r->event_id);
}

static void on_rows(void *ud, const struct mr_rows *r)
{
  struct exporter *p = ud;

  if (!came(p, r->code, r->err)) return;
  p->more = r->more;
  for (int i = 0; i < r->n; i++) {
    if (r->log[i].pos > p->last) break;
    row_line(p, &r->log[i]);
    p->after = r->log[i].pos;
  }
  if (p->after < p->last && !r->more)
    end(p, MR_E_NOTFOUND, "the session was deleted meanwhile");
  else
    flush(p, next_rows);
}

static void next_rows(struct exporter *p)
{
  struct mr_log_query q = {.session_id = p->c->path[0],
                           .all_threads = true,
                           .with_private = true,
                           .after_pos = p->after,
                           .limit = PAGE};

  if (p->after >= p->last) {
    inbox_lines(p);
    return;
  }
  p->reading = true;
  mr_read_log(p->c->d->store, p->c->who.workspace, &q, on_rows, p);
}

/* ---- the workspace ---- */

struct piece_job {
  struct mr_job job;
  struct exporter *p;
  const struct mr_mem *mem;
  int fd;
  int64_t offset;
  size_t n;
  ssize_t got;
  char *bytes;
};

static void next_space(struct exporter *p);

static void read_piece(struct mr_job *job, void *worker)
{
  struct piece_job *j = MR_OF(job, struct piece_job, job);

  (void)worker;
  do
    j->got = pread(j->fd, j->bytes, j->n, j->offset);
  while (j->got < 0 && errno == EINTR);
}

static void piece_lines(struct exporter *p, struct mr_str bytes)
{
  p->offset += (int64_t)bytes.n;
  mr_buf_c(&p->b, "{\"row\":\"bytes\",\"data\":\"");
  mr_buf_add(&p->b, p->text, mr_base64_encode(bytes, p->text));
  mr_buf_c(&p->b, "\"}\n");
}

static void have_piece(struct mr_job *job)
{
  struct piece_job *j = MR_OF(job, struct piece_job, job);
  struct exporter *p = j->p;
  bool good = j->got > 0;

  if (came(p, MR_OK, NULL)) {
    if (good) piece_lines(p, mr_str_n(j->bytes, (size_t)j->got));
    if (good)
      flush(p, next_space);
    else
      end(p, MR_E_IO, "the archive of the session's files could not be read");
  }
  mr_mem_free(j->mem, j);
}

static void next_space(struct exporter *p)
{
  int64_t left = p->space_size - p->offset;
  struct piece_job *j;

  if (left <= 0) {
    next_rows(p);
    return;
  }
  j = mr_mem_zalloc(p->c->mem, sizeof *j + MR_FILE_CHUNK);
  if (j) {
    *j = (struct piece_job){
        .p = p, .mem = p->c->mem, .fd = p->space, .offset = p->offset, .bytes = (char *)(j + 1)};
    j->n = (size_t)(left < MR_FILE_CHUNK ? left : MR_FILE_CHUNK);
    j->job.work = read_piece;
    j->job.done = have_piece;
    p->reading = mr_pool_submit(p->c->d->pool, &j->job) == MR_OK;
    if (p->reading) return;
  }
  if (j) mr_mem_free(p->c->mem, j);
  end(p, MR_E_UNAVAILABLE, "too much work is waiting");
}

static void space_line(struct exporter *p)
{
  p->offset = 0;
  if (p->space >= 0)
    mr_buf_printf(&p->b, "{\"row\":\"workspace\",\"size_bytes\":%lld}\n", (long long)p->space_size);
  flush(p, next_space);
}

/* ---- files ---- */

static void next_file(struct exporter *p);
static void next_piece(struct exporter *p);

static void on_piece(void *ud, int code, struct mr_str bytes)
{
  struct exporter *p = ud;

  if (!came(p, code, NULL)) return;
  if (bytes.n == 0) {
    end(p, MR_E_INTERNAL, "a file of the session is shorter than it was");
    return;
  }
  piece_lines(p, bytes);
  flush(p, next_piece);
}

static void next_piece(struct exporter *p)
{
  int64_t left = p->size - p->offset;

  if (left <= 0) {
    p->at++;
    next_file(p);
    return;
  }
  p->reading = true;
  mr_blob_read(p->c->d->store, p->files[p->at].id, p->offset,
               (size_t)(left < MR_FILE_CHUNK ? left : MR_FILE_CHUNK), on_piece, p);
}

static void file_line(struct exporter *p, const struct mr_doc_row *f, yyjson_val *o)
{
  static const char *const same[] = {"id", "filename", "mime_type", "size_bytes", "downloadable", "created_at"};
  struct mr_str name = f->name, sha = mr_str_split(&name, ' ');
  struct mr_jw w;

  mr_jw_init(&w, &p->b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "row", "file");
  for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
    mr_jw_key(&w, same[i]);
    w.after_key = false;
    mr_json_write(&p->b, mr_json_get(o, same[i]), false);
  }
  mr_jw_kstr(&w, "name", name); /* of an output: its path below the outputs directory */
  mr_jw_kstr(&w, "sha256", sha);
  mr_jw_obj_end(&w);
  mr_buf_char(&p->b, '\n');
}

static void next_file(struct exporter *p)
{
  yyjson_doc *doc = NULL;

  if (p->at == p->nfiles) {
    space_line(p);
    return;
  }
  if (mr_json_parse(p->c->mem, p->files[p->at].body, SIZE_MAX, &doc, NULL) != MR_OK) {
    end(p, MR_E_NOMEM, "out of memory");
    return;
  }
  file_line(p, &p->files[p->at], yyjson_doc_get_root(doc));
  p->size = mr_json_get_int(yyjson_doc_get_root(doc), "size_bytes", 0);
  p->offset = 0;
  yyjson_doc_free(doc);
  flush(p, next_piece);
}

/* ---- what there is ---- */

static void begin(struct exporter *p)
{
  struct mr_call *c = p->c;
  char at[28];

  c->priv = p;
  c->out_drained = out_drained;
  c->cancel = cancel;
  mr_time_format(mr_loop_wall_us(c->d->loop), at);
  c->out_head(c, mr_str_c(mr_arena_printf(c->arena, MR_FMT ".jsonl", MR_ARG(c->path[0]))),
              MR_S("application/jsonl"), -1);
  mr_buf_printf(&p->b,
                "{\"format\":\"" MR_EXPORT_FORMAT "\",\"version\":%d,\"moonrig\":\"" MR_VERSION
                "\",\"exported_at\":\"%s\",\"primary\":\"" MR_FMT "\",\"session\":",
                p->space >= 0 ? MR_EXPORT_VERSION : 1, at, MR_ARG(p->primary));
  mr_buf_str(&p->b, p->session);
  mr_buf_c(&p->b, "}\n");
  flush(p, next_file);
}

static void on_last(void *ud, const struct mr_rows *r)
{
  struct exporter *p = ud;

  if (!came(p, r->code, r->err)) return;
  p->last = r->n ? r->log[0].pos : 0;
  begin(p);
}

static void on_inbox(void *ud, const struct mr_rows *r);

static void read_inbox(struct exporter *p)
{
  p->reading = true;
  mr_read_inbox(p->c->d->store, p->c->who.workspace, p->c->path[0], on_inbox, p);
}

static void on_packed(void *ud, const struct mr_sandbox_kept *r)
{
  struct exporter *p = ud;
  struct stat st = {0};
  int code = r->code == MR_E_NOTFOUND ? MR_OK : r->code;

  if (r->code == MR_OK) {
    p->space = r->fd;
    if (fstat(p->space, &st) != 0) code = MR_E_IO;
    p->space_size = (int64_t)st.st_size;
  }
  p->reading = false;
  mr_sandbox_keep_free(&p->keep);
  if (code == MR_OK && p->space_size > MR_EXPORT_WORKSPACE) {
    code = MR_E_TOO_LARGE;
    mr_err_set(&p->c->err, code, NULL, "they take %lld MiB, and a file of a session can hold %d",
               (long long)(p->space_size >> 20), MR_EXPORT_WORKSPACE >> 20);
  } else if (code != MR_OK) {
    mr_err_set(&p->c->err, code, NULL, "%s", r->err ? r->err->message : mr_strerror(code));
  }
  if (p->stopped) {
    end(p, MR_E_CANCELLED, "the reader is gone");
  } else if (code != MR_OK) {
    end(p, code == MR_E_TOO_LARGE ? MR_E_STATE : code,
        mr_arena_printf(p->c->arena,
                        "the session's files cannot be exported: %s; with workspace=false they are left out",
                        p->c->err.message));
  } else {
    read_inbox(p);
  }
}

/* The files in the sandbox, if there are any. */
static void pack(struct exporter *p)
{
  struct mr_call *c = p->c;
  struct mr_sandbox_keep_opts o = {
      .session_id = mr_arena_str(c->arena, c->path[0]).p, .fn = on_packed, .ud = p};

  if (!mr_json_get_bool(c->in, "workspace", true) || !mr_sandbox_can_keep(c->d->sandbox))
    read_inbox(p);
  else if (!o.session_id || mr_sandbox_checkpoint(c->d->sandbox, &o, &p->keep) != MR_OK)
    end(p, MR_E_NOMEM, "out of memory");
  else
    p->reading = true;
}

static void on_inbox(void *ud, const struct mr_rows *r)
{
  struct exporter *p = ud;
  struct mr_arena *a = p->c->arena;
  struct mr_log_query q = {
      .session_id = p->c->path[0], .all_threads = true, .with_private = true, .descending = true, .limit = 1};

  if (!came(p, r->code, r->err)) return;
  p->inbox = mr_arena_alloc(a, (size_t)(r->n + 1) * sizeof *p->inbox);
  p->inbox_ids = mr_arena_alloc(a, (size_t)(r->n + 1) * sizeof *p->inbox_ids);
  p->taken = mr_arena_alloc(a, (size_t)(r->n + 1) * sizeof *p->taken);
  for (int i = 0; p->inbox && p->inbox_ids && p->taken && i < r->n; i++) {
    p->inbox[i] = mr_arena_str(a, r->inbox[i].body);
    p->inbox_ids[i] = mr_arena_str(a, r->inbox[i].event_id);
    p->ninbox += p->inbox[i].p && p->inbox_ids[i].p;
  }
  if (p->ninbox < r->n)
    end(p, MR_E_NOMEM, "out of memory");
  else
    mr_read_log(p->c->d->store, p->c->who.workspace, &q, on_last, p);
}

static void on_files(void *ud, const struct mr_rows *r)
{
  struct exporter *p = ud;
  struct mr_arena *a = p->c->arena;

  if (!came(p, r->code, r->err)) return;
  if (r->more) {
    end(p, MR_E_STATE, "the session has too many files to be exported (at most 2,000)");
    return;
  }
  p->files = mr_arena_alloc(a, (size_t)(r->n + 1) * sizeof *p->files);
  for (int i = 0; p->files && i < r->n; i++) {
    p->files[i].id = mr_arena_str(a, r->docs[i].id);
    p->files[i].name = mr_arena_str(a, r->docs[i].name);
    p->files[i].body = mr_arena_str(a, r->docs[i].body);
    p->nfiles += p->files[i].id.p && p->files[i].name.p && p->files[i].body.p;
  }
  if (p->nfiles < r->n)
    end(p, MR_E_NOMEM, "out of memory");
  else
    pack(p);
}

static void read_files(void *ud, int code)
{
  struct exporter *p = ud;
  struct mr_doc_query q = {.kind = MR_S("file"),
                           .parent = p->c->path[0],
                           .include_archived = true,
                           .ascending = true,
                           .limit = MR_EXPORT_FILES};

  if (code != MR_OK) /* what is there is exported all the same */
    mr_log(p->c->d->sys, MR_LOG_WARN, "export", "outputs of " MR_FMT " could not be collected",
           MR_ARG(p->c->path[0]));
  mr_read_docs(p->c->d->store, p->c->who.workspace, &q, on_files, p);
}

static void on_session(void *ud, const struct mr_rows *r)
{
  struct exporter *p = ud;
  struct mr_call *c = p->c;
  yyjson_doc *head = NULL;
  int code = mr_read_check(c, r, NULL, "session", c->path[0]);

  if (code == MR_OK) code = mr_json_parse(c->mem, r->sessions[0].head, SIZE_MAX, &head, &c->err);
  if (code == MR_OK) {
    p->primary = mr_arena_str(c->arena, mr_json_get_str(yyjson_doc_get_root(head), "primary"));
    mr_session_wire(&r->sessions[0], mr_loop_wall_us(c->d->loop), &p->b);
    p->session = mr_arena_str(c->arena, mr_buf_get(&p->b));
    mr_buf_reset(&p->b);
    p->sha = EVP_MD_CTX_new();
    p->text = mr_mem_alloc(c->mem, (size_t)MR_FILE_CHUNK / 3 * 4 + 8);
    if (!p->session.n || !p->primary.p || !p->text || !p->sha ||
        EVP_DigestInit_ex(p->sha, EVP_sha256(), NULL) != 1)
      code = mr_err_nomem(&c->err);
  }
  yyjson_doc_free(head);
  if (code == MR_OK)
    mr_files_harvest(c->d, c->who.workspace, c->path[0], read_files, p);
  else
    end(p, code, c->err.message);
}

void mr_sessions_export(struct mr_call *c)
{
  struct exporter *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  p->c = c;
  p->space = -1;
  mr_buf_init(&p->b, c->mem, SIZE_MAX / 2);
  mr_read_session(c->d->store, c->who.workspace, c->path[0], on_session, p);
}
