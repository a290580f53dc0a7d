/* Durable values: writes with expectations, time to live, lists, the sweep; and the log of all sessions. On
 * files and in memory. */
#include "store_kit.h"
#include "store/sqlite/sqlite_t.h"

static const char *const both[] = {NULL, ":memory:"}; /* NULL: a fresh directory */

static int put(struct ts *t, const char *key, const char *value, int64_t expires_us, int64_t expect,
               struct outcome *o)
{
  struct mr_commit *c = ts_commit(t);
  struct mr_kv_row r = {.space = MR_S("kv"), .key = mr_str_c(key), .value = mr_str_c(value), .expires_us = expires_us};
  mr_commit_kv_put(c, &r, expect);
  return ts_submit(t, c, o);
}

static int del(struct ts *t, const char *key, int64_t expect, struct outcome *o)
{
  struct mr_commit *c = ts_commit(t);
  mr_commit_kv_delete(c, MR_S("kv"), mr_str_c(key), expect);
  return ts_submit(t, c, o);
}

static const char *get(struct ts *t, struct got *g, const char *key)
{
  ts_read(t, g, mr_read_kv, t->ws, MR_S("kv"), mr_str_c(key));
  CHECK(g->code == MR_OK || g->code == MR_E_NOTFOUND);
  return g->code == MR_OK ? g->kv[0].value.p : NULL;
}

TEST(kv_put_get_delete)
{
  for (int i = 0; i < 2; i++) {
    struct ts t;
    struct got g = {0};
    struct outcome o, again;

    ts_open(&t, both[i] ? both[i] : test_dir());
    CHECK(get(&t, &g, "a") == NULL);
    CHECK_INT(put(&t, "a", "{\"x\":\"\xC3\xA9\"}", 0, -1, &o), MR_OK);
    CHECK(o.rev > 0);
    CHECK_STR(mr_str_c(get(&t, &g, "a")), "{\"x\":\"\xC3\xA9\"}");
    CHECK_INT(g.kv[0].rev, o.rev);
    CHECK_INT(g.kv[0].expires_us, 0);
    /* Another space and another workspace are other keys. */
    ts_read(&t, &g, mr_read_kv, t.ws, MR_S("once"), MR_S("a"));
    CHECK_INT(g.code, MR_E_NOTFOUND);
    ts_read(&t, &g, mr_read_kv, t.ws + 1, MR_S("kv"), MR_S("a"));
    CHECK_INT(g.code, MR_E_NOTFOUND);
    CHECK_INT(del(&t, "a", -1, NULL), MR_OK);
    CHECK(get(&t, &g, "a") == NULL);
    CHECK_INT(del(&t, "a", -1, NULL), MR_OK); /* gone already is fine */
    CHECK_INT(put(&t, "a", "2", 0, 0, &again), MR_OK);
    CHECK(again.rev > o.rev); /* whoever remembers the old one does not take this for it */
    got_free(&g);
    ts_close(&t);
  }
}

TEST(kv_expectations)
{
  struct ts t;
  struct got g = {0};
  struct outcome o, p;
  struct mr_commit *c;

  ts_open(&t, test_dir());
  CHECK_INT(put(&t, "a", "1", 0, 7, &o), MR_E_CONFLICT);
  CHECK(strcmp(o.code_text, "not_found") == 0 && strcmp(o.field, "key") == 0);
  CHECK_INT(put(&t, "a", "1", 0, 0, &p), MR_OK);
  CHECK_INT(put(&t, "a", "2", 0, 0, &o), MR_E_CONFLICT);
  CHECK(strcmp(o.code_text, "exists") == 0);
  CHECK_INT(put(&t, "a", "2", 0, p.rev + 1, &o), MR_E_CONFLICT);
  CHECK(strcmp(o.code_text, "rev") == 0);
  CHECK_INT(del(&t, "a", p.rev + 1, &o), MR_E_CONFLICT);
  CHECK_STR(mr_str_c(get(&t, &g, "a")), "1");
  CHECK_INT(put(&t, "a", "2", 0, p.rev, &o), MR_OK);
  /* Two in one commit: the first one's conflict undoes both. */
  c = ts_commit(&t);
  mr_commit_kv_put(c, &(struct mr_kv_row){.space = MR_S("kv"), .key = MR_S("b"), .value = MR_S("1")}, 0);
  mr_commit_kv_put(c, &(struct mr_kv_row){.space = MR_S("kv"), .key = MR_S("a"), .value = MR_S("9")}, p.rev);
  CHECK_INT(ts_submit(&t, c, &p), MR_E_CONFLICT);
  CHECK(get(&t, &g, "b") == NULL);
  CHECK_STR(mr_str_c(get(&t, &g, "a")), "2");
  CHECK_INT(del(&t, "a", o.rev, NULL), MR_OK);
  CHECK_INT(put(&t, "", "1", 0, -1, NULL), MR_E_INVALID);
  got_free(&g);
  ts_close(&t);
}

TEST(kv_expired_is_absent_and_swept)
{
  struct ts t;
  struct got g = {0};
  struct outcome o, old;
  struct mr_commit *c;
  int64_t now = mr_wall_us(test_sys()), soon = now + 3600000000;
  char key[16];

  ts_open(&t, test_dir());
  CHECK_INT(put(&t, "old", "1", now - 1, -1, &old), MR_OK);
  CHECK_INT(put(&t, "new", "1", soon, -1, NULL), MR_OK);
  CHECK_INT(put(&t, "ever", "1", 0, -1, NULL), MR_OK);
  CHECK(get(&t, &g, "old") == NULL);
  CHECK(get(&t, &g, "new") != NULL);
  CHECK_INT(g.kv[0].expires_us, soon);
  ts_read(&t, &g, mr_read_kvs, t.ws, MR_S("kv"), MR_S(""), MR_S(""), 10);
  CHECK_INT(g.n, 2);
  CHECK_INT(put(&t, "old", "2", 0, old.rev, &o), MR_E_CONFLICT);
  CHECK(strcmp(o.code_text, "not_found") == 0);
  CHECK_INT(put(&t, "old", "2", now - 1, 0, NULL), MR_OK); /* absent, so it may be made */
  for (int i = 0; i < 10; i++) {
    snprintf(key, sizeof key, "gone%d", i);
    CHECK_INT(put(&t, key, "1", now - 1, -1, NULL), MR_OK);
  }
  for (int i = 0, left = 11; i < 4; i++, left -= 4) { /* small steps, until nothing is left */
    c = ts_commit(&t);
    mr_commit_kv_sweep(c, 4);
    CHECK_INT(ts_submit(&t, c, &o), MR_OK);
    CHECK_INT(o.swept, left >= 4 ? 4 : left > 0 ? left : 0);
  }
  ts_read(&t, &g, mr_read_kvs, t.ws, MR_S("kv"), MR_S(""), MR_S(""), 10);
  CHECK_INT(g.n, 2);
  got_free(&g);
  ts_close(&t);
}

static int64_t work(struct ts *t) /* done by the writer's statements so far */
{
  struct mr_sqlite *q = t->s->self;
  int64_t n = 0;
  for (int i = 0; i < MR_W_COUNT; i++)
    n += sqlite3_stmt_status(q->st[i], SQLITE_STMTSTATUS_VM_STEP, 0);
  return n;
}

/* What stays costs the sweep nothing: not the values that last, not those whose time is to come. */
TEST(kv_sweep_looks_at_what_is_over)
{
  struct ts t;
  struct outcome o;
  struct mr_commit *c;
  int64_t now = mr_wall_us(test_sys()), before;
  char key[16];

  ts_open(&t, test_dir());
  c = ts_commit(&t);
  for (int i = 0; i < 3000; i++) {
    snprintf(key, sizeof key, "k%d", i);
    mr_commit_kv_put(c, &(struct mr_kv_row){.space = MR_S("kv"), .key = mr_str_c(key), .value = MR_S("1"),
                                            .expires_us = i % 2 ? 0 : now + 3600000000}, -1);
  }
  CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
  CHECK_INT(put(&t, "over", "1", now - 1, -1, NULL), MR_OK);
  before = work(&t);
  c = ts_commit(&t);
  mr_commit_kv_sweep(c, 300);
  CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  CHECK_INT(o.swept, 1);
  CHECK(work(&t) - before < 1500);
  ts_close(&t);
}

TEST(kv_lists)
{
  for (int i = 0; i < 2; i++) {
    struct ts t;
    struct got g = {0};
    const char *keys[] = {"b", "a/2", "a/1", "a", "a0", "a/\xC3\xA9", "B"};

    ts_open(&t, both[i] ? both[i] : test_dir());
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
      CHECK_INT(put(&t, keys[k], "1", 0, -1, NULL), MR_OK);
    ts_read(&t, &g, mr_read_kvs, t.ws, MR_S("kv"), MR_S(""), MR_S(""), 100);
    CHECK_INT(g.n, 7);
    CHECK_STR(g.kv[0].key, "B"); /* by bytes */
    CHECK_STR(g.kv[6].key, "b");
    ts_read(&t, &g, mr_read_kvs, t.ws, MR_S("kv"), MR_S("a/"), MR_S(""), 2);
    CHECK_INT(g.n, 2);
    CHECK(g.more);
    CHECK_STR(g.kv[0].key, "a/1");
    ts_read(&t, &g, mr_read_kvs, t.ws, MR_S("kv"), MR_S("a/"), MR_S("a/2"), 2);
    CHECK_INT(g.n, 1);
    CHECK(!g.more);
    CHECK_STR(g.kv[0].key, "a/\xC3\xA9");
    ts_read(&t, &g, mr_read_kvs, t.ws, MR_S("kv"), MR_S("a/"), MR_S("B"), 9); /* past what is before them all */
    CHECK_INT(g.n, 3);
    ts_read(&t, &g, mr_read_kvs, t.ws, MR_S("kv"), MR_S("a/"), MR_S("a0"), 9); /* and behind them */
    CHECK_INT(g.n, 0);
    ts_read(&t, &g, mr_read_kvs, t.ws, MR_S("kv"), MR_S("a/1"), MR_S("a/1"), 9);
    CHECK_INT(g.n, 0);
    ts_read(&t, &g, mr_read_kvs, t.ws, MR_S("other"), MR_S(""), MR_S(""), 2);
    CHECK_INT(g.n, 0);
    got_free(&g);
    ts_close(&t);
  }
}

/* ---- the log of all sessions ---- */

static int64_t append(struct ts *t, const char *session, const char *type, bool private)
{
  struct mr_commit *c = ts_commit(t);
  struct mr_log_row r = ts_log(type, "", 5, "{\"e\":1}");
  struct outcome o;
  r.kind = private ? MR_ROW_PRIVATE : MR_ROW_WIRE;
  mr_commit_log(c, mr_str_c(session), &r, 1);
  CHECK_INT(ts_submit(t, c, &o), MR_OK);
  return o.pos;
}

TEST(all_sessions_in_log_order)
{
  for (int i = 0; i < 2; i++) {
    struct ts t;
    struct got g = {0};
    struct mr_commit *c;
    struct mr_session_row s = ts_session("sesn_1", 1);
    struct mr_str types[] = {MR_S("session.error"), MR_S("session.status_idle")};
    int64_t first, last;

    ts_open(&t, both[i] ? both[i] : test_dir());
    s.agent = MR_S("{\"name\":\"payer\"}");
    c = ts_commit(&t);
    mr_commit_session_new(c, &s);
    CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
    ts_session_make(&t, "sesn_2", 1);
    first = append(&t, "sesn_1", "user.message", false);
    append(&t, "sesn_2", "session.error", false);
    append(&t, "sesn_1", "model.reply", true);
    append(&t, "sesn_1", "session.status_idle", false);
    last = append(&t, "sesn_2", "user.message", false);
    ts_read(&t, &g, mr_read_all, 0, INT64_MAX, NULL, 0, 100);
    CHECK_INT(g.n, 4);
    CHECK_STR(g.all[0].session_id, "sesn_1");
    CHECK_STR(g.all[0].agent_name, "payer");
    CHECK_STR(g.all[0].agent_id, "agent_1");
    CHECK_STR(g.all[0].type, "user.message");
    CHECK_STR(g.all[1].session_id, "sesn_2");
    CHECK_STR(g.all[1].agent_name, "");
    CHECK_STR(g.all[1].body, "{\"e\":1}");
    CHECK_INT(g.all[3].pos, last);
    ts_read(&t, &g, mr_read_all, first, last - 1, types, 2, 1);
    CHECK_INT(g.n, 1);
    CHECK(g.more);
    CHECK_STR(g.all[0].type, "session.error");
    c = ts_commit(&t);
    mr_commit_session_delete(c, MR_S("sesn_2"));
    CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
    ts_read(&t, &g, mr_read_all, 0, INT64_MAX, NULL, 0, 100);
    CHECK_INT(g.n, 2); /* of a deleted session: passed over */
    got_free(&g);
    ts_close(&t);
  }
}
