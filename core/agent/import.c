/*
 * import.c - POST /moonrig/v1/sessions/import: a new session from the file that export.c writes (transfer_t.h). The
 * file is read as it comes, line by line; each line is checked, then written; the session is seen by nobody until the
 * last line has proved that the file is whole. The same file again makes another session.
 *
 * Nothing runs because of an import: what was going on is closed, and messages that waited become part of the
 * history. Environment (given, or "default"), title and metadata are of this server; vaults, repositories, memory
 * stores and budget do not travel.
 *
 * The files of its sandbox, if the file has them, are written to a blob that nothing refers to, and unpacked by a
 * process of their own (sandbox/) when the whole file has proved to be good. They are passed over where they have no
 * place: no sandbox here, a store in memory, an environment whose client runs the tools.
 *
 * Bounded: a line by MR_LINE_MAX, commits and blob bytes under way by their writers (the upload waits), the file by
 * the limit of uploads. Loop thread.
 */
#include "agent/transfer_t.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { FILE_LEFT = 1 << 20, INPUTS_MAX = 10000 };
static const size_t INPUT_BYTES_MAX = 64 << 20, OUTCOME_BYTES_MAX = 64 << 20;
enum at { AT_HEADER, AT_FILES, AT_SPACE, AT_ROWS, AT_INBOX, AT_END };

struct import {
  struct mr_copy k; /* first */
  struct mr_copy_env env;
  struct mr_copy_space space;
  struct mr_buf in;
  size_t used; /* bytes of in that are done */
  enum at at;
  int64_t line, rows;
  int ninputs;
  size_t input_bytes, outcome_bytes; /* that are kept in memory */
  size_t seen;                       /* of in: no line ends before it */
  EVP_MD_CTX *sha;
  yyjson_doc *header;
  /* the file that is being read */
  struct mr_blob_writer *blob;
  struct mr_file f;
  struct mr_str f_name, f_sha;
  int64_t f_left;
  struct mr_copy_file *f_copy;
  unsigned char *bytes; /* decoded */
  /* the workspace: its blob, "" when there is none; passed over */
  char space_id[MR_ID_MAX];
  bool space_whole, passing;
  bool waits; /* for a commit or a blob */
  bool whole, paused, over;
};

static void pump(struct import *p);

static int bad(struct import *p, const char *what)
{
  return mr_err_set(&p->k.c->err, MR_E_INVALID, "file", "%s", what);
}

/* ---- the end ---- */

static void answer(struct import *p)
{
  p->k.c->cancel = NULL;
  if (p->space_id[0]) mr_blob_delete(p->k.c->d->store, mr_str_c(p->space_id));
  EVP_MD_CTX_free(p->sha);
  mr_mem_free(p->k.c->mem, p->bytes);
  yyjson_doc_free(p->header);
  mr_buf_free(&p->in);
  mr_env_use_end(&p->env.use);
  mr_copy_answer(&p->k);
}

static void on_unloadable(void *ud, const struct mr_commit_result *r)
{
  (void)r;
  answer(ud);
}

/* It was loaded once: the machine takes it. */
static void on_loaded(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct import *p = ud;
  struct mr_call *c = p->k.c;
  struct mr_commit *cm;

  if (code == MR_OK) mr_session_unref(s);
  if (code != MR_E_INVALID && code != MR_E_INTERNAL) { /* short of memory, say: it is there all the same */
    answer(p);
    return;
  }
  mr_err_copy(&c->err, err);
  p->k.code = code;
  mr_buf_reset(&c->out);
  cm = mr_commit_new(c->d->store, &c->who);
  if (!cm) {
    answer(p);
    return;
  }
  mr_commit_session_delete(cm, mr_str_c(p->k.id));
  for (int i = 0; i < p->k.nfiles; i++)
    mr_commit_doc_delete(cm, MR_S("file"), mr_str_c(p->k.files[i].id), 0);
  mr_commit_submit(&cm, on_unloadable, p);
}

static void on_settled(struct mr_copy_space *s, int code)
{
  struct import *p = MR_OF(s, struct import, space);
  struct mr_copy *k = &p->k;

  if (code == MR_OK)
    mr_session_get(k->c->d, k->c->who.workspace, mr_str_c(k->id), on_loaded, p);
  else
    answer(p);
}

static void over(struct mr_copy *k)
{
  struct import *p = MR_OF(k, struct import, k);

  p->space.fn = on_settled;
  mr_copy_space_settle(&p->space);
}

/* Ends the call from wherever it is; not inside feed, whose caller calls feed_end. */
static void stop(struct import *p)
{
  struct mr_call *c = p->k.c;

  if (p->over) return;
  p->over = true;
  c->feed = NULL;
  c->feed_end = NULL;
  mr_blob_abort(&p->blob);
  mr_copy_abort(&p->k);
}

/* ---- the header ---- */

static int on_header(struct import *p, yyjson_val *line)
{
  struct mr_call *c = p->k.c;
  yyjson_val *session = mr_json_get(line, "session"), *agent = mr_json_get(session, "agent");
  int64_t version = mr_json_get_int(line, "version", 0);
  struct mr_buf b;
  int code;

  if (!mr_str_is(mr_json_get_str(line, "format"), MR_EXPORT_FORMAT))
    return bad(p, "not an exported session: it does not begin with {\"format\":\"" MR_EXPORT_FORMAT "\"");
  if (version < 1 || version > MR_EXPORT_VERSION)
    return mr_err_set(&c->err, MR_E_INVALID, "file",
                      "the file is of format version %lld; this version of moonrig reads 1 to %d",
                      (long long)version, MR_EXPORT_VERSION);
  p->k.old_id = mr_json_get_str(session, "id");
  p->k.old_primary = mr_json_get_str(line, "primary");
  p->k.agent_name = mr_json_get_str(agent, "name");
  if (!mr_str_starts(p->k.old_id, MR_S("sesn_")) || !mr_str_starts(p->k.old_primary, MR_S("sthr_")))
    return bad(p, "session and primary: their ids are missing");
  code = mr_copy_init(&p->k, c);
  if (code != MR_OK) return code;
  mr_buf_init(&b, c->mem, 1 << 24);
  code = mr_import_agent(c, agent, &b);
  if (code == MR_OK)
    code = mr_copy_begin(&p->k, mr_buf_get(&b), mr_json_get_str(agent, "id"),
                         mr_json_get_int(agent, "version", 1));
  mr_buf_free(&b);
  p->at = AT_FILES;
  return code;
}

/* ---- files ---- */

static void on_blob(void *ud, int code, int64_t size, const char *sha256, const struct mr_err *err)
{
  struct import *p = ud;
  struct mr_call *c = p->k.c;
  struct mr_doc_row *d;
  struct mr_buf b;

  p->waits = false;
  if (p->over) return;
  if (code != MR_OK) {
    mr_err_copy(&c->err, err);
    p->k.code = code;
  } else if (!p->f_copy) {
    p->space_whole = true;
  } else if (size != p->f.size || !mr_str_is(p->f_sha, sha256)) {
    p->k.code = bad(p, "a file's bytes are not those that its sha256 is of");
  } else {
    d = &p->f_copy->doc;
    *d = (struct mr_doc_row){.kind = MR_S("file"), .id = mr_str_c(p->f_copy->id), .rev = 1};
    d->parent = mr_str_c(p->k.id);
    d->created_us = d->updated_us = p->f.created_us = mr_loop_wall_us(c->d->loop);
    d->name = p->f_name.n
                  ? mr_str_c(mr_arena_printf(c->arena, MR_FMT " " MR_FMT, MR_ARG(p->f_sha), MR_ARG(p->f_name)))
                  : p->f_sha;
    mr_buf_init(&b, c->mem, 1 << 16);
    mr_file_write(&b, &p->f);
    d->body = mr_arena_str(c->arena, mr_buf_get(&b));
    if (!d->body.n || !d->name.p) p->k.code = mr_err_nomem(&c->err);
    mr_buf_free(&b);
  }
  p->f_copy = NULL;
  pump(p);
}

static void file_end(struct import *p)
{
  p->waits = true;
  mr_blob_finish(&p->blob, on_blob, p);
}

static int on_file(struct import *p, yyjson_val *line)
{
  struct mr_call *c = p->k.c;
  struct mr_str id = mr_json_get_str(line, "id"), name, sha;
  char known[MR_ID_MAX];
  int code;

  if (p->k.nfiles >= MR_EXPORT_FILES) return bad(p, "too many files");
  memset(&p->f, 0, sizeof p->f);
  code = mr_import_file(c, line, &p->f, &name, &sha);
  if (code != MR_OK) return code;
  mr_copy_id(&p->k, id, known);
  if (known[0]) return bad(p, "a file is there twice");
  p->f.filename = mr_arena_str(c->arena, p->f.filename);
  p->f.mime_type = mr_arena_str(c->arena, p->f.mime_type);
  p->f_name = mr_arena_str(c->arena, name);
  p->f_sha = mr_arena_str(c->arena, sha);
  p->f_copy = mr_copy_file_new(&p->k, id);
  if (!p->f_copy || !p->f_sha.p || !p->f_name.p || !p->f.filename.p || !p->f.mime_type.p)
    return mr_err_nomem(&c->err);
  p->f.id = mr_str_c(p->f_copy->id);
  p->f.session_id = mr_str_c(p->k.id);
  code = mr_blob_begin(c->d->store, p->f.id, &p->blob, &c->err);
  p->f_left = p->f.size;
  if (code == MR_OK && p->f_left == 0) file_end(p);
  return code;
}

static int on_workspace(struct import *p, yyjson_val *line)
{
  struct mr_call *c = p->k.c;
  char path[4096];

  p->at = AT_SPACE;
  p->f_left = mr_json_get_int(line, "size_bytes", -1);
  if (p->f_left <= 0 || p->f_left > MR_EXPORT_WORKSPACE)
    return bad(p, "workspace: size_bytes is not one that is possible");
  if (mr_id_make(c->d->sys, p->space_id, "file") != MR_OK)
    return mr_err_set(&c->err, MR_E_IO, NULL, "no randomness");
  p->passing = !mr_copy_space_can(&p->k) || mr_blob_path(c->d->store, mr_str_c(p->space_id), path) != MR_OK;
  if (p->passing) {
    p->space_id[0] = '\0';
    return MR_OK;
  }
  return mr_blob_begin(c->d->store, mr_str_c(p->space_id), &p->blob, &c->err);
}

static void on_drained(void *ud)
{
  struct import *p = ud;

  p->waits = false;
  if (!p->over) pump(p);
}

static int on_bytes(struct import *p, yyjson_val *line)
{
  struct mr_call *c = p->k.c;
  struct mr_str data = mr_json_get_str(line, "data");
  int64_t n;
  int code;

  if (!p->blob && !(p->passing && p->f_left)) return bad(p, "bytes without a file before them");
  if (!data.n || data.n > MR_FILE_CHUNK / 3 * 4 + 4) return bad(p, "data: too much or nothing");
  if (!p->bytes) p->bytes = mr_mem_alloc(c->mem, MR_FILE_CHUNK + 16);
  if (!p->bytes) return mr_err_nomem(&c->err);
  n = mr_base64_decode(data, p->bytes);
  if (n <= 0 || n > p->f_left) return bad(p, "data: not base64, or more than size_bytes says");
  p->f_left -= n;
  if (p->passing) return MR_OK;
  code = mr_blob_write(p->blob, mr_str_n((char *)p->bytes, (size_t)n), on_drained, p);
  if (code < 0) return mr_err_set(&c->err, code, NULL, "the file could not be stored: %s", mr_strerror(code));
  if (p->f_left == 0)
    file_end(p);
  else
    p->waits = code == MR_MORE;
  return MR_OK;
}

/* ---- rows ---- */

static void on_room(struct mr_copy *k)
{
  struct import *p = MR_OF(k, struct import, k);

  p->waits = false;
  pump(p);
}

static int on_log_row(struct import *p, yyjson_val *line, bool wire)
{
  struct mr_call *c = p->k.c;
  struct mr_import_row r;
  int code = mr_import_row(c->mem, line, wire, mr_loop_wall_us(c->d->loop), p->k.last_us, &r, &c->err);

  if (code == MR_OK && mr_str_is(r.row.type, "thread.created"))
    code = mr_import_child(c, mr_json_get(r.body, "agent"));
  if (code != MR_OK) return code;
  if (mr_str_is(r.row.type, "user.define_outcome"))
    p->outcome_bytes +=
        mr_json_get_str(r.body, "description").n + mr_json_get_str(mr_json_get(r.body, "rubric"), "content").n;
  if (p->outcome_bytes > OUTCOME_BYTES_MAX) return bad(p, "its outcomes are longer than a session may have");
  p->at = AT_ROWS;
  p->rows++;
  code = mr_copy_row(&p->k, &r.row, r.body);
  if (code == MR_MORE) {
    p->k.go = on_room;
    p->waits = true;
    code = MR_OK;
  }
  return code;
}

static int on_inbox(struct import *p, yyjson_val *line)
{
  struct mr_copy_input *in;
  int code = mr_import_input(p->k.c, line, &in);

  p->at = AT_INBOX;
  if (code != MR_OK || !in) return code;
  p->input_bytes += in->content.n;
  if (++p->ninputs > INPUTS_MAX || p->input_bytes > INPUT_BYTES_MAX)
    return bad(p, "more messages wait than a session may have");
  if (!p->k.inputs_tail) p->k.inputs_tail = &p->k.inputs;
  *p->k.inputs_tail = in;
  p->k.inputs_tail = &in->next;
  return MR_OK;
}

static int on_end(struct import *p, yyjson_val *line)
{
  unsigned char sum[EVP_MAX_MD_SIZE];
  char hex[2 * EVP_MAX_MD_SIZE + 1] = "";
  unsigned n = 0;

  EVP_DigestFinal_ex(p->sha, sum, &n);
  for (unsigned i = 0; i < n; i++)
    snprintf(hex + 2 * i, 3, "%02x", sum[i]);
  p->at = AT_END;
  if (!mr_str_is(mr_json_get_str(line, "sha256"), hex))
    return bad(p, "the file was changed or damaged: its sha256 is another one");
  if (mr_json_get_int(line, "rows", -1) != p->rows)
    return bad(p, "it says another number of rows than there are");
  return MR_OK;
}

/* ---- lines ---- */

static int on_doc(struct import *p, yyjson_val *line)
{
  struct mr_str row = mr_json_get_str(line, "row");

  if (p->at == AT_HEADER) return on_header(p, line);
  if (p->at == AT_END) return bad(p, "there is something after the last line");
  if ((p->blob || (p->passing && p->f_left)) && !mr_str_is(row, "bytes"))
    return bad(p, "a file is shorter than its size_bytes");
  if (mr_str_is(row, "bytes")) return on_bytes(p, line);
  if (mr_str_is(row, "file") && p->at == AT_FILES) return on_file(p, line);
  if (mr_str_is(row, "workspace") && p->at == AT_FILES) return on_workspace(p, line);
  if ((mr_str_is(row, "wire") || mr_str_is(row, "private")) && p->at <= AT_ROWS)
    return on_log_row(p, line, mr_str_is(row, "wire"));
  if (mr_str_is(row, "inbox")) return on_inbox(p, line);
  if (mr_str_is(row, "end")) return on_end(p, line);
  return bad(p, "no row of this kind can stand here");
}

static int on_line(struct import *p, struct mr_str text)
{
  struct mr_call *c = p->k.c;
  yyjson_doc *doc = NULL;
  struct mr_err why;
  bool first = p->at == AT_HEADER;
  int code = mr_json_parse(c->mem, text, MR_LINE_MAX, &doc, &c->err);

  p->line++;
  if (code == MR_OK && !yyjson_is_obj(yyjson_doc_get_root(doc))) code = bad(p, "not an object");
  if (code == MR_OK && !mr_str_is(mr_json_get_str(yyjson_doc_get_root(doc), "row"), "end")) {
    EVP_DigestUpdate(p->sha, text.p, text.n);
    EVP_DigestUpdate(p->sha, "\n", 1);
  }
  if (code == MR_OK) code = on_doc(p, yyjson_doc_get_root(doc));
  if (code == MR_E_INVALID || code == MR_E_TOO_LARGE) {
    why = c->err;
    mr_err_set(&c->err, MR_E_INVALID, "file", "file, line %lld: %s", (long long)p->line, why.message);
    code = MR_E_INVALID;
  }
  if (first)
    p->header = doc; /* strings of it are used to the end */
  else
    yyjson_doc_free(doc);
  return code;
}

/* The next whole line, without its end; p NULL: there is none yet. */
static struct mr_str take_line(struct import *p)
{
  size_t from = p->used, skip = p->seen > from ? p->seen : from;
  const char *end = p->in.n > skip ? memchr(p->in.p + skip, '\n', p->in.n - skip) : NULL;

  p->seen = p->in.n;
  if (!end) return mr_str_n(NULL, 0);
  p->used = p->seen = (size_t)(end - p->in.p) + 1;
  return mr_str_n(p->in.p + from, p->used - 1 - from);
}

/* ---- when all was read ---- */

static int write_doc(struct import *p, struct mr_buf *out)
{
  yyjson_val *session = mr_json_get(yyjson_doc_get_root(p->header), "session");
  struct mr_jw w;
  int code;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  code = mr_copy_label(&p->k, mr_json_get(session, "title"), mr_json_get(session, "metadata"), "",
                       "moonrig.imported_from", &w);
  mr_jw_key(&w, "resources");
  if (code == MR_OK) code = mr_import_resources(&p->k, mr_json_get(session, "resources"), &w);
  mr_jw_kraw(&w, "vault_ids", MR_S("[]"));
  mr_jw_kraw(&w, "budget", MR_S("null"));
  mr_copy_environment(&p->env, &w);
  mr_jw_obj_end(&w);
  return code == MR_OK && out->failed ? mr_err_nomem(&p->k.c->err) : code;
}

static void on_space(struct mr_copy_space *s, int code)
{
  struct import *p = MR_OF(s, struct import, space);
  struct mr_buf doc;

  mr_buf_init(&doc, p->k.c->mem, 1 << 22);
  if (code == MR_OK) code = write_doc(p, &doc);
  p->k.rest.self_hosted = p->env.self_hosted;
  if (code == MR_OK) {
    mr_copy_finish(&p->k, mr_buf_get(&doc), p->env.id);
  } else {
    p->k.code = p->k.code ? p->k.code : code;
    mr_copy_abort(&p->k);
  }
  mr_buf_free(&doc);
}

static void on_env(struct mr_copy_env *e, int code)
{
  struct import *p = MR_OF(e, struct import, env);
  struct mr_call *c = p->k.c;
  char path[4096];
  int fd;

  p->space.fn = on_space;
  if (code != MR_OK || !p->space_whole || p->env.self_hosted) {
    on_space(&p->space, code);
    return;
  }
  fd = mr_blob_path(c->d->store, mr_str_c(p->space_id), path) == MR_OK ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (fd >= 0) {
    mr_copy_space_unpack(&p->space, fd);
    close(fd);
  } else {
    on_space(&p->space, mr_err_errno(&c->err, "the session's files"));
  }
}

static void go(struct mr_call *c)
{
  struct import *p = c->priv;

  mr_copy_env(&p->env, mr_str_n(NULL, 0));
}

static void cancel(struct mr_call *c)
{
  struct import *p = c->priv;
  mr_copy_space_cancel(&p->space);
}

static void finish(struct import *p)
{
  p->over = true;
  p->k.c->cancel = cancel;
  if (p->at != AT_END) {
    p->k.code = bad(p, p->at == AT_HEADER ? "not an exported session: the file is empty"
                                          : "the file is not whole: its last line is missing");
    mr_blob_abort(&p->blob);
    mr_copy_abort(&p->k);
    return;
  }
  mr_domain_begin(p->k.c, go);
}

/* Takes lines until there are no more, or one has to be waited for. */
static void take(struct import *p)
{
  struct mr_str line;
  int code = MR_OK;

  while (!p->waits && p->k.code == MR_OK && (line = take_line(p)).p) {
    code = on_line(p, line);
    if (code != MR_OK && p->k.code == MR_OK) p->k.code = code;
  }
  if (p->used == p->in.n || p->used > FILE_LEFT) {
    mr_buf_drop(&p->in, p->used);
    p->seen -= p->seen > p->used ? p->used : p->seen;
    p->used = 0;
  }
  if (p->k.code == MR_OK && p->in.n - p->used > MR_LINE_MAX && !p->waits)
    p->k.code = bad(p, "a line is longer than 64 MiB");
}

/* From a commit or a blob: goes on, outside feed. */
static void pump(struct import *p)
{
  struct mr_call *c = p->k.c;

  take(p);
  if (p->waits) return;
  if (p->k.code != MR_OK) {
    stop(p);
  } else if (p->whole) {
    if (!p->over) finish(p);
  } else if (p->paused) {
    p->paused = false;
    if (c->in_drained) c->in_drained(c);
  }
}

static int feed(struct mr_call *c, struct mr_str bytes)
{
  struct import *p = c->priv;

  mr_buf_str(&p->in, bytes);
  if (p->in.failed) return p->k.code = mr_err_nomem(&c->err);
  take(p);
  if (p->k.code != MR_OK && !p->waits) return p->k.code;
  p->paused = p->waits;
  return p->waits ? MR_MORE : MR_OK;
}

static void feed_end(struct mr_call *c, int code)
{
  struct import *p = c->priv;

  c->feed = NULL;
  c->feed_end = NULL;
  p->whole = true;
  if (code == MR_OK && p->in.n > p->used && p->in.p[p->in.n - 1] != '\n') mr_buf_char(&p->in, '\n');
  if (code != MR_OK && p->k.code == MR_OK) p->k.code = code;
  if (code != MR_OK && p->blob) { /* what waits for room in it waits for nothing more */
    mr_blob_abort(&p->blob);
    p->waits = false;
  }
  p->paused = false;
  if (!p->waits) pump(p);
}

void mr_sessions_import(struct mr_call *c)
{
  struct import *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  p->k.c = p->env.c = c;
  p->space.k = &p->k;
  p->space.from_file = true;
  p->k.rest.mem = c->mem;
  p->k.strict = true;
  p->k.over = over;
  p->env.fn = on_env;
  p->sha = EVP_MD_CTX_new();
  mr_buf_init(&p->in, c->mem, SIZE_MAX / 2);
  if (!p->sha || EVP_DigestInit_ex(p->sha, EVP_sha256(), NULL) != 1) {
    EVP_MD_CTX_free(p->sha);
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  c->priv = p;
  c->feed = feed;
  c->feed_end = feed_end;
}
