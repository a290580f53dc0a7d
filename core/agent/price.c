/*
 * price.c - see price.h. Built in are the public list prices of Claude models as they stood on 2026-11-10
 * (Anthropic's pricing page, USD per million tokens; web search $10 per 1,000, $0.08 per running hour). A
 * dated id has the price of its name. Fast mode stands here only where its price is certain: of Opus 5 and
 * Opus 4.8, twice the usual. What is not here has no price until the configuration gives it one; nothing is
 * guessed.
 */
#include "agent/price.h"

#include <math.h>
#include <stdio.h>

#define BUILT_IN_DATE "2026-11-10"
/* Prices are kept to a hundred-thousandth of a USD. */
enum { PRICES_MAX = 500, ID_MAX = 256, GRAINS = 100000, USD_PER_MTOK_MAX = 1000000, USD_MAX = 1000 };
static const int64_t hour_us = INT64_C(3600000000);
static const int64_t usd = 100 * MR_CENT;

struct known {
  const char *model;
  int milli[5]; /* thousandths of a USD per million tokens, in the order of struct mr_rates */
  int long_over, longer[5];
};

static const struct known built_in[] = {
    {"claude-fable-5-2", {8000, 40000, 200, 10000, 16000}, 0, {0}},
    {"claude-fable-5-1", {10000, 50000, 250, 12500, 20000}, 0, {0}},
    {"claude-mythos-5-1", {10000, 50000, 250, 12500, 20000}, 0, {0}},
    {"claude-fable-5", {10000, 50000, 1000, 12500, 20000}, 0, {0}},
    {"claude-mythos-5", {10000, 50000, 1000, 12500, 20000}, 0, {0}},
    {"claude-opus-5-5", {4000, 20000, 200, 5000, 8000}, 0, {0}},
    {"claude-opus-5", {5000, 25000, 500, 6250, 10000}, 0, {0}},
    {"claude-opus-5@fast", {10000, 50000, 1000, 12500, 20000}, 0, {0}},
    {"claude-opus-4-8", {5000, 25000, 500, 6250, 10000}, 0, {0}},
    {"claude-opus-4-8@fast", {10000, 50000, 1000, 12500, 20000}, 0, {0}},
    {"claude-opus-4-7", {5000, 25000, 500, 6250, 10000}, 0, {0}},
    {"claude-opus-4-6", {5000, 25000, 500, 6250, 10000}, 0, {0}},
    {"claude-opus-4-5", {5000, 25000, 500, 6250, 10000}, 0, {0}},
    {"claude-opus-4-1", {15000, 75000, 1500, 18750, 30000}, 0, {0}},
    {"claude-sonnet-5-5", {2000, 10000, 100, 2500, 4000}, 0, {0}},
    {"claude-sonnet-5", {2000, 10000, 200, 2500, 4000}, 0, {0}},
    {"claude-sonnet-4-6", {3000, 15000, 300, 3750, 6000}, 0, {0}},
    {"claude-sonnet-4-5", {3000, 15000, 300, 3750, 6000}, 200000, {6000, 22500, 600, 7500, 12000}},
    {"claude-haiku-5-5", {100, 500, 10, 125, 200}, 100000, {500, 2500, 50, 625, 1000}},
    {"claude-haiku-4-5", {1000, 5000, 100, 1250, 2000}, 0, {0}},
};
enum { KNOWN = sizeof built_in / sizeof *built_in };

struct entry {
  char *pattern; /* an id or a prefix with *, without "@fast"; NULL: built in, its name is known[i]'s */
  bool fast;
  struct mr_price price;
};
struct mr_prices {
  const struct mr_mem *mem;
  char date[11];
  int64_t search, hour; /* grains per 1,000 searches, per hour */
  struct mr_price known[KNOWN];
  struct entry *v;
  int n;
};

/* ---- reading ---- */

static struct mr_rates rates_of(const int milli[5])
{
  const int64_t unit = usd / 1000 / 1000000; /* a thousandth of a USD per million tokens, per token */
  return (struct mr_rates){milli[0] * unit, milli[1] * unit, milli[2] * unit, milli[3] * unit, milli[4] * unit};
}

/* A number of USD, in grains. */
static int read_usd(yyjson_val *v, double max, const char *at, const char *key, int64_t *out,
                    struct mr_err *err)
{
  char field[400];
  double x = yyjson_is_num(v) ? yyjson_get_num(v) : -1, n = x * GRAINS;

  snprintf(field, sizeof field, "%s.%s", at, key);
  if (!(x >= 0) || x > max)
    return mr_err_set(err, MR_E_INVALID, field, "%s: USD, a number from 0 to %.0f", field, max);
  if (fabs(n - nearbyint(n)) > 1e-4)
    return mr_err_set(err, MR_E_INVALID, field, "%s: finer than prices are kept (0.00001 USD)", field);
  *out = (int64_t)nearbyint(n);
  return MR_OK;
}

static int unknown_key(const char *at, struct mr_str key, struct mr_err *err)
{
  char field[400];
  snprintf(field, sizeof field, "%s.%.*s", at, (int)(key.n > 60 ? 60 : key.n), key.p);
  return mr_err_set(err, MR_E_INVALID, field, "%s: unknown option", field);
}

static int read_rates(yyjson_val *obj, const char *at, bool whole, struct mr_rates *out, struct mr_err *err)
{
  static const char *const keys[] = {"input", "output", "cache_read", "cache_write_5m", "cache_write_1h"};
  int64_t *const to[] = {&out->input, &out->output, &out->cache_read, &out->cache_write_5m,
                         &out->cache_write_1h};
  yyjson_obj_iter it = yyjson_obj_iter_with(obj);
  yyjson_val *k, *v;
  int code;

  if (!yyjson_is_obj(obj))
    return mr_err_set(err, MR_E_INVALID, at, "%s: must be an object with input and output", at);
  while ((k = yyjson_obj_iter_next(&it))) {
    bool known = whole && (mr_str_is(mr_json_str(k), "long") || mr_str_is(mr_json_str(k), "long_over"));
    for (size_t i = 0; i < 5; i++)
      known = known || mr_str_is(mr_json_str(k), keys[i]);
    if (!known) return unknown_key(at, mr_json_str(k), err);
  }
  for (size_t i = 0; i < 5; i++) {
    v = mr_json_get(obj, keys[i]);
    if (i >= 2 && (!v || yyjson_is_null(v))) { /* a price that is not said is that of input */
      *to[i] = out->input;
      continue;
    }
    code = read_usd(v, USD_PER_MTOK_MAX, at, keys[i], to[i], err); /* grains a million are nanocents a token */
    if (code != MR_OK) return code;
  }
  return MR_OK;
}

static int read_price(yyjson_val *obj, const char *at, struct mr_price *out, struct mr_err *err)
{
  yyjson_val *over = mr_json_get(obj, "long_over"), *longer = mr_json_get(obj, "long");
  char field[400];
  int code = read_rates(obj, at, true, &out->rates, err);

  if (code != MR_OK || (!over && !longer)) return code;
  out->long_over = mr_json_get_int(obj, "long_over", 0);
  snprintf(field, sizeof field, "%s.long_over", at);
  if (!yyjson_is_int(over) || out->long_over < 1)
    return mr_err_set(err, MR_E_INVALID, field, "%s: a number of tokens, with the prices beyond it in long",
                      field);
  snprintf(field, sizeof field, "%s.long", at);
  return read_rates(longer, field, false, &out->longer, err);
}

static int read_models(struct mr_prices *p, yyjson_val *models, struct mr_err *err)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(models);
  yyjson_val *k;
  char at[320];
  int code = MR_OK;

  if (!yyjson_is_obj(models) || yyjson_obj_size(models) > PRICES_MAX)
    return mr_err_set(err, MR_E_INVALID, "prices.models",
                      "prices.models: an object of at most %d prices by model id or prefix*", PRICES_MAX);
  p->v = mr_mem_zalloc(p->mem, (yyjson_obj_size(models) + 1) * sizeof *p->v);
  if (!p->v) return mr_err_nomem(err);
  while (code == MR_OK && (k = yyjson_obj_iter_next(&it))) {
    struct mr_str name = mr_json_str(k);
    struct entry *e = &p->v[p->n];
    e->fast = mr_str_ends(name, MR_S("@fast"));
    if (e->fast) name.n -= 5;
    if (!name.n || name.n > ID_MAX)
      return mr_err_set(err, MR_E_INVALID, "prices.models", "prices.models: model ids have 1 to %d bytes",
                        ID_MAX);
    e->pattern = mr_mem_strdup(p->mem, name);
    if (!e->pattern) return mr_err_nomem(err);
    p->n++;
    snprintf(at, sizeof at, "prices.models.%s%s", e->pattern, e->fast ? "@fast" : "");
    code = read_price(yyjson_obj_iter_get_val(k), at, &e->price, err);
  }
  return code;
}

static int read_date(struct mr_prices *p, yyjson_val *v, struct mr_err *err)
{
  struct mr_str s = mr_json_str(v);
  char at[24];
  int64_t us;

  if (s.n == 10) {
    snprintf(at, sizeof at, "%.10sT00:00:00Z", s.p);
    if (mr_time_parse(mr_str_c(at), &us) == MR_OK) {
      memcpy(p->date, s.p, s.n);
      return MR_OK;
    }
  }
  return mr_err_set(err, MR_E_INVALID, "prices.date", "prices.date: a day, as \"" BUILT_IN_DATE "\"");
}

static int read_config(struct mr_prices *p, yyjson_val *config, struct mr_err *err)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(config);
  yyjson_val *k, *v;
  int code = MR_OK;

  if (!yyjson_is_obj(config)) return mr_err_set(err, MR_E_INVALID, "prices", "prices: must be an object");
  while (code == MR_OK && (k = yyjson_obj_iter_next(&it))) {
    struct mr_str key = mr_json_str(k);
    v = yyjson_obj_iter_get_val(k);
    if (mr_str_is(key, "date"))
      code = read_date(p, v, err);
    else if (mr_str_is(key, "models"))
      code = read_models(p, v, err);
    else if (mr_str_is(key, "search_usd_per_1000"))
      code = read_usd(v, USD_MAX, "prices", "search_usd_per_1000", &p->search, err);
    else if (mr_str_is(key, "hour_usd"))
      code = read_usd(v, USD_MAX, "prices", "hour_usd", &p->hour, err);
    else
      code = unknown_key("prices", key, err);
  }
  return code;
}

int mr_prices_new(struct mr_prices **out, const struct mr_mem *m, yyjson_val *config, struct mr_err *err)
{
  struct mr_prices *p = mr_mem_zalloc(m, sizeof *p);
  int code = MR_OK;

  *out = NULL;
  if (!p) return mr_err_nomem(err);
  p->mem = m;
  memcpy(p->date, BUILT_IN_DATE, sizeof p->date);
  p->search = 10 * GRAINS;
  p->hour = 8 * GRAINS / 100;
  for (int i = 0; i < KNOWN; i++)
    p->known[i] =
        (struct mr_price){rates_of(built_in[i].milli), built_in[i].long_over, rates_of(built_in[i].longer)};
  if (config && !yyjson_is_null(config)) code = read_config(p, config, err);
  if (code != MR_OK) mr_prices_free(&p);
  *out = p;
  return code;
}

void mr_prices_free(struct mr_prices **pp)
{
  struct mr_prices *p = *pp;

  if (!p) return;
  for (int i = 0; i < p->n; i++)
    mr_mem_free(p->mem, p->v[i].pattern);
  mr_mem_free(p->mem, p->v);
  mr_mem_free(p->mem, p);
  *pp = NULL;
}

struct mr_str mr_prices_date(const struct mr_prices *p)
{
  return mr_str_c(p->date);
}

/* ---- finding ---- */

/* "claude-opus-5" and "claude-opus-5-20260724", but not "claude-opus-5-5". */
static bool same_model(const char *name, bool fast, struct mr_str model)
{
  struct mr_str n = mr_str_c(name);
  bool is_fast = mr_str_ends(n, MR_S("@fast"));

  if (is_fast) n.n -= 5;
  if (is_fast != fast || !mr_str_starts(model, n)) return false;
  if (model.n == n.n) return true;
  if (model.n != n.n + 9 || model.p[n.n] != '-') return false;
  for (size_t i = n.n + 1; i < model.n; i++)
    if (model.p[i] < '0' || model.p[i] > '9') return false;
  return true;
}

const struct mr_price *mr_price_find(const struct mr_prices *p, struct mr_str model, struct mr_str speed)
{
  const struct mr_price *found = NULL;
  bool fast = mr_str_is(speed, "fast");
  size_t best = 0;

  for (int i = 0; i < p->n; i++) {
    struct mr_str pat = mr_str_c(p->v[i].pattern);
    if (p->v[i].fast != fast) continue;
    if (mr_str_eq(pat, model)) return &p->v[i].price;
    if (!mr_str_ends(pat, MR_S("*")) || !mr_str_starts(model, mr_str_n(pat.p, pat.n - 1))) continue;
    if (pat.n <= best) continue;
    best = pat.n;
    found = &p->v[i].price;
  }
  for (int i = 0; !found && i < KNOWN; i++)
    if (same_model(built_in[i].model, fast, model)) found = &p->known[i];
  return found;
}

/* ---- counting ---- */

int64_t mr_cost_add(int64_t a, int64_t b)
{
  int64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static int64_t times(int64_t n, int64_t each)
{
  int64_t product;
  if (n <= 0) return 0;
  return __builtin_mul_overflow(n, each, &product) ? INT64_MAX : product;
}

/* n times a price of so many grains per so many (at most 3.6e9), rounded down to a nanocent. In steps of which
 * none overflows: the grains are at most 1e8. */
static int64_t share(int64_t n, int64_t grains, int64_t per)
{
  const int64_t grain = usd / GRAINS;
  int64_t part = n % per * grains;
  int64_t whole = times(times(n / per, grains), grain);

  return mr_cost_add(whole, part / per * grain + part % per * grain / per);
}

int64_t mr_price_cost(const struct mr_price *price, const struct mr_usage *u)
{
  int64_t prompt =
      mr_cost_add(mr_cost_add(u->input, u->cache_read), mr_cost_add(u->cache_write_5m, u->cache_write_1h));
  const struct mr_rates *r;
  int64_t cost;

  if (!price) return 0;
  r = price->long_over && prompt > price->long_over ? &price->longer : &price->rates;
  cost = mr_cost_add(times(u->input, r->input), times(u->output, r->output));
  cost = mr_cost_add(cost, times(u->cache_read, r->cache_read));
  cost = mr_cost_add(cost, times(u->cache_write_5m, r->cache_write_5m));
  return mr_cost_add(cost, times(u->cache_write_1h, r->cache_write_1h));
}

int64_t mr_price_searches(const struct mr_prices *p, int64_t searches)
{
  return searches > 0 ? share(searches, p->search, 1000) : 0;
}

int64_t mr_price_runtime(const struct mr_prices *p, int64_t active_us)
{
  return active_us > 0 ? share(active_us, p->hour, hour_us) : 0;
}

void mr_cost_write(struct mr_jw *w, int64_t cost)
{
  char amount[24];

  if (cost < 0) cost = 0;
  snprintf(amount, sizeof amount, "%lld", (long long)(cost / MR_CENT + (cost % MR_CENT != 0)));
  mr_jw_obj(w);
  mr_jw_kc(w, "amount", amount);
  mr_jw_kc(w, "currency", "USD");
  mr_jw_obj_end(w);
}
