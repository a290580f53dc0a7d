/*
 * append - durable appends through mr_commit_log against bare SQLite, in the same run on the same disk.
 *
 * Ours: 64 sessions, each with two commits of 10 rows under way, each row about 500 bytes. Bare: one C
 * loop with the same tables and indexes (a store's file made by the store itself), the same columns,
 * synchronous=FULL, prepared statements, in transactions of as many rows as ours had on average. Rounds
 * alternate, so that both meet the same disk. Prints rows/s of each and their ratio, from the medians.
 *
 * usage: append [rounds] [rows per round] [directory]. Exit 1 under the limit of 0.6; the goal is 0.8.
 */
#include <fcntl.h>
#include <ftw.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include "store/store.h"

enum { SESSIONS = 64, DEPTH = 2, ROWS = 10, BODY = 440, ROUNDS_MAX = 25 };
static const double limit = 0.6, goal = 0.8;

static double now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu(void)
{
  struct rusage r;
  getrusage(RUSAGE_SELF, &r);
  return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static void die(const char *what)
{
  fprintf(stderr, "append: %s\n", what);
  exit(2);
}

static char body[BODY + 1];
static const char type[] = "agent.message", event[] = "sevt_01ABCDEFGHJKLMNPQRSTUVWX";
static const char key[] = "key_01ABCDEFGHJKLMNPQRST", request[] = "req_01ABCDEFGHJKLMNPQRST";

/* ---- ours ---- */

struct run {
  struct mr_loop *loop;
  struct mr_store *store;
  int64_t ws;
  long want, sent, acked;
};
struct lane { struct run *run; char id[32]; };

static void lane_send(struct lane *l);

static void lane_done(void *ud, const struct mr_commit_result *r)
{
  struct lane *l = ud;

  if (r->code != MR_OK)
    die(r->err->message);
  l->run->acked += ROWS;
  lane_send(l);
}

static void lane_send(struct lane *l)
{
  struct run *run = l->run;
  struct mr_log_row rows[ROWS];
  struct mr_commit *c;

  if (run->sent >= run->want)
    return;
  c = mr_commit_new(run->store, &(struct mr_origin){run->ws, MR_S(key), MR_S(request), MR_S("")});
  if (!c)
    die("no memory");
  for (int i = 0; i < ROWS; i++)
    rows[i] = (struct mr_log_row){.type = MR_S(type), .event_id = MR_S(event), .processed_us = run->sent + i,
                                  .body = mr_str_n(body, BODY)};
  mr_commit_log(c, mr_str_c(l->id), rows, ROWS);
  run->sent += ROWS;
  mr_commit_submit(&c, lane_done, l);
}

static void made(void *ud, const struct mr_commit_result *r)
{
  if (r->code != MR_OK)
    die(r->err->message);
  ++*(int *)ud;
}

static void make_sessions(struct run *run, struct lane *lanes)
{
  struct mr_commit *c = mr_commit_new(run->store, &(struct mr_origin){.workspace = run->ws});
  int done = 0;

  for (int i = 0; i < SESSIONS; i++) {
    struct mr_session_row s = {.created_us = 1, .status = MR_S("running"), .agent = MR_S("{}"), .doc = MR_S("{}"),
                               .head = MR_S("{}")};
    lanes[i].run = run;
    snprintf(lanes[i].id, sizeof lanes[i].id, "sesn_01ABCDEFGHJKLMNPQRST%02d", i);
    s.id = mr_str_c(lanes[i].id);
    mr_commit_session_new(c, &s);
  }
  mr_commit_submit(&c, made, &done);
  while (!done)
    mr_loop_pump(run->loop, 0);
}

static void open_run(struct run *run, const struct mr_sys *sys, const char *dir)
{
  struct mr_err err;

  if (mr_loop_new(&run->loop, sys, NULL, &err) != MR_OK ||
      mr_store_open(&run->store, run->loop, &(struct mr_store_opts){.dir = dir}, &err) != MR_OK ||
      mr_store_workspace(run->store, MR_S("wrkspc_bench"), &run->ws, &err) != MR_OK)
    die(err.message);
}

/* Stops the loop once all rows are acknowledged; runs after each pass. */
static void watch(struct mr_timer *t);
struct watcher { struct mr_timer timer; struct run *run; };
static void watch(struct mr_timer *t)
{
  struct watcher *w = MR_OF(t, struct watcher, timer);

  if (w->run->acked >= w->run->want)
    mr_loop_stop(w->run->loop);
  else
    mr_timer_set(w->run->loop, t, 500);
}

static double ours(struct run *run, struct lane *lanes, long rows, double *per_txn, double *cpu_us)
{
  struct mr_store_stats a, b;
  struct watcher w = {.run = run};
  double t, c;

  mr_store_stats(run->store, &a);
  run->want = rows;
  run->sent = run->acked = 0;
  mr_timer_init(&w.timer, watch);
  mr_timer_set(run->loop, &w.timer, 500);
  c = cpu();
  t = now();
  for (int d = 0; d < DEPTH; d++)
    for (int i = 0; i < SESSIONS; i++)
      lane_send(&lanes[i]);
  mr_loop_run(run->loop);
  t = now() - t;
  *cpu_us = (cpu() - c) * 1e6 / (double)rows;
  mr_store_stats(run->store, &b);
  *per_txn = (double)(b.rows - a.rows) / (double)(b.transactions - a.transactions);
  return (double)rows / t;
}

/* ---- bare ---- */

static void ok(sqlite3 *db, int rc)
{
  if (rc != SQLITE_OK && rc != SQLITE_DONE && rc != SQLITE_ROW)
    die(sqlite3_errmsg(db));
}

static sqlite3 *bare_open(const char *dir)
{
  char path[4200];
  sqlite3 *db;

  snprintf(path, sizeof path, "%s/store.db", dir);
  ok(NULL, sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK ? 0 : 1);
  /* As long a log as ours before a checkpoint, and SQLite's own default cache. */
  ok(db, sqlite3_exec(db, "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=2048;", NULL, NULL, NULL));
  return db;
}

static double bare(sqlite3 *db, int64_t *pos, long rows, long per_txn, double *cpu_us)
{
  sqlite3_stmt *st, *begin, *commit;
  double t, c;
  long n = 0;

  ok(db, sqlite3_prepare_v2(db, "BEGIN IMMEDIATE", -1, &begin, NULL));
  ok(db, sqlite3_prepare_v2(db, "COMMIT", -1, &commit, NULL));
  ok(db, sqlite3_prepare_v2(db,
                            "INSERT INTO log(workspace_id, pos, session_no, kind, format, processed_us, type,"
                            " event_id, thread, key_id, request_id, trace, body)"
                            " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
                            -1, &st, NULL));
  c = cpu();
  t = now();
  while (n < rows) {
    ok(db, sqlite3_step(begin));
    sqlite3_reset(begin);
    for (long i = 0; i < per_txn && n < rows; i++, n++) {
      sqlite3_bind_int64(st, 1, 1);
      sqlite3_bind_int64(st, 2, ++*pos);
      sqlite3_bind_int64(st, 3, 1 + n / ROWS % SESSIONS);
      sqlite3_bind_int(st, 4, 0);
      sqlite3_bind_int(st, 5, 0);
      sqlite3_bind_int64(st, 6, n);
      sqlite3_bind_text(st, 7, type, sizeof type - 1, SQLITE_STATIC);
      sqlite3_bind_text(st, 8, event, sizeof event - 1, SQLITE_STATIC);
      sqlite3_bind_text(st, 10, key, sizeof key - 1, SQLITE_STATIC);
      sqlite3_bind_text(st, 11, request, sizeof request - 1, SQLITE_STATIC);
      sqlite3_bind_text(st, 13, body, BODY, SQLITE_STATIC);
      ok(db, sqlite3_step(st));
      sqlite3_reset(st);
    }
    ok(db, sqlite3_step(commit));
    sqlite3_reset(commit);
  }
  t = now() - t;
  *cpu_us = (cpu() - c) * 1e6 / (double)rows;
  sqlite3_finalize(st);
  sqlite3_finalize(begin);
  sqlite3_finalize(commit);
  return (double)rows / t;
}

/* ---- the run ---- */

static int by_value(const void *a, const void *b)
{
  double d = *(const double *)a - *(const double *)b;
  return d < 0 ? -1 : d > 0;
}

static double median(const double *v, int n)
{
  double s[ROUNDS_MAX];

  for (int i = 0; i < n; i++)
    s[i] = v[i];
  qsort(s, (size_t)n, sizeof *s, by_value);
  return n & 1 ? s[n / 2] : (s[n / 2 - 1] + s[n / 2]) / 2;
}

static int remove_one(const char *path, const struct stat *st, int t, struct FTW *f)
{
  return remove(path);
}

int main(int argc, char **argv)
{
  int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 5;
  long rows = argc > 2 ? strtol(argv[2], NULL, 10) : 60000;
  const char *tmp = argc > 3 ? argv[3] : getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
  double a[ROUNDS_MAX], b[ROUNDS_MAX], per_txn, ca, cb, ratio;
  char dir[512], ours_dir[600], bare_dir[600];
  struct run run = {0}, seed = {0};
  struct lane lanes[SESSIONS] = {{0}}, seed_lanes[SESSIONS] = {{0}};
  struct mr_sys sys;
  int64_t pos = 0;
  sqlite3 *db;

  if (rounds < 1 || rounds > ROUNDS_MAX || rows < ROWS)
    die("usage: append [rounds 1-25] [rows] [directory]");
  for (int i = 0; i < BODY; i++)
    body[i] = "{\"type\":\"agent.message\",\"text\":\"some words of an answer\"} "[i % 60];
  mr_sys_init(&sys, NULL);
  snprintf(dir, sizeof dir, "%s/mr-append-XXXXXX", tmp);
  if (!mkdtemp(dir))
    die("cannot make a directory");
  snprintf(ours_dir, sizeof ours_dir, "%s/ours", dir);
  snprintf(bare_dir, sizeof bare_dir, "%s/bare", dir);
  open_run(&seed, &sys, bare_dir); /* its tables and indexes, nothing else */
  make_sessions(&seed, seed_lanes);
  mr_store_close(&seed.store);
  mr_loop_free(&seed.loop);
  db = bare_open(bare_dir);
  open_run(&run, &sys, ours_dir);
  make_sessions(&run, lanes);
  for (int i = 0; i < rounds; i++) {
    a[i] = ours(&run, lanes, rows, &per_txn, &ca);
    b[i] = bare(db, &pos, rows, (long)(per_txn + 0.5), &cb);
    printf("round %d: ours %8.0f rows/s (%.1f us CPU/row), bare %8.0f rows/s (%.1f), %4.0f rows a transaction, ratio %.2f\n",
           i + 1, a[i], ca, b[i], cb, per_txn, a[i] / b[i]);
  }
  sqlite3_close(db);
  mr_store_close(&run.store);
  mr_loop_free(&run.loop);
  nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
  ratio = median(a, rounds) / median(b, rounds);
  printf("append: ours %.0f rows/s, bare SQLite %.0f rows/s, ratio %.2f (limit %.2f, goal %.2f): %s\n",
         median(a, rounds), median(b, rounds), ratio, limit, goal,
         ratio >= goal ? "goal met" : ratio >= limit ? "ok" : "FAILED");
  return ratio >= limit ? 0 : 1;
}
