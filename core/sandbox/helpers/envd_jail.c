/*
 * envd_jail - what the payload, and the children that do file operations, may ask of the kernel: a seccomp
 * filter that refuses what no tool needs, and Landlock rules for where may be written.
 *
 * Both come on top of the namespaces; reading is not restricted, what is visible is decided by the mounts.
 * The filter must load, or envd does not start. Landlock is used as far as the kernel has it (ABI 2 on: the
 * first one forbids every rename between directories), and the hello says what is in force. The filter is
 * compiled once and handed to each child as bytes. The numbers of linux/landlock.h are written out here:
 * older systems lack parts of that header.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "envd.h"

/* --- seccomp ----------------------------------------------------------------------------------------- */

#define CALL(name) SCMP_SYS(name)
/* Refused with EPERM. Names the running machine lacks are negative numbers and are skipped. */
static const int refused[] = {
    CALL(keyctl),
    CALL(add_key),
    CALL(request_key),
    CALL(bpf),
    CALL(perf_event_open),
    CALL(userfaultfd),
    CALL(io_uring_setup),
    CALL(io_uring_enter),
    CALL(io_uring_register),
    CALL(mount),
    CALL(umount2),
    CALL(umount),
    CALL(pivot_root),
    CALL(chroot),
    CALL(fsopen),
    CALL(fsconfig),
    CALL(fsmount),
    CALL(fspick),
    CALL(open_tree),
    CALL(move_mount),
    CALL(mount_setattr),
    CALL(setns),
    CALL(unshare),
    CALL(open_by_handle_at),
    CALL(name_to_handle_at),
    CALL(process_vm_readv),
    CALL(process_vm_writev),
    CALL(pidfd_getfd),
    CALL(kcmp),
    CALL(kexec_load),
    CALL(kexec_file_load),
    CALL(init_module),
    CALL(finit_module),
    CALL(delete_module),
    CALL(create_module),
    CALL(quotactl),
    CALL(quotactl_fd),
    CALL(swapon),
    CALL(swapoff),
    CALL(reboot),
    CALL(acct),
    CALL(syslog),
    CALL(settimeofday),
    CALL(stime),
    CALL(clock_settime),
    CALL(clock_adjtime),
    CALL(adjtimex),
    CALL(iopl),
    CALL(ioperm),
    CALL(vm86),
    CALL(vm86old),
    CALL(modify_ldt),
    CALL(lookup_dcookie),
    CALL(nfsservctl),
    CALL(vhangup),
    CALL(sethostname),
    CALL(setdomainname),
    CALL(move_pages),
    CALL(migrate_pages),
    CALL(fanotify_init),
    CALL(uselib),
    CALL(ustat),
    CALL(_sysctl),
    CALL(sysfs),
    CALL(get_kernel_syms),
    CALL(query_module),
    467, /* open_tree_attr, the same number everywhere; newer than the library's tables */
};

static bool rules(scmp_filter_ctx f)
{
  int rc = 0;
  for (size_t i = 0; i < sizeof refused / sizeof *refused && !rc; i++)
    if (refused[i] >= 0) rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), refused[i], 0);

  /* New namespaces: by clone's flags one by one; clone3 hides its flags in memory, and libc falls back. */
  static const unsigned long spaces[] = {CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID,   CLONE_NEWNET,
                                         CLONE_NEWIPC,  CLONE_NEWUTS, CLONE_NEWCGROUP};
  for (size_t i = 0; i < sizeof spaces / sizeof *spaces && !rc; i++)
    rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), CALL(clone), 1,
                          SCMP_A0(SCMP_CMP_MASKED_EQ, spaces[i], spaces[i]));
  if (!rc) rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), CALL(clone3), 0);

  /* Typing into a terminal. The kernel looks at the low 32 bits only. */
  if (!rc)
    rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), CALL(ioctl), 1,
                          SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff, TIOCSTI));
  if (!rc)
    rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), CALL(ioctl), 1,
                          SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff, TIOCLINUX));

  /* The core limit stays: the call does nothing, and says so only to who would see it. */
  if (!rc) rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(0), CALL(setrlimit), 1, SCMP_A0(SCMP_CMP_EQ, RLIMIT_CORE));
  if (!rc)
    rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(0), CALL(prlimit64), 3, SCMP_A1(SCMP_CMP_EQ, RLIMIT_CORE),
                          SCMP_A2(SCMP_CMP_NE, 0), SCMP_A3(SCMP_CMP_EQ, 0));
  if (!rc)
    rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), CALL(prlimit64), 3, SCMP_A1(SCMP_CMP_EQ, RLIMIT_CORE),
                          SCMP_A2(SCMP_CMP_NE, 0), SCMP_A3(SCMP_CMP_NE, 0));

  /* Sockets: unix, IPv4 and IPv6, no other family. */
  const int makers[] = {CALL(socket), CALL(socketpair)};
  for (size_t i = 0; i < sizeof makers / sizeof *makers && !rc; i++) {
    for (int family = 0; family < AF_INET6 && !rc; family++)
      if (family != AF_UNIX && family != AF_INET)
        rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(EAFNOSUPPORT), makers[i], 1,
                              (struct scmp_arg_cmp){0, SCMP_CMP_EQ, (scmp_datum_t)family, 0});
    if (!rc)
      rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(EAFNOSUPPORT), makers[i], 1,
                            (struct scmp_arg_cmp){0, SCMP_CMP_GT, AF_INET6, 0});
  }
  return rc == 0;
}

static bool filter_make(struct jail *j)
{
  bool ok = false;
  struct stat st;
  int fd = -1;
  scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
  /* Another architecture's entry (32 bit, x32) would go round every number above. */
  if (!f || seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) || !rules(f)) goto out;
  fd = memfd_create("filter", MFD_CLOEXEC);
  if (fd < 0 || seccomp_export_bpf(f, fd) || fstat(fd, &st) || st.st_size <= 0) goto out;
  j->filter = malloc((size_t)st.st_size);
  if (!j->filter || pread(fd, j->filter, (size_t)st.st_size, 0) != st.st_size) goto out;
  j->filter_n = (unsigned short)((size_t)st.st_size / sizeof(struct sock_filter));
  ok = true;
out:
  if (fd >= 0) close(fd);
  if (f) seccomp_release(f);
  return ok;
}

/* --- Landlock ---------------------------------------------------------------------------------------- */

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule       445
#define SYS_landlock_restrict_self  446
#endif
#ifndef O_PATH
#error "Linux only"
#endif
#define LL_WRITE_FILE      (1ULL << 1)
#define LL_MAKE_AND_REMOVE 0x1ff0ULL    /* REMOVE_DIR .. MAKE_SYM */
#define LL_REFER           (1ULL << 13) /* ABI 2 */
#define LL_TRUNCATE        (1ULL << 14) /* ABI 3 */
#define LL_SCOPES          3ULL         /* ABI 6: abstract sockets, signals */
struct ll_ruleset {
  uint64_t fs, net, scoped;
};
struct ll_beneath {
  uint64_t allowed;
  int32_t parent;
} __attribute__((packed));

static int ll_make(int abi)
{
  struct ll_ruleset r = {.fs = LL_WRITE_FILE | LL_MAKE_AND_REMOVE | LL_REFER | (abi >= 3 ? LL_TRUNCATE : 0),
                         .scoped = abi >= 6 ? LL_SCOPES : 0};
  size_t size = abi >= 6 ? sizeof r : abi >= 4 ? 16 : 8;
  return (int)syscall(SYS_landlock_create_ruleset, &r, size, 0);
}

/* A path that is not there needs no rule. */
static bool ll_allow(int set, const char *path, uint64_t rights)
{
  struct ll_beneath b = {rights, open(path, O_PATH | O_CLOEXEC)};
  if (b.parent < 0) return true;
  bool ok = !syscall(SYS_landlock_add_rule, set, 1, &b, 0);
  close(b.parent);
  return ok;
}

static int ll_ruleset(const struct envd *e, int abi, bool payload)
{
  const uint64_t file = LL_WRITE_FILE | (abi >= 3 ? LL_TRUNCATE : 0),
                 all = file | LL_MAKE_AND_REMOVE | LL_REFER;
  static const char *const devices[] = {"/dev/null",    "/dev/zero", "/dev/full", "/dev/random",
                                        "/dev/urandom", "/dev/tty",  "/dev/ptmx"};
  int set = ll_make(abi);
  if (set < 0) return -1;
  bool ok = true;
  for (int i = 0; i < ENVD_WRITE_DIRS && e->cfg.write[i] && ok; i++)
    ok = ll_allow(set, e->cfg.write[i], all);
  if (payload) {
    char pipes[80];
    snprintf(pipes, sizeof pipes, "%s/w", e->run);
    ok = ok && ll_allow(set, pipes, LL_WRITE_FILE) && ll_allow(set, "/dev/shm", all) &&
         ll_allow(set, "/dev/pts", file);
    for (size_t i = 0; i < sizeof devices / sizeof *devices && ok; i++)
      ok = ll_allow(set, devices[i], file);
  }
  if (!ok) {
    close(set);
    return -1;
  }
  return set;
}

static void landlock_make(struct envd *e)
{
  struct jail *j = &e->jail;
  int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
  j->files = j->payload = -1;
  j->landlock = 0;
  if (abi < 2) return;
  j->files = ll_ruleset(e, abi, false);
  j->payload = ll_ruleset(e, abi, true);
  if (j->files >= 0 && j->payload >= 0) j->landlock = abi;
}

/* --- both -------------------------------------------------------------------------------------------- */

bool jail_enter(const struct jail *j, bool payload)
{
  struct sock_fprog prog = {.len = j->filter_n, .filter = j->filter};
  struct rlimit core = {1, 1}, procs = {(rlim_t)j->nproc, (rlim_t)j->nproc};
  /* 1, not 0: less than any core file, and the one value at which the kernel does not start a core_pattern
   * pipe either, which would run outside and as root. The filter keeps it there. */
  setrlimit(RLIMIT_CORE, &core);
  /* Counted for this user namespace alone, whatever else runs under the uid outside. */
  if (j->nproc && setrlimit(RLIMIT_NPROC, &procs)) return false;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return false;
  if (j->landlock && syscall(SYS_landlock_restrict_self, payload ? j->payload : j->files, 0)) return false;
  return !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog);
}

bool jail_init(struct envd *e, char *why, size_t n)
{
  if (!filter_make(&e->jail)) {
    snprintf(why, n, "seccomp: no filter can be made here");
    return false;
  }
  landlock_make(e);
  int status = 0;
  pid_t pid = fork();
  if (!pid)
    _exit(!jail_enter(&e->jail, true) ? 1 : syscall(SYS_unshare, CLONE_NEWUSER) == 0 || errno != EPERM ? 2 : 0);
  if (pid < 0 || waitpid(pid, &status, 0) != pid) {
    snprintf(why, n, "fork: %s", strerror(errno));
    return false;
  }
  if (status)
    snprintf(why, n, "seccomp: the filter %s", status == 1 << 8 ? "cannot be loaded" : "does not work");
  return status == 0;
}
