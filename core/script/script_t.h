/*
 * script_t - what the files of this room share: the VM, its tasks, their pending operations, generations.
 *
 * The shape in one paragraph. A task is a coroutine with an owner (a tool use, a hook call, rig.main ...).
 * Lua library functions call natives; a native that must wait makes a pend (the one pending operation),
 * starts the work in the core with the pend as user data, and yields. The core's callback, inside
 * mr_dispatch, settles the pend: it converts the result into a Lua value kept in the registry and puts the
 * task into the ready queue. mr_lua_run_ready, called by the loop after a dispatch, resumes.
 *
 * Invariants: a completion never touches a coroutine's stack; mr_lua_run_ready is the only caller of
 * lua_resume; a task has at most one pend; a pend settles once, and is freed by the callback of the core
 * that it was given to (or at once, where the core promises that no callback comes).
 * Functions marked LJMP may raise a Lua error, and acquire nothing that such an error would leak.
 */
#ifndef MR_SCRIPT_T_H
#define MR_SCRIPT_T_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "moonrig.h"
#include "moonrig_ext.h"
#include "script/compat.h"
#include "script/script.h"

#define LJMP /* may raise a Lua error */

struct mr_lua_source {
  const char *name;
  const unsigned char *p;
  size_t n;
};
extern const struct mr_lua_source mr_lua_sources[]; /* embedded lua/moonrig; ends with name NULL */

enum mr_lua_kind {
  MR_TASK_MAIN,
  MR_TASK_TOOL,
  MR_TASK_HOOK,
  MR_TASK_MODEL,
  MR_TASK_START,
  MR_TASK_SPAWN,
  MR_TASK_ROUTE,
  MR_TASK_EVENT,
  MR_TASK_KINDS /* how many there are */
};
enum mr_lua_state { MR_TS_NEW, MR_TS_READY, MR_TS_RUNNING, MR_TS_WAITING, MR_TS_DEAD };

/* One set of loaded scripts. Alive while current, previous, or any task of it runs. */
struct mr_lua_gen {
  struct mr_lua_gen *next;
  int64_t number;
  int refs;                                /* tasks, and being current or previous */
  int ref;                                 /* registry: the generation's Lua table */
  struct mr_lua_file *files, **files_tail; /* in the order in which they were run */
  int nfiles;
};

struct mr_lua_pend {
  struct mr_lua_vm *s;
  struct mr_lua_task *task;            /* NULL: abandoned, the callback only frees */
  void (*undo)(struct mr_lua_pend *p); /* task is gone from it; make the work stop; frees p or leaves it to
                                          the callback */
  struct mr_op *op;                    /* operations */
  uint64_t id;                         /* timer or http request */
  struct mr_lua_pend **list;           /* joins: the list this is in */
  struct mr_lua_pend *next;
  struct mr_lua_stream *stream;
  struct mr_lua_web *web; /* writes of routes */
  struct mr_lua_http *http;
  struct mr_lua_new *made;
  bool is_download;
  char *buf; /* downloads: what came so far, when it goes to a string */
  size_t n, cap;
  char *path, *part; /* downloads into a file: its name; the temporary one, until renamed */
  int fd;            /* uploads from a file, downloads into one; -1 */
  char *up;          /* uploads from memory */
  size_t upn, upoff;
  int code, os_error; /* a failure noticed on the way (a full buffer, a full disk) */
};

struct mr_lua_task {
  struct mr_lua_vm *s;
  uint64_t id;
  struct mr_lua_task *prev, *next; /* all tasks */
  struct mr_lua_task *ready_next;
  struct mr_lua_task *parent, *child, *sib_prev, *sib_next;
  struct mr_lua_gen *gen;
  lua_State *co; /* anchored in s->ref_tasks[id] */
  int nargs;     /* on co's stack before the first resume */
  enum mr_lua_kind kind;
  enum mr_lua_state state;
  bool cancelled; /* sticky */
  bool settled;   /* res_* hold the result of the pending operation */
  bool raise;     /* the result is an error to raise, not nil, err */
  bool failed;    /* the result is nil, err */
  int res;        /* registry reference of the result, LUA_NOREF = nothing */
  struct mr_lua_pend *pend;
  struct mr_lua_pend *joiners;
  char why[96];               /* of the cancellation */
  struct mr_lua_alarm *alarm; /* of the deadline; NULL = none */
  char label[80];             /* for the log: "tool purchase_order" */
  int64_t began_us;           /* when it was made, on the runtime's monotonic clock */
  /* How the owner hears: finish, in protected mode with nres values on L (may raise, then fail is
   * called); fail must not touch Lua. */
  LJMP void (*finish)(lua_State *L, struct mr_lua_task *t, int nres);
  void (*fail)(struct mr_lua_task *t, const char *msg);
  struct mr_use *use; /* the owner's handle, by kind */
  struct mr_hook_call *hook;
  struct mr_model_use *model;
  struct mr_seen *seen;
  struct mr_lua_web *web;
  int handle;          /* spawned: registry reference of its Lua handle */
  const char *on_fail; /* hooks: the answer when the handler fails; NULL: no opinion */
  int *exit_code;      /* rig.main */
  struct mr_err *err;  /* rig.main: where the failure goes */
};

struct mr_lua_rec { /* user data of what is registered in the core; tools and providers keep theirs */
  struct mr_lua_vm *s;
  struct mr_lua_rec *next;
  struct mr_lua_gen *gen; /* hooks */
  int kind;               /* MR_REC_* */
  int hook_id, index;     /* hooks: the core's id; place among the generation's hooks */
  bool live;
  const char *on_fail; /* hooks: see the task's */
  char name[160];      /* of the tool or provider; for the log, of the hook */
  char agent[300];     /* tools: only for this one; "" for all */
};
enum { MR_REC_TOOL, MR_REC_HOOK, MR_REC_PROVIDER, MR_REC_ON, MR_REC_ROUTE /* name: method, agent: path */ };

/* What a script file held when its generation loaded it: for a VM that takes another's place. */
struct mr_lua_file {
  struct mr_lua_file *next;
  char *path, *real, *text;
  size_t n;
  bool script; /* run by itself; else by require */
};

enum { MR_SLICE_OUT, MR_SLICE_IN, MR_SLICE_GONE }; /* no user code runs; it runs; it was given up */

/* One VM and all that it has going. The struct of script.h owns the one in use. */
struct mr_lua_vm {
  struct mr_script *h;
  struct mr_runtime *rt;
  const struct mr_ext *ext;
  lua_State *L;            /* the main coroutine: library calls, conversions, loading; never waits */
  struct mr_script_opts o; /* strings are the owner's */
  size_t mem_used;
  size_t collect_at;           /* mem_used beyond which a whole collection is due before the next slice */
  struct mr_lua_task *current; /* the task being resumed; NULL outside */
  struct mr_lua_task *tasks, *ready, *ready_tail;
  int ntasks;
  uint64_t next_id;
  struct mr_lua_gen *gens, *cur, *prev, *loading;
  int64_t last_number;
  struct mr_lua_rec *recs;
  int64_t slice_end_us;   /* CPU time of the script thread */
  pthread_t stack_thread; /* LuaJIT: whose C stack, and its middle: nested calls may come down to there */
  char *stack_half;
  bool in_user;               /* user code runs: memory is capped */
  bool spent;                 /* the slice is over: every further instruction raises */
  char spent_why[200];        /* with where it was noticed first */
  atomic_int slice;           /* MR_SLICE_*: by whom the rest of this struct may be touched; see guard.c */
  atomic_uint beat;           /* counts looks of the hook, and slices: stands still in a C function */
  struct mr_lua_file *replay; /* load from these, not from disk */
  struct mr_lua_vm *before;   /* the one whose place this takes, until it has its scripts */
  struct mr_lua_stream *streams;
  struct mr_lua_http *https; /* streamed responses */
  struct mr_lua_new *news;   /* runtimes of rig.new */
  int outstanding;           /* pends, streams, records that a callback of the core will free */
  bool closing;
  bool listens; /* to the control channel */
  bool control_wanted;
  uint64_t control_id;
  char control[16];
  struct mr_lua_pend *reloads; /* of tasks that asked for one; code: roll back */
  bool watch_hit;              /* something changed below a watched directory */
  int64_t stamped;             /* generation number of the last load attempt, whose file stamps are kept */
  const struct mr_lua_paths *lint_programs; /* not run in this pass */
  bool lint;   /* scripts are only checked: errors are noted, and the next file is loaded */
  bool traced; /* the traceback of this load's error was logged */
  uint64_t watches[256];
  int nwatches;
  bool main_done;
  bool once; /* ends with rig.main: nothing is scheduled */
  int ref_tasks, ref_ids, ref_entries, ref_errmt, ref_arraymt, ref_intmt, ref_boxmt, ref_streammt, ref_httpmt,
      ref_newmt, ref_webmt;
  int ref_stamps, ref_parents;
  char last_error[384];
  int64_t error_us;                     /* when that was, since 1970 */
  struct mr_lua_test *test;             /* the test kit's, or NULL */
  void (*between)(struct mr_lua_vm *s); /* of the kit: after each dispatch, outside of tasks */
  int late_code;                        /* rig.main that ends after mr_script_run_main gave up */
  struct mr_err late_err;
};

/* An attempt to load, reload or roll back. */
struct mr_lua_try {
  char what[12], error[384]; /* error: "" = it became current */
  int64_t at_us, took_us;    /* since 1970; how long */
  int64_t number;            /* of the generation that was tried; a rollback's: the one before */
  int files;
};
enum { MR_LUA_TRIES = 8 };

struct mr_script {
  struct mr_lua_vm *vm;
  struct mr_runtime *rt;
  const struct mr_ext *ext;
  struct mr_script_opts o;               /* strings are own copies */
  atomic_int stop;                       /* mr_script_stop */
  atomic_int asked;                      /* mr_script_ask_reload */
  int given_up;                          /* VMs whose thread is stuck, or was */
  struct mr_lua_try tries[MR_LUA_TRIES]; /* script thread: a ring; VMs that follow one another share it */
  int ntries;                            /* ever */
  pthread_mutex_t lock;                  /* over, rc */
  pthread_cond_t cond;
  bool over; /* the worker has ended, with rc */
  int rc;
};

/* ---- vm.c: the state, budgets, protected calls, errors */
struct mr_lua_vm *mr_lua_self(lua_State *L); /* whose VM this is */
int mr_lua_vm_open(struct mr_lua_vm *s, struct mr_err *err);
void mr_lua_vm_close(struct mr_lua_vm *s);
void mr_lua_slice_begin(struct mr_lua_vm *s, lua_State *L, int ms); /* user code starts to run on L */
/* Ends the calling thread, there and then, when the VM was given up meanwhile. */
void mr_lua_slice_end(struct mr_lua_vm *s, lua_State *L);
/* The innermost function of L as text: "C function find, called at x.lua:3". */
void mr_lua_describe(lua_State *L, char *out, size_t n);
void mr_lua_make_room(struct mr_lua_vm *s); /* collects, when the VM is close to its memory limit */
/* Runs fn(L) protected on the main state with ud as its argument (lua_touserdata(L, 1)). MR_OK, or MR_E_*
 * with the message in msg (n bytes). The stack is balanced after. */
int mr_lua_protect(struct mr_lua_vm *s, lua_CFunction fn, void *ud, char *msg, size_t n);
void mr_lua_scrub(char *text); /* bytes that are not UTF-8 become "?" */
/* A text for the error value at idx, as UTF-8, cut to n; runs no user code. */
const char *mr_lua_errtext(lua_State *L, struct mr_lua_vm *s, int idx, char *buf, size_t n);
LJMP void mr_lua_push_err(lua_State *L, struct mr_lua_vm *s, const struct mr_err *e);
LJMP int mr_lua_raise(lua_State *L, const char *fmt, ...)
    __attribute__((format(printf, 2, 3))); /* cut at 512 */
LJMP int mr_lua_raise_text(lua_State *L, const char *msg);
int mr_lua_err(struct mr_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void mr_lua_log(struct mr_lua_vm *s, int level, const char *source, const char *text); /* one entry a line */
int64_t mr_lua_mono_us(void);
LJMP int mr_lua_native(lua_State *L); /* the table of natives; upvalue 1: the script */

/* ---- mem.c */
void *mr_lua_alloc(size_t n); /* zeroed */
void *mr_lua_realloc(void *p, size_t n);
void mr_lua_free(void *p);
char *mr_lua_strdup(const char *p);
void *mr_lua_vm_alloc(void *ud, void *p, size_t osize, size_t nsize); /* lua_Alloc; ud: the script */

/* A userdata that frees what it holds when it is collected; for C objects that live across a raise. */
struct mr_lua_box {
  struct mr_lua_vm *s;
  void *p;
  void (*free)(struct mr_lua_vm *s, void *p);
};
LJMP struct mr_lua_box *mr_lua_box(lua_State *L, struct mr_lua_vm *s, void (*fn)(struct mr_lua_vm *, void *));
void mr_lua_box_drop(lua_State *L, int idx); /* frees now what the box at idx (negative) holds; removes it */
LJMP void mr_lua_box_open(lua_State *L, struct mr_lua_vm *s);

/* ---- value.c: JSON values and Lua values */
enum { MR_V_WIRE = 1 /* objects of the API: a null member reads as nil; known arrays encode as [] */ };
LJMP void mr_lua_push_val(lua_State *L, struct mr_lua_vm *s, const struct mr_val *v, unsigned flags);
/* NULL and err when the value cannot be JSON text (bad UTF-8, NaN); raises for what has no JSON form. */
LJMP struct mr_doc *mr_lua_to_doc(lua_State *L, struct mr_lua_vm *s, int idx, unsigned flags,
                                  struct mr_err *err);
LJMP int mr_lua_push_json(lua_State *L, struct mr_lua_vm *s, int idx, unsigned flags, unsigned jflags,
                          struct mr_err *err); /* pushes the text; or returns MR_E* and pushes nothing */
LJMP void mr_lua_value_open(lua_State *L, struct mr_lua_vm *s);

/* ---- task.c */
/* Takes the function and nargs arguments from L's stack. */
LJMP struct mr_lua_task *mr_lua_task_new(lua_State *L, struct mr_lua_vm *s, struct mr_lua_gen *gen,
                                         enum mr_lua_kind kind, int nargs, const char *label);
void mr_lua_task_cancel(struct mr_lua_task *t, const char *why);
LJMP struct mr_lua_task *mr_lua_task_find(lua_State *L, struct mr_lua_vm *s, uint64_t id);
void mr_lua_task_deadline(struct mr_lua_task *t, int64_t us);
void mr_lua_tasks_drop(struct mr_lua_vm *s, const char *why); /* owners hear, waits are undone; no Lua */
void mr_lua_run_ready(struct mr_lua_vm *s);
void mr_lua_ready(struct mr_lua_task *t);
extern const luaL_Reg mr_lua_task_natives[];

/* ---- op.c: pending operations */
LJMP void mr_lua_op_open(lua_State *L, struct mr_lua_vm *s);
LJMP void mr_lua_may_wait(lua_State *L, struct mr_lua_vm *s, const char *what);               /* or raises */
struct mr_lua_pend *mr_lua_pend_new(struct mr_lua_vm *s, void (*undo)(struct mr_lua_pend *)); /* or NULL */
void mr_lua_pend_drop(struct mr_lua_pend *p);              /* never armed, or no callback will come: frees */
int mr_lua_pend_wait(lua_State *L, struct mr_lua_pend *p); /* return this */
/* Settles with the value that push(L, ud) pushes (in protected mode), an error, or nothing; frees p. */
void mr_lua_pend_value(struct mr_lua_pend *p, void (*push)(lua_State *L, void *ud), void *ud);
void mr_lua_pend_fail(struct mr_lua_pend *p, int code, const struct mr_err *err);
LJMP int mr_lua_raise_cancelled(lua_State *L, struct mr_lua_task *t);
LJMP int mr_lua_fail_now(lua_State *L, struct mr_lua_vm *s, const struct mr_err *err); /* true, nil, err */
extern const luaL_Reg mr_lua_op_natives[], mr_lua_call_natives[], mr_lua_stream_natives[], mr_lua_io_natives[],
    mr_lua_json_natives[], mr_lua_base_natives[], mr_lua_model_natives[], mr_lua_http_natives[],
    mr_lua_new_natives[], mr_lua_kv_natives[], mr_lua_on_natives[];
extern const luaL_Reg mr_lua_crypto_natives[], mr_lua_sqlite_natives[], mr_lua_tty_natives[];
LJMP void mr_lua_stream_open(lua_State *L, struct mr_lua_vm *s);
void mr_lua_streams_cancel(struct mr_lua_vm *s); /* of a VM that was given up */
LJMP void mr_lua_http_open(lua_State *L, struct mr_lua_vm *s);
void mr_lua_https_cancel(struct mr_lua_vm *s); /* likewise, streamed responses */
LJMP void mr_lua_new_open(lua_State *L, struct mr_lua_vm *s);
void mr_lua_news_close(struct mr_lua_vm *s); /* likewise, runtimes of rig.new */

/* ---- crypto.c: bytes as base64, into out of 4 * ((n + 2) / 3) bytes; and back, pushed, or *bad = where it broke */
size_t mr_lua_base64(const char *data, size_t n, bool url, char *out);
LJMP bool mr_lua_push_unbase64(lua_State *L, const char *p, size_t n, size_t *bad);

/* ---- reload.c, files.c: generations */
struct mr_lua_gen *mr_lua_gen_here(struct mr_lua_vm *s); /* of the running task, or of what loads, or current */
void mr_lua_gen_ref(struct mr_lua_gen *g);
void mr_lua_gen_unref(struct mr_lua_vm *s, struct mr_lua_gen *g);
LJMP void mr_lua_gen_push(lua_State *L, struct mr_lua_gen *g);
LJMP void mr_lua_entry(lua_State *L, struct mr_lua_vm *s, const char *name); /* pushes a library function */
int mr_lua_gen_new(struct mr_lua_vm *s, struct mr_lua_gen **out, struct mr_err *err); /* nothing loaded yet */
int mr_lua_gen_reload(struct mr_lua_vm *s, struct mr_err *err);
int mr_lua_gen_rollback(struct mr_lua_vm *s, struct mr_err *err);

/* ---- status.c: what is known of the generations */
void mr_lua_status_note(struct mr_lua_vm *s, const struct mr_lua_try *t); /* and tells /health */
void mr_lua_status_fail(struct mr_lua_vm *s, const char *msg);            /* the current one's start failed */
struct mr_doc *mr_lua_status(struct mr_lua_vm *s);                        /* a document for doc_free, or NULL */
void mr_lua_reloads_run(struct mr_lua_vm *s); /* carries out what tasks asked for; outside of callbacks */
extern const luaL_Reg mr_lua_status_natives[];

/* ---- files.c: what is run. A generation's scripts as a list of paths (sorted: without doubles). */
enum { MR_LUA_PATHS_MAX = 2000 };
struct mr_lua_paths {
  char *v[MR_LUA_PATHS_MAX];
  int n;
  bool full;
};
void mr_lua_paths_add(struct mr_lua_paths *l, const char *path);
void mr_lua_paths_sort(struct mr_lua_paths *l);
void mr_lua_paths_free(struct mr_lua_vm *s, void *p); /* and the struct itself; fits a box */
/* The .lua files below dir that would be run; dirs, when not NULL, gets dir and the directories below. */
void mr_lua_paths_walk(const char *dir, struct mr_lua_paths *files, struct mr_lua_paths *dirs);
void mr_lua_dir_of(const char *path, char *out, size_t n);
void mr_lua_files_free(struct mr_lua_file *f);
/* Runs a script file, or the scripts of a directory, in the generation table at g. */
LJMP void mr_lua_load_path(lua_State *L, struct mr_lua_vm *s, int g, const char *path);
/* Pushes the file's value; runs it if the generation did not yet. name: of the module, NULL for a script. */
LJMP void mr_lua_load_file(lua_State *L, struct mr_lua_vm *s, int g, const char *path, const char *name);
LJMP void mr_lua_load_replay(lua_State *L, struct mr_lua_vm *s, int g); /* the scripts of s->replay, in order */
LJMP const char *mr_lua_loading_file(lua_State *L, struct mr_lua_vm *s); /* pushes it; NULL: pushes nothing */
/* No frame from level on is of the file that loads: it called in tail position, those there are its requirer's. */
bool mr_lua_tail_called(lua_State *L, int level, const char *file);
extern const luaL_Reg mr_lua_file_natives[];

bool mr_lua_paths_skipped(const char *name); /* of a file or directory that is not run */

/* ---- folder.c: directories that are agents */
bool mr_lua_is_folder(const char *path, bool below_agents);
/* Its files that count; dirs as above. */
void mr_lua_folder_files(const char *dir, struct mr_lua_paths *files, struct mr_lua_paths *dirs);
void mr_lua_folders_of(const char *dir, struct mr_lua_paths *out); /* those of dir/agents, sorted */
LJMP void mr_lua_folder_load(lua_State *L, struct mr_lua_vm *s, int g, const char *path);
LJMP void mr_lua_folders_load(lua_State *L, struct mr_lua_vm *s, int g, const char *dir);
extern const luaL_Reg mr_lua_folder_natives[];

/* ---- watch.c: did they change? */
void mr_lua_stamps_restart(struct mr_lua_vm *s, int64_t number); /* a load attempt begins */
LJMP void mr_lua_stamp_note(lua_State *L, struct mr_lua_vm *s, int g, const char *real); /* before reading it */
bool mr_lua_files_changed(struct mr_lua_vm *s); /* since the last load attempt */
void mr_lua_watch(struct mr_lua_vm *s);         /* (again) watches where the scripts lie */
void mr_lua_unwatch(struct mr_lua_vm *s);

/* ---- run.c: the life of one VM */
/* Makes one, without scripts. before: the VM whose place and scripts it takes (mr_lua_vm_load), or NULL. */
int mr_lua_vm_new(struct mr_lua_vm **out, struct mr_script *h, struct mr_lua_vm *before, struct mr_err *err);
int mr_lua_vm_load(struct mr_lua_vm *s, struct mr_err *err); /* its first generation */
int mr_lua_vm_reload(struct mr_lua_vm *s, int rollback, struct mr_err *err);
int mr_lua_vm_turn(struct mr_lua_vm *s); /* waits, dispatches, resumes, once */
int mr_lua_vm_main(struct mr_lua_vm *s, int argc, char **argv, int *exit_code,
                   struct mr_err *err); /* starts it */
void mr_lua_vm_end(struct mr_lua_vm **s);
void mr_lua_vm_refuse_control(struct mr_lua_vm *s, const char *why);

/* ---- lint.c */
/* In a VM without scripts; see mr_script_lint. */
int mr_lua_lint(struct mr_lua_vm *s, const char *stored, void (*fn)(void *ud, const char *p, size_t n),
                void *ud, struct mr_err *err);
bool mr_lua_lint_skips(const struct mr_lua_vm *s, const char *path);
/* Calls the function below nargs arguments; pops all. An error is noted for path. */
LJMP void mr_lua_lint_call(lua_State *L, struct mr_lua_vm *s, int g, const char *path, int nargs);

/* ---- guard.c: the thread that runs a VM, and the one that watches it */
int mr_lua_guard(struct mr_script *h, bool main);

/* ---- test.c: the natives of the test kit, in the VM of a test file alone. native: the table of natives. */
LJMP void mr_lua_test_open(lua_State *L, struct mr_lua_vm *s);
void mr_lua_test_close(struct mr_lua_vm *s);

/* ---- tool.c, hook.c, model.c: what the core calls. plan: index of the generation's plan (boot.lua). */
bool mr_lua_gone(const struct mr_lua_vm *s); /* closing, or given up: nothing of it may be run */
struct mr_lua_rec *mr_lua_rec_new(struct mr_lua_vm *s, int kind, const char *name, const char *agent);
/* Its hook is taken back: frees it once what the core queued for it before is dispatched. */
void mr_lua_rec_retire(struct mr_lua_rec *r);
LJMP int mr_lua_tools_apply(lua_State *L, struct mr_lua_vm *s, int plan, struct mr_err *err);
LJMP int mr_lua_hooks_apply(lua_State *L, struct mr_lua_vm *s, struct mr_lua_gen *g, int plan,
                            struct mr_err *err); /* adds; the old ones stay until mr_lua_hooks_keep */
void mr_lua_hooks_keep(struct mr_lua_vm *s, struct mr_lua_gen *g);
LJMP int mr_lua_watchers_apply(lua_State *L, struct mr_lua_vm *s, int plan, struct mr_err *err); /* on.c */
LJMP int mr_lua_providers_apply(lua_State *L, struct mr_lua_vm *s, int plan, struct mr_err *err);
LJMP int mr_lua_routes_apply(lua_State *L, struct mr_lua_vm *s, int plan, struct mr_err *err); /* route.c */
void mr_lua_route_take_back(struct mr_lua_rec *r);
extern const luaL_Reg mr_lua_route_natives[];
LJMP void mr_lua_route_open(lua_State *L, struct mr_lua_vm *s);
void mr_lua_recs_remove(struct mr_lua_vm *s); /* takes everything back from the core */
void mr_lua_recs_replace(struct mr_lua_vm *s,
                         struct mr_lua_vm *before); /* ... what s did not register itself */
/* Pushes t[key] as a string or dflt, kept alive on the stack. */
LJMP const char *mr_lua_field(lua_State *L, int idx, const char *key, const char *dflt);
LJMP int64_t mr_lua_field_int(lua_State *L, int idx, const char *key, int64_t dflt);

#endif
