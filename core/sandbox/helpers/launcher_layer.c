/*
 * launcher_layer.c - the packages of an environment, as a sandbox sees them: trees of a layer (sandbox/local/layer.c)
 * on top of the machine's own files, by overlay mounts without an upper directory, so read-only whatever happens.
 *
 * Covered are /usr; each entry of a tree's etc, on top of the machine's where the sandbox shows that; var/lib and opt.
 * As root the mounts are made in the mount namespace of the stage; an ordinary user makes a user namespace for it, in
 * which only his own uid exists, and bubblewrap is started in that one without any capability, as everywhere.
 *
 * Only lower directories that were opened here are named in mount options, by descriptor: no path of a session or a
 * data directory reaches the kernel's option parser, nor /proc/self/mountinfo inside.
 */
#include "launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static bool put(const char *path, const char *text)
{
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

  if (fd >= 0) close(fd);
  return ok;
}

void launcher_layer_namespace(void)
{
  uid_t uid = geteuid();
  gid_t gid = getegid();
  char map[64];

  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
    launcher_die("package layers: no user namespace", strerror(errno));
  snprintf(map, sizeof map, "%u %u 1", (unsigned)uid, (unsigned)uid);
  if (!put("/proc/self/setgroups", "deny") || !put("/proc/self/uid_map", map))
    launcher_die("package layers: mapping the uid", strerror(errno));
  snprintf(map, sizeof map, "%u %u 1", (unsigned)gid, (unsigned)gid);
  if (!put("/proc/self/gid_map", map)) launcher_die("package layers: mapping the gid", strerror(errno));
}

void launcher_layer_open(struct launch *l, int fd[LAUNCHER_LAYERS])
{
  for (int i = 0; i < l->nlayers; i++) {
    fd[i] = open(l->layer[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd[i] < 0) launcher_die(l->layer[i], strerror(errno));
  }
}

static bool is_kind(int at, const char *name, mode_t kind)
{
  struct stat st;
  return fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && (st.st_mode & S_IFMT) == kind;
}

/* A directory of a tree, by a path of one or two parts: a link on the way would lead out of the tree. */
static bool is_dir(int tree, const char *path)
{
  const char *slash = strchr(path, '/');
  char first[16];

  if (slash) {
    snprintf(first, sizeof first, "%.*s", (int)(slash - path), path);
    if (!is_kind(tree, first, S_IFDIR)) return false;
  }
  return is_kind(tree, path, S_IFDIR);
}

static void bind_here(const char *from, const char *to, bool directory)
{
  int fd = directory ? mkdir(to, 0755) : open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);

  if (fd < 0 || mount(from, to, NULL, MS_BIND, NULL) != 0) launcher_die("staging a layer", strerror(errno));
  if (!directory) close(fd);
}

/* Directory `name` of the layers, with host below when it is there, at the staged place. False: no layer has it. */
static bool merge(const struct launch *l, const int *fd, const char *name, const char *host, const char *to)
{
  char opts[1024] = "lowerdir=", *at = opts + 9;
  size_t room = sizeof opts - 9;
  int n = 0, k;

  for (int i = 0; i < l->nlayers; i++) {
    if (!is_dir(fd[i], name)) continue;
    k = snprintf(at, room, "%s/proc/self/fd/%d/%s", n++ ? ":" : "", fd[i], name);
    if (k < 0 || (size_t)k >= room) launcher_die("staging a layer", "its names are too long");
    at += k;
    room -= (size_t)k;
  }
  if (n == 0) return false;
  if (n == 1 && (!host || !is_kind(AT_FDCWD, host, S_IFDIR))) {
    bind_here(opts + 9, to, true);
    return true;
  }
  k = snprintf(at, room, "%s%s%s", host ? ":" : "", host ? host : "", geteuid() ? ",userxattr" : "");
  if (k < 0 || (size_t)k >= room) launcher_die("staging a layer", "its names are too long");
  if (mkdir(to, 0755) != 0 || mount("overlay", to, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, opts) != 0)
    launcher_die("package layers: overlayfs", strerror(errno));
  return true;
}

static void shown(struct launch *l, const char *name, bool done)
{
  if (!done) return;
  if (l->nshown == LAUNCHER_SHOWN) launcher_die("package layers", "too many entries in /etc");
  snprintf(l->shown[l->nshown][0], sizeof l->shown[0][0], LAUNCHER_STAGE "/layer/%s", name);
  snprintf(l->shown[l->nshown++][1], sizeof l->shown[0][1], "/%s", name);
}

/* What the sandbox makes itself is not a package's to say, nor who the users are. Names go into mount options: none with
 * a character that means something there. */
static bool ours(const char *name)
{
  static const char *const names[] = {
      ".",         "..",   "passwd",        "group",         "shadow",      "gshadow",
      "hosts",     "pki",  "nsswitch.conf", "resolv.conf",   "ld.so.cache", "localtime",
      "ssl",       "apt",  "ld.so.conf",    "ld.so.preload", "hostname",    "mtab",
      "magic",     "dpkg", "cron.d",        "init.d",        "pam.d",       "systemd",
      "mime.types"};

  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i]) == 0) return true;
  return strlen(name) > 200 ||
         strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-") != strlen(name);
}

/* Of those that the sandbox shows of the machine. */
static const char *below(const char *name)
{
  return strcmp(name, "alternatives") == 0   ? "/etc/alternatives"
         : strcmp(name, "fonts") == 0        ? "/etc/fonts"
         : strcmp(name, "ld.so.conf.d") == 0 ? "/etc/ld.so.conf.d"
                                             : NULL;
}

static void etc_of(struct launch *l, const int *fd, int layer)
{
  int etc = openat(fd[layer], "etc", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR *d = etc >= 0 ? fdopendir(etc) : NULL;
  char name[300], from[340], to[340];
  struct dirent *e;

  while (d && (e = readdir(d))) {
    if (ours(e->d_name)) continue;
    snprintf(name, sizeof name, "etc/%s", e->d_name);
    snprintf(to, sizeof to, LAUNCHER_STAGE "/layer/%s", name);
    if (access(to, F_OK) == 0) continue; /* a layer above had it, and was merged with this one */
    if (is_kind(etc, e->d_name, S_IFDIR)) {
      shown(l, name, merge(l, fd, name, below(e->d_name), to));
    } else if (is_kind(etc, e->d_name, S_IFREG)) {
      snprintf(from, sizeof from, "/proc/self/fd/%d/%s", etc, e->d_name);
      bind_here(from, to, false);
      shown(l, name, true);
    }
  }
  if (d) closedir(d);
}

void launcher_layer_stage(struct launch *l, const int fd[LAUNCHER_LAYERS])
{
  static const char *const dirs[] = {"/layer", "/layer/etc", "/layer/var"};
  char at[64];

  if (l->nlayers == 0) return;
  for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
    snprintf(at, sizeof at, LAUNCHER_STAGE "%s", dirs[i]);
    if (mkdir(at, 0755) != 0) launcher_die("staging a layer", strerror(errno));
  }
  l->usr = merge(l, fd, "usr", "/usr", LAUNCHER_STAGE "/usr");
  for (int i = 0; i < l->nlayers; i++)
    etc_of(l, fd, i);
  shown(l, "var/lib", merge(l, fd, "var/lib", NULL, LAUNCHER_STAGE "/layer/var/lib"));
  shown(l, "opt", merge(l, fd, "opt", NULL, LAUNCHER_STAGE "/layer/opt"));
  for (int i = 0; i < l->nlayers; i++)
    close(fd[i]);
}
