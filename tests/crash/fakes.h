/*
 * fakes - what the crash driver gives the domain instead of a host and a sandbox: handlers and an envd whose
 * work can be counted after the process is gone.
 *
 * An execution of a handler is one line in DIR/runs, written as its first effect:
 * "start TOOL SESSION KEY EVENT ATTEMPT". The sandbox lives in DIR/sandbox/SESSION/EXEC_ID, one file per
 * command, "END_US KEY TOOL", that appears whole and is its execution: so a command goes on while no driver
 * runs, is started at most once per exec_id, and gives its result to whoever asks by status, as envd does.
 * Removing a session's directory is its death.
 *
 * Tools: counter (not idempotent) and lookup (idempotent) are owned here; ask_human is nobody's. Their input
 * is {"key","ms"}; a sandbox tool's is its first string member, "MS KEY". Each answers "done:KEY".
 * One driver per process; loop thread. Included by driver.c alone.
 */
#ifndef MR_TEST_CRASH_FAKES_H
#define MR_TEST_CRASH_FAKES_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "agent/domain.h"

static void die(const char *what, const char *why)
{
  fprintf(stderr, "driver: %s: %s\n", what, why);
  exit(2);
}

static int64_t fake_now_us(void)
{
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

struct fakes {
  struct mr_loop *loop;
  struct mr_domain **d;
  int runs;                     /* fd of DIR/runs */
  char sandboxes[512];
  bool no_tools;                /* as if the handlers were not loaded any more */
};

/* One write, so that a kill leaves whole lines. */
static void fakes_count(struct fakes *f, struct mr_str tool, const char *session, const char *key,
                        struct mr_str event, int attempt)
{
  char line[512];
  int n = snprintf(line, sizeof line, "start " MR_FMT " %s %s " MR_FMT " %d\n", MR_ARG(tool), session, key,
                   MR_ARG(event), attempt);
  if (write(f->runs, line, (size_t)n) != n)
    die("runs", "write failed");
}

/* ---- handlers ---- */

struct fake_run {
  struct fakes *f;
  struct mr_tool_run *run;
  struct mr_timer timer;
  char answer[128];
};

static int fake_owns(void *ud, struct mr_str tool, struct mr_str agent_id, struct mr_str agent_name)
{
  struct fakes *f = ud;
  (void)agent_id;
  (void)agent_name;
  if (f->no_tools)
    return 0;
  return mr_str_is(tool, "counter") ? MR_OWNS : mr_str_is(tool, "lookup") ? MR_OWNS | MR_OWNS_IDEMPOTENT : 0;
}

static void fake_run_end(struct mr_timer *t)
{
  struct fake_run *r = MR_OF(t, struct fake_run, timer);
  r->run->host = NULL;
  mr_tool_run_done(*r->f->d, r->run, mr_str_c(r->answer), false);
  free(r);
}

static int fake_start(void *ud, struct mr_tool_run *run)
{
  struct fakes *f = ud;
  struct fake_run *r = calloc(1, sizeof *r);
  yyjson_doc *in = yyjson_read(run->input.p, run->input.n, 0);
  char key[64], session[64];

  snprintf(key, sizeof key, "%s", mr_json_get_str(yyjson_doc_get_root(in), "key").p);
  snprintf(session, sizeof session, MR_FMT, MR_ARG(run->session_id));
  fakes_count(f, run->name, session, key, run->event_id, run->attempt);
  r->f = f;
  r->run = run;
  run->host = r;
  run->timeout_ms = 5000;
  snprintf(r->answer, sizeof r->answer, "\"done:%s\"", key);
  mr_timer_init(&r->timer, fake_run_end);
  mr_timer_set(f->loop, &r->timer, mr_json_get_int(yyjson_doc_get_root(in), "ms", 0) * 1000);
  yyjson_doc_free(in);
  return MR_OK;
}

static void fake_cancel(void *ud, struct mr_tool_run *run)
{
  struct fakes *f = ud;
  struct fake_run *r = run->host;
  mr_timer_cancel(f->loop, &r->timer);
  free(r);
}

/* ---- the sandbox ---- */

struct fake_driver { struct mr_sandbox_driver base; struct fakes *f; };
struct fake_box {
  struct mr_sandbox base;
  struct fakes *f;
  char session[64], dir[600];
  struct fake_exec *execs;
};
struct fake_exec {
  struct fake_exec *next;
  struct fake_box *box;
  struct mr_timer timer;
  mr_sandbox_fn fn;
  void *ud;
  int code;
  char id[64], answer[150000];
};

static void exec_tell(struct mr_timer *t)
{
  struct fake_exec *x = MR_OF(t, struct fake_exec, timer), **at = &x->box->execs;
  struct mr_err err;
  struct mr_sandbox_result r = {.code = x->code, .content = mr_str_c(x->answer)};

  while (*at != x)
    at = &(*at)->next;
  *at = x->next;
  if (x->code != MR_OK) {
    mr_err_set(&err, x->code, NULL, "the fake sandbox says %d", x->code);
    r.err = &err;
  }
  x->fn(x->ud, &r);
  free(x);
}

static struct fake_exec *exec_new(struct fake_box *b, struct mr_str id, mr_sandbox_fn fn, void *ud)
{
  struct fake_exec *x = calloc(1, sizeof *x);
  x->box = b;
  x->fn = fn;
  x->ud = ud;
  snprintf(x->id, sizeof x->id, MR_FMT, MR_ARG(id));
  mr_timer_init(&x->timer, exec_tell);
  x->next = b->execs;
  b->execs = x;
  return x;
}

/* What envd knows of this command: when it ends and what it says; false when it never got it. */
static bool exec_read(struct fake_exec *x)
{
  char path[700];
  long long due;
  char key[128];
  FILE *f;
  bool found;

  snprintf(path, sizeof path, "%s/%s", x->box->dir, x->id);
  f = fopen(path, "re");
  if (!f)
    return false;
  found = fscanf(f, "%lld %127s", &due, key) == 2;
  fclose(f);
  if (!found)
    die(path, "half a command");
  snprintf(x->answer, sizeof x->answer, "[{\"type\":\"text\",\"text\":\"done:%s%s%*s\"}]", key,
           strncmp(key, "big", 3) == 0 ? "\\n" : "", strncmp(key, "big", 3) == 0 ? 120000 : 0, "");
  due -= fake_now_us();
  mr_timer_set(x->box->f->loop, &x->timer, due > 0 ? due : 0);
  return true;
}

static int box_call(struct mr_sandbox *s, const struct mr_sandbox_call *c, mr_sandbox_fn fn, void *ud)
{
  struct fake_box *b = (struct fake_box *)(void *)s;
  struct fake_exec *x = exec_new(b, c->exec_id, fn, ud);
  yyjson_doc *in = yyjson_read(c->input.p, c->input.n, 0);
  yyjson_obj_iter it = yyjson_obj_iter_with(yyjson_doc_get_root(in));
  const char *command = yyjson_get_str(yyjson_obj_iter_get_val(yyjson_obj_iter_next(&it)));
  char path[700], temp[720], key[128];
  int ms = 0, fd, n;

  mkdir(b->dir, 0700);
  if (command && command[0] == '/') { /* the server's own: a large result is written to a file */
    snprintf(x->answer, sizeof x->answer, "[]");
    mr_timer_set(b->f->loop, &x->timer, 15000);
    goto out;
  }
  if (exec_read(x)) /* the same id is started at most once */
    goto out;
  if (!command || sscanf(command, "%d %127s", &ms, key) != 2)
    die("sandbox command", command ? command : "none");
  snprintf(path, sizeof path, "%s/%s", b->dir, x->id);
  snprintf(temp, sizeof temp, "%s.new", path);
  fd = open(temp, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  n = dprintf(fd, "%lld %s " MR_FMT "\n", (long long)(fake_now_us() + ms * 1000), key, MR_ARG(c->name));
  close(fd);
  if (n < 0 || rename(temp, path) != 0 || !exec_read(x))
    die(path, "cannot write");
out:
  yyjson_doc_free(in);
  return MR_OK;
}

static int box_status(struct mr_sandbox *s, struct mr_str exec_id, mr_sandbox_fn fn, void *ud)
{
  struct fake_box *b = (struct fake_box *)(void *)s;
  struct fake_exec *x = exec_new(b, exec_id, fn, ud);

  if (exec_read(x))
    return MR_OK;
  x->code = access(b->dir, F_OK) == 0 ? MR_E_NOTFOUND : MR_E_CLOSED;
  mr_timer_set(b->f->loop, &x->timer, 0);
  return MR_OK;
}

static void box_cancel(struct mr_sandbox *s, struct mr_str exec_id)
{
  struct fake_box *b = (struct fake_box *)(void *)s;
  for (struct fake_exec *x = b->execs; x; x = x->next)
    if (mr_str_is(exec_id, x->id)) {
      x->code = MR_E_CANCELLED;
      mr_timer_set(b->f->loop, &x->timer, 0);
    }
}

static struct mr_sandbox *box_get(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *spec, const char *ref)
{
  struct fake_driver *fd = (struct fake_driver *)(void *)d;
  struct fake_box *b = calloc(1, sizeof *b);

  (void)ref;
  b->base.d = d;
  b->f = fd->f;
  snprintf(b->session, sizeof b->session, "%s", spec->session_id);
  snprintf(b->dir, sizeof b->dir, "%s/%s", fd->f->sandboxes, b->session);
  return &b->base;
}

static void box_put(struct mr_sandbox *s)
{
  struct fake_box *b = (struct fake_box *)(void *)s;
  for (struct fake_exec *x = b->execs, *next; x; x = next) {
    next = x->next;
    mr_timer_cancel(b->f->loop, &x->timer);
    free(x);
  }
  free(b);
}

static const char *box_ref(const struct mr_sandbox *s)
{
  const struct fake_box *b = (const struct fake_box *)(const void *)s;
  return access(b->dir, F_OK) == 0 ? b->session : "";
}

static void box_destroy(struct mr_sandbox_driver *d, const char *session, const char *ref, mr_sandbox_fn fn, void *ud)
{
  (void)d, (void)session, (void)ref, (void)fn, (void)ud; /* nothing here is archived or deleted */
}

static int box_outputs(struct mr_sandbox_driver *d, const char *session, char out[4096])
{
  (void)d, (void)session, (void)out;
  return MR_E_UNSUPPORTED;
}

static const struct mr_sandbox_vtable fake_vtable = {NULL, NULL, box_get, box_put, box_ref, box_call, box_status,
                                                     box_cancel, box_destroy, box_outputs};

static void fakes_init(struct fakes *f, const char *dir, struct mr_loop *l, struct mr_domain **d)
{
  char path[600];

  f->loop = l;
  f->d = d;
  f->no_tools = getenv("CRASH_NO_TOOLS") != NULL;
  snprintf(path, sizeof path, "%s/runs", dir);
  f->runs = open(path, O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0600);
  if (f->runs < 0 || write(f->runs, "\n", 1) != 1)
    die(path, "cannot write");
  snprintf(f->sandboxes, sizeof f->sandboxes, "%s/sandbox", dir);
  mkdir(f->sandboxes, 0700);
}

#endif
