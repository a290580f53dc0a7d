/*
 * client_bytes.c - operations whose input or output is a file: over HTTP to a server, else in the data directory
 * itself, as client.c has it for JSON. Nothing is held in memory. Blocking, on the command's only thread.
 */
#include "main/client.h"

#include <errno.h>
#include <unistd.h>

enum { WAIT_MS = 1000 };

struct transfer {
  FILE *file;
  int wrong; /* errno of the file */
  /* in the data directory */
  bool over;
  int code;
  struct mr_err err;
  char *json;
};

static void put_file(struct transfer *t, const char *p, size_t n)
{
  if (!t->wrong && fwrite(p, 1, n, t->file) != n) t->wrong = errno ? errno : EIO;
}

static int file_status(const struct transfer *t, int status)
{
  if (!t->wrong) return status;
  fprintf(stderr, "moonrig: the file could not be written: %s\n", strerror(t->wrong));
  return EXIT_FAILED;
}

/* ---- over HTTP ---- */

static bool on_bytes(void *ud, struct mr_str bytes)
{
  struct transfer *t = ud;
  put_file(t, bytes.p, bytes.n);
  return !t->wrong;
}

static int remote(struct settings *s, const char *verb, const char *pattern, yyjson_val *in, const char *upload,
                  FILE *to, char **out)
{
  struct transfer t = {.file = to};
  struct client_request q = {
      .verb = verb, .beta = CLIENT_BETA, .upload = upload, .parts = upload ? in : NULL, .ud = &t};
  struct mr_mem mem;
  struct mr_buf path;
  int status;

  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&path, &mem, 1 << 20);
  status = mr_client_path(verb, pattern, in, &path);
  q.path = path.p;
  if (to) q.sink = on_bytes;
  if (status == EXIT_OK) status = file_status(&t, mr_client_http(s, &q, out));
  mr_buf_free(&path);
  return status;
}

/* ---- in the data directory ---- */

static void on_reply(void *ud, const struct mr_reply *r)
{
  struct transfer *t = ud;

  t->over = true;
  t->code = r->code;
  if (r->code != MR_OK)
    mr_err_copy(&t->err, r->err);
  else if (r->json.n)
    t->json = mr_main_copy(r->json);
}

static void on_chunk(void *ud, struct mr_str chunk)
{
  put_file(ud, chunk.p, chunk.n);
}

static int64_t on_read(void *ud, char *buf, size_t cap)
{
  struct transfer *t = ud;
  size_t n = fread(buf, 1, cap, t->file);

  return n == 0 && ferror(t->file) ? MR_E_IO : (int64_t)n;
}

static int in_place(struct settings *s, const char *op, const char *json, FILE *from, FILE *to, char **out)
{
  struct transfer t = {.file = from ? from : to};
  struct mr_body body = {.size = sizeof body, .length = -1, .read = on_read, .ud = &t};
  struct mr_req req = {.size = sizeof req, .op = op, .json = mr_str_c(json), .body = from ? &body : NULL};
  struct mr_callbacks cbs = {.size = sizeof cbs, .reply = on_reply, .body = on_chunk};
  struct mr_runtime *rt = NULL;
  struct mr_config c;
  int code;

  mr_config_init(&c);
  c.store = s->data;
  c.options = "{\"asleep\":true}"; /* sessions stay as they are: this is no server */
  code = mr_open(&rt, &c, &t.err);
  if (code == MR_OK) code = mr_call(rt, &req, &cbs, &t, NULL, &t.err);
  while (code == MR_OK && !t.over) {
    mr_wait(rt, WAIT_MS);
    mr_dispatch(rt, 0, 0);
  }
  if (code == MR_OK) code = t.code;
  mr_close(&rt);
  if (out && code == MR_OK)
    *out = t.json;
  else
    mr_main_free(t.json);
  return code == MR_OK ? file_status(&t, EXIT_OK) : mr_main_fail(EXIT_FAILED, &t.err);
}

/* ---- both ---- */

/* Where it is to be done: true, over HTTP at s->url; false, in the data directory, or nowhere (*status). */
static bool at_server(struct settings *s, int *status)
{
  *status = EXIT_OK;
  s->url = mr_client_url(s);
  if (!s->url && strcmp(s->data, ":memory:") != 0 && access(s->data, F_OK) != 0) {
    fprintf(stderr, "moonrig: no server runs on %s, and it does not exist; give --data or --url\n", s->data);
    *status = EXIT_UNREACHABLE;
  }
  return s->url != NULL;
}

int mr_client_download(struct settings *s, const char *op, const char *json, FILE *to)
{
  const char *verb, *path = "";
  yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
  unsigned flags;
  int status;

  mr_client_op_named(op, &verb, &path, &flags);
  if (at_server(s, &status))
    status = remote(s, verb, path, yyjson_doc_get_root(doc), NULL, to, NULL);
  else if (status == EXIT_OK)
    status = in_place(s, op, json, NULL, to, NULL);
  yyjson_doc_free(doc);
  return status;
}

int mr_client_upload(struct settings *s, const char *op, const char *json, const char *path, char **out)
{
  const char *verb, *route = "";
  yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
  bool std = strcmp(path, "-") == 0;
  FILE *from = std ? stdin : fopen(path, "rb");
  unsigned flags;
  int status;

  *out = NULL;
  if (!from) {
    fprintf(stderr, "moonrig: %s: %s\n", path, strerror(errno));
    yyjson_doc_free(doc);
    return EXIT_FAILED;
  }
  mr_client_op_named(op, &verb, &route, &flags);
  if (at_server(s, &status))
    status = remote(s, verb, route, yyjson_doc_get_root(doc), path, NULL, out);
  else if (status == EXIT_OK)
    status = in_place(s, op, json, from, NULL, out);
  if (!std) fclose(from);
  yyjson_doc_free(doc);
  return status;
}
