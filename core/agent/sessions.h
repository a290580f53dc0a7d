/* sessions - what the files that carry out operations on sessions share: the answer, money. */
#ifndef MR_AGENT_SESSIONS_H
#define MR_AGENT_SESSIONS_H

#include "agent/session_t.h"

/* Answers c with the session as the store has it. */
void mr_session_answer(struct mr_call *c, struct mr_str id);
/* Its budget's cap in nanocents, from the client's part; 0: none. */
int64_t mr_session_cap(const struct mr_session *s);
/* What it cost so far at list price, in nanocents, running time included. */
int64_t mr_session_cost(const struct mr_session *s);
/* The budget was raised or removed, durably: the machine goes on with what waits at it. */
void mr_turn_budget_changed(struct mr_session *s) __attribute__((weak));

#endif
