/* The driver "none": no isolation, by the same code. It says so, is refused as root, and leaves nothing running. */
#include "kit.h"

#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "loop/child.h"
#include "loop/pool.h"
#include "sandbox/sandbox.h"

enum { USER = 1500 };

struct rig {
  struct mr_loop *loop;
  struct mr_childs *childs;
  struct mr_pool *pool;
  struct mr_sandbox_driver *d;
  struct mr_sandbox *s;
  char root[300];
  int code, count;
  char text[4096];
};

static void on_deadline(struct mr_timer *t)
{
  (void)t;
  test_fail(__FILE__, __LINE__, "nothing happened for 40 s");
}

static void on_answer(void *ud, const struct mr_sandbox_result *res)
{
  struct rig *r = ud;
  yyjson_doc *doc = NULL;
  struct mr_str t;

  r->code = res->code;
  r->count++;
  if (res->code != MR_OK) {
    snprintf(r->text, sizeof r->text, "%s", res->err ? res->err->message : "");
    return;
  }
  CHECK_INT(mr_json_parse(&test_sys()->mem, res->content, 64 << 20, &doc, NULL), MR_OK);
  t = mr_json_get_str(yyjson_arr_get(yyjson_doc_get_root(doc), 0), "text");
  snprintf(r->text, sizeof r->text, "%.*s", (int)t.n, t.p ? t.p : "");
  yyjson_doc_free(doc);
}

static void until(struct rig *r)
{
  struct mr_timer t;

  mr_timer_init(&t, on_deadline);
  mr_timer_set(r->loop, &t, 40 * 1000000);
  while (r->count == 0)
    if (mr_loop_pump(r->loop, 10000) != MR_MORE) usleep(300);
  mr_timer_cancel(r->loop, &t);
}

static const char *ask(struct rig *r, const char *id, const char *name, const char *input, int timeout_ms)
{
  struct mr_sandbox_call c = {.exec_id = mr_str_c(id), .name = mr_str_c(name), .input = mr_str_c(input), .timeout_ms = timeout_ms};

  r->count = 0;
  CHECK_INT(mr_sandbox_call(r->s, &c, on_answer, r), MR_OK);
  until(r);
  if (r->code != MR_OK) test_fail(__FILE__, __LINE__, "%s: %d %s", id, r->code, r->text);
  return r->text;
}

static int open_rig(struct rig *r, struct mr_err *err)
{
  struct mr_sandbox_options o = {.root = r->root, .orphan_ttl_s = 20, .bare = true, .warm = 1 /* nothing is made ahead */};

  snprintf(r->root, sizeof r->root, "%s/sandboxes", test_dir());
  CHECK_INT(mr_loop_new(&r->loop, test_sys(), NULL, NULL), MR_OK);
  mr_loop_enter(r->loop);
  CHECK_INT(mr_childs_new(&r->childs, r->loop, NULL), MR_OK);
  CHECK_INT(mr_pool_new(&r->pool, r->loop, 2, 100, "test", NULL, NULL, NULL, NULL), MR_OK);
  return mr_sandbox_local_new(&r->d, r->loop, r->childs, r->pool, &o, err);
}

static void close_rig(struct rig *r)
{
  mr_sandbox_driver_free(&r->d);
  mr_childs_free(&r->childs);
  mr_pool_free(&r->pool);
  mr_loop_free(&r->loop);
}

static void become_user(void)
{
  if (geteuid() != 0) return;
  CHECK(chmod(test_dir(), 0700) == 0 && chown(test_dir(), USER, USER) == 0);
  CHECK(setgroups(0, NULL) == 0 && setresgid(USER, USER, USER) == 0 && setresuid(USER, USER, USER) == 0);
  CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
}

TEST(refused_as_root)
{
  struct rig r = {0};
  struct mr_err err = {0};

  if (geteuid() != 0) test_skip("needs root");
  CHECK_INT(open_rig(&r, &err), MR_E_DENIED);
  CHECK(strstr(err.message, "none is refused as root") != NULL);
  close_rig(&r);
}

static void on_diagnosis(void *ud, const struct mr_sandbox_diagnosis *d)
{
  struct rig *r = ud;

  r->count++;
  CHECK(strcmp(d->driver, "none") == 0 && d->unsafe && d->code == MR_OK);
  CHECK(d->nfeatures > 0 && strcmp(d->features[0].name, "isolation") == 0 && !d->features[0].ok);
  CHECK(strstr(d->features[0].detail, "UNSAFE") != NULL);
  CHECK_INT(d->nlive, 1);
  CHECK(strcmp(d->live[0].session_id, "sesn_bare") == 0);
}

static bool runs(const char *mark)
{
  char cmd[200];

  snprintf(cmd, sizeof cmd, "pgrep -f '[s]leep %s' >/dev/null", mark);
  FILE *f = popen(cmd, "r");
  return f && pclose(f) == 0;
}

TEST(it_works_and_leaves_nothing)
{
  struct rig r = {0};
  struct mr_err err = {0};
  struct mr_sandbox_spec spec = {.session_id = "sesn_bare", .environment_id = "env_bare"};
  char mark[32], cmd[400];

  become_user();
  snprintf(mark, sizeof mark, "97%d", 100000 + (int)getpid());
  CHECK_INT(open_rig(&r, &err), MR_OK);
  r.s = mr_sandbox_get(r.d, &spec, NULL);
  CHECK(strstr(ask(&r, "1", "bash", "{\"command\":\"pwd; X=kept; echo data > f\"}", 0), "/sesn_bare/workspace") != NULL);
  CHECK(strcmp(ask(&r, "2", "bash", "{\"command\":\"echo $X $(cat f)\"}", 0), "kept data") == 0);
  /* Not PID 1 of anything: the host's processes are seen, this one among them, and none of them is touched. */
  snprintf(cmd, sizeof cmd, "{\"command\":\"test -d /proc/%d && echo seen\"}", (int)getpid());
  CHECK(strcmp(ask(&r, "3", "bash", cmd, 0), "seen") == 0);
  snprintf(cmd, sizeof cmd,
           "{\"command\":\"(setsid nohup bash -c 'trap : TERM; sleep %s; sleep %s' >/dev/null 2>&1 &); sleep 300\"}", mark, mark);
  CHECK(strstr(ask(&r, "4", "bash", cmd, 700), "timed out") != NULL);
  CHECK(!runs(mark));
  CHECK(strcmp(ask(&r, "5", "bash", "{\"command\":\"echo $X\"}", 0), "kept") == 0);
  snprintf(cmd, sizeof cmd, "{\"command\":\"(setsid nohup sleep %s >/dev/null 2>&1 &); true\"}", mark);
  ask(&r, "6", "bash", cmd, 0);
  CHECK(runs(mark));
  r.count = 0;
  CHECK_INT(mr_sandbox_diagnose(r.d, "env_bare", on_diagnosis, &r), MR_OK);
  until(&r);
  r.count = 0;
  mr_sandbox_destroy(r.d, "sesn_bare", NULL, on_answer, &r);
  until(&r);
  CHECK_INT(r.code, MR_OK);
  CHECK(!runs(mark));
  mr_sandbox_put(&r.s);
  close_rig(&r);
}

static void on_kept(void *ud, const struct mr_sandbox_kept *k)
{
  struct rig *r = ud;

  r->count++;
  r->code = k->code;
  CHECK(!k->frozen); /* what shares its processes with others is not stopped */
  if (k->fd >= 0) {
    CHECK(lseek(k->fd, 0, SEEK_END) > 0);
    close(k->fd);
  }
}

TEST(files_are_kept_and_nobody_is_stopped)
{
  struct rig r = {0};
  struct mr_err err = {0};
  struct mr_sandbox_keep *k;
  struct mr_sandbox_keep_opts o = {.session_id = "sesn_bare", .fn = on_kept, .ud = &r};
  char path[600];
  int ticks[2];
  char byte;

  become_user();
  CHECK(pipe(ticks) == 0);
  pid_t other = fork();
  if (other == 0) {
    while (write(ticks[1], "x", 1) == 1)
      usleep(1000);
    _exit(0);
  }
  CHECK_INT(open_rig(&r, &err), MR_OK);
  r.s = mr_sandbox_get(r.d, &(struct mr_sandbox_spec){.session_id = "sesn_bare"}, NULL);
  ask(&r, "e1", "bash", "{\"command\":\"echo kept > f; head -c 20000000 /dev/zero > big\"}", 0);
  r.count = 0;
  CHECK_INT(mr_sandbox_checkpoint(r.d, &o, &k), MR_OK);
  until(&r);
  CHECK_INT(r.code, MR_OK);
  mr_sandbox_keep_free(&k);
  snprintf(path, sizeof path, "/proc/%d/stat", (int)other);
  FILE *f = fopen(path, "r");
  char state = 0;
  CHECK(f && fscanf(f, "%*d %*s %c", &state) == 1);
  fclose(f);
  CHECK(state != 'T');
  kill(other, SIGKILL);
  CHECK(waitpid(other, NULL, 0) == other);
  close(ticks[1]);
  while (read(ticks[0], &byte, 1) == 1)
    ;
  ask(&r, "e2", "bash", "{\"command\":\"cat f\"}", 0);
  CHECK(strncmp(r.text, "kept", 4) == 0);
  r.count = 0;
  mr_sandbox_destroy(r.d, "sesn_bare", NULL, on_answer, &r);
  until(&r);
  mr_sandbox_put(&r.s);
  close_rig(&r);
  snprintf(path, sizeof path, "rmdir %s/s", r.root); /* nothing was made ahead */
  CHECK_INT(system(path), 0);
}
