/*
 * turn_model_t - a model request in flight: what turn_model.c (request, previews), turn_ask.c (its hooks) and
 * turn_reply.c (the rows of the reply) share.
 */
#ifndef MR_AGENT_TURN_MODEL_T_H
#define MR_AGENT_TURN_MODEL_T_H

#include "agent/judge.h"
#include "agent/session_t.h"

struct mr_part { /* a text run or a thinking block of the reply, as previewed */
  struct mr_part *next;
  bool thinking, started; /* started: event_start was published */
  char id[MR_ID_LEN];
};
struct mr_piece { /* text that waits for the commit of the span's start */
  struct mr_piece *next;
  struct mr_part *part;
  int index;
  struct mr_str text;
};
/* INPUT, UNKNOWN: refused before any policy. */
enum mr_judged { MR_JUDGED_POLICY, MR_JUDGED_AUTO, MR_JUDGED_HOOK, MR_JUDGED_INPUT, MR_JUDGED_UNKNOWN };
struct mr_use { /* a tool call of the reply, on its way through the permit phase */
  struct mr_str id, name, input, message;
  char event_id[MR_ID_LEN];
  enum mr_tool_kind kind;
  enum mr_call_perm perm;
  enum mr_judged judged;
  struct mr_judgement verdict; /* MR_JUDGED_AUTO */
};

struct mr_model_run {
  struct mr_thread *th;
  struct mr_model_call *call; /* NULL once it is done */
  struct mr_arena *arena;
  struct mr_ready ready; /* a request that could not start fails from the drain */
  bool compact;          /* it asks for a summary of the history (compact.c) */
  bool dropped;          /* aborted: what comes is ignored */
  bool cut;              /* interrupted: cancelled, and its usage is waited for */
  bool late;             /* whole, but its previews wait for the commit of the span's start */
  int64_t seq;           /* the commit that holds the span's start */
  struct mr_model_req req;
  struct mr_question hook; /* the hooks of a phase are asked about it */
  struct mr_fill *fill;    /* files are being put into its messages (turn_files.c) */
  int permits;             /* calls that were put to the hooks of permit, or need not be */
  struct mr_part *parts, **parts_tail, *cur;
  int cur_index;
  struct mr_piece *early, **early_tail;
  yyjson_doc *reply;
  struct mr_use *uses;
  int nuses;
  struct mr_str stop_reason, stop_details;
  struct mr_usage usage;
  struct mr_err err;
};

/* ---- turn_model.c ---- */
void mr_run_start(struct mr_model_run *r);                                 /* sends it to the model */
void mr_run_finish(struct mr_model_run *r);                                /* records the reply, frees r */
void mr_run_refused(struct mr_model_run *r, struct mr_str why);            /* fails for good, frees r */
void mr_run_failed(struct mr_model_run *r, struct mr_str why);             /* it is tried again; frees r */
void mr_run_free(struct mr_model_run *r);                                  /* forgets it */
void mr_run_preview(struct mr_model_run *r, int index, yyjson_val *block); /* one that was given whole */

/* ---- turn_files.c ---- */
void mr_run_send(struct mr_model_run *r);    /* with the files that its messages refer to, at once or later */
bool mr_fill_waits(const struct mr_fill *f); /* a read is under way, whose end comes; f may be NULL */
void mr_fill_free(struct mr_fill *f);

/* ---- compact.c ---- */
int mr_compact_request(
    struct mr_model_run *r); /* makes the request, which has the history, one for a summary */
/* The summary's rows and what follows; frees r. False, and nothing done: the reply holds none. */
bool mr_compact_done(struct mr_model_run *r, const struct mr_model_reply *m);

/* ---- turn_ask.c ---- */
void mr_run_ask(struct mr_model_run *r);     /* context and model, then sends it, or has its reply */
void mr_run_permits(struct mr_model_run *r); /* its calls, one after the other, then finishes it */
/* The calls of the reply, and what the agent's policy says of them. */
int mr_run_uses(struct mr_model_run *r);

/* The rows of a whole reply, the end of its span included: what the log keeps for the model and what clients see
 * (turn_reply.c). */
void mr_reply_rows(struct mr_txn *t, struct mr_model_run *r);

#endif
