/*
 * check.c - `moonrig check-config`: is the configuration valid as a whole, and does each model provider answer with
 * what it says? The configuration is checked by those who read it: settings.c, then a runtime that is opened in memory
 * with the same options and closed again; so what this accepts, `serve` accepts. Then one small request each
 * (model/probe.h).
 *
 * It changes nothing: no data directory is made, no sandbox touched, no listener opened.
 */
#include "main/settings.h"
#include "base/buf.h"
#include "base/err.h"
#include "model/probe.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct check {
  struct settings set;
  struct mr_buf json;
  struct mr_jw w;
  struct mr_loop *loop;
  bool refused, unreachable;
};

/* One line, or one object. fix: what to do; "" = nothing. */
static void say(struct check *k, const char *state, const char *name, const char *kind, const char *url,
                const char *found, const char *fix)
{
  if (k->set.json) {
    mr_jw_obj(&k->w);
    mr_jw_kc(&k->w, "name", name);
    mr_jw_kc(&k->w, "kind", kind);
    mr_jw_kc(&k->w, "state", state);
    mr_jw_kc(&k->w, "url", url[0] ? url : NULL);
    mr_jw_kc(&k->w, "found", found);
    mr_jw_kc(&k->w, "fix", fix[0] ? fix : NULL);
    mr_jw_obj_end(&k->w);
    return;
  }
  char first[2] = {fix[0] >= 'a' && fix[0] <= 'z' ? (char)(fix[0] - 32) : fix[0], '\0'};
  printf("%-11s %-14s %s%s%s%s%s%s\n", state, name, url, url[0] && found[0] ? ": " : "", found,
         fix[0] ? ". " : "", first, fix[0] ? fix + 1 : "");
}

/* ---- the whole of it ---- */

static int check_file(const char *what, const char *path, struct mr_err *err)
{
  if (!path || access(path, R_OK) == 0) return MR_OK;
  return mr_err_set(err, MR_E_INVALID, what, "%s: %.300s: %s", what, path, strerror(errno));
}

static int check_files(const struct settings *s, struct mr_err *err)
{
  int code = check_file("tls_cert", s->tls_cert, err);

  if (code == MR_OK) code = check_file("tls_key", s->tls_key, err);
  if (code == MR_OK) code = check_file("offline", s->offline, err);
  for (int i = 0; code == MR_OK && i < s->npaths; i++)
    code = check_file("scripts", s->paths[i], err);
  return code;
}

/* The options, less what would reach out of this process. */
static char *harmless(const char *options)
{
  yyjson_doc *d = yyjson_read(options, strlen(options), 0);
  yyjson_mut_doc *m = d ? yyjson_doc_mut_copy(d, NULL) : NULL;
  yyjson_mut_val *root = yyjson_mut_doc_get_root(m), *sandbox = yyjson_mut_obj_get(root, "sandbox");
  char *out = NULL;

  if (root && yyjson_mut_is_obj(root)) {
    if (!sandbox) {
      sandbox = yyjson_mut_obj(m);
      yyjson_mut_obj_add_val(m, root, "sandbox", sandbox);
    }
    if (yyjson_mut_is_obj(sandbox)) {
      yyjson_mut_obj_remove_key(sandbox, "enabled");
      yyjson_mut_obj_add_bool(m, sandbox, "enabled", false);
    }
    out = mr_main_json(m);
  }
  yyjson_mut_doc_free(m);
  yyjson_doc_free(d);
  return out;
}

static void no_log(void *ud, int level, struct mr_str line)
{
  (void)ud;
  (void)level;
  (void)line;
}

static int open_once(const struct settings *s, struct mr_err *err)
{
  char *options = harmless(s->options);
  struct mr_runtime *rt = NULL;
  struct mr_config c;
  int code;

  if (!options) return mr_err_nomem(err);
  mr_config_init(&c);
  c.loop = MR_LOOP_PUMP;
  c.store = ":memory:";
  c.options = options;
  c.log = no_log;
  code = mr_open(&rt, &c, err);
  mr_close(&rt);
  mr_main_free(options);
  return code;
}

/* ---- the providers ---- */

static void on_probe(void *ud, const struct mr_probe *p)
{
  static const char *const states[] = {[MR_PROBE_OK] = "ok",
                                       [MR_PROBE_REFUSED] = "REFUSED",
                                       [MR_PROBE_UNREACHABLE] = "UNREACHABLE",
                                       [MR_PROBE_SKIPPED] = "skipped"};
  struct check *k = ud;

  k->refused = k->refused || p->outcome == MR_PROBE_REFUSED;
  k->unreachable = k->unreachable || p->outcome == MR_PROBE_UNREACHABLE;
  say(k, states[p->outcome], p->name, p->kind, p->url, p->found, p->fix);
  fflush(stdout);
  mr_loop_stop(k->loop);
}

static void loose_ends(struct check *k, struct mr_models *m)
{
  struct mr_str pattern, provider;
  char found[400];

  for (int i = 0; mr_models_loose(m, i, &pattern, &provider); i++) {
    snprintf(found, sizeof found, "\"%.*s\" names the provider " MR_FMT ", which is not configured",
             (int)(pattern.n > 100 ? 100 : pattern.n), pattern.p, MR_ARG(provider));
    say(k, "note", "route", "route", "", found,
        "A script may add it; else correct models.route or models.fallback");
  }
}

static int ask_providers(struct check *k, struct mr_err *err)
{
  yyjson_doc *d = yyjson_read(k->set.options, strlen(k->set.options), 0);
  yyjson_val *models = mr_json_get(yyjson_doc_get_root(d), "models");
  struct mr_http_client *http = NULL;
  struct mr_models *m = NULL;
  struct mr_sys sys;
  struct mr_buf cfg;
  int code, n = 0;

  mr_sys_init(&sys, NULL);
  sys.log = NULL;
  mr_buf_init(&cfg, &sys.mem, 1 << 20);
  mr_json_write(&cfg, models, false);
  code = cfg.failed ? mr_err_nomem(err) : mr_loop_new(&k->loop, &sys, NULL, err);
  if (code == MR_OK) {
    mr_loop_enter(k->loop);
    code = mr_http_client_new(&http, k->loop, NULL, err);
  }
  struct mr_models_opts o = {
      .sys = &sys,
      .loop = k->loop,
      .http = http,
      .config = mr_buf_get(&cfg),
      .ca_file = yyjson_get_str(mr_json_get(mr_json_get(yyjson_doc_get_root(d), "http"), "ca_file"))};
  if (code == MR_OK) code = mr_models_new(&m, &o, err);
  for (; code == MR_OK && n < mr_models_providers(m); n++) {
    code = mr_models_probe(m, n, !k->set.no_requests, on_probe, k, err);
    if (code == MR_OK) mr_loop_run(k->loop);
  }
  if (code == MR_OK) loose_ends(k, m);
  if (code == MR_OK && n == 0 && !k->set.offline) {
    k->refused = true;
    say(k, "REFUSED", "models", "models", "", "no model provider is configured",
        "Set MOONRIG_ANTHROPIC_API_KEY, MOONRIG_OPENAI_BASE_URL, or models in the configuration");
  }
  if (code == MR_OK && k->set.offline)
    say(k, "ok", "offline", "lua", "", "a Lua function plays every model", "");
  mr_models_free(&m);
  mr_http_client_free(&http);
  mr_loop_free(&k->loop);
  mr_buf_free(&cfg);
  yyjson_doc_free(d);
  return code;
}

static int check(int argc, char **argv)
{
  struct check k = {0};
  struct mr_err err = {0};
  struct mr_mem mem;
  int status = mr_settings_read(&k.set, &mr_cmd_check, TAKES_CHECK | TAKES_JSON, argc, argv), code;

  if (status) {
    mr_settings_free(&k.set);
    return status;
  }
  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&k.json, &mem, 1 << 20);
  mr_jw_init(&k.w, &k.json);
  mr_jw_obj(&k.w);
  mr_jw_key(&k.w, "checks");
  mr_jw_arr(&k.w);
  code = check_files(&k.set, &err);
  if (code == MR_OK) code = open_once(&k.set, &err);
  if (code == MR_OK) {
    say(&k, "ok", "configuration", "configuration", "",
        k.set.config ? k.set.config : "environment and defaults", "");
    code = ask_providers(&k, &err);
  }
  if (code != MR_OK && k.set.json) say(&k, "REFUSED", "configuration", "configuration", "", err.message, "");
  status = code != MR_OK ? EXIT_USAGE : k.refused ? EXIT_FAILED : k.unreachable ? EXIT_UNREACHABLE : EXIT_OK;
  mr_jw_arr_end(&k.w);
  mr_jw_key(&k.w, "ok");
  mr_jw_bool(&k.w, status == EXIT_OK);
  mr_jw_obj_end(&k.w);
  if (k.set.json)
    printf("%s\n", k.json.p ? k.json.p : "{}");
  else if (code != MR_OK)
    mr_main_fail(status, &err);
  mr_buf_free(&k.json);
  mr_settings_free(&k.set);
  return status;
}

const struct command mr_cmd_check = {
    "check-config", "[--offline] [--json] [FILE.lua|DIR]",
    "is the configuration valid, and does each model provider answer?",
    "FILE.lua is a file of settings as for serve --config, DIR a project with a moonrig.conf; without either "
    "the\n"
    "environment alone is checked. Each provider is asked for its list of models, or for one token.\n"
    "  --offline  ask nobody\n"
    "  --json     one JSON object\n"
    "Exit status 0 all is well, 1 a provider refuses (key, model, address), 2 the configuration is wrong,\n"
    "3 a provider cannot be reached.\n",
    check};
