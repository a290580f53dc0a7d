/*
 * probe - what runs inside a sandbox and tries to get out. `probe ATTACK [ARG...]` tries each step and
 * prints one line a step: its name, then OK or the name of the errno. attack.c says which answers are fine.
 * Compiled by the suite, static, without the library. It only ever tries; nothing here does harm when it
 * succeeds (a file is opened and closed again, never written).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static void say(const char *what, long rc)
{
  const char *name = rc >= 0 ? "OK" : strerrorname_np(errno);
  printf("%s %s\n", what, name ? name : "E?");
  fflush(stdout);
}

/* In a child, because the answer may be a signal. */
static void try_call(const char *what, long (*fn)(void *arg), void *arg)
{
  int status;
  pid_t pid;

  fflush(stdout);
  pid = fork();
  if (pid == 0) {
    say(what, fn(arg));
    _exit(0);
  }
  waitpid(pid, &status, 0);
  if (WIFSIGNALED(status))
    printf("%s SIG%s\n", what, sigabbrev_np(WTERMSIG(status)));
}

static void call(const char *what, long nr, long a, long b, long c, long d, long e)
{
  long rc = syscall(nr, a, b, c, d, e, 0L);
  say(what, rc);
}

static void open_each(int flags, char **paths)
{
  for (; *paths; paths++) {
    int fd = open(*paths, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    say(*paths, fd);
    if (fd >= 0)
      close(fd);
  }
}

static void pid1(void)
{
  char *files[] = {"/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/proc/1/fd", "/proc/1/map_files",
                   "/proc/1/root/etc", "/proc/1/cwd/x", "/proc/1/stack", "/proc/1/syscall", "/proc/1/auxv",
                   "/proc/1/ns/user", NULL};
  const char *links[] = {"/proc/1/exe", "/proc/1/root", "/proc/1/cwd"};
  char buf[64];
  struct iovec here = {buf, sizeof buf}, there = {(void *)0x400000, sizeof buf};

  open_each(O_RDONLY, files);
  for (int i = 0; i < 3; i++)
    say(links[i], readlink(links[i], buf, sizeof buf));
  say("ptrace-attach", ptrace(PTRACE_ATTACH, 1, 0, 0));
  say("ptrace-seize", ptrace(PTRACE_SEIZE, 1, 0, 0));
  say("vm_readv", process_vm_readv(1, &here, 1, &there, 1, 0));
  say("vm_writev", process_vm_writev(1, &here, 1, &there, 1, 0));
  int p = (int)syscall(SYS_pidfd_open, 1, 0);
  say("pidfd_getfd", syscall(SYS_pidfd_getfd, p < 0 ? -1 : p, 0, 0));
  call("kcmp", SYS_kcmp, getpid(), 1, 0, 0, 0);
}

static void mounts(void)
{
  call("mount-tmpfs", SYS_mount, (long)"none", (long)"/tmp", (long)"tmpfs", 0, 0);
  call("mount-bind", SYS_mount, (long)"/tmp", (long)"/workspace", 0, MS_BIND, 0);
  call("remount", SYS_mount, 0, (long)"/", 0, MS_REMOUNT | MS_BIND, 0);
  call("umount-proc-sys", SYS_umount2, (long)"/proc/sys", MNT_DETACH, 0, 0, 0);
  call("umount-usr", SYS_umount2, (long)"/usr", MNT_DETACH, 0, 0, 0);
  call("pivot_root", SYS_pivot_root, (long)"/tmp", (long)"/tmp", 0, 0, 0);
  call("chroot", SYS_chroot, (long)"/tmp", 0, 0, 0, 0);
  call("fsopen", SYS_fsopen, (long)"tmpfs", 0, 0, 0, 0);
  call("fspick", SYS_fspick, AT_FDCWD, (long)"/tmp", 0, 0, 0);
  call("open_tree", SYS_open_tree, AT_FDCWD, (long)"/", 1 /* OPEN_TREE_CLONE */, 0, 0);
  call("move_mount", SYS_move_mount, AT_FDCWD, (long)"/tmp", AT_FDCWD, (long)"/workspace", 0);
  call("mount_setattr", SYS_mount_setattr, AT_FDCWD, (long)"/", 0, 0, 0);
  call("open_by_handle", SYS_open_by_handle_at, AT_FDCWD, (long)"xxxxxxxxxxxxxxxx", O_RDONLY, 0, 0);
  call("quotactl", SYS_quotactl, 0x800007 << 8, (long)"/dev/vda", 0, 0, 0);
  call("swapon", SYS_swapon, (long)"/tmp/x", 0, 0, 0, 0);
  call("sethostname", SYS_sethostname, (long)"x", 1, 0, 0, 0);
  call("settimeofday", SYS_settimeofday, (long)&(long[2]){1, 1}, 0, 0, 0, 0);
  call("reboot", SYS_reboot, 0xfee1dead, 672274793, 0 /* CAD off */, 0, 0);
}

static long clone_user(void *arg)
{
  long rc = syscall(SYS_clone, *(long *)arg | SIGCHLD, 0L, 0L, 0L, 0L);
  if (rc == 0)
    _exit(0);
  return rc;
}

static void namespaces(void)
{
  static const struct { const char *name; long flag; } ns[] = {
      {"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS}, {"pid", CLONE_NEWPID}, {"net", CLONE_NEWNET},
      {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP}};
  char name[40], path[40];

  for (size_t i = 0; i < sizeof ns / sizeof *ns; i++) {
    long flag = ns[i].flag;
    struct clone_args ca = {.flags = (unsigned long)flag, .exit_signal = SIGCHLD};
    snprintf(name, sizeof name, "unshare-%s", ns[i].name);
    call(name, SYS_unshare, flag, 0, 0, 0, 0);
    snprintf(name, sizeof name, "clone-%s", ns[i].name);
    try_call(name, clone_user, &flag);
    snprintf(name, sizeof name, "clone3-%s", ns[i].name);
    long rc = syscall(SYS_clone3, &ca, sizeof ca);
    if (rc == 0)
      _exit(0);
    say(name, rc);
    for (int self = 0; self < 2; self++) {
      snprintf(path, sizeof path, "/proc/%s/ns/%s", self ? "self" : "1", ns[i].name);
      int fd = open(path, O_RDONLY | O_CLOEXEC);
      snprintf(name, sizeof name, "setns-%s-%s", self ? "self" : "1", ns[i].name);
      if (fd < 0)
        say(name, -1);
      else
        call(name, SYS_setns, fd, 0, 0, 0, 0);
    }
  }
}

static void keys(void)
{
  call("keyctl", SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0, 0, 0);
  call("keyctl-join", SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0);
  call("add_key", SYS_add_key, (long)"user", (long)"moonrig-test", (long)"x", 1, KEY_SPEC_PROCESS_KEYRING);
  call("request_key", SYS_request_key, (long)"user", (long)"moonrig-test", 0, 0, 0);
}

static void uring(void)
{
  struct io_uring_params p = {0};
  call("io_uring_setup", SYS_io_uring_setup, 4, (long)&p, 0, 0, 0);
  call("io_uring_enter", SYS_io_uring_enter, 0, 0, 0, 0, 0);
  call("io_uring_register", SYS_io_uring_register, 0, 0, 0, 0, 0);
}

static void kernel(void)
{
  struct perf_event_attr pe = {.type = PERF_TYPE_SOFTWARE, .size = sizeof pe, .exclude_kernel = 1};
  char attr[128] = {1, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0}; /* an array map of one entry */

  call("userfaultfd", SYS_userfaultfd, O_CLOEXEC, 0, 0, 0, 0);
  call("userfaultfd-user", SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY, 0, 0, 0, 0);
  call("bpf", SYS_bpf, 0, (long)attr, sizeof attr, 0, 0);
  call("perf_event_open", SYS_perf_event_open, (long)&pe, 0, -1, -1, 0);
  call("kexec_load", SYS_kexec_load, 0, 0, 0, 0, 0);
  call("kexec_file_load", SYS_kexec_file_load, -1, -1, 0, 0, 0);
  call("init_module", SYS_init_module, 0, 0, (long)"", 0, 0);
  call("finit_module", SYS_finit_module, -1, (long)"", 0, 0, 0);
  call("delete_module", SYS_delete_module, (long)"no_such_module_x", 0, 0, 0, 0);
  call("syslog", SYS_syslog, 3, (long)attr, sizeof attr, 0, 0);
  call("acct", SYS_acct, (long)"/tmp/x", 0, 0, 0, 0);
  call("iopl", SYS_iopl, 3, 0, 0, 0, 0);
  call("open-userfaultfd", SYS_openat, AT_FDCWD, (long)"/dev/userfaultfd", O_RDWR, 0, 0);
  call("open-kvm", SYS_openat, AT_FDCWD, (long)"/dev/kvm", O_RDWR, 0, 0);
  call("open-mem", SYS_openat, AT_FDCWD, (long)"/dev/mem", O_RDWR, 0, 0);
  call("open-fuse", SYS_openat, AT_FDCWD, (long)"/dev/fuse", O_RDWR, 0, 0);
}

static void tty(void)
{
  char c = '\n', zero[2] = {3, 0};
  int fd = open("/dev/tty", O_RDWR), m, s;

  say("open-tty", fd);
  for (int i = 0; i < 3; i++)
    if (ioctl(i, TIOCSTI, &c) == 0)
      printf("sti-std OK\n");
  /* with a terminal of its own, which it controls */
  m = open("/dev/ptmx", O_RDWR | O_NOCTTY);
  if (m < 0 || grantpt(m) != 0 || unlockpt(m) != 0) {
    say("ptmx", -1);
    return;
  }
  fflush(stdout);
  if (fork() == 0) {
    setsid();
    s = open(ptsname(m), O_RDWR);
    ioctl(s, TIOCSCTTY, 0);
    say("tiocsti", ioctl(s, TIOCSTI, &c));
    say("tioclinux", ioctl(s, TIOCLINUX, zero));
    /* a request with bits above 32, which the kernel cuts off */
    call("tiocsti-high", SYS_ioctl, s, (long)(TIOCSTI | 1L << 32), (long)&c, 0, 0);
    _exit(0);
  }
  wait(NULL);
}

static void connect_unix(const char *name)
{
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  socklen_t n = sizeof a;
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);

  if (name[0] == '@') {
    memcpy(a.sun_path + 1, name + 1, strlen(name + 1));
    n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
  } else {
    snprintf(a.sun_path, sizeof a.sun_path, "%s", name);
  }
  say(name, fd < 0 ? -1 : connect(fd, (struct sockaddr *)&a, n));
}

static void connect_tcp(const char *host, int port)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);

  inet_pton(AF_INET, host, &a.sin_addr);
  alarm(5);
  say(host, fd < 0 ? -1 : connect(fd, (struct sockaddr *)&a, sizeof a));
}

static long x32(void *arg)
{
  (void)arg;
  long rc = syscall(0x40000000L | SYS_getpid);
  return rc;
}

static long i386(void *arg)
{
#ifdef __x86_64__
  long rc;
  (void)arg;
  __asm__ volatile("int $0x80" : "=a"(rc) : "a"(20L /* getpid */) : "memory", "r8", "r9", "r10", "r11");
  if (rc < 0 && rc > -4096) {
    errno = (int)-rc;
    return -1;
  }
  return rc;
#else
  (void)arg;
  errno = ENOSYS;
  return -1;
#endif
}

static void sockets(void)
{
  static const struct { const char *name; int family, type, proto; } s[] = {
      {"vsock", 40, SOCK_STREAM, 0}, {"alg", 38, SOCK_SEQPACKET, 0}, {"packet", 17, SOCK_RAW, 0x300},
      {"netlink-audit", 16, SOCK_RAW, 9}, {"netlink-netfilter", 16, SOCK_RAW, 12}, {"key", 15, SOCK_RAW, 2},
      {"xdp", 44, SOCK_RAW, 0}, {"bluetooth", 31, SOCK_RAW, 1}, {"tipc", 30, SOCK_STREAM, 0},
      {"raw-icmp", 2, SOCK_RAW, 1}, {"raw-ip6", 10, SOCK_RAW, 58}, {"can", 29, SOCK_RAW, 1},
      {"rds", 21, SOCK_SEQPACKET, 0}, {"qipcrtr", 42, SOCK_DGRAM, 0}};

  for (size_t i = 0; i < sizeof s / sizeof *s; i++)
    say(s[i].name, socket(s[i].family, s[i].type, s[i].proto));
  try_call("x32", x32, NULL);
  try_call("i386", i386, NULL);
}

static void forks(int n)
{
  int made = 0;

  for (; made < n; made++) {
    pid_t pid = fork();
    if (pid < 0)
      break;
    if (pid == 0) {
      pause();
      _exit(0);
    }
  }
  printf("forks %d %s\n", made, made < n ? strerrorname_np(errno) : "OK");
}

static void memory(long mib)
{
  long got = 0;

  for (; got < mib; got += 16) {
    char *p = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
      break;
    for (long i = 0; i < 16 << 20; i += 4096)
      p[i] = 1;
  }
  printf("memory %ld %s\n", got, got < mib ? strerrorname_np(errno) : "OK");
}

/* As much memory, touched, for as long as it lives. */
static void hold(long mib)
{
  memory(mib);
  pause();
}

/* Fills a directory with one file until an error, or with empty files. */
static void fill(const char *dir, long mib)
{
  static char piece[1 << 20];
  char path[300];
  long got = 0;
  int fd;

  snprintf(path, sizeof path, "%s/fill-%d", dir, (int)getpid());
  fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  while (fd >= 0 && got < mib && write(fd, piece, sizeof piece) == (ssize_t)sizeof piece)
    got++;
  printf("%s %ld %s\n", dir, got, got < mib ? strerrorname_np(errno) : "OK");
  if (fd >= 0)
    unlink(path);
}

static void inodes(const char *dir, long n)
{
  char path[300];
  long i;

  for (i = 0; i < n; i++) {
    snprintf(path, sizeof path, "%s/inode-%ld", dir, i);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
      break;
    close(fd);
  }
  printf("inodes %ld %s\n", i, i < n ? strerrorname_np(errno) : "OK");
  while (i-- > 0) {
    snprintf(path, sizeof path, "%s/inode-%ld", dir, i);
    unlink(path);
  }
}

static void sparse(const char *path)
{
  signal(SIGXFSZ, SIG_IGN);
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  say("truncate", fd < 0 ? -1 : ftruncate(fd, (off_t)1 << 40));
  say("pwrite", fd < 0 ? -1 : pwrite(fd, "x", 1, (off_t)1 << 40));
  unlink(path);
}

/* Exchanges two names for ever: a directory and a link. How often is in the file, as bytes of a number. */
static void exchange(const char *a, const char *b, const char *count)
{
  int fd = count ? open(count, O_RDWR | O_CREAT, 0600) : -1;
  volatile long *n = fd >= 0 && ftruncate(fd, 4096) == 0 ? mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

  nice(10); /* two cores have to do: who is raced against must get on, too */
  for (;;)
    if (syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2 /* RENAME_EXCHANGE */) == 0 && n != MAP_FAILED)
      ++*n;
}

/* Descriptors that are open, other than 0 to 2. */
static void fds(void)
{
  int n = 0;

  for (int i = 3; i < 65536; i++)
    if (fcntl(i, F_GETFD) >= 0)
      n++, printf("fd %d\n", i);
  printf("fds %d\n", n);
}

static void forge(void)
{
  static const char *const text[] = {"0\n", "\n0\n", "exit 0\n", "ready\n"};
  signal(SIGPIPE, SIG_IGN);
  for (int i = 3; i < 256; i++)
    for (size_t k = 0; k < sizeof text / sizeof *text; k++)
      (void)!write(i, text[k], strlen(text[k]));
}

int main(int argc, char **argv)
{
  const char *a = argc > 1 ? argv[1] : "";

  if (strcmp(a, "open-w") == 0) open_each(O_WRONLY, argv + 2);
  else if (strcmp(a, "open-r") == 0) open_each(O_RDONLY, argv + 2);
  else if (strcmp(a, "create") == 0) open_each(O_WRONLY | O_CREAT, argv + 2);
  else if (strcmp(a, "pid1") == 0) pid1();
  else if (strcmp(a, "mounts") == 0) mounts();
  else if (strcmp(a, "namespaces") == 0) namespaces();
  else if (strcmp(a, "keys") == 0) keys();
  else if (strcmp(a, "uring") == 0) uring();
  else if (strcmp(a, "kernel") == 0) kernel();
  else if (strcmp(a, "tty") == 0) tty();
  else if (strcmp(a, "unix") == 0) for (int i = 2; i < argc; i++) connect_unix(argv[i]);
  else if (strcmp(a, "tcp") == 0) connect_tcp(argv[2], atoi(argv[3]));
  else if (strcmp(a, "sockets") == 0) sockets();
  else if (strcmp(a, "forks") == 0) forks(atoi(argv[2]));
  else if (strcmp(a, "memory") == 0) memory(atol(argv[2]));
  else if (strcmp(a, "hold") == 0) hold(atol(argv[2]));
  else if (strcmp(a, "fill") == 0) fill(argv[2], atol(argv[3]));
  else if (strcmp(a, "inodes") == 0) inodes(argv[2], atol(argv[3]));
  else if (strcmp(a, "sparse") == 0) sparse(argv[2]);
  else if (strcmp(a, "exchange") == 0) exchange(argv[2], argv[3], argv[4]);
  else if (strcmp(a, "fds") == 0) fds();
  else if (strcmp(a, "forge") == 0) forge();
  else return 2;
  return 0;
}
