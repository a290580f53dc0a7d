/*
 * script - the Lua face as core/main uses it: one VM with the user's scripts, run by one thread.
 *
 * What it is for: loading scripts (generation 1), running rig.main, answering tool calls, hooks and model
 * requests with Lua, and replacing all scripts at once while calls are in flight.
 * What it is not for: anything a C host could not do itself with moonrig.h and moonrig_ext.h; this room
 * includes nothing else of the tree.
 *
 * Invariant: the VM is touched by one thread at a time, and that thread is the one that calls mr_dispatch:
 * while mr_script_loop or mr_script_run_main runs a thread that it makes, else the caller. Only
 * mr_script_stop and mr_script_ask_reload may be called from other threads.
 *
 * Order in a program: mr_open, mr_script_open, then on the script thread mr_script_loop or
 * mr_script_run_main, then mr_script_close, then mr_close.
 */
#ifndef MR_SCRIPT_SCRIPT_H
#define MR_SCRIPT_SCRIPT_H

#include "moonrig.h"

struct mr_script;

/*
 * What a VM needs to run a test file (`moonrig test`, lua/moonrig/test.lua): its first generation is the test
 * file, the scripts under test are loaded by it as later ones. Functions run on the script thread.
 */
struct mr_script_test {
  uint32_t size;
  const char *root, *only; /* where t.load looks first; run only tests with this in their name, or NULL */
  int timeout_ms;          /* real time of one test */
  void (*advance)(void *ud, int64_t us);                       /* moves the runtime's clocks */
  size_t (*logged)(void *ud, size_t from, char *to, size_t n); /* as strlcpy, of the log from a byte on */
  void (*result)(void *ud, struct mr_str json); /* of one test: {"name","ok","where","message","seconds"} */
  void *ud;
};

struct mr_script_opts {
  uint32_t size;            /* sizeof(struct mr_script_opts) */
  const char *const *paths; /* script files and directories, loaded in this order; may be none */
  size_t npaths;
  const char *root;          /* where require looks first; NULL = the directory of the first path */
  const char *offline_model; /* Lua file that returns function(request, ctx): plays every model; or NULL */
  const char *lua_path;      /* directory with moonrig/ (development: MOONRIG_LUA_PATH); NULL = embedded */
  int watch;                 /* reload when a loaded file or a script directory changes */
  size_t memory_max;         /* bytes of the VM; 0 = 256 MiB */
  int load_ms;               /* CPU time: top level of all scripts, together; 0 = 2,000 */
  int stuck_ms;              /* mr_script_loop: a task in one C function for longer is given up; 0 = 30,000 */
  int burst_ms;              /* CPU time: longest run of a task without waiting; 0 = 10,000 */
  int tasks_max;             /* live tasks; 0 = 10,000 */
  const char *program;       /* run this module of lua/moonrig ("moonrig.chat") in place of rig.main; or NULL */
  int jit;                   /* LuaJIT only: leave the compiler on (no time budgets then) */
  const struct mr_script_test *test; /* runs tests; NULL = not */
};

/*
 * Makes the VM and loads generation 1. Any error in a script: MR_E_INVALID, err.message says which file
 * and why (the traceback is in the log), and nothing was registered; with opts.watch it succeeds instead,
 * with no generation, and waits for the files to be mended.
 */
int mr_script_open(struct mr_script **out, struct mr_runtime *rt, const struct mr_script_opts *o,
                   struct mr_err *err);

/*
 * Runs the function given to rig.main as a task, and the loop until it ends. argv[0] is the script.
 * *exit_code: its integer result, 1 if it failed (the message went to the log and is in err). MR_E_NOTFOUND
 * if no script calls rig.main; MR_E_CANCELLED after mr_script_stop.
 */
int mr_script_run_main(struct mr_script *s, int argc, char **argv, int *exit_code, struct mr_err *err);

/*
 * Dispatches and resumes until mr_script_stop; MR_OK, or the error that ended it. The scripts run in a thread
 * of their own, and this one watches it: if a C function holds it up for stuck_ms, what waits for it fails
 * and a fresh VM of the same generation takes its place.
 */
int mr_script_loop(struct mr_script *s);

/* Ends mr_script_loop and mr_script_run_main soon, a task in the middle of a computation too. Any thread. */
void mr_script_stop(struct mr_script *s);

/*
 * Loads the scripts again as a new generation, or (rollback) makes the previous generation current. On
 * any error the current one stays and err says why. Script thread, outside of callbacks; other threads
 * and processes use the control channel of moonrig_ext.h ("reload", "rollback", "status").
 */
int mr_script_reload(struct mr_script *s, int rollback, struct mr_err *err);

/* mr_script_reload, soon, by the script thread; what comes of it is in the log. Any thread. */
void mr_script_ask_reload(struct mr_script *s);

int64_t mr_script_generation(const struct mr_script *s); /* 0: none */

/*
 * Cancels what runs, takes back what was registered, frees. mr_script_loop and mr_script_run_main must have
 * returned. NULL allowed. MR_E_BUSY: a thread is still stuck inside of Lua; end the process soon.
 */
int mr_script_close(struct mr_script **s);

/*
 * Loads the scripts in a VM of their own, without making them current, reads them besides, and writes what is wrong
 * with them as one JSON object through fn, once: {"files", "problems": [{"file","line","rule","message","fix"}],
 * "changes"}. stored: JSON {"agents": [...], "environments": [...]} of a server to compare with, or NULL ("changes"
 * is null then). Nothing is registered, no handler runs. rt: any runtime; it keeps nothing. MR_OK also when there
 * are problems; MR_E_NOTFOUND for a path that is not there. Any thread that may call mr_dispatch.
 */
int mr_script_lint(struct mr_runtime *rt, const struct mr_script_opts *o, const char *stored,
                   void (*fn)(void *ud, const char *p, size_t n), void *ud, struct mr_err *err);

/*
 * Runs a configuration file (Lua that returns a table) in a VM of its own and writes the table as JSON text
 * through fn. MR_E_INVALID: err.message has file, line and reason. Any thread.
 */
int mr_script_config(const char *path, void (*fn)(void *ud, const char *p, size_t n), void *ud,
                     struct mr_err *err);

#endif
