/* commands.c - the small commands that ask a server, or the data directory: key, env. */
#include "main/client.h"
#include "base/buf.h"

#include <stdlib.h>

static char *json_with(const char *key, const char *value, const char *environment)
{
  yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
  yyjson_mut_val *o = yyjson_mut_obj(d);
  char *text;

  yyjson_mut_doc_set_root(d, o);
  yyjson_mut_obj_add_str(d, o, key, value);
  if (environment) yyjson_mut_obj_add_str(d, o, "environment_id", environment);
  text = mr_main_json(d);
  yyjson_mut_doc_free(d);
  return text;
}

/* ---- key ---- */

static void show_keys(const char *json)
{
  yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
  yyjson_val *data = mr_json_get(yyjson_doc_get_root(doc), "data"), *k;
  yyjson_arr_iter it = yyjson_arr_iter_with(data);

  if (yyjson_arr_size(data) == 0) printf("no keys\n");
  while (data && (k = yyjson_arr_iter_next(&it))) {
    struct mr_str environment = mr_json_get_str(k, "environment_id");
    printf(MR_FMT "  " MR_FMT "  " MR_FMT "%s" MR_FMT "\n", MR_ARG(mr_json_get_str(k, "id")),
           MR_ARG(mr_json_get_str(k, "created_at")), MR_ARG(mr_json_get_str(k, "name")),
           environment.n ? "  workers of " : "", MR_ARG(environment));
  }
  yyjson_doc_free(doc);
}

static void show_new_key(const char *json)
{
  yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
  yyjson_val *k = yyjson_doc_get_root(doc);

  printf(MR_FMT "\n", MR_ARG(mr_json_get_str(k, "key")));
  fprintf(stderr, "key " MR_FMT ", shown this once\n", MR_ARG(mr_json_get_str(k, "id")));
  yyjson_doc_free(doc);
}

static int key(int argc, char **argv)
{
  struct settings s;
  char *in = NULL, *out = NULL;
  const char *what;
  int status = mr_settings_read(&s, &mr_cmd_key, TAKES_CLIENT | TAKES_KEY, argc, argv);

  if (status) return status;
  what = s.npaths > 0 ? s.paths[0] : "";
  if (strcmp(what, "create") == 0 && s.npaths <= 2) {
    in = json_with("name", s.npaths == 2 ? s.paths[1] : "unnamed", s.environment);
    status = mr_client_op(&s, "keys.create", in, true, &out);
    if (status == EXIT_OK && !s.json) show_new_key(out);
  } else if (s.environment) {
    status = mr_main_usage(&mr_cmd_key, "--environment is for create");
  } else if (strcmp(what, "list") == 0 && s.npaths == 1) {
    status = mr_client_op(&s, "keys.list", "{}", true, &out);
    if (status == EXIT_OK && !s.json) show_keys(out);
  } else if (strcmp(what, "revoke") == 0 && s.npaths == 2) {
    in = json_with("key_id", s.paths[1], NULL);
    status = mr_client_op(&s, "keys.revoke", in, true, &out);
    if (status == EXIT_OK && !s.json) printf("revoked %s\n", s.paths[1]);
  } else {
    status = mr_main_usage(&mr_cmd_key, "create [NAME], list, or revoke ID");
  }
  if (status == EXIT_OK && s.json) printf("%s\n", out);
  mr_main_free(in);
  mr_main_free(out);
  mr_settings_free(&s);
  return status;
}

const struct command mr_cmd_key = {
    "key", "create [NAME] [--environment ID] | list | revoke ID", "keys of a server or a data directory",
    CLIENT_OPTIONS
    "  --environment ID    create: the key of this self-hosted environment's workers. It serves the\n"
    "                      environment's work queue and can do nothing else\n"
    "\n"
    "A key is shown once, when it is made; a revoked one is refused from that moment on.\n"
    "Without a running server the data directory is opened directly.\n",
    key};

/* ---- env ---- */

static int env(int argc, char **argv)
{
  struct settings s;
  int status = mr_settings_read(&s, &mr_cmd_env, TAKES_CLIENT, argc, argv);
  const char *own;

  if (status) return status;
  if (!s.url_given && !getenv("MOONRIG_URL")) s.url = NULL; /* ANTHROPIC_BASE_URL is what is to be set */
  own = mr_client_url(&s);
  if (own && strchr(own, '\'')) return mr_main_usage(&mr_cmd_env, "not a URL: %s", own);
  if (!own) own = "http://127.0.0.1:8400";
  if (strncmp(own, "unix:", 5) == 0)
    printf(
        "# the server listens on %s: the SDKs need an HTTP address (moonrig serve --listen 127.0.0.1:8400)\n",
        own);
  else
    printf("export ANTHROPIC_BASE_URL='%s'\n", own);
  if (s.key && strncmp(s.key, "sk-mr-", 6) == 0)
    printf("export ANTHROPIC_API_KEY='%s'%s\n", s.key,
           s.key == s.key_buf ? "   # of this run of the server; a lasting one: moonrig key create" : "");
  else
    printf("export ANTHROPIC_API_KEY=   # one of `moonrig key create`\n");
  mr_settings_free(&s);
  return EXIT_OK;
}

const struct command mr_cmd_env = {"env", "[OPTIONS]",
                                   "print the exports that point the official SDKs at the server",
                                   CLIENT_OPTIONS "Use it as: eval \"$(moonrig env)\"\n", env};
