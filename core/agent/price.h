/*
 * price - what a session costs at list price: a dated table of prices, and the costs of requests.
 *
 * Money is a whole number of nanocents (MR_CENT of them make one US cent), never a float: a dollar per
 * million tokens is 100,000 nanocents a token, so prices down to 0.00001 USD per million tokens are exact.
 * Sums stop at INT64_MAX (92 million dollars) instead of wrapping. A budget is compared with the exact cost;
 * only what clients are shown is rounded, up to the next whole cent, so that what was spent never shows as
 * nothing.
 *
 * Configuration: prices = { date = "2026-11-28", models = { ["<id or prefix*>"] = { input, output,
 * cache_read, cache_write_5m, cache_write_1h, long_over, long = {..} } }, search_usd_per_1000 = 10, hour_usd
 * = 0.08 }, all USD (per million tokens; a cache price that is not said is that of input). "<id>@fast" is the
 * price of speed "fast". What is named there stands before what is built in. Pure functions but for new; any
 * thread.
 */
#ifndef MR_AGENT_PRICE_H
#define MR_AGENT_PRICE_H

#include "base/err.h"
#include "base/json.h"
#include "model/model.h"

#define MR_CENT INT64_C(1000000000)

struct mr_rates { /* nanocents per token */
  int64_t input, output, cache_read, cache_write_5m, cache_write_1h;
};
struct mr_price {
  struct mr_rates rates;
  int64_t long_over; /* prompts of more tokens than this (all input kinds) have the prices in longer; 0: none */
  struct mr_rates longer; /* of every token of such a request */
};
struct mr_prices; /* the table */

/* config: the object "prices" of the configuration, or NULL. MR_E_INVALID names the key. */
int mr_prices_new(struct mr_prices **out, const struct mr_mem *m, yyjson_val *config, struct mr_err *err);
void mr_prices_free(struct mr_prices **p);
struct mr_str mr_prices_date(const struct mr_prices *p); /* "2026-11-28": when the table was right */
/* NULL: no list price, so no budget can be kept. speed: "fast", or "" or "standard". An exact id stands
 * before a prefix, a longer prefix before a shorter one. Valid as long as the table. */
const struct mr_price *mr_price_find(const struct mr_prices *p, struct mr_str model, struct mr_str speed);

/* Of ONE request (long prompts have a price of their own). price NULL: 0. */
int64_t mr_price_cost(const struct mr_price *price, const struct mr_usage *u);
int64_t mr_price_searches(const struct mr_prices *p, int64_t searches);
int64_t mr_price_runtime(const struct mr_prices *p, int64_t active_us); /* overlapping threads count once */
int64_t mr_cost_add(int64_t a, int64_t b);                              /* stops at INT64_MAX */

/* {"amount":"<cents>","currency":"USD"}: cost rounded up to whole cents. */
void mr_cost_write(struct mr_jw *w, int64_t cost);

#endif
