/* sandbox - what a session's first command costs, the sandbox for it included, against bare bubblewrap with bash in
 * the same run; and that sandboxes leave nothing behind. `sandbox DIR [ROUNDS [MANY]]`; prints
 *   first-call ours MS bare MS ratio R best R with-probe MS warm MS ratio R
 *   leaks N made: fds A B mounts A B processes A B cgroups A B directories A B uids A B resident A B
 * (before, after). As root, as a server that was started so, or as a user. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/sys.h"
#include "loop/child.h"
#include "loop/pool.h"
#include "sandbox/sandbox.h"

static struct mr_sys sys;
static struct mr_loop *loop;
static struct mr_sandbox_driver *d;
static char root[4000];

static double now_ms(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void die(const char *what)
{
  fprintf(stderr, "bench/sandbox: %s\n", what);
  exit(1);
}

static void on_result(void *ud, const struct mr_sandbox_result *r)
{
  (void)ud;
  if (r->code != MR_OK || r->is_error) die(r->err ? r->err->message : "the command failed");
  mr_loop_stop(loop);
}

static void wait_done(void)
{
  alarm(60);
  mr_loop_run(loop);
  alarm(0);
}

static double call(struct mr_sandbox *s, const char *id)
{
  struct mr_sandbox_call c = {.exec_id = mr_str_c(id), .name = MR_S("bash"), .input = MR_S("{\"command\":\":\"}")};
  double t = now_ms();

  if (mr_sandbox_call(s, &c, on_result, NULL) != MR_OK) die("refused");
  wait_done();
  return now_ms() - t;
}

static struct mr_sandbox *get(int i, char name[64])
{
  struct mr_sandbox *s;

  snprintf(name, 64, "sesn_bench%d", i);
  s = mr_sandbox_get(d, &(struct mr_sandbox_spec){.session_id = name, .environment_id = ""}, NULL);
  if (!s) die("no sandbox");
  return s;
}

static double ours(int i)
{
  char name[64];
  struct mr_sandbox *s = get(i, name);
  double t = call(s, "first");

  mr_sandbox_destroy(d, name, NULL, on_result, NULL);
  wait_done();
  mr_sandbox_put(&s);
  return t;
}

static double bare(void)
{
  static char *const argv[] = {"bwrap",     "--unshare-all", "--die-with-parent", "--ro-bind", "/usr",    "/usr",     "--symlink", "usr/bin", "/bin",
                               "--symlink", "usr/lib",       "/lib",              "--symlink", "usr/lib64", "/lib64", "--proc",    "/proc",   "--dev",
                               "/dev",      "--tmpfs",       "/tmp",              "bash",      "-c",      ":",        NULL};
  static char *const env[] = {"PATH=/usr/bin:/bin", NULL};
  double t = now_ms();
  pid_t pid;
  int status;

  if (posix_spawnp(&pid, "bwrap", NULL, NULL, argv, env) != 0 || waitpid(pid, &status, 0) != pid || status != 0) die("bare bwrap failed");
  return now_ms() - t;
}

/* ---- what is there ---- */

struct there {
  long fds, mounts, processes, cgroups, directories, uids, resident;
};

static long entries(const char *path)
{
  DIR *dir = opendir(path);
  long n = -2;

  while (dir && readdir(dir)) n++;
  if (dir) closedir(dir);
  return dir ? n : 0;
}

static long lines(const char *path)
{
  FILE *f = fopen(path, "r");
  long n = 0;
  int c;

  while (f && (c = getc(f)) != EOF) n += c == '\n';
  if (f) fclose(f);
  return n;
}

static long ncgroups;
static int on_dir(const char *path, const struct stat *st, int type)
{
  (void)st;
  ncgroups += type == FTW_D && strstr(path, "sesn_bench") != NULL;
  return 0;
}

/* Helpers and what they started, zombies of ours too. */
static long processes(void)
{
  struct dirent *e;
  DIR *dir = opendir("/proc");
  long n = 0;

  while ((e = readdir(dir))) {
    char path[64], stat[600], cmd[4096];
    long k = strtol(e->d_name, NULL, 10), ppid = 0;
    int fd;
    ssize_t got;
    if (k <= 0) continue;
    snprintf(path, sizeof path, "/proc/%ld/stat", k);
    if ((fd = open(path, O_RDONLY)) < 0) continue;
    got = read(fd, stat, sizeof stat - 1);
    close(fd);
    stat[got > 0 ? got : 0] = '\0';
    if (strrchr(stat, ')')) sscanf(strrchr(stat, ')') + 1, " %*c %ld", &ppid);
    snprintf(path, sizeof path, "/proc/%ld/cmdline", k);
    got = (fd = open(path, O_RDONLY)) >= 0 ? read(fd, cmd, sizeof cmd) : 0;
    if (fd >= 0) close(fd);
    n += ppid == getpid() || (got > 0 && k != getpid() && memmem(cmd, (size_t)got, root, strlen(root)) != NULL);
  }
  closedir(dir);
  return n;
}

static struct there look(void)
{
  struct there t = {0};
  char path[4096];
  long pages = 0;
  FILE *f;

  t.fds = entries("/proc/self/fd");
  t.mounts = lines("/proc/self/mountinfo");
  t.processes = processes();
  ncgroups = 0;
  ftw("/sys/fs/cgroup", on_dir, 32);
  t.cgroups = ncgroups;
  snprintf(path, sizeof path, "%s/s", root);
  t.directories = entries(path);
  snprintf(path, sizeof path, "%s/trash", root);
  t.directories += entries(path);
  snprintf(path, sizeof path, "%s/u", root);
  t.uids = entries(path);
  f = fopen("/proc/self/statm", "r");
  if (!f || fscanf(f, "%*d %ld", &pages) != 1) die("statm");
  fclose(f);
  t.resident = pages * sysconf(_SC_PAGESIZE);
  return t;
}

static int by_value(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void open_driver(struct mr_childs **childs, struct mr_pool **pool, int warm)
{
  struct mr_sandbox_options o = {.root = root, .orphan_ttl_s = 60, .warm = warm};
  struct mr_err err = {0};

  if (mr_loop_new(&loop, &sys, NULL, &err) != MR_OK) die(err.message);
  mr_loop_enter(loop);
  if (mr_childs_new(childs, loop, &err) != MR_OK || mr_pool_new(pool, loop, 2, 1000, "bench", NULL, NULL, NULL, &err) != MR_OK ||
      mr_sandbox_local_new(&d, loop, *childs, *pool, &o, &err) != MR_OK)
    die(err.message);
}

static void close_driver(struct mr_childs **childs, struct mr_pool **pool)
{
  mr_sandbox_driver_free(&d);
  mr_childs_free(childs);
  mr_pool_free(pool);
  mr_loop_free(&loop);
}

static void on_rest(struct mr_timer *t)
{
  (void)t;
  mr_loop_stop(loop);
}

/* First calls of sessions that find a sandbox made ahead; the pause in which it is made does not count. */
static double warm(int rounds, double *v)
{
  struct mr_childs *childs;
  struct mr_pool *pool;
  struct mr_timer t;

  open_driver(&childs, &pool, 1);
  mr_timer_init(&t, on_rest);
  for (int i = 0; i < rounds; i++) {
    mr_timer_set(loop, &t, 600000);
    mr_loop_run(loop);
    v[i] = ours(i + 20000);
  }
  close_driver(&childs, &pool);
  qsort(v, (size_t)rounds, sizeof *v, by_value);
  return v[rounds / 2];
}

int main(int argc, char **argv)
{
  int rounds = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 40, many = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 200;
  double a[1000], b[1000], w[1000], first, ready;
  struct mr_childs *childs;
  struct mr_pool *pool;
  struct there was, is;

  if (argc < 2 || rounds < 1 || rounds > 1000) die("usage: sandbox DIR [ROUNDS [MANY]]");
  snprintf(root, sizeof root, "%s/sandboxes", argv[1]);
  mr_sys_init(&sys, NULL);
  open_driver(&childs, &pool, 0);
  first = ours(0); /* probes the machine */
  for (int i = 0; i < rounds; i++) {
    b[i] = bare();
    a[i] = ours(i + 1);
  }
  qsort(a, (size_t)rounds, sizeof *a, by_value);
  qsort(b, (size_t)rounds, sizeof *b, by_value);
  was = look();
  for (int i = 0; i < many; i++) ours(i + 10000);
  is = look();
  printf("leaks %d made: fds %ld %ld mounts %ld %ld processes %ld %ld cgroups %ld %ld directories %ld %ld uids %ld %ld resident %ld %ld\n", many, was.fds,
         is.fds, was.mounts, is.mounts, was.processes, is.processes, was.cgroups, is.cgroups, was.directories, is.directories, was.uids, is.uids, was.resident,
         is.resident);
  close_driver(&childs, &pool);
  ready = warm(rounds < 12 ? rounds : 12, w);
  printf("first-call ours %.2f ms bare %.2f ms ratio %.2f best %.2f with-probe %.2f ms warm %.2f ms ratio %.2f\n", a[rounds / 2], b[rounds / 2],
         a[rounds / 2] / b[rounds / 2], a[0] / b[0], first, ready, ready / b[rounds / 2]);
  return 0;
}
