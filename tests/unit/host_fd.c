/* ext.readable: descriptors of the host's own, their cancelling and closing. Digests and randomness. */
#include "host_kit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

static void count(void *ud)
{
  ++*(int *)ud;
}

static int fds(void)
{
  DIR *d = opendir("/proc/self/fd");
  int n = 0;
  while (readdir(d))
    n++;
  closedir(d);
  return n;
}

TEST(a_pipe_is_readable_once_written_to)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_err err = {.size = sizeof err};
  int p[2], hits = 0, late = 0, open_before;
  uint64_t id = 0, timer;
  char c;

  CHECK_INT(pipe2(p, O_CLOEXEC), 0);
  open_before = fds();
  CHECK_INT(X()->readable(rt, p[0], count, &hits, &id, &err), MR_OK);
  CHECK(id != 0);
  CHECK_INT(X()->timer(rt, 20000, count, &late, &timer), MR_OK);
  UNTIL(rt, late);
  CHECK_INT(hits, 0); /* silent: not readable */
  CHECK_INT(write(p[1], "x", 1), 1);
  UNTIL(rt, hits);
  CHECK_INT(hits, 1);
  CHECK_INT(X()->readable_cancel(rt, id), 0); /* it is over */
  CHECK_INT(read(p[0], &c, 1), 1);
  close(p[1]);
  CHECK_INT(X()->readable(rt, p[0], count, &hits, NULL, &err), MR_OK); /* the end counts */
  UNTIL(rt, hits == 2);
  UNTIL(rt, fds() == open_before - 1);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(plain_files_and_dev_null_are_readable_at_once)
{
  struct mr_runtime *rt = host_open(":memory:");
  char path[300];
  int hits = 0, fd;

  snprintf(path, sizeof path, "%s/file", test_dir());
  fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK_INT(X()->readable(rt, fd, count, &hits, NULL, NULL), MR_OK);
  UNTIL(rt, hits == 1);
  close(fd);
  fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK_INT(X()->readable(rt, fd, count, &hits, NULL, NULL), MR_OK);
  UNTIL(rt, hits == 2);
  close(fd);
  CHECK_INT(mr_close(&rt), MR_OK);
}

TEST(cancelled_waits_never_call_and_the_fd_may_be_closed)
{
  struct mr_runtime *rt = host_open(":memory:");
  int p[2], q[2], hits = 0, other = 0, before = fds();
  uint64_t id, id2;

  for (int i = 0; i < 100; i++) { /* at every moment of its way to the loop */
    CHECK_INT(pipe2(p, O_CLOEXEC), 0);
    CHECK_INT(X()->readable(rt, p[0], count, &hits, &id, NULL), MR_OK);
    if (i % 3) CHECK_INT(write(p[1], "x", 1), 1);
    if (i % 2) usleep(200);
    CHECK_INT(X()->readable_cancel(rt, id), 1);
    CHECK_INT(X()->readable_cancel(rt, id), 0);
    close(p[0]);
    close(p[1]);
  }
  CHECK_INT(pipe2(p, O_CLOEXEC), 0);
  CHECK_INT(X()->readable(rt, p[0], count, &hits, &id, NULL), MR_OK);
  usleep(2000);
  close(p[0]); /* before the cancel, and its number used again */
  CHECK_INT(pipe2(q, O_CLOEXEC), 0);
  CHECK_INT(X()->readable(rt, q[0], count, &other, &id2, NULL), MR_OK);
  CHECK_INT(X()->readable_cancel(rt, id), 1);
  CHECK_INT(write(q[1], "x", 1), 1);
  UNTIL(rt, other == 1);
  CHECK_INT(hits, 0);
  close(p[1]);
  close(q[0]);
  close(q[1]);
  UNTIL(rt, fds() == before);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(two_waits_for_one_descriptor_both_hear)
{
  struct mr_runtime *rt = host_open(":memory:");
  int p[2], a = 0, b = 0;
  uint64_t id;

  CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), 0);
  CHECK_INT(X()->readable(rt, p[0], count, &a, &id, NULL), MR_OK);
  CHECK_INT(X()->readable(rt, p[0], count, &b, NULL, NULL), MR_OK);
  CHECK_INT(X()->readable_cancel(rt, id), 1);
  CHECK_INT(X()->readable(rt, p[0], count, &a, NULL, NULL), MR_OK);
  CHECK_INT(write(p[1], "x", 1), 1);
  UNTIL(rt, a == 1 && b == 1);
  CHECK_INT(mr_close(&rt), MR_OK);
}

TEST(closing_ends_waits_and_misuse_is_refused)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct mr_err err = {.size = sizeof err};
  int p[2], hits = 0, before = fds();

  CHECK_INT(X()->readable(rt, -1, count, &hits, NULL, &err), MR_E_INVALID);
  CHECK_STR(mr_str_c(err.field), "fd");
  CHECK_INT(X()->readable(rt, 0, NULL, NULL, NULL, &err), MR_E_INVALID);
  CHECK_INT(X()->readable_cancel(rt, 12345), 0);
  CHECK_INT(pipe2(p, O_CLOEXEC), 0);
  CHECK_INT(X()->readable(rt, p[0], count, &hits, NULL, NULL), MR_OK);
  usleep(2000);
  CHECK_INT(X()->readable(rt, p[0], count, &hits, NULL, NULL), MR_OK); /* perhaps still under way */
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(hits, 0);
  close(p[0]);
  close(p[1]);
  CHECK(fds() < before);
  CHECK_INT(test_allocs(), 0);
}

static void check_digest(const char *name, const char *key, const char *data, const char *hex)
{
  struct mr_str k = mr_str_c(key);
  unsigned char out[64];
  char text[129];
  size_t n;

  CHECK_INT(X()->digest(name, key ? &k : NULL, mr_str_c(data), out, &n), MR_OK);
  for (size_t i = 0; i < n; i++)
    snprintf(text + 2 * i, 3, "%02x", out[i]);
  CHECK_STR(mr_str_n(text, 2 * n), hex);
}

TEST(digests_are_those_of_the_standards)
{
  struct mr_runtime *rt = host_open(":memory:");
  unsigned char a[32] = {0}, b[32] = {0}, out[64];
  size_t n;

  check_digest("sha256", NULL, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  check_digest("sha1", NULL, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d");
  check_digest("md5", NULL, "", "d41d8cd98f00b204e9800998ecf8427e");
  check_digest("sha512", NULL, "abc",
               "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd"
               "454d4423643ce80e2a9ac94fa54ca49f");
  /* RFC 4231, case 2 */
  check_digest("sha256", "Jefe", "what do ya want for nothing?",
               "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  CHECK_INT(X()->digest("blake2b512", NULL, S("x"), out, &n), MR_OK);
  CHECK_INT(n, 64);
  CHECK_INT(X()->digest("sha3", NULL, S("x"), out, &n), MR_E_INVALID);
  CHECK_INT(X()->digest(NULL, NULL, S("x"), out, &n), MR_E_INVALID);
  CHECK_INT(X()->random(rt, a, sizeof a), MR_OK);
  CHECK_INT(X()->random(rt, b, sizeof b), MR_OK);
  CHECK(memcmp(a, b, sizeof a) != 0);
  CHECK_INT(mr_close(&rt), MR_OK);
}
