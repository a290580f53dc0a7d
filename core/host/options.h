/*
 * options - the options of mr_open (the configuration file's keys) for those who read them: the runtime, and programs
 * that drive sandboxes without one (main/worker.c). Parsed and checked once; what a section says is taken from the
 * checked document.
 */
#ifndef MR_HOST_OPTIONS_H
#define MR_HOST_OPTIONS_H

#include "base/json.h"

struct mr_guard;
struct mr_sandbox_options;
struct mr_egress_options;

/* Parses and checks the options; NULL text counts as {}. */
int mr_options_read(const struct mr_mem *m, const char *text, yyjson_doc **out, struct mr_err *err);
/* The guard of allow_private_hosts: a list, or its entries in one string with commas between. */
int mr_options_guard(struct mr_guard **out, const struct mr_mem *m, yyjson_val *options, struct mr_err *err);
/* Section sandbox into so; strings are the document's, or a's. root is NULL when it is not set; http and guard are left.
 */
int mr_options_sandbox(yyjson_val *options, struct mr_sandbox_options *so, struct mr_arena *a,
                       struct mr_err *err);
/* Section egress into o; lists are a's, strings the document's. */
int mr_options_egress(yyjson_val *options, struct mr_egress_options *o, struct mr_arena *a, struct mr_err *err);

#endif
