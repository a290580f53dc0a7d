/*
 * envd - the first process of a sandbox: start, configuration, and the loop that waits for everything.
 * See envd.h for the whole and proto.h for how it is started and what it is told.
 *
 * Before anything else it makes itself unreadable (PR_SET_DUMPABLE), so that the payload, which runs under
 * the same uid, cannot look at its memory, its fds or its environment. It exits, and with it every process
 * of the namespace, on shutdown and when no server was attached for orphan_ttl_s.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "envd.h"

static void report(const char *text)
{
  size_t n = strlen(text);
  while (n) {
    ssize_t w = write(MR_ENVD_FD_REPORT, text, n);
    if (w < 0 && errno == EINTR) continue;
    if (w <= 0) break;
    text += w;
    n -= (size_t)w;
  }
}

/* --- configuration ----------------------------------------------------------------------------------- */

static bool wrong(char *why, size_t n, const char *field, const char *what)
{
  snprintf(why, n, "config: %s %s", field, what);
  return false;
}

static bool config_int(const struct ej *root, const char *key, int64_t lo, int64_t hi, int64_t *out, char *why,
                       size_t n)
{
  const struct ej *v = ej_get(root, key);
  if (v && (v->t != EJ_INT || v->i < lo || v->i > hi)) return wrong(why, n, key, "must be a number in range");
  if (v) *out = v->i;
  return true;
}

static bool config_path(const struct ej *root, const char *key, const char **out, char *why, size_t n)
{
  struct estr s = ej_str(root, key);
  if (!ej_get(root, key)) return true;
  if (!s.p || s.p[0] != '/' || strlen(s.p) != s.n || s.n > 1024)
    return wrong(why, n, key, "must be an absolute path");
  *out = s.p;
  return true;
}

static bool config_paths(const struct ej *root, const char *key, const char **out, char *why, size_t n)
{
  const struct ej *v = ej_get(root, key);
  int k = 0;
  if (!v) return true;
  if (v->t != EJ_ARR) return wrong(why, n, key, "must be an array of paths");
  for (const struct ej *m = v->first; m; m = m->next) {
    if (k == ENVD_WRITE_DIRS - 1 || m->t != EJ_STR || m->s.p[0] != '/' || m->s.n > 1024)
      return wrong(why, n, key, "must hold at most 15 absolute paths");
    out[k++] = m->s.p;
  }
  out[k] = NULL;
  return true;
}

static bool configure(struct config *c, struct jail *j, struct disk *d, const char *text, char *why, size_t n)
{
  const char *bad;
  const struct ej *proto, *bare;
  int64_t ttl = 300, lo = MR_ENVD_PROTO_MIN;
  *c = (struct config){.bash_ms = 120000,
                       .file_ms = 60000,
                       .home = MR_ENVD_HOME,
                       .run = MR_ENVD_RUN,
                       .write = {MR_ENVD_HOME, "/tmp", MR_ENVD_OUTPUTS},
                       .read_only = {MR_ENVD_UPLOADS}};
  if (!ej_parse(&c->doc, text, strlen(text), &bad)) return wrong(why, n, "it is not JSON:", bad);
  const struct ej *root = c->doc.root;
  if (root->t != EJ_OBJ) return wrong(why, n, "it", "must be an object");
  if (!config_int(root, "orphan_ttl_s", 1, 7 * 86400, &ttl, why, n) ||
      !config_int(root, "bash_timeout_ms", 1, ENVD_TIMEOUT_MAX, &c->bash_ms, why, n) ||
      !config_int(root, "file_timeout_ms", 1, ENVD_TIMEOUT_MAX, &c->file_ms, why, n) ||
      !config_int(root, "nproc", 1, 1 << 20, &j->nproc, why, n) ||
      !config_int(root, "disk_max", 0, INT64_MAX / 8, &d->max, why, n) ||
      !config_int(root, "files_max", 1, INT64_MAX / 8, &d->files_max, why, n) ||
      !config_int(root, "proxy_port", 1, 65535, &c->proxy_port, why, n) ||
      !config_path(root, "home", &c->home, why, n) || !config_path(root, "run", &c->run, why, n) ||
      !config_paths(root, "write", c->write, why, n) || !config_paths(root, "read_only", c->read_only, why, n))
    return false;
  c->orphan_ms = ttl * 1000;
  bare = ej_get(root, "bare");
  if (bare && bare->t != EJ_BOOL) return wrong(why, n, "bare", "must be true or false");
  c->bare = bare && bare->i;
  c->env = ej_get(root, "env");
  if (c->env && c->env->t != EJ_OBJ) return wrong(why, n, "env", "must be an object of strings");
  proto = ej_get(root, "proto");
  if (proto && (proto->t != EJ_ARR || !proto->first || !proto->first->next || proto->first->t != EJ_INT ||
                proto->first->next->t != EJ_INT))
    return wrong(why, n, "proto", "must be [min,max]");
  if (proto && (proto->first->i > MR_ENVD_PROTO_MAX || proto->first->next->i < lo))
    return wrong(why, n, "proto", "has no version that this envd speaks");
  return true;
}

/* --- start ------------------------------------------------------------------------------------------- */

static bool standard_fds(struct envd *e)
{
  e->null = open("/dev/null", O_RDWR);
  while (e->null >= 0 && e->null < 3) /* some of 0-2 were closed */
    e->null = dup(e->null);
  return e->null >= 0 && dup2(e->null, 0) == 0 && dup2(e->null, 1) == 1 &&
         (fcntl(2, F_GETFD) >= 0 || dup2(e->null, 2) == 2) && !fcntl(e->null, F_SETFD, FD_CLOEXEC);
}

static bool start(struct envd *e, const char *config, char *why, size_t n)
{
  int listening = 0;
  socklen_t len = sizeof listening;
  sigset_t child;
  if (getsockopt(MR_ENVD_FD_LISTEN, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) || !listening) {
    snprintf(why, n, "fd 3 is not a listening socket");
    return false;
  }
  e->listen = MR_ENVD_FD_LISTEN;
  fcntl(e->listen, F_SETFD, FD_CLOEXEC);
  fcntl(e->listen, F_SETFL, O_RDWR | O_NONBLOCK);
  fcntl(MR_ENVD_FD_REPORT, F_SETFD, FD_CLOEXEC);
  if (!standard_fds(e)) {
    snprintf(why, n, "/dev/null: %s", strerror(errno));
    return false;
  }
  if (!configure(&e->cfg, &e->jail, &e->disk, config, why, n)) return false;
  if (e->cfg.bare ? prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0 : getpid() != 1) {
    snprintf(why, n, "envd must be process 1 of a PID namespace: it stops and kills every process it sees");
    return false;
  }
  if (e->cfg.bare) e->disk.max = 0; /* to look it stops every process, of others as well */
  e->disk.allowed = e->disk.max;
  e->disk.files_allowed = e->disk.files_max;
  e->home = open(e->cfg.home, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (e->home < 0 || fchdir(e->home)) {
    snprintf(why, n, "home %s: %s", e->cfg.home, strerror(errno));
    return false;
  }
  if (!proc_run_dir(e)) {
    snprintf(why, n, "run directory %s: %s", e->cfg.run, strerror(errno));
    return false;
  }
  signal(SIGPIPE, SIG_IGN);
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_SETMASK, &child, NULL);
  e->signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  if (e->signals < 0) {
    snprintf(why, n, "signalfd: %s", strerror(errno));
    return false;
  }
  if (e->cfg.proxy_port && !relay_listen(e, (int)e->cfg.proxy_port, why, n)) return false;
  return jail_init(e, why, n);
}

/* --- the loop ---------------------------------------------------------------------------------------- */

enum what { W_LISTEN, W_SIGNALS, W_CONN, W_STATUS, W_OUTPUT, W_BACKGROUND, W_WORKER, W_RELAY, W_DISK };
enum { POLL_MAX = 7 + ENVD_CONNS + ENVD_OUTPUTS + ENVD_WORKERS + 2 * ENVD_RELAYS };
struct polled {
  struct pollfd fd[POLL_MAX];
  enum what what[POLL_MAX];
  int index[POLL_MAX];
  enum relay_what relay[POLL_MAX];
  int n;
};

static void watch(struct polled *p, int fd, short events, enum what what, int index)
{
  if (fd < 0) return;
  p->fd[p->n] = (struct pollfd){fd, events, 0};
  p->what[p->n] = what;
  p->index[p->n++] = index;
}

static void soonest(int64_t *due, int64_t t)
{
  if (t < *due) *due = t;
}

static void watch_relay(const struct envd *e, struct polled *p, enum relay_what what, int i)
{
  int fd;
  short events = relay_events(e, what, i, &fd);
  p->relay[p->n] = what;
  if (events) watch(p, fd, events, W_RELAY, i);
}

/* What to wait for; returns until when. */
static int64_t prepare(struct envd *e, struct polled *p)
{
  bool frozen = e->freezer >= 0;
  int64_t due = frozen ? e->freeze_look : e->orphan_at, now = envd_now();
  p->n = 0;
  watch(p, e->listen, POLLIN, W_LISTEN, 0);
  watch(p, e->signals, POLLIN, W_SIGNALS, 0);
  for (int i = 0; i < ENVD_CONNS; i++) {
    const struct conn *c = &e->conns[i];
    watch(p, c->fd, (short)(POLLIN | (c->sent < c->out.n ? POLLOUT : 0)), W_CONN, i);
    if (c->fd >= 0 && i != e->attached) soonest(&due, c->attach_by);
  }
  watch(p, e->shell.status, POLLIN, W_STATUS, 0);
  if (now >= e->shell.listen_at)
    watch(p, e->shell.out.fd, POLLIN, W_OUTPUT, 0);
  else
    soonest(&due, e->shell.listen_at);
  if (!frozen) soonest(&due, shell_due(e));
  if (e->calls.tell_at) soonest(&due, e->calls.tell_at);
  if (!frozen && e->disk.max) soonest(&due, e->disk.tick);
  watch(p, e->disk.fd, POLLIN, W_DISK, 0);
  for (int i = 0; i < ENVD_OUTPUTS; i++) {
    if (e->outputs[i].fd < 0 || now >= e->outputs[i].paused_until)
      watch(p, e->outputs[i].fd, POLLIN, W_BACKGROUND, i);
    else
      soonest(&due, e->outputs[i].paused_until);
  }
  for (int i = 0; i < ENVD_WORKERS; i++) {
    if (!e->workers[i].call) continue;
    watch(p, e->workers[i].fd, POLLIN, W_WORKER, i);
    if (!frozen) soonest(&due, e->workers[i].kill_at);
  }
  watch_relay(e, p, RELAY_LISTEN, 0);
  watch_relay(e, p, RELAY_CHANNEL, 0);
  for (int i = 0; i < ENVD_RELAYS; i++) {
    watch_relay(e, p, RELAY_CLIENT, i);
    watch_relay(e, p, RELAY_SERVER, i);
  }
  if (!frozen) soonest(&due, relay_due(e));
  return due;
}

static void reap(struct envd *e)
{
  struct signalfd_siginfo info[16];
  int status;
  pid_t pid;
  while (read(e->signals, info, sizeof info) > 0) {
  }
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    if (pid == e->shell.pid)
      shell_on_exit(e, status);
    else
      worker_on_exit(e, pid);
  }
}

/* A handler may have closed what a later entry stands for; each looks at the fd that is there now. */
static void handle(struct envd *e, const struct polled *p, int at)
{
  struct pollfd fd = p->fd[at];
  int i = p->index[at];
  switch (p->what[at]) {
  case W_LISTEN: conn_accept(e); break;
  case W_SIGNALS: reap(e); break;
  case W_CONN:
    if (e->conns[i].fd == fd.fd && (fd.revents & POLLOUT)) conn_write(e, i);
    if (e->conns[i].fd == fd.fd && (fd.revents & ~POLLOUT)) conn_read(e, i);
    break;
  case W_STATUS: shell_on_status(e); break;
  case W_OUTPUT:
    if (e->shell.out.fd == fd.fd) shell_on_output(e);
    break;
  case W_BACKGROUND:
    if (e->outputs[i].fd == fd.fd) output_on_background(e, i);
    break;
  case W_DISK:
    if (e->disk.fd == fd.fd) disk_on_walk(e);
    break;
  case W_WORKER:
    if (e->workers[i].call && e->workers[i].fd == fd.fd) worker_on_data(e, i);
    break;
  case W_RELAY: relay_on(e, p->relay[at], i, fd.revents); break;
  }
}

static void on_time(struct envd *e)
{
  int64_t now = envd_now();
  freeze_on_time(e);
  disk_on_time(e);
  if (e->freezer < 0 && now >= shell_due(e)) shell_on_time(e);
  if (e->calls.tell_at && now >= e->calls.tell_at) calls_tell(e);
  for (int i = 0; i < ENVD_WORKERS && e->freezer < 0; i++)
    if (e->workers[i].call && now >= e->workers[i].kill_at) worker_on_time(e, i);
  for (int i = 0; i < ENVD_CONNS; i++)
    if (e->conns[i].fd >= 0 && i != e->attached && now >= e->conns[i].attach_by) conn_close(e, i);
  if (e->freezer < 0 && now >= relay_due(e)) relay_on_time(e);
  if (now >= e->orphan_at && e->freezer < 0) e->quit = true;
}

static void loop(struct envd *e)
{
  struct polled p;
  while (!e->quit) {
    if (e->freezer < 0) calls_run(e);
    int64_t wait = prepare(e, &p) - envd_now();
    int n = poll(p.fd, (nfds_t)p.n, wait < 0 ? 0 : wait > 60000 ? 60000 : (int)wait);
    for (int i = 0; i < p.n && n > 0 && !e->quit; i++)
      if (p.fd[i].revents) handle(e, &p, i);
    on_time(e);
  }
}

int main(int argc, char **argv)
{
  struct envd e = {
      .attached = -1, .freezer = -1, .disk = {.files_max = INT64_MAX / 8, .fd = -1, .tick = INT64_MAX}};
  char why[300] = "", line[310];
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  umask(077);
  for (int i = 0; i < ENVD_CONNS; i++)
    e.conns[i].fd = e.conns[i].given = -1;
  for (int i = 0; i < ENVD_WORKERS; i++)
    e.workers[i].fd = -1;
  shell_init(&e);
  relay_init(&e);
  if (!start(&e, argc > 1 ? argv[1] : "{}", why, sizeof why)) {
    snprintf(line, sizeof line, "%s\n", why);
    report(line);
    return 1;
  }
  report(MR_ENVD_READY);
  close(MR_ENVD_FD_REPORT);
  e.orphan_at = envd_now() + e.cfg.orphan_ms;
  loop(&e);
  return 0;
}
