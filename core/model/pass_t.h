/*
 * pass_t - a request that is passed through: what pass.c (its life and its candidates), pass_raw.c (to the Messages
 * API) and pass_form.c with pass_events.c (to anything else) share.
 */
#ifndef MR_MODEL_PASS_T_H
#define MR_MODEL_PASS_T_H

#include "model/failure.h"
#include "model/models_t.h"
#include "model/pass.h"
#include "model/patience.h"

struct mr_pass {
  struct mr_tries tries;
  struct mr_models *m; /* counted: for its counters */
  const struct mr_mem *mem;
  struct mr_loop *loop;
  struct mr_arena *arena;
  struct mr_pass_req req;
  struct mr_pass_cbs cbs;
  void *ud;
  yyjson_doc *doc; /* the body */
  struct mr_str model;
  bool stream;
  bool cancelled, headed, told; /* headed: head was called */
  struct mr_ready ready;        /* an end that comes from the drain */
  int64_t received;             /* bytes of the answer */
  /* an error of ours, when nobody gave an answer */
  int status;
  const char *type;
  char why[600];
  int64_t retry_after_ms;
  /* raw */
  struct mr_http_out *out;
  struct mr_patience patience;
  struct mr_str parts[3];
  struct mr_buf refusal; /* body of an error, to be cleaned of keys */
  int up_status;
  int64_t wait_ms;
  bool give_up; /* the next candidate is to be asked */
  struct mr_str lines[MR_PASS_LINES];
  int nlines;
  struct mr_str key; /* of the upstream at hand */
  /* translated */
  struct mr_model_call *inner;
  struct mr_buf text; /* fragments, then events */
  bool began;         /* message_start was sent */
  bool held;          /* a block came that is sent only when it is whole */
  int sent;           /* blocks that the client has, in part or whole */
  int open;           /* the last of them is open: its index, or -1 */
  char id[MR_ID_MAX];
};

/* ---- pass.c ---- */
void mr_pass_over(struct mr_pass *p, bool whole); /* calls done and frees p */
/* Nobody answered: an error in the API's form, and over. */
void mr_pass_error(struct mr_pass *p, int status, const char *type, int64_t retry_after_ms, struct mr_str why);
/* The candidate at hand failed in a way that another may not. True: that one is asked now. */
bool mr_pass_next(struct mr_pass *p, struct mr_str why);
/* An error object in the API's form. */
void mr_pass_envelope(const struct mr_pass *p, const char *type, struct mr_str why, struct mr_buf *out);

/* ---- pass_raw.c ---- */
int mr_pass_raw(struct mr_pass *p, struct mr_err *err); /* asks tries.t[at], of kind anthropic */

/* ---- pass_form.c ---- */
int mr_pass_form(struct mr_pass *p, struct mr_err *err); /* asks tries.t[at], of another kind */

/* ---- pass_events.c ---- */
void mr_pass_block(struct mr_pass *p, struct mr_str kind);
void mr_pass_text(struct mr_pass *p, struct mr_str delta);
void mr_pass_finish(struct mr_pass *p, const struct mr_model_reply *m); /* whole: the rest, or the message */
void mr_pass_break(struct mr_pass *p, const char *type, struct mr_str why); /* an error within the stream */

#endif
