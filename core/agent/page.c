/*
 * page.c - cursors of lists: "page_" + base64 of a short text that holds the order, the direction and the
 * last row's place. Opaque to clients; everything in it is checked when it comes back.
 */
#include "agent/agent_t.h"

#include <stdio.h>

static struct mr_str encode(struct mr_call *c, const char *text)
{
  size_t n = strlen(text);
  char *out = mr_arena_alloc(c->arena, 5 + 4 * ((n + 2) / 3) + 1);

  if (!out) return MR_S("");
  memcpy(out, "page_", 5);
  return mr_str_n(out, 5 + mr_base64_encode(mr_str_n(text, n), out + 5));
}

struct mr_str mr_page_by_time(struct mr_call *c, bool ascending, bool backward, int64_t us, struct mr_str id)
{
  char *text = mr_arena_printf(c->arena, "t%c%c:%lld:" MR_FMT, ascending ? 'a' : 'd', backward ? 'b' : 'f',
                               (long long)us, MR_ARG(id));
  return text ? encode(c, text) : MR_S("");
}

struct mr_str mr_page_by_pos(struct mr_call *c, bool ascending, int64_t pos)
{
  char *text = mr_arena_printf(c->arena, "p%cf:%lld:", ascending ? 'a' : 'd', (long long)pos);
  return text ? encode(c, text) : MR_S("");
}

static int decode(struct mr_call *c, struct mr_str page, bool ascending, struct mr_page *p)
{
  unsigned char *raw = mr_arena_alloc(c->arena, page.n + 3);
  struct mr_str rest, head, num;
  int64_t n, v;

  if (!raw || page.n < 6 || page.n > 512 || !mr_str_starts(page, MR_S("page_"))) goto bad;
  n = mr_base64_decode(mr_str_n(page.p + 5, page.n - 5), raw);
  if (n <= 0) goto bad;
  rest = mr_str_n((char *)raw, (size_t)n);
  head = mr_str_split(&rest, ':');
  num = mr_str_split(&rest, ':');
  if (head.n != 3 || mr_str_int(num, &v) != MR_OK || v <= 0 || (head.p[0] != 't' && head.p[0] != 'p')) goto bad;
  if ((head.p[1] == 'a') != ascending)
    return mr_err_set(&c->err, MR_E_INVALID, "page", "page: the cursor was made with another order");
  p->backward = head.p[2] == 'b';
  if (head.p[0] == 'p')
    p->pos = v;
  else
    p->cur = (struct mr_cursor){v, rest};
  return MR_OK;
bad:
  return mr_err_set(&c->err, MR_E_INVALID, "page", "page: not a cursor of this list");
}

int mr_page_read(struct mr_call *c, int dflt, int max, bool ascending, struct mr_page *p)
{
  yyjson_val *page = mr_json_get(c->in, "page");
  int64_t limit = mr_json_get_int(c->in, "limit", dflt);

  *p = (struct mr_page){.limit = (int)limit, .ascending = ascending};
  if (limit < 1 || limit > max)
    return mr_err_set(&c->err, MR_E_INVALID, "limit", "limit: must be between 1 and %d", max);
  return yyjson_is_str(page) && yyjson_get_len(page) ? decode(c, mr_json_str(page), ascending, p) : MR_OK;
}

int mr_page_range(struct mr_call *c, struct mr_range *r)
{
  static const char *const names[] = {"gt", "gte", "lt", "lte"};
  int64_t *const to[] = {&r->gt, &r->gte, &r->lt, &r->lte};
  yyjson_val *o = mr_json_get(c->in, "created_at");

  for (int i = 0; i < 4; i++) {
    yyjson_val *v = mr_json_get(o, names[i]);
    if (v && mr_time_parse(mr_json_str(v), to[i]) != MR_OK)
      return mr_err_set(&c->err, MR_E_INVALID, "created_at",
                        "created_at[%s]: an RFC 3339 time, for example "
                        "2026-01-31T12:00:00Z",
                        names[i]);
  }
  return MR_OK;
}

int mr_page_within(struct mr_call *c, const struct mr_page *p, const struct mr_range *r)
{
  int64_t at = p->cur.us;

  if (!at || ((!r->gt || at > r->gt) && (!r->gte || at >= r->gte) && (!r->lt || at < r->lt) &&
              (!r->lte || at <= r->lte)))
    return MR_OK;
  return mr_err_set(&c->err, MR_E_INVALID, "page", "page: the cursor stands outside of created_at");
}

int mr_page_statuses(struct mr_call *c)
{
  static const char *const known[] = {"idle", "running", "rescheduling", "terminated"};
  yyjson_val *list = mr_json_get(c->in, "statuses"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(list);

  while (list && (v = yyjson_arr_iter_next(&it))) {
    bool found = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
      found = found || mr_str_is(mr_json_str(v), known[i]);
    if (!found)
      return mr_err_set(&c->err, MR_E_INVALID, "statuses",
                        "statuses: idle, running, rescheduling or terminated");
  }
  return MR_OK;
}
