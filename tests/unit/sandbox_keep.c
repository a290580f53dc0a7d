/* Checkpoint and restore by the local driver: what is kept, that everything stands still meanwhile and goes on
 * after, and archives that nobody should unpack. As root, where each session has a host uid, and as a user. */
#include "sandbox_kit.h"

#include <sys/un.h>

struct kept {
  int count, code, fd, moved;
  bool frozen;
  int64_t bytes, entries, skipped;
  char text[1200];
};

static void on_kept(void *ud, const struct mr_sandbox_kept *k)
{
  struct kept *r = ud;

  r->count++;
  r->code = k->code;
  r->fd = k->fd;
  r->frozen = k->frozen;
  r->bytes = k->bytes;
  r->entries = k->entries;
  r->skipped = k->skipped;
  snprintf(r->text, sizeof r->text, "%s", k->err ? k->err->message : "");
}

static void on_progress(void *ud, int64_t bytes, int64_t entries)
{
  struct kept *r = ud;
  r->moved++;
  CHECK(bytes >= 0 && entries >= 0);
}

static struct mr_sandbox_keep_opts opts(const char *session, struct kept *r)
{
  *r = (struct kept){.fd = -1};
  return (struct mr_sandbox_keep_opts){.session_id = session, .fn = on_kept, .progress = on_progress, .ud = r};
}

static struct kept checkpoint(struct rig *r, const char *session)
{
  struct mr_sandbox_keep *k;
  struct kept res;
  struct mr_sandbox_keep_opts o = opts(session, &res);

  CHECK_INT(mr_sandbox_checkpoint(r->d, &o, &k), MR_OK);
  CHECK_INT(res.count, 0);
  until(r, &res.count, 1);
  mr_sandbox_keep_free(&k);
  return res;
}

/* Into the session, when the archive is good; else what was said of it. */
static struct kept restore(struct rig *r, const char *session, int fd)
{
  struct mr_sandbox_keep *k;
  struct kept res;
  struct mr_sandbox_keep_opts o = opts(session, &res);

  CHECK_INT(mr_sandbox_restore(r->d, fd, &o, &k), MR_OK);
  until(r, &res.count, 1);
  if (res.code == MR_OK) {
    CHECK_INT(mr_sandbox_take(k, on_kept, &res), MR_OK);
    until(r, &res.count, 2);
  }
  mr_sandbox_keep_free(&k);
  return res;
}

/* What was dropped is removed by a job that nobody waits for. */
static void until_empty(struct rig *r, const char *sub)
{
  for (int i = 0; i < 100000 && entries_below(r, sub) > 0; i++)
    if (mr_loop_pump(r->loop, 10000) != MR_MORE)
      usleep(300);
  CHECK_INT(entries_below(r, sub), 0);
}

/* ---- there and back ---- */

static const char make_tree[] =
    "cd /workspace && mkdir -p a/b/c d && echo one > a/one && printf two > a/b/two && chmod 640 a/one && chmod 755 a/b/two && "
    "ln -s a/one soft && ln -s /etc/passwd out && ln -s nowhere/../at/all broken && ln a/one hard && ln a/one d/hard2 && "
    "truncate -s 64M sparse && printf x | dd of=sparse bs=1 seek=33554432 conv=notrunc 2>/dev/null && "
    "mkfifo pipe && touch 'sp ace' $'new\\\\nline' \\u00fcml && touch $'bad\\\\xff' && touch -d @1000000000 a/one && "
    "mkdir closed && echo in > closed/in && chmod 000 closed && echo no > secret && chmod 000 secret && "
    "touch -d @900000000 a && echo result > /mnt/session/outputs/r.txt && umask 022 && "
    "mkdir many && for i in $(seq 2500); do echo $i > many/$i; done; echo made";

static const char list_tree[] =
    "cd / && { find workspace mnt/session/outputs -type d -not -path '*/many/*' -printf '%p %y %m %n\\n'; "
    "find workspace mnt/session/outputs -not -type d -not -path '*/many/*' -not -type p -printf '%p %y %m %l %n %s %T@\\n'; "
    "cat workspace/a/one workspace/a/b/two workspace/hard mnt/session/outputs/r.txt; md5sum < workspace/sparse; "
    "find workspace/many -type f | wc -l; cat workspace/many/* | md5sum; } 2>&1 | sort | md5sum; ls -ld workspace/secret workspace/closed | cut -c1-10; "
    "stat -c %Y workspace/a; du -k workspace/sparse | cut -f1";

static void there_and_back(void)
{
  struct answer before, after;
  struct mr_sandbox *s, *t;
  struct kept k;
  struct rig r;

  open_rig(&r);
  CHECK(mr_sandbox_can_keep(r.d));
  k = checkpoint(&r, "sesn_none");
  CHECK_INT(k.code, MR_E_NOTFOUND);
  s = get(&r, "sesn_from");
  sh(&r, s, "m", make_tree);
  before = sh(&r, s, "l", list_tree);
  k = checkpoint(&r, "sesn_from");
  if (k.code != MR_OK)
    test_fail(__FILE__, __LINE__, "checkpoint: %s", k.text);
  CHECK(k.frozen && k.entries > 2500 && k.moved > 0);
  CHECK_INT(k.skipped, 1); /* the FIFO */
  CHECK(k.bytes < 1 << 20); /* holes are none of it */
  after = sh(&r, s, "l2", list_tree);
  CHECK_STR(mr_str_c(after.text), before.text); /* nothing of it was changed */
  int fd = k.fd;
  k = restore(&r, "sesn_to", fd);
  if (k.code != MR_OK)
    test_fail(__FILE__, __LINE__, "restore: %s", k.text);
  t = get(&r, "sesn_to");
  after = sh(&r, t, "l", list_tree);
  CHECK_STR(mr_str_c(after.text), before.text);
  sh(&r, t, "w", "chmod 644 /workspace/secret && echo mine >> /workspace/secret && rm -r /workspace/many && rm /mnt/session/outputs/r.txt");
  if (geteuid() == 0) {
    CHECK(owner(&r, "s/sesn_to/workspace") > 2000000 && owner(&r, "s/sesn_to/workspace") != owner(&r, "s/sesn_from/workspace"));
    CHECK_INT(owner(&r, "s/sesn_to/workspace/a/one"), owner(&r, "s/sesn_to/workspace"));
    CHECK_INT(owner(&r, "s/sesn_to/workspace/soft"), owner(&r, "s/sesn_to/workspace"));
  }
  /* over what is there, and while it runs: its sandbox ends */
  CHECK_INT(lseek(fd, 0, SEEK_SET), 0);
  k = restore(&r, "sesn_to", fd);
  CHECK_INT(k.code, MR_E_STATE);
  mr_sandbox_put(&t);
  k = restore(&r, "sesn_to", fd);
  CHECK_INT(k.code, MR_OK);
  t = get(&r, "sesn_to");
  after = sh(&r, t, "again", list_tree);
  CHECK_STR(mr_str_c(after.text), before.text);
  close(fd);
  until_empty(&r, "trash");
  CHECK_INT(entries_below(&r, "s"), 2);
  destroy(&r, "sesn_from");
  destroy(&r, "sesn_to");
  CHECK_INT(entries_below(&r, "trash") + (geteuid() == 0 ? entries_below(&r, "u") : 0), 0);
  mr_sandbox_put(&s);
  mr_sandbox_put(&t);
  close_rig(&r);
}

TEST(there_and_back_root) { there_and_back(); }
TEST(there_and_back_user)
{
  become_user();
  there_and_back();
}

/* ---- standing still ---- */

static long counter(const struct rig *r)
{
  char path[600], text[40] = "";
  int fd;

  snprintf(path, sizeof path, "%s/s/sesn_still/workspace/n", r->root);
  fd = open(path, O_RDONLY);
  if (fd < 0)
    return 0;
  CHECK(read(fd, text, sizeof text - 1) >= 0);
  close(fd);
  return strtol(text, NULL, 10);
}

static void until_counts(struct rig *r, long more)
{
  for (int i = 0; i < 200000 && counter(r) <= more; i++)
    if (mr_loop_pump(r->loop, 1000) != MR_MORE)
      usleep(200);
  CHECK(counter(r) > more);
}

/* A connection that asks for a freeze, as the driver makes one; it says when all stand. */
static int freeze(const struct rig *r, int ms)
{
  static const char want[] = "{\"t\":\"frozen\"}";
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  char path[600], text[512];
  unsigned char head[MR_ENVD_HEADER];
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), dir, n;

  snprintf(path, sizeof path, "%s/s/sesn_still", r->root);
  dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/envd.sock", dir);
  CHECK_INT(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
  close(dir);
  n = snprintf(text, sizeof text, "{\"t\":\"freeze\",\"ms\":%d}", ms);
  mr_envd_header_put(head, (uint32_t)n);
  CHECK(send(fd, head, sizeof head, 0) == sizeof head && send(fd, text, (size_t)n, 0) == n);
  for (int i = 0; i < 2; i++) { /* hello, frozen */
    CHECK_INT(recv(fd, head, sizeof head, MSG_WAITALL), sizeof head);
    n = (int)mr_envd_header_get(head);
    CHECK(n < (int)sizeof text && recv(fd, text, (size_t)n, MSG_WAITALL) == n);
  }
  CHECK_STR(mr_str_n(text, (size_t)n), want);
  return fd;
}

TEST(everything_stands_still_and_goes_on)
{
  struct answer a, b;
  struct mr_sandbox *s;
  struct kept k;
  struct rig r;
  long seen;
  int fd;

  open_rig(&r);
  s = get(&r, "sesn_still");
  sh(&r, s, "bg", "cd /workspace; (i=0; while :; do i=$((i+1)); echo $i > n.new && mv n.new n; done) & "
                  "(exec -a writer sh -c 'while :; do echo x; done >> log') & echo started");
  until_counts(&r, 10);
  fd = freeze(&r, 60000);
  seen = counter(&r);
  start(&r, s, "w", "write", "{\"file_path\":\"/workspace/late\",\"content\":\"x\"}", &a);
  start(&r, s, "c", "bash", "{\"command\":\"echo ran\"}", &b);
  for (int i = 0; i < 300; i++) {
    mr_loop_pump(r.loop, 1000);
    usleep(1000);
  }
  CHECK_INT(counter(&r), seen);
  CHECK(!exists(&r, "s/sesn_still/workspace/late") && a.count == 0 && b.count == 0);
  /* who froze it is gone: it goes on, and what waited is done */
  close(fd);
  until(&r, &a.count, 1);
  until(&r, &b.count, 1);
  CHECK(a.code == MR_OK && !a.is_error && strstr(b.text, "ran"));
  until_counts(&r, seen);
  /* its own limit */
  fd = freeze(&r, 200);
  seen = counter(&r);
  until_counts(&r, seen);
  close(fd);
  /* a process that froze it and was killed */
  pid_t pid = fork();
  if (pid == 0) {
    freeze(&r, 60000);
    kill(getpid(), SIGKILL);
  }
  CHECK(waitpid(pid, NULL, 0) == pid);
  until_counts(&r, counter(&r));
  /* a command that is cancelled is cancelled */
  start(&r, s, "long", "bash", "{\"command\":\"touch /workspace/begun; sleep 300\"}", &a);
  while (!exists(&r, "s/sesn_still/workspace/begun"))
    mr_loop_pump(r.loop, 1000);
  fd = freeze(&r, 60000);
  mr_sandbox_cancel(s, MR_S("long"));
  until(&r, &a.count, 1);
  CHECK_INT(a.code, MR_E_CANCELLED);
  close(fd);
  /* and a checkpoint of what never rests is one moment */
  sh(&r, s, "bg2", "cd /workspace; (i=0; while :; do i=$((i+1)); echo $i > p; echo $i > q; done) & echo started");
  for (int i = 0; i < 5; i++) {
    k = checkpoint(&r, "sesn_still");
    CHECK(k.code == MR_OK && k.frozen);
    close(k.fd);
  }
  a = sh(&r, s, "same", "jobs >/dev/null; echo alive");
  CHECK_STR(mr_str_c(a.text), "alive");
  destroy(&r, "sesn_still");
  mr_sandbox_put(&s);
  close_rig(&r);
}

TEST(cancelled_at_any_moment)
{
  struct mr_sandbox *s;
  struct rig r;

  open_rig(&r);
  s = get(&r, "sesn_still");
  sh(&r, s, "m", "cd /workspace; for i in $(seq 3000); do echo $i > $i; done; head -c 30M /dev/zero > big; "
                 "(i=0; while :; do i=$((i+1)); echo $i > n.new && mv n.new n; done) & echo made");
  struct kept whole = checkpoint(&r, "sesn_still");
  CHECK_INT(whole.code, MR_OK);
  for (int i = 0; i < 40; i++) {
    struct mr_sandbox_keep *k;
    struct kept res;
    struct mr_sandbox_keep_opts o = opts(i % 2 ? "sesn_still" : "sesn_new", &res);
    CHECK_INT(i % 2 ? mr_sandbox_checkpoint(r.d, &o, &k) : mr_sandbox_restore(r.d, whole.fd, &o, &k), MR_OK);
    for (int n = 0; n < i && !res.count; n++) {
      mr_loop_pump(r.loop, 1000);
      usleep(1000);
    }
    mr_sandbox_keep_free(&k);
    if (res.fd >= 0)
      close(res.fd);
  }
  close(whole.fd);
  until_empty(&r, "trash");
  until_counts(&r, counter(&r));
  CHECK_INT(entries_below(&r, "s"), 1);
  destroy(&r, "sesn_still");
  until_empty(&r, "u");
  mr_sandbox_put(&s);
  close_rig(&r);
}

/* A server that ends while it copies: the copies are nobody's, the sandbox goes on. */
TEST(the_driver_ends_meanwhile)
{
  struct mr_sandbox *s;
  struct kept res[3];
  struct mr_sandbox_keep *k[3];
  struct rig r;

  open_rig(&r);
  s = get(&r, "sesn_still");
  sh(&r, s, "m", "cd /workspace; for i in $(seq 2000); do echo $i > $i; done; "
                 "(i=0; while :; do i=$((i+1)); echo $i > n.new && mv n.new n; done) & echo made");
  struct kept whole = checkpoint(&r, "sesn_still");
  for (int i = 0; i < 3; i++) {
    struct mr_sandbox_keep_opts o = opts(i ? "sesn_new" : "sesn_still", &res[i]);
    if (i == 1)
      o.session_id = "sesn_other";
    CHECK_INT(i ? mr_sandbox_restore(r.d, whole.fd, &o, &k[i]) : mr_sandbox_checkpoint(r.d, &o, &k[i]), MR_OK);
    for (int n = 0; n < 10; n++) {
      mr_loop_pump(r.loop, 1000);
      usleep(500);
    }
  }
  mr_sandbox_put(&s);
  mr_sandbox_driver_free(&r.d);
  for (int i = 0; i < 3; i++) {
    if (res[i].fd >= 0)
      close(res[i].fd);
    mr_sandbox_keep_free(&k[i]);
  }
  close(whole.fd);
  close_rig(&r);
  open_rig(&r);
  until_counts(&r, counter(&r));
  until_empty(&r, "trash");
  destroy(&r, "sesn_still");
  CHECK_INT(entries_below(&r, "s"), 0);
  until_empty(&r, "u");
  close_rig(&r);
}

/* ---- archives that nobody should unpack ---- */

struct tar {
  int fd;
};

static void put(struct tar *t, const void *p, size_t n) { CHECK(write(t->fd, p, n) == (ssize_t)n); }

static void pad(struct tar *t, size_t n)
{
  static const char zero[512];
  if (n % 512)
    put(t, zero, 512 - n % 512);
}

static void header(struct tar *t, const char *name, char type, const char *link, long long size, int mode)
{
  char h[512] = "", number[32];
  unsigned sum = 0;

  snprintf(h, 100, "%s", name);
  snprintf(h + 100, 8, "%07o", mode);
  snprintf(h + 108, 8, "%07o", 0);
  snprintf(h + 116, 8, "%07o", 0);
  snprintf(number, sizeof number, "%011llo", size);
  memcpy(h + 124, number, 11);
  snprintf(h + 136, 12, "%011o", 1000000000);
  memset(h + 148, ' ', 8);
  h[156] = type;
  snprintf(h + 157, 100, "%s", link);
  memcpy(h + 257, "ustar\00000", 8);
  if (type == '3' || type == '4')
    memcpy(h + 329, "0000001\0000000003", 15);
  for (int i = 0; i < 512; i++)
    sum += (unsigned char)h[i];
  snprintf(h + 148, 8, "%06o", sum);
  put(t, h, 512);
}

static void entry(struct tar *t, const char *name, char type, const char *link)
{
  header(t, name, type, link, 0, 0777);
}

static void file(struct tar *t, const char *name, const char *text)
{
  header(t, name, '0', "", (long long)strlen(text), 0644);
  put(t, text, strlen(text));
  pad(t, strlen(text));
}

static void pax(struct tar *t, const char *record)
{
  header(t, "PaxHeader", 'x', "", (long long)strlen(record), 0644);
  put(t, record, strlen(record));
  pad(t, strlen(record));
}

static void end(struct tar *t)
{
  static const char zero[1024];
  put(t, zero, sizeof zero);
}

static struct tar tar_new(const struct rig *r)
{
  char path[400];
  struct tar t;

  snprintf(path, sizeof path, "%s/a.tar", r->root);
  unlink(path);
  t.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  CHECK(t.fd >= 0);
  return t;
}

/* The archive is refused with this code, and nothing of it is anywhere. */
static void refused(struct rig *r, struct tar *t, int code, const char *says)
{
  CHECK_INT(lseek(t->fd, 0, SEEK_SET), 0);
  struct kept k = restore(r, "sesn_hostile", t->fd);
  if (k.code != code || !strstr(k.text, says))
    test_fail(__FILE__, __LINE__, "expected %d and \"%s\", got %d: %s", code, says, k.code, k.text);
  close(t->fd);
  until_empty(r, "trash");
  until_empty(r, "u");
  CHECK_INT(entries_below(r, "s"), 0);
  CHECK(!exists(r, "../evil") && !exists(r, "evil") && access("/tmp/moonrig-evil", F_OK) != 0);
}

#define REFUSED(code, says, ...)                                                                                       \
  do {                                                                                                                 \
    struct tar t_ = tar_new(&r), *t = &t_;                                                                             \
    __VA_ARGS__;                                                                                                       \
    end(t);                                                                                                            \
    refused(&r, t, code, says);                                                                                        \
  } while (0)

static void hostile(void)
{
  static char big[3 << 20];
  struct rig r;
  char name[64];

  open_rig_with(&r, (struct mr_sandbox_options){.disk_max = 2 << 20});
  const int bad = MR_E_INVALID;
  REFUSED(bad, "not a plain path", file(t, "workspace/../../evil", "x"));
  REFUSED(bad, "not a plain path", file(t, "../evil", "x"));
  REFUSED(bad, "not a plain path", file(t, "workspace/..", "x"));
  REFUSED(bad, "not a plain path", file(t, "./workspace/x", "x"));
  REFUSED(bad, "not a plain path", file(t, "workspace//x", "x"));
  REFUSED(bad, "not a plain path", file(t, "/tmp/moonrig-evil", "x"));
  REFUSED(bad, "not below workspace", file(t, "workspaces/x", "x"));
  REFUSED(bad, "not below workspace", file(t, "evil", "x"));
  REFUSED(bad, "must be a directory", file(t, "workspace", "x"));
  REFUSED(bad, "must be a directory", entry(t, "outputs", '2', "/tmp"));
  REFUSED(bad, "no directory", entry(t, "workspace/l", '2', "/tmp"); file(t, "workspace/l/moonrig-evil", "x"));
  REFUSED(bad, "no directory", entry(t, "workspace/l", '2', "../.."); file(t, "workspace/l/evil", "x"));
  REFUSED(bad, "no directory", entry(t, "workspace/l", '2', "/proc/self/root/tmp"); entry(t, "workspace/l/moonrig-evil", '5', ""));
  REFUSED(bad, "there twice", entry(t, "workspace/l", '2', "/tmp/moonrig-evil"); file(t, "workspace/l", "x"));
  REFUSED(bad, "there twice", file(t, "workspace/f", "x"); file(t, "workspace/f", "y"));
  REFUSED(bad, "there twice", file(t, "workspace/f", "x"); entry(t, "workspace/f", '5', ""));
  REFUSED(bad, "no directory", file(t, "workspace/f", "x"); file(t, "workspace/f/g", "y"));
  REFUSED(bad, "not below workspace", entry(t, "workspace/h", '1', "etc/passwd"));
  REFUSED(bad, "not a plain path", entry(t, "workspace/h", '1', "/etc/passwd"));
  REFUSED(bad, "not a plain path", entry(t, "workspace/h", '1', "workspace/../../../../../etc/passwd"));
  REFUSED(bad, "no file of the archive", entry(t, "workspace/l", '2', "/etc/passwd"); entry(t, "workspace/h", '1', "workspace/l"));
  REFUSED(bad, "no directory", entry(t, "workspace/l", '2', "/etc"); entry(t, "workspace/h", '1', "workspace/l/passwd"));
  REFUSED(bad, "no file of the archive", entry(t, "workspace/d", '5', ""); entry(t, "workspace/h", '1', "workspace/d"));
  REFUSED(bad, "no file of the archive", entry(t, "workspace/h", '1', "workspace/none"));
  REFUSED(bad, "neither file", entry(t, "workspace/c", '3', ""));
  REFUSED(bad, "neither file", entry(t, "workspace/b", '4', ""));
  REFUSED(bad, "neither file", entry(t, "workspace/p", '6', ""));
  /* names in extended headers are looked at as well */
  REFUSED(bad, "not a plain path", pax(t, "16 path=../evil\n"); file(t, "workspace/x", "x"));
  REFUSED(bad, "not a plain path", pax(t, "27 linkpath=../../etc/evil\n"); entry(t, "workspace/h", '1', "workspace/x"));
  REFUSED(bad, "not a plain path", header(t, "././@LongLink", 'L', "", 8, 0); put(t, "../evil", 8); pad(t, 8); file(t, "workspace/x", "x"));
  /* bombs */
  REFUSED(MR_E_TOO_LARGE, "longer than", header(t, "workspace/big", '0', "", 10LL << 30, 0644));
  REFUSED(MR_E_TOO_LARGE, "longer than", pax(t, "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n31 GNU.sparse.name=workspace/x\n35 GNU.sparse.realsize=10737418240\n"); header(t, "workspace/big", '0', "", 512, 0644); put(t, "1\n0\n1\n", 6); pad(t, 6));
  REFUSED(MR_E_TOO_LARGE, "more than", for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "workspace/f%d", i);
    header(t, name, '0', "", 1 << 20, 0644);
    put(t, big, 1 << 20);
  });
  REFUSED(MR_E_TOO_LARGE, "more than 20000 files", for (int i = 0; i < 20001; i++) {
    snprintf(name, sizeof name, "workspace/f%d", i);
    file(t, name, "");
  });
  /* damage */
  REFUSED(bad, "damaged", put(t, "\x1f\x8b\x08\0\0\0\0\0garbage that is no archive", 32); pad(t, 32));
  REFUSED(bad, "damaged", header(t, "workspace/cut", '0', "", 1 << 20, 0644); put(t, big, 4096));
  struct tar t = tar_new(&r);
  refused(&r, &t, bad, "damaged"); /* nothing at all */
  close_rig(&r);
}

TEST(hostile_archives_root) { hostile(); }
TEST(hostile_archives_user)
{
  become_user();
  hostile();
}

/* What is unusual, but no harm: set-uid goes, directories that nobody may write to are filled first. */
TEST(odd_archives)
{
  struct mr_sandbox *s;
  struct answer a;
  struct kept k;
  struct rig r;

  open_rig(&r);
  struct tar t = tar_new(&r);
  header(&t, "workspace/", '5', "", 0, 0777);
  header(&t, "workspace/d", '5', "", 0, 0555);
  file(&t, "workspace/d/f", "in d");
  file(&t, "workspace/not/named/f", "made for it");
  header(&t, "workspace/su", '0', "", 0, 06755);
  header(&t, "workspace/st", '5', "", 0, 01777);
  entry(&t, "workspace/passwd", '2', "/etc/passwd");
  file(&t, "outputs/o", "out");
  end(&t);
  CHECK_INT(lseek(t.fd, 0, SEEK_SET), 0);
  k = restore(&r, "sesn_odd", t.fd);
  if (k.code != MR_OK)
    test_fail(__FILE__, __LINE__, "%s", k.text);
  close(t.fd);
  s = get(&r, "sesn_odd");
  a = sh(&r, s, "l", "cd /workspace && stat -c '%a %n' d su st && cat d/f not/named/f /mnt/session/outputs/o && stat -c %Y d/f && readlink passwd");
  CHECK_STR(mr_str_c(a.text), "555 d\n755 su\n777 st\nin dmade for itout1000000000\n/etc/passwd");
  destroy(&r, "sesn_odd");
  mr_sandbox_put(&s);
  close_rig(&r);
}
