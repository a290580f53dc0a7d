/*
 * store_t.h - what the files of this room share: the front's struct, the shape of a built commit and
 * of a pending read, and the vtable a driver fills.
 *
 * The split: the front (store.c, commit.c, read.c, blobs*.c) copies what callers pass, knows the loop
 * and owns deliveries; a driver knows a database and nothing of callers. A commit or a read has one
 * owner at a time: the front while it is built, the driver after submit/read took it, the front again
 * once it comes back through mr_store_deliver. So none of their members needs a lock.
 *
 * Invariant: everything that was accepted is delivered exactly once, on the loop thread, and nothing is
 * delivered inside the call that caused it (but a read's NOMEM when even the spares are gone).
 *
 * Callers: only this room. Threads: each member says; "loop" is the default.
 */
#ifndef MR_STORE_STORE_T_H
#define MR_STORE_STORE_T_H

#include <pthread.h>
#include "base/buf.h"
#include "loop/pool.h"
#include "store/store.h"

enum {
  MR_STORE_QUEUE_MAX = 100000,     /* commits waiting for the writer */
  MR_STORE_READS_MAX = 20000,      /* reads waiting */
  MR_STORE_LIST_MAX = 10000,       /* most rows of one read */
  MR_STORE_REPLY_BYTES = 16 << 20, /* a read's reply is cut past this (more = true) */
  MR_STORE_ID_MAX = 80,            /* bytes of an id */
  MR_STORE_SPARES = 64
};
#define MR_STORE_QUEUE_BYTES ((size_t)256 << 20)

struct mr_blobs;

/* Something on its way back to the loop thread. */
struct mr_done {
  struct mr_done *next;
  void (*fn)(struct mr_done *d); /* loop thread, once; may free what embeds d */
};

/* ---- a commit as built ---- */

enum mr_op_kind {
  MR_OP_DOC_PUT,
  MR_OP_DOC_DELETE,
  MR_OP_DOC_EXPECT,
  MR_OP_DOC_VERSION,
  MR_OP_NAME_UNIQUE,
  MR_OP_SESSION_NEW,
  MR_OP_SESSION_PUT,
  MR_OP_SESSION_BORN,
  MR_OP_SESSION_DELETE,
  MR_OP_LOG,
  MR_OP_INBOX_ADD,
  MR_OP_INBOX_DEL,
  MR_OP_KV_PUT,
  MR_OP_KV_DELETE,
  MR_OP_KV_SWEEP
};

struct mr_commit_op {
  struct mr_commit_op *next;
  enum mr_op_kind kind;
  union {
    struct {
      struct mr_doc_row row;
      int64_t expect;
    } doc; /* all that name a document */
    struct {
      struct mr_session_row row;
      unsigned what;
    } session;
    struct {
      struct mr_str session_id;
      struct mr_log_row *rows;
      int n;
    } log;
    struct {
      struct mr_str session_id;
      struct mr_inbox_row row;
    } inbox;
    struct {
      struct mr_kv_row row;
      int64_t expect;
      int limit;
    } kv;
  } u;
};

struct mr_commit {
  struct mr_done done;    /* first member */
  struct mr_commit *next; /* the driver's queue */
  struct mr_store *store;
  struct mr_arena *arena; /* owns everything here, this struct too */
  struct mr_origin origin;
  struct mr_commit_op *ops, **tail;
  const char *label; /* static, or NULL */
  size_t bytes;      /* copied, about */
  int rows;          /* rows that its operations write */
  int64_t now_us;    /* wall clock at submit */
  int code;          /* MR_OK until something failed; then the result */
  struct mr_err err;
  int64_t first_pos, rev;
  int swept;
  void (*fn)(void *ud, const struct mr_commit_result *r);
  void *ud;
};

/* ---- a read as asked ---- */

enum mr_read_kind {
  MR_READ_DOC,
  MR_READ_DOC_NAMED,
  MR_READ_DOC_VERSION,
  MR_READ_DOC_VERSIONS,
  MR_READ_DOCS,
  MR_READ_SESSION,
  MR_READ_SESSIONS,
  MR_READ_WAKE,
  MR_READ_LOG,
  MR_READ_INBOX,
  MR_READ_ALL,
  MR_READ_KV,
  MR_READ_KVS
};

struct mr_read {
  struct mr_job job; /* first member; a driver with a pool uses it */
  struct mr_done done;
  struct mr_read *next; /* the queue of a driver without */
  struct mr_store *store;
  struct mr_arena *arena; /* owns everything here and the rows */
  enum mr_read_kind kind;
  int64_t ws;
  struct mr_str doc_kind, id, name; /* id: document or session */
  int64_t version, below, after_no;
  int limit; /* 1..MR_STORE_LIST_MAX */
  union {
    struct mr_doc_query docs;
    struct mr_session_query sessions;
    struct mr_log_query log;
    struct {
      int64_t after, upto;
      const struct mr_str *types;
      int ntypes;
    } all;
    struct {
      struct mr_str space, key, after; /* key: or the prefix */
      int64_t now_us;                  /* wall clock when it was asked */
    } kv;
  } q;
  struct mr_rows rows; /* the driver fills it */
  struct mr_err err;
  mr_rows_fn fn;
  void *ud;
};

/* ---- drivers ---- */

struct mr_sqlite_step; /* sqlite/sqlite_t.h */
/* What tests may set; all zero: nothing. */
struct mr_store_internal {
  const struct mr_sqlite_step *steps; /* migrations, with schema: what to migrate to */
  int nsteps, schema;
  int sweep_age_s;    /* blobs younger than this are left; 0: an hour; -1: none are */
  size_t queue_bytes; /* instead of MR_STORE_QUEUE_BYTES */
};

struct mr_store_driver {
  const char *name;
  /* Fills s->self. Loop thread, may block. */
  int (*open)(struct mr_store *s, const struct mr_store_opts *o, const struct mr_store_internal *in,
              struct mr_err *err);
  /* Finishes queued commits and reads; hands them all to mr_store_deliver. Then nothing is taken. */
  void (*drain)(struct mr_store *s);
  void (*close)(struct mr_store *s);
  /* Takes c: MR_OK, or MR_E_FULL / MR_E_CLOSED (not taken). */
  int (*submit)(struct mr_store *s, struct mr_commit *c);
  int (*read)(struct mr_store *s, struct mr_read *rd); /* likewise */
  /* Blocking: the number of a workspace, made at first use. */
  int (*workspace)(struct mr_store *s, struct mr_str id, int64_t *ws, struct mr_err *err);
  bool (*failing)(const struct mr_store *s, struct mr_err *err);
  void (*stats)(const struct mr_store *s, struct mr_store_stats *out);
  /* For the sweep of blobs, on one pool thread: is there a document of that kind and id in any
   * workspace? 1, 0, or MR_E*. */
  int (*refs_open)(struct mr_store *s, void **refs);
  int (*refs_has)(void *refs, const char *kind, struct mr_str id);
  void (*refs_close)(void *refs);
};
extern const struct mr_store_driver mr_store_sqlite;

/* ---- the front ---- */

enum { MR_WS_SETS = 64, MR_WS_WAYS = 4 };
struct mr_ws_slot {
  int64_t ws;
  char id[MR_STORE_ID_MAX + 1];
};

/* Holds the place of a request whose own memory could not be had. call gives fn its real type back. */
typedef void (*mr_any_fn)(void);
typedef void (*mr_fail_call)(mr_any_fn fn, void *ud, int code);
struct mr_spare {
  struct mr_done done;
  int code;
  mr_fail_call call;
  mr_any_fn fn;
  void *ud;
  bool used;
};

/* The post that carries deliveries to the loop. A post cannot be taken back, so when one is under way
 * while the store closes (a close inside a post), the door outlives the store and frees itself. */
struct mr_door {
  struct mr_post post;
  struct mr_store *store;
  const struct mr_mem *mem;
};

struct mr_store {
  const struct mr_store_driver *drv;
  void *self; /* the driver's */
  struct mr_loop *loop;
  const struct mr_sys *sys;
  const struct mr_mem *mem;
  char *dir;   /* absolute, or ":memory:" */
  int lock_fd; /* <dir>/lock, held; -1 in memory */
  bool memory, closing;
  struct mr_ws_slot *workspaces; /* MR_WS_SETS x MR_WS_WAYS, NULL until the first use */
  struct mr_blobs *blobs;
  struct mr_spare *spares;
  struct mr_door *door;
  pthread_mutex_t mu; /* guards the three below */
  struct mr_done *done_head, **done_tail;
  bool posted; /* the door's post is on its way */
};

/* Delivers a failure without allocating (see the invariant above). */
void mr_store_fail_later(struct mr_store *s, int code, mr_fail_call call, mr_any_fn fn, void *ud);
/* Queues a list of deliveries (linked by next, NULL at the end). Any thread. */
void mr_store_deliver(struct mr_store *s, struct mr_done *first);
/* As mr_store_open, with what tests may set. */
int mr_store_open_with(struct mr_store **out, struct mr_loop *l, const struct mr_store_opts *o,
                       const struct mr_store_internal *in, struct mr_err *err);
/* [A-Za-z0-9_-]{1,80}: safe as a file name. */
bool mr_store_id_ok(struct mr_str id);

/* commit.c: the delivery of a commit. read.c: of a read. */
void mr_commit_done(struct mr_done *d);
void mr_read_done(struct mr_done *d);
/* Rows for a read's result: grows *rows (size bytes each) in the arena; NULL when out of memory. */
void *mr_read_row(struct mr_read *rd, void **rows, int *cap, int n, size_t size);

/* dir.c: makes the data directory (0700) and takes its lock; MR_E_BUSY names the owner's pid. */
int mr_dir_open(struct mr_store *s, const char *dir, int wait_ms, struct mr_err *err);
void mr_dir_close(struct mr_store *s);

/* blobs.c */
int mr_blobs_open(struct mr_store *s, const struct mr_store_internal *in, struct mr_err *err);
void mr_blobs_close(struct mr_store *s);

#endif
