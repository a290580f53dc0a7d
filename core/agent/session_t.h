/*
 * session_t - a loaded session: the state that its log rows add up to, and what runs for it now.
 *
 * One rule keeps live operation and recovery the same: state changes only in mr_state_apply(row), called
 * for a row when it is decided and for the same row when it is loaded again. A transition (turn*.c) decides
 * rows, applies them, and queues a commit (txn.c); replies, publications and effects wait for it. If a
 * commit fails the session is poisoned: dropped and loaded again from what is durable.
 *
 * Loop thread only. A session is unloaded when idle and nothing refers to it.
 */
#ifndef MR_AGENT_SESSION_T_H
#define MR_AGENT_SESSION_T_H

#include "agent/agent_t.h"

enum mr_status { MR_IDLE, MR_RUNNING, MR_RESCHEDULING, MR_TERMINATED };
enum mr_stop { MR_STOP_END_TURN, MR_STOP_REQUIRES_ACTION, MR_STOP_RETRIES, MR_STOP_REFUSAL };

/* GUARDED: a handler's tool behind a confirmation. To clients it is a tool of the server (agent.tool_use), as only
 * those can be confirmed. */
enum mr_tool_kind { MR_TOOL_BUILTIN, MR_TOOL_CUSTOM, MR_TOOL_GUARDED };
enum mr_call_perm { MR_PERM_ALLOW, MR_PERM_ASK, MR_PERM_DENY };

/* One tool call of the latest model reply. */
struct mr_tcall {
  char event_id[MR_ID_LEN];
  struct mr_str provider_id; /* the model's id of the call; session memory, like name and input */
  struct mr_str name, input;
  enum mr_tool_kind kind;
  enum mr_call_perm perm;
  int confirmed;        /* 0 not yet, 1 allowed, -1 denied by the client */
  bool owned;           /* custom: a handler in this process claimed it */
  bool idempotent;      /* of the owning handler */
  int attempt;          /* intents recorded: 1, more after a crash; 0 none */
  int64_t intent_seq;   /* the commit that holds the newest intent */
  bool resolved;        /* a result row exists */
  struct mr_str result; /* content blocks of the result row, or of the outcome below */
  bool is_error;
  bool finished; /* the tool is over; its result is not in a result row yet */
  /* not state: */
  bool running;            /* started in this process */
  bool recovering;         /* found unfinished at load: ask before starting */
  struct mr_tool_run *run; /* the host's handler */
  struct mr_question hook; /* the hooks of "tools" look at the result */
  struct mr_session *s;
  struct mr_timer deadline;
};

/* A client input that waits. */
struct mr_input {
  struct mr_input *next;
  char event_id[MR_ID_LEN];
  struct mr_str type, body; /* body: with "processed_at":null */
  char ref[MR_ID_LEN];      /* of a confirmation: the tool use */
  bool committed;
};

struct mr_subscriber { /* stream.c */
  struct mr_subscriber *next, **link;
  struct mr_call *call;
  struct mr_session *s;
  unsigned deltas;                /* 1 agent.message, 2 agent.thinking */
  bool sees_request;              /* was there when the running model request began */
  char preview_id[MR_ID_LEN];     /* event_start sent for this id */
  int64_t after;                  /* replay: rows up to here were sent */
  bool replaying;                 /* catching up from the store */
  int64_t missed;                 /* newest row published meanwhile */
  char find[MR_ID_LEN];           /* replay begins after this event, whose position is looked for; or "" */
  int64_t seek;                   /* it is before this position */
  bool open, behind;              /* the head is out; the reader is slow */
  struct mr_stream_read *reading; /* under way, or NULL */
};

struct mr_model_run;   /* turn_model.c: the model request in flight */
struct mr_commit_wait; /* txn.c */

struct mr_session {
  struct mr_domain *d;
  struct mr_session *hash_next, *lru_prev, *lru_next;
  int64_t ws;
  char id[MR_ID_LEN], primary[MR_ID_LEN];
  struct mr_arena *mem; /* the session's own strings; freed with it */
  /* from the row */
  int64_t rev, owner_epoch, created_us, updated_us, archived_us;
  struct mr_str agent_id, environment_id, deployment_id;
  int64_t agent_version;
  yyjson_doc *agent_doc, *doc; /* snapshot; the client's part (title, metadata, resources, ...) */
  struct mr_str agent_json, doc_json;
  struct mr_str agent_name, model, effort, speed;
  char *sandbox_ref; /* stored in the head */
  /* the machine's state: mr_state_apply only */
  enum mr_status status;
  enum mr_stop stop;
  int64_t last_us; /* highest processed_at */
  struct mr_usage usage;
  int64_t running_since_us, active_us;
  char span_id[MR_ID_LEN];           /* model request without end, or "" */
  bool reply_had_calls, wants_model; /* the turn goes on with a model request */
  bool terminated;
  int rounds;              /* tool rounds in this turn */
  int retries;             /* failed requests in a row */
  int64_t due_us, wait_us; /* wall time of the next try; how long that was when it was decided */
  struct mr_tcall **calls; /* of the latest reply, in call order */
  int ncalls, calls_cap;
  int blocked_n;          /* event ids of the latest requires_action idle */
  struct mr_str *history; /* message fragments for the model */
  int nhistory, history_cap;
  /* inputs */
  struct mr_input *inbox, **inbox_tail;
  /* what runs now */
  struct mr_ready step; /* mr_turn_step */
  struct mr_ready evict;
  struct mr_timer retry;
  struct mr_model_run *model_run;
  struct mr_question settle; /* may the turn end? */
  bool settle_wanted;        /* it is put to the hooks when all commits are durable */
  bool settled;              /* they have nothing against it */
  struct mr_sandbox *sandbox;
  int refs;              /* commits, calls and subscribers that hold the session */
  int64_t seq, done_seq; /* commits queued; commits durable */
  bool poisoned, deleted;
  struct mr_subscriber *subs;
  struct mr_str system, tools; /* fragments of the model request, made once */
  int64_t idle_since_us;
};

/* ---- session.c: loaded sessions ---- */
int mr_sessions_init(struct mr_domain *d, struct mr_err *err);
void mr_sessions_free(struct mr_domain *d);
/* The loaded session, or loads it: fn once, on the loop, never inside this call. MR_E_NOTFOUND. On MR_OK
 * the caller holds a reference (mr_session_unref). */
void mr_session_get(struct mr_domain *d, int64_t ws, struct mr_str id,
                    void (*fn)(void *ud, int code, struct mr_session *s, const struct mr_err *err), void *ud);
struct mr_session *mr_session_loaded(struct mr_domain *d, int64_t ws, struct mr_str id); /* or NULL */
void mr_session_ref(struct mr_session *s);
void mr_session_unref(struct mr_session *s);
/* A commit failed: nothing more is decided on this state; it is loaded again when wanted. */
void mr_session_poison(struct mr_session *s, const struct mr_err *err);
struct mr_str mr_session_copy(struct mr_session *s, struct mr_str str); /* into its memory; p NULL: none */
void mr_session_each(struct mr_domain *d, void (*fn)(struct mr_session *s));
int mr_session_parse_docs(struct mr_session *s, struct mr_err *err); /* agent_json, doc_json -> docs */

/* ---- state.c ---- */
/* Applies a wire or private row. MR_E_NOMEM only; unknown types are passed over. */
int mr_state_apply(struct mr_session *s, const struct mr_log_row *row);
struct mr_tcall *mr_state_call(struct mr_session *s, struct mr_str event_id); /* of the latest reply */
/* Is the call waiting for the client (confirmation or result)? */
bool mr_call_waits_client(const struct mr_session *s, const struct mr_tcall *t);
bool mr_state_blocked(const struct mr_session *s); /* idle on requires_action */
const char *mr_status_name(enum mr_status st);
/* The head column and the wire object's usage and stats. */
void mr_state_head(const struct mr_session *s, struct mr_buf *out);
void mr_usage_write(struct mr_jw *w, const struct mr_usage *u, int64_t active_us);

/* ---- history.c ---- */
int mr_history_user(struct mr_session *s, yyjson_val *content, const char *role);
int mr_history_reply(struct mr_session *s, struct mr_str content);
int mr_history_results(struct mr_session *s); /* the results of all calls, in call order */
int mr_history_prepare(struct mr_session *s); /* system and tools fragments */
/* Kind and policy of a tool named by the model; MR_PERM_DENY + *known false when it is not enabled. */
enum mr_call_perm mr_tool_policy(struct mr_session *s, struct mr_str name, enum mr_tool_kind *kind,
                                 bool *known);
yyjson_val *mr_tool_schema(struct mr_session *s, struct mr_str name); /* of a custom tool; NULL: none */
/* ---- input.c ---- */
/* Does a tool's input fit its schema (a part of JSON Schema)? Else why says what is wrong with which field. */
bool mr_input_fits(yyjson_val *schema, yyjson_val *input, char *why, size_t n);

/* ---- txn.c: rows decided together ---- */
struct mr_txn {
  struct mr_session *s;
  struct mr_commit *c;
  struct mr_log_row *rows; /* in the arena */
  int n, cap;
  int code;               /* sticky failure */
  struct mr_arena *arena; /* the rows' bytes, until published */
  const char *label;      /* fault points */
  unsigned what;          /* MR_SESSION_* columns to write besides */
};
/* who NULL: the machine itself. */
int mr_txn_begin(struct mr_txn *t, struct mr_session *s, const struct mr_origin *who, const char *label);
/* A wire event: opens {"type":..,"id":..; the caller writes its fields with w, then mr_txn_end_wire adds
 * processed_at, closes, applies. id: NULL makes one; written back to id_out when not NULL. */
void mr_txn_wire(struct mr_txn *t, struct mr_buf *b, struct mr_jw *w, const char *type, const char *id,
                 char id_out[MR_ID_LEN]);
void mr_txn_end_wire(struct mr_txn *t, struct mr_buf *b, struct mr_jw *w);
/* The simple ones: no further fields. */
void mr_txn_plain(struct mr_txn *t, const char *type);
/* An input of the inbox becomes a log row: same id, processed_at set. */
void mr_txn_take(struct mr_txn *t, struct mr_input *in);
void mr_txn_private(struct mr_txn *t, const char *type, struct mr_str json);
/* Queues the commit; done (may be NULL) after it is durable and published, before effects. */
void mr_txn_commit(struct mr_txn *t, void (*done)(void *ud, int code, const struct mr_err *err), void *ud);

/* ---- turn.c and its parts ---- */
void mr_turn_wake(struct mr_session *s); /* look again at what to do, from the drain */
void mr_turn_step(struct mr_ready *r);
void mr_turn_retry(struct mr_timer *t); /* the wait after a failed request is over */
void mr_turn_idle(struct mr_txn *t, enum mr_stop stop, struct mr_str details); /* the idle triple */
void mr_turn_running(struct mr_txn *t);            /* status_running, thread_status_running */
void mr_turn_answered(struct mr_txn *t);           /* results were taken in t: the status follows */
void mr_turn_committed(struct mr_session *s);      /* effects of durable commits (txn.c calls) */
void mr_turn_recover(struct mr_session *s);        /* once after load */
void mr_turn_stop_all(struct mr_session *s);       /* forget what runs (unload, poison, drain) */
bool mr_turn_advance(struct mr_txn *t);            /* next rows; true: a model request begins */
void mr_turn_commit(struct mr_txn *t, bool model); /* commits, begins the request, looks again */
void mr_turn_span_end(struct mr_txn *t, bool is_error, const struct mr_usage *u);
void mr_turn_error(struct mr_txn *t, const char *type, struct mr_str message, const char *retry_status);
void mr_turn_failed(struct mr_txn *t, const char *type, struct mr_str message, bool transient,
                    int64_t retry_after_ms);
void mr_turn_arm_retry(struct mr_session *s);
/* turn_model.c */
int mr_model_begin(struct mr_session *s); /* the span start row was just applied */
/* Stops the request that is in flight. true: nothing is, go on; false: its end, which tells what it used, wakes
 * the session. */
bool mr_model_cut(struct mr_session *s);
void mr_model_abort(struct mr_session *s, struct mr_usage *usage); /* forgets it; usage as far as known */
bool mr_model_running(const struct mr_session *s);
void mr_model_committed(struct mr_session *s);
/* turn_tools.c */
int mr_tools_owned(const struct mr_session *s, struct mr_str name); /* by a handler: 0, or MR_OWNS* */
void mr_tools_start(struct mr_session *s); /* starts every call whose intent is durable */
bool mr_tools_running(const struct mr_session *s);
bool mr_tools_to_start(const struct mr_session *s);             /* may any start, and has no intent yet? */
void mr_tools_cancel(struct mr_session *s);                     /* stops what runs */
void mr_tools_intents(struct mr_txn *t);                        /* intents for calls that may start now */
void mr_tools_result_row(struct mr_txn *t, struct mr_tcall *c); /* result row of a finished call */
void mr_tools_interrupted(struct mr_tcall *c); /* finished, with the text of an interrupted call */
void mr_tools_recover(struct mr_session *s);   /* after load: what had been started and has no result */
void mr_tools_forget(struct mr_session *s);    /* runs on in the sandbox, but not for us */
/* turn_settle.c */
/* The turn would end now: true, it may; false, the hooks are asked about it, and the session stays running. */
bool mr_settle_passed(struct mr_txn *t);
void mr_settle_drop(struct mr_session *s); /* the turn goes on, or is ended otherwise */
void mr_settle_committed(struct mr_session *s);
/* Durable rows: hooks hear that the session is idle. */
void mr_idle_heard(struct mr_session *s, const struct mr_log_row *rows, int n);

/* ---- phase.c: questions to the hooks ---- */
/* Would any be asked? Looked at first: no hook, no cost. who->tool: permit and tools only. */
bool mr_hooks_any(const struct mr_domain *d, enum mr_phase p, const struct mr_subject *who);
struct mr_subject mr_session_subject(const struct mr_session *s);
/* Begins a question's input: the caller writes its further members with w, then calls mr_question_ask, which ends
 * and frees it. */
void mr_question_begin(struct mr_domain *d, struct mr_buf *b, struct mr_jw *w, struct mr_str session_id,
                       const struct mr_subject *who);
/* done once, from the drain, never inside the call; with a refusal when there is no memory. Until then q is open
 * and must stay. q NULL: the hooks only hear of it. */
void mr_question_ask(struct mr_domain *d, enum mr_phase p, const struct mr_subject *who, struct mr_buf *b,
                     struct mr_jw *w, struct mr_question *q,
                     void (*done)(struct mr_question *q, struct mr_answer *a));
bool mr_question_open(const struct mr_question *q);
void mr_question_drop(struct mr_question *q); /* done never comes; nothing happens when it is not open */
/* domain.c */
void mr_domain_settled(struct mr_domain *d); /* something ended: is a drain over? */
void mr_domain_rewake(struct mr_domain *d);  /* a session was dropped: look soon which ones should run */

/* ---- watch.c ---- */
int mr_watches_init(struct mr_domain *d, struct mr_err *err);
void mr_watches_cut(struct mr_domain *d);
void mr_watches_free(struct mr_domain *d);
/* A row that is durable now; pos INT64_MAX: the session is deleted. */
void mr_watch_publish(struct mr_session *s, const struct mr_log_row *row);

/* ---- stream.c ---- */
void mr_stream_publish(struct mr_session *s, const struct mr_log_row *row);
void mr_stream_request_began(struct mr_session *s);
bool mr_stream_previews(const struct mr_session *s); /* does anybody want previews of this request? */
void mr_stream_preview_start(struct mr_session *s, const char *type, const char *id);
void mr_stream_preview_text(struct mr_session *s, const char *id, int index, struct mr_str text);
void mr_stream_end_all(struct mr_session *s, int code);

/* ---- sessions.c ---- */
void mr_session_wire(const struct mr_session_row *r, int64_t now_us, struct mr_buf *out);

#endif
