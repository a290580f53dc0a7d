/*
 * web_tools.c - see web_tools.h (API: resources, web tool settings). Names of hosts are checked by their form
 * alone; whether one exists is the business of who asks for it. There is no list of public suffixes here: two
 * labels of which the first is a usual registry's (co.uk) are taken for one.
 */
#include "agent/web_tools.h"

#include <stdio.h>

enum { DOMAINS_MAX = 64, DOMAIN_BYTES = 255, SOURCES_MAX = 128 };

struct at {
  struct mr_call *c;
  yyjson_val *cfg, *tools;
  const char *path;
  bool search;
};

static int bad(const struct at *a, const char *sub, const char *what)
{
  char field[160];

  snprintf(field, sizeof field, "%s.%s", a->path, sub);
  mr_err_set(&a->c->err, MR_E_INVALID, field, "%s: %s", field, what);
  return MR_E_INVALID;
}

/* ---- domains ---- */

static bool alnum(char c)
{
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool registry(struct mr_str label)
{
  static const char *const names[] = {"ac",  "co", "com", "edu", "gov", "ltd",
                                      "mil", "ne", "net", "nom", "or",  "org"};

  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (mr_str_ieq(label, mr_str_c(names[i]))) return true;
  return false;
}

static bool private_name(struct mr_str top)
{
  static const char *const names[] = {"localhost", "local", "internal", "localdomain", "invalid"};

  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (mr_str_ieq(top, mr_str_c(names[i]))) return true;
  return false;
}

/* NULL, or what is wrong with a host's name. */
static const char *host_wrong(struct mr_str host)
{
  struct mr_str rest = host, label, first = {0};
  int labels = 0;

  for (size_t i = 0; i < host.n; i++) {
    if ((unsigned char)host.p[i] >= 0x80) return "only ASCII; write an international name in its xn-- form";
    if (host.p[i] == '*') return "wildcards are not supported; a domain stands for its subdomains, too";
    if (host.p[i] == ':' || host.p[i] == '@') return "a host name alone: no scheme, port or user";
    if (!alnum(host.p[i]) && host.p[i] != '-' && host.p[i] != '_' && host.p[i] != '.')
      return "a host name of letters, digits, '-', '_' and '.'";
  }
  for (label = (struct mr_str){0}; rest.p; labels++) {
    label = mr_str_split(&rest, '.');
    if (!label.n || label.n > 63 || label.p[0] == '-' || label.p[label.n - 1] == '-')
      return "labels have 1 to 63 characters and neither begin nor end with '-'";
    if (labels == 0) first = label;
  }
  if (labels && label.p[0] >= '0' && label.p[0] <= '9')
    return "IP addresses are not supported; give a host name";
  if (labels == 0 || private_name(label)) return "a public host name, please";
  if (labels == 1 || (labels == 2 && label.n == 2 && registry(first)))
    return "a registrable domain, please: this is only a suffix";
  return NULL;
}

static const char *domain_wrong(struct mr_str d, bool search, struct mr_str *host)
{
  struct mr_str path = d;

  if (d.n < 1 || d.n > DOMAIN_BYTES) return "1 to 255 characters";
  *host = mr_str_split(&path, '/');
  if (!path.p || !path.n) return host_wrong(*host);
  if (!search) return "a host name alone, without a path";
  for (size_t i = 0; i < path.n; i++)
    if ((unsigned char)path.p[i] <= ' ' || (unsigned char)path.p[i] >= 0x7f || strchr("?#$,|^!", path.p[i]))
      return "paths hold no spaces and none of ? # $ , | ^ !";
  return host_wrong(*host);
}

static bool same_domain(struct mr_str a, struct mr_str b)
{
  while (a.n && a.p[a.n - 1] == '/')
    a.n--;
  while (b.n && b.p[b.n - 1] == '/')
    b.n--;
  return mr_str_ieq(a, b);
}

static int write_domains(const struct at *a, struct mr_jw *w, const char *key)
{
  yyjson_val *list = mr_json_get(a->cfg, key), *v, *u;
  yyjson_arr_iter it = yyjson_arr_iter_with(list), again;
  char sub[64];
  size_t i = 0;

  if (!yyjson_is_arr(list)) return MR_OK;
  if (yyjson_arr_size(list) == 0)
    return bad(a, key, "Empty list of domains is ambiguous. Provide at least one domain or null.");
  if (yyjson_arr_size(list) > DOMAINS_MAX) return bad(a, key, "at most 64 domains");
  for (; (v = yyjson_arr_iter_next(&it)); i++) {
    struct mr_str host, d = mr_json_str(v);
    const char *wrong = domain_wrong(d, a->search, &host);
    again = yyjson_arr_iter_with(list);
    for (size_t k = 0; !wrong && k < i && (u = yyjson_arr_iter_next(&again)); k++)
      if (same_domain(mr_json_str(u), d)) wrong = "this domain is in the list already";
    snprintf(sub, sizeof sub, "%s.%zu", key, i);
    if (wrong) return bad(a, sub, wrong);
  }
  mr_jw_key(w, key);
  w->after_key = false;
  mr_json_write(w->b, list, false);
  return MR_OK;
}

/* ---- where URLs may come from ---- */

static bool tool_named(const struct at *a, struct mr_str name, bool client)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(a->tools);
  yyjson_val *t;

  if (!client) return mr_str_is(name, "web_search") || mr_str_is(name, "web_fetch");
  while ((t = yyjson_arr_iter_next(&it)))
    if (mr_str_is(mr_json_get_str(t, "type"), "custom") && mr_str_eq(mr_json_get_str(t, "name"), name))
      return true;
  return false;
}

static int write_references(const struct at *a, struct mr_jw *w, yyjson_val *list, bool client, const char *sub)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list), again;
  yyjson_val *v, *u;
  size_t i = 0;

  if (!yyjson_is_arr(list) || yyjson_arr_size(list) < 1 || yyjson_arr_size(list) > SOURCES_MAX)
    return bad(a, sub, "tools: 1 to 128 tool references");
  mr_jw_key(w, "tools");
  mr_jw_arr(w);
  for (; (v = yyjson_arr_iter_next(&it)); i++) {
    struct mr_str name = mr_json_get_str(v, "name");
    if (!mr_str_is(mr_json_get_str(v, "type"), "tool_reference") || !tool_named(a, name, client))
      return bad(a, sub,
                 client ? "tools: references to custom tools of this agent"
                        : "tools: references to "
                          "web_search or web_fetch");
    again = yyjson_arr_iter_with(list);
    for (size_t k = 0; k < i && (u = yyjson_arr_iter_next(&again)); k++)
      if (mr_str_eq(mr_json_get_str(u, "name"), name)) return bad(a, sub, "tools: each tool once");
    mr_jw_obj(w);
    mr_jw_kc(w, "type", "tool_reference");
    mr_jw_kstr(w, "name", name);
    mr_jw_obj_end(w);
  }
  mr_jw_arr_end(w);
  return MR_OK;
}

/* One of the sources; *none counts those that let nothing through. */
static int write_source(const struct at *a, struct mr_jw *w, yyjson_val *sources, const char *key, int *none)
{
  yyjson_val *v = mr_json_get(sources, key);
  struct mr_str type = yyjson_is_str(v) ? mr_json_str(v) : mr_json_get_str(v, "type");
  bool filter = mr_str_is(type, "only") || mr_str_is(type, "except"), user = strcmp(key, "user_input") == 0;
  char sub[64];
  int code = MR_OK;

  snprintf(sub, sizeof sub, "url_sources.%s", key);
  mr_jw_key(w, key);
  if (!v || yyjson_is_null(v)) {
    mr_jw_null(w);
    return MR_OK;
  }
  if (!mr_str_is(type, "all") && !mr_str_is(type, "none") && !(filter && !user && yyjson_is_obj(v)))
    return bad(a, sub, user ? "all or none" : "all, none, or an object with type only or except and tools");
  *none += mr_str_is(type, "none");
  mr_jw_obj(w);
  mr_jw_kstr(w, "type", type);
  if (filter)
    code = write_references(a, w, mr_json_get(v, "tools"), strcmp(key, "client_tool_results") == 0, sub);
  mr_jw_obj_end(w);
  return code;
}

static int write_sources(const struct at *a, struct mr_jw *w)
{
  static const char *const keys[] = {"user_input", "client_tool_results", "server_tool_results"};
  yyjson_val *v = mr_json_get(a->cfg, "url_sources");
  int none = 0, code = MR_OK;

  mr_jw_key(w, "url_sources");
  if (!v || yyjson_is_null(v)) {
    mr_jw_null(w);
    return MR_OK;
  }
  if (!yyjson_is_obj(v)) return bad(a, "url_sources", "must be an object");
  mr_jw_obj(w);
  for (int i = 0; code == MR_OK && i < 3; i++)
    code = write_source(a, w, v, keys[i], &none);
  mr_jw_obj_end(w);
  return code == MR_OK && none == 3 ? bad(a, "url_sources", "all three are none: nothing could be fetched")
                                    : code;
}

/* ---- where searches are made from ---- */

static bool zone_form(struct mr_str s)
{
  for (size_t i = 0; i < s.n; i++)
    if (!alnum(s.p[i]) && !strchr("_+-/", s.p[i])) return false;
  return s.n > 0 && s.n <= 64 && s.p[0] != '/' && s.p[s.n - 1] != '/';
}

static int write_location(const struct at *a, struct mr_jw *w)
{
  static const char *const keys[] = {"city", "region", "country", "timezone"};
  yyjson_val *v = mr_json_get(a->cfg, "user_location");

  if (!v || yyjson_is_null(v)) return MR_OK;
  if (!mr_str_is(mr_json_get_str(v, "type"), "approximate"))
    return bad(a, "user_location.type", "must be \"approximate\"");
  mr_jw_key(w, "user_location");
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "approximate");
  for (int i = 0; i < 4; i++) {
    yyjson_val *x = mr_json_get(v, keys[i]);
    struct mr_str s = mr_json_str(x);
    char sub[64];
    if (!x || yyjson_is_null(x)) continue;
    snprintf(sub, sizeof sub, "user_location.%s", keys[i]);
    if (!yyjson_is_str(x) || !s.n || s.n > 255) return bad(a, sub, "a string of 1 to 255 characters");
    if (i == 2 && !(s.n == 2 && s.p[0] >= 'A' && s.p[0] <= 'Z' && s.p[1] >= 'A' && s.p[1] <= 'Z'))
      return bad(a, sub, "two capital letters, as in ISO 3166");
    if (i == 3 && !zone_form(s))
      return bad(a, sub, "a time zone of the IANA database, for example Europe/Oslo");
    mr_jw_kstr(w, keys[i], s);
  }
  mr_jw_obj_end(w);
  return MR_OK;
}

int mr_web_tool_write(struct mr_call *c, struct mr_jw *w, yyjson_val *cfg, yyjson_val *tools, const char *path)
{
  struct at a = {c, cfg, tools, path, mr_str_is(mr_json_get_str(cfg, "name"), "web_search")};
  yyjson_val *most = mr_json_get(cfg, "max_content_tokens");
  int code;

  if (yyjson_is_arr(mr_json_get(cfg, "allowed_domains")) && yyjson_is_arr(mr_json_get(cfg, "blocked_domains")))
    return bad(&a, "allowed_domains", "Only one of allowed_domains or blocked_domains may be set.");
  code = write_domains(&a, w, "allowed_domains");
  if (code == MR_OK) code = write_domains(&a, w, "blocked_domains");
  if (code != MR_OK) return code;
  if (a.search) return write_location(&a, w);
  if (yyjson_is_int(most)) mr_jw_kint(w, "max_content_tokens", yyjson_get_sint(most));
  return write_sources(&a, w);
}
