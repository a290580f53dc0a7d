/*
 * budget.c - the spend ceiling of a session as clients write it (API: sessions §2.4, §13.3): whole US cents
 * in a string, more than none. What it does to the turn is not here; see price.h for the arithmetic.
 */
#include "agent/price.h"
#include "agent/roster.h"

#include <stdio.h>

static int refuse(struct mr_err *err, const char *sub, const char *what)
{
  char field[64];
  snprintf(field, sizeof field, "budget%s%s", sub[0] ? "." : "", sub);
  return mr_err_set(err, MR_E_INVALID, field, "%s: %s", field, what);
}

int mr_budget_read(yyjson_val *budget, int64_t *cap, struct mr_err *err)
{
  yyjson_val *most = mr_json_get(budget, "max_list_cost"), *amount = mr_json_get(most, "amount");
  struct mr_str s = mr_json_str(amount);
  int64_t cents = 0;

  if (!yyjson_is_obj(budget)) return refuse(err, "", "an object with type \"limit\" and max_list_cost");
  if (!mr_str_is(mr_json_get_str(budget, "type"), "limit")) return refuse(err, "type", "must be \"limit\"");
  if (!yyjson_is_obj(most)) return refuse(err, "max_list_cost", "an object with amount and currency");
  if (!mr_str_is(mr_json_get_str(most, "currency"), "USD"))
    return refuse(err, "max_list_cost.currency", "only \"USD\" is supported");
  if (!yyjson_is_str(amount) || !s.n || s.p[0] == '0')
    return refuse(err, "max_list_cost.amount",
                  "whole US cents as a string, more than 0, without leading zeros: \"2500\" is 25 dollars");
  for (size_t i = 0; i < s.n; i++) {
    if (s.p[i] < '0' || s.p[i] > '9')
      return refuse(err, "max_list_cost.amount",
                    "digits only: whole US cents, without sign, decimals or separators");
    if (cents > INT64_MAX / MR_CENT / 10 - 1)
      return refuse(err, "max_list_cost.amount", "more than can be counted (90 million dollars)");
    cents = cents * 10 + (s.p[i] - '0');
  }
  *cap = cents * MR_CENT;
  return MR_OK;
}

void mr_budget_write(struct mr_jw *w, int64_t cap)
{
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "limit");
  mr_jw_key(w, "max_list_cost");
  mr_cost_write(w, cap);
  mr_jw_obj_end(w);
}

struct check {
  const struct mr_prices *prices;
  struct mr_err *err;
};

static int has_price(void *ud, struct mr_str model, struct mr_str speed, const char *field)
{
  struct check *k = ud;

  if (mr_price_find(k->prices, model, speed)) return MR_OK;
  return mr_err_code(k->err, MR_E_INVALID, "model_not_budgetable", "budget",
                     "budget: %s is " MR_FMT "%s, which has no list price: name one in prices.models of the "
                     "configuration",
                     field, MR_ARG(model), mr_str_is(speed, "fast") ? " at speed fast" : "");
}

int mr_budget_check(const struct mr_prices *p, yyjson_val *agent, struct mr_err *err)
{
  struct check k = {p, err};
  return mr_roster_models(agent, has_price, &k);
}
