/* The writer: order, groups, failures that stay alone, bounds, closing, memory stores, lost memory. */
#include "store_kit.h"

struct seq { int calls, bad; int next; int64_t last_pos; };
struct one { struct seq *seq; int n, want; };

static void in_order(void *ud, const struct mr_commit_result *r)
{
  struct one *o = ud;
  if (o->n != o->seq->next++ || r->code != o->want)
    o->seq->bad++;
  if (r->code == MR_OK && r->first_pos && r->first_pos <= o->seq->last_pos)
    o->seq->bad++;
  if (r->code == MR_OK && r->first_pos)
    o->seq->last_pos = r->first_pos;
  o->seq->calls++;
}

/* A commit that keeps the writer busy, so that what follows waits together. */
static void busy(struct ts *t, struct one *o)
{
  static struct mr_log_row rows[20000];
  struct mr_commit *c = ts_commit(t);
  for (int i = 0; i < 20000; i++)
    rows[i] = ts_log("agent.message", "sevt_x", 1, "{\"long\":\"enough to take the writer a while\"}");
  mr_commit_log(c, MR_S("sesn_1"), rows, 20000);
  mr_commit_submit(&c, in_order, o);
}

/* 200 commits behind a busy writer: answered in order, in few transactions; every tenth fails alone, after
 * it wrote rows, which are gone; positions of the others have no gaps. */
TEST(groups_in_order_and_failures_alone)
{
  for (int m = 0; m < 2; m++) {
    enum { N = 200 };
    struct ts t;
    struct got g = {0};
    struct seq seq = {0};
    static struct one one[N + 1];
    struct mr_store_stats st0, st;
    struct mr_commit *c;
    char id[32], dir[64];

    snprintf(dir, sizeof dir, "%s", m ? ":memory:" : test_dir());
    ts_open(&t, dir);
    ts_session_make(&t, "sesn_1", 1);
    ts_session_make(&t, "sesn_2", 1);
    mr_store_stats(t.s, &st0);
    one[0] = (struct one){&seq, 0, MR_OK};
    busy(&t, &one[0]);
    for (int i = 1; i <= N; i++) {
      struct mr_log_row r = ts_log("user.message", id, i, "{}");
      struct mr_doc_row d = ts_doc("agent", id, i, "{}");
      snprintf(id, sizeof id, "sevt_%d", i);
      r.event_id = d.id = mr_str_c(id);
      one[i] = (struct one){&seq, i, i % 10 == 0 ? MR_E_CONFLICT : MR_OK};
      c = ts_commit(&t);
      mr_commit_log(c, MR_S("sesn_2"), &r, 1);
      mr_commit_doc_put(c, &d, i % 10 == 0 ? 5 : 0);
      mr_commit_submit(&c, in_order, &one[i]);
    }
    CHECK_INT(seq.calls, 0);
    ts_until(t.loop, &seq.calls, N + 1);
    CHECK_INT(seq.bad, 0);
    mr_store_stats(t.s, &st);
    CHECK_INT(st.commits - st0.commits, N + 1 - N / 10);
    CHECK_INT(st.failed, N / 10);
    CHECK(st.transactions - st0.transactions <= 5);
    CHECK_INT(st.queued, 0);
    ts_read(&t, &g, mr_read_log, t.ws, &(struct mr_log_query){.session_id = MR_S("sesn_2"), .limit = 1000});
    CHECK_INT(g.n, N - N / 10);
    CHECK_INT(g.log[g.n - 1].pos - g.log[0].pos, g.n - 1);
    CHECK_INT(st.pos, g.log[g.n - 1].pos);
    ts_read(&t, &g, mr_read_docs, t.ws, &(struct mr_doc_query){.kind = MR_S("agent"), .limit = 1000});
    CHECK_INT(g.n, N - N / 10);
    got_free(&g);
    ts_close(&t);
  }
}

/* A commit built on one that failed fails too: the session's rev did not move. */
TEST(what_follows_a_failed_commit_fails)
{
  struct ts t;
  struct seq seq = {0};
  struct one one[3] = {{&seq, 0, MR_OK}, {&seq, 1, MR_E_CONFLICT}, {&seq, 2, MR_E_CONFLICT}};
  struct mr_commit *c;
  struct mr_session_row s = ts_session("sesn_2", 1);

  ts_open(&t, test_dir());
  ts_session_make(&t, "sesn_1", 1);
  ts_session_make(&t, "sesn_2", 1);
  busy(&t, &one[0]);
  c = ts_commit(&t);
  mr_commit_session_put(c, &s, 0);
  mr_commit_inbox_del(c, s.id, MR_S("sevt_none"));
  mr_commit_submit(&c, in_order, &one[1]);
  s.rev = 2;
  c = ts_commit(&t);
  mr_commit_session_put(c, &s, 0);
  mr_commit_submit(&c, in_order, &one[2]);
  ts_until(t.loop, &seq.calls, 3);
  CHECK_INT(seq.bad, 0);
  ts_close(&t);
}

static void count_full(void *ud, const struct mr_commit_result *r)
{
  int *n = ud;
  n[0]++;
  n[1] += r->code == MR_E_FULL;
  n[2] += r->code == MR_OK;
}

TEST(queue_is_bounded)
{
  struct ts t;
  struct seq seq = {0};
  struct one one = {&seq, 0, MR_OK};
  struct mr_store_internal in = {.queue_bytes = 256 << 10};
  struct mr_commit *c;
  int n[3] = {0};
  char *body = malloc(16385);

  memset(body, 'x', 16384);
  body[16384] = '\0';
  CHECK_INT(ts_open_code(&t, test_dir(), &in, 0, NULL), MR_OK);
  CHECK_INT(mr_store_workspace(t.s, MR_S("wrkspc_default"), &t.ws, NULL), MR_OK);
  ts_session_make(&t, "sesn_1", 1);
  busy(&t, &one);
  for (int i = 0; i < 100; i++) {
    struct mr_log_row r = ts_log("user.message", "sevt_1", 1, body);
    c = ts_commit(&t);
    mr_commit_log(c, MR_S("sesn_1"), &r, 1);
    mr_commit_submit(&c, count_full, n);
    CHECK_INT(n[0], 0);
  }
  ts_until(t.loop, &n[0], 100);
  CHECK(n[1] > 0);
  CHECK_INT(n[1] + n[2], 100);
  n[2] = 0; /* once there is room, commits are taken again */
  for (struct mr_store_stats st = {.queued = 1}; st.queued > 0; mr_store_stats(t.s, &st))
    mr_loop_pump(t.loop, 1000);
  struct mr_log_row r = ts_log("user.message", "sevt_2", 1, "{}");
  c = ts_commit(&t);
  mr_commit_log(c, MR_S("sesn_1"), &r, 1);
  mr_commit_submit(&c, count_full, n);
  ts_until(t.loop, &n[0], 101);
  CHECK_INT(n[2], 1);
  free(body);
  ts_close(&t);
}

TEST(close_settles_everything)
{
  for (int m = 0; m < 2; m++) {
    struct ts t;
    struct got g = {0};
    struct seq seq = {0};
    static struct one one[101];
    struct mr_commit *c;

    ts_open(&t, m ? ":memory:" : test_dir());
    ts_session_make(&t, "sesn_1", 1);
    one[0] = (struct one){&seq, 0, MR_OK};
    busy(&t, &one[0]);
    for (int i = 1; i <= 100; i++) {
      struct mr_log_row r = ts_log("user.message", "sevt_1", 1, "{}");
      one[i] = (struct one){&seq, i, MR_OK};
      c = ts_commit(&t);
      mr_commit_log(c, MR_S("sesn_1"), &r, 1);
      mr_commit_submit(&c, in_order, &one[i]);
    }
    mr_read_session(t.s, t.ws, MR_S("sesn_1"), ts_rows, &g);
    mr_store_close(&t.s);
    CHECK(t.s == NULL);
    CHECK_INT(seq.calls, 101);
    CHECK_INT(seq.bad, 0);
    CHECK_INT(g.calls, 1);
    CHECK_INT(g.n, 1);
    got_free(&g);
    mr_loop_free(&t.loop);
  }
}

struct late { struct ts *t; int closed, ok; };

static void late_done(void *ud, const struct mr_commit_result *r)
{
  struct late *l = ud;
  struct mr_commit *c;

  l->ok += r->code == MR_OK;
  l->closed += r->code == MR_E_CLOSED;
  if (r->code != MR_OK)
    return;
  c = ts_commit(l->t); /* asked for while the store closes */
  mr_commit_submit(&c, late_done, l);
}

TEST(submit_while_closing)
{
  struct ts t;
  struct late l = {&t, 0, 0};
  struct mr_commit *c;

  ts_open(&t, test_dir());
  c = ts_commit(&t);
  mr_commit_submit(&c, late_done, &l);
  ts_close(&t);
  CHECK_INT(l.ok, 1);
  CHECK_INT(l.closed, 1);
}

TEST(memory_stores_are_separate)
{
  struct ts a, b;
  struct got g = {0};

  ts_open(&a, ":memory:");
  ts_open(&b, ":memory:");
  ts_session_make(&a, "sesn_1", 1);
  ts_read(&a, &g, mr_read_session, a.ws, MR_S("sesn_1"));
  CHECK_INT(g.n, 1);
  ts_read(&b, &g, mr_read_session, b.ws, MR_S("sesn_1"));
  CHECK_INT(g.code, MR_E_NOTFOUND);
  got_free(&g);
  CHECK(strcmp(mr_store_dir(a.s), ":memory:") == 0);
  ts_close(&a);
  ts_close(&b);
}

TEST(dropped_commit_leaves_nothing)
{
  struct ts t;
  long before;
  struct mr_commit *c;
  struct mr_doc_row d = ts_doc("agent", "agent_1", 1, "{}");

  ts_open(&t, ":memory:");
  before = test_allocs();
  c = ts_commit(&t);
  mr_commit_doc_put(c, &d, 0);
  mr_commit_drop(&c);
  CHECK(c == NULL);
  mr_commit_drop(&c);
  CHECK_INT(test_allocs(), before);
  ts_close(&t);
}

static void any_rows(void *ud, const struct mr_rows *r)
{
  int *n = ud;
  n[0]++;
  CHECK(r->code == MR_OK || r->code == MR_E_NOMEM || r->code == MR_E_NOTFOUND || r->code == MR_E_UNAVAILABLE);
}

static void any_commit(void *ud, const struct mr_commit_result *r)
{
  int *n = ud;
  n[0]++;
  CHECK(r->code == MR_OK || r->code == MR_E_NOMEM || r->code == MR_E_CONFLICT);
}

/* Every allocation of a round fails once, with all after it: nothing crashes, every callback comes. */
TEST(no_memory)
{
  struct ts t;
  struct mr_session_row s = ts_session("sesn_2", 1);
  struct mr_log_row row = ts_log("user.message", "sevt_1", 1, "{}");
  struct mr_str ids[2] = {MR_S("a"), MR_S("b")};
  struct mr_err err;
  char dir[256];

  snprintf(dir, sizeof dir, "%s", test_dir());
  for (int n = 0; n < 60; n++) {
    struct mr_loop *l;
    struct mr_store *st = NULL;
    CHECK_INT(mr_loop_new(&l, test_sys(), NULL, NULL), MR_OK);
    mr_loop_enter(l);
    ts_fail_after(n);
    if (mr_store_open(&st, l, &(struct mr_store_opts){.dir = dir}, &err) == MR_OK)
      n = 60;
    ts_fail_after(-1);
    mr_store_close(&st);
    mr_loop_free(&l);
  }
  ts_open(&t, dir);
  ts_session_make(&t, "sesn_1", 1);
  for (int n = 0; n < 60; n++) {
    struct mr_commit *c;
    int calls[1] = {0}, want = 4;

    ts_fail_after(n);
    c = mr_commit_new(t.s, &(struct mr_origin){t.ws, MR_S("k"), MR_S("r"), MR_S("t")});
    mr_commit_session_new(c, &s); /* all accept NULL */
    mr_commit_log(c, MR_S("sesn_1"), &row, 1);
    if (c)
      want++;
    mr_commit_submit(&c, any_commit, calls);
    mr_read_session(t.s, t.ws, MR_S("sesn_1"), any_rows, calls);
    mr_read_docs(t.s, t.ws, &(struct mr_doc_query){.kind = MR_S("x"), .ids = ids, .nids = 2, .limit = 5}, any_rows, calls);
    mr_read_log(t.s, t.ws, &(struct mr_log_query){.session_id = MR_S("sesn_1"), .limit = 5}, any_rows, calls);
    mr_read_inbox(t.s, t.ws, MR_S("sesn_1"), any_rows, calls);
    CHECK_INT(calls[0], 0);
    ts_until(t.loop, calls, want);
    ts_fail_after(-1);
    CHECK_INT(calls[0], want);
  }
  ts_close(&t);
}
