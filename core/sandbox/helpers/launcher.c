/*
 * launcher.c - the first process of a sandbox: becomes somebody harmless, then starts bubblewrap and
 * stays as its parent.
 *
 * The driver starts it with an empty environment and the descriptors of launcher.h. In this order: it
 * closes everything else, takes the session's lock, opens the control group, stages the mounts (root only),
 * sets limits, drops to the session's own host uid, forbids new privileges, runs bubblewrap in the control
 * group (mounts and namespaces), which runs envd as PID 1 of the sandbox.
 *
 * Invariant: when this process is gone, the sandbox is gone. bubblewrap and envd die with their parents;
 * this process has no such tie, so that a sandbox outlives the server. SIGTERM ends PID 1, and with it
 * everything inside, before this process ends. Whoever finds the lock held finds the pid to signal.
 *
 * It tells the driver by lines on LAUNCHER_REPORT: "launcher: error ...", "launcher: exit N",
 * "launcher: signal N"; the pipe may have no reader any more. It must not be used as a general
 * sandboxing tool: it trusts its arguments. Single-threaded, static, no allocation.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *a, const char *b, const char *c)
{
  char line[600];
  int n = snprintf(line, sizeof line, "launcher: %s%s%s\n", a, b, c);

  if (n >= (int)sizeof line) n = sizeof line - 1;
  if (write(LAUNCHER_REPORT, line, (size_t)n) < 0)
    return; /* nobody listens any more: nothing is lost but a reason */
}

void launcher_die(const char *what, const char *detail)
{
  char text[500];

  snprintf(text, sizeof text, "%s%s%s", what, detail ? ": " : "", detail ? detail : "");
  say("error ", text, "");
  _exit(100);
}

static void die_errno(const char *what)
{
  launcher_die(what, strerror(errno));
}

/* ---- arguments: name=value ---- */

static long long number(const char *name, const char *v)
{
  char *end;
  long long n;

  errno = 0;
  n = strtoll(v, &end, 10);
  if (errno || end == v || *end || n < 0) launcher_die("bad number for argument", name);
  return n;
}

static void parse(struct launch *l, int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    char *v = strchr(argv[i], '=');
    const char *k = argv[i];
    if (!v) launcher_die("argument without a value", k);
    *v++ = '\0';
    if (strcmp(k, "bwrap") == 0)
      l->bwrap = v;
    else if (strcmp(k, "dir") == 0)
      l->dir = v;
    else if (strcmp(k, "config") == 0)
      l->config = v;
    else if (strcmp(k, "cgroup") == 0)
      l->cgroup = v;
    else if (strcmp(k, "roots") == 0)
      l->roots = v;
    else if (strcmp(k, "probe") == 0)
      l->probe = number(k, v) != 0;
    else if (strcmp(k, "bare") == 0)
      l->bare = number(k, v) != 0;
    else if (strcmp(k, "disable_userns") == 0)
      l->disable_userns = number(k, v) != 0;
    else if (strcmp(k, "uid") == 0)
      l->uid = (uid_t)number(k, v), l->switch_uid = true;
    else if (strcmp(k, "layer") == 0 && l->nlayers < LAUNCHER_LAYERS)
      l->layer[l->nlayers++] = v;
    else if (strcmp(k, "apt") == 0)
      l->apt = number(k, v) != 0;
    else if (strcmp(k, "tmp") == 0)
      l->tmp = number(k, v);
    else if (strcmp(k, "shm") == 0)
      l->shm = number(k, v);
    else if (strcmp(k, "nproc") == 0)
      l->nproc = number(k, v);
    else if (strcmp(k, "nofile") == 0)
      l->nofile = number(k, v);
    else if (strcmp(k, "fsize") == 0)
      l->fsize = number(k, v);
    else if (strcmp(k, "data") == 0)
      l->data = number(k, v);
    else
      launcher_die("unknown argument", k);
  }
  if ((!l->bwrap && !l->bare) || !l->dir || (!l->config && !l->probe))
    launcher_die("an argument is missing: bwrap, dir, config", NULL);
  if (strlen(l->dir) > 4000) launcher_die("dir is too long", NULL);
  if (l->switch_uid && l->uid == 0) launcher_die("uid: what runs inside must not be host uid 0", NULL);
  if (geteuid() == 0 && l->bare) launcher_die("bare: not as root", NULL);
  if (geteuid() == 0 && !l->switch_uid) launcher_die("uid: needed when started as root", NULL);
}

/* ---- becoming harmless ---- */

static void take_lock(void)
{
  struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

  if (fcntl(LAUNCHER_LOCK, F_SETLK, &fl) != 0)
    launcher_die(errno == EAGAIN || errno == EACCES ? "a sandbox of this session is alive already" : "lock",
                 errno == EAGAIN || errno == EACCES ? NULL : strerror(errno));
}

/* A file of the kernel's that is written best effort. */
static bool put(const char *path, const char *text)
{
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

  if (fd >= 0) close(fd);
  return ok;
}

static void limit(int what, const char *name, long long n)
{
  struct rlimit r;

  if (getrlimit((__rlimit_resource_t)what, &r) != 0) die_errno(name);
  if (n >= 0 && (r.rlim_max == RLIM_INFINITY || (rlim_t)n < r.rlim_max)) r.rlim_max = (rlim_t)n;
  r.rlim_cur = r.rlim_max;
  if (setrlimit((__rlimit_resource_t)what, &r) != 0) die_errno(name);
}

static void limits(const struct launch *l)
{
  /* 1, not 0: below the smallest core file, and the value at which the kernel does not run a core_pattern
   * pipe either (0 would run it, outside the sandbox and as root). */
  limit(RLIMIT_CORE, "RLIMIT_CORE", 1);
  if (l->nofile) limit(RLIMIT_NOFILE, "RLIMIT_NOFILE", l->nofile);
  if (l->fsize) limit(RLIMIT_FSIZE, "RLIMIT_FSIZE", l->fsize);
  if (l->data) limit(RLIMIT_DATA, "RLIMIT_DATA", l->data);
  /* The uid is this session's alone. With a shared uid the limit would count the user's other processes:
   * there envd sets it, inside the user namespace. The room above
   * is for envd's own children, so that a payload at its limit can still be looked after. */
  if (l->nproc && l->switch_uid) limit(RLIMIT_NPROC, "RLIMIT_NPROC", l->nproc + 24);
}

static void drop(const struct launch *l)
{
  if (l->switch_uid) {
    if (setgroups(0, NULL) != 0) die_errno("setgroups");
    if (setresgid((gid_t)l->uid, (gid_t)l->uid, (gid_t)l->uid) != 0 || setresuid(l->uid, l->uid, l->uid) != 0)
      die_errno("setting the sandbox's uid");
  }
  if (geteuid() == 0 || getuid() == 0) launcher_die("still root after the switch of uid", NULL);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) die_errno("no_new_privs");
}

/* ---- bubblewrap ---- */

static void run_bwrap(struct launch *l, int info_w, int cgroup, pid_t self)
{
  static char *const no_env[] = {NULL};
  sigset_t none;

  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_DFL);
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || getppid() != self) _exit(101);
  /* Not this one's parent: it tells how the group ended, and waits for what was in it. The descriptor was opened
   * before the uid changed, and carries the right. */
  if (cgroup >= 0 && write(cgroup, "0", 1) != 1) die_errno("entering the control group");
  close(LAUNCHER_LOCK);
  if (l->bare) {
    fcntl(LAUNCHER_ENVD, F_SETFD, FD_CLOEXEC);
    l->argv[0] = "envd";
    l->argv[1] = l->config;
    l->argv[2] = NULL;
    syscall(SYS_execveat, LAUNCHER_ENVD, "", (char *const *)(unsigned long)l->argv, no_env, AT_EMPTY_PATH);
    die_errno("envd");
  }
  fcntl(info_w, F_SETFD, 0);
  syscall(SYS_execveat, l->bwrap_fd, "", (char *const *)(unsigned long)l->argv, no_env, AT_EMPTY_PATH);
  die_errno(l->bwrap);
}

/* PID 1 as seen from here: bubblewrap says {"child-pid": N} once it has made it. 0: not yet. */
static pid_t inner_pid(int info_r)
{
  static char text[256];
  static size_t n;
  ssize_t got;
  char *p;

  while (n < sizeof text - 1 && (got = read(info_r, text + n, sizeof text - 1 - n)) > 0)
    n += (size_t)got;
  p = strstr(text, "child-pid");
  p = p ? strchr(p, ':') : NULL;
  return p && strpbrk(p, ",}") ? (pid_t)strtol(p + 1, NULL, 10) : 0;
}

/* bubblewrap is gone: whatever of it was left without a parent is a child of this process now (subreaper). */
static void end_orphans(void)
{
  char list[512], *at, *end;
  ssize_t n;
  pid_t pid;
  int fd;

  while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0) {
    if (pid > 0) continue;
    fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
    n = fd >= 0 ? read(fd, list, sizeof list - 1) : -1;
    list[n > 0 ? n : 0] = '\0';
    for (at = list; (pid = (pid_t)strtol(at, &end, 10)) > 1 && end != at; at = end)
      kill(pid, SIGKILL);
    if (fd >= 0) close(fd);
    usleep(1000);
  }
}

static int watch(pid_t bwrap, bool bare, int info_r, const sigset_t *set)
{
  const struct timespec soon = {.tv_nsec = 5000000};
  bool ending = false, killed = false;
  char num[16];
  int status, sig;
  pid_t pid;

  for (;;) {
    sig = ending ? sigtimedwait(set, NULL, &soon) : sigwaitinfo(set, NULL);
    ending |= sig == SIGTERM;
    /* PID 1 is killed, not bubblewrap: it ends when that is dead with all that was in there. Until PID 1 is
     * named it waits for bubblewrap, and would wait for ever if that went first. */
    if (ending && !killed && (pid = bare ? bwrap : inner_pid(info_r)) > 1) killed = kill(pid, SIGKILL) == 0;
    if (waitpid(bwrap, &status, WNOHANG) != bwrap) continue;
    end_orphans();
    snprintf(num, sizeof num, "%d", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    say(WIFEXITED(status) ? "exit " : "signal ", num, "");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
}

int main(int argc, char **argv)
{
  static struct launch l;
  pid_t bwrap, self;
  sigset_t set;
  int info[2], cgroup = -1;

  if (syscall(SYS_close_range, LAUNCHER_FDS, ~0U, 0) != 0)
    for (int fd = LAUNCHER_FDS; fd < 65536; fd++)
      close(fd);
  for (int fd = 0; fd < LAUNCHER_FDS;
       fd++) /* a probe has fewer: no number of the list is ever something else */
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) _exit(102);
  signal(SIGPIPE, SIG_IGN);
  umask(022);
  parse(&l, argc, argv);
  if (chdir("/") != 0) die_errno("/");
  setsid();
  if (!l.probe) take_lock();
  if (l.cgroup && (cgroup = open(l.cgroup, O_WRONLY | O_CLOEXEC)) < 0) die_errno(l.cgroup);
  put("/proc/self/oom_score_adj", "500"); /* the host's programs are worth more */
  if (!l.bare &&
      (l.bwrap_fd = open(l.bwrap, O_PATH | O_CLOEXEC)) < 0) /* before the stage, which may cover its place */
    die_errno(l.bwrap);
  l.roots_fd = l.roots ? open(l.roots, O_RDONLY | O_NOFOLLOW) : -1; /* bubblewrap copies it */
  if (l.roots && l.roots_fd < 0) die_errno(l.roots);
  if (!l.bare) launcher_stage(&l);
  if (pipe2(info, O_CLOEXEC | O_NONBLOCK) != 0) die_errno("pipe");
  if (!l.bare) launcher_args(&l, info[1]);
  limits(&l);
  drop(&l);
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, NULL);
  self = getpid();
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  bwrap = fork();
  if (bwrap < 0) die_errno("fork");
  if (bwrap == 0) run_bwrap(&l, info[1], cgroup, self);
  /* Only PID 1 may hold the socket: that it is refused says that PID 1 is gone. */
  close(info[1]);
  close(LAUNCHER_LISTEN);
  close(LAUNCHER_READY);
  close(LAUNCHER_ENVD);
  return watch(bwrap, l.bare, info[0], &set);
}
