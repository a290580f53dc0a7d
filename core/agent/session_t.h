/*
 * session_t - a loaded session and its threads: the state that their log rows add up to, and what runs for them
 * now. A thread is one line of work: an agent with a history of its own, its model requests and its tool calls. Every
 * session has its primary thread (API: sessions §12.2); a coordinator's children are further ones. The machine
 * (turn*.c) is a thread's; the session's own status is what its threads' add up to.
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
enum mr_stop { MR_STOP_END_TURN, MR_STOP_REQUIRES_ACTION, MR_STOP_RETRIES, MR_STOP_REFUSAL, MR_STOP_BUDGET };

/* BUILTIN: in the sandbox, or at the client. WEB: web_fetch and web_search, in the server. GUARDED: a handler's tool behind a confirmation. To clients it is a tool of the server (agent.tool_use), as only
 * those can be confirmed. HIDDEN: a coordinator's own (delegate.c); no event shows it. */
enum mr_tool_kind { MR_TOOL_BUILTIN, MR_TOOL_WEB, MR_TOOL_CUSTOM, MR_TOOL_GUARDED, MR_TOOL_HIDDEN };
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
  struct mr_webcall *web;  /* web.h */
  struct mr_question hook; /* the hooks of "tools" look at the result */
  struct mr_thread *th;
  struct mr_timer deadline;
};

/* A client input that waits. */
struct mr_input {
  struct mr_input *next;
  char event_id[MR_ID_LEN];
  struct mr_str type, body; /* body: with "processed_at":null */
  char ref[MR_ID_LEN];      /* of a confirmation or a result: the tool use */
  struct mr_thread
      *th; /* whose call that is; of an interrupt: which one it names, NULL all; else the primary */
  bool committed;
};

struct mr_subscriber { /* stream.c */
  struct mr_subscriber *next, **link;
  struct mr_call *call;
  struct mr_thread *th;
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

struct mr_model_run; /* turn_model.c: the model request in flight */
struct mr_txn;
struct mr_commit_wait; /* txn.c */

enum { MR_THREADS_MAX = 1000 }; /* of a session, archived ones too */

struct mr_thread {
  struct mr_session *s;
  struct mr_thread *next; /* in order of creation; the first is the primary */
  char id[MR_ID_LEN];
  char parent[MR_ID_LEN]; /* "": it is the primary */
  char known_as
      [MR_ID_LEN]; /* to its coordinator's model: its id; in a copy, the one that the original's was told */
  /* what runs in it */
  yyjson_doc *agent_doc; /* a child's own snapshot; the primary's is the session's */
  yyjson_val *agent;     /* root of the snapshot */
  struct mr_str agent_id, agent_name, model, effort, speed;
  int64_t created_us, archived_us;
  /* the machine's state: mr_state_apply only */
  enum mr_status status;
  enum mr_stop stop;
  struct mr_str stop_details; /* JSON, of the latest idle */
  struct mr_usage usage;
  int64_t cost; /* at list price, nanocents (price.h) */
  int64_t running_since_us, active_us;
  char span_id[MR_ID_LEN]; /* model request without end, or "" */
  bool wants_model;        /* the turn goes on with a model request */
  int rounds;              /* tool rounds in this turn */
  int retries;             /* failed requests in a row */
  int64_t due_us, wait_us; /* wall time of the next try; how long that was when it was decided */
  struct mr_tcall **calls; /* of the latest reply, in call order */
  int ncalls, calls_cap;
  int blocked_n;        /* event ids of the latest requires_action idle */
  struct mr_mail *mail; /* messages of other threads that its model has not been given */
  int nmail;
  int64_t repeats; /* the newest call was made so many times in a row, since a client last stepped in */
  struct mr_str last_tool, last_input; /* that call; session memory */
  int64_t context_tokens;              /* of the latest request and its reply: what the next one is made of */
  int compactions;                     /* in a row, without a message or a tool call */
  struct mr_str *history;              /* message fragments for the model; they stay as they are (history.c) */
  bool with_files;                     /* some refer to files: */
  struct mr_str
      *sent; /* those as they are sent, with the files in their place (turn_files.c); p NULL: never yet */
  int nsent;
  int nhistory, history_cap;
  struct mr_str *pieces; /* the same, joined to what lies together */
  int npieces;
  size_t history_bytes, history_room;
  struct mr_history_block *history_old;
  bool foreign; /* some have thinking that not every provider understands (mr_model_foreign) */
  /* what runs now */
  struct mr_ready step; /* mr_turn_step */
  struct mr_timer retry;
  struct mr_model_run *model_run;
  int requests;              /* that are not over yet, dropped ones too: they borrow the history */
  struct mr_question settle; /* may the turn end? */
  bool settle_wanted;        /* it is put to the hooks when all commits are durable */
  bool settled;              /* they have nothing against it */
  struct mr_subscriber *subs;
  struct mr_str system, tools; /* fragments of the model request, made once */
};

struct mr_session {
  struct mr_domain *d;
  struct mr_session *hash_next, *lru_prev, *lru_next;
  int64_t ws;
  char id[MR_ID_LEN];
  struct mr_arena *mem; /* the session's own strings, its threads' too; freed with it */
  /* from the row */
  int64_t rev, owner_epoch, created_us, updated_us, archived_us;
  struct mr_str agent_id, environment_id, deployment_id;
  int64_t agent_version;
  yyjson_doc *agent_doc, *doc; /* snapshot; the client's part (title, metadata, resources, ...) */
  struct mr_str agent_json, doc_json;
  bool self_hosted;    /* the client runs the built-in tools */
  struct mr_caps caps; /* of its budget; none: those of the configuration hold (mr_session_caps) */
  char *sandbox_ref;   /* stored in the head */
  /* state: mr_state_apply only. status and stop are of the session as clients see it */
  struct mr_thread main; /* the primary thread; main.next: its children */
  enum mr_status status;
  enum mr_stop stop;
  int64_t last_us; /* highest processed_at */
  struct mr_usage usage;
  int64_t cost;                        /* of all threads, without running time */
  int64_t steps;                       /* model requests of all threads, and of graders */
  int64_t running_since_us, active_us; /* time with any thread running */
  struct mr_outcome *outcomes;         /* in order; the last may be active (outcome.h) */
  struct mr_seen *seen;                /* URLs of the conversation (web_seen.c); NULL: none */
  /* inputs */
  struct mr_input *inbox, **inbox_tail;
  /* what runs now */
  struct mr_grade *grade;  /* the active outcome is being graded */
  struct mr_spill *spills; /* results being written to files */
  struct mr_sandbox *sandbox;
  int refs;              /* commits, calls and subscribers that hold the session */
  int64_t seq, done_seq; /* commits queued; commits durable */
  bool poisoned, deleted;
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

/* ---- thread.c ---- */
/* A thread of s with a snapshot of its own (JSON text), last in its list; NULL: no memory. */
struct mr_thread *mr_thread_new(struct mr_session *s, struct mr_str id, struct mr_str parent,
                                struct mr_str agent);
void mr_thread_init(struct mr_session *s, struct mr_thread *th);
void mr_thread_free(struct mr_thread *th); /* what it holds; its struct is session memory */
/* Its agent's members from agent (a snapshot, which stays); fragments made of the old one are dropped. */
void mr_thread_set_agent(struct mr_thread *th, yyjson_val *agent);
struct mr_thread *mr_thread_find(struct mr_session *s, struct mr_str id); /* "": the primary; NULL: none */
/* The thread whose latest reply has this call, or NULL. */
struct mr_thread *mr_thread_of_call(struct mr_session *s, struct mr_str event_id);
/* Sets ref and th of an input from its body. */
void mr_input_route(struct mr_session *s, struct mr_input *in, yyjson_val *body);
bool mr_thread_primary(const struct mr_thread *th);
bool mr_thread_advisor(const struct mr_thread *th);
bool mr_thread_blocked(const struct mr_thread *th); /* idle on requires_action */

/* ---- state.c ---- */
/* Applies a wire or private row. MR_E_NOMEM only; unknown types are passed over. */
int mr_state_apply(struct mr_session *s, const struct mr_log_row *row);
struct mr_tcall *mr_state_call(struct mr_thread *th, struct mr_str event_id); /* of the latest reply */
bool mr_call_clients(const struct mr_tcall *t); /* is it the client that runs it, and sends its result? */
/* Is the call waiting for the client (confirmation or result)? */
bool mr_call_waits_client(const struct mr_tcall *t);
bool mr_state_blocked(const struct mr_session *s); /* idle on requires_action */
const char *mr_status_name(enum mr_status st);
enum mr_stop mr_stop_of(yyjson_val *idle); /* of an idle event's body; one that is not known: the turn's end */
/* The head column and the wire object's usage and stats. */
void mr_state_head(const struct mr_session *s, struct mr_buf *out);
void mr_usage_write(struct mr_jw *w, const struct mr_usage *u, int64_t active_us, int64_t cost /* < 0: null */);

/* ---- web_seen.c: the URLs that the conversation has. A bit for each source ---- */
#define MR_SEEN_USER   UINT64_C(1)
#define MR_SEEN_SEARCH UINT64_C(2)
#define MR_SEEN_FETCH  UINT64_C(4)
#define MR_SEEN_OTHERS (UINT64_C(1) << 63) /* custom tools beyond those with a bit of their own */
struct mr_weburl;
uint64_t mr_seen_tool(struct mr_session *s, struct mr_str name); /* the bit of a tool's results */
/* state.c calls these two. content: blocks, or a string. */
void mr_seen_content(struct mr_session *s, yyjson_val *content, uint64_t source);
void mr_seen_result(const struct mr_tcall *t, yyjson_val *content);
bool mr_seen_has(struct mr_session *s, const struct mr_weburl *u, uint64_t sources);
void mr_seen_free(struct mr_session *s);

/* ---- web.c ---- */
int mr_webtool_new(struct mr_domain *d, yyjson_val *config, struct mr_err *err);
void mr_webtool_free(struct mr_domain *d);
void mr_webtool_start(struct mr_tcall *c); /* mr_tools_finish comes, at once or later, unless it is given up */
void mr_webtool_drop(struct mr_tcall *c);

/* ---- turn_budget.c: what a session may cost (API: sessions §13.3) ---- */
/* At list price so far, running time too, nanocents; -1: the session's model has no list price. */
int64_t mr_session_cost(const struct mr_session *s);
/* The caps that hold: its budget's, else the configuration's. */
const struct mr_caps *mr_session_caps(const struct mr_session *s);
int64_t mr_session_used(const struct mr_session *s, enum mr_cap c); /* in the cap's unit; not of repeats */
bool mr_budget_over(const struct mr_session *s); /* a cap is reached, or a thread is paused for its repeats */
bool mr_thread_over(const struct mr_thread *th); /* no further model request of it may begin */
bool mr_input_begins(const struct mr_input *in); /* a message or an outcome */
void mr_repeat_count(struct mr_thread *th, const struct mr_tcall *t); /* state.c: a call was made */
void mr_repeats_forget(struct mr_session *s);                         /* state.c: somebody stepped in */
void mr_cap_write(struct mr_jw *w, const struct mr_session *s); /* which cap is reached: a member of the head */
/* The budget was changed: what was paused goes on, in the commit of the change. */
void mr_turn_budget_changed(struct mr_txn *t);
/* What the model request that just ended cost: a private row, behind its span. */
void mr_cost_row(struct mr_txn *t, struct mr_str model, struct mr_str speed, const struct mr_usage *u);
void mr_usage_row(struct mr_txn *t); /* session.usage */

/* ---- history.c ---- */
int mr_history_user(struct mr_thread *th, yyjson_val *content, const char *role);
int mr_history_reply(struct mr_thread *th, yyjson_val *content);
int mr_history_results(struct mr_thread *th); /* the results of all calls, in call order */
int mr_history_prepare(struct mr_thread *th); /* system and tools fragments */
void mr_history_clear(struct mr_thread *th);  /* something else takes its place */
/* The messages of a request: borrowed, and there until they are given back, whatever is appended or cleared meanwhile. */
int mr_history_lend(struct mr_thread *th, struct mr_arena *a, struct mr_model_req *r);
void mr_history_given_back(struct mr_thread *th);
void mr_history_free(struct mr_thread *th);
/* Kind and policy of a tool named by the model; MR_PERM_DENY + *known false when it is not enabled; *automatic: the
 * judge decides (judge.h), MR_PERM_ASK otherwise. */
enum mr_call_perm mr_tool_policy(struct mr_thread *th, struct mr_str name, enum mr_tool_kind *kind, bool *known,
                                 bool *automatic);
bool mr_tool_reads(const struct mr_thread *th); /* may it read files of its sandbox? */
/* What the agent says of a built-in tool besides: its entry in configs, or NULL. */
yyjson_val *mr_tool_config(const struct mr_thread *th, struct mr_str name);
yyjson_val *mr_tool_schema(const struct mr_thread *th, struct mr_str name); /* of a custom tool; NULL: none */
/* ---- input.c ---- */
/* Does a tool's input fit its schema (a part of JSON Schema)? Else why says what is wrong with which field. */
bool mr_input_fits(yyjson_val *schema, yyjson_val *input, char *why, size_t n);

/* ---- txn.c: rows decided together ---- */
struct mr_txn {
  struct mr_session *s;
  struct mr_thread *th; /* whose rows are written now: mr_txn_on */
  struct mr_commit *c;
  struct mr_log_row *rows; /* in the arena */
  int n, cap;
  int code;               /* sticky failure */
  struct mr_arena *arena; /* the rows' bytes, until published */
  const char *label;      /* fault points */
  unsigned what;          /* MR_SESSION_* columns to write besides */
  enum mr_status was;     /* the session's, when it began */
  bool hands_wanted;      /* self-hosted: there may be something to do for a worker (work.h) */
};
/* who NULL: the machine itself. */
int mr_txn_begin(struct mr_txn *t, struct mr_thread *th, const struct mr_origin *who, const char *label);
/* The rows that follow are of this thread. Returns the one they were of. */
struct mr_thread *mr_txn_on(struct mr_txn *t, struct mr_thread *th);
/* A wire event: opens {"type":..,"id":..; the caller writes its fields with w, then mr_txn_end_wire adds
 * processed_at, closes, applies. id: NULL makes one; written back to id_out when not NULL. */
void mr_txn_wire(struct mr_txn *t, struct mr_buf *b, struct mr_jw *w, const char *type, const char *id,
                 char id_out[MR_ID_LEN]);
void mr_txn_end_wire(struct mr_txn *t, struct mr_buf *b, struct mr_jw *w);
/* As mr_txn_end_wire; a child's event is shown on the primary's stream too, under the same id. names_thread: there it
 * says which thread it is of. */
void mr_txn_end_wire_both(struct mr_txn *t, struct mr_buf *b, struct mr_jw *w, bool names_thread);
/* The simple ones: no further fields. */
void mr_txn_plain(struct mr_txn *t, const char *type);
/* An input of the inbox becomes a log row: same id, processed_at set. A child's has a copy on the primary, which
 * names the thread. */
void mr_txn_take(struct mr_txn *t, struct mr_input *in);
void mr_txn_private(struct mr_txn *t, const char *type, struct mr_str json);
/* Queues the commit; done (may be NULL) after it is durable and published, before effects. */
void mr_txn_commit(struct mr_txn *t, void (*done)(void *ud, int code, const struct mr_err *err), void *ud);

/* ---- turn.c and its parts ---- */
void mr_turn_wake(struct mr_thread *th); /* look again at what to do, from the drain */
void mr_turn_wake_all(struct mr_session *s);
void mr_turn_step(struct mr_ready *r);
void mr_turn_retry(struct mr_timer *t); /* the wait after a failed request is over */
void mr_turn_idle(struct mr_txn *t, enum mr_stop stop,
                  struct mr_str details); /* the thread's, and the session's when nothing else of it runs */
void mr_turn_running(struct mr_txn *t);   /* the thread's, behind the session's */
void mr_turn_unread(struct mr_txn *t);    /* the present thread has mail, and nothing else begins it: it runs */
void mr_turn_answered(struct mr_txn *t);  /* results were taken in t: the status follows */
/* The present thread stopped: so does the session, when nothing else of it runs. */
void mr_turn_stopped(struct mr_txn *t);
void mr_turn_thread_idle(struct mr_txn *t, enum mr_stop stop, struct mr_str details); /* its row alone */
/* The turn is over for good: queued inputs go with it; a child terminates, and its parent's model hears why. */
void mr_turn_dead(struct mr_txn *t);
void mr_turn_terminated(struct mr_txn *t); /* the present thread, a child, has ended: its row */
/* Opens a session.thread_status_* row of the present thread. */
void mr_turn_thread_row(struct mr_txn *t, struct mr_buf *b, struct mr_jw *w, const char *type);
void mr_turn_record(struct mr_txn *t); /* results of the calls that are over, once none of the batch runs */
void mr_turn_flush(struct mr_txn *t);  /* the thread's queued inputs go with its dead turn */
void mr_turn_committed(struct mr_session *s);      /* effects of durable commits (txn.c calls) */
void mr_turn_recover(struct mr_session *s);        /* once after load (turn_recover.c) */
void mr_turn_stop_all(struct mr_session *s);       /* forget what runs (unload, poison, drain) */
bool mr_turn_advance(struct mr_txn *t);            /* next rows; true: a model request begins */
void mr_turn_commit(struct mr_txn *t, bool model); /* commits, begins the request, looks again */
void mr_turn_span_end(struct mr_txn *t, bool is_error, const struct mr_usage *u);
void mr_span_usage(struct mr_jw *w, const struct mr_usage *u); /* the object of a span's end */
void mr_turn_error(struct mr_txn *t, const char *type, struct mr_str message, const char *retry_status);
void mr_turn_failed(struct mr_txn *t, const char *type, struct mr_str message, bool transient,
                    int64_t retry_after_ms);
void mr_turn_arm_retry(struct mr_thread *th);
/* turn_interrupt.c */
bool mr_turn_interrupt(struct mr_thread *th); /* true: one concerns it, and was applied or is under way */
bool mr_turn_interrupt_waits(const struct mr_thread *th);
/* turn_model.c */
int mr_model_begin(struct mr_thread *th); /* the span start row was just applied */
/* Stops the request that is in flight. true: nothing is, go on; false: its end, which tells what it used, wakes
 * the session. */
bool mr_model_cut(struct mr_thread *th);
void mr_model_abort(struct mr_thread *th, struct mr_usage *usage); /* forgets it; usage as far as known */
bool mr_model_running(const struct mr_thread *th);
void mr_model_committed(struct mr_thread *th);
/* turn_tools.c */
int mr_tools_owned(const struct mr_thread *th, struct mr_str name); /* by a handler: 0, or MR_OWNS* */
void mr_tools_start(struct mr_thread *th); /* starts every call whose intent is durable */
bool mr_tools_running(const struct mr_thread *th);
bool mr_tools_to_start(const struct mr_thread *th);             /* may any start, and has no intent yet? */
void mr_tools_cancel(struct mr_thread *th);                     /* stops what runs */
void mr_tools_intents(struct mr_txn *t);                        /* intents for calls that may start now */
void mr_tools_intent_row(struct mr_txn *t, struct mr_tcall *c); /* of this one, once more */
void mr_tools_result_row(struct mr_txn *t, struct mr_tcall *c); /* result row of a finished call */
void mr_tools_interrupted(struct mr_tcall *c); /* finished, with the text of an interrupted call */
void mr_tools_forget(struct mr_thread *th);    /* runs on in the sandbox, but not for us */
/* A call is over. content: content blocks as JSON text. */
void mr_tools_finish(struct mr_tcall *c, struct mr_str content, bool is_error);
/* The result of a call, small enough to be kept. */
void mr_tools_spilled(struct mr_tcall *c, struct mr_str content, bool is_error);
/* spill.c: true, the result is large, and mr_tools_spilled comes with what stands for it, at once or later. */
bool mr_spill(struct mr_tcall *c, struct mr_str content, bool is_error);
void mr_spills_free(struct mr_session *s); /* what will never be called back */
/* turn_settle.c */
/* The turn would end now: true, it may; false, the hooks are asked about it, and the session stays running. */
bool mr_settle_passed(struct mr_txn *t);
void mr_settle_drop(struct mr_thread *th); /* the turn goes on, or is ended otherwise */
void mr_settle_committed(struct mr_thread *th);
/* Durable rows: hooks hear that the session is idle. */
void mr_idle_heard(struct mr_session *s, const struct mr_log_row *rows, int n);

/* ---- compact.c: a summary in place of the history ---- */
/* Keeps the section "context" of the configuration. MR_E_INVALID names the key. */
int mr_context_config(struct mr_domain *d, yyjson_val *config, struct mr_err *err);
int64_t mr_compact_at(const struct mr_domain *d, struct mr_str model); /* tokens above which it is wanted */
bool mr_compact_wanted(const struct mr_thread *th);        /* the next request is one for a summary */
bool mr_compact_limit(struct mr_txn *t);                   /* too many in a row: the turn is given up */
int mr_compact_apply(struct mr_thread *th, yyjson_val *j); /* state.c calls */

/* ---- mail.c: messages between threads. content: JSON, an array of content blocks ---- */
int mr_mail_apply(struct mr_thread *th, struct mr_str from, yyjson_val *content); /* state.c calls these two */
int mr_mail_apply_taken(struct mr_thread *th, int n);
void mr_mail_take(struct mr_txn *t); /* what waits for the present thread becomes part of its history */
void mr_mail_text(struct mr_txn *t, struct mr_str text, struct mr_buf *out); /* a text as content */
void mr_mail_sent(struct mr_txn *t, struct mr_thread *from, struct mr_thread *to, struct mr_str content);
void mr_mail_received(struct mr_txn *t, struct mr_thread *from, struct mr_thread *to, struct mr_str content);
void mr_mail_notice(struct mr_txn *t, struct mr_thread *to, struct mr_str text); /* no event shows it */
void mr_mail_wake(struct mr_txn *t, struct mr_thread *th); /* it goes on with its mail, if it is idle */
void mr_mail_report(struct mr_txn *t); /* the last words of the present thread, a child, go to the primary */

/* ---- delegate.c: a coordinator's hidden tools ---- */
bool mr_delegate_has(const struct mr_thread *th, struct mr_str name); /* is it one that th has? */
void mr_delegate_tools(const struct mr_thread *th,
                       struct mr_jw *w); /* their definitions, into the array of tools */
void mr_delegate_run(
    struct mr_txn *t); /* the hidden calls of the reply just recorded; each has its outcome after */

/* ---- phase.c: questions to the hooks ---- */
/* Would any be asked? Looked at first: no hook, no cost. who->tool: permit and tools only. */
bool mr_hooks_any(const struct mr_domain *d, enum mr_phase p, const struct mr_subject *who);
struct mr_subject mr_thread_subject(const struct mr_thread *th);
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
void mr_stream_request_began(struct mr_thread *th);
bool mr_stream_previews(const struct mr_thread *th); /* does anybody want previews of this request? */
void mr_stream_preview_start(struct mr_thread *th, const char *type, const char *id);
void mr_stream_preview_text(struct mr_thread *th, const char *id, int index, struct mr_str text);
void mr_stream_end_all(struct mr_thread *th, int code);
void mr_stream_end_key(struct mr_thread *th, struct mr_str key_id); /* those of this key: it is none any more */

/* ---- sessions.c ---- */
void mr_session_wire(const struct mr_session_row *r, int64_t now_us, struct mr_buf *out);

#endif
