/* client.c - see client.h: where the server is, an operation as a request, or in the data directory. The request itself
 * is client_http.c's. Blocking, on the command's only thread. */
#include "main/client.h"
#include "main/server_file.h"

#include <unistd.h>

enum { TIMEOUT_S = 60 };

const char *mr_client_url(struct settings *s)
{
  if (s->url) { /* the server of this data directory, named by its address: its key is known, too */
    if (!s->key_given &&
        mr_server_file_read(s->data, s->url_buf, sizeof s->url_buf, s->key_buf, sizeof s->key_buf) &&
        strcmp(s->url, s->url_buf) == 0 && s->key_buf[0])
      s->key = s->key_buf;
    return s->url;
  }
  if (!mr_server_file_read(s->data, s->url_buf, sizeof s->url_buf, s->key_buf, sizeof s->key_buf)) return NULL;
  if (s->key_buf[0] && !s->key_given) s->key = s->key_buf; /* ANTHROPIC_API_KEY is the provider's, mostly */
  return s->url_buf;
}

/* ---- an operation as a request ---- */

void mr_client_escape(struct mr_buf *b, struct mr_str v)
{
  for (size_t i = 0; i < v.n; i++) {
    unsigned char c = (unsigned char)v.p[i];
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c))
      mr_buf_char(b, (char)c);
    else
      mr_buf_printf(b, "%%%02X", c);
  }
}

/* The path with its parameters filled in from the input. */
static int write_path(const char *pattern, yyjson_val *in, struct mr_buf *b)
{
  struct mr_str rest = mr_str_c(pattern + 1);

  while (rest.p) {
    struct mr_str seg = mr_str_split(&rest, '/');
    char name[64];
    struct mr_str v;
    mr_buf_char(b, '/');
    if (!seg.n || seg.p[0] != '{' || seg.n >= sizeof name) {
      mr_buf_str(b, seg);
      continue;
    }
    memcpy(name, seg.p + 1, seg.n - 2);
    name[seg.n - 2] = '\0';
    v = mr_json_get_str(in, name);
    if (!v.n) {
      fprintf(stderr, "moonrig: %s: required in the JSON\n", name);
      return EXIT_USAGE;
    }
    mr_client_escape(b, v);
  }
  return EXIT_OK;
}

static void write_scalar(struct mr_buf *b, yyjson_val *v)
{
  struct mr_mem mem;
  struct mr_buf t;

  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&t, &mem, 1 << 16);
  if (!yyjson_is_str(v)) mr_json_write(&t, v, false);
  mr_client_escape(b, yyjson_is_str(v) ? mr_json_str(v) : mr_buf_get(&t));
  mr_buf_free(&t);
}

/* Everything else of the input as a query string, the way the SDKs write it. */
static void write_query(yyjson_val *in, const char *pattern, struct mr_buf *b)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(in);
  yyjson_val *k, *x;
  char sep = '?', in_path[96];

  while ((k = yyjson_obj_iter_next(&it))) {
    yyjson_val *v = yyjson_obj_iter_get_val(k);
    snprintf(in_path, sizeof in_path, "{%.80s}", yyjson_get_str(k));
    if (strstr(pattern, in_path)) continue;
    if (yyjson_is_arr(v)) {
      yyjson_arr_iter ai = yyjson_arr_iter_with(v);
      while ((x = yyjson_arr_iter_next(&ai))) {
        mr_buf_printf(b, "%c%s%%5B%%5D=", sep, yyjson_get_str(k));
        write_scalar(b, x);
        sep = '&';
      }
    } else if (yyjson_is_obj(v)) {
      yyjson_obj_iter oi = yyjson_obj_iter_with(v);
      while ((x = yyjson_obj_iter_next(&oi))) {
        mr_buf_printf(b, "%c%s%%5B%s%%5D=", sep, yyjson_get_str(k), yyjson_get_str(x));
        write_scalar(b, yyjson_obj_iter_get_val(x));
        sep = '&';
      }
    } else {
      mr_buf_printf(b, "%c%s=", sep, yyjson_get_str(k));
      write_scalar(b, v);
      sep = '&';
    }
  }
}

int mr_client_path(const char *verb, const char *pattern, yyjson_val *in, struct mr_buf *b)
{
  int status = write_path(pattern, in, b);

  if (status == EXIT_OK && strcmp(verb, "POST") != 0) write_query(in, pattern, b);
  return status;
}

static int remote(struct settings *s, const char *verb, const char *pattern, const char *json, char **out)
{
  yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
  struct client_request q = {
      .verb = verb, .body = strcmp(verb, "POST") == 0 ? json : NULL, .beta = CLIENT_BETA};
  struct mr_mem mem;
  struct mr_buf path;
  int status;

  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&path, &mem, 1 << 20);
  status = mr_client_path(verb, pattern, yyjson_doc_get_root(doc), &path);
  q.path = path.p;
  if (status == EXIT_OK) status = mr_client_http(s, &q, out);
  yyjson_doc_free(doc);
  mr_buf_free(&path);
  return status;
}

/* ---- in the data directory ---- */

static int in_place(struct settings *s, const char *op, const char *json, char **out)
{
  struct mr_runtime *rt = NULL;
  struct mr_config c;
  struct mr_err err = {0};
  char *text = NULL;
  int code;

  mr_config_init(&c);
  c.store = s->data;
  c.options = "{\"asleep\":true}"; /* sessions stay as they are: this is no server */
  code = mr_open(&rt, &c, &err);
  if (code == MR_OK) code = mr_call_wait(rt, op, json, TIMEOUT_S * 1000, &text, &err);
  if (code == MR_OK) *out = mr_main_copy(mr_str_c(text));
  mr_free(rt, text);
  mr_close(&rt);
  return code == MR_OK ? EXIT_OK : mr_main_fail(EXIT_FAILED, &err);
}

bool mr_client_op_named(const char *op, const char **verb, const char **path, unsigned *flags)
{
  const char *name;
  for (int i = 0; (name = mr_ext()->op_at(i, verb, path, flags)); i++)
    if (strcmp(name, op) == 0) return true;
  return false;
}

int mr_client_find(struct settings *s)
{
  s->url = mr_client_url(s);
  if (s->url) return EXIT_OK;
  fprintf(stderr, "moonrig: no server runs on %s; start one with moonrig serve, or give --url\n", s->data);
  return EXIT_UNREACHABLE;
}

int mr_client_op(struct settings *s, const char *op, const char *json, bool local, char **out)
{
  const char *verb, *path;
  unsigned flags;

  *out = NULL;
  if (!mr_client_op_named(op, &verb, &path, &flags)) {
    fprintf(stderr, "moonrig: no operation is named %s (moonrig api --list names them)\n", op);
    return EXIT_USAGE;
  }
  s->url = mr_client_url(s);
  if (s->url) return remote(s, verb, path, json, out);
  if (!local) return mr_client_find(s);
  if (strcmp(verb, "GET") == 0 && strcmp(s->data, ":memory:") != 0 &&
      access(s->data, F_OK) != 0) { /* what only looks makes no store */
    fprintf(stderr, "moonrig: no server runs on %s, and it does not exist; give --data or --url\n", s->data);
    return EXIT_UNREACHABLE;
  }
  return in_place(s, op, json, out);
}

int mr_client_control(struct settings *s, const char *json, char **out)
{
  struct client_request q = {.verb = "POST", .path = "/moonrig/v1/control", .body = json, .beta = CLIENT_BETA};
  int status = mr_client_find(s);

  *out = NULL;
  return status ? status : mr_client_http(s, &q, out);
}
