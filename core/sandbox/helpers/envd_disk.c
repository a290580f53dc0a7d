/*
 * envd_disk - what a session may keep on disk. Its workspace and outputs are directories of the host, which no mount
 * bounds; envd is as old as the sandbox and needs no server, so it is the one that looks (config: disk_max, files_max).
 *
 * A child walks the directories and adds up blocks and entries; files that have no name any more but are open count,
 * too. That is dear, so it is done when there is reason: the file system has lost half of what is left to the session
 * since the last walk, or a while has passed. When it has lost all of it, everything is stopped first, so nothing is
 * written during the walk: what is over the limit is what could be written in one tick, some TICK_MS.
 *
 * Over the limit every process is killed but the shell, and the model is told. It may run commands still, to delete;
 * one that writes SLACK more is killed again, and the write and edit tools refuse. Who goes far over the limit so, a
 * little with each command, gets a shell that can write no file at all, until the rest is under the limit. Free space is the whole file
 * system's: others' writing costs walks, and their deleting can hide a writer until the next walk, seconds later.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "envd.h"

enum {
  TICK_MS = 50,
  REST_MS = 100,
  WALK_MS = 2000,
  WALK_SHARE = 20,
  WALK_MAX_MS = 30000,
  DEPTH = 7000 /* descriptors: a directory each */
};
enum {
  STEP = 8 << 20,
  SLACK = 8 << 20,
  FILES_STEP = 1000,
  FILES_SLACK = 1000,
  ENTRY = 256 /* bytes, an inode's */
};
enum { FAR = 64 << 20 };

struct sum {
  int64_t bytes, files;
};

/* ---- the walk: in a child ---- */

static void count(struct sum *s, const struct stat *st)
{
  int64_t links = !S_ISDIR(st->st_mode) && st->st_nlink > 1 ? (int64_t)st->st_nlink : 1;
  s->bytes += (int64_t)st->st_blocks * 512 / links + ENTRY;
  s->files++;
}

/* The owner may have taken the right to look away; he has it while this looks, *was is what it was then, else -1. By
 * name: whatever a payload puts there instead is its own as well. */
static DIR *open_dir(int at, const char *name, int *was)
{
  int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  struct stat st;
  *was = -1;
  if ((fd < 0 ? errno == EACCES : faccessat(fd, ".", X_OK, 0) != 0) &&
      !fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode) &&
      !fchmodat(at, name, (st.st_mode & 07777) | 0700, 0)) {
    *was = st.st_mode & 07777;
    if (fd < 0) fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  }
  DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
  if (!d && fd >= 0) close(fd);
  return d;
}

static void below(const struct envd *e, struct sum *s, int at, const char *name, int depth)
{
  struct stat st;
  int was;
  DIR *d = open_dir(at, name, &was);
  if (depth > DEPTH) s->bytes += e->disk.allowed + 1; /* deeper than anybody works: it does not hide there */
  for (struct dirent *n;
       s->bytes <= e->disk.allowed && s->files <= e->disk.files_allowed && d && (n = readdir(d));) {
    if (!strcmp(n->d_name, ".") || !strcmp(n->d_name, "..")) continue;
    if (fstatat(dirfd(d), n->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
    count(s, &st);
    if (S_ISDIR(st.st_mode)) below(e, s, dirfd(d), n->d_name, depth + 1);
  }
  if (d && was >= 0 && fchmod(dirfd(d), (mode_t)was)) s->files++; /* it went meanwhile */
  if (d) closedir(d);
}

static void open_files(struct sum *s, pid_t pid, dev_t dev)
{
  char path[64];
  struct stat st;
  snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
  DIR *d = opendir(path);
  for (struct dirent *n; d && (n = readdir(d));)
    if (n->d_name[0] != '.' && !fstatat(dirfd(d), n->d_name, &st, 0) && S_ISREG(st.st_mode) && !st.st_nlink &&
        st.st_dev == dev)
      count(s, &st); /* one that several have open counts that often: it is over all the sooner */
  if (d) closedir(d);
}

__attribute__((noreturn)) static void walk(struct envd *e, int out)
{
  struct sum s = {0};
  struct stat home;
  DIR *proc = opendir("/proc"); /* before the jail, which does not let one process look at another */
  if (!fstat(e->home, &home))
    for (struct dirent *n; proc && (n = readdir(proc));) {
      pid_t pid = (pid_t)strtol(n->d_name, NULL, 10);
      if (pid > 1) open_files(&s, pid, home.st_dev);
    }
  if (!jail_enter(&e->jail, false)) _exit(1);
  below(e, &s, e->home, ".", 0);
  below(e, &s, AT_FDCWD, MR_ENVD_OUTPUTS, 0);
  _exit(write(out, &s, sizeof s) != sizeof s);
}

/* ---- when ---- */

static void space(const struct envd *e, int64_t *bytes, int64_t *files)
{
  struct statvfs v;
  *bytes = *files = 0;
  if (fstatvfs(e->home, &v)) return;
  *bytes = (int64_t)v.f_bfree * (int64_t)v.f_frsize;
  *files = (int64_t)v.f_ffree;
}

static void start_walk(struct envd *e, bool stop)
{
  struct disk *d = &e->disk;
  int fds[2];
  if (pipe2(fds, O_CLOEXEC)) return;
  if (stop) kill(-1, SIGSTOP);
  d->stopped = stop;
  space(e, &d->free_bytes, &d->free_files);
  d->walker = fork();
  if (!d->walker) walk(e, fds[1]);
  close(fds[1]);
  if (d->walker < 0) {
    close(fds[0]);
    d->walker = 0;
    if (stop) kill(-1, SIGCONT);
    return;
  }
  fcntl(fds[0], F_SETFL, O_NONBLOCK);
  d->fd = fds[0];
  d->serial = e->shell.serial;
  d->walked_at = envd_now();
}

static bool active(struct envd *e)
{
  for (int i = 0; i < ENVD_WORKERS; i++)
    if (e->workers[i].call) return true;
  return e->shell.call || proc_left(e, true);
}

void disk_on_time(struct envd *e)
{
  struct disk *d = &e->disk;
  int64_t now = envd_now(), bytes, files;
  if (!d->max || now < d->tick || e->freezer >= 0) return;
  bool busy = e->shell.call != NULL;
  d->tick = now + (busy ? TICK_MS : REST_MS);
  if (d->walker) {
    if (now - d->walked_at > WALK_MAX_MS) kill(d->walker, SIGKILL);
    return;
  }
  if (!busy && !active(e)) {
    if (d->settled) d->tick = INT64_MAX;   /* until something runs */
    if (!d->settled) start_walk(e, false); /* what the last one left */
    d->settled = true;
    return;
  }
  d->settled = false;
  space(e, &bytes, &files);
  int64_t lost = d->free_bytes - bytes, gone = d->free_files - files;
  int64_t left = d->allowed - d->bytes, room = d->files_allowed - d->files;
  int64_t pause = d->walk_ms * WALK_SHARE > WALK_MS ? d->walk_ms * WALK_SHARE : WALK_MS;
  bool all = (lost >= left && lost >= STEP) || (gone >= room && gone >= FILES_STEP);
  bool half = (lost >= left / 2 && lost >= STEP) || (gone >= room / 2 && gone >= FILES_STEP);
  if (!d->measured || all || half || now - d->walked_at >= pause) start_walk(e, all);
}

void disk_wake(struct envd *e)
{
  if (e->disk.max && e->disk.tick == INT64_MAX) e->disk.tick = envd_now() + TICK_MS;
}

/* ---- what it found ---- */

static void say_why(struct disk *d)
{
  if (d->files > d->files_max && d->bytes <= d->max)
    snprintf(d->why, sizeof d->why,
             "there are more than %lld files and directories in /workspace and /mnt/session/outputs",
             (long long)d->files_max);
  else
    snprintf(d->why, sizeof d->why,
             "the files in /workspace and /mnt/session/outputs take more than %lld MiB, which is the limit",
             (long long)(d->max >> 20));
}

static void over(struct envd *e)
{
  struct disk *d = &e->disk;
  if (!shell_over(e)) {
    proc_kill(e, true);
    d->note = true; /* the next command's result says it */
  }
}

/* Another shell, with the right to write or without. */
static void reshell(struct envd *e, bool closed)
{
  if (e->disk.closed == closed) return;
  e->disk.closed = closed;
  if (e->shell.pid) proc_kill(e, false); /* envd_shell.c sees it end, and tells */
}

void disk_on_walk(struct envd *e)
{
  struct disk *d = &e->disk;
  struct sum s;
  ssize_t n = read(d->fd, &s, sizeof s);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  close(d->fd);
  d->fd = -1;
  d->walker = 0;
  d->walk_ms = envd_now() - d->walked_at;
  d->tick = 0;
  if (n == sizeof s) {
    bool first = !d->measured;
    d->measured = true;
    d->bytes = s.bytes;
    d->files = s.files;
    d->over = s.bytes > d->max || s.files > d->files_max;
    if (d->over) say_why(d);
    /* Over from before: a little more is let pass, so that something can be deleted. */
    if (d->over && (first || d->settled)) {
      d->allowed = s.bytes > d->max ? s.bytes + SLACK : d->max;
      d->files_allowed = s.files > d->files_max ? s.files + FILES_SLACK : d->files_max;
    }
    if (!d->over) {
      d->allowed = d->max;
      d->files_allowed = d->files_max;
    }
    if (s.bytes > d->allowed || s.files > d->files_allowed) {
      /* Not the next command, which may be there to delete, for what the one before did: that is looked at again. */
      if (d->serial == e->shell.serial) over(e);
      if (s.bytes > d->allowed) d->allowed = s.bytes + SLACK;
      if (s.files > d->files_allowed) d->files_allowed = s.files + FILES_SLACK;
      d->settled = false;
    }
    if (s.bytes > d->max + (d->max / 8 > FAR ? d->max / 8 : FAR))
      reshell(e, true);
    else if (!d->over)
      reshell(e, false);
  }
  if (d->stopped && e->freezer < 0) kill(-1, SIGCONT);
  d->stopped = false;
}
