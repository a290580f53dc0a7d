/* What a session may keep on disk holds: for one fast writer and for many files, for files without a name, in the
 * background and without a server; the model is told, and can delete. Each on a file system of its own, so that what
 * is taken is what the host lost. */
#include "sandbox_kit.h"

#include <sys/statvfs.h>

enum { MIB = 1 << 20, MAX = 64 * MIB };
/* What is let through: written in one look of envd's, on a busy machine a slow one. */
static const int64_t BOUND = 400ll * MIB;

struct free_space {
  int64_t bytes, files;
};

static struct free_space space(const struct rig *r)
{
  struct statvfs v;

  CHECK_INT(statvfs(r->root, &v), 0);
  return (struct free_space){(int64_t)v.f_bfree * (int64_t)v.f_frsize, (int64_t)v.f_ffree};
}

static struct rig small_rig(void)
{
  char path[300];
  struct rig r;

  snprintf(path, sizeof path, "%s/sandboxes", test_dir());
  CHECK(mkdir(path, 0700) == 0 || errno == EEXIST);
  if (geteuid() == 0) {
    CHECK(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mount("tmpfs", path, "tmpfs", 0, "size=1g,mode=0700,nr_inodes=300000") == 0);
  }
  open_rig_with(&r, (struct mr_sandbox_options){.disk_max = MAX});
  return r;
}

static int64_t taken(struct rig *r, struct free_space before)
{
  struct free_space now = space(r);
  return before.bytes - now.bytes;
}

/* Ended, and said why. */
static void ended(const struct answer *a, const char *says)
{
  if (a->code != MR_OK || !a->is_error || !strstr(a->text, says) || !strstr(a->text, "Delete some"))
    test_fail(__FILE__, __LINE__, "%d: %s", a->code, a->text);
}

static void can_delete(struct rig *r, struct mr_sandbox *s, const char *id, const char *what)
{
  char n[64];

  snprintf(n, sizeof n, "%s-d", id);
  sh(r, s, n, what);
  for (int i = 0; i < 100; i++) { /* it is seen at the next look */
    struct answer a;
    snprintf(n, sizeof n, "%s-w%d", id, i);
    a = ask(r, s, n, "write", "{\"file_path\":\"/workspace/again\",\"content\":\"x\"}");
    if (!a.is_error)
      return;
    ended(&a, "MiB");
    usleep(50000);
  }
  test_fail(__FILE__, __LINE__, "there is room again, but nothing may be written");
}

TEST(one_fast_writer_and_many_files)
{
  struct rig r = small_rig();
  struct mr_sandbox *s = get(&r, "sesn_disk");
  struct answer a;

  sh(&r, s, "first", "echo kept > mine; export STATE=kept");
  struct free_space before = space(&r);
  /* one file: over its own limit */
  a = ask(&r, s, "one", "bash", "{\"command\":\"head -c 300M /dev/zero > one\"}");
  CHECK(a.code == MR_OK && (strstr(a.text, "limit exceeded") || strstr(a.text, "more than 64 MiB")));
  sh(&r, s, "rm", "rm -f one; echo ok");
  a = ask(&r, s, "many", "bash", "{\"command\":\"i=0; while :; do i=$((i+1)); head -c 8M /dev/zero > f$i; done\"}");
  ended(&a, "more than 64 MiB");
  CHECK(taken(&r, before) < MAX + BOUND);
  a = ask(&r, s, "wr", "write", "{\"file_path\":\"/workspace/w\",\"content\":\"x\"}");
  ended(&a, "more than 64 MiB");
  a = ask(&r, s, "rd", "read", "{\"file_path\":\"/workspace/mine\"}");
  CHECK(a.code == MR_OK && !a.is_error && strstr(a.text, "kept"));
  can_delete(&r, s, "many", "rm -f f*; echo room again");
  /* each command a little more: the sum holds, too */
  for (int i = 0; i < 12; i++) {
    char id[16];
    snprintf(id, sizeof id, "more%d", i);
    ask(&r, s, id, "bash", "{\"command\":\"i=0; while [ $i -lt 2000 ]; do i=$((i+1)); head -c 4M /dev/zero > g$RANDOM$i || exit 1; done\"}");
    CHECK(taken(&r, before) < MAX + BOUND);
  }
  can_delete(&r, s, "more", "rm -f g*");
  a = sh(&r, s, "normal", "head -c 4M /dev/zero > h && wc -c < h; cat mine");
  CHECK(strstr(a.text, "4194304\nkept") != NULL);
  destroy(&r, "sesn_disk");
  mr_sandbox_put(&s);
  close_rig(&r);
}

TEST(many_inodes)
{
  struct rig r = small_rig();
  struct mr_sandbox *s = get(&r, "sesn_disk");
  struct answer a;

  sh(&r, s, "first", "echo kept > mine");
  struct free_space before = space(&r);
  a = ask(&r, s, "n", "bash", "{\"command\":\"python3 -c \\\"import os\\ni=0\\nwhile True:\\n  i+=1\\n  os.mkdir('d%d'%i) if i%10==0 else open('e%d'%i,'w').close()\\\" || while :; do i=$((i+1)); : > e$i; done\"}");
  ended(&a, "files and directories");
  CHECK(before.files - space(&r).files < 20000 + 100000);
  sh(&r, s, "rm", "find . -mindepth 1 -not -name mine -delete; ls | wc -l");
  a = sh(&r, s, "normal", "cat mine");
  CHECK(strstr(a.text, "kept") != NULL);
  destroy(&r, "sesn_disk");
  mr_sandbox_put(&s);
  close_rig(&r);
}

/* Files that are open and have no name, in directories that nobody may look into, and in outputs. */
TEST(hidden_files)
{
  static const char *const how[] = {
      "for i in 1 2 3 4 5 6 7 8; do exec {fd}> x; rm x; head -c 30M /dev/zero >&$fd || exit; sleep 0.2; done; sleep 100",
      "mkdir -p h/i; exec 31>h/i/a 32>h/i/b 33>h/i/c 34>h/i/d; chmod 000 h/i h; for n in 31 32 33 34; do head -c 30M /dev/zero >&$n || exit; sleep 0.2; done; sleep 100",
      "cd /mnt/session/outputs; for i in 1 2 3 4 5 6 7 8 9; do head -c 20M /dev/zero > f$i; done; sleep 100"};
  struct rig r = small_rig();
  struct answer a;

  for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
    char name[32], input[800];
    snprintf(name, sizeof name, "sesn_hidden%d", (int)i);
    struct mr_sandbox *s = get(&r, name);
    sh(&r, s, "first", "true");
    struct free_space before = space(&r);
    snprintf(input, sizeof input, "{\"command\":\"%s\"}", how[i]);
    a = ask(&r, s, "x", "bash", input);
    ended(&a, "more than 64 MiB");
    CHECK(taken(&r, before) < MAX + BOUND);
    destroy(&r, name);
    mr_sandbox_put(&s);
  }
  close_rig(&r);
}

TEST(in_the_background_and_without_a_server)
{
  struct rig r = small_rig();
  struct mr_sandbox *s = get(&r, "sesn_disk");
  struct free_space before = space(&r), last;
  struct answer a;
  int same = 0;

  sh(&r, s, "bg", "(sleep 1; i=0; while :; do i=$((i+1)); head -c 8M /dev/zero > f$i; done) > /dev/null 2>&1 & echo started");
  mr_sandbox_put(&s); /* nobody is attached; nobody asks */
  mr_sandbox_driver_free(&r.d);
  for (int i = 0; i < 800 && taken(&r, before) < MAX / 2; i++)
    usleep(50000);
  last = space(&r);
  for (int i = 0; i < 800 && same < 40; i++) { /* it has come to an end */
    usleep(50000);
    same = space(&r).bytes == last.bytes ? same + 1 : 0;
    last = space(&r);
  }
  if (same < 40 || taken(&r, before) < MAX / 2 || taken(&r, before) >= MAX + BOUND)
    test_fail(__FILE__, __LINE__, "%lld bytes taken, the same %d times", (long long)taken(&r, before), same);
  mr_childs_free(&r.childs);
  mr_pool_free(&r.pool);
  mr_loop_free(&r.loop);
  open_rig_with(&r, (struct mr_sandbox_options){.disk_max = MAX});
  s = get(&r, "sesn_disk");
  a = sh(&r, s, "after", "rm -f f*; echo alive");
  CHECK(strstr(a.text, "every process was killed") && strstr(a.text, "more than 64 MiB") && strstr(a.text, "alive"));
  a = sh(&r, s, "after2", "echo alive");
  CHECK_STR(mr_str_c(a.text), "alive");
  destroy(&r, "sesn_disk");
  mr_sandbox_put(&s);
  close_rig(&r);
}

TEST(as_a_user)
{
  struct answer a;

  become_user();
  struct rig r = small_rig();
  struct mr_sandbox *s = get(&r, "sesn_disk");
  a = ask(&r, s, "many", "bash", "{\"command\":\"i=0; while :; do i=$((i+1)); head -c 8M /dev/zero > f$i; done\"}");
  ended(&a, "more than 64 MiB");
  can_delete(&r, s, "many", "rm -f f*");
  destroy(&r, "sesn_disk");
  mr_sandbox_put(&s);
  close_rig(&r);
}
