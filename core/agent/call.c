/* call.c - answering an operation's call; see domain.h. The face is told from the drain, so that a call that
 * ends at once and one that waits for the store look the same to it. */
#include "agent/agent_t.h"

#include <stdio.h>

static void tell(struct mr_ready *r)
{
  struct mr_call *c = MR_OF(r, struct mr_call, ready);
  c->done(c);
}

void mr_call_done(struct mr_call *c, int code)
{
  if (code == MR_OK && c->out.failed)
    code = mr_err_set(&c->err, c->out.failed, NULL, "the response is too large");
  c->code = code;
  if (code != MR_OK) {
    if (c->err.code == MR_OK) mr_err_set(&c->err, code, NULL, "%s", mr_strerror(code));
    mr_buf_free(&c->out);
  }
  snprintf(c->err.request_id, sizeof c->err.request_id, MR_FMT, MR_ARG(c->who.request_id));
  mr_ready_init(&c->ready, tell);
  mr_ready_post(c->d->loop, &c->ready);
}

void mr_call_fail(struct mr_call *c, int code, const char *field, const char *fmt, ...)
{
  char text[sizeof c->err.message];
  va_list ap;

  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  mr_call_done(c, mr_err_set(&c->err, code, field, "%s", text));
}

void mr_call_fail_err(struct mr_call *c, const struct mr_err *err)
{
  if (err)
    mr_err_copy(&c->err, err);
  else
    mr_err_nomem(&c->err);
  mr_call_done(c, c->err.code);
}

void mr_not_found(struct mr_call *c, const char *what, struct mr_str id)
{
  mr_call_done(c, mr_read_check(c, &(struct mr_rows){.code = MR_E_NOTFOUND}, NULL, what, id));
}

int mr_read_check(struct mr_call *c, const struct mr_rows *r, const char *field, const char *what,
                  struct mr_str id)
{
  struct mr_str shown = mr_str_n(id.p, mr_utf8_cut(id, 80));

  if (r->code == MR_OK && r->n > 0) return MR_OK;
  if (r->code == MR_OK || r->code == MR_E_NOTFOUND)
    return mr_err_set(&c->err, MR_E_NOTFOUND, field, "%s " MR_FMT " not found", what, MR_ARG(shown));
  mr_err_copy(&c->err, r->err);
  return r->code;
}
