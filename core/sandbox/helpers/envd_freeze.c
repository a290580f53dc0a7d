/*
 * envd_freeze - everything stands still while the host copies the files (proto.h: freeze). The freeze is a
 * connection: it ends when that closes, for whatever reason, so no process stays stopped because somebody died.
 *
 * Stopped is what kill(-1, SIGSTOP) reaches, which for PID 1 is every process, forks in progress included; it
 * holds once each was seen to stand (one may have to finish a write first). Nothing is started meanwhile, no
 * deadline runs out: all are moved by as long as it took. What the payload had stopped by itself goes on, too.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "envd.h"

enum { LOOK_MS = 3, STAND_MS = 8000, MOST_MS = 600000 };

static bool stands(pid_t pid)
{
  char path[40], stat[512];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? 0 : read(fd, stat, sizeof stat - 1);
  if (fd >= 0) close(fd);
  if (n <= 0) return true; /* gone */
  stat[n] = 0;
  const char *name_end = strrchr(stat, ')');
  return name_end && name_end[1] == ' ' && strchr("TtZX", name_end[2]);
}

static bool all_stand(void)
{
  DIR *proc = opendir("/proc");
  bool all = proc != NULL;
  for (struct dirent *d; all && (d = readdir(proc));) {
    pid_t pid = (pid_t)strtol(d->d_name, NULL, 10);
    all = pid <= 1 || stands(pid);
  }
  if (proc) closedir(proc);
  return all;
}

/* True: it is the connection's now. */
bool freeze_begin(struct envd *e, int conn, int64_t ms)
{
  if (e->freezer >= 0 || ms <= 0) return false;
  e->freezer = conn;
  e->frozen_at = envd_now();
  e->freeze_look = e->frozen_at;
  e->conns[conn].attach_by = e->frozen_at + (ms < MOST_MS ? ms : MOST_MS); /* then it is closed */
  kill(-1, SIGSTOP);
  return true;
}

void freeze_on_time(struct envd *e)
{
  int64_t now = envd_now();
  if (e->freezer < 0 || now < e->freeze_look) return;
  if (all_stand()) {
    conn_say(e, e->freezer, "{\"t\":\"frozen\"}");
    e->freeze_look = INT64_MAX;
  } else if (now - e->frozen_at > STAND_MS) {
    conn_close(e, e->freezer);
  } else {
    kill(-1, SIGSTOP);
    e->freeze_look = now + LOOK_MS;
  }
}

void freeze_end(struct envd *e)
{
  struct shell *s = &e->shell;
  int64_t by = envd_now() - e->frozen_at;
  e->freezer = -1;
  kill(-1, SIGCONT);
  s->deadline += by;
  s->give_up += by;
  s->tick += by;
  if (s->clearing) s->clearing += by;
  relay_thaw(e, by);
  for (int i = 0; i < ENVD_WORKERS; i++)
    e->workers[i].kill_at += by;
}
