/*
 * worker.c - `moonrig worker`: the options, the parts that a worker is made of, its signals, and its end. See
 * worker_t.h for the rest. No runtime and no store: a loop on the main thread, an HTTP client, and the same sandbox
 * driver that a server has, below a directory that one worker has for itself.
 *
 * The end: SIGTERM takes nothing new and gives what runs --drain seconds, then the items are stopped at the queue and
 * the sandboxes removed; a second signal ends at once, and what is left is taken up or removed by the next worker of
 * the directory.
 */
#include "main/worker_t.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/options.h"
#include "main/client.h"
#include "net/guard.h"

enum {
  POOL_THREADS = 2,
  POOL_QUEUE = 4096,
  END_S = 30,
  CUT_S = 10,
  LEASE_MIN_S = 10,
  LEASE_MAX_S = 3600,
  SESSIONS_MAX = 256
};
/* Beside a server on the same machine that was started as root, too: other host uids for other sandboxes. */
enum { UID_FIRST = 2000000 + 65536 };

void mr_worker_nomem(void)
{
  fprintf(stderr, "moonrig: out of memory\n");
  _exit(EXIT_FAILED);
}

void *mr_worker_zalloc(struct worker *w, size_t n)
{
  void *p = mr_mem_zalloc(w->mem, n);

  if (!p) mr_worker_nomem();
  return p;
}

/* ---- what it was told ---- */

static const char *first_env(const char *a, const char *b)
{
  const char *v = getenv(a);

  if (!v || !*v) v = getenv(b);
  return v && *v ? v : NULL;
}

static bool copy(char *out, size_t n, const char *s)
{
  size_t k = strlen(s);

  if (k == 0 || k >= n || strpbrk(s, "\r\n")) return false;
  memcpy(out, s, k + 1);
  return true;
}

static int take_keys(struct worker *w)
{
  struct settings *s = w->set;
  char *given = (char *)(uintptr_t)s->environment_key; /* of argv */
  const char *key = given ? given : first_env("MOONRIG_ENVIRONMENT_KEY", "ANTHROPIC_ENVIRONMENT_KEY");
  const char *environment = s->environment;

  if (!environment) environment = first_env("MOONRIG_ENVIRONMENT_ID", "ANTHROPIC_ENVIRONMENT_ID");
  if (!environment)
    return mr_main_usage(&mr_cmd_worker, "which environment? --environment ID, or MOONRIG_ENVIRONMENT_ID");
  if (!key)
    return mr_main_usage(&mr_cmd_worker,
                         "no key of the environment: --environment-key, or MOONRIG_ENVIRONMENT_KEY");
  if (!copy(w->environment, sizeof w->environment, environment))
    return mr_main_usage(&mr_cmd_worker, "--environment takes an environment's id");
  if (!copy(w->key, sizeof w->key, key))
    return mr_main_usage(&mr_cmd_worker, "the environment's key has a line break, or is too long");
  if (given) memset(given, '*', strlen(given)); /* not for everybody's ps */
  return EXIT_OK;
}

/* "unrestricted", "none", or hosts with commas between; "packages" among them stands for the registries. */
static int take_network(struct worker *w, const char *text)
{
  struct mr_str rest = mr_str_c(w->hosts_text), one;

  if (!text || strcmp(text, "unrestricted") == 0) return EXIT_OK;
  w->network.limited = true;
  if (strcmp(text, "none") == 0) return EXIT_OK;
  if (!copy(w->hosts_text, sizeof w->hosts_text, text))
    return mr_main_usage(&mr_cmd_worker, "--network is too long");
  rest.n = strlen(w->hosts_text);
  while (rest.p) {
    one = mr_str_trim(mr_str_split(&rest, ','));
    if (one.n == 0 || memchr(one.p, ' ', one.n) || memchr(one.p, '/', one.n))
      return mr_main_usage(&mr_cmd_worker, "--network takes unrestricted, none, or hosts with commas between");
    if (w->network.nhosts == NETWORK_HOSTS_MAX)
      return mr_main_usage(&mr_cmd_worker, "--network takes at most %d hosts", NETWORK_HOSTS_MAX);
    w->hosts_text[one.p + one.n - w->hosts_text] = '\0';
    if (mr_str_is(one, "packages"))
      w->network.package_managers = true;
    else
      w->hosts[w->network.nhosts++] = one.p;
  }
  w->network.hosts = w->hosts;
  return EXIT_OK;
}

static int take_url(struct worker *w, char *url)
{
  size_t n = strlen(url);

  if (strncmp(url, "unix:", 5) == 0) {
    w->unix_path = url + 5;
    w->url = "http://localhost";
    return EXIT_OK;
  }
  if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
    return mr_main_usage(&mr_cmd_worker, "--url takes http://..., https://... or unix:/path, not \"%s\"", url);
  while (n && url[n - 1] == '/')
    url[--n] = '\0';
  w->url = url;
  return EXIT_OK;
}

static int take_settings(struct worker *w, char *url, size_t n)
{
  struct settings *s = w->set;
  int status;

  if (s->npaths) return mr_main_usage(&mr_cmd_worker, "it takes no arguments, only options");
  if (s->max_sessions < 1 || s->max_sessions > SESSIONS_MAX)
    return mr_main_usage(&mr_cmd_worker, "--max-sessions is 1 to %d", SESSIONS_MAX);
  if (s->lease_s && (s->lease_s < LEASE_MIN_S || s->lease_s > LEASE_MAX_S))
    return mr_main_usage(&mr_cmd_worker, "--lease is %d to %d seconds", LEASE_MIN_S, LEASE_MAX_S);
  status = take_keys(w);
  if (status == EXIT_OK) status = take_network(w, s->network);
  if (status == EXIT_OK) status = mr_client_find(s);
  if (status != EXIT_OK) return status;
  if (snprintf(url, n, "%s", s->url) >= (int)n) return mr_main_usage(&mr_cmd_worker, "--url is too long");
  return take_url(w, url);
}

/* ---- its parts ---- */

#ifndef MR_NO_SANDBOX
static int open_root(struct worker *w, const char *root, struct mr_err *err)
{
  char lock[4200], pid[24] = "";
  ssize_t n;

  if (!root && mkdir(w->set->data, 0700) != 0 && errno != EEXIST) return mr_err_errno(err, w->set->data);
  n = root ? snprintf(w->root, sizeof w->root, "%s", root)
           : snprintf(w->root, sizeof w->root, "%s/worker", w->set->data);
  if (n >= (ssize_t)sizeof w->root)
    return mr_err_set(err, MR_E_INVALID, "data", "the data directory's path is too long");
  if (mkdir(w->root, 0700) != 0 && errno != EEXIST) return mr_err_errno(err, w->root);
  snprintf(lock, sizeof lock, "%s/worker.lock", w->root);
  w->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (w->lock_fd < 0) return mr_err_errno(err, lock);
  if (flock(w->lock_fd, LOCK_EX | LOCK_NB) != 0) {
    n = read(w->lock_fd, pid, sizeof pid - 1);
    return mr_err_set(err, MR_E_BUSY, NULL, "%s is another worker's (pid %.*s): each takes a --data of its own",
                      w->root, n > 0 ? (int)n : 1, n > 0 ? pid : "?");
  }
  n = snprintf(pid, sizeof pid, "%d", (int)getpid());
  if (ftruncate(w->lock_fd, 0) != 0 || write(w->lock_fd, pid, (size_t)n) != n) return mr_err_errno(err, lock);
  return MR_OK;
}

static int open_driver(struct worker *w, struct mr_err *err)
{
  struct mr_egress_options eo;
  struct mr_sandbox_options so = {.http = w->http, .guard = w->guard, .egress = &eo};
  struct mr_arena *lists = mr_arena_new(w->mem, 1024);
  const struct mr_sandbox_feature *f;
  int n, code = lists ? mr_options_egress(yyjson_doc_get_root(w->options), &eo, lists, err) : mr_err_nomem(err);

  if (code == MR_OK) code = mr_options_sandbox(yyjson_doc_get_root(w->options), &so, lists, err);
  if (code == MR_OK) code = open_root(w, so.root, err);
  so.root = w->root;
  if (!so.uid_first) so.uid_first = UID_FIRST;
  if (code == MR_OK) code = mr_sandbox_local_new(&w->driver, w->loop, w->childs, w->pool, &so, err);
  mr_arena_free(&lists);
  return code == MR_OK ? mr_sandbox_report(w->driver, &f, &n, err) : code;
}
#else
static int open_driver(struct worker *w, struct mr_err *err)
{
  (void)w;
  return mr_err_set(err, MR_E_UNSUPPORTED, NULL, "sandbox: not part of this build (SANDBOX=0)");
}
#endif

static int open_parts(struct worker *w, struct mr_err *err)
{
  const char *ca;
  int code = mr_options_read(w->mem, w->set->options, &w->options, err);

  ca = yyjson_get_str(mr_json_get(mr_json_get(yyjson_doc_get_root(w->options), "http"), "ca_file"));
  if (code == MR_OK) code = mr_loop_new(&w->loop, &w->sys, NULL, err);
  if (code == MR_OK) code = mr_childs_new(&w->childs, w->loop, err);
  if (code == MR_OK)
    code = mr_pool_new(&w->pool, w->loop, POOL_THREADS, POOL_QUEUE, "hands", NULL, NULL, NULL, err);
  if (code == MR_OK) code = mr_http_client_new(&w->http, w->loop, ca, err);
  if (code == MR_OK) code = mr_options_guard(&w->guard, w->mem, yyjson_doc_get_root(w->options), err);
  return code == MR_OK ? open_driver(w, err) : code;
}

static void close_parts(struct worker *w)
{
  if (w->loop) {
    mr_fd_cancel(&w->signals);
    mr_timer_cancel(w->loop, &w->drain_timer);
    mr_timer_cancel(w->loop, &w->end_timer);
    mr_http_client_free(&w->http);
    if (w->driver) mr_sandbox_driver_free(&w->driver);
    mr_pool_free(&w->pool);
    mr_childs_free(&w->childs);
    mr_guard_free(&w->guard);
    mr_loop_run_posts(w->loop);
    mr_loop_free(&w->loop);
  }
  yyjson_doc_free(w->options);
  if (w->lock_fd >= 0) close(w->lock_fd);
}

/* ---- the end ---- */

static void on_ended(struct mr_ready *r)
{
  mr_loop_stop(MR_OF(r, struct worker, ended)->loop);
}

static void on_end_timer(struct mr_timer *t)
{
  struct worker *w = MR_OF(t, struct worker, end_timer);

  mr_log(&w->sys, MR_LOG_WARN, "worker", "%d sandboxes are not removed yet: the next worker sees to them",
         w->nboxes);
  mr_ready_post(w->loop, &w->ended);
}

void mr_worker_check(struct worker *w)
{
  if (!w->draining || w->nitems) return;
  if (!w->ending) {
    w->ending = true;
    mr_timer_set(w->loop, &w->end_timer, END_S * WORKER_SECOND);
    mr_worker_boxes_end(w);
  }
  if (w->nboxes == 0) mr_ready_post(w->loop, &w->ended);
}

static void on_drain_timer(struct mr_timer *t)
{
  struct worker *w = MR_OF(t, struct worker, drain_timer);

  if (!w->cut) mr_log(&w->sys, MR_LOG_WARN, "worker", "what still runs is ended after %d s", w->set->drain_s);
  for (struct item *it = w->items; it; it = it->next) {
    if (w->cut || !mr_worker_calls_busy(it))
      mr_worker_item_end(it, END_DRAINED);
    else
      mr_worker_calls_cut(it);
  }
  if (!w->cut) mr_timer_set(w->loop, t, CUT_S * WORKER_SECOND); /* to say so */
  w->cut = true;
}

void mr_worker_drain(struct worker *w, int status)
{
  if (w->draining) return;
  w->draining = true;
  w->status = status;
  mr_worker_poll_stop(w);
  mr_timer_set(w->loop, &w->drain_timer, w->set->drain_s * WORKER_SECOND);
  for (struct item *it = w->items; it; it = it->next)
    mr_worker_item_step(it);
  mr_worker_check(w);
}

static void on_signal(struct mr_fd_wait *f)
{
  struct worker *w = MR_OF(f, struct worker, signals);
  struct signalfd_siginfo si;

  while (read(w->signal_fd, &si, sizeof si) == (ssize_t)sizeof si) {
    if (w->draining) {
      mr_log(&w->sys, MR_LOG_WARN, "worker", "ended at once");
      _exit(EXIT_FAILED);
    }
    mr_log(&w->sys, MR_LOG_INFO, "worker", "ending: %d sessions are served; what runs has %d s", w->nitems,
           w->set->drain_s);
    mr_worker_drain(w, EXIT_OK);
  }
  if (mr_fd_wait(w->loop, f, w->signal_fd) != MR_OK) mr_worker_nomem();
}

static int signals_open(void)
{
  sigset_t block, told;

  sigemptyset(&told);
  sigaddset(&told, SIGTERM);
  sigaddset(&told, SIGINT);
  sigaddset(&told, SIGHUP);
  block = told;
  sigaddset(&block, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &block, NULL);
  return signalfd(-1, &told, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* ---- the command ---- */

static void make_id(struct worker *w)
{
  char host[64] = "", unique[MR_ID_MAX] = "";

  gethostname(host, sizeof host - 1);
  for (char *p = host; *p; p++)
    if (*p <= ' ' || *p > '~') *p = '-';
  mr_id_make(&w->sys, unique, "wrkr");
  snprintf(w->id, sizeof w->id, "%s%s%s", host, host[0] ? "-" : "", unique);
}

static int serve_queue(struct worker *w)
{
  struct mr_err err = {0};
  int code = open_parts(w, &err);

  if (code != MR_OK)
    return mr_main_fail(code == MR_E_UNSUPPORTED ? EXIT_UNREACHABLE
                        : code == MR_E_INVALID   ? EXIT_USAGE
                                                 : EXIT_FAILED,
                        &err);
  mr_timer_init(&w->drain_timer, on_drain_timer);
  mr_timer_init(&w->end_timer, on_end_timer);
  mr_timer_init(&w->poll_timer, mr_worker_poll_due);
  mr_ready_init(&w->ended, on_ended);
  mr_loop_enter(w->loop);
  if (mr_fd_wait(w->loop, &w->signals, w->signal_fd) != MR_OK) mr_worker_nomem();
  mr_log(&w->sys, MR_LOG_INFO, "worker", "serving %s of %s, at most %d sessions, as %s", w->environment,
         w->unix_path ? w->unix_path : w->url, w->set->once ? 1 : w->set->max_sessions, w->id);
  mr_worker_boxes_find(w);
  mr_worker_poll(w);
  code = mr_loop_run(w->loop);
  return code == MR_OK ? w->status : EXIT_FAILED;
}

static int worker(int argc, char **argv)
{
  struct settings set;
  struct worker w = {.set = &set, .lock_fd = -1};
  struct mr_config c;
  char url[1024];
  int status = mr_settings_read(&set, &mr_cmd_worker, TAKES_WORKER, argc, argv);

  if (status == EXIT_OK) status = take_settings(&w, url, sizeof url);
  if (status == EXIT_OK) {
    mr_main_raise_descriptors();
    mr_config_init(&c);
    c.log = set.quiet ? NULL : mr_main_log;
    mr_sys_init(&w.sys, &c);
    w.mem = &w.sys.mem;
    make_id(&w);
    w.signal_fd = signals_open();
    mr_fd_init(&w.signals, on_signal);
    status = serve_queue(&w);
    close_parts(&w);
    close(w.signal_fd);
  }
  mr_settings_free(&set);
  return status;
}

const struct command mr_cmd_worker = {
    "worker",
    "--environment ID [OPTIONS]",
    "serve a self-hosted environment's work queue with sandboxes of this machine",
    "  --environment ID       the environment whose queue is served (MOONRIG_ENVIRONMENT_ID, "
    "ANTHROPIC_ENVIRONMENT_ID)\n"
    "  --environment-key KEY  its key; better in MOONRIG_ENVIRONMENT_KEY or ANTHROPIC_ENVIRONMENT_KEY\n"
    "  --url URL              the service: a moonrig server, or the original one (MOONRIG_URL, "
    "ANTHROPIC_BASE_URL;\n"
    "                         default: the server of --data)\n"
    "  --data DIR             the sandboxes are in DIR/worker, which is this worker's alone (default "
    "./moonrig-data,\n"
    "                         or MOONRIG_DATA)\n"
    "  --config FILE.lua      settings: sandbox, allow_private_hosts, http.ca_file\n"
    "  --max-sessions N       as many at the same time (default 4)\n"
    "  --once                 serve one item, then end\n"
    "  --network WHAT         what commands may reach: unrestricted (any public host; the default), none, or "
    "hosts\n"
    "                         with commas between (\"packages\": the package registries)\n"
    "  --idle S               leave a session so long after its turn (default 60)\n"
    "  --keep S               keep a session's sandbox so long after it was left (default 3600; 0: remove it)\n"
    "  --lease S              ask for leases of so many seconds, 10 to 3600 (default: the queue's)\n"
    "  --drain S              seconds for running tools after SIGTERM (default 30)\n"
    "  --quiet                no log on stderr\n"
    "Runs bash, read, write, edit, glob and grep of agent toolsets; each session has a sandbox with a "
    "/workspace of its\n"
    "own, which never sees the keys. Custom tools are left for their owners; web tools are the server's.\n"
    "SIGTERM ends it gracefully, a second one at once. Exit status 3 when sandboxes cannot work here, with the "
    "line\n"
    "that moonrig doctor prints.\n",
    worker,
    NULL};
