/* sandbox_kit - a local sandbox driver with the real launcher, bubblewrap and envd, for tests of it: calls that wait
 * for their answer, and what the host sees of it. Included once by each of those programs. */
#ifndef SANDBOX_KIT_H
#define SANDBOX_KIT_H

#include "kit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "loop/child.h"
#include "loop/pool.h"
#include "sandbox/helpers/proto.h"
#include "sandbox/sandbox.h"

#define MAYBE __attribute__((unused))
enum { USER = 1500, TTL = 20 };

struct rig {
  struct mr_loop *loop;
  struct mr_childs *childs;
  struct mr_pool *pool;
  struct mr_sandbox_driver *d;
  char root[300];
};

struct answer {               /* of one call; fixed size, so that a test is short */
  struct rig *r;
  int code, count;
  bool is_error;
  char text[4096];            /* of the first block, or the error's message */
};

MAYBE static void become_user(void)
{
  if (geteuid() != 0)
    return;
  CHECK(chmod(test_dir(), 0700) == 0 && chown(test_dir(), USER, USER) == 0);
  CHECK(setgroups(0, NULL) == 0 && setresgid(USER, USER, USER) == 0 && setresuid(USER, USER, USER) == 0);
  CHECK(prctl(PR_SET_DUMPABLE, 1) == 0); /* as it is for a program that was started by that user */
}

MAYBE static void on_deadline(struct mr_timer *t)
{
  (void)t;
  test_fail(__FILE__, __LINE__, "nothing happened for 40 s");
}

/* Runs the loop until *n is at least want. */
MAYBE static void until(struct rig *r, int *n, int want)
{
  struct mr_timer t;

  mr_timer_init(&t, on_deadline);
  mr_timer_set(r->loop, &t, 40 * 1000000);
  while (*n < want)
    if (mr_loop_pump(r->loop, 10000) != MR_MORE)
      usleep(300);
  mr_timer_cancel(r->loop, &t);
}

MAYBE static void open_loop(struct rig *r)
{
  CHECK_INT(mr_loop_new(&r->loop, test_sys(), NULL, NULL), MR_OK);
  mr_loop_enter(r->loop);
  CHECK_INT(mr_childs_new(&r->childs, r->loop, NULL), MR_OK);
  CHECK_INT(mr_pool_new(&r->pool, r->loop, 2, 100, "test", NULL, NULL, NULL, NULL), MR_OK);
}

MAYBE static void open_driver(struct rig *r, struct mr_sandbox_options o)
{
  struct mr_err err = {0};

  snprintf(r->root, sizeof r->root, "%s/sandboxes", test_dir());
  o.root = r->root;
  if (!o.orphan_ttl_s)
    o.orphan_ttl_s = TTL;
  if (mr_sandbox_local_new(&r->d, r->loop, r->childs, r->pool, &o, &err) != MR_OK)
    test_fail(__FILE__, __LINE__, "driver: %s", err.message);
}

MAYBE static void open_rig_with(struct rig *r, struct mr_sandbox_options o)
{
  open_loop(r);
  open_driver(r, o);
}

MAYBE static void open_rig(struct rig *r) { open_rig_with(r, (struct mr_sandbox_options){0}); }

MAYBE static void close_rig(struct rig *r)
{
  mr_sandbox_driver_free(&r->d);
  mr_childs_free(&r->childs);
  mr_pool_free(&r->pool);
  mr_loop_free(&r->loop);
}

MAYBE static void on_answer(void *ud, const struct mr_sandbox_result *res)
{
  struct answer *a = ud;
  yyjson_doc *doc;

  a->code = res->code;
  a->is_error = res->is_error;
  a->count++;
  a->text[0] = '\0';
  if (res->code != MR_OK) {
    snprintf(a->text, sizeof a->text, "%s", res->err ? res->err->message : "");
    return;
  }
  CHECK_INT(mr_json_parse(&test_sys()->mem, res->content, 64 << 20, &doc, NULL), MR_OK);
  struct mr_str t = mr_json_get_str(yyjson_arr_get(yyjson_doc_get_root(doc), 0), "text");
  snprintf(a->text, sizeof a->text, "%.*s", (int)t.n, t.p ? t.p : "");
  yyjson_doc_free(doc);
}

MAYBE static struct mr_sandbox *get(struct rig *r, const char *session)
{
  struct mr_sandbox *s = mr_sandbox_get(r->d, &(struct mr_sandbox_spec){.session_id = session}, NULL);
  CHECK(s != NULL);
  return s;
}

MAYBE static void start(struct rig *r, struct mr_sandbox *s, const char *id, const char *name, const char *input,
                  struct answer *a)
{
  struct mr_sandbox_call c = {.exec_id = mr_str_c(id), .name = mr_str_c(name), .input = mr_str_c(input)};

  *a = (struct answer){.r = r};
  CHECK_INT(mr_sandbox_call(s, &c, on_answer, a), MR_OK);
  CHECK_INT(a->count, 0);
}

MAYBE static struct answer ask(struct rig *r, struct mr_sandbox *s, const char *id, const char *name, const char *input)
{
  struct answer a;

  start(r, s, id, name, input, &a);
  until(r, &a.count, 1);
  return a;
}

/* bash, expected to succeed; its output without the newline at the end. */
MAYBE static struct answer sh(struct rig *r, struct mr_sandbox *s, const char *id, const char *command)
{
  char input[2000];
  struct answer a;
  size_t n;

  snprintf(input, sizeof input, "{\"command\":\"%s\"}", command);
  a = ask(r, s, id, "bash", input);
  if (a.code != MR_OK || a.is_error)
    test_fail(__FILE__, __LINE__, "%s: code %d, %s", command, a.code, a.text);
  n = strlen(a.text);
  while (n && a.text[n - 1] == '\n')
    a.text[--n] = '\0';
  return a;
}

MAYBE static void destroy(struct rig *r, const char *session)
{
  struct answer a = {.r = r};

  mr_sandbox_destroy(r->d, session, NULL, on_answer, &a);
  CHECK_INT(a.count, 0);
  until(r, &a.count, 1);
  if (a.code != MR_OK)
    test_fail(__FILE__, __LINE__, "destroy: %s", a.text);
}

MAYBE static bool exists(const struct rig *r, const char *sub)
{
  char path[600];
  struct stat st;

  snprintf(path, sizeof path, "%s/%s", r->root, sub);
  return lstat(path, &st) == 0;
}

MAYBE static long owner(const struct rig *r, const char *sub)
{
  char path[600];
  struct stat st;

  snprintf(path, sizeof path, "%s/%s", r->root, sub);
  return lstat(path, &st) == 0 ? (long)st.st_uid : -1;
}

MAYBE static int entries(const char *path)
{
  DIR *d = opendir(path);
  int n = 0;

  CHECK(d != NULL);
  while (readdir(d))
    n++;
  closedir(d);
  return n - 2;
}

MAYBE static int entries_below(const struct rig *r, const char *sub)
{
  char path[600];
  snprintf(path, sizeof path, "%s/%s", r->root, sub);
  return entries(path);
}

/* Processes whose command line has `text`. */
MAYBE static int processes(const char *text)
{
  char path[64], line[4096];
  struct dirent *e;
  int n = 0, fd;
  DIR *d = opendir("/proc");

  while ((e = readdir(d))) {
    snprintf(path, sizeof path, "/proc/%.20s/cmdline", e->d_name);
    if (e->d_name[0] < '0' || e->d_name[0] > '9' || (fd = open(path, O_RDONLY)) < 0)
      continue;
    ssize_t k = read(fd, line, sizeof line - 1);
    close(fd);
    n += k > 0 && memmem(line, (size_t)k, text, strlen(text)) != NULL;
  }
  closedir(d);
  return n;
}

/* The launcher of a session, by the lock it holds. */
MAYBE static pid_t launcher_of(const struct rig *r, const char *session)
{
  struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  char path[600];
  int fd;

  snprintf(path, sizeof path, "%s/s/%s/lock", r->root, session);
  fd = open(path, O_RDWR | O_CLOEXEC);
  CHECK(fd >= 0 && fcntl(fd, F_GETLK, &fl) == 0);
  close(fd);
  return fl.l_type == F_UNLCK ? 0 : fl.l_pid;
}

#endif
