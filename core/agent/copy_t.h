/*
 * copy_t - a session made from the rows of another one, of this store (fork.c) or of a file (import.c).
 *
 * The copy is unborn while its rows are written, many commits if need be, and is there whole or not at all: it is
 * born in the commit of its last rows, its files and its head. Every id that is the session's own (session, threads,
 * events, outcomes, resources, runs) is made anew from the old one and a random key of this copy, so references stay
 * consistent in all bodies, forward ones too, and no table of ids is kept, however long the log is. What a model
 * wrote or reads is never looked into: the copy sends a model the bytes that the original would. Ids of threads are
 * among those bytes, so a copy's thread is known to its coordinator's model by the old id ("known_as").
 *
 * A copy is at rest: what was going on when the rows end is closed (copy_rest.c, copy_close.c). Its rows are marked as copied, so
 * that watchers are not shown them as news. Loop thread.
 */
#ifndef MR_AGENT_COPY_T_H
#define MR_AGENT_COPY_T_H

#include "agent/outcome.h"
#include "agent/work.h"

/* A tool call of a thread's latest reply. */
struct mr_copy_use {
  char event_id[MR_ID_LEN];                 /* all ids here are the old ones */
  bool custom, hidden, asks, denied, owned; /* owned: a handler claimed it, or it runs in the server */
  bool confirmed, finished, resolved;       /* finished: without its result's row yet */
};
struct mr_copy_thread {
  struct mr_copy_thread *next; /* in order of creation */
  char id[MR_ID_LEN];          /* "" of the primary one */
  char agent[256];             /* its agent's name */
  bool advisor;
  char span[MR_ID_LEN]; /* the model request that is open, or "" */
  struct mr_copy_use *uses;
  int nuses, cap;
  enum mr_status status;
  enum mr_stop stop;
  int nasked; /* calls that its latest idle event names */
  int nmail;  /* messages that its model was not given */
};
/* What the rows so far add up to, as far as it says whether the machine is at rest. */
struct mr_rest {
  const struct mr_mem *mem;
  struct mr_arena *arena;         /* of outcomes; the call's */
  struct mr_str primary;          /* the primary thread's old id */
  bool self_hosted;               /* the copy's client runs the built-in tools; known when the rows end */
  struct mr_copy_thread *threads; /* the primary one is first, once there is a row */
  int nthreads;
  enum mr_status status; /* the session's */
  enum mr_stop stop;
  bool begun; /* it has rows that say anything of this */
  struct mr_outcome *outcomes;
};
/* Follows a row. MR_E_INVALID: the machine never writes such a row here; why says so. A row of this store's own log
 * is followed all the same. */
int mr_rest_row(struct mr_rest *r, const struct mr_log_row *row, yyjson_val *body, struct mr_err *why);
void mr_rest_free(struct mr_rest *r);
bool mr_rest_waits(const struct mr_rest *r, const struct mr_copy_use *u); /* is a client to answer it? */
int mr_rest_waiting(const struct mr_rest *r, const struct mr_copy_thread *t);
int mr_rest_unresolved(const struct mr_copy_thread *t);

struct mr_copy_file {
  char id[MR_ID_MAX];
  struct mr_str old_id;
  struct mr_doc_row doc;
};

/* A message that waited in the inbox: it becomes part of the history, and nothing answers it yet. */
struct mr_copy_input {
  struct mr_copy_input *next;
  struct mr_str type, id, content;
};

struct mr_copy {
  struct mr_call *c;
  char id[MR_ID_MAX], primary[MR_ID_MAX]; /* of the new session */
  struct mr_str old_id, old_primary;      /* of the one it is made from; the call's */
  struct mr_str agent_name;               /* of the primary thread */
  struct mr_str agent, agent_id;          /* the new session's; the call's */
  int64_t agent_version, created_us;
  unsigned char key[32];
  struct mr_rest rest;
  struct mr_commit *cm; /* rows that wait for their commit */
  int nrows;
  size_t bytes;
  int64_t rows, last_us;
  int under_way, code; /* code: the first failure; c->err says what */
  bool strict;         /* rows are not this store's own: refuse what the machine never writes */
  bool began, ending;
  struct mr_copy_file *files;
  int nfiles, files_cap;
  struct mr_copy_input *inputs, **inputs_tail; /* NULL: none */
  struct mr_works_in works;                    /* its first work item */
  void (*go)(struct mr_copy *k);               /* room again, or a failure: set by who got MR_MORE */
  void (*over)(struct mr_copy *k);             /* of finish and abort */
};

/* The new session's id and key. old_id and old_primary are set. MR_E_IO. */
int mr_copy_init(struct mr_copy *k, struct mr_call *c);
/* Makes the session, unborn. agent: its snapshot. */
int mr_copy_begin(struct mr_copy *k, struct mr_str agent, struct mr_str agent_id, int64_t agent_version);
/* Adds a row (of the old session; body parsed: of row->body, or NULL). MR_OK, MR_MORE: taken too, but wait for
 * go; or a failure in c->err. */
int mr_copy_row(struct mr_copy *k, const struct mr_log_row *row, yyjson_val *body);
/* A file's new document (strings the call's); its blob is there under the new id. NULL: no memory. */
struct mr_copy_file *mr_copy_file_new(struct mr_copy *k, struct mr_str old_id);
/* Closes what is open and ends the copy: over comes, code says how it went. Not MR_OK: nothing is left of it.
 * doc: the client's part. The answer is in c->out with the commit that makes the session be there (mr_origin.last). */
void mr_copy_finish(struct mr_copy *k, struct mr_str doc, struct mr_str environment_id);
/* Removes what was made; over comes, code is k->code. */
void mr_copy_abort(struct mr_copy *k);
/* Ends the call: with the new session, or with c->err. */
void mr_copy_answer(struct mr_copy *k);

/* copy_ids.c */
/* The new id of an old one; out empty when it is none of the session's own. */
void mr_copy_id(const struct mr_copy *k, struct mr_str old, char out[MR_ID_MAX]);
/* v with the new ids; what a model wrote or reads as it is. */
void mr_copy_value(const struct mr_copy *k, struct mr_buf *out, yyjson_val *v);
/* A model.reply that ends with the event-th wire event that it stands for. */
void mr_copy_cut_reply(struct mr_buf *out, yyjson_val *reply, int events);

/* copy_close.c: the rows that close what is open. rest.self_hosted is set. */
int mr_copy_close(struct mr_copy *k);

/* copy.c: title and metadata of a copy. word: "fork of ", key: metadata that names the old session. */
int mr_copy_label(struct mr_copy *k, yyjson_val *old_title, yyjson_val *old_metadata, const char *word,
                  const char *key, struct mr_jw *w);
/* copy_space.c: the session's files in the sandbox. k and fn are set before each step but the last, and fn comes once
 * for each, with c->err filled on failure. */
struct mr_copy_space {
  struct mr_copy *k;
  void (*fn)(struct mr_copy_space *s, int code);
  bool from_file; /* the archive is somebody's */
  bool staged;    /* unpacked beside the session */
  struct mr_sandbox_keep *keep;
};
bool mr_copy_space_can(const struct mr_copy *k);
void mr_copy_space_of(struct mr_copy_space *s); /* the old session's, as they are now, if there are any */
void mr_copy_space_unpack(struct mr_copy_space *s, int fd); /* fd is duplicated */
/* Once the copy is over: gives them to the session that was born, else drops them. fn's code is k->code. */
void mr_copy_space_settle(struct mr_copy_space *s);
void mr_copy_space_cancel(struct mr_copy_space *s); /* ends a step that is under way; fn comes inside */

/* The environment that the input names (environment_id), else dflt, else the one named "default": fn once. */
struct mr_copy_env {
  struct mr_call *c;
  struct mr_str id;
  bool self_hosted;     /* once it was found, */
  struct mr_str config; /* as is its configuration, JSON */
  struct mr_env_use use;
  void (*fn)(struct mr_copy_env *e, int code);
};
void mr_copy_env(struct mr_copy_env *e, struct mr_str dflt);
/* The member of the session's document that holds it. */
void mr_copy_environment(const struct mr_copy_env *e, struct mr_jw *w);

#endif
