/* settings.c - see settings.h. What the runtime itself reads goes on as one JSON object (mr_config.options),
 * which it checks; here are the settings of the program. */
#include "main/settings.h"
#include "script/script.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>

/* ---- the command line ---- */

enum flag_kind { F_STR, F_BOOL, F_INT, F_LISTEN };
struct flag {
  const char *name;
  enum flag_kind kind;
  size_t at;
  unsigned takes;
};
#define AT(member) offsetof(struct settings, member)
static const struct flag flags[] = {
    {"--listen", F_LISTEN, 0, TAKES_SERVER},
    {"--tls-cert", F_STR, AT(tls_cert), TAKES_SERVER},
    {"--tls-key", F_STR, AT(tls_key), TAKES_SERVER},
    {"--data", F_STR, AT(data), TAKES_SERVER | TAKES_CLIENT | TAKES_WORKER},
    {"--config", F_STR, AT(config), TAKES_SERVER | TAKES_REPL | TAKES_WORKER | TAKES_DOCTOR},
    {"--offline", F_STR, AT(offline), TAKES_SERVER | TAKES_REPL},
    {"--watch", F_BOOL, AT(watch), TAKES_SERVER | TAKES_PS},
    {"--insecure-http", F_BOOL, AT(insecure_http), TAKES_SERVER},
    {"--grace", F_INT, AT(grace_s), TAKES_SERVER},
    {"--quiet", F_BOOL, AT(quiet), TAKES_SERVER | TAKES_JSON | TAKES_WORKER},
    {"--url", F_STR, AT(url), TAKES_CLIENT | TAKES_WORKER},
    {"--key", F_STR, AT(key), TAKES_CLIENT},
    {"--session", F_STR, AT(session), TAKES_CHAT},
    {"--from", F_STR, AT(from), TAKES_ATTACH},
    {"--all", F_BOOL, AT(all), TAKES_PS},
    {"--limit", F_INT, AT(limit), TAKES_PS},
    {"--page", F_STR, AT(page), TAKES_PS},
    {"--follow", F_BOOL, AT(follow), TAKES_LOGS},
    {"-f", F_BOOL, AT(follow), TAKES_LOGS},
    {"--list", F_BOOL, AT(list), TAKES_API},
    {"--file", F_STR, AT(body), TAKES_API},
    {"--json", F_BOOL, AT(json), TAKES_CLIENT | TAKES_JSON},
    {"--rollback", F_BOOL, AT(rollback), TAKES_RELOAD},
    {"--status", F_BOOL, AT(status), TAKES_RELOAD},
    {"--drain", F_BOOL, AT(drain), TAKES_RELOAD},
    {"--only", F_STR, AT(only), TAKES_TEST},
    {"--timeout", F_INT, AT(timeout_s), TAKES_TEST},
    {"--dir", F_STR, AT(dir), TAKES_NEW},
    {"--offline", F_BOOL, AT(no_requests), TAKES_CHECK},
    {"-o", F_STR, AT(output), TAKES_EXPORT},
    {"--output", F_STR, AT(output), TAKES_EXPORT},
    {"--no-workspace", F_BOOL, AT(no_workspace), TAKES_EXPORT | TAKES_FORK},
    {"--title", F_STR, AT(title), TAKES_COPY},
    {"--environment", F_STR, AT(environment), TAKES_COPY | TAKES_KEY | TAKES_WORKER},
    {"--environment-key", F_STR, AT(environment_key), TAKES_WORKER},
    {"--network", F_STR, AT(network), TAKES_WORKER},
    {"--max-sessions", F_INT, AT(max_sessions), TAKES_WORKER},
    {"--drain", F_INT, AT(drain_s), TAKES_WORKER},
    {"--keep", F_INT, AT(keep_s), TAKES_WORKER},
    {"--idle", F_INT, AT(idle_s), TAKES_WORKER},
    {"--lease", F_INT, AT(lease_s), TAKES_WORKER},
    {"--once", F_BOOL, AT(once), TAKES_WORKER},
};

static int whole(const char *text, int *out)
{
  int64_t v;

  if (mr_str_int(mr_str_c(text), &v) != MR_OK || v < 0 || v > 86400) return MR_E_INVALID;
  *out = (int)v;
  return MR_OK;
}

static int put(struct settings *s, const struct command *c, const struct flag *f, const char *value)
{
  char *at = (char *)s + f->at;

  if (f->kind == F_STR) {
    *(const char **)(void *)at = value;
  } else if (f->kind == F_BOOL) {
    *(bool *)at = true;
  } else if (f->kind == F_INT) {
    if (whole(value, (int *)(void *)at) != MR_OK)
      return mr_main_usage(c, "%s takes a whole number, not \"%s\"", f->name, value);
  } else {
    if (s->nlisten == LISTEN_MAX) return mr_main_usage(c, "at most %d times --listen", LISTEN_MAX);
    s->listen[s->nlisten++] = value;
  }
  return 0;
}

static int read_flags(struct settings *s, const struct command *c, unsigned takes, int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    const struct flag *f = NULL;
    const char *eq = strchr(argv[i], '='), *value = NULL;
    size_t n = eq ? (size_t)(eq - argv[i]) : strlen(argv[i]);
    int status;

    if (strcmp(argv[i], "--") == 0 || argv[i][0] != '-' || !argv[i][1]) {
      i += strcmp(argv[i], "--") == 0;
      for (; i < argc; i++) {
        if (argv[i][0] == '-' && argv[i][1] && !(takes & STOP_AT_PATH)) break;
        if (s->npaths == PATHS_MAX) return mr_main_usage(c, "too many arguments");
        s->paths[s->npaths++] = argv[i];
      }
      i--;
      continue;
    }
    for (size_t k = 0; k < sizeof flags / sizeof *flags; k++)
      if (strlen(flags[k].name) == n && strncmp(flags[k].name, argv[i], n) == 0 && (flags[k].takes & takes))
        f = &flags[k];
    if (!f) return mr_main_usage(c, "unknown option %s", argv[i]);
    if (f->kind == F_BOOL && eq) return mr_main_usage(c, "%s takes no value", f->name);
    if (f->kind != F_BOOL) {
      value = eq ? eq + 1 : i + 1 < argc ? argv[++i] : NULL;
      if (!value) return mr_main_usage(c, "%s needs a value", f->name);
    }
    status = put(s, c, f, value);
    if (status) return status;
  }
  return 0;
}

/* ---- the configuration file ---- */

static void collect(void *ud, const char *p, size_t n)
{
  mr_buf_add(ud, p, n);
}

static int read_file(struct settings *s, struct mr_err *err)
{
  struct mr_mem mem;
  struct mr_buf b;
  int code;

  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&b, &mem, 1 << 20);
  code = mr_script_config(s->config, collect, &b, err);
  if (code == MR_OK) {
    s->file = yyjson_read(b.p ? b.p : "{}", b.n, 0);
    if (!yyjson_is_obj(yyjson_doc_get_root(s->file)))
      code = mr_err_set(err, MR_E_INVALID, NULL, "%s: must return a table of settings", s->config);
  }
  mr_buf_free(&b);
  return code;
}

/* take: they were not given on the command line or in the environment; what is wrong is said in either case. */
static int file_listen(struct settings *s, yyjson_val *v, bool take, struct mr_err *err)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(v);
  yyjson_val *x;

  if (yyjson_is_str(v) && take)
    s->listen[s->nlisten++] = yyjson_get_str(v);
  else if (!yyjson_is_str(v) && !yyjson_is_arr(v))
    return mr_err_set(err, MR_E_INVALID, "listen", "%s: listen: an address or a list of addresses", s->config);
  while (yyjson_is_arr(v) && (x = yyjson_arr_iter_next(&it))) {
    if (!yyjson_is_str(x) || yyjson_arr_size(v) > LISTEN_MAX)
      return mr_err_set(err, MR_E_INVALID, "listen", "%s: listen: at most %d addresses", s->config, LISTEN_MAX);
    if (take) s->listen[s->nlisten++] = yyjson_get_str(x);
  }
  return MR_OK;
}

static int file_scripts(struct settings *s, yyjson_val *v, bool take, struct mr_err *err)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(v);
  yyjson_val *x;

  if (!yyjson_is_arr(v))
    return mr_err_set(err, MR_E_INVALID, "scripts", "%s: scripts: a list of files and directories", s->config);
  while ((x = yyjson_arr_iter_next(&it))) {
    if (!yyjson_is_str(x) || yyjson_arr_size(v) > PATHS_MAX)
      return mr_err_set(err, MR_E_INVALID, "scripts", "%s: scripts: strings, at most %d", s->config, PATHS_MAX);
    if (take) s->paths[s->npaths++] = yyjson_get_str(x);
  }
  return MR_OK;
}

/* One setting of the program in the file. MR_MORE: not ours, the runtime's. */
static int file_setting(struct settings *s, struct mr_str key, yyjson_val *v, bool scripts, struct mr_err *err)
{
  static const struct {
    const char *name;
    enum flag_kind kind;
    size_t at;
  } own[] = {{"data", F_STR, AT(data)},       {"tls_cert", F_STR, AT(tls_cert)},
             {"tls_key", F_STR, AT(tls_key)}, {"offline", F_STR, AT(offline)},
             {"watch", F_BOOL, AT(watch)},    {"insecure_http", F_BOOL, AT(insecure_http)},
             {"grace", F_INT, AT(grace_s)}};

  if (mr_str_is(key, "listen")) return file_listen(s, v, s->nlisten == 0, err);
  if (mr_str_is(key, "scripts")) return file_scripts(s, v, scripts, err);
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
    char *at = (char *)s + own[i].at;
    if (!mr_str_is(key, own[i].name)) continue;
    if (own[i].kind == F_STR && yyjson_is_str(v)) {
      if (!*(const char **)(void *)at) *(const char **)(void *)at = yyjson_get_str(v);
    } else if (own[i].kind == F_BOOL && yyjson_is_bool(v)) {
      *(bool *)at = *(bool *)at || yyjson_get_bool(v);
    } else if (own[i].kind == F_INT && yyjson_is_int(v) && yyjson_get_sint(v) >= 0 &&
               yyjson_get_sint(v) <= 86400) {
      if (*(int *)(void *)at < 0) *(int *)(void *)at = (int)yyjson_get_sint(v);
    } else {
      return mr_err_set(err, MR_E_INVALID, own[i].name, "%s: %s: not a value of this setting", s->config,
                        own[i].name);
    }
    return MR_OK;
  }
  return MR_MORE;
}

/* A project: a directory of scripts with its settings in moonrig.conf. Its offline model lies there too. */
static bool find_project(struct settings *s)
{
  struct stat st;
  const char *dir = s->npaths > 0 ? s->paths[0] : NULL;

  if (s->config || !dir || stat(dir, &st) != 0 || !S_ISDIR(st.st_mode)) return false;
  if (snprintf(s->config_buf, sizeof s->config_buf, "%s/moonrig.conf", dir) >= (int)sizeof s->config_buf ||
      stat(s->config_buf, &st) != 0)
    return false;
  s->config = s->config_buf;
  return true;
}

static void from_project(struct settings *s, const char *offline_flag)
{
  if (!s->offline || s->offline == offline_flag || s->offline[0] == '/') return;
  if (snprintf(s->offline_buf, sizeof s->offline_buf, "%s/%s", s->paths[0], s->offline) <
      (int)sizeof s->offline_buf)
    s->offline = s->offline_buf;
}

/* The path of check-config: a file of settings, or a project. */
static int check_path(struct settings *s, const struct command *c)
{
  struct stat st;

  if (s->npaths > 1) return mr_main_usage(c, "one file or directory");
  if (s->npaths == 0 || (stat(s->paths[0], &st) == 0 && S_ISDIR(st.st_mode))) return 0;
  s->config = s->paths[0];
  s->npaths = 0;
  return 0;
}

/* ---- what the runtime gets ---- */

static const char *env(const char *name)
{
  const char *v = getenv(name);
  return v && v[0] ? v : NULL;
}

static yyjson_mut_val *section(yyjson_mut_doc *d, yyjson_mut_val *o, const char *name)
{
  yyjson_mut_val *v = yyjson_mut_obj_get(o, name);

  if (!v) {
    v = yyjson_mut_obj(d);
    yyjson_mut_obj_add_val(d, o, name, v);
  }
  return v;
}

static void override(yyjson_mut_doc *d, yyjson_mut_val *o, const char *key, const char *value)
{
  if (!value || !o) return;
  yyjson_mut_obj_remove_key(o, key);
  yyjson_mut_obj_add_strcpy(d, o, key, value);
}

static const char *first_env(const char *a, const char *b)
{
  return env(a) ? env(a) : env(b);
}

/* One of our own keys where the provider's belongs: people export ANTHROPIC_API_KEY for the SDK. */
static int check_upstream(yyjson_mut_val *anthropic, struct mr_err *err)
{
  const char *key = yyjson_mut_get_str(yyjson_mut_obj_get(anthropic, "api_key"));

  if (!key || strncmp(key, "sk-mr-", 6) != 0) return MR_OK;
  return mr_err_set(
      err, MR_E_INVALID, "models.anthropic.api_key",
      "the upstream key starts with sk-mr-: that is a key of moonrig itself, which clients send to "
      "this server. Set MOONRIG_ANTHROPIC_API_KEY to a key of the model provider, or unset "
      "ANTHROPIC_API_KEY here");
}

static bool make_local_key(struct settings *s)
{
  unsigned char raw[32];
  char *at = s->local_key;

  if (getrandom(raw, sizeof raw, 0) != (ssize_t)sizeof raw) return false;
  at += snprintf(at, sizeof s->local_key, "sk-mr-");
  for (size_t i = 0; i < sizeof raw; i++)
    at += snprintf(at, 3, "%02x", raw[i]);
  return true;
}

static void from_environment(yyjson_mut_doc *d, yyjson_mut_val *root)
{
  override(d, root, "allow_private_hosts", env("MOONRIG_ALLOW_PRIVATE_HOSTS"));
  if (env("MOONRIG_LIBEXEC")) override(d, section(d, root, "sandbox"), "libexec", env("MOONRIG_LIBEXEC"));
}

/* models: they are asked, and keys are given out; else the sandboxes' settings are what is wanted. */
static int make_options(struct settings *s, bool scripts, bool models_too, struct mr_err *err)
{
  yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
  yyjson_mut_val *root = yyjson_mut_obj(d), *models, *anthropic, *openai;
  yyjson_val *file = yyjson_doc_get_root(s->file), *k;
  yyjson_obj_iter it = yyjson_obj_iter_with(file);
  int code = MR_OK;

  yyjson_mut_doc_set_root(d, root);
  while (code == MR_OK && file && (k = yyjson_obj_iter_next(&it))) {
    yyjson_val *v = yyjson_obj_iter_get_val(k);
    int r = file_setting(s, mr_json_str(k), v, scripts, err);
    if (r == MR_MORE)
      yyjson_mut_obj_add_val(d, root, yyjson_get_str(k), yyjson_val_mut_copy(d, v));
    else
      code = r;
  }
  if (code == MR_OK) from_environment(d, root);
  if (code == MR_OK && models_too) {
    models = section(d, root, "models");
    anthropic = section(d, models, "anthropic");
    openai = section(d, models, "openai");
    override(d, anthropic, "api_key", first_env("MOONRIG_ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"));
    override(d, anthropic, "base_url", env("MOONRIG_ANTHROPIC_BASE_URL"));
    override(d, openai, "api_key", first_env("MOONRIG_OPENAI_API_KEY", "OPENAI_API_KEY"));
    override(d, openai, "base_url", env("MOONRIG_OPENAI_BASE_URL"));
    override(d, root, "api_key", env("MOONRIG_API_KEY"));
    if (make_local_key(s)) override(d, root, "local_key", s->local_key);
    code = check_upstream(anthropic, err);
  }
  if (code == MR_OK && !(s->options = mr_main_json(d)))
    code = mr_err_set(err, MR_E_INVALID, NULL, "settings that are not UTF-8");
  yyjson_mut_doc_free(d);
  return code;
}

int mr_settings_read(struct settings *s, const struct command *c, unsigned takes, int argc, char **argv)
{
  struct mr_err err = {0};
  const char *offline_flag;
  bool project, data_flag;
  int status;

  *s = (struct settings){.grace_s = -1,
                         .timeout_s = 10,
                         .limit = 20,
                         .max_sessions = 4,
                         .drain_s = 30,
                         .keep_s = 3600,
                         .idle_s = 60};
  status = read_flags(s, c, takes, argc, argv);
  if (status) return status;
  s->url_given = s->url != NULL;
  data_flag = s->data != NULL;
  if (!s->data) s->data = env("MOONRIG_DATA");
  if ((takes & TAKES_CHECK) && (status = check_path(s, c))) return status;
  if ((takes & (TAKES_SERVER | TAKES_CHECK)) || ((takes & TAKES_REPL) && !s->url)) {
    if (s->nlisten == 0 && env("MOONRIG_LISTEN")) s->listen[s->nlisten++] = env("MOONRIG_LISTEN");
    offline_flag = s->offline;
    project = !(takes & STOP_AT_PATH) && find_project(s);
    if ((s->config && read_file(s, &err) != MR_OK) ||
        make_options(s, s->npaths == 0 && !(takes & STOP_AT_PATH), true, &err) != MR_OK)
      return mr_main_fail(EXIT_USAGE, &err);
    if (project) from_project(s, offline_flag);
    if (!s->tls_cert != !s->tls_key) return mr_main_usage(c, "--tls-cert and --tls-key go together");
    if (s->grace_s < 0) s->grace_s = 10;
  }
  if ((takes & TAKES_WORKER) &&
      ((s->config && read_file(s, &err) != MR_OK) || make_options(s, false, false, &err)))
    return mr_main_fail(EXIT_USAGE, &err);
  if ((takes & TAKES_DOCTOR) && s->config &&
      (read_file(s, &err) != MR_OK || make_options(s, false, true, &err) != MR_OK))
    return mr_main_fail(EXIT_USAGE, &err);
  s->data_given = s->data != NULL;
  if (!s->data) s->data = "./moonrig-data";
  if (takes & (TAKES_CLIENT | TAKES_WORKER)) {
    if (!s->url && (!data_flag || (takes & TAKES_WORKER)) && !(takes & TAKES_REPL))
      s->url = first_env("MOONRIG_URL", "ANTHROPIC_BASE_URL");
    s->key_given = s->key || env("MOONRIG_API_KEY");
    if (!s->key) s->key = first_env("MOONRIG_API_KEY", "ANTHROPIC_API_KEY");
  }
  return 0;
}

void mr_settings_free(struct settings *s)
{
  mr_main_free(s->options);
  yyjson_doc_free(s->file);
  s->options = NULL;
  s->file = NULL;
}
