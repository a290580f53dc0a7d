/*
 * config - what the object "models" of the configuration may hold, and reading it.
 *
 *   models.<name>      a provider. The names anthropic, openai and scripted say their kind; others have "kind".
 *   models.route       {"<model id or prefix*>": "<provider>[:<id there>]", or an array of those: the first serves,
 *                      the others are its fallbacks}
 *   models.fallback    {"<model id or prefix*>": same}: asked after the route's
 *
 * Every error names its key. Used by the router, and by the host before anything is opened; no state.
 */
#include "model/models_t.h"

#include <stdio.h>

enum { FOR_HTTP = 1, FOR_ANTHROPIC = 2, FOR_SCRIPTED = 4 };

struct key {
  const char *name;
  char kind; /* s string, i integer, b bool */
  unsigned of;
  int64_t min, max; /* strings: bytes */
};

static const struct key keys[] = {
    {"kind", 's', FOR_HTTP | FOR_SCRIPTED, 1, 20},
    {"base_url", 's', FOR_HTTP, 0, 2000},
    {"api_key", 's', FOR_HTTP, 0, 1000},
    {"ca_file", 's', FOR_HTTP, 0, 4000},
    {"prompt_cache", 'b', FOR_ANTHROPIC, 0, 0},
    {"prompt_cache_ttl", 's', FOR_ANTHROPIC, 2, 2},
    {"connect_ms", 'i', FOR_HTTP, 0, 600000},
    {"first_ms", 'i', FOR_HTTP, 0, 86400000},
    {"stall_ms", 'i', FOR_HTTP, 0, 86400000},
    {"total_ms", 'i', FOR_HTTP, 0, 7 * 86400000},
    {"file", 's', FOR_SCRIPTED, 1, 4000},
    {"max_concurrency", 'i', FOR_HTTP | FOR_SCRIPTED, 0, 100000},
    {"requests_per_minute", 'i', FOR_HTTP | FOR_SCRIPTED, 0, 100000},
    {"tokens_per_minute", 'i', FOR_HTTP | FOR_SCRIPTED, 0, INT64_C(1000000000000)},
    {"queue_max", 'i', FOR_HTTP | FOR_SCRIPTED, 0, 1000000},
    {"queue_ms", 'i', FOR_HTTP | FOR_SCRIPTED, 1, 86400000},
};

static enum mr_model_kind kind_named(struct mr_str s)
{
  if (mr_str_is(s, "anthropic")) return MR_KIND_ANTHROPIC;
  if (mr_str_is(s, "openai")) return MR_KIND_OPENAI;
  return mr_str_is(s, "scripted") ? MR_KIND_SCRIPTED : MR_KIND_HOST;
}

static bool is_section(struct mr_str key)
{
  return !mr_str_is(key, "route") && !mr_str_is(key, "fallback");
}

static enum mr_model_kind kind_of(struct mr_str name, yyjson_val *v)
{
  enum mr_model_kind k = kind_named(name);
  return k != MR_KIND_HOST ? k : kind_named(mr_json_get_str(v, "kind"));
}

enum mr_model_kind mr_models_section(yyjson_val *models, int i, struct mr_str *name, yyjson_val **section)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(models);
  yyjson_val *k;

  while (yyjson_is_obj(models) && (k = yyjson_obj_iter_next(&it))) {
    yyjson_val *v = yyjson_obj_iter_get_val(k);
    if (!is_section(mr_json_str(k)) || !yyjson_is_obj(v) || i-- > 0) continue;
    *name = mr_json_str(k);
    *section = v;
    return kind_of(*name, v);
  }
  return MR_KIND_HOST;
}

void mr_models_gate_limits(yyjson_val *v, struct mr_gate_limits *out)
{
  *out = (struct mr_gate_limits){.concurrency = (int)mr_json_get_int(v, "max_concurrency", 0),
                                 .per_minute = (int)mr_json_get_int(v, "requests_per_minute", 0),
                                 .tokens = mr_json_get_int(v, "tokens_per_minute", 0),
                                 .queue = (int)mr_json_get_int(v, "queue_max", 1000),
                                 .wait_ms = mr_json_get_int(v, "queue_ms", 600000)};
}

/* ---- checking ---- */

static bool name_ok(struct mr_str s)
{
  for (size_t i = 0; i < s.n; i++)
    if (!(s.p[i] >= 'a' && s.p[i] <= 'z') && !(s.p[i] >= '0' && s.p[i] <= '9') && s.p[i] != '_' &&
        s.p[i] != '-')
      return false;
  return s.n > 0 && s.n <= MR_NAME_MAX;
}

static int check_value(const struct key *k, const char *path, yyjson_val *v, struct mr_err *err)
{
  int64_t n = yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX ? INT64_MAX : yyjson_get_sint(v);

  if (yyjson_is_null(v)) return MR_OK; /* as if it were absent */
  if (k->kind == 'b')
    return yyjson_is_bool(v) ? MR_OK : mr_err_set(err, MR_E_INVALID, path, "%s: must be true or false", path);
  if (k->kind == 's') {
    if (yyjson_is_str(v) && (int64_t)yyjson_get_len(v) >= k->min && (int64_t)yyjson_get_len(v) <= k->max &&
        !memchr(yyjson_get_str(v), 0, yyjson_get_len(v)))
      return MR_OK;
    return mr_err_set(err, MR_E_INVALID, path, "%s: must be a string of %lld to %lld bytes", path,
                      (long long)k->min, (long long)k->max);
  }
  if (yyjson_is_int(v) && n >= k->min && n <= k->max) return MR_OK;
  return mr_err_set(err, MR_E_INVALID, path, "%s: must be a whole number from %lld to %lld", path,
                    (long long)k->min, (long long)k->max);
}

static int check_section(struct mr_str name, yyjson_val *v, struct mr_err *err)
{
  enum mr_model_kind kind = kind_of(name, v);
  unsigned of = kind == MR_KIND_SCRIPTED ? FOR_SCRIPTED
                : kind == MR_KIND_OPENAI ? FOR_HTTP
                                         : FOR_HTTP | FOR_ANTHROPIC;
  yyjson_obj_iter it = yyjson_obj_iter_with(v);
  struct mr_str ttl = mr_json_get_str(v, "prompt_cache_ttl"), said = mr_json_get_str(v, "kind");
  yyjson_val *k;
  char path[MR_NAME_MAX + 96];
  int code = MR_OK;

  snprintf(path, sizeof path, "models." MR_FMT ".kind", MR_ARG(name));
  if (kind == MR_KIND_HOST || (said.n && kind_named(said) != kind))
    return mr_err_set(err, MR_E_INVALID, path,
                      "%s: \"anthropic\" (the Messages API), \"openai\" (chat completions) or \"scripted\"%s",
                      path, kind == MR_KIND_HOST ? "" : ", and of a provider with such a name the same");
  while (code == MR_OK && (k = yyjson_obj_iter_next(&it))) {
    const struct key *found = NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
      if ((keys[i].of & of) && mr_str_is(mr_json_str(k), keys[i].name)) found = &keys[i];
    snprintf(path, sizeof path, "models." MR_FMT ".%.60s", MR_ARG(name), yyjson_get_str(k));
    code = found ? check_value(found, path, yyjson_obj_iter_get_val(k), err)
                 : mr_err_set(err, MR_E_INVALID, path, "%s: unknown option", path);
  }
  if (code != MR_OK) return code;
  snprintf(path, sizeof path, "models." MR_FMT ".", MR_ARG(name));
  if (ttl.n && !mr_str_is(ttl, "5m") && !mr_str_is(ttl, "1h"))
    return mr_err_set(err, MR_E_INVALID, "models", "%sprompt_cache_ttl: \"5m\" or \"1h\"", path);
  if (kind == MR_KIND_OPENAI && !mr_str_is(name, "openai") && !mr_json_get_str(v, "base_url").n)
    return mr_err_set(err, MR_E_INVALID, "models", "%sbase_url: required, as in \"http://127.0.0.1:8080\"",
                      path);
  if (kind == MR_KIND_SCRIPTED && !mr_json_get_str(v, "file").n && yyjson_obj_size(v))
    return mr_err_set(err, MR_E_INVALID, "models", "%sfile: required", path);
  return MR_OK;
}

static int bad_route(const char *key, struct mr_str pattern, struct mr_err *err)
{
  char field[MR_NAME_MAX];
  snprintf(field, sizeof field, "models.%s", key);
  return mr_err_set(
      err, MR_E_INVALID, field,
      "models.%s: \"" MR_FMT
      "\" must name a provider, as in \"openai\" or \"openai:qwen3\", or be an array of at most %d such "
      "names",
      key, (int)(pattern.n > 80 ? 80 : pattern.n), pattern.p ? pattern.p : "", MR_TARGETS);
}

static bool read_target(yyjson_val *v, struct mr_model_route *r)
{
  struct mr_str to = mr_json_str(v), provider = mr_str_split(&to, ':');

  if (!name_ok(provider) || (to.p && !to.n) || r->n == MR_TARGETS || to.n > 256) return false;
  r->to[r->n++] = (struct mr_model_target){provider, to};
  return true;
}

static bool read_route(yyjson_val *v, struct mr_model_route *r)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(v);
  yyjson_val *x;

  if (!yyjson_is_arr(v)) return read_target(v, r);
  while ((x = yyjson_arr_iter_next(&it)))
    if (!read_target(x, r)) return false;
  return r->n > 0;
}

static int each_route(yyjson_val *models, const char *key, struct mr_model_routes *out, struct mr_err *err)
{
  yyjson_val *routes = mr_json_get(models, key), *k;
  yyjson_obj_iter it = yyjson_obj_iter_with(routes);
  char field[MR_NAME_MAX];

  snprintf(field, sizeof field, "models.%s", key);
  if (!routes || yyjson_is_null(routes)) return MR_OK;
  if (!yyjson_is_obj(routes) || yyjson_obj_size(routes) > MR_MODEL_IDS / 2)
    return mr_err_set(err, MR_E_INVALID, field, "%s must be an object of at most %d routes", field,
                      MR_MODEL_IDS / 2);
  while ((k = yyjson_obj_iter_next(&it))) {
    struct mr_model_route r = {.pattern = mr_json_str(k)};
    if (!r.pattern.n || !read_route(yyjson_obj_iter_get_val(k), &r)) return bad_route(key, r.pattern, err);
    if (out) out->v[out->n++] = r;
  }
  return MR_OK;
}

int mr_models_routes(const struct mr_mem *m, yyjson_val *models, const char *key, struct mr_model_routes *out,
                     struct mr_err *err)
{
  size_t n = yyjson_obj_size(mr_json_get(models, key));

  *out = (struct mr_model_routes){0};
  if (!n) return MR_OK;
  out->v = mr_mem_zalloc(m, n * sizeof *out->v);
  return out->v ? each_route(models, key, out, err) : mr_err_nomem(err);
}

int mr_models_config_check(yyjson_val *models, struct mr_err *err)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(models);
  yyjson_val *k;
  int n = 0, code = MR_OK;

  if (!models || yyjson_is_null(models)) return MR_OK;
  if (!yyjson_is_obj(models)) return mr_err_set(err, MR_E_INVALID, "models", "models: must be an object");
  while (code == MR_OK && (k = yyjson_obj_iter_next(&it))) {
    struct mr_str name = mr_json_str(k);
    yyjson_val *v = yyjson_obj_iter_get_val(k);
    if (!is_section(name) || (yyjson_is_null(v) && kind_named(name) != MR_KIND_HOST)) continue;
    if (!name_ok(name))
      return mr_err_set(err, MR_E_INVALID, "models",
                        "models: \"" MR_FMT "\" is no name for a provider: 1 to %d of a-z 0-9 _ -",
                        (int)(name.n > 80 ? 80 : name.n), name.p, MR_NAME_MAX);
    if (++n > MR_PROVIDERS_MAX)
      return mr_err_set(err, MR_E_INVALID, "models", "models: at most %d providers", MR_PROVIDERS_MAX);
    if (!yyjson_is_obj(v))
      return mr_err_set(err, MR_E_INVALID, "models", "models." MR_FMT ": must be an object", MR_ARG(name));
    code = check_section(name, v, err);
  }
  if (code == MR_OK) code = each_route(models, "route", NULL, err);
  return code == MR_OK ? each_route(models, "fallback", NULL, err) : code;
}
