/*
 * keep.c - the archiver: writes a session's workspace and outputs into a tar archive (pax, by libarchive), or
 * makes them from one. A process of its own, started by the driver's checkpoint and restore, because it reads
 * what others wrote: trees that a payload made, archives that anybody sent.
 *
 * Before it looks at either it becomes the session's host uid (when started as root), and gives up the network,
 * other programs, and every path but the directories that it was handed (keep_jail.c). All it does is by
 * descriptors below those, never through a symbolic link. Whatever an archive says, it can at most fill the
 * directory it was given, and that up to the limits.
 *
 * It tells the driver by lines on KEEP_REPORT: "progress BYTES ENTRIES", then "done BYTES ENTRIES SKIPPED" or
 * "error invalid|limit|io TEXT". A run without either has failed. Arguments are name=value.
 */
#include "keep.h"

#include <errno.h>
#include <grp.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SAY_BYTES = 8 << 20, SAY_ENTRIES = 2000 };
static const rlim_t MEMORY_MAX = (rlim_t)512 << 20;

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
  char line[1200];
  va_list ap;
  int n;

  va_start(ap, fmt);
  n = vsnprintf(line, sizeof line - 1, fmt, ap);
  va_end(ap);
  if (n > (int)sizeof line - 2) n = sizeof line - 2;
  for (int i = 0; i < n; i++)
    if (line[i] == '\n') line[i] = ' '; /* names of files may hold it */
  line[n++] = '\n';
  if (write(KEEP_REPORT, line, (size_t)n) < 0) _exit(101); /* nobody waits for it any more */
}

void keep_die(enum keep_fault f, const char *fmt, ...)
{
  static const char *const names[] = {"invalid", "limit", "io"};
  char text[1000];
  va_list ap;

  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  say("error %s %s", names[f], text);
  _exit(100);
}

void keep_count(struct keep *k, int64_t bytes, int64_t entries)
{
  k->bytes += bytes;
  k->entries += entries;
  if (k->bytes > k->bytes_max)
    keep_die(KEEP_LIMIT, "the files take more than %lld MiB", (long long)(k->bytes_max >> 20));
  if (k->entries > k->entries_max)
    keep_die(KEEP_LIMIT, "there are more than %lld files and directories", (long long)k->entries_max);
  if (k->bytes - k->said < SAY_BYTES && (!entries || k->entries % SAY_ENTRIES)) return;
  k->said = k->bytes;
  say("progress %lld %lld", (long long)k->bytes, (long long)k->entries);
}

static long long number(const char *name, const char *v)
{
  char *end;
  long long n;

  errno = 0;
  n = strtoll(v, &end, 10);
  if (errno || end == v || *end || n < 0) keep_die(KEEP_IO, "bad number for argument %s", name);
  return n;
}

static void parse(struct keep *k, int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    char *v = strchr(argv[i], '=');
    const char *name = argv[i];
    if (!v) keep_die(KEEP_IO, "argument without a value: %s", name);
    *v++ = '\0';
    if (strcmp(name, "do") == 0)
      k->restore = strcmp(v, "restore") == 0, k->probe = strcmp(v, "probe") == 0;
    else if (strcmp(name, "uid") == 0)
      k->uid = (uid_t)number(name, v), k->switch_uid = true;
    else if (strcmp(name, "bytes") == 0)
      k->bytes_max = number(name, v);
    else if (strcmp(name, "file") == 0)
      k->file_max = number(name, v);
    else if (strcmp(name, "entries") == 0)
      k->entries_max = number(name, v);
    else
      keep_die(KEEP_IO, "unknown argument %s", name);
  }
  if (k->switch_uid && k->uid == 0) keep_die(KEEP_IO, "uid: must not be 0");
  if (geteuid() == 0 && !k->switch_uid && !k->probe) keep_die(KEEP_IO, "uid: needed when started as root");
}

static void limit(int what, rlim_t n)
{
  struct rlimit r = {n, n}, now;

  if (getrlimit((__rlimit_resource_t)what, &now) != 0) keep_die(KEEP_IO, "limits: %s", strerror(errno));
  if (now.rlim_max != RLIM_INFINITY && now.rlim_max < n) r.rlim_cur = r.rlim_max = now.rlim_max;
  if (setrlimit((__rlimit_resource_t)what, &r) != 0) keep_die(KEEP_IO, "limits: %s", strerror(errno));
}

static void become(const struct keep *k)
{
  limit(RLIMIT_CORE, 1);
  limit(RLIMIT_DATA, MEMORY_MAX);
  limit(RLIMIT_NOFILE, 1024);
  if (k->restore) limit(RLIMIT_FSIZE, (rlim_t)k->file_max);
  signal(SIGXFSZ, SIG_IGN);
  if (k->switch_uid &&
      (setgroups(0, NULL) != 0 || setresgid((gid_t)k->uid, (gid_t)k->uid, (gid_t)k->uid) != 0 ||
       setresuid(k->uid, k->uid, k->uid) != 0))
    keep_die(KEEP_IO, "becoming the sandbox's uid: %s", strerror(errno));
}

int main(int argc, char **argv)
{
  static struct keep k;

  if (syscall(SYS_close_range, KEEP_FDS, ~0U, 0) != 0)
    for (int fd = KEEP_FDS; fd < 65536; fd++)
      close(fd);
  signal(SIGPIPE, SIG_IGN);
  /* Names are bytes; where they are UTF-8, the archive says so. */
  if (!setlocale(LC_CTYPE, "C.UTF-8")) setlocale(LC_CTYPE, "C.utf8");
  umask(0);
  parse(&k, argc, argv);
  if (k.probe) {
    say("done 0 0 0 %s", archive_version_string());
    return 0;
  }
  k.piece = malloc(KEEP_PIECE);
  if (!k.piece) keep_die(KEEP_IO, "out of memory");
  become(&k);
  keep_jail(&k);
  if (k.restore)
    keep_restore(&k);
  else
    keep_save(&k);
  say("done %lld %lld %lld", (long long)k.bytes, (long long)k.entries, (long long)k.skipped);
  return 0;
}
