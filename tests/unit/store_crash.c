/* What disks and kills do: kill -9 in the middle of commits, a full disk, fault points, a long log. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "store_kit.h"

enum { SESSIONS = 8, DEPTH = 40 };

/* An acknowledged commit: two rows of session `session`, `n` in their bodies, the first at pos. */
struct ack { int32_t session, n; int64_t pos; };

struct stream { struct ts t; int fd, open; int32_t n; };
struct inflight { struct stream *st; struct ack a; };

static void stream_more(struct stream *st);

static void stream_done(void *ud, const struct mr_commit_result *r)
{
  struct inflight *f = ud;
  struct stream *st = f->st;

  CHECK_INT(r->code, MR_OK);
  f->a.pos = r->first_pos;
  if (write(st->fd, &f->a, sizeof f->a) != sizeof f->a)
    _exit(0);
  free(f);
  st->open--;
  stream_more(st);
}

static void stream_more(struct stream *st)
{
  while (st->open < DEPTH) {
    struct inflight *f = malloc(sizeof *f);
    struct mr_commit *c = ts_commit(&st->t);
    char id[32], body[2][64];
    struct mr_log_row r[2];

    *f = (struct inflight){st, {st->n % SESSIONS, st->n, 0}};
    st->n++;
    snprintf(id, sizeof id, "sesn_%d", f->a.session);
    for (int i = 0; i < 2; i++) {
      snprintf(body[i], sizeof body[i], "%d.%d", f->a.n, i);
      r[i] = ts_log("user.message", "sevt_1", 1, body[i]);
    }
    mr_commit_label(c, "stream");
    mr_commit_log(c, mr_str_c(id), r, 2);
    mr_commit_submit(&c, stream_done, f);
    st->open++;
  }
}

static void stream_run(const char *dir, int fd)
{
  struct stream st = {.fd = fd};
  char id[32];

  ts_open(&st.t, dir);
  for (int i = 0; i < SESSIONS; i++) {
    struct mr_commit *c = ts_commit(&st.t);
    struct mr_session_row s;
    snprintf(id, sizeof id, "sesn_%d", i);
    s = ts_session(id, 1);
    mr_commit_session_new(c, &s);
    ts_submit(&st.t, c, NULL); /* exists after the first round */
  }
  stream_more(&st);
  for (;;) {
    mr_loop_pump(st.t.loop, 0);
    usleep(20);
  }
}

/* How many of the acknowledged pairs are there, each whole, at its position, with its body. */
static int find_acks(const char *dir, const struct ack *acks, int n)
{
  struct ts t;
  struct got g = {0};
  char id[32], body[64];
  int found = 0;

  ts_open(&t, dir);
  for (int s = 0; s < SESSIONS; s++) {
    int64_t after = 0;
    snprintf(id, sizeof id, "sesn_%d", s);
    do {
      ts_read(&t, &g, mr_read_log, t.ws, &(struct mr_log_query){.session_id = mr_str_c(id), .after_pos = after, .limit = 1000});
      CHECK_INT(g.n % 2, 0); /* never half a commit */
      for (int i = 0; i < g.n; i += 2) {
        CHECK_INT(g.log[i + 1].pos, g.log[i].pos + 1);
        for (int k = 0; k < n; k++)
          if (acks[k].pos == g.log[i].pos) {
            CHECK_INT(acks[k].session, s);
            snprintf(body, sizeof body, "%d.0", acks[k].n);
            CHECK_STR(g.log[i].body, body);
            snprintf(body, sizeof body, "%d.1", acks[k].n);
            CHECK_STR(g.log[i + 1].body, body);
            found++;
          }
      }
      after = g.n ? g.log[g.n - 1].pos : after;
    } while (g.more);
  }
  got_free(&g);
  ts_close(&t);
  return found;
}

/* Runs the stream in a child until enough acks came, or it died; kills it; returns the acks in all. */
static int round_of(const char *dir, struct ack *acks, int have, int enough)
{
  int p[2], got = 0;
  pid_t pid;

  CHECK(pipe(p) == 0);
  pid = fork();
  if (pid == 0) {
    close(p[0]);
    stream_run(dir, p[1]);
  }
  close(p[1]);
  while (read(p[0], &acks[have + got], sizeof *acks) == sizeof *acks) {
    got++;
    if (got == enough)
      kill(pid, SIGKILL);
    if (got > enough + 4000)
      break;
  }
  close(p[0]);
  kill(pid, SIGKILL);
  CHECK(waitpid(pid, NULL, 0) == pid);
  return have + got;
}

TEST(kill_in_the_middle)
{
  static struct ack acks[20000];
  char dir[4096];
  int n = 0;

  snprintf(dir, sizeof dir, "%s", test_dir());
  for (int i = 0; i < 4; i++) {
    n = round_of(dir, acks, n, 150 + 211 * i);
    CHECK(n > 0);
    CHECK_INT(find_acks(dir, acks, n), n);
  }
}

#ifdef MR_DEBUG
/* Killed at each named barrier; in particular just after the COMMIT, before anyone was told. */
TEST(kill_at_barriers)
{
  static const char *const faults[] = {"store.commit.before=kill@12", "store.commit.after=kill@12",
                                       "commit.stream.before=kill@30", "commit.stream.after=kill@30"};
  static struct ack acks[20000];
  char dir[4096];
  int n = 0;

  snprintf(dir, sizeof dir, "%s", test_dir());
  for (int i = 0; i < 4; i++) {
    setenv("MOONRIG_FAULT", faults[i], 1);
    n = round_of(dir, acks, n, 1000000);
    unsetenv("MOONRIG_FAULT");
    CHECK_INT(find_acks(dir, acks, n), n);
  }
}

/* The tests above would notice a store that answers before its COMMIT: with that barrier switched off,
 * acknowledged commits are missing. */
TEST(kill_test_notices_early_answers)
{
  static struct ack acks[20000];
  char dir[4096];
  int n;

  snprintf(dir, sizeof dir, "%s", test_dir());
  n = round_of(dir, acks, 0, 100);
  CHECK_INT(find_acks(dir, acks, n), n);
  setenv("MOONRIG_SWITCH", "store-ack-early", 1);
  setenv("MOONRIG_FAULT", "store.commit.before=kill@12", 1);
  n = round_of(dir, acks, n, 1000000);
  unsetenv("MOONRIG_SWITCH");
  unsetenv("MOONRIG_FAULT");
  CHECK(find_acks(dir, acks, n) < n);
}

TEST(failed_commit_by_fault_point)
{
  struct ts t;
  struct mr_err err;
  struct mr_commit *c;
  struct got g = {0};
  struct outcome o;
  struct mr_log_row r = ts_log("user.message", "sevt_1", 1, "{}");

  ts_open(&t, test_dir());
  ts_session_make(&t, "sesn_1", 1);
  CHECK(!mr_store_failing(t.s, NULL));
  setenv("MOONRIG_FAULT", "commit.turn.take.before=fail", 1);
  c = ts_commit(&t);
  mr_commit_label(c, "turn.take");
  mr_commit_log(c, MR_S("sesn_1"), &r, 1);
  CHECK_INT(ts_submit(&t, c, &o), MR_E_UNAVAILABLE);
  CHECK(mr_store_failing(t.s, &err));
  CHECK(err.message[0] != '\0');
  unsetenv("MOONRIG_FAULT");
  ts_read(&t, &g, mr_read_log, t.ws, &(struct mr_log_query){.session_id = MR_S("sesn_1"), .limit = 9});
  CHECK_INT(g.n, 0);
  for (int i = 0; mr_store_failing(t.s, NULL); i++) { /* recovers without a caller */
    CHECK(i < 1000);
    usleep(10000);
  }
  c = ts_commit(&t);
  mr_commit_log(c, MR_S("sesn_1"), &r, 1);
  CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  got_free(&g);
  ts_close(&t);
}
#endif

/* A file system of 3 MiB when this may mount one, else a limit on file sizes. */
static bool small_disk(const char *dir, bool *mounted)
{
  struct rlimit rl = {1 << 20, 1 << 20};

  *mounted = mount("tmpfs", dir, "tmpfs", 0, "size=3m,mode=0700") == 0;
  if (*mounted)
    return true;
  signal(SIGXFSZ, SIG_IGN);
  rl.rlim_max = RLIM_INFINITY;
  return setrlimit(RLIMIT_FSIZE, &rl) == 0;
}

static void filler(const char *dir, bool mounted, bool make)
{
  char path[4200], zeros[65536] = {0};
  struct rlimit rl = {RLIM_INFINITY, RLIM_INFINITY};
  int fd;

  snprintf(path, sizeof path, "%s/filler", dir);
  if (!mounted && !make)
    setrlimit(RLIMIT_FSIZE, &rl);
  if (!mounted)
    return;
  if (!make) {
    unlink(path);
    return;
  }
  fd = open(path, O_WRONLY | O_CREAT, 0600);
  for (int i = 0; i < 24; i++)
    CHECK(write(fd, zeros, sizeof zeros) > 0);
  close(fd);
}

/* Writes until refused; the refused commit leaves nothing, reads go on, and when there is room again the
 * store finds out by itself and goes on. */
TEST(disk_full)
{
  struct ts t;
  struct mr_err err;
  struct got g = {0};
  struct outcome o = {0};
  struct mr_commit *c;
  char dir[4096], *body = malloc(8193);
  int ok = 0, refused = 0, n;
  bool mounted;

  snprintf(dir, sizeof dir, "%s/disk", test_dir());
  CHECK(mkdir(dir, 0700) == 0);
  CHECK(small_disk(dir, &mounted));
  filler(dir, mounted, true);
  memset(body, 'x', 8192);
  body[8192] = '\0';
  ts_open(&t, dir);
  ts_session_make(&t, "sesn_1", 1);
  for (int i = 0; i < 1000 && refused < 3; i++) {
    struct mr_log_row r = ts_log("user.message", "sevt_1", 1, body);
    c = ts_commit(&t);
    mr_commit_log(c, MR_S("sesn_1"), &r, 1);
    if (ts_submit(&t, c, &o) == MR_OK) {
      CHECK_INT(refused, 0);
      ok++;
    } else {
      CHECK_INT(o.code, MR_E_UNAVAILABLE);
      CHECK(strstr(o.message, "full") || strstr(o.message, "I/O"));
      refused++;
    }
  }
  CHECK_INT(refused, 3);
  CHECK(ok > 10);
  CHECK(mr_store_failing(t.s, &err));
  ts_read(&t, &g, mr_read_log, t.ws, &(struct mr_log_query){.session_id = MR_S("sesn_1"), .limit = 5000});
  CHECK_INT(g.code, MR_OK);
  CHECK_INT(g.n, ok);
  filler(dir, mounted, false);
  for (int i = 0; mr_store_failing(t.s, NULL); i++) {
    CHECK(i < 1000);
    usleep(10000);
  }
  for (int i = 0; i < 20; i++) {
    struct mr_log_row r = ts_log("user.message", "sevt_1", 1, body);
    c = ts_commit(&t);
    mr_commit_log(c, MR_S("sesn_1"), &r, 1);
    CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  }
  ts_close(&t);
  ts_open(&t, dir);
  ts_read(&t, &g, mr_read_log, t.ws, &(struct mr_log_query){.session_id = MR_S("sesn_1"), .limit = 5000});
  n = g.n;
  got_free(&g);
  ts_close(&t);
  if (mounted)
    umount2(dir, MNT_DETACH);
  free(body);
  CHECK_INT(n, ok + 20);
}

/* The write-ahead log starts over while writing never pauses and reads go on. */
TEST(log_file_stays_bounded)
{
  enum { ROWS = 40, SIZE = 32768, COMMITS = 150 };
  struct ts t;
  struct got g = {0};
  struct outcome o[2] = {{0}};
  char path[4200], *body = malloc(SIZE + 1);
  struct stat st;
  off_t most = 0;
  struct mr_log_row r[ROWS];

  memset(body, 'x', SIZE);
  body[SIZE] = '\0';
  for (int i = 0; i < ROWS; i++)
    r[i] = ts_log("user.message", "sevt_1", 1, body);
  ts_open(&t, test_dir());
  snprintf(path, sizeof path, "%s/store.db-wal", test_dir());
  ts_session_make(&t, "sesn_1", 1);
  for (int i = 0; i < COMMITS; i++) { /* 196 MB, two always under way */
    struct mr_commit *c = ts_commit(&t);
    mr_commit_log(c, MR_S("sesn_1"), r, ROWS);
    mr_commit_submit(&c, ts_done, &o[i & 1]);
    if (i > 0)
      ts_until(t.loop, &o[(i - 1) & 1].calls, (i - 1) / 2 + 1);
    if (i % 10 == 0)
      ts_read(&t, &g, mr_read_log, t.ws, &(struct mr_log_query){.session_id = MR_S("sesn_1"), .limit = 3});
    if (stat(path, &st) == 0 && st.st_size > most)
      most = st.st_size;
  }
  ts_until(t.loop, &o[1].calls, COMMITS / 2);
  CHECK_INT(o[0].code, MR_OK);
  CHECK(most > (8 << 20));
  CHECK(most < (90 << 20));
  got_free(&g);
  free(body);
  ts_close(&t);
}
