/*
 * domain - what the agent room offers to the floors above: one struct per runtime that owns agents,
 * environments, sessions, events and files, and the functions that carry out operations on them.
 *
 * What it is not for: HTTP (api/), decoding and shape checks (ops/), the host's queue (host/). Those sit
 * above; what must call up to them is a vtable here that they fill: the tool runner and the hooks.
 * Loop thread only, all of it.
 */
#ifndef MR_AGENT_DOMAIN_H
#define MR_AGENT_DOMAIN_H

#include "base/json.h"
#include "base/err.h"
#include "loop/loop.h"
#include "loop/pool.h"
#include "model/model.h"
#include "sandbox/sandbox.h"
#include "store/store.h"

struct mr_domain;
struct mr_call;

/* ------------------------------------------------------------------- calls */

enum { MR_PATH_MAX = 3 };

/* Who asks. Hosts (C and Lua) may do everything; over HTTP it is the bearer of a key (keys.c). */
enum mr_bearer_kind {
  MR_BEARER_HOST,
  MR_BEARER_API,         /* an API key */
  MR_BEARER_ENVIRONMENT, /* an environment key: the workers of one self-hosted environment */
  MR_BEARER_ITEM         /* the session token of one work item */
};
struct mr_bearer {
  enum mr_bearer_kind kind;
  int64_t workspace;
  struct mr_str key_id;         /* of an item's: the item */
  struct mr_str environment_id; /* ENVIRONMENT, ITEM */
  struct mr_str session_id;     /* ITEM */
  bool past;                    /* ITEM: the item was given to another worker since */
};
/* What an operation is open to, besides API keys; bits. */
enum { MR_BY_ENVIRONMENT = 16, MR_BY_ITEM = 32, MR_NOT_BY_API = 64 };
/* May it call this operation (its route and path parameters)? MR_OK, or MR_E_DENIED, or MR_E_NOTFOUND for what it does
 * not get to see. */
int mr_bearer_check(struct mr_domain *d, const struct mr_bearer *b, unsigned open_to, const char *route,
                    const struct mr_str path[MR_PATH_MAX], struct mr_err *err);

/*
 * One operation in execution. A face (api/, host/) makes it through ops/, which has decoded and checked
 * the input; the operation's run function answers with mr_call_done exactly once, at once or later.
 * Strings of who, path and in live as long as the call. in is the object of the query (GET, DELETE) or
 * body (POST) fields; it is never NULL, and fields have the kinds and limits of the operation's shape.
 */
struct mr_call {
  struct mr_domain *d;
  const struct mr_mem *mem;
  struct mr_arena *arena;          /* freed with the call */
  struct mr_origin who;            /* workspace, key, request id, trace */
  struct mr_bearer by;             /* who asks; zero: the host */
  struct mr_str path[MR_PATH_MAX]; /* path parameters in the order of the route */
  yyjson_val *in;
  bool strict;           /* fields that the shape does not know are errors */
  struct mr_buf out;     /* the response, JSON text */
  struct mr_err err;     /* on failure */
  struct mr_str details; /* on failure: members of error.details, JSON without the braces; the call's */
  struct mr_ready ready; /* for mr_call_done: the face is told from the drain */
  int code;              /* result, valid in done */

  /* Set by the face. done: exactly once; the face frees the call after it. */
  void (*done)(struct mr_call *c);
  void *face;
  /* Streams: each event; pos 0 for previews. Returns MR_E_CLOSED when the reader was cut. */
  int (*event)(struct mr_call *c, struct mr_str name, int64_t pos, struct mr_str json);
  void (*opened)(struct mr_call *c); /* streams: subscribed; send the head now */
  /* Downloads: the head, then bytes (MR_MORE: wait until drained is called). */
  void (*out_head)(struct mr_call *c, struct mr_str filename, struct mr_str media_type, int64_t size);
  int (*out_bytes)(struct mr_call *c, struct mr_str bytes);
  void (*in_drained)(struct mr_call *c); /* uploads: feed may go on after MR_MORE */

  /* Set by the operation when it goes on after run returns; NULL when it does not apply. */
  void (*cancel)(struct mr_call *c);                   /* the face lost interest; done still comes */
  void (*out_drained)(struct mr_call *c);              /* downloads: write again */
  int (*feed)(struct mr_call *c, struct mr_str bytes); /* uploads: MR_OK, MR_MORE, MR_E* */
  void (*feed_end)(struct mr_call *c, int code);       /* uploads: whole (MR_OK) or broken off */
  void *priv;                                          /* the operation's own */
  struct mr_call *held;                                /* next in the line of mr_domain_begin */
  void (*go)(struct mr_call *c);
};

/* Answers: fills nothing. code MR_OK: out holds the JSON; else err was set (mr_err_set(&c->err, ...)). */
void mr_call_done(struct mr_call *c, int code);
/* mr_err_set on c->err and mr_call_done in one. */
void mr_call_fail(struct mr_call *c, int code, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void mr_call_fail_err(struct mr_call *c, const struct mr_err *err);

/* --------------------------------------------------------------- the domain */

/* A tool call given to a handler in the host. The domain's until mr_tool_run_done. */
struct mr_tool_run {
  struct mr_str name, input; /* input: JSON object text */
  struct mr_str event_id, session_id, thread_id, agent_id, agent_name;
  int attempt;        /* 1, more after a crash */
  int64_t timeout_ms; /* set by the runner's start; the domain keeps the deadline */
  void *host;         /* the runner's own */
};
/* content: JSON (any value) or empty; turned into content blocks here. Once per started run. The run is
 * invalid afterwards. */
void mr_tool_run_done(struct mr_domain *d, struct mr_tool_run *run, struct mr_str content, bool is_error);

enum { MR_OWNS = 1, MR_OWNS_IDEMPOTENT = 2 };
struct mr_tool_runner { /* filled by host/ */
  void *ud;
  /* Asked at the commit of agent.custom_tool_use: 0 = nobody, else MR_OWNS | MR_OWNS_IDEMPOTENT. */
  int (*owns)(void *ud, struct mr_str tool, struct mr_str agent_id, struct mr_str agent_name);
  /* Takes the run (MR_OK; done may come at once), or an error: then nobody owns it any more. */
  int (*start)(void *ud, struct mr_tool_run *run);
  void (*cancel)(void *ud, struct mr_tool_run *run); /* settled without it; never call done after */
};

/* Hooks: a say at a phase of the turn. What each phase asks and may be answered is the table at mr_hook_add in
 * moonrig.h; phase.c holds it as code. */
enum mr_phase {
  MR_PHASE_ACCEPT,
  MR_PHASE_CONTEXT,
  MR_PHASE_MODEL,
  MR_PHASE_PERMIT,
  MR_PHASE_TOOLS,
  MR_PHASE_SETTLE,
  MR_PHASE_IDLE,
  MR_PHASES
};
const char *mr_phase_name(enum mr_phase p);
int mr_phase_find(const char *name); /* of this name, or -1 */

/* What a hook's answer holds, as bits. */
enum {
  MR_SAID_REFUSE = 1,
  MR_SAID_EVENTS = 2,
  MR_SAID_MESSAGES = 4,
  MR_SAID_SYSTEM = 8,
  MR_SAID_MODEL = 16,
  MR_SAID_REPLY = 32,
  MR_SAID_DECISION = 64,
  MR_SAID_CONTENT = 128,
  MR_SAID_IS_ERROR = 256,
  MR_SAID_CONTINUE = 512
};
/* Checks one hook's answer to input (both objects; answer NULL or null: no opinion) and writes what it makes of
 * it: out is the reason (MR_SAID_REFUSE), the decision (permit), or input with what was changed, in the forms that
 * the domain reads. Pure; any thread. MR_E_INVALID names the member in err. */
int mr_phase_read(const struct mr_mem *m, enum mr_phase p, yyjson_val *input, yyjson_val *answer,
                  unsigned *said, struct mr_buf *out, struct mr_err *err);

struct mr_answer {   /* of all hooks of a phase together; borrowed by done */
  unsigned said;     /* 0: nobody had an opinion */
  struct mr_str why; /* MR_SAID_REFUSE: for people */
  int code;          /* MR_E_NOMEM: a refusal of nobody's, they could not be asked; else 0 */
  yyjson_doc *value; /* else what mr_phase_read wrote, unless said is 0; done may take it (set it to NULL) */
};
struct mr_question { /* the domain's; see mr_question_ask in session_t.h */
  void (*done)(struct mr_question *q, struct mr_answer *a);
  struct mr_domain *d;
  struct mr_ready unasked; /* it could not be asked: done comes with a refusal */
  void *host;              /* the answerer's while it is open, else NULL */
};
struct mr_subject { /* what hooks are chosen by */
  struct mr_str agent, agent_id, tool;
  struct mr_str thread; /* where it happens, or empty: not chosen by, but told */
};
struct mr_hooks { /* filled by host/ */
  void *ud;
  bool (*has)(void *ud, enum mr_phase p, const struct mr_subject *who);
  /* Takes a question (q->host is set until done): done once, from the drain, at the latest when the deadline of
   * each hook passed. q NULL: nobody waits for the answer. MR_E_NOMEM: done never comes. */
  int (*ask)(void *ud, enum mr_phase p, const struct mr_subject *who, struct mr_str input,
             struct mr_question *q);
  void (*drop)(void *ud, struct mr_question *q); /* an open one: done never comes */
};

/* An event shown to a watcher in the host. The domain's until mr_watch_done, or until drop returned. */
struct mr_shown {
  struct mr_str watcher, session_id, agent_name, body; /* body: the event, JSON text */
  int64_t pos;
  void *host; /* the host's own */
};
/* again: it was not seen to the end, and will be shown again. Once per event that show took. */
void mr_watch_done(struct mr_domain *d, struct mr_shown *e, bool again);

struct mr_watch_host { /* filled by host/ */
  void *ud;
  int (*show)(void *ud, struct mr_shown *e);  /* MR_OK, or it is tried again; done never comes inside it */
  void (*drop)(void *ud, struct mr_shown *e); /* not waited for any more; never call done after */
};
struct mr_watch_opts {
  struct mr_str name;         /* at most 128 bytes */
  const struct mr_str *types; /* none: all */
  int ntypes;
  struct mr_str agent; /* name or id; empty: all */
  bool durable;
};
/* Adds a watcher; one of that name gets this filter and keeps its position. */
int mr_watch_add(struct mr_domain *d, const struct mr_watch_opts *o, struct mr_err *err);
int mr_watch_remove(struct mr_domain *d, struct mr_str name); /* MR_E_NOTFOUND; keeps a durable position */

struct mr_domain_opts {
  struct mr_loop *loop;
  struct mr_store *store;
  struct mr_models *models;
  struct mr_http_client *http;       /* web_fetch, web_search; */
  const struct mr_guard *guard;      /* and where they may go */
  struct mr_sandbox_driver *sandbox; /* NULL: tool calls answer with an error that says why */
  struct mr_pool *pool;
  const struct mr_tool_runner *tools; /* NULL members = none; copied */
  const struct mr_hooks *hooks;
  const struct mr_watch_host *watch_host;
  yyjson_val *config; /* the whole configuration object; read during new */
};
int mr_domain_new(struct mr_domain **out, const struct mr_domain_opts *o, struct mr_err *err);
void mr_domain_free(struct mr_domain **d);
/* Makes what a first start needs (the environment "default"), then wakes sessions that were running. */
void mr_domain_start(struct mr_domain *d);
/* Runs go(c): now, or, when a start has begun that is not over, once it is. So whoever calls first finds
 * what a first start makes. */
void mr_domain_begin(struct mr_call *c, void (*go)(struct mr_call *c));
/* No new turn steps from now on; open streams end with MR_E_CLOSED. Requests to models that are in
 * flight may end; idle_fn once nothing runs (also when it already does). */
void mr_domain_drain(struct mr_domain *d, void (*idle_fn)(void *ud), void *ud);
/* Cuts what still runs: model requests are dropped unrecorded (asked again at the next start). */
void mr_domain_cut(struct mr_domain *d);

struct mr_domain_stats {
  struct mr_egress_stats egress; /* of sandboxes */
  int sessions_loaded, model_running, tools_running, handlers_running, watchers_running, subscribers;
  uint64_t turns, model_requests, tool_calls, events;
};
void mr_domain_stats(const struct mr_domain *d, struct mr_domain_stats *out);

/* ------------------------------------------------------------ operations
 * Each: run function of the operation of that name in ops.def. */
#define MR_OPERATION(name) void mr_##name(struct mr_call *c)
MR_OPERATION(agents_create);
MR_OPERATION(agents_retrieve);
MR_OPERATION(agents_update);
MR_OPERATION(agents_list);
MR_OPERATION(agents_archive);
MR_OPERATION(agents_versions_list);
MR_OPERATION(environments_create);
MR_OPERATION(environments_retrieve);
MR_OPERATION(environments_update);
MR_OPERATION(environments_list);
MR_OPERATION(environments_archive);
MR_OPERATION(environments_delete);
MR_OPERATION(environments_build);
MR_OPERATION(environments_diagnostics);
MR_OPERATION(environments_work_poll); /* work_poll.c, work_ops.c */
MR_OPERATION(environments_work_ack);
MR_OPERATION(environments_work_heartbeat);
MR_OPERATION(environments_work_stop);
MR_OPERATION(environments_work_stats);
MR_OPERATION(environments_work_list);
MR_OPERATION(environments_work_retrieve);
MR_OPERATION(environments_work_update);
MR_OPERATION(files_upload);
MR_OPERATION(files_list);
MR_OPERATION(files_retrieve_metadata);
MR_OPERATION(files_download);
MR_OPERATION(files_delete);
MR_OPERATION(sessions_create);
MR_OPERATION(sessions_retrieve);
MR_OPERATION(sessions_update);
MR_OPERATION(sessions_list);
MR_OPERATION(sessions_archive);
MR_OPERATION(sessions_delete);
MR_OPERATION(sessions_fork);
MR_OPERATION(sessions_export);
MR_OPERATION(sessions_import);
MR_OPERATION(sessions_why);
MR_OPERATION(sessions_resources_add);
MR_OPERATION(sessions_resources_list);
MR_OPERATION(sessions_resources_retrieve);
MR_OPERATION(sessions_resources_update);
MR_OPERATION(sessions_resources_delete);
MR_OPERATION(sessions_events_send);
MR_OPERATION(sessions_events_list);
MR_OPERATION(sessions_events_stream);
MR_OPERATION(sessions_threads_list);
MR_OPERATION(sessions_threads_retrieve);
MR_OPERATION(sessions_threads_archive);
MR_OPERATION(sessions_threads_events_list);
MR_OPERATION(sessions_threads_stream);
MR_OPERATION(messages_create); /* agent/messages.c: not over HTTP, which passes the body through (api/pass.c) */
MR_OPERATION(messages_count_tokens);
MR_OPERATION(models_list);
MR_OPERATION(models_retrieve);

/* API keys (agent/keys.c): made and revoked by the program, checked by the HTTP face. */
/* A new key: its id, and the secret "sk-mr-..." that is shown once. With an environment_id it is the key of that
 * environment's workers, "sk-mr-env-...". */
void mr_keys_create(
    struct mr_call *c); /* in: {"name","environment_id"}; out: {"id","name","key","created_at",..} */
void mr_keys_list(struct mr_call *c);
void mr_keys_revoke(struct mr_call *c); /* path[0] = id */
/* Who is the bearer of this secret? fn on the loop, once: MR_OK, MR_E_AUTH. by is borrowed. */
void mr_keys_check(struct mr_domain *d, struct mr_str secret,
                   void (*fn)(void *ud, int code, const struct mr_bearer *by), void *ud);
/* A key that is valid while this runtime lives: MOONRIG_API_KEY's, or (own) that of the program's commands. */
int mr_keys_bootstrap(struct mr_domain *d, bool own, struct mr_str secret, struct mr_err *err);

#endif
