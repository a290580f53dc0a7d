/*
 * client_http.c - one HTTP request of a command, with libcurl: JSON, an upload, or an answer that is taken as it comes.
 * See client.h. An answer that is no success is read to its end and said, whoever wanted the bytes.
 * Blocking, on the command's only thread.
 */
#include "main/client.h"

#include <curl/curl.h>
#include <stdlib.h>

enum { RESPONSE_MAX = 64 << 20, TIMEOUT_S = 60 };

struct exchange {
  const struct client_request *q;
  CURL *h;
  struct mr_mem mem;
  struct mr_buf url, reply;
  struct curl_slist *headers;
  curl_mime *form;
  bool stopped; /* the sink wanted no more */
};

static long status_of(const struct exchange *e)
{
  long status = 0;
  curl_easy_getinfo(e->h, CURLINFO_RESPONSE_CODE, &status);
  return status;
}

static bool good(long status)
{
  return status >= 200 && status < 300;
}

static size_t take(char *p, size_t size, size_t n, void *ud)
{
  struct exchange *e = ud;

  if (e->q->sink && good(status_of(e))) {
    e->stopped = !e->q->sink(e->q->ud, (struct mr_str){p, size * n});
    return e->stopped ? 0 : size * n;
  }
  mr_buf_add(&e->reply, p, size * n);
  return e->reply.failed ? 0 : size * n;
}

/* ---- the request ---- */

/* "unix:/path" is a socket; anything else a URL. */
static void set_target(struct exchange *e, const char *base)
{
  if (strncmp(base, "unix:", 5) == 0) {
    curl_easy_setopt(e->h, CURLOPT_UNIX_SOCKET_PATH, base + 5);
    base = "http://localhost";
  }
  mr_buf_c(&e->url, base);
  while (e->url.n && e->url.p[e->url.n - 1] == '/')
    e->url.n--;
  mr_buf_c(&e->url, e->q->path);
  curl_easy_setopt(e->h, CURLOPT_URL, e->url.p);
}

static void add_header(struct exchange *e, const char *name, const char *value)
{
  char line[640];

  if (!value || snprintf(line, sizeof line, "%s: %s", name, value) >= (int)sizeof line) return;
  e->headers = curl_slist_append(e->headers, line);
}

static void set_headers(struct exchange *e, const struct settings *s)
{
  char auth[512];

  if (e->q->body) add_header(e, "content-type", "application/json");
  add_header(e, "anthropic-version", "2026-10-21");
  add_header(e, "anthropic-beta", e->q->beta);
  e->headers = curl_slist_append(e->headers, "expect:");
  if (s->key) {
    snprintf(auth, sizeof auth, "Bearer %s", s->key);
    add_header(e, "authorization", auth);
  }
  curl_easy_setopt(e->h, CURLOPT_HTTPHEADER, e->headers);
}

static size_t from_stdin(char *p, size_t size, size_t n, void *ud)
{
  (void)ud;
  return fread(p, size, n, stdin);
}

static void add_part(struct exchange *e, const char *name, yyjson_val *v)
{
  curl_mimepart *part = curl_mime_addpart(e->form);
  struct mr_buf text;

  mr_buf_init(&text, &e->mem, 1 << 20);
  if (yyjson_is_str(v))
    mr_buf_str(&text, mr_json_str(v));
  else
    mr_json_write(&text, v, false);
  curl_mime_name(part, name);
  curl_mime_data(part, text.p ? text.p : "", text.n);
  mr_buf_free(&text);
}

static int set_upload(struct exchange *e)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(e->q->parts);
  const char *path = e->q->upload, *slash = strrchr(path, '/');
  const char *name = yyjson_get_str(yyjson_obj_get(e->q->parts, "filename"));
  const char *type = yyjson_get_str(yyjson_obj_get(e->q->parts, "media_type"));
  bool input = strcmp(path, "-") == 0;
  curl_mimepart *part;
  yyjson_val *k;

  e->form = curl_mime_init(e->h);
  while ((k = yyjson_obj_iter_next(&it))) {
    const char *key = yyjson_get_str(k);
    if (strcmp(key, "filename") != 0 && strcmp(key, "media_type") != 0)
      add_part(e, key, yyjson_obj_iter_get_val(k));
  }
  part = curl_mime_addpart(e->form);
  if (input) {
    curl_mime_data_cb(part, -1, from_stdin, NULL, NULL, NULL);
  } else if (curl_mime_filedata(part, path) != CURLE_OK) {
    fprintf(stderr, "moonrig: %s: cannot be read\n", path);
    return EXIT_USAGE;
  }
  curl_mime_name(part, "file");
  curl_mime_filename(part, name ? name : input ? "upload" : slash ? slash + 1 : path);
  if (type) curl_mime_type(part, type);
  curl_easy_setopt(e->h, CURLOPT_MIMEPOST, e->form);
  return EXIT_OK;
}

static int set_all(struct exchange *e, const struct settings *s)
{
  set_target(e, s->url);
  set_headers(e, s);
  curl_easy_setopt(e->h, CURLOPT_WRITEFUNCTION, take);
  curl_easy_setopt(e->h, CURLOPT_WRITEDATA, e);
  if (!e->q->sink && !e->q->upload) curl_easy_setopt(e->h, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
  curl_easy_setopt(e->h, CURLOPT_CONNECTTIMEOUT, (long)TIMEOUT_S);
  curl_easy_setopt(e->h, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(e->h, CURLOPT_PROXY, "");
  if (e->q->upload) return set_upload(e);
  if (e->q->body) curl_easy_setopt(e->h, CURLOPT_POSTFIELDS, e->q->body);
  curl_easy_setopt(e->h, CURLOPT_CUSTOMREQUEST, e->q->verb);
  return EXIT_OK;
}

/* ---- the answer ---- */

static int refused(const struct settings *s, struct mr_str body, long status)
{
  yyjson_doc *doc = yyjson_read(body.n ? body.p : "", body.n, 0);
  struct mr_str message = mr_json_get_str(mr_json_get(yyjson_doc_get_root(doc), "error"), "message");

  if (s->json && doc)
    fprintf(stderr, MR_FMT "\n", MR_ARG(body));
  else
    fprintf(stderr, "moonrig: the server answered %ld: " MR_FMT "\n", status,
            MR_ARG(message.n ? message : body));
  if (status == 401) fprintf(stderr, "moonrig: give a key with --key or MOONRIG_API_KEY\n");
  yyjson_doc_free(doc);
  return EXIT_FAILED;
}

static int answer(struct exchange *e, const struct settings *s, CURLcode rc, char **out)
{
  if (rc == CURLE_PARTIAL_FILE || (rc == CURLE_RECV_ERROR && e->q->sink)) {
    fprintf(stderr, "moonrig: the server broke off: what came is not whole\n");
    return EXIT_FAILED;
  }
  if (rc != CURLE_OK && !e->stopped) {
    fprintf(stderr, "moonrig: %s: %s\n", s->url, curl_easy_strerror(rc));
    return EXIT_UNREACHABLE;
  }
  if (!good(status_of(e))) return refused(s, mr_buf_get(&e->reply), status_of(e));
  if (e->q->sink) return EXIT_OK;
  *out = mr_main_copy(mr_buf_get(&e->reply));
  return *out ? EXIT_OK : EXIT_FAILED;
}

int mr_client_http(struct settings *s, const struct client_request *q, char **out)
{
  struct exchange e = {.q = q, .h = curl_easy_init()};
  int status;

  mr_mem_init(&e.mem, NULL, NULL);
  mr_buf_init(&e.url, &e.mem, 1 << 20);
  mr_buf_init(&e.reply, &e.mem, RESPONSE_MAX);
  status = set_all(&e, s);
  if (status == EXIT_OK) status = answer(&e, s, curl_easy_perform(e.h), out);
  curl_slist_free_all(e.headers);
  curl_mime_free(e.form);
  curl_easy_cleanup(e.h);
  mr_buf_free(&e.url);
  mr_buf_free(&e.reply);
  return status;
}
