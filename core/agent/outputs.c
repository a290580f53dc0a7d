/*
 * outputs.c - walking a session's outputs directory from the host (pool threads): nothing outside of it is ever opened,
 * whatever links the agent made (openat2 RESOLVE_BENEATH and NO_SYMLINKS; hard links of several names are passed over).
 */
#include "agent/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEPTH_MAX = 16, PATH_LIMIT = 1024 };

int mr_outputs_open(int root, const char *path, int flags)
{
  struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
  return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

static bool show(int root, const char *path, mr_outputs_fn fn, void *ud)
{
  struct stat st;
  int fd = mr_outputs_open(root, path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
  bool more = true;

  if (fd < 0) return true;
  if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 && mr_utf8_valid(mr_str_c(path)))
    more = fn(ud, path, fd, st.st_size);
  close(fd);
  return more;
}

static bool walk(int root, const char *path, int depth, mr_outputs_fn fn, void *ud)
{
  char sub[PATH_LIMIT];
  int fd = mr_outputs_open(root, path[0] ? path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
  struct dirent *e;
  bool more = true;

  if (!dir) {
    if (fd >= 0) close(fd);
    return true;
  }
  while (more && (e = readdir(dir))) {
    int n = snprintf(sub, sizeof sub, "%s%s%s", path, path[0] ? "/" : "", e->d_name);
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || n >= (int)sizeof sub) continue;
    if (e->d_type == DT_DIR && depth < DEPTH_MAX)
      more = walk(root, sub, depth + 1, fn, ud);
    else if (e->d_type == DT_REG)
      more = show(root, sub, fn, ud);
  }
  closedir(dir);
  return more;
}

void mr_outputs_walk(const char *dir, mr_outputs_fn fn, void *ud)
{
  int root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  if (root < 0) return; /* nothing was ever written */
  walk(root, "", 0, fn, ud);
  close(root);
}
