/*
 * open.c - the file-system half of reaching a sandbox, in one pool job: attach to the one that lives, or
 * make the directories, the uid, the socket and the pipe that a new one needs. Starting the processes is
 * the loop thread's business (box.c).
 *
 * What counts as alive: a process listens on <session>/envd.sock. A launcher that holds the lock while
 * nobody listens is a sandbox on its way out, and is ended before another is made.
 */
#include "sandbox/local/local_t.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int writable_dir(const struct mr_open *o, int dir, const char *name, struct mr_err *err)
{
  struct stat st;
  int fd = -1, code = MR_OK;

  if (mkdirat(dir, name, 0755) != 0 && errno != EEXIST) return mr_err_errno(err, name);
  if (!o->conf->as_root) return MR_OK;
  fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st) != 0)
    code = mr_err_errno(err, name);
  else if ((int64_t)st.st_uid == o->uid)
    ;
  else if (st.st_uid == 0)
    code = fchown(fd, (uid_t)o->uid, (gid_t)o->uid) == 0 ? MR_OK : mr_err_errno(err, name);
  else
    code = mr_tree_chown(dir, name, o->uid, err); /* made under another uid: another server, another range */
  if (fd >= 0) close(fd);
  return code;
}

static int get_uid(struct mr_open *o, int dir)
{
  struct stat st = {0};

  o->uid = -1;
  if (!o->conf->as_root) return MR_OK;
  if (fstatat(dir, "workspace", &st, AT_SYMLINK_NOFOLLOW) != 0) st.st_uid = 0;
  return mr_local_uid_get(o->conf, o->session, (int64_t)st.st_uid, &o->uid, &o->err);
}

/* So that nobody removes it while it is mounted, whoever's server runs then. */
static int note_layer(struct mr_open *o, int dir)
{
  if (unlinkat(dir, "layer", 0) != 0 && errno != ENOENT) return mr_err_errno(&o->err, "the sandbox's layer");
  if (o->layer[0] && symlinkat(o->layer, dir, "layer") != 0)
    return mr_err_errno(&o->err, "the sandbox's layer");
  return MR_OK;
}

/* The password of the session's proxy: it outlives the server as the sandbox does that was told it. Files of the
 * session's directory are the server's; only its subdirectories are shown inside. */
static int token(struct mr_open *o, int dir, bool anew)
{
  unsigned char bytes[(MR_EGRESS_TOKEN - 1) / 2];
  int fd, code = MR_OK;

  if (!o->conf->network) return MR_OK;
  fd = openat(dir, "token", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (!anew && fd >= 0 && read(fd, o->token, MR_EGRESS_TOKEN - 1) != MR_EGRESS_TOKEN - 1) o->token[0] = '\0';
  if (fd >= 0) close(fd);
  if (!anew) return MR_OK; /* without one: a sandbox from before it had a network */
  if (o->conf->sys->random(o->conf->sys->ud, bytes, sizeof bytes) != 0)
    return mr_err_set(&o->err, MR_E_IO, NULL, "no randomness");
  for (size_t i = 0; i < sizeof bytes; i++)
    snprintf(o->token + 2 * i, 3, "%02x", bytes[i]);
  unlinkat(dir, "token", 0);
  fd = openat(dir, "token", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0 || write(fd, o->token, MR_EGRESS_TOKEN - 1) != MR_EGRESS_TOKEN - 1)
    code = mr_err_errno(&o->err, "the sandbox's token");
  if (fd >= 0) close(fd);
  return code;
}

/* For who asks what lives of an environment. */
static int note_environment(const struct mr_open *o, int dir)
{
  unlinkat(dir, "environment", 0);
  return o->environment[0] ? symlinkat(o->environment, dir, "environment") : 0;
}

static int join_cgroup(struct mr_open *o, int dir)
{
  int force, need = MR_CG_MEMORY | MR_CG_PIDS, code;
  char why[200];

  code = mr_cgroup_make(&o->conf->cgroup, o->session, dir, o->cgroup, &force, why);
  if (code == MR_OK && o->conf->require_limits && (force & need) != need)
    code = mr_err_set(&o->err, MR_E_UNSUPPORTED, NULL, "sandbox.require_limits: %s", why);
  return code;
}

static int make(struct mr_open *o, int dir)
{
  int code = get_uid(o, dir);

  if (code == MR_OK) code = writable_dir(o, dir, "workspace", &o->err);
  if (code == MR_OK) code = writable_dir(o, dir, "outputs", &o->err);
  if (code == MR_OK) code = note_layer(o, dir);
  if (code == MR_OK && o->conf->bare && mkdirat(dir, "run", 0700) != 0 && errno != EEXIST)
    code = mr_err_errno(&o->err, "run");
  if (code == MR_OK) code = token(o, dir, true);
  if (code != MR_OK) return code;
  if (note_environment(o, dir) != 0) return mr_err_errno(&o->err, "the sandbox's directory");
  o->lock = openat(dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (o->lock < 0) return mr_err_errno(&o->err, "the sandbox's lock");
  o->listen = mr_local_listen(dir, &o->conn);
  if (o->listen < 0) return mr_err_errno(&o->err, "the sandbox's socket");
  if (pipe2(o->report, O_CLOEXEC | O_NONBLOCK) != 0) {
    o->report[0] = o->report[1] = -1;
    return mr_err_errno(&o->err, "pipe");
  }
  fcntl(o->report[1], F_SETFL, 0); /* the writers are others: they may wait */
  code = join_cgroup(o, dir);
  if (code == MR_OK) o->how = MR_OPEN_MADE;
  return code;
}

/* The warm sandbox becomes the session's, unless that has files already. */
static void take_over(struct mr_open *o)
{
  struct stat st = {0};
  char path[MR_SESSION_MAX + 16];
  int dir;

  if (!o->warm[0] || renameat2(o->conf->s_fd, o->warm, o->conf->s_fd, o->session, RENAME_NOREPLACE) != 0)
    return;
  snprintf(path, sizeof path, "%s/workspace", o->session);
  if (o->conf->as_root && fstatat(o->conf->s_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
      mr_local_uid_move(o->conf, (int64_t)st.st_uid, o->warm, o->session) != MR_OK)
    mr_log(o->conf->sys, MR_LOG_WARN, "sandbox", "%s: its uid stays that of %s", o->session, o->warm);
  dir = mr_local_session_dir(o->conf, o->session, false);
  if (dir < 0 || note_environment(o, dir) != 0)
    mr_log(o->conf->sys, MR_LOG_WARN, "sandbox", "%s: its environment is not noted", o->session);
  if (dir >= 0) close(dir);
  o->warm[0] = '\0';
}

static int attach_or_make(struct mr_open *o)
{
  struct mr_cgroup_stats st;
  int dir, code = MR_OK, refused;

  take_over(o);
  dir = mr_local_session_dir(o->conf, o->session, o->may_make);
  if (dir < 0 && errno == ENOENT) goto out; /* MR_OPEN_DEAD */
  if (dir < 0) return mr_err_errno(&o->err, "the sandbox's directory");
  if (o->end_only) {
    code = mr_local_end(o->conf, dir, &o->err);
    goto out;
  }
  o->conn = mr_local_connect(dir);
  refused = errno;
  o->oom = o->conn < 0 && refused != EAGAIN && mr_cgroup_stats(dir, &st) && st.oom_kills > 0;
  if (o->conn >= 0 || o->may_make)
    code = mr_local_uploads(dir, o->mounts, o->nmounts, o->conf->as_root, &o->err);
  if (code == MR_OK && o->conn >= 0) code = token(o, dir, false);
  if (code == MR_OK && o->conn >= 0)
    o->how = MR_OPEN_ATTACHED;
  else if (code == MR_OK && refused == EAGAIN)
    code = mr_err_set(&o->err, MR_E_UNAVAILABLE, NULL, "the sandbox has too many connections that wait");
  else if (code == MR_OK && o->may_make && (code = mr_local_end(o->conf, dir, &o->err)) == MR_OK)
    code = make(o, dir);
out:
  if (dir >= 0) close(dir);
  return code;
}

void mr_open_work(struct mr_job *j, void *worker)
{
  struct mr_open *o = MR_OF(j, struct mr_open, job);

  (void)worker;
  o->how = MR_OPEN_DEAD;
  if (attach_or_make(o) != MR_OK) o->how = MR_OPEN_FAILED;
}

static void shut(int *fd)
{
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

void mr_open_free(struct mr_open *o)
{
  const struct mr_mem *mem = &o->conf->sys->mem;
  struct mr_local_conf *c = o->conf;

  shut(&o->conn);
  shut(&o->listen);
  shut(&o->report[0]);
  shut(&o->report[1]);
  shut(&o->lock);
  mr_arena_free(&o->arena);
  mr_mem_free(mem, o);
  mr_local_conf_unref(&c);
}
