/*
 * files.c - files (API: resources §9): a document for each, its bytes as a blob of the same id. Uploads and
 * downloads are streamed. A session's input is a copy of its own; what a session leaves in its outputs
 * directory becomes files of its scope (files_outputs.c).
 */
#include "agent/files.h"

#include <stdio.h>

enum { LIST_DEFAULT = 20, LIST_MAX = 1000, IDS_MAX = 100 };
static const int64_t UPLOAD_MAX = INT64_C(500) << 20;
enum { PIECE = 256 << 10 };

/* ---- the document ---- */

void mr_file_write(struct mr_buf *out, const struct mr_file *f)
{
  struct mr_jw w;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "id", f->id);
  mr_jw_kc(&w, "type", "file");
  mr_jw_kstr(&w, "filename", f->filename);
  mr_jw_kstr(&w, "mime_type", f->mime_type);
  mr_jw_kint(&w, "size_bytes", f->size);
  mr_jw_ktime(&w, "created_at", f->created_us);
  mr_jw_key(&w, "downloadable");
  mr_jw_bool(&w, f->downloadable);
  mr_jw_ktime(&w, "expires_at", f->expires_us ? f->expires_us : -1);
  mr_jw_key(&w, "scope");
  if (f->session_id.n) {
    mr_jw_obj(&w);
    mr_jw_kc(&w, "type", "session");
    mr_jw_kstr(&w, "id", f->session_id);
    mr_jw_obj_end(&w);
  } else {
    mr_jw_null(&w);
  }
  mr_jw_obj_end(&w);
}

int mr_file_name(struct mr_call *c, struct mr_str *name, struct mr_str media)
{
  struct mr_str rest = *name, part = {NULL, 0};

  while (rest.p)
    part = mr_str_split(&rest, '/');
  if (!part.n)
    part = mr_str_is(media, "text/plain")         ? MR_S("unnamed.txt")
           : mr_str_is(media, "text/csv")         ? MR_S("unnamed.csv")
           : mr_str_is(media, "application/json") ? MR_S("unnamed.json")
           : mr_str_is(media, "application/pdf")  ? MR_S("unnamed.pdf")
                                                  : MR_S("unnamed");
  for (size_t i = 0; i < part.n; i++)
    if ((unsigned char)part.p[i] < 0x20 || strchr("<>:\"|?*\\/", part.p[i]))
      return mr_err_set(&c->err, MR_E_INVALID, "filename",
                        "filename: must not hold < > : \" | ? * \\ / or control characters");
  if (!mr_utf8_valid(part) || mr_utf8_chars(part) > 255)
    return mr_err_set(&c->err, MR_E_INVALID, "filename", "filename: 1 to 255 characters of UTF-8");
  *name = mr_arena_str(c->arena, part);
  return MR_OK;
}

/* ---- upload ---- */

struct upload {
  struct mr_call *c;
  struct mr_file f;
  char id[MR_ID_MAX];
  struct mr_blob_writer *blob;
  int64_t size;
};

static void on_upload_stored(void *ud, const struct mr_commit_result *r)
{
  struct upload *u = ud;

  if (r->code != MR_OK) {
    mr_blob_delete(u->c->d->store, mr_str_c(u->id));
    mr_call_fail_err(u->c, r->err);
    return;
  }
  mr_call_done(u->c, MR_OK);
}

static void on_blob(void *ud, int code, int64_t size, const char *sha256, const struct mr_err *err)
{
  struct upload *u = ud;
  struct mr_call *c = u->c;
  struct mr_doc_row row = {.kind = MR_S("file"), .id = mr_str_c(u->id), .rev = 1};
  struct mr_commit *cm;

  if (code != MR_OK) {
    mr_call_fail_err(c, err);
    return;
  }
  u->f.id = row.id;
  u->f.size = size;
  row.created_us = row.updated_us = u->f.created_us = mr_loop_wall_us(c->d->loop);
  if (u->f.expires_us) u->f.expires_us += u->f.created_us;
  row.name = mr_str_c(mr_arena_printf(c->arena, "%s", sha256));
  mr_file_write(&c->out, &u->f);
  row.body = mr_buf_get(&c->out);
  cm = mr_commit_new(c->d->store, &c->who);
  if (!cm) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  mr_commit_doc_put(cm, &row, 0);
  mr_commit_submit(&cm, on_upload_stored, u);
}

static void on_blob_drained(void *ud)
{
  struct upload *u = ud;
  if (u->c->in_drained) u->c->in_drained(u->c);
}

static int feed(struct mr_call *c, struct mr_str bytes)
{
  struct upload *u = c->priv;

  u->size += (int64_t)bytes.n;
  if (u->size > UPLOAD_MAX)
    return mr_err_set(&c->err, MR_E_TOO_LARGE, "file", "file: over the limit of 500 MB");
  return mr_blob_write(u->blob, bytes, on_blob_drained, u);
}

static void feed_end(struct mr_call *c, int code)
{
  struct upload *u = c->priv;
  int64_t expires = mr_json_get_int(c->in, "expires_in_seconds", 0);

  c->feed = NULL;
  c->feed_end = NULL;
  if (code == MR_OK && expires && (expires < 3600 || expires > 7776000))
    code = mr_err_set(&c->err, MR_E_INVALID, "expires_in_seconds",
                      "expires_in_seconds: must be between 3600 and 7776000");
  if (code != MR_OK) {
    mr_blob_abort(&u->blob);
    mr_call_done(c, code);
    return;
  }
  u->f.expires_us = expires * 1000000;
  mr_blob_finish(&u->blob, on_blob, u);
}

void mr_files_upload(struct mr_call *c)
{
  struct upload *u = mr_arena_alloc(c->arena, sizeof *u);
  int code;

  if (!u || mr_id_make(c->d->sys, u->id, "file") != MR_OK) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  u->c = c;
  u->f.filename = mr_json_get_str(c->in, "filename");
  u->f.mime_type = mr_arena_str(c->arena, mr_json_get_str(c->in, "media_type"));
  if (!u->f.mime_type.n) u->f.mime_type = MR_S("application/octet-stream");
  code = mr_file_name(c, &u->f.filename, u->f.mime_type);
  if (code == MR_OK) code = mr_blob_begin(c->d->store, mr_str_c(u->id), &u->blob, &c->err);
  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  c->priv = u;
  c->feed = feed;
  c->feed_end = feed_end;
}

/* ---- reading ---- */

void mr_files_retrieve_metadata(struct mr_call *c)
{
  mr_doc_answer(c, "file", c->path[0]);
}

struct list {
  struct mr_call *c;
  struct mr_doc_query q;
  bool by_ids;
};

static void on_list(void *ud, const struct mr_rows *r)
{
  struct list *l = ud;
  struct mr_call *c = l->c;
  struct mr_jw w;

  if (r->code != MR_OK) {
    mr_call_fail_err(c, r->err);
    return;
  }
  mr_jw_init(&w, &c->out);
  mr_jw_obj(&w);
  mr_jw_key(&w, "data");
  mr_jw_arr(&w);
  for (int i = 0; i < r->n; i++)
    mr_jw_raw(&w, r->docs[i].body);
  mr_jw_arr_end(&w);
  mr_jw_key(&w, "next_page");
  if (r->more && !l->by_ids)
    mr_jw_str(&w, mr_page_by_time(c, false, false, r->docs[r->n - 1].created_us, r->docs[r->n - 1].id));
  else
    mr_jw_null(&w);
  mr_jw_obj_end(&w);
  mr_call_done(c, MR_OK);
}

static void read_list(void *ud, int code)
{
  struct list *l = ud;
  if (code != MR_OK) /* what is there is listed all the same */
    mr_log(l->c->d->sys, MR_LOG_WARN, "files", "outputs of " MR_FMT " could not be collected",
           MR_ARG(l->q.parent));
  mr_read_docs(l->c->d->store, l->c->who.workspace, &l->q, on_list, l);
}

static int list_ids(struct list *l, yyjson_val *ids)
{
  struct mr_call *c = l->c;
  yyjson_arr_iter it = yyjson_arr_iter_with(ids);
  struct mr_str *v = mr_arena_alloc(c->arena, (yyjson_arr_size(ids) + 1) * sizeof *v);
  yyjson_val *x;

  if (!v) return mr_err_nomem(&c->err);
  if (mr_json_get(c->in, "limit") || mr_json_get(c->in, "page"))
    return mr_err_set(&c->err, MR_E_INVALID, "ids", "ids: cannot be combined with limit or page");
  while ((x = yyjson_arr_iter_next(&it))) {
    bool seen = false;
    for (int i = 0; i < l->q.nids; i++)
      seen = seen || mr_str_eq(v[i], mr_json_str(x));
    if (!seen) v[l->q.nids++] = mr_json_str(x);
  }
  if (l->q.nids > IDS_MAX)
    return mr_err_set(&c->err, MR_E_INVALID, "ids", "ids: at most %d different ones", IDS_MAX);
  l->q.ids = v;
  l->q.limit = IDS_MAX;
  l->by_ids = true;
  return MR_OK;
}

void mr_files_list(struct mr_call *c)
{
  struct list *l = mr_arena_alloc(c->arena, sizeof *l);
  yyjson_val *ids = mr_json_get(c->in, "ids");
  struct mr_str scope = mr_json_get_str(c->in, "scope_id");
  struct mr_page page = {0};
  int code;

  if (!l) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  l->c = c;
  l->q.kind = MR_S("file");
  code = yyjson_arr_size(ids) ? list_ids(l, ids) : mr_page_read(c, LIST_DEFAULT, LIST_MAX, false, &page);
  if (code == MR_OK && scope.n && !mr_str_starts(scope, MR_S("sesn_")))
    code = mr_err_set(&c->err, MR_E_INVALID, "scope_id", "scope_id: a session id (sesn_...)");
  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  if (!l->by_ids) {
    l->q.limit = page.limit;
    l->q.after = page.cur;
  }
  l->q.parent = scope;
  if (scope.n)
    mr_files_harvest(c->d, c->who.workspace, scope, read_list, l);
  else
    read_list(l, MR_OK);
}

/* ---- download ---- */

struct download {
  struct mr_call *c;
  struct mr_str id;
  int64_t at, size;
  bool stopped, reading;
};

static void next_piece(struct download *p);

static void end_download(struct download *p, int code, const char *why)
{
  struct mr_call *c = p->c;

  c->out_drained = NULL;
  c->cancel = NULL;
  if (code == MR_OK)
    mr_call_done(c, MR_OK);
  else
    mr_call_fail(c, code, NULL, "%s", why);
}

static void on_piece(void *ud, int code, struct mr_str bytes)
{
  struct download *p = ud;
  int r;

  p->reading = false;
  if (p->stopped || code != MR_OK) {
    end_download(p, p->stopped ? MR_E_CANCELLED : code, "the file could not be read to its end");
    return;
  }
  p->at += (int64_t)bytes.n;
  r = bytes.n ? p->c->out_bytes(p->c, bytes) : MR_OK;
  if (r == MR_E_CLOSED)
    end_download(p, MR_E_CANCELLED, "the reader is gone");
  else if (p->at >= p->size || bytes.n == 0)
    end_download(p, MR_OK, NULL);
  else if (r != MR_MORE)
    next_piece(p);
}

static void next_piece(struct download *p)
{
  p->reading = true;
  mr_blob_read(p->c->d->store, p->id, p->at, PIECE, on_piece, p);
}

static void out_drained(struct mr_call *c)
{
  struct download *p = c->priv;
  if (!p->reading) next_piece(p);
}

static void stop_download(struct mr_call *c)
{
  struct download *p = c->priv;
  p->stopped = true;
  if (!p->reading) /* it waits for a reader that will not come */
    end_download(p, MR_E_CANCELLED, "the reader is gone");
}

static void on_file(void *ud, const struct mr_rows *r)
{
  struct download *p = ud;
  struct mr_call *c = p->c;
  yyjson_doc *doc = NULL;
  yyjson_val *f;
  int64_t expires = 0;
  int code = mr_read_check(c, r, NULL, "file", c->path[0]);

  if (code == MR_OK) code = mr_json_parse(c->mem, r->docs[0].body, SIZE_MAX, &doc, &c->err);
  f = yyjson_doc_get_root(doc);
  if (code == MR_OK && !mr_json_get_bool(f, "downloadable", false))
    code = mr_err_code(&c->err, MR_E_INVALID, "file_not_downloadable", NULL,
                       "file " MR_FMT " was uploaded; only files that a session made can be downloaded",
                       MR_ARG(c->path[0]));
  if (code == MR_OK && mr_time_parse(mr_json_get_str(f, "expires_at"), &expires) == MR_OK &&
      expires <= mr_loop_wall_us(c->d->loop))
    code = mr_err_code(&c->err, MR_E_NOTFOUND, "file_expired", NULL, "file " MR_FMT " has expired",
                       MR_ARG(c->path[0]));
  if (code != MR_OK) {
    mr_call_done(c, code);
  } else {
    p->size = mr_json_get_int(f, "size_bytes", 0);
    c->priv = p;
    c->out_drained = out_drained;
    c->cancel = stop_download;
    c->out_head(c, mr_json_get_str(f, "filename"), mr_json_get_str(f, "mime_type"), p->size);
    next_piece(p);
  }
  yyjson_doc_free(doc);
}

void mr_files_download(struct mr_call *c)
{
  struct download *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  p->c = c;
  p->id = c->path[0];
  mr_read_doc(c->d->store, c->who.workspace, MR_S("file"), c->path[0], on_file, p);
}

/* ---- delete ---- */

static void on_deleted(void *ud, const struct mr_commit_result *r)
{
  struct mr_call *c = ud;

  if (r->code == MR_E_CONFLICT) {
    mr_not_found(c, "file", c->path[0]);
  } else if (r->code != MR_OK) {
    mr_call_fail_err(c, r->err);
  } else {
    mr_blob_delete(c->d->store, c->path[0]);
    mr_buf_printf(&c->out, "{\"id\":\"" MR_FMT "\",\"type\":\"file_deleted\"}", MR_ARG(c->path[0]));
    mr_call_done(c, MR_OK);
  }
}

void mr_files_delete(struct mr_call *c)
{
  struct mr_commit *cm = mr_commit_new(c->d->store, &c->who);

  if (!cm) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  mr_commit_doc_delete(cm, MR_S("file"), c->path[0], -1);
  mr_commit_submit(&cm, on_deleted, c);
}

/* ---- the session's own copy ---- */

struct copy {
  struct mr_call *c;
  struct mr_str from, session_id;
  char id[MR_ID_MAX];
  struct mr_doc_row row;
  void (*fn)(struct mr_call *c, int code, const struct mr_doc_row *copy, void *ud);
  void *ud;
};

static void on_copied(void *ud, int code, const struct mr_err *err)
{
  struct copy *p = ud;
  if (code != MR_OK) mr_err_copy(&p->c->err, err);
  p->fn(p->c, code, code == MR_OK ? &p->row : NULL, p->ud);
}

static void on_source(void *ud, const struct mr_rows *r)
{
  struct copy *p = ud;
  struct mr_call *c = p->c;
  struct mr_file f = {0};
  yyjson_doc *doc = NULL;
  yyjson_val *o;
  struct mr_buf b;
  int code = mr_read_check(c, r, "resources", "file", p->from);

  if (code == MR_OK) code = mr_json_parse(c->mem, r->docs[0].body, SIZE_MAX, &doc, &c->err);
  if (code != MR_OK) {
    p->fn(c, code, NULL, p->ud);
    return;
  }
  o = yyjson_doc_get_root(doc);
  f.id = mr_str_c(p->id);
  f.filename = mr_json_get_str(o, "filename");
  f.mime_type = mr_json_get_str(o, "mime_type");
  f.size = mr_json_get_int(o, "size_bytes", 0);
  f.session_id = p->session_id;
  f.created_us = mr_loop_wall_us(c->d->loop);
  mr_buf_init(&b, c->mem, 1 << 16);
  mr_file_write(&b, &f);
  p->row = (struct mr_doc_row){.kind = MR_S("file"),
                               .id = f.id,
                               .parent = p->session_id,
                               .rev = 1,
                               .name = mr_arena_str(c->arena, r->docs[0].name),
                               .created_us = f.created_us,
                               .updated_us = f.created_us,
                               .body = mr_arena_str(c->arena, mr_buf_get(&b))};
  mr_buf_free(&b);
  yyjson_doc_free(doc);
  mr_blob_copy(c->d->store, p->from, f.id, on_copied, p);
}

void mr_files_copy_to_session(struct mr_call *c, struct mr_str file_id, struct mr_str session_id,
                              void (*fn)(struct mr_call *c, int code, const struct mr_doc_row *copy, void *ud),
                              void *ud)
{
  struct copy *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p || mr_id_make(c->d->sys, p->id, "file") != MR_OK) {
    fn(c, mr_err_nomem(&c->err), NULL, ud);
    return;
  }
  p->c = c;
  p->from = file_id;
  p->session_id = session_id;
  p->fn = fn;
  p->ud = ud;
  mr_read_doc(c->d->store, c->who.workspace, MR_S("file"), file_id, on_source, p);
}
