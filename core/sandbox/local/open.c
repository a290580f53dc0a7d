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

static int make(struct mr_open *o, int dir)
{
  int code = get_uid(o, dir);

  if (code == MR_OK) code = writable_dir(o, dir, "workspace", &o->err);
  if (code == MR_OK) code = writable_dir(o, dir, "outputs", &o->err);
  if (code != MR_OK) return code;
  o->lock = openat(dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (o->lock < 0) return mr_err_errno(&o->err, "the sandbox's lock");
  o->listen = mr_local_listen(dir, &o->conn);
  if (o->listen < 0) return mr_err_errno(&o->err, "the sandbox's socket");
  if (pipe2(o->report, O_CLOEXEC | O_NONBLOCK) != 0) {
    o->report[0] = o->report[1] = -1;
    return mr_err_errno(&o->err, "pipe");
  }
  fcntl(o->report[1], F_SETFL, 0); /* the writers are others: they may wait */
  o->how = MR_OPEN_MADE;
  return MR_OK;
}

/* The warm sandbox becomes the session's, unless that has files already. */
static void take_over(struct mr_open *o)
{
  struct stat st = {0};
  char path[MR_SESSION_MAX + 16];

  if (!o->warm[0] || renameat2(o->conf->s_fd, o->warm, o->conf->s_fd, o->session, RENAME_NOREPLACE) != 0)
    return;
  snprintf(path, sizeof path, "%s/workspace", o->session);
  if (o->conf->as_root && fstatat(o->conf->s_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
      mr_local_uid_move(o->conf, (int64_t)st.st_uid, o->warm, o->session) != MR_OK)
    mr_log(o->conf->sys, MR_LOG_WARN, "sandbox", "%s: its uid stays that of %s", o->session, o->warm);
  o->warm[0] = '\0';
}

static int attach_or_make(struct mr_open *o)
{
  int dir, code = MR_OK, refused;

  take_over(o);
  dir = mr_local_session_dir(o->conf, o->session, o->may_make);
  if (dir < 0 && errno == ENOENT) goto out; /* MR_OPEN_DEAD */
  if (dir < 0) return mr_err_errno(&o->err, "the sandbox's directory");
  if (o->end_only) {
    code = mr_local_end(dir, &o->err);
    goto out;
  }
  o->conn = mr_local_connect(dir);
  refused = errno;
  if (o->conn >= 0 || o->may_make)
    code = mr_local_uploads(dir, o->mounts, o->nmounts, o->conf->as_root, &o->err);
  if (code == MR_OK && o->conn >= 0)
    o->how = MR_OPEN_ATTACHED;
  else if (code == MR_OK && refused == EAGAIN)
    code = mr_err_set(&o->err, MR_E_UNAVAILABLE, NULL, "the sandbox has too many connections that wait");
  else if (code == MR_OK && o->may_make && (code = mr_local_end(dir, &o->err)) == MR_OK)
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
