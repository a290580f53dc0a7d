/* judge_t - shared by judge.c and judge_shell.c alone. */
#ifndef MR_AGENT_JUDGE_T_H
#define MR_AGENT_JUDGE_T_H

#include "agent/judge.h"

/* May this path, by its text, be read without asking? Relative ones may. globs: patterns in it become names. */
bool mr_judge_path(struct mr_str path, bool globs);
enum mr_verdict mr_judge_shell(struct mr_str command);

#endif
