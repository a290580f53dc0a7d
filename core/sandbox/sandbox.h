/*
 * sandbox - the hands: an isolated place where a session's commands run, behind a driver vtable.
 * Drivers: local/ (launcher -> bubblewrap -> envd). All calls are asynchronous on the loop thread and
 * never block; each callback comes exactly once, never inside the call.
 *
 * A sandbox is made at the first tool call that needs it, one per session, long-lived; it outlives the
 * server and is attached again by its ref. A dead sandbox is an error result that a model can read,
 * never a failure of the session.
 */
#ifndef MR_SANDBOX_SANDBOX_H
#define MR_SANDBOX_SANDBOX_H

#include "base/buf.h"
#include "base/err.h"
#include "loop/child.h"
#include "loop/loop.h"
#include "loop/pool.h"

struct mr_http_client;
struct mr_guard;

struct mr_sandbox_driver; /* one per runtime */
struct mr_sandbox;        /* one per session */

/* A file shown read-only inside, from a host path. */
struct mr_sandbox_mount {
  const char *host_path, *path;
};

/* What commands may reach, of the environment (API: resources §7.5). The operator's lists come on top. */
struct mr_sandbox_network {
  bool limited;             /* to what follows; false: any public host */
  const char *const *hosts; /* "example.com", "*.example.com" */
  int nhosts;
  bool package_managers;        /* the registries, too */
  const char *const *mcp_hosts; /* hosts of the agent's MCP servers, when the environment allows them */
  int nmcp_hosts;
};

enum mr_sandbox_manager {
  MR_PKG_APT,
  MR_PKG_CARGO,
  MR_PKG_GEM,
  MR_PKG_GO,
  MR_PKG_NPM,
  MR_PKG_PIP,
  MR_PKG_MANAGERS
};
/* Packages of the environment: installed once into a layer that its sandboxes see, in the order above. */
struct mr_sandbox_packages {
  const char *const *names[MR_PKG_MANAGERS];
  int n[MR_PKG_MANAGERS];
};

struct mr_sandbox_spec {
  const char *session_id;                /* also names the directories under the driver's root */
  const struct mr_sandbox_mount *mounts; /* input files, read-only */
  int nmounts;
  const char *environment_id; /* "" = none: its layer of packages belongs to it */
  struct mr_sandbox_network network;
  struct mr_sandbox_packages packages;
};

/* What a tool call asks for. The names and inputs are those of agent_toolset_20260401: bash, read,
 * write, edit, glob, grep. */
struct mr_sandbox_call {
  struct mr_str exec_id; /* the event id of the call: the same id is started at most once */
  struct mr_str name;    /* "bash", "read", ... */
  struct mr_str input;   /* JSON object as the model wrote it */
  int timeout_ms;        /* 0 = the tool's default (bash 120,000, grep 60,000) */
};

struct mr_sandbox_result {
  int code;              /* MR_OK: text and is_error hold the tool's answer; else the sandbox failed:
                               MR_E_CLOSED died, MR_E_UNSUPPORTED cannot be made here, MR_E_CANCELLED,
                               MR_E_NOTFOUND (status only): envd never got this exec_id */
  struct mr_str content; /* JSON array of content blocks ([] = no output) */
  bool is_error;
  const struct mr_err *err; /* when code != MR_OK: a message for the model and the log */
};
typedef void (*mr_sandbox_fn)(void *ud, const struct mr_sandbox_result *r);

struct mr_sandbox_options {
  const char *root;             /* directory for sandboxes' workspaces and sockets (under the data dir) */
  const char *libexec;          /* MOONRIG_LIBEXEC or NULL: embedded launcher and envd */
  int64_t uid_first, uid_count; /* host uids for sandboxes when started as root; 0 = 2,000,000 + 65,536 */
  int orphan_ttl_s;             /* envd ends when nobody attaches for so long; 0 = 300 */
  int64_t memory_max, tmp_max;  /* bytes of data of each process (4 GiB), of /tmp (512 MiB); 0 = defaults */
  int64_t disk_max;             /* bytes of workspace and outputs, above which commands are ended; 0 = 10 GiB */
  int nproc;                    /* processes and threads of one sandbox; 0 = 512 */
  int warm;                     /* sandboxes that are made before a session needs one; 0 = none */
  struct mr_http_client *http;  /* for what goes out on behalf of sandboxes; NULL = they have no network */
  const struct mr_guard *guard; /* where that may go (net/guard.h); lives as long as the driver */
};

/* Probes what works here; never fails because bubblewrap is missing (see the report). */
int mr_sandbox_local_new(struct mr_sandbox_driver **out, struct mr_loop *l, struct mr_childs *childs,
                         struct mr_pool *pool, const struct mr_sandbox_options *o, struct mr_err *err);
void mr_sandbox_driver_free(struct mr_sandbox_driver **d); /* detaches; sandboxes live on */

/* One feature of the machine as `moonrig doctor` shows it. */
struct mr_sandbox_feature {
  const char *name;
  bool ok, required;
  const char *detail;
};
/* Blocks up to a second or two when called first; fills features (borrowed, owned by d). MR_OK when the
 * required ones are there, else MR_E_UNSUPPORTED and err says the line doctor prints. */
int mr_sandbox_report(struct mr_sandbox_driver *d, const struct mr_sandbox_feature **f, int *n,
                      struct mr_err *err);

/* Gets the session's sandbox object: nothing is started yet. ref: NULL or what mr_sandbox_ref gave
 * before a restart. The spec is copied. */
struct mr_sandbox *mr_sandbox_get(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *spec,
                                  const char *ref);
/* Forgets the object; the processes live on (detach). Callbacks that did not come yet never will; what
 * they wait for goes on inside and is there for mr_sandbox_status. mr_sandbox_driver_free likewise. */
void mr_sandbox_put(struct mr_sandbox **s);
const char *mr_sandbox_ref(const struct mr_sandbox *s); /* "" until provisioned; store it durably */

/* Runs a tool; provisions or re-attaches first when needed. Several may run at the same time; bash
 * calls of one sandbox run one after the other. */
int mr_sandbox_call(struct mr_sandbox *s, const struct mr_sandbox_call *c, mr_sandbox_fn fn, void *ud);
/* After a restart: the result of exec_id, or waits for it while it still runs; MR_E_NOTFOUND when it
 * was never received, MR_E_CLOSED when the sandbox is gone. Never starts anything. */
int mr_sandbox_status(struct mr_sandbox *s, struct mr_str exec_id, mr_sandbox_fn fn, void *ud);
/* Kills what exec_id runs; its callback comes with MR_E_CANCELLED. */
void mr_sandbox_cancel(struct mr_sandbox *s, struct mr_str exec_id);
/* Ends everything inside and removes the workspace; fn may be NULL. */
void mr_sandbox_destroy(struct mr_sandbox_driver *d, const char *session_id, const char *ref, mr_sandbox_fn fn,
                        void *ud);
/* Host path of the session's output directory (/mnt/session/outputs inside). out has 4096 bytes. */
int mr_sandbox_outputs_path(struct mr_sandbox_driver *d, const char *session_id, char out[4096]);

/* ---- the files of a session, kept ----
 * workspace and outputs as one archive: plain tar with "workspace/..." and "outputs/...". What runs in the sandbox is
 * frozen meanwhile, and goes on after, also when this program dies. FIFOs, sockets, owners and extended attributes
 * are not kept, nor processes, /tmp and the shell's state. */
struct mr_sandbox_keep; /* one copy under way, or a restore that waits to be taken */
struct mr_sandbox_kept {
  int code; /* MR_OK, or: MR_E_NOTFOUND the session has no files; MR_E_TOO_LARGE above the limits of
                                       the driver; MR_E_INVALID an archive that is refused, err says what in it;
                                       MR_E_STATE its sandbox is in use; MR_E_CANCELLED, MR_E_IO, .. */
  const struct mr_err *err;
  int fd; /* checkpoint: the archive at its beginning, a file without a name; yours to close */
  int64_t bytes, entries, skipped; /* of data; files, directories and links; what was left out */
  bool frozen;                     /* checkpoint: nothing ran while it was made */
};
typedef void (*mr_sandbox_kept_fn)(void *ud, const struct mr_sandbox_kept *k);
struct mr_sandbox_keep_opts {
  const char *session_id;
  void (*progress)(void *ud, int64_t bytes, int64_t entries); /* or NULL; every few MiB or thousand entries */
  mr_sandbox_kept_fn fn; /* once, never inside the call, not after mr_sandbox_keep_free */
  void *ud;
};
bool mr_sandbox_can_keep(const struct mr_sandbox_driver *d);
/* MR_OK: *out is yours to free. Bounded by disk_max and a number of files that belongs to it. */
int mr_sandbox_checkpoint(struct mr_sandbox_driver *d, const struct mr_sandbox_keep_opts *o,
                          struct mr_sandbox_keep **out);
/* Unpacks the archive (fd: read from its beginning; yours) beside the session, under the session's own host uid. fn
 * says that it is whole and waits; nothing of the session has changed yet. */
int mr_sandbox_restore(struct mr_sandbox_driver *d, int fd, const struct mr_sandbox_keep_opts *o,
                       struct mr_sandbox_keep **out);
/* What a restore unpacked becomes the session's, in place of what it had; ends its sandbox if one runs. fn as above. */
int mr_sandbox_take(struct mr_sandbox_keep *k, mr_sandbox_kept_fn fn, void *ud);
/* Cancels what is under way, drops what was not taken. */
void mr_sandbox_keep_free(struct mr_sandbox_keep **k);

/* The seam for other drivers. */
struct mr_sandbox_vtable {
  void (*free)(struct mr_sandbox_driver *d);
  int (*report)(struct mr_sandbox_driver *d, const struct mr_sandbox_feature **f, int *n, struct mr_err *e);
  struct mr_sandbox *(*get)(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *s, const char *ref);
  void (*put)(struct mr_sandbox *s);
  const char *(*ref)(const struct mr_sandbox *s);
  int (*call)(struct mr_sandbox *s, const struct mr_sandbox_call *c, mr_sandbox_fn fn, void *ud);
  int (*status)(struct mr_sandbox *s, struct mr_str exec_id, mr_sandbox_fn fn, void *ud);
  void (*cancel)(struct mr_sandbox *s, struct mr_str exec_id);
  void (*destroy)(struct mr_sandbox_driver *d, const char *session_id, const char *ref, mr_sandbox_fn fn,
                  void *ud);
  int (*outputs_path)(struct mr_sandbox_driver *d, const char *session_id, char out[4096]);
  /* All four, or none: a driver that cannot keep files. */
  int (*checkpoint)(struct mr_sandbox_driver *d, const struct mr_sandbox_keep_opts *o,
                    struct mr_sandbox_keep **out);
  int (*restore)(struct mr_sandbox_driver *d, int fd, const struct mr_sandbox_keep_opts *o,
                 struct mr_sandbox_keep **out);
  int (*take)(struct mr_sandbox_keep *k, mr_sandbox_kept_fn fn, void *ud);
  void (*keep_free)(struct mr_sandbox_keep *k);
};
/* Drivers put these first in their structs. */
struct mr_sandbox_driver {
  const struct mr_sandbox_vtable *v;
};
struct mr_sandbox {
  struct mr_sandbox_driver *d;
};
struct mr_sandbox_keep { /* outlives the driver, when its holder does */
  const struct mr_sandbox_vtable *v;
};

#endif
