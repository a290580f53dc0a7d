/*
 * local_t.h - what the files of the local driver share; see local.c for the map. Nothing outside this
 * directory includes it.
 *
 * Threads: struct mr_local and struct mr_box belong to the loop thread. struct mr_local_conf does not
 * change after mr_sandbox_local_new and is read by pool jobs; its count of references is the loop
 * thread's. Functions marked (pool) block: they run in pool jobs and touch the conf and their arguments
 * alone.
 */
#ifndef MR_SANDBOX_LOCAL_T_H
#define MR_SANDBOX_LOCAL_T_H

#include "base/err.h"
#include "base/json.h"
#include "sandbox/egress/egress.h"
#include "sandbox/local/cgroup.h"
#include "sandbox/run.h"
#include "sandbox/sandbox.h"

enum {
  MR_SESSION_MAX = 72,         /* session id with NUL; a file name */
  MR_BOX_OPS_MAX = 1024,       /* calls of one sandbox that wait or run */
  MR_BOX_INPUT_MAX = 16 << 20, /* bytes of one call's input */
  MR_BOX_FRAME_MAX = 32 << 20, /* bytes of one frame (proto.h) */
  MR_LOCAL_FEATURES = 32,
  MR_LAYER_HASH = 33, /* name of a layer with NUL */
  MR_LAYER_PATH = 4300
};

/* <root>/s/<session>/{workspace,outputs,uploads,envd.sock,lock,token} and links that name its cgroup, environment and
 * layer, <root>/u/<uid> -> session, <root>/trash/, <root>/probe/, <root>/layers/ (layer_t.h) */
struct mr_local_conf {
  int refs;
  const struct mr_sys *sys;
  char *root, *libexec;                /* root is absolute */
  int s_fd, u_fd, trash_fd, layers_fd; /* its directories */
  int launcher_fd, envd_fd;            /* programs: sealed memory files, or files of libexec */
  int keep_fd;                         /* likewise; -1: libexec has none */
  bool as_root, network;               /* network: there is a way out */
  int64_t uid_first, uid_count;        /* uid_first itself is the probe's */
  int orphan_ttl_s;
  int64_t memory_max, tmp_max, file_max, disk_max, nproc, nofile;
  int64_t files_max;  /* files and directories of a workspace */
  int64_t layers_max; /* bytes of all layers, above which the least recently used go */
  int build_timeout_s;
  char *build_env; /* of build sandboxes: lines of a script that set variables */
  struct mr_cgroup_conf cgroup;
  bool bare;           /* driver "none" */
  bool require_limits; /* no sandbox without limits of memory and processes for it as a whole */
};
struct mr_local_conf *mr_local_conf_ref(struct mr_local_conf *c);
void mr_local_conf_unref(struct mr_local_conf **c);

/* ---- the machine (probe.c) ---- */

struct mr_local_machine {
  bool known;
  int code; /* MR_OK, or why no sandbox can be made: err */
  struct mr_err err;
  int64_t at_us; /* when it was probed */
  char bwrap[128];
  bool disable_userns;  /* this bubblewrap has --disable-userns */
  bool layers;          /* packages of environments can be shown */
  char layers_why[300]; /* why not */
  int cgroup;           /* MR_CG_*: in force here */
  char cgroup_why[200]; /* what is in the way of the others; "" = nothing */
  struct mr_sandbox_feature features[MR_LOCAL_FEATURES];
  char detail[MR_LOCAL_FEATURES][300];
  int nfeatures;
};
void mr_local_probe(const struct mr_local_conf *c, struct mr_local_machine *m); /* (pool) */

/* mr_sandbox_run with an empty environment (pool) */
static inline int mr_local_run(const char *const *argv, int exe_fd, int timeout_ms, char *out, size_t n)
{
  return mr_sandbox_run(argv, NULL, exe_fd, timeout_ms, out, n);
}

/* ---- the driver (local.c) ---- */

struct mr_box;
struct mr_destroy;
struct mr_keep;
struct mr_local {
  struct mr_sandbox_driver base;
  struct mr_loop *loop;
  const struct mr_mem *mem;
  struct mr_childs *childs;
  struct mr_pool *pool;
  struct mr_local_conf *conf;
  struct mr_egress *egress; /* NULL: no network */
  struct mr_local_machine machine;
  struct mr_probe_job *probing; /* in the pool, or NULL */
  struct mr_box *boxes;
  struct mr_layer *layers; /* layer_t.h */
  struct mr_destroy *destroys;
  struct mr_diagnose *diagnoses;
  struct mr_keep *keeps;
  struct mr_sweep *sweeping; /* in the pool: clears up after a crash; or NULL */
  struct mr_timer retry;     /* destroys that the pool had no room for */
  int warm;                  /* sandboxes to have ready */
  struct mr_timer warm_timer;
};
/* The machine as far as known; starts a probe when nothing, or only a stale failure, is known: NULL then,
 * and every box in state MR_BOX_PROBING is stepped when it is done. */
const struct mr_local_machine *mr_local_machine_get(struct mr_local *l);
void mr_local_machine_set(struct mr_local *l, const struct mr_local_machine *m);
int mr_local_diagnose(struct mr_sandbox_driver *d, const char *environment_id, mr_sandbox_diagnosis_fn fn,
                      void *ud);
void mr_diagnoses_free(struct mr_local *l);
struct mr_box *mr_local_find(struct mr_local *l, const char *session);
bool mr_session_name_ok(const char *session);

/* ---- one sandbox (box.c) ---- */

enum mr_box_state {
  MR_BOX_COLD,    /* not connected, nothing under way */
  MR_BOX_PROBING, /* waits for the machine to be probed */
  MR_BOX_LAYER,   /* waits for its environment's packages to be installed */
  MR_BOX_OPENING, /* pool: attach, or prepare a new one */
  MR_BOX_HELLO,   /* connected; envd has not spoken yet */
  MR_BOX_UP,
  MR_BOX_LOST,   /* connection gone; waits a moment for the launcher's reason */
  MR_BOX_ENDING, /* pool: kills what does not answer */
  MR_BOX_GONE    /* destroyed */
};

enum mr_op_kind { MR_OP_CALL, MR_OP_STATUS };
enum mr_op_state { MR_OP_QUEUED, MR_OP_SENT, MR_OP_ACCEPTED };
struct mr_op {
  struct mr_op *next;
  enum mr_op_kind kind;
  enum mr_op_state state;
  bool cancelled, lost;          /* lost: sent on an earlier connection, asked for again */
  int64_t since_us;              /* when it was sent, or cancelled */
  struct mr_str id, name, input; /* in the same allocation */
  int timeout_ms;
  mr_sandbox_fn fn;
  void *ud;
  /* once done */
  int code;
  bool is_error;
  struct mr_buf content;
  struct mr_err err;
};

struct mr_box {
  struct mr_sandbox base;
  struct mr_local *l;
  struct mr_box *next, **link;
  char session[MR_SESSION_MAX], ref[MR_SESSION_MAX + 8], environment[MR_SESSION_MAX];
  struct mr_arena *arena; /* mounts */
  struct mr_sandbox_mount *mounts;
  int nmounts;
  struct mr_layer *layer;  /* its environment's packages, or NULL */
  struct mr_layer *builds; /* the packages that are installed in it; NULL: a session's */
  enum mr_box_state state;
  bool released; /* put: nobody holds it, no callbacks */
  bool warm;     /* made ahead, of no session */
  bool tried;    /* to make it */
  bool plain;    /* a warm one would do */
  bool delivering;
  bool provisioned;       /* ref is valid */
  bool was_up;            /* before it was lost */
  int failures;           /* connections that ended without an answer to a call, in a row */
  struct mr_open *job;    /* in the pool, or NULL */
  struct mr_child *child; /* launcher, when this process started it */
  bool spawning;
  int given[5]; /* descriptors for the launcher until it has started, or -1 */
  struct mr_op *ops, **ops_tail, *done, **done_tail;
  int nops;
  struct mr_ready step, deliver, io;
  struct mr_timer timer;
  struct mr_destroy *destroy;
  struct mr_egress_policy *policy; /* of the spec */
  struct mr_egress_link *way;      /* while it is attached */
  char token[MR_EGRESS_TOKEN];     /* that clients of the proxy must know */
  /* wire.c */
  int fd;
  struct event *rd, *wr;
  bool readable, broken;
  struct mr_buf in, out;
  int report; /* what the launcher, bubblewrap and envd say */
  struct event *report_ev;
  char reason[400];
  bool reason_over;        /* the launcher said how it ended */
  bool note_oom, told_oom; /* the first answer says that the life before ran out of memory; a call said so */
  int64_t disk_at_us, disk_allowed; /* last measured; bytes above which it is ended */
  struct mr_disk_job *measuring;
};

int mr_box_new(struct mr_box **out, struct mr_local *l, const char *session);
/* The vtable's entries. */
struct mr_sandbox *mr_box_get(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *spec, const char *ref);
void mr_box_put(struct mr_box *b);
int mr_box_call(struct mr_sandbox *s, const struct mr_sandbox_call *c, mr_sandbox_fn fn, void *ud);
int mr_box_status(struct mr_sandbox *s, struct mr_str exec_id, mr_sandbox_fn fn, void *ud);
void mr_box_cancel(struct mr_sandbox *s, struct mr_str exec_id);

void mr_box_step(struct mr_box *b); /* posts: look what there is to do */
void mr_box_up(struct mr_box *b);   /* envd said hello and agrees */
/* Ends the processes; calls that were sent end with MR_E_CLOSED and this text. */
void mr_box_kill(struct mr_box *b, const char *why);
void mr_box_measure(struct mr_box *b); /* watch.c: starts to look at its disk space */
void mr_box_lost(struct mr_box *b);    /* the connection ended */
void mr_box_accepted(struct mr_box *b, struct mr_str id);
/* content: an array of blocks, checked; NULL with code != MR_OK. */
void mr_box_result(struct mr_box *b, struct mr_str id, int code, yyjson_val *content, bool is_error);
void mr_box_free(struct mr_box *b);
void mr_box_settle(struct mr_box *b); /* frees it when nobody holds it and nothing is under way */
/* Ends it for good: calls answer MR_E_CLOSED. True when nothing of it is under way any more; else the
 * box steps its destroy once that is so. */
bool mr_box_quiesce(struct mr_box *b);
void mr_destroy_step(struct mr_destroy *d);

struct mr_disk_job {
  struct mr_job job;
  struct mr_local_conf *conf;
  struct mr_box *box; /* NULL once the driver is gone */
  char session[MR_SESSION_MAX];
  int64_t size;
};

/* ---- its calls (calls.c) ---- */

enum { MR_CALLS_QUEUED = 1, MR_CALLS_STATUS = 2 /* queued too */, MR_CALLS_SENT = 4, MR_CALLS_ALL = 7 };
extern const char mr_calls_died[]; /* what the model reads when a sandbox ended under a call */
void mr_calls_oom(const struct mr_local_conf *c, bool anew,
                  char out[400]);             /* ... because it ran out of memory */
int mr_calls_present(const struct mr_box *b); /* set of the classes above */
void mr_calls_fail(struct mr_box *b, int classes, int code, const char *text);
void mr_calls_answer(struct mr_box *b, int classes, const char *text, bool is_error); /* as if a tool had */
void mr_calls_send(struct mr_box *b, int classes);
bool mr_calls_stuck(const struct mr_box *b, int64_t accept_us, int64_t cancel_us);
void mr_calls_drop(struct mr_box *b); /* without callbacks */
void mr_calls_deliver(struct mr_ready *r);

/* ---- packages (layer.c), see layer_t.h ---- */

/* Whether it can be started; else it waits, or its calls were answered with what is wrong. */
bool mr_layer_ready(struct mr_box *b, const struct mr_local_machine *m);
void mr_layer_forget(struct mr_box *b);     /* it did not start: look at the disk again the next time */
void mr_layer_release(struct mr_layer **y); /* clears it */
const char *mr_layer_doing(const struct mr_box *b);
bool mr_layer_has(const struct mr_box *b, enum mr_sandbox_manager m); /* packages of that manager */
/* Directories that the launcher puts on top of the machine's, the uppermost first; how many. */
int mr_layer_paths(const struct mr_box *b, char out[2][MR_LAYER_PATH]);
int mr_local_prepare(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *spec, mr_sandbox_fn fn,
                     void *ud);
void mr_local_prepare_cancel(struct mr_sandbox_driver *d, mr_sandbox_fn fn, void *ud);

/* ---- connection (wire.c) ---- */

int mr_wire_open(struct mr_box *b, int fd, int report, struct mr_err *err); /* takes both descriptors */
void mr_wire_io(struct mr_ready *r);                                        /* of b->io */
void mr_wire_close(struct mr_box *b);
void mr_wire_report_close(struct mr_box *b);
void mr_wire_call(struct mr_box *b, const struct mr_op *o);
void mr_wire_ask(struct mr_box *b, const char *t, struct mr_str id); /* "status", "cancel", "shutdown" */

/* ---- files and processes (open.c, uids.c, uploads.c, tree.c, end.c), all (pool) ---- */

enum mr_open_how { MR_OPEN_FAILED, MR_OPEN_DEAD, MR_OPEN_ATTACHED, MR_OPEN_MADE };
struct mr_open {
  struct mr_job job;
  struct mr_local_conf *conf;
  struct mr_box *box; /* loop thread only; NULL once the driver is gone */
  struct mr_arena *arena;
  char session[MR_SESSION_MAX], environment[MR_SESSION_MAX], layer[MR_LAYER_HASH];
  struct mr_sandbox_mount *mounts;
  int nmounts;
  bool end_only;             /* kill what there is, nothing else */
  bool may_make;             /* attach, else make a new one */
  char warm[MR_SESSION_MAX]; /* one that may be taken over, "" = none; still set after: it was not */
  enum mr_open_how how;
  int conn, listen, report[2], lock; /* -1 or open */
  int64_t uid;
  char token[MR_EGRESS_TOKEN];
  bool oom;                /* the life before ran out of memory */
  char cgroup[MR_CG_PATH]; /* to enter; "" = none */
  struct mr_err err;
};
void mr_open_work(struct mr_job *j, void *worker);
void mr_open_free(struct mr_open *o); /* closes what it holds */

/* Directory of a session below conf->s_fd, or -1 with errno. */
int mr_local_session_dir(const struct mr_local_conf *c, const char *session, bool make);
/* A listening socket at <dir>/envd.sock with *conn already connected to it; -1 and errno. */
int mr_local_listen(int dir, int *conn);
int mr_local_connect(int dir); /* -1 and errno */
bool mr_local_alive(int dir);  /* a launcher holds the lock of this session's directory */
/* Ends the sandbox of a session and waits until nothing of it runs. */
int mr_local_end(const struct mr_local_conf *c, int dir, struct mr_err *err);
/* Ends it and removes all of it. */
int mr_local_remove(const struct mr_local_conf *c, const char *session, struct mr_err *err);
/* The host uid of a session: the one it has, else a free one. */
int mr_local_uid_get(const struct mr_local_conf *c, const char *session, int64_t have, int64_t *uid,
                     struct mr_err *err);
/* The uid changes hands with the files. */
int mr_local_uid_move(const struct mr_local_conf *c, int64_t uid, const char *from, const char *to);
void mr_local_uid_drop(const struct mr_local_conf *c, const char *session, int64_t have);
int mr_local_uploads(int dir, const struct mr_sandbox_mount *m, int n, bool as_root, struct mr_err *err);
int mr_tree_chown(int dir, const char *name, int64_t uid, struct mr_err *err);
/* Removes name below dir with everything in it, however deep. */
int mr_tree_remove(int dir, const char *name, struct mr_err *err);
/* Bytes on disk below name; stops at max bytes or a bound of entries. */
int64_t mr_tree_size(int dir, const char *name, int64_t max);
void mr_local_sweep(const struct mr_local_conf *c); /* what a crash left behind */

/* Freezes what runs in the sandbox of dir, as long as the descriptor is open; -1 when it cannot. *still: nothing runs
 * now. (pool) */
int mr_local_freeze(const struct mr_local_conf *c, int dir, bool *still);
bool mr_local_frozen(int fd); /* still; any thread */

/* ---- made ahead (warm.c) ---- */

bool mr_warm_fits(const struct mr_sandbox_spec *spec);
void mr_warm_want(struct mr_local *l,
                  bool failed); /* see, soon or a while after a failure, that there are enough */
void mr_warm_step(struct mr_timer *t);
void mr_warm_lost(struct mr_box *b);
/* The name of one that is ready; the caller's from now on. */
bool mr_warm_take(struct mr_local *l, char name[MR_SESSION_MAX]);
void mr_warm_free(struct mr_local *l);

/* ---- checkpoint and restore (keep.c) ---- */

int mr_keep_checkpoint(struct mr_sandbox_driver *d, const struct mr_sandbox_keep_opts *o,
                       struct mr_sandbox_keep **out);
int mr_keep_restore(struct mr_sandbox_driver *d, int fd, const struct mr_sandbox_keep_opts *o,
                    struct mr_sandbox_keep **out);
int mr_keep_take(struct mr_sandbox_keep *k, mr_sandbox_kept_fn fn, void *ud);
void mr_keep_free(struct mr_sandbox_keep *k);
bool mr_keeps_spawning(const struct mr_local *l);
void mr_keeps_free(struct mr_local *l);

int mr_local_image(struct mr_local_conf *c, struct mr_err *err); /* image.c: the programs' descriptors */
void mr_local_destroy(struct mr_sandbox_driver *d, const char *session, const char *ref, mr_sandbox_fn fn,
                      void *ud);
void mr_destroys_free(struct mr_local *l);

#endif
