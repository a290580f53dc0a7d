/*
 * err - filling struct mr_err where a failure happens. It becomes an HTTP body, a Lua error or a log
 * line only at a face. All functions accept err == NULL and return the code given, for
 * `return mr_err_set(...)`.
 */
#ifndef MR_BASE_ERR_H
#define MR_BASE_ERR_H

#include "base/str.h"

/* Sets code with its usual HTTP status and API type (MR_E_INVALID -> 400 invalid_request_error, ...:
 * the table of spec §1.11), field (NULL = none) and a printf message. */
int mr_err_set(struct mr_err *err, int code, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Same, with a machine code (details.error_code). */
int mr_err_code(struct mr_err *err, int code, const char *error_code, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
int mr_err_nomem(struct mr_err *err);
/* errno as MR_E_IO, or MR_E_UNAVAILABLE for ENOSPC/EDQUOT: "what: No space left on device". */
int mr_err_errno(struct mr_err *err, const char *what);
void mr_err_copy(struct mr_err *to, const struct mr_err *from);
/* HTTP status and API type of a code, as mr_err_set fills them. */
int mr_err_http_status(int code);
const char *mr_err_type(int code);

#endif
