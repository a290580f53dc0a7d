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
struct sockaddr;

struct mr_sandbox_driver; /* one per runtime */
struct mr_sandbox;        /* one per session */

/* A file shown read-only inside, from a host path. */
struct mr_sandbox_mount {
  const char *host_path, *path;
};

/* A secret that commands use without having it: variable env holds a placeholder, which becomes the value in headers
 * of requests to these hosts, on the way out. */
struct mr_sandbox_secret {
  const char *env, *value;
  const char *const *hosts; /* "example.com", "*.example.com" */
  int nhosts;
};

/* What commands may reach, of the environment (API: resources §7.5). The operator's lists come on top. */
struct mr_sandbox_network {
  bool limited;             /* to what follows; false: any public host */
  const char *const *hosts; /* "example.com", "*.example.com" */
  int nhosts;
  bool package_managers;        /* the registries, too */
  const char *const *mcp_hosts; /* hosts of the agent's MCP servers, when the environment allows them */
  int nmcp_hosts;
  const struct mr_sandbox_secret *secrets; /* of the session, before the operator's */
  int nsecrets;
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

/* The operator's part of what sandboxes may reach (sandbox/egress). Everything is copied. */
struct mr_egress_options {
  const int (*ports)[2]; /* ranges of ports that are open beside 80 and 443, at most 64 */
  int nports;
  /* Hosts of the package managers' registries, "*.x" too. NULL: where this machine's own clients get packages from. */
  const struct mr_str *package_hosts;
  int npackage_hosts;
  const struct mr_str *blocked_hosts; /* never, in no environment */
  int nblocked_hosts;
  const struct mr_sandbox_secret *secrets; /* for every sandbox */
  int nsecrets;
  const char *ca_file; /* roots by which hosts are verified that secrets go to; NULL = the system's */
};
struct mr_egress_stats {
  uint64_t allowed, denied, unknown; /* requests; unknown: without the session's token */
};

struct mr_sandbox_options {
  const char *root;             /* directory for sandboxes' workspaces and sockets (under the data dir) */
  const char *libexec;          /* MOONRIG_LIBEXEC or NULL: embedded launcher and envd */
  int64_t uid_first, uid_count; /* host uids for sandboxes when started as root; 0 = 2,000,000 + 65,536 */
  int orphan_ttl_s;             /* envd ends when nobody attaches for so long; 0 = 300 */
  int64_t memory_max, tmp_max;  /* bytes of data of each process (4 GiB), of /tmp (512 MiB); 0 = defaults */
  int64_t disk_max;             /* bytes of workspace and outputs, above which commands are ended; 0 = 10 GiB */
  int nproc;                    /* processes and threads of one sandbox; 0 = 512 */
  int warm;                     /* sandboxes that are made before a session needs one; 0 = none */
  int64_t layers_max;           /* bytes of all layers of packages on disk; 0 = 20 GiB */
  int build_timeout_s;          /* for installing an environment's packages; 0 = 1800 */
  const char *build_env;        /* JSON object of strings: environment variables meanwhile; NULL = none */
  int64_t memory_total;         /* bytes that a whole sandbox may take, where cgroups can limit it; 0 = 4 GiB */
  int cpu_percent;              /* of one core, for a whole sandbox, likewise; 0 = no limit */
  bool bare;                    /* UNSAFE: no isolation at all (driver "none"); MR_E_DENIED as root */
  bool require_limits;          /* no sandbox where memory and processes of a whole one cannot be limited */
  struct mr_http_client *http;  /* for what goes out on behalf of sandboxes; NULL = they have no network */
  const struct mr_guard *guard; /* where that may go (net/guard.h); lives as long as the driver */
  const struct mr_egress_options *egress; /* NULL = nothing special */
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

/* A sandbox that lives. Numbers are -1 where they are not known or not limited. */
struct mr_sandbox_live {
  const char *session_id;
  int64_t uid;                /* host uid of what runs inside */
  int64_t memory, memory_max; /* bytes, of the whole sandbox */
  int64_t pids, pids_max;     /* processes and threads, its own helpers too */
  int64_t forks_refused;      /* at the limit, since it was made */
};
struct mr_sandbox_diagnosis {
  const char *driver;
  bool unsafe;              /* what runs inside is not kept from the host */
  int code;                 /* as of mr_sandbox_report; MR_E_CLOSED: the driver is going, nothing is known */
  const struct mr_err *err; /* when code != MR_OK */
  const struct mr_sandbox_feature *features;
  int nfeatures;
  const struct mr_sandbox_live *live; /* at most 1,000 */
  int nlive;
};
typedef void (*mr_sandbox_diagnosis_fn)(void *ud, const struct mr_sandbox_diagnosis *r); /* r is borrowed */
/* What is in force for sandboxes of this environment, and which of them live. Does not block. An error
 * (MR_E_FULL, MR_E_NOMEM, MR_E_UNSUPPORTED of a driver that cannot say): fn never comes; else once, at the
 * latest in mr_sandbox_driver_free. */
int mr_sandbox_diagnose(struct mr_sandbox_driver *d, const char *environment_id, mr_sandbox_diagnosis_fn fn,
                        void *ud);

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
/* What it does before it can run anything, for people: "npm 2/6, express@4"; "" when that is nothing. Borrowed until
 * the next call. */
const char *mr_sandbox_doing(const struct mr_sandbox *s);
/* Installs the packages of a spec ahead of the first sandbox that needs them (of the spec only they are read). The
 * result: no content, or is_error and what went wrong as a tool call would have it. */
int mr_sandbox_prepare(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *spec, mr_sandbox_fn fn,
                       void *ud);
/* Its callback never comes; what is being installed goes on. */
void mr_sandbox_prepare_cancel(struct mr_sandbox_driver *d, mr_sandbox_fn fn, void *ud);
/* Whether a package may be called that: 1 to 256 bytes, no control characters, no "-" in front. */
bool mr_sandbox_package_ok(struct mr_str name);
/* Ends everything inside and removes the workspace; fn may be NULL. */
void mr_sandbox_destroy(struct mr_sandbox_driver *d, const char *session_id, const char *ref, mr_sandbox_fn fn,
                        void *ud);
/* What went through the proxy so far; nothing where there is none. */
void mr_sandbox_egress_stats(struct mr_sandbox_driver *d, struct mr_egress_stats *out);
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
  const char *(*doing)(const struct mr_sandbox *s); /* may be NULL, and the next */
  int (*prepare)(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *spec, mr_sandbox_fn fn, void *ud);
  void (*prepare_cancel)(struct mr_sandbox_driver *d, mr_sandbox_fn fn, void *ud); /* with prepare */
  int (*diagnose)(struct mr_sandbox_driver *d, const char *environment_id, mr_sandbox_diagnosis_fn fn,
                  void *ud);
  void (*egress_stats)(struct mr_sandbox_driver *d, struct mr_egress_stats *out); /* NULL: no network */
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
