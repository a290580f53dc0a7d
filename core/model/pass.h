/*
 * pass - requests of the Messages API (POST /v1/messages and /v1/messages/count_tokens) that are passed through to
 * whoever serves the model: same routes, limits, lines and fallbacks as the agents' own model calls.
 *
 * To a provider of kind anthropic they go as they are, byte for byte but for the model's name where the route has
 * another one there; the answer comes back the same way, errors too. For any other kind the request is translated
 * into a model call, and the answer is made of what that gives: a message, or the events of its stream.
 * count_tokens is passed through only: nobody else counts as the model would, and a guess would pass for a number.
 *
 * Loop thread. Callbacks come from the drain, never inside a function of this header. done once, last.
 */
#ifndef MR_MODEL_PASS_H
#define MR_MODEL_PASS_H

#include "model/model.h"

struct mr_pass; /* one request in flight; valid until done was called */

struct mr_pass_req {
  bool count;                   /* count_tokens */
  bool beta;                    /* the client said ?beta=true */
  struct mr_str body;           /* the JSON text; borrowed until done */
  struct mr_str version, betas; /* the client's anthropic-version and anthropic-beta; may be empty */
  struct mr_str request_id;     /* ours: in errors that are ours */
};
enum { MR_PASS_LINES = 48 }; /* of a head, at most; rate limits alone are over twenty */
struct mr_pass_cbs {
  /* Once, before any data, unless it is cancelled. lines: "name: value", without the framing; length -1: streamed. */
  void (*head)(void *ud, int status, const struct mr_str *lines, int n, int64_t length);
  /* MR_OK; MR_MORE: no more until mr_pass_resume. */
  int (*data)(void *ud, struct mr_str bytes);
  void (*done)(void *ud, bool whole); /* not whole: the answer broke off, and the client has to notice */
};
/* MR_E_INVALID or MR_E_NOTFOUND (no such model) name what is wrong with the request; MR_E_FULL: too much is being
 * passed through at once; nothing is called then. */
int mr_models_pass(struct mr_models *m, const struct mr_pass_req *req, const struct mr_pass_cbs *cbs, void *ud,
                   struct mr_pass **out, struct mr_err *err);
void mr_pass_resume(struct mr_pass *p);
void mr_pass_cancel(struct mr_pass *p); /* nothing but done comes after it */

#endif
