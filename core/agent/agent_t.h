/*
 * agent_t - the shared insides of the agent room: the domain's body and helpers that several of its
 * files use. Included by the .c files of core/agent only.
 */
#ifndef MR_AGENT_AGENT_T_H
#define MR_AGENT_AGENT_T_H

#include "agent/caps.h"
#include "agent/domain.h"

enum { MR_ID_LEN = 48 }; /* ids with their NUL */
struct mr_session;

struct mr_domain {
  const struct mr_sys *sys;
  const struct mr_mem *mem;
  struct mr_loop *loop;
  struct mr_store *store;
  struct mr_models *models;
  struct mr_http_client *http;
  const struct mr_guard *guard;
  struct mr_prices *prices; /* price.h */
  struct mr_sandbox_driver *sandbox;
  struct mr_pool *pool;
  struct mr_tool_runner tools;
  struct mr_hooks hooks;
  struct mr_watch_host watch_host;
  struct mr_watches *watches; /* watch.c */
  struct mr_webtools *web;    /* web.h */
  struct mr_timer kv_sweep;   /* values whose time is over */
  int64_t default_ws;
  struct mr_sessions *sessions;      /* loaded sessions: table, LRU (session.c) */
  struct mr_works *works;            /* work_t.h: the queue of self-hosted environments */
  struct mr_keys *keys;              /* keys.c: bootstrap keys, what was checked lately */
  struct mr_diagnosing *diagnosing;  /* diagnostics.c: calls that wait for the driver */
  struct mr_env_use *env_uses;       /* environments.c: sessions being made, environments being deleted */
  bool started, ready, draining;     /* ready: what a start makes is there */
  bool cut;                          /* nothing is decided any more, the store may be gone */
  struct mr_call *held, **held_tail; /* calls that came before the start was over */
  int waking;                        /* steps of the start, or of waking sessions, that are under way */
  struct mr_timer rewake;            /* looks for sessions that were dropped after a failed commit */
  void (*idle_fn)(void *ud);
  void *idle_ud;
  struct mr_domain_stats stats;
  /* limits of the configuration */
  int retry_max;                       /* model requests tried again, default 10 */
  int64_t retry_base_us, retry_cap_us; /* 1 s, 60 s */
  struct mr_caps caps;                 /* of sessions without a budget of their own */
  int tool_rounds_max;                 /* rounds of tool use in one turn, default 200 */
  int64_t lease_s;                     /* of a work item whose worker asks for no other, 300 */
  int64_t heartbeat_us;                /* of a grader at work, 10 s */
  yyjson_doc *context;                 /* section of the configuration, or NULL (compact.c) */
  char grader_model[256];              /* "": that of the session */
};

/* ---- lists (page.c): cursors and the {"data","next_page"} frame ---- */

/* in.limit between 1 and max (dflt when absent) and in.page into *cur; a cursor remembers the order. On
 * failure fills c->err and returns its code. */
struct mr_page {
  int limit;
  bool ascending;
  struct mr_cursor cur;
  int64_t pos;
  bool backward;
};
int mr_page_read(struct mr_call *c, int dflt, int max, bool ascending, struct mr_page *p);
/* Cursor texts, in the call's arena. */
struct mr_str mr_page_by_time(struct mr_call *c, bool ascending, bool backward, int64_t us, struct mr_str id);
struct mr_str mr_page_by_pos(struct mr_call *c, bool ascending, int64_t pos);
/* created_at[gte] etc. of in into r. */
int mr_page_range(struct mr_call *c, struct mr_range *r);
/* A cursor whose place the range now excludes is refused. */
int mr_page_within(struct mr_call *c, const struct mr_page *p, const struct mr_range *r);
/* statuses of in are statuses of sessions and threads. */
int mr_page_statuses(struct mr_call *c);

/* ---- documents (doc.c): what agents, environments and files share ---- */

/* metadata: merges patch (strings set, nulls delete; empty_deletes: "" too) over old (may be NULL) into
 * out as JSON text; checks 16 pairs, keys 1-64, values <= 512 characters. */
int mr_metadata_merge(struct mr_call *c, yyjson_val *old, yyjson_val *patch, bool empty_deletes,
                      struct mr_buf *out);
/* Unknown: 404 with a message naming kind and id. */
void mr_not_found(struct mr_call *c, const char *what, struct mr_str id);
/* Did a read of one object fail? Sets c->err (a missing one as above, with the input field that named it, or
 * NULL) and returns its code; MR_OK: rows[0] is there. */
int mr_read_check(struct mr_call *c, const struct mr_rows *r, const char *field, const char *what,
                  struct mr_str id);

/* ---- environments in use (environments.c): no session is made in one that is being deleted, none is deleted
 * while a session is being made in it; the store sees only what is committed ---- */

struct mr_env_use {
  struct mr_env_use *next, **link; /* link NULL: not in the list */
  int64_t workspace;
  struct mr_str id;
  bool deleting;
};
/* False, and nothing begun, when the other kind of use is under way. u and id live until the end. */
bool mr_env_use_begin(struct mr_domain *d, struct mr_env_use *u, int64_t workspace, struct mr_str id,
                      bool deleting);
void mr_env_use_end(struct mr_env_use *u);
/* The config of an environment's document, as JSON in the arena ("{}" when memory is short): a session keeps it as
 * it was when the session was made, as member "environment" of its document, which clients are not shown. */
struct mr_str mr_env_config(struct mr_arena *a, struct mr_str body, bool *self_hosted);
void mr_diagnosing_cut(struct mr_domain *d); /* diagnostics.c */
/* Do clients run the built-in tools of the session with this document? The kind never changes. */
bool mr_env_self_hosted(yyjson_val *session_doc);
/* The packages of an environment's config (hands.c); lists in the arena. */
void mr_env_packages(struct mr_arena *a, yyjson_val *config, struct mr_sandbox_packages *p);
/* The session's sandbox object, made when there is none (hands.c); nothing is started by it. NULL: no memory. */
struct mr_sandbox *mr_session_hands(struct mr_session *s);
/* After a call of it: where the sandbox is, for the next commit's head, so that a restart finds it again. */
void mr_session_hands_keep(struct mr_session *s);

/* ---- content blocks (content.c) ---- */

bool mr_content_blank(yyjson_val *arr); /* nothing but empty text: models' APIs refuse a message of that */
/* A tool handler's result (any JSON) as an array of content blocks: strings become a text block, arrays
 * of blocks stay, other values become their JSON text; empty stays []. MR_E_INVALID: a block is none that a
 * model takes; err says why, out has nothing. */
int mr_content_from_result(const struct mr_mem *m, struct mr_str json, struct mr_buf *out, struct mr_err *err);
/* Wire content blocks as Messages API blocks for a model request; files stay references (turn_files.c). */
void mr_content_to_model(const struct mr_mem *m, yyjson_val *arr, struct mr_buf *out);
bool mr_content_text_only(yyjson_val *arr);

/* ---- agents and their snapshots (agents.c, snapshot.c) ---- */

/* Resolves in["agent"] of a session create to a snapshot JSON (spec sessions §2.3): fn once, on the loop,
 * with code; snapshot, id, version and the document's rev for mr_commit_doc_expect. */
struct mr_resolved {
  struct mr_str snapshot, id;
  int64_t version, rev;
};
void mr_agents_resolve(struct mr_call *c, yyjson_val *agent,
                       void (*fn)(struct mr_call *c, int code, const struct mr_resolved *r));

/* The environment "default" in the default workspace, made when missing; fn once, from the drain. */
void mr_environments_ensure_default(struct mr_domain *d, void (*fn)(void *ud, int code), void *ud);

/* ---- keys (keys.c) ---- */
int mr_keys_init(struct mr_domain *d, struct mr_err *err);
void mr_keys_ready(struct mr_domain *d); /* the start is over: bearers of work items can be looked up */
void mr_keys_free(struct mr_domain *d);

enum { MR_SECRET_CHARS = 43 }; /* as many as 256 bits take, with their NUL one more */
/* Random characters [A-Za-z0-9_-]. MR_E_IO. */
int mr_secret_make(const struct mr_sys *sys, char out[MR_SECRET_CHARS + 1]);

bool mr_event_type_known(struct mr_str type); /* events_list.c: a type of the API's events */

/* ---- files (files.c) ---- */

/* Makes the session's own copy of a file: a new file document with scope, added to commit cm, its blob
 * linked. fn once with the new id (in the arena). */
void mr_files_copy_to_session(struct mr_call *c, struct mr_str file_id, struct mr_str session_id,
                              void (*fn)(struct mr_call *c, int code, const struct mr_doc_row *copy, void *ud),
                              void *ud);
/* Makes files of what lies in the session's outputs directory and is new or changed; fn once. */
void mr_files_harvest(struct mr_domain *d, int64_t ws, struct mr_str session_id, void (*fn)(void *ud, int code),
                      void *ud);

#endif
