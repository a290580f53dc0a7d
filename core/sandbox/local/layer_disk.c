/*
 * layer_disk.c - the directory of layers: what a list of packages is called on this machine, whether it is there, who
 * may build it, taking over what a build sandbox wrote, and clearing up. Pool threads.
 *
 * Invariant: a directory named by a hash is whole: it was filled under another name, by the holder of its lock, with
 * everything on disk before the rename. Nothing in a tree that is taken over is trusted: what is no file, directory or
 * link goes, and so do set-user-id bits; as root all of it becomes root's, so that no session's uid owns any of it.
 */
#include "sandbox/local/layer_t.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

extern const unsigned char mr_helper_install[];
extern const size_t mr_helper_install_size;

enum { DEPTH_MAX = 200, SMALL_FILE = 8192, RECENT_S = 600, NAME_MAX_ = 300 };
static const int version = 1; /* of what a layer looks like */

static const struct {
  const char *name;
  int tree;
} trees[] = {{"apt", MR_LAYER_APT}, {"more", MR_LAYER_MORE}};

void mr_layer_session(const char *hash, int tree, char out[MR_SESSION_MAX])
{
  snprintf(out, MR_SESSION_MAX, "layer-%s-%d", hash, tree);
}

/* ---- the name ---- */

static void add_file(struct mr_buf *b, const char *path)
{
  char text[SMALL_FILE];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : 0;

  mr_buf_printf(b, "%s:", path);
  if (n > 0) mr_buf_add(b, text, (size_t)n);
  mr_buf_char(b, '\n');
  if (fd >= 0) close(fd);
}

/* A file by what tells one version of it from another. */
static void add_stat(struct mr_buf *b, const char *path)
{
  char real[4096];
  struct stat st;

  if (!realpath(path, real) || stat(real, &st) != 0) return;
  mr_buf_printf(b, "%s %lld %lld.%ld\n", real, (long long)st.st_size, (long long)st.st_mtim.tv_sec,
                st.st_mtim.tv_nsec);
}

static void add_program(struct mr_buf *b, const char *name)
{
  static const char *const dirs[] = {"/usr/local/bin", "/usr/bin", "/usr/local/go/bin"};
  char path[200];

  for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
    snprintf(path, sizeof path, "%s/%s", dirs[i], name);
    if (access(path, X_OK) == 0) {
      add_stat(b, path);
      return;
    }
  }
  mr_buf_printf(b, "no %s\n", name);
}

/* What was installed for one machine may not work on another, nor after its interpreters changed. */
static int name_it(struct mr_layer_job *k)
{
  static const char *const programs[MR_PKG_MANAGERS] = {NULL, NULL, "ruby", NULL, "node", "python3"};
  struct utsname u;
  struct mr_buf b;
  char hex[65];

  mr_buf_init(&b, &k->conf->sys->mem, 8 << 20);
  mr_buf_printf(&b, "layer %d\n%s\n", version, k->text);
  mr_sha256_hex(mr_str_n((const char *)mr_helper_install, mr_helper_install_size), hex);
  mr_buf_printf(&b, "%s %s\n", hex, uname(&u) == 0 ? u.machine : "");
  add_file(&b, "/etc/os-release");
  for (int i = 0; i < MR_PKG_MANAGERS; i++)
    if (k->used[i] && programs[i]) add_program(&b, programs[i]);
  if (k->used[MR_PKG_APT]) add_stat(&b, "/var/lib/dpkg/status"); /* resolved against what is installed */
  mr_sha256_hex(mr_buf_get(&b), hex);
  memcpy(k->hash, hex, sizeof k->hash - 1);
  k->hash[sizeof k->hash - 1] = '\0';
  if (b.failed) return mr_err_nomem(&k->err);
  mr_buf_free(&b);
  return MR_OK;
}

/* ---- locks ---- */

/* -1: somebody else has it (errno EWOULDBLOCK), or an error. A lock file may be swept away while one waits for it. */
static int lock_it(const struct mr_local_conf *c, const char *hash)
{
  char name[MR_LAYER_HASH + 8];
  struct stat a, b;
  int fd, e;

  snprintf(name, sizeof name, "%s.lock", hash);
  for (int i = 0; i < 100; i++) {
    fd = openat(c->layers_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &a) == 0 && fstatat(c->layers_fd, name, &b, 0) == 0 &&
        a.st_ino == b.st_ino)
      return fd;
    e = errno;
    close(fd);
    if (e == EWOULDBLOCK) {
      errno = e;
      return -1;
    }
  }
  errno = EAGAIN;
  return -1;
}

/* ---- looking ---- */

static int trees_of(const struct mr_local_conf *c, const char *name)
{
  char path[MR_LAYER_HASH + 8];
  struct stat st;
  int have = 0;

  for (size_t i = 0; i < sizeof trees / sizeof *trees; i++) {
    snprintf(path, sizeof path, "%s/%s", name, trees[i].name);
    if (fstatat(c->layers_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
      have |= trees[i].tree;
  }
  return have;
}

static int remove_tmp(const struct mr_local_conf *c, const char *hash, struct mr_err *err)
{
  char name[MR_LAYER_HASH + 8];

  snprintf(name, sizeof name, "%s.tmp", hash);
  return mr_tree_remove(c->layers_fd, name, err);
}

/* With the lock held: whatever an earlier build left. */
static int clear(const struct mr_local_conf *c, const char *hash, struct mr_err *err)
{
  char session[MR_SESSION_MAX];
  int code = MR_OK;

  for (size_t i = 0; code == MR_OK && i < sizeof trees / sizeof *trees; i++) {
    mr_layer_session(hash, trees[i].tree, session);
    code = mr_local_remove(c, session, err);
  }
  return code == MR_OK ? remove_tmp(c, hash, err) : code;
}

static int look(struct mr_layer_job *k)
{
  const struct mr_local_conf *c = k->conf;
  char tmp[MR_LAYER_HASH + 8];
  int code = name_it(k), e;

  if (code != MR_OK) return code;
  k->trees = trees_of(c, k->hash);
  if (!k->trees) {
    k->lock = lock_it(c, k->hash);
    e = errno;
    if (k->lock < 0) return e == EWOULDBLOCK ? MR_OK : mr_err_errno(&k->err, "the lock of the packages' layer");
    k->trees = trees_of(c, k->hash); /* it may have come since */
    if (!k->trees) {
      code = clear(c, k->hash, &k->err);
      snprintf(tmp, sizeof tmp, "%s.tmp", k->hash);
      if (code == MR_OK && mkdirat(c->layers_fd, tmp, 0755) != 0) code = mr_err_errno(&k->err, tmp);
      return code;
    }
    close(k->lock);
    k->lock = -1;
  }
  utimensat(c->layers_fd, k->hash, NULL, 0); /* when it was last used */
  return MR_OK;
}

/* ---- taking over ---- */

static bool dots(const char *n)
{
  return n[0] == '.' && (n[1] == '\0' || (n[1] == '.' && n[2] == '\0'));
}

static int seal_dir(int fd, bool as_root, int depth);

static int seal_entry(int dir, const char *name, bool as_root, int depth)
{
  struct stat st;
  int fd, failed = 0;

  if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return errno;
  if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode))
    return unlinkat(dir, name, 0) == 0 ? 0 : errno;
  if (as_root && fchownat(dir, name, 0, 0, AT_SYMLINK_NOFOLLOW) != 0) return errno;
  if (S_ISREG(st.st_mode) && fchmodat(dir, name, st.st_mode & 0111 ? 0755 : 0644, 0) != 0) return errno;
  if (!S_ISDIR(st.st_mode)) return 0;
  if (fchmodat(dir, name, 0755, 0) != 0) return errno;
  fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno;
  failed = seal_dir(fd, as_root, depth + 1);
  return failed;
}

/* Takes the descriptor. The processes that wrote it are gone: nothing moves meanwhile. */
static int seal_dir(int fd, bool as_root, int depth)
{
  DIR *d = depth > DEPTH_MAX ? NULL : fdopendir(fd);
  struct dirent *e;
  int failed = d ? 0 : depth > DEPTH_MAX ? ELOOP : errno;

  if (!d) close(fd);
  while (d && !failed && (e = readdir(d)))
    if (!dots(e->d_name)) failed = seal_entry(dirfd(d), e->d_name, as_root, depth);
  if (d) closedir(d);
  return failed;
}

/* The tree <session>/workspace/layer becomes <hash>.tmp/<tree>. */
static int adopt(struct mr_layer_job *k, const char *session)
{
  const struct mr_local_conf *c = k->conf;
  char from[MR_SESSION_MAX + 32], to[MR_LAYER_HASH + 16];
  struct stat st;
  int failed;

  snprintf(from, sizeof from, "%s/workspace/layer", session);
  snprintf(to, sizeof to, "%s.tmp/%s", k->hash, k->tree == MR_LAYER_APT ? "apt" : "more");
  if (fstatat(c->s_fd, from, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode))
    return mr_err_set(&k->err, MR_E_INVALID, NULL,
                      "the packages put something else in the place of their directory");
  if (renameat(c->s_fd, from, c->layers_fd, to) != 0) return mr_err_errno(&k->err, "taking over the packages");
  failed = seal_entry(c->layers_fd, to, c->as_root, 0);
  errno = failed;
  return failed ? mr_err_errno(&k->err, "taking over the packages") : MR_OK;
}

static int write_manifest(struct mr_layer_job *k, const char *tmp)
{
  char path[MR_LAYER_HASH + 32];
  struct mr_buf b;
  struct mr_jw w;
  int fd, code = MR_OK;

  mr_buf_init(&b, &k->conf->sys->mem, 8 << 20);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kint(&w, "version", version);
  mr_jw_kint(&w, "bytes", mr_tree_size(k->conf->layers_fd, tmp, INT64_MAX / 4));
  mr_jw_ktime(&w, "built_at", (int64_t)time(NULL) * 1000000);
  mr_jw_kraw(&w, "packages", mr_str_c(k->text));
  mr_jw_obj_end(&w);
  mr_buf_c(&b, "\n");
  snprintf(path, sizeof path, "%s/manifest.json", tmp);
  fd = openat(k->conf->layers_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0 || b.failed || write(fd, b.p, b.n) != (ssize_t)b.n) code = mr_err_errno(&k->err, path);
  if (fd >= 0) close(fd);
  mr_buf_free(&b);
  return code;
}

/* What install.sh left for itself in apt's tree. No part of the way may be a link, which would lead out of it. */
static int drop_postinst(struct mr_layer_job *k, const char *tmp)
{
  const char *const way[] = {tmp, "apt", "var", "lib"};
  int dir = k->conf->layers_fd, next, code;

  for (size_t i = 0; i < sizeof way / sizeof *way; i++) {
    next = openat(dir, way[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (i > 0) close(dir);
    if (next < 0) return MR_OK;
    dir = next;
  }
  code = mr_tree_remove(dir, "moonrig", &k->err);
  close(dir);
  return code;
}

static int publish(struct mr_layer_job *k)
{
  const struct mr_local_conf *c = k->conf;
  char tmp[MR_LAYER_HASH + 8];
  int code;

  snprintf(tmp, sizeof tmp, "%s.tmp", k->hash);
  code = drop_postinst(k, tmp);
  if (code == MR_OK) code = write_manifest(k, tmp);
  if (code != MR_OK) return code;
  (void)MR_FAULT("layer.publish.before");
  if (syncfs(c->layers_fd) != 0 || renameat(c->layers_fd, tmp, c->layers_fd, k->hash) != 0)
    return mr_err_errno(&k->err, "putting the packages in place");
  return MR_OK;
}

static int take(struct mr_layer_job *k)
{
  char session[MR_SESSION_MAX];
  int dir, code = MR_OK;

  mr_layer_session(k->hash, k->tree, session);
  dir = mr_local_session_dir(k->conf, session, false);
  if (dir < 0) return mr_err_errno(&k->err, "the sandbox that installed packages");
  code = mr_local_end(k->conf, dir, &k->err);
  close(dir);
  if (code == MR_OK) code = adopt(k, session);
  if (code == MR_OK) code = mr_local_remove(k->conf, session, &k->err);
  if (code == MR_OK) k->trees |= k->tree;
  return code == MR_OK && k->publish ? publish(k) : code;
}

/* ---- sweeping ---- */

struct kept {
  char hash[MR_LAYER_HASH];
  int64_t bytes;
  time_t used;
};

static bool is_hash(const char *name)
{
  return strlen(name) == MR_LAYER_HASH - 1 && strspn(name, "0123456789abcdef") == MR_LAYER_HASH - 1;
}

static int64_t bytes_of(const struct mr_local_conf *c, const char *hash)
{
  char path[MR_LAYER_HASH + 32], text[512];
  const char *at;
  int fd;
  ssize_t n;

  snprintf(path, sizeof path, "%.32s/manifest.json", hash);
  fd = openat(c->layers_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
  text[n > 0 ? n : 0] = '\0';
  if (fd >= 0) close(fd);
  at = strstr(text, "\"bytes\":");
  return at ? strtoll(at + 8, NULL, 10) : 0;
}

/* A session's sandbox that lives, maybe started by a server before this one, has it mounted. */
static bool mounted(const struct mr_local_conf *c, const char *hash)
{
  int fd = openat(c->s_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), dir;
  DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
  char text[MR_LAYER_HASH + 8];
  struct dirent *e;
  bool yes = false;
  ssize_t n;

  if (!d && fd >= 0) close(fd);
  while (d && !yes && (e = readdir(d))) {
    dir = dots(e->d_name) ? -1 : mr_local_session_dir(c, e->d_name, false);
    n = dir >= 0 ? readlinkat(dir, "layer", text, sizeof text) : -1;
    yes = n == MR_LAYER_HASH - 1 && memcmp(text, hash, (size_t)n) == 0 && mr_local_alive(dir);
    if (dir >= 0) close(dir);
  }
  if (d) closedir(d);
  return yes;
}

static void remove_layer(const struct mr_local_conf *c, const char *hash)
{
  char to[MR_LAYER_HASH + 16];
  struct mr_err err;

  for (int i = 0; i < 1000; i++) { /* under another name first: half of a layer is never taken for one */
    snprintf(to, sizeof to, "layer.%.20s.%d", hash, i);
    if (renameat(c->layers_fd, hash, c->trash_fd, to) == 0) break;
    if (errno != EEXIST && errno != ENOTEMPTY) return;
  }
  if (mr_tree_remove(c->trash_fd, to, &err) != MR_OK)
    mr_log(c->sys, MR_LOG_WARN, "sandbox", "trash/%s: %s", to, err.message);
  else
    mr_log(c->sys, MR_LOG_INFO, "sandbox", "packages %s: removed, the least recently used", hash);
}

/* What nobody builds any more; and lock files of what is gone. */
static void sweep_rest(const struct mr_local_conf *c, const char *name)
{
  char hash[MR_LAYER_HASH], file[MR_LAYER_HASH + 8];
  struct mr_err err;
  int lock;

  if (strlen(name) < sizeof hash || name[sizeof hash - 1] != '.') return;
  memcpy(hash, name, sizeof hash - 1);
  hash[sizeof hash - 1] = '\0';
  if (!is_hash(hash) || (lock = lock_it(c, hash)) < 0) return;
  (void)clear(c, hash, &err);
  snprintf(file, sizeof file, "%s.lock", hash);
  unlinkat(c->layers_fd, file, 0);
  close(lock);
}

static int by_use(const void *a, const void *b)
{
  const struct kept *x = a, *y = b;
  return x->used < y->used ? -1 : x->used > y->used;
}

static void sweep(struct mr_layer_job *k)
{
  const struct mr_local_conf *c = k->conf;
  int fd = openat(c->layers_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
  struct kept *v = mr_mem_alloc(&c->sys->mem, 4096 * sizeof *v);
  struct dirent *e;
  struct stat st;
  int64_t total = 0;
  int n = 0;

  if (!d && fd >= 0) close(fd);
  while (d && v && (e = readdir(d))) {
    if (!is_hash(e->d_name)) {
      sweep_rest(c, e->d_name);
    } else if (n < 4096 && fstatat(c->layers_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
      memcpy(v[n].hash, e->d_name, sizeof v[n].hash);
      v[n].bytes = bytes_of(c, e->d_name);
      v[n].used = st.st_mtim.tv_sec;
      total += v[n++].bytes;
    }
  }
  if (d) closedir(d);
  if (v) qsort(v, (size_t)n, sizeof *v, by_use);
  for (int i = 0; v && i < n && total > c->layers_max; i++) {
    /* One that was just asked for may be about to be mounted. */
    if (strstr(k->text, v[i].hash) || v[i].used > time(NULL) - RECENT_S || mounted(c, v[i].hash)) continue;
    remove_layer(c, v[i].hash);
    total -= v[i].bytes;
  }
  mr_mem_free(&c->sys->mem, v);
}

bool mr_layer_leftover(const struct mr_local_conf *c, const char *session)
{
  char hash[MR_LAYER_HASH];
  struct mr_err err;
  int lock;

  if (strncmp(session, "layer-", 6) != 0 || strlen(session) < 6 + sizeof hash) return false;
  memcpy(hash, session + 6, sizeof hash - 1);
  hash[sizeof hash - 1] = '\0';
  if (!is_hash(hash) || (lock = lock_it(c, hash)) < 0) return false;
  if (clear(c, hash, &err) != MR_OK) mr_log(c->sys, MR_LOG_WARN, "sandbox", "%s: %s", session, err.message);
  close(lock);
  return true;
}

/* ---- the job ---- */

void mr_layer_work(struct mr_job *j, void *worker)
{
  struct mr_layer_job *k = MR_OF(j, struct mr_layer_job, job);
  struct mr_err err;

  (void)worker;
  switch (k->task) {
  case MR_LAYER_LOOK: k->code = look(k); break;
  case MR_LAYER_TAKE: k->code = take(k); break;
  case MR_LAYER_DROP: (void)clear(k->conf, k->hash, &err); break;
  case MR_LAYER_SWEEP: sweep(k); break;
  }
}
