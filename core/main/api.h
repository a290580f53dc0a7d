/* api - the parts of `moonrig api`: api.c calls operations, api_help.c tells what there is. */
#ifndef MR_MAIN_API_H
#define MR_MAIN_API_H

#include "main/main_t.h"
#include "ops/ops.h"

int mr_api_list(bool json);             /* all operations, a line each */
int mr_api_help(int argc, char **argv); /* of the operation among the arguments; -1: they name none */

#endif
