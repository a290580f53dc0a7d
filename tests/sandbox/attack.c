/*
 * attack - drives the local sandbox driver and, inside its sandboxes, payloads that try to get out, to see
 * too much, to take too much, or to outlive their end. `attack root|user PROBE [NAME...]` prints one
 * "ok NAME" or "not ok NAME" line an attack. root: the server was started as root, so that every session
 * has a host uid of its own; user: it was started by uid 1500. PROBE is payload/probe, compiled.
 *
 * Numbers are those of README.md. One function an attack: the file is as long as the list.
 */
#include "kit.h"

/* ---- attacks: what can be seen and written ---- */

static void a01_kernel_files(struct world *w)
{
  denied(w, sh(w, PROBE " open-w /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/kernel/hostname"
                  " /proc/sys/vm/drop_caches /proc/sys/net/ipv4/ip_forward /proc/sys/fs/file-max /proc/kcore"
                  " /sys/kernel/uevent_helper /proc/1/mem /proc/irq/default_smp_affinity"),
         "EACCES|EROFS|ENOENT|EPERM", 10);
}

static void a02_read_host(struct world *w)
{
  char path[400], cmd[2000];

  host_file(w, "host-secret", SECRET, path);
  snprintf(cmd, sizeof cmd, PROBE " open-r /etc/shadow /root /home %s %s %s/s %s/s/sesn_other/workspace /var/lib /var/log"
           " /run/docker.sock /boot /opt /srv /proc/1/root/root", path, w->dir, w->root, w->root);
  denied(w, sh(w, cmd), "ENOENT|EACCES", 12);
  want(w, sh(w, "ls -A / | tr '\\n' ' '"), "^bin dev etc (lib[0-9x]* )+mnt proc run sbin tmp usr var workspace *$");
  want(w, sh(w, "ls -A /mnt /mnt/session | tr '\\n' ' '"), "memory session .*outputs uploads");
  never(w, sh(w, "cat /etc/passwd /proc/self/mountinfo; ls -AlR /etc/ssl /etc | head -500"), "shadow|gshadow|sudoers|ssh");
}

static void a03_write_host(struct world *w)
{
  denied(w, sh(w, PROBE " create /usr/x /usr/bin/x /etc/x /etc/passwd /x /mnt/x /mnt/session/x /mnt/memory/x /run/x"
                  " /var/x /dev/x /proc/x /proc/self/root/../x /bin/x /lib/x /mnt/session/uploads/x"
                  " /mnt/session/uploads/probe /etc/ld.so.preload /etc/hosts"),
         "EROFS|EACCES|ENOENT|EPERM", 19);
  want(w, sh(w, "for d in /workspace /tmp /dev/shm /mnt/session/outputs; do echo x > $d/w && rm $d/w && echo fine; done | sort | uniq -c"),
       "4 fine");
}

static void a04_secrets(struct world *w)
{
  const char *out = sh(w, "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'");
  never(w, out, SECRET);
  never(w, out, "ANTHROPIC|MOONRIG_|LD_PRELOAD");
  want(w, out, "^HOME=/workspace$");
}

static void a05_descriptors(struct world *w)
{
  want(w, sh(w, "cat <&9"), "[Bb]ad file descriptor");
  never(w, text(w), SECRET);
  want(w, sh(w, PROBE " fds"), "^fds 0$");
}

static void a06_first_process(struct world *w)
{
  denied(w, sh(w, PROBE " pid1"), "EACCES|EPERM|ENOSYS|EBADF|ESRCH|ENOENT", 19);
}

static void a07_helper_overwrite(struct world *w)
{
  denied(w, sh(w, PROBE " open-w /proc/1/exe /proc/self/exe /usr/bin/bash /bin/sh"), "EACCES|ETXTBSY|EROFS|EPERM", 4);
  sh(w, "cp " PROBE " /proc/1/exe; cat /dev/null > /proc/1/exe; for p in /proc/[0-9]*/exe; do : > $p; done 2>/dev/null; true");
  alive(w);
}

static void a08_mounts(struct world *w)
{
  denied(w, sh(w, PROBE " mounts"), "EPERM|ENOSYS|EACCES|EINVAL|ENOENT", 18);
}

static void a09_namespaces(struct world *w)
{
  denied(w, sh(w, PROBE " namespaces"), "EPERM|ENOSYS|ENOSPC|EACCES|EINVAL", 35);
}

static void a10_keys(struct world *w) { denied(w, sh(w, PROBE " keys"), "EPERM|ENOSYS", 4); }
static void a11_io_uring(struct world *w) { denied(w, sh(w, PROBE " uring"), "EPERM|ENOSYS", 3); }

static void a12_kernel_interfaces(struct world *w)
{
  denied(w, sh(w, PROBE " kernel"), "EPERM|ENOSYS|ENOENT|EACCES", 16);
}

static void a13_terminal(struct world *w)
{
  const char *out = sh(w, PROBE " tty");
  want(w, out, "^open-tty (ENXIO|ENOENT|EACCES)$");
  never(w, out, " OK$");
  want(w, out, "^(ptmx E|tiocsti E)");
}

static void a14_host_sockets(struct world *w)
{
  char cmd[600];
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "moonrig-attack-%d", (int)getpid());
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  if (bind(fd, (struct sockaddr *)&a, (socklen_t)(sizeof a.sun_family + 1 + (size_t)n)) != 0 || listen(fd, 1) != 0)
    fail(w, "abstract socket: %s", strerror(errno));
  snprintf(cmd, sizeof cmd, PROBE " unix @moonrig-attack-%d /run/docker.sock /var/run/docker.sock %s/s/%s/envd.sock", (int)getpid(),
           w->root, w->session);
  denied(w, sh(w, cmd), "ECONNREFUSED|ENOENT|EPERM|EACCES", 4);
  want(w, sh(w, "find / -xdev -type s 2>/dev/null | wc -l"), "^0$");
  close(fd);
}

static void a15_socket_families(struct world *w)
{
  denied(w, sh(w, PROBE " sockets"),
         "EAFNOSUPPORT|EPERM|EACCES|EPROTONOSUPPORT|ESOCKTNOSUPPORT|EINVAL|ENOSYS|SIGSYS", 16);
}

static void a16_host_network(struct world *w)
{
  char cmd[200];
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
  socklen_t n = sizeof a;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, (struct sockaddr *)&a, n) != 0 || listen(fd, 4) != 0 || getsockname(fd, (struct sockaddr *)&a, &n) != 0)
    fail(w, "listener: %s", strerror(errno));
  snprintf(cmd, sizeof cmd, PROBE " tcp 127.0.0.1 %d; " PROBE " tcp 10.0.2.2 80; " PROBE " tcp 169.254.169.254 80",
           ntohs(a.sin_port));
  denied(w, sh(w, cmd), "ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|EPERM|EACCES", 3);
  want(w, sh(w, "cat /proc/net/dev | grep -c :; test -e /etc/resolv.conf || echo no resolver"), "^1\nno resolver|^1$");
  close(fd);
}

/* ---- attacks: taking too much ---- */

static void a17_forks(struct world *w)
{
  char cmd[100];
  int made;
  double t0;

  snprintf(cmd, sizeof cmd, PROBE " forks %d", 5 * NPROC);
  t0 = now();
  want(w, sh(w, cmd), "^forks [0-9]+ EAGAIN$");
  if (!w->failed && (sscanf(text(w), "forks %d", &made) != 1 || made > NPROC))
    fail(w, "%d processes with a limit of %d", made, NPROC);
  if (now() - t0 > 20)
    fail(w, "took %.0f s", now() - t0);
  sh_ms(w, 3000, "f() { f | f & }; f; sleep 2; true");
  alive(w);
}

static void a18_memory(struct world *w)
{
  const struct mr_sandbox_feature *f;
  int n, mib = 0;
  bool told = false;

  want(w, sh(w, PROBE " memory 4096"), "^memory [0-9]+ ENOMEM$|[Kk]illed");
  if (!w->failed && sscanf(text(w), "memory %d", &mib) == 1 && mib > 512)
    fail(w, "%d MiB with a limit of 512", mib);
  /* What is not in force is said. */
  if (mr_sandbox_report(w->d, &f, &n, NULL) != MR_OK)
    fail(w, "report");
  for (int i = 0; i < n; i++)
    told |= strcmp(f[i].name, "memory limit") == 0 && (f[i].ok || strstr(f[i].detail, "not for the sandbox as a whole"));
  if (!told)
    fail(w, "the report does not say how memory is limited");
  want(w, sh(w, "cat /proc/self/oom_score_adj"), "^[5-9][0-9][0-9]$");
  alive(w);
}

static void a19_fill(struct world *w)
{
  const char *out = sh(w, PROBE " fill /tmp 500; " PROBE " fill /dev/shm 500; " PROBE " fill /dev 50; " PROBE " fill / 50; " PROBE " fill /run 50");
  want(w, out, "^/tmp [0-9]+ ENOSPC$");
  want(w, out, "^/dev/shm [0-9]+ ENOSPC$");
  want(w, out, "^/dev 0 (EROFS|EACCES|EPERM)$");
  want(w, out, "^/ 0 (EROFS|EACCES|EPERM)$");
  want(w, out, "^/run 0 (EROFS|EACCES|EPERM)$");
  denied(w, sh(w, PROBE " sparse /workspace/big"), "EFBIG", 2);
  if (strcmp(w->who, "root") == 0)
    want(w, sh(w, PROBE " inodes /tmp 200000"), "^inodes [0-9]+ ENOSPC$");
  sh(w, "head -c 400000000 /dev/zero > /workspace/one; stat -c 'size %s' /workspace/one");
  want(w, text(w), "^size 314572800$"); /* one file: at most 300 MiB */
  alive(w);
}

static void a20_output(struct world *w)
{
  const char *out;

  out = sh_ms(w, 3000, "yes");
  if (strlen(out) < 1000 || strlen(out) > 4 << 20)
    fail(w, "yes: %zu bytes", strlen(out));
  out = sh(w, "head -c 1000000000 /dev/zero | tr '\\0' x");
  if (strlen(out) < 1000 || strlen(out) > 4 << 20)
    fail(w, "a line of 1 GB: %zu bytes", strlen(out));
  want(w, out, "trunc|omitted|cut");
  out = sh(w, "printf 'a\\000b\\377\\376c\\033[31mred\\033]0;title\\007\\xe2\\x28\\xa1 end'");
  want(w, out, "red");
  want(w, out, "end");
  if (!mr_utf8_valid(mr_str_c(out)))
    fail(w, "not UTF-8");
  sh(w, "head -c 100000 /dev/urandom");
  if (!mr_utf8_valid(mr_buf_get(&w->text)))
    fail(w, "random bytes: not UTF-8");
  alive(w);
}

/* ---- attacks: staying, killing, confusing ---- */

static void a21_outlive(struct world *w)
{
  char mark[40], cmd[600];

  snprintf(mark, sizeof mark, "98%d", 1000000 + (int)getpid() % 1000000);
  snprintf(cmd, sizeof cmd,
           "trap '' TERM HUP INT; (setsid nohup bash -c 'trap \"\" TERM; (sleep %s &) ; sleep %s' >/dev/null 2>&1 &); "
           "sleep %s & disown; sleep 300", mark, mark, mark);
  sh_ms(w, 1500, cmd);
  alive(w);
  sh(w, "for i in 1 2 3; do setsid nohup sleep 971 >/dev/null 2>&1 & done; true");
  snprintf(cmd, sizeof cmd, "setsid nohup bash -c 'sleep 0.1; exec -a marked sleep %s' >/dev/null 2>&1 & sleep 0.3", mark);
  sh(w, cmd);
  if (host_processes(mark) == 0)
    fail(w, "nothing to outlive: the test does not test");
  destroy(w);
  if (host_processes(mark) != 0)
    fail(w, "%d processes outlived the sandbox", host_processes(mark));
}

static void a22_kill_all(struct world *w)
{
  char cmd[300];

  snprintf(cmd, sizeof cmd, "kill -9 %d; kill -STOP %d; kill -9 1; kill -STOP 1; echo tried", (int)getpid(), (int)getppid());
  want(w, sh(w, cmd), "tried");
  alive(w);
  sh_ms(w, 5000, "kill -9 -1");
  alive(w);
  sh_ms(w, 5000, "kill -STOP -1; sleep 1");
  alive(w);
}

static void a23_shell_death(struct world *w)
{
  static const char *const tries[] = {
      "exit 3", "exec true", "kill -9 $$", "exec 1>&- 2>&- 0>&-; echo x", "exec 200>&- 201>&- 202>&-; true",
      "set -e; false", "set -u; echo $nothing", "trap 'echo bye' EXIT; true", "trap 'exit 9' DEBUG; true",
      "printf() { echo hijacked; }; true", "echo() { :; }; read() { :; }; .() { :; }; true", "alias printf=false; true",
      "PROMPT_COMMAND='exit 5'; true", "readonly IFS PATH HOME; true", "PATH=/nowhere; true", "set -n", "enable -n echo printf read",
      "set -o noexec", "ulimit -n 3", "shopt -s extdebug; trap 'false' DEBUG", "if", "'", "$(", "kill -STOP $$", "cd /; rm -rf /workspace/*",
      "eval \"function builtin { exit 7; }\"", "exec bash -c 'sleep 0.1'", "return 5", "logout", "break 99"};
  char cmd[64];

  for (size_t i = 0; i < sizeof tries / sizeof *tries && !w->failed; i++) {
    sh_ms(w, 2500, tries[i]);
    snprintf(cmd, sizeof cmd, "/usr/bin/printf 'alive-%%s\\n' %zu", i);
    want(w, sh_ms(w, 8000, cmd), "alive-");
    if (w->failed)
      fprintf(stderr, "after: %s\n", tries[i]);
    tool(w, "bash", "{\"restart\":true}", 0);
  }
  alive(w);
}

static void a24_forge(struct world *w)
{
  sh_ms(w, 4000, PROBE " forge; false");
  if (!w->failed && !w->is_error && !match(text(w), "exit|status|1"))
    fail(w, "false was reported as success: %s", text(w));
  sh_ms(w, 4000, "for i in $(seq 3 255); do printf '0\\n' >&$i; done 2>/dev/null; (exit 7)");
  alive(w);
  want(w, sh(w, "echo real; (exit 7)"), "real");
  alive(w);
}

static void a25_stdin(struct world *w)
{
  want(w, sh_ms(w, 8000, "cat; read x; python3 - </dev/stdin 2>&1; head -c 10; echo eof"), "eof");
  want(w, sh_ms(w, 8000, "read -u 0 y; echo \"[$y]\""), "\\[\\]");
  alive(w);
}

/* ---- attacks: the file tools ---- */

static void a26_file_tools(struct world *w)
{
  static const char *const bad[][2] = {
      {"read", "{\"file_path\":\"/etc/shadow\"}"},
      {"read", "{\"file_path\":\"/workspace/../etc/shadow\"}"},
      {"read", "{\"file_path\":\"/workspace/abs\"}"},
      {"read", "{\"file_path\":\"/workspace/magic/etc/shadow\"}"},
      {"read", "{\"file_path\":\"/workspace/fifo\"}"},
      {"read", "{\"file_path\":\"/workspace/zero\"}"},
      {"read", "{\"file_path\":\"/dev/zero\"}"},
      {"read", "{\"file_path\":\"/proc/1/environ\"}"},
      {"read", "{\"file_path\":\"/proc/1/mem\"}"},
      {"read", "{\"file_path\":\"/workspace/dir\"}"},
      {"read", "{\"file_path\":\"/workspace/loop\"}"},
      {"write", "{\"file_path\":\"/etc/x\",\"content\":\"x\"}"},
      {"write", "{\"file_path\":\"/workspace/fifo\",\"content\":\"x\"}"},
      {"write", "{\"file_path\":\"/workspace/usr/bin/x\",\"content\":\"x\"}"},
      {"write", "{\"file_path\":\"/mnt/session/uploads/x\",\"content\":\"x\"}"},
      {"write", "{\"file_path\":\"/proc/self/oom_score_adj/x\",\"content\":\"x\"}"},
      {"edit", "{\"file_path\":\"/workspace/abs\",\"old_string\":\"root\",\"new_string\":\"x\"}"},
      {"edit", "{\"file_path\":\"/workspace/fifo\",\"old_string\":\"a\",\"new_string\":\"x\"}"},
      {"grep", "{\"pattern\":\"(a+)+$\",\"path\":\"/workspace/fifo\"}"},
  };

  sh(w, "cd /workspace; ln -s /etc/shadow abs; ln -s /proc/self/root magic; mkfifo fifo; ln -s /dev/zero zero; mkdir dir; "
        "ln -s loop loop; ln -s /usr usr; true");
  for (size_t i = 0; i < sizeof bad / sizeof *bad && !w->failed; i++) {
    double t0 = now();
    tool(w, bad[i][0], bad[i][1], 10000);
    if (!w->failed && !w->is_error && strcmp(bad[i][0], "grep") != 0)
      fail(w, "%s %s was not refused: %.200s", bad[i][0], bad[i][1], text(w));
    if (!w->failed && now() - t0 > 9)
      fail(w, "%s %s hung", bad[i][0], bad[i][1]);
  }
  tool(w, "grep", "{\"pattern\":\"(x+x+)+y\",\"path\":\"/workspace\"}", 5000);
  tool(w, "glob", "{\"pattern\":\"**/**/**/**/*\",\"path\":\"/\"}", 5000);
  alive(w);
}

static void a29_setuid(struct world *w)
{
  const char *out = sh(w, "cp /usr/bin/id /workspace/id && chmod 6755 /workspace/id && /workspace/id; "
                          "su -c id </dev/null; sudo -n id; grep -E '^(NoNewPrivs|Cap|Seccomp:)' /proc/self/status; "
                          "chown 0:0 /workspace/id; mknod /workspace/sda b 8 0 || echo no devices");
  want(w, out, "uid=1000");
  never(w, out, "uid=0|euid=0");
  want(w, out, "NoNewPrivs:[^0-9]*1");
  want(w, out, "Seccomp:[^0-9]*2");
  want(w, out, "no devices");
  want(w, out, "CapEff:[^0-9]*0+$");
  want(w, out, "CapBnd:[^0-9]*0+$");
  want(w, out, "CapInh:[^0-9]*0+$");
}

static void a30_core(struct world *w)
{
  want(w, sh(w, "grep core /proc/self/limits"), "Max core file size +1 +1 ");
  /* It cannot be changed either: at 0 the kernel would run a core_pattern program. */
  want(w, sh(w, "ulimit -c unlimited; ulimit -c 0; ulimit -Hc 0; prlimit --core=0 --pid $$; sh -c 'grep core /proc/self/limits'"),
       "Max core file size +1 +1 ");
  sh(w, "cd /workspace; sh -c 'kill -SEGV $$'; sh -c 'kill -ABRT $$'; true");
  want(w, sh(w, "ls -A /workspace /tmp | grep -c core"), "^0$");
}

/* ---- attacks: time ---- */

struct stretch { struct world *w; };

static void *short_thread(void *arg)
{
  struct world *w = ((struct stretch *)arg)->w;

  mr_loop_enter(w->loop);
  sh(w, "export THREAD=1");
  return NULL;
}

static void a38_thread_ends(struct world *w)
{
  struct stretch s = {w};
  pthread_t t;

  /* The thread that drove the loop when the sandbox was made is gone; so are, later, the driver and the
   * thread that spawned: no parent-death signal may reach the sandbox. */
  pthread_create(&t, NULL, short_thread, &s);
  pthread_join(t, NULL);
  mr_loop_enter(w->loop);
  want(w, sh(w, "echo thread $THREAD"), "thread 1");
  mr_sandbox_put(&w->s);
  close_driver(w);
  if (!open_driver(w))
    return;
  take(w, "a38_thread_ends");
  want(w, sh(w, "echo thread $THREAD"), "thread 1");
}

static long owner(struct world *w)
{
  char path[500];
  struct stat st;

  sh(w, "touch /workspace/mine");
  snprintf(path, sizeof path, "%s/s/%s/workspace/mine", w->root, w->session);
  if (stat(path, &st) != 0)
    fail(w, "%s: %s", path, strerror(errno));
  return (long)st.st_uid;
}

static void a41_uids_apart(struct world *w)
{
  struct mr_sandbox *keep = w->s;
  char session[64];
  long one = owner(w), two;

  snprintf(session, sizeof session, "%s", w->session);
  take(w, "a41_second");
  two = owner(w);
  if (one == 0 || two == 0 || (strcmp(w->who, "root") == 0) != (one != two))
    fail(w, "host uids %ld and %ld", one, two);
  destroy(w);
  mr_sandbox_put(&w->s);
  w->s = keep;
  snprintf(w->session, sizeof w->session, "%s", session);
}

/* ---- the list ---- */

static const struct attack attacks[] = {
    A(a01_kernel_files), A(a02_read_host), A(a03_write_host), A(a04_secrets), A(a05_descriptors),
    A(a06_first_process), A(a07_helper_overwrite), A(a08_mounts), A(a09_namespaces), A(a10_keys), A(a11_io_uring),
    A(a12_kernel_interfaces), A(a13_terminal), A(a14_host_sockets), A(a15_socket_families), A(a16_host_network),
    A(a17_forks), A(a18_memory), A(a19_fill), A(a20_output), A(a21_outlive), A(a22_kill_all), A(a23_shell_death),
    A(a24_forge), A(a25_stdin), A(a26_file_tools), A(a29_setuid), A(a30_core),
    A(a38_thread_ends), A(a41_uids_apart)};

int main(int argc, char **argv)
{
  return run_all(argc, argv, attacks, sizeof attacks / sizeof *attacks);
}
