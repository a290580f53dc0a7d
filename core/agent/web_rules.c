/*
 * web_rules.c - what the settings of web_fetch and web_search allow an agent (API: resources §3.2). A child is bound by
 * its own and by those of every thread above it: allowed domains intersect, blocked ones add up. Of the other settings
 * the nearest one counts. Forms were checked when the agent was saved (web_tools.c). Loop thread, no state.
 */
#include "agent/web.h"

static struct mr_thread *above(struct mr_thread *th)
{
  return th->parent[0] ? mr_thread_find(th->s, mr_str_c(th->parent)) : NULL;
}

/* An entry of web_search may go on behind the host: then the path has to begin so. */
static bool matches(const struct mr_weburl *u, struct mr_str entry)
{
  const char *path = strchr(u->rest, '/');
  struct mr_str host = mr_str_split(&entry, '/'), have = mr_str_c(path ? path + 1 : "");

  while (entry.n && entry.p[entry.n - 1] == '/')
    entry.n--;
  if (!mr_weburl_in_domain(u, host)) return false;
  if (!entry.n) return true;
  return mr_str_starts(have, entry) && (have.n == entry.n || strchr("/?", have.p[entry.n]));
}

static bool listed(yyjson_val *list, const struct mr_weburl *u)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *v;

  while ((v = yyjson_arr_iter_next(&it)))
    if (matches(u, mr_json_str(v))) return true;
  return false;
}

bool mr_webtool_allowed(struct mr_thread *th, const char *tool, const struct mr_weburl *u)
{
  for (; th; th = above(th)) {
    yyjson_val *cfg = mr_tool_config(th, mr_str_c(tool));
    yyjson_val *allowed = mr_json_get(cfg, "allowed_domains"), *blocked = mr_json_get(cfg, "blocked_domains");
    if (yyjson_is_arr(allowed) && !listed(allowed, u)) return false;
    if (yyjson_is_arr(blocked) && listed(blocked, u)) return false;
  }
  return true;
}

yyjson_val *mr_webtool_setting(struct mr_thread *th, const char *tool, const char *what)
{
  for (; th; th = above(th)) {
    yyjson_val *v = mr_json_get(mr_tool_config(th, mr_str_c(tool)), what);
    if (v && !yyjson_is_null(v)) return v;
  }
  return NULL;
}

/* The bits of the tools that a filter names. */
static uint64_t named(struct mr_session *s, yyjson_val *filter)
{
  yyjson_val *list = mr_json_get(filter, "tools"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  uint64_t bits = 0;

  while (list && (v = yyjson_arr_iter_next(&it)))
    bits |= mr_seen_tool(s, mr_json_get_str(v, "name"));
  return bits;
}

/* Of these bits those that the filter lets through; without one all. A tool beyond those that have a bit of their own
 * counts only where no tool is named. */
static uint64_t filtered(struct mr_session *s, yyjson_val *filter, uint64_t all)
{
  struct mr_str type = mr_json_get_str(filter, "type");

  if (mr_str_is(type, "none")) return 0;
  if (mr_str_is(type, "only")) return all & named(s, filter) & ~MR_SEEN_OTHERS;
  if (mr_str_is(type, "except")) return all & ~named(s, filter) & ~MR_SEEN_OTHERS;
  return all;
}

uint64_t mr_webtool_sources(struct mr_thread *th)
{
  yyjson_val *v = mr_webtool_setting(th, "web_fetch", "url_sources");
  uint64_t server = MR_SEEN_SEARCH | MR_SEEN_FETCH;

  return filtered(th->s, mr_json_get(v, "user_input"), MR_SEEN_USER) |
         filtered(th->s, mr_json_get(v, "server_tool_results"), server) |
         filtered(th->s, mr_json_get(v, "client_tool_results"), ~(MR_SEEN_USER | server));
}
