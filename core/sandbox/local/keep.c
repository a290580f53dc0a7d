/*
 * keep.c - checkpoint and restore: a session's workspace and outputs into an archive, and out of one. The work
 * is done by a process of its own (helpers/keep.c), under the session's host uid; pool jobs before and after it
 * open, freeze, and move what it made.
 *
 *   checkpoint   prepare (pool: directories, freeze, a file without a name) -> run -> over
 *   restore      prepare (pool: uid, <root>/trash/keep.N/{workspace,outputs}) -> run -> over
 *   take         pool: the two directories become the session's, those it had go
 *
 * Invariant: a session has its old directories, or the new ones whole; what an unfinished restore made lies in
 * trash, which the next start empties. A freeze ends with its descriptor, whatever happens. Loop thread, but for
 * the functions marked (pool), which touch the job's own members alone.
 */
#include "sandbox/local/local_t.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WAIT_US = 50000, LINE_MAX_ = 2048 };
enum what { CHECKPOINT, RESTORE, TAKE, DROP };
static const char *const names[2] = {"workspace", "outputs"};

struct mr_keep {
  struct mr_sandbox_keep base;
  struct mr_job job;
  struct mr_keep *next, **link; /* link NULL once the driver is gone */
  struct mr_local *l;
  struct mr_local_conf *conf;
  char session[MR_SESSION_MAX], stage[32]; /* stage: name in trash, or "" */
  enum what what;
  bool held, submitted, spawning, running, calling, cancelled, fresh_uid;
  int archive, dirs[2], freeze, report[2]; /* -1 or open */
  int64_t uid;
  struct mr_child *child;
  struct event *ev;
  struct mr_ready io, start;
  struct mr_timer timer;
  char line[LINE_MAX_];
  size_t nline;
  bool done; /* the archiver said so */
  struct mr_sandbox_kept kept;
  struct mr_err err;
  struct mr_sandbox_keep_opts o;
};

static void shut(int *fd)
{
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

/* ---- pool ---- */

/* A file that is gone with its last descriptor. */
static int nameless(const struct mr_local_conf *c)
{
  char path[4200];
  int fd = open(c->root, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

  if (fd >= 0) return fd;
  snprintf(path, sizeof path, "%s/trash/archive.XXXXXX", c->root); /* a file system without O_TMPFILE */
  fd = mkostemp(path, O_CLOEXEC);
  if (fd >= 0) unlink(path);
  return fd;
}

static int prepare_checkpoint(struct mr_keep *k)
{
  struct stat st;
  int dir = mr_local_session_dir(k->conf, k->session, false), code = MR_OK;

  if (dir < 0 && errno == ENOENT) return mr_err_set(&k->err, MR_E_NOTFOUND, NULL, "the session has no files");
  if (dir < 0) return mr_err_errno(&k->err, "the sandbox's directory");
  for (int i = 0; i < 2 && code == MR_OK; i++) {
    k->dirs[i] = openat(dir, names[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (k->dirs[i] < 0 && errno == ENOENT)
      code = mr_err_set(&k->err, MR_E_NOTFOUND, NULL, "the session has no files");
    else if (k->dirs[i] < 0 || fstat(k->dirs[i], &st) != 0)
      code = mr_err_errno(&k->err, names[i]);
    else
      k->uid = (int64_t)st.st_uid;
  }
  if (code == MR_OK && (k->archive = nameless(k->conf)) < 0)
    code = mr_err_errno(&k->err, "a file for the archive");
  if (code == MR_OK) k->freeze = mr_local_freeze(k->conf, dir, &k->kept.frozen);
  close(dir);
  return code;
}

/* The uid that the session's directories have, or will have. */
static int restore_uid(struct mr_keep *k)
{
  struct stat st = {0};
  char path[MR_SESSION_MAX + 16];

  k->uid = -1;
  if (!k->conf->as_root) return MR_OK;
  snprintf(path, sizeof path, "%s/workspace", k->session);
  if (fstatat(k->conf->s_fd, path, &st, AT_SYMLINK_NOFOLLOW) != 0) {
    st.st_uid = 0;
    k->fresh_uid = true;
  }
  return mr_local_uid_get(k->conf, k->session, (int64_t)st.st_uid, &k->uid, &k->err);
}

static int prepare_restore(struct mr_keep *k)
{
  int code = restore_uid(k), stage, tries = 0;

  if (code != MR_OK) return code;
  do
    snprintf(k->stage, sizeof k->stage, "keep.%d", tries);
  while (mkdirat(k->conf->trash_fd, k->stage, 0700) != 0 && errno == EEXIST && ++tries < 100000);
  stage = openat(k->conf->trash_fd, k->stage, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (stage < 0) return mr_err_errno(&k->err, "a directory for the session's files");
  for (int i = 0; i < 2 && code == MR_OK; i++) {
    if (mkdirat(stage, names[i], 0755) == 0)
      k->dirs[i] = openat(stage, names[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (k->dirs[i] < 0 || fchmod(k->dirs[i], 0755) != 0 ||
        (k->conf->as_root && fchown(k->dirs[i], (uid_t)k->uid, (gid_t)k->uid) != 0))
      code = mr_err_errno(&k->err, names[i]);
  }
  close(stage);
  if (code == MR_OK && lseek(k->archive, 0, SEEK_SET) < 0) code = mr_err_errno(&k->err, "the archive");
  return code;
}

static void remove_stage(struct mr_keep *k)
{
  struct mr_err err;

  if (k->stage[0] && mr_tree_remove(k->conf->trash_fd, k->stage, &err) != MR_OK)
    mr_log(k->conf->sys, MR_LOG_WARN, "sandbox", "trash/%s: %s", k->stage, err.message);
  k->stage[0] = '\0';
}

static int take(struct mr_keep *k)
{
  int dir = mr_local_session_dir(k->conf, k->session, true), stage = -1, code = MR_OK;
  char old[32];

  if (dir < 0) return mr_err_errno(&k->err, "the sandbox's directory");
  code = mr_local_end(k->conf, dir, &k->err);
  if (code == MR_OK) stage = openat(k->conf->trash_fd, k->stage, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (code == MR_OK && stage < 0) code = mr_err_errno(&k->err, "the session's files");
  for (int i = 0; i < 2 && code == MR_OK; i++) {
    snprintf(old, sizeof old, "old-%s", names[i]);
    if (renameat(dir, names[i], stage, old) != 0 && errno != ENOENT)
      code = mr_err_errno(&k->err, names[i]);
    else if (renameat(stage, names[i], dir, names[i]) != 0)
      code = mr_err_errno(&k->err, names[i]);
  }
  if (stage >= 0) close(stage);
  close(dir);
  if (code == MR_OK) remove_stage(k);
  return code;
}

static void drop(struct mr_keep *k)
{
  remove_stage(k);
  if (k->fresh_uid && k->uid > 0 && faccessat(k->conf->s_fd, k->session, F_OK, AT_SYMLINK_NOFOLLOW) != 0)
    mr_local_uid_drop(k->conf, k->session, k->uid);
  k->fresh_uid = false;
}

static void work(struct mr_job *j, void *worker)
{
  struct mr_keep *k = MR_OF(j, struct mr_keep, job);

  (void)worker;
  switch (k->what) {
  case CHECKPOINT: k->kept.code = prepare_checkpoint(k); break;
  case RESTORE: k->kept.code = prepare_restore(k); break;
  case TAKE: k->kept.code = take(k); break;
  case DROP: drop(k); break;
  }
}

/* ---- coming and going ---- */

static void submit(struct mr_keep *k, enum what what);

static void close_all(struct mr_keep *k)
{
  if (k->ev) event_free(k->ev);
  k->ev = NULL;
  shut(&k->archive);
  shut(&k->dirs[0]);
  shut(&k->dirs[1]);
  shut(&k->freeze);
  shut(&k->report[0]);
  shut(&k->report[1]);
}

static void unlink_keep(struct mr_keep *k)
{
  if (!k->link) return;
  mr_ready_cancel(k->l->loop, &k->io);
  mr_ready_cancel(k->l->loop, &k->start);
  mr_timer_cancel(k->l->loop, &k->timer);
  *k->link = k->next;
  if (k->next) k->next->link = k->link;
  k->link = NULL;
}

/* Frees it when nobody holds it and nothing is under way; first it drops what it made. */
static void settle(struct mr_keep *k)
{
  const struct mr_mem *mem = &k->conf->sys->mem;
  struct mr_local_conf *c = k->conf;

  if (k->held || k->submitted || k->spawning || k->running || k->calling) return;
  if (k->stage[0] && k->link) {
    close_all(k);
    submit(k, DROP);
    if (k->submitted) return;
  }
  unlink_keep(k);
  close_all(k);
  mr_child_release(&k->child);
  mr_mem_free(mem, k);
  mr_local_conf_unref(&c);
}

static void over(struct mr_keep *k)
{
  mr_sandbox_kept_fn fn = k->o.fn;

  shut(&k->freeze);
  shut(&k->dirs[0]);
  shut(&k->dirs[1]);
  if (k->cancelled && k->kept.code == MR_OK)
    k->kept.code = mr_err_set(&k->err, MR_E_CANCELLED, NULL, "cancelled");
  k->kept.err = k->kept.code == MR_OK ? NULL : &k->err;
  k->kept.fd = -1;
  if (k->kept.code == MR_OK && k->what == CHECKPOINT && k->held) {
    lseek(k->archive, 0, SEEK_SET);
    k->kept.fd = k->archive; /* the caller's now */
    k->archive = -1;
  } else {
    shut(&k->archive);
  }
  k->o.fn = NULL;
  k->calling = true;
  if (k->held && fn)
    fn(k->o.ud, &k->kept);
  else
    shut(&k->kept.fd);
  k->calling = false;
}

/* ---- the archiver ---- */

static void fail(struct mr_keep *k, int code, const char *text)
{
  if (k->kept.code == MR_OK) k->kept.code = mr_err_set(&k->err, code, NULL, "%s", text);
}

/* The run is over: the pipe has no writer any more. */
static void ran(struct mr_keep *k)
{
  k->running = false;
  if (k->ev) event_free(k->ev);
  k->ev = NULL;
  shut(&k->report[0]);
  mr_child_release(&k->child);
  if (!k->done) fail(k, MR_E_INTERNAL, "the archiver ended without a word");
  if (k->freeze >= 0 && !mr_local_frozen(k->freeze)) k->kept.frozen = false;
  over(k);
}

static void on_line(struct mr_keep *k, char *line)
{
  static const struct {
    const char *word;
    int code;
  } faults[] = {{"invalid ", MR_E_INVALID}, {"limit ", MR_E_TOO_LARGE}, {"io ", MR_E_IO}};
  long long bytes, entries, skipped;

  if (sscanf(line, "progress %lld %lld", &bytes, &entries) == 2) {
    if (k->o.progress && k->held && !k->cancelled) k->o.progress(k->o.ud, bytes, entries);
  } else if (sscanf(line, "done %lld %lld %lld", &bytes, &entries, &skipped) == 3) {
    k->done = true;
    k->kept.bytes = bytes;
    k->kept.entries = entries;
    k->kept.skipped = skipped;
  } else if (strncmp(line, "error ", 6) == 0) {
    k->done = true;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
      if (strncmp(line + 6, faults[i].word, strlen(faults[i].word)) == 0)
        fail(k, faults[i].code, line + 6 + strlen(faults[i].word));
    fail(k, MR_E_IO, line + 6);
  } else if (!k->done) { /* of the dynamic loader, say */
    fail(k, MR_E_UNSUPPORTED, line);
  }
}

static void on_io(struct mr_ready *r)
{
  struct mr_keep *k = MR_OF(r, struct mr_keep, io);
  ssize_t n;
  char *end;

  while ((n = read(k->report[0], k->line + k->nline, sizeof k->line - 1 - k->nline)) > 0) {
    k->nline += (size_t)n;
    while ((end = memchr(k->line, '\n', k->nline)) || k->nline == sizeof k->line - 1) {
      size_t used = end ? (size_t)(end - k->line) + 1 : k->nline;
      k->line[used - (end != NULL)] = '\0';
      on_line(k, k->line);
      memmove(k->line, k->line + used, k->nline - used);
      k->nline -= used;
    }
  }
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    event_add(k->ev, NULL);
    return;
  }
  if (k->spawning) return; /* on_started comes back to it */
  ran(k);
  settle(k);
}

static void on_readable(evutil_socket_t fd, short what, void *ud)
{
  struct mr_keep *k = ud;
  (void)fd;
  (void)what;
  mr_ready_post(k->l->loop, &k->io);
}

static void on_started(void *ud, struct mr_child *c, int code, int pid, const struct mr_err *err)
{
  struct mr_keep *k = ud;

  (void)pid;
  k->spawning = false;
  shut(&k->report[1]);
  if (code != MR_OK) {
    k->done = true;
    fail(k, code, err->message);
  } else if (k->cancelled) {
    mr_child_kill(c, SIGKILL);
  }
  mr_ready_post(k->l->loop, &k->io);
}

static void on_ended(void *ud, struct mr_child *c, bool known, int status, int sig)
{
  (void)ud; /* the end of the pipe says it */
  (void)c;
  (void)known;
  (void)status;
  (void)sig;
}

static int spawn(struct mr_keep *k)
{
  const struct mr_local_conf *c = k->conf;
  char bytes[48], file[48], entries[48], uid[48];
  const char *argv[8] = {"moonrig-keep", k->what == RESTORE ? "do=restore" : "do=save", bytes, file, entries};
  int fds[5] = {k->archive, -1, k->report[1], k->dirs[0], k->dirs[1]};
  struct mr_child_opts opts = {.argv = argv,
                               .exe_fd = c->keep_fd,
                               .fds = fds,
                               .nfds = 5,
                               .kill_on_free = true,
                               .started = on_started,
                               .ended = on_ended,
                               .ud = k};

  snprintf(bytes, sizeof bytes, "bytes=%lld", (long long)c->disk_max + (c->disk_max >> 3));
  snprintf(file, sizeof file, "file=%lld", (long long)c->file_max);
  snprintf(entries, sizeof entries, "entries=%lld", (long long)c->files_max);
  snprintf(uid, sizeof uid, "uid=%lld", (long long)k->uid);
  if (c->as_root) argv[5] = uid;
  return mr_child_spawn(k->l->childs, &opts, &k->child, &k->err);
}

static void run(struct mr_keep *k)
{
  if (pipe2(k->report, O_CLOEXEC | O_NONBLOCK) != 0) {
    k->report[0] = k->report[1] = -1;
    k->kept.code = mr_err_errno(&k->err, "pipe");
    return;
  }
  fcntl(k->report[1], F_SETFL, 0);
  k->ev = event_new(mr_loop_base(k->l->loop), k->report[0], EV_READ, on_readable, k);
  k->kept.code = k->ev ? spawn(k) : mr_err_nomem(&k->err);
  if (k->kept.code == MR_OK && event_add(k->ev, NULL) != 0) k->kept.code = mr_err_nomem(&k->err);
  k->spawning = k->running = k->kept.code == MR_OK;
}

static void job_done(struct mr_job *j)
{
  struct mr_keep *k = MR_OF(j, struct mr_keep, job);

  k->submitted = false;
  if (!k->link) { /* the driver is gone: nobody is called back */
    drop(k);
  } else if (k->what == DROP) {
    k->stage[0] = '\0';
  } else {
    if (k->kept.code == MR_OK && k->what != TAKE && !k->cancelled) run(k);
    if (!k->running) over(k);
  }
  settle(k);
}

/* ---- starting ---- */

static void submit(struct mr_keep *k, enum what what)
{
  k->what = what;
  k->job.work = work;
  k->job.done = job_done;
  k->submitted = mr_pool_submit(k->l->pool, &k->job) == MR_OK;
  if (!k->submitted) fail(k, MR_E_UNAVAILABLE, "too much disk work is waiting");
}

/* A restore waits until the start's sweep is over: it empties the place that it works in. */
static void start(struct mr_ready *r)
{
  struct mr_keep *k = MR_OF(r, struct mr_keep, start);
  struct mr_box *b = mr_local_find(k->l, k->session);

  if (k->what != CHECKPOINT && b && (b->state != MR_BOX_COLD || b->job || b->nops)) {
    fail(k, MR_E_STATE, "the session's sandbox is in use");
    over(k);
  } else if (k->l->sweeping) {
    mr_timer_set(k->l->loop, &k->timer, WAIT_US);
    return;
  } else {
    submit(k, k->what);
    if (!k->submitted) over(k);
  }
  settle(k);
}

static void on_timer(struct mr_timer *t)
{
  struct mr_keep *k = MR_OF(t, struct mr_keep, timer);
  mr_ready_post(k->l->loop, &k->start);
}

static int begin(struct mr_sandbox_driver *d, enum what what, int archive, const struct mr_sandbox_keep_opts *o,
                 struct mr_sandbox_keep **out)
{
  struct mr_local *l = MR_OF(d, struct mr_local, base);
  struct mr_keep *k;

  *out = NULL;
  if (!mr_session_name_ok(o->session_id)) return MR_E_INVALID;
  k = mr_mem_zalloc(l->mem, sizeof *k);
  if (!k) return MR_E_NOMEM;
  k->base.v = d->v;
  k->l = l;
  k->conf = mr_local_conf_ref(l->conf);
  k->what = what;
  k->held = true;
  k->archive = archive;
  k->dirs[0] = k->dirs[1] = k->freeze = k->report[0] = k->report[1] = -1;
  k->kept.fd = -1;
  snprintf(k->session, sizeof k->session, "%s", o->session_id);
  k->o = *o;
  mr_ready_init(&k->io, on_io);
  mr_ready_init(&k->start, start);
  mr_timer_init(&k->timer, on_timer);
  k->link = &l->keeps;
  k->next = l->keeps;
  if (k->next) k->next->link = &k->next;
  l->keeps = k;
  mr_ready_post(l->loop, &k->start);
  *out = &k->base;
  return MR_OK;
}

int mr_keep_checkpoint(struct mr_sandbox_driver *d, const struct mr_sandbox_keep_opts *o,
                       struct mr_sandbox_keep **out)
{
  return begin(d, CHECKPOINT, -1, o, out);
}

int mr_keep_restore(struct mr_sandbox_driver *d, int fd, const struct mr_sandbox_keep_opts *o,
                    struct mr_sandbox_keep **out)
{
  int own = fcntl(fd, F_DUPFD_CLOEXEC, 3), code = own < 0 ? MR_E_IO : begin(d, RESTORE, own, o, out);

  if (code != MR_OK) shut(&own);
  return code;
}

int mr_keep_take(struct mr_sandbox_keep *base, mr_sandbox_kept_fn fn, void *ud)
{
  struct mr_keep *k = MR_OF(base, struct mr_keep, base);

  if (!k->stage[0] || k->submitted || k->running || k->spawning || k->kept.code != MR_OK || !k->link)
    return MR_E_STATE;
  k->o.fn = fn;
  k->o.ud = ud;
  k->what = TAKE;
  mr_ready_post(k->l->loop, &k->start);
  return MR_OK;
}

void mr_keep_free(struct mr_sandbox_keep *base)
{
  struct mr_keep *k = MR_OF(base, struct mr_keep, base);

  k->held = false;
  k->cancelled = true;
  if (k->running && !k->spawning && k->child) mr_child_kill(k->child, SIGKILL);
  if (k->link) {
    mr_ready_cancel(k->l->loop, &k->start);
    mr_timer_cancel(k->l->loop, &k->timer);
  }
  settle(k);
}

bool mr_keeps_spawning(const struct mr_local *l)
{
  for (const struct mr_keep *k = l->keeps; k; k = k->next)
    if (k->spawning) return true;
  return false;
}

/* The driver goes: runs are ended, jobs come to their end in the pool, holders still free what they hold. */
void mr_keeps_free(struct mr_local *l)
{
  struct mr_keep *k;

  while ((k = l->keeps)) {
    if (k->child && k->running) mr_child_kill(k->child, SIGKILL);
    unlink_keep(k);
    mr_child_release(&k->child);
    k->running = k->spawning = false;
    k->o.fn = NULL;
    if (!k->submitted) close_all(k);
    if (!k->submitted && k->stage[0]) drop(k);
    settle(k);
  }
}
