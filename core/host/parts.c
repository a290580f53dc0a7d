/*
 * parts.c - the composition root: what a runtime is made of, in the order it is made and taken apart. Every
 * room below is known here and nowhere else in this room but where its service is carried to the host.
 *
 * Made on the opening thread, before the loop runs; taken apart on the closing thread, after it has stopped.
 * Both work on a runtime of which only the first parts exist.
 */
#include "host/host_t.h"

#include <stdio.h>

#include "net/guard.h"

enum { POOL_THREADS = 2, POOL_QUEUE = 4096, SETTLE_ROUNDS = 10000 };

static yyjson_val *option(const struct mr_runtime *rt, const char *section, const char *key)
{
  return mr_json_get(mr_json_get(yyjson_doc_get_root(rt->options), section), key);
}

static const char *option_str(const struct mr_runtime *rt, const char *section, const char *key)
{
  return yyjson_get_str(option(rt, section, key));
}

static void set_log_level(struct mr_runtime *rt)
{
  static const char *const names[] = {"error", "warn", "info", "debug"};
  const char *level = option_str(rt, "log", "level");

  for (int i = 0; level && i < 4; i++)
    if (strcmp(level, names[i]) == 0) rt->sys.log_level = i;
}

static int open_models(struct mr_runtime *rt, struct mr_err *err)
{
  struct mr_models_opts mo = {.sys = &rt->sys, .loop = rt->loop, .http = rt->http};
  struct mr_buf b;
  int code;

  mr_buf_init(&b, mr_rt_mem(rt), 1 << 20);
  if (mr_json_get(yyjson_doc_get_root(rt->options), "models"))
    mr_json_write(&b, mr_json_get(yyjson_doc_get_root(rt->options), "models"), false);
  mo.config = mr_buf_get(&b);
  mo.ca_file = option_str(rt, "http", "ca_file");
  code = b.failed ? mr_err_nomem(err) : mr_models_new(&rt->models, &mo, err);
  mr_buf_free(&b);
  return code;
}

static int open_sandbox(struct mr_runtime *rt, struct mr_err *err)
{
#ifdef MR_NO_SANDBOX
  (void)rt;
  (void)err;
  (void)mr_rt_egress;
  return MR_OK;
#else
  struct mr_egress_options eo;
  struct mr_arena *lists;
  struct mr_sandbox_options so = {.http = rt->http, .guard = rt->guard, .egress = &eo};
  const char *dir = mr_store_dir(rt->store);
  char root[4096];
  int code;

  if (!mr_json_get_bool(mr_json_get(yyjson_doc_get_root(rt->options), "sandbox"), "enabled", true))
    return MR_OK;
  lists = mr_arena_new(mr_rt_mem(rt), 1024);
  code = lists ? mr_options_sandbox(yyjson_doc_get_root(rt->options), &so, lists, err) : mr_err_nomem(err);
  if (code != MR_OK) goto out;
  if (!so.root && strcmp(dir, ":memory:") == 0) {
    mr_log(&rt->sys, MR_LOG_INFO, "runtime", "no sandbox: the store is in memory and sandbox.root is not set");
    goto out;
  }
  if (!so.root) {
    if (snprintf(root, sizeof root, "%s/sandboxes", dir) >= (int)sizeof root) {
      code = mr_err_set(err, MR_E_INVALID, "store", "store: the path is too long");
      goto out;
    }
    so.root = root;
  }
  code = mr_rt_egress(rt, &eo, lists, err);
  if (code == MR_OK)
    code = mr_pool_new(&rt->hands, rt->loop, POOL_THREADS, POOL_QUEUE, "hands", NULL, NULL, NULL, err);
  if (code == MR_OK) code = mr_sandbox_local_new(&rt->sandbox, rt->loop, rt->childs, rt->hands, &so, err);
out:
  mr_arena_free(&lists);
  return code;
#endif
}

static int open_domain(struct mr_runtime *rt, struct mr_err *err)
{
  struct mr_tool_runner runner = mr_tools_runner(rt);
  struct mr_hooks asker = mr_hooks_asker(rt);
  struct mr_watch_host onlookers = mr_onlookers_host(rt);
  struct mr_domain_opts o = {.loop = rt->loop,
                             .store = rt->store,
                             .models = rt->models,
                             .sandbox = rt->sandbox,
                             .http = rt->http,
                             .guard = rt->guard,
                             .pool = rt->pool,
                             .tools = &runner,
                             .hooks = &asker,
                             .watch_host = &onlookers,
                             .config = yyjson_doc_get_root(rt->options)};
  struct mr_str key = mr_json_get_str(o.config, "api_key"), local = mr_json_get_str(o.config, "local_key");
  int code = mr_domain_new(&rt->domain, &o, err);

  if (code == MR_OK && key.n) code = mr_keys_bootstrap(rt->domain, false, key, err);
  if (code == MR_OK && local.n) code = mr_keys_bootstrap(rt->domain, true, local, err);
  return code;
}

int mr_rt_open_parts(struct mr_runtime *rt, const struct mr_config *c, struct mr_err *err)
{
  struct mr_store_opts so = {.dir = c->store, .wait_ms = c->wait_ms};
  int code;

  set_log_level(rt);
  code = mr_tools_new(rt);
  if (code == MR_OK) code = mr_hooks_new(rt);
  if (code == MR_OK) code = mr_players_new(rt);
  if (code == MR_OK) code = mr_onlookers_new(rt);
  if (code == MR_OK) code = mr_ext_set_new(rt);
  if (code != MR_OK) return mr_err_nomem(err);
  code = mr_loop_new(&rt->loop, &rt->sys, NULL, err);
  if (code == MR_OK) code = mr_store_open(&rt->store, rt->loop, &so, err);
  if (code == MR_OK) code = mr_childs_new(&rt->childs, rt->loop, err);
  if (code == MR_OK)
    code = mr_pool_new(&rt->pool, rt->loop, POOL_THREADS, POOL_QUEUE, "pool", NULL, NULL, NULL, err);
  if (code == MR_OK) code = mr_http_client_new(&rt->http, rt->loop, option_str(rt, "http", "ca_file"), err);
  if (code == MR_OK) code = mr_options_guard(&rt->guard, mr_rt_mem(rt), yyjson_doc_get_root(rt->options), err);
  if (code == MR_OK) code = open_models(rt, err);
  if (code == MR_OK) code = open_sandbox(rt, err);
  if (code == MR_OK) code = open_domain(rt, err);
  if (code == MR_OK) code = mr_control_api(rt, err);
  return code;
}

/* Lets what is ready run, and what that makes ready. */
static void settle(struct mr_runtime *rt)
{
  for (int i = 0; i < SETTLE_ROUNDS && mr_loop_pump(rt->loop, 0) == MR_MORE; i++)
    continue;
}

void mr_rt_close_parts(struct mr_runtime *rt)
{
  if (rt->loop) {
    mr_rt_own_loop(rt);
    mr_loop_enter(rt->loop);
    mr_control_close(rt);
    if (rt->api) mr_api_cut(rt->api);
    mr_ext_set_close(rt);
    settle(rt);
    mr_pool_free(&rt->pool); /* jobs end, and their done callbacks, which may still use all the rest */
    mr_store_close(&rt->store);
    settle(rt);
    mr_hooks_close(rt);
    settle(rt);
    mr_domain_free(&rt->domain);
    settle(rt);
    mr_ops_abandon(rt);
    mr_api_free(&rt->api);
    mr_models_free(&rt->models);
    mr_http_client_free(&rt->http);
    mr_sandbox_driver_free(&rt->sandbox);
    mr_pool_free(&rt->hands);
    mr_childs_free(&rt->childs);
    mr_guard_free(&rt->guard);
    pthread_mutex_lock(&rt->loop_lock);
    rt->loop_gone = true;
    pthread_mutex_unlock(&rt->loop_lock);
    mr_loop_run_posts(rt->loop); /* answers that came until now: they let go of what they hold */
    mr_loop_free(&rt->loop);
  }
}

void mr_rt_free_lists(struct mr_runtime *rt)
{
  mr_control_free(rt);
  mr_ext_set_free(rt);
  mr_onlookers_free(rt);
  mr_players_free(rt);
  mr_hooks_free(rt);
  mr_tools_free(rt);
  yyjson_doc_free(rt->options);
  rt->options = NULL;
}
