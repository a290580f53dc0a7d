/*
 * why_t - what a look into a session's log found: who waits for what. why.c fills it from the store, why_text.c makes
 * sentences and JSON of it. Lives in the call's arena. Loop thread.
 *
 * It is read from rows alone, the session need not be loaded, and nothing of it is ever decided on: what a session
 * does is turn.c's.
 */
#ifndef MR_AGENT_WHY_T_H
#define MR_AGENT_WHY_T_H

#include "agent/agent_t.h"

/* A tool call: of the newest replies, or one that an idle session names. */
struct mr_why_use {
  struct mr_why_use *next;
  struct mr_str id, name, type, server; /* type empty: only something that refers to it was seen */
  int64_t at_us, intent_us;
  bool ask, deny, confirmed, resolved, outcome, claim_seen, claimed;
  bool named;                   /* by the idle event of the session */
  struct mr_why_thread *thread; /* whose it is */
};

/* A thread: the primary (first, id as in the head), and those that are not over. */
struct mr_why_thread {
  struct mr_why_thread *next;
  struct mr_str id, name;
  struct mr_str status; /* of children: running, idle, rescheduled, terminated; empty: not seen yet */
  struct mr_str stop;   /* type of the stop reason */
  int64_t since_us;
  /* of its own log */
  bool span_seen, span_open, before_seen, grade_seen, grading, retry_seen;
  int64_t span_us, grade_us, retry_due_us;
  int64_t before_tokens; /* of an open request: what the one before it, and its reply, held */
  int retry, iteration;
  struct mr_str error, error_message, error_retry; /* its newest session.error */
};

struct mr_why {
  struct mr_call *c;
  struct mr_why_thread *threads, **threads_tail, *reading; /* reading: whose log is being read */
  struct mr_why_use *uses;                                 /* oldest first */
  struct mr_why_use **named;                               /* those of the newest idle event, in its order */
  int64_t pos;                                             /* the reading goes on before this row */
  int pages;
  /* the session */
  struct mr_str status, model, cost; /* cost: cents */
  struct mr_caps caps;               /* of its budget, else of the configuration */
  enum mr_cap cap;                   /* the one that is reached, or MR_CAPS */
  int64_t cap_used, cap_max;
  struct mr_str cap_thread, cap_tool; /* of repeats */
  bool default_caps;
  int64_t created_us, archived_us, due_us, since_us, now_us;
  bool multiagent, status_seen, interrupted, begun;
  struct mr_str stop, explanation; /* of its newest idle event; explanation: of a refusal */
  int nnamed, nfound;              /* calls that it names; of those the ones seen */
  int queued;                      /* inputs that wait in the inbox */
  bool self_hosted;                /* the client runs the built-in tools */
  struct mr_str doing;             /* of the sandbox, before it runs anything: "npm 2/6, express@4" */
  int revision;                    /* of its outcome, that is under way; or 0 */
};

/* The answer of the operation, into c->out. */
void mr_why_write(struct mr_why *y);

#endif
