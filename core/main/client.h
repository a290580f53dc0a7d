/*
 * client - how the commands reach the system: over HTTP when a server runs (--url, or the one of the data
 * directory), else in the data directory itself. The same operation, the same JSON.
 */
#ifndef MR_MAIN_CLIENT_H
#define MR_MAIN_CLIENT_H

#include "base/buf.h"
#include "main/settings.h"

/* For the help of the commands that speak to a server. */
#define CLIENT_OPTIONS                                                                                         \
  "  --url URL     the server (MOONRIG_URL, ANTHROPIC_BASE_URL; default: the one that serves --data)\n"        \
  "  --key KEY     an API key of that server (MOONRIG_API_KEY, ANTHROPIC_API_KEY)\n"                           \
  "  --data DIR    the data directory (default ./moonrig-data, or MOONRIG_DATA)\n"                             \
  "  --json        print the answer as JSON\n"

#define CLIENT_BETA "managed-agents-2026-04-01" /* of anthropic-beta */

/* Carries out an operation. *out: the response's JSON text (mr_main_free). local: may open the data directory when
 * no server is found. 0, or the exit status after it said why. */
int mr_client_op(struct settings *s, const char *op, const char *json, bool local, char **out);
/* The same for an operation that downloads: its bytes go to `to`, which has nothing of them when it failed early. */
int mr_client_download(struct settings *s, const char *op, const char *json, FILE *to);
/* And for one that uploads the file at path ("-": standard input). json: its fields, strings. */
int mr_client_upload(struct settings *s, const char *op, const char *json, const char *path, char **out);
/* POST /moonrig/v1/control. */
int mr_client_control(struct settings *s, const char *json, char **out);
/* Where the server is, for `env`: the URL or NULL. */
const char *mr_client_url(struct settings *s);
/* As mr_client_url, into s->url; EXIT_UNREACHABLE after it said that there is none. */
int mr_client_find(struct settings *s);

/* ---- one request ---- */

struct client_request {
  const char *verb, *path; /* path with its query */
  const char *body;        /* JSON; NULL: none */
  const char *beta;        /* what anthropic-beta holds; NULL: none */
  const char *upload;      /* a file that is sent as the part "file", "-": standard input; NULL: none */
  yyjson_val *parts; /* of an upload: filename and media_type of it, other members as parts of their own */
  /* Gets the bytes of a success as they come, without a time limit for all of them; false stops. NULL: they are
   * collected into *out. */
  bool (*sink)(void *ud, struct mr_str bytes);
  void *ud;
};
/* Sends it to s->url. 0, or the exit status after it said why (--json: with the error as the server wrote it). */
int mr_client_http(struct settings *s, const struct client_request *q, char **out);
/* The line of ops.def with this name: false, and nothing set, when there is none. */
bool mr_client_op_named(const char *op, const char **verb, const char **path, unsigned *flags);
void mr_client_escape(struct mr_buf *b, struct mr_str v); /* percent coding of all but unreserved characters */
/* The path of an operation with its parameters out of in, and for GET and DELETE the rest of in as a query. EXIT_USAGE
 * after it said which parameter is missing. */
int mr_client_path(const char *verb, const char *pattern, yyjson_val *in, struct mr_buf *b);

#endif
