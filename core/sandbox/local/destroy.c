/*
 * destroy.c - ending a session's sandbox for good, and clearing up after a crash. Loop thread: wait until
 * nothing of the box is under way; pool: end the processes, move the directory to <root>/trash (so that
 * half a removal is never taken for a sandbox), remove it, give the uid back. What a crash leaves in trash
 * and in the uid registry goes at the next start.
 */
#include "sandbox/local/layer_t.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RETRY_US = 200000 };

struct mr_destroy {
  struct mr_job job;
  struct mr_destroy *next;
  struct mr_local *l; /* NULL once the driver is gone */
  struct mr_local_conf *conf;
  struct mr_box *box; /* NULL when there is none, or it is quiet */
  bool submitted;
  char session[MR_SESSION_MAX];
  mr_sandbox_fn fn;
  void *ud;
  int code;
  struct mr_err err;
};

/* ---- pool ---- */

/* A name in trash that nothing has yet. */
static int to_trash(const struct mr_local_conf *c, const char *session, char out[MR_SESSION_MAX + 16])
{
  for (int i = 0; i < 10000; i++) {
    snprintf(out, MR_SESSION_MAX + 16, "%s.%d", session, i);
    if (renameat(c->s_fd, session, c->trash_fd, out) == 0) return 0;
    if (errno != EEXIST && errno != ENOTEMPTY) return -1;
  }
  return -1;
}

int mr_local_remove(const struct mr_local_conf *c, const char *session, struct mr_err *err)
{
  char name[MR_SESSION_MAX + 16];
  struct stat st = {0};
  int dir = mr_local_session_dir(c, session, false), code;

  if (dir < 0) return errno == ENOENT ? MR_OK : mr_err_errno(err, "the sandbox's directory");
  code = mr_local_end(c, dir, err);
  if (fstatat(dir, "workspace", &st, AT_SYMLINK_NOFOLLOW) != 0) st.st_uid = 0;
  close(dir);
  if (code != MR_OK) return code;
  if (to_trash(c, session, name) != 0) return errno == ENOENT ? MR_OK : mr_err_errno(err, "removing a sandbox");
  code = mr_tree_remove(c->trash_fd, name, err);
  if (code == MR_OK && c->as_root) mr_local_uid_drop(c, session, (int64_t)st.st_uid);
  return code;
}

static void work(struct mr_job *j, void *worker)
{
  struct mr_destroy *d = MR_OF(j, struct mr_destroy, job);
  (void)worker;
  d->code = mr_local_remove(d->conf, d->session, &d->err);
}

static void each(int dir, void (*fn)(const struct mr_local_conf *c, const char *name),
                 const struct mr_local_conf *c)
{
  int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
  struct dirent *e;

  if (!d && fd >= 0) close(fd);
  while (d && (e = readdir(d)))
    if (e->d_name[0] != '.') fn(c, e->d_name);
  if (d) closedir(d);
}

static void sweep_trash(const struct mr_local_conf *c, const char *name)
{
  struct mr_err err;

  if (mr_tree_remove(c->trash_fd, name, &err) != MR_OK)
    mr_log(c->sys, MR_LOG_WARN, "sandbox", "trash/%s: %s", name, err.message);
}

/* A session's directory is made before its uid is registered, so this never takes one that is coming. */
static void sweep_uid(const struct mr_local_conf *c, const char *name)
{
  char session[MR_SESSION_MAX];
  struct stat st;
  ssize_t n = readlinkat(c->u_fd, name, session, sizeof session - 1);

  if (n <= 0) return;
  session[n] = '\0';
  if (fstatat(c->s_fd, session, &st, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT) unlinkat(c->u_fd, name, 0);
}

/* Made ahead by a server that did not come to end it. */
static void sweep_warm(const struct mr_local_conf *c, const char *name)
{
  struct mr_err err;

  if (strncmp(name, "warm-", 5) == 0 && mr_session_name_ok(name) && mr_local_remove(c, name, &err) != MR_OK)
    mr_log(c->sys, MR_LOG_WARN, "sandbox", "%s: %s", name, err.message);
}

static void sweep_build(const struct mr_local_conf *c, const char *name)
{
  (void)mr_layer_leftover(c, name);
}

void mr_local_sweep(const struct mr_local_conf *c)
{
  each(c->s_fd, sweep_warm, c);
  each(c->trash_fd, sweep_trash, c);
  each(c->s_fd, sweep_build, c);
  each(c->u_fd, sweep_uid, c);
  mr_cgroup_sweep(&c->cgroup, c->s_fd);
}

/* ---- loop thread ---- */

static void destroy_free(struct mr_destroy *d)
{
  const struct mr_mem *mem = &d->conf->sys->mem;

  mr_local_conf_unref(&d->conf);
  mr_mem_free(mem, d);
}

static void done(struct mr_job *j)
{
  struct mr_destroy *d = MR_OF(j, struct mr_destroy, job), **at;
  struct mr_sandbox_result res = {.code = d->code, .content = MR_S("[]"), .err = d->code ? &d->err : NULL};

  if (d->code != MR_OK)
    mr_log(d->conf->sys, MR_LOG_ERROR, "sandbox", "%s: not removed: %s", d->session, d->err.message);
  if (d->l) {
    for (at = &d->l->destroys; *at != d;)
      at = &(*at)->next;
    *at = d->next;
    if (d->fn) d->fn(d->ud, &res);
  }
  destroy_free(d);
}

static void on_retry(struct mr_timer *t)
{
  struct mr_local *l = MR_OF(t, struct mr_local, retry);

  for (struct mr_destroy *d = l->destroys; d; d = d->next)
    if (!d->submitted) mr_destroy_step(d);
}

void mr_destroy_step(struct mr_destroy *d)
{
  struct mr_box *b = d->box;
  struct mr_local *l = d->l;

  if (d->submitted || (b && !mr_box_quiesce(b))) return;
  if (b) {
    d->box = NULL;
    b->destroy = NULL;
    mr_box_step(b); /* frees it there, when nobody holds it */
  }
  d->submitted = mr_pool_submit(l->pool, &d->job) == MR_OK;
  if (!d->submitted && !mr_timer_pending(&l->retry)) {
    mr_timer_init(&l->retry, on_retry);
    mr_timer_set(l->loop, &l->retry, RETRY_US);
  }
}

void mr_local_destroy(struct mr_sandbox_driver *drv, const char *session, const char *ref, mr_sandbox_fn fn,
                      void *ud)
{
  struct mr_local *l = MR_OF(drv, struct mr_local, base);
  struct mr_destroy *d = mr_session_name_ok(session) ? mr_mem_zalloc(l->mem, sizeof *d) : NULL;

  (void)ref;
  if (!d) {
    mr_log(mr_loop_sys(l->loop), MR_LOG_ERROR, "sandbox",
           "a sandbox is not removed: no memory, or no session id");
    return;
  }
  d->l = l;
  d->conf = mr_local_conf_ref(l->conf);
  d->fn = fn;
  d->ud = ud;
  d->job.work = work;
  d->job.done = done;
  snprintf(d->session, sizeof d->session, "%s", session);
  d->next = l->destroys;
  l->destroys = d;
  d->box = mr_local_find(l, session);
  if (d->box) d->box->destroy = d;
  mr_destroy_step(d);
}

void mr_destroys_free(struct mr_local *l)
{
  struct mr_destroy *d;

  while ((d = l->destroys)) {
    l->destroys = d->next;
    d->l = NULL;
    if (d->box) d->box->destroy = NULL;
    if (!d->submitted) destroy_free(d);
  }
}
