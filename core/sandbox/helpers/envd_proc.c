/*
 * envd_proc - the processes of the sandbox: starting bash, and ending everything else.
 *
 * bash runs a fixed loop that holds no file descriptor of ours: it sources `ctl`, a FIFO of the run directory,
 * into which envd writes one line for each command. The line sources the command with its output on a FIFO of
 * its own, then writes the exit status with a fresh random word to the status FIFO. What was read is gone: so
 * there is nothing open or lying about that a command could find, read from or write to, a word that it could
 * not know, and no variable that it could break. The trap is how a command is given up with the shell kept: it
 * returns from the command, or from a function within, and does nothing in the loop itself, except that a wait
 * for the FIFO ends early; hence the second try. Where there is no Landlock a payload can write into that FIFO
 * too, and ends its own shell by it.
 *
 * Killing all but some is race-free because envd is PID 1: kill(-1, SIGSTOP) stops every process of the
 * namespace at once, forks in progress included, so the list of /proc is the whole list. envd therefore
 * refuses to run with another pid, unless it is told that there is no namespace (bare): then it goes by descent.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "envd.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

static const char shell_loop[] =
    "trap '((${#BASH_SOURCE[@]}>1)) && builtin return 137' %d\n"
    "for ((;;)); do builtin . %s/ctl; case \"$?\" in 0) ;; *) "
    "builtin . %s/ctl; case \"$?\" in 0) ;; *) builtin exit 113 ;; esac ;; esac; done";

/* A FIFO of the run directory, made anew. keep: open for both ends, so that neither side ever waits in open. */
static bool fifo(const char *run, const char *name, int *keep)
{
  char path[128];
  snprintf(path, sizeof path, "%s/%s", run, name);
  if ((unlink(path) && errno != ENOENT) || mkfifo(path, 0600)) return false;
  if (!keep) return true;
  *keep = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
  return *keep >= 0;
}

bool proc_run_dir(struct envd *e)
{
  char pipes[80];
  struct stat st;
  if (e->run[0] && stat(e->run, &st)) e->run[0] = 0;
  if (!e->run[0] && !access(e->cfg.run, W_OK) && strlen(e->cfg.run) < sizeof e->run)
    snprintf(e->run, sizeof e->run, "%s", e->cfg.run);
  if (!e->run[0]) {
    char made[] = "/tmp/.moonrig.XXXXXX";
    if (!mkdtemp(made)) return false;
    snprintf(e->run, sizeof e->run, "%s", made);
  }
  snprintf(pipes, sizeof pipes, "%s/w", e->run);
  return !mkdir(pipes, 0700) || errno == EEXIST;
}

static void environment(struct envd *e, char **env, int max, struct ebuf *text)
{
  static const char *const fixed[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                      "SHELL=/bin/bash",
                                      "LANG=C.UTF-8",
                                      "TERM=dumb",
                                      "PS1=",
                                      "PS2="};
  int n = 0;
  size_t at[ENVD_VARIABLES];
  at[n++] = text->n;
  ebuf_f(text, "HOME=%s", e->cfg.home);
  ebuf_put(text, "", 1);
  for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
    at[n++] = text->n;
    ebuf_put(text, fixed[i], strlen(fixed[i]) + 1);
  }
  for (const struct ej *m = e->cfg.env ? e->cfg.env->first : NULL; m && n < max - 1; m = m->next) {
    if (m->t != EJ_STR || !m->key.n || memchr(m->key.p, '=', m->key.n) || strlen(m->s.p) != m->s.n) continue;
    at[n++] = text->n;
    ebuf_put(text, m->key.p, m->key.n);
    ebuf_put(text, "=", 1);
    ebuf_put(text, m->s.p, m->s.n + 1);
  }
  for (int i = 0; i < n && text->p; i++)
    env[i] = text->p + at[i];
  env[text->p ? n : 0] = NULL;
}

__attribute__((noreturn)) static void shell_child(struct envd *e)
{
  char script[512], *env[ENVD_VARIABLES];
  struct ebuf text = {0};
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_DFL);
  setpgid(0, 0); /* no session of its own: the scheduler would weigh it against envd as two strangers */
  umask(022);
  if (e->disk.closed) setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, 0});
  if (fchdir(e->home) && chdir("/")) _exit(126);
  for (int fd = 0; fd < 3; fd++)
    if (dup2(e->null, fd) < 0) _exit(126);
  snprintf(script, sizeof script, shell_loop, SIGRTMAX - 1, e->run, e->run);
  environment(e, env, ENVD_VARIABLES, &text);
  syscall(SYS_close_range, 3, ~0U, 4); /* CLOSE_RANGE_CLOEXEC, should one of ours be without */
  char *argv[] = {"bash", "--noprofile", "--norc", "-c", script, NULL};
  if (!text.failed && jail_enter(&e->jail, true)) execve("/bin/bash", argv, env);
  _exit(127);
}

bool proc_shell_start(struct envd *e)
{
  struct shell *s = &e->shell;
  if (s->status >= 0) close(s->status);
  s->status = -1;
  if (!proc_run_dir(e) || !fifo(e->run, "ctl", NULL) || !fifo(e->run, "w/status", &s->status)) return false;
  pid_t pid = fork();
  if (!pid) shell_child(e);
  if (pid < 0) return false;
  s->pid = pid;
  s->heard.n = 0;
  return true;
}

static bool spared(const struct envd *e, pid_t pid, bool keep_shell)
{
  if (pid == 1 || pid == e->disk.walker || (keep_shell && pid == e->shell.pid)) return true;
  for (int i = 0; i < ENVD_WORKERS; i++)
    if (e->workers[i].pid == pid) return true;
  return false;
}

static bool alive(pid_t pid)
{
  char path[40], stat[512];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, stat, sizeof stat - 1);
  if (fd >= 0) close(fd);
  if (n <= 0) return false;
  stat[n] = 0;
  const char *name_end = strrchr(stat, ')'); /* a name may hold anything */
  return name_end && !(name_end[1] == ' ' && (name_end[2] == 'Z' || name_end[2] == 'X'));
}

/* --- without a PID namespace --------------------------------------------------------------------------- */

enum { TREE_MAX = 16384, STOP_ROUNDS = 50 };
struct tree {
  int n;
  pid_t pid[TREE_MAX], parent[TREE_MAX];
  bool ours[TREE_MAX];
};

static pid_t parent_of(pid_t pid)
{
  char path[40], stat[512];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, stat, sizeof stat - 1);
  if (fd >= 0) close(fd);
  if (n <= 0) return -1;
  stat[n] = 0;
  const char *name_end = strrchr(stat, ')');
  return name_end && strlen(name_end) > 4 ? (pid_t)strtol(name_end + 4, NULL, 10) : -1;
}

/* All that descends from this process: orphans are its children again (subreaper), so nothing gets out of it. */
static struct tree *descendants(void)
{
  struct tree *t = calloc(1, sizeof *t);
  DIR *proc = t ? opendir("/proc") : NULL;
  for (struct dirent *d; proc && t->n < TREE_MAX && (d = readdir(proc));) {
    pid_t pid = (pid_t)strtol(d->d_name, NULL, 10);
    if (pid <= 1) continue;
    t->pid[t->n] = pid;
    t->parent[t->n++] = parent_of(pid);
  }
  if (proc) closedir(proc);
  for (bool more = t != NULL; more;) {
    more = false;
    for (int i = 0; i < t->n; i++) {
      bool ours = t->parent[i] == getpid();
      for (int k = 0; k < t->n && !ours && !t->ours[i]; k++)
        ours = t->ours[k] && t->pid[k] == t->parent[i];
      if (ours && !t->ours[i]) more = t->ours[i] = true;
    }
  }
  return t;
}

static int signal_ours(const struct envd *e, bool keep_shell, int to_kept, int to_others)
{
  struct tree *t = descendants();
  int n = 0;
  for (int i = 0; t && i < t->n; i++) {
    if (!t->ours[i]) continue;
    n++;
    kill(t->pid[i], spared(e, t->pid[i], keep_shell) ? to_kept : to_others);
  }
  free(t);
  return n;
}

static bool bare_left(const struct envd *e, bool keep_shell)
{
  struct tree *t = descendants();
  bool left = false;
  for (int i = 0; t && i < t->n && !left; i++)
    left = t->ours[i] && !spared(e, t->pid[i], keep_shell) && alive(t->pid[i]);
  free(t);
  return left;
}

/* Stopped until no new ones turn up: then the list is the whole list. */
static void bare_kill(const struct envd *e, bool keep_shell)
{
  int before = -1, now = 0;
  for (int i = 0; i < STOP_ROUNDS && now != before; i++) {
    before = now;
    now = signal_ours(e, keep_shell, SIGSTOP, SIGSTOP);
  }
  signal_ours(e, keep_shell, SIGCONT, SIGKILL);
}

bool proc_left(const struct envd *e, bool keep_shell)
{
  if (e->cfg.bare) return bare_left(e, keep_shell);
  bool left = false;
  DIR *proc = opendir("/proc");
  for (struct dirent *d; proc && !left && (d = readdir(proc));) {
    pid_t pid = (pid_t)strtol(d->d_name, NULL, 10);
    left = pid > 1 && !spared(e, pid, keep_shell) && alive(pid);
  }
  if (proc) closedir(proc);
  return left;
}

bool proc_kill(struct envd *e, bool keep_shell)
{
  if (e->cfg.bare) {
    bare_kill(e, keep_shell);
    return keep_shell;
  }
  bool workers = e->disk.walker > 0;
  for (int i = 0; i < ENVD_WORKERS; i++)
    workers = workers || e->workers[i].pid > 0;
  DIR *proc = NULL;
  if (keep_shell || workers) {
    kill(-1, SIGSTOP);
    proc = opendir("/proc");
  }
  if (!proc) {
    kill(-1, SIGKILL);
    return false;
  }
  /* Twice: a fork that was under way may show its child a moment later, stopped as well. */
  for (int round = 0; round < 2; round++, rewinddir(proc)) {
    for (struct dirent *d; (d = readdir(proc));) {
      pid_t pid = (pid_t)strtol(d->d_name, NULL, 10);
      if (pid > 1) kill(pid, spared(e, pid, keep_shell) ? SIGCONT : SIGKILL);
    }
  }
  closedir(proc);
  return keep_shell;
}
