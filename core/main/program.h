/*
 * program - runs a program of the library (lua/moonrig/chat.lua, repl.lua) for a person at a terminal: a runtime of
 * its own without listeners, the scripts, the program's function as the main task, Ctrl-C as a descriptor that it reads.
 */
#ifndef MR_MAIN_PROGRAM_H
#define MR_MAIN_PROGRAM_H

#include "main/settings.h"

enum { PROGRAM_ARGS = 8 };

struct program {
  const char *name;            /* "moonrig.chat" */
  const char *store, *options; /* of its runtime */
  const char *const *paths;    /* scripts */
  int npaths;
  const char *offline;
  const char *args[PROGRAM_ARGS]; /* the function's; [0] will be the descriptor's number */
  int nargs;
  bool log; /* the runtime's log on stderr: warnings and errors */
};

/* Until the program's function returns, or SIGTERM, SIGHUP. The exit status. */
int mr_program_run(struct program *p);

#endif
