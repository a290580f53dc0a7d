/* client_t - what client.c and client_bytes.c share. */
#ifndef MR_MAIN_CLIENT_T_H
#define MR_MAIN_CLIENT_T_H

#include "main/client.h"
#include "base/buf.h"

#include <curl/curl.h>

/* A request to the server s->url, with its headers (type: of the body, or NULL); both are the caller's. */
CURL *mr_client_curl(struct settings *s, const char *path, const char *type, struct mr_buf *url,
                     struct curl_slist **headers);
/* The exit status of an answer; *out: its body. Says on stderr what the server says against it. */
int mr_client_answer(CURL *h, struct mr_buf *body, char **out);
/* An operation's path, its parameters taken from the input. 0, or the exit status after it said why. */
int mr_client_path(const char *pattern, yyjson_val *in, struct mr_buf *b);
bool mr_client_op_named(const char *op, const char **verb, const char **path, unsigned *flags);

#endif
