/* events - client events: checking a batch against the session's state, and storing it in one commit. */
#ifndef MR_AGENT_EVENTS_H
#define MR_AGENT_EVENTS_H

#include "agent/session_t.h"

/* One checked event of a batch. */
struct mr_event_in {
  char id[MR_ID_LEN];
  struct mr_str type, body; /* body: the stored form with "processed_at":null */
  char ref[MR_ID_LEN];      /* tool use that it answers */
  bool now;                 /* processed on receipt: a log row, not an inbox row */
  bool drop;                /* accepted without effect: echoed, not stored */
};
struct mr_event_batch {
  struct mr_event_in *v;
  int n;
};

/* Checks in.events (field names the array in messages) one after the other against s (NULL: a session
 * about to be made, messages only). One bad event refuses all: nothing is stored. */
int mr_events_check(struct mr_call *c, struct mr_session *s, yyjson_val *events, const char *field,
                    struct mr_event_batch *out);
/* Adds an inbox row to a commit. */
void mr_events_inbox_add(struct mr_commit *cm, struct mr_str session_id, const struct mr_event_in *e);

#endif
