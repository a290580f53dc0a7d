/*
 * launcher_args.c - what is inside a sandbox: bubblewrap's command line, and the staging of the session's
 * directories. One list to read when the question is "what can a payload see and write".
 *
 * Read-only: /usr (with the usual links to it), a few files of /etc, /mnt/session/uploads, /proc/sys; with the
 * environment's packages on top (launcher_layer.c).
 * Writable: /workspace, /mnt/session/outputs (host directories), /tmp and /dev/shm (sized tmpfs). The
 * root and /dev are remounted read-only last. Options are those of bubblewrap 0.7 and newer.
 */
#include "launcher.h"
#include "proto.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const dir_names[3] = {"workspace", "outputs", "uploads"};

/* ---- staging ---- */

static void plain_paths(struct launch *l)
{
  for (int i = 0; i < 3; i++)
    snprintf(l->path[i], sizeof l->path[i], "%s/%s", l->dir, dir_names[i]);
}

static void stage_tmpfs(const char *at, long long size, const char *mode, uid_t uid, gid_t gid)
{
  char opts[160];

  snprintf(opts, sizeof opts, "mode=%s,uid=%u,gid=%u,size=%lld,nr_inodes=%lld", mode, (unsigned)uid,
           (unsigned)gid, size, size / 4096 + 64);
  if (mkdir(at, 0755) != 0 || mount("tmpfs", at, "tmpfs", MS_NOSUID | MS_NODEV, opts) != 0)
    launcher_die("staging a tmpfs", strerror(errno));
}

void launcher_stage(struct launch *l)
{
  uid_t uid = l->switch_uid ? l->uid : geteuid();
  gid_t gid = l->switch_uid ? (gid_t)l->uid : getegid();
  bool root = geteuid() == 0;
  int fd[3], layers[LAUNCHER_LAYERS];
  char from[64];

  plain_paths(l);
  if (!root && l->nlayers)
    launcher_layer_namespace();
  else if (!root || unshare(CLONE_NEWNS) != 0) {
    if (l->nlayers) launcher_die("package layers: no mount namespace", strerror(errno));
    return; /* without the privilege the uid must reach the directories by itself */
  }
  if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
    launcher_die("making mounts private", strerror(errno));
  for (int i = 0; i < 3; i++) {
    /* Opened before the stage covers the path: the session may live below it. */
    fd[i] = open(l->path[i], O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd[i] < 0) launcher_die(l->path[i], strerror(errno));
  }
  launcher_layer_open(l, layers);
  if (mount("tmpfs", LAUNCHER_STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=512k") != 0)
    launcher_die("staging", strerror(errno));
  for (int i = 0; i < 3; i++) {
    snprintf(from, sizeof from, "/proc/self/fd/%d", fd[i]);
    snprintf(l->path[i], sizeof l->path[i], LAUNCHER_STAGE "/%s", dir_names[i]);
    if (mkdir(l->path[i], 0755) != 0 || mount(from, l->path[i], NULL, MS_BIND, NULL) != 0)
      launcher_die("staging a directory of the session", strerror(errno));
    close(fd[i]);
  }
  launcher_layer_stage(l, layers);
  stage_tmpfs(LAUNCHER_STAGE "/tmp", l->tmp, "1777", root ? 0 : uid, root ? 0 : gid);
  stage_tmpfs(LAUNCHER_STAGE "/shm", l->shm, "1777", root ? 0 : uid, root ? 0 : gid);
  stage_tmpfs(LAUNCHER_STAGE "/run", MR_ENVD_RUN_SIZE, "0700", uid, gid);
  l->staged = true;
}

/* ---- the command line ---- */

static void add(struct launch *l, const char *arg)
{
  if (l->argc == LAUNCHER_ARGS - 1) launcher_die("too many arguments for bubblewrap", NULL);
  l->argv[l->argc++] = arg;
}
#define ADD(l, ...)                                                                                            \
  do {                                                                                                         \
    const char *const args_[] = {__VA_ARGS__};                                                                 \
    for (size_t i_ = 0; i_ < sizeof args_ / sizeof *args_; i_++)                                               \
      add(l, args_[i_]);                                                                                       \
  } while (0)

static const char *num(struct launch *l, long long n)
{
  char *p;

  if (l->numbers == (int)(sizeof l->number / sizeof *l->number))
    launcher_die("too many numbers for bubblewrap", NULL);
  p = l->number[l->numbers++];
  snprintf(p, sizeof l->number[0], "%lld", n);
  return p;
}

/* A small file made here: bubblewrap copies it into the root. */
static void file(struct launch *l, const char *path, const char *text)
{
  size_t n = strlen(text);
  int fd = memfd_create("moonrig-etc", 0);

  if (fd < 0 || write(fd, text, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET) != 0)
    launcher_die("memory file", strerror(errno));
  ADD(l, "--perms", "0444", "--file", num(l, fd), path);
}

static void dir(struct launch *l, const char *path)
{
  ADD(l, "--perms", "0755", "--dir", path);
}

static void programs(struct launch *l)
{
  static const char *const links[][2] = {{"/bin", "usr/bin"},     {"/sbin", "usr/sbin"},
                                         {"/lib", "usr/lib"},     {"/lib32", "usr/lib32"},
                                         {"/lib64", "usr/lib64"}, {"/libx32", "usr/libx32"}};
  struct stat st;

  ADD(l, "--ro-bind", l->usr ? LAUNCHER_STAGE "/usr" : "/usr", "/usr");
  for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
    if (lstat(links[i][0], &st) != 0) continue;
    if (S_ISLNK(st.st_mode))
      ADD(l, "--symlink", links[i][1], links[i][0]);
    else
      ADD(l, "--ro-bind", links[i][0], links[i][0]);
  }
}

static void etc(struct launch *l)
{
  static const char *const shown[] = {
      "/etc/alternatives",    "/etc/ld.so.cache",   "/etc/ld.so.conf",
      "/etc/ld.so.conf.d",    "/etc/localtime",     "/etc/ssl/certs",
      "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted",
      "/etc/fonts",           "/etc/mime.types",    "/etc/magic"};
  struct stat st;

  dir(l, "/etc");
  dir(l, "/etc/ssl");
  for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
    if (stat(shown[i], &st) == 0) ADD(l, "--ro-bind-try", shown[i], shown[i]);
  file(l, "/etc/passwd",
       "root:x:0:0:root:/:/usr/sbin/nologin\nuser:x:1000:1000:user:/workspace:/bin/bash\n"
       "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n");
  file(l, "/etc/group", "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n");
  file(l, "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n");
  file(l, "/etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n");
  if (l->roots) ADD(l, "--perms", "0444", "--file", num(l, l->roots_fd), LAUNCHER_ROOTS);
}

/* What apt reads to resolve packages as this machine would: its sources and their keys, and what is installed. Its
 * configuration stays out: it may name proxies and logins. */
static void apt(struct launch *l)
{
  static const char *const read[] = {
      "/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/apt/trusted.gpg.d", "/etc/apt/keyrings",
      "/etc/apt/preferences",  "/etc/apt/preferences.d",  "/var/lib/dpkg/status",   "/var/lib/dpkg/arch"};
  struct stat st;

  dir(l, "/etc/apt");
  dir(l, "/etc/apt/apt.conf.d");
  dir(l, "/var/lib");
  dir(l, "/var/lib/dpkg");
  for (size_t i = 0; i < sizeof read / sizeof *read; i++)
    if (stat(read[i], &st) == 0) ADD(l, "--ro-bind-try", read[i], read[i]);
}

static void writable(struct launch *l)
{
  if (l->staged)
    ADD(l, "--bind", LAUNCHER_STAGE "/shm", "/dev/shm", "--remount-ro", "/dev", "--bind", LAUNCHER_STAGE "/tmp",
        "/tmp", "--bind", LAUNCHER_STAGE "/run", MR_ENVD_RUN);
  else
    ADD(l, "--size", num(l, l->shm), "--perms", "1777", "--tmpfs", "/dev/shm", "--remount-ro", "/dev", "--size",
        num(l, l->tmp), "--perms", "1777", "--tmpfs", "/tmp", "--size", num(l, MR_ENVD_RUN_SIZE), "--perms",
        "0700", "--tmpfs", MR_ENVD_RUN);
  ADD(l, "--bind", l->path[0], MR_ENVD_HOME);
  dir(l, "/mnt");
  dir(l, "/mnt/session");
  dir(l, "/mnt/memory");
  ADD(l, "--bind", l->path[1], MR_ENVD_OUTPUTS, "--ro-bind", l->path[2], MR_ENVD_UPLOADS);
}

void launcher_args(struct launch *l, int info_fd)
{
  static const char probe[] = /* what the driver reads from standard output */
      "while read -r k v; do case $k in NoNewPrivs:|CapBnd:|CapEff:) echo \"$k $v\";; esac; "
      "done </proc/self/status; exec readlink /proc/self/ns/*";

  ADD(l, "bwrap", "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
      "--unshare-cgroup-try", "--uid", "1000", "--gid", "1000", "--hostname", "sandbox", "--new-session",
      "--die-with-parent", "--cap-drop", "ALL", "--info-fd", num(l, info_fd));
  if (l->disable_userns) ADD(l, "--disable-userns");
  programs(l);
  etc(l);
  ADD(l, "--dev", "/dev", "--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys");
  dir(l, "/run");
  dir(l, "/var");
  ADD(l, "--symlink", "../tmp", "/var/tmp");
  for (int i = 0; i < l->nshown; i++)
    ADD(l, "--ro-bind", l->shown[i][0], l->shown[i][1]);
  if (l->apt) apt(l);
  writable(l);
  ADD(l, "--remount-ro", "/", "--chdir", MR_ENVD_HOME, "--as-pid-1", "--");
  if (l->probe)
    ADD(l, "/bin/bash", "-c", probe);
  else
    ADD(l, "/proc/self/fd/5", l->config); /* LAUNCHER_ENVD; argv[0] stays "envd" for the eye */
  l->argv[l->argc] = NULL;
}
