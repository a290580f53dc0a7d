/* sessions - what the files that carry out operations on sessions share. */
#ifndef MR_AGENT_SESSIONS_H
#define MR_AGENT_SESSIONS_H

#include "agent/session_t.h"

/* Answers c with the session as the store has it. */
void mr_session_answer(struct mr_call *c, struct mr_str id);

#endif
