/* kit.c - runs the tests of one binary; see kit.h. */
#include "kit.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SKIPPED = 77 };
static struct test *tests, **tests_tail = &tests;
static char dir[256], note[512];
static int note_fd = -1;
static long fail_after = -1, live;
static int64_t fake_mono = -1, fake_wall = -1;
static struct mr_sys sys;

void test_register(struct test *t)
{
  *tests_tail = t;
  tests_tail = &t->next;
}

void test_fail(const char *file, int line, const char *fmt, ...)
{
  va_list ap;
  int n = snprintf(note, sizeof note, "%s:%d: ", file, line);
  va_start(ap, fmt);
  vsnprintf(note + n, sizeof note - (size_t)n, fmt, ap);
  va_end(ap);
  if (write(note_fd, note, strlen(note)) < 0)
    _exit(2);
  exit(1);
}

void test_skip(const char *why)
{
  if (write(note_fd, why, strlen(why)) < 0)
    _exit(2);
  exit(SKIPPED);
}

static void *kit_alloc(void *ud, void *p, size_t old, size_t n)
{
  (void)ud;
  (void)old;
  if (n == 0) {
    __atomic_sub_fetch(&live, p != NULL, __ATOMIC_RELAXED);
    free(p);
    return NULL;
  }
  if (fail_after >= 0 && __atomic_sub_fetch(&fail_after, 1, __ATOMIC_RELAXED) < 0) {
    fail_after = 0;
    return NULL;
  }
  __atomic_add_fetch(&live, p == NULL, __ATOMIC_RELAXED);
  return realloc(p, n);
}

static int64_t now(clockid_t id)
{
  struct timespec t;
  clock_gettime(id, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}
static int64_t kit_mono(void *ud) { (void)ud; return fake_mono >= 0 ? fake_mono : now(CLOCK_MONOTONIC); }
static int64_t kit_wall(void *ud) { (void)ud; return fake_wall >= 0 ? fake_wall : now(CLOCK_REALTIME); }
static void kit_log(void *ud, int level, struct mr_str line)
{
  (void)ud;
  if (getenv("MR_TEST_LOG"))
    fprintf(stderr, "[%d] %.*s\n", level, (int)line.n, line.p);
}

struct mr_sys *test_sys(void)
{
  struct mr_config c = {.alloc = kit_alloc, .log = kit_log, .mono_us = kit_mono, .wall_us = kit_wall};
  if (!sys.wall_us)
    mr_sys_init(&sys, &c);
  return &sys;
}

void test_clock_set(int64_t mono_us, int64_t wall_us)
{
  fake_mono = mono_us;
  fake_wall = wall_us;
}
void test_fail_after(long n) { fail_after = n; }
long test_allocs(void) { return __atomic_load_n(&live, __ATOMIC_RELAXED); }

const char *test_dir(void)
{
  const char *tmp = getenv("TMPDIR");
  if (!dir[0]) {
    snprintf(dir, sizeof dir, "%s/mr-unit-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir))
      test_fail(__FILE__, __LINE__, "mkdtemp: %s", strerror(errno));
  }
  return dir;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
  (void)st;
  (void)type;
  (void)f;
  return remove(path);
}

/* The child of one test; a grandchild would keep the directory, so the parent removes it. */
static int run(struct test *t, int limit)
{
  char text[1024], path[256] = "";
  int pipefd[2], status;
  ssize_t n;
  pid_t pid;
  const char *tmp = getenv("TMPDIR");

  snprintf(path, sizeof path, "%s/mr-unit-XXXXXX", tmp ? tmp : "/tmp");
  if (!mkdtemp(path) || pipe(pipefd) != 0)
    return 2;
  fflush(stdout);
  pid = fork();
  if (pid == 0) {
    close(pipefd[0]);
    note_fd = pipefd[1];
    snprintf(dir, sizeof dir, "%s", path);
    setpgid(0, 0);
    alarm((unsigned)limit);
    t->fn();
    exit(0);
  }
  close(pipefd[1]);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
    continue;
  kill(-pid, SIGKILL); /* what it left running */
  n = read(pipefd[0], text, sizeof text - 1);
  text[n > 0 ? n : 0] = '\0';
  close(pipefd[0]);
  nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    printf("ok %s\n", t->name);
    return 0;
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) {
    printf("skip %s # %s\n", t->name, text);
    return 0;
  }
  if (WIFSIGNALED(status))
    snprintf(text + strlen(text), sizeof text - strlen(text), "killed by signal %d%s", WTERMSIG(status),
             WTERMSIG(status) == SIGALRM ? " (time limit)" : "");
  printf("not ok %s\n  %s\n", t->name, text[0] ? text : "exit status not 0");
  return 1;
}

int main(int argc, char **argv)
{
  const char *env = getenv("MR_TEST_TIMEOUT");
  int limit = env ? (int)strtol(env, NULL, 10) : 60, failed = 0;

  if (argc > 1 && strcmp(argv[1], "--list") == 0) {
    for (struct test *t = tests; t; t = t->next)
      puts(t->name);
    return 0;
  }
  for (struct test *t = tests; t; t = t->next) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc; i++)
      wanted |= strstr(t->name, argv[i]) != NULL;
    if (wanted)
      failed |= run(t, limit);
  }
  return failed != 0;
}
