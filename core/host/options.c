/*
 * options.c - the options of mr_open: a JSON object with the keys of the configuration file. Every key that
 * some room reads stands in the table here, with its kind and limits; what is not in the table is refused
 * with its path, so that a slip of the pen never passes for a setting.
 *
 * Sections of which another file checks the contents (models, prices, context, api, script.roots) are let through here.
 */
#include "base/json.h"
#include "host/ext_t.h"

#include <stdio.h>

enum kind { K_OBJ, K_STR, K_INT, K_BOOL, K_FREE };
struct option {
  const char *path;
  enum kind kind;
  int64_t min, max; /* of numbers; of strings the most bytes */
};

static const struct option table[] = {
    {"models", K_FREE, 0, 0}, /* model/config.c */
    {"prices", K_FREE, 0, 0},
    {"context", K_FREE, 0, 0},
    {"retries", K_OBJ, 0, 0},
    {"retries.max", K_INT, 0, 1000},
    {"retries.base_ms", K_INT, 1, 3600000},
    {"retries.cap_ms", K_INT, 1, 86400000},
    {"limits", K_OBJ, 0, 0},
    {"limits.tool_rounds", K_INT, 1, 100000},
    {"caps", K_OBJ, 0, 0}, /* of sessions without a budget of their own */
    {"caps.tokens", K_INT, 1, 1000000000000000},
    {"caps.seconds", K_INT, 1, 1000000000000000},
    {"caps.steps", K_INT, 1, 1000000000000000},
    {"caps.repeats", K_INT, 2, 1000000000000000},
    {"outcomes", K_OBJ, 0, 0},
    {"outcomes.heartbeat_ms", K_INT, 100, 3600000},
    {"outcomes.grader_model", K_STR, 1, 250},
    {"work", K_OBJ, 0, 0}, /* of self-hosted environments */
    {"work.lease", K_INT, 1, 3600},
    {"sandbox", K_OBJ, 0, 0},
    {"sandbox.enabled", K_BOOL, 0, 0},
    {"sandbox.root", K_STR, 1, 4000},
    {"sandbox.libexec", K_STR, 1, 4000},
    {"sandbox.uid_first", K_INT, 1, UINT32_MAX - 1},
    {"sandbox.uid_count", K_INT, 1, UINT32_MAX - 1},
    {"sandbox.orphan_ttl_s", K_INT, 1, 30 * 86400},
    {"sandbox.memory_max", K_INT, 1 << 20, INT64_MAX},
    {"sandbox.tmp_max", K_INT, 1 << 20, INT64_MAX},
    {"sandbox.disk_max", K_INT, 1 << 20, INT64_MAX},
    {"sandbox.nproc", K_INT, 8, 100000},
    {"sandbox.warm", K_INT, 0, 1000},
    {"sandbox.layers_max", K_INT, 1 << 20, INT64_MAX},
    {"sandbox.build_timeout_s", K_INT, 1, 86400},
    {"sandbox.build_env", K_FREE, 0, 0}, /* strings, as the driver checks */
    {"sandbox.memory_total", K_INT, 16 << 20, INT64_MAX},
    {"sandbox.cpu_percent", K_INT, 1, 100000},
    {"sandbox.require_limits", K_BOOL, 0, 0},
    {"sandbox.driver", K_STR, 1, 10}, /* local, none */
    {"sandbox.unsafe", K_BOOL, 0, 0},
    {"lua", K_OBJ, 0, 0}, /* read by the program: limits of the scripts' VM (script/script.h) */
    {"lua.memory_max", K_INT, 1 << 20, INT64_MAX},
    {"lua.load_ms", K_INT, 1, 3600000},
    {"lua.burst_ms", K_INT, 1, 3600000},
    {"lua.stuck_ms", K_INT, 100, 86400000},
    {"lua.tasks_max", K_INT, 1, 1000000},
    {"http", K_OBJ, 0, 0},
    {"http.ca_file", K_STR, 0, 4000},
    {"web", K_OBJ, 0, 0}, /* the rest of it: agent/web_search.c */
    {"web.search", K_OBJ, 0, 0},
    {"web.search.url", K_STR, 1, 2000},
    {"web.search.headers", K_FREE, 0, 0},
    {"web.search.body", K_FREE, 0, 0},
    {"web.search.results", K_STR, 1, 200},
    {"web.search.max_results", K_INT, 1, 50},
    {"web.search.fields", K_OBJ, 0, 0},
    {"web.search.fields.url", K_STR, 1, 200},
    {"web.search.fields.title", K_STR, 1, 200},
    {"web.search.fields.text", K_STR, 1, 200},
    {"allow_private_hosts", K_FREE, 0, 0}, /* read by mr_guard_new, in parts.c */
    {"egress", K_OBJ, 0, 0},               /* the lists: host/egress.c */
    {"egress.ports", K_FREE, 0, 0},
    {"egress.package_hosts", K_FREE, 0, 0},
    {"egress.blocked_hosts", K_FREE, 0, 0},
    {"egress.credentials", K_FREE, 0, 0},
    {"log", K_OBJ, 0, 0},
    {"log.level", K_STR, 1, 10},
    {"script", K_OBJ, 0, 0},
    {"script.roots", K_FREE, 0, 0},
    {"api", K_FREE, 0, 0},
    {"api_key", K_STR, 0, 200},
    {"local_key", K_STR, 0, 200}, /* of the commands on the same machine; never stored */
    {"asleep", K_BOOL, 0, 0},     /* sessions are not woken: for tools that only look after the data */
};

static const struct option *find(const char *path)
{
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (strcmp(table[i].path, path) == 0) return &table[i];
  return NULL;
}

static int check_value(const struct option *o, yyjson_val *v, struct mr_err *err)
{
  int64_t n = yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX ? INT64_MAX : yyjson_get_sint(v);

  switch (o->kind) {
  case K_OBJ:
    return yyjson_is_obj(v) ? MR_OK : mr_err_set(err, MR_E_INVALID, o->path, "%s: must be an object", o->path);
  case K_BOOL:
    return yyjson_is_bool(v) ? MR_OK
                             : mr_err_set(err, MR_E_INVALID, o->path, "%s: must be true or false", o->path);
  case K_STR:
    if (yyjson_is_str(v) && (int64_t)yyjson_get_len(v) >= o->min && (int64_t)yyjson_get_len(v) <= o->max &&
        !memchr(yyjson_get_str(v), 0, yyjson_get_len(v)))
      return MR_OK;
    return mr_err_set(err, MR_E_INVALID, o->path, "%s: must be a string of %lld to %lld bytes", o->path,
                      (long long)o->min, (long long)o->max);
  case K_INT:
    if (yyjson_is_int(v) && n >= o->min && n <= o->max) return MR_OK;
    return mr_err_set(err, MR_E_INVALID, o->path, "%s: must be a whole number from %lld to %lld", o->path,
                      (long long)o->min, (long long)o->max);
  default: return MR_OK;
  }
}

static int check_object(const char *at, yyjson_val *obj, struct mr_err *err)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(obj);
  yyjson_val *k, *v;
  char path[96];
  int code = MR_OK;

  while (code == MR_OK && (k = yyjson_obj_iter_next(&it))) {
    const struct option *o;
    v = yyjson_obj_iter_get_val(k);
    snprintf(path, sizeof path, "%s%s%.60s", at, at[0] ? "." : "", yyjson_get_str(k));
    o = find(path);
    if (!o) return mr_err_set(err, MR_E_INVALID, path, "%s: unknown option", path);
    if (yyjson_is_null(v)) continue; /* as if it were absent */
    code = check_value(o, v, err);
    if (code == MR_OK && o->kind == K_OBJ) code = check_object(o->path, v, err);
  }
  return code;
}

/* The driver, and that who takes the one without isolation knows what that is. */
static int check_driver(yyjson_val *sandbox, struct mr_err *err)
{
  yyjson_val *driver = mr_json_get(sandbox, "driver");

  if (!driver || yyjson_is_null(driver) || yyjson_equals_str(driver, "local")) return MR_OK;
  if (!yyjson_equals_str(driver, "none"))
    return mr_err_set(err, MR_E_INVALID, "sandbox.driver", "sandbox.driver: local, or none");
  if (!mr_json_get_bool(sandbox, "unsafe", false))
    return mr_err_set(
        err, MR_E_INVALID, "sandbox.unsafe",
        "sandbox.unsafe: must be true with sandbox.driver none, which keeps agents' commands from nothing");
  return MR_OK;
}

int mr_options_read(const struct mr_mem *m, const char *text, yyjson_doc **out, struct mr_err *err)
{
  yyjson_val *level;
  int code = mr_json_parse(m, mr_str_c(text && text[0] ? text : "{}"), 1 << 20, out, err);

  if (code != MR_OK) {
    if (err) snprintf(err->field, sizeof err->field, "options");
    return code;
  }
  if (!yyjson_is_obj(yyjson_doc_get_root(*out)))
    code = mr_err_set(err, MR_E_INVALID, "options", "options: must be a JSON object");
  if (code == MR_OK) code = check_object("", yyjson_doc_get_root(*out), err);
  if (code == MR_OK) code = mr_models_config_check(mr_json_get(yyjson_doc_get_root(*out), "models"), err);
  if (code == MR_OK) code = mr_roots_check(yyjson_doc_get_root(*out), err);
  if (code == MR_OK) code = check_driver(mr_json_get(yyjson_doc_get_root(*out), "sandbox"), err);
  if (code == MR_OK) code = mr_options_hands_check(m, yyjson_doc_get_root(*out), err);
  level = mr_json_get(mr_json_get(yyjson_doc_get_root(*out), "log"), "level");
  if (code == MR_OK && level && !yyjson_equals_str(level, "error") && !yyjson_equals_str(level, "warn") &&
      !yyjson_equals_str(level, "info") && !yyjson_equals_str(level, "debug"))
    code = mr_err_set(err, MR_E_INVALID, "log.level", "log.level: error, warn, info or debug");
  if (code != MR_OK) {
    yyjson_doc_free(*out);
    *out = NULL;
  }
  return code;
}
