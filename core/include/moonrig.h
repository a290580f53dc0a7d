/*
 * moonrig.h - the embedding interface of moonrig, an agent runtime.
 *
 * What it is for: a C or C++ program creates a runtime, makes agents and sessions in it, answers
 * their tool calls and reads their events, without a server process. Everything that the HTTP API
 * can do, mr_call can do, with the same operations, the same JSON and the same errors.
 * What it is not for: language bindings need more (JSON values, timers, HTTP); that is
 * moonrig_ext.h.
 *
 * Threads. One runtime owns one loop thread (mode MR_LOOP_THREAD, the default), where all of its
 * state lives, and some helper threads for disk and processes. The host never runs on them:
 * replies, events, tool calls and hooks wait in one bounded queue until the host calls mr_dispatch,
 * which runs the callbacks on the calling thread. mr_fd is readable while something waits.
 * Any function here may be called from any thread unless it says otherwise; one thread at a time
 * may be inside mr_dispatch, mr_wait, mr_call_wait or mr_close.
 *
 * Ownership. Strings and structs passed in are copied before the function returns. Strings passed
 * to a callback are borrowed until the callback returns. Each struct starts with its size, set by
 * the caller to sizeof, so that the library can grow it.
 *
 * Errors. Functions return MR_OK (0), a count, or a negative MR_E* code; the detail is in the
 * struct mr_err that is the last argument (may be NULL).
 *
 * Process. The library changes no signal disposition, locale, working directory, environment or
 * umask, writes nothing to stdout or stderr, opens every descriptor close-on-exec, blocks all
 * signals in its own threads. After fork() every call in the child returns MR_E_FORKED, and
 * mr_close in the child releases nothing.
 *
 * Linux only.
 */
#ifndef MOONRIG_H
#define MOONRIG_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MR_API __attribute__((visibility("default")))

#define MR_VERSION        "0.1.0"
#define MR_VERSION_NUMBER 100 /* major * 1,000,000 + minor * 1,000 + patch, here 0.1.0 */

/* Bytes with a length; not NUL-terminated unless a function says so. p may be NULL when n is 0. */
struct mr_str {
  const char *p;
  size_t n;
};

/* ------------------------------------------------------------------ errors */

enum {
  MR_OK = 0,
  MR_MORE = 1,            /* mr_dispatch: budget or count reached, more is waiting */
  MR_E_NOMEM = -1,        /* an allocation failed */
  MR_E_INVALID = -2,      /* bad argument or bad input; err.field names it (HTTP 400) */
  MR_E_STATE = -3,        /* right call at the wrong moment (HTTP 400) */
  MR_E_BUSY = -4,         /* the data directory belongs to another process; err names its pid */
  MR_E_FULL = -5,         /* the completion queue or another bounded queue is full: dispatch, retry */
  MR_E_REENTRANT = -6,    /* dispatch or close called from inside a callback */
  MR_E_FORKED = -7,       /* the runtime belongs to the parent process */
  MR_E_NOTFOUND = -8,     /* no such object (HTTP 404) */
  MR_E_CONFLICT = -9,     /* a version or name conflict (HTTP 409) */
  MR_E_AUTH = -10,        /* no or wrong credentials (HTTP 401) */
  MR_E_DENIED = -11,      /* known caller, not allowed (HTTP 403) */
  MR_E_TOO_LARGE = -12,   /* input over its limit (HTTP 413) */
  MR_E_LIMIT = -13,       /* too many requests (HTTP 429) */
  MR_E_TIMEOUT = -14,     /* the deadline passed */
  MR_E_CANCELLED = -15,   /* cancelled by the caller */
  MR_E_CLOSED = -16,      /* the runtime, stream or connection is closing */
  MR_E_IO = -17,          /* the operating system refused; err.message has the reason */
  MR_E_UNAVAILABLE = -18, /* cannot be done now: disk full, store failing (HTTP 503) */
  MR_E_UNSUPPORTED = -19, /* not implemented, or not possible on this machine (HTTP 501) */
  MR_E_PROTOCOL = -20,    /* the other side broke its protocol */
  MR_E_INTERNAL = -21     /* a bug in moonrig; the log has more (HTTP 500) */
};

/* Details of a failure. Filled only by a function that fails; all strings NUL-terminated. */
struct mr_err {
  uint32_t size;       /* sizeof(struct mr_err) */
  int code;            /* MR_E* */
  int http_status;     /* the status the HTTP API answers with, e.g. 404 */
  char type[48];       /* API error type, e.g. "invalid_request_error" */
  char error_code[48]; /* machine-readable detail, e.g. "environment_archived"; "" when none */
  char field[96];      /* path of the offending input field, e.g. "tools[0].name"; "" when none */
  char request_id[40]; /* "req_..." of the call; "" when none */
  char message[384];   /* a sentence for people; names the field and the fix */
};

MR_API const char *mr_strerror(int code); /* a short fixed text for an MR_E* code */
MR_API int mr_version_number(void);       /* MR_VERSION_NUMBER of the library in use */

/* ------------------------------------------------------------- life cycle */

struct mr_runtime; /* one store, one loop, everything that runs in it */
struct event_base; /* libevent's; only for MR_LOOP_BORROWED */

enum mr_loop_mode {
  MR_LOOP_THREAD = 0, /* the runtime runs its loop in its own thread (default, what we test most) */
  MR_LOOP_OWN,        /* the host's thread becomes the loop: mr_run */
  MR_LOOP_PUMP,       /* no loop thread: the host calls mr_pump often */
  MR_LOOP_BORROWED    /* the loop runs on the host's libevent base */
};

enum mr_log_level { MR_LOG_ERROR = 0, MR_LOG_WARN, MR_LOG_INFO, MR_LOG_DEBUG };

struct mr_config {
  uint32_t size; /* sizeof(struct mr_config); set by mr_config_init */
  enum mr_loop_mode loop;
  struct event_base *base; /* MR_LOOP_BORROWED: the host's base, outlives the runtime */
  const char *store;       /* data directory (created if missing), or ":memory:" */
  const char *options;     /* JSON object with the keys of the configuration file, or NULL */
  int wait_ms;             /* how long mr_open waits for another owner of the store to leave */
  int queue_max;           /* bound of the completion queue in entries; 0 = 4096 */
  /* Hooks; each may be NULL. All must be callable from any thread. ud is passed to each. */
  void *(*alloc)(void *ud, void *p, size_t old_size, size_t new_size); /* new_size 0 frees */
  void (*log)(void *ud, int level, struct mr_str line);                /* one line without newline */
  int64_t (*wall_us)(void *ud);                 /* microseconds since 1970; NULL = the system's clock */
  int64_t (*mono_us)(void *ud);                 /* microseconds, never goes back; NULL = CLOCK_MONOTONIC */
  int (*random)(void *ud, void *buf, size_t n); /* 0 on success; NULL = getrandom */
  void *ud;
};

MR_API void mr_config_init(struct mr_config *c); /* sets the defaults above */

/*
 * Opens the store and starts the runtime. On success *out is the runtime, owned by the caller
 * (mr_close). MR_E_BUSY when another process or runtime holds the store; MR_E_INVALID for unknown
 * or bad options (err.field = the option); MR_E_STATE for a store written by a newer program.
 */
MR_API int mr_open(struct mr_runtime **out, const struct mr_config *c, struct mr_err *err);

/*
 * Starts to serve the HTTP API on an address: "127.0.0.1:8400", "[::1]:0", "unix:/path[,0600]",
 * "fd:3". spec may carry options as JSON: {"address": "...", "tls_cert": "...", "tls_key": "...",
 * "insecure_http": false}. On success the real address ("http://127.0.0.1:41234") is written to
 * actual (NUL-terminated, cut at n). A plain listener that is not loopback is refused with
 * MR_E_DENIED unless insecure_http is true. Blocks until the listener accepts or fails.
 */
MR_API int mr_listen(struct mr_runtime *rt, const char *spec, char *actual, size_t n, struct mr_err *err);

/*
 * Begins to stop: listeners close, requests in flight finish, streams end, no new turn step is
 * taken; after grace_ms model streams are cut (they are asked again at the next start). Idempotent;
 * any thread, also from callbacks. The runtime goes on dispatching until mr_close.
 */
MR_API int mr_stop(struct mr_runtime *rt, unsigned grace_ms);

/* 1 once all that mr_stop began is over (nothing runs any more), else 0. */
MR_API int mr_stopped(const struct mr_runtime *rt);

/*
 * Stops (grace 0 unless mr_stop ran before), settles everything outstanding (callbacks are run
 * with MR_E_CLOSED on this thread), joins the threads, releases the store and clears *rt.
 * MR_E_REENTRANT inside a callback (nothing happens).
 */
MR_API int mr_close(struct mr_runtime **rt);

/* ------------------------------------------------- the host's side of the loop */

/* The doorbell: readable (level-triggered) while completions wait. Poll it; never read or close. */
MR_API int mr_fd(const struct mr_runtime *rt);

/*
 * Runs waiting callbacks on the calling thread: at most max (0 = no limit), stopping once
 * budget_us microseconds have passed (0 = no limit; one callback always runs to its end).
 * Returns MR_OK when the queue is empty, MR_MORE when cut, MR_E_REENTRANT inside a callback.
 */
MR_API int mr_dispatch(struct mr_runtime *rt, int max, int64_t budget_us);

/* Waits up to timeout_ms (-1 = for ever) until something waits. MR_OK, or MR_E_TIMEOUT. */
MR_API int mr_wait(struct mr_runtime *rt, int timeout_ms);

MR_API int mr_run(struct mr_runtime *rt);                       /* MR_LOOP_OWN: until mr_stop is over */
MR_API int mr_pump(struct mr_runtime *rt, int64_t budget_us);   /* MR_LOOP_PUMP: one bounded turn */
MR_API int64_t mr_next_timeout_us(const struct mr_runtime *rt); /* MR_LOOP_PUMP: -1 = none */

/* ------------------------------------------------------------- operations */

struct mr_op;  /* a running operation, see mr_call */
struct mr_val; /* a JSON value, read with moonrig_ext.h; a borrowed pointer into its document */

/* On whose behalf a call runs. Zero-length members take defaults. */
struct mr_caller {
  struct mr_str workspace;   /* "wrkspc_..."; default workspace when empty */
  struct mr_str key;         /* id of the API key, for the record; empty for the host itself */
  struct mr_str request_id;  /* made when empty */
  struct mr_str traceparent; /* W3C trace context, stored with what the call writes */
};

/*
 * A source of body bytes, for operations that upload. read is called on the dispatching thread.
 * It fills up to cap bytes and returns their number, 0 at the end, MR_E* to abort.
 */
struct mr_body {
  uint32_t size;
  int64_t length;                    /* bytes in all, or -1 when unknown */
  const char *filename, *media_type; /* of an upload; may be NULL */
  int64_t (*read)(void *ud, char *buf, size_t cap);
  void *ud;
};

struct mr_req {
  uint32_t size;
  const char *op;                 /* operation name as in the SDKs, e.g. "sessions.events.send" */
  struct mr_str json;             /* one object: path parameters by name, query and body fields */
  const struct mr_caller *caller; /* NULL = the host */
  int64_t deadline_ms;            /* from now; 0 = none. Past it: MR_E_TIMEOUT */
  const struct mr_body *body;     /* uploads only */
};

struct mr_reply {
  uint32_t size;
  int code;                 /* MR_OK or MR_E* */
  struct mr_str json;       /* the response object; empty for streams and on errors */
  const struct mr_val *val; /* the same, parsed; NULL when there is none */
  const struct mr_err *err; /* NULL on success */
};

/*
 * Where results go; every member may be NULL. All run inside mr_dispatch. reply comes exactly once
 * and last. event: one event of a stream as JSON text; pos its log position (0 for previews).
 * body: bytes of a download.
 */
struct mr_callbacks {
  uint32_t size;
  void (*reply)(void *ud, const struct mr_reply *r);
  void (*event)(void *ud, struct mr_str event, const struct mr_val *val, int64_t pos);
  void (*body)(void *ud, struct mr_str chunk);
};

/*
 * Starts an operation. *op (may be NULL if not wanted) is the caller's until mr_op_release. No
 * callback runs before this returns, nor inside the callback that made the call. MR_E_FULL when
 * the completion queue has no room for the reply (nothing was started); MR_E_INVALID for an unknown
 * operation or JSON that does not parse; bad fields are reported through reply.
 */
MR_API int mr_call(struct mr_runtime *rt, const struct mr_req *req, const struct mr_callbacks *cbs, void *ud,
                   struct mr_op **op, struct mr_err *err);

/*
 * Beside the operations of the SDKs there are our own:
 *   sessions.fork    {"session_id", "event_id", "title", "metadata", "environment_id", "workspace"}: all but the first
 *                    may be left out. A session whose history is that one's, up to and with the event, or up to now.
 *                    The reply is the new session. MR_E_NOTFOUND: no such session, or event in its log.
 *                    Without event_id it gets the files of the other's sandbox (/workspace, /mnt/session/outputs) as
 *                    they are now, unless workspace is false; what they were at an event nobody kept.
 *   sessions.export  {"session_id", "workspace"}: a session as one file, given to callbacks.body as it is read. It is
 *                    whole when reply says MR_OK. The sandbox's files are in it, up to 320 MiB (MR_E_STATE above),
 *                    unless workspace is false.
 *   sessions.import  {"title", "environment_id"} and req.body, such a file: the reply is the new session.
 *                    MR_E_INVALID: the file is damaged, not whole, or not one that a runtime wrote; nothing was made.
 * A copy has ids of its own, runs nothing, and its sandbox is a new one: what ran in the other one goes on there, frozen
 * for the moment in which its files were copied. What was going on is closed: an open model
 * request ends with is_error, a call without a result gets the text of an interrupted one. Calls that wait for a client
 * wait on in the copy. Watchers are not shown what came with it. Sessions that were archived can be copied; the copy is
 * not. A file holds no tokens; vaults, repositories, memory stores and the budget do not travel in it.
 */

/* Cancel is sticky and asynchronous: reply still comes, once; a mutation that was committed reports
 * success. Release drops the handle, not the operation. NULL is allowed. */
MR_API void mr_op_cancel(struct mr_op *op);
MR_API void mr_op_release(struct mr_op *op);

/*
 * mr_call for hosts that can wait: runs the queue until this reply is there, at most timeout_ms.
 * *out is NUL-terminated JSON, freed with mr_free. MR_E_STATE inside a callback.
 */
MR_API int mr_call_wait(struct mr_runtime *rt, const char *op, const char *json, int timeout_ms, char **out,
                        struct mr_err *err);

/*
 * Sends a user message to a session and follows its events until the turn is over (the next
 * session.status_idle after the message was taken, or the session's end). content: plain text, or
 * a JSON array of content blocks. on_event sees each event; reply's json is
 * {"text", "stop_reason", "stop_details", "usage", "pending":[...]}. A session with other threads is followed until
 * none of them runs; what they say is not part of the text. stop_reason "budget_reached": a cap of the session's budget
 * is reached, no message is taken, and what was paused goes on by itself once sessions.update has raised the budget
 * (sessions.why says which cap): follow it with sessions.events.stream.
 */
MR_API int mr_ask(struct mr_runtime *rt, const char *session_id, const char *content,
                  const struct mr_callbacks *cbs, void *ud, struct mr_op **op, struct mr_err *err);

MR_API void mr_free(struct mr_runtime *rt, void *p);

/* ------------------------------------------------------------------ tools */

struct mr_use; /* one call of a tool by a model; the handler's until it finishes or fails it */

struct mr_tool {
  uint32_t size;
  const char *name; /* ^[A-Za-z0-9_-]{1,128}$ */
  const char *description;
  const char *input_schema;                     /* JSON Schema, an object */
  const char *agent;                            /* only for the agent of this name or id; NULL = all */
  int timeout_ms;                               /* 0 = 120,000; past it the model reads an error result */
  int concurrency;                              /* calls at the same time, others wait in order; 0 = 64 */
  unsigned flags;                               /* MR_TOOL_* */
  void (*run)(void *ud, struct mr_use *use);    /* inside mr_dispatch; may finish later */
  void (*cancel)(void *ud, struct mr_use *use); /* the use was settled without us: stop work; the
                                                   use must still be released by finish or fail */
  void *ud;
};
enum {
  MR_TOOL_IDEMPOTENT = 1,        /* may run again after a crash (mr_use_attempt says so) */
  MR_TOOL_ANSWERED_BY_CLIENT = 2 /* declared here, but answered by an API client */
};

/* Registers or replaces (by name and agent) a tool handler. Calls accepted before keep theirs. */
MR_API int mr_tool_add(struct mr_runtime *rt, const struct mr_tool *t, struct mr_err *err);
MR_API int mr_tool_remove(struct mr_runtime *rt, const char *name, const char *agent);

MR_API struct mr_str mr_use_name(const struct mr_use *u);
MR_API struct mr_str mr_use_input(const struct mr_use *u); /* JSON object, as the model wrote it */
MR_API const struct mr_val *mr_use_input_val(const struct mr_use *u);
MR_API struct mr_str mr_use_id(const struct mr_use *u); /* the event id, "sevt_..." */
MR_API struct mr_str mr_use_session(const struct mr_use *u);
/* The thread whose model called, and its agent's name: in a coordinator's session a child's, not the session's. */
MR_API struct mr_str mr_use_thread(const struct mr_use *u);
MR_API struct mr_str mr_use_agent(const struct mr_use *u);
MR_API int mr_use_attempt(const struct mr_use *u);         /* 1, or more after a crash */
MR_API int64_t mr_use_deadline_ms(const struct mr_use *u); /* milliseconds left */
MR_API int mr_use_cancelled(const struct mr_use *u);
/* Exactly one of these, once, from any thread: the use is released by it. result: a JSON string, an
 * array of content blocks (text, image, document, search_result; one that no model takes makes the result
 * an error that says why), or any other JSON (the model sees its text). NULL or "" = empty. */
MR_API int mr_use_finish(struct mr_use **u, const char *result_json);
MR_API int mr_use_fail(struct mr_use **u, const char *message);

/* ------------------------------------------------------------------ hooks */

struct mr_hook_call; /* one question to a hook, answered once */
typedef void (*mr_hook_fn)(void *ud, struct mr_hook_call *call);

/*
 * A hook has a say at a phase of the turn. filter: JSON {"agent": name or id, "tool": name, "name": text} or
 * NULL ("tool": permit and tools only; "name" chooses nothing, it is for the log). The call's input is a JSON
 * object, always with session_id, agent (name) and agent_id, and but for accept with thread_id: in a coordinator's
 * session the agent is the one whose thread it is. The answer is JSON too, NULL = no opinion. Answer
 * with mr_hook_decide, at the latest after 30 s; later, and when the answer cannot be read, the fail default
 * counts: MR_HOOK_FAIL_CLOSED refuses (what that is, below), otherwise as if the hook were not there. Hooks are
 * asked one after the other in the order added. In permit the first that decides wins; in the other phases each
 * sees what those before it changed, and {"refuse": why} refuses, and no further hook is asked (not in idle).
 * What hooks said is not kept, only what comes of it: they are asked again when a request is made again, after
 * a failure, a crash or a stop. One that is interrupted does not wait for them.
 * Returns an id >= 0 for mr_hook_remove.
 *
 *   phase    input besides                          answer                                  refusal is
 *   accept   events: what a client sends, or makes  {"events": [..]} instead, checked like  403 to the sender
 *            a session with (user.interrupt alone   a client's
 *            is not asked about)
 *   context  messages, system: of a model request   {"messages": [..]}, {"system": ..}: of  the request fails
 *                                                   this request alone, the log stays
 *   model    model, effort; message: the last one;  {"model": other}, or {"reply":          the request fails
 *            bytes: of all messages                 {"content": [..]}}: no model is asked
 *   permit   name, input, tool_use_id               {"decision": "allow" | "ask" | "deny",  the call is denied
 *                                                   "message": ..}, or {"decision":
 *                                                   "rewrite", "input": {..}}
 *   tools    name, input, tool_use_id, content,     {"content": .., "is_error": bool}       an error result
 *            is_error: a result to be recorded, of  instead
 *            a built-in tool or a handler
 *   settle   text: the turn would end now           {"continue": text}: goes on with this   the turn ends
 *                                                   as a user.message; it counts as one
 *                                                   of limits.tool_rounds
 *   idle     stop_reason: the session is idle       none, it only hears of it               nothing
 */
enum { MR_HOOK_FAIL_CLOSED = 1 };
MR_API int mr_hook_add(struct mr_runtime *rt, const char *phase, const char *filter, unsigned flags,
                       mr_hook_fn fn, void *ud, struct mr_err *err);
MR_API int mr_hook_remove(struct mr_runtime *rt, int id);
MR_API const struct mr_val *mr_hook_input(const struct mr_hook_call *c);
MR_API int mr_hook_decide(struct mr_hook_call **c, const char *decision_json);

/* --------------------------------------------------------------- watchers */

struct mr_seen; /* one event shown to a watcher; the watcher's until mr_seen_done */

struct mr_watcher {
  uint32_t size;
  const char *name;                         /* 1 to 128 bytes; the position is kept under it */
  const char *events;                       /* JSON list of event types, e.g. ["session.error"]; NULL = all */
  const char *agent;                        /* only sessions of the agent of this name or id; NULL = all */
  unsigned flags;                           /* MR_ON_* */
  void (*run)(void *ud, struct mr_seen *e); /* inside mr_dispatch; may finish later */
  void *ud;
};
enum { MR_ON_DURABLE = 1 /* goes on after a restart where it was: at least once */ };

/*
 * Sees events of all sessions (of their own streams: a child thread's events only as far as they are shown there) after
 * they are committed, in log order; of one session one at a time, several
 * sessions side by side (at most 64 at once; a watcher that is behind reads on from the log, it never misses
 * any). Without MR_ON_DURABLE it begins with what is committed from now on. The same name again replaces the
 * function and the filter and keeps the position. A durable position moves past an event once it and all
 * before it are done. MR_E_INVALID names the field; MR_E_FULL beyond 1,000 watchers, or 10,000 names in the life of the
 * runtime. What is read of an event is valid until it is done. mr_on_remove: MR_E_NOTFOUND; what was handed out is
 * still to be ended.
 */
MR_API int mr_on(struct mr_runtime *rt, const struct mr_watcher *w, struct mr_err *err);
MR_API int mr_on_remove(struct mr_runtime *rt, const char *name); /* keeps a durable position */
MR_API const struct mr_val *mr_seen_event(const struct mr_seen *e);
MR_API struct mr_str mr_seen_session(const struct mr_seen *e);
MR_API struct mr_str mr_seen_agent(const struct mr_seen *e); /* the agent's name */
MR_API int64_t mr_seen_pos(const struct mr_seen *e);         /* log position */
MR_API int mr_seen_done(struct mr_seen **e);                 /* exactly once, any thread; releases it */
/* Instead of done, when the work on it was broken off: it is shown again, after others of other sessions. */
MR_API int mr_seen_again(struct mr_seen **e);

/* ----------------------------------------------------------------- routes */

struct mr_web; /* one HTTP request to a route; the host's until mr_web_end */

struct mr_route {
  uint32_t size;
  const char *method; /* "GET", ...; NULL = any */
  const char *path;   /* "/x/name"; {id} stands for a segment, a last segment * for all the rest */
  unsigned flags;     /* MR_ROUTE_* */
  int64_t body_max;   /* bytes of a request's body, collected before run; over it 413; 0 = 1 MiB */
  int timeout_ms;     /* until the answer begins, else 504; 0 = 60,000 */
  void (*run)(void *ud, struct mr_web *w);    /* inside mr_dispatch; may answer later */
  void (*closed)(void *ud, struct mr_web *w); /* the client went away, or time is over: stop work; mr_web_end is
                                                 still due */
  void *ud;
};
enum { MR_ROUTE_PUBLIC = 1 /* no API key is asked for */ };

/* A route on the server's port under /x/. The same method and path again replaces it; requests that were accepted
 * keep theirs, also after mr_route_remove: ud must outlive them. The most exact path wins. Wrong method: 405, none:
 * 404; GET answers HEAD (which ends the answer at its head: closed is called, the rest is MR_E_CLOSED). MR_E_INVALID
 * for a path that is none, MR_E_FULL beyond 1,000 routes; remove: MR_E_NOTFOUND. */
MR_API int mr_route_add(struct mr_runtime *rt, const struct mr_route *r, struct mr_err *err);
MR_API int mr_route_remove(struct mr_runtime *rt, const char *method, const char *path);
/* What is read of a request is valid until mr_web_end; p is NULL for a name that is not there. Any thread. */
MR_API struct mr_str mr_web_method(const struct mr_web *w);
MR_API struct mr_str mr_web_path(const struct mr_web *w);                    /* decoded */
MR_API struct mr_str mr_web_query(const struct mr_web *w);                   /* raw, without '?' */
MR_API struct mr_str mr_web_param(const struct mr_web *w, const char *name); /* of the path; "*" = the rest */
MR_API struct mr_str mr_web_header(const struct mr_web *w, const char *name);
MR_API struct mr_str mr_web_headers(const struct mr_web *w); /* "name: value\n" lines, names in lower case */
MR_API struct mr_str mr_web_body(const struct mr_web *w);
MR_API struct mr_str mr_web_remote(const struct mr_web *w); /* "127.0.0.1:5123", "[::1]:5123" or "unix" */
MR_API int mr_web_closed(const struct mr_web *w);
/* The answer, from any thread. start: status 200 to 599 and "Name: value" lines (NULL-terminated, or NULL; at most 60),
 * once; MR_E_INVALID for a line with control characters or one that is the server's to say (content-length, connection,
 * transfer-encoding, ...). length -1: streamed, the head leaves at once; else with the first bytes.
 * write: takes at most 64 MiB. MR_OK; MR_MORE: taken, but more than 256 KiB wait for the client: drained is called once,
 * inside mr_dispatch, when it is time to go on, or the client is gone (of several writes that said so, the last one's);
 * who goes on without gets MR_E_FULL above 4 MiB;
 * MR_E_CLOSED when the client is gone, MR_E_INVALID beyond the length.
 * end: once, always, or fail instead; without a start both answer 500. fail: what was begun is cut, so that the client
 * notices. No drained comes after them. */
MR_API int mr_web_start(struct mr_web *w, int status, const char *const *headers, int64_t length);
MR_API int mr_web_write(struct mr_web *w, struct mr_str bytes, void (*drained)(void *ud), void *ud);
MR_API int mr_web_end(struct mr_web **w);
MR_API int mr_web_fail(struct mr_web **w);

/* ----------------------------------------------------------- model providers */

struct mr_model_use; /* one model request put to the host; the host's until done or failed */

struct mr_provider {
  uint32_t size;
  const char *name;   /* e.g. "offline" */
  const char *models; /* comma list of model ids or prefixes ending in *, e.g. "claude-*,test" */
  void (*run)(void *ud, struct mr_model_use *use);    /* inside mr_dispatch; may finish later */
  void (*cancel)(void *ud, struct mr_model_use *use); /* as for tools */
  void *ud;
};

/* A model played by the host; wins over configured providers for the models it names. */
MR_API int mr_provider_add(struct mr_runtime *rt, const struct mr_provider *p, struct mr_err *err);
MR_API int mr_provider_remove(struct mr_runtime *rt, const char *name);
/* The request as an object in the form of the Messages API: model, system, messages, tools. */
MR_API const struct mr_val *mr_model_use_request(const struct mr_model_use *u);
MR_API struct mr_str mr_model_use_session(const struct mr_model_use *u);
MR_API int mr_model_use_text(struct mr_model_use *u, struct mr_str delta); /* streams, any thread */
/* reply: {"content":[blocks], "stop_reason"?, "usage"?} in the form of the Messages API. */
MR_API int mr_model_use_finish(struct mr_model_use **u, const char *reply_json);
MR_API int mr_model_use_fail(struct mr_model_use **u, const char *error_type, const char *message);

#ifdef __cplusplus
}
#endif
#endif
