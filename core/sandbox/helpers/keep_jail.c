/*
 * keep_jail.c - what the archiver gives up before it reads anything that others wrote: new privileges, other
 * programs and processes, sockets (seccomp, required), and every file outside the directories it was handed
 * (Landlock, as far as the kernel has it; descriptors that are open stay usable). keep.c calls, once.
 */
#include "keep.h"

#include <errno.h>
#include <seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const int refused[] = {SCMP_SYS(execve),
                              SCMP_SYS(execveat),
                              SCMP_SYS(fork),
                              SCMP_SYS(vfork),
                              SCMP_SYS(clone),
                              SCMP_SYS(clone3),
                              SCMP_SYS(socket),
                              SCMP_SYS(socketpair),
                              SCMP_SYS(connect),
                              SCMP_SYS(ptrace),
                              SCMP_SYS(kill),
                              SCMP_SYS(tkill),
                              SCMP_SYS(mount),
                              SCMP_SYS(unshare),
                              SCMP_SYS(setns),
                              SCMP_SYS(bpf),
                              SCMP_SYS(keyctl),
                              SCMP_SYS(io_uring_setup),
                              SCMP_SYS(mknod),
                              SCMP_SYS(mknodat),
                              SCMP_SYS(pidfd_getfd),
                              SCMP_SYS(pidfd_send_signal),
                              SCMP_SYS(pidfd_open),
                              SCMP_SYS(open_by_handle_at),
                              SCMP_SYS(memfd_create),
                              SCMP_SYS(process_vm_readv),
                              SCMP_SYS(process_vm_writev),
                              SCMP_SYS(perf_event_open)};

static void filter(void)
{
  scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
  int code = ctx ? 0 : -ENOMEM;

  for (size_t i = 0; code == 0 && i < sizeof refused / sizeof *refused; i++)
    if (refused[i] >= 0) code = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), refused[i], 0);
  if (code == 0) code = seccomp_load(ctx);
  if (ctx) seccomp_release(ctx);
  if (code != 0) keep_die(KEEP_IO, "filter of system calls: %s", strerror(-code));
}

/* The numbers of linux/landlock.h, whose older copies lack some. */
enum {
  LL_WRITE = 1 << 1,
  LL_READ = 1 << 2,
  LL_READ_DIR = 1 << 3,
  LL_ALL_1 = (1 << 13) - 1, /* what the first version knows: execute to make_sym */
  LL_REFER = 1 << 13,
  LL_TRUNCATE = 1 << 14,
  LL_NEVER = 1 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 /* execute; make a device, socket, FIFO, block device */
};
struct beneath {
  uint64_t access;
  int32_t fd;
} __attribute__((packed));

static void paths(void)
{
  long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */);
  uint64_t all = LL_ALL_1 | (abi >= 2 ? LL_REFER : 0) | (abi >= 3 ? LL_TRUNCATE : 0);
  int set, ok;

  if (abi < 2) return; /* the first forbids every link between directories */
  set = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0);
  ok = set >= 0;
  for (int i = 0; ok && i < KEEP_DIRS; i++) {
    struct beneath b = {all & ~(uint64_t)LL_NEVER, KEEP_DIR + i};
    ok = syscall(SYS_landlock_add_rule, set, 1 /* LANDLOCK_RULE_PATH_BENEATH */, &b, 0) == 0;
  }
  if (!ok || syscall(SYS_landlock_restrict_self, set, 0) != 0)
    keep_die(KEEP_IO, "restricting paths: %s", strerror(errno));
  close(set);
}

void keep_jail(const struct keep *k)
{
  (void)k;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) keep_die(KEEP_IO, "no_new_privs: %s", strerror(errno));
  paths();
  filter();
}
