/*
 * outcome - what a session is to achieve, and its grading (API: sessions §11): user.define_outcome gives the agent a
 * task and a rubric; a turn that would end is graded by a model with a context of its own, and goes on with what the
 * grader found until the rubric is met or the allowance is spent.
 *
 * outcome.c is the state and the rows, outcome_grade.c one question to the grader, outcome_files.c what the agent has
 * written. One outcome is active at a time, in the primary thread. Loop thread, but for the job that reads files.
 */
#ifndef MR_AGENT_OUTCOME_H
#define MR_AGENT_OUTCOME_H

#include "agent/session_t.h"

enum { MR_RUBRIC_MAX = 262144 /* characters */, MR_ITERATIONS_MAX = 20, MR_ITERATIONS = 3 };

enum mr_result {
  MR_RESULT_PENDING, /* its agent has not begun */
  MR_RESULT_RUNNING,
  MR_RESULT_EVALUATING,
  MR_RESULT_SATISFIED, /* this and the following are final */
  MR_RESULT_MAX_ITERATIONS,
  MR_RESULT_FAILED,
  MR_RESULT_INTERRUPTED
};

struct mr_grade; /* a question to the grader that is under way */

struct mr_outcome {
  struct mr_outcome *next; /* older ones first */
  char id[MR_ID_LEN];
  struct mr_str description, rubric; /* session memory */
  int max_iterations, iteration;     /* iteration: evaluations that ended, but the last */
  enum mr_result result;
  struct mr_str explanation; /* of the latest evaluation */
  int64_t completed_us;
  char start_id[MR_ID_LEN]; /* evaluation without end, or "" */
};

/* ---- state: a list of outcomes, as rows make it (state.c calls; copy_rest.c for a copy's). mem: the list's ---- */
struct mr_outcome *mr_outcomes_add(struct mr_arena *mem, struct mr_outcome **list,
                                   yyjson_val *event); /* or NULL */
void mr_outcomes_taken(struct mr_outcome *list);       /* the agent was given its mail */
void mr_outcomes_start(struct mr_outcome *list, yyjson_val *event);
int mr_outcomes_end(struct mr_arena *mem, struct mr_outcome *list, yyjson_val *event, int64_t at);
struct mr_outcome *mr_outcomes_active(struct mr_outcome *list);         /* NULL: none */
void mr_outcomes_write(struct mr_jw *w, const struct mr_outcome *list); /* outcome_evaluations, an array */
int mr_outcome_apply_define(struct mr_session *s, yyjson_val *event);
struct mr_outcome *mr_outcome_active(const struct mr_session *s); /* NULL: none */
bool mr_outcome_pending(const struct mr_session *s); /* is one defined that its agent has not begun? */

/* ---- the machine ---- */
/* The primary's turn would end: true, it is graded first; the evaluation's start was written. */
bool mr_outcome_grades(struct mr_txn *t);
/* A child's turn ended without a report, by an interrupt or by its archiving: was that all that grading waited for? */
void mr_outcome_resume(struct mr_txn *t);
bool mr_outcome_evaluating(const struct mr_thread *th); /* is this thread's turn being graded? */
/* Asks the grader, unless it is asked already. After the commit of the evaluation's start, or a restart. */
void mr_outcome_begin(struct mr_session *s);
void mr_outcome_interrupted(struct mr_txn *t); /* rows; before the idle of the interrupted primary */
void mr_outcome_forget(struct mr_session *s);  /* what is under way; after a restart it is begun again */
void mr_outcome_drain(struct mr_session *s);   /* nothing is tried again from here on */

/* ---- outcome_grade.c ---- */
struct mr_verdict_of {
  int code; /* MR_OK: there is a verdict; else message says why there is none */
  bool transient;
  struct mr_str result, explanation, message, model;
  struct mr_usage usage;
};
struct mr_str mr_grade_model(const struct mr_session *s); /* who is asked; borrowed */
/* fn once, from the drain, never inside the call, unless dropped before. files: what the agent wrote, as text. */
int mr_grade_ask(struct mr_session *s, const struct mr_outcome *o, struct mr_str files,
                 void (*fn)(void *ud, const struct mr_verdict_of *v), void *ud, struct mr_model_call **call,
                 struct mr_err *err);

/* ---- outcome_files.c ---- */
/* The files below the session's outputs directory as text for a grader, bounded; on MR_OK fn once, from the drain; s is
 * held until then. */
int mr_outcome_files(struct mr_session *s, void (*fn)(void *ud, struct mr_str text), void *ud);

#endif
