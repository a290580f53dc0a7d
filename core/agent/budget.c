/*
 * budget.c - the caps of a session as clients write them: cost in whole US cents in a string, the others whole
 * numbers, more than none. A member that nobody knows is refused: a cap with a slip of the pen would cap nothing.
 * What they do to the turn is not here; see caps.h.
 */
#include "agent/caps.h"
#include "agent/price.h"
#include "agent/roster.h"

#include <stdio.h>

#define CAP_MAX INT64_C(1000000000000000)

static const struct {
  const char *key, *option; /* of a budget; of the configuration */
  int64_t min;
} caps[MR_CAPS] = {[MR_CAP_COST] = {"max_list_cost", NULL, 1},
                   [MR_CAP_TOKENS] = {"max_tokens", "tokens", 1},
                   [MR_CAP_SECONDS] = {"max_seconds", "seconds", 1},
                   [MR_CAP_STEPS] = {"max_steps", "steps", 1},
                   [MR_CAP_REPEATS] = {"max_repeats", "repeats", 2}};

const char *mr_cap_key(enum mr_cap c)
{
  return caps[c].key;
}

enum mr_cap mr_cap_find(struct mr_str key)
{
  for (int i = 0; i < MR_CAPS; i++)
    if (mr_str_is(key, caps[i].key)) return i;
  return MR_CAPS;
}

bool mr_caps_any(const struct mr_caps *c)
{
  for (int i = 0; i < MR_CAPS; i++)
    if (c->max[i]) return true;
  return false;
}

bool mr_caps_same(const struct mr_caps *a, const struct mr_caps *b)
{
  return memcmp(a->max, b->max, sizeof a->max) == 0;
}

static int refuse(struct mr_err *err, const char *sub, const char *what)
{
  char field[64];
  snprintf(field, sizeof field, "budget%s%s", sub[0] ? "." : "", sub);
  return mr_err_set(err, MR_E_INVALID, field, "%s: %s", field, what);
}

static int read_cost(yyjson_val *most, int64_t *cap, struct mr_err *err)
{
  yyjson_val *amount = mr_json_get(most, "amount");
  struct mr_str s = mr_json_str(amount);
  int64_t cents = 0;

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

static int read_number(enum mr_cap c, yyjson_val *v, int64_t *cap, struct mr_err *err)
{
  char what[96];

  if (!yyjson_is_int(v) || (yyjson_is_uint(v) && yyjson_get_uint(v) > CAP_MAX) ||
      yyjson_get_sint(v) < caps[c].min) {
    snprintf(what, sizeof what, "a whole number from %lld to %lld", (long long)caps[c].min, (long long)CAP_MAX);
    return refuse(err, caps[c].key, what);
  }
  *cap = yyjson_get_sint(v);
  return MR_OK;
}

static int read_member(struct mr_str key, yyjson_val *v, struct mr_caps *out, struct mr_err *err)
{
  enum mr_cap c = mr_cap_find(key);
  char sub[48];

  if (c == MR_CAPS && !mr_str_is(key, "type")) {
    snprintf(sub, sizeof sub, "%.*s", (int)mr_utf8_cut(key, 40), key.p);
    return refuse(err, sub,
                  "unknown: a budget has max_list_cost, max_tokens, max_seconds, max_steps, max_repeats");
  }
  if (c == MR_CAPS || yyjson_is_null(v)) return MR_OK; /* null: as if it were absent */
  return c == MR_CAP_COST ? read_cost(v, &out->max[c], err) : read_number(c, v, &out->max[c], err);
}

int mr_budget_read(yyjson_val *budget, struct mr_caps *out, struct mr_err *err)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(budget);
  struct mr_caps made = {{0}};
  yyjson_val *k;
  int code = MR_OK;

  if (!yyjson_is_obj(budget)) return refuse(err, "", "an object with type \"limit\" and max_list_cost");
  if (!mr_str_is(mr_json_get_str(budget, "type"), "limit")) return refuse(err, "type", "must be \"limit\"");
  while (code == MR_OK && (k = yyjson_obj_iter_next(&it)))
    code = read_member(mr_json_str(k), yyjson_obj_iter_get_val(k), &made, err);
  if (code == MR_OK && !mr_caps_any(&made))
    return refuse(err, "", "needs a cap: max_list_cost, max_tokens, max_seconds, max_steps or max_repeats");
  if (code == MR_OK) *out = made;
  return code;
}

void mr_budget_write(struct mr_jw *w, const struct mr_caps *c)
{
  if (!mr_caps_any(c)) {
    mr_jw_null(w);
    return;
  }
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "limit");
  for (int i = 0; i < MR_CAPS; i++) {
    if (!c->max[i]) continue;
    mr_jw_key(w, caps[i].key);
    if (i == MR_CAP_COST)
      mr_cost_write(w, c->max[i]);
    else
      mr_jw_int(w, c->max[i]);
  }
  mr_jw_obj_end(w);
}

void mr_caps_config(struct mr_caps *out, yyjson_val *config)
{
  for (int i = 0; i < MR_CAPS; i++)
    out->max[i] = caps[i].option ? mr_json_get_int(config, caps[i].option, 0) : 0;
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
