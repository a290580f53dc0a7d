/* events - client events: checking a batch against the session's state, and storing it in one commit. */
#ifndef MR_AGENT_EVENTS_H
#define MR_AGENT_EVENTS_H

#include "agent/content.h"
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
  struct mr_str rubric;      /* the text of a rubric that is a file: mr_rubric_read */
  struct mr_file_refs files; /* that their blocks refer to: mr_file_refs_read */
};
/* Reads the file that the rubric of an outcome among events names, if one does: fn, once, at once or from the drain,
 * with its text (empty: there is none to read), valid as long as c; on failure c->err names field. */
void mr_rubric_read(struct mr_call *c, yyjson_val *events, const char *field,
                    void (*fn)(void *ud, int code, struct mr_str text), void *ud);

/* Checks in.events (field names the array in messages) one after the other against s (NULL: a session
 * about to be made, messages only). One bad event refuses all: nothing is stored. */
int mr_events_check(struct mr_call *c, struct mr_session *s, yyjson_val *events, const char *field,
                    struct mr_event_batch *out);
/* The hooks of accept are asked about a batch that was checked, before anything of it is stored. What they make
 * of it is to be checked again, as if the client had sent it: also because the session went on meanwhile. */
struct mr_accept {
  struct mr_question q;
  struct mr_call *c;
  yyjson_doc *doc; /* what they changed, until mr_accept_end */
  void (*done)(struct mr_accept *a, int code);
};
/* True: done comes, once, from the drain or from mr_accept_cancel; not MR_OK: c->err says why. False: no hook
 * wants to be asked, or the batch only interrupts, which nothing may hold up. a lives until done. */
bool mr_accept_ask(struct mr_accept *a, struct mr_call *c, struct mr_str session_id,
                   const struct mr_subject *who, yyjson_val *events,
                   void (*done)(struct mr_accept *a, int code));
void mr_accept_cancel(struct mr_accept *a); /* when it is open: done with MR_E_CANCELLED */
/* The events as they are to be stored; sent: as the client sent them. */
yyjson_val *mr_accept_events(const struct mr_accept *a, yyjson_val *sent);
void mr_accept_end(struct mr_accept *a); /* frees what they changed; also when none was asked */
/* Adds an inbox row to a commit. */
void mr_events_inbox_add(struct mr_commit *cm, struct mr_str session_id, const struct mr_event_in *e);

#endif
