/*
 * serve.c - `moonrig serve` and `moonrig run`: a runtime, listeners, scripts in a thread of their own, and
 * signals on the main thread. Order of the end: no new work (mr_stop), the scripts go on answering until the
 * runtime has drained or the grace time is over, then scripts, then runtime.
 */
#include "main/server_file.h"
#include "main/settings.h"
#include "script/script.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

struct app {
  struct settings set;
  struct mr_runtime *rt;
  struct mr_script *script;
  struct server_file file;
  pthread_t thread;
  bool threaded, running_main;
  int over_fd; /* readable once the script thread has ended */
  int exit_code;
  struct mr_err err; /* of the script thread; read after it ended */
  int argc;
  char **argv; /* the script's */
};

void mr_main_log(void *ud, int level, struct mr_str line)
{
  static const char *const names[] = {"error", "warn", "info", "debug"};
  char at[32];
  struct timespec ts;
  struct tm tm;

  (void)ud;
  clock_gettime(CLOCK_REALTIME, &ts);
  gmtime_r(&ts.tv_sec, &tm);
  strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", &tm);
  fprintf(stderr, "%s %s " MR_FMT "\n", at, names[level >= 0 && level < 4 ? level : 0], MR_ARG(line));
}

/* Each open stream is a descriptor: as many as the system lets us have. */
void mr_main_raise_descriptors(void)
{
  struct rlimit r;

  if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur == r.rlim_max) return;
  r.rlim_cur = r.rlim_max;
  setrlimit(RLIMIT_NOFILE, &r);
}

static int open_runtime(struct app *a, bool quiet)
{
  struct mr_config c;
  struct mr_err err = {0};
  int code;

  mr_main_raise_descriptors();
  mr_config_init(&c);
  c.store = a->set.data;
  c.options = a->set.options;
  c.log = quiet ? NULL : mr_main_log;
  c.wait_ms = 2000;
  code = mr_open(&a->rt, &c, &err);
  return code == MR_OK ? EXIT_OK : mr_main_fail(code == MR_E_INVALID ? EXIT_USAGE : EXIT_FAILED, &err);
}

/* The limits of the configuration's section lua; the runtime has checked it. */
static void script_limits(const struct settings *s, struct mr_script_opts *o)
{
  yyjson_doc *doc = yyjson_read(s->options, strlen(s->options), 0);
  yyjson_val *lua = mr_json_get(yyjson_doc_get_root(doc), "lua");

  o->memory_max = (size_t)mr_json_get_int(lua, "memory_max", 0);
  o->load_ms = (int)mr_json_get_int(lua, "load_ms", 0);
  o->burst_ms = (int)mr_json_get_int(lua, "burst_ms", 0);
  o->stuck_ms = (int)mr_json_get_int(lua, "stuck_ms", 0);
  o->tasks_max = (int)mr_json_get_int(lua, "tasks_max", 0);
  yyjson_doc_free(doc);
}

static int open_scripts(struct app *a)
{
  struct mr_script_opts o = {.size = sizeof o, .paths = a->set.paths, .npaths = (size_t)a->set.npaths};
  struct mr_err err = {0};

  if (a->set.npaths == 0 && !a->set.offline) return EXIT_OK;
  script_limits(&a->set, &o);
  o.offline_model = a->set.offline;
  o.lua_path = getenv("MOONRIG_LUA_PATH");
  o.watch = a->set.watch;
  if (mr_script_open(&a->script, a->rt, &o, &err) == MR_OK) return EXIT_OK;
  return mr_main_fail(EXIT_FAILED, &err);
}

/* ---- keys ---- */

/* The first start makes a key; it is shown this once. */
static int first_key(struct app *a)
{
  struct mr_err err = {0};
  char *out = NULL;
  yyjson_doc *doc;
  yyjson_arr_iter it;
  yyjson_val *k;
  bool none = true;
  const char *given = getenv("MOONRIG_API_KEY");

  if (given && given[0]) return EXIT_OK;
  if (mr_call_wait(a->rt, "keys.list", "{}", 30000, &out, &err) != MR_OK)
    return mr_main_fail(EXIT_FAILED, &err);
  doc = yyjson_read(out, strlen(out), 0);
  it = yyjson_arr_iter_with(mr_json_get(yyjson_doc_get_root(doc), "data"));
  while ((k = yyjson_arr_iter_next(&it))) /* the keys of workers open no doors for people */
    none = none && mr_json_get(k, "environment_id");
  yyjson_doc_free(doc);
  mr_free(a->rt, out);
  if (!none) return EXIT_OK;
  if (mr_call_wait(a->rt, "keys.create", "{\"name\":\"first\"}", 30000, &out, &err) != MR_OK)
    return mr_main_fail(EXIT_FAILED, &err);
  doc = yyjson_read(out, strlen(out), 0);
  printf("API key, shown this once: " MR_FMT "\n", MR_ARG(mr_json_get_str(yyjson_doc_get_root(doc), "key")));
  yyjson_doc_free(doc);
  mr_free(a->rt, out);
  return EXIT_OK;
}

/* ---- listening ---- */

static void spec_json(const struct settings *s, const char *address, struct mr_buf *b)
{
  struct mr_jw w;

  mr_jw_init(&w, b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "address", address);
  if (s->tls_cert) {
    mr_jw_kc(&w, "tls_cert", s->tls_cert);
    mr_jw_kc(&w, "tls_key", s->tls_key);
  }
  mr_jw_key(&w, "insecure_http");
  mr_jw_bool(&w, s->insecure_http);
  mr_jw_obj_end(&w);
}

static int listen_all(struct app *a)
{
  struct mr_mem mem;
  struct mr_err err = {0};

  mr_mem_init(&mem, NULL, NULL);
  for (int i = 0; i < a->set.nlisten; i++) {
    struct mr_buf b;
    char actual[256];
    int code;

    mr_buf_init(&b, &mem, 1 << 16);
    spec_json(&a->set, a->set.listen[i], &b);
    code = mr_listen(a->rt, mr_buf_get(&b).p, actual, sizeof actual, &err);
    mr_buf_free(&b);
    if (code != MR_OK)
      return mr_main_fail(code == MR_E_INVALID || code == MR_E_DENIED ? EXIT_USAGE : EXIT_FAILED, &err);
    if (i == 0) mr_server_file_write(&a->file, a->set.data, actual, a->set.local_key);
    printf("listening on %s\n", actual);
  }
  fflush(stdout);
  return EXIT_OK;
}

/* ---- the script thread ---- */

static void *script_thread(void *arg)
{
  struct app *a = arg;
  uint64_t one = 1;
  sigset_t all;

  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  if (a->running_main) {
    if (mr_script_run_main(a->script, a->argc, a->argv, &a->exit_code, &a->err) != MR_OK && a->exit_code == 0)
      a->exit_code = EXIT_FAILED;
  } else if (mr_script_loop(a->script) != MR_OK) {
    a->exit_code = EXIT_FAILED;
  }
  if (write(a->over_fd, &one, sizeof one) < 0) return NULL; /* the counter is full: it is readable anyway */
  return NULL;
}

static int start_scripts(struct app *a)
{
  if (!a->script) return EXIT_OK;
  a->threaded = pthread_create(&a->thread, NULL, script_thread, a) == 0;
  if (a->threaded) return EXIT_OK;
  fprintf(stderr, "moonrig: no thread for the scripts\n");
  return EXIT_FAILED;
}

static void end_scripts(struct app *a)
{
  if (a->threaded) {
    mr_script_stop(a->script);
    pthread_join(a->thread, NULL);
    a->threaded = false;
  }
  mr_script_close(&a->script);
}

/* ---- signals ---- */

static int signals_open(void)
{
  sigset_t set;

  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int signal_next(int fd)
{
  struct signalfd_siginfo si;
  return read(fd, &si, sizeof si) == (ssize_t)sizeof si ? (int)si.ssi_signo : 0;
}

/* Without scripts nobody else dispatches. */
static int wait_some(struct app *a, int sig_fd, int timeout_ms)
{
  struct pollfd p[3] = {{.fd = sig_fd, .events = POLLIN},
                        {.fd = a->over_fd, .events = POLLIN},
                        {.fd = a->threaded ? -1 : mr_fd(a->rt), .events = POLLIN}};
  int n = poll(p, 3, timeout_ms);

  if (n > 0 && (p[2].revents & POLLIN)) mr_dispatch(a->rt, 0, 0);
  return n;
}

static bool script_over(struct app *a)
{
  struct pollfd p = {.fd = a->over_fd, .events = POLLIN};
  return a->threaded && poll(&p, 1, 0) == 1;
}

/* Until told to stop, or rig.main has ended. */
static void live(struct app *a, int sig_fd)
{
  for (;;) {
    int sig;
    wait_some(a, sig_fd, -1);
    while ((sig = signal_next(sig_fd)) != 0) {
      if (sig == SIGHUP && a->script)
        mr_script_ask_reload(a->script);
      else if (sig != SIGHUP)
        return;
    }
    if (script_over(a)) return;
  }
}

/* Requests in flight, handlers and model streams get the grace time; a second signal ends at once. */
static void drain(struct app *a, int sig_fd)
{
  mr_stop(a->rt, (unsigned)a->set.grace_s * 1000);
  while (!mr_stopped(a->rt)) {
    int sig;
    wait_some(a, sig_fd, 20);
    while ((sig = signal_next(sig_fd)) != 0)
      if (sig != SIGHUP) _exit(EXIT_FAILED);
  }
}

static int app_run(struct app *a, int (*begin)(struct app *a))
{
  int sig_fd = signals_open(), status;

  a->over_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  status = begin(a);
  if (status == EXIT_OK) live(a, sig_fd);
  if (a->rt && status == EXIT_OK) drain(a, sig_fd);
  end_scripts(a);
  mr_server_file_remove(&a->file);
  mr_close(&a->rt);
  mr_settings_free(&a->set);
  close(sig_fd);
  close(a->over_fd);
  return status;
}

/* ---- serve ---- */

static int begin_serve(struct app *a)
{
  int status = open_runtime(a, a->set.quiet);

  if (a->set.nlisten == 0) a->set.listen[a->set.nlisten++] = "127.0.0.1:8400";
  if (status == EXIT_OK) status = open_scripts(a);
  if (status == EXIT_OK) status = first_key(a);
  if (status == EXIT_OK) status = listen_all(a);
  return status == EXIT_OK ? start_scripts(a) : status;
}

static int serve(int argc, char **argv)
{
  struct app a = {0};
  int status = mr_settings_read(&a.set, &mr_cmd_serve, TAKES_SERVER, argc, argv);

  if (status) {
    mr_settings_free(&a.set);
    return status;
  }
  status = app_run(&a, begin_serve);
  return status != EXIT_OK ? status : a.exit_code;
}

#define SERVER_OPTIONS                                                                                         \
  "  --listen ADDR       127.0.0.1:8400, [::1]:8400, unix:/path[,mode] or fd:N; several are fine\n"            \
  "                      (port 0: any free one; default 127.0.0.1:8400)\n"                                     \
  "  --tls-cert FILE, --tls-key FILE   PEM; listeners speak HTTPS\n"                                           \
  "  --insecure-http     allow a plain listener that is not loopback\n"                                        \
  "  --data DIR          where everything is kept (default ./moonrig-data, or MOONRIG_DATA)\n"                 \
  "  --offline MODEL.lua a Lua function that plays every model: no key, no network\n"                          \
  "  --watch             reload the scripts when their files change\n"                                         \
  "  --grace S           seconds for running work after SIGTERM (default 10)\n"                                \
  "  --quiet             no log on stderr\n"

const struct command mr_cmd_serve = {
    "serve", "[OPTIONS] [DIR|FILE.lua ...]",
    "serve the API, with the tools, hooks and agents of the given scripts",
    SERVER_OPTIONS
    "  --config FILE.lua   settings: a Lua file that returns a table (default DIR/moonrig.conf)\n"
    "SIGTERM stops gracefully, a second one at once; SIGHUP reloads the scripts.\n",
    serve};

/* ---- run ---- */

static int begin_run(struct app *a)
{
  int status = open_runtime(a, a->set.quiet);

  if (status == EXIT_OK) status = open_scripts(a);
  if (status == EXIT_OK && a->set.nlisten > 0) {
    status = first_key(a);
    if (status == EXIT_OK) status = listen_all(a);
  }
  return status == EXIT_OK ? start_scripts(a) : status;
}

static int run(int argc, char **argv)
{
  struct app a = {.running_main = true};
  int status = mr_settings_read(&a.set, &mr_cmd_run, TAKES_SERVER | STOP_AT_PATH, argc, argv);

  if (status == EXIT_OK && a.set.npaths == 0) status = mr_main_usage(&mr_cmd_run, "which script?");
  if (status) {
    mr_settings_free(&a.set);
    return status;
  }
  a.argc = a.set.npaths;
  a.argv = argv + argc - a.argc;
  a.set.npaths = 1;
  status = app_run(&a, begin_run);
  if (status == EXIT_OK && a.err.code != MR_OK && a.err.code != MR_E_CANCELLED)
    fprintf(stderr, "moonrig: %s\n", a.err.message);
  return status != EXIT_OK ? status : a.exit_code;
}

const struct command mr_cmd_run = {
    "run", "[OPTIONS] SCRIPT.lua [ARGS ...]", "run the function that a script gives to rig.main",
    SERVER_OPTIONS "  --config FILE.lua   settings: a Lua file that returns a table\n"
                   "The exit status is the integer that rig.main's function returns. Options after the script\n"
                   "are the script's. Without --listen nothing is served.\n",
    run};
