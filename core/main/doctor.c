/*
 * doctor.c - what this machine can do for agents: probed, never assumed. Exit status 3 when something that
 * sandboxes need is missing, with the same line that a tool call would answer.
 */
#include "main/settings.h"
#include "base/buf.h"
#include "base/err.h"

#include <curl/curl.h>
#include <errno.h>
#include <event2/event.h>
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>
#ifndef MR_NO_SANDBOX
#include "net/http_client.h"
#include "sandbox/sandbox.h"
#endif

struct report {
  struct mr_buf *json; /* NULL: print lines */
  struct mr_jw w;
  bool quiet;
};

static void say(struct report *r, const char *name, bool ok, bool required, const char *detail)
{
  if (r->json) {
    mr_jw_obj(&r->w);
    mr_jw_kc(&r->w, "name", name);
    mr_jw_key(&r->w, "ok");
    mr_jw_bool(&r->w, ok);
    mr_jw_key(&r->w, "required");
    mr_jw_bool(&r->w, required);
    mr_jw_kc(&r->w, "detail", detail);
    mr_jw_obj_end(&r->w);
  } else if (!r->quiet) {
    printf("%-8s %-22s %s\n", ok ? "ok" : required ? "MISSING" : "absent", name, detail);
  }
}

static void program(struct report *r)
{
  struct utsname u;
  struct rlimit lim = {0};
  char text[256];

  snprintf(text, sizeof text, "moonrig " MR_VERSION ", SQLite %s, libcurl %s, libevent %s, %s",
           sqlite3_libversion(), curl_version_info(CURLVERSION_NOW)->version, event_get_version(),
           OpenSSL_version(OPENSSL_VERSION));
  say(r, "libraries", true, false, text);
  if (uname(&u) == 0) {
    snprintf(text, sizeof text, "%.60s %.60s %.60s", u.sysname, u.release, u.machine);
    say(r, "kernel", true, false, text);
  }
  getrlimit(RLIMIT_NOFILE, &lim);
  snprintf(text, sizeof text, "%llu descriptors: about %llu open streams", (unsigned long long)lim.rlim_max,
           (unsigned long long)(lim.rlim_max > 128 ? lim.rlim_max - 128 : 0));
  say(r, "descriptors", lim.rlim_max >= 1024, false, text);
}

static void settings(struct report *r, const struct settings *s)
{
  const char *own = getenv("MOONRIG_ANTHROPIC_API_KEY"), *key = own && *own ? own : getenv("ANTHROPIC_API_KEY");
  char text[600];

  if (key && strncmp(key, "sk-mr-", 6) == 0)
    say(r, "anthropic key", false, false,
        "the key in the environment is one of moonrig's own; models need the provider's");
  else
    say(r, "anthropic key", key && *key, false,
        key && *key ? "set"
                    : "not set: models need MOONRIG_ANTHROPIC_API_KEY, "
                      "another provider, or --offline MODEL.lua");
  if (access(s->data, W_OK) == 0)
    snprintf(text, sizeof text, "%.500s is writable", s->data);
  else
    snprintf(text, sizeof text, "%.400s: %s%s", s->data, strerror(errno),
             errno == ENOENT ? " (made at the first start)" : "");
  say(r, "data directory", access(s->data, W_OK) == 0 || errno == ENOENT, false, text);
}

#ifndef MR_NO_SANDBOX
/* What the configuration says of sandboxes, as far as it decides what can be in force. */
static void configured(struct mr_sandbox_options *o, yyjson_val *v)
{
  o->memory_max = mr_json_get_int(v, "memory_max", 0);
  o->tmp_max = mr_json_get_int(v, "tmp_max", 0);
  o->disk_max = mr_json_get_int(v, "disk_max", 0);
  o->nproc = (int)mr_json_get_int(v, "nproc", 0);
  o->uid_first = mr_json_get_int(v, "uid_first", 0);
  o->uid_count = mr_json_get_int(v, "uid_count", 0);
  o->memory_total = mr_json_get_int(v, "memory_total", 0);
  o->cpu_percent = (int)mr_json_get_int(v, "cpu_percent", 0);
  o->require_limits = mr_json_get_bool(v, "require_limits", false);
  o->bare = mr_str_is(mr_json_get_str(v, "driver"), "none");
}

/* What the driver made to try things in; it holds no files. */
static void remove_dirs(const char *root)
{
  static const char *const made[] = {
      "probe/workspace", "probe/outputs", "probe/uploads", "probe", "s", "u", "trash", ""};
  char path[100];

  for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
    snprintf(path, sizeof path, "%s/%s", root, made[i]);
    rmdir(path);
  }
}

static int sandbox(struct report *r, const struct settings *s, struct mr_err *err)
{
  yyjson_doc *doc = s->options ? yyjson_read(s->options, strlen(s->options), 0) : NULL;
  char root[] = "/tmp/moonrig-doctor.XXXXXX";
  struct mr_sandbox_options o = {.root = root, .libexec = getenv("MOONRIG_LIBEXEC")};
  const struct mr_sandbox_feature *f = NULL;
  struct mr_sandbox_driver *d = NULL;
  struct mr_childs *childs = NULL;
  struct mr_http_client *http = NULL;
  struct mr_loop *l = NULL;
  struct mr_pool *pool = NULL;
  struct mr_sys sys;
  int n = 0, code;

  mr_sys_init(&sys, NULL);
  configured(&o, mr_json_get(yyjson_doc_get_root(doc), "sandbox"));
  yyjson_doc_free(doc);
  if (!mkdtemp(root)) return mr_err_errno(err, "/tmp");
  code = mr_loop_new(&l, &sys, NULL, err);
  if (code == MR_OK) code = mr_http_client_new(&http, l, NULL, err);
  o.http = http; /* as a server has it: so sandboxes have a network */
  if (code == MR_OK) code = mr_childs_new(&childs, l, err);
  if (code == MR_OK) code = mr_pool_new(&pool, l, 1, 16, "doctor", NULL, NULL, NULL, err);
  if (code == MR_OK) code = mr_sandbox_local_new(&d, l, childs, pool, &o, err);
  if (code == MR_OK) code = mr_sandbox_report(d, &f, &n, err);
  for (int i = 0; i < n; i++)
    say(r, f[i].name, f[i].ok, f[i].required, f[i].detail ? f[i].detail : "");
  mr_sandbox_driver_free(&d);
  mr_http_client_free(&http);
  mr_pool_free(&pool);
  mr_childs_free(&childs);
  mr_loop_free(&l);
  remove_dirs(root);
  return code;
}
#else
static int sandbox(struct report *r, const struct settings *s, struct mr_err *err)
{
  return mr_err_set(err, MR_E_UNSUPPORTED, NULL, "sandbox: not part of this build (SANDBOX=0)");
}
#endif

static int doctor(int argc, char **argv)
{
  struct settings s;
  struct report r = {0};
  struct mr_err err = {0};
  struct mr_mem mem;
  struct mr_buf json;
  int status = mr_settings_read(&s, &mr_cmd_doctor, TAKES_CLIENT | TAKES_JSON | TAKES_DOCTOR, argc, argv), code;

  if (status) return status;
  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&json, &mem, 1 << 20);
  r.json = s.json ? &json : NULL;
  r.quiet = s.quiet;
  mr_jw_init(&r.w, &json);
  mr_jw_obj(&r.w);
  mr_jw_key(&r.w, "features");
  mr_jw_arr(&r.w);
  program(&r);
  settings(&r, &s);
  code = sandbox(&r, &s, &err);
  mr_jw_arr_end(&r.w);
  mr_jw_key(&r.w, "sandbox");
  mr_jw_c(&r.w, code == MR_OK ? "ok" : err.message);
  mr_jw_obj_end(&r.w);
  if (s.json)
    printf("%s\n", json.p ? json.p : "{}");
  else if (code == MR_OK && !s.quiet)
    printf("sandboxes work here\n");
  if (code != MR_OK && !s.json) fprintf(stderr, "moonrig: %s\n", err.message);
  mr_buf_free(&json);
  mr_settings_free(&s);
  return code == MR_OK ? EXIT_OK : EXIT_UNREACHABLE;
}

const struct command mr_cmd_doctor = {
    "doctor", "[--json] [--quiet] [--data DIR] [--config FILE]",
    "what this machine can do: sandbox features, limits, settings",
    "  --json     one JSON object\n  --quiet    print only what is missing\n"
    "  --data DIR the data directory to look at\n"
    "  --config FILE  with the limits and the driver of this configuration\n"
    "Exit status 3 when sandboxes cannot work here, with a line that names what is missing.\n",
    doctor};
