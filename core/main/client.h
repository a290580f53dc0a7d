/*
 * client - how the commands reach the system: over HTTP when a server runs (--url, or the one of the data
 * directory), else in the data directory itself. The same operation, the same JSON.
 */
#ifndef MR_MAIN_CLIENT_H
#define MR_MAIN_CLIENT_H

#include "main/settings.h"

/* For the help of the commands that speak to a server. */
#define CLIENT_OPTIONS                                                                                         \
  "  --url URL     the server (MOONRIG_URL, ANTHROPIC_BASE_URL; default: the one that serves --data)\n"        \
  "  --key KEY     an API key of that server (MOONRIG_API_KEY, ANTHROPIC_API_KEY)\n"                           \
  "  --data DIR    the data directory (default ./moonrig-data, or MOONRIG_DATA)\n"                             \
  "  --json        print the answer as JSON\n"

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

#endif
