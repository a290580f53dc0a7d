/* err.c - struct mr_err and the table from codes to HTTP; see err.h. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

struct code_info {
  int code, http;
  const char *type, *text;
};

static const struct code_info codes[] = {
    {MR_E_NOMEM, 503, "api_error", "out of memory"},
    {MR_E_INVALID, 400, "invalid_request_error", "invalid request"},
    {MR_E_STATE, 400, "invalid_request_error", "not possible in this state"},
    {MR_E_BUSY, 503, "api_error", "in use by another process"},
    {MR_E_FULL, 529, "overloaded_error", "a queue is full"},
    {MR_E_REENTRANT, 500, "api_error", "called from inside a callback"},
    {MR_E_FORKED, 500, "api_error", "the runtime belongs to the parent process"},
    {MR_E_NOTFOUND, 404, "not_found_error", "not found"},
    {MR_E_CONFLICT, 409, "conflict_error", "conflict"},
    {MR_E_AUTH, 401, "authentication_error", "not authenticated"},
    {MR_E_DENIED, 403, "permission_error", "not allowed"},
    {MR_E_TOO_LARGE, 413, "request_too_large", "too large"},
    {MR_E_LIMIT, 429, "rate_limit_error", "too many requests"},
    {MR_E_TIMEOUT, 504, "timeout_error", "timed out"},
    {MR_E_CANCELLED, 499, "api_error", "cancelled"},
    {MR_E_CLOSED, 503, "api_error", "closing"},
    {MR_E_IO, 500, "api_error", "input or output failed"},
    {MR_E_UNAVAILABLE, 503, "api_error", "unavailable"},
    {MR_E_UNSUPPORTED, 501, "api_error", "not supported"},
    {MR_E_PROTOCOL, 502, "api_error", "protocol error"},
    {MR_E_INTERNAL, 500, "api_error", "internal error"},
};

static const struct code_info *code_find(int code)
{
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
    if (codes[i].code == code) return &codes[i];
  return &codes[sizeof codes / sizeof *codes - 1];
}

const char *mr_strerror(int code)
{
  return code >= 0 ? "ok" : code_find(code)->text;
}

int mr_version_number(void)
{
  return MR_VERSION_NUMBER;
}

int mr_err_http_status(int code)
{
  return code >= 0 ? 200 : code_find(code)->http;
}
const char *mr_err_type(int code)
{
  return code_find(code)->type;
}

static int err_fill(struct mr_err *err, int code, const char *error_code, const char *field, const char *fmt,
                    va_list ap)
{
  struct mr_err e = {.size = sizeof e, .code = code, .http_status = mr_err_http_status(code)};

  if (!err) return code;
  /* Built aside: the arguments may point into *err, when a caller adds to an error. */
  snprintf(e.type, sizeof e.type, "%s", mr_err_type(code));
  snprintf(e.error_code, sizeof e.error_code, "%s", error_code ? error_code : "");
  snprintf(e.field, sizeof e.field, "%s", field ? field : "");
  vsnprintf(e.message, sizeof e.message, fmt, ap);
  e.message[mr_utf8_whole(mr_str_c(e.message))] = '\0';
  *err = e;
  return code;
}

int mr_err_set(struct mr_err *err, int code, const char *field, const char *fmt, ...)
{
  va_list ap;
  va_start(ap, fmt);
  err_fill(err, code, NULL, field, fmt, ap);
  va_end(ap);
  return code;
}

int mr_err_code(struct mr_err *err, int code, const char *error_code, const char *field, const char *fmt, ...)
{
  va_list ap;
  va_start(ap, fmt);
  err_fill(err, code, error_code, field, fmt, ap);
  va_end(ap);
  return code;
}

int mr_err_nomem(struct mr_err *err)
{
  return mr_err_set(err, MR_E_NOMEM, NULL, "out of memory");
}

int mr_err_errno(struct mr_err *err, const char *what)
{
  int e = errno;
  char text[128];
  int code = e == ENOSPC || e == EDQUOT ? MR_E_UNAVAILABLE : e == ENOMEM ? MR_E_NOMEM : MR_E_IO;
  return mr_err_set(err, code, NULL, "%s: %s", what, strerror_r(e, text, sizeof text));
}

void mr_err_copy(struct mr_err *to, const struct mr_err *from)
{
  if (to && from && to != from) *to = *from;
}
