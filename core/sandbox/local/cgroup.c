/*
 * cgroup.c - control groups of sandboxes; see cgroup.h.
 *
 * <base>/moonrig-<hash>/<session>: base is a group that was delegated to this process (systemd: Delegate=yes),
 * or the top of the hierarchy when it runs as root. Version 2 lets a group hold processes or hand controllers
 * down, not both: a process alone in a delegated group moves into <base>/moonrig-server first.
 *
 * Invariant: a group is only ever killed when the link in a session's directory, or its place below our own
 * <base>/moonrig-<hash>, says that it is ours. Called by open.c, destroy.c, probe.c, diagnose.c.
 */
#include "sandbox/local/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_MS = 5000, STEP_MS = 5 };
#define NOTE "user.moonrig.root"

/* ---- files of the kernel's ---- */

/* The file's beginning; "" when it cannot be read. */
static const char *slurp(const char *dir, const char *name, char *out, size_t n)
{
  char path[MR_CG_PATH + 40];
  ssize_t got;
  int fd;

  out[0] = '\0';
  snprintf(path, sizeof path, "%s/%s", dir, name);
  fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return out;
  got = read(fd, out, n - 1);
  out[got > 0 ? got : 0] = '\0';
  close(fd);
  return out;
}

static int put(const char *dir, const char *name, const char *text)
{
  char path[MR_CG_PATH + 40];
  int fd, e = 0;

  snprintf(path, sizeof path, "%s/%s", dir, name);
  fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  if (write(fd, text, strlen(text)) < 0) e = errno;
  close(fd);
  return e;
}

static int put_number(const char *dir, const char *name, int64_t v)
{
  char text[32];

  snprintf(text, sizeof text, "%lld", (long long)v);
  return put(dir, name, text);
}

/* The number after a word at the start of a line: "oom_kill 3". -1: no such line. */
static int64_t field(const char *text, const char *word)
{
  size_t n = strlen(word);

  for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
    if (strncmp(p, word, n) == 0 && p[n] == ' ') return strtoll(p + n + 1, NULL, 10);
  return -1;
}

static bool has_word(const char *list, const char *word)
{
  size_t n = strlen(word);

  for (const char *p = list; (p = strstr(p, word)); p += n)
    if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\n' || p[n] == '\0')) return true;
  return false;
}

/* ---- where ---- */

/* The mount of version 2, and what of the hierarchy it shows. */
static bool find_mount(char at[256], char shown[256])
{
  FILE *f = fopen("/proc/self/mountinfo", "re");
  char line[2048], type[64];
  bool found = false;

  while (f && !found && fgets(line, sizeof line, f)) {
    const char *dash = strstr(line, " - ");
    found = dash && sscanf(dash, " - %63s", type) == 1 && strcmp(type, "cgroup2") == 0 &&
            sscanf(line, "%*s %*s %*s %255s %255s", shown, at) == 2;
  }
  if (f) fclose(f);
  return found;
}

static bool own_group(char out[256])
{
  FILE *f = fopen("/proc/self/cgroup", "re");
  char line[512];
  bool found = false;

  while (f && !found && fgets(line, sizeof line, f))
    found = sscanf(line, "0::%255[^\n]", out) == 1;
  if (f) fclose(f);
  return found;
}

static bool marked(const char *dir)
{
  char v[4];

  return (getxattr(dir, "user.delegate", v, sizeof v) > 0 ||
          getxattr(dir, "trusted.delegate", v, sizeof v) > 0) &&
         v[0] == '1';
}

/* Groups can be made in it by this process. */
static bool usable(const char *dir)
{
  char path[MR_CG_PATH];

  snprintf(path, sizeof path, "%s/cgroup.subtree_control", dir);
  return access(dir, W_OK) == 0 && access(path, W_OK) == 0;
}

static bool take(struct mr_cgroup_conf *c, const char *dir, bool own)
{
  if (strlen(dir) >= sizeof c->base || !usable(dir)) return false;
  snprintf(c->base, sizeof c->base, "%s", dir);
  c->own = own;
  return true;
}

static void choose(struct mr_cgroup_conf *c, const char *at, const char *shown, const char *group)
{
  size_t n = strcmp(shown, "/") == 0 ? 0 : strlen(shown);
  char own[600], parent[600], *slash;

  if (n && strncmp(group, shown, n) == 0) group += n;
  snprintf(own, sizeof own, "%s%s", at, strcmp(group, "/") == 0 ? "" : group);
  snprintf(parent, sizeof parent, "%s", own);
  slash = strrchr(parent, '/');
  if (slash && strlen(own) > strlen(at)) *slash = '\0';
  if (marked(own) && take(c, own, true)) return;
  if (strcmp(parent, own) != 0 && marked(parent) && take(c, parent, false)) return;
  if (geteuid() == 0) {
    take(c, at, strcmp(own, at) == 0);
    return;
  }
  if (!take(c, own, true) && strcmp(parent, own) != 0) take(c, parent, false);
}

void mr_cgroup_find(struct mr_cgroup_conf *c, const char *root)
{
  char at[256], shown[256], group[256], text[512];
  uint64_t h = 1469598103934665603u;

  c->base[0] = c->why[0] = '\0';
  c->there = 0;
  if (!find_mount(at, shown) || !own_group(group)) {
    snprintf(c->why, sizeof c->why, "cgroup v2 is not mounted here");
    return;
  }
  choose(c, at, shown, group);
  if (!c->base[0]) {
    snprintf(c->why, sizeof c->why, "no group of this process's own can be written in %.100s; fix: %s", at,
             geteuid() == 0 ? "mount it writable" : "run under systemd with Delegate=yes");
    return;
  }
  snprintf(c->root, sizeof c->root, "%s", strlen(root) < sizeof c->root ? root : "");
  for (const char *p = root; *p; p++)
    h = (h ^ (unsigned char)*p) * 1099511628211u;
  snprintf(c->group, sizeof c->group, "%s/moonrig-%08llx", c->base, (unsigned long long)(h & 0xffffffff));
  slurp(c->base, "cgroup.controllers", text, sizeof text);
  c->there = (has_word(text, "memory") ? MR_CG_MEMORY : 0) | (has_word(text, "pids") ? MR_CG_PIDS : 0) |
             (has_word(text, "cpu") ? MR_CG_CPU : 0);
  if ((c->there & (MR_CG_MEMORY | MR_CG_PIDS)) != (MR_CG_MEMORY | MR_CG_PIDS))
    snprintf(c->why, sizeof c->why, "cgroup v2 at %.60s has no controllers for memory and pids%s", c->base,
             strcmp(at, "/sys/fs/cgroup/unified") == 0
                 ? " (version 1 holds them); fix: boot with systemd.unified_cgroup_hierarchy=1"
                 : "");
}

/* ---- making ---- */

/* Alone in the group: nobody else is moved. */
static bool alone(const char *dir)
{
  char text[64], self[32];

  snprintf(self, sizeof self, "%d\n", (int)getpid());
  return strcmp(slurp(dir, "cgroup.procs", text, sizeof text), self) == 0;
}

static int step_aside(const struct mr_cgroup_conf *c)
{
  char server[MR_CG_PATH];

  if (!c->own || !alone(c->base)) return EBUSY;
  snprintf(server, sizeof server, "%s/moonrig-server", c->base);
  if (mkdir(server, 0755) != 0 && errno != EEXIST) return errno;
  return put_number(server, "cgroup.procs", (int64_t)getpid());
}

/* Hands the controllers down that are wanted; what is so already is left alone. */
static int hand_down(const struct mr_cgroup_conf *c, const char *dir)
{
  static const struct {
    const char *word;
    int bit;
  } all[] = {{"memory", MR_CG_MEMORY}, {"pids", MR_CG_PIDS}, {"cpu", MR_CG_CPU}};
  char have[512], want[16];
  int e = 0;

  slurp(dir, "cgroup.subtree_control", have, sizeof have);
  for (size_t i = 0; i < 3 && !e; i++) {
    if (!(c->there & all[i].bit) || has_word(have, all[i].word)) continue;
    if (all[i].bit == MR_CG_CPU && !c->cpu_percent) continue;
    snprintf(want, sizeof want, "+%s", all[i].word);
    e = put(dir, "cgroup.subtree_control", want);
  }
  return e;
}

static int prepare(const struct mr_cgroup_conf *c, char why[200])
{
  int e = hand_down(c, c->base);

  if (e == EBUSY) {
    e = step_aside(c);
    if (!e) e = hand_down(c, c->base);
    if (e == EBUSY) {
      snprintf(why, 200,
               "the group %.80s has other processes in it, too; fix: systemd's DelegateSubgroup=", c->base);
      return e;
    }
  }
  if (!e && mkdir(c->group, 0755) != 0 && errno != EEXIST) e = errno;
  if (!e) e = hand_down(c, c->group);
  if (!e && c->root[0]) setxattr(c->group, NOTE, c->root, strlen(c->root), 0); /* best effort */
  if (e) snprintf(why, 200, "%.120s: %.60s", c->group, strerror(e));
  return e;
}

static int set_limits(const struct mr_cgroup_conf *c, const char *group, char why[200])
{
  char cpu[48], path[MR_CG_PATH + 40];
  int force = 0, e = 0;

  if ((c->there & MR_CG_MEMORY) && (e = put_number(group, "memory.max", c->memory_max)) == 0) {
    put(group, "memory.swap.max", "0"); /* is not there when there is no swap */
    put(group, "memory.oom.group", "1");
    force |= MR_CG_MEMORY;
  }
  if (!e && (c->there & MR_CG_PIDS) && (e = put_number(group, "pids.max", c->pids_max)) == 0)
    force |= MR_CG_PIDS;
  snprintf(cpu, sizeof cpu, "%d 100000", c->cpu_percent * 1000);
  if (!e && c->cpu_percent && (c->there & MR_CG_CPU) && (e = put(group, "cpu.max", cpu)) == 0)
    force |= MR_CG_CPU;
  snprintf(path, sizeof path, "%s/cgroup.kill", group);
  if (access(path, W_OK) == 0) force |= MR_CG_KILL;
  if (e) snprintf(why, 200, "%.120s: %.60s", group, strerror(e));
  return force;
}

int mr_cgroup_make(const struct mr_cgroup_conf *c, const char *session, int dir, char out[MR_CG_PATH],
                   int *force, char why[200])
{
  char group[MR_CG_PATH];
  int e = 0;

  *force = 0;
  out[0] = '\0';
  snprintf(why, 200, "%s", c->why);
  if (!c->base[0]) return MR_OK;
  snprintf(group, sizeof group, "%s/%.80s", c->group, session);
  for (int i = 0; i < 5; i++) { /* another one may remove what is empty between two steps */
    if ((e = prepare(c, why)) != 0) return MR_OK;
    e = mkdir(group, 0755) == 0 || errno == EEXIST ? 0 : errno;
    if (e != ENOENT) break;
  }
  if (!e && unlinkat(dir, "cgroup", 0) != 0 && errno != ENOENT) e = errno;
  if (!e && symlinkat(group, dir, "cgroup") != 0) e = errno;
  if (e) {
    snprintf(why, 200, "%.120s: %.60s", group, strerror(e));
    return MR_OK;
  }
  *force = set_limits(c, group, why);
  snprintf(out, MR_CG_PATH, "%.580s/cgroup.procs", group);
  return MR_OK;
}

/* ---- ending ---- */

static bool empty(const char *group)
{
  char text[256];
  return field(slurp(group, "cgroup.events", text, sizeof text), "populated") <= 0;
}

/* 0, or an errno. A group that is not there is fine. */
static int end_group(const char *group)
{
  const struct timespec nap = {.tv_nsec = STEP_MS * 1000000L};
  int waited = 0;

  if (!empty(group)) put(group, "cgroup.kill", "1");
  for (; !empty(group) && waited < WAIT_MS; waited += STEP_MS)
    nanosleep(&nap, NULL);
  /* Busy for a moment more: the last process is dead, but not gone. */
  for (; rmdir(group) != 0 && errno != ENOENT; waited += STEP_MS) {
    if (errno != EBUSY || waited >= WAIT_MS) return errno;
    nanosleep(&nap, NULL);
  }
  return 0;
}

static bool linked(int dir, char group[MR_CG_PATH])
{
  ssize_t n = readlinkat(dir, "cgroup", group, MR_CG_PATH - 1);

  if (n <= 0) return false;
  group[n] = '\0';
  return group[0] == '/' && strstr(group, "/moonrig-") != NULL;
}

int mr_cgroup_end(const struct mr_cgroup_conf *c, int dir, struct mr_err *err)
{
  char group[MR_CG_PATH];

  if (!linked(dir, group)) return MR_OK;
  errno = end_group(group);
  /* One that cannot be removed any more, by an ordinary user after root, must not keep the files from going. */
  if (errno && errno != EACCES && errno != EPERM && errno != EROFS)
    return mr_err_errno(err, "the sandbox's control group");
  unlinkat(dir, "cgroup", 0);
  if (c->base[0]) rmdir(c->group); /* the last one */
  return MR_OK;
}

/* A driver's directory was removed with its sandboxes' in it: nobody else looks for its groups. */
static void sweep_forsaken(const struct mr_cgroup_conf *c, const char *name)
{
  char group[MR_CG_PATH], inner[MR_CG_PATH], root[sizeof c->root];
  struct dirent *e;
  ssize_t n;
  DIR *d;

  snprintf(group, sizeof group, "%s/%.80s", c->base, name);
  n = getxattr(group, NOTE, root, sizeof root - 1);
  if (n <= 0) return;
  root[n] = '\0';
  if (access(root, F_OK) == 0 || errno != ENOENT) return;
  d = opendir(group);
  while (d && (e = readdir(d))) {
    if (e->d_type != DT_DIR || e->d_name[0] == '.') continue;
    snprintf(inner, sizeof inner, "%.500s/%.80s", group, e->d_name);
    rmdir(inner); /* one in use stays: it ends by itself */
  }
  if (d) closedir(d);
  rmdir(group);
}

static void each_forsaken(const struct mr_cgroup_conf *c)
{
  DIR *d = opendir(c->base);
  struct dirent *e;

  while (d && (e = readdir(d)))
    if (e->d_type == DT_DIR && strncmp(e->d_name, "moonrig-", 8) == 0) sweep_forsaken(c, e->d_name);
  if (d) closedir(d);
}

/* By a session of another name, which took over what was in it. */
static bool in_use(int s_fd, const char *group)
{
  int fd = openat(s_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), dir;
  DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
  char theirs[MR_CG_PATH];
  struct dirent *e;
  bool found = !d; /* better left alone */

  if (!d && fd >= 0) close(fd);
  while (d && !found && (e = readdir(d))) {
    dir = e->d_name[0] == '.' ? -1 : openat(s_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    found = dir >= 0 && linked(dir, theirs) && strcmp(theirs, group) == 0;
    if (dir >= 0) close(dir);
  }
  if (d) closedir(d);
  return found;
}

void mr_cgroup_sweep(const struct mr_cgroup_conf *c, int s_fd)
{
  DIR *d = c->base[0] ? opendir(c->group) : NULL;
  char group[MR_CG_PATH];
  struct dirent *e;
  struct stat st;

  while (d && (e = readdir(d))) {
    if (e->d_type != DT_DIR || e->d_name[0] == '.') continue;
    snprintf(group, sizeof group, "%s/%.80s", c->group, e->d_name);
    if (s_fd < 0) {
      if (empty(group)) rmdir(group);
    } else if (strcmp(e->d_name, MR_CG_PROBE) == 0) {
      ; /* of no session: it may be looked at just now, and goes when it is empty at the next start */
    } else if (fstatat(s_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT &&
               !in_use(s_fd, group)) {
      end_group(group); /* a session's directory is made before its group: none is on its way */
    }
  }
  if (d) closedir(d);
  if (c->base[0]) rmdir(c->group);
  if (c->base[0] && s_fd < 0) each_forsaken(c);
}

/* ---- figures ---- */

static int64_t number(const char *group, const char *name)
{
  char text[64];

  slurp(group, name, text, sizeof text);
  return text[0] >= '0' && text[0] <= '9' ? strtoll(text, NULL, 10) : -1;
}

bool mr_cgroup_stats(int dir, struct mr_cgroup_stats *s)
{
  char group[MR_CG_PATH], text[512];
  int64_t n;

  *s = (struct mr_cgroup_stats){-1, -1, -1, -1, 0, 0};
  if (!linked(dir, group) || access(group, F_OK) != 0) return false;
  s->memory = number(group, "memory.current");
  s->memory_max = number(group, "memory.max");
  s->pids = number(group, "pids.current");
  s->pids_max = number(group, "pids.max");
  n = field(slurp(group, "memory.events", text, sizeof text), "oom_kill");
  s->oom_kills = n > 0 ? n : 0;
  n = field(slurp(group, "pids.events", text, sizeof text), "max");
  s->forks_refused = n > 0 ? n : 0;
  return true;
}
