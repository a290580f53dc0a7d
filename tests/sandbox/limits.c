/*
 * limits - attacks at full scale: on what a sandbox may take as a whole, on the server's life while it makes and uses
 * sandboxes, and on names that change under the file tools. Run as attack.c is, see kit.h. With ATTACK_FULL=1 (the long
 * suite) the races and the kills go the whole way; else a part that fits into every run.
 *
 * Where the machine has no control groups that limit a whole sandbox, what is asserted is that the report says so and
 * that require_limits refuses.
 */
#include "kit.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include "sandbox/local/cgroup.h"

static int full(int part, int whole)
{
  return getenv("ATTACK_FULL") ? whole : part;
}

static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *fmt, ...)
{
  va_list ap;

  va_start(ap, fmt);
  printf("  ");
  vprintf(fmt, ap);
  printf("\n");
  va_end(ap);
}

/* ---- the host's side ---- */

static const struct mr_sandbox_feature *feature(struct world *w, const char *name)
{
  const struct mr_sandbox_feature *f;
  int n = 0;

  mr_sandbox_report(w->d, &f, &n, NULL);
  for (int i = 0; i < n; i++)
    if (strcmp(f[i].name, name) == 0)
      return &f[i];
  fail(w, "the report has no %s", name);
  return NULL;
}

static bool limited(struct world *w)
{
  const struct mr_sandbox_feature *f = feature(w, "memory limit");
  return f && f->ok;
}

/* Control groups of sandboxes of this driver that are there. */
static int groups(struct world *w)
{
  struct mr_cgroup_conf c = {0};
  char path[600];
  struct dirent *e;
  int n = 0;
  DIR *d;

  mr_cgroup_find(&c, w->root);
  snprintf(path, sizeof path, "%s", c.base[0] ? c.group : "/nowhere");
  d = opendir(path);
  while (d && (e = readdir(d)))
    n += e->d_type == DT_DIR && e->d_name[0] != '.';
  if (d)
    closedir(d);
  return n;
}

static int mounts(void)
{
  FILE *f = fopen("/proc/self/mountinfo", "r");
  int n = 0, c;

  while (f && (c = getc(f)) != EOF)
    n += c == '\n';
  if (f)
    fclose(f);
  return n;
}

static long resident_kb(void)
{
  FILE *f = fopen("/proc/self/status", "r");
  char line[200];
  long kb = 0;

  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "VmRSS: %ld", &kb) == 1)
      break;
  if (f)
    fclose(f);
  return kb;
}

/* Until it is so; the limit is for a busy machine. */
static bool within(int seconds, bool (*is)(struct world *w), struct world *w)
{
  double end = now() + seconds;

  while (!is(w)) {
    if (now() > end)
      return false;
    mr_loop_pump(w->loop, 1000);
    usleep(5000);
  }
  return true;
}

/* How long what is left behind sleeps: no other command line of this machine has that number. */
static char mark[24];

static bool nothing_runs(struct world *w) { return host_processes(w->root) == 0 && host_processes(mark) == 0; }

/* Everything of the sandboxes is gone from the host. */
static void all_gone(struct world *w)
{
  if (!within(60, nothing_runs, w))
    fail(w, "%d launchers and %d of their processes are left", host_processes(w->root), host_processes(mark));
  if (entries("%s/s", w->root) || entries("%s/u", w->root) || entries("%s/trash", w->root))
    fail(w, "left: %d directories, %d uids, %d in trash", entries("%s/s", w->root), entries("%s/u", w->root),
         entries("%s/trash", w->root));
  if (groups(w))
    fail(w, "%d control groups are left", groups(w));
}

/* ---- 17, 18: taking too much ---- */

static int by_time(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

struct other { /* a second sandbox, whose calls go through the same server */
  struct mr_sandbox *s;
  char session[64];
};

static void swap(struct world *w, struct other *o)
{
  struct other mine = {.s = w->s};

  memcpy(mine.session, w->session, sizeof mine.session);
  w->s = o->s;
  memcpy(w->session, o->session, sizeof w->session);
  *o = mine;
}

/* Milliseconds of 60 calls: the middle one, and the one before the last. */
static void latency(struct world *w, double *p50, double *p99)
{
  double t[60];

  for (int i = 0; i < 60 && !w->failed; i++) {
    double t0 = now();
    tool(w, "read", "{\"file_path\":\"/workspace/f\"}", 0);
    t[i] = (now() - t0) * 1000;
  }
  qsort(t, 60, sizeof *t, by_time);
  *p50 = t[30];
  *p99 = t[58];
}

static void l17_others_while_forks_bomb(struct world *w)
{
  struct other o = {.s = w->s};
  double p50[2] = {0}, p99[2] = {0};
  struct world bomb;
  char cmd[200];

  snprintf(o.session, sizeof o.session, "%s", w->session);
  snprintf(cmd, sizeof cmd, PROBE " forks %d; f() { f | f & }; f; echo bombed", 5 * NPROC);
  sh(w, "true");
  take(w, "l17_neighbour");
  sh(w, "echo x > f");
  latency(w, &p50[0], &p99[0]);
  bomb = (struct world){.who = w->who, .sys = w->sys, .loop = w->loop, .s = o.s};
  mr_buf_init(&bomb.text, &w->sys.mem, 8 << 20);
  call(&bomb, "bomb", "bash", "{\"command\":\"f() { f | f & }; while :; do " PROBE " forks 700; f; done\"}", 20000);
  latency(w, &p50[1], &p99[1]);
  note("%s: a neighbour's call, ms: p50 %.2f p99 %.2f; while forks bomb: p50 %.2f p99 %.2f", w->who, p50[0], p99[0], p50[1],
       p99[1]);
  destroy(w); /* the neighbour */
  mr_sandbox_put(&w->s);
  swap(w, &o);
  mr_sandbox_cancel(w->s, mr_str_c("bomb"));
  if (!wait_done(&bomb, 1))
    fail(w, "the bomb was not ended");
  mr_buf_free(&bomb.text);
  /* The limit is said, by what failed and by the sandbox. */
  want(w, sh_ms(w, CALL_S > 60 ? 60000 : 4000, cmd), "EAGAIN|Resource temporarily unavailable");
  sh_ms(w, CALL_S > 60 ? 60000 : 4000, "for i in $(seq 200); do sleep 100 & done; true");
  want(w, text(w), "Resource temporarily unavailable");
  want(w, text(w), "the sandbox may have 128 processes and threads at a time");
  alive(w);
}

/* Another driver beside w's, which refuses where limits are missing. */
static void refuses(struct world *w)
{
  struct world x = {.who = w->who, .probe = w->probe, .sys = w->sys, .o = {.require_limits = true}};

  snprintf(x.root, sizeof x.root, "%.240s-strict", w->root);
  mr_buf_init(&x.text, &x.sys.mem, 1 << 20);
  if (!open_driver(&x))
    return;
  take(&x, "l18_strict");
  call(&x, "one", "bash", "{\"command\":\"echo made\"}", 0);
  wait_done(&x, 1);
  if (x.code != MR_E_UNSUPPORTED || !match(text(&x), "memory limit: for each process only"))
    fail(w, "require_limits: %d %s", x.code, text(&x));
  mr_sandbox_put(&x.s);
  close_driver(&x);
  mr_buf_free(&x.text);
  mr_loop_enter(w->loop);
}

static bool launcher_gone(struct world *w)
{
  char dir[400];

  snprintf(dir, sizeof dir, "%s/s/%s", w->root, w->session);
  return host_processes(dir) == 0;
}

/* The figures of the sandbox's group are those that were asked for. */
static void on_figures(void *ud, const struct mr_sandbox_diagnosis *d)
{
  struct world *w = ud;

  w->done++;
  for (int i = 0; i < d->nlive; i++)
    if (strcmp(d->live[i].session_id, w->session) == 0 && d->live[i].memory_max == INT64_C(640) << 20 &&
        d->live[i].pids_max > NPROC && d->live[i].pids_max <= NPROC + 64 && d->live[i].memory > 0 && d->live[i].pids > 1)
      return;
  fail(w, "the diagnosis has not the limits of this sandbox");
}

static void l18_memory_of_many(struct world *w)
{
  const struct mr_sandbox_feature *f = feature(w, "memory limit");
  static const char bomb[] = "{\"command\":\"for i in $(seq 50); do " PROBE " hold 32 & done; wait\"}";

  if (!limited(w)) {
    if (f && (f->required || !strstr(f->detail, "not for the sandbox as a whole")))
      fail(w, "the report: %s", f->detail);
    refuses(w);
    note("%s: memory of a whole sandbox is not limited on this machine, and that is said", w->who);
    return;
  }
  sh(w, "echo kept > f; X=lost");
  w->done = 0;
  if (mr_sandbox_diagnose(w->d, "env_attack", on_figures, w) != MR_OK)
    fail(w, "no diagnosis");
  wait_done(w, 1);
  for (int i = 0; i < 2 && !w->failed; i++) { /* 1,600 MiB in 50 processes, each far below its own limit */
    call(w, i ? "second" : "first", "bash", bomb, 0);
    if (!wait_done(w, 1))
      return;
    if (w->code != MR_E_CLOSED || !match(text(w), "ran out of memory \\(its limit is 640 MiB"))
      fail(w, "%d: %s", w->code, text(w));
    want(w, sh(w, "cat f; echo \"[$X]\""), "kept");
    want(w, text(w), "\\[\\]");
    never(w, text(w), "ran out of memory"); /* it was said once */
  }
  /* Between two calls: the next one says it. */
  sh(w, "(setsid bash -c 'for i in $(seq 50); do " PROBE " hold 32 & done; wait' >/dev/null 2>&1 &); true");
  if (!within(60, launcher_gone, w))
    fail(w, "the sandbox did not end");
  for (int i = 0; i < 100; i++) { /* the driver sees it, too */
    mr_loop_pump(w->loop, 1000);
    usleep(2000);
  }
  want(w, sh(w, "cat f"), "ran out of memory .* before this call");
  want(w, text(w), "kept");
  alive(w);
}

static void l18_memory_of_one(struct world *w)
{
  struct world x = {.who = w->who, .probe = w->probe, .sys = w->sys,
                    .o = {.memory_max = INT64_C(8) << 30, .memory_total = INT64_C(160) << 20}};

  if (!limited(w)) {
    note("%s: one process has its own limit only, see a18", w->who);
    return;
  }
  snprintf(x.root, sizeof x.root, "%.240s-small", w->root);
  mr_buf_init(&x.text, &x.sys.mem, 1 << 20);
  if (!open_driver(&x))
    return;
  take(&x, "l18_small");
  call(&x, "one", "bash", "{\"command\":\"" PROBE " memory 4096\"}", 0);
  wait_done(&x, 1);
  if (x.code != MR_E_CLOSED || !match(text(&x), "its limit is 160 MiB"))
    fail(w, "%d: %s", x.code, text(&x));
  /* /tmp counts. */
  call(&x, "two", "bash", "{\"command\":\"head -c 30000000 /dev/zero > /tmp/x; " PROBE " memory 112; echo fits\"}", 0);
  wait_done(&x, 1);
  if (x.code != MR_OK || !match(text(&x), "memory 112 OK"))
    fail(w, "%d: %s", x.code, text(&x));
  destroy(&x);
  mr_sandbox_put(&x.s);
  all_gone(&x);
  if (x.failed)
    fail(w, "small: %s", why);
  close_driver(&x);
  mr_buf_free(&x.text);
  mr_loop_enter(w->loop);
}

/* ---- 27: names that change ---- */

/* Calls of the file tools through a name that is a directory now and a link then, several at a time. */
static void l27_race(struct world *w)
{
  static const char *const tools[][2] = {
      {"read", "{\"file_path\":\"/workspace/real/f\"}"},
      {"write", "{\"file_path\":\"/workspace/real/new\",\"content\":\"x\"}"},
      {"edit", "{\"file_path\":\"/workspace/real/e\",\"old_string\":\"a\",\"new_string\":\"a\"}"},
      {"glob", "{\"pattern\":\"**\",\"path\":\"/workspace/real\"}"},
      {"grep", "{\"pattern\":\"sk-planted\",\"path\":\"/workspace/real\"}"}};
  /* Host files that are not inside; the place of the first process; one that may only be read. */
  const char *targets[] = {w->dir, "/run/moonrig", "/mnt/session/uploads", "/proc/1/root/etc"};
  int rounds = full(1000, 100000), leaks = 0, answered = 0;
  long exchanged = 0;
  char path[400], cmd[700];

  host_file(w, "f", SECRET, path);
  for (size_t k = 0; k < sizeof targets / sizeof *targets && !w->failed; k++) {
    snprintf(cmd, sizeof cmd,
             "cd /workspace; rm -rf real link count; mkdir real; echo harmless > real/f; echo a > real/e; ln -s %s link; "
             "(setsid " PROBE " exchange /workspace/real /workspace/link /workspace/count >/dev/null 2>&1 &); true", targets[k]);
    double end = now() + 80; /* a busy machine does fewer, 10,000 at the least */

    sh(w, cmd);
    for (int i = 0, n; i < rounds / 4 && !w->failed && (now() < end || i < 2500); i += n) {
      w->done = 0;
      for (n = 0; n < 8; n++) {
        struct mr_sandbox_call c = {.name = mr_str_c(tools[(i + n) % 5][0]), .input = mr_str_c(tools[(i + n) % 5][1])};
        char id[40];
        snprintf(id, sizeof id, "race%zu.%d", k, i + n);
        c.exec_id = mr_str_c(id);
        if (mr_sandbox_call(w->s, &c, on_result_seen, w) != MR_OK)
          fail(w, "call refused");
      }
      wait_done(w, n);
      leaks += w->seen;
      w->seen = 0;
      answered += n;
    }
    sh(w, "od -An -tu8 -N8 /workspace/count; ls /run/moonrig /mnt/session/uploads /etc | grep -x new; pkill -x probe; true");
    exchanged += atol(text(w));
    never(w, text(w), "^new$");
    want(w, sh(w, "true; echo status $?"), "status 0"); /* the shell's own files were not written */
  }
  if (access(w->dir, W_OK) == 0) {
    snprintf(path, sizeof path, "%s/new", w->dir);
    if (access(path, F_OK) == 0)
      fail(w, "written on the host");
  }
  if (leaks)
    fail(w, "%d answers hold what is outside", leaks);
  if (exchanged < 100000)
    fail(w, "only %ld exchanges: the test does not test", exchanged);
  note("%s: %d calls while names were exchanged %ld times, %d leaks", w->who, answered, exchanged, leaks);
  alive(w);
}

/* ---- 37: the server's life ---- */

enum { AT_PROVISION, AT_COMMAND, AT_WRITE, MOMENTS };
enum { BIG = 3 << 20 };

static void fill(char *p, char c)
{
  int n = sprintf(p, "{\"file_path\":\"/workspace/big\",\"content\":\"");

  memset(p + n, c, BIG);
  strcpy(p + n + BIG, "\"}");
}

static void server_life(struct world *w, int i, int moment)
{
  struct world x = {.who = w->who, .probe = w->probe, .sys = w->sys, .o = {.orphan_ttl_s = 5},
                    .serial = 1000000 /* ids that the next server does not use */};
  char name[32], command[300], *a = malloc(BIG + 200), *b = malloc(BIG + 200);

  fill(a, 'a');
  fill(b, 'b');
  snprintf(x.root, sizeof x.root, "%s", w->root);
  mr_buf_init(&x.text, &x.sys.mem, 1 << 20);
  if (!open_driver(&x))
    _exit(1);
  snprintf(name, sizeof name, "life%d", i);
  take(&x, name);
  if (moment == AT_WRITE) {
    for (int n = 0;; n++) {
      tool(&x, "write", n % 2 ? b : a, 0);
      if (n == 1)
        sh(&x, "touch /mnt/session/outputs/begun");
    }
  }
  snprintf(command, sizeof command,
           "{\"command\":\"(setsid sleep %s >/dev/null 2>&1 &); touch /mnt/session/outputs/begun; echo x >> ran; STATE=kept; "
           "sleep 1.5; echo over\"}", mark);
  call(&x, "one", "bash", command, 0);
  for (;;)
    if (mr_loop_pump(x.loop, 1000) != MR_MORE)
      usleep(200);
}

static bool begun(struct world *w)
{
  char path[500];

  snprintf(path, sizeof path, "%s/s/%s/outputs/begun", w->root, w->session);
  return access(path, F_OK) == 0;
}

static void whole_file(struct world *w)
{
  char path[500], *p;
  struct stat st;
  int fd;

  snprintf(path, sizeof path, "%s/s/%s/workspace/big", w->root, w->session);
  fd = open(path, O_RDONLY);
  if (fd < 0 || fstat(fd, &st) != 0)
    return fail(w, "%s: %s", path, strerror(errno));
  p = st.st_size ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
  if (st.st_size != BIG || p == MAP_FAILED || memcmp(p, p + 1, BIG - 1) != 0)
    fail(w, "half a file: %lld bytes", (long long)st.st_size);
  if (p != MAP_FAILED)
    munmap(p, (size_t)st.st_size);
  close(fd);
  snprintf(path, sizeof path, "%s/s/%s/workspace", w->root, w->session);
}

/* The next server takes the session up: what ran is reported once, the shell is the one it was. */
static void take_up(struct world *w, int moment)
{
  if (moment == AT_COMMAND) {
    w->done = 0;
    if (mr_sandbox_status(w->s, mr_str_c("one"), on_result, w) != MR_OK)
      return fail(w, "status refused");
    if (!wait_done(w, 1))
      return;
    if (w->code != MR_OK || !match(text(w), "over"))
      fail(w, "the command's result: %d %s", w->code, text(w));
    want(w, sh(w, "echo $STATE $(wc -l < ran)"), "^kept 1$");
  } else {
    want(w, sh(w, "echo taken up"), "taken up");
  }
  if (moment == AT_WRITE)
    whole_file(w);
}

static void one_kill(struct world *w, int i)
{
  int moment = i % MOMENTS, status;
  char name[32];
  pid_t pid;

  snprintf(name, sizeof name, "life%d", i);
  snprintf(w->session, sizeof w->session, "sesn_%s", name);
  fflush(stdout);
  pid = fork();
  if (pid == 0)
    server_life(w, i, moment);
  if (moment == AT_PROVISION)
    usleep((useconds_t)(i * 37 % 100 * (i % 2 ? 600 : 2500))); /* over what it takes to make one */
  else if (!within(60, begun, w))
    fail(w, "the server that is to be killed did nothing");
  else if (moment == AT_WRITE)
    usleep((useconds_t)(i * 37 % 100 * 300));
  kill(pid, SIGKILL);
  waitpid(pid, &status, 0);
  if (i % 10 == 9) /* nobody comes: it ends by itself */
    return;
  take(w, name);
  take_up(w, moment);
  mr_sandbox_put(&w->s);
  destroy(w);
  if (w->failed)
    note("kill %d, %s", i, moment == AT_PROVISION ? "while it was made" : moment == AT_WRITE ? "in a write" : "in a command");
}

static void l37_server_killed(struct world *w)
{
  int n = full(20, 100), orphans = n / 10;

  mr_sandbox_put(&w->s);
  for (int i = 0; i < n && !w->failed; i++)
    one_kill(w, i);
  if (w->failed)
    return;
  if (!within(90, nothing_runs, w))
    fail(w, "%d processes of orphans live on after their time", host_processes(w->root) + host_processes(mark));
  /* The next start clears up what is empty; the sessions' files go with the sessions. */
  close_driver(w);
  if (!open_driver(w))
    return;
  if (groups(w))
    fail(w, "%d control groups of orphans are left", groups(w));
  for (int i = 9; i < n && !w->failed; i += 10) {
    snprintf(w->session, sizeof w->session, "sesn_life%d", i);
    destroy(w);
  }
  all_gone(w);
  note("%s: %d kills, %d orphans, nothing left", w->who, n, orphans);
}

/* A driver's directory that is removed with a sandbox in it, as temporary ones are: the group goes at the next start. */
static void l37_forsaken_groups(struct world *w)
{
  struct world x = {.who = w->who, .probe = w->probe, .sys = w->sys, .o = {.orphan_ttl_s = 1}};
  char cmd[400];

  snprintf(x.root, sizeof x.root, "%.240s-forsaken", w->root);
  mr_buf_init(&x.text, &x.sys.mem, 1 << 20);
  if (!open_driver(&x))
    return;
  take(&x, "l37_forsaken");
  sh(&x, "true");
  if (feature(&x, "kill") && strstr(feature(&x, "kill")->detail, "cgroup") && groups(&x) != 1)
    fail(w, "no group: the test does not test");
  mr_sandbox_put(&x.s);
  close_driver(&x);
  mr_loop_enter(w->loop);
  for (double end = now() + 60; host_processes(x.root) && now() < end;)
    usleep(50000);
  snprintf(cmd, sizeof cmd, "rm -rf '%s'", x.root);
  if (system(cmd) != 0)
    fail(w, "removing a directory");
  mr_sandbox_put(&w->s);
  close_driver(w);
  if (open_driver(w) && groups(&x))
    fail(w, "%d groups of a driver that is gone", groups(&x));
  mr_buf_free(&x.text);
}

/* ---- 38: many ---- */

static bool reaped(struct world *w)
{
  (void)w;
  return waitpid(-1, NULL, WNOHANG | WNOWAIT) <= 0;
}

static void l38_many(struct world *w)
{
  int n = full(50, 200), fds = 0, before = mounts();
  long kb = 0;
  char name[32], command[100];

  snprintf(command, sizeof command, "echo x > f; (sleep %s &)", mark);
  mr_sandbox_put(&w->s);
  destroy(w);
  for (int i = 0; i < n && !w->failed; i++) {
    if (i == n / 4) { /* what is made once is there by now */
      fds = entries("/proc/%s/fd", "self");
      kb = resident_kb();
    }
    snprintf(name, sizeof name, "many%d", i);
    take(w, name);
    sh(w, command);
    destroy(w);
    mr_sandbox_put(&w->s);
  }
  if (!within(30, reaped, w))
    fail(w, "zombies are left");
  all_gone(w);
  if (entries("/proc/%s/fd", "self") > fds)
    fail(w, "%d descriptors, before %d", entries("/proc/%s/fd", "self"), fds);
  if (mounts() != before)
    fail(w, "%d mounts, before %d", mounts(), before);
#ifndef __SANITIZE_ADDRESS__ /* which keeps what is freed */
  if (resident_kb() > kb + 4096)
    fail(w, "%ld KiB resident, before %ld", resident_kb(), kb);
#endif
  note("%s: %d sandboxes; descriptors %d, resident %ld KiB then %ld KiB", w->who, n, fds, kb, resident_kb());
}

/* ---- the list ---- */

static const struct attack attacks[] = {A(l17_others_while_forks_bomb), A(l18_memory_of_many), A(l18_memory_of_one),
                                        A(l27_race), A(l37_server_killed), A(l37_forsaken_groups), A(l38_many)};

int main(int argc, char **argv)
{
  snprintf(mark, sizeof mark, "777%07d", (int)getpid());
  return run_all(argc, argv, attacks, sizeof attacks / sizeof *attacks);
}
