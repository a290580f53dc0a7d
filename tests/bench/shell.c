/*
 * shell - what the sandbox costs a command that runs in its persistent shell: a builtin and an external program through
 * the driver (loop, socket, envd, bash, and back), and the same program in a bash of the same kind without a sandbox,
 * which is fed through pipes and marks the end of each command. The blocks of both take turns; of each block the first
 * quartile counts, of the blocks the quietest: what else runs on the machine is in the others.
 *
 * usage: shell DIR [ROUNDS] [COMMANDS a block]. The sandbox is in DIR, which whoever called removes. Prints "builtin MS external MS plain MS ratio R plain-builtin MS".
 */
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "loop/child.h"
#include "loop/pool.h"
#include "sandbox/sandbox.h"

extern char **environ;
enum { MAX = 2000 };
static const char BUILTIN[] = ":", EXTERNAL[] = "/bin/true";

struct bench {
  struct mr_loop *loop;
  struct mr_sandbox *s;
  const char *command;
  int left, serial, n;
  double began, took[MAX];
};

static void die(const char *what, const char *why)
{
  fprintf(stderr, "shell: %s: %s\n", what, why);
  exit(2);
}

static double now_ms(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int by_size(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double quartile(double *v, int n)
{
  qsort(v, (size_t)n, sizeof *v, by_size);
  return v[n / 4];
}

/* ---- ours ---- */

static void next(struct bench *b);

static void on_result(void *ud, const struct mr_sandbox_result *r)
{
  struct bench *b = ud;

  b->took[b->n++] = now_ms() - b->began;
  if (r->code != MR_OK || r->is_error) die("call", r->err ? r->err->message : "an error result");
  next(b);
}

static void next(struct bench *b)
{
  char id[32], input[64];
  struct mr_sandbox_call c = {.name = MR_S("bash")};

  if (!b->left--) {
    mr_loop_stop(b->loop);
    return;
  }
  snprintf(id, sizeof id, "call%d", b->serial++);
  snprintf(input, sizeof input, "{\"command\":\"%s\"}", b->command);
  c.exec_id = mr_str_c(id);
  c.input = mr_str_c(input);
  b->began = now_ms();
  if (mr_sandbox_call(b->s, &c, on_result, b) != MR_OK) die("call", "refused");
}

static void on_gone(void *ud, const struct mr_sandbox_result *r)
{
  (void)r;
  mr_loop_stop(((struct bench *)ud)->loop);
}

static double block(struct bench *b, const char *command, int n)
{
  b->command = command;
  b->left = n;
  b->n = 0;
  next(b);
  mr_loop_run(b->loop);
  return quartile(b->took, n);
}

/* ---- bash without a sandbox ---- */

struct plain {
  pid_t pid;
  int in, out;
};

static void plain_start(struct plain *p)
{
  int in[2], out[2];
  posix_spawn_file_actions_t a;
  char *argv[] = {"bash", "--noprofile", "--norc", NULL};

  if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) die("pipe", "failed");
  posix_spawn_file_actions_init(&a);
  posix_spawn_file_actions_adddup2(&a, in[0], 0);
  posix_spawn_file_actions_adddup2(&a, out[1], 1);
  posix_spawn_file_actions_adddup2(&a, out[1], 2);
  if (posix_spawn(&p->pid, "/bin/bash", &a, NULL, argv, environ)) die("bash", "not started");
  posix_spawn_file_actions_destroy(&a);
  close(in[0]);
  close(out[1]);
  p->in = in[1];
  p->out = out[0];
}

static void plain_run(struct plain *p, const char *command)
{
  char text[200], got[4096];
  size_t n = 0;
  int len = snprintf(text, sizeof text, "{ %s\n} </dev/null 2>&1; printf '\\nend %%d\\n' $?\n", command);

  if (write(p->in, text, (size_t)len) != len) die("bash", "write");
  do {
    ssize_t k = read(p->out, got + n, sizeof got - 1 - n);
    if (k <= 0) die("bash", "ended");
    n += (size_t)k;
    got[n] = 0;
  } while (!strstr(got, "\nend 0\n"));
}

static double plain_block(struct plain *p, const char *command, int n)
{
  static double took[MAX];

  for (int i = 0; i < n; i++) {
    double t = now_ms();
    plain_run(p, command);
    took[i] = now_ms() - t;
  }
  return quartile(took, n);
}

int main(int argc, char **argv)
{
  int rounds = argc > 2 ? atoi(argv[2]) : 15, n = argc > 3 ? atoi(argv[3]) : 200;
  static struct bench b;
  struct mr_sandbox_options o = {.root = argv[1], .orphan_ttl_s = 60};
  struct mr_sandbox_spec spec = {.session_id = "sesn_bench"};
  struct mr_sys sys;
  struct mr_childs *childs = NULL;
  struct mr_pool *pool = NULL;
  struct mr_sandbox_driver *d = NULL;
  struct mr_err err = {0};
  struct plain p;
  double builtin = 1e9, external = 1e9, plain = 1e9, bare = 1e9;

  if (argc < 2 || rounds < 1 || n < 1 || n > MAX) die("usage", "shell DIR [ROUNDS] [COMMANDS]");
  mr_sys_init(&sys, NULL);
  if (mr_loop_new(&b.loop, &sys, NULL, &err) != MR_OK || mr_childs_new(&childs, b.loop, &err) != MR_OK ||
      mr_pool_new(&pool, b.loop, 2, 100, "bench", NULL, NULL, NULL, &err) != MR_OK ||
      mr_sandbox_local_new(&d, b.loop, childs, pool, &o, &err) != MR_OK || !(b.s = mr_sandbox_get(d, &spec, NULL)))
    die("driver", err.message);
  plain_start(&p);
  block(&b, EXTERNAL, 20);
  plain_block(&p, EXTERNAL, 20);
  for (int i = 0; i < rounds; i++) {
    builtin = fmin(builtin, block(&b, BUILTIN, n));
    bare = fmin(bare, plain_block(&p, BUILTIN, n));
    external = fmin(external, block(&b, EXTERNAL, n));
    plain = fmin(plain, plain_block(&p, EXTERNAL, n));
  }
  printf("builtin %.3f external %.3f plain %.3f ratio %.3f plain-builtin %.3f\n", builtin, external, plain, external / plain, bare);
  close(p.in);
  waitpid(p.pid, NULL, 0);
  mr_sandbox_destroy(d, spec.session_id, NULL, on_gone, &b);
  mr_loop_run(b.loop);
  mr_sandbox_driver_free(&d);
  mr_childs_free(&childs);
  mr_pool_free(&pool);
  mr_loop_free(&b.loop);
  return 0;
}
