/* client.c - see client.h. Blocking, on the command's only thread. Bytes instead of JSON: client_bytes.c. */
#include "main/client_t.h"
#include "main/server_file.h"

#include <unistd.h>

enum { RESPONSE_MAX = 64 << 20, TIMEOUT_S = 60 };

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

static size_t collect(char *p, size_t size, size_t n, void *ud)
{
  struct mr_buf *b = ud;
  mr_buf_add(b, p, size * n);
  return b->failed ? 0 : size * n;
}

/* "unix:/path" is a socket; anything else a URL. */
static void set_target(CURL *h, const char *base, const char *path, struct mr_buf *url)
{
  if (strncmp(base, "unix:", 5) == 0) {
    curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, base + 5);
    base = "http://localhost";
  }
  mr_buf_c(url, base);
  while (url->n && url->p[url->n - 1] == '/')
    url->n--;
  mr_buf_c(url, path);
  curl_easy_setopt(h, CURLOPT_URL, url->p);
}

int mr_client_answer(CURL *h, struct mr_buf *body, char **out)
{
  yyjson_doc *doc;
  struct mr_str message;
  long status = 0;

  curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &status);
  if (status >= 200 && status < 300) {
    *out = mr_main_copy(mr_buf_get(body));
    return *out ? EXIT_OK : EXIT_FAILED;
  }
  doc = yyjson_read(body->p ? body->p : "", body->n, 0);
  message = mr_json_get_str(mr_json_get(yyjson_doc_get_root(doc), "error"), "message");
  fprintf(stderr, "moonrig: the server answered %ld: " MR_FMT "\n", status,
          MR_ARG(message.n ? message : mr_buf_get(body)));
  if (status == 401) fprintf(stderr, "moonrig: give a key with --key or MOONRIG_API_KEY\n");
  yyjson_doc_free(doc);
  return EXIT_FAILED;
}

CURL *mr_client_curl(struct settings *s, const char *path, const char *type, struct mr_buf *url,
                     struct curl_slist **headers)
{
  CURL *h = curl_easy_init();
  char auth[512];

  set_target(h, s->url, path, url);
  if (type) *headers = curl_slist_append(*headers, type);
  *headers = curl_slist_append(*headers, "anthropic-version: 2026-10-21");
  *headers = curl_slist_append(*headers, "anthropic-beta: managed-agents-2026-04-01");
  *headers = curl_slist_append(*headers, "expect:");
  if (s->key) {
    snprintf(auth, sizeof auth, "authorization: Bearer %s", s->key);
    *headers = curl_slist_append(*headers, auth);
  }
  curl_easy_setopt(h, CURLOPT_HTTPHEADER, *headers);
  curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(h, CURLOPT_PROXY, "");
  return h;
}

static int http(struct settings *s, const char *verb, const char *path, const char *body, char **out)
{
  struct mr_mem mem;
  struct mr_buf url, reply;
  struct curl_slist *headers = NULL;
  CURL *h;
  CURLcode rc;
  int status;

  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&url, &mem, 1 << 20);
  mr_buf_init(&reply, &mem, RESPONSE_MAX);
  h = mr_client_curl(s, path, "content-type: application/json", &url, &headers);
  curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, verb);
  if (body) curl_easy_setopt(h, CURLOPT_POSTFIELDS, body);
  curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, collect);
  curl_easy_setopt(h, CURLOPT_WRITEDATA, &reply);
  curl_easy_setopt(h, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
  rc = curl_easy_perform(h);
  if (rc != CURLE_OK) {
    fprintf(stderr, "moonrig: %s: %s\n", s->url, curl_easy_strerror(rc));
    status = EXIT_UNREACHABLE;
  } else {
    status = mr_client_answer(h, &reply, out);
  }
  curl_slist_free_all(headers);
  curl_easy_cleanup(h);
  mr_buf_free(&url);
  mr_buf_free(&reply);
  return status;
}

/* ---- an operation as a request ---- */

static void escape(struct mr_buf *b, struct mr_str v)
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
int mr_client_path(const char *pattern, yyjson_val *in, struct mr_buf *b)
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
    escape(b, v);
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
  escape(b, yyjson_is_str(v) ? mr_json_str(v) : mr_buf_get(&t));
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

static int remote(struct settings *s, const char *verb, const char *pattern, const char *json, char **out)
{
  yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
  struct mr_mem mem;
  struct mr_buf path;
  bool post = strcmp(verb, "POST") == 0;
  int status;

  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&path, &mem, 1 << 20);
  status = mr_client_path(pattern, yyjson_doc_get_root(doc), &path);
  if (status == EXIT_OK && !post) write_query(yyjson_doc_get_root(doc), pattern, &path);
  if (status == EXIT_OK) status = http(s, verb, path.p, post ? json : NULL, out);
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
  if (local && strcmp(verb, "GET") == 0 && strcmp(s->data, ":memory:") != 0 &&
      access(s->data, F_OK) != 0) { /* what only looks makes no store */
    fprintf(stderr, "moonrig: no server runs on %s, and it does not exist; give --data or --url\n", s->data);
    return EXIT_UNREACHABLE;
  }
  if (local) return in_place(s, op, json, out);
  fprintf(stderr, "moonrig: no server runs on %s; start one with moonrig serve, or give --url\n", s->data);
  return EXIT_UNREACHABLE;
}

int mr_client_control(struct settings *s, const char *json, char **out)
{
  *out = NULL;
  s->url = mr_client_url(s);
  if (s->url) return http(s, "POST", "/moonrig/v1/control", json, out);
  fprintf(stderr, "moonrig: no server runs on %s; start one with moonrig serve, or give --url\n", s->data);
  return EXIT_UNREACHABLE;
}
