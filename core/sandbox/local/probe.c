/*
 * probe.c - what this machine offers for sandboxes, found out by trying: bubblewrap is really run, with
 * the mounts and the uid that sessions get. Each finding is a line of `moonrig doctor`; the first required
 * one that is missing is the error that every tool call gives. Blocks for some 50 ms: pool thread, or the
 * first mr_sandbox_report.
 */
#include "sandbox/local/local_t.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RUN_MS = 10000, OUTPUT = 1000 };

static const char *const bwrap_paths[] = {"/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap",
                                          "/run/current-system/sw/bin/bwrap"};

static void feature(struct mr_local_machine *m, const char *name, bool ok, bool required, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
static void feature(struct mr_local_machine *m, const char *name, bool ok, bool required, const char *fmt, ...)
{
  struct mr_sandbox_feature *f = &m->features[m->nfeatures];
  char *detail = m->detail[m->nfeatures++];
  va_list ap;

  va_start(ap, fmt);
  vsnprintf(detail, sizeof m->detail[0], fmt, ap);
  va_end(ap);
  *f = (struct mr_sandbox_feature){.name = name, .ok = ok, .required = required, .detail = detail};
  if (!ok && required && m->code == MR_OK)
    m->code = mr_err_set(&m->err, MR_E_UNSUPPORTED, NULL, "no sandbox on this machine: %s: %s", name, detail);
}

/* First line of a small file of the kernel's; "" when there is none. */
static const char *read_line(const char *path, char out[256])
{
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd >= 0 ? read(fd, out, 255) : 0;

  out[n > 0 ? n : 0] = '\0';
  out[strcspn(out, "\n")] = '\0';
  if (fd >= 0) close(fd);
  return out;
}

/* ---- bubblewrap ---- */

static bool find_bwrap(const struct mr_local_conf *c, struct mr_local_machine *m)
{
  if (c->libexec && c->libexec[0]) {
    int n = snprintf(m->bwrap, sizeof m->bwrap, "%s/bwrap", c->libexec);
    if (n > 0 && n < (int)sizeof m->bwrap && access(m->bwrap, X_OK) == 0) return true;
  }
  for (size_t i = 0; i < sizeof bwrap_paths / sizeof *bwrap_paths; i++) {
    snprintf(m->bwrap, sizeof m->bwrap, "%s", bwrap_paths[i]);
    if (access(m->bwrap, X_OK) == 0) return true;
  }
  m->bwrap[0] = '\0';
  return false;
}

static void probe_bwrap(const struct mr_local_conf *c, struct mr_local_machine *m)
{
  const char *argv[] = {m->bwrap, "--version", NULL};
  char out[OUTPUT];
  int major = 0, minor = 0, e;

  if (!find_bwrap(c, m)) {
    feature(m, "bubblewrap", false, true, "bwrap is not installed; fix: apt install bubblewrap");
    return;
  }
  e = mr_local_run(argv, -1, RUN_MS, out, sizeof out);
  if (e || sscanf(out, "bubblewrap %d.%d", &major, &minor) != 2) {
    feature(m, "bubblewrap", false, true,
            "%s --version does not answer (%s); fix: apt install --reinstall bubblewrap", m->bwrap,
            e ? strerror(e) : "no version");
    m->bwrap[0] = '\0';
    return;
  }
  m->disable_userns = major > 0 || minor >= 8;
  out[strcspn(out, "\n")] = '\0';
  feature(m, "bubblewrap", major > 0 || minor >= 7, true, "%.60s (%s)%s", out, m->bwrap,
          major > 0 || minor >= 7 ? "" : "; fix: install bubblewrap 0.7 or newer");
}

/* ---- namespaces: a sandbox with nothing in it ---- */

static const char *namespaces_fix(void)
{
  char v[256];

  if (strcmp(read_line("/proc/sys/kernel/unprivileged_userns_clone", v), "0") == 0)
    return "sysctl -w kernel.unprivileged_userns_clone=1";
  if (strcmp(read_line("/proc/sys/user/max_user_namespaces", v), "0") == 0)
    return "sysctl -w user.max_user_namespaces=15000";
  if (strcmp(read_line("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", v), "1") == 0)
    return "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that allows bwrap "
           "\"userns\"";
  if (access("/.dockerenv", F_OK) == 0 || access("/run/.containerenv", F_OK) == 0)
    return "let this container make user namespaces and mounts (docker: --security-opt seccomp=unconfined "
           "--security-opt apparmor=unconfined --security-opt systempaths=unconfined)";
  return "allow unprivileged user namespaces for this user";
}

static int probe_dirs(const struct mr_local_conf *c, char path[4096])
{
  static const char *const names[] = {"workspace", "outputs", "uploads"};
  int n = snprintf(path, 4096, "%s/probe", c->root), fd, e = 0;

  if (n >= 4000) return ENAMETOOLONG;
  if (mkdir(path, 0700) != 0 && errno != EEXIST) return errno;
  fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  for (int i = 0; fd >= 0 && i < 3 && !e; i++) {
    if (mkdirat(fd, names[i], 0755) != 0 && errno != EEXIST)
      e = errno;
    else if (c->as_root &&
             fchownat(fd, names[i], (uid_t)c->uid_first, (gid_t)c->uid_first, AT_SYMLINK_NOFOLLOW) != 0)
      e = errno;
  }
  if (fd >= 0) close(fd);
  return fd < 0 ? errno : e;
}

static void last_line(char *text)
{
  char *p = text + strlen(text), *start;

  while (p > text && p[-1] == '\n')
    *--p = '\0';
  start = strrchr(text, '\n');
  if (start) memmove(text, start + 1, strlen(start + 1) + 1);
}

/* The kinds of namespace of which the sandbox had one of its own. text: lines like "pid:[4026531836]". */
static int own_namespaces(const char *text, char out[120])
{
  static const char *const kinds[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
  char path[40], here[64], line[72];
  int own = 0;

  out[0] = '\0';
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
    ssize_t n = readlink(path, here, sizeof here - 1);
    snprintf(line, sizeof line, "%s:[", kinds[i]);
    if (n <= 0 || !strstr(text, line)) continue;
    here[n] = '\0';
    if (strstr(text, here)) continue;
    snprintf(out + strlen(out), 120 - strlen(out), "%s%s", own ? ", " : "", kinds[i]);
    own++;
  }
  return own;
}

/* What the first process found about itself. */
static void facts(struct mr_local_machine *m, const char *text)
{
  char own[120];
  int n = own_namespaces(text, own);
  bool bare = strstr(text, "CapEff: 0000000000000000") && strstr(text, "CapBnd: 0000000000000000");

  feature(m, "user namespaces", true, true, "a sandbox was made and ended");
  feature(m, "namespaces", n == 7, false, "its own: %s", n ? own : "none");
  feature(m, "capabilities", bare, true, bare ? "none, and none can be had" : "some are left");
  feature(m, "no new privileges", strstr(text, "NoNewPrivs: 1") != NULL, true,
          "setuid programs and file capabilities give nothing");
}

/* Runs the launcher with a shell that does nothing. True: it went well. more: an argument of its own, or NULL. Else
 * out is the last thing that was said, and *e an errno, or 0 when something was said. */
static bool try_sandbox(const struct mr_local_conf *c, const struct mr_local_machine *m, const char *dir,
                        const char *more, char out[OUTPUT], int *e)
{
  char dir_arg[4112], bwrap_arg[160], uid_arg[32] = "probe=1", *end;
  const char *argv[] = {
      "launcher", "probe=1",     bwrap_arg,     dir_arg,
      uid_arg,    "tmp=1048576", "shm=1048576", m->disable_userns ? "disable_userns=1" : "disable_userns=0",
      more,       NULL};

  snprintf(dir_arg, sizeof dir_arg, "dir=%s", dir);
  snprintf(bwrap_arg, sizeof bwrap_arg, "bwrap=%s", m->bwrap);
  if (c->as_root) snprintf(uid_arg, sizeof uid_arg, "uid=%lld", (long long)c->uid_first);
  *e = mr_local_run(argv, c->launcher_fd, RUN_MS, out, OUTPUT);
  end = *e ? NULL : strstr(out, "launcher: exit ");
  if (end && strcmp(end, "launcher: exit 0\n") == 0) return true;
  if (end) *end = '\0';
  if (!*e) last_line(out);
  return false;
}

static const char *said(const char *out, int e)
{
  return e ? strerror(e) : out[0] ? out : "no reason given";
}

static void probe_namespaces(const struct mr_local_conf *c, struct mr_local_machine *m)
{
  char dir[4096], out[OUTPUT] = "", cgroup[MR_CG_PATH] = "", arg[MR_CG_PATH + 8];
  bool made;
  int e, fd;

  if (m->code != MR_OK) {
    feature(m, "user namespaces", false, true, "not tried: %s",
            m->bwrap[0] ? "no host uid for it" : "no bubblewrap");
    return;
  }
  e = probe_dirs(c, dir);
  fd = e == 0 ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  if (fd >= 0) mr_cgroup_make(&c->cgroup, MR_CG_PROBE, fd, cgroup, &m->cgroup, m->cgroup_why);
  snprintf(arg, sizeof arg, "cgroup=%s", cgroup);
  made = e == 0 && try_sandbox(c, m, dir, cgroup[0] ? arg : NULL, out, &e);
  if (fd >= 0) {
    mr_cgroup_end(&c->cgroup, fd, NULL);
    close(fd);
  }
  if (made) {
    facts(m, out);
    return;
  }
  feature(m, "user namespaces", false, true, "bubblewrap could not make a sandbox (%.120s); fix: %.150s",
          said(out, e),
          e || strstr(out, "namespace") || strstr(out, "uid map") || strstr(out, "ermission") ||
                  strstr(out, "ermitted")
              ? namespaces_fix()
              : "see the reason");
}

static void probe_layers(const struct mr_local_conf *c, struct mr_local_machine *m)
{
  char dir[4096], path[4200], arg[4128], out[OUTPUT] = "";
  int e;

  if (m->code != MR_OK) {
    snprintf(m->layers_why, sizeof m->layers_why, "not tried: no sandboxes");
  } else {
    e = probe_dirs(c, dir);
    snprintf(path, sizeof path, "%s/layer", dir);
    if (e == 0 && mkdir(path, 0755) != 0 && errno != EEXIST) e = errno;
    snprintf(path, sizeof path, "%s/layer/usr", dir);
    if (e == 0 && mkdir(path, 0755) != 0 && errno != EEXIST) e = errno;
    snprintf(arg, sizeof arg, "layer=%s/layer", dir);
    m->layers = e == 0 && try_sandbox(c, m, dir, arg, out, &e);
    if (!m->layers)
      snprintf(m->layers_why, sizeof m->layers_why, "%.150s; fix: a kernel with overlayfs%s", said(out, e),
               c->as_root ? "" : " in user namespaces (Linux 5.11 or newer)");
  }
  feature(m, "package layers", m->layers, false, "%s",
          m->layers ? "packages of environments are installed once and shown read-only" : m->layers_why);
}

/* ---- the rest ---- */

static void probe_uids(const struct mr_local_conf *c, struct mr_local_machine *m)
{
  long long first = c->uid_first, last = c->uid_first + c->uid_count - 1, from, to, n;
  bool mapped = false;
  FILE *f;

  if (!c->as_root) {
    feature(m, "host uids", true, false, "started as uid %d: sandboxes of all sessions share it",
            (int)geteuid());
    return;
  }
  f = fopen("/proc/self/uid_map", "re");
  while (f && fscanf(f, "%lld %lld %lld", &from, &to, &n) == 3)
    mapped |= from <= first && last < from + n;
  if (f) fclose(f);
  if (mapped)
    feature(m, "host uids", true, true, "%lld to %lld, one for each session", first, last);
  else
    feature(m, "host uids", false, true,
            "uids %lld to %lld do not exist in this user namespace; fix: set sandbox.uid_first and "
            "sandbox.uid_count to a range that does, or start as an ordinary user",
            first, last);
}

static void probe_kernel(struct mr_local_machine *m)
{
  char v[256];
  long abi;

  read_line("/proc/sys/kernel/seccomp/actions_avail", v);
  feature(m, "seccomp", strstr(v, "errno") != NULL, true, "%s",
          v[0] ? "filters system calls of what runs inside"
               : "this kernel has no seccomp filters; fix: CONFIG_SECCOMP_FILTER=y");
  abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */);
  if (abi > 0)
    feature(m, "landlock", true, false, "ABI %ld", abi);
  else
    feature(m, "landlock", false, false,
            "not in this kernel or not enabled; the mounts alone decide what can be written");
}

static void probe_limits(const struct mr_local_conf *c, struct mr_local_machine *m)
{
  const char *why = m->cgroup_why[0] ? m->cgroup_why : "not tried";
  long long mib = c->memory_max >> 20;

  feature(m, "limits of a process", true, false, "%lld MiB of data, %lld open files, no core files", mib,
          (long long)c->nofile);
  if (m->cgroup & MR_CG_MEMORY)
    feature(m, "memory limit", true, c->require_limits, "%lld MiB for a whole sandbox (cgroup)",
            (long long)(c->cgroup.memory_max >> 20));
  else
    feature(m, "memory limit", false, c->require_limits,
            "for each process only (%lld MiB), not for the sandbox as a whole: %.160s", mib, why);
  if (m->cgroup & MR_CG_PIDS)
    feature(m, "process limit", true, c->require_limits,
            "%lld processes and threads in a sandbox (cgroup, rlimit)", (long long)c->nproc);
  else if (c->bare)
    feature(m, "process limit", false, c->require_limits, "none: %.160s", why);
  else
    feature(m, "process limit", !c->require_limits, c->require_limits,
            "%lld processes and threads in a sandbox (rlimit)%s%.160s", (long long)c->nproc,
            c->require_limits ? "; no cgroup: " : "", c->require_limits ? why : "");
  if (c->cgroup.cpu_percent)
    feature(m, "cpu limit", (m->cgroup & MR_CG_CPU) != 0, c->require_limits, "%d %% of a core%s%.160s",
            c->cgroup.cpu_percent,
            m->cgroup & MR_CG_CPU ? " (cgroup)" : " is not in force: ", m->cgroup & MR_CG_CPU ? "" : why);
  feature(m, "kill", true, false, "%s",
          m->cgroup & MR_CG_KILL ? "the end of PID 1, and cgroup.kill"
          : c->bare              ? "what descends from the first process of each sandbox"
                                 : "the end of PID 1 takes everything with it");
  feature(m, "disk limit", true, false, "files up to %lld MiB each; commands are ended above %lld MiB in all",
          (long long)(c->file_max >> 20), (long long)(c->disk_max >> 20));
  if (c->bare)
    feature(m, "network", false, false,
            "not limited: commands reach what this user reaches, whatever the environment's networking says");
  else if (c->network)
    feature(m, "network", true, false,
            "by the server's proxy alone, as the environment's networking says; public addresses and what "
            "allow_private_hosts lists");
  else
    feature(m, "network", false, false, "commands have no network");
}

/* Nothing is kept apart, so there is nothing to try but the control group. */
static void probe_bare(const struct mr_local_conf *c, struct mr_local_machine *m)
{
  char dir[4096], cgroup[MR_CG_PATH];
  int e = probe_dirs(c, dir), fd = e == 0 ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

  feature(
      m, "isolation", false, false,
      "UNSAFE: sandbox.driver is none: commands of agents run as uid %d, see what it sees and reach what it "
      "reaches; only writing is bound to their directories and /tmp, where there is Landlock",
      (int)geteuid());
  if (fd < 0) return;
  mr_cgroup_make(&c->cgroup, MR_CG_PROBE, fd, cgroup, &m->cgroup, m->cgroup_why);
  mr_cgroup_end(&c->cgroup, fd, NULL);
  close(fd);
}

void mr_local_probe(const struct mr_local_conf *c, struct mr_local_machine *m)
{
  memset(m, 0, sizeof *m);
  if (c->bare) {
    probe_bare(c, m);
  } else {
    probe_bwrap(c, m);
    probe_uids(c, m);
    probe_namespaces(c, m);
    probe_layers(c, m);
  }
  probe_kernel(m);
  probe_limits(c, m);
  m->at_us = mr_mono_us(c->sys);
  m->known = true;
}
