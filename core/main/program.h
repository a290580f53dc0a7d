/*
 * program - runs a program of the library (lua/moonrig/chat.lua, look.lua, repl.lua) for a person at a terminal: a
 * runtime of its own without listeners, the scripts, the program's function as the main task, Ctrl-C as a descriptor
 * that it reads. One that speaks to the server of a data directory has another descriptor, which says where that
 * server is when it has started again.
 */
#ifndef MR_MAIN_PROGRAM_H
#define MR_MAIN_PROGRAM_H

#include "main/settings.h"

enum { PROGRAM_ARGS = 10 };

struct program {
  const char *name;            /* "moonrig.chat" */
  const char *store, *options; /* of its runtime */
  const char *const *paths;    /* scripts */
  int npaths;
  const char *offline;
  const char *args[PROGRAM_ARGS]; /* the function's; [0] will be the descriptors' numbers */
  int nargs;
  const char *data; /* the directory whose server it speaks to; NULL: it was told an address */
  const char *key;  /* goes with any address of it; NULL: the one of the server's file */
  bool log;         /* the runtime's log on stderr: warnings and errors */
};

/* Until the program's function returns, or SIGTERM, SIGHUP. The exit status. */
int mr_program_run(struct program *p);
/* A client's program: fills in what lua/moonrig/cli.lua expects, the server's address included, then runs. args from
 * [4] on are its own. EXIT_UNREACHABLE after it said why when there is no server. */
int mr_program_client(struct program *p, struct settings *s);

#endif
