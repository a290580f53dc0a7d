/*
 * store - the durable state behind one driver vtable: documents, sessions, the log, the inbox, keys
 * and blobs. Drivers: sqlite/ (files, or ":memory:").
 *
 * Writes are commits: a list of typed operations that the driver's one writer thread applies in
 * order, in a savepoint, many commits to a transaction (group commit, then one fsync). A commit whose
 * expectation fails (compare and set) is undone alone. Commits are FIFO. done runs on the loop thread
 * after the transaction is durable: only then may anything become visible or start.
 * Reads run on a small pool of read-only connections, one statement per snapshot; done on the loop
 * thread. A read submitted after a commit's done sees that commit.
 *
 * Every table and unique index starts with the workspace; there is no look-up by id without one. The
 * workspace is a small integer made from "wrkspc_..." by mr_store_workspace.
 * Loop thread only, unless said.
 */
#ifndef MR_STORE_STORE_H
#define MR_STORE_STORE_H

#include "base/buf.h"
#include "base/err.h"
#include "loop/loop.h"

struct mr_store;

/* ---- opening ---- */

struct mr_store_opts {
  const char *dir; /* data directory, created 0700; or ":memory:" */
  int wait_ms;     /* wait for another owner's lock */
  int readers;     /* reading threads; 0 = 2 */
};
/* Blocks (called at start-up). MR_E_BUSY names the owner's pid; MR_E_STATE for a newer schema.
 * Migrations copy the database file first. Starts no log scan. */
int mr_store_open(struct mr_store **out, struct mr_loop *l, const struct mr_store_opts *o, struct mr_err *err);
/* Waits for queued commits, runs their done callbacks on this thread, closes. */
void mr_store_close(struct mr_store **s);
const char *mr_store_dir(const struct mr_store *s); /* ":memory:" or the directory */
/* Is the store refusing writes (disk full, I/O errors)? err gets the reason. */
bool mr_store_failing(const struct mr_store *s, struct mr_err *err);

struct mr_store_stats {
  uint64_t commits, transactions, rows, failed;
  size_t queued;
  int64_t pos;
};
void mr_store_stats(const struct mr_store *s, struct mr_store_stats *out);

/* ---- shapes ---- */

/* Who writes: stored with each inbox and log row. */
struct mr_origin {
  int64_t workspace;                       /* from mr_store_workspace */
  struct mr_str key_id, request_id, trace; /* may be empty */
};

/* A document: one JSON object with what lists and filters need in columns. kind is a short fixed
 * word: "agent", "environment", "file", "key", "resource", ... */
struct mr_doc_row {
  struct mr_str kind, id;
  struct mr_str parent;                        /* owner: session id of a resource or scoped file; "" */
  struct mr_str name;                          /* for look-up by name; "" */
  int64_t rev;                                 /* 1, +1 at each put; for compare and set */
  int64_t version;                             /* the API's version number (agents), else 0 */
  int64_t created_us, updated_us, archived_us; /* wall clock; archived 0 = not */
  struct mr_str body;                          /* JSON text */
};

/* A session's head. agent and immutable are written once at create. */
struct mr_session_row {
  struct mr_str id;
  int64_t no;  /* the store's number of the session, set by the store */
  int64_t rev; /* +1 at each put */
  int64_t created_us, updated_us, archived_us;
  struct mr_str status; /* idle running rescheduling terminated */
  struct mr_str agent_id, environment_id, deployment_id;
  int64_t agent_version;
  int64_t last_us; /* highest processed_at */
  int64_t owner_epoch;
  int64_t due_us;      /* wall time of the next retry when rescheduling, else 0 */
  bool unborn;         /* of mr_commit_session_new: see mr_commit_session_born */
  struct mr_str agent; /* JSON: the resolved snapshot (big: put only when it changed) */
  struct mr_str doc;   /* JSON: title, metadata, resources, ... the client's part */
  struct mr_str head;  /* JSON: usage, stats, primary thread, ... the machine's part */
};

enum mr_row_kind { MR_ROW_WIRE = 0, MR_ROW_PRIVATE = 1 };
enum {
  MR_ROW_COPIED = 1
}; /* a wire row that came with a copied session: it happened elsewhere, see mr_read_all */

struct mr_log_row {
  int64_t pos; /* log position, global, ascending; set by the store */
  enum mr_row_kind kind;
  int format;              /* of private rows: version of their JSON; of wire rows: 0, or MR_ROW_COPIED */
  struct mr_str type;      /* "user.message", or private: "model.reply", "tool.intent", ... */
  struct mr_str event_id;  /* "sevt_..."; "" for private rows without one */
  struct mr_str thread_id; /* "" = the primary thread */
  int64_t processed_us;
  struct mr_str body; /* wire: the exact bytes a client sees; private: JSON */
};

struct mr_inbox_row {
  int64_t arrival;                    /* ascending, set by the store */
  struct mr_str event_id, type, body; /* body: the event with "processed_at":null */
};

/* A log row of any session, for who follows all of them. */
struct mr_all_row {
  int64_t pos;
  struct mr_str session_id, agent_id, agent_name, type, body;
};

/* A durable value. A row past its time reads as absent everywhere, expectations included. */
struct mr_kv_row {
  struct mr_str space, key; /* a space's keys are ordered by their bytes */
  int64_t rev;              /* grows with each put of any key, also over a delete; set by the store */
  int64_t expires_us;       /* wall clock; 0 = never */
  struct mr_str value;      /* JSON text */
};

/* ---- commits ---- */

struct mr_commit;
/* All strings are copied. A failed call makes the whole commit fail at submit; no need to check each.
 * o is copied too. */
struct mr_commit *mr_commit_new(struct mr_store *s, const struct mr_origin *o); /* NULL: no memory */
void mr_commit_drop(struct mr_commit **c);                                      /* not submitted */

/* A failed expectation is MR_E_CONFLICT; err.error_code is "exists", "rev", "not_found" or "name_taken",
 * err.field the document's kind, "session" or "inbox". */

/* Documents. expect_rev: 0 = must not exist (insert), > 0 = must be at that rev, -1 = any existing.
 * rev is counted by the store; created_us is written at the insert alone. */
void mr_commit_doc_put(struct mr_commit *c, const struct mr_doc_row *d, int64_t expect_rev);
/* expect_rev 0: fine if it is gone already. Kept versions stay. */
void mr_commit_doc_delete(struct mr_commit *c, struct mr_str kind, struct mr_str id, int64_t expect_rev);
/* The document must exist at rev (not changed by this commit): for references. */
void mr_commit_doc_expect(struct mr_commit *c, struct mr_str kind, struct mr_str id, int64_t rev);
/* Keeps body as that version for ever (agents). */
void mr_commit_doc_version(struct mr_commit *c, struct mr_str kind, struct mr_str id, int64_t version,
                           int64_t created_us, struct mr_str body);
/* No unarchived document of this kind may have this name but id. */
void mr_commit_name_unique(struct mr_commit *c, struct mr_str kind, struct mr_str name, struct mr_str id);

/* Sessions. Members that are not named stay as they are. */
void mr_commit_session_new(struct mr_commit *c, const struct mr_session_row *s);
/* An unborn session takes commits and is seen by no read; what the program leaves unborn is deleted at the next
 * open. So a session of many rows is made in many commits, and is there whole or not at all. */
void mr_commit_session_born(struct mr_commit *c, struct mr_str session_id, struct mr_str environment_id);
enum { MR_SESSION_AGENT = 1, MR_SESSION_DOC = 2, MR_SESSION_HEAD = 4 };
/* what: which JSON columns to write; the plain columns (status, times, due_us, last_us, archived_us)
 * are always written. The row must be at rev s->rev and owner_epoch; it becomes rev + 1. */
void mr_commit_session_put(struct mr_commit *c, const struct mr_session_row *s, unsigned what);
/* A tombstone at once (not found from then on); rows go in small batches after. */
void mr_commit_session_delete(struct mr_commit *c, struct mr_str session_id);

/* The log and the inbox of a session, which must exist. Deleting an inbox row that is not there is a
 * conflict. A commit that was built on one that failed must fail too: whoever appends puts the session
 * in the same commit, whose rev says so. */
void mr_commit_log(struct mr_commit *c, struct mr_str session_id, const struct mr_log_row *rows, int n);
void mr_commit_inbox_add(struct mr_commit *c, struct mr_str session_id, const struct mr_inbox_row *r);
void mr_commit_inbox_del(struct mr_commit *c, struct mr_str session_id, struct mr_str event_id);

/* Durable values. expect: -1 = whatever is there, 0 = must not exist, else the rev it must be at; a conflict's
 * error_code is "exists", "not_found" or "rev", its field "key". The new rev is in the result. */
void mr_commit_kv_put(struct mr_commit *c, const struct mr_kv_row *r, int64_t expect);
void mr_commit_kv_delete(struct mr_commit *c, struct mr_str space, struct mr_str key, int64_t expect);
/* Removes up to limit rows, of any workspace, whose time is over; their number is in the result. */
void mr_commit_kv_sweep(struct mr_commit *c, int limit);

/* A static string that names what this commit is ("turn.take"): debug builds pass the fault points
 * "commit.<label>.before" and ".after" around the COMMIT that makes it durable. */
void mr_commit_label(struct mr_commit *c, const char *label);

/* The result of a commit. */
struct mr_commit_result {
  int code;                 /* MR_OK; MR_E_CONFLICT: an expectation failed; MR_E_UNAVAILABLE: disk */
  const struct mr_err *err; /* on failure; field = kind of the object whose expectation failed */
  int64_t first_pos;        /* position of the first log row; the others follow without gaps */
  int64_t rev;              /* of the last kv put */
  int swept;                /* rows that a kv sweep removed */
};
/* Submits and clears *c. done runs once, on the loop thread, never inside this call. */
void mr_commit_submit(struct mr_commit **c, void (*done)(void *ud, const struct mr_commit_result *r), void *ud);

/* Where a page ends: the created_us and id of a list's row; all zero = from the beginning. */
struct mr_cursor {
  int64_t us;
  struct mr_str id;
};

/* ---- reads ---- */

/* Rows come in one reply. Strings are borrowed until done returns. Reads of one object (doc, doc_version,
 * session) answer MR_E_NOTFOUND; lists, also those of a session that does not exist, MR_OK and no rows.
 * limit is taken as 1 to 10,000; a reply is cut past 16 MiB too, with more set. */
struct mr_rows {
  int code;
  const struct mr_err *err;
  int n;
  bool more;                     /* the limit cut the list */
  const struct mr_doc_row *docs; /* which of these is set follows from the query */
  const struct mr_session_row *sessions;
  const struct mr_log_row *log;
  const struct mr_inbox_row *inbox;
  const struct mr_all_row *all;
  const struct mr_kv_row *kv;
};
typedef void (*mr_rows_fn)(void *ud, const struct mr_rows *r);

/* Queries copy what they are given; each calls fn once on the loop thread (MR_E_FULL etc. too). */
void mr_read_doc(struct mr_store *s, int64_t ws, struct mr_str kind, struct mr_str id, mr_rows_fn fn, void *ud);
/* Unarchived documents of this name, newest first, at most limit. */
void mr_read_doc_named(struct mr_store *s, int64_t ws, struct mr_str kind, struct mr_str name, int limit,
                       mr_rows_fn fn, void *ud);
void mr_read_doc_version(struct mr_store *s, int64_t ws, struct mr_str kind, struct mr_str id, int64_t version,
                         mr_rows_fn fn, void *ud);
/* Versions newest first, below `below` (0 = all). */
void mr_read_doc_versions(struct mr_store *s, int64_t ws, struct mr_str kind, struct mr_str id, int64_t below,
                          int limit, mr_rows_fn fn, void *ud);

struct mr_range {
  int64_t gt, gte, lt, lte;
}; /* microseconds; 0 = open */

struct mr_doc_query {
  struct mr_str kind;
  struct mr_str parent; /* p NULL: any */
  bool include_archived, ascending;
  struct mr_range created;
  const struct mr_str *ids; /* only these ids, when nids > 0 (at most 1,000) */
  int nids;
  struct mr_cursor after; /* rows past this one in list order */
  int limit;
};
void mr_read_docs(struct mr_store *s, int64_t ws, const struct mr_doc_query *q, mr_rows_fn fn, void *ud);

void mr_read_session(struct mr_store *s, int64_t ws, struct mr_str id, mr_rows_fn fn, void *ud);
struct mr_session_query {
  struct mr_str agent_id, environment_id, deployment_id, memory_store_id; /* empty: any */
  int64_t agent_version;                                                  /* 0: any */
  const struct mr_str *statuses;                                          /* any of these, when nstatuses > 0 */
  int nstatuses;
  bool include_archived, ascending;
  struct mr_range created;
  struct mr_cursor after;
  int limit;
};
void mr_read_sessions(struct mr_store *s, int64_t ws, const struct mr_session_query *q, mr_rows_fn fn,
                      void *ud);
/* Sessions of any workspace that must be woken at start: status running or rescheduling, or with
 * inbox rows. Rows hold id and, in .no, the session's number; workspace comes in .owner_epoch. */
void mr_read_sessions_to_wake(struct mr_store *s, int limit, int64_t after_no, mr_rows_fn fn, void *ud);

struct mr_log_query {
  struct mr_str session_id;
  struct mr_str thread_id; /* p NULL: rows of the primary thread; else that thread's */
  bool all_threads;        /* rows of all threads, whatever thread_id says */
  struct mr_str event_id;  /* only this event, when not empty; walks the session's rows */
  bool with_private;       /* the machine's own load */
  bool descending;
  const struct mr_str *types; /* any of these, when ntypes > 0 */
  int ntypes;
  struct mr_range processed;
  int64_t after_pos; /* rows past this position in list order; 0 = from the start */
  int limit;
};
void mr_read_log(struct mr_store *s, int64_t ws, const struct mr_log_query *q, mr_rows_fn fn, void *ud);
void mr_read_inbox(struct mr_store *s, int64_t ws, struct mr_str session_id, mr_rows_fn fn, void *ud);

/* Wire rows of the primary threads of all sessions, of every workspace, in log order: past after_pos, up to
 * upto. types as in mr_log_query. Rows of deleted sessions, and copied rows, are passed over. */
void mr_read_all(struct mr_store *s, int64_t after_pos, int64_t upto, const struct mr_str *types, int ntypes,
                 int limit, mr_rows_fn fn, void *ud);

/* One value: MR_E_NOTFOUND when there is none, or its time is over. */
void mr_read_kv(struct mr_store *s, int64_t ws, struct mr_str space, struct mr_str key, mr_rows_fn fn,
                void *ud);
/* Values whose keys begin with prefix, past `after` (empty: from the start), by key. */
void mr_read_kvs(struct mr_store *s, int64_t ws, struct mr_str space, struct mr_str prefix, struct mr_str after,
                 int limit, mr_rows_fn fn, void *ud);

/* The integer of a workspace; made at first use. Blocking but cached: cheap after the first call. */
int mr_store_workspace(struct mr_store *s, struct mr_str workspace_id, int64_t *ws, struct mr_err *err);

/* ---- blobs: immutable files under <dir>/blobs, named by the caller ---- */

/* Ids are [A-Za-z0-9_-]{1,80}. Those that start with "file_" and have no document of kind "file" and the
 * same id are swept at the next open, once an hour old; no others are. Blobs of memory stores have at
 * most 64 MiB. Writers should be ended before the store is closed; one that is not loses its file. */
/* Writing: off the loop thread, then the row that refers to it is committed. Order: temp file, fsync,
 * rename, fsync of the directory. */
struct mr_blob_writer;
int mr_blob_begin(struct mr_store *s, struct mr_str id, struct mr_blob_writer **out, struct mr_err *err);
/* Queues bytes; returns MR_MORE when more than 1 MiB waits: stop until drained calls back. */
int mr_blob_write(struct mr_blob_writer *w, struct mr_str bytes, void (*drained)(void *ud), void *ud);
/* done on the loop thread: size and SHA-256 (hex). Frees the writer. */
void mr_blob_finish(struct mr_blob_writer **w,
                    void (*done)(void *ud, int code, int64_t size, const char *sha256,
                                 const struct mr_err *err),
                    void *ud);
void mr_blob_abort(struct mr_blob_writer **w);
/* Reads up to len bytes (at most 64 MiB) at offset; done on the loop thread (n < len at the end). */
void mr_blob_read(struct mr_store *s, struct mr_str id, int64_t offset, size_t len,
                  void (*done)(void *ud, int code, struct mr_str bytes), void *ud);
/* Hard link or copy to a new blob id (session copies), off the loop. */
void mr_blob_copy(struct mr_store *s, struct mr_str from, struct mr_str to,
                  void (*done)(void *ud, int code, const struct mr_err *err), void *ud);
void mr_blob_delete(struct mr_store *s, struct mr_str id); /* after the row is gone; best effort */
/* Absolute path of a blob, for mounting; MR_E_UNSUPPORTED in ":memory:" stores. out has 4096 bytes. */
int mr_blob_path(struct mr_store *s, struct mr_str id, char out[4096]);

/* ---- driver seam ---- */
/* The functions above are the vtable's front; a driver fills struct mr_store_driver in store_t.h. */

#endif
