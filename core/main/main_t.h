/*
 * main_t - what the files of the program share. Each command is a function of (argc, argv) that returns the
 * exit status: 0 done, 1 failed, 2 wrong usage, 3 not reachable or not possible on this machine.
 */
#ifndef MR_MAIN_MAIN_T_H
#define MR_MAIN_MAIN_T_H

#include <stdbool.h>
#include <stdio.h>
#include "base/err.h"
#include "base/json.h"
#include "moonrig_ext.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_UNREACHABLE = 3 };

struct command {
  const char *name, *args, *what;    /* "serve", "[DIR|FILE.lua ...]", one line */
  const char *help;                  /* the options, as printed by `moonrig NAME --help` */
  int (*run)(int argc, char **argv); /* argv[0] is the command's name */
  /* The help of what the arguments name: an exit status, or -1 when they name nothing. NULL: it has none. */
  int (*more)(int argc, char **argv);
};
extern const struct command mr_cmd_serve, mr_cmd_run, mr_cmd_key, mr_cmd_env, mr_cmd_reload, mr_cmd_doctor,
    mr_cmd_api, mr_cmd_chat, mr_cmd_repl, mr_cmd_new, mr_cmd_test, mr_cmd_record, mr_cmd_lint, mr_cmd_attach,
    mr_cmd_ps, mr_cmd_why, mr_cmd_logs, mr_cmd_completion, mr_cmd_fork, mr_cmd_export, mr_cmd_import,
    mr_cmd_check, mr_cmd_worker;
const struct command *mr_main_command(int i); /* NULL past the end */

/* "moonrig: MESSAGE" on stderr, with the field when the message does not name it. Returns status. */
int mr_main_fail(int status, const struct mr_err *err);
int mr_main_usage(const struct command *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A line of the log on stderr, with the time: the sink of mr_config and mr_sys. */
void mr_main_log(void *ud, int level, struct mr_str line);
void mr_main_raise_descriptors(void); /* as many as the system lets us have */

/* Text of the program's own: JSON of a document that was built, a copy; freed with mr_main_free (NULL allowed). */
char *mr_main_json(yyjson_mut_doc *d);
char *mr_main_copy(struct mr_str s);
void mr_main_free(char *p);

#endif
