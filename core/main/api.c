/*
 * api.c - `moonrig api`: any operation by its name. Its input is one JSON object: path parameters, then the fields of
 * body or query, by their names. What comes back is printed as the server wrote it: JSON, a stream's events one a line,
 * a file's bytes. --list names the operations, --help OPERATION says what one takes (api_help.c).
 */
#include "main/api.h"
#include "base/sse_parse.h"
#include "main/client.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { INPUT_MAX = 64 << 20, EVENT_MAX = 32 << 20 };

/* ---- the input ---- */

/* Inline, @FILE, or - for standard input. */
static int read_input(const char *arg, struct mr_buf *b)
{
  FILE *f = strcmp(arg, "-") == 0 ? stdin : arg[0] == '@' ? fopen(arg + 1, "rb") : NULL;
  char piece[65536];
  size_t n;

  if (!f && arg[0] != '@') {
    mr_buf_c(b, arg);
    return EXIT_OK;
  }
  if (!f) {
    fprintf(stderr, "moonrig: %s: %s\n", arg + 1, strerror(errno));
    return EXIT_USAGE;
  }
  while ((n = fread(piece, 1, sizeof piece, f)) > 0)
    mr_buf_add(b, piece, n);
  if (f != stdin) fclose(f);
  if (!b->failed) return EXIT_OK;
  fprintf(stderr, "moonrig: more than %d bytes of input\n", INPUT_MAX);
  return EXIT_USAGE;
}

/* ---- streams ---- */

struct stream {
  struct mr_sse_parser parser;
  bool failed;
};

static int on_frame(void *ud, struct mr_str event, struct mr_str data)
{
  struct stream *st = ud;

  if (mr_str_is(event, "ping")) return MR_OK;
  st->failed = mr_str_is(event, "error");
  fprintf(st->failed ? stderr : stdout, MR_FMT "\n", MR_ARG(data));
  fflush(stdout);
  return MR_OK;
}

static bool on_stream(void *ud, struct mr_str bytes)
{
  struct stream *st = ud;
  return mr_sse_parser_feed(&st->parser, bytes) == MR_OK;
}

static int stream(struct settings *s, struct client_request *q)
{
  struct stream st = {0};
  struct mr_mem mem;
  int status;

  mr_mem_init(&mem, NULL, NULL);
  mr_sse_parser_init(&st.parser, &mem, EVENT_MAX, on_frame, &st);
  q->sink = on_stream;
  q->ud = &st;
  status = mr_client_http(s, q, NULL);
  mr_sse_parser_free(&st.parser);
  return status == EXIT_OK && st.failed ? EXIT_FAILED : status;
}

/* ---- downloads ---- */

static bool on_bytes(void *ud, struct mr_str bytes)
{
  return fwrite(bytes.p, 1, bytes.n, ud) == bytes.n;
}

/* Into a file of another name first: what is there under its own is whole. */
static int download(struct settings *s, struct client_request *q)
{
  bool file = s->body && strcmp(s->body, "-") != 0;
  char part[4096];
  FILE *f = stdout;
  int status;

  if (!file && !s->body && isatty(1))
    return mr_main_usage(&mr_cmd_api, "give --file PATH for the bytes (or --file -)");
  if (file && snprintf(part, sizeof part, "%s.part-%ld", s->body, (long)getpid()) >= (int)sizeof part)
    return mr_main_usage(&mr_cmd_api, "the name of the file is too long");
  if (file && !(f = fopen(part, "wb"))) {
    fprintf(stderr, "moonrig: %s: %s\n", part, strerror(errno));
    return EXIT_FAILED;
  }
  q->sink = on_bytes;
  q->ud = f;
  status = mr_client_http(s, q, NULL);
  if (fflush(f) != 0 || ferror(f) || (file && fclose(f) != 0) ||
      (file && status == EXIT_OK && rename(part, s->body) != 0)) {
    fprintf(stderr, "moonrig: %s: %s\n", file ? s->body : "standard output", strerror(errno));
    if (status == EXIT_OK) status = EXIT_FAILED;
  }
  if (file && status != EXIT_OK) unlink(part);
  return status;
}

/* ---- calls ---- */

static int call(struct settings *s, const struct mr_opdef *op, const char *json, yyjson_val *in)
{
  struct client_request q = {.verb = op->verb, .beta = op->beta};
  struct mr_mem mem;
  struct mr_buf path;
  char *out = NULL;
  int status = mr_client_find(s);

  if (status != EXIT_OK) return status;
  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&path, &mem, 1 << 20);
  status = mr_client_path(op->verb, op->path, in, &path);
  q.path = path.p;
  if (op->kind == MR_OP_BODY_IN) {
    q.upload = s->body;
    q.parts = in;
  } else if (strcmp(op->verb, "POST") == 0) {
    q.body = json;
  }
  if (status == EXIT_OK && op->kind == MR_OP_EVENTS)
    status = stream(s, &q);
  else if (status == EXIT_OK && op->kind == MR_OP_BODY_OUT)
    status = download(s, &q);
  else if (status == EXIT_OK)
    status = mr_client_http(s, &q, &out);
  if (out) printf("%s\n", out);
  mr_main_free(out);
  mr_buf_free(&path);
  return status;
}

/* s->body fits the operation, the input is an object: then it is called. */
static int checked(struct settings *s, const struct mr_opdef *op, const struct mr_buf *json)
{
  yyjson_doc *doc = json->p ? yyjson_read(json->p, json->n, 0) : NULL;
  int status;

  if (op->kind == MR_OP_BODY_IN && !s->body)
    status = mr_main_usage(&mr_cmd_api, "%s: give the file to send with --file PATH (or -)", op->name);
  else if (op->kind != MR_OP_BODY_IN && op->kind != MR_OP_BODY_OUT && s->body)
    status = mr_main_usage(&mr_cmd_api, "%s: it takes no --file", op->name);
  else if (!yyjson_is_obj(yyjson_doc_get_root(doc)))
    status = mr_main_usage(&mr_cmd_api, "%.200s is not a JSON object", json->p ? json->p : "nothing");
  else
    status = call(s, op, json->p, yyjson_doc_get_root(doc));
  yyjson_doc_free(doc);
  return status;
}

static int api(int argc, char **argv)
{
  struct settings s;
  struct mr_mem mem;
  struct mr_buf json;
  const struct mr_opdef *op;
  int status = mr_settings_read(&s, &mr_cmd_api, TAKES_CLIENT | TAKES_API, argc, argv);

  if (status) return status;
  if (s.list && s.npaths == 0) return mr_api_list(s.json);
  if (s.npaths < 1 || s.npaths > 2 || s.list)
    return mr_main_usage(&mr_cmd_api, "an operation and its JSON, or --list");
  if (!(op = mr_op_find(mr_str_c(s.paths[0])))) {
    fprintf(stderr, "moonrig: no operation is named %s (moonrig api --list names them)\n", s.paths[0]);
    return EXIT_USAGE;
  }
  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&json, &mem, INPUT_MAX);
  status = read_input(s.npaths == 2 ? s.paths[1] : "{}", &json);
  mr_buf_add(&json, "", 1); /* its end as a C string */
  json.n--;
  if (status == EXIT_OK) status = checked(&s, op, &json);
  mr_buf_free(&json);
  mr_settings_free(&s);
  return status;
}

const struct command mr_cmd_api = {
    "api",
    "OPERATION [JSON | @FILE | -] | --list | --help OPERATION",
    "any operation of the API, by its name",
    "  --list        the names of all operations, with verb and path\n"
    "  --help OPERATION  what it takes\n"
    "  --file PATH   an upload: the file to send; a download: where to put it; - is standard input or "
    "output\n" CLIENT_OPTIONS
    "JSON is one object: path parameters and the fields of body or query, by their names; @FILE reads it "
    "from a\n"
    "file, - from standard input. A stream prints an event a line until it ends. An error of the API is\n"
    "said on standard error (with --json as the server wrote it), exit status 1.\n"
    "For example: moonrig api sessions.list '{\"limit\":5}'\n",
    api,
    mr_api_help};
