/*
 * options_hands.c - what a sandbox driver and its network take from the options; see options.h. Any thread.
 */
#include "host/options.h"

#include "net/guard.h"
#include "sandbox/sandbox.h"

int mr_options_guard(struct mr_guard **out, const struct mr_mem *m, yyjson_val *options, struct mr_err *err)
{
  static const char key[] = "allow_private_hosts";
  yyjson_val *v = mr_json_get(options, key), *e;
  struct mr_str entries[257], rest = mr_json_str(v), one;
  yyjson_arr_iter it = yyjson_arr_iter_with(v);
  int n = 0;

  if (v && !yyjson_is_null(v) && !yyjson_is_arr(v) && !yyjson_is_str(v) &&
      !(yyjson_is_obj(v) && yyjson_obj_size(v) == 0)) /* an empty table in Lua */
    return mr_err_set(err, MR_E_INVALID, key, "%s: must be a list of hosts and address ranges", key);
  while (n < 257 && yyjson_is_arr(v) && (e = yyjson_arr_iter_next(&it)))
    entries[n++] = mr_json_str(e);
  while (n < 257 && rest.p && rest.n) {
    one = mr_str_trim(mr_str_split(&rest, ','));
    if (one.n) entries[n++] = one;
  }
  return mr_guard_new(out, m, entries, n, key, err);
}

int mr_options_sandbox(yyjson_val *options, struct mr_sandbox_options *so, struct mr_arena *a,
                       struct mr_err *err)
{
  yyjson_val *s = mr_json_get(options, "sandbox"), *env = mr_json_get(s, "build_env");
  struct mr_buf b;

  so->root = yyjson_get_str(mr_json_get(s, "root"));
  so->libexec = yyjson_get_str(mr_json_get(s, "libexec"));
  so->uid_first = mr_json_get_int(s, "uid_first", 0);
  so->uid_count = mr_json_get_int(s, "uid_count", 0);
  so->orphan_ttl_s = (int)mr_json_get_int(s, "orphan_ttl_s", 0);
  so->memory_max = mr_json_get_int(s, "memory_max", 0);
  so->tmp_max = mr_json_get_int(s, "tmp_max", 0);
  so->disk_max = mr_json_get_int(s, "disk_max", 0);
  so->bare = mr_str_is(mr_json_get_str(s, "driver"), "none");
  so->nproc = (int)mr_json_get_int(s, "nproc", 0);
  so->warm = (int)mr_json_get_int(s, "warm", 0);
  so->layers_max = mr_json_get_int(s, "layers_max", 0);
  so->build_timeout_s = (int)mr_json_get_int(s, "build_timeout_s", 0);
  so->memory_total = mr_json_get_int(s, "memory_total", 0);
  so->cpu_percent = (int)mr_json_get_int(s, "cpu_percent", 0);
  so->require_limits = mr_json_get_bool(s, "require_limits", false);
  if (!env || yyjson_is_null(env)) return MR_OK;
  mr_buf_init(&b, mr_arena_mem(a), 64 << 10);
  mr_json_write(&b, env, false);
  so->build_env = b.failed ? NULL : mr_arena_str(a, mr_buf_get(&b)).p;
  mr_buf_free(&b);
  return so->build_env ? MR_OK : mr_err_nomem(err);
}

int mr_options_hands_check(const struct mr_mem *m, yyjson_val *options, struct mr_err *err)
{
  struct mr_arena *a = mr_arena_new(m, 1024);
  struct mr_egress_options eo;
  struct mr_guard *guard = NULL;
  int code = a ? mr_options_guard(&guard, m, options, err) : mr_err_nomem(err);

  if (code == MR_OK) code = mr_options_egress(options, &eo, a, err);
  mr_guard_free(&guard);
  mr_arena_free(&a);
  return code;
}
