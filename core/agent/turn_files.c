/*
 * turn_files.c - files in the messages of a model request: blocks that refer to one ({"type":"file"}) are sent with its
 * bytes, as no model's service knows our ids. Images and PDFs go as base64, texts as text; a file that cannot be given
 * (it is gone, too large, not what it says) is a line of text that says so.
 *
 * This is the last step before a request is sent: hooks, the grader and the log see references. What was made of a
 * message of the history is kept beside it and sent again byte for byte; since files never change, and what fits
 * depends only on the messages before, it would be the same after a restart. Files are read one after the other, off
 * the loop, a message's at a time. A read that fails is no reason to say that a file is gone: the request is tried again.
 * Loop thread.
 */
#include "agent/content.h"
#include "agent/turn_model_t.h"

struct hole { /* a block that refers to a file */
  yyjson_val *block;
  struct mr_str text; /* what is sent in its place; the run's */
};

struct mr_fill {
  struct mr_model_run *r;
  struct mr_str *messages; /* as they are to be sent; those before at are */
  int at;
  size_t bytes;    /* of those before at */
  yyjson_doc *doc; /* of the message at at, while its files are read */
  struct hole *holes;
  int nholes, hole;
  size_t filled; /* bytes of this message so far */
  struct mr_file_ref file;
  yyjson_doc *file_doc;
  bool waits; /* for the store */
};

static void go_on(struct mr_fill *f);

bool mr_fill_waits(const struct mr_fill *f)
{
  return f && f->waits;
}

void mr_fill_free(struct mr_fill *f)
{
  if (!f) return;
  yyjson_doc_free(f->doc);
  yyjson_doc_free(f->file_doc);
  mr_mem_free(f->r->th->s->d->mem, f);
}

/* A read came back: may it go on? */
static bool back(struct mr_fill *f)
{
  f->waits = false;
  if (f->r->dropped || f->r->th->s->d->draining) {
    mr_run_free(f->r); /* a drain leaves it to the next start */
    return false;
  }
  return true;
}

/* ---- one block ---- */

static bool is_document(const struct mr_fill *f)
{
  return mr_str_is(mr_json_get_str(f->holes[f->hole].block, "type"), "document");
}

/* The block is done: b is what is sent for it, and is freed. */
static void filled(struct mr_fill *f, struct mr_buf *b)
{
  struct mr_model_run *r = f->r;
  struct hole *h = &f->holes[f->hole];

  h->text = b->failed ? mr_str_n(NULL, 0) : mr_arena_str(r->arena, mr_buf_get(b));
  mr_buf_free(b);
  yyjson_doc_free(f->file_doc);
  f->file_doc = NULL;
  if (!h->text.p) {
    mr_run_failed(r, MR_S("out of memory for the files of the conversation"));
    return;
  }
  f->filled += h->text.n;
  f->hole++;
  go_on(f);
}

static void note(struct mr_fill *f, const char *why)
{
  yyjson_val *block = f->holes[f->hole].block;
  struct mr_buf b, text;

  mr_buf_init(&text, f->r->th->s->d->mem, SIZE_MAX / 2);
  mr_buf_printf(&text, "[The " MR_FMT " from the file " MR_FMT " is not shown: %s.]",
                MR_ARG(mr_json_get_str(block, "type")), MR_ARG(mr_content_file(block)), why);
  mr_buf_init(&b, f->r->th->s->d->mem, SIZE_MAX / 2);
  mr_buf_c(&b, "{\"text\":");
  mr_json_quote(&b, mr_buf_get(&text));
  mr_buf_c(&b, ",\"type\":\"text\"}");
  if (text.failed) b.failed = text.failed;
  mr_buf_free(&text);
  filled(f, &b);
}

static void with_base64(struct mr_fill *f, const char *media_type, struct mr_str bytes)
{
  const struct mr_mem *m = f->r->th->s->d->mem;
  char *text = mr_mem_alloc(m, (bytes.n + 2) / 3 * 4 + 1);
  struct mr_buf source, b;

  mr_buf_init(&source, m, SIZE_MAX / 2);
  mr_buf_init(&b, m, SIZE_MAX / 2);
  if (text) {
    mr_buf_c(&source, "{\"data\":\"");
    mr_buf_str(&source, mr_str_n(text, mr_base64_encode(bytes, text)));
    mr_buf_printf(&source, "\",\"media_type\":\"%s\",\"type\":\"base64\"}", media_type);
    mr_content_sourced(&b, f->holes[f->hole].block, mr_buf_get(&source));
  }
  if (!text || source.failed) b.failed = MR_E_NOMEM;
  mr_mem_free(m, text);
  mr_buf_free(&source);
  filled(f, &b);
}

static void with_text(struct mr_fill *f, struct mr_str bytes)
{
  const struct mr_mem *m = f->r->th->s->d->mem;
  struct mr_buf source, b;

  mr_buf_init(&source, m, SIZE_MAX / 2);
  mr_buf_init(&b, m, SIZE_MAX / 2);
  mr_content_text_source(&source, bytes);
  if (f->bytes + f->filled + source.n > MR_MESSAGES_MAX) {
    mr_buf_free(&source);
    note(f, "the conversation would become too large");
    return;
  }
  mr_content_sourced(&b, f->holes[f->hole].block, mr_buf_get(&source));
  if (source.failed) b.failed = source.failed;
  mr_buf_free(&source);
  filled(f, &b);
}

static void on_bytes(void *ud, int code, struct mr_str bytes)
{
  struct mr_fill *f = ud;
  const char *image = mr_media_image(bytes);
  struct mr_str body = bytes;

  if (!back(f)) return;
  if (code == MR_E_NOTFOUND)
    note(f, "there is no such file, or no longer");
  else if (code != MR_OK)
    mr_run_failed(f->r, MR_S("a file of the conversation could not be read"));
  else if ((int64_t)bytes.n < f->file.size)
    mr_run_failed(f->r, MR_S("a file of the conversation could not be read to its end"));
  else if (!is_document(f) && image)
    with_base64(f, image, bytes);
  else if (!is_document(f))
    note(f, "its bytes are no PNG, JPEG, GIF or WebP image");
  else if (mr_media_of(f->file.media_type) == MR_MEDIA_PDF && mr_media_pdf(bytes))
    with_base64(f, "application/pdf", bytes);
  else if (mr_media_of(f->file.media_type) == MR_MEDIA_PDF)
    note(f, "its bytes are no PDF");
  else if (!mr_utf8_valid(bytes) || memchr(bytes.n ? bytes.p : "", 0, bytes.n))
    note(f, "it is no text in UTF-8");
  else if (!mr_str_trim(body).n)
    note(f, "it is empty");
  else
    with_text(f, bytes);
}

/* Why the file of the present block cannot be given, or NULL. */
static const char *unfit(const struct mr_fill *f)
{
  enum mr_media media = mr_media_of(f->file.media_type);
  int64_t size = f->file.size, as_sent = media == MR_MEDIA_TEXT ? size : (size + 2) / 3 * 4;

  if (!is_document(f) && media != MR_MEDIA_IMAGE) return "it is no PNG, JPEG, GIF or WebP image";
  if (!is_document(f) && size > MR_IMAGE_MAX) return "the image is larger than 3932160 bytes";
  if (is_document(f) && media != MR_MEDIA_PDF && media != MR_MEDIA_TEXT) return "it is no PDF and no text";
  if (as_sent > MR_SOURCE_MAX) return "it is too large for a model";
  if ((int64_t)(f->bytes + f->filled) + as_sent > MR_MESSAGES_MAX)
    return "the conversation would become too large";
  return NULL;
}

static void on_file(void *ud, const struct mr_rows *rows)
{
  struct mr_fill *f = ud;
  struct mr_session *s = f->r->th->s;
  const char *why;
  int code = rows->code;

  if (!back(f)) return;
  if (code == MR_OK) code = mr_file_ref_read(s->d, rows->docs[0].body, mr_str_c(s->id), &f->file, &f->file_doc);
  if (code == MR_E_NOTFOUND) {
    note(f, "there is no such file, or no longer");
  } else if (code != MR_OK) {
    mr_run_failed(f->r, MR_S("a file of the conversation could not be read"));
  } else if ((why = unfit(f))) {
    note(f, why);
  } else {
    f->waits = true;
    mr_blob_read(s->d->store, f->file.id, 0, (size_t)f->file.size, on_bytes, f);
  }
}

/* ---- one message ---- */

/* The blocks of a list that refer to files, and those of the results in it; holes NULL: only counts. */
static int find(yyjson_val *list, struct hole *holes)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *b;
  int n = 0;

  while (yyjson_is_arr(list) && (b = yyjson_arr_iter_next(&it))) {
    if (mr_content_file(b).n) {
      if (holes) holes[n].block = b;
      n++;
    } else if (mr_str_is(mr_json_get_str(b, "type"), "tool_result")) {
      n += find(mr_json_get(b, "content"), holes ? holes + n : NULL);
    }
  }
  return n;
}

static void write_list(const struct mr_fill *f, yyjson_val *list, int *hole, struct mr_jw *w);

/* A block as it was, but for the files in it, which come in the order in which they were found. */
static void write_block(const struct mr_fill *f, yyjson_val *b, int *hole, struct mr_jw *w)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(b);
  yyjson_val *k, *v;

  if (*hole < f->nholes && f->holes[*hole].block == b) {
    mr_jw_raw(w, f->holes[(*hole)++].text);
  } else if (!mr_str_is(mr_json_get_str(b, "type"), "tool_result")) {
    mr_jw_val(w, b);
  } else {
    mr_jw_obj(w);
    while ((k = yyjson_obj_iter_next(&it))) {
      v = yyjson_obj_iter_get_val(k);
      if (yyjson_equals_str(k, "content") && yyjson_is_arr(v)) {
        mr_jw_key(w, "content");
        write_list(f, v, hole, w);
      } else {
        mr_jw_kval(w, yyjson_get_str(k), v);
      }
    }
    mr_jw_obj_end(w);
  }
}

static void write_list(const struct mr_fill *f, yyjson_val *list, int *hole, struct mr_jw *w)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *b;

  mr_jw_arr(w);
  while ((b = yyjson_arr_iter_next(&it)))
    write_block(f, b, hole, w);
  mr_jw_arr_end(w);
}

/* The message with its files; p NULL: no memory. In a, which lives as long as the message is sent. */
static struct mr_str assemble(const struct mr_fill *f, struct mr_arena *a)
{
  yyjson_val *root = yyjson_doc_get_root(f->doc), *k;
  yyjson_obj_iter it = yyjson_obj_iter_with(root);
  struct mr_str text;
  struct mr_buf b;
  struct mr_jw w;
  int hole = 0;

  mr_buf_init(&b, f->r->th->s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  while ((k = yyjson_obj_iter_next(&it))) {
    if (yyjson_equals_str(k, "content")) {
      mr_jw_key(&w, "content");
      write_list(f, yyjson_obj_iter_get_val(k), &hole, &w);
    } else {
      mr_jw_kval(&w, yyjson_get_str(k), yyjson_obj_iter_get_val(k));
    }
  }
  mr_jw_obj_end(&w);
  text = b.failed ? mr_str_n(NULL, 0) : mr_arena_str(a, mr_buf_get(&b));
  mr_buf_free(&b);
  return text;
}

/* Is the message one of the history, not one that a hook made? */
static bool of_history(const struct mr_fill *f)
{
  const struct mr_thread *th = f->r->th;
  return f->at < th->nhistory && f->messages[f->at].p == th->history[f->at].p;
}

/* Parses the message if files may be in it. */
static int look(struct mr_fill *f)
{
  struct mr_session *s = f->r->th->s;
  struct mr_str text = f->messages[f->at];
  yyjson_val *root;

  f->nholes = f->hole = 0;
  f->filled = 0;
  if (!mr_content_names_file(text)) return MR_OK;
  if (mr_json_parse(s->d->mem, text, SIZE_MAX, &f->doc, NULL) != MR_OK) return MR_E_NOMEM;
  root = yyjson_doc_get_root(f->doc);
  if (mr_str_is(mr_json_get_str(root, "role"), "user")) f->nholes = find(mr_json_get(root, "content"), NULL);
  if (f->nholes == 0) {
    yyjson_doc_free(f->doc);
    f->doc = NULL;
    return MR_OK;
  }
  f->holes = mr_arena_alloc(f->r->arena, (size_t)f->nholes * sizeof *f->holes);
  if (!f->holes) return MR_E_NOMEM;
  find(mr_json_get(root, "content"), f->holes);
  f->filled = text.n;
  return MR_OK;
}

/* The message at at is as it is to be sent. */
static int next(struct mr_fill *f)
{
  struct mr_thread *th = f->r->th;
  bool keep = of_history(f);
  struct mr_str text = f->messages[f->at];

  if (f->doc) {
    text = assemble(f, keep ? th->s->mem : f->r->arena);
    yyjson_doc_free(f->doc);
    f->doc = NULL;
    if (!text.p) return MR_E_NOMEM;
  }
  if (keep && f->at < th->nsent) th->sent[f->at] = text;
  f->messages[f->at++] = text;
  f->bytes += text.n;
  return MR_OK;
}

/* ---- the request ---- */

static void go_on(struct mr_fill *f)
{
  struct mr_model_run *r = f->r;
  struct mr_thread *th = r->th;
  int code = MR_OK;

  while (code == MR_OK && f->at < r->req.nmessages) {
    if (!f->doc && of_history(f) && f->at < th->nsent && th->sent[f->at].p) {
      f->messages[f->at] = th->sent[f->at];
      f->bytes += f->messages[f->at++].n;
      continue;
    }
    if (!f->doc) code = look(f);
    if (code == MR_OK && f->hole < f->nholes) {
      f->waits = true;
      mr_read_doc(th->s->d->store, th->s->ws, MR_S("file"), mr_content_file(f->holes[f->hole].block), on_file,
                  f);
      return;
    }
    if (code == MR_OK) code = next(f);
  }
  if (code != MR_OK) {
    mr_err_nomem(&r->err);
    mr_ready_post(th->s->d->loop, &r->ready);
    return;
  }
  r->req.messages = f->messages;
  r->req.pieces = NULL;
  mr_run_start(r);
}

/* A place for each message of the history as it is sent. */
static bool sent_room(struct mr_thread *th)
{
  struct mr_str *v;

  if (th->nsent >= th->nhistory) return true;
  v = mr_mem_realloc(th->s->d->mem, th->sent, (size_t)th->nhistory * sizeof *v);
  if (!v) return false;
  memset(v + th->nsent, 0, (size_t)(th->nhistory - th->nsent) * sizeof *v);
  th->sent = v;
  th->nsent = th->nhistory;
  return true;
}

void mr_run_send(struct mr_model_run *r)
{
  struct mr_session *s = r->th->s;
  size_t n = (size_t)r->req.nmessages * sizeof *r->req.messages;
  struct mr_fill *f;

  if (!r->th->with_files && r->req.messages == r->th->history) { /* the usual case */
    mr_run_start(r);
    return;
  }
  f = mr_mem_zalloc(s->d->mem, sizeof *f);
  r->fill = f;
  if (f) f->messages = mr_arena_alloc(r->arena, n + 1);
  if (!f || !f->messages || !sent_room(r->th)) {
    mr_err_nomem(&r->err);
    mr_ready_post(s->d->loop, &r->ready);
    return;
  }
  f->r = r;
  memcpy(f->messages, r->req.messages, n);
  go_on(f);
}
