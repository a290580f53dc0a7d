/*
 * caps - budgets: what a session may use before it pauses (API: sessions §2.4, §13.3). To the official cap on list
 * cost come four of our own, for models without a price: tokens, seconds of work, model requests, and the same tool
 * call again and again.
 *
 * {"type":"limit","max_list_cost":{"amount":"2500","currency":"USD"},"max_tokens":N,"max_seconds":N,"max_steps":N,
 * "max_repeats":N}: any of them, at least one. The configuration's caps = { tokens, seconds, steps, repeats } are
 * those of every session that has no budget of its own. All are looked at before each model request (turn_budget.c),
 * so each may be overshot by what is in flight. What was used is counted from the log's rows, the same after a
 * restart. Pure functions; any thread.
 */
#ifndef MR_AGENT_CAPS_H
#define MR_AGENT_CAPS_H

#include "base/err.h"
#include "base/json.h"

enum mr_cap { MR_CAP_COST, MR_CAP_TOKENS, MR_CAP_SECONDS, MR_CAP_STEPS, MR_CAP_REPEATS, MR_CAPS };
struct mr_caps {
  int64_t max[MR_CAPS]; /* 0: none. Cost in nanocents (price.h) */
};
struct mr_prices;

const char *mr_cap_key(enum mr_cap c);      /* its member of a budget: "max_steps" */
enum mr_cap mr_cap_find(struct mr_str key); /* MR_CAPS: no cap has that name */
bool mr_caps_any(const struct mr_caps *c);
bool mr_caps_same(const struct mr_caps *a, const struct mr_caps *b);
/* Checks a budget (JSON); errors name the member under "budget", and *out is as it was. */
int mr_budget_read(yyjson_val *budget, struct mr_caps *out, struct mr_err *err);
/* The object as it is stored and shown; null when there is no cap in it. */
void mr_budget_write(struct mr_jw *w, const struct mr_caps *caps);
/* Of the section "caps" of the configuration, whose numbers are checked already. */
void mr_caps_config(struct mr_caps *out, yyjson_val *config);
/* Has every model that a session with this agent (its snapshot) may run a list price? Else MR_E_INVALID, with
 * error code model_not_budgetable. For budgets with a cap on cost. */
int mr_budget_check(const struct mr_prices *p, yyjson_val *agent, struct mr_err *err);

#endif
