/* Blobs: round trips, back pressure, abort, copies, names, what the sweep takes and leaves. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include "store_kit.h"
#include "store/blobs_t.h"

struct fin { int calls, code; int64_t size; char sha[65]; };
struct rd { int calls, code; size_t n; char *bytes; };

static void on_fin(void *ud, int code, int64_t size, const char *sha, const struct mr_err *err)
{
  struct fin *f = ud;
  f->calls++;
  f->code = code;
  f->size = size;
  snprintf(f->sha, sizeof f->sha, "%s", sha ? sha : "");
  CHECK((code == MR_OK) == (err == NULL));
}
static void on_read(void *ud, int code, struct mr_str b)
{
  struct rd *r = ud;
  r->calls++;
  r->code = code;
  r->n = b.n;
  free(r->bytes);
  r->bytes = malloc(b.n + 1);
  memcpy(r->bytes, b.p, b.n);
}
static void on_copy(void *ud, int code, const struct mr_err *err)
{
  struct fin *f = ud;
  f->calls++;
  f->code = code;
  CHECK((code == MR_OK) == (err == NULL));
}
static void on_drained(void *ud) { ++*(int *)ud; }

static int make(struct ts *t, const char *id, struct mr_str bytes, struct fin *out)
{
  struct fin f = {0};
  struct mr_blob_writer *w;

  CHECK_INT(mr_blob_begin(t->s, mr_str_c(id), &w, NULL), MR_OK);
  CHECK(mr_blob_write(w, bytes, NULL, NULL) >= 0);
  mr_blob_finish(&w, on_fin, &f);
  CHECK(w == NULL);
  CHECK_INT(f.calls, 0);
  ts_until(t->loop, &f.calls, 1);
  if (out)
    *out = f;
  return f.code;
}

static int get(struct ts *t, const char *id, int64_t off, size_t len, struct rd *r)
{
  int before = r->calls;
  mr_blob_read(t->s, mr_str_c(id), off, len, on_read, r);
  CHECK_INT(r->calls, before);
  ts_until(t->loop, &r->calls, before + 1);
  return r->code;
}

TEST(round_trip)
{
  for (int m = 0; m < 2; m++) {
    struct ts t;
    struct fin f;
    struct rd r = {0};
    char path[4096], sha[65];

    ts_open(&t, m ? ":memory:" : test_dir());
    CHECK_INT(make(&t, "file_01AbCd", MR_S("hello blob"), &f), MR_OK);
    CHECK_INT(f.size, 10);
    mr_sha256_hex(MR_S("hello blob"), sha);
    CHECK(strcmp(sha, f.sha) == 0);
    CHECK_INT(get(&t, "file_01AbCd", 0, 100, &r), MR_OK);
    CHECK(r.n == 10 && memcmp(r.bytes, "hello blob", 10) == 0);
    CHECK_INT(get(&t, "file_01AbCd", 6, 2, &r), MR_OK);
    CHECK(r.n == 2 && memcmp(r.bytes, "bl", 2) == 0);
    CHECK_INT(get(&t, "file_01AbCd", 10, 5, &r), MR_OK);
    CHECK_INT(r.n, 0);
    CHECK_INT(get(&t, "file_01none", 0, 5, &r), MR_E_NOTFOUND);
    CHECK_INT(get(&t, "../../etc/passwd", 0, 5, &r), MR_E_INVALID);
    CHECK_INT(get(&t, "file_01AbCd", -1, 5, &r), MR_E_INVALID);
    CHECK_INT(make(&t, "file_01empty", MR_S(""), &f), MR_OK);
    CHECK_INT(f.size, 0);
    CHECK_INT(get(&t, "file_01empty", 0, 5, &r), MR_OK);
    CHECK_INT(r.n, 0);
    if (m) {
      CHECK_INT(mr_blob_path(t.s, MR_S("file_01AbCd"), path), MR_E_UNSUPPORTED);
    } else {
      struct stat st;
      CHECK_INT(mr_blob_path(t.s, MR_S("file_01AbCd"), path), MR_OK);
      CHECK(strstr(path, "/blobs/Ab/file_01AbCd") != NULL);
      CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600 && st.st_size == 10);
      CHECK_INT(mr_blob_path(t.s, MR_S("a/b"), path), MR_E_INVALID);
      CHECK_INT(mr_blob_path(t.s, MR_S("a.b"), path), MR_E_INVALID);
      CHECK_INT(mr_blob_path(t.s, MR_S(""), path), MR_E_INVALID);
    }
    mr_blob_delete(t.s, MR_S("file_01AbCd"));
    while (get(&t, "file_01AbCd", 0, 5, &r) != MR_E_NOTFOUND)
      continue;
    free(r.bytes);
    ts_close(&t);
  }
}

/* 40 MB in pieces of 300 KB with MR_MORE obeyed: never much waiting, the bytes and the hash are right. */
TEST(back_pressure)
{
  enum { PIECE = 300000, PIECES = 140 };
  struct ts t;
  struct fin f = {0};
  struct rd r = {0};
  struct mr_blob_writer *w;
  char *all = malloc((size_t)PIECE * PIECES), sha[65];
  int drained = 0, pauses = 0, code;

  for (size_t i = 0; i < (size_t)PIECE * PIECES; i++)
    all[i] = (char)(i * 2654435761u >> 13);
  ts_open(&t, test_dir());
  CHECK_INT(mr_blob_begin(t.s, MR_S("file_01big"), &w, NULL), MR_OK);
  for (int i = 0; i < PIECES; i++) {
    code = mr_blob_write(w, mr_str_n(all + (size_t)i * PIECE, PIECE), on_drained, &drained);
    CHECK(code == MR_OK || code == MR_MORE);
    if (code == MR_MORE)
      ts_until(t.loop, &drained, ++pauses);
  }
  CHECK(pauses > 0);
  mr_blob_finish(&w, on_fin, &f);
  ts_until(t.loop, &f.calls, 1);
  CHECK_INT(f.code, MR_OK);
  CHECK_INT(f.size, (int64_t)PIECE * PIECES);
  mr_sha256_hex(mr_str_n(all, (size_t)PIECE * PIECES), sha);
  CHECK(strcmp(sha, f.sha) == 0);
  CHECK_INT(get(&t, "file_01big", 0, (size_t)PIECE * PIECES, &r), MR_OK);
  CHECK(r.n == (size_t)PIECE * PIECES && memcmp(r.bytes, all, r.n) == 0);
  CHECK_INT(drained, pauses);
  /* A caller that never pauses is stopped. */
  CHECK_INT(mr_blob_begin(t.s, MR_S("file_01wild"), &w, NULL), MR_OK);
  for (int i = 0; i < PIECES && (code = mr_blob_write(w, mr_str_n(all, PIECE), NULL, NULL)) >= 0; i++)
    continue;
  CHECK_INT(code, MR_E_FULL);
  mr_blob_abort(&w);
  free(r.bytes);
  free(all);
  ts_close(&t);
}

static int files_under(const char *dir)
{
  char path[4200];
  struct dirent *e, *f;
  DIR *d, *s;
  int n = 0;

  snprintf(path, sizeof path, "%s/blobs", dir);
  CHECK((d = opendir(path)) != NULL);
  while ((e = readdir(d)) != NULL) {
    if (e->d_name[0] == '.')
      continue;
    snprintf(path, sizeof path, "%s/blobs/%s", dir, e->d_name);
    CHECK((s = opendir(path)) != NULL);
    while ((f = readdir(s)) != NULL)
      n += f->d_name[0] != '.';
    closedir(s);
  }
  closedir(d);
  return n;
}

TEST(abort_leaves_nothing)
{
  for (int m = 0; m < 2; m++) {
    struct ts t;
    struct mr_blob_writer *w;
    struct rd r = {0};
    char big[100000] = {0};

    ts_open(&t, m ? ":memory:" : test_dir());
    for (int i = 0; i < 3; i++) {
      CHECK_INT(mr_blob_begin(t.s, MR_S("file_01gone"), &w, NULL), MR_OK);
      if (i > 0)
        CHECK_INT(mr_blob_write(w, mr_str_n(big, sizeof big), NULL, NULL), MR_OK);
      if (i > 1)
        for (int k = 0; k < 200; k++) { /* let it reach the disk */
          mr_loop_pump(t.loop, 0);
          usleep(100);
        }
      mr_blob_abort(&w);
      CHECK(w == NULL);
      mr_blob_abort(&w);
      for (int k = 0; !m && files_under(mr_store_dir(t.s)) > 0; k++) {
        CHECK(k < 100000);
        mr_loop_pump(t.loop, 0);
      }
    }
    CHECK_INT(get(&t, "file_01gone", 0, 5, &r), MR_E_NOTFOUND);
    /* One that nobody ends is cleaned up at close, and ending it after that is harmless. */
    CHECK_INT(mr_blob_begin(t.s, MR_S("file_01late"), &w, NULL), MR_OK);
    CHECK_INT(mr_blob_write(w, mr_str_n(big, sizeof big), NULL, NULL), MR_OK);
    ts_close(&t);
    if (!m)
      CHECK_INT(files_under(test_dir()), 0);
    CHECK_INT(mr_blob_write(w, MR_S("x"), NULL, NULL), MR_E_CLOSED);
    mr_blob_abort(&w);
    free(r.bytes);
  }
}

TEST(copies)
{
  for (int m = 0; m < 2; m++) {
    struct ts t;
    struct fin f = {0};
    struct rd r = {0};

    ts_open(&t, m ? ":memory:" : test_dir());
    CHECK_INT(make(&t, "file_01a1", MR_S("same"), NULL), MR_OK);
    mr_blob_copy(t.s, MR_S("file_01a1"), MR_S("file_01b2"), on_copy, &f);
    ts_until(t.loop, &f.calls, 1);
    CHECK_INT(f.code, MR_OK);
    mr_blob_delete(t.s, MR_S("file_01a1"));
    CHECK_INT(get(&t, "file_01b2", 0, 9, &r), MR_OK);
    CHECK(r.n == 4 && memcmp(r.bytes, "same", 4) == 0);
    mr_blob_copy(t.s, MR_S("file_01none"), MR_S("file_01c3"), on_copy, &f);
    ts_until(t.loop, &f.calls, 2);
    CHECK_INT(f.code, MR_E_NOTFOUND);
    CHECK_INT(make(&t, "file_01d4", MR_S("x"), NULL), MR_OK);
    mr_blob_copy(t.s, MR_S("file_01b2"), MR_S("file_01d4"), on_copy, &f);
    ts_until(t.loop, &f.calls, 3);
    CHECK_INT(f.code, MR_E_CONFLICT);
    mr_blob_copy(t.s, MR_S("file_01b2"), MR_S("../x"), on_copy, &f);
    ts_until(t.loop, &f.calls, 4);
    CHECK_INT(f.code, MR_E_INVALID);
    free(r.bytes);
    ts_close(&t);
  }
}

TEST(two_writers_of_one_id)
{
  struct ts t;
  struct mr_blob_writer *a, *b;
  struct fin fa = {0}, fb = {0};

  ts_open(&t, test_dir());
  CHECK_INT(mr_blob_begin(t.s, MR_S("file_01x"), &a, NULL), MR_OK);
  CHECK_INT(mr_blob_begin(t.s, MR_S("file_01x"), &b, NULL), MR_OK);
  mr_blob_write(a, MR_S("aaa"), NULL, NULL);
  for (int k = 0; files_under(test_dir()) == 0; k++) {
    CHECK(k < 100000);
    mr_loop_pump(t.loop, 0);
  }
  mr_blob_write(b, MR_S("bbb"), NULL, NULL);
  mr_blob_finish(&b, on_fin, &fb);
  ts_until(t.loop, &fb.calls, 1);
  CHECK_INT(fb.code, MR_E_CONFLICT);
  mr_blob_finish(&a, on_fin, &fa);
  ts_until(t.loop, &fa.calls, 1);
  CHECK_INT(fa.code, MR_OK);
  CHECK_INT(fa.size, 3);
  ts_close(&t);
}

static void touch(const char *dir, const char *shard, const char *name)
{
  char path[4300];
  int fd;

  snprintf(path, sizeof path, "%s/blobs/%s", dir, shard);
  mkdir(path, 0700);
  snprintf(path, sizeof path, "%s/blobs/%s/%s", dir, shard, name);
  fd = open(path, O_WRONLY | O_CREAT, 0600);
  CHECK(fd >= 0);
  close(fd);
}

static bool there(const char *dir, const char *shard, const char *name)
{
  char path[4300];
  snprintf(path, sizeof path, "%s/blobs/%s/%s", dir, shard, name);
  return access(path, F_OK) == 0;
}

static void swept(struct ts *t, const char *dir, int age_s)
{
  CHECK_INT(ts_open_code(t, dir, &(struct mr_store_internal){.sweep_age_s = age_s}, 0, NULL), MR_OK);
  for (int i = 0; !t->s->blobs->swept; i++) {
    CHECK(i < 100000);
    mr_loop_pump(t->loop, 0);
    usleep(100);
  }
}

TEST(sweep)
{
  struct ts t;
  struct mr_commit *c;
  struct mr_doc_row d = ts_doc("file", "file_01keep", 1, "{}");
  int64_t other;
  char dir[256];

  snprintf(dir, sizeof dir, "%s/data", test_dir());
  ts_open(&t, dir);
  CHECK_INT(mr_store_workspace(t.s, MR_S("wrkspc_other"), &other, NULL), MR_OK);
  CHECK_INT(make(&t, "file_01keep", MR_S("k"), NULL), MR_OK);
  CHECK_INT(make(&t, "file_01kother", MR_S("k"), NULL), MR_OK);
  CHECK_INT(make(&t, "file_01lost", MR_S("l"), NULL), MR_OK);
  CHECK_INT(make(&t, "skver_01xy", MR_S("s"), NULL), MR_OK); /* a kind that is not registered */
  c = ts_commit(&t);
  mr_commit_doc_put(c, &d, 0);
  CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
  d.id = MR_S("file_01kother");
  c = ts_commit_in(&t, other);
  mr_commit_doc_put(c, &d, 0);
  CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
  ts_close(&t);
  touch(dir, "zz", "file_01half.tmp");
  touch(dir, "zz", "notes.txt");
  swept(&t, dir, 0); /* an hour: all are young */
  ts_close(&t);
  CHECK(there(dir, "lo", "file_01lost") && there(dir, "zz", "file_01half.tmp"));
  swept(&t, dir, -1);
  ts_close(&t);
  CHECK(!there(dir, "lo", "file_01lost"));
  CHECK(!there(dir, "zz", "file_01half.tmp"));
  CHECK(there(dir, "ke", "file_01keep"));
  CHECK(there(dir, "ko", "file_01kother"));
  CHECK(there(dir, "zz", "notes.txt"));
  CHECK(there(dir, "xy", "skver_01xy"));
}

TEST(no_memory)
{
  struct ts t;

  ts_fail_after(-1);
  ts_open(&t, test_dir());
  for (int n = 0; n < 40; n++) {
    struct mr_blob_writer *w;
    struct fin f = {0}, cp = {0};
    struct rd r = {0};
    char id[32];

    snprintf(id, sizeof id, "file_01n%d", n);
    ts_fail_after(n);
    if (mr_blob_begin(t.s, mr_str_c(id), &w, NULL) == MR_OK) {
      mr_blob_write(w, MR_S("abc"), NULL, NULL);
      mr_blob_finish(&w, on_fin, &f);
      ts_until(t.loop, &f.calls, 1);
    }
    mr_blob_read(t.s, mr_str_c(id), 0, 10, on_read, &r);
    mr_blob_copy(t.s, mr_str_c(id), MR_S("file_01n0"), on_copy, &cp);
    mr_blob_delete(t.s, mr_str_c(id));
    ts_until(t.loop, &r.calls, 1);
    ts_until(t.loop, &cp.calls, 1);
    ts_fail_after(-1);
    free(r.bytes);
  }
  ts_close(&t);
}
