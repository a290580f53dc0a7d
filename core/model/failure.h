/*
 * failure - reading what an upstream says when it fails: which class of failure it is (retry or not),
 * how long it asks to wait, and a message that is safe to store and show. Private to this room.
 *
 * Invariant: no text that leaves here holds the upstream key, or anything shaped like a key; upstreams
 * do quote the key that they refuse.
 */
#ifndef MR_MODEL_FAILURE_H
#define MR_MODEL_FAILURE_H

#include "model/model.h"

enum { MR_FAILURE_TEXT = 600 }; /* bytes of a message, NUL included */

struct mr_failure {
  enum mr_model_status status; /* MR_MODEL_OK: nothing failed */
  int64_t retry_after_ms;
  char message[MR_FAILURE_TEXT];
};

/* Class of an HTTP status (0 = an error inside a stream) with the error type, code and text given. */
enum mr_model_status mr_failure_class(int http_status, struct mr_str type, struct mr_str code,
                                      struct mr_str text);
/* Fills status and message "who: fmt..."; key is scrubbed from it. Keeps an earlier failure. */
void mr_failure_set(struct mr_failure *f, enum mr_model_status st, const char *who, struct mr_str key,
                    const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Fills f from an error object: {"type","message","code"}, a string, or NULL. */
void mr_failure_from(struct mr_failure *f, const struct mr_mem *m, const char *who, struct mr_str key,
                     int http_status, struct mr_str body);
/* Milliseconds of retry-after-ms, else of retry-after (seconds, or a date, from now_us of the wall clock); 0 when
 * neither; at most a day. */
int64_t mr_failure_wait(struct mr_str headers, int64_t now_us);
/* Removes key and everything shaped like one, control characters and broken UTF-8, in place. */
void mr_failure_scrub(char *s, struct mr_str key);

#endif
