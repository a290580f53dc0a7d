/*
 * kit.h - what the programs of attacks share: a world with a loop, a driver and one sandbox, calls that wait,
 * expectations, a look at the host, and the list that is run. Each program includes it once; it has no other
 * user. Attacks are functions of a world; the first fail() of one is what is printed.
 */
#ifndef ATTACK_KIT_H
#define ATTACK_KIT_H

#pragma GCC diagnostic ignored "-Wunused-function"
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <regex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "loop/child.h"
#include "loop/pool.h"
#include "sandbox/sandbox.h"

enum { USER = 1500, NPROC = 128 };
#define CALL_S (getenv("ATTACK_CALL_S") ? atoi(getenv("ATTACK_CALL_S")) : 60) /* an emulated machine is slow */
#define SECRET "sk-planted-secret-90210"
#define PROBE "/mnt/session/uploads/probe"

struct world {
  const char *who, *probe;
  char dir[200], root[260];    /* of this run; the driver's root in it */
  struct mr_sys sys;
  struct mr_loop *loop;
  struct mr_childs *childs;
  struct mr_pool *pool;
  struct mr_sandbox_driver *d;
  struct mr_sandbox *s;        /* of the current attack */
  char session[64];
  struct mr_sandbox_options o; /* of the driver; 0 = as open_driver has them */
  int serial, port;
  bool failed;
  struct mr_buf text;          /* of the last answer */
  bool is_error;
  int code, done, seen;        /* seen: answers with the planted secret */
};

static void fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static char why[4000];

static void fail(struct world *w, const char *fmt, ...)
{
  va_list ap;

  if (w->failed)
    return; /* the first reason is the one to read */
  w->failed = true;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
}

/* ---- calls ---- */

static void on_result(void *ud, const struct mr_sandbox_result *r)
{
  struct world *w = ud;
  yyjson_doc *doc = NULL;
  yyjson_arr_iter it;
  yyjson_val *v;

  w->code = r->code;
  w->is_error = r->is_error;
  w->done++;
  mr_buf_reset(&w->text);
  if (r->code != MR_OK) {
    mr_buf_c(&w->text, r->err ? r->err->message : "");
    return;
  }
  if (mr_json_parse(&w->sys.mem, r->content, 64 << 20, &doc, NULL) != MR_OK) {
    fail(w, "the answer is no JSON");
    return;
  }
  it = yyjson_arr_iter_with(yyjson_doc_get_root(doc));
  while ((v = yyjson_arr_iter_next(&it)))
    mr_buf_str(&w->text, mr_json_get_str(v, "text"));
  yyjson_doc_free(doc);
}

/* As on_result, of which many are under way. */
static void on_result_seen(void *ud, const struct mr_sandbox_result *r)
{
  struct world *w = ud;

  w->done++;
  if (r->code != MR_OK)
    fail(w, "sandbox failed: %s", r->err ? r->err->message : "");
  w->seen += r->content.n && memmem(r->content.p, r->content.n, SECRET, strlen(SECRET)) != NULL;
}

static double now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool wait_done(struct world *w, int want)
{
  double end = now() + CALL_S;

  while (w->done < want && now() < end)
    if (mr_loop_pump(w->loop, 10000) != MR_MORE)
      usleep(300);
  if (w->done < want)
    fail(w, "no answer after %d s", CALL_S);
  return w->done >= want;
}

static const char *text(struct world *w)
{
  struct mr_str s = mr_buf_get(&w->text);
  return s.n ? s.p : "";
}

static void call(struct world *w, const char *id, const char *tool, const char *input, int timeout_ms)
{
  struct mr_sandbox_call c = {.exec_id = mr_str_c(id), .name = mr_str_c(tool), .input = mr_str_c(input),
                              .timeout_ms = timeout_ms};
  int code;

  w->done = 0;
  code = mr_sandbox_call(w->s, &c, on_result, w);
  if (code != MR_OK)
    fail(w, "call refused: %s", mr_strerror(code));
}

/* Runs a tool and waits; "" when the sandbox failed. */
static const char *tool(struct world *w, const char *name, const char *input, int timeout_ms)
{
  char id[32];

  if (w->failed)
    return "";
  snprintf(id, sizeof id, "exec%d", ++w->serial);
  call(w, id, name, input, timeout_ms);
  if (w->failed || !wait_done(w, 1))
    return "";
  if (w->code != MR_OK)
    fail(w, "sandbox failed (%d): %s", w->code, text(w));
  return text(w);
}

static void quote(struct world *w, struct mr_buf *b, const char *command)
{
  mr_buf_init(b, &w->sys.mem, 1 << 20);
  mr_buf_c(b, "{\"command\":");
  mr_json_quote(b, mr_str_c(command));
  mr_buf_c(b, "}");
}

static const char *sh_ms(struct world *w, int timeout_ms, const char *command)
{
  struct mr_buf b;
  const char *out;

  quote(w, &b, command);
  out = tool(w, "bash", mr_buf_get(&b).p, timeout_ms);
  mr_buf_free(&b);
  return out;
}

static const char *sh(struct world *w, const char *command) { return sh_ms(w, 0, command); }

/* ---- expectations ---- */

static bool match(const char *s, const char *re)
{
  regex_t r;
  bool hit;

  if (regcomp(&r, re, REG_EXTENDED | REG_NEWLINE | REG_NOSUB) != 0)
    return false;
  hit = regexec(&r, s, 0, NULL, 0) == 0;
  regfree(&r);
  return hit;
}

static void want(struct world *w, const char *out, const char *re)
{
  if (!match(out, re))
    fail(w, "expected /%s/ in:\n%.3000s", re, out);
}

static void never(struct world *w, const char *out, const char *re)
{
  if (match(out, re))
    fail(w, "not expected /%s/ in:\n%.3000s", re, out);
}

/* Every line is "NAME ERRNO" with one of the errnos, and there are at least n. */
static void denied(struct world *w, const char *out, const char *errnos, int n)
{
  char re[400];
  struct mr_str rest = mr_str_c(out), line;
  int lines = 0;

  snprintf(re, sizeof re, "^[^ ]+ (%s)$", errnos);
  while (rest.p && !w->failed) {
    char one[300];
    line = mr_str_split(&rest, '\n');
    if (line.n == 0)
      continue;
    snprintf(one, sizeof one, "%.*s", (int)line.n, line.p);
    lines++;
    if (!match(one, re))
      fail(w, "not denied with %s: %s\n%.3000s", errnos, one, out);
  }
  if (lines < n && !w->failed)
    fail(w, "%d lines, expected %d:\n%.2000s", lines, n, out);
}

/* Something works inside still. */
static void alive(struct world *w)
{
  want(w, sh(w, "echo still $((6*7))"), "still 42");
}

/* ---- the host's side ---- */

/* Processes of the host whose command line has the text, other than this one. */
static int host_processes(const char *mark)
{
  char path[64], line[8192];
  struct dirent *e;
  DIR *d = opendir("/proc");
  int n = 0, fd;

  while ((e = readdir(d))) {
    snprintf(path, sizeof path, "/proc/%.20s/cmdline", e->d_name);
    if (e->d_name[0] < '0' || e->d_name[0] > '9' || (fd = open(path, O_RDONLY)) < 0)
      continue;
    ssize_t k = read(fd, line, sizeof line);
    close(fd);
    n += k > 0 && memmem(line, (size_t)k, mark, strlen(mark)) != NULL && strtol(e->d_name, NULL, 10) != getpid();
  }
  closedir(d);
  return n;
}

static int entries(const char *fmt, const char *a)
{
  char path[600];
  int n = -2;
  DIR *d;

  snprintf(path, sizeof path, fmt, a);
  d = opendir(path);
  if (!d)
    return 0;
  while (readdir(d))
    n++;
  closedir(d);
  return n;
}

static void host_file(struct world *w, const char *name, const char *content, char path[400])
{
  FILE *f;

  snprintf(path, 400, "%s/%s", w->dir, name);
  f = fopen(path, "w");
  if (!f || fputs(content, f) < 0 || fclose(f) != 0)
    fail(w, "%s: %s", path, strerror(errno));
}

/* ---- driver ---- */

static void on_gone(void *ud, const struct mr_sandbox_result *r)
{
  struct world *w = ud;
  w->done++;
  if (r->code != MR_OK)
    fail(w, "destroy: %s", r->err->message);
}

static bool open_driver(struct world *w)
{
  struct mr_sandbox_options o = w->o;
  struct mr_err err = {0};

  o.root = w->root;
  o.orphan_ttl_s = o.orphan_ttl_s ? o.orphan_ttl_s : 60;
  o.memory_max = o.memory_max ? o.memory_max : INT64_C(512) << 20;
  o.memory_total = o.memory_total ? o.memory_total : INT64_C(640) << 20;
  o.tmp_max = 32 << 20;
  o.disk_max = INT64_C(300) << 20;
  o.nproc = NPROC;

  if (mr_loop_new(&w->loop, &w->sys, NULL, &err) != MR_OK)
    return fail(w, "loop: %s", err.message), false;
  mr_loop_enter(w->loop);
  if (mr_childs_new(&w->childs, w->loop, &err) != MR_OK ||
      mr_pool_new(&w->pool, w->loop, 2, 100, "attack", NULL, NULL, NULL, &err) != MR_OK ||
      mr_sandbox_local_new(&w->d, w->loop, w->childs, w->pool, &o, &err) != MR_OK)
    return fail(w, "driver: %s", err.message), false;
  return true;
}

static void close_driver(struct world *w)
{
  mr_sandbox_driver_free(&w->d);
  mr_childs_free(&w->childs);
  mr_pool_free(&w->pool);
  mr_loop_free(&w->loop);
}

static void take(struct world *w, const char *name)
{
  struct mr_sandbox_mount m = {w->probe, PROBE};
  struct mr_sandbox_spec spec = {.session_id = w->session, .mounts = &m, .nmounts = 1, .environment_id = "env_attack"};

  snprintf(w->session, sizeof w->session, "sesn_%.50s", name);
  w->s = mr_sandbox_get(w->d, &spec, NULL);
  if (!w->s)
    fail(w, "no sandbox object");
}

static void destroy(struct world *w)
{
  w->done = 0;
  mr_sandbox_destroy(w->d, w->session, NULL, on_gone, w);
  wait_done(w, 1);
}

struct attack {
  const char *name;
  void (*fn)(struct world *w);
};
#define A(n) {#n, n}

/* ---- running them ---- */

static void run(struct world *w, const struct attack *a)
{
  double t0 = now();

  w->failed = false;
  take(w, a->name);
  if (!w->failed)
    a->fn(w);
  if (w->s) {
    destroy(w); /* one that fails is the attack's success */
    mr_sandbox_put(&w->s);
  }
  if (!w->failed) {
    printf("ok %s/%s\n", w->who, a->name);
  } else {
    printf("not ok %s/%s\n", w->who, a->name);
    for (struct mr_str rest = mr_str_c(why); rest.p;) {
      struct mr_str line = mr_str_split(&rest, '\n');
      printf("  %.*s\n", (int)line.n, line.p);
    }
  }
  if (getenv("ATTACK_TIMES"))
    printf("  %.2f s\n", now() - t0);
  fflush(stdout);
}

static void become_user(const char *dir)
{
  if (chown(dir, USER, USER) != 0 || setgroups(0, NULL) != 0 || setresgid(USER, USER, USER) != 0 ||
      setresuid(USER, USER, USER) != 0 || prctl(PR_SET_DUMPABLE, 1) != 0) {
    printf("not ok user\n  cannot become uid %d: %s\n", USER, strerror(errno));
    exit(1);
  }
}

static void log_line(void *ud, int level, struct mr_str line)
{
  (void)ud;
  if (getenv("ATTACK_LOG"))
    fprintf(stderr, "[%d] %.*s\n", level, (int)line.n, line.p);
}

/* argv: root|user PROBE DIR [NAME...]. The exit status of the program. */
static int run_all(int argc, char **argv, const struct attack *attacks, size_t n)
{
  struct mr_config c = {.log = log_line};
  struct world w = {0};
  int status = 0, fd, ran = 0;

  if (argc < 4)
    return 2;
  w.who = argv[1];
  w.probe = argv[2];
  snprintf(w.dir, sizeof w.dir, "%s", argv[3]);
  snprintf(w.root, sizeof w.root, "%s/sandboxes", w.dir);
  if (strcmp(w.who, "user") == 0 && geteuid() == 0)
    become_user(w.dir);
  /* What a careless host has lying about. */
  setenv("ANTHROPIC_API_KEY", SECRET, 1);
  setenv("LD_PRELOAD_X", SECRET, 1);
  char path[400];
  host_file(&w, "fd9", SECRET, path);
  fd = open(path, O_RDONLY);
  if (dup2(fd, 9) != 9)
    return 2;
  mr_sys_init(&w.sys, &c);
  mr_buf_init(&w.text, &w.sys.mem, 64 << 20);
  if (!open_driver(&w)) {
    printf("not ok %s/driver\n  %s\n", w.who, why);
    return 1;
  }
  for (size_t i = 0; i < n; i++) {
    bool chosen = argc == 4;
    for (int k = 4; k < argc; k++)
      chosen |= strstr(attacks[i].name, argv[k]) != NULL;
    if (chosen)
      run(&w, &attacks[i]), status |= w.failed, ran++;
  }
  close_driver(&w);
  mr_buf_free(&w.text);
  if (!ran && getenv("ATTACK_SEVERAL"))
    return 0; /* another program has them */
  if (!ran)
    printf("not ok %s/none\n  no attack has such a name\n", w.who);
  return status || !ran;
}

#endif
