/*
 * image.c - the helper programs as descriptors that can be executed: memory files with the embedded
 * bytes, sealed so that nobody can change what runs; or files of a directory that was configured
 * (MOONRIG_LIBEXEC). One memory file serves all sandboxes of a runtime: its pages are shared.
 */
#include "sandbox/local/local_t.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

extern const unsigned char mr_helper_launcher[], mr_helper_envd[], mr_helper_keep[];
extern const size_t mr_helper_launcher_size, mr_helper_envd_size, mr_helper_keep_size;

/* The pages of the embedded bytes, 2 MB, would stay resident though nobody reads them again. They are constant: read
 * again, they would come from the program's file. */
static void let_go(const unsigned char *p, size_t n)
{
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)p + page - 1) & ~(page - 1),
            to = ((uintptr_t)p + n) & ~(page - 1);

  if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
}

static int sealed(const char *name, const unsigned char *p, size_t n, struct mr_err *err)
{
  /* MFD_EXEC is refused before Linux 6.3, and asked for where vm.memfd_noexec is 1. */
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

  if (fd < 0) fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return mr_err_errno(err, name), -1;
  for (size_t at = 0; at < n;) {
    ssize_t got = write(fd, p + at, n - at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) goto bad;
    at += (size_t)got;
  }
  let_go(p, n);
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0) return fd;
bad:
  mr_err_errno(err, name);
  close(fd);
  return -1;
}

static int from_dir(const char *dir, const char *name, struct mr_err *err)
{
  char path[4096];
  int fd;

  snprintf(path, sizeof path, "%s/%s", dir, name);
  fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) mr_err_errno(err, path);
  return fd;
}

int mr_local_image(struct mr_local_conf *c, struct mr_err *err)
{
  bool dir = c->libexec && c->libexec[0];

  c->launcher_fd = dir ? from_dir(c->libexec, "launcher", err)
                       : sealed("moonrig-launcher", mr_helper_launcher, mr_helper_launcher_size, err);
  if (c->launcher_fd < 0) return MR_E_IO;
  c->envd_fd = dir ? from_dir(c->libexec, "envd", err)
                   : sealed("moonrig-envd", mr_helper_envd, mr_helper_envd_size, err);
  if (c->envd_fd < 0) return MR_E_IO;
  c->keep_fd = dir ? from_dir(c->libexec, "keep", NULL) /* as long as nothing is kept it can do without */
                   : sealed("moonrig-keep", mr_helper_keep, mr_helper_keep_size, err);
  return c->keep_fd < 0 && !dir ? MR_E_IO : MR_OK;
}
